//! `features` is true: each thing it lists is taken by the code that reads config.json, and its neighbours are not.

use std::process::Command;

use runtime_tests::{Container, Output, known, run, runtime};
use rustix::process::geteuid;
use serde_json::{Value, json};

fn features() -> Value {
    let c = Container::new();
    run(Command::new(&runtime().path).arg("features"), &c.dir).ok().json()
}

/// What `create` would do, from the value that it runs.
fn plan(c: &Container) -> Output {
    c.write_config();
    run(&mut c.command("plan", &["--json"], &[]), &c.dir)
}

#[track_caller]
fn words(list: &Value) -> Vec<String> {
    let list: Vec<String> = serde_json::from_value(list.clone()).expect("a list of words");
    assert!(!list.is_empty());
    list
}

/// The options that a mount on /x would have left for its file system to understand.
fn left_to_the_file_system(option: &str) -> Value {
    let ids = json!([{ "containerID": 0, "hostID": 7, "size": 1 }]);
    let mount = match option {
        "bind" | "rbind" => json!({ "destination": "/x", "type": "none", "source": "/tmp", "options": [option] }),
        "copy-symlink" | "dest-nofollow" | "src-nofollow" => {
            json!({ "destination": "/x", "type": "none", "source": "/tmp", "options": ["bind", option] })
        }
        "idmap" | "ridmap" => {
            json!({ "destination": "/x", "type": "none", "source": "/tmp", "options": ["rbind", option],
            "uidMappings": ids, "gidMappings": ids })
        }
        _ => json!({ "destination": "/x", "type": "tmpfs", "source": "tmpfs", "options": [option] }),
    };
    let mut c = Container::new();
    c.config["mounts"].as_array_mut().expect("mounts").push(mount);
    let plan = plan(&c).ok().json();
    let mounts = plan["mounts"].as_array().expect("mounts");
    mounts.iter().find(|m| m["destination"] == "/x").expect("the mount")["options"]["data"].clone()
}

#[test]
fn mount_options() {
    known!("runc", "*", "has no plan");
    let listed = words(&features()["mountOptions"]);
    // That they are known a user is told by the error.
    let to_users = |option: &String| geteuid().is_root() || !matches!(option.as_str(), "idmap" | "ridmap");
    for option in listed.iter().filter(|o| to_users(o)) {
        assert_eq!(left_to_the_file_system(option), json!([]), "{option}");
    }
    for option in ["size=4k", "nosuchoption", "rbindx"] {
        assert_eq!(left_to_the_file_system(option), json!([option]));
        assert!(!listed.iter().any(|o| o == option));
    }
}

#[test]
fn namespaces_hooks_and_capabilities() {
    known!("runc", "*", "has no plan");
    let features = features();
    for kind in words(&features["linux"]["namespaces"]) {
        let out = plan(&Container::new().namespace(&kind, ""));
        // What is known is not an unknown variant; a user namespace wants mappings.
        assert!(out.code == 0 || kind == "user" && out.stderr.contains("uidMappings"), "{kind}: {out}");
    }
    plan(&Container::new().namespace("nosuch", "")).fails(1, &["linux.namespaces", "nosuch"]);
    let hook = json!([{ "path": "/bin/true" }]);
    for name in words(&features["hooks"]) {
        let planned = plan(&Container::new().with(&format!("/hooks/{name}"), hook.clone())).ok().stdout;
        assert!(planned.contains("/bin/true"), "{name}: {planned}");
    }
    let all = words(&features["linux"]["capabilities"]);
    let out = plan(&Container::new().with("/process/capabilities/bounding", json!(all))).ok();
    assert!(!out.stderr.contains("is not a capability"), "{out}");
    let out = plan(&Container::new().with("/process/capabilities/bounding", json!(["CAP_NO_SUCH"])));
    assert!(out.stderr.contains("CAP_NO_SUCH"), "{out}");
}

#[test]
fn seccomp() {
    known!("runc", "*", "has no plan");
    let listed = &features()["linux"]["seccomp"];
    let names = ["getsid", "getpgid", "getpgrp", "getppid", "getpid", "sync", "uname", "times", "umask"];
    let rules: Vec<Value> = words(&listed["actions"])
        .iter()
        .zip(names)
        .map(|(action, name)| json!({ "names": [name], "action": action }))
        .chain(words(&listed["operators"]).iter().map(|op| {
            let args = json!([{ "index": 0, "value": 1, "valueTwo": 1, "op": op }]);
            json!({ "names": ["kill"], "action": "SCMP_ACT_LOG", "args": args })
        }))
        .collect();
    let profile = json!({ "defaultAction": "SCMP_ACT_ALLOW", "architectures": listed["archs"], "flags": listed["supportedFlags"],
        "listenerPath": "/agent.sock", "syscalls": rules });
    plan(&Container::new().with("/linux/seccomp", profile.clone())).ok();
    for (key, wrong) in [("architectures", "SCMP_ARCH_NO"), ("flags", "SECCOMP_FILTER_FLAG_NO")] {
        let mut profile = profile.clone();
        profile[key] = json!([wrong]);
        plan(&Container::new().with("/linux/seccomp", profile)).fails(1, &[&format!("linux.seccomp.{key}[0]"), wrong]);
    }
}

#[test]
fn memory_policies() {
    known!("runc", "*", "has no plan");
    let listed = &features()["linux"]["memoryPolicy"];
    let policy = |mode: &str, flags: &[&str]| {
        let nodes = if matches!(mode, "MPOL_DEFAULT" | "MPOL_LOCAL") { "" } else { "0" };
        plan(&Container::new().with("/linux/memoryPolicy", json!({ "mode": mode, "nodes": nodes, "flags": flags })))
    };
    for mode in words(&listed["modes"]) {
        policy(&mode, &[]).ok();
    }
    for flag in words(&listed["flags"]) {
        policy("MPOL_BIND", &[&flag]).ok();
    }
    policy("MPOL_NO", &[]).fails(1, &["linux.memoryPolicy.mode"]);
    policy("MPOL_BIND", &["MPOL_F_NO"]).fails(1, &["linux.memoryPolicy.flags"]);
}
