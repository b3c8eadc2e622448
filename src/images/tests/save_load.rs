//! `save`, `load` and `import`: among ourselves, with hostile archives, and with skopeo and podman as readers and writers.

mod common;

use common::{Temp, has, privileged, shell};
use rrt_content::Store;
use rrt_images::archive::{Import, Loaded, Saved, import, load, load_directory, save};
use rrt_images::layer::{Entry, Kind, Packing, Writer};
use rrt_images::names::{Image, ImageStore};
use rrt_images::progress::Silent;
use rrt_images::snapshots::Snapshots;
use rrt_oci::image::{Digest, Platform};
use sha2::{Digest as _, Sha256};
use std::fs::{self, File};
use std::io::{Cursor, Write};
use std::path::Path;

/// A root with its stores.
struct Root {
    images: ImageStore,
    snapshots: Snapshots,
}

impl Root {
    fn new(path: &Path) -> Root {
        let content = Store::open(path).unwrap();
        Root {
            images: ImageStore::open(&content).unwrap(),
            snapshots: Snapshots::open(path, Some("overlay2")).unwrap(),
        }
    }

    fn load(&self, tar: Vec<u8>) -> Result<Vec<Loaded>, String> {
        load(&self.images, &self.snapshots, Cursor::new(tar), None, &Silent).map_err(|e| e.to_string())
    }

    fn load_file(&self, path: &Path) -> Vec<Loaded> {
        load(&self.images, &self.snapshots, File::open(path).unwrap(), None, &Silent).unwrap()
    }

    fn save(&self, names: &[&str]) -> Vec<u8> {
        let all = self.images.load().unwrap();
        let saved: Vec<Saved<'_>> = names
            .iter()
            .map(|name| Saved { image: all.resolve(name).unwrap(), names: name.parse().into_iter().collect() })
            .collect();
        let mut out = Vec::new();
        let lease = self.images.content().lease().unwrap();
        save(self.images.content(), &lease, &saved, &mut out, &Silent).unwrap();
        out
    }

    /// An image of a tar of a directory that a shell fills.
    fn import(&self, name: &str, script: &str, packing: Packing) -> Image {
        let temp = Temp::new(&format!("tree-{}", name.replace([':', '/'], "-")));
        shell(
            &temp.0,
            &format!("mkdir root && cd root && {script} && tar --create --numeric-owner --file ../root.tar ."),
        );
        let changes = ["CMD [\"/hello\"]".to_owned(), "ENV A=b".to_owned()];
        let options = Import { changes: &changes, packing, name: Some(name.parse().unwrap()), ..Import::default() };
        import(&self.images, &self.snapshots, File::open(temp.0.join("root.tar")).unwrap(), &options, &Silent).unwrap()
    }

    fn has_file(&self, image: &Image, path: &str) -> bool {
        let view = self.snapshots.view(&image.diff_ids()).unwrap();
        rustix::fs::statat(view.root(), path, rustix::fs::AtFlags::SYMLINK_NOFOLLOW).is_ok()
    }

    fn ids(&self) -> Vec<Digest> {
        self.images.load().unwrap().iter().map(|image| image.id.clone()).collect()
    }
}

/// A root with two images, which have a layer in common.
fn two_images(path: &Path) -> Root {
    let root = Root::new(path);
    root.import("one:1", "echo hello >hello && mkdir etc && echo x >etc/x && ln -s x etc/y", Packing::Gzip(6));
    root.import("reg.example:5000/two:latest", "echo other >other", Packing::Zstd(3));
    root
}

