//! Conversations in parts that fit into a request.

use model::Conversation;

/// So much text is tokenized in one request.
const BATCH_BYTES: usize = 16 << 20;

/// Splits conversations, so that each part fits well into one frame. One that is longer is a part of
/// its own.
pub(crate) fn batches(conversations: &[Conversation]) -> Vec<&[Conversation]> {
    if conversations.is_empty() {
        return vec![conversations];
    }
    let mut batches = Vec::new();
    let (mut start, mut bytes) = (0, 0);
    for (index, conversation) in conversations.iter().enumerate() {
        let turns = conversation.messages.iter();
        let more: usize = turns
            .map(|turn| turn.role.len() + turn.content.len() + 32)
            .sum();
        if index > start && bytes + more > BATCH_BYTES {
            batches.push(&conversations[start..index]);
            (start, bytes) = (index, 0);
        }
        bytes += more;
    }
    batches.push(&conversations[start..]);
    batches
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_are_all_of_the_conversations_and_none_is_too_large() {
        let long = |bytes: usize| Conversation::of("x".repeat(bytes), "answer");
        let all: Vec<Conversation> = [1, BATCH_BYTES, 5, BATCH_BYTES / 2, BATCH_BYTES / 2, 7]
            .map(long)
            .into();
        let batches = batches(&all);
        assert_eq!(batches.concat(), all);
        let sizes: Vec<usize> = batches.iter().map(|batch| batch.len()).collect();
        assert_eq!(sizes, [1, 1, 2, 2]);
        assert_eq!(super::batches(&[]), [&[] as &[Conversation]]);
    }
}
