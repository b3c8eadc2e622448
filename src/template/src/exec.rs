//! Executes a template.

use crate::funcs::{self, Param};
use crate::node::{Command, Control, Node, Operand, Pipe, Term};
use crate::print::Val;
use crate::{Error, MAX_DEPTH, MAX_OUTPUT, Options, Template, Zero};
use serde_json::Value;
use std::borrow::Cow;
use std::fmt::Display;

type Result2<T> = Result<T, Error>;

pub(crate) fn render(template: &Template, data: &Value, options: &Options<'_>) -> Result2<String> {
    let dot = Val::borrowed(data);
    let variables = vec![("$", dot.clone())];
    let mut state = State { template, data, options, out: String::new(), variables, name: "", depth: 0 };
    state.list(&dot, &template.root)?;
    Ok(state.out)
}

/// How a list ended.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Flow {
    Next,
    Break,
    Continue,
}

struct State<'a> {
    template: &'a Template,
    data: &'a Value,
    options: &'a Options<'a>,
    out: String,
    variables: Vec<(&'a str, Val<'a>)>,
    /// The template being executed.
    name: &'a str,
    depth: usize,
}

impl<'a> State<'a> {
    fn fail<T>(&self, at: usize, context: &dyn Display, what: impl Into<String>) -> Result2<T> {
        let before = &self.template.text[..at.min(self.template.text.len())];
        Err(Error::Execute {
            template: self.name.to_owned(),
            line: before.matches('\n').count() + 1,
            column: before.len() - before.rfind('\n').map_or(0, |newline| newline + 1),
            context: context.to_string(),
            what: what.into(),
        })
    }

    fn write(&mut self, text: &str, at: usize, context: &dyn Display) -> Result2<()> {
        if self.out.len() + text.len() > MAX_OUTPUT {
            return self.fail(at, context, format!("the output exceeds {MAX_OUTPUT} bytes"));
        }
        self.out.push_str(text);
        Ok(())
    }

    fn list(&mut self, dot: &Val<'a>, nodes: &'a [Node]) -> Result2<Flow> {
        for node in nodes {
            let flow = self.node(dot, node)?;
            if flow != Flow::Next {
                return Ok(flow);
            }
        }
        Ok(Flow::Next)
    }

    fn node(&mut self, dot: &Val<'a>, node: &'a Node) -> Result2<Flow> {
        match node {
            Node::Text(text) => self.write(text, 0, &"")?,
            Node::Action(pipe) => {
                let value = self.pipeline(dot, pipe)?;
                if pipe.variables.is_empty() {
                    self.write(&value.print("<no value>"), pipe.at, pipe)?;
                }
            }
            Node::If(control) => return self.conditional(dot, control, false),
            Node::With(control) => return self.conditional(dot, control, true),
            Node::Range(control) => {
                let mark = self.variables.len();
                let flow = self.range(dot, control);
                self.variables.truncate(mark);
                return flow;
            }
            Node::Template { at, name, pipe } => self.call(dot, *at, name, pipe.as_ref())?,
            Node::Break => return Ok(Flow::Break),
            Node::Continue => return Ok(Flow::Continue),
        }
        Ok(Flow::Next)
    }

    fn conditional(&mut self, dot: &Val<'a>, control: &'a Control, with: bool) -> Result2<Flow> {
        let mark = self.variables.len();
        let value = self.pipeline(dot, &control.pipe)?;
        let flow = match value.truth() {
            true if with => self.list(&value, &control.list),
            true => self.list(dot, &control.list),
            false => self.list(dot, &control.otherwise),
        };
        self.variables.truncate(mark);
        flow
    }

