//! Pull and push, against Debian's `docker-registry` and against a server that counts, waits and lies.

#[path = "../../registry/tests/common/mod.rs"]
mod common;

use common::registry::Registry;
use common::server::{Reply, Request, Server};
use common::{Folder, config, has, noise, reference, sha256};
use rrt_content::Store;
use rrt_images::layer::Options;
use rrt_images::names::ImageStore;
use rrt_images::progress::{Phase, Progress};
use rrt_images::pull::{self, Pulled, Puller};
use rrt_images::push::{self, Pusher};
use rrt_images::snapshots::Snapshots;
use rrt_oci::image::{Descriptor, Digest, Index, Manifest, Platform, Reference, media_type as kind};
use rrt_registry::{Client, Unwatched};
use std::collections::HashMap;
use std::fs::File;
use std::io::Write;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// Keeps what it hears.
#[derive(Default)]
struct Heard {
    layers: Mutex<Vec<(String, String)>>,
    lines: Mutex<Vec<String>>,
    /// So many bytes have come when it asks to stop.
    stop_at: Option<u64>,
    stopped: AtomicBool,
}

impl Progress for Heard {
    fn layer(&self, id: &str, phase: Phase<'_>, done: u64, _: Option<u64>) {
        if phase == Phase::Downloading && self.stop_at.is_some_and(|stop| done >= stop) {
            self.stopped.store(true, Ordering::SeqCst);
        }
        let mut layers = self.layers.lock().unwrap();
        let heard = (id.to_owned(), phase.to_string());
        if layers.last() != Some(&heard) {
            layers.push(heard);
        }
    }

    fn line(&self, text: &str) {
        self.lines.lock().unwrap().push(text.to_owned());
    }

    fn cancelled(&self) -> bool {
        self.stopped.load(Ordering::SeqCst)
    }
}

impl Heard {
    /// The last phase of each layer.
    fn last(&self, digest: &Digest) -> String {
        let layers = self.layers.lock().unwrap();
        layers.iter().rev().find(|(id, _)| id == digest.short()).map(|(_, phase)| phase.clone()).unwrap_or_default()
    }
}

/// A root of berth's.
struct Root {
    folder: Folder,
    images: ImageStore,
    snapshots: Snapshots,
}

impl Root {
    fn new() -> Root {
        let folder = Folder::new();
        let root = folder.join("root");
        let images = ImageStore::open(&Store::open(&root).unwrap()).unwrap();
        let snapshots = Snapshots::open(&root, None).unwrap();
        Root { folder, images, snapshots }
    }

    fn client(&self) -> Client {
        Client::new(config(&self.folder))
    }

    fn pull_with(&self, client: &Client, name: &Reference, progress: &dyn Progress) -> Result<Pulled, pull::Error> {
        self.puller(client, progress).pull(name)
    }

    fn puller<'a>(&'a self, client: &'a Client, progress: &'a dyn Progress) -> Puller<'a> {
        let (images, snapshots) = (&self.images, &self.snapshots);
        Puller { client, images, snapshots, progress, options: Options::default(), platform: None }
    }

    fn pull(&self, name: &Reference) -> Result<Pulled, pull::Error> {
        self.pull_with(&self.client(), name, &Heard::default())
    }

    /// A file of the unpacked image.
    fn read(&self, pulled: &Pulled, path: &str) -> Option<Vec<u8>> {
        let view = self.snapshots.view(&pulled.image.diff_ids()).unwrap();
        std::fs::read(format!("/proc/self/fd/{}/{path}", view.root().as_raw_fd())).ok()
    }

    fn count(&self, folder: &str) -> usize {
        std::fs::read_dir(self.folder.join("root").join(folder)).map_or(0, Iterator::count)
    }

    fn layers(&self) -> usize {
        std::fs::read_dir(self.snapshots.path().join("layers")).unwrap().count()
    }
}

