//! The shim's log: lines on standard error, which is the fifo that containerd copies into its own log.
//!
//! The fifo is non-blocking and held open from both sides, so a containerd that is gone or slow costs lines, not containers.

use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

static DEBUG: AtomicBool = AtomicBool::new(false);

/// Turns on lines of level debug.
pub fn set_debug(on: bool) {
    DEBUG.store(on, Relaxed);
}

/// A line that explains what was done.
pub fn debug(message: impl std::fmt::Display) {
    if DEBUG.load(Relaxed) {
        line("debug", &message.to_string());
    }
}

/// Something that was expected to work and did not, and that no caller hears of.
pub fn warn(message: impl std::fmt::Display) {
    line("warning", &message.to_string());
}

/// A runtime option that there is not; containerd's shim goes on without it, too.
pub fn unknown_option(key: &str) {
    warn(format_args!("runtime option {key} is not known"));
}

/// In the form of containerd's own lines (logfmt).
fn line(level: &str, message: &str) {
    let text =
        format!("time={:?} level={level} msg={message:?} runtime=io.containerd.rrt.v2\n", crate::time::rfc3339());
    let _ = std::io::stderr().write_all(text.as_bytes());
}
