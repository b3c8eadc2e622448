//! `push`: an image's blobs, several at once, then its manifest.
//!
//! What the registry has is not sent: it is asked for first, and what another repository of the same registry is known to have (because this
//! image or another with the layer was pulled from or pushed to it) is mounted from there.

use crate::names::{self, Image, ImageStore, Images};
use crate::progress::{Phase, Progress};
use rrt_content::Lease;
use rrt_oci::image::{Descriptor, Digest, Index, Manifest, Reference, media_type as kind};
use rrt_registry::{Client, MAX_MANIFEST, PushWatch, Pushed};
use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;

/// Indexes in indexes.
const MAX_DEPTH: usize = 4;

/// Why a push failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The registry.
    #[error(transparent)]
    Registry(#[from] rrt_registry::Error),
    /// The store.
    #[error(transparent)]
    Store(#[from] rrt_content::Error),
    /// The names.
    #[error(transparent)]
    Names(#[from] names::Error),
    /// There is nothing of that name (Docker's words).
    #[error("An image does not exist locally with the tag: {0}")]
    NoTag(String),
    /// A digest is no name to push to (Docker's words).
    #[error("cannot push a digest reference")]
    Digest,
    /// A document of the image in the store is damaged.
    #[error("{name}: the manifest {digest} is invalid: {why}")]
    Manifest {
        /// The image.
        name: String,
        /// Which.
        digest: Digest,
        /// What is wrong.
        why: String,
    },
    /// Somebody asked to stop.
    #[error("cancelled")]
    Cancelled,
}

/// What a push has to work with.
pub struct Pusher<'a> {
    /// The registries.
    pub client: &'a Client,
    /// Names and content.
    pub images: &'a ImageStore,
    /// Whoever watches.
    pub progress: &'a dyn Progress,
}

/// What is to be pushed: blobs in any order, then manifests in this one.
#[derive(Default)]
struct Plan {
    /// With the id that progress shows: Docker's is that of the layer without compression.
    blobs: Vec<(Descriptor, String)>,
    manifests: Vec<(Descriptor, Vec<u8>)>,
}

impl Pusher<'_> {
    /// Pushes one tag. The manifest's descriptor, which Docker's last line has.
    pub fn push(&self, reference: &Reference) -> Result<Descriptor, Error> {
        let reference = reference.clone().with_default_tag();
        self.begin(&reference)?;
        self.one(&reference)
    }

    /// `--all-tags`: every tag that the repository has here.
    pub fn push_all(&self, reference: &Reference) -> Result<Vec<Descriptor>, Error> {
        self.begin(reference)?;
        let images = self.images.load()?;
        let tags: Vec<Reference> = images
            .iter()
            .flat_map(|image| image.tags.keys())
            .filter(|tag| same_repository(tag, reference))
            .cloned()
            .collect();
        match tags.is_empty() {
            true => Err(Error::NoTag(reference.familiar_name())),
            false => tags.iter().map(|tag| self.one(tag)).collect(),
        }
    }

    fn begin(&self, reference: &Reference) -> Result<(), Error> {
        if reference.digest().is_some() {
            return Err(Error::Digest);
        }
        let repository = format!("{}/{}", reference.registry(), reference.repository());
        self.progress.line(&format!("The push refers to repository [{repository}]"));
        Ok(())
    }

    fn one(&self, reference: &Reference) -> Result<Descriptor, Error> {
        let lease = self.images.content().lease()?;
        let images = self.images.load()?;
        if images.find(reference).is_none() {
            return Err(Error::NoTag(reference.familiar_name()));
        }
        let image = self.images.hold(&lease, &reference.to_string())?;
        let plan = self.plan(reference, &image, &lease)?;
        self.blobs(reference, &images, &plan)?;
        let mut pushed = None;
        for (at, (descriptor, bytes)) in plan.manifests.iter().enumerate() {
            // Those that an index names have no tag of their own.
            let last = at + 1 == plan.manifests.len();
            let name = if last { reference.clone() } else { reference.with_digest(descriptor.digest.clone()) };
            pushed = Some(self.client.push_manifest(&name, &descriptor.media_type, bytes)?);
        }
        let Some(pushed) = pushed else { return Err(Error::NoTag(reference.familiar_name())) };
        self.images.add_digest(&image.id, &reference.with_digest(pushed.digest.clone()))?;
        let tag = reference.tag().unwrap_or_default();
        self.progress.line(&format!("{tag}: digest: {} size: {}", pushed.digest, pushed.size));
        Ok(pushed)
    }

    /// The index with all its platforms, when all of it is here; else the one platform that is.
    fn plan(&self, reference: &Reference, image: &Image, lease: &Lease) -> Result<Plan, Error> {
        let mut whole = Plan::default();
        if image.target.digest != image.manifest.digest
            && self.gather(reference, &image.target, lease, &mut whole, 0)?
        {
            return Ok(whole);
        }
        let mut plan = Plan::default();
        match self.gather(reference, &image.manifest, lease, &mut plan, 0)? {
            true => {
                // Docker names layers by what they are without compression.
                for layer in &image.layers {
                    let shown = plan.blobs.iter_mut().filter(|(blob, _)| blob.digest == layer.digest);
                    shown.for_each(|(_, id)| *id = layer.diff_id.short().to_owned());
                }
                Ok(plan)
            }
            false => {
                Err(names::Error::Incomplete { image: image.id.clone(), blob: image.manifest.digest.clone() }.into())
            }
        }
    }

    /// Adds a manifest, or index with all below it; false when something of it is not here.
    fn gather(
        &self,
        reference: &Reference,
        descriptor: &Descriptor,
        lease: &Lease,
        plan: &mut Plan,
        depth: usize,
    ) -> Result<bool, Error> {
        let content = self.images.content();
        lease.add(&descriptor.digest)?;
        if depth > MAX_DEPTH || !content.has(&descriptor.digest) {
            return Ok(false);
        }
        let bytes = content.read(&descriptor.digest, MAX_MANIFEST)?;
        let invalid = |e: serde_json::Error| Error::Manifest {
            name: reference.familiar(),
            digest: descriptor.digest.clone(),
            why: e.to_string(),
        };
        if [kind::OCI_INDEX, kind::DOCKER_LIST].contains(&descriptor.media_type.as_str()) {
            let index: Index = serde_json::from_slice(&bytes).map_err(invalid)?;
            for entry in &index.manifests {
                if !self.gather(reference, entry, lease, plan, depth + 1)? {
                    return Ok(false);
                }
            }
        } else {
            let manifest: Manifest = serde_json::from_slice(&bytes).map_err(invalid)?;
            for blob in manifest.layers.iter().chain([&manifest.config]) {
                lease.add(&blob.digest)?;
                // What has an address of its own (Windows' base layers) is not for registries.
                let foreign = !blob.urls.is_empty();
                if !foreign && !content.has(&blob.digest) {
                    return Ok(false);
                }
                if !foreign && !plan.blobs.iter().any(|(known, _)| known.digest == blob.digest) {
                    plan.blobs.push((blob.clone(), blob.digest.short().to_owned()));
                }
            }
        }
        plan.manifests.push((descriptor.clone(), bytes));
        Ok(true)
    }

    /// All blobs, several at once.
    fn blobs(&self, reference: &Reference, images: &Images, plan: &Plan) -> Result<(), Error> {
        let configs: HashSet<&Digest> = images.iter().map(|image| &image.id).collect();
        let (next, stop) = (AtomicUsize::new(0), AtomicBool::new(false));
        let failed: Mutex<Option<Error>> = Mutex::new(None);
        for (blob, id) in &plan.blobs {
            if !configs.contains(&blob.digest) {
                self.progress.layer(id, Phase::Preparing, 0, None);
            }
        }
        let work = || {
            while !stop.load(Ordering::SeqCst) && !self.progress.cancelled() {
                let Some((blob, id)) = plan.blobs.get(next.fetch_add(1, Ordering::SeqCst)) else { return };
                // Docker shows no line for a configuration.
                let id = (!configs.contains(&blob.digest)).then_some(id.as_str());
                if let Err(error) = self.blob(reference, images, blob, id, &stop) {
                    stop.store(true, Ordering::SeqCst);
                    failed.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
                }
            }
        };
        thread::scope(|scope| {
            for _ in 0..self.client.config().uploads().min(plan.blobs.len()) {
                scope.spawn(work);
            }
        });
        match failed.into_inner().unwrap_or_else(PoisonError::into_inner) {
            Some(_) if self.progress.cancelled() => Err(Error::Cancelled),
            Some(error) => Err(error),
            None if self.progress.cancelled() => Err(Error::Cancelled),
            None => Ok(()),
        }
    }

    fn blob(
        &self,
        reference: &Reference,
        images: &Images,
        blob: &Descriptor,
        id: Option<&str>,
        stop: &AtomicBool,
    ) -> Result<(), Error> {
        let file = self.images.content().open_blob(&blob.digest)?;
        let watch = Watch { progress: self.progress, id, size: blob.size, stop };
        let others = others(reference, images, &blob.digest);
        let pushed = self.client.push_blob(reference, blob, &file, &others, &watch)?;
        if let Some(id) = id {
            let phase = match &pushed {
                Pushed::Exists => Phase::LayerAlreadyExists,
                Pushed::Mounted(from) => Phase::MountedFrom(from),
                Pushed::Uploaded => Phase::Pushed,
            };
            self.progress.layer(id, phase, 0, None);
        }
        Ok(())
    }
}