#[test]
fn what_is_saved_is_loaded() {
    if !privileged() {
        return;
    }
    let temp = Temp::new("save");
    let root = two_images(&temp.0.join("a"));
    let names = ["one:1", "reg.example:5000/two:latest"];
    let archive = root.save(&names);
    assert!(archive == root.save(&names), "the same bytes each time");
    fs::write(temp.0.join("images.tar"), &archive).unwrap();
    for compress in ["cat", "gzip", "zstd", "xz", "bzip2"] {
        if !has(compress) {
            continue;
        }
        let other = Root::new(&temp.0.join(compress));
        shell(&temp.0, &format!("{compress} <images.tar >images.tar.{compress}"));
        let loaded = other.load_file(&temp.0.join(format!("images.tar.{compress}")));
        let found: Vec<String> = loaded.iter().flat_map(|l| &l.names).map(|name| name.familiar()).collect();
        assert_eq!(found, names);
        assert_eq!(other.ids(), root.ids());
        let all = other.images.load().unwrap();
        let image = all.resolve("one:1").unwrap();
        let same = root.images.resolve("one:1").unwrap();
        assert_eq!((&image.manifest, &image.layers, image.size()), (&same.manifest, &same.layers, same.size()));
        assert!(other.has_file(image, "etc/y") && image.size() == 8, "{}", image.size());
        assert!(other.save(&names) == archive, "and comes out again the same");
        // Once more: nothing changes, and nothing is lost.
        assert!(other.load(archive.clone()).unwrap().iter().all(|loaded| loaded.replaced.is_empty()));
    }
    // As a directory.
    shell(&temp.0, "mkdir layout && tar --extract --file images.tar --directory layout && rm layout/manifest.json");
    let other = Root::new(&temp.0.join("directory"));
    load_directory(&other.images, &other.snapshots, &temp.0.join("layout"), None, &Silent).unwrap();
    assert_eq!(other.ids(), root.ids());
    // A name that moves says from where.
    let third = Root::new(&temp.0.join("third"));
    let old = third.import("one:1", "echo old >old", Packing::Plain);
    let loaded = third.load(archive).unwrap();
    assert_eq!(loaded[0].replaced, [("one:1".parse().unwrap(), old.id.clone())]);
    assert!(third.images.load().unwrap().get(&old.id).unwrap().is_dangling());
}

/// Archives of tools are read, and ours by them.
#[test]
fn skopeo_reads_and_writes_the_same() {
    if !privileged() || !has("skopeo") {
        return;
    }
    let temp = Temp::new("skopeo");
    let root = two_images(&temp.0.join("a"));
    fs::write(temp.0.join("one.tar"), root.save(&["one:1"])).unwrap();
    let image = root.images.resolve("one:1").unwrap();
    let (id, diff_ids) = (image.id.clone(), image.diff_ids());
    let skopeo = |arguments: &str| shell(&temp.0, &format!("skopeo --insecure-policy {arguments} 2>&1"));
    for (n, from) in ["docker-archive:one.tar:one:1", "oci-archive:one.tar"].into_iter().enumerate() {
        assert!(skopeo(&format!("inspect --raw --config {from}")).contains("A=b"), "{from}");
        for to in ["docker-archive", "oci-archive"] {
            let file = format!("{n}-{to}.tar");
            skopeo(&format!("copy {from} {to}:{file}:reg.example:5000/back:x"));
            let other = Root::new(&temp.0.join(format!("{n}-{to}")));
            let loaded = other.load_file(&temp.0.join(file));
            assert_eq!((loaded.len(), loaded[0].names[0].familiar()), (1, "reg.example:5000/back:x".to_owned()));
            // From one format to the other skopeo writes the configuration anew.
            assert!(loaded[0].id == id || !from.starts_with(to), "{from} {to}");
            assert_eq!(other.images.load().unwrap().get(&loaded[0].id).unwrap().diff_ids(), diff_ids, "{from} {to}");
            assert!(other.has_file(&other.images.resolve("reg.example:5000/back:x").unwrap(), "etc/x"));
        }
        skopeo(&format!("copy {from} oci:layout{n}:reg.example:5000/back:y"));
        let other = Root::new(&temp.0.join(format!("{n}-directory")));
        let loaded =
            load_directory(&other.images, &other.snapshots, &temp.0.join(format!("layout{n}")), None, &Silent).unwrap();
        assert_eq!(other.images.load().unwrap().get(&loaded[0].id).unwrap().diff_ids(), diff_ids);
    }
}

