//! Which certificate a client is shown, and what is said of those that are not right.

use std::path::Path;

use crate::harness::{Authority, Key, Nginx, Ringgate, Scratch, command};

/// What `openssl s_client` prints for this name and these further arguments.
fn shown(ringgate: &Ringgate, more: &[&str]) -> String {
    let at = ringgate.address.to_string();
    let mut arguments = vec!["s_client", "-connect", &at, "-showcerts"];
    arguments.extend(more);
    let output = command("openssl", &arguments, "");
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

fn start(dir: &Path, routes: &[&str], more: &[&str]) -> Ringgate {
    let nginx_less: Vec<String> =
        routes.iter().map(|from| format!("https://{from}=tcp://127.0.0.1:1")).collect();
    let dir = dir.display().to_string();
    let mut arguments = vec!["--certificates", &dir];
    for route in &nginx_less {
        arguments.extend(["--route", route]);
    }
    arguments.extend(more);
    Ringgate::start(&arguments)
}

#[test]
fn an_ecdsa_and_an_rsa_certificate_live_side_by_side_and_the_client_chooses() {
    let scratch = Scratch::new();
    let ca = Authority::new("both");
    ca.issue_into(scratch.path(), "ec", &["app.example"], Key::P256);
    ca.issue_into(scratch.path(), "rsa", &["app.example"], Key::Rsa);
    let ringgate = start(scratch.path(), &["app.example"], &[]);
    let sni = ["-servername", "app.example"];
    let kind = |more: &[&str]| {
        let text = shown(&ringgate, &[&sni[..], more].concat());
        let line = text
            .lines()
            .find(|line| line.contains("Peer signature type"))
            .unwrap_or(&text)
            .to_owned();
        line.rsplit(' ').next().unwrap().to_owned()
    };
    assert_eq!(kind(&[]), "ECDSA");
    assert_eq!(kind(&["-sigalgs", "RSA-PSS+SHA256"]), "RSA-PSS");
    assert_eq!(kind(&["-tls1_2"]), "ECDSA");
    assert_eq!(kind(&["-tls1_2", "-cipher", "ECDHE-RSA-AES128-GCM-SHA256"]), "RSA-PSS");
    assert_eq!(
        kind(&["-tls1_2", "-cipher", "ECDHE-RSA-AES256-GCM-SHA384", "-sigalgs", "RSA+SHA256"]),
        "RSA"
    );
}

#[test]
fn the_exact_name_wins_over_the_wildcard_and_case_does_not_matter() {
    let scratch = Scratch::new();
    let (exact, wildcard) = (Authority::new("exact"), Authority::new("wildcard"));
    exact.issue_into(scratch.path(), "exact", &["a.example"], Key::P256);
    wildcard.issue_into(
        scratch.path(),
        "wildcard",
        &["*.example", "xn--bcher-kva.test"],
        Key::P256,
    );
    let ringgate = start(scratch.path(), &["a.example", "*.example", "bücher.test"], &[]);
    let issuer = |name: &str| {
        let text = shown(&ringgate, &["-servername", name]);
        ["exact", "wildcard"]
            .into_iter()
            .find(|ca| text.contains(&format!("CN = {ca}")))
            .map(str::to_owned)
            .unwrap_or(text)
    };
    assert_eq!(issuer("a.example"), "exact");
    assert_eq!(issuer("A.EXAMPLE"), "exact");
    assert_eq!(issuer("b.example"), "wildcard");
    assert_eq!(issuer("xn--bcher-kva.test"), "wildcard");
    assert!(issuer("c.b.example").contains("unrecognized name"));
    assert_eq!(ringgate.count_in_log("LOCAL CA"), 0);
}

#[test]
fn an_absent_name_is_looked_up_as_the_address_and_then_as_default_server_name() {
    let nginx = Nginx::start("ip");
    let by_address = Ringgate::start(&["--route", "https://other.localhost=tcp://127.0.0.1:1"]);
    let refused = shown(&by_address, &["-noservername"]);
    assert!(refused.contains("unrecognized name"), "{refused}");

    let host = crate::harness::loopback();
    let address = format!("{host}:0");
    let ringgate = Ringgate::start(&[
        "--address",
        &address,
        "--route",
        &nginx.route(&format!("https://{host}")),
    ]);
    let root = ringgate.root().display().to_string();
    let url = format!("https://{}/", ringgate.address);
    let output = command("curl", &["-sS", "--cacert", &root, &url], "");
    assert_eq!(output.stdout, b"the page of ip\n", "{}", String::from_utf8_lossy(&output.stderr));

    let route = nginx.route("https://app.localhost");
    let ringgate = Ringgate::start(&["--route", &route, "--default-server-name", "app.localhost"]);
    for more in [&["-noservername"][..], &["-servername", "unknown.example"]] {
        let text = shown(&ringgate, more);
        assert!(text.contains("Ringgate local CA") && text.contains("TLS_AES_128"), "{text}");
    }
}

#[test]
fn a_self_signed_root_in_the_chain_is_not_sent() {
    let scratch = Scratch::new();
    let ca = Authority::new("root-in-chain");
    let (leaf, key) = ca.issue(&["app.example"], Key::P256);
    scratch.write("app.crt", leaf + ca.pem());
    scratch.write("app.key", key);
    let ringgate = start(scratch.path(), &["app.example"], &[]);
    let text = shown(&ringgate, &["-servername", "app.example"]);
    assert_eq!(text.matches("-----BEGIN CERTIFICATE-----").count(), 1, "{text}");
}

#[test]
fn an_expired_certificate_is_served_with_a_loud_warning() {
    let scratch = Scratch::new();
    let (chain, key) = Authority::new("late").issue_expired(&["app.example"]);
    scratch.write("app.crt", chain);
    scratch.write("app.key", key);
    let ringgate = start(scratch.path(), &["app.example"], &[]);
    assert!(shown(&ringgate, &["-servername", "app.example"]).contains("certificate has expired"));
    let log = ringgate.log().to_lowercase();
    assert!(log.contains("expired") && log.contains("warn"), "{log}");
}

#[test]
fn a_public_name_from_the_local_ca_is_warned_of_at_start_and_in_check() {
    let arguments = ["--route", "https://shop.example.com=tcp://127.0.0.1:1"];
    let ringgate = Ringgate::start(&arguments);
    assert!(ringgate.log().contains("shop.example.com is a public name"), "{}", ringgate.log());
    let scratch = Scratch::new();
    let data = scratch.path().join("data").display().to_string();
    let output = Ringgate::output(&[&["check", "--data-dir", &data][..], &arguments].concat());
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && text.contains("shop.example.com is a public name"),
        "{text}"
    );
    assert!(!scratch.path().join("data").exists(), "check changes nothing");
}

