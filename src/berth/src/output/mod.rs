//! How things are printed.

pub mod file;
pub mod format;
pub mod progress;
pub mod table;
pub mod terminal;
pub mod time;
pub mod units;

use std::borrow::Cow;

/// Text of others (a registry's answer, an image's history) that a terminal shows and does not obey: control characters but the line
/// feed are replaced.
pub fn printable(text: &str) -> Cow<'_, str> {
    let bad = |c: char| c.is_control() && c != '\n';
    match text.contains(bad) {
        true => text.chars().map(|c| if bad(c) { '\u{fffd}' } else { c }).collect::<String>().into(),
        false => text.into(),
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn control_characters_do_not_reach_a_terminal() {
        assert_eq!(super::printable("a\nb\x1b[2J\u{9b}x\r"), "a\nb\u{fffd}[2J\u{fffd}x\u{fffd}");
        assert_eq!(super::printable("é …"), "é …");
    }
}
