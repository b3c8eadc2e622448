//! `root`, `rootfsPropagation`, masked and read-only paths, pivot and its absence.

use std::fs;

use nix::mount::{MsFlags, mount};
use runtime_tests::{Container, known, private_mounts};
use serde_json::{Value, json};

#[test]
fn readonly_root() {
    let c = Container::new().args(&["guest", "try", "create", "/x", "create", "/dev/shm/x", "mkdir", "/tmp/x"]);
    assert_eq!(c.with("/root/readonly", json!(true)).report(), json!(["EROFS", 0, "EROFS"]));
}

#[test]
fn writable_root() {
    let c = Container::new().args(&["guest", "try", "create", "/made"]);
    assert_eq!(c.report(), json!([0]));
    assert!(c.path("/made").is_file());
}

#[test]
fn readonly_root_with_missing_mount_points() {
    let c = Container::new().with("/root/readonly", json!(true)).mount("/new/point", "tmpfs", "tmpfs", &[]);
    let c = c.args(&["guest", "try", "create", "/new/point/x", "create", "/new/x"]);
    assert_eq!(c.report(), json!([0, "EROFS"]));
}

#[test]
fn an_absolute_root_path() {
    let c = Container::new().args(&["echo", "absolute"]);
    let path = c.path("");
    assert_eq!(c.with("/root/path", json!(path)).run(&[]).ok().stdout, "absolute\n");
}

#[test]
fn a_root_path_with_dots() {
    let c = Container::new().args(&["echo", "dots"]).with("/root/path", json!("rootfs/../rootfs/./"));
    assert_eq!(c.run(&[]).ok().stdout, "dots\n");
}

#[test]
fn a_root_that_is_a_link() {
    // The specification leaves it open: runc refuses it, crun follows it.
    let c = Container::new().args(&["echo", "linked"]).with("/root/path", json!("link"));
    std::os::unix::fs::symlink("rootfs", c.dir.join("link")).expect("link");
    let out = c.run(&[]);
    if out.code == 0 {
        assert_eq!(out.stdout, "linked\n");
    } else {
        out.fails(1, &["root.path", "link"]);
    }
}

#[test]
fn a_root_that_is_a_mount() {
    private_mounts();
    let c = Container::new().args(&["echo", "mounted"]);
    let none = None::<&str>;
    // What overlay and bind roots of engines are; shared, as systemd leaves mounts.
    mount(Some(&c.path("")), &c.path(""), none, MsFlags::MS_BIND, none).expect("bind the root onto itself");
    mount(none, &c.path(""), none, MsFlags::MS_SHARED, none).expect("make it shared");
    assert_eq!(c.run(&[]).ok().stdout, "mounted\n");
    nix::mount::umount(&c.path("")).expect("the runtime left a mount on it");
}

#[test]
fn a_missing_root_is_named() {
    let c = Container::new().with("/root/path", json!("no-such-root"));
    c.create(&[]).fails(1, &["root.path", "no-such-root"]);
    c.assert_gone();
}

#[test]
fn a_root_that_is_a_file_is_named() {
    let c = Container::new().with("/root/path", json!("file"));
    fs::write(c.dir.join("file"), "").expect("file");
    c.create(&[]).fails(1, &["root.path", "file"]);
    c.assert_gone();
}

#[test]
fn the_host_root_is_out_of_reach() {
    let c = Container::new().caps(&["CAP_SYS_CHROOT", "CAP_SYS_ADMIN"]).idle().up();
    let marker = c.dir.join("config.json");
    let up = format!("/../../../../../../../{}", marker.display());
    assert_eq!(c.attempt(&["read", &up, "read", marker.to_str().expect("UTF-8")]), json!(["ENOENT", "ENOENT"]));
    // chroot out of it, which works where the old root is only hidden below the new one.
    let escape = "mkdir -p /tmp/d; guest try chroot /tmp/d; ls /proc/1/root/../../";
    assert!(c.exec(&[], &["sh", "-c", escape]).ok().stdout.contains("bin"));
}

#[test]
fn no_pivot() {
    let c = Container::new().args(&["guest", "try", "list", "/bin", "read", "/proc/self/stat", "create", "/x"]);
    let out = c.run(&["--no-pivot"]).ok().json();
    assert_eq!([&out[1], &out[2]], [0, 0]);
    assert!(out[0].as_u64() > Some(10));
}