    fn range(&mut self, dot: &Val<'a>, control: &'a Control) -> Result2<Flow> {
        let value = self.pipeline(dot, &control.pipe)?;
        let text = |key: &str| Val::owned(Value::from(key));
        // Each element is borrowed from the data where the whole is, so that a long list is not copied.
        let entries: Box<dyn Iterator<Item = (Val<'a>, Val<'a>)>> = match value {
            Val::None | Val::Nil(_) => Box::new(std::iter::empty()),
            Val::Json(Cow::Borrowed(Value::Array(list))) => {
                Box::new(list.iter().enumerate().map(|(i, v)| (Val::owned(i.into()), Val::borrowed(v))))
            }
            Val::Json(Cow::Owned(Value::Array(list))) => {
                Box::new(list.into_iter().enumerate().map(|(i, v)| (Val::owned(i.into()), Val::owned(v))))
            }
            Val::Json(Cow::Borrowed(Value::Object(map))) => {
                let mut pairs: Vec<_> = map.iter().collect();
                pairs.sort_by_key(|(key, _)| *key);
                Box::new(pairs.into_iter().map(move |(key, v)| (text(key), Val::borrowed(v))))
            }
            Val::Json(Cow::Owned(Value::Object(map))) => {
                let mut pairs: Vec<_> = map.into_iter().collect();
                pairs.sort_by(|a, b| a.0.cmp(&b.0));
                Box::new(pairs.into_iter().map(move |(key, v)| (text(&key), Val::owned(v))))
            }
            Val::Json(value) => match value.as_i64() {
                Some(count) => Box::new((0..count).map(|i| (Val::owned(i.into()), Val::owned(i.into())))),
                None => {
                    let what = format!("range can't iterate over {}", crate::print::print(&value));
                    return self.fail(control.pipe.at, &control.pipe, what);
                }
            },
        };
        let mut empty = true;
        for (index, element) in entries {
            empty = false;
            if self.iteration(control, index, element)? == Flow::Break {
                return Ok(Flow::Next);
            }
        }
        match empty {
            true => self.list(dot, &control.otherwise),
            false => Ok(Flow::Next),
        }
    }

    fn iteration(&mut self, control: &'a Control, index: Val<'a>, element: Val<'a>) -> Result2<Flow> {
        let mark = self.variables.len();
        let set = match &control.pipe.variables[..] {
            [] => vec![],
            [one] => vec![(one, element.clone())],
            [first, second, ..] => vec![(first, index), (second, element.clone())],
        };
        for (name, value) in set {
            match control.pipe.assigns {
                true => self.assign(name, value),
                false => self.variables.push((name, value)),
            }
        }
        let flow = self.list(&element, &control.list);
        self.variables.truncate(mark);
        flow
    }

    fn call(&mut self, dot: &Val<'a>, at: usize, name: &'a str, pipe: Option<&'a Pipe>) -> Result2<()> {
        let context = format!("{{{{template {}}}}}", crate::print::quote(name));
        let Some(nodes) = self.template.defined.get(name) else {
            return self.fail(at, &context, format!("template {} not defined", crate::print::quote(name)));
        };
        if self.depth == MAX_DEPTH {
            return self.fail(at, &context, format!("exceeded maximum template depth ({MAX_DEPTH})"));
        }
        let value = match pipe {
            Some(pipe) => self.pipeline(dot, pipe)?,
            None => Val::None,
        };
        let outer = std::mem::replace(&mut self.variables, vec![("$", value.clone())]);
        let outer_name = std::mem::replace(&mut self.name, name);
        self.depth += 1;
        self.list(&value, nodes)?;
        self.depth -= 1;
        self.name = outer_name;
        self.variables = outer;
        Ok(())
    }

    fn assign(&mut self, name: &str, value: Val<'a>) {
        // The parser knows every name.
        if let Some(variable) = self.variables.iter_mut().rev().find(|(n, _)| *n == name) {
            variable.1 = value;
        }
    }

