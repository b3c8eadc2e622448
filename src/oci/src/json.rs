//! Indented JSON. serde makes the code of every type once for each form of output, and that is much code; so all are written in the
//! compact form, and this spreads its text.

use serde::Serialize;

/// `value` as `serde_json`'s pretty form writes it, each level indented by `indent`.
///
/// # Errors
/// Those of [`serde_json::to_vec`]: a map whose keys are no strings, or what the type's own code refuses.
pub fn indented<T: Serialize + ?Sized>(value: &T, indent: &str) -> serde_json::Result<Vec<u8>> {
    Ok(spread(&serde_json::to_vec(value)?, indent))
}

/// The text of a member of the outermost object, found without reading its value or the others': a fifth of what a second reading by serde
/// costs. The document must have been read already; a name that is written with escapes is not found.
pub fn member<'a>(document: &'a str, name: &str) -> Option<&'a str> {
    let bytes = document.as_bytes();
    let (mut depth, mut at) = (0_usize, 0);
    // Where the value begins, once its name was seen.
    let mut value = None;
    while at < bytes.len() {
        match bytes[at] {
            b'"' => {
                let end = end_of_string(bytes, at)?;
                let rest = document[end..].trim_ascii_start();
                if depth == 1 && value.is_none() && document[at + 1..end - 1] == *name && rest.starts_with(':') {
                    value = Some(document.len() - rest.len() + 1);
                }
                at = end;
                continue;
            }
            b'{' | b'[' => depth += 1,
            b'}' | b']' | b',' if depth == 1 && value.is_some() => {
                return value.map(|start| document[start..at].trim_ascii());
            }
            b'}' | b']' => depth = depth.checked_sub(1)?,
            _ => {}
        }
        at += 1;
    }
    None
}

/// The place after the closing quotation mark of the string that begins at `start`.
fn end_of_string(bytes: &[u8], start: usize) -> Option<usize> {
    let mut at = start + 1;
    loop {
        match bytes.get(at)? {
            b'"' => return Some(at + 1),
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
}

fn spread(compact: &[u8], indent: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(compact.len() * 2);
    let (mut level, mut in_string, mut escaped) = (0_usize, false, false);
    let new_line = |out: &mut Vec<u8>, level: usize| {
        out.push(b'\n');
        (0..level).for_each(|_| out.extend_from_slice(indent.as_bytes()));
    };
    let mut opened = false;
    for &byte in compact {
        if in_string {
            in_string = escaped || byte != b'"';
            escaped = !escaped && byte == b'\\';
            out.push(byte);
            continue;
        }
        let closes = matches!(byte, b'}' | b']');
        level -= usize::from(closes);
        // An empty object or array stays in one piece.
        if opened != closes {
            new_line(&mut out, level);
        }
        opened = matches!(byte, b'{' | b'[');
        level += usize::from(opened);
        in_string = byte == b'"';
        out.push(byte);
        match byte {
            b',' => new_line(&mut out, level),
            b':' => out.push(b' '),
            _ => {}
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    #[test]
    fn a_member_is_found_where_serde_finds_it() {
        for (text, found) in [
            (r#"{"process":{"a":[1,"}"]},"x":1}"#, Some(r#"{"a":[1,"}"]}"#)),
            (r#"{"x":{"process":1},"process" : "a\\\"b,}" }"#, Some(r#""a\\\"b,}""#)),
            (r#"{"x":"process","y":["process"],"process":null}"#, Some("null")),
            (r#" { "x" : [ { } , 2 ] , "process" : [ 1 , 2 ] , "z" : 0 } "#, Some("[ 1 , 2 ]")),
            (r#"{"é":"\\","process":1.5e3}"#, Some("1.5e3")),
            (r#"{"x":{"process":1}}"#, None),
            ("{}", None),
            ("[]", None),
        ] {
            assert_eq!(member(text, "process"), found, "{text}");
            let value: Value = serde_json::from_str(text).unwrap();
            assert_eq!(found.map(|f| serde_json::from_str(f).unwrap()), value.get("process").cloned(), "{text}");
        }
    }

    #[test]
    fn half_a_document_is_no_panic() {
        let text = r#"{"a":["\\"],"process":{"b":"c\""}}"#;
        for end in 0..text.len() {
            member(&text[..end], "process");
        }
    }

    #[test]
    fn as_serde_writes_it() {
        for value in [
            json!({}),
            json!([]),
            json!("a{b[c,d:e\"f\\"),
            json!(-1.5e300),
            json!([[], {}, [[]], [{}], {"a": []}]),
            json!({"\"": "\\\"", "a": [1, 2, {"b": null}], "{": {"c": {"d": [true, "\\\\", "}\n\u{0}"]}}}),
        ] {
            assert_eq!(indented(&value, "  ").unwrap(), serde_json::to_vec_pretty(&value).unwrap(), "{value}");
            let tabs = indented(&value, "\t").unwrap();
            assert_eq!(serde_json::from_slice::<Value>(&tabs).unwrap(), value);
        }
        assert_eq!(indented(&json!([[1]]), "\t").unwrap(), b"[\n\t[\n\t\t1\n\t]\n]");
    }
}
