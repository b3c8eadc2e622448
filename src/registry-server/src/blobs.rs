//! Blobs: whole, in part, and their deletion.

use crate::body::Body;
use crate::handle::{State, blocking, collect};
use crate::reply::{DIGEST, Failure, Reply, empty, set};
use hyper::header::{ACCEPT_RANGES, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, HeaderValue, RANGE};
use hyper::{Method, Request, Response, StatusCode};
use rrt_images::repositories::Name;
use rrt_oci::image::Digest;
use std::ops::Range;
use std::sync::Arc;

pub(crate) async fn get<B>(
    state: &Arc<State>,
    name: Name,
    digest: Digest,
    request: &Request<B>,
) -> Result<Reply, Failure> {
    let head = request.method() == Method::HEAD;
    let range = request.headers().get(RANGE).filter(|_| !head).cloned();
    let shared = state.clone();
    let (file, size, digest) = blocking(move || {
        match shared.repositories.has_blob(&name, &digest)? {
            true => Ok((shared.config.content.open_blob(&digest)?, shared.config.content.size(&digest)?, digest)),
            // A manifest is a blob too, and some clients get it so.
            false if shared.repositories.manifest(&name, &digest)?.is_some() => {
                Ok((shared.config.content.open_blob(&digest)?, shared.config.content.size(&digest)?, digest))
            }
            false => Err(Failure::unknown_blob(&digest)),
        }
    })
    .await?;
    let wanted = match range.as_ref().and_then(|range| parse_range(range, size)) {
        Some(Some(part)) => Some(part),
        Some(None) => {
            let why = format!("the blob has {size} bytes");
            return Err(Failure::new(StatusCode::RANGE_NOT_SATISFIABLE, "RANGE_INVALID", why)
                .with(CONTENT_RANGE, format!("bytes */{size}")));
        }
        None => None,
    };
    let part = wanted.clone().unwrap_or(0..size);
    let length = part.end - part.start;
    let mut reply = Response::new(if head { Body::empty() } else { Body::file(file, part.start, length) });
    if wanted.is_some() {
        *reply.status_mut() = StatusCode::PARTIAL_CONTENT;
        set(&mut reply, CONTENT_RANGE, &format!("bytes {}-{}/{size}", part.start, part.end - 1));
    }
    set(&mut reply, CONTENT_LENGTH, &length.to_string());
    set(&mut reply, CONTENT_TYPE, "application/octet-stream");
    set(&mut reply, ACCEPT_RANGES, "bytes");
    set(&mut reply, DIGEST, digest.as_str());
    Ok(reply)
}

pub(crate) async fn delete(state: &Arc<State>, name: Name, digest: Digest) -> Result<Reply, Failure> {
    let shared = state.clone();
    let missing = Failure::unknown_blob(&digest);
    let removed = blocking(move || shared.repositories.remove_blob(&name, &digest)).await?;
    collect(state);
    if removed { Ok(empty(StatusCode::ACCEPTED)) } else { Err(missing) }
}

/// RFC 9110, section 14.2. `None`: as if there were none, for units, several ranges and nonsense; `Some(None)`: beyond the end.
fn parse_range(header: &HeaderValue, size: u64) -> Option<Option<Range<u64>>> {
    let text = header.to_str().ok()?.strip_prefix("bytes=")?;
    let (first, last) = text.split_once('-')?;
    let number = |text: &str| text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok()).flatten();
    let range = match (first, last) {
        ("", last) => {
            let length: u64 = number(last)?;
            size.saturating_sub(length)..size
        }
        (first, "") => number(first)?..size,
        (first, last) => {
            let (first, last): (u64, u64) = (number(first)?, number(last)?);
            if first > last {
                return None;
            }
            first..size.min(last.saturating_add(1))
        }
    };
    Some((range.start < range.end).then_some(range))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges() {
        let parse = |text: &str| parse_range(&HeaderValue::from_str(text).unwrap(), 10);
        assert_eq!(parse("bytes=0-3"), Some(Some(0..4)));
        assert_eq!(parse("bytes=4-"), Some(Some(4..10)));
        assert_eq!(parse("bytes=9-99"), Some(Some(9..10)));
        assert_eq!(parse("bytes=-3"), Some(Some(7..10)));
        assert_eq!(parse("bytes=-30"), Some(Some(0..10)));
        assert_eq!((parse("bytes=10-"), parse("bytes=-0"), parse("bytes=12-13")), (Some(None), Some(None), Some(None)));
        for ignored in ["bytes=3-2", "bytes=0-1,3-4", "items=0-1", "bytes=x-", "bytes=", "bytes=+1-2", "0-1"] {
            assert_eq!(parse(ignored), None, "{ignored}");
        }
        assert_eq!(parse_range(&HeaderValue::from_static("bytes=0-"), 0), Some(None));
    }
}
