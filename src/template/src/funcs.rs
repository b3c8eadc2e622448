//! The functions: Go's, and those Docker adds.

use crate::Zero;
use crate::print::{Val, print, type_name};
use crate::printf::{sprint, sprintf, sprintln};
use serde_json::Value;
use std::cmp::Ordering;
use std::fmt::Write;

/// What a parameter takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Param {
    Any,
    Text,
    Int,
    Texts,
}

use Param::{Any, Int, Text, Texts};

/// Name, parameters, and whether more of the last kind may follow (the last then may be missing).
const FUNCTIONS: [(&str, &[Param], bool); 26] = [
    ("and", &[Any, Any], true),
    ("eq", &[Any, Any], true),
    ("ge", &[Any, Any], false),
    ("gt", &[Any, Any], false),
    ("html", &[Any], true),
    ("index", &[Any, Any], true),
    ("join", &[Texts, Text], false),
    ("js", &[Any], true),
    ("json", &[Any], false),
    ("le", &[Any, Any], false),
    ("len", &[Any], false),
    ("lower", &[Text], false),
    ("lt", &[Any, Any], false),
    ("ne", &[Any, Any], false),
    ("not", &[Any], false),
    ("or", &[Any, Any], true),
    ("pad", &[Text, Int, Int], false),
    ("print", &[Any], true),
    ("printf", &[Text, Any], true),
    ("println", &[Any], true),
    ("slice", &[Any, Any], true),
    ("split", &[Text, Text], false),
    ("title", &[Text], false),
    ("truncate", &[Text, Int], false),
    ("upper", &[Text], false),
    ("urlquery", &[Any], true),
];

fn find(name: &str) -> Option<&'static (&'static str, &'static [Param], bool)> {
    FUNCTIONS.iter().find(|(n, ..)| *n == name)
}

pub(crate) fn exists(name: &str) -> bool {
    find(name).is_some()
}

/// How many arguments at least, and whether more may follow.
pub(crate) fn arity(name: &str) -> (usize, bool) {
    find(name).map_or((0, true), |(_, params, variadic)| (params.len() - usize::from(*variadic), *variadic))
}

pub(crate) fn param(name: &str, at: usize) -> Param {
    let params = find(name).map_or(&[][..], |(_, params, _)| params);
    params.get(at).or(params.last()).copied().unwrap_or(Any)
}

/// Calls one whose arguments have been checked; an error is what follows `error calling NAME: `.
pub(crate) fn call<'a>(name: &str, args: &mut [Val<'a>], header: bool) -> Result<Val<'a>, String> {
    let text = |at: usize| args.get(at).and_then(Val::json).and_then(Value::as_str).unwrap_or_default();
    let int = |at: usize| args.get(at).and_then(Val::json).and_then(Value::as_i64).unwrap_or(i64::MAX);
    let made = match name {
        "json" | "title" | "lower" | "upper" | "truncate" if header => text(0).to_owned(),
        "json" => crate::print::json(&args[0].to_json()),
        "lower" => text(0).to_lowercase(),
        "upper" => text(0).to_uppercase(),
        "title" => title(text(0)),
        "pad" => pad(text(0), int(1), int(2))?,
        "truncate" => truncate(text(0), int(1))?,
        "split" => return Ok(Val::owned(split(text(0), text(1)))),
        "join" => join(&args[0], text(1)),
        "print" => sprint(args),
        "println" => sprintln(args),
        "printf" => sprintf(text(0), &args[1..]),
        "html" => html(&plain(args)),
        "js" => js(&plain(args)),
        "urlquery" => url_query(&plain(args)),
        "not" => return Ok(Val::owned((!args[0].truth()).into())),
        "len" => return length(&args[0]).map(|n| Val::owned(n.into())),
        "index" => return args[1..].iter().try_fold(args[0].clone(), index),
        "slice" => return slice(&args[0], &args[1..]),
        "eq" => return equal_any(args).map(|b| Val::owned(b.into())),
        "ne" => return equal(&args[0], &args[1]).map(|b| Val::owned((!b).into())),
        "lt" => return order(&args[0], &args[1]).map(|o| Val::owned((o == Some(Ordering::Less)).into())),
        "le" => return order(&args[0], &args[1]).map(|o| Val::owned(o.is_some_and(Ordering::is_le).into())),
        "gt" => return order(&args[0], &args[1]).map(|o| Val::owned((o == Some(Ordering::Greater)).into())),
        "ge" => return order(&args[0], &args[1]).map(|o| Val::owned(o.is_some_and(Ordering::is_ge).into())),
        _ => return Err("no such function".to_owned()),
    };
    Ok(Val::owned(made.into()))
}

