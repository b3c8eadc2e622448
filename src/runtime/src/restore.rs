//! `restore`: a container made again from what `checkpoint` saved, by criu.
//!
//! Directory, cgroups, and limits are made from config.json as `create` makes them; namespaces, mounts and processes come from the
//! images. What the images leave out (`external`) is handed in: sources of bind mounts, joined namespaces, pipes, the terminal.

use crate::annotations::property;
use crate::checkpoint::{DESCRIPTORS, EXTERNAL_NAMESPACES, require_root};
use crate::create::{
    Made, delegate, open_namespaces, own_namespace, plan_state, read_bundle, refuse_host_settings, start_unit,
};
use crate::criu::options::{self, CONFIG_ANNOTATION, CriuOptions, Directories, ManageCgroups};
use crate::criu::rpc::{self, Kind, Message, opt};
use crate::criu::{Criu, Stages, Start};
use crate::error::{Doing, Error, InFile, Result, config};
use crate::facts::HostFacts;
use crate::foreground::{self, Terminal};
use crate::launch::Endpoints;
use crate::mounts::{self, MountKind, MountPlan, Source, mount_point};
use crate::namespaces::{Joined, kind};
use crate::plan::{Plan, with_default_devices};
use crate::rootfs::make_cwd;
use crate::state::{Init, State, StateDir, Status};
use crate::{CreateOptions, Runtime, delete, external, hooks, init, log, lsm, notify, rebirth};
use rrt_cgroups::{Cgroup, SubCgroups, Systemd, with_device_rules};
use rrt_sys::mount::{self, Propagation};
use rrt_sys::path::{self, Root};
use rrt_sys::process::{self, Child, SingleThreaded};
use rrt_sys::signal::{SIGKILL, Signals};
use rrt_sys::{OFlags, net};
use std::ffi::OsStr;
use std::fs;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

/// `restore`
#[derive(Debug, Clone, Default)]
pub struct RestoreOptions {
    /// As for `create`; what criu restores anyway (`no_pivot`) has no effect.
    pub create: CreateOptions,
    /// What `checkpoint` has too.
    pub criu: CriuOptions,
    /// Return once the processes run.
    pub detach: bool,
    /// Leave orphans to whoever reaps them.
    pub no_subreaper: bool,
    /// Another LSM profile for the processes, `apparmor:NAME` or `selinux:LABEL`.
    pub lsm_profile: Option<String>,
    /// Another SELinux context for the mounts.
    pub lsm_mount_context: Option<String>,
}

/// criu's log.
const LOG: &str = "restore.log";
/// In the container's directory, what is mounted for criu, in its own mount namespace.
const CRIU: &str = "criu";

/// A container that runs again.
struct Restored {
    dir: StateDir,
    state: State,
    init: Child,
    terminal: Option<OwnedFd>,
}

impl Runtime {
    /// `restore`: brings a saved container back; then, unless detached, stands in for it until it ends.
    ///
    /// # Errors
    /// Nothing of the container is left then; the images are.
    pub fn restore(&self, options: &RestoreOptions) -> Result<i32> {
        // In either case a signal is dealt with between criu's stages.
        let signals = match foreground::prepare(false, options.detach || options.no_subreaper)? {
            Some(signals) => signals,
            None => return Err(Error::Init("no signals to watch".into())),
        };
        let restored = self.bring_back(options, &signals)?;
        if options.detach {
            return Ok(0);
        }
        let exit = restored.stand_in(&signals);
        restored.init.kill_and_reap();
        match restored.dir.relock() {
            Ok(dir) => delete::delete(dir, &restored.state)?,
            // Somebody deleted it while it ran.
            Err(Error::NotFound(_)) => {}
            Err(e) => return Err(e),
        }
        exit
    }

