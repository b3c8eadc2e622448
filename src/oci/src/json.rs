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
