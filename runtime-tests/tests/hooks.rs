//! The six hooks: when they run, where, and with what.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use runtime_tests::{Container, known, until};
use serde_json::{Value, json};

const ALL: [&str; 6] = ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"];

/// A hook that appends to the log in the root file system, where those inside and those outside find it, and ends with
/// `code`.
fn hook(c: &Container, name: &str, code: u8) -> Value {
    let inside = name == "startContainer";
    let (path, log) =
        if inside { ("/bin/guest".into(), "/hooks".into()) } else { (c.path("bin/guest"), c.path("hooks")) };
    json!({ "path": path, "args": ["guest", "hook", name, log, code.to_string()], "env": [format!("HOOK={name}")] })
}

fn with_hooks(names: &[&str]) -> Container {
    let c = Container::new().idle().namespace("cgroup", "");
    names.iter().fold(c, |c, name| {
        let hook = hook(&c, name, 0);
        c.with(&format!("/hooks/{name}"), json!([hook]))
    })
}

/// The lines of the log.
fn log(c: &Container) -> Vec<Value> {
    let text = fs::read_to_string(c.path("hooks")).unwrap_or_default();
    text.lines().map(|l| serde_json::from_str(l).expect("a line of JSON")).collect()
}

fn names(c: &Container) -> Vec<String> {
    log(c).iter().map(|l| l["name"].as_str().unwrap_or_default().to_owned()).collect()
}

#[test]
fn each_runs_at_its_moment() {
    known!("runc", "1.6", "poststart runs in create");
    let c = with_hooks(&ALL);
    c.create(&[]).ok();
    assert_eq!(names(&c), ALL[..3]);
    c.start().ok();
    until("poststart", || names(&c).len() == 5);
    assert_eq!(names(&c), ALL[..5]);
    c.delete(&["--force"]).ok();
    assert_eq!(names(&c), ALL);
}

#[test]
fn all_run_in_order_over_a_life() {
    let but_poststart = ["prestart", "createRuntime", "createContainer", "startContainer", "poststop"];
    let c = with_hooks(&but_poststart).args(&["true"]);
    c.run(&[]).ok();
    assert_eq!(names(&c), but_poststart);
}

#[test]
fn several_of_a_kind_run_in_their_order() {
    let c = Container::new().args(&["true"]);
    let hooks: Vec<_> = ["a", "b", "c"].iter().map(|name| hook(&c, name, 0)).collect();
    let c = c.with("/hooks/createRuntime", json!(hooks));
    c.run(&[]).ok();
    assert_eq!(names(&c), ["a", "b", "c"]);
}

#[test]
fn the_namespaces_they_run_in() {
    let c = with_hooks(&ALL).up();
    let inside = c.exec_report(&[])["namespaces"].clone();
    c.delete(&["--force"]).ok();
    let outside = fs::read_link("/proc/self/ns/mnt").expect("own mount namespace");
    let lines = log(&c);
    assert_eq!(lines.len(), 6);
    for line in &lines {
        let name = line["name"].as_str().expect("name");
        let theirs = &line["report"]["namespaces"];
        if ["createContainer", "startContainer"].contains(&name) {
            for kind in ["mnt", "net", "ipc", "uts", "pid"] {
                assert_eq!(theirs[kind], inside[kind], "{name} {kind}");
            }
        } else {
            assert_eq!(theirs["mnt"], json!(outside), "{name}");
        }
    }
}

