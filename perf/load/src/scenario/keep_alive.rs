//! One connection that asks again and again.

use std::time::Instant;

use crate::connection::Connection;
use crate::failure::Failure;
use crate::response::{self, Expected};

use super::{Client, patiently, small_request};

/// Requests on one connection until the run ends.
pub async fn requests(client: &Client) -> Result<(), Failure> {
    let shared = &client.shared;
    let mut connection = patiently(Connection::open(&shared.to, client.config.clone())).await?;
    while !shared.metrics.has_ended() {
        let begun = client.begin().await?;
        let nonce = shared.nonces.next();
        patiently(async {
            connection.send(small_request(nonce, "keep-alive").as_bytes()).await?;
            let expected = Expected::Small(nonce);
            response::read(&mut connection, &shared.answers, &expected, |_| {}).await
        })
        .await?;
        shared.metrics.done(Instant::now() - begun);
    }
    patiently(connection.finish()).await
}
