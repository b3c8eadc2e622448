//! Push (distribution-spec, "Push"): blobs first, then the manifests that name them.

use crate::client::{Client, Endpoint, Ready};
use crate::error::{Error, Result};
use crate::http::{Headers, Payload, Response};
use crate::list::referrers_tag;
use crate::pull::digest_of;
use crate::url::{Url, shown};
use rrt_oci::image::{Descriptor, Digest, Index, Manifest, Reference, media_type as kind};
use std::fs::File;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use ureq::http::Method;

/// A blob up to this size (bytes) goes in one request; a larger one in parts, so that a cut one can go on.
const MONOLITHIC: u64 = 4 << 20;
/// Parts are made smaller (bytes) when something on the way refuses large requests (413), down to this.
const SMALLEST_PART: u64 = 1 << 20;

/// How a blob came to be in the registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pushed {
    /// It was there.
    Exists,
    /// The registry took it from this other repository of its own.
    Mounted(String),
    /// It was sent.
    Uploaded,
}

/// Hears how a push goes on, from the thread that pushes.
pub trait PushWatch: Sync {
    /// So many bytes of the blob are sent.
    fn sent(&self, bytes: u64);
    /// The next attempt is after a pause.
    fn retrying(&self, pause: Duration, error: &Error);
    /// Shall it end?
    fn cancelled(&self) -> bool {
        false
    }
}

/// Nobody listens.
pub struct Unwatched;

impl PushWatch for Unwatched {
    fn sent(&self, _: u64) {}
    fn retrying(&self, _: Duration, _: &Error) {}
}

/// An upload session of a registry.
struct Upload<'a> {
    client: &'a Client,
    endpoint: &'a Endpoint,
    reference: &'a Reference,
    scope: String,
    /// Where the next request goes.
    location: Url,
    /// So many bytes are there.
    at: u64,
}

impl Client {
    /// Has the registry this blob in this repository? The registry itself is asked, never a mirror.
    pub fn has_blob(&self, reference: &Reference, digest: &Digest) -> Result<bool> {
        self.retry(&mut |_, _| Ok(()), || {
            let endpoint = self.origin(reference.registry())?;
            let scope = endpoint.scope(reference.repository(), "pull,push");
            self.has_blob_at(&endpoint, reference, digest, &scope)
        })
    }

    fn has_blob_at(&self, endpoint: &Endpoint, reference: &Reference, digest: &Digest, scope: &str) -> Result<bool> {
        let mut answer = self.send(&Ready {
            endpoint,
            repository: reference.repository(),
            scope,
            method: Method::HEAD,
            url: endpoint.api(reference.repository(), &format!("blobs/{digest}")),
            headers: Headers::new(),
            payload: Payload::None,
        })?;
        match answer.status {
            200 => Ok(true),
            404 => Ok(false),
            401 | 403 => Err(self.push_error(endpoint, reference, answer)),
            _ => Err(answer.unexpected()),
        }
    }

    /// Makes sure that the repository has a blob: asks for it, then tries to have it taken from one of the repositories of
    /// `others` (same registry), then sends the file. A cut upload goes on where the registry has it up to.
    pub fn push_blob(
        &self,
        reference: &Reference,
        descriptor: &Descriptor,
        file: &File,
        others: &[String],
        watch: &dyn PushWatch,
    ) -> Result<Pushed> {
        let endpoint = self.retry(&mut |_, _| Ok(()), || self.origin(reference.registry()))?;
        let scope = endpoint.scope(reference.repository(), "pull,push");
        let mut before = |pause: Duration, error: &Error| match watch.cancelled() {
            true => Err(Error::Cancelled),
            false => {
                watch.retrying(pause, error);
                Ok(())
            }
        };
        if self.retry(&mut before, || self.has_blob_at(&endpoint, reference, &descriptor.digest, &scope))? {
            return Ok(Pushed::Exists);
        }
        // Kept over attempts, to go on with.
        let session: Mutex<Option<Upload<'_>>> = Mutex::new(None);
        let furthest = AtomicU64::new(0);
        loop {
            let begun = furthest.load(Ordering::Relaxed);
            let attempt = || {
                let mut session = session.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                // A session that can't be gone on with (Docker's registry ends one whose last request was cut) is followed by another.
                let known = match session.as_mut() {
                    Some(upload) => upload.recover()?,
                    None => false,
                };
                if !known {
                    match self.begin(&endpoint, reference, descriptor, others, &scope)? {
                        Begun::Mounted(from) => return Ok(Pushed::Mounted(from)),
                        Begun::Upload(upload) => *session = Some(upload),
                    }
                }
                let Some(upload) = session.as_mut() else { unreachable!("set above") };
                let sent = upload.send(descriptor, file, watch);
                furthest.fetch_max(upload.at, Ordering::Relaxed);
                match sent {
                    Err(Error::Status { status: 404, .. }) => Err(upload.gone()),
                    sent => sent.map(|()| Pushed::Uploaded),
                }
            };
            match self.retry(&mut before, attempt) {
                // As long as each round of attempts gets further, there is another.
                Err(e) if e.passes() && furthest.load(Ordering::Relaxed) > begun => before(Duration::ZERO, &e)?,
                result => return result,
            }
        }
    }