#[test]
fn the_state_they_get() {
    let c = with_hooks(&ALL).with("/annotations", json!({ "key": "value" })).up();
    let pid = c.pid();
    c.delete(&["--force"]).ok();
    for line in log(&c) {
        let (name, state) = (line["name"].as_str().expect("name"), &line["state"]);
        assert_eq!(state["id"], c.id.as_str(), "{name}");
        assert_eq!(state["bundle"], c.dir.to_str().expect("UTF-8"), "{name}");
        assert_eq!(state["annotations"]["key"], "value", "{name}");
        assert!(state["ociVersion"].is_string(), "{name}: {state}");
        let status = match name {
            "prestart" | "createRuntime" | "createContainer" => "creating",
            "startContainer" => "created",
            "poststart" => "running",
            _ => "stopped",
        };
        if !(name == "poststart" && runtime_tests::runtime().name == "runc") {
            assert_eq!(state["status"], status, "{name}");
        }
        // As it is seen where the hook runs (runtime.md, "State"); the container has a pid namespace.
        let seen = match name {
            "prestart" | "createRuntime" | "poststart" => json!(pid),
            "createContainer" | "startContainer" => json!(1),
            _ => Value::Null,
        };
        if !(name == "poststop" && runtime_tests::runtime().name == "runc") {
            assert_eq!(state["pid"], seen, "{name}");
        }
    }
}

#[test]
fn the_directory_they_run_in() {
    let c = with_hooks(&ALL).with("/process/cwd", json!("/tmp")).up();
    c.delete(&["--force"]).ok();
    let (bundle, root) = (json!(c.dir), json!(c.path("")));
    for line in log(&c) {
        let name = line["name"].as_str().expect("name");
        let expected = match name {
            "createContainer" => json!(root.as_str().map(|r| r.trim_end_matches('/'))),
            "startContainer" => json!("/tmp"),
            _ => bundle.clone(),
        };
        assert_eq!(line["report"]["cwd"], expected, "{name}");
    }
}

#[test]
fn their_environment_is_their_own() {
    let c = with_hooks(&["createRuntime"]).args(&["true"]);
    c.write_config();
    let mut call = c.command("run", &[], &[]);
    call.env("SECRET_OF_THE_HOST", "1");
    runtime_tests::run(&mut call, &c.dir).ok();
    assert_eq!(log(&c)[0]["report"]["env"], json!(["HOOK=createRuntime"]));
    assert_eq!(log(&c)[0]["report"]["argv"][0], "guest");
}

#[test]
fn they_get_no_descriptor_but_stdio() {
    known!("runc", "1.2", "createContainer hooks get its socket, its log and the start gate");
    let c = with_hooks(&ALL);
    c.write_config();
    let careless = "exec 5</ 7</proc 9<.; exec \"$@\"";
    for command in ["create", "start"] {
        c.call_from_shell(careless, command, &[], &[]).ok();
    }
    c.call_from_shell(careless, "delete", &["--force"], &[]).ok();
    for line in log(&c) {
        let fds = line["report"]["fds"].as_object().expect("fds");
        assert!(fds.keys().all(|fd| ["0", "1", "2"].contains(&fd.as_str())), "{}: {fds:?}", line["name"]);
    }
}

#[test]
fn without_env_there_is_none() {
    known!("runc", "1.2", "a hook without env gets the caller's");
    let mut c = with_hooks(&["createRuntime"]).args(&["true"]);
    c.config["hooks"]["createRuntime"][0].as_object_mut().expect("hook").remove("env");
    c.run(&[]).ok();
    assert_eq!(log(&c)[0]["report"]["env"], json!([]));
}

#[test]
fn a_failing_one_ends_the_creation() {
    for name in ["prestart", "createRuntime", "createContainer"] {
        let c = Container::new().idle();
        let hook = hook(&c, name, 9);
        let c = c.with(&format!("/hooks/{name}"), json!([hook]));
        c.create(&[]).fails(1, &[&format!("error running {name} hook #0:"), "9"]);
        c.assert_gone();
    }
}

#[test]
fn a_failing_start_container_keeps_the_program_from_running() {
    let c = Container::new().sh("touch /ran; sleep 3600");
    let hook = hook(&c, "startContainer", 9);
    let c = c.with("/hooks/startContainer", json!([hook]));
    let out = c.run(&[]);
    assert_ne!(out.code, 0, "{out}");
    assert!(!c.path("/ran").exists());
    assert_eq!(names(&c), ["startContainer"]);
}

