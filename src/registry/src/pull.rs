//! Manifests and blobs (distribution-spec, "Pull").

use crate::client::{Client, Endpoint, Ready};
use crate::error::{Error, Result};
use crate::http::{Payload, Response};
use crate::url::shown;
use rrt_oci::image::{Descriptor, Digest, Reference, media_type as kind};
use serde::Deserialize;
use serde_json::value::RawValue;
use sha2::{Digest as _, Sha256, Sha512};
use std::io::Read;
use ureq::http::Method;

/// A manifest or index, bytes (distribution-spec, "Pulling manifests": at least this must be taken).
pub const MAX_MANIFEST: u64 = 4 << 20;
/// An image's configuration, bytes.
pub const MAX_CONFIG: u64 = 8 << 20;

/// What can be asked for as a manifest. Not schema 1: a registry that has nothing else sends that anyway.
const MANIFESTS: [&str; 4] = [kind::OCI_INDEX, kind::OCI_MANIFEST, kind::DOCKER_LIST, kind::DOCKER_MANIFEST];

/// A blob on its way.
pub struct Blob {
    reader: std::io::Take<ureq::BodyReader<'static>>,
    offset: u64,
    ranged: bool,
}

impl Blob {
    /// Where it begins: what was asked for, or 0 where the registry has no ranges.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Is it the part that was asked for, and not the whole because the registry has no ranges?
    pub fn ranged(&self) -> bool {
        self.ranged
    }
}

impl Read for Blob {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        self.reader.read(buffer)
    }
}

impl Client {
    /// The manifest or index of a reference: its descriptor and its bytes, which have the digest of the descriptor, and of the
    /// reference when that has one.
    pub fn resolve(&self, reference: &Reference) -> Result<(Descriptor, Vec<u8>)> {
        let reference = reference.clone().with_default_tag();
        self.anywhere(reference.registry(), |endpoint| self.manifest_from(endpoint, &reference, reference.digest()))
    }

    /// One of the manifests that an index of the reference names.
    pub fn manifest(&self, reference: &Reference, digest: &Digest) -> Result<(Descriptor, Vec<u8>)> {
        self.anywhere(reference.registry(), |endpoint| self.manifest_from(endpoint, reference, Some(digest)))
    }

    /// What the reference's tag or digest stands for, without its bytes; `None` when there is no such thing.
    pub fn head(&self, reference: &Reference) -> Result<Option<Descriptor>> {
        let reference = reference.clone().with_default_tag();
        self.anywhere(reference.registry(), |endpoint| {
            let answer = self.manifest_request(endpoint, &reference, reference.digest(), Method::HEAD)?;
            match answer.status {
                404 => Ok(None),
                200 => {
                    let digest = answer.header("docker-content-digest").and_then(|text| text.parse().ok());
                    let size = answer.header("content-length").and_then(|text| text.parse().ok());
                    let digest = digest.or_else(|| reference.digest().cloned());
                    Ok(digest.map(|digest| Descriptor::new(&answer.media_type(), digest, size.unwrap_or(0))))
                }
                _ => Err(self.pull_error(
                    endpoint,
                    &reference,
                    &format!("manifest for {}", reference.familiar()),
                    answer,
                )),
            }
        })
    }

    fn manifest_request(
        &self,
        endpoint: &Endpoint,
        reference: &Reference,
        digest: Option<&Digest>,
        method: Method,
    ) -> Result<Response> {
        let name = digest.map(Digest::as_str).or(reference.tag()).unwrap_or("latest");
        self.send(&Ready {
            endpoint,
            repository: reference.repository(),
            scope: &endpoint.scope(reference.repository(), "pull"),
            method,
            url: endpoint.api(reference.repository(), &format!("manifests/{name}")),
            headers: vec![("accept", MANIFESTS.join(", "))],
            payload: Payload::None,
        })
    }

    fn manifest_from(
        &self,
        endpoint: &Endpoint,
        reference: &Reference,
        digest: Option<&Digest>,
    ) -> Result<(Descriptor, Vec<u8>)> {
        let mut answer = self.manifest_request(endpoint, reference, digest, Method::GET)?;
        let whole = digest.map_or_else(|| reference.clone(), |digest| reference.with_digest(digest.clone()));
        let what = format!("manifest for {}", whole.familiar());
        if answer.status != 200 {
            return Err(self.pull_error(endpoint, reference, &what, answer));
        }
        let bytes = answer.bytes(MAX_MANIFEST)?;
        let said = answer.header("docker-content-digest").and_then(|text| text.parse::<Digest>().ok());
        let expected = digest.cloned().or(said);
        let found = digest_of(&bytes, expected.as_ref().map_or("sha256", Digest::algorithm));
        if let Some(expected) = expected.filter(|expected| *expected != found) {
            // A page of a proxy instead of the manifest is the usual cause, and is better named.
            if answer.looks_like_html(&bytes) {
                return Err(answer.html());
            }
            let registry = answer.url.authority.clone();
            return Err(Error::Digest { what, registry, expected, received: found.to_string() });
        }
        let media_type = manifest_type(&answer, &bytes, &whole)?;
        Ok((Descriptor::new(&media_type, found, bytes.len() as u64), bytes))
    }

