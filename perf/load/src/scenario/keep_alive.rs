//! One connection that asks again and again.

use std::time::Instant;

use crate::answers::{Answers, Nonce};
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
        patiently(ask(&mut connection, &shared.answers, shared.nonces.next())).await?;
        shared.metrics.done(Instant::now() - begun);
    }
    patiently(connection.finish()).await
}

/// One request, and its whole response.
pub(crate) async fn ask(
    connection: &mut Connection,
    answers: &Answers,
    nonce: Nonce,
) -> Result<(), Failure> {
    connection.send(small_request(nonce, "keep-alive").as_bytes()).await?;
    response::read(connection, answers, &Expected::Small(nonce), |_| {}).await
}
