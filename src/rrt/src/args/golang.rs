//! Go's flag spelling.
//!
//! runc's clients write flags as Go's `flag` package reads them: `-flag` is `--flag`, `--flag=v` is `--flag v`, a boolean
//! may be `--b=false`, and single letters are never clustered. go-runc really sends `-no-subreaper` (contract A.2), which
//! the usual rules would read as `-n -o …`.

use super::line::Line;
use super::table::{Entry, Flag, Place};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

/// Takes `argv` (without the program's or command's own name) apart by the flags of `entry`. Its words are not looked at:
/// [`Line::check_words`].
///
/// # Errors
/// A text for an unknown flag, a missing value or a bad boolean, with Go's wording, which podman looks for
/// (`flag needs an argument`).
pub fn take_apart<'a>(entry: &'static Entry, argv: &[&'a OsStr]) -> Result<Line<'a>, String> {
    let mut line = Line::new(entry);
    let mut rest = argv.iter().copied();
    while let Some(token) = rest.next() {
        if token == "--" {
            line.words.extend(rest);
            break;
        }
        let Some((name, value)) = split_flag(token)? else {
            line.words.push(token);
            if entry.place == Place::BeforeWords {
                line.words.extend(rest);
                break;
            }
            continue;
        };
        match find(entry, name) {
            None if name == "h" || name == "help" => line.help = true,
            None => return Err(format!("flag provided but not defined: -{}", name.display())),
            Some(flag) if flag.value().is_some() => {
                let value = value.or_else(|| rest.next());
                line.push(flag, value.ok_or_else(|| format!("flag needs an argument: -{}", name.display()))?);
            }
            Some(switch) => line.set(switch, is_on(name, value)?),
        }
    }
    Ok(line)
}

/// `--name=value`, `-name` → the name and the value, none for a word. As in Go, `-` alone is a word.
fn split_flag(token: &OsStr) -> Result<Option<(&OsStr, Option<&OsStr>)>, String> {
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
    Ok(Some((OsStr::from_bytes(name), value)))
}

fn find(entry: &Entry, name: &OsStr) -> Option<&'static Flag> {
    let letter = match name.as_bytes() {
        [letter] => Some(char::from(*letter)),
        _ => None,
    };
    entry.flags().find(|flag| name == flag.long || (letter.is_some() && flag.short == letter))
}

