//! `mounts` of config.json: every option of the specification's table, by its effect inside the container.

use std::fs;
use std::os::unix::fs::symlink;

use nix::mount::{MsFlags, mount as mount_on_host};
use runtime_tests::{Container, cgroup_v2, known, private_mounts, process_cgroup, runtime};
use serde_json::{Value, json};

/// The mount at `target` in a report: the last one, which is on top.
#[track_caller]
fn mount<'a>(report: &'a Value, target: &str) -> &'a Value {
    let all = report["mounts"].as_array().expect("mounts");
    all.iter().rfind(|m| m["target"] == target).unwrap_or_else(|| panic!("nothing is mounted on {target}: {all:#?}"))
}

fn has(list: &Value, word: &str) -> bool {
    list.as_array().is_some_and(|l| l.iter().any(|w| w == word))
}

/// A tree of two tmpfs on the host, one in the other, both with `flags`; returns its path.
fn nested_tree(c: &mut Container, name: &str, flags: MsFlags) -> String {
    let top = c.host_tmpfs(name, MsFlags::empty());
    let sub = c.host_tmpfs(&format!("{name}/sub"), flags);
    fs::write(top.join("upper"), "upper").expect("file");
    if !flags.contains(MsFlags::MS_RDONLY) {
        fs::write(sub.join("lower"), "lower").expect("file");
    }
    let none = None::<&str>;
    mount_on_host(none, &top, none, MsFlags::MS_REMOUNT | MsFlags::MS_BIND | flags, none).expect("flags of the top");
    top.to_str().expect("UTF-8").to_owned()
}

/// (options, words that the mount's own options must hold, words they must not hold)
type Flags = (&'static [&'static str], &'static [&'static str], &'static [&'static str]);

/// Each option with a flag of the mount itself. Where an option undoes another, the other comes first, so that doing
/// nothing would be seen.
const MOUNT_FLAGS: &[Flags] = &[
    (&[], &["rw", "relatime"], &["nosuid", "nodev", "noexec"]),
    (&["ro"], &["ro"], &["rw"]),
    (&["ro", "rw"], &["rw"], &["ro"]),
    (&["nosuid"], &["nosuid"], &[]),
    (&["nosuid", "suid"], &[], &["nosuid"]),
    (&["nodev"], &["nodev"], &[]),
    (&["nodev", "dev"], &[], &["nodev"]),
    (&["noexec"], &["noexec"], &[]),
    (&["noexec", "exec"], &[], &["noexec"]),
    (&["noatime"], &["noatime"], &["relatime"]),
    (&["noatime", "atime"], &[], &["noatime"]),
    (&["nodiratime"], &["nodiratime"], &[]),
    (&["nodiratime", "diratime"], &[], &["nodiratime"]),
    (&["relatime"], &["relatime"], &[]),
    (&["strictatime"], &[], &["relatime", "noatime"]),
    (&["strictatime", "nostrictatime"], &["relatime"], &[]),
    (&["norelatime"], &["rw"], &["noatime"]),
    (&["nosuid", "nodev", "noexec", "ro"], &["nosuid", "nodev", "noexec", "ro"], &["rw"]),
];

#[track_caller]
fn assert_flags(report: &Value, target: &str, (options, with, without): &Flags) {
    let mount = mount(report, target);
    for word in *with {
        assert!(has(&mount["options"], word), "{options:?} lacks {word}: {mount}");
    }
    for word in *without {
        assert!(!has(&mount["options"], word), "{options:?} has {word}: {mount}");
    }
}

#[test]
fn flags_of_a_new_mount() {
    let mut c = Container::new();
    for (n, (options, ..)) in MOUNT_FLAGS.iter().enumerate() {
        c = c.mount(&format!("/mnt/{n}"), "tmpfs", "tmpfs", options);
    }
    let report = c.report();
    for (n, flags) in MOUNT_FLAGS.iter().enumerate() {
        assert_flags(&report, &format!("/mnt/{n}"), flags);
    }
}

