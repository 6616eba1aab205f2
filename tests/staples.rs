//! Staples are fetched, served, refreshed, kept over restarts, and refused when they are bad.

use std::time::Duration;

use crate::harness::ocsp::{
    Answer, Leaf, OpensslCa, OpensslOcsp, Responder, certificates, is_stapled, responder_port,
    shown,
};
use crate::harness::{
    Authority, Key, Nginx, NginxOptions, Ringgate, Scratch, command, unused_address, wait_for,
};

const VERSIONS: [&str; 2] = ["-tls1_2", "-tls1_3"];

/// Starts a server for these certificates, with a configuration that stays where it is.
fn start(scratch: &Scratch, yaml: &str) -> Ringgate {
    let config = scratch.write("ringgate.yaml", yaml).display().to_string();
    Ringgate::start(&["--config", &config, "--cores", "0,1"])
}

#[track_caller]
fn wait_stapled(ringgate: &Ringgate, name: &str) {
    wait_for(&format!("a staple for {name}"), || {
        is_stapled(ringgate.address, name, &[]).then_some(())
    });
}

#[test]
fn a_real_responders_answer_is_stapled_by_every_worker_and_after_a_restart_without_it() {
    for key in [Key::P256, Key::Rsa] {
        for signer in ["ca", "delegate"] {
            let (scratch, ca, port) = (Scratch::new(), OpensslCa::new(key), responder_port());
            ca.make_delegate();
            let url = format!("http://127.0.0.1:{port}");
            let leaf = Leaf { responder: Some(&url), ..Leaf::default() };
            let (cert, private_key) = ca.issue_with_root("leaf", "a.example", leaf);
            let yaml = certificates(&[(&cert, &private_key)], &["a.example"]);
            let responder = OpensslOcsp::start(&ca, port, signer, "-ndays 2");
            let ringgate = start(&scratch, &yaml);
            wait_stapled(&ringgate, "a.example");
            // The kernel spreads connections over the workers: sixteen meet both.
            let all = |ringgate: &Ringgate| {
                (0..16).all(|turn| is_stapled(ringgate.address, "a.example", &[VERSIONS[turn % 2]]))
            };
            assert!(all(&ringgate), "{signer}");
            drop(responder);
            let ringgate = ringgate.again(&[
                "--config",
                &scratch.path().join("ringgate.yaml").display().to_string(),
                "--cores",
                "0,1",
            ]);
            assert!(all(&ringgate), "{signer}: after a restart");
        }
    }
}

/// What a configuration says to trust further roots.
fn trusting(scratch: &Scratch, pem: &str) -> String {
    let file = scratch.write("roots.pem", pem);
    format!(
        "autocert: true\nautocert_ca: https://127.0.0.1:1/dir\nautocert_trusted_ca_file: {}\n",
        file.display()
    )
}

#[test]
fn an_issuer_that_is_not_in_the_chain_is_found_among_the_configured_roots() {
    let (scratch, ca, port) = (Scratch::new(), OpensslCa::new(Key::P256), responder_port());
    let url = format!("http://127.0.0.1:{port}");
    let leaf = Leaf { responder: Some(&url), ..Leaf::default() };
    let (cert, key) = ca.issue("leaf", "a.example", leaf);
    let _responder = OpensslOcsp::start(&ca, port, "ca", "-ndays 2");
    let yaml = certificates(&[(&cert, &key)], &["a.example"]);
    let ringgate = start(&scratch, &yaml);
    ringgate.wait_for_log("its issuer's certificate is not at hand");
    assert!(!is_stapled(ringgate.address, "a.example", &[]));
    scratch.write("ringgate.yaml", yaml + &trusting(&scratch, &ca.root_pem()));
    ringgate.signal("HUP");
    wait_stapled(&ringgate, "a.example");
}

