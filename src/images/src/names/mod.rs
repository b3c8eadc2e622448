//! Names: which reference is which image. One file, `images.json`, replaced by rename under the root's lock and read without one.
//!
//! An image is what its id, the digest of its configuration, says. It is kept, without a name too (dangling), until it is removed or
//! pruned. What the file says is all that collecting needs to know: no manifest is read, so a damaged one loses nothing.

mod filter;
mod image;
mod images;
mod pattern;
mod remove;

pub use filter::{Filters, Listed};
pub use image::{Image, Layer};
pub use images::{DiskUsage, Images};
pub use remove::{Removed, UsedBy, User};

use crate::repositories::Repositories;
use crate::time::Time;
use rrt_content::{Collected, Exclusive, Lease, Store, step};
use rrt_oci::image::{Digest, ImageConfig, InvalidReference, Reference};
use rustix::fs::{CWD, FallocateFlags, RenameFlags, fallocate, renameat_with};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashSet};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// An image's configuration has at most so many bytes (Docker's and containerd's limit is 4 MiB for any document).
pub const CONFIG_LIMIT: u64 = 4 << 20;

/// Removing images leaves cut downloads of the last week, so that a pull goes on from them; pruning does not.
const PARTIAL_AGE: Duration = Duration::from_secs(7 * 86400);

/// For so long a blob that was pushed to a repository waits for its manifest.
const PUSH_GRACE: Duration = Duration::from_secs(3600);

/// Bytes that `images.json` and its spare may grow by on a full disk.
const RESERVE: u64 = 64 << 10;

/// Why not.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No image has this name or id.
    #[error("No such image: {0}")]
    NoSuchImage(String),
    /// Several ids begin so.
    #[error("multiple IDs found with provided prefix: {0}")]
    AmbiguousId(String),
    /// No reference at all.
    #[error(transparent)]
    Reference(#[from] InvalidReference),
    /// A tag can't be a digest.
    #[error("refusing to create a tag with a digest reference")]
    TagWithDigest,
    /// Something uses it (Docker's words).
    #[error("{0}")]
    Conflict(String),
    /// A filter that is none.
    #[error("{0}")]
    Filter(String),
    /// An image was to be named whose content is not all there.
    #[error("the image {image} lacks its blob {blob}: pull or load it again")]
    Incomplete {
        /// Its id.
        image: Digest,
        /// What is missing.
        blob: Digest,
    },
    /// `images.json` is not what this program writes.
    #[error("{} is damaged or of a newer berth: {why}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where.
        why: String,
    },
    /// The content store failed.
    #[error(transparent)]
    Content(#[from] rrt_content::Error),
    /// A document of an image is not what it must be.
    #[error("the configuration of the image {image} is invalid: {why}")]
    Config {
        /// Its id.
        image: Digest,
        /// Where.
        why: String,
    },
}

/// The names of one root.
#[derive(Clone, Debug)]
pub struct ImageStore {
    content: Store,
}

/// The file.
#[derive(Serialize, Deserialize)]
struct Document<I> {
    version: u32,
    images: I,
}

/// A blob that an image needs and that is not there any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Which.
    pub blob: Digest,
    /// It was there and had another content; now it is removed.
    pub damaged: bool,
    /// The images that need it: a name of each, else its short id. To be pulled or loaded again.
    pub images: Vec<String>,
}

/// What `rmi` and `prune` did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Removal {
    /// Names and images.
    pub removed: Vec<Removed>,
    /// Blobs.
    pub collected: Collected,
}

impl ImageStore {
    /// The names beside this content. The first time after the machine has booted, this makes sure that a crash left no blob that is not
    /// what its name says.
    pub fn open(content: &Store) -> Result<ImageStore, Error> {
        let store = ImageStore { content: content.clone() };
        if content.first_since_boot() {
            let lock = content.exclusive()?;
            let named = store.roots(&lock, &store.load()?)?;
            content.settle(&lock, &named)?;
        }
        Ok(store)
    }

    /// The content.
    pub fn content(&self) -> &Store {
        &self.content
    }

    fn path(&self) -> PathBuf {
        self.content.root().join("images.json")
    }