#[test]
fn defaults() {
    known!("runc", "1.2", "defaults is passed to the file system as data");
    let c = Container::new().mount("/mnt/d", "tmpfs", "tmpfs", &["defaults"]);
    assert_flags(&c.report(), "/mnt/d", &(&["defaults"], &["rw", "relatime"], &["nosuid", "nodev", "noexec"]));
}

#[test]
fn flags_of_a_bind_mount() {
    let mut c = Container::new();
    fs::create_dir(c.dir.join("source")).expect("source");
    for (n, (options, ..)) in MOUNT_FLAGS.iter().enumerate() {
        c = c.mount(&format!("/mnt/{n}"), "bind", "source", &[&["rbind"], *options].concat());
    }
    let report = c.report();
    for (n, flags) in MOUNT_FLAGS.iter().enumerate() {
        assert_flags(&report, &format!("/mnt/{n}"), flags);
    }
}

#[test]
fn access_times_of_a_bind_mount() {
    private_mounts();
    let mut c = Container::new();
    c.host_tmpfs("source", MsFlags::MS_NOATIME);
    // As with mount(8): one is changed by naming another, not by taking it back.
    let all: &[Flags] = &[
        (&[], &["noatime"], &["relatime"]),
        (&["norelatime"], &["noatime"], &["relatime"]),
        (&["nostrictatime"], &["noatime"], &["relatime"]),
        (&["atime"], &["noatime"], &["relatime"]),
        (&["relatime"], &["relatime"], &["noatime"]),
        (&["strictatime"], &[], &["relatime", "noatime"]),
        (&["nodiratime"], &["nodiratime", "relatime"], &["noatime"]),
        (&["nodiratime", "norelatime"], &["nodiratime", "relatime"], &["noatime"]),
        (&["nodiratime", "noatime"], &["nodiratime", "noatime"], &["relatime"]),
    ];
    c.host_tmpfs("nodir", MsFlags::MS_NODIRATIME);
    let c = c.mount("/mnt/strict", "bind", "nodir", &["bind", "strictatime"]);
    let mut c = c.mount("/mnt/ro", "bind", "nodir", &["bind", "ro", "diratime"]);
    for (n, (options, ..)) in all.iter().enumerate() {
        c = c.mount(&format!("/mnt/{n}"), "bind", "source", &[&["bind"], *options].concat());
    }
    let report = c.report();
    assert_flags(&report, "/mnt/strict", &(&["strictatime"], &[], &["nodiratime", "relatime"]));
    assert_flags(&report, "/mnt/ro", &(&["ro"], &["nodiratime"], &[]));
    for (n, flags) in all.iter().enumerate() {
        assert_flags(&report, &format!("/mnt/{n}"), flags);
    }
}

#[test]
fn an_access_time_taken_back_is_no_error_where_it_is_locked() {
    known!("runc", "1.2", "the locked flags are tried to be changed");
    private_mounts();
    let ids = json!([{ "containerID": 0, "hostID": 100_000, "size": 65536 }]);
    let mut c =
        Container::new().namespace("user", "").with("/linux/uidMappings", ids.clone()).with("/linux/gidMappings", ids);
    c.host_tmpfs("source", MsFlags::MS_NOATIME | MsFlags::MS_NODIRATIME);
    fs::create_dir(c.path("mnt")).expect("mount point");
    let c = c.mount("/mnt", "bind", "source", &["bind", "norelatime"]);
    assert_flags(&c.report(), "/mnt", &(&["norelatime"], &["noatime", "nodiratime"], &["relatime"]));
}

#[test]
fn nosymfollow_and_symfollow() {
    let c = Container::new()
        .mount("/mnt/no", "tmpfs", "tmpfs", &["nosymfollow"])
        .mount("/mnt/yes", "tmpfs", "tmpfs", &["nosymfollow", "symfollow"])
        .idle()
        .up();
    let report = c.exec_report(&[]);
    assert!(has(&mount(&report, "/mnt/no")["options"], "nosymfollow"));
    assert!(!has(&mount(&report, "/mnt/yes")["options"], "nosymfollow"));
    c.exec(&[], &["sh", "-c", "ln -s /etc/passwd /mnt/no/l; ln -s /etc/passwd /mnt/yes/l"]).ok();
    assert_eq!(c.attempt(&["read", "/mnt/no/l", "read", "/mnt/yes/l"]), json!(["ELOOP", 0]));
}

