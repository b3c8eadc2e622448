//! `mounts`: mounts added to, replaced in and removed from a container that runs.

use std::fs;
use std::os::unix::fs::symlink;
use std::sync::atomic::{AtomicBool, Ordering};

use runtime_tests::{Container, Output, known, private_mounts};
use serde_json::{Value, json};

/// `mounts ACTION ID FILE`, with the list in the file.
#[track_caller]
fn mounts(c: &Container, action: &str, list: &Value) -> Output {
    let file = c.dir.join("mounts.json");
    fs::write(&file, list.to_string()).expect("file");
    c.call("mounts", &[action], &[file.to_str().expect("UTF-8")])
}

/// A directory of the host with a file that says its name.
fn source(c: &Container, name: &str) -> String {
    let dir = c.dir.join(name);
    fs::create_dir_all(&dir).expect("directory");
    fs::write(dir.join("file"), name).expect("file");
    dir.to_str().expect("UTF-8").to_owned()
}

fn bind(source: &str, destination: &str, options: &[&str]) -> Value {
    json!([{ "type": "bind", "source": source, "destination": destination, "options": options }])
}

#[track_caller]
fn assert_content(c: &Container, file: &str, expected: &str) {
    assert_eq!(c.attempt(&["content", file]), json!([expected]));
}

#[test]
fn a_directory_comes_and_goes() {
    known!("runc", "*", "has no mounts");
    let c = Container::new().idle().up();
    let one = source(&c, "one");
    mounts(&c, "add", &bind(&one, "/new/place", &["rbind", "ro", "nosuid"])).ok();
    assert_content(&c, "/new/place/file", "one");
    assert_eq!(c.attempt(&["write", "/new/place/file"]), json!(["EROFS"]));
    let list = c.call("mounts", &["list", "--format", "json"], &[]).ok().json();
    let listed =
        list.as_array().and_then(|l| l.iter().find(|m| m["destination"] == "/new/place")).expect("in the list");
    assert!(
        listed["options"].as_array().is_some_and(|o| o.contains(&json!("ro")) && o.contains(&json!("nosuid"))),
        "{listed}"
    );
    mounts(&c, "remove", &json!([{ "destination": "/new/place" }])).ok();
    assert_eq!(c.attempt(&["content", "/new/place/file"]), json!(["ENOENT"]));
    mounts(&c, "remove", &json!([{ "destination": "/new/place" }]))
        .fails(1, &["mounts[0].destination", "nothing is mounted"]);
}

#[test]
fn flags_do_without_a_file() {
    known!("runc", "*", "has no mounts");
    let c = Container::new().idle().up();
    let one = source(&c, "one");
    c.call("mounts", &["add", "--mount", &format!("type=bind,source={one}/file,target=/etc/one,ro")], &[]).ok();
    c.call("mounts", &["add", "--mount", "type=tmpfs,destination=/scratch,size=64k"], &[]).ok();
    assert_content(&c, "/etc/one", "one");
    assert_eq!(c.attempt(&["create", "/scratch/x"]), json!([0]));
    c.call("mounts", &["remove", "--destination", "/etc/one", "--destination", "/scratch"], &[]).ok();
    assert_content(&c, "/etc/one", "");
    c.call("mounts", &["add", "--mount", "source=/x"], &[]).fails(1, &["--mount", "destination"]);
    c.call("mounts", &["mend"], &[]).fails(1, &["mend", "add, replace, remove or list"]);
}

#[test]
fn one_takes_the_place_of_another_without_a_gap() {
    known!("runc", "*", "has no mounts");
    let c = Container::new().idle().up();
    let (one, two) = (source(&c, "one"), source(&c, "two"));
    mounts(&c, "replace", &bind(&one, "/data", &["rbind"])).fails(1, &["/data"]);
    mounts(&c, "add", &bind(&one, "/data", &["rbind"])).ok();
    let watch = c.spawn(
        "exec",
        &[],
        &["sh", "-c", "echo go; while [ ! -e /stop ]; do cat /data/file > /dev/null || echo GAP; done"],
    );
    watch.wait_for("go");
    for i in 0..10 {
        mounts(&c, "replace", &bind(if i % 2 == 0 { &two } else { &one }, "/data", &["rbind"])).ok();
        assert_content(&c, "/data/file", if i % 2 == 0 { "two" } else { "one" });
    }
    fs::write(c.path("/stop"), "").expect("file");
    assert!(!watch.stdout().contains("GAP"), "{}", watch.stdout());
    // Nothing is left beneath.
    mounts(&c, "remove", &json!([{ "destination": "/data" }])).ok();
    mounts(&c, "remove", &json!([{ "destination": "/data" }])).fails(1, &["nothing is mounted"]);
}

