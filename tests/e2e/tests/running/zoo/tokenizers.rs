//! Tokenizers that mean ill: normalizers that grow, regular expressions, vocabularies, merges.

use serde_json::{Map, Value, json};

use super::specimen::{Specimen, TOKENIZER, TOKENIZER_CONFIG};

/// `tokenizer.json`.
pub(crate) fn tokenizers() -> Vec<Specimen> {
    let mut all = normalizers();
    all.extend(words());
    all.extend(vocabularies());
    all.extend(settings());
    all
}

fn of(name: &'static str, edit: impl FnOnce(&mut Value)) -> Specimen {
    Specimen::new(name).json(TOKENIZER, edit)
}

fn replace(pattern: &str, content: &str) -> Value {
    json!({"type": "Replace", "pattern": {"String": pattern}, "content": content})
}

fn normalizers() -> Vec<Specimen> {
    let with = |name, normalizers: Vec<Value>| {
        of(name, |tokenizer| {
            tokenizer["normalizer"] = json!({"type": "Sequence", "normalizers": normalizers});
        })
    };
    let regex = |name, pattern: &str| {
        let normalizer = json!({"type": "Replace", "pattern": {"Regex": pattern}, "content": ""});
        with(name, vec![normalizer])
    };
    vec![
        with(
            "normalizer-tenfold-8-times",
            vec![replace("a", &"a".repeat(10)); 8],
        ),
        with(
            "normalizer-thousandfold-3-times",
            vec![replace("e", &"e".repeat(1000)); 3],
        ),
        with(
            "normalizer-thousandfold-6-times",
            vec![replace("e", &"e".repeat(1000)); 6],
        ),
        with(
            "normalizer-tenfold-30-times",
            vec![replace("a", &"a".repeat(10)); 30],
        ),
        with(
            "normalizer-between-all-characters",
            vec![replace("", "xx"); 20],
        ),
        with(
            "normalizer-prepends-20-mb",
            vec![json!({"type": "Prepend", "prepend": "x".repeat(20_000_000)})],
        ),
        with(
            "normalizer-prepends-10-kb-1000-times",
            vec![json!({"type": "Prepend", "prepend": "x".repeat(10_000)}); 1000],
        ),
        with(
            "normalizer-decomposes-100-times",
            vec![json!({"type": "NFKD"}); 100],
        ),
        with(
            "normalizer-of-20000",
            vec![json!({"type": "Lowercase"}); 20_000],
        ),
        with(
            "normalizer-by-bytes-10-times",
            vec![json!({"type": "ByteLevel"}); 10],
        ),
        with(
            "normalizer-precompiled-nonsense",
            vec![json!({"type": "Precompiled", "precompiled_charsmap": "AAAA////"})],
        ),
        regex("normalizer-regex-that-backtracks", "(?=(a|a?)+$)(.+)+\\1x"),
        regex("normalizer-regex-of-nothing", ""),
        of("normalizer-nested-100-deep", |tokenizer| {
            let mut nested = json!({"type": "NFC"});
            for _ in 0..100 {
                nested = json!({"type": "Sequence", "normalizers": [nested]});
            }
            tokenizer["normalizer"] = nested;
        }),
        of("normalizer-unknown", |tokenizer| {
            tokenizer["normalizer"] = json!({"type": "Exec", "command": "id"});
        }),
    ]
}

