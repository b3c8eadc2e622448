//! Manifests, by digest and by tag.

use crate::handle::{State, blocking, collect};
use crate::reply::{DIGEST, Failure, Reply, SUBJECT, bytes, created, empty, set};
use crate::route::Reference;
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper::header::CONTENT_TYPE;
use hyper::{Request, StatusCode};
use rrt_content::Hasher;
use rrt_images::repositories::{MANIFEST_LIMIT, Name, Refers};
use rrt_oci::image::Digest;
use std::sync::Arc;

pub(crate) async fn get(state: &Arc<State>, name: Name, reference: Reference) -> Result<Reply, Failure> {
    let shared = state.clone();
    blocking(move || {
        let repositories = &shared.repositories;
        let unknown = || Failure::unknown_manifest(reference.as_str());
        let digest = match &reference {
            Reference::Digest(digest) => digest.clone(),
            Reference::Tag(tag) => repositories.tag(&name, tag)?.ok_or_else(unknown)?,
        };
        let kind = repositories.manifest(&name, &digest)?.ok_or_else(unknown)?;
        let document = shared.config.content.read(&digest, MANIFEST_LIMIT)?;
        let mut reply = bytes(&kind, document);
        set(&mut reply, DIGEST, digest.as_str());
        Ok::<Reply, Failure>(reply)
    })
    .await
}

pub(crate) async fn put(
    state: &Arc<State>,
    name: Name,
    reference: Reference,
    request: Request<Incoming>,
) -> Result<Reply, Failure> {
    let kind = request.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim().to_owned();
    let body = Limited::new(request.into_body(), MANIFEST_LIMIT as usize).collect().await.map_err(|e| {
        let large = e.is::<http_body_util::LengthLimitError>();
        let status = if large { StatusCode::PAYLOAD_TOO_LARGE } else { StatusCode::BAD_REQUEST };
        Failure::new(
            status,
            "MANIFEST_INVALID",
            if large { "a manifest has at most 4 MiB".to_owned() } else { e.to_string() },
        )
    })?;
    let document = body.to_bytes().to_vec();
    let shared = state.clone();
    blocking(move || store(&shared, &name, &reference, &kind, &document)).await
}

fn store(state: &State, name: &Name, reference: &Reference, kind: &str, document: &[u8]) -> Result<Reply, Failure> {
    let invalid = |why| Failure::new(StatusCode::BAD_REQUEST, "MANIFEST_INVALID", why);
    let refers = Refers::of(kind, document).map_err(invalid)?;
    let (digest, tag) = match reference {
        Reference::Digest(digest) => (digest.clone(), None),
        Reference::Tag(tag) => (Hasher::digest_of("sha256", document), Some(tag.as_str())),
    };
    let content = &state.config.content;
    let lease = content.lease()?;
    // Held first, then looked for: from here on nobody takes it from the repository.
    for blob in refers.blobs.iter().chain(&refers.manifests) {
        lease.add(blob)?;
    }
    let unknown = |digest: &Digest| {
        Failure::new(StatusCode::NOT_FOUND, "MANIFEST_BLOB_UNKNOWN", format!("{digest} is unknown to the repository"))
    };
    for blob in &refers.blobs {
        if !state.repositories.has_blob(name, blob)? {
            return Err(unknown(blob));
        }
    }
    for manifest in &refers.manifests {
        if state.repositories.manifest(name, manifest)?.is_none() {
            return Err(unknown(manifest));
        }
    }
    let mut writer = content.writer(&lease)?;
    writer.expect(&digest);
    writer.append(document)?;
    writer.sync()?;
    writer.commit()?;
    state.repositories.add_manifest(name, &digest, kind, &refers, tag)?;
    let mut reply = created(&format!("/v2/{}/manifests/{digest}", name.as_str()), &digest);
    if let Some(subject) = &refers.subject {
        set(&mut reply, SUBJECT, subject.as_str());
    }
    Ok(reply)
}

/// A digest's manifest goes with its tags; a tag goes alone.
pub(crate) async fn delete(state: &Arc<State>, name: Name, reference: Reference) -> Result<Reply, Failure> {
    let shared = state.clone();
    blocking(move || {
        let removed = match &reference {
            Reference::Digest(digest) => shared.repositories.remove_manifest(&name, digest)?,
            Reference::Tag(tag) => shared.repositories.remove_tag(&name, tag)?,
        };
        if removed { Ok(()) } else { Err(Failure::unknown_manifest(reference.as_str())) }
    })
    .await?;
    collect(state);
    Ok(empty(StatusCode::ACCEPTED))
}