fn plain(args: &[Val<'_>]) -> String {
    match args {
        [Val::Json(value)] => value.as_str().map_or_else(|| sprint(args), str::to_owned),
        _ => sprint(args),
    }
}

/// Go's `strings.Title`: the first letter of each word, where a word ends at anything but letters, digits and `_`.
fn title(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut before = ' ';
    for c in text.chars() {
        let starts = !(before.is_alphanumeric() || before == '_') && (before.is_ascii() || before.is_whitespace());
        match starts {
            true => out.extend(c.to_uppercase()),
            false => out.push(c),
        }
        before = c;
    }
    out
}

fn pad(text: &str, before: i64, after: i64) -> Result<String, String> {
    let spaces = |n: i64| match usize::try_from(n) {
        Ok(n) if n <= 1_000_000 => Ok(" ".repeat(n)),
        Ok(_) => Err("more than 1000000 spaces".to_owned()),
        Err(_) => Err("strings: negative Repeat count".to_owned()),
    };
    match text.is_empty() {
        true => Ok(String::new()),
        false => Ok(spaces(before)? + text + &spaces(after)?),
    }
}

/// In bytes, as Docker's; what is left of a character at the end becomes U+FFFD.
fn truncate(text: &str, length: i64) -> Result<String, String> {
    match usize::try_from(length) {
        Ok(n) if n > text.len() => Ok(text.to_owned()),
        Ok(n) => Ok(String::from_utf8_lossy(&text.as_bytes()[..n]).into_owned()),
        Err(_) => Err(format!("runtime error: slice bounds out of range [:{length}]")),
    }
}

fn split(text: &str, separator: &str) -> Value {
    match separator.is_empty() {
        true => text.chars().map(String::from).collect(),
        false => text.split(separator).collect(),
    }
}

fn join(list: &Val<'_>, separator: &str) -> String {
    let list = list.json().and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    list.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(separator)
}

fn html(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '"' => out.push_str("&#34;"),
            '\'' => out.push_str("&#39;"),
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '\0' => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}

fn js(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\\' | '\'' | '"' => out.extend(['\\', c]),
            '<' | '>' | '&' | '=' | '\u{2028}' | '\u{2029}' => drop(write!(out, "\\u{:04X}", u32::from(c))),
            c if c.is_control() => drop(write!(out, "\\u{:04X}", u32::from(c))),
            c => out.push(c),
        }
    }
    out
}

fn url_query(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for b in text.bytes() {
        match b {
            b' ' => out.push('+'),
            b if b.is_ascii_alphanumeric() || b"-_.~".contains(&b) => out.push(char::from(b)),
            b => drop(write!(out, "%{b:02X}")),
        }
    }
    out
}

fn length(value: &Val<'_>) -> Result<usize, String> {
    match value {
        Val::Nil(Zero::List | Zero::Map) => Ok(0),
        Val::None | Val::Nil(_) => Err("len of nil pointer".to_owned()),
        Val::Json(value) => match value.as_ref() {
            Value::String(s) => Ok(s.len()),
            Value::Array(list) => Ok(list.len()),
            Value::Object(map) => Ok(map.len()),
            other => Err(format!("len of type {}", type_name(other))),
        },
    }
}

/// A position in a list of `length`.
fn position(at: &Val<'_>, length: usize) -> Result<usize, String> {
    let Some(value) = at.json() else { return Err("cannot index slice/array with nil".to_owned()) };
    if !(value.is_i64() || value.is_u64()) {
        return Err(format!("cannot index slice/array with type {}", type_name(value)));
    }
    let at = value.as_u64().and_then(|n| usize::try_from(n).ok());
    at.filter(|n| *n <= length).ok_or_else(|| format!("index out of range: {value}"))
}

