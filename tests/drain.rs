//! SIGTERM with idle, busy and half-closed connections, and with some still in the backlog.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use crate::harness::{PATIENCE, Ringgate, Tls, command, loopback, root_store, wait_for};

struct Behind {
    listener: TcpListener,
    ringgate: Ringgate,
}

fn start(more: &[&str]) -> Behind {
    let listener = TcpListener::bind(SocketAddr::from((loopback(), 0))).unwrap();
    let route = format!("https://app.localhost=tcp://{}", listener.local_addr().unwrap());
    let ringgate = Ringgate::start(&[&["--route", route.as_str()][..], more].concat());
    Behind { listener, ringgate }
}

impl Behind {
    fn connect(&self) -> (Tls, TcpStream) {
        let roots = root_store(std::fs::read(self.ringgate.root()).unwrap());
        let client = Tls::connect(roots, self.ringgate.address, "app.localhost");
        let (upstream, _) = self.listener.accept().unwrap();
        upstream.set_read_timeout(Some(PATIENCE)).unwrap();
        (client, upstream)
    }
}

#[test]
fn with_nothing_open_it_ends_at_once() {
    for signal in ["TERM", "INT"] {
        let mut behind = start(&[]);
        let begun = Instant::now();
        behind.ringgate.signal(signal);
        assert!(behind.ringgate.wait_for_end().success());
        assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    }
}

#[test]
fn busy_connections_finish_half_closed_ones_get_their_answer_and_idle_ones_a_close_notify() {
    let mut behind = start(&["--shutdown-timeout", "10s"]);
    let (mut busy, mut busy_upstream) = behind.connect();
    let (mut half, mut half_upstream) = behind.connect();
    let (mut idle, _idle_upstream) = behind.connect();
    // After as much at once it waits in another way than after a little.
    let (mut fed, mut fed_upstream) = behind.connect();
    fed_upstream.write_all(&[b'x'; 40_000]).unwrap();
    fed.stream.read_exact(&mut [0; 40_000]).unwrap();
    busy.send(b"question");
    busy_upstream.read_exact(&mut [0; 8]).unwrap();
    half.send(b"all");
    half.close();
    behind.ringgate.signal("TERM");
    behind.ringgate.wait_for_log("draining");
    wait_for("the listener to close", || TcpStream::connect(behind.ringgate.address).err());
    busy_upstream.write_all(b"answer").unwrap();
    drop(busy_upstream);
    assert_eq!(busy.read_to_end().unwrap(), b"answer");
    busy.close();
    let mut all = Vec::new();
    half_upstream.read_to_end(&mut all).unwrap();
    half_upstream.write_all(b"late answer").unwrap();
    drop(half_upstream);
    assert_eq!((all, half.read_to_end().unwrap()), (b"all".to_vec(), b"late answer".to_vec()));
    assert!(behind.ringgate.is_running(), "an idle connection is left, and there is time");
    assert_eq!(idle.read_to_end().expect("close_notify at shutdown_timeout"), b"");
    assert_eq!(fed.read_to_end().expect("close_notify at shutdown_timeout"), b"");
    assert!(behind.ringgate.wait_for_end().success());
    assert!(behind.ringgate.log().contains("drained=2"), "{}", behind.ringgate.log());
}

#[test]
fn who_ignores_the_end_is_cut_off_and_a_second_signal_ends_at_once() {
    let mut behind = start(&["--shutdown-timeout", "1s"]);
    let (_client, _upstream) = behind.connect();
    behind.ringgate.signal("TERM");
    assert!(
        behind.ringgate.wait_for_end().success(),
        "the client never answers, and it ends all the same"
    );

    let mut behind = start(&["--shutdown-timeout", "1h"]);
    let (_client, _upstream) = behind.connect();
    behind.ringgate.signal("TERM");
    behind.ringgate.wait_for_log("draining");
    behind.ringgate.signal("TERM");
    assert!(behind.ringgate.wait_for_end().success());
    assert!(behind.ringgate.log().contains("second signal"));
}

/// A listening socket with connections in its backlog is not simply closed: those would be reset.
#[test]
fn connections_that_wait_in_the_backlog_are_served_before_the_listener_closes() {
    let mut behind = start(&["--cores", "0"]);
    // Stopped, it accepts nothing: what connects waits in the backlog.
    behind.ringgate.signal("STOP");
    // The signal has not stopped a thread that has yet to be scheduled, and that one would accept.
    wait_for("every thread to have stopped", || {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", behind.ringgate.pid())).ok()?;
        let stat = |task: std::fs::DirEntry| std::fs::read_to_string(task.path().join("stat"));
        let mut stats = tasks.map(|task| task.and_then(stat).unwrap_or_default());
        stats.all(|stat| stat.contains(") T ")).then_some(())
    });
    let roots = root_store(std::fs::read(behind.ringgate.root()).unwrap());
    let waiting: Vec<_> = (0..100)
        .map(|_| {
            let (roots, address) = (roots.clone(), behind.ringgate.address);
            let (connected, is_connected) = std::sync::mpsc::channel();
            let client = std::thread::spawn(move || {
                connected.send(TcpStream::connect(address).map(drop)).unwrap();
                let mut client = Tls::connect(roots, address, "app.localhost");
                client.send(b"x");
                client.close();
                client.read_to_end().unwrap()
            });
            is_connected.recv().unwrap().unwrap();
            client
        })
        .collect();
    // The second connection of each, seen from its own end: the first is closed already.
    let to = format!("dst {}", behind.ringgate.address);
    wait_for("all of them to be in the backlog", || {
        let listed = command("ss", &["-Htn", "state", "established", &to], "");
        (String::from_utf8_lossy(&listed.stdout).lines().count() == 100).then_some(())
    });
    behind.ringgate.signal("TERM");
    behind.ringgate.signal("CONT");
    for _ in 0..100 {
        let (mut upstream, _) = behind.listener.accept().unwrap();
        let mut all = Vec::new();
        upstream.read_to_end(&mut all).unwrap();
        upstream.write_all(&all).unwrap();
    }
    for client in waiting {
        assert_eq!(client.join().unwrap(), b"x");
    }
    assert!(behind.ringgate.wait_for_end().success());
}

/// It sends without reading what comes back, so all directions wait to send and none to receive.
#[test]
fn a_client_that_never_reads_does_not_hold_up_the_drain() {
    let mut behind = start(&["--shutdown-timeout", "500ms"]);
    let (mut client, mut upstream) = behind.connect();
    let mut echo = upstream.try_clone().unwrap();
    let echoing = std::thread::spawn(move || std::io::copy(&mut upstream, &mut echo));
    client.stream.sock.set_write_timeout(Some(Duration::from_millis(500))).unwrap();
    while client.stream.write_all(&[b'x'; 65536]).is_ok() {}
    let begun = Instant::now();
    behind.ringgate.signal("TERM");
    assert!(behind.ringgate.wait_for_end().success(), "{}", behind.ringgate.log());
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    let _ = echoing.join();
}
