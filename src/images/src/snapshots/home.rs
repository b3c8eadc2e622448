//! What all drivers have in common: names, locks, and that everything is made beside its place and renamed.

use super::{ChainId, Delta, Driver, Error, Usage, View, Whiteouts, Written, init_layer, mount, probe};
use crate::tree;
use rrt_oci::image::Digest;
use rustix::fs::{FlockOperation, Mode, OFlags};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use std::collections::HashSet;
use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

/// The snapshots of one root, by one driver.
pub struct Snapshots {
    home: PathBuf,
    driver: Arc<dyn Driver>,
    boot: String,
    /// Layers that this process has committed and not yet synced.
    unsynced: Mutex<Vec<PathBuf>>,
}

/// What [`Snapshots::prepare`] finds.
pub enum Preparation {
    /// The layer is there.
    Present,
    /// It has to be unpacked; nobody else is at it.
    Unpack(Prepared),
}

/// A place for one layer. Dropped without [`Snapshots::commit`], it is removed.
pub struct Prepared {
    fs: OwnedFd,
    work: Work,
    layers: Vec<Digest>,
    whiteouts: Whiteouts,
}

impl Prepared {
    /// The directory to unpack to.
    pub fn directory(&self) -> BorrowedFd<'_> {
        self.fs.as_fd()
    }

    /// Its path, for messages.
    pub fn path(&self) -> PathBuf {
        self.work.path.join("fs")
    }

    /// How deletions are written there.
    pub fn whiteouts(&self) -> Whiteouts {
        self.whiteouts
    }
}

/// What [`Snapshots::collect`] has removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Collected {
    /// Layers.
    pub layers: u64,
    /// Bytes on the disk that they took.
    pub bytes: u64,
}

/// A directory in `tmp`, locked.
struct Work {
    path: PathBuf,
    driver: Arc<dyn Driver>,
    lock: Option<OwnedFd>,
}

impl Drop for Work {
    fn drop(&mut self) {
        if self.lock.is_some() {
            let _ = destroy(&*self.driver, &self.path);
        }
    }
}

/// The file `layer` of a layer.
#[derive(Serialize, Deserialize)]
struct Label {
    diff_id: Digest,
}

/// The file `layers` of a container.
#[derive(Serialize, Deserialize)]
struct Below {
    diff_ids: Vec<Digest>,
    init: bool,
}

impl Snapshots {
    /// Opens those of `root`. The driver is `choice`, or the one that `root` was begun with, or the first that works here.
    pub fn open(root: &Path, choice: Option<&str>) -> Result<Snapshots, Error> {
        let top = root.join("snapshots");
        make_directory(&top)?;
        let driver = probe::choose(&top, choice)?;
        let home = top.join(driver.name());
        for directory in [home.clone(), home.join("layers"), home.join("containers"), home.join("tmp")] {
            make_directory(&directory)?;
        }
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned();
        let snapshots = Snapshots { home, driver, boot, unsynced: Mutex::default() };
        snapshots.sweep()?;
        Ok(snapshots)
    }

    /// The driver.
    pub fn driver(&self) -> &dyn Driver {
        &*self.driver
    }

    /// The driver's directory.
    pub fn path(&self) -> &Path {
        &self.home
    }

    /// Is a layer's directory of no other layer's making, so that layers may be unpacked in any order?
    pub fn independent(&self) -> bool {
        self.driver.whiteouts() != Whiteouts::Apply
    }

    /// Is the last of `layers` (diff ids, lowest first) there?
    pub fn has(&self, layers: &[Digest]) -> bool {
        self.find(layers).is_some()
    }

    /// The directory of the last of `layers`.
    fn find(&self, layers: &[Digest]) -> Option<PathBuf> {
        let diff_id = layers.last().filter(|_| self.independent()).map(|digest| self.layer(digest));
        let by_chain = || ChainId::of(layers).map(|chain| self.layer(chain.digest()));
        diff_id.filter(|path| self.is_whole(path)).or_else(|| by_chain().filter(|path| self.is_whole(path)))
    }

    fn layer(&self, digest: &Digest) -> PathBuf {
        self.home.join("layers").join(digest.hex())
    }

