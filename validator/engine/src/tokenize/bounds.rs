//! How much a tokenizer may make of a text: refused before it is made.
//!
//! The library holds some 20 bytes for each byte of a text it normalizes, and a hundred for each token;
//! a normalizer of three lines makes gigabytes of a word. A worker that runs out of memory ends, and
//! tells nobody whose fault it was. So what each part can make at most is known before it works: from
//! what it says of itself, and step by step from what the steps before have made.

use base64::Engine as _;
use model::{Fault, ModelFaultKind};
use serde::Deserialize;
use serde_json::Value;
use tokenizers::{
    AddedToken, ModelWrapper, NormalizedString, Normalizer as _, NormalizerWrapper,
    PreTokenizerWrapper, Tokenizer,
};

use super::refused;

/// What a template, a normalizer may add to a short text: prompts of the system have some kilobytes.
const HEADROOM: usize = 64 << 10;

/// What a template may make of what was said: it quotes it, sometimes escaped.
const RENDERED: usize = 4;

/// What a normalizer may make of a text: a space becomes three bytes, a byte at most two.
const NORMALIZED: usize = 8;

/// What one step of a normalizer may make of a text before others shorten it again.
const STEP: usize = 64;

/// Text of all added tokens together, once they are normalized.
const ADDED: usize = 64 << 20;

/// Steps of a normalizer, or of what cuts a text into words; known ones have ten at most.
const MAX_STEPS: usize = 64;

/// Each time after the first, all that is not ASCII doubles.
const MAX_BYTE_LEVELS: usize = 2;

/// Characters of a word that `WordPiece` may have to look up piece by piece, from each to each: the usual
/// number is 100.
const MAX_WORD: usize = 1000;

/// Bytes of the longest piece of a unigram model: each is tried at each place.
const MAX_PIECE: usize = 1024;

/// Most bytes of a text for a conversation of so many.
pub(super) fn check_rendered(text: &str, said: usize) -> Result<(), Fault> {
    let (bytes, most) = (text.len(), HEADROOM + RENDERED * said);
    if bytes <= most {
        return Ok(());
    }
    Err(Fault::model(
        ModelFaultKind::Template,
        format_args!("makes {bytes} bytes of {said}, {most} are allowed"),
    ))
}

/// Reads a `tokenizer.json`.
pub(super) fn parse(bytes: &[u8]) -> Result<Tokenizer, String> {
    /// What the library works with while it reads.
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct File {
        normalizer: Value,
        post_processor: Value,
        added_tokens: Vec<Added>,
    }
    #[derive(Deserialize)]
    struct Added {
        content: String,
    }
    let file: File = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
    check_maps(&file.normalizer)?;
    check_processor(&file.post_processor)?;
    let normalizer: Option<NormalizerWrapper> =
        serde_json::from_value(file.normalizer).map_err(|error| error.to_string())?;
    let growth = Growth::of(normalizer.as_ref())?;
    growth.admit_tokens(file.added_tokens.iter().map(|token| token.content.len()))?;
    let tokenizer = Tokenizer::from_bytes(bytes).map_err(|error| error.to_string())?;
    check_words(tokenizer.get_pre_tokenizer())?;
    check_model(tokenizer.get_model())?;
    Ok(tokenizer)
}

/// Adds tokens to a tokenizer, which normalizes them.
pub(super) fn add(tokenizer: &mut Tokenizer, tokens: Vec<AddedToken>) -> Result<(), Fault> {
    let growth = Growth::of(tokenizer.get_normalizer()).map_err(refused)?;
    let lengths = tokens.iter().map(|token| token.content.len());
    growth.admit_tokens(lengths).map_err(refused)?;
    tokenizer.add_tokens(tokens).map_err(refused)?;
    Ok(())
}

