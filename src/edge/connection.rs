//! The life of one connection, top to bottom: hello, choice, handshake, dial, relay.

use std::io;
use std::pin::Pin;
use std::sync::Arc;

use crate::clock;
use crate::name::ServerName;
use crate::observe::counters::Report;
use crate::observe::names::{Reason, Side};
use crate::ring::{self, Socket};
use crate::snapshot::{KeyKind, ProxyVersion, Route};

use super::ahead::{Ahead, Wanted};
use super::client::identify;
use super::deadline::Timed;
use super::dial::{Visitor, dial};
use super::ended::{Answer, Ended, PLAIN_HTTP_400};
use super::handshake::{handshake, receive};
use super::hello::{self, ClientHello, Destination, Reading, Sni};
use super::limits::{LINGER, LINGER_BYTES};
use super::line::{Line, Stage};
use super::negotiated;
use super::page;
use super::proxy_protocol::{TlsFacts, write_v1, write_v2};
use super::records::Records;
use super::relay::relay;
use super::worker::{Entry, Timeouts, Worker};

/// Serves one accepted connection to its end, and accounts for it.
#[expect(
    clippy::manual_async_fn,
    reason = "an async fn keeps room for its arguments twice, and idle connections are made of this"
)]
pub fn serve(entry: Entry, port: u16, timeouts: Timeouts) -> impl Future<Output = ()> {
    async move {
        let (line, worker) = (&*entry.line, &*entry.worker);
        let life = async {
            // Boxed: an idle relay does not keep the room that the way to it needs. In one box: an allocator's pages hold one
            // class of sizes, and nothing that stays is as large as this.
            let admitted = Box::pin(admit(line, port, &timeouts, worker)).await?;
            let Some(Admitted { route, relay }) = admitted else { return Ok(()) };
            relay.await.map_err(|ended| failure(ended, route))
        };
        let Err(failure) = Timed::new(line, life).await else { return };
        let Failure { ended, server_name, route } = *failure;
        worker.counters().ended(ended.reason).add(1);
        worker.report(ended.reason, || Report {
            side: ended.side,
            reason: ended.reason,
            client: line.source(),
            server_name,
            route: route.map(|route| route.from.clone()),
            detail: ended.detail,
        });
    }
}

/// A connection that ended before its time, with what is known of it for the log.
struct Failure {
    ended: Ended,
    server_name: Option<Box<str>>,
    route: Option<Arc<Route>>,
}

/// The end of a connection whose route is known.
fn failure(ended: Ended, route: Arc<Route>) -> Box<Failure> {
    Box::new(Failure { ended, server_name: None, route: Some(route) })
}

/// A connection that only has to be relayed. It keeps nothing of the snapshot but its route.
struct Admitted<R> {
    route: Arc<Route>,
    relay: Pin<Box<R>>,
}

/// From the first byte to a connected upstream. `None`: all is done already.
async fn admit<'a>(
    line: &'a Line,
    port: u16,
    timeouts: &Timeouts,
    worker: &'a Worker,
) -> Result<Option<Admitted<impl Future<Output = Result<(), Ended>> + use<'a>>>, Box<Failure>> {
    let Some(Greeted { route, destination, records, server_name }) =
        greet(line, port, worker).await?
    else {
        return Ok(None);
    };
    match destination {
        Destination::Page => {
            let served = Box::pin(page::serve(line, worker, timeouts, records, server_name)).await;
            served.map(|()| None).map_err(|ended| failure(ended, route))
        }
        Destination::Upstream(id, upstream) => {
            let visitor = introduce(line, worker, &route, &records, server_name.as_deref());
            match dial(line, worker, timeouts, (id, &upstream), visitor).await {
                Ok(dialled) => {
                    // What it took to come this far is let go now.
                    worker.stir();
                    let relay = Box::pin(relay(line, worker, timeouts.idle, records, dialled));
                    Ok(Some(Admitted { route, relay }))
                }
                Err(ended) => Err(failure(ended, route)),
            }
        }
    }
}

/// A client whose handshake is complete.
struct Greeted {
    route: Arc<Route>,
    destination: Destination,
    records: Records,
    /// For whoever passes it on: the page shows it, and a PROXY header holds it.
    server_name: Option<Box<str>>,
}

/// From the first byte to the end of the handshake. A client that gets no further is told why. `None`: it
/// was an issuer's validation, which is over.
async fn greet(line: &Line, port: u16, worker: &Worker) -> Result<Option<Greeted>, Box<Failure>> {
    let mut server_name = None;
    match shake_hands(line, port, worker, &mut server_name).await {
        Ok(greeted) => Ok(greeted),
        Err(ended) => {
            send_away(line, &ended).await;
            Err(Box::new(Failure { ended, server_name, route: None }))
        }
    }
}

