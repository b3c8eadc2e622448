//! The parent's sequence: `create`, and the first half of `run`, straight down in the order things happen.

use crate::error::{Doing, Error, InFile, Result, config};
use crate::facts::HostFacts;
use crate::handshake::{Channel, Frame, Turn};
use crate::host_root::HostRoot;
use crate::init::Init;
use crate::intel_rdt::{IntelRdtPlan, SavedIntelRdt};
use crate::launch::{self, Attend, Endpoints};
use crate::namespaces::{Joined, kind, name};
use crate::net_devices::{self, Moved};
use crate::plan::Plan;
use crate::rootfs::Entry;
use crate::seal::Seal;
use crate::state::{GATE, Init as InitProcess, Staged, State, StateDir, Status};
use crate::time::Rfc3339;
use crate::trees::Trees;
use crate::{CgroupManager, CreateOptions, Runtime, hooks, id_maps, log, lsm, mounts, notify, seccomp};
use rrt_cgroups::{Cgroup, SubCgroups, Systemd};
use rrt_oci::Spec;
use rrt_sys::process::{Child, SingleThreaded, clone3};
use rrt_sys::{OFlags, namespace, path, socket};
use serde_json::value::RawValue;
use std::mem::ManuallyDrop;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

/// A container that is set up and waits: at its gate after `create`, for our own word in `run`.
pub struct Created {
    /// Its directory, locked.
    pub dir: StateDir,
    /// Its state, as written.
    pub state: State,
    /// Its init.
    pub init: Child,
    /// To init.
    pub channel: Channel,
    /// Its terminal, when nobody else has it.
    pub terminal: Option<OwnedFd>,
}

/// What has been made so far, to be taken back when a later step fails.
#[derive(Default)]
pub struct Made {
    /// The cgroup.
    pub cgroup: Option<Cgroup>,
    /// Init, our child.
    pub init: Option<Child>,
    /// Whether hooks of the runtime's namespaces were run, which poststop hooks undo.
    pub hooks_ran: bool,
    /// Its class of resctrl.
    pub intel_rdt: Option<SavedIntelRdt>,
    /// Network devices that have moved.
    pub net_devices: Option<Moved>,
    /// The container's mounts, if they are the host's.
    pub host_root: Option<HostRoot>,
}

impl Runtime {
    /// `create`: sets a container up, up to the point where only `start` is missing.
    ///
    /// # Errors
    /// Whatever it is, nothing of the container is left.
    pub fn create(&self, options: &CreateOptions, seal: Seal) -> Result<()> {
        self.set_up(options, seal, true, true).map(drop)
    }

    /// Plans a create without doing anything: what `rrt plan` prints is the value that `create` runs.
    pub fn plan(&self, options: &CreateOptions) -> Result<Plan> {
        let (spec, _, bundle) = read_bundle(options)?;
        let (facts, _) = self.read_facts(&spec)?;
        Plan::new(&spec, &bundle, &self.root.join(&options.id), options, self.cgroup_manager, &facts)
    }

    /// What the plan needs to know of the machine; and the service manager, if it is to make the cgroup.
    pub(crate) fn read_facts(&self, spec: &Spec) -> Result<(HostFacts, Option<Systemd>)> {
        let mut facts = HostFacts::read(self.rootless, lsm::is_asked_for(spec))?;
        if self.cgroup_manager != CgroupManager::Systemd {
            return Ok((facts, None));
        }
        let mut systemd = crate::facts::connect_systemd(self.rootless, facts.euid)?;
        facts.systemd = Some(systemd.facts()?);
        Ok((facts, Some(systemd)))
    }

