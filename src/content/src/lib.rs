//! Content: blobs by digest, under one root that many processes share and any of which may be killed at any instruction.
//!
//! - A blob that has its name is whole and verified: it is written elsewhere ([`Writer`]) and renamed.
//! - What a command needs it first names in its [`Lease`]; only then it looks. [`Store::collect`] deletes what neither the caller's
//!   roots nor a live lease names, so nothing that a command has seen goes away under it.
//! - Locks are `flock(2)`: they end with their process. The order is: a blob's ingest, then the root's `lock`. One thread holds at
//!   most one [`Writer`] of a known digest, so that two processes that need the same blobs never wait for each other in a ring.
//!
//! The layout is in src/images/DESIGN.md.

#![forbid(unsafe_code)]

mod collect;
mod error;
mod hash;
mod lease;
mod parts;
mod step;
mod temp;
mod writer;

pub use collect::Collected;
pub use error::Error;
pub use hash::Hasher;
pub use lease::Lease;
pub use temp::Temp;
pub use writer::{Ingest, Writer};

#[cfg(feature = "steps")]
pub use step::STEPS;
#[doc(hidden)]
pub use step::step;

use error::At;
use rrt_oci::image::Digest;
use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Read};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The algorithms of digests, each a directory of `blobs`.
const ALGORITHMS: [&str; 2] = ["sha256", "sha512"];

/// The content under one root. Cheap to clone; all methods are for any thread.
#[derive(Clone, Debug)]
pub struct Store {
    root: Arc<Path>,
}

