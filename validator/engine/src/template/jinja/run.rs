//! Carrying out statements.

use std::collections::BTreeMap;

use super::{
    Dialect,
    ast::{Body, Expr, For, Macro, Statement, StatementKind, Target},
    error::{Outcome, fail},
    repr::to_text,
    text::escape_html,
    value::{Callable, Value},
};

/// The most steps for one conversation; a real template takes a few dozen for each turn.
const STEPS: u64 = 400_000;

/// The longest text for one conversation, in bytes.
const MAX_OUTPUT: usize = 8 << 20;

/// The most bytes of values that are made for one conversation.
const MAX_BYTES: usize = 64 << 20;

/// Calls, loops and conditions within each other; Python's stack ends sooner for calls.
const MAX_DEPTH: usize = 1200;

/// Names and values, and the scope around them.
#[derive(Default)]
pub(super) struct Scope {
    names: BTreeMap<Box<str>, Value>,
    /// Undefined names are looked up here, in the end.
    parent: Option<usize>,
}

/// A loop that is under way.
pub(super) struct LoopState<'t> {
    pub(super) items: Vec<Value>,
    pub(super) index: usize,
    pub(super) depth: usize,
    /// What `changed` was asked with last.
    pub(super) last: Option<Vec<Value>>,
    /// The loop to begin again with other items, and the scope around it.
    pub(super) recursive: Option<(&'t For, usize)>,
}

pub(super) struct Cycle {
    pub(super) items: Vec<Value>,
    pub(super) at: usize,
}

/// How statements ended.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Flow {
    On,
    Break,
    Continue,
}

/// One rendering of a template.
pub(super) struct Run<'t> {
    pub(super) dialect: Dialect,
    steps: u64,
    bytes: usize,
    pub(super) depth: usize,
    scopes: Vec<Scope>,
    /// How many values that remember their scope were made: macros, and loops that can be called.
    captures: usize,
    pub(super) namespaces: Vec<BTreeMap<String, Value>>,
    pub(super) loops: Vec<LoopState<'t>>,
    pub(super) cycles: Vec<Cycle>,
    pub(super) joiners: Vec<(Value, bool)>,
    /// Macros that were defined so far.
    pub(super) macros: Vec<&'t Macro>,
    pub(super) autoescape: bool,
}

impl<'t> Run<'t> {
    pub(super) fn new(dialect: Dialect) -> Self {
        Self {
            dialect,
            steps: STEPS,
            bytes: MAX_BYTES,
            depth: 0,
            captures: 0,
            // What is given from outside, and what the template itself sets.
            scopes: vec![
                Scope::default(),
                Scope {
                    parent: Some(0),
                    ..Scope::default()
                },
            ],
            namespaces: Vec::new(),
            loops: Vec::new(),
            cycles: Vec::new(),
            joiners: Vec::new(),
            macros: Vec::new(),
            autoescape: false,
        }
    }

    /// Gives the template a value by name.
    pub(super) fn define(&mut self, name: &str, value: Value) {
        self.scopes[0].names.insert(name.into(), value);
    }

    pub(super) fn render(&mut self, body: &'t Body) -> Outcome<String> {
        let mut out = String::new();
        self.body(body, 1, &mut out)?;
        Ok(out)
    }

    /// Takes a step, or several.
    pub(super) fn step(&mut self, steps: usize) -> Outcome<()> {
        match self.steps.checked_sub(steps as u64) {
            Some(left) => {
                self.steps = left;
                Ok(())
            }
            None => fail("it takes too many steps"),
        }
    }

    /// Makes a value of so many bytes.
    pub(super) fn make(&mut self, bytes: usize) -> Outcome<()> {
        match self.bytes.checked_sub(bytes) {
            Some(left) => {
                self.bytes = left;
                Ok(())
            }
            None => fail("its values take too much memory"),
        }
    }

    pub(super) fn deeper<T>(&mut self, work: impl FnOnce(&mut Self) -> Outcome<T>) -> Outcome<T> {
        if self.depth >= MAX_DEPTH {
            return fail("it is nested too deeply");
        }
        self.depth += 1;
        let done = work(self);
        self.depth -= 1;
        done
    }

