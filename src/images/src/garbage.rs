//! Snapshots that nothing needs any more.

use crate::names::ImageStore;
use crate::snapshots::{self, Snapshots};
use rrt_oci::image::Digest;

/// Why not.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// What is needed can't be found out.
    #[error(transparent)]
    Names(#[from] crate::names::Error),
    /// A snapshot can't be removed.
    #[error(transparent)]
    Snapshots(#[from] snapshots::Error),
}

/// Removes the layers that no image, no container and no running command needs. Who unpacks adds the layer's diff id to its lease
/// before it looks for the snapshot: so nothing that a command has seen goes away under it.
pub fn collect_snapshots(images: &ImageStore, snapshots: &Snapshots) -> Result<snapshots::Collected, Error> {
    let content = images.content();
    let lock = content.exclusive().map_err(crate::names::Error::from)?;
    let chains: Vec<Vec<Digest>> = images.load()?.iter().map(|image| image.diff_ids()).collect();
    let leased = content.leased(&lock).map_err(crate::names::Error::from)?;
    Ok(snapshots.collect(&chains, &leased)?)
}
