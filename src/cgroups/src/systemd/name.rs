//! The unit of a container, from `linux.cgroupsPath` in the form `slice:prefix:name`.

use crate::Error;
use std::path::PathBuf;

const PROPERTY: &str = "linux.cgroupsPath";
/// systemd's limit on the length of a unit name (`UNIT_NAME_MAX`).
const NAME_MAX: usize = 255;

/// Whether a container gets a unit for its processes, or a whole branch of the tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Scope,
    Slice,
}

/// A unit's name and its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct UnitName {
    pub(crate) kind: Kind,
    /// With the ending, as `rrt-box.scope`.
    pub(crate) name: String,
    /// The slice it is in, as `machine-a.slice`.
    pub(crate) slice: String,
    /// Its cgroup below that of the service manager, without leading slash.
    pub(crate) path: PathBuf,
}

impl UnitName {
    /// Reads `linux.cgroupsPath`; missing or empty it means `:rrt:ID`. `user`: the manager is a user's.
    ///
    /// # Errors
    /// [`Error::Invalid`]
    pub(crate) fn parse(path: Option<&str>, id: &str, user: bool) -> Result<UnitName, Error> {
        let invalid = |reason: String| Error::invalid(PROPERTY, reason);
        let default_slice = if user { "user.slice" } else { "system.slice" };
        let Some(path) = path.filter(|p| !p.is_empty()) else {
            // An id may have letters that a unit's name may not.
            let name = format!("rrt-{}.scope", escape(id));
            return UnitName::scope(name, default_slice).map_err(invalid);
        };
        let parts: Vec<&str> = path.split(':').collect();
        let [slice, prefix, name] = parts[..] else {
            return Err(invalid(format!(
                "expected cgroupsPath to be of format \"slice:prefix:name\" for systemd cgroups, got {path:?} instead"
            )));
        };
        if name.is_empty() {
            return Err(invalid(format!("{path:?} has no name; use \"slice:prefix:name\"")));
        }
        let slice = match slice {
            "" => default_slice.to_owned(),
            "-" => "-.slice".to_owned(),
            other => other.to_owned(),
        };
        let unit = match name.ends_with(".slice") {
            // Its place follows from its own name.
            true => expand_slice(name).and_then(|path| {
                expand_slice(&slice)?;
                check(name)?;
                Ok(UnitName { kind: Kind::Slice, name: name.to_owned(), slice: slice.clone(), path })
            }),
            false => UnitName::scope(format!("{prefix}-{name}.scope"), &slice),
        };
        unit.map_err(|reason| invalid(format!("{path:?}: {reason}")))
    }

    fn scope(name: String, slice: &str) -> Result<UnitName, String> {
        check(&name)?;
        let path = expand_slice(slice)?.join(cgroup_name(&name));
        Ok(UnitName { kind: Kind::Scope, name, slice: slice.to_owned(), path })
    }
}

fn is_name_byte(b: u8) -> bool {
    b.is_ascii_alphanumeric() || b":-_.\\@".contains(&b)
}

/// Whether systemd takes the name (systemd.unit(5), "Description").
fn check(name: &str) -> Result<(), String> {
    match name.bytes().all(is_name_byte) {
        _ if name.len() > NAME_MAX => Err(format!("the unit name {name:?} is longer than {NAME_MAX} bytes")),
        true => Ok(()),
        false => Err(format!("the unit name {name:?} may have letters, digits and \":-_.\\@\" only")),
    }
}

/// systemd.unit(5), "String Escaping for Inclusion in Unit Names".
fn escape(text: &str) -> String {
    let one = |b: u8| match b {
        b if is_name_byte(b) && b != b'\\' && b != b'@' => char::from(b).to_string(),
        b => format!("\\x{b:02x}"),
    };
    text.bytes().map(one).collect()
}

/// Where a slice lies: `a-b.slice` in `a.slice/a-b.slice` (systemd.slice(5)).
fn expand_slice(slice: &str) -> Result<PathBuf, String> {
    let invalid = || {
        format!(
            "invalid slice name: {slice} (as \"a-b.slice\": names joined by single dashes, no slash, and the ending)"
        )
    };
    let stem = slice.strip_suffix(".slice").ok_or_else(invalid)?;
    if stem == "-" {
        return Ok(PathBuf::new());
    }
    check(slice)?;
    let (mut path, mut prefix) = (PathBuf::new(), String::new());
    for part in stem.split('-') {
        if part.is_empty() {
            return Err(invalid());
        }
        prefix += part;
        path.push(cgroup_name(&format!("{prefix}.slice")));
        prefix.push('-');
    }
    Ok(path)
}

