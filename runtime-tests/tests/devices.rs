//! `linux.devices`, the devices every container has, and who may open which.

use std::fs;

use runtime_tests::{Container, known};
use serde_json::{Value, json};

#[test]
fn default_devices() {
    let c = Container::new().idle().up();
    let expected = [("null", 3), ("zero", 5), ("full", 7), ("random", 8), ("urandom", 9)];
    for (name, minor) in expected {
        let node = &c.attempt(&["node", &format!("/dev/{name}")])[0];
        let found = [&node["kind"], &node["major"], &node["minor"], &node["mode"]];
        assert_eq!(found, [&json!("c"), &json!(1), &json!(minor), &json!(0o666)], "{name}");
    }
    let tty = &c.attempt(&["node", "/dev/tty"])[0];
    assert_eq!([&tty["major"], &tty["minor"], &tty["mode"]], [5, 0, 0o666]);
    assert_eq!(c.attempt(&["read", "/dev/zero", "put", "/dev/null", "put", "/dev/full"]), json!([0, 0, "ENOSPC"]));
}

#[test]
fn default_links() {
    let c = Container::new().idle().up();
    let links = c.attempt(&[
        "link",
        "/dev/fd",
        "link",
        "/dev/stdin",
        "link",
        "/dev/stdout",
        "link",
        "/dev/stderr",
        "link",
        "/dev/ptmx",
    ]);
    let expected = ["/proc/self/fd", "/proc/self/fd/0", "/proc/self/fd/1", "/proc/self/fd/2", "pts/ptmx"];
    assert_eq!(links, json!(expected));
    if std::path::Path::new("/proc/kcore").exists() {
        assert_eq!(c.attempt(&["link", "/dev/core"]), json!(["/proc/kcore"]));
    }
}

#[test]
fn a_new_pty_can_be_opened() {
    // Reading a master nobody writes to would block; opening it is what counts.
    let c = Container::new().args(&["guest", "try", "write", "/dev/pts/ptmx", "write", "/dev/ptmx"]);
    assert_eq!(c.report(), json!([0, 0]));
}

fn with_devices() -> Container {
    Container::new().with(
        "/linux/devices",
        json!([
            { "path": "/dev/mychar", "type": "c", "major": 1, "minor": 3, "fileMode": 0o640, "uid": 1000, "gid": 1001 },
            { "path": "/dev/myblock", "type": "b", "major": 7, "minor": 200, "fileMode": 0o600 },
            { "path": "/dev/mypipe", "type": "p", "fileMode": 0o622 },
            { "path": "/dev/deep/er/u", "type": "u", "major": 1, "minor": 5 },
            { "path": "/outside/dev", "type": "c", "major": 1, "minor": 7, "fileMode": 0o666 },
        ]),
    )
}

#[test]
fn nodes() {
    let c = with_devices().idle().up();
    let found = c.attempt(&[
        "node",
        "/dev/mychar",
        "node",
        "/dev/myblock",
        "node",
        "/dev/mypipe",
        "node",
        "/dev/deep/er/u",
        "node",
        "/outside/dev",
    ]);
    let facts = |n: usize| ["kind", "major", "minor", "mode", "uid", "gid"].map(|k| found[n][k].clone());
    assert_eq!(facts(0), [json!("c"), json!(1), json!(3), json!(0o640), json!(1000), json!(1001)]);
    assert_eq!(facts(1)[..4], [json!("b"), json!(7), json!(200), json!(0o600)]);
    assert_eq!([&found[2]["kind"], &found[2]["mode"]], [&json!("p"), &json!(0o622)]);
    assert_eq!(facts(3)[..3], [json!("c"), json!(1), json!(5)]);
    assert_eq!(facts(4)[..3], [json!("c"), json!(1), json!(7)]);
    fs::remove_file(c.path("/outside/dev")).expect("the node is in the root file system");
}

