//! What a peer can do to a record layer.

use std::sync::{Arc, LazyLock};

use aws_lc_rs::aead::{AES_128_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use proptest::prelude::*;
use rcgen::CertifiedKey;
use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs::{cipher_suite, default_provider};
use rustls::pki_types::PrivateKeyDer;
use rustls::{
    ClientConfig, ClientConnection, ConnectionTrafficSecrets, RootCertStore, ServerConfig,
};

use super::super::handshake::{Step, advance};
use super::super::scratch::Scratch;
use super::*;

const ALERT: u8 = 21;
const HANDSHAKE: u8 = 22;
const APPLICATION_DATA: u8 = 23;

/// A server's settings and those of its client.
static CONFIGS: LazyLock<(Arc<ServerConfig>, Arc<ClientConfig>)> = LazyLock::new(|| {
    let provider = || {
        let suites = vec![cipher_suite::TLS13_AES_128_GCM_SHA256];
        Arc::new(CryptoProvider { cipher_suites: suites, ..default_provider() })
    };
    let CertifiedKey { cert, signing_key } =
        rcgen::generate_simple_self_signed(["a.example".to_owned()]).unwrap();
    let private_key = PrivateKeyDer::try_from(signing_key.serialize_der()).unwrap();
    let server = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![cert.der().clone()], private_key)
        .unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(cert.der().clone()).unwrap();
    let mut client = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    client.enable_secret_extraction = true;
    (Arc::new(server), Arc::new(client))
});

fn server() -> Box<UnbufferedServerConnection> {
    Box::new(UnbufferedServerConnection::new(CONFIGS.0.clone()).unwrap())
}

fn client() -> ClientConnection {
    ClientConnection::new(CONFIGS.1.clone(), "a.example".try_into().unwrap()).unwrap()
}

/// The server's end of an established connection, and what a client encrypts with.
fn established() -> (Records, ClientConnection) {
    let (mut tls, mut client) = (server(), client());
    let (mut input, mut output) = (Vec::new(), Vec::new());
    loop {
        client.write_tls(&mut input).unwrap();
        let step = advance(&mut *tls, &mut input, &mut output);
        let mut from_server = &output[..];
        while !from_server.is_empty() {
            client.read_tls(&mut from_server).unwrap();
            client.process_new_packets().unwrap();
        }
        output.clear();
        match step {
            Step::Blocked => {}
            Step::Done { peer_finished } => {
                return (Records::new(tls, input, Vec::new(), peer_finished), client);
            }
            Step::Failed(error) => panic!("{error}"),
        }
    }
}

/// A record as the client would encrypt it after `nth` others (RFC 8446 §5.2), whatever it says.
fn record(secrets: &ConnectionTrafficSecrets, nth: u64, kind: u8, content: &[u8]) -> Vec<u8> {
    let ConnectionTrafficSecrets::Aes128Gcm { key, iv } = secrets else { panic!() };
    let mut nonce: [u8; 12] = iv.as_ref().try_into().unwrap();
    for (byte, counted) in nonce[4..].iter_mut().zip(nth.to_be_bytes()) {
        *byte ^= counted;
    }
    let mut inner = [content, &[kind]].concat();
    let length = u16::try_from(inner.len() + 16).unwrap().to_be_bytes();
    let mut bytes = vec![APPLICATION_DATA, 3, 3, length[0], length[1]];
    let key = LessSafeKey::new(UnboundKey::new(&AES_128_GCM, key.as_ref()).unwrap());
    let nonce = Nonce::assume_unique_for_key(nonce);
    key.seal_in_place_append_tag(nonce, Aad::from(bytes.clone()), &mut inner).unwrap();
    bytes.extend(inner);
    bytes
}

#[test]
fn half_a_message_before_data_or_an_alert_ends_the_record_layer_and_nothing_else() {
    for (kind, content) in [(APPLICATION_DATA, &b"x"[..]), (ALERT, &[1, 0]), (HANDSHAKE, &[0; 40])]
    {
        let (mut records, client) = established();
        let Scratch { mut plain, mut output, .. } = Scratch::new();
        let (nth, secrets) = client.dangerous_extract_secrets().unwrap().tx;
        // The first byte of a KeyUpdate.
        let mut half = record(&secrets, nth, HANDSHAKE, &[24]);
        assert_eq!(records.open(&mut half, &mut plain).unwrap(), Incoming::Open);
        assert!(!records.pending().is_empty());
        let mut input = [records.pending(), &record(&secrets, nth + 1, kind, content)].concat();
        let opened = records.open(&mut input, &mut plain);
        assert!(matches!(opened, Err(RecordError::Peer(_))), "{kind}: {opened:?}");
        // What was under way in the other direction finds it so.
        let sealed = records.seal(b"too late", &mut output);
        assert!(matches!(sealed, Err(RecordError::Over)), "{kind}: {sealed:?}");
        assert!(matches!(records.open(&mut input, &mut plain), Err(RecordError::Over)));
        records.release(&mut output).unwrap();
    }
}

