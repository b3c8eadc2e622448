//! Text to tokens.

/// What a token is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Its text is the message. Always the last.
    Error,
    Eof,
    Text,
    LeftDelim,
    RightDelim,
    Space,
    Assign,
    Declare,
    Pipe,
    LeftParen,
    RightParen,
    /// `.name`
    Field,
    /// `$` or `$name`
    Variable,
    Dot,
    Nil,
    Bool,
    Number,
    /// `'x'`
    Character,
    /// `"x"`
    Quoted,
    /// `` `x` ``
    Raw,
    Identifier,
    Keyword,
    /// Any other printable character.
    Char,
}

#[derive(Clone, Debug)]
pub(crate) struct Token {
    pub(crate) kind: Kind,
    pub(crate) text: String,
    pub(crate) at: usize,
    pub(crate) line: usize,
}

impl std::fmt::Display for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.kind {
            Kind::Eof => f.write_str("EOF"),
            Kind::Error => f.write_str(&self.text),
            Kind::Keyword => write!(f, "<{}>", self.text),
            _ if self.text.chars().count() > 10 => {
                let start: String = self.text.chars().take(10).collect();
                write!(f, "{}...", crate::print::quote(&start))
            }
            _ => f.write_str(&crate::print::quote(&self.text)),
        }
    }
}

const KEYWORDS: [&str; 10] = ["block", "break", "continue", "define", "else", "end", "if", "range", "template", "with"];

fn is_space(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\r' | '\n')
}

fn is_word(c: char) -> bool {
    c == '_' || c.is_alphanumeric()
}

pub(crate) fn lex(text: &str) -> Vec<Token> {
    let mut lexer = Lexer { text, at: 0, start: 0, line: 1, parens: 0, tokens: Vec::new() };
    if let Err(message) = lexer.run() {
        lexer.tokens.push(Token { kind: Kind::Error, text: message, at: lexer.start, line: lexer.line });
    }
    lexer.tokens
}

struct Lexer<'a> {
    text: &'a str,
    at: usize,
    start: usize,
    /// Of `start`.
    line: usize,
    parens: usize,
    tokens: Vec<Token>,
}

impl<'a> Lexer<'a> {
    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    fn next(&mut self) -> Option<char> {
        let c = self.peek()?;
        self.at += c.len_utf8();
        Some(c)
    }

    fn skip(&mut self, good: impl Fn(char) -> bool) {
        while self.peek().is_some_and(&good) {
            self.next();
        }
    }

    fn emit(&mut self, kind: Kind) {
        let text = &self.text[self.start..self.at];
        self.tokens.push(Token { kind, text: text.to_owned(), at: self.start, line: self.line });
        self.ignore();
    }

    fn ignore(&mut self) {
        self.line += self.text[self.start..self.at].matches('\n').count();
        self.start = self.at;
    }

    fn run(&mut self) -> Result<(), String> {
        let mut trim = false;
        loop {
            if trim {
                self.skip(is_space);
                self.ignore();
            }
            let Some(open) = self.rest().find("{{") else {
                self.at = self.text.len();
                if self.at > self.start {
                    self.emit(Kind::Text);
                }
                self.emit(Kind::Eof);
                return Ok(());
            };
            let open = self.at + open;
            let trims_left = trims_after(&self.text[open + 2..]);
            self.at = match trims_left {
                true => self.start + self.text[self.start..open].trim_end_matches(is_space).len(),
                false => open,
            };
            if self.at > self.start {
                self.emit(Kind::Text);
            }
            self.at = open;
            self.ignore();
            let marker = if trims_left { 2 } else { 0 };
            trim = match self.text[open + 2 + marker..].starts_with("/*") {
                true => self.comment(open + 2 + marker)?,
                false => {
                    self.at = open + 2;
                    self.emit(Kind::LeftDelim);
                    self.at += marker;
                    self.ignore();
                    self.parens = 0;
                    self.action()?
                }
            };
        }
    }

    /// Says whether the text after it is trimmed, as [`Lexer::action`] does.
    fn comment(&mut self, from: usize) -> Result<bool, String> {
        self.at = from;
        let end = self.rest().find("*/").ok_or("unclosed comment")?;
        self.at += end + 2;
        let (length, trim) = self.right_delim().ok_or("comment ends before closing delimiter")?;
        self.at += length;
        self.ignore();
        Ok(trim)
    }

    /// The length of the closing delimiter here, and whether it trims.
    fn right_delim(&self) -> Option<(usize, bool)> {
        let rest = self.rest();
        let trims = rest.starts_with(is_space) && rest[1..].starts_with("-}}");
        match trims {
            true => Some((4, true)),
            false => rest.starts_with("}}").then_some((2, false)),
        }
    }

    fn action(&mut self) -> Result<bool, String> {
        loop {
            if let Some((length, trim)) = self.right_delim() {
                if self.parens > 0 {
                    return Err("unclosed left paren".to_owned());
                }
                self.at += length - 2;
                self.ignore();
                self.at += 2;
                self.emit(Kind::RightDelim);
                return Ok(trim);
            }
            let Some(c) = self.next() else { return Err("unclosed action".to_owned()) };
            self.token(c)?;
        }
    }

