//! Idmapped mounts: `idmap`, `ridmap`, `uidMappings` and `gidMappings` of a mount, by the owners seen on both sides.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, chown};
use std::path::{Path, PathBuf};

use nix::mount::MsFlags;
use runtime_tests::{Background, Container, known, private_mounts, skip, until};
use serde_json::{Value, json};

fn map(entries: &[(u32, u32, u32)]) -> Value {
    entries.iter().map(|(c, h, n)| json!({ "containerID": c, "hostID": h, "size": n })).collect()
}

/// A bind of a tmpfs (whose support of id mappings the kernel promises since 6.3), with `options` and the mappings given.
fn bind(c: Container, to: &str, source: &Path, options: &[&str], mappings: Option<(Value, Value)>) -> Container {
    // In a user namespace the container's root may not make it.
    fs::create_dir_all(c.path(to)).expect("mount point");
    let mut mount = json!({ "destination": to, "type": "bind", "source": source, "options": options });
    if let Some((uids, gids)) = mappings {
        mount["uidMappings"] = uids;
        mount["gidMappings"] = gids;
    }
    c.with("/mounts/-", mount)
}

/// A tmpfs with files `0`, `1` and `5`, owned by these ids.
fn source(c: &mut Container, name: &str) -> PathBuf {
    let dir = c.host_tmpfs(name, MsFlags::empty());
    for id in [0, 1, 5] {
        let file = dir.join(id.to_string());
        fs::write(&file, "x").expect("file");
        chown(&file, Some(id), Some(id)).expect("chown");
    }
    fs::set_permissions(&dir, std::os::unix::fs::PermissionsExt::from_mode(0o777)).expect("chmod");
    dir
}

/// Owner and group of each path, as the container sees them.
fn owners(c: &Container, paths: &[&str]) -> Value {
    let pairs: Vec<&str> = paths.iter().flat_map(|p| ["node", p]).collect();
    let nodes = c.attempt(&pairs);
    nodes.as_array().expect("list").iter().map(|n| json!([n["uid"], n["gid"]])).collect()
}

fn own_user_namespace(c: Container) -> Container {
    let ids = map(&[(0, 100_000, 65536)]);
    c.namespace("user", "").with("/linux/uidMappings", ids.clone()).with("/linux/gidMappings", ids)
}

const OVERFLOW: u32 = 65534;

#[test]
fn a_mapping_of_the_mounts_own() {
    known!("runc", "1.2", "no mapping of a mount's own");
    private_mounts();
    let mut c = Container::new();
    let dir = source(&mut c, "source");
    let mappings = (map(&[(0, 1000, 1), (1, 2000, 2)]), map(&[(0, 3000, 2), (5, 7, 1)]));
    let c = bind(c, "/mnt", &dir, &["rbind", "idmap"], Some(mappings)).idle().up();
    let seen = owners(&c, &["/mnt/0", "/mnt/1", "/mnt/5"]);
    assert_eq!(seen, json!([[1000, 3000], [2000, 3001], [OVERFLOW, 7]]));
    // The other way, too: what 2001 makes in there is 2 on the disk, with a group that maps back.
    c.exec(&["--user", "2001:3001"], &["touch", "/mnt/new"]).ok();
    let made = fs::metadata(dir.join("new")).expect("made through the mount");
    assert_eq!((made.uid(), made.gid()), (2, 1));
    // And who is not in the mapping cannot own anything there.
    assert_ne!(c.exec(&["--user", "77:77"], &["touch", "/mnt/other"]).code, 0);
    let report = c.exec_report(&[]);
    let fds: Vec<&String> = report["fds"].as_object().expect("fds").keys().collect();
    assert_eq!(fds, ["0", "1", "2"], "nothing of the mapping is left open");
}

