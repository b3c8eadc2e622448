//! `-v`, `--mount` and `--tmpfs`: texts to mounts. Pure; whether a source exists is looked at when the container is made.

use crate::{Error, names};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// One mount that a user asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    /// Where in the container: absolute, without `.`, `..` and double slashes, never `/`.
    pub target: String,
    /// What is mounted there.
    pub source: Source,
    /// Not writable for the container.
    pub read_only: bool,
}

/// What a [`Mount`] shows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Source {
    /// A path of the host.
    Bind(Bind),
    /// A volume, by name, or one made for this container.
    Volume(Volume),
    /// A new, empty file system in memory.
    Tmpfs {
        /// Bytes; `None` is what the kernel takes: half of the memory.
        size: Option<u64>,
        /// Permissions of its root; Docker's is 1777.
        mode: Option<u32>,
        /// More of tmpfs(5)'s options, from `--tmpfs`.
        options: Vec<String>,
    },
    /// An image's files, read only.
    Image {
        /// The image, as the user wrote it.
        image: String,
        /// A directory of it.
        subpath: Option<String>,
    },
}

/// A path of the host in the container.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bind {
    /// Absolute.
    pub path: String,
    /// Make a directory there if there is nothing: `-v` does, `--mount` only when told.
    pub create: bool,
    /// `rprivate` when not said.
    pub propagation: Option<Propagation>,
    /// How mounts below the path are seen.
    pub below: Below,
    /// `z` or `Z`: an SELinux label, shared or private.
    pub relabel: Option<char>,
}

/// mount_namespaces(7), "Shared subtrees".
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs)]
pub enum Propagation {
    Private,
    RPrivate,
    Shared,
    RShared,
    Slave,
    RSlave,
}

/// The mounts below a bind's source.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Below {
    /// Bound, and read-only with the bind if the kernel can (5.12).
    #[default]
    Enabled,
    /// Left out.
    Disabled,
    /// Bound; read-only is the top alone.
    Writable,
    /// Bound, and an error if they can't be made read-only.
    Readonly,
}

/// A volume in the container.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Volume {
    /// `None`: anonymous.
    pub name: Option<String>,
    /// Don't copy what the image has at the target into a new volume.
    pub no_copy: bool,
    /// A directory of the volume.
    pub subpath: Option<String>,
    /// For a volume that doesn't exist yet.
    pub driver: Option<String>,
    /// The same.
    pub labels: BTreeMap<String, String>,
    /// The same: the driver's options.
    pub options: BTreeMap<String, String>,
}

impl Propagation {
    fn parse(text: &str) -> Option<Propagation> {
        Some(match text {
            "private" => Propagation::Private,
            "rprivate" => Propagation::RPrivate,
            "shared" => Propagation::Shared,
            "rshared" => Propagation::RShared,
            "slave" => Propagation::Slave,
            "rslave" => Propagation::RSlave,
            _ => return None,
        })
    }

    /// The runtime's mount option.
    pub fn option(self) -> &'static str {
        match self {
            Propagation::Private => "private",
            Propagation::RPrivate => "rprivate",
            Propagation::Shared => "shared",
            Propagation::RShared => "rshared",
            Propagation::Slave => "slave",
            Propagation::RSlave => "rslave",
        }
    }
}

