//! `commit`: a container's changes as a layer on top of its image.

use crate::layer::{Compressor, PackOptions, Packed, Packing, pack_changes};
use crate::names::{CONFIG_LIMIT, Image};
use crate::snapshots::{Delta, Snapshots};
use crate::time::Time;
use crate::{Error, change};
use rrt_content::{Lease, Store};
use rrt_oci::image::{
    ContainerConfig, Descriptor, Digest, History, ImageConfig, Manifest, Platform, RootFs, media_type,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use sha2::{Digest as _, Sha256};
use std::io::{self, BufWriter, Write};

/// What is made of a container.
#[derive(Clone, Debug, Default)]
pub struct Commit<'a> {
    /// The image below; `None` for a container on nothing.
    pub parent: Option<&'a Image>,
    /// What the container was made with, which the new image's containers are started with; `None` takes the parent's.
    pub config: Option<ContainerConfig>,
    /// `--change`: instructions of a Dockerfile.
    pub changes: &'a [String],
    /// `--author`.
    pub author: Option<String>,
    /// `--message`.
    pub message: Option<String>,
    /// History's "created by": the container's command.
    pub created_by: Option<String>,
    /// How the layer is compressed.
    pub packing: Packing,
    /// `SOURCE_DATE_EPOCH`, seconds since 1970: when the image says that it was made, and no file of the layer is younger.
    pub source_date_epoch: Option<i64>,
}

/// Makes an image of the changes of the container `id`. It has no name: the caller gives it one and adds it to the names, as long as the
/// lease lives. The container should not be writing meanwhile. Without changes there is no layer, as with Docker.
///
/// # Errors
/// A change that is no instruction; a file that can't be read or has a name that no layer can; no space. Nothing of the image is
/// left then but blobs that the next collection takes.
pub fn commit(
    content: &Store,
    lease: &Lease,
    snapshots: &Snapshots,
    id: &str,
    commit: &Commit<'_>,
) -> Result<Image, Error> {
    let (base, document) = match commit.parent {
        Some(parent) => {
            lease.add(&parent.manifest.digest)?;
            lease.add(&parent.id)?;
            let base: ImageConfig = document(content, &parent.id)?;
            let manifest: Manifest = document(content, &parent.manifest.digest)?;
            manifest.layers.iter().try_for_each(|layer| lease.add(&layer.digest))?;
            (base, Some(manifest))
        }
        None => (of_host(), None),
    };
    let mut config = commit.config.clone().or_else(|| base.config.clone()).unwrap_or_default();
    change::apply(&mut config, commit.changes)?;
    let delta = snapshots.written(id)?;
    let options = PackOptions { latest: commit.source_date_epoch };
    let layer = pack_layer(content, lease, &delta, commit.packing, &options)?;
    let history = History {
        created: None,
        created_by: commit.created_by.clone(),
        author: commit.author.clone(),
        comment: commit.message.clone(),
        empty_layer: false,
    };
    let made = Made { config: Some(config), history, created: commit.source_date_epoch };
    // An image of no layer at all could not be told from one that is broken: that one keeps its empty layer.
    let is_empty = layer.packed.entries == 0 && document.as_ref().is_some_and(|d| !d.layers.is_empty());
    put_image(content, lease, (base, document, commit.parent), (!is_empty).then_some(layer), made)
}

/// A layer that was written.
pub(crate) struct NewLayer {
    pub descriptor: Descriptor,
    pub diff_id: Digest,
    pub packed: Packed,
}

/// Writes a container's changes as a blob.
fn pack_layer(
    content: &Store,
    lease: &Lease,
    delta: &Delta,
    packing: Packing,
    options: &PackOptions,
) -> Result<NewLayer, Error> {
    write_layer(content, lease, packing, |out| Ok(pack_changes(delta, out, options)?))
}

/// Makes a blob of the archive that `write` writes, and both digests on the way.
pub(crate) fn write_layer(
    content: &Store,
    lease: &Lease,
    packing: Packing,
    write: impl FnOnce(&mut dyn Write) -> Result<Packed, Error>,
) -> Result<NewLayer, Error> {
    let failed = |e| Error::io("write the layer", e);
    let blob = BufWriter::with_capacity(1 << 17, Counted { out: content.writer(lease)?, count: 0 });
    let compressor = Compressor::new(blob, packing).map_err(failed)?;
    let mut hashing = BufWriter::with_capacity(1 << 17, Hashing { out: compressor, hash: Sha256::new() });
    let packed = write(&mut hashing)?;
    let Hashing { out, hash } = hashing.into_inner().map_err(|e| failed(e.into_error()))?;
    let Counted { out, count } = out.finish().map_err(failed)?.into_inner().map_err(|e| failed(e.into_error()))?;
    let media_type = match packing {
        Packing::Plain => media_type::OCI_LAYER,
        Packing::Gzip(_) => media_type::OCI_LAYER_GZIP,
        Packing::Zstd(_) => media_type::OCI_LAYER_ZSTD,
    };
    let descriptor = Descriptor::new(media_type, out.commit()?, count);
    let diff_id = Digest::sha256(&hash.finalize().into());
    // Whoever unpacks it later finds this name leased too.
    lease.add(&diff_id)?;
    Ok(NewLayer { descriptor, diff_id, packed })
}

