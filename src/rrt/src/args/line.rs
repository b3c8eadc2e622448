//! What was typed, by the names in the table. A value stays the bytes it was until the place that wants it reads it, by a function of
//! [`super::values`]; the error names the flag.

use super::table::{Entry, Flag, Kind, Word};
use super::values;
use std::ffi::{OsStr, OsString};
use std::path::PathBuf;

/// A command line taken apart.
#[derive(Debug)]
pub struct Line<'a> {
    entry: &'static Entry,
    /// In the order of the line; the value of a switch is empty.
    pub flags: Vec<(&'static Flag, &'a OsStr)>,
    /// Everything else, untouched.
    pub words: Vec<&'a OsStr>,
    /// `-h` or `--help` stood among the flags.
    pub help: bool,
}

impl<'a> Line<'a> {
    /// An empty line of a command.
    pub fn new(entry: &'static Entry) -> Line<'a> {
        Line { entry, flags: Vec::new(), words: Vec::new(), help: false }
    }

    /// Adds a flag that takes a value.
    pub fn push(&mut self, flag: &'static Flag, value: &'a OsStr) {
        self.flags.push((flag, value));
    }

    /// The last spelling of a switch wins, so `--b --b=false` is off.
    pub fn set(&mut self, switch: &'static Flag, on: bool) {
        self.flags.retain(|(flag, _)| flag.long != switch.long);
        if on {
            self.flags.push((switch, OsStr::new("")));
        }
    }

    /// Whether a switch is on.
    pub fn has(&self, switch: &str) -> bool {
        debug_assert!(self.entry.flags().any(|f| f.long == switch && f.kind == Kind::Switch), "{switch}");
        self.flags.iter().any(|(flag, _)| flag.long == switch)
    }

    /// The values of a flag or word, unread. Where both are called so the flag's come last, and count.
    fn given(&self, name: &str) -> Vec<(Source, &'a OsStr)> {
        debug_assert!(self.entry.takes(name), "no {name} in {}", self.entry.name);
        let mut given = Vec::new();
        for (at, value) in self.words.iter().enumerate() {
            if let Some(word) = self.entry.word(at).filter(|word| word.name == name) {
                given.push((Source::Word(word), *value));
            }
        }
        for (flag, value) in &self.flags {
            if flag.long == name {
                given.push((Source::Flag(flag), *value));
            }
        }
        given
    }

    /// Each value of a flag or word.
    ///
    /// # Errors
    /// What `read` says of the first that is wrong, with the flag's name.
    pub fn all<T>(&self, name: &str, read: fn(&str) -> Result<T, String>) -> Result<Vec<T>, String> {
        let mut all = Vec::new();
        for (source, value) in self.given(name) {
            let text = source.text(value)?;
            all.push(read(text).map_err(|why| source.refuse(value, &why))?);
        }
        Ok(all)
    }

    /// The last value of a flag or word. Those before it must be right too.
    ///
    /// # Errors
    /// As of [`Line::all`].
    pub fn one<T>(&self, name: &str, read: fn(&str) -> Result<T, String>) -> Result<Option<T>, String> {
        Ok(self.all(name, read)?.pop())
    }

    /// Text. An empty word is one not given: clients pass `--flag ""` for "none".
    ///
    /// # Errors
    /// It is not UTF-8.
    pub fn text(&self, name: &str) -> Result<Option<String>, String> {
        Ok(self.one(name, values::text)?.filter(|text| !text.is_empty()))
    }

    /// A path: any bytes, and an empty one means "not given", as in runc.
    pub fn path(&self, name: &str) -> Option<PathBuf> {
        self.given(name).last().filter(|(_, path)| !path.is_empty()).map(|(_, path)| path.into())
    }

    /// The words of that name, unread.
    pub fn rest(&self, name: &str) -> Vec<OsString> {
        self.given(name).into_iter().map(|(_, word)| word.into()).collect()
    }

    /// Compares the words with what the command takes.
    ///
    /// # Errors
    /// The first that is too much, or all that are missing.
    pub fn check_words(&self) -> Result<(), String> {
        let mut words = self.words.iter().enumerate();
        if let Some((_, word)) = words.find(|(at, _)| self.entry.word(*at).is_none()) {
            return Err(on_one_line(&format!("unexpected argument '{}' found", word.display())));
        }
        let missing = self.entry.words.iter().skip(self.words.len()).filter(|word| word.required);
        let missing: Vec<String> = missing.map(Word::shown).collect();
        if missing.is_empty() {
            return Ok(());
        }
        Err(format!("the following required arguments were not provided: {}", missing.join(" ")))
    }
}

impl Entry {
    /// What a word stands for, by its place; none if it is one too many.
    fn word(&self, at: usize) -> Option<&'static Word> {
        self.words.get(at).or(self.words.last().filter(|word| word.many))
    }

    /// Whether a flag of that name takes a value, or a word is called so.
    fn takes(&self, name: &str) -> bool {
        self.flags().any(|flag| flag.long == name && flag.value().is_some())
            || self.words.iter().any(|word| word.name == name)
    }
}

/// Where a value stood.
enum Source {
    Flag(&'static Flag),
    Word(&'static Word),
}

impl Source {
    fn text<'a>(&self, value: &'a OsStr) -> Result<&'a str, String> {
        value.to_str().ok_or_else(|| self.refuse(value, "expected UTF-8"))
    }

    fn refuse(&self, value: &OsStr, why: &str) -> String {
        let name = match self {
            Source::Flag(flag) => flag.shown(),
            Source::Word(word) => word.shown(),
        };
        on_one_line(&format!("invalid value '{}' for '{name}': {why}", value.display()))
    }
}

/// What was typed may hold line feeds; a log is read line by line, and clients show the last one.
fn on_one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
