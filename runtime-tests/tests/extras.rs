//! What no specification asks for: annotations that begin with `run.rrt.`.

use std::fs;

use runtime_tests::{Container, known, runtime, skip};
use serde_json::{Value, json};

/// A container with the annotation.
fn annotated(name: &str, value: &str) -> Container {
    Container::new().with("/annotations", json!({ name: value }))
}

fn landlock(rules: Value) -> Container {
    annotated("run.rrt.landlock", &rules.to_string())
}

/// Whether this kernel has Landlock of that ABI; a runtime that is not ours has none.
fn has_landlock() -> bool {
    fs::read_to_string("/sys/kernel/security/lsm").map_or(true, |lsm| lsm.contains("landlock"))
}

/// What every program needs of the root file system here.
fn basics() -> Value {
    json!({ "path": "/", "allow": ["read", "execute"] })
}

#[test]
fn landlock_allows_only_what_its_rules_say() {
    known!("runc", "*", "has no Landlock");
    if !has_landlock() {
        skip!("this kernel has no Landlock");
    }
    let attempts =
        ["create", "/out", "create", "/in/file", "read", "/secret/file", "list", "/secret", "exec", "/tools/x"];
    let rules = json!({ "paths": [
        { "path": ["/proc", "/dev", "/bin", "/etc"], "allow": ["read", "execute"] },
        { "path": "/dev/null", "allow": ["all"] },
        { "path": "/in", "allow": ["write", "read"] },
    ] });
    let c = landlock(rules).args(&[&["guest", "try"], &attempts[..]].concat());
    for dir in ["in", "secret", "tools"] {
        fs::create_dir(c.path(dir)).expect("directory");
    }
    fs::write(c.path("/secret/file"), "x").expect("file");
    fs::copy(c.path("/bin/busybox"), c.path("/tools/x")).expect("program");
    assert_eq!(c.report(), json!(["EACCES", 0, "EACCES", "EACCES", "EACCES"]));
    // Without the annotation nothing of it is denied.
    let free = Container::new().args(&[&["guest", "try"], &attempts[..6]].concat());
    fs::create_dir(free.path("/in")).expect("directory");
    fs::create_dir(free.path("/secret")).expect("directory");
    fs::write(free.path("/secret/file"), "x").expect("file");
    assert_eq!(free.report(), json!([0, 0, 0]));
}

#[test]
fn landlock_holds_for_exec_for_root_and_without_no_new_privs() {
    known!("runc", "*", "has no Landlock");
    if !has_landlock() {
        skip!("this kernel has no Landlock");
    }
    for no_new_privs in [true, false] {
        let c = landlock(json!({ "paths": [basics(), { "path": "/dev/null", "allow": ["all"] }] }));
        let c = c
            .with("/process/noNewPrivileges", json!(no_new_privs))
            .caps(&["CAP_DAC_OVERRIDE", "CAP_SYS_ADMIN"])
            .idle()
            .up();
        let found = c.exec(&["--cap", "CAP_SYS_ADMIN"], &["guest", "try", "create", "/x", "mkdir", "/d"]).ok().json();
        assert_eq!(found, json!(["EACCES", "EACCES"]), "no_new_privs {no_new_privs}");
        assert_eq!(c.attempt(&["read", "/bin/busybox", "list", "/"])[0], 0);
    }
}

#[test]
fn landlock_in_a_user_namespace_and_as_a_user() {
    known!("runc", "*", "has no Landlock");
    if !has_landlock() {
        skip!("this kernel has no Landlock");
    }
    let map = json!([{ "containerID": 0, "hostID": 100_000, "size": 65536 }]);
    let c = landlock(json!({ "paths": [basics()] })).namespace("user", "");
    let c = c.with("/linux/uidMappings", map.clone()).with("/linux/gidMappings", map);
    let c = c.with("/process/user", json!({ "uid": 7, "gid": 7 })).args(&[
        "guest",
        "try",
        "create",
        "/tmp/x",
        "read",
        "/bin/busybox",
    ]);
    let c = c.mount("/tmp", "tmpfs", "tmpfs", &["mode=1777"]);
    assert_eq!(c.report(), json!(["EACCES", 0]));
}

