//! Checkpoint and restore: what was saved goes on where it was, or nothing has happened.

use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use runtime_tests::{Container, Output, cgroup_file, console_socket, known, read_until, runtime, skip, until};
use serde_json::json;

/// Counts in a variable of the shell's, and tells the number as the target of a symlink: a file open for writing just when the
/// container is saved would have to be there, of the same size, each time it is restored.
/// The symlink is renamed into place: there is a count at any moment.
const COUNT: &str = "i=0; while :; do i=$((i+1)); ln -sn $i /tmp/next; mv -f /tmp/next /tmp/count; sleep 0.02; done";

/// The test runs only where criu does.
macro_rules! need_criu {
    () => {
        if criu().is_none() {
            skip!("needs criu in PATH (hack/test installs it)");
        }
    };
}

fn criu() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).map(|dir| dir.join("criu")).find(|file| file.is_file())
}

fn has_feature(name: &str) -> bool {
    let mut check = std::process::Command::new("criu");
    check.args(["check", "--feature", name]).output().is_ok_and(|out| out.status.success())
}

/// A container whose streams criu can save: not files of the host.
fn counter() -> Container {
    Container::new().sh(&format!("exec </dev/null >/dev/null 2>&1; {COUNT}"))
}

/// Another bundle of the same configuration.
fn like(c: &Container) -> Container {
    let mut other = Container::new();
    other.config.clone_from(&c.config);
    other
}

fn count(c: &Container) -> u32 {
    let mut target = PathBuf::new();
    until("a count", || fs::read_link(c.path("tmp/count")).map(|n| target = n).is_ok());
    target.to_str().and_then(|n| n.parse().ok()).expect("the count")
}

/// Waits until it has counted beyond `n`, in a symlink of its own making.
#[track_caller]
fn goes_on(c: &Container, n: u32) {
    let _ = fs::remove_file(c.path("tmp/count"));
    let mut now = 0;
    until("the count to go on", || {
        now = count(c);
        now > n
    });
    assert!(now < n + 2000, "{now} after {n}");
}

#[track_caller]
fn saved(c: &Container, flags: &[&str]) -> u32 {
    count(c);
    c.call("checkpoint", flags, &[]).ok();
    count(c)
}

#[track_caller]
fn restored(c: &Container, flags: &[&str]) -> Output {
    c.write_config();
    c.call("restore", flags, &[])
}

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