    pub(super) fn new_scope(&mut self, parent: usize) -> usize {
        self.scopes.push(Scope {
            parent: Some(parent),
            ..Scope::default()
        });
        self.scopes.len() - 1
    }

    /// Forgets a scope and all that were made after it, unless something made since remembers one: a
    /// loop would keep hundreds of bytes for each round.
    fn leave(&mut self, scope: usize, captures: usize) {
        if self.captures == captures {
            self.scopes.truncate(scope);
        }
    }

    fn new_macro(&mut self, part: &'t Macro, scope: usize) -> Value {
        self.captures += 1;
        self.macros.push(part);
        Value::Callable(Callable::Macro(self.macros.len() - 1, scope))
    }

    pub(super) fn look_up(&self, name: &str, scope: usize) -> Option<Value> {
        let mut scope = Some(scope);
        while let Some(number) = scope {
            let here = &self.scopes[number];
            if let Some(value) = here.names.get(name) {
                return Some(value.clone());
            }
            scope = here.parent;
        }
        None
    }

    pub(super) fn set(&mut self, scope: usize, name: &str, value: Value) {
        self.scopes[scope].names.insert(name.into(), value);
    }

    pub(super) fn assign(&mut self, target: &Target, value: Value, scope: usize) -> Outcome<()> {
        match target {
            Target::Name(name) => self.set(scope, name, value),
            Target::Attribute(name, attribute) => match self.look_up(name, scope) {
                Some(Value::Namespace(number)) => {
                    self.namespaces[number].insert(attribute.to_string(), value);
                }
                _ => return fail("only a namespace can be assigned an attribute"),
            },
            Target::Tuple(parts) => {
                let values = value.iterate()?;
                if values.len() != parts.len() {
                    return fail(format!(
                        "{} values can't be assigned to {} names",
                        values.len(),
                        parts.len()
                    ));
                }
                for (part, value) in parts.iter().zip(values) {
                    self.assign(part, value, scope)?;
                }
            }
        }
        Ok(())
    }

    pub(super) fn body(&mut self, body: &'t Body, scope: usize, out: &mut String) -> Outcome<Flow> {
        for statement in body {
            let flow = self
                .deeper(|run| run.statement(statement, scope, out))
                .map_err(|error| error.in_line(statement.line))?;
            if flow != Flow::On {
                return Ok(flow);
            }
        }
        Ok(Flow::On)
    }

    fn write(&mut self, text: &str, out: &mut String) -> Outcome<()> {
        if out.len() + text.len() > MAX_OUTPUT {
            return fail("the text exceeds 8 MiB");
        }
        self.make(text.len())?;
        out.push_str(text);
        Ok(())
    }

    /// Renders statements into a text of their own.
    pub(super) fn captured(&mut self, body: &'t Body, scope: usize) -> Outcome<(Value, Flow)> {
        let mut text = String::new();
        let flow = self.body(body, scope, &mut text)?;
        let text = if self.autoescape {
            Value::safe(text)
        } else {
            Value::text(text)
        };
        Ok((text, flow))
    }

