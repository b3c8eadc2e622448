//! Standing in for a program until it ends: signals go to it, the terminal is relayed, its exit code is ours.

use crate::error::{Doing, Result};
use crate::log;
use crate::notify::Proxy;
use rrt_sys::process::{self, Child, Exit};
use rrt_sys::signal::Signals;
use rrt_sys::{errno, path, socket, tty};
use std::os::fd::{AsFd, BorrowedFd};

/// Signals that are not passed on: they are about us (signal(7) numbers of the generic ABI, by name in `sys`).
fn is_ours(signal: i32) -> bool {
    [rrt_sys::signal::SIGCHLD, rrt_sys::signal::SIGURG, rrt_sys::signal::SIGWINCH].contains(&signal)
}

/// Gets ready to stand in for a process, before there is one: a signal or its end that comes early waits in the queue
/// (contract G.5). Nothing is done with `detach`.
pub fn prepare(detach: bool, no_subreaper: bool) -> Result<Option<Signals>> {
    if detach {
        return Ok(None);
    }
    let signals = Signals::block_all().doing(|| "watch for signals".into())?;
    if !no_subreaper {
        process::set_child_subreaper().doing(|| "become the container's reaper".into())?;
    }
    Ok(Some(signals))
}

/// Our terminal, relayed to the container's.
pub struct Terminal<'a> {
    master: BorrowedFd<'a>,
    saved: Option<tty::Settings>,
}

impl<'a> Terminal<'a> {
    /// Makes ours raw, so that every key reaches the program, and gives the program's ours size.
    pub fn take_over(master: BorrowedFd<'a>) -> Result<Terminal<'a>> {
        let doing = || "set up the terminal".to_string();
        // Our own terminal turns newlines into CR LF; where our output is none, nobody should.
        tty::clear_onlcr(master).doing(doing)?;
        // A program that does not read must not stop us from passing on its output, or a signal.
        path::set_nonblocking(master).doing(doing)?;
        let own = std::io::stdin();
        let saved = match tty::is_terminal(&own) {
            true => Some(tty::make_raw(&own).doing(doing)?),
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
}

impl Drop for Terminal<'_> {
    fn drop(&mut self) {
        if let Some(saved) = &self.saved {
            // We are about to exit; there is nothing to be done if it fails.
            let _ = tty::restore(std::io::stdin(), saved);
        }
    }
}

/// One direction of the terminal: bytes on their way. Reads only when everything read before is written, so that a reader who stalls
/// stalls the writer, and nothing else.
struct Relay<'a> {
    from: BorrowedFd<'a>,
    to: BorrowedFd<'a>,
    buf: [u8; 4096],
    pending: std::ops::Range<usize>,
    open: bool,
}

impl<'a> Relay<'a> {
    fn new(from: BorrowedFd<'a>, to: BorrowedFd<'a>) -> Relay<'a> {
        Relay { from, to, buf: [0; 4096], pending: 0..0, open: true }
    }

    /// The fd to read next, or the one to write next.
    fn wants(&self) -> (Option<BorrowedFd<'a>>, Option<BorrowedFd<'a>>) {
        match (self.open, self.pending.is_empty()) {
            (true, true) => (Some(self.from), None),
            (true, false) => (None, Some(self.to)),
            (false, _) => (None, None),
        }
    }

    /// Does one read or one write. The end of the input, or an output that is gone, closes this direction.
    fn step(&mut self) {
        let again = |e: &rrt_sys::SysError| e.is(errno::EAGAIN);
        if self.pending.is_empty() {
            match path::read_some(self.from, &mut self.buf) {
                Ok(n) if n > 0 => self.pending = 0..n,
                Err(e) if again(&e) => {}
                // EIO is how a pty says that its other end is closed.
                _ => self.open = false,
            }
        } else {
            match path::write_some(self.to, &self.buf[self.pending.clone()]) {
                Ok(n) => self.pending.start += n,
                Err(e) if again(&e) => {}
                Err(_) => self.open = false,
            }
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
    let (stdin, stdout) = (std::io::stdin(), std::io::stdout());
    let mut relays: Vec<Relay<'_>> = Vec::new();
    if let Some(t) = terminal {
        relays.push(Relay::new(t.master, stdout.as_fd()));
        relays.push(Relay::new(stdin.as_fd(), t.master));
    }
    loop {
        let ready = wait(child, signals, &mut relays, proxy.as_ref())?;
        if ready.notified
            && let Some(p) = &proxy
        {
            match p.pass_on(child.pid) {
                Ok(false) => {}
                Ok(true) => proxy = None,
                // The service manager is gone; the program is not to suffer for it.
                Err(e) => {
                    log::warn(e.to_string());
                    proxy = None;
                }
            }
        }
        let exit = match take_signals(child, signals, terminal)? {
            None if ready.ended => Some(child.wait().doing(|| "wait for the container".into())?),
            exit => exit,
        };
        if let Some(exit) = exit {
            if let Some(output) = relays.first_mut() {
                drain(output);
            }
            return Ok(exit);
        }
    }
}

struct Ready {
    ended: bool,
    notified: bool,
}

/// Waits for anything to happen, and moves the terminal's bytes.
fn wait(child: &Child, signals: &Signals, relays: &mut [Relay<'_>], proxy: Option<&Proxy>) -> Result<Ready> {
    let mut readers = vec![child.pidfd.as_fd(), signals.as_fd()];
    let notify = proxy.map(|_| readers.len());
    readers.extend(proxy.map(Proxy::as_fd));
    let wants: Vec<_> = relays.iter().map(Relay::wants).collect();
    let at_relays = readers.len();
    readers.extend(wants.iter().filter_map(|w| w.0));
    let writers: Vec<_> = wants.iter().filter_map(|w| w.1).collect();
    let ready = socket::poll(&readers, &writers, -1).doing(|| "wait for the container".into())?;
    let (mut read, mut write) = (ready[at_relays..readers.len()].iter(), ready[readers.len()..].iter());
    for (relay, want) in relays.iter_mut().zip(&wants) {
        let its = if want.0.is_some() {
            read.next()
        } else if want.1.is_some() {
            write.next()
        } else {
            None
        };
        if its == Some(&true) {
            relay.step();
        }
    }
    Ok(Ready { ended: ready[0], notified: notify.is_some_and(|at| ready[at]) })
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
fn drain(output: &mut Relay<'_>) {
    loop {
        let ready = match output.wants() {
            // Nobody writes any more: what is not there now will not come.
            (Some(from), _) => socket::poll_readable(&[from], 0),
            (_, Some(to)) => socket::poll(&[], &[to], -1),
            _ => return,
        };
        match ready.as_deref() {
            Ok([true]) => output.step(),
            _ => return,
        }
    }
}
