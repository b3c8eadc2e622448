//! Docker's log driver `json-file`: one JSON object a line, `{"log":"…\n","stream":"stdout","time":"…"}`, in a file that is renamed when it is
//! full.
//!
//! A line of output is one entry. What is longer than [`LONGEST`] is several, of which only the last ends in `\n`, as Docker has it. A
//! line that a process has not ended is written when its stream ends.

use crate::log;
use crate::time;
use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// Bytes of output in one entry.
const LONGEST: usize = 16 << 10;

/// Which stream a piece of output is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Stream {
    Stdout = 1,
    Stderr = 2,
}

/// A log that is written.
pub struct JsonFile {
    path: PathBuf,
    file: File,
    /// Bytes in `file`.
    size: u64,
    limit: Option<u64>,
    files: u32,
    /// Lines that have begun, of stdout and stderr.
    begun: [Vec<u8>; 2],
    /// An entry as it is made.
    entry: Vec<u8>,
    failing: bool,
}

impl JsonFile {
    /// Opens the file or makes it (mode 0640). When an entry would make it longer than `limit` bytes, it becomes `PATH.1`, that
    /// `PATH.2`, and so on; `files` are kept with the one that is written.
    ///
    /// # Errors
    /// `open(2)`
    pub fn open(path: &Path, limit: Option<u64>, files: u32) -> io::Result<JsonFile> {
        let file = create(path)?;
        let size = file.metadata()?.len();
        let (path, files) = (path.to_owned(), files.max(1));
        Ok(JsonFile { path, file, size, limit, files, begun: Default::default(), entry: Vec::new(), failing: false })
    }

    /// Takes output. A full disk costs the lines that come meanwhile, and does not stop the process.
    pub fn write(&mut self, stream: Stream, mut data: &[u8]) {
        while let Some(end) = data.iter().position(|b| *b == b'\n').map(|at| at + 1) {
            self.take(stream, &data[..end]);
            data = &data[end..];
        }
        self.take(stream, data);
    }

    /// Writes what has begun.
    pub fn end(&mut self, stream: Stream) {
        let line = std::mem::take(&mut self.begun[stream as usize - 1]);
        if !line.is_empty() {
            self.append(stream, &line);
        }
    }

    /// A piece without a line's end but as its last byte.
    fn take(&mut self, stream: Stream, mut piece: &[u8]) {
        let mut line = std::mem::take(&mut self.begun[stream as usize - 1]);
        while line.len() + piece.len() > LONGEST {
            let (now, rest) = piece.split_at(LONGEST - line.len());
            line.extend_from_slice(now);
            self.append(stream, &line);
            line.clear();
            piece = rest;
        }
        line.extend_from_slice(piece);
        if line.last() == Some(&b'\n') {
            self.append(stream, &line);
            line.clear();
        }
        if line.capacity() > 512 && line.is_empty() {
            line = Vec::new();
        }
        self.begun[stream as usize - 1] = line;
    }

    fn append(&mut self, stream: Stream, line: &[u8]) {
        let mut entry = std::mem::take(&mut self.entry);
        entry.clear();
        entry.extend_from_slice(b"{\"log\":\"");
        escape(line, &mut entry);
        entry.extend_from_slice(match stream {
            Stream::Stdout => b"\",\"stream\":\"stdout\",\"time\":\"".as_slice(),
            Stream::Stderr => b"\",\"stream\":\"stderr\",\"time\":\"",
        });
        entry.extend_from_slice(time::rfc3339_nano().as_bytes());
        entry.extend_from_slice(b"\"}\n");
        if let Err(e) = self.put(&entry)
            && !std::mem::replace(&mut self.failing, true)
        {
            log::warn(format_args!("output is not logged: {}: {e}", self.path.display()));
        }
        self.entry = entry;
    }

    fn put(&mut self, entry: &[u8]) -> io::Result<()> {
        if self.limit.is_some_and(|limit| self.size > 0 && self.size + entry.len() as u64 > limit) {
            self.rotate()?;
        }
        // One write, so that whoever reads sees whole entries; what a full disk has cut is taken back.
        match self.file.write(entry) {
            Ok(n) if n == entry.len() => {
                self.size += n as u64;
                self.failing = false;
                Ok(())
            }
            Ok(_) => {
                self.file.set_len(self.size)?;
                Err(io::ErrorKind::StorageFull.into())
            }
            Err(e) => Err(e),
        }
    }