    /// Opens an upload session, or has the blob mounted from another repository.
    fn begin<'a>(
        &'a self,
        endpoint: &'a Endpoint,
        reference: &'a Reference,
        descriptor: &Descriptor,
        others: &[String],
        scope: &str,
    ) -> Result<Begun<'a>> {
        let uploads = endpoint.api(reference.repository(), "blobs/uploads/");
        let mut opened = None;
        for from in others.iter().filter(|from| *from != reference.repository()).take(3) {
            let url = uploads.clone().with_query("mount", descriptor.digest.as_str()).with_query("from", from);
            let both = format!("{scope} {}", endpoint.scope(from, "pull"));
            let answer = self.post(endpoint, reference, url, &both)?;
            match answer.status {
                201 => return Ok(Begun::Mounted(from.clone())),
                // It could not, and opened a session instead.
                202 => {
                    opened = Some(answer);
                    break;
                }
                // A token for the other repository may not be had; then without it.
                _ => {}
            }
        }
        let answer = match opened {
            Some(answer) => answer,
            None => self.post(endpoint, reference, uploads, scope)?,
        };
        if answer.status != 202 {
            return Err(self.push_error(endpoint, reference, answer));
        }
        let location = location(&answer)?;
        let upload = Upload { client: self, endpoint, reference, scope: scope.to_owned(), location, at: 0 };
        Ok(Begun::Upload(upload))
    }

    fn post(&self, endpoint: &Endpoint, reference: &Reference, url: Url, scope: &str) -> Result<Response> {
        let repository = reference.repository();
        let (headers, payload) = (Headers::new(), Payload::Bytes(b""));
        self.send(&Ready { endpoint, repository, scope, method: Method::POST, url, headers, payload })
    }

    /// Puts a manifest or index under the reference's tag, or under its digest. What it names must be there.
    pub fn push_manifest(&self, reference: &Reference, media_type: &str, bytes: &[u8]) -> Result<Descriptor> {
        let digest = digest_of(bytes, reference.digest().map_or("sha256", Digest::algorithm));
        if reference.digest().is_some_and(|wanted| *wanted != digest) {
            return Err(Error::Invalid(format!(
                "{}: the manifest to push has the digest {digest}",
                reference.familiar()
            )));
        }
        let name = reference.tag().map_or_else(|| digest.to_string(), str::to_owned);
        let has_subject = self.retry(&mut |_, _| Ok(()), || {
            let endpoint = self.origin(reference.registry())?;
            let mut answer = self.send(&Ready {
                endpoint: &endpoint,
                repository: reference.repository(),
                scope: &endpoint.scope(reference.repository(), "pull,push"),
                method: Method::PUT,
                url: endpoint.api(reference.repository(), &format!("manifests/{name}")),
                headers: vec![("content-type", media_type.to_owned())],
                payload: Payload::Bytes(bytes),
            })?;
            if !answer.success() {
                return Err(self.push_error(&endpoint, reference, answer));
            }
            let said = answer.header("docker-content-digest").and_then(|text| text.parse::<Digest>().ok());
            if let Some(received) = said.filter(|said| said.algorithm() == digest.algorithm() && *said != digest) {
                let what = format!("manifest of {}", reference.familiar());
                let (registry, expected) = (answer.url.authority.clone(), digest.clone());
                return Err(Error::Digest { what, registry, expected, received: received.to_string() });
            }
            let known = answer.header("oci-subject").is_some();
            // Read to its end, so that the connection can be used again.
            let _ = answer.bytes(1 << 20);
            Ok(known)
        })?;
        let descriptor = Descriptor::new(media_type, digest, bytes.len() as u64);
        if !has_subject && let Some((subject, entry)) = subject_of(&descriptor, bytes) {
            self.note_referrer(reference, &subject, entry)?;
        }
        Ok(descriptor)
    }

    /// A registry without the referrers API: the client keeps the list, as the index of a tag.
    fn note_referrer(&self, reference: &Reference, subject: &Digest, entry: Descriptor) -> Result<()> {
        let tagged = reference.with_tag(&referrers_tag(subject)).map_err(|e| Error::Invalid(e.to_string()))?;
        let mut manifests = self.referrers(reference, subject, None)?.manifests;
        if manifests.iter().any(|known| known.digest == entry.digest) {
            return Ok(());
        }
        manifests.push(entry);
        let index = Index {
            schema_version: 2,
            media_type: kind::OCI_INDEX.to_owned(),
            artifact_type: None,
            manifests,
            subject: None,
            annotations: Default::default(),
        };
        let bytes = serde_json::to_vec(&index).map_err(|e| Error::Invalid(e.to_string()))?;
        self.push_manifest(&tagged, kind::OCI_INDEX, &bytes).map(|_| ())
    }

    fn push_error(&self, endpoint: &Endpoint, reference: &Reference, mut answer: Response) -> Error {
        if !matches!(answer.status, 401 | 403) {
            return answer.unexpected();
        }
        let trouble = self.trouble(endpoint, reference.repository());
        Error::PushDenied {
            name: reference.familiar_name(),
            registry: reference.registry().to_owned(),
            detail: format!("{}{trouble}", answer.complaint()),
        }
    }
}

