//! Layers that attack: each must be refused, or stay in its directory, and never touch what is outside.

#![forbid(unsafe_code)]

mod archive;
mod scratch;

use archive::Archive;
use rrt_images::layer::{Options, Whiteouts};
use scratch::Scratch;
use std::fs;

const ALL: [Whiteouts; 4] = [Whiteouts::Overlay, Whiteouts::OverlayUser, Whiteouts::Apply, Whiteouts::Keep];

/// Unpacks in each way. Whatever happens, outside stays as it was. Returns what happened with [`Whiteouts::Overlay`], and there.
fn attack(archive: impl Fn(&Scratch) -> Archive) -> (Result<(), String>, Scratch) {
    let mut first = None;
    for whiteouts in ALL {
        let scratch = Scratch::new();
        let bytes = archive(&scratch).end();
        let before = scratch.outside();
        let result = scratch.unpack(&bytes, whiteouts, &Options::default());
        assert_eq!(scratch.outside(), before, "{whiteouts:?}: {result:?}");
        first.get_or_insert((result.map(drop).map_err(|e| e.to_string()), scratch));
    }
    first.unwrap()
}

fn refused(why: &str, archive: impl Fn(&Scratch) -> Archive) {
    let error = attack(archive).0.unwrap_err();
    assert!(error.starts_with("entry \"") && error.contains(why), "{error}");
}

fn contained(archive: impl Fn(&Scratch) -> Archive) -> Scratch {
    let (result, scratch) = attack(archive);
    result.unwrap();
    scratch
}

/// From the layer's directory up to the file system's root and down again.
fn outside_by_dots(scratch: &Scratch) -> String {
    format!("{}{}", "../".repeat(40), scratch.path().join("outside").to_str().unwrap().trim_start_matches('/'))
}

fn outside(scratch: &Scratch) -> String {
    scratch.path().join("outside").to_str().unwrap().to_owned()
}

#[test]
fn cve_2001_1267_names_with_dots() {
    refused("it leaves the layer's directory", |_| Archive::new().file("../outside/file", b"x"));
    refused("it leaves the layer's directory", |_| Archive::new().file("a/../../outside/file", b"x"));
    refused("it leaves the layer's directory", |_| Archive::new().directory("a").directory("./a/b/../../../outside"));
    refused("it leaves the layer's directory", |_| Archive::new().directory(".."));
    refused("it leaves the layer's directory", |s| Archive::new().file(&outside_by_dots(s), b"x"));
}

#[test]
fn zip_slip_absolute_names_are_below_the_layer() {
    let scratch = contained(|s| Archive::new().file(&format!("{}/file", outside(s)), b"x"));
    let inside = scratch.layer().join(outside(&scratch).trim_start_matches('/')).join("file");
    assert_eq!(fs::read(inside).unwrap(), b"x");
    contained(|s| Archive::new().file(&format!("/../..{}/file", outside(s)), b"x"));
}

#[test]
fn cve_2016_6321_dots_are_taken_back_by_name_and_not_on_disk() {
    let scratch = contained(|s| Archive::new().symlink("a", &outside(s)).file("a/../b", b"x"));
    assert!(scratch.layer().join("b").exists());
}

