//! Tiny byte-level BPE tokenizers in the formats of the two families, trained on our samples.

use std::path::Path;

use serde_json::{Value, json};
use shared::file::{self, FileError};
use tokenizers::{
    AddedToken, SplitDelimiterBehavior, Tokenizer,
    models::{
        TrainerWrapper,
        bpe::{BPE, BpeTrainer},
    },
    pre_tokenizers::{
        PreTokenizerWrapper,
        byte_level::ByteLevel,
        sequence::Sequence,
        split::{Split, SplitPattern},
    },
};

use super::family::Family;
use crate::samples::Conversation;

/// Entries before the special tokens.
const SIZE: usize = 480;
/// Words with the space before them, single digits, punctuation, white space.
const WORDS: &str = r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+";

/// A tokenizer and what turns a conversation into its text.
#[derive(Debug)]
pub struct Vocabulary {
    family: Family,
    tokenizer: Tokenizer,
}

/// A conversation as a model sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Encoded {
    /// All tokens.
    pub ids: Vec<u32>,
    /// How many of them are the prompt.
    pub prompt_length: usize,
}

impl Vocabulary {
    /// Trains one on the text of these conversations.
    pub fn train(family: Family, conversations: &[Conversation]) -> tokenizers::Result<Self> {
        let split = Split::new(
            SplitPattern::Regex(WORDS.to_owned()),
            SplitDelimiterBehavior::Isolated,
            false,
        )?;
        let bytes = ByteLevel::new(false, true, false);
        let sequence = Sequence::new(vec![split.into(), bytes.into()]);
        let mut tokenizer = Tokenizer::new(BPE::default());
        tokenizer
            .with_pre_tokenizer(Some(PreTokenizerWrapper::from(sequence)))
            .with_post_processor(Some(ByteLevel::new(true, false, true)))
            .with_decoder(Some(ByteLevel::default()));
        let mut trainer = TrainerWrapper::from(
            BpeTrainer::builder()
                .vocab_size(SIZE)
                .show_progress(false)
                .initial_alphabet(ByteLevel::alphabet().into_iter().collect())
                .build(),
        );
        let texts = conversations
            .iter()
            .flat_map(|conversation| conversation.messages.iter().map(|message| &message.content));
        tokenizer.train(&mut trainer, texts)?;
        let special: Vec<AddedToken> = special(family)
            .iter()
            .map(|token| AddedToken::from(*token, true))
            .collect();
        tokenizer.add_special_tokens(special)?;
        Ok(Self { family, tokenizer })
    }

    /// Returns the number of entries, special tokens included.
    pub fn size(&self) -> usize {
        self.tokenizer.get_vocab_size(true)
    }

    /// Returns the ids of the tokens that begin and end a text.
    pub fn begin_and_end(&self) -> (u32, u32) {
        let (begin, end) = begin_and_end(self.family);
        let id = |token| self.tokenizer.token_to_id(token).unwrap_or(0);
        (id(begin), id(end))
    }

    /// Renders a conversation with the chat template and encodes it.
    pub fn encode(&self, conversation: &Conversation) -> tokenizers::Result<Encoded> {
        let (question, answer) = (conversation.prompt(), conversation.response());
        let (prompt, response) = match self.family {
            Family::Llama => {
                let turn = |role: &str| format!("<|start_header_id|>{role}<|end_header_id|>\n\n");
                let asked = format!("<|begin_of_text|>{}{question}<|eot_id|>", turn("user"));
                (
                    format!("{asked}{}", turn("assistant")),
                    format!("{answer}<|eot_id|>"),
                )
            }
            Family::StableLm => (
                format!("<|user|>\n{question}<|endoftext|>\n<|assistant|>\n"),
                format!("{answer}<|endoftext|>\n"),
            ),
        };
        let prompt_ids = self.tokenizer.encode(prompt.as_str(), false)?;
        let whole = self
            .tokenizer
            .encode(format!("{prompt}{response}"), false)?;
        Ok(Encoded {
            ids: whole.get_ids().to_vec(),
            prompt_length: prompt_ids.len(),
        })
    }

