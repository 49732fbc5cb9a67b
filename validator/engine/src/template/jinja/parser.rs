//! Statements of a template (`jinja2/parser.py`).

use std::{iter::Peekable, vec::IntoIter};

use super::{
    Dialect,
    ast::{Arguments, Body, Expr, For, Macro, Name, Statement, StatementKind},
    error::{Outcome, TemplateError},
    expression::Words,
    lexer::{Piece, PieceKind, pieces},
    names::mentions,
    token::Lexeme,
};

/// Statements nested more deeply are refused.
const MAX_DEPTH: usize = 100;

/// Parses a template.
pub(super) fn parse(source: &str, dialect: Dialect) -> Outcome<Body> {
    let mut parser = Parser {
        pieces: pieces(source)?.into_iter().peekable(),
        dialect,
        depth: 0,
        loops: 0,
        soft: 0,
    };
    let (body, end) = parser.body(&[])?;
    debug_assert!(end.is_none(), "only a tag that is asked for ends a body");
    Ok(body)
}

struct Parser {
    pieces: Peekable<IntoIter<Piece>>,
    dialect: Dialect,
    depth: usize,
    /// Loops around what is being parsed.
    loops: usize,
    /// Conditions around it: what is unknown there fails only once it is met.
    soft: usize,
}

/// The tag that ended a body: its name and the words after it.
type End = Option<(Name, Words)>;