/// The directory that systemd gives a unit: an underscore goes before a name that the kernel could take for a file of its
/// own (`cg_escape` of systemd).
fn cgroup_name(unit: &str) -> String {
    const CONTROLLERS: [&str; 12] = [
        "cpu",
        "cpuacct",
        "cpuset",
        "io",
        "blkio",
        "memory",
        "devices",
        "pids",
        "bpf-firewall",
        "bpf-devices",
        "bpf-foreign",
        "cgroup",
    ];
    let of_kernel = unit.split_once('.').is_some_and(|(first, _)| CONTROLLERS.contains(&first));
    if unit.starts_with(['_', '.']) || of_kernel { format!("_{unit}") } else { unit.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(path: &str, id: &str, user: bool) -> Result<(String, String, String), String> {
        let unit = UnitName::parse(Some(path), id, user).map_err(|e| e.to_string())?;
        Ok((unit.name, unit.slice, unit.path.to_str().unwrap().to_owned()))
    }

    #[test]
    fn names_and_places() {
        for (path, user, expected) in [
            ("", false, ("rrt-box.scope", "system.slice", "system.slice/rrt-box.scope")),
            ("", true, ("rrt-box.scope", "user.slice", "user.slice/rrt-box.scope")),
            (":rrt:x", true, ("rrt-x.scope", "user.slice", "user.slice/rrt-x.scope")),
            ("machine.slice:libpod:1f", false, ("libpod-1f.scope", "machine.slice", "machine.slice/libpod-1f.scope")),
            ("a-b-c.slice:p:n", false, ("p-n.scope", "a-b-c.slice", "a.slice/a-b.slice/a-b-c.slice/p-n.scope")),
            ("-:p:n", false, ("p-n.scope", "-.slice", "p-n.scope")),
            ("-.slice:p:n", false, ("p-n.scope", "-.slice", "p-n.scope")),
            ("system.slice::n", false, ("-n.scope", "system.slice", "system.slice/-n.scope")),
            ("x.slice:p:x-y.slice", false, ("x-y.slice", "x.slice", "x.slice/x-y.slice")),
            (":_p:n", false, ("_p-n.scope", "system.slice", "system.slice/__p-n.scope")),
            ("cpu.slice:p:n", false, ("p-n.scope", "cpu.slice", "_cpu.slice/p-n.scope")),
        ] {
            let (name, slice, place) = parse(path, "box", user).unwrap();
            assert_eq!((name.as_str(), slice.as_str(), place.as_str()), expected, "{path}");
        }
        let escaped = UnitName::parse(None, "a+b", false).unwrap();
        assert_eq!(escaped.name, "rrt-a\\x2bb.scope");
    }

    #[test]
    fn other_forms_are_refused() {
        for (path, why) in [
            ("/a/b", "expected cgroupsPath to be of format \"slice:prefix:name\""),
            ("a.slice:b", "expected cgroupsPath"),
            ("a.slice:b:c:d", "expected cgroupsPath"),
            ("system:p:n", "invalid slice name: system"),
            ("a--b.slice:p:n", "invalid slice name"),
            ("-a.slice:p:n", "invalid slice name"),
            (".slice:p:n", "invalid slice name"),
            ("a.slice/b.slice:p:n", "may have letters"),
            ("a.slice:p:", "has no name"),
            ("a.slice:p:n/../x", "may have letters"),
            ("a.slice:p:n\n", "may have letters"),
            ("a.slice:p:-x.slice", "invalid slice name"),
        ] {
            let error = parse(path, "box", false).unwrap_err();
            assert!(error.starts_with("linux.cgroupsPath: ") && error.contains(why), "{path}: {error}");
        }
        let long = format!("a.slice:p:{}", "x".repeat(255));
        assert!(parse(&long, "box", false).unwrap_err().contains("longer than 255"));
        assert!(UnitName::parse(None, &"x".repeat(250), false).unwrap_err().to_string().contains("longer"));
    }
}