#[test]
fn landlock_closes_ports() {
    known!("runc", "*", "has no Landlock");
    if !has_landlock() {
        skip!("this kernel has no Landlock");
    }
    let c = landlock(json!({ "tcp": { "bind": [8080] } })).idle().up();
    let listen =
        |port: &str| c.exec(&[], &["sh", "-c", &format!("timeout 1 nc -l -p {port} 127.0.0.1 2>&1; :")]).ok().stdout;
    assert!(!listen("8080").contains("ermission"), "{}", listen("8080"));
    assert!(listen("8081").contains("ermission denied"), "{}", listen("8081"));
}

#[test]
fn landlock_rules_that_are_wrong_are_named() {
    known!("runc", "*", "has no Landlock");
    for (rules, needle) in [
        (json!({ "paths": [{ "path": "/", "allow": ["rad"] }] }), "paths[0].allow[0]"),
        (json!({ "paths": [{ "path": "/no/such", "allow": ["read"] }, basics()] }), "/no/such"),
        (json!({ "path": 1 }), "unknown field"),
    ] {
        let c = landlock(rules);
        c.create(&[]).fails(1, &["annotations[", "run.rrt.landlock", needle]);
        c.assert_gone();
    }
    // The same missing path is passed over when asked for.
    let c = landlock(json!({ "bestEffort": true, "paths": [{ "path": "/no/such", "allow": ["read"] }, basics()] }));
    c.args(&["true"]).run(&[]).ok();
}

#[test]
fn landlock_paths_stay_in_the_container() {
    known!("runc", "*", "has no Landlock");
    if !has_landlock() {
        skip!("this kernel has no Landlock");
    }
    // A link to the host's file leads to the container's: which there is not, so that nothing is allowed by it.
    let c = landlock(json!({ "bestEffort": true, "paths": [basics(), { "path": "/link", "allow": ["all"] }] }));
    let out = c.dir.join("outside");
    fs::write(&out, "").expect("file");
    std::os::unix::fs::symlink(&out, c.path("/link")).expect("link");
    c.args(&["true"]).run(&[]).ok();
    // A magic link would lead out of any root.
    let c = landlock(json!({ "paths": [basics(), { "path": "/proc/self/root", "allow": ["all"] }] }));
    c.create(&[]).fails(1, &["/proc/self/root", "ELOOP"]);
}

#[test]
fn core_scheduling_gives_a_cookie_of_its_own() {
    known!("runc", "*", "has no core scheduling");
    let c = annotated("run.rrt.core-sched", "true").idle();
    let out = c.create(&[]);
    if out.code != 0 {
        let why = ["CONFIG_SCHED_CORE", "no SMT"];
        assert!(why.iter().any(|w| out.stderr.contains(w)) && out.stderr.contains("run.rrt.core-sched"), "{out}");
        c.assert_gone();
        skip!("no core scheduling here: no SMT, or a kernel without it");
    }
    c.start().ok();
    let init = core_cookie(c.pid());
    assert_ne!(init, 0);
    let exec = c.spawn("exec", &[], &["sh", "-c", "echo here; sleep 3600"]);
    exec.wait_for("here");
    for pid in c.call("ps", &["--format", "json"], &[]).ok().json().as_array().into_iter().flatten() {
        assert_eq!(core_cookie(pid.as_u64().expect("a pid") as u32), init);
    }
}

/// `prctl(PR_SCHED_CORE, PR_SCHED_CORE_GET, pid, PIDTYPE_PID, &cookie)`
fn core_cookie(pid: u32) -> u64 {
    let mut cookie = 0u64;
    // SAFETY: the kernel writes one u64 to the address given. prctl(2)
    let ret = unsafe { nix::libc::prctl(62, 0, pid, 0, &raw mut cookie) };
    assert_eq!(ret, 0, "PR_SCHED_CORE_GET: {}", std::io::Error::last_os_error());
    cookie
}

