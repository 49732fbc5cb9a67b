//! The tokenizer proper, as transformers 4.40 makes it: from `tokenizer.json`, or converted from an older vocabulary.

use std::collections::BTreeMap;

use model::Fault;
use serde_json::Value;
use tokenizers::{
    ModelWrapper, PreTokenizerWrapper, SplitDelimiterBehavior, Tokenizer,
    models::bpe::{BPE, Vocab},
    normalizers::NFC,
    pre_tokenizers::{
        byte_level::ByteLevel,
        sequence::Sequence,
        split::{Split, SplitPattern},
    },
};

use super::{Vocabulary, bounds, directory::Directory, refused, sentencepiece};

/// How Qwen2 cuts a text into words.
pub(super) const QWEN2_WORDS: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// Builds the tokenizer of a directory.
pub(super) fn build(directory: &Directory<'_>) -> Result<Tokenizer, Fault> {
    let class = directory.class.name();
    let add_prefix_space = &directory.config["add_prefix_space"];
    // transformers 4.40 then converts the SentencePiece model and won't look at tokenizer.json.
    let from_slow = class == "LlamaTokenizerFast" && !add_prefix_space.is_null();
    let json = match directory.vocabulary(directory.class.tokenizer_json())? {
        Some(bytes) if !from_slow => Some(bytes),
        _ => None,
    };
    if json.as_deref().is_some_and(has_pairs) {
        let reason = "merges are written as pairs, which tokenizers 0.19 can't read";
        return Err(refused(format_args!(
            "{}: {reason}",
            directory.class.tokenizer_json()
        )));
    }
    let mut tokenizer = match (class, json) {
        (
            "PreTrainedTokenizerFast"
            | "LlamaTokenizerFast"
            | "CodeLlamaTokenizerFast"
            | "GemmaTokenizerFast"
            | "GPT2TokenizerFast"
            | "GPTNeoXTokenizerFast"
            | "Qwen2TokenizerFast"
            | "CodeGenTokenizerFast"
            | "BloomTokenizerFast"
            | "CohereTokenizerFast",
            Some(bytes),
        ) => bounds::parse(&bytes).map_err(|error| {
            refused(format_args!(
                "{}: {error}",
                directory.class.tokenizer_json()
            ))
        })?,
        ("LlamaTokenizerFast" | "CodeLlamaTokenizerFast" | "GemmaTokenizerFast", None) => {
            let Some(bytes) = directory.vocabulary("tokenizer.model")? else {
                return Err(refused(if from_slow {
                    "add_prefix_space is set, which takes a tokenizer.model, and there is none"
                } else {
                    "there is neither a tokenizer.json nor a tokenizer.model"
                }));
            };
            sentencepiece::convert(&bytes, class == "GemmaTokenizerFast")?
        }
        ("GPT2TokenizerFast" | "CodeGenTokenizerFast" | "Qwen2TokenizerFast", None) => {
            from_vocabulary(directory, class == "Qwen2TokenizerFast")?
        }
        (_, None) => return Err(refused("there is no tokenizer.json")),
        (_, Some(_)) => {
            return Err(refused(format_args!(
                "tokenizer class {class} is not supported"
            )));
        }
    };
    refuse_dropout(&tokenizer)?;
    set_prefix_space(&mut tokenizer, class, add_prefix_space)?;
    Ok(tokenizer)
}

/// Refuses a tokenizer that would give other tokens each time.
pub(super) fn refuse_dropout(tokenizer: &Tokenizer) -> Result<(), Fault> {
    if let ModelWrapper::BPE(bpe) = tokenizer.get_model()
        && bpe.dropout.is_some_and(|share| share > 0.0)
    {
        return Err(refused("dropout would give other tokens each time"));
    }
    Ok(())
}

/// Returns whether merges are written as pairs, which tokenizers 0.19 does not read.
fn has_pairs(json: &[u8]) -> bool {
    let mut rest = json;
    while let Some(at) = rest.windows(8).position(|part| part == b"\"merges\"") {
        rest = &rest[at + 8..];
        let mut words = rest.iter().filter(|byte| !byte.is_ascii_whitespace());
        if words.by_ref().take(3).eq(b":[[") {
            return true;
        }
    }
    false
}

/// Some classes overrule `tokenizer.json` on whether a text begins with a space.
fn set_prefix_space(tokenizer: &mut Tokenizer, class: &str, wanted: &Value) -> Result<(), Fault> {
    let wanted = wanted == true;
    match class {
        "GPT2TokenizerFast" | "GPTNeoXTokenizerFast" | "CodeGenTokenizerFast" => {
            match tokenizer.get_pre_tokenizer() {
                None => return Err(refused("tokenizer.json has no pre-tokenizer")),
                Some(PreTokenizerWrapper::ByteLevel(level)) if level.add_prefix_space != wanted => {
                    let level = level.add_prefix_space(wanted);
                    tokenizer.with_pre_tokenizer(Some(level));
                }
                Some(_) => {}
            }
            Ok(())
        }
        "BloomTokenizerFast" | "CohereTokenizerFast" if wanted => Err(refused(format_args!(
            "add_prefix_space of {class} is not supported"
        ))),
        _ => Ok(()),
    }
}

/// Reads `vocab.json` and `merges.txt`.
pub(super) fn vocabulary_files(directory: &Directory<'_>) -> Result<Vocabulary, Fault> {
    let (Some(vocabulary), Some(merges)) = (
        directory.vocabulary("vocab.json")?,
        directory.vocabulary("merges.txt")?,
    ) else {
        return Err(refused(
            "there is no tokenizer.json, nor vocab.json with merges.txt",
        ));
    };
    let vocabulary: BTreeMap<String, u32> = serde_json::from_slice(&vocabulary)
        .map_err(|error| refused(format_args!("vocab.json: {error}")))?;
    let merges = String::from_utf8(merges).map_err(refused)?;
    let merges = merges
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with("#version:"))
        .map(|line| match line.split_once(' ') {
            Some((left, right)) => Ok((left.to_owned(), right.to_owned())),
            None => Err(refused("merges.txt: a line is not a pair")),
        })
        .collect::<Result<Vec<_>, _>>()?;
    Ok((vocabulary.into_iter().collect(), merges))
}

/// Makes a byte-level BPE of `vocab.json` and `merges.txt`.
fn from_vocabulary(directory: &Directory<'_>, qwen2: bool) -> Result<Tokenizer, Fault> {
    let (vocabulary, merges) = vocabulary_files(directory)?;
    let bpe = BPE::builder().vocab_and_merges(vocabulary.into_iter().collect::<Vocab>(), merges);
    let mut tokenizer = Tokenizer::new(bpe.build().map_err(refused)?);
    let add_prefix_space = directory.config["add_prefix_space"] == true;
    let level = ByteLevel::default().add_prefix_space(add_prefix_space);
    if qwen2 {
        let words = SplitPattern::Regex(QWEN2_WORDS.to_owned());
        let words = Split::new(words, SplitDelimiterBehavior::Isolated, false).map_err(refused)?;
        let level = level.use_regex(false);
        tokenizer.with_normalizer(Some(NFC)).map_err(refused)?;
        tokenizer.with_pre_tokenizer(Some(Sequence::new(vec![words.into(), level.into()])));
    } else {
        tokenizer.with_pre_tokenizer(Some(level));
    }
    tokenizer.with_decoder(Some(ByteLevel::default()));
    Ok(tokenizer)
}
