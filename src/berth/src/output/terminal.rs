//! The terminal: its size, and questions on it.

use rustix::termios::{LocalModes, OptionalActions, SpecialCodeIndex, tcgetattr, tcgetwinsize, tcsetattr};
use std::io::{self, Read, Write};

/// Columns and rows of the terminal that standard output is; `None`: it is none.
pub fn size() -> Option<(usize, usize)> {
    let size = tcgetwinsize(io::stdout()).ok()?;
    // A serial line may not know.
    let or = |n: u16, default: usize| if n == 0 { default } else { n.into() };
    Some((or(size.ws_col, 80), or(size.ws_row, 24)))
}

/// A question and its answer, without the line feed.
pub fn ask(question: &str) -> io::Result<String> {
    let mut err = io::stderr();
    err.write_all(question.as_bytes())?;
    err.flush()?;
    let mut answer = String::new();
    io::stdin().read_line(&mut answer)?;
    Ok(answer.trim_end_matches(['\r', '\n']).to_owned())
}

/// The same, while the terminal does not show what is typed. Keys that would end or stop the process are read like others, so that
/// it never leaves a silent terminal behind; Ctrl-C is [`io::ErrorKind::Interrupted`].
pub fn ask_secret(question: &str) -> io::Result<String> {
    let before = tcgetattr(io::stdin())?;
    let mut silent = before.clone();
    silent.local_modes.remove(LocalModes::ECHO | LocalModes::ICANON | LocalModes::ISIG);
    silent.special_codes[SpecialCodeIndex::VMIN] = 1;
    silent.special_codes[SpecialCodeIndex::VTIME] = 0;
    tcsetattr(io::stdin(), OptionalActions::Flush, &silent)?;
    let mut err = io::stderr();
    let asked = err.write_all(question.as_bytes()).and_then(|()| err.flush());
    let answer = asked.and_then(|()| read_secret(&mut io::stdin().lock()));
    tcsetattr(io::stdin(), OptionalActions::Now, &before)?;
    let _ = writeln!(err);
    answer
}

fn read_secret(input: &mut impl Read) -> io::Result<String> {
    let mut secret = Vec::new();
    let mut byte = [0];
    while input.read(&mut byte)? == 1 {
        match byte[0] {
            b'\r' | b'\n' | CTRL_D => break,
            CTRL_C => return Err(io::ErrorKind::Interrupted.into()),
            BACKSPACE | DELETE => drop(secret.pop()),
            _ if secret.len() == MAX_SECRET => return Err(io::Error::other("the line is too long")),
            other => secret.push(other),
        }
    }
    String::from_utf8(secret).map_err(|_| io::Error::other("not UTF-8"))
}

const CTRL_C: u8 = 3;
const CTRL_D: u8 = 4;
const BACKSPACE: u8 = 8;
const DELETE: u8 = 127;
/// Bytes.
const MAX_SECRET: usize = 64 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_a_line() {
        let read = |text: &str| read_secret(&mut text.as_bytes());
        assert_eq!(read("a\u{7f}b c\nrest").unwrap(), "b c");
        assert_eq!(read("x\u{4}").unwrap(), "x");
        assert_eq!(read("ab\u{3}").unwrap_err().kind(), io::ErrorKind::Interrupted);
    }
}