#[test]
fn a_responder_behind_https_is_asked_if_its_certificate_is_trusted() {
    let (scratch, ca, port) = (Scratch::new(), OpensslCa::new(Key::P256), responder_port());
    let authority = Authority::new("responders");
    let at = unused_address();
    let (chain, private_key) = authority.issue(&[&at.ip().to_string()], Key::P256);
    let _responder = OpensslOcsp::start(&ca, port, "ca", "-ndays 2");
    let server = format!(
        "ssl_certificate {{root}}/tls.crt; ssl_certificate_key {{root}}/tls.key; access_log {{root}}/access.log;\n\
         location ~ ^/ {{ proxy_pass http://127.0.0.1:{port}; }}"
    );
    let options = NginxOptions { listen: Some("{address} ssl"), server: &server, http: "" };
    let files = [("tls.crt", chain.as_str()), ("tls.key", private_key.as_str())];
    let nginx = Nginx::start_with_at("responder", at, &files, &options);
    let url = format!("https://{at}");
    let leaf = Leaf { responder: Some(&url), ..Leaf::default() };
    let (cert, key) = ca.issue_with_root("leaf", "a.example", leaf);
    let yaml = certificates(&[(&cert, &key)], &["a.example"]);
    let ringgate = start(&scratch, &yaml);
    ringgate.wait_for_log("has a certificate that is not trusted");
    assert!(!is_stapled(ringgate.address, "a.example", &[]));
    scratch.write("ringgate.yaml", yaml + &trusting(&scratch, authority.pem()));
    ringgate.signal("HUP");
    wait_stapled(&ringgate, "a.example");
    nginx.wait_for_line("access.log", "\"GET /M");
}

#[test]
fn bad_responses_are_never_stapled_and_told_of_once() {
    let ca = OpensslCa::new(Key::P256);
    let other = OpensslCa::new(Key::P256);
    ca.make_delegate();
    ca.issue("wrong-purpose", "x.example", Leaf::default());
    let responder = Responder::start(Answer::ok(Vec::new()));
    let url = responder.url();
    let leaf = Leaf { responder: Some(&url), ..Leaf::default() };
    let scratch = Scratch::new();
    let (cert, key) = ca.issue_with_root("leaf", "a.example", leaf);
    other.issue("leaf", "a.example", leaf);
    ca.issue("another", "b.example", leaf);
    let yaml = certificates(&[(&cert, &key)], &["a.example"]);
    let good = ca.response("leaf", "ca", "-ndays 1");
    // Its last bytes are its signature.
    let mut broken = ca.response("leaf", "ca", "-ndays 1 -resp_no_certs");
    let last = broken.len() - 3;
    broken[last] ^= 1;
    let status = |status: u8| vec![0x30, 3, 0x0a, 1, status];
    let cases: [(&str, Answer, &str); 12] = [
        ("unauthorized", Answer::ok(status(6)), "says unauthorized"),
        ("try later", Answer::ok(status(3)), "says tryLater"),
        ("not DER", Answer::ok("<html>"), "is no OCSP response"),
        ("too long", Answer::ok(vec![0x30; 65 * 1024]), "65537 bytes"),
        ("expired", Answer::ok(ca.aged(&good, Duration::from_secs(48 * 3600))), "has expired"),
        ("no next update", Answer::ok(ca.response("leaf", "ca", "")), "names no nextUpdate"),
        ("broken", Answer::ok(broken), "signature is not"),
        ("another's", Answer::ok(ca.response("another", "ca", "-ndays 1")), "another certificate"),
        (
            "another issuer's",
            Answer::ok(other.response("leaf", "ca", "-ndays 1")),
            "not of this certificate's issuer",
        ),
        (
            "no right to sign",
            Answer::ok(ca.response("leaf", "wrong-purpose", "-ndays 1")),
            "not for OCSP signing",
        ),
        ("an error", Answer::with(503, "Retry-After: 5\r\n"), "answered 503"),
        (
            "round and round",
            Answer::with(302, &format!("Location: {url}\r\n")),
            "more than 3 times",
        ),
    ];
    for (what, answer, expected) in cases {
        responder.set(answer);
        let ringgate = start(&scratch, &yaml);
        ringgate.wait_for_log(expected);
        assert!(
            shown(ringgate.address, "a.example", &[]).contains("OCSP response: no response sent"),
            "{what}"
        );
        let complaints = ringgate.log().matches("no staple").count();
        assert_eq!(complaints, 1, "{what}: {}", ringgate.log());
    }
    responder.set(Answer::ok(good));
    let ringgate = start(&scratch, &yaml);
    wait_stapled(&ringgate, "a.example");
}

