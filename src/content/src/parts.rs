//! Which parts of a blob are written, when they come in any order; and their record beside the file, so that a cut download of
//! several ranges can go on.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::ops::Range;

/// Ranges of bytes, none empty, none touching another.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Parts(BTreeMap<u64, u64>);

impl Parts {
    /// The first `end` bytes.
    pub fn up_to(end: u64) -> Parts {
        let mut parts = Parts::default();
        parts.add(0..end);
        parts
    }

    pub fn add(&mut self, range: Range<u64>) {
        if range.is_empty() {
            return;
        }
        let (mut start, mut end) = (range.start, range.end);
        // Those that begin at or before the end, from the last on, until one ends before the start.
        while let Some((&s, &e)) = self.0.range(..=end).next_back().filter(|(_, e)| **e >= start) {
            self.0.remove(&s);
            (start, end) = (start.min(s), end.max(e));
        }
        self.0.insert(start, end);
    }

    /// Where the part that begins at 0 ends; 0 when there is none.
    pub fn prefix(&self) -> u64 {
        self.0.get(&0).copied().unwrap_or(0)
    }

    /// The end of the last part.
    pub fn end(&self) -> u64 {
        self.0.last_key_value().map_or(0, |(_, end)| *end)
    }

    /// What is not there of the first `size` bytes.
    pub fn missing(&self, size: u64) -> Vec<Range<u64>> {
        let mut missing = Vec::new();
        let mut at = 0;
        for (&start, &end) in self.0.range(..size) {
            if at < start {
                missing.push(at..start);
            }
            at = end;
        }
        if at < size {
            missing.push(at..size);
        }
        missing
    }

    /// One line of the record. The last whole line counts, so a line cut by a kill takes nothing back.
    pub fn line(&self) -> String {
        let mut line = String::new();
        for (start, end) in &self.0 {
            let _ = write!(line, "{start}-{end} ");
        }
        line + "\n"
    }

    /// The last whole line of a record, as far as the file of `length` bytes can have it.
    pub fn of_record(text: &str, length: u64) -> Parts {
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        let last = whole.rsplit('\n').next().unwrap_or("");
        let mut parts = Parts::default();
        for part in last.split_ascii_whitespace() {
            if let Some((Ok(start), Ok(end))) = part.split_once('-').map(|(s, e)| (s.parse(), e.parse::<u64>())) {
                parts.add(start..end.min(length));
            }
        }
        parts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_joined() {
        let mut parts = Parts::default();
        for range in [10..20, 30..40, 5..5, 20..25, 0..3, 3..5] {
            parts.add(range);
        }
        assert_eq!(parts.line(), "0-5 10-25 30-40 \n");
        assert_eq!((parts.prefix(), parts.end()), (5, 40));
        assert_eq!(parts.missing(45), [5..10, 25..30, 40..45]);
        assert_eq!(parts.missing(12).first(), Some(&(5..10)));
        parts.add(4..31);
        assert_eq!(parts, Parts::up_to(40));
        assert_eq!(parts.missing(40), []);
        assert_eq!(Parts::default().missing(2).first(), Some(&(0..2)));
    }

    #[test]
    fn the_last_whole_line_counts() {
        assert_eq!(Parts::of_record("0-5 \n0-5 7-9 \n0-1", 100).line(), "0-5 7-9 \n");
        assert_eq!(Parts::of_record("0-5 7-9 \n", 8).line(), "0-5 7-8 \n");
        assert_eq!(Parts::of_record("0-5 7-9 \n", 6).line(), "0-5 \n");
        assert_eq!(Parts::of_record("0-5", 100), Parts::default());
        assert_eq!(Parts::of_record("x-5 9 -\n", 100), Parts::default());
    }
}
