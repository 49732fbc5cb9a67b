//! Templates against what Jinja itself renders.

use std::{collections::BTreeMap, path::Path};

use engine::template::Template;
use minijinja::value::Value as Variable;
use model::{Compatibility, Conversation};
use proptest::prelude::*;
use serde_json::Value;

fn compile(template: &str, compatibility: Compatibility) -> Result<Template, model::Fault> {
    let tokens = [("bos_token", "<s>"), ("eos_token", "</s>")];
    let variables = tokens.map(|(name, token)| (name, Variable::from(token)));
    Template::compile(
        template.to_owned(),
        BTreeMap::from(variables),
        compatibility,
    )
}

#[test]
fn templates_render_as_in_jinja() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/templates.json");
    let golden: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let conversations: Vec<Conversation> =
        serde_json::from_value(golden["conversations"].clone()).unwrap();
    for case in golden["templates"].as_array().unwrap() {
        let template = compile(case["template"].as_str().unwrap(), Compatibility::V4_40);
        for (index, conversation) in conversations.iter().enumerate() {
            let rendered = template
                .as_ref()
                .map_err(ToString::to_string)
                .and_then(|template| {
                    let rendered = template.render(&conversation.messages, index == 0);
                    rendered.map_err(|fault| fault.to_string())
                });
            match case["rendered"][index].as_str() {
                Some(golden) => assert_eq!(rendered.as_deref(), Ok(golden), "{}", case["name"]),
                None => assert!(rendered.is_err(), "{} gives {rendered:?}", case["name"]),
            }
        }
    }
}

#[test]
fn newer_templates_need_newer_rules() {
    let messages = Conversation::of("q <b>", "a").messages;
    for (template, golden) in [
        (
            "{% for m in messages %}{{ m.role }}{% break %}{% endfor %}",
            "user",
        ),
        (
            "{{ messages[0] | tojson }}",
            r#"{"role": "user", "content": "q <b>"}"#,
        ),
        ("{{ strftime_now('%Y') | length }}", "4"),
    ] {
        let render = |rules| compile(template, rules).and_then(|it| it.render(&messages, false));
        assert_eq!(render(Compatibility::Current).unwrap(), golden);
        assert_ne!(render(Compatibility::V4_40).ok().as_deref(), Some(golden));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    /// Any text is a template or refused, and whatever it renders ends.
    #[test]
    fn no_template_panics(parts in prop::collection::vec(prop::sample::select(vec![
        "{{", "}}", "{%", "%}", "{#", "#}", "-", "for", "m", "in", "messages", "endfor", "if", "(",
        ")", "[", "]", ".content", ".split", "'", "|", "trim", "+", "~", "set", "x", "=", "1", ":",
        "macro", "endmacro", "loop", "range", "\\n", "{", "}", ",", "é", "raw", "endraw", "call",
    ]), 0..40)) {
        if let Ok(template) = compile(&parts.join(" "), Compatibility::V4_40) {
            let _ = template.render(&Conversation::of("q", "a").messages, true);
        }
    }
}
