//! The drivers on the real kernel. As root; as an ordinary user the tests that need no root run again, in a user namespace.

mod common;

use common::{Disk, Temp, digest, privileged};
use rrt_images::snapshots::{Error, INIT_PATHS, Preparation, Prepared, Snapshots, Whiteouts};
use rrt_oci::image::Digest;
use std::collections::HashSet;
use std::fs;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::{Command, Stdio};

fn place(snapshots: &Snapshots, layers: &[Digest]) -> Prepared {
    match snapshots.prepare(layers).unwrap() {
        Preparation::Unpack(prepared) => prepared,
        Preparation::Present => panic!("the layer is there already"),
    }
}

/// Deletes `name` in the layer, as unpacking a whiteout does.
fn white_out(prepared: &Prepared, name: &str) {
    let path = prepared.path().join(name);
    match prepared.whiteouts() {
        Whiteouts::Overlay | Whiteouts::OverlayUser => {
            let kind = rustix::fs::FileType::CharacterDevice;
            rustix::fs::mknodat(rustix::fs::CWD, &path, kind, rustix::fs::Mode::empty(), 0).unwrap();
        }
        Whiteouts::Apply | Whiteouts::Keep => fs::remove_file(&path).unwrap(),
    }
}

/// Three layers: the second changes and deletes files of the first, the third adds one.
fn three_layers(snapshots: &Snapshots) -> Vec<Digest> {
    let layers = [digest(1), digest(2), digest(3)];
    let first = place(snapshots, &layers[..1]);
    fs::create_dir(first.path().join("etc")).unwrap();
    for name in ["etc/kept", "etc/changed", "etc/deleted"] {
        fs::write(first.path().join(name), name).unwrap();
    }
    fs::hard_link(first.path().join("etc/kept"), first.path().join("etc/link")).unwrap();
    symlink("/outside", first.path().join("etc/hosts")).unwrap();
    snapshots.commit(first, &[]).unwrap();
    let second = place(snapshots, &layers[..2]);
    let _ = fs::create_dir(second.path().join("etc"));
    fs::write(second.path().join("etc/changed"), "new").unwrap();
    white_out(&second, "etc/deleted");
    snapshots.commit(second, &[]).unwrap();
    let third = place(snapshots, &layers);
    fs::write(third.path().join("top"), "top").unwrap();
    snapshots.commit(third, &[]).unwrap();
    layers.to_vec()
}

#[test]
fn a_layer_that_an_image_has_twice() {
    if !privileged() {
        return;
    }
    let temp = Temp::new("twice");
    let snapshots = Snapshots::open(&temp.0, None).unwrap();
    let layers = [digest(1), digest(2), digest(1)];
    for (count, content) in [(1, "one"), (2, "two")] {
        let prepared = place(&snapshots, &layers[..count]);
        fs::write(prepared.path().join("name"), content).unwrap();
        fs::write(prepared.path().join(content), content).unwrap();
        snapshots.commit(prepared, &[]).unwrap();
    }
    if let Preparation::Unpack(prepared) = snapshots.prepare(&layers).unwrap() {
        // A driver whose layers are whole trees.
        fs::write(prepared.path().join("name"), "one").unwrap();
        snapshots.commit(prepared, &[]).unwrap();
    }
    let view = snapshots.view(&layers).unwrap();
    let read = |name: &str| fs::read_to_string(format!("/proc/self/fd/{}/{name}", view.root().as_raw_fd())).unwrap();
    assert_eq!((read("name"), read("one"), read("two")), ("one".into(), "one".into(), "two".into()));
}

