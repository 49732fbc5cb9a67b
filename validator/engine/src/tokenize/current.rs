//! Tokenizers as transformers 5 makes them: by `tokenizer.json`, or, for a few classes, built anew
//! from its vocabulary, whatever the file says of the rest (`TokenizersBackend`).

mod specials;

use std::collections::BTreeMap;

use model::Fault;
use serde::Deserialize;
use serde_json::{Map, Value};
use tokenizers::{
    SplitDelimiterBehavior as Behavior, Tokenizer,
    decoders::{byte_fallback::ByteFallback, fuse::Fuse, sequence::Sequence as Decoders},
    models::bpe::{BPE, Vocab},
    normalizers::{NFC, Replace},
    pre_tokenizers::{
        byte_level::ByteLevel,
        digits::Digits,
        metaspace::{Metaspace, PrependScheme},
        sequence::Sequence,
        split::{Split, SplitPattern},
    },
};

use self::specials::{Specials, is_truthy};
use super::{
    added::Token,
    backend::{QWEN2_WORDS, refuse_dropout, vocabulary_files},
    bounds,
    directory::Directory,
    refused, sentencepiece,
};
use crate::template::Variable;

/// How a space is written where words begin with one.
const SPACE: &str = "▁";

/// What matters of a `tokenizer.json` besides what the library makes of it.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct File {
    added_tokens: Vec<Map<String, Value>>,
    pre_tokenizer: Value,
    decoder: Value,
    truncation: Value,
    padding: Value,
    model: FileModel,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct FileModel {
    vocab: Value,
    merges: Value,
}

type Words = Vec<(String, u32)>;
type Merges = Vec<(String, String)>;

/// A tokenizer and the tokens it names.
pub(super) struct Current {
    pub(super) tokenizer: Tokenizer,
    named: Vec<(String, Token)>,
    /// Whether a sequence that is too long loses its beginning.
    pub(super) cut_left: bool,
}

impl Current {
    /// Returns the text of the token that ends a text.
    pub(super) fn end_of_text(&self) -> Option<&str> {
        let mut named = self.named.iter();
        let found = named.find(|(name, _)| name == "eos_token");
        found.map(|(_, token)| token.content.as_str())
    }

    /// Returns what templates may use by name.
    pub(super) fn variables(&self) -> BTreeMap<String, Variable> {
        let text =
            |(name, token): &(String, Token)| (name.clone(), Variable::Text(token.content.clone()));
        self.named.iter().map(text).collect()
    }
}

/// Builds the tokenizer of a directory.
pub(super) fn build(directory: &Directory<'_>) -> Result<Current, Fault> {
    let name = directory.class.tokenizer_json();
    let bytes = directory.vocabulary(name)?;
    let file: File = match &bytes {
        Some(bytes) => serde_json::from_slice(bytes)
            .map_err(|error| refused(format_args!("{name}: {error}")))?,
        None => File::default(),
    };
    let byte_level = is_byte_level(&file.pre_tokenizer) || is_byte_level(&file.decoder);
    let class = directory.class.name_for(byte_level);
    let mut tokenizer = match (class, bytes) {
        ("PreTrainedTokenizerFast" | "BloomTokenizerFast", Some(bytes)) => {
            bounds::parse(&bytes).map_err(|error| refused(format_args!("{name}: {error}")))?
        }
        (class, bytes) => {
            if let Some(bytes) = bytes {
                // Its other parts are not used, but must be there.
                bounds::parse(&bytes).map_err(|error| refused(format_args!("{name}: {error}")))?;
            }
            rebuilt(directory, class, &file)?
        }
    };
    refuse_dropout(&tokenizer)?;
    let specials = Specials::of(directory, class, &file)?;
    specials.add_to(&mut tokenizer, class)?;
    let cut_left = match directory.side("truncation_side")? {
        None => file.truncation["direction"] == "Left",
        Some(side) => side == "left",
    };
    Ok(Current {
        tokenizer,
        named: specials.named,
        cut_left,
    })
}

/// Returns whether a part of a `tokenizer.json` works on bytes.
fn is_byte_level(part: &Value) -> bool {
    part["type"] == "ByteLevel"
        || ["pretokenizers", "decoders"]
            .iter()
            .filter_map(|name| part[*name].as_array())
            .flatten()
            .any(is_byte_level)
}

/// Reads vocabulary and merges of a class that builds its tokenizer anew.
fn words(directory: &Directory<'_>, class: &str, file: &File) -> Result<(Words, Merges), Fault> {
    let malformed = || refused("tokenizer.json: the vocabulary is malformed");
    let number = |id: &Value| id.as_u64().and_then(|id| u32::try_from(id).ok());
    let words = match &file.model.vocab {
        Value::Object(words) => words
            .iter()
            .map(|(word, id)| Some((word.clone(), number(id)?)))
            .collect::<Option<Words>>()
            .ok_or_else(malformed)?,
        Value::Array(words) => words
            .iter()
            .zip(0..)
            .map(|(word, id)| {
                let word = word.as_str().or_else(|| word[0].as_str())?;
                Some((word.to_owned(), id))
            })
            .collect::<Option<Words>>()
            .ok_or_else(malformed)?,
        _ if class == "LlamaTokenizerFast" => {
            let Some(bytes) = directory.vocabulary("tokenizer.model")? else {
                return Err(refused(
                    "there is neither a tokenizer.json nor a tokenizer.model",
                ));
            };
            return sentencepiece::words(&bytes);
        }
        _ if matches!(class, "GPT2TokenizerFast" | "Qwen2TokenizerFast") => {
            return vocabulary_files(directory);
        }
        _ => return Err(refused("there is no tokenizer.json")),
    };
    let pair = |merge: &Value| match merge {
        Value::String(text) => {
            let (left, right) = text.split_once(' ')?;
            Some((left.to_owned(), right.to_owned()))
        }
        pair => match pair.as_array()?.as_slice() {
            [left, right] => Some((left.as_str()?.to_owned(), right.as_str()?.to_owned())),
            _ => None,
        },
    };
    let merges = match &file.model.merges {
        Value::Null => Vec::new(),
        merges => merges
            .as_array()
            .and_then(|merges| merges.iter().map(pair).collect())
            .ok_or_else(|| refused("tokenizer.json: the merges are malformed"))?,
    };
    Ok((words, merges))
}