/// What is new of an image.
pub(crate) struct Made {
    pub config: Option<ContainerConfig>,
    pub history: History,
    /// `SOURCE_DATE_EPOCH`.
    pub created: Option<i64>,
}

/// Writes the documents of an image: `base` and its manifest, with one layer more.
pub(crate) fn put_image(
    content: &Store,
    lease: &Lease,
    (mut config, manifest, parent): (ImageConfig, Option<Manifest>, Option<&Image>),
    layer: Option<NewLayer>,
    made: Made,
) -> Result<Image, Error> {
    let now = Time::now();
    let created = made.created.map_or(now, |seconds| Time { seconds, nanoseconds: 0 }).rfc3339();
    let mut layers: Vec<Descriptor> = manifest.map(|m| m.layers).unwrap_or_default();
    layers.iter_mut().for_each(|layer| layer.media_type = oci_type(&layer.media_type).to_owned());
    let mut unpacked: Vec<u64> =
        parent.map(|p| p.layers.iter().map(|layer| layer.unpacked).collect()).unwrap_or_default();
    let empty_layer = layer.is_none();
    if let Some(layer) = layer {
        config.rootfs.diff_ids.push(layer.diff_id);
        layers.push(layer.descriptor);
        unpacked.push(layer.packed.size);
    }
    config.created = Some(created.clone());
    // Not the parent's: as with Docker, an image is of who made it.
    config.author = made.history.author.clone();
    config.config = made.config;
    config.history.push(History { created: Some(created), empty_layer, ..made.history });
    // What older Dockers say of the container an image was made of: it would be the parent's.
    for key in ["container", "container_config", "id", "parent", "parent_id", "docker_version"] {
        config.extra.remove(key);
    }
    let config_blob = put(content, lease, &config, media_type::OCI_CONFIG)?;
    let manifest = Manifest {
        schema_version: 2,
        media_type: media_type::OCI_MANIFEST.to_owned(),
        artifact_type: None,
        config: config_blob,
        layers,
        subject: None,
        annotations: Default::default(),
    };
    let descriptor = put(content, lease, &manifest, media_type::OCI_MANIFEST)?;
    Ok(Image::new(descriptor.clone(), descriptor, &manifest, &config, &unpacked, now.seconds))
}

/// The same kind of layer in the specification's words: one manifest speaks one language.
fn oci_type(docker: &str) -> &str {
    match docker {
        media_type::DOCKER_LAYER => media_type::OCI_LAYER,
        media_type::DOCKER_LAYER_GZIP => media_type::OCI_LAYER_GZIP,
        "application/vnd.docker.image.rootfs.diff.tar.zstd" => media_type::OCI_LAYER_ZSTD,
        other => other,
    }
}

/// An image of nothing, for this machine.
pub(crate) fn of_host() -> ImageConfig {
    for_platform(&Platform::host())
}

/// An image of nothing.
pub(crate) fn for_platform(platform: &Platform) -> ImageConfig {
    ImageConfig {
        architecture: platform.architecture.clone(),
        os: platform.os.clone(),
        variant: platform.variant.clone(),
        rootfs: RootFs { kind: "layers".to_owned(), diff_ids: Vec::new() },
        ..ImageConfig::default()
    }
}

/// Reads a document of an image.
pub(crate) fn document<T: DeserializeOwned>(content: &Store, digest: &Digest) -> Result<T, Error> {
    let bytes = content.read(digest, CONFIG_LIMIT)?;
    serde_json::from_slice(&bytes)
        .map_err(|e| Error::archive(digest.as_str(), format!("not the document it must be: {e}")))
}

fn put(content: &Store, lease: &Lease, value: &impl Serialize, media_type: &str) -> Result<Descriptor, Error> {
    let bytes = serde_json::to_vec(value).map_err(|e| Error::io("write a document", io::Error::from(e)))?;
    Ok(Descriptor::new(media_type, content.put(lease, &bytes)?, bytes.len() as u64))
}

struct Hashing<W> {
    out: W,
    hash: Sha256,
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = self.out.write(bytes)?;
        self.hash.update(&bytes[..n]);
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

struct Counted<W> {
    out: W,
    count: u64,
}

impl<W: Write> Write for Counted<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = self.out.write(bytes)?;
        self.count += n as u64;
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}
