//! Where the files of an archive of images are read from: a tar, all of whose files are blobs of the store by then, or a directory.

use super::blob_name;
use crate::Error;
use crate::layer::{Kind, Reader};
use crate::progress::{Phase, Progress};
use crate::tree::Tree;
use rrt_content::{Ingest, Lease, Store, Writer};
use rrt_oci::image::Digest;
use std::collections::HashMap;
use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;

/// Files that an archive may have; one of Docker's older ones has three for each layer.
const MAX_FILES: usize = 100_000;
/// Links that lead to links.
const MAX_LINKS: usize = 8;

/// The files.
pub(super) enum Source<'a> {
    Tar { content: &'a Store, files: HashMap<String, File> },
    Directory { content: &'a Store, lease: &'a Lease, tree: Tree, progress: &'a dyn Progress },
}

/// A file of a tar.
pub(super) enum File {
    Blob(Digest, u64),
    /// Docker before 25 links layers that two images have in common.
    Link(String),
}

impl<'a> Source<'a> {
    /// Reads a tar to its end. Its files become blobs, which the lease holds until they are named or it ends.
    pub fn read(
        content: &'a Store,
        lease: &Lease,
        tar: impl Read,
        progress: &dyn Progress,
    ) -> Result<Source<'a>, Error> {
        let mut files = HashMap::new();
        let mut reader = Reader::new(BufReader::with_capacity(1 << 18, tar));
        while let Some(entry) = reader.next_entry()? {
            let Some(name) = clean(&entry.name) else { continue };
            let file = match entry.kind {
                Kind::File { size, extents: None } => {
                    File::Blob(ingest(content, lease, &name, size, &mut reader, progress)?, size)
                }
                Kind::Symlink(to) => File::Link(beside(&name, &to)),
                Kind::HardLink(to) => File::Link(clean(&to).unwrap_or_default()),
                _ => continue,
            };
            if files.len() >= MAX_FILES {
                return Err(Error::archive(name, format!("the archive has more than {MAX_FILES} files")));
            }
            files.insert(name, file);
        }
        Ok(Source::Tar { content, files })
    }

    /// Is there such a file?
    pub fn has(&self, name: &str) -> bool {
        match self {
            Source::Tar { files, .. } => files.contains_key(name),
            Source::Directory { tree, .. } => open(tree, name).is_ok(),
        }
    }

    /// A whole file, of at most `limit` bytes.
    pub fn document(&self, name: &str, limit: u64) -> Result<Vec<u8>, Error> {
        match self {
            Source::Tar { content, .. } => {
                let (digest, size) = self.blob(name)?;
                if size > limit {
                    return Err(Error::archive(name, format!("it has {size} bytes; a document has at most {limit}")));
                }
                Ok(content.read(&digest, limit)?)
            }
            Source::Directory { tree, .. } => {
                let mut bytes = Vec::new();
                let file = open(tree, name)?;
                file.take(limit + 1).read_to_end(&mut bytes).map_err(|e| Error::io(format!("read {name}"), e))?;
                if bytes.len() as u64 > limit {
                    return Err(Error::archive(name, format!("a document has at most {limit} bytes")));
                }
                Ok(bytes)
            }
        }
    }

    /// The blob that a file became.
    pub fn blob(&self, name: &str) -> Result<(Digest, u64), Error> {
        match self {
            Source::Tar { files, .. } => {
                let mut at = name;
                for _ in 0..MAX_LINKS {
                    match files.get(at) {
                        Some(File::Blob(digest, size)) => return Ok((digest.clone(), *size)),
                        Some(File::Link(to)) => at = to,
                        None if at == name => return Err(Error::archive(name, "the archive does not have it")),
                        None => {
                            return Err(Error::archive(
                                name,
                                format!("it is a link to {at:?}, which the archive does not have"),
                            ));
                        }
                    }
                }
                Err(Error::archive(name, "it is a link to a link, and so on"))
            }
            Source::Directory { content, lease, tree, progress } => {
                let file = open(tree, name)?;
                let size = file.metadata().map_err(|e| Error::io(format!("read {name}"), e))?.len();
                let mut reader = BufReader::with_capacity(1 << 18, file);
                let mut target = Destination::new(content, lease, name, size)?;
                copy(&mut reader, &mut target, name, size, *progress)?;
                Ok((target.finish(name)?, size))
            }
        }
    }

    /// The blob of a digest; a layout names it so, and its content has been verified then.
    pub fn by_digest(&self, digest: &Digest) -> Result<(Digest, u64), Error> {
        let name = blob_name(digest);
        let (found, size) = self.blob(&name)?;
        match found == *digest {
            true => Ok((found, size)),
            false => Err(Error::archive(name, format!("its content is {found}"))),
        }
    }
}

