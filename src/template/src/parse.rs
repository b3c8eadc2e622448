//! Tokens to nodes, with Go's messages.

use crate::lex::{Kind, Token, lex};
use crate::node::{Command, Control, Node, Operand, Pipe, Term};
use crate::print::quote;
use crate::{Error, MAX_DEPTH, Template, funcs};
use serde_json::{Number, Value};
use std::collections::BTreeMap;

pub(crate) fn parse(text: &str) -> Result<Template, Error> {
    let mut parser = Parser {
        tokens: lex(text),
        next: 0,
        variables: vec!["$".to_owned()],
        ranges: 0,
        depth: 0,
        action_line: 0,
        defined: BTreeMap::new(),
    };
    let root = parser.top()?;
    Ok(Template { text: text.to_owned(), root, defined: parser.defined })
}

/// What ended a list.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Close {
    Eof,
    End,
    Else,
}

struct Parser {
    tokens: Vec<Token>,
    next: usize,
    variables: Vec<String>,
    /// How many `range` are around.
    ranges: usize,
    depth: usize,
    action_line: usize,
    defined: BTreeMap<String, Vec<Node>>,
}

type Result2<T> = Result<T, Error>;

impl Parser {
    fn peek(&self) -> &Token {
        // The last token is Eof or Error, and nothing goes beyond it.
        &self.tokens[self.next.min(self.tokens.len() - 1)]
    }

    fn take(&mut self) -> Token {
        let token = self.peek().clone();
        self.next += 1;
        token
    }

    fn peek_word(&mut self) -> &Token {
        while self.peek().kind == Kind::Space {
            self.next += 1;
        }
        self.peek()
    }

    fn take_word(&mut self) -> Token {
        self.peek_word();
        self.take()
    }

    fn error<T>(&self, what: impl Into<String>) -> Result2<T> {
        let read = self.next.saturating_sub(1).min(self.tokens.len() - 1);
        Err(Error::Parse { line: self.tokens[read].line, what: what.into() })
    }

    fn unexpected<T>(&self, token: &Token, context: &str) -> Result2<T> {
        if token.kind != Kind::Error {
            return self.error(format!("unexpected {token} in {context}"));
        }
        let mut started = String::new();
        if self.action_line != 0 && self.action_line != token.line {
            let action = if token.text.ends_with(" action") { "" } else { " in action" };
            started = format!("{action} started at :{}", self.action_line);
        }
        self.error(format!("{token}{started}"))
    }

    fn expect(&mut self, kind: Kind, context: &str) -> Result2<Token> {
        let token = self.take_word();
        if token.kind == kind { Ok(token) } else { self.unexpected(&token, context) }
    }

    fn deeper<T>(&mut self, inner: impl FnOnce(&mut Parser) -> Result2<T>) -> Result2<T> {
        if self.depth == MAX_DEPTH {
            return self.error(format!("exceeded maximum template depth ({MAX_DEPTH})"));
        }
        self.depth += 1;
        let result = inner(self);
        self.depth -= 1;
        result
    }

    fn top(&mut self) -> Result2<Vec<Node>> {
        let mut nodes = Vec::new();
        match self.list(&mut nodes)? {
            Close::Eof => Ok(nodes),
            Close::End => self.error("unexpected {{end}}"),
            Close::Else => self.error("unexpected {{else}}"),
        }
    }

    /// Reads on until something that no list can hold.
    fn list(&mut self, nodes: &mut Vec<Node>) -> Result2<Close> {
        loop {
            let token = self.take();
            match token.kind {
                Kind::Eof => return Ok(Close::Eof),
                Kind::Text => nodes.push(Node::Text(token.text)),
                Kind::LeftDelim => {
                    self.action_line = token.line;
                    if let Some(end) = self.action(nodes)? {
                        return Ok(end);
                    }
                    self.action_line = 0;
                }
                _ => return self.unexpected(&token, "input"),
            }
        }
    }

    fn inner_list(&mut self) -> Result2<(Vec<Node>, Close)> {
        let mut nodes = Vec::new();
        match self.deeper(|p| p.list(&mut nodes))? {
            Close::Eof => self.error("unexpected EOF"),
            end => Ok((nodes, end)),
        }
    }

