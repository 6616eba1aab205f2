//! A real nginx on a loopback address of its own.

use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use super::{Scratch, free_port, loopback, wait_for};

/// What differs from a plain server with a page.
#[derive(Default)]
pub struct NginxOptions<'a> {
    /// Instead of the address: `unix:{root}/socket`, or words behind the address such as `ssl`.
    pub listen: Option<&'a str>,
    /// Directives of the server; `{root}` is its directory.
    pub server: &'a str,
    /// Directives around the server.
    pub http: &'a str,
}

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
        Self::launch(name, address, Scratch::new(), &NginxOptions::default())
    }

    /// With further directives, and files that are there before it starts.
    pub fn start_with(name: &str, files: &[(&str, &str)], options: &NginxOptions<'_>) -> Self {
        Self::start_with_at(name, unused_address(), files, options)
    }

    /// The same where the files depend on the address.
    pub fn start_with_at(
        name: &str,
        address: SocketAddr,
        files: &[(&str, &str)],
        options: &NginxOptions<'_>,
    ) -> Self {
        let scratch = Scratch::new();
        for (name, content) in files {
            scratch.write(name, content);
        }
        Self::launch(name, address, scratch, options)
    }

    fn launch(
        name: &str,
        address: SocketAddr,
        scratch: Scratch,
        options: &NginxOptions<'_>,
    ) -> Self {
        scratch.write("www/index.html", format!("the page of {name}\n"));
        let root = scratch.path().display().to_string();
        let in_place =
            |text: &str| text.replace("{root}", &root).replace("{address}", &address.to_string());
        let listen = in_place(options.listen.unwrap_or("{address}"));
        let (server, http) = (in_place(options.server), in_place(options.http));
        let config = format!(
            "daemon off; worker_processes 1; pid {root}/pid; error_log {root}/error.log;\n\
             user root;\n\
             events {{ worker_connections 20000; }}\n\
             http {{\n\
               access_log off; client_max_body_size 0; client_body_temp_path {root}/tmp;\n\
               proxy_temp_path {root}/tmp; fastcgi_temp_path {root}/tmp; uwsgi_temp_path {root}/tmp; scgi_temp_path {root}/tmp;\n\
               keepalive_requests 1000000; keepalive_timeout 600;\n\
               {http}\n\
               server {{ listen {listen} backlog=4096; {server} root {root}/www; add_header X-Upstream {name};\n\
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
        match listen.split(' ').next().and_then(|place| place.strip_prefix("unix:")) {
            Some(path) => drop(wait_for("nginx to listen", || UnixStream::connect(path).ok())),
            None => drop(wait_for("nginx to listen", || TcpStream::connect(address).ok())),
        }
        Self { child, scratch, address }
    }

    /// A file that it serves, or where a PUT arrives.
    pub fn file(&self, name: &str) -> PathBuf {
        self.scratch.path().join("www").join(name)
    }

    /// A file of its directory, such as a log.
    pub fn path(&self, name: &str) -> PathBuf {
        self.scratch.path().join(name)
    }

    /// Waits until a log has a line with `text`, and gives that line.
    #[track_caller]
    pub fn wait_for_line(&self, log: &str, text: &str) -> String {
        wait_for(&format!("{log} of nginx to say {text:?}"), || {
            let log = std::fs::read_to_string(self.path(log)).unwrap_or_default();
            log.lines().find(|line| line.contains(text)).map(str::to_owned)
        })
    }

    /// Ends it at once, with its connections.
    pub fn kill(self) -> SocketAddr {
        let address = self.address;
        // TERM closes everything and takes its worker process along.
        let _ = Command::new("kill").arg("-TERM").arg(self.child.id().to_string()).status();
        drop(self);
        address
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