/// An archive of some files, made by tar.
fn archive(files: &[(&str, &[u8])]) -> Vec<u8> {
    let folder = Folder::new();
    for (name, content) in files {
        let path = folder.join("tree").join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }
    let output = Command::new("tar").args(["-C", "tree", "-c", "."]).current_dir(folder.path()).output().unwrap();
    assert!(output.status.success());
    output.stdout
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// An image's parts: blobs by digest, and the manifest.
struct Made {
    blobs: HashMap<String, Vec<u8>>,
    manifest: Vec<u8>,
    layers: Vec<Digest>,
}

impl Made {
    fn digest(&self) -> Digest {
        sha256(&self.manifest)
    }

    /// What a registry of this image alone answers.
    fn reply(&self, request: &Request) -> Reply {
        let last = request.path.rsplit('/').next().unwrap_or_default();
        match request.path.contains("/blobs/") {
            true => self.blobs.get(last).map_or(Reply::new(404, "{}"), |blob| Reply::blob(request, blob)),
            false if request.path.contains("/manifests/") => {
                Reply::new(200, &self.manifest[..]).header("Content-Type", kind::OCI_MANIFEST)
            }
            false => Reply::json(200, "{}"),
        }
    }

    fn push(&self, client: &Client, folder: &Folder, name: &Reference) {
        for blob in self.blobs.values() {
            std::fs::write(folder.join("part"), blob).unwrap();
            let file = File::open(folder.join("part")).unwrap();
            client.push_blob(name, &common::blob(blob), &file, &[], &Unwatched).unwrap();
        }
        client.push_manifest(name, kind::OCI_MANIFEST, &self.manifest).unwrap();
    }
}

/// From archives and what is sent of them.
fn image(layers: &[(Vec<u8>, Vec<u8>)], architecture: &str) -> Made {
    let diff_ids: Vec<Digest> = layers.iter().map(|(archive, _)| sha256(archive)).collect();
    let config = serde_json::json!({"architecture": architecture, "os": "linux", "config": {"Cmd": ["sh"]},
        "rootfs": {"type": "layers", "diff_ids": diff_ids}});
    let config = serde_json::to_vec(&config).unwrap();
    let descriptor = |bytes: &[u8], media_type: &str| Descriptor::new(media_type, sha256(bytes), bytes.len() as u64);
    let manifest = Manifest {
        schema_version: 2,
        media_type: kind::OCI_MANIFEST.to_owned(),
        artifact_type: None,
        config: descriptor(&config, kind::OCI_CONFIG),
        layers: layers.iter().map(|(_, sent)| descriptor(sent, kind::OCI_LAYER_GZIP)).collect(),
        subject: None,
        annotations: Default::default(),
    };
    let digests = manifest.layers.iter().map(|layer| layer.digest.clone()).collect();
    let blobs = layers.iter().map(|(_, sent)| sent.clone()).chain([config]);
    let blobs = blobs.map(|blob| (sha256(&blob).to_string(), blob)).collect();
    Made { blobs, manifest: serde_json::to_vec(&manifest).unwrap(), layers: digests }
}

/// Three layers, compressed in three ways; the last one covers a file of the first.
fn three() -> Made {
    let (first, second, third) = (
        archive(&[("etc/name", b"first"), ("big", &noise(2 << 20, 1))]),
        archive(&[("usr/bin/tool", b"second")]),
        archive(&[("etc/name", b"third")]),
    );
    let compressed = zstd::encode_all(&second[..], 1).unwrap();
    image(&[(first.clone(), gzip(&first)), (second, compressed), (third.clone(), third)], host())
}

fn host() -> &'static str {
    // Kept for the life of the test.
    Box::leak(Platform::host().architecture.into_boxed_str())
}

fn serve(made: Made) -> Server {
    Server::new(move |request| made.reply(request))
}

fn at(server: &Server) -> Reference {
    reference(format!("{}/team/app:1", server.address))
}

#[test]
fn a_pulled_image_is_unpacked_and_named() {
    let (made, root, heard) = (three(), Root::new(), Heard::default());
    let (digest, layers) = (made.digest(), made.layers.clone());
    let server = serve(made);
    let pulled = root.pull_with(&root.client(), &at(&server), &heard).unwrap();
    assert!(!pulled.up_to_date && pulled.target.digest == digest);
    assert_eq!(root.read(&pulled, "etc/name").unwrap(), b"third");
    assert_eq!(root.read(&pulled, "usr/bin/tool").unwrap(), b"second");
    assert_eq!(root.read(&pulled, "big").unwrap(), noise(2 << 20, 1));
    let named = root.images.resolve(&at(&server).to_string()).unwrap();
    assert_eq!(named, pulled.image);
    assert_eq!(named.digests.iter().next().unwrap().digest(), Some(&digest));
    let lines = heard.lines.lock().unwrap().clone();
    let status = format!("Status: Downloaded newer image for {}", at(&server));
    assert_eq!(lines, ["1: Pulling from team/app", &format!("Digest: {digest}"), &status]);
    assert!(layers.iter().all(|layer| heard.last(layer) == "Pull complete"));
    assert_eq!((root.count("ingest"), root.count("tmp")), (0, 0));
    // Again: it is asked for, and nothing is fetched.
    let (before, heard) = (server.count("/blobs/"), Heard::default());
    assert_eq!(before, 4);
    let again = root.pull_with(&root.client(), &at(&server), &heard).unwrap();
    assert!(again.up_to_date && server.count("/blobs/") == before);
    assert!(layers.iter().all(|layer| heard.last(layer) == "Already exists"));
    assert!(heard.lines.lock().unwrap()[2].starts_with("Status: Image is up to date for "));
    // Another name of it is new, and still nothing is fetched.
    let other = at(&server).with_tag("2").unwrap();
    assert!(!root.pull(&other).unwrap().up_to_date && server.count("/blobs/") == before);
    assert_eq!(root.images.load().unwrap().iter().count(), 1);
}