    fn action(&mut self, nodes: &mut Vec<Node>) -> Result2<Option<Close>> {
        let token = self.peek_word().clone();
        if token.kind != Kind::Keyword {
            let pipe = self.pipeline("command", Kind::RightDelim)?;
            nodes.push(Node::Action(pipe));
            return Ok(None);
        }
        self.next += 1;
        match token.text.as_str() {
            "if" => nodes.push(Node::If(self.control("if")?)),
            "with" => nodes.push(Node::With(self.control("with")?)),
            "range" => nodes.push(Node::Range(self.control("range")?)),
            "break" => nodes.push(self.leave("{{break}}", Node::Break)?),
            "continue" => nodes.push(self.leave("{{continue}}", Node::Continue)?),
            "template" => nodes.push(self.call()?),
            "block" => nodes.push(self.block()?),
            "define" if self.depth == 0 => self.define()?,
            "end" => {
                self.expect(Kind::RightDelim, "end")?;
                return Ok(Some(Close::End));
            }
            "else" => {
                let next = self.peek_word();
                if !(next.kind == Kind::Keyword && matches!(next.text.as_str(), "if" | "with")) {
                    self.expect(Kind::RightDelim, "else")?;
                }
                return Ok(Some(Close::Else));
            }
            _ => return self.unexpected(&token, "command"),
        }
        Ok(None)
    }

    fn leave(&mut self, what: &str, node: Node) -> Result2<Node> {
        self.expect(Kind::RightDelim, what)?;
        match self.ranges {
            0 => self.error(format!("{what} outside {{{{range}}}}")),
            _ => Ok(node),
        }
    }

    fn control(&mut self, context: &'static str) -> Result2<Control> {
        let variables = self.variables.len();
        let pipe = self.pipeline(context, Kind::RightDelim)?;
        let ranges = usize::from(context == "range");
        self.ranges += ranges;
        let (list, end) = self.inner_list()?;
        self.ranges -= ranges;
        let mut otherwise = Vec::new();
        if end == Close::Else {
            let next = self.peek().clone();
            if next.kind == Kind::Keyword && next.text == context && context != "range" {
                self.next += 1;
                let inner = self.deeper(|p| p.control(context))?;
                otherwise.push(if context == "if" { Node::If(inner) } else { Node::With(inner) });
            } else if next.kind == Kind::Keyword {
                return self.unexpected(&next, "input");
            } else {
                let (list, end) = self.inner_list()?;
                if end != Close::End {
                    return self.error("expected end; found {{else}}");
                }
                otherwise = list;
            }
        }
        self.variables.truncate(variables);
        Ok(Control { pipe, list, otherwise })
    }

    fn template_name(&mut self, context: &str) -> Result2<String> {
        let token = self.take_word();
        match token.kind {
            Kind::Quoted | Kind::Raw => match literal(&token) {
                Some(Value::String(name)) => Ok(name),
                _ => self.error("invalid syntax"),
            },
            _ => self.unexpected(&token, context),
        }
    }

    fn call(&mut self) -> Result2<Node> {
        let at = self.peek_word().at;
        let name = self.template_name("template clause")?;
        let pipe = match self.peek_word().kind {
            Kind::RightDelim => {
                self.next += 1;
                None
            }
            _ => Some(self.pipeline("template clause", Kind::RightDelim)?),
        };
        Ok(Node::Template { at, name, pipe })
    }

    fn block(&mut self) -> Result2<Node> {
        let at = self.peek_word().at;
        let name = self.template_name("block clause")?;
        let pipe = self.pipeline("block clause", Kind::RightDelim)?;
        self.body(&name, "unexpected {{else}} in block clause")?;
        Ok(Node::Template { at, name, pipe: Some(pipe) })
    }

    fn define(&mut self) -> Result2<()> {
        let name = self.template_name("define clause")?;
        self.expect(Kind::RightDelim, "define clause")?;
        self.body(&name, "unexpected {{else}} in define clause")
    }

    fn body(&mut self, name: &str, on_else: &str) -> Result2<()> {
        let outer = std::mem::replace(&mut self.variables, vec!["$".to_owned()]);
        let ranges = std::mem::take(&mut self.ranges);
        let (list, end) = self.inner_list()?;
        if end != Close::End {
            return self.error(on_else);
        }
        self.variables = outer;
        self.ranges = ranges;
        self.defined.insert(name.to_owned(), list);
        Ok(())
    }

