//! The child's sequence: from clone3 to execve, straight down in the order things happen.
//!
//! Whatever could be opened, built or decided beforehand the parent has done (`create.rs`); the child joins, attaches, drops and
//! executes. It never returns: a failure is sent to the parent and ends in `_exit`.

use crate::console::Pty;
use crate::error::{Doing, Error, Result};
use crate::handshake::{Channel, Frame, Turn};
use crate::hooks;
use crate::masked_paths::{Masks, make_read_only};
use crate::mounts::apply;
use crate::namespaces::{Joined, kind};
use crate::plan::Plan;
use crate::program::Program;
use crate::rebirth::{hand_over, report_and_exit};
use crate::rootfs::make_cwd;
use crate::state::{State, Status};
use crate::trees::Trees;
use crate::{lsm, namespaces, private_proc, sysctl};
use rrt_sys::path;
use rrt_sys::process::{self, SingleThreaded};
use rrt_sys::{OFlags, creds, namespace, net, signal, socket};
use std::convert::Infallible;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;

/// What the parent has opened for the child; its fds are all that the child has, besides the inherited ones.
pub struct Init<'a> {
    /// What to do.
    pub plan: &'a Plan,
    /// There is one thread.
    pub token: &'a SingleThreaded,
    /// To the parent.
    pub channel: Channel,
    /// Where `start` will connect; absent in `run`, which starts over `channel`.
    pub gate: Option<OwnedFd>,
    /// The host's trees; absent when init has to open them itself.
    pub trees: Option<Trees>,
    /// The namespaces to join, in order.
    pub namespaces: Vec<(Joined, OwnedFd)>,
    /// Where the hooks' output goes.
    pub hook_output: &'a hooks::Output,
    /// For createContainer hooks.
    pub state: &'a State,
}

