//! `load`: images from a docker-archive (of any Docker since 1.10, podman, skopeo, kaniko) or an OCI image layout, as a tar or a directory.
//!
//! Nothing in it is believed: blobs are what their names say, a manifest has the layers that its configuration has, a layer is the archive that
//! the configuration names, and is unpacked before its image gets a name.

use super::input::decompressed;
use super::source::Source;
use super::{DockerImage, INDEX, MANIFEST, NAME, REF_NAME};
use crate::Error;
use crate::layer::Compression;
use crate::names::{CONFIG_LIMIT, Image, ImageStore};
use crate::progress::Progress;
use crate::snapshots::Snapshots;
use crate::time::Time;
use crate::tree::Tree;
use crate::unpacking::{Wanted, unpack_layers};
use rrt_content::{Lease, Store};
use rrt_oci::image::{Descriptor, Digest, ImageConfig, Index, Manifest, Platform, Reference, media_type};
use serde::de::DeserializeOwned;
use std::collections::BTreeSet;
use std::io::Read;
use std::path::Path;

/// Images of one archive, and levels of indexes in indexes.
const MAX_IMAGES: usize = 1000;
const MAX_LEVELS: u32 = 4;

/// An image that was loaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loaded {
    /// Its id.
    pub id: Digest,
    /// Its names in the archive.
    pub names: Vec<Reference>,
    /// Names that another image had until now, and that image's id.
    pub replaced: Vec<(Reference, Digest)>,
}

/// Loads all images of a tar, which may be compressed, and names them. `platform` chooses among several of one image; without it, this
/// machine's.
///
/// # Errors
/// What the archive lacks or does not hold what it says; then no image of it has been named.
pub fn load(
    images: &ImageStore,
    snapshots: &Snapshots,
    input: impl Read + Send + 'static,
    platform: Option<&Platform>,
    progress: &dyn Progress,
) -> Result<Vec<Loaded>, Error> {
    let lease = images.content().lease()?;
    let source = Source::read(images.content(), &lease, decompressed(input)?, progress)?;
    load_from(images, snapshots, &lease, &source, platform, progress)
}

/// Loads all images of an OCI image layout in a directory.
///
/// # Errors
/// As [`load`].
pub fn load_directory(
    images: &ImageStore,
    snapshots: &Snapshots,
    directory: &Path,
    platform: Option<&Platform>,
    progress: &dyn Progress,
) -> Result<Vec<Loaded>, Error> {
    let lease = images.content().lease()?;
    let (content, tree) = (images.content(), Tree::open(directory)?);
    let source = Source::Directory { content, lease: &lease, tree, progress };
    load_from(images, snapshots, &lease, &source, platform, progress)
}

/// An image in the archive.
struct Found {
    manifest: Descriptor,
    document: Manifest,
    config: ImageConfig,
    names: BTreeSet<Reference>,
}

fn load_from(
    images: &ImageStore,
    snapshots: &Snapshots,
    lease: &Lease,
    source: &Source<'_>,
    platform: Option<&Platform>,
    progress: &dyn Progress,
) -> Result<Vec<Loaded>, Error> {
    let found = find(images.content(), lease, source, platform)?;
    let now = Time::now().seconds;
    let mut ready = Vec::new();
    for image in found {
        let layers: Vec<Wanted> = image.document.layers.iter().zip(&image.config.rootfs.diff_ids).map(wanted).collect();
        let sizes = unpack_layers(images, lease, snapshots, &layers, progress)?;
        let mut new = Image::new(image.manifest.clone(), image.manifest, &image.document, &image.config, &sizes, now);
        new.tags = image.names.iter().map(|name| (name.clone(), now)).collect();
        ready.push((new, image.names));
    }
    snapshots.sync()?;
    let mut loaded = Vec::new();
    for (new, names) in ready {
        let before = images.load()?;
        let other = |name: &Reference| before.find(name).map(|image| image.id.clone()).filter(|id| *id != new.id);
        let replaced = names.iter().filter_map(|name| Some((name.clone(), other(name)?))).collect();
        loaded.push(Loaded { id: new.id.clone(), names: names.into_iter().collect(), replaced });
        images.add(new)?;
    }
    Ok(loaded)
}

fn wanted((blob, diff_id): (&Descriptor, &Digest)) -> Wanted {
    Wanted { blob: blob.clone(), diff_id: diff_id.clone() }
}

