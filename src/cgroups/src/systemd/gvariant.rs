//! Values of `org.systemd.property.*` annotations: the text form of GVariant, as far as D-Bus has its types.
//!
//! `'text'`, `true`, `5` (an `int32`), `0.5`, `uint64 5`, `['a', 'b']`, `@a(st) [('/dev/x', 5)]`, `{'k': <'v'>}`,
//! `b'bytes'`; see <https://docs.gtk.org/glib/gvariant-text-format.html>. A type that is not written follows from the
//! first element of an array. Not taken: `just`, `nothing` and handles, which no message of ours could carry.

use super::value::Value;
use super::wire::first_type;

/// How deep a value may be nested. Messages allow 32 arrays and 32 structs; a property has two or three.
const DEPTH_MAX: usize = 16;
/// The longest signature of D-Bus.
const SIGNATURE_MAX: usize = 255;

/// The names of types that may stand before a value.
const NAMES: [(&str, &str); 12] = [
    ("boolean", "b"),
    ("byte", "y"),
    ("int16", "n"),
    ("uint16", "q"),
    ("int32", "i"),
    ("uint32", "u"),
    ("int64", "x"),
    ("uint64", "t"),
    ("double", "d"),
    ("string", "s"),
    ("objectpath", "o"),
    ("signature", "g"),
];