#[test]
fn podman_reads_and_writes_the_same() {
    if !privileged() || !has("podman") {
        return;
    }
    let temp = Temp::new("podman");
    let root = two_images(&temp.0.join("a"));
    fs::write(temp.0.join("both.tar"), root.save(&["one:1", "reg.example:5000/two:latest"])).unwrap();
    let image = root.images.resolve("one:1").unwrap();
    let id = &image.id;
    let podman = |arguments: &str| {
        shell(&temp.0, &format!("podman --root $PWD/podman --runroot $PWD/run --storage-driver vfs {arguments} 2>&1"))
    };
    podman("load --input both.tar");
    assert!(podman("images --no-trunc --quiet one").contains(id.hex()));
    for format in ["docker-archive", "oci-archive"] {
        podman(&format!("save --format {format} --output {format}.tar one:1"));
        let other = Root::new(&temp.0.join(format));
        let loaded = other.load_file(&temp.0.join(format!("{format}.tar")));
        // What it loaded as a docker-archive it keeps so, and writes the configuration anew for the other format.
        assert!(loaded[0].id == *id || format == "oci-archive");
        let found = other.images.load().unwrap();
        assert_eq!(found.get(&loaded[0].id).unwrap().diff_ids(), image.diff_ids(), "{format}");
    }
    podman("rmi --all --force");
}

/// A daemon of its own, without networks.
struct Docker {
    daemon: std::process::Child,
    temp: Temp,
}

impl Docker {
    /// `None`, and why, where it does not run.
    fn start() -> Option<Docker> {
        if !has("dockerd") || !Path::new("/usr/bin/docker").exists() {
            return None;
        }
        let temp = Temp::new("dockerd");
        let path = |name: &str| temp.0.join(name).display().to_string();
        fs::write(temp.0.join("daemon.json"), "{}").unwrap();
        let log = File::create(temp.0.join("log")).unwrap();
        let mut command = std::process::Command::new("dockerd");
        command.args(["--config-file", &path("daemon.json"), "--host", &format!("unix://{}", path("sock"))]);
        command.args(["--pidfile", &path("pid"), "--data-root", &path("data"), "--exec-root", &path("exec")]);
        command.args(["--bridge=none", "--iptables=false"]).stdout(log.try_clone().unwrap()).stderr(log);
        let docker = Docker { daemon: command.spawn().unwrap(), temp };
        for _ in 0..150 {
            if docker.run("version >/dev/null 2>&1 && echo up || :").contains("up") {
                return Some(docker);
            }
            std::thread::sleep(std::time::Duration::from_millis(200));
        }
        let log = fs::read_to_string(docker.temp.0.join("log")).unwrap_or_default();
        eprintln!("skipped: dockerd does not start here: {}", log.lines().last().unwrap_or_default());
        None
    }

    fn run(&self, arguments: &str) -> String {
        shell(&self.temp.0, &format!("/usr/bin/docker --host unix://$PWD/sock {arguments}"))
    }
}

impl Drop for Docker {
    fn drop(&mut self) {
        let pid = rustix::process::Pid::from_child(&self.daemon);
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        let _ = self.daemon.wait();
        // What it keeps mounted below its own directories.
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        let own = self.temp.0.display().to_string();
        for at in mounts.lines().filter_map(|line| line.split(' ').nth(1)).filter(|at| at.starts_with(&own)) {
            let _ = std::process::Command::new("umount").args(["--lazy", at]).status();
        }
    }
}

#[test]
fn docker_reads_and_writes_the_same() {
    if !privileged() {
        return;
    }
    let Some(docker) = Docker::start() else { return };
    let temp = &docker.temp;
    let root = Root::new(&temp.0.join("a"));
    let image = root.import("one:1", "echo hello >hello && mkdir etc && ln -s x etc/y", Packing::Gzip(6));
    fs::write(temp.0.join("one.tar"), root.save(&["one:1"])).unwrap();
    assert!(docker.run("load --input one.tar").contains("Loaded image: one:1"));
    assert_eq!(docker.run("image inspect --format '{{.Id}}' one:1").trim(), image.id.as_str());
    docker.run("save --output theirs.tar one:1");
    let other = Root::new(&temp.0.join("b"));
    let loaded = other.load_file(&temp.0.join("theirs.tar"));
    assert_eq!((&loaded[0].id, loaded[0].names[0].familiar().as_str()), (&image.id, "one:1"));
    assert!(other.has_file(&other.images.resolve("one:1").unwrap(), "etc/y"));
}

