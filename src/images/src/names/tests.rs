use super::*;
use rrt_oci::image::{Descriptor, Platform};
use std::collections::BTreeSet;

fn digest(text: &str) -> Digest {
    rrt_content::Hasher::digest_of("sha256", text.as_bytes())
}

fn name(text: &str) -> Reference {
    text.parse().unwrap()
}

/// An image whose layers are called as the letters of `layers`, of 10 bytes each.
fn image(id: &str, layers: &str, names: &[&str]) -> Image {
    let layer = |c: char| Layer {
        digest: digest(&format!("blob {c}")),
        size: 4,
        diff_id: digest(&c.to_string()),
        unpacked: 10,
    };
    let names: Vec<Reference> = names.iter().map(|text| name(text)).collect();
    Image {
        id: digest(id),
        target: Descriptor::new("index", digest(&format!("index {id}")), 3),
        manifest: Descriptor::new("manifest", digest(&format!("manifest {id}")), 2),
        platform: Platform::host(),
        created: Some(format!("2026-01-0{}T00:00:00Z", id.len())),
        added: 1,
        config_size: 1,
        layers: layers.chars().map(layer).collect(),
        tags: names.iter().filter(|n| n.tag().is_some()).map(|n| (n.clone(), 1)).collect(),
        digests: names.into_iter().filter(|n| n.digest().is_some()).collect::<BTreeSet<_>>(),
    }
}

fn images(all: impl IntoIterator<Item = Image>) -> Images {
    let mut images = Images::default();
    all.into_iter().for_each(|image| images.add(image));
    images
}

fn at(repository: &str, id: &str) -> String {
    format!("{repository}@{}", digest(&format!("index {id}")))
}

fn nobody(_: &Image) -> Vec<User> {
    Vec::new()
}

fn lines(removed: &[Removed]) -> Vec<String> {
    removed.iter().map(Removed::to_string).collect()
}

#[test]
fn what_a_user_types_is_found() {
    let all =
        images([image("a", "xy", &["app:1", "app:latest", &at("app", "a")]), image("bb", "x", &["host:5000/app:1"])]);
    let id = |text: &str| all.resolve(text).map(|image| image.id.clone()).map_err(|e| e.to_string());
    let a = digest("a");
    for text in [
        "app",
        "app:1",
        "docker.io/library/app",
        a.as_str(),
        a.hex(),
        a.short(),
        &a.as_str()[..12],
        &at("app", "a"),
        &at("app:1", "a"),
        digest("manifest a").as_str(),
        &format!("app@{}", digest("manifest a")),
    ] {
        assert_eq!(id(text), Ok(a.clone()), "{text}");
    }
    assert_eq!(id("host:5000/app:1"), Ok(digest("bb")));
    for (text, error) in [
        ("nosuch", "No such image: nosuch:latest"),
        ("app:2", "No such image: app:2"),
        (&at("other", "a"), &format!("No such image: {}", at("other", "a"))),
        (digest("c").as_str(), &format!("No such image: {}", digest("c"))),
        ("0000", "No such image: 0000:latest"),
        ("", "invalid reference \"\": a part of the repository's name is empty"),
    ] {
        assert_eq!(id(text), Err(error.to_owned()));
    }
    assert!(id("App").unwrap_err().contains("lower case"));
}

#[test]
fn a_short_id_is_of_one_image_and_a_name_goes_first() {
    let many: Vec<Image> = (0..20).map(|n| image(&"i".repeat(n + 1), "x", &[])).collect();
    let first = many[0].id.hex()[..1].to_owned();
    let twice = many.iter().filter(|i| i.id.hex().starts_with(&first)).count() > 1;
    assert!(twice, "20 ids share first digits");
    let mut all = images(many.clone());
    assert_eq!(
        all.resolve(&first).unwrap_err().to_string(),
        format!("multiple IDs found with provided prefix: {first}")
    );
    assert_eq!(
        all.resolve(&format!("sha256:{first}")).unwrap_err().to_string(),
        format!("multiple IDs found with provided prefix: sha256:{first}")
    );
    all.tag(&many[3].id, &name(&first), 1).unwrap();
    assert_eq!(all.resolve(&first).unwrap().id, many[3].id);
}

