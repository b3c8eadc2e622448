//! What snapshots cost: a container's root on 60 layers, and the commit of 10,000 files.
//!
//!     cargo run --release -p rrt-images --example snapshot_cost -- DIRECTORY [DRIVER]

use rrt_content::Store;
use rrt_images::commit::{Commit, commit};
use rrt_images::layer::Packing;
use rrt_images::snapshots::{Preparation, Snapshots};
use rrt_oci::image::Digest;
use std::path::Path;
use std::time::{Duration, Instant};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let root = arguments.next().ok_or("a directory is needed")?;
    let driver = arguments.next().unwrap_or_else(|| "overlay2".to_owned());
    let snapshots = Snapshots::open(Path::new(&root), Some(&driver))?;
    let layers: Vec<Digest> = (1..=60).map(|n| format!("sha256:{n:064x}").parse()).collect::<Result<_, _>>()?;
    for n in 1..=layers.len() {
        if let Preparation::Unpack(prepared) = snapshots.prepare(&layers[..n])? {
            for file in 0..20 {
                std::fs::write(prepared.path().join(format!("f{n}-{file}")), "some content")?;
            }
            snapshots.commit(prepared, &[])?;
        }
    }
    snapshots.sync()?;
    let mut times: [Vec<Duration>; 4] = Default::default();
    for n in 0..50 {
        let id = format!("c{n}");
        let mut begin = Instant::now();
        let mut lap = |place: usize| times[place].push(std::mem::replace(&mut begin, Instant::now()).elapsed());
        snapshots.create(&id, &layers, true)?;
        lap(0);
        snapshots.mount(&id)?;
        lap(1);
        snapshots.unmount(&id)?;
        lap(2);
        snapshots.remove(&id)?;
        lap(3);
    }
    for (what, times) in ["create", "mount", "unmount", "remove"].iter().zip(&mut times) {
        times.sort();
        println!("60 layers, {what}: {:?} (the fastest {:?}, the slowest {:?})", times[25], times[0], times[49]);
    }
    many_files(Path::new(&root), &snapshots, &layers[..1])
}

fn many_files(root: &Path, snapshots: &Snapshots, layers: &[Digest]) -> Result<(), Box<dyn std::error::Error>> {
    snapshots.create("many", layers, true)?;
    let merged = snapshots.mount("many")?;
    for directory in 0..100 {
        let directory = merged.join(format!("d{directory}"));
        std::fs::create_dir(&directory)?;
        for file in 0..100 {
            let line = format!("line {file} of a file that repeats itself\n");
            std::fs::write(directory.join(format!("f{file}")), line.repeat(100))?;
        }
    }
    let content = Store::open(root)?;
    for packing in [Packing::Plain, Packing::Zstd(3), Packing::Gzip(6), Packing::Gzip(1)] {
        let lease = content.lease()?;
        let begin = Instant::now();
        let image = commit(&content, &lease, snapshots, "many", &Commit { packing, ..Commit::default() })?;
        println!("10,000 files, commit, {packing:?}: {:?}, {} bytes", begin.elapsed(), image.layers[0].size);
    }
    let begin = Instant::now();
    let changes = rrt_images::diff::changes(snapshots, "many")?.len();
    println!("10,000 files, diff: {:?}, {changes} changes", begin.elapsed());
    Ok(snapshots.remove("many")?)
}
