//! Upstreams with several endpoints: who gets the next connection, and what happens when one is gone.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::harness::{Nginx, NginxOptions, Ringgate, SetAtEnd, Tls, curl, root_store, wait_for};

const FROM: &str = "https://app.localhost";
const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: app.localhost\r\nConnection: close\r\n\r\n";

/// One worker, so that its turns can be counted.
fn start(to: &[String], more: &str) -> Ringgate {
    Ringgate::start_with_config(&format!(
        "cores: 0\nroutes:\n- from: {FROM}\n  to: [{}]\n{more}",
        to.join(", ")
    ))
}

fn tcp(nginx: &Nginx) -> String {
    format!("tcp://{}", nginx.address)
}

fn page(ringgate: &Ringgate) -> String {
    let output = curl(&ringgate.root(), ringgate.address, "app.localhost", "/", &[]);
    let page = String::from_utf8(output.stdout).unwrap();
    page.trim().rsplit(' ').next().unwrap_or_default().to_owned()
}

#[test]
fn connections_take_turns_among_all_endpoints() {
    let upstreams = ["one", "two", "three"].map(Nginx::start);
    let ringgate = start(&upstreams.each_ref().map(tcp), "");
    let pages: Vec<_> = (0..6).map(|_| page(&ringgate)).collect();
    assert_eq!(pages, ["one", "two", "three", "one", "two", "three"]);
}

#[test]
fn the_endpoint_with_the_fewest_connections_gets_the_next() {
    let upstreams = ["one", "two"].map(Nginx::start);
    let policy = "  load_balancing_policy: least_connections\n";
    let ringgate = start(&upstreams.each_ref().map(tcp), policy);
    let roots = root_store(std::fs::read(ringgate.root()).unwrap());
    let open = || {
        let mut client = Tls::connect(roots.clone(), ringgate.address, "app.localhost");
        client.send(b"GET / HTTP/1.1\r\nHost: app.localhost\r\n\r\n");
        let page = client.read_until_any(&[b"of one\n", b"of two\n"]);
        (String::from_utf8(page).unwrap().trim().rsplit(' ').next().unwrap().to_owned(), client)
    };
    let (first, second, third) = (open(), open(), open());
    assert_ne!(first.0, second.0);
    // The one that served the first and the third has more now: short connections avoid it, as soon as the one
    // before has been seen to end.
    assert_eq!(third.0, first.0);
    wait_for("four in a row by the other", || {
        [(); 4].map(|()| page(&ringgate)).iter().all(|page| *page == second.0).then_some(())
    });
}

#[test]
fn an_endpoint_that_is_killed_and_comes_back_costs_only_what_was_in_flight_on_it() {
    // Two of three are down before the first connection: still nobody notices.
    let never = crate::harness::unused_address();
    let (one, two) = (Nginx::start("one"), Nginx::start("two"));
    let ringgate = Ringgate::start_with_config(&format!(
        "routes:\n- from: {FROM}\n  to: [{}, tcp://{never}, {}]\n",
        tcp(&one),
        tcp(&two)
    ));
    let roots = root_store(std::fs::read(ringgate.root()).unwrap());
    let (stop, served, failed) = (AtomicBool::new(false), AtomicU64::new(0), AtomicU64::new(0));
    let on_two = AtomicU64::new(0);
    std::thread::scope(|scope| {
        let _stop = SetAtEnd(&stop);
        for _ in 0..4 {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    let mut client = Tls::connect(roots.clone(), ringgate.address, "app.localhost");
                    client.send(REQUEST);
                    match client.read_to_end() {
                        Ok(page) if page.ends_with(b"the page of one\n") => {}
                        Ok(page) if page.ends_with(b"the page of two\n") => {
                            on_two.fetch_add(1, Ordering::Relaxed);
                        }
                        _ => drop(failed.fetch_add(1, Ordering::Relaxed)),
                    }
                    served.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        let serves = |count: u64| {
            let from = served.load(Ordering::Relaxed);
            wait_for("more connections", || {
                (served.load(Ordering::Relaxed) >= from + count).then_some(())
            });
        };
        serves(100);
        let address = two.kill();
        serves(100);
        let before = on_two.load(Ordering::Relaxed);
        let two = Nginx::start_at("two", address);
        wait_for("the endpoint that is back to be used", || {
            (on_two.load(Ordering::Relaxed) > before).then_some(())
        });
        serves(100);
        stop.store(true, Ordering::Relaxed);
        drop(two);
    });
    // Each of the four clients may have been waiting for an answer of the one that was killed.
    let failed = failed.load(Ordering::Relaxed);
    assert!(
        failed <= 4,
        "{failed} of {} failed\n{}",
        served.load(Ordering::Relaxed),
        ringgate.log()
    );
    ringgate.wait_for_log("\"reason\":\"endpoint_skipped\"");
    ringgate.wait_for_log(&format!("{never}: "));
}

#[test]
fn when_all_are_down_it_is_said_and_the_first_to_come_back_is_used() {
    let addresses = [crate::harness::unused_address(), crate::harness::unused_address()];
    let ringgate = start(&addresses.map(|address| format!("tcp://{address}")), "");
    for _ in 0..3 {
        assert_eq!(page(&ringgate), "");
    }
    ringgate.wait_for_log("\"reason\":\"connect_refused\"");
    let _back = Nginx::start_at("back", addresses[1]);
    // Skipped or not: with nothing else to go to, it is tried.
    assert_eq!(page(&ringgate), "back");
}

#[test]
fn unix_sockets_are_upstreams_too() {
    let scratch = crate::harness::Scratch::new();
    let path = scratch.path().join("socket");
    let listen = format!("unix:{}", path.display());
    let nginx = Nginx::start_with(
        "socket",
        &[],
        &NginxOptions { listen: Some(&listen), ..NginxOptions::default() },
    );
    let ringgate = start(&[listen], "");
    assert_eq!(page(&ringgate), "socket");
    let upload = scratch.write("upload", vec![7; 3_000_000]);
    let upload_path = upload.display().to_string();
    let output = curl(
        &ringgate.root(),
        ringgate.address,
        "app.localhost",
        "/uploaded",
        &["-T", &upload_path],
    );
    assert!(output.status.success(), "{output:?}");
    assert_eq!(std::fs::read(nginx.file("uploaded")).unwrap(), vec![7; 3_000_000]);
    let missing = start(&["unix:/nowhere/socket".into()], "");
    assert_eq!(page(&missing), "");
    missing.wait_for_log("unix:/nowhere/socket: No such file");
}
