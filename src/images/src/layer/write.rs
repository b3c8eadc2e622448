//! Writing archives: POSIX.1-2001 (pax), with an extended header only where a plain one can't say it, and always the same bytes for the same
//! entries: no access or change time, no names of users or groups, nothing of this machine.

use super::{Entry, Extent, Kind, Timestamp};
use std::io::{self, Write};

/// Bytes of a block.
const BLOCK: usize = 512;
/// What eleven and seven octal digits hold.
const MAX_11: u64 = 0o77_777_777_777;
const MAX_7: u64 = 0o7_777_777;

/// An archive being written to `W`.
pub struct Writer<W: Write> {
    out: W,
    /// Bytes of data that the current entry still needs.
    left: u64,
    padding: usize,
}

impl<W: Write> Writer<W> {
    /// An archive without entries yet.
    pub fn new(out: W) -> Writer<W> {
        Writer { out, left: 0, padding: 0 }
    }

    /// Begins an entry, whose [`Entry::offset`] has no meaning here. A regular file's data is to be written next: `size` bytes, or of a
    /// sparse file its extents, one after the other.
    ///
    /// # Errors
    /// The output's, and [`io::ErrorKind::InvalidInput`] for a name or text with a zero byte or none at all, and when data is missing.
    pub fn entry(&mut self, entry: &Entry) -> io::Result<()> {
        self.end_data()?;
        let mut header = Header { records: Vec::new(), block: [0; BLOCK] };
        let size = header.fill(entry)?;
        if let Some(records) = header.extended() {
            let base = entry.name.split(|b| *b == b'/').rfind(|part| !part.is_empty()).unwrap_or(b"x");
            let mut extended = Header { records: Vec::new(), block: [0; BLOCK] };
            let name = [b"PaxHeaders.0/", &base[..base.len().min(80)]].concat();
            extended.plain(&name, b'x', 0o644, records.len() as u64);
            extended.end();
            self.out.write_all(&extended.block)?;
            self.out.write_all(&records)?;
            self.out.write_all(&[0; BLOCK][..padding(records.len() as u64)])?;
        }
        self.out.write_all(&header.block)?;
        if let Kind::File { size: whole, extents: Some(extents) } = &entry.kind {
            self.out.write_all(&sparse_map(*whole, extents))?;
        }
        self.left = size;
        self.padding = padding(size);
        Ok(())
    }

    fn end_data(&mut self) -> io::Result<()> {
        if self.left > 0 {
            return Err(invalid(format!("{} bytes of the entry's data are missing", self.left)));
        }
        let padding = std::mem::take(&mut self.padding);
        self.out.write_all(&[0; BLOCK][..padding])
    }

    /// Bytes of data that the current entry still needs.
    pub fn left(&self) -> u64 {
        self.left
    }

    /// Ends the archive and returns the output.
    pub fn finish(mut self) -> io::Result<W> {
        self.end_data()?;
        self.out.write_all(&[0; 2 * BLOCK])?;
        Ok(self.out)
    }
}

impl<W: Write> Write for Writer<W> {
    /// The current entry's data.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if bytes.len() as u64 > self.left {
            return Err(invalid("more data than the entry has".to_owned()));
        }
        let n = self.out.write(bytes)?;
        self.left -= n as u64;
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

fn invalid(text: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, text)
}

fn padding(size: u64) -> usize {
    (BLOCK - (size % BLOCK as u64) as usize) % BLOCK
}

/// A header that is being filled, and what did not fit.
struct Header {
    records: Vec<(Vec<u8>, Vec<u8>)>,
    block: [u8; BLOCK],
}

