//! One handshake in memory: the server's part of it, full and resumed, with our settings.
#![allow(clippy::disallowed_methods, reason = "a benchmark sets its own inputs up")]

mod pair;

use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};
use ringgate::crypto::WIDTH;
use ringgate::edge::bench::Engine;
use ringgate::snapshot::KeyKind;
use rustls::HandshakeKind;
use rustls::crypto::SupportedKxGroup;
use rustls::crypto::aws_lc_rs::kx_group;

use pair::Pair;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn benches(criterion: &mut Criterion) {
    let ecdsa = Pair::new(KeyKind::EcdsaP256);
    let rsa = Pair::new(KeyKind::Rsa);
    let full = |criterion: &mut Criterion, name: &str, pair: &Pair, group| {
        criterion.bench_function(name, |bencher| {
            bencher.iter_custom(|times| {
                // A client of its own each time: no ticket to resume with.
                (0..times).map(|_| pair.handshake(&pair.client(group)).spent).sum()
            });
        });
    };
    full(criterion, "full, ECDSA P-256, X25519", &ecdsa, kx_group::X25519);
    full(criterion, "full, ECDSA P-256, X25519MLKEM768", &ecdsa, kx_group::X25519MLKEM768);
    full(criterion, "full, RSA-2048, X25519", &rsa, kx_group::X25519);
    together(criterion, "full, ECDSA P-256, X25519", &ecdsa, kx_group::X25519);
    together(criterion, "full, ECDSA P-256, X25519MLKEM768", &ecdsa, kx_group::X25519MLKEM768);
    together(criterion, "full, RSA-2048, X25519", &rsa, kx_group::X25519);
    let client = ecdsa.client(kx_group::X25519);
    ecdsa.handshake(&client);
    criterion.bench_function("resumed, X25519", |bencher| {
        bencher.iter_custom(|times| {
            let resumed = (0..times).map(|_| {
                let handshaken = ecdsa.handshake(&client);
                let kind = handshaken.server.handshake_kind();
                assert_eq!(kind, Some(HandshakeKind::Resumed));
                handshaken.spent
            });
            resumed.sum()
        });
    });
}

/// Where the processor can; eight at once, the figure is that of one.
fn together(
    criterion: &mut Criterion,
    name: &str,
    pair: &Pair,
    group: &'static dyn SupportedKxGroup,
) {
    let Some(mut engine) = Engine::new() else { return };
    criterion.bench_function(&format!("{name}, eight together"), |bencher| {
        bencher.iter_custom(|times| {
            let all = (0..times.div_ceil(WIDTH as u64)).map(|_| {
                let clients: Vec<_> = (0..WIDTH).map(|_| pair.client(group)).collect();
                pair.together(&mut engine, &clients)
            });
            all.sum::<Duration>()
                .mul_f64(times as f64 / times.next_multiple_of(WIDTH as u64) as f64)
        });
    });
}

criterion_group!(handshake, benches);
criterion_main!(handshake);
