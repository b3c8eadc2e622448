//! What listing many images costs: makes a root with COUNT images of 8 layers each, then loads, filters and sorts them, 20 times.
//!
//!     cargo run --release -p rrt-images --example many_images -- [COUNT, else 1000]

use rrt_content::{Hasher, Store};
use rrt_images::names::{Filters, Image, ImageStore};
use rrt_oci::image::{Descriptor, ImageConfig, Manifest, Reference};
use std::collections::BTreeMap;
use std::error::Error;
use std::fs;
use std::time::{Duration, Instant};

fn main() -> Result<(), Box<dyn Error>> {
    let count: usize = std::env::args().nth(1).map_or(Ok(1000), |text| text.parse())?;
    let root = std::env::temp_dir().join(format!("rrt-many-images-{}", std::process::id()));
    let result = measure(&root, count);
    fs::remove_dir_all(&root)?;
    result
}

fn measure(root: &std::path::Path, count: usize) -> Result<(), Box<dyn Error>> {
    let store = ImageStore::open(&Store::open(root)?)?;
    let begin = Instant::now();
    for n in 0..count {
        store.add(image(&store, n)?)?;
    }
    let file = fs::metadata(root.join("images.json"))?.len();
    println!("{count} images added in {:.1?}; images.json has {file} bytes", begin.elapsed());
    let mut filters = Filters::default();
    filters.references.push("registry.example/*/app*".to_owned());
    let mut times = [Vec::new(), Vec::new(), Vec::new()];
    for _ in 0..20 {
        let begin = Instant::now();
        let images = ImageStore::open(&Store::open(root)?)?.load()?;
        times[0].push(begin.elapsed());
        let listed = images.list(&filters, &|_| BTreeMap::new())?;
        times[1].push(begin.elapsed());
        assert_eq!(listed.len(), count);
        let begin = Instant::now();
        store.tag(&format!("registry.example/team/app{}:1", count / 2), &"moved:1".parse()?)?;
        store.remove("moved:1", false, &|_| Vec::new())?;
        times[2].push(begin.elapsed());
    }
    let report = |what: &str, times: &mut Vec<Duration>| {
        times.sort();
        println!("{what}: minimum {:.2?}, median {:.2?}", times[0], times[times.len() / 2]);
    };
    report("open and load", &mut times[0]);
    report("open, load, filter by name, sort", &mut times[1]);
    report("tag and untag", &mut times[2]);
    Ok(())
}

fn image(store: &ImageStore, n: usize) -> Result<Image, Box<dyn Error>> {
    let lease = store.content().lease()?;
    let put = |text: String| -> Result<Descriptor, rrt_content::Error> {
        Ok(Descriptor::new("x", store.content().put(&lease, text.as_bytes())?, text.len() as u64))
    };
    // Four of the layers are every image's.
    let layers = (0..8).map(|l| put(if l < 4 { format!("base {l}") } else { format!("layer {l} of {n}") }));
    let layers = layers.collect::<Result<Vec<_>, _>>()?;
    let mut config = ImageConfig { architecture: "amd64".into(), os: "linux".into(), ..ImageConfig::default() };
    config.created = Some(format!("2026-{:02}-{:02}T12:00:00.123456789Z", n % 12 + 1, n % 28 + 1));
    config.rootfs.diff_ids = layers.iter().map(|l| Hasher::digest_of("sha256", l.digest.as_str().as_bytes())).collect();
    let document = Manifest {
        schema_version: 2,
        media_type: String::new(),
        artifact_type: None,
        config: put(serde_json::to_string(&config)?)?,
        layers,
        subject: None,
        annotations: BTreeMap::new(),
    };
    let manifest = put(serde_json::to_string(&document)?)?;
    let target = put(format!("index {n}"))?;
    let reference: Reference = format!("registry.example/team/app{n}:1").parse()?;
    let mut image = Image::new(target.clone(), manifest, &document, &config, &[1 << 20; 8], n as i64);
    image.digests.insert(reference.with_digest(target.digest));
    image.tags.insert(reference, n as i64);
    Ok(image)
}
