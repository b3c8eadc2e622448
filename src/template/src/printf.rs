//! Go's `fmt.Sprintf`, `Sprint` and `Sprintln`.

use crate::print::{Val, escape, print, quote, shortest, with_exponent};
use serde_json::Value;
use std::borrow::Cow;

/// A space goes between two operands when neither is a string.
pub(crate) fn sprint(args: &[Val<'_>]) -> String {
    let mut out = String::new();
    let is_text = |v: &Val<'_>| v.json().is_some_and(Value::is_string);
    for (i, arg) in args.iter().enumerate() {
        if i > 0 && !is_text(arg) && !is_text(&args[i - 1]) {
            out.push(' ');
        }
        out.push_str(&arg.print("<nil>"));
    }
    out
}

pub(crate) fn sprintln(args: &[Val<'_>]) -> String {
    args.iter().map(|arg| arg.print("<nil>")).collect::<Vec<_>>().join(" ") + "\n"
}

/// What stands between `%` and the letter.
#[derive(Clone, Copy, Default)]
struct Spec {
    minus: bool,
    plus: bool,
    sharp: bool,
    space: bool,
    zero: bool,
    width: Option<usize>,
    precision: Option<usize>,
}

/// Go's own limit of widths.
const MAX_WIDTH: usize = 1_000_000;

pub(crate) fn sprintf(format: &str, args: &[Val<'_>]) -> String {
    let mut out = String::new();
    let mut rest = format.chars().peekable();
    let mut next = 0;
    while let Some(c) = rest.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        let spec = read_spec(&mut rest, args, &mut next, &mut out);
        match rest.next() {
            None => out.push_str("%!(NOVERB)"),
            Some('%') => out.push('%'),
            Some(verb) => {
                match args.get(next) {
                    Some(arg) => out.push_str(&one(spec, verb, arg)),
                    None => out.push_str(&format!("%!{verb}(MISSING)")),
                }
                next += 1;
            }
        }
    }
    if next < args.len() {
        let extra = args[next..].iter().map(|a| match a {
            Val::None => "<nil>".to_owned(),
            a => format!("{}={}", a.type_name(), a.print("<nil>")),
        });
        out.push_str(&format!("%!(EXTRA {})", extra.collect::<Vec<_>>().join(", ")));
    }
    out
}

type Chars<'a> = std::iter::Peekable<std::str::Chars<'a>>;

fn read_spec(rest: &mut Chars<'_>, args: &[Val<'_>], next: &mut usize, out: &mut String) -> Spec {
    let mut spec = Spec::default();
    while let Some(flag) = rest.next_if(|c| "-+# 0".contains(*c)) {
        match flag {
            '-' => spec.minus = true,
            '+' => spec.plus = true,
            '#' => spec.sharp = true,
            ' ' => spec.space = true,
            _ => spec.zero = true,
        }
    }
    match read_number(rest, args, next) {
        Ok((width, negative)) => {
            spec.minus |= negative;
            spec.width = width;
        }
        Err(()) => out.push_str("%!(BADWIDTH)"),
    }
    if rest.next_if_eq(&'.').is_some() {
        match read_number(rest, args, next) {
            // A point with nothing after it is a precision of 0, a negative one none.
            Ok((precision, negative)) => spec.precision = (!negative).then_some(precision.unwrap_or(0)),
            Err(()) => out.push_str("%!(BADPREC)"),
        }
    }
    spec
}

/// A number or `*`: its amount, and whether it was negative.
fn read_number(rest: &mut Chars<'_>, args: &[Val<'_>], next: &mut usize) -> Result<(Option<usize>, bool), ()> {
    if rest.next_if_eq(&'*').is_some() {
        let value = args.get(*next).and_then(Val::json).and_then(Value::as_i64);
        *next += 1;
        let amount = value.and_then(|n| usize::try_from(n.unsigned_abs()).ok()).filter(|n| *n <= MAX_WIDTH).ok_or(())?;
        return Ok((Some(amount), value.is_some_and(|n| n < 0)));
    }
    let mut amount = None;
    while let Some(digit) = rest.peek().and_then(|c| c.to_digit(10)) {
        rest.next();
        amount = Some((amount.unwrap_or(0) * 10 + digit as usize).min(MAX_WIDTH + 1));
    }
    match amount {
        Some(n) if n > MAX_WIDTH => Err(()),
        amount => Ok((amount, false)),
    }
}