/// A file of a directory, reached through no link.
fn open(tree: &Tree, name: &str) -> Result<std::fs::File, Error> {
    let path = Path::new(name);
    let dir = tree.dir(path.parent().unwrap_or(Path::new("")))?;
    let file = dir.open_file(path.file_name().unwrap_or(OsStr::new(".")))?;
    match file.metadata().is_ok_and(|found| found.is_file()) {
        true => Ok(file),
        false => Err(Error::archive(name, "it is no regular file")),
    }
}

/// Where a blob goes: nowhere when the store has what its name says.
enum Destination {
    Known(Digest),
    New(Box<Writer>),
}

impl Destination {
    fn new(content: &Store, lease: &Lease, name: &str, size: u64) -> Result<Destination, Error> {
        let mut writer = match digest_of(name) {
            Some(digest) => match content.ingest(lease, &digest, Some(size))? {
                Ingest::Present => return Ok(Destination::Known(digest)),
                Ingest::Write(writer) => writer,
            },
            None => content.writer(lease)?,
        };
        // A part of it from a pull that was cut: it is all here now.
        writer.truncate()?;
        Ok(Destination::New(Box::new(writer)))
    }

    fn finish(self, name: &str) -> Result<Digest, Error> {
        match self {
            Destination::Known(digest) => Ok(digest),
            Destination::New(writer) => writer.commit().map_err(|e| match e {
                rrt_content::Error::Digest { found, .. } => Error::archive(name, format!("its content is {found}")),
                other => other.into(),
            }),
        }
    }
}

/// `blobs/sha256/<hex>`
fn digest_of(name: &str) -> Option<Digest> {
    let (algorithm, hex) = name.strip_prefix("blobs/")?.split_once('/')?;
    format!("{algorithm}:{hex}").parse().ok()
}

fn ingest(
    content: &Store,
    lease: &Lease,
    name: &str,
    size: u64,
    reader: &mut Reader<impl BufRead>,
    progress: &dyn Progress,
) -> Result<Digest, Error> {
    let mut target = Destination::new(content, lease, name, size)?;
    let id = id(name);
    let mut done = 0;
    loop {
        if progress.cancelled() {
            return Err(Error::Cancelled);
        }
        let data = reader.data()?;
        if data.is_empty() {
            return target.finish(name);
        }
        let n = data.len();
        if let Destination::New(writer) = &mut target {
            writer.append(data)?;
        }
        reader.consume(n);
        done += n as u64;
        progress.layer(&id, Phase::LoadingLayer, done, Some(size));
    }
}

fn copy(
    reader: &mut impl BufRead,
    target: &mut Destination,
    name: &str,
    size: u64,
    progress: &dyn Progress,
) -> Result<(), Error> {
    let Destination::New(writer) = target else { return Ok(()) };
    let id = id(name);
    let mut done = 0;
    loop {
        if progress.cancelled() {
            return Err(Error::Cancelled);
        }
        let data = reader.fill_buf().map_err(|e| Error::io(format!("read {name}"), e))?;
        if data.is_empty() {
            return Ok(());
        }
        let n = data.len();
        writer.write_all(data).map_err(|e| Error::io(format!("write the blob {name}"), e))?;
        reader.consume(n);
        done += n as u64;
        progress.layer(&id, Phase::LoadingLayer, done, Some(size));
    }
}

/// What a file is called on the screen: the first twelve digits of its digest, or the beginning of its name.
fn id(name: &str) -> String {
    let hex = digest_of(name).map(|digest| digest.short().to_owned());
    hex.unwrap_or_else(|| name.chars().filter(|c| !c.is_control()).take(12).collect())
}

/// A name as the documents have it; `None` of one that is no text or is outside.
fn clean(name: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(name).ok()?;
    let parts: Vec<&str> = text.split('/').filter(|part| !matches!(*part, "" | ".")).collect();
    (!text.starts_with('/') && !parts.is_empty() && !parts.contains(&"..")).then(|| parts.join("/"))
}

/// Where a link leads, in the archive; nowhere when it leads outside.
fn beside(name: &str, to: &[u8]) -> String {
    let Ok(to) = std::str::from_utf8(to) else { return String::new() };
    let mut parts: Vec<&str> = name.split('/').collect();
    parts.pop();
    for part in to.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                if parts.pop().is_none() {
                    return String::new();
                }
            }
            part => parts.push(part),
        }
    }
    if to.starts_with('/') { String::new() } else { parts.join("/") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stay_inside() {
        assert_eq!(clean(b"./a//b/").as_deref(), Some("a/b"));
        for bad in [&b"/a"[..], b"../a", b"a/../b", b".", b"", b"\xff"] {
            assert_eq!(clean(bad), None);
        }
        assert_eq!(beside("x/layer.tar", b"../y/layer.tar"), "y/layer.tar");
        assert_eq!(beside("x/layer.tar", b"../../etc/passwd"), "");
        assert_eq!(beside("x/layer.tar", b"/etc/passwd"), "");
    }
}