/// The root's lock, held exclusively until dropped: nobody adds to a lease, changes names or collects meanwhile.
///
/// Who holds it must not call what adds to a lease ([`Lease::add`], [`Store::ingest`], [`Store::put`]): it would wait for itself.
#[derive(Debug)]
pub struct Exclusive(#[allow(dead_code, reason = "it is its lock")] File);

impl Store {
    /// Opens the store under `root`, which is made (0711) with all that is missing in it (0700).
    pub fn open(root: &Path) -> Result<Store, Error> {
        let root = std::path::absolute(root).at("find", root)?;
        let store = Store { root: root.into() };
        if !store.root.join("lock").exists() {
            store.make_directories()?;
        }
        Ok(store)
    }

    /// `lock` is made last, so a root that has it has everything.
    fn make_directories(&self) -> Result<(), Error> {
        if !self.root.exists() {
            DirBuilder::new().recursive(true).create(&self.root).at("make the directory", &self.root)?;
            // Others may pass, to a container's root whose user is none of this machine's, but not look.
            fs::set_permissions(&self.root, Permissions::from_mode(0o711)).at("set the mode of", &self.root)?;
        }
        let blobs = ALGORITHMS.map(|algorithm| Path::new("blobs").join(algorithm));
        for directory in blobs.iter().map(PathBuf::as_path).chain(["ingest", "leases", "tmp"].map(Path::new)) {
            let path = self.root.join(directory);
            DirBuilder::new().recursive(true).mode(0o700).create(&path).at("make the directory", &path)?;
        }
        create(&self.root.join("lock"))?;
        Ok(())
    }

    /// The root, absolute.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// A lease, which ends with the value or the process. Also sweeps what killed commands left in `tmp`.
    pub fn lease(&self) -> Result<Lease, Error> {
        self.sweep()?;
        Lease::new(self)
    }

    /// Where the blob is, or would be.
    pub fn path(&self, digest: &Digest) -> PathBuf {
        self.root.join("blobs").join(digest.algorithm()).join(digest.hex())
    }

    /// Is the blob there? Only what a lease or a name holds stays there.
    pub fn has(&self, digest: &Digest) -> bool {
        self.path(digest).exists()
    }

    /// The blob's size in bytes; [`Error::Missing`] when it is not there.
    pub fn size(&self, digest: &Digest) -> Result<u64, Error> {
        let path = self.path(digest);
        match fs::metadata(&path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Err(Error::Missing(digest.clone())),
            found => Ok(found.at("look at", &path)?.len()),
        }
    }

    /// The blob, to read; [`Error::Missing`] when it is not there.
    pub fn open_blob(&self, digest: &Digest) -> Result<File, Error> {
        let path = self.path(digest);
        match File::open(&path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Err(Error::Missing(digest.clone())),
            opened => opened.at("open", &path),
        }
    }

    /// A document: at most `limit` bytes ([`Error::TooLarge`]), and verified ([`Error::Corrupt`]).
    pub fn read(&self, digest: &Digest, limit: u64) -> Result<Vec<u8>, Error> {
        let file = self.open_blob(digest)?;
        let path = self.path(digest);
        let size = file.metadata().at("look at", &path)?.len();
        if size > limit {
            return Err(Error::TooLarge { digest: digest.clone(), size, limit });
        }
        let mut bytes = Vec::with_capacity(size as usize);
        file.take(limit).read_to_end(&mut bytes).at("read", &path)?;
        match Hasher::digest_of(digest.algorithm(), &bytes) {
            found if found == *digest => Ok(bytes),
            found => Err(Error::Corrupt { path, found }),
        }
    }

    /// All blobs with their sizes in bytes, in no order.
    pub fn blobs(&self) -> Result<Vec<(Digest, u64)>, Error> {
        let mut blobs = Vec::new();
        for algorithm in ALGORITHMS {
            let directory = self.root.join("blobs").join(algorithm);
            for entry in fs::read_dir(&directory).at("list", &directory)? {
                let entry = entry.at("list", &directory)?;
                let name = entry.file_name();
                let Some(Ok(digest)) = name.to_str().map(|hex| format!("{algorithm}:{hex}").parse()) else { continue };
                match entry.metadata() {
                    Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                    found => blobs.push((digest, found.at("look at", &entry.path())?.len())),
                }
            }
        }
        Ok(blobs)
    }

    /// Waits until all that was written under the root is on the disk (`syncfs(2)`): before a name says that it is there.
    pub fn sync(&self) -> Result<(), Error> {
        let root = File::open(&self.root).at("open", &self.root)?;
        rustix::fs::syncfs(&root).map_err(io::Error::from).at("sync the file system of", &self.root)
    }

    /// The root's lock, exclusively: to change names and to collect. Waits for it.
    pub fn exclusive(&self) -> Result<Exclusive, Error> {
        let (file, path) = self.lock_file()?;
        file.lock().at("lock", &path)?;
        Ok(Exclusive(file))
    }

    /// As [`Store::exclusive`], but `None` instead of waiting.
    fn try_exclusive(&self) -> Result<Option<Exclusive>, Error> {
        let (file, path) = self.lock_file()?;
        Ok(try_lock(&file, &path)?.then_some(Exclusive(file)))
    }

    /// The root's lock, shared with others who do the like.
    fn shared(&self) -> Result<File, Error> {
        let (file, path) = self.lock_file()?;
        file.lock_shared().at("lock", &path)?;
        Ok(file)
    }

    /// Opened anew each time: a lock belongs to the open file, so two threads must not share one.
    fn lock_file(&self) -> Result<(File, PathBuf), Error> {
        let path = self.root.join("lock");
        Ok((File::open(&path).at("open", &path)?, path))
    }
}

/// A file to read and write, made if it is not there; for its owner alone.
fn create(path: &Path) -> Result<File, Error> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600);
    options.open(path).at("open", path)
}

/// `false` when somebody else has it.
fn try_lock(file: &File, path: &Path) -> Result<bool, Error> {
    match file.try_lock() {
        Ok(()) => Ok(true),
        Err(fs::TryLockError::WouldBlock) => Ok(false),
        Err(fs::TryLockError::Error(e)) => Err(e).at("lock", path),
    }
}

/// Removes a file that may be gone already; says whether it was there.
fn remove(path: &Path) -> Result<bool, Error> {
    match fs::remove_file(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
        removed => removed.map(|()| true).at("remove", path),
    }
}

#[cfg(test)]
mod tests;