/// Builds a tokenizer of vocabulary and merges, with everything else as the class has it.
fn rebuilt(directory: &Directory<'_>, class: &str, file: &File) -> Result<Tokenizer, Fault> {
    let metaspace = matches!(class, "LlamaTokenizerFast" | "CodeLlamaTokenizerFast");
    let gemma = class == "GemmaTokenizerFast";
    let supported = metaspace
        || gemma
        || matches!(
            class,
            "Qwen2TokenizerFast"
                | "GPT2TokenizerFast"
                | "GPTNeoXTokenizerFast"
                | "CohereTokenizerFast"
        );
    if !supported {
        return Err(refused(format_args!(
            "tokenizer class {class} is not supported"
        )));
    }
    let (words, merges) = words(directory, class, file)?;
    let mut bpe = BPE::builder()
        .vocab_and_merges(words.into_iter().collect::<Vocab>(), merges)
        .fuse_unk(metaspace || gemma)
        .byte_fallback(metaspace || gemma);
    if gemma || class == "CodeLlamaTokenizerFast" {
        bpe = bpe.unk_token(
            class_token(directory, "unk_token")
                .unwrap_or("<unk>")
                .to_owned(),
        );
    }
    let mut tokenizer = Tokenizer::new(bpe.build().map_err(refused)?);
    let space = &directory.config["add_prefix_space"];
    let level = || -> Result<ByteLevel, Fault> {
        let space = match class {
            "Qwen2TokenizerFast" if space.is_null() => false,
            _ => flag(directory, "add_prefix_space", false)?,
        };
        Ok(ByteLevel::default().add_prefix_space(space))
    };
    match class {
        "LlamaTokenizerFast" | "CodeLlamaTokenizerFast" => {
            let legacy = is_truthy(&directory.config["legacy"]);
            let first = class == "CodeLlamaTokenizerFast" || !legacy;
            let scheme = match (space.is_null() || is_truthy(space), first) {
                (false, _) => PrependScheme::Never,
                (true, true) => PrependScheme::First,
                (true, false) => PrependScheme::Always,
            };
            tokenizer.with_pre_tokenizer(Some(Metaspace::new('▁', scheme, false)));
        }
        "GemmaTokenizerFast" => {
            let spaces = SplitPattern::String(" ".to_owned());
            let split = Split::new(spaces, Behavior::MergedWithPrevious, false).map_err(refused)?;
            tokenizer.with_pre_tokenizer(Some(split));
            let spaces = Replace::new(" ", SPACE).map_err(refused)?;
            tokenizer.with_normalizer(Some(spaces)).map_err(refused)?;
        }
        "Qwen2TokenizerFast" => {
            let words = SplitPattern::Regex(QWEN2_WORDS.to_owned());
            let words = Split::new(words, Behavior::Isolated, false).map_err(refused)?;
            let level = level()?.use_regex(false);
            tokenizer.with_normalizer(Some(NFC)).map_err(refused)?;
            tokenizer.with_pre_tokenizer(Some(Sequence::new(vec![words.into(), level.into()])));
        }
        "CohereTokenizerFast" => {
            tokenizer.with_normalizer(Some(NFC)).map_err(refused)?;
            let parts = vec![Digits::new(true).into(), level()?.into()];
            tokenizer.with_pre_tokenizer(Some(Sequence::new(parts)));
        }
        _ => {
            if class == "GPTNeoXTokenizerFast" {
                tokenizer.with_normalizer(Some(NFC)).map_err(refused)?;
                flag(directory, "trim_offsets", true)?;
            }
            tokenizer.with_pre_tokenizer(Some(level()?));
        }
    }
    if metaspace || gemma {
        tokenizer.with_decoder(Some(Decoders::new(vec![
            Replace::new(SPACE, " ").map_err(refused)?.into(),
            ByteFallback::default().into(),
            Fuse::default().into(),
        ])));
    } else {
        tokenizer.with_decoder(Some(ByteLevel::default()));
    }
    Ok(tokenizer)
}

/// Reads a field that the library takes as a truth value of Python or not at all: null is none.
pub(super) fn flag(directory: &Directory<'_>, name: &str, default: bool) -> Result<bool, Fault> {
    match directory.config.get(name) {
        None => Ok(default),
        Some(Value::Bool(is)) => Ok(*is),
        Some(other) => Err(refused(format_args!(
            "tokenizer_config.json: {name} is {other}, expected true or false"
        ))),
    }
}

fn class_token<'a>(directory: &'a Directory<'_>, name: &str) -> Option<&'a str> {
    let token = &directory.config[name];
    token.as_str().or_else(|| token["content"].as_str())
}