#[test]
fn all_or_nothing_is_added() {
    known!("runc", "*", "has no mounts");
    let c = Container::new().idle().up();
    let one = source(&c, "one");
    let list = json!([
        { "type": "bind", "source": one, "destination": "/a", "options": ["rbind"] },
        { "type": "tmpfs", "destination": "/b", "options": ["size=nonsense"] },
    ]);
    mounts(&c, "add", &list).fails(1, &["mounts[1]", "/b"]);
    assert_eq!(c.attempt(&["content", "/a/file"]), json!(["ENOENT"]));
    mounts(&c, "add", &bind("/no/such", "/a", &["bind"])).fails(1, &["mounts[0].source", "/no/such"]);
    let second = json!([{ "type": "tmpfs", "destination": "/never" }, { "type": "bind", "source": "/no/such", "destination": "/a",
        "options": ["bind"] }]);
    mounts(&c, "add", &second).fails(1, &["mounts[1].source", "/no/such"]);
    assert_eq!(c.attempt(&["create", "/never/x"]), json!(["ENOENT"]), "nothing was mounted");
    mounts(&c, "add", &json!({ "destination": 1 })).fails(1, &["mounts.json"]);
}

#[test]
fn in_a_user_namespace() {
    known!("runc", "*", "has no mounts");
    let map = json!([{ "containerID": 0, "hostID": 100_000, "size": 65536 }]);
    let c =
        Container::new().namespace("user", "").with("/linux/uidMappings", map.clone()).with("/linux/gidMappings", map);
    std::os::unix::fs::chown(c.path("/"), Some(100_000), Some(100_000)).expect("chown");
    let c = c.idle().up();
    let one = source(&c, "one");
    mounts(&c, "add", &bind(&one, "/data", &["rbind"])).ok();
    assert_content(&c, "/data/file", "one");
    mounts(&c, "add", &json!([{ "type": "tmpfs", "destination": "/t" }])).ok();
    assert_eq!(c.attempt(&["create", "/t/x"]), json!([0]));
    mounts(&c, "replace", &json!([{ "type": "tmpfs", "destination": "/data" }])).ok();
    assert_eq!(c.attempt(&["content", "/data/file"]), json!(["ENOENT"]));
    mounts(&c, "remove", &json!([{ "destination": "/data" }, { "destination": "/t" }])).ok();
}

/// What the host's administrator has mounted read-only stays so, as with mounts of config.json.
#[test]
fn a_user_namespace_cannot_take_off_the_hosts_mount_flags() {
    known!("runc", "*", "has no mounts");
    private_mounts();
    let map = json!([{ "containerID": 0, "hostID": 100_000, "size": 65536 }]);
    let mut c =
        Container::new().namespace("user", "").with("/linux/uidMappings", map.clone()).with("/linux/gidMappings", map);
    std::os::unix::fs::chown(c.path("/"), Some(100_000), Some(100_000)).expect("chown");
    let source = c.host_tmpfs("locked", nix::mount::MsFlags::MS_RDONLY | nix::mount::MsFlags::MS_NODEV);
    let c = c.caps(&["CAP_SYS_ADMIN"]).idle().up();
    let source = source.to_str().expect("UTF-8");
    for (destination, option) in [("/data", "rbind"), ("/other", "bind")] {
        mounts(&c, "add", &bind(source, destination, &[option])).ok();
        let remount = format!(
            "mount -o remount,bind,rw,nodev {destination}; mount -o remount,bind,ro,dev {destination}; \
             touch {destination}/x; cat /proc/mounts"
        );
        let out = c.exec(&[], &["sh", "-c", &remount]);
        let line = out.stdout.lines().find(|l| l.contains(destination)).expect("the mount").to_owned();
        let options = line.split(' ').nth(3).expect("its options").to_owned();
        assert!(options.split(',').any(|o| o == "ro") && options.split(',').any(|o| o == "nodev"), "{line}");
    }
    assert!(!std::path::Path::new(source).join("x").exists());
}

