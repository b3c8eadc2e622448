//! `start` and `run`: the program is released.

use crate::create::Created;
use crate::error::{Doing, Error, Result};
use crate::foreground::{self, Terminal};
use crate::handshake::{Channel, Frame};
use crate::hooks;
use crate::notify::Proxy;
use crate::seal::Seal;
use crate::state::{GATE, State, StateDir, Status};
use crate::{RunOptions, Runtime, seccomp};
use rrt_sys::process::SingleThreaded;
use rrt_sys::signal::Signals;
use rrt_sys::{process, socket};
use std::os::fd::{AsFd, BorrowedFd};

impl Runtime {
    /// `start`: has the program of a created container executed, and says whether that worked.
    ///
    /// # Errors
    /// [`Error::Status`] when the container is not waiting; [`Error::Init`] when execve failed.
    pub fn start(&self, id: &str) -> Result<()> {
        let dir = StateDir::open(&self.root, id)?;
        let state = dir.require()?;
        match state.status(&dir) {
            Status::Created => {}
            Status::Stopped => return Err(Error::Status("cannot start a container that has stopped".into())),
            Status::Creating => return Err(Error::Status("cannot start a container that is being created".into())),
            Status::Running => return Err(Error::Status("cannot start an already running container".into())),
            Status::Paused => return Err(Error::Status("cannot start a paused container; resume it first".into())),
        }
        let Some(init) = state.init else { return Err(Error::Status("the container has no init".into())) };
        let pidfd = init.pidfd()?;
        let proxy = Proxy::open(&dir)?;
        let gate = socket::connect_at(dir.fd(), GATE).doing(|| "reach the waiting init".into())?;
        let channel = Channel::from_fd(gate);
        channel.send(&Frame::Start, None)?;
        channel
            .await_exec(&mut |number, courier| {
                let process = (pidfd.as_fd(), init.pid);
                seccomp::hand_over(&state, Status::Created, process, number, courier)
            })
            .map_err(|e| crate::oom::explain(e, &state.cgroup()))?;
        crate::log::debug(format!("start {id:?}: the program runs"));
        // It tells `created` from `running` no more, and a second `start` should not find it.
        let _ = std::fs::remove_file(dir.path().join(GATE));
        // The container runs, and others may act on it while a hook takes its time or the program has not said that it is ready.
        drop(dir);
        run_poststart(&state, pidfd.as_fd())?;
        if let Some(proxy) = proxy {
            proxy.wait(pidfd.as_fd(), init.pid);
        }
        Ok(())
    }

    /// `run`: creates and starts; then, unless detached, stands in for the program until it ends: signals, terminal, exit code.
    ///
    /// # Errors
    /// As `create` and `start`; nothing of the container is left then.
    pub fn run(&self, options: &RunOptions, seal: Seal) -> Result<i32> {
        let signals = foreground::prepare(options.detach, options.no_subreaper)?;
        let created = self.set_up(&options.create, seal, options.detach, false)?;
        let outcome = self.run_created(&created, signals.as_ref());
        if outcome.is_err() {
            created.init.kill_and_reap();
        }
        if outcome.is_err() || (signals.is_some() && !options.keep) {
            self.remove(created)?;
        }
        outcome
    }

    fn run_created(&self, created: &Created, signals: Option<&Signals>) -> Result<i32> {
        let proxy = Proxy::open(&created.dir)?;
        // Before the program runs: the first thing it asks may be the terminal's size.
        let terminal = created.terminal.as_ref().map(|master| Terminal::take_over(master.as_fd())).transpose()?;
        created.start()?;
        created.dir.unlock()?;
        run_poststart(&created.state, created.init.pidfd.as_fd())?;
        let Some(signals) = signals else {
            if let Some(proxy) = proxy {
                proxy.wait(created.init.pidfd.as_fd(), created.init.pid);
            }
            return Ok(0);
        };
        let exit = foreground::stand_in(&created.init, signals, terminal.as_ref(), proxy)?;
        Ok(exit.code())
    }

    /// Deletes the container of a foreground run.
    fn remove(&self, created: Created) -> Result<()> {
        match created.dir.relock() {
            Ok(dir) => crate::delete::delete(dir, &created.state),
            // Somebody deleted it while it ran.
            Err(Error::NotFound(_)) => Ok(()),
            Err(e) => Err(e),
        }
    }
}

/// Runs the poststart hooks; when one fails the container is stopped (runtime-spec runtime.md, "Lifecycle"). They run to their end
/// even when the container has ended by then, as a short program does.
fn run_poststart(state: &State, init: BorrowedFd<'_>) -> Result<()> {
    if state.hooks.poststart.is_empty() {
        return Ok(());
    }
    let token = SingleThreaded::check().doing(|| "check that the runtime has one thread".into())?;
    let document = state.for_hooks(Status::Running);
    let done = state
        .hooks
        .output
        .open()
        .and_then(|output| hooks::run(&token, &state.hooks.poststart, &document, &state.bundle, &output, None));
    if done.is_err() {
        // The hook's error is what counts; a container that has ended by itself meanwhile is stopped as well.
        let _ = process::send_signal(init, 9);
    }
    done
}