fn words() -> Vec<Specimen> {
    let split = |name, pattern: &str| {
        let pattern = json!({"Regex": pattern});
        of(name, |tokenizer| {
            tokenizer["pre_tokenizer"] = json!({"type": "Split", "pattern": pattern, "behavior": "Isolated", "invert": false});
        })
    };
    let bytes = json!({"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": false});
    vec![
        split("words-regex-that-backtracks", "(a+)+(?=b)\\1$"),
        split("words-regex-that-looks-back", "(?<=a|bc)(x+x+)+y"),
        split("words-regex-that-looks-back-for-ever", "(?<=(?:.|\\n)*)(x+x+)+y"),
        split("words-regex-of-a-million-states", "((a{1000}){1000}){1000}"),
        split("words-regex-open", "("),
        split("words-regex-of-a-megabyte", &"a|".repeat(500_000)),
        split("words-regex-nested-50000-deep", &format!("{}a{}", "(".repeat(50_000), ")".repeat(50_000))),
        split("words-regex-that-calls-itself", "(?<r>a\\g<r>*b)"),
        of("words-none", |tokenizer| tokenizer["pre_tokenizer"] = Value::Null),
        of("words-by-bytes-30-times", |tokenizer| {
            tokenizer["pre_tokenizer"] = json!({"type": "Sequence", "pretokenizers": vec![bytes; 30]});
        }),
        of("words-of-single-characters", |tokenizer| {
            tokenizer["pre_tokenizer"] = json!({"type": "Split", "pattern": {"Regex": ""}, "behavior": "Isolated", "invert": true});
        }),
        of("words-of-one-that-is-8-mb-long", |tokenizer| tokenizer["pre_tokenizer"] = Value::Null)
            .template("{{ 'ab' * 4000000 }}"),
        of("pieces-of-one-word-of-8-mb", |tokenizer| {
            tokenizer["model"] = json!({"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
                "max_input_chars_per_word": 1_000_000_000_000_u64, "vocab": {"[UNK]": 0, "a": 1, "##b": 2}});
            tokenizer["pre_tokenizer"] = Value::Null;
            tokenizer["post_processor"] = Value::Null;
        })
        .template("{{ 'a' * 8000000 }}"),
        of("unigrams-of-3000-lengths", |tokenizer| {
            let words = (1..3000).map(|length| json!(["a".repeat(length), -1.0]));
            let words: Vec<Value> = [json!(["<unk>", 0.0])].into_iter().chain(words).collect();
            tokenizer["model"] = json!({"type": "Unigram", "unk_id": 0, "vocab": words, "byte_fallback": false});
            tokenizer["pre_tokenizer"] = Value::Null;
            tokenizer["post_processor"] = Value::Null;
        })
        .template("{{ 'a' * 8000000 }}"),
    ]
}

fn vocabularies() -> Vec<Specimen> {
    let token = |id: u64, content: &str| json!({"id": id, "content": content, "single_word": false, "lstrip": true, "rstrip": true, "normalized": true, "special": false});
    let added = |name, tokens: Vec<Value>| {
        of(name, |tokenizer| {
            tokenizer["added_tokens"]
                .as_array_mut()
                .unwrap()
                .extend(tokens);
        })
    };
    let model =
        |name, field: &str, value: Value| of(name, |tokenizer| tokenizer["model"][field] = value);
    vec![
        model("vocabulary-negative", "vocab", json!({"a": -1})),
        model(
            "vocabulary-beyond-32-bits",
            "vocab",
            json!({"a": 1_u64 << 40}),
        ),
        model("vocabulary-empty", "vocab", json!({})),
        model("vocabulary-a-list", "vocab", json!([])),
        model("merges-of-one", "merges", json!(["alone"])),
        model("merges-of-unknown-words", "merges", json!(["zz yy"])),
        model("merges-of-numbers", "merges", json!([1, 2])),
        model("dropout", "dropout", json!(0.5)),
        model("kind-unknown", "type", json!("Nonsense")),
        of("vocabulary-with-a-hole-of-2-32", |tokenizer| {
            tokenizer["model"]["vocab"]["zzzz"] = json!(u32::MAX - 1);
        }),
        of("vocabulary-of-one-id", |tokenizer| {
            for id in tokenizer["model"]["vocab"]
                .as_object_mut()
                .unwrap()
                .values_mut()
            {
                *id = json!(0);
            }
        }),
        of("merges-100000", |tokenizer| {
            let letters: Vec<char> = (0x100..).filter_map(char::from_u32).take(320).collect();
            let mut words: Map<String, Value> = letters
                .iter()
                .zip(0..)
                .map(|(letter, id)| (letter.to_string(), json!(id)))
                .collect();
            let mut merges = Vec::new();
            for (left, right) in letters
                .iter()
                .flat_map(|left| letters.iter().map(move |right| (left, right)))
            {
                words.insert(format!("{left}{right}"), json!(words.len()));
                merges.push(format!("{left} {right}"));
            }
            tokenizer["model"]["vocab"] = json!(words);
            tokenizer["model"]["merges"] = json!(merges);
            tokenizer["added_tokens"] = json!([]);
            tokenizer["post_processor"] = Value::Null;
        }),
        added("added-id-of-2-32", vec![token(u64::from(u32::MAX), "zzz")]),
        added("added-id-of-2-40", vec![token(1 << 40, "zzz")]),
        added("added-nothing", vec![token(5000, "")]),
        added("added-twice", vec![token(5000, "zzz"), token(5001, "zzz")]),
        added(
            "added-20000",
            (0..20_000)
                .map(|n| token(5000 + n, &format!("tok{n}")))
                .collect(),
        ),
        added(
            "added-1000-long",
            (0..1000)
                .map(|n| token(5000 + n, &"ab".repeat(n as usize + 1)))
                .collect(),
        ),
        added(
            "added-every-letter",
            (0..26)
                .map(|n| token(5000 + n, &char::from(b'a' + n as u8).to_string()))
                .collect(),
        ),
    ]
}

