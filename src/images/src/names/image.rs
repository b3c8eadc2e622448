//! What is known of one image.

use rrt_oci::image::{Descriptor, Digest, ImageConfig, Manifest, Platform, Reference};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// An image: one platform's, by the digest of its configuration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Image {
    /// The configuration's digest, Docker's image id.
    pub id: Digest,
    /// What its name meant in the registry: an index, or the manifest itself.
    pub target: Descriptor,
    /// The manifest of this platform.
    pub manifest: Descriptor,
    /// What it is for.
    pub platform: Platform,
    /// When it was made (RFC 3339), as its configuration says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    /// When it came here: seconds since 1970.
    pub added: i64,
    /// The configuration's size in bytes.
    pub config_size: u64,
    /// Lowest first.
    pub layers: Vec<Layer>,
    /// Its names with tags, and since when each (seconds since 1970).
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub tags: BTreeMap<Reference, i64>,
    /// Its names with digests: where it came from or was pushed to.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub digests: BTreeSet<Reference>,
}

/// One layer of an image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Layer {
    /// The blob's digest.
    pub digest: Digest,
    /// The blob's size in bytes.
    pub size: u64,
    /// The digest of the uncompressed archive.
    pub diff_id: Digest,
    /// Bytes of the files in it.
    pub unpacked: u64,
}

impl Image {
    /// From its documents. `unpacked` has the bytes of each layer's files, lowest first; the caller has checked that there are as many
    /// layers in the manifest as in the configuration.
    pub fn new(
        target: Descriptor,
        manifest: Descriptor,
        document: &Manifest,
        config: &ImageConfig,
        unpacked: &[u64],
        now: i64,
    ) -> Image {
        let layers = document.layers.iter().zip(&config.rootfs.diff_ids).zip(unpacked);
        let layer = |((blob, diff_id), unpacked): ((&Descriptor, &Digest), &u64)| Layer {
            digest: blob.digest.clone(),
            size: blob.size,
            diff_id: diff_id.clone(),
            unpacked: *unpacked,
        };
        Image {
            id: document.config.digest.clone(),
            target,
            manifest,
            platform: Platform {
                architecture: config.architecture.clone(),
                os: config.os.clone(),
                os_version: config.os_version.clone(),
                os_features: Vec::new(),
                variant: config.variant.clone(),
            },
            created: config.created.clone(),
            added: now,
            config_size: document.config.size,
            layers: layers.map(layer).collect(),
            tags: BTreeMap::new(),
            digests: BTreeSet::new(),
        }
    }

    /// Bytes of the unpacked layers: Docker's SIZE.
    pub fn size(&self) -> u64 {
        self.layers.iter().map(|layer| layer.unpacked).sum()
    }

    /// Bytes of its blobs, as a registry has them.
    pub fn content_size(&self) -> u64 {
        let index = if self.target.digest == self.manifest.digest { 0 } else { self.target.size };
        index + self.manifest.size + self.config_size + self.layers.iter().map(|layer| layer.size).sum::<u64>()
    }

    /// All blobs that it needs.
    pub fn blobs(&self) -> impl Iterator<Item = &Digest> {
        [&self.target.digest, &self.manifest.digest, &self.id].into_iter().chain(self.layers.iter().map(|l| &l.digest))
    }

    /// Its layers' diff ids, lowest first.
    pub fn diff_ids(&self) -> Vec<Digest> {
        self.layers.iter().map(|layer| layer.diff_id.clone()).collect()
    }

    /// Without a tag: Docker's "dangling". A name with a digest may be left.
    pub fn is_dangling(&self) -> bool {
        self.tags.is_empty()
    }

    /// All its names, with tags first.
    pub(super) fn references(&self) -> Vec<Reference> {
        self.tags.keys().chain(&self.digests).cloned().collect()
    }
}
