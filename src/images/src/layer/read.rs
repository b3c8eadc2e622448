//! The archive reader: headers, extended headers and data, in one pass and with bounded memory.
//!
//! It is our own, and not the `tar` crate under it, because a layer has to be read exactly as Docker, containerd and podman read it (all
//! three use Go's archive/tar): one that is cut off, or whose size is said twice, must not show other files here than there. The rules are
//! small: the last extended header before an entry counts, a size in it is the size, both for the data and for what is skipped.

use super::entry::{Entry, Extent, Kind};
use super::error::{Error, Place};
use super::header::{BLOCK, Block, Dialect, Header, Problem};
use super::pax::{self, EXTENTS_MAX, Pax, SparseMap};
use std::io::{self, BufRead, Read};

/// Bytes that one extended header may have, as in Go.
const EXTENDED_MAX: u64 = 1 << 20;

/// Bytes that a name or a link's text may have: what the kernel takes as one path (PATH_MAX with its zero).
pub const NAME_MAX: usize = 4095;

/// Reads the entries of an archive without compression, one after the other, and the data of each (it is [`Read`]).
///
/// Global extended headers are read and have no effect, as with Docker and containerd. After the end of the archive, which is two blocks of
/// zeros or the end of the input where a header could be, the input may have more bytes, which are not looked at.
#[derive(Debug)]
pub struct Reader<R> {
    input: R,
    /// Bytes of the input that are behind us.
    offset: u64,
    /// Bytes of the entry's data that are not, and the padding after them.
    data: u64,
    padding: u64,
    ended: bool,
    /// The entry that the data belongs to.
    place: Place,
}

/// What stands before an entry's own header.
#[derive(Default)]
struct Extended {
    pax: Pax,
    long_name: Option<Vec<u8>>,
    long_link: Option<Vec<u8>>,
}

impl<R: BufRead> Reader<R> {
    /// Reads the archive that `input` is. Data is handed out as `input` buffers it: its buffer should be large.
    pub fn new(input: R) -> Reader<R> {
        Reader { input, offset: 0, data: 0, padding: 0, ended: false, place: Place::default() }
    }

    /// The next entry; what is left of the data of the one before is skipped. `None` at the archive's end.
    ///
    /// # Errors
    /// [`Error::Archive`] for what no layer may have; [`Error::Read`] when the input fails. Afterwards the archive can't be read on.
    pub fn next_entry(&mut self) -> Result<Option<Entry>, Error> {
        if self.ended {
            return Ok(None);
        }
        self.skip_data()?;
        let begin = self.offset;
        let mut before = Extended::default();
        while !self.ended {
            let at = self.offset;
            self.place = Place { entry: Vec::new(), offset: at };
            let Some(block) = self.header()? else { break };
            let header = block.parse().map_err(|problem| self.bad(problem))?;
            match header.type_flag {
                b'x' => before.pax = Pax::parse(&self.extended(&header)?).map_err(|problem| self.bad(problem))?,
                b'g' => {
                    // Its records are checked and dropped, with what stood before it, as Go's reader does.
                    Pax::parse(&self.extended(&header)?).map_err(|problem| self.bad(problem))?;
                    before = Extended::default();
                }
                b'L' => before.long_name = Some(until_zero(self.extended(&header)?)),
                b'K' => before.long_link = Some(until_zero(self.extended(&header)?)),
                _ => return self.entry(begin, &block, header, before).map(Some),
            }
        }
        self.ended = true;
        Ok(None)
    }

    /// What of the entry's stored data is buffered, read first if nothing is; empty at the data's end. For a sparse file the stored data is
    /// that of its extents, one after the other.
    ///
    /// # Errors
    /// [`Error::Archive`] when the archive ends in the data, [`Error::Read`] when the input fails.
    pub fn data(&mut self) -> Result<&[u8], Error> {
        if self.data == 0 {
            return Ok(&[]);
        }
        // Twice, because what the first call returns can't be returned in one branch and dropped in the other.
        if fill(&mut self.input, &self.place)?.is_empty() {
            return Err(self.bad(format!("the archive ends {} bytes before the end of its data", self.data)));
        }
        let buffered = fill(&mut self.input, &self.place)?;
        let length = buffered.len().min(usize::try_from(self.data).unwrap_or(usize::MAX));
        Ok(&buffered[..length])
    }

