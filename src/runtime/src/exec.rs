//! `exec`: one more process in a running container.
//!
//! config.json is not read again: who the container is stands in its state, and what it is in the kernel, reached through
//! one pidfd of its init.

use crate::console::Pty;
use crate::error::{Doing, Error, InFile, Result};
use crate::facts::{self, is_unprivileged};
use crate::foreground::{self, Terminal};
use crate::handshake::{Channel, Frame, Turn};
use crate::host_root::HostRoot;
use crate::init::{join_keyring, keep_inherited};
use crate::intel_rdt::SavedIntelRdt;
use crate::landlock::LandlockPlan;
use crate::launch::{self, Attend, Endpoints};
use crate::memory_policy::MemoryPolicyPlan;
use crate::namespaces::kind;
use crate::process::{Grantable, ProcessPlan};
use crate::program::Program;
use crate::rebirth::{hand_over, report_and_exit};
use crate::seal::Seal;
use crate::state::{Init, State, StateDir, Status};
use crate::{ExecOptions, Runtime, id_maps, log, lsm, seccomp};
use rrt_cgroups::{Cgroup, SubCgroups};
use rrt_oci::{Capabilities, Capability, LinuxCapabilities, Process};
use rrt_sys::path::{self, Root};
use rrt_sys::process::{self, Child, SingleThreaded, clone3};
use rrt_sys::{creds, errno, namespace, signal};
use std::convert::Infallible;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;

impl Runtime {
    /// `exec`: starts a process in a container, and unless detached stands in for it until it ends.
    ///
    /// # Errors
    /// [`Error::Status`] when the container does not run; [`Error::Init`] when the program cannot be executed.
    pub fn exec(&self, options: &ExecOptions, seal: Seal) -> Result<i32> {
        // The container sees the process from its first moment.
        drop(seal);
        let signals = foreground::prepare(options.detach, options.no_subreaper)?;
        // Without the lock: any number of execs may run, and for as long as they like.
        let dir = StateDir::open_unlocked(&self.root, &options.id)?;
        let state = dir.require()?;
        check_status(&state, &dir, options.ignore_paused)?;
        let plan = plan(&dir, &state, options).map_err(|e| name_flags(e, options))?;
        launch::require_inherited(options.preserve_fds)?;
        let endpoints = Endpoints::open(
            &plan,
            options.detach,
            options.console_socket.as_deref(),
            options.pidfd_socket.as_deref(),
            options.pid_file.as_deref(),
        )?;
        let mut made = None;
        log::debug(format!("exec {:?}: {:?}", state.id, plan.args));
        let done =
            launch(&state, &plan, options, self.rootless, &endpoints, &mut made).and_then(|(channel, master)| {
                // Before the program runs: the first thing it asks may be the terminal's size.
                let terminal = master.as_ref().map(|m| Terminal::take_over(m.as_fd())).transpose()?;
                channel.send(&Frame::Start, None)?;
                channel.await_exec(&mut |number, courier| match &made {
                    Some(child) => {
                        let process = (child.pidfd.as_fd(), child.pid);
                        seccomp::hand_over(&state, Status::Running, process, number, courier)
                    }
                    None => Err(Error::Init("a seccomp listener of no process".into())),
                })?;
                match (&signals, &made) {
                    (Some(signals), Some(child)) => {
                        Ok(foreground::stand_in(child, signals, terminal.as_ref(), None)?.code())
                    }
                    _ => Ok(0),
                }
            });
        let done = done.map_err(|e| name_flags(e, options));
        if let (Err(_), Some(child)) = (&done, &made) {
            child.kill_and_reap();
            // An exec that failed has no pid: conmon takes the file's existence for success.
            if let Some(file) = &options.pid_file {
                let _ = std::fs::remove_file(file);
            }
        }
        done
    }
}

/// A label that a flag has given is called by the flag in errors.
fn name_flags(error: Error, options: &ExecOptions) -> Error {
    let flags = [
        ("process.apparmorProfile", "--apparmor", options.apparmor.is_some()),
        ("process.selinuxLabel", "--process-label", options.process_label.is_some()),
    ];
    let renamed = |text: String| {
        let given = flags.iter().filter(|(_, _, given)| *given && options.process.is_none());
        given.fold(text, |text, (property, flag, _)| text.replace(property, flag))
    };
    match error {
        Error::Config { property, problem } => Error::Config { property: renamed(property), problem },
        Error::Init(text) => Error::Init(renamed(text)),
        error => error,
    }
}

