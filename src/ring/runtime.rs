//! A worker's tokio-uring runtime with the ring flags we need, and what to say where there is none.

use std::future::Future;
use std::io;
use std::os::fd::RawFd;
use std::sync::Mutex;
use std::{fmt, fs};

use super::buffers::Buffers;

/// Submissions that wait for one turn; more are submitted early, which costs a system call. The kernel
/// makes the completion queue twice as large and keeps what overflows.
const ENTRIES: u32 = 1024;

/// Rings are found by comparing the process's descriptors before and after, so they are made one at a
/// time. Held at start-up only.
static MAKING_A_RING: Mutex<()> = Mutex::new(());

/// A tokio-uring runtime and the buffers registered with its ring.
pub struct Runtime {
    inner: tokio_uring::Runtime,
    buffers: Buffers,
}

impl Runtime {
    /// Makes the ring of the calling thread, which alone may use it (SINGLE_ISSUER).
    ///
    /// # Errors
    /// What the kernel said; [`probe`] turns it into words.
    pub fn new() -> io::Result<Self> {
        let _one_at_a_time = MAKING_A_RING.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let before = rings()?;
        let inner = tokio_uring::Runtime::new(
            tokio_uring::builder().entries(ENTRIES).uring_builder(&ring_flags()),
        )?;
        let fd = rings()?
            .into_iter()
            .find(|fd| !before.contains(fd))
            .ok_or_else(|| io::Error::other("the new ring is not among /proc/self/fd"))?;
        let buffers = Buffers::register(fd)?;
        Ok(Self { inner, buffers })
    }

    pub fn buffers(&self) -> Buffers {
        self.buffers.clone()
    }

    pub fn block_on<F: Future>(&self, future: F) -> F::Output {
        self.inner.block_on(future)
    }
}

fn ring_flags() -> io_uring::Builder {
    let mut flags = tokio_uring::uring_builder();
    // Both cut kernel time per handshake from 35 to 22 µs (DESIGN measurements): no interrupts to run
    // completions, no locking against other submitters.
    flags.setup_coop_taskrun().setup_single_issuer();
    flags
}

/// The descriptors of this process that are rings.
#[expect(
    clippy::disallowed_methods,
    reason = "start-up only; tokio-uring does not tell its ring's descriptor"
)]
fn rings() -> io::Result<Vec<RawFd>> {
    let mut rings = Vec::new();
    for entry in fs::read_dir("/proc/self/fd")? {
        let entry = entry?;
        // A descriptor of another thread may be gone by now; it is no ring of ours then.
        let Ok(target) = fs::read_link(entry.path()) else { continue };
        if target.to_str() == Some("anon_inode:[io_uring]")
            && let Some(fd) = entry.file_name().to_str().and_then(|name| name.parse().ok())
        {
            rings.push(fd);
        }
    }
    Ok(rings)
}

/// Why there is no io_uring here, each with its remedy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unavailable {
    /// `kernel.io_uring_disabled` is 1 or 2.
    Disabled {
        sysctl: u8,
    },
    /// A kernel before 6.1, which has no SINGLE_ISSUER or no io_uring at all.
    OldKernel {
        release: String,
    },
    /// A recent kernel that does not let us: a seccomp filter.
    Filtered {
        release: String,
    },
    /// Out of locked memory or of memory.
    NoMemory,
    Other {
        error: String,
    },
}

impl fmt::Display for Unavailable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Disabled { sysctl } => write!(
                f,
                "io_uring is switched off (kernel.io_uring_disabled={sysctl}); run 'sysctl kernel.io_uring_disabled=0', or with 1 add the user's group to kernel.io_uring_group"
            ),
            Self::OldKernel { release } => {
                write!(
                    f,
                    "kernel {release} is too old for this use of io_uring; Linux 6.1 is the oldest that works"
                )
            }
            Self::Filtered { release } => write!(
                f,
                "io_uring is forbidden, though kernel {release} has it: a seccomp filter, probably the container's; allow io_uring_setup, io_uring_enter and io_uring_register (docker: --security-opt seccomp=FILE; systemd: SystemCallFilter=@io-uring)"
            ),
            Self::NoMemory => write!(
                f,
                "no memory for an io_uring; raise the limit of locked memory (ulimit -l, systemd: LimitMEMLOCK=infinity)"
            ),
            Self::Other { error } => write!(f, "io_uring cannot be set up: {error}"),
        }
    }
}