    fn pipeline(&mut self, context: &str, end: Kind) -> Result2<Pipe> {
        let mut pipe = Pipe { at: self.peek_word().at, ..Pipe::default() };
        self.declarations(&mut pipe, context)?;
        loop {
            let token = self.take_word();
            match token.kind {
                kind if kind == end => break,
                Kind::Bool
                | Kind::Character
                | Kind::Dot
                | Kind::Field
                | Kind::Identifier
                | Kind::Number
                | Kind::Nil
                | Kind::Raw
                | Kind::Quoted
                | Kind::Variable
                | Kind::LeftParen => {
                    self.next -= 1;
                    let command = self.command()?;
                    pipe.commands.push(command);
                }
                _ => return self.unexpected(&token, context),
            }
        }
        if pipe.commands.is_empty() {
            return self.error(format!("missing value for {context}"));
        }
        let executable = |c: &Command| !matches!(c.args[0].term, Term::Dot | Term::Nil | Term::Literal(..));
        match pipe.commands.iter().skip(1).position(|c| !executable(c)) {
            Some(i) => self.error(format!("non executable command in pipeline stage {}", i + 2)),
            None => Ok(pipe),
        }
    }

    /// `$x :=`, `$x =`, in a range also `$i, $v :=`.
    fn declarations(&mut self, pipe: &mut Pipe, context: &str) -> Result2<()> {
        loop {
            if self.peek_word().kind != Kind::Variable {
                return Ok(());
            }
            let before = self.next;
            let variable = self.take().text;
            let sign = self.peek_word().clone();
            match sign.kind {
                Kind::Assign | Kind::Declare => {
                    self.next += 1;
                    pipe.assigns = sign.kind == Kind::Assign;
                    if pipe.assigns && !self.variables.contains(&variable) {
                        return self.error(format!("undefined variable {}", quote(&variable)));
                    }
                    self.variables.push(variable.clone());
                    pipe.variables.push(variable);
                    return Ok(());
                }
                Kind::Char if sign.text == "," => {
                    self.next += 1;
                    self.variables.push(variable.clone());
                    pipe.variables.push(variable);
                    if context != "range" || pipe.variables.len() >= 2 {
                        return self.error(format!("too many declarations in {context}"));
                    }
                    if !matches!(self.peek_word().kind, Kind::Variable | Kind::RightDelim | Kind::RightParen) {
                        return self.error("range can only initialize variables");
                    }
                }
                _ => {
                    self.next = before;
                    return Ok(());
                }
            }
        }
    }

    fn command(&mut self) -> Result2<Command> {
        let mut command = Command { at: self.peek_word().at, args: Vec::new() };
        loop {
            self.peek_word();
            if let Some(operand) = self.operand()? {
                command.args.push(operand);
            }
            let token = self.take();
            match token.kind {
                Kind::Space => continue,
                Kind::RightDelim | Kind::RightParen => self.next -= 1,
                Kind::Pipe => {}
                _ => return self.unexpected(&token, "operand"),
            }
            break;
        }
        if command.args.is_empty() {
            return self.error("empty command");
        }
        Ok(command)
    }

    fn operand(&mut self) -> Result2<Option<Operand>> {
        let Some(mut operand) = self.term()? else { return Ok(None) };
        if self.peek().kind != Kind::Field {
            return Ok(Some(operand));
        }
        // Go gives the whole the position of its second name.
        let at = self.peek().at;
        let mut names = Vec::new();
        while self.peek().kind == Kind::Field {
            names.push(self.take().text[1..].to_owned());
        }
        operand = match operand.term {
            Term::Field(mut first) => {
                first.append(&mut names);
                Operand { at, term: Term::Field(first) }
            }
            Term::Variable(name, mut first) => {
                first.append(&mut names);
                Operand { at, term: Term::Variable(name, first) }
            }
            Term::Dot | Term::Nil | Term::Literal(..) => {
                return self.error(format!("unexpected . after term {}", quote(&operand.to_string())));
            }
            Term::Function(_) | Term::Paren(_) | Term::Chain(..) => {
                Operand { at, term: Term::Chain(Box::new(operand), names) }
            }
        };
        Ok(Some(operand))
    }