#[test]
fn an_unknown_annotation_of_ours_is_refused() {
    known!("runc", "*", "knows none of them");
    annotated("run.rrt.landlok", "{}").run(&[]).fails(1, &["run.rrt.landlok", "run.rrt.landlock"]);
    annotated("run.rrt.core-sched", "maybe").run(&[]).fails(1, &["run.rrt.core-sched", "maybe"]);
    annotated("org.example", "x").args(&["true"]).run(&[]).ok();
}

#[test]
fn features_list_the_annotations() {
    if !runtime().is_ours() {
        return;
    }
    let features = Container::new().call_from_shell("exec \"$1\" features", "features", &[], &[]).ok().json();
    let unsafe_ones = features["potentiallyUnsafeConfigAnnotations"].as_array().expect("a list");
    assert!(unsafe_ones.contains(&json!("run.rrt.")) && unsafe_ones.contains(&json!("run.oci.")), "{features}");
    let named = features["annotations"]["io.rrt.annotations"].as_str().unwrap_or_default();
    assert!(named.split(',').any(|n| n == "run.rrt.landlock"), "{features}");
}

#[test]
fn wait_tells_the_exit_status_of_a_detached_container() {
    known!("runc", "*", "has no wait");
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    let mut numbers = release.split(['.', '-']).map_while(|n| n.parse::<u32>().ok());
    if (numbers.next(), numbers.next()) < (Some(6), Some(15)) {
        skip!("before Linux 6.15 only the parent of a process learns its exit status");
    }
    for (script, status) in [("exit 7", 7), ("kill -9 $$", 0), ("exit 0", 0)] {
        // As process 1 it cannot kill itself by a signal; the container is then killed from outside.
        let by_signal = script.starts_with("kill");
        let c = Container::new().sh(if by_signal { "sleep 3600" } else { script });
        c.create(&[]).ok();
        let mut waiter = c.spawn("wait", &[], &[]);
        c.start().ok();
        if by_signal {
            c.kill("KILL").ok();
        }
        assert_eq!(waiter.wait(), 0, "{}", waiter.stdout());
        assert_eq!(waiter.stdout(), format!("{}\n", if by_signal { 137 } else { status }), "{script}");
        // Whoever comes afterwards is told that it is too late, or finds the zombie.
        let late = c.call("wait", &[], &[]);
        assert!(late.code == 0 || late.stderr.contains("container not running"), "{late}");
    }
}

#[test]
fn wait_for_one_that_is_not_there() {
    known!("runc", "*", "has no wait");
    Container::new().call("wait", &[], &[]).fails(1, &["does not exist"]);
}

#[test]
fn init_killed_for_lack_of_memory_says_so_with_the_limit() {
    known!("runc", "*", "says that a pipe was closed");
    let mut seen = false;
    // Where exactly it begins to be too little differs by kernel; somewhere here it is.
    for pages in [2, 4, 8, 12, 16, 24, 32] {
        let bytes = pages * 4096;
        let c = Container::new().args(&["true"]).with("/linux/resources/memory", json!({ "limit": bytes }));
        let out = c.create(&[]);
        if out.code == 0 {
            c.delete(&["--force"]).ok();
            continue;
        }
        let limit = format!("linux.resources.memory.limit is {bytes}; raise it");
        // systemd may remove the count together with the cgroup, before it is read.
        seen |= runtime().uses_systemd() && out.stderr.contains("systemd has already removed the cgroup");
        seen |= out.stderr.contains("killed by the kernel for lack of memory") && out.stderr.contains(&limit);
        out.fails(1, &["linux.resources.memory.limit"]);
        c.assert_gone();
    }
    assert!(seen, "no limit was one at which init gets killed");
}
