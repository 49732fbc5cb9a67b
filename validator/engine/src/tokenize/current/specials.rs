//! Special and added tokens, as transformers 5 collects them and adds them to a vocabulary.

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
use tokenizers::{AddedToken, Tokenizer};

use super::{
    super::{
        added::{NAMES, Token, mark_special},
        bounds,
        directory::Directory,
        refused,
    },
    File,
};

/// Tokens of Code Llama's own: their names and texts.
const INFILLING: [(&str, &str); 5] = [
    ("prefix_token", "▁<PRE>"),
    ("middle_token", "▁<MID>"),
    ("suffix_token", "▁<SUF>"),
    ("eot_token", "▁<EOT>"),
    ("fill_token", "<FILL_ME>"),
];

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
pub(super) struct Specials {
    /// By name, in order: the usual ones first.
    pub(super) named: Vec<(String, Token)>,
    extra: Vec<Token>,
    /// By their index, from all files.
    added: BTreeMap<i64, Token>,
}

impl Specials {
    pub(super) fn of(directory: &Directory<'_>, class: &str, file: &File) -> Result<Self, Fault> {
        let mut config = match &directory.config {
            Value::Object(fields) => fields.clone(),
            Value::Null => Map::new(),
            _ => return Err(refused("tokenizer_config.json is not an object")),
        };
        let mut extra = config.remove("extra_special_tokens");
        let additional = config.remove("additional_special_tokens");
        let says_nothing = |extra: &Option<Value>| !extra.as_ref().is_some_and(is_truthy);
        if says_nothing(&extra) {
            extra = additional.or(extra);
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
            if says_nothing(&extra) {
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

    pub(super) fn add_to(&self, tokenizer: &mut Tokenizer, class: &str) -> Result<(), Fault> {
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
        let there: BTreeSet<&str> = there.iter().map(|token| token.content.as_str()).collect();
        let added: BTreeSet<&str> = tokens.iter().map(|token| token.content.as_str()).collect();
        let named = || self.named.iter().map(|(_, token)| token);
        for token in named().chain(&self.extra) {
            let text = token.content.as_str();
            // One that is named twice is added twice where its flags differ, and the last counts.
            if !there.contains(text) && !added.contains(text) && !tokens.contains(&token) {
                tokens.push(token);
            }
        }
        let is_named = |token: &Token| named().any(|named| named.content == token.content);
        let added = tokens.into_iter().map(|token| {
            let special = token.is_bare() || token.is_special() || is_named(token);
            token.added(special)
        });
        bounds::add(tokenizer, added.collect())?;
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
        bounds::add(tokenizer, again)?;
        Ok(())
    }
}

/// `bool(value)`.
pub(super) fn is_truthy(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(is) => *is,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::Array(items) => !items.is_empty(),
        Value::Object(fields) => !fields.is_empty(),
        Value::String(text) => !text.is_empty(),
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
    let NameOrder(names) = serde_json::from_slice(&json)
        .map_err(|error| refused(format_args!("tokenizer_config.json: {error}")))?;
    Ok(names)
}

/// NameOrder of an object in their order, and those within `extra_special_tokens`.
struct NameOrder(Vec<String>);

impl<'de> Deserialize<'de> for NameOrder {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NameOrderVisitor)
    }
}

struct NameOrderVisitor;

impl<'de> Visitor<'de> for NameOrderVisitor {
    type Value = NameOrder;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<NameOrder, A::Error> {
        let (mut own, mut inner) = (Vec::new(), Vec::new());
        while let Some(name) = map.next_key::<String>()? {
            if name == "extra_special_tokens" {
                NameOrder(inner) = map.next_value()?;
            } else {
                map.next_value::<IgnoredAny>()?;
            }
            own.push(name);
        }
        own.extend(inner);
        Ok(NameOrder(own))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<NameOrder, A::Error> {
        while list.next_element::<IgnoredAny>()?.is_some() {}
        Ok(NameOrder(Vec::new()))
    }

    fn visit_unit<E>(self) -> Result<NameOrder, E> {
        Ok(NameOrder(Vec::new()))
    }

    fn visit_bool<E>(self, _: bool) -> Result<NameOrder, E> {
        Ok(NameOrder(Vec::new()))
    }

    fn visit_str<E>(self, _: &str) -> Result<NameOrder, E> {
        Ok(NameOrder(Vec::new()))
    }

    fn visit_i64<E>(self, _: i64) -> Result<NameOrder, E> {
        Ok(NameOrder(Vec::new()))
    }

    fn visit_u64<E>(self, _: u64) -> Result<NameOrder, E> {
        Ok(NameOrder(Vec::new()))
    }

    fn visit_f64<E>(self, _: f64) -> Result<NameOrder, E> {
        Ok(NameOrder(Vec::new()))
    }
}
