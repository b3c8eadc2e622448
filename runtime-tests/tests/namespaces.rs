//! `linux.namespaces`: new ones, joined ones, and what belongs to them.

use std::fs;

use runtime_tests::{Container, known, until};
use serde_json::{Value, json};

const KINDS: [(&str, &str); 8] = [
    ("pid", "pid"),
    ("network", "net"),
    ("ipc", "ipc"),
    ("uts", "uts"),
    ("mount", "mnt"),
    ("cgroup", "cgroup"),
    ("user", "user"),
    ("time", "time"),
];

fn own(kind: &str) -> String {
    link("self", kind)
}

fn link(pid: impl std::fmt::Display, kind: &str) -> String {
    let link = fs::read_link(format!("/proc/{pid}/ns/{kind}")).expect("namespace link");
    link.to_str().expect("ASCII").to_owned()
}

fn mapping() -> Value {
    json!([{ "containerID": 0, "hostID": 100_000, "size": 65536 }])
}

fn with_user_namespace(c: Container) -> Container {
    c.namespace("user", "").with("/linux/uidMappings", mapping()).with("/linux/gidMappings", mapping())
}

#[test]
fn each_is_new_when_listed_and_the_callers_when_not() {
    let c = Container::new().namespace("cgroup", "");
    let report = c.report();
    for (kind, file) in KINDS {
        let new = !matches!(kind, "user" | "time");
        assert_eq!(report["namespaces"][file] != json!(own(file)), new, "{kind}: {}", report["namespaces"]);
    }
}

#[test]
fn none_but_the_mount_namespace() {
    let mut c = Container::new();
    for kind in ["pid", "network", "ipc", "uts"] {
        c.remove_namespace(kind);
    }
    c.config.as_object_mut().expect("object").remove("hostname");
    let report = c.without_mount("/sys").report();
    for (kind, file) in KINDS {
        assert_eq!(report["namespaces"][file] == json!(own(file)), kind != "mount", "{kind}");
    }
}

#[test]
fn time_namespace_with_offsets() {
    known!("runc", "1.2", "time namespaces are runtime-spec 1.1");
    let c = Container::new().namespace("time", "").with(
        "/linux/timeOffsets",
        json!({ "monotonic": { "secs": 172_800, "nanosecs": 0 }, "boottime": { "secs": 604_800, "nanosecs": 0 } }),
    );
    let report = c.report();
    assert_ne!(report["namespaces"]["time"], json!(own("time")));
    let seconds = |name: &str| report[name].as_i64().expect("seconds");
    let uptime: f64 = fs::read_to_string("/proc/uptime")
        .expect("uptime")
        .split(' ')
        .next()
        .expect("a number")
        .parse()
        .expect("a number");
    let uptime = uptime as i64;
    assert!((seconds("monotonic") - uptime - 172_800).abs() < 3600, "{report}");
    assert!((seconds("boottime") - uptime - 604_800).abs() < 3600, "{report}");
}

#[test]
fn joined_by_path() {
    let pod = Container::new().namespace("cgroup", "").idle().up();
    let pid = pod.pid();
    for (kind, file) in KINDS.into_iter().filter(|(kind, _)| !matches!(*kind, "mount" | "user" | "time")) {
        let c = Container::new().namespace(kind, &format!("/proc/{pid}/ns/{file}"));
        let mut c = if kind == "uts" { c.with("/hostname", Value::Null) } else { c };
        if kind == "uts" {
            c.config.as_object_mut().expect("object").remove("hostname");
        }
        let report = c.report();
        assert_eq!(report["namespaces"][file], json!(link(pid, file)), "{kind}");
    }
}

#[test]
fn user_namespace_joined_by_path() {
    let pod = with_user_namespace(Container::new()).idle().up();
    let pid = pod.pid();
    let path = |file: &str| format!("/proc/{pid}/ns/{file}");
    // The network and ipc namespaces that belong to it, or sysfs and mqueue could not be mounted.
    let c = with_user_namespace(Container::new())
        .namespace("user", &path("user"))
        .namespace("network", &path("net"))
        .namespace("ipc", &path("ipc"));
    let report = c.report();
    assert_eq!(report["namespaces"]["user"], json!(link(pid, "user")));
    assert_eq!(report["uids"][0], 0);
}

#[test]
fn time_namespace_joined_by_path() {
    known!("runc", "1.2", "time namespaces are runtime-spec 1.1");
    let pod = Container::new().namespace("time", "").idle().up();
    let pid = pod.pid();
    let report = Container::new().namespace("time", &format!("/proc/{pid}/ns/time")).report();
    assert_eq!(report["namespaces"]["time"], json!(link(pid, "time")));
}