/// Refuses a map of SentencePiece whose trie is longer than the map: the library makes room for it before
/// it looks.
fn check_maps(normalizer: &Value) -> Result<(), String> {
    let map = &normalizer["precompiled_charsmap"];
    if let Some(bytes) = decoded(map)
        && let Some((length, rest)) = bytes.split_first_chunk()
        && u32::from_le_bytes(*length) as usize > rest.len()
    {
        return Err("precompiled_charsmap is shorter than it says".to_owned());
    }
    let below = normalizer["normalizers"].as_array();
    below.into_iter().flatten().try_for_each(check_maps)
}

/// Refuses a processor that repeats the text: once is what it is for, and each time takes all of it.
fn check_processor(processor: &Value) -> Result<(), String> {
    let single = &processor["single"];
    let written = single.to_string();
    // As a list of pieces, or as a text such as "[CLS] $A [SEP]".
    let texts = written.matches("\"Sequence\"").count() + written.matches('$').count();
    if texts > 1 {
        return Err("the post-processor repeats the text".to_owned());
    }
    let below = processor["processors"].as_array();
    let below: &[Value] = below.map_or(&[], Vec::as_slice);
    if below.len() > MAX_STEPS {
        return Err(format!(
            "the post-processor has more than {MAX_STEPS} steps"
        ));
    }
    below.iter().try_for_each(check_processor)
}

fn check_words(words: Option<&PreTokenizerWrapper>) -> Result<(), String> {
    let mut steps = Vec::new();
    let mut left: Vec<&PreTokenizerWrapper> = words.into_iter().collect();
    while let Some(step) = left.pop() {
        match step {
            PreTokenizerWrapper::Sequence(sequence) => left.extend(sequence.as_ref()),
            step => steps.push(step),
        }
        if steps.len() + left.len() > MAX_STEPS {
            return Err(format!("the pre-tokenizer has more than {MAX_STEPS} steps"));
        }
    }
    let levels = steps
        .iter()
        .filter(|step| matches!(step, PreTokenizerWrapper::ByteLevel(_)));
    if levels.count() > MAX_BYTE_LEVELS {
        return Err("the pre-tokenizer makes bytes of bytes again and again".to_owned());
    }
    Ok(())
}

fn check_model(model: &ModelWrapper) -> Result<(), String> {
    match model {
        ModelWrapper::WordPiece(pieces) if pieces.max_input_chars_per_word > MAX_WORD => {
            let most = pieces.max_input_chars_per_word;
            Err(format!(
                "WordPiece with words of {most} characters, {MAX_WORD} are allowed"
            ))
        }
        ModelWrapper::Unigram(unigram) => {
            let longest = unigram.iter().map(|(piece, _)| piece.len()).max();
            let longest = longest.unwrap_or_default();
            if longest > MAX_PIECE {
                return Err(format!(
                    "a piece of {longest} bytes, {MAX_PIECE} are allowed"
                ));
            }
            Ok(())
        }
        _ => Ok(()),
    }
}

/// What a step makes of so many bytes at most: so many times as many, and some more.
#[derive(Debug, Clone, Copy)]
struct Rate {
    times: usize,
    over: usize,
    more: usize,
}

impl Rate {
    const fn times(times: usize) -> Self {
        Self {
            times,
            over: 1,
            more: 0,
        }
    }