impl Mount {
    /// `-v`: `TARGET`, `NAME:TARGET[:MODES]` or `/PATH:TARGET[:MODES]`; a path may begin with `.` and is then below `directory`.
    ///
    /// # Errors
    /// Too many parts, a target that isn't absolute or is `/`, an unknown mode or two that contradict each other, a bad name.
    pub fn volume(text: &str, directory: &str) -> Result<Mount, Error> {
        let invalid = |why: &str| Error::invalid("--volume", text, why);
        let parts: Vec<&str> = text.split(':').collect();
        let (source, target, modes) = match parts[..] {
            [target] => (None, target, ""),
            [source, target] => (Some(source), target, ""),
            [source, target, modes] => (Some(source), target, modes),
            _ => {
                return Err(invalid(
                    "expected [SOURCE:]TARGET[:MODES], in which no part has a colon; use --mount for such a path",
                ));
            }
        };
        let target = clean_target(target).map_err(|why| invalid(&why))?;
        let mut mount = match source {
            None => Mount { target, source: Source::Volume(Volume::default()), read_only: false },
            Some("") => return Err(invalid("the source before the colon is empty")),
            Some(path) if path.starts_with(['/', '.']) => {
                let bind = Bind { path: absolute(path, directory), create: true, ..Bind::default() };
                Mount { target, source: Source::Bind(bind), read_only: false }
            }
            Some(name) => {
                names::check(name).map_err(|_| {
                    invalid(&format!(
                        "{name:?} includes invalid characters for a local volume name, only \"[a-zA-Z0-9][a-zA-Z0-9_.-]\" are allowed. If you intended to pass a host directory, use absolute path"
                    ))
                })?;
                let volume = Volume { name: Some(name.to_owned()), ..Volume::default() };
                Mount { target, source: Source::Volume(volume), read_only: false }
            }
        };
        let mut access = None;
        for mode in modes.split(',').filter(|_| !modes.is_empty()) {
            match (mode, &mut mount.source) {
                ("ro" | "rw", _) if access.is_none() => access = Some(mode == "ro"),
                ("nocopy", Source::Volume(volume)) if !volume.no_copy => volume.no_copy = true,
                ("z" | "Z", Source::Bind(bind)) if bind.relabel.is_none() => bind.relabel = mode.chars().next(),
                // On a volume a label is the engine's business; accepted, as Docker does.
                ("z" | "Z", Source::Volume(_)) | ("consistent" | "cached" | "delegated", _) => {}
                (other, Source::Bind(bind)) if bind.propagation.is_none() && Propagation::parse(other).is_some() => {
                    bind.propagation = Propagation::parse(other);
                }
                _ => return Err(invalid(&format!("invalid mode: {modes} ({mode:?} is unknown here, or said twice)"))),
            }
        }
        mount.read_only = access == Some(true);
        Ok(mount)
    }

    /// `--tmpfs TARGET[:OPTIONS]`.
    ///
    /// # Errors
    /// A target as in [`Mount::volume`], a size or mode that is no number.
    pub fn tmpfs(text: &str) -> Result<Mount, Error> {
        let invalid = |why: &str| Error::invalid("--tmpfs", text, why);
        let (target, list) = text.split_once(':').unwrap_or((text, ""));
        let target = clean_target(target).map_err(|why| invalid(&why))?;
        let (mut size, mut mode, mut options, mut read_only) = (None, None, Vec::new(), false);
        for option in list.split(',').filter(|o| !o.is_empty()) {
            match option.split_once('=') {
                Some(("size", value)) if !value.ends_with('%') => {
                    size = Some(
                        bytes(value).ok_or_else(|| invalid("size is a number of bytes with an optional k, m or g"))?,
                    );
                }
                Some(("mode", value)) => {
                    mode = Some(u32::from_str_radix(value, 8).map_err(|_| invalid("mode is octal, such as 1777"))?);
                }
                None if option == "ro" => read_only = true,
                None if option == "rw" => read_only = false,
                _ => options.push(option.to_owned()),
            }
        }
        Ok(Mount { target, source: Source::Tmpfs { size, mode, options }, read_only })
    }

    /// `--mount type=…,source=…,target=…,…`, a line of comma-separated values with Docker's keys.
    ///
    /// # Errors
    /// An unknown key, one that the type doesn't have, a missing or bad target or source.
    pub fn long(text: &str, directory: &str) -> Result<Mount, Error> {
        let invalid = |why: String| Error::invalid("--mount", text, &why);
        let fields = csv(text).map_err(|why| invalid(why.to_owned()))?;
        let fields = fields.iter().map(|field| match field.split_once('=') {
            Some((key, value)) => (key.to_ascii_lowercase(), Some(value)),
            None => (field.to_ascii_lowercase(), None),
        });
        let fields: Vec<_> = fields.collect();
        let last =
            |names: &[&str]| fields.iter().rev().find(|(key, _)| names.contains(&key.as_str())).and_then(|(_, v)| *v);
        let target = last(&["target", "dst", "destination"]).ok_or_else(|| invalid("target is required".to_owned()))?;
        let target = clean_target(target).map_err(&invalid)?;
        let source = last(&["source", "src"]).filter(|s| !s.is_empty());
        let kind = last(&["type"]).unwrap_or("volume").to_ascii_lowercase();
        let source = match (kind.as_str(), source) {
            ("bind", Some(path)) => Source::Bind(Bind { path: absolute(path, directory), ..Bind::default() }),
            ("image", Some(image)) => Source::Image { image: image.to_owned(), subpath: None },
            ("bind" | "image", None) => return Err(invalid(format!("source is required when type is {kind}"))),
            ("volume", name) => {
                let name = name.map(names::check).transpose().map_err(|e| invalid(e.to_string()))?;
                Source::Volume(Volume { name: name.map(str::to_owned), ..Volume::default() })
            }
            ("tmpfs", None) => Source::Tmpfs { size: None, mode: None, options: Vec::new() },
            ("tmpfs", Some(_)) => return Err(invalid("a tmpfs has no source".to_owned())),
            _ => return Err(invalid(format!("invalid mount type {kind:?}: bind, volume, tmpfs or image"))),
        };
        let mut mount = Mount { target, source, read_only: false };
        for (key, value) in &fields {
            mount.set(key, *value, &kind).map_err(&invalid)?;
        }
        Ok(mount)
    }

