//! Compression, told by the first bytes: whatever a media type promised, Docker and containerd look at these too.

use super::error::Error;
use flate2::{Decompress, FlushDecompress, Status};
use sha2::{Digest, Sha256};
use std::fmt;
use std::io::{self, BufRead, BufReader, Cursor, Read};

/// Compressed bytes that are read at once.
const INPUT: usize = 128 << 10;

/// How an archive is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// Not at all.
    None,
    /// Gzip (RFC 1952), one member or several.
    Gzip,
    /// Zstandard (RFC 8878), one frame or several, skippable ones too.
    Zstd,
}

impl fmt::Display for Compression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Compression::None => "uncompressed",
            Compression::Gzip => "gzip",
            Compression::Zstd => "zstd",
        })
    }
}

impl Compression {
    /// Of something that begins with these bytes; ten are enough.
    ///
    /// # Errors
    /// For bzip2 and xz, which Docker can load but no registry has.
    pub fn of(begin: &[u8]) -> Result<Compression, Error> {
        let is = |magic: &[u8]| begin.starts_with(magic);
        let unsupported = |name| {
            Err(Error::Compression(format!(
                "the layer is compressed with {name}, which is not supported: compress it with gzip or zstd"
            )))
        };
        match begin {
            _ if is(b"\x1f\x8b\x08") => Ok(Compression::Gzip),
            _ if is(b"\x28\xb5\x2f\xfd") => Ok(Compression::Zstd),
            // A skippable frame is also a beginning: zstd:chunked and pzstd have them.
            [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Ok(Compression::Zstd),
            _ if is(b"BZh") => unsupported("bzip2"),
            _ if is(b"\xfd7zXZ\0") => unsupported("xz"),
            _ => Ok(Compression::None),
        }
    }
}

/// Reads the archive that a possibly compressed stream has.
pub(super) enum Decoder<R: Read> {
    None(Input<R>),
    Gzip(Gzip<R>),
    Zstd(Box<zstd::Decoder<'static, Input<R>>>),
}

/// The stream with its first bytes put back.
type Input<R> = BufReader<io::Chain<Cursor<Vec<u8>>, Marked<R>>>;

impl<R: Read> Decoder<R> {
    /// With `digest` the compressed bytes are hashed.
    pub fn new(compressed: R, digest: bool) -> Result<Decoder<R>, Error> {
        let mut compressed = Marked { input: compressed, size: 0, hash: digest.then(Sha256::new) };
        let mut begin = Vec::new();
        (&mut compressed).take(10).read_to_end(&mut begin).map_err(Error::from_input)?;
        let compression = Compression::of(&begin)?;
        let input = BufReader::with_capacity(INPUT, Cursor::new(begin).chain(compressed));
        Ok(match compression {
            Compression::None => Decoder::None(input),
            Compression::Gzip => Decoder::Gzip(Gzip { input, member: None, padding: false }),
            Compression::Zstd => Decoder::Zstd(Box::new(zstd::Decoder::with_buffer(input).map_err(Error::Read)?)),
        })
    }

    pub fn compression(&self) -> Compression {
        match self {
            Decoder::None(_) => Compression::None,
            Decoder::Gzip(_) => Compression::Gzip,
            Decoder::Zstd(_) => Compression::Zstd,
        }
    }

    /// How many compressed bytes were read, and their hash so far.
    pub fn input(&self) -> (u64, Option<Sha256>) {
        let input = match self {
            Decoder::None(input) => input,
            Decoder::Gzip(gzip) => &gzip.input,
            Decoder::Zstd(decoder) => decoder.get_ref(),
        };
        let marked = input.get_ref().get_ref().1;
        (marked.size, marked.hash.clone())
    }

    /// Fills the buffer, unless the archive ends before. Says how much.
    pub fn fill(&mut self, buffer: &mut [u8]) -> Result<usize, Error> {
        let mut have = 0;
        while have < buffer.len() {
            let rest = &mut buffer[have..];
            let read = match self {
                Decoder::None(input) => input.read(rest),
                Decoder::Gzip(gzip) => gzip.read(rest),
                Decoder::Zstd(decoder) => decoder.read(rest),
            };
            match read {
                Ok(0) => break,
                Ok(length) => have += length,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(self.broken(error)),
            }
        }
        Ok(have)
    }

    fn broken(&self, error: io::Error) -> Error {
        match error.downcast::<Error>() {
            Ok(error) => error,
            Err(error) => Error::Compression(format!("the layer's {} data is damaged: {error}", self.compression())),
        }
    }
}

/// Counts and hashes an input, and gives its errors a type, so that they are not taken for those of the data.
pub(super) struct Marked<R> {
    input: R,
    size: u64,
    hash: Option<Sha256>,
}

impl<R: Read> Read for Marked<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.input.read(buffer).map_err(|error| match error.kind() {
            io::ErrorKind::Interrupted => error,
            _ => io::Error::other(Error::from_input(error)),
        })?;
        self.size += length as u64;
        if let Some(hash) = &mut self.hash {
            hash.update(&buffer[..length]);
        }
        Ok(length)
    }
}

