//! The task service: each request is one method, and what happens to a container is told as events, in the order of what happened.

use crate::container::Container;
use crate::error::{Code, Error};
use crate::log;
use crate::metrics;
use crate::oom;
use crate::process::{Process, State};
use crate::proto::events::{
    TaskCreate, TaskDelete, TaskExecAdded, TaskExecStarted, TaskExit, TaskIo, TaskOnly, TaskStart,
};
use crate::proto::task::{
    CheckpointTaskRequest, CloseIoRequest, ConnectResponse, ContainerRequest, CreateTaskRequest, DeleteResponse,
    ExecProcessRequest, KillRequest, PidResponse, PidsResponse, ProcessInfo, ProcessRequest, ResizePtyRequest,
    StateResponse, StatsResponse, UpdateTaskRequest, WaitResponse,
};
use crate::proto::{Any, CheckpointOptions, Empty, PROCESS_DETAILS, ProcessDetails, Timestamp};
use crate::publish::Publisher;
use crate::reaper::{Exit, Reaper};
use crate::signal;
use rustix::process::{Pid, kill_process};
use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use tokio::sync::Notify;
use tokio::task::spawn_local;

/// All containers of this shim.
pub struct Shim {
    namespace: String,
    reaper: Rc<Reaper>,
    events: Rc<Publisher>,
    containers: RefCell<HashMap<String, Rc<Container>>>,
    /// Ids that are being made.
    making: RefCell<Vec<String>>,
    /// The last container has gone, and nobody needs us any more.
    pub done: Notify,
}

type Answer<T> = Result<T, Error>;

impl Shim {
    /// A shim without containers.
    pub fn new(namespace: &str, reaper: Rc<Reaper>, events: Rc<Publisher>) -> Rc<Shim> {
        Rc::new(Shim {
            namespace: namespace.into(),
            reaper,
            events,
            containers: RefCell::default(),
            making: RefCell::default(),
            done: Notify::new(),
        })
    }

    fn container(&self, id: &str) -> Answer<Rc<Container>> {
        let found = self.containers.borrow().get(id).cloned();
        found.ok_or_else(|| Error::new(Code::NotFound, "container not created: not found"))
    }

    fn process(&self, id: &str, exec: &str) -> Answer<(Rc<Container>, Rc<Process>)> {
        let container = self.container(id)?;
        if exec.is_empty() {
            let init = container.init.clone();
            return Ok((container, init));
        }
        let found = container.execs.borrow().get(exec).cloned();
        match found {
            Some(process) => Ok((container, process)),
            None => Err(Error::new(Code::NotFound, format!("process does not exist {exec}: not found"))),
        }
    }

    pub async fn create(self: Rc<Self>, r: CreateTaskRequest) -> Answer<PidResponse> {
        if self.containers.borrow().contains_key(&r.id) || self.making.borrow().contains(&r.id) {
            return Err(Error::new(Code::AlreadyExists, format!("container {}: already exists", r.id)));
        }
        // Whoever else starts a process must not throw away the end of this one.
        let starting = self.reaper.starting();
        self.making.borrow_mut().push(r.id.clone());
        let made = Container::create(&r, &self.namespace, &self.reaper).await;
        self.making.borrow_mut().retain(|id| *id != r.id);
        let container = Rc::new(made?);
        self.containers.borrow_mut().insert(r.id.clone(), container.clone());
        let pid = container.init.pid();
        let io = TaskIo { stdin: r.stdin, stdout: r.stdout, stderr: r.stderr, terminal: r.terminal };
        let event = TaskCreate {
            container_id: r.id,
            bundle: r.bundle,
            rootfs: r.rootfs,
            io: Some(io),
            checkpoint: r.checkpoint,
            pid,
        };
        self.events.send("/tasks/create", "containerd.events.TaskCreate", &event);
        if pid != 0 {
            self.watch_oom(&container);
            self.watch(&container, &container.init);
        }
        drop(starting);
        Ok(PidResponse { pid })
    }