    /// All images, as they are now.
    pub fn load(&self) -> Result<Images, Error> {
        let path = self.path();
        let bytes = match fs::read(&path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Images::default()),
            read => read.map_err(|e| rrt_content::Error::io("read", &path, e))?,
        };
        let damaged = |why: String| Error::Damaged { path: path.clone(), why };
        let document: Document<Vec<Image>> = serde_json::from_slice(&bytes).map_err(|e| damaged(e.to_string()))?;
        match document.version {
            1 => Ok(Images(document.images.into_iter().map(|image| (image.id.clone(), image)).collect())),
            version => Err(damaged(format!("version {version}, where 1 is known"))),
        }
    }

    /// What the user means by `text`.
    pub fn resolve(&self, text: &str) -> Result<Image, Error> {
        self.load()?.resolve(text).cloned()
    }

    /// As [`ImageStore::resolve`], with all the image's blobs held by the lease: nobody collects them while the lease lives.
    pub fn hold(&self, lease: &Lease, text: &str) -> Result<Image, Error> {
        loop {
            let image = self.resolve(text)?;
            image.blobs().try_for_each(|blob| lease.add(blob))?;
            // Removed between the two: then it may be another's name now.
            if self.load()?.get(&image.id) == Some(&image) {
                return Ok(image);
            }
        }
    }

    /// An image's configuration.
    pub fn config(&self, image: &Image) -> Result<ImageConfig, Error> {
        let bytes = self.content.read(&image.id, CONFIG_LIMIT)?;
        serde_json::from_slice(&bytes).map_err(|e| Error::Config { image: image.id.clone(), why: e.to_string() })
    }

    /// Changes the names: what `change` makes of them replaces the file, unless it fails.
    fn change<T>(&self, change: impl FnOnce(&mut Images) -> Result<T, Error>) -> Result<(T, Exclusive, Images), Error> {
        let lock = self.content.exclusive()?;
        step("names-locked");
        let mut images = self.load()?;
        let result = change(&mut images)?;
        self.write(&images)?;
        Ok((result, lock, images))
    }

    /// Adds an image that is here completely, with its names. The caller's lease holds all its blobs until this is done. Waits
    /// until they are on the disk.
    pub fn add(&self, image: Image) -> Result<(), Error> {
        if let Some(blob) = image.blobs().find(|blob| !self.content.has(blob)) {
            return Err(Error::Incomplete { image: image.id.clone(), blob: blob.clone() });
        }
        self.content.sync()?;
        step("names-synced");
        self.change(|images| {
            images.add(image);
            Ok(())
        })?;
        Ok(())
    }

    /// `tag`: gives the image that `source` means another name.
    pub fn tag(&self, source: &str, name: &Reference) -> Result<Digest, Error> {
        let tag = |images: &mut Images| {
            let id = images.resolve(source)?.id.clone();
            images.tag(&id, name, Time::now().seconds).map(|()| id)
        };
        Ok(self.change(tag)?.0)
    }

    /// Notes that a repository has the image by a digest: after a push.
    pub fn add_digest(&self, id: &Digest, name: &Reference) -> Result<(), Error> {
        let add = |images: &mut Images| match images.0.get_mut(id) {
            Some(image) => {
                image.digests.insert(name.clone());
                Ok(())
            }
            None => Err(Error::NoSuchImage(id.to_string())),
        };
        self.change(add).map(drop)
    }

    /// `rmi`; see [`Images::remove`]. Then deletes the blobs that nothing needs any more.
    pub fn remove(&self, text: &str, force: bool, used_by: UsedBy<'_>) -> Result<Removal, Error> {
        let (removed, lock, images) = self.change(|images| images.remove(text, force, used_by))?;
        let deleted = removed.iter().any(|removed| matches!(removed, Removed::Deleted(_)));
        let collected = if deleted { self.collect_with(&lock, &images, PARTIAL_AGE)? } else { Collected::default() };
        Ok(Removal { removed, collected })
    }

    /// `image prune`: dangling images, or with `all` every one that no container uses, as the filters `until` and `label` allow. Cut
    /// downloads go too.
    pub fn prune(&self, all: bool, filters: &Filters, used_by: UsedBy<'_>) -> Result<Removal, Error> {
        let matches = |image: &Image| !filters.need_labels() || filters.take_labels(&self.labels(image));
        let (removed, lock, images) = self.change(|images| Ok(images.prune(all, filters.until, &matches, used_by)))?;
        let collected = self.collect_with(&lock, &images, Duration::ZERO)?;
        Ok(Removal { removed, collected })
    }

    /// The image's labels; none when its configuration can't be read.
    pub fn labels(&self, image: &Image) -> BTreeMap<String, String> {
        let config = self.config(image).ok().and_then(|config| config.config);
        config.map(|config| config.labels).unwrap_or_default()
    }

    /// Deletes what no image and no running command needs.
    pub fn collect(&self, partial_age: Duration) -> Result<Collected, Error> {
        let lock = self.content.exclusive()?;
        let images = self.load()?;
        self.collect_with(&lock, &images, partial_age)
    }

    fn collect_with(&self, lock: &Exclusive, images: &Images, partial_age: Duration) -> Result<Collected, Error> {
        Ok(self.content.collect(lock, &self.roots(lock, images)?, partial_age)?)
    }

    /// What images and the repositories of `registry serve` need.
    fn roots(&self, lock: &Exclusive, images: &Images) -> Result<HashSet<Digest>, Error> {
        let mut roots = Repositories::new(&self.content).roots(lock, PUSH_GRACE)?;
        roots.extend(images.roots());
        Ok(roots)
    }

    /// Reads every blob that an image has, telling `progress` about each before. A damaged one is removed, so that a pull or load of the
    /// image brings it again.
    pub fn check(&self, progress: &mut dyn FnMut(&Digest)) -> Result<Vec<Problem>, Error> {
        let mut problems = Vec::new();
        let mut users: BTreeMap<Digest, Vec<String>> = BTreeMap::new();
        for image in self.load()?.iter() {
            let called = image.tags.keys().next().map_or_else(|| image.id.short().to_owned(), Reference::familiar);
            image.blobs().for_each(|blob| users.entry(blob.clone()).or_default().push(called.clone()));
        }
        for (blob, images) in users {
            progress(&blob);
            let damaged = match self.content.verify(&blob) {
                Ok(()) => continue,
                Err(rrt_content::Error::Missing(_)) => false,
                Err(rrt_content::Error::Corrupt { .. } | rrt_content::Error::Io { .. }) => true,
                Err(other) => return Err(other.into()),
            };
            if damaged {
                self.content.remove(&self.content.exclusive()?, &blob)?;
            }
            problems.push(Problem { blob, damaged, images });
        }
        Ok(problems)
    }

    /// Writes the spare file and exchanges it with the old one, which then is the spare: its blocks are there already, so that on a
    /// full disk an image can be removed. One command at a time is here, under the lock.
    fn write(&self, images: &Images) -> Result<(), Error> {
        let path = self.path();
        let spare = path.with_extension("json.spare");
        let document = Document { version: 1, images: images.iter().collect::<Vec<_>>() };
        let bytes = serde_json::to_vec(&document).map_err(io::Error::from);
        let written = bytes.and_then(|bytes| write_synced(&spare, &bytes));
        written.map_err(|e| rrt_content::Error::io("write", &spare, e))?;
        step("names-written");
        if renameat_with(CWD, &spare, CWD, &path, RenameFlags::EXCHANGE).is_err() {
            // There is no old one, or the file system can't.
            fs::rename(&spare, &path).map_err(|e| rrt_content::Error::io("rename to", &path, e))?;
        }
        step("names-renamed");
        // Before the blobs of what was removed are: else a crash of the machine might bring back names without content.
        let root = self.content.root();
        File::open(root).and_then(|root| root.sync_all()).map_err(|e| rrt_content::Error::io("sync", root, e))?;
        step("names-durable");
        Ok(())
    }
}

/// Writes over what is there, without giving its blocks back first, and with some in reserve.
fn write_synced(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut options = OpenOptions::new();
    let mut file: File = options.write(true).create(true).truncate(false).mode(0o600).open(path)?;
    file.write_all(bytes)?;
    file.set_len(bytes.len() as u64)?;
    // A file system that can't goes without.
    let _ = fallocate(&file, FallocateFlags::KEEP_SIZE, 0, bytes.len() as u64 + RESERVE);
    file.sync_data()
}

#[cfg(test)]
mod tests;