impl Init<'_> {
    /// Becomes the container's program.
    pub fn run(mut self) -> Infallible {
        let Err(error) = match self.plan.namespaces.second_clone {
            true => self.enter_namespaces(),
            false => self.sequence(),
        };
        report_and_exit(&self.channel, error)
    }

    /// Enters what init has to be born in; see [`crate::rebirth`]. The namespaces that it will make belong to the user namespace.
    fn enter_namespaces(&mut self) -> Result<Infallible> {
        process::set_parent_death_signal(9).doing(|| "bind init to its parent".into())?;
        process::close_all_but(&self.own_fds()).doing(|| "close inherited fds".into())?;
        self.await_cgroup()?;
        // Those that the parent has not entered for us, with the rights of the runtime's own user namespace.
        let inherited = self.plan.namespaces.inherited;
        self.join(|j| j.kind & inherited != 0)?;
        self.namespaces.retain(|(j, _)| j.kind & inherited == 0);
        self.join(|j| j.kind == kind::USER)?;
        self.join(|j| j.kind == kind::PID)?;
        // The socket is taken out for the time being: the sequence changes it once it runs.
        let channel = self.channel.try_clone()?;
        hand_over(self.token, &channel, self.plan.namespaces.cloned, || self.sequence())
    }

    fn sequence(&mut self) -> Result<Infallible> {
        let (plan, token) = (self.plan, self.token);

        // Until the parent has written down that we exist, its death must be ours: nobody else would know of us.
        process::set_parent_death_signal(9).doing(|| "bind init to its parent".into())?;
        signal::reset().doing(|| "reset signals".into())?;
        // First of all, drop what fork has copied: the parent's lock, its end of our socket, anything of its caller's
        // that was not close-on-exec (CVE-2024-21626).
        if !plan.namespaces.second_clone {
            process::close_all_but(&self.own_fds()).doing(|| "close inherited fds".into())?;
            self.await_cgroup()?;
        }
        // Modes of nodes and directories are exactly what the plan says.
        process::umask(0);

        // The user namespace first: it decides what we may do in all others. Without ids in it we can make no file, so
        // be its root before anything else.
        if plan.namespaces.is_new(kind::USER) {
            // The files to be written are the user's only while we are dumpable; nobody but the user can see us yet.
            process::set_dumpable(plan.unprivileged).doing(|| "open our /proc files to the user".into())?;
            self.channel.ask(Turn::MapIds, None)?;
            process::set_dumpable(false).doing(|| "close our /proc files".into())?;
        }
        if !plan.namespaces.second_clone {
            self.join(|j| j.kind == kind::USER)?;
        }
        // The slowest step of all; meanwhile the parent makes the v1 cgroups.
        namespace::unshare(token, plan.namespaces.unshared_first)
            .doing(|| format!("make new namespaces ({})", namespaces::describe(plan.namespaces.unshared_first)))?;
        // With the caller's ids: the container's root may not reach them.
        let mut place = None;
        if !plan.namespaces.is_joined(kind::MOUNT) {
            match &mut self.trees {
                Some(trees) if plan.namespaces.is_new(kind::USER) && plan.namespaces.is_new(kind::MOUNT) => {
                    trees.lock(plan)
                }
                _ => self.open_trees()?,
            }
            place = Some(plan.root.open_place()?);
        }
        if plan.namespaces.has(kind::USER) {
            let (uid, gid) = (plan.namespaces.setup_uid, plan.namespaces.setup_gid);
            creds::set_ids(uid, gid).doing(|| "linux.uidMappings: become the user namespace's root".into())?;
            self.rebind_to_parent()?;
        }
        self.join(|j| !matches!(j.kind, kind::USER | kind::PID | kind::MOUNT))?;

        // Into the v1 cgroups by our own hand: a single-threaded task that moves itself takes no global lock (contract G.6).
        // Before the cgroup namespace, whose root is where we are at that moment.
        if plan.turns.contains(&Turn::JoinCgroups) {
            for tasks in self.channel.ask(Turn::JoinCgroups, None)? {
                path::write_once(&tasks, b"0").doing(|| "join the container's cgroup".into())?;
            }
        }
        forget_affinity();
        if plan.namespaces.unshared != 0 {
            namespace::unshare(token, plan.namespaces.unshared).doing(|| "linux.namespaces".into())?;
        }
        // unshare made the time namespace for our children only; its clocks can be set until somebody is in it.
        if plan.namespaces.is_new(kind::TIME) {
            match plan.namespaces.time_offsets.as_str() {
                "" => {}
                // A user's parent may not: the file is that of the container's root.
                offsets if plan.unprivileged => set_clocks(offsets)?,
                _ => drop(self.channel.ask(Turn::TimeOffsets, None)?),
            }
            let doing = || "linux.namespaces: enter the new time namespace".to_string();
            let ns = path::open(Path::new("/proc/self/ns/time_for_children"), OFlags::RDONLY).doing(doing)?;
            namespace::join(token, ns.as_fd(), kind::TIME).doing(doing)?;
        }
        // Last, because from here on paths are the other namespace's.
        self.join(|j| j.kind == kind::MOUNT)?;
        let trees = self.take_trees()?;
        let place = place.map_or_else(|| plan.root.open_place(), Ok)?;

        // A session of our own: for the controlling terminal, and so that no signal to the caller's group reaches us.
        process::setsid().doing(|| "make a session".into())?;
        // While no mount of the container's is made: the way to the kernel's files is still the host's own.
        let labels = lsm::Writer::open(&plan.process.labels)?;
        if let Some(name) = &plan.keyring {
            labels.label_keys(|| join_keyring(name))?;
        }
        if plan.namespaces.is_new(kind::NETWORK) {
            net::loopback_up().doing(|| {
                "linux.namespaces: bring up the loopback interface (takes CAP_NET_ADMIN, in a container as well)".into()
            })?;
        }
        // Before the hooks, which may go on with the network.
        if !plan.net_devices.is_empty() {
            self.channel.ask(Turn::NetDevices, None)?;
        }

        // The mount tree, below the root's fd; no path of the host is used after this for anything in the container.
        if plan.turns.contains(&Turn::HostMounts) {
            // Not before we are written down: whoever cleans up has to wait for our end, or we could still mount after him.
            self.channel.ask(Turn::HostMounts, None)?;
        }
        let root = plan.root.attach(trees.root, place)?;
        // While the host's procfs is still visible, which the kernel wants to see before it gives a user namespace its own.
        let proc = if plan.sysctl.is_empty() { None } else { Some(private_proc::whole()?) };
        let read_only_later = apply::apply_all(&root, &plan.mounts, trees.sources, &plan.cgroup_mounts, &self.channel)?;
        plan.dev.apply(&root, &trees.devices)?;
        // Whoever looks at us while we wait for `start` finds nothing of the host's.
        drop(trees.devices);
        make_cwd(&root, &plan.process.cwd)?;

        // The runtime's hooks see the finished mounts; the container's may still change them.
        if plan.hooks.before_pivot() {
            self.channel.ask(Turn::Hooks, None)?;
        }
        if !plan.hooks.create_container.is_empty() {
            let state = self.state.for_hooks_inside(Status::Creating);
            hooks::run(token, &plan.hooks.create_container, &state, &plan.root.path, self.hook_output, None)?;
        }

        plan.root.enter(&root)?;

        // In the container's own devpts, which is mounted by now, and before paths become read-only or masked.
        if plan.process.terminal {
            let pty = Pty::open(&root, plan.process.console_size)?;
            pty.bind_console(&root)?;
            pty.take()?;
            self.channel.ask(Turn::Console, Some(pty.master.as_fd()))?;
        }
        if let Some(name) = &plan.hostname {
            namespace::set_hostname(name.as_bytes()).doing(|| "hostname".into())?;
        }
        if let Some(name) = &plan.domainname {
            namespace::set_domainname(name.as_bytes()).doing(|| "domainname".into())?;
        }
        // Sysctls before /proc/sys becomes read-only; through our own procfs they would work after it as well.
        if let Some(proc) = &proc {
            sysctl::apply(proc, &plan.sysctl)?;
        }
        make_read_only(&root, &plan.readonly_paths)?;
        Masks::new(trees.null, plan.mount_label.as_deref()).hide(&root, &plan.masked_paths)?;
        read_only_later.finish()?;
        // The last change of the tree: after it nothing can be made on it.
        plan.root.finish(&root)?;
        drop(root);

        if plan.core_sched {
            crate::core_sched::create()?;
        }
        if let Some(persona) = plan.personality {
            rrt_sys::limits::set_personality(persona).doing(|| "linux.personality".into())?;
        }
        // Before privileges are dropped, and so that the hooks below, whose programs are the image's, run confined as well.
        labels.label_program(plan.process.no_new_privileges)?;
        drop(labels);
        if let Some(policy) = &plan.memory_policy {
            policy.apply()?;
        }
        let groups_denied = plan.user_namespace() || plan.in_user_namespace;
        let program = Program::prepare(&plan.process, &self.channel, plan.user_namespace(), groups_denied)?;

        // Setting ids has made us dumpable-by-policy; what is ours stays closed to others until execve.
        // Those of a user's are open to this user, or `exec` could not join us before we execute: nobody else can see us.
        let open = plan.unprivileged && plan.namespaces.is_new(kind::PID);
        process::set_dumpable(open).doing(|| "close our /proc files".into())?;
        // From the answer on we are the container's, not the parent's, which ends right after it. Until then its end is told by
        // the socket's end of file.
        process::set_parent_death_signal(0).doing(|| "outlive the parent".into())?;
        match self.gate {
            Some(_) => {
                // As process 1 we would ignore what asks other processes to end. Before `create` returns: a `kill` may come right after it.
                signal::exit_on_request().doing(|| "make init end on SIGTERM".into())?;
                self.channel.ask(Turn::Ready, None)?;
            }
            // In `run` the word to start is the answer.
            None => self.channel.send(&Frame::Turn(Turn::Ready), None)?,
        }

        self.wait_for_start()?;
        if !plan.hooks.start_container.is_empty() {
            // Without an environment of its own such a hook has the program's, in whose place it runs.
            let mut hooks = plan.hooks.start_container.clone();
            hooks.iter_mut().filter(|h| h.env.is_empty()).for_each(|h| h.env = program.environment());
            let state = self.state.for_hooks_inside(Status::Created);
            // In the program's place, so under its filter (as in runc).
            let cwd = &plan.process.cwd;
            hooks::run_confined(token, &hooks, &state, cwd, self.hook_output, &|| program.confine_hook())?;
        }
        keep_inherited(plan.inherited_fds)?;
        self.channel.send(&Frame::Executing, None)?;
        Err(program.exec(&self.channel, token))
    }

    /// The kernel forgets the parent's death signal whenever ids change (prctl(2), PR_SET_PDEATHSIG); a parent that ended in
    /// between is told by the socket, on which it has nothing else to say now.
    fn rebind_to_parent(&self) -> Result<()> {
        let doing = || "bind init to its parent".to_string();
        process::set_parent_death_signal(9).doing(doing)?;
        match socket::poll_readable(&[self.channel.as_fd()], 0).doing(doing)?[0] {
            true => Err(Error::Init("the runtime has ended".into())),
            false => Ok(()),
        }
    }

    /// With the systemd driver we are not born in our cgroup; until we are in it we do nothing that it should limit.
    fn await_cgroup(&self) -> Result<()> {
        match self.plan.cgroup.unit {
            Some(_) => self.channel.ask(Turn::Cgroup, None).map(drop),
            None => Ok(()),
        }
    }

    fn own_fds(&self) -> Vec<i32> {
        let inherited = 3..3 + self.plan.inherited_fds as i32;
        inherited
            .chain([self.channel.as_fd().as_raw_fd()])
            .chain(self.gate.iter().map(AsRawFd::as_raw_fd))
            .chain(self.namespaces.iter().map(|(_, fd)| fd.as_raw_fd()))
            .chain(self.trees.iter().flat_map(Trees::fds))
            .chain(self.hook_output.fds())
            .collect()
    }

    fn join(&self, which: impl Fn(&Joined) -> bool) -> Result<()> {
        for (joined, fd) in self.namespaces.iter().filter(|(j, _)| which(j)) {
            namespace::join(self.token, fd.as_fd(), joined.kind)
                .doing(|| format!("{}: join {:?}", joined.property, joined.path))?;
        }
        Ok(())
    }

    /// Opens the host's trees unless the parent has.
    fn open_trees(&mut self) -> Result<()> {
        if self.trees.is_none() {
            self.trees = Some(Trees::open(self.plan)?);
        }
        Ok(())
    }

    fn take_trees(&mut self) -> Result<Trees> {
        self.open_trees()?;
        self.trees.take().ok_or_else(|| Error::Init("the host's trees were not opened".into()))
    }

    /// Waits for `start`: over the gate, or over the parent's own socket in `run`.
    fn wait_for_start(&mut self) -> Result<()> {
        loop {
            if let Some(gate) = &self.gate {
                let connection = socket::accept(gate.as_fd()).doing(|| "wait for start".into())?;
                self.channel = Channel::from_fd(connection);
            }
            match (self.channel.receive()?, &self.gate) {
                (Some((Frame::Start, _)), _) => return Ok(()),
                // A `start` that was killed before it said anything.
                (None, Some(_)) => {}
                (other, _) => return Err(Error::Init(format!("{:?} where Start was due", other.map(|o| o.0)))),
            }
        }
    }
}

