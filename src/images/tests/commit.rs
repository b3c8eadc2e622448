//! `diff` and `commit`: what a container has changed, on each driver.

mod common;

use common::{Disk, Temp, digest, layer, privileged, shell};
use rrt_content::Store;
use rrt_images::archive::{export, export_image};
use rrt_images::commit::{Commit, commit};
use rrt_images::diff::changes;
use rrt_images::layer::{PackOptions, Packing};
use rrt_images::names::Image;
use rrt_images::snapshots::Snapshots;
use rrt_oci::image::{ImageConfig, Manifest};
use std::fs;
use std::path::Path;
use std::process::Command;

/// What the image has.
const IMAGE: &str = r"
    mkdir -p etc dir/sub opaque/a gone/deep swap volume
    echo hosts-of-the-image >etc/hosts
    echo same >same; echo changed >changed; echo mode >mode; echo owner >owner; echo time >time
    echo x >dir/sub/x; echo y >dir/y; echo 1 >opaque/a/1; echo 2 >opaque/2; echo g >gone/deep/g
    echo f >swap/file-to-dir; mkdir swap/dir-to-file; echo i >swap/dir-to-file/inner
    ln -s same link; echo h >hard1; ln hard1 hard2; echo cap >cap; echo replaced >replaced
    touch -d @1000000000.5 same changed mode owner time cap replaced link hard1
";

/// What the container does.
const CONTAINER: &str = r#"
    echo new-content >changed; chmod 600 mode; chown 7:8 owner; touch time
    echo n >dir/sub/new; rm dir/y
    rm -r opaque; mkdir opaque; echo 3 >opaque/3
    rm -r gone
    rm swap/file-to-dir; mkdir swap/file-to-dir; echo j >swap/file-to-dir/j
    rm -r swap/dir-to-file; echo k >swap/dir-to-file
    ln -sf elsewhere link
    echo l >new1; ln new1 new2; mkdir newdir; ln new1 newdir/new3
    mkfifo pipe; mknod null c 1 3; python3 -c 'import socket; socket.socket(socket.AF_UNIX).bind("socket")'
    setcap cap_net_raw+ep cap; setfattr -n user.note -v hello changed
    setfattr -n trusted.private -v no changed
    truncate -s 10M sparse; echo data | dd of=sparse bs=1 seek=5000000 conv=notrunc 2>/dev/null
    chmod 777 newdir
    # The same length and the same time: only its content says that it is another.
    echo REPLACED >replaced; touch -d @1000000000.5 replaced
    # Touched and yet the same.
    chmod 600 same; chmod 644 same
    # Files of the init layer, and a mount point.
    echo edited >etc/hosts; echo name >etc/hostname; mkdir data; touch etc/mine
    name=$(printf 'long%.0s' $(seq 50)); echo long >"$name"
"#;

/// What `docker diff` says of it.
const CHANGES: &str = "A /null|A /new1|A /new2|A /newdir|A /newdir/new3|A /opaque/3|A /pipe|A /socket|A /sparse|A /data\
|C /cap|C /changed|C /dir|C /dir/sub|A /dir/sub/new|D /dir/y|C /etc|A /etc/mine|D /gone|C /link|C /mode|C /opaque|D /opaque/2\
|D /opaque/a|C /owner|C /replaced|C /swap|C /swap/dir-to-file|C /swap/file-to-dir|A /swap/file-to-dir/j|C /time|A /LONG";

fn expected() -> Vec<String> {
    let mut lines: Vec<String> = CHANGES.split('|').map(|line| line.replace("LONG", &"long".repeat(50))).collect();
    lines.sort_by(|a, b| a[2..].cmp(&b[2..]));
    lines
}

fn programs() -> bool {
    ["setfattr", "setcap", "python3"].iter().all(|name| {
        let found = Command::new("sh").args(["-c", &format!("command -v {name}")]).output().unwrap().status.success();
        if !found {
            eprintln!("skipped: no {name} here");
        }
        found
    })
}

/// Makes the container and returns the lines of its diff.
fn container(snapshots: &Snapshots) -> Vec<String> {
    let layers = [digest(1)];
    layer(snapshots, &layers, |path| drop(shell(path, IMAGE)));
    snapshots.create("c", &layers, true).unwrap();
    let merged = snapshots.mount("c").unwrap();
    // A copy keeps length and time of "replaced", so that nothing but a look at the content would tell: overlay takes it.
    shell(&merged, CONTAINER);
    changes(snapshots, "c").unwrap().iter().map(|c| format!("{} {}", c.kind.letter(), c.path.display())).collect()
}

/// The layer of the changes, uncompressed, with all times at 0.
fn layer_of(snapshots: &Snapshots, root: &Path) -> (Vec<u8>, Image) {
    let content = Store::open(root).unwrap();
    let lease = content.lease().unwrap();
    let make = Commit { packing: Packing::Plain, source_date_epoch: Some(0), ..Commit::default() };
    let image = commit(&content, &lease, snapshots, "c", &make).unwrap();
    assert_eq!(image.created.as_deref(), Some("1970-01-01T00:00:00Z"));
    assert_eq!(image.layers[0].digest, image.layers[0].diff_id);
    (fs::read(content.path(&image.layers[0].digest)).unwrap(), image)
}

