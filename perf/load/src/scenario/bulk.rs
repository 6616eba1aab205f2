//! Downloads and uploads, every byte checked.

use std::fs;
use std::time::Instant;

use crate::connection::Connection;
use crate::failure::{Failure, Kind};
use crate::response::{self, Expected};
use crate::stage::SERVER_NAME;

use super::{Client, patiently};

/// Downloads on one connection until the run ends; the one under way is checked to its end.
pub async fn downloads(client: &Client) -> Result<(), Failure> {
    let shared = &client.shared;
    let mut connection = patiently(Connection::open(&shared.to, client.config.clone())).await?;
    while !shared.metrics.has_ended() {
        let begun = client.begin().await?;
        let nonce = shared.nonces.next();
        let request = format!("GET /bulk?n={nonce} HTTP/1.1\r\nHost: {SERVER_NAME}\r\n\r\n");
        patiently(async {
            connection.send(request.as_bytes()).await?;
            let expected = Expected::Content(nonce, shared.plan.bulk_bytes);
            let moved = |bytes| shared.metrics.moved(bytes);
            response::read(&mut connection, &shared.answers, &expected, moved).await
        })
        .await?;
        shared.metrics.done(Instant::now() - begun);
    }
    patiently(connection.finish()).await
}

/// Uploads on one connection until the run ends. The upstream stores each one; it is read back and
/// compared.
pub async fn uploads(client: &Client) -> Result<(), Failure> {
    let shared = &client.shared;
    let mut connection = patiently(Connection::open(&shared.to, client.config.clone())).await?;
    let bytes = shared.plan.bulk_bytes;
    while !shared.metrics.has_ended() {
        let begun = client.begin().await?;
        let nonce = shared.nonces.next();
        let request = format!(
            "PUT /up/{nonce} HTTP/1.1\r\nHost: {SERVER_NAME}\r\nContent-Length: {bytes}\r\n\r\n"
        );
        patiently(async {
            connection.send(request.as_bytes()).await?;
            let mut offset = 0;
            while offset < bytes {
                let piece = shared.answers.content_at(offset);
                let piece = &piece[..piece.len().min((bytes - offset) as usize)];
                connection.send(piece).await?;
                shared.metrics.moved(piece.len());
                offset += piece.len() as u64;
            }
            response::read(&mut connection, &shared.answers, &Expected::Stored, |_| {}).await
        })
        .await?;
        let stored = shared.uploads.join(nonce.to_string());
        let content = fs::read(&stored);
        let _ = fs::remove_file(&stored);
        let content = content.map_err(|error| Failure::new(Kind::Content, error))?;
        if content.len() as u64 != bytes || !shared.answers.is_content(0, &content) {
            return Err(Failure::new(Kind::Content, "what was stored is not what was sent"));
        }
        shared.metrics.done(Instant::now() - begun);
    }
    patiently(connection.finish()).await
}
