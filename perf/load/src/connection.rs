//! One TLS connection of a simulated client: opened and verified, written to, read from, closed.

use std::cell::RefCell;
use std::io::{self, BufRead, ErrorKind, IoSlice, Write};
use std::net::{Shutdown, SocketAddr};
use std::sync::Arc;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, HandshakeKind, ProtocolVersion};
use tokio::net::TcpStream;

use crate::failure::{Failure, Kind};
use crate::plan::Group;
use crate::trust::CIPHER_SUITE;

thread_local! {
    /// What a read takes at most, whichever connection reads: 64 KiB, several records.
    static RECEIVED: RefCell<Vec<u8>> = RefCell::new(vec![0; 64 * 1024]);
}

/// Where a connection goes, and what it must negotiate.
pub struct Destination {
    pub address: SocketAddr,
    pub name: ServerName<'static>,
    pub group: Group,
}

pub struct Connection {
    tls: ClientConnection,
    socket: TcpStream,
    resumed: bool,
}

impl Connection {
    /// Connects, shakes hands, and checks what was negotiated.
    pub async fn open(to: &Destination, config: Arc<ClientConfig>) -> Result<Self, Failure> {
        let connect = |error| Failure::new(Kind::Connect, error);
        let socket = TcpStream::connect(to.address).await.map_err(connect)?;
        socket.set_nodelay(true).map_err(connect)?;
        let tls = ClientConnection::new(config, to.name.clone())
            .map_err(|error| Failure::new(Kind::Handshake, error))?;
        let mut connection = Self { tls, socket, resumed: false };
        loop {
            connection.flush().await?;
            if !connection.tls.is_handshaking() {
                break;
            }
            if connection.fill(None).await? == Filled::End {
                return Err(Failure::new(Kind::Handshake, "the server closed"));
            }
        }
        connection.check(to.group)?;
        Ok(connection)
    }

    fn check(&mut self, group: Group) -> Result<(), Failure> {
        let got_group = self.tls.negotiated_key_exchange_group().map(|group| group.name());
        let got_suite = self.tls.negotiated_cipher_suite().map(|suite| suite.suite());
        let version = self.tls.protocol_version();
        let expected = got_suite == Some(CIPHER_SUITE)
            && version == Some(ProtocolVersion::TLSv1_3)
            && got_group.is_some_and(|got| format!("{got:?}") == group.name());
        if !expected {
            let got = format!("{version:?}, {got_suite:?}, {got_group:?}");
            return Err(Failure::new(Kind::Negotiated, got));
        }
        match self.tls.handshake_kind() {
            Some(HandshakeKind::Full) => {}
            Some(HandshakeKind::Resumed) => self.resumed = true,
            // A second round trip: the server has no use for the client's key share.
            other => return Err(Failure::new(Kind::Negotiated, format!("{other:?} handshake"))),
        }
        Ok(())
    }

    pub fn resumed(&self) -> bool {
        self.resumed
    }

    /// Sends all of `bytes`.
    pub async fn send(&mut self, mut bytes: &[u8]) -> Result<(), Failure> {
        while !bytes.is_empty() {
            let taken = self.tls.writer().write(bytes).map_err(closed)?;
            bytes = &bytes[taken..];
            self.flush().await?;
        }
        Ok(())
    }

    /// Waits for plaintext and lends it, in pieces; `take` says how much of each it used, and all of it must
    /// be used in the end.
    pub async fn receive(
        &mut self,
        mut take: impl FnMut(&[u8]) -> Result<usize, Failure>,
    ) -> Result<Incoming, Failure> {
        loop {
            match self.lend(&mut take)? {
                Lent::Some => return Ok(Incoming::Some),
                Lent::End => return Ok(Incoming::End),
                Lent::Nothing => {}
            }
            match self.fill(Some(&mut take)).await? {
                Filled::Plain => return Ok(Incoming::Some),
                Filled::Other | Filled::End => {}
            }
        }
    }

