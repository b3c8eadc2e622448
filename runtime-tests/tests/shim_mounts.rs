//! Root file systems as containerd's snapshotters describe them in a `Create` request: layers, images in files, mapped owners.
//! What is asked of containerd's own shim (`SHIM=`) is so with that of containerd 2; that of 1.6 has no mapped owners, no `direct-io` and no targets.

use runtime_tests::shim::{Shim, Streams, command, is_our_shim, reader};
use runtime_tests::wire::{Message, Status};
use runtime_tests::{Container, assert_nothing_left, skip, until};
use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

/// A `Mount`.
fn mount(kind: &str, source: &str, target: &str, options: &[&str]) -> Message {
    let message = Message::new().text(1, kind).text(2, source).text(3, target);
    options.iter().fold(message, |message, option| message.text(4, option))
}

/// An overlay over the container's own root file system.
fn overlay(c: &Container, options: &[&str]) -> Message {
    for dir in ["upper", "work"] {
        let _ = fs::create_dir(c.dir.join(dir));
    }
    let layers = [
        format!("lowerdir={}", c.path("/").display()),
        format!("upperdir={}", c.dir.join("upper").display()),
        format!("workdir={}", c.dir.join("work").display()),
    ];
    let all: Vec<&str> = layers.iter().map(String::as_str).chain(options.iter().copied()).collect();
    mount("overlay", "overlay", "", &all)
}

/// Runs the container on these mounts; what it prints, by the end of which all is taken down.
#[track_caller]
fn output_on(c: &mut Container, mounts: &[Message]) -> String {
    let mut shim = Shim::start(c);
    let streams = Streams::fifos(c, "init", false);
    let (out, err) = (reader(&streams.stdout), reader(&streams.stderr));
    let request = shim.create_request(c, &streams);
    let request = mounts.iter().fold(request, |request, one| request.message(3, one));
    shim.client.call("Create", &request).expect("Create");
    shim.simple("Start");
    let status = shim.wait("");
    shim.finish();
    let (out, err) = (out.join().expect("the reader"), err.join().expect("the reader"));
    assert_eq!(status, 0, "{}", String::from_utf8_lossy(&err));
    assert_no_mount(c);
    String::from_utf8(out).expect("text")
}

/// The error of a `Create` on these mounts, after which nothing is mounted.
#[track_caller]
fn refused(c: &mut Container, mounts: &[Message]) -> Status {
    let mut shim = Shim::start(c);
    let request = shim.create_request(c, &Streams::default());
    let request = mounts.iter().fold(request, |request, one| request.message(3, one));
    let error = shim.client.call("Create", &request).expect_err("an error");
    assert_no_mount(c);
    shim.shutdown();
    error
}

#[track_caller]
fn assert_no_mount(c: &Container) {
    let mounts = fs::read_to_string("/proc/self/mountinfo").expect("the mounts");
    let left: Vec<&str> = mounts.lines().filter(|line| line.contains(&*c.dir.to_string_lossy())).collect();
    assert!(left.is_empty(), "{left:#?}");
    assert!(!c.dir.join("idmapped").exists());
}

/// An image file of the container's root file system. `None`: this machine has not the program that makes it.
fn image(c: &Container, program: &str, args: &[&str]) -> Option<PathBuf> {
    let file = c.dir.join("image");
    fs::write(c.path("/in-the-image"), "from the image\n").expect("a file");
    let mut make = Command::new(program);
    let root = c.path("/").display().to_string();
    let args = args.iter().map(|arg| arg.replace("ROOT", &root).replace("FILE", &file.display().to_string()));
    let output = make.args(args).output().ok()?;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    // What is found afterwards is not the directory's.
    fs::remove_file(c.path("/in-the-image")).expect("the file");
    Some(file)
}

/// The device goes with the container, when the kernel has come to it.
#[track_caller]
fn assert_no_loop_of(file: &Path) {
    until("no loop device of the image", || {
        let devices = fs::read_dir("/sys/block").expect("/sys/block").flatten();
        let mut backing = devices.filter_map(|e| fs::read_to_string(e.path().join("loop/backing_file")).ok());
        !backing.any(|name| name.trim() == file.to_string_lossy())
    });
}

const EXT4: [&str; 6] = ["-q", "-d", "ROOT", "FILE", "64M", "-F"];

#[test]
fn a_block_file_that_is_written_to() {
    let mut c = Container::new().sh("cat /in-the-image; echo kept >/written; sync");
    let Some(file) = image(&c, "mkfs.ext4", &EXT4) else { skip!("no mkfs.ext4") };
    let entry = |options: &[&str]| mount("ext4", &file.to_string_lossy(), "", options);
    assert_eq!(output_on(&mut c, &[entry(&["loop"])]), "from the image\n");
    assert_no_loop_of(&file);
    // Read-only, so is the device; and with the file read past the page cache.
    let mut again = Container::new().sh("cat /written; ! echo x 2>/dev/null >/other");
    assert_eq!(output_on(&mut again, &[entry(&["ro", "loop", "direct-io"])]), "kept\n");
    assert_no_loop_of(&file);
}