/// The life of a container, on any driver.
fn life(root: &Path, driver: &str) {
    let snapshots = Snapshots::open(root, Some(driver)).unwrap();
    let layers = three_layers(&snapshots);
    snapshots.sync().unwrap();
    assert!(matches!(snapshots.prepare(&layers).unwrap(), Preparation::Present));
    snapshots.create("one", &layers, true).unwrap();
    assert!(matches!(snapshots.create("one", &layers, true), Err(Error::Exists(_))));
    assert!(matches!(snapshots.create("../one", &layers, true), Err(Error::InvalidName(_))));
    assert!(matches!(snapshots.create("two", &[digest(9)], true), Err(Error::NoLayer(_))));
    let merged = snapshots.mount("one").unwrap();
    assert_eq!(snapshots.mount("one").unwrap(), merged, "a second time");
    let read = |name: &str| fs::read_to_string(merged.join(name)).ok();
    assert_eq!(read("etc/kept").as_deref(), Some("etc/kept"));
    assert_eq!(read("etc/changed").as_deref(), Some("new"));
    assert_eq!((read("etc/deleted"), read("top").as_deref()), (None, Some("top")));
    assert_eq!(merged.metadata().unwrap().mode() & 0o7777, 0o755);
    for (path, _) in INIT_PATHS {
        assert!(merged.join(path).symlink_metadata().is_ok(), "{path} of the init layer");
    }
    assert!(merged.join("etc/hosts").symlink_metadata().unwrap().is_file(), "a link of the image is not followed");
    fs::write(merged.join("etc/written"), "by the container").unwrap();
    fs::remove_file(merged.join("top")).unwrap();
    // Another container, and the image, see nothing of it.
    snapshots.create("two", &layers, true).unwrap();
    let second = snapshots.mount("two").unwrap();
    assert!(second.join("top").exists() && !second.join("etc/written").exists());
    let view = snapshots.view(&layers).unwrap();
    assert!(rustix::fs::statat(view.root(), "top", rustix::fs::AtFlags::empty()).is_ok());
    assert!(rustix::fs::statat(view.root(), ".dockerenv", rustix::fs::AtFlags::empty()).is_err(), "no init layer");
    assert!(rustix::fs::statat(view.root(), "etc/deleted", rustix::fs::AtFlags::empty()).is_err());
    assert!(snapshots.usage_of("one").unwrap().inodes >= 2);
    assert!(snapshots.usage(&layers).unwrap().bytes > 0);
    // Unmounted and mounted again, it is as it was.
    snapshots.unmount("one").unwrap();
    let merged = snapshots.mount("one").unwrap();
    assert_eq!(fs::read_to_string(merged.join("etc/written")).unwrap(), "by the container");
    assert!(!merged.join("top").exists());

    garbage(&snapshots, &layers, view);
    drop(snapshots);
    let again = Snapshots::open(root, None).unwrap();
    assert_eq!(again.driver().name(), driver, "the choice is kept");
}

/// What nobody names goes; what is read, or below a container, stays.
fn garbage(snapshots: &Snapshots, layers: &[Digest], view: rrt_images::snapshots::View) {
    let none = HashSet::new();
    assert_eq!(snapshots.containers().unwrap(), ["one", "two"]);
    assert_eq!(snapshots.layers_of("one").unwrap(), layers);
    assert_eq!(snapshots.collect(&[], &none).unwrap().layers, 0, "containers are on them");
    snapshots.remove("one").unwrap();
    snapshots.remove("two").unwrap();
    assert!(matches!(snapshots.remove("two"), Err(Error::NoSnapshot(_))));
    let kept: HashSet<_> = layers.iter().cloned().collect();
    snapshots.collect(&[], &kept).unwrap();
    assert!(snapshots.has(layers), "leased");
    snapshots.collect(&[layers.to_vec()], &none).unwrap();
    assert!(snapshots.has(layers), "named by an image");
    snapshots.collect(&[], &none).unwrap();
    assert!(rustix::fs::statat(view.root(), "top", rustix::fs::AtFlags::empty()).is_ok(), "read at the moment");
    drop(view);
    snapshots.collect(&[layers[..1].to_vec()], &none).unwrap();
    assert!(!snapshots.has(layers));
    // With copy and btrfs the view held the highest layer only, which is all of them.
    assert!(snapshots.has(&layers[..1]) || !snapshots.independent());
    snapshots.collect(&[], &none).unwrap();
    assert!(!snapshots.has(&layers[..1]));
    for directory in ["layers", "containers", "tmp"] {
        let left: Vec<_> = fs::read_dir(snapshots.path().join(directory)).unwrap().collect();
        assert!(left.is_empty(), "{directory}: {left:?}");
    }
}

#[test]
fn overlay() {
    if privileged() {
        life(&Temp::new("overlay").0, "overlay2");
    }
}

#[test]
fn copy() {
    if privileged() {
        life(&Temp::new("copy").0, "copy");
    }
}

#[test]
fn fuse_overlayfs() {
    if !Command::new("fuse-overlayfs").arg("--version").output().is_ok_and(|o| o.status.success()) {
        return eprintln!("skipped: no fuse-overlayfs");
    }
    if fs::File::options().read(true).write(true).open("/dev/fuse").is_err() {
        return eprintln!("skipped: /dev/fuse can't be opened");
    }
    if privileged() {
        life(&Temp::new("fuse").0, "fuse-overlayfs");
    }
}

#[test]
fn btrfs() {
    if !privileged() {
        return;
    }
    let Some(disk) = Disk::new("btrfs", &["mkfs.btrfs", "-q"], 256) else { return };
    life(&disk.mounted, "btrfs");
}

