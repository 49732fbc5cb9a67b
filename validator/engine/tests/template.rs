//! Templates against what Jinja itself renders.

use std::{collections::BTreeMap, path::Path};

use engine::template::{Template, Variable};
use model::{Compatibility, Conversation};
use proptest::prelude::*;
use serde_json::Value;

fn compile(template: &str, compatibility: Compatibility) -> Result<Template, model::Fault> {
    let tokens = [("bos_token", "<s>"), ("eos_token", "</s>")];
    let variables = tokens.map(|(name, token)| (name.to_owned(), Variable::Text(token.into())));
    Template::compile(template, BTreeMap::from(variables), compatibility)
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

/// One feature of Jinja or Python each, as both releases render them (transformers 4.40.0 and
/// 5.24.0).
#[test]
fn every_feature_is_as_in_python() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/jinja.json");
    let golden: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let conversations: Vec<Conversation> =
        serde_json::from_value(golden["conversations"].clone()).unwrap();
    for case in golden["templates"].as_array().unwrap() {
        for rules in [Compatibility::V4_40, Compatibility::Current] {
            let template = compile(case["template"].as_str().unwrap(), rules);
            let release = serde_json::to_value(rules).unwrap();
            let golden = &case[release.as_str().unwrap()];
            for (index, conversation) in conversations.iter().enumerate() {
                let template = template.as_ref().map_err(ToString::to_string);
                let rendered = template.and_then(|template| {
                    let rendered = template.render(&conversation.messages, false);
                    rendered.map_err(|fault| fault.to_string())
                });
                let name = &case["name"];
                match golden[index].as_str() {
                    Some(golden) => {
                        assert_eq!(rendered.as_deref(), Ok(golden), "{name} {release}");
                    }
                    None => assert!(rendered.is_err(), "{name} {release}: {rendered:?}"),
                }
            }
        }
    }
}

/// What would take for ever, or all memory, or the stack, is refused.
#[test]
fn a_template_can_cost_only_so_much() {
    let deep = format!("{{{{ {}1{} }}}}", "(".repeat(5000), ")".repeat(5000));
    let ifs = "{% if true %}".repeat(5000) + &"{% endif %}".repeat(5000);
    for template in [
        "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
        "{% set ns = namespace(x='ab') %}{% for i in range(60) %}{% set ns.x = ns.x + ns.x %}{% endfor %}",
        "{% set ns = namespace(x=[]) %}{% for i in range(60000) %}{% set ns.x = [ns.x] %}{% endfor %}",
        "{% set ns = namespace(x=[1]) %}{% for i in range(60) %}{% set ns.x = [ns.x, ns.x] %}{% endfor %}{{ ns.x }}",
        "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
        "{% for x in [1] recursive %}{{ loop([1]) }}{% endfor %}",
        "{{ 'a' * 99999999999 }}",
        "{{ [1] * 99999999999 }}",
        "{{ '%99999999d' % 1 }}",
        "{{ '{:99999999}'.format(1) }}",
        "{{ 'x'.center(99999999) }}",
        "{{ ('x' * 1000000)|replace('x', 'y' * 1000000) }}",
        "{{ ('x ' * 100000)|indent(1000)|indent(1000)|length }}{{ 'a'.join('b' * 1000000)|wordwrap(1, wrapstring='z' * 1000000) }}",
        "{{ 10 ** 10 ** 10 }}",
        &deep,
        &ifs,
    ] {
        let rendered = compile(template, Compatibility::Current)
            .and_then(|template| template.render(&Conversation::of("q", "a").messages, false));
        assert!(rendered.is_err(), "{template:.80} is rendered");
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

#[test]
fn a_number_before_a_character_of_several_bytes_is_refused() {
    for template in ["{{ 7é }}", "{{ 0é }}", "{{ 0xé }}", "{{ 1eé }}"] {
        compile(template, Compatibility::V4_40).unwrap_err();
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
    ]), 0..40), glued in any::<bool>()) {
        let between = if glued { "" } else { " " };
        if let Ok(template) = compile(&parts.join(between), Compatibility::V4_40) {
            let _ = template.render(&Conversation::of("q", "a").messages, true);
        }
    }
}