async fn shake_hands(
    line: &Line,
    port: u16,
    worker: &Worker,
    server_name: &mut Option<Box<str>>,
) -> Result<Option<Greeted>, Ended> {
    let input = identify(line, worker).await?;
    let (hello, input) = read_hello(line, worker, input).await?;
    if hello.is_validation {
        *server_name = Some(hello.server_name_for_log());
        return be_validated(line, worker, &hello, input).await.map(|()| None);
    }
    let local_address = || Some(ServerName::from_ip(line.destination()?.ip()));
    let choice =
        worker.read(|snapshot| hello.choose(snapshot, port, local_address)).map_err(|reason| {
            *server_name = Some(hello.server_name_for_log());
            Ended::new(Side::Client, reason)
        })?;
    let config = worker
        .configs()
        .get(&choice.route.tls, hello.prefers_chacha20)
        .map_err(|error| Ended::because(Side::Ours, Reason::Failed, error))?;
    let share = hello.x25519_share(&config.crypto_provider().kx_groups);
    let under_way = share.map(|_| worker.begin_handshake());
    let ahead = match share {
        Some(peer) => {
            let signs = choice.key_kind == KeyKind::EcdsaP256 && !hello.offers_to_resume;
            worker.compute(Wanted { peer, signs }).await
        }
        None => Ahead::default(),
    };
    if let Some(reason) = line.interrupted() {
        *server_name = Some(hello.server_name_for_log());
        return Err(Ended::new(Side::Ours, reason));
    }
    let records = handshake(line, worker, config, choice.certified_key, ahead, input)
        .await
        .inspect_err(|_| {
            *server_name = Some(hello.server_name_for_log());
        })?;
    drop(under_way);
    worker.count_handshake(records.tls());
    let server_name = match (&choice.destination, &hello.server_name) {
        (Destination::Upstream(..), _) if choice.route.send_proxy.is_none() => None,
        (_, Sni::Name(name)) => Some(name.as_str().into()),
        _ => None,
    };
    Ok(Some(Greeted { route: choice.route, destination: choice.destination, records, server_name }))
}

/// Answers TLS-ALPN-01 (RFC 8737): the handshake is all that the issuer wants to see.
async fn be_validated(
    line: &Line,
    worker: &Worker,
    hello: &ClientHello,
    input: Vec<u8>,
) -> Result<(), Ended> {
    let certified_key = worker
        .read(|snapshot| hello.choose_validation(snapshot))
        .map_err(|reason| Ended::new(Side::Client, reason))?;
    let config = worker
        .configs()
        .validation()
        .map_err(|error| Ended::because(Side::Ours, Reason::Failed, error))?;
    let records = handshake(line, worker, config, certified_key, Ahead::default(), input).await?;
    worker.count_handshake(records.tls());
    linger(line).await;
    Ok(())
}

/// Reads until the ClientHello is whole; gives back the bytes, for rustls reads them too.
async fn read_hello(
    line: &Line,
    worker: &Worker,
    mut input: Vec<u8>,
) -> Result<(ClientHello, Vec<u8>), Ended> {
    loop {
        let reason = match hello::read(&input) {
            Reading::More => {
                receive(line, worker, &mut input).await?;
                continue;
            }
            Reading::Hello(hello) => {
                worker.count_hello();
                return Ok((hello, input));
            }
            Reading::PlainHttp => Reason::PlainHttp,
            Reading::NotTls => Reason::NotTls,
            Reading::TooLong => Reason::HelloTooLong,
            Reading::Malformed => Reason::HelloMalformed,
        };
        return Err(Ended::new(Side::Client, reason));
    }
}

/// What the upstream is told of the client, and must speak.
fn introduce<'r>(
    line: &Line,
    worker: &Worker,
    route: &'r Route,
    records: &'r Records,
    server_name: Option<&str>,
) -> Visitor<'r> {
    let tls = records.tls();
    let proxy_header = match route.send_proxy {
        None => Vec::new(),
        Some(ProxyVersion::V1) => write_v1(line.addresses().as_ref()),
        Some(ProxyVersion::V2) => {
            let facts = TlsFacts {
                version: negotiated::version(tls),
                cipher_suite: &negotiated::cipher_suite(tls),
                alpn: tls.alpn_protocol(),
                server_name,
            };
            write_v2(line.addresses().as_ref(), &facts, &worker.unique_ids().next())
        }
    };
    Visitor { route, proxy_header, alpn: tls.alpn_protocol() }
}

impl ClientHello {
    fn server_name_for_log(&self) -> Box<str> {
        match &self.server_name {
            Sni::Absent => "(none)".into(),
            Sni::Invalid => "(invalid)".into(),
            Sni::Name(name) => name.as_str().into(),
        }
    }
}

/// Tells a client why it is not served, and gives it a moment to read that: closing a socket with unread
/// bytes resets it, and a reset throws away what was sent.
async fn send_away(line: &Line, ended: &Ended) {
    let answer = ended.answer();
    let client = line.client();
    // What does not fit into an empty socket buffer is not sent: these answers are tiny.
    let _ = match answer {
        Answer::Alert(alert) => client.send_now(&alert.record()),
        Answer::PlainHttp400 => client.send_now(PLAIN_HTTP_400),
        Answer::Close => Ok(0),
    };
    if ended.reason == Reason::ClosedBeforeHello {
        return;
    }
    linger(line).await;
}

/// Receives what is there and throws it away. Not where it is waited for: the future would have room for it.
fn discard(client: &Socket) -> io::Result<Option<usize>> {
    client.receive_now(&mut [0; 2048])
}

/// Finishes our side and waits for the client to finish its own, a little.
pub async fn linger(line: &Line) {
    let client = line.client();
    client.finish();
    line.enter(Stage::Closing, clock::steady() + LINGER);
    let mut discarded = 0;
    while discarded < LINGER_BYTES {
        match discard(client) {
            Ok(Some(0)) | Err(_) => return,
            Ok(Some(received)) => discarded += received,
            Ok(None) => {
                if line.interrupted().is_some() || ring::readable(client).await.is_err() {
                    return;
                }
            }
        }
    }
}
