//! Evaluating expressions.

use super::{
    ast::{Arguments, Comparison, Expr},
    error::{Outcome, fail},
    operators,
    repr::to_text,
    run::Run,
    signature::Given,
    text::escape_html,
    value::{Callable, Value},
};

/// What templates may call by name.
const GLOBALS: [&str; 8] = [
    "range",
    "dict",
    "namespace",
    "cycler",
    "joiner",
    "lipsum",
    "raise_exception",
    "strftime_now",
];

impl<'t> Run<'t> {
    pub(super) fn evaluate(&mut self, expression: &'t Expr, scope: usize) -> Outcome<Value> {
        self.step(1)?;
        self.deeper(|run| run.value_of(expression, scope))
    }

    fn all(&mut self, expressions: &'t [Expr], scope: usize) -> Outcome<Vec<Value>> {
        expressions
            .iter()
            .map(|expression| self.evaluate(expression, scope))
            .collect()
    }

    fn value_of(&mut self, expression: &'t Expr, scope: usize) -> Outcome<Value> {
        Ok(match expression {
            Expr::None => Value::None,
            Expr::Bool(on) => Value::Bool(*on),
            Expr::Int(number) => Value::Int(*number),
            Expr::Float(number) => Value::Float(*number),
            Expr::Text(text) => Value::text(&**text),
            Expr::Name(name) => self.name(name, scope),
            Expr::List(items) => Value::list(self.all(items, scope)?)?,
            Expr::Tuple(items) => Value::tuple(self.all(items, scope)?)?,
            Expr::Dict(pairs) => {
                let mut values = Vec::with_capacity(pairs.len());
                for (key, value) in pairs {
                    let key = self.evaluate(key, scope)?;
                    values.push((key, self.evaluate(value, scope)?));
                }
                Value::dict(values)?
            }
            Expr::Attribute(of, name) => {
                let of = self.evaluate(of, scope)?;
                self.attribute(&of, name)?
            }
            Expr::Item(of, index) => {
                let of = self.evaluate(of, scope)?;
                let index = self.evaluate(index, scope)?;
                self.item(&of, &index)?
            }
            Expr::Slice(of, bounds) => {
                let of = self.evaluate(of, scope)?;
                let mut values = [Value::None, Value::None, Value::None];
                for (value, bound) in values.iter_mut().zip(bounds.iter()) {
                    if let Some(bound) = bound {
                        *value = self.evaluate(bound, scope)?;
                    }
                }
                self.slice(&of, &values)?
            }
            Expr::Call(of, arguments) => {
                let of = self.evaluate(of, scope)?;
                let (positional, named) = self.arguments(arguments, scope)?;
                self.call(&of, positional, named)?
            }
            Expr::Filter(Some(of), name, arguments) => {
                let of = self.evaluate(of, scope)?;
                let (positional, named) = self.arguments(arguments, scope)?;
                self.filter(name, of, positional, named)?
            }
            Expr::Filter(None, ..) => return fail("a filter has nothing to work on"),
            Expr::Test(of, name, arguments) => {
                let of = self.evaluate(of, scope)?;
                let (positional, named) = self.arguments(arguments, scope)?;
                Value::Bool(self.test(name, &of, positional, named)?)
            }
            Expr::Not(of) => Value::Bool(!self.evaluate(of, scope)?.is_true()),
            Expr::Negative(of) => operators::negative(&self.evaluate(of, scope)?)?,
            Expr::Positive(of) => operators::positive(&self.evaluate(of, scope)?)?,
            Expr::Binary(operator, left, right) => {
                let left = self.evaluate(left, scope)?;
                let right = self.evaluate(right, scope)?;
                self.binary(operator, &left, &right)?
            }
            Expr::Concat(parts) => self.concat(parts, scope)?,
            Expr::Compare(first, others) => self.compare(first, others, scope)?,
            Expr::And(left, right) => {
                let left = self.evaluate(left, scope)?;
                if left.is_true() {
                    self.evaluate(right, scope)?
                } else {
                    left
                }
            }
            Expr::Or(left, right) => {
                let left = self.evaluate(left, scope)?;
                if left.is_true() {
                    left
                } else {
                    self.evaluate(right, scope)?
                }
            }
            Expr::If(condition, then, otherwise) => {
                if self.evaluate(condition, scope)?.is_true() {
                    self.evaluate(then, scope)?
                } else if let Some(otherwise) = otherwise {
                    self.evaluate(otherwise, scope)?
                } else {
                    Value::undefined(
                        "the inline if-expression evaluated to false and no else section was defined",
                    )
                }
            }
        })
    }

