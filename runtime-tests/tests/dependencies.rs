//! Which crate may depend on which: the table of DESIGN.md, section 3, and its two worlds, held against `cargo metadata`.

use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

/// A crate of the runtime and what it may name in its `[dependencies]`: crates of this workspace, crates of others.
///
/// Here a new dependency is decided on, by whoever reviews the change: each one is start-up time, size and code that runs
/// as root.
const RUNTIME: [(&str, &[&str], &[&str]); 6] = [
    ("rrt-sys", &[], &["caps", "libc", "nix", "prctl", "rustix"]),
    ("rrt-oci", &[], &["oci-spec", "serde", "serde_json"]),
    ("rrt-seccomp", &["rrt-oci"], &["seccompiler", "thiserror"]),
    // libc for errno values, rustix for the calls on cgroup files.
    ("rrt-cgroups", &["rrt-sys", "rrt-oci"], &["libc", "rustix", "serde", "thiserror"]),
    (
        "rrt-runtime",
        &["rrt-sys", "rrt-oci", "rrt-seccomp", "rrt-cgroups"],
        &["procfs", "serde", "serde_json", "thiserror"],
    ),
    // The types of oci and sys are in the signatures of runtime's functions, so the command line names them too.
    ("rrt", &["rrt-runtime", "rrt-oci", "rrt-sys"], &["serde", "serde_json"]),
];

/// A crate of the second world (DESIGN.md, section 2), as in [`RUNTIME`]. It reaches the runtime by executing `rrt`, so it names no
/// crate of it but `rrt-oci`, the data types.
const AROUND: &[(&str, &[&str], &[&str])] = &[
    ("rrt-runtime-client", &["rrt-oci"], &["rustix", "serde", "serde_json"]),
    ("rrt-content", &["rrt-oci"], &["rustix", "sha2", "thiserror"]),
    // rustls beside ureq: its checks of certificates, which refuse what Docker's own documents tell people to make.
    (
        "rrt-registry",
        &["rrt-oci", "rrt-content"],
        &["rustix", "rustls", "serde", "serde_json", "sha2", "thiserror", "ureq"],
    ),
    // nix has posix_spawn(3), which lets a logging program have the descriptors it expects; the rest is rustix.
    (
        "rrt-shim",
        &["rrt-runtime-client", "rrt-task-api"],
        &["nix", "prost", "rustix", "serde", "serde_json", "sha2", "tokio"],
    ),
    // What shims and their callers agree on.
    ("rrt-task-api", &[], &["prost", "serde"]),
    ("rrt-engine", &["rrt-oci"], &["serde", "serde_json", "thiserror"]),
    ("rrt-template", &[], &["serde_json", "thiserror"]),
    (
        "rrt-images",
        &["rrt-oci", "rrt-content", "rrt-registry"],
        &["flate2", "rustix", "serde", "serde_json", "sha2", "thiserror", "zstd"],
    ),
    (
        "rrt-registry-server",
        &["rrt-oci", "rrt-content", "rrt-images", "rrt-registry"],
        &["bcrypt", "http-body-util", "hyper", "hyper-util", "serde_json", "thiserror", "tokio"],
    ),
    // nix has a safe unshare(2); tokio hears signals, and serves.
    (
        "berth",
        &["rrt-content", "rrt-images", "rrt-oci", "rrt-registry", "rrt-registry-server", "rrt-template"],
        &["clap", "nix", "rustix", "serde", "serde_json", "tokio"],
    ),
];

/// What a static program that forks and is gone after a millisecond must not contain, however far down.
const NEVER: [(&str, &str); 9] = [
    ("regex-automata", "a quarter of the binary; src/oci/regex knows the one expression that oci-spec needs"),
    ("tokio", "the runtime forks, so it has one thread and no executor"),
    ("async-std", "the runtime forks, so it has one thread and no executor"),
    ("smol", "the runtime forks, so it has one thread and no executor"),
    ("rayon", "the runtime forks, so it has one thread"),
    ("crossbeam-channel", "the runtime forks, so it has one thread"),
    ("chrono", "src/runtime/src/time.rs formats the one date there is"),
    ("tracing-subscriber", "src/rrt/src/log.rs writes the log"),
    ("openssl-sys", "the binary is static and talks to nobody"),
];

/// The workspace as cargo sees it, for the target that is released.
struct Metadata {
    packages: BTreeMap<String, Value>,
    /// What each package needs to run: no build scripts, no tests.
    needs: BTreeMap<String, Vec<String>>,
    members: BTreeSet<String>,
}

impl Metadata {
    fn read() -> Metadata {
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let output = Command::new(cargo)
            .args(["metadata", "--format-version", "1", "--locked", "--filter-platform", "x86_64-unknown-linux-musl"])
            .current_dir(root)
            .output()
            .expect("run cargo");
        assert!(output.status.success(), "cargo metadata: {}", String::from_utf8_lossy(&output.stderr));
        let json: Value = serde_json::from_slice(&output.stdout).expect("cargo metadata writes JSON");
        let id = |v: &Value| v["id"].as_str().expect("a package id").to_owned();
        let packages: BTreeMap<_, _> = array(&json["packages"]).iter().map(|p| (id(p), p.clone())).collect();
        let needs = array(&json["resolve"]["nodes"]).iter().map(|node| (id(node), run_time(node))).collect();
        let members = array(&json["workspace_members"]).iter().filter_map(|m| m.as_str()).map(str::to_owned).collect();
        Metadata { packages, needs, members }
    }

    fn name(&self, id: &str) -> &str {
        self.packages[id]["name"].as_str().expect("a package has a name")
    }

