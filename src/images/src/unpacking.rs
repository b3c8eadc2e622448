//! Layers from their blobs to snapshots.

use crate::Error;
use crate::layer::{self, Options, Target, unpack};
use crate::names::ImageStore;
use crate::progress::{Phase, Progress};
use crate::snapshots::{Preparation, Snapshots};
use rrt_content::{Lease, Store};
use rrt_oci::image::{Descriptor, Digest};
use std::collections::{HashMap, VecDeque};
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::sync::Mutex;

/// A layer that is to be there: its blob, and what its image says that is in it.
pub struct Wanted {
    /// The blob.
    pub blob: Descriptor,
    /// The digest of the archive in it.
    pub diff_id: Digest,
}

/// Unpacks those of an image's layers (lowest first) that are not there, two at a time where the driver lets them be independent, and
/// verifies all diff ids of what is unpacked. Returns the bytes of each layer's files. Nothing is named and nothing synced: see
/// [`Snapshots::sync`].
///
/// # Errors
/// A blob that is missing or no layer, or not the one that the image says. Layers that were unpacked until then stay, whole.
pub fn unpack_layers(
    images: &ImageStore,
    lease: &Lease,
    snapshots: &Snapshots,
    layers: &[Wanted],
    progress: &dyn Progress,
) -> Result<Vec<u64>, Error> {
    let content = images.content();
    let diff_ids: Vec<Digest> = layers.iter().map(|layer| layer.diff_id.clone()).collect();
    for layer in layers {
        lease.add(&layer.blob.digest)?;
        // First leased, then looked for: nobody collects it in between.
        lease.add(&layer.diff_id)?;
    }
    let known = sizes(images)?;
    let job = Job { content, snapshots, layers, diff_ids: &diff_ids, known: &known, progress };
    // A layer that an image has twice (old Dockers wrote an empty one for each step) is unpacked once, where layers are independent.
    let first = |n: &usize| !snapshots.independent() || !diff_ids[..*n].contains(&diff_ids[*n]);
    let queue: VecDeque<usize> = (0..layers.len()).filter(first).collect();
    let most = if snapshots.independent() { queue.len().min(2) } else { 1 };
    let queue = Mutex::new(queue);
    let take = || queue.lock().unwrap_or_else(|e| e.into_inner()).pop_front();
    let work = || -> Result<Vec<Seen>, Error> {
        let mut all = Vec::new();
        while let Some(n) = take() {
            // After a failure nobody begins another.
            let done = job.one(n, false);
            all.push((n, done.inspect_err(|_| queue.lock().unwrap_or_else(|e| e.into_inner()).clear())?));
        }
        Ok(all)
    };
    let results: Vec<Result<Vec<Seen>, Error>> = std::thread::scope(|scope| {
        let threads: Vec<_> = (1..most).map(|_| scope.spawn(work)).collect();
        let own = work();
        let ended = || Error::io("unpack", io::Error::other("a thread has ended too early"));
        let others = threads.into_iter().map(|thread| thread.join().unwrap_or_else(|_| Err(ended())));
        others.chain([own]).collect()
    });
    let mut done: Vec<Seen> = Vec::new();
    for result in results {
        done.extend(result?);
    }
    done.sort_by_key(|(n, _)| *n);
    let mut bytes: HashMap<&Digest, u64> = HashMap::new();
    for (n, size) in done {
        let size = match size {
            Some(size) => size,
            None => job.one(n, true)?.unwrap_or(0),
        };
        bytes.insert(&diff_ids[n], size);
    }
    Ok(diff_ids.iter().map(|diff_id| bytes.get(diff_id).copied().unwrap_or(0)).collect())
}

/// A layer's place in the image, and the bytes of its files if it is there now.
type Seen = (usize, Option<u64>);

/// What all threads know.
struct Job<'a> {
    content: &'a Store,
    snapshots: &'a Snapshots,
    layers: &'a [Wanted],
    diff_ids: &'a [Digest],
    known: &'a HashMap<Digest, u64>,
    progress: &'a dyn Progress,
}

impl Job<'_> {
    /// Sees to one layer, and commits it at once: a thread that kept one while it waits for another, which another process is at, could
    /// wait for ever. `None` when it has directories that look as they do in the layers below, and not all those are there yet: it is
    /// dropped then, and comes again with `in_order`.
    fn one(&self, n: usize, in_order: bool) -> Result<Option<u64>, Error> {
        let Job { content, snapshots, progress, .. } = *self;
        let layer = &self.layers[n];
        if progress.cancelled() {
            return Err(Error::Cancelled);
        }
        let id = layer.diff_id.short().to_owned();
        let named = |e: Error| match e {
            Error::Layer(source) => Error::OfLayer { layer: layer.blob.digest.clone(), source },
            other => other,
        };
        let prepared = match snapshots.prepare(&self.diff_ids[..=n])? {
            Preparation::Unpack(prepared) => prepared,
            Preparation::Present => {
                progress.layer(&id, Phase::AlreadyExists, 0, None);
                let known = self.known.get(&layer.diff_id).copied();
                let read = || measure(content.open_blob(&layer.blob.digest)?).map_err(named);
                return known.map_or_else(read, Ok).map(Some);
            }
        };
        let file = content.open_blob(&layer.blob.digest)?;
        let input = Watched { file, id, done: 0, total: layer.blob.size, progress };
        let target = Target { directory: prepared.directory(), whiteouts: prepared.whiteouts() };
        let unpacked = unpack(input, &target, &Options::default()).map_err(|e| named(e.into()))?;
        if unpacked.diff_id != layer.diff_id {
            let why =
                format!("its archive is {}, and the image's configuration says {}", unpacked.diff_id, layer.diff_id);
            return Err(Error::archive(format!("layer {}", layer.blob.digest), why));
        }
        let applied = unpacked.applied;
        let below = || (1..=n).all(|n| snapshots.has(&self.diff_ids[..n]));
        if !applied.implied.is_empty() && !in_order && !below() {
            return Ok(None);
        }
        snapshots.commit(prepared, &applied.implied)?;
        Ok(Some(applied.bytes))
    }
}

/// The bytes of the files of each layer that an image has.
fn sizes(images: &ImageStore) -> Result<HashMap<Digest, u64>, Error> {
    let images = images.load()?;
    Ok(images.iter().flat_map(|image| &image.layers).map(|layer| (layer.diff_id.clone(), layer.unpacked)).collect())
}

/// Reads a layer only to add its files up.
fn measure(blob: File) -> Result<u64, Error> {
    let archive = crate::archive::decompressed(blob)?;
    let mut reader = layer::Reader::new(BufReader::with_capacity(1 << 17, archive));
    let mut bytes = 0u64;
    while let Some(entry) = reader.next_entry()? {
        if let layer::Kind::File { size, .. } = entry.kind {
            bytes = bytes.saturating_add(size);
        }
    }
    Ok(bytes)
}

/// A blob that says how much of it was read.
struct Watched<'a> {
    file: File,
    id: String,
    done: u64,
    total: u64,
    progress: &'a dyn Progress,
}

impl Read for Watched<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.progress.cancelled() {
            return Err(io::Error::other(layer::Error::Cancelled));
        }
        let n = self.file.read(buffer)?;
        self.done += n as u64;
        self.progress.layer(&self.id, Phase::Extracting, self.done, Some(self.total));
        Ok(n)
    }
}
