//! Go's flag spelling, rewritten into clap's.
//!
//! runc's clients write flags as Go's `flag` package reads them: `-flag` is `--flag`, `--flag=v` is `--flag v`, a boolean
//! may be `--b=false`, and single letters are never clustered. go-runc really sends `-no-subreaper` (contract A.2), which
//! clap would read as `-n -o …`. This pass knows a command's flags from its clap definition, so there is no second table.

use clap::{Arg, Command};
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

/// Where flags may stand among the words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// Also after words: `delete ID --force`.
    Anywhere,
    /// The first word ends them, what follows belongs to another program: `exec ID ls -la`.
    BeforeWords,
}

/// A command line taken apart.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Line {
    /// Every flag as `--name` or `--name=value`.
    pub flags: Vec<OsString>,
    /// Everything else, untouched.
    pub words: Vec<OsString>,
    /// `-h` or `--help` stood among the flags.
    pub help: bool,
}

/// Takes `argv` (without the program's or command's own name) apart by the flags that `command` defines.
///
/// # Errors
/// A text for an unknown flag, a missing value or a bad boolean, with Go's wording, which podman looks for
/// (`flag needs an argument`).
pub fn take_apart(command: &Command, argv: &[OsString], place: Place) -> Result<Line, String> {
    let mut line = Line::default();
    let mut rest = argv.iter();
    while let Some(token) = rest.next() {
        if token == "--" {
            line.words.extend(rest.cloned());
            break;
        }
        let Some((name, value)) = split_flag(token)? else {
            line.words.push(token.clone());
            if place == Place::BeforeWords {
                line.words.extend(rest.cloned());
                break;
            }
            continue;
        };
        match find(command, &name) {
            None if name == "h" || name == "help" => line.help = true,
            None => return Err(format!("flag provided but not defined: -{name}")),
            Some(flag) => {
                let long = flag.get_long().expect("every flag here has a long name");
                if flag.get_action().takes_values() {
                    let value = value.or_else(|| rest.next().map(OsString::as_os_str));
                    let value = value.ok_or_else(|| format!("flag needs an argument: -{name}"))?;
                    line.flags.push(spell(long, Some(value)));
                } else {
                    set_switch(&mut line.flags, long, &name, value)?;
                }
            }
        }
    }
    Ok(line)
}

/// `--name=value`, `-name` → the name and the value, none for a word. As in Go, `-` alone is a word.
fn split_flag(token: &OsStr) -> Result<Option<(String, Option<&OsStr>)>, String> {
    let bytes = token.as_bytes();
    let Some(body) = bytes.strip_prefix(b"--").or_else(|| bytes.strip_prefix(b"-")).filter(|b| !b.is_empty()) else {
        return Ok(None);
    };
    let (name, value) = match body.iter().position(|&b| b == b'=') {
        Some(at) => (&body[..at], Some(OsStr::from_bytes(&body[at + 1..]))),
        None => (body, None),
    };
    if name.is_empty() || name[0] == b'-' {
        return Err(format!("bad flag syntax: {}", token.display()));
    }
    Ok(Some((String::from_utf8_lossy(name).into_owned(), value)))
}

fn find<'a>(command: &'a Command, name: &str) -> Option<&'a Arg> {
    command.get_arguments().find(|flag| {
        flag.get_long() == Some(name) || flag.get_short().is_some_and(|c| name.strip_prefix(c) == Some(""))
    })
}

/// The last spelling of a switch wins, so `--b --b=false` is off.
fn set_switch(flags: &mut Vec<OsString>, long: &str, name: &str, value: Option<&OsStr>) -> Result<(), String> {
    let switch = spell(long, None);
    flags.retain(|flag| *flag != switch);
    // The words of Go's strconv.ParseBool.
    match value.map(OsStr::as_bytes) {
        None | Some(b"1" | b"t" | b"T" | b"true" | b"TRUE" | b"True") => flags.push(switch),
        Some(b"0" | b"f" | b"F" | b"false" | b"FALSE" | b"False") => {}
        Some(other) => {
            return Err(format!(
                "invalid boolean value {:?} for -{name}: write true or false",
                String::from_utf8_lossy(other)
            ));
        }
    }
    Ok(())
}