#[test]
fn an_import_is_checked() {
    if !privileged() {
        return;
    }
    let temp = Temp::new("import");
    let root = Root::new(&temp.0);
    let image = root.import("i:1", "mkdir -p a/b && echo 12345 >a/b/c", Packing::Gzip(6));
    assert_eq!((image.size(), image.layers.len(), root.has_file(&image, "a/b/c")), (6, 1, true));
    let config = root.images.config(&image).unwrap();
    assert_eq!((config.config.unwrap().cmd.unwrap()[0].as_str(), config.os.as_str()), ("/hello", "linux"));
    let platform: Platform = "linux/arm64".parse().unwrap();
    let options = Import { platform: Some(platform), message: Some("m".to_owned()), ..Import::default() };
    let tar = Writer::new(Vec::new()).finish().unwrap();
    let image = import(&root.images, &root.snapshots, Cursor::new(tar), &options, &Silent).unwrap();
    let config = root.images.config(&image).unwrap();
    assert_eq!((config.architecture.as_str(), config.history[0].comment.as_deref()), ("arm64", Some("m")));
    assert!(image.is_dangling());
    let before = root.ids();
    let mut outside = Writer::new(Vec::new());
    outside.entry(&Entry::new("../outside", Kind::Directory, 0o755)).unwrap();
    for (bad, why) in [
        (vec![b'x'; 2048], "archive header at offset 0"),
        (outside.finish().unwrap(), "../outside"),
        (b"\x1f\x8b\x08 no gzip".to_vec(), "read the archive"),
        (b"\xfd7zXZ\0 no xz".to_vec(), "xz"),
    ] {
        let error = import(&root.images, &root.snapshots, Cursor::new(bad), &Import::default(), &Silent).unwrap_err();
        assert!(error.to_string().contains(why), "{error}");
    }
    assert_eq!(root.ids(), before, "nothing was named");
    assert!(!temp.0.join("outside").exists());
}

/// Files of an archive.
type Files = Vec<(&'static str, Vec<u8>)>;

fn tar(files: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let mut writer = Writer::new(Vec::new());
    for (name, data) in files {
        let kind = match data.strip_prefix(b"LINK ") {
            Some(to) => Kind::Symlink(to.to_vec()),
            None => Kind::File { size: data.len() as u64, extents: None },
        };
        let is_file = matches!(kind, Kind::File { .. });
        writer.entry(&Entry::new(*name, kind, 0o644)).unwrap();
        if is_file {
            writer.write_all(data).unwrap();
        }
    }
    writer.finish().unwrap()
}

fn sha256(bytes: &[u8]) -> String {
    Digest::sha256(&Sha256::digest(bytes).into()).to_string()
}

/// A layer with one file, and a configuration for it.
fn parts() -> (Vec<u8>, String) {
    let layer = tar(&[("file", b"data".to_vec())]);
    let config = format!(
        r#"{{"os":"linux","architecture":"amd64","rootfs":{{"type":"layers","diff_ids":["{}"]}}}}"#,
        sha256(&layer)
    );
    (layer, config)
}

/// Two processes that load the same, layers in parallel, and one layer twice in an image: nobody waits for ever. The directories that a
/// layer's archive lacks look as they do below.
#[test]
fn several_load_the_same_at_once() {
    if !privileged() {
        return;
    }
    let temp = Temp::new("several");
    let empty = Writer::new(Vec::new()).finish().unwrap();
    let mut base = Writer::new(Vec::new());
    base.entry(&Entry::new("d/", Kind::Directory, 0o1777)).unwrap();
    let layers = [
        base.finish().unwrap(),
        empty.clone(),
        tar(&[("d/file", b"data".to_vec())]),
        empty,
        tar(&[("x", vec![7; 100_000])]),
    ];
    let diff_ids: Vec<String> = layers.iter().map(|layer| format!("{:?}", sha256(layer))).collect();
    let config = format!(r#"{{"os":"linux","rootfs":{{"type":"layers","diff_ids":[{}]}}}}"#, diff_ids.join(","));
    let names = ["0", "1", "2", "3", "4"];
    let manifest = format!(r#"[{{"Config":"c","RepoTags":["x:1"],"Layers":["{}"]}}]"#, names.join("\",\""));
    let mut files: Files = names.into_iter().zip(layers).collect();
    files.extend([("c", config.into_bytes()), ("manifest.json", manifest.into_bytes())]);
    let archive = tar(&files);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let root = Root::new(&temp.0.join("root"));
                assert_eq!(root.load(archive.clone()).unwrap().len(), 1);
            });
        }
    });
    let root = Root::new(&temp.0.join("root"));
    let image = root.images.resolve("x:1").unwrap();
    let view = root.snapshots.view(&image.diff_ids()).unwrap();
    let stat = rustix::fs::statat(view.root(), "d", rustix::fs::AtFlags::empty()).unwrap();
    assert_eq!((stat.st_mode & 0o7777, image.size()), (0o1777, 100_004));
    assert!(root.has_file(&image, "d/file"));
}