#[test]
fn a_failing_poststart_stops_the_container() {
    known!("runc", "1.6", "poststart runs in create");
    let but = |name: &str, c: &Container| {
        let (first, second) = (hook(c, name, 9), hook(c, "second", 0));
        json!([first, second])
    };
    let c = Container::new().idle();
    let hooks = but("poststart", &c);
    let c = c.with("/hooks/poststart", hooks);
    c.create(&[]).ok();
    c.start().fails(1, &["error running poststart hook #0:", "9"]);
    c.wait_status("stopped");
    assert_eq!(names(&c), ["poststart"], "the others are left out");
    c.delete(&[]).ok();
    // In one go nothing is left of it, and poststop hooks have run.
    let c = Container::new().idle();
    let (hooks, stop) = (but("poststart", &c), hook(&c, "poststop", 0));
    let c = c.with("/hooks/poststart", hooks).with("/hooks/poststop", json!([stop]));
    c.run(&[]).fails(1, &["hooks.poststart[0]"]);
    c.assert_gone();
    assert_eq!(names(&c), ["poststart", "poststop"]);
}

#[test]
fn a_failed_creation_runs_the_poststop_hooks_that_undo_it() {
    known!("runc", "*", "it leaves them out");
    let c = Container::new().idle();
    let (first, second, stop) = (hook(&c, "first", 0), hook(&c, "second", 9), hook(&c, "poststop", 0));
    let c = c.with("/hooks/createRuntime", json!([first, second])).with("/hooks/poststop", json!([stop]));
    c.create(&[]).fails(1, &["hooks.createRuntime[1]"]);
    c.assert_gone();
    assert_eq!(names(&c), ["first", "second", "poststop"]);
}

#[test]
fn one_in_the_container_is_ended_by_its_timeout() {
    for name in ["createContainer", "startContainer"] {
        let c = Container::new().idle();
        let hook = json!({ "path": "/bin/sleep", "args": ["sleep", "3600"], "env": [format!("RT_ID={}", c.id)], "timeout": 1 });
        let c = c.with(&format!("/hooks/{name}"), json!([hook]));
        c.run(&[]).fails(1, &[name, "timeout"]);
        c.assert_gone();
    }
}

#[test]
fn a_start_container_without_env_has_the_programs() {
    known!("runc", "1.2", "a hook without env gets the caller's");
    let c = Container::new();
    let mut hook = hook(&c, "startContainer", 0);
    hook.as_object_mut().expect("hook").remove("env");
    let c = c.with("/process/env", json!(["PATH=/bin", "OWN=1"])).with("/hooks/startContainer", json!([hook]));
    let report = c.report();
    // HOME is from the container's passwd, as the program's.
    assert_eq!(log(&c)[0]["report"]["env"], report["env"]);
    assert!(
        report["env"].as_array().is_some_and(|e| e.iter().any(|v| v.as_str().is_some_and(|v| v.starts_with("HOME="))))
    );
}

#[test]
fn a_missing_one_is_named() {
    let c = Container::new().idle().with("/hooks/createRuntime", json!([{ "path": "/no/such/hook" }]));
    c.create(&[]).fails(1, &["createRuntime", "/no/such/hook"]);
    c.assert_gone();
}

#[test]
fn a_relative_path_is_refused() {
    let c = Container::new().idle().with("/hooks/createRuntime", json!([{ "path": "hook" }]));
    c.create(&[]).fails(1, &["createRuntime", "path", "absolute"]);
    c.assert_gone();
}

#[test]
fn one_that_hangs_is_ended_by_its_timeout() {
    let c = Container::new().idle();
    let hook =
        json!({ "path": "/bin/sleep", "args": ["sleep", "3600"], "env": [format!("RT_ID={}", c.id)], "timeout": 1 });
    let c = c.with("/hooks/createRuntime", json!([hook]));
    c.create(&[]).fails(1, &["createRuntime", "timeout"]);
    c.assert_gone();
}

