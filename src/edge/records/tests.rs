//! What a peer can do to a record layer.

use std::sync::Arc;

use aws_lc_rs::aead::{AES_128_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
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

/// The server's end of an established connection, and what a client encrypts with.
fn established() -> (Records, ClientConnection) {
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
    let name = "a.example".try_into().unwrap();
    let mut client = ClientConnection::new(Arc::new(client), name).unwrap();
    let mut tls = Box::new(UnbufferedServerConnection::new(Arc::new(server)).unwrap());
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
