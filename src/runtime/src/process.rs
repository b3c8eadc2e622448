//! The program a container runs: `process` of config.json, or the document of `exec --process`.

use crate::error::{Error, Result, config};
use crate::landlock::LandlockPlan;
use crate::lsm::{Labels, Modules};
use crate::namespaces::require_mapped;
use crate::seccomp::SeccompPlan;
use rrt_oci::{Capabilities, IOPriorityClass, LinuxSchedulerFlag, LinuxSchedulerPolicy, PosixRlimitType, Process};
use rrt_sys::creds::CapBits;
use rrt_sys::limits::{Rlimit, SchedAttr};
use rrt_sys::{SysError, errno};
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// crun's annotation to leave the process the supplementary groups of whoever called the runtime; any value but `0` asks for it. podman's
/// `--group-add keep-groups` sets it, so that a user's groups open the files of a volume that no id of the container could.
pub const KEEP_GROUPS: &str = "run.oci.keep_original_groups";

/// A process with every default settled, as it will be executed.
#[derive(Debug, Clone, Serialize)]
pub struct ProcessPlan {
    /// The program and its arguments.
    pub args: Vec<String>,
    /// The environment, `NAME=value`, each name once (the last one given wins, as in runc).
    pub env: Vec<String>,
    /// The working directory; made when it is missing.
    pub cwd: PathBuf,
    /// The user.
    pub uid: u32,
    /// Its group.
    pub gid: u32,
    /// Supplementary groups.
    pub groups: Vec<u32>,
    /// The caller's supplementary groups instead ([`KEEP_GROUPS`]).
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub keep_groups: bool,
    /// `umask`, if given.
    pub umask: Option<u32>,
    /// The capability sets. `capabilities` missing means all empty, as in runc and crun.
    pub capabilities: CapabilitySets,
    /// Resource limits.
    #[serde(serialize_with = "rlimits_text")]
    pub rlimits: Vec<Rlimit>,
    /// `noNewPrivileges`
    pub no_new_privileges: bool,
    /// `oomScoreAdj`
    pub oom_score_adj: Option<i32>,
    /// `scheduler`
    #[serde(serialize_with = "scheduler_text")]
    pub scheduler: Option<SchedAttr>,
    /// `ioPriority`: class and level.
    pub io_priority: Option<(u8, u8)>,
    /// `execCPUAffinity`: the CPUs of the runtime before `exec` enters the container's cgroup, and of the process after it;
    /// empty: not set. The init of a container takes no notice of it.
    pub exec_affinity: (Vec<usize>, Vec<usize>),
    /// `run.rrt.landlock` of the container's annotations.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub landlock: Option<LandlockPlan>,
    /// `apparmorProfile` and `selinuxLabel`
    pub labels: Labels,
    /// `linux.seccomp`, of the container.
    pub seccomp: Option<SeccompPlan>,
    /// `terminal`
    pub terminal: bool,
    /// `consoleSize`: rows and columns.
    pub console_size: Option<(u16, u16)>,
}

/// Capability sets as bits.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct CapabilitySets {
    /// What can ever be had.
    pub bounding: CapBits,
    /// What is in force.
    pub effective: CapBits,
    /// What a file's inheritable set may keep. Empty unless given (CVE-2022-29162).
    pub inheritable: CapBits,
    /// What may be put in force.
    pub permitted: CapBits,
    /// What survives execve without file capabilities.
    pub ambient: CapBits,
}

/// What the machine may give, for values that have to be cut down with a warning.
#[derive(Debug, Clone, Copy)]
pub struct Grantable {
    /// Nothing outside this set can be given.
    pub capabilities: CapBits,
    /// The security modules, read if the process asks for a label.
    pub lsm: Modules,
}

impl Grantable {
    /// To a process of the runtime's own user namespace: what the runtime has (`own`). Whoever enters another user namespace has
    /// them all in there (user_namespaces(7), "Capabilities").
    pub fn new(own: CapBits, user_namespace: bool, lsm: Modules) -> Grantable {
        Grantable { capabilities: if user_namespace { CapBits::MAX } else { own }, lsm }
    }
}