    /// Sets a container up to the point where only the word to start is missing. `detach`: this command will not stay with it;
    /// `gate`: another command will give that word.
    pub(crate) fn set_up(&self, options: &CreateOptions, seal: Seal, detach: bool, gate: bool) -> Result<Created> {
        crate::validate_id(&options.id)?;
        let (spec, process, bundle) = read_bundle(options)?;
        // Neither is taken apart again, a thousand blocks of memory, for which the container would wait; the process ends before long.
        let spec = ManuallyDrop::new(spec);
        let (facts, systemd) = self.read_facts(&spec)?;
        let plan = Plan::new(&spec, &bundle, &self.root.join(&options.id), options, self.cgroup_manager, &facts)?;
        let mut plan = ManuallyDrop::new(plan);
        plan.warnings.iter().for_each(log::warn);
        plan.process.fit_to_kernel()?;
        if let Some(filter) = &plan.process.seccomp {
            filter.tell();
            seccomp::check_agent(filter)?;
        }
        log::debug(format!("create {:?}: {} mounts, handshake {:?}", plan.id, plan.mounts.len(), plan.turns));
        launch::require_inherited(plan.inherited_fds)?;
        let terminal = options.console_socket.as_deref();
        let pidfd_socket = options.pidfd_socket.as_deref();
        let endpoints = Endpoints::open(&plan.process, detach, terminal, pidfd_socket, options.pid_file.as_deref())?
            .with_receiver(&plan.annotations)?;

        // The id is ours from here on, and whatever happens there is a record to clean up from.
        let dir = StateDir::make(&self.root, &options.id)?;
        let mut made = Made::default();
        let created = self.make(&plan, process, &facts, systemd, &dir, &endpoints, seal, gate, &mut made);
        match created {
            Ok((state, channel, terminal)) => {
                log::debug(format!("create {:?}: init is ready as pid {}", plan.id, state.init.map_or(0, |i| i.pid)));
                let Some(init) = made.init else { return Err(Error::Init("init was not made".into())) };
                Ok(Created { dir, state, init, channel, terminal })
            }
            Err(e) => {
                made.take_back(dir);
                Err(seccomp::explain(id_maps::explain_init(e, &plan.namespaces, plan.unprivileged)))
            }
        }
    }

    #[expect(
        clippy::too_many_arguments,
        reason = "one caller; the sequence reads better whole than split for its arguments"
    )]
    fn make(
        &self,
        plan: &Plan,
        process: Box<RawValue>,
        facts: &HostFacts,
        systemd: Option<Systemd>,
        dir: &StateDir,
        endpoints: &Endpoints,
        mut seal: Seal,
        gate: bool,
        made: &mut Made,
    ) -> Result<(State, Channel, Option<OwnedFd>)> {
        // Everything that can fail on the caller's input is opened before the first cgroup or process exists: the root, the
        // sources of mounts (in the host's mount namespace, with the runtime's rights), the namespaces to join.
        id_maps::find_helpers(&plan.namespaces, plan.id_maps)?;
        if facts.notify_socket.is_some() {
            notify::make_directory(dir.path())?;
        }
        // Without the right to, init does it.
        let trees = Trees::open_if_allowed(plan)?;
        let namespaces = open_namespaces(&plan.namespaces.joined)?;
        let idmapped_later = match &trees {
            Some(trees) => mounts::idmap::apply(&plan.mounts, &trees.sources, &namespaces)?,
            None => mounts::idmap::refuse(&plan.mounts)?,
        };
        refuse_host_settings(plan, &namespaces)?;
        let hook_output = &plan.hooks.output.open()?;

        // What will exist is written down before it does.
        let mut state = plan_state(plan, process, facts);
        if let (Entry::Chroot, Some(trees)) = (plan.root.entry, &trees) {
            let root = HostRoot::new(trees.root.as_fd(), &plan.root.path)?;
            root.require_alone(&self.root)?;
            state.host_root = Some(root);
            made.host_root.clone_from(&state.host_root);
        }
        state.intel_rdt = plan.intel_rdt.as_ref().map(IntelRdtPlan::locate).transpose()?;
        dir.write(&state)?;
        if let (Some(plan), Some(rdt)) = (&plan.intel_rdt, &state.intel_rdt) {
            made.intel_rdt = Some(rdt.clone());
            rdt.make(plan)?;
        }
        dir.write_filter(plan.process.seccomp.as_ref())?;

        // The v2 cgroup with its limits before the process, which is born in it. Those of v1 init joins by itself, so they are made
        // while it makes its namespaces (turn `JoinCgroups`). Only systemd makes one around a process that is there, so init waits
        // for it (turn `Cgroup`) before it does anything.
        let unified = match &systemd {
            None => {
                let cgroup = made.cgroup.insert(Cgroup::create_unified(&plan.cgroup)?);
                delegate(cgroup, plan)?;
                if !plan.cgroup.has_v1() {
                    // Rootless, there may be none; with v1 that is known after the turn.
                    state.cgroup = cgroup.saved();
                }
                cgroup.unified_dir()?
            }
            Some(_) => {
                Cgroup::check_free(&plan.cgroup)?;
                None
            }
        };

        let gate_socket =
            gate.then(|| socket::listen_at(dir.fd(), GATE).doing(|| "make the start gate".into())).transpose()?;
        let (channel, childs_end) = Channel::pair()?;
        let token = SingleThreaded::check().doing(|| "check that the runtime has one thread".into())?;
        let score = launch::OwnScore::lend(&plan.process, plan.unprivileged)?;
        // No process of a namespace that init joins may look into it (CVE-2016-9962).
        rrt_sys::process::set_dumpable(false).doing(|| "close our /proc files".into())?;
        // Some namespaces init has to be born in; we come back from them, because our hooks belong on the host.
        let (inherited, namespaces): (Vec<_>, Vec<_>) = namespaces
            .into_iter()
            .partition(|(j, _)| !plan.in_user_namespace && plan.namespaces.inherited & j.kind != 0);
        let way_back = enter_namespaces(&token, &inherited)?;
        if !plan.namespaces.is_new(kind::PID) {
            // Others will see init from its first moment.
            seal.close();
        }
        let init = Init {
            plan,
            token: &token,
            channel: childs_end,
            gate: gate_socket,
            trees,
            namespaces,
            hook_output,
            state: &state,
        };
        // Namespaces that have to belong to a joined user namespace are made by the child, once it is in there.
        let new = if plan.namespaces.second_clone { 0 } else { plan.namespaces.cloned };
        let child = clone3(&token, new, unified.as_ref().map(AsFd::as_fd), move || init.run());
        score.take_back();
        let child = made.init.insert(child.map_err(|e| crate::oom::explain(cannot_clone(new, e), &state.cgroup()))?);
        for (kind, own) in way_back {
            namespace::join(&token, own.as_fd(), kind)
                .doing(|| format!("return to the runtime's own {} namespace", name(kind)))?;
        }
        // Before it makes others, or does any work worth the name.
        if let Some(rdt) = &made.intel_rdt {
            rdt.add(child.pid)?;
        }
        // It exists: a `delete --force` may have to end it while it hangs, in a hook or on a dead network file system.
        state.init = Some(InitProcess::of(child.pid)?);
        dir.write(&state)?;

        // The rest is init's sequence; we answer what it asks, in the order both sides know.
        let mut answers = Answers {
            plan,
            state: &mut state,
            dir,
            endpoints,
            channel: &channel,
            hook_output,
            token: &token,
            rootless: self.rootless,
            net_devices: None,
            systemd,
            cgroup: &mut made.cgroup,
            idmapped_later,
            seal,
            staged: None,
            hooks_ran: false,
            gate,
        };
        let master = launch::attend(&plan.turns, child, &channel, &plan.process, endpoints, &mut answers);
        (made.hooks_ran, made.net_devices) = (answers.hooks_ran, answers.net_devices);
        let terminal = master.map_err(|e| crate::oom::explain(e, &state.cgroup()))?;
        Ok((state, channel, terminal))
    }
}

