//! Continuing a prompt with a key-value cache.
#![expect(clippy::unwrap_used, reason = "a test's panic is its verdict")]

use std::{fs, path::PathBuf};

use candle_core::Device;
use engine::{
    decoder::Model,
    generate::{Options, generate},
    load,
    loss::{Rounding, evaluate},
};
use model::{
    Architecture, Attention, Compatibility, Dtype, PackingPlan, TokenizedSample,
    config::DecoderSpec,
};

fn model(name: &str) -> Model {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures")
        .join(name);
    let config = fs::read(folder.join("config.json")).unwrap();
    let architecture = Architecture::declared(&config).unwrap();
    let spec = DecoderSpec::parse(&config, architecture, Compatibility::V4_40).unwrap();
    let options = load::LoadOptions {
        dtype: Dtype::F32,
        attention: Attention::Sdpa,
        placement: load::Placement::Copies(&[Device::Cpu]),
    };
    let (mut models, _) = load::load(&folder, &spec, options, &|_| ()).unwrap();
    models.remove(0)
}

/// Taking the likeliest token each time must find, with the cache, what the losses say without.
#[test]
fn each_token_is_the_likeliest_after_those_before() {
    for name in [
        "variants/mistral_window",
        "variants/gemma_relu_in_vain",
        "models/stablelm_bias",
    ] {
        let models = [model(name)];
        let [model] = &models;
        let prompt = [3, 14, 15, 92, 65, 35, 89, 79, 32, 38, 46];
        let greedy = Options {
            top_k: 1,
            repetition_penalty: 1.0,
            max_tokens: prompt.len() + 12,
            ..Options::default()
        };
        let mut steps = 0;
        let answer = generate(model, &prompt, &greedy, || steps += 1).unwrap();
        assert_eq!((answer.len(), steps), (12, 12));
        let last = answer.len() - 1;
        let vocabulary = model.spec().vocab_size as u32;
        let ends: Vec<_> = (0..vocabulary)
            .map(|id| {
                let mut ids = [prompt.as_slice(), &answer[..last]].concat();
                ids.push(id);
                TokenizedSample {
                    prompt_len: ids.len() - 1,
                    ids,
                }
            })
            .collect();
        let plan = PackingPlan::new(&ends, 8192);
        let losses = evaluate(&models, &ends, &plan, Rounding::AsReference, |_| ())
            .unwrap()
            .losses;
        let likeliest = losses
            .iter()
            .enumerate()
            .min_by(|a, b| a.1.total_cmp(b.1))
            .unwrap()
            .0;
        assert_eq!(likeliest as u32, answer[last], "{name}");
    }
}

#[test]
fn equal_seeds_draw_equal_answers_within_the_limit() {
    let model = model("models/llama_gqa");
    let draw = |seed| {
        let options = Options {
            seed,
            max_tokens: 60,
            ..Options::default()
        };
        generate(&model, &[1, 2, 3], &options, || ()).unwrap()
    };
    assert_eq!(draw(1), draw(1));
    assert_ne!(draw(1), draw(2));
    assert_eq!(draw(1).len(), 57);
    let stop = Options {
        stop: vec![draw(1)[4]],
        seed: 1,
        ..Options::default()
    };
    assert!(generate(&model, &[1, 2, 3], &stop, || ()).unwrap().len() <= 4);
}

#[test]
fn what_cannot_be_continued_is_not() {
    let model = model("models/llama_gqa");
    let options = Options {
        max_tokens: 3,
        ..Options::default()
    };
    for prompt in [&[] as &[u32], &[1, 2, 3], &[1, 99_999]] {
        assert!(
            generate(&model, prompt, &options, || ())
                .unwrap()
                .is_empty()
        );
    }
}
