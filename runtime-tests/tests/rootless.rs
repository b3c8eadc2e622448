//! The runtime as an ordinary user: of a user namespace with this user's id alone, and with ranges lent to him.
//!
//! Run by root, the tests call the runtime as a user who is in no database; run by a user, as that one.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};

use nix::mount::{MsFlags, mount};
use runtime_tests::{Container, Output, cgroup_file, cgroup_v2, console_socket, known, private_mounts, skip, until};
use rustix::process::geteuid;
use serde_json::{Value, json};

/// Nobody's, on any machine.
const USER: u32 = 54_321;

fn rootless() -> Container {
    Container::new().rootless(USER)
}

fn is_root() -> bool {
    geteuid().is_root()
}

/// Calls the runtime as the user, with `flags` before its own and `variables` in its environment.
fn call_with(c: &Container, variables: &str, flags: &str, command: &str, rest: &[&str]) -> Output {
    let user = match c.caller {
        Some((uid, gid)) => format!("setpriv --reuid {uid} --regid {gid} --clear-groups"),
        None => String::new(),
    };
    let script = format!("runtime=$1; shift; exec {user} env {variables} \"$runtime\" {flags} \"$@\"");
    c.call_from_shell(&script, command, rest, &[])
}

#[test]
fn one_container_through_its_life() {
    let c = rootless().idle();
    c.create(&["--pid-file", "pid"]).ok();
    let state = c.state();
    assert_eq!(state["status"], "created");
    let pid = c.pid();
    assert_eq!(fs::read_to_string(c.dir.join("pid")).expect("pid file"), pid.to_string());
    assert_eq!(fs::metadata(c.dir.join("pid")).expect("pid file").uid(), c.caller_uid());
    c.start().ok();
    assert_eq!(c.state()["status"], "running");
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("status");
    let uid = c.caller_uid();
    assert!(status.contains(&format!("Uid:\t{uid}\t{uid}\t{uid}\t{uid}\n")), "{status}");
    c.kill("KILL").ok();
    c.wait_status("stopped");
    c.delete(&[]).ok();
    c.assert_gone();
}

#[test]
fn root_inside_is_the_user_outside_with_all_namespaces_his() {
    let report = rootless().report();
    assert_eq!(report["uids"], json!([0, 0, 0, 0]));
    assert_eq!(report["gids"], json!([0, 0, 0, 0]));
    assert_eq!(report["pid"], 1);
    assert_eq!(report["hostname"], "box");
    assert_eq!(report["caps"]["effective"], json!(["CAP_KILL", "CAP_NET_BIND_SERVICE", "CAP_AUDIT_WRITE"]));
    for kind in ["user", "pid", "net", "ipc", "uts", "mnt"] {
        let own = fs::read_link(format!("/proc/self/ns/{kind}")).expect("namespace link");
        assert_ne!(report["namespaces"][kind], json!(own), "{kind}");
    }
}

#[test]
fn any_single_id_is_mapped_without_a_helper() {
    known!("runc", "*", "only 0 is mapped without a helper");
    let c = rootless()
        .with("/linux/uidMappings/0/containerID", json!(77))
        .with("/linux/gidMappings/0/containerID", json!(88))
        .with("/process/user", json!({ "uid": 77, "gid": 88 }));
    c.write_config();
    // Where there is no newuidmap.
    let report = call_with(&c, "PATH=/nowhere", "", "run", &[]).ok().json();
    assert_eq!((&report["uids"][0], &report["gids"][0]), (&json!(77), &json!(88)));
}

#[test]
fn exec_joins_a_created_and_a_running_container() {
    known!("runc", "*", "a container that was created only takes no exec from a user");
    let c = rootless().idle();
    c.create(&[]).ok();
    assert_eq!(c.exec_report(&[])["uids"][0], 0);
    c.start().ok();
    let report = c.exec_report(&["--cwd", "/tmp", "--env", "A=b"]);
    assert_eq!((&report["uids"][0], &report["cwd"]), (&json!(0), &json!("/tmp")));
    for kind in ["user", "pid", "net", "ipc", "uts", "mnt"] {
        let its = fs::read_link(format!("/proc/{}/ns/{kind}", c.pid()));
        // Root may look at another user's; a user only at his own.
        assert_eq!(report["namespaces"][kind], json!(its.expect("namespace link")), "{kind}");
    }
    c.exec(&["--user", "5"], &["id"]).fails(255, &["process.user.uid", "5 is not mapped", "linux.uidMappings"]);
}