    fn bring_back(&self, options: &RestoreOptions, signals: &Signals) -> Result<Restored> {
        let create = &options.create;
        crate::validate_id(&create.id)?;
        let directories = Directories::open(&options.criu, false)?;
        let (spec, process, bundle) = read_bundle(create)?;
        require_root()?;
        let (facts, systemd) = self.read_facts(&spec)?;
        let plan = Plan::new(&spec, &bundle, &self.root.join(&create.id), create, self.cgroup_manager, &facts)?;
        plan.warnings.iter().for_each(log::warn);
        refuse_joined(&plan.namespaces.joined)?;
        refuse_lost(&plan)?;
        let terminal = create.console_socket.as_deref();
        let pidfd_socket = create.pidfd_socket.as_deref();
        let pid_file = create.pid_file.as_deref();
        let endpoints = Endpoints::open(&plan.process, options.detach, terminal, pidfd_socket, pid_file)?
            .with_receiver(&plan.annotations)?;

        // The id is ours from here on, and whatever happens there is a record to clean up from.
        let dir = StateDir::make(&self.root, &create.id)?;
        let mut made = Made::default();
        let state = plan_state(&plan, process, &facts);
        let order = Order { options, plan: &plan, endpoints: &endpoints, signals };
        match order.run(&dir, state, directories, &facts, systemd, &mut made) {
            Ok((state, terminal)) => match made.init {
                Some(init) => Ok(Restored { dir, state, init, terminal }),
                None => Err(Error::Init("init was not restored".into())),
            },
            Err(e) => {
                made.take_back(dir);
                // A failed restore has no pid: conmon takes the file's existence for success.
                if let Some(file) = pid_file {
                    let _ = fs::remove_file(file);
                }
                Err(Error::Status(format!("restore of {:?}: {e}", create.id)))
            }
        }
    }
}

impl Restored {
    fn stand_in(&self, signals: &Signals) -> Result<i32> {
        let terminal = self.terminal.as_ref().map(|master| Terminal::take_over(master.as_fd())).transpose()?;
        self.dir.unlock()?;
        let proxy = notify::Proxy::open(&self.dir)?;
        Ok(foreground::stand_in(&self.init, signals, terminal.as_ref(), proxy)?.code())
    }
}

/// What `update --device` had added to the saved container's rules, which no config.json has.
fn add_device_rules(cgroup: &Cgroup, state: &mut State, images: &Path) -> Result<()> {
    let added = external::device_rules(images)?;
    if added.is_empty() || cgroup.is_disabled() {
        return Ok(());
    }
    let rules = with_device_rules(&state.device_rules, &added);
    cgroup.update_devices(&with_default_devices(&state.device_rules), &with_default_devices(&rules))?;
    (state.device_rules, state.added_device_rules) = (rules, added);
    Ok(())
}

/// Namespaces criu cannot bring processes back into.
fn refuse_joined(joined: &[Joined]) -> Result<()> {
    let not = |j: &&Joined| matches!(j.kind, kind::MOUNT | kind::CGROUP | kind::TIME);
    match joined.iter().find(not) {
        Some(j) => {
            let name = crate::namespaces::name(j.kind);
            Err(config(
                &j.property,
                format!("criu cannot restore into a {name} namespace that exists; remove its path"),
            ))
        }
        None => Ok(()),
    }
}

/// What criu does not save, and nobody can give to processes that exist: without it they would be less confined than config.json says.
fn refuse_lost(plan: &Plan) -> Result<()> {
    let lost = [
        (plan.process.landlock.is_some(), property(crate::landlock::ANNOTATION)),
        (plan.core_sched, property(crate::core_sched::ANNOTATION)),
        (plan.intel_rdt.is_some(), "linux.intelRdt".into()),
        (!plan.net_devices.is_empty(), "linux.netDevices".into()),
        (plan.memory_policy.is_some(), "linux.memoryPolicy".into()),
    ];
    if !plan.namespaces.has(kind::MOUNT) {
        return Err(config("linux.namespaces", "criu restores no container without a mount namespace"));
    }
    let links = |m: &&MountPlan| m.options.links.source || m.options.links.destination;
    if let Some(mount) = plan.mounts.iter().find(links) {
        let problem = "criu binds by path and follows symlinks; src-nofollow and dest-nofollow are not for restore";
        return Err(config(format!("{}.options", mount.property), problem));
    }
    if let Some(mount) = plan.mounts.iter().find(|m| m.idmap.is_some() && m.in_root.is_some()) {
        let problem =
            "criu cannot translate the owners of a source below root.path; take the source out of the root file system";
        return Err(config(&mount.property, problem));
    }
    match lost.into_iter().find(|(asked, _)| *asked) {
        Some((_, property)) => {
            let problem =
                "criu does not save it, and restored processes would be without it; remove it to restore them so";
            Err(config(property, problem))
        }
        None => Ok(()),
    }
}

