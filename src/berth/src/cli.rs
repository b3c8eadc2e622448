//! The tree of commands, and reading the command line by it. clap reads the flags of one command; what it says, and what `--help`
//! shows, is put in Docker's words here.

use crate::app::App;
use crate::exit::Exit;
use crate::help;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Arg, ArgAction, ArgMatches, Command};
use std::ffi::OsString;

/// One command.
pub struct Leaf {
    /// As it is typed.
    pub name: &'static str,
    /// What else it may be called (`list` for `ls`).
    pub other_names: &'static [&'static str],
    /// One line for the list of commands.
    pub about: &'static str,
    /// What follows its name: `[OPTIONS] IMAGE [IMAGE...]`.
    pub usage: &'static str,
    /// All the ways to type it, when there are several: `image ls`, `images`.
    pub aliases: &'static [&'static str],
    /// How many arguments it takes, flags aside.
    pub count: Count,
    /// Adds its flags.
    pub flags: fn(Command) -> Command,
    /// Does it.
    pub run: fn(&mut App, &ArgMatches) -> Result<(), Exit>,
}

/// How many arguments a command takes.
#[derive(Clone, Copy)]
pub enum Count {
    /// As many.
    Exactly(usize),
    /// As many or more.
    AtLeast(usize),
    /// As many or fewer.
    AtMost(usize),
    /// From the first to the second.
    Between(usize, usize),
}

/// A command, or several below one name.
pub enum Entry {
    /// One that is used all the time: listed first.
    Common(&'static Leaf),
    /// Another.
    Other(&'static Leaf),
    /// `image`, `system`, …
    Group(&'static str, &'static str, &'static [&'static Leaf]),
}

/// A flag that is true when it is given; `--quiet=false` is understood, too.
pub fn switch(long: &'static str, short: Option<char>, help: &'static str) -> Arg {
    let arg = Arg::new(long)
        .long(long)
        .help(help)
        .num_args(0..=1)
        .require_equals(true)
        .default_missing_value("true")
        .value_parser(go_bool)
        .action(ArgAction::Set)
        .hide_possible_values(true);
    match short {
        Some(short) => arg.short(short),
        None => arg,
    }
}

/// What Go's `strconv.ParseBool` takes.
fn go_bool(text: &str) -> Result<bool, String> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err(format!("strconv.ParseBool: parsing {text:?}: invalid syntax")),
    }
}

/// A flag with a value. `kind` is what help calls the value; `list` and `filter` may be given several times.
pub fn value(long: &'static str, short: Option<char>, kind: &'static str, help: &'static str) -> Arg {
    let action = if matches!(kind, "list" | "filter" | "strings") { ArgAction::Append } else { ArgAction::Set };
    let arg = Arg::new(long).long(long).value_name(kind).help(help).action(action).allow_hyphen_values(true);
    match short {
        Some(short) => arg.short(short),
        None => arg,
    }
}

/// What Docker accepts and berth has no use for: taken, so that scripts work, and not shown.
pub fn ignored_switch(long: &'static str) -> Arg {
    switch(long, None, "").hide(true)
}

/// Is the switch given (and not `=false`)?
pub fn is_on(matches: &ArgMatches, name: &str) -> bool {
    matches.get_one::<bool>(name).copied().unwrap_or(false)
}

/// The value of a flag.
pub fn text<'a>(matches: &'a ArgMatches, name: &str) -> Option<&'a str> {
    matches.get_one::<String>(name).map(String::as_str)
}

/// The values of a flag that may be given several times.
pub fn texts<'a>(matches: &'a ArgMatches, name: &str) -> Vec<&'a str> {
    matches.get_many::<String>(name).into_iter().flatten().map(String::as_str).collect()
}

/// What is no flag.
pub fn arguments(matches: &ArgMatches) -> Vec<&str> {
    texts(matches, ARGUMENTS)
}

const ARGUMENTS: &str = "ARGUMENTS";

impl Leaf {
    /// For clap.
    pub fn command(&self) -> Command {
        let command = Command::new(self.name).about(self.about);
        (self.flags)(plain(command)).arg(Arg::new(ARGUMENTS).num_args(0..).hide(true))
    }

    fn check_count(&self, path: &str, found: usize) -> Result<(), Exit> {
        let plural = |n: usize| if n == 1 { "" } else { "s" };
        let what = match self.count {
            Count::Exactly(n) if found != n && n == 0 => "accepts no arguments".to_owned(),
            Count::Exactly(n) if found != n => format!("requires {n} argument{}", plural(n)),
            Count::AtLeast(n) if found < n => format!("requires at least {n} argument{}", plural(n)),
            Count::AtMost(n) if found > n => format!("requires at most {n} argument{}", plural(n)),
            Count::Between(least, most) if !(least..=most).contains(&found) => {
                format!("requires at least {least} and at most {most} arguments")
            }
            _ => return Ok(()),
        };
        Err(self.wrong(path, 1, &format!("berth: '{path}' {what}")))
    }

