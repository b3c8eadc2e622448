//! `pull`: from a registry to an image that is here, named and unpacked.
//!
//! Manifest, configuration, then the layers, several at once. Each layer is hashed, inflated, hashed again and unpacked while it arrives. A
//! layer's directory takes its place when its blob has its digest and its archive the one that the configuration says; the image is named
//! when all of that is on the disk. What is here already is not fetched and not unpacked again, and a cut pull goes on where it ended.

mod blob;
mod layers;

use crate::layer;
use crate::names::{self, Image, ImageStore};
use crate::progress::Progress;
use crate::snapshots::{self, Snapshots};
use crate::time::Time;
use rrt_content::{Ingest, Lease};
use rrt_oci::image::{Descriptor, Digest, ImageConfig, Index, Manifest, Platform, Reference, media_type as kind};
use rrt_registry::{Client, MAX_CONFIG, MAX_MANIFEST};

/// More layers than any overlay takes.
const MAX_LAYERS: usize = 500;
/// Indexes in indexes, and mirrors that have wrong content.
const MAX_TURNS: usize = 4;

/// Why a pull failed.
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
    /// The snapshots.
    #[error(transparent)]
    Snapshots(#[from] snapshots::Error),
    /// A layer is not what its digest says.
    #[error("{name}: layer {layer}: {source}")]
    Content {
        /// The image.
        name: String,
        /// The blob's short digest.
        layer: String,
        /// Which digest it has.
        source: rrt_content::Error,
    },
    /// A mirror has another content than the registry's digest says; it is not asked again.
    #[error("the mirror {mirror} has wrong content: {source}")]
    Mirror {
        /// Its host and port.
        mirror: String,
        /// Which digest it has.
        source: rrt_content::Error,
    },
    /// A layer can't be unpacked.
    #[error("{name}: failed to register layer {layer}: {source}")]
    Layer {
        /// The image.
        name: String,
        /// The blob's short digest.
        layer: String,
        /// Why, and at which entry.
        source: layer::Error,
    },
    /// The archive is not the one that the configuration names.
    #[error(
        "{name}: layer {layer} has the diff id {found}, its image's configuration says {expected}: the image is broken, rebuild it"
    )]
    DiffId {
        /// The image.
        name: String,
        /// The blob's short digest.
        layer: String,
        /// In the configuration.
        expected: Digest,
        /// Of the archive.
        found: Digest,
    },
    /// It is no image that can be here.
    #[error("{name}: {why}")]
    Image {
        /// The image.
        name: String,
        /// What is wrong.
        why: String,
    },
    /// Somebody asked to stop; what has come is kept for the next pull.
    #[error("cancelled")]
    Cancelled,
}

/// What a pull has to work with.
pub struct Puller<'a> {
    /// The registries.
    pub client: &'a Client,
    /// Names and content.
    pub images: &'a ImageStore,
    /// Where layers are unpacked.
    pub snapshots: &'a Snapshots,
    /// Whoever watches.
    pub progress: &'a dyn Progress,
    /// How layers are unpacked.
    pub options: layer::Options,
    /// `--platform`; else this machine's.
    pub platform: Option<Platform>,
}

/// A pulled image.
#[derive(Clone, Debug)]
pub struct Pulled {
    /// As it is in the names now.
    pub image: Image,
    /// What the reference means in the registry: an index or a manifest.
    pub target: Descriptor,
    /// It was here under this name before.
    pub up_to_date: bool,
}

/// The documents of an image.
struct Documents {
    target: Descriptor,
    manifest: Descriptor,
    document: Manifest,
    config: ImageConfig,
}