#[test]
fn flags_of_a_file_system() {
    let c = Container::new()
        .mount("/mnt/sync", "tmpfs", "tmpfs", &["sync"])
        .mount("/mnt/async", "tmpfs", "tmpfs", &["sync", "async"])
        .mount("/mnt/rsync", "tmpfs", "tmpfs", if runtime().is_ours() { &["rsync"] } else { &["sync"] })
        .mount("/mnt/dirsync", "tmpfs", "tmpfs", &["dirsync"]);
    let report = c.report();
    assert!(has(&mount(&report, "/mnt/sync")["super"], "sync"));
    assert!(has(&mount(&report, "/mnt/rsync")["super"], "sync"), "crun's option");
    assert!(!has(&mount(&report, "/mnt/async")["super"], "sync"));
    assert!(has(&mount(&report, "/mnt/dirsync")["super"], "dirsync"));
}

#[test]
fn lazytime() {
    let c = Container::new().mount("/mnt/lazy", "tmpfs", "tmpfs", &["lazytime"]).mount(
        "/mnt/not",
        "tmpfs",
        "tmpfs",
        &["lazytime", "nolazytime"],
    );
    let report = c.report();
    assert!(has(&mount(&report, "/mnt/lazy")["super"], "lazytime"));
    assert!(!has(&mount(&report, "/mnt/not")["super"], "lazytime"));
}

#[test]
fn options_without_a_visible_effect_are_accepted() {
    // They must be known as flags: as data of a tmpfs they would be refused.
    let mut c = Container::new();
    for option in ["iversion", "noiversion", "silent", "loud", "mand", "nomand"] {
        c = c.mount(&format!("/mnt/{option}"), "tmpfs", "tmpfs", &[option]);
    }
    let report = c.report();
    for option in ["iversion", "noiversion", "silent", "loud", "mand", "nomand"] {
        assert_eq!(mount(&report, &format!("/mnt/{option}"))["type"], "tmpfs");
    }
}

#[test]
fn remount() {
    let c = Container::new().mount("/mnt", "tmpfs", "tmpfs", &["size=8k", "nosuid"]).mount(
        "/mnt",
        "tmpfs",
        "tmpfs",
        &["remount", "ro", "size=12k"],
    );
    let report = c.report();
    assert!(has(&mount(&report, "/mnt")["options"], "ro"));
    assert!(has(&mount(&report, "/mnt")["super"], "size=12k"));
    let mounted = report["mounts"].as_array().expect("mounts").iter().filter(|m| m["target"] == "/mnt").count();
    assert_eq!(mounted, 1, "a remount makes no second mount");
}

#[test]
fn data_goes_to_the_file_system() {
    let report =
        Container::new().mount("/mnt", "tmpfs", "tmpfs", &["size=4m", "mode=1750", "uid=3", "nosuid"]).report();
    let mount = mount(&report, "/mnt");
    for word in ["size=4096k", "mode=1750", "uid=3"] {
        assert!(has(&mount["super"], word), "{mount}");
    }
}

#[test]
fn bind_takes_one_mount_and_rbind_the_tree() {
    private_mounts();
    let mut c = Container::new();
    let tree = nested_tree(&mut c, "tree", MsFlags::empty());
    let c = c
        .args(&["guest", "try", "read", "/one/upper", "read", "/one/sub/lower", "read", "/all/sub/lower"])
        .mount("/one", "bind", &tree, &["bind"])
        .mount("/all", "bind", &tree, &["rbind"]);
    assert_eq!(c.report(), json!([0, "ENOENT", 0]));
}

