//! References: `[registry/]repository[:tag][@digest]`, read as Docker reads them (distribution-spec, "Pulling manifests"; the
//! grammar of github.com/distribution/reference).

use super::Digest;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// The registry of a name that has none.
pub const DEFAULT_REGISTRY: &str = "docker.io";
/// The tag of a name that has neither tag nor digest.
pub const DEFAULT_TAG: &str = "latest";

/// Where an image is: never with an empty part, always normalised (`busybox` is `docker.io/library/busybox`).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Reference {
    registry: String,
    repository: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

/// The text that is no reference, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidReference {
    /// What was given.
    pub text: String,
    /// The rule it breaks, and what to write instead.
    pub why: String,
}

impl std::error::Error for InvalidReference {}

impl fmt::Display for InvalidReference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "invalid reference {:?}: {}", self.text, self.why)
    }
}

impl Reference {
    /// `docker.io`, `host`, `host:port`, `[::1]:port`.
    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// The path in the registry: `library/busybox`.
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// The tag, if one was given.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The digest, if one was given.
    pub fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }

    /// The same with `latest` where neither tag nor digest is.
    pub fn with_default_tag(mut self) -> Reference {
        if self.tag.is_none() && self.digest.is_none() {
            self.tag = Some(DEFAULT_TAG.to_owned());
        }
        self
    }

    /// The same repository with this tag alone. The caller has it from [`Reference::tag`] or from a registry's answer; an
    /// invalid one is refused.
    pub fn with_tag(&self, tag: &str) -> Result<Reference, InvalidReference> {
        let invalid = |why: &str| InvalidReference { text: format!("{self}:{tag}"), why: why.to_owned() };
        check_tag(tag).map_err(|why| invalid(&why))?;
        Ok(Reference { tag: Some(tag.to_owned()), digest: None, ..self.clone() })
    }

    /// The same repository with this digest alone.
    pub fn with_digest(&self, digest: Digest) -> Reference {
        Reference { tag: None, digest: Some(digest), ..self.clone() }
    }

    /// The name as Docker shows it, without tag and digest: `busybox`, `user/app`, `host:5000/app`.
    pub fn familiar_name(&self) -> String {
        match (self.registry.as_str(), self.repository.strip_prefix("library/")) {
            (DEFAULT_REGISTRY, Some(short)) if !short.contains('/') => short.to_owned(),
            (DEFAULT_REGISTRY, _) => self.repository.clone(),
            _ => format!("{}/{}", self.registry, self.repository),
        }
    }

    /// [`Reference::familiar_name`] with tag and digest.
    pub fn familiar(&self) -> String {
        format!("{}{}", self.familiar_name(), self.suffix())
    }

    fn suffix(&self) -> String {
        let tag = self.tag.as_ref().map(|tag| format!(":{tag}")).unwrap_or_default();
        let digest = self.digest.as_ref().map(|digest| format!("@{digest}")).unwrap_or_default();
        tag + &digest
    }
}

impl fmt::Display for Reference {
    /// With everything: `docker.io/library/busybox:latest`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}{}", self.registry, self.repository, self.suffix())
    }
}

impl FromStr for Reference {
    type Err = InvalidReference;

    fn from_str(text: &str) -> Result<Reference, InvalidReference> {
        let invalid = |why: String| InvalidReference { text: text.to_owned(), why };
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => {
                (rest, Some(digest.parse().map_err(|e: super::InvalidDigest| invalid(e.to_string()))?))
            }
            None => (text, None),
        };
        // A colon after the last slash starts the tag; one before belongs to a port.
        let (name, tag) = match rest.rfind(':').filter(|at| !rest[*at..].contains('/')) {
            Some(at) => (&rest[..at], Some(&rest[at + 1..])),
            None => (rest, None),
        };
        if let Some(tag) = tag {
            check_tag(tag).map_err(invalid)?;
        }
        if name.len() == 64 && name.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)) {
            return Err(invalid(
                "64 hexadecimal digits are an image's id, not a name; write sha256: before them".to_owned(),
            ));
        }
        let (registry, path) = split_registry(name);
        check_registry(registry).map_err(invalid)?;
        check_path(path).map_err(invalid)?;
        let registry = if registry == "index.docker.io" { DEFAULT_REGISTRY } else { registry };
        let repository = match registry == DEFAULT_REGISTRY && !path.contains('/') {
            true => format!("library/{path}"),
            false => path.to_owned(),
        };
        if repository.len() > 255 {
            return Err(invalid("a repository's name has at most 255 characters".to_owned()));
        }
        Ok(Reference { registry: registry.to_owned(), repository, tag: tag.map(str::to_owned), digest })
    }
}

/// A first component is a registry when it has a dot, a colon, an upper-case letter, or is `localhost`.
fn split_registry(name: &str) -> (&str, &str) {
    match name.split_once('/') {
        Some((first, rest))
            if first.contains(['.', ':']) || first == "localhost" || first.bytes().any(|b| b.is_ascii_uppercase()) =>
        {
            (first, rest)
        }
        _ => (DEFAULT_REGISTRY, name),
    }
}

