//! The formats of the kernel's statistics files.

use crate::Error;
use crate::dir::Dir;
use crate::error::Doing;
use serde::Serialize;
use std::collections::BTreeMap;

/// Pressure stall information (kernel's accounting/psi.rst).
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Pressure {
    /// Times in which some process waited.
    pub some: PressureData,
    /// Times in which all processes waited.
    pub full: PressureData,
}

/// Percentages of time, and a sum.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct PressureData {
    /// Of the last 10 seconds.
    pub avg10: f64,
    /// Of the last minute.
    pub avg60: f64,
    /// Of the last five minutes.
    pub avg300: f64,
    /// Microseconds in all.
    pub total: u64,
}

/// A file of a directory, or its absence, with what an error message needs.
pub(super) struct File<'a> {
    dir: &'a Dir,
    name: &'a str,
    pub(super) text: String,
}

impl<'a> File<'a> {
    /// Reads a file; `None` when this kernel or this cgroup does not have it.
    pub(super) fn read(dir: &'a Dir, name: &'a str) -> Result<Option<File<'a>>, Error> {
        let text = match dir.read_if_there(name) {
            // Some kernels have the pressure files but, without psi=1, cannot read them.
            Err(e) if e.is(libc::EOPNOTSUPP) => None,
            done => done.doing(super::READ)?,
        };
        Ok(text.map(|text| File { dir, name, text }))
    }

    fn bad(&self, text: &str) -> Error {
        Error::Parse { path: self.dir.path().join(self.name), text: text.into() }
    }

    /// One number; `max` is the largest.
    pub(super) fn number(&self) -> Result<u64, Error> {
        self.parse(self.text.trim_end())
    }

    pub(super) fn parse(&self, word: &str) -> Result<u64, Error> {
        match word {
            "max" => Ok(u64::MAX),
            // Counters of the kernel are per CPU and can be seen a little below zero.
            _ if word.starts_with('-') && word.parse::<i64>().is_ok() => Ok(0),
            _ => word.parse().map_err(|_| self.bad(word)),
        }
    }

    /// Numbers, separated by blanks.
    pub(super) fn numbers(&self) -> Result<Vec<u64>, Error> {
        self.text.split_whitespace().map(|word| self.parse(word)).collect()
    }

    /// Lines of `key number`.
    pub(super) fn table(&self) -> Result<BTreeMap<String, u64>, Error> {
        let pair = |line: &str| {
            let (key, value) = line.split_once(' ').ok_or_else(|| self.bad(line))?;
            Ok((key.to_owned(), self.parse(value.trim())?))
        };
        self.text.lines().map(pair).collect()
    }

    /// A list of numbers and ranges: `0-3,8`.
    pub(super) fn list(&self) -> Result<Vec<u16>, Error> {
        let mut out = Vec::new();
        for part in self.text.trim_end().split(',').filter(|p| !p.is_empty()) {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let number = |word: &str| word.parse::<u16>().map_err(|_| self.bad(part));
            out.extend(number(first)?..=number(last)?);
        }
        Ok(out)
    }

    /// A pressure file: `some avg10=0.00 avg60=0.00 avg300=0.00 total=0`, and the same for `full`.
    pub(super) fn pressure(&self) -> Result<Pressure, Error> {
        let mut pressure = Pressure::default();
        for line in self.text.lines() {
            let (kind, rest) = line.split_once(' ').ok_or_else(|| self.bad(line))?;
            let data = match kind {
                "some" => &mut pressure.some,
                "full" => &mut pressure.full,
                _ => continue,
            };
            for word in rest.split_whitespace() {
                let (key, value) = word.split_once('=').ok_or_else(|| self.bad(line))?;
                let average = || value.parse().map_err(|_| self.bad(line));
                match key {
                    "avg10" => data.avg10 = average()?,
                    "avg60" => data.avg60 = average()?,
                    "avg300" => data.avg300 = average()?,
                    "total" => data.total = self.parse(value)?,
                    _ => {}
                }
            }
        }
        Ok(pressure)
    }
}

/// One number of a file; `None` when the file is not there.
pub(super) fn number(dir: &Dir, name: &str) -> Result<Option<u64>, Error> {
    File::read(dir, name)?.map(|f| f.number()).transpose()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::FakeDir;

    fn with<T>(text: &str, test: impl FnOnce(&File<'_>) -> T) -> T {
        let fake = FakeDir::new("parse", &[("file", text)]);
        let dir = fake.open();
        let file = File::read(&dir, "file").unwrap().unwrap();
        test(&file)
    }

    #[test]
    fn numbers_and_lists() {
        assert_eq!(with("42\n", |f| f.number().unwrap()), 42);
        assert_eq!(with("max\n", |f| f.number().unwrap()), u64::MAX);
        assert_eq!(with("-1\n", |f| f.number().unwrap()), 0);
        assert_eq!(with("1 2 3 \n", |f| f.numbers().unwrap()), [1, 2, 3]);
        assert_eq!(with("0-2,7\n", |f| f.list().unwrap()), [0, 1, 2, 7]);
        assert_eq!(with("\n", |f| f.list().unwrap()), Vec::<u16>::new());
        let text = with("x\n", |f| f.number().unwrap_err().to_string());
        assert!(text.contains("\"x\"") && text.contains("/file"), "{text}");
        assert_eq!(with("a 1\nb 2\n", |f| f.table().unwrap()).into_values().collect::<Vec<_>>(), [1, 2]);
    }

    #[test]
    fn pressure() {
        let text = "some avg10=1.50 avg60=0.25 avg300=0.00 total=77\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=5\n";
        let pressure = with(text, |f| f.pressure().unwrap());
        assert_eq!(pressure.some, PressureData { avg10: 1.5, avg60: 0.25, avg300: 0.0, total: 77 });
        assert_eq!(pressure.full.total, 5);
    }
}
