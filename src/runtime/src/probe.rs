//! `rrt features --probe`: which interfaces this kernel has, each found by a call that changes nothing, not by its version.
//!
//! `features` alone says what this build does; this says what it has to do it with. No other command reads it.

use rrt_cgroups::HostCgroups;
use rrt_sys::{OFlags, errno, landlock, lsm, path, probe};
use serde::Serialize;
use serde_json::{Value, json};
use std::path::Path;

/// One interface of the kernel, and whether it is there.
#[derive(Debug, Serialize)]
struct Interface {
    /// The call, with the flag that matters.
    name: &'static str,
    /// The first Linux that has it.
    since: &'static str,
    /// What the runtime does with it, or could do.
    purpose: &'static str,
    /// `null` when the kernel did not say: the runtime lacks a capability, or a sandbox is in the way.
    found: Option<bool>,
    /// What a `null` comes from, or what there is to say about what was found.
    #[serde(skip_serializing_if = "Value::is_null")]
    detail: Value,
}

/// The kernel's answer to a probe.
struct Answer {
    found: Option<bool>,
    detail: Value,
}

fn yes_or_no(found: bool) -> Answer {
    Answer { found: Some(found), detail: Value::Null }
}

/// What is refused for want of a right is not known; any other error is the kernel's "no".
fn answer<T>(result: rrt_sys::Result<T>) -> Answer {
    told(result, |_| Value::Null)
}

fn told<T>(result: rrt_sys::Result<T>, detail: impl FnOnce(T) -> Value) -> Answer {
    match result {
        Ok(value) => Answer { found: Some(true), detail: detail(value) },
        Err(e) if e.is(errno::EPERM) || e.is(errno::EACCES) => Answer { found: None, detail: json!(e.to_string()) },
        Err(_) => yes_or_no(false),
    }
}

/// A probe that says yes or no by itself.
fn answer_of(result: rrt_sys::Result<bool>) -> Answer {
    match result {
        Ok(found) => yes_or_no(found),
        Err(e) => answer(Err::<(), _>(e)),
    }
}

/// The document: the kernel, and a row for each interface.
pub fn document() -> Value {
    let (release, machine) = probe::kernel();
    let rows: [fn() -> Vec<Interface>; 5] = [mounts, processes, cgroups, security, others];
    let interfaces: Vec<Interface> = rows.into_iter().flat_map(|rows| rows()).collect();
    json!({ "kernel": { "release": release, "machine": machine }, "interfaces": interfaces })
}

fn row(name: &'static str, since: &'static str, purpose: &'static str, answer: Answer) -> Interface {
    Interface { name, since, purpose, found: answer.found, detail: answer.detail }
}

fn mounts() -> Vec<Interface> {
    /// `OPEN_TREE_CLONE`
    const CLONE: u32 = 1;
    /// `OPEN_TREE_NAMESPACE`
    const NAMESPACE: u32 = 2;
    /// `MOVE_MOUNT_BENEATH`
    const BENEATH: u32 = 0x200;
    /// `MOUNT_ATTR_NOSYMFOLLOW`
    const NOSYMFOLLOW: u64 = 0x20_0000;
    /// `MOUNT_ATTR_IDMAP`
    const IDMAP: u64 = 0x10_0000;
    let proc_visible = "a procfs of its own for labels and sysctls";
    vec![
        row("openat2: RESOLVE_IN_ROOT", "5.6", "every lookup in a container's root; needed", answer(probe::openat2())),
        row("fsopen, fsmount", "5.2", "new mounts, built detached; needed", answer(probe::file_system("tmpfs"))),
        row("open_tree: OPEN_TREE_CLONE", "5.2", "bind mounts, detached; needed", answer(probe::open_tree(CLONE))),
        row(
            "mount_setattr",
            "5.12",
            "attributes of mounts, also recursive; needed",
            answer(probe::mount_attributes(0)),
        ),
        row("mount_setattr: MOUNT_ATTR_IDMAP", "5.12", "idmapped mounts", answer(probe::mount_attributes(IDMAP))),
        row(
            "mount_setattr: MOUNT_ATTR_NOSYMFOLLOW",
            "5.14",
            "nosymfollow",
            answer(probe::mount_attributes(NOSYMFOLLOW)),
        ),
        row("open_tree_attr", "6.15", "not used yet", answer(probe::open_tree_attr())),
        row("open_tree: OPEN_TREE_NAMESPACE", "7.0", "not used yet", answer(probe::open_tree(NAMESPACE))),
        row(
            "move_mount: MOVE_MOUNT_BENEATH",
            "6.5",
            "mounts replaced without a gap",
            answer(probe::move_mount(BENEATH)),
        ),
        row("statmount, listmount", "6.8", "not used yet", answer(probe::listmount())),
        row("statx: STATX_MNT_ID_UNIQUE", "6.8", "the check after mounting", answer_of(probe::unique_mount_ids())),
        row("procfs: subset=pid", "5.8", proc_visible, answer(probe::proc_subset())),
        row("procfs: pidns", "6.17", "not used yet", answer(probe::proc_pidns())),
        row("overlay", "3.18", "the sealed copy of the runtime, without a copy", answer(probe::file_system("overlay"))),
        row("fchmodat2", "6.6", "modes by O_PATH descriptors", answer(probe::fchmodat2())),
    ]
}

