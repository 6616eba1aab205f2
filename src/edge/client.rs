//! Who the client is: by its socket, or by the PROXY header that comes first from a trusted network.

use crate::observe::names::{Reason, Side};

use super::ended::Ended;
use super::handshake::receive;
use super::line::Line;
use super::proxy_protocol::{self, Reading};
use super::worker::Worker;

/// Reads the PROXY header, if the connection comes from a network that must send one, and notes what it
/// says. Returns what was received behind it.
pub async fn identify(line: &Line, worker: &Worker) -> Result<Vec<u8>, Ended> {
    let mut input = Vec::new();
    if !worker.expects_proxy_header(line) {
        return Ok(input);
    }
    loop {
        receive(line, worker, &mut input).await?;
        let reason = match proxy_protocol::read(&input) {
            Reading::More => continue,
            Reading::Header { addresses, len } => {
                if let Some(addresses) = addresses {
                    line.set_proxied(addresses);
                }
                input.drain(..len.min(input.len()));
                return Ok(input);
            }
            Reading::Absent => Reason::NoProxyHeader,
            Reading::TooLong | Reading::Malformed => Reason::BadProxyHeader,
        };
        return Err(Ended::new(Side::Client, reason));
    }
}
