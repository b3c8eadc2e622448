//! A value of D-Bus: its signature, its bytes in a message, and its text.
//!
//! Only what is *sent* needs a whole value; replies are read field by field ([`super::wire::Body`]).

use std::fmt;

/// A value that a message or a unit property can hold (D-Bus specification, "Type System").
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Value {
    /// `y`
    Byte(u8),
    /// `b`
    Bool(bool),
    /// `n`
    Int16(i16),
    /// `q`
    Uint16(u16),
    /// `i`
    Int32(i32),
    /// `u`
    Uint32(u32),
    /// `x`
    Int64(i64),
    /// `t`
    Uint64(u64),
    /// `d`
    Double(f64),
    /// `s`
    Str(String),
    /// `o`
    Path(String),
    /// `g`
    Signature(String),
    /// `a`, with the signature of its elements.
    Array(String, Vec<Value>),
    /// `(…)`, never empty.
    Struct(Vec<Value>),
    /// `{..}`, in arrays only.
    Entry(Box<(Value, Value)>),
    /// `v`
    Variant(Box<Value>),
}

impl Value {
    pub(crate) fn str(text: impl Into<String>) -> Value {
        Value::Str(text.into())
    }

    /// An array of strings.
    pub(crate) fn strings(texts: &[&str]) -> Value {
        Value::Array("s".into(), texts.iter().map(|t| Value::str(*t)).collect())
    }

    /// An array of bytes.
    pub(crate) fn bytes(bytes: &[u8]) -> Value {
        Value::Array("y".into(), bytes.iter().map(|b| Value::Byte(*b)).collect())
    }

    /// The type, as D-Bus spells it.
    pub(crate) fn signature(&self) -> String {
        match self {
            Value::Byte(_) => "y".into(),
            Value::Bool(_) => "b".into(),
            Value::Int16(_) => "n".into(),
            Value::Uint16(_) => "q".into(),
            Value::Int32(_) => "i".into(),
            Value::Uint32(_) => "u".into(),
            Value::Int64(_) => "x".into(),
            Value::Uint64(_) => "t".into(),
            Value::Double(_) => "d".into(),
            Value::Str(_) => "s".into(),
            Value::Path(_) => "o".into(),
            Value::Signature(_) => "g".into(),
            Value::Array(element, _) => format!("a{element}"),
            Value::Struct(fields) => format!("({})", fields.iter().map(Value::signature).collect::<String>()),
            Value::Entry(entry) => format!("{{{}{}}}", entry.0.signature(), entry.1.signature()),
            Value::Variant(_) => "v".into(),
        }
    }

    /// Appends the value to a message in this machine's byte order; `out` begins where alignment is counted from.
    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        match self {
            Value::Byte(v) => out.push(*v),
            Value::Bool(v) => number(out, &u32::from(*v).to_ne_bytes()),
            Value::Int16(v) => number(out, &v.to_ne_bytes()),
            Value::Uint16(v) => number(out, &v.to_ne_bytes()),
            Value::Int32(v) => number(out, &v.to_ne_bytes()),
            Value::Uint32(v) => number(out, &v.to_ne_bytes()),
            Value::Int64(v) => number(out, &v.to_ne_bytes()),
            Value::Uint64(v) => number(out, &v.to_ne_bytes()),
            Value::Double(v) => number(out, &v.to_ne_bytes()),
            Value::Str(v) | Value::Path(v) => {
                number(out, &(v.len() as u32).to_ne_bytes());
                out.extend_from_slice(v.as_bytes());
                out.push(0);
            }
            Value::Signature(v) => signature(out, v),
            Value::Array(element, values) => {
                number(out, &0u32.to_ne_bytes());
                let length_at = out.len() - 4;
                // The padding before the first element is not counted, and is there without any.
                pad(out, alignment(element));
                let start = out.len();
                values.iter().for_each(|v| v.write(out));
                let length = (out.len() - start) as u32;
                out[length_at..length_at + 4].copy_from_slice(&length.to_ne_bytes());
            }
            Value::Struct(fields) => {
                pad(out, 8);
                fields.iter().for_each(|f| f.write(out));
            }
            Value::Entry(entry) => {
                pad(out, 8);
                entry.0.write(out);
                entry.1.write(out);
            }
            Value::Variant(inner) => {
                signature(out, &inner.signature());
                inner.write(out);
            }
        }
    }
}

fn number(out: &mut Vec<u8>, bytes: &[u8]) {
    pad(out, bytes.len());
    out.extend_from_slice(bytes);
}

fn signature(out: &mut Vec<u8>, text: &str) {
    out.push(text.len() as u8);
    out.extend_from_slice(text.as_bytes());
    out.push(0);
}