/// Archives often lack the directories that their files are in: on top of another layer these are as they are there.
#[test]
fn directories_that_a_layer_lacks_are_those_below() {
    let folder = Folder::new();
    let script = "mkdir -p a/d/e b/d/e; chmod 700 a/d; chmod 1777 a/d/e; touch -d @1000 a/d; echo x >b/d/e/new
        tar -C a -cf one.tar .; tar -C b -cf two.tar d/e/new";
    assert!(Command::new("sh").args(["-ec", script]).current_dir(folder.path()).status().unwrap().success());
    let layers = ["one.tar", "two.tar"].map(|name| std::fs::read(folder.join(name)).unwrap());
    let server = serve(image(&layers.map(|layer| (layer.clone(), layer)), host()));
    let root = Root::new();
    let pulled = root.pull(&at(&server)).unwrap();
    assert_eq!(root.read(&pulled, "d/e/new").unwrap(), b"x\n");
    let view = root.snapshots.view(&pulled.image.diff_ids()).unwrap();
    let mode = |path: &str| {
        std::fs::metadata(format!("/proc/self/fd/{}/{path}", view.root().as_raw_fd())).unwrap().mode() & 0o7777
    };
    assert_eq!((mode("d"), mode("d/e")), (0o700, 0o1777));
    assert_eq!(pulled.image.layers[1].unpacked, 2);
}

#[test]
fn layers_of_another_image_are_not_fetched_again() {
    let base = archive(&[("base", &noise(100_000, 2))]);
    let (one, two) = (archive(&[("one", b"1")]), archive(&[("two", b"2")]));
    let with = |top: &Vec<u8>| image(&[(base.clone(), gzip(&base)), (top.clone(), gzip(top))], host());
    let (first, second) = (serve(with(&one)), serve(with(&two)));
    let root = Root::new();
    root.pull(&at(&first)).unwrap();
    let pulled = root.pull(&at(&second)).unwrap();
    assert_eq!(second.count("/blobs/"), 2, "its configuration and its own layer");
    assert_eq!(root.read(&pulled, "base").unwrap(), noise(100_000, 2));
    assert_eq!((root.read(&pulled, "one"), root.read(&pulled, "two")), (None, Some(b"2".to_vec())));
}

#[test]
fn blobs_that_are_here_are_unpacked_without_the_network() {
    let server = serve(three());
    let root = Root::new();
    root.pull(&at(&server)).unwrap();
    let before = server.count("/blobs/");
    std::fs::remove_dir_all(root.snapshots.path().join("layers")).unwrap();
    std::fs::create_dir(root.snapshots.path().join("layers")).unwrap();
    let pulled = root.pull(&at(&server)).unwrap();
    assert_eq!(server.count("/blobs/"), before);
    assert_eq!(root.read(&pulled, "etc/name").unwrap(), b"third");
}

#[test]
fn a_layer_is_unpacked_while_it_comes() {
    let layer = archive(&[("a-first", b"here"), ("z-last", &noise(1 << 20, 3))]);
    let made = image(&[(layer.clone(), layer)], host());
    let server = Server::new(move |request| Reply { slow: Duration::from_millis(40), ..made.reply(request) });
    let root = Root::new();
    let work = root.snapshots.path().join("tmp");
    std::thread::scope(|scope| {
        let pull = scope.spawn(|| root.pull(&at(&server)).unwrap());
        let begin = Instant::now();
        let file = || -> Option<PathBuf> {
            let claims = std::fs::read_dir(&work).ok()?;
            claims.flatten().map(|claim| claim.path().join("fs/a-first")).find(|path| path.exists())
        };
        while file().is_none() {
            assert!(
                !pull.is_finished() && begin.elapsed() < Duration::from_secs(20),
                "nothing is unpacked before the end"
            );
            std::thread::sleep(Duration::from_millis(5));
        }
        let seen = begin.elapsed();
        pull.join().unwrap();
        assert!(begin.elapsed() > seen + Duration::from_millis(500), "most of the layer came after its first file");
    });
}

