//! A file's data, from the archive to disk.

use super::disk::{Failure, doing};
use super::entry::Extent;
use super::error::Error;
use super::read::Reader;
use rustix::io::{Errno, ReadWriteFlags};
use std::fs::File;
use std::io::{self, BufRead, IoSlice};
use std::os::unix::fs::FileExt;

/// Files of this length and more are written past the page cache.
///
/// With RWF_DONTCACHE (Linux 6.14) the kernel starts to write pages to disk at once and takes them back when they are there. A pull then needs
/// no gigabyte of fresh memory, throws nobody else's files out of it, and leaves the sync at its end nothing to do. Many small files have
/// little data, and asking for each to be written at once costs more than it saves.
const UNCACHED_FROM: u64 = 256 << 10;

/// linux/fs.h; rustix has no name for it yet.
const RWF_DONTCACHE: ReadWriteFlags = ReadWriteFlags::from_bits_retain(0x80);

/// What is written at once ends at a multiple of this: a page of which one part comes later would be read back for it.
const PAGE: usize = 4096;

/// Writes the data of files.
#[derive(Debug)]
pub(super) struct Data {
    /// The kernel and the file system know [`RWF_DONTCACHE`], as far as we know.
    uncached: bool,
}

impl Data {
    pub fn new() -> Data {
        Data { uncached: true }
    }

    /// All data of an entry that is not sparse.
    pub fn whole<R: BufRead>(
        &mut self,
        file: &File,
        size: u64,
        reader: &mut Reader<R>,
        failed: impl Fn(Failure) -> Error,
    ) -> Result<(), Error> {
        if size >= UNCACHED_FROM && self.uncached {
            return self.large(file, reader, failed);
        }
        let mut offset = 0;
        loop {
            let data = reader.data()?;
            if data.is_empty() {
                return Ok(());
            }
            let length = data.len();
            file.write_all_at(data, offset).map_err(|e| failed(doing("write")(e)))?;
            reader.consume(length);
            offset += length as u64;
        }
    }

    fn large<R: BufRead>(
        &mut self,
        file: &File,
        reader: &mut Reader<R>,
        failed: impl Fn(Failure) -> Error,
    ) -> Result<(), Error> {
        let mut offset = 0;
        // The beginning of a page whose rest is in the next buffer.
        let mut begun = [0; PAGE];
        let mut begun_length = 0;
        loop {
            let data = reader.data()?;
            if data.is_empty() {
                break;
            }
            let length = data.len();
            let pages = (begun_length + length) / PAGE * PAGE;
            // Of no page, it is all kept.
            let written = pages.saturating_sub(begun_length);
            if pages > 0 {
                self.write(file, &begun[..begun_length], &data[..written], offset)
                    .map_err(|e| failed(doing("write")(e)))?;
                offset += pages as u64;
                begun_length = 0;
            }
            let rest = &data[written..];
            begun[begun_length..begun_length + rest.len()].copy_from_slice(rest);
            begun_length += rest.len();
            reader.consume(length);
        }
        self.write(file, &begun[..begun_length], &[], offset).map_err(|e| failed(doing("write")(e)))
    }

    fn write(&mut self, file: &File, first: &[u8], second: &[u8], offset: u64) -> io::Result<()> {
        let mut written = 0;
        if self.uncached {
            let both = [IoSlice::new(first), IoSlice::new(second)];
            written = match rustix::io::pwritev2(file, &both, offset, RWF_DONTCACHE) {
                Ok(written) => written,
                Err(Errno::INTR) => 0,
                Err(Errno::OPNOTSUPP | Errno::INVAL | Errno::NOSYS) => {
                    self.uncached = false;
                    0
                }
                Err(error) => return Err(error.into()),
            };
        }
        // What a short write, at the end of a disk's space, has left.
        let first_left = &first[written.min(first.len())..];
        file.write_all_at(first_left, offset + written.min(first.len()) as u64)?;
        let begin = written.saturating_sub(first.len());
        file.write_all_at(&second[begin..], offset + (first.len() + begin) as u64)
    }
}

/// The data of a sparse entry; between its extents are holes.
pub(super) fn sparse<R: BufRead>(
    file: &File,
    size: u64,
    extents: &[Extent],
    reader: &mut Reader<R>,
    failed: impl Fn(Failure) -> Error,
) -> Result<(), Error> {
    for extent in extents {
        let (mut offset, end) = (extent.offset, extent.offset + extent.length);
        while offset < end {
            let data = reader.data()?;
            let length = data.len().min(usize::try_from(end - offset).unwrap_or(usize::MAX));
            file.write_all_at(&data[..length], offset).map_err(|e| failed(doing("write")(e)))?;
            reader.consume(length);
            offset += length as u64;
        }
    }
    rustix::fs::ftruncate(file, size).map_err(|e| failed(doing("set the size with holes")(e)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layer::{Entry, Kind, Writer};
    use std::io::Write;

    /// Data that tells where it stands, read in pieces of every length.
    #[test]
    fn pages_are_whole_whatever_the_pieces() {
        let data: Vec<u8> = (0..300_000_u32).flat_map(|i| (i * 7).to_le_bytes()).collect();
        let mut archive = Vec::new();
        let mut writer = Writer::new(&mut archive);
        let kind = Kind::File { size: data.len() as u64, extents: None };
        writer.entry(&Entry::new("f", kind, 0o644)).unwrap();
        writer.write_all(&data).unwrap();
        writer.finish().unwrap();
        let path = std::env::temp_dir().join(format!("berth-data-{}", std::process::id()));
        for piece in [100, 4095, 4096, 4097, 65_536, 1 << 20] {
            for uncached in [true, false] {
                let mut reader = Reader::new(io::BufReader::with_capacity(piece, archive.as_slice()));
                let entry = reader.next_entry().unwrap().unwrap();
                assert_eq!(entry.name, b"f");
                let file = File::create(&path).unwrap();
                let mut writing = Data { uncached };
                let failed = |f: Failure| Error::Read(f.source);
                writing.whole(&file, data.len() as u64, &mut reader, failed).unwrap();
                assert!(std::fs::read(&path).unwrap() == data, "{piece} {uncached}");
            }
        }
        std::fs::remove_file(path).unwrap();
    }
}