#[test]
fn of_a_created_a_paused_and_a_stopped_container() {
    known!("runc", "*", "has no mounts");
    let c = Container::new().args(&["guest", "try", "content", "/data/file"]);
    let one = source(&c, "one");
    let created = c.create(&[]).ok();
    mounts(&c, "add", &bind(&one, "/data", &["rbind"])).ok();
    c.start().ok();
    c.wait_status("stopped");
    assert_eq!(created.wait_for("]").trim(), r#"["one"]"#);
    mounts(&c, "add", &bind(&one, "/data", &["rbind"])).fails(1, &["container not running"]);
    let c = Container::new().idle().up();
    let one = source(&c, "one");
    c.call("pause", &[], &[]).ok();
    mounts(&c, "add", &bind(&one, "/data", &["rbind"])).ok();
    c.call("resume", &[], &[]).ok();
    assert_content(&c, "/data/file", "one");
}

#[test]
fn nothing_of_it_is_on_the_host() {
    known!("runc", "*", "has no mounts");
    let mut c = Container::new();
    private_mounts();
    let tmpfs = c.host_tmpfs("shared", nix::mount::MsFlags::empty());
    let none = None::<&str>;
    nix::mount::mount(none, &tmpfs, none, nix::mount::MsFlags::MS_SHARED, none).expect("make it shared");
    let c = c.idle().up();
    mounts(&c, "add", &bind(tmpfs.to_str().expect("UTF-8"), "/data", &["rbind"])).ok();
    mounts(&c, "add", &json!([{ "type": "tmpfs", "destination": "/data/below" }])).ok();
    let below = runtime_tests::host_mounts().iter().filter(|m| m.contains("shared/below")).count();
    assert_eq!(below, 0, "a mount of the container's appeared on the host");
    mounts(&c, "remove", &json!([{ "destination": "/data" }])).ok();
    assert!(runtime_tests::host_mounts().iter().any(|m| m.contains("shared")), "the host's mount is gone");
}

#[test]
fn hostile_destinations() {
    known!("runc", "*", "has no mounts");
    let c = Container::new();
    let outside = source(&c, "outside");
    symlink(&outside, c.path("/abs")).expect("link");
    symlink("../outside", c.path("/rel")).expect("link");
    symlink("/proc/sys", c.path("/sysctl")).expect("link");
    symlink("/proc/self/root", c.path("/magic")).expect("link");
    let c = c.idle().up();
    let evil = source(&c, "evil");
    for destination in ["/abs/x", "/rel/x", "/abs", "/rel"] {
        // Followed inside the container, where it makes what is missing; never out of it.
        let _ = mounts(&c, "add", &bind(&evil, destination, &["rbind"]));
    }
    let names: Vec<_> = fs::read_dir(&outside).expect("directory").flatten().map(|e| e.file_name()).collect();
    assert_eq!(names, ["file"]);
    assert_eq!(fs::read_to_string(format!("{outside}/file")).expect("file"), "outside");
    mounts(&c, "add", &bind(&evil, "/sysctl/kernel", &["rbind"])).fails(1, &["/proc"]);
    mounts(&c, "add", &bind(&evil, "/magic/x", &["rbind"])).fails(1, &["/magic/x"]);
    // What hides the host stays, by whatever name it is called.
    for destination in ["/proc", "/proc/sys", "/sysctl", "/proc/kcore", "/sys/firmware", "/", "/dev/.."] {
        let out = mounts(&c, "remove", &json!([{ "destination": destination }]));
        out.fails(1, &["mounts[0].destination"]);
        let list = json!([{ "type": "tmpfs", "destination": destination }]);
        assert_eq!(mounts(&c, "replace", &list).code, 1, "{destination}");
    }
    // A user may not write it in any case.
    let refusal = if rustix::process::geteuid().is_root() { "EROFS" } else { "EACCES" };
    assert_eq!(c.attempt(&["write", "/proc/sys/kernel/hostname"]), json!([refusal]));
}

#[test]
fn a_racing_swap_of_the_destination() {
    known!("runc", "*", "has no mounts");
    let c = Container::new();
    let outside = source(&c, "outside");
    let c = c.idle().up();
    let evil = source(&c, "evil");
    let (dir, aside, link) = (c.path("/race"), c.path("/aside"), c.path("/link"));
    fs::create_dir(&dir).expect("directory");
    symlink(&outside, &link).expect("link");
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                let _ = fs::rename(&dir, &aside).and_then(|()| fs::rename(&link, &dir));
                let _ = fs::rename(&dir, &link).and_then(|()| fs::rename(&aside, &dir));
            }
        });
        for i in 0..20 {
            let destination = format!("/race/{i}/x");
            let _ = mounts(&c, "add", &bind(&evil, &destination, &["rbind"]));
            let _ = mounts(&c, "remove", &json!([{ "destination": destination }]));
        }
        stop.store(true, Ordering::Relaxed);
    });
    let names: Vec<_> = fs::read_dir(&outside).expect("directory").flatten().map(|e| e.file_name()).collect();
    assert_eq!(names, ["file"]);
}
