//! Go's `text/template`, the part that Docker's `--format` is used with, over [`serde_json::Value`]; pure.
//!
//! Source of the language: the package documentation of Go's `text/template` and `fmt`. Docker adds the functions `json`,
//! `join`, `lower`, `upper`, `title`, `split`, `pad` and `truncate` (its page "Format command and log output").
//!
//! Known differences, all because the data is JSON and not Go's structs: a whole object prints as a map (`map[Type:layers]`, keys in
//! order) where Go prints a struct (`{layers}`); `{{json .}}` writes an object's keys in order; no complex numbers, no `call`.
//!
//! ```
//! let template = rrt_template::Template::parse("{{range $k, $v := .Labels}}{{$k}}={{upper $v}};{{end}}").unwrap();
//! let data = serde_json::json!({"Labels": {"a": "x", "b": "y"}});
//! assert_eq!(template.render(&data, &Default::default()).unwrap(), "a=X;b=Y;");
//! ```

#![forbid(unsafe_code)]

mod exec;
mod funcs;
mod lex;
mod node;
mod parse;
mod print;
mod printf;

use serde_json::Value;
use std::collections::BTreeMap;

/// How deep lists, parentheses and `{{template}}` calls may nest: they are recursion here.
pub(crate) const MAX_DEPTH: usize = 100;
/// The most bytes one rendering may write: a template can double a text in each line.
pub(crate) const MAX_OUTPUT: usize = 64 << 20;

/// What is wrong, in Go's words: `template: :1: unclosed action`,
/// `template: :1:2: executing "" at <.Foo>: map has no entry for key "Foo"`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The text is no template.
    #[error("template: :{line}: {what}")]
    Parse {
        /// From 1.
        line: usize,
        /// Go's words.
        what: String,
    },
    /// The template can't be executed with this data.
    #[error("template: :{line}:{column}: executing {} at <{context}>: {what}", print::quote(.template))]
    Execute {
        /// The template's name; the main one has none.
        template: String,
        /// From 1.
        line: usize,
        /// In bytes, from 0.
        column: usize,
        /// The expression.
        context: String,
        /// Go's words.
        what: String,
    },
}

/// What a field is in Go's struct when JSON has `null` there, or nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Zero {
    /// Prints `[]`.
    List,
    /// Prints `map[]`.
    Map,
    /// Prints `<nil>`.
    Pointer,
    /// The empty string.
    Text,
    /// Prints `0`.
    Number,
    /// Prints `false`.
    Bool,
}

/// A method of the root: its name and arguments; `None` when there is none of that name.
pub type Method<'a> = dyn Fn(&str, &[Value]) -> Option<Result<Value, String>> + 'a;

/// How data is looked at. The default is Go's for a map: a missing key prints `<no value>`.
#[derive(Clone, Copy, Default)]
pub struct Options<'a> {
    /// A missing key is an error (`docker inspect`).
    pub missing_is_error: bool,
    /// The root stands for Go's struct of this name, so that a field it lacks can't be evaluated (`docker images --format`).
    pub root_type: Option<&'a str>,
    /// What a field is where the data has `null` or nothing.
    pub zero: Option<fn(&str) -> Option<Zero>>,
    /// What the root has besides its keys: `{{.Label "x"}}`.
    pub method: Option<&'a Method<'a>>,
    /// Docker's header of a table: `json`, `title`, `lower`, `upper` and `truncate` leave their argument as it is.
    pub header: bool,
}

/// A template, parsed.
#[derive(Clone, Debug)]
pub struct Template {
    pub(crate) text: String,
    pub(crate) root: Vec<node::Node>,
    pub(crate) defined: BTreeMap<String, Vec<node::Node>>,
}

impl Template {
    /// Parses `text`.
    ///
    /// # Errors
    /// [`Error::Parse`].
    pub fn parse(text: &str) -> Result<Template, Error> {
        parse::parse(text)
    }