#[test]
fn certificates_that_cannot_be_served_are_refused_in_words_at_once() {
    let scratch = Scratch::new();
    let ca = Authority::new("refused");
    let (chain, key) = ca.issue(&["a.example"], Key::P256);
    let (_, other_key) = ca.issue(&["a.example"], Key::P256);
    let chain = scratch.write("a.pem", chain);
    let key = scratch.write("a-key.pem", key);
    let other_key = scratch.write("other-key.pem", other_key);
    let encrypted = scratch.path().join("encrypted-key.pem");
    let pkey = [
        "pkey",
        "-in",
        key.to_str().unwrap(),
        "-aes256",
        "-passout",
        "pass:secret",
        "-out",
        encrypted.to_str().unwrap(),
    ];
    assert!(command("openssl", &pkey, "").status.success());
    let garbage = scratch.write("garbage.pem", "this is no certificate\n");
    let entry =
        |cert: &Path, key: &Path| format!("- cert: {}\n  key: {}\n", cert.display(), key.display());
    let yaml = [
        "certificates:\n".to_owned(),
        entry(&chain, &other_key),
        entry(&chain, &encrypted),
        entry(&garbage, &key),
        entry(Path::new("/nowhere/a.pem"), &key),
    ]
    .concat();
    let config = scratch.write("ringgate.yaml", yaml).display().to_string();
    let data = scratch.path().join("data").display().to_string();
    for command in ["check", "run"] {
        let output = Ringgate::output(&[
            command,
            "--config",
            &config,
            "--data-dir",
            &data,
            "--address",
            "127.0.0.1:0",
        ]);
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(78), "{text}");
        for expected in [
            "does not belong",
            "encrypted",
            "garbage.pem",
            "/nowhere/a.pem",
            "certificates[0]",
            "4 problems",
        ] {
            assert!(text.contains(expected), "no {expected:?} in:\n{text}");
        }
        for (line, entry) in
            ["ringgate.yaml:2", "ringgate.yaml:4", "ringgate.yaml:6", "ringgate.yaml:8"]
                .iter()
                .enumerate()
        {
            assert!(text.contains(entry), "problem {line} has no place {entry}:\n{text}");
        }
    }
}

#[test]
fn a_broken_pair_in_a_directory_is_warned_of_and_the_others_are_served() {
    let scratch = Scratch::new();
    let ca = Authority::new("directory");
    ca.issue_into(scratch.path(), "good", &["good.example"], Key::P256);
    let (broken, _) = ca.issue(&["broken.example"], Key::P256);
    scratch.write("broken.crt", broken);
    scratch.write("broken.key", ca.issue(&["x.example"], Key::P256).1);
    let ringgate = start(scratch.path(), &["good.example"], &[]);
    assert!(shown(&ringgate, &["-servername", "good.example"]).contains("CN = directory"));
    assert!(ringgate.log().contains("broken.crt"), "{}", ringgate.log());
}
