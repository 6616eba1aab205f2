//! `load` against a server that somebody else started, and the open loop.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

/// `load --upstream`, ended with the test.
struct Upstream {
    child: Child,
    address: String,
    scene: String,
}

impl Upstream {
    fn start() -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_load"))
            .args(["--upstream", "--bulk-mib", "1"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut value = |name: &str| {
            let line = lines.next().unwrap().unwrap();
            line.strip_prefix(name).unwrap_or_else(|| panic!("{line}")).trim().to_owned()
        };
        let (address, scene) = (value("upstream:"), value("scene:"));
        Self { child, address, scene }
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.scene);
    }
}

#[test]
fn an_open_loop_keeps_its_rate_on_a_server_that_runs_already() {
    let upstream = Upstream::start();
    let (host, _) = upstream.address.rsplit_once(':').unwrap();
    let address = format!("{host}:9460");
    let scene = &upstream.scene;
    let config = format!(
        "daemon off; user root; worker_processes 1; pid {scene}/pid; error_log stderr;\n\
         events {{ worker_connections 1000; }}\n\
         http {{\n\
           access_log off; client_body_temp_path {scene}; proxy_temp_path {scene};\n\
           fastcgi_temp_path {scene}; uwsgi_temp_path {scene}; scgi_temp_path {scene};\n\
           server {{\n\
             listen {address} ssl; ssl_protocols TLSv1.3;\n\
             ssl_certificate {scene}/ecdsa.crt;\n\
             ssl_certificate_key {scene}/ecdsa.key;\n\
             location / {{ proxy_pass http://{}; }}\n\
           }}\n\
         }}\n",
        upstream.address
    );
    let path = format!("{scene}/nginx.conf");
    std::fs::write(&path, config).unwrap();
    let command = format!("nginx -p {scene} -c {path}");
    let address = address.parse().unwrap();
    let nginx =
        load::started::Started::start("nginx", &command, None, address, scene.as_ref()).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_load"))
        .args(["full", "--rate", "50", "--seconds", "2", "--json"])
        .args(["--address", &address.to_string(), "--scene", scene])
        .args(["--pid", &nginx.pid().to_string()])
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    let json: serde_json::Value = serde_json::from_str(&text).unwrap();
    // Whatever the machine's load, not more than was asked for: 100, and those due at the edges.
    let operations = json["operations"].as_u64().unwrap();
    assert!((1..=140).contains(&operations), "{text}");
    assert!(json["cost"].as_f64() > Some(0.0), "{text}");
}