/// Reads one value and nothing after it.
///
/// # Errors
/// What is wrong, and where.
pub(crate) fn parse(text: &str) -> Result<Value, String> {
    let mut parser = Parser { text, at: 0 };
    let value = parser.value(None, 0)?;
    parser.blank();
    match parser.rest() {
        "" if value.signature().len() > SIGNATURE_MAX => Err("its type is longer than D-Bus allows".into()),
        "" => Ok(value),
        rest => Err(format!("{rest:?} follows the value")),
    }
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Parser<'a> {
    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn blank(&mut self) {
        self.at = self.text.len() - self.rest().trim_start().len();
    }

    /// Passes over `token` if it is next.
    fn eat(&mut self, token: &str) -> bool {
        self.blank();
        let found = self.rest().starts_with(token);
        if found {
            self.at += token.len();
        }
        found
    }

    fn expect(&mut self, token: &str) -> Result<(), String> {
        if self.eat(token) { Ok(()) } else { Err(format!("{token:?} is missing before {:?}", self.rest())) }
    }

    /// A value of the type `want`, or of the type it says itself.
    fn value(&mut self, want: Option<&str>, depth: usize) -> Result<Value, String> {
        if depth > DEPTH_MAX {
            return Err(format!("nested more than {DEPTH_MAX} levels deep"));
        }
        self.blank();
        let rest = self.rest();
        match rest.as_bytes().first() {
            None => Err("a value is missing".into()),
            Some(b'@') => self.annotated(want, depth),
            Some(b'[') => self.array(want, depth),
            Some(b'(') => self.tuple(want, depth),
            Some(b'{') => self.dictionary(want, depth),
            Some(b'<') => {
                self.expect("<")?;
                let inner = self.value(None, depth + 1)?;
                self.expect(">")?;
                typed(Value::Variant(Box::new(inner)), want)
            }
            Some(b'\'' | b'"') => {
                let text = self.string()?;
                text_of(text, want.unwrap_or("s"))
            }
            Some(b'b') if rest[1..].starts_with(['\'', '"']) => {
                self.at += 1;
                // A byte string ends in a NUL, which is one of its bytes.
                let bytes = [self.string()?.as_bytes(), &[0]].concat();
                typed(Value::bytes(&bytes), want)
            }
            Some(_) => self.word(want, depth),
        }
    }

    /// `@type value`
    fn annotated(&mut self, want: Option<&str>, depth: usize) -> Result<Value, String> {
        self.expect("@")?;
        let (signature, rest) = first_type(self.rest()).map_err(|_| format!("no type in {:?}", self.rest()))?;
        if signature.contains('h') || signature.starts_with('{') {
            return Err(format!("values of the type {signature:?} cannot be set"));
        }
        self.at = self.text.len() - rest.len();
        let value = self.value(Some(signature), depth + 1)?;
        typed(value, want)
    }

    fn array(&mut self, want: Option<&str>, depth: usize) -> Result<Value, String> {
        self.expect("[")?;
        let mut element = match want {
            Some(want) => Some(want.strip_prefix('a').ok_or_else(|| mismatch("an array", want))?.to_owned()),
            None => None,
        };
        let mut values = Vec::new();
        while !self.eat("]") {
            if !values.is_empty() {
                self.expect(",")?;
            }
            let value = self.value(element.as_deref(), depth + 1)?;
            element.get_or_insert_with(|| value.signature());
            values.push(value);
        }
        let element = element.ok_or("an empty array needs its type, as \"@as []\"")?;
        Ok(Value::Array(element, values))
    }

    fn tuple(&mut self, want: Option<&str>, depth: usize) -> Result<Value, String> {
        self.expect("(")?;
        let mut wanted = match want {
            Some(want) if !want.starts_with('(') => return Err(mismatch("a tuple", want)),
            Some(want) => Some(&want[1..want.len() - 1]),
            None => None,
        };
        let mut fields = Vec::new();
        // A comma may stand after the last one, and has to when there is only one.
        while !self.eat(")") {
            let field = match wanted {
                Some(types) => {
                    let (first, rest) = first_type(types).map_err(|_| "more values than its type has")?;
                    wanted = Some(rest);
                    self.value(Some(first), depth + 1)?
                }
                None => self.value(None, depth + 1)?,
            };
            fields.push(field);
            if !self.eat(",") {
                self.expect(")")?;
                break;
            }
        }
        match wanted {
            Some(rest) if !rest.is_empty() => Err(format!("fewer values than its type has ({rest:?} is missing)")),
            _ if fields.is_empty() => Err("an empty tuple is no value of D-Bus".into()),
            _ => Ok(Value::Struct(fields)),
        }
    }

    fn dictionary(&mut self, want: Option<&str>, depth: usize) -> Result<Value, String> {
        self.expect("{")?;
        let mut types = match want {
            Some(want) => {
                let inner = want.strip_prefix("a{").and_then(|w| w.strip_suffix('}'));
                let inner = inner.ok_or_else(|| mismatch("a dictionary", want))?;
                let (key, value) = first_type(inner).map_err(|_| "no type")?;
                Some((key.to_owned(), value.to_owned()))
            }
            None => None,
        };
        let mut entries = Vec::new();
        while !self.eat("}") {
            if !entries.is_empty() {
                self.expect(",")?;
            }
            let key = self.value(types.as_ref().map(|t| t.0.as_str()), depth + 1)?;
            if "a({v".contains(&key.signature()[..1]) {
                return Err(format!("{key} cannot be a key"));
            }
            self.expect(":")?;
            let value = self.value(types.as_ref().map(|t| t.1.as_str()), depth + 1)?;
            types.get_or_insert_with(|| (key.signature(), value.signature()));
            entries.push(Value::Entry(Box::new((key, value))));
        }
        let (key, value) = types.ok_or("an empty dictionary needs its type, as \"@a{sv} {}\"")?;
        Ok(Value::Array(format!("{{{key}{value}}}"), entries))
    }

    /// A number, `true`, `false`, or the name of a type and a value.
    fn word(&mut self, want: Option<&str>, depth: usize) -> Result<Value, String> {
        let rest = self.rest();
        let end = rest.find(|c: char| !(c.is_ascii_alphanumeric() || "+-._".contains(c))).unwrap_or(rest.len());
        let word = &rest[..end];
        if word.is_empty() {
            return Err(format!("{rest:?} is no value"));
        }
        self.at += end;
        if let Some((_, letter)) = NAMES.iter().find(|(name, _)| *name == word) {
            let value = self.value(Some(letter), depth + 1)?;
            return typed(value, want);
        }
        match word {
            "true" | "false" => typed(Value::Bool(word == "true"), want),
            _ if word.starts_with(|c: char| c.is_ascii_digit() || "+-.".contains(c)) || is_float_word(word) => {
                let default = if is_float(word) { "d" } else { "i" };
                number(word, want.unwrap_or(default))
            }
            _ => Err(format!("{word:?} is no value; a text needs quotes, as \"'{word}'\"")),
        }
    }

    /// A text in quotes of either kind.
    fn string(&mut self) -> Result<String, String> {
        let mut chars = self.rest().char_indices();
        let quote = chars.next().map_or('\'', |(_, c)| c);
        let mut out = String::new();
        while let Some((at, c)) = chars.next() {
            match c {
                _ if c == quote => {
                    self.at += at + 1;
                    return Ok(out);
                }
                '\\' => {
                    let escaped = chars.next().map(|(_, c)| c).ok_or("a text without an end")?;
                    let code = |n| {
                        let hex: String = chars.by_ref().take(n).map(|(_, c)| c).collect();
                        u32::from_str_radix(&hex, 16).ok().filter(|_| hex.len() == n).and_then(char::from_u32)
                    };
                    out.extend(unescape(escaped, code)?);
                }
                '\0' => return Err("a text with a NUL".into()),
                c => out.push(c),
            }
        }
        Err("a text without an end".into())
    }
}

