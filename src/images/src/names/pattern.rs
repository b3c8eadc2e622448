//! Go's `path.Match`, for `--filter reference=`.

/// Does the whole of `name` match? `*` and `?` match no slash; `[a-z]`, `[^a-z]` one character; `\` takes the next as it is.
/// `None`: the pattern is malformed.
pub(super) fn matches(pattern: &str, name: &str) -> Option<bool> {
    let pattern: Vec<char> = pattern.chars().collect();
    let name: Vec<char> = name.chars().collect();
    // The pattern is read to its end first, so that a malformed one is refused whatever the name.
    let mut at = 0;
    while at < pattern.len() {
        at = Piece::read(&pattern, at)?.1;
    }
    // Where to go on when what follows the last star does not match: one character further.
    let (mut p, mut n, mut star) = (0, 0, None);
    while n < name.len() || p < pattern.len() {
        if p < pattern.len() {
            let (piece, next) = Piece::read(&pattern, p)?;
            if let Piece::Star = piece {
                star = Some((next, n));
                p = next;
                continue;
            }
            if n < name.len() && piece.takes(name[n]) {
                (p, n) = (next, n + 1);
                continue;
            }
        }
        match star {
            Some((after, from)) if from < name.len() && name[from] != '/' => {
                star = Some((after, from + 1));
                (p, n) = (after, from + 1);
            }
            _ => return Some(false),
        }
    }
    Some(true)
}

enum Piece {
    Star,
    Any,
    One(char),
    Class { not: bool, ranges: Vec<(char, char)> },
}

impl Piece {
    /// The piece at `at` and where the next begins.
    fn read(pattern: &[char], at: usize) -> Option<(Piece, usize)> {
        match pattern[at] {
            '*' => Some((Piece::Star, at + 1)),
            '?' => Some((Piece::Any, at + 1)),
            '[' => Piece::class(pattern, at + 1),
            _ => literal(pattern, at).map(|(c, next)| (Piece::One(c), next)),
        }
    }

    fn class(pattern: &[char], mut at: usize) -> Option<(Piece, usize)> {
        let not = *pattern.get(at)? == '^';
        at += usize::from(not);
        let mut ranges = Vec::new();
        loop {
            match *pattern.get(at)? {
                ']' if !ranges.is_empty() => return Some((Piece::Class { not, ranges }, at + 1)),
                ']' | '-' => return None,
                _ => {}
            }
            let (low, next) = literal(pattern, at)?;
            let mut range = (low, low);
            at = next;
            if *pattern.get(at)? == '-' {
                if matches!(*pattern.get(at + 1)?, ']' | '-') {
                    return None;
                }
                (range.1, at) = literal(pattern, at + 1)?;
            }
            ranges.push(range);
        }
    }

    fn takes(&self, c: char) -> bool {
        match self {
            Piece::Star => false,
            Piece::Any => c != '/',
            Piece::One(one) => *one == c,
            Piece::Class { not, ranges } => ranges.iter().any(|(low, high)| (*low..=*high).contains(&c)) != *not,
        }
    }
}

fn literal(pattern: &[char], at: usize) -> Option<(char, usize)> {
    match *pattern.get(at)? {
        '\\' => pattern.get(at + 1).map(|c| (*c, at + 2)),
        c => Some((c, at + 1)),
    }
}

#[cfg(test)]
mod tests {
    use super::matches;

    /// The cases of Go's documentation and of its own test that matter here.
    #[test]
    fn as_go_matches() {
        for (pattern, name, result) in [
            ("", "", Some(true)),
            ("abc", "abc", Some(true)),
            ("*", "abc", Some(true)),
            ("*c", "abc", Some(true)),
            ("a*", "a", Some(true)),
            ("a*", "ab/c", Some(false)),
            ("a*/b", "abc/b", Some(true)),
            ("a*/b", "a/c/b", Some(false)),
            ("a*b*c*d*e*/f", "axbxcxdxexxx/f", Some(true)),
            ("a*b*c*d*e*/f", "axbxcxdxexxx/fff", Some(false)),
            ("a*b?c*x", "abxbbxdbxebxczzx", Some(true)),
            ("a*b?c*x", "abxbbxdbxebxczzy", Some(false)),
            ("ab[c]", "abc", Some(true)),
            ("ab[b-d]", "abc", Some(true)),
            ("ab[^c]", "abc", Some(false)),
            ("ab[^e-g]", "abc", Some(true)),
            ("a\\*b", "a*b", Some(true)),
            ("a\\*b", "axb", Some(false)),
            ("a?b", "a☺b", Some(true)),
            ("a?b", "a/b", Some(false)),
            ("[\\]a]", "]", Some(true)),
            ("[a", "a", None),
            ("[", "a", None),
            ("[^", "a", None),
            ("[]a]", "]", None),
            ("[-]", "-", None),
            ("[x-]", "x", None),
            ("a[", "ab", None),
            ("\\", "a", None),
            ("*x", "xxx", Some(true)),
            ("*/*", "a/b", Some(true)),
        ] {
            assert_eq!(matches(pattern, name), result, "{pattern} {name}");
        }
    }
}
