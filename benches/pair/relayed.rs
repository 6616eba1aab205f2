//! One record through the record layer of a relay, in both directions.

use std::io::{Read, Write};

use ringgate::edge::bench::{Records, Scratch};
use rustls::client::ClientConnection;

use super::Handshaken;

/// An established connection, and the scratch memory that a worker has.
pub struct Relayed {
    client: ClientConnection,
    records: Records,
    scratch: Scratch,
    /// What the client sends and receives.
    plain: Vec<u8>,
}

impl Relayed {
    /// `bytes` is the size of each record's content.
    pub fn new(handshaken: Handshaken, bytes: usize) -> Self {
        let Handshaken { client, server, pending, .. } = handshaken;
        let records = Records::new(Box::new(server), pending, Vec::new(), false);
        Self { client, records, scratch: Scratch::new(), plain: vec![7; bytes] }
    }

    /// A record as the client sends it. The server must open them in this order.
    pub fn client_sends(&mut self) -> Vec<u8> {
        let mut sealed = Vec::with_capacity(self.plain.len() + 64);
        self.client.writer().write_all(&self.plain).expect("room");
        while self.client.wants_write() {
            self.client.write_tls(&mut sealed).expect("a vector");
        }
        sealed
    }

    /// Client to upstream: decrypts in place.
    pub fn open(&mut self, sealed: &mut [u8]) -> usize {
        self.scratch.output.clear();
        self.records.open(sealed, &mut self.scratch.output).expect("a valid record");
        self.scratch.output.filled().len()
    }

    /// Upstream to client: encrypts.
    pub fn seal(&mut self) -> &[u8] {
        self.scratch.output.clear();
        self.records.seal(&self.plain, &mut self.scratch.output).expect("room");
        self.scratch.output.filled()
    }

    /// Whether the client gets what was sealed.
    pub fn reaches_the_client(&mut self) -> bool {
        let sealed = self.seal().to_vec();
        let mut rest = sealed.as_slice();
        let mut got = Vec::new();
        while !rest.is_empty() {
            self.client.read_tls(&mut rest).expect("bytes");
            self.client.process_new_packets().expect("a valid record");
            let mut piece = vec![0; self.plain.len()];
            match self.client.reader().read(&mut piece) {
                Ok(length) => got.extend_from_slice(&piece[..length]),
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                Err(error) => panic!("{error}"),
            }
        }
        got == self.plain
    }
}