    /// A blob, from `offset` (bytes) on where the registry can do that. At most `descriptor.size` bytes come, all in all; the
    /// caller verifies the digest.
    pub fn blob(&self, reference: &Reference, descriptor: &Descriptor, offset: u64) -> Result<Blob> {
        self.anywhere(reference.registry(), |endpoint| self.blob_from(endpoint, reference, descriptor, offset, None))
    }

    /// A blob of at most `limit` bytes as a whole, verified.
    pub fn document(&self, reference: &Reference, descriptor: &Descriptor, limit: u64) -> Result<Vec<u8>> {
        if descriptor.size > limit {
            return Err(Error::Invalid(format!(
                "{}: the manifest says that {} has {} bytes, more than the {limit} that are taken of such a document",
                reference.familiar(),
                descriptor.digest,
                descriptor.size
            )));
        }
        self.anywhere(reference.registry(), |endpoint| {
            let mut bytes = Vec::new();
            let mut blob = self.blob_from(endpoint, reference, descriptor, 0, None)?;
            blob.read_to_end(&mut bytes).map_err(|e| cut(endpoint, descriptor, &e))?;
            let received = digest_of(&bytes, descriptor.digest.algorithm());
            if received != descriptor.digest || bytes.len() as u64 != descriptor.size {
                let what = format!("blob of {}", reference.familiar());
                let received = format!("{received} with {} bytes", bytes.len());
                let expected = descriptor.digest.clone();
                return Err(Error::Digest { what, registry: endpoint.url.authority.clone(), expected, received });
            }
            Ok(bytes)
        })
    }

    /// One request for a blob or, with `end`, for the part up to there.
    pub(crate) fn blob_from(
        &self,
        endpoint: &Endpoint,
        reference: &Reference,
        descriptor: &Descriptor,
        offset: u64,
        end: Option<u64>,
    ) -> Result<Blob> {
        let digest = &descriptor.digest;
        let mut headers = vec![("accept", "application/octet-stream, */*".to_owned())];
        if offset > 0 || end.is_some() {
            let end = end.map(|end| end - 1).map(|last| last.to_string()).unwrap_or_default();
            headers.push(("range", format!("bytes={offset}-{end}")));
        }
        let mut answer = self.send(&Ready {
            endpoint,
            repository: reference.repository(),
            scope: &endpoint.scope(reference.repository(), "pull"),
            method: Method::GET,
            url: endpoint.api(reference.repository(), &format!("blobs/{digest}")),
            headers,
            payload: Payload::None,
        })?;
        let url = shown(&answer.url);
        let begin = match answer.status {
            200 => 0,
            206 => {
                let range = answer.header("content-range").unwrap_or_default().to_owned();
                check_range(&range, offset, descriptor.size).map_err(|why| Error::Answer { url: url.clone(), why })?;
                offset
            }
            // A range that the registry does not know, though it is inside the blob: without one.
            416 => return self.blob_from(endpoint, reference, descriptor, 0, None),
            _ => {
                let what = format!("blob {digest} of {}", reference.familiar());
                return Err(self.pull_error(endpoint, reference, &what, answer));
            }
        };
        if answer.media_type() == "text/html"
            && answer.header("content-length").is_none_or(|l| l != descriptor.size.to_string())
        {
            // A blob has no type of its own, so only what can't be it is refused here.
            let _ = answer.complaint();
            return Err(answer.html());
        }
        let size = descriptor.size;
        let ranged = answer.status == 206;
        let most = end.filter(|_| ranged).unwrap_or(size).saturating_sub(begin);
        let length: Option<u64> = answer.header("content-length").and_then(|text| text.trim().parse().ok());
        if let Some(length) = length.filter(|length| *length != most) {
            let why = format!("{length} bytes come for the {most} from {begin} on of {digest}, which has {size}");
            return Err(Error::Answer { url, why });
        }
        Ok(Blob { reader: answer.reader().take(most), offset: begin, ranged })
    }
}

/// A body that ended early or broke.
pub(crate) fn cut(endpoint: &Endpoint, descriptor: &Descriptor, error: &std::io::Error) -> Error {
    let url = format!("{}v2/…/blobs/{}", endpoint.url, descriptor.digest);
    Error::Connect { method: "GET".to_owned(), url, why: crate::url::shorten(&error.to_string()), refused: false }
}

