//! The public-key operations of a handshake: eight at a time beside aws-lc's, one at a time.
#![allow(clippy::disallowed_methods, reason = "a benchmark sets its own inputs up")]

use std::hint::black_box;
use std::time::{Duration, Instant};

use aws_lc_rs::agreement::{self, EphemeralPrivateKey, UnparsedPublicKey, X25519};
use aws_lc_rs::rand::SystemRandom;
use criterion::{Criterion, criterion_group, criterion_main};
use ringgate::crypto::{self, Ifma, WIDTH, x25519};
use rustls::SignatureScheme;
use rustls::crypto::aws_lc_rs::sign::any_supported_type;
use rustls::pki_types::PrivateKeyDer;
use rustls::sign::SigningKey;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// How long `times` of something take that comes `batch` at a time; `work` is told how many to do.
fn by_the_batch(times: u64, batch: usize, mut work: impl FnMut(usize)) -> Duration {
    let begun = Instant::now();
    let mut left = times as usize;
    while left > 0 {
        work(left.min(batch));
        left -= left.min(batch);
    }
    begun.elapsed()
}

fn exchange(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("X25519, a key pair and an agreement");
    let mut peer = [0; 32];
    peer[0] = 9;
    group.bench_function("aws-lc", |bencher| {
        bencher.iter(|| {
            let own = EphemeralPrivateKey::generate(&X25519, &SystemRandom::new()).expect("a key");
            black_box(own.compute_public_key().expect("a public key"));
            let peer = UnparsedPublicKey::new(&X25519, peer);
            agreement::agree_ephemeral(own, peer, (), |secret| Ok(black_box(secret[0])))
        });
    });
    let Some(ifma) = Ifma::detect() else { return };
    let mut engine = x25519::Engine::new(ifma);
    for batch in [1, 2, 3, 4, WIDTH] {
        group.bench_function(format!("by the batch, {batch} at once"), |bencher| {
            bencher.iter_custom(|times| {
                by_the_batch(times, batch, |count| {
                    black_box(engine.agree(&vec![peer; count]));
                })
            });
        });
    }
}

fn signature(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("ECDSA P-256, a signature");
    let pair = rcgen::KeyPair::generate().expect("a key pair");
    let der = PrivateKeyDer::try_from(pair.serialize_der()).expect("PKCS#8");
    let aws_lc = any_supported_type(&der).expect("a private key");
    let signs = |key: &dyn SigningKey| {
        let signer = key.choose_scheme(&[SignatureScheme::ECDSA_NISTP256_SHA256]);
        signer.expect("a key of P-256").sign(&[7; 130]).expect("a signature")
    };
    group.bench_function("aws-lc", |bencher| bencher.iter(|| signs(&*aws_lc)));
    let Some(ifma) = Ifma::detect() else { return };
    let key = crypto::P256Key::new(&der, aws_lc.clone()).expect("a key of P-256");
    for batch in [1, 2, 3, 4, WIDTH] {
        group.bench_function(format!("with {batch} of eight nonces"), |bencher| {
            bencher.iter_custom(|times| {
                by_the_batch(times, batch, |count| {
                    for nonce in crypto::nonces(ifma).expect("randomness").into_iter().take(count) {
                        black_box(crypto::with_nonce(Some(nonce), || signs(&key)));
                    }
                })
            });
        });
    }
}

criterion_group!(crypto, exchange, signature);
criterion_main!(crypto);
