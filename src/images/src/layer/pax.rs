//! Extended headers: pax's records (POSIX, pax, "pax Header Block"), with star's, libarchive's and GNU's additions.

use super::entry::{Extent, Timestamp, Xattr};
use super::header::Problem;

/// Extents that a sparse map may have: 16 MiB of memory.
pub(super) const EXTENTS_MAX: usize = 1 << 20;

/// The longest value of an extended attribute that Linux has (xattr(7)).
const XATTR_VALUE_MAX: usize = 65536;

/// The longest name of one.
const XATTR_NAME_MAX: usize = 255;

/// What the extended headers before an entry say about it.
#[derive(Debug, Default)]
pub(super) struct Pax {
    pub path: Option<Vec<u8>>,
    pub link: Option<Vec<u8>>,
    pub size: Option<i64>,
    pub uid: Option<i64>,
    pub gid: Option<i64>,
    pub mtime: Option<Timestamp>,
    pub xattrs: Vec<Xattr>,
    pub sparse: Sparse,
}

/// GNU's sparse files in pax: versions 0.0 (pairs of records), 0.1 (one record) and 1.0 (the map is before the data).
#[derive(Debug, Default)]
pub(super) struct Sparse {
    pub name: Option<Vec<u8>>,
    pub size: Option<i64>,
    version: (Option<String>, Option<String>),
    count: Option<i64>,
    /// The numbers of the map, for versions 0.0 and 0.1.
    map: Option<Vec<u64>>,
}

/// Where a sparse file's map is.
pub(super) enum SparseMap {
    /// It is no sparse file, or of a version nobody knows, whose data is taken as it is.
    None,
    Here(Vec<Extent>),
    BeforeData,
}

impl Pax {
    /// The records of one extended header. Among several of one name the last counts; an empty one leaves what the header says.
    pub fn parse(mut records: &[u8]) -> Result<Pax, Problem> {
        let mut pax = Pax::default();
        let mut libarchive = Vec::new();
        let mut pairs = Vec::new();
        while !records.is_empty() {
            let (key, value, rest) = record(records)?;
            records = rest;
            match key {
                b"GNU.sparse.offset" | b"GNU.sparse.numbytes" => {
                    if (pairs.len() % 2 == 0) != (key == b"GNU.sparse.offset") || pairs.len() >= 2 * EXTENTS_MAX {
                        return Err("its sparse map (pax) has no order: offset and numbytes alternate".to_owned());
                    }
                    pairs.push(unsigned(key, value)?);
                }
                _ if key.starts_with(b"SCHILY.xattr.") => {
                    add(&mut pax.xattrs, xattr(key["SCHILY.xattr.".len()..].to_vec(), value.to_vec())?);
                }
                _ if key.starts_with(b"LIBARCHIVE.xattr.") => {
                    let name = percent_decoded(&key["LIBARCHIVE.xattr.".len()..]);
                    let value = base64_decoded(value).ok_or_else(|| format!("{}: no base64", shown(key)))?;
                    add(&mut libarchive, xattr(name, value)?);
                }
                _ if value.is_empty() => pax.forget(key),
                _ => pax.set(key, value)?,
            }
        }
        if !pairs.is_empty() {
            pax.sparse.map = Some(pairs);
        }
        // Who writes these writes SCHILY's too, unless the name can't be in one.
        for other in libarchive {
            if !pax.xattrs.iter().any(|x| x.name == other.name) {
                pax.xattrs.push(other);
            }
        }
        Ok(pax)
    }

    fn set(&mut self, key: &[u8], value: &[u8]) -> Result<(), Problem> {
        match key {
            b"path" => self.path = Some(name(key, value)?),
            b"linkpath" => self.link = Some(name(key, value)?),
            b"size" => self.size = Some(signed(key, value)?),
            b"uid" => self.uid = Some(signed(key, value)?),
            b"gid" => self.gid = Some(signed(key, value)?),
            b"mtime" => self.mtime = Some(timestamp(key, value)?),
            b"GNU.sparse.name" => self.sparse.name = Some(name(key, value)?),
            b"GNU.sparse.size" | b"GNU.sparse.realsize" => self.sparse.size = Some(signed(key, value)?),
            b"GNU.sparse.major" => self.sparse.version.0 = Some(shown(value)),
            b"GNU.sparse.minor" => self.sparse.version.1 = Some(shown(value)),
            b"GNU.sparse.numblocks" => self.sparse.count = Some(signed(key, value)?),
            b"GNU.sparse.map" => {
                let numbers = value.split(|&b| b == b',');
                if numbers.clone().count() > 2 * EXTENTS_MAX {
                    return Err(format!("its sparse map has more than {EXTENTS_MAX} parts"));
                }
                self.sparse.map = Some(numbers.map(|n| unsigned(key, n)).collect::<Result<_, _>>()?);
            }
            // hdrcharset, atime, ctime, uname, gname, comment, SCHILY.acl.*, what vendors have: names are bytes here, owners numbers, and
            // Docker keeps access control lists as extended attributes.
            _ => {}
        }
        Ok(())
    }

