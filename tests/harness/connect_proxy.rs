//! A proxy that speaks CONNECT, and may lead elsewhere than it was asked to.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

pub struct ConnectProxy {
    pub address: SocketAddr,
    heads: Arc<Mutex<Vec<String>>>,
}

impl ConnectProxy {
    /// `leads` says where a `HOST:PORT` leads.
    pub fn start(leads: impl Fn(&str) -> String + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("its address");
        let heads = Arc::new(Mutex::new(Vec::new()));
        let (noted, leads) = (heads.clone(), Arc::new(leads));
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let (noted, leads) = (noted.clone(), leads.clone());
                std::thread::spawn(move || serve(client, &noted, &*leads));
            }
        });
        Self { address, heads }
    }

    /// The heads of what it was asked.
    pub fn heads(&self) -> Vec<String> {
        self.heads.lock().unwrap().clone()
    }
}

fn serve(
    mut client: TcpStream,
    noted: &Mutex<Vec<String>>,
    leads: &dyn Fn(&str) -> String,
) -> Option<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        client.read_exact(&mut byte).ok()?;
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).ok()?;
    let target = leads(head.strip_prefix("CONNECT ")?.split(' ').next()?);
    noted.lock().unwrap().push(head);
    let mut server = TcpStream::connect(target).ok()?;
    client.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").ok()?;
    let (mut from, mut to) = (server.try_clone().ok()?, client.try_clone().ok()?);
    let back = std::thread::spawn(move || {
        let _ = std::io::copy(&mut from, &mut to);
        let _ = to.shutdown(Shutdown::Write);
    });
    let _ = std::io::copy(&mut client, &mut server);
    let _ = server.shutdown(Shutdown::Write);
    back.join().ok()
}