    fn is_whole(&self, layer: &Path) -> bool {
        match fs::read_to_string(layer.join("unsynced")) {
            Ok(boot) => boot == self.boot && !boot.is_empty(),
            Err(e) => e.kind() == io::ErrorKind::NotFound && layer.join("fs").symlink_metadata().is_ok(),
        }
    }

    /// The directories of all of `layers`, lowest first. A layer that is there twice counts where it is highest: all that it has covers what
    /// it has below, and overlayfs refuses the same directory twice.
    fn directories(&self, layers: &[Digest]) -> Result<Vec<PathBuf>, Error> {
        if !self.independent() {
            // The highest is all of them.
            let Some(last) = layers.last() else { return Ok(Vec::new()) };
            return Ok(vec![self.find(layers).ok_or_else(|| Error::NoLayer(last.clone()))?.join("fs")]);
        }
        let one = |n: usize| self.find(&layers[..=n]).ok_or_else(|| Error::NoLayer(layers[n].clone()));
        // Overlay takes no directory twice. Of a layer that an image has twice (old Dockers wrote an empty one for each step) the higher one
        // does again all that the lower one did.
        let mut directories: Vec<PathBuf> = Vec::with_capacity(layers.len());
        let mut seen = HashSet::new();
        for n in (0..layers.len()).rev() {
            let directory = one(n)?.join("fs");
            if seen.insert(directory.clone()) {
                directories.push(directory);
            }
        }
        directories.reverse();
        Ok(directories)
    }

    /// The directories of those of `layers` that are there, lowest first; for `inspect`.
    pub fn paths(&self, layers: &[Digest]) -> Vec<PathBuf> {
        let from = if self.independent() { 0 } else { layers.len().saturating_sub(1) };
        (from..layers.len()).filter_map(|n| Some(self.find(&layers[..=n])?.join("fs"))).collect()
    }

    /// A place to unpack the last of `layers` to. Where another process is at the same layer, waits for it: so a thread commits or drops
    /// what it has prepared before it prepares another, or two processes could wait for each other for ever.
    pub fn prepare(&self, layers: &[Digest]) -> Result<Preparation, Error> {
        let (Some(last), Some(chain)) = (layers.last(), ChainId::of(layers)) else {
            return Ok(Preparation::Present);
        };
        if self.has(layers) {
            return Ok(Preparation::Present);
        }
        let work = self.claim(if self.independent() { last.hex() } else { chain.digest().hex() })?;
        if self.has(layers) {
            return Ok(Preparation::Present);
        }
        let below = match self.independent() {
            true => None,
            false => self.directories(&layers[..layers.len() - 1])?.pop(),
        };
        let path = work.path.join("fs");
        self.driver.make_layer(&path, below.as_deref())?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fs = rustix::fs::open(&path, flags, Mode::empty()).map_err(|e| Error::io("open", &path, e))?;
        Ok(Preparation::Unpack(Prepared { fs, work, layers: layers.to_vec(), whiteouts: self.driver.whiteouts() }))
    }

    /// Makes an unpacked layer visible. `implicit` are directories (relative) that its archive does not have, made because something is in
    /// them: where there are some, the layers below must have been committed, because it is they who say how these look.
    pub fn commit(&self, prepared: Prepared, implicit: &[PathBuf]) -> Result<(), Error> {
        let Prepared { fs, mut work, layers, .. } = prepared;
        let (Some(diff_id), Some(chain)) = (layers.last(), ChainId::of(&layers)) else { return Ok(()) };
        let by_chain = !self.independent() || (!implicit.is_empty() && layers.len() > 1);
        if self.independent() && by_chain {
            let below = self.view(&layers[..layers.len() - 1])?;
            for path in implicit {
                super::copy::take_after(&below.tree, fs.as_fd(), path)?;
            }
        }
        write_json(&work.path.join("layer"), &Label { diff_id: diff_id.clone() })?;
        let unsynced = work.path.join("unsynced");
        fs::write(&unsynced, &self.boot).map_err(|e| Error::io("write", &unsynced, e))?;
        let target = self.layer(if by_chain { chain.digest() } else { diff_id });
        if self.is_whole(&target) {
            return Ok(());
        }
        self.discard(&target)?;
        fs::rename(&work.path, &target).map_err(|e| Error::io("rename to", &target, e))?;
        work.lock = None;
        self.unsynced.lock().unwrap_or_else(|e| e.into_inner()).push(target);
        Ok(())
    }

