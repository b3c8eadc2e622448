//! Leases: what a running command needs.

use crate::error::At;
use crate::{Error, Exclusive, Store, create, remove, step, try_lock};
use rrt_oci::image::Digest;
use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

/// The digests that a running command needs: while the value lives, none of them is collected. Cheap to clone; the file goes with
/// the last clone, and is dead when its process is, since only a lock makes it live.
#[derive(Clone, Debug)]
pub struct Lease(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    store: Store,
    path: PathBuf,
    held: Mutex<Held>,
}

#[derive(Debug)]
struct Held {
    file: File,
    digests: HashSet<Digest>,
}

impl Lease {
    pub(crate) fn new(store: &Store) -> Result<Lease, Error> {
        // Shared, so that no collector sees the file before it is locked, and takes it for a dead command's.
        let _shared = store.shared()?;
        let path = store.root().join("leases").join(unique());
        let file = create(&path)?;
        file.lock().at("lock", &path)?;
        step("lease-made");
        let held = Mutex::new(Held { file, digests: HashSet::new() });
        Ok(Lease(Arc::new(Inner { store: store.clone(), path, held })))
    }

    /// Holds the digest from now on, whether there is such a blob or not. Look for the blob after this, not before.
    pub fn add(&self, digest: &Digest) -> Result<(), Error> {
        let mut held = self.0.held.lock().unwrap_or_else(PoisonError::into_inner);
        if held.digests.contains(digest) {
            return Ok(());
        }
        let _shared = self.0.store.shared()?;
        held.file.write_all(format!("{digest}\n").as_bytes()).at("write", &self.0.path)?;
        step("lease-added");
        held.digests.insert(digest.clone());
        Ok(())
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        // A file that stays is swept as a dead one's.
        let _ = fs::remove_file(&self.path);
    }
}

impl Store {
    /// What the live leases hold, for a collector of other things than blobs (snapshots, by the layers' diff ids).
    pub fn leased(&self, _lock: &Exclusive) -> Result<HashSet<Digest>, Error> {
        live(self)
    }
}

/// What the live leases hold; dead ones are removed. For who holds the root's lock.
pub(crate) fn live(store: &Store) -> Result<HashSet<Digest>, Error> {
    let directory = store.root().join("leases");
    let mut digests = HashSet::new();
    for entry in fs::read_dir(&directory).at("list", &directory)? {
        let path = entry.at("list", &directory)?.path();
        let Some(mut file) = open_if_there(&path)? else { continue };
        if try_lock(&file, &path)? {
            remove(&path)?;
            continue;
        }
        let mut text = String::new();
        file.read_to_string(&mut text).at("read", &path)?;
        digests.extend(text.lines().filter_map(|line| line.parse().ok()));
    }
    Ok(digests)
}

pub(crate) fn open_if_there(path: &Path) -> Result<Option<File>, Error> {
    match File::open(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        opened => opened.map(Some).at("open", path),
    }
}

/// A name that no other process of any time has.
pub(crate) fn unique() -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_nanos());
    format!("{}-{}-{now:x}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed))
}