    /// The text for this data.
    ///
    /// # Errors
    /// [`Error::Execute`].
    pub fn render(&self, data: &Value, options: &Options<'_>) -> Result<String, Error> {
        exec::render(self, data, options)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn render(text: &str, options: &Options<'_>) -> Result<String, String> {
        let data = json!({"Config": {"Cmd": null, "Tty": false}, "ID": "x"});
        Template::parse(text).and_then(|t| t.render(&data, options)).map_err(|e| e.to_string())
    }

    fn zero(name: &str) -> Option<Zero> {
        let known = [("Cmd", Zero::List), ("Labels", Zero::Map), ("Health", Zero::Pointer), ("User", Zero::Text)];
        known.iter().find(|(n, _)| *n == name).map(|(_, zero)| *zero)
    }

    #[test]
    fn what_docker_inspect_says_of_a_missing_key() {
        let options = Options { missing_is_error: true, ..Options::default() };
        assert_eq!(
            render("{{.Config.Foo}}", &options),
            Err("template: :1:9: executing \"\" at <.Config.Foo>: map has no entry for key \"Foo\"".to_owned())
        );
    }

    #[test]
    fn what_docker_images_says_of_a_missing_field() {
        let options = Options { root_type: Some("*formatter.imageContext"), ..Options::default() };
        let message =
            "template: :2:3: executing \"\" at <.Foo>: can't evaluate field Foo in type *formatter.imageContext";
        assert_eq!(render("\n {{.Foo}}", &options), Err(message.to_owned()));
    }

    #[test]
    fn nothing_prints_as_the_zero_of_its_type() {
        let options = Options { missing_is_error: true, zero: Some(zero), ..Options::default() };
        let text = "{{with .Config}}{{.Cmd}} {{.Labels}} {{.Health}} {{.User}}|{{len .Cmd}} {{json .Labels}} {{join .Cmd \",\"}}|{{end}}";
        assert_eq!(render(text, &options).as_deref(), Ok("[] map[] <nil> |0 null |"));
        assert_eq!(
            render("{{range .Config.Cmd}}x{{else}}e{{end}}{{if .Config.Labels}}y{{end}}", &options).as_deref(),
            Ok("e")
        );
    }

    #[test]
    fn the_root_may_have_methods() {
        let label = |name: &str, args: &[Value]| match (name, args) {
            ("Label", [Value::String(key)]) => Some(Ok(format!("<{key}>").into())),
            ("Label", _) => Some(Err("one name".to_owned())),
            _ => None,
        };
        let options = Options { method: Some(&label), ..Options::default() };
        assert_eq!(render("{{.Label \"a\"}} {{.ID}} {{\"b\" | $.Label}}", &options).as_deref(), Ok("<a> x <b>"));
        assert!(render("{{.Label}}", &options).is_err_and(|e| e.ends_with("error calling Label: one name")));
    }

    #[test]
    fn a_header_is_not_changed_by_functions() {
        let options = Options { header: true, ..Options::default() };
        assert_eq!(render("{{json .ID}} {{upper .ID}} {{truncate .ID 0}}", &options).as_deref(), Ok("x x x"));
    }

    #[test]
    fn what_could_end_the_process_is_an_error() {
        let deep =
            |open: &str, close: &str| render(&(open.repeat(5000) + ".ID" + &close.repeat(5000)), &Options::default());
        assert!(deep("{{if ", "}}{{end}}").is_err());
        assert!(
            render(&format!("{{{{{}}}}}", "(".repeat(5000)), &Options::default()).is_err_and(|e| e.contains("depth"))
        );
        assert!(render(&"{{if 1}}".repeat(5000), &Options::default()).is_err_and(|e| e.contains("depth")));
        let recursive = "{{define \"t\"}}{{template \"t\" .}}{{end}}{{template \"t\" .}}";
        assert!(render(recursive, &Options::default()).is_err_and(|e| e.contains("maximum template depth")));
        let doubling = "{{$x := \"0123456789\"}}{{range 60}}{{$x = print $x $x}}{{end}}";
        assert!(render(doubling, &Options::default()).is_err_and(|e| e.contains("exceeds")));
    }
}