/// The parent's answers to what only a container's init asks.
struct Answers<'a> {
    plan: &'a Plan,
    state: &'a mut State,
    dir: &'a StateDir,
    endpoints: &'a Endpoints,
    channel: &'a Channel,
    hook_output: &'a hooks::Output,
    token: &'a SingleThreaded,
    rootless: Option<bool>,
    net_devices: Option<Moved>,
    systemd: Option<Systemd>,
    cgroup: &'a mut Option<Cgroup>,
    idmapped_later: mounts::idmap::Waiting<'a>,
    seal: Seal,
    /// The state of a container that is ready.
    staged: Option<Staged<'a>>,
    hooks_ran: bool,
    gate: bool,
}

impl Answers<'_> {
    /// The cgroup of a container whose init is there and waits.
    fn start_unit(&mut self, init: i32) -> Result<()> {
        let Some(mut systemd) = self.systemd.take() else {
            return Err(Error::Init("a unit where there is no service manager".into()));
        };
        start_unit(self.plan, &mut systemd, init, self.dir, self.state, self.cgroup)
    }
}

/// Has systemd make the unit around process `first`, writes down that it has, and completes the cgroup.
pub(crate) fn start_unit(
    plan: &Plan,
    systemd: &mut Systemd,
    first: i32,
    dir: &StateDir,
    state: &mut State,
    cgroup: &mut Option<Cgroup>,
) -> Result<()> {
    // If it fails there may be a unit all the same, when its answer was lost.
    *cgroup = Some(state.cgroup());
    let saved = Cgroup::start_unit(&plan.cgroup, systemd, first)?;
    // From here on a unit of this name is ours to stop. If we are killed before it is written down, the process dies with us, and
    // the unit with the process.
    state.cgroup = saved.clone();
    let cgroup = cgroup.insert(Cgroup::open(saved));
    dir.write(state)?;
    cgroup.finish_unit(&plan.cgroup, first)?;
    delegate(cgroup, plan)
}

