//! What the kernel and our loop alone cost. A connection that is accepted, read from, answered, read from again and
//! closed: with the handshake in memory (benches/handshake.rs) that is the floor under a full handshake. A request and its
//! response that are relayed as they are: the floor under a request on a kept-alive connection.
//!
//! The figure is the server thread's time on its core; clients run on another where there is one.
#![allow(clippy::disallowed_methods, reason = "a benchmark sets its own inputs up")]

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};
use ringgate::clock;
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

/// Connections over which requests are relayed, as many as `perf/compare` keeps alive.
const RELAYED: usize = 64;
/// A kept-alive request and a response of `perf/compare`, as records.
const REQUEST: [u8; 107] = [4; 107];
const RESPONSE: [u8; 266] = [5; 266];

/// Two ends of a TCP connection.
fn connection(listener: &TcpListener) -> (TcpStream, TcpStream) {
    let one = TcpStream::connect(listener.local_addr().expect("bound")).expect("connected");
    let (other, _) = listener.accept().expect("accepted");
    for end in [&one, &other] {
        end.set_nodelay(true).expect("a TCP socket");
    }
    (one, other)
}

/// Sends on what arrives, until it ends.
async fn relay(from: Socket, to: Socket, buffers: Buffers) {
    while let Some(received) = ring::receive_later(&from, &buffers).await.expect("open") {
        assert_eq!(to.send_now(&received).expect("room"), received.len());
    }
    to.finish();
}

async fn ask(server: Socket, buffers: Buffers, requests: u64) {
    for _ in 0..requests {
        assert_eq!(server.send_now(&REQUEST).expect("room"), REQUEST.len());
        ring::receive(&server, &buffers).await.expect("open").expect("a response");
    }
    server.finish();
    assert!(ring::receive(&server, &buffers).await.expect("open").is_none());
}

async fn answer(client: Socket, buffers: Buffers) {
    while ring::receive(&client, &buffers).await.expect("open").is_some() {
        assert_eq!(client.send_now(&RESPONSE).expect("room"), RESPONSE.len());
    }
}

/// Waits for all of these. A task that panics ends without its peer, which would wait for ever.
async fn all(tasks: Vec<ring::Task>) {
    let deadline = clock::steady() + Duration::from_secs(600);
    for task in tasks {
        while !task.is_finished() {
            assert!(clock::steady() < deadline, "a task or its peer has ended badly");
            ring::sleep_until(clock::steady() + Duration::from_millis(1)).await;
        }
    }
}

/// Both ends of what is relayed: clients that ask so often, and their upstreams.
struct Ends {
    requests: u64,
    pairs: Vec<(TcpStream, TcpStream)>,
}

/// Plays all ends on a core of its own, until nobody sends any more.
fn play(ends: &Receiver<Ends>) {
    stay(false);
    let runtime = Runtime::new().expect("io_uring");
    for Ends { requests, pairs } in ends {
        runtime.block_on(all(pairs
            .into_iter()
            .flat_map(|(client, upstream)| {
                let (client, upstream) = (Socket::new(client.into()), Socket::new(upstream.into()));
                [
                    ring::spawn(answer(upstream, runtime.buffers())),
                    ring::spawn(ask(client, runtime.buffers(), requests)),
                ]
            })
            .collect()));
    }
}

/// Relays so many requests on each connection; how long this thread was on its core for it.
fn relay_all(runtime: &Runtime, players: &Sender<Ends>, requests: u64) -> Duration {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let (mut pairs, mut relayed) = (Vec::new(), Vec::new());
    for _ in 0..RELAYED {
        let (client, front) = connection(&listener);
        let (back, upstream) = connection(&listener);
        pairs.push((client, upstream));
        relayed.push((Socket::new(front.into()), Socket::new(back.into())));
    }
    players.send(Ends { requests, pairs }).expect("players");
    stay(true);
    let begun = on_core();
    runtime.block_on(all(relayed
        .into_iter()
        .flat_map(|(front, back)| {
            [
                ring::spawn(relay(front.clone(), back.clone(), runtime.buffers())),
                ring::spawn(relay(back, front, runtime.buffers())),
            ]
        })
        .collect()));
    on_core() - begun
}

fn relayed(criterion: &mut Criterion, runtime: &Runtime) {
    let (players, ends) = channel();
    let playing = std::thread::spawn(move || play(&ends));
    criterion.bench_function(
        "a request relayed without TLS: receive, send, receive, send",
        |bencher| {
            bencher.iter_custom(|requests| {
                let each = requests.div_ceil(RELAYED as u64);
                let spent = relay_all(runtime, &players, each).as_secs_f64();
                Duration::from_secs_f64(spent * requests as f64 / (each * RELAYED as u64) as f64)
            });
        },
    );
    drop(players);
    playing.join().expect("no panic");
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
                    let serving = (0..ACCEPTS).map(|_| {
                        ring::spawn(serve(listener.clone(), runtime.buffers(), to_serve.clone()))
                    });
                    all(serving.collect()).await;
                });
                let spent = on_core() - begun;
                for client in clients {
                    client.join().expect("no panic");
                }
                spent
            });
        },
    );
    relayed(criterion, &runtime);
}

criterion_group!(benches, floor);
criterion_main!(benches);