#[test]
fn a_name_belongs_to_one_image() {
    let mut all = images([image("a", "x", &["app:1"]), image("bb", "x", &["app:1", "app:2"])]);
    assert!(all.get(&digest("a")).unwrap().is_dangling());
    all.tag(&digest("a"), &name("app"), 7).unwrap();
    all.tag(&digest("a"), &name("app:2"), 8).unwrap();
    let tags =
        |all: &Images, id: &str| all.get(&digest(id)).unwrap().tags.keys().map(|n| n.familiar()).collect::<Vec<_>>();
    assert_eq!((tags(&all, "a"), tags(&all, "bb")), (vec!["app:2".into(), "app:latest".into()], vec!["app:1".into()]));
    let error = |r: Result<(), Error>| r.unwrap_err().to_string();
    assert_eq!(
        error(all.tag(&digest("a"), &name(&at("app", "a")), 1)),
        "refusing to create a tag with a digest reference"
    );
    assert!(error(all.tag(&digest("a"), &name("sha256:1"), 1)).contains("digest algorithm as name"));
    assert!(error(all.tag(&digest("none"), &name("x"), 1)).starts_with("No such image: sha256:"));
    // Pulled again, with other documents: names stay.
    let mut again = image("a", "x", &["new:1"]);
    again.target.digest = digest("another index");
    all.add(again);
    assert_eq!(tags(&all, "a"), ["app:2", "app:latest", "new:1"]);
    assert_eq!(all.get(&digest("a")).unwrap().target.digest, digest("another index"));
}

#[test]
fn the_last_name_takes_the_image_along() {
    let mut all = images([image("a", "xyz", &["app:1", "app:2", &at("app", "a")]), image("bb", "xw", &["other:1"])]);
    assert_eq!(lines(&all.remove("app:2", false, &nobody).unwrap()), ["Untagged: app:2"]);
    let chain = |below: &Digest, top: &str| digest(&format!("{below} {}", digest(top)));
    let (y, z) = (chain(&digest("x"), "y"), chain(&chain(&digest("x"), "y"), "z"));
    let expected = [
        "Untagged: app:1".to_owned(),
        format!("Untagged: {}", at("app", "a")),
        format!("Deleted: {}", digest("a")),
        format!("Deleted: {z}"),
        format!("Deleted: {y}"),
    ];
    assert_eq!(lines(&all.remove("app:1", false, &nobody).unwrap()), expected);
    assert_eq!(all.iter().count(), 1);
    assert_eq!(all.remove("app:1", true, &nobody).unwrap_err().to_string(), "No such image: app:1");
}

#[test]
fn an_id_with_names_of_several_repositories_needs_force() {
    let two = || images([image("a", "x", &["app:1", "other:1", &at("app", "a")])]);
    let id = digest("a");
    let conflict = format!(
        "conflict: unable to delete {} (must be forced) - image is referenced in multiple repositories",
        id.short()
    );
    assert_eq!(two().remove(id.short(), false, &nobody).unwrap_err().to_string(), conflict);
    let mut tags = images([image("a", "x", &["app:1", "app:2"])]);
    assert_eq!(tags.remove(id.short(), false, &nobody).unwrap_err().to_string(), conflict);
    let mut forced = two();
    let removed = lines(&forced.remove(id.hex(), true, &nobody).unwrap());
    assert_eq!((removed.len(), removed[0].as_str(), forced.iter().count()), (5, "Untagged: app:1", 0));
    let mut single = images([image("a", "x", &["app:1", &at("app", "a")])]);
    assert_eq!(lines(&single.remove(id.short(), false, &nobody).unwrap()).len(), 4);
    let mut dangling = images([image("a", "x", &[])]);
    assert_eq!(lines(&dangling.remove(id.short(), false, &nobody).unwrap()).len(), 2);
}