#[test]
fn a_cancelled_pull_is_gone_on_with() {
    let (made, root) = (three(), Root::new());
    let size = made.blobs[made.layers[0].as_str()].len() as u64;
    let server = Server::new(move |request| Reply { slow: Duration::from_millis(2), ..made.reply(request) });
    let heard = Heard { stop_at: Some(size / 2), ..Heard::default() };
    let error = root.pull_with(&root.client(), &at(&server), &heard).unwrap_err();
    assert!(matches!(error, pull::Error::Cancelled | pull::Error::Registry(rrt_registry::Error::Cancelled)), "{error}");
    assert_eq!(root.images.load().unwrap().iter().count(), 0);
    assert!(root.count("ingest") > 0);
    let before = server.requests().len();
    let pulled = root.pull(&at(&server)).unwrap();
    assert_eq!(root.read(&pulled, "big").unwrap(), noise(2 << 20, 1));
    let resumed = server.requests()[before..].iter().filter_map(Request::range).map(|(begin, _)| begin as u64).max();
    assert!(resumed.is_some_and(|begin| begin >= size / 2), "{resumed:?}");
}

#[test]
fn what_has_a_wrong_digest_leaves_nothing() {
    let made = three();
    let (victim, root) = (made.layers[1].clone(), Root::new());
    // A layer like any other, of the right size, but not that one.
    let other = archive(&[("usr/bin/evil", b"second")]);
    let mut wrong = other.clone();
    wrong.resize(made.blobs[victim.as_str()].len().max(other.len()), 0);
    wrong.truncate(made.blobs[victim.as_str()].len());
    let bad = victim.clone();
    let server = Server::new(move |request| match request.path.ends_with(bad.as_str()) {
        true => Reply::blob(request, &wrong),
        false => made.reply(request),
    });
    let error = root.pull(&at(&server)).unwrap_err().to_string();
    assert!(error.contains(victim.short()) && error.contains("wrong content"), "{error}");
    assert_eq!(root.images.load().unwrap().iter().count(), 0);
    assert!(root.layers() <= 2 && !root.images.content().has(&victim));
}

#[test]
fn an_archive_that_the_configuration_does_not_name_leaves_nothing() {
    let (named, sent) = (archive(&[("a", b"1")]), archive(&[("a", b"2")]));
    let server = serve(image(&[(named.clone(), gzip(&sent))], host()));
    let root = Root::new();
    let error = root.pull(&at(&server)).unwrap_err().to_string();
    assert!(error.contains("has the diff id") && error.contains(sha256(&named).as_str()), "{error}");
    assert_eq!((root.images.load().unwrap().iter().count(), root.layers()), (0, 0));
}

#[test]
fn bytes_that_are_no_layer_are_named() {
    let nonsense = noise(100_000, 4);
    let server = serve(image(&[(nonsense.clone(), nonsense)], host()));
    let root = Root::new();
    let error = root.pull(&at(&server)).unwrap_err().to_string();
    assert!(error.contains("failed to register layer") && error.contains("team/app:1"), "{error}");
    assert_eq!(root.layers(), 0);
}

#[test]
fn images_that_are_none_for_here() {
    let layer = archive(&[("a", b"1")]);
    let foreign = image(&[(layer.clone(), layer.clone())], "s390x");
    let server = serve(foreign);
    let root = Root::new();
    let (client, heard) = (root.client(), Heard::default());
    let mut puller = root.puller(&client, &heard);
    puller.platform = Some("linux/amd64".parse().unwrap());
    let error = puller.pull(&at(&server)).unwrap_err().to_string();
    assert!(error.contains("platform (linux/s390x) does not match the specified platform (linux/amd64)"), "{error}");
    // Not asked for any: it is pulled, and told.
    puller.platform = None;
    puller.pull(&at(&server)).unwrap();
    assert!(heard.lines.lock().unwrap().iter().any(|line| line.contains("the image is for linux/s390x")));
    let mut made = image(&[(layer.clone(), layer.clone())], host());
    let mut manifest: serde_json::Value = serde_json::from_slice(&made.manifest).unwrap();
    manifest["config"]["mediaType"] = "application/vnd.example.chart".into();
    made.manifest = serde_json::to_vec(&manifest).unwrap();
    let error = root.pull(&at(&serve(made))).unwrap_err().to_string();
    assert!(
        error.contains("no container image but an artifact of the type \"application/vnd.example.chart\""),
        "{error}"
    );
    let mut made = image(&[(layer.clone(), layer)], host());
    let mut manifest: serde_json::Value = serde_json::from_slice(&made.manifest).unwrap();
    manifest["layers"] = serde_json::json!([]);
    made.manifest = serde_json::to_vec(&manifest).unwrap();
    let error = root.pull(&at(&serve(made))).unwrap_err().to_string();
    assert!(error.contains("its manifest has 0 layers, its configuration 1 of them"), "{error}");
}

