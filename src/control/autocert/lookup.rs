//! Resolves names that certificates name, a few at once.
//!
//! A lookup occupies a thread of the pool until it ends by itself, for nothing can cancel it. While no resolver
//! answers, lookups for a thousand responders must not keep the pool from files and orders.

use std::io;
use std::net::{IpAddr, SocketAddr};

use tokio::sync::Semaphore;

/// Half of the pool's threads.
const AT_ONCE: usize = 2;
static TURNS: Semaphore = Semaphore::const_new(AT_ONCE);

/// The addresses of this name. Whoever waits may give up; the lookup keeps its turn until it has ended.
///
/// # Errors
/// The system's.
pub async fn look_up(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    // An address is its own answer, and waits for nobody.
    if let Ok(address) = host.parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(address, port)]);
    }
    let host = host.to_owned();
    in_turn(
        &TURNS,
        async move { tokio::net::lookup_host((host, port)).await.map(Iterator::collect) },
    )
    .await
}

async fn in_turn<T: Send + 'static>(
    turns: &'static Semaphore,
    lookup: impl Future<Output = io::Result<T>> + Send + 'static,
) -> io::Result<T> {
    let turn = turns.acquire().await.map_err(io::Error::other)?;
    let lookup = tokio::spawn(async move {
        let found = lookup.await;
        drop(turn);
        found
    });
    lookup.await.map_err(io::Error::other)?
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::sync::oneshot;

    #[tokio::test]
    async fn a_lookup_that_nobody_waits_for_keeps_its_turn_until_it_ends() {
        static TURNS: Semaphore = Semaphore::const_new(1);
        let (end, ended) = oneshot::channel::<()>();
        let endless = in_turn(&TURNS, async move {
            let _ = ended.await;
            Ok(())
        });
        let mut endless = Box::pin(endless);
        tokio::select! {
            biased;
            _ = &mut endless => unreachable!("it has not ended"),
            () = tokio::task::yield_now() => {}
        }
        drop(endless);
        assert_eq!(TURNS.available_permits(), 0);
        end.send(()).unwrap();
        in_turn(&TURNS, async { Ok(()) }).await.unwrap();
    }

    #[tokio::test]
    async fn an_address_waits_for_no_lookup() {
        let _all = TURNS.acquire_many(2).await.unwrap();
        for address in ["192.0.2.1", "2001:db8::1"] {
            let found = look_up(address, 80).await.unwrap();
            assert_eq!(found, [SocketAddr::new(address.parse().unwrap(), 80)]);
        }
    }
}
