//! Lets a test kill the process before the n-th change of the disk. Debug builds only.

/// Dies as by SIGKILL when CRASH_BEFORE_FILE_OPERATION counts this change of the disk.
#[cfg(debug_assertions)]
pub fn pass() {
    use std::sync::LazyLock;
    use std::sync::atomic::{AtomicU64, Ordering};

    #[expect(clippy::disallowed_methods, reason = "only tests set it, only in debug builds")]
    static FATAL: LazyLock<Option<u64>> = LazyLock::new(|| {
        std::env::var("CRASH_BEFORE_FILE_OPERATION").ok().and_then(|text| text.parse().ok())
    });
    static PASSED: AtomicU64 = AtomicU64::new(0);

    if let Some(fatal) = *FATAL
        && PASSED.fetch_add(1, Ordering::Relaxed) + 1 == fatal
    {
        let _ =
            rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
        std::process::abort();
    }
}

#[cfg(not(debug_assertions))]
pub fn pass() {}
