//! Digests: `algorithm:hex` (image-spec, descriptor.md, "Digests").

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// The digest of a blob, always of a registered algorithm and of its exact length in lower-case hexadecimal: safe as a file's name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest(String);

/// The text that is no digest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidDigest(pub String);

impl std::error::Error for InvalidDigest {}

impl fmt::Display for InvalidDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "invalid digest {:?}: expected sha256: and 64, or sha512: and 128 digits of 0-9a-f", self.0)
    }
}

impl Digest {
    /// The digest that a finished SHA-256 says.
    pub fn sha256(hash: &[u8; 32]) -> Digest {
        let mut text = String::with_capacity(7 + 64);
        text.push_str("sha256:");
        for byte in hash {
            text.push(char::from_digit(u32::from(byte >> 4), 16).unwrap_or('0'));
            text.push(char::from_digit(u32::from(byte & 15), 16).unwrap_or('0'));
        }
        Digest(text)
    }

    /// `sha256` or `sha512`.
    pub fn algorithm(&self) -> &str {
        self.0.split_once(':').map_or("", |(algorithm, _)| algorithm)
    }

    /// The part after the colon.
    pub fn hex(&self) -> &str {
        self.0.split_once(':').map_or("", |(_, hex)| hex)
    }

    /// The first twelve digits, as Docker shows ids.
    pub fn short(&self) -> &str {
        &self.hex()[..12]
    }

    /// The whole text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Digest {
    type Err = InvalidDigest;

    fn from_str(text: &str) -> Result<Digest, InvalidDigest> {
        text.to_owned().try_into()
    }
}

impl TryFrom<String> for Digest {
    type Error = InvalidDigest;

    fn try_from(text: String) -> Result<Digest, InvalidDigest> {
        let hex = match text.split_once(':') {
            Some(("sha256", hex)) if hex.len() == 64 => hex,
            Some(("sha512", hex)) if hex.len() == 128 => hex,
            _ => return Err(InvalidDigest(text)),
        };
        match hex.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)) {
            true => Ok(Digest(text)),
            false => Err(InvalidDigest(text)),
        }
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> String {
        digest.0
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_lower_case_digests_are_taken() {
        let hex = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        let digest: Digest = format!("sha256:{hex}").parse().unwrap();
        assert_eq!((digest.algorithm(), digest.hex(), digest.short()), ("sha256", hex, "e3b0c44298fc"));
        for bad in ["", "sha256", "sha256:", "sha256:e3b0", &hex.to_uppercase(), "md5:d41d8cd98f00b204e9800998ecf8427e"]
        {
            assert_eq!(bad.parse::<Digest>(), Err(InvalidDigest(bad.to_owned())));
        }
        assert!(format!("sha256:{}", hex.to_uppercase()).parse::<Digest>().is_err());
        assert!(format!("sha256:../{}", &hex[3..]).parse::<Digest>().is_err());
    }

    #[test]
    fn a_hash_is_written_in_hexadecimal() {
        let mut hash = [0; 32];
        (hash[0], hash[31]) = (0xe3, 0x05);
        assert_eq!(Digest::sha256(&hash).as_str(), format!("sha256:e3{}05", "0".repeat(60)));
    }
}
