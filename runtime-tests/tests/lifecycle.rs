//! create, start, state, kill, delete, run, and the files and exit codes that clients depend on.

use std::fs;
use std::os::unix::fs::MetadataExt as _;

use runtime_tests::{Container, cgroups_named, known, runtime, skip, until};
use serde_json::json;

#[test]
fn two_stage_start() {
    let c = Container::new().args(&["sh", "-c", "echo began; sleep 3600"]);
    let create = c.create(&[]).ok();
    assert_eq!(c.state()["status"], "created");
    assert_eq!(create.stdout, "", "the program must not run before start");
    c.start().ok();
    create.wait_for("began");
    assert_eq!(c.state()["status"], "running");
    c.kill("KILL").ok();
    c.wait_status("stopped");
    c.delete(&[]).ok();
    c.assert_gone();
}

#[test]
fn state_has_the_fields_clients_read() {
    let c = Container::new().idle().with("/annotations", json!({ "org.example.key": "value" })).up();
    let state = c.state();
    assert_eq!(state["id"], c.id.as_str());
    assert_eq!(state["status"], "running");
    assert_eq!(state["bundle"], c.dir.to_str().expect("UTF-8"));
    assert_eq!(state["rootfs"], c.path("").to_str().expect("UTF-8").trim_end_matches('/'));
    assert_eq!(state["annotations"]["org.example.key"], "value");
    assert!(state["ociVersion"].as_str().is_some_and(|v| v.starts_with("1.")), "{state}");
    let created = state["created"].as_str().expect("created");
    assert!(created.contains('T') && created.ends_with('Z'), "RFC 3339 in UTC: {created}");
    // start returns when the program is about to be executed.
    let cmdline = || fs::read(format!("/proc/{}/cmdline", c.pid())).expect("cmdline of the pid in state");
    until("the program", || cmdline() == b"sleep\x003600\0");
    c.kill("KILL").ok();
    c.wait_status("stopped");
    assert_eq!(c.state()["pid"], 0);
}

#[test]
fn run_passes_the_exit_code_on() {
    for code in [0, 1, 7, 125, 255] {
        let c = Container::new().sh(&format!("exit {code}"));
        assert_eq!(c.run(&[]).code, code);
    }
}

#[test]
fn death_by_signal_is_128_plus_its_number() {
    // The first process of a pid namespace ignores what it does not handle, except SIGKILL from outside.
    let c = Container::new().idle();
    let out = c.run(&["--detach"]).ok();
    assert_eq!(out.code, 0);
    c.kill("KILL").ok();
    c.wait_status("stopped");

    let mut shared = Container::new().sh("kill -TERM $$");
    shared.remove_namespace("pid");
    assert_eq!(shared.run(&[]).code, 128 + 15);
}

#[test]
fn run_removes_the_container() {
    let c = Container::new().args(&["true"]);
    c.run(&[]).ok();
    c.assert_gone();
    c.call("state", &[], &[]).fails(1, &["does not exist"]);
}

#[test]
fn run_keep_leaves_it_stopped() {
    if runtime().uses_systemd() {
        skip!("systemd takes a scope back when its last process has ended");
    }
    let c = Container::new().args(&["true"]);
    c.run(&["--keep"]).ok();
    assert_eq!(c.state()["status"], "stopped");
    assert!(!cgroups_named(&c.id).is_empty(), "BuildKit reads the statistics after the end");
    c.delete(&[]).ok();
    c.assert_gone();
}

#[test]
fn run_detached_returns_while_it_runs() {
    let c = Container::new().sh("echo out; sleep 3600");
    let out = c.run(&["--detach", "--pid-file", "pid"]).ok();
    out.wait_for("out");
    assert_eq!(c.state()["status"], "running");
    assert_eq!(fs::read_to_string(c.dir.join("pid")).expect("pid file"), c.pid().to_string());
}

#[test]
fn pid_file_is_whole_and_has_no_newline() {
    let c = Container::new().idle();
    // The old file is replaced, not written into: a reader sees the old pid or the new one.
    let file = c.dir.join("pid");
    fs::write(&file, "4194304999").expect("old pid file");
    let old = fs::metadata(&file).expect("old pid file").ino();
    c.create(&["--pid-file", "pid"]).ok();
    assert_eq!(fs::read_to_string(&file).expect("pid file"), c.pid().to_string());
    assert_ne!(fs::metadata(&file).expect("pid file").ino(), old);
    let names: Vec<_> = fs::read_dir(&c.dir).expect("bundle").flatten().map(|e| e.file_name()).collect();
    let temporary = names.iter().filter(|n| n.to_string_lossy().contains("pid")).count();
    assert_eq!(temporary, 1, "{names:?}");
}

#[test]
fn kill_takes_names_and_numbers() {
    let c = Container::new().args(&["guest", "signals"]);
    let create = c.create(&[]).ok();
    c.start().ok();
    create.wait_for("ready");
    for (signal, number) in [("HUP", 1), ("SIGUSR1", 10), ("12", 12), ("sigint", 2), ("winch", 28)] {
        c.kill(signal).ok();
        create.wait_for(&format!("\n{number}\n"));
    }
    c.call("kill", &[], &[]).ok();
    create.wait_for("\n15\n");
    c.wait_status("stopped");
}

#[test]
fn kill_refuses_what_is_no_signal() {
    let c = Container::new().idle().up();
    c.kill("NOTASIGNAL").fails(1, &["NOTASIGNAL"]);
    c.kill("99").fails(1, &["99"]);
    assert_eq!(c.state()["status"], "running");
}

