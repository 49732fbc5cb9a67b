//! A conversation, and what becomes of it once tokenized.

use serde::{Deserialize, Serialize};

/// One turn of a conversation.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Message {
    /// Who speaks: `system`, `user` or `assistant`; what else is allowed is the template's affair.
    pub role: String,
    pub content: String,
}

/// The turns of a conversation. The last is the response that is scored, those before it are the
/// prompt.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Conversation {
    pub messages: Vec<Message>,
}

impl Conversation {
    /// Makes the usual conversation: one question, one answer.
    pub fn of(prompt: impl Into<String>, response: impl Into<String>) -> Self {
        let turn = |role: &str, content| Message {
            role: role.to_owned(),
            content,
        };
        Self {
            messages: vec![
                turn("user", prompt.into()),
                turn("assistant", response.into()),
            ],
        }
    }

    /// Returns the turns before the response.
    pub fn prompt(&self) -> &[Message] {
        self.messages.split_last().map_or(&[], |(_, prompt)| prompt)
    }
}

/// A tokenized conversation: what a model sees.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TokenizedSample {
    /// Token ids of prompt and response, truncated to the sequence length.
    pub ids: Vec<u32>,
    /// How many of the first positions carry no label. May exceed the number of ids.
    pub prompt_len: usize,
}

impl TokenizedSample {
    /// Returns the positions whose logits are scored: position `t` predicts `ids[t + 1]`. Empty if
    /// every label is masked.
    pub fn scored_rows(&self) -> std::ops::Range<usize> {
        // Labels are shifted by one, so the first position never has one: a prompt of no token
        // masks as much as a prompt of one.
        let end = self.ids.len().saturating_sub(1);
        self.prompt_len.saturating_sub(1).min(end)..end
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_shifted_by_one() {
        let rows = |n: u32, prompt_len| {
            TokenizedSample {
                ids: (0..n).collect(),
                prompt_len,
            }
            .scored_rows()
        };
        assert_eq!(rows(5, 0), 0..4);
        assert_eq!(rows(5, 1), 0..4);
        assert_eq!(rows(5, 3), 2..4);
        assert!(rows(5, 5).is_empty() && rows(5, 99).is_empty());
        assert!(rows(1, 0).is_empty() && rows(0, 0).is_empty());
    }

    #[test]
    fn the_last_turn_is_the_response() {
        let conversation = Conversation::of("q", "a");
        assert_eq!(conversation.prompt(), &conversation.messages[..1]);
        assert!(Conversation::default().prompt().is_empty());
    }
}