impl Attend for Answers<'_> {
    fn prepare(&mut self, turn: Turn) -> Result<Vec<OwnedFd>> {
        if let (Turn::JoinCgroups, Some(cgroup)) = (turn, self.cgroup.as_mut()) {
            cgroup.create_v1(&self.plan.cgroup)?;
            // Rootless, there may be less than was planned.
            self.state.cgroup = cgroup.saved();
            return Ok(cgroup.v1_tasks(&SubCgroups::default())?);
        }
        // Init has much to do until its next question, and until we answer one nothing runs in the container but init.
        self.seal.close();
        if turn == Turn::Ready {
            self.state.ready = true;
            self.staged = Some(self.dir.stage(self.state)?);
        }
        Ok(Vec::new())
    }

    fn map_ids(&mut self, tree: OwnedFd) -> Result<()> {
        mounts::idmap::apply_next(&mut self.idmapped_later, tree.as_fd())
    }

    /// In `run` the word to start, over the same socket, is the answer to Ready.
    fn is_answered(&self, turn: Turn) -> bool {
        self.gate || turn != Turn::Ready
    }

    fn attend(&mut self, turn: Turn, child: &Child) -> Result<()> {
        let ns = &self.plan.namespaces;
        match turn {
            Turn::Cgroup => self.start_unit(child.pid),
            Turn::MapIds => id_maps::write(ns, self.plan.id_maps, self.token, child),
            Turn::TimeOffsets => launch::write_proc(child.pid, "timens_offsets", &ns.time_offsets)
                .doing(|| "linux.timeOffsets: write timens_offsets".into()),
            Turn::NetDevices => {
                self.net_devices = Some(net_devices::apply(self.token, &self.plan.net_devices, child.pid)?);
                Ok(())
            }
            Turn::Hooks => {
                self.hooks_ran = true;
                let state = self.state.for_hooks(Status::Creating);
                let stop = Some(self.channel.as_fd());
                let cwd = &self.plan.bundle;
                hooks::run(self.token, &self.plan.hooks.prestart, &state, cwd, self.hook_output, stop)?;
                hooks::run(self.token, &self.plan.hooks.create_runtime, &state, cwd, self.hook_output, stop)
            }
            Turn::Ready => {
                if !self.plan.unprivileged {
                    launch::set_oom_score(&self.plan.process, child, self.rootless)?;
                }
                self.staged.take().map_or(Ok(()), Staged::publish)?;
                self.endpoints.announce(child, "standard")
            }
            Turn::Born => {
                if let Some(rdt) = &self.state.intel_rdt {
                    rdt.add(child.pid)?;
                }
                self.state.init = Some(InitProcess::of(child.pid)?);
                self.dir.write(self.state)
            }
            Turn::JoinCgroups | Turn::HostMounts | Turn::MountIds | Turn::Console | Turn::Limits => Ok(()),
        }
    }
}

impl Made {
    /// Takes back what was made, last made first. What fails here is only logged: the error that led here is the one to report.
    pub fn take_back(self, dir: StateDir) {
        if let Some(init) = &self.init {
            init.kill_and_reap();
        }
        if let Some(moved) = &self.net_devices {
            moved.give_back();
        }
        if let Some(cgroup) = self.cgroup {
            match crate::delete::remove_cgroup(&cgroup) {
                Ok(()) => cgroup.unmake(),
                Err(e) => log::warn(format!("after a failure: {e}")),
            }
        }
        if let Some(Err(e)) = self.host_root.map(|root| root.unmount()) {
            log::warn(format!("after a failed create: {e}"));
        }
        if let Some(Err(e)) = self.intel_rdt.map(|rdt| rdt.remove()) {
            log::warn(format!("after a failed create: {e}"));
        }
        if self.hooks_ran
            && let Ok(Some(state)) = dir.read()
        {
            crate::delete::run_poststop(&state);
        }
        if let Err(e) = dir.remove() {
            log::warn(format!("after a failure: {e}"));
        }
    }
}

