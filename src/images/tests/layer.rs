//! Layers to disk: what each kind of entry becomes. Hostile ones are in layer_hostile.rs.

#![forbid(unsafe_code)]

mod archive;
mod scratch;

use archive::Archive;
use rrt_images::layer::{Compression, Error, IdRange, Options, Owners, Target, Unpacked, Whiteouts, unpack};
use rustix::fs::Mode;
use scratch::Scratch;
use std::fs;
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};

fn overlay(scratch: &Scratch, archive: Archive) -> Unpacked {
    scratch.unpack(&archive.end(), Whiteouts::Overlay, &Options::default()).unwrap()
}

#[test]
fn files_and_directories_have_their_attributes() {
    let scratch = Scratch::new();
    overlay(
        &scratch,
        Archive::new()
            .directory("./")
            .mode(0o1777)
            .directory("tmp/")
            .mode(0o2751)
            .owner(7, 8)
            .directory("d/")
            .mode(0o4711)
            .owner(1, 2)
            .file("d/f", b"data")
            .mode(0)
            .file("d/none", b"")
            .mode(0o6666)
            .file("d/all", b"")
            .mode(0)
            .directory("d/closed")
            .file("d/closed/f", b"1")
            .pax("mtime", b"1234567890.123456789")
            .file("d/g", b"")
            .symlink("d/s", "anything at all")
            .fifo("d/p"),
    );
    let look = |path: &str| {
        let metadata = scratch.layer().join(path).symlink_metadata().unwrap();
        (metadata.mode() & 0o7777, metadata.uid(), metadata.gid(), metadata.mtime())
    };
    assert_eq!(look("tmp"), (0o1777, 0, 0, 1_000_000_000));
    assert_eq!(look(""), (0o755, 0, 0, 1_000_000_000));
    assert_eq!(look("d"), (0o2751, 7, 8, 1_000_000_000), "its time is set after its files");
    assert_eq!(look("d/f"), (0o4711, 1, 2, 1_000_000_000), "not the group of a set-group-id directory");
    assert_eq!(look("d/none"), (0, 0, 0, 1_000_000_000));
    assert_eq!(look("d/all"), (0o6666, 0, 0, 1_000_000_000), "no umask");
    assert_eq!(look("d/closed"), (0, 0, 0, 1_000_000_000));
    assert_eq!(look("d/s"), (0o777, 0, 0, 1_000_000_000));
    assert_eq!(look("d/p").0, 0o644);
    assert!(scratch.layer().join("d/p").symlink_metadata().unwrap().file_type().is_fifo());
    assert_eq!(scratch.layer().join("d/g").metadata().unwrap().mtime_nsec(), 123456789);
    assert_eq!(fs::read_link(scratch.layer().join("d/s")).unwrap().to_str(), Some("anything at all"));
    assert_eq!(fs::read(scratch.layer().join("d/f")).unwrap(), b"data");
}

#[test]
fn both_digests_are_those_of_the_whole_stream() {
    let archive = [Archive::new().file("a", &[7; 700_000]).end(), b"more after the end".repeat(50_000)].concat();
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&archive).unwrap();
    let gzip = gzip.finish().unwrap();
    let zstd = zstd::encode_all(archive.as_slice(), 1).unwrap();
    let digest = |bytes: &[u8]| {
        use sha2::Digest as _;
        rrt_oci::image::Digest::sha256(&sha2::Sha256::digest(bytes).into())
    };
    for (compressed, compression) in
        [(&archive, Compression::None), (&gzip, Compression::Gzip), (&zstd, Compression::Zstd)]
    {
        let scratch = Scratch::new();
        let options = Options { digest_input: true, ..Options::default() };
        let unpacked = scratch.unpack(compressed, Whiteouts::Overlay, &options).unwrap();
        assert_eq!(unpacked.diff_id, digest(&archive), "{compression}");
        assert_eq!(unpacked.digest, Some(digest(compressed)), "{compression}");
        assert_eq!((unpacked.size, unpacked.compressed_size), (archive.len() as u64, compressed.len() as u64));
        assert_eq!((unpacked.compression, unpacked.applied.entries), (compression, 1));
        assert_eq!(fs::read(scratch.layer().join("a")).unwrap(), [7; 700_000]);
    }
}

