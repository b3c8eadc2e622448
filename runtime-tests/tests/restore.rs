//! Restore: how what was saved comes back, and what keeps it from coming back.

use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Stdio;

use runtime_tests::criu::{COUNT, counter, goes_on, in_a_user_namespace, interrupt, like, restored, saved};
use runtime_tests::{Container, console_socket, known, need_criu, read_until, runtime, until};
use serde_json::json;

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
