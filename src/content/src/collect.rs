//! Garbage: what neither a root of the caller's nor a live lease names.

use crate::error::At;
use crate::temp::remove_tree;
use crate::writer::record_path;
use crate::{Error, Exclusive, Hasher, Store, lease, remove, step, try_lock};
use rrt_oci::image::Digest;
use std::collections::HashSet;
use std::fs::{self, Metadata};
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// What [`Store::collect`] deleted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Collected {
    /// Blobs.
    pub blobs: u64,
    /// Cut downloads.
    pub partial: u64,
    /// Bytes of both.
    pub bytes: u64,
}

impl Store {
    /// Deletes the blobs that neither `kept` nor a live lease names, and the cut downloads that nobody goes on with and nobody
    /// has touched for `partial_age`, and what killed commands left in `tmp`.
    ///
    /// The lock is taken before `kept` is computed, so that nothing is named meanwhile.
    pub fn collect(
        &self,
        _lock: &Exclusive,
        kept: &HashSet<Digest>,
        partial_age: Duration,
    ) -> Result<Collected, Error> {
        let live = lease::live(self)?;
        step("collect-begun");
        let mut collected = Collected::default();
        for (digest, size) in self.blobs()? {
            if !kept.contains(&digest) && !live.contains(&digest) && remove(&self.path(&digest))? {
                step("collect-removed");
                collected.blobs += 1;
                collected.bytes += size;
            }
        }
        let directory = self.root().join("ingest");
        for entry in fs::read_dir(&directory).at("list", &directory)? {
            let path = entry.at("list", &directory)?.path();
            if let Some(bytes) = collect_partial(&path, &live, partial_age)? {
                collected.partial += 1;
                collected.bytes += bytes;
            }
        }
        for (path, _lock) in self.dead_temps()? {
            remove_tree(&path)?;
        }
        Ok(collected)
    }

    /// What running commands hold.
    pub fn held(&self, _lock: &Exclusive) -> Result<HashSet<Digest>, Error> {
        lease::live(self)
    }

    /// Deletes one blob: a damaged one, that a later pull brings again.
    pub fn remove(&self, _lock: &Exclusive, digest: &Digest) -> Result<(), Error> {
        remove(&self.path(digest)).map(drop)
    }

    /// Reads a blob whole: [`Error::Corrupt`] when it is not what its name says.
    pub fn verify(&self, digest: &Digest) -> Result<(), Error> {
        let mut file = self.open_blob(digest)?;
        let path = self.path(digest);
        let (mut hasher, mut buffer) = (Hasher::new(digest.algorithm()), vec![0; 1 << 20]);
        loop {
            match file.read(&mut buffer).at("read", &path)? {
                0 => break,
                n => hasher.update(&buffer[..n]),
            }
        }
        match hasher.finish() {
            found if found == *digest => Ok(()),
            found => Err(Error::Corrupt { path, found }),
        }
    }
}

impl Store {
    /// Has nobody called [`Store::settle`] since the machine has booted?
    pub fn first_since_boot(&self) -> bool {
        fs::read_to_string(self.root().join("boot")).map_or(true, |last| last != boot())
    }

    /// After a crash of the machine a blob may have its name and not its content, for it is synced only before an image is named. So
    /// every blob that is not in `named` is read, and removed when it is wrong. Once a boot: [`Store::first_since_boot`].
    pub fn settle(&self, _lock: &Exclusive, named: &HashSet<Digest>) -> Result<(), Error> {
        for (digest, _) in self.blobs()? {
            if !named.contains(&digest) && matches!(self.verify(&digest), Err(Error::Corrupt { .. })) {
                remove(&self.path(&digest))?;
            }
        }
        let path = self.root().join("boot");
        fs::write(&path, boot()).at("write", &path)
    }
}

/// This boot's id; empty where the kernel's file can't be read.
fn boot() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default()
}

/// Deletes a cut download that is not needed; says how many bytes it was.
fn collect_partial(path: &Path, live: &HashSet<Digest>, age: Duration) -> Result<Option<u64>, Error> {
    if let Some(data) = path.to_str().and_then(|text| text.strip_suffix(".parts")).map(PathBuf::from) {
        // It goes with its data. One without belongs to nobody.
        if !data.exists() {
            remove(path)?;
        }
        return Ok(None);
    }
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let digest: Option<Digest> = name.replacen('-', ":", 1).parse().ok();
    if digest.is_some_and(|digest| live.contains(&digest)) {
        return Ok(None);
    }
    let Some(file) = lease::open_if_there(path)? else { return Ok(None) };
    let about = file.metadata().at("look at", path)?;
    if idle(&about) < age || !try_lock(&file, path)? {
        return Ok(None);
    }
    // The data first: without the record its length would count as content.
    remove(path)?;
    step("collect-partial");
    remove(&record_path(path))?;
    Ok(Some(about.blocks() * 512))
}

/// For how long nobody has written; nothing when the clock went back.
fn idle(about: &Metadata) -> Duration {
    about.modified().ok().and_then(|at| SystemTime::now().duration_since(at).ok()).unwrap_or_default()
}
