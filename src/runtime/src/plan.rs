//! `plan`: from config.json and what the machine is to the exact steps of a `create`. Pure: no file, no syscall, no clock.

use crate::devices::DevPlan;
use crate::error::{Result, config};
use crate::facts::{HostFacts, is_unprivileged};
use crate::handshake::Turn;
use crate::hooks::HooksPlan;
use crate::host_root;
use crate::id_maps::Writers;
use crate::intel_rdt::IntelRdtPlan;
use crate::landlock::LandlockPlan;
use crate::lsm::MountLabel;
use crate::memory_policy::MemoryPolicyPlan;
use crate::mounts::cgroup::{CgroupMounts, V1Mount, Whose};
use crate::mounts::options::{MountOptions, attr};
use crate::mounts::{MountKind, MountPlan, clean};
use crate::namespaces::{NamespacePlan, describe, kind};
use crate::net_devices::{self, NetDevicePlan};
use crate::process::{Grantable, ProcessPlan};
use crate::raw_filter;
use crate::rootfs::{Entry, RootPlan};
use crate::seccomp::SeccompPlan;
use crate::sysctl::{self, SysctlPlan};
use crate::{CgroupManager, CreateOptions};
use rrt_cgroups::{CgroupPlan, DeviceRule, HostCgroups, Version};
use rrt_oci::{Linux, LinuxPersonalityDomain, Spec};
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

