//! A container without a mount namespace: its mounts are the host's, below its root, as long as it is there and no longer.
//! runc makes them in the same place, and leaves them.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use runtime_tests::{Container, host_mounts, known, leftovers, private_mounts, until};
use serde_json::json;

const NONE: Option<&str> = None;

/// In a mount namespace of the test's own, where everything is private.
fn container() -> Container {
    private_mounts();
    let mut c = Container::new().with("/linux/maskedPaths", json!([])).with("/linux/readonlyPaths", json!([]));
    c.remove_namespace("mount");
    c
}

/// The mounts that are not the container's, with their propagation.
fn others(c: &Container) -> Vec<String> {
    host_mounts().into_iter().filter(|line| !line.contains(&c.id)).collect()
}

fn of(c: &Container) -> Vec<String> {
    host_mounts().into_iter().filter(|line| line.contains(&c.id)).collect()
}

/// A process in a mount namespace of its own, copied from the test's, that gets what is mounted there.
struct Follower(Child);

impl Follower {
    fn new() -> Follower {
        let mut sh = Command::new("unshare");
        sh.args(["--mount", "--propagation", "slave", "sleep", "100"]).stdin(Stdio::null());
        let child = sh.spawn().expect("unshare");
        let ours = fs::read_link("/proc/thread-self/ns/mnt").expect("namespace");
        let link = format!("/proc/{}/ns/mnt", child.id());
        until("it has its namespace", || fs::read_link(&link).is_ok_and(|ns| ns != ours));
        Follower(child)
    }

    fn mounts_of(&self, c: &Container) -> Vec<String> {
        let text = fs::read_to_string(format!("/proc/{}/mountinfo", self.0.id())).expect("mountinfo");
        text.lines().filter(|line| line.contains(&c.id)).map(str::to_owned).collect()
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.0.kill().and_then(|()| self.0.wait()).expect("end of the follower");
    }
}

#[test]
fn it_has_the_runtimes_namespace_and_its_own_root() {
    known!("runc", "*", "the mounts stay, so that the second run finds /sys busy");
    let mut c = container();
    for kind in ["pid", "network", "ipc", "uts", "cgroup"] {
        c.remove_namespace(kind);
    }
    c.config.as_object_mut().expect("object").remove("hostname");
    let report = c.report();
    for file in ["mnt", "pid", "net", "ipc", "uts", "cgroup", "user"] {
        let own = fs::read_link(format!("/proc/thread-self/ns/{file}")).expect("namespace");
        assert_eq!(report["namespaces"][file], json!(own.to_str().expect("ASCII")), "{file}");
    }
    let mut c = c.sh("ls -d /bin /proc/self/fd /dev/pts/ptmx; ls -d /etc/debian_version /rootfs; pwd");
    c.config["process"]["cwd"] = json!("/tmp/new");
    let out = c.run(&[]);
    assert_eq!(out.stdout.lines().collect::<Vec<_>>(), ["/bin", "/dev/pts/ptmx", "/proc/self/fd", "/tmp/new"], "{out}");
}

#[test]
fn its_mounts_are_on_the_host_until_it_is_deleted_and_no_other_changes() {
    known!("runc", "*", "the mounts stay, and all of the host's become slaves");
    let c = container();
    fs::create_dir(c.dir.join("data")).expect("source");
    let data = c.dir.join("data").display().to_string();
    let c = c.mount("/data", "bind", &data, &["bind", "nosuid"]).idle();
    mount(NONE, "/", NONE, MsFlags::MS_REC | MsFlags::MS_SHARED, NONE).expect("make / shared");
    let follower = Follower::new();
    let before = others(&c);
    let c = c.up();
    assert_eq!(others(&c), before);
    let mounts = of(&c);
    for place in ["rootfs", "rootfs/proc", "rootfs/dev/pts", "rootfs/data"] {
        let place = format!(" {}/{place} ", c.dir.display());
        assert!(mounts.iter().any(|line| line.contains(&place)), "{place}: {mounts:#?}");
    }
    // Its root came to the other namespaces, as every mount on a shared one does; what is in there did not.
    assert_eq!(follower.mounts_of(&c).len(), 1, "{:#?}", follower.mounts_of(&c));
    assert!(!mounts.iter().any(|line| line.contains("shared:")), "{mounts:#?}");
    c.kill("KILL").ok();
    c.wait_status("stopped");
    assert!(!of(&c).is_empty());
    c.delete(&[]).ok();
    assert_eq!(others(&c), before);
    assert_eq!((of(&c), follower.mounts_of(&c)), (Vec::new(), Vec::new()));
    assert!(c.path("data").is_dir() && c.dir.join("data").is_dir());
}

#[test]
fn exec_and_mounts_are_below_its_root() {
    known!("runc", "*", "exec has the host's root, and there is no `mounts`");
    let c = container().idle().up();
    fs::write(c.path("inside"), "").expect("file");
    c.exec(&[], &["sh", "-c", "test -e /inside && test -e /proc/1/root/inside && pwd"]).ok();
    fs::write(c.dir.join("source"), "from the host").expect("source");
    let add = json!([{ "destination": "/added", "source": c.dir.join("source"), "options": ["bind", "ro"] }]);
    fs::write(c.dir.join("list.json"), add.to_string()).expect("list");
    let before = others(&c);
    let mounts = |verb: &str| {
        let mut call = c.command("mounts", &[verb], &["list.json"]);
        runtime_tests::run(&mut call, &c.dir).ok();
    };
    mounts("add");
    assert_eq!(c.exec(&[], &["cat", "/added"]).ok().stdout, "from the host");
    assert_eq!(fs::read_to_string(c.path("added")).expect("on the host"), "from the host");
    assert!(!Path::new("/added").exists());
    let out = c.call("checkpoint", &["--image-path", "images"], &[]);
    assert!(out.code == 1 && out.stderr.contains("it has no mount namespace"), "{out}");
    mounts("remove");
    assert_eq!(c.exec(&[], &["cat", "/added"]).ok().stdout, "");
    assert_eq!(others(&c), before);
}

