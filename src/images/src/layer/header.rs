//! One header: a block of 512 bytes (POSIX ustar, the older V7, star's and GNU's).
//!
//! It takes what Go's archive/tar takes, since that is what Docker, containerd and podman read layers with: blanks and zeros around octal
//! numbers, numbers in base 256, checksums over signed bytes, GNU archives with a ustar prefix.

use super::entry::{Extent, Timestamp};

/// The length of a header, and what all data is padded to.
pub(super) const BLOCK: usize = 512;

/// What is wrong with a header.
pub(super) type Problem = String;

/// A block of an archive.
pub(super) struct Block(pub [u8; BLOCK]);

/// How a header says what V7 could not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dialect {
    V7,
    /// ustar, and pax, which is ustar with extended headers before it.
    Ustar,
    Star,
    Gnu,
}

/// A header's fields, before extended headers are looked at.
#[derive(Debug)]
pub(super) struct Header {
    pub dialect: Dialect,
    pub type_flag: u8,
    pub name: Vec<u8>,
    pub link: Vec<u8>,
    pub size: i64,
    pub mode: i64,
    pub uid: i64,
    pub gid: i64,
    pub mtime: Timestamp,
    pub major: i64,
    pub minor: i64,
}

impl Block {
    pub fn is_zero(&self) -> bool {
        self.0 == [0; BLOCK]
    }

    fn field(&self, at: usize, length: usize) -> &[u8] {
        &self.0[at..at + length]
    }

    /// The dialect, once the checksum is right.
    pub fn dialect(&self) -> Result<Dialect, Problem> {
        let said = octal(self.field(148, 8)).map_err(|p| format!("its checksum is {p}: this is no tar header"))?;
        // The field itself counts as blanks.
        let byte = |at: usize| if (148..156).contains(&at) { b' ' } else { self.0[at] };
        let unsigned: i64 = (0..BLOCK).map(|at| i64::from(byte(at))).sum();
        // Some old programs added up signed bytes.
        let signed: i64 = (0..BLOCK).map(|at| i64::from(byte(at) as i8)).sum();
        if said != unsigned && said != signed {
            return Err(format!(
                "its checksum is {unsigned}, but it says {said}: the archive is damaged or no tar archive"
            ));
        }
        Ok(match (self.field(257, 6), self.field(263, 2)) {
            (b"ustar\0", _) if self.field(508, 4) == b"tar\0" => Dialect::Star,
            (b"ustar\0", _) => Dialect::Ustar,
            (b"ustar ", b" \0") => Dialect::Gnu,
            _ => Dialect::V7,
        })
    }

    /// The header's fields. Fails on a wrong checksum and on numbers that are none.
    pub fn parse(&self) -> Result<Header, Problem> {
        let dialect = self.dialect()?;
        let number = |what: &str, at, length| numeric(self.field(at, length)).map_err(|p| format!("its {what} is {p}"));
        let (mut major, mut minor, mut prefix) = (0, 0, &[][..]);
        if dialect != Dialect::V7 {
            major = number("device's major number", 329, 8)?;
            minor = number("device's minor number", 337, 8)?;
        }
        match dialect {
            Dialect::V7 => {}
            Dialect::Ustar => prefix = text(self.field(345, 155)),
            Dialect::Star => prefix = text(self.field(345, 131)),
            // Where GNU has times, old versions of Go wrote a ustar prefix: what is neither empty nor a number is one.
            Dialect::Gnu => {
                let time = |at| self.0[at] != 0 && numeric(self.field(at, 12)).is_err();
                let written = text(self.field(345, 155));
                if (time(345) || time(357)) && written.is_ascii() {
                    prefix = written;
                }
            }
        }
        let name = text(self.field(0, 100));
        Ok(Header {
            dialect,
            type_flag: self.0[156],
            name: if prefix.is_empty() { name.to_vec() } else { [prefix, b"/", name].concat() },
            link: text(self.field(157, 100)).to_vec(),
            size: number("size", 124, 12)?,
            mode: number("mode", 100, 8)?,
            uid: number("owner", 108, 8)?,
            gid: number("group", 116, 8)?,
            mtime: Timestamp { seconds: number("time", 136, 12)?, nanoseconds: 0 },
            major,
            minor,
        })
    }

    /// The length of an old GNU sparse file, holes included.
    pub fn real_size(&self) -> Result<i64, Problem> {
        numeric(self.field(483, 12)).map_err(|p| format!("its size with holes is {p}"))
    }

