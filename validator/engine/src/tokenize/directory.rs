//! The files of a tokenizer directory, read within limits.

use std::{io, path::Path};

use model::{
    Compatibility, Fault, Layout, MachineFaultKind, ModelFaultKind,
    layout::{CONFIG_FILE, ModelFiles},
    tokenizer_class::{MAX_VOCABULARY_BYTES, MORE_TEMPLATES, TokenizerClass},
};
use serde_json::Value;
use shared::file;
use tokenizers::{Tokenizer, TruncationDirection};

use super::refused;
use crate::folder::{Folder, fault_of_layout};

const MAX_CONFIG: u64 = 4 << 20;

/// Rendered where transformers 4.40 falls back on ChatML.
const CHATML: &str = "{% for message in messages %}<|im_start|>{{ message['role'] + '\\n' + \
    message['content'] }}<|im_end|>{{ '\\n' }}{% endfor %}{% if add_generation_prompt %}\
    {{ '<|im_start|>assistant\\n' }}{% endif %}";

/// Rendered where it just joins the turns.
const JOINED: &str =
    "{% for message in messages %}{{ message.content }}{{ eos_token }}{% endfor %}";

/// Rendered for the Llama family.
const LLAMA: &str = "{% if messages[0]['role'] == 'system' %}{% set turns = messages[1:] %}\
    {% set system = '<<SYS>>\\n' + messages[0]['content'] + '\\n<</SYS>>\\n\\n' %}{% else %}\
    {% set turns = messages %}{% set system = '' %}{% endif %}{% for turn in turns %}\
    {% if (turn['role'] == 'user') != (loop.index0 % 2 == 0) %}\
    {{ raise_exception('user and assistant must take turns') }}{% endif %}\
    {% set said = turn['content'] %}{% if loop.first %}{% set said = system + said %}{% endif %}\
    {% if turn['role'] == 'user' %}{{ bos_token + '[INST] ' + said.strip() + ' [/INST]' }}\
    {% elif turn['role'] == 'system' %}{{ '<<SYS>>\\n' + said.strip() + '\\n<</SYS>>\\n\\n' }}\
    {% elif turn['role'] == 'assistant' %}{{ ' ' + said.strip() + ' ' + eos_token }}{% endif %}\
    {% endfor %}";

/// A tokenizer directory.
pub(super) struct Directory<'a> {
    path: &'a Path,
    /// The class that is to read it.
    pub(super) class: TokenizerClass,
    /// `tokenizer_config.json`, or null.
    pub(super) config: Value,
    pub(super) compatibility: Compatibility,
}

impl<'a> Directory<'a> {
    /// Reads the configuration and finds the class.
    pub(super) fn open(path: &'a Path, compatibility: Compatibility) -> Result<Self, Fault> {
        let folder = Folder::open(path)?;
        let config = json(path, "tokenizer_config.json")?;
        let model_config = if folder.contains(CONFIG_FILE) {
            let name = Layout::config_of(&folder).map_err(fault_of_layout)?;
            json(path, &name)?.unwrap_or_default()
        } else {
            Value::Null
        };
        let class = TokenizerClass::resolve(config.as_ref(), &model_config, compatibility);
        let class = class.map_err(refused)?;
        Ok(Self {
            path,
            class,
            config: config.unwrap_or_default(),
            compatibility,
        })
    }

    /// Reads a vocabulary file, if it is there.
    pub(super) fn vocabulary(&self, name: &str) -> Result<Option<Vec<u8>>, Fault> {
        read(self.path, name, MAX_VOCABULARY_BYTES)
    }

    /// Reads a small JSON file, if it is there.
    pub(super) fn json(&self, name: &str) -> Result<Option<Value>, Fault> {
        json(self.path, name)
    }

    /// Returns the chat template, or the default one of the class.
    pub(super) fn chat_template(&self) -> Result<String, Fault> {
        if self.compatibility == Compatibility::Current
            && let Some(template) = self.template_file()?
        {
            return Ok(template);
        }
        match &self.config["chat_template"] {
            Value::Null => self.default_template(),
            Value::String(template) => Ok(template.clone()),
            Value::Array(named) => {
                let default = named.iter().rfind(|entry| entry["name"] == "default");
                let template = default.and_then(|entry| entry["template"].as_str());
                let template = template.ok_or_else(|| no_template("none is named \"default\""))?;
                Ok(template.to_owned())
            }
            _ => Err(no_template("neither a text nor a list of named texts")),
        }
    }