/// Where the file system can clone, a copy takes no space.
#[test]
fn copies_share_their_blocks_on_xfs() {
    if !privileged() {
        return;
    }
    let Some(disk) = Disk::new("xfs", &["mkfs.xfs", "-q"], 512) else { return };
    let snapshots = Snapshots::open(&disk.mounted, Some("copy")).unwrap();
    let layers = [digest(1)];
    let first = place(&snapshots, &layers);
    fs::write(first.path().join("big"), vec![7u8; 100 << 20]).unwrap();
    snapshots.commit(first, &[]).unwrap();
    snapshots.sync().unwrap();
    let before = rustix::fs::statfs(&disk.mounted).unwrap();
    for n in 0..10 {
        snapshots.create(&format!("c{n}"), &layers, false).unwrap();
    }
    let after = rustix::fs::statfs(&disk.mounted).unwrap();
    let grown = (before.f_bfree - after.f_bfree) * before.f_bsize as u64;
    assert!(grown < 20 << 20, "ten copies of 100 MiB took {grown} bytes");
}

#[test]
fn many_layers_are_mounted() {
    if !privileged() {
        return;
    }
    let temp = Temp::new("many");
    let snapshots = Snapshots::open(&temp.0, Some("overlay2")).unwrap();
    let layers: Vec<Digest> = (1..=501).map(digest).collect();
    for n in 0..layers.len() {
        // Its chain does not matter to overlay; hashing 501 of them would take an unoptimised test half a minute.
        let prepared = place(&snapshots, &layers[n..=n]);
        fs::write(prepared.path().join(format!("f{n}")), "").unwrap();
        snapshots.commit(prepared, &[]).unwrap();
    }
    // One of overlay's 500 is the init layer.
    snapshots.create("c", &layers[..499], true).unwrap();
    let merged = snapshots.mount("c").unwrap();
    assert!(merged.join("f0").exists() && merged.join("f498").exists());
    snapshots.remove("c").unwrap();
    snapshots.view(&layers[..500]).unwrap();
    let error = snapshots.view(&layers).err().unwrap().to_string();
    assert!(error.contains("501 layers") && error.contains("at most 500"), "{error}");
}

/// A directory that a layer's archive does not have looks as it does below, and such a layer is not shared with another chain.
#[test]
fn a_directory_that_the_archive_lacks_is_as_it_is_below() {
    if !privileged() {
        return;
    }
    let temp = Temp::new("implicit");
    let snapshots = Snapshots::open(&temp.0, Some("overlay2")).unwrap();
    let (base, layer) = ([digest(1)], [digest(1), digest(2)]);
    let first = place(&snapshots, &base);
    fs::create_dir_all(first.path().join("a/b")).unwrap();
    fs::set_permissions(first.path().join("a/b"), fs::Permissions::from_mode(0o1777)).unwrap();
    snapshots.commit(first, &[]).unwrap();
    let second = place(&snapshots, &layer);
    fs::create_dir_all(second.path().join("a/b")).unwrap();
    fs::write(second.path().join("a/b/f"), "").unwrap();
    snapshots.commit(second, &["a".into(), "a/b".into()]).unwrap();
    let view = snapshots.view(&layer).unwrap();
    let stat = rustix::fs::statat(view.root(), "a/b", rustix::fs::AtFlags::empty()).unwrap();
    assert_eq!(stat.st_mode & 0o7777, 0o1777);
    assert!(!snapshots.has(&[digest(5), digest(2)]), "it was made for one chain");
    assert!(snapshots.has(&[digest(1)]) && snapshots.has(&layer));
}

/// Layers of another boot that were never synced do not count.
#[test]
fn what_a_crash_may_have_taken_is_made_again() {
    if !privileged() {
        return;
    }
    let temp = Temp::new("crash");
    let snapshots = Snapshots::open(&temp.0, Some("overlay2")).unwrap();
    let layers = [digest(1)];
    snapshots.commit(place(&snapshots, &layers), &[]).unwrap();
    let mark = snapshots.path().join("layers").join(digest(1).hex()).join("unsynced");
    assert!(snapshots.has(&layers) && mark.exists());
    fs::write(&mark, "another boot").unwrap();
    assert!(!snapshots.has(&layers));
    let prepared = place(&snapshots, &layers);
    fs::write(prepared.path().join("new"), "").unwrap();
    snapshots.commit(prepared, &[]).unwrap();
    snapshots.sync().unwrap();
    assert!(snapshots.has(&layers) && !mark.exists());
    assert!(
        snapshots
            .view(&layers)
            .is_ok_and(|v| rustix::fs::statat(v.root(), "new", rustix::fs::AtFlags::empty()).is_ok())
    );
}

