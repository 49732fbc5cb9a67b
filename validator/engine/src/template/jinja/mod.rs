//! Jinja as Python has it: the subset that chat templates use, with Python's numbers, texts and
//! errors, within limits of time, depth and size.
//!
//! A small interpreter of our own, because what templates print is what is tokenized: one digit or
//! quote that Python writes otherwise changes the loss. `ImmutableSandboxedEnvironment` with
//! `trim_blocks` and `lstrip_blocks` is what it follows; lists and dicts can't be changed there,
//! so values are shared freely here. What Python can write only as an address in memory, or draws
//! at random, is refused.

mod arguments;
mod ast;
mod attributes;
mod call;
mod checks;
mod error;
mod evaluate;
mod expression;
mod filters;
mod format;
mod json;
mod lexer;
mod methods;
mod names;
mod operators;
mod parser;
mod percent;
mod printable;
mod repr;
mod run;
mod search;
mod sequences;
mod signature;
mod text;
mod token;
mod value;
mod words;

use std::collections::BTreeMap;

use error::Outcome;
pub(super) use error::TemplateError;
use run::Run;
use value::Value;

/// Which release's environment a template meets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dialect {
    /// transformers 4.40: Jinja as it is.
    Plain,
    /// transformers 5: `break`, `continue`, `generation`, `strftime_now`, another `tojson`.
    Extended,
}

impl Dialect {
    const fn has_loop_controls(self) -> bool {
        matches!(self, Self::Extended)
    }

    const fn has_generation(self) -> bool {
        matches!(self, Self::Extended)
    }
}

/// What a template may use by name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Variable {
    None,
    Flag(bool),
    Text(String),
    Texts(Vec<String>),
    /// Dicts of texts, in order.
    Dicts(Vec<Vec<(String, String)>>),
}

impl Variable {
    fn value(&self) -> Outcome<Value> {
        let text = |text: &String| Value::text(text.as_str());
        match self {
            Self::None => Ok(Value::None),
            Self::Flag(on) => Ok(Value::Bool(*on)),
            Self::Text(content) => Ok(text(content)),
            Self::Texts(list) => Value::list(list.iter().map(text).collect()),
            Self::Dicts(dicts) => {
                let dict = |pairs: &Vec<(String, String)>| {
                    Value::dict(
                        pairs
                            .iter()
                            .map(|(key, value)| (text(key), text(value)))
                            .collect(),
                    )
                };
                Value::list(dicts.iter().map(dict).collect::<Outcome<_>>()?)
            }
        }
    }
}

/// A parsed template.
#[derive(Debug)]
pub(super) struct Jinja {
    body: ast::Body,
    dialect: Dialect,
}

impl Jinja {
    pub(super) fn parse(source: &str, dialect: Dialect) -> Result<Self, TemplateError> {
        let body = parser::parse(source, dialect)?;
        Ok(Self { body, dialect })
    }

    /// Renders the template with what it may use by name.
    pub(super) fn render(
        &self,
        variables: &BTreeMap<String, Variable>,
    ) -> Result<String, TemplateError> {
        let mut run = Run::new(self.dialect);
        for (name, variable) in variables {
            run.define(name, variable.value()?);
        }
        run.render(&self.body)
    }
}
