//! A `--format` template → its text: never a panic, the same each time, and an error that says where.

use rrt_template::{Options, Template};
use serde_json::{Value, json};

/// What templates are made of.
const PIECES: [&str; 72] = [
    "{{",
    "}}",
    "{{- ",
    " -}}",
    " ",
    " ",
    " ",
    "\n",
    "/*",
    "*/",
    "x",
    "é",
    ".",
    ".A",
    ".L",
    ".M",
    ".S",
    ".N",
    ".Z",
    "$",
    "$x",
    "$y",
    ":=",
    "=",
    ",",
    "|",
    "(",
    ")",
    "\"a\"",
    "\"%5d%q%v%x\\n\"",
    "`r`",
    "'c'",
    "'",
    "\"",
    "\\",
    "0",
    "1",
    "-2",
    "3.5",
    "0x1f",
    "1e3",
    "nil",
    "true",
    "if ",
    "else",
    "end",
    "range ",
    "with ",
    "define \"t\"",
    "template \"t\" ",
    "block \"b\" ",
    "break",
    "continue",
    "index ",
    "slice ",
    "len ",
    "print ",
    "printf ",
    "html ",
    "and ",
    "or ",
    "not ",
    "eq ",
    "lt ",
    "json ",
    "join ",
    "split ",
    "truncate ",
    "pad ",
    "title ",
    "{{if .A}}",
    "{{end}}",
];

/// Whole actions, so that much of it can be parsed.
const ACTIONS: [&str; 14] = [
    "{{.A}}",
    "{{range $i, $x := .L}}{{$i}}{{$x}}{{else}}",
    "{{with $x := .M}}{{.a}}",
    "{{end}}",
    "{{end}}",
    "{{else}}",
    "{{.S | printf \"%8.3q\"}}",
    "{{index .L 1}}",
    "{{json .}}",
    "{{slice .S 1 2}}",
    "{{if and .A (not .Z)}}",
    "{{truncate .S 3 | upper}}",
    "{{$x := .N}}",
    "{{eq .N 3}}",
];

/// A template by `below(n)`, a number under `n`.
pub fn make(mut below: impl FnMut(usize) -> usize) -> String {
    let length = below(12) + 1;
    let mut text = String::new();
    for _ in 0..length {
        match below(3) {
            0 => text.push_str(PIECES[below(PIECES.len())]),
            _ => text.push_str(ACTIONS[below(ACTIONS.len())]),
        }
    }
    text
}

/// Parses and renders it with each kind of option. Says whether it was a template.
///
/// # Panics
/// When a promise does not hold.
pub fn template(text: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(text) else { return false };
    let data: Value =
        json!({"A": true, "L": ["a", 2, null, {"b": []}], "M": {"a": 1.5, "é": "x"}, "S": "héllo", "N": 3, "Z": null});
    let parsed = match Template::parse(text) {
        Ok(parsed) => parsed,
        Err(error) => {
            assert!(error.to_string().starts_with("template: :"), "{error}");
            return false;
        }
    };
    let strict = Options { missing_is_error: true, root_type: Some("root"), ..Options::default() };
    for options in [Options::default(), strict, Options { header: true, ..Options::default() }] {
        let first = parsed.render(&data, &options);
        assert_eq!(first, parsed.render(&data, &options), "not the same again");
        if let Err(error) = first {
            assert!(error.to_string().contains("executing"), "{error}");
        }
    }
    true
}