#[test]
fn masked_paths() {
    let c = Container::new()
        .with("/linux/maskedPaths", json!(["/proc/keys", "/etc/passwd", "/secret", "/no/such/path"]))
        .idle();
    fs::create_dir(c.path("/secret")).expect("directory");
    fs::write(c.path("/secret/key"), "key").expect("file");
    let c = c.up();
    let found = c.attempt(&[
        "content",
        "/etc/passwd",
        "put",
        "/etc/passwd",
        "read",
        "/secret/key",
        "list",
        "/secret",
        "create",
        "/secret/x",
        "content",
        "/proc/keys",
    ]);
    // A file reads as /dev/null, and swallows what is written; a directory is empty and read-only.
    assert_eq!([&found[0], &found[2], &found[3], &found[5]], [&json!(""), &json!("ENOENT"), &json!(0), &json!("")]);
    assert_eq!(found[4], "EROFS");
    assert!(fs::read_to_string(c.path("/etc/passwd")).is_ok_and(|p| p.contains("root:")), "written through the mask");
}

#[test]
fn a_masked_path_stays_masked_without_sys_admin() {
    let c = Container::new().sh("umount /proc/keys; wc -c < /proc/keys");
    assert_eq!(c.run(&[]).ok().stdout.trim(), "0");
}

#[test]
fn readonly_paths() {
    let c = Container::new().with("/linux/readonlyPaths", json!(["/proc/sys", "/etc", "/no/such/path"])).idle().up();
    let found = c.attempt(&[
        "put",
        "/proc/sys/kernel/hostname",
        "write",
        "/etc/passwd",
        "create",
        "/etc/x",
        "create",
        "/tmp/x",
    ]);
    assert_eq!(found, json!(["EROFS", "EROFS", "EROFS", 0]));
}

#[test]
fn readonly_paths_keep_the_flags_of_their_mount() {
    let c = Container::new().mount("/data", "tmpfs", "tmpfs", &["nosuid", "nodev", "noexec"]);
    let c = c.with("/linux/readonlyPaths", json!(["/data"]));
    let report = c.report();
    let top = report["mounts"].as_array().expect("mounts").iter().rfind(|m| m["target"] == "/data").expect("mount");
    let options: Vec<&str> = top["options"].as_array().expect("options").iter().filter_map(Value::as_str).collect();
    for word in ["ro", "nosuid", "nodev", "noexec"] {
        assert!(options.contains(&word), "{word}: {top}");
    }
}

/// What mountinfo says of the root's propagation.
fn root_propagation(option: &str) -> String {
    private_mounts();
    let report = Container::new().with("/linux/rootfsPropagation", json!(option)).report();
    let root = report["mounts"].as_array().expect("mounts").iter().find(|m| m["target"] == "/").cloned();
    root.expect("a root")["propagation"].to_string()
}

#[test]
fn rootfs_propagation_shared_and_unbindable() {
    known!("runc", "1.2", "the option is set on the host's root: no peer group, and a root that cannot be bound");
    assert_eq!(root_propagation("unbindable"), r#"["unbindable"]"#);
    assert!(root_propagation("shared").contains("shared:"));
    assert!(root_propagation("rshared").contains("shared:"));
}

#[test]
fn rootfs_propagation() {
    assert_eq!(root_propagation("private"), "[]");
    assert_eq!(root_propagation("rprivate"), "[]");
    Container::new()
        .with("/linux/rootfsPropagation", json!("nonsense"))
        .run(&[])
        .fails(1, &["linux.rootfsPropagation", "nonsense"]);
}

#[test]
fn a_slave_root_receives_the_hosts_mounts() {
    private_mounts();
    let none = None::<&str>;
    let mut c = Container::new().with("/linux/rootfsPropagation", json!("rslave")).idle();
    mount(Some(&c.path("")), &c.path(""), none, MsFlags::MS_BIND, none).expect("bind the root onto itself");
    mount(none, &c.path(""), none, MsFlags::MS_SHARED, none).expect("make it shared");
    c = c.up();
    let late = c.host_tmpfs("rootfs/tmp/late", MsFlags::empty());
    fs::write(late.join("f"), "").expect("file");
    assert_eq!(c.attempt(&["read", "/tmp/late/f"]), json!([0]));
    c.delete(&["--force"]).ok();
    nix::mount::umount(&late).expect("umount");
    nix::mount::umount(&c.path("")).expect("the runtime left a mount on the root");
}