/// What a restore needs at every step.
struct Order<'a> {
    options: &'a RestoreOptions,
    plan: &'a Plan,
    endpoints: &'a Endpoints,
    signals: &'a Signals,
}

/// What is on this machine for it, all that can be missing, opened.
struct Inputs {
    sources: Vec<Option<Source>>,
    devices: Vec<Source>,
    namespaces: Vec<(Joined, OwnedFd)>,
    places: Places,
    external: external::Sources,
    pipes: Vec<(i32, String)>,
}

impl Inputs {
    fn open(plan: &Plan, dir: &StateDir, directories: &Directories) -> Result<Inputs> {
        let sources = mounts::open_sources(&plan.mounts, plan.root.source_propagation())?;
        let devices = plan.dev.open_sources()?;
        let namespaces = open_namespaces(&plan.namespaces.joined)?;
        mounts::idmap::apply(&plan.mounts, &sources, &namespaces)?;
        refuse_host_settings(plan, &namespaces)?;
        let places = Places::new(dir.path(), plan);
        let external = external::sources(&directories.images, plan, &places.sources, &places.dir)?;
        let pipes = pipes(&directories.images)?;
        Ok(Inputs { sources, devices, namespaces, places, external, pipes })
    }

    /// The fds that criu gets.
    fn fds(&self) -> impl Iterator<Item = i32> {
        let namespaces = self.namespaces.iter().map(|(_, fd)| fd.as_raw_fd());
        namespaces.chain(self.pipes.iter().map(|(fd, _)| *fd))
    }
}