/// Everything a `create` will do; what varies is here, the order is in `create.rs` and `init.rs`.
#[derive(Debug, Clone, Serialize)]
pub struct Plan {
    /// The container's name.
    pub id: String,
    /// The bundle, absolute.
    pub bundle: PathBuf,
    /// Its root file system.
    pub root: RootPlan,
    /// Its namespaces.
    pub namespaces: NamespacePlan,
    /// Who writes its id maps.
    pub id_maps: Writers,
    /// Rootless: without CAP_SYS_ADMIN the host's trees are opened by init, in its own user namespace.
    pub unprivileged: bool,
    /// Whether the runtime itself is in a user namespace.
    pub in_user_namespace: bool,
    /// Network devices that move into it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub net_devices: Vec<NetDevicePlan>,
    /// Its cgroups.
    pub cgroup: CgroupPlan,
    /// The device rules asked for, in order, as the state keeps them; the runtime's own come after them.
    #[serde(skip)]
    pub device_rules: Vec<DeviceRule>,
    /// `linux.intelRdt`
    #[serde(skip_serializing_if = "Option::is_none")]
    pub intel_rdt: Option<IntelRdtPlan>,
    /// What a mount of type cgroup shows.
    pub cgroup_mounts: CgroupMounts,
    /// Its mounts, in order.
    pub mounts: Vec<MountPlan>,
    /// `/dev`.
    pub dev: DevPlan,
    /// `linux.maskedPaths`
    pub masked_paths: Vec<PathBuf>,
    /// `linux.readonlyPaths`
    pub readonly_paths: Vec<PathBuf>,
    /// `hostname`
    pub hostname: Option<String>,
    /// `domainname`
    pub domainname: Option<String>,
    /// `linux.sysctl`
    pub sysctl: Vec<SysctlPlan>,
    /// `linux.personality`, as personality(2) takes it.
    pub personality: Option<u64>,
    /// `run.rrt.core-sched`
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub core_sched: bool,
    /// `linux.memoryPolicy`
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_policy: Option<MemoryPolicyPlan>,
    /// A session keyring of this name is made.
    pub keyring: Option<String>,
    /// The program.
    pub process: ProcessPlan,
    /// `linux.mountLabel` as a mount option, for the file systems that config.json does not name; the others have it already.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mount_label: Option<String>,
    /// fds from 3 on that the program inherits: those of socket activation, then `--preserve-fds`.
    pub inherited_fds: u32,
    /// Hooks.
    pub hooks: HooksPlan,
    /// `annotations`
    pub annotations: BTreeMap<String, String>,
    /// The questions init will ask, in order.
    pub turns: Vec<Turn>,
    /// What was left out or is unusual; logged once.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

/// Where a container finds the notify socket.
pub const NOTIFY_DIR: &str = "/run/notify";

impl Plan {
    /// Plans the container of `spec`; `bundle` is absolute, `state_dir` is where its notify socket would be.
    ///
    /// # Errors
    /// [`Error::Config`] or [`Error::Unsupported`], with the property's name.
    pub fn new(
        spec: &Spec,
        bundle: &Path,
        state_dir: &Path,
        options: &CreateOptions,
        manager: CgroupManager,
        host: &HostFacts,
    ) -> Result<Plan> {
        check_version(spec)?;
        let linux =
            spec.linux().as_ref().ok_or_else(|| config("linux", "missing; this runtime makes Linux containers"))?;
        let mut namespaces = NamespacePlan::new(linux)?;
        let process =
            spec.process().as_ref().ok_or_else(|| config("process", "missing; it names the program to run"))?;
        let grantable = Grantable::new(host.capabilities, namespaces.has(kind::USER), host.lsm);
        let planned = ProcessPlan::plan(process, "process", grantable)?;
        let (mut process, mut warnings) = (planned.process, planned.warnings);
        warnings.extend(without_effect(linux, manager));
        let annotations = spec.annotations().iter().flatten().map(|(k, v)| (k.clone(), v.clone())).collect();
        crate::annotations::check(&annotations)?;
        process.landlock = LandlockPlan::new(&annotations)?;
        warnings.extend(process.keep_groups(&annotations));
        process.require_mapped("process", &namespaces.uid_map, &namespaces.gid_map)?;
        let unprivileged = is_unprivileged(host.capabilities);
        require_user_namespace(&namespaces, unprivileged, host)?;
        crate::id_maps::require_own(linux, &namespaces, &host.own_maps)?;
        namespaces.plan_entry(unprivileged, host.in_user_namespace);
        let id_maps = Writers::new(&namespaces, host);
        id_maps.check_groups(&process)?;
        process.seccomp = match (raw_filter::plan(&annotations)?, linux.seccomp()) {
            (None, Some(profile)) => Some(SeccompPlan::new(profile, &annotations, &mut warnings)?),
            (raw, _) => raw,
        };
        if let Some(filter) = &mut process.seccomp {
            // The init of a new pid namespace, which nobody else sees, is open to its user.
            filter.courier = unprivileged && !namespaces.is_new(kind::PID);
        }

        let entry = match namespaces.has(kind::MOUNT) {
            true if options.no_pivot => Entry::Move,
            true => Entry::PivotRoot,
            false => {
                host_root::check(linux, &namespaces)?;
                warnings.push(host_root::WARNING.into());
                Entry::Chroot
            }
        };
        let root = RootPlan::new(spec.root().as_ref(), linux.rootfs_propagation().as_deref(), bundle, entry)?;
        let mut mounts = Vec::new();
        for (i, mount) in spec.mounts().iter().flatten().enumerate() {
            let mut mount = MountPlan::new(mount, i, bundle, &namespaces)?;
            mount.place_below(&root.path);
            mount.refuse_proc()?;
            mount.suit_user_namespace(&namespaces, &host.own_maps, &mut warnings)?;
            mount.require_rights(unprivileged)?;
            mounts.push(mount);
        }
        let mount_label = MountLabel::plan(linux, spec.annotations().as_ref(), host.lsm)?;
        if let Some(label) = &mount_label {
            label.apply_to(&mut mounts);
        }
        let inherited_fds = pass_sockets(&mut process, &mut mounts, options, host, state_dir)?;

        let bind_devices = namespaces.has(kind::USER) || !host.makes_devices();
        let dev = DevPlan::new(linux, &mounts, bind_devices, host.kcore)?;
        let (cgroup, device_rules) = plan_cgroup(spec, linux, &options.id, manager, host)?;
        let mut cgroup_mounts = cgroup_mounts(&host.cgroups, &cgroup, namespaces.has(kind::CGROUP), host.rootless);
        cgroup_mounts.on_host = !namespaces.has(kind::MOUNT);
        cgroup_mounts.label = mount_label.as_ref().map(MountLabel::option);
        let hostname = named(spec.hostname(), &namespaces, "hostname")?;
        let domainname = named(spec.domainname(), &namespaces, "domainname")?;
        let sysctl = sysctl::plan(linux.sysctl().as_ref(), &namespaces, hostname.is_some())?;
        let hooks = HooksPlan::new(spec.hooks().as_ref(), &annotations)?;
        let net_devices = net_devices::plan(linux, &namespaces)?;
        let turns = turns(&cgroup, &namespaces, unprivileged, &net_devices, &mounts, &hooks, &process);
        Ok(Plan {
            id: options.id.clone(),
            bundle: bundle.into(),
            masked_paths: distinct(linux.masked_paths()),
            readonly_paths: distinct(linux.readonly_paths()),
            personality: linux.personality().as_ref().map(|p| match p.domain() {
                LinuxPersonalityDomain::PerLinux => 0,
                LinuxPersonalityDomain::PerLinux32 => 8,
            }),
            intel_rdt: linux.intel_rdt().as_ref().map(|rdt| IntelRdtPlan::new(rdt, &options.id)).transpose()?,
            memory_policy: linux.memory_policy().as_ref().map(MemoryPolicyPlan::new).transpose()?,
            keyring: (!options.no_new_keyring).then(|| format!("_ses.{}", options.id)),
            core_sched: crate::core_sched::plan(&annotations)?,
            annotations,
            root,
            namespaces,
            id_maps,
            unprivileged,
            in_user_namespace: host.in_user_namespace,
            net_devices,
            cgroup,
            device_rules,
            cgroup_mounts,
            mounts,
            dev,
            hostname,
            domainname,
            sysctl,
            process,
            inherited_fds,
            mount_label: mount_label.map(|l| l.option()),
            hooks,
            turns,
            warnings,
        })
    }

