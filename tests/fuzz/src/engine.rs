//! What a miner's tokenizer directory can do to the eval-worker.

use std::{cell::LazyCell, collections::BTreeMap, panic, sync::Once, thread};

use engine::{
    template::{Template, Variable},
    tokenize::ChatTokenizer,
};
use model::{Compatibility, Conversation, Fault, Message};
use tempfile::TempDir;

use crate::{folder, part, write};

/// The longest sample, in tokens.
const SEQUENCE: usize = 64;

/// The stack of the threads of the eval-worker, in bytes.
const STACK: usize = 64 << 20;

/// A chat template: compiles and renders within its limits or is the model's fault, and renders
/// the same text twice.
pub fn chat_template(data: &[u8]) {
    let Ok(source) = str::from_utf8(data) else {
        return;
    };
    thread::scope(|scope| {
        let stack = thread::Builder::new().stack_size(STACK);
        let rendering = stack.spawn_scoped(scope, || render(source));
        rendering.expect("a thread can be started");
    });
}

fn render(source: &str) {
    for compatibility in [Compatibility::V4_40, Compatibility::Current] {
        let tokens = [("bos_token", "<s>"), ("eos_token", "</s>")];
        let tokens = tokens.map(|(name, token)| (name.to_owned(), Variable::Text(token.into())));
        let template = Template::compile(source, BTreeMap::from(tokens), compatibility);
        let Ok(template) = template.map_err(|fault| assert_models(&fault)) else {
            continue;
        };
        let render = || template.render(&conversation().messages, true);
        match render() {
            Ok(text) => {
                assert!(text.len() <= 8 << 20, "{} bytes", text.len());
                // The clock may tick between the two.
                assert!(source.contains("strftime_now") || render() == Ok(text));
            }
            Err(fault) => assert_models(&fault),
        }
    }
}

/// `tokenizer_config.json`, a zero byte, `tokenizer.json`: a tokenizer or the model's fault.
pub fn tokenizer_files(data: &[u8]) {
    thread_local!(static FOLDER: LazyCell<TempDir> = const { LazyCell::new(folder) });
    FOLDER.with(|folder| {
        write(&folder.path().join("tokenizer_config.json"), part(data, 0));
        write(&folder.path().join("tokenizer.json"), part(data, 1));
        for compatibility in [Compatibility::V4_40, Compatibility::Current] {
            tokenize(folder, compatibility);
        }
    });
}

/// `tokenizer.model`, as the Llama and the Gemma families read it.
pub fn sentencepiece_model(data: &[u8]) {
    thread_local!(static FOLDER: LazyCell<TempDir> = const { LazyCell::new(folder) });
    FOLDER.with(|folder| {
        write(&folder.path().join("tokenizer.model"), data);
        for class in ["LlamaTokenizer", "GemmaTokenizer"] {
            let config = format!(r#"{{"tokenizer_class": "{class}", "unk_token": "<unk>"}}"#);
            write(
                &folder.path().join("tokenizer_config.json"),
                config.as_bytes(),
            );
            tokenize(folder, Compatibility::V4_40);
        }
    });
}

fn tokenize(folder: &TempDir, compatibility: Compatibility) {
    leave_libraries_their_panics();
    let loaded = ChatTokenizer::load(folder.path(), compatibility);
    let Ok(tokenizer) = loaded.map_err(|fault| assert_models(&fault)) else {
        return;
    };
    let samples = || tokenizer.tokenize(&[conversation()], SEQUENCE, &|| {});
    match samples() {
        Ok((found, refused)) => {
            assert_eq!(
                (found.len(), refused.len()),
                (1, 0),
                "there was one conversation"
            );
            let sample = &found[0];
            assert!(sample.ids.len() <= SEQUENCE && sample.prompt_len <= SEQUENCE);
            assert_eq!(samples().map(|(again, _)| again).as_ref(), Ok(&found));
            if let Err(fault) = tokenizer.decode(&sample.ids) {
                assert_models(&fault);
            }
        }
        Err(fault) => assert_models(&fault),
    }
}

/// libFuzzer ends the process at any panic. Those of the tokenizer library are known, and caught
/// by the engine; only code of this workspace is built from relative paths.
fn leave_libraries_their_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let end = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if !info.location().is_some_and(|at| at.file().starts_with('/')) {
                end(info);
            }
        }));
    });
}

fn conversation() -> Conversation {
    let mut conversation = Conversation::of(" What's <b>?\n", "It is.\u{a0}\té");
    let system = Message {
        role: "system".to_owned(),
        content: "Be brief.".to_owned(),
    };
    conversation.messages.insert(0, system);
    conversation
}

fn assert_models(fault: &Fault) {
    assert!(fault.is_models(), "{fault}");
}