    fn of(step: &NormalizerWrapper) -> Self {
        match step {
            // "ﷺ" has three bytes, its letters have 33.
            NormalizerWrapper::NFKC(_) | NormalizerWrapper::NFKD(_) => Self::times(11),
            NormalizerWrapper::NFC(_)
            | NormalizerWrapper::NFD(_)
            | NormalizerWrapper::Lowercase(_) => Self::times(3),
            // Spaces around Chinese characters, accents taken apart, lower case.
            NormalizerWrapper::BertNormalizer(_) => Self::times(16),
            NormalizerWrapper::ByteLevel(_) => Self::times(2),
            NormalizerWrapper::Prepend(prepend) => Self {
                times: 1,
                over: 1,
                more: prepend.prepend.len(),
            },
            NormalizerWrapper::Replace(replace) => {
                let written = serde_json::to_value(replace).unwrap_or_default();
                let new = replace.content.len();
                match written["pattern"]["String"].as_str() {
                    Some(old) if !old.is_empty() => Self {
                        times: new.max(old.len()),
                        over: old.len(),
                        more: 0,
                    },
                    // It may match nothing, between any two characters.
                    _ => Self {
                        times: 1 + new,
                        over: 1,
                        more: new,
                    },
                }
            }
            NormalizerWrapper::Precompiled(map) => {
                let written = serde_json::to_value(map).unwrap_or_default();
                Self::times(longest_replacement(&written["precompiled_charsmap"]).max(1))
            }
            NormalizerWrapper::StripNormalizer(_)
            | NormalizerWrapper::StripAccents(_)
            | NormalizerWrapper::Nmt(_)
            | NormalizerWrapper::Sequence(_) => Self::times(1),
        }
    }

    const fn most(self, bytes: usize) -> usize {
        let times = bytes.saturating_mul(self.times) / self.over;
        times.saturating_add(self.more)
    }
}

/// Returns the length of the longest text that SentencePiece's map puts in place of a character: after
/// a trie, whose length comes first, they end with a zero each.
fn longest_replacement(map: &Value) -> usize {
    let bytes = decoded(map).unwrap_or_default();
    let texts = bytes.split_first_chunk().and_then(|(length, rest)| {
        let length = usize::try_from(u32::from_le_bytes(*length)).ok()?;
        rest.get(length..)
    });
    let texts = texts.unwrap_or(&bytes).split(|byte| *byte == 0);
    texts.map(<[u8]>::len).max().unwrap_or_default()
}

fn decoded(map: &Value) -> Option<Vec<u8>> {
    let engine = &base64::engine::general_purpose::STANDARD;
    engine.decode(map.as_str()?).ok()
}

/// A normalizer step by step.
#[derive(Debug)]
pub(super) struct Growth {
    steps: Vec<(NormalizerWrapper, Rate)>,
}

impl Growth {
    pub(super) fn of(normalizer: Option<&NormalizerWrapper>) -> Result<Self, String> {
        let mut steps = Vec::new();
        let mut left: Vec<&NormalizerWrapper> = normalizer.into_iter().collect();
        while let Some(step) = left.pop() {
            match step {
                NormalizerWrapper::Sequence(sequence) => {
                    left.extend(sequence.as_ref().iter().rev());
                }
                step => steps.push((step.clone(), Rate::of(step))),
            }
            if steps.len() + left.len() > MAX_STEPS {
                return Err(format!("the normalizer has more than {MAX_STEPS} steps"));
            }
        }
        Ok(Self { steps })
    }

    fn admit_tokens(&self, lengths: impl Iterator<Item = usize>) -> Result<(), String> {
        let mut sum = 0_usize;
        for length in lengths {
            let mut most = length;
            for (_, rate) in &self.steps {
                most = rate.most(most);
            }
            sum = sum.saturating_add(most.max(length));
        }
        if sum <= ADDED {
            return Ok(());
        }
        let most = ADDED >> 20;
        Err(format!(
            "added tokens that become {sum} bytes by the normalizer, {most} MiB are allowed"
        ))
    }

    /// Refuses a text of which too much would be made.
    pub(super) fn admit(&self, text: &str) -> Result<(), Fault> {
        let most = HEADROOM + NORMALIZED * text.len();
        let mut worst = text.len();
        if self.steps.iter().all(|(_, rate)| {
            worst = rate.most(worst);
            worst <= most
        }) {
            return Ok(());
        }
        // What could be is more than is: step by step it shows.
        let peak = HEADROOM + STEP * text.len();
        let mut now = NormalizedString::from(text);
        for (step, rate) in &self.steps {
            let next = rate.most(now.get().len());
            if next > peak {
                return Err(too_much(text.len(), next, peak));
            }
            step.normalize(&mut now).map_err(refused)?;
        }
        let found = now.get().len();
        if found > most {
            return Err(too_much(text.len(), found, most));
        }
        Ok(())
    }
}