    /// Takes `amount` bytes of what [`Reader::data`] returned.
    pub fn consume(&mut self, amount: usize) {
        debug_assert!(amount as u64 <= self.data, "more than data() returned");
        self.input.consume(amount);
        self.offset += amount as u64;
        self.data -= amount as u64;
    }

    /// Bytes of the input that have been read as archive.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// The input, which may have bytes after the archive's end.
    pub fn into_inner(self) -> R {
        self.input
    }

    /// The current entry, for messages.
    pub fn place(&self) -> &Place {
        &self.place
    }

    fn bad(&self, problem: impl Into<Problem>) -> Error {
        Error::Archive { place: self.place.clone(), problem: problem.into() }
    }

    fn skip_data(&mut self) -> Result<(), Error> {
        loop {
            match self.data()?.len() {
                0 => break,
                length => self.consume(length),
            }
        }
        while self.padding > 0 {
            let length = fill(&mut self.input, &self.place)?.len().min(self.padding as usize);
            if length == 0 {
                // Some writers don't pad the last entry.
                self.ended = true;
                break;
            }
            self.input.consume(length);
            self.offset += length as u64;
            self.padding -= length as u64;
        }
        Ok(())
    }

    /// The next block, as a header; `None` at the end of the archive.
    fn header(&mut self) -> Result<Option<Block>, Error> {
        let Some(block) = self.block()? else { return Ok(None) };
        if !block.is_zero() {
            return Ok(Some(block));
        }
        // One block of zeros at the very end is enough for everybody.
        match self.block()? {
            Some(second) if !second.is_zero() => {
                Err(self.bad("a header follows a single block of zeros; the end of an archive has two of them"))
            }
            _ => Ok(None),
        }
    }

    /// A whole block; `None` when nothing is left.
    fn block(&mut self) -> Result<Option<Block>, Error> {
        let mut block = Block([0; BLOCK]);
        let mut have = 0;
        while have < BLOCK {
            let buffered = fill(&mut self.input, &self.place)?;
            if buffered.is_empty() {
                break;
            }
            let length = buffered.len().min(BLOCK - have);
            block.0[have..have + length].copy_from_slice(&buffered[..length]);
            self.input.consume(length);
            have += length;
        }
        self.offset += have as u64;
        match have {
            0 => Ok(None),
            BLOCK => Ok(Some(block)),
            _ => Err(self.bad(format!("the archive ends after {have} of a header's {BLOCK} bytes"))),
        }
    }

    /// The content of an extended header.
    fn extended(&mut self, header: &Header) -> Result<Vec<u8>, Error> {
        let size = u64::try_from(header.size).unwrap_or(u64::MAX);
        if size > EXTENDED_MAX {
            return Err(self.bad(format!("an extended header says {} bytes; {EXTENDED_MAX} may be", header.size)));
        }
        self.expect_data(size);
        let mut content = Vec::with_capacity(size as usize);
        loop {
            let data = self.data()?;
            if data.is_empty() {
                break;
            }
            content.extend_from_slice(data);
            let length = data.len();
            self.consume(length);
        }
        self.skip_data()?;
        Ok(content)
    }

    /// From here `size` bytes of data follow.
    fn expect_data(&mut self, size: u64) {
        self.data = size;
        self.padding = size.next_multiple_of(BLOCK as u64) - size;
    }

    fn entry(&mut self, begin: u64, block: &Block, header: Header, before: Extended) -> Result<Entry, Error> {
        let Extended { mut pax, long_name, long_link } = before;
        let some = |text: Option<Vec<u8>>| text.filter(|t| !t.is_empty());
        let mut name = some(long_name).or(pax.path.take()).unwrap_or(header.name);
        let link = some(long_link).or(pax.link.take()).unwrap_or(header.link);
        self.place = Place { entry: name.clone(), offset: begin };
        let size = pax.size.unwrap_or(header.size);
        let kind = match header.type_flag {
            0 if name.ends_with(b"/") => Kind::Directory,
            0 | b'0' | b'7' => self.file(size, &mut pax, &mut name)?,
            b'S' => self.old_sparse(size, block, header.dialect)?,
            b'1' => Kind::HardLink(self.checked("link", link)?),
            b'2' => Kind::Symlink(self.checked("link", link)?),
            b'3' => Kind::CharDevice(self.device(header.major)?, self.device(header.minor)?),
            b'4' => Kind::BlockDevice(self.device(header.major)?, self.device(header.minor)?),
            b'5' => Kind::Directory,
            b'6' => Kind::Fifo,
            other => {
                let shown = char::from(other).escape_default();
                return Err(self.bad(format!("it is of type '{shown}', which no layer has")));
            }
        };
        Ok(Entry {
            name: self.checked("name", name)?,
            kind,
            mode: (header.mode & 0o7777) as u32,
            uid: self.owner("owner", pax.uid.unwrap_or(header.uid))?,
            gid: self.owner("group", pax.gid.unwrap_or(header.gid))?,
            mtime: pax.mtime.unwrap_or(header.mtime),
            xattrs: pax.xattrs,
            offset: begin,
        })
    }