    fn forget(&mut self, key: &[u8]) {
        match key {
            b"path" => self.path = None,
            b"linkpath" => self.link = None,
            b"size" => self.size = None,
            b"uid" => self.uid = None,
            b"gid" => self.gid = None,
            b"mtime" => self.mtime = None,
            _ => {}
        }
    }
}

impl Sparse {
    /// The map, when it is in the records.
    pub fn map(&mut self) -> Result<SparseMap, Problem> {
        let numbers = match (self.version.0.as_deref(), self.version.1.as_deref()) {
            (Some("1"), Some("0")) => return Ok(SparseMap::BeforeData),
            (Some("0"), Some("0" | "1")) => self.map.take().unwrap_or_default(),
            (None, None) => match self.map.take() {
                Some(numbers) => numbers,
                None => return Ok(SparseMap::None),
            },
            _ => return Ok(SparseMap::None),
        };
        if numbers.len() % 2 != 0 || self.count.is_some_and(|count| usize::try_from(count) != Ok(numbers.len() / 2)) {
            let count = self.count.map_or("pairs".to_owned(), |count| format!("{count} pairs"));
            return Err(format!("its sparse map has {} numbers instead of {count}", numbers.len()));
        }
        Ok(SparseMap::Here(extents(&numbers)))
    }
}

/// Pairs of offset and length.
pub(super) fn extents(numbers: &[u64]) -> Vec<Extent> {
    numbers.chunks_exact(2).map(|pair| Extent { offset: pair[0], length: pair[1] }).collect()
}

/// A record's key and value, and what comes after it.
type Record<'a> = (&'a [u8], &'a [u8], &'a [u8]);

/// The first record, `LENGTH KEY=VALUE\n` with the length of all of it.
fn record(records: &[u8]) -> Result<Record<'_>, Problem> {
    let bad = || format!("an extended header (pax) has a bad record: {}", shown(&records[..records.len().min(60)]));
    let blank = records.iter().take(20).position(|&b| b == b' ').ok_or_else(bad)?;
    let length = number(&records[..blank]).and_then(|n| usize::try_from(n).ok()).ok_or_else(bad)?;
    if length > records.len() || length < blank + 4 || records[length - 1] != b'\n' {
        return Err(bad());
    }
    let (record, rest) = (&records[blank + 1..length - 1], &records[length..]);
    let equals = record.iter().position(|&b| b == b'=').ok_or_else(bad)?;
    let (key, value) = (&record[..equals], &record[equals + 1..]);
    if key.is_empty() || key.contains(&0) {
        return Err(bad());
    }
    Ok((key, value, rest))
}

/// Plain decimal digits.
pub(super) fn number(digits: &[u8]) -> Option<u64> {
    let digit = |number: u64, b: &u8| {
        let value = b.is_ascii_digit().then(|| u64::from(b - b'0'))?;
        number.checked_mul(10)?.checked_add(value)
    };
    if digits.is_empty() { None } else { digits.iter().try_fold(0, digit) }
}

fn unsigned(key: &[u8], value: &[u8]) -> Result<u64, Problem> {
    number(value).ok_or_else(|| format!("{}={}: no number", shown(key), shown(value)))
}

fn signed(key: &[u8], value: &[u8]) -> Result<i64, Problem> {
    let (negative, digits) = match value {
        [b'-', digits @ ..] => (true, digits),
        [b'+', digits @ ..] => (false, digits),
        digits => (false, digits),
    };
    let number = number(digits)
        .and_then(|n| i64::try_from(n).ok())
        .ok_or_else(|| format!("{}={}: no number", shown(key), shown(value)))?;
    Ok(if negative { -number } else { number })
}