impl Parser {
    /// Parses statements up to one of the tags in `ends`, or to the end of the template.
    fn body(&mut self, ends: &[&str]) -> Outcome<(Body, End)> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(TemplateError::new("statements are nested too deeply"));
        }
        let mut body = Body::new();
        while let Some(Piece { kind, line }) = self.pieces.next() {
            let kind = match kind {
                PieceKind::Text(text) => StatementKind::Text(text),
                PieceKind::Output(tokens) => {
                    let mut words = self.words(tokens, line);
                    let output = words.tuple()?;
                    words.end()?;
                    StatementKind::Output(output)
                }
                PieceKind::Block(tokens) => {
                    let mut words = self.words(tokens, line);
                    let name = words.name()?;
                    if ends.contains(&&*name) {
                        self.depth -= 1;
                        return Ok((body, Some((name, words))));
                    }
                    let parsed = self.statement(&name, words);
                    parsed.map_err(|error| error.in_line(line))?
                }
            };
            body.push(Statement { line, kind });
        }
        if let Some(end) = ends.last() {
            let text = format!("the template ends where {end} is missing");
            return Err(TemplateError::new(text));
        }
        self.depth -= 1;
        Ok((body, None))
    }

    fn words(&self, tokens: Vec<Lexeme>, line: usize) -> Words {
        Words::new(tokens, line, self.soft > 0)
    }

    /// Parses a body whose end is a tag without further words.
    fn closed(&mut self, end: &str) -> Outcome<Body> {
        let (body, found) = self.body(&[end])?;
        if let Some((_, mut words)) = found {
            words.end()?;
        }
        Ok(body)
    }

    fn statement(&mut self, name: &str, mut words: Words) -> Outcome<StatementKind> {
        match name {
            "if" => self.condition(words),
            "for" => self.for_loop(words),
            "set" => self.set(words),
            "with" => self.with(words),
            "macro" => {
                let name = words.name()?;
                let made = self.macro_body(name, words, "endmacro")?;
                Ok(StatementKind::Macro(made))
            }
            "call" => self.call_block(words),
            "filter" => {
                let filters = words.filters_on_block()?;
                words.end()?;
                Ok(StatementKind::Filter(filters, self.closed("endfilter")?))
            }
            "block" => {
                let name = words.name()?;
                while words.take_name("scoped") || words.take_name("required") {}
                words.end()?;
                let (body, end) = self.body(&["endblock"])?;
                if let Some((_, mut words)) = end {
                    words.take_name(&name);
                    words.end()?;
                }
                Ok(StatementKind::Block(body))
            }
            "autoescape" => {
                let on = words.expression()?;
                words.end()?;
                Ok(StatementKind::Autoescape(on, self.closed("endautoescape")?))
            }
            "break" | "continue" if self.dialect.has_loop_controls() && self.loops > 0 => {
                words.end()?;
                Ok(if name == "break" {
                    StatementKind::Break
                } else {
                    StatementKind::Continue
                })
            }
            "generation" if self.dialect.has_generation() => {
                words.end()?;
                Ok(StatementKind::Generation(self.closed("endgeneration")?))
            }
            "extends" | "include" | "import" | "from" => {
                words.fail("other templates can't be loaded")
            }
            _ => words.fail(&format!("unknown tag {name:?}")),
        }
    }

    fn condition(&mut self, mut words: Words) -> Outcome<StatementKind> {
        let mut branches = Vec::new();
        self.soft += 1;
        loop {
            let condition = words.tuple_without_condition()?;
            words.end()?;
            let (body, end) = self.body(&["elif", "else", "endif"])?;
            branches.push((condition, body));
            let Some((name, mut rest)) = end else {
                return words.fail("an if has no end");
            };
            match &*name {
                "elif" => words = rest,
                "else" => {
                    rest.end()?;
                    let otherwise = self.closed("endif")?;
                    self.soft -= 1;
                    return Ok(StatementKind::If(branches, otherwise));
                }
                _ => {
                    rest.end()?;
                    self.soft -= 1;
                    return Ok(StatementKind::If(branches, Body::new()));
                }
            }
        }
    }

    fn for_loop(&mut self, mut words: Words) -> Outcome<StatementKind> {
        let target = words.target(true)?;
        if !words.take_name("in") {
            return words.fail("expected `in`");
        }
        let list = words.tuple_of_loop()?;
        let condition = if words.take_name("if") {
            Some(words.expression()?)
        } else {
            None
        };
        let recursive = words.take_name("recursive");
        words.end()?;
        self.loops += 1;
        let (body, end) = self.body(&["else", "endfor"])?;
        self.loops -= 1;
        let otherwise = match end {
            Some((name, mut rest)) => {
                rest.end()?;
                if &*name == "else" {
                    self.closed("endfor")?
                } else {
                    Body::new()
                }
            }
            None => Body::new(),
        };
        Ok(StatementKind::For(Box::new(For {
            target,
            list,
            condition,
            recursive,
            body,
            otherwise,
        })))
    }

    fn set(&mut self, mut words: Words) -> Outcome<StatementKind> {
        let target = words.target(false)?;
        if words.take("=") {
            let value = words.tuple()?;
            words.end()?;
            return Ok(StatementKind::Set(target, value));
        }
        let filters = words.block_filters()?;
        words.end()?;
        Ok(StatementKind::SetBlock(
            target,
            filters,
            self.closed("endset")?,
        ))
    }

    fn with(&mut self, mut words: Words) -> Outcome<StatementKind> {
        let mut values = Vec::new();
        while !words.is_done() {
            if !values.is_empty() && !words.take(",") {
                return words.fail("expected a comma");
            }
            let target = words.target(false)?;
            if !words.take("=") {
                return words.fail("expected `=`");
            }
            values.push((target, words.expression()?));
        }
        Ok(StatementKind::With(values, self.closed("endwith")?))
    }

    /// Parses parameters and body of a macro.
    fn macro_body(&mut self, name: Name, mut words: Words, end: &str) -> Outcome<Macro> {
        let (parameters, defaults) = words.parameters()?;
        words.end()?;
        let loops = std::mem::take(&mut self.loops);
        let body = self.closed(end)?;
        self.loops = loops;
        let takes = ["varargs", "kwargs", "caller"]
            .map(|name| !parameters.iter().any(|own| &**own == name) && mentions(&body, name));
        Ok(Macro {
            name,
            parameters,
            defaults,
            body,
            takes,
        })
    }

    fn call_block(&mut self, mut words: Words) -> Outcome<StatementKind> {
        let (parameters, defaults) = if words.is_at("(") {
            words.parameters()?
        } else {
            Default::default()
        };
        let call = words.expression()?;
        if !matches!(call, Expr::Call(..)) {
            return words.fail("expected a call");
        }
        words.end()?;
        let loops = std::mem::take(&mut self.loops);
        let body = self.closed("endcall")?;
        self.loops = loops;
        let takes = ["varargs", "kwargs", "caller"].map(|name| mentions(&body, name));
        let caller = Macro {
            name: "caller".into(),
            parameters,
            defaults,
            body,
            takes,
        };
        Ok(StatementKind::CallBlock(call, caller))
    }
}

impl Arguments {
    pub(super) fn expressions(&self) -> impl Iterator<Item = &Expr> {
        let named = self.named.iter().map(|(_, value)| value);
        self.positional
            .iter()
            .chain(named)
            .chain(&self.list)
            .chain(&self.dict)
    }
}