    /// Makes what this process has committed outlive a crash of the machine: to be called once, after the last layer of an image.
    pub fn sync(&self) -> Result<(), Error> {
        let layers = std::mem::take(&mut *self.unsynced.lock().unwrap_or_else(|e| e.into_inner()));
        if layers.is_empty() {
            return Ok(());
        }
        let home = open_directory(&self.home)?;
        rustix::fs::syncfs(&home).map_err(|e| Error::io("sync", &self.home, e))?;
        for layer in layers {
            let mark = layer.join("unsynced");
            match fs::remove_file(&mark) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(Error::io("remove", &mark, e)),
                _ => {}
            }
        }
        Ok(())
    }

    /// `layers` as one tree, to read.
    pub fn view(&self, layers: &[Digest]) -> Result<View, Error> {
        let directories = self.directories(layers)?;
        let held = hold(&directories)?;
        let mut view = self.driver.view(&directories, &self.scratch())?;
        view.held = held;
        Ok(view)
    }

    fn scratch(&self) -> PathBuf {
        scratch(&self.home)
    }

    /// Makes the root of a new container on `layers`, with an init layer or without (as steps of a build have it).
    pub fn create(&self, id: &str, layers: &[Digest], init: bool) -> Result<(), Error> {
        let place = self.place(id)?;
        // Until the container's file names them, only this keeps the layers.
        let _lock = self.lock(FlockOperation::LockShared)?;
        if place.symlink_metadata().is_ok() {
            return Err(Error::Exists(id.to_owned()));
        }
        let mut directories = self.directories(layers)?;
        if init && self.independent() {
            directories.push(self.init_layer(layers, &directories)?);
        }
        let mut work = self.claim(&format!("container-{id}"))?;
        self.driver.make_container(&work.path, &directories)?;
        if init && !self.independent() {
            init_layer::write(open_directory(&self.driver.own(&work.path))?.as_fd())?;
        }
        write_json(&work.path.join("layers"), &Below { diff_ids: layers.to_vec(), init })?;
        // A directory that is there and not empty is one of the same name, made meanwhile.
        match fs::rename(&work.path, &place) {
            Ok(()) => work.lock = None,
            Err(e) if matches!(e.kind(), io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::AlreadyExists) => {
                return Err(Error::Exists(id.to_owned()));
            }
            Err(e) => return Err(Error::io("rename to", &place, e)),
        }
        Ok(())
    }

    /// The init layer's directory, one for all containers on the same layers: it depends on them where they have other things at
    /// its paths.
    fn init_layer(&self, layers: &[Digest], directories: &[PathBuf]) -> Result<PathBuf, Error> {
        let name = init_name(layers);
        let target = self.home.join("layers").join(&name);
        if self.is_whole(&target) {
            return Ok(target.join("fs"));
        }
        let mut work = self.claim(&name)?;
        if self.is_whole(&target) {
            return Ok(target.join("fs"));
        }
        let place = work.path.join("place");
        make_directory(&place)?;
        self.driver.make_container(&place, directories)?;
        let root = self.driver.mount(&place, directories)?;
        let written = open_directory(&root).and_then(|root| init_layer::write(root.as_fd()));
        self.driver.unmount(&place)?;
        written?;
        let fs = work.path.join("fs");
        fs::rename(self.driver.own(&place), &fs).map_err(|e| Error::io("rename to", &fs, e))?;
        destroy(&*self.driver, &place)?;
        let unsynced = work.path.join("unsynced");
        fs::write(&unsynced, &self.boot).map_err(|e| Error::io("write", &unsynced, e))?;
        self.discard(&target)?;
        fs::rename(&work.path, &target).map_err(|e| Error::io("rename to", &target, e))?;
        work.lock = None;
        self.unsynced.lock().unwrap_or_else(|e| e.into_inner()).push(target.clone());
        Ok(target.join("fs"))
    }

    /// Mounts a container's root and returns where. The mount is in the caller's mount namespace and stays.
    pub fn mount(&self, id: &str) -> Result<PathBuf, Error> {
        let (place, directories) = self.container(id)?;
        let _lock = lock_directory(&place)?;
        self.driver.mount(&place, &directories)
    }

    /// Takes the mount away.
    pub fn unmount(&self, id: &str) -> Result<(), Error> {
        let place = self.existing(id)?;
        let _lock = lock_directory(&place)?;
        self.driver.unmount(&place)
    }

    /// Unmounts and removes a container's root.
    pub fn remove(&self, id: &str) -> Result<(), Error> {
        let place = self.existing(id)?;
        let lock = lock_directory(&place)?;
        self.driver.unmount(&place)?;
        let doomed = self.scratch();
        fs::rename(&place, &doomed).map_err(|e| Error::io("rename to", &doomed, e))?;
        let done = destroy(&*self.driver, &doomed);
        drop(lock);
        done
    }

    /// The names of all containers that have a root here.
    pub fn containers(&self) -> Result<Vec<String>, Error> {
        let mut names = entries(&self.home.join("containers"))?;
        names.sort();
        Ok(names)
    }

    /// The layers that a container is on.
    pub fn layers_of(&self, id: &str) -> Result<Vec<Digest>, Error> {
        Ok(self.below(&self.existing(id)?)?.diff_ids)
    }

    /// The tree of a container: its layers and what it has written, mounted or not.
    pub fn view_container(&self, id: &str) -> Result<View, Error> {
        let (place, mut directories) = self.container(id)?;
        let held = hold(&directories)?;
        let own = self.driver.own(&place);
        // What is mounted is read there: a directory may not be above in one mount and below in another.
        let merged = place.join("merged");
        if mount::is_mounted(&merged) {
            return View::open(&merged);
        }
        if let Written::Whole(mut view) = self.driver.written(&place, &directories)? {
            view.held = held;
            return Ok(view);
        }
        directories.push(own);
        let mut view = self.driver.view(&directories, &self.scratch())?;
        view.held = held;
        Ok(view)
    }

    /// What a container has written, and the layers below it (with the init layer) to compare with.
    pub fn written(&self, id: &str) -> Result<Delta, Error> {
        let (place, directories) = self.container(id)?;
        let held = hold(&directories)?;
        let mut below = self.driver.view(&directories, &self.scratch())?;
        below.held = held;
        let init = self.below(&place)?.init;
        Ok(Delta { below, written: self.driver.written(&place, &directories)?, init })
    }

    /// Space of the last of `layers`: its own files (with btrfs and copy: all of its tree).
    pub fn usage(&self, layers: &[Digest]) -> Result<Usage, Error> {
        let Some(last) = layers.last() else { return Ok(Usage::default()) };
        let layer = self.find(layers).ok_or_else(|| Error::NoLayer(last.clone()))?;
        measure(&layer)
    }

    /// Space of what a container has written itself (with btrfs and copy: all of its tree).
    pub fn usage_of(&self, id: &str) -> Result<Usage, Error> {
        tree::usage(&self.driver.own(&self.existing(id)?))
    }

    /// Removes all layers but those of `chains` (each a list of diff ids, lowest first), those that a container is on, and those with
    /// a diff id in `leased`. What somebody reads at the moment stays as well.
    pub fn collect(&self, chains: &[Vec<Digest>], leased: &HashSet<Digest>) -> Result<Collected, Error> {
        let lock = self.lock(FlockOperation::LockExclusive)?;
        let mut kept: HashSet<String> = leased.iter().map(|digest| digest.hex().to_owned()).collect();
        for chain in chains {
            self.keep(chain, &mut kept);
        }
        for id in self.containers()? {
            self.keep(&self.below(&self.place(&id)?)?.diff_ids, &mut kept);
        }
        let mut doomed = Vec::new();
        for name in entries(&self.home.join("layers"))? {
            let path = self.home.join("layers").join(&name);
            let is_leased =
                || read_json::<Label>(&path.join("layer")).is_ok_and(|label| leased.contains(&label.diff_id));
            if kept.contains(&name) || is_leased() {
                continue;
            }
            let Ok(directory) = open_directory(&path) else { continue };
            if rustix::fs::flock(&directory, FlockOperation::NonBlockingLockExclusive).is_ok() {
                let away = self.scratch();
                fs::rename(&path, &away).map_err(|e| Error::io("rename to", &away, e))?;
                doomed.push((away, directory));
            }
        }
        drop(lock);
        let mut collected = Collected::default();
        for (path, _lock) in doomed {
            collected.bytes += measure(&path)?.bytes;
            collected.layers += 1;
            destroy(&*self.driver, &path)?;
        }
        Ok(collected)
    }

    /// Adds the names of the layers of a chain.
    fn keep(&self, diff_ids: &[Digest], kept: &mut HashSet<String>) {
        if self.independent() {
            kept.extend(diff_ids.iter().map(|digest| digest.hex().to_owned()));
        }
        kept.extend(ChainId::each(diff_ids).iter().map(|chain| chain.digest().hex().to_owned()));
        kept.insert(init_name(diff_ids));
    }

    /// `info`'s rows under "Storage Driver".
    pub fn info(&self) -> Vec<(String, String)> {
        let mut rows = vec![("Backing Filesystem".to_owned(), probe::backing(&self.home))];
        rows.extend(self.driver.info());
        rows
    }

    fn place(&self, id: &str) -> Result<PathBuf, Error> {
        let good = |b: u8| b.is_ascii_alphanumeric() || b"_.-".contains(&b);
        match id.bytes().next() {
            Some(first) if first.is_ascii_alphanumeric() && id.bytes().all(good) && id.len() <= 200 => {
                Ok(self.home.join("containers").join(id))
            }
            _ => Err(Error::InvalidName(id.to_owned())),
        }
    }

    fn existing(&self, id: &str) -> Result<PathBuf, Error> {
        let place = self.place(id)?;
        place.is_dir().then_some(place).ok_or_else(|| Error::NoSnapshot(id.to_owned()))
    }

    fn below(&self, place: &Path) -> Result<Below, Error> {
        read_json(&place.join("layers"))
    }

    /// A container's place and the directories below it.
    fn container(&self, id: &str) -> Result<(PathBuf, Vec<PathBuf>), Error> {
        let place = self.existing(id)?;
        let below = self.below(&place)?;
        let mut directories = self.directories(&below.diff_ids)?;
        if below.init && self.independent() {
            directories.push(self.init_layer(&below.diff_ids, &directories)?);
        }
        Ok((place, directories))
    }

    fn lock(&self, operation: FlockOperation) -> Result<OwnedFd, Error> {
        let path = self.home.join("lock");
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC;
        let fd = rustix::fs::open(&path, flags, Mode::RUSR | Mode::WUSR).map_err(|e| Error::io("open", &path, e))?;
        flock(&fd, operation).map_err(|e| Error::io("lock", &path, e))?;
        Ok(fd)
    }

    /// Makes and locks `tmp/<name>`, empty; waits while another process has it.
    fn claim(&self, name: &str) -> Result<Work, Error> {
        let path = self.home.join("tmp").join(name);
        loop {
            make_directory(&path)?;
            let directory = match open_directory(&path) {
                Ok(directory) => directory,
                // Renamed, or swept, by another.
                Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => continue,
                Err(e) => return Err(e),
            };
            flock(&directory, FlockOperation::LockExclusive).map_err(|e| Error::io("lock", &path, e))?;
            if is_at(&directory, &path)? {
                if !entries(&path)?.is_empty() {
                    // A killed command's.
                    destroy(&*self.driver, &path)?;
                    continue;
                }
                return Ok(Work { path, driver: Arc::clone(&self.driver), lock: Some(directory) });
            }
        }
    }

    /// Moves what is at `path`, if anything, out of the way, and removes it.
    fn discard(&self, path: &Path) -> Result<(), Error> {
        let away = self.scratch();
        match fs::rename(path, &away) {
            Ok(()) => destroy(&*self.driver, &away),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(e) => Err(Error::io("rename to", &away, e)),
        }
    }

    /// Removes what killed commands have left.
    fn sweep(&self) -> Result<(), Error> {
        let tmp = self.home.join("tmp");
        for name in entries(&tmp)? {
            let path = tmp.join(&name);
            let owner = name.split('-').nth(1).filter(|_| name.starts_with('.'));
            // A scratch name is its process's for as long as that lives: it is made without a lock.
            if owner.is_some_and(|pid| Path::new("/proc").join(pid).exists()) {
                continue;
            }
            let Ok(directory) = open_directory(&path) else {
                let _ = fs::remove_file(&path);
                continue;
            };
            if rustix::fs::flock(&directory, FlockOperation::NonBlockingLockExclusive).is_ok()
                && is_at(&directory, &path)?
            {
                destroy(&*self.driver, &path)?;
            }
        }
        Ok(())
    }
}