    fn watch_oom(&self, container: &Container) {
        let watching = container.cgroup.borrow().as_ref().and_then(|cg| oom::watch(&container.id, cg, &self.events));
        *container.oom.borrow_mut() = watching;
    }

    /// Waits for the end of a process beside everything else.
    fn watch(self: &Rc<Self>, container: &Rc<Container>, process: &Rc<Process>) {
        let end = self.reaper.exit_of(process.pid.get());
        let (shim, container, process) = (self.clone(), container.clone(), process.clone());
        spawn_local(async move {
            let Ok((status, at)) = end.await else { return };
            let exit = crate::reaper::exit(status, at);
            if process.is_init() {
                shim.init_ended(&container, exit).await;
            } else {
                shim.exec_ended(&container, &process, exit).await;
            }
        });
    }

    /// Init's end is told last of all the container's processes.
    async fn init_ended(&self, container: &Container, exit: Exit) {
        container.init_gone.set(true);
        if !container.own_pid_namespace
            && let Err(e) = container.kill(9, true, &self.reaper).await
            && e.code != Code::NotFound
        {
            log::warn(format_args!("container {}: the processes that init has left: {e}", container.id));
        }
        while container.running_execs.get() > 0 {
            container.exec_ended.notified().await;
        }
        // A start that is under way is told of first.
        let turn = container.init.turn.lock().await;
        if container.init.state.get() == State::Paused {
            // What is frozen cannot be removed.
            container.freeze("resume", &self.reaper).await.unwrap_or_else(log::debug);
        }
        if let Some(watching) = container.oom.take() {
            watching.look();
        }
        self.tell_end(&container.init, exit);
        drop(turn);
    }

    async fn exec_ended(&self, container: &Container, exec: &Process, exit: Exit) {
        let turn = exec.turn.lock().await;
        self.tell_end(exec, exit);
        drop(turn);
        self.one_less(container);
    }

    fn one_less(&self, container: &Container) {
        container.running_execs.set(container.running_execs.get() - 1);
        container.exec_ended.notify_one();
    }

    fn tell_end(&self, process: &Process, exit: Exit) {
        process.end(exit);
        let event = TaskExit {
            container_id: process.container.clone(),
            id: process.id().into(),
            pid: process.pid(),
            exit_status: exit.status,
            exited_at: Some(exit.at),
        };
        self.events.send("/tasks/exit", "containerd.events.TaskExit", &event);
    }

    pub async fn start(self: Rc<Self>, r: ProcessRequest) -> Answer<PidResponse> {
        let (container, process) = self.process(&r.id, &r.exec_id)?;
        let turn = process.turn.lock().await;
        if !matches!(process.state.get(), State::Created | State::Checkpointed) {
            return Err(Error::unknown(format!("cannot start a {} process", process.state.get().word())));
        }
        let starting = self.reaper.starting();
        if process.is_init() {
            let restored = process.pid.get() == 0;
            container.start(&self.reaper).await?;
            process.state.set(State::Running);
            let event = TaskStart { container_id: container.id.clone(), pid: process.pid() };
            self.events.send("/tasks/start", "containerd.events.TaskStart", &event);
            if restored {
                self.watch_oom(&container);
                self.watch(&container, &process);
            }
        } else {
            self.start_exec(&container, &process).await?;
        }
        drop(starting);
        drop(turn);
        Ok(PidResponse { pid: process.pid() })
    }