fn check(root: &Path, driver: &str) -> (Vec<u8>, Image) {
    let snapshots = Snapshots::open(root, Some(driver)).unwrap();
    let mut lines = container(&snapshots);
    if driver != "overlay2" {
        // Two whole trees are compared by what their files say of themselves.
        assert!(!lines.contains(&"C /replaced".to_owned()));
        shell(&snapshots.mount("c").unwrap(), "touch -d @1000000001 replaced");
        lines = changes(&snapshots, "c")
            .unwrap()
            .iter()
            .map(|c| format!("{} {}", c.kind.letter(), c.path.display()))
            .collect();
    }
    let expected = expected();
    let only = |a: &[String], b: &[String]| a.iter().filter(|line| !b.contains(line)).cloned().collect::<Vec<_>>();
    assert_eq!((only(&lines, &expected), only(&expected, &lines)), (vec![], vec![]), "{driver}");
    assert_eq!(lines, expected, "{driver}");
    let made = layer_of(&snapshots, root);
    let again = layer_of(&snapshots, root);
    assert!(made.0 == again.0 && made.1.id == again.1.id, "{driver}: other bytes the second time");
    snapshots.remove("c").unwrap();
    made
}

#[test]
fn every_driver_says_the_same() {
    if !privileged() || !programs() {
        return;
    }
    let temp = Temp::new("drivers");
    let (archive, image) = check(&temp.0.join("overlay"), "overlay2");
    let file = temp.0.join("layer.tar");
    fs::write(&file, &archive).unwrap();
    let same = |other: (Vec<u8>, Image), driver: &str| {
        fs::write(temp.0.join(driver), &other.0).unwrap();
        assert!(
            archive == other.0 && image.id == other.1.id,
            "{driver}: {:?}",
            shell(&temp.0, &format!("cmp layer.tar {driver} || :"))
        );
    };
    same(check(&temp.0.join("copy-root"), "copy"), "copy");
    if let Some(disk) = Disk::new("commit-btrfs", &["mkfs.btrfs", "-q"], 256) {
        same(check(&disk.mounted, "btrfs"), "btrfs");
    }
    if fs::File::options().read(true).write(true).open("/dev/fuse").is_ok() && common::has("fuse-overlayfs") {
        same(check(&temp.0.join("fuse"), "fuse-overlayfs"), "fuse-overlayfs");
    }
    // GNU tar reads it.
    let list = shell(&temp.0, "tar --list --verbose --numeric-owner --full-time --xattrs --file layer.tar");
    for line in [
        ".wh.gone",
        "dir/.wh.y",
        "opaque/.wh.2",
        "opaque/.wh.a",
        "new2 link to new1",
        "newdir/new3 link to new1",
        "null",
        "data/",
    ] {
        assert!(list.lines().any(|l| l.ends_with(line)), "{line} in\n{list}");
    }
    assert!(
        !list.contains("etc/hosts") && !list.contains("hostname") && !list.contains("socket") && !list.contains("same")
    );
    let out = shell(
        &temp.0,
        "mkdir out && tar --extract --file layer.tar --directory out --xattrs --xattrs-include='*' --numeric-owner && cd out && \
         getcap cap && getfattr -n user.note --only-values changed && echo && stat -c '%u:%g %a' owner mode newdir && \
         stat -c '%s %b' sparse && grep -c data sparse && ! getfattr -n trusted.private changed 2>/dev/null && echo end",
    );
    let lines: Vec<&str> = out.lines().collect();
    assert_eq!(lines[..5], ["cap cap_net_raw=ep", "hello", "7:8 644", "0:0 600", "0:0 777"]);
    let (size, blocks) = lines[5].split_once(' ').unwrap();
    assert!(size == "10485760" && blocks.parse::<u64>().unwrap() < 1000, "{}", lines[5]);
    assert_eq!(lines[6..], ["1", "end"]);
}