fn index<'a>(item: Val<'a>, at: &Val<'a>) -> Result<Val<'a>, String> {
    let value = match &item {
        Val::None | Val::Nil(Zero::Pointer) => return Err("index of untyped nil".to_owned()),
        Val::Nil(Zero::List) => &Value::Array(Vec::new()),
        Val::Nil(_) => return Ok(Val::None),
        Val::Json(value) => value.as_ref(),
    };
    let past = || "reflect: slice index out of range".to_owned();
    match value {
        Value::Object(map) => match at.json() {
            Some(Value::String(key)) => Ok(map.get(key).cloned().map_or(Val::None, Val::owned)),
            Some(other) => Err(format!("value has type {}; should be string", type_name(other))),
            None => Err("value is nil; should be of type string".to_owned()),
        },
        Value::Array(list) => list.get(position(at, list.len())?).cloned().map(Val::owned).ok_or_else(past),
        Value::String(s) => {
            let byte = s.as_bytes().get(position(at, s.len())?).copied();
            byte.map(|b| Val::owned(b.into())).ok_or_else(|| "reflect: string index out of range".to_owned())
        }
        other => Err(format!("can't index item of type {}", type_name(other))),
    }
}

fn slice<'a>(item: &Val<'a>, at: &[Val<'a>]) -> Result<Val<'a>, String> {
    let Some(value) = item.json() else { return Err("slice of untyped nil".to_owned()) };
    if at.len() > 3 {
        return Err(format!("too many slice indexes: {}", at.len()));
    }
    let length = match value {
        Value::String(_) if at.len() == 3 => return Err("cannot 3-index slice a string".to_owned()),
        Value::String(s) => s.len(),
        Value::Array(list) => list.len(),
        other => return Err(format!("can't slice item of type {}", type_name(other))),
    };
    let mut bounds = [0, length, length];
    for (bound, at) in bounds.iter_mut().zip(at) {
        *bound = position(at, length)?;
    }
    if bounds[0] > bounds[1] || bounds[1] > bounds[2] {
        let (a, b) = if bounds[0] > bounds[1] { (bounds[0], bounds[1]) } else { (bounds[1], bounds[2]) };
        return Err(format!("invalid slice index: {a} > {b}"));
    }
    Ok(Val::owned(match value {
        Value::String(s) => String::from_utf8_lossy(&s.as_bytes()[bounds[0]..bounds[1]]).into(),
        Value::Array(list) => list[bounds[0]..bounds[1]].to_vec().into(),
        _ => Value::Null,
    }))
}

fn equal_any(args: &[Val<'_>]) -> Result<bool, String> {
    match args {
        [] | [_] => Err("missing argument for comparison".to_owned()),
        [first, rest @ ..] => {
            for other in rest {
                if equal(first, other)? {
                    return Ok(true);
                }
            }
            Ok(false)
        }
    }
}

fn equal(a: &Val<'_>, b: &Val<'_>) -> Result<bool, String> {
    let (Some(a), Some(b)) = (a.json(), b.json()) else { return Ok(a.json().is_none() && b.json().is_none()) };
    match (a, b) {
        (Value::Array(_) | Value::Object(_), Value::Array(_) | Value::Object(_)) => {
            Err(format!("non-comparable type {}: {}", print(a), type_name(a)))
        }
        _ if type_name(a) != type_name(b) => Err("incompatible types for comparison".to_owned()),
        _ => Ok(a == b || (a.is_number() && number_order(a, b) == Some(Ordering::Equal))),
    }
}

fn order(a: &Val<'_>, b: &Val<'_>) -> Result<Option<Ordering>, String> {
    let basic = |v: &Val<'_>| v.json().is_some_and(|v| v.is_string() || v.is_number());
    if !basic(a) || !basic(b) {
        return Err("invalid type for comparison".to_owned());
    }
    match (a.json(), b.json()) {
        (Some(a), Some(b)) if type_name(a) != type_name(b) => Err("incompatible types for comparison".to_owned()),
        (Some(Value::String(a)), Some(Value::String(b))) => Ok(Some(a.cmp(b))),
        (Some(a), Some(b)) => Ok(number_order(a, b)),
        _ => Ok(None),
    }
}

fn number_order(a: &Value, b: &Value) -> Option<Ordering> {
    let whole = |v: &Value| v.as_i64().map(i128::from).or(v.as_u64().map(i128::from));
    match (whole(a), whole(b)) {
        (Some(a), Some(b)) => Some(a.cmp(&b)),
        _ => a.as_f64()?.partial_cmp(&b.as_f64()?),
    }
}