impl Header {
    /// Returns how many bytes of data (without a sparse file's map) come after the header.
    fn fill(&mut self, entry: &Entry) -> io::Result<u64> {
        if entry.name.is_empty() || entry.name.contains(&0) {
            return Err(invalid("the name of an archive's entry is empty or has a zero byte".to_owned()));
        }
        let mut data = 0;
        let mut stored = 0;
        let (kind, link, device): (u8, &[u8], _) = match &entry.kind {
            Kind::File { size, extents: None } => {
                (data, stored) = (*size, *size);
                (b'0', b"", None)
            }
            Kind::File { size, extents: Some(extents) } => {
                data = extents.iter().map(|extent| extent.length).sum();
                stored = data + sparse_map(*size, extents).len() as u64;
                self.record("GNU.sparse.major", "1");
                self.record("GNU.sparse.minor", "0");
                self.records.push((b"GNU.sparse.name".to_vec(), entry.name.clone()));
                self.record("GNU.sparse.realsize", &size.to_string());
                (b'0', b"", None)
            }
            Kind::HardLink(to) => (b'1', to, None),
            Kind::Symlink(to) => (b'2', to, None),
            Kind::CharDevice(major, minor) => (b'3', b"", Some((*major, *minor))),
            Kind::BlockDevice(major, minor) => (b'4', b"", Some((*major, *minor))),
            Kind::Directory => (b'5', b"", None),
            Kind::Fifo => (b'6', b"", None),
        };
        if link.contains(&0) {
            return Err(invalid("the target of a link has a zero byte".to_owned()));
        }
        let sparse = matches!(&entry.kind, Kind::File { extents: Some(_), .. });
        let name = if sparse { sparse_name(&entry.name) } else { entry.name.clone() };
        self.plain(&name, kind, entry.mode & 0o7777, stored);
        self.bytes(157, 100, link, "linkpath");
        self.number(108, 8, u64::from(entry.uid), "uid");
        self.number(116, 8, u64::from(entry.gid), "gid");
        self.time(entry.mtime);
        if let Some((major, minor)) = device {
            self.number(329, 8, u64::from(major), "SCHILY.devmajor");
            self.number(337, 8, u64::from(minor), "SCHILY.devminor");
        }
        for xattr in &entry.xattrs {
            self.records.push(([b"SCHILY.xattr.", xattr.name.as_slice()].concat(), xattr.value.clone()));
        }
        self.end();
        Ok(data)
    }

    /// What every header has.
    fn plain(&mut self, name: &[u8], kind: u8, mode: u32, size: u64) {
        match split(name) {
            Some((prefix, rest)) => {
                self.block[..rest.len()].copy_from_slice(rest);
                self.block[345..345 + prefix.len()].copy_from_slice(prefix);
            }
            None => self.bytes(0, 100, name, "path"),
        }
        self.number(100, 8, u64::from(mode), "mode");
        self.number(108, 8, 0, "uid");
        self.number(116, 8, 0, "gid");
        self.number(124, 12, size, "size");
        self.number(136, 12, 0, "mtime");
        self.block[156] = kind;
        self.block[257..265].copy_from_slice(b"ustar\x0000");
    }

    /// The value if it fits, or a record.
    fn bytes(&mut self, at: usize, length: usize, value: &[u8], key: &str) {
        let fits = value.len().min(length);
        self.block[at..at + fits].copy_from_slice(&value[..fits]);
        if value.len() > length {
            self.records.push((key.as_bytes().to_vec(), value.to_vec()));
        }
    }

    fn number(&mut self, at: usize, length: usize, value: u64, key: &str) {
        let most = if length == 12 { MAX_11 } else { MAX_7 };
        if value > most {
            self.record(key, &value.to_string());
        }
        let text = format!("{:0width$o}", if value > most { 0 } else { value }, width = length - 1);
        self.block[at..at + length - 1].copy_from_slice(text.as_bytes());
        self.block[at + length - 1] = 0;
    }

    /// Seconds, as Docker has them; a fraction is a record.
    fn time(&mut self, time: Timestamp) {
        let inside = u64::try_from(time.seconds).ok().filter(|seconds| *seconds <= MAX_11 && time.nanoseconds == 0);
        if inside.is_none() {
            self.record("mtime", &decimal(time));
        }
        let floor = u64::try_from(time.seconds).unwrap_or(0);
        self.number(136, 12, floor.min(MAX_11), "mtime");
    }