/// The plan, and the warnings that go with it.
pub struct Planned {
    /// The process.
    pub process: ProcessPlan,
    /// What was left out (spec 1.3.0: a capability that cannot be granted is a warning).
    pub warnings: Vec<String>,
}

impl ProcessPlan {
    /// Settles `process`; `at` is its name in errors, `process` or the file's name.
    pub fn plan(process: &Process, at: &str, host: Grantable) -> Result<Planned> {
        let args = process.args().clone().unwrap_or_default();
        if args.is_empty() {
            return Err(config(format!("{at}.args"), "must name the program to run"));
        }
        if args[0].is_empty() {
            return Err(config(format!("{at}.args[0]"), "is empty; it must name the program to run"));
        }
        if let Some(i) = args.iter().position(|a| a.contains('\0')) {
            return Err(config(format!("{at}.args[{i}]"), "contains a NUL byte"));
        }
        if !process.cwd().is_absolute() {
            return Err(config(format!("{at}.cwd"), format!("{:?} is not an absolute path", process.cwd())));
        }
        let mut warnings = Vec::new();
        let user = process.user();
        let plan = ProcessPlan {
            args,
            env: environment(process.env().as_deref().unwrap_or_default(), at)?,
            cwd: process.cwd().clone(),
            uid: user.uid(),
            gid: user.gid(),
            groups: user.additional_gids().clone().unwrap_or_default(),
            keep_groups: false,
            umask: user.umask(),
            capabilities: capabilities(process, at, host.capabilities, &mut warnings)?,
            rlimits: rlimits(process, at)?,
            no_new_privileges: process.no_new_privileges().unwrap_or(false),
            oom_score_adj: oom_score_adj(process, at)?,
            scheduler: scheduler(process, at)?,
            io_priority: io_priority(process, at)?,
            exec_affinity: exec_affinity(process, at)?,
            // No property of `process`: the caller has the annotations.
            landlock: None,
            labels: Labels::plan(process, at, host.lsm)?,
            seccomp: None,
            terminal: process.terminal().unwrap_or(false),
            console_size: console_size(process, at)?,
        };
        Ok(Planned { process: plan, warnings })
    }

    /// Leaves the process its caller's groups, if the container's annotations say so. Returns a warning when `process` lists others: the
    /// kernel has only the whole list to set, and only whoever may set it could.
    pub fn keep_groups(&mut self, annotations: &BTreeMap<String, String>) -> Option<String> {
        self.keep_groups = annotations.get(KEEP_GROUPS).is_some_and(|value| value != "0");
        let listed = if self.keep_groups { std::mem::take(&mut self.groups) } else { Vec::new() };
        (!listed.is_empty()).then(|| {
            let property = crate::annotations::property(KEEP_GROUPS);
            format!("process.user.additionalGids: {listed:?} are left out: {property} keeps the caller's groups")
        })
    }

    /// Why the kernel refused `scheduler` (sched_setattr(2)); the words are runc's.
    pub fn scheduler_refused(&self, source: SysError) -> Error {
        let hint = match source.errno() {
            errno::EPERM => {
                " (it needs CAP_SYS_NICE; a real-time policy needs linux.resources.cpu.realtimeRuntime on cgroup v1; and a \
                 deadline process scheduler can't be used together with AllowedCPUs, linux.resources.cpu.cpus)"
            }
            _ => "",
        };
        Error::System { doing: format!("process.scheduler{hint}"), source }
    }

    /// Fits what depends on the kernel's version to this kernel; what had to be left out is logged.
    pub fn fit_to_kernel(&mut self) -> Result<()> {
        match &mut self.landlock {
            Some(rules) => rules.fit().map(|lost| lost.iter().for_each(crate::log::warn)),
            None => Ok(()),
        }
    }