#[test]
fn an_image_of_erofs() {
    let mut c = Container::new().sh("cat /in-the-image; ! echo x 2>/dev/null >/other");
    let Some(file) = image(&c, "mkfs.erofs", &["--quiet", "FILE", "ROOT"]) else { skip!("no mkfs.erofs") };
    assert_eq!(output_on(&mut c, &[mount("erofs", &file.to_string_lossy(), "", &["ro", "loop"])]), "from the image\n");
    assert_no_loop_of(&file);
}

#[test]
fn eight_loop_devices_at_once() {
    let c = Container::new();
    let Some(file) = image(&c, "mkfs.ext4", &EXT4) else { skip!("no mkfs.ext4") };
    let one = |_| {
        let file = file.clone();
        std::thread::spawn(move || {
            let mut c = Container::new().sh("cat /in-the-image");
            output_on(&mut c, &[mount("ext4", &file.to_string_lossy(), "", &["ro", "loop"])])
        })
    };
    let threads: Vec<_> = (0..8).map(one).collect();
    for thread in threads {
        assert_eq!(thread.join().expect("a container"), "from the image\n");
    }
    assert_no_loop_of(&file);
}

const MAPPED: [&str; 2] = ["uidmap=0:100000:65536", "gidmap=0:200000:65536"];

#[test]
fn an_overlay_with_mapped_owners() {
    if !is_our_shim() {
        return; // 1.6 hands the options on to the file system.
    }
    let mut c =
        Container::new().sh("stat -c '%u %g' /mapped; stat -c '%u %g' /of-1000; grep -c idmapped /proc/mounts; true");
    fs::write(c.path("/mapped"), "").expect("a file");
    fs::write(c.path("/of-1000"), "").expect("a file");
    std::os::unix::fs::chown(c.path("/of-1000"), Some(1000), Some(1001)).expect("chown");
    let entry = overlay(&c, &MAPPED);
    assert_eq!(output_on(&mut c, &[entry]), "100000 200000\n101000 201001\n0\n");
    assert_eq!(fs::metadata(c.path("/of-1000")).expect("the file").uid(), 1000, "the layer is as it was");
}

/// Layers whose names are longer than the page that mount(2) reads, and which are mapped.
#[test]
fn many_layers_with_mapped_owners() {
    if !is_our_shim() {
        return;
    }
    let mut c = Container::new().sh("stat -c %u /layer59 /layer0 /bin");
    let layers = c.dir.join("a-directory-for-layers-with-a-name-that-is-as-long-as-those-of-a-snapshotter-are");
    fs::create_dir(&layers).expect("a directory");
    fs::rename(c.path("/"), layers.join("rootfs")).expect("move the root file system");
    let mut lower = vec![layers.join("rootfs").display().to_string()];
    for n in 0..60 {
        let layer = layers.join(n.to_string());
        fs::create_dir_all(&layer).expect("a layer");
        fs::write(layer.join(format!("layer{n}")), "").expect("a file of it");
        lower.push(layer.display().to_string());
    }
    for dir in ["rootfs", "upper", "work"] {
        fs::create_dir(c.dir.join(dir)).expect("a directory");
    }
    let option = format!("lowerdir={}", lower.join(":"));
    assert!(option.len() > 4096);
    let (upper, work) =
        (format!("upperdir={}", c.dir.join("upper").display()), format!("workdir={}", c.dir.join("work").display()));
    let entry = mount("overlay", "overlay", "", &[&option, &upper, &work, MAPPED[0], MAPPED[1]]);
    assert_eq!(output_on(&mut c, &[entry]), "100000\n100000\n100000\n");
}

#[test]
fn a_bind_mount_with_mapped_owners() {
    if !is_our_shim() {
        return;
    }
    let mut c = Container::new().sh("stat -c '%u %g' /mapped; ! echo x 2>/dev/null >/mapped");
    fs::write(c.path("/mapped"), "").expect("a file");
    let root = c.path("/").display().to_string();
    let entry = mount("bind", &root, "", &["rbind", "ro", MAPPED[0], MAPPED[1]]);
    assert_eq!(output_on(&mut c, &[entry]), "100000 200000\n");
}