    /// Whether the child is in a user namespace that the runtime is not in.
    pub fn user_namespace(&self) -> bool {
        self.namespaces.has(kind::USER)
    }
}

/// Paths of the container, clean, each once: a second mount over the same place only costs time.
fn distinct(list: &Option<Vec<String>>) -> Vec<PathBuf> {
    let mut paths: Vec<PathBuf> = Vec::new();
    for path in list.iter().flatten().map(|p| clean(Path::new(p))) {
        // As bytes: both are clean, and Path's own comparison goes by components.
        if !paths.iter().any(|other| other.as_os_str() == path.as_os_str()) {
            paths.push(path);
        }
    }
    paths
}

/// Without CAP_SYS_ADMIN every other namespace can be made only together with a user namespace.
fn require_user_namespace(ns: &NamespacePlan, unprivileged: bool, host: &HostFacts) -> Result<()> {
    if !unprivileged || ns.has(kind::USER) {
        return Ok(());
    }
    // Root without it is in a container.
    let or = if host.euid == 0 { "start the container that it runs in with CAP_SYS_ADMIN" } else { "run it as root" };
    let problem = format!(
        "no user namespace, and the runtime has no CAP_SYS_ADMIN (uid {}): add {{\"type\": \"user\"}} with linux.uidMappings and \
         linux.gidMappings, as `rrt spec --rootless` writes it, or {or}",
        host.euid
    );
    Err(config("linux.namespaces", problem))
}

fn check_version(spec: &Spec) -> Result<()> {
    match spec.version().split('.').next() {
        Some("1") | Some("") | None => Ok(()),
        _ => Err(config("ociVersion", format!("{:?} is not supported; this runtime implements 1.x", spec.version()))),
    }
}

/// What is given and cannot do anything.
fn without_effect(linux: &Linux, manager: CgroupManager) -> Vec<String> {
    let mut warnings = Vec::new();
    if manager == CgroupManager::Disabled && linux.resources().is_some() {
        warnings.push("linux.resources: has no effect with --cgroup-manager=disabled".into());
    }
    let flags = linux.personality().as_ref().and_then(|p| p.flags().as_ref());
    if flags.is_some_and(|f| !f.is_empty()) {
        warnings.push("linux.personality.flags: the specification defines none; they are ignored".into());
    }
    warnings
}

fn named(name: &Option<String>, ns: &NamespacePlan, property: &str) -> Result<Option<String>> {
    let Some(name) = name.as_ref().filter(|n| !n.is_empty()) else { return Ok(None) };
    ns.require(kind::UTS, property)?;
    // uts_namespaces(7): 64 bytes.
    if name.len() > 64 {
        return Err(config(property, format!("{} bytes long; the kernel takes 64", name.len())));
    }
    Ok(Some(name.clone()))
}

/// Socket activation and the notify socket: variables, fds and one mount more. Returns how many fds are kept.
fn pass_sockets(
    process: &mut ProcessPlan,
    mounts: &mut Vec<MountPlan>,
    options: &CreateOptions,
    host: &HostFacts,
    state_dir: &Path,
) -> Result<u32> {
    let mut kept = options.preserve_fds;
    if let Some((count, names)) = &host.listen_fds {
        kept = kept.saturating_add(*count);
        process.env.retain(|e| !e.starts_with("LISTEN_"));
        process.env.push(format!("LISTEN_FDS={count}"));
        // The program is process 1 of its pid namespace.
        process.env.push("LISTEN_PID=1".into());
        process.env.extend(names.as_ref().map(|n| format!("LISTEN_FDNAMES={n}")));
    }
    if host.notify_socket.is_some() {
        process.env.retain(|e| !e.starts_with("NOTIFY_SOCKET="));
        process.env.push(format!("NOTIFY_SOCKET={NOTIFY_DIR}/notify.sock"));
        let source = state_dir.join("notify");
        mounts.push(MountPlan {
            property: "NOTIFY_SOCKET".into(),
            destination: NOTIFY_DIR.into(),
            kind: MountKind::Bind { source, recursive: false },
            // A directory of the host's: the container sends to its socket and makes nothing in it.
            options: MountOptions {
                set: attr::RDONLY | attr::NOSUID | attr::NODEV | attr::NOEXEC,
                ..MountOptions::default()
            },
            idmap: None,
            in_root: None,
        });
    }
    Ok(kept)
}

/// What every container may use besides its own rules, as in runc: making nodes, and the default devices, ptys and the console.
fn default_device_rules() -> Vec<DeviceRule> {
    use rrt_cgroups::{Access, DeviceKind};
    let mknod = |kind| DeviceRule::allow(kind, None, None, Access::MKNOD);
    let char = |major, minor| DeviceRule::allow(DeviceKind::Char, Some(major), minor, Access::ALL);
    let mut rules = vec![mknod(DeviceKind::Char), mknod(DeviceKind::Block)];
    rules.extend([3, 5, 7, 8, 9].map(|minor| char(1, Some(minor))));
    rules.extend([char(5, Some(0)), char(5, Some(1)), char(5, Some(2)), char(136, None)]);
    rules
}

/// The rules in force where those of config.json, and later ones, are `rules`: whatever they say, every container has the defaults.
pub fn with_default_devices(rules: &[DeviceRule]) -> Vec<DeviceRule> {
    rules.iter().copied().chain(default_device_rules()).collect()
}

/// The cgroup, and the device rules asked for.
fn plan_cgroup(
    spec: &Spec,
    linux: &Linux,
    id: &str,
    manager: CgroupManager,
    host: &HostFacts,
) -> Result<(CgroupPlan, Vec<DeviceRule>)> {
    let resources = linux.resources().as_ref();
    let mut rules = Vec::new();
    for (i, rule) in resources.and_then(|r| r.devices().as_ref()).into_iter().flatten().enumerate() {
        rules.push(DeviceRule::from_spec(i, rule)?);
    }
    let in_force = with_default_devices(&rules);
    let path = linux.cgroups_path().as_deref();
    let manager = match manager {
        CgroupManager::Cgroupfs => rrt_cgroups::Manager::Cgroupfs,
        CgroupManager::Disabled => rrt_cgroups::Manager::Disabled,
        CgroupManager::Systemd => {
            let facts = host.systemd.as_ref().ok_or(rrt_cgroups::Error::NoSystemd)?;
            let annotations = spec.annotations().iter().flatten().map(|(k, v)| (k.clone(), v.clone())).collect();
            let host = &host.cgroups;
            let plan = rrt_cgroups::plan_unit(host, facts, path, id, resources, &in_force, &annotations)?;
            return Ok((plan, rules));
        }
    };
    if host.cgroups.hierarchies.is_empty() && manager != rrt_cgroups::Manager::Disabled && !host.rootless {
        return Err(rrt_cgroups::Error::NotMounted.into());
    }
    let plan = rrt_cgroups::plan(&host.cgroups, manager, path, id, resources, &in_force)?;
    let named = path.is_some_and(|p| !p.as_os_str().is_empty());
    Ok((if host.rootless { plan.rootless(named) } else { plan }, rules))
}

fn cgroup_mounts(host: &HostCgroups, plan: &CgroupPlan, namespace: bool, rootless: bool) -> CgroupMounts {
    let paths = plan.paths();
    let whose = match (paths.is_empty(), rootless) {
        (true, _) => Whose::Runtime,
        (false, true) => Whose::OwnIfMade,
        (false, false) => Whose::Own,
    };
    let mut mounts = CgroupMounts { namespace, whose, ..CgroupMounts::default() };
    for hierarchy in &host.hierarchies {
        let controller = hierarchy.controllers.first().cloned().unwrap_or_default();
        // Without cgroups of its own the container is in the runtime's.
        let own = || hierarchy.mount.join(hierarchy.own.strip_prefix("/").unwrap_or(&hierarchy.own));
        if hierarchy.version == Version::V2 {
            if host.hierarchies.len() == 1 {
                mounts.unified = Some(paths.get("").cloned().unwrap_or_else(own));
            }
            continue;
        }
        let name = hierarchy.mount.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let options = match controller.starts_with("name=") {
            true => vec!["none".into(), controller.clone()],
            false => hierarchy.controllers.clone(),
        };
        let directory = paths.get(&controller).cloned().unwrap_or_else(own);
        mounts.v1.push(V1Mount { name, options, directory });
    }
    mounts
}

/// The questions of the handshake, in the order init.rs comes to them.
fn turns(
    cgroup: &CgroupPlan,
    ns: &NamespacePlan,
    unprivileged: bool,
    devices: &[NetDevicePlan],
    mounts: &[MountPlan],
    hooks: &HooksPlan,
    process: &ProcessPlan,
) -> Vec<Turn> {
    let mut turns = Vec::new();
    if cgroup.unit.is_some() {
        turns.push(Turn::Cgroup);
    }
    if ns.second_clone {
        turns.push(Turn::Born);
    }
    if ns.is_new(kind::USER) {
        turns.push(Turn::MapIds);
    }
    if cgroup.unit.is_none() && cgroup.has_v1() {
        turns.push(Turn::JoinCgroups);
    }
    if !ns.time_offsets.is_empty() && !unprivileged {
        turns.push(Turn::TimeOffsets);
    }
    if !devices.is_empty() {
        turns.push(Turn::NetDevices);
    }
    if !ns.has(kind::MOUNT) {
        turns.push(Turn::HostMounts);
    }
    turns.extend(mounts.iter().filter(|m| m.idmap.is_some() && m.in_root.is_some()).map(|_| Turn::MountIds));
    if hooks.before_pivot() {
        turns.push(Turn::Hooks);
    }
    turns.extend(process.turns(ns.has(kind::USER)));
    turns
}

impl ProcessPlan {
    /// The questions of a process about to be executed, in a container's init or by `exec`.
    pub fn turns(&self, user_namespace: bool) -> Vec<Turn> {
        let mut turns = Vec::new();
        if self.terminal {
            turns.push(Turn::Console);
        }
        // Raising a limit needs CAP_SYS_RESOURCE in the first user namespace, which only the parent can have.
        if user_namespace && !self.rlimits.is_empty() {
            turns.push(Turn::Limits);
        }
        turns.push(Turn::Ready);
        turns
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.fmt_parent(f)?;
        self.fmt_mounts(f)?;
        self.fmt_rest(f)
    }
}

impl Plan {
    fn fmt_parent(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "container {:?} of bundle {}", self.id, self.bundle.display())?;
        writeln!(f, "\nthe parent, in the host's namespaces:")?;
        self.fmt_cgroup(f)?;
        let ns = &self.namespaces;
        writeln!(f, "  clone3 with new namespaces: {}", describe(ns.cloned))?;
        writeln!(f, "\nthe child (init):")?;
        self.fmt_namespaces(f)
    }