fn settings() -> Vec<Specimen> {
    let raw = |name, bytes: Vec<u8>| Specimen::new(name).file(TOKENIZER, bytes);
    let config = |name, field: &str, value: Value| {
        Specimen::new(name).json(TOKENIZER_CONFIG, |config| config[field] = value)
    };
    vec![
        of("truncation-with-a-stride", |tokenizer| {
            tokenizer["truncation"] = json!({"direction": "Right", "max_length": 1, "strategy": "LongestFirst", "stride": 5});
        }),
        of("padding-to-2-40", |tokenizer| {
            tokenizer["padding"] = json!({"strategy": {"Fixed": 1_u64 << 40}, "direction": "Right", "pad_to_multiple_of": null, "pad_id": 0, "pad_type_id": 0, "pad_token": "x"});
        }),
        of("processor-of-100000-parts", |tokenizer| {
            let parts = vec![json!({"Sequence": {"id": "A", "type_id": 0}}); 100_000];
            tokenizer["post_processor"] = json!({"type": "TemplateProcessing", "single": parts, "pair": [], "special_tokens": {}});
        }),
        raw(
            "tokenizer-nested-a-million-deep",
            [b"{\"a\":".to_vec(), b"[".repeat(1_000_000)].concat(),
        ),
        raw("tokenizer-empty", Vec::new()),
        raw("tokenizer-not-text", vec![0xff; 1000]),
        Specimen::new("tokenizer-of-a-gigabyte").sparse(TOKENIZER, *b"{\"model\":", 1 << 30),
        Specimen::new("tokenizer-of-70-mb").sparse(TOKENIZER, *b"{\"model\":", 70 << 20),
        config("class-unknown", "tokenizer_class", json!("EvilTokenizer")),
        config("class-a-path", "tokenizer_class", json!("os.system")),
        config("class-a-number", "tokenizer_class", json!(7)),
        config(
            "class-with-code",
            "auto_map",
            json!({"AutoTokenizer": ["evil.Tokenizer", null]}),
        ),
        config(
            "templates-without-a-default",
            "chat_template",
            json!([{"name": "x", "template": "x"}]),
        ),
        config("template-a-number", "chat_template", json!(7)),
        config("side-unknown", "truncation_side", json!("top")),
        config("end-a-list", "eos_token", json!([])),
        config("end-of-a-megabyte", "eos_token", json!("e".repeat(1 << 20))),
        config(
            "decoder-id-negative",
            "added_tokens_decoder",
            json!({"-1": {"content": "x"}}),
        ),
        config(
            "decoder-id-of-2-40",
            "added_tokens_decoder",
            json!({"1099511627776": {"content": "x"}}),
        ),
        Specimen::new("tokenizer-settings-nested").file(TOKENIZER_CONFIG, b"[".repeat(100_000)),
        Specimen::new("special-tokens-nested")
            .file("special_tokens_map.json", b"[".repeat(100_000)),
        Specimen::new("added-tokens-a-list").file("added_tokens.json", "[1]"),
    ]
}