#[test]
fn without_the_option_the_mapping_counts_all_the_same() {
    known!("runc", "1.2", "no mapping of a mount's own");
    private_mounts();
    let mut c = Container::new();
    let dir = source(&mut c, "source");
    let c = bind(c, "/mnt", &dir, &["bind"], Some((map(&[(0, 9, 9)]), map(&[(0, 8, 9)])))).idle().up();
    assert_eq!(owners(&c, &["/mnt/0", "/mnt/5"]), json!([[9, 8], [14, 13]]));
}

#[test]
fn one_source_with_several_mappings() {
    known!("runc", "1.2", "no mapping of a mount's own");
    private_mounts();
    let mut c = Container::new();
    let dir = source(&mut c, "source");
    let to = |id| Some((map(&[(0, id, 10)]), map(&[(0, id, 10)])));
    let c = bind(c, "/a", &dir, &["bind", "idmap"], to(100));
    let c = bind(c, "/b", &dir, &["bind", "idmap"], to(200));
    let c = bind(c, "/c", &dir, &["bind", "idmap", "ro"], to(100));
    let c = bind(c, "/d", &dir, &["bind"], None).idle().up();
    let seen = owners(&c, &["/a/1", "/b/1", "/c/1", "/d/1"]);
    assert_eq!(seen, json!([[101, 101], [201, 201], [101, 101], [1, 1]]));
    assert_eq!(c.attempt(&["create", "/c/new"]), json!(["EROFS"]));
}

#[test]
fn the_containers_own_user_namespace() {
    known!("runc", "1.2", "no idmap without mappings of the mount's own");
    private_mounts();
    let mut c = own_user_namespace(Container::new());
    let dir = source(&mut c, "source");
    let c = bind(c, "/mapped", &dir, &["rbind", "idmap"], None);
    let c = bind(c, "/plain", &dir, &["rbind"], None).idle().up();
    let seen = owners(&c, &["/mapped/0", "/mapped/5", "/plain/0"]);
    assert_eq!(seen, json!([[0, 0], [5, 5], [OVERFLOW, OVERFLOW]]));
    c.exec(&[], &["touch", "/mapped/new"]).ok();
    let made = fs::metadata(dir.join("new")).expect("made through the mount");
    assert_eq!((made.uid(), made.gid()), (0, 0), "the container's root is root on the disk");
}

#[test]
fn a_mapping_of_the_mounts_own_in_a_user_namespace() {
    known!("runc", "1.2", "the mapping must be the container's");
    private_mounts();
    let mut c = own_user_namespace(Container::new());
    let dir = source(&mut c, "source");
    let ids = map(&[(0, 100_050, 10)]);
    let c = bind(c, "/mnt", &dir, &["bind", "idmap"], Some((ids.clone(), ids))).idle().up();
    assert_eq!(owners(&c, &["/mnt/0", "/mnt/5"]), json!([[50, 50], [55, 55]]));
}

#[test]
fn the_user_namespace_that_is_joined() {
    known!("runc", "1.2", "no idmap without mappings of the mount's own");
    private_mounts();
    let first = own_user_namespace(Container::new()).idle().up();
    let mut c = Container::new().namespace("user", &format!("/proc/{}/ns/user", first.pid()));
    let dir = source(&mut c, "source");
    let c = bind(c, "/mnt", &dir, &["bind", "idmap"], None).idle().up();
    assert_eq!(owners(&c, &["/mnt/0", "/mnt/5"]), json!([[0, 0], [5, 5]]));
}

/// `outer` is mounted at /mnt and `inner` at /mnt/below; then what is there by now is mounted a second time, idmapped.
fn of_a_mount_before_it(mut c: Container, mappings: Option<(Value, Value)>) -> Value {
    let (outer, inner) = (source(&mut c, "outer"), source(&mut c, "inner"));
    fs::create_dir(outer.join("below")).expect("directory");
    let root = c.dir.join("rootfs");
    let c = bind(c, "/mnt", &outer, &["bind"], None);
    let c = bind(c, "/mnt/below", &inner, &["bind"], None);
    fs::remove_dir_all(c.path("mnt/below")).expect("only in the mount");
    let c = bind(c, "/one", &root.join("mnt/below"), &["bind", "idmap"], mappings.clone());
    let c = bind(c, "/all", &root.join("mnt"), &["rbind", "ridmap"], mappings).idle().up();
    owners(&c, &["/one/1", "/all/5", "/all/below/5", "/mnt/1"])
}

