//! Named steps, at which a test kills the process. Nothing without the feature `steps`.

/// Kills this process (SIGKILL) when `BERTH_KILL_AT` is `NAME` or `NAME:N`, at the N-th time that it comes here.
#[cfg(feature = "steps")]
#[doc(hidden)]
pub fn step(name: &str) {
    use std::sync::atomic::{AtomicU32, Ordering};
    static SEEN: AtomicU32 = AtomicU32::new(0);
    let Ok(wanted) = std::env::var("BERTH_KILL_AT") else { return };
    let (wanted, times) = wanted.split_once(':').unwrap_or((&wanted, "1"));
    if wanted == name && (SEEN.fetch_add(1, Ordering::SeqCst) + 1).to_string() == times {
        let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
    }
}

#[cfg(not(feature = "steps"))]
#[doc(hidden)]
#[inline(always)]
pub fn step(_name: &str) {}
