//! A hub and miners that mean ill: whose fault it is said to be, and that nothing stays behind.

use std::{fmt::Write as _, net::SocketAddr, sync::Arc};

use axum::{Router, body::Body, extract::State, http::Request, response::Response};
use localnet::{
    http::{Fault, Rule},
    hub::{Access, Kind},
};
use model::Architecture;
use shared::task::TaskSet;
use validator::{
    models::{
        Hub, HubOptions, Rejection, Store, Verifier,
        hub::Token,
        store::{Depth, Limits, Usage},
    },
    subnet::FaultKind,
};

use crate::world::{Files, World, claim, content_hash, golden, refusal, rules, verify_with};

/// What a verification is expected to end with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Expect {
    /// The model is verified in spite of it.
    Fine,
    /// Put off, through no fault of the model's.
    Outside,
    /// Refused until the repository can be read.
    Unavailable,
}

fn kind_of(outcome: Result<(), &Rejection>) -> Expect {
    match outcome {
        Ok(()) => Expect::Fine,
        Err(Rejection::Retry { fault, .. }) if fault.kind == FaultKind::Outside => Expect::Outside,
        Err(Rejection::Refused { lasting: false, .. }) => Expect::Unavailable,
        Err(other) => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn faults_of_the_hub_are_never_the_models() {
    use Expect::{Fine, Outside, Unavailable};
    let faults = [
        (Fault::TooManyRequests, Some(1), Fine),
        (Fault::Unavailable, Some(1), Fine),
        (Fault::Cut, Some(1), Fine),
        (Fault::TooManyRequests, None, Outside),
        (Fault::ServerError, None, Outside),
        (Fault::Html, None, Outside),
        (Fault::Endless, None, Outside),
        (Fault::RedirectLoop, None, Outside),
        (Fault::Downgrade, None, Outside),
        (Fault::WrongEtag, None, Outside),
        (Fault::Gated, None, Unavailable),
    ];
    for (fault, times, expect) in faults {
        suffer(fault, false, times, expect).await;
    }
}

#[tokio::test]
async fn faults_of_the_cdn_are_never_the_models() {
    use Expect::{Fine, Outside};
    let faults = [
        (Fault::TooManyRequests, Some(1), Fine),
        (Fault::ServerError, Some(1), Fine),
        (Fault::Cut, Some(1), Fine),
        (Fault::Stall, Some(1), Fine),
        (Fault::ServerError, None, Outside),
        (Fault::Html, None, Outside),
        (Fault::WrongBytes, None, Outside),
        (Fault::ChangingBody, None, Outside),
        (Fault::LyingLength, None, Outside),
        // The SHA-256 of the bytes says more than the CDN's ETag.
        (Fault::WrongEtag, None, Fine),
        (Fault::RedirectLoop, None, Outside),
        (Fault::Downgrade, None, Outside),
        (Fault::Gated, None, Outside),
        (Fault::Endless, None, Outside),
    ];
    for (fault, times, expect) in faults {
        suffer(fault, true, times, expect).await;
    }
}

/// Verifies a model under a fault, and once more when it is over.
async fn suffer(fault: Fault, at_cdn: bool, times: Option<u32>, expect: Expect) {
    let world = World::new().await;
    let files = golden("llama_gqa");
    let commit = world.publish("target", &files);
    let claim = claim("target", &commit, content_hash(&files));
    let faults = if at_cdn {
        &world.server.cdn.faults
    } else {
        world.server.faults()
    };
    faults.set(vec![Rule {
        times,
        ..Rule::always(fault)
    }]);
    let rules = rules(Architecture::Llama);
    let (outcome, report) = world.verify(&claim, &rules).await;
    let found = kind_of(outcome.as_ref().map(|_| ()));
    assert_eq!(found, expect, "{fault:?} {times:?}: {report:?}");
    assert!(report.bytes_fetched < 40_000_000, "{fault:?}: {report:?}");
    assert!(faults.met() > 0, "{fault:?}");
    assert_eq!(
        world.store().check(Depth::Bytes, |_| {}).unwrap(),
        [],
        "{fault:?}"
    );

    faults.clear();
    let (outcome, report) = world.verify(&claim, &rules).await;
    assert!(outcome.is_ok(), "after {fault:?}: {report:?}");
    assert_eq!(world.store().usage().unwrap().staging, 0, "{fault:?}");
}

#[tokio::test]
async fn what_is_not_public_may_become_so() {
    let world = World::new().await;
    let files = golden("llama_gqa");
    let commit = world.publish("shy", &files);
    let (claim, rules) = (
        claim("shy", &commit, content_hash(&files)),
        rules(Architecture::Llama),
    );
    for access in [Access::Private(Vec::new()), Access::Gated(Vec::new())] {
        world
            .server
            .edit(|all| all.get_mut(Kind::Model, "miner/shy").unwrap().access = access);
        let (outcome, _) = world.verify(&claim, &rules).await;
        assert_eq!(kind_of(outcome.as_ref().map(|_| ())), Expect::Unavailable);
    }
    world.server.edit(|all| {
        all.get_mut(Kind::Model, "miner/shy").unwrap().access = Access::Public;
    });
    world.verify(&claim, &rules).await.0.unwrap();
    let unknown = crate::world::claim("shy", &"0".repeat(40), content_hash(&files));
    let (outcome, _) = world.verify(&unknown, &rules).await;
    assert_eq!(kind_of(outcome.as_ref().map(|_| ())), Expect::Unavailable);
}

#[tokio::test]
async fn the_token_is_sent_to_the_hub_alone() {
    let world = World::new().await;
    let files = golden("llama_gqa");
    let commit = world.publish("gated", &files);
    world.server.edit(|all| {
        all.get_mut(Kind::Model, "miner/gated").unwrap().access =
            Access::Gated(vec!["hf_secret".into()]);
    });
    let mut options = world.hub_options();
    options.token = Token::new(" hf_secret\n");
    assert!(!format!("{options:?}").contains("hf_secret"));
    let verifier = Verifier {
        hub: Hub::new(options).unwrap(),
        store: Some(world.store()),
    };
    let claim = claim("gated", &commit, content_hash(&files));
    verify_with(&verifier, &claim, &rules(Architecture::Llama))
        .await
        .0
        .unwrap();
    assert!(
        world
            .server
            .api
            .traffic
            .requests()
            .iter()
            .all(|request| request.authorized)
    );
    let cdn = world.server.cdn.traffic.requests();
    assert!(
        !cdn.is_empty() && cdn.iter().all(|request| !request.authorized),
        "{cdn:?}"
    );
}

fn put(files: &mut Files, path: &str, bytes: &[u8]) {
    files.insert(path.into(), bytes.to_vec());
}

/// Replaces the weights by an index that names one shard.
fn put_index(files: &mut Files, shard: &str) {
    files.remove("model.safetensors");
    let index = serde_json::json!({"weight_map": {"a": shard}}).to_string();
    put(files, "model.safetensors.index.json", index.as_bytes());
}

fn edit_json(files: &mut Files, path: &str, key: &str, value: serde_json::Value) {
    let mut json: serde_json::Value = serde_json::from_slice(&files[path]).unwrap();
    json[key] = value;
    put(files, path, &serde_json::to_vec(&json).unwrap());
}

/// Replaces a text in the header of the weights, once; its length may change.
fn edit_header(files: &mut Files, from: &str, to: &str) {
    let weights = &files["model.safetensors"];
    let length = u64::from_le_bytes(*weights.first_chunk().unwrap()) as usize;
    let json = str::from_utf8(&weights[8..8 + length]).unwrap();
    assert!(json.contains(from), "{json}");
    let json = json.replacen(from, to, 1);
    let length_bytes = (json.len() as u64).to_le_bytes();
    let changed = [&length_bytes[..], json.as_bytes(), &weights[8 + length..]].concat();
    put(files, "model.safetensors", &changed);
}

type Defect = fn(&mut Files);

/// What may be wrong with a model that looks like one.
const DEFECTS: [(&str, Defect); 20] = [
    ("no config", |files| {
        drop(files.remove("config.json"));
    }),
    ("config no JSON", |files| {
        put(files, "config.json", b"{");
    }),
    ("quantized", |files| {
        edit_json(
            files,
            "config.json",
            "quantization_config",
            serde_json::json!({}),
        );
    }),
    ("llama3 rope", |files| {
        let scaling = serde_json::json!({"rope_type": "llama3", "factor": 8.0});
        edit_json(files, "config.json", "rope_scaling", scaling);
    }),
    ("wider than its weights", |files| {
        edit_json(files, "config.json", "intermediate_size", 129.into());
    }),
    ("one layer more", |files| {
        edit_json(files, "config.json", "num_hidden_layers", 5.into());
    }),
    ("no weights", |files| {
        drop(files.remove("model.safetensors"));
    }),
    ("header 2^63", |files| {
        let weights = files.get_mut("model.safetensors").unwrap();
        weights[..8].copy_from_slice(&(1_u64 << 63).to_le_bytes());
    }),
    ("truncated", |files| {
        files.get_mut("model.safetensors").unwrap().pop().unwrap();
    }),
    ("five bytes", |files| {
        put(files, "model.safetensors", b"short");
    }),
    ("no format", |files| {
        edit_header(files, r#""format""#, r#""formax""#);
    }),
    ("format tf", |files| {
        edit_header(files, r#""pt""#, r#""tf""#);
    }),
    ("duplicate key", |files| {
        edit_header(files, "{", r#"{"__metadata__":{"format":"pt"},"#);
    }),
    ("shard outside", |files| {
        put_index(files, "../../etc/passwd");
    }),
    ("shard missing", |files| {
        put_index(files, "model-1.safetensors");
    }),
    ("deep shard", |files| {
        let path = "d/".repeat(300) + "x.safetensors";
        put_index(files, &path);
        put(files, &path, b"");
    }),
    ("unknown tokenizer", |files| {
        edit_json(
            files,
            "tokenizer_config.json",
            "tokenizer_class",
            "TokenizersBackend".into(),
        );
    }),
    ("no tokenizer", |files| {
        drop(files.remove("tokenizer.json"));
    }),
    ("broken tokenizer", |files| {
        put(files, "tokenizer.json", b"{\"version\":");
    }),
    ("prefix space", |files| {
        edit_json(
            files,
            "tokenizer_config.json",
            "tokenizer_class",
            "LlamaTokenizer".into(),
        );
        edit_json(
            files,
            "tokenizer_config.json",
            "add_prefix_space",
            true.into(),
        );
    }),
];

#[tokio::test]
async fn a_model_that_can_not_be_loaded_is_refused_before_its_weights_are_fetched() {
    let world = World::new().await;
    let mut reasons = String::new();
    for (what, defect) in DEFECTS {
        let mut files = golden("llama_gqa");
        defect(&mut files);
        let commit = world.publish("changed", &files);
        let claim = claim("changed", &commit, content_hash(&files));
        let (outcome, report) = world.verify(&claim, &rules(Architecture::Llama)).await;
        assert_eq!(world.store().usage().unwrap().staging, 0);
        assert!(report.bytes_fetched < 120_000, "{what}: {report:?}");
        let reason: String = refusal(outcome).chars().take(100).collect();
        writeln!(reasons, "{what}: {reason}").unwrap();
    }
    insta::assert_snapshot!(reasons, @r###"
    no config: the repository has no "config.json"
    config no JSON: config.json is not JSON: EOF while parsing an object at line 1 column 1
    quantized: config.json: quantized checkpoints are refused
    llama3 rope: config.json: rope_scaling must be exactly {type, factor}, found 2 fields of type "llama3"
    wider than its weights: tensor "model.layers.0.mlp.gate_proj.weight" has shape [128, 48], the configuration says [129, 48]
    one layer more: 9 tensors are missing: model.layers.4.self_attn.q_proj.weight, model.layers.4.self_attn.k_proj.weigh
    no weights: the repository has neither model.safetensors nor model.safetensors.index.json
    header 2^63: model.safetensors: the header claims 9223372036854775808 bytes, more than the 8388608 allowed
    truncated: model.safetensors: the tensors end at byte 898752 of the data, the file at 898751
    five bytes: model.safetensors: the file ends within its header
    no format: model.safetensors: the header's format is missing, only "pt" and "mlx" are accepted
    format tf: model.safetensors: the header's format is "tf", only "pt" and "mlx" are accepted
    duplicate key: model.safetensors: the header can't be read: `__metadata__` appears twice at line 1 column 62
    shard outside: model.safetensors.index.json: file name "../../etc/passwd" is not allowed
    shard missing: the repository has no "model-1.safetensors"
    deep shard: file name "d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d
    unknown tokenizer: tokenizer class "TokenizersBackend" is not known
    no tokenizer: the files of its tokenizer (PreTrainedTokenizerFast) are missing
    broken tokenizer: tokenizer.json is no tokenizer: EOF while parsing a value at line 1 column 11
    prefix space: its tokenizer sets add_prefix_space, which needs tokenizer.model
    "###);
}

#[tokio::test]
async fn a_claim_that_names_nothing_costs_no_request() {
    let world = World::new().await;
    let rules = rules(Architecture::Llama);
    let hash = content_hash(&Files::new());
    let commit = "0".repeat(40);
    let mut reasons = Vec::new();
    let mut wrong = claim("x", &commit, "not base64");
    reasons.push(refusal(world.verify(&wrong, &rules).await.0));
    wrong = claim("x", "abcdef0", hash);
    reasons.push(refusal(world.verify(&wrong, &rules).await.0));
    wrong = claim("../../etc", &commit, hash);
    reasons.push(refusal(world.verify(&wrong, &rules).await.0));
    wrong = claim("x", &commit, hash);
    wrong.model_id.revision = None;
    reasons.push(refusal(world.verify(&wrong, &rules).await.0));
    wrong = claim("x\x1b[2J", &commit, hash);
    reasons.push(refusal(world.verify(&wrong, &rules).await.0));
    assert_eq!(world.server.api.traffic.requests(), []);
    insta::assert_snapshot!(reasons.join("\n"), @r###"
    its hash "not base64" is not a content hash (base64 of 32 bytes)
    its revision "abcdef0" is no full commit hash
    "miner/../../etc" is not the name of a repository on the hub
    its revision "None" is no full commit hash
    "miner/x\u{1b}[2J" is not the name of a repository on the hub
    "###);
}

/// A server that answers each request by `answer`, and nothing else.
async fn bare_server(
    answer: impl Fn(&str) -> Response + Send + Sync + 'static,
) -> (SocketAddr, TaskSet) {
    type Answer = Arc<dyn Fn(&str) -> Response + Send + Sync>;
    async fn handle(State(answer): State<Answer>, request: Request<Body>) -> Response {
        answer(&request.uri().to_string())
    }
    let answer: Answer = Arc::new(answer);
    let router = Router::new().fallback(handle).with_state(answer);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut tasks = TaskSet::new();
    tasks.spawn("server", async move {
        axum::serve(listener, router).await.unwrap();
        Ok(())
    });
    (address, tasks)
}

#[tokio::test]
async fn a_hub_that_answers_nonsense_is_at_fault_itself() {
    let commit = "a".repeat(40);
    let listing = |siblings: &str| format!(r#"{{"sha":"{commit}","siblings":[{siblings}]}}"#);
    let bodies = [
        String::new(),
        "null".into(),
        "[]".into(),
        r#"{"sha":"main","siblings":[]}"#.into(),
        listing(r#"{"rfilename":"a","size":-5}"#),
        listing(r#"{"rfilename":"a","size":1},{"rfilename":"a","size":2}"#),
        listing(r#"{"rfilename":"config.json","size":1,"lfs":{"sha256":"zz","size":1}}"#),
        listing(r#"{"rfilename":"config.json","size":1e400}"#),
        "[".repeat(100_000),
    ];
    for body in bodies {
        let shown: String = body.chars().take(60).collect();
        let (address, _tasks) = bare_server(move |_| Response::new(Body::from(body.clone()))).await;
        let world = World::new().await;
        let mut options = world.hub_options();
        options.endpoint = format!("http://{address}").parse().unwrap();
        let verifier = Verifier {
            hub: Hub::new(options).unwrap(),
            store: Some(world.store()),
        };
        let claim = claim("x", &commit, content_hash(&Files::new()));
        let (outcome, report) = verify_with(&verifier, &claim, &rules(Architecture::Llama)).await;
        assert_eq!(
            kind_of(outcome.as_ref().map(|_| ())),
            Expect::Outside,
            "{shown}: {report:?}"
        );
        assert_eq!(world.store().usage().unwrap(), Usage::default());
    }
}

#[tokio::test]
async fn an_unknown_or_absurd_size_is_the_models_fault() {
    let commit = "a".repeat(40);
    for size in ["null", "18446744073709551615"] {
        let body = format!(
            r#"{{"sha":"{commit}","siblings":[{{"rfilename":"config.json","size":{size}}},{{"rfilename":"b","size":1}}]}}"#
        );
        let (address, _tasks) = bare_server(move |_| Response::new(Body::from(body.clone()))).await;
        let options = HubOptions::new(format!("http://{address}").parse().unwrap());
        let world = World::new().await;
        let verifier = Verifier {
            hub: Hub::new(options).unwrap(),
            store: Some(world.store()),
        };
        let claim = claim("x", &commit, content_hash(&Files::new()));
        let (outcome, _) = verify_with(&verifier, &claim, &rules(Architecture::Llama)).await;
        assert_eq!(
            refusal(outcome),
            "the hub does not know the size of all its files"
        );
    }
}

/// xet is offered, but does not work: a server in front of the hub says so.
#[tokio::test]
async fn a_broken_xet_is_passed_over() {
    let world = World::new().await;
    let files = golden("llama_gqa");
    let commit = world.publish("xet", &files);
    let hub = world.server.url();
    let dead = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let cas = format!("http://{}", dead.local_addr().unwrap());
    let tokens = [
        String::new(),
        format!(r#"{{"accessToken":"x","exp":4102444800,"casUrl":"{cas}"}}"#),
    ];
    for token in tokens {
        let hub = hub.clone();
        let (address, _tasks) = bare_server(move |target| {
            let response = Response::builder();
            if target.contains("/xet-read-token/") {
                return response.body(Body::from(token.clone())).unwrap();
            }
            let response = response
                .status(302)
                .header("location", format!("{hub}{target}"))
                .header("x-xet-hash", "ab".repeat(32))
                .header("x-repo-commit", "a".repeat(40))
                .header("x-linked-size", "902760")
                .header("x-linked-etag", "\"x\"");
            response.body(Body::empty()).unwrap()
        })
        .await;
        let mut options = world.hub_options();
        options.endpoint = format!("http://{address}").parse().unwrap();
        options.xet = true;
        let store = Store::open(
            &world.dir.path().join(address.port().to_string()),
            Limits::default(),
        );
        let verifier = Verifier {
            hub: Hub::new(options).unwrap(),
            store: Some(store.unwrap()),
        };
        let claim = claim("xet", &commit, content_hash(&files));
        let (outcome, report) = verify_with(&verifier, &claim, &rules(Architecture::Llama)).await;
        assert!(outcome.is_ok(), "{report:?}");
    }
}
