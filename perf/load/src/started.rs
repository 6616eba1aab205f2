//! A server that was started, on a core of its own, and ends with whoever started it.

use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};

/// To listen, and to end after SIGTERM.
const PATIENCE: Duration = Duration::from_secs(20);

pub struct Started {
    child: Child,
    pub address: SocketAddr,
}

impl Started {
    /// Starts `command`, pinned to `core` if given, and waits until `address` takes connections. What it
    /// prints goes to `NAME.log` in `dir`.
    pub fn start(
        name: &str,
        command: &str,
        core: Option<usize>,
        address: SocketAddr,
        dir: &Path,
    ) -> Result<Self, String> {
        if TcpStream::connect(address).is_ok() {
            return Err(format!("{name}: somebody listens on {address} before it was started"));
        }
        let log = dir.join(format!("{name}.log"));
        let output = File::create(&log).map_err(|error| format!("{}: {error}", log.display()))?;
        let error_output = output.try_clone().map_err(|error| error.to_string())?;
        // Whoever started it may be killed; it ends with them. Also if that was before the kernel had been told to
        // say so: then another is its parent by now.
        let mut whole = Command::new("setpriv");
        whole.args(["--pdeathsig", "TERM"]);
        whole.args(["sh", "-c", "[ $PPID = $0 ] && exec \"$@\"", &std::process::id().to_string()]);
        if let Some(core) = core {
            whole.args(["taskset", "-c", &core.to_string()]);
        }
        let child = whole
            .args(command.split_whitespace())
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(output)
            .stderr(error_output)
            .spawn()
            .map_err(|error| format!("{name}: setpriv (util-linux): {error}"))?;
        let mut started = Self { child, address };
        started.wait_until_it_listens().map_err(|what| {
            format!("{name} {what}\n  command: {command}\n  {}", last_lines(&log))
        })?;
        Ok(started)
    }

    /// Its first process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    fn wait_until_it_listens(&mut self) -> Result<(), String> {
        let deadline = Instant::now() + PATIENCE;
        while TcpStream::connect(self.address).is_err() {
            match self.child.try_wait() {
                Ok(None) if Instant::now() < deadline => {}
                Ok(None) => return Err(format!("does not listen on {}", self.address)),
                Ok(Some(status)) => return Err(format!("ended with {status}")),
                Err(error) => return Err(error.to_string()),
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    fn signal(&self, signal: Signal) {
        let group = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        if let Some(group) = group {
            let _ = kill_process_group(group, signal);
        }
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        self.signal(Signal::TERM);
        let deadline = Instant::now() + PATIENCE;
        while matches!(self.child.try_wait(), Ok(None)) && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(5));
        }
        // A draining server, or children that outlived their parent, and may need a moment.
        self.signal(Signal::KILL);
        let _ = self.child.wait();
        while TcpStream::connect(self.address).is_ok() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

/// A port that is free now on `host`.
pub fn free_port(host: Ipv4Addr) -> Result<u16, String> {
    let listener = TcpListener::bind((host, 0)).and_then(|listener| listener.local_addr());
    Ok(listener.map_err(|error| format!("no free port on {host}: {error}"))?.port())
}

fn last_lines(log: &PathBuf) -> String {
    let text = fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<_> = text.lines().rev().take(10).collect();
    lines.into_iter().rev().collect::<Vec<_>>().join("\n  ")
}
