//! What is said to who mistypes, and that nothing is changed by it.

use crate::harness::{Ringgate, Scratch, binary, command, unused_address};

fn refused(arguments: &[&str]) -> String {
    let output = Ringgate::output(arguments);
    assert_eq!(
        output.status.code(),
        Some(78),
        "{arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(output.stdout.is_empty());
    String::from_utf8(output.stderr).unwrap()
}

#[test]
fn all_problems_of_a_file_come_at_once_with_line_and_remedy() {
    let scratch = Scratch::new();
    let file = scratch.write(
        "ringgate.yaml",
        "address: 443\nidle_timout: 5m\nsystem_certificates: /x\nroutes:\n- from: https://a.localhost\n  to: tcp://127.0.0.1:1\n- from: https://a.localhost\n  to: tcp://127.0.0.1:2\n",
    );
    let file = file.display().to_string();
    for command in ["run", "check"] {
        let text = refused(&[command, "--config", &file]);
        for expected in [
            format!("{file}:1 address: \"443\" has no port; write HOST:PORT or :PORT, like :443\n"),
            format!("{file}:2 idle_timout: is no key; did you mean idle_timeout?\n"),
            format!("{file}:3 system_certificates: is not built yet; leave it out\n"),
            format!(
                "{file}:7 routes[1].from: https://a.localhost is the host of routes[0] ({file}:5) too; keep one of the two routes\n"
            ),
            "4 problems; nothing was changed\n".to_owned(),
        ] {
            assert!(text.contains(&expected), "no {expected:?} in:\n{text}");
        }
    }
}

#[test]
fn flags_beat_environment_beats_file() {
    let scratch = Scratch::new();
    let file = scratch
        .write("ringgate.yaml", "idle_timeout: x\nconnect_timeout: y\nhandshake_timeout: z\n");
    let output = binary()
        .args(["check", "--idle-timeout", "1s"])
        .env("RINGGATE_CONFIG", file)
        .env("RINGGATE_CONNECT_TIMEOUT", "2s")
        .env("RINGGATE_IDLE_TIMEOUT", "bad")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(text.contains("handshake_timeout: \"z\"") && text.contains("1 problem;"), "{text}");
}

#[test]
fn a_core_that_is_not_there_and_a_flag_that_is_none_are_configuration_errors() {
    let text = refused(&["check", "--cores", "0,4097"]);
    assert!(
        text.contains("--cores cores: core 4097 is not one that this process may run on"),
        "{text}"
    );
    let text = refused(&["run", "--idle-timout", "5s"]);
    assert!(text.contains("--idle-timeout"), "{text}");
    assert!(refused(&["store", "check"]).contains("not built yet"));
}

#[test]
fn help_and_version_go_to_stdout_and_list_every_option() {
    let output = Ringgate::output(&["run", "--help"]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success());
    for expected in [
        "--idle-timeout",
        "RINGGATE_IDLE_TIMEOUT",
        "10m",
        "--route <FROM=TO>",
        "--address",
        "--certificates",
        "autocert_use_staging",
    ] {
        assert!(text.contains(expected), "no {expected} in:\n{text}");
    }
    assert!(!text.contains("autocert-on-demand"), "what is not built is not promised");
    assert!(
        String::from_utf8(Ringgate::output(&["--version"]).stdout)
            .unwrap()
            .starts_with("ringgate 0.")
    );
}

#[test]
fn the_reference_and_the_schema_are_printed_and_the_schema_is_json() {
    let printed = |arguments: &[&str]| {
        let output = Ringgate::output(arguments);
        assert!(output.status.success() && output.stderr.is_empty(), "{arguments:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    assert!(printed(&["docs"]).contains("\n### `idle_timeout`\n"));
    let schema = printed(&["docs", "--schema"]);
    let read =
        "import json, sys; print(json.load(sys.stdin)['properties']['tls_min_version']['enum'])";
    let output = command("python3", &["-c", read], &schema);
    assert_eq!(String::from_utf8_lossy(&output.stdout), "['1.2', '1.3', 1.2, 1.3]\n");
}

#[test]
fn a_port_that_is_taken_is_refused_also_when_another_ringgate_has_it() {
    let ringgate = Ringgate::start(&[]);
    let scratch = Scratch::new();
    let data = scratch.path().display().to_string();
    let try_at = |address: &str| {
        let output = Ringgate::output(&["run", "--address", address, "--data-dir", &data]);
        assert_eq!(output.status.code(), Some(69));
        String::from_utf8(output.stderr).unwrap()
    };
    let text = try_at(&ringgate.address.to_string());
    assert!(text.contains("is taken by another process"), "{text}");
    let other = std::net::TcpListener::bind(unused_address()).unwrap();
    assert!(try_at(&other.local_addr().unwrap().to_string()).contains("is taken"));
    assert!(try_at("203.0.113.1:443").contains("is no address of this machine"));
}

/// "Nothing was changed" is meant: no local CA, no private key, no directory.
#[test]
fn a_configuration_with_problems_leaves_nothing_on_disk() {
    let scratch = Scratch::new();
    let data = scratch.path().join("data");
    let config = scratch.write(
        "ringgate.yaml",
        format!(
            "address: 127.0.0.1:0\ndata_dir: {}\ncertificates: [/nowhere]\nroutes:\n- from: https://app.localhost\n  to: tcp://127.0.0.1:1\n",
            data.display()
        ),
    );
    let output = Ringgate::output(&["run", "--config", config.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(78), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stderr).contains("nothing was changed"));
    assert!(!data.exists());
}
