//! Does one thing so many times and nothing else, for perf/count to count instructions.
#![allow(clippy::disallowed_methods, reason = "a benchmark sets its own inputs up")]

mod pair;

use std::hint::black_box;
use std::process::ExitCode;

use ringgate::snapshot::KeyKind;
use rustls::HandshakeKind;
use rustls::crypto::aws_lc_rs::kx_group;

use pair::Pair;
use pair::relayed::Relayed;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Its name, and how to do it so many times.
type Work = (&'static str, fn(usize));

/// Client and server both: what one of them spends cannot be told apart from outside.
const WORK: [Work; 6] = [
    ("full-handshake", |times| handshakes(times, HandshakeKind::Full)),
    ("resumed-handshake", |times| handshakes(times, HandshakeKind::Resumed)),
    ("record-to-client-100", |times| to_client(times, 100)),
    ("record-to-client-16384", |times| to_client(times, 16 * 1024)),
    ("record-to-upstream-100", |times| to_upstream(times, 100)),
    ("record-to-upstream-16384", |times| to_upstream(times, 16 * 1024)),
];

fn handshakes(times: usize, kind: HandshakeKind) {
    let pair = Pair::new(KeyKind::EcdsaP256);
    let mut client = pair.client(kx_group::X25519);
    if kind == HandshakeKind::Resumed {
        pair.handshake(&client);
    }
    for _ in 0..times {
        if kind == HandshakeKind::Full {
            client = pair.client(kx_group::X25519);
        }
        assert_eq!(pair.handshake(&client).server.handshake_kind(), Some(kind));
    }
}

fn relayed(bytes: usize) -> Relayed {
    let pair = Pair::new(KeyKind::EcdsaP256);
    Relayed::new(pair.handshake(&pair.client(kx_group::X25519)), bytes)
}

fn to_client(times: usize, bytes: usize) {
    let mut relayed = relayed(bytes);
    for _ in 0..times {
        black_box(relayed.seal().len());
    }
}

/// Sealing by the client is in the figure too.
fn to_upstream(times: usize, bytes: usize) {
    let mut relayed = relayed(bytes);
    for _ in 0..times {
        let mut sealed = relayed.client_sends();
        assert_eq!(relayed.open(&mut sealed), bytes);
    }
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let work = |name: &str| WORK.iter().find(|(known, _)| *known == name).map(|(_, work)| work);
    match arguments.as_slice() {
        ["list"] => WORK.iter().for_each(|(name, _)| println!("{name}")),
        [name, times] if work(name).is_some() && times.parse::<usize>().is_ok() => {
            work(name).zip(times.parse().ok()).into_iter().for_each(|(work, times)| work(times));
        }
        // As `cargo bench -- --test` calls it: everything once.
        [.., "--test"] | ["--test", ..] | ["--bench"] => WORK.iter().for_each(|(_, work)| work(1)),
        _ => {
            eprintln!("usage: count list | count WORK TIMES");
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}
