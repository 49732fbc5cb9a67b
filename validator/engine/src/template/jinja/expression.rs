//! Expressions of a template (`jinja2/parser.py`).

use super::{
    ast::{Arguments, Comparison, Expr, Name, Target},
    checks,
    error::{Outcome, TemplateError},
    filters,
    token::Token,
};

/// Expressions nested more deeply are refused.
const MAX_DEPTH: usize = 60;

/// The words of a tag, read one after another.
pub(super) struct Words {
    tokens: std::iter::Peekable<std::vec::IntoIter<Token>>,
    line: usize,
    depth: usize,
    /// Whether unknown filters and tests fail only once they are met.
    soft: bool,
}

impl Words {
    pub(super) fn new(tokens: Vec<Token>, line: usize, soft: bool) -> Self {
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
        matches!(self.tokens.peek(), Some(Token::Operator(found)) if *found == operator)
    }

    pub(super) fn take(&mut self, operator: &str) -> bool {
        let there = self.is_at(operator);
        if there {
            self.tokens.next();
        }
        there
    }

    fn expect(&mut self, operator: &str) -> Outcome<()> {
        if self.take(operator) {
            Ok(())
        } else {
            self.fail(&format!("expected {operator:?}"))
        }
    }

    fn is_at_name(&mut self, name: &str) -> bool {
        matches!(self.tokens.peek(), Some(Token::Name(found)) if &**found == name)
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
            Some(Token::Name(name)) => Ok(name),
            _ => self.fail("expected a name"),
        }
    }

    /// Parses what is assigned to; in a loop it ends at `in`.
    pub(super) fn target(&mut self, in_loop: bool) -> Outcome<Target> {
        let mut parts = vec![self.single_target()?];
        let mut comma = false;
        while self.take(",") {
            comma = true;
            if self.is_at("=") || (in_loop && self.is_at_name("in")) {
                break;
            }
            parts.push(self.single_target()?);
        }
        match parts.pop() {
            Some(only) if parts.is_empty() && !comma => Ok(only),
            last => Ok(Target::Tuple(parts.into_iter().chain(last).collect())),
        }
    }

    fn single_target(&mut self) -> Outcome<Target> {
        if self.take("(") {
            self.deeper()?;
            let inner = self.target(false)?;
            self.depth -= 1;
            self.expect(")")?;
            return Ok(inner);
        }
        let name = self.name()?;
        if matches!(
            &*name,
            "true" | "false" | "none" | "True" | "False" | "None"
        ) {
            return self.fail("a constant can't be assigned to");
        }
        if self.take(".") {
            return Ok(Target::Attribute(name, self.name()?));
        }
        Ok(Target::Name(name))
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

    fn deeper(&mut self) -> Outcome<()> {
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

    fn primary(&mut self) -> Outcome<Expr> {
        match self.tokens.next() {
            Some(Token::Name(name)) => Ok(match &*name {
                "true" | "True" => Expr::Bool(true),
                "false" | "False" => Expr::Bool(false),
                "none" | "None" => Expr::None,
                _ => Expr::Name(name),
            }),
            Some(Token::Text(text)) => {
                let mut text = text.into_string();
                while let Some(Token::Text(more)) =
                    self.tokens.next_if(|next| matches!(next, Token::Text(_)))
                {
                    text.push_str(&more);
                }
                Ok(Expr::Text(text.into()))
            }
            Some(Token::Int(value)) => Ok(Expr::Int(value)),
            Some(Token::Float(value)) => Ok(Expr::Float(value)),
            Some(Token::Operator("(")) => {
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
            Some(Token::Operator("[")) => {
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
            Some(Token::Operator("{")) => {
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

    fn postfix(&mut self, mut value: Expr) -> Outcome<Expr> {
        loop {
            if self.take(".") {
                value = match self.tokens.next() {
                    Some(Token::Name(name)) => Expr::Attribute(Box::new(value), name),
                    Some(Token::Int(index)) => {
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

    fn dotted(&mut self) -> Outcome<String> {
        let mut name = self.name()?.into_string();
        while self.take(".") {
            name = format!("{name}.{}", self.name()?);
        }
        Ok(name)
    }

    fn filter(&mut self, of: Option<Expr>) -> Outcome<Expr> {
        let name = self.dotted()?;
        if !self.soft && !filters::is_known(&name) {
            return self.fail(&format!("there is no filter named {name:?}"));
        }
        let arguments = if self.is_at("(") {
            self.arguments()?
        } else {
            Arguments::default()
        };
        Ok(Expr::Filter(
            of.map(Box::new),
            name.into(),
            Box::new(arguments),
        ))
    }

    /// Parses the filters of a filter block.
    pub(super) fn filters_on_block(&mut self) -> Outcome<Expr> {
        let mut filters = self.filter(None)?;
        while self.take("|") {
            filters = self.filter(Some(filters))?;
        }
        Ok(filters)
    }

    /// Parses the filters of a set block, if there are any.
    pub(super) fn block_filters(&mut self) -> Outcome<Option<Expr>> {
        if self.take("|") {
            self.filters_on_block().map(Some)
        } else {
            Ok(None)
        }
    }

    fn test(&mut self, of: Expr) -> Outcome<Expr> {
        let negated = self.take_name("not");
        let name = self.dotted()?;
        if !self.soft && !checks::is_known(&name) {
            return self.fail(&format!("there is no test named {name:?}"));
        }
        let mut arguments = Arguments::default();
        if self.is_at("(") {
            arguments = self.arguments()?;
        } else {
            let ends = ["else", "or", "and"]
                .into_iter()
                .any(|end| self.is_at_name(end));
            let takes = match self.tokens.peek() {
                Some(Token::Operator(operator)) => matches!(*operator, "(" | "[" | "{"),
                Some(_) => !ends,
                None => false,
            };
            if takes {
                if self.is_at_name("is") {
                    return self.fail("tests can't be chained with `is`");
                }
                let argument = self.primary()?;
                arguments.positional.push(self.postfix(argument)?);
            }
        }
        let test = Expr::Test(Box::new(of), name.into(), Box::new(arguments));
        Ok(if negated {
            Expr::Not(Box::new(test))
        } else {
            test
        })
    }

    fn arguments(&mut self) -> Outcome<Arguments> {
        self.expect("(")?;
        self.deeper()?;
        let mut arguments = Arguments::default();
        let mut first = true;
        while !self.take(")") {
            if !first {
                self.expect(",")?;
                if self.take(")") {
                    break;
                }
            }
            first = false;
            if self.take("**") {
                arguments.dict = Some(self.expression()?);
            } else if self.take("*") {
                arguments.list = Some(self.expression()?);
            } else {
                let value = self.expression()?;
                match value {
                    Expr::Name(name) if self.take("=") => {
                        let value = self.expression()?;
                        arguments.named.push((name, value));
                    }
                    _ if !arguments.named.is_empty() || arguments.dict.is_some() => {
                        return self.fail("an argument by place follows one by name");
                    }
                    value => arguments.positional.push(value),
                }
            }
        }
        self.depth -= 1;
        Ok(arguments)
    }

    /// Parses the parameters of a macro, and the defaults of the last of them.
    pub(super) fn parameters(&mut self) -> Outcome<(Vec<Name>, Vec<Expr>)> {
        self.expect("(")?;
        let (mut names, mut defaults) = (Vec::new(), Vec::new());
        while !self.take(")") {
            if !names.is_empty() {
                self.expect(",")?;
            }
            names.push(self.name()?);
            if self.take("=") {
                defaults.push(self.expression()?);
            } else if !defaults.is_empty() {
                return self.fail("a parameter without a default follows one with a default");
            }
        }
        Ok((names, defaults))
    }
}