/// Writes our own clock offsets, for which our files have to be our own for a moment.
fn set_clocks(offsets: &str) -> Result<()> {
    let doing = || "linux.timeOffsets: write timens_offsets".to_string();
    process::set_dumpable(true).doing(doing)?;
    let file = path::open(Path::new("/proc/self/timens_offsets"), OFlags::WRONLY).doing(doing)?;
    path::write_once(&file, offsets.as_bytes()).doing(doing)?;
    process::set_dumpable(false).doing(doing)
}

/// Makes every fd from 3 on close at execve, but the first `count`.
pub fn keep_inherited(count: u32) -> Result<()> {
    let doing = || "choose the fds the program inherits".to_string();
    process::cloexec_from(3 + count).doing(doing)?;
    (3..3 + count as i32).filter_map(process::inherited_fd).try_for_each(|fd| process::keep_on_exec(fd).doing(doing))
}

/// The CPUs of whoever called the runtime are not the container's; its cgroup says which those are. As runc: without effect where the
/// kernel refuses (a SCHED_DEADLINE task).
pub fn forget_affinity() {
    let _ = rrt_sys::limits::reset_affinity();
}

/// The session keyring of the container, made if it is not there: without it the process would have its caller's keys. Where
/// keyrings are absent or forbidden there is none to be shared either.
pub fn join_keyring(name: &str) -> Result<()> {
    use rrt_sys::errno;
    let doing = || "make a session keyring (skip it with --no-new-keyring)".to_string();
    let name = std::ffi::CString::new(name).map_err(|_| Error::Usage("container id with a NUL byte".into()))?;
    match creds::join_session_keyring(&name) {
        Err(e) if e.is(errno::ENOSYS) || e.is(errno::EPERM) => Ok(()),
        id => creds::widen_keyring(id.doing(doing)?).doing(doing),
    }
}
