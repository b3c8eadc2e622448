//! Running a helper program (a hook) and waiting for it.

use crate::error::{Named, Result, SysError};
use crate::path::retry;
use crate::process::{Child, ExecArgs, Exit, SingleThreaded, clone3, close_all_but, dup_onto_stdio, exit_now};
use crate::{signal, socket};
use rustix::fs::MemfdFlags;
use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

/// How much of a helper's output is kept for the error message, in bytes.
const OUTPUT_KEPT: usize = 4096;

/// What became of a helper.
#[derive(Debug)]
pub struct Outcome {
    /// How it ended; `None` when it was killed at its deadline.
    pub exit: Option<Exit>,
    /// The beginning of what it wrote to stdout and stderr.
    pub output: String,
}

/// Runs `path` in `cwd` with `stdin` to read, and waits until it ends or `timeout` is over (then it is killed).
///
/// `streams` are its stdout and stderr; what is absent is kept for the error message.
///
/// `confine` is the helper's last step before `path` is executed; it may forbid any call but execve.
///
/// `stop` is watched too: when it becomes readable or hangs up, whatever the helper was for is gone, and it is killed.
///
/// # Errors
/// The execve error, or that of any call on the way.
#[expect(clippy::too_many_arguments, reason = "one caller, and each is a different thing")]
pub fn run(
    token: &SingleThreaded,
    path: &CString,
    args: &ExecArgs,
    stdin: &[u8],
    cwd: &Path,
    streams: [Option<BorrowedFd<'_>>; 2],
    timeout: Option<Duration>,
    stop: Option<BorrowedFd<'_>>,
    confine: &dyn Fn() -> Result<()>,
) -> Result<Outcome> {
    let input = memfd(stdin)?;
    let (output, output_end) = socket::pipe()?;
    let (failure, failure_end) = socket::pipe()?;
    let child = clone3(token, 0, None, || {
        let setup = (|| {
            dup_onto_stdio(input.as_fd(), 0)?;
            dup_onto_stdio(streams[0].unwrap_or(output_end.as_fd()), 1)?;
            dup_onto_stdio(streams[1].unwrap_or(output_end.as_fd()), 2)?;
            // Its standard streams are all that a helper gets: not ours, and not what our caller left open.
            close_all_but(&[failure_end.as_raw_fd()])?;
            // A directory that is gone by now (a bundle at poststop) is no reason not to run it.
            let _ = crate::process::chdir(cwd);
            signal::reset()?;
            confine()
        })();
        let error = setup.err().unwrap_or_else(|| args.exec(path));
        // The errno is enough: the parent knows the path. A full pipe is impossible for four bytes.
        let _ = rustix::io::write(&failure_end, &error.errno().to_ne_bytes());
        exit_now(127)
    })?;
    drop((output_end, failure_end));
    let mut errno = [0u8; 4];
    let failed = retry(|| rustix::io::read(&failure, &mut errno)).named(|| "read".into())?;
    if failed == errno.len() {
        child.kill_and_reap();
        return Err(SysError::new(format!("execve({path:?})"), i32::from_ne_bytes(errno)));
    }
    watch(&child, &output, timeout, stop)
}

fn watch(child: &Child, output: &OwnedFd, timeout: Option<Duration>, stop: Option<BorrowedFd<'_>>) -> Result<Outcome> {
    // A timeout beyond what the clock can say is none.
    let deadline = timeout.and_then(|t| Instant::now().checked_add(t));
    let mut kept = Vec::new();
    let mut open = true;
    loop {
        let left = deadline.map(|d| d.saturating_duration_since(Instant::now()));
        // What is longer than poll(2) can say is waited for in parts.
        let ms = left.map_or(-1, |l| i32::try_from(l.as_millis()).unwrap_or(i32::MAX));
        let mut fds = vec![child.pidfd.as_fd()];
        // A closed pipe is always readable, and would make this loop spin.
        fds.extend(open.then(|| output.as_fd()));
        fds.extend(stop);
        let ready = socket::poll_readable(&fds, ms)?;
        if ready[0] {
            // Not read to the end of file: a daemon that the helper left behind may hold the pipe open.
            while open && kept.len() < OUTPUT_KEPT && socket::poll_readable(&[output.as_fd()], 0)?[0] {
                open = keep(output, &mut kept)?;
            }
            return Ok(Outcome { exit: Some(child.wait()?), output: String::from_utf8_lossy(&kept).into_owned() });
        }
        if open && ready[1] {
            open = keep(output, &mut kept)?;
        } else if !ready.contains(&true) && left.is_some_and(|l| !l.is_zero()) {
            continue;
        } else {
            child.kill_and_reap();
            return Ok(Outcome { exit: None, output: String::from_utf8_lossy(&kept).into_owned() });
        }
    }
}

/// Reads once; false at the end of file. What is beyond the limit is read and dropped, so that the helper does not block.
fn keep(output: &OwnedFd, kept: &mut Vec<u8>) -> Result<bool> {
    let mut buf = [0u8; 1024];
    let n = retry(|| rustix::io::read(output, &mut buf)).named(|| "read".into())?;
    let room = OUTPUT_KEPT - kept.len().min(OUTPUT_KEPT);
    kept.extend_from_slice(&buf[..n.min(room)]);
    Ok(n > 0)
}

/// A file in memory that holds `data` and stands at its beginning.
pub fn memfd(data: &[u8]) -> Result<OwnedFd> {
    let fd = rustix::fs::memfd_create("rrt", MemfdFlags::CLOEXEC).named(|| "memfd_create".into())?;
    let mut done = 0;
    while done < data.len() {
        // pwrite leaves the offset at 0, where the reader begins.
        done += retry(|| rustix::io::pwrite(&fd, &data[done..], done as u64)).named(|| "pwrite(memfd)".into())?;
    }
    Ok(fd)
}