    fn checked(&self, what: &str, name: Vec<u8>) -> Result<Vec<u8>, Error> {
        match name.len() {
            1..=NAME_MAX => Ok(name),
            length => Err(self.bad(format!("its {what} has {length} bytes; 1 to {NAME_MAX} may be"))),
        }
    }

    /// A regular file, sparse if its extended header says so.
    fn file(&mut self, size: i64, pax: &mut Pax, name: &mut Vec<u8>) -> Result<Kind, Error> {
        let stored = self.stored(size)?;
        self.expect_data(stored);
        let map = pax.sparse.map().map_err(|problem| self.bad(problem))?;
        let extents = match map {
            SparseMap::None => return Ok(Kind::File { size: stored, extents: None }),
            SparseMap::Here(extents) => extents,
            SparseMap::BeforeData => self.map_before_data()?,
        };
        if let Some(real) = pax.sparse.name.take() {
            self.place.entry.clone_from(&real);
            *name = real;
        }
        let size = self.real_size(pax.sparse.size.unwrap_or(size))?;
        self.check_extents(size, &extents)?;
        Ok(Kind::File { size, extents: Some(extents) })
    }

    fn stored(&self, size: i64) -> Result<u64, Error> {
        // Padding must not overflow it.
        match u64::try_from(size) {
            Ok(stored) if stored <= i64::MAX as u64 - BLOCK as u64 => Ok(stored),
            _ => Err(self.bad(format!("its size is {size}"))),
        }
    }

    fn owner(&self, what: &str, id: i64) -> Result<u32, Error> {
        match u32::try_from(id) {
            Ok(id) if id != u32::MAX => Ok(id),
            _ => Err(self.bad(format!("its {what} is {id}; 0 to {} may be", u32::MAX - 1))),
        }
    }

    fn device(&self, number: i64) -> Result<u32, Error> {
        u32::try_from(number).map_err(|_| self.bad(format!("its device number has {number}")))
    }

    fn real_size(&self, size: i64) -> Result<u64, Error> {
        u64::try_from(size).map_err(|_| self.bad(format!("its size with holes is {size}")))
    }

    /// A file of GNU's old sparse format, whose map is in the header and in blocks after it.
    fn old_sparse(&mut self, size: i64, block: &Block, dialect: Dialect) -> Result<Kind, Error> {
        let stored = self.stored(size)?;
        if dialect != Dialect::Gnu {
            return Err(self.bad("it is a sparse file (type 'S') in an archive that is not GNU's"));
        }
        let size = block.real_size().map_err(|problem| self.bad(problem))?;
        let size = self.real_size(size)?;
        let mut extents = Vec::new();
        let mut more = block.sparse_extents(false, &mut extents).map_err(|problem| self.bad(problem))?;
        // A block with no extent would not let them grow, so blocks are counted as well.
        let mut blocks = 0;
        while more {
            let Some(block) = self.block()? else { return Err(self.bad("the archive ends in its sparse map")) };
            more = block.sparse_extents(true, &mut extents).map_err(|problem| self.bad(problem))?;
            blocks += 1;
            if extents.len() > EXTENTS_MAX || blocks > EXTENTS_MAX {
                return Err(self.bad(format!("its sparse map has more than {EXTENTS_MAX} parts")));
            }
        }
        self.expect_data(stored);
        self.check_extents(size, &extents)?;
        Ok(Kind::File { size, extents: Some(extents) })
    }