#[test]
fn containers_keep_their_image() {
    let id = digest("a");
    let one = || images([image("a", "x", &["app:1"])]);
    let user = |running| move |_: &Image| vec![User { id: "c0ffee".repeat(10), running }];
    let error = |images: &mut Images, text: &str, force, running| {
        images.remove(text, force, &user(running)).unwrap_err().to_string()
    };
    for running in [true, false] {
        let expected = format!(
            "conflict: unable to remove repository reference \"app:1\" (must force) - container c0ffeec0ffee is using its referenced image {}",
            id.short()
        );
        assert_eq!(error(&mut one(), "app:1", false, running), expected);
    }
    let cannot = format!(
        "conflict: unable to delete {} (cannot be forced) - image is being used by running container c0ffeec0ffee",
        id.short()
    );
    assert_eq!(error(&mut one(), id.short(), true, true), cannot);
    let must = format!(
        "conflict: unable to delete {} (must be forced) - image is being used by stopped container c0ffeec0ffee",
        id.short()
    );
    assert_eq!(error(&mut one(), id.short(), false, false), must);
    let mut stopped = one();
    assert_eq!(stopped.remove(id.short(), true, &user(false)).unwrap().len(), 3);
    // By name and force, the running container's image stays without one.
    let mut running = one();
    assert_eq!(lines(&running.remove("app:1", true, &user(true)).unwrap()), ["Untagged: app:1"]);
    assert!(running.get(&id).unwrap().is_dangling());
    // One of several names may always go.
    let mut two = images([image("a", "x", &["app:1", "app:2"])]);
    assert_eq!(lines(&two.remove("app:2", false, &user(true)).unwrap()), ["Untagged: app:2"]);
}

#[test]
fn pruning_takes_what_has_no_tag_or_no_container() {
    let all = || images([image("a", "x", &["app:1"]), image("bb", "y", &[&at("app", "bb")]), image("ccc", "z", &[])]);
    let ids = |removed: &[Removed]| removed.iter().filter(|r| matches!(r, Removed::Deleted(_))).count() / 2;
    assert_eq!(ids(&all().prune(false, None, &|_| true, &nobody)), 2);
    assert_eq!(ids(&all().prune(true, None, &|_| true, &nobody)), 3);
    assert_eq!(ids(&all().prune(true, Time::parse("2026-01-02T00:00:00Z"), &|_| true, &nobody)), 2);
    assert_eq!(ids(&all().prune(true, None, &|i| i.id == digest("a"), &nobody)), 1);
    assert_eq!(
        ids(&all().prune(true, None, &|_| true, &|i| match i.id == digest("a") {
            true => vec![User { id: "c".into(), running: false }],
            false => vec![],
        })),
        2
    );
}

#[test]
fn lists_are_filtered_and_newest_first() {
    let all = images([
        image("a", "x", &["app:1", "app:2", "user/app:1"]),
        image("bb", "y", &[&at("app", "bb")]),
        image("ccc", "z", &[]),
    ]);
    let list = |filters: &[&str]| {
        let mut parsed = Filters::default();
        for text in filters {
            parsed.add(text, Time::parse("2026-01-04T00:00:00Z").unwrap()).map_err(|e| e.to_string())?;
        }
        let labels = |i: &Image| BTreeMap::from([("id".to_owned(), i.id.to_string()), ("l".to_owned(), String::new())]);
        let listed = all.list(&parsed, &labels).map_err(|e| e.to_string())?;
        let letter = |id: &Digest| ["a", "bb", "ccc"].into_iter().find(|l| digest(l) == *id).unwrap();
        Ok::<String, String>(
            listed.iter().map(|l| format!("{}{} ", letter(&l.image.id), l.tags.len() + l.digests.len())).collect(),
        )
    };
    assert_eq!(list(&[]).unwrap(), "ccc0 bb1 a3 ");
    assert_eq!(list(&["dangling=true"]).unwrap(), "ccc0 bb1 ");
    assert_eq!(list(&["dangling=0"]).unwrap(), "a3 ");
    assert_eq!(list(&["reference=app"]).unwrap(), "bb1 a2 ");
    assert_eq!(list(&["reference=a*:1"]).unwrap(), "a1 ");
    assert_eq!(list(&["reference=*/app", "reference=app:2"]).unwrap(), "a2 ");
    assert_eq!(list(&["before=ccc"]).unwrap_err(), "No such image: ccc:latest");
    assert_eq!(list(&[&format!("before={}", digest("ccc").short())]).unwrap(), "bb1 a3 ");
    assert_eq!(list(&["since=app:1"]).unwrap(), "ccc0 bb1 ");
    assert_eq!(list(&["until=48h"]).unwrap(), "a3 ");
    assert_eq!(list(&["label=l"]).unwrap(), "ccc0 bb1 a3 ");
    assert_eq!(list(&["label=l=x"]).unwrap(), "");
    assert_eq!(list(&[&format!("label=id={}", digest("a"))]).unwrap(), "a3 ");
    assert_eq!(list(&[&format!("label!=id={}", digest("a"))]).unwrap(), "ccc0 bb1 ");
    for (bad, why) in [
        ("dangling", "expected name=value"),
        ("dangling=maybe", "true or false"),
        ("nonsense=1", "the filters are"),
        ("until=soon", "how long ago"),
        ("reference=[", "syntax error in pattern"),
    ] {
        assert!(list(&[bad]).unwrap_err().contains(why), "{bad}");
    }
}

