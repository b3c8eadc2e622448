//! Checkpoint: what was saved goes on where it was, or nothing has happened. `restore.rs` has what a restore does.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Stdio;

use runtime_tests::criu::{
    count, counter, goes_on, has_feature, in_a_user_namespace, interrupt, like, program, restored, saved,
};
use runtime_tests::{Container, cgroup_file, known, need_criu, runtime, skip, until};
use serde_json::json;

#[test]
fn what_is_restored_goes_on_and_is_a_container_like_any() {
    need_criu!();
    let c = counter().with("/linux/resources/pids", json!({ "limit": 40 })).up();
    let n = saved(&c, &["--image-path", "img", "--work-path", "work"]);
    assert!(c.dir.join("work/dump.log").exists() && c.dir.join("img/inventory.img").exists());
    // As with runc, nothing is left of it.
    c.assert_gone();
    c.delete(&[]).fails(1, &["does not exist"]);

    restored(&c, &["-d", "--image-path", "img", "--work-path", "work", "--pid-file", "pid"]).ok();
    assert_eq!(c.state()["status"], "running");
    assert_eq!(fs::read_to_string(c.dir.join("pid")).unwrap(), c.pid().to_string());
    goes_on(&c, n);

    assert_eq!(cgroup_file(c.pid(), "pids", "pids.max").as_deref(), Some("40"));
    let report = c.exec_report(&[]);
    assert_eq!(report["hostname"], "box");
    c.call("pause", &[], &[]).ok();
    assert_eq!(c.state()["status"], "paused");
    c.call("resume", &[], &[]).ok();
    c.call("update", &["--pids-limit", "50"], &[]).ok();
    assert_eq!(cgroup_file(c.pid(), "pids", "pids.max").as_deref(), Some("50"));
    c.kill("KILL").ok();
    c.wait_status("stopped");
    c.delete(&[]).ok();
    c.assert_gone();
}

/// Whether criu manages cgroups or not, limits hold.
#[test]
fn limits_hold_in_every_mode_of_cgroups() {
    known!("runc", "1.2", "ignore is no mode");
    need_criu!();
    let c = counter().with("/linux/resources/pids", json!({ "limit": 40 })).up();
    for mode in ["soft", "full", "ignore"] {
        let images = format!("img-{mode}");
        saved(&c, &["--image-path", &images, "--manage-cgroups-mode", mode]);
        restored(&c, &["-d", "--image-path", &images, "--manage-cgroups-mode", mode]).ok();
        assert_eq!(cgroup_file(c.pid(), "pids", "pids.max").as_deref(), Some("40"), "{mode}");
    }
}

#[test]
fn saved_again_after_it_was_restored() {
    need_criu!();
    let c = counter().up();
    let mut n = saved(&c, &["--image-path", "img0"]);
    for i in 0..2 {
        restored(&c, &["-d", "--image-path", &format!("img{i}")]).ok();
        goes_on(&c, n);
        n = saved(&c, &["--image-path", &format!("img{}", i + 1)]);
    }
    c.assert_gone();
}

#[test]
fn device_rules_of_update_are_kept() {
    known!("runc", "*", "has no update --device");
    need_criu!();
    let nothing = json!([{ "allow": false, "access": "rwm" }]);
    let c = counter().caps(&["CAP_MKNOD"]).with("/linux/resources/devices", nothing).up();
    c.exec(&[], &["sh", "-c", "mkdir /n; mknod /n/kmsg c 1 11; mknod /n/port c 1 4; :"]).ok();
    let opened = |c: &Container| c.attempt(&["write", "/n/kmsg", "read", "/n/port"]);
    assert_eq!(opened(&c), json!(["EPERM", "EPERM"]));
    c.call("update", &["--device", "c 1:11 w"], &[]).ok();
    // Twice: a restored container has them as well as one that was updated.
    for images in ["img0", "img1"] {
        saved(&c, &["--image-path", images]);
        restored(&c, &["-d", "--image-path", images]).ok();
        assert_eq!(opened(&c), json!([0, "EPERM"]), "{images}");
    }
    c.call("update", &["--device", "deny c 1:11 rwm"], &[]).ok();
    assert_eq!(opened(&c), json!(["EPERM", "EPERM"]));
}