impl Order<'_> {
    fn run(
        &self,
        dir: &StateDir,
        mut state: State,
        mut directories: Directories,
        facts: &HostFacts,
        mut systemd: Option<Systemd>,
        made: &mut Made,
    ) -> Result<(State, Option<OwnedFd>)> {
        let plan = self.plan;
        if facts.notify_socket.is_some() {
            notify::make_directory(dir.path())?;
        }
        // Everything that can fail on the caller's input comes before the first cgroup or process, as in `create`.
        let mut inputs = Inputs::open(plan, dir, &directories)?;
        dir.write(&state)?;
        dir.write_filter(plan.process.seccomp.as_ref())?;
        if systemd.is_some() {
            Cgroup::check_free(&plan.cgroup)?;
        } else {
            let cgroup = made.cgroup.insert(Cgroup::create(&plan.cgroup)?);
            state.cgroup = cgroup.saved();
            delegate(cgroup, plan)?;
        }
        inputs.places.make(&inputs.sources)?;

        let token = SingleThreaded::check().doing(|| "check that the runtime has one thread".into())?;
        let criu = self.start_criu(&token, &mut inputs, &mut directories)?;
        // A unit is made around a process, and init is criu's child: the unit is criu's until it has ended, as with runc.
        let criu = criu.adopt(|pid| {
            if let Some(systemd) = &mut systemd {
                start_unit(plan, systemd, pid, dir, &mut state, &mut made.cgroup)?;
            }
            let Some(cgroup) = &made.cgroup else { return Ok(()) };
            if systemd.is_none() && self.options.criu.manage_cgroups == ManageCgroups::Ignore && !cgroup.is_disabled() {
                // It leaves its children where it is; outside they would have no limits.
                cgroup.join_by_pid(pid, &SubCgroups::default())?;
            }
            add_device_rules(cgroup, &mut state, &directories.images)
        })?;
        let mut request = self.request(&directories, &inputs);
        for (controller, path) in made.cgroup.iter().flat_map(|c| c.paths_in(&facts.cgroups)) {
            request.inner(opt::CG_ROOT, |m| m.text(1, controller).text(2, path.as_os_str().as_encoded_bytes()));
        }
        let images = directories.images.clone();
        let mut stages = Restoring { order: self, dir, state: &mut state, token: &token, made, images, terminal: None };
        let outcome = criu.run(&rpc::request(Kind::Restore, &request), self.signals, &mut stages);
        let terminal = stages.terminal.take();
        let (response, interrupted) = outcome?;
        // What was mounted there went with criu.
        let _ = fs::remove_dir_all(&inputs.places.dir);
        let Some(init) = &made.init else {
            return Err(Error::Init(format!("criu restored {:?}, which it has not announced", response.pid)));
        };
        self.take_over(dir, &mut state, init, interrupted)?;
        Ok((state, terminal))
    }

    fn start_criu(&self, token: &SingleThreaded, inputs: &mut Inputs, directories: &mut Directories) -> Result<Criu> {
        let inherited: Vec<i32> = inputs.fds().chain(directories.fds()).collect();
        Criu::start(Start {
            token,
            // Its mounts are its own, and go with it however it ends.
            namespaces: kind::MOUNT,
            inherited: &inherited,
            shell_job: self.options.criu.shell_job,
            log: directories.log(LOG),
            prepare: &mut || {
                prepare(self.plan, &inputs.places, std::mem::take(&mut inputs.sources), &inputs.devices)?;
                inputs.external.below.iter().try_for_each(external::Below::mount)?;
                directories.reopen()?;
                if self.plan.user_namespace() { directories.make_searchable() } else { Ok(()) }
            },
            patient: self.options.criu.lazy_pages,
        })
    }

    /// The processes run: writes that down, tells the world, and passes on a signal that came for them.
    fn take_over(&self, dir: &StateDir, state: &mut State, init: &Child, interrupted: Option<i32>) -> Result<()> {
        state.ready = true;
        state.namespaces |= time_namespace(init.pid);
        dir.write(state)?;
        self.endpoints.announce(init, "standard")?;
        // It came when the processes ran already: it is theirs, as every later one.
        if let Some(signal) = interrupted.filter(|_| !self.options.detach) {
            let _ = process::send_signal(init.pidfd.as_fd(), signal);
        }
        log::debug(format!("restore {:?}: runs as pid {}", self.plan.id, init.pid));
        Ok(())
    }

    fn request(&self, directories: &Directories, inputs: &Inputs) -> Message {
        let config_file = options::config_file(self.plan.annotations.get(CONFIG_ANNOTATION).map(String::as_str));
        let mut m = directories.request(&self.options.criu, LOG, config_file.as_deref());
        m.text(opt::ROOT, inputs.places.root.as_os_str().as_encoded_bytes());
        // A sibling of criu's is our child; and a device may have another path here than where it was saved.
        m.flag(opt::RST_SIBLING, true).flag(opt::EVASIVE_DEVICES, true);
        // criu's newer way sets propagation by copying it from the source, which works only where the source is shared; in its own
        // mount namespace it is a slave, and so is what is bound from it.
        m.flag(opt::MNTNS_COMPAT_MODE, true);
        m.maybe(opt::LSM_PROFILE, self.options.lsm_profile.as_ref());
        m.maybe(opt::LSM_MOUNT_CONTEXT, self.options.lsm_mount_context.as_ref());
        m.number(opt::EMPTY_NS, kind::NETWORK.into());
        for (name, source) in &inputs.external.named {
            m.inner(opt::EXT_MNT, |m| m.text(1, name).text(2, source.as_os_str().as_encoded_bytes()));
        }
        for (joined, fd) in &inputs.namespaces {
            match EXTERNAL_NAMESPACES.iter().find(|(kind, ..)| *kind == joined.kind) {
                Some((_, _, key)) => {
                    m.inner(opt::INHERIT_FD, |m| m.text(1, key).number(2, fd.as_raw_fd().into()));
                }
                None => {
                    let file = kind::ALL.iter().find(|(k, ..)| *k == joined.kind).map_or("", |(.., file)| file);
                    m.inner(opt::JOIN_NS, |m| m.text(1, file).text(2, joined.path.as_os_str().as_encoded_bytes()));
                }
            }
        }
        for (fd, key) in &inputs.pipes {
            m.inner(opt::INHERIT_FD, |m| m.text(1, key).number(2, (*fd).into()));
        }
        m
    }
}

/// Where things are mounted for criu.
struct Places {
    dir: PathBuf,
    /// The root file system.
    root: PathBuf,
    /// Sources that have no path on the host: idmapped ones.
    sources: Vec<Option<PathBuf>>,
}

impl Places {
    fn new(state_dir: &Path, plan: &Plan) -> Places {
        let dir = state_dir.join(CRIU);
        let place = |(i, m): (usize, &MountPlan)| m.idmap.as_ref().map(|_| dir.join(i.to_string()));
        Places { root: dir.join("root"), sources: plan.mounts.iter().enumerate().map(place).collect(), dir }
    }