fn in_a_user_namespace(c: Container) -> Container {
    let map = json!([{ "containerID": 0, "hostID": 100_000, "size": 65536 }]);
    let c = c.namespace("user", "").with("/linux/uidMappings", map.clone()).with("/linux/gidMappings", map);
    fs::set_permissions(c.path("tmp"), fs::Permissions::from_mode(0o777)).unwrap();
    c
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

/// Options of the mount at `place` in the container.
fn options(c: &Container, place: &str) -> String {
    let mounts = fs::read_to_string(format!("/proc/{}/mountinfo", c.pid())).expect("mounts of the container");
    let line = mounts.lines().find(|l| l.split(' ').nth(4) == Some(place));
    line.unwrap_or_else(|| panic!("no mount on {place}: {mounts}")).split(' ').nth(5).unwrap_or_default().into()
}

#[test]
fn bind_mounts_come_from_the_host_again() {
    need_criu!();
    let c = counter();
    for dir in ["one", "two"] {
        fs::create_dir(c.dir.join(dir)).unwrap();
        fs::write(c.dir.join(dir).join("name"), dir).unwrap();
    }
    // config.json names a symlink, criu the place it leads to.
    fs::create_dir_all(c.path("run")).unwrap();
    fs::create_dir_all(c.path("var")).unwrap();
    symlink("/run", c.path("var/run")).unwrap();
    let source = |name: &str| c.dir.join(name).to_string_lossy().into_owned();
    let (one, two, file) = (source("one"), source("two"), source("one/name"));
    let c = c.mount("/var/run/one", "bind", &one, &["rbind", "ro", "nosuid"]);
    // The same directory and the same options once more, which criu takes for a copy of the first.
    let c = c.mount("/again", "bind", &one, &["bind", "ro", "nosuid"]);
    let c = c.mount("/again/name", "bind", &file, &["bind", "ro"]).up();
    let places = ["/run/one", "/again", "/again/name", "/proc/keys", "/proc/timer_list"];
    let before = places.map(|place| options(&c, place));
    let n = saved(&c, &["--image-path", "img"]);
    restored(&c, &["-d", "--image-path", "img"]).ok();
    goes_on(&c, n);
    let is_ours = runtime().is_ours();
    for (place, before) in places.iter().zip(&before).filter(|_| is_ours) {
        assert_eq!(options(&c, place), *before, "{place}");
    }
    let content = c.attempt(&["content", "/run/one/name", "content", "/again/name", "create", "/again/x"]);
    assert_eq!(content[0], "one");
    assert_eq!(content[1], "one");
    if is_ours {
        assert_eq!(content[2], "EROFS");
    }
    c.delete(&["--force"]).ok();

    // Another source by then, as after a move to another machine.
    let mut c = c;
    c.config["mounts"].as_array_mut().unwrap().retain(|m| m["destination"] != "/again/name");
    // runc 1.1 restores it, and the mount is missing or fails in criu.
    if is_ours {
        restored(&c, &["-d", "--image-path", "img"]).fails(1, &["mounts: ", "/again/name"]);
        c.assert_gone();
    }
    let c = c.mount("/again/name", "bind", &format!("{two}/name"), &["bind", "ro"]);
    restored(&c, &["-d", "--image-path", "img"]).ok();
    assert_eq!(c.attempt(&["content", "/again/name"])[0], "two");
}

#[test]
fn in_another_bundle_under_another_name() {
    need_criu!();
    let first = counter().mount("/data/deep", "tmpfs", "tmpfs", &[]).mount("/dev/shm/in", "tmpfs", "tmpfs", &[]).up();
    let n = saved(&first, &["--image-path", "img"]);
    let dir = first.dir.join("img");
    let second = like(&first);
    assert!(!second.path("data").exists());
    restored(&second, &["-d", "--image-path", &dir.to_string_lossy()]).ok();
    goes_on(&second, n);
    assert_ne!(first.id, second.id);
    assert!(second.path("data/deep").is_dir(), "the mount point was made");
    let cgroup = fs::read_to_string(format!("/proc/{}/cgroup", second.pid())).unwrap();
    assert!(cgroup.contains(&second.id) && !cgroup.contains(&first.id), "{cgroup}");
    drop(second);
}

#[test]
fn a_joined_network_namespace() {
    need_criu!();
    let pod = Container::new().idle().up();
    let inode = |pid: u32| fs::read_link(format!("/proc/{pid}/ns/net")).unwrap();
    let path = format!("/proc/{}/ns/net", pod.pid());
    let c = counter().namespace("network", &path).up();
    assert_eq!(inode(c.pid()), inode(pod.pid()));
    let n = saved(&c, &["--image-path", "img"]);
    restored(&c, &["-d", "--image-path", "img"]).ok();
    goes_on(&c, n);
    assert_eq!(inode(c.pid()), inode(pod.pid()));
}

#[test]
fn joined_pid_ipc_and_uts_namespaces() {
    need_criu!();
    known!("runc", "1.2", "external pid namespaces");
    // Its first process reaps what it inherits, as that of a pod does: a number is free when its zombie is gone.
    let pod = Container::new().sh("while :; do sleep 0.1; done").up();
    let inode = |pid: u32, kind: &str| fs::read_link(format!("/proc/{pid}/ns/{kind}")).unwrap();
    let mut c = counter();
    for (kind, file) in [("pid", "pid"), ("ipc", "ipc"), ("uts", "uts")] {
        c = c.namespace(kind, &format!("/proc/{}/ns/{file}", pod.pid()));
    }
    c.config.as_object_mut().unwrap().remove("hostname");
    let c = c.up();
    let pid = c.pid();
    let n = saved(&c, &["--image-path", "img"]);
    until("init to be reaped", || !Path::new(&format!("/proc/{pid}")).exists());
    restored(&c, &["-d", "--image-path", "img"]).ok();
    goes_on(&c, n);
    for kind in ["pid", "ipc", "uts"] {
        assert_eq!(inode(c.pid(), kind), inode(pod.pid(), kind), "{kind}");
    }
    c.kill("KILL").ok();
    c.wait_status("stopped");
}

#[test]
fn a_cgroup_namespace() {
    need_criu!();
    let c = counter().namespace("cgroup", "").up();
    let n = saved(&c, &["--image-path", "img"]);
    restored(&c, &["-d", "--image-path", "img"]).ok();
    goes_on(&c, n);
    let own = fs::read_to_string(format!("/proc/{}/cgroup", c.pid())).unwrap();
    assert!(own.contains(&c.id), "{own}");
    let seen = c.exec(&[], &["cat", "/proc/self/cgroup"]).ok();
    assert!(!seen.stdout.contains(&c.id), "{seen}");
}

#[test]
fn a_user_namespace() {
    need_criu!();
    known!("runc", "*", "the namespace's root cannot search the directory of the images");
    let c = in_a_user_namespace(counter()).up();
    let n = saved(&c, &["--image-path", "img"]);
    restored(&c, &["-d", "--image-path", "img"]).ok();
    goes_on(&c, n);
    let status = fs::read_to_string(format!("/proc/{}/status", c.pid())).unwrap();
    assert!(status.lines().any(|l| l.starts_with("Uid:\t100000")), "{status}");
    let report = c.exec_report(&[]);
    assert_eq!(report["hostname"], "box");
}

#[test]
fn an_idmapped_mount() {
    need_criu!();
    known!("runc", "*", "the files come back with the owners they have on the disk");
    let c = counter();
    fs::create_dir(c.dir.join("data")).unwrap();
    fs::write(c.dir.join("data/f"), "").unwrap();
    let map = json!([{ "containerID": 0, "hostID": 4711, "size": 1 }]);
    let source = c.dir.join("data");
    let c = c.with(
        "/mounts/-",
        json!({
            "destination": "/data", "type": "bind", "source": source, "options": ["bind", "idmap"],
            "uidMappings": map, "gidMappings": map,
        }),
    );
    let c = c.up();
    let owner = |c: &Container| c.exec(&[], &["stat", "-c", "%u:%g", "/data/f"]).ok().stdout;
    assert_eq!(owner(&c), "4711:4711\n");
    let n = saved(&c, &["--image-path", "img"]);
    restored(&c, &["-d", "--image-path", "img"]).ok();
    goes_on(&c, n);
    assert_eq!(owner(&c), "4711:4711\n");
}

#[test]
fn a_terminal() {
    need_criu!();
    let c = Container::new()
        .sh("echo ready; i=0; while read line; do i=$((i+1)); echo $i $line; done")
        .with("/process/terminal", json!(true));
    let socket = console_socket(&c.dir.join("s"));
    c.create(&["--console-socket", "s"]).ok();
    let mut master: fs::File = socket.join().unwrap().1.remove(0).into();
    c.start().ok();
    read_until(&mut master, "ready");
    master.write_all(b"a\n").unwrap();
    read_until(&mut master, "1 a");
    c.call("checkpoint", &["--image-path", "img"], &[]).ok();
    drop(master);

    restored(&c, &["-d", "--image-path", "img"]).fails(1, &["console socket"]);
    fs::remove_file(c.dir.join("s")).unwrap();
    let socket = console_socket(&c.dir.join("s"));
    restored(&c, &["-d", "--image-path", "img", "--console-socket", "s"]).ok();
    let mut master: fs::File = socket.join().unwrap().1.remove(0).into();
    master.write_all(b"b\n").unwrap();
    read_until(&mut master, "2 b");
}

#[test]
fn pipes_are_replaced_by_the_callers() {
    need_criu!();
    let c = Container::new().sh("while read line; do i=$((i+1)); echo $i $line; done; exit 7");
    c.write_config();
    let piped = |command: &str, flags: &[&str]| {
        let mut call = c.command(command, flags, &[]);
        call.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    };
    let mut run = piped("run", &["-d"]);
    let (mut to, mut from) = (run.stdin.take().unwrap(), run.stdout.take().unwrap());
    to.write_all(b"a\n").unwrap();
    let mut answer = [0; 4];
    from.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"1 a\n");
    run.wait().unwrap();
    c.call("checkpoint", &["--image-path", "img"], &[]).ok();
    drop((to, from));

    // In the foreground, and its exit code is ours.
    let mut restore = piped("restore", &["--image-path", "img"]);
    let (mut to, mut from) = (restore.stdin.take().unwrap(), restore.stdout.take().unwrap());
    to.write_all(b"b\n").unwrap();
    from.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"2 b\n");
    drop(to);
    assert_eq!(restore.wait().unwrap().code(), Some(7));
    c.assert_gone();
}

