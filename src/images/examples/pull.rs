//! Pulls one image and says what it took: `pull ROOT REFERENCE`. For measuring.

use rrt_content::Store;
use rrt_images::layer::Options;
use rrt_images::names::ImageStore;
use rrt_images::progress::Silent;
use rrt_images::pull::Puller;
use rrt_images::snapshots::Snapshots;
use rrt_registry::{Client, Config};
use std::error::Error;
use std::path::PathBuf;
use std::time::Instant;

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let root = PathBuf::from(arguments.next().ok_or("usage: pull ROOT REFERENCE")?);
    let reference = arguments.next().ok_or("usage: pull ROOT REFERENCE")?.parse()?;
    let begin = Instant::now();
    let client = Client::new(Config::of_user(None)?);
    let images = ImageStore::open(&Store::open(&root)?)?;
    let snapshots = Snapshots::open(&root, None)?;
    let options = Options::default();
    let puller =
        Puller { client: &client, images: &images, snapshots: &snapshots, progress: &Silent, options, platform: None };
    let pulled = puller.pull(&reference)?;
    let status = std::fs::read_to_string("/proc/self/status")?;
    let peak = status.lines().find(|line| line.starts_with("VmHWM")).unwrap_or_default();
    println!("{} {:.2} s, {peak}", pulled.image.id.short(), begin.elapsed().as_secs_f64());
    Ok(())
}