    /// Checks that all ids are mapped in a new user namespace (empty maps: there is none).
    pub fn require_mapped(&self, at: &str, uid_map: &str, gid_map: &str) -> Result<()> {
        require_mapped(uid_map, self.uid, &format!("{at}.user.uid"), "linux.uidMappings")?;
        require_mapped(gid_map, self.gid, &format!("{at}.user.gid"), "linux.gidMappings")?;
        for (i, gid) in self.groups.iter().enumerate() {
            require_mapped(gid_map, *gid, &format!("{at}.user.additionalGids[{i}]"), "linux.gidMappings")?;
        }
        Ok(())
    }

    /// The value of `PATH`; empty when it is not given: then only a program with a `/` in its name is found, as in runc.
    pub fn path(&self) -> &str {
        self.env.iter().find_map(|e| e.strip_prefix("PATH=")).unwrap_or("")
    }
}

fn environment(env: &[String], at: &str) -> Result<Vec<String>> {
    let mut kept: Vec<String> = Vec::with_capacity(env.len());
    let mut place = std::collections::HashMap::with_capacity(env.len());
    for (i, entry) in env.iter().enumerate() {
        let property = || format!("{at}.env[{i}]");
        let Some((name, _)) = entry.split_once('=').filter(|(name, _)| !name.is_empty()) else {
            return Err(config(property(), format!("{entry:?} is not NAME=value")));
        };
        if entry.contains('\0') {
            return Err(config(property(), "contains a NUL byte"));
        }
        match place.insert(name, kept.len()) {
            Some(old) => {
                place.insert(name, old);
                kept[old] = entry.clone();
            }
            None => kept.push(entry.clone()),
        }
    }
    Ok(kept)
}

fn bits(set: &Option<Capabilities>, at: &str) -> Result<CapBits> {
    let mut bits = 0;
    for cap in set.iter().flatten() {
        let name = cap.to_string();
        let Some(n) = rrt_sys::creds::capability(&name) else {
            return Err(config(at, format!("{name:?} is not a capability")));
        };
        bits |= 1 << n;
    }
    Ok(bits)
}

fn capabilities(process: &Process, at: &str, grantable: CapBits, warnings: &mut Vec<String>) -> Result<CapabilitySets> {
    let Some(caps) = process.capabilities() else { return Ok(CapabilitySets::default()) };
    let at = format!("{at}.capabilities");
    let mut all = 0;
    let mut granted = |set: &Option<Capabilities>, name: &str| {
        let wanted = bits(set, &format!("{at}.{name}"))?;
        all |= wanted;
        Ok::<_, Error>(wanted & grantable)
    };
    let sets = CapabilitySets {
        bounding: granted(caps.bounding(), "bounding")?,
        effective: granted(caps.effective(), "effective")?,
        inheritable: granted(caps.inheritable(), "inheritable")?,
        permitted: granted(caps.permitted(), "permitted")?,
        ambient: granted(caps.ambient(), "ambient")?,
    };
    if all & !grantable != 0 {
        let lost = names_of(all & !grantable);
        warnings.push(format!("{at}: {lost} cannot be granted by this runtime and are left out"));
    }
    let outside = sets.effective & !sets.permitted;
    if outside != 0 {
        return Err(config(format!("{at}.effective"), "has a capability that is not in permitted; add it there"));
    }
    // The kernel raises in the ambient set only what is permitted and inheritable (capabilities(7)).
    let ambient = sets.ambient & sets.permitted & sets.inheritable;
    if ambient != sets.ambient {
        let lost = names_of(sets.ambient & !ambient);
        let reason = "not also permitted and inheritable; left out";
        warnings.push(format!("{at}.ambient: can't raise ambient capability {lost}: {reason}"));
    }
    Ok(CapabilitySets { ambient, ..sets })
}

/// `CAP_CHOWN, CAP_KILL`
fn names_of(capabilities: CapBits) -> String {
    let names = rrt_sys::creds::capability_names();
    let in_it = (0..names.len()).filter(|n| capabilities & (1 << n) != 0);
    in_it.map(|n| names[n].as_str()).collect::<Vec<_>>().join(", ")
}

