//! The runtime inside of something: a user namespace that others have made, a container of root's, a container of a user's.
//!
//! Run by root, the tests of a user call the runtime as a user who is in no database; run by a user, as that one.

use std::fs;

use nix::mount::{MsFlags, mount};
use runtime_tests::{Container, Output, cgroup_v2, known, private_mounts, skip};
use rustix::process::geteuid;
use serde_json::{Value, json};

/// Nobody's, on any machine.
const USER: u32 = 54_321;

/// Without a user namespace of its own.
fn without_user_namespace(mut c: Container) -> Container {
    c.remove_namespace("user");
    let linux = c.config["linux"].as_object_mut().expect("linux");
    linux.remove("uidMappings");
    linux.remove("gidMappings");
    c
}

/// Calls `run` as the user, by way of the program `by`.
fn run_by(c: &Container, by: &str) -> Output {
    c.write_config();
    let user = c.caller.map_or_else(String::new, |(u, g)| format!("setpriv --reuid {u} --regid {g} --clear-groups"));
    c.call_from_shell(&format!("exec {user} env X=y {by} \"$@\""), "run", &[], &[])
}

#[test]
fn root_of_a_user_namespace_with_and_without_a_mount_namespace_of_its_own() {
    for by in ["unshare -r", "unshare -rm"] {
        let c = without_user_namespace(Container::new().rootless(USER));
        assert_eq!(run_by(&c, by).ok().json()["uids"], json!([0, 0, 0, 0]), "{by}");
    }
    known!("runc", "*", "does not leave an owner out that is not mapped");
    let mut c = without_user_namespace(Container::new().rootless(USER));
    let mounts = c.config["mounts"].as_array_mut().expect("mounts");
    let devpts = mounts.iter_mut().find(|m| m["type"] == "devpts").expect("devpts");
    devpts["options"] = json!(["newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]);
    let out = run_by(&c, "unshare -rm").ok();
    assert!(out.stderr.contains("gid=5 is not mapped in the runtime's user namespace; left out"), "{out}");
}

#[test]
fn ids_that_the_runtimes_user_namespace_has_not_are_named() {
    known!("runc", "*", "the kernel's errno alone");
    let c = Container::new()
        .rootless(USER)
        .with("/linux/uidMappings", json!([{ "containerID": 0, "hostID": 7, "size": 1 }]));
    run_by(&c, "unshare -rm").fails(1, &["linux.uidMappings[0].hostID", "7:1", "which has 0:1", "spec --rootless"]);
}

/// What the kernel refuses to a user on the host it allows where file system and network belong to the user's own namespaces.
#[test]
fn idmapped_mounts_and_network_devices_of_a_user_namespace() {
    known!("runc", "1.2", "neither was there");
    let c = without_user_namespace(Container::new().rootless(USER));
    let source = c.dir.join("source");
    fs::create_dir(&source).expect("directory");
    let ids = json!([{ "containerID": 0, "hostID": 0, "size": 1 }]);
    let source = source.display().to_string();
    let bind = json!({ "destination": "/mnt", "type": "none", "source": source, "options": ["rbind"],
        "uidMappings": ids, "gidMappings": ids });
    let c = c.with("/mounts/-", bind).args(&["cat", "/proc/self/mountinfo"]);
    let of_tmpfs = format!("unshare -rm sh -c 'mount -t tmpfs none {source} && exec \"$@\"' sh");
    let table = run_by(&c, &of_tmpfs).ok().stdout;
    assert!(table.lines().any(|l| l.contains(" /mnt ") && l.contains("idmapped")), "{table}");
    // And not of a file system of the host's.
    run_by(&c, "unshare -rm").fails(1, &["mounts[7]", "EPERM", "may not administer its file system"]);

    let c = without_user_namespace(Container::new().rootless(USER)).with("/linux/netDevices", json!({ "d0": {} }));
    let c = c.args(&["cat", "/proc/net/dev"]);
    let by = "unshare -rmn sh -c 'ip link add d0 type veth peer name d1 && exec \"$@\"' sh";
    let devices = run_by(&c, by).ok().stdout;
    assert!(devices.contains("d0:"), "{devices}");
}

/// A user's: the directory of his login sessions, where no variable names one.
#[test]
fn the_state_directory_of_a_user_without_the_variable() {
    known!("runc", "*", "has only the variable");
    if !geteuid().is_root() {
        skip!("needs root, to make /run/user/UID");
    }
    private_mounts();
    mount(None::<&str>, "/run", Some("tmpfs"), MsFlags::empty(), Some("mode=755")).expect("a /run of this test");
    let mut c = Container::new().rootless(USER).idle();
    c.write_config();
    let call = format!(
        "exec setpriv --reuid {USER} --regid {USER} --clear-groups env -u XDG_RUNTIME_DIR \"$1\" run --detach {} </dev/null",
        c.id
    );
    let refused = c.call_from_shell(&call, "run", &[], &[]);
    refused.fails(1, &["state directory", "give --root, or set XDG_RUNTIME_DIR to a directory of your own"]);
    let run = format!("/run/user/{USER}");
    fs::create_dir_all(&run).expect("/run/user/UID");
    // Not if it is another's.
    c.call_from_shell(&call, "run", &[], &[]).fails(1, &["XDG_RUNTIME_DIR"]);
    std::os::unix::fs::chown(&run, Some(USER), Some(USER)).expect("give /run/user/UID to the user");
    c.call_from_shell(&call, "run", &[], &[]).ok();
    c.root = format!("{run}/rrt").into();
    assert_eq!(c.state()["status"], "running");
    c.delete(&["--force"]).ok();
}

/// A container with the runtime in it, and below `/in` a bundle; `config` is the inner container's.
fn outer(c: Container, config: &Value, flags: &str) -> Container {
    fs::copy(&c.binary, c.path("/bin/rt")).expect("the runtime in the container");
    for dir in ["bin", "dev", "proc", "sys", "tmp"] {
        fs::create_dir_all(c.path("/in/rootfs").join(dir)).expect("the inner root file system");
    }
    for file in ["busybox", "guest"] {
        fs::hard_link(c.path("/bin").join(file), c.path("/in/rootfs/bin").join(file)).expect("the inner programs");
    }
    fs::write(c.path("/in/config.json"), config.to_string()).expect("the inner config.json");
    c.sh(&format!("exec rt {flags} --root /tmp/state run --bundle /in inner"))
        .with("/linux/maskedPaths", json!([]))
        .with("/linux/readonlyPaths", json!([]))
}

/// The inner container's, with a user namespace in which its root is that of the outer one, or without.
fn inner(user_namespace: bool) -> Value {
    let c = without_user_namespace(Container::new().rootless(0)).with("/linux/maskedPaths", json!([]));
    if !user_namespace {
        return c.config.clone();
    }
    let one = json!([{ "containerID": 0, "hostID": 0, "size": 1 }]);
    c.namespace("user", "").with("/linux/uidMappings", one.clone()).with("/linux/gidMappings", one).config.clone()
}

const ADMIN: [&str; 9] = [
    "CAP_SYS_ADMIN",
    "CAP_SETUID",
    "CAP_SETGID",
    "CAP_SETPCAP",
    "CAP_KILL",
    "CAP_CHOWN",
    "CAP_NET_ADMIN",
    "CAP_NET_BIND_SERVICE",
    "CAP_AUDIT_WRITE",
];

#[test]
fn in_a_users_container() {
    known!("runc", "*", "is no static program that could be put there");
    let user = |config: &Value, caps: &[&str]| outer(Container::new().rootless(USER), config, "").caps(caps);
    // With CAP_SYS_ADMIN in the outer user namespace the inner container needs none of its own.
    assert_eq!(user(&inner(false), &ADMIN).report()["uids"], json!([0, 0, 0, 0]));
    // The host's cgroups in the mount table, below the container's own.
    let c = user(&inner(false), &ADMIN).without_mount("/sys").without_mount("/sys/fs/cgroup");
    let c = c.mount("/sys", "none", "/sys", &["rbind", "ro"]).mount("/sys/fs/cgroup", "cgroup", "cgroup", &["ro"]);
    assert_eq!(c.report()["uids"], json!([0, 0, 0, 0]));
    // Without it, it needs one, and the right to map root.
    user(&inner(false), &[]).run(&[]).fails(1, &["no user namespace", "container that it runs in with CAP_SYS_ADMIN"]);
    assert_eq!(user(&inner(true), &["CAP_SETFCAP"]).report()["uids"], json!([0, 0, 0, 0]));
    user(&inner(true), &[]).run(&[]).fails(1, &["linux.uidMappings", "CAP_SETFCAP", "the container that it runs in"]);
    // What the outer container's filter forbids the runtime in it.
    let profile = json!({ "defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{ "names": ["sethostname"], "action": "SCMP_ACT_ERRNO" }] });
    let filtered = user(&inner(true), &["CAP_SETFCAP"]).with("/linux/seccomp", profile);
    filtered.run(&[]).fails(1, &["sethostname", "under a seccomp filter", "seccomp=unconfined"]);
    let covered = user(&inner(true), &["CAP_SETFCAP"]).with("/linux/maskedPaths", json!(["/proc/kcore", "/proc/keys"]));
    covered.run(&[]).fails(1, &["mounts[0]: mount proc", "/proc unmasked"]);
}

#[test]
fn in_a_container_of_roots() {
    known!("runc", "*", "is no static program that could be put there");
    if !geteuid().is_root() {
        skip!("needs root");
    }
    let root = |config: &Value, flags: &str| outer(Container::new(), config, flags).caps(&ADMIN);
    if !cgroup_v2() {
        let out = root(&inner(false), "").run(&[]);
        out.fails(1, &["cgroup", "EROFS", "mount it without", "--cgroup-manager disabled"]);
    }
    let c = root(&inner(false), "--cgroup-manager disabled");
    assert_eq!(c.report()["uids"], json!([0, 0, 0, 0]));
    // An ordinary user of the container.
    let own = json!([{ "containerID": 0, "hostID": 1000, "size": 1 }]);
    let mut config = inner(true);
    config["linux"]["uidMappings"] = own.clone();
    config["linux"]["gidMappings"] = own;
    let c = outer(Container::new(), &config, "").with("/process/user", json!({ "uid": 1000, "gid": 1000 }));
    assert_eq!(c.report()["uids"], json!([0, 0, 0, 0]));
}
