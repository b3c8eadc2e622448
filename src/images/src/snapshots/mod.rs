//! Snapshots: layers as directories, and the roots of containers made of them.
//!
//! ```text
//! snapshots/driver                  the driver that was chosen first, so that a package installed later changes nothing
//! snapshots/<driver>/lock           flock: shared to name layers in a container, exclusive to collect garbage
//! snapshots/<driver>/layers/<hex>/  a layer: `fs` is its directory, `layer` says its diff id, `unsynced` that it may not outlive a crash
//! snapshots/<driver>/containers/<id>/   `layers` names what is below; the rest is the driver's
//! snapshots/<driver>/tmp/           layers and containers that are being made or removed, each locked (flock) by who is at it
//! ```
//!
//! **A layer's name.** With overlay a layer's directory holds nothing of the layers below, so it is named by its diff id: layers are unpacked
//! in parallel and in any order, and images that have a layer in common share it whatever is below it. The one exception is a layer
//! whose archive names a file and not the directory it is in: that directory then has to look as it does below, so such a layer
//! is named by its chain id, and its directories are corrected when it is committed. With btrfs and copy a layer's directory is the
//! whole tree, so there every layer is named by its chain id, and is made after the one below.
//!
//! **A layer that exists is whole.** It is made in `tmp` and renamed. What a crash of the machine can still take is what the file system
//! has not written: a layer is born with a file `unsynced` that has the boot's id, and [`Snapshots::sync`] takes it away after one
//! `syncfs` for many layers. A layer marked by another boot does not count and is made again.

mod btrfs;
mod copy;
mod home;
mod init_layer;
mod mount;
mod overlay;
mod probe;

pub use crate::layer::Whiteouts;
pub use crate::tree::Usage;
pub use home::{Collected, Preparation, Prepared, Snapshots};
pub use init_layer::PATHS as INIT_PATHS;

use crate::tree::Tree;
use rrt_oci::image::Digest;
use sha2::{Digest as _, Sha256};
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

/// Why a snapshot can't be had.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A call failed; the text says at which file.
    #[error("{doing} {}: {source}", path.display())]
    Io {
        /// The call, as a verb.
        doing: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's error.
        #[source]
        source: io::Error,
    },
    /// A mount failed.
    #[error("{what}: {source}")]
    Mount {
        /// The call, and what is known of the reason.
        what: String,
        /// The system's error.
        #[source]
        source: io::Error,
    },
    /// The layer has to be unpacked first.
    #[error("the layer {0} is not unpacked")]
    NoLayer(Digest),
    /// More layers than can be stacked.
    #[error(
        "the image has {layers} layers, and at most {most} can be mounted here: make it with fewer (an overlay has at most 500)"
    )]
    TooManyLayers {
        /// The image's.
        layers: usize,
        /// The most that go.
        most: usize,
    },
    /// No container of this name has a snapshot.
    #[error("no such snapshot: {0}")]
    NoSnapshot(String),
    /// One of this name is there already.
    #[error("the snapshot {0} exists already")]
    Exists(String),
    /// No name for a file.
    #[error("invalid snapshot name {0:?}: letters, digits and _.- only, and a letter or digit first")]
    InvalidName(String),
    /// The driver does not work here.
    #[error("the storage driver {name} can't be used: {why}")]
    Driver {
        /// The driver.
        name: String,
        /// Why, and what to do.
        why: String,
    },
    /// A program that a driver needs failed.
    #[error("{program}: {said}")]
    Program {
        /// What was run.
        program: String,
        /// What it printed, or its status.
        said: String,
    },
}

impl Error {
    pub(crate) fn io(doing: &'static str, path: &Path, source: impl Into<io::Error>) -> Error {
        Error::Io { doing, path: path.to_owned(), source: source.into() }
    }

    /// Is there no space (or quota) left?
    pub fn is_no_space(&self) -> bool {
        let (Error::Io { source, .. } | Error::Mount { source, .. }) = self else { return false };
        matches!(source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
    }
}

/// The id of a layer on top of those below it (image-spec, config.md, "Layer ChainID").
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ChainId(Digest);

impl ChainId {
    /// Of these diff ids, lowest first; `None` of none.
    pub fn of(diff_ids: &[Digest]) -> Option<ChainId> {
        ChainId::each(diff_ids).pop()
    }