#[test]
fn of_mounts_before_it_in_the_containers_root() {
    known!("runc", "1.2", "no mapping of a mount's own");
    private_mounts();
    let ids = map(&[(0, 1000, 10)]);
    let seen = of_a_mount_before_it(Container::new(), Some((ids.clone(), ids)));
    assert_eq!(seen, json!([[1001, 1001], [1005, 1005], [1005, 1005], [1, 1]]));
}

#[test]
fn of_mounts_before_it_in_a_user_namespace() {
    known!("runc", "1.2", "no idmap without mappings of the mount's own");
    private_mounts();
    let seen = of_a_mount_before_it(own_user_namespace(Container::new()), None);
    assert_eq!(seen, json!([[1, 1], [5, 5], [5, 5], [OVERFLOW, OVERFLOW]]));
    let first = own_user_namespace(Container::new()).idle().up();
    let joined = Container::new().namespace("user", &format!("/proc/{}/ns/user", first.pid()));
    assert_eq!(of_a_mount_before_it(joined, None), json!([[1, 1], [5, 5], [5, 5], [OVERFLOW, OVERFLOW]]));
}

#[test]
fn without_any_mapping_it_is_an_error() {
    // runtime-spec config.md, "Linux mount options": an error MUST be returned.
    known!("runc", "1.2", "an unknown option");
    for option in ["idmap", "ridmap"] {
        let c = Container::new();
        let dir = c.dir.clone();
        let out = bind(c, "/mnt", &dir, &["rbind", option], None).create(&[]);
        assert!(out.code == 1 && out.stderr.contains("mapping"), "{out}");
    }
}

#[test]
fn a_mapping_in_the_root_that_the_kernel_refuses_is_named() {
    known!("runc", "1.2", "no mapping of a mount's own");
    let ids = map(&[(0, 1000, 10)]);
    let c = bind(Container::new(), "/again", "rootfs/proc".as_ref(), &["bind"], Some((ids.clone(), ids)));
    let out = c.create(&[]);
    assert!(out.code == 1 && out.stderr.contains("]: idmap of ") && out.stderr.contains("EINVAL"), "{out}");
}

#[test]
fn ridmap_reaches_the_mounts_below_and_idmap_does_not() {
    known!("runc", "1.2", "no ridmap");
    private_mounts();
    let mut c = Container::new();
    let dir = source(&mut c, "source");
    source(&mut c, "source/sub");
    let to = || Some((map(&[(0, 100, 10)]), map(&[(0, 100, 10)])));
    let c = bind(c, "/one", &dir, &["rbind", "idmap"], to());
    let c = bind(c, "/all", &dir, &["rbind", "ridmap"], to()).idle().up();
    let seen = owners(&c, &["/one/1", "/one/sub/1", "/all/1", "/all/sub/1"]);
    assert_eq!(seen, json!([[101, 101], [1, 1], [101, 101], [101, 101]]));
}

#[test]
fn the_form_of_crun() {
    known!("runc", "*", "crun's form of the option");
    private_mounts();
    let mut c = own_user_namespace(Container::new());
    let dir = source(&mut c, "source");
    let option = "idmap=uids=0-100005-1#1-100007-10;gids=@0-20-10";
    let c = bind(c, "/mnt", &dir, &["bind", option], None).idle().up();
    assert_eq!(owners(&c, &["/mnt/0", "/mnt/1", "/mnt/5"]), json!([[5, 20], [7, 21], [11, 25]]));
}

