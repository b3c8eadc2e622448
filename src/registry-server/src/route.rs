//! Which thing a path names (distribution-spec, "Endpoints").

use crate::reply::Failure;
use hyper::StatusCode;
use rrt_images::repositories::Name;
use rrt_oci::image::Digest;

/// A path's meaning. Names are checked; a manifest's reference is a digest or a tag.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Route {
    /// `/v2/`
    Base,
    /// `/v2/_catalog`
    Catalog,
    /// `/v2/<name>/tags/list`
    Tags(Name),
    /// `/v2/<name>/manifests/<reference>`
    Manifest(Name, Reference),
    /// `/v2/<name>/blobs/<digest>`
    Blob(Name, Digest),
    /// `/v2/<name>/blobs/uploads/`
    Uploads(Name),
    /// `/v2/<name>/blobs/uploads/<id>`
    Upload(Name, String),
    /// `/v2/<name>/referrers/<digest>`
    Referrers(Name, Digest),
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Reference {
    Digest(Digest),
    Tag(String),
}

impl Reference {
    /// The text, for messages.
    pub fn as_str(&self) -> &str {
        match self {
            Reference::Digest(digest) => digest.as_str(),
            Reference::Tag(tag) => tag,
        }
    }
}

impl Route {
    /// A repository may be called `a/blobs/b`, so a path is read from its end.
    pub fn of(path: &str) -> Result<Route, Failure> {
        let nothing = || Failure::new(StatusCode::NOT_FOUND, "UNSUPPORTED", format!("there is nothing at {path}"));
        let rest = match path.strip_prefix("/v2") {
            Some("" | "/") => return Ok(Route::Base),
            Some("/_catalog") => return Ok(Route::Catalog),
            Some(rest) => decode(rest.strip_prefix('/').ok_or_else(nothing)?),
            None => return Err(nothing()),
        };
        let parts: Vec<&str> = rest.split('/').collect();
        let name = |used: usize| {
            let text = parts[..parts.len() - used].join("/");
            let invalid =
                || Failure::new(StatusCode::BAD_REQUEST, "NAME_INVALID", format!("{text:?} is no repository's name"));
            Name::new(&text).ok_or_else(invalid)
        };
        let digest = |text: &str| text.parse::<Digest>().map_err(|_| Failure::invalid_digest(text));
        match parts[..] {
            [.., "tags", "list"] => Ok(Route::Tags(name(2)?)),
            [.., "blobs", "uploads"] => Ok(Route::Uploads(name(2)?)),
            [.., "blobs", "uploads", ""] => Ok(Route::Uploads(name(3)?)),
            [.., "blobs", "uploads", id] => Ok(Route::Upload(name(3)?, id.to_owned())),
            [.., "blobs", text] => Ok(Route::Blob(name(2)?, digest(text)?)),
            [.., "referrers", text] => Ok(Route::Referrers(name(2)?, digest(text)?)),
            [.., "manifests", text] if text.contains(':') => {
                Ok(Route::Manifest(name(2)?, Reference::Digest(digest(text)?)))
            }
            [.., "manifests", text] if Name::is_tag(text) => {
                Ok(Route::Manifest(name(2)?, Reference::Tag(text.to_owned())))
            }
            [.., "manifests", text] => Err(Failure::new(
                StatusCode::BAD_REQUEST,
                "TAG_INVALID",
                format!("{text:?} is neither a tag nor a digest"),
            )),
            _ => Err(nothing()),
        }
    }
}

/// A parameter of the query; the first of several.
pub(crate) fn parameter(query: Option<&str>, name: &str) -> Option<String> {
    let pairs = query?.split('&').filter_map(|pair| pair.split_once('='));
    pairs.filter(|(key, _)| decode(key) == name).map(|(_, value)| decode(value)).next()
}

/// Undoes percent-encoding (RFC 3986, section 2.1). What is no valid escape stays as it is.
fn decode(text: &str) -> String {
    let bytes = text.as_bytes();
    let hex = |at: usize| bytes.get(at).and_then(|b| (*b as char).to_digit(16));
    let (mut decoded, mut at) = (Vec::with_capacity(bytes.len()), 0);
    while at < bytes.len() {
        match (bytes[at], hex(at + 1), hex(at + 2)) {
            (b'%', Some(high), Some(low)) => {
                decoded.push((high * 16 + low) as u8);
                at += 3;
            }
            (byte, ..) => {
                decoded.push(byte);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&decoded).into_owned()
}

/// For a query: all but what RFC 3986 calls unreserved is escaped.
pub(crate) fn encode(text: &str) -> String {
    let mut encoded = String::new();
    for byte in text.bytes() {
        match byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            true => encoded.push(byte as char),
            false => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_read_from_their_end() {
        let name = |text: &str| Name::new(text).unwrap();
        let digest: Digest = format!("sha256:{}", "a".repeat(64)).parse().unwrap();
        let of = |path: &str| Route::of(path).map_err(|f| f.status.as_u16());
        assert_eq!(of("/v2/"), Ok(Route::Base));
        assert_eq!(of("/v2"), Ok(Route::Base));
        assert_eq!(of("/v2/_catalog"), Ok(Route::Catalog));
        assert_eq!(of("/v2/a/blobs/uploads/"), Ok(Route::Uploads(name("a"))));
        assert_eq!(of("/v2/a/blobs/uploads/x"), Ok(Route::Upload(name("a"), "x".into())));
        assert_eq!(
            of(&format!("/v2/a/blobs/uploads/blobs/{digest}")),
            Ok(Route::Blob(name("a/blobs/uploads"), digest.clone()))
        );
        assert_eq!(
            of(&format!("/v2/a/blobs/{}", digest.as_str().replace(':', "%3A"))),
            Ok(Route::Blob(name("a"), digest.clone()))
        );
        assert_eq!(of("/v2/a/tags/tags/list"), Ok(Route::Tags(name("a/tags"))));
        assert_eq!(of("/v2/a/manifests/1.0"), Ok(Route::Manifest(name("a"), Reference::Tag("1.0".into()))));
        assert_eq!(
            of(&format!("/v2/a/manifests/{digest}")),
            Ok(Route::Manifest(name("a"), Reference::Digest(digest.clone())))
        );
        assert_eq!(of(&format!("/v2/a/referrers/{digest}")), Ok(Route::Referrers(name("a"), digest)));
        for (bad, status) in [
            ("/", 404),
            ("/v1/", 404),
            ("/v2x/", 404),
            ("/v2/a", 404),
            ("/v2/A/tags/list", 400),
            ("/v2/a/%2e%2e/b/tags/list", 400),
            ("/v2/tags/list", 400),
            ("/v2/a/manifests/.x", 400),
            ("/v2/a/blobs/sha256:12", 400),
            ("/v2/a/manifests/..%2f..%2fx", 404),
        ] {
            assert_eq!(of(bad), Err(status), "{bad}");
        }
    }

    #[test]
    fn queries() {
        let query = Some("n=5&digest=sha256%3Aab&last=a%2Fb&n=6&empty=&%zz=1");
        let get = |name: &str| parameter(query, name);
        assert_eq!(
            (get("n"), get("digest"), get("last")),
            (Some("5".into()), Some("sha256:ab".into()), Some("a/b".into()))
        );
        assert_eq!((get("empty"), get("none"), get("%zz")), (Some(String::new()), None, Some("1".into())));
        assert_eq!(encode("a/b:1.0"), "a%2Fb%3A1.0");
    }
}
