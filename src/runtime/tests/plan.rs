//! Snapshots of the plan: what `rrt plan` prints for a document on a machine, in `plan/NAME.txt`.
//!
//! The machines are made up ([`facts`]), so the result is the same everywhere. After a wanted change:
//! `UPDATE=1 cargo test -p rrt-runtime --test plan`, and then read the difference before committing it.

#[path = "common/facts.rs"]
mod facts;

use rrt_runtime::{CgroupManager, CreateOptions, HostFacts, Plan, spec_template};
use serde_json::Value;
use std::fmt::Write;
use std::path::{Path, PathBuf};

/// Facts of the JSON form that the printed one does not show, or that the two must agree on.
const JSON_FACTS: [&str; 13] = [
    "/namespaces/cloned",
    "/namespaces/unshared",
    "/namespaces/setup_uid",
    "/root/propagation",
    "/cgroup_mounts/namespace",
    "/cgroup_mounts/unified",
    "/dev/own",
    "/dev/bind",
    "/process/env",
    "/process/rlimits",
    "/inherited_fds",
    "/hooks",
    "/turns",
];

fn plan(document: &[u8], host: &HostFacts) -> Plan {
    let spec = serde_json::from_slice(document).expect("the test's own document");
    let options = CreateOptions { id: "box".into(), bundle: "/bundle".into(), ..CreateOptions::default() };
    Plan::new(&spec, Path::new("/bundle"), Path::new("/run/rrt/box"), &options, CgroupManager::Cgroupfs, host)
        .expect("a plan")
}

fn text(plan: &Plan) -> String {
    let json: Value = serde_json::to_value(plan).expect("a plan as JSON");
    let mut text = format!("{plan}\nin the JSON form:\n");
    for pointer in JSON_FACTS {
        let fact = json.pointer(pointer).unwrap_or_else(|| panic!("the JSON form has no {pointer}"));
        let _ = writeln!(text, "{pointer} {fact}");
    }
    text
}

/// Compares with `plan/NAME.txt`, or writes it when `UPDATE` is set.
fn snapshot(name: &str, plan: &Plan) {
    let file = directory().join(format!("{name}.txt"));
    let now = text(plan);
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&file, now).expect("write the snapshot");
        return;
    }
    let before = std::fs::read_to_string(&file).unwrap_or_default();
    if let Some((i, (a, b))) = first_difference(&before, &now) {
        panic!(
            "the plan is not that of {}; line {i}:\n  - {a}\n  + {b}\nif this is right: UPDATE=1 cargo test -p rrt-runtime \
             --test plan, and read the difference",
            file.display()
        );
    }
}

fn first_difference<'a>(before: &'a str, now: &'a str) -> Option<(usize, (&'a str, &'a str))> {
    let end = "(the end)";
    let lines = before.lines().chain(std::iter::repeat(end)).zip(now.lines().chain(std::iter::repeat(end)));
    let count = before.lines().count().max(now.lines().count());
    (1..).zip(lines).take(count).find(|(_, (a, b))| a != b)
}

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/plan")
}

fn document(name: &str) -> Vec<u8> {
    std::fs::read(directory().join(format!("{name}.json"))).expect("the test's own document")
}

fn default_document(host: &HostFacts) -> Vec<u8> {
    let only_v2 = host.cgroups.hierarchies.len() == 1;
    spec_template::config_json(spec_template::For::Root, only_v2)
}

#[test]
fn the_document_of_rrt_spec() {
    for (name, host) in [("default-v1", facts::v1()), ("default-v2", facts::v2()), ("default-hybrid", facts::hybrid())]
    {
        snapshot(name, &plan(&default_document(&host), &host));
    }
}

/// As `docker run` writes it, with limits, a device, the engine's own binds and its network hook.
#[test]
fn a_container_of_docker() {
    let document = document("docker");
    for (name, host) in [("docker-v1", facts::v1()), ("docker-v2", facts::v2()), ("docker-hybrid", facts::hybrid())] {
        snapshot(name, &plan(&document, &host));
    }
}

/// Everything that needs the parent's help while the child sets up: user and time namespace, limits, hooks, a terminal.
#[test]
fn a_container_with_every_turn() {
    let host = facts::v2();
    let plan = plan(&document("turns"), &host);
    snapshot("turns-v2", &plan);
    let json = serde_json::to_value(&plan).expect("a plan as JSON");
    assert_eq!(json["turns"], serde_json::json!(["MapIds", "TimeOffsets", "Hooks", "Console", "Limits", "Ready"]));
}

/// What `rrt spec --rootless` writes, by a user.
#[test]
fn the_document_of_a_user() {
    let host = HostFacts { euid: 1000, egid: 100, capabilities: 0, rootless: true, ..facts::v2() };
    let document = spec_template::config_json(spec_template::For::User { uid: 1000, gid: 100 }, true);
    snapshot("rootless-v2", &plan(&document, &host));
}

/// The second container of a pod, which joins the first one's namespaces, started by a service manager.
#[test]
fn a_container_of_a_pod() {
    let host = HostFacts {
        listen_fds: Some((2, Some("http:admin".into()))),
        notify_socket: Some("/run/n".into()),
        ..facts::hybrid()
    };
    snapshot("pod-hybrid", &plan(&document("pod"), &host));
}

/// Maps of JSON have no order, so the plan must give them one: a plan that is printed is the plan that `create` runs.
#[test]
fn the_same_document_gives_the_same_plan() {
    let document = document("turns");
    let first = text(&plan(&document, &facts::v2()));
    for _ in 0..20 {
        assert_eq!(text(&plan(&document, &facts::v2())), first);
    }
}