/// The serial number that is served for a name.
fn serial(ringgate: &Ringgate, name: &str) -> String {
    let text = shown(ringgate.address, name, &["-showcerts"]);
    let begin = text.find("-----BEGIN CERTIFICATE-----").expect("a certificate");
    let end = text.find("-----END CERTIFICATE-----").expect("its end");
    let pem = format!("{}-----END CERTIFICATE-----\n", &text[begin..end]);
    let output = command("openssl", &["x509", "-noout", "-serial"], &pem);
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

#[test]
fn a_must_staple_certificate_takes_anothers_place_only_with_its_staple() {
    let (scratch, ca) = (Scratch::new(), OpensslCa::new(Key::P256));
    let responder = Responder::start(Answer::with(503, ""));
    let url = responder.url();
    let (cert, key) = ca.issue_with_root("plain", "a.example", Leaf::default());
    let must_staple = Leaf { responder: Some(&url), must_staple: true, ..Leaf::default() };
    let (new_cert, new_key) = ca.issue_with_root("must", "a.example", must_staple);
    let ringgate = start(&scratch, &certificates(&[(&cert, &key)], &["a.example"]));
    let plain = serial(&ringgate, "a.example");
    std::fs::copy(&new_key, &key).expect("another private key");
    std::fs::copy(&new_cert, &cert).expect("another chain");
    responder.wait_for_more_than(1);
    assert_eq!(serial(&ringgate, "a.example"), plain);
    responder.set(Answer::ok(ca.response("must", "ca", "-ndays 1")));
    wait_for("the new one", || (serial(&ringgate, "a.example") != plain).then_some(()));
    assert!(is_stapled(ringgate.address, "a.example", &[]));
    // Where nothing else can serve the name, it does so without.
    responder.set(Answer::with(503, ""));
    let scratch = Scratch::new();
    let alone = start(&scratch, &certificates(&[(&new_cert, &new_key)], &["a.example"]));
    responder.wait_for_more_than(responder.asked().len());
    assert_ne!(serial(&alone, "a.example"), plain);
}

#[test]
fn what_is_off_asks_nobody_and_staples_nothing() {
    let (scratch, ca) = (Scratch::new(), OpensslCa::new(Key::P256));
    let responder = Responder::start(Answer::with(503, ""));
    let url = responder.url();
    let leaf = Leaf { responder: Some(&url), list: Some(&url), ..Leaf::default() };
    let (cert, _) = ca.issue_with_root("leaf", "a.example", leaf);
    let staple = ca.response("leaf", "ca", "-ndays 1");
    std::fs::write(cert.with_extension("crt.ocsp"), staple).expect("a staple by hand");
    let dir = cert.parent().expect("a directory").display().to_string();
    let yaml = format!(
        "certificates: [{dir}]\nroutes:\n- from: https://a.example\n  to: tcp://127.0.0.1:1\n"
    );
    let ringgate = start(&scratch, &format!("{yaml}ocsp_stapling: false\n"));
    assert!(!is_stapled(ringgate.address, "a.example", &[]));
    // Turned on, the one by hand is stapled at once and nobody is asked before it is due.
    scratch.write("ringgate.yaml", &yaml);
    ringgate.signal("HUP");
    wait_stapled(&ringgate, "a.example");
    assert_eq!(responder.asked(), []);
    scratch.write("ringgate.yaml", format!("{yaml}ocsp_stapling: false\n"));
    ringgate.signal("HUP");
    wait_for("no staple", || (!is_stapled(ringgate.address, "a.example", &[])).then_some(()));
}
