//! A connection for one request, or for none.

use std::time::Instant;

use crate::connection::{Connection, Incoming};
use crate::failure::{Failure, Kind};
use crate::response::{self, Expected};

use super::{Client, patiently, small_request};

/// Handshake, request, response, and the end as the server makes it.
pub async fn connection(client: &Client) -> Result<(), Failure> {
    let shared = &client.shared;
    let begun = client.begin().await?;
    let resumed = patiently(async {
        let mut connection = Connection::open(&shared.to, client.config.clone()).await?;
        let resumed = connection.resumed();
        let nonce = shared.nonces.next();
        connection.send(small_request(nonce, "close").as_bytes()).await?;
        let expected = Expected::Small(nonce);
        response::read(&mut connection, &shared.answers, &expected, |_| {}).await?;
        if connection.receive(|_| Ok(0)).await? != Incoming::End {
            return Err(Failure::new(Kind::Response, "no end"));
        }
        connection.close();
        Ok(resumed)
    })
    .await?;
    shared.metrics.done(Instant::now() - begun);
    shared.metrics.shook_hands(resumed);
    if !client.has_ticket.replace(true) {
        shared.ready.set(shared.ready.get() + 1);
    }
    Ok(())
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
