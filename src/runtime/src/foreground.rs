//! Standing in for a program until it ends: signals go to it, the terminal is relayed, its exit code is ours.

use crate::error::{Doing, Result};
use crate::notify::Proxy;
use rrt_sys::process::{self, Child, Exit};
use rrt_sys::signal::Signals;
use rrt_sys::{path, socket, tty};
use std::os::fd::{AsFd, BorrowedFd};

/// Signals that are not passed on: they are about us (signal(7) numbers of the generic ABI, by name in `sys`).
fn is_ours(signal: i32) -> bool {
    [rrt_sys::signal::SIGCHLD, rrt_sys::signal::SIGURG, rrt_sys::signal::SIGWINCH].contains(&signal)
}

/// Our terminal, relayed to the container's.
pub struct Terminal<'a> {
    master: BorrowedFd<'a>,
    saved: Option<tty::Settings>,
}

impl<'a> Terminal<'a> {
    /// Makes ours raw, so that every key reaches the program, and gives the program's ours size.
    pub fn take_over(master: BorrowedFd<'a>) -> Result<Terminal<'a>> {
        // Our own terminal turns newlines into CR LF already.
        tty::clear_onlcr(master).doing(|| "set up the terminal".into())?;
        let own = std::io::stdin();
        let saved = match tty::is_terminal(&own) {
            true => Some(tty::make_raw(&own).doing(|| "make the terminal raw".into())?),
            false => None,
        };
        let terminal = Terminal { master, saved };
        terminal.resize();
        Ok(terminal)
    }

    /// Gives the program's terminal the size of ours.
    fn resize(&self) {
        if self.saved.is_some()
            && let Ok((rows, columns)) = tty::size(std::io::stdin())
        {
            // A program that has closed its terminal needs no size.
            let _ = tty::set_size(self.master, rows, columns);
        }
    }

    /// Copies what the program has written to our output; false when it has hung up.
    fn copy_out(&self) -> bool {
        let mut buf = [0u8; 4096];
        match path::read_some(self.master, &mut buf) {
            Ok(n) if n > 0 => path::write_all(std::io::stdout(), &buf[..n]).is_ok(),
            // EIO is how a pty says that its other end is closed.
            _ => false,
        }
    }

    /// Copies what was typed; false at the end of the input.
    fn copy_in(&self) -> bool {
        let mut buf = [0u8; 4096];
        match path::read_some(std::io::stdin(), &mut buf) {
            Ok(n) if n > 0 => path::write_all(self.master, &buf[..n]).is_ok(),
            _ => false,
        }
    }
}

impl Drop for Terminal<'_> {
    fn drop(&mut self) {
        if let Some(saved) = &self.saved {
            // We are about to exit; there is nothing to be done if it fails.
            let _ = tty::restore(std::io::stdin(), saved);
        }
    }
}

/// Waits until `child` ends. Everything comes through one poll: signals, the terminal in both directions, the child's end.
pub fn stand_in(
    child: &Child,
    signals: &Signals,
    terminal: Option<&Terminal<'_>>,
    mut proxy: Option<Proxy>,
) -> Result<Exit> {
    let stdin = std::io::stdin();
    let (mut input, mut output) = (terminal.is_some(), terminal.is_some());
    loop {
        let mut fds = vec![signals.as_fd(), child.pidfd.as_fd()];
        let at_output = add(&mut fds, terminal.filter(|_| output).map(|t| t.master));
        let at_input = add(&mut fds, input.then(|| stdin.as_fd()));
        let at_notify = add(&mut fds, proxy.as_ref().map(Proxy::as_fd));
        let ready = socket::poll_readable(&fds, -1).doing(|| "wait for the container".into())?;
        let is_ready = |at: usize| ready.get(at).copied().unwrap_or(false);
        if let Some(t) = terminal {
            if is_ready(at_output) {
                output = t.copy_out();
            }
            if is_ready(at_input) {
                input = t.copy_in();
            }
        }
        if let Some(p) = proxy.as_ref().filter(|_| is_ready(at_notify))
            && p.pass_on(child.pid)?
        {
            proxy = None;
        }
        if let Some(exit) = take_signals(child, signals, terminal)? {
            drain(terminal, output);
            return Ok(exit);
        }
        if ready[1] {
            drain(terminal, output);
            return child.wait().doing(|| "wait for the container".into());
        }
    }
}

/// Adds an fd to be polled, if there is one; where its answer will stand.
fn add<'a>(fds: &mut Vec<BorrowedFd<'a>>, fd: Option<BorrowedFd<'a>>) -> usize {
    let place = fds.len();
    fds.extend(fd);
    if fds.len() > place { place } else { usize::MAX }
}

/// Deals with every signal that has come; the child's exit when it was reaped with the orphans.
fn take_signals(child: &Child, signals: &Signals, terminal: Option<&Terminal<'_>>) -> Result<Option<Exit>> {
    let mut exit = None;
    while let Some(signal) = signals.next() {
        if signal == rrt_sys::signal::SIGCHLD {
            // As subreaper we get the container's orphans: each is reaped, or they stay zombies as long as we run.
            while let Some((pid, how)) = process::reap_any() {
                exit = exit.or((pid == child.pid).then_some(how));
            }
        } else if signal == rrt_sys::signal::SIGWINCH {
            terminal.inspect(|t| t.resize());
        } else if !is_ours(signal) {
            // Should it have ended meanwhile, its exit is what comes next.
            let _ = process::send_signal(child.pidfd.as_fd(), signal);
        }
    }
    Ok(exit)
}

/// What the program wrote before it ended is still in the pty.
fn drain(terminal: Option<&Terminal<'_>>, mut open: bool) {
    let Some(t) = terminal else { return };
    while open && socket::poll_readable(&[t.master], 0).is_ok_and(|r| r[0]) {
        open = t.copy_out();
    }
}
