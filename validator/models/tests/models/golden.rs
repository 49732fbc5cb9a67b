//! What the Python validator hashes and admits, for models it has seen.

use model::ContentHash;
use models::{report::ClaimMatch, rules::Rules, store::Depth, verify::Assertion};

use crate::world::{
    World, architecture_of, claim, content_hash, fixture_json, golden, hotkey, refusal, rules,
};

const MODELS: [&str; 11] = [
    "gemma",
    "llama_gqa",
    "llama_gqa_sharded",
    "llama_tied_theta500k",
    "mistral",
    "nan_weight",
    "norm_hard_refused",
    "norm_soft_accepted",
    "norm_soft_refused",
    "stablelm_bias",
    "stablelm_nobias_gqa",
];

/// Files of a repository that are neither fetched nor hashed.
const BYSTANDERS: [&str; 9] = [
    "README.md",
    ".gitattributes",
    "pytorch_model.bin",
    "chat_template.jinja",
    "preprocessor_config.json",
    "modeling_llama.py",
    "nested/config.json",
    "adapter_config.json",
    "training_args.bin",
];

#[tokio::test]
async fn each_golden_model_has_its_hash_count_and_verdict() {
    let hashes = fixture_json("hashes.json");
    let norms = fixture_json("params_norms.json");
    let world = World::new().await;
    for name in MODELS {
        let mut files = golden(name);
        for path in BYSTANDERS {
            files.insert(path.into(), b"not looked at".to_vec());
        }
        let commit = world.publish(name, &files);
        let expected = hashes["models"][name]["hash"].as_str().unwrap();
        let rules = rules(architecture_of(name));
        let (outcome, report) = world.verify(&claim(name, &commit, expected), &rules).await;
        let accepted = norms["models"][name]["bfloat16"]["accepted"]
            .as_bool()
            .unwrap();
        assert_eq!(outcome.is_ok(), accepted, "{name}: {report:?}");
        assert_eq!(report.content_hash.unwrap().to_string(), expected, "{name}");
        assert_eq!(
            report.parameters,
            norms["models"][name]["parameter_count"].as_u64(),
            "{name}"
        );
        match outcome {
            Ok(model) => {
                assert_eq!(
                    ContentHash::of_directory(&model.dir).unwrap().to_string(),
                    expected
                );
            }
            refused => assert!(refusal(refused).contains("norm"), "{name}: {report:?}"),
        }
    }
    assert_eq!(world.store().check(Depth::Bytes, |_| {}).unwrap(), []);
    let fetched = |path: &str| {
        world
            .server
            .api
            .traffic
            .requests()
            .iter()
            .any(|r| r.target.contains(path))
    };
    assert!(BYSTANDERS.iter().all(|path| !fetched(&format!("/{path}"))));
}

#[tokio::test]
async fn a_hash_may_be_bound_to_the_hotkey_that_claims_it() {
    let world = World::new().await;
    let files = golden("llama_gqa");
    let commit = world.publish("bound", &files);
    let hash = content_hash(&files).bound_to(&hotkey(1).ss58());
    let rules = rules(architecture_of("llama_gqa"));
    let as_hotkey = |number| Assertion {
        hotkey: Some(hotkey(number)),
        ..claim("bound", &commit, hash)
    };
    let (outcome, report) = world.verify(&as_hotkey(1), &rules).await;
    assert_eq!(outcome.unwrap().record.content_hash, content_hash(&files));
    assert_eq!(report.claim, Some(ClaimMatch::Bound));
    let (outcome, report) = world.verify(&as_hotkey(2), &rules).await;
    assert!(refusal(outcome).contains("content hash"));
    assert_eq!(report.claim, None);
}

#[tokio::test]
async fn the_parameter_limit_is_inclusive() {
    let world = World::new().await;
    let files = golden("llama_tied_theta500k");
    let commit = world.publish("tied", &files);
    let claim = claim("tied", &commit, content_hash(&files));
    let rules = |max| Rules {
        max_parameters: Some(max),
        ..rules(architecture_of("llama"))
    };
    let (outcome, report) = world.verify(&claim, &rules(455_519)).await;
    assert_eq!(
        refusal(outcome),
        "the model has 455520 parameters, 455519 are allowed"
    );
    assert!(report.bytes_fetched < 100_000, "{report:?}");
    let (outcome, _) = world.verify(&claim, &rules(455_520)).await;
    outcome.unwrap();
}