fn check_status(state: &State, dir: &StateDir, ignore_paused: bool) -> Result<()> {
    match state.status(dir) {
        Status::Stopped => Err(Error::Status("cannot exec in a stopped container: container not running".into())),
        Status::Creating => Err(Error::Status("cannot exec in a container that is being created".into())),
        Status::Paused if !ignore_paused => {
            Err(Error::Status("cannot exec in a paused container (use --ignore-paused to override)".into()))
        }
        _ => Ok(()),
    }
}

/// The parent's sequence, up to the point where only the word to start is missing; the child is left in `made`.
fn launch(
    state: &State,
    plan: &ProcessPlan,
    options: &ExecOptions,
    rootless: Option<bool>,
    endpoints: &Endpoints,
    made: &mut Option<Child>,
) -> Result<(Channel, Option<OwnedFd>)> {
    let Some(init) = state.init else { return Err(Error::Status("container not running".into())) };
    let container = init.pidfd()?;
    if state.namespaces & kind::USER != 0 {
        id_maps::check_exec(plan, init.pid)?;
    }
    let cgroup = state.cgroup();
    let sub = SubCgroups::parse(&options.cgroup)?;
    if !options.cgroup.is_empty() && cgroup.is_disabled() {
        return Err(Error::Usage(format!("--cgroup {}: the container has no cgroup", options.cgroup.join(" "))));
    }
    let unified = cgroup.unified_sub_dir(&sub)?;
    let mut attach = None;
    let tasks = cgroup.v1_tasks(&sub)?;
    let (channel, childs_end) = Channel::pair()?;
    let token = SingleThreaded::check().doing(|| "check that the runtime has one thread".into())?;
    let capabilities = creds::permitted_set().doing(|| "read the runtime's own capabilities".into())?;
    let unprivileged = is_unprivileged(capabilities);
    let score = launch::OwnScore::lend(plan, unprivileged)?;
    // The container's processes can see the new one from its first moment (CVE-2016-9962).
    process::set_dumpable(false).doing(|| "close our /proc files".into())?;
    let mut turns = vec![Turn::Born];
    turns.extend(plan.turns(state.namespaces & kind::USER != 0));
    let joiner = Joiner {
        plan,
        token: &token,
        channel: childs_end,
        container,
        root: state.host_root.as_ref().map(HostRoot::open).transpose()?,
        core_sched: crate::core_sched::plan(&state.annotations)?.then_some(init),
        namespaces: state.namespaces,
        keyring: state.keyring.as_deref(),
        personality: state.personality,
        memory_policy: state.memory_policy.as_ref(),
        tasks,
        inherited: options.preserve_fds,
        in_user_namespace: facts::in_user_namespace()?,
    };
    set_affinity(&plan.exec_affinity.0, "initial")?;
    let mut child = clone3(&token, 0, unified.as_ref().map(AsFd::as_fd), || joiner.run());
    if matches!(&child, Err(e) if e.is(errno::EBUSY)) && options.cgroup.is_empty() {
        // A cgroup that hands controllers down takes no processes: a systemd in the container has moved itself, and everything
        // else, below it. The new process goes where init is.
        let unified = cgroup.unified_dir_of(init.pid)?;
        child = clone3(&token, 0, unified.as_ref().map(AsFd::as_fd), || joiner.run());
    }
    if matches!(&child, Err(e) if e.is(errno::EACCES) || e.is(errno::EPERM)) && cgroup.has_unit() {
        // A user may not move between the session and its service manager, which are below two cgroups of root's; systemd may.
        child = clone3(&token, 0, None, || joiner.run());
        attach = Some((&cgroup, &sub));
    }
    score.take_back();
    // With it goes our copy of the child's end of the socket: from here on its end of file is the child's end.
    drop(joiner);
    let child = child.doing(|| "make a process in the container".into())?;
    let child = made.insert(child);
    let master = launch::attend(
        &turns,
        child,
        &channel,
        plan,
        endpoints,
        &mut Announce { plan, endpoints, intel_rdt: state.intel_rdt.as_ref(), rootless, unprivileged, attach },
    );
    let master = master.map_err(|e| crate::oom::suspect(e, &cgroup))?;
    Ok((channel, master))
}