    fn pipeline(&mut self, dot: &Val<'a>, pipe: &'a Pipe) -> Result2<Val<'a>> {
        let mut value = None;
        for command in &pipe.commands {
            value = Some(self.command(dot, command, value)?);
        }
        let value = value.unwrap_or(Val::None);
        for name in &pipe.variables {
            match pipe.assigns {
                true => self.assign(name, value.clone()),
                false => self.variables.push((name, value.clone())),
            }
        }
        Ok(value)
    }

    fn command(&mut self, dot: &Val<'a>, command: &'a Command, last: Option<Val<'a>>) -> Result2<Val<'a>> {
        let first = &command.args[0];
        match &first.term {
            Term::Function(name) => return self.function(dot, first, name, command, last),
            Term::Field(names) => return self.fields(dot, dot.clone(), first, names, &command.args[1..], last),
            Term::Variable(name, names) if !names.is_empty() => {
                let receiver = self.variable(name);
                return self.fields(dot, receiver, first, names, &command.args[1..], last);
            }
            Term::Chain(inner, names) => {
                let receiver = self.operand(dot, inner)?;
                return self.fields(dot, receiver, first, names, &command.args[1..], last);
            }
            _ => {}
        }
        if command.args.len() > 1 || last.is_some() {
            return self.fail(first.at, first, format!("can't give argument to non-function {first}"));
        }
        if matches!(first.term, Term::Nil) {
            return self.fail(first.at, first, "nil is not a command");
        }
        self.operand(dot, first)
    }

    fn variable(&self, name: &str) -> Val<'a> {
        let variable = self.variables.iter().rev().find(|(n, _)| *n == name);
        variable.map_or(Val::None, |(_, value)| value.clone())
    }

    fn operand(&mut self, dot: &Val<'a>, operand: &'a Operand) -> Result2<Val<'a>> {
        match &operand.term {
            Term::Dot => Ok(dot.clone()),
            Term::Nil => Ok(Val::None),
            Term::Literal(value, _) => Ok(Val::borrowed(value)),
            Term::Variable(name, names) => self.fields(dot, self.variable(name), operand, names, &[], None),
            Term::Field(names) => self.fields(dot, dot.clone(), operand, names, &[], None),
            Term::Paren(pipe) => self.pipeline(dot, pipe),
            Term::Chain(inner, names) => {
                let receiver = self.operand(dot, inner)?;
                self.fields(dot, receiver, operand, names, &[], None)
            }
            Term::Function(name) => {
                let mut values = Vec::new();
                self.check_count(operand, name, 0)?;
                self.apply(operand.at, operand, name, &mut values)
            }
        }
    }

    /// The fields one after another; arguments go to the last.
    fn fields(
        &mut self,
        dot: &Val<'a>,
        mut receiver: Val<'a>,
        node: &'a Operand,
        names: &'a [String],
        args: &'a [Operand],
        last: Option<Val<'a>>,
    ) -> Result2<Val<'a>> {
        let mut values = Vec::new();
        for arg in args {
            values.push(self.operand(dot, arg)?);
        }
        values.extend(last);
        for (i, name) in names.iter().enumerate() {
            let values = if i + 1 == names.len() { &values[..] } else { &[] };
            match self.field(receiver, node, name, values, i > 0)? {
                Some(value) => receiver = value,
                // Of what is missing, every field is missing too.
                None => return Ok(Val::None),
            }
        }
        Ok(receiver)
    }

    /// `None` when there is none; a `null` is found.
    fn field(
        &self,
        receiver: Val<'a>,
        node: &Operand,
        name: &'a str,
        args: &[Val<'a>],
        inner: bool,
    ) -> Result2<Option<Val<'a>>> {
        let fail = |what: String| self.fail(node.at, node, what);
        let is_root = matches!(&receiver, Val::Json(Cow::Borrowed(v)) if std::ptr::eq(*v, self.data));
        if let Some(method) = self.options.method.filter(|_| is_root) {
            let args: Vec<Value> = args.iter().map(Val::to_json).collect();
            match method(name, &args) {
                Some(Ok(value)) => return Ok(Some(Val::owned(value))),
                Some(Err(what)) => return fail(format!("error calling {name}: {what}")),
                None => {}
            }
        }
        let value = match receiver {
            Val::Json(Cow::Borrowed(Value::Object(map))) => map.get(name).map(Val::borrowed),
            Val::Json(Cow::Owned(Value::Object(mut map))) => map.remove(name).map(Val::owned),
            Val::None | Val::Nil(Zero::Pointer) if inner => {
                return fail(format!("nil pointer evaluating interface {{}}.{name}"));
            }
            Val::None if self.options.missing_is_error => {
                return fail(format!("nil data; no entry for key {}", crate::print::quote(name)));
            }
            Val::None | Val::Nil(_) => None,
            other => {
                let type_name = if inner { "interface {}" } else { other.type_name() };
                return fail(format!("can't evaluate field {name} in type {type_name}"));
            }
        };
        if !args.is_empty() {
            return fail(format!("{name} is not a method but has arguments"));
        }
        let value = match value {
            Some(Val::None) | None => self.zero(name).or(value),
            value => value,
        };
        match (value, self.options.root_type) {
            (Some(value), _) => Ok(Some(value)),
            (None, Some(root)) if is_root => fail(format!("can't evaluate field {name} in type {root}")),
            _ if self.options.missing_is_error => {
                fail(format!("map has no entry for key {}", crate::print::quote(name)))
            }
            _ => Ok(None),
        }
    }

    fn zero(&self, name: &str) -> Option<Val<'a>> {
        match (self.options.zero?)(name)? {
            Zero::Text => Some(Val::owned("".into())),
            Zero::Number => Some(Val::owned(0.into())),
            Zero::Bool => Some(Val::owned(false.into())),
            nil => Some(Val::Nil(nil)),
        }
    }

    fn function(
        &mut self,
        dot: &Val<'a>,
        node: &'a Operand,
        name: &str,
        command: &'a Command,
        last: Option<Val<'a>>,
    ) -> Result2<Val<'a>> {
        let count = command.args.len() - 1 + usize::from(last.is_some());
        self.check_count(node, name, count)?;
        if matches!(name, "and" | "or") {
            return self.and_or(dot, name == "or", &command.args[1..], last);
        }
        let mut values = Vec::new();
        for (i, arg) in command.args[1..].iter().enumerate() {
            let value = self.operand(dot, arg)?;
            self.check_type(arg, funcs::param(name, i), &value, matches!(arg.term, Term::Literal(..) | Term::Nil))?;
            values.push(value);
        }
        if let Some(value) = last {
            self.check_type(node, funcs::param(name, values.len()), &value, false)?;
            values.push(value);
        }
        self.apply(command.at, command, name, &mut values)
    }

    /// They evaluate no more of their arguments than they need.
    fn and_or(&mut self, dot: &Val<'a>, or: bool, args: &'a [Operand], last: Option<Val<'a>>) -> Result2<Val<'a>> {
        let mut value = Val::None;
        for arg in args {
            value = self.operand(dot, arg)?;
            if value.truth() == or {
                return Ok(value);
            }
        }
        Ok(last.unwrap_or(value))
    }

    fn apply(&self, at: usize, context: &dyn Display, name: &str, values: &mut [Val<'a>]) -> Result2<Val<'a>> {
        match funcs::call(name, values, self.options.header) {
            Ok(Val::Json(value)) if value.as_str().is_some_and(|s| s.len() > MAX_OUTPUT) => {
                self.fail(at, context, format!("error calling {name}: the text exceeds {MAX_OUTPUT} bytes"))
            }
            Ok(value) => Ok(value),
            Err(what) => self.fail(at, context, format!("error calling {name}: {what}")),
        }
    }

    fn check_count(&self, node: &Operand, name: &str, count: usize) -> Result2<()> {
        let (fixed, variadic) = funcs::arity(name);
        match variadic {
            true if count < fixed => {
                self.fail(node.at, node, format!("wrong number of args for {name}: want at least {fixed} got {count}"))
            }
            false if count != fixed => {
                self.fail(node.at, node, format!("wrong number of args for {name}: want {fixed} got {count}"))
            }
            _ => Ok(()),
        }
    }

    fn check_type(&self, node: &Operand, param: Param, value: &Val<'a>, literal: bool) -> Result2<()> {
        let expected = match (param, value) {
            (Param::Any, _) => return Ok(()),
            (Param::Text, Val::Json(v)) if v.is_string() => return Ok(()),
            (Param::Int, Val::Json(v)) if v.is_i64() || v.is_u64() => return Ok(()),
            (Param::Texts, Val::Nil(_)) => return Ok(()),
            (Param::Texts, Val::Json(v)) if v.as_array().is_some_and(|l| l.iter().all(Value::is_string)) => {
                return Ok(());
            }
            (Param::Text, _) => "string",
            (Param::Int, _) => "int",
            (Param::Texts, _) => "[]string",
        };
        let what = match (literal, value) {
            (true, Val::None) => format!("cannot assign nil to {expected}"),
            (true, _) if param == Param::Int => format!("expected integer; found {node}"),
            (true, _) if param == Param::Text => format!("expected string; found {node}"),
            (_, Val::None) => format!("invalid value; expected {expected}"),
            _ => format!("wrong type for value; expected {expected}; got {}", value.type_name()),
        };
        self.fail(node.at, node, what)
    }
}