fn one(spec: Spec, verb: char, arg: &Val<'_>) -> String {
    let value = match (verb, arg) {
        ('T', arg) => return padded(spec, arg.type_name().to_owned(), false),
        ('v', Val::None) => return padded(spec, "<nil>".to_owned(), false),
        (verb, Val::None) => return format!("%!{verb}(<nil>)"),
        ('v', Val::Nil(_)) => return padded(spec, arg.print("<nil>"), false),
        (_, Val::Nil(_)) => Cow::Owned(Value::Array(Vec::new())),
        (_, Val::Json(value)) => Cow::Borrowed(value.as_ref()),
    };
    format_value(spec, verb, &value)
}

fn format_value(spec: Spec, verb: char, value: &Value) -> String {
    match (verb, value) {
        ('v', Value::Number(n)) if n.is_f64() => float(spec, 'g', n.as_f64().unwrap_or(0.0)),
        ('v', Value::Number(n)) => integer(spec, 'd', n.as_i64().map(i128::from).or(n.as_u64().map(i128::from))),
        ('v', Value::String(s)) if spec.sharp => padded(spec, quote(s), false),
        ('v', value @ (Value::Null | Value::Bool(_) | Value::String(_))) => padded(spec, print(value), false),
        ('t', Value::Bool(b)) => padded(spec, b.to_string(), false),
        ('s', Value::String(s)) => padded(spec, cut(spec, s).to_owned(), false),
        ('q', Value::String(s)) => {
            let text = cut(spec, s);
            let raw = spec.sharp && !text.contains('`') && !text.contains(char::is_control);
            padded(spec, if raw { format!("`{text}`") } else { quote(text) }, false)
        }
        ('x' | 'X', Value::String(s)) => padded(spec, hex(spec, verb, cut(spec, s).as_bytes()), false),
        ('d' | 'b' | 'o' | 'O' | 'x' | 'X' | 'c' | 'q' | 'U', Value::Number(n)) if !n.is_f64() => {
            integer(spec, verb, n.as_i64().map(i128::from).or(n.as_u64().map(i128::from)))
        }
        ('e' | 'E' | 'f' | 'F' | 'g' | 'G', Value::Number(n)) if n.is_f64() => {
            float(spec, verb, n.as_f64().unwrap_or(0.0))
        }
        // Verbs go to the elements.
        (_, Value::Array(list)) => {
            let inner: Vec<_> = list.iter().map(|v| format_value(spec, verb, v)).collect();
            format!("[{}]", inner.join(" "))
        }
        (_, Value::Object(map)) => {
            let pair = |(key, value): (&String, &Value)| {
                format_value(spec, verb, &Value::from(key.as_str())) + ":" + &format_value(spec, verb, value)
            };
            format!("map[{}]", map.iter().map(pair).collect::<Vec<_>>().join(" "))
        }
        (verb, Value::Null) => format!("%!{verb}(<nil>)"),
        (verb, value) => format!("%!{verb}({}={})", crate::print::type_name(value), print(value)),
    }
}

/// The precision of a string counts its characters.
fn cut(spec: Spec, text: &str) -> &str {
    let end = spec.precision.and_then(|n| text.char_indices().nth(n)).map_or(text.len(), |(at, _)| at);
    &text[..end]
}

/// The width counts characters; zeros go between a number's sign and its digits.
fn padded(spec: Spec, text: String, number: bool) -> String {
    let missing = spec.width.unwrap_or(0).saturating_sub(text.chars().count());
    match (missing, spec.minus, spec.zero) {
        (0, ..) => text,
        (_, true, _) => text + &" ".repeat(missing),
        (_, _, true) if number => {
            let sign = usize::from(text.starts_with(['-', '+', ' ']));
            format!("{}{}{}", &text[..sign], "0".repeat(missing), &text[sign..])
        }
        (_, _, true) => "0".repeat(missing) + &text,
        _ => " ".repeat(missing) + &text,
    }
}

