//! A new user's first minute: no configuration at all, the page, the printed curl line, `trust`.

use std::process::Command;

use crate::harness::{Ringgate, Scratch, binary, command, curl};

/// `localhost:8443` is the machine's; in a network namespace of its own nobody else can have it.
#[test]
fn with_no_configuration_the_printed_curl_line_answers_with_the_page() {
    let scratch = Scratch::new();
    let script = r#"
        ip link set lo up || exit 3
        "$RINGGATE" run >"$HOME/out" 2>"$HOME/log" &
        ringgate=$!
        tries=0
        until [ "$(wc -l <"$HOME/out")" -ge 3 ]; do
            tries=$((tries + 1)); [ $tries -lt 300 ] || { cat "$HOME/log" >&2; exit 4; }
            sleep 0.1
        done
        cat "$HOME/out"
        sh -c "$(sed -n 3p "$HOME/out")" || exit 5
        echo "-- by address"
        curl -sS --cacert "$(sed -n 2p "$HOME/out")" https://127.0.0.1:8443/ https://[::1]:8443/ || exit 6
        kill -TERM $ringgate
        wait $ringgate
        echo "exit $?"
    "#;
    let output = Command::new("unshare")
        .args(["--net", "--map-root-user", "sh", "-c", script])
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap())
        .env("HOME", scratch.path())
        .env("RINGGATE", env!("CARGO_BIN_EXE_ringgate"))
        .output()
        .expect("unshare");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{text}\n{}", String::from_utf8_lossy(&output.stderr));
    let lines: Vec<&str> = text.lines().collect();
    let root = scratch.path().join(".local/share/ringgate/local-ca/root.crt");
    assert_eq!(lines[0], "https://localhost:8443/");
    assert_eq!(lines[1], root.display().to_string());
    assert_eq!(lines[2], format!("curl --cacert {} https://localhost:8443/", root.display()));
    let page = text.split("-- by address").next().unwrap();
    for expected in ["TLS 1.3", "TLS_AES_128_GCM_SHA256", "localhost", "http/1.1", "resumed"] {
        assert!(page.contains(expected), "no {expected} in: {page}");
    }
    assert_eq!(text.matches("Ringgate is running").count(), 3, "{text}");
    assert!(text.ends_with("exit 0\n"), "{text}");
}

#[test]
fn a_browser_gets_html_and_other_requests_are_told_what_is_wrong() {
    let ringgate = Ringgate::start(&[]);
    let name = ringgate.address.ip().to_string();
    let ask = |path: &str, more: &[&str]| {
        let output = curl(&ringgate.root(), ringgate.address, &name, path, more);
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    assert!(ask("/", &["-H", "Accept: text/html,*/*"]).starts_with("<!doctype html>"));
    assert!(ask("/?x", &[]).contains("protocol"));
    assert!(ask("/nothing", &["-i"]).starts_with("HTTP/1.1 404 "));
    assert!(ask("/", &["-i", "-d", "x=1"]).starts_with("HTTP/1.1 405 "));
    let head = ask("/", &["-I"]);
    assert!(head.starts_with("HTTP/1.1 200 ") && head.ends_with("\r\n\r\n"), "{head}");
    let long = format!("X-Long: {}", "x".repeat(9000));
    assert!(ask("/", &["-i", "-H", &long]).starts_with("HTTP/1.1 431 "));
}

#[test]
fn trust_makes_no_root_where_none_is() {
    let scratch = Scratch::new();
    let output = binary().arg("trust").arg("--data-dir").arg(scratch.path()).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success());
    let expected = format!("there is no local CA in {}/local-ca yet; ", scratch.path().display());
    assert!(said.starts_with(&expected) && said.contains("--data-dir"), "{said}");
    assert_eq!(std::fs::read_dir(scratch.path()).unwrap().count(), 0);
}

#[test]
fn trust_prints_the_root_that_signs_and_killing_the_node_keeps_it() {
    let ringgate = Ringgate::start(&["--route", "https://app.localhost=tcp://127.0.0.1:1"]);
    let before = std::fs::read_to_string(ringgate.root()).unwrap();
    let trust = |ringgate: &Ringgate| {
        let data = ringgate.dir().join("data");
        let output = binary().arg("trust").arg("--data-dir").arg(data).output().unwrap();
        assert!(output.status.success());
        String::from_utf8(output.stdout).unwrap()
    };
    assert_eq!(trust(&ringgate), before);
    ringgate.signal("KILL");
    let ringgate = ringgate.again(&["--route", "https://app.localhost=tcp://127.0.0.1:1"]);
    assert_eq!(trust(&ringgate), before);
    let root = ringgate.root().display().to_string();
    let at = ringgate.address.to_string();
    let client = command(
        "openssl",
        &[
            "s_client",
            "-connect",
            &at,
            "-servername",
            "app.localhost",
            "-CAfile",
            &root,
            "-verify_return_error",
        ],
        "",
    );
    let text = String::from_utf8_lossy(&client.stdout);
    assert!(text.contains("Verify return code: 0 (ok)"), "{text}");
    assert!(text.contains("TLS_AES_128_GCM_SHA256"), "{text}");
    let mode = |name: &str| {
        use std::os::unix::fs::PermissionsExt;
        let path = ringgate.dir().join("data/local-ca").join(name);
        std::fs::metadata(path).unwrap().permissions().mode() & 0o777
    };
    assert_eq!((mode("root.key"), mode("leaves")), (0o600, 0o700));
}
