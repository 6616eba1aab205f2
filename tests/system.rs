//! systemd's view, and machines on which io_uring is not to be had.

use std::os::unix::net::UnixDatagram;
use std::process::Command;

use crate::harness::{PATIENCE, Ringgate, Scratch};

#[test]
fn systemd_is_told_ready_reloading_and_stopping() {
    let scratch = Scratch::new();
    let path = scratch.path().join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let told = || {
        let mut buffer = [0; 512];
        let length = socket.recv(&mut buffer).expect("systemd is told");
        String::from_utf8_lossy(&buffer[..length]).into_owned()
    };
    let mut ringgate = Ringgate::start_with(&[], |command| {
        command.env("NOTIFY_SOCKET", &path);
    });
    assert_eq!(told(), "READY=1\n");
    ringgate.signal("HUP");
    let reloading = told();
    assert!(reloading.starts_with("RELOADING=1\nMONOTONIC_USEC="), "{reloading}");
    assert_eq!(told(), "READY=1\n");
    ringgate.signal("TERM");
    assert_eq!(told(), "STOPPING=1\n");
    assert!(ringgate.wait_for_end().success());
}

/// A seccomp filter as containers have it: io_uring_setup answers EPERM.
#[test]
fn where_io_uring_is_forbidden_it_says_why_and_what_to_change() {
    let script = r#"
import ctypes, os, struct, sys
libc = ctypes.CDLL(None, use_errno=True)
def op(code, jt, jf, k): return struct.pack("HBBI", code, jt, jf, k)
IO_URING_SETUP = 425
program = op(0x20, 0, 0, 0) + op(0x15, 0, 1, IO_URING_SETUP) + op(0x06, 0, 0, 0x00050001) + op(0x06, 0, 0, 0x7fff0000)
buffer = ctypes.create_string_buffer(program)
class Filter(ctypes.Structure): _fields_ = [("len", ctypes.c_ushort), ("filter", ctypes.c_void_p)]
filter = Filter(4, ctypes.addressof(buffer))
assert libc.prctl(38, 1, 0, 0, 0) == 0
assert libc.prctl(22, 2, ctypes.byref(filter), 0, 0) == 0
os.execv(sys.argv[1], sys.argv[1:])
"#;
    let scratch = Scratch::new();
    let output = Command::new("python3")
        .args([
            "-c",
            script,
            env!("CARGO_BIN_EXE_ringgate"),
            "run",
            "--address",
            "127.0.0.1:0",
            "--data-dir",
        ])
        .arg(scratch.path())
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap())
        .output()
        .expect("python3");
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(69), "{text}");
    assert!(text.contains("seccomp") && text.contains("io_uring_setup"), "{text}");
}

/// A full disk or a read-only one must not keep what is stored from being served.
#[test]
fn a_data_dir_that_cannot_be_used_is_a_problem_in_words() {
    let output =
        Ringgate::output(&["run", "--address", "127.0.0.1:0", "--data-dir", "/proc/nowhere"]);
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(78), "{text}");
    assert!(
        text.contains("data_dir: the local CA cannot be used: cannot create /proc/nowhere"),
        "{text}"
    );
}
