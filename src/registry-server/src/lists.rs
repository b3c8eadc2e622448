//! Lists: tags, repositories, referrers.

use crate::handle::{State, blocking};
use crate::reply::{FILTERS_APPLIED, Failure, Reply, json_reply, set};
use crate::route::{encode, parameter};
use hyper::StatusCode;
use hyper::header::LINK;
use rrt_images::names;
use rrt_images::repositories::{MANIFEST_LIMIT, Name};
use rrt_oci::image::{Digest, media_type};
use serde_json::{Map, Value, json};
use std::collections::BTreeSet;
use std::ops::Bound;
use std::sync::Arc;

/// So many entries at most are in one answer to a request that does not say how many it wants.
const PAGE: usize = 10_000;

/// A part of a list, by `n` and `last` (distribution-spec, "Listing Tags").
struct Page {
    entries: Vec<String>,
    /// The next part's query.
    next: Option<String>,
}

fn page(all: &BTreeSet<String>, query: Option<&str>) -> Result<Page, Failure> {
    let n = match parameter(query, "n").map(|text| text.parse::<usize>()) {
        None => PAGE,
        Some(Ok(n)) => n.min(PAGE),
        Some(Err(_)) => {
            return Err(Failure::new(StatusCode::BAD_REQUEST, "PAGINATION_NUMBER_INVALID", "n must be a number"));
        }
    };
    let after = parameter(query, "last").map_or(Bound::Unbounded, Bound::Excluded);
    let mut rest = all.range((after, Bound::Unbounded)).cloned();
    let entries: Vec<String> = rest.by_ref().take(n).collect();
    let more = rest.next().is_some();
    let next = entries.last().filter(|_| more).map(|last| format!("n={n}&last={}", encode(last)));
    Ok(Page { entries, next })
}

fn reply(path: &str, value: &Value, next: Option<String>) -> Reply {
    let mut reply = json_reply(StatusCode::OK, "application/json", value);
    if let Some(query) = next {
        set(&mut reply, LINK, &format!("<{path}?{query}>; rel=\"next\""));
    }
    reply
}

pub(crate) async fn catalog(state: &Arc<State>, query: Option<&str>) -> Result<Reply, Failure> {
    let shared = state.clone();
    let all = blocking(move || shared.repositories.catalog()).await?;
    let page = page(&all, query)?;
    Ok(reply("/v2/_catalog", &json!({"repositories": page.entries}), page.next))
}

pub(crate) async fn tags(state: &Arc<State>, name: Name, query: Option<&str>) -> Result<Reply, Failure> {
    let (shared, of) = (state.clone(), name.clone());
    let all = blocking(move || match shared.repositories.exists(&of)? {
        true => shared.repositories.tags(&of).map_err(Failure::from),
        false => Err(Failure::unknown_repository(of.as_str())),
    })
    .await?;
    let page = page(&all, query)?;
    let path = format!("/v2/{}/tags/list", name.as_str());
    Ok(reply(&path, &json!({"name": name.as_str(), "tags": page.entries}), page.next))
}

/// An index of what refers to the subject; empty when nothing does, or nobody knows the subject (distribution-spec, "Listing Referrers").
pub(crate) async fn referrers(
    state: &Arc<State>,
    name: Name,
    subject: Digest,
    query: Option<&str>,
) -> Result<Reply, Failure> {
    let wanted = parameter(query, "artifactType");
    let (shared, filter) = (state.clone(), wanted.clone());
    let manifests = blocking(move || {
        let digests = shared.repositories.referrers(&name, &subject)?;
        let mut all = Vec::new();
        for digest in digests {
            all.extend(describe(&shared, &name, &digest)?);
        }
        all.retain(|one| filter.as_ref().is_none_or(|kind| one["artifactType"] == kind.as_str()));
        Ok::<_, names::Error>(all)
    })
    .await?;
    let index = json!({"schemaVersion": 2, "mediaType": media_type::OCI_INDEX, "manifests": manifests});
    let mut reply = json_reply(StatusCode::OK, media_type::OCI_INDEX, &index);
    if wanted.is_some() {
        set(&mut reply, FILTERS_APPLIED, "artifactType");
    }
    Ok(reply)
}

/// A descriptor of a manifest, with its annotations, and its artifact type or else its configuration's.
fn describe(state: &State, name: &Name, digest: &Digest) -> Result<Option<Value>, names::Error> {
    let Some(kind) = state.repositories.manifest(name, digest)? else { return Ok(None) };
    let bytes = match state.config.content.read(digest, MANIFEST_LIMIT) {
        Ok(bytes) => bytes,
        Err(rrt_content::Error::Missing(_)) => return Ok(None),
        Err(e) => return Err(e.into()),
    };
    let document: Value = serde_json::from_slice(&bytes).unwrap_or_default();
    let own = document["artifactType"].as_str().filter(|kind| !kind.is_empty());
    let artifact = own.or_else(|| document["config"]["mediaType"].as_str());
    let mut one = Map::new();
    one.insert("mediaType".to_owned(), kind.into());
    one.insert("digest".to_owned(), digest.as_str().into());
    one.insert("size".to_owned(), bytes.len().into());
    if let Some(artifact) = artifact {
        one.insert("artifactType".to_owned(), artifact.into());
    }
    if document["annotations"].is_object() {
        one.insert("annotations".to_owned(), document["annotations"].clone());
    }
    Ok(Some(one.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages() {
        let all: BTreeSet<String> = ["a", "b/c", "d"].map(str::to_owned).into();
        let get = |query: &str| page(&all, Some(query)).map(|page| (page.entries.join(" "), page.next)).ok();
        assert_eq!(get(""), Some(("a b/c d".into(), None)));
        assert_eq!(get("n=2"), Some(("a b/c".into(), Some("n=2&last=b%2Fc".into()))));
        assert_eq!(get("n=2&last=b%2Fc"), Some(("d".into(), None)));
        assert_eq!(get("n=1&last=aa"), Some(("b/c".into(), Some("n=1&last=b%2Fc".into()))));
        assert_eq!(get("n=0"), Some((String::new(), None)));
        assert_eq!(get("last=z"), Some((String::new(), None)));
        assert_eq!((get("n=-1"), get("n=x")), (None, None));
    }
}