#[test]
fn half_a_message_and_its_other_half_are_one_and_writing_goes_on_between_them() {
    let (mut records, client) = established();
    let Scratch { mut plain, mut output, .. } = Scratch::new();
    let (nth, secrets) = client.dangerous_extract_secrets().unwrap().tx;
    // KeyUpdate(update_not_requested), in two records.
    let mut half = record(&secrets, nth, HANDSHAKE, &[24, 0, 0]);
    assert_eq!(records.open(&mut half, &mut plain).unwrap(), Incoming::Open);
    records.seal(b"meanwhile", &mut output).unwrap();
    assert!(!output.filled().is_empty());
    let mut rest = [records.pending(), &record(&secrets, nth + 1, HANDSHAKE, &[1, 0])].concat();
    assert_eq!(records.open(&mut rest, &mut plain).unwrap(), Incoming::Open);
    assert!(records.pending().is_empty());
}

/// Bytes in records of the client's choosing: type, and how much of the bytes.
fn in_records(mut bytes: &[u8], records: &[(u8, usize)]) -> Vec<u8> {
    let mut all = Vec::new();
    for (kind, length) in records.iter().chain(&[(HANDSHAKE, usize::MAX)]) {
        let (content, rest) = bytes.split_at((*length).min(bytes.len()));
        let length = u16::try_from(content.len()).unwrap().to_be_bytes();
        all.extend([*kind, 3, 3, length[0], length[1]]);
        all.extend(content);
        bytes = rest;
    }
    all
}

proptest! {
    #[test]
    fn no_hello_makes_the_handshake_panic(
        records in proptest::collection::vec((20u8..25, 0usize..300), 0..4),
        flips in proptest::collection::vec((0usize..600, any::<u8>()), 0..3),
        more in proptest::collection::vec(any::<u8>(), 0..9),
        pieces in proptest::collection::vec(1usize..200, 1..8),
    ) {
        let mut hello = Vec::new();
        client().write_tls(&mut hello).unwrap();
        let mut bytes = [&hello[5..], &more].concat();
        for (at, with) in flips {
            let at = at % bytes.len();
            bytes[at] ^= with;
        }
        let bytes = in_records(&bytes, &records);
        let (mut tls, mut input, mut output) = (server(), Vec::new(), Vec::new());
        let mut bytes = bytes.as_slice();
        for piece in pieces.iter().chain(&[usize::MAX]) {
            let (now, later) = bytes.split_at((*piece).min(bytes.len()));
            input.extend_from_slice(now);
            bytes = later;
            if matches!(advance(&mut *tls, &mut input, &mut output), Step::Failed(_)) {
                break;
            }
        }
    }

    #[test]
    fn no_records_make_the_record_layer_panic_and_it_fails_once(
        sent in proptest::collection::vec(
            (20u8..25, proptest::collection::vec(any::<u8>(), 0..40), any::<bool>()), 1..12),
        key_update in any::<bool>(),
        pieces in proptest::collection::vec(1usize..90, 1..30),
    ) {
        let (mut records, client) = established();
        let (first, secrets) = client.dangerous_extract_secrets().unwrap().tx;
        let mut bytes = Vec::new();
        for (nth, (kind, content, is_key_update)) in sent.iter().enumerate() {
            let content: &[u8] = match key_update && *is_key_update {
                true => &[24, 0, 0],
                false => content,
            };
            bytes.extend(record(&secrets, first + nth as u64, *kind, content));
        }
        let Scratch { mut plain, mut output, .. } = Scratch::new();
        let (mut bytes, mut has_failed) = (bytes.as_slice(), false);
        for piece in pieces.iter().chain(&[usize::MAX]) {
            let (now, later) = bytes.split_at((*piece).min(bytes.len()));
            let mut input = [records.pending(), now].concat();
            bytes = later;
            plain.clear();
            output.clear();
            let opened = records.open(&mut input, &mut plain);
            prop_assert!(!has_failed || matches!(opened, Err(RecordError::Over)), "{opened:?}");
            has_failed |= opened.is_err();
            let sealed = records.seal(b"x", &mut output);
            prop_assert_eq!(sealed.is_err(), has_failed);
        }
    }
}