fn spell(long: &str, value: Option<&OsStr>) -> OsString {
    let mut flag = OsString::from("--");
    flag.push(long);
    if let Some(value) = value {
        flag.push("=");
        flag.push(value);
    }
    flag
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::ArgAction;

    fn command() -> Command {
        Command::new("test").args([
            Arg::new("bundle").long("bundle").short('b').action(ArgAction::Set),
            Arg::new("env").long("env").short('e').action(ArgAction::Append),
            Arg::new("detach").long("detach").short('d').action(ArgAction::SetTrue),
            Arg::new("no-subreaper").long("no-subreaper").action(ArgAction::SetTrue),
        ])
    }

    fn read(place: Place, argv: &[&str]) -> Result<(String, String), String> {
        let argv: Vec<OsString> = argv.iter().map(OsString::from).collect();
        let join = |list: &[OsString]| list.iter().map(|s| s.to_str().unwrap()).collect::<Vec<_>>().join(" ");
        take_apart(&command(), &argv, place).map(|line| (join(&line.flags), join(&line.words)))
    }

    fn anywhere(argv: &[&str]) -> (String, String) {
        read(Place::Anywhere, argv).unwrap()
    }

    fn pair(flags: &str, words: &str) -> (String, String) {
        (flags.into(), words.into())
    }

    #[test]
    fn one_dash_is_two() {
        assert_eq!(anywhere(&["-no-subreaper", "-bundle", "B", "x"]), pair("--no-subreaper --bundle=B", "x"));
        assert_eq!(anywhere(&["--b=B", "--d"]), pair("--bundle=B --detach", ""));
        assert_eq!(anywhere(&["-b", "B", "-d"]), pair("--bundle=B --detach", ""));
    }

    #[test]
    fn letters_are_not_clustered() {
        assert_eq!(read(Place::Anywhere, &["-db", "B"]), Err("flag provided but not defined: -db".into()));
    }

    #[test]
    fn a_value_may_begin_with_a_dash_or_hold_an_equals_sign() {
        assert_eq!(anywhere(&["--bundle", "-1"]), pair("--bundle=-1", ""));
        assert_eq!(anywhere(&["-e", "A=b=c", "--env=D="]), pair("--env=A=b=c --env=D=", ""));
        assert_eq!(anywhere(&["-e", "--"]), pair("--env=--", ""));
    }

    #[test]
    fn booleans_take_a_value_only_with_an_equals_sign_and_the_last_wins() {
        assert_eq!(anywhere(&["--detach=false"]), pair("", ""));
        assert_eq!(anywhere(&["-d=T", "--detach=0"]), pair("", ""));
        assert_eq!(anywhere(&["-d=false", "-d"]), pair("--detach", ""));
        assert_eq!(anywhere(&["-d", "false"]), pair("--detach", "false"));
        assert!(read(Place::Anywhere, &["-d=maybe"]).unwrap_err().contains("\"maybe\" for -d"));
    }

    #[test]
    fn flags_follow_words_only_where_the_words_are_ours() {
        assert_eq!(anywhere(&["x", "-d", "y"]), pair("--detach", "x y"));
        assert_eq!(read(Place::BeforeWords, &["-d", "x", "ls", "-d", "--", "a"]), Ok(pair("--detach", "x ls -d -- a")));
        assert_eq!(anywhere(&["x", "--", "-d"]), pair("", "x -d"));
        assert_eq!(anywhere(&["-", "x"]), pair("", "- x"));
    }

    #[test]
    fn errors_have_gos_words() {
        assert_eq!(read(Place::Anywhere, &["--bundle"]), Err("flag needs an argument: -bundle".into()));
        assert_eq!(read(Place::Anywhere, &["--nope=1"]), Err("flag provided but not defined: -nope".into()));
        assert_eq!(read(Place::Anywhere, &["---d"]), Err("bad flag syntax: ---d".into()));
        assert_eq!(read(Place::Anywhere, &["-=1"]), Err("bad flag syntax: -=1".into()));
    }

    #[test]
    fn help_is_seen_but_not_after_the_words_of_another_program() {
        let argv = |list: &[&str]| list.iter().map(OsString::from).collect::<Vec<_>>();
        assert!(take_apart(&command(), &argv(&["x", "--help"]), Place::Anywhere).unwrap().help);
        assert!(take_apart(&command(), &argv(&["-h"]), Place::BeforeWords).unwrap().help);
        assert!(!take_apart(&command(), &argv(&["x", "ls", "-h"]), Place::BeforeWords).unwrap().help);
    }

    #[test]
    fn paths_need_not_be_utf8() {
        let path = OsString::from(OsStr::from_bytes(b"--bundle=/b\xff"));
        let line = take_apart(&command(), std::slice::from_ref(&path), Place::Anywhere).unwrap();
        assert_eq!(line.flags, [path]);
    }
}
