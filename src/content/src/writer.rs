//! Writing a blob: under another name, locked, hashed while it is written, and renamed when it is what it should be.

use crate::error::At;
use crate::parts::Parts;
use crate::{Error, Hasher, Lease, Store, create, lease, remove, step};
use rrt_oci::image::Digest;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::ops::Range;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// After so many bytes in several ranges their record is written anew.
const RECORD_EVERY: u64 = 4 << 20;

/// What [`Store::ingest`] finds.
#[derive(Debug)]
#[allow(clippy::large_enum_variant, reason = "there is one at a time, and it is taken apart at once")]
pub enum Ingest {
    /// The blob is there.
    Present,
    /// It is not: this writes it.
    Write(Writer),
}

/// A blob being written. Dropped without [`Writer::commit`] it leaves what has come for the next ingest of the same digest.
///
/// Written either in order, by `io::Write`, or in ranges, by [`Writer::write_at`] from several threads.
#[derive(Debug)]
pub struct Writer {
    store: Store,
    lease: Lease,
    file: File,
    path: PathBuf,
    /// The digest that it must have, if that is known.
    target: Option<Digest>,
    /// The file is in `tmp`, where no other ingest goes on with it.
    temporary: bool,
    size: Option<u64>,
    hasher: Hasher,
    /// So many bytes from the beginning are in `hasher`.
    hashed: u64,
    written: Mutex<Written>,
    /// Renamed, or removed.
    done: bool,
}

#[derive(Debug)]
struct Written {
    parts: Parts,
    /// The record of `parts` beside the file; only when there is, or was, more than one part.
    record: Option<File>,
    unrecorded: u64,
}

impl Store {
    /// Adds the digest to the lease; then says that the blob is there, or hands out its writer. While another process (or
    /// thread) writes the same blob this waits for it to commit or die. `size` is in bytes; [`Error::Size`] when the blob is
    /// there with another.
    pub fn ingest(&self, lease: &Lease, digest: &Digest, size: Option<u64>) -> Result<Ingest, Error> {
        lease.add(digest)?;
        let path = self.ingest_path(digest);
        loop {
            if self.has(digest) {
                return self.present(digest, size);
            }
            let file = create(&path)?;
            file.lock().at("lock", &path)?;
            step("ingest-locked");
            // Who had it may have renamed or removed it meanwhile.
            if !is_at(&file, &path)? {
                continue;
            }
            if self.has(digest) {
                remove(&path)?;
                continue;
            }
            return Writer::resume(self, lease, digest, size, file).map(Ingest::Write);
        }
    }

    fn present(&self, digest: &Digest, size: Option<u64>) -> Result<Ingest, Error> {
        let found = self.size(digest)?;
        match size {
            Some(expected) if expected != found => Err(Error::Size { name: digest.to_string(), expected, found }),
            _ => Ok(Ingest::Present),
        }
    }

    pub(crate) fn ingest_path(&self, digest: &Digest) -> PathBuf {
        self.root().join("ingest").join(format!("{}-{}", digest.algorithm(), digest.hex()))
    }

    /// Writes a whole blob (sha256), unless it is there.
    pub fn put(&self, lease: &Lease, bytes: &[u8]) -> Result<Digest, Error> {
        let digest = Hasher::digest_of("sha256", bytes);
        if let Ingest::Write(mut writer) = self.ingest(lease, &digest, Some(bytes.len() as u64))? {
            writer.truncate()?;
            writer.append(bytes)?;
            writer.commit()?;
        }
        Ok(digest)
    }

    /// A writer of content whose digest (sha256) is known only at the end. Dropped without commit it leaves nothing.
    pub fn writer(&self, lease: &Lease) -> Result<Writer, Error> {
        // As for a new lease: no sweeper sees it before it is locked.
        let _shared = self.shared()?;
        let path = self.root().join("tmp").join(lease::unique());
        let file = create(&path)?;
        file.lock().at("lock", &path)?;
        Ok(Writer::new(self, lease, file, path, None))
    }
}