#[test]
fn a_bind_needs_no_type() {
    let c = Container::new().args(&["guest", "try", "read", "/mnt/f", "write", "/mnt/f"]);
    fs::create_dir(c.dir.join("source")).expect("source");
    fs::write(c.dir.join("source/f"), "f").expect("file");
    let mount = json!({ "destination": "/mnt", "source": "source", "options": ["bind", "ro"] });
    assert_eq!(c.with("/mounts/-", mount).report(), json!([0, "EROFS"]));
}

/// Checks a pair like `rro` and `rrw` on both mounts of a nested tree: one tree has the flag of neither, one of both.
fn recursive(set: &str, clear: &str, word: &str, flag: MsFlags) {
    private_mounts();
    let mut c = Container::new();
    let without = nested_tree(&mut c, "without", MsFlags::empty());
    let with = nested_tree(&mut c, "with", flag);
    let c = c.mount("/set", "bind", &without, &["rbind", set]).mount("/clear", "bind", &with, &["rbind", clear]);
    let report = c.report();
    for target in ["/set", "/set/sub"] {
        assert!(has(&mount(&report, target)["options"], word), "{set} on {target}: {}", mount(&report, target));
    }
    for target in ["/clear", "/clear/sub"] {
        assert!(!has(&mount(&report, target)["options"], word), "{clear} on {target}: {}", mount(&report, target));
    }
}

#[test]
fn rro_and_rrw() {
    recursive("rro", "rrw", "ro", MsFlags::MS_RDONLY);
}

#[test]
fn rnosuid_and_rsuid() {
    recursive("rnosuid", "rsuid", "nosuid", MsFlags::MS_NOSUID);
}

#[test]
fn rnodev_and_rdev() {
    recursive("rnodev", "rdev", "nodev", MsFlags::MS_NODEV);
}

#[test]
fn rnoexec_and_rexec() {
    recursive("rnoexec", "rexec", "noexec", MsFlags::MS_NOEXEC);
}

#[test]
fn rnodiratime_and_rdiratime() {
    recursive("rnodiratime", "rdiratime", "nodiratime", MsFlags::MS_NODIRATIME);
}

#[test]
fn rnosymfollow_and_rsymfollow() {
    // MS_NOSYMFOLLOW of mount(2), which nix does not name.
    recursive("rnosymfollow", "rsymfollow", "nosymfollow", MsFlags::from_bits_retain(256));
}

#[test]
fn recursive_access_times() {
    known!("runc", "1.4.1", "recursive access time options were mixed up until 1.4.1");
    let cases: &[(&[&str], &[&str], &[&str])] = &[
        (&["rnoatime"], &["noatime"], &["relatime"]),
        (&["rnoatime", "ratime"], &[], &["noatime"]),
        (&["rstrictatime"], &[], &["noatime", "relatime"]),
        (&["rstrictatime", "rnostrictatime"], &["relatime"], &[]),
        (&["rnoatime", "rrelatime"], &["relatime"], &["noatime"]),
        (&["rnorelatime"], &[], &["noatime"]),
    ];
    private_mounts();
    let mut c = Container::new();
    let tree = nested_tree(&mut c, "tree", MsFlags::empty());
    for (n, (options, ..)) in cases.iter().enumerate() {
        c = c.mount(&format!("/mnt/{n}"), "bind", &tree, &[&["rbind"], *options].concat());
    }
    let report = c.report();
    for (n, case) in cases.iter().enumerate() {
        assert_flags(&report, &format!("/mnt/{n}"), case);
        assert_flags(&report, &format!("/mnt/{n}/sub"), case);
    }
}

#[test]
fn ro_on_rbind_reaches_the_top_only() {
    private_mounts();
    let mut c = Container::new();
    let tree = nested_tree(&mut c, "tree", MsFlags::empty());
    let report = c.mount("/mnt", "bind", &tree, &["rbind", "ro"]).report();
    assert!(has(&mount(&report, "/mnt")["options"], "ro"));
    assert!(has(&mount(&report, "/mnt/sub")["options"], "rw"));
}