#[test]
fn a_failed_create_leaves_no_mount() {
    known!("runc", "*", "the mounts stay");
    let c = container().args(&["/no/such/program"]);
    assert_ne!(c.create(&[]).code, 0);
    assert_eq!(leftovers(&c.id, &c.root), Vec::<String>::new());
    let c = c.idle().mount("/x", "bind", "/no/such/source", &["bind"]);
    assert_ne!(c.create(&[]).code, 0);
    assert_eq!(leftovers(&c.id, &c.root), Vec::<String>::new());
    let hook =
        json!([{ "path": "/bin/sh", "args": ["sh", "-c", "grep -q /rootfs/proc /proc/self/mountinfo && exit 7"] }]);
    let c = c.without_mount("/x").with("/hooks/createRuntime", hook);
    let out = c.create(&[]);
    assert!(out.code == 1 && out.stderr.contains("createRuntime"), "{out}");
    assert_eq!(leftovers(&c.id, &c.root), Vec::<String>::new());
}

#[test]
fn a_killed_create_is_cleaned_by_delete() {
    known!("runc", "*", "the mounts stay");
    let hook = json!([{ "path": "/bin/sh", "args": ["sh", "-c", "echo > hook; exec sleep 2"] }]);
    let c = container().idle().with("/hooks/createRuntime", hook);
    c.write_config();
    let create = c.spawn("create", &[], &[]);
    until("the hook runs", || c.dir.join("hook").exists());
    // Killed when it is dropped.
    drop(create);
    assert!(!of(&c).is_empty());
    c.delete(&["--force"]).ok();
    c.assert_gone();
}

#[test]
fn a_mount_over_its_root_goes_as_well_and_what_is_beneath_stays() {
    known!("runc", "*", "the mounts stay");
    let c = container();
    let rootfs = c.path("");
    // As an engine does: the root file system is a mount of its own.
    mount(Some(&rootfs), &rootfs, NONE, MsFlags::MS_BIND, NONE).expect("bind");
    let beneath = of(&c);
    let c = c.idle().up();
    mount(Some("tmpfs"), &rootfs, Some("tmpfs"), MsFlags::empty(), NONE).expect("tmpfs");
    let out = c.exec(&[], &["true"]);
    assert!(out.code == 255 && out.stderr.contains("something is mounted over it"), "{out}");
    c.delete(&["--force"]).ok();
    assert_eq!(of(&c), beneath);
    umount2(&rootfs, MntFlags::MNT_DETACH).expect("the engine's mount");
}

#[test]
fn taking_it_off_does_not_reach_the_sources() {
    known!("runc", "*", "the mounts stay");
    let mut c = container();
    let outer = c.host_tmpfs("outer", MsFlags::empty());
    mount(NONE, &outer, NONE, MsFlags::MS_SHARED, NONE).expect("shared");
    fs::create_dir(outer.join("disk")).expect("directory");
    mount(Some("tmpfs"), &outer.join("disk"), Some("tmpfs"), MsFlags::empty(), NONE).expect("tmpfs");
    fs::write(outer.join("disk/file"), "").expect("file");
    let before = of(&c);
    let source = outer.display().to_string();
    let c =
        c.mount("/outer", "bind", &source, &["rbind", "rshared"]).with("/linux/rootfsPropagation", json!("rshared"));
    let c = c.sh("ls /outer/disk");
    let out = c.run(&[]);
    // The container is deleted by now.
    assert_eq!((out.stdout.as_str(), of(&c)), ("file\n", before), "{out}");
    assert!(outer.join("disk/file").exists());
}

#[test]
fn a_read_only_root_is_the_containers_alone() {
    known!("runc", "*", "the root stays writable");
    let c = container().with("/root/readonly", json!(true)).idle().up();
    assert_ne!(c.exec(&[], &["touch", "/file"]).code, 0);
    c.delete(&["--force"]).ok();
    fs::write(c.path("file"), "").expect("writable for the host");
}

#[test]
fn what_it_cannot_have_is_named() {
    let refused = |c: Container, expected: &str| {
        let out = c.create(&[]);
        assert!(out.code == 1 && out.stderr.contains(expected), "{expected}: {out}");
    };
    let private = "unable to restrict sys entries without a private MNT namespace";
    refused(container().with("/linux/maskedPaths", json!(["/proc/kcore"])), private);
    refused(container().with("/linux/readonlyPaths", json!(["/proc/sys"])), private);
    known!("runc", "*", "the rest is not refused, or by the kernel");
    let map = json!([{ "containerID": 0, "hostID": 100_000, "size": 65536 }]);
    let user =
        container().namespace("user", "").with("/linux/uidMappings", map.clone()).with("/linux/gidMappings", map);
    refused(user, "linux.namespaces: a user namespace without a mount namespace");
    refused(container().with("/root/path", json!("/")), "root.path: is the host's /");
    // Both before either is created: each comes with a mount namespace of the test's own.
    let (first, second) = (container().idle(), container());
    let (second, first) = (second.beside(&first).with("/root/path", json!(first.path(""))), first.up());
    refused(second, "has its mounts there");
    first.delete(&["--force"]).ok();
    let before = host_mounts();
    let own = format!("/proc/{}/task/{}/ns/mnt", std::process::id(), rustix::thread::gettid().as_raw_nonzero());
    refused(container().namespace("mount", &own), "is the host's own mount namespace");
    assert_eq!(host_mounts().len(), before.len());
}