/// Members of gzip after each other, and zeros after the last as gzip(1) takes them.
///
/// Not flate2's own reader: zlib-rs checks header and checksum itself, which saves going over the data once more.
pub(super) struct Gzip<R: Read> {
    input: Input<R>,
    /// The member that is being read.
    member: Option<Decompress>,
    padding: bool,
}

impl<R: Read> Gzip<R> {
    /// At least one byte, unless the end is reached.
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let input = self.input.fill_buf()?;
            let Some(member) = &mut self.member else {
                let zeros = input.iter().take_while(|&&b| b == 0).count();
                match input.first() {
                    None => return Ok(0),
                    Some(0) => {
                        self.padding = true;
                        self.input.consume(zeros);
                    }
                    Some(0x1f) if !self.padding => self.member = Some(Decompress::new_gzip(15)),
                    Some(_) => return Err(io::Error::other("something that is not gzip follows its end")),
                }
                continue;
            };
            let ended = input.is_empty();
            let before = (member.total_in(), member.total_out());
            let status = member.decompress(input, buffer, FlushDecompress::None).map_err(io::Error::other)?;
            let read = (member.total_in() - before.0) as usize;
            let written = (member.total_out() - before.1) as usize;
            self.input.consume(read);
            match status {
                Status::StreamEnd => self.member = None,
                _ if ended && written == 0 => return Err(io::Error::other("it ends too early")),
                _ => {}
            }
            if written > 0 {
                return Ok(written);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn gzip(data: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(data).unwrap();
        encoder.finish().unwrap()
    }

    fn zstd(data: &[u8]) -> Vec<u8> {
        zstd::encode_all(data, 1).unwrap()
    }

    /// What is read, in pieces of 1000 bytes, from an input that gives 7 at a time.
    fn decoded(compressed: &[u8]) -> Result<Vec<u8>, String> {
        struct Slow<'a>(&'a [u8]);
        impl Read for Slow<'_> {
            fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
                let length = buffer.len().min(7);
                self.0.read(&mut buffer[..length])
            }
        }
        let mut decoder = Decoder::new(Slow(compressed), false).map_err(|e| e.to_string())?;
        let mut all = Vec::new();
        let mut buffer = [0; 1000];
        loop {
            match decoder.fill(&mut buffer).map_err(|e| e.to_string())? {
                0 => return Ok(all),
                length => all.extend_from_slice(&buffer[..length]),
            }
        }
    }

    #[test]
    fn each_compression_is_told_by_its_first_bytes() {
        let data: Vec<u8> = (0..50_000_u32).flat_map(|i| (i * i).to_le_bytes()).collect();
        let skippable = [b"\x53\x2a\x4d\x18\x04\0\0\0abcd".as_slice(), &zstd(&data)].concat();
        for (what, compressed, times) in [
            ("none", data.clone(), 1),
            ("gzip", gzip(&data), 1),
            ("two members", [gzip(&data), gzip(b""), gzip(&data)].concat(), 2),
            ("gzip and zeros", [gzip(&data), vec![0; 700]].concat(), 1),
            ("zstd", zstd(&data), 1),
            ("two frames", [zstd(&data), zstd(&data)].concat(), 2),
            ("skippable", [skippable.clone(), skippable].concat(), 2),
        ] {
            assert!(decoded(&compressed).as_ref() == Ok(&data.repeat(times)), "{what}");
        }
        assert_eq!(decoded(b""), Ok(vec![]));
        assert_eq!(decoded(&gzip(b"")), Ok(vec![]));
    }

    #[test]
    fn damage_is_an_error() {
        let data = [7; 5000];
        for good in [gzip(&data), zstd(&data)] {
            for cut in 5..good.len() - 1 {
                assert!(decoded(&good[..cut]).unwrap_err().contains("is damaged"), "{cut}");
            }
            let garbage = [&good[..], b"garbage"].concat();
            assert!(decoded(&garbage).unwrap_err().contains("is damaged"));
        }
        let mut wrong = gzip(&data);
        let checksum = wrong.len() - 8;
        wrong[checksum] ^= 1;
        assert!(decoded(&wrong).unwrap_err().contains("is damaged"));
        assert!(decoded(b"\xfd7zXZ\0\0\0\0\0").unwrap_err().contains("xz, which is not supported"));
        assert!(decoded(b"BZh91AY&SY").unwrap_err().contains("bzip2"));
    }

    #[test]
    fn an_inputs_error_stays_its_own() {
        struct Failing;
        impl Read for Failing {
            fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
                Err(io::Error::other(Error::Cancelled))
            }
        }
        let compressed = gzip(&[7; 5000]);
        let mut decoder = Decoder::new((&compressed[..20]).chain(Failing), false).unwrap();
        assert!(matches!(decoder.fill(&mut [0; 10_000]), Err(Error::Cancelled)));
    }
}
