//! Special and added tokens: those a configuration adds to the vocabulary, or changes in it.

use std::collections::{BTreeMap, BTreeSet};

use model::Fault;
use serde_json::{Map, Value};
use tokenizers::{AddedToken, Tokenizer};

use super::{bounds, directory::Directory, refused};
use crate::template::Variable;

/// The names of special tokens, in the order in which they are added.
pub(super) const NAMES: [&str; 7] = [
    "bos_token",
    "eos_token",
    "unk_token",
    "sep_token",
    "pad_token",
    "cls_token",
    "mask_token",
];

const ADDITIONAL: &str = "additional_special_tokens";

/// A token of the configuration: a bare text, or a text with flags.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Token {
    pub(super) content: String,
    /// `None` for a bare text, which changes nothing if the vocabulary has it as an added token.
    flags: Option<Flags>,
}

#[derive(Debug, Clone, PartialEq)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "the flags of a token, as its file has them"
)]
struct Flags {
    single_word: bool,
    lstrip: bool,
    rstrip: bool,
    normalized: Option<bool>,
    special: bool,
}

/// The special tokens of a directory.
#[derive(Debug, Default)]
pub(super) struct SpecialTokens {
    named: BTreeMap<&'static str, Token>,
    additional: Vec<Token>,
    added: BTreeMap<i64, Token>,
}

impl SpecialTokens {
    /// Collects them from the class's defaults and the files, in the order of precedence of
    /// transformers.
    pub(super) fn of(directory: &Directory<'_>) -> Result<Self, Fault> {
        let mut config = match &directory.config {
            Value::Object(fields) => fields.clone(),
            Value::Null => Map::new(),
            _ => return Err(refused("tokenizer_config.json is not an object")),
        };
        let mut special = Self::default();
        match config.remove("added_tokens_decoder") {
            Some(Value::Object(tokens)) => {
                for (index, token) in tokens {
                    let index = index.trim().parse().map_err(refused)?;
                    special.added.insert(index, Token::with_flags(&token)?);
                }
            }
            Some(_) => return Err(refused("added_tokens_decoder is not an object")),
            None => special.read_older_files(directory, &mut config)?,
        }
        for name in NAMES {
            let token = match config.get(name) {
                None => default_token(directory.class.name(), name).map(Token::bare),
                Some(Value::Null) => None,
                Some(value) => Some(Token::parse(name, value)?),
            };
            if let Some(token) = token {
                // Of a token that is there twice, the last counts.
                let mut added = special.added.values();
                let known = added.rfind(|known| known.content == token.content);
                special.named.insert(name, known.cloned().unwrap_or(token));
            }
        }
        special.additional = match config.get(ADDITIONAL) {
            None | Some(Value::Null) => Vec::new(),
            Some(Value::Array(tokens)) => {
                let parse = |token| Token::parse(ADDITIONAL, token);
                tokens.iter().map(parse).collect::<Result<_, _>>()?
            }
            Some(_) => return Err(refused(format_args!("{ADDITIONAL} is not a list"))),
        };
        if directory.class.name() == "CodeLlamaTokenizerFast" {
            let infilling = ["▁<PRE>", "▁<MID>", "▁<SUF>", "▁<EOT>"];
            special.additional.extend(infilling.map(Token::bare));
        }
        Ok(special)
    }

    /// Directories written before `added_tokens_decoder` spread the same over more files.
    fn read_older_files(
        &mut self,
        directory: &Directory<'_>,
        config: &mut Map<String, Value>,
    ) -> Result<(), Fault> {
        if let Some(map) = directory.json("special_tokens_map.json")? {
            let Value::Object(map) = map else {
                return Err(refused("special_tokens_map.json is not an object"));
            };
            for (name, mut value) in map {
                match &mut value {
                    Value::Object(_) => mark_special(&mut value),
                    Value::Array(tokens) => {
                        tokens
                            .iter_mut()
                            .filter(|token| token.is_object())
                            .for_each(mark_special);
                    }
                    _ => {}
                }
                config.insert(name, value);
            }
        }
        let Some(tokens) = directory.json("added_tokens.json")? else {
            return Ok(());
        };
        let Value::Object(tokens) = tokens else {
            return Err(refused("added_tokens.json is not an object"));
        };
        let names: BTreeSet<&str> = NAMES
            .iter()
            .filter_map(|name| config.get(*name))
            .chain(
                config
                    .get(ADDITIONAL)
                    .and_then(Value::as_array)
                    .into_iter()
                    .flatten(),
            )
            .filter_map(|token| token.as_str().or_else(|| token["content"].as_str()))
            .collect();
        for (content, index) in tokens {
            let index = index
                .as_i64()
                .ok_or_else(|| refused("added_tokens.json: bad index"))?;
            let special = names.contains(content.as_str());
            self.added.insert(index, Token::plain(content, special));
        }
        Ok(())
    }