/// Whoever is killed at any moment leaves whole layers only, and the next command sweeps the rest.
#[test]
fn a_kill_leaves_whole_layers_and_nothing_else() {
    if !privileged() {
        return;
    }
    if let Ok(root) = std::env::var("RRT_SNAPSHOTS_VICTIM") {
        return work_until_killed(Path::new(&root));
    }
    let temp = Temp::new("kill");
    let mut made = 0;
    for round in 0..12u64 {
        let mut victim = Command::new(std::env::current_exe().unwrap());
        victim.args(["--exact", "a_kill_leaves_whole_layers_and_nothing_else"]).env("RRT_SNAPSHOTS_VICTIM", &temp.0);
        let mut child = victim.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        std::thread::sleep(std::time::Duration::from_millis(15 + round * 17));
        child.kill().unwrap();
        child.wait().unwrap();
        let snapshots = Snapshots::open(&temp.0, Some("overlay2")).unwrap();
        let left: Vec<_> = fs::read_dir(snapshots.path().join("tmp")).unwrap().collect();
        assert!(left.is_empty(), "round {round}: {left:?}");
        let layers: Vec<Digest> = (1..=5).map(digest).collect();
        for n in 1..=layers.len() {
            if snapshots.has(&layers[..n]) {
                made += 1;
                let directory = snapshots.path().join("layers").join(layers[n - 1].hex()).join("fs");
                assert_eq!(fs::read_dir(directory).unwrap().count(), 50, "layer {n} is not whole");
            }
        }
        for id in snapshots.containers().unwrap() {
            assert!(snapshots.mount(&id).unwrap().join("etc/hosts").exists());
            snapshots.remove(&id).unwrap();
        }
        snapshots.collect(&[], &HashSet::new()).unwrap();
    }
    assert!(made > 0, "no victim came as far as a layer");
}

fn work_until_killed(root: &Path) {
    let snapshots = Snapshots::open(root, Some("overlay2")).unwrap();
    let layers: Vec<Digest> = (1..=5).map(digest).collect();
    loop {
        for n in 1..=layers.len() {
            if let Preparation::Unpack(prepared) = snapshots.prepare(&layers[..n]).unwrap() {
                for file in 0..50 {
                    fs::write(prepared.path().join(format!("{n}-{file}")), vec![1u8; 4096]).unwrap();
                }
                snapshots.commit(prepared, &[]).unwrap();
            }
        }
        snapshots.create("c", &layers, true).unwrap();
        snapshots.mount("c").unwrap();
        snapshots.remove("c").unwrap();
        snapshots.collect(&[], &HashSet::new()).unwrap();
    }
}

/// Two that want the same layer: one unpacks, the other waits and finds it.
#[test]
fn one_of_two_unpacks() {
    if !privileged() {
        return;
    }
    let temp = Temp::new("two");
    let snapshots = Snapshots::open(&temp.0, Some("overlay2")).unwrap();
    let layers = [digest(1)];
    let prepared = place(&snapshots, &layers);
    std::thread::scope(|scope| {
        let other = scope.spawn(|| matches!(snapshots.prepare(&layers).unwrap(), Preparation::Present));
        std::thread::sleep(std::time::Duration::from_millis(50));
        assert!(!other.is_finished());
        snapshots.commit(prepared, &[]).unwrap();
        assert!(other.join().unwrap());
    });
    // And when the first gives up, the other does it.
    let layers = [digest(2)];
    let prepared = place(&snapshots, &layers);
    std::thread::scope(|scope| {
        let other = scope.spawn(|| matches!(snapshots.prepare(&layers).unwrap(), Preparation::Unpack(_)));
        std::thread::sleep(std::time::Duration::from_millis(50));
        drop(prepared);
        assert!(other.join().unwrap());
    });
}

/// A container can make a tree that no path reaches; it must be able to go.
#[test]
fn a_very_deep_tree_is_removed() {
    if !privileged() {
        return;
    }
    let temp = Temp::new("deep");
    let snapshots = Snapshots::open(&temp.0, Some("overlay2")).unwrap();
    snapshots.commit(place(&snapshots, &[digest(1)]), &[]).unwrap();
    snapshots.create("c", &[digest(1)], false).unwrap();
    let merged = snapshots.mount("c").unwrap();
    let flags = rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::DIRECTORY;
    let mut at = rustix::fs::open(&merged, flags, rustix::fs::Mode::empty()).unwrap();
    let name = "n".repeat(200);
    for _ in 0..1000 {
        rustix::fs::mkdirat(&at, name.as_str(), rustix::fs::Mode::RWXU).unwrap();
        at = rustix::fs::openat(&at, name.as_str(), flags, rustix::fs::Mode::empty()).unwrap();
    }
    drop(at);
    snapshots.remove("c").unwrap();
    assert_eq!(fs::read_dir(snapshots.path().join("tmp")).unwrap().count(), 0);
}

