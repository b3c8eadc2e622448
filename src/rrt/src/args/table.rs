//! What a command and a flag are in the table of the command line ([`super::flags`]), which everything reads: the parser, the help, completions and
//! man pages. Constants: a command that runs for a millisecond pays for no table that has to be built first.

/// The flags before the command, and the commands.
pub struct Table {
    /// Its flags are the global ones, its words are the command's line. It has no name.
    pub global: Entry,
    /// In the order of the help.
    pub commands: &'static [Entry],
}

/// A command of the command line.
#[derive(Debug)]
pub struct Entry {
    /// What is typed.
    pub name: &'static str,
    /// One line for the list of commands.
    pub about: &'static str,
    /// Where its flags may stand.
    pub place: Place,
    /// In groups, since commands share some.
    pub flags: &'static [&'static [Flag]],
    /// What else may be typed, required ones first.
    pub words: &'static [Word],
}

/// Where flags may stand among the words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// Also after words: `delete ID --force`.
    Anywhere,
    /// The first word ends them, what follows belongs to another program: `exec ID ls -la`.
    BeforeWords,
}

/// A flag. What it does, and how its value is read, is the reader's to know ([`super::command`]).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Flag {
    /// Without its dashes.
    pub long: &'static str,
    /// The letter that is another name of it.
    pub short: Option<char>,
    /// Whether it takes a value.
    pub kind: Kind,
    /// One line; empty in one that is accepted and not shown.
    pub help: &'static str,
}

/// Whether a flag takes a value; the text is the value's name in the help.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// None: it is there or not.
    Switch,
    /// One; the last one given counts.
    Value(&'static str),
    /// One each time it is given, and all of them count.
    Repeatable(&'static str),
}

/// What a shell can offer for a flag's value.
pub enum Values {
    Files,
    Directories,
    Of(&'static [&'static str]),
    Unknown,
}

/// A word that is no flag.
#[derive(Debug)]
pub struct Word {
    /// Its name in the help.
    pub name: &'static str,
    /// Whether the command fails without it.
    pub required: bool,
    /// Whether it stands for all the words that are left. Only the last can.
    pub many: bool,
    /// One line.
    pub help: &'static str,
}

impl Entry {
    /// All its flags.
    pub fn flags(&self) -> impl Iterator<Item = &'static Flag> + use<> {
        self.flags.iter().flat_map(|group| group.iter())
    }

    /// Those a person is told of.
    pub fn shown(&self) -> Vec<&'static Flag> {
        self.flags().filter(|flag| !flag.help.is_empty()).collect()
    }

    /// Whether its first word is a container that exists.
    pub fn takes_container(&self) -> bool {
        let new = ["create", "run", "plan", "restore"].contains(&self.name);
        !new && self.words.first().is_some_and(|word| word.name == "container-id")
    }
}

impl Flag {
    /// The name of its value; none for a switch.
    pub fn value(&self) -> Option<&'static str> {
        match self.kind {
            Kind::Switch => None,
            Kind::Value(name) | Kind::Repeatable(name) => Some(name),
        }
    }

    /// As the help and errors write it: `--bundle <DIR>`.
    pub fn shown(&self) -> String {
        match self.value() {
            Some(value) => format!("--{} <{value}>", self.long),
            None => format!("--{}", self.long),
        }
    }

    /// `--long` and `-s`.
    pub fn spellings(&self) -> Vec<String> {
        [Some(format!("--{}", self.long)), self.short.map(|s| format!("-{s}"))].into_iter().flatten().collect()
    }

    /// What its value may be.
    pub fn values(&self) -> Values {
        match (self.long, self.value()) {
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

impl Word {
    /// As the help and errors write it: `<container-id>`, `[signal]`, `[command]...`.
    pub fn shown(&self) -> String {
        let (open, close) = if self.required { ('<', '>') } else { ('[', ']') };
        format!("{open}{}{close}{}", self.name, if self.many { "..." } else { "" })
    }
}
