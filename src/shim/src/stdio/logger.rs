//! `binary://PROGRAM?KEY=VALUE`: output goes to a program that is started for the process.
//!
//! Its protocol is containerd's: descriptors 3 and 4 are the process's standard output and error, 5 is to be closed when it is
//! ready; CONTAINER_ID and CONTAINER_NAMESPACE are all of its environment.

use super::Owner;
use super::relay::{Fd, nonblocking};
use crate::error::Error;
use crate::log;
use crate::reaper::Reaper;
use nix::spawn::{PosixSpawnAttr, PosixSpawnFileActions, PosixSpawnFlags, posix_spawn};
use nix::sys::signal::{SigSet, Signal as NixSignal};
use rustix::fs::{Mode, OFlags, open};
use rustix::io::fcntl_dupfd_cloexec;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, Signal, WaitStatus, kill_process};
use std::ffi::CString;
use std::os::fd::{AsRawFd, OwnedFd};
use std::rc::Rc;
use std::time::Duration;
use tokio::sync::oneshot;

/// A logger that ends by itself when its input has ended is given this time, so that it has read all of it.
const GRACE: Duration = Duration::from_secs(1);
/// One that does not is told to, and is given this time to write what it has.
const PATIENCE: Duration = Duration::from_secs(12);

/// A logging program that runs.
pub struct Logger {
    pid: Pid,
    end: oneshot::Receiver<(WaitStatus, crate::proto::Timestamp)>,
}

impl Logger {
    /// Starts it and waits until it is ready. The two descriptors are the writing ends for the process.
    ///
    /// # Errors
    /// It cannot be started, or (`must_be_ready`) ends without a word.
    pub async fn start(
        uri: &str,
        must_be_ready: bool,
        owner: &Owner,
        reaper: &Rc<Reaper>,
    ) -> Result<(Logger, OwnedFd, OwnedFd), Error> {
        let (program, arguments) = parse(uri);
        let failed =
            |e: &dyn std::fmt::Display| Error::system(format_args!("failed to start binary process {program}"), e);
        let pipe = || pipe_with(PipeFlags::CLOEXEC).map_err(|e| failed(&e));
        let ((out, stdout), (err, stderr), (ready, told)) = (pipe()?, pipe()?, pipe()?);
        let pid = spawn(&program, &arguments, owner, &[&out, &err, &told]).map_err(|e| failed(&e))?;
        let logger = Logger { pid, end: reaper.exit_of(pid.as_raw_nonzero().get()) };
        drop((out, err, told));
        nonblocking(&ready)?;
        let ready = Fd::new(ready)?;
        ready.readable().await.map_err(|e| failed(&e))?;
        let mut byte = [0];
        let said = rustix::io::read(ready.fd(), &mut byte[..]).map_err(|e| failed(&e))?;
        if must_be_ready && said == 0 {
            logger.stop().await;
            return Err(failed(&"it has not said that it is ready: see its own output"));
        }
        Ok((logger, stdout, stderr))
    }

    /// Its input has ended, or is going to be forgotten: lets it finish, tells it to (SIGTERM, as containerd's shim does), and kills
    /// it at last.
    pub async fn stop(mut self) {
        for (limit, signal) in [(GRACE, Signal::TERM), (PATIENCE, Signal::KILL)] {
            if tokio::time::timeout(limit, &mut self.end).await.is_ok() {
                return;
            }
            if signal == Signal::KILL {
                log::warn("a logging program does not end; it is killed");
            }
            let _ = kill_process(self.pid, signal);
        }
    }
}

/// Standard streams are `/dev/null`; `pass` become descriptors 3, 4, …; everything else of ours is close-on-exec.
fn spawn(program: &str, arguments: &[String], owner: &Owner, pass: &[&OwnedFd]) -> nix::Result<Pid> {
    let text = |text: String| CString::new(text).map_err(|_| nix::errno::Errno::EINVAL);
    let mut args = vec![text(program.to_owned())?];
    for argument in arguments {
        args.push(text(argument.clone())?);
    }
    let env = [text(format!("CONTAINER_ID={}", owner.id))?, text(format!("CONTAINER_NAMESPACE={}", owner.namespace))?];
    let mut actions = PosixSpawnFileActions::init()?;
    let errno = |e: rustix::io::Errno| nix::errno::Errno::from_raw(e.raw_os_error());
    let null = open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()).map_err(errno)?;
    // Out of the way first: a target may be another one's source.
    let mut moved = Vec::new();
    for (target, fd) in (0..).zip([&[&null; 3], pass].concat()) {
        let fd = fcntl_dupfd_cloexec(fd, 16).map_err(errno)?;
        actions.add_dup2(fd.as_raw_fd(), target)?;
        moved.push(fd);
    }
    let mut attributes = PosixSpawnAttr::init()?;
    let mut pipe = SigSet::empty();
    pipe.add(NixSignal::SIGPIPE);
    // Ignored by us, and that would be inherited.
    attributes.set_sigdefault(&pipe)?;
    attributes.set_flags(PosixSpawnFlags::POSIX_SPAWN_SETSIGDEF)?;
    let pid = posix_spawn(program, &actions, &attributes, &args, &env)?;
    Pid::from_raw(pid.as_raw()).ok_or(nix::errno::Errno::ESRCH)
}

/// Program and arguments: each key of the query, then its value.
fn parse(uri: &str) -> (String, Vec<String>) {
    let uri = uri.split('#').next().unwrap_or_default();
    let (path, query) = uri.split_once('?').unwrap_or((uri, ""));
    (decode(path), pairs(query).flat_map(|(key, value)| [key, value]).collect())
}

/// The keys and values of a query.
pub fn pairs(query: &str) -> impl Iterator<Item = (String, String)> {
    let text = |text: &str| decode(&text.replace('+', " "));
    query.split('&').filter(|pair| !pair.is_empty()).map(move |pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        (text(key), text(value))
    })
}

/// Undoes percent-encoding; what is not one stays.
pub fn decode(text: &str) -> String {
    let hex = |at: usize| text.get(at + 1..at + 3).and_then(|digits| u8::from_str_radix(digits, 16).ok());
    let mut bytes = Vec::with_capacity(text.len());
    let mut at = 0;
    while let Some(&byte) = text.as_bytes().get(at) {
        match hex(at).filter(|_| byte == b'%') {
            Some(decoded) => {
                bytes.push(decoded);
                at += 3;
            }
            None => {
                bytes.push(byte);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uris() {
        assert_eq!(parse("/bin/log"), ("/bin/log".into(), vec![]));
        let (program, arguments) = parse("/a%20b?id=c+1&flag&x=%2F%zz#part");
        assert_eq!(program, "/a b");
        assert_eq!(arguments, ["id", "c 1", "flag", "", "x", "/%zz"]);
        assert_eq!(decode("é%C3%A9%"), "éé%");
    }
}
