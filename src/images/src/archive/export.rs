//! `export`: a whole tree as an archive, without layers and without an image's documents.

use crate::Error;
use crate::layer::{PackOptions, Packed, pack_tree};
use crate::snapshots::Snapshots;
use rrt_oci::image::Digest;
use std::io::{BufWriter, Write};

/// Writes the root of the container `id`, running or not, with the init layer's files, as Docker does.
pub fn export(snapshots: &Snapshots, id: &str, out: impl Write, options: &PackOptions) -> Result<Packed, Error> {
    let view = snapshots.view_container(id)?;
    Ok(pack_tree(snapshots.view(&[])?, view, BufWriter::with_capacity(1 << 17, out), options)?)
}

/// Writes the root that an image's containers begin with. `layers` are its diff ids, lowest first, all unpacked.
pub fn export_image(
    snapshots: &Snapshots,
    layers: &[Digest],
    out: impl Write,
    options: &PackOptions,
) -> Result<Packed, Error> {
    let view = snapshots.view(layers)?;
    Ok(pack_tree(snapshots.view(&[])?, view, BufWriter::with_capacity(1 << 17, out), options)?)
}
