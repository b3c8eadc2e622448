//! Named steps, at which a test kills the process. Nothing without the feature `steps`.

/// All names of steps, here and in rrt-images.
#[cfg(feature = "steps")]
pub const STEPS: [&str; 17] = [
    "lease-made",
    "lease-added",
    "ingest-locked",
    "ingest-written",
    "ingest-range-written",
    "commit-verified",
    "commit-recordless",
    "commit-renamed",
    "temp-made",
    "collect-begun",
    "collect-removed",
    "collect-partial",
    "names-locked",
    "names-synced",
    "names-written",
    "names-renamed",
    "names-durable",
];

/// Kills this process (SIGKILL) when `BERTH_KILL_AT` is `NAME:N`, at the N-th time that it comes here.
#[cfg(feature = "steps")]
#[doc(hidden)]
pub fn step(name: &str) {
    use std::sync::atomic::{AtomicU32, Ordering};
    static SEEN: AtomicU32 = AtomicU32::new(0);
    assert!(STEPS.contains(&name), "{name} is not in the list of steps");
    let Ok(wanted) = std::env::var("BERTH_KILL_AT") else { return };
    if let Some((wanted, times)) = wanted.split_once(':')
        && wanted == name
        && (SEEN.fetch_add(1, Ordering::SeqCst) + 1).to_string() == times
    {
        let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
    }
}

#[cfg(not(feature = "steps"))]
#[doc(hidden)]
#[inline(always)]
pub fn step(_name: &str) {}
