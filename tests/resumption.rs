//! One ticket, opened by every worker, until two rotations later.

use std::path::Path;

use crate::harness::{Nginx, Ringgate, command};

fn session(ringgate: &Ringgate, version: &str, more: &[&str]) -> String {
    let at = ringgate.address.to_string();
    let root = ringgate.root().display().to_string();
    let mut arguments = vec![
        "s_client",
        "-connect",
        &at,
        "-servername",
        "app.localhost",
        "-CAfile",
        &root,
        version,
        "-ign_eof",
    ];
    arguments.extend(more);
    let output = command("openssl", &arguments, "GET / HTTP/1.0\r\n\r\n");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        text.contains("the page of tickets"),
        "{text}\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
    text
}

fn resumed(ringgate: &Ringgate, version: &str, file: &Path) -> bool {
    let text = session(ringgate, version, &["-sess_in", file.to_str().unwrap()]);
    text.contains("\nReused, ")
}

#[test]
fn a_session_resumes_on_whichever_worker_and_is_one_ticket() {
    let nginx = Nginx::start("tickets");
    let ringgate = Ringgate::start(&["--route", &nginx.route("https://app.localhost")]);
    for version in ["-tls1_2", "-tls1_3"] {
        let file = ringgate.dir().join(format!("session{version}"));
        let first = session(&ringgate, version, &["-sess_out", file.to_str().unwrap()]);
        assert!(first.contains("\nNew, "), "{first}");
        if version == "-tls1_3" {
            assert_eq!(
                first.matches("Post-Handshake New Session Ticket arrived").count(),
                1,
                "{first}"
            );
        }
        // The kernel spreads connections over two workers by their ports: one in a thousand runs keeps
        // all ten on one.
        for attempt in 0..10 {
            assert!(resumed(&ringgate, version, &file), "{version}, attempt {attempt}");
        }
    }
    let log = {
        ringgate.signal("TERM");
        ringgate.wait_for_log("\"resumed_handshakes\":20");
        ringgate.log()
    };
    assert!(log.contains("\"full_handshakes\":2"), "{log}");
}

#[test]
fn a_ticket_opens_for_two_rotations_and_no_longer() {
    let nginx = Nginx::start("tickets");
    let ringgate = Ringgate::start(&[
        "--route",
        &nginx.route("https://app.localhost"),
        "--ticket-rotation",
        "10s",
    ]);
    let rotated = |times: usize| {
        crate::harness::wait_for("a rotation", || {
            (ringgate.count_in_log("ticket keys rotated") >= times).then_some(())
        });
    };
    // Right after a rotation there is time for what follows.
    rotated(1);
    let files: Vec<_> = ["-tls1_2", "-tls1_3"]
        .iter()
        .map(|version| {
            let file = ringgate.dir().join(format!("session{version}"));
            session(&ringgate, version, &["-sess_out", file.to_str().unwrap()]);
            (*version, file)
        })
        .collect();
    rotated(2);
    for (version, file) in &files {
        assert!(resumed(&ringgate, version, file), "{version} after one rotation");
    }
    rotated(3);
    for (version, file) in &files {
        assert!(!resumed(&ringgate, version, file), "{version} after two rotations");
    }
}
