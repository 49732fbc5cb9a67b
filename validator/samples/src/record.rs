//! Records: the shapes in which others publish conversations, and the one in which we write them.

use model::tokens::{Conversation, Message};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

/// One conversation as a source gave it.
#[derive(Debug, Clone, PartialEq)]
pub struct Record {
    /// The turns; the last is the response that is scored.
    pub conversation: Conversation,
    /// Where it came from, such as `wandb:entity/project/run/17#12`.
    pub origin: String,
    /// When it was made, in seconds since 1970, if known.
    pub at: Option<f64>,
}

/// The first names of pairs of fields that hold a prompt and its response.
const PAIRS: [(&str, &str); 6] = [
    ("prompt", "response"),
    ("prompt", "completion"),
    ("question", "answer"),
    ("challenge", "reference"),
    ("query", "response"),
    ("input", "output"),
];

/// Every field that [`Record::read`] looks at, so that a table is read in these columns only.
pub(super) const FIELDS: [&str; 19] = [
    "messages",
    "conversations",
    "conversation",
    "instruction",
    "input",
    "output",
    "system",
    "system_prompt",
    "prompt",
    "response",
    "completion",
    "question",
    "answer",
    "challenge",
    "reference",
    "query",
    "ts",
    "timestamp",
    "_timestamp",
];

impl Record {
    /// Reads a record in any of the accepted shapes: messages (OpenAI), conversations (ShareGPT,
    /// FLock), instruction/input/output (Alpaca), pairs. Returns what is missing otherwise. The
    /// origin is left empty.
    pub fn read(value: &Value) -> Result<Self, &'static str> {
        let object = value.as_object().ok_or("not a JSON object")?;
        let at = ["ts", "timestamp", "_timestamp"]
            .iter()
            .find_map(|key| object.get(*key)?.as_f64());
        let messages = messages(object)?;
        Ok(Self {
            conversation: Conversation { messages },
            origin: String::new(),
            at,
        })
    }

    /// Returns the record in the neutral shape: `{"id", "messages", "source", "ts"}`.
    pub fn neutral(&self) -> Value {
        let mut value = json!({
            "id": self.id(),
            "messages": self.conversation.messages,
            "source": self.origin,
        });
        if let (Some(at), Some(object)) = (self.at, value.as_object_mut()) {
            object.insert("ts".into(), json!(at));
        }
        value
    }

    /// Returns the id: the beginning of the SHA-256 of the turns, so that equal conversations
    /// have equal ids wherever they come from.
    pub fn id(&self) -> String {
        let mut hash = Sha256::new();
        for Message { role, content } in &self.conversation.messages {
            for part in [role, content] {
                hash.update((part.len() as u64).to_le_bytes());
                hash.update(part.as_bytes());
            }
        }
        hex::encode(&hash.finalize()[..12])
    }
}

fn messages(object: &Map<String, Value>) -> Result<Vec<Message>, &'static str> {
    let turns = ["messages", "conversations", "conversation"]
        .iter()
        .find_map(|key| object.get(*key)?.as_array());
    if let Some(turns) = turns {
        return last_exchange(object, turns);
    }
    if let (Some(instruction), Some(output)) = (text(object, "instruction"), text(object, "output"))
    {
        let prompt = match text(object, "input").map(str::trim) {
            Some(input) if !input.is_empty() => format!("{instruction}\n\n{input}"),
            _ => instruction.to_owned(),
        };
        return Ok(with_system(
            object,
            Conversation::of(prompt, output).messages,
        ));
    }
    PAIRS
        .iter()
        .find_map(|(prompt, response)| {
            Some(Conversation::of(text(object, prompt)?, text(object, response)?).messages)
        })
        .map(|messages| with_system(object, messages))
        .ok_or("no messages, conversations, instruction/output or prompt/response pair")
}

/// The last user turn that is answered by the assistant, with the answer: the unit of scoring is
/// one prompt and one response, as in the Python validator.
fn last_exchange(
    object: &Map<String, Value>,
    turns: &[Value],
) -> Result<Vec<Message>, &'static str> {
    let turns: Vec<Message> = turns
        .iter()
        .map(turn)
        .collect::<Option<_>>()
        .ok_or("a turn without role and content (or from and value)")?;
    let pair = turns
        .windows(2)
        .rev()
        .find(|pair| pair[0].role == "user" && pair[1].role == "assistant")
        .ok_or("no user turn followed by an assistant turn")?;
    let system = turns.first().filter(|first| first.role == "system");
    let messages = pair.to_vec();
    Ok(match system {
        Some(system) => [vec![system.clone()], messages].concat(),
        None => with_system(object, messages),
    })
}

