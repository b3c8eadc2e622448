//! `--format` of lists: Docker's `table`, `table TEMPLATE`, `json` and templates.

use super::printable;
use super::table::align;
use crate::exit::Exit;
use rrt_template::{Options, Template};
use serde_json::{Map, Value};
use std::borrow::Cow;

/// One line of a list: what `--format` may name, each a text as Docker's lists have it.
pub type Row = Map<String, Value>;

/// What a list has: Docker's name of its context, for errors, and each field with its header.
pub struct List<'a> {
    /// `imageContext`
    pub context: &'a str,
    /// Every field a template may name, and its header.
    pub fields: &'a [(&'a str, &'a str)],
    /// The fields of the table without a template.
    pub table: &'a [&'a str],
    /// The field that `--quiet` prints.
    pub quiet: &'a str,
}

/// How to print a list.
#[derive(Clone, Debug)]
pub enum Format {
    /// The columns of [`List::table`].
    Table,
    /// A table by a template.
    TableOf(String),
    /// One object a line.
    Json,
    /// One line by a template.
    Lines(String),
    /// [`List::quiet`] alone.
    Quiet,
}

impl Format {
    /// `text` is what follows `--format`. A table's quiet form has no header; a template goes before `--quiet`.
    pub fn parse(text: Option<&str>, quiet: bool) -> Format {
        let text = text.unwrap_or_default().trim_matches(' ');
        let unescaped = |template: &str| template.replace("\\t", "\t").replace("\\n", "\n");
        match text.strip_prefix("table") {
            _ if text == "json" => Format::Json,
            Some("") if quiet => Format::Quiet,
            None if text.is_empty() && quiet => Format::Quiet,
            Some("") => Format::Table,
            None if text.is_empty() => Format::Table,
            Some(template) => Format::TableOf(unescaped(template.trim_matches(' '))),
            None => Format::Lines(unescaped(text)),
        }
    }

    /// Does a template name this field?
    pub fn names(&self, field: &str) -> bool {
        match self {
            Format::TableOf(template) | Format::Lines(template) => template.contains(&format!(".{field}")),
            Format::Json => true,
            Format::Table | Format::Quiet => false,
        }
    }
}

impl List<'_> {
    /// The whole list as text.
    pub fn render(&self, format: &Format, rows: &[Row]) -> Result<String, Exit> {
        match format {
            Format::Quiet => Ok(rows.iter().map(|row| text(row, self.quiet).to_owned() + "\n").collect()),
            Format::Json => {
                Ok(rows.iter().map(|row| escape_html(&Value::Object(row.clone()).to_string()) + "\n").collect())
            }
            Format::Table => {
                let header = self.table.iter().map(|field| self.header(field)).collect::<Vec<_>>().join("\t");
                let line = |row: &Row| self.table.iter().map(|field| cell(row, field)).collect::<Vec<_>>().join("\t");
                let lines: Vec<String> = std::iter::once(header).chain(rows.iter().map(line)).collect();
                Ok(align(&(lines.join("\n") + "\n")))
            }
            Format::TableOf(template) => {
                let template = parse(template)?;
                let headers: Row =
                    self.fields.iter().map(|(name, header)| ((*name).into(), (*header).into())).collect();
                let options = Options { header: true, ..Options::default() };
                let header = template.render(&Value::Object(headers), &options).map_err(|e| failed(&e))? + "\n";
                Ok(align(&(header + &self.lines(&template, rows)?)))
            }
            Format::Lines(template) => self.lines(&parse(template)?, rows),
        }
    }

    fn header(&self, field: &str) -> &str {
        self.fields.iter().find(|(name, _)| *name == field).map_or("", |(_, header)| header)
    }

    fn lines(&self, template: &Template, rows: &[Row]) -> Result<String, Exit> {
        let root_type = format!("*formatter.{}", self.context);
        let options = Options { root_type: Some(&root_type), ..Options::default() };
        let mut out = String::new();
        for row in rows {
            out += &template.render(&Value::Object(row.clone()), &options).map_err(|e| failed(&e))?;
            out.push('\n');
        }
        Ok(out)
    }
}

