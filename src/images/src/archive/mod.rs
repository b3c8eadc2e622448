//! Images and trees as files: `save`, `load`, `import`, `export`.

mod export;
mod import;
mod input;
mod load;
mod save;
mod source;

pub use export::{export, export_image};
pub use import::{Import, import};
pub(crate) use input::decompressed;
pub use load::{Loaded, load, load_directory};
pub use save::{Saved, save};

use rrt_oci::image::{Descriptor, Digest};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Files of both formats.
const INDEX: &str = "index.json";
const LAYOUT: &str = "oci-layout";
const LAYOUT_TEXT: &[u8] = br#"{"imageLayoutVersion":"1.0.0"}"#;
const MANIFEST: &str = "manifest.json";
const REPOSITORIES: &str = "repositories";

/// The annotation that has an image's whole name (containerd and Docker).
const NAME: &str = "io.containerd.image.name";
/// The one that has its tag, or its name (image-spec, annotations.md).
const REF_NAME: &str = "org.opencontainers.image.ref.name";

/// An image in a docker-archive's manifest.json.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DockerImage {
    config: String,
    repo_tags: Option<Vec<String>>,
    #[serde(default)]
    layers: Vec<String>,
    /// The layers' descriptors by diff id, since Docker 25.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    layer_sources: BTreeMap<Digest, Descriptor>,
}

/// Where a layout has a blob.
fn blob_name(digest: &Digest) -> String {
    format!("blobs/{}/{}", digest.algorithm(), digest.hex())
}