    fn token(&mut self, c: char) -> Result<(), String> {
        match c {
            c if is_space(c) => {
                // The last space may belong to the closing delimiter.
                while self.peek().is_some_and(is_space) && self.right_delim().is_none() {
                    self.next();
                }
                self.emit(Kind::Space);
            }
            '=' => self.emit(Kind::Assign),
            ':' => match self.next() {
                Some('=') => self.emit(Kind::Declare),
                _ => return Err("expected :=".to_owned()),
            },
            '|' => self.emit(Kind::Pipe),
            '"' => self.quoted('"', "unterminated quoted string", Kind::Quoted)?,
            '\'' => self.quoted('\'', "unterminated character constant", Kind::Character)?,
            '`' => {
                let length = self.rest().find('`').ok_or("unterminated raw quoted string")?;
                self.at += length + 1;
                self.emit(Kind::Raw);
            }
            '$' => self.name(Kind::Variable)?,
            '.' if !self.peek().is_some_and(|c| c.is_ascii_digit()) => self.name(Kind::Field)?,
            '.' | '+' | '-' | '0'..='9' => self.number()?,
            '(' => {
                self.parens += 1;
                self.emit(Kind::LeftParen);
            }
            ')' => {
                self.parens = self.parens.checked_sub(1).ok_or("unexpected right paren")?;
                self.emit(Kind::RightParen);
            }
            c if is_word(c) => self.identifier()?,
            c if c.is_ascii() && !c.is_ascii_control() => self.emit(Kind::Char),
            c => return Err(format!("unrecognized character in action: {}", code_point(c))),
        }
        Ok(())
    }

    fn quoted(&mut self, end: char, message: &str, kind: Kind) -> Result<(), String> {
        loop {
            match self.next() {
                Some('\\') if !matches!(self.peek(), None | Some('\n')) => {
                    self.next();
                }
                None | Some('\n' | '\\') => return Err(message.to_owned()),
                Some(c) if c == end => {
                    self.emit(kind);
                    return Ok(());
                }
                Some(_) => {}
            }
        }
    }

    /// A name must end where something else may begin.
    fn terminated(&self) -> Result<(), String> {
        match self.peek() {
            None | Some('.' | ',' | '|' | ':' | ')' | '(') => Ok(()),
            Some(c) if is_space(c) || self.rest().starts_with("}}") => Ok(()),
            Some(c) => Err(format!("bad character {}", code_point(c))),
        }
    }

    fn name(&mut self, kind: Kind) -> Result<(), String> {
        if self.terminated().is_ok() {
            self.emit(if kind == Kind::Field { Kind::Dot } else { kind });
            return Ok(());
        }
        self.skip(is_word);
        self.terminated()?;
        self.emit(kind);
        Ok(())
    }

    fn identifier(&mut self) -> Result<(), String> {
        self.skip(is_word);
        self.terminated()?;
        let kind = match &self.text[self.start..self.at] {
            "true" | "false" => Kind::Bool,
            "nil" => Kind::Nil,
            word if KEYWORDS.contains(&word) => Kind::Keyword,
            _ => Kind::Identifier,
        };
        self.emit(kind);
        Ok(())
    }

    fn number(&mut self) -> Result<(), String> {
        self.at = self.start;
        if self.rest().starts_with(['+', '-']) {
            self.next();
        }
        let lower = self.rest().get(..2).map(str::to_ascii_lowercase);
        let (digits, exponent): (fn(char) -> bool, &[char]) = match lower.as_deref() {
            Some("0x") => (|c| c.is_ascii_hexdigit() || c == '_', &['p', 'P']),
            _ => (|c| c.is_ascii_digit() || c == '_', &['e', 'E']),
        };
        if matches!(lower.as_deref(), Some("0x" | "0o" | "0b")) {
            self.at += 2;
        }
        self.skip(digits);
        if self.peek() == Some('.') {
            self.next();
            self.skip(digits);
        }
        if self.rest().starts_with(exponent) {
            self.next();
            if self.rest().starts_with(['+', '-']) {
                self.next();
            }
            self.skip(|c| c.is_ascii_digit() || c == '_');
        }
        if self.peek().is_some_and(is_word) {
            self.next();
            return Err(format!("bad number syntax: {}", crate::print::quote(&self.text[self.start..self.at])));
        }
        self.emit(Kind::Number);
        Ok(())
    }
}

/// Does an action begin with the marker that trims the text before it?
fn trims_after(text: &str) -> bool {
    text.starts_with('-') && text[1..].starts_with(is_space)
}

/// Go's `%#U`.
fn code_point(c: char) -> String {
    match c.is_control() {
        true => format!("U+{:04X}", u32::from(c)),
        false => format!("U+{:04X} '{c}'", u32::from(c)),
    }
}
