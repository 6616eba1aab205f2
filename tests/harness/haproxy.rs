//! A real HAProxy, with the configuration that a test needs.

use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};

use super::{Scratch, free_port, loopback, wait_for};

pub struct Haproxy {
    child: Child,
    _scratch: Scratch,
    pub address: SocketAddr,
}

impl Haproxy {
    /// One proxy with these lines, of which `{address}` is where it is to bind.
    pub fn start(lines: &[&str]) -> Self {
        let host = loopback();
        let address = SocketAddr::from((host, free_port(host)));
        let lines: Vec<_> = lines
            .iter()
            .map(|line| format!("  {}\n", line.replace("{address}", &address.to_string())))
            .collect();
        let scratch = Scratch::new();
        let config = scratch.write(
            "haproxy.cfg",
            format!(
                "defaults\n  timeout connect 5s\n  timeout client 60s\n  timeout server 60s\nlisten under-test\n{}",
                lines.concat()
            ),
        );
        let child = Command::new("haproxy")
            .arg("-db")
            .arg("-f")
            .arg(config)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("haproxy is installed (scripts/test installs it)");
        wait_for("haproxy to listen", || TcpStream::connect(address).ok());
        Self { child, _scratch: scratch, address }
    }
}

impl Drop for Haproxy {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