#[test]
fn cve_2018_15664_and_cve_2014_9356_an_entry_below_a_symlink() {
    // Nothing of that name is in the layer, so the link leads nowhere.
    let error = attack(|s| Archive::new().symlink("a", &outside(s)).file("a/file", b"x")).0.unwrap_err();
    assert!(error.contains(r#"entry "a/file""#), "{error}");
    refused("", |s| Archive::new().symlink("a", &outside_by_dots(s)).file("a/file", b"x"));
    refused("", |s| Archive::new().symlink("a", &outside(s)).directory("a/d"));
    refused("", |s| Archive::new().symlink("a", &outside(s)).symlink("a/l", "x"));
    refused("", |s| Archive::new().symlink("a", &outside(s)).fifo("a/p"));
    refused("", |s| Archive::new().symlink("a", &outside(s)).device("a/n", b'3', 1, 3));
    // In its parent's directory, and through several.
    contained(|_| Archive::new().symlink("up", "..").file("up/outside/file", b"x"));
    contained(|_| Archive::new().symlink("a", "b").symlink("b", "../../..").file("a/outside/file", b"x"));
    contained(|_| {
        Archive::new().directory("d").symlink("d/l", "../../outside").directory("outside").file("d/l/file", b"x")
    });
}

#[test]
fn a_directory_entry_over_a_symlink_replaces_it() {
    let scratch =
        contained(|s| Archive::new().symlink("a", &outside(s)).mode(0o777).directory("a").file("a/file", b"x"));
    assert!(scratch.layer().join("a").symlink_metadata().unwrap().is_dir());
}

#[test]
fn a_file_over_a_symlink_is_not_written_through_it() {
    let scratch = contained(|s| Archive::new().symlink("a", &format!("{}/file", outside(s))).file("a", b"x"));
    assert!(scratch.layer().join("a").symlink_metadata().unwrap().is_file());
    contained(|s| Archive::new().symlink("a", &format!("{}/file", outside(s))).hard_link("b", "a").file("b", b"x"));
}

#[test]
fn a_parent_that_becomes_a_symlink_between_two_entries() {
    // The open directory of the first must not serve the second, nor the other way round.
    let scratch = contained(|s| {
        Archive::new().directory("a").file("a/1", b"").symlink("a", &outside(s)).directory("a").file("a/file", b"x")
    });
    assert_eq!(scratch.names("a"), ["file"]);
    refused("", |s| Archive::new().directory("a").file("a/1", b"").symlink("a", &outside(s)).file("a/file", b"x"));
    refused("", |s| Archive::new().file("a/b/1", b"").symlink("a", &outside(s)).file("a/b/file", b"x"));
}

#[test]
fn the_times_and_modes_of_directories_are_not_set_through_symlinks() {
    // They are set at the end, when something else may stand there.
    contained(|s| Archive::new().mode(0o4777).owner(7, 7).directory("a").symlink("a", &outside(s)));
    contained(|s| {
        Archive::new()
            .mode(0o4777)
            .xattr("user.x", b"")
            .directory("a/b")
            .symlink("a", &outside(s).replace("/outside", ""))
    });
}

#[test]
fn cve_2014_6407_hard_links_to_outside() {
    refused("it is a hard link to", |_| Archive::new().hard_link("a", "../outside/file"));
    refused("make the hard link to", |s| Archive::new().hard_link("a", &format!("{}/file", outside(s))));
    refused("make the hard link to", |s| Archive::new().symlink("l", &outside(s)).hard_link("a", "l/file"));
    refused("make the hard link to", |s| {
        Archive::new().symlink("l", &outside_by_dots(s)).hard_link("a", "l/file").file("a", b"x")
    });
    refused("make the hard link to", |_| Archive::new().symlink("l", "/proc/self/root").hard_link("a", "l/etc/passwd"));
}

#[test]
fn cve_2021_32760_a_hard_links_mode_reaches_nothing() {
    contained(|s| {
        Archive::new().symlink("s", &format!("{}/file", outside(s))).mode(0o6777).owner(7, 7).hard_link("h", "s")
    });
}

#[test]
fn cve_2021_29136_the_layers_directory_itself_as_a_symlink() {
    for name in [".", "./", "/", "a/..", "///"] {
        refused("it is the layer's directory, but no directory", |s| {
            Archive::new().symlink(name, &outside(s)).file("file", b"x")
        });
        refused("it is the layer's directory, but no directory", |_| Archive::new().file(name, b"x"));
        refused("it is the layer's directory, but no directory", |_| {
            Archive::new().file("f", b"").hard_link(name, "f")
        });
    }
}

#[test]
fn whiteouts_of_outside() {
    for name in [".wh...", ".wh..", ".wh.", "d/.wh...", "d/.wh.."] {
        let archive = Archive::new().directory("d").file(name, b"").end();
        for whiteouts in [Whiteouts::Overlay, Whiteouts::OverlayUser, Whiteouts::Apply] {
            let scratch = Scratch::new();
            let before = scratch.outside();
            let error = scratch.unpack(&archive, whiteouts, &Options::default()).unwrap_err().to_string();
            assert!(error.contains("it is a whiteout of nothing that can be"), "{name}: {error}");
            assert_eq!(scratch.outside(), before);
        }
    }
    let below = |s: &Scratch, name: &str| Archive::new().symlink("a", &outside(s)).symlink("up", "..").file(name, b"");
    let _ = attack(|s| below(s, "a/.wh.file"));
    let _ = attack(|s| below(s, "a/.wh..wh..opq"));
    let _ = attack(|s| below(s, "up/.wh.outside"));
    let _ = attack(|s| below(s, "up/.wh..wh..opq"));
    let _ = attack(|s| Archive::new().symlink("a", &outside(s)).file(".wh.a", b""));
    let _ = attack(|s| Archive::new().directory("d").symlink("d/a", &outside(s)).file(".wh.d", b"").file("d", b""));
    let error = attack(|_| Archive::new().file(".wh.d/f", b"")).0.unwrap_err();
    assert!(error.contains("below a whiteout"), "{error}");
}

#[test]
fn a_tree_with_links_to_outside_is_replaced() {
    contained(|s| {
        let to = outside(s);
        Archive::new()
            .directory("d")
            .symlink("d/a", &to)
            .symlink("d/b", &format!("{to}/file"))
            .directory("d/e")
            .file("d", b"")
    });
}

#[test]
fn cve_2019_14271_nothing_of_the_layer_is_run_or_asked() {
    // Docker's helper loaded the layer's name service library, to look up names of owners.
    let library = |s: Archive, name| s.mode(0o755).file(name, b"\x7fELF");
    let archive = |_: &Scratch| {
        let archive =
            Archive::new().file("etc/nsswitch.conf", b"passwd: evil\n").file("etc/passwd", b"root:x:7:7::/:\n");
        library(library(archive, "lib/x86_64-linux-gnu/libnss_evil.so.2"), "usr/bin/xz").owner(0, 0).file("f", b"")
    };
    contained(archive);
}

#[test]
fn links_through_proc_lead_nowhere() {
    refused("", |_| Archive::new().symlink("a", "/proc/self/cwd").file("a/file", b"x"));
    refused("", |_| Archive::new().symlink("a", "/proc/self/fd/3").file("a/file", b"x"));
}

#[test]
fn circles_of_symlinks_end() {
    refused("it is below symbolic links that lead nowhere", |_| {
        Archive::new().symlink("a", "b").symlink("b", "a").file("a/file", b"x")
    });
    refused("", |_| Archive::new().symlink("a", "a/a").directory("a/b/c"));
}

#[test]
fn hard_links_to_themselves_and_to_directories() {
    refused("make the hard link to", |_| Archive::new().file("a", b"").hard_link("a", "a"));
    refused("make the hard link to", |_| Archive::new().file("a", b"").hard_link("./a", "/a"));
    refused("make the hard link to", |_| Archive::new().directory("d").hard_link("a", "d"));
    refused("make the hard link to", |_| Archive::new().hard_link("a", "."));
}

#[test]
fn a_file_as_a_parent() {
    refused("what it is below is no directory", |_| Archive::new().file("a", b"").file("a/b", b""));
    refused("what it is below is no directory", |_| Archive::new().fifo("a").directory("a/b/c"));
}

#[test]
fn names_that_no_file_system_has() {
    refused("File name too long", |_| Archive::new().file(&"x".repeat(256), b""));
    refused("its name has 5000 bytes", |_| Archive::new().file(&"x/".repeat(2500), b""));
    refused("there is no device", |_| Archive::new().device("d", b'3', 4096, 0));
    refused("there is no device", |_| Archive::new().device("d", b'4', 1, 1 << 20));
    refused("File too large", |_| {
        Archive::new().pax("GNU.sparse.size", b"9000000000000000000").pax("GNU.sparse.map", b"0,0").file("s", b"")
    });
}

#[test]
fn deep_trees_take_no_stack() {
    let deep = "d/".repeat(2000);
    contained(|_| (0..2).fold(Archive::new(), |a, n| a.file(&format!("{n}/{deep}f"), b"")));
    // One that is replaced is removed level by level, and refused when they are too many.
    contained(|_| Archive::new().file(&format!("{}f", "d/".repeat(150)), b"").file("d", b""));
    refused("remove what is there already", |_| Archive::new().file(&format!("{deep}f"), b"").file("d", b""));
}

#[test]
fn cve_2017_14992_much_data_takes_little_memory() {
    // What follows the archive's end counts for its length.
    let archive = [Archive::new().file("a", b"").end(), vec![0; 300 << 20]].concat();
    let compressed = zstd::encode_all(archive.as_slice(), 1).unwrap();
    drop(archive);
    let scratch = Scratch::new();
    let options = Options { max_size: 100 << 20, ..Options::default() };
    let error = scratch.unpack(&compressed, Whiteouts::Overlay, &options).unwrap_err().to_string();
    assert!(error.contains("more than 104857600 bytes"), "{error}");
}

#[test]
fn cve_2025_58183_a_sparse_map_has_an_end() {
    let map = b"99999999999\n".iter().chain(b"0\n1\n".iter().cycle()).take(1 << 20).copied().collect::<Vec<_>>();
    refused("more than 1048576 parts", |_| {
        Archive::new().pax("GNU.sparse.major", b"1").pax("GNU.sparse.minor", b"0").file("s", &map)
    });
}

#[test]
fn many_directories_take_bounded_memory() {
    // More than are kept for the end: their times are set early, and again.
    let name = "x".repeat(200);
    let mut archive = Archive::new().mtime(77);
    for number in 0..9000 {
        archive = archive.directory(&format!("{name}/{name}/{name}/{name}/{number}")[..]);
        if number % 100 == 0 {
            archive = archive.directory(&format!("p{}", number / 100));
        }
    }
    let archive = archive.directory(&name).directory("late").file("p0/f", b"").file(&format!("{name}/f"), b"");
    let bytes = archive.end();
    let repeated = (0..5).fold(Archive::new(), |a, _| a.bytes(&bytes[..bytes.len() - 1024]));
    let scratch = Scratch::new();
    scratch.unpack(&repeated.file("p1/f", b"").end(), Whiteouts::Overlay, &Options::default()).unwrap();
    let time = |name: &str| {
        use std::os::unix::fs::MetadataExt;
        scratch.layer().join(name).metadata().unwrap().mtime()
    };
    for directory in ["p0", "p1", "p89", "late", name.as_str()] {
        assert_eq!(time(directory), 77, "{directory}");
    }
}

#[test]
fn names_in_messages_are_escaped() {
    let error = attack(|_| Archive::new().file("../\x1b]0;evil\x07", b"")).0.unwrap_err();
    assert!(!error.contains('\x1b') && error.contains(r"\u{1b}]0;evil"), "{error}");
}
