//! All layers of an image at once: some threads fetch, others unpack behind them.

use super::blob::{Arrival, Stop};
use super::{Error, Puller};
use crate::layer::{self, Target};
use crate::names::Images;
use crate::progress::Phase;
use crate::snapshots::{Preparation, Prepared};
use rrt_content::{Ingest, Lease};
use rrt_oci::image::{Descriptor, Digest, Reference};
use rrt_registry::FetchWatch;
use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

/// Layers of one image on their way.
pub(super) struct Layers<'a> {
    puller: &'a Puller<'a>,
    reference: &'a Reference,
    lease: &'a Lease,
    diff_ids: &'a [Digest],
    /// Each blob once; some images have a layer twice.
    blobs: Vec<(&'a Descriptor, Arrival)>,
    /// Which blob each layer is.
    of: Vec<usize>,
    stop: Stop<'a>,
    failed: Mutex<Option<Error>>,
    /// Which layers are in their place, and how many bytes their files have where this pull unpacked them.
    placed: Mutex<Vec<Option<Option<u64>>>>,
    changed: Condvar,
}

/// What a fetch tells.
struct Watch<'a> {
    layers: &'a Layers<'a>,
    arrival: &'a Arrival,
    descriptor: &'a Descriptor,
}

impl FetchWatch for Watch<'_> {
    fn arrived(&self, front: u64, all: u64) {
        self.arrival.arrived(front);
        let (id, total) = (self.descriptor.digest.short(), Some(self.descriptor.size));
        self.layers.puller.progress.layer(id, Phase::Downloading, all, total);
    }

    fn retrying(&self, pause: Duration, error: &rrt_registry::Error) {
        let seconds = u32::try_from(pause.as_secs_f64().ceil() as u64).unwrap_or(u32::MAX);
        let progress = self.layers.puller.progress;
        progress.layer(self.descriptor.digest.short(), Phase::Retrying(seconds.max(1)), 0, None);
        progress.line(&format!("{}: {error}", self.descriptor.digest.short()));
    }

    fn cancelled(&self) -> bool {
        self.layers.stop.is_set()
    }
}

