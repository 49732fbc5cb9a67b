//! Expressions of a template (`jinja2/parser.py`).

use super::{
    ast::{Comparison, Expr, Name},
    error::{Outcome, TemplateError},
    token::Lexeme,
};

/// Expressions nested more deeply are refused.
const MAX_DEPTH: usize = 60;

/// The words of a tag, read one after another.
pub(super) struct Words {
    pub(super) tokens: std::iter::Peekable<std::vec::IntoIter<Lexeme>>,
    line: usize,
    pub(super) depth: usize,
    /// Whether unknown filters and tests fail only once they are met.
    pub(super) soft: bool,
}

impl Words {
    pub(super) fn new(tokens: Vec<Lexeme>, line: usize, soft: bool) -> Self {
        Self {
            tokens: tokens.into_iter().peekable(),
            line,
            depth: 0,
            soft,
        }
    }

    pub(super) fn fail<T>(&self, text: &str) -> Outcome<T> {
        Err(TemplateError::at(self.line, text))
    }

    pub(super) fn is_done(&mut self) -> bool {
        self.tokens.peek().is_none()
    }

    /// Expects the end of the tag.
    pub(super) fn end(&mut self) -> Outcome<()> {
        match self.tokens.peek() {
            None => Ok(()),
            Some(token) => {
                let text = format!("unexpected {token:?}");
                self.fail(&text)
            }
        }
    }

    pub(super) fn is_at(&mut self, operator: &str) -> bool {
        matches!(self.tokens.peek(), Some(Lexeme::Operator(found)) if *found == operator)
    }

    pub(super) fn take(&mut self, operator: &str) -> bool {
        let there = self.is_at(operator);
        if there {
            self.tokens.next();
        }
        there
    }

    pub(super) fn expect(&mut self, operator: &str) -> Outcome<()> {
        if self.take(operator) {
            Ok(())
        } else {
            self.fail(&format!("expected {operator:?}"))
        }
    }

    pub(super) fn is_at_name(&mut self, name: &str) -> bool {
        matches!(self.tokens.peek(), Some(Lexeme::Name(found)) if &**found == name)
    }

    pub(super) fn take_name(&mut self, name: &str) -> bool {
        let there = self.is_at_name(name);
        if there {
            self.tokens.next();
        }
        there
    }

    pub(super) fn name(&mut self) -> Outcome<Name> {
        match self.tokens.next() {
            Some(Lexeme::Name(name)) => Ok(name),
            _ => self.fail("expected a name"),
        }
    }

    /// Parses an expression, or several with commas between them.
    pub(super) fn tuple(&mut self) -> Outcome<Expr> {
        self.tuple_of(true)
    }

    /// The same without `.. if .. else ..` at the top.
    pub(super) fn tuple_without_condition(&mut self) -> Outcome<Expr> {
        self.tuple_of(false)
    }

    pub(super) fn tuple_of_loop(&mut self) -> Outcome<Expr> {
        self.tuple_of(false)
    }

    fn tuple_of(&mut self, conditional: bool) -> Outcome<Expr> {
        let mut items = Vec::new();
        let mut comma = false;
        loop {
            let ended = self.is_done() || self.is_at(")");
            if ended || (comma && (self.is_at_name("recursive") || self.is_at_name("if"))) {
                break;
            }
            items.push(if conditional {
                self.expression()?
            } else {
                self.or()?
            });
            if !self.take(",") {
                break;
            }
            comma = true;
        }
        match items.pop() {
            Some(only) if items.is_empty() && !comma => Ok(only),
            None => self.fail("expected an expression"),
            last => Ok(Expr::Tuple(items.into_iter().chain(last).collect())),
        }
    }

