//! The table of commands, as completions and man pages need it.

use super::flags;
use clap::{Arg, Command};

/// The flags before the command, and the commands.
pub struct Table {
    /// Global flags.
    pub global: Vec<Flag>,
    /// In the order of the help.
    pub commands: Vec<Page>,
}

/// One command.
pub struct Page {
    pub name: &'static str,
    pub about: &'static str,
    pub flags: Vec<Flag>,
    pub words: Vec<Word>,
}

/// A flag that is not hidden.
pub struct Flag {
    pub long: String,
    pub short: Option<char>,
    /// The name of its value; none for a switch.
    pub value: Option<String>,
    pub help: String,
    pub repeatable: bool,
}

/// A word that is no flag.
#[allow(dead_code, reason = "the man pages use the rest")]
pub struct Word {
    pub name: String,
    pub required: bool,
    pub many: bool,
    pub help: String,
}

/// What a shell can offer for a flag's value.
pub enum Values {
    Files,
    Directories,
    Of(&'static [&'static str]),
    Unknown,
}

/// Reads the table.
pub fn read() -> Table {
    let page = |entry: &flags::Entry| {
        let definition = entry.definition("rrt");
        Page { name: entry.name, about: entry.about, flags: flags_of(&definition), words: words_of(&definition) }
    };
    Table { global: flags_of(&flags::global("rrt", false)), commands: flags::ENTRIES.iter().map(page).collect() }
}

fn help(arg: &Arg) -> String {
    arg.get_help().map(ToString::to_string).unwrap_or_default()
}

fn value_name(arg: &Arg) -> Option<String> {
    arg.get_value_names().and_then(|names| names.first()).map(ToString::to_string)
}

fn flags_of(definition: &Command) -> Vec<Flag> {
    let shown = definition.get_arguments().filter(|arg| !arg.is_hide_set());
    let flag = |arg: &Arg| {
        Some(Flag {
            long: arg.get_long()?.to_owned(),
            short: arg.get_short(),
            value: value_name(arg).filter(|_| arg.get_action().takes_values()),
            help: help(arg),
            repeatable: matches!(arg.get_action(), clap::ArgAction::Append),
        })
    };
    shown.filter_map(flag).collect()
}

fn words_of(definition: &Command) -> Vec<Word> {
    let word = |arg: &Arg| Word {
        name: value_name(arg).unwrap_or_else(|| arg.get_id().to_string()),
        required: arg.is_required_set(),
        many: arg.get_num_args().is_some_and(|n| n.max_values() > 1),
        help: help(arg),
    };
    definition.get_positionals().map(word).collect()
}

impl Flag {
    /// `--long` and `-s`.
    pub fn spellings(&self) -> Vec<String> {
        [Some(format!("--{}", self.long)), self.short.map(|s| format!("-{s}"))].into_iter().flatten().collect()
    }

    /// What its value may be.
    pub fn values(&self) -> Values {
        match (self.long.as_str(), self.value.as_deref()) {
            ("log-format", _) => Values::Of(&["text", "json"]),
            ("shell", _) => Values::Of(&["bash", "zsh", "fish"]),
            ("format", _) => Values::Of(&["table", "json"]),
            ("log-level", _) => Values::Of(&["error", "warning", "info", "debug"]),
            ("cgroup-manager", _) => Values::Of(&["cgroupfs", "systemd", "disabled"]),
            ("rootless", _) => Values::Of(&["true", "false", "auto"]),
            ("manage-cgroups-mode", _) => Values::Of(&["soft", "full", "strict", "ignore"]),
            // A path of the container's.
            ("cwd", _) => Values::Unknown,
            (_, Some("FILE" | "SOCKET")) => Values::Files,
            (_, Some("DIR")) => Values::Directories,
            _ => Values::Unknown,
        }
    }
}

impl Page {
    /// Whether its first word is a container that exists.
    pub fn takes_container(&self) -> bool {
        let new = ["create", "run", "plan", "restore"].contains(&self.name);
        !new && self.words.first().is_some_and(|word| word.name == "container-id")
    }
}
