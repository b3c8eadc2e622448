//! The repositories that `berth registry serve` offers: which of the store's blobs, manifests and tags each has.
//!
//! They are files under `registry/<name>/`, one a fact, so that many pushes at once change no common file and each change is whole:
//!
//! ```text
//! _blobs/<algorithm>-<hex>                 the repository has this blob; the time is that of its last use by a push
//! _manifests/<algorithm>-<hex>             it has this manifest; the content is its media type
//! _tags/<tag>                              the content is the manifest's digest
//! _referrers/<of the subject>/<manifest>   the manifest refers to the subject
//! ```
//!
//! No component of a name begins with `_` (distribution-spec, "Pulling manifests"), so nothing collides. They are not images: what was
//! pushed here is pulled before it runs, as from any registry, and finds its blobs in the store already. A repository shows only what was
//! pushed or mounted to it, never that the store has a blob for another reason.

use crate::names::Error;
use rrt_content::{Exclusive, Store};
use rrt_oci::image::{Digest, Index, Manifest, Reference, media_type};
use std::collections::{BTreeSet, HashSet};
use std::fs::{self, File, FileTimes, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// A manifest or index has at most so many bytes (distribution-spec, "Pushing Manifests").
pub const MANIFEST_LIMIT: u64 = 4 << 20;

/// A repository's name, checked: components of lower-case letters and digits.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Name(String);

impl Name {
    /// `None` when it is none (distribution-spec, "Pulling manifests").
    pub fn new(text: &str) -> Option<Name> {
        let reference: Reference = format!("localhost/{text}").parse().ok()?;
        let whole = reference.repository() == text && reference.tag().is_none() && reference.digest().is_none();
        whole.then(|| Name(text.to_owned()))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Can this be a tag?
    pub fn is_tag(text: &str) -> bool {
        let any: Result<Reference, _> = "localhost/any".parse();
        any.is_ok_and(|any| any.with_tag(text).is_ok())
    }
}

/// What a manifest or index refers to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Refers {
    /// Configuration and layers, but those that are elsewhere (`urls`).
    pub blobs: Vec<Digest>,
    /// An index's manifests.
    pub manifests: Vec<Digest>,
    /// What it is about.
    pub subject: Option<Digest>,
}

impl Refers {
    /// Of a document of this media type; the reason when it is not one.
    pub fn of(kind: &str, bytes: &[u8]) -> Result<Refers, String> {
        let invalid = |e: serde_json::Error| e.to_string();
        let same = |found: &str| match found.is_empty() || found == kind {
            true => Ok(()),
            false => Err(format!("its mediaType is {found}, but it was sent as {kind}")),
        };
        match kind {
            media_type::OCI_MANIFEST | media_type::DOCKER_MANIFEST => {
                let document: Manifest = serde_json::from_slice(bytes).map_err(invalid)?;
                same(&document.media_type)?;
                let here = document.layers.iter().filter(|layer| layer.urls.is_empty());
                let blobs = [&document.config].into_iter().chain(here).map(|d| d.digest.clone()).collect();
                Ok(Refers { blobs, manifests: Vec::new(), subject: document.subject.map(|subject| subject.digest) })
            }
            media_type::OCI_INDEX | media_type::DOCKER_LIST => {
                let document: Index = serde_json::from_slice(bytes).map_err(invalid)?;
                same(&document.media_type)?;
                let manifests = document.manifests.into_iter().map(|d| d.digest).collect();
                Ok(Refers { blobs: Vec::new(), manifests, subject: document.subject.map(|subject| subject.digest) })
            }
            media_type::DOCKER_SCHEMA1 | media_type::DOCKER_SCHEMA1_SIGNED => {
                Err("schema 1 is not supported: push it with a newer client".to_owned())
            }
            _ => Err(format!("the media type {kind:?} is no manifest's")),
        }
    }
}

/// The repositories of one root.
#[derive(Clone, Debug)]
pub struct Repositories {
    content: Store,
}

impl Repositories {
    /// Those beside this content.
    pub fn new(content: &Store) -> Repositories {
        Repositories { content: content.clone() }
    }

    fn top(&self) -> PathBuf {
        self.content.root().join("registry")
    }

    fn directory(&self, name: &Name, kind: &str) -> PathBuf {
        self.top().join(&name.0).join(kind)
    }

    /// The repository has the blob from now on; a running push keeps it for `collect`'s grace. The caller's lease holds the blob.
    pub fn add_blob(&self, name: &Name, digest: &Digest) -> Result<(), Error> {
        let path = self.directory(name, "_blobs").join(file_name(digest));
        make_parent(&path)?;
        let mut options = OpenOptions::new();
        let file = options.write(true).create(true).truncate(true).mode(0o600).open(&path).at("make", &path)?;
        touch(&file, &path)
    }

    /// Does the repository have the blob? If so, it counts as used now.
    pub fn has_blob(&self, name: &Name, digest: &Digest) -> Result<bool, Error> {
        let path = self.directory(name, "_blobs").join(file_name(digest));
        match OpenOptions::new().write(true).open(&path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
            opened => touch(&opened.at("open", &path)?, &path).map(|()| self.content.has(digest)),
        }
    }

    /// Says whether it had the blob.
    pub fn remove_blob(&self, name: &Name, digest: &Digest) -> Result<bool, Error> {
        remove(&self.directory(name, "_blobs").join(file_name(digest)))
    }

    /// The repository has the manifest from now on, by its digest and, if one is given, by a tag. The caller's lease holds it and all
    /// that it refers to.
    pub fn add_manifest(
        &self,
        name: &Name,
        digest: &Digest,
        kind: &str,
        refers: &Refers,
        tag: Option<&str>,
    ) -> Result<(), Error> {
        if let Some(subject) = &refers.subject {
            let of_subject = self.directory(name, "_referrers").join(file_name(subject));
            self.write(&of_subject.join(file_name(digest)), "")?;
        }
        self.write(&self.directory(name, "_manifests").join(file_name(digest)), kind)?;
        tag.map_or(Ok(()), |tag| self.write(&self.directory(name, "_tags").join(tag), digest.as_str()))
    }

    /// The media type of a manifest that the repository has.
    pub fn manifest(&self, name: &Name, digest: &Digest) -> Result<Option<String>, Error> {
        read(&self.directory(name, "_manifests").join(file_name(digest)))
    }

    /// Takes a manifest away, with the tags that mean it. Says whether it was there.
    pub fn remove_manifest(&self, name: &Name, digest: &Digest) -> Result<bool, Error> {
        for tag in self.tags(name)? {
            if self.tag(name, &tag)?.as_ref() == Some(digest) {
                self.remove_tag(name, &tag)?;
            }
        }
        for subject in list(&self.directory(name, "_referrers"))? {
            remove(&self.directory(name, "_referrers").join(subject).join(file_name(digest)))?;
        }
        remove(&self.directory(name, "_manifests").join(file_name(digest)))
    }

    /// What a tag means.
    pub fn tag(&self, name: &Name, tag: &str) -> Result<Option<Digest>, Error> {
        Ok(read(&self.directory(name, "_tags").join(tag))?.and_then(|text| text.parse().ok()))
    }

    /// Says whether the tag was there.
    pub fn remove_tag(&self, name: &Name, tag: &str) -> Result<bool, Error> {
        remove(&self.directory(name, "_tags").join(tag))
    }

    /// The tags, in the order of their bytes.
    pub fn tags(&self, name: &Name) -> Result<BTreeSet<String>, Error> {
        list(&self.directory(name, "_tags"))
    }

    /// The manifests that refer to a subject, which itself need not be there.
    pub fn referrers(&self, name: &Name, subject: &Digest) -> Result<Vec<Digest>, Error> {
        digests(&self.directory(name, "_referrers").join(file_name(subject)))
    }

    /// Has anything been pushed there?
    pub fn exists(&self, name: &Name) -> Result<bool, Error> {
        Ok(!list(&self.directory(name, "_manifests"))?.is_empty())
    }

    /// The repositories that have a manifest, in the order of their bytes.
    pub fn catalog(&self) -> Result<BTreeSet<String>, Error> {
        let mut names = BTreeSet::new();
        for name in self.all()? {
            if self.exists(&name)? {
                names.insert(name.0);
            }
        }
        Ok(names)
    }

    /// Every directory that is a repository's.
    fn all(&self) -> Result<Vec<Name>, Error> {
        let mut names = Vec::new();
        let mut open = list(&self.top())?;
        while let Some(text) = open.pop_first() {
            let Some(name) = Name::new(&text) else { continue };
            let inside = list(&self.top().join(&text))?;
            let (own, below): (Vec<_>, Vec<_>) = inside.into_iter().partition(|entry| entry.starts_with('_'));
            open.extend(below.into_iter().map(|entry| format!("{text}/{entry}")));
            if !own.is_empty() {
                names.push(name);
            }
        }
        Ok(names)
    }

    /// The blobs that must stay: all that any repository has. First takes from each the blobs that none of its manifests has and
    /// that no push has used for `grace`.
    pub(crate) fn roots(&self, lock: &Exclusive, grace: Duration) -> Result<HashSet<Digest>, Error> {
        let mut roots = HashSet::new();
        let held = self.content.held(lock)?;
        for name in self.all()? {
            let mut needed = HashSet::new();
            let mut whole = true;
            for digest in digests(&self.directory(&name, "_manifests"))? {
                match self.refers(&name, &digest) {
                    Some(refers) => needed.extend(refers.blobs),
                    // Damaged: then nobody knows what it needs.
                    None => whole = false,
                }
                roots.insert(digest);
            }
            for digest in digests(&self.directory(&name, "_blobs"))? {
                let path = self.directory(&name, "_blobs").join(file_name(&digest));
                if whole && !needed.contains(&digest) && !held.contains(&digest) && idle(&path) > grace {
                    remove(&path)?;
                } else {
                    roots.insert(digest);
                }
            }
        }
        Ok(roots)
    }

    fn refers(&self, name: &Name, digest: &Digest) -> Option<Refers> {
        let kind = self.manifest(name, digest).ok()??;
        let bytes = self.content.read(digest, MANIFEST_LIMIT).ok()?;
        Refers::of(&kind, &bytes).ok()
    }

    /// A file with this content, at once and on the disk.
    fn write(&self, path: &Path, text: &str) -> Result<(), Error> {
        let temp = self.content.temp()?;
        let new = temp.path().join("new");
        let written = fs::write(&new, text).and_then(|()| File::open(&new)?.sync_data());
        written.at("write", &new)?;
        make_parent(path)?;
        Ok(fs::rename(&new, path).at("rename to", path)?)
    }
}

fn file_name(digest: &Digest) -> String {
    format!("{}-{}", digest.algorithm(), digest.hex())
}

fn digests(directory: &Path) -> Result<Vec<Digest>, Error> {
    Ok(list(directory)?.iter().filter_map(|name| name.replacen('-', ":", 1).parse().ok()).collect())
}

/// The names in a directory, none when there is no directory.
fn list(directory: &Path) -> Result<BTreeSet<String>, Error> {
    let entries = match fs::read_dir(directory) {
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(BTreeSet::new());
        }
        read => read.at("list", directory)?,
    };
    let name = |entry: io::Result<fs::DirEntry>| entry.map(|entry| entry.file_name().into_string().ok());
    Ok(entries.filter_map(|entry| name(entry).transpose()).collect::<Result<_, _>>().at("list", directory)?)
}