    fn statement(
        &mut self,
        statement: &'t Statement,
        scope: usize,
        out: &mut String,
    ) -> Outcome<Flow> {
        self.step(1)?;
        match &statement.kind {
            StatementKind::Text(text) => self.write(text, out)?,
            StatementKind::Output(expression) => {
                let value = self.evaluate(expression, scope)?;
                self.print(&value, out)?;
            }
            StatementKind::If(branches, otherwise) => {
                for (condition, body) in branches {
                    if self.evaluate(condition, scope)?.is_true() {
                        return self.body(body, scope, out);
                    }
                }
                return self.body(otherwise, scope, out);
            }
            StatementKind::For(part) => self.for_loop(part, scope, out)?,
            StatementKind::Set(target, expression) => {
                let value = self.evaluate(expression, scope)?;
                self.assign(target, value, scope)?;
            }
            StatementKind::SetBlock(target, filters, body) => {
                let inner = self.new_scope(scope);
                let (text, flow) = self.captured(body, inner)?;
                let value = match filters {
                    Some(filters) => self.filter_block(filters, text, scope)?,
                    None => text,
                };
                self.assign(target, value, scope)?;
                return Ok(flow);
            }
            StatementKind::With(values, body) => {
                let inner = self.new_scope(scope);
                for (target, expression) in values {
                    let value = self.evaluate(expression, scope)?;
                    self.assign(target, value, inner)?;
                }
                return self.body(body, inner, out);
            }
            StatementKind::Macro(part) => {
                let value = self.new_macro(part, scope);
                self.set(scope, &part.name, value);
            }
            StatementKind::CallBlock(call, caller) => self.call_block(call, caller, scope, out)?,
            StatementKind::Filter(filters, body) => {
                let inner = self.new_scope(scope);
                let (text, flow) = self.captured(body, inner)?;
                let value = self.filter_block(filters, text, scope)?;
                self.print(&value, out)?;
                return Ok(flow);
            }
            StatementKind::Block(body) => {
                // A block sees what the template itself has set, not the loops around it.
                let inner = self.new_scope(1);
                return self.body(body, inner, out);
            }
            StatementKind::Autoescape(on, body) => {
                let on = self.evaluate(on, scope)?.is_true();
                let before = std::mem::replace(&mut self.autoescape, on);
                let inner = self.new_scope(scope);
                let done = self.body(body, inner, out);
                self.autoescape = before;
                return done;
            }
            StatementKind::Generation(body) => {
                let inner = self.new_scope(scope);
                self.body(body, inner, out)?;
            }
            StatementKind::Break => return Ok(Flow::Break),
            StatementKind::Continue => return Ok(Flow::Continue),
        }
        Ok(Flow::On)
    }

    fn print(&mut self, value: &Value, out: &mut String) -> Outcome<()> {
        let text = to_text(value)?;
        if self.autoescape && !matches!(value, Value::Text(text) if text.safe) {
            let text = escape_html(&text);
            return self.write(&text, out);
        }
        self.write(&text, out)
    }

    fn call_block(
        &mut self,
        call: &'t Expr,
        caller: &'t Macro,
        scope: usize,
        out: &mut String,
    ) -> Outcome<()> {
        let Expr::Call(of, arguments) = call else {
            return fail("expected a call");
        };
        let of = self.evaluate(of, scope)?;
        let (positional, mut named) = self.arguments(arguments, scope)?;
        let caller = self.new_macro(caller, scope);
        named.push(("caller".into(), caller));
        let value = self.call(&of, positional, named)?;
        self.print(&value, out)
    }

    fn for_loop(&mut self, part: &'t For, scope: usize, out: &mut String) -> Outcome<()> {
        let list = self.evaluate(&part.list, scope)?;
        self.iterate(part, &list, scope, 0, out)
    }

    /// Runs a loop over a value; `depth` is the number of loops it is called from again.
    pub(super) fn iterate(
        &mut self,
        part: &'t For,
        list: &Value,
        scope: usize,
        depth: usize,
        out: &mut String,
    ) -> Outcome<()> {
        let mut items = list.iterate()?;
        self.step(items.len())?;
        self.make(items.len() * size_of::<Value>())?;
        if let Some(condition) = &part.condition {
            let mut kept = Vec::new();
            for item in items {
                let (inner, captures) = (self.new_scope(scope), self.captures);
                self.assign(&part.target, item.clone(), inner)?;
                if self.evaluate(condition, inner)?.is_true() {
                    kept.push(item);
                }
                self.leave(inner, captures);
            }
            items = kept;
        }
        if items.is_empty() {
            let inner = self.new_scope(scope);
            self.body(&part.otherwise, inner, out)?;
            return Ok(());
        }
        let number = self.loops.len();
        let count = items.len();
        self.captures += usize::from(part.recursive);
        self.loops.push(LoopState {
            items,
            index: 0,
            depth,
            last: None,
            recursive: part.recursive.then_some((part, scope)),
        });
        for index in 0..count {
            self.loops[number].index = index;
            let item = self.loops[number].items[index].clone();
            let (inner, captures) = (self.new_scope(scope), self.captures);
            self.set(inner, "loop", Value::Loop(number));
            self.assign(&part.target, item, inner)?;
            let flow = self.body(&part.body, inner, out)?;
            self.leave(inner, captures);
            if flow == Flow::Break {
                break;
            }
        }
        Ok(())
    }
}
