//! Sends all of some bytes, and receives some: also when every buffer of the worker is in use.

use std::io;

use crate::ring::{self, BUFFER_BYTES, Socket};

use super::worker::Worker;

/// Sends all of `bytes`: at once what fits, the rest as the peer takes it.
pub async fn send_all(socket: &Socket, mut bytes: Vec<u8>) -> io::Result<()> {
    if bytes.is_empty() {
        return Ok(());
    }
    let mut sent = socket.send_now(&bytes)?;
    while sent < bytes.len() {
        let (more, back) = ring::send(socket, bytes, sent).await;
        bytes = back;
        match more? {
            0 => return Err(io::ErrorKind::WriteZero.into()),
            more => sent += more,
        }
    }
    Ok(())
}

/// Waits for bytes and appends them. Returns how many came; 0 at the end of the stream.
pub async fn receive_into(
    socket: &Socket,
    worker: &Worker,
    input: &mut Vec<u8>,
) -> io::Result<usize> {
    match ring::receive(socket, worker.buffers()).await {
        Ok(Some(buffer)) => {
            input.extend_from_slice(&buffer);
            Ok(buffer.len())
        }
        Ok(None) => Ok(0),
        Err(error) if worker.out_of_buffers(&error) => loop {
            ring::readable(socket).await?;
            let mut room = [0; BUFFER_BYTES];
            if let Some(received) = socket.receive_now(&mut room)? {
                input.extend_from_slice(room.get(..received).unwrap_or_default());
                return Ok(received);
            }
        },
        Err(error) => Err(error),
    }
}