    async fn start_exec(self: &Rc<Self>, container: &Rc<Container>, exec: &Rc<Process>) -> Answer<()> {
        if container.init_gone.get() {
            let message = format!("container {} init process is not running: failed precondition", container.id);
            return Err(Error::new(Code::FailedPrecondition, message));
        }
        container.running_execs.set(container.running_execs.get() + 1);
        if let Err(error) = container.start_exec(exec, &self.reaper).await {
            self.one_less(container);
            exec.state.set(State::Stopped);
            exec.never_started();
            return Err(error);
        }
        exec.state.set(State::Running);
        let event = TaskExecStarted { container_id: container.id.clone(), exec_id: exec.exec.clone(), pid: exec.pid() };
        self.events.send("/tasks/exec-started", "containerd.events.TaskExecStarted", &event);
        self.watch(container, exec);
        Ok(())
    }

    pub async fn delete(self: Rc<Self>, r: ProcessRequest) -> Answer<DeleteResponse> {
        let (container, process) = self.process(&r.id, &r.exec_id)?;
        let turn = process.turn.lock().await;
        match process.state.get() {
            State::Running => return Err(Error::unknown("cannot delete a running process")),
            State::Paused | State::Pausing | State::Deleted => return Err(process.cannot("delete")),
            State::Created | State::Checkpointed | State::Stopped => {}
        }
        if process.is_init() {
            container.delete(&self.reaper).await?;
        } else {
            process.io.close().await;
        }
        process.state.set(State::Deleted);
        process.never_started();
        drop(turn);
        let exit = process.exit.get();
        let answer = DeleteResponse {
            pid: process.pid(),
            exit_status: exit.map_or(0, |exit| exit.status),
            exited_at: Some(exit.map_or(ZERO_TIME, |exit| exit.at)),
        };
        if process.is_init() {
            self.containers.borrow_mut().remove(&r.id);
            let event = TaskDelete {
                container_id: container.id.clone(),
                pid: answer.pid,
                exit_status: answer.exit_status,
                exited_at: answer.exited_at,
                id: String::new(),
            };
            self.events.send("/tasks/delete", "containerd.events.TaskDelete", &event);
        } else {
            container.execs.borrow_mut().remove(&r.exec_id);
        }
        Ok(answer)
    }

    pub async fn exec(self: Rc<Self>, r: ExecProcessRequest) -> Answer<Empty> {
        let container = self.container(&r.id)?;
        if container.execs.borrow().contains_key(&r.exec_id) {
            return Err(Error::new(Code::AlreadyExists, format!("id {}: already exists", r.exec_id)));
        }
        match container.init.state.get() {
            State::Created | State::Running => {}
            State::Checkpointed => return Err(Error::unknown("cannot exec in a created state")),
            state => return Err(Error::unknown(format!("cannot exec in a {} state", state.word()))),
        }
        let event = TaskExecAdded { container_id: r.id.clone(), exec_id: r.exec_id.clone() };
        let exec = Rc::new(container.describe_exec(r)?);
        container.execs.borrow_mut().insert(exec.exec.clone(), exec);
        self.events.send("/tasks/exec-added", "containerd.events.TaskExecAdded", &event);
        Ok(Empty {})
    }

    pub async fn resize_pty(self: Rc<Self>, r: ResizePtyRequest) -> Answer<Empty> {
        let (_, process) = self.process(&r.id, &r.exec_id)?;
        if !process.is_init() && matches!(process.state.get(), State::Stopped | State::Deleted) {
            return Err(Error::unknown(format!("cannot resize a {} container", process.state.get().word())));
        }
        process.io.resize(r.width, r.height)?;
        Ok(Empty {})
    }

    pub async fn state(self: Rc<Self>, r: ProcessRequest) -> Answer<StateResponse> {
        let (container, process) = self.process(&r.id, &r.exec_id)?;
        let exit = process.exit.get();
        // A frozen container's processes are all frozen.
        let state = match container.init.state.get() {
            frozen @ (State::Paused | State::Pausing) => frozen,
            _ => process.state.get(),
        };
        let spec = process.spec.clone();
        Ok(StateResponse {
            id: process.id().into(),
            bundle: container.bundle.to_string_lossy().into_owned(),
            pid: process.pid(),
            status: state.status() as i32,
            stdin: spec.stdin,
            stdout: spec.stdout,
            stderr: spec.stderr,
            terminal: spec.terminal,
            exit_status: exit.map_or(0, |exit| exit.status),
            exited_at: Some(exit.map_or(ZERO_TIME, |exit| exit.at)),
            exec_id: String::new(),
        })
    }