#[test]
fn kill_of_a_stopped_container() {
    let c = Container::new().args(&["true"]).up();
    c.wait_status("stopped");
    let out = c.kill("TERM");
    assert_eq!(out.code, 1, "{out}");
    assert!(out.stderr.contains("container not running"), "containerd looks for this text: {out}");
}

#[test]
fn kill_all_reaches_every_process() {
    let mut c = Container::new().sh("sleep 3600 & sleep 3600 & echo up; wait");
    c.remove_namespace("pid");
    let create = c.create(&[]).ok();
    c.start().ok();
    create.wait_for("up");
    let all = |c: &Container| c.call("ps", &["--format", "json"], &[]).ok().json().as_array().map_or(0, Vec::len);
    until("three processes", || all(&c) == 3);
    c.call("kill", &["--all"], &["KILL"]).ok();
    c.wait_status("stopped");
    until("no process", || all(&c) == 0);
}

#[test]
fn kill_of_a_created_container() {
    let c = Container::new().idle();
    c.create(&[]).ok();
    c.kill("KILL").ok();
    c.wait_status("stopped");
    c.start().fails(1, &[]);
    c.delete(&[]).ok();
    c.assert_gone();
    // One that asks reaches it as well, from the moment on that `create` returns: as process 1 it would ignore it by default.
    for _ in 0..10 {
        let c = Container::new().idle();
        c.create(&[]).ok();
        c.kill("TERM").ok();
        c.wait_status("stopped");
    }
}

#[test]
fn delete_refuses_a_running_container() {
    let c = Container::new().idle().up();
    c.delete(&[]).fails(1, &["running", "--force"]);
    assert_eq!(c.state()["status"], "running");
    c.delete(&["--force"]).ok();
    c.assert_gone();
}

#[test]
fn delete_kills_a_created_container() {
    let c = Container::new().idle();
    c.create(&[]).ok();
    c.delete(&[]).ok();
    c.assert_gone();
}

#[test]
fn delete_of_a_paused_container() {
    let c = Container::new().idle().up();
    c.call("pause", &[], &[]).ok();
    assert_eq!(c.state()["status"], "paused");
    c.delete(&["--force"]).ok();
    c.assert_gone();
}

#[test]
fn delete_force_forgives_an_unknown_id() {
    let c = Container::new();
    let out = c.delete(&[]);
    assert_eq!(out.code, 1, "{out}");
    assert!(out.stderr.contains("does not exist"), "containerd looks for this text: {out}");
    c.delete(&["--force"]).ok();
}

#[test]
fn start_twice_is_refused() {
    let c = Container::new().idle().up();
    c.start().fails(1, &["running"]);
    assert_eq!(c.state()["status"], "running");
}

#[test]
fn delete_removes_processes_that_outlive_the_first() {
    let mut c = Container::new().sh("sleep 3600 & sleep 3600 & exit 0");
    c.remove_namespace("pid");
    let c = c.up();
    c.wait_status("stopped");
    c.delete(&["--force"]).ok();
    c.assert_gone();
}

#[test]
fn foreground_run_forwards_signals() {
    let c = Container::new().args(&["guest", "signals"]);
    c.write_config();
    let mut run = c.spawn("run", &[], &[]);
    run.wait_for("ready");
    for (signal, number) in [("HUP", 1), ("USR1", 10), ("INT", 2), ("TERM", 15)] {
        let pid = run.id().to_string();
        let status = std::process::Command::new("kill").args(["-s", signal, &pid]).status().expect("kill");
        assert!(status.success());
        run.wait_for(&format!("\n{number}\n"));
    }
    assert_eq!(run.wait(), 17);
}

#[test]
fn foreground_run_of_a_killed_container() {
    let c = Container::new().args(&["guest", "signals"]);
    c.write_config();
    let mut run = c.spawn("run", &[], &[]);
    run.wait_for("ready");
    c.kill("KILL").ok();
    assert_eq!(run.wait(), 128 + 9);
    c.assert_gone();
}

#[test]
fn foreground_run_that_is_killed_leaves_the_container_running() {
    let c = Container::new().args(&["guest", "signals"]);
    c.write_config();
    let run = c.spawn("run", &[], &[]);
    run.wait_for("ready");
    c.wait_status("running");
    drop(run);
    assert_eq!(c.state()["status"], "running");
    c.delete(&["--force"]).ok();
    c.assert_gone();
}

#[test]
fn foreground_run_ends_with_the_first_process() {
    // Without a pid namespace the others outlive it, and would be the runtime's children.
    let mut c = Container::new().sh("sleep 3600 & (sleep 3600 &); exit 4");
    c.remove_namespace("pid");
    assert_eq!(c.run(&[]).code, 4);
    c.assert_gone();
}

#[test]
fn another_config_file() {
    known!("runc", "*", "-f/--config of create and run is crun's");
    let c = Container::new().args(&["echo", "other"]);
    fs::write(c.dir.join("other.json"), c.config.to_string()).expect("other.json");
    let out = c.call("run", &["--config", "other.json"], &[]).ok();
    assert_eq!(out.stdout, "other\n");
}

#[test]
fn bundle_by_flag() {
    let c = Container::new().args(&["echo", "there"]);
    c.write_config();
    let mut call = c.command("run", &["--bundle", c.dir.to_str().expect("UTF-8")], &[]);
    call.current_dir("/");
    assert_eq!(runtime_tests::run(&mut call, &c.dir).ok().stdout, "there\n");
}