#[test]
fn nodes_in_a_user_namespace_are_bound() {
    let map = json!([{ "containerID": 0, "hostID": 100_000, "size": 65536 }]);
    let c =
        Container::new().namespace("user", "").with("/linux/uidMappings", map.clone()).with("/linux/gidMappings", map);
    let c = c.with("/linux/devices", json!([{ "path": "/dev/zero", "type": "c", "major": 1, "minor": 5 }]));
    let rule = json!({ "allow": true, "type": "c", "major": 1, "minor": 5, "access": "rw" });
    let c = c.with("/linux/resources/devices/-", rule).idle().up();
    assert_eq!(c.attempt(&["node", "/dev/zero"])[0]["minor"], 5);
    assert_eq!(c.attempt(&["read", "/dev/zero"]), json!([0]));
}

#[test]
fn an_unknown_type_is_refused() {
    let c = Container::new().with("/linux/devices", json!([{ "path": "/dev/x", "type": "x", "major": 1, "minor": 3 }]));
    c.run(&[]).fails(1, &["linux.devices"]);
}

#[test]
fn a_device_path_cannot_leave_the_root() {
    let c = Container::new()
        .with("/linux/devices", json!([{ "path": "/dev/../../../../escaped", "type": "c", "major": 1, "minor": 3 }]));
    let out = c.run(&[]);
    assert!(!c.dir.join("escaped").exists() && !std::path::Path::new("/escaped").exists(), "{out}");
}

/// Runs a container that may make device nodes, and opens some under the rules given.
fn opened(rules: Value, pairs: &[&str]) -> Value {
    let c = Container::new().caps(&["CAP_MKNOD"]).with("/linux/resources/devices", rules).idle().up();
    let make = "mkdir /n; mknod /n/kmsg c 1 11; mknod /n/mem c 1 1; mknod /n/null c 1 3; mknod /n/loop b 7 7; :";
    c.exec(&[], &["sh", "-c", make]).ok();
    c.attempt(pairs)
}

#[test]
fn rules_deny_what_is_not_allowed() {
    let found = opened(
        json!([{ "allow": false, "access": "rwm" }]),
        &["write", "/n/kmsg", "write", "/n/null", "read", "/n/loop"],
    );
    assert_eq!(found, json!(["EPERM", 0, "EPERM"]));
}

#[test]
fn rules_allow_by_number_and_access() {
    let rules = json!([
        { "allow": false, "access": "rwm" },
        { "allow": true, "type": "c", "major": 1, "minor": 11, "access": "w" },
    ]);
    assert_eq!(opened(rules, &["write", "/n/kmsg", "read", "/n/kmsg"]), json!([0, "EPERM"]));
}

#[test]
fn rules_allow_all_of_a_major() {
    let rules =
        json!([{ "allow": false, "access": "rwm" }, { "allow": true, "type": "c", "major": 1, "access": "rw" }]);
    assert_eq!(opened(rules, &["write", "/n/kmsg", "read", "/n/loop"]), json!([0, "EPERM"]));
}

#[test]
fn rules_are_applied_in_order() {
    let rules = json!([
        { "allow": true, "type": "c", "major": 1, "minor": 11, "access": "rw" },
        { "allow": false, "type": "c", "major": 1, "minor": 11, "access": "rw" },
    ]);
    assert_eq!(opened(rules, &["write", "/n/kmsg"]), json!(["EPERM"]));
}

#[test]
fn a_wildcard_allows_everything() {
    let found = opened(json!([{ "allow": true, "access": "rwm" }]), &["write", "/n/kmsg"]);
    assert_eq!(found, json!([0]));
}

#[test]
fn making_nodes_follows_the_rules_too() {
    let rules = json!([{ "allow": false, "access": "rwm" }, { "allow": true, "type": "c", "major": 1, "minor": 3, "access": "rw" }]);
    let c = Container::new().caps(&["CAP_MKNOD"]).with("/linux/resources/devices", rules).idle().up();
    // Every container may make nodes that it may not open (contract B.5; runc's AllowedDevices).
    c.exec(&[], &["mknod", "/n", "c", "1", "11"]).ok();
    assert_eq!(c.attempt(&["write", "/n"]), json!(["EPERM"]));
}