fn check_registry(registry: &str) -> Result<(), String> {
    let (host, port) = match registry.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, port)) => {
            let v6 = !address.is_empty() && address.bytes().all(|b| b.is_ascii_hexdigit() || b == b':');
            if !v6 || (!port.is_empty() && !port.starts_with(':')) {
                return Err(format!("the registry {registry:?} is no IPv6 address in brackets with a port"));
            }
            ("v6", port.strip_prefix(':'))
        }
        None => registry.split_once(':').map_or((registry, None), |(host, port)| (host, Some(port))),
    };
    let label = |l: &str| {
        !l.is_empty()
            && l.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
            && !l.starts_with('-')
            && !l.ends_with('-')
    };
    if !host.split('.').all(label) {
        return Err(format!("the registry {registry:?} is no host name with an optional port"));
    }
    match port {
        Some(port) if port.parse::<u16>().is_err() => Err(format!("the registry {registry:?} has an invalid port")),
        _ => Ok(()),
    }
}

/// Components of lower-case letters and digits, joined by one dot, one or two underscores, or any number of hyphens.
fn check_path(path: &str) -> Result<(), String> {
    for part in path.split('/') {
        let mut separator = 0..0;
        for (at, b) in part.bytes().enumerate() {
            if b.is_ascii_lowercase() || b.is_ascii_digit() {
                let between = &part[separator.clone()];
                if !(between.is_empty() && at == separator.end
                    || matches!(between, "." | "_" | "__")
                    || between.bytes().all(|b| b == b'-'))
                {
                    return Err(format!("{between:?} can't join two parts of a repository's name"));
                }
                separator = at + 1..at + 1;
            } else if b"._-".contains(&b) && at > 0 {
                separator.end = at + 1;
            } else if b.is_ascii_uppercase() {
                return Err("a repository's name must be lower case".to_owned());
            } else {
                return Err(format!(
                    "a repository's name must start with a letter or digit and can't have {:?}",
                    part[at..].chars().next().unwrap_or(' ')
                ));
            }
        }
        if part.is_empty() {
            return Err("a part of the repository's name is empty".to_owned());
        }
        if !separator.is_empty() {
            return Err(format!("a part of a repository's name can't end in {:?}", &part[separator]));
        }
    }
    Ok(())
}

/// distribution-spec: `[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}`.
fn check_tag(tag: &str) -> Result<(), String> {
    let good = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
    match tag.bytes().next() {
        None => Err("the tag after the colon is empty".to_owned()),
        Some(b'.' | b'-') => Err(format!("the tag {tag:?} starts with a dot or hyphen")),
        _ if tag.len() > 128 => Err("a tag has at most 128 characters".to_owned()),
        _ if !tag.bytes().all(good) => {
            Err(format!("the tag {tag:?} has other characters than letters, digits and ._-"))
        }
        _ => Ok(()),
    }
}

impl TryFrom<String> for Reference {
    type Error = InvalidReference;

    fn try_from(text: String) -> Result<Reference, InvalidReference> {
        text.parse()
    }
}

impl From<Reference> for String {
    fn from(reference: Reference) -> String {
        reference.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole(text: &str) -> String {
        text.parse::<Reference>().map_or_else(|e| panic!("{e}"), |r| r.to_string())
    }

    #[test]
    fn names_are_normalised() {
        assert_eq!(whole("busybox"), "docker.io/library/busybox");
        assert_eq!(whole("user/app:1.0"), "docker.io/user/app:1.0");
        assert_eq!(whole("localhost/a"), "localhost/a");
        assert_eq!(whole("localhost:5000/a/b:x"), "localhost:5000/a/b:x");
        assert_eq!(whole("[::1]:5000/a"), "[::1]:5000/a");
        assert_eq!(whole("index.docker.io/busybox"), "docker.io/library/busybox");
        assert_eq!(whole("Host/a"), "Host/a");
        assert_eq!(whole("a__b-c--d.e"), "docker.io/library/a__b-c--d.e");
        let digest = format!("sha256:{}", "a".repeat(64));
        assert_eq!(whole(&format!("a:t@{digest}")), format!("docker.io/library/a:t@{digest}"));
        let reference: Reference = "busybox:1".parse().unwrap();
        assert_eq!((reference.familiar(), reference.familiar_name()), ("busybox:1".to_owned(), "busybox".to_owned()));
        assert_eq!("host:1/library/x".parse::<Reference>().unwrap().familiar(), "host:1/library/x");
    }

    #[test]
    fn bad_names_say_why() {
        let hex = "a".repeat(64);
        for (bad, why) in [
            ("", "empty"),
            ("a:", "tag after the colon is empty"),
            ("Busybox", "lower case"),
            ("a//b", "empty"),
            ("a/", "empty"),
            ("-a", "must start"),
            ("a-", "can't end"),
            ("a..b", "can't join"),
            ("a._b", "can't join"),
            ("a b", "can't have ' '"),
            ("a:.b", "starts with a dot"),
            ("host:99999/a", "invalid port"),
            ("ho_st.x/a", "no host name"),
            ("a@sha256:12", "invalid digest"),
            (&hex, "image's id"),
            (&format!("a:{}", "x".repeat(129)), "128"),
            ("a/".repeat(200).trim_end_matches('/'), "255"),
        ] {
            let error = bad.parse::<Reference>().expect_err(bad).to_string();
            assert!(error.contains(why), "{bad}: {error}");
        }
    }
}