    /// Lends the plaintext that rustls holds.
    fn lend(&mut self, take: Take<'_>) -> Result<Lent, Failure> {
        let mut lent = Lent::Nothing;
        loop {
            let mut reader = self.tls.reader();
            match reader.fill_buf() {
                Ok([]) if lent == Lent::Nothing => return Ok(Lent::End),
                Ok([]) => return Ok(lent),
                Ok(plain) => {
                    let used = take(plain)?;
                    if used == 0 {
                        let detail = "more bytes than its length says";
                        return Err(Failure::new(Kind::Response, detail));
                    }
                    reader.consume(used);
                    lent = Lent::Some;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(lent),
                // The end of TCP without close_notify: some servers do that, and whether the response
                // was whole is known from its length.
                Err(error) if error.kind() == ErrorKind::UnexpectedEof => {
                    return Ok(if lent == Lent::Nothing { Lent::End } else { lent });
                }
                Err(error) => return Err(closed(error)),
            }
        }
    }

    /// Says that no more will be sent, and reads until the server says so too, as clients do that must
    /// know that all arrived.
    pub async fn finish(mut self) -> Result<(), Failure> {
        self.tls.send_close_notify();
        self.flush().await?;
        // The server may have closed both directions meanwhile; then there is nothing to shut down.
        let _ = socket2::SockRef::from(&self.socket).shutdown(Shutdown::Write);
        while self.receive(|plain| Ok(plain.len())).await? == Incoming::Some {}
        Ok(())
    }

    /// Closes after the server has: close_notify on the way out, which nobody may be there to take.
    pub fn close(mut self) {
        self.tls.send_close_notify();
        let _ = self.tls.write_tls(&mut Socket(&self.socket));
    }

    async fn flush(&mut self) -> Result<(), Failure> {
        while self.tls.wants_write() {
            match self.tls.write_tls(&mut Socket(&self.socket)) {
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.socket.writable().await.map_err(closed)?;
                }
                Err(error) => return Err(closed(error)),
            }
        }
        Ok(())
    }

    /// Waits for bytes and gives them to rustls, a few KiB at a time; lends the plaintext after each, for
    /// rustls holds only so much.
    async fn fill(&mut self, mut take: Option<Take<'_>>) -> Result<Filled, Failure> {
        loop {
            let read = RECEIVED.with_borrow_mut(|received| {
                let length = self.socket.try_read(received)?;
                Ok(self.feed(&received[..length], &mut take))
            });
            match read {
                Ok(fed) => return fed,
                Err(error) if io::Error::kind(&error) == ErrorKind::WouldBlock => {
                    self.socket.readable().await.map_err(closed)?;
                }
                Err(error) => return Err(closed(error)),
            }
        }
    }

    fn feed(&mut self, mut bytes: &[u8], take: &mut Option<Take<'_>>) -> Result<Filled, Failure> {
        if bytes.is_empty() {
            self.tls.read_tls(&mut bytes).map_err(closed)?;
            return Ok(Filled::End);
        }
        let mut filled = Filled::Other;
        while !bytes.is_empty() {
            self.tls.read_tls(&mut bytes).map_err(closed)?;
            self.tls.process_new_packets().map_err(|error| match error {
                rustls::Error::InvalidCertificate(_) => Failure::new(Kind::Certificate, error),
                _ => Failure::new(Kind::Handshake, error),
            })?;
            if let Some(take) = take
                && self.lend(take)? == Lent::Some
            {
                filled = Filled::Plain;
            }
        }
        Ok(filled)
    }
}

/// Uses plaintext; says how much of it.
type Take<'a> = &'a mut dyn FnMut(&[u8]) -> Result<usize, Failure>;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Lent {
    Some,
    Nothing,
    End,
}

/// What came from the socket.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Filled {
    Plain,
    Other,
    End,
}

/// Whether there was plaintext.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Incoming {
    Some,
    End,
}

fn closed(error: io::Error) -> Failure {
    Failure::new(Kind::Closed, error)
}

/// Writes to the socket without waiting.
struct Socket<'a>(&'a TcpStream);

impl Write for Socket<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.try_write(bytes)
    }

    /// All records at once: the client's Finished leaves with what must stand before it.
    fn write_vectored(&mut self, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        self.0.try_write_vectored(pieces)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