struct Watch<'a> {
    progress: &'a dyn Progress,
    id: Option<&'a str>,
    size: u64,
    stop: &'a AtomicBool,
}

impl PushWatch for Watch<'_> {
    fn sent(&self, bytes: u64) {
        if let Some(id) = self.id {
            self.progress.layer(id, Phase::Pushing, bytes, Some(self.size));
        }
    }

    fn retrying(&self, pause: Duration, error: &rrt_registry::Error) {
        let seconds = u32::try_from(pause.as_secs_f64().ceil() as u64).unwrap_or(u32::MAX).max(1);
        if let Some(id) = self.id {
            self.progress.layer(id, Phase::Retrying(seconds), 0, None);
            self.progress.line(&format!("{id}: {error}"));
        }
    }

    fn cancelled(&self) -> bool {
        self.stop.load(Ordering::SeqCst) || self.progress.cancelled()
    }
}

/// Other repositories of the registry that have a blob: those where an image with it came from or went to.
fn others(reference: &Reference, images: &Images, digest: &Digest) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    for image in images.iter().filter(|image| image.blobs().any(|blob| blob == digest)) {
        for known in image.digests.iter().filter(|known| known.registry() == reference.registry()) {
            let repository = known.repository();
            if repository != reference.repository() && !found.iter().any(|name| name == repository) {
                found.push(repository.to_owned());
            }
        }
    }
    found
}

fn same_repository(a: &Reference, b: &Reference) -> bool {
    a.registry() == b.registry() && a.repository() == b.repository()
}