#[test]
fn left_running() {
    need_criu!();
    let c = counter().up();
    let pid = c.pid();
    let n = saved(&c, &["--leave-running", "--image-path", "img"]);
    assert_eq!((c.state()["status"].as_str(), c.pid()), (Some("running"), pid));
    goes_on(&c, n);
    // The id is taken, and a failed restore leaves the one who has it alone.
    restored(&c, &["-d", "--image-path", "img"]).fails(1, &["already exists"]);
    goes_on(&c, n);
    c.delete(&["--force"]).ok();
    restored(&c, &["-d", "--image-path", "img"]).ok();
    goes_on(&c, n);
}

#[test]
fn memory_first_then_the_rest() {
    need_criu!();
    let c = counter().up();
    if !has_feature("mem_dirty_track") {
        let out = c.call("checkpoint", &["--pre-dump", "--image-path", "first"], &[]);
        out.fails(1, &["--pre-dump", "CONFIG_MEM_SOFT_DIRTY"]);
        goes_on(&c, 2);
        skip!("this kernel does not track changed memory (CONFIG_MEM_SOFT_DIRTY)");
    }
    let n = saved(&c, &["--pre-dump", "--image-path", "first"]);
    goes_on(&c, n);
    assert!(!c.dir.join("first/inventory.img").exists() || c.dir.join("first/pagemap-1.img").exists());
    let bad = c.call("checkpoint", &["--image-path", "second", "--parent-path", "/first"], &[]);
    bad.fails(1, &["--parent-path", "must be relative"]);
    c.call("checkpoint", &["--image-path", "second", "--parent-path", "../none"], &[]).fails(1, &["--parent-path"]);
    goes_on(&c, n);
    let n = saved(&c, &["--image-path", "second", "--parent-path", "../first"]);
    assert!(c.dir.join("second/parent").exists());
    restored(&c, &["-d", "--image-path", "second"]).ok();
    goes_on(&c, n);
}

#[test]
fn memory_first_in_a_user_namespace() {
    need_criu!();
    known!("runc", "*", "the namespace's root cannot search the directory of the images");
    if !has_feature("mem_dirty_track") {
        skip!("this kernel does not track changed memory (CONFIG_MEM_SOFT_DIRTY)");
    }
    let c = in_a_user_namespace(counter()).up();
    saved(&c, &["--pre-dump", "--image-path", "first"]);
    let n = saved(&c, &["--image-path", "second", "--parent-path", "../first"]);
    restored(&c, &["-d", "--image-path", "second"]).ok();
    goes_on(&c, n);
}

#[test]
fn paused_and_saved() {
    need_criu!();
    known!("runc", "1.2", "it hangs or fails with a frozen cgroup");
    let c = counter().up();
    count(&c);
    c.call("pause", &[], &[]).ok();
    c.call("checkpoint", &["--leave-running", "--image-path", "one"], &[]).ok();
    assert_eq!(c.state()["status"], "paused", "left as it was");
    c.call("resume", &[], &[]).ok();
    goes_on(&c, count(&c));
    c.call("pause", &[], &[]).ok();
    let n = saved(&c, &["--image-path", "two"]);
    c.assert_gone();
    restored(&c, &["-d", "--image-path", "two"]).ok();
    goes_on(&c, n);
}

/// A connection over the loopback interface, on which lines are sent all the time.
fn connected() -> Container {
    Container::new().sh("exec guest talk /tmp/got </dev/null >/dev/null 2>&1").up()
}

fn received(c: &Container) -> usize {
    fs::read_to_string(c.path("tmp/got")).unwrap_or_default().lines().count()
}

