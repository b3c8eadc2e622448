//! `check`: all that is wrong with a bundle, for the specification and for this machine.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use runtime_tests::{Container, cgroups_named, known};
use serde_json::json;

/// Writes the bundle and checks it: the exit code, and severity and text of each finding.
#[track_caller]
fn findings(c: &Container) -> (i32, Vec<(String, String)>) {
    c.write_config();
    let out = c.call_from_shell("exec \"$1\" check --json .", "check", &[], &[]);
    let list = out.json()["findings"].as_array().cloned().unwrap_or_default();
    let text = |v: &serde_json::Value| v.as_str().unwrap_or_default().to_owned();
    (out.code, list.iter().map(|f| (text(&f["severity"]), text(&f["problem"]))).collect())
}

#[track_caller]
fn assert_errors(c: &Container, expected: &[&str]) {
    let (code, found) = findings(c);
    assert_eq!(code, 1, "{found:?}");
    for text in expected {
        assert!(found.iter().any(|(s, p)| s == "error" && p.contains(text)), "{text}: {found:#?}");
    }
    assert_eq!(found.iter().filter(|(s, _)| s == "error").count(), expected.len(), "{found:#?}");
}

#[test]
fn a_good_bundle_has_nothing() {
    known!("runc", "*", "has no check");
    let c = Container::new();
    let (code, found) = findings(&c);
    assert_eq!((code, found), (0, vec![]));
    assert!(!c.root.exists() && cgroups_named(&c.id).is_empty(), "nothing may be made");
    c.write_config();
    let out = c.call_from_shell("exec \"$1\" check .", "check", &[], &[]).ok();
    assert_eq!(out.stdout, "0 errors, 0 warnings\n");
}

#[test]
fn every_mistake_is_listed() {
    known!("runc", "*", "has no check");
    let c = Container::new()
        .with("/process/oomScoreAdj", json!(2000))
        .with("/process/cwd", json!("relative"))
        .with("/process/rlimits", json!([{ "type": "RLIMIT_CPU", "soft": 2, "hard": 1 }]))
        .with("/linux/namespaces/-", json!({ "type": "nope" }))
        .with("/linux/rootfsPropagation", json!("sideways"))
        .with("/linux/sysctl", json!({ "kernel.panic": "1" }))
        .mount("/x", "bind", "/no/such/source", &["rbind"]);
    assert_errors(
        &c,
        &[
            "process.oomScoreAdj: 2000",
            "process.cwd",
            "process.rlimits[0]",
            "linux.namespaces[",
            "linux.rootfsPropagation: \"sideways\"",
            "linux.sysctl",
            "/no/such/source",
        ],
    );
}

#[test]
fn a_wrong_type_has_line_and_column() {
    known!("runc", "*", "has no check");
    let c = Container::new().with("/process/user/uid", json!("root"));
    let (code, found) = findings(&c);
    assert_eq!(code, 1);
    assert!(found.iter().any(|(_, p)| p.contains("process.user.uid") && p.contains("line 1 column")), "{found:?}");
    // Only the first is found in the file itself: a position of a later one would be wrong, and is left out.
    let c = c.with("/process/terminal", json!(7)).with("/linux/maskedPaths", json!({}));
    let (_, found) = findings(&c);
    let positions = found.iter().filter(|(_, p)| p.contains(" line ")).count();
    assert_eq!((found.len(), positions), (3, 1), "{found:?}");
    fs::write(c.dir.join("config.json"), "{\n \"a\": }").expect("config.json");
    let out = c.call_from_shell("exec \"$1\" check .", "check", &[], &[]);
    assert!(out.code == 1 && out.stdout.contains("line 2"), "{out}");
    fs::remove_file(c.dir.join("config.json")).expect("config.json");
    let out = c.call_from_shell("exec \"$1\" check .", "check", &[], &[]);
    assert!(out.code == 1 && out.stdout.contains("config.json"), "{out}");
}

#[test]
fn what_only_the_machine_can_tell() {
    known!("runc", "*", "has no check");
    let hook = |c: &Container| c.dir.join("hook").to_str().expect("UTF-8").to_owned();
    let c = Container::new().args(&["no-such-program"]).namespace("network", "/no/such/namespace");
    let path = hook(&c);
    fs::write(&path, "").expect("file");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).expect("chmod");
    let c = c.with("/hooks/createRuntime", json!([{ "path": path }])).mount("/y", "nosuchfs", "x", &[]);
    assert_errors(
        &c,
        &["no-such-program", "/no/such/namespace", "hooks.createRuntime[0]", "mounts[7].type: fsopen(\"nosuchfs\")"],
    );
    // What a mount may bring is not missed.
    let c = Container::new().args(&["/opt/tool"]);
    let source = c.dir.to_str().expect("UTF-8").to_owned();
    assert_eq!(findings(&c.mount("/opt", "bind", &source, &["rbind"])).0, 0);
}

#[test]
fn misspelt_and_deprecated_properties_are_warnings() {
    known!("runc", "*", "has no check");
    let c = Container::new().with("/hostnam", json!("x")).with("/process/noNewPrivilege", json!(true));
    let c = c.with("/hooks/prestart", json!([{ "path": "/bin/true" }]));
    let (code, found) = findings(&c);
    assert_eq!(code, 0, "{found:?}");
    for text in
        ["hostnam: not a property", "\"hostname\" is meant?", "process.noNewPrivilege", "hooks.prestart: deprecated"]
    {
        assert!(found.iter().any(|(s, p)| s == "warning" && p.contains(text)), "{text}: {found:?}");
    }
}
