//! A connection for one request, or for none.

use std::sync::Arc;
use std::time::Instant;

use rustls::ClientConfig;

use crate::answers::{Answers, Nonce};
use crate::connection::{Connection, Destination, Incoming};
use crate::failure::{Failure, Kind};
use crate::response::{self, Expected};

use super::{Client, patiently, small_request};

/// Handshake, request, response, and the end as the server makes it.
pub async fn connection(client: &Client) -> Result<(), Failure> {
    let shared = &client.shared;
    let begun = client.begin().await?;
    let asked = exchange(&shared.to, client.config.clone(), &shared.answers, shared.nonces.next());
    let resumed = patiently(asked).await?;
    shared.metrics.done(Instant::now() - begun);
    shared.metrics.shook_hands(resumed);
    if !client.has_ticket.replace(true) {
        shared.ready.set(shared.ready.get() + 1);
    }
    Ok(())
}

/// That one connection; says whether its handshake was a resumed one.
pub(crate) async fn exchange(
    to: &Destination,
    config: Arc<ClientConfig>,
    answers: &Answers,
    nonce: Nonce,
) -> Result<bool, Failure> {
    let mut connection = Connection::open(to, config).await?;
    let resumed = connection.resumed();
    connection.send(small_request(nonce, "close").as_bytes()).await?;
    response::read(&mut connection, answers, &Expected::Small(nonce), |_| {}).await?;
    if connection.receive(|_| Ok(0)).await? != Incoming::End {
        return Err(Failure::new(Kind::Response, "no end"));
    }
    connection.close();
    Ok(resumed)
}

/// Handshake, then the client closes.
pub async fn handshake(client: &Client) -> Result<(), Failure> {
    let shared = &client.shared;
    let begun = client.begin().await?;
    patiently(async {
        let connection = Connection::open(&shared.to, client.config.clone()).await?;
        connection.finish().await
    })
    .await?;
    shared.metrics.done(Instant::now() - begun);
    shared.metrics.shook_hands(false);
    Ok(())
}