/// `process.execCPUAffinity`; an empty list leaves it as it is.
fn set_affinity(cpus: &[usize], name: &str) -> Result<()> {
    if cpus.is_empty() {
        return Ok(());
    }
    rrt_sys::limits::set_affinity(cpus).doing(|| format!("process.execCPUAffinity.{name}"))
}

/// The only answer that an exec needs beyond those every launch has.
struct Announce<'a> {
    plan: &'a ProcessPlan,
    endpoints: &'a Endpoints,
    intel_rdt: Option<&'a SavedIntelRdt>,
    rootless: Option<bool>,
    unprivileged: bool,
    /// The process was not born in the container's cgroup and has to be moved there.
    attach: Option<(&'a Cgroup, &'a SubCgroups)>,
}

impl Attend for Announce<'_> {
    fn attend(&mut self, turn: Turn, child: &Child) -> Result<()> {
        match turn {
            Turn::Born => {
                self.intel_rdt.map_or(Ok(()), |rdt| rdt.add(child.pid))?;
                // It waits for its predecessor's end, which waits for our answer.
                self.attach.map_or(Ok(()), |(cgroup, sub)| Ok(cgroup.attach(child.pid, sub)?))
            }
            Turn::Ready => {
                if !self.unprivileged {
                    launch::set_oom_score(self.plan, child, self.rootless)?;
                }
                self.endpoints.announce(child, "setns")
            }
            _ => Ok(()),
        }
    }
}

/// The child.
struct Joiner<'a> {
    plan: &'a ProcessPlan,
    token: &'a SingleThreaded,
    channel: Channel,
    container: OwnedFd,
    /// To be entered, if no mount namespace brings it.
    root: Option<OwnedFd>,
    /// Whose core scheduling cookie to share.
    core_sched: Option<Init>,
    namespaces: i32,
    keyring: Option<&'a str>,
    personality: Option<u64>,
    memory_policy: Option<&'a MemoryPolicyPlan>,
    tasks: Vec<OwnedFd>,
    inherited: u32,
    in_user_namespace: bool,
}

