//! Runtime options as text: the table `options` of a runtime in containerd's configuration, which the CRI plugin hands on.
//!
//! It is a flat table, so this reads lines of `Key = value`, and no more of TOML.

use crate::Options;

/// Reads the text, or without one the file; a key that there is not is told to `unknown`.
///
/// # Errors
/// One line: the file cannot be read, a line is no pair, a value is of the wrong type.
pub fn options(path: &str, body: &[u8], unknown: &dyn Fn(&str)) -> Result<Options, String> {
    let text = if body.is_empty() && !path.is_empty() {
        std::fs::read_to_string(path).map_err(|e| format!("runtime options: ConfigPath {path}: {e}"))?
    } else {
        String::from_utf8_lossy(body).into_owned()
    };
    parse(&text, unknown).map_err(|e| format!("runtime options: {e}"))
}

fn parse(text: &str, unknown: &dyn Fn(&str)) -> Result<Options, String> {
    let mut options = Options::default();
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with(['#', '['])) {
        let (key, value) = line.split_once('=').ok_or_else(|| format!("{line:?} is not KEY = VALUE"))?;
        let (key, value) = (key.trim().trim_matches('"'), value.trim());
        let wrong = |kind: &str| format!("{key} = {value}: it is to be {kind}");
        let text = || string(value).ok_or_else(|| wrong("a text in quotes"));
        let switch = || bare(value).parse().map_err(|_| wrong("true or false"));
        let number = || bare(value).parse().map_err(|_| wrong("a number"));
        match key {
            "NoPivotRoot" => options.no_pivot_root = switch()?,
            "NoNewKeyring" => options.no_new_keyring = switch()?,
            "ShimCgroup" => options.shim_cgroup = text()?,
            "IoUid" => options.io_uid = number()?,
            "IoGid" => options.io_gid = number()?,
            "BinaryName" => options.binary_name = text()?,
            "Root" => options.root = text()?,
            "SystemdCgroup" => options.systemd_cgroup = switch()?,
            "CriuImagePath" => options.criu_image_path = text()?,
            "CriuWorkPath" => options.criu_work_path = text()?,
            // runc's shim has more than we know: containerd would not refuse them either.
            _ => unknown(key),
        }
    }
    Ok(options)
}

/// A value without the comment behind it.
fn bare(value: &str) -> &str {
    value.split('#').next().unwrap_or_default().trim()
}

/// A text in quotes of either kind; in double ones a backslash stands before what it means.
fn string(value: &str) -> Option<String> {
    let quote = value.chars().next().filter(|c| matches!(c, '"' | '\''))?;
    let mut text = String::new();
    let mut rest = value[1..].chars();
    loop {
        match rest.next()? {
            c if c == quote => break,
            '\\' if quote == '"' => text.push(rest.next()?),
            c => text.push(c),
        }
    }
    let behind = rest.as_str().trim_start();
    (behind.is_empty() || behind.starts_with('#')).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table() {
        let text = "# of the runtime\nBinaryName = \"/usr/bin/a\\\"b\" # quoted\n  SystemdCgroup = true # yes\nIoUid = 7\nRoot = '/r\\x'\nNew = 1\n";
        let options = parse(text, &|_| {}).expect("a table");
        assert_eq!(options.binary_name, "/usr/bin/a\"b");
        assert_eq!((options.systemd_cgroup, options.io_uid, options.root.as_str()), (true, 7, "/r\\x"));
        assert_eq!(parse("", &|_| {}), Ok(Options::default()));
    }

    #[test]
    fn mistakes() {
        assert_eq!(parse("what", &|_| {}), Err("\"what\" is not KEY = VALUE".into()));
        assert_eq!(
            parse("SystemdCgroup = \"x\"", &|_| {}),
            Err("SystemdCgroup = \"x\": it is to be true or false".into())
        );
        assert_eq!(parse("Root = /x", &|_| {}), Err("Root = /x: it is to be a text in quotes".into()));
        assert!(options("/no/such/file", b"", &|_| {}).is_err_and(|e| e.contains("/no/such/file")));
    }
}
