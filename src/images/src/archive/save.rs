//! `save`: images as one tar that is a docker-archive (manifest.json) and an OCI image layout (index.json, image-spec image-layout.md) at
//! once, as Docker has written it since 25: whoever reads either can read it.

use super::{DockerImage, INDEX, LAYOUT, LAYOUT_TEXT, MANIFEST, NAME, REF_NAME, REPOSITORIES, blob_name};
use crate::Error;
use crate::commit::document;
use crate::layer::{Entry, Kind, Writer};
use crate::names::Image;
use crate::progress::{Phase, Progress};
use rrt_content::{Hasher, Lease, Store};
use rrt_oci::image::{Descriptor, Digest, Index, Manifest, Reference, media_type};
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufWriter, Read, Write};

/// An image to save, with the names that go along.
pub struct Saved<'a> {
    /// The image.
    pub image: &'a Image,
    /// With tags; none for an image that was asked for by its id.
    pub names: Vec<Reference>,
}

/// Writes images with all their blobs, each blob once. The same images make the same bytes. `lease` holds the blobs (see
/// `ImageStore::hold`).
///
/// # Errors
/// A blob that is missing or damaged; the output's. What was written then is no archive.
pub fn save(
    content: &Store,
    lease: &Lease,
    images: &[Saved<'_>],
    out: impl Write,
    progress: &dyn Progress,
) -> Result<(), Error> {
    let documents = Documents::of(content, lease, images)?;
    let out = BufWriter::with_capacity(1 << 17, out);
    let mut archive = Writer::new(out);
    directory(&mut archive, "blobs/")?;
    directory(&mut archive, "blobs/sha256/")?;
    for digest in &documents.blobs {
        blob(content, digest, &mut archive, progress)?;
    }
    for (name, text) in documents.texts()? {
        file(&mut archive, name, &text)?;
    }
    archive.finish().and_then(|mut out| out.flush()).map_err(|e| Error::io("write the archive", e))
}

#[derive(Default)]
struct Documents {
    blobs: BTreeSet<Digest>,
    index: Vec<Descriptor>,
    manifest: Vec<DockerImage>,
    repositories: BTreeMap<String, BTreeMap<String, String>>,
}

impl Documents {
    fn of(content: &Store, lease: &Lease, images: &[Saved<'_>]) -> Result<Documents, Error> {
        let mut all = Documents::default();
        for Saved { image, names } in images {
            image.blobs().try_for_each(|blob| lease.add(blob))?;
            let manifest: Manifest = document(content, &image.manifest.digest)?;
            all.blobs.extend([image.manifest.digest.clone(), image.id.clone()]);
            all.blobs.extend(manifest.layers.iter().map(|layer| layer.digest.clone()));
            let mut descriptor =
                Descriptor::new(&image.manifest.media_type, image.manifest.digest.clone(), image.manifest.size);
            if descriptor.media_type.is_empty() {
                descriptor.media_type = media_type::OCI_MANIFEST.to_owned();
            }
            descriptor.platform = Some(image.platform.clone());
            if names.is_empty() {
                all.index.push(descriptor.clone());
            }
            for name in names {
                let mut named = descriptor.clone();
                named.annotations.insert(NAME.to_owned(), name.to_string());
                named.annotations.insert(REF_NAME.to_owned(), name.tag().unwrap_or_default().to_owned());
                all.index.push(named);
                // What was once the id of the highest layer is the image's here, as nobody resolves it any more.
                let tags = all.repositories.entry(name.familiar_name()).or_default();
                tags.insert(name.tag().unwrap_or_default().to_owned(), image.id.hex().to_owned());
            }
            let sources = manifest.layers.iter().zip(image.diff_ids());
            all.manifest.push(DockerImage {
                config: blob_name(&image.id),
                repo_tags: (!names.is_empty()).then(|| names.iter().map(Reference::familiar).collect()),
                layers: manifest.layers.iter().map(|layer| blob_name(&layer.digest)).collect(),
                layer_sources: sources.map(|(layer, diff_id)| (diff_id, layer.clone())).collect(),
            });
        }
        Ok(all)
    }

    fn texts(self) -> Result<Vec<(&'static str, Vec<u8>)>, Error> {
        let index = Index {
            schema_version: 2,
            media_type: media_type::OCI_INDEX.to_owned(),
            artifact_type: None,
            manifests: self.index,
            subject: None,
            annotations: BTreeMap::new(),
        };
        let failed = |e: serde_json::Error| Error::io("write the archive", e);
        let mut texts = vec![
            (INDEX, serde_json::to_vec(&index).map_err(failed)?),
            (MANIFEST, serde_json::to_vec(&self.manifest).map_err(failed)?),
            (LAYOUT, LAYOUT_TEXT.to_vec()),
        ];
        if !self.repositories.is_empty() {
            texts.push((REPOSITORIES, json!(self.repositories).to_string().into_bytes()));
        }
        Ok(texts)
    }
}

fn entry<W: Write>(archive: &mut Writer<W>, entry: &Entry) -> Result<(), Error> {
    archive.entry(entry).map_err(|e| Error::io("write the archive", e))
}

fn directory<W: Write>(archive: &mut Writer<W>, name: &str) -> Result<(), Error> {
    entry(archive, &Entry::new(name, Kind::Directory, 0o755))
}

fn file<W: Write>(archive: &mut Writer<W>, name: &str, text: &[u8]) -> Result<(), Error> {
    entry(archive, &Entry::new(name, Kind::File { size: text.len() as u64, extents: None }, 0o644))?;
    archive.write_all(text).map_err(|e| Error::io("write the archive", e))
}

/// Copies a blob, and verifies it on the way: a damaged one must not go to another machine.
fn blob<W: Write>(
    content: &Store,
    digest: &Digest,
    archive: &mut Writer<W>,
    progress: &dyn Progress,
) -> Result<(), Error> {
    let size = content.size(digest)?;
    let mut blob = content.open_blob(digest)?;
    entry(archive, &Entry::new(blob_name(digest), Kind::File { size, extents: None }, 0o644))?;
    let mut hasher = Hasher::new(digest.algorithm());
    let mut buffer = vec![0; 1 << 17];
    let mut done = 0;
    loop {
        if progress.cancelled() {
            return Err(Error::Cancelled);
        }
        let n = blob.read(&mut buffer).map_err(|e| Error::io(format!("read the blob {digest}"), e))?;
        if n == 0 {
            break;
        }
        hasher.update(&buffer[..n]);
        archive.write_all(&buffer[..n]).map_err(|e| Error::io("write the archive", e))?;
        done += n as u64;
        progress.layer(digest.short(), Phase::Pushing, done, Some(size));
    }
    match hasher.finish() {
        found if found == *digest => Ok(()),
        found => Err(Error::archive(
            format!("the blob {digest}"),
            format!("it is damaged (it has {found}): pull the image again"),
        )),
    }
}
