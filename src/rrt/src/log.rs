//! The log of `--log`, in the form runc's clients read (contract A.8, A.9).
//!
//! containerd takes the last line whose level is `error`; podman parses the *whole* file as one JSON object. So a failure
//! is one line, and a file gets no warnings unless `--log-level` or `--debug` asks for them.

use crate::args::{LogOptions, LogService};
use rrt_runtime::log::Level;
use rrt_runtime::time::Rfc3339;
use serde::Serialize;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Where lines go. It holds no descriptor: the file is opened for each line, so that a log costs nothing to a command that
/// says nothing, and can never be inherited by a container or pass for one of its `--preserve-fds`.
#[derive(Debug, Clone)]
pub struct Log {
    to: To,
    json: bool,
    level: Level,
}

#[derive(Debug, Clone)]
enum To {
    Stderr,
    File(PathBuf),
    Service(LogService),
}

impl Log {
    /// The log before the flags are known.
    pub fn stderr() -> Log {
        Log { to: To::Stderr, json: false, level: Level::Warn }
    }

    /// Makes the file if there is none, as runc does, so that a reader finds one.
    ///
    /// # Errors
    /// One line that names the flag and the path.
    pub fn open(options: &LogOptions) -> Result<Log, String> {
        let to = match (&options.service, &options.file) {
            (Some(service), _) => {
                let (name, socket) = (service.name(), service.socket());
                let reached = UnixDatagram::unbound().and_then(|s| s.connect(socket));
                reached
                    .map_err(|e| format!("--log {name}: connect to {socket}: {e}: is it running? or give a file"))?;
                To::Service(service.clone())
            }
            (None, None) => To::Stderr,
            (None, Some(path)) => To::File(prepare(path).map_err(|e| {
                format!("--log {}: cannot open for appending: {e}: give a path in a writable directory", path.display())
            })?),
        };
        // Nobody reads a service's lines as one document.
        let level = options.level.unwrap_or(if matches!(to, To::File(_)) { Level::Error } else { Level::Warn });
        Ok(Log { to, json: options.json, level })
    }

    /// Writes one line, if `level` is wanted.
    pub fn line(&self, level: Level, message: &str) {
        if level < self.level {
            return;
        }
        let line = format_line(self.json, &Rfc3339::now().to_string(), level, message);
        // A full disk, or a service that hangs, must not hide what happened.
        match &self.to {
            To::Stderr => to_stderr(&line),
            To::File(path) => {
                append(path).and_then(|mut f| f.write_all(line.as_bytes())).unwrap_or_else(|_| to_stderr(&line))
            }
            To::Service(service) => {
                // They note the time and the level themselves.
                let text = if self.json { line.trim_end() } else { message };
                service.send(level, text).unwrap_or_else(|_| to_stderr(&line))
            }
        }
    }

    /// Writes the one line of a failed command: to the log, and for people to stderr if the log is elsewhere.
    pub fn fatal(&self, message: &str) {
        self.line(Level::Error, message);
        if !matches!(self.to, To::Stderr) {
            to_stderr(&format!("{message}\n"));
        }
    }
}

/// How long a service may take to accept a line.
const SERVICE_TIMEOUT: Duration = Duration::from_secs(2);

impl LogService {
    fn name(&self) -> String {
        match self {
            LogService::Journald(id) => format!("journald:{id}"),
            LogService::Syslog(id) => format!("syslog:{id}"),
        }
    }

    fn socket(&self) -> &'static str {
        match self {
            LogService::Journald(_) => "/run/systemd/journal/socket",
            LogService::Syslog(_) => "/dev/log",
        }
    }

    fn send(&self, level: Level, text: &str) -> io::Result<()> {
        let socket = UnixDatagram::unbound()?;
        socket.set_write_timeout(Some(SERVICE_TIMEOUT))?;
        socket.send_to(&self.datagram(level, text), self.socket()).map(drop)
    }

    /// journald: fields a line each, but the message with its length before it, as it may have line breaks (systemd's "Native Journal
    /// Protocol"). syslog: priority, tag, and one line (RFC 3164; no time, which the one who receives it adds).
    fn datagram(&self, level: Level, text: &str) -> Vec<u8> {
        let severity = match level {
            Level::Error => 3,
            Level::Warn => 4,
            Level::Info => 6,
            Level::Debug => 7,
        };
        match self {
            LogService::Journald(id) => {
                let fields = format!("PRIORITY={severity}\nSYSLOG_IDENTIFIER=rrt\nID={id}\nMESSAGE\n");
                let length = (text.len() as u64).to_le_bytes();
                [fields.as_bytes(), &length, text.as_bytes(), b"\n"].concat()
            }
            LogService::Syslog(id) => {
                /// `LOG_USER` of syslog(3)
                const USER: u8 = 1 << 3;
                format!("<{}>{id}: {}", USER | severity, text.replace(char::is_control, " ")).into_bytes()
            }
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

    fn to_file(path: &Path) -> LogOptions {
        LogOptions { file: Some(path.into()), service: None, json: false, level: None }
    }

    #[test]
    fn what_services_get() {
        let sent = |service: LogService, text| String::from_utf8(service.datagram(Level::Error, text)).unwrap();
        assert_eq!(
            sent(LogService::Journald("box".into()), "a\nb=c"),
            "PRIORITY=3\nSYSLOG_IDENTIFIER=rrt\nID=box\nMESSAGE\n\u{5}\0\0\0\0\0\0\0a\nb=c\n"
        );
        assert_eq!(sent(LogService::Syslog("box".into()), "a\nb"), "<11>box: a b");
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
        let log = Log::open(&LogOptions { json: true, level: None, ..to_file(&path) }).unwrap();
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
        let log = Log::open(&LogOptions { level: Some(Level::Debug), ..to_file(&path) }).unwrap();
        log.line(Level::Debug, "one");
        log.line(Level::Warn, "two");
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        assert_eq!(text.lines().count(), 2);
    }

    #[test]
    fn a_log_that_cannot_be_opened_is_an_error_that_names_the_flag() {
        let options = to_file(Path::new("/proc/nowhere/log"));
        let text = Log::open(&options).unwrap_err();
        assert!(text.contains("--log /proc/nowhere/log"), "{text}");
    }
}