#[test]
fn signals_go_to_what_was_restored_in_the_foreground() {
    need_criu!();
    let c = Container::new().sh(&format!("exec </dev/null >/dev/null 2>&1; trap 'exit 9' TERM; {COUNT}")).up();
    let n = saved(&c, &["--image-path", "img"]);
    c.write_config();
    let mut restore = c.spawn("restore", &["--image-path", "img"], &[]);
    goes_on(&c, n);
    rustix::process::kill_process(
        rustix::process::Pid::from_raw(restore.id() as i32).unwrap(),
        rustix::process::Signal::TERM,
    )
    .unwrap();
    assert_eq!(restore.wait(), 9);
    c.assert_gone();
}

#[test]
fn hooks_run_as_for_a_new_container() {
    need_criu!();
    let hook = |name: &str| json!([{ "path": "/bin/sh", "args": ["sh", "-c", format!("cat > hook.{name}")] }]);
    let c = counter()
        .with("/hooks/prestart", hook("prestart"))
        .with("/hooks/createRuntime", hook("createRuntime"))
        .with("/hooks/poststop", hook("poststop"))
        .up();
    let file = |name: &str| c.dir.join(format!("hook.{name}"));
    let n = saved(&c, &["--image-path", "img"]);
    if runtime().is_ours() {
        assert!(file("poststop").exists(), "it was deleted");
    }
    for name in ["prestart", "createRuntime", "poststop"] {
        let _ = fs::remove_file(file(name));
    }
    restored(&c, &["-d", "--image-path", "img"]).ok();
    goes_on(&c, n);
    for name in ["prestart", "createRuntime"].iter().filter(|_| runtime().is_ours()) {
        let state: serde_json::Value = serde_json::from_slice(&fs::read(file(name)).unwrap()).unwrap();
        assert_eq!(state["pid"], c.pid(), "{name}: {state}");
    }
    assert!(!file("poststop").exists());
}

