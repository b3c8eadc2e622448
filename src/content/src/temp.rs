//! Temporary directories under the root, so that a rename brings what is made in them to its place; swept when their maker died.

use crate::error::At;
use crate::{Error, Store, lease, step, try_lock};
use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

/// A directory (0700) of `tmp`, locked while the value lives and removed with it.
#[derive(Debug)]
pub struct Temp {
    path: PathBuf,
    _lock: File,
}

impl Store {
    /// Makes a temporary directory.
    pub fn temp(&self) -> Result<Temp, Error> {
        // As for a new lease: no sweeper sees it before it is locked.
        let _shared = self.shared()?;
        let path = self.root().join("tmp").join(lease::unique());
        DirBuilder::new().mode(0o700).create(&path).at("make the directory", &path)?;
        let lock = File::open(&path).at("open", &path)?;
        lock.lock().at("lock", &path)?;
        step("temp-made");
        Ok(Temp { path, _lock: lock })
    }

    /// Removes what killed commands left in `tmp`; nothing when somebody else works on the root just now.
    pub(crate) fn sweep(&self) -> Result<(), Error> {
        let directory = self.root().join("tmp");
        if fs::read_dir(&directory).at("list", &directory)?.next().is_none() {
            return Ok(());
        }
        let dead = match self.try_exclusive()? {
            Some(_exclusive) => self.dead_temps()?,
            None => return Ok(()),
        };
        // Their locks are kept meanwhile: no other sweeper begins with them, and the root is free for others.
        dead.iter().try_for_each(|(path, _lock)| remove_tree(path))
    }

    /// What killed commands left in `tmp`, each with its lock. For who holds the root's lock.
    pub(crate) fn dead_temps(&self) -> Result<Vec<(PathBuf, File)>, Error> {
        let directory = self.root().join("tmp");
        let mut dead = Vec::new();
        for entry in fs::read_dir(&directory).at("list", &directory)? {
            let path = entry.at("list", &directory)?.path();
            let Some(file) = lease::open_if_there(&path)? else { continue };
            if try_lock(&file, &path)? {
                dead.push((path, file));
            }
        }
        Ok(dead)
    }
}

impl Temp {
    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Temp {
    fn drop(&mut self) {
        let _ = remove_tree(&self.path);
    }
}

pub(crate) fn remove_tree(path: &Path) -> Result<(), Error> {
    match fs::remove_dir_all(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(e) if e.kind() == io::ErrorKind::NotADirectory => crate::remove(path).map(drop),
        removed => removed.at("remove", path),
    }
}
