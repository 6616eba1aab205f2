//! The certificate index: looking a server name up, and publishing one changed certificate or one refreshed
//! staple at a million names through the real publisher.
#![allow(clippy::disallowed_methods, reason = "a benchmark sets its own inputs up")]

use std::collections::HashMap;
use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use ringgate::control::publisher::Publisher;
use ringgate::name::Pattern;
use ringgate::snapshot::{
    CertificateChoice, EdgeSettings, KeyKind, LazyPrivateKey, NameMap, Routes, TicketKeys,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// A certified key with bytes of its own, of the size that a P-256 leaf of a public CA has.
fn certified(number: usize) -> CertificateChoice {
    let leaf = CertificateDer::from(number.to_be_bytes().repeat(125));
    let private_key = PrivateKeyDer::Pkcs8(number.to_be_bytes().repeat(17).into());
    let private_key = LazyPrivateKey::new(KeyKind::EcdsaP256, private_key);
    let key = CertifiedKey::new(vec![leaf], Arc::new(private_key));
    CertificateChoice { elliptic: Some((KeyKind::EcdsaP256, Arc::new(key))), rsa: None }
}

fn name(number: usize) -> String {
    format!("host-{number}.customers.example.com")
}

fn publisher(names: usize) -> Publisher {
    let choices: HashMap<Pattern, CertificateChoice> =
        (0..names).map(|n| (Pattern::parse(&name(n)).expect("a name"), certified(n))).collect();
    let settings = EdgeSettings {
        handshake_timeout: Duration::from_secs(10),
        connect_timeout: Duration::from_secs(5),
        idle_timeout: Duration::from_secs(600),
        default_server_name: None,
        accept_proxy: Box::default(),
    };
    let keys = TicketKeys::first(Duration::from_secs(3600)).expect("random bytes");
    Publisher::start(
        Arc::new(settings),
        choices,
        Arc::new(Routes::new([], NameMap::empty())),
        Vec::new(),
        keys,
    )
}

fn resident_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap_or_default();
    line.split_whitespace().nth(1).and_then(|kib| kib.parse::<u64>().ok()).unwrap_or(0) * 1024
}

fn benches(criterion: &mut Criterion) {
    for names in [1, 10_000, 1_000_000] {
        // `cargo bench -- --test` shows that everything runs; a tenth of the names shows that.
        let names =
            if std::env::args().any(|a| a == "--test") { names.min(100_000) } else { names };
        let before = resident_bytes();
        let mut publisher = publisher(names);
        let each = resident_bytes().saturating_sub(before) / names as u64;
        if names > 1 {
            println!("{names} names with distinct certified keys: {each} bytes of RSS each");
        }
        let cell = publisher.cell();
        // A stride that is prime to all sizes visits every name in an order that no cache foresees.
        let wanted: Vec<String> = (0..names).map(|n| name(n * 7_919 % names)).collect();
        let mut next = wanted.iter().cycle();
        criterion.bench_function(&format!("lookup, hit, {names} names"), |bencher| {
            bencher.iter(|| {
                let name = next.next().expect("a cycle");
                cell.read(|s| black_box(s.certificates.lookup(black_box(name)).is_some()))
            });
        });
        criterion.bench_function(&format!("lookup, miss, {names} names"), |bencher| {
            bencher.iter(|| {
                cell.read(|s| s.certificates.lookup(black_box("nobody.example.org")).is_some())
            });
        });
        let mut turn = 0;
        criterion.bench_function(
            &format!("publish one changed certificate, {names} names"),
            |bencher| {
                bencher.iter_batched(
                    || {
                        turn += 1;
                        let pattern = Pattern::parse(&name(turn * 7_919 % names)).expect("a name");
                        (pattern, certified(turn))
                    },
                    |(pattern, choice)| publisher.certificate(pattern, Some(choice)),
                    BatchSize::SmallInput,
                );
            },
        );
        // The one that is served for each name, as the control plane knows it.
        let mut served: HashMap<usize, Arc<CertifiedKey>> = HashMap::new();
        criterion.bench_function(
            &format!("publish one refreshed staple, {names} names"),
            |bencher| {
                bencher.iter_batched(
                    || {
                        turn += 1;
                        let number = turn * 7_919 % names;
                        let pattern = Pattern::parse(&name(number)).expect("a name");
                        let before = served.remove(&number).unwrap_or_else(|| {
                            let lookup = |s: &ringgate::snapshot::Snapshot| {
                                s.certificates.lookup(&name(number)).cloned()
                            };
                            let choice = cell.read(lookup).expect("its certificate");
                            choice.elliptic.expect("a certified key").1
                        });
                        let mut after = (*before).clone();
                        after.ocsp = Some(turn.to_be_bytes().repeat(60));
                        let after = Arc::new(after);
                        served.insert(number, after.clone());
                        (pattern, before, after)
                    },
                    |(pattern, before, after)| publisher.restaple(&[pattern], &before, &after),
                    BatchSize::SmallInput,
                );
            },
        );
    }
}

criterion_group!(snapshot, benches);
criterion_main!(snapshot);
