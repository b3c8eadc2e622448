//! Values as Go's `fmt` prints them.

use crate::Zero;
use serde_json::{Number, Value};
use std::borrow::Cow;
use std::fmt::Write;

/// A value while a template is executed.
#[derive(Clone, Debug)]
pub(crate) enum Val<'a> {
    /// No value: a missing key, `null`.
    None,
    /// What Go's struct has where JSON has `null` or nothing.
    Nil(Zero),
    Json(Cow<'a, Value>),
}

impl<'a> Val<'a> {
    pub(crate) fn borrowed(value: &'a Value) -> Val<'a> {
        match value {
            Value::Null => Val::None,
            value => Val::Json(Cow::Borrowed(value)),
        }
    }

    pub(crate) fn owned(value: Value) -> Val<'a> {
        match value {
            Value::Null => Val::None,
            value => Val::Json(Cow::Owned(value)),
        }
    }

    pub(crate) fn json(&self) -> Option<&Value> {
        match self {
            Val::Json(value) => Some(value),
            _ => None,
        }
    }

    /// As an argument of `json` and others that take anything.
    pub(crate) fn to_json(&self) -> Value {
        self.json().cloned().unwrap_or(Value::Null)
    }

    /// Go's `template.IsTrue`.
    pub(crate) fn truth(&self) -> bool {
        match self.json() {
            None | Some(Value::Null) => false,
            Some(Value::Bool(b)) => *b,
            Some(Value::Number(n)) => n.as_f64() != Some(0.0),
            Some(Value::String(s)) => !s.is_empty(),
            Some(Value::Array(list)) => !list.is_empty(),
            Some(Value::Object(map)) => !map.is_empty(),
        }
    }

    /// Go's name of its type.
    pub(crate) fn type_name(&self) -> &'static str {
        match self {
            Val::None | Val::Nil(Zero::Pointer) => "<nil>",
            Val::Nil(Zero::List) => "[]interface {}",
            Val::Nil(_) => "map[string]interface {}",
            Val::Json(value) => type_name(value),
        }
    }

    pub(crate) fn print(&self, nil: &str) -> String {
        match self {
            Val::None => nil.to_owned(),
            Val::Nil(Zero::List) => "[]".to_owned(),
            Val::Nil(Zero::Map) => "map[]".to_owned(),
            Val::Nil(_) => "<nil>".to_owned(),
            Val::Json(value) => print(value),
        }
    }
}

pub(crate) fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "<nil>",
        Value::Bool(_) => "bool",
        Value::Number(n) if n.is_f64() => "float64",
        Value::Number(_) => "int",
        Value::String(_) => "string",
        Value::Array(_) => "[]interface {}",
        Value::Object(_) => "map[string]interface {}",
    }
}

/// `%v`.
pub(crate) fn print(value: &Value) -> String {
    let mut out = String::new();
    print_to(&mut out, value);
    out
}

fn print_to(out: &mut String, value: &Value) {
    match value {
        Value::Null => out.push_str("<nil>"),
        Value::Bool(b) => out.push_str(if *b { "true" } else { "false" }),
        Value::Number(n) => out.push_str(&number(n)),
        Value::String(s) => out.push_str(s),
        Value::Array(list) => {
            out.push('[');
            for (i, value) in list.iter().enumerate() {
                out.push_str(if i > 0 { " " } else { "" });
                print_to(out, value);
            }
            out.push(']');
        }
        Value::Object(map) => {
            out.push_str("map[");
            let mut entries: Vec<_> = map.iter().collect();
            entries.sort_by_key(|(key, _)| *key);
            for (i, (key, value)) in entries.into_iter().enumerate() {
                out.push_str(if i > 0 { " " } else { "" });
                out.push_str(key);
                out.push(':');
                print_to(out, value);
            }
            out.push(']');
        }
    }
}

/// Integers as they are; others as Go's `%v` of a float64.
pub(crate) fn number(n: &Number) -> String {
    match n.as_f64() {
        Some(f) if n.is_f64() => shortest(f),
        _ => n.to_string(),
    }
}

/// Go's `%v` of a float64: the shortest text that reads back, with an exponent below -4 and from 21 on.
pub(crate) fn shortest(f: f64) -> String {
    if f == 0.0 {
        return if f.is_sign_negative() { "-0" } else { "0" }.to_owned();
    }
    let scientific = format!("{f:e}");
    let Some((mantissa, exponent)) = scientific.split_once('e') else { return scientific };
    match exponent.parse::<i32>() {
        Ok(e) if !(-4..21).contains(&e) => with_exponent(mantissa, e, 'e'),
        _ => format!("{f}"),
    }
}

/// Go writes a sign and at least two digits.
pub(crate) fn with_exponent(mantissa: &str, exponent: i32, letter: char) -> String {
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{mantissa}{letter}{sign}{:02}", exponent.unsigned_abs())
}

/// Go's `%q` of a string.
pub(crate) fn quote(text: &str) -> String {
    let mut out = String::from('"');
    for c in text.chars() {
        escape(&mut out, c, '"');
    }
    out.push('"');
    out
}

/// A character as `strconv.Quote` writes it.
pub(crate) fn escape(out: &mut String, c: char, quote: char) {
    let written = match c {
        '\\' => out.write_str("\\\\"),
        c if c == quote => write!(out, "\\{c}"),
        '\x07' => out.write_str("\\a"),
        '\x08' => out.write_str("\\b"),
        '\x0c' => out.write_str("\\f"),
        '\n' => out.write_str("\\n"),
        '\r' => out.write_str("\\r"),
        '\t' => out.write_str("\\t"),
        '\x0b' => out.write_str("\\v"),
        '\0'..='\x1f' | '\x7f' => write!(out, "\\x{:02x}", u32::from(c)),
        c if c.is_control() || matches!(c, '\u{a0}' | '\u{ad}' | '\u{2028}' | '\u{2029}' | '\u{feff}') => {
            write!(out, "\\u{:04x}", u32::from(c))
        }
        c => out.write_char(c),
    };
    debug_assert!(written.is_ok(), "a String takes everything");
}

/// `{{json .}}`: compact, without HTML escapes, and with the two escapes that Go's encoder always makes.
pub(crate) fn json(value: &Value) -> String {
    let text = value.to_string();
    match text.contains(['\u{2028}', '\u{2029}']) {
        true => text.replace('\u{2028}', "\\u2028").replace('\u{2029}', "\\u2029"),
        false => text,
    }
}