fn rlimits(process: &Process, at: &str) -> Result<Vec<Rlimit>> {
    let mut limits: Vec<Rlimit> = Vec::new();
    for (i, l) in process.rlimits().iter().flatten().enumerate() {
        let property = format!("{at}.rlimits[{i}]");
        let limit = Rlimit { resource: rlimit_number(l.typ()), soft: l.soft(), hard: l.hard() };
        if limits.iter().any(|old| old.resource == limit.resource) {
            return Err(config(property, format!("a second limit of type {}; remove one", l.typ())));
        }
        if limit.soft > limit.hard {
            let text = format!("{}: soft {} is above hard {}", l.typ(), limit.soft, limit.hard);
            return Err(config(property, text));
        }
        limits.push(limit);
    }
    Ok(limits)
}

/// `RLIMIT_*` numbers: generic ones, which all architectures but mips, sparc and alpha use.
fn rlimit_number(typ: PosixRlimitType) -> i32 {
    use PosixRlimitType::*;
    match typ {
        RlimitCpu => 0,
        RlimitFsize => 1,
        RlimitData => 2,
        RlimitStack => 3,
        RlimitCore => 4,
        RlimitRss => 5,
        RlimitNproc => 6,
        RlimitNofile => 7,
        RlimitMemlock => 8,
        RlimitAs => 9,
        RlimitLocks => 10,
        RlimitSigpending => 11,
        RlimitMsgqueue => 12,
        RlimitNice => 13,
        RlimitRtprio => 14,
        RlimitRttime => 15,
    }
}

/// The config.json name of a limit, for errors.
pub fn rlimit_name(resource: i32) -> &'static str {
    const NAMES: [&str; 16] = [
        "RLIMIT_CPU",
        "RLIMIT_FSIZE",
        "RLIMIT_DATA",
        "RLIMIT_STACK",
        "RLIMIT_CORE",
        "RLIMIT_RSS",
        "RLIMIT_NPROC",
        "RLIMIT_NOFILE",
        "RLIMIT_MEMLOCK",
        "RLIMIT_AS",
        "RLIMIT_LOCKS",
        "RLIMIT_SIGPENDING",
        "RLIMIT_MSGQUEUE",
        "RLIMIT_NICE",
        "RLIMIT_RTPRIO",
        "RLIMIT_RTTIME",
    ];
    NAMES.get(resource as usize).copied().unwrap_or("RLIMIT_?")
}

fn oom_score_adj(process: &Process, at: &str) -> Result<Option<i32>> {
    match process.oom_score_adj() {
        Some(n) if !(-1000..=1000).contains(&n) => {
            Err(config(format!("{at}.oomScoreAdj"), format!("{n} is outside -1000 to 1000")))
        }
        n => Ok(n),
    }
}

fn scheduler(process: &Process, at: &str) -> Result<Option<SchedAttr>> {
    let Some(s) = process.scheduler() else { return Ok(None) };
    use LinuxSchedulerPolicy::*;
    let policy = match s.policy() {
        SchedOther => 0,
        SchedFifo => 1,
        SchedRr => 2,
        SchedBatch => 3,
        SchedIso => 4,
        SchedIdle => 5,
        SchedDeadline => 6,
    };
    let flags = s.flags().iter().flatten().fold(0, |bits, flag| {
        bits | match flag {
            LinuxSchedulerFlag::SchedResetOnFork => 0x01,
            LinuxSchedulerFlag::SchedFlagReclaim => 0x02,
            LinuxSchedulerFlag::SchedFlagDLOverrun => 0x04,
            LinuxSchedulerFlag::SchedFlagKeepPolicy => 0x08,
            LinuxSchedulerFlag::SchedFlagKeepParams => 0x10,
            LinuxSchedulerFlag::SchedFlagUtilClampMin => 0x20,
            LinuxSchedulerFlag::SchedFlagUtilClampMax => 0x40,
        }
    });
    let at = format!("{at}.scheduler");
    let (nice, priority) = (s.nice().unwrap_or(0), s.priority().unwrap_or(0));
    if !(-20..=19).contains(&nice) {
        return Err(config(format!("{at}.nice"), format!("{nice} is outside -20 to 19")));
    }
    if priority != 0 && !matches!(s.policy(), SchedFifo | SchedRr) {
        return Err(config(format!("{at}.priority"), "only SCHED_FIFO and SCHED_RR have a priority; remove it"));
    }
    let deadline = [*s.runtime(), *s.deadline(), *s.period()].into_iter().flatten().any(|n| n != 0);
    if deadline && !matches!(s.policy(), SchedDeadline) {
        return Err(config(at, "runtime, deadline and period are for SCHED_DEADLINE only; remove them"));
    }
    Ok(Some(SchedAttr {
        size: 0,
        policy,
        flags,
        nice,
        priority: u32::try_from(priority).map_err(|_| config(format!("{at}.priority"), "is negative"))?,
        runtime: s.runtime().unwrap_or(0),
        deadline: s.deadline().unwrap_or(0),
        period: s.period().unwrap_or(0),
    }))
}