impl Joiner<'_> {
    /// Joins the container from outside, and has the process born in it; see [`crate::rebirth`].
    fn run(&self) -> Infallible {
        let Err(error) = self.join().and_then(|()| {
            let new_namespaces = 0;
            hand_over(self.token, &self.channel, new_namespaces, || self.sequence())
        });
        report_and_exit(&self.channel, error)
    }

    fn join(&self) -> Result<()> {
        process::set_parent_death_signal(9).doing(|| "bind the process to its parent".into())?;
        let own = [self.channel.as_fd().as_raw_fd(), self.container.as_raw_fd()];
        let inherited = 3..3 + self.inherited as i32;
        let files = self.tasks.iter().chain(&self.root).map(AsRawFd::as_raw_fd);
        let keep: Vec<i32> = inherited.clone().chain(own).chain(files).collect();
        let doing = || "close inherited fds".to_string();
        process::close_all_but(&keep).doing(doing)?;
        // The cgroups before the namespaces: their files are opened on the host.
        for tasks in &self.tasks {
            path::write_once(tasks, b"0").doing(|| "join the container's cgroup".into())?;
        }
        // While init's pid means something here.
        if let Some(init) = self.core_sched {
            crate::core_sched::share(init, self.container.as_fd())?;
        }
        match (self.plan.exec_affinity.0.as_slice(), self.plan.exec_affinity.1.as_slice()) {
            ([], []) => crate::init::forget_affinity(),
            (_, cpus) => set_affinity(cpus, "final")?,
        }
        // All namespaces in one call, and with the mount namespace its root; the pid namespace is for the next process.
        if self.namespaces != 0 {
            namespace::join_process(self.token, self.container.as_fd(), self.namespaces)
                .doing(|| "join the container's namespaces".into())?;
        }
        if let Some(root) = &self.root {
            HostRoot::enter(root.as_fd())?;
        }
        if self.namespaces & kind::USER != 0 {
            // Who makes the terminal has to be somebody in there. Without a root in the mapping it stays nobody's.
            match creds::set_ids(0, 0) {
                Err(e) if e.is(errno::EINVAL) => {}
                done => done.doing(|| "become the user namespace's root".into())?,
            }
        }
        // What the container will see has nothing of the host any more.
        process::close_all_but(&inherited.chain([own[0]]).collect::<Vec<_>>()).doing(doing)
    }

    /// From clone3 to execve; see `init.rs` for the reasons that both share.
    fn sequence(&self) -> Result<Infallible> {
        let plan = self.plan;
        process::set_parent_death_signal(9).doing(|| "bind the process to its parent".into())?;
        signal::reset().doing(|| "reset signals".into())?;
        process::setsid().doing(|| "make a session".into())?;
        let labels = lsm::Writer::open(&plan.labels)?;
        if let Some(name) = self.keyring {
            labels.label_keys(|| join_keyring(name))?;
        }
        if let Some(persona) = self.personality {
            rrt_sys::limits::set_personality(persona).doing(|| "linux.personality".into())?;
        }
        if let Some(policy) = self.memory_policy {
            policy.apply()?;
        }
        if plan.terminal {
            let root = Root::open(Path::new("/")).doing(|| "open the container's root".into())?;
            let pty = Pty::open(&root, plan.console_size)?;
            pty.take()?;
            self.channel.ask(Turn::Console, Some(pty.master.as_fd()))?;
        }
        labels.label_program(plan.no_new_privileges)?;
        drop(labels);
        let user_namespace = self.namespaces & kind::USER != 0;
        let program = Program::prepare(plan, &self.channel, user_namespace, user_namespace || self.in_user_namespace)?;
        process::set_dumpable(false).doing(|| "close our /proc files".into())?;
        process::set_parent_death_signal(0).doing(|| "outlive the parent".into())?;
        self.channel.ask(Turn::Ready, None)?;
        match self.channel.receive()? {
            Some((Frame::Start, _)) => {}
            other => return Err(Error::Init(format!("{:?} where Start was due", other.map(|o| o.0)))),
        }
        keep_inherited(self.inherited)?;
        self.channel.send(&Frame::Executing, None)?;
        Err(program.exec(&self.channel, self.token))
    }
}

/// What is to be executed: the document of `--process`, or the container's own process with the flags over it.
fn plan(dir: &StateDir, state: &State, options: &ExecOptions) -> Result<ProcessPlan> {
    let process = match &options.process {
        Some(file) => {
            let bytes = std::fs::read(file).doing(|| format!("--process: read {file:?}"))?;
            let mut warnings = Vec::new();
            let process = rrt_oci::process_from_slice(&bytes, &mut warnings).in_file(file)?;
            warnings.iter().for_each(log::warn);
            with_the_containers(process, state)?
        }
        None => with_flags(state, options)?,
    };
    let landlock = LandlockPlan::new(&state.annotations)?;
    let own = creds::permitted_set().doing(|| "read the runtime's own capabilities".into())?;
    let lsm = lsm::Modules::read(lsm::is_asked_of(&process));
    let host = Grantable::new(own, state.namespaces & kind::USER != 0, lsm);
    let planned = ProcessPlan::plan(&process, "process", host)?;
    planned.warnings.iter().for_each(log::warn);
    // Whatever the process is to be, it is under the container's filter.
    let mut seccomp = state.seccomp.clone().map(|filter| dir.read_filter(filter)).transpose()?;
    if let Some(filter) = &mut seccomp {
        filter.courier = is_unprivileged(own);
    }
    let mut process = ProcessPlan { landlock, seccomp, ..planned.process };
    process.keep_groups(&state.annotations).iter().for_each(log::warn);
    process.fit_to_kernel()?;
    Ok(process)
}

/// `process` of config.json, as the state keeps it.
fn stored(state: &State) -> Result<Process> {
    // What was left out of it was told at `create`.
    rrt_oci::process_from_slice(state.process.get().as_bytes(), &mut Vec::new()).in_file(Path::new("state.json"))
}