    fn record(&mut self, key: &str, value: &str) {
        self.records.push((key.as_bytes().to_vec(), value.as_bytes().to_vec()));
    }

    /// The checksum, which counts its own field as spaces.
    fn end(&mut self) {
        self.block[148..156].fill(b' ');
        let sum: u32 = self.block.iter().map(|b| u32::from(*b)).sum();
        self.block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    }

    /// The extended header's records, sorted.
    fn extended(&mut self) -> Option<Vec<u8>> {
        if self.records.is_empty() {
            return None;
        }
        self.records.sort_unstable();
        let mut text = Vec::new();
        for (key, value) in &self.records {
            // The length counts its own digits.
            let rest = key.len() + value.len() + 3;
            let mut length = rest + rest.to_string().len();
            length = rest + length.to_string().len();
            text.extend_from_slice(length.to_string().as_bytes());
            text.push(b' ');
            text.extend_from_slice(key);
            text.push(b'=');
            text.extend_from_slice(value);
            text.push(b'\n');
        }
        Some(text)
    }
}

/// A name of more than 100 bytes in two parts, at a slash, if it goes (POSIX ustar).
fn split(name: &[u8]) -> Option<(&[u8], &[u8])> {
    if name.len() <= 100 || name.len() > 256 {
        return None;
    }
    let at = (name.len() - 101..name.len().min(156)).find(|at| name[*at] == b'/' && *at > 0 && *at + 1 < name.len())?;
    Some((&name[..at], &name[at + 1..]))
}

fn decimal(time: Timestamp) -> String {
    let text = match (time.seconds, time.nanoseconds) {
        (seconds, 0) => return seconds.to_string(),
        (seconds, nanoseconds) if seconds >= 0 => format!("{seconds}.{nanoseconds:09}"),
        (seconds, nanoseconds) => {
            // The fraction comes on top of a negative number of seconds: -1 s + 0.25 s is -0.75 s.
            let (whole, fraction) = (-(seconds + 1), 1_000_000_000 - nanoseconds);
            format!("-{whole}.{fraction:09}")
        }
    };
    text.trim_end_matches('0').to_owned()
}

/// What a program that knows no sparse files calls one (GNU tar, "Storing Sparse Files", PAX format 1.0).
fn sparse_name(name: &[u8]) -> Vec<u8> {
    let base = name.rsplit(|b| *b == b'/').next().unwrap_or(name);
    [b"GNUSparseFile.0/", &base[..base.len().min(80)]].concat()
}

/// The map before a sparse file's data, in whole blocks. A hole at the end is an extent of nothing.
fn sparse_map(size: u64, extents: &[Extent]) -> Vec<u8> {
    let end = extents.last().map_or(0, |extent| extent.offset + extent.length);
    let last = (end < size).then_some(Extent { offset: size, length: 0 });
    let all: Vec<Extent> = extents.iter().copied().chain(last).collect();
    let mut map = format!("{}\n", all.len());
    for extent in all {
        map.push_str(&format!("{}\n{}\n", extent.offset, extent.length));
    }
    let mut map = map.into_bytes();
    map.resize(map.len() + padding(map.len() as u64), 0);
    map
}

#[cfg(test)]
mod tests {
    use super::super::{Reader, Xattr};
    use super::*;

    fn file(name: impl Into<Vec<u8>>, size: u64) -> Entry {
        Entry::new(name, Kind::File { size, extents: None }, 0o644)
    }

    /// Writes, reads again, and compares; returns the archive.
    fn round(entries: &[(Entry, Vec<u8>)]) -> Vec<u8> {
        let mut writer = Writer::new(Vec::new());
        for (entry, data) in entries {
            writer.entry(entry).unwrap();
            writer.write_all(data).unwrap();
        }
        let archive = writer.finish().unwrap();
        assert_eq!(archive.len() % BLOCK, 0);
        let mut reader = Reader::new(archive.as_slice());
        for (entry, data) in entries {
            let mut found = reader.next_entry().unwrap().expect("an entry");
            found.offset = 0;
            assert_eq!(&found, entry);
            let mut read = Vec::new();
            loop {
                let part = reader.data().unwrap();
                if part.is_empty() {
                    break;
                }
                let n = part.len();
                read.extend_from_slice(part);
                reader.consume(n);
            }
            assert_eq!(&read, data);
        }
        assert_eq!(reader.next_entry().unwrap(), None);
        archive
    }