/// Reads config.json: whole, and `process` as text beside it, which `exec` reads again from the state.
pub fn read_bundle(options: &CreateOptions) -> Result<(Spec, Box<RawValue>, PathBuf)> {
    let bundle = std::path::absolute(&options.bundle).doing(|| format!("--bundle {:?}", options.bundle))?;
    let file = options.config.clone().unwrap_or_else(|| bundle.join("config.json"));
    let bytes = std::fs::read(&file).map_err(|source| match source.kind() {
        std::io::ErrorKind::NotFound if options.config.is_none() => Error::Usage(format!(
            "no bundle at {}: config.json does not exist there (--bundle names the bundle; `rrt spec` makes a config.json)",
            bundle.display()
        )),
        std::io::ErrorKind::PermissionDenied => {
            let (uid, _) = rrt_sys::creds::effective_ids();
            Error::Io { doing: format!("read {file:?} (the bundle has to be readable for uid {uid})"), source }
        }
        _ => Error::Io { doing: format!("read {file:?}"), source },
    })?;
    let mut warnings = Vec::new();
    let mut spec = rrt_oci::spec_from_slice(&bytes, &mut warnings).in_file(&file)?;
    warnings.iter().for_each(log::warn);
    // What oci-spec's types do not keep is looked up only where there is something to look up.
    let again = || serde_json::from_slice::<Raw>(&bytes).in_file(&file);
    let resources = spec.linux_mut().as_mut().and_then(|l| l.resources_mut().as_mut());
    if let Some(resources) = resources.filter(|r| r.pids().as_ref().is_some_and(|pids| pids.limit() == 0))
        && again()?.linux.and_then(|l| l.resources?.pids?.limit).is_none()
    {
        resources.set_pids(None);
    }
    let text = std::str::from_utf8(&bytes).unwrap_or_default();
    let process = match rrt_oci::member(text, "process") {
        Some(process) if process != "null" => Some(RawValue::from_string(process.into()).in_file(&file)?),
        _ => again()?.process,
    };
    let process = process.ok_or_else(|| config("process", "missing; it names the program to run"))?;
    Ok((spec, process, bundle))
}

/// What oci-spec's types do not keep of config.json.
#[derive(serde::Deserialize)]
struct Raw {
    /// As text.
    process: Option<Box<RawValue>>,
    /// Down to `pids.limit`: a missing value is read as 0, which means a limit (contract C.2).
    linux: Option<RawLinux>,
}

#[derive(serde::Deserialize)]
struct RawLinux {
    resources: Option<RawResources>,
}

#[derive(serde::Deserialize)]
struct RawResources {
    pids: Option<RawPids>,
}

#[derive(serde::Deserialize)]
struct RawPids {
    limit: Option<i64>,
}

/// The state of a planned container, of which nothing exists yet.
pub fn plan_state(plan: &Plan, process: Box<RawValue>, facts: &HostFacts) -> State {
    let ns = &plan.namespaces;
    let kinds = kind::ALL.iter().map(|(k, ..)| k).filter(|k| ns.has(**k)).fold(0, |bits, k| bits | k);
    State {
        id: plan.id.clone(),
        bundle: plan.bundle.clone(),
        rootfs: plan.root.path.clone(),
        created: format!("{:#}", Rfc3339::now()),
        owner: facts.euid,
        annotations: plan.annotations.clone(),
        init: None,
        ready: false,
        namespaces: kinds,
        joined: ns.joined.iter().fold(0, |bits, j| bits | j.kind),
        own_pid_namespace: ns.is_new(kind::PID),
        personality: plan.personality,
        memory_policy: plan.memory_policy.clone(),
        seccomp: plan.process.seccomp.clone(),
        intel_rdt: None,
        host_root: None,
        keyring: plan.keyring.clone(),
        cgroup: plan.cgroup.saved(),
        device_rules: plan.device_rules.clone(),
        added_device_rules: Vec::new(),
        hooks: crate::hooks::HooksPlan {
            poststart: plan.hooks.poststart.clone(),
            poststop: plan.hooks.poststop.clone(),
            output: plan.hooks.output.clone(),
            ..Default::default()
        },
        mount_label: plan.mount_label.clone(),
        // What symlinks are taken literally for criu cannot be told of by path, and refuses to save.
        binds: plan
            .mounts
            .iter()
            .filter(|m| m.is_bind() && m.options.links.is_default())
            .map(|m| m.destination.clone())
            .collect(),
        stdio: if plan.process.terminal { Vec::new() } else { launch::standard_streams() },
        process,
    }
}