    fn wrong(&self, path: &str, code: u8, what: &str) -> Exit {
        let message = format!("{what}\n\nUsage:  {path} {}\n\nRun '{path} --help' for more information", self.usage);
        Exit { code, message }
    }
}

/// Nothing that clap adds by itself.
fn plain(command: Command) -> Command {
    let help = Arg::new("help").long("help").short('h').action(ArgAction::SetTrue).hide(true);
    command
        .disable_help_flag(true)
        .disable_version_flag(true)
        .disable_help_subcommand(true)
        .args_override_self(true)
        .arg(help)
}

/// The flags before the command.
pub fn root_command() -> Command {
    plain(Command::new("berth").about("Build, ship and run containers without a daemon"))
        .arg(value("config", None, "string", "Location of client config files (default \"~/.docker\")"))
        .arg(switch("debug", Some('D'), "Enable debug mode"))
        .arg(
            value(
                "log-level",
                Some('l'),
                "string",
                "Set the logging level (\"debug\", \"info\", \"warn\", \"error\", \"fatal\") (default \"info\")",
            )
            .value_parser(["debug", "info", "warn", "error", "fatal"]),
        )
        .arg(value(
            "root",
            None,
            "string",
            "Where images and containers are kept (default \"/var/lib/berth\", for a user \"~/.local/share/berth\")",
        ))
        .arg(value("storage-driver", None, "string", "Storage driver to use (default: the best that works)"))
        .arg(switch("version", Some('v'), "Print version information and quit"))
        .allow_external_subcommands(true)
        .external_subcommand_value_parser(clap::value_parser!(OsString))
}

/// Reads the command line and does what it says.
pub fn run(tree: &[Entry], argv: impl Iterator<Item = OsString>) -> Result<(), Exit> {
    let argv: Vec<OsString> = std::iter::once("berth".into()).chain(argv.skip(1)).collect();
    let usage = "\n\nUsage:  berth [OPTIONS] COMMAND [ARG...]\n\nRun 'berth --help' for more information";
    let matches = root_command()
        .try_get_matches_from(argv)
        .map_err(|e| Exit { code: 125, message: words(&e, &root_command()) + usage })?;
    let mut app = App::new(&matches)?;
    if is_on(&matches, "version") {
        return app.out.print(&format!("berth version {}\n", env!("CARGO_PKG_VERSION")));
    }
    let Some((name, rest)) = matches.subcommand().filter(|_| !matches.get_flag("help")) else {
        return app.out.print(&help::root(tree));
    };
    let rest: Vec<OsString> = rest.get_many::<OsString>("").into_iter().flatten().cloned().collect();
    if name == "help" {
        return help_for(tree, &mut app, &rest);
    }
    dispatch(tree, &mut app, name, &rest)
}

fn help_for(tree: &[Entry], app: &mut App, rest: &[OsString]) -> Result<(), Exit> {
    let words: Vec<OsString> = rest.iter().cloned().chain(["--help".into()]).collect();
    match words.split_first() {
        Some((name, more)) if !more.is_empty() => dispatch(tree, app, &name.to_string_lossy(), more),
        _ => app.out.print(&help::root(tree)),
    }
}

fn unknown(path: &str, name: &str, usage: &str) -> Exit {
    Exit::failed(format!("berth: unknown command: {path} {name}\n{usage}\nRun '{path} --help' for more information"))
}

fn dispatch(tree: &[Entry], app: &mut App, name: &str, rest: &[OsString]) -> Result<(), Exit> {
    for entry in tree {
        match entry {
            Entry::Common(leaf) | Entry::Other(leaf) if leaf.name == name => {
                return leaf_of(app, leaf, &format!("berth {name}"), rest);
            }
            Entry::Group(group, about, leaves) if *group == name => return group_of(app, group, about, leaves, rest),
            _ => {}
        }
    }
    Err(unknown("berth", name, ""))
}

fn group_of(app: &mut App, group: &str, about: &str, leaves: &[&Leaf], rest: &[OsString]) -> Result<(), Exit> {
    let path = format!("berth {group}");
    let Some((name, more)) = rest.split_first() else { return app.out.print(&help::group(&path, about, leaves)) };
    let name = name.to_string_lossy();
    if matches!(&*name, "--help" | "-h" | "help") {
        return app.out.print(&help::group(&path, about, leaves));
    }
    if name.starts_with('-') {
        let message =
            format!("unknown flag: {name}\n\nUsage:  {path} COMMAND\n\nRun '{path} --help' for more information");
        return Err(Exit { code: 125, message });
    }
    match leaves.iter().find(|leaf| leaf.name == name || leaf.other_names.contains(&&*name)) {
        Some(leaf) => leaf_of(app, leaf, &format!("{path} {}", leaf.name), more),
        None => Err(unknown(&path, &name, &format!("\nUsage:  {path}\n"))),
    }
}

