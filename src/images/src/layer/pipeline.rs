//! A layer's way from its compressed bytes to disk: one thread inflates, one hashes what comes out, one writes files. Buffers go around:
//! the memory of a layer is a fixed number of them.

use super::compression::{Compression, Decoder};
use super::error::{Error, Place};
use super::options::{Options, Target};
use super::unpack::{Applied, apply};
use rrt_oci::image::Digest;
use sha2::{Digest as _, Sha256};
use std::io::{self, BufRead, Read};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread;

/// Bytes in a buffer: fewer than a core's second cache has.
const BUFFER: usize = 256 << 10;

/// Buffers that wait for a thread.
const WAITING: usize = 8;

/// From how many bytes on a ratio says something.
const RATIO_FROM: u64 = 64 << 20;

/// What a layer was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unpacked {
    /// The digest of the archive without compression: what an image's configuration calls it.
    pub diff_id: Digest,
    /// The digest of the compressed bytes, when [`Options::digest_input`] asked for it.
    pub digest: Option<Digest>,
    /// The length of the archive without compression, in bytes.
    pub size: u64,
    /// The length of the compressed bytes.
    pub compressed_size: u64,
    /// How it was compressed.
    pub compression: Compression,
    /// What was made of it.
    pub applied: Applied,
}

/// Unpacks a layer, compressed or not, into `target`, and hashes all of it on the way, also what follows the archive's end.
///
/// `compressed` may say `io::Error::other(Error::Cancelled)` at any time, which is how whoever waits is asked to stop. Nothing is synced: the
/// caller does it once for all layers.
///
/// # Errors
/// See [`Error`]. What was unpacked until then stays: the directory is worth nothing then. A `compressed` that waits for bytes, e.g. of a
/// registry, is waited for.
pub fn unpack<R: Read + Send>(compressed: R, target: &Target<'_>, options: &Options) -> Result<Unpacked, Error> {
    let buffers = Home::default();
    let (to_files, from_inflate) = sync_channel(WAITING);
    let (to_hash, from_inflate_too) = sync_channel::<Arc<Buffer>>(WAITING);
    thread::scope(|scope| {
        let spawn = |name: &str| thread::Builder::new().name(name.to_owned());
        let inflate = move || inflate(compressed, options.digest_input, &buffers, &to_files, &to_hash);
        let inflate = spawn("inflate").spawn_scoped(scope, inflate).map_err(Error::Read)?;
        let hash = spawn("hash").spawn_scoped(scope, move || hash(&from_inflate_too)).map_err(Error::Read)?;
        let chunks = Chunks { from: from_inflate, now: None, at: 0, total: 0, options };
        // When this fails it drops its end of the channel, which ends the others.
        let (applied, mut rest) = apply(chunks, target, options)?;
        rest.drain()?;
        let ended = || Error::Read(io::Error::other("a thread has ended too early"));
        let input = inflate.join().ok().flatten().ok_or_else(ended)?;
        let diff_id = hash.join().map_err(|_| ended())?;
        let (size, compressed_size) = (rest.total, input.size);
        let Input { digest, compression, .. } = input;
        Ok(Unpacked { diff_id, digest, size, compressed_size, compression, applied })
    })
}

/// Part of the archive. When nobody has it any more its memory goes back to the others.
struct Buffer {
    data: Vec<u8>,
    /// How much of it is filled.
    length: usize,
    /// Compressed bytes up to its end.
    compressed: u64,
    home: Home,
}

type Home = Arc<Mutex<Vec<Vec<u8>>>>;

impl Drop for Buffer {
    fn drop(&mut self) {
        if let Ok(mut home) = self.home.lock() {
            home.push(std::mem::take(&mut self.data));
        }
    }
}

type ToFiles = SyncSender<Result<Arc<Buffer>, Error>>;

/// What is known when all has been inflated.
struct Input {
    size: u64,
    digest: Option<Digest>,
    compression: Compression,
}

/// The first thread. `None`: the thread that writes files has ended, or was told why this one can't go on.
fn inflate<R: Read>(
    compressed: R,
    digest: bool,
    home: &Home,
    to_files: &ToFiles,
    to_hash: &SyncSender<Arc<Buffer>>,
) -> Option<Input> {
    let tell = |error| {
        // When nobody listens the layer has failed already.
        let _ = to_files.send(Err(error));
    };
    let mut decoder = Decoder::new(compressed, digest).map_err(tell).ok()?;
    loop {
        let free = home.lock().ok().and_then(|mut home| home.pop());
        let mut data = free.unwrap_or_else(|| vec![0; BUFFER]);
        let length = decoder.fill(&mut data).map_err(tell).ok()?;
        let (size, digest) = decoder.input();
        if length == 0 {
            let digest = digest.map(|hash| Digest::sha256(&hash.finalize().into()));
            return Some(Input { size, digest, compression: decoder.compression() });
        }
        let buffer = Arc::new(Buffer { data, length, compressed: size, home: Arc::clone(home) });
        to_hash.send(Arc::clone(&buffer)).ok()?;
        to_files.send(Ok(buffer)).ok()?;
    }
}

/// The second thread.
fn hash(buffers: &Receiver<Arc<Buffer>>) -> Digest {
    let mut hash = Sha256::new();
    for buffer in buffers {
        hash.update(&buffer.data[..buffer.length]);
    }
    Digest::sha256(&hash.finalize().into())
}

/// The archive, as the third thread reads it.
struct Chunks<'a> {
    from: Receiver<Result<Arc<Buffer>, Error>>,
    now: Option<Arc<Buffer>>,
    /// Bytes of `now` that are behind us.
    at: usize,
    total: u64,
    options: &'a Options,
}

impl Chunks<'_> {
    /// Reads what follows the archive's end, so that it is hashed.
    fn drain(&mut self) -> Result<(), Error> {
        loop {
            match self.fill_buf().map_err(Error::from_input)?.len() {
                0 => return Ok(()),
                length => self.consume(length),
            }
        }
    }

    fn limits(&self, compressed: u64) -> Result<(), Error> {
        let Options { max_size, max_ratio, .. } = self.options;
        let problem = match max_ratio {
            _ if self.total > *max_size => format!("the layer has more than {max_size} bytes without compression"),
            Some(ratio) if self.total >= RATIO_FROM && self.total / ratio > compressed => {
                format!("the layer has more than {ratio} times its compressed bytes")
            }
            _ => return Ok(()),
        };
        Err(Error::Limit { place: Place::default(), problem })
    }
}

impl Read for Chunks<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let data = self.fill_buf()?;
        let length = data.len().min(buffer.len());
        buffer[..length].copy_from_slice(&data[..length]);
        self.consume(length);
        Ok(length)
    }
}

impl BufRead for Chunks<'_> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.now.as_ref().is_none_or(|now| self.at == now.length) {
            // Back to the others before waiting for more.
            self.now = None;
            self.at = 0;
            // A sender that is gone has sent all, or the error that was received here before.
            if let Ok(next) = self.from.recv() {
                let next = next.map_err(io::Error::other)?;
                self.total += next.length as u64;
                self.limits(next.compressed).map_err(io::Error::other)?;
                self.now = Some(next);
            }
        }
        Ok(self.now.as_ref().map_or(&[], |now| &now.data[self.at..now.length]))
    }

    fn consume(&mut self, amount: usize) {
        self.at += amount;
    }
}
