//! The edge's parts, one at a time: reading a PROXY header and a ClientHello, sealing and opening a ticket,
//! relaying a record.
#![allow(clippy::disallowed_methods, reason = "a benchmark sets its own inputs up")]

mod pair;

use std::hint::black_box;
use std::time::Duration;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use ringgate::edge::bench::{
    Addresses, ProxyReading, TlsFacts, UNIQUE_ID_BYTES, read_hello, read_proxy_header, write_v1,
    write_v2,
};
use ringgate::snapshot::{KeyKind, TicketKeys};
use rustls::crypto::aws_lc_rs::kx_group;

use pair::Pair;
use pair::relayed::Relayed;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// What rustls puts into a ticket after a TLS 1.3 handshake without client certificate, about.
const SESSION_BYTES: usize = 130;

fn proxy_headers(criterion: &mut Criterion) {
    let addresses = Addresses {
        source: ([192, 0, 2, 7], 40_000).into(),
        destination: ([192, 0, 2, 1], 443).into(),
    };
    let tls = TlsFacts {
        version: "TLSv1.3",
        cipher_suite: "TLS_AES_128_GCM_SHA256",
        alpn: Some(b"h2"),
        server_name: Some("app.example"),
    };
    let headers = [
        ("1", write_v1(Some(&addresses))),
        ("2", write_v2(Some(&addresses), &tls, &[7; UNIQUE_ID_BYTES])),
    ];
    for (version, header) in headers {
        assert!(matches!(read_proxy_header(&header), ProxyReading::Header { .. }));
        criterion.bench_function(&format!("read a PROXY header, version {version}"), |bencher| {
            bencher.iter(|| black_box(read_proxy_header(black_box(&header))));
        });
    }
}

fn hellos(criterion: &mut Criterion) {
    let pair = Pair::new(KeyKind::EcdsaP256);
    for (name, group) in
        [("X25519", kx_group::X25519), ("X25519MLKEM768", kx_group::X25519MLKEM768)]
    {
        let (_, hello) = pair::hello(&pair.client(group));
        criterion.bench_function(&format!("read a ClientHello, {name}"), |bencher| {
            bencher.iter(|| black_box(read_hello(black_box(&hello))));
        });
    }
}

fn tickets(criterion: &mut Criterion) {
    let keys = TicketKeys::first(Duration::from_secs(3600)).expect("random bytes");
    let session = [7; SESSION_BYTES];
    let ticket = keys.seal(&session).expect("a ticket");
    assert_eq!(keys.open(&ticket).as_deref(), Some(&session[..]));
    criterion.bench_function("seal a ticket", |bencher| {
        bencher.iter(|| black_box(keys.seal(black_box(&session))));
    });
    criterion.bench_function("open a ticket", |bencher| {
        bencher.iter(|| black_box(keys.open(black_box(&ticket))));
    });
}

fn records(criterion: &mut Criterion) {
    let pair = Pair::new(KeyKind::EcdsaP256);
    let mut group = criterion.benchmark_group("relay a record");
    for bytes in [100, 16 * 1024] {
        let handshaken = pair.handshake(&pair.client(kx_group::X25519));
        let mut relayed = Relayed::new(handshaken, bytes);
        assert!(relayed.reaches_the_client());
        group.throughput(Throughput::Bytes(bytes as u64));
        group.bench_function(format!("to the client, {bytes} bytes"), |bencher| {
            bencher.iter(|| black_box(relayed.seal().len()));
        });
        // The records must be opened in the order they were sealed in: made one by one, between the timed parts.
        let relayed = std::cell::RefCell::new(relayed);
        group.bench_function(format!("to the upstream, {bytes} bytes"), |bencher| {
            bencher.iter_batched(
                || relayed.borrow_mut().client_sends(),
                |mut sealed| {
                    assert_eq!(relayed.borrow_mut().open(&mut sealed), bytes);
                    sealed
                },
                BatchSize::PerIteration,
            );
        });
    }
}

criterion_group!(edge, proxy_headers, hellos, tickets, records);
criterion_main!(edge);