/// A cell of a table. What others wrote there must neither end the row nor be obeyed by a terminal.
fn cell<'a>(row: &'a Row, field: &str) -> Cow<'a, str> {
    let text = text(row, field);
    match text.contains(char::is_control) {
        true => printable(&text.replace(['\n', '\t', '\r'], " ")).into_owned().into(),
        false => text.into(),
    }
}

fn text<'a>(row: &'a Row, field: &str) -> &'a str {
    row.get(field).and_then(Value::as_str).unwrap_or_default()
}

/// A template's parse, with the error Docker prints.
pub fn parse(template: &str) -> Result<Template, Exit> {
    Template::parse(template).map_err(|e| failed(&e))
}

/// Docker calls errors of execution so, too.
pub fn failed(error: &rrt_template::Error) -> Exit {
    Exit::failed(format!("template parsing error: {error}"))
}

/// Go's encoder escapes these where an object writes itself.
fn escape_html(json: &str) -> String {
    json.replace('<', "\\u003c").replace('>', "\\u003e").replace('&', "\\u0026")
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIST: List<'_> = List {
        context: "imageContext",
        fields: &[("ID", "IMAGE ID"), ("Tag", "TAG")],
        table: &["ID", "Tag"],
        quiet: "ID",
    };

    fn render(format: Option<&str>, quiet: bool) -> Result<String, String> {
        let row = |id: &str, tag: &str| Row::from_iter([("ID".into(), id.into()), ("Tag".into(), tag.into())]);
        let rows = [row("28f835294466", "1"), row("e68d8cb7f505", "<none>")];
        LIST.render(&Format::parse(format, quiet), &rows).map_err(|e| e.to_string())
    }

    #[test]
    fn the_forms_of_a_list() {
        let table = "IMAGE ID       TAG\n28f835294466   1\ne68d8cb7f505   <none>\n";
        assert_eq!(render(None, false).as_deref(), Ok(table));
        assert_eq!(render(Some("table"), false).as_deref(), Ok(table));
        assert_eq!(render(None, true).as_deref(), Ok("28f835294466\ne68d8cb7f505\n"));
        assert_eq!(
            render(Some("json"), true).as_deref(),
            Ok("{\"ID\":\"28f835294466\",\"Tag\":\"1\"}\n{\"ID\":\"e68d8cb7f505\",\"Tag\":\"\\u003cnone\\u003e\"}\n")
        );
        assert_eq!(render(Some("{{.ID}}\\t{{.Tag}}"), true).as_deref(), Ok("28f835294466\t1\ne68d8cb7f505\t<none>\n"));
        assert_eq!(
            render(Some("table {{upper .Tag}}\\t{{.ID}}"), false).as_deref(),
            Ok("TAG       IMAGE ID\n1         28f835294466\n<NONE>    e68d8cb7f505\n")
        );
    }

    #[test]
    fn a_hostile_text_stays_in_its_cell() {
        let row = Row::from_iter([("ID".into(), "a\nb\tc".into()), ("Tag".into(), "\u{1b}[2J".into())]);
        let out = LIST.render(&Format::Table, &[row]).unwrap();
        assert_eq!(out, "IMAGE ID   TAG\na b c      \u{fffd}[2J\n");
    }

    #[test]
    fn errors_are_dockers() {
        assert_eq!(
            render(Some("{{.Foo}}"), false).unwrap_err(),
            "template parsing error: template: :1:2: executing \"\" at <.Foo>: can't evaluate field Foo in type *formatter.imageContext"
        );
        assert_eq!(render(Some("{{.ID"), false).unwrap_err(), "template parsing error: template: :1: unclosed action");
    }
}