    fn term(&mut self) -> Result2<Option<Operand>> {
        let token = self.take_word();
        let term = match token.kind {
            Kind::Identifier if funcs::exists(&token.text) => Term::Function(token.text),
            Kind::Identifier => return self.error(format!("function {} not defined", quote(&token.text))),
            Kind::Dot => Term::Dot,
            Kind::Nil => Term::Nil,
            Kind::Variable if self.variables.contains(&token.text) => Term::Variable(token.text, Vec::new()),
            Kind::Variable => return self.error(format!("undefined variable {}", quote(&token.text))),
            Kind::Field => Term::Field(vec![token.text[1..].to_owned()]),
            Kind::Bool | Kind::Number | Kind::Character | Kind::Quoted | Kind::Raw => match literal(&token) {
                Some(value) => Term::Literal(value, token.text),
                None if token.kind == Kind::Number => {
                    return self.error(format!("illegal number syntax: {}", quote(&token.text)));
                }
                None if token.kind == Kind::Character => {
                    return self.error(format!("malformed character constant: {}", token.text));
                }
                None => return self.error("invalid syntax"),
            },
            Kind::LeftParen => {
                let pipe = self.deeper(|p| p.pipeline("parenthesized pipeline", Kind::RightParen))?;
                Term::Paren(Box::new(pipe))
            }
            _ => {
                self.next -= 1;
                return Ok(None);
            }
        };
        Ok(Some(Operand { at: token.at, term }))
    }
}

/// The value of a literal; `None` when it has none.
fn literal(token: &Token) -> Option<Value> {
    let text = token.text.as_str();
    match token.kind {
        Kind::Bool => Some(Value::Bool(text == "true")),
        Kind::Number => number(text).map(Value::Number),
        Kind::Raw => Some(Value::String(text.trim_matches('`').replace('\r', ""))),
        Kind::Quoted => unquote(&text[1..text.len() - 1], '"').map(Value::String),
        Kind::Character => {
            let c = unquote(&text[1..text.len() - 1], '\'')?;
            let mut characters = c.chars();
            let first = characters.next().filter(|_| characters.next().is_none())?;
            Some(Value::Number(u32::from(first).into()))
        }
        _ => None,
    }
}

fn number(text: &str) -> Option<Number> {
    let underscores = text.contains("__") || text.ends_with('_') || text.starts_with('_');
    let plain = text.replace('_', "");
    let (negative, digits) = match plain.as_bytes().first()? {
        b'-' => (true, &plain[1..]),
        b'+' => (false, &plain[1..]),
        _ => (false, plain.as_str()),
    };
    let lower = digits.to_ascii_lowercase();
    let (radix, body) = match lower.get(..2) {
        Some("0x") => (16, &lower[2..]),
        Some("0o") => (8, &lower[2..]),
        Some("0b") => (2, &lower[2..]),
        _ if lower.len() > 1 && lower.starts_with('0') && lower.bytes().all(|b| b.is_ascii_digit()) => (8, &lower[1..]),
        _ => (10, lower.as_str()),
    };
    if underscores || body.is_empty() || body.starts_with(['+', '-']) {
        return None;
    }
    if let Ok(value) = u64::from_str_radix(body, radix) {
        return match negative {
            true => 0i64.checked_sub_unsigned(value).map(Number::from),
            false => Some(value.into()),
        };
    }
    let is_float = radix == 10 && body.contains(['.', 'e']);
    let value = is_float.then(|| body.parse::<f64>().ok()).flatten()?;
    Number::from_f64(if negative { -value } else { value })
}

/// Go's escapes in a string or character.
fn unquote(text: &str, quote: char) -> Option<String> {
    let mut out = Vec::new();
    let mut rest = text.chars();
    let push = |out: &mut Vec<u8>, c: char| out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
    while let Some(c) = rest.next() {
        if c != '\\' {
            push(&mut out, c);
            continue;
        }
        let escape = rest.next()?;
        let mut hex = |length: usize, first: &str, radix: u32| {
            let mut digits = first.to_owned();
            digits.extend(rest.by_ref().take(length));
            let whole = digits.len() == length + first.len() && !digits.starts_with(['+', '-']);
            whole.then(|| u32::from_str_radix(&digits, radix).ok()).flatten()
        };
        match escape {
            'a' => out.push(7),
            'b' => out.push(8),
            'f' => out.push(12),
            'n' => out.push(b'\n'),
            'r' => out.push(b'\r'),
            't' => out.push(b'\t'),
            'v' => out.push(11),
            '\\' => out.push(b'\\'),
            c if c == quote => push(&mut out, c),
            'x' => out.push(u8::try_from(hex(2, "", 16)?).ok()?),
            'u' => push(&mut out, char::from_u32(hex(4, "", 16)?)?),
            'U' => push(&mut out, char::from_u32(hex(8, "", 16)?)?),
            c @ '0'..='7' => out.push(u8::try_from(hex(2, &c.to_string(), 8)?).ok()?),
            _ => return None,
        }
    }
    Some(String::from_utf8(out).unwrap_or_else(|e| String::from_utf8_lossy(e.as_bytes()).into_owned()))
}
