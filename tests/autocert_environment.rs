//! What the environment says to autocert besides its options: a proxy on the way to the CA, Kubernetes.

use crate::harness::autocert::{arguments, wait_for_certificate};
use crate::harness::{ConnectProxy, Pebble, PebbleOptions, Ringgate};

fn start_with(pebble: &Pebble, environment: &[(&str, &str)]) -> Ringgate {
    let all = arguments(pebble, &["a.example"], &[]);
    let all: Vec<&str> = all.iter().map(String::as_str).collect();
    Ringgate::start_with(&all, |command| {
        command.envs(environment.iter().copied());
    })
}

#[test]
fn the_ca_is_reached_through_the_proxy_of_the_environment_unless_it_is_excepted() {
    let pebble = Pebble::start(PebbleOptions::default());
    let proxy = ConnectProxy::start(str::to_owned);
    let url = format!("http://user:secret@{}", proxy.address);
    let node = start_with(&pebble, &[("HTTPS_PROXY", &url)]);
    wait_for_certificate(&node, &pebble, "a.example");
    {
        let heads = proxy.heads();
        assert!(heads.len() > 5, "{heads:?}");
        let credentials = "Proxy-Authorization: Basic dXNlcjpzZWNyZXQ=\r\n";
        assert!(heads.iter().all(|head| head.contains(credentials)), "{heads:?}");
    }
    assert!(!node.log().contains("secret"));
    drop(node);
    let before = proxy.heads().len();
    let except = pebble.address.ip().to_string();
    let node = start_with(&pebble, &[("HTTPS_PROXY", &url), ("NO_PROXY", &except)]);
    wait_for_certificate(&node, &pebble, "a.example");
    assert_eq!(proxy.heads().len(), before);
}

#[test]
fn a_proxy_that_is_not_there_is_named() {
    let pebble = Pebble::start(PebbleOptions::default());
    let node = start_with(&pebble, &[("https_proxy", "http://127.0.0.1:1")]);
    node.wait_for_log("the proxy of HTTPS_PROXY: cannot connect to 127.0.0.1");
}

#[test]
fn on_kubernetes_a_local_directory_is_warned_of() {
    let pebble = Pebble::start(PebbleOptions::default());
    let node = start_with(&pebble, &[("KUBERNETES_SERVICE_HOST", "10.0.0.1")]);
    node.wait_for_log("consider cert-manager");
    assert_eq!(node.count_in_log("cert-manager"), 1);
}