    /// Writes the tokenizer's files as `save_pretrained` does.
    pub fn write(&self, folder: &Path) -> Result<(), FileError> {
        let bytes = |value: Value| serde_json::to_vec_pretty(&value).unwrap_or_default();
        let json = self.tokenizer.to_string(true).unwrap_or_default();
        let mut json: Value = serde_json::from_str(&json).unwrap_or_default();
        join_merges(&mut json);
        file::write_atomic(&folder.join("tokenizer.json"), &bytes(json))?;
        let (begin, end) = begin_and_end(self.family);
        let added: serde_json::Map<String, Value> = special(self.family)
            .iter()
            .filter_map(|token| Some((self.tokenizer.token_to_id(token)?.to_string(), *token)))
            .map(|(id, token)| {
                let entry = json!({
                    "content": token, "lstrip": false, "normalized": false,
                    "rstrip": false, "single_word": false, "special": true,
                });
                (id, entry)
            })
            .collect();
        let config = json!({
            "added_tokens_decoder": added,
            "bos_token": begin,
            "chat_template": chat_template(self.family),
            "clean_up_tokenization_spaces": true,
            "eos_token": end,
            "model_max_length": 2048,
            "tokenizer_class": "PreTrainedTokenizerFast",
        });
        file::write_atomic(&folder.join("tokenizer_config.json"), &bytes(config))?;
        let map = json!({ "bos_token": begin, "eos_token": end });
        file::write_atomic(&folder.join("special_tokens_map.json"), &bytes(map))
    }
}

/// Writes merges as tokenizers 0.19 did, whose releases can't read the pairs of later ones.
fn join_merges(tokenizer: &mut Value) {
    let merges = tokenizer["model"]["merges"].as_array_mut();
    for merge in merges.into_iter().flatten() {
        if let (Some(left), Some(right)) = (merge[0].as_str(), merge[1].as_str()) {
            *merge = json!(format!("{left} {right}"));
        }
    }
}

fn special(family: Family) -> &'static [&'static str] {
    match family {
        Family::Llama => &[
            "<|begin_of_text|>",
            "<|end_of_text|>",
            "<|start_header_id|>",
            "<|end_header_id|>",
            "<|eot_id|>",
        ],
        Family::StableLm => &["<|endoftext|>"],
    }
}

fn begin_and_end(family: Family) -> (&'static str, &'static str) {
    match family {
        Family::Llama => ("<|begin_of_text|>", "<|end_of_text|>"),
        Family::StableLm => ("<|endoftext|>", "<|endoftext|>"),
    }
}

/// The chat template that [`Vocabulary::encode`] follows.
fn chat_template(family: Family) -> &'static str {
    match family {
        Family::Llama => {
            "{% for message in messages %}\
             {% if loop.first %}{{ bos_token }}{% endif %}\
             {{ '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n' \
             + message['content'] | trim + '<|eot_id|>' }}\
             {% endfor %}\
             {% if add_generation_prompt %}\
             {{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
        }
        Family::StableLm => {
            "{% for message in messages %}\
             {{ '<|' + message['role'] + '|>\n' + message['content'] + eos_token + '\n' }}\
             {% endfor %}\
             {% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}"
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::samples;

    #[test]
    fn a_conversation_is_prompt_then_response() {
        let conversations = samples::generate(1, 200);
        for family in Family::ALL {
            let vocabulary = Vocabulary::train(family, &conversations).unwrap();
            let encoded = vocabulary.encode(&conversations[0]).unwrap();
            let text = |ids: &[u32]| vocabulary.tokenizer.decode(ids, false).unwrap();
            let (prompt, response) = encoded.ids.split_at(encoded.prompt_length);
            assert!(
                text(prompt).contains(conversations[0].prompt()),
                "{}",
                text(prompt)
            );
            assert!(
                text(response).starts_with(conversations[0].response()),
                "{}",
                text(response)
            );
            assert!(encoded.ids.len() < 90, "{} tokens", encoded.ids.len());
            assert!(
                encoded
                    .ids
                    .iter()
                    .all(|id| (*id as usize) < vocabulary.size())
            );
        }
    }
}