#[test]
fn shared_layers_count_once() {
    let all = images([image("a", "xxy", &["app:1"]), image("bb", "xz", &["app:2"])]);
    let usage = all.disk_usage(|image| image.id == digest("bb"));
    assert_eq!(usage, DiskUsage { count: 2, active: 1, size: 30, reclaimable: 10 });
    assert_eq!((all.shared_sizes()[&digest("a")], all.shared_sizes()[&digest("bb")]), (20, 10));
    let a = all.get(&digest("a")).unwrap();
    assert_eq!((a.size(), a.content_size(), all.roots().len()), (30, 3 + 2 + 1 + 3 * 4, 6 + 3));
}

/// A root that goes with the value.
struct Root(PathBuf);

impl Drop for Root {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn root(test: &str) -> (Root, ImageStore) {
    let path = std::env::temp_dir().join(format!("rrt-images-{test}-{}", std::process::id()));
    let _ = fs::remove_dir_all(&path);
    let store = ImageStore::open(&Store::open(&path).unwrap()).unwrap();
    (Root(path), store)
}

/// Writes an image's blobs; every digest is then that of a real one.
fn stored(store: &ImageStore, lease: &Lease, id: &str, layers: &str, names: &[&str]) -> Image {
    let mut image = image(id, layers, names);
    let put = |text: &str| store.content().put(lease, text.as_bytes()).unwrap();
    put(&format!("index {id}"));
    put(&format!("manifest {id}"));
    let config = format!("{{\"rootfs\":{{\"type\":\"layers\"}},\"config\":{{\"Labels\":{{\"id\":\"{id}\"}}}}}}");
    image.id = put(&config);
    layers.chars().for_each(|c| drop(put(&format!("blob {c}"))));
    image
}

#[test]
fn the_file_is_replaced_and_garbage_goes() {
    let (root, store) = root("file");
    assert_eq!(store.load().unwrap(), Images::default());
    let lease = store.content().lease().unwrap();
    let a = stored(&store, &lease, "a", "xy", &["app:1"]);
    let b = stored(&store, &lease, "bb", "xz", &["app:2"]);
    store.add(a.clone()).unwrap();
    store.add(b.clone()).unwrap();
    assert_eq!(store.load().unwrap(), images([a.clone(), b.clone()]));
    assert_eq!(store.tag("app:1", &name("app")).unwrap(), a.id);
    store.add_digest(&a.id, &name(&at("app", "a"))).unwrap();
    let mut filters = Filters::default();
    filters.add("label=id=a", Time::now()).unwrap();
    let all = store.load().unwrap();
    assert_eq!(all.list(&filters, &|i| store.labels(i)).unwrap().len(), 1);
    drop(lease);

    let lease = store.content().lease().unwrap();
    assert_eq!(store.hold(&lease, "app:2").unwrap(), b);
    assert_eq!(store.remove("app:2", false, &nobody).unwrap().collected, Collected::default());
    drop(lease);
    // What the lease held goes with the next one, and the layer that both have stays.
    let removal = store.remove("app:1", false, &nobody).unwrap();
    assert_eq!((removal.removed.len(), removal.collected.blobs), (1, 0));
    assert_eq!(store.collect(Duration::ZERO).unwrap().blobs, 4);
    a.blobs().for_each(|blob| assert!(store.content().has(blob)));
    assert!(matches!(store.add(b), Err(Error::Incomplete { .. })));
    let removal = store.prune(true, &Filters::default(), &nobody).unwrap();
    assert_eq!((removal.collected.blobs, store.content().blobs().unwrap().len()), (5, 0));
    fs::write(root.0.join("images.json"), "{\"version\":2,\"images\":[]}").unwrap();
    assert!(store.load().unwrap_err().to_string().ends_with("version 2, where 1 is known"));
    fs::write(root.0.join("images.json"), "{\"version\":1,\"ima").unwrap();
    assert!(store.tag("app", &name("x")).unwrap_err().to_string().contains("images.json is damaged"));
}

#[test]
fn a_change_that_fails_changes_nothing() {
    let (root, store) = root("fails");
    let lease = store.content().lease().unwrap();
    store.add(stored(&store, &lease, "a", "x", &["app:1", "other:1"])).unwrap();
    let before = fs::read(root.0.join("images.json")).unwrap();
    let id = store.resolve("app:1").unwrap().id;
    store.remove(id.short(), false, &nobody).unwrap_err();
    store.tag("nosuch", &name("x")).unwrap_err();
    assert_eq!(fs::read(root.0.join("images.json")).unwrap(), before);
}

#[test]
fn damaged_and_missing_blobs_are_reported() {
    let (_root, store) = root("check");
    let lease = store.content().lease().unwrap();
    let a = stored(&store, &lease, "a", "xy", &["app:1"]);
    store.add(a.clone()).unwrap();
    store.add(stored(&store, &lease, "bb", "x", &[])).unwrap();
    assert_eq!(store.check(&mut |_| ()).unwrap(), []);
    let [x, y] = [&a.layers[0].digest, &a.layers[1].digest];
    fs::write(store.content().path(x), "blob X").unwrap();
    fs::remove_file(store.content().path(y)).unwrap();
    let mut seen = 0;
    let mut problems = store.check(&mut |_| seen += 1).unwrap();
    problems.sort_by_key(|problem| problem.damaged);
    let b = store.load().unwrap().iter().find(|i| i.is_dangling()).unwrap().id.short().to_owned();
    problems[1].images.sort();
    let mut both = vec!["app:1".to_owned(), b];
    both.sort();
    assert_eq!(
        problems,
        [
            Problem { blob: y.clone(), damaged: false, images: vec!["app:1".to_owned()] },
            Problem { blob: x.clone(), damaged: true, images: both },
        ]
    );
    assert_eq!((seen, store.content().has(x)), (8, false));
    stored(&store, &lease, "a", "xy", &[]);
    assert_eq!(store.check(&mut |_| ()).unwrap(), []);
}

/// After a crash of the machine, a blob that no image has may be anything.
#[test]
fn the_first_command_after_a_boot_reads_what_may_not_be_on_the_disk() {
    let (root, store) = root("boot");
    let lease = store.content().lease().unwrap();
    let a = stored(&store, &lease, "a", "x", &["app:1"]);
    store.add(a.clone()).unwrap();
    let [good, torn] = [b"good", b"torn"].map(|bytes| store.content().put(&lease, bytes).unwrap());
    fs::write(store.content().path(&torn), "").unwrap();
    ImageStore::open(store.content()).unwrap();
    assert!(store.content().has(&torn), "the same boot");
    fs::write(root.0.join("boot"), "another").unwrap();
    ImageStore::open(store.content()).unwrap();
    assert!(store.content().has(&good) && !store.content().has(&torn) && store.content().has(&a.id));
    assert!(!store.content().first_since_boot());
}