/// The container's user namespace has the same mapping, so its root owns the files that the host's root has put into the layer.
#[test]
fn a_user_namespace_on_mapped_layers() {
    if !is_our_shim() {
        return;
    }
    let mut c = Container::new().sh("stat -c %u /mapped; echo new >/written && cat /written");
    fs::write(c.path("/mapped"), "").expect("a file");
    c.config["linux"]["namespaces"].as_array_mut().expect("namespaces").push(serde_json::json!({"type": "user"}));
    c.config["linux"]["uidMappings"] = serde_json::json!([{"containerID": 0, "hostID": 100_000, "size": 65536}]);
    c.config["linux"]["gidMappings"] = serde_json::json!([{"containerID": 0, "hostID": 200_000, "size": 65536}]);
    let entry = overlay(&c, &MAPPED);
    // As containerd's snapshotters do it with the directory that is written to.
    std::os::unix::fs::chown(c.dir.join("upper"), Some(100_000), Some(200_000)).expect("chown");
    for dir in [&c.dir, &c.path("/")] {
        fs::set_permissions(dir, std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("chmod");
    }
    assert_eq!(output_on(&mut c, &[entry]), "0\nnew\n");
    assert_eq!(fs::metadata(c.dir.join("upper/written")).expect("the file").uid(), 100_000);
}

#[test]
fn options_that_are_wrong_are_named() {
    if !is_our_shim() {
        return;
    }
    const INVALID: u64 = 3;
    let mut c = Container::new().idle();
    let root = c.path("/").display().to_string();
    let (bind, image) = (mount("bind", &root, "", &["rbind"]), c.dir.join("image"));
    let bad: [(&[&str], &str); 4] = [
        (&[MAPPED[0]], "belong together"),
        (&["uidmap=0:1", MAPPED[1]], "uidmap=0:1: it is CONTAINER-ID:HOST-ID:SIZE"),
        (&[MAPPED[0], "gidmap=all"], "gidmap=all"),
        // The kernel takes no two ranges that overlap.
        (&["uidmap=0:0:9,0:0:9", MAPPED[1]], "write uid_map"),
    ];
    for (options, text) in bad {
        let error = refused(&mut c, &[bind.clone(), mount("bind", &root, "", &[&["bind"], options].concat())]);
        assert!(error.message.contains(text), "{options:?}: {}", error.message);
        assert_eq!(error.code == INVALID, !text.starts_with("write"), "{options:?}: {}", error.message);
    }
    let one_layer = mount("overlay", "overlay", "", &[&["lowerdir=/bin:/usr"], &MAPPED[..]].concat());
    assert!(refused(&mut c, &[one_layer]).message.contains("lowerdir="));
    let missing = mount("ext4", &image.to_string_lossy(), "", &["loop"]);
    let error = refused(&mut c, &[bind.clone(), missing]);
    assert!(error.message.contains("image") && error.message.contains("No such file"), "{}", error.message);
    let fuse = mount("fuse3.fuse-overlayfs", "overlay", "", &[]);
    assert!(refused(&mut c, &[fuse]).message.contains("fuse3.fuse-overlayfs"));
    // A file that is no image: the device is free again.
    fs::write(&image, vec![0; 1 << 16]).expect("a file");
    let error = refused(&mut c, &[mount("ext4", &image.to_string_lossy(), "", &["loop"])]);
    assert!(error.message.contains("mount ext4"), "{}", error.message);
    assert_no_loop_of(&image);
    let mut shim = Shim::start(&mut c);
    shim.create(&c, &Streams::default());
    shim.finish();
}

/// An image may have a symlink where a mount is to be.
#[test]
fn a_target_below_stays_inside() {
    let mut c = Container::new().sh("to be said");
    let host = c.dir.join("of-the-host");
    fs::create_dir_all(host.join("below")).expect("a directory of the host");
    symlink(&host, c.path("/link")).expect("a symlink");
    // In the container the link's target is this.
    let inside = c.path(&host.to_string_lossy());
    fs::create_dir_all(inside.join("below")).expect("a directory of the image");
    fs::write(inside.join("below/covered"), "").expect("a file");
    c.config["process"]["args"][2] = format!("ls -A {}/below", host.display()).into();
    let root = c.path("/").display().to_string();
    let mounts = [mount("bind", &root, "", &["rbind"]), mount("tmpfs", "tmpfs", "link/below", &["size=1m"])];
    assert_eq!(output_on(&mut c, &mounts), "", "what is mounted covers the file");
}

/// A shim that is killed while an overlay is being mounted leaves its layers mounted in the bundle.
#[test]
fn delete_takes_off_the_layers() {
    if !is_our_shim() {
        return;
    }
    let mut c = Container::new().idle();
    let mut shim = Shim::start(&mut c);
    let request = shim.create_request(&c, &Streams::default()).message(3, &overlay(&c, &[]));
    shim.client.call("Create", &request).expect("Create");
    let place = c.dir.join("idmapped");
    fs::create_dir(&place).expect("a directory");
    let none = None::<&str>;
    nix::mount::mount(Some("/usr"), &place, none, nix::mount::MsFlags::MS_BIND, none).expect("a mount");
    shim.kill_shim();
    let output = command(&c, Path::new(""), "delete", b"");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_nothing_left(&c.id, &c.root);
    fs::remove_dir(&place).expect("nothing is mounted there");
    assert_no_mount(&c);
}
