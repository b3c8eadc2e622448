//! All children are waited for in one place: the runtime's processes, loggers, what the runtime leaves us (containers' processes;
//! we are their subreaper), and orphans that nobody asked for.

use crate::error::Error;
use crate::log;
use crate::proto::Timestamp;
use crate::time;
use rrt_runtime_client::{Call, Failure, Finish};
use rustix::io::Errno;
use rustix::process::{Pid, WaitOptions, WaitStatus};
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::rc::Rc;
use tokio::sync::oneshot;

/// The end of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exit {
    /// Exit code, or 128 and the signal.
    pub status: u32,
    /// When it was reaped.
    pub at: Timestamp,
}

/// See the module.
#[derive(Default)]
pub struct Reaper {
    waiting: RefCell<HashMap<i32, oneshot::Sender<(WaitStatus, Timestamp)>>>,
    /// Ends of processes that nobody has asked for yet, kept while a process is being started whose pid is not known yet.
    early: RefCell<HashMap<i32, (WaitStatus, Timestamp)>>,
    starting: Cell<usize>,
}

/// While it lives, no end of a process is thrown away: its pid may be read from a pid file in a moment.
pub struct Starting(Rc<Reaper>);

impl Drop for Starting {
    fn drop(&mut self) {
        self.0.starting.set(self.0.starting.get() - 1);
        if self.0.starting.get() == 0 {
            self.0.early.borrow_mut().clear();
            self.0.early.borrow_mut().shrink_to_fit();
        }
    }
}

impl Reaper {
    /// Announces that a process is going to be started which is not our own child yet.
    pub fn starting(self: &Rc<Self>) -> Starting {
        self.starting.set(self.starting.get() + 1);
        Starting(self.clone())
    }

    /// Reaps all that have ended. To be called at every SIGCHLD.
    pub fn reap(&self) {
        loop {
            match rustix::process::wait(WaitOptions::NOHANG) {
                Ok(Some((pid, status))) => self.ended(pid.as_raw_nonzero().get(), status),
                Ok(None) | Err(Errno::CHILD) => return,
                Err(Errno::INTR) => {}
                Err(e) => return log::warn(format_args!("waitpid: {e}")),
            }
        }
    }

    fn ended(&self, pid: i32, status: WaitStatus) {
        let at = time::now();
        if let Some(waiter) = self.waiting.borrow_mut().remove(&pid) {
            // Whoever waited may have been given up; then nobody wants to know.
            let _ = waiter.send((status, at));
        } else if self.starting.get() > 0 {
            self.early.borrow_mut().insert(pid, (status, at));
        }
    }

    /// The end of a process, whether it is still to come or came before anyone asked.
    pub fn exit_of(&self, pid: i32) -> oneshot::Receiver<(WaitStatus, Timestamp)> {
        let (sender, receiver) = oneshot::channel();
        match self.early.borrow_mut().remove(&pid) {
            Some(exit) => {
                let _ = sender.send(exit);
            }
            None => {
                self.waiting.borrow_mut().insert(pid, sender);
            }
        }
        receiver
    }

    /// Starts a call of the runtime and waits for its end.
    ///
    /// # Errors
    /// It cannot be started, or it fails.
    pub async fn run(&self, call: std::io::Result<Call>) -> Result<Vec<u8>, Failure> {
        let call = call.map_err(|e| Failure { message: format!("memfd_create: {e}") })?;
        let (child, finish) = call.spawn()?;
        self.finish(child.id().cast_signed(), finish).await
    }

    async fn finish(&self, pid: i32, finish: Finish) -> Result<Vec<u8>, Failure> {
        let (status, _) = self
            .exit_of(pid)
            .await
            .map_err(|_| Failure { message: format!("the end of process {pid} was not seen") })?;
        finish.result(ExitStatus::from_raw(status.as_raw()))
    }
}

/// As a shell would say it.
pub fn exit(status: WaitStatus, at: Timestamp) -> Exit {
    let code = status.exit_status().unwrap_or_else(|| 128 + status.terminating_signal().unwrap_or(0));
    Exit { status: code.cast_unsigned(), at }
}

/// Makes this process the parent of all orphans below it. prctl(2)
///
/// # Errors
/// The kernel refuses it.
pub fn become_subreaper() -> Result<(), Error> {
    // Any pid turns it on.
    rustix::process::set_child_subreaper(Some(Pid::INIT)).map_err(|e| Error::system("prctl(PR_SET_CHILD_SUBREAPER)", e))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    fn status_of(pid: u32) -> (i32, WaitStatus) {
        let pid = Pid::from_raw(pid.cast_signed());
        let (pid, status) = rustix::process::waitpid(pid, WaitOptions::empty()).expect("waitpid").expect("a child");
        (pid.as_raw_nonzero().get(), status)
    }

    #[test]
    fn ends_before_and_after_the_question() {
        let reaper = Rc::new(Reaper::default());
        let (pid, status) = status_of(Command::new("sh").args(["-c", "exit 7"]).spawn().expect("spawn").id());
        // Nobody is starting anything: an orphan of no interest.
        reaper.ended(pid, status);
        assert!(reaper.exit_of(pid).try_recv().is_err());
        reaper.waiting.borrow_mut().clear();

        let starting = reaper.starting();
        reaper.ended(pid, status);
        let (early, _) = reaper.exit_of(pid).try_recv().expect("kept while a start is under way");
        assert_eq!(exit(early, time::now()).status, 7);
        reaper.ended(pid, status);
        drop(starting);
        assert!(reaper.early.borrow().is_empty(), "kept no longer than needed");

        let mut later = reaper.exit_of(pid);
        reaper.ended(pid, status);
        assert!(later.try_recv().is_ok());
    }

    #[test]
    fn a_signal_is_128_and_its_number() {
        let (_, status) = status_of(Command::new("sh").args(["-c", "kill -9 $$"]).spawn().expect("spawn").id());
        assert_eq!(exit(status, time::now()).status, 137);
    }
}