#[test]
fn a_pod_shares_network_ipc_uts_and_pid() {
    let pod = Container::new().idle().up();
    let pid = pod.pid();
    let join = |c: Container| {
        let mut c = ["network", "ipc", "uts", "pid"].into_iter().fold(c, |c, kind| {
            let file = if kind == "network" { "net" } else { kind };
            c.namespace(kind, &format!("/proc/{pid}/ns/{file}"))
        });
        c.config.as_object_mut().expect("object").remove("hostname");
        c
    };
    let one = join(Container::new()).idle().up();
    let two = join(Container::new()).idle().up();
    let (a, b) = (one.exec_report(&[]), two.exec_report(&[]));
    for kind in ["net", "ipc", "uts", "pid"] {
        assert_eq!(a["namespaces"][kind], b["namespaces"][kind], "{kind}");
    }
    assert_ne!(a["namespaces"]["mnt"], b["namespaces"]["mnt"]);
    assert_eq!(a["hostname"], "box");
    // Each is deleted without the others.
    one.delete(&["--force"]).ok();
    one.assert_gone();
    assert_eq!(two.state()["status"], "running");
    assert_eq!(pod.state()["status"], "running");
}

#[test]
fn delete_kills_all_of_a_container_in_a_shared_pid_namespace() {
    let pod = Container::new().idle().up();
    let c =
        Container::new().namespace("pid", &format!("/proc/{}/ns/pid", pod.pid())).sh("sleep 3600 & sleep 3600 & wait");
    let c = c.up();
    until("its two processes", || {
        c.call("ps", &["--format", "json"], &[]).ok().json().as_array().is_some_and(|p| p.len() == 3)
    });
    c.delete(&["--force"]).ok();
    c.assert_gone();
    assert_eq!(pod.state()["status"], "running");
}

#[test]
fn user_namespace_with_mappings() {
    let c = with_user_namespace(Container::new()).idle().up();
    let report = c.exec_report(&[]);
    assert_eq!(report["uids"], json!([0, 0, 0, 0]));
    let status = fs::read_to_string(format!("/proc/{}/status", c.pid())).expect("status");
    assert!(status.contains("Uid:\t100000\t100000\t100000\t100000"), "{status}");
    assert!(status.contains("Gid:\t100000\t100000\t100000\t100000"), "{status}");
    let map = fs::read_to_string(format!("/proc/{}/uid_map", c.pid())).expect("uid_map");
    assert_eq!(map.split_whitespace().collect::<Vec<_>>(), ["0", "100000", "65536"]);
}

#[test]
fn user_namespace_with_many_mappings() {
    let many: Vec<_> = (0..20).map(|n| json!({ "containerID": n, "hostID": 200_000 + 7 * n, "size": 1 })).collect();
    let c = Container::new()
        .namespace("user", "")
        .with("/linux/uidMappings", json!(many))
        .with("/linux/gidMappings", json!(many));
    let mut c = c.with("/process/user", json!({ "uid": 3, "gid": 4, "additionalGids": [5] }));
    // gid=5 of the default devpts is mapped; group 5 is among the 20.
    c.config["process"]["capabilities"] = json!({});
    let c = c.idle().up();
    let status = fs::read_to_string(format!("/proc/{}/status", c.pid())).expect("status");
    assert!(status.contains("Uid:\t200021\t"), "{status}");
    assert!(status.contains("Gid:\t200028\t"), "{status}");
    assert!(status.contains("Groups:\t200035"), "{status}");
}

#[test]
fn user_namespace_keeps_default_devices() {
    // mknod is not allowed there: the devices are bind mounts of the host's.
    let c = with_user_namespace(Container::new()).idle().up();
    assert_eq!(c.attempt(&["read", "/dev/zero", "write", "/dev/null", "read", "/dev/urandom"]), json!([0, 0, 0]));
}

#[test]
fn hostname_and_domainname() {
    assert_eq!(Container::new().with("/hostname", json!("other")).report()["hostname"], "other");
    known!("runc", "1.2", "domainname is runtime-spec 1.1");
    assert_eq!(Container::new().with("/domainname", json!("example.org")).report()["domainname"], "example.org");
}

#[test]
fn hostname_without_a_uts_namespace_is_refused() {
    let before = fs::read_to_string("/proc/sys/kernel/hostname").expect("hostname");
    let mut c = Container::new();
    c.remove_namespace("uts");
    c.run(&[]).fails(1, &["hostname", "uts"]);
    assert_eq!(fs::read_to_string("/proc/sys/kernel/hostname").expect("hostname"), before);
}