    /// Refuses what the class's constructor refuses.
    pub(super) fn check(&self, directory: &Directory<'_>) -> Result<(), Fault> {
        let adds_by_default = match directory.class.name() {
            "LlamaTokenizerFast"
            | "CodeLlamaTokenizerFast"
            | "GemmaTokenizerFast"
            | "CohereTokenizerFast" => true,
            "GPTNeoXTokenizerFast" => false,
            _ => return Ok(()),
        };
        for (name, flag, default) in [
            ("bos_token", "add_bos_token", adds_by_default),
            ("eos_token", "add_eos_token", false),
        ] {
            let adds = directory
                .config
                .get(flag)
                .map_or(default, |value| value == true);
            if adds && !self.named.contains_key(name) {
                return Err(refused(format_args!(
                    "{flag} is set, but there is no {name}"
                )));
            }
        }
        Ok(())
    }

    /// Adds the tokens to a vocabulary, those of the configuration by their index, then the
    /// special ones that are still missing.
    pub(super) fn add_to(
        &self,
        tokenizer: &mut Tokenizer,
        directory: &Directory<'_>,
    ) -> Result<(), Fault> {
        let mut known: BTreeSet<String> = tokenizer
            .get_added_tokens_decoder()
            .into_values()
            .map(|token| token.content)
            .collect();
        if !directory.config["added_tokens_decoder"].is_object() {
            // The older files give way to what tokenizer.json says of the same token.
            let adopted = |token: &Token| known.contains(&token.content);
            return self
                .add_all(
                    tokenizer,
                    self.added.values().filter(|token| !adopted(token)),
                )
                .and_then(|()| self.add_missing(tokenizer, &mut known));
        }
        self.add_all(tokenizer, self.added.values())?;
        self.add_missing(tokenizer, &mut known)
    }

    fn add_missing(
        &self,
        tokenizer: &mut Tokenizer,
        known: &mut BTreeSet<String>,
    ) -> Result<(), Fault> {
        known.extend(self.added.values().map(|token| token.content.clone()));
        // Of a token with several names the first counts.
        let mut seen = BTreeSet::new();
        let distinct = self.all().filter(|token| seen.insert(&token.content));
        let missing = distinct.filter(|token| !token.is_bare() || !known.contains(&token.content));
        self.add_all(tokenizer, missing)
    }

    fn add_all<'a>(
        &self,
        tokenizer: &mut Tokenizer,
        tokens: impl Iterator<Item = &'a Token>,
    ) -> Result<(), Fault> {
        let named: BTreeSet<&str> = self.all().map(|token| token.content.as_str()).collect();
        let added = tokens.map(|token| {
            let flagged = token.flags.as_ref().is_some_and(|flags| flags.special);
            token.added(flagged || named.contains(token.content.as_str()))
        });
        // All at once: each call makes the library's search trees anew. Special tokens know it.
        bounds::add(tokenizer, added.collect())
    }

    fn all(&self) -> impl Iterator<Item = &Token> {
        NAMES
            .iter()
            .filter_map(|name| self.named.get(name))
            .chain(&self.additional)
    }

    /// Returns the text of the token that ends a text.
    pub(super) fn end_of_text(&self) -> Option<&str> {
        self.named
            .get("eos_token")
            .map(|token| token.content.as_str())
    }

    /// Returns what templates may use by name.
    pub(super) fn variables(&self) -> BTreeMap<String, Variable> {
        let named = self
            .named
            .iter()
            .filter(|(_, token)| !token.content.is_empty());
        let mut variables: BTreeMap<_, _> = named
            .map(|(name, token)| ((*name).to_owned(), Variable::Text(token.content.clone())))
            .collect();
        if !self.additional.is_empty() {
            let texts = self.additional.iter().map(|token| token.content.clone());
            variables.insert(ADDITIONAL.to_owned(), Variable::Texts(texts.collect()));
        }
        variables
    }
}

