//! The program under test.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};

use super::{Scratch, loopback, wait_for, wait_until_free};

/// The binary, with nothing of our environment that configures it.
pub fn binary() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ringgate"));
    command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
    command
}

/// A running `ringgate run`; killed at the end, its log printed if the test fails.
pub struct Ringgate {
    child: Child,
    scratch: Scratch,
    pub address: SocketAddr,
}

impl Ringgate {
    /// Starts it on a loopback address of its own with these further arguments, and waits until it is
    /// ready.
    pub fn start(arguments: &[&str]) -> Self {
        Self::start_with(arguments, |_| {})
    }

    /// The same with `{scratch}` in a configuration file's text replaced by the test's directory, and
    /// two workers.
    pub fn start_with_config(yaml: &str) -> Self {
        Self::start_configured(&[], yaml)
    }

    /// The same on this address.
    pub fn start_at(address: &str, yaml: &str) -> Self {
        Self::start_configured(&["--address", address], yaml)
    }

    fn start_configured(arguments: &[&str], yaml: &str) -> Self {
        Self::start_prepared(
            arguments,
            |_| {},
            |scratch| {
                let yaml = yaml.replace("{scratch}", &scratch.path().display().to_string());
                Some(scratch.write("ringgate.yaml", yaml))
            },
        )
    }

    pub fn start_with(arguments: &[&str], change: impl FnOnce(&mut Command)) -> Self {
        Self::start_prepared(arguments, change, |_| None)
    }

    fn start_prepared(
        arguments: &[&str],
        change: impl FnOnce(&mut Command),
        config: impl FnOnce(&Scratch) -> Option<PathBuf>,
    ) -> Self {
        let scratch = Scratch::new();
        let mut command = binary();
        command.arg("run");
        if let Some(config) = config(&scratch) {
            command.arg("--config").arg(config);
        }
        let given = arguments.contains(&"--address");
        if !given {
            command.arg("--address").arg(format!("{}:0", loopback()));
        }
        command.arg("--data-dir").arg(scratch.path().join("data"));
        command.args(arguments);
        change(&mut command);
        Self::spawn(command, scratch)
    }

    /// Starts it by another program: `launcher` is given the binary's path and makes the command.
    pub fn start_by(launcher: impl FnOnce(&str) -> Command) -> Self {
        let scratch = Scratch::new();
        let mut command = launcher(env!("CARGO_BIN_EXE_ringgate"));
        command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command.arg("--data-dir").arg(scratch.path().join("data"));
        Self::spawn(command, scratch)
    }

    /// Starts a command that leads to `ringgate run`, in whose directory it may leave files.
    fn spawn(mut command: Command, scratch: Scratch) -> Self {
        let log = std::fs::File::create(scratch.path().join("log")).expect("a log file");
        let out = std::fs::File::create(scratch.path().join("stdout")).expect("a file");
        let child = command
            .stdin(Stdio::null())
            .stdout(out)
            .stderr(log)
            .spawn()
            .expect("the binary starts");
        let host = command
            .get_args()
            .filter_map(|argument| argument.to_str()?.parse::<SocketAddrV4>().ok())
            .last()
            .map_or(Ipv4Addr::LOCALHOST, |address| *address.ip());
        let mut ringgate = Self { child, scratch, address: SocketAddr::from((host, 0)) };
        let port = wait_for("ringgate to be ready", || {
            if let Ok(Some(status)) = ringgate.child.try_wait() {
                panic!("ringgate ended with {status}:\n{}", ringgate.log());
            }
            let log = ringgate.log();
            let ready = log.lines().find(|line| line.contains("\"message\":\"ready\""))?;
            let (_, ports) = ready.split_once("\"ports\":\"")?;
            ports.split(['"', ',']).next()?.parse::<u16>().ok()
        });
        ringgate.address.set_port(port);
        ringgate
    }

    /// Starts it again after it has ended, on the same port and data.
    pub fn again(mut self, arguments: &[&str]) -> Self {
        let _ = self.child.kill();
        let _ = self.child.wait();
        wait_until_free(self.address);
        let mut command = binary();
        command
            .args(["run", "--address", &self.address.to_string(), "--data-dir"])
            .arg(self.scratch.path().join("data"))
            .args(arguments);
        let scratch = std::mem::replace(&mut self.scratch, Scratch::new());
        drop(self);
        Self::spawn(command, scratch)
    }

    pub fn dir(&self) -> &Path {
        self.scratch.path()
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.scratch.path().join("log")).unwrap_or_default()
    }

    #[track_caller]
    pub fn wait_for_log(&self, text: &str) {
        wait_for(&format!("the log to say {text:?}"), || self.log().contains(text).then_some(()));
    }

    /// How often the log says `text`.
    pub fn count_in_log(&self, text: &str) -> usize {
        self.log().matches(text).count()
    }

    /// The local CA's root.
    pub fn root(&self) -> PathBuf {
        self.scratch.path().join("data/local-ca/root.crt")
    }

    /// Where its plain listener listens.
    pub fn redirect_address(&self) -> SocketAddr {
        let log = self.log();
        let (_, port) = log.split_once("\"redirect_port\":").expect("it has a plain listener");
        let digits = port.split(|c: char| !c.is_ascii_digit()).next().unwrap_or_default();
        SocketAddr::new(self.address.ip(), digits.parse().expect("a port"))
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn signal(&self, name: &str) {
        let status =
            Command::new("kill").arg(format!("-{name}")).arg(self.pid().to_string()).status();
        assert!(status.expect("kill").success());
    }

    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    #[track_caller]
    pub fn wait_for_end(&mut self) -> ExitStatus {
        wait_for("ringgate to end", || self.child.try_wait().expect("its status"))
    }

    /// Runs a command that is expected to end by itself.
    pub fn output(arguments: &[&str]) -> Output {
        binary().args(arguments).output().expect("the binary starts")
    }

    /// Resident memory in bytes.
    pub fn resident_bytes(&self) -> u64 {
        let status =
            std::fs::read_to_string(format!("/proc/{}/status", self.pid())).expect("it runs");
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("a line VmRSS");
        let kib: u64 =
            line.split_whitespace().nth(1).and_then(|n| n.parse().ok()).expect("a number");
        kib * 1024
    }
}

impl Drop for Ringgate {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- log of ringgate ---\n{}", self.log());
        }
    }
}