    fn rotate(&mut self) -> io::Result<()> {
        let name = |n: u32| PathBuf::from(format!("{}.{n}", self.path.display()));
        for n in (1..self.files.saturating_sub(1)).rev() {
            ignore_missing(std::fs::rename(name(n), name(n + 1)))?;
        }
        ignore_missing(match self.files {
            1 => std::fs::remove_file(&self.path),
            _ => std::fs::rename(&self.path, name(1)),
        })?;
        self.file = create(&self.path)?;
        self.size = 0;
        Ok(())
    }
}

fn create(path: &Path) -> io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt;
    File::options().append(true).create(true).mode(0o640).open(path)
}

fn ignore_missing(result: io::Result<()>) -> io::Result<()> {
    result.or_else(|e| if e.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(e) })
}

/// The inside of a JSON string, as Go's encoder has it; bytes that are no UTF-8 become U+FFFD.
fn escape(text: &[u8], into: &mut Vec<u8>) {
    for chunk in text.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '"' => into.extend_from_slice(b"\\\""),
                '\\' => into.extend_from_slice(b"\\\\"),
                '\n' => into.extend_from_slice(b"\\n"),
                '\r' => into.extend_from_slice(b"\\r"),
                '\t' => into.extend_from_slice(b"\\t"),
                '\0'..='\u{1f}' | '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => {
                    into.extend_from_slice(format!("\\u{:04x}", c as u32).as_bytes());
                }
                c => into.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
            }
        }
        if !chunk.invalid().is_empty() {
            into.extend_from_slice(b"\\ufffd");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Dir(PathBuf);

    impl Dir {
        fn new(name: &str) -> Dir {
            let path = std::env::temp_dir().join(format!("rrt-json-file-{name}-{}", std::process::id()));
            std::fs::create_dir(&path).unwrap();
            Dir(path)
        }

        /// The texts in a file.
        fn logged(&self, name: &str) -> Vec<(String, String)> {
            let text = std::fs::read_to_string(self.0.join(name)).unwrap_or_default();
            let entry = |line: &str| {
                let value: serde_json::Value = serde_json::from_str(line).unwrap();
                assert!(value["time"].as_str().unwrap().ends_with('Z'));
                (value["stream"].as_str().unwrap().to_owned(), value["log"].as_str().unwrap().to_owned())
            };
            text.lines().map(entry).collect()
        }
    }

    impl Drop for Dir {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn lines_are_entries() {
        let dir = Dir::new("lines");
        let mut log = JsonFile::open(&dir.0.join("log"), None, 1).unwrap();
        log.write(Stream::Stdout, b"one\ntw");
        log.write(Stream::Stderr, b"err\xff\"\\\t<\x01\n");
        log.write(Stream::Stdout, b"o\nrest");
        log.end(Stream::Stdout);
        log.end(Stream::Stdout);
        let text = |s: &str, t: &str| (s.to_owned(), t.to_owned());
        let expected = [
            text("stdout", "one\n"),
            text("stderr", "err\u{fffd}\"\\\t<\u{1}\n"),
            text("stdout", "two\n"),
            text("stdout", "rest"),
        ];
        assert_eq!(dir.logged("log"), expected);
    }

    #[test]
    fn a_long_line_is_several_entries() {
        let dir = Dir::new("long");
        let mut log = JsonFile::open(&dir.0.join("log"), None, 1).unwrap();
        log.write(Stream::Stdout, &vec![b'x'; LONGEST + 5]);
        log.write(Stream::Stdout, b"\n");
        let lengths: Vec<_> = dir.logged("log").iter().map(|(_, text)| text.len()).collect();
        assert_eq!(lengths, [LONGEST, 6]);
    }

    #[test]
    fn a_full_file_is_renamed() {
        let dir = Dir::new("rotate");
        let mut log = JsonFile::open(&dir.0.join("log"), Some(200), 3).unwrap();
        for n in 0..12 {
            log.write(Stream::Stdout, format!("line {n}\n").as_bytes());
        }
        let all: Vec<_> =
            ["log.2", "log.1", "log"].iter().flat_map(|name| dir.logged(name)).map(|(_, text)| text).collect();
        assert!(all.len() >= 4 && all.last().unwrap() == "line 11\n", "{all:?}");
        assert!(all.windows(2).all(|w| w[0].len() < w[1].len() || w[0] < w[1]), "in order: {all:?}");
        assert!(!dir.0.join("log.3").exists() && dir.0.join("log.1").metadata().unwrap().len() <= 200);
        let mut one = JsonFile::open(&dir.0.join("single"), Some(100), 1).unwrap();
        for n in 0..5 {
            one.write(Stream::Stdout, format!("{n}\n").as_bytes());
        }
        assert_eq!(dir.logged("single").len(), 1);
        assert!(!dir.0.join("single.1").exists());
    }
}