/// Seconds with a fraction: digits after the ninth are cut, not rounded.
fn timestamp(key: &[u8], value: &[u8]) -> Result<Timestamp, Problem> {
    let bad = || format!("{}={}: no time", shown(key), shown(value));
    let (whole, fraction) = match value.iter().position(|&b| b == b'.') {
        Some(dot) => (&value[..dot], &value[dot + 1..]),
        None => (value, &[][..]),
    };
    let seconds = signed(key, whole).map_err(|_| bad())?;
    if !fraction.iter().all(u8::is_ascii_digit) {
        return Err(bad());
    }
    let digits = fraction.iter().copied().chain(std::iter::repeat(b'0')).take(9);
    let nanoseconds = digits.fold(0, |n, digit| n * 10 + u32::from(digit - b'0'));
    if !whole.starts_with(b"-") || nanoseconds == 0 {
        return Ok(Timestamp { seconds, nanoseconds });
    }
    // The fraction of a time before 1970 goes the other way.
    Ok(Timestamp { seconds: seconds - 1, nanoseconds: 1_000_000_000 - nanoseconds })
}

fn name(key: &[u8], value: &[u8]) -> Result<Vec<u8>, Problem> {
    match value.contains(&0) {
        true => Err(format!("{} has a zero byte", shown(key))),
        false => Ok(value.to_vec()),
    }
}

fn xattr(name: Vec<u8>, value: Vec<u8>) -> Result<Xattr, Problem> {
    if name.is_empty() || name.len() > XATTR_NAME_MAX || name.contains(&0) {
        return Err(format!("the extended attribute {} has a name that can't be", shown(&name)));
    }
    if value.len() > XATTR_VALUE_MAX {
        return Err(format!(
            "the extended attribute {} has {} bytes; {XATTR_VALUE_MAX} can be",
            shown(&name),
            value.len()
        ));
    }
    Ok(Xattr { name, value })
}

fn add(xattrs: &mut Vec<Xattr>, xattr: Xattr) {
    match xattrs.iter_mut().find(|x| x.name == xattr.name) {
        Some(before) => before.value = xattr.value,
        None => xattrs.push(xattr),
    }
}

fn shown(bytes: &[u8]) -> String {
    String::from_utf8_lossy(&bytes[..bytes.len().min(200)]).escape_debug().to_string()
}

/// `%XX` as libarchive writes a name's unusual bytes; a percent sign that is nothing else stays.
fn percent_decoded(text: &[u8]) -> Vec<u8> {
    let digit = |at: usize| text.get(at).and_then(|&b| char::from(b).to_digit(16)).and_then(|d| u8::try_from(d).ok());
    let mut decoded = Vec::with_capacity(text.len());
    let mut at = 0;
    while at < text.len() {
        match (text[at], digit(at + 1), digit(at + 2)) {
            (b'%', Some(high), Some(low)) => {
                decoded.push(high << 4 | low);
                at += 3;
            }
            (byte, ..) => {
                decoded.push(byte);
                at += 1;
            }
        }
    }
    decoded
}

