//! What to say where there is no io_uring, and how to tell.

use std::{fmt, fs, io};

use super::Runtime;

/// Why there is no io_uring here, each with its remedy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unavailable {
    /// `kernel.io_uring_disabled` is 1 or 2.
    Disabled {
        sysctl: u8,
    },
    /// A kernel before 6.1, which has no DEFER_TASKRUN or no io_uring at all.
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
}