#[test]
fn what_cannot_be_mapped_is_named_and_leaves_nothing() {
    known!("runc", "1.2", "no mapping of a mount's own");
    private_mounts();
    let one = || Some((map(&[(0, 100, 10)]), map(&[(0, 100, 10)])));
    // procfs has no id mappings.
    let c = bind(Container::new(), "/mnt", Path::new("/proc"), &["bind", "idmap"], one());
    c.create(&[]).fails(1, &["mounts[", "idmap of", "/proc", "EINVAL", "(proc)"]);
    c.assert_gone();
    // A range twice.
    let mut c = Container::new();
    let dir = source(&mut c, "source");
    let twice = map(&[(0, 100, 10), (5, 300, 10)]);
    let c = bind(c, "/mnt", &dir, &["bind", "idmap"], Some((twice.clone(), twice)));
    c.create(&[]).fails(1, &["mounts[", "gidMappings", "EINVAL"]);
}

#[test]
fn bad_input_is_named() {
    known!("runc", "1.2", "another check");
    let one = || map(&[(0, 100, 10)]);
    let c = bind(Container::new(), "/mnt", Path::new("/tmp"), &["bind", "idmap"], None);
    c.create(&[]).fails(1, &["mounts[", "idmap without a mapping", "user namespace"]);
    let c = bind(Container::new(), "/mnt", Path::new("/tmp"), &["bind", "idmap"], Some((one(), json!([]))));
    c.create(&[]).fails(1, &["mounts[", "gidMappings", "missing"]);
    let mount = json!({ "destination": "/mnt", "type": "tmpfs", "source": "tmpfs", "options": ["idmap"],
        "uidMappings": one(), "gidMappings": one() });
    Container::new().with("/mounts/-", mount).create(&[]).fails(1, &["mounts[", "bind mounts only"]);
}

/// The helper's user namespace belongs to uid 0, and so does a container in the host's pid namespace that has no capability at all:
/// it must not reach the helper, which is a process of the host's with the runtime's fds.
#[test]
fn a_root_without_capabilities_does_not_reach_the_helper() {
    known!("runc", "*", "its helper is another one");
    private_mounts();
    let mut c = Container::new();
    let dir = source(&mut c, "source");
    let ids = map(&[(0, 100_000, 10)]);
    let c = bind(c, "/mnt", &dir, &["bind"], Some((ids.clone(), ids))).args(&["true"]);
    c.write_config();
    let run = c.command("run", &[], &[]);
    let mut outer = std::process::Command::new("strace");
    if std::process::Command::new("strace").arg("-V").output().is_err() {
        skip!("strace is not installed");
    }
    // The runtime stands still just after it has made its first process, the helper.
    outer.current_dir(&c.dir).args(["-qqq", "-o", "calls", "-e", "inject=clone3:delay_exit=2000000:when=1"]);
    outer.env_remove("LD_LIBRARY_PATH").arg(run.get_program()).args(run.get_args());
    let mut running = Background::start(&mut outer, &c.dir);
    let ours = fs::read_link("/proc/self/ns/user").expect("our user namespace");
    let mut found = None;
    until("the helper", || {
        let pids = fs::read_dir("/proc").expect("/proc").flatten();
        found = pids.map(|e| e.path()).find(|p| {
            fs::read(p.join("cmdline")).is_ok_and(|l| String::from_utf8_lossy(&l).contains(&c.id))
                && fs::read_link(p.join("ns/user")).is_ok_and(|ns| ns != ours)
        });
        found.is_some()
    });
    let environ = found.expect("the helper").join("environ");
    assert!(fs::read(&environ).is_ok(), "it is there");
    let mut attack = std::process::Command::new("setpriv");
    let out = attack.args(["--bounding-set=-all", "--inh-caps=-all", "cat"]).arg(&environ).output().expect("setpriv");
    let said = String::from_utf8_lossy(&out.stderr);
    assert!(!out.status.success() && said.contains("Permission denied"), "{:?} {said}", out.status);
    assert_eq!(running.wait(), 0);
}