    fn set(&mut self, key: &str, value: Option<&str>, kind: &str) -> Result<(), String> {
        let switch = || match value {
            None | Some("true" | "1") => Ok(true),
            Some("false" | "0") => Ok(false),
            Some(other) => Err(format!("invalid value for {key}: {other} (true or false)")),
        };
        let text = || value.filter(|v| !v.is_empty()).ok_or_else(|| format!("{key} needs a value"));
        match (key, &mut self.source) {
            ("type" | "source" | "src" | "target" | "dst" | "destination", _) => text().map(drop)?,
            ("consistency", _) => {}
            ("readonly" | "ro", _) => self.read_only = switch()?,
            ("bind-propagation", Source::Bind(bind)) => {
                bind.propagation = Some(Propagation::parse(text()?).ok_or_else(|| {
                    format!(
                        "invalid propagation {:?}: shared, slave, private, or one of them after an r",
                        value.unwrap_or_default()
                    )
                })?);
            }
            ("bind-nonrecursive", Source::Bind(bind)) => {
                bind.below = if switch()? { Below::Disabled } else { Below::Enabled };
            }
            ("bind-recursive", Source::Bind(bind)) => {
                bind.below = match text()? {
                    "enabled" => Below::Enabled,
                    "disabled" => Below::Disabled,
                    "writable" => Below::Writable,
                    "readonly" => Below::Readonly,
                    other => {
                        return Err(format!(
                            "invalid value for {key}: {other} (enabled, disabled, writable or readonly)"
                        ));
                    }
                };
            }
            ("bind-create-src", Source::Bind(bind)) => bind.create = switch()?,
            ("volume-nocopy", Source::Volume(volume)) => volume.no_copy = switch()?,
            ("volume-subpath", Source::Volume(volume)) => volume.subpath = Some(inside(key, text()?)?),
            ("image-subpath", Source::Image { subpath, .. }) => *subpath = Some(inside(key, text()?)?),
            ("volume-driver", Source::Volume(volume)) => volume.driver = Some(text()?.to_owned()),
            ("volume-label", Source::Volume(volume)) => {
                let (name, value) = text()?.split_once('=').unwrap_or((value.unwrap_or_default(), ""));
                volume.labels.insert(name.to_owned(), value.to_owned());
            }
            ("volume-opt", Source::Volume(volume)) => {
                let (name, value) = text()?.split_once('=').ok_or_else(|| format!("{key} needs NAME=VALUE"))?;
                volume.options.insert(name.to_owned(), value.to_owned());
            }
            ("tmpfs-size", Source::Tmpfs { size, .. }) => {
                *size = Some(bytes(text()?).ok_or_else(|| {
                    format!("invalid value for {key}: {} (bytes, or with k, m, g)", value.unwrap_or_default())
                })?);
            }
            ("tmpfs-mode", Source::Tmpfs { mode, .. }) => {
                let number = u32::from_str_radix(text()?, 8);
                *mode = Some(
                    number.map_err(|_| format!("invalid value for {key}: {} (octal)", value.unwrap_or_default()))?,
                );
            }
            (key, _) if OWNED.iter().any(|prefix| key.starts_with(prefix)) => {
                return Err(format!("cannot mix {key} with mount type {kind:?}"));
            }
            (key, _) => return Err(format!("unexpected key {key:?}")),
        }
        Ok(())
    }
}

