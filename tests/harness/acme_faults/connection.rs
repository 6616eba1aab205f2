//! One connection of the proxy: HTTPS with keep-alive towards the client, a connection per request towards
//! Pebble.

use std::collections::HashMap;
use std::io::{BufReader, Error, Read, Result, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, ServerConfig, ServerConnection, StreamOwned};
use time::OffsetDateTime;

use super::extensions::Extensions;
use super::fault::Script;
use super::hook::Hook;
use super::{Fault, Next, Phase, Point, Request, Role};
use crate::harness::PATIENCE;
use crate::harness::http::Message;

#[derive(Default)]
pub struct State {
    pub script: Script,
    pub extensions: Extensions,
    pub requests: Vec<Request>,
    pub counts: HashMap<Role, usize>,
    pub hook: Option<Hook>,
}

pub struct Shared {
    pub state: Mutex<State>,
    pub pebble: SocketAddr,
    pub client: Arc<ClientConfig>,
    pub server: Arc<ServerConfig>,
    pub ended: AtomicBool,
}

type Stream = StreamOwned<ServerConnection, TcpStream>;

impl Shared {
    /// A hook that panics must not hide its message behind a poisoned lock.
    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One connection. What fails here is the client's to notice and the test's to judge.
    pub fn serve(&self, socket: TcpStream) -> Option<()> {
        socket.set_nodelay(true).ok()?;
        let tls = ServerConnection::new(self.server.clone()).ok()?;
        let mut stream = BufReader::new(StreamOwned::new(tls, socket));
        while let Some(message) = Message::read_request(&mut stream).ok()? {
            let closes =
                message.header("Connection").is_some_and(|v| v.eq_ignore_ascii_case("close"));
            self.answer(message, stream.get_mut())?;
            if closes {
                break;
            }
        }
        stream.get_mut().conn.send_close_notify();
        stream.get_mut().flush().ok()
    }

    /// Answers a request; none when the connection is over with it.
    fn answer(&self, message: Message, stream: &mut Stream) -> Option<()> {
        let (request, fault) = self.note(message);
        match &fault {
            Some(Fault::Hang) => {
                while stream.read(&mut [0; 1024]).ok()? > 0 {}
                return None;
            }
            Some(Fault::Reset) => return reset(stream),
            Some(answer @ Fault::Answer { .. }) => {
                let mut answer = answer.answer(OffsetDateTime::now_utc())?;
                if request.message.word(0) == "HEAD" {
                    answer.body.clear();
                }
                return answer.write(stream).ok();
            }
            _ => {}
        }
        if self.call(Phase::Before, &request) == Next::Cut {
            return reset(stream);
        }
        let ours = self.state().extensions.answer(&request, OffsetDateTime::now_utc());
        let Some(mut answer) = ours.or_else(|| self.forward(&request.message).ok()) else {
            return reset(stream);
        };
        self.state().extensions.complete(&request, &mut answer);
        if self.call(Phase::After, &request) == Next::Cut {
            return reset(stream);
        }
        match fault {
            Some(Fault::LoseAnswer) => reset(stream),
            Some(Fault::Truncate) => {
                let bytes = answer.bytes();
                let sent = bytes.len() - answer.body.len().div_ceil(2);
                stream.write_all(&bytes[..sent]).and_then(|()| stream.flush()).ok()?;
                None
            }
            Some(Fault::RetryAfter(retry_after)) => {
                answer.set("Retry-After", retry_after.value(OffsetDateTime::now_utc()));
                answer.write(stream).ok()
            }
            _ => answer.write(stream).ok(),
        }
    }

    fn note(&self, message: Message) -> (Request, Option<Fault>) {
        let mut state = self.state();
        let request = Request::new(message, |role| {
            let count = state.counts.entry(role).or_default();
            *count += 1;
            *count
        });
        let fault = state.script.next(&request);
        state.requests.push(request.clone());
        (request, fault)
    }

    fn call(&self, phase: Phase, request: &Request) -> Next {
        // Taken out of the lock: a hook may block, and may ask for counts.
        let hook = self.state().hook.clone();
        hook.map_or(Next::Continue, |hook| hook(&Point { phase, request }))
    }

    /// Pebble's answer. It builds its URLs from Host and checks them against the JWS, so Host stays.
    fn forward(&self, message: &Message) -> Result<Message> {
        // A connection per request: none is ever found stale after a restart of Pebble, and nothing is
        // sent twice.
        let socket = TcpStream::connect(self.pebble)?;
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        let name = ServerName::IpAddress(self.pebble.ip().into());
        let tls = ClientConnection::new(self.client.clone(), name).map_err(Error::other)?;
        let mut message = message.clone();
        message.set("Connection", "close");
        let mut answer = message.exchange(StreamOwned::new(tls, socket))?;
        answer.remove("Connection");
        Ok(answer)
    }
}

/// Ends the connection so that the client sees a reset and not an orderly end.
fn reset(stream: &mut Stream) -> Option<()> {
    let _ = socket2::SockRef::from(&stream.sock).set_linger(Some(Duration::ZERO));
    None
}