fn turn(value: &Value) -> Option<Message> {
    let object = value.as_object()?;
    let role = text(object, "role").or_else(|| text(object, "from"))?;
    let role = match role {
        "human" => "user",
        "gpt" | "bing" | "chatgpt" => "assistant",
        other => other,
    };
    let content = text(object, "content").or_else(|| text(object, "value"))?;
    Some(Message {
        role: role.to_owned(),
        content: content.to_owned(),
    })
}

fn with_system(object: &Map<String, Value>, messages: Vec<Message>) -> Vec<Message> {
    match text(object, "system").or_else(|| text(object, "system_prompt")) {
        Some(system) if !system.trim().is_empty() => {
            let system = Message {
                role: "system".into(),
                content: system.into(),
            };
            [vec![system], messages].concat()
        }
        _ => messages,
    }
}

fn text<'a>(object: &'a Map<String, Value>, key: &str) -> Option<&'a str> {
    object.get(key)?.as_str()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(value: Value, expected: Result<&[(&str, &str)], &str>) {
        let read = Record::read(&value);
        let turns = read.map(|record| record.conversation.messages);
        let expected = expected.map(|turns| {
            turns
                .iter()
                .map(|(role, content)| Message {
                    role: (*role).into(),
                    content: (*content).into(),
                })
                .collect()
        });
        assert_eq!(turns, expected);
    }

    #[test]
    fn every_published_shape_is_read() {
        let pair = [("user", "p"), ("assistant", "r")];
        check(json!({"prompt": "p", "response": "r"}), Ok(&pair));
        check(json!({"question": "p", "answer": "r"}), Ok(&pair));
        check(json!({"challenge": "p", "reference": "r"}), Ok(&pair));
        check(
            json!({"instruction": "p", "output": "r", "input": " "}),
            Ok(&pair),
        );
        check(
            json!({"instruction": "p", "output": "r", "input": "i"}),
            Ok(&[("user", "p\n\ni"), ("assistant", "r")]),
        );
        check(
            json!({"conversations": [{"from": "human", "value": "p"}, {"from": "gpt", "value": "r"}]}),
            Ok(&pair),
        );
        check(
            json!({"system": "s", "conversations": [
                {"role": "user", "content": "p"}, {"role": "assistant", "content": "r"}]}),
            Ok(&[("system", "s"), ("user", "p"), ("assistant", "r")]),
        );
        check(
            json!({"messages": [
                {"role": "system", "content": "s"},
                {"role": "user", "content": "old"}, {"role": "assistant", "content": "older"},
                {"role": "user", "content": "p"}, {"role": "assistant", "content": "r"}]}),
            Ok(&[("system", "s"), ("user", "p"), ("assistant", "r")]),
        );
    }

    #[test]
    fn every_pair_is_among_the_fields() {
        let names = PAIRS
            .iter()
            .flat_map(|(prompt, response)| [prompt, response]);
        for name in names {
            assert!(FIELDS.contains(name), "{name}");
        }
    }

    #[test]
    fn what_is_missing_is_said() {
        check(json!([1]), Err("not a JSON object"));
        check(
            json!({"prompt": 1, "response": "r"}),
            Err("no messages, conversations, instruction/output or prompt/response pair"),
        );
        check(
            json!({"messages": [{"role": "user", "content": "p"}]}),
            Err("no user turn followed by an assistant turn"),
        );
        check(
            json!({"messages": [{"role": "user"}]}),
            Err("a turn without role and content (or from and value)"),
        );
    }

    #[test]
    fn the_neutral_shape_is_read_back() {
        let value = json!({"prompt": "p", "response": "r", "ts": 1.5});
        let record = Record::read(&value).unwrap();
        let again = Record::read(&record.neutral()).unwrap();
        assert_eq!(again, record);
        assert_eq!(again.id().len(), 24);
    }
}
