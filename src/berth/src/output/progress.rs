//! Progress as Docker draws it: on a terminal a line for each layer, with a bar; elsewhere a plain line for each change.

use super::terminal;
use super::units::human_size;
use crate::interrupt::Interrupt;
use rrt_images::progress::{Phase, Progress};
use std::fmt::Write as _;
use std::io::{self, Write};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// More often nobody sees it.
const BETWEEN: Duration = Duration::from_millis(80);
/// Docker draws bars on terminals wider than this.
const BAR_FROM: usize = 110;
const BAR: usize = 50;

/// Where progress goes.
pub struct Screen {
    mode: Mode,
    state: Mutex<State>,
    interrupt: Option<Interrupt>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    Terminal,
    Plain,
    Quiet,
}

#[derive(Default)]
struct State {
    lines: Vec<Line>,
}

struct Line {
    id: String,
    /// The phase's text: `Phase` borrows.
    phase: String,
    text: String,
    drawn: Option<Instant>,
}

impl Screen {
    /// For standard output; `quiet`: nothing is shown.
    pub fn new(quiet: bool, interrupt: Option<Interrupt>) -> Screen {
        let mode = match terminal::size() {
            _ if quiet => Mode::Quiet,
            Some(_) => Mode::Terminal,
            None => Mode::Plain,
        };
        Screen { mode, state: Mutex::default(), interrupt }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Progress for Screen {
    fn layer(&self, id: &str, phase: Phase<'_>, done: u64, total: Option<u64>) {
        if self.mode == Mode::Quiet {
            return;
        }
        let mut state = self.state();
        let (at, is_new) = state.line_of(id);
        let line = &mut state.lines[at];
        let name = phase.to_string();
        let changed = is_new || line.phase != name;
        line.phase = name;
        if self.mode == Mode::Plain {
            if changed && !phase.has_bar() {
                write(&format!("{id}: {phase}\n"));
            }
            return;
        }
        if !changed && line.drawn.is_some_and(|drawn| drawn.elapsed() < BETWEEN) && Some(done) != total {
            return;
        }
        let (columns, rows) = terminal::size().unwrap_or((80, 24));
        let text = line_text(id, phase, done, total, columns);
        if changed || line.text != text {
            line.text = text;
            line.drawn = Some(Instant::now());
            let drawing = state.draw(at, is_new, rows);
            write(&drawing);
        }
    }

    fn line(&self, text: &str) {
        if self.mode != Mode::Quiet {
            // What is above stays as it is; layers that come now stand below.
            self.state().lines.clear();
            write(&format!("{}\n", super::printable(text)));
        }
    }

    fn cancelled(&self) -> bool {
        self.interrupt.as_ref().is_some_and(Interrupt::happened)
    }
}

impl State {
    /// The line of a layer, and whether it is new.
    fn line_of(&mut self, id: &str) -> (usize, bool) {
        if let Some(at) = self.lines.iter().position(|line| line.id == id) {
            return (at, false);
        }
        self.lines.push(Line { id: id.to_owned(), phase: String::new(), text: String::new(), drawn: None });
        (self.lines.len() - 1, true)
    }

    /// The cursor stands on the line below the last one, and does so again.
    fn draw(&self, at: usize, is_new: bool, rows: usize) -> String {
        let up = self.lines.len() - at;
        match () {
            () if is_new => format!("{}\n", self.lines[at].text),
            // It has left the top of the terminal.
            () if up >= rows => String::new(),
            () => format!("\x1b[{up}A\x1b[2K\r{}\r\x1b[{up}B", self.lines[at].text),
        }
    }
}

fn line_text(id: &str, phase: Phase<'_>, done: u64, total: Option<u64>, columns: usize) -> String {
    let mut text = format!("{id}: {phase} ");
    if phase.has_bar() {
        text += &bar(done, total, columns);
    }
    // A wrapped line would be two.
    text.chars().take(columns.saturating_sub(1)).collect()
}

/// `[==>        ]  12.3MB/45MB`
fn bar(done: u64, total: Option<u64>, columns: usize) -> String {
    let current = human_size(done);
    let Some(total) = total.filter(|total| *total > 0) else { return format!("{current:>8}") };
    let mut out = String::new();
    if columns > BAR_FROM {
        let filled = ((u128::from(done) * 100 / u128::from(total)) as usize / 2).min(BAR);
        let _ = write!(out, "[{}>{}] ", "=".repeat(filled), " ".repeat(BAR - filled));
    }
    match done > total {
        true => out + &format!("{current:>8}"),
        false => out + &format!("{current:>8}/{}", human_size(total)),
    }
}

/// When nobody reads any more the work goes on, and whoever prints the end says so.
fn write(text: &str) {
    let mut out = io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_are_dockers() {
        assert_eq!(bar(12_300_000, Some(45_000_000), 80), "  12.3MB/45MB");
        assert_eq!(
            bar(12_300_000, Some(45_000_000), 120),
            format!("[{}>{}]   12.3MB/45MB", "=".repeat(13), " ".repeat(37))
        );
        assert_eq!(bar(45_000_000, Some(45_000_000), 120), format!("[{}>]     45MB/45MB", "=".repeat(50)));
        assert_eq!(bar(1000, None, 120), "     1kB");
        assert_eq!(bar(2000, Some(1000), 80), "     2kB");
    }

    #[test]
    fn a_line_is_drawn_where_it_stands() {
        let mut state = State::default();
        for id in ["a", "b", "c"] {
            let (at, is_new) = state.line_of(id);
            state.lines[at].text = format!("{id}: Waiting");
            assert_eq!(state.draw(at, is_new, 24), format!("{id}: Waiting\n"));
        }
        let (at, is_new) = state.line_of("b");
        assert_eq!(state.draw(at, is_new, 24), "\x1b[2A\x1b[2K\rb: Waiting\r\x1b[2B");
        assert_eq!(state.draw(at, is_new, 2), "", "it is above the terminal");
    }

    #[test]
    fn a_line_is_no_wider_than_the_terminal() {
        let text = line_text("0123456789ab", Phase::Downloading, 1_000_000, Some(2_000_000), 20);
        assert_eq!(text, "0123456789ab: Downl");
    }
}