/// Whether workers can run here: makes a ring as they do, registers buffers, and lets it go.
///
/// # Errors
/// Why not, with the remedy.
pub fn probe() -> Result<(), Unavailable> {
    let attempt = std::thread::spawn(|| Runtime::new().map(drop)).join();
    let error = match attempt {
        Ok(Ok(())) => return Ok(()),
        Ok(Err(error)) => error,
        Err(_) => io::Error::other("setting up a ring panicked"),
    };
    Err(explain(&error, io_uring_disabled(), &kernel_release()))
}

/// Pure: the kernel's answer, the sysctl and the release tell the cases apart (io_uring_setup(2)).
fn explain(error: &io::Error, sysctl: u8, release: &str) -> Unavailable {
    let release = release.to_owned();
    match error.raw_os_error() {
        Some(libc::EPERM | libc::ENOSYS) if sysctl > 0 => Unavailable::Disabled { sysctl },
        Some(libc::EINVAL | libc::ENOSYS) if !at_least_6_1(&release) => {
            Unavailable::OldKernel { release }
        }
        Some(libc::EPERM | libc::ENOSYS | libc::EACCES) => Unavailable::Filtered { release },
        Some(libc::ENOMEM) => Unavailable::NoMemory,
        _ => Unavailable::Other { error: error.to_string() },
    }
}

fn at_least_6_1(release: &str) -> bool {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|part| part.parse::<u32>());
    match (numbers.next(), numbers.next()) {
        (Some(Ok(major)), Some(Ok(minor))) => (major, minor) >= (6, 1),
        // A release that cannot be read says nothing against the kernel.
        _ => true,
    }
}

#[expect(clippy::disallowed_methods, reason = "start-up only, to say why there is no ring")]
fn io_uring_disabled() -> u8 {
    let text = fs::read_to_string("/proc/sys/kernel/io_uring_disabled").unwrap_or_default();
    text.trim().parse().unwrap_or(0)
}

fn kernel_release() -> String {
    rustix::system::uname().release().to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_for_no_ring_is_told_apart() {
        let explain =
            |errno, sysctl, release| explain(&io::Error::from_raw_os_error(errno), sysctl, release);
        let old = |release: &str| Unavailable::OldKernel { release: release.into() };
        let filtered = |release: &str| Unavailable::Filtered { release: release.into() };
        assert_eq!(explain(libc::EPERM, 2, "6.8.0"), Unavailable::Disabled { sysctl: 2 });
        assert_eq!(explain(libc::EPERM, 0, "6.8.0-31-generic"), filtered("6.8.0-31-generic"));
        assert_eq!(explain(libc::ENOSYS, 0, "6.8.0"), filtered("6.8.0"));
        assert_eq!(explain(libc::ENOSYS, 0, "4.19.0"), old("4.19.0"));
        assert_eq!(explain(libc::EINVAL, 0, "5.15.0-91"), old("5.15.0-91"));
        assert_eq!(explain(libc::ENOMEM, 0, "6.1.0"), Unavailable::NoMemory);
        assert!(matches!(explain(libc::EMFILE, 0, "6.1.0"), Unavailable::Other { .. }));
    }

    #[test]
    fn a_ring_with_buffers_can_be_made_and_used() {
        let runtime = Runtime::new().expect("io_uring works on this machine");
        runtime.block_on(async {
            let (ours, theirs) = std::os::unix::net::UnixStream::pair().expect("a pair of sockets");
            let socket = super::super::Socket::new(ours.into());
            let buffers = runtime.buffers();
            for round in 0..1000u32 {
                use std::io::Write;
                (&theirs).write_all(&round.to_be_bytes()).expect("the pair is open");
                let buffer = super::super::receive(&socket, &buffers).await.expect("bytes arrive");
                assert_eq!(buffer.as_deref(), Some(&round.to_be_bytes()[..]));
            }
            drop(theirs);
            assert!(super::super::receive(&socket, &buffers).await.expect("the end").is_none());
        });
    }
}