/// A name in `tmp` that no one has.
pub(super) fn scratch(home: &Path) -> PathBuf {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let n = COUNT.fetch_add(1, Ordering::Relaxed);
    home.join("tmp").join(format!(".scratch-{}-{n}", std::process::id()))
}

fn init_name(layers: &[Digest]) -> String {
    let chain = ChainId::of(layers);
    format!("{}-init", chain.as_ref().map_or("scratch", |chain| chain.digest().hex()))
}

/// A layer's size, which does not change: measured once.
fn measure(layer: &Path) -> Result<Usage, Error> {
    let file = layer.join("usage");
    if let Ok((bytes, inodes)) = read_json(&file) {
        return Ok(Usage { bytes, inodes });
    }
    let usage = tree::usage(&layer.join("fs"))?;
    // A root that can't be written can still be measured.
    let _ = write_json(&file, &(usage.bytes, usage.inodes));
    Ok(usage)
}

/// Keeps layers from being collected while the descriptors live.
fn hold(directories: &[PathBuf]) -> Result<Vec<OwnedFd>, Error> {
    let one = |fs: &PathBuf| {
        let layer = fs.parent().unwrap_or(fs);
        let fd = open_directory(layer)?;
        flock(&fd, FlockOperation::LockShared).map_err(|e| Error::io("lock", layer, e))?;
        if is_at(&fd, layer)? { Ok(fd) } else { Err(Error::io("open", layer, Errno::NOENT)) }
    };
    directories.iter().map(one).collect()
}