fn processes() -> Vec<Interface> {
    let info = told(probe::pidfd_info(), |bits| json!({ "bits": format!("{bits:#x}") }));
    vec![
        row("pidfd_open", "5.3", "every process is held by pidfd; needed", answer(probe::own_pidfd())),
        row("pidfd_getfd", "5.6", "not used yet", answer(probe::pidfd_getfd())),
        row("setns: pidfd", "5.8", "exec joins all namespaces at once; needed", answer(probe::setns_by_pidfd())),
        row("pidfs", "6.9", "a process known for ever by its inode number", answer_of(probe::pidfs())),
        row("PIDFD_GET_UTS_NAMESPACE and the like", "6.11", "not used yet", answer(probe::pidfd_namespace())),
        row("PIDFD_GET_INFO", "6.13", "exit status of a process that is not a child", info),
        row("PIDFD_SELF", "6.14", "not used yet", answer(probe::pidfd_self())),
        row(
            "close_range: CLOSE_RANGE_CLOEXEC",
            "5.11",
            "no descriptor leaks; needed",
            answer(probe::close_range_cloexec()),
        ),
        row("memfd_create: MFD_EXEC", "6.3", "the sealed copy of the runtime", answer(probe::memfd_exec())),
        row("execveat: AT_EXECVE_CHECK", "6.14", "create names a bad program", answer(probe::execve_check())),
        row("time namespaces", "5.6", "linux.timeOffsets", answer(probe::readable(Path::new("/proc/self/ns/time")))),
        row("PR_SCHED_CORE", "5.14", "core scheduling", core_scheduling()),
    ]
}

/// A processor without threads has nothing to schedule by core; the call is there all the same.
fn core_scheduling() -> Answer {
    match probe::core_scheduling() {
        Err(e) if e.is(errno::ENODEV) => Answer { found: Some(true), detail: json!("no processor here has SMT") },
        other => answer(other),
    }
}

fn cgroups() -> Vec<Interface> {
    let host = HostCgroups::read();
    let mode = host.as_ref().map_or(Value::Null, |h| json!(format!("{:?}", h.mode).to_lowercase()));
    vec![
        row("cgroups", "2.6.24", "limits", Answer { found: Some(host.is_ok()), detail: json!({ "mode": mode }) }),
        row("clone3: CLONE_INTO_CGROUP", "5.7", "born in its cgroup; needed", answer(probe::clone_into_cgroup())),
        row("cgroup.kill", "5.14", "all processes killed at once", host.as_ref().map_or(yes_or_no(false), cgroup_kill)),
        row("PSI", "4.20", "pressure in events", pressure()),
    ]
}

