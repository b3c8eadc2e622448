//! `import`: a root file system, as a tar, becomes an image of one layer.

use super::input::decompressed;
use crate::commit::{Made, for_platform, of_host, put_image, write_layer};
use crate::layer::{Packed, Packing};
use crate::names::{Image, ImageStore};
use crate::progress::Progress;
use crate::snapshots::Snapshots;
use crate::unpacking::{Wanted, unpack_layers};
use crate::{Error, change};
use rrt_oci::image::{ContainerConfig, History, Platform, Reference};
use std::io::{self, Read};

/// What is made of the tar.
#[derive(Clone, Debug, Default)]
pub struct Import<'a> {
    /// `--change`.
    pub changes: &'a [String],
    /// `--message`.
    pub message: Option<String>,
    /// `--platform`; without it this machine's.
    pub platform: Option<Platform>,
    /// How the layer is kept.
    pub packing: Packing,
    /// The image's name, if it gets one.
    pub name: Option<Reference>,
    /// `SOURCE_DATE_EPOCH`: when the image says that it was made.
    pub source_date_epoch: Option<i64>,
}

/// Makes an image of a tar, compressed or not, and adds it to the names.
///
/// # Errors
/// What is no tar, or has what no layer may have; a change that is no instruction.
pub fn import(
    images: &ImageStore,
    snapshots: &Snapshots,
    input: impl Read + Send + 'static,
    import: &Import<'_>,
    progress: &dyn Progress,
) -> Result<Image, Error> {
    let content = images.content();
    let lease = content.lease()?;
    let mut config = ContainerConfig::default();
    change::apply(&mut config, import.changes)?;
    let mut archive = decompressed(input)?;
    let mut layer = write_layer(content, &lease, import.packing, |out| {
        io::copy(&mut archive, out).map_err(|e| Error::io("read the archive", e))?;
        Ok(Packed::default())
    })?;
    let wanted = Wanted { blob: layer.descriptor.clone(), diff_id: layer.diff_id.clone() };
    // Whether it is a tar at all is seen here.
    layer.packed.size = unpack_layers(images, &lease, snapshots, &[wanted], progress)?.iter().sum();
    let base = import.platform.as_ref().map_or_else(of_host, for_platform);
    let history = History { comment: import.message.clone(), ..History::default() };
    let made = Made { config: Some(config), history, created: import.source_date_epoch };
    let mut image = put_image(content, &lease, (base, None, None), Some(layer), made)?;
    snapshots.sync()?;
    if let Some(name) = &import.name {
        image.tags.insert(name.clone().with_default_tag(), image.added);
    }
    images.add(image.clone())?;
    Ok(image)
}
