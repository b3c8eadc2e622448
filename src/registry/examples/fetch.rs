//! Fetches the blobs of one image into a store, one after the other, without unpacking, and says what it took: `fetch ROOT REFERENCE [RANGES]`.
//! For measuring beside `skopeo copy … dir:`.

use rrt_content::{Ingest, Store};
use rrt_oci::image::Manifest;
use rrt_registry::{Client, Config, Unwatched};
use std::error::Error;
use std::path::PathBuf;
use std::time::Instant;

fn main() -> Result<(), Box<dyn Error>> {
    let usage = "usage: fetch ROOT REFERENCE [RANGES]";
    let mut arguments = std::env::args().skip(1);
    let root = PathBuf::from(arguments.next().ok_or(usage)?);
    let reference = arguments.next().ok_or(usage)?.parse()?;
    let mut config = Config::of_user(None)?;
    if let Some(ranges) = arguments.next() {
        config.ranges = ranges.parse()?;
    }
    let begin = Instant::now();
    let client = Client::new(config);
    let store = Store::open(&root)?;
    let lease = store.lease()?;
    let (_, bytes) = client.resolve(&reference)?;
    let manifest: Manifest = serde_json::from_slice(&bytes)?;
    let mut sum = 0;
    for blob in manifest.layers.iter().chain([&manifest.config]) {
        if let Ingest::Write(mut writer) = store.ingest(&lease, &blob.digest, Some(blob.size))? {
            client.fetch(&reference, blob, &mut writer, &Unwatched)?;
            writer.commit()?;
            sum += blob.size;
        }
    }
    let seconds = begin.elapsed().as_secs_f64();
    let status = std::fs::read_to_string("/proc/self/status")?;
    let peak = status.lines().find(|line| line.starts_with("VmHWM")).unwrap_or_default();
    println!("{seconds:.2} s, {:.0} MB/s, {peak}", sum as f64 / 1e6 / seconds);
    Ok(())
}