    fn make(&self, sources: &[Option<Source>]) -> Result<()> {
        let doing = || format!("make places for criu's mounts in {:?}", self.dir);
        fs::create_dir(&self.dir).and_then(|()| fs::create_dir(&self.root)).doing(doing)?;
        for (place, source) in self.sources.iter().zip(sources) {
            match (place, source) {
                (Some(place), Some(source)) if source.is_dir => fs::create_dir(place).doing(doing)?,
                (Some(place), Some(_)) => fs::write(place, "").doing(doing)?,
                _ => {}
            }
        }
        Ok(())
    }
}

/// The pipes that were the container's standard streams, each to be replaced by ours of the same number.
fn pipes(images: &Path) -> Result<Vec<(i32, String)>> {
    let file = images.join(DESCRIPTORS);
    let json =
        fs::read(&file).doing(|| format!("--image-path: read {file:?} (are these the images of a container?)"))?;
    let names: Vec<String> = serde_json::from_slice(&json).in_file(&file)?;
    let pipes = (0..3).zip(names).filter(|(_, name)| name.starts_with("pipe:"));
    Ok(pipes.filter(|(fd, _)| process::inherited_fd(*fd).is_some()).collect())
}

/// criu's process, before it is criu: the root file system has to be a mount, with every mount point of config.json in it.
///
/// A fresh root file system, as that of a container moved to another machine, lacks what `create` made in the first one. The whole tree
/// of mounts is built once for that, so that a mount point inside another mount is made there, and then given up.
fn prepare(plan: &Plan, places: &Places, sources: Vec<Option<Source>>, devices: &[Source]) -> Result<()> {
    let criu_root = &*places.root;
    let doing = || format!("mount the root file system on {criu_root:?} for criu");
    // Mounts of the host still arrive, none of ours gets out.
    mount::set_propagation(Path::new("/"), Propagation::Slave, true).doing(doing)?;
    // What a new process has from us would stay with the container's processes.
    if let Some(name) = &plan.keyring {
        init::join_keyring(name)?;
    }
    init::forget_affinity();
    process::umask(0);
    let place = path::open_dir(criu_root).doing(doing)?;
    let tree = plan.root.open()?;
    mount::attach(tree.as_fd(), place.as_fd()).doing(doing)?;
    let root = Root::from_fd(tree);
    for ((mount_plan, source), place) in plan.mounts.iter().zip(sources).zip(&places.sources) {
        let doing = || format!("{}: make the mount point {:?}", mount_plan.property, mount_plan.destination);
        if matches!(mount_plan.kind, MountKind::Remount) {
            continue;
        }
        if let Some(link) = source.as_ref().map(|s| s.link(mount_plan)).transpose()?.flatten() {
            mount_plan.copy_link(&root, &link)?;
            continue;
        }
        let is_dir = source.as_ref().is_none_or(|s| s.is_dir);
        let target = mount_point(&root, &mount_plan.destination, is_dir).doing(doing)?;
        let mount = match source {
            Some(source) => source.tree,
            // criu fills it; here it only keeps what is made below it out of the root file system.
            None => {
                let none: [&str; 0] = [];
                mount::new_fs(OsStr::new("tmpfs"), None, &none, mount::attr_from_bits(0)).doing(doing)?
            }
        };
        mount::attach(mount.as_fd(), target.as_fd()).doing(doing)?;
        if let Some(place) = place {
            // Attached it can be cloned, and its ids stay mapped.
            let copy = mount::open_tree_clone(mount.as_fd(), Path::new(""), true).doing(doing)?;
            let place = path::open(place, OFlags::PATH).doing(doing)?;
            mount::attach(copy.as_fd(), place.as_fd()).doing(doing)?;
        }
    }
    plan.dev.apply(&root, devices)?;
    make_cwd(&root, &plan.process.cwd)?;
    drop(root);
    mount::detach(criu_root).doing(doing)?;
    let place = path::open_dir(criu_root).doing(doing)?;
    mount::attach(plan.root.open()?.as_fd(), place.as_fd()).doing(doing)?;
    process::umask(0o022);
    Ok(())
}