    fn fmt_cgroup(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(unit) = &self.cgroup.unit {
            let whose = if unit.user { "the user's" } else { "the system's" };
            writeln!(f, "  have systemd ({whose}) make {} around init, which waits:", unit.name)?;
            for property in &unit.properties {
                writeln!(f, "         {property}")?;
            }
        }
        let left_out = if self.cgroup.may_be_left_out() { "   (left out where the user may not)" } else { "" };
        for dir in self.cgroup.dirs() {
            writeln!(f, "  mkdir  {}{left_out}", dir.display())?;
        }
        for w in self.cgroup.writes() {
            let skipped = if w.default { "  (the kernel's default: not written)" } else { "" };
            writeln!(f, "  write  {} = {}   {}{skipped}", w.file.display(), w.value, w.property)?;
        }
        if let Some(n) = self.cgroup.device_program_len() {
            writeln!(f, "  attach a device filter of {n} BPF instructions")?;
        }
        if let Some(rdt) = &self.intel_rdt {
            writeln!(f, "  {rdt}")?;
        }
        Ok(())
    }

    fn fmt_namespaces(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ns = &self.namespaces;
        for j in &ns.joined {
            writeln!(f, "  setns  {} {}", describe(j.kind), j.path.display())?;
        }
        for (name, map, writer) in
            [("uid_map", &ns.uid_map, self.id_maps.uid), ("gid_map", &ns.gid_map, self.id_maps.gid)]
        {
            for line in map.lines() {
                writeln!(f, "  {name}  {line}{}", writer.note(name))?;
            }
        }
        if ns.unshared_first != 0 {
            writeln!(f, "  unshare {}", describe(ns.unshared_first))?;
        }
        if self.turns.contains(&Turn::JoinCgroups) {
            writeln!(f, "  join the v1 cgroups, which the parent has made meanwhile")?;
        }
        if ns.unshared != 0 {
            writeln!(f, "  unshare {} (after joining the cgroups)", describe(ns.unshared))?;
        }
        for device in &self.net_devices {
            writeln!(f, "  {device}")?;
        }
        for line in self.namespaces.time_offsets.lines() {
            writeln!(f, "  clock offset  {line}")?;
        }
        match &self.keyring {
            Some(name) => match &self.process.labels.selinux {
                Some(label) => writeln!(f, "  new session keyring {name}, label {label}"),
                None => writeln!(f, "  new session keyring {name}"),
            },
            None => Ok(()),
        }
    }