#[test]
fn ps_and_kill_all_without_a_cgroup() {
    known!("runc", "*", "its ps needs a cgroup");
    let c = rootless().sh("sleep 3600 & sleep 3600 & wait").up();
    let count = || c.call("ps", &["--format", "json"], &[]).ok().json().as_array().map_or(0, Vec::len);
    until("three processes", || count() == 3);
    let _exec = c.spawn("exec", &[], &["sleep", "3600"]);
    until("the one that came by exec", || count() == 4);
    let table = c.call("ps", &[], &[]).ok().stdout;
    assert!(table.contains("sleep 3600"), "{table}");
    c.call("kill", &["--all"], &["KILL"]).ok();
    c.wait_status("stopped");
    c.delete(&[]).ok();
    c.assert_gone();
}

#[test]
fn all_of_a_shared_pid_namespace_ends_without_a_cgroup() {
    known!("runc", "*", "its ps needs a cgroup");
    let mut c = rootless().sh("sleep 3600 & sleep 3600 & wait");
    c.remove_namespace("pid");
    // procfs shows the pid namespace of its maker, which is not the container's own.
    let c = c.without_mount("/proc").mount("/proc", "bind", "/proc", &["rbind"]).up();
    let pids = || c.call("ps", &["--format", "json"], &[]).ok().json();
    until("three processes", || pids().as_array().is_some_and(|p| p.len() == 3));
    c.delete(&["--force"]).ok();
    c.assert_gone();
}

#[test]
fn setgroups_is_denied_and_additional_groups_are_refused() {
    let c = rootless().idle().up();
    let seen = c.attempt(&["content", "/proc/self/setgroups", "content", "/proc/self/gid_map"]);
    assert_eq!(seen[0], "deny\n");
    // A group that the caller had would stay; there is none here that the container could have gained.
    let report = c.exec_report(&[]);
    assert!(report["groups"].as_array().is_some_and(Vec::is_empty) || c.caller.is_none(), "{report}");
    c.exec(&["--additional-gids", "0"], &["id"])
        .fails(255, &["process.user.additionalGids", "cannot set any additional groups in a rootless container"]);
    let groups = rootless().with("/process/user/additionalGids", json!([0]));
    groups.run(&[]).fails(1, &["process.user.additionalGids", "cannot set any additional groups", "newgidmap"]);
}

#[test]
fn no_user_namespace_is_refused_by_name() {
    let mut c = rootless();
    c.remove_namespace("user");
    let linux = c.config["linux"].as_object_mut().expect("linux");
    linux.remove("uidMappings");
    linux.remove("gidMappings");
    c.run(&[]).fails(1, &["linux.namespaces: no user namespace", "spec --rootless"]);
}

#[test]
fn an_id_that_is_not_mapped_is_named() {
    rootless().with("/process/user/uid", json!(1)).run(&[]).fails(1, &["process.user.uid: 1 is not mapped"]);
    rootless().with("/process/user/gid", json!(1)).run(&[]).fails(1, &["process.user.gid: 1 is not mapped"]);
}

/// Lends `USER` a range in files that only this thread and what it starts can see.
fn lend(ranges: &str) -> bool {
    if !is_root() || !Path::new("/usr/bin/newuidmap").exists() {
        return false;
    }
    private_mounts();
    let dir = std::env::temp_dir().join(format!("rt-lend-{}-{:?}", std::process::id(), std::thread::current().id()));
    fs::create_dir(&dir).expect("directory of the lent ranges");
    let none = None::<&str>;
    mount(Some("tmpfs"), &dir, Some("tmpfs"), MsFlags::empty(), none).expect("tmpfs for the lent ranges");
    let passwd = fs::read_to_string("/etc/passwd").expect("/etc/passwd");
    let passwd = format!("{passwd}tester:x:{USER}:{USER}::/nowhere:/bin/false\n");
    for (name, text) in [("passwd", passwd.as_str()), ("subuid", ranges), ("subgid", ranges)] {
        let (file, place) = (dir.join(name), Path::new("/etc").join(name));
        fs::write(&file, text).expect("a database");
        mount(Some(&file), &place, none, MsFlags::MS_BIND, none)
            .unwrap_or_else(|e| panic!("bind {}: {e}; install uidmap", place.display()));
    }
    nix::mount::umount2(&dir, nix::mount::MntFlags::MNT_DETACH).expect("detach the tmpfs");
    fs::remove_dir(&dir).expect("remove its place");
    true
}

fn ranged(size: u32) -> Container {
    let c = rootless();
    let map = json!([
        { "containerID": 0, "hostID": USER, "size": 1 },
        { "containerID": 1, "hostID": 700_000, "size": size },
    ]);
    c.with("/linux/uidMappings", map.clone()).with("/linux/gidMappings", map)
}