/// A container that may make nodes, with some made that it may not open.
fn with_nodes() -> Container {
    let c = Container::new()
        .caps(&["CAP_MKNOD"])
        .with("/linux/resources/devices", json!([{ "allow": false, "access": "rwm" }]));
    let c = c.idle().up();
    c.exec(&[], &["sh", "-c", "mkdir /n; mknod /n/kmsg c 1 11; mknod /n/loop b 7 7; mknod /n/null c 1 3; :"]).ok();
    c
}

#[test]
fn rules_change_while_it_runs() {
    known!("runc", "*", "has no update --device");
    let c = with_nodes();
    let opens = |device: &str| c.attempt(&["write", device])[0].clone();
    assert_eq!((opens("/n/kmsg"), opens("/n/null")), (json!("EPERM"), json!(0)));
    c.call("update", &["--device", "c 1:11 w"], &[]).ok();
    assert_eq!((opens("/n/kmsg"), opens("/n/null")), (json!(0), json!(0)));
    // A later update builds on the earlier one; the default devices stay, as at create.
    c.call("update", &["--device", "deny c 1:3 rw", "--device", "allow b 7:7 r"], &[]).ok();
    assert_eq!(c.attempt(&["write", "/n/kmsg", "write", "/n/null"]), json!([0, 0]));
    // There may be no such device behind the node, but it is not forbidden.
    assert_ne!(c.attempt(&["read", "/n/loop"]), json!(["EPERM"]));
    c.call("update", &["--device", "deny c 1:11 rwm", "--pids-limit", "77"], &[]).ok();
    assert_eq!((opens("/n/kmsg"), opens("/n/null")), (json!("EPERM"), json!(0)));
    // All at once, and back to some; the container stands still only meanwhile.
    c.call("update", &["--device", "a *:* rwm"], &[]).ok();
    assert_eq!((opens("/n/kmsg"), opens("/n/null")), (json!(0), json!(0)));
    c.call("update", &["--device", "deny a *:* rwm", "--device", "c 1:11 w"], &[]).ok();
    assert_eq!(c.attempt(&["write", "/n/kmsg", "read", "/n/loop", "write", "/n/null"]), json!([0, "EPERM", 0]));
    assert_eq!(c.state()["status"], "running");
}

#[test]
fn rules_that_change_nothing_else_are_never_without_effect() {
    known!("runc", "*", "has no update --device");
    let c = with_nodes();
    // A program in the container opens a device it may open all the time, while rules come and go around it.
    let watch =
        c.spawn("exec", &[], &["sh", "-c", "echo go; while [ ! -e /stop ]; do : > /n/null || echo DENIED; done"]);
    watch.wait_for("go");
    for i in 0..30 {
        let rule = if i % 2 == 0 { "c 1:* r" } else { "deny c 1:* r" };
        c.call("update", &["--device", rule], &[]).ok();
    }
    fs::write(c.path("/stop"), "").expect("file");
    assert!(!watch.stdout().contains("DENIED"), "{}", watch.stdout());
}

#[test]
fn update_of_rules_names_what_is_wrong() {
    known!("runc", "*", "has no update --device");
    let c = with_nodes();
    c.call("update", &["--device", "c 1 rwm"], &[]).fails(1, &["--device", "MAJOR:MINOR"]);
    // A limit that cannot be takes the rule back.
    c.call("update", &["--device", "c 1:11 w", "--cpuset-cpus", "9999"], &[]).fails(1, &["linux.resources.cpu.cpus"]);
    assert_eq!(c.attempt(&["write", "/n/kmsg"]), json!(["EPERM"]));
    // Devices of --resources are what containerd sent at create: not looked at.
    let file = c.dir.join("resources.json");
    fs::write(&file, json!({ "devices": [{ "allow": true, "access": "rwm" }] }).to_string()).expect("file");
    c.call("update", &["--resources", file.to_str().expect("UTF-8")], &[]).ok();
    assert_eq!(c.attempt(&["write", "/n/kmsg"]), json!(["EPERM"]));
    c.kill("KILL").ok();
    c.wait_status("stopped");
    c.call("update", &["--device", "c 1:11 w"], &[]).fails(1, &["container not running"]);
}
