//! `linux.netDevices`: network devices of a namespace that the test makes for its own thread go into the container's.
//!
//! They are veth pairs, whose other end stays here: dummy devices are not in every kernel.

use std::process::Command;

use nix::sched::{CloneFlags, unshare};
use runtime_tests::{Container, known};
use serde_json::{Value, json};

/// Gives this thread, and the runtime it calls, a network namespace of its own; it and its devices end with the thread.
fn private_network() {
    unshare(CloneFlags::CLONE_NEWNET).expect("unshare(CLONE_NEWNET); these tests need root");
}

/// `ip` of the host in this thread's network namespace.
#[track_caller]
fn ip(args: &str) -> String {
    let out = Command::new("ip").args(args.split(' ')).output().expect("ip (package iproute2)");
    assert!(out.status.success(), "ip {args}: {}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8_lossy(&out.stdout).into_owned()
}

/// A device `name` with its other end `name-p`.
fn veth(name: &str) {
    ip(&format!("link add name {name} type veth peer name {name}-p"));
}

fn exists(name: &str) -> bool {
    Command::new("ip").args(["link", "show", "dev", name]).output().expect("ip").status.success()
}

fn with_devices(devices: Value) -> Container {
    Container::new().with("/linux/netDevices", devices)
}

/// `ip` in the container.
#[track_caller]
fn inside(c: &Container, args: &str) -> String {
    let args: Vec<&str> = std::iter::once("ip").chain(args.split(' ')).collect();
    c.exec(&[], &args).ok().stdout
}

#[test]
fn a_device_moves_with_its_addresses_and_comes_up() {
    known!("runc", "1.4", "netDevices is runtime-spec 1.3");
    private_network();
    veth("eth7");
    ip("link set eth7 mtu 1400 address 02:00:00:00:00:77");
    ip("address add 10.77.0.2/24 brd 10.77.0.255 dev eth7");
    ip("address add 10.77.0.3/24 dev eth7");
    ip("address add 10.78.0.1 peer 10.78.0.9/32 dev eth7");
    ip("address add fd00:77::2/64 dev eth7 nodad");
    // These two stay: one is valid on the host alone, the other for a time.
    ip("address add 127.7.7.7/32 scope host dev eth7");
    ip("address add 10.79.0.1/24 dev eth7 valid_lft 1000 preferred_lft 1000");
    ip("link set eth7 up");
    let c = with_devices(json!({ "eth7": {} })).caps(&["CAP_NET_RAW"]).idle().up();
    assert!(!exists("eth7"), "it is here no more");
    let seen = inside(&c, "address show dev eth7");
    for part in [
        "mtu 1400",
        "02:00:00:00:00:77",
        "inet 10.77.0.2/24 brd 10.77.0.255 scope global",
        "inet 10.77.0.3/24",
        "inet 10.78.0.1 peer 10.78.0.9/32",
        "inet6 fd00:77::2/64",
        "UP",
    ] {
        assert!(seen.contains(part), "{part}: {seen}");
    }
    assert!(!seen.contains("127.7.7.7") && !seen.contains("10.79.0.1"), "{seen}");
    // It works: the other end, which is still here, is reached.
    ip("address add 10.77.0.1/24 dev eth7-p");
    ip("link set eth7-p up");
    assert_eq!(c.exec(&[], &["busybox", "ping", "-c", "1", "-W", "5", "10.77.0.1"]).code, 0);
}

#[test]
fn a_device_that_is_down_comes_up_too() {
    known!("runc", "1.4", "netDevices is runtime-spec 1.3");
    private_network();
    veth("eth7");
    ip("address add fd00:77::2/64 dev eth7");
    let c = with_devices(json!({ "eth7": {} })).idle().up();
    let seen = inside(&c, "address show dev eth7");
    assert!(seen.contains("UP") && seen.contains("fd00:77::2/64"), "{seen}");
}

#[test]
fn a_new_name_and_one_from_a_template() {
    known!("runc", "1.4", "netDevices is runtime-spec 1.3");
    private_network();
    for name in ["a", "b", "c"] {
        veth(name);
        ip(&format!("address add 10.0.0.{}/24 dev {name}", name.as_bytes()[0]));
    }
    let devices = json!({ "a": { "name": "eth0" }, "b": { "name": "net%d" }, "c": { "name": "net%d" } });
    let c = with_devices(devices).idle().up();
    let seen = inside(&c, "address");
    for (name, address) in [("eth0", "10.0.0.97/24"), ("net0", "10.0.0.98/24"), ("net1", "10.0.0.99/24")] {
        assert!(inside(&c, &format!("address show dev {name}")).contains(address), "{name}: {seen}");
    }
    assert!(!seen.contains("rrt"), "{seen}");
}

#[test]
fn into_a_namespace_that_is_joined_where_it_stays() {
    known!("runc", "1.4", "netDevices is runtime-spec 1.3");
    private_network();
    let pod = Container::new().idle().up();
    veth("eth7");
    ip("address add 10.77.0.2/24 dev eth7");
    let c = with_devices(json!({ "eth7": {} })).namespace("network", &format!("/proc/{}/ns/net", pod.pid()));
    let c = c.idle().up();
    assert!(inside(&c, "address show dev eth7").contains("10.77.0.2/24"));
    drop(c);
    assert!(inside(&pod, "address show dev eth7").contains("10.77.0.2/24"), "it belongs to the namespace");
}

#[test]
fn in_a_user_namespace() {
    known!("runc", "1.4", "netDevices is runtime-spec 1.3");
    private_network();
    veth("eth7");
    ip("address add 10.77.0.2/24 dev eth7");
    let ids = json!([{ "containerID": 0, "hostID": 100_000, "size": 65536 }]);
    let c = with_devices(json!({ "eth7": {} })).namespace("user", "");
    let c = c.with("/linux/uidMappings", ids.clone()).with("/linux/gidMappings", ids).idle().up();
    assert!(inside(&c, "address show dev eth7").contains("10.77.0.2/24"));
}

#[test]
fn what_cannot_move_is_named_and_the_others_stay_where_they_are() {
    known!("runc", "1.4", "netDevices is runtime-spec 1.3");
    private_network();
    veth("eth7");
    ip("address add 10.77.0.2/24 dev eth7");
    ip("address add fd00:77::2/64 dev eth7 nodad");
    ip("link set eth7 up");
    let here = || {
        let seen = ip("address show dev eth7");
        assert!(seen.contains("10.77.0.2/24") && seen.contains("fd00:77::2/64") && seen.contains(",UP"), "{seen}");
    };
    let c = with_devices(json!({ "eth7": {}, "zz": {} }));
    c.create(&[]).fails(1, &["linux.netDevices[\\\"zz\\\"]", "has no device"]);
    here();
    // lo, renamed for its name is taken, is found and refused by the kernel after eth7 has moved.
    let c = with_devices(json!({ "eth7": {}, "lo": { "name": "lo1" } }));
    c.create(&[]).fails(1, &["linux.netDevices[\\\"lo\\\"]", "loopback", "EINVAL"]);
    here();
    let c = with_devices(json!({ "eth7": { "name": "lo" } }));
    c.create(&[]).fails(1, &["linux.netDevices[\\\"eth7\\\"].name", "exists in the container"]);
    here();
    // And when something else fails later.
    let c = with_devices(json!({ "eth7": { "name": "new" } })).args(&["/no/such/program"]);
    c.create(&[]).fails(1, &["no such file"]);
    here();
    let c = with_devices(json!({ "eth7": { "name": "new%d" } })).args(&["/no/such/program"]);
    c.run(&[]).fails(1, &["no such file"]);
    here();
}

#[test]
fn bad_input_is_named() {
    known!("runc", "1.4", "netDevices is runtime-spec 1.3");
    private_network();
    let mut c = with_devices(json!({ "eth0": {} })).without_mount("/sys");
    c.remove_namespace("network");
    c.create(&[]).fails(1, &["linux.netDevices[\\\"eth0\\\"]", "needs a network namespace"]);
    let c = with_devices(json!({ "eth0": {} })).namespace("network", "/proc/thread-self/ns/net");
    c.create(&[]).fails(1, &["linux.netDevices", "own network namespace"]);
    let c = with_devices(json!({ "eth0": { "name": "a/b" } }));
    c.create(&[]).fails(1, &["linux.netDevices[\\\"eth0\\\"].name", "1 to 15 bytes"]);
}
