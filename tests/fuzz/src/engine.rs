//! What a miner's tokenizer directory can do to the eval-worker.

use std::collections::BTreeMap;

use engine::template::Template;
use minijinja::value::Value;
use model::{Compatibility, Conversation, Fault};

/// A chat template: compiles and renders within its limits or is the model's fault, and renders
/// the same text twice.
pub fn chat_template(data: &[u8]) {
    let Ok(source) = str::from_utf8(data) else {
        return;
    };
    let mut conversation = Conversation::of(" What's <b>?\n", "It is.\u{a0}");
    conversation.messages.insert(0, system("Be brief."));
    for compatibility in [Compatibility::V4_40, Compatibility::Current] {
        let tokens = [("bos_token", "<s>"), ("eos_token", "</s>")];
        let tokens = tokens.map(|(name, token)| (name, Value::from(token)));
        let template = Template::compile(source.to_owned(), BTreeMap::from(tokens), compatibility);
        let Ok(template) = template.map_err(|fault| assert_models(&fault)) else {
            continue;
        };
        let render = || template.render(&conversation.messages, true);
        let rendered = render();
        match &rendered {
            Ok(text) => assert!(text.len() <= 8 << 20, "{} bytes", text.len()),
            Err(fault) => assert_models(fault),
        }
        assert!(source.contains("now") || rendered == render(), "{rendered:?}");
    }
}

fn system(content: &str) -> model::Message {
    model::Message {
        role: "system".to_owned(),
        content: content.to_owned(),
    }
}

fn assert_models(fault: &Fault) {
    assert!(fault.is_models(), "{fault}");
}