pub(crate) fn pad(out: &mut Vec<u8>, to: usize) {
    out.resize(out.len().next_multiple_of(to), 0);
}

/// The alignment of a type's values, by its first letter (D-Bus specification, "Summary of D-Bus marshalling").
pub(crate) fn alignment(signature: &str) -> usize {
    match signature.as_bytes().first() {
        Some(b'y' | b'g' | b'v') => 1,
        Some(b'n' | b'q') => 2,
        Some(b'x' | b't' | b'd' | b'(' | b'{') => 8,
        _ => 4,
    }
}

/// The text form of GVariant, with the type where the text alone would mean another one.
impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Byte(v) => write!(f, "byte {v:#04x}"),
            Value::Bool(v) => write!(f, "{v}"),
            Value::Int16(v) => write!(f, "int16 {v}"),
            Value::Uint16(v) => write!(f, "uint16 {v}"),
            Value::Int32(v) => write!(f, "{v}"),
            Value::Uint32(v) => write!(f, "uint32 {v}"),
            Value::Int64(v) => write!(f, "int64 {v}"),
            Value::Uint64(v) => write!(f, "uint64 {v}"),
            Value::Double(v) => write!(f, "{v:?}"),
            Value::Str(v) => quoted(f, v),
            Value::Path(v) => f.write_str("objectpath ").and_then(|()| quoted(f, v)),
            Value::Signature(v) => f.write_str("signature ").and_then(|()| quoted(f, v)),
            Value::Array(element, values) if values.is_empty() => write!(f, "@a{element} []"),
            Value::Array(_, values) => list(f, "[", values, "]"),
            Value::Struct(fields) if fields.len() == 1 => list(f, "(", fields, ",)"),
            Value::Struct(fields) => list(f, "(", fields, ")"),
            Value::Entry(entry) => write!(f, "{{{}: {}}}", entry.0, entry.1),
            Value::Variant(inner) => write!(f, "<{inner}>"),
        }
    }
}

fn quoted(f: &mut fmt::Formatter<'_>, text: &str) -> fmt::Result {
    write!(f, "'{}'", text.replace('\\', "\\\\").replace('\'', "\\'"))
}

fn list(f: &mut fmt::Formatter<'_>, open: &str, values: &[Value], close: &str) -> fmt::Result {
    f.write_str(open)?;
    for (i, value) in values.iter().enumerate() {
        if i > 0 {
            f.write_str(", ")?;
        }
        write!(f, "{value}")?;
    }
    f.write_str(close)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(values: &[Value]) -> Vec<u8> {
        let mut out = Vec::new();
        values.iter().for_each(|v| v.write(&mut out));
        out
    }

    #[test]
    fn values_are_aligned_as_the_specification_says() {
        let little = |hex: &[u8]| if cfg!(target_endian = "little") { hex.to_vec() } else { Vec::new() };
        let check = |values: &[Value], expected: &[u8]| {
            if cfg!(target_endian = "little") {
                assert_eq!(bytes(values), little(expected), "{values:?}");
            }
        };
        check(&[Value::Byte(1), Value::Uint32(2)], &[1, 0, 0, 0, 2, 0, 0, 0]);
        check(&[Value::str("ab")], &[2, 0, 0, 0, b'a', b'b', 0]);
        // An array of 64-bit numbers: the length, four bytes of padding that are not in it, one number.
        let array = Value::Array("t".into(), vec![Value::Uint64(7)]);
        check(&[array], &[8, 0, 0, 0, 0, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0]);
        // The padding is there in an empty array, too.
        check(&[Value::Array("(st)".into(), vec![])], &[0, 0, 0, 0, 0, 0, 0, 0]);
        check(&[Value::Variant(Box::new(Value::Bool(true)))], &[1, b'b', 0, 0, 1, 0, 0, 0]);
        check(&[Value::Byte(9), Value::Struct(vec![Value::Byte(1)])], &[9, 0, 0, 0, 0, 0, 0, 0, 1]);
    }

    #[test]
    fn signatures_and_text() {
        let property = Value::Struct(vec![Value::str("A"), Value::Variant(Box::new(Value::strings(&["x'y"])))]);
        assert_eq!(property.signature(), "(sv)");
        assert_eq!(property.to_string(), r"('A', <['x\'y']>)");
        assert_eq!(Value::Array("(sv)".into(), vec![]).signature(), "a(sv)");
        assert_eq!(Value::Array("s".into(), vec![]).to_string(), "@as []");
        let entry = Value::Entry(Box::new((Value::Uint32(1), Value::Double(0.5))));
        assert_eq!((entry.signature().as_str(), entry.to_string().as_str()), ("{ud}", "{uint32 1: 0.5}"));
    }
}
