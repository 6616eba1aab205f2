//! What a connection costs the kernel and our loop alone: accepted, read from, answered, read from again,
//! closed. With the handshake in memory (benches/handshake.rs) that is the floor under a full handshake.
//!
//! The figure is the server thread's time on its core; clients run on another where there is one.
#![allow(clippy::disallowed_methods, reason = "a benchmark sets its own inputs up")]

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};
use ringgate::ring::{self, Buffers, Runtime, Socket};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// As many as a worker has in flight, and as many clients.
const ACCEPTS: u64 = 16;
/// About what a TLS 1.3 handshake sends: a ClientHello, the server's flight with one P-256 certificate and
/// its issuer, the client's Finished.
const HELLO: [u8; 250] = [1; 250];
const FLIGHT: [u8; 1400] = [2; 1400];
const FINISHED: [u8; 74] = [3; 74];

/// How long this thread has run on a core (proc(5), schedstat).
fn on_core() -> Duration {
    let text =
        std::fs::read_to_string("/proc/thread-self/schedstat").expect("a kernel that counts");
    let nanoseconds = text.split(' ').next().and_then(|first| first.parse().ok());
    Duration::from_nanos(nanoseconds.expect("a number"))
}

/// Keeps this thread on the first of the process's cores, or on any but that.
fn stay(first: bool) {
    let all = sched_getaffinity(None).expect("an affinity");
    let mut cores: Vec<usize> = (0..CpuSet::MAX_CPU).filter(|core| all.is_set(*core)).collect();
    if cores.len() > 1 {
        cores = if first { cores[..1].to_vec() } else { cores.split_off(1) };
    }
    let mut kept = CpuSet::new();
    cores.iter().for_each(|core| kept.set(*core));
    sched_setaffinity(None, &kept).expect("cores of ours");
}

async fn serve(listener: Socket, buffers: Buffers, left: Arc<AtomicU64>) {
    while left.try_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok()
    {
        let client = ring::accept(&listener).await.expect("a client");
        for _ in 0..2 {
            let received = ring::receive(&client, &buffers).await.expect("open").expect("bytes");
            if received.len() == HELLO.len() {
                assert_eq!(client.send_now(&FLIGHT).expect("room"), FLIGHT.len());
            }
        }
    }
}

fn connect(address: SocketAddr, left: &AtomicU64) {
    stay(false);
    let mut flight = [0; FLIGHT.len()];
    while left.try_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok()
    {
        let mut server = TcpStream::connect(address).expect("a listener");
        server.set_nodelay(true).expect("a TCP socket");
        server.write_all(&HELLO).expect("sent");
        server.read_exact(&mut flight).expect("answered");
        server.write_all(&FINISHED).expect("sent");
        assert_eq!(server.read(&mut flight).expect("an end"), 0);
    }
}

fn floor(criterion: &mut Criterion) {
    let runtime = Runtime::new().expect("io_uring");
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let address = listener.local_addr().expect("bound");
    let listener = Socket::new(listener.into());
    criterion.bench_function(
        "a connection without TLS: accept, receive, send, receive, close",
        |bencher| {
            bencher.iter_custom(|connections| {
                let counter = || Arc::new(AtomicU64::new(connections));
                let (to_serve, to_connect) = (counter(), counter());
                let clients: Vec<_> = (0..ACCEPTS)
                    .map(|_| {
                        let left = to_connect.clone();
                        std::thread::spawn(move || connect(address, &left))
                    })
                    .collect();
                stay(true);
                let begun = on_core();
                runtime.block_on(async {
                    let serving: Vec<_> = (0..ACCEPTS)
                        .map(|_| {
                            ring::spawn(serve(
                                listener.clone(),
                                runtime.buffers(),
                                to_serve.clone(),
                            ))
                        })
                        .collect();
                    for task in serving {
                        while !task.is_finished() {
                            let pause = ringgate::clock::steady() + Duration::from_millis(1);
                            ring::sleep_until(pause).await;
                        }
                    }
                });
                let spent = on_core() - begun;
                for client in clients {
                    client.join().expect("no panic");
                }
                spent
            });
        },
    );
}

criterion_group!(benches, floor);
criterion_main!(benches);