/// What a document leaves out of these it gets from the container: a further process is confined as the first one, as in runc. An
/// oom_score_adj would otherwise be the runtime's caller's, whom the kernel may never kill. execCPUAffinity of config.json is for nothing
/// else. no_new_privs is the document's alone, in runc too.
fn with_the_containers(mut process: Process, state: &State) -> Result<Process> {
    let missing = |label: &Option<String>| label.as_deref().is_none_or(str::is_empty);
    let own = stored(state)?;
    if missing(process.apparmor_profile()) {
        process.set_apparmor_profile(own.apparmor_profile().clone());
    }
    if missing(process.selinux_label()) {
        process.set_selinux_label(own.selinux_label().clone());
    }
    if process.capabilities().is_none() {
        process.set_capabilities(own.capabilities().clone());
    }
    if process.oom_score_adj().is_none() {
        process.set_oom_score_adj(own.oom_score_adj());
    }
    if process.scheduler().is_none() {
        process.set_scheduler(own.scheduler().clone());
    }
    if process.exec_cpu_affinity().is_none() {
        process.set_exec_cpu_affinity(own.exec_cpu_affinity().clone());
    }
    if process.io_priority().is_none() {
        process.set_io_priority(*own.io_priority());
    }
    Ok(process)
}

fn with_flags(state: &State, options: &ExecOptions) -> Result<Process> {
    let mut process = stored(state)?;
    process.set_args(Some(options.args.clone()));
    process.set_terminal(Some(options.tty.unwrap_or(false)));
    // The size was for the container's own terminal.
    process.set_console_size(None);
    if let Some(cwd) = &options.cwd {
        process.set_cwd(cwd.into());
    }
    if !options.env.is_empty() {
        let mut env = process.env().clone().unwrap_or_default();
        env.extend(options.env.iter().cloned());
        process.set_env(Some(env));
    }
    if let Some((uid, gid)) = options.user {
        process.user_mut().set_uid(uid);
        if let Some(gid) = gid {
            process.user_mut().set_gid(gid);
        }
    }
    if !options.additional_gids.is_empty() {
        let mut gids = process.user().additional_gids().clone().unwrap_or_default();
        gids.extend(&options.additional_gids);
        process.user_mut().set_additional_gids(Some(gids));
    }
    if options.no_new_privs {
        process.set_no_new_privileges(Some(true));
    }
    if !options.caps.is_empty() {
        process.set_capabilities(Some(more_capabilities(&process, &options.caps)));
    }
    if options.apparmor.is_some() {
        process.set_apparmor_profile(options.apparmor.clone());
    }
    if options.process_label.is_some() {
        process.set_selinux_label(options.process_label.clone());
    }
    Ok(process)
}

/// Adds to what the process has and can have; not to what it passes on by itself (inheritable, CVE-2022-29162).
fn more_capabilities(process: &Process, names: &[String]) -> LinuxCapabilities {
    let mut more = Capabilities::new();
    for name in names {
        let upper = name.to_ascii_uppercase();
        let short = upper.strip_prefix("CAP_").unwrap_or(&upper);
        match short.parse::<Capability>() {
            Ok(cap) => drop(more.insert(cap)),
            // As in config.json (runtime-spec config.md, "Linux Process").
            Err(_) => log::warn(format!("--cap: {name:?} is not a capability and is left out")),
        }
    }
    let mut caps = process.capabilities().clone().unwrap_or_default();
    let add = |set: &Option<Capabilities>| Some(set.iter().flatten().copied().chain(more.iter().copied()).collect());
    caps.set_bounding(add(caps.bounding()));
    caps.set_effective(add(caps.effective()));
    caps.set_permitted(add(caps.permitted()));
    // A process that already passes some on may keep these over an execve as a user, too.
    if let Some(inheritable) = caps.inheritable().clone() {
        let kept = more.iter().filter(|c| inheritable.contains(*c));
        let ambient = caps.ambient().iter().flatten().chain(kept).copied().collect();
        caps.set_ambient(Some(ambient));
    }
    caps
}