/// Unmounts what is mounted at or in a place of a container, a layer or a view, and removes it.
fn destroy(driver: &dyn Driver, path: &Path) -> Result<(), Error> {
    for at in [path.to_owned(), path.join("merged"), path.join("place/merged")] {
        mount::unmount(&at)?;
    }
    let place = path.join("place");
    if place.exists() {
        driver.delete(&place)?;
    }
    driver.delete(path)
}

pub(super) fn make_directory(path: &Path) -> Result<(), Error> {
    match fs::DirBuilder::new().mode(0o700).create(path) {
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(|e| Error::io("create", path, e))
        }
        other => other.map_err(|e| Error::io("create", path, e)),
    }
}

pub(super) fn open_directory(path: &Path) -> Result<OwnedFd, Error> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty()).map_err(|e| Error::io("open", path, e))
}

fn lock_directory(path: &Path) -> Result<OwnedFd, Error> {
    let fd = open_directory(path)?;
    flock(&fd, FlockOperation::LockExclusive).map_err(|e| Error::io("lock", path, e))?;
    if is_at(&fd, path)? { Ok(fd) } else { Err(Error::io("open", path, Errno::NOENT)) }
}

fn flock(fd: &OwnedFd, operation: FlockOperation) -> Result<(), Errno> {
    rustix::io::retry_on_intr(|| rustix::fs::flock(fd, operation))
}