#[test]
fn ranges_are_mapped_by_the_helpers() {
    known!("runc", "*", "it sets no additional groups, whatever is mapped");
    if !lend("tester:700000:65536\n") {
        skip!("needs root, to lend ids to a user, and newuidmap");
    }
    let c = ranged(65535).with("/process/user", json!({ "uid": 1000, "gid": 1000, "additionalGids": [5, 2000] }));
    let c = c.idle().up();
    let report = c.exec_report(&["--user", "7:8"]);
    assert_eq!((&report["uids"][0], &report["gids"][0]), (&json!(7), &json!(8)));
    let status = fs::read_to_string(format!("/proc/{}/status", c.pid())).expect("status");
    assert!(status.contains("Uid:\t700999\t"), "{status}");
    assert!(status.contains("Groups:\t700004 701999"), "{status}");
    // A process of another id is still this user's to signal.
    c.kill("KILL").ok();
    c.wait_status("stopped");
}

#[test]
fn a_root_that_is_a_lent_id_cannot_reach_the_bundle_but_has_it() {
    if !lend("tester:700000:65536\n") {
        skip!("needs root, to lend ids to a user, and newuidmap");
    }
    known!("runc", "*", "the container's root has to reach the bundle");
    let map = json!([{ "containerID": 0, "hostID": 700_000, "size": 65536 }]);
    let c = rootless().with("/linux/uidMappings", map.clone()).with("/linux/gidMappings", map);
    fs::create_dir(c.dir.join("secret")).expect("directory");
    fs::write(c.dir.join("secret/file"), "inside\n").expect("file");
    let c = c.mount("/tmp", "bind", "secret", &["rbind"]).args(&["cat", "/tmp/file"]);
    // Closed to everybody but the user. The mount points must be there, for the root file system is not its root's.
    for dir in ["dev/pts", "sys", "proc", "tmp"] {
        fs::create_dir_all(c.path(dir)).expect("mount point");
    }
    fs::set_permissions(&c.dir, fs::Permissions::from_mode(0o700)).expect("mode");
    assert_eq!(c.run(&[]).ok().stdout, "inside\n");
}

#[test]
fn what_is_not_lent_is_told() {
    if !lend("tester:700000:10\n") {
        skip!("needs root, to lend ids to a user, and newuidmap");
    }
    known!("runc", "*", "the wording is rrt's own");
    ranged(65535).run(&[]).fails(
        1,
        &["linux.gidMappings: newgidmap", "/etc/subgid lends tester 700000:10", "add the line tester:700000:65535"],
    );
}

#[test]
fn a_user_to_whom_nothing_is_lent() {
    if !lend("somebody:700000:10\n") {
        skip!("needs root, to lend ids to a user, and newuidmap");
    }
    known!("runc", "*", "the wording is rrt's own");
    ranged(5).run(&[]).fails(1, &["/etc/subgid lends tester nothing; add the line tester:700000:5"]);
}

#[test]
fn a_missing_helper_is_named_before_anything_exists() {
    let c = rootless().with("/linux/uidMappings/0/size", json!(2));
    c.write_config();
    call_with(&c, "PATH=/nowhere", "", "run", &[])
        .fails(1, &["linux.uidMappings", "newuidmap", "not in PATH (/nowhere)", "`uidmap`"]);
    c.assert_gone();
}

#[test]
fn limits_need_a_delegated_cgroup() {
    if cgroup_v2() && !is_root() {
        skip!("this user may have a delegated cgroup");
    }
    let c = rootless().with("/linux/resources", json!({ "pids": { "limit": 20 } }));
    c.run(&[]).fails(1, &["linux.resources.pids.limit", "mkdir", "delegated"]);
    let c = rootless().with("/linux/cgroupsPath", json!("/rt-not-mine"));
    c.run(&[]).fails(1, &["linux.cgroupsPath", "mkdir", "delegated"]);
    known!("runc", "*", "pause and update fail otherwise");
    let c = rootless().idle().up();
    c.call("pause", &[], &[]).fails(1, &["cannot pause", "no cgroup"]);
    c.call("update", &["--pids-limit", "9"], &[]).fails(1, &["no cgroup"]);
    c.call("events", &["--stats"], &[]).fails(1, &["no cgroup"]);
}

#[test]
fn rootless_false_makes_a_missing_right_an_error() {
    if cgroup_v2() && !is_root() {
        skip!("this user may have a delegated cgroup");
    }
    let c = rootless();
    c.write_config();
    call_with(&c, "", "--rootless=false", "run", &[]).fails(1, &["make the container's cgroup", "mkdir"]);
}