fn hex(spec: Spec, verb: char, bytes: &[u8]) -> String {
    let mut out = String::new();
    for (i, b) in bytes.iter().enumerate() {
        if i > 0 && spec.space {
            out.push(' ');
        }
        if spec.sharp && (i == 0 || spec.space) {
            out.push_str(if verb == 'x' { "0x" } else { "0X" });
        }
        out.push_str(&if verb == 'x' { format!("{b:02x}") } else { format!("{b:02X}") });
    }
    out
}

fn integer(mut spec: Spec, verb: char, value: Option<i128>) -> String {
    let value = value.unwrap_or(0);
    let amount = value.unsigned_abs();
    let character = || u32::try_from(value).ok().and_then(char::from_u32).unwrap_or('\u{fffd}');
    let digits = match verb {
        'd' => amount.to_string(),
        'b' if spec.sharp => format!("0b{amount:b}"),
        'b' => format!("{amount:b}"),
        'O' => format!("0o{amount:o}"),
        'o' if spec.sharp => format!("0{amount:o}"),
        'o' => format!("{amount:o}"),
        'x' if spec.sharp => format!("0x{amount:x}"),
        'x' => format!("{amount:x}"),
        'X' if spec.sharp => format!("0X{amount:X}"),
        'X' => format!("{amount:X}"),
        'U' => return padded(Spec { zero: false, ..spec }, format!("U+{amount:04X}"), false),
        'c' => return padded(spec, character().to_string(), false),
        _ => {
            let mut out = String::from('\'');
            escape(&mut out, character(), '\'');
            out.push('\'');
            return padded(spec, out, false);
        }
    };
    let digits = match spec.precision {
        Some(0) if value == 0 => String::new(),
        Some(n) => "0".repeat(n.saturating_sub(digits.len())) + &digits,
        None => digits,
    };
    // With a precision, zeros are not for the width.
    spec.zero &= spec.precision.is_none();
    padded(spec, sign(spec, value < 0).to_owned() + &digits, true)
}

fn sign(spec: Spec, negative: bool) -> &'static str {
    match (negative, spec.plus, spec.space) {
        (true, ..) => "-",
        (_, true, _) => "+",
        (_, _, true) => " ",
        _ => "",
    }
}

fn float(spec: Spec, verb: char, value: f64) -> String {
    let amount = value.abs();
    let precision = spec.precision.unwrap_or(6).min(1000);
    let digits = match verb {
        'f' | 'F' => format!("{amount:.precision$}"),
        'e' | 'E' => scientific(amount, precision, verb),
        _ => match spec.precision {
            None => shortest(amount),
            Some(_) => general(amount, precision.max(1)),
        },
    };
    let digits = if verb == 'G' { digits.to_uppercase() } else { digits };
    padded(spec, sign(spec, value.is_sign_negative()).to_owned() + &digits, true)
}

fn scientific(value: f64, precision: usize, letter: char) -> String {
    let text = format!("{value:.precision$e}");
    match text.split_once('e').and_then(|(m, e)| Some((m, e.parse().ok()?))) {
        Some((mantissa, exponent)) => with_exponent(mantissa, exponent, letter),
        None => text,
    }
}

/// `%g` with a precision: so many digits, without zeros at the end.
fn general(value: f64, digits: usize) -> String {
    let text = format!("{value:.*e}", digits - 1);
    let Some((mantissa, exponent)) = text.split_once('e').and_then(|(m, e)| Some((m, e.parse::<i32>().ok()?))) else {
        return text;
    };
    let strip = |text: &str| match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
        false => text.to_owned(),
    };
    match exponent {
        e if e < -4 || e >= i32::try_from(digits).unwrap_or(i32::MAX) => with_exponent(&strip(mantissa), e, 'e'),
        e => strip(&format!("{value:.*}", usize::try_from(i32::try_from(digits).unwrap_or(0) - 1 - e).unwrap_or(0))),
    }
}