/// Is `path` still this directory?
fn is_at(fd: &OwnedFd, path: &Path) -> Result<bool, Error> {
    let own = rustix::fs::fstat(fd).map_err(|e| Error::io("stat", path, e))?;
    Ok(fs::symlink_metadata(path).is_ok_and(|found| (found.dev(), found.ino()) == (own.st_dev, own.st_ino)))
}

fn entries(path: &Path) -> Result<Vec<String>, Error> {
    let mut names = Vec::new();
    for entry in fs::read_dir(path).map_err(|e| Error::io("read the directory", path, e))? {
        let entry = entry.map_err(|e| Error::io("read the directory", path, e))?;
        names.extend(entry.file_name().into_string());
    }
    Ok(names)
}

fn write_json(path: &Path, value: &impl Serialize) -> Result<(), Error> {
    let text = serde_json::to_vec(value).map_err(|e| Error::io("write", path, io::Error::from(e)))?;
    fs::write(path, text).map_err(|e| Error::io("write", path, e))
}

fn read_json<T: for<'de> Deserialize<'de>>(path: &Path) -> Result<T, Error> {
    let text = fs::read(path).map_err(|e| Error::io("read", path, e))?;
    serde_json::from_slice(&text).map_err(|e| Error::io("read", path, io::Error::from(e)))
}