/// The root of the hierarchy has no such file, so one that is below it is asked.
fn cgroup_kill(host: &HostCgroups) -> Answer {
    let unknown = Answer { found: None, detail: json!("there is no cgroup v2 below the root to look at") };
    let Some(v2) = host.hierarchies.iter().find(|h| h.version == rrt_cgroups::Version::V2) else { return unknown };
    let own = v2.mount.join(v2.own.strip_prefix("/").unwrap_or(&v2.own));
    let below = |dir: &Path| {
        let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
        entries.map(|e| e.path()).find(|p| p.join("cgroup.procs").exists())
    };
    let dir = [own.clone(), v2.mount.clone()].into_iter().find(|dir| *dir != v2.mount && dir.exists());
    match dir.or_else(|| below(&v2.mount)) {
        Some(dir) => yes_or_no(dir.join("cgroup.kill").exists()),
        None => unknown,
    }
}

/// With `psi=0` the files are there and cannot be opened.
fn pressure() -> Answer {
    yes_or_no(path::open(Path::new("/proc/pressure/cpu"), OFlags::RDONLY).is_ok())
}

fn security() -> Vec<Interface> {
    let modules =
        told(lsm::modules(), |ids| json!({ "modules": ids.into_iter().map(module_name).collect::<Vec<_>>() }));
    let abi = told(landlock::abi(), |abi| json!({ "abi": abi }));
    let flags = known(&SECCOMP_FLAGS, probe::seccomp_flag);
    let actions = known(&SECCOMP_ACTIONS, probe::seccomp_action);
    let seccomp = Answer { found: Some(!actions.is_empty()), detail: json!({ "flags": flags, "actions": actions }) };
    vec![
        row("seccomp", "3.5", "linux.seccomp", seccomp),
        row("landlock", "5.13", "run.rrt.landlock", abi),
        row("lsm_list_modules", "6.8", "AppArmor and SELinux found", modules),
        row("lsm_set_self_attr", "6.8", "labels without /proc", answer(probe::lsm_set_self_attr())),
    ]
}

