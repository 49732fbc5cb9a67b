//! Chat templates, rendered as transformers does.

mod jinja;

use std::collections::BTreeMap;

use model::{Compatibility, Fault, Message, ModelFaultKind};

pub use self::jinja::Variable;
use self::jinja::{Dialect, Jinja, TemplateError};

const MAX_SOURCE: usize = 1 << 20;

#[derive(Debug)]
pub struct Template {
    jinja: Jinja,
    variables: BTreeMap<String, Variable>,
}

impl Template {
    /// Compiles a template. `variables` are the special tokens it may use.
    pub fn compile(
        source: &str,
        variables: BTreeMap<String, Variable>,
        compatibility: Compatibility,
    ) -> Result<Self, Fault> {
        if source.len() > MAX_SOURCE {
            return Err(Fault::model(ModelFaultKind::Template, "longer than 1 MiB"));
        }
        let dialect = match compatibility {
            Compatibility::V4_40 => Dialect::Plain,
            Compatibility::Current => Dialect::Extended,
        };
        let jinja = Jinja::parse(source, dialect).map_err(refused)?;
        let mut variables = variables;
        if compatibility == Compatibility::Current {
            variables.insert("tools".to_owned(), Variable::None);
            variables.insert("documents".to_owned(), Variable::None);
        }
        Ok(Self { jinja, variables })
    }

    /// Renders turns; with a generation prompt, the text ends where the response begins.
    pub fn render(
        &self,
        messages: &[Message],
        add_generation_prompt: bool,
    ) -> Result<String, Fault> {
        let turns = messages.iter().map(|message| {
            let field = |name: &str, value: &str| (name.to_owned(), value.to_owned());
            vec![
                field("role", &message.role),
                field("content", &message.content),
            ]
        });
        let mut variables = self.variables.clone();
        variables.insert("messages".to_owned(), Variable::Dicts(turns.collect()));
        let prompt = Variable::Flag(add_generation_prompt);
        variables.insert("add_generation_prompt".to_owned(), prompt);
        self.jinja.render(&variables).map_err(refused)
    }
}

/// Says what is wrong, with the line of the template.
fn refused(TemplateError { text, line }: TemplateError) -> Fault {
    match line {
        Some(line) => Fault::model(
            ModelFaultKind::Template,
            format_args!("line {line}: {text}"),
        ),
        None => Fault::model(ModelFaultKind::Template, text),
    }
}
