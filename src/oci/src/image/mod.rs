//! Images: digests, references and the documents of the image specification, with what Docker adds to them.
//!
//! Not `oci-spec`'s types: those lack what Docker keeps in an image's configuration (Healthcheck, OnBuild, Shell), and drop a
//! member they don't know, which changes the digest of a document that is written again. Here such members stay, in `extra`.

mod digest;
mod documents;
mod reference;

pub use digest::{Digest, InvalidDigest};
pub use documents::{
    ContainerConfig, Descriptor, Healthcheck, History, ImageConfig, Index, Manifest, Platform, RootFs, media_type,
};
pub use reference::{DEFAULT_REGISTRY, DEFAULT_TAG, InvalidReference, Reference};