#[test]
fn rootless_true_for_root() {
    if !is_root() {
        skip!("needs root");
    }
    let c = Container::new();
    c.write_config();
    call_with(&c, "", "--rootless=true", "run", &[]).ok();
}

/// The directories that root gives to `USER` in each hierarchy, with a place for the runtime itself; and their removal.
struct Delegated(Vec<std::path::PathBuf>);

impl Delegated {
    fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        // Not a container's name, or it would be counted as left of that.
        let name = format!("rt-lent-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let mut dirs = Vec::new();
        for mount in runtime_tests::host_mounts().iter().filter(|m| m.contains(" - cgroup")) {
            let top = Path::new(mount.split(' ').nth(4).expect("a mount point"));
            // Others may have mounted the same once more elsewhere.
            if !top.starts_with("/sys/fs/cgroup") {
                continue;
            }
            let own = top.join(&name);
            fs::create_dir(&own).expect("a cgroup");
            let cpuset = ["cpuset.cpus", "cpuset.mems"];
            for file in cpuset {
                if let Ok(value) = fs::read_to_string(top.join(file)) {
                    let _ = fs::write(own.join(file), value);
                }
            }
            let place = own.join("runtime");
            fs::create_dir(&place).expect("a cgroup below");
            for file in cpuset {
                if let Ok(value) = fs::read_to_string(top.join(file)) {
                    let _ = fs::write(place.join(file), value);
                }
            }
            for dir in [&own, &place] {
                chown(dir, Some(USER), Some(USER)).expect("give the cgroup");
                for file in ["tasks", "cgroup.procs", "cgroup.threads", "cgroup.subtree_control"] {
                    let _ = chown(dir.join(file), Some(USER), Some(USER));
                }
            }
            dirs.push(place);
            dirs.push(own);
        }
        Delegated(dirs)
    }

    /// A script that goes to the place and calls `"$@"` as the user.
    fn script(&self) -> String {
        let mut script = String::new();
        for dir in self.0.iter().step_by(2) {
            script += &format!("echo $$ >{}/cgroup.procs && ", dir.display());
        }
        script + &format!("exec setpriv --reuid {USER} --regid {USER} --clear-groups -- \"$@\"")
    }
}

impl Drop for Delegated {
    fn drop(&mut self) {
        for dir in &self.0 {
            until(&format!("removal of {}", dir.display()), || fs::remove_dir(dir).is_ok() || !dir.exists());
        }
    }
}

#[test]
fn a_delegated_cgroup_is_used() {
    if !is_root() {
        skip!("needs root, to delegate a cgroup");
    }
    known!("runc", "*", "it wants every hierarchy or none");
    let mut c = rootless().idle();
    let lent = Delegated::new();
    let controller = if cgroup_v2() { "" } else { "pids" };
    if !cgroup_v2() {
        c = c.with("/linux/resources", json!({ "pids": { "limit": 20 } }));
    }
    c.write_config();
    let call = |command: &str, flags: &[&str]| c.call_from_shell(&lent.script(), command, flags, &[]);
    call("create", &[]).ok();
    call("start", &[]).ok();
    let inside = runtime_tests::process_cgroup(c.pid(), controller).expect("its cgroup");
    assert!(inside.contains("rt-lent-") && inside.ends_with(&c.id), "{inside}");
    if !cgroup_v2() {
        assert_eq!(cgroup_file(c.pid(), "pids", "pids.max").as_deref(), Some("20"));
        call("update", &["--pids-limit", "30"]).ok();
        assert_eq!(cgroup_file(c.pid(), "pids", "pids.max").as_deref(), Some("30"));
    }
    call("pause", &[]).ok();
    assert_eq!(c.state()["status"], "paused");
    call("resume", &[]).ok();
    assert_eq!(call("ps", &["--format", "json"]).ok().json(), json!([c.pid()]));
    let exec = c.call_from_shell(&lent.script(), "exec", &[], &["guest", "report"]).ok().json();
    let line =
        exec["cgroup"].as_array().and_then(|l| l.iter().find(|l| l.as_str().is_some_and(|l| l.contains("rt-lent"))));
    assert!(line.is_some_and(|l| l.as_str().is_some_and(|l| l.ends_with(&c.id))), "{exec}");
    c.delete(&["--force"]).ok();
    c.assert_gone();
}