/// What older Dockers, kaniko and others write: any names, links between layers, the documents last.
#[test]
fn old_archives_are_read() {
    if !privileged() {
        return;
    }
    let temp = Temp::new("old");
    let root = Root::new(&temp.0);
    let (layer, config) = parts();
    let manifest = r#"[{"Config":"c.json","RepoTags":["old:1","other.example/old:2"],"Layers":["b/layer.tar"]},
                       {"Config":"./c.json","RepoTags":null,"Layers":["a/layer.tar"]}]"#;
    let files: Files = vec![
        ("a/layer.tar", layer.clone()),
        ("b/layer.tar", b"LINK ../a/layer.tar".to_vec()),
        ("a/VERSION", b"1.0".to_vec()),
        ("c.json", config.into_bytes()),
        ("manifest.json", manifest.replace("./c.json", "c.json").into_bytes()),
    ];
    let loaded = root.load(tar(&files)).unwrap();
    let names: Vec<String> = loaded[0].names.iter().map(|name| name.familiar()).collect();
    assert_eq!((names.len(), loaded.len()), (2, 1));
    assert!(names.contains(&"old:1".to_owned()) && names.contains(&"other.example/old:2".to_owned()));
    assert!(root.has_file(&root.images.resolve("old:1").unwrap(), "file"));
}

