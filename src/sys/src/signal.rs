//! Signals.

use crate::error::{Named, Result, check};
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd};

pub use libc::{SIGCHLD, SIGKILL, SIGURG, SIGWINCH};

/// All signals, blocked and read from an fd instead: so that none comes before the wait begins (contract G.5).
///
/// By the system calls themselves: libc's own sets leave out the signals it keeps for its threads, and one of those, sent from
/// outside, would kill us.
pub struct Signals(OwnedFd);

impl Signals {
    /// Blocks every signal and opens the fd.
    pub fn block_all() -> Result<Signals> {
        set_mask(u64::MAX)?;
        let mask = u64::MAX;
        let flags = libc::SFD_CLOEXEC | libc::SFD_NONBLOCK;
        // SAFETY: the mask is 8 bytes long, as the kernel's sigset is, and outlives the call. signalfd(2)
        let fd = unsafe { libc::syscall(libc::SYS_signalfd4, -1, &raw const mask, size_of::<u64>(), flags) };
        let fd = check(fd, || "signalfd4(all)".into())?;
        // SAFETY: signalfd4 made this fd for us just now.
        Ok(Signals(unsafe { OwnedFd::from_raw_fd(fd as i32) }))
    }

    /// The next signal that has come, by number; `None` when there is none.
    pub fn next(&self) -> Option<i32> {
        let mut info = [0u8; size_of::<libc::signalfd_siginfo>()];
        let n = crate::path::read_some(&self.0, &mut info).ok()?;
        // ssi_signo is the first field.
        (n == info.len()).then(|| i32::from_ne_bytes([info[0], info[1], info[2], info[3]]))
    }

    /// The fd to poll.
    pub fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Gives this process what a new one expects: no signal blocked, SIGPIPE not ignored.
///
/// Rust's start code ignores SIGPIPE and an ignored signal stays ignored over execve; all others come from the caller as they were,
/// as with runc.
pub fn reset() -> Result<()> {
    let default = SigAction::new(SigHandler::SigDfl, SaFlags::empty(), SigSet::empty());
    // SAFETY: SIG_DFL is no handler, so nothing of ours runs in signal context. sigaction(2)
    unsafe { sigaction(Signal::SIGPIPE, &default) }.named(|| "sigaction(SIGPIPE, SIG_DFL)".into())?;
    set_mask(0)
}

/// Has this process end on SIGHUP, SIGINT, SIGQUIT and SIGTERM, also as process 1 of a pid namespace, for which the kernel drops
/// signals that have no handler. execve takes the handler away again.
pub fn exit_on_request() -> Result<()> {
    extern "C" fn end(signal: libc::c_int) {
        crate::process::exit_now(128 + signal)
    }
    let action = SigAction::new(SigHandler::Handler(end), SaFlags::empty(), SigSet::empty());
    for signal in [Signal::SIGHUP, Signal::SIGINT, Signal::SIGQUIT, Signal::SIGTERM] {
        // SAFETY: the handler only calls _exit, which is async-signal-safe. sigaction(2), signal-safety(7)
        unsafe { sigaction(signal, &action) }.named(|| format!("sigaction({signal})"))?;
    }
    Ok(())
}

/// Has SIGALRM end this process after so many seconds, if that signal has no handler. alarm(2)
pub fn end_after(seconds: u32) {
    // SAFETY: takes any number. alarm(2)
    unsafe { libc::alarm(seconds) };
}

/// Whether a signal asks a program to end. signal(7)
pub fn asks_to_end(signal: i32) -> bool {
    [libc::SIGHUP, libc::SIGINT, libc::SIGQUIT, libc::SIGTERM].contains(&signal)
}

/// Sets which signals are blocked: bit n-1 for signal n. rt_sigprocmask(2)
fn set_mask(mask: u64) -> Result<()> {
    let old = std::ptr::null_mut::<u64>();
    // SAFETY: the mask is 8 bytes long, as the kernel's sigset is, and outlives the call; the old one is not asked for.
    let ret =
        unsafe { libc::syscall(libc::SYS_rt_sigprocmask, libc::SIG_SETMASK, &raw const mask, old, size_of::<u64>()) };
    check(ret, || format!("rt_sigprocmask(SIG_SETMASK, {mask:#x})")).map(drop)
}

/// The number of a signal by name (`KILL`, `SIGKILL`, any case) or number; `None` when there is no such signal.
pub fn by_name(name: &str) -> Option<i32> {
    /// glibc's SIGRTMIN and SIGRTMAX, which every client means: musl's own are others, because it keeps one signal more for itself.
    const RTMIN: i32 = 34;
    const RTMAX: i32 = 64;
    if let Ok(n) = name.parse::<i32>() {
        return (0..=RTMAX).contains(&n).then_some(n);
    }
    let upper = name.to_ascii_uppercase();
    let short = upper.strip_prefix("SIG").unwrap_or(&upper);
    let offset = |rest: &str, sign: i32| rest.parse::<i32>().ok().map(|n| n * sign);
    if let Some(rest) = short.strip_prefix("RTMIN") {
        let n = if rest.is_empty() { Some(0) } else { rest.strip_prefix('+').and_then(|r| offset(r, 1)) };
        return n.map(|n| RTMIN + n).filter(|n| *n <= RTMAX);
    }
    if let Some(rest) = short.strip_prefix("RTMAX") {
        let n = if rest.is_empty() { Some(0) } else { rest.strip_prefix('-').and_then(|r| offset(r, -1)) };
        return n.map(|n| RTMAX + n).filter(|n| *n >= RTMIN);
    }
    let alias = match short {
        "CLD" => "CHLD",
        "POLL" => "IO",
        "IOT" => "ABRT",
        other => other,
    };
    format!("SIG{alias}").parse::<Signal>().ok().map(|s| s as i32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_by_every_spelling() {
        for name in ["9", "KILL", "SIGKILL", "sigkill", "kill"] {
            assert_eq!(by_name(name), Some(9), "{name}");
        }
        assert_eq!(by_name("RTMIN+3"), Some(37));
        assert_eq!(by_name("SIGRTMAX-1"), Some(63));
        assert_eq!(by_name("CLD"), Some(libc::SIGCHLD));
        for bad in ["NOPE", "", "-1", "65", "RTMIN+99", "RTMIN3"] {
            assert_eq!(by_name(bad), None, "{bad}");
        }
    }
}
