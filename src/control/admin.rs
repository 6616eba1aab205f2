//! The admin socket: what `ringgate certs` asks the running process. One JSON line each way.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use socket2::{Domain, SockAddr, Socket, Type};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{mpsc, oneshot};
use tracing::warn;

use crate::store::file;

use super::autocert::status::Status;

/// The longest request: a name, a reason and a few words.
const LONGEST_REQUEST: u64 = 4096;
/// Who connects and says nothing is not waited for.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
/// A renewal waits for the CA; longer than the longest wait for one order.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(300);
/// Questions that wait; more are refused.
const WAITING: usize = 16;

/// What can be asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "ask", rename_all = "snake_case")]
pub enum Request {
    Certs,
    Renew { name: String, force: bool },
    Revoke { name: String, reason: String },
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    Certs(Vec<Status>),
    Done(String),
    Failed(String),
}

/// A request and where its answer goes.
pub struct Asked {
    pub request: Request,
    pub reply: oneshot::Sender<Answer>,
}

/// The control plane's end.
pub struct Admin {
    path: PathBuf,
    receiver: mpsc::Receiver<Asked>,
    waiting: Option<Asked>,
}

pub fn socket_path(data_dir: &Path) -> PathBuf {
    data_dir.join("admin.sock")
}

impl Admin {
    /// Opens the socket, for our user alone. Within the runtime.
    ///
    /// # Errors
    /// If there can be no socket there, or another process answers at it.
    pub fn open(data_dir: &Path) -> io::Result<Self> {
        file::create_directory(data_dir)?;
        let path = socket_path(data_dir);
        if answers(&path)? {
            let what = format!("another ringgate answers at {}", path.display());
            return Err(io::Error::new(io::ErrorKind::AddrInUse, what));
        }
        // Under another name until its mode is right, so that nobody else connects before that.
        let new = path.with_extension(format!("sock-{}", std::process::id()));
        let _ = file::remove(&new);
        let listener = UnixListener::bind(&new)?;
        file::put_in_place(&new, &path, 0o600)?;
        let (sender, receiver) = mpsc::channel(WAITING);
        tokio::spawn(accept(listener, sender));
        Ok(Self { path, receiver, waiting: None })
    }

    /// Whether the socket has been removed. One of another process in its place is left there: it may be another
    /// machine's, which nobody here can connect to.
    pub fn is_gone(&self) -> bool {
        file::stamp(&self.path).is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
    }

    /// Waits for a request. May be dropped and called again.
    pub async fn asked(&mut self) {
        if self.waiting.is_none() {
            match self.receiver.recv().await {
                Some(asked) => self.waiting = Some(asked),
                None => std::future::pending().await,
            }
        }
    }

    pub fn take(&mut self) -> Option<Asked> {
        self.waiting.take()
    }
}

/// Whether a process listens there; what one left behind that was killed refuses. Without waiting.
fn answers(path: &Path) -> io::Result<bool> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    Ok(match socket.connect(&SockAddr::unix(path)?) {
        Ok(()) => true,
        Err(error) => error.kind() == io::ErrorKind::WouldBlock,
    })
}

async fn accept(listener: UnixListener, sender: mpsc::Sender<Asked>) {
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = sender.closed() => return,
        };
        match accepted {
            Ok((stream, _)) => drop(tokio::spawn(serve(stream, sender.clone()))),
            Err(error) => {
                warn!(%error, "the admin socket does not accept");
                tokio::time::sleep(REQUEST_TIMEOUT).await;
            }
        }
    }
}

async fn serve(stream: UnixStream, sender: mpsc::Sender<Asked>) {
    let (read, mut write) = stream.into_split();
    let mut line = String::new();
    let mut read = BufReader::new(read.take(LONGEST_REQUEST));
    let received = tokio::time::timeout(REQUEST_TIMEOUT, read.read_line(&mut line)).await;
    if !matches!(received, Ok(Ok(_))) {
        return;
    }
    let answer = match serde_json::from_str(&line) {
        Ok(request) => {
            let (reply, answer) = oneshot::channel();
            match sender.try_send(Asked { request, reply }) {
                Ok(()) => match tokio::time::timeout(ANSWER_TIMEOUT, answer).await {
                    Ok(Ok(answer)) => answer,
                    _ => Answer::Failed("no answer in time; the log says more".into()),
                },
                Err(_) => Answer::Failed("too many questions at once; try again".into()),
            }
        }
        Err(error) => Answer::Failed(format!("this is no request: {error}")),
    };
    let mut bytes = serde_json::to_vec(&answer).unwrap_or_default();
    bytes.push(b'\n');
    // Who does not wait for the answer does not want it.
    let _ = tokio::time::timeout(REQUEST_TIMEOUT, write.write_all(&bytes)).await;
}

/// Asks the running process; `None` if there is none.
///
/// # Errors
/// If it does not answer.
pub fn ask(data_dir: &Path, request: &Request) -> Option<Result<Answer, String>> {
    use std::io::{BufRead, Write};
    let path = socket_path(data_dir);
    let mut stream = match std::os::unix::net::UnixStream::connect(&path) {
        Ok(stream) => stream,
        // What a process left behind that was killed refuses.
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused
            ) =>
        {
            return None;
        }
        Err(error) => {
            return Some(Err(format!(
                "cannot ask the running ringgate through {}: {error}; ask as its user or as root",
                path.display()
            )));
        }
    };
    let exchange = || -> io::Result<Answer> {
        stream.set_read_timeout(Some(ANSWER_TIMEOUT + REQUEST_TIMEOUT))?;
        let mut bytes = serde_json::to_vec(request)?;
        bytes.push(b'\n');
        stream.write_all(&bytes)?;
        let mut line = String::new();
        io::BufReader::new(stream).read_line(&mut line)?;
        Ok(serde_json::from_str(&line)?)
    };
    Some({ exchange }().map_err(|error| format!("the running ringgate does not answer: {error}")))
}
