//! Why a layer could not be read or unpacked.

use std::fmt;
use std::io;

/// Why a layer could not be read or unpacked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The archive breaks its format, or says something that no layer may.
    #[error("{place}: {problem}")]
    Archive {
        /// The entry.
        place: Place,
        /// What is wrong, and what would be right.
        problem: String,
    },
    /// The layer exceeds a limit of [`Options`](super::Options).
    #[error("{place}: {problem}")]
    Limit {
        /// The entry at which it was exceeded.
        place: Place,
        /// Which, and how to raise it.
        problem: String,
    },
    /// A call that makes the entry's file failed: no space, no permission, a name that the file system can't have.
    #[error("{place}: {doing}: {source}")]
    Write {
        /// The entry.
        place: Place,
        /// The call, with what it was called for.
        doing: String,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The layer's bytes could not be read.
    #[error("reading the layer: {0}")]
    Read(#[source] io::Error),
    /// What the compressed bytes say is not what its magic number promised.
    #[error("{0}")]
    Compression(String),
    /// Somebody asked to stop.
    #[error("cancelled")]
    Cancelled,
}

impl Error {
    /// From an input that may carry an [`Error`] of this module through [`io::Read`].
    pub(super) fn from_input(error: io::Error) -> Error {
        match error.downcast::<Error>() {
            Ok(error) => error,
            Err(error) => Error::Read(error),
        }
    }
}

/// An entry of an archive, as messages name it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// Its name; empty when the header itself can't be read.
    pub entry: Vec<u8>,
    /// Where its first header is, in bytes of the archive without compression.
    pub offset: u64,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.entry.is_empty() {
            true => write!(f, "archive header at offset {}", self.offset),
            false => write!(f, "entry {} at offset {}", Printed(&self.entry), self.offset),
        }
    }
}

/// A name from outside, quoted and escaped, so that it can't write to a terminal what it likes; the middle of a long one is left out.
pub(super) struct Printed<'a>(pub &'a [u8]);

impl fmt::Display for Printed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 200;
        let name = self.0;
        if name.len() <= 2 * SHOWN {
            return write!(f, "{:?}", String::from_utf8_lossy(name));
        }
        let (head, tail) =
            (String::from_utf8_lossy(&name[..SHOWN]), String::from_utf8_lossy(&name[name.len() - SHOWN..]));
        write!(f, "{:?}", format!("{head}[…{} bytes…]{tail}", name.len() - 2 * SHOWN))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_escaped_and_cut() {
        let place = |entry: &[u8]| Place { entry: entry.to_vec(), offset: 512 }.to_string();
        assert_eq!(place(b""), "archive header at offset 512");
        assert_eq!(place(b"a\x1b[2Jb\n"), r#"entry "a\u{1b}[2Jb\n" at offset 512"#);
        assert!(place(&[b'x'; 4000]).len() < 500);
    }
}