#[test]
fn a_bind_keeps_the_flags_of_its_source() {
    private_mounts();
    let mut c = Container::new();
    c.host_tmpfs("source", MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC);
    let report = c.mount("/mnt", "bind", "source", &["rbind"]).report();
    for word in ["nosuid", "nodev", "noexec"] {
        assert!(has(&mount(&report, "/mnt")["options"], word), "{}", mount(&report, "/mnt"));
    }
}

/// As runc: with one attribute named, the others are a new mount's. (util-linux' mount(8) keeps them.)
#[test]
fn a_bind_with_an_attribute_has_no_other_of_its_source() {
    private_mounts();
    let mut c = Container::new();
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC | MsFlags::MS_NODIRATIME;
    c.host_tmpfs("source", flags);
    let report = c.mount("/mnt", "bind", "source", &["rbind", "ro"]).report();
    let options = &mount(&report, "/mnt")["options"];
    assert!(has(options, "ro") && has(options, "nodiratime"), "{options}");
    assert!(!["nosuid", "nodev", "noexec"].iter().any(|word| has(options, word)), "{options}");
}

/// What mountinfo says of propagation for each of the eight options, on both mounts of a nested tree.
#[test]
fn propagation() {
    let cases = [
        ("private", "none", "any"),
        ("shared", "shared:", "any"),
        ("slave", "any", "any"),
        ("unbindable", "unbindable", "any"),
        ("rprivate", "none", "none"),
        ("rshared", "shared:", "shared:"),
        ("runbindable", "unbindable", "unbindable"),
        ("rslave", "any", "any"),
    ];
    private_mounts();
    let mut c = Container::new();
    let tree = nested_tree(&mut c, "tree", MsFlags::empty());
    for (option, ..) in cases {
        c = c.mount(&format!("/mnt/{option}"), "bind", &tree, &["rbind", option]);
    }
    let report = c.report();
    for (option, top, sub) in cases {
        for (target, expected) in [(format!("/mnt/{option}"), top), (format!("/mnt/{option}/sub"), sub)] {
            let found = &mount(&report, &target)["propagation"];
            let good = match expected {
                "any" => true,
                "none" => found.as_array().is_some_and(Vec::is_empty),
                word => {
                    found.as_array().is_some_and(|f| f.iter().any(|p| p.as_str().is_some_and(|p| p.starts_with(word))))
                }
            };
            assert!(good, "{option}: {target} is {found}, not {expected}");
        }
    }
}

/// A slave sees what its shared source gets later, and the source does not see what the slave gets.
#[test]
fn slave_propagation_goes_one_way() {
    private_mounts();
    let mut c = Container::new();
    let source = c.host_tmpfs("source", MsFlags::empty());
    let none = None::<&str>;
    mount_on_host(none, &source, none, MsFlags::MS_SHARED, none).expect("make shared");
    for dir in ["late", "inner"] {
        fs::create_dir(source.join(dir)).expect("directory");
    }
    let mut c = c
        .idle()
        .caps(&["CAP_SYS_ADMIN"])
        .with("/linux/rootfsPropagation", json!("rslave"))
        .mount("/mnt", "bind", "source", &["rbind", "rslave"])
        .up();
    let late = c.host_tmpfs("source/late", MsFlags::empty());
    fs::write(late.join("f"), "late").expect("file");
    assert_eq!(c.attempt(&["content", "/mnt/late/f"]), json!(["late"]));
    c.exec(&[], &["sh", "-c", "mount -t tmpfs tmpfs /mnt/inner && touch /mnt/inner/f"]).ok();
    assert!(!source.join("inner/f").exists(), "a mount inside came out");
}

#[test]
fn tmpcopyup() {
    let c = Container::new().args(&["guest", "try", "content", "/data/f", "link", "/data/l", "node", "/data/d"]);
    fs::create_dir_all(c.path("/data/d")).expect("directory");
    fs::write(c.path("/data/f"), "copied").expect("file");
    symlink("f", c.path("/data/l")).expect("link");
    let c = c.mount("/data", "tmpfs", "tmpfs", &["tmpcopyup", "nosuid"]);
    let found = c.report();
    assert_eq!([&found[0], &found[1], &found[2]["kind"]], [&json!("copied"), &json!("f"), &json!("d")]);
}