fn read(path: &Path) -> Result<Option<String>, Error> {
    match fs::read_to_string(path) {
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(None),
        read => Ok(read.map(Some).at("read", path)?),
    }
}

fn remove(path: &Path) -> Result<bool, Error> {
    match fs::remove_file(path) {
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(false),
        removed => Ok(removed.map(|()| true).at("remove", path)?),
    }
}

fn make_parent(path: &Path) -> Result<(), Error> {
    let parent = path.parent().unwrap_or(path);
    Ok(fs::create_dir_all(parent).at("make the directory", parent)?)
}

fn touch(file: &File, path: &Path) -> Result<(), Error> {
    Ok(file.set_times(FileTimes::new().set_modified(SystemTime::now())).at("touch", path)?)
}

fn idle(path: &Path) -> Duration {
    let modified = fs::metadata(path).and_then(|about| about.modified());
    modified.ok().and_then(|at| SystemTime::now().duration_since(at).ok()).unwrap_or_default()
}

/// Says what was done to which file when it failed.
trait At<T> {
    fn at(self, doing: &'static str, path: &Path) -> Result<T, rrt_content::Error>;
}

impl<T> At<T> for io::Result<T> {
    fn at(self, doing: &'static str, path: &Path) -> Result<T, rrt_content::Error> {
        self.map_err(|e| rrt_content::Error::io(doing, path, e))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_tags() {
        for good in ["a", "library/busybox", "a.b/c-d__e/f"] {
            assert!(Name::new(good).is_some(), "{good}");
        }
        for bad in [
            "",
            "A",
            "_tags",
            "a/_tags",
            "a/../b",
            "a//b",
            "/a",
            "a/",
            ".",
            "a:1",
            "a@sha256:12",
            "a b",
            &"a/".repeat(150),
        ] {
            assert!(Name::new(bad).is_none(), "{bad}");
        }
        assert!(Name::is_tag("_1.0-x") && !Name::is_tag("../x") && !Name::is_tag("") && !Name::is_tag(".x"));
    }

    #[test]
    fn what_documents_refer_to() {
        let digest = |c: &str| format!("sha256:{}", c.repeat(64));
        let (a, b, c) = (digest("a"), digest("b"), digest("c"));
        let manifest = format!(
            r#"{{"schemaVersion":2,"config":{{"digest":"{a}","size":1}},"layers":[{{"digest":"{b}","size":1}},{{"digest":"{c}","size":1,"urls":["http://x"]}}],
            "subject":{{"digest":"{c}","size":1}}}}"#
        );
        let refers = Refers::of(media_type::OCI_MANIFEST, manifest.as_bytes()).unwrap();
        assert_eq!(refers.blobs, [a.parse().unwrap(), b.parse().unwrap()]);
        assert_eq!(refers.subject, Some(c.parse().unwrap()));
        let index = format!(
            r#"{{"schemaVersion":2,"mediaType":"{}","manifests":[{{"digest":"{a}","size":1}}]}}"#,
            media_type::OCI_INDEX
        );
        assert_eq!(Refers::of(media_type::OCI_INDEX, index.as_bytes()).unwrap().manifests, [a.parse().unwrap()]);
        for (kind, text, why) in [
            (media_type::DOCKER_LIST, index.as_str(), "its mediaType is"),
            (media_type::OCI_MANIFEST, "{}", "missing field"),
            (media_type::DOCKER_SCHEMA1_SIGNED, "{}", "schema 1"),
            ("text/html", "<html>", "no manifest's"),
        ] {
            assert!(Refers::of(kind, text.as_bytes()).unwrap_err().contains(why), "{kind}");
        }
    }
}