/// CVE-2023-25809: a container without a cgroup of its own is in the runtime's, which is the user's to write on the host, and shows
/// it at most read-only, whatever config.json says of the mount.
#[test]
fn the_hosts_cgroups_cannot_be_written() {
    if !is_root() {
        skip!("needs root, to delegate a cgroup");
    }
    known!("runc", "*", "it cannot go without cgroups");
    let places = if cgroup_v2() { &["/sys/fs/cgroup"][..] } else { &["/sys/fs/cgroup/pids", "/sys/fs/cgroup/unified"] };
    for namespace in [false, true] {
        for options in [&["ro"][..], &["rw"], &["nosuid"]] {
            let c = rootless().without_mount("/sys/fs/cgroup").mount("/sys/fs/cgroup", "cgroup", "cgroup", options);
            let c = if namespace { c.namespace("cgroup", "") } else { c }.idle();
            let lent = Delegated::new();
            c.write_config();
            let script = format!(
                "cd {} && {}",
                c.dir.display(),
                lent.script().replace(
                    "\"$@\"",
                    "sh -c '\
                runtime=$1; shift; exec \"$runtime\" --cgroup-manager=disabled \"$@\"' sh \"$@\""
                )
            );
            c.call_from_shell(&script, "run", &["--detach"], &[]).ok();
            assert!(
                runtime_tests::process_cgroup(c.pid(), "pids").is_some_and(|p| p.ends_with("/runtime")) || cgroup_v2()
            );
            for place in places {
                let made = format!("rt-made-{}", c.id);
                let seen = c.attempt(&["mkdir", &format!("{place}/{made}"), "write", &format!("{place}/cgroup.procs")]);
                let what = format!("{place}, {options:?}, namespace {namespace}: {seen}");
                assert_eq!(runtime_tests::cgroups_named(&made), Vec::<std::path::PathBuf>::new(), "{what}");
                assert!(seen[1] == "EROFS" || seen[1] == "ENOENT", "{what}");
            }
            c.delete(&["--force"]).ok();
        }
    }
}

/// The other condition of CVE-2023-25809: `/sys` is bound, as `runc spec --rootless` has it.
#[test]
fn a_bound_sys_does_not_open_the_hosts_cgroups() {
    known!("runc", "1.1.6", "only the mount that is bound becomes read-only");
    if !is_root() {
        skip!("needs root, to give the user a cgroup");
    }
    let mut c = rootless().without_mount("/sys").without_mount("/sys/fs/cgroup").mount(
        "/sys",
        "none",
        "/sys",
        &["rbind", "nosuid", "noexec", "nodev", "ro"],
    );
    c.remove_namespace("network");
    // One that the user may write on the host.
    let lent = Delegated::new();
    let c = c.idle().up();
    for own in lent.0.iter().skip(1).step_by(2) {
        let made = format!("{}/rt-made", own.display());
        assert_eq!(c.attempt(&["mkdir", &made]), json!(["EROFS"]), "{made}");
    }
}

#[test]
fn sysfs_without_a_network_namespace_is_the_hosts_read_only() {
    known!("runc", "*", "config.json has to bind it");
    let mut c = rootless();
    c.remove_namespace("network");
    let report = c.report();
    let mounts = report["mounts"].as_array().expect("mounts");
    let sys = mounts.iter().find(|m| m["target"] == "/sys").expect("/sys");
    assert_eq!(sys["type"], "sysfs");
    assert!(sys["options"].as_array().is_some_and(|o| o.contains(&json!("ro"))), "{sys}");
}

#[test]
fn devices_are_bound_and_none_can_be_made() {
    let c =
        rootless().caps(&["CAP_MKNOD", "CAP_SYS_ADMIN"]).sh("mknod /tmp/x c 1 3; echo $?; echo x >/dev/null; echo $?");
    assert_eq!(c.run(&[]).ok().stdout, "1\n0\n");
}

#[test]
fn masked_and_read_only_paths() {
    let c = rootless().caps(&["CAP_NET_ADMIN"]).idle().up();
    let seen = c.attempt(&["put", "/proc/sys/net/ipv4/ip_forward", "content", "/proc/keys", "list", "/sys/firmware"]);
    assert_eq!(seen, json!(["EROFS", "", 0]));
}

/// Flags that the host's administrator has set cannot be taken off, and others are added to them.
#[test]
fn the_hosts_mount_flags_stay() {
    known!("runc", "1.2", "flags of the host that are locked make a bind mount fail");
    if !is_root() {
        skip!("needs root, to mount something on the host");
    }
    private_mounts();
    let mut c = rootless();
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC | MsFlags::MS_RDONLY;
    let source = c.host_tmpfs("locked", flags).display().to_string();
    let c = c.mount("/tmp", "bind", &source, &["rbind", "nosuid"]);
    let report = c.report();
    let mounts = report["mounts"].as_array().expect("mounts");
    let options = &mounts.iter().find(|m| m["target"] == "/tmp").expect("/tmp")["options"];
    for flag in ["ro", "nosuid", "nodev", "noexec"] {
        assert!(options.as_array().is_some_and(|o| o.contains(&json!(flag))), "{flag}: {options}");
    }
    for option in ["rw", "suid", "dev", "exec", "noatime"] {
        let at = c.config["mounts"].as_array().expect("mounts").len() - 1;
        let mut other = rootless();
        other.config = c.config.clone();
        let other = other.with(&format!("/mounts/{at}/options"), json!(["rbind", option]));
        other.run(&[]).fails(1, &[&format!("mounts[{at}]"), "may not take off", "mount_setattr"]);
    }
}