impl Token {
    pub(super) const fn is_bare(&self) -> bool {
        self.flags.is_none()
    }

    /// Whether its own flags make it special.
    pub(super) fn is_special(&self) -> bool {
        self.flags.as_ref().is_some_and(|flags| flags.special)
    }

    /// A token of `added_tokens.json`, which knows no flags.
    pub(super) const fn plain(content: String, special: bool) -> Self {
        Self {
            content,
            flags: Some(Flags {
                single_word: false,
                lstrip: false,
                rstrip: false,
                normalized: Some(!special),
                special,
            }),
        }
    }

    pub(super) fn bare(content: &str) -> Self {
        Self {
            content: content.to_owned(),
            flags: None,
        }
    }

    pub(super) fn parse(name: &str, value: &Value) -> Result<Self, Fault> {
        match value {
            Value::String(content) => Ok(Self::bare(content)),
            Value::Object(fields) if fields.get("__type").is_some_and(|is| is == "AddedToken") => {
                Self::with_flags(value)
            }
            _ => Err(refused(format_args!(
                "{name} is neither a text nor a token"
            ))),
        }
    }

    pub(super) fn with_flags(value: &Value) -> Result<Self, Fault> {
        let Some(content) = value["content"].as_str() else {
            return Err(refused("an added token has no content"));
        };
        let flag = |name: &str| value[name].as_bool();
        let flags = Flags {
            single_word: flag("single_word").unwrap_or(false),
            lstrip: flag("lstrip").unwrap_or(false),
            rstrip: flag("rstrip").unwrap_or(false),
            normalized: flag("normalized"),
            special: flag("special").unwrap_or(false),
        };
        Ok(Self {
            content: content.to_owned(),
            flags: Some(flags),
        })
    }

    pub(super) fn added(&self, special: bool) -> AddedToken {
        let token = AddedToken::from(self.content.clone(), special);
        let Some(flags) = &self.flags else {
            return token;
        };
        token
            .single_word(flags.single_word)
            .lstrip(flags.lstrip)
            .rstrip(flags.rstrip)
            .normalized(flags.normalized.unwrap_or(!special))
    }
}

pub(super) fn mark_special(token: &mut Value) {
    token["__type"] = "AddedToken".into();
    token["special"] = true.into();
}

/// The special tokens a class has unless told otherwise.
fn default_token(class: &str, name: &str) -> Option<&'static str> {
    const END: &str = "<|endoftext|>";
    match (class, name) {
        (
            "LlamaTokenizerFast"
            | "CodeLlamaTokenizerFast"
            | "GemmaTokenizerFast"
            | "BloomTokenizerFast",
            "unk_token",
        ) => Some("<unk>"),
        ("LlamaTokenizerFast" | "CodeLlamaTokenizerFast" | "BloomTokenizerFast", "bos_token") => {
            Some("<s>")
        }
        ("LlamaTokenizerFast" | "CodeLlamaTokenizerFast" | "BloomTokenizerFast", "eos_token") => {
            Some("</s>")
        }
        ("GemmaTokenizerFast" | "BloomTokenizerFast", "pad_token") => Some("<pad>"),
        ("GemmaTokenizerFast", "bos_token") => Some("<bos>"),
        ("GemmaTokenizerFast", "eos_token") => Some("<eos>"),
        (
            "GPT2TokenizerFast" | "GPTNeoXTokenizerFast" | "CodeGenTokenizerFast",
            "bos_token" | "eos_token" | "unk_token",
        )
        | ("Qwen2TokenizerFast", "eos_token" | "unk_token" | "pad_token") => Some(END),
        ("CohereTokenizerFast", "bos_token") => Some("<BOS_TOKEN>"),
        ("CohereTokenizerFast", "eos_token") => Some("<|END_OF_TURN_TOKEN|>"),
        ("CohereTokenizerFast", "unk_token") => Some("<UNK>"),
        _ => None,
    }
}
