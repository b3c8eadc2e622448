//! Who may: a file of `user:hash` lines as `htpasswd -B` writes it, and as Debian's docker-registry reads it.

use crate::Error;
use rrt_content::Hasher;
use rrt_oci::image::Digest;
use std::collections::{HashMap, HashSet};
use std::fs;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

pub(crate) struct Users {
    /// A user's bcrypt hash.
    hashes: HashMap<String, String>,
    /// Digests of credentials that were right before: bcrypt is slow on purpose, and a push has many requests.
    right: Mutex<HashSet<Digest>>,
}

impl Users {
    pub fn read(path: &Path) -> Result<Users, Error> {
        let error = |why: String| Error::Users { path: path.to_owned(), why };
        let text = fs::read_to_string(path).map_err(|e| error(e.to_string()))?;
        let mut hashes = HashMap::new();
        for (n, line) in text.lines().enumerate().map(|(n, line)| (n + 1, line.trim())) {
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let (user, hash) = line.split_once(':').ok_or_else(|| error(format!("line {n} is not user:hash")))?;
            if !["$2a$", "$2b$", "$2y$"].iter().any(|kind| hash.starts_with(kind)) {
                return Err(error(format!("line {n}: the hash of {user:?} is not bcrypt: write it with htpasswd -B")));
            }
            hashes.insert(user.to_owned(), hash.to_owned());
        }
        Ok(Users { hashes, right: Mutex::default() })
    }

    /// Is this `Authorization` header of one of them? Takes as long for a user who is not there.
    pub fn know(&self, header: &[u8]) -> bool {
        let digest = Hasher::digest_of("sha256", header);
        if self.right.lock().unwrap_or_else(PoisonError::into_inner).contains(&digest) {
            return true;
        }
        let text = std::str::from_utf8(header).ok().and_then(|text| text.split_once(' '));
        let encoded = text.filter(|(scheme, _)| scheme.eq_ignore_ascii_case("basic")).map(|(_, rest)| rest.trim());
        let Some(decoded) = encoded.and_then(from_base64).and_then(|bytes| String::from_utf8(bytes).ok()) else {
            return false;
        };
        let Some((user, password)) = decoded.split_once(':') else { return false };
        const NOBODY: &str = "$2y$05$......................................................";
        let hash = self.hashes.get(user);
        let right = bcrypt::verify(password, hash.map_or(NOBODY, String::as_str)).unwrap_or(false) && hash.is_some();
        if right {
            self.right.lock().unwrap_or_else(PoisonError::into_inner).insert(digest);
        }
        right
    }
}

/// With or without its padding.
fn from_base64(text: &str) -> Option<Vec<u8>> {
    rrt_registry::base64::decode(text.trim_end_matches('=').as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64() {
        let decode = |text: &str| from_base64(text).map(|bytes| String::from_utf8(bytes).unwrap());
        assert_eq!(decode("dXNlcjpwYXNz"), Some("user:pass".into()));
        assert_eq!(decode("YTpi"), Some("a:b".into()));
        assert_eq!((decode("YTo="), decode("YQ==")), (Some("a:".into()), Some("a".into())));
        assert_eq!(decode("a b"), None);
    }

    #[test]
    fn only_who_has_the_password_is_known() {
        let path = std::env::temp_dir().join(format!("rrt-users-{}", std::process::id()));
        let hash = bcrypt::hash("secret", 4).unwrap();
        fs::write(&path, format!("# users\n\nanna:{hash}\n")).unwrap();
        let users = Users::read(&path).unwrap();
        // anna:secret, twice; anna:wrong; bert:secret; a token.
        for (header, known) in [
            ("Basic YW5uYTpzZWNyZXQ=", true),
            ("basic YW5uYTpzZWNyZXQ=", true),
            ("Basic YW5uYTpzZWNyZXQ=", true),
            ("Basic YW5uYTp3cm9uZw==", false),
            ("Basic YmVydDpzZWNyZXQ=", false),
            ("Bearer YW5uYTpzZWNyZXQ=", false),
            ("Basic", false),
            ("", false),
        ] {
            assert_eq!(users.know(header.as_bytes()), known, "{header}");
        }
        for (text, why) in
            [("anna", "line 1 is not user:hash"), ("\nanna:{SHA}x", "line 2: the hash of \"anna\" is not bcrypt")]
        {
            fs::write(&path, text).unwrap();
            assert!(Users::read(&path).err().unwrap().to_string().contains(why));
        }
        fs::remove_file(&path).unwrap();
        assert!(Users::read(&path).is_err());
    }
}