    pub async fn pause(self: Rc<Self>, r: ContainerRequest) -> Answer<Empty> {
        let container = self.container(&r.id)?;
        let init = &container.init;
        let turn = init.turn.lock().await;
        match init.state.get() {
            State::Running => {}
            State::Created | State::Checkpointed => return Err(Error::unknown("cannot pause task in created state")),
            _ => return Err(init.cannot("pause")),
        }
        init.state.set(State::Pausing);
        let paused = container.freeze("pause", &self.reaper).await;
        init.state.set(if paused.is_ok() { State::Paused } else { State::Running });
        paused?;
        drop(turn);
        self.events.send("/tasks/paused", "containerd.events.TaskPaused", &TaskOnly { container_id: r.id });
        Ok(Empty {})
    }

    pub async fn resume(self: Rc<Self>, r: ContainerRequest) -> Answer<Empty> {
        let container = self.container(&r.id)?;
        let init = &container.init;
        let turn = init.turn.lock().await;
        match init.state.get() {
            State::Paused => {}
            State::Created | State::Checkpointed => return Err(Error::unknown("cannot resume task in created state")),
            State::Running => return Err(Error::unknown("cannot resume a running process")),
            _ => return Err(init.cannot("resume")),
        }
        container.freeze("resume", &self.reaper).await?;
        init.state.set(State::Running);
        drop(turn);
        self.events.send("/tasks/resumed", "containerd.events.TaskResumed", &TaskOnly { container_id: r.id });
        Ok(Empty {})
    }

    pub async fn kill(self: Rc<Self>, r: KillRequest) -> Answer<Empty> {
        let (container, process) = self.process(&r.id, &r.exec_id)?;
        let turn = process.turn.lock().await;
        if process.state.get() == State::Deleted {
            return Err(process.cannot("kill"));
        }
        if process.is_init() {
            // Nobody is left to be asked for, unless others share its pid namespace.
            if process.exit.get().is_some() && !r.all {
                return Err(Error::new(Code::NotFound, "process already finished: not found"));
            }
            container.kill(r.signal, r.all, &self.reaper).await?;
        } else {
            kill_exec(&process, r.signal)?;
        }
        drop(turn);
        Ok(Empty {})
    }

    pub async fn pids(self: Rc<Self>, r: ContainerRequest) -> Answer<PidsResponse> {
        let container = self.container(&r.id)?;
        let mut pids = match container.pids(&self.reaper).await {
            // The runtime may have nothing to say of a container that has ended.
            Err(e) if container.init.exit.get().is_none() => return Err(Error::unknown(e.message)),
            listed => listed.unwrap_or_default(),
        };
        if pids.is_empty() && container.init.exit.get().is_some() {
            // containerd 1.7 and later throw a task without processes away when they are started again, and its exit code with it.
            pids.push(container.init.pid());
        }
        let execs: HashMap<u32, String> =
            container.execs.borrow().values().map(|exec| (exec.pid(), exec.exec.clone())).collect();
        let info = |pid: &u32| {
            let exec_id = execs.get(pid)?.clone();
            Some(Any::of(PROCESS_DETAILS, &ProcessDetails { exec_id }))
        };
        let processes = pids.into_iter().map(|pid| ProcessInfo { pid, info: info(&pid) }).collect();
        Ok(PidsResponse { processes })
    }

    pub async fn close_io(self: Rc<Self>, r: CloseIoRequest) -> Answer<Empty> {
        // containerd's shim gives this one error without its code.
        let found = self.container(&r.id).map(|_| self.process(&r.id, &r.exec_id))?;
        let (_, process) = found.map_err(|e| Error { code: Code::Unknown, ..e })?;
        process.io.close_stdin();
        Ok(Empty {})
    }

