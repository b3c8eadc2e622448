//! Symlinks at either end of a bind mount: `copy-symlink`, `src-nofollow` and `dest-nofollow`, which are crun's.

use std::fs;
use std::os::unix::fs::symlink;

use runtime_tests::{Container, Output, known, run};
use serde_json::{Value, json};

/// In the bundle: `file` and `dir`, and a symlink to each and one to nothing.
fn container() -> Container {
    let c = Container::new();
    fs::write(c.dir.join("file"), "of the host").expect("file");
    fs::create_dir(c.dir.join("dir")).expect("directory");
    for (target, name) in [("file", "to-file"), ("dir", "to-dir"), ("no/where", "to-nothing")] {
        symlink(target, c.dir.join(name)).expect("symlink");
    }
    c
}

fn bind(c: &Container, source: &str, destination: &str, options: &[&str]) -> Value {
    json!({ "source": c.dir.join(source), "destination": destination, "type": "bind", "options": options })
}

fn with(c: Container, source: &str, destination: &str, options: &[&str]) -> Container {
    let mount = bind(&c, source, destination, options);
    c.with("/mounts/-", mount)
}

#[test]
fn a_symlink_is_copied() {
    known!("runc", "*", "an option of crun's");
    let c = with(container(), "to-nothing", "/a/new/link", &["rbind", "copy-symlink"]);
    // It is there already, and the same.
    symlink("no/where", c.path("same")).expect("symlink");
    let c = with(c, "to-nothing", "/same", &["bind", "copy-symlink", "ro"]);
    // The place of a file is a file.
    let c = with(c, "file", "/file", &["bind", "copy-symlink", "ro"]);
    let c = c.sh(
        "readlink /a/new/link; readlink /same; cat /file; grep -c -e ' /file ' -e /same -e /a/new /proc/self/mounts",
    );
    assert_eq!(c.run(&[]).ok().stdout, "no/where\nno/where\nof the host1\n");
}

#[test]
fn a_symlink_is_not_copied_over_something_else() {
    known!("runc", "*", "an option of crun's");
    let refused = |c: Container| {
        let out = with(c, "to-nothing", "/there", &["bind", "copy-symlink"]).create(&[]);
        let expected = "is there and is not a symlink to";
        assert!(out.code == 1 && out.stderr.contains(expected) && out.stderr.contains("destination: "), "{out}");
    };
    let c = container();
    fs::write(c.path("there"), "").expect("file");
    refused(c);
    let c = container();
    symlink("else/where", c.path("there")).expect("symlink");
    refused(c);
}

#[test]
fn a_symlink_is_copied_into_the_root_only() {
    known!("runc", "*", "an option of crun's");
    let c = container();
    let outside = c.dir.join("dir");
    symlink(&outside, c.path("out")).expect("symlink");
    let c = with(c, "to-file", "/out/link", &["bind", "copy-symlink"]).args(&["true"]);
    c.run(&[]).ok();
    assert!(fs::read_dir(&outside).expect("directory").next().is_none(), "made on the host");
}

#[test]
fn a_symlink_itself_is_mounted() {
    known!("runc", "*", "an option of crun's");
    // Over a file that is made, and over the image's own symlink.
    let c = with(container(), "to-file", "/link", &["bind", "src-nofollow"]);
    symlink("of/the/image", c.path("taken")).expect("symlink");
    let c = with(c, "to-dir", "/taken", &["bind", "src-nofollow", "dest-nofollow"]);
    let c = c.sh("readlink /link; readlink /taken; grep -c -e ' /link ' -e ' /taken ' /proc/self/mounts");
    assert_eq!(c.run(&[]).ok().stdout, "file\ndir\n2\n");
    assert_eq!(fs::read_link(c.path("taken")).expect("symlink").to_str(), Some("of/the/image"));
}