/// No space: an error that says so, and nothing half-made.
#[test]
fn a_full_disk_leaves_nothing() {
    if !privileged() {
        return;
    }
    let Some(disk) = Disk::new("full", &["mkfs.ext4", "-q"], 16) else { return };
    let snapshots = Snapshots::open(&disk.mounted, Some("copy")).unwrap();
    let first = place(&snapshots, &[digest(1)]);
    fs::write(first.path().join("big"), vec![1u8; 8 << 20]).unwrap();
    snapshots.commit(first, &[]).unwrap();
    let error = snapshots.create("c", &[digest(1)], false).unwrap_err();
    assert!(error.is_no_space() && error.to_string().contains("big"), "{error}");
    assert_eq!(snapshots.containers().unwrap(), [""; 0]);
    assert_eq!(fs::read_dir(snapshots.path().join("tmp")).unwrap().count(), 0);
}

/// As an ordinary user, in a user namespace of his own: the kernel's overlay with `user.` attributes, and fuse-overlayfs.
#[test]
fn rootless() {
    let unshare = ["--user", "--map-root-user", "--mount", "--"];
    if !privileged() || std::env::var_os("RRT_SNAPSHOTS_ROOTLESS").is_some() {
        return;
    }
    let runs = |c: &mut Command| c.output().is_ok_and(|o| o.status.success());
    let user = ["--reuid", "54321", "--regid", "54321", "--clear-groups", "--"];
    if !runs(Command::new("setpriv").args(user).arg("unshare").args(unshare).arg("true")) {
        return eprintln!("skipped: an ordinary user can't make a user namespace here");
    }
    let temp = Temp::new("rootless");
    fs::set_permissions(&temp.0, fs::Permissions::from_mode(0o777)).unwrap();
    let program = temp.0.join("test");
    fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
    let mut command = Command::new("setpriv");
    command.args(user).arg("unshare").args(unshare).arg(&program);
    command.args(["--exact", "--test-threads=1", "rootless_overlay", "fuse_overlayfs", "copy"]);
    command.args([
        "one_of_two_unpacks",
        "many_layers_are_mounted",
        "a_directory_that_the_archive_lacks_is_as_it_is_below",
    ]);
    let output = command.env("TMPDIR", &temp.0).env("RRT_SNAPSHOTS_ROOTLESS", "1").output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    assert!(text.contains("test rootless_overlay ... ok") && text.contains("6 passed"), "{text}");
}

#[test]
fn rootless_overlay() {
    if std::env::var_os("RRT_SNAPSHOTS_ROOTLESS").is_none() {
        return eprintln!("skipped: a part of the test rootless");
    }
    let temp = Temp::new("user");
    let snapshots = Snapshots::open(&temp.0, None).unwrap();
    assert_eq!(snapshots.driver().whiteouts(), Whiteouts::OverlayUser);
    assert!(snapshots.info().contains(&("userxattr".to_owned(), "true".to_owned())));
    life(&temp.0, "overlay2");
}

/// What `info` says, and the whiteouts of a mount made by an old kernel's means are those that unpacking makes.
#[test]
fn info_says_how_layers_are_kept() {
    if !privileged() {
        return;
    }
    let temp = Temp::new("info");
    let snapshots = Snapshots::open(&temp.0, None).unwrap();
    let rows = snapshots.info();
    assert_eq!(rows[0].0, "Backing Filesystem");
    assert!(rows.contains(&("Native Overlay Diff".to_owned(), "true".to_owned())), "{rows:?}");
    let layers = three_layers(&snapshots);
    snapshots.create("c", &layers, false).unwrap();
    let merged = snapshots.mount("c").unwrap();
    fs::remove_file(merged.join("top")).unwrap();
    let whiteout = merged.parent().unwrap().join("upper/top").symlink_metadata().unwrap();
    assert!(whiteout.file_type().is_char_device() && whiteout.rdev() == 0);
    snapshots.remove("c").unwrap();
    let error = Snapshots::open(&temp.0, Some("devicemapper")).err().unwrap().to_string();
    assert!(error.contains("devicemapper") && error.contains("overlay2, fuse-overlayfs, btrfs, copy"), "{error}");
}
