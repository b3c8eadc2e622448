//! The log of `--log`, in the form runc's clients read (contract A.8, A.9).
//!
//! containerd takes the last line whose level is `error`; podman parses the *whole* file as one JSON object. So a failure
//! is one line, and a file gets no warnings unless `--log-level` or `--debug` asks for them.

use crate::args::LogOptions;
use rrt_runtime::log::Level;
use rrt_runtime::time::Rfc3339;
use serde::Serialize;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Where lines go. It holds no descriptor: the file is opened for each line, so that a log costs nothing to a command that
/// says nothing, and can never be inherited by a container or pass for one of its `--preserve-fds`.
#[derive(Debug, Clone)]
pub struct Log {
    /// None is stderr.
    file: Option<PathBuf>,
    json: bool,
    level: Level,
}

impl Log {
    /// The log before the flags are known.
    pub fn stderr() -> Log {
        Log { file: None, json: false, level: Level::Warn }
    }

    /// Makes the file if there is none, as runc does, so that a reader finds one.
    ///
    /// # Errors
    /// One line that names the flag and the path.
    pub fn open(options: &LogOptions) -> Result<Log, String> {
        let file = match &options.file {
            None => None,
            Some(path) => Some(prepare(path).map_err(|e| {
                format!("--log {}: cannot open for appending: {e}: give a path in a writable directory", path.display())
            })?),
        };
        let level = options.level.unwrap_or(if file.is_some() { Level::Error } else { Level::Warn });
        Ok(Log { file, json: options.json, level })
    }

    /// Writes one line, if `level` is wanted.
    pub fn line(&self, level: Level, message: &str) {
        if level < self.level {
            return;
        }
        let line = format_line(self.json, &Rfc3339::now().to_string(), level, message);
        match &self.file {
            None => to_stderr(&line),
            // A full disk must not hide what happened.
            Some(path) => {
                append(path).and_then(|mut f| f.write_all(line.as_bytes())).unwrap_or_else(|_| to_stderr(&line))
            }
        }
    }

    /// Writes the one line of a failed command: to the log, and for people to stderr if the log is elsewhere.
    pub fn fatal(&self, message: &str) {
        self.line(Level::Error, message);
        if self.file.is_some() {
            to_stderr(&format!("{message}\n"));
        }
    }
}

/// Checks that the file can be appended to, and makes its path good for any working directory.
fn prepare(path: &Path) -> io::Result<PathBuf> {
    let path = std::path::absolute(path)?;
    append(&path)?;
    Ok(path)
}

fn append(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).mode(0o644).open(path)
}

/// One write, so that lines of two processes do not mix. With stderr gone there is nobody left to tell.
fn to_stderr(line: &str) {
    let _ = io::stderr().write_all(line.as_bytes());
}

/// The fields of logrus, in its order.
#[derive(Serialize)]
struct Record<'a> {
    level: &'a str,
    msg: &'a str,
    time: &'a str,
}

fn format_line(json: bool, time: &str, level: Level, message: &str) -> String {
    let level = match level {
        Level::Error => "error",
        Level::Warn => "warning",
        Level::Info => "info",
        Level::Debug => "debug",
    };
    if json {
        let record = Record { level, msg: message, time };
        serde_json::to_string(&record).expect("three strings") + "\n"
    } else {
        // Debug's quoting keeps line breaks out of the line.
        format!("time=\"{time}\" level={level} msg={message:?}\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIME: &str = "2026-08-19T10:00:00Z";

    fn scratch(name: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("rrt-log-{}-{name}", std::process::id()));
        let _ = std::fs::remove_file(&path);
        path
    }

    #[test]
    fn a_json_line_is_one_object_with_the_fields_of_logrus() {
        assert_eq!(
            format_line(true, TIME, Level::Error, "a \"b\"\nc"),
            "{\"level\":\"error\",\"msg\":\"a \\\"b\\\"\\nc\",\"time\":\"2026-08-19T10:00:00Z\"}\n"
        );
    }

    #[test]
    fn a_text_line_is_one_line_whatever_the_message() {
        assert_eq!(
            format_line(false, TIME, Level::Warn, "a \"b\"\nc"),
            "time=\"2026-08-19T10:00:00Z\" level=warning msg=\"a \\\"b\\\"\\nc\"\n"
        );
    }

    #[test]
    fn a_file_is_appended_to_and_by_default_gets_errors_alone() {
        let path = scratch("append");
        std::fs::write(&path, "before\n").unwrap();
        let log = Log::open(&LogOptions { file: Some(path.clone()), json: true, level: None }).unwrap();
        log.line(Level::Warn, "dropped");
        log.line(Level::Error, "kept");
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 2);
        assert_eq!(lines[0], "before");
        let value: serde_json::Value = serde_json::from_str(lines[1]).unwrap();
        assert_eq!((&value["level"], &value["msg"]), (&"error".into(), &"kept".into()));
    }

    #[test]
    fn debug_lets_everything_through() {
        let path = scratch("debug");
        let log = Log::open(&LogOptions { file: Some(path.clone()), json: false, level: Some(Level::Debug) }).unwrap();
        log.line(Level::Debug, "one");
        log.line(Level::Warn, "two");
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        assert_eq!(text.lines().count(), 2);
    }

    #[test]
    fn a_log_that_cannot_be_opened_is_an_error_that_names_the_flag() {
        let options = LogOptions { file: Some("/proc/nowhere/log".into()), json: false, level: None };
        let text = Log::open(&options).unwrap_err();
        assert!(text.contains("--log /proc/nowhere/log"), "{text}");
    }
}