#[test]
fn a_symlink_of_the_image_is_covered() {
    known!("runc", "*", "an option of crun's");
    let c = container();
    fs::write(c.path("target"), "of the image").expect("file");
    symlink("target", c.path("link")).expect("symlink");
    let c = with(c, "to-file", "/link", &["bind", "dest-nofollow"]).sh("cat /link /target");
    assert_eq!(c.run(&[]).ok().stdout, "of the hostof the image");
    for (source, place, expected) in [
        ("file", "/no/such", "ENOENT"),
        ("dir", "/link", "is not a directory, and the source is one"),
        ("file", "/bin", "is a directory, and the source is a file"),
        ("file", "/proc/self", "cannot be mounted because it is inside /proc"),
        ("file", "/sys/kernel/uevent_seqnum", "belongs to the kernel"),
    ] {
        let c = container();
        symlink("target", c.path("link")).expect("symlink");
        let out = with(c, source, place, &["bind", "dest-nofollow"]).create(&[]);
        assert!(out.code == 1 && out.stderr.contains(expected), "{place}: {out}");
    }
}

#[test]
fn a_source_in_the_root_is_taken_literally_at_its_end_only() {
    known!("runc", "*", "an option of crun's");
    let c = container();
    fs::create_dir(c.path("in")).expect("directory");
    symlink("/proc", c.path("in/link")).expect("symlink");
    symlink("in", c.path("way")).expect("symlink");
    let c = with(c, "rootfs/in/link", "/copy", &["bind", "copy-symlink"]);
    let c = with(c, "rootfs/in/link", "/mounted", &["bind", "src-nofollow"]).sh("readlink /copy; readlink /mounted");
    assert_eq!(c.run(&[]).ok().stdout, "/proc\n/proc\n");
    let c = with(c, "rootfs/way/link", "/other", &["bind", "src-nofollow"]);
    let out = c.create(&[]);
    assert!(out.code == 1 && out.stderr.contains("goes through a symlink"), "{out}");
}

#[test]
fn of_a_running_container() {
    known!("runc", "*", "no `mounts`");
    let c = container();
    symlink("of/the/image", c.path("link")).expect("symlink");
    let c = c.idle().up();
    let mounts = |verb: &str, options: &[&str]| -> Output {
        fs::write(c.dir.join("list"), json!([bind(&c, "to-file", "/link", options)]).to_string()).expect("list");
        run(&mut c.command("mounts", &[verb], &["list"]), &c.dir)
    };
    mounts("add", &["bind", "src-nofollow", "dest-nofollow"]).ok();
    assert_eq!(c.exec(&[], &["readlink", "/link"]).ok().stdout, "file\n");
    mounts("remove", &["dest-nofollow"]).ok();
    assert_eq!(c.exec(&[], &["readlink", "/link"]).ok().stdout, "of/the/image\n");
    let out = mounts("add", &["bind", "copy-symlink"]);
    assert!(out.code == 1 && out.stderr.contains("mounts[0]: copy-symlink on a running container"), "{out}");
}

#[test]
fn they_are_advertised_and_exclude_each_other() {
    known!("runc", "*", "options of crun's");
    let mut call = std::process::Command::new(&runtime_tests::runtime().path);
    let features = run(call.arg("features"), &container().dir).json();
    let options = features["mountOptions"].as_array().expect("list");
    for option in ["copy-symlink", "dest-nofollow", "src-nofollow"] {
        assert!(options.contains(&json!(option)), "{option}");
    }
    let out = with(container(), "file", "/x", &["bind", "copy-symlink", "src-nofollow"]).create(&[]);
    assert!(
        out.code == 1 && out.stderr.contains(".options: copy-symlink") && out.stderr.contains("remove one"),
        "{out}"
    );
    let out = container().mount("/x", "tmpfs", "tmpfs", &["dest-nofollow"]).create(&[]);
    assert!(out.code == 1 && out.stderr.contains("for bind mounts only"), "{out}");
}