    /// Returns the template that files of their own hold: the default one of those in the folder
    /// of more templates, before the one beside them.
    fn template_file(&self) -> Result<Option<String>, Fault> {
        let folder = self.path.join(MORE_TEMPLATES);
        let name = format!("{MORE_TEMPLATES}/default.jinja");
        let text = |name: &str| -> Result<Option<String>, Fault> {
            let bytes = read(self.path, name, MAX_CONFIG)?;
            bytes
                .map(|bytes| String::from_utf8(bytes).map_err(no_template))
                .transpose()
        };
        if let Some(template) = text(&name)? {
            return Ok(Some(template));
        }
        let only = text("chat_template.jinja")?;
        let more = folder.read_dir().into_iter().flatten().flatten();
        let mut more = more.filter(|file| {
            Path::new(&file.file_name())
                .extension()
                .is_some_and(|extension| extension == "jinja")
        });
        match only {
            None if more.next().is_some() => Err(no_template("none is named \"default\"")),
            only => Ok(only),
        }
    }

    fn default_template(&self) -> Result<String, Fault> {
        if self.compatibility == Compatibility::Current {
            return Err(no_template("there is none"));
        }
        let template = match self.class.name() {
            "LlamaTokenizerFast" | "CodeLlamaTokenizerFast" => {
                if self.config["use_default_system_prompt"] == true {
                    return Err(no_template("Llama's default system prompt is not built in"));
                }
                LLAMA
            }
            "GPT2TokenizerFast" | "GPTNeoXTokenizerFast" | "BloomTokenizerFast" => JOINED,
            "CohereTokenizerFast" => return Err(no_template("Cohere's default is not built in")),
            _ => CHATML,
        };
        Ok(template.to_owned())
    }

    /// Returns whether too long a sequence loses its beginning.
    pub(super) fn cuts_left(&self, tokenizer: &Tokenizer) -> Result<bool, Fault> {
        Ok(match self.side("truncation_side")? {
            None => tokenizer
                .get_truncation()
                .is_some_and(|truncation| truncation.direction == TruncationDirection::Left),
            Some(side) => side == "left",
        })
    }

    /// Returns which side a field names, if it is there; another value than two is refused, null too.
    pub(super) fn side(&self, name: &str) -> Result<Option<&str>, Fault> {
        match self.config.get(name) {
            None => Ok(None),
            Some(Value::String(side)) if matches!(side.as_str(), "left" | "right") => {
                Ok(Some(side))
            }
            Some(other) => Err(refused(format_args!(
                "tokenizer_config.json: {name} is {other}, expected \"left\" or \"right\""
            ))),
        }
    }
}

fn no_template(error: impl std::fmt::Display) -> Fault {
    Fault::model(ModelFaultKind::Template, error)
}

fn json(directory: &Path, name: &str) -> Result<Option<Value>, Fault> {
    let Some(bytes) = read(directory, name, MAX_CONFIG)? else {
        return Ok(None);
    };
    let value = serde_json::from_slice(&bytes);
    value
        .map(Some)
        .map_err(|error| refused(format_args!("{name}: {error}")))
}

fn read(directory: &Path, name: &str, max: u64) -> Result<Option<Vec<u8>>, Fault> {
    let path = directory.join(name);
    // Opening a pipe would wait for ever.
    if path.exists() && !path.is_file() {
        return Err(refused(format_args!("{name} is not a plain file")));
    }
    file::read_limited(&path, max).map_err(|error| {
        if error.source.kind() == io::ErrorKind::FileTooLarge {
            refused(format_args!("{name} is larger than {} MiB", max >> 20))
        } else {
            Fault::machine(
                MachineFaultKind::Storage,
                format_args!("{error}: {}", error.source),
            )
        }
    })
}