/// All images, by index.json or manifest.json. Where both are, the index has the manifests, and both have names.
fn find(content: &Store, lease: &Lease, source: &Source<'_>, platform: Option<&Platform>) -> Result<Vec<Found>, Error> {
    let docker: Vec<DockerImage> = match source.has(MANIFEST) {
        true => document(source, MANIFEST)?,
        false => Vec::new(),
    };
    let mut found: Vec<Found> = Vec::new();
    if source.has(INDEX) {
        let index: Index = document(source, INDEX)?;
        walk(source, &index, &Walk { platform, names: &BTreeSet::new(), level: 0 }, &mut found)?;
    } else if docker.is_empty() {
        let why = match source.has("repositories") {
            true => "it was written by a Docker before 1.10: load it there and save it again",
            false => "it has neither manifest.json (docker-archive) nor index.json (OCI image layout)",
        };
        return Err(Error::archive("the archive", why));
    }
    for image in &docker {
        let names = docker_names(image)?;
        let (config, size) = source.blob(&image.config)?;
        match found.iter_mut().find(|found| found.document.config.digest == config) {
            Some(found) => found.names.extend(names),
            None if source.has(INDEX) => {}
            None => found.push(docker_image(content, lease, source, image, (config, size), names)?),
        }
        if found.len() > MAX_IMAGES {
            return Err(Error::archive(MANIFEST, format!("it has more than {MAX_IMAGES} images")));
        }
    }
    Ok(found)
}

fn docker_names(image: &DockerImage) -> Result<BTreeSet<Reference>, Error> {
    let names = image.repo_tags.iter().flatten();
    names
        .map(|name| {
            let name = name.parse::<Reference>().map_err(|e| Error::archive(MANIFEST, e.to_string()))?;
            Ok(name.with_default_tag())
        })
        .collect()
}

/// An image without a manifest: it gets one.
fn docker_image(
    content: &Store,
    lease: &Lease,
    source: &Source<'_>,
    image: &DockerImage,
    (config_digest, config_size): (Digest, u64),
    names: BTreeSet<Reference>,
) -> Result<Found, Error> {
    let config: ImageConfig = document(source, &image.config)?;
    check_config(&config, image.layers.len(), &image.config)?;
    let mut layers = Vec::new();
    for (name, diff_id) in image.layers.iter().zip(&config.rootfs.diff_ids) {
        let (digest, size) = source.blob(name)?;
        let mut begin = Vec::new();
        let blob = content.open_blob(&digest)?;
        blob.take(10).read_to_end(&mut begin).map_err(|e| Error::io(format!("read {name}"), e))?;
        let media_type = match Compression::of(&begin)? {
            Compression::None => media_type::OCI_LAYER,
            Compression::Gzip => media_type::OCI_LAYER_GZIP,
            Compression::Zstd => media_type::OCI_LAYER_ZSTD,
        };
        if media_type == media_type::OCI_LAYER && digest != *diff_id {
            return Err(Error::archive(name, format!("it is {digest}, and the image's configuration says {diff_id}")));
        }
        layers.push(Descriptor::new(media_type, digest, size));
    }
    let manifest = Manifest {
        schema_version: 2,
        media_type: media_type::OCI_MANIFEST.to_owned(),
        artifact_type: None,
        config: Descriptor::new(media_type::OCI_CONFIG, config_digest, config_size),
        layers,
        subject: None,
        annotations: Default::default(),
    };
    let bytes = serde_json::to_vec(&manifest).map_err(|e| Error::io("write a manifest", e))?;
    let descriptor = Descriptor::new(media_type::OCI_MANIFEST, content.put(lease, &bytes)?, bytes.len() as u64);
    Ok(Found { manifest: descriptor, document: manifest, config, names })
}

fn check_config(config: &ImageConfig, layers: usize, name: &str) -> Result<(), Error> {
    let diff_ids = config.rootfs.diff_ids.len();
    if config.os != "linux" && !config.os.is_empty() {
        return Err(Error::archive(name, format!("the image is for {}: only Linux images can be loaded", config.os)));
    }
    match layers == diff_ids {
        true => Ok(()),
        false => Err(Error::archive(
            name,
            format!("invalid manifest, layers length mismatch: expected {diff_ids}, got {layers}"),
        )),
    }
}

/// What holds on one level of indexes.
struct Walk<'a> {
    platform: Option<&'a Platform>,
    /// From the level above.
    names: &'a BTreeSet<Reference>,
    level: u32,
}