    /// The map of GNU's sparse format 1.0: decimal numbers, one a line, in blocks of their own at the beginning of the data.
    fn map_before_data(&mut self) -> Result<Vec<Extent>, Error> {
        let mut line = Vec::new();
        let mut numbers = Vec::new();
        let mut wanted = None;
        while wanted != Some(numbers.len()) {
            if self.data < BLOCK as u64 {
                return Err(self.bad("its data ends in its sparse map"));
            }
            let Some(block) = self.block()? else { return Err(self.bad("the archive ends in its sparse map")) };
            self.data -= BLOCK as u64;
            for &byte in &block.0 {
                if wanted == Some(numbers.len()) {
                    break;
                }
                if byte != b'\n' {
                    line.push(byte);
                    if line.len() > 20 {
                        return Err(self.bad("its sparse map has a line that is no number"));
                    }
                    continue;
                }
                let number =
                    pax::number(&line).ok_or_else(|| self.bad("its sparse map has a line that is no number"))?;
                line.clear();
                match wanted {
                    Some(_) => numbers.push(number),
                    None if number <= EXTENTS_MAX as u64 => wanted = Some(2 * number as usize),
                    None => return Err(self.bad(format!("its sparse map has more than {EXTENTS_MAX} parts"))),
                }
            }
        }
        Ok(pax::extents(&numbers))
    }

    /// Extents are in order, inside the file, and what is stored is exactly they.
    fn check_extents(&self, size: u64, extents: &[Extent]) -> Result<(), Error> {
        let (mut end, mut sum) = (0, 0);
        for extent in extents {
            let next = extent.offset.checked_add(extent.length);
            if extent.offset < end || next.is_none_or(|next| next > size) {
                return Err(self.bad(format!(
                    "its sparse map has {} bytes at {}, which is not after the part before or not in the file's {size} bytes",
                    extent.length, extent.offset
                )));
            }
            // Ends are below the size, so neither overflows.
            end = extent.offset + extent.length;
            sum += extent.length;
        }
        match sum == self.data {
            true => Ok(()),
            false => Err(self.bad(format!("its sparse map has {sum} bytes, but {} are stored", self.data))),
        }
    }
}

impl<R: BufRead> Read for Reader<R> {
    /// The entry's stored data.
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let data = self.data().map_err(io::Error::other)?;
        let length = data.len().min(buffer.len());
        buffer[..length].copy_from_slice(&data[..length]);
        self.consume(length);
        Ok(length)
    }
}

/// What `input` has buffered, read first if nothing is. A limit that it stands for is exceeded at `place`.
fn fill<'a>(input: &'a mut impl BufRead, place: &Place) -> Result<&'a [u8], Error> {
    let failed = |error| match Error::from_input(error) {
        Error::Limit { problem, .. } => Error::Limit { place: place.clone(), problem },
        other => other,
    };
    loop {
        match input.fill_buf() {
            Ok(_) => break,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(failed(error)),
        }
    }
    input.fill_buf().map_err(failed)
}