enum Begun<'a> {
    Mounted(String),
    Upload(Upload<'a>),
}

/// The manifest that this one refers to, and how it is listed there.
fn subject_of(descriptor: &Descriptor, bytes: &[u8]) -> Option<(Digest, Descriptor)> {
    let mut entry = descriptor.clone();
    let subject = match descriptor.media_type.as_str() {
        kind::OCI_MANIFEST => {
            let manifest: Manifest = serde_json::from_slice(bytes).ok()?;
            entry.artifact_type = manifest.artifact_type.or(Some(manifest.config.media_type));
            entry.annotations = manifest.annotations;
            manifest.subject?
        }
        kind::OCI_INDEX => {
            let index: Index = serde_json::from_slice(bytes).ok()?;
            (entry.artifact_type, entry.annotations) = (index.artifact_type, index.annotations);
            index.subject?
        }
        _ => return None,
    };
    Some((subject.digest, entry))
}

/// Where an upload goes on: relative or absolute, and always given.
fn location(answer: &Response) -> Result<Url> {
    let wrong = |why: String| Error::Answer { url: shown(&answer.url), why };
    let text = answer.header("location").ok_or_else(|| wrong("an upload begins without Location".to_owned()))?;
    answer.url.join(text).map_err(|why| wrong(format!("the upload's Location {why}")))
}