#[test]
fn hostile_archives_are_refused() {
    if !privileged() {
        return;
    }
    let temp = Temp::new("hostile");
    let root = Root::new(&temp.0.join("root"));
    let (layer, config) = parts();
    let outside = tar(&[("../../outside", b"x".to_vec())]);
    let config_of = |layer: &[u8]| {
        let diff_id = sha256(layer);
        format!(r#"{{"os":"linux","architecture":"amd64","rootfs":{{"type":"layers","diff_ids":["{diff_id}"]}}}}"#)
            .into_bytes()
    };
    let docker = |config: &[u8], layer: &[u8], tags: &str| -> Files {
        let manifest = format!(r#"[{{"Config":"c","RepoTags":[{tags}],"Layers":["l"]}}]"#);
        vec![("c", config.to_vec()), ("l", layer.to_vec()), ("manifest.json", manifest.into_bytes())]
    };
    let good = docker(config.as_bytes(), &layer, r#""x:1""#);
    let with = |name: &'static str, data: &[u8]| -> Files {
        good.iter().map(|(n, d)| (*n, if *n == name { data.to_vec() } else { d.clone() })).collect()
    };
    let blob = format!("blobs/sha256/{}", "0".repeat(64));
    let index = format!(
        r#"{{"schemaVersion":2,"manifests":[{{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"sha256:{}","size":2}}]}}"#,
        "0".repeat(64)
    );
    let gzip = {
        let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        packed.write_all(&tar(&[("another", b"layer".to_vec())])).unwrap();
        packed.finish().unwrap()
    };
    let cases: Vec<(&str, Files, &str)> = vec![
        ("no archive of images", vec![("a", b"b".to_vec())], "neither manifest.json"),
        ("an ancient one", vec![("repositories", b"{}".to_vec())], "before 1.10"),
        ("a layer that is missing", vec![good[0].clone(), good[2].clone()], "l: the archive does not have it"),
        ("a configuration that is missing", vec![good[1].clone(), good[2].clone()], "c: the archive does not have it"),
        ("a configuration that is none", with("c", b"{"), "c: not the document"),
        ("another layer", with("l", &tar(&[("another", b"layer".to_vec())])), "the image's configuration says sha256:"),
        ("another layer, compressed", with("l", &gzip), "the image's configuration says sha256:"),
        ("a layer that is no tar", docker(&config_of(&[b'x'; 2048]), &[b'x'; 2048], ""), "archive header at offset 0"),
        ("a layer that leads outside", docker(&config_of(&outside), &outside, r#""x:1""#), "../../outside"),
        ("a bad name", docker(config.as_bytes(), &layer, r#""BAD NAME:1""#), "invalid reference"),
        (
            "too few layers",
            with("manifest.json", br#"[{"Config":"c","RepoTags":[],"Layers":[]}]"#),
            "layers length mismatch: expected 1, got 0",
        ),
        ("a link to itself", vec![("c", b"LINK c".to_vec()), good[2].clone()], "link to a link"),
        (
            "a link outside",
            vec![("c", b"LINK ../../../../etc/passwd".to_vec()), good[2].clone()],
            "the archive does not have",
        ),
        ("Windows", docker(&config.replace("linux", "windows").into_bytes(), &layer, ""), "only Linux images"),
        ("a document of 5 MB", with("c", &[b' '; 5 << 20]), "a document has at most"),
        ("a manifest of 5 MB", with("manifest.json", &[b' '; 5 << 20]), "a document has at most"),
        (
            "a damaged blob",
            vec![
                (Box::leak(blob.clone().into_boxed_str()), b"{}".to_vec()),
                ("index.json", index.clone().into_bytes()),
            ],
            "its content is sha256:",
        ),
        ("a blob that is missing", vec![("index.json", index.into_bytes())], "the archive does not have it"),
    ];
    for (what, files, why) in cases {
        let error = root.load(tar(&files)).expect_err(what);
        assert!(error.contains(why), "{what}: {error}");
        assert!(!error.contains('\n'), "{what}: {error}");
    }
    assert_eq!(root.ids(), [], "nothing was named");
    let left: Vec<_> = fs::read_dir(root.snapshots.path().join("tmp")).unwrap().collect();
    assert!(left.is_empty(), "{left:?}");
    assert!(!temp.0.join("outside").exists());
    // Cut anywhere.
    let whole = tar(&good);
    for length in (0..whole.len()).step_by(512).filter(|n| *n < whole.len() - 1024) {
        assert!(root.load(whole[..length].to_vec()).is_err(), "cut at {length}");
    }
    assert_eq!(root.load(whole).unwrap().len(), 1);
}

/// A layout whose files are links to files outside of it.
#[test]
fn a_directory_is_read_through_no_link() {
    if !privileged() {
        return;
    }
    let temp = Temp::new("links");
    let root = Root::new(&temp.0.join("root"));
    shell(&temp.0, "mkdir layout secret; echo '{}' >secret/index.json; ln -s ../secret/index.json layout/index.json");
    let error =
        load_directory(&root.images, &root.snapshots, &temp.0.join("layout"), None, &Silent).unwrap_err().to_string();
    assert!(error.contains("neither manifest.json"), "{error}");
}
