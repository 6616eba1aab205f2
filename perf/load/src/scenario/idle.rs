//! A connection that has been used once and then stands, both sides of it open.

use std::time::Instant;

use crate::connection::Connection;
use crate::failure::Failure;
use crate::response::{self, Expected};

use super::{Client, patiently, small_request};

/// One request, quiet until the run ends, and one more request that shows that it stood.
pub async fn stand(client: &Client) -> Result<(), Failure> {
    let shared = &client.shared;
    let ask = async |connection: &mut Connection| {
        let nonce = shared.nonces.next();
        connection.send(small_request(nonce, "keep-alive").as_bytes()).await?;
        let expected = Expected::Small(nonce);
        response::read(connection, &shared.answers, &expected, |_| {}).await
    };
    let begun = Instant::now();
    let mut connection = patiently(async {
        let mut connection = Connection::open(&shared.to, client.config.clone()).await?;
        ask(&mut connection).await?;
        Ok(connection)
    })
    .await?;
    shared.metrics.done(Instant::now() - begun);
    shared.ready.set(shared.ready.get() + 1);
    shared.metrics.until_end().await;
    patiently(ask(&mut connection)).await?;
    patiently(connection.finish()).await
}