impl Writer {
    fn new(store: &Store, lease: &Lease, file: File, path: PathBuf, target: Option<&Digest>) -> Writer {
        Writer {
            store: store.clone(),
            lease: lease.clone(),
            file,
            path,
            target: target.cloned(),
            temporary: target.is_none(),
            size: None,
            hasher: Hasher::new(target.map_or("sha256", Digest::algorithm)),
            hashed: 0,
            written: Mutex::new(Written { parts: Parts::default(), record: None, unrecorded: 0 }),
            done: false,
        }
    }

    /// Goes on with what is in the locked file.
    fn resume(store: &Store, lease: &Lease, digest: &Digest, size: Option<u64>, file: File) -> Result<Writer, Error> {
        let path = store.ingest_path(digest);
        let mut writer = Writer::new(store, lease, file, path, Some(digest));
        writer.size = size;
        let length = writer.file.metadata().at("look at", &writer.path)?.len();
        if size.is_some_and(|size| length > size) || length == 0 {
            writer.truncate()?;
            return Ok(writer);
        }
        let record = record_path(&writer.path);
        let mut text = String::new();
        let written = writer.written.get_mut().unwrap_or_else(PoisonError::into_inner);
        match lease::open_if_there(&record)? {
            Some(mut file) => {
                file.read_to_string(&mut text).at("read", &record)?;
                written.parts = Parts::of_record(&text, length);
                written.open_record(&record)?;
            }
            None => written.parts = Parts::up_to(length),
        }
        Ok(writer)
    }

    /// So many bytes from the beginning are there: go on here. More than 0 after a cut download.
    pub fn offset(&self) -> u64 {
        self.written().parts.prefix()
    }

    /// Of `size` bytes, which are not there yet: what to get by [`Writer::write_at`].
    pub fn missing(&self, size: u64) -> Vec<Range<u64>> {
        self.written().parts.missing(size)
    }

    /// Drops what is there: the server can't go on, so all comes anew.
    pub fn truncate(&mut self) -> Result<(), Error> {
        self.file.set_len(0).at("truncate", &self.path)?;
        remove(&record_path(&self.path))?;
        self.hasher = Hasher::new(self.algorithm());
        self.hashed = 0;
        *self.written.get_mut().unwrap_or_else(PoisonError::into_inner) =
            Written { parts: Parts::default(), record: None, unrecorded: 0 };
        Ok(())
    }

    /// Writes on at [`Writer::offset`], hashing. [`Error::Size`] as soon as it is more than was announced.
    pub fn append(&mut self, bytes: &[u8]) -> Result<(), Error> {
        let at = self.offset();
        self.check_room(at, bytes)?;
        self.file.write_all_at(bytes, at).at("write", &self.path)?;
        step("ingest-written");
        self.hash_up_to(at)?;
        self.hasher.update(bytes);
        self.hashed = at + bytes.len() as u64;
        self.note(at..self.hashed)
    }

    /// Writes a range, from any thread. The blob is hashed at the end, by reading it again.
    pub fn write_at(&self, bytes: &[u8], at: u64) -> Result<(), Error> {
        self.check_room(at, bytes)?;
        {
            let mut written = self.written();
            // Before the file is longer than what it has.
            if written.record.is_none() {
                written.open_record(&record_path(&self.path))?;
            }
        }
        self.file.write_all_at(bytes, at).at("write", &self.path)?;
        step("ingest-range-written");
        self.note(at..at + bytes.len() as u64)
    }

    /// The lease that holds it.
    pub fn lease(&self) -> Lease {
        self.lease.clone()
    }

    /// The digest that it must have, when it is known only now: [`Writer::commit`] verifies it.
    pub fn expect(&mut self, digest: &Digest) {
        if self.algorithm() != digest.algorithm() {
            (self.hasher, self.hashed) = (Hasher::new(digest.algorithm()), 0);
        }
        self.target = Some(digest.clone());
    }

    /// Waits until what is written is on the disk: for a blob that gets a name without [`Store::sync`].
    pub fn sync(&self) -> Result<(), Error> {
        self.file.sync_data().at("sync", &self.path)
    }

    /// The file, to read what is there while more is written.
    pub fn reader(&self) -> Result<File, Error> {
        File::open(&self.path).at("open", &self.path)
    }