#[test]
fn a_tcp_connection_is_refused_kept_or_closed() {
    need_criu!();
    known!("runc", "*", "has no --network-lock; locking needs iptables");
    let c = connected();
    until("something to arrive", || received(&c) > 3);
    c.call("checkpoint", &["--image-path", "no"], &[]).fails(1, &["--tcp-established", "dump.log"]);
    let n = received(&c);
    until("the connection to go on", || received(&c) > n + 2);

    c.call("checkpoint", &["--image-path", "img", "--tcp-established", "--network-lock", "skip"], &[]).ok();
    let n = received(&c);
    restored(&c, &["-d", "--image-path", "img", "--tcp-established", "--network-lock", "skip"]).ok();
    until("the restored connection to go on", || received(&c) > n + 2);
    assert!(!c.path("tmp/got.gone").exists());
    c.delete(&["--force"]).ok();

    // Files have to be as they were.
    let got = fs::File::options().write(true).open(c.path("tmp/got")).expect("file");
    got.set_len(5 * n as u64).expect("truncate");
    restored(&c, &["-d", "--image-path", "img", "--tcp-close", "--network-lock", "skip"]).ok();
    until("the end of the closed connection", || c.path("tmp/got.gone").exists());
    c.delete(&["--force"]).ok();
}

#[test]
fn only_what_runs_is_saved() {
    let c = counter();
    c.call("checkpoint", &["--image-path", "img"], &[]).fails(1, &["does not exist"]);
    c.create(&[]).ok();
    c.call("checkpoint", &["--image-path", "img"], &[]).fails(1, &["cannot be checkpointed in created state"]);
    assert_eq!(c.state()["status"], "created");
    c.start().ok();
    c.kill("KILL").ok();
    c.wait_status("stopped");
    c.call("checkpoint", &["--image-path", "img"], &[]).fails(1, &["cannot be checkpointed in stopped state"]);
}

#[test]
fn bad_image_paths() {
    need_criu!();
    let c = counter().up();
    let n = count(&c);
    fs::write(c.dir.join("file"), "").unwrap();
    c.call("checkpoint", &["--image-path", "file"], &[]).fails(1, &["--image-path", "file"]);
    c.call("checkpoint", &["--image-path", "img", "--work-path", "file"], &[]).fails(1, &["--work-path", "file"]);
    goes_on(&c, n);
    let other = like(&c);
    restored(&other, &["-d", "--image-path", "none"]).fails(1, &["--image-path", "none"]);
    other.assert_gone();
    fs::create_dir(other.dir.join("empty")).unwrap();
    restored(&other, &["-d", "--image-path", "empty"]).fails(1, &["descriptors.json"]);
    other.assert_gone();
    fs::write(other.dir.join("empty/descriptors.json"), "[]").unwrap();
    restored(&other, &["-d", "--image-path", "empty"]).fails(1, &["criu failed", "restore.log"]);
    other.assert_gone();
    // Damaged images, and a document of ours that is none.
    c.call("checkpoint", &["--leave-running", "--image-path", "img"], &[]).ok();
    let images = c.dir.join("img").to_string_lossy().into_owned();
    if runtime().is_ours() {
        let document = c.dir.join("img/rrt.json");
        let good = fs::read(&document).unwrap();
        fs::write(&document, "{\"external\":[{]}").unwrap();
        restored(&other, &["-d", "--image-path", &images]).fails(1, &["rrt.json"]);
        other.assert_gone();
        fs::write(&document, good).unwrap();
    }
    fs::write(c.dir.join("img/pstree.img"), "rubbish").unwrap();
    restored(&other, &["-d", "--image-path", &images]).fails(1, &["criu failed", "restore.log"]);
    other.assert_gone();
}

#[test]
fn bad_flags_are_named() {
    let c = Container::new();
    let checkpoint = |flags: &[&str]| c.call("checkpoint", flags, &[]);
    checkpoint(&["--manage-cgroups-mode", "bogus"]).fails(1, &["manage-cgroups-mode", "soft, full, strict or ignore"]);
    checkpoint(&["--empty-ns", "pid"]).fails(1, &["pid", "is not supported: expected network"]);
    checkpoint(&["--page-server", "1234"]).fails(1, &["--page-server ADDRESS:PORT"]);
    checkpoint(&["--page-server", "host:0"]).fails(1, &["--page-server ADDRESS:PORT"]);
    checkpoint(&["--status-fd", "x"]).fails(1, &["status-fd"]);
    if runtime().is_ours() {
        checkpoint(&["--network-lock", "x"]).fails(1, &["network-lock", "iptables, nftables or skip"]);
    }
    // Podman asks so whether the flag is there.
    let out = c.call("restore", &["--lsm-mount-context"], &[]);
    let mut alone = runtime_command(&c, &["restore", "--lsm-mount-context"]);
    let alone = alone.output().unwrap();
    let text = String::from_utf8_lossy(&alone.stderr).into_owned() + &String::from_utf8_lossy(&alone.stdout);
    assert!(text.contains("flag needs an argument") || text.contains("requires an argument"), "{text} {out}");
    for command in ["checkpoint", "restore"] {
        assert!(runtime_command(&c, &[command, "--help"]).output().unwrap().status.success());
    }
}