#[test]
fn devices_and_special_names() {
    let scratch = Scratch::new();
    let long = format!("{}end", "component/".repeat(40));
    let odd = "a\nb\t\u{e9}\\ *";
    overlay(
        &scratch,
        Archive::new()
            .device("null", b'3', 1, 3)
            .device("loop", b'4', 7, 300)
            .file(&long, b"1")
            .file(odd, b"2")
            .file("....", b"3")
            .file("dev/console", b"4")
            .symlink("link", &long),
    );
    let null = scratch.layer().join("null").metadata().unwrap();
    assert!(null.file_type().is_char_device() && null.rdev() == rustix::fs::makedev(1, 3));
    let block = scratch.layer().join("loop").metadata().unwrap();
    assert!(block.file_type().is_block_device() && block.rdev() == rustix::fs::makedev(7, 300));
    for (name, data) in [(long.as_str(), b"1"), (odd, b"2"), ("....", b"3"), ("dev/console", b"4"), ("link", b"1")] {
        assert_eq!(fs::read(scratch.layer().join(name)).unwrap(), data, "{name:?}");
    }
}

#[test]
fn hard_links_are_one_file() {
    let scratch = Scratch::new();
    let archive = Archive::new()
        .mode(0o600)
        .file("a", b"data")
        .symlink("s", "a")
        .mode(0o777)
        .hard_link("d/b", "a")
        .hard_link("c", "/d/b")
        .hard_link("t", "./s");
    overlay(&scratch, archive);
    let inode = |name: &str| scratch.layer().join(name).symlink_metadata().unwrap().ino();
    assert!(inode("a") == inode("d/b") && inode("a") == inode("c"));
    assert_eq!(inode("s"), inode("t"), "a link to a symbolic link is one to the link, not through it");
    assert_eq!(scratch.layer().join("a").metadata().unwrap().mode() & 0o777, 0o600);
    let error = scratch.refused(Archive::new().hard_link("x", "missing"));
    assert!(error.starts_with(r#"entry "x" at offset 0: make the hard link to "missing": No such file"#), "{error}");
}

#[test]
fn what_comes_later_replaces_what_was_before() {
    let scratch = Scratch::new();
    overlay(
        &scratch,
        Archive::new()
            .directory("d")
            .file("d/in", b"1")
            .directory("d/sub")
            .file("d", b"file over directory")
            .file("f", b"1")
            .directory("f")
            .file("f/in", b"directory over file")
            .symlink("s", "f")
            .directory("s")
            .file("s/in", b"directory over link")
            .file("twice", b"long enough")
            .file("twice", b"2")
            .directory("both")
            .file("both/in", b"stays")
            .mode(0o700)
            .directory("both"),
    );
    let read = |name: &str| fs::read_to_string(scratch.layer().join(name)).unwrap();
    assert_eq!(read("d"), "file over directory");
    assert_eq!(read("f/in"), "directory over file");
    assert_eq!(read("s/in"), "directory over link");
    assert_eq!(read("twice"), "2");
    assert_eq!(read("both/in"), "stays");
    assert_eq!(scratch.layer().join("both").metadata().unwrap().mode() & 0o7777, 0o700);
}

#[test]
fn a_links_directory_is_gone_into_where_docker_goes_into_it() {
    let scratch = Scratch::new();
    overlay(
        &scratch,
        Archive::new()
            .directory("usr/lib")
            .symlink("lib", "usr/lib")
            .symlink("lib64", "/usr/lib")
            .file("lib/a", b"1")
            .file("lib64/b", b"2")
            .symlink("up", "../../../../usr")
            .file("up/lib/c", b"3"),
    );
    for name in ["a", "b", "c"] {
        assert!(scratch.layer().join("usr/lib").join(name).exists(), "{name}");
    }
}

#[test]
fn sparse_files_stay_sparse() {
    let scratch = Scratch::new();
    let source = scratch.path().join("source");
    let mut file = fs::File::create(&source).unwrap();
    rustix::fs::ftruncate(&file, 64 << 20).unwrap();
    file.write_all(&[1; 4096]).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, &[2; 8192], 32 << 20).unwrap();
    for format in ["--format=gnu", "--sparse-version=0.0", "--sparse-version=0.1", "--sparse-version=1.0"] {
        let format = if format.starts_with("--sparse") { vec!["--format=posix", format] } else { vec![format] };
        let tar = std::process::Command::new("tar")
            .args(["-c", "-S", "-C"])
            .arg(scratch.path())
            .args(&format)
            .arg("source")
            .output()
            .unwrap();
        assert!(tar.status.success() && tar.stdout.len() < 200_000, "{format:?}: tar made it sparse");
        let unpacked = Scratch::new();
        unpacked.unpack(&tar.stdout, Whiteouts::Overlay, &Options::default()).unwrap();
        let copy = unpacked.layer().join("source");
        assert!(fs::read(&copy).unwrap() == fs::read(&source).unwrap(), "{format:?}");
        assert!(copy.metadata().unwrap().blocks() < 200, "{format:?}: it has holes");
    }
}

#[test]
fn extended_attributes_and_capabilities() {
    let scratch = Scratch::new();
    // cap_net_raw=ep, revision 2.
    let capability = b"\x01\0\0\x02\0\x20\0\0\0\0\0\0\0\0\0\0\0\0\0\0";
    // user::rw-,user:1:rw-,group::r--,mask::rw-,other::r--
    let acl = b"\x02\0\0\0\x01\0\x06\0\xff\xff\xff\xff\x02\0\x06\0\x01\0\0\0\x04\0\x04\0\xff\xff\xff\xff\x10\0\x06\0\xff\xff\xff\xff\x20\0\x04\0\xff\xff\xff\xff";
    let archive = Archive::new()
        .xattr("security.capability", capability)
        .xattr("user.a", b"\0\n=")
        .owner(5, 5)
        .mode(0o755)
        .file("ping", b"")
        .xattr("system.posix_acl_default", acl)
        .directory("d")
        .file("d/plain", b"")
        .xattr("system.posix_acl_access", acl)
        .mode(0o664)
        .file("d/acl", b"")
        .xattr("trusted.overlay.opaque", b"y")
        .xattr("user.overlay.opaque", b"y")
        .xattr("trusted.other", b"y")
        .xattr("security.selinux", b"x")
        .xattr("user.containers.override_stat", b"0:0:0755")
        .xattr("user.kept", b"")
        .directory("hidden")
        .xattr("user.on-a-link", b"x")
        .symlink("s", "ping");
    let unpacked = overlay(&scratch, archive);
    let get = |name: &str, xattr: &str| scratch.xattr(name, xattr);
    assert_eq!(get("ping", "security.capability").as_deref(), Some(&capability[..]), "after chown, which drops it");
    assert_eq!(get("ping", "user.a").as_deref(), Some(&b"\0\n="[..]));
    assert_eq!(get("d", "system.posix_acl_default").as_deref(), Some(&acl[..]));
    assert_eq!(get("d/plain", "system.posix_acl_access"), None, "the default is for what a container makes");
    assert_eq!(scratch.layer().join("d/plain").metadata().unwrap().mode() & 0o7777, 0o644);
    assert_eq!(get("d/acl", "system.posix_acl_access").as_deref(), Some(&acl[..]));
    for dropped in ["trusted.overlay.opaque", "user.overlay.opaque", "trusted.other", "user.containers.override_stat"] {
        assert_eq!(get("hidden", dropped), None, "{dropped}");
    }
    assert_eq!(get("hidden", "user.kept").as_deref(), Some(&b""[..]));
    assert_eq!(unpacked.applied.skipped_xattrs, 6);
}

#[test]
fn whiteouts_become_overlays() {
    for (whiteouts, opaque) in
        [(Whiteouts::Overlay, "trusted.overlay.opaque"), (Whiteouts::OverlayUser, "user.overlay.opaque")]
    {
        let scratch = Scratch::new();
        let archive = Archive::new()
            .file(".wh.gone", b"")
            .file("d/.wh.gone", b"")
            .file("o/.wh..wh..opq", b"")
            .file("o/new", b"")
            .file(".wh..wh.plnk/1.2", b"")
            .file(".wh..wh.aufs", b"")
            .directory("both")
            .file(".wh.both", b"")
            .file(".wh.first", b"")
            .directory("first")
            .file("file", b"stays")
            .file(".wh.file", b"");
        scratch.unpack(&archive.end(), whiteouts, &Options::default()).unwrap();
        let is_whiteout = |name: &str| {
            let metadata = scratch.layer().join(name).symlink_metadata().unwrap();
            metadata.file_type().is_char_device() && metadata.rdev() == 0
        };
        assert!(is_whiteout("gone") && is_whiteout("d/gone"));
        for directory in ["o", "both", "first"] {
            assert_eq!(scratch.xattr(directory, opaque).as_deref(), Some(&b"y"[..]), "{directory}");
        }
        assert_eq!(fs::read(scratch.layer().join("file")).unwrap(), b"stays", "a whiteout is for the layers below");
        assert_eq!(scratch.names(""), ["both", "d", "file", "first", "gone", "o"], "AUFS's own names mean nothing");
    }
}

#[test]
fn whiteouts_are_applied_to_what_is_there() {
    let scratch = Scratch::new();
    let below = Archive::new()
        .file("gone", b"")
        .file("dir/a/b", b"")
        .file("opaque/old", b"")
        .file("opaque/sub/old", b"")
        .file("opaque/kept/old", b"")
        .file("again/old", b"")
        .file("same", b"old")
        .symlink("link", "same")
        .file("stays", b"");
    scratch.unpack(&below.end(), Whiteouts::Apply, &Options::default()).unwrap();
    let layer = Archive::new()
        .file(".wh.gone", b"")
        .file(".wh.dir", b"")
        .file("missing/.wh.nothing", b"")
        .directory("opaque")
        .directory("opaque/kept")
        .file("opaque/kept/new", b"")
        .file("opaque/new", b"")
        .file("opaque/.wh..wh..opq", b"")
        .directory("again")
        .file("again/new", b"")
        .file(".wh.again", b"")
        .file("same", b"new")
        .file(".wh.same", b"")
        .file("link", b"no more");
    scratch.unpack(&layer.end(), Whiteouts::Apply, &Options::default()).unwrap();
    assert_eq!(scratch.names(""), ["again", "link", "opaque", "same", "stays"]);
    assert_eq!(scratch.names("opaque"), ["kept", "new"]);
    assert_eq!(scratch.names("opaque/kept"), ["new"]);
    assert_eq!(scratch.names("again"), ["new"], "what the layer itself has stays");
    assert_eq!(fs::read(scratch.layer().join("same")).unwrap(), b"new");
}

#[test]
fn nothing_is_inherited_from_a_directory_below() {
    let scratch = Scratch::new();
    let acl = b"\x02\0\0\0\x01\0\x07\0\xff\xff\xff\xff\x02\0\x07\0\x01\0\0\0\x04\0\x07\0\xff\xff\xff\xff\x10\0\x07\0\xff\xff\xff\xff\x20\0\0\0\xff\xff\xff\xff";
    let below = Archive::new().xattr("system.posix_acl_default", acl).owner(7, 7).mode(0o2775).directory("d");
    scratch.unpack(&below.end(), Whiteouts::Apply, &Options::default()).unwrap();
    let layer = Archive::new().file("d/f", b"").directory("d/sub").symlink("d/s", "f").fifo("d/p");
    scratch.unpack(&layer.end(), Whiteouts::Apply, &Options::default()).unwrap();
    for (name, mode) in [("d/f", 0o644), ("d/sub", 0o755), ("d/s", 0o777), ("d/p", 0o644)] {
        let metadata = scratch.layer().join(name).symlink_metadata().unwrap();
        assert_eq!((metadata.mode() & 0o7777, metadata.gid()), (mode, 0), "{name}");
        assert_eq!(scratch.xattr(name, "system.posix_acl_default"), None, "{name}");
    }
    assert_eq!(scratch.xattr("d/f", "system.posix_acl_access"), None);
}

#[test]
fn whiteouts_can_be_names_like_others() {
    let scratch = Scratch::new();
    scratch.unpack(&Archive::new().file(".wh.a", b"1").end(), Whiteouts::Keep, &Options::default()).unwrap();
    assert_eq!(scratch.names(""), [".wh.a"]);
}

#[test]
fn owners_are_mapped_ignored_or_an_error() {
    let archive =
        || Archive::new().owner(5, 60).directory("d").owner(0, 0).file("d/f", b"").owner(5, 60).symlink("s", "x");
    let range =
        |host| vec![IdRange { container: 0, host, length: 50 }, IdRange { container: 60, host: host + 60, length: 1 }];
    let unpack = |owners: Owners, archive: Archive| {
        let scratch = Scratch::new();
        let options = Options { owners, ..Options::default() };
        let result = scratch.unpack(&archive.end(), Whiteouts::Overlay, &options).map_err(|e| e.to_string());
        let owner = |name: &str| scratch.layer().join(name).symlink_metadata().map(|m| (m.uid(), m.gid())).ok();
        result.map(|_| (owner("d"), owner("d/f"), owner("s"), owner("implied")))
    };
    let mapped = Owners::Map { uids: range(100_000), gids: range(200_000) };
    let (far, root) = (Some((100_005, 200_060)), Some((100_000, 200_000)));
    assert_eq!(unpack(mapped.clone(), archive().file("implied/f", b"")), Ok((far, root, far, root)));
    let error = unpack(mapped, Archive::new().owner(55, 0).file("f", b"")).unwrap_err();
    assert!(error.contains(r#"entry "f" at offset 0: its owner 55 is not in the id mapping"#), "{error}");
    let me = Some((0, 0));
    assert_eq!(unpack(Owners::Ignore, archive()), Ok((me, me, me, None)));
}

#[test]
fn limits_are_kept_and_named() {
    let scratch = Scratch::new();
    let archive = (0..10).fold(Archive::new(), |a, n| a.file(&format!("f{n}"), &[0; 100_000])).end();
    let limited = |options: Options| scratch.unpack(&archive, Whiteouts::Overlay, &options).unwrap_err();
    let error = limited(Options { max_entries: 3, ..Options::default() });
    assert!(matches!(error, Error::Limit { .. }));
    assert_eq!(error.to_string(), r#"entry "f3" at offset 302592: the layer has more than 3 entries"#);
    let error = limited(Options { max_size: 600_000, ..Options::default() });
    assert!(matches!(error, Error::Limit { .. }), "{error}");
    assert!(error.to_string().ends_with("the layer has more than 600000 bytes without compression"), "{error}");
}

#[test]
fn a_ratio_is_looked_at_from_64_mebibytes_on() {
    let scratch = Scratch::new();
    let size: u64 = 70 << 20;
    let mut header = Archive::new().pax("size", size.to_string().as_bytes()).file("zeros", b"").end();
    header.truncate(header.len() - 1024);
    let archive = std::io::Cursor::new(header).chain(std::io::repeat(0).take(size + 1024));
    let compressed = zstd::encode_all(archive, 1).unwrap();
    let options = Options { max_ratio: Some(2000), ..Options::default() };
    let error = scratch.unpack(&compressed, Whiteouts::Overlay, &options).unwrap_err();
    assert!(error.to_string().contains("\"zeros\" at offset 0: the layer has more than 2000 times"), "{error}");
}

#[test]
fn a_full_disk_says_which_entry() {
    let scratch = Scratch::new();
    let Some(mounted) = scratch.small_disk("size=1m") else { return };
    let archive = Archive::new().file("a", &[1; 1000]).file("big", &vec![1; 2 << 20]).end();
    let directory = fs::File::open(mounted.path()).unwrap();
    let target = Target { directory: directory.as_fd(), whiteouts: Whiteouts::Overlay };
    let error = unpack(archive.as_slice(), &target, &Options::default()).unwrap_err();
    assert_eq!(error.to_string(), r#"entry "big" at offset 1536: write: No space left on device (os error 28)"#);
}

#[test]
fn a_reader_that_is_cancelled_cancels() {
    struct Cancelled;
    impl Read for Cancelled {
        fn read(&mut self, _: &mut [u8]) -> std::io::Result<usize> {
            Err(std::io::Error::other(Error::Cancelled))
        }
    }
    let scratch = Scratch::new();
    let archive = Archive::new().file("a", &[1; 100_000]).end();
    let directory = fs::File::open(scratch.layer()).unwrap();
    let target = Target { directory: directory.as_fd(), whiteouts: Whiteouts::Overlay };
    let result = unpack((&archive[..50_000]).chain(Cancelled), &target, &Options::default());
    assert!(matches!(result, Err(Error::Cancelled)), "{result:?}");
}

#[test]
fn devices_a_user_may_not_make_can_be_left_out() {
    // The kernel refuses devices, but no whiteouts, to a user namespace's root.
    let scratch = Scratch::new();
    if !scratch.in_user_namespace("devices_a_user_may_not_make_can_be_left_out") {
        return;
    }
    let archive = Archive::new().device("null", b'3', 1, 3).fifo("p").file(".wh.gone", b"").end();
    let options = Options { skip_devices: true, ..Options::default() };
    let unpacked = scratch.unpack(&archive, Whiteouts::OverlayUser, &options).unwrap();
    assert_eq!(unpacked.applied.skipped_devices, 1);
    assert_eq!(scratch.names(""), ["gone", "p"]);
    let error = scratch.unpack(&archive, Whiteouts::OverlayUser, &Options::default()).unwrap_err();
    assert!(error.to_string().contains(r#"entry "null" at offset 0: make the device"#), "{error}");
    let error = scratch.unpack(&Archive::new().owner(5, 5).file("f", b"").end(), Whiteouts::Keep, &Options::default());
    let error = error.unwrap_err().to_string();
    assert!(error.contains(r#"entry "f" at offset 0: chown to 5:5 (not an id of this user namespace"#), "{error}");
}

#[test]
fn the_umask_takes_nothing() {
    let scratch = Scratch::new();
    // It is the whole process's.
    if !scratch.again("the_umask_takes_nothing", &["env"]) {
        return;
    }
    rustix::process::umask(Mode::from_raw_mode(0o077));
    let archive =
        Archive::new().mode(0o777).directory("d").mode(0o666).file("d/f", b"").file("implied/f", b"").fifo("p");
    overlay(&scratch, archive);
    let mode = |name: &str| scratch.layer().join(name).metadata().unwrap().permissions().mode() & 0o7777;
    assert_eq!((mode("d"), mode("d/f"), mode("implied"), mode("p")), (0o777, 0o666, 0o755, 0o644));
}