#[test]
fn a_hook_that_fails_ends_the_restore() {
    need_criu!();
    let c = counter().up();
    saved(&c, &["--image-path", "img"]);
    let c = c.with("/hooks/createRuntime", json!([{ "path": "/bin/sh", "args": ["sh", "-c", "echo no >&2; exit 3"] }]));
    restored(&c, &["-d", "--image-path", "img", "--pid-file", "pid"]).fails(1, &["hooks.createRuntime[0]", "no"]);
    assert!(!c.dir.join("pid").exists());
    c.assert_gone();
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

/// Sends SIGINT to a command that runs.
fn interrupt(id: u32) {
    let pid = rustix::process::Pid::from_raw(id as i32).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
}

#[test]
fn an_interrupted_checkpoint_leaves_the_container_running() {
    need_criu!();
    known!("runc", "*", "dies, and criu goes on");
    let c = counter().up();
    let n = count(&c);
    let real = criu().unwrap();
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
fn an_interrupted_restore_leaves_nothing() {
    need_criu!();
    known!("runc", "*", "dies, and leaves what it has made");
    let c = counter().up();
    saved(&c, &["--image-path", "img"]);
    let hook = json!([{ "path": "/bin/sh", "args": ["sh", "-c", "touch hooked; sleep 1"] }]);
    let c = c.with("/hooks/createRuntime", hook);
    c.write_config();
    let hooked = c.dir.join("hooked");
    let mut running = c.spawn("restore", &["-d", "--image-path", "img"], &[]);
    until("the hook", || hooked.exists());
    interrupt(running.id());
    assert_eq!(running.wait(), 1);
    c.assert_gone();

    // Killed, it can do nothing more; what it has written down is enough to clean up.
    fs::remove_file(&hooked).unwrap();
    let running = c.spawn("restore", &["-d", "--image-path", "img"], &[]);
    until("the hook", || hooked.exists());
    drop(running);
    c.delete(&["--force"]).ok();
    c.assert_gone();
}

#[test]
fn a_killed_checkpoint_leaves_the_container_running() {
    need_criu!();
    known!("runc", "*", "the same, but not looked at");
    let c = counter().up();
    let n = count(&c);
    let real = criu().unwrap();
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

/// What criu cannot give back is an error, not a container with less than was asked for.
#[test]
fn what_would_be_lost_is_refused() {
    known!("runc", "*", "restores without it");
    let landlock = json!({ "paths": [{ "path": "/", "allow": ["read"] }], "bestEffort": true }).to_string();
    let mut c = Container::new();
    fs::create_dir(c.dir.join("img")).expect("images");
    let plain = c.config.clone();
    for (place, value, named) in [
        ("/annotations", json!({ "run.rrt.landlock": landlock }), "run.rrt.landlock"),
        ("/annotations", json!({ "run.rrt.core-sched": "true" }), "run.rrt.core-sched"),
        ("/linux/intelRdt", json!({ "closID": "guaranteed" }), "linux.intelRdt"),
        ("/linux/netDevices", json!({ "eth7": {} }), "linux.netDevices"),
        ("/linux/memoryPolicy", json!({ "mode": "MPOL_DEFAULT" }), "linux.memoryPolicy"),
    ] {
        c.config.clone_from(&plain);
        c = c.with(place, value);
        restored(&c, &["--image-path", "img"]).fails(1, &[named, "criu does not save it"]);
        c.assert_gone();
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

/// A volume with another file system in it, which is gone when the container is restored; whoever may write to the volume has put a
/// symlink in its place.
#[test]
fn a_symlink_in_a_volume_is_not_followed() {
    need_criu!();
    known!("runc", "*", "has no name for mounts below a recursive bind");
    runtime_tests::private_mounts();
    let mut c = counter();
    let sub = c.host_tmpfs("volume/deep/sub", nix::mount::MsFlags::empty());
    let (volume, secret) = (c.dir.join("volume"), c.dir.join("secret"));
    fs::create_dir(&secret).expect("directory");
    for (dir, text) in [(&sub, "of the volume"), (&secret, "of the host")] {
        fs::write(dir.join("name"), text).expect("file");
    }
    let c = c.mount("/data", "bind", volume.to_str().expect("path"), &["rbind"]).up();
    let content = |c: &Container| c.attempt(&["content", "/data/deep/sub/name"])[0].clone();
    assert_eq!(content(&c), "of the volume");
    saved(&c, &["--image-path", "img"]);
    restored(&c, &["-d", "--image-path", "img"]).ok();
    assert_eq!(content(&c), "of the volume");
    c.delete(&["--force"]).ok();

    nix::mount::umount2(&sub, nix::mount::MntFlags::MNT_DETACH).expect("umount");
    for (link, target) in [(&sub, secret.clone()), (&volume.join("deep"), c.dir.join("elsewhere"))] {
        let aside = link.with_extension("aside");
        fs::rename(link, &aside).expect("rename");
        fs::create_dir_all(target.join("sub")).expect("directory");
        symlink(&target, link).expect("symlink");
        restored(&c, &["-d", "--image-path", "img"]).fails(1, &["deep/sub", "without following symlinks", "volume"]);
        c.assert_gone();
        fs::remove_file(link).and_then(|()| fs::rename(&aside, link)).expect("rename");
    }
    // What is there now, when it is no symlink.
    fs::write(sub.join("name"), "another").expect("file");
    restored(&c, &["-d", "--image-path", "img"]).ok();
    assert_eq!(content(&c), "another");
}