    /// A crate of the workspace; `None` when it does not exist yet.
    fn member(&self, name: &str) -> Option<&str> {
        self.members.iter().map(String::as_str).find(|id| self.name(id) == name)
    }

    fn runtime(&self) -> impl Iterator<Item = &str> {
        RUNTIME.iter().filter_map(|(name, ..)| self.member(name))
    }
}

fn array(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// The packages a node of the graph links at run time.
fn run_time(node: &Value) -> Vec<String> {
    let normal = |d: &&Value| array(&d["dep_kinds"]).iter().any(|kind| kind["kind"].is_null());
    array(&node["deps"]).iter().filter(normal).filter_map(|d| d["pkg"].as_str()).map(str::to_owned).collect()
}

#[test]
fn every_crate_keeps_to_its_row() {
    let metadata = Metadata::read();
    for (name, inside, outside) in RUNTIME.into_iter().chain(AROUND.iter().copied()) {
        let Some(id) = metadata.member(name) else { continue };
        for dependency in &metadata.needs[id] {
            let other = metadata.name(dependency);
            let allowed = if metadata.members.contains(dependency) { inside } else { outside };
            assert!(
                allowed.contains(&other),
                "{name} depends on {other}, which its row of DESIGN.md, section 3, does not have: call what {name} may \
                 depend on ({inside:?}, {outside:?}), or move the code to the crate it belongs to; if the dependency is \
                 right, change the table in this file and say why"
            );
        }
    }
    assert!(metadata.runtime().count() >= 5, "the crates of the runtime are not found in the workspace");
}

/// The runtime forks, so nothing of the second world, which has threads, may come into it by any way.
#[test]
fn the_runtime_is_of_the_first_world() {
    let metadata = Metadata::read();
    for crate_id in metadata.runtime() {
        // Each package with the one that brought it.
        let mut from: BTreeMap<&str, &str> = BTreeMap::from([(crate_id, "")]);
        let mut queue = vec![crate_id];
        while let Some(id) = queue.pop() {
            for next in &metadata.needs[id] {
                if !from.contains_key(next.as_str()) {
                    from.insert(next, id);
                    queue.push(next);
                }
            }
        }
        assert!(from.len() > 1, "{crate_id} depends on nothing: the graph is not read right");
        for id in from.keys() {
            let name = metadata.name(id);
            let way = way(&metadata, &from, id);
            if let Some((_, why)) = NEVER.iter().find(|(never, _)| *never == name) {
                panic!("{way}: {name} has no place in the runtime, because {why}; remove it or turn its feature off");
            }
            let ours = !metadata.members.contains(*id) || RUNTIME.iter().any(|(known, ..)| *known == name);
            assert!(
                ours,
                "{way}: {name} is not of the runtime (DESIGN.md, section 2); it may call rrt, not be part of it"
            );
        }
    }
}

/// `rrt -> rrt-runtime -> …`: how a package came in.
fn way(metadata: &Metadata, from: &BTreeMap<&str, &str>, id: &str) -> String {
    let steps = std::iter::successors(Some(id), |id| from.get(id).copied().filter(|by| !by.is_empty()));
    let mut names: Vec<&str> = steps.map(|id| metadata.name(id)).collect();
    names.reverse();
    names.join(" -> ")
}

#[test]
fn only_sys_has_unsafe() {
    let metadata = Metadata::read();
    let mut looked_at = 0;
    for id in metadata.runtime().filter(|id| metadata.name(id) != "rrt-sys") {
        for target in array(&metadata.packages[id]["targets"]) {
            let kind = array(&target["kind"])[0].as_str().unwrap_or_default();
            if !matches!(kind, "lib" | "bin") {
                continue;
            }
            let file = target["src_path"].as_str().expect("a target has a file");
            let source = std::fs::read_to_string(file).expect("read a crate's root");
            assert!(
                source.lines().any(|line| line == "#![forbid(unsafe_code)]"),
                "{file} lacks #![forbid(unsafe_code)]: put the call into src/sys, typed, and forbid unsafe here"
            );
            looked_at += 1;
        }
    }
    assert!(looked_at >= 4, "only {looked_at} crate roots were found");
}

/// Beside the runtime, unsafe code is an exception that each place has to ask for.
#[test]
fn around_the_runtime_unsafe_is_an_exception() {
    let metadata = Metadata::read();
    for (name, ..) in AROUND {
        let Some(id) = metadata.member(name) else { continue };
        for target in array(&metadata.packages[id]["targets"]) {
            // What is shipped; the tests of the runtime are not looked at either.
            if !matches!(array(&target["kind"])[0].as_str().unwrap_or_default(), "lib" | "bin") {
                continue;
            }
            let file = target["src_path"].as_str().expect("a target has a file");
            let source = std::fs::read_to_string(file).expect("read a crate's root");
            let says = |text: &str| source.lines().any(|line| line == text);
            assert!(
                says("#![forbid(unsafe_code)]") || says("#![deny(unsafe_code)]"),
                "{file} has neither #![forbid(unsafe_code)] nor #![deny(unsafe_code)]"
            );
        }
    }
}

/// A package that is in no row and in no world: whoever adds one decides where it belongs.
#[test]
fn every_crate_has_a_place() {
    let metadata = Metadata::read();
    for id in &metadata.members {
        let name = metadata.name(id);
        let known = RUNTIME.iter().chain(AROUND).any(|(known, ..)| *known == name);
        assert!(
            known || name == "runtime-tests",
            "{name} is new: give it its row of DESIGN.md, section 3, in a table of this file, by its world"
        );
    }
}
