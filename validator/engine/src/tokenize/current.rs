//! Tokenizers as transformers 5 makes them: by `tokenizer.json`, or, for a few classes, built anew
//! from its vocabulary, whatever the file says of the rest (`TokenizersBackend`).

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use model::Fault;
use serde::{
    Deserialize, Deserializer,
    de::{IgnoredAny, MapAccess, SeqAccess, Visitor},
};
use serde_json::{Map, Value};
use tokenizers::{
    AddedToken, SplitDelimiterBehavior as Behavior, Tokenizer,
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

use super::{
    added::{NAMES, Token, mark_special},
    backend::{QWEN2_WORDS, refuse_dropout, vocabulary_files},
    directory::Directory,
    refused, sentencepiece,
};
use crate::template::Variable;

/// How a space is written where words begin with one.
const SPACE: &str = "▁";

/// Tokens of Code Llama's own: their names and texts.
const INFILLING: [(&str, &str); 5] = [
    ("prefix_token", "▁<PRE>"),
    ("middle_token", "▁<MID>"),
    ("suffix_token", "▁<SUF>"),
    ("eot_token", "▁<EOT>"),
    ("fill_token", "<FILL_ME>"),
];

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
            Tokenizer::from_bytes(bytes)
                .map_err(|error| refused(format_args!("{name}: {error}")))?
        }
        (class, bytes) => {
            if let Some(bytes) = bytes {
                // Its other parts are not used, but must be there.
                Tokenizer::from_bytes(bytes)
                    .map_err(|error| refused(format_args!("{name}: {error}")))?;
            }
            rebuilt(directory, class, &file)?
        }
    };
    refuse_dropout(&tokenizer)?;
    let specials = Specials::of(directory, class, &file)?;
    specials.add_to(&mut tokenizer, class)?;
    let cut_left = match &directory.config["truncation_side"] {
        Value::Null => file.truncation["direction"] == "Left",
        _ => directory.cuts_left(&tokenizer)?,
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
    let is_true = space == true;
    let level = ByteLevel::default().add_prefix_space(is_true);
    match class {
        "LlamaTokenizerFast" | "CodeLlamaTokenizerFast" => {
            let first = class == "CodeLlamaTokenizerFast" || directory.config["legacy"] != true;
            let scheme = match (space.is_null() || is_true, first) {
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
            let level = level.use_regex(false);
            tokenizer.with_normalizer(Some(NFC)).map_err(refused)?;
            tokenizer.with_pre_tokenizer(Some(Sequence::new(vec![words.into(), level.into()])));
        }
        "CohereTokenizerFast" => {
            tokenizer.with_normalizer(Some(NFC)).map_err(refused)?;
            let parts = vec![Digits::new(true).into(), level.into()];
            tokenizer.with_pre_tokenizer(Some(Sequence::new(parts)));
        }
        _ => {
            if class == "GPTNeoXTokenizerFast" {
                tokenizer.with_normalizer(Some(NFC)).map_err(refused)?;
            }
            tokenizer.with_pre_tokenizer(Some(level));
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

fn class_token<'a>(directory: &'a Directory<'_>, name: &str) -> Option<&'a str> {
    let token = &directory.config[name];
    token.as_str().or_else(|| token["content"].as_str())
}

/// The special tokens a class has unless told otherwise.
fn default_token(class: &str, name: &str) -> Option<&'static str> {
    const END: &str = "<|endoftext|>";
    match (class, name) {
        ("LlamaTokenizerFast" | "CodeLlamaTokenizerFast" | "GemmaTokenizerFast", "unk_token") => {
            Some("<unk>")
        }
        ("LlamaTokenizerFast" | "CodeLlamaTokenizerFast", "bos_token") => Some("<s>"),
        ("LlamaTokenizerFast" | "CodeLlamaTokenizerFast", "eos_token") => Some("</s>"),
        ("GemmaTokenizerFast", "bos_token") => Some("<bos>"),
        ("GemmaTokenizerFast", "eos_token") => Some("<eos>"),
        ("GemmaTokenizerFast", "pad_token") => Some("<pad>"),
        ("GemmaTokenizerFast", "mask_token") => Some("<mask>"),
        ("Qwen2TokenizerFast", "unk_token" | "eos_token" | "pad_token")
        | ("GPT2TokenizerFast" | "GPTNeoXTokenizerFast", "unk_token" | "bos_token" | "eos_token") => {
            Some(END)
        }
        ("GPTNeoXTokenizerFast", "pad_token") => Some("<|padding|>"),
        ("CohereTokenizerFast", "unk_token") => Some("<UNK>"),
        ("CohereTokenizerFast", "bos_token") => Some("<BOS_TOKEN>"),
        ("CohereTokenizerFast", "eos_token") => Some("<|END_OF_TURN_TOKEN|>"),
        ("CohereTokenizerFast", "pad_token") => Some("<PAD>"),
        ("CohereTokenizerFast", "cls_token") => Some("<CLS>"),
        ("CohereTokenizerFast", "sep_token") => Some("<SEP>"),
        ("CohereTokenizerFast", "mask_token") => Some("<MASK_TOKEN>"),
        _ => None,
    }
}

/// The tokens that are added to the vocabulary.
struct Specials {
    /// By name, in order: the usual ones first.
    named: Vec<(String, Token)>,
    extra: Vec<Token>,
    /// By their index, from all files.
    added: BTreeMap<i64, Token>,
}

impl Specials {
    fn of(directory: &Directory<'_>, class: &str, file: &File) -> Result<Self, Fault> {
        let mut config = match &directory.config {
            Value::Object(fields) => fields.clone(),
            Value::Null => Map::new(),
            _ => return Err(refused("tokenizer_config.json is not an object")),
        };
        let mut extra = config.remove("extra_special_tokens").filter(is_truthy);
        let additional = config.remove("additional_special_tokens");
        if extra.is_none() {
            extra = additional;
        }
        let added = added_tokens(directory, &mut config, &mut extra, file)?;
        let mut named = Vec::new();
        for name in NAMES {
            let token = match config.get(name) {
                None => default_token(class, name).map(Token::bare),
                Some(Value::Null) => None,
                Some(value) => {
                    let token = Token::parse(name, value)?;
                    let known = added.values().rfind(|known| known.content == token.content);
                    Some(known.cloned().unwrap_or(token))
                }
            };
            let padding = || file.padding["pad_token"].as_str().map(Token::bare);
            let token = match token {
                None if name == "pad_token" && !config.contains_key(name) => padding(),
                token => token,
            };
            named.extend(token.map(|token| (name.to_owned(), token)));
        }
        if class == "CodeLlamaTokenizerFast" {
            for (name, text) in INFILLING {
                named.push((name.to_owned(), Token::bare(text)));
            }
            if extra.is_none() {
                extra = Some(INFILLING.iter().map(|(_, text)| *text).collect());
            }
        }
        let mut own = |name: &str, value: &Value| -> Result<(), Fault> {
            let token = Token::parse(name, value)?;
            match named.iter_mut().find(|(known, _)| known == name) {
                Some((_, known)) => *known = token,
                None => named.push((name.to_owned(), token)),
            }
            Ok(())
        };
        for (name, value) in &config {
            let is_token = value.is_string() || value["__type"] == "AddedToken";
            if name.ends_with("_token") && !NAMES.contains(&name.as_str()) && is_token {
                own(name, value)?;
            }
        }
        let order = token_order(directory)?;
        let extra = match extra {
            None | Some(Value::Null) => Vec::new(),
            Some(Value::Object(tokens)) => {
                for (name, value) in &tokens {
                    own(name, value)?;
                }
                Vec::new()
            }
            Some(Value::Array(tokens)) => {
                let parse = |token| Token::parse("extra_special_tokens", token);
                tokens.iter().map(parse).collect::<Result<_, _>>()?
            }
            Some(_) => {
                return Err(refused(
                    "extra_special_tokens is neither a list nor an object",
                ));
            }
        };
        let place = |name: &String| {
            let usual = NAMES.iter().position(|known| known == name);
            let own = || NAMES.len() + order.iter().position(|own| own == name).unwrap_or(0);
            usual.unwrap_or_else(own)
        };
        named.sort_by_key(|(name, _)| place(name));
        Ok(Self {
            named,
            extra,
            added,
        })
    }

    fn add_to(&self, tokenizer: &mut Tokenizer, class: &str) -> Result<(), Fault> {
        let there: Vec<AddedToken> = tokenizer.get_added_tokens_decoder().into_values().collect();
        let same = |token: &Token| {
            let token = token.added(token.is_special());
            there.iter().any(|known| {
                known.content == token.content
                    && known.special == token.special
                    && known.normalized == token.normalized
                    && (known.lstrip, known.rstrip, known.single_word)
                        == (token.lstrip, token.rstrip, token.single_word)
            })
        };
        let mut tokens: Vec<&Token> = self.added.values().filter(|token| !same(token)).collect();
        let mut known: BTreeSet<&str> = there.iter().map(|token| token.content.as_str()).collect();
        known.extend(tokens.iter().map(|token| token.content.as_str()));
        let named = || self.named.iter().map(|(_, token)| token);
        for token in named().chain(&self.extra) {
            if known.insert(&token.content) {
                tokens.push(token);
            }
        }
        let is_named = |token: &Token| named().any(|named| named.content == token.content);
        let added = tokens.into_iter().map(|token| {
            let special = token.is_bare() || token.is_special() || is_named(token);
            token.added(special)
        });
        tokenizer.add_tokens(added).map_err(refused)?;
        let again: Vec<AddedToken> = match class {
            // Once more, all of them without flags.
            "Qwen2TokenizerFast" => named()
                .chain(&self.extra)
                .map(|token| AddedToken::from(token.content.clone(), true))
                .collect(),
            // Once more, with their flags.
            "CohereTokenizerFast" => named()
                .chain(&self.extra)
                .map(|token| token.added(true))
                .collect(),
            _ => Vec::new(),
        };
        tokenizer.add_tokens(again).map_err(refused)?;
        Ok(())
    }
}

fn is_truthy(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Array(items) => !items.is_empty(),
        Value::Object(fields) => !fields.is_empty(),
        Value::String(text) => !text.is_empty(),
        _ => true,
    }
}

/// Collects the added tokens by index: those of the configuration, else those of older files and of
/// `tokenizer.json`.
fn added_tokens(
    directory: &Directory<'_>,
    config: &mut Map<String, Value>,
    extra: &mut Option<Value>,
    file: &File,
) -> Result<BTreeMap<i64, Token>, Fault> {
    let mut added = BTreeMap::new();
    match config.remove("added_tokens_decoder") {
        Some(Value::Object(tokens)) => {
            for (index, token) in tokens {
                let index = index.trim().parse().map_err(refused)?;
                added.insert(index, Token::with_flags(&token)?);
            }
            return Ok(added);
        }
        Some(_) => return Err(refused("added_tokens_decoder is not an object")),
        None => {}
    }
    match directory.json("special_tokens_map.json")? {
        None => {}
        Some(Value::Object(map)) => {
            for (name, mut value) in map {
                if value.is_object() && name != "extra_special_tokens" {
                    mark_special(&mut value);
                }
                match name.as_str() {
                    "extra_special_tokens" => *extra = Some(value),
                    // Not renamed any more, and so without effect.
                    "additional_special_tokens" => {}
                    _ => {
                        config.insert(name, value);
                    }
                }
            }
        }
        Some(_) => return Err(refused("special_tokens_map.json is not an object")),
    }
    match directory.json("added_tokens.json")? {
        None => {}
        Some(Value::Object(tokens)) => {
            let text = |token: &Value| -> Option<String> {
                token
                    .as_str()
                    .or_else(|| token["content"].as_str())
                    .map(ToOwned::to_owned)
            };
            let extra = extra
                .as_ref()
                .and_then(Value::as_array)
                .into_iter()
                .flatten();
            let names = NAMES.iter().filter_map(|name| config.get(*name));
            let special: BTreeSet<String> = names.chain(extra).filter_map(text).collect();
            for (content, index) in tokens {
                let Some(index) = index.as_i64() else {
                    return Err(refused("added_tokens.json: bad index"));
                };
                let special = special.contains(&content);
                added.insert(index, Token::plain(content, special));
            }
        }
        Some(_) => return Err(refused("added_tokens.json is not an object")),
    }
    for token in &file.added_tokens {
        let Some(index) = token.get("id").and_then(Value::as_i64) else {
            return Err(refused("tokenizer.json: an added token has no id"));
        };
        added.insert(index, Token::with_flags(&Value::Object(token.clone()))?);
    }
    Ok(added)
}

/// Returns the names of tokens in the order of `tokenizer_config.json`, which ids may depend on.
fn token_order(directory: &Directory<'_>) -> Result<Vec<String>, Fault> {
    let Some(json) = directory.vocabulary("tokenizer_config.json")? else {
        return Ok(Vec::new());
    };
    let Names(names) = serde_json::from_slice(&json)
        .map_err(|error| refused(format_args!("tokenizer_config.json: {error}")))?;
    Ok(names)
}

/// Names of an object in their order, and those within `extra_special_tokens`.
struct Names(Vec<String>);

impl<'de> Deserialize<'de> for Names {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NamesVisitor)
    }
}

