//! The command line that containerd gives a shim: Go's flags, and one action.

use std::path::PathBuf;

/// What was asked for.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Args {
    /// containerd's namespace.
    pub namespace: String,
    /// The container's id.
    pub id: String,
    /// containerd's socket; part of the name of ours.
    pub address: String,
    /// The bundle, if it is not the working directory.
    pub bundle: Option<PathBuf>,
    /// The path of the socket that is standard input (ours, from `start` to the daemon).
    pub socket: String,
    /// A program to tell events to, where there is no socket for them (`TTRPC_ADDRESS`).
    pub publish_binary: String,
    /// Log more.
    pub debug: bool,
    /// `-v`
    pub version: bool,
    /// `-info`
    pub info: bool,
    /// `start`, `delete`, or nothing: be the daemon.
    pub action: String,
}

/// Parses what follows the program's name.
///
/// # Errors
/// A flag that no shim has, or one without its value.
pub fn parse(words: impl IntoIterator<Item = String>) -> Result<Args, String> {
    let mut args = Args::default();
    let mut words = words.into_iter();
    while let Some(word) = words.next() {
        let Some(flag) = word.strip_prefix("--").or_else(|| word.strip_prefix('-')) else {
            args.action = word;
            break;
        };
        let (name, value) = match flag.split_once('=') {
            Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
            None => (flag.to_owned(), None),
        };
        let switch = match name.as_str() {
            "debug" => Some(&mut args.debug),
            "v" | "version" => Some(&mut args.version),
            "info" => Some(&mut args.info),
            _ => None,
        };
        if let Some(switch) = switch {
            *switch = value.is_none_or(|v| matches!(v.as_str(), "1" | "t" | "T" | "true" | "TRUE" | "True"));
            continue;
        }
        let value = value.or_else(|| words.next()).ok_or_else(|| format!("flag needs an argument: -{name}"))?;
        match name.as_str() {
            "namespace" => args.namespace = value,
            "id" => args.id = value,
            "address" => args.address = value,
            "bundle" => args.bundle = Some(value.into()),
            "socket" => args.socket = value,
            "publish-binary" => args.publish_binary = value,
            // A debugger of Go programs.
            "debug-socket" => {}
            _ => return Err(format!("flag provided but not defined: -{name}")),
        }
    }
    Ok(args)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Result<Args, String> {
        parse(text.split(' ').map(str::to_owned))
    }

    #[test]
    fn as_containerd_calls() {
        let args =
            parsed("-namespace k8s.io -address /run/c.sock -publish-binary /usr/bin/containerd -id c1 -debug start");
        let args = args.expect("good flags");
        assert_eq!((args.namespace.as_str(), args.id.as_str(), args.action.as_str()), ("k8s.io", "c1", "start"));
        assert!(args.debug && !args.info);
        let args = parsed("--id=c1 -bundle /b delete").expect("good flags");
        assert_eq!((args.bundle, args.action.as_str()), (Some("/b".into()), "delete"));
        assert!(parsed("-v").is_ok_and(|args| args.version));
        assert!(parsed("-debug=false -info").is_ok_and(|args| args.info && !args.debug));
    }

    #[test]
    fn mistakes() {
        assert_eq!(parsed("-what"), Err("flag needs an argument: -what".into()));
        assert_eq!(parsed("-what x"), Err("flag provided but not defined: -what".into()));
        assert_eq!(parsed("-id"), Err("flag needs an argument: -id".into()));
    }
}
