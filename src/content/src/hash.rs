//! Hashing, by the algorithm that a digest names.

use rrt_oci::image::Digest;
use sha2::{Digest as _, Sha256, Sha512};

/// A digest being computed.
#[derive(Clone, Debug)]
pub struct Hasher(State);

#[derive(Clone, Debug)]
enum State {
    Sha256(Sha256),
    Sha512(Sha512),
}

impl Hasher {
    /// For `sha256` or `sha512` (all that a [`Digest`] can name).
    pub fn new(algorithm: &str) -> Hasher {
        Hasher(match algorithm {
            "sha512" => State::Sha512(Sha512::new()),
            _ => State::Sha256(Sha256::new()),
        })
    }

    /// Adds bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        match &mut self.0 {
            State::Sha256(hash) => hash.update(bytes),
            State::Sha512(hash) => hash.update(bytes),
        }
    }

    /// The digest of all that was added.
    pub fn finish(self) -> Digest {
        match self.0 {
            State::Sha256(hash) => Digest::sha256(&hash.finalize().into()),
            State::Sha512(hash) => {
                let hex: String = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
                format!("sha512:{hex}").parse().expect("128 hexadecimal digits are a sha512 digest")
            }
        }
    }

    /// The digest of `bytes`.
    pub fn digest_of(algorithm: &str, bytes: &[u8]) -> Digest {
        let mut hasher = Hasher::new(algorithm);
        hasher.update(bytes);
        hasher.finish()
    }
}