impl Puller<'_> {
    /// Pulls one image. Tells [`Progress::line`] what Docker prints: where from, the digest, the status.
    pub fn pull(&self, reference: &Reference) -> Result<Pulled, Error> {
        let reference = reference.clone().with_default_tag();
        let what = reference.digest().map(Digest::as_str).or(reference.tag()).unwrap_or_default();
        self.progress.line(&format!("{what}: Pulling from {}", reference.repository()));
        let mut turns = 0;
        let pulled = loop {
            match self.once(&reference) {
                Err(error @ Error::Mirror { .. }) if turns < MAX_TURNS => self.progress.line(&error.to_string()),
                result => break result?,
            }
            turns += 1;
        };
        self.progress.line(&format!("Digest: {}", pulled.target.digest));
        let status = if pulled.up_to_date { "Image is up to date for" } else { "Downloaded newer image for" };
        self.progress.line(&format!("Status: {status} {}", reference.familiar()));
        Ok(pulled)
    }

    /// `--all-tags`: every tag of the repository.
    pub fn pull_all(&self, reference: &Reference) -> Result<Vec<Pulled>, Error> {
        let tags = self.client.tags(reference)?;
        if tags.is_empty() {
            let why = "the repository has no tags".to_owned();
            return Err(Error::Image { name: reference.familiar_name(), why });
        }
        let pull = |tag: &String| {
            let tagged = reference.with_tag(tag).map_err(names::Error::from)?;
            self.pull(&tagged)
        };
        tags.iter().map(pull).collect()
    }

    fn once(&self, reference: &Reference) -> Result<Pulled, Error> {
        let content = self.images.content();
        let lease = content.lease()?;
        let documents = self.documents(reference, &lease)?;
        let Documents { target, manifest, document, config } = &documents;
        for layer in &document.layers {
            lease.add(&layer.digest)?;
        }
        let diff_ids = &config.rootfs.diff_ids;
        // Snapshots are held by the layers' diff ids.
        for diff_id in diff_ids {
            lease.add(diff_id)?;
        }
        let before = self.images.load()?;
        let known = before.get(&document.config.digest);
        let named = |image: &Image| image.target.digest == target.digest && has_name(image, reference);
        let up_to_date = known.is_some_and(named);
        let sizes = layers::Layers::new(self, reference, &lease, &document.layers, diff_ids).run()?;
        let mut unpacked = Vec::new();
        for (at, size) in sizes.into_iter().enumerate() {
            unpacked.push(match size.or_else(|| layers::known_size(&before, &diff_ids[at])) {
                Some(size) => size,
                None => self.snapshots.usage(&diff_ids[..=at])?.bytes,
            });
        }
        self.snapshots.sync()?;
        let now = Time::now().seconds;
        let mut image = Image::new(target.clone(), manifest.clone(), document, config, &unpacked, now);
        if reference.digest().is_none() && reference.tag().is_some() {
            image.tags.insert(reference.clone(), now);
        }
        image.digests.insert(reference.with_digest(target.digest.clone()));
        self.images.add(image.clone())?;
        let image = self.images.load()?.get(&image.id).cloned().unwrap_or(image);
        Ok(Pulled { image, target: target.clone(), up_to_date })
    }

    /// Manifests and configuration, into the store.
    fn documents(&self, reference: &Reference, lease: &Lease) -> Result<Documents, Error> {
        let (target, bytes) = self.client.resolve(reference)?;
        self.keep(lease, &target, &bytes)?;
        let (manifest, bytes) = self.manifest_of(reference, lease, target.clone(), bytes)?;
        let broken = |why: String| Error::Image { name: reference.familiar(), why };
        let document: Manifest =
            serde_json::from_slice(&bytes).map_err(|e| broken(format!("its manifest is invalid: {e}")))?;
        check_manifest(&document).map_err(broken)?;
        let config = self.config(reference, lease, &document.config)?;
        let config: ImageConfig =
            serde_json::from_slice(&config).map_err(|e| broken(format!("its configuration is invalid: {e}")))?;
        check_config(&document, &config).map_err(broken)?;
        self.check_platform(reference, &config)?;
        Ok(Documents { target, manifest, document, config })
    }

    /// From an index to the manifest of the platform.
    fn manifest_of(
        &self,
        reference: &Reference,
        lease: &Lease,
        mut found: Descriptor,
        mut bytes: Vec<u8>,
    ) -> Result<(Descriptor, Vec<u8>), Error> {
        let wanted = self.platform.clone().unwrap_or_else(Platform::host);
        for _ in 0..MAX_TURNS {
            if ![kind::OCI_INDEX, kind::DOCKER_LIST].contains(&found.media_type.as_str()) {
                return Ok((found, bytes));
            }
            let index: Index = serde_json::from_slice(&bytes)
                .map_err(|e| Error::Image { name: reference.familiar(), why: format!("its index is invalid: {e}") })?;
            let chosen = rrt_registry::choose(reference, &index, &wanted)?;
            (found, bytes) = match self.here(lease, &chosen, MAX_MANIFEST)? {
                Some(bytes) => (chosen, bytes),
                None => {
                    let (found, bytes) = self.client.manifest(reference, &chosen.digest)?;
                    self.keep(lease, &found, &bytes)?;
                    (found, bytes)
                }
            };
        }
        let why = format!("it is an index in more than {MAX_TURNS} others");
        Err(Error::Image { name: reference.familiar(), why })
    }

    fn config(&self, reference: &Reference, lease: &Lease, descriptor: &Descriptor) -> Result<Vec<u8>, Error> {
        if let Some(bytes) = self.here(lease, descriptor, MAX_CONFIG)? {
            return Ok(bytes);
        }
        let bytes = self.client.document(reference, descriptor, MAX_CONFIG)?;
        self.keep(lease, descriptor, &bytes)?;
        Ok(bytes)
    }

    /// A document that the store has already.
    fn here(&self, lease: &Lease, descriptor: &Descriptor, limit: u64) -> Result<Option<Vec<u8>>, Error> {
        lease.add(&descriptor.digest)?;
        let content = self.images.content();
        match content.has(&descriptor.digest) {
            true => Ok(content.read(&descriptor.digest, limit).ok()),
            false => Ok(None),
        }
    }

    fn keep(&self, lease: &Lease, descriptor: &Descriptor, bytes: &[u8]) -> Result<(), Error> {
        let ingest = self.images.content().ingest(lease, &descriptor.digest, Some(bytes.len() as u64))?;
        if let Ingest::Write(mut writer) = ingest {
            writer.truncate()?;
            writer.append(bytes)?;
            writer.commit()?;
        }
        Ok(())
    }

    /// A manifest that no index chose may be for another machine: refused when a platform was asked for, else told.
    fn check_platform(&self, reference: &Reference, config: &ImageConfig) -> Result<(), Error> {
        let refused = |why: String| Err(Error::Image { name: reference.familiar(), why });
        let is = Platform {
            architecture: config.architecture.clone(),
            os: config.os.clone(),
            os_version: None,
            os_features: Vec::new(),
            variant: config.variant.clone(),
        };
        if !is.os.is_empty() && is.os != "linux" {
            return refused(format!(
                "image operating system {:?} cannot be used on this platform: only linux can",
                is.os
            ));
        }
        let fits = |wanted: &Platform| wanted.takes(&is) || is.architecture.is_empty();
        match &self.platform {
            Some(wanted) if !fits(wanted) => {
                let why = "image with reference was found but its platform";
                refused(format!("{why} ({is}) does not match the specified platform ({wanted})"))
            }
            None if !fits(&Platform::host()) => {
                self.progress.line(&format!(
                    "{}: the image is for {is}, this machine is {}",
                    reference.familiar(),
                    Platform::host()
                ));
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

fn has_name(image: &Image, reference: &Reference) -> bool {
    match reference.digest() {
        Some(_) => {
            image.digests.iter().any(|known| known.digest() == reference.digest() && same_repository(known, reference))
        }
        None => image.tags.contains_key(reference),
    }
}

fn same_repository(a: &Reference, b: &Reference) -> bool {
    a.registry() == b.registry() && a.repository() == b.repository()
}

/// Is it a container image, and no other artifact?
fn check_manifest(manifest: &Manifest) -> Result<(), String> {
    if ![kind::OCI_CONFIG, kind::DOCKER_CONFIG].contains(&manifest.config.media_type.as_str()) {
        let artifact = manifest.artifact_type.as_deref().unwrap_or(&manifest.config.media_type);
        return Err(format!("it is no container image but an artifact of the type {artifact:?}"));
    }
    if manifest.layers.len() > MAX_LAYERS {
        return Err(format!("it has {} layers, more than the {MAX_LAYERS} that are taken", manifest.layers.len()));
    }
    for layer in &manifest.layers {
        if layer.media_type.ends_with("+encrypted") {
            return Err(format!("its layer {} is encrypted, which is not supported", layer.digest.short()));
        }
    }
    Ok(())
}

fn check_config(manifest: &Manifest, config: &ImageConfig) -> Result<(), String> {
    let (layers, diff_ids) = (manifest.layers.len(), config.rootfs.diff_ids.len());
    match layers == diff_ids {
        true => Ok(()),
        false => {
            Err(format!("its manifest has {layers} layers, its configuration {diff_ids} of them: the image is broken"))
        }
    }
}
