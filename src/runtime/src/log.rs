//! Where the runtime's warnings go: to a sink that the program sets once. An error is returned, never logged here.

use std::cell::RefCell;

/// How serious a line is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Only with `--debug`.
    Debug,
    /// Worth knowing.
    Info,
    /// Something was left out or ignored.
    Warn,
    /// The command failed.
    Error,
}

type Sink = Box<dyn Fn(Level, &str)>;

thread_local! {
    // The runtime has one thread (DESIGN.md section 2), so a thread-local is a global without a lock.
    static SINK: RefCell<Option<Sink>> = const { RefCell::new(None) };
}

/// Sets where lines go; without it they are dropped.
pub fn set_sink(sink: Sink) {
    SINK.with(|s| *s.borrow_mut() = Some(sink));
}

/// Logs a warning.
pub fn warn(text: impl AsRef<str>) {
    emit(Level::Warn, text.as_ref());
}

/// Logs a line for `--debug`.
pub fn debug(text: impl AsRef<str>) {
    emit(Level::Debug, text.as_ref());
}

fn emit(level: Level, text: &str) {
    SINK.with(|s| {
        if let Some(sink) = s.borrow().as_ref() {
            sink(level, text);
        }
    });
}