fn walk(source: &Source<'_>, index: &Index, walk: &Walk<'_>, found: &mut Vec<Found>) -> Result<(), Error> {
    if walk.level >= MAX_LEVELS {
        return Err(Error::archive(INDEX, format!("more than {MAX_LEVELS} levels of indexes")));
    }
    // The top index lists images; each other one is one image, for several platforms.
    let descriptors: Vec<&Descriptor> = match walk.level {
        0 => index.manifests.iter().collect(),
        _ => choose(&index.manifests, walk.platform)?,
    };
    for descriptor in descriptors {
        let mut names = walk.names.clone();
        names.extend(name_of(descriptor)?);
        let name = super::blob_name(&descriptor.digest);
        let (digest, size) = source.by_digest(&descriptor.digest)?;
        if size != descriptor.size {
            return Err(Error::archive(
                name,
                format!("it has {size} bytes, and its descriptor says {}", descriptor.size),
            ));
        }
        match descriptor.media_type.as_str() {
            media_type::OCI_INDEX | media_type::DOCKER_LIST => {
                let inner: Index = document(source, &name)?;
                let level = walk.level + 1;
                self::walk(source, &inner, &Walk { platform: walk.platform, names: &names, level }, found)?;
            }
            _ => add(source, Descriptor::new(&descriptor.media_type, digest, size), &name, names, found)?,
        }
    }
    Ok(())
}

/// The manifest for the platform, of an index that has one image for several.
fn choose<'a>(manifests: &'a [Descriptor], platform: Option<&Platform>) -> Result<Vec<&'a Descriptor>, Error> {
    let host = Platform::host();
    let wanted = platform.unwrap_or(&host);
    let fits = |m: &&Descriptor| m.platform.as_ref().is_none_or(|p| wanted.takes(p));
    let chosen = manifests.iter().find(fits).ok_or_else(|| {
        let has: Vec<String> = manifests.iter().filter_map(|m| m.platform.as_ref()).map(Platform::to_string).collect();
        Error::archive(INDEX, format!("no image for {wanted}; it has {}", has.join(", ")))
    })?;
    Ok(vec![chosen])
}

/// The name that an index gives: a whole one, or nothing; a tag alone names no image.
fn name_of(descriptor: &Descriptor) -> Result<Option<Reference>, Error> {
    let whole = descriptor.annotations.get(NAME);
    let name = whole.or_else(|| descriptor.annotations.get(REF_NAME).filter(|name| name.contains([':', '/'])));
    let Some(name) = name else { return Ok(None) };
    let name = name.parse::<Reference>().map_err(|e| Error::archive(INDEX, e.to_string()))?;
    Ok(Some(name.with_default_tag()))
}

/// One image of a layout, all of whose blobs are looked at.
fn add(
    source: &Source<'_>,
    manifest: Descriptor,
    name: &str,
    names: BTreeSet<Reference>,
    found: &mut Vec<Found>,
) -> Result<(), Error> {
    let known = [media_type::OCI_MANIFEST, media_type::DOCKER_MANIFEST, ""];
    if !known.contains(&manifest.media_type.as_str()) {
        return Err(Error::archive(name, format!("it is of the type {:?}, which is no image's", manifest.media_type)));
    }
    if let Some(same) = found.iter_mut().find(|found| found.manifest.digest == manifest.digest) {
        same.names.extend(names);
        return Ok(());
    }
    let parsed: Manifest = document(source, name)?;
    if parsed.artifact_type.is_some() || parsed.config.media_type == media_type::OCI_EMPTY {
        return Err(Error::archive(name, "it is an artifact and no image"));
    }
    for blob in parsed.layers.iter().chain([&parsed.config]) {
        let (_, size) = source.by_digest(&blob.digest)?;
        if size != blob.size {
            let why = format!("it has {size} bytes, and the manifest says {}", blob.size);
            return Err(Error::archive(super::blob_name(&blob.digest), why));
        }
    }
    let config: ImageConfig = document(source, &super::blob_name(&parsed.config.digest))?;
    check_config(&config, parsed.layers.len(), name)?;
    if found.len() >= MAX_IMAGES {
        return Err(Error::archive(INDEX, format!("it has more than {MAX_IMAGES} images")));
    }
    found.push(Found { manifest, document: parsed, config, names });
    Ok(())
}

fn document<T: DeserializeOwned>(source: &Source<'_>, name: &str) -> Result<T, Error> {
    let bytes = source.document(name, CONFIG_LIMIT)?;
    serde_json::from_slice(&bytes).map_err(|e| Error::archive(name, format!("not the document it must be: {e}")))
}