/// `bytes 5-9/10` must begin where it was asked for, and be of a blob of the right size.
fn check_range(text: &str, offset: u64, size: u64) -> std::result::Result<(), String> {
    let parts = text.trim().strip_prefix("bytes ").and_then(|rest| rest.split_once('/'));
    let begin =
        parts.and_then(|(range, _)| range.split_once('-')).and_then(|(begin, _)| begin.trim().parse::<u64>().ok());
    match (begin, parts.map(|(_, total)| total.trim())) {
        (Some(begin), Some(total)) if begin == offset && (total == "*" || total == size.to_string()) => Ok(()),
        _ => Err(format!(
            "status 206 with the Content-Range {:?} for the bytes from {offset} of {size}",
            crate::url::shorten(text)
        )),
    }
}

/// The digest of bytes in an algorithm that [`Digest`] knows.
pub(crate) fn digest_of(bytes: &[u8], algorithm: &str) -> Digest {
    if algorithm == "sha512" {
        let hex: String = Sha512::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
        if let Ok(digest) = format!("sha512:{hex}").parse() {
            return digest;
        }
    }
    Digest::sha256(&Sha256::digest(bytes).into())
}

/// What tells one kind of manifest from another.
#[derive(Deserialize)]
struct Shape<'a> {
    #[serde(rename = "schemaVersion")]
    version: Option<u32>,
    #[serde(rename = "mediaType")]
    media_type: Option<String>,
    #[serde(borrow)]
    manifests: Option<&'a RawValue>,
    #[serde(borrow)]
    config: Option<&'a RawValue>,
    #[serde(borrow)]
    layers: Option<&'a RawValue>,
    #[serde(borrow, rename = "fsLayers")]
    fs_layers: Option<&'a RawValue>,
}

/// The media type of a manifest, which its `mediaType`, its Content-Type and its members must agree on: one that can be read in
/// two ways is two images with one digest.
fn manifest_type(answer: &Response, bytes: &[u8], reference: &Reference) -> Result<String> {
    let header = answer.media_type();
    let refused = |why: String| Err(Error::Answer { url: shown(&answer.url), why });
    let shape: Shape<'_> = match serde_json::from_slice(bytes) {
        Ok(shape) => shape,
        Err(_) if answer.looks_like_html(bytes) => return Err(answer.html()),
        Err(e) => return refused(format!("the answer is not the JSON of a manifest: {e}")),
    };
    let schema1 = [kind::DOCKER_SCHEMA1, kind::DOCKER_SCHEMA1_SIGNED].contains(&header.as_str());
    if schema1 || shape.version == Some(1) || shape.fs_layers.is_some() {
        return Err(Error::Schema1 { name: reference.familiar() });
    }
    let (index, image) = (shape.manifests.is_some(), shape.config.is_some() || shape.layers.is_some());
    let own = shape.media_type.unwrap_or_default();
    let given = MANIFESTS.contains(&header.as_str()).then_some(header.as_str());
    if let Some(given) = given.filter(|given| !own.is_empty() && own != *given) {
        return refused(format!("the manifest says it is {own:?}, the registry says {given:?}"));
    }
    let media_type = match (own.is_empty(), given) {
        (false, _) => own,
        (true, Some(given)) => given.to_owned(),
        (true, None) if index => kind::OCI_INDEX.to_owned(),
        (true, None) => kind::OCI_MANIFEST.to_owned(),
    };
    let says_index = [kind::OCI_INDEX, kind::DOCKER_LIST].contains(&media_type.as_str());
    match (MANIFESTS.contains(&media_type.as_str()), index, image) {
        (false, ..) => refused(format!("the manifest is of the type {media_type:?}, which is no image")),
        (true, true, false) if says_index => Ok(media_type),
        (true, false, true) if !says_index => Ok(media_type),
        _ => refused(format!("the manifest says it is {media_type:?}, but has the members of another type")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_must_be_what_was_asked_for() {
        assert_eq!(check_range("bytes 5-9/10", 5, 10), Ok(()));
        assert_eq!(check_range("bytes 5-9/*", 5, 10), Ok(()));
        for bad in ["", "bytes 4-9/10", "bytes 5-9/11", "items 5-9/10", "bytes */10"] {
            assert!(check_range(bad, 5, 10).is_err(), "{bad}");
        }
    }

    #[test]
    fn digests() {
        let empty = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(digest_of(b"", "sha256").as_str(), empty);
        assert!(digest_of(b"", "sha512").as_str().starts_with("sha512:cf83e1357eefb8bd"));
    }
}