    pub(super) fn deeper(&mut self) -> Outcome<()> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return self.fail("an expression is nested too deeply");
        }
        Ok(())
    }

    pub(super) fn expression(&mut self) -> Outcome<Expr> {
        self.deeper()?;
        let soft = self.soft;
        let mut value = self.or()?;
        while self.take_name("if") {
            self.soft = true;
            let condition = self.or()?;
            let otherwise = if self.take_name("else") {
                Some(Box::new(self.expression()?))
            } else {
                None
            };
            self.soft = soft;
            value = Expr::If(Box::new(condition), Box::new(value), otherwise);
        }
        self.depth -= 1;
        Ok(value)
    }

    fn or(&mut self) -> Outcome<Expr> {
        let mut left = self.and()?;
        while self.take_name("or") {
            left = Expr::Or(Box::new(left), Box::new(self.and()?));
        }
        Ok(left)
    }

    fn and(&mut self) -> Outcome<Expr> {
        let mut left = self.not()?;
        while self.take_name("and") {
            left = Expr::And(Box::new(left), Box::new(self.not()?));
        }
        Ok(left)
    }

    fn not(&mut self) -> Outcome<Expr> {
        if !self.take_name("not") {
            return self.compare();
        }
        self.deeper()?;
        let inner = self.not()?;
        self.depth -= 1;
        Ok(Expr::Not(Box::new(inner)))
    }

    fn compare(&mut self) -> Outcome<Expr> {
        let first = self.sum()?;
        let mut others = Vec::new();
        loop {
            let operators = [
                ("==", Comparison::Equal),
                ("!=", Comparison::NotEqual),
                ("<", Comparison::Less),
                ("<=", Comparison::LessEqual),
                (">", Comparison::Greater),
                (">=", Comparison::GreaterEqual),
            ];
            let operator = operators.into_iter().find(|(text, _)| self.is_at(text));
            let operator = if let Some((_, operator)) = operator {
                self.tokens.next();
                operator
            } else if self.take_name("in") {
                Comparison::In
            } else if self.is_at_name("not") {
                self.tokens.next();
                if !self.take_name("in") {
                    return self.fail("expected `in`");
                }
                Comparison::NotIn
            } else if others.is_empty() {
                return Ok(first);
            } else {
                return Ok(Expr::Compare(Box::new(first), others));
            };
            others.push((operator, self.sum()?));
        }
    }

    fn binary(
        &mut self,
        operators: &[&'static str],
        operand: fn(&mut Self) -> Outcome<Expr>,
    ) -> Outcome<Expr> {
        let mut left = operand(self)?;
        while let Some(operator) = operators.iter().find(|operator| self.is_at(operator)) {
            self.tokens.next();
            left = Expr::Binary(operator, Box::new(left), Box::new(operand(self)?));
        }
        Ok(left)
    }

    fn sum(&mut self) -> Outcome<Expr> {
        self.binary(&["+", "-"], Self::concat)
    }

    fn concat(&mut self) -> Outcome<Expr> {
        let mut parts = vec![self.product()?];
        while self.take("~") {
            parts.push(self.product()?);
        }
        match parts.pop() {
            Some(only) if parts.is_empty() => Ok(only),
            last => Ok(Expr::Concat(parts.into_iter().chain(last).collect())),
        }
    }

    fn product(&mut self) -> Outcome<Expr> {
        self.binary(&["*", "/", "//", "%"], Self::power)
    }

    fn power(&mut self) -> Outcome<Expr> {
        self.binary(&["**"], |words| words.unary(true))
    }

    fn unary(&mut self, with_filters: bool) -> Outcome<Expr> {
        self.deeper()?;
        let negative = self.is_at("-");
        let mut value = if negative || self.is_at("+") {
            self.tokens.next();
            let inner = Box::new(self.unary(false)?);
            if negative {
                Expr::Negative(inner)
            } else {
                Expr::Positive(inner)
            }
        } else {
            self.primary()?
        };
        value = self.postfix(value)?;
        if with_filters {
            value = self.filters_and_tests(value)?;
        }
        self.depth -= 1;
        Ok(value)
    }

    pub(super) fn primary(&mut self) -> Outcome<Expr> {
        match self.tokens.next() {
            Some(Lexeme::Name(name)) => Ok(match &*name {
                "true" | "True" => Expr::Bool(true),
                "false" | "False" => Expr::Bool(false),
                "none" | "None" => Expr::None,
                _ => Expr::Name(name),
            }),
            Some(Lexeme::Text(text)) => {
                let mut text = text.into_string();
                while let Some(Lexeme::Text(more)) =
                    self.tokens.next_if(|next| matches!(next, Lexeme::Text(_)))
                {
                    text.push_str(&more);
                }
                Ok(Expr::Text(text.into()))
            }
            Some(Lexeme::Int(value)) => Ok(Expr::Int(value)),
            Some(Lexeme::Float(value)) => Ok(Expr::Float(value)),
            Some(Lexeme::Operator("(")) => {
                self.deeper()?;
                let inner = if self.is_at(")") {
                    Expr::Tuple(Vec::new())
                } else {
                    self.tuple()?
                };
                self.depth -= 1;
                self.expect(")")?;
                Ok(inner)
            }
            Some(Lexeme::Operator("[")) => {
                let mut items = Vec::new();
                while !self.take("]") {
                    if !items.is_empty() {
                        self.expect(",")?;
                        if self.take("]") {
                            break;
                        }
                    }
                    items.push(self.expression()?);
                }
                Ok(Expr::List(items))
            }
            Some(Lexeme::Operator("{")) => {
                let mut pairs = Vec::new();
                while !self.take("}") {
                    if !pairs.is_empty() {
                        self.expect(",")?;
                        if self.take("}") {
                            break;
                        }
                    }
                    let key = self.expression()?;
                    self.expect(":")?;
                    pairs.push((key, self.expression()?));
                }
                Ok(Expr::Dict(pairs))
            }
            Some(token) => self.fail(&format!("unexpected {token:?}")),
            None => self.fail("expected an expression"),
        }
    }

    pub(super) fn postfix(&mut self, mut value: Expr) -> Outcome<Expr> {
        loop {
            if self.take(".") {
                value = match self.tokens.next() {
                    Some(Lexeme::Name(name)) => Expr::Attribute(Box::new(value), name),
                    Some(Lexeme::Int(index)) => {
                        Expr::Item(Box::new(value), Box::new(Expr::Int(index)))
                    }
                    _ => return self.fail("expected a name or a number after the dot"),
                };
            } else if self.take("[") {
                value = self.subscript(value)?;
            } else if self.is_at("(") {
                let arguments = Box::new(self.arguments()?);
                value = Expr::Call(Box::new(value), arguments);
            } else {
                return Ok(value);
            }
        }
    }

    fn subscript(&mut self, of: Expr) -> Outcome<Expr> {
        let mut bounds = [None, None, None];
        let (mut part, mut sliced) = (0, false);
        while !self.is_at("]") {
            if self.take(":") {
                sliced = true;
                part += 1;
                if part > 2 {
                    return self.fail("a slice has at most three parts");
                }
            } else if bounds[part].is_some() {
                return self.fail("expected \"]\"");
            } else {
                bounds[part] = Some(self.expression()?);
            }
        }
        self.expect("]")?;
        let [first, ..] = &mut bounds;
        match first.take() {
            Some(index) if !sliced => Ok(Expr::Item(Box::new(of), Box::new(index))),
            None if !sliced => self.fail("expected an index"),
            start => {
                bounds[0] = start;
                Ok(Expr::Slice(Box::new(of), Box::new(bounds)))
            }
        }
    }

    fn filters_and_tests(&mut self, mut value: Expr) -> Outcome<Expr> {
        loop {
            if self.take("|") {
                value = self.filter(Some(value))?;
            } else if self.take_name("is") {
                value = self.test(value)?;
            } else if self.is_at("(") {
                let arguments = Box::new(self.arguments()?);
                value = Expr::Call(Box::new(value), arguments);
            } else {
                return Ok(value);
            }
        }
    }
}