#[test]
fn tmpcopyup_leaves_the_image_alone() {
    let c = Container::new().sh("echo changed > /data/f");
    fs::create_dir_all(c.path("/data")).expect("directory");
    fs::write(c.path("/data/f"), "image").expect("file");
    let c = c.mount("/data", "tmpfs", "tmpfs", &["tmpcopyup"]);
    c.run(&[]).ok();
    assert_eq!(fs::read_to_string(c.path("/data/f")).expect("file"), "image");
}

#[test]
fn an_unknown_option_of_a_file_system_is_the_kernels_to_refuse() {
    let c = Container::new().mount("/mnt", "tmpfs", "tmpfs", &["no-such-option"]);
    c.run(&[]).fails(1, &["mounts", "/mnt", "no-such-option"]);
}

#[test]
fn an_unknown_option_of_a_bind_is_refused() {
    known!("runc", "1.2", "data of a bind mount is dropped in silence");
    let c = Container::new().mount("/mnt", "bind", "rootfs", &["rbind", "no-such-option"]);
    c.run(&[]).fails(1, &["mounts[7].options", "no-such-option"]);
}

#[test]
fn a_missing_source_is_named() {
    let c = Container::new().mount("/mnt", "bind", "no-such-source", &["rbind"]);
    c.create(&[]).fails(1, &["mounts", "no-such-source"]);
    c.assert_gone();
}

/// Two host directories, the second mounted in the first, and then both seen through the root's own path on the host.
fn layered(c: Container) -> Container {
    // All mount points are there: in a user namespace the container's root cannot make them in the host root's directories.
    for directory in ["a/x", "b/again", "rootfs/mnt", "rootfs/whole", "rootfs/part"] {
        fs::create_dir_all(c.dir.join(directory)).expect("directory");
    }
    fs::write(c.dir.join("a/x/file"), "a").expect("file");
    fs::write(c.dir.join("b/file"), "b").expect("file");
    let root = c.dir.join("rootfs").to_str().expect("UTF-8").to_owned();
    c.mount("/mnt", "bind", "a", &["rbind"])
        .mount("/mnt/x", "bind", "b", &["rbind"])
        .mount(&format!("{root}/whole"), "bind", &format!("{root}/mnt"), &["rbind"])
        .mount("/part", "bind", &format!("{root}/mnt/x"), &["bind", "ro"])
        .mount("/mnt/x/again", "bind", &format!("{root}/whole"), &["rbind"])
        .sh("cat /whole/x/file /part/file /mnt/x/again/x/file; touch /part/new || echo ro")
}

#[test]
fn a_source_below_the_root_shows_the_mounts_before_it() {
    let c = layered(Container::new());
    let out = c.run(&[]).ok();
    assert_eq!(out.stdout, "bbbro\n");
}

#[test]
fn a_source_below_the_root_in_a_user_namespace() {
    known!("runc", "1.2", "sources are opened before anything is mounted");
    let map = json!([{ "containerID": 0, "hostID": 100_000, "size": 65536 }]);
    let c = Container::new().namespace("user", "").with("/linux/uidMappings", map.clone());
    let c = layered(c.with("/linux/gidMappings", map));
    let out = c.run(&[]).ok();
    assert_eq!(out.stdout, "bbbro\n");
}

#[test]
fn a_missing_source_below_the_root_is_named() {
    let c = Container::new().mount("/d", "bind", "rootfs/no/such", &["rbind"]);
    c.create(&[]).fails(1, &["mounts", "no/such"]);
    c.assert_gone();
}

/// What the image calls its data is a symlink: to a file of the host, to the whole `/proc` behind the masks, or out of the root.
#[test]
fn a_symlink_of_the_image_leads_no_source_anywhere() {
    known!("runc", "*", "it follows them on the host");
    for target in ["/etc", "/proc", "../../..", "proc"] {
        for source in ["rootfs/data", "rootfs/data/sys"] {
            let c = Container::new();
            symlink(target, c.dir.join("rootfs/data")).expect("symlink");
            let c = c.mount("/d", "bind", source, &["rbind"]);
            c.create(&[]).fails(1, &["mounts[7].source", "symlink"]);
            c.assert_gone();
        }
    }
}