fn runtime_command(c: &Container, args: &[&str]) -> std::process::Command {
    let mut command = std::process::Command::new(&c.binary);
    command.args(args).current_dir(&c.dir);
    command
}

#[test]
fn a_status_fd_has_to_be_open_and_writable() {
    need_criu!();
    let c = counter().up();
    let flags = ["--lazy-pages", "--status-fd", "9", "--image-path", "img"];
    if runtime().is_ours() {
        c.call("checkpoint", &flags, &[]).fails(1, &["--status-fd", "not an open"]);
        let out = c.call_from_shell("exec 9</dev/null; exec \"$@\"", "checkpoint", &flags, &[]);
        out.fails(1, &["--status-fd", "not writable"]);
    }
    goes_on(&c, count(&c));
}

/// A port of the loopback interface that nobody has.
fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// criu itself in the background, as an administrator would have it run.
fn background_criu(c: &Container, args: &[&str]) -> runtime_tests::Background {
    let mut call = std::process::Command::new("criu");
    let log = fs::File::options().create(true).append(true).open(c.dir.join("criu.out")).unwrap();
    call.args(args).current_dir(&c.dir).stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
    runtime_tests::Background::start_as_is(&mut call)
}

fn is_served(port: u16) -> bool {
    let wanted = format!(":{port:04X} 00000000:0000 0A");
    fs::read_to_string("/proc/net/tcp").unwrap_or_default().lines().any(|l| l.contains(&wanted))
}

#[test]
fn memory_goes_to_a_page_server() {
    need_criu!();
    let c = counter().up();
    count(&c);
    let port = free_port();
    fs::create_dir(c.dir.join("img")).unwrap();
    let mut server = background_criu(&c, &["page-server", "-D", "img", "--port", &port.to_string()]);
    until("the page server", || is_served(port));
    let n = saved(&c, &["--image-path", "img", "--work-path", "work", "--page-server", &format!("127.0.0.1:{port}")]);
    assert_eq!(server.wait(), 0);
    restored(&c, &["-d", "--image-path", "img"]).ok();
    goes_on(&c, n);
}

/// A PATH in which criu is the script given.
fn with_criu(c: &Container, script: &str, command: &str, flags: &[&str]) -> std::process::Command {
    let bin = c.dir.join("bin");
    let _ = fs::create_dir(&bin);
    fs::write(bin.join("criu"), format!("#!/bin/sh\n{script}\n")).unwrap();
    fs::set_permissions(bin.join("criu"), fs::Permissions::from_mode(0o755)).unwrap();
    let mut call = c.command(command, flags, &[]);
    call.env("PATH", format!("{}:{}", bin.display(), std::env::var("PATH").unwrap_or_default()));
    call
}

#[test]
fn a_criu_that_dies_or_hangs_changes_nothing() {
    need_criu!();
    known!("runc", "*", "waits for ever");
    let c = counter().up();
    let n = count(&c);
    let flags = ["--image-path", "img"];
    let out = runtime_tests::run(&mut with_criu(&c, "exit 3", "checkpoint", &flags), &c.dir);
    out.fails(1, &["criu ended without an answer (exit status 3)"]);
    let mut hangs = with_criu(&c, "exec sleep 3600", "checkpoint", &flags);
    runtime_tests::run(hangs.env("RRT_CRIU_TIMEOUT", "1"), &c.dir).fails(1, &["criu does not answer"]);
    goes_on(&c, n);
    let other = like(&c);
    fs::create_dir(other.dir.join("img")).unwrap();
    fs::write(other.dir.join("img/descriptors.json"), "[]").unwrap();
    other.write_config();
    let mut hangs = with_criu(&other, "exec sleep 3600", "restore", &flags);
    runtime_tests::run(hangs.env("RRT_CRIU_TIMEOUT", "1"), &other.dir).fails(1, &["criu does not answer"]);
    other.assert_gone();
}