/// What begins the keys that belong to one type of mount.
const OWNED: [&str; 4] = ["bind-", "volume-", "tmpfs-", "image-"];

/// A path below a volume or image, which `..` must not leave.
fn inside(key: &str, path: &str) -> Result<String, String> {
    match path.starts_with('/') || path.split('/').any(|part| part == "..") {
        true => Err(format!("{key} must be a relative path without ..: {path:?}")),
        false => Ok(path.to_owned()),
    }
}

/// Lexically absolute; symlinks are the kernel's business.
fn absolute(path: &str, directory: &str) -> String {
    match path.starts_with('/') {
        true => clean(path),
        false => clean(&format!("{directory}/{path}")),
    }
}

fn clean(path: &str) -> String {
    let mut parts = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            other => parts.push(other),
        }
    }
    format!("/{}", parts.join("/"))
}

fn clean_target(path: &str) -> Result<String, String> {
    if !path.starts_with('/') {
        return Err(format!("invalid mount path: '{path}' mount path must be absolute"));
    }
    match clean(path) {
        root if root == "/" => Err("invalid specification: destination can't be '/'".to_owned()),
        path => Ok(path),
    }
}

/// A size in bytes, as Docker's flags take it: a number, with a fraction or not, and b, k, m, g, t or p, with `b` or `ib` after it.
pub fn bytes(text: &str) -> Option<u64> {
    let lower = text.trim().to_ascii_lowercase();
    let end = lower.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(lower.len());
    let (number, unit) = (&lower[..end], lower[end..].trim());
    let factor: u64 = match unit.strip_suffix("ib").or_else(|| unit.strip_suffix('b')).unwrap_or(unit) {
        "" => 1,
        "k" => 1 << 10,
        "m" => 1 << 20,
        "g" => 1 << 30,
        "t" => 1 << 40,
        "p" => 1 << 50,
        _ => return None,
    };
    match number.parse::<u64>() {
        Ok(whole) => whole.checked_mul(factor),
        // Up to 2^53 exact, which is more than any limit there is.
        Err(_) => number.parse::<f64>().ok().map(|n| n * factor as f64).filter(|n| *n < 9e15).map(|n| n as u64),
    }
}