/// The same for mounts of a container that runs, and what a user cannot reach is not reached by them.
#[test]
fn mounts_of_a_running_container() {
    known!("runc", "*", "has no mounts");
    if !is_root() {
        skip!("needs root, to mount something on the host");
    }
    private_mounts();
    let mut c = rootless();
    let source = c.host_tmpfs("locked", MsFlags::MS_NODEV | MsFlags::MS_RDONLY).display().to_string();
    let closed = c.host_tmpfs("closed", MsFlags::empty());
    fs::create_dir(closed.join("in")).expect("directory");
    let c = c.caps(&["CAP_SYS_ADMIN"]).idle().up();
    // The bundle was given to the user; this is not his any more.
    chown(&closed, Some(0), Some(0)).expect("chown");
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o700)).expect("mode");
    let add =
        |source: &str| c.call("mounts", &["add", "--mount", &format!("type=bind,source={source},dst=/tmp,rbind")], &[]);
    add(&closed.join("in").display().to_string()).fails(1, &["mounts[0].source", "EACCES"]);
    add(&source).ok();
    let list = c.call("mounts", &["list", "--format", "json"], &[]).ok().json();
    let added = list.as_array().and_then(|l| l.iter().rfind(|m| m["destination"] == "/tmp")).expect("in the list");
    assert!(
        ["ro", "nodev"].iter().all(|o| added["options"].as_array().is_some_and(|l| l.contains(&json!(o)))),
        "{added}"
    );
    let remount = "mount -o remount,bind,rw,nodev /tmp; mount -o remount,bind,ro,dev /tmp; touch /tmp/x";
    assert_ne!(c.exec(&[], &["sh", "-c", remount]).code, 0);
    assert!(!std::path::Path::new(&source).join("x").exists());
    c.call("mounts", &["remove", "--destination", "/tmp"], &[]).ok();
}

#[test]
fn what_lies_below_a_mount_stays_there() {
    if !is_root() {
        skip!("needs root, to mount something on the host");
    }
    private_mounts();
    let mut c = rootless();
    let source = c.host_tmpfs("outer", MsFlags::empty());
    let inner = source.join("inner");
    fs::create_dir(&inner).expect("directory");
    let none = None::<&str>;
    mount(Some("tmpfs"), &inner, Some("tmpfs"), MsFlags::empty(), none).expect("tmpfs");
    let c = c.mount("/tmp", "bind", &source.display().to_string(), &["bind"]);
    let out = c.run(&[]);
    let _ = nix::mount::umount2(&inner, nix::mount::MntFlags::MNT_DETACH);
    out.fails(1, &["mounts[7].source", "rbind"]);
}

/// Where something covers a part of the caller's procfs, as in a container, the kernel lets no user namespace have a whole one.
#[test]
fn a_covered_procfs_is_explained() {
    if !is_root() {
        skip!("needs root, to cover a part of /proc");
    }
    private_mounts();
    let none = None::<&str>;
    // Another whole one elsewhere would do.
    for line in runtime_tests::host_mounts().iter().filter(|m| m.contains(" - proc ")) {
        let place = line.split(' ').nth(4).expect("a mount point");
        if place != "/proc" {
            nix::mount::umount2(place, nix::mount::MntFlags::MNT_DETACH).expect("detach another procfs");
        }
    }
    mount(Some("/dev/null"), "/proc/version", none, MsFlags::MS_BIND, none).expect("cover /proc/version");
    let out = rootless().run(&[]);
    nix::mount::umount2("/proc/version", nix::mount::MntFlags::MNT_DETACH).expect("uncover it");
    out.fails(1, &["mounts[0]: mount proc", "EPERM", "unmasked", "rbind"]);
}

#[test]
fn a_terminal() {
    let c = rootless().with("/process/terminal", json!(true)).args(&["tty"]);
    let socket = c.dir.join("console.sock");
    let receiver = console_socket(&socket);
    c.create(&["--console-socket", "console.sock"]).ok();
    let (_, fds) = receiver.join().expect("the console socket");
    assert_eq!(fds.len(), 1);
    let mut master = fs::File::from(fds.into_iter().next().expect("a terminal"));
    c.start().ok();
    let seen = runtime_tests::read_until(&mut master, "/dev/");
    assert!(seen.contains("/dev/"), "{seen}");
}