#[test]
fn a_failing_poststop_is_only_a_warning() {
    let c = Container::new().idle();
    let hook = hook(&c, "poststop", 9);
    let c = c.with("/hooks/poststop", json!([hook])).up();
    c.delete(&["--force"]).ok();
    c.assert_gone();
    assert_eq!(names(&c), ["poststop"]);
}

#[test]
fn a_failing_poststop_does_not_stop_the_next() {
    known!("runc", "1.2", "the hooks after a failed one are left out");
    let c = Container::new().idle();
    let (first, second) = (hook(&c, "first", 9), hook(&c, "second", 0));
    let c = c.with("/hooks/poststop", json!([first, second])).up();
    c.delete(&["--force"]).ok();
    assert_eq!(names(&c), ["first", "second"]);
}

/// The annotations for the files, which are in the bundle.
fn output_to(c: Container, out: &str, err: &str) -> Container {
    let file = |name: &str| c.dir.join(name).to_str().expect("UTF-8").to_owned();
    let annotations = json!({ "run.oci.hooks.stdout": file(out), "run.oci.hooks.stderr": file(err) });
    c.with("/annotations", annotations)
}

/// A hook that says its name on both streams.
fn talker(name: &str, code: u8) -> Value {
    json!({ "path": "/bin/sh", "args": ["sh", "-c", format!("echo {name}; echo {name}! >&2; exit {code}")] })
}

#[test]
fn their_output_goes_to_files() {
    known!("runc", "*", "an annotation of crun's");
    let c = ALL.iter().fold(Container::new(), |c, name| c.with(&format!("/hooks/{name}"), json!([talker(name, 0)])));
    let c = output_to(c, "out", "err");
    fs::write(c.dir.join("out"), "before\n").expect("file");
    // The files are the hooks', not the program's.
    let fds = c.report()["fds"].as_object().expect("fds").keys().cloned().collect::<Vec<_>>();
    assert!(fds.iter().all(|fd| ["0", "1", "2"].contains(&fd.as_str())), "{fds:?}");
    let read = |name: &str| fs::read_to_string(c.dir.join(name)).expect("file");
    assert_eq!(read("out"), format!("before\n{}\n", ALL.join("\n")));
    assert_eq!(read("err"), format!("{}!\n", ALL.join("!\n")));
    assert_eq!(fs::metadata(c.dir.join("err")).expect("file").permissions().mode() & 0o777, 0o700);
    // In `create`, `start` and `delete`, and both into one file.
    let c = output_to(c, "all", "all");
    c.create(&[]).ok();
    c.start().ok();
    c.delete(&["--force"]).ok();
    let text = fs::read_to_string(c.dir.join("all")).expect("file");
    assert_eq!(text, ALL.map(|name| format!("{name}\n{name}!\n")).concat());
}

#[test]
fn output_that_cannot_go_there_is_named() {
    known!("runc", "*", "an annotation of crun's");
    let c = Container::new().idle().with("/annotations", json!({ "run.oci.hooks.stdout": "relative" }));
    c.create(&[]).fails(1, &["annotations[", "run.oci.hooks.stdout", "absolute"]);
    let c = c.with("/annotations", json!({ "run.oci.hooks.stderr": "/no/such/dir/file" }));
    c.create(&[]).fails(1, &["run.oci.hooks.stderr", "/no/such/dir/file"]);
    c.assert_gone();
    // A hook that fails is still named, with what went nowhere else.
    let c = c.with("/hooks/createRuntime", json!([talker("x", 9)]));
    let file = c.dir.join("out").to_str().expect("UTF-8").to_owned();
    let c = c.with("/annotations", json!({ "run.oci.hooks.stdout": file }));
    c.create(&[]).fails(1, &["hooks.createRuntime[0]", "exit status 9", "x!"]);
    c.assert_gone();
}
