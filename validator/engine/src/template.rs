//! Chat templates, rendered as transformers does: Jinja with Python's string methods and limits
//! on what a hostile template can cost.

mod json;
mod python;

use std::{collections::BTreeMap, io, sync::Arc};

use minijinja::{
    Environment, Error, ErrorKind,
    value::{Enumerator, Object, Value},
};
use model::{Compatibility, Fault, Message, ModelFaultKind};

const MAX_SOURCE: usize = 1 << 20;

/// The most instructions for one conversation; a real template takes a few dozen for each turn. It
/// bounds how deeply values can be nested as well: dropping them takes stack for each level.
const FUEL: u64 = 200_000;

/// The longest text for one conversation, in bytes.
const MAX_OUTPUT: usize = 8 << 20;

/// The longest text of a list or dict, in bytes. One that holds another twice, which holds another
/// twice, and so on, is small in memory only.
const MAX_STRUCTURE: usize = 1 << 20;

const NAME: &str = "chat_template";

#[derive(Debug)]
pub struct Template {
    environment: Environment<'static>,
    variables: BTreeMap<&'static str, Value>,
}

impl Template {
    /// Compiles a template. `variables` are the special tokens it may use.
    pub fn compile(
        source: String,
        variables: BTreeMap<&'static str, Value>,
        compatibility: Compatibility,
    ) -> Result<Self, Fault> {
        let refused = |text: &str| Err(Fault::model(ModelFaultKind::Template, text));
        if source.len() > MAX_SOURCE {
            return refused("longer than 1 MiB");
        }
        if compatibility == Compatibility::V4_40 && has_loop_controls(&source) {
            return refused("`break` and `continue` are unknown to transformers 4.40");
        }
        let mut environment = Environment::new();
        environment.set_trim_blocks(true);
        environment.set_lstrip_blocks(true);
        environment.set_fuel(Some(FUEL));
        environment.set_unknown_method_callback(python::call_method);
        environment.set_formatter(|output, _, value| {
            output
                .write_str(&python::to_str(value)?)
                .map_err(Error::from)
        });
        environment.add_filter("trim", python::trim);
        environment.add_filter("indent", python::indent);
        environment.add_filter("int", python::int);
        environment.add_filter("wordcount", python::word_count);
        environment.add_filter("string", |value: &Value| {
            python::to_str(value).map(std::borrow::Cow::into_owned)
        });
        environment.add_function("raise_exception", raise_exception);
        match compatibility {
            Compatibility::V4_40 => {
                environment.add_filter("tojson", json::escaped);
            }
            Compatibility::Current => {
                environment.add_filter("tojson", json::plain);
                environment.add_function("strftime_now", strftime_now);
            }
        }
        environment
            .add_template_owned(NAME, source)
            .map_err(|error| Fault::model(ModelFaultKind::Template, explained(&error)))?;
        Ok(Self {
            environment,
            variables,
        })
    }

    /// Renders turns; with a generation prompt, the text ends where the response begins.
    pub fn render(
        &self,
        messages: &[Message],
        add_generation_prompt: bool,
    ) -> Result<String, Fault> {
        let turns = messages
            .iter()
            .map(|message| Value::from_object(Turn(message.clone())));
        let mut context = self.variables.clone();
        context.insert("messages", turns.collect());
        context.insert("add_generation_prompt", add_generation_prompt.into());
        let mut output = Limited(Vec::new());
        self.environment
            .get_template(NAME)
            .and_then(|template| template.render_captured_to(context, &mut output).map(drop))
            .map_err(|error| Fault::model(ModelFaultKind::Template, explained(&error)))?;
        String::from_utf8(output.0).map_err(|error| Fault::model(ModelFaultKind::Template, error))
    }
}

/// A turn as templates see it: a dict that keeps the order of its keys.
#[derive(Debug)]
struct Turn(Message);

impl Object for Turn {
    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        match key.as_str()? {
            "role" => Some(Value::from(self.0.role.as_str())),
            "content" => Some(Value::from(self.0.content.as_str())),
            _ => None,
        }
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        Enumerator::Str(&["role", "content"])
    }
}

/// A text that refuses to grow too long.
struct Limited(Vec<u8>);

impl io::Write for Limited {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.0.len() + bytes.len() > MAX_OUTPUT {
            return Err(io::Error::other("the text exceeds 8 MiB"));
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn raise_exception(message: &Value) -> Result<Value, Error> {
    Err(Error::new(
        ErrorKind::InvalidOperation,
        python::to_str(message)?.into_owned(),
    ))
}

fn strftime_now(format: &str) -> Result<String, Error> {
    use std::fmt::Write;
    let mut text = String::new();
    write!(text, "{}", shared::clock::now().strftime(format))
        .map_err(|_| Error::new(ErrorKind::InvalidOperation, "bad time format"))?;
    Ok(text)
}

/// Returns whether a template uses the loop controls, an extension that 4.40 does not switch on.
fn has_loop_controls(source: &str) -> bool {
    source.split("{%").skip(1).any(|block| {
        let word = block.trim_start_matches(['-', '+']).trim_start();
        ["break", "continue"].iter().any(|control| {
            word.strip_prefix(control).is_some_and(|rest| {
                rest.trim_start()
                    .trim_start_matches(['-', '+'])
                    .starts_with("%}")
            })
        })
    })
}

/// Returns what is wrong, with the line of the template.
fn explained(error: &Error) -> String {
    use std::error::Error as _;
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}