#[test]
fn an_oom_score_is_raised_and_not_lowered() {
    let c = rootless().with("/process/oomScoreAdj", json!(321)).idle().up();
    let score = |pid: u32| fs::read_to_string(format!("/proc/{pid}/oom_score_adj")).expect("oom_score_adj");
    assert_eq!(score(c.pid()), "321\n");
    assert_eq!(c.exec(&[], &["cat", "/proc/self/oom_score_adj"]).ok().stdout, "321\n");
    known!("runc", "*", "one that cannot be lowered is an error");
    let own = score(std::process::id());
    if own != "0\n" {
        skip!("the caller's own score is {own}");
    }
    let c = rootless().with("/process/oomScoreAdj", json!(-321)).args(&["cat", "/proc/self/oom_score_adj"]);
    let out = c.run(&[]).ok();
    assert_eq!(out.stdout, own);
    assert!(out.stderr.contains("process.oomScoreAdj: -321 is left out"), "{out}");
}

#[test]
fn a_limit_that_may_not_be_raised_is_named() {
    let mut c = rootless();
    c.config["process"]["rlimits"] = json!([{ "type": "RLIMIT_NOFILE", "soft": 1 << 28, "hard": 1 << 28 }]);
    c.run(&[]).fails(1, &["process.rlimits[0]: set RLIMIT_NOFILE", "CAP_SYS_RESOURCE"]);
}

#[test]
fn the_state_is_the_users_alone() {
    known!("runc", "*", "its state directories can be searched by all");
    let c = rootless().idle().up();
    for dir in [c.root.clone(), c.root.join(&c.id)] {
        let meta = fs::metadata(&dir).expect("state directory");
        assert_eq!((meta.uid(), meta.mode() & 0o077), (c.caller_uid(), 0), "{}", dir.display());
    }
}

#[test]
fn hooks_run_as_the_user() {
    let c = rootless().idle();
    let hook = json!([{ "path": "/bin/sh", "args": ["sh", "-c", format!("id -u >{}/hook", c.dir.display())] }]);
    let c = c.with("/hooks", json!({ "createRuntime": hook })).up();
    assert_eq!(fs::read_to_string(c.dir.join("hook")).expect("hook"), format!("{}\n", c.caller_uid()));
}

/// As podman does it: the runtime is root in a user namespace already.
#[test]
fn root_of_a_user_namespace_needs_none_in_the_configuration() {
    let mut c = rootless();
    c.remove_namespace("user");
    let linux = c.config["linux"].as_object_mut().expect("linux");
    linux.remove("uidMappings");
    linux.remove("gidMappings");
    let c = c.with("/process/oomScoreAdj", json!(-5)).idle();
    c.write_config();
    known!("runc", "*", "a score that cannot be lowered is an error");
    call_with(&c, "X=y unshare -rm", "", "run", &["--detach"]).ok();
    let pid = c.pid();
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("status");
    let uid = c.caller_uid();
    assert!(status.contains(&format!("Uid:\t{uid}\t")), "{status}");
}

/// What `spec --rootless` writes is a container that runs.
#[test]
fn the_document_of_spec_runs() {
    let mut c = rootless();
    c.write_config();
    fs::remove_file(c.dir.join("config.json")).expect("remove config.json");
    call_with(&c, "", "spec --rootless; true", "#", &[]).ok();
    let document = fs::read_to_string(c.dir.join("config.json")).expect("config.json");
    let document: Value = serde_json::from_str(&document).expect("JSON");
    assert_eq!(document["linux"]["uidMappings"], json!([{ "containerID": 0, "hostID": c.caller_uid(), "size": 1 }]));
    c.config = document;
    let c = c.with("/process/terminal", json!(false)).with("/process/args", json!(["guest", "report"]));
    let report = c.report();
    assert_eq!(report["uids"], json!([0, 0, 0, 0]));
    let mounts = report["mounts"].as_array().expect("mounts");
    let options = |place: &str| mounts.iter().rfind(|m| m["target"] == place).map(|m| &m["options"]);
    assert!(options("/sys").is_some_and(|o| o.as_array().is_some_and(|o| o.contains(&json!("ro")))), "{report}");
}