impl Upload<'_> {
    fn request(&self, method: Method, url: Url, headers: Headers, payload: Payload<'_>) -> Result<Response> {
        let (endpoint, repository) = (self.endpoint, self.reference.repository());
        self.client.send(&Ready { endpoint, repository, scope: &self.scope, method, url, headers, payload })
    }

    /// After a cut: how much has the registry? False when it knows nothing of this upload any more.
    fn recover(&mut self) -> Result<bool> {
        let mut answer = self.request(Method::GET, self.location.clone(), Headers::new(), Payload::None)?;
        if matches!(answer.status, 400 | 404 | 405 | 416) {
            return Ok(false);
        }
        if !answer.success() {
            return Err(answer.unexpected());
        }
        self.at = received(answer.header("range"));
        if answer.header("location").is_some() {
            self.location = location(&answer)?;
        }
        let _ = answer.bytes(1 << 20);
        Ok(true)
    }

    /// Sends what is missing, and closes the session with the digest.
    fn send(&mut self, descriptor: &Descriptor, file: &File, watch: &dyn PushWatch) -> Result<()> {
        let size = descriptor.size;
        let whole = self.at == 0 && size <= MONOLITHIC;
        let mut part = size;
        while !whole && self.at < size {
            if watch.cancelled() {
                return Err(Error::Cancelled);
            }
            let length = part.min(size - self.at);
            match self.send_part(file, length, watch) {
                Err(Error::Status { status: 413, .. }) if length > SMALLEST_PART => {
                    part = (length / 4).max(SMALLEST_PART);
                    if !self.recover()? {
                        return Err(self.gone());
                    }
                }
                sent => sent?,
            }
        }
        let url = self.location.clone().with_query("digest", descriptor.digest.as_str());
        let sent = AtomicU64::new(0);
        let count = |bytes: u64| watch.sent(sent.fetch_add(bytes, Ordering::Relaxed) + bytes);
        let payload = match whole {
            true => Payload::Part { file, from: 0, length: size, sent: &count },
            false => Payload::Bytes(b""),
        };
        let headers = vec![("content-type", "application/octet-stream".to_owned())];
        let mut answer = self.request(Method::PUT, url, headers, payload)?;
        match answer.status {
            201 | 204 => {
                let _ = answer.bytes(1 << 20);
                Ok(())
            }
            401 | 403 => Err(self.client.push_error(self.endpoint, self.reference, answer)),
            _ => Err(answer.unexpected()),
        }
    }

    /// The registry forgot the upload: another attempt begins another.
    fn gone(&self) -> Error {
        let why = "the registry ended the upload".to_owned();
        Error::Connect { method: "PATCH".to_owned(), url: shown(&self.location), why, refused: false }
    }

    fn send_part(&mut self, file: &File, length: u64, watch: &dyn PushWatch) -> Result<()> {
        let from = self.at;
        let sent = AtomicU64::new(from);
        let count = |bytes: u64| watch.sent(sent.fetch_add(bytes, Ordering::Relaxed) + bytes);
        let headers = vec![
            ("content-type", "application/octet-stream".to_owned()),
            ("content-range", format!("{from}-{}", from + length - 1)),
        ];
        let payload = Payload::Part { file, from, length, sent: &count };
        let mut answer = self.request(Method::PATCH, self.location.clone(), headers, payload)?;
        match answer.status {
            202 | 204 => {}
            // It has another part than we think: what it has is asked for, and sent on from there.
            416 => {
                let had = self.at;
                return match self.recover()? {
                    true if self.at != had => Ok(()),
                    true => Err(answer.unexpected()),
                    false => Err(self.gone()),
                };
            }
            401 | 403 => return Err(self.client.push_error(self.endpoint, self.reference, answer)),
            _ => return Err(answer.unexpected()),
        }
        self.location = location(&answer)?;
        let has = received(answer.header("range"));
        let _ = answer.bytes(1 << 20);
        // A registry may take less than it was sent.
        self.at = if has > from { has.min(from + length) } else { from + length };
        Ok(())
    }
}

/// `0-99`: 100 bytes are there.
fn received(range: Option<&str>) -> u64 {
    let text = range.map(|text| text.trim().trim_start_matches("bytes=")).unwrap_or_default();
    match text.split_once('-').map(|(_, last)| last.parse::<u64>()) {
        // `0-0` is one byte or, in some registries, none: none is right after a moment in any case.
        Some(Ok(last)) if last > 0 => last.saturating_add(1),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_registry_has() {
        assert_eq!(received(Some("0-99")), 100);
        assert_eq!(received(Some("bytes=0-99")), 100);
        assert_eq!(received(Some("0-0")), 0);
        assert_eq!(received(Some("0--1")), 0);
        assert_eq!(received(None), 0);
    }
}