/// One line of RFC 4180: fields in quotes may have commas, and a quote by doubling it.
fn csv(line: &str) -> Result<Vec<String>, &'static str> {
    let mut fields = Vec::new();
    let mut rest = line;
    loop {
        match rest.strip_prefix('"') {
            None => {
                let end = rest.find(',').unwrap_or(rest.len());
                if rest[..end].contains('"') {
                    return Err("a quote inside of an unquoted field; put the whole key=value in quotes");
                }
                fields.push(rest[..end].trim_matches(' ').to_owned());
                rest = &rest[end..];
            }
            Some(mut quoted) => {
                let mut field = String::new();
                loop {
                    let end = quoted.find('"').ok_or("a quote is not closed")?;
                    field.push_str(&quoted[..end]);
                    quoted = &quoted[end + 1..];
                    match quoted.strip_prefix('"') {
                        Some(more) => {
                            field.push('"');
                            quoted = more;
                        }
                        None => break,
                    }
                }
                fields.push(field);
                rest = quoted;
            }
        }
        match rest.strip_prefix(',') {
            Some(more) => rest = more,
            None if rest.is_empty() => return Ok(fields),
            None => return Err("text after a closing quote"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn volume(text: &str) -> Mount {
        Mount::volume(text, "/work").unwrap()
    }

    #[test]
    fn the_forms_of_v() {
        assert_eq!(volume("/test").source, Source::Volume(Volume::default()));
        let named = Volume { name: Some("data".to_owned()), no_copy: true, ..Volume::default() };
        assert_eq!(
            volume("data:/test/:nocopy,ro"),
            Mount { target: "/test".to_owned(), source: Source::Volume(named), read_only: true }
        );
        let bind = Bind {
            path: "/home".to_owned(),
            create: true,
            propagation: Some(Propagation::RSlave),
            relabel: Some('z'),
            ..Bind::default()
        };
        assert_eq!(
            volume("/home:/test:ro,z,rslave"),
            Mount { target: "/test".to_owned(), source: Source::Bind(bind), read_only: true }
        );
        let Source::Bind(bind) = volume("./a/../b:/x").source else { panic!() };
        assert_eq!(bind.path, "/work/b");
    }

    #[test]
    fn the_forms_of_v_that_are_refused() {
        for (bad, why) in [
            ("a:b:c:d", "no part has a colon"),
            ("test", "must be absolute"),
            ("a:b", "must be absolute"),
            ("/", "destination can't be '/'"),
            ("/a:/b/..", "destination can't be '/'"),
            (":/b", "empty"),
            ("a/b:/c", "use absolute path"),
            ("/a:/b:ro,rw", "invalid mode"),
            ("/a:/b:wat", "invalid mode"),
            ("vol:/b:rslave", "invalid mode"),
            ("/a:/b:nocopy", "invalid mode"),
        ] {
            let error = Mount::volume(bad, "/").expect_err(bad).to_string();
            assert!(error.contains(why) && error.contains("--volume"), "{bad}: {error}");
        }
    }

    #[test]
    fn the_keys_of_mount() {
        let mount = |text: &str| Mount::long(text, "/").unwrap();
        let bind = mount("type=bind,src=/a,dst=/b,ro,bind-propagation=shared,bind-recursive=readonly,bind-create-src");
        let expected = Bind {
            path: "/a".to_owned(),
            create: true,
            propagation: Some(Propagation::Shared),
            below: Below::Readonly,
            relabel: None,
        };
        assert_eq!(bind, Mount { target: "/b".to_owned(), source: Source::Bind(expected), read_only: true });
        let Source::Volume(volume) =
            mount("source=vol,target=/b,\"volume-opt=o=a,b\",volume-label=k=v,volume-subpath=x/y").source
        else {
            panic!()
        };
        assert_eq!(volume.options["o"], "a,b");
        assert_eq!((volume.labels["k"].as_str(), volume.subpath.as_deref()), ("v", Some("x/y")));
        let tmpfs = Source::Tmpfs { size: Some(64 << 20), mode: Some(0o770), options: vec![] };
        assert_eq!(mount("type=tmpfs,target=/t,tmpfs-size=64m,tmpfs-mode=0770").source, tmpfs);
        assert_eq!(
            mount("type=image,source=a:b,target=/t").source,
            Source::Image { image: "a:b".to_owned(), subpath: None }
        );
        assert!(!mount("target=/t,readonly=false").read_only);
    }

    #[test]
    fn mounts_that_are_refused() {
        for (bad, why) in [
            ("", "target is required"),
            ("type=bind,target=/a", "source is required"),
            ("type=nfs,target=/a", "invalid mount type"),
            ("type=tmpfs,target=/a,source=x", "no source"),
            ("target=/a,bind-propagation=shared", "cannot mix"),
            ("target=/a,wat=1", "unexpected key"),
            ("target=/a,ro=maybe", "true or false"),
            ("target=/a,volume-subpath=../x", "without .."),
            ("type=tmpfs,target=/a,tmpfs-size=x", "tmpfs-size"),
            ("target=/a,\"b", "not closed"),
            ("target=/", "destination can't be '/'"),
        ] {
            let error = Mount::long(bad, "/").expect_err(bad).to_string();
            assert!(error.contains(why), "{bad}: {error}");
        }
    }

    #[test]
    fn tmpfs_and_sizes() {
        let tmpfs = Mount::tmpfs("/run:rw,noexec,size=65536k,mode=755").unwrap();
        let source = Source::Tmpfs { size: Some(64 << 20), mode: Some(0o755), options: vec!["noexec".to_owned()] };
        assert_eq!(tmpfs, Mount { target: "/run".to_owned(), source, read_only: false });
        assert!(Mount::tmpfs("/run:size=x").is_err());
        for (text, size) in
            [("0", 0), ("1", 1), ("2k", 2048), ("1.5G", 3 << 29), ("500M", 500 << 20), ("3 KiB", 3072), ("7b", 7)]
        {
            assert_eq!(bytes(text), Some(size), "{text}");
        }
        for bad in ["", "k", "-1", "1x", "1kk", "99999999999999999999p"] {
            assert_eq!(bytes(bad), None, "{bad}");
        }
    }
}