fn io_priority(process: &Process, at: &str) -> Result<Option<(u8, u8)>> {
    let Some(p) = process.io_priority() else { return Ok(None) };
    let class = match p.class() {
        IOPriorityClass::IoprioClassRt => 1,
        IOPriorityClass::IoprioClassBe => 2,
        IOPriorityClass::IoprioClassIdle => 3,
    };
    match u8::try_from(p.priority()) {
        Ok(level @ 0..=7) => Ok(Some((class, level))),
        _ => Err(config(format!("{at}.ioPriority.priority"), format!("{} is outside 0 to 7", p.priority()))),
    }
}

fn exec_affinity(process: &Process, at: &str) -> Result<(Vec<usize>, Vec<usize>)> {
    let Some(affinity) = process.exec_cpu_affinity() else { return Ok(Default::default()) };
    let cpus = |list: &Option<String>, name: &str| {
        let list = list.as_deref().unwrap_or_default();
        cpu_list(list).ok_or_else(|| {
            config(format!("{at}.execCPUAffinity.{name}"), format!("{list:?} is not a list of CPUs as \"0-3,7\""))
        })
    };
    Ok((cpus(affinity.initial(), "initial")?, cpus(affinity.cpu_affinity_final(), "final")?))
}

/// The CPUs, or NUMA nodes, of a list in the kernel's format (cpuset(7), "List format"); `None` when it is none.
pub fn cpu_list(list: &str) -> Option<Vec<usize>> {
    /// More than any machine has: a range must not become a list that fills memory.
    const MOST: usize = 8192;
    let mut cpus = Vec::new();
    for part in list.split(',').map(str::trim).filter(|p| !p.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (first.parse::<usize>().ok()?, last.parse::<usize>().ok()?);
        if first > last || last >= MOST {
            return None;
        }
        cpus.extend(first..=last);
    }
    Some(cpus)
}

fn console_size(process: &Process, at: &str) -> Result<Option<(u16, u16)>> {
    // Without a terminal the size means nothing (spec: MUST be ignored).
    let Some(size) = process.console_size().filter(|_| process.terminal().unwrap_or(false)) else { return Ok(None) };
    match (u16::try_from(size.height()), u16::try_from(size.width())) {
        (Ok(rows), Ok(columns)) => Ok(Some((rows, columns))),
        _ => Err(config(format!("{at}.consoleSize"), "height and width must be below 65536")),
    }
}

fn rlimits_text<S: serde::Serializer>(limits: &[Rlimit], s: S) -> std::result::Result<S::Ok, S::Error> {
    s.collect_map(limits.iter().map(|l| (rlimit_name(l.resource), (l.soft, l.hard))))
}