/// With `..` it is a path of the host like any other.
#[test]
fn a_source_that_leaves_the_root_again_is_the_hosts() {
    let c = Container::new();
    fs::create_dir(c.dir.join("beside")).expect("source");
    fs::write(c.dir.join("beside/f"), "f").expect("file");
    let c = c.mount("/d", "bind", "rootfs/../beside", &["rbind"]).sh("cat /d/f");
    assert_eq!(c.run(&[]).ok().stdout, "f");
}

#[test]
fn an_unknown_type_is_named() {
    let c = Container::new().mount("/mnt", "nosuchfs", "none", &[]);
    c.create(&[]).fails(1, &["mounts", "nosuchfs"]);
    c.assert_gone();
}

#[test]
fn a_missing_destination_is_made() {
    let c = Container::new().args(&["guest", "try", "content", "/new/deep/file", "list", "/new/dir"]);
    fs::write(c.dir.join("file"), "bound").expect("file");
    fs::create_dir(c.dir.join("dir")).expect("directory");
    let c = c.mount("/new/deep/file", "bind", "file", &["bind"]).mount("/new/dir", "bind", "dir", &["rbind"]);
    assert_eq!(c.report(), json!(["bound", 0]));
    assert!(c.path("/new/deep/file").is_file(), "the mount point of a file is a file");
}

#[test]
fn a_file_cannot_cover_a_directory() {
    let c = Container::new().mount("/etc", "bind", "file", &["bind"]);
    fs::write(c.dir.join("file"), "").expect("file");
    c.run(&[]).fails(1, &["/etc", "directory"]);
}

#[test]
fn a_relative_destination_is_taken_from_the_root() {
    let report = Container::new().mount("rel/ative", "tmpfs", "tmpfs", &[]).report();
    assert_eq!(mount(&report, "/rel/ative")["type"], "tmpfs");
}

#[test]
fn mounts_are_made_in_order() {
    let c = Container::new().args(&["guest", "try", "list", "/a", "content", "/a/b/f"]);
    fs::create_dir(c.dir.join("b")).expect("directory");
    fs::write(c.dir.join("b/f"), "on top").expect("file");
    let c = c.mount("/a", "tmpfs", "tmpfs", &[]).mount("/a/b", "bind", "b", &["rbind"]);
    assert_eq!(c.report(), json!([1, "on top"]));

    let covered = Container::new().args(&["guest", "try", "list", "/a"]);
    let covered = covered.mount("/a/b", "tmpfs", "tmpfs", &[]).mount("/a", "tmpfs", "tmpfs", &[]);
    assert_eq!(covered.report(), json!([0]));
}

#[test]
fn destinations_below_proc_are_refused() {
    for destination in ["/proc/self/attr", "/proc/sys/kernel", "/proc/1"] {
        let c = Container::new().mount(destination, "bind", "rootfs", &["rbind"]);
        c.run(&[]).fails(1, &["mounts", destination]);
        c.assert_gone();
    }
}

#[test]
fn a_tmpfs_below_proc_is_refused() {
    known!("runc", "1.2", "only bind mounts below /proc are refused");
    Container::new().mount("/proc/self/attr", "tmpfs", "tmpfs", &[]).run(&[]).fails(1, &["mounts", "/proc/self/attr"]);
}

#[test]
fn allowed_destinations_below_proc() {
    let c = Container::new().args(&["guest", "try", "content", "/proc/uptime", "content", "/proc/meminfo"]);
    for file in ["uptime", "meminfo"] {
        fs::write(c.dir.join(file), file).expect("file");
    }
    // What lxcfs offers.
    let c = c.mount("/proc/uptime", "bind", "uptime", &["bind"]).mount("/proc/meminfo", "bind", "meminfo", &["bind"]);
    assert_eq!(c.report(), json!(["uptime", "meminfo"]));
}