fn unescape(c: char, mut code: impl FnMut(usize) -> Option<char>) -> Result<Option<char>, String> {
    Ok(Some(match c {
        'a' => '\x07',
        'b' => '\x08',
        'f' => '\x0c',
        'n' => '\n',
        'r' => '\r',
        't' => '\t',
        'v' => '\x0b',
        // A line that goes on in the next.
        '\n' => return Ok(None),
        'u' | 'U' => {
            let c = code(if c == 'u' { 4 } else { 8 });
            c.filter(|c| *c != '\0').ok_or("a wrong \\u escape")?
        }
        other => other,
    }))
}

fn is_float_word(word: &str) -> bool {
    matches!(word, "inf" | "nan")
}

fn is_float(word: &str) -> bool {
    !word.contains("0x") && (word.contains(['.', 'e', 'E']) || is_float_word(word.trim_start_matches(['+', '-'])))
}

fn number(word: &str, signature: &str) -> Result<Value, String> {
    let wrong = || format!("{word} is no {}", name(signature));
    if signature == "d" {
        return word.parse().map(Value::Double).map_err(|_| wrong());
    }
    let (negative, digits) = match word.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, word.strip_prefix('+').unwrap_or(word)),
    };
    let (digits, radix) = match digits.strip_prefix("0x").or_else(|| digits.strip_prefix("0X")) {
        Some(hex) => (hex, 16),
        None if digits.len() > 1 && digits.starts_with('0') => (&digits[1..], 8),
        None => (digits, 10),
    };
    // A second sign would be taken by from_str_radix.
    let plain = digits.starts_with(|c: char| c.is_ascii_hexdigit());
    let magnitude = u64::from_str_radix(digits, radix).ok().filter(|_| plain).ok_or_else(wrong)?;
    let n = if negative { -i128::from(magnitude) } else { i128::from(magnitude) };
    let out = |e: std::num::TryFromIntError| {
        let _ = e;
        format!("{word} is out of range for {}; write the type in front, as \"uint64 {word}\"", name(signature))
    };
    Ok(match signature {
        "y" => Value::Byte(n.try_into().map_err(out)?),
        "n" => Value::Int16(n.try_into().map_err(out)?),
        "q" => Value::Uint16(n.try_into().map_err(out)?),
        "i" => Value::Int32(n.try_into().map_err(out)?),
        "u" => Value::Uint32(n.try_into().map_err(out)?),
        "x" => Value::Int64(n.try_into().map_err(out)?),
        "t" => Value::Uint64(n.try_into().map_err(out)?),
        other => return Err(mismatch("a number", other)),
    })
}

fn text_of(text: String, signature: &str) -> Result<Value, String> {
    match signature {
        "s" => Ok(Value::Str(text)),
        "o" if is_object_path(&text) => Ok(Value::Path(text)),
        "o" => Err(format!("{text:?} is no object path")),
        "g" if is_signature(&text) => Ok(Value::Signature(text)),
        "g" => Err(format!("{text:?} is no signature")),
        other => Err(mismatch("a text", other)),
    }
}

fn is_object_path(text: &str) -> bool {
    let name = |n: &str| !n.is_empty() && n.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    text == "/" || text.strip_prefix('/').is_some_and(|rest| rest.split('/').all(name))
}

fn is_signature(text: &str) -> bool {
    let mut rest = text;
    while !rest.is_empty() {
        match first_type(rest) {
            Ok((_, after)) => rest = after,
            Err(_) => return false,
        }
    }
    text.len() <= SIGNATURE_MAX
}

fn typed(value: Value, want: Option<&str>) -> Result<Value, String> {
    match want {
        Some(want) if value.signature() != want => Err(mismatch(&value.to_string(), want)),
        _ => Ok(value),
    }
}

fn mismatch(what: &str, want: &str) -> String {
    format!("{what} stands where {} belongs", name(want))
}

