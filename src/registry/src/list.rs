//! Tags and referrers (distribution-spec, "Content Discovery").

use crate::client::{Client, Endpoint, Ready};
use crate::error::{Error, Result};
use crate::http::{Payload, Response};
use crate::pull::MAX_MANIFEST;
use crate::url::{Url, shown};
use rrt_oci::image::{Descriptor, Digest, Index, Reference, media_type as kind};
use serde::Deserialize;
use ureq::http::Method;

/// So many pages are read at most; a registry that has more is not right.
const MAX_PAGES: usize = 1000;

#[derive(Deserialize)]
struct Tags {
    tags: Option<Vec<String>>,
}

/// What refers to a manifest.
#[derive(Clone, Debug)]
pub struct Referrers {
    /// Signatures, SBOMs, ….
    pub manifests: Vec<Descriptor>,
    /// The registry has no referrers API: this is from the tag that stands in for it.
    pub by_tag: bool,
}

impl Client {
    /// All tags of a repository, in order.
    pub fn tags(&self, reference: &Reference) -> Result<Vec<String>> {
        let repository = reference.repository();
        self.anywhere(reference.registry(), |endpoint| {
            let mut tags = Vec::new();
            let first = endpoint.api(repository, "tags/list").with_query("n", "1000");
            self.pages(endpoint, reference, first, |answer| {
                let page: Tags = answer.json(MAX_MANIFEST, "a list of tags")?;
                // What is no tag can't be pulled either.
                let good = |tag: &String| reference.with_tag(tag).is_ok();
                tags.extend(page.tags.unwrap_or_default().into_iter().filter(good));
                Ok(())
            })?;
            tags.sort();
            tags.dedup();
            Ok(tags)
        })
    }

    /// What refers to the manifest `subject` in the reference's repository.
    pub fn referrers(&self, reference: &Reference, subject: &Digest, artifact_type: Option<&str>) -> Result<Referrers> {
        let repository = reference.repository();
        let mut found = self.anywhere(reference.registry(), |endpoint| {
            let mut manifests = Vec::new();
            let mut first = endpoint.api(repository, &format!("referrers/{subject}"));
            if let Some(artifact_type) = artifact_type {
                first = first.with_query("artifactType", artifact_type);
            }
            let read = self.pages(endpoint, reference, first, |answer| {
                let index: Index = answer.json(MAX_MANIFEST, "an index of referrers")?;
                manifests.extend(index.manifests);
                Ok(())
            });
            match read {
                Err(Error::NotFound { .. }) => self.referrers_by_tag(reference, subject),
                read => read.map(|()| Referrers { manifests, by_tag: false }),
            }
        })?;
        // The filter is the registry's choice, and a tag has none.
        found
            .manifests
            .retain(|entry| artifact_type.is_none_or(|wanted| entry.artifact_type.as_deref() == Some(wanted)));
        Ok(found)
    }

    /// The index of the tag `ALGORITHM-HEX` (distribution-spec, "Referrers Tag Schema").
    fn referrers_by_tag(&self, reference: &Reference, subject: &Digest) -> Result<Referrers> {
        let tagged = reference.with_tag(&referrers_tag(subject)).map_err(|e| Error::Invalid(e.to_string()))?;
        let manifests = match self.resolve(&tagged) {
            Ok((descriptor, bytes)) if descriptor.media_type == kind::OCI_INDEX => {
                let index = serde_json::from_slice::<Index>(&bytes);
                index
                    .map_err(|e| Error::Answer {
                        url: tagged.familiar(),
                        why: format!("is no index of referrers: {e}"),
                    })?
                    .manifests
            }
            Ok(_) | Err(Error::NotFound { .. }) => Vec::new(),
            Err(e) => return Err(e),
        };
        Ok(Referrers { manifests, by_tag: true })
    }

    /// A list that comes in pages, each naming the next by a Link header.
    fn pages(
        &self,
        endpoint: &Endpoint,
        reference: &Reference,
        first: Url,
        mut read: impl FnMut(&mut Response) -> Result<()>,
    ) -> Result<()> {
        let mut url = first;
        for _ in 0..MAX_PAGES {
            let mut answer = self.send(&Ready {
                endpoint,
                repository: reference.repository(),
                scope: &endpoint.scope(reference.repository(), "pull"),
                method: Method::GET,
                url: url.clone(),
                headers: vec![("accept", format!("application/json, {}", kind::OCI_INDEX))],
                payload: Payload::None,
            })?;
            if answer.status != 200 {
                let what = format!("repository {}", reference.familiar_name());
                return Err(self.pull_error(endpoint, reference, &what, answer));
            }
            read(&mut answer)?;
            let Some(next) = answer.header_all("link").find_map(next_page) else { return Ok(()) };
            let next = url
                .join(&next)
                .map_err(|why| Error::Answer { url: shown(&url), why: format!("the next page {why}") })?;
            if !next.same_origin(&endpoint.url) || next == url {
                let why = format!("the next page of the list is said to be {}", shown(&next));
                return Err(Error::Answer { url: shown(&url), why });
            }
            url = next;
        }
        Err(Error::Answer { url: shown(&url), why: format!("the list has more than {MAX_PAGES} pages") })
    }
}

/// The tag that lists what refers to `subject` in a registry without the referrers API.
pub(crate) fn referrers_tag(subject: &Digest) -> String {
    let hex = subject.hex();
    format!("{}-{}", subject.algorithm(), &hex[..hex.len().min(64)])
}

/// The target of `<…>; rel="next"` (RFC 8288).
fn next_page(link: &str) -> Option<String> {
    link.split(',').find_map(|part| {
        let (target, members) = part.trim().strip_prefix('<')?.split_once('>')?;
        let next = members.split(';').any(|member| {
            let member = member.trim().to_ascii_lowercase();
            matches!(member.as_str(), "rel=\"next\"" | "rel=next")
        });
        next.then(|| target.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links() {
        for (link, next) in [
            (r#"</v2/a/tags/list?last=x&n=1>; rel="next""#, Some("/v2/a/tags/list?last=x&n=1")),
            ("<a>; rel=prev, <b>; foo=1; rel=next", Some("b")),
            ("<a>; rel=prev", None),
            ("a; rel=next", None),
            ("<a", None),
        ] {
            assert_eq!(next_page(link).as_deref(), next, "{link}");
        }
    }
}