fn until_zero(mut text: Vec<u8>) -> Vec<u8> {
    text.truncate(text.iter().position(|&b| b == 0).unwrap_or(text.len()));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A header of GNU's dialect unless `magic` says another.
    fn header(name: &str, type_flag: u8, size: u64, change: impl FnOnce(&mut [u8; BLOCK])) -> Vec<u8> {
        let mut block = [0; BLOCK];
        block[..name.len()].copy_from_slice(name.as_bytes());
        block[100..108].copy_from_slice(b"0000644\0");
        block[124..136].copy_from_slice(format!("{size:011o}\0").as_bytes());
        block[156] = type_flag;
        block[257..265].copy_from_slice(b"ustar  \0");
        change(&mut block);
        block[148..156].fill(b' ');
        let sum: u32 = block.iter().map(|&b| u32::from(b)).sum();
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        block.to_vec()
    }

    fn padded(data: &[u8]) -> Vec<u8> {
        let mut data = data.to_vec();
        data.resize(data.len().next_multiple_of(BLOCK), 0);
        data
    }

    fn with_data(name: &str, type_flag: u8, data: &[u8]) -> Vec<u8> {
        [header(name, type_flag, data.len() as u64, |_| {}), padded(data)].concat()
    }

    fn pax(records: &[(&str, &str)]) -> Vec<u8> {
        let record = |(key, value): &(&str, &str)| {
            let rest = key.len() + value.len() + 3;
            let length = (rest..).find(|length| rest + length.to_string().len() == *length).unwrap();
            format!("{length} {key}={value}\n")
        };
        with_data("pax", b'x', records.iter().map(record).collect::<String>().as_bytes())
    }

    const END: [u8; 2 * BLOCK] = [0; 2 * BLOCK];

    /// Names and data of an archive, read through a buffer that is smaller than a block.
    fn read(archive: &[u8]) -> Result<Vec<(Entry, Vec<u8>)>, String> {
        let mut reader = Reader::new(io::BufReader::with_capacity(100, archive));
        let mut entries = Vec::new();
        while let Some(entry) = reader.next_entry().map_err(|e| e.to_string())? {
            let mut data = Vec::new();
            reader.read_to_end(&mut data).map_err(|e| e.to_string())?;
            entries.push((entry, data));
        }
        Ok(entries)
    }

    fn names(archive: &[u8]) -> Result<Vec<String>, String> {
        Ok(read(archive)?.into_iter().map(|(e, _)| String::from_utf8(e.name).unwrap()).collect())
    }

    #[test]
    fn an_archive_ends_as_go_lets_it_end() {
        let file = with_data("a", b'0', b"hello");
        let all = |parts: &[&[u8]]| names(&parts.concat());
        let one = Ok(vec!["a".to_owned()]);
        assert_eq!(names(b""), Ok(vec![]));
        assert_eq!(all(&[&END]), Ok(vec![]));
        assert_eq!(all(&[&file, &END]), one);
        assert_eq!(all(&[&file, &END, b"anything"]), one, "what is after the end is not looked at");
        assert_eq!(all(&[&file]), one, "no end");
        assert_eq!(all(&[&file[..BLOCK + 5]]), one, "no padding");
        assert_eq!(all(&[&file, &END[..BLOCK]]), one, "half an end");
        let cut = all(&[&file[..BLOCK + 4]]).unwrap_err();
        assert_eq!(cut, r#"entry "a" at offset 0: the archive ends 1 bytes before the end of its data"#);
        let cut = all(&[&file, &file[..100]]).unwrap_err();
        assert_eq!(cut, "archive header at offset 1024: the archive ends after 100 of a header's 512 bytes");
        assert!(all(&[&file, &END[..600]]).unwrap_err().contains("88 of a header's 512"));
        assert!(all(&[&file, &END[..BLOCK], &file]).unwrap_err().contains("a single block of zeros"));
    }

    #[test]
    fn long_names_are_gnus_or_paxs() {
        let long = "x/".repeat(200) + "end";
        let entry = with_data("short", b'0', b"1");
        let gnu = [with_data("././@LongLink", b'L', format!("{long}\0").as_bytes()), entry.clone(), entry.clone()];
        assert_eq!(names(&gnu.concat()), Ok(vec![long.clone(), "short".to_owned()]));
        assert_eq!(names(&[pax(&[("path", &long)]), entry.clone()].concat()), Ok(vec![long.clone()]));
        let prefixed = header("name", b'0', 0, |b| {
            b[257..265].copy_from_slice(b"ustar\x0000");
            b[345..351].copy_from_slice(b"prefix");
        });
        assert_eq!(names(&prefixed), Ok(vec!["prefix/name".to_owned()]));
        let link = [with_data("l", b'K', b"target"), pax(&[("uid", "4294967294")]), header("s", b'2', 0, |_| {})];
        let (entry, _) = read(&link.concat()).unwrap().remove(0);
        assert_eq!((entry.kind, entry.uid, entry.offset), (Kind::Symlink(b"target".to_vec()), u32::MAX - 1, 0));
    }

    #[test]
    fn cve_2025_62518_a_size_in_an_extended_header_is_the_size() {
        // Its own header says 0 bytes: a reader that goes on there takes the data for entries.
        let inner = with_data("inner", b'0', b"evil");
        let outer = [pax(&[("size", &inner.len().to_string())]), header("outer", b'0', 0, |_| {}), inner.clone()];
        let entries = read(&outer.concat()).unwrap();
        assert_eq!(entries.len(), 1);
        assert_eq!(entries[0].1, inner);
    }

    #[test]
    fn global_headers_have_no_effect() {
        let global = with_data("g", b'g', b"13 path=evil\n");
        let entry = with_data("a", b'0', b"");
        assert_eq!(names(&[global.clone(), entry.clone()].concat()), Ok(vec!["a".to_owned()]));
        assert_eq!(names(&[pax(&[("path", "b")]), global, entry].concat()), Ok(vec!["a".to_owned()]));
        assert!(names(&with_data("g", b'g', b"13 path=evi\n")).is_err());
    }

    #[test]
    fn sparse_files_of_each_format() {
        let extents = |pairs: &[(u64, u64)]| {
            Some(pairs.iter().map(|&(offset, length)| Extent { offset, length }).collect::<Vec<_>>())
        };
        let check = |archive: Vec<u8>, what: &str| {
            let mut entries = read(&archive).unwrap();
            assert_eq!(entries.len(), 2, "{what}");
            let (entry, data) = entries.remove(0);
            assert_eq!((entry.name.as_slice(), data.as_slice()), (&b"real"[..], &b"helloworld"[..]), "{what}");
            let expected = Kind::File { size: 10_000, extents: extents(&[(0, 5), (4096, 5), (10_000, 0)]) };
            assert_eq!(entry.kind, expected, "{what}");
        };
        let next = header("next", b'0', 0, |_| {});
        let old = header("real", b'S', 10, |b| {
            for (i, (offset, length)) in [(0, 5), (4096, 5), (10_000, 0)].into_iter().enumerate() {
                b[386 + 24 * i..410 + 24 * i].copy_from_slice(format!("{offset:011o}\0{length:011o}\0").as_bytes());
            }
            b[483..495].copy_from_slice(b"00000023420\0");
        });
        check([old.clone(), padded(b"helloworld"), next.clone()].concat(), "old");
        let file = with_data("fake", b'0', b"helloworld");
        let map = ("GNU.sparse.map", "0,5,4096,5,10000,0");
        let v01 = pax(&[("GNU.sparse.size", "10000"), ("GNU.sparse.numblocks", "3"), map, ("GNU.sparse.name", "real")]);
        check([v01, file, next.clone()].concat(), "0.1");
        let v10 = [("GNU.sparse.major", "1"), ("GNU.sparse.minor", "0"), ("GNU.sparse.name", "real")];
        let v10 = pax(&[&v10[..], &[("GNU.sparse.realsize", "10000")]].concat());
        let data = [padded(b"3\n0\n5\n4096\n5\n10000\n0\n"), b"helloworld".to_vec()].concat();
        check([v10.clone(), with_data("fake", b'0', &data), next].concat(), "1.0");

        let bad = |map: &str, why: &str| {
            let data = [padded(map.as_bytes()), b"helloworld".to_vec()].concat();
            let error = read(&[v10.clone(), with_data("fake", b'0', &data)].concat()).unwrap_err();
            assert!(error.starts_with("entry \"") && error.contains(why), "{map:?}: {error}");
        };
        bad("2\n0\n5\n4\n5\n", "not after the part before");
        bad("1\n9995\n10\n", "not in the file's 10000");
        bad("1\n0\n9\n", "but 10 are stored");
        bad("1\n18446744073709551615\n9\n", "not in the file");
        bad("99999999\n", "more than 1048576 parts");
        bad("1\n0\n-5\n", "no number");
        bad("3\n0\n5\n", "");
        let ustar = header("real", b'S', 0, |b| b[257..265].copy_from_slice(b"ustar\x0000"));
        assert!(read(&ustar).unwrap_err().contains("not GNU's"));
        let endless = header("real", b'S', 0, |b| b[482] = 1);
        assert!(read(&[endless, padded(b"\x01")].concat()).is_err());
    }

    #[test]
    fn what_no_layer_may_have_is_refused_with_its_place() {
        let refused = |archive: Vec<u8>, expected: &str| {
            let error = read(&archive).unwrap_err();
            assert!(error.contains(expected), "{error}");
        };
        let plain = |name: &str, type_flag| header(name, type_flag, 0, |_| {});
        refused(plain("v", b'V'), r#"entry "v" at offset 0: it is of type 'V'"#);
        refused(plain("l", b'1'), "its link has 0 bytes");
        refused(plain("", b'0'), "its name has 0 bytes");
        refused([pax(&[("uid", "4294967295")]), plain("u", b'0')].concat(), "its owner is 4294967295");
        refused([pax(&[("gid", "-1")]), plain("u", b'0')].concat(), "its group is -1");
        refused([pax(&[("size", "-1")]), plain("u", b'0')].concat(), "its size is -1");
        refused([pax(&[("size", "9223372036854775807")]), plain("u", b'0')].concat(), "its size is 922337");
        refused([pax(&[("path", &"y".repeat(4096))]), plain("u", b'0')].concat(), "its name has 4096 bytes");
        refused(header("pax", b'x', 2 << 20, |_| {}), "an extended header says 2097152 bytes");
        refused(header("pax", b'L', (1 << 33) - 1, |_| {}), "an extended header says 8589934591 bytes");
        refused(header("a", b'0', 0, |b| b[108..116].copy_from_slice(b"99999999")), "its owner is \"99999999\"");
        refused(b"<html>".repeat(100), "no tar header");
    }
}
