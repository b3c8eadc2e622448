//! One process of a container, init or exec: its state, its streams, its end.

use crate::error::{Code, Error};
use crate::proto::task::Status;
use crate::reaper::Exit;
use crate::stdio::{Io, Spec};
use std::cell::{Cell, RefCell};
use tokio::sync::{Mutex, Notify};

/// What a process is doing. `Created` for an exec: it is described, nothing runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Waits for `Start`.
    Created,
    /// Waits for `Start`, which is going to restore it from a checkpoint.
    Checkpointed,
    /// Runs.
    Running,
    /// Is on the way to `Paused`.
    Pausing,
    /// Is frozen.
    Paused,
    /// Has ended.
    Stopped,
    /// Nothing is left of it.
    Deleted,
}

impl State {
    /// As `State` answers.
    pub fn status(self) -> Status {
        match self {
            State::Created | State::Checkpointed => Status::Created,
            State::Running => Status::Running,
            State::Pausing => Status::Pausing,
            State::Paused => Status::Paused,
            State::Stopped | State::Deleted => Status::Stopped,
        }
    }

    /// As errors say it: "cannot pause a stopped container".
    pub fn word(self) -> &'static str {
        match self {
            State::Created | State::Checkpointed => "created",
            State::Running => "running",
            State::Pausing => "pausing",
            State::Paused => "paused",
            State::Stopped => "stopped",
            State::Deleted => "deleted",
        }
    }
}

/// See the module.
pub struct Process {
    /// The container's id.
    pub container: String,
    /// The exec's id; nothing for init.
    pub exec: String,
    /// The streams that were asked for.
    pub spec: Spec,
    /// What it does.
    pub state: Cell<State>,
    /// Its pid on the host; 0 while there is none.
    pub pid: Cell<i32>,
    /// How it ended.
    pub exit: Cell<Option<Exit>>,
    /// What its streams are connected with.
    pub io: Io,
    /// For whoever changes it: one after the other, so that a start is told of before an end.
    pub turn: Mutex<()>,
    /// Pipes between `Create` and the `Start` that restores.
    pub pending: RefCell<Option<crate::container::Pending>>,
    /// An exec's `process` document, until it is started.
    pub document: RefCell<Vec<u8>>,
    ended: Notify,
}

impl Process {
    /// A process that does not run yet.
    pub fn new(container: &str, exec: &str, spec: Spec, state: State) -> Process {
        Process {
            container: container.into(),
            exec: exec.into(),
            spec,
            state: Cell::new(state),
            pid: Cell::new(0),
            exit: Cell::new(None),
            io: Io::default(),
            turn: Mutex::new(()),
            pending: RefCell::new(None),
            document: RefCell::default(),
            ended: Notify::new(),
        }
    }

    /// Whether it is the container's init.
    pub fn is_init(&self) -> bool {
        self.exec.is_empty()
    }

    /// The id by which events and answers name it.
    pub fn id(&self) -> &str {
        if self.is_init() { &self.container } else { &self.exec }
    }

    /// The pid as messages have it.
    pub fn pid(&self) -> u32 {
        self.pid.get().cast_unsigned()
    }

    /// Records the end, and wakes those who wait for it.
    pub fn end(&self, exit: Exit) {
        self.exit.set(Some(exit));
        if self.state.get() != State::Deleted {
            self.state.set(State::Stopped);
        }
        self.ended.notify_waiters();
    }

    /// Wakes those who wait for a process that never came to be.
    pub fn never_started(&self) {
        self.ended.notify_waiters();
    }

    /// Waits for the end. `None`: it never ran.
    pub async fn wait(&self) -> Option<Exit> {
        loop {
            let ended = self.ended.notified();
            if let Some(exit) = self.exit.get() {
                return Some(exit);
            }
            if self.state.get() == State::Stopped || self.state.get() == State::Deleted {
                return None;
            }
            ended.await;
        }
    }

    /// An operation that this state does not allow; the words are those of containerd's shim.
    pub fn cannot(&self, what: &str) -> Error {
        let (state, kind) = (self.state.get(), if self.is_init() { "container" } else { "process" });
        let message = format!("cannot {what} a {} {kind}", state.word());
        match (state, what) {
            (State::Deleted, "delete" | "kill") => Error::new(Code::NotFound, format!("{message}: not found")),
            _ => Error::unknown(message),
        }
    }
}