    fn fmt_mounts(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "  root   {}", self.root.path.display())?;
        for m in &self.mounts {
            let what = match &m.kind {
                MountKind::Bind { source, recursive } => {
                    format!("{} {}", if *recursive { "rbind" } else { "bind" }, source.display())
                }
                MountKind::FileSystem { fstype, source } => {
                    format!("{fstype} {}", source.as_deref().unwrap_or(fstype))
                }
                MountKind::Cgroup => "cgroup".into(),
                MountKind::Remount => "remount".into(),
            };
            let idmap = m.idmap.as_ref().map(ToString::to_string).unwrap_or_default();
            writeln!(f, "  mount  {} <- {what}  {}{idmap}", m.destination.display(), m.options)?;
        }
        let how = if self.dev.bind { "bind" } else { "mknod" };
        for n in &self.dev.nodes {
            let number = format!("{} {}:{}", n.kind, n.major, n.minor);
            writeln!(f, "  {how}  {} {number} mode {:o} owner {}:{}", n.path.display(), n.mode, n.uid, n.gid)?;
        }
        for (name, target) in &self.dev.links {
            writeln!(f, "  link   {} -> {}", name.display(), target.display())?;
        }
        Ok(())
    }

    fn fmt_rest(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for h in self.hooks.prestart.iter().chain(&self.hooks.create_runtime) {
            writeln!(f, "  the parent runs {} {}", h.property, h.path.display())?;
        }
        for h in &self.hooks.create_container {
            writeln!(f, "  run    {} {}", h.property, h.path.display())?;
        }
        writeln!(f, "  {}", self.root)?;
        if self.process.terminal {
            writeln!(f, "  a pty on /dev/console, size {:?}", self.process.console_size)?;
        }
        for (what, value) in [("hostname", &self.hostname), ("domainname", &self.domainname)] {
            if let Some(value) = value {
                writeln!(f, "  {what} {value}")?;
            }
        }
        for s in &self.sysctl {
            writeln!(f, "  sysctl {} = {}", s.name, s.value)?;
        }
        for p in &self.readonly_paths {
            writeln!(f, "  read-only {}", p.display())?;
        }
        for p in &self.masked_paths {
            writeln!(f, "  mask   {}", p.display())?;
        }
        if self.root.readonly {
            writeln!(f, "  read-only /")?;
        }
        match &self.process.seccomp {
            Some(filter) => writeln!(f, "  seccomp, loaded last: {filter}")?,
            None => writeln!(f, "  seccomp: none")?,
        }
        if let Some(persona) = self.personality {
            writeln!(f, "  personality {persona:#x}")?;
        }
        if let Some(policy) = &self.memory_policy {
            writeln!(f, "  memory policy {policy}")?;
        }
        let p = &self.process;
        self.fmt_scheduling(f)?;
        if let Some(rules) = &p.landlock {
            write!(f, "{rules}")?;
        }
        for l in &p.rlimits {
            writeln!(f, "  {} soft {} hard {}", crate::process::rlimit_name(l.resource), l.soft, l.hard)?;
        }
        writeln!(f, "  user {}:{} groups {:?} no_new_privs {}", p.uid, p.gid, p.groups, p.no_new_privileges)?;
        write!(f, "{}", p.labels)?;
        let c = &p.capabilities;
        writeln!(
            f,
            "  capabilities bounding {:#x} effective {:#x} permitted {:#x} inheritable {:#x} ambient {:#x}",
            c.bounding, c.effective, c.permitted, c.inheritable, c.ambient
        )?;
        writeln!(f, "  umask  {:03o}", p.umask.unwrap_or(crate::program::UMASK))?;
        writeln!(f, "  chdir  {}", p.cwd.display())?;
        if self.inherited_fds > 0 {
            writeln!(f, "  keep fds 3 to {}", 2 + self.inherited_fds)?;
        }
        writeln!(f, "\nhandshake: {:?}, then the start gate", self.turns)?;
        for h in &self.hooks.start_container {
            writeln!(f, "run {} {}", h.property, h.path.display())?;
        }
        writeln!(f, "execve {:?}", p.args)?;
        for h in self.hooks.poststart.iter().chain(&self.hooks.poststop) {
            writeln!(f, "later, on the host: {} {}", h.property, h.path.display())?;
        }
        Ok(())
    }

    fn fmt_scheduling(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let p = &self.process;
        if self.core_sched {
            writeln!(f, "  new core scheduling cookie")?;
        }
        if let Some(score) = p.oom_score_adj {
            writeln!(f, "  oom_score_adj {score}")?;
        }
        if let Some(attr) = p.scheduler {
            writeln!(f, "  {attr:?}")?;
        }
        if let Some((class, level)) = p.io_priority {
            writeln!(f, "  I/O priority class {class} level {level}")?;
        }
        Ok(())
    }
}