    fn name(&self, name: &str, scope: usize) -> Value {
        if let Some(value) = self.look_up(name, scope) {
            return value;
        }
        let global = GLOBALS.into_iter().find(|global| *global == name);
        let global = global.filter(|name| *name != "strftime_now" || self.dialect.has_generation());
        global.map_or_else(
            || Value::undefined(name),
            |name| Value::Callable(Callable::Global(name)),
        )
    }

    fn concat(&mut self, parts: &'t [Expr], scope: usize) -> Outcome<Value> {
        let mut out = String::new();
        for part in parts {
            let value = self.evaluate(part, scope)?;
            let text = to_text(&value)?;
            self.make(text.len())?;
            if self.autoescape && !matches!(&value, Value::Text(text) if text.safe) {
                out.push_str(&escape_html(&text));
            } else {
                out.push_str(&text);
            }
        }
        Ok(if self.autoescape {
            Value::safe(out)
        } else {
            Value::text(out)
        })
    }

    fn compare(
        &mut self,
        first: &'t Expr,
        others: &'t [(Comparison, Expr)],
        scope: usize,
    ) -> Outcome<Value> {
        let mut left = self.evaluate(first, scope)?;
        for (comparison, right) in others {
            let right = self.evaluate(right, scope)?;
            if !operators::holds(*comparison, &left, &right)? {
                return Ok(Value::Bool(false));
            }
            left = right;
        }
        Ok(Value::Bool(true))
    }

    /// Evaluates the arguments of a call.
    pub(super) fn arguments(&mut self, arguments: &'t Arguments, scope: usize) -> Outcome<Given> {
        let mut positional = self.all(&arguments.positional, scope)?;
        let mut named: Vec<(Box<str>, Value)> = Vec::new();
        for (name, value) in &arguments.named {
            let value = self.evaluate(value, scope)?;
            if named.iter().any(|(known, _)| known == name) {
                return fail(format!("argument {name:?} is given twice"));
            }
            named.push((name.clone(), value));
        }
        if let Some(list) = &arguments.list {
            let list = self.evaluate(list, scope)?;
            positional.extend(list.iterate()?);
        }
        if let Some(dict) = &arguments.dict {
            let Value::Dict(dict) = self.evaluate(dict, scope)? else {
                return fail("what follows ** must be a dict");
            };
            for (key, value) in &dict.pairs {
                let Some(name) = key.as_text() else {
                    return fail("names of arguments must be texts");
                };
                if named.iter().any(|(known, _)| &**known == name) {
                    return fail(format!("argument {name:?} is given twice"));
                }
                named.push((name.into(), value.clone()));
            }
        }
        self.step(positional.len() + named.len())?;
        Ok((positional, named))
    }

    /// Applies the filters of a block to its text.
    pub(super) fn filter_block(
        &mut self,
        filters: &'t Expr,
        text: Value,
        scope: usize,
    ) -> Outcome<Value> {
        let Expr::Filter(of, name, arguments) = filters else {
            return fail("expected a filter");
        };
        let of = match of {
            Some(inner) => self.deeper(|run| run.filter_block(inner, text, scope))?,
            None => text,
        };
        let (positional, named) = self.arguments(arguments, scope)?;
        self.filter(name, of, positional, named)
    }
}