/// Base64 with or without its padding.
fn base64_decoded(text: &[u8]) -> Option<Vec<u8>> {
    rrt_registry::base64::decode(text.strip_suffix(b"==").or(text.strip_suffix(b"=")).unwrap_or(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn records(pairs: &[(&str, &[u8])]) -> Vec<u8> {
        let mut all = Vec::new();
        for (key, value) in pairs {
            let rest = key.len() + value.len() + 3;
            let mut length = rest + 1;
            while rest + length.to_string().len() != length {
                length = rest + length.to_string().len();
            }
            all.extend_from_slice(format!("{length} {key}=").as_bytes());
            all.extend_from_slice(value);
            all.push(b'\n');
        }
        all
    }

    #[test]
    fn the_last_record_of_a_name_counts_and_an_empty_one_for_nothing() {
        let pax = Pax::parse(&records(&[("path", b"a"), ("path", b"b=c\n"), ("uid", b"7"), ("uid", b"")])).unwrap();
        assert_eq!((pax.path.as_deref(), pax.uid), (Some(&b"b=c\n"[..]), None));
    }

    #[test]
    fn records_that_are_none_are_refused() {
        let all: [&[u8]; 12] = [
            b"5",
            b"5 a=\n",
            b"6 a=\n",
            b"0 a=\n",
            b"99999999999999999999 a=b\n",
            b"-6 a=b\n",
            b"8 a=b \n",
            b"6 =ab\n",
            b"6 abc\n",
            b"8 a\0=bc\n",
            b"6 a=bc",
            b"13 path=a\0bc\n",
        ];
        for bad in all {
            let parsed = Pax::parse(bad);
            assert!(parsed.is_err() || bad == b"5 a=\n", "{:?}: {parsed:?}", String::from_utf8_lossy(bad));
        }
    }

    #[test]
    fn times_have_nanoseconds() {
        let time = |text: &str| timestamp(b"mtime", text.as_bytes()).map(|t| (t.seconds, t.nanoseconds)).ok();
        assert_eq!(time("1350244992.023960108"), Some((1350244992, 23960108)));
        assert_eq!(time("1350244992.0239601089"), Some((1350244992, 23960108)));
        assert_eq!(time("1350244992"), Some((1350244992, 0)));
        assert_eq!(time("1.5"), Some((1, 500_000_000)));
        assert_eq!(time("-1.25"), Some((-2, 750_000_000)));
        assert_eq!(time("-0.5"), Some((-1, 500_000_000)));
        for bad in ["", ".", ".5", "1.x", "1.-1", "1e3", "99999999999999999999"] {
            assert_eq!(time(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn xattrs_are_stars_or_libarchives() {
        let pax = Pax::parse(&records(&[
            ("LIBARCHIVE.xattr.user.a%25%3Db", b"AAEC/w"),
            ("LIBARCHIVE.xattr.user.c", b"AAAA"),
            ("SCHILY.xattr.user.c", b"\0raw\n"),
            ("SCHILY.xattr.user.empty", b""),
        ]));
        let names: Vec<_> = pax.unwrap().xattrs.into_iter().map(|x| (x.name, x.value)).collect();
        let expected: [(&[u8], &[u8]); 3] =
            [(b"user.c", b"\0raw\n"), (b"user.empty", b""), (b"user.a%=b", b"\0\x01\x02\xff")];
        assert_eq!(names, expected.map(|(n, v)| (n.to_vec(), v.to_vec())));
        assert!(Pax::parse(&records(&[("LIBARCHIVE.xattr.user.a", b"!")])).is_err());
        assert!(Pax::parse(&records(&[("SCHILY.xattr.", b"a")])).is_err());
        assert!(Pax::parse(&records(&[("SCHILY.xattr.user.big", &[0; 70_000])])).is_err());
    }

    #[test]
    fn sparse_maps_of_both_old_versions() {
        let map = |pairs: &[(&str, &[u8])]| match Pax::parse(&records(pairs))?.sparse.map()? {
            SparseMap::Here(extents) => Ok(Some(extents.iter().map(|e| (e.offset, e.length)).collect::<Vec<_>>())),
            SparseMap::None => Ok(None),
            SparseMap::BeforeData => Err("before".to_owned()),
        };
        let old = [("GNU.sparse.numblocks", &b"2"[..]), ("GNU.sparse.offset", b"0"), ("GNU.sparse.numbytes", b"5")];
        let old = [&old[..], &[("GNU.sparse.offset", b"10"), ("GNU.sparse.numbytes", b"1")]].concat();
        assert_eq!(map(&old), Ok(Some(vec![(0, 5), (10, 1)])));
        assert!(map(&old[..4]).is_err(), "a pair is not whole");
        assert!(map(&old[..3]).is_err(), "one pair instead of two");
        assert!(map(&[old[2]]).is_err(), "the length is first");
        assert_eq!(map(&[("GNU.sparse.map", b"0,5,10,1")]), Ok(Some(vec![(0, 5), (10, 1)])));
        assert_eq!(map(&[("GNU.sparse.major", b"2"), ("GNU.sparse.minor", b"0")]), Ok(None));
        assert_eq!(map(&[("GNU.sparse.major", b"1"), ("GNU.sparse.minor", b"0")]), Err("before".to_owned()));
        assert!(map(&[("GNU.sparse.map", b"0,-5")]).is_err());
    }
}