fn too_much(text: usize, found: usize, most: usize) -> Fault {
    refused(format_args!(
        "the normalizer makes {found} bytes of {text}, {most} are allowed"
    ))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn growth(normalizers: &Value) -> Growth {
        let json = json!({"type": "Sequence", "normalizers": normalizers}).to_string();
        let normalizer: NormalizerWrapper = serde_json::from_str(&json).unwrap();
        Growth::of(Some(&normalizer)).unwrap()
    }

    fn replace(pattern: &str, content: &str) -> Value {
        json!({"type": "Replace", "pattern": {"String": pattern}, "content": content})
    }

    #[test]
    fn what_tokenizers_do_in_earnest_is_admitted() {
        let texts = ["", "a b c", "\u{fdfa}", &"\u{e9} ".repeat(500_000)];
        for normalizers in [
            json!([{"type": "Prepend", "prepend": "▁"}, replace(" ", "▁")]),
            json!([{"type": "NFKC"}]),
            json!([replace("``", "\""), replace("''", "\""), {"type": "NFKD"}, {"type": "StripAccents"}, {"type": "Lowercase"}]),
            json!([{"type": "ByteLevel"}]),
        ] {
            let growth = growth(&normalizers);
            for text in texts {
                growth.admit(text).unwrap();
            }
        }
    }

    #[test]
    fn what_grows_without_end_is_refused_before_it_does() {
        let tenfold = replace("a", &"a".repeat(10));
        let growing = [
            json!(vec![tenfold.clone(); 8]),
            json!(vec![replace("", "xx"); 20]),
            json!([replace("e", &"e".repeat(100_000_000))]),
            json!([{"type": "Prepend", "prepend": "x".repeat(20_000_000)}]),
            json!(vec![json!({"type": "ByteLevel"}); 40]),
        ];
        for normalizers in growing {
            let growth = growth(&normalizers);
            let text = "the apple that \u{e9}e eats".repeat(100);
            growth.admit(&text).unwrap_err();
        }
        // What has nothing to grow on doesn't.
        growth(&json!(vec![tenfold; 8]))
            .admit("no such letter here?")
            .unwrap();
        growth(&json!([replace("a", "aa")])).admit("no").unwrap();
    }

    #[test]
    fn a_processor_has_the_text_once() {
        let text = json!({"Sequence": {"id": "A", "type_id": 0}});
        let begin = json!({"SpecialToken": {"id": "<s>", "type_id": 0}});
        for (single, taken) in [
            (json!([begin, text]), true),
            (json!("<s> $A </s>"), true),
            (json!([text, text]), false),
            (json!("$A $A"), false),
        ] {
            let processor =
                json!({"processors": [{"type": "TemplateProcessing", "single": single}]});
            assert_eq!(check_processor(&processor).is_ok(), taken, "{processor}");
        }
    }

    #[test]
    fn the_replacements_of_sentencepiece_are_measured() {
        let map = |texts: &str| {
            let bytes = [&8_u32.to_le_bytes()[..], &[1; 8], texts.as_bytes()].concat();
            json!(base64::engine::general_purpose::STANDARD.encode(bytes))
        };
        assert_eq!(longest_replacement(&map("a\0bcd\0ef\0")), 3);
        assert_eq!(longest_replacement(&map(&"x".repeat(1000))), 1000);
        assert_eq!(longest_replacement(&json!("")), 0);
        let honest = json!({"normalizers": [{"precompiled_charsmap": map("a\0")}]});
        check_maps(&honest).unwrap();
        let short = json!({"normalizers": [{"precompiled_charsmap": "AAAA////"}]});
        check_maps(&short).unwrap_err();
    }
}