struct NamesVisitor;

impl<'de> Visitor<'de> for NamesVisitor {
    type Value = Names;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Names, A::Error> {
        let (mut own, mut inner) = (Vec::new(), Vec::new());
        while let Some(name) = map.next_key::<String>()? {
            if name == "extra_special_tokens" {
                Names(inner) = map.next_value()?;
            } else {
                map.next_value::<IgnoredAny>()?;
            }
            own.push(name);
        }
        own.extend(inner);
        Ok(Names(own))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Names, A::Error> {
        while list.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Names(Vec::new()))
    }

    fn visit_unit<E>(self) -> Result<Names, E> {
        Ok(Names(Vec::new()))
    }

    fn visit_bool<E>(self, _: bool) -> Result<Names, E> {
        Ok(Names(Vec::new()))
    }

    fn visit_str<E>(self, _: &str) -> Result<Names, E> {
        Ok(Names(Vec::new()))
    }

    fn visit_i64<E>(self, _: i64) -> Result<Names, E> {
        Ok(Names(Vec::new()))
    }

    fn visit_u64<E>(self, _: u64) -> Result<Names, E> {
        Ok(Names(Vec::new()))
    }

    fn visit_f64<E>(self, _: f64) -> Result<Names, E> {
        Ok(Names(Vec::new()))
    }
}