fn scheduler_text<S: serde::Serializer>(attr: &Option<SchedAttr>, s: S) -> std::result::Result<S::Ok, S::Error> {
    match attr {
        Some(a) => s.collect_str(&format_args!("{a:?}")),
        None => s.serialize_none(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(extra: &str) -> Result<Planned> {
        let json = format!(r#"{{"user":{{"uid":0,"gid":0}},"cwd":"/","args":["true"]{extra}}}"#);
        let host = Grantable { capabilities: 0b1111, lsm: Modules::default() };
        ProcessPlan::plan(&serde_json::from_str(&json).unwrap(), "process", host)
    }

    #[test]
    fn the_last_value_of_a_variable_wins_in_its_first_place() {
        let p = plan(r#","env":["A=1","B=2","A=3","PATH=/bin"]"#).unwrap().process;
        assert_eq!(p.env, ["A=3", "B=2", "PATH=/bin"]);
        assert_eq!(p.path(), "/bin");
    }

    #[test]
    fn what_cannot_be_granted_is_left_out_with_a_warning() {
        let p =
            plan(r#","capabilities":{"bounding":["CAP_CHOWN","CAP_SYS_ADMIN"],"permitted":["CAP_CHOWN"]}"#).unwrap();
        let caps = p.process.capabilities;
        assert_eq!((caps.bounding, caps.permitted, caps.inheritable), (1, 1, 0));
        assert!(p.warnings[0].contains("CAP_SYS_ADMIN") && !p.warnings[0].contains("CAP_CHOWN"), "{:?}", p.warnings);
    }

    #[test]
    fn groups_are_kept_unless_the_value_is_0() {
        for (value, kept) in [("1", true), ("", true), ("0", false)] {
            let mut p = plan("").unwrap().process;
            p.groups = vec![7];
            let warning = p.keep_groups(&BTreeMap::from([(KEEP_GROUPS.into(), value.into())]));
            assert_eq!((p.keep_groups, p.groups.is_empty(), warning.is_some()), (kept, kept, kept), "{value:?}");
        }
        assert_eq!(plan("").unwrap().process.keep_groups(&BTreeMap::new()), None);
    }

    #[test]
    fn cpu_lists_are_the_kernels() {
        assert_eq!(cpu_list("0-2,7, 9"), Some(vec![0, 1, 2, 7, 9]));
        assert_eq!(cpu_list(""), Some(vec![]));
        for bad in ["3-1", "a", "1-", "-1", "0-99999999"] {
            assert_eq!(cpu_list(bad), None, "{bad}");
        }
    }

    #[test]
    fn bad_values_are_named() {
        for (extra, expected) in [
            (r#","env":["NOVALUE"]"#, "process.env[0]"),
            (r#","oomScoreAdj":1001"#, "process.oomScoreAdj: 1001"),
            (r#","rlimits":[{"type":"RLIMIT_CPU","soft":2,"hard":1}]"#, "process.rlimits[0]"),
            (
                r#","rlimits":[{"type":"RLIMIT_CPU","soft":1,"hard":1},{"type":"RLIMIT_CPU","soft":1,"hard":1}]"#,
                "process.rlimits[1]: a second",
            ),
            (r#","ioPriority":{"class":"IOPRIO_CLASS_BE","priority":8}"#, "process.ioPriority.priority: 8"),
            (r#","scheduler":{"policy":"SCHED_OTHER","priority":1}"#, "process.scheduler.priority"),
            (r#","scheduler":{"policy":"SCHED_OTHER","nice":20}"#, "process.scheduler.nice: 20"),
            (r#","scheduler":{"policy":"SCHED_FIFO","priority":-1}"#, "process.scheduler.priority: is negative"),
            (
                r#","scheduler":{"policy":"SCHED_OTHER","runtime":0,"period":5}"#,
                "process.scheduler: runtime, deadline and period",
            ),
            (r#","execCPUAffinity":{"final":"3-1"}"#, "process.execCPUAffinity.final: \"3-1\""),
            (r#","apparmorProfile":"x""#, "process.apparmorProfile: "),
            (r#","selinuxLabel":"x""#, "process.selinuxLabel: "),
        ] {
            let e = plan(extra).err().expect(extra).to_string();
            assert!(e.contains(expected), "{extra}: {e}");
        }
    }
}