/// The words of Go's strconv.ParseBool.
fn is_on(name: &OsStr, value: Option<&OsStr>) -> Result<bool, String> {
    match value.map(OsStr::as_bytes) {
        None | Some(b"1" | b"t" | b"T" | b"true" | b"TRUE" | b"True") => Ok(true),
        Some(b"0" | b"f" | b"F" | b"false" | b"FALSE" | b"False") => Ok(false),
        Some(other) => {
            let (name, other) = (name.display(), String::from_utf8_lossy(other));
            Err(format!("invalid boolean value {other:?} for -{name}: write true or false"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::flags::TABLE;
    use crate::args::table::Kind;

    const FLAGS: [Flag; 4] = [
        Flag { long: "bundle", short: Some('b'), kind: Kind::Value("DIR"), help: "" },
        Flag { long: "env", short: Some('e'), kind: Kind::Repeatable("NAME=VALUE"), help: "" },
        Flag { long: "detach", short: Some('d'), kind: Kind::Switch, help: "" },
        Flag { long: "no-subreaper", short: None, kind: Kind::Switch, help: "" },
    ];
    const ANYWHERE: Entry = Entry { name: "test", about: "", place: Place::Anywhere, flags: &[&FLAGS], words: &[] };
    const BEFORE_WORDS: Entry = Entry { place: Place::BeforeWords, ..ANYWHERE };

    fn taken<'a>(entry: &'static Entry, argv: &[&'a str]) -> Result<Line<'a>, String> {
        take_apart(entry, &argv.iter().map(|&word| OsStr::new(word)).collect::<Vec<_>>())
    }

    /// The flags and the words.
    fn read(entry: &'static Entry, argv: &[&str]) -> Result<(String, String), String> {
        let line = taken(entry, argv)?;
        let flag = |(flag, value): &(&Flag, &OsStr)| match flag.kind {
            Kind::Switch => format!("--{}", flag.long),
            _ => format!("--{}={}", flag.long, value.display()),
        };
        let words: Vec<&str> = line.words.iter().map(|word| word.to_str().unwrap()).collect();
        Ok((line.flags.iter().map(flag).collect::<Vec<_>>().join(" "), words.join(" ")))
    }

    fn anywhere(argv: &[&str]) -> (String, String) {
        read(&ANYWHERE, argv).unwrap()
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
        assert_eq!(read(&ANYWHERE, &["-db", "B"]), Err("flag provided but not defined: -db".into()));
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
        assert!(read(&ANYWHERE, &["-d=maybe"]).unwrap_err().contains("\"maybe\" for -d"));
    }

    #[test]
    fn flags_follow_words_only_where_the_words_are_ours() {
        assert_eq!(anywhere(&["x", "-d", "y"]), pair("--detach", "x y"));
        assert_eq!(read(&BEFORE_WORDS, &["-d", "x", "ls", "-d", "--", "a"]), Ok(pair("--detach", "x ls -d -- a")));
        assert_eq!(anywhere(&["x", "--", "-d"]), pair("", "x -d"));
        assert_eq!(anywhere(&["-", "x"]), pair("", "- x"));
    }

    #[test]
    fn errors_have_gos_words() {
        assert_eq!(read(&ANYWHERE, &["--bundle"]), Err("flag needs an argument: -bundle".into()));
        assert_eq!(read(&ANYWHERE, &["--nope=1"]), Err("flag provided but not defined: -nope".into()));
        assert_eq!(read(&ANYWHERE, &["---d"]), Err("bad flag syntax: ---d".into()));
        assert_eq!(read(&ANYWHERE, &["-=1"]), Err("bad flag syntax: -=1".into()));
    }

    #[test]
    fn help_is_seen_but_not_after_the_words_of_another_program() {
        assert!(taken(&ANYWHERE, &["x", "--help"]).unwrap().help);
        assert!(taken(&BEFORE_WORDS, &["-h"]).unwrap().help);
        assert!(!taken(&BEFORE_WORDS, &["x", "ls", "-h"]).unwrap().help);
    }

    #[test]
    fn values_need_not_be_utf8() {
        let argv = [OsStr::from_bytes(b"--bundle=/b\xff"), OsStr::from_bytes(b"w\xff")];
        let line = take_apart(&ANYWHERE, &argv).unwrap();
        assert_eq!(line.flags, [(&FLAGS[0], OsStr::from_bytes(b"/b\xff"))]);
        assert_eq!(line.words, [argv[1]]);
        let error = take_apart(&ANYWHERE, &[OsStr::from_bytes(b"--b\xff")]).unwrap_err();
        assert_eq!(error, "flag provided but not defined: -b\u{fffd}");
    }

    #[test]
    fn every_flag_of_every_command_is_known_in_each_spelling() {
        let mut known = 0;
        for entry in TABLE.commands.iter().chain([&TABLE.global]) {
            for flag in entry.flags() {
                let names = [Some(flag.long.to_owned()), flag.short.map(String::from)];
                for name in names.iter().flatten().flat_map(|name| [format!("-{name}"), format!("--{name}")]) {
                    let what = format!("{} {name}", entry.name);
                    let spellings: &[(Vec<String>, &str)] = match flag.kind {
                        Kind::Switch => &[
                            (vec![name.clone()], ""),
                            (vec![format!("{name}=true")], ""),
                            (vec![format!("{name}=false"), name.clone()], ""),
                        ],
                        _ => &[
                            (vec![name.clone(), "-v=1".into()], "-v=1"),
                            (vec![format!("{name}=-v=1")], "-v=1"),
                            (vec![format!("{name}=")], ""),
                        ],
                    };
                    for (argv, value) in spellings {
                        let argv: Vec<&str> = argv.iter().map(String::as_str).chain(["word"]).collect();
                        let line = taken(entry, &argv).unwrap_or_else(|error| panic!("{what}: {error}"));
                        assert_eq!(line.flags, [(flag, OsStr::new(*value))], "{what}");
                        assert_eq!(line.words, ["word"], "{what}");
                        known += 1;
                    }
                    match flag.kind {
                        Kind::Switch => assert!(taken(entry, &[&format!("{name}=false")]).unwrap().flags.is_empty()),
                        _ => assert!(taken(entry, &[&name]).unwrap_err().starts_with("flag needs an argument: -")),
                    }
                }
            }
        }
        assert!(known > 900, "{known}");
    }
}