    /// Of each layer of a chain, lowest first.
    pub fn each(diff_ids: &[Digest]) -> Vec<ChainId> {
        let mut chain: Vec<ChainId> = Vec::with_capacity(diff_ids.len());
        for diff in diff_ids {
            let next = match chain.last() {
                Some(ChainId(below)) => Digest::sha256(&Sha256::digest(format!("{below} {diff}")).into()),
                None => diff.clone(),
            };
            chain.push(ChainId(next));
        }
        chain
    }

    /// The digest that it is.
    pub fn digest(&self) -> &Digest {
        &self.0
    }
}

/// One way to keep layers and to put them together. All it is given are directories: names, locks, atomicity and garbage are
/// [`Snapshots`]' affair, the same for all of them.
pub trait Driver: Send + Sync {
    /// Docker's name of it.
    fn name(&self) -> &'static str;
    /// How a layer is written.
    fn whiteouts(&self) -> Whiteouts;
    /// Makes the directory for a layer; `below` is that of the layer below, for a driver whose layers are whole trees.
    fn make_layer(&self, fs: &Path, below: Option<&Path>) -> Result<(), Error>;
    /// These layers, lowest first, as one tree to read. `scratch` may be made and mounted on.
    fn view(&self, layers: &[PathBuf], scratch: &Path) -> Result<View, Error>;
    /// Makes in `place` (an empty directory) what a container on these layers needs.
    fn make_container(&self, place: &Path, layers: &[PathBuf]) -> Result<(), Error>;
    /// Makes the container's root visible; a second time is no error. Returns the directory that it is, in `place`.
    fn mount(&self, place: &Path, layers: &[PathBuf]) -> Result<PathBuf, Error>;
    /// The reverse; not mounted is no error.
    fn unmount(&self, place: &Path) -> Result<(), Error>;
    /// Where to read what the container has written, without mounting it.
    fn written(&self, place: &Path, layers: &[PathBuf]) -> Result<Written, Error>;
    /// The directory in `place` that takes up space of the container's own.
    fn own(&self, place: &Path) -> PathBuf;
    /// Removes a directory made by [`Driver::make_layer`] or [`Driver::make_container`], or what a kill has left of one.
    fn delete(&self, path: &Path) -> Result<(), Error>;
    /// What `info` says of it: names and values as Docker shows them under "Storage Driver".
    fn info(&self) -> Vec<(String, String)>;
}

/// A container's own tree, to be compared with the layers it is on.
pub enum Written {
    /// An overlay's upper directory: only what was touched, with whiteouts.
    Upper(View, Whiteouts),
    /// The whole tree.
    Whole(View),
}

/// A container's tree and what to compare it with.
pub struct Delta {
    /// The layers below, with the init layer where the driver has one.
    pub below: View,
    /// The container's own.
    pub written: Written,
    /// Has the container an init layer, whose files are no change of its?
    pub init: bool,
}

/// A tree to read. It stays readable while the value lives, whoever collects garbage.
pub struct View {
    pub(crate) tree: Tree,
    held: Vec<OwnedFd>,
    mounted: Option<Mounted>,
}

impl View {
    fn new(root: OwnedFd) -> View {
        View { tree: Tree::new(root), held: Vec::new(), mounted: None }
    }

    fn open(path: &Path) -> Result<View, Error> {
        Ok(View { tree: Tree::open(path)?, held: Vec::new(), mounted: None })
    }

    /// Its root, a descriptor of `O_PATH`: for `openat2(2)`, not to be read from.
    pub fn root(&self) -> BorrowedFd<'_> {
        self.tree.fd()
    }
}

/// A mount that ends with the value.
struct Mounted(PathBuf);

impl Drop for Mounted {
    fn drop(&mut self) {
        // What stays is swept by the next command.
        if mount::unmount(&self.0).is_ok() {
            let _ = std::fs::remove_dir(&self.0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chain_ids_are_the_specifications() {
        let digest = |c: &str| format!("sha256:{}", c.repeat(64)).parse::<Digest>().unwrap();
        assert_eq!(ChainId::of(&[]), None);
        assert_eq!(ChainId::of(&[digest("a")]).unwrap().digest(), &digest("a"));
        // printf 'sha256:aaa… sha256:bbb…' | sha256sum
        let two = ChainId::of(&[digest("a"), digest("b")]).unwrap();
        let text = format!("{} {}", digest("a"), digest("b"));
        assert_eq!(two.digest(), &Digest::sha256(&Sha256::digest(text).into()));
        let three = ChainId::of(&[digest("a"), digest("b"), digest("c")]).unwrap();
        let text = format!("{} {}", two.digest(), digest("c"));
        assert_eq!(three.digest(), &Digest::sha256(&Sha256::digest(text).into()));
    }
}