#[test]
fn a_mirror_with_wrong_content_is_followed_by_the_registry() {
    let (made, root) = (three(), Root::new());
    let victim = made.layers[0].clone();
    let lie = noise(made.blobs[victim.as_str()].len(), 5);
    let mirror = Server::new(move |request| match request.path.ends_with(victim.as_str()) {
        true => Reply::blob(request, &lie),
        false => Reply::new(404, "{}"),
    });
    let server = serve(made);
    let mut config = config(&root.folder);
    config.settings.mirrors.insert(server.address.clone(), vec![format!("http://{}", mirror.address)]);
    let heard = Heard::default();
    let pulled = root.pull_with(&Client::new(config), &at(&server), &heard).unwrap();
    assert_eq!(root.read(&pulled, "big").unwrap(), noise(2 << 20, 1));
    assert!(
        heard
            .lines
            .lock()
            .unwrap()
            .iter()
            .any(|line| line.contains(&format!("mirror {} has wrong content", mirror.address)))
    );
}

#[test]
fn a_layer_twice_in_an_image_is_fetched_once() {
    let (layer, other) = (archive(&[("a", b"1")]), archive(&[("a", b"2")]));
    let server = serve(image(
        &[(layer.clone(), gzip(&layer)), (other.clone(), gzip(&other)), (layer.clone(), gzip(&layer))],
        host(),
    ));
    let root = Root::new();
    let pulled = root.pull(&at(&server)).unwrap();
    assert_eq!(server.count("/blobs/"), 3);
    assert_eq!(root.read(&pulled, "a").unwrap(), b"1");
}

#[test]
fn two_pulls_at_once_fetch_each_blob_once() {
    let made = three();
    let server = Server::new(move |request| Reply { slow: Duration::from_millis(1), ..made.reply(request) });
    let root = Root::new();
    let done = AtomicU32::new(0);
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                root.pull(&at(&server)).unwrap();
                done.fetch_add(1, Ordering::SeqCst);
            });
        }
    });
    assert_eq!(done.load(Ordering::SeqCst), 3);
    let layers = server.requests().iter().filter(|request| request.path.contains("/blobs/")).count();
    // The configuration is small enough to come more than once.
    assert!(layers <= 3 + 3, "{layers}");
}