fn name(signature: &str) -> String {
    let known = NAMES.iter().find(|(_, letter)| *letter == signature);
    known.map_or_else(|| format!("a value of the type {signature:?}"), |(name, _)| format!("{name:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Random;

    #[test]
    fn values_with_their_types() {
        for (text, signature, shown) in [
            ("'inactive-or-failed'", "s", "'inactive-or-failed'"),
            ("\"a\\u00e4\\n'\"", "s", "'aä\n\\''"),
            ("true", "b", "true"),
            (" 5 ", "i", "5"),
            ("-0x10", "i", "-16"),
            ("010", "i", "8"),
            ("uint64 123456789", "t", "uint64 123456789"),
            ("uint64 18446744073709551615", "t", "uint64 18446744073709551615"),
            ("byte 0xff", "y", "byte 0xff"),
            ("int64 -9223372036854775808", "x", "int64 -9223372036854775808"),
            ("0.5", "d", "0.5"),
            ("1e3", "d", "1000.0"),
            ("['a','b']", "as", "['a', 'b']"),
            ("[uint32 1, 2]", "au", "[uint32 1, uint32 2]"),
            ("@at [1, 2]", "at", "[uint64 1, uint64 2]"),
            ("@as []", "as", "@as []"),
            ("[('/dev/null', 'rwm')]", "a(ss)", "[('/dev/null', 'rwm')]"),
            ("@a(st) [('/dev/sda', 1000),]", "", ""),
            ("(1,)", "(i)", "(1,)"),
            ("{'k': <'v'>, 'l': <uint32 5>}", "a{sv}", "[{'k': <'v'>}, {'l': <uint32 5>}]"),
            ("<@as []>", "v", "<@as []>"),
            ("b'ab'", "ay", "[byte 0x61, byte 0x62, byte 0x00]"),
            ("objectpath '/a/b_1'", "o", "objectpath '/a/b_1'"),
            ("signature 'a{sv}'", "g", "signature 'a{sv}'"),
        ] {
            if signature.is_empty() {
                assert!(parse(text).is_err(), "{text}");
                continue;
            }
            let value = parse(text).unwrap_or_else(|e| panic!("{text}: {e}"));
            assert_eq!((value.signature().as_str(), value.to_string().as_str()), (signature, shown), "{text}");
        }
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (text, why) in [
            ("", "a value is missing"),
            ("inactive", "a text needs quotes"),
            ("'a", "without an end"),
            ("5 6", "follows the value"),
            ("3000000000", "out of range for \"int32\"; write the type in front, as \"uint64 3000000000\""),
            ("uint16 'a'", "a text stands where \"uint16\" belongs"),
            ("byte 256", "out of range"),
            ("[]", "needs its type"),
            ("{}", "needs its type"),
            ("['a', 5]", "a number stands where \"string\" belongs"),
            ("[1", "is missing"),
            ("()", "empty tuple"),
            ("@(ss) ('a',)", "fewer values"),
            ("@(s) ('a', 'b')", "more values"),
            ("@z 5", "no type"),
            ("@h 5", "cannot be set"),
            ("{<1>: 2}", "cannot be a key"),
            ("--5", "is no"),
            ("'\\u00'", "escape"),
            ("'\\u0000'", "escape"),
            ("objectpath 'a'", "no object path"),
            ("signature '('", "no signature"),
            ("nothing", "no value"),
            ("just 5", "no value"),
        ] {
            let error = parse(text).expect_err(text);
            assert!(error.contains(why), "{text}: {error}");
        }
        assert!(parse(&"[".repeat(5000)).unwrap_err().contains("levels deep"));
        let wide = format!("({})", "1, ".repeat(300));
        assert!(parse(&wide).unwrap_err().contains("longer than D-Bus allows"));
    }

    /// What is read, written and read again is the same; damage is an error, never a panic.
    #[test]
    fn text_goes_round() {
        let seeds = ["{'k': <['v']>}", "@a(sat) [('x', [1, 2])]", "uint64 5", "'a\\u00e4b'", "-1.5e3", "b'x'"];
        let mut random = Random::new(3);
        let mut parsed = 0;
        for _ in 0..50_000 {
            let mut text: Vec<char> = seeds[random.below(seeds.len() as u64) as usize].chars().collect();
            for _ in 0..random.below(4) {
                let at = random.below(text.len() as u64) as usize;
                let letters: Vec<char> = "[](){}<>'\",:@asutv015-.x \\ä".chars().collect();
                text[at] = letters[random.below(letters.len() as u64) as usize];
            }
            let text: String = text.into_iter().collect();
            if let Ok(value) = parse(&text) {
                parsed += 1;
                let again = value.to_string();
                // NaN is not itself.
                if !again.contains("NaN") {
                    let signature = value.signature();
                    let reread = parse(&format!("@{signature} {again}")).or_else(|_| parse(&again));
                    if !signature.contains('{') {
                        assert_eq!(reread.as_ref(), Ok(&value), "{text} {again}");
                    }
                }
            }
        }
        assert!(parsed > 5000, "{parsed}");
    }
}
