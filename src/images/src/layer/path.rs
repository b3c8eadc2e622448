//! Names of an archive as paths below the layer's directory.

use super::header::Problem;

/// What a name begins with that says: what follows is gone from the layers below (image-spec, layer.md, "Whiteouts").
pub(super) const WHITEOUT: &[u8] = b".wh.";

/// What AUFS kept for itself; of these only [`OPAQUE`] means something.
pub(super) const META: &[u8] = b".wh..wh.";

/// In a directory: nothing of it is there from the layers below.
pub(super) const OPAQUE: &[u8] = b".wh..wh..opq";

/// `name` from the layer's directory: without `.`, empty and `..` components; empty is that directory itself. As in Docker a `/` at the
/// beginning is the layer's directory, and `..` takes back the component before it, whatever is there on disk.
///
/// # Errors
/// When it leaves the layer.
pub(super) fn clean(name: &[u8]) -> Result<Vec<u8>, Problem> {
    let mut clean = Vec::with_capacity(name.len());
    let absolute = name.starts_with(b"/");
    for component in name.split(|&b| b == b'/') {
        match component {
            b"" | b"." => {}
            b".." if clean.is_empty() && absolute => {}
            b".." if clean.is_empty() => return Err("it leaves the layer's directory".to_owned()),
            b".." => clean.truncate(split(&clean).0.len()),
            component => {
                if !clean.is_empty() {
                    clean.push(b'/');
                }
                clean.extend_from_slice(component);
            }
        }
    }
    Ok(clean)
}

/// The directory and the last component of a clean path.
pub(super) fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|&b| b == b'/') {
        Some(slash) => (&path[..slash], &path[slash + 1..]),
        None => (&[], path),
    }
}

/// Is clean `path` below clean `directory`?
pub(super) fn is_below(path: &[u8], directory: &[u8]) -> bool {
    match directory.is_empty() {
        true => !path.is_empty(),
        false => path.strip_prefix(directory).is_some_and(|rest| rest.starts_with(b"/")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_cleaned_as_docker_does() {
        for (name, expected) in [
            ("a", "a"),
            ("./a/./b//c/", "a/b/c"),
            ("/etc/passwd", "etc/passwd"),
            ("./", ""),
            (".", ""),
            ("/", ""),
            ("a/..", ""),
            ("a/b/../c", "a/c"),
            ("/../../x", "x"),
            ("/a/../../x", "x"),
            ("a/...", "a/..."),
        ] {
            assert_eq!(clean(name.as_bytes()).unwrap(), expected.as_bytes(), "{name}");
        }
        for bad in ["..", "../x", "a/../../x", "./../x", "a/../.."] {
            assert!(clean(bad.as_bytes()).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_is_below() {
        assert!(is_below(b"a/b", b"a") && is_below(b"a/b/c", b"a") && is_below(b"a", b""));
        assert!(!is_below(b"a", b"a") && !is_below(b"ab", b"a") && !is_below(b"", b""));
    }
}