#[test]
fn an_interrupted_checkpoint_leaves_the_container_running() {
    need_criu!();
    known!("runc", "*", "dies, and criu goes on");
    let c = counter().up();
    let n = count(&c);
    let real = program().unwrap();
    let script = format!("touch started; sleep 0.5; exec {} \"$@\"", real.display());
    let mut call = with_criu(&c, &script, "checkpoint", &["--image-path", "img"]);
    let errors = fs::File::create(c.dir.join("errors")).unwrap();
    let mut running = runtime_tests::Background::start_as_is(call.stderr(errors));
    until("criu to start", || c.dir.join("started").exists());
    interrupt(running.id());
    assert_eq!(running.wait(), 1);
    let text = fs::read_to_string(c.dir.join("errors")).unwrap();
    assert!(text.contains("interrupted by signal 2") && text.lines().count() == 1, "{text}");
    assert_eq!(c.state()["status"], "running");
    goes_on(&c, n);
    // And can be saved as if nothing had been.
    let n = saved(&c, &["--image-path", "img"]);
    restored(&c, &["-d", "--image-path", "img"]).ok();
    goes_on(&c, n);
}

#[test]
fn a_killed_checkpoint_leaves_the_container_running() {
    need_criu!();
    known!("runc", "*", "the same, but not looked at");
    let c = counter().up();
    let n = count(&c);
    let real = program().unwrap();
    let script = format!("touch started; sleep 0.5; exec {} \"$@\"", real.display());
    let mut call = with_criu(&c, &script, "checkpoint", &["--image-path", "img"]);
    let running = runtime_tests::Background::start_as_is(&mut call);
    until("criu to start", || c.dir.join("started").exists());
    drop(running);
    std::thread::sleep(std::time::Duration::from_millis(1000));
    assert_eq!(c.state()["status"], "running");
    goes_on(&c, n);
}

#[test]
fn the_streams_are_the_containers_own_null_device() {
    // Also for its safety: root in the container could change the mode of the host's node.
    let c = Container::new().sh("sleep 3600");
    c.write_config();
    let mut call = c.command("run", &["-d"], &[]);
    assert!(call.stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap().success());
    let device = |path: String| {
        use std::os::unix::fs::MetadataExt as _;
        fs::metadata(path).map(|m| m.dev()).unwrap()
    };
    let own = device(format!("/proc/{}/root/dev/null", c.pid()));
    for fd in 0..3 {
        assert_eq!(device(format!("/proc/{}/fd/{fd}", c.pid())), own, "{fd}");
    }
}

#[test]
fn what_will_be_lost_is_told_when_it_is_saved() {
    need_criu!();
    known!("runc", "*", "has none of it");
    let rules = json!({ "paths": [{ "path": "/", "allow": ["all"] }], "bestEffort": true });
    let c = counter()
        .with("/annotations", json!({ "run.rrt.landlock": rules.to_string(), "run.rrt.core-sched": "false" }))
        .up();
    count(&c);
    let out = c.call("checkpoint", &["--leave-running", "--image-path", "img"], &[]).ok();
    let told = ["level=warning", "run.rrt.landlock", "criu does not save it", "restore refuses"];
    assert!(told.iter().all(|t| out.stderr.contains(t)) && out.stderr.lines().count() == 1, "{out}");
    // Not where there is nothing to lose.
    assert!(!out.stderr.contains("core-sched"), "{out}");
    let c = counter().up();
    count(&c);
    assert_eq!(c.call("checkpoint", &["--leave-running", "--image-path", "img"], &[]).ok().stderr, "");
}