/// criu brings processes back into a time namespace, so that their clocks go on; `exec` has to join it.
fn time_namespace(pid: i32) -> i32 {
    let of = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/time")).ok();
    match (of("self"), of(&pid.to_string())) {
        (Some(ours), Some(its)) if ours != its => kind::TIME,
        _ => 0,
    }
}

/// What is done at criu's stages.
struct Restoring<'a, 'w> {
    order: &'a Order<'w>,
    dir: &'a StateDir,
    state: &'a mut State,
    token: &'a SingleThreaded,
    made: &'a mut Made,
    images: PathBuf,
    terminal: Option<OwnedFd>,
}

impl Stages for Restoring<'_, '_> {
    fn reached(&mut self, stage: &str, pid: i32, fd: Option<OwnedFd>) -> Result<()> {
        let plan = self.order.plan;
        match (stage, fd) {
            // It exists: written down, so that a `delete --force` ends it while it hangs. The runtime's hooks may set up its network.
            ("setup-namespaces", _) => {
                let pidfd = process::pidfd_open(pid).doing(|| "take over the container's init".into())?;
                self.made.init = Some(Child { pid, pidfd });
                self.state.init = Some(Init::of(pid)?);
                self.dir.write(self.state)?;
                self.made.hooks_ran = true;
                let document = self.state.for_hooks(Status::Creating);
                let output = plan.hooks.output.open()?;
                hooks::run(self.token, &plan.hooks.prestart, &document, &plan.bundle, &output, None)?;
                hooks::run(self.token, &plan.hooks.create_runtime, &document, &plan.bundle, &output, None)
            }
            ("post-setup-namespaces", _) if plan.namespaces.is_new(kind::NETWORK) => self.loopback_up(),
            // The mounts are there, and the processes do not run yet.
            ("post-restore", _) => self.set_options(),
            // They have their credentials, and do not run yet.
            ("pre-resume", _) => self.check_labels(),
            ("orphan-pts-master", Some(master)) => {
                self.terminal = self.order.endpoints.hand_out_terminal(master)?;
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

impl Restoring<'_, '_> {
    /// Ends processes that criu would let run under no label: at this stage it no longer heeds a refusal.
    fn check_labels(&self) -> Result<()> {
        let Some(init) = &self.made.init else { return Ok(()) };
        lsm::check_restored(&self.order.plan.process.labels, init.pid).inspect_err(|_| {
            let _ = process::send_signal(init.pidfd.as_fd(), SIGKILL);
            if let Some(cgroup) = &self.made.cgroup {
                let _ = cgroup.kill(SIGKILL);
            }
        })
    }

    /// Gives external mounts the options that criu has forgotten.
    fn set_options(&self) -> Result<()> {
        let Some(init) = &self.made.init else { return Ok(()) };
        let wrong = external::wrong_options(&self.images, init.pid)?;
        if wrong.is_empty() {
            return Ok(());
        }
        let doing = || "enter the restored mount namespace".to_string();
        let ns = path::open(Path::new(&format!("/proc/{}/ns/mnt", init.pid)), OFlags::RDONLY).doing(doing)?;
        // By a child: it gets the namespace's root, and cannot go back.
        rebirth::in_child(self.token, || {
            rrt_sys::namespace::join(self.token, ns.as_fd(), kind::MOUNT).doing(doing)?;
            for (place, attr) in &wrong {
                let doing = || format!("set the options of the mount on {place:?}");
                let fd = path::open(place, OFlags::PATH | OFlags::NOFOLLOW).doing(doing)?;
                mount::set_attr(fd.as_fd(), *attr, false).doing(doing)?;
            }
            Ok(())
        })
    }

    /// criu makes the network namespace and leaves it empty (`EMPTY_NS`), with its loopback interface down.
    fn loopback_up(&self) -> Result<()> {
        let doing = || "bring up the loopback interface".to_string();
        let Some(init) = &self.made.init else { return Ok(()) };
        let file = PathBuf::from(format!("/proc/{}/ns/net", init.pid));
        let own = own_namespace(kind::NETWORK).doing(doing)?;
        let its = path::open(&file, OFlags::RDONLY).doing(doing)?;
        rrt_sys::namespace::join(self.token, its.as_fd(), kind::NETWORK).doing(doing)?;
        let up = net::loopback_up().doing(doing);
        rrt_sys::namespace::join(self.token, own.as_fd(), kind::NETWORK).doing(doing)?;
        up
    }
}
