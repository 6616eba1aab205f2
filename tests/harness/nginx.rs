//! A real nginx on a loopback address of its own.

use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use super::{Scratch, free_port, loopback, wait_for};

pub struct Nginx {
    child: Child,
    scratch: Scratch,
    pub address: SocketAddr,
}

impl Nginx {
    /// Serves `www/` of its directory, takes PUT, and says its `name` in a header.
    pub fn start(name: &str) -> Self {
        let host = loopback();
        Self::start_at(name, SocketAddr::from((host, free_port(host))))
    }

    pub fn start_at(name: &str, address: SocketAddr) -> Self {
        let scratch = Scratch::new();
        scratch.write("www/index.html", format!("the page of {name}\n"));
        let root = scratch.path().display().to_string();
        let config = format!(
            "daemon off; worker_processes 1; pid {root}/pid; error_log {root}/error.log;\n\
             user root;\n\
             events {{ worker_connections 20000; }}\n\
             http {{\n\
               access_log off; client_max_body_size 0; client_body_temp_path {root}/tmp;\n\
               proxy_temp_path {root}/tmp; fastcgi_temp_path {root}/tmp; uwsgi_temp_path {root}/tmp; scgi_temp_path {root}/tmp;\n\
               keepalive_requests 1000000; keepalive_timeout 600;\n\
               server {{ listen {address} backlog=4096; root {root}/www; add_header X-Upstream {name};\n\
                 location / {{ dav_methods PUT; create_full_put_path on; }} }}\n\
             }}\n"
        );
        let config = scratch.write("nginx.conf", config);
        let child = Command::new("nginx")
            .arg("-p")
            .arg(scratch.path())
            .arg("-c")
            .arg(config)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("nginx is installed (scripts/test installs it)");
        wait_for("nginx to listen", || TcpStream::connect(address).ok());
        Self { child, scratch, address }
    }

    /// A file that it serves, or where a PUT arrives.
    pub fn file(&self, name: &str) -> PathBuf {
        self.scratch.path().join("www").join(name)
    }

    pub fn route(&self, from: &str) -> String {
        format!("{from}=tcp://{}", self.address)
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        // QUIT lets its worker process end too; KILL would leave that behind.
        let _ = Command::new("kill").arg("-QUIT").arg(self.child.id().to_string()).status();
        let _ = self.child.wait();
    }
}

/// For tests that need the address before anything listens there.
pub fn unused_address() -> SocketAddr {
    let host: Ipv4Addr = loopback();
    SocketAddr::from((host, free_port(host)))
}