#[test]
fn pushed_and_pulled_by_others() {
    if !has("docker-registry") || !has("skopeo") {
        return;
    }
    let (registry, root) = (Registry::plain(), Root::new());
    let (made, client) = (three(), root.client());
    let source = reference(format!("{}/team/app:1", registry.address));
    made.push(&client, &root.folder, &source);
    root.pull(&source).unwrap();
    let copy = reference(format!("{}/other/copy:x", registry.address));
    let heard = Heard::default();
    let pusher = Pusher { client: &client, images: &root.images, progress: &heard };
    assert!(matches!(pusher.push(&copy).unwrap_err(), push::Error::NoTag(_)));
    root.images.tag(&source.to_string(), &copy).unwrap();
    let heard = Heard::default();
    let pusher = Pusher { client: &client, images: &root.images, progress: &heard };
    let pushed = pusher.push(&copy).unwrap();
    assert_eq!(pushed.digest, made.digest());
    let phases = heard.layers.lock().unwrap().clone();
    assert!(
        phases.iter().any(|(_, phase)| phase == "Mounted from team/app")
            && phases.iter().all(|(_, phase)| phase != "Pushing")
    );
    let lines = heard.lines.lock().unwrap().clone();
    assert_eq!(lines[0], format!("The push refers to repository [{}/other/copy]", registry.address));
    assert_eq!(lines[1], format!("x: digest: {} size: {}", pushed.digest, pushed.size));
    let raw = Command::new("skopeo")
        .args(["inspect", "--raw", "--tls-verify=false", &format!("docker://{copy}")])
        .output()
        .unwrap();
    assert_eq!(raw.stdout, made.manifest);
    // Another registry has nothing yet; the second time it has all.
    let other = Registry::plain();
    let far = reference(format!("{}/far:1", other.address));
    root.images.tag(&source.to_string(), &far).unwrap();
    for phase in ["Pushed", "Layer already exists"] {
        let heard = Heard::default();
        let pusher = Pusher { client: &client, images: &root.images, progress: &heard };
        assert_eq!(pusher.push(&far).unwrap().digest, made.digest());
        let layers = root.images.resolve(&far.to_string()).unwrap().layers;
        assert!(layers.iter().all(|layer| heard.last(&layer.diff_id) == phase), "{phase}");
    }
    let digests = root.images.resolve(&far.to_string()).unwrap().digests;
    assert!(digests.contains(&far.with_digest(made.digest())));
    let error = pusher.push(&source.with_digest(made.digest())).unwrap_err().to_string();
    assert_eq!(error, "cannot push a digest reference");
    // All tags of a repository.
    for tag in ["a", "b"] {
        root.images.tag(&source.to_string(), &far.with_tag(tag).unwrap()).unwrap();
    }
    assert_eq!(pusher.push_all(&far).unwrap().len(), 3);
    assert_eq!(client.tags(&far).unwrap(), ["1", "a", "b"]);
    let all = Root::new();
    assert_eq!(all.puller(&client, &Heard::default()).pull_all(&far).unwrap().len(), 3);
    assert_eq!(all.images.load().unwrap().iter().next().unwrap().tags.len(), 3);
}

#[test]
fn an_index_is_pulled_for_one_platform_and_pushed_when_all_is_here() {
    if !has("docker-registry") {
        return;
    }
    let (registry, root) = (Registry::plain(), Root::new());
    let client = root.client();
    let name = reference(format!("{}/multi:1", registry.address));
    let mut entries = Vec::new();
    for (at, architecture) in ["amd64", "arm64"].into_iter().enumerate() {
        let layer = archive(&[("name", architecture.as_bytes())]);
        let made = image(&[(layer.clone(), gzip(&layer))], architecture);
        made.push(&client, &root.folder, &name.with_tag(&format!("p{at}")).unwrap());
        let mut entry = Descriptor::new(kind::OCI_MANIFEST, made.digest(), made.manifest.len() as u64);
        entry.platform = Some(format!("linux/{architecture}").parse().unwrap());
        entries.push(entry);
    }
    let index = Index {
        schema_version: 2,
        media_type: kind::OCI_INDEX.to_owned(),
        artifact_type: None,
        manifests: entries.clone(),
        subject: None,
        annotations: Default::default(),
    };
    let bytes = serde_json::to_vec(&index).unwrap();
    client.push_manifest(&name, kind::OCI_INDEX, &bytes).unwrap();
    let heard = Heard::default();
    let mut puller = root.puller(&client, &heard);
    puller.platform = Some("linux/arm64".parse().unwrap());
    let pulled = puller.pull(&name).unwrap();
    assert_eq!(
        (pulled.target.digest.clone(), root.read(&pulled, "name").unwrap()),
        (sha256(&bytes), b"arm64".to_vec())
    );
    assert_eq!(pulled.image.manifest.digest, entries[1].digest);
    puller.platform = Some("linux/s390x".parse().unwrap());
    let error = puller.pull(&name).unwrap_err().to_string();
    assert!(
        error.contains("no matching manifest for linux/s390x") && error.contains("linux/amd64, linux/arm64"),
        "{error}"
    );
    // One platform is here: that is pushed. With the other one here, too, it is the index.
    let there = Registry::plain();
    let far = reference(format!("{}/multi:1", there.address));
    root.images.tag(&name.to_string(), &far).unwrap();
    let pusher = Pusher { client: &client, images: &root.images, progress: &heard };
    assert_eq!(pusher.push(&far).unwrap().digest, entries[1].digest);
    puller.platform = Some("linux/amd64".parse().unwrap());
    puller.pull(&name).unwrap();
    root.images.tag(&name.to_string(), &far).unwrap();
    assert_eq!(pusher.push(&far).unwrap().digest, sha256(&bytes));
    assert_eq!(client.resolve(&far).unwrap().1, bytes);
}