/// The documents of an image, and what `--change` makes of them.
#[test]
fn an_image_of_an_image() {
    if !privileged() {
        return;
    }
    let temp = Temp::new("documents");
    let content = Store::open(&temp.0).unwrap();
    let lease = content.lease().unwrap();
    let snapshots = Snapshots::open(&temp.0, Some("overlay2")).unwrap();
    snapshots.create("base", &[], false).unwrap();
    shell(&snapshots.mount("base").unwrap(), "mkdir -p bin etc; echo 1 >bin/x");
    let changes = ["CMD [\"/bin/x\"]".to_owned(), "ENV A=b".to_owned()];
    let base =
        commit(&content, &lease, &snapshots, "base", &Commit { changes: &changes, ..Commit::default() }).unwrap();
    // What a running container sees is what the layer was made of.
    layer(&snapshots, &base.diff_ids(), |path| drop(shell(path, "mkdir -p bin etc; echo 1 >bin/x")));
    snapshots.create("c", &base.diff_ids(), true).unwrap();
    fs::write(snapshots.mount("c").unwrap().join("new"), "new").unwrap();
    let changes = ["LABEL x=y".to_owned()];
    let make = Commit {
        parent: Some(&base),
        changes: &changes,
        author: Some("somebody".to_owned()),
        message: Some("a message".to_owned()),
        created_by: Some("/bin/sh".to_owned()),
        packing: Packing::Zstd(3),
        ..Commit::default()
    };
    let image = commit(&content, &lease, &snapshots, "c", &make).unwrap();
    let config: ImageConfig = serde_json::from_slice(&content.read(&image.id, 1 << 20).unwrap()).unwrap();
    let manifest: Manifest = serde_json::from_slice(&content.read(&image.manifest.digest, 1 << 20).unwrap()).unwrap();
    assert_eq!((config.rootfs.diff_ids.len(), config.history.len(), manifest.layers.len()), (2, 2, 2));
    assert!(manifest.layers[0].media_type.ends_with("tar+gzip") && manifest.layers[1].media_type.ends_with("tar+zstd"));
    let inner = config.config.unwrap();
    assert_eq!(
        (inner.env, inner.cmd.unwrap(), inner.labels["x"].as_str()),
        (vec!["A=b".to_owned()], vec!["/bin/x".to_owned()], "y")
    );
    let last = config.history.last().unwrap();
    assert_eq!(
        (last.comment.as_deref(), last.author.as_deref(), last.empty_layer),
        (Some("a message"), Some("somebody"), false)
    );
    // Without changes there is a step of history and no layer.
    snapshots.create("idle", &base.diff_ids(), true).unwrap();
    let make = Commit { parent: Some(&base), ..Commit::default() };
    let image = commit(&content, &lease, &snapshots, "idle", &make).unwrap();
    let config: ImageConfig = serde_json::from_slice(&content.read(&image.id, 1 << 20).unwrap()).unwrap();
    assert_eq!((config.rootfs.diff_ids.len(), config.history[1].empty_layer, image.layers.len()), (1, true, 1));
    let bad = ["RUN x".to_owned()];
    let error = commit(
        &content,
        &lease,
        &snapshots,
        "idle",
        &Commit { parent: Some(&base), changes: &bad, ..Commit::default() },
    );
    assert!(error.unwrap_err().to_string().contains("run is not a valid change command"));
    snapshots.remove("base").unwrap();
    snapshots.remove("c").unwrap();
    snapshots.remove("idle").unwrap();
}

/// A name that a layer could only read as a deletion, and a path that no archive can have.
#[test]
fn what_no_layer_can_say_is_refused() {
    if !privileged() {
        return;
    }
    let temp = Temp::new("refused");
    let content = Store::open(&temp.0).unwrap();
    let lease = content.lease().unwrap();
    let snapshots = Snapshots::open(&temp.0, Some("overlay2")).unwrap();
    snapshots.create("c", &[], true).unwrap();
    let merged = snapshots.mount("c").unwrap();
    fs::create_dir(merged.join("d")).unwrap();
    fs::write(merged.join("d/.wh.passwd"), "").unwrap();
    let error = commit(&content, &lease, &snapshots, "c", &Commit::default()).unwrap_err().to_string();
    assert!(error.contains("d/.wh.passwd") && error.contains("begins with .wh."), "{error}");
    snapshots.remove("c").unwrap();
}

/// `export` has everything, the init layer's files and what is mounted or not alike.
#[test]
fn an_export_is_the_whole_tree() {
    if !privileged() {
        return;
    }
    let temp = Temp::new("export");
    for driver in ["overlay2", "copy"] {
        let snapshots = Snapshots::open(&temp.0.join(driver), Some(driver)).unwrap();
        layer(&snapshots, &[digest(1)], |path| drop(shell(path, IMAGE)));
        snapshots.create("c", &[digest(1)], true).unwrap();
        let merged = snapshots.mount("c").unwrap();
        shell(&merged, "rm -r gone; echo new >new; ln new dir/new2");
        let pack = |out: &mut Vec<u8>| export(&snapshots, "c", out, &PackOptions { latest: Some(0) }).unwrap();
        let (mut mounted, mut unmounted) = (Vec::new(), Vec::new());
        let packed = pack(&mut mounted);
        snapshots.unmount("c").unwrap();
        assert_eq!(pack(&mut unmounted), packed);
        assert!(mounted == unmounted, "{driver}");
        fs::write(temp.0.join("root.tar"), &mounted).unwrap();
        let list = shell(&temp.0, "tar --list --verbose --file root.tar");
        for line in ["dir/sub/x", ".dockerenv", "etc/mtab -> /proc/mounts", "hard2 link to hard1", "proc/"] {
            assert!(list.lines().any(|l| l.ends_with(line)), "{driver}: {line} in\n{list}");
        }
        assert!(list.contains("link to dir/new2") && !list.contains("gone"), "{list}");
        let mut image = Vec::new();
        export_image(&snapshots, &[digest(1)], &mut image, &PackOptions::default()).unwrap();
        assert!(image.len() > 10_000 && !image.windows(10).any(|w| w == b".dockerenv"));
        snapshots.remove("c").unwrap();
    }
}