fn leaf_of(app: &mut App, leaf: &Leaf, path: &str, rest: &[OsString]) -> Result<(), Exit> {
    let command = leaf.command();
    let argv = std::iter::once(OsString::from(path)).chain(rest.iter().cloned());
    let matches =
        command.clone().try_get_matches_from(argv).map_err(|e| leaf.wrong(path, 125, &words(&e, &command)))?;
    if matches.get_flag("help") {
        return app.out.print(&help::leaf(path, leaf, &command));
    }
    leaf.check_count(path, arguments(&matches).len())?;
    (leaf.run)(app, &matches)
}

/// What clap says, as Docker's flags say it.
fn words(error: &clap::Error, command: &Command) -> String {
    let context = |kind: ContextKind| match error.get(kind) {
        Some(ContextValue::String(text)) => text.clone(),
        _ => String::new(),
    };
    let given = context(ContextKind::InvalidArg);
    // `-f, --filter <filter>` without the value's name.
    let flag = given.split(" <").next().unwrap_or(&given).split("[=").next().unwrap_or(&given).to_owned();
    match error.kind() {
        ErrorKind::UnknownArgument => match given.strip_prefix('-').and_then(|rest| rest.chars().next()) {
            Some('-') | None => format!("unknown flag: {given}"),
            Some(letter) => format!("unknown shorthand flag: '{letter}' in {given}"),
        },
        ErrorKind::InvalidValue if context(ContextKind::InvalidValue).is_empty() => {
            format!("flag needs an argument: {flag}")
        }
        ErrorKind::InvalidUtf8 => "an argument is not UTF-8".to_owned(),
        _ => {
            let value = context(ContextKind::InvalidValue);
            let why = std::error::Error::source(error).map(|e| format!(": {e}")).unwrap_or_default();
            let arg = command
                .get_arguments()
                .find(|arg| arg.get_long().is_some() && arg.get_long() == flag.strip_prefix("--"));
            let short = arg.and_then(Arg::get_short).map(|short| format!("-{short}, ")).unwrap_or_default();
            format!("invalid argument {value:?} for \"{short}{flag}\" flag{why}")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leaf_error(leaf: &Leaf, words: &[&str]) -> Exit {
        let mut app = App::for_tests();
        let rest: Vec<OsString> = words.iter().map(OsString::from).collect();
        leaf_of(&mut app, leaf, "berth x", &rest).unwrap_err()
    }

    const LEAF: Leaf = Leaf {
        name: "x",
        other_names: &[],
        about: "About x",
        usage: "[OPTIONS] IMAGE",
        aliases: &[],
        count: Count::Exactly(1),
        flags: |c| c.arg(switch("quiet", Some('q'), "Quiet")).arg(value("format", Some('f'), "string", "Format")),
        run: |_, m| Err(Exit::failed(format!("{} {:?} {:?}", is_on(m, "quiet"), text(m, "format"), arguments(m)))),
    };

    #[test]
    fn flags_are_read_as_docker_reads_them() {
        let says = |words: &[&str]| leaf_error(&LEAF, words).message;
        assert_eq!(says(&["-q", "a"]), "true None [\"a\"]");
        assert_eq!(says(&["a", "--quiet", "-f", "x"]), "true Some(\"x\") [\"a\"]");
        assert_eq!(says(&["--quiet=false", "-f=x", "a"]), "false Some(\"x\") [\"a\"]");
        assert_eq!(says(&["-qfx", "--", "-a"]), "true Some(\"x\") [\"-a\"]");
        assert_eq!(says(&["-f", "x", "-f", "y", "a"]), "false Some(\"y\") [\"a\"]");
    }

    #[test]
    fn wrong_flags_are_told_in_dockers_words() {
        let usage = "\n\nUsage:  berth x [OPTIONS] IMAGE\n\nRun 'berth x --help' for more information";
        let says = |words: &[&str], code: u8, text: &str| {
            assert_eq!(leaf_error(&LEAF, words), Exit { code, message: format!("{text}{usage}") });
        };
        says(&["--nope"], 125, "unknown flag: --nope");
        says(&["-x"], 125, "unknown shorthand flag: 'x' in -x");
        says(&["--format"], 125, "flag needs an argument: --format");
        says(
            &["--quiet=maybe", "a"],
            125,
            "invalid argument \"maybe\" for \"-q, --quiet\" flag: strconv.ParseBool: parsing \"maybe\": invalid syntax",
        );
        says(&[], 1, "berth: 'berth x' requires 1 argument");
        says(&["a", "b"], 1, "berth: 'berth x' requires 1 argument");
    }

    #[test]
    fn every_command_is_one_that_clap_accepts() {
        root_command().debug_assert();
        for entry in crate::commands::TREE {
            let leaves: &[&Leaf] = match entry {
                Entry::Common(leaf) | Entry::Other(leaf) => &[leaf],
                Entry::Group(_, _, leaves) => leaves,
            };
            leaves.iter().for_each(|leaf| leaf.command().debug_assert());
        }
    }
}