/// The names of those whose bits `probe` finds.
fn known(list: &[(&'static str, u32)], probe: fn(u32) -> rrt_sys::Result<()>) -> Vec<&'static str> {
    list.iter().filter(|(_, bits)| probe(*bits).is_ok()).map(|(name, _)| *name).collect()
}

/// Those of a filter's flags (`SECCOMP_FILTER_FLAG_*` bits) that this kernel does not know.
pub(crate) fn unknown_seccomp_flags(flags: u32) -> impl Iterator<Item = &'static str> {
    use rrt_sys::seccomp::NEW_LISTENER;
    let given = SECCOMP_FLAGS.iter().filter(move |(_, bits)| flags & bits & !NEW_LISTENER != 0);
    given.filter(|(_, bits)| probe::seccomp_flag(*bits).is_err()).map(|(name, _)| *name)
}

/// `SECCOMP_FILTER_FLAG_*`
const SECCOMP_FLAGS: [(&str, u32); 6] = [
    ("SECCOMP_FILTER_FLAG_TSYNC", 1),
    ("SECCOMP_FILTER_FLAG_LOG", 2),
    ("SECCOMP_FILTER_FLAG_SPEC_ALLOW", 4),
    ("SECCOMP_FILTER_FLAG_NEW_LISTENER", 8),
    ("SECCOMP_FILTER_FLAG_TSYNC_ESRCH", 16),
    // Only together with NEW_LISTENER.
    ("SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV", 32 | 8),
];

/// `SECCOMP_RET_*`
const SECCOMP_ACTIONS: [(&str, u32); 8] = [
    ("SCMP_ACT_KILL_PROCESS", 0x8000_0000),
    ("SCMP_ACT_KILL_THREAD", 0),
    ("SCMP_ACT_TRAP", 0x0003_0000),
    ("SCMP_ACT_ERRNO", 0x0005_0000),
    ("SCMP_ACT_NOTIFY", 0x7fc0_0000),
    ("SCMP_ACT_TRACE", 0x7ff0_0000),
    ("SCMP_ACT_LOG", 0x7ffc_0000),
    ("SCMP_ACT_ALLOW", 0x7fff_0000),
];

/// `LSM_ID_*`
fn module_name(id: u64) -> String {
    const NAMES: [&str; 14] = [
        "capability",
        "selinux",
        "smack",
        "tomoyo",
        "apparmor",
        "yama",
        "loadpin",
        "safesetid",
        "lockdown",
        "bpf",
        "landlock",
        "ima",
        "evm",
        "ipe",
    ];
    let name = id.checked_sub(100).and_then(|n| NAMES.get(n as usize));
    name.map_or_else(|| id.to_string(), |name| (*name).into())
}

fn others() -> Vec<Interface> {
    let user = probe::readable(Path::new("/proc/self/ns/user"));
    vec![
        row("user namespaces", "3.8", "linux.uidMappings, gidMappings", answer(user)),
        row("bpf: cgroup device programs", "4.15", "device rules on cgroup v2", answer(device_program())),
    ]
}

/// Loads a program that allows everything, and forgets it.
fn device_program() -> rrt_sys::Result<()> {
    let insn = |code, immediate| rrt_sys::bpf::Insn { code, registers: 0, offset: 0, immediate };
    // r0 = 1; exit
    rrt_sys::bpf::load_device_filter(&[insn(0xb7, 1), insn(0x95, 0)]).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(name: &str) -> Value {
        let document = document();
        let rows = document["interfaces"].as_array().unwrap().clone();
        rows.into_iter().find(|row| row["name"] == name).unwrap_or_else(|| panic!("{name}: {document}"))["found"]
            .clone()
    }

    #[test]
    fn each_row_says_what_it_is_and_is_there_once() {
        let document = document();
        let rows = document["interfaces"].as_array().unwrap();
        let mut names: Vec<_> = rows.iter().map(|r| r["name"].as_str().unwrap()).collect();
        for row in rows {
            assert!(row["since"].as_str().unwrap().split('.').all(|n| n.parse::<u32>().is_ok()), "{row}");
            assert!(!row["purpose"].as_str().unwrap().is_empty(), "{row}");
            assert!(row["found"].is_boolean() || row["found"].is_null() && row["detail"].is_string(), "{row}");
        }
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), rows.len());
        assert!(document["kernel"]["release"].as_str().unwrap().contains('.'));
    }

    /// What the runtime cannot do without is on every machine on which these tests run, and its probe must find it; so must what
    /// is older than any kernel of today, and what is not there must not be found.
    #[test]
    fn probes_tell_what_is_there_from_what_is_not() {
        for name in
            ["openat2: RESOLVE_IN_ROOT", "pidfd_open", "close_range: CLOSE_RANGE_CLOEXEC", "seccomp", "time namespaces"]
        {
            assert_eq!(found(name), true, "{name}");
        }
        assert!(probe::seccomp_flag(1 << 30).is_err());
        assert!(probe::seccomp_action(0x1234_0000).is_err());
        assert!(probe::open_tree(1 << 27).is_err());
        assert!(probe::mount_attributes(1 << 60).is_err() && probe::move_mount(1 << 30).is_err());
        assert!(probe::file_system("no-such-file-system").is_err());
    }

    /// The kernel's version decides nothing in here, but in a test it is a second witness. (Not of what is missing: distributions
    /// carry some of it back.)
    #[test]
    fn probes_agree_with_the_version() {
        let document = document();
        let number =
            |text: &str| -> Vec<u32> { text.split(['.', '-']).map_while(|n| n.parse().ok()).take(2).collect() };
        let running = number(document["kernel"]["release"].as_str().unwrap());
        for row in document["interfaces"].as_array().unwrap() {
            // What a kernel may be built without.
            let optional =
                ["overlay", "PSI", "landlock", "PR_SCHED_CORE", "cgroup.kill", "bpf: cgroup device programs"];
            if optional.contains(&row["name"].as_str().unwrap()) || row["found"].is_null() {
                continue;
            }
            if running >= number(row["since"].as_str().unwrap()) {
                assert_eq!(row["found"], true, "{row} on {running:?}");
            }
        }
    }
}