/// Opens the namespaces to join.
pub fn open_namespaces(joined: &[Joined]) -> Result<Vec<(Joined, OwnedFd)>> {
    let open = |j: &Joined| {
        let fd = path::open(&j.path, OFlags::RDONLY)
            .doing(|| format!("{}: the {} namespace {:?}", j.property, name(j.kind), j.path))?;
        /// `NSFS_MAGIC`
        const NSFS: u64 = 0x6e73_6673;
        match path::fs_magic(&fd).doing(|| j.property.clone())? {
            NSFS => Ok((j.clone(), fd)),
            _ => Err(config(&j.property, format!("{:?} is not a namespace file", j.path))),
        }
    };
    joined.iter().map(open).collect()
}

/// A joined namespace may be the host's own: what config.json sets in it would then be set on the host.
pub fn refuse_host_settings(plan: &Plan, namespaces: &[(Joined, OwnedFd)]) -> Result<()> {
    for (joined, fd) in namespaces {
        let sysctl = plan.sysctl.iter().find(|s| s.namespace == joined.kind);
        let setting = match sysctl {
            Some(s) => format!("linux.sysctl[{:?}]", s.name),
            None if joined.kind == kind::UTS && plan.hostname.is_some() => "hostname".into(),
            None if joined.kind == kind::UTS && plan.domainname.is_some() => "domainname".into(),
            None if joined.kind == kind::NETWORK && !plan.net_devices.is_empty() => "linux.netDevices".into(),
            // Its `/` would be changed for everybody.
            None if joined.kind == kind::MOUNT => "linux.namespaces".into(),
            None => continue,
        };
        let own = own_namespace(joined.kind).doing(|| joined.property.clone())?;
        let id = |fd: &OwnedFd| path::fstat(fd).map(|st| (st.st_dev, st.st_ino)).doing(|| joined.property.clone());
        if id(fd)? == id(&own)? {
            let cure = if joined.kind == kind::MOUNT { "the entry, to share it" } else { "one of them" };
            let problem =
                format!("{} is the host's own {} namespace; remove {cure}", joined.property, name(joined.kind));
            return Err(config(setting, problem));
        }
    }
    Ok(())
}

/// Joins namespaces for the children to come; returns our own, to come back to.
fn enter_namespaces(token: &SingleThreaded, joined: &[(Joined, OwnedFd)]) -> Result<Vec<(i32, OwnedFd)>> {
    let enter = |(joined, fd): &(Joined, OwnedFd)| {
        let own = own_namespace(joined.kind).doing(|| joined.property.clone())?;
        namespace::join(token, fd.as_fd(), joined.kind)
            .doing(|| format!("{}: join {:?}", joined.property, joined.path))?;
        Ok((joined.kind, own))
    };
    joined.iter().map(enter).collect()
}

/// The runtime's own namespace of a kind.
pub fn own_namespace(kind: i32) -> rrt_sys::Result<OwnedFd> {
    let file = kind::ALL.iter().find(|(k, ..)| *k == kind).map_or("", |(.., file)| file);
    path::open(&Path::new("/proc/self/ns").join(file), OFlags::RDONLY)
}

/// What clone3 refused, with what the machine may have against a user namespace.
pub(crate) fn cannot_clone(kinds: i32, e: rrt_sys::SysError) -> Error {
    let why = if kinds & kind::USER != 0 { id_maps::why_refused(&e) } else { String::new() };
    let source = rrt_sys::SysError::new(e.call(), e.errno());
    Error::System {
        doing: format!("make init in new namespaces ({}){why}", crate::namespaces::describe(kinds)),
        source,
    }
}

/// cgroup v2: the container's root may manage cgroups below its own, as a systemd inside needs.
pub fn delegate(cgroup: &Cgroup, plan: &Plan) -> Result<()> {
    if !plan.user_namespace() || plan.unprivileged {
        return Ok(());
    }
    let host_root = plan.namespaces.uid_map.lines().find_map(|line| {
        let mut fields = line.split(' ');
        (fields.next() == Some("0")).then(|| fields.next()?.parse().ok())?
    });
    match host_root {
        Some(uid) if plan.namespaces.has(kind::CGROUP) => Ok(cgroup.delegate(uid)?),
        _ => Ok(()),
    }
}

impl Created {
    /// Releases init over our own socket, and waits until its program runs.
    pub(crate) fn start(&self) -> Result<()> {
        self.channel.send(&Frame::Start, None)?;
        self.channel
            .await_exec(&mut |number, courier| {
                let process = (self.init.pidfd.as_fd(), self.init.pid);
                seccomp::hand_over(&self.state, Status::Created, process, number, courier)
            })
            .map_err(|e| crate::oom::explain(e, &self.state.cgroup()))
    }
}