impl<'a> Layers<'a> {
    pub fn new(
        puller: &'a Puller<'a>,
        reference: &'a Reference,
        lease: &'a Lease,
        layers: &'a [Descriptor],
        diff_ids: &'a [Digest],
    ) -> Layers<'a> {
        let mut blobs: Vec<(&Descriptor, Arrival)> = Vec::new();
        let mut known: HashMap<&Digest, usize> = HashMap::new();
        let mut of = Vec::new();
        for layer in layers {
            let next = blobs.len();
            let at = *known.entry(&layer.digest).or_insert(next);
            if at == next {
                blobs.push((layer, Arrival::new()));
            }
            of.push(at);
        }
        Layers {
            puller,
            reference,
            lease,
            diff_ids,
            blobs,
            stop: Stop::new(puller.progress),
            failed: Mutex::new(None),
            placed: Mutex::new(vec![None; of.len()]),
            changed: Condvar::new(),
            of,
        }
    }

    /// Fetches and unpacks what is missing. The bytes of each layer's files, where this pull unpacked it.
    pub fn run(self) -> Result<Vec<Option<u64>>, Error> {
        for (descriptor, _) in &self.blobs {
            let there = self.puller.images.content().has(&descriptor.digest) && self.placed_before(descriptor);
            let phase = if there { Phase::AlreadyExists } else { Phase::PullingFsLayer };
            self.puller.progress.layer(descriptor.digest.short(), phase, 0, None);
        }
        let fetchers = self.puller.client.config().downloads().min(self.blobs.len());
        let processors = thread::available_parallelism().map_or(2, usize::from);
        let unpackers = match self.puller.snapshots.independent() {
            true => processors.clamp(2, 8).min(self.of.len()),
            // Each layer is made of the one below.
            false => 1,
        };
        let (next_blob, next_layer) = (AtomicUsize::new(0), AtomicUsize::new(0));
        thread::scope(|scope| {
            for _ in 0..fetchers {
                scope.spawn(|| self.work(&next_blob, self.blobs.len(), |at| self.fetch(at)));
            }
            for _ in 0..unpackers {
                scope.spawn(|| self.work(&next_layer, self.of.len(), |at| self.place(at)));
            }
        });
        if let Some(error) = self.failed.into_inner().unwrap_or_else(PoisonError::into_inner) {
            return Err(error);
        }
        match self.puller.progress.cancelled() {
            true => Err(Error::Cancelled),
            false => {
                let placed = self.placed.into_inner().unwrap_or_else(PoisonError::into_inner);
                Ok(placed.into_iter().map(Option::flatten).collect())
            }
        }
    }

    /// Is every layer of this blob unpacked already?
    fn placed_before(&self, descriptor: &Descriptor) -> bool {
        let mut layers =
            self.of.iter().enumerate().filter(|(_, blob)| self.blobs[**blob].0.digest == descriptor.digest);
        layers.all(|(at, _)| self.puller.snapshots.has(&self.diff_ids[..=at]))
    }

    /// One thread: takes the next until there is none, or something fails.
    fn work(&self, next: &AtomicUsize, count: usize, one: impl Fn(usize) -> Result<(), Error>) {
        while !self.stop.is_set() {
            let at = next.fetch_add(1, Ordering::SeqCst);
            if at >= count {
                return;
            }
            if let Err(error) = one(at) {
                let mut failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
                // The first is the cause; that others were stopped is its consequence.
                if failed.is_none() && !self.stop.is_set() {
                    *failed = Some(error);
                }
                self.stop.set();
            }
        }
    }

    /// One blob into the store.
    fn fetch(&self, at: usize) -> Result<(), Error> {
        let (descriptor, arrival) = &self.blobs[at];
        let (id, size) = (descriptor.digest.short(), descriptor.size);
        let (progress, store) = (self.puller.progress, self.puller.images.content());
        let mut writer = match store.ingest(self.lease, &descriptor.digest, Some(size))? {
            Ingest::Present => {
                arrival.is_whole(Some(store.open_blob(&descriptor.digest)?), size);
                return Ok(());
            }
            Ingest::Write(writer) => writer,
        };
        arrival.begins(writer.reader()?, writer.offset());
        let watch = Watch { layers: self, arrival, descriptor };
        let from = self.puller.client.fetch(self.reference, descriptor, &mut writer, &watch)?;
        progress.layer(id, Phase::VerifyingChecksum, 0, None);
        match writer.commit() {
            Ok(_) => {}
            Err(error @ rrt_content::Error::Digest { .. }) if from.mirror => {
                self.puller.client.distrust(&from.from);
                return Err(Error::Mirror { mirror: from.from, source: error });
            }
            Err(source @ rrt_content::Error::Digest { .. }) => {
                return Err(Error::Content { name: self.reference.familiar(), layer: id.to_owned(), source });
            }
            Err(error) => return Err(error.into()),
        }
        progress.layer(id, Phase::DownloadComplete, 0, None);
        arrival.is_whole(None, size);
        Ok(())
    }

    /// One layer to its snapshot.
    fn place(&self, at: usize) -> Result<(), Error> {
        let (descriptor, arrival) = &self.blobs[self.of[at]];
        let id = descriptor.digest.short();
        let layers = &self.diff_ids[..=at];
        let here = self.puller.images.content().has(&descriptor.digest);
        let size = match self.puller.snapshots.prepare(layers)? {
            Preparation::Present => {
                if !arrival.verified(&self.stop) {
                    return Err(Error::Cancelled);
                }
                let phase = if here { Phase::AlreadyExists } else { Phase::PullComplete };
                self.puller.progress.layer(id, phase, 0, None);
                None
            }
            Preparation::Unpack(prepared) => {
                let size = self.unpack(at, descriptor, arrival, prepared)?;
                self.puller.progress.layer(id, Phase::PullComplete, 0, None);
                Some(size)
            }
        };
        self.placed.lock().unwrap_or_else(PoisonError::into_inner)[at] = Some(size);
        self.changed.notify_all();
        Ok(())
    }

    /// Unpacks while it arrives; the bytes of its files.
    fn unpack(&self, at: usize, descriptor: &Descriptor, arrival: &Arrival, prepared: Prepared) -> Result<u64, Error> {
        let id = descriptor.digest.short();
        let Some(bytes) = arrival.follow(&self.stop, id, descriptor.size) else { return Err(Error::Cancelled) };
        let target = Target { directory: prepared.directory(), whiteouts: prepared.whiteouts() };
        let layer_error = |source| Error::Layer { name: self.reference.familiar(), layer: id.to_owned(), source };
        let unpacked = match layer::unpack(bytes, &target, &self.puller.options) {
            Ok(unpacked) => unpacked,
            // Bytes that are no layer may be none of the image's: then the digest says so, and better.
            Err(error @ (layer::Error::Archive { .. } | layer::Error::Compression(_))) => {
                arrival.verified(&self.stop);
                return Err(layer_error(error));
            }
            Err(error) => return Err(layer_error(error)),
        };
        // Nothing of a blob with a wrong digest becomes visible.
        if !arrival.verified(&self.stop) {
            return Err(Error::Cancelled);
        }
        let expected = &self.diff_ids[at];
        if unpacked.diff_id != *expected {
            let (name, layer) = (self.reference.familiar(), id.to_owned());
            return Err(Error::DiffId { name, layer, expected: expected.clone(), found: unpacked.diff_id });
        }
        let implied = &unpacked.applied.implied;
        if !implied.is_empty() && !self.below_is_placed(at) {
            return Err(Error::Cancelled);
        }
        self.puller.snapshots.commit(prepared, implied)?;
        Ok(unpacked.applied.bytes)
    }

    /// Waits until all layers below are in their place; false when all is to end.
    fn below_is_placed(&self, at: usize) -> bool {
        let mut placed = self.placed.lock().unwrap_or_else(PoisonError::into_inner);
        while placed[..at].iter().any(Option::is_none) {
            if self.stop.is_set() {
                return false;
            }
            let waited = self.changed.wait_timeout(placed, Duration::from_millis(100));
            placed = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }
}

/// The bytes of a layer's files, as another image that has it knows them.
pub(super) fn known_size(images: &Images, diff_id: &Digest) -> Option<u64> {
    images.iter().flat_map(|image| &image.layers).find(|layer| layer.diff_id == *diff_id).map(|layer| layer.unpacked)
}