    /// Verifies digest and size, and gives the blob its name. Wrong content ([`Error::Digest`]) is deleted; what is short
    /// ([`Error::Size`]) stays for the next ingest.
    pub fn commit(mut self) -> Result<Digest, Error> {
        let (prefix, end) = (self.offset(), self.written().parts.end());
        let expected = self.size.unwrap_or(end);
        if prefix != expected {
            return Err(Error::Size { name: self.name(), expected, found: prefix });
        }
        self.hash_up_to(prefix)?;
        // A write that failed half-way and was not repeated may have left more.
        self.file.set_len(prefix).at("truncate", &self.path)?;
        let found = self.hasher.clone().finish();
        if let Some(expected) = self.target.clone().filter(|expected| *expected != found) {
            self.truncate()?;
            return Err(Error::Digest { expected, found });
        }
        self.lease.add(&found)?;
        step("commit-verified");
        if self.temporary && self.store.has(&found) {
            return Ok(found);
        }
        // The record first: a file without one is taken as whole from its beginning, which this is.
        self.written().record = None;
        remove(&record_path(&self.path))?;
        step("commit-recordless");
        let blob = self.store.path(&found);
        fs::rename(&self.path, &blob).at("rename to", &blob)?;
        self.done = true;
        step("commit-renamed");
        Ok(found)
    }

    fn algorithm(&self) -> &str {
        self.target.as_ref().map_or("sha256", Digest::algorithm)
    }

    fn written(&self) -> MutexGuard<'_, Written> {
        self.written.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn name(&self) -> String {
        self.target.as_ref().map_or_else(|| self.path.display().to_string(), Digest::to_string)
    }

    fn check_room(&self, at: u64, bytes: &[u8]) -> Result<(), Error> {
        let end = at.saturating_add(bytes.len() as u64);
        match self.size {
            Some(expected) if end > expected => Err(Error::Size { name: self.name(), expected, found: end }),
            _ => Ok(()),
        }
    }

    /// Notes that a range is written.
    fn note(&self, range: Range<u64>) -> Result<(), Error> {
        let mut written = self.written();
        written.unrecorded += range.end - range.start;
        written.parts.add(range);
        match written.record.is_some() && written.unrecorded >= RECORD_EVERY {
            true => written.save(&record_path(&self.path)),
            false => Ok(()),
        }
    }

    /// Hashes from the file what was not hashed while it was written.
    fn hash_up_to(&mut self, end: u64) -> Result<(), Error> {
        if self.hashed == end {
            return Ok(());
        }
        let mut buffer = vec![0; 1 << 20];
        while self.hashed < end {
            let most = buffer.len().min((end - self.hashed) as usize);
            let part = &mut buffer[..most];
            self.file.read_exact_at(part, self.hashed).at("read", &self.path)?;
            self.hasher.update(part);
            self.hashed += most as u64;
        }
        Ok(())
    }
}

impl Written {
    fn open_record(&mut self, path: &Path) -> Result<(), Error> {
        let mut options = OpenOptions::new();
        self.record = Some(options.append(true).create(true).mode(0o600).open(path).at("open", path)?);
        self.save(path)
    }

    fn save(&mut self, path: &Path) -> Result<(), Error> {
        self.unrecorded = 0;
        let Some(record) = &mut self.record else { return Ok(()) };
        record.write_all(self.parts.line().as_bytes()).at("write", path)
    }
}

impl Write for Writer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.append(bytes)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        if self.done {
            return;
        }
        let path = record_path(&self.path);
        let empty = self.written().parts.end() == 0;
        if self.temporary || empty {
            let _ = remove(&self.path);
            let _ = remove(&path);
        } else {
            let _ = self.written().save(&path);
        }
    }
}

/// Beside the file, the record of its parts.
pub(crate) fn record_path(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".parts");
    name.into()
}

/// Is the open file the one that has this name now?
fn is_at(file: &File, path: &Path) -> Result<bool, Error> {
    let open = file.metadata().at("look at", path)?;
    match fs::metadata(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
        found => found.at("look at", path).map(|named| (named.dev(), named.ino()) == (open.dev(), open.ino())),
    }
}