#[test]
fn clock_offsets() {
    known!("runc", "1.2", "time namespaces are runtime-spec 1.1");
    let offsets = json!({ "monotonic": { "secs": 172_800, "nanosecs": 0 } });
    let report = rootless().namespace("time", "").with("/linux/timeOffsets", offsets).report();
    let uptime = fs::read_to_string("/proc/uptime").expect("uptime");
    let uptime: f64 = uptime.split(' ').next().expect("a number").parse().expect("a number");
    let monotonic = report["monotonic"].as_i64().expect("seconds");
    assert!((monotonic - uptime as i64 - 172_800).abs() < 3600, "{report}");
}

#[test]
fn a_container_that_waits_holds_nothing_of_the_host() {
    known!("runc", "*", "init holds the start gate's file");
    let c = rootless().idle();
    c.create(&[]).ok();
    let open = fs::read_dir(format!("/proc/{}/fd", c.pid())).expect("its descriptors").flatten();
    for fd in open {
        let target = fs::read_link(fd.path()).unwrap_or_default();
        let number: u32 = fd.file_name().to_string_lossy().parse().expect("a number");
        assert!(number < 3 || target.to_string_lossy().contains(":["), "{number} -> {}", target.display());
    }
}

#[test]
fn exec_into_a_sub_cgroup_that_cannot_be() {
    let c = rootless().idle().up();
    known!("runc", "*", "the flag is ignored");
    // A user of cgroup v2 may have a delegated one.
    let why: &[&str] = if cgroup_v2() && !is_root() { &["--cgroup", "x"] } else { &["--cgroup x", "no cgroup"] };
    c.exec(&["--cgroup", "x"], &["true"]).fails(255, why);
}

/// A user namespace of another container of the same user.
#[test]
fn a_joined_user_namespace() {
    known!("runc", "1.2", "the mappings have to be given beside it");
    let pod = rootless().idle().up();
    let pid = pod.pid();
    let mut c = rootless().namespace("user", &format!("/proc/{pid}/ns/user"));
    let linux = c.config["linux"].as_object_mut().expect("linux");
    linux.remove("uidMappings");
    linux.remove("gidMappings");
    let c = c.namespace("network", &format!("/proc/{pid}/ns/net")).namespace("ipc", &format!("/proc/{pid}/ns/ipc"));
    let report = c.beside(&pod).report();
    assert_eq!(report["uids"][0], 0);
    for (kind, same) in [("user", true), ("net", true), ("ipc", true), ("pid", false), ("mnt", false)] {
        let its: Value = json!(fs::read_link(format!("/proc/{pid}/ns/{kind}")).expect("namespace link"));
        assert_eq!(report["namespaces"][kind] == its, same, "{kind}");
    }
}

/// As under rootless podman: the runtime is root of a user namespace, to which its own other namespaces do not belong, so it cannot come
/// back to them from those of a container.
#[test]
fn namespaces_of_another_container_are_joined_from_a_user_namespace() {
    let pod = rootless().idle().up();
    let pid = pod.pid();
    let inside = format!("X=y nsenter --user --preserve-credentials --target {pid} unshare --mount");
    let beside = |kinds: &[(&str, &str)]| {
        let c = rootless().without_mount("/sys").without_mount("/sys/fs/cgroup").without_mount("/dev/mqueue");
        kinds.iter().fold(c, |c, (kind, file)| c.namespace(kind, &format!("/proc/{pid}/ns/{file}")))
    };
    let check = |c: &Container, shared: &[&str], others: &[&str]| {
        c.write_config();
        let report = call_with(c, &inside, "", "run", &[]).ok().json();
        for (kind, same) in shared.iter().map(|k| (k, true)).chain(others.iter().map(|k| (k, false))) {
            let its: Value = json!(fs::read_link(format!("/proc/{pid}/ns/{kind}")).expect("namespace link"));
            assert_eq!(report["namespaces"][*kind] == its, same, "{kind} {report}");
        }
        assert_eq!(report["uids"][0], 0);
    };
    let mut c = beside(&[("pid", "pid"), ("network", "net"), ("ipc", "ipc")]);
    c.remove_namespace("user");
    let linux = c.config["linux"].as_object_mut().expect("linux");
    linux.remove("uidMappings");
    linux.remove("gidMappings");
    check(&c, &["pid", "net", "ipc", "user"], &["mnt", "uts"]);
    // With a user namespace of its own below that one.
    let one = json!([{ "containerID": 0, "hostID": 0, "size": 1 }]);
    let c = beside(&[("network", "net"), ("ipc", "ipc")]);
    let c = c.with("/linux/uidMappings", one.clone()).with("/linux/gidMappings", one);
    check(&c, &["net", "ipc"], &["mnt", "uts", "user", "pid"]);
    // Of `exec` as well.
    assert_eq!(pod.exec_report(&[])["uids"][0], 0);
}