    #[test]
    fn what_is_written_is_read() {
        let long = |n: usize| ["directory"; 40].join("/").into_bytes()[..n].to_vec();
        let mut entries: Vec<(Entry, Vec<u8>)> = vec![
            (file("a", 3), b"abc".to_vec()),
            (file("exactly a block", 512), vec![7; 512]),
            (Entry::new("d/", Kind::Directory, 0o1777), vec![]),
            (Entry::new("l", Kind::Symlink(b"to/\xff".to_vec()), 0o777), vec![]),
            (Entry::new("l2", Kind::Symlink(long(300)), 0o777), vec![]),
            (Entry::new("h", Kind::HardLink(long(150)), 0o644), vec![]),
            (Entry::new("c", Kind::CharDevice(4_000, 1_000_000), 0o600), vec![]),
            (Entry::new("b", Kind::BlockDevice(8, 1), 0o600), vec![]),
            (Entry::new("p", Kind::Fifo, 0o644), vec![]),
            (file(b"not \xff utf-8".to_vec(), 0), vec![]),
        ];
        for n in [99, 100, 101, 155, 156, 254, 255, 256, 257, 359] {
            entries.push((file(long(n).strip_suffix(b"/").map_or(long(n), <[u8]>::to_vec), 1), b"x".to_vec()));
        }
        for (uid, seconds, nanoseconds) in
            [(0o7777777, -1, 0), (0o10000000, -1, 250_000_000), (u32::MAX - 1, 1 << 33, 0), (5, 1 << 34, 5), (6, -7, 1)]
        {
            let mut entry = file("owner", 0);
            (entry.uid, entry.gid, entry.mtime) = (uid, uid, Timestamp { seconds, nanoseconds });
            entries.push((entry, vec![]));
        }
        let mut entry = file("xattrs", 0);
        entry.xattrs = vec![
            Xattr { name: b"security.capability".to_vec(), value: vec![0, 0, 0, 2, 10, 61] },
            Xattr { name: b"user.long".to_vec(), value: vec![b'='; 5000] },
        ];
        entries.push((entry, vec![]));
        let first = round(&entries);
        assert_eq!(first, round(&entries), "the same bytes each time");
    }

    #[test]
    fn sparse_files_are_gnus() {
        let extents = vec![Extent { offset: 0, length: 4 }, Extent { offset: 1 << 20, length: 2 }];
        let entry = Entry::new("d/sparse", Kind::File { size: 1 << 40, extents: Some(extents) }, 0o644);
        let mut writer = Writer::new(Vec::new());
        writer.entry(&entry).unwrap();
        assert_eq!(writer.left(), 6);
        writer.write_all(b"abcdef").unwrap();
        let archive = writer.finish().unwrap();
        assert!(archive.len() < 8192);
        let mut reader = Reader::new(archive.as_slice());
        let found = reader.next_entry().unwrap().unwrap();
        let Kind::File { size, extents: Some(read) } = found.kind else { panic!("{found:?}") };
        assert_eq!((found.name.as_slice(), size), (&b"d/sparse"[..], 1 << 40));
        assert_eq!(read.iter().filter(|extent| extent.length > 0).count(), 2);
    }

    #[test]
    fn data_that_is_missing_or_too_much_is_an_error() {
        let mut writer = Writer::new(Vec::new());
        writer.entry(&file("a", 2)).unwrap();
        assert!(writer.write_all(b"abc").is_err());
        writer.write_all(b"a").unwrap();
        assert!(writer.entry(&file("b", 0)).unwrap_err().to_string().contains("1 bytes"));
        assert!(Writer::new(Vec::new()).entry(&file("", 0)).is_err());
        assert!(Writer::new(Vec::new()).entry(&file("a\0b", 0)).is_err());
    }
}