#[test]
fn the_default_mounts() {
    let c = Container::new().with("/root/readonly", json!(true));
    let report = c.report();
    let expected = [
        ("/", "", &["ro"][..]),
        ("/proc", "proc", &["rw"]),
        ("/dev", "tmpfs", &["rw", "nosuid"]),
        ("/dev/pts", "devpts", &["nosuid", "noexec"]),
        ("/dev/shm", "tmpfs", &["nosuid", "nodev", "noexec"]),
        ("/dev/mqueue", "mqueue", &["nosuid", "nodev", "noexec"]),
        ("/sys", "sysfs", &["ro", "nosuid", "nodev", "noexec"]),
    ];
    for (target, kind, options) in expected {
        let mount = mount(&report, target);
        assert!(kind.is_empty() || mount["type"] == kind, "{mount}");
        for option in options {
            assert!(has(&mount["options"], option), "{option}: {mount}");
        }
    }
    assert!(has(&mount(&report, "/dev/pts")["super"], "ptmxmode=666"));
    assert!(has(&mount(&report, "/dev/shm")["super"], "size=65536k"));
}

#[test]
fn nothing_of_the_host_stays_mounted() {
    let c = Container::new();
    let report = c.report();
    let mounts = report["mounts"].as_array().expect("mounts");
    let host = mounts.iter().find(|m| {
        let target = m["target"].as_str().unwrap_or_default();
        !["/", "/proc", "/dev", "/sys"].contains(&target)
            && !["/proc/", "/dev/", "/sys/"].iter().any(|p| target.starts_with(p))
    });
    assert_eq!(host, None);
    assert_eq!(mounts.iter().filter(|m| m["target"] == "/").count(), 1, "the old root is still below: {mounts:#?}");
}

#[test]
fn the_cgroup_mount_shows_the_containers_own() {
    let c = Container::new().idle().up();
    let pid = c.pid();
    // On cgroup v2 it is the namespace that hides the others, and without one of its own the container sees what the host sees, as
    // with runc: that is what Docker's `--cgroupns host` is for.
    let own = process_cgroup(pid, "").unwrap_or_default();
    let dir = if cgroup_v2() { format!("/sys/fs/cgroup{own}") } else { "/sys/fs/cgroup/pids".to_owned() };
    let file = &format!("{dir}/cgroup.procs");
    let seen = c.attempt(&["content", file, "mkdir", &format!("{file}.d")]);
    // A pid namespace shows its first process as 1; another one here is the program that reads.
    assert!(seen[0].as_str().is_some_and(|s| s.starts_with("1\n")), "host pid {pid}: {seen}");
    assert_eq!(seen[1], "EROFS");
}

#[test]
fn the_cgroup_mount_in_a_cgroup_namespace() {
    let c = Container::new().namespace("cgroup", "").idle().up();
    let report = c.exec_report(&[]);
    for line in report["cgroup"].as_array().expect("cgroup") {
        assert!(line.as_str().is_some_and(|l| l.ends_with(":/")), "{line}");
    }
    let file = if cgroup_v2() { "/sys/fs/cgroup/cgroup.procs" } else { "/sys/fs/cgroup/pids/cgroup.procs" };
    assert!(c.attempt(&["content", file])[0].as_str().is_some_and(|s| s.starts_with("1\n")));
}

#[test]
fn a_user_namespace_with_mounts() {
    let map = json!([{ "containerID": 0, "hostID": 100_000, "size": 65536 }]);
    let c =
        Container::new().namespace("user", "").with("/linux/uidMappings", map.clone()).with("/linux/gidMappings", map);
    fs::create_dir(c.dir.join("source")).expect("source");
    let report = c.mount("/tmp", "bind", "source", &["rbind", "ro", "nosuid"]).report();
    assert!(has(&mount(&report, "/tmp")["options"], "ro"));
    assert_eq!(mount(&report, "/proc")["type"], "proc");
}
