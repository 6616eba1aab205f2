//! A message there and back on one thread, many connections at once: on our loop, and on tokio-uring as one
//! would use it. The reason for the loop, kept where it can be asked again.
#![allow(clippy::disallowed_methods, reason = "a benchmark sets its own inputs up")]

use std::net::{Ipv4Addr, TcpListener, TcpStream};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use ringgate::ring::{self, Runtime, Socket};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// As many as `perf/compare` keeps alive.
const CONNECTIONS: usize = 64;
/// Messages there and back on each.
const ROUNDS: usize = 50;
const MESSAGE: [u8; 100] = [b'x'; 100];

/// Two ends of a connection.
fn connection() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let one = TcpStream::connect(listener.local_addr().expect("bound")).expect("connected");
    let (other, _) = listener.accept().expect("accepted");
    for end in [&one, &other] {
        end.set_nodelay(true).expect("a TCP socket");
    }
    (one, other)
}

/// Sends one message and waits for one, on our loop.
async fn exchange(socket: &Socket, buffers: &ring::Buffers, begins: bool) {
    for _ in 0..ROUNDS {
        if begins {
            assert_eq!(socket.send_now(&MESSAGE).expect("room for it"), MESSAGE.len());
        }
        let message = ring::receive(socket, buffers).await.expect("open").expect("a message");
        assert_eq!(message.len(), MESSAGE.len());
        if !begins {
            assert_eq!(socket.send_now(&message).expect("room for it"), MESSAGE.len());
        }
    }
}

fn on_our_loop(runtime: &Runtime, connections: &[(Socket, Socket)]) {
    runtime.block_on(async {
        let mut ends = Vec::new();
        for (caller, echo) in connections {
            for (socket, begins) in [(echo.clone(), false), (caller.clone(), true)] {
                let buffers = runtime.buffers();
                ends.push(ring::spawn(async move { exchange(&socket, &buffers, begins).await }));
            }
        }
        while !ends.iter().all(ring::Task::is_finished) {
            ring::next_turn().await;
        }
    });
}

async fn exchange_on_tokio_uring(stream: &tokio_uring::net::TcpStream, begins: bool) {
    let mut message = MESSAGE.to_vec();
    for _ in 0..ROUNDS {
        if begins {
            message = stream.write_all(message).await.1;
        }
        let (received, buffer) = stream.read(message).await;
        assert_eq!(received.expect("open"), MESSAGE.len());
        message = buffer;
        if !begins {
            message = stream.write_all(message).await.1;
        }
    }
}

fn on_tokio_uring(
    runtime: &tokio_uring::Runtime,
    connections: &[[std::rc::Rc<tokio_uring::net::TcpStream>; 2]],
) {
    runtime.block_on(async {
        let mut ends = Vec::new();
        for [caller, echo] in connections {
            for (stream, begins) in [(echo.clone(), false), (caller.clone(), true)] {
                ends.push(tokio_uring::spawn(async move {
                    exchange_on_tokio_uring(&stream, begins).await;
                }));
            }
        }
        for end in ends {
            end.await.expect("no panic");
        }
    });
}

fn turns(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("a message there and back");
    group.throughput(Throughput::Elements((CONNECTIONS * ROUNDS) as u64));

    let runtime = Runtime::new().expect("io_uring");
    let connections: Vec<_> = std::iter::repeat_with(connection)
        .map(|(one, other)| (Socket::new(one.into()), Socket::new(other.into())))
        .take(CONNECTIONS)
        .collect();
    group.bench_function("our loop", |bencher| {
        bencher.iter(|| on_our_loop(&runtime, &connections));
    });
    drop((connections, runtime));

    // The flags that cut kernel time by a third in the design measurements.
    let mut flags = tokio_uring::uring_builder();
    flags.setup_coop_taskrun().setup_single_issuer();
    let mut builder = tokio_uring::builder();
    let runtime = tokio_uring::Runtime::new(builder.entries(1024).uring_builder(&flags));
    let runtime = runtime.expect("io_uring");
    let connections: Vec<_> = std::iter::repeat_with(connection)
        .map(|(one, other)| {
            [one, other].map(|end| std::rc::Rc::new(tokio_uring::net::TcpStream::from_std(end)))
        })
        .take(CONNECTIONS)
        .collect();
    group.bench_function("tokio-uring", |bencher| {
        bencher.iter(|| on_tokio_uring(&runtime, &connections));
    });
    group.finish();
}

criterion_group!(benches, turns);
criterion_main!(benches);