    pub async fn checkpoint(self: Rc<Self>, r: CheckpointTaskRequest) -> Answer<Empty> {
        let container = self.container(&r.id)?;
        let init = &container.init;
        let options = CheckpointOptions::from_any(r.options.as_ref());
        let options = options.map_err(Error::unknown)?;
        let turn = init.turn.lock().await;
        match init.state.get() {
            State::Running | State::Paused => {}
            State::Created | State::Checkpointed => {
                return Err(Error::unknown("cannot checkpoint a task in created state"));
            }
            _ => return Err(init.cannot("checkpoint")),
        }
        container.checkpoint(&r.path, options, &self.reaper).await?;
        drop(turn);
        Ok(Empty {})
    }

    pub async fn update(self: Rc<Self>, r: UpdateTaskRequest) -> Answer<Empty> {
        let container = self.container(&r.id)?;
        let init = &container.init;
        let turn = init.turn.lock().await;
        if matches!(init.state.get(), State::Stopped | State::Deleted) {
            return Err(init.cannot("update"));
        }
        container.update(&r.resources.map(|any| any.value).unwrap_or_default(), &self.reaper).await?;
        drop(turn);
        Ok(Empty {})
    }

    pub async fn wait(self: Rc<Self>, r: ProcessRequest) -> Answer<WaitResponse> {
        let (_, process) = self.process(&r.id, &r.exec_id)?;
        let exit = process.wait().await;
        Ok(WaitResponse {
            exit_status: exit.map_or(0, |exit| exit.status),
            exited_at: Some(exit.map_or(ZERO_TIME, |exit| exit.at)),
        })
    }

    pub async fn stats(self: Rc<Self>, r: ContainerRequest) -> Answer<StatsResponse> {
        let container = self.container(&r.id)?;
        match &*container.cgroup.borrow() {
            Some(cgroup) => Ok(StatsResponse { stats: Some(metrics::read(cgroup)) }),
            None => Err(Error::new(Code::NotFound, "cgroup does not exist: not found")),
        }
    }

    pub async fn connect(self: Rc<Self>, r: ContainerRequest) -> Answer<ConnectResponse> {
        let task_pid = self.container(&r.id).map_or(0, |container| container.init.pid());
        Ok(ConnectResponse { shim_pid: std::process::id(), task_pid, version: String::new() })
    }

    pub async fn shutdown(self: Rc<Self>, _: crate::proto::task::ShutdownRequest) -> Answer<Empty> {
        if self.containers.borrow().is_empty() && self.making.borrow().is_empty() {
            self.done.notify_one();
        }
        Ok(Empty {})
    }
}

/// What Go's zero time is as a timestamp: containerd's shims write it for "not yet".
const ZERO_TIME: Timestamp = Timestamp { seconds: -62_135_596_800, nanos: 0 };

/// The exec is our child: as long as it has not been reaped, its pid is nobody else's.
fn kill_exec(exec: &Process, signal: u32) -> Answer<()> {
    let finished = || Error::new(Code::NotFound, "process already finished: not found");
    if exec.exit.get().is_some() {
        return Err(finished());
    }
    let Some(pid) = Pid::from_raw(exec.pid.get()) else {
        return Err(Error::new(Code::FailedPrecondition, "process not created: failed precondition"));
    };
    let sent = match signal::of(signal) {
        Some(signal) => kill_process(pid, signal),
        None if signal == 0 => rustix::process::test_kill_process(pid),
        None => Err(rustix::io::Errno::INVAL),
    };
    match sent {
        Ok(()) => Ok(()),
        Err(rustix::io::Errno::SRCH) => Err(finished()),
        Err(e) => Err(Error::unknown(format!("exec kill error: unknown error after kill: {e}"))),
    }
}