    /// Adds the extents of an old GNU sparse header, or, with `more`, of an extension block; says whether an extension block follows.
    pub fn sparse_extents(&self, more: bool, extents: &mut Vec<Extent>) -> Result<bool, Problem> {
        let (begin, count, extended) = if more { (0, 21, 504) } else { (386, 4, 482) };
        for at in (0..count).map(|i| begin + 24 * i) {
            if self.0[at] == 0 {
                break;
            }
            let number = |at| numeric(self.field(at, 12)).and_then(|n| u64::try_from(n).map_err(|_| format!("{n}")));
            let number = |at| number(at).map_err(|p| format!("a number of its sparse map is {p}"));
            extents.push(Extent { offset: number(at)?, length: number(at + 12)? });
        }
        Ok(self.0[extended] > 0)
    }
}

/// A field's text: up to its first zero.
fn text(field: &[u8]) -> &[u8] {
    field.split(|&b| b == 0).next().unwrap_or(field)
}

/// An octal number with blanks and zeros around it; nothing is 0.
fn octal(field: &[u8]) -> Result<i64, Problem> {
    let blank = |b: &u8| *b == b' ' || *b == 0;
    let begin = field.iter().position(|b| !blank(b)).unwrap_or(field.len());
    let end = field.iter().rposition(|b| !blank(b)).map_or(begin, |last| last + 1);
    let digits = text(&field[begin..end]);
    let mut number: i64 = 0;
    for digit in digits {
        let value = match digit {
            b'0'..=b'7' => i64::from(digit - b'0'),
            _ => return Err(format!("{:?}, no octal number", String::from_utf8_lossy(digits))),
        };
        // Twelve digits at most, 36 bits.
        number = number << 3 | value;
    }
    Ok(number)
}

/// A number: octal, or with the first bit set, in base 256, big-endian, in two's complement without that bit.
fn numeric(field: &[u8]) -> Result<i64, Problem> {
    let first = *field.first().unwrap_or(&0);
    if first & 0x80 == 0 {
        return octal(field);
    }
    // A negative number's bits are inverted on the way.
    let inverted = if first & 0x40 != 0 { 0xff } else { 0 };
    let mut number: u64 = 0;
    for (at, byte) in field.iter().enumerate() {
        let byte = if at == 0 { (byte ^ inverted) & 0x7f } else { byte ^ inverted };
        if number >> 56 > 0 {
            return Err("greater than 64 bits hold".to_owned());
        }
        number = number << 8 | u64::from(byte);
    }
    let number = i64::try_from(number).map_err(|_| "greater than 64 bits hold".to_owned())?;
    Ok(if inverted == 0 { number } else { !number })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_as_go_reads_them() {
        for (field, number) in [
            (&b"0000644\0"[..], 0o644),
            (b" 644 \0\0 ", 0o644),
            (b"\0\0\0\0\0\0\0\0", 0),
            (b"", 0),
            (b"   17\0zz", 0o17),
            (b"77777777777\0", 0o77777777777),
            (b"777777777777", 0o777777777777),
            (b"\x80\0\0\0\0\0\0\0\x01\0\0\0", 1 << 24),
            (b"\xff\xff\xff\xff\xff\xff\xff\xff", -1),
            (b"\xff\xff\xff\xff\xff\xff\xff\xfe", -2),
            (b"\x80\0\0\0\x7f\xff\xff\xff\xff\xff\xff\xff", i64::MAX),
            (b"\xff\xff\xff\xff\x80\0\0\0\0\0\0\0", i64::MIN),
        ] {
            assert_eq!(numeric(field), Ok(number), "{field:?}");
        }
        let bad: [&[u8]; 6] = [
            b"0000648\0",
            b"-1",
            b"1 2",
            b"\x80\0\0\0\x80\0\0\0\0\0\0\0",
            b"\x80\x01\0\0\0\0\0\0\0\0\0\0",
            b"\xbf\xff\xff\xff\xff\xff\xff\xff\xff",
        ];
        for bad in bad {
            assert!(numeric(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_wrong_checksum_is_no_header() {
        let mut block = Block([0; BLOCK]);
        block.0[..4].copy_from_slice(b"file");
        assert!(block.parse().unwrap_err().contains("checksum"));
        let sum: i64 = block.0.iter().map(|&b| i64::from(b)).sum::<i64>() + 8 * 32;
        block.0[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
        let header = block.parse().unwrap();
        assert_eq!((header.dialect, header.name.as_slice(), header.size), (Dialect::V7, &b"file"[..], 0));
        block.0[3] ^= 1;
        assert!(block.parse().unwrap_err().contains("damaged"));
    }
}