#[test]
fn loopback_is_up_in_a_new_network_namespace() {
    let out = Container::new().args(&["ip", "addr", "show", "lo"]).run(&[]).ok();
    assert!(out.stdout.contains("127.0.0.1/8"), "{out}");
}

#[test]
fn a_namespace_listed_twice_is_refused() {
    let c = Container::new().with("/linux/namespaces/-", json!({ "type": "pid" }));
    c.run(&[]).fails(1, &["linux.namespaces", "pid"]);
}

#[test]
fn a_path_to_a_namespace_of_another_kind_is_refused() {
    let c = Container::new().namespace("network", "/proc/self/ns/uts");
    c.run(&[]).fails(1, &["linux.namespaces", "/proc/self/ns/uts"]);
    c.assert_gone();
}

#[test]
fn a_path_that_is_missing_is_named() {
    let c = Container::new().namespace("network", "/no/such/netns");
    c.create(&[]).fails(1, &["linux.namespaces", "/no/such/netns"]);
    c.assert_gone();
}

#[test]
fn mappings_without_a_user_namespace_are_refused() {
    known!("runc", "1.2", "the mappings are ignored");
    let c = Container::new().with("/linux/uidMappings", mapping()).with("/linux/gidMappings", mapping());
    c.run(&[]).fails(1, &["linux.uidMappings", "user"]);
}

#[test]
fn sysctl_in_the_containers_namespaces() {
    let c = Container::new().with(
        "/linux/sysctl",
        json!({ "net.ipv4.ip_forward": "1", "kernel.shmmax": "12345678", "fs.mqueue.queues_max": "77" }),
    );
    let c = c.args(&[
        "guest",
        "try",
        "content",
        "/proc/sys/net/ipv4/ip_forward",
        "content",
        "/proc/sys/kernel/shmmax",
        "content",
        "/proc/sys/fs/mqueue/queues_max",
    ]);
    assert_eq!(c.report(), json!(["1\n", "12345678\n", "77\n"]));
    assert_ne!(fs::read_to_string("/proc/sys/kernel/shmmax").expect("shmmax"), "12345678\n");
}

#[test]
fn sysctl_with_slashes() {
    let c = Container::new().with("/linux/sysctl", json!({ "net/ipv4/ip_forward": "1" }));
    assert_eq!(c.args(&["cat", "/proc/sys/net/ipv4/ip_forward"]).run(&[]).ok().stdout, "1\n");
}

#[test]
fn sysctl_of_the_host_is_refused() {
    let before = fs::read_to_string("/proc/sys/vm/swappiness").expect("swappiness");
    for name in ["vm.swappiness", "kernel.panic", "../../../tmp/x"] {
        Container::new().with("/linux/sysctl", json!({ name: "1" })).run(&[]).fails(1, &["linux.sysctl", name]);
    }
    assert_eq!(fs::read_to_string("/proc/sys/vm/swappiness").expect("swappiness"), before);
}

#[test]
fn sysctl_without_its_namespace_is_refused() {
    for (namespace, name) in [("network", "net.ipv4.ip_forward"), ("ipc", "kernel.shmmax")] {
        let mut c = Container::new().with("/linux/sysctl", json!({ name: "1" }));
        c.remove_namespace(namespace);
        c.run(&[]).fails(1, &["linux.sysctl", name, namespace]);
    }
}

/// What the host's administrator has mounted read-only stays so, whatever the container may do in its user namespace.
#[test]
fn user_namespace_cannot_take_off_the_hosts_mount_flags() {
    runtime_tests::private_mounts();
    let mut c = Container::new();
    let flags = nix::mount::MsFlags::MS_RDONLY | nix::mount::MsFlags::MS_NODEV;
    let source = c.host_tmpfs("locked", flags).display().to_string();
    let c = with_user_namespace(c).caps(&["CAP_SYS_ADMIN"]).mount("/tmp", "bind", &source, &["rbind"]);
    let c =
        c.sh("mount -o remount,bind,rw,nodev /tmp; touch /tmp/x; mount -o remount,bind,ro,dev /tmp; cat /proc/mounts");
    let out = c.run(&[]);
    let line = out.stdout.lines().find(|l| l.contains(" /tmp ")).expect("the mount").to_owned();
    let options = line.split(' ').nth(3).expect("its options").to_owned();
    assert!(options.split(',').any(|o| o == "ro") && options.split(',').any(|o| o == "nodev"), "{out}");
    assert!(!std::path::Path::new(&source).join("x").exists());
}
