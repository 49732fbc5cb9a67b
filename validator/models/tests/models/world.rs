//! A hub with repositories, a store in a temporary folder, and a verifier between them.

use std::{collections::BTreeMap, fs, path::PathBuf, time::Duration};

use http_client::RetryPolicy;
use hub::{Hub, HubOptions};
use indicatif::ProgressBar;
use localnet::hub::{Content, Hub as HubServer, Ports};
use model::{Architecture, Compatibility, ContentHash, Dtype, config::DecoderSpec, hash::walk};
use models::{
    Rejection, Report, Rules, Store, Verifier,
    store::{StoreLimits, StoredModel},
    verify::{Assertion, Reach},
};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use subnet::{Hotkey, ModelId, Parameters};
use tempfile::TempDir;

/// Files of a repository by path.
pub(crate) type Files = BTreeMap<String, Vec<u8>>;

pub(crate) struct World {
    pub(crate) server: HubServer,
    pub(crate) dir: TempDir,
}

impl World {
    pub(crate) async fn new() -> Self {
        let server = HubServer::start(Ports::default()).await.unwrap();
        Self {
            server,
            dir: tempfile::tempdir().unwrap(),
        }
    }

    /// Publishes files as `miner/NAME`; returns the commit.
    pub(crate) fn publish(&self, name: &str, files: &Files) -> String {
        Self::publish_at(&self.server, name, files)
    }

    /// The same at another server: equal files have equal commits.
    pub(crate) fn publish_at(server: &HubServer, name: &str, files: &Files) -> String {
        let contents = files
            .iter()
            .map(|(path, bytes)| (path.clone(), Content::from(bytes.clone())));
        server.commit_model(&format!("miner/{name}"), contents)
    }

    pub(crate) fn hub_options(&self) -> HubOptions {
        let mut options = HubOptions::new(self.server.url().parse().unwrap());
        options.http.timeouts.stall = Duration::from_millis(1500);
        options.http.retry = RetryPolicy {
            attempts: 2,
            first_pause: Duration::from_millis(1),
            longest_pause: Duration::from_millis(1500),
        };
        options
    }

    pub(crate) fn store(&self) -> Store {
        self.store_within(StoreLimits::default())
    }

    pub(crate) fn store_within(&self, limits: StoreLimits) -> Store {
        Store::open(&self.dir.path().join("store"), limits).unwrap()
    }

    pub(crate) fn verifier(&self) -> Verifier {
        Verifier {
            hub: Hub::new(self.hub_options()).unwrap(),
            store: Some(self.store()),
        }
    }

    /// Verifies with download; returns the report too.
    pub(crate) async fn verify(
        &self,
        claim: &Assertion,
        rules: &Rules,
    ) -> (Result<StoredModel, Rejection>, Report) {
        verify_with(&self.verifier(), claim, rules).await
    }
}

pub(crate) async fn verify_with(
    verifier: &Verifier,
    claim: &Assertion,
    rules: &Rules,
) -> (Result<StoredModel, Rejection>, Report) {
    let mut report = Report::default();
    let reach = Reach::Download {
        bar: ProgressBar::hidden(),
    };
    let outcome = verifier.verify(claim, rules, reach, &mut report).await;
    (outcome.map(Option::unwrap), report)
}

pub(crate) fn fixtures() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../engine/tests/fixtures")
}

pub(crate) fn fixture_json(name: &str) -> Value {
    serde_json::from_slice(&fs::read(fixtures().join(name)).unwrap()).unwrap()
}

/// The files of a golden model.
pub(crate) fn golden(name: &str) -> Files {
    let dir = fixtures().join("models").join(name);
    let paths = walk(&dir).unwrap();
    assert!(!paths.is_empty(), "{}", dir.display());
    paths
        .into_iter()
        .map(|path| {
            let name = path
                .strip_prefix(&dir)
                .unwrap()
                .to_str()
                .unwrap()
                .to_owned();
            (name, fs::read(&path).unwrap())
        })
        .collect()
}

pub(crate) fn content_hash(files: &Files) -> ContentHash {
    ContentHash::of_files(
        files
            .iter()
            .map(|(path, bytes)| (path, Sha256::digest(bytes).into())),
    )
}

pub(crate) fn claim(name: &str, commit: &str, hash: impl ToString) -> Assertion {
    let model_id = ModelId {
        namespace: "miner".into(),
        name: name.into(),
        revision: Some(commit.into()),
        hash: Some(hash.to_string()),
        competition: Some("l3".into()),
    };
    Assertion {
        model_id,
        hotkey: None,
    }
}

pub(crate) fn hotkey(number: u8) -> Hotkey {
    Hotkey([number; 32])
}

pub(crate) fn rules(architecture: Architecture) -> Rules {
    Rules::without_competition(&Parameters::embedded(), architecture, Dtype::Bf16)
}

/// The architecture a golden model was made for.
pub(crate) fn architecture_of(name: &str) -> Architecture {
    match name {
        _ if name.starts_with("stablelm") => Architecture::StableLm,
        "mistral" => Architecture::Mistral,
        "gemma" => Architecture::Gemma,
        _ => Architecture::Llama,
    }
}

/// The reason of a refusal that lasts.
pub(crate) fn refusal(outcome: Result<StoredModel, Rejection>) -> String {
    match outcome.unwrap_err() {
        Rejection::Refused {
            reason,
            lasting: true,
        } => reason,
        other => panic!("not refused for good: {other:?}"),
    }
}

/// A Llama with 192 bytes of weights for each word of its vocabulary, and some more. Its weights
/// are zeros, which cost no memory here, but for the first query projection, which comes first.
pub(crate) fn large_model(vocabulary: u64, first: f32) -> (Vec<(String, Content)>, ContentHash) {
    const FIRST: &str = "model.layers.0.self_attn.q_proj.weight";
    let mut files = golden("llama_gqa");
    let mut config: Value = serde_json::from_slice(&files["config.json"]).unwrap();
    config["vocab_size"] = vocabulary.into();
    config["tie_word_embeddings"] = true.into();
    files.insert("config.json".into(), serde_json::to_vec(&config).unwrap());
    let config = &files["config.json"];
    let spec = DecoderSpec::parse(config, Architecture::Llama, Compatibility::V4_40).unwrap();
    let mut tensors: Vec<_> = spec.tensors().collect();
    tensors.sort_by_key(|tensor| tensor.name != FIRST);
    let mut header = json!({"__metadata__": {"format": "pt"}});
    let mut at = 0;
    for tensor in &tensors {
        let end = at + 4 * tensor.shape.iter().product::<u64>();
        header[&tensor.name] =
            json!({"dtype": "F32", "shape": tensor.shape, "data_offsets": [at, end]});
        at = end;
    }
    let header = header.to_string();
    let elements: u64 = tensors[0].shape.iter().product();
    let mut head = [&(header.len() as u64).to_le_bytes()[..], header.as_bytes()].concat();
    let size = head.len() as u64 + at;
    head.extend(first.to_le_bytes().repeat(elements as usize));
    let mut sha256 = Sha256::new_with_prefix(&head);
    let zeros = vec![0; 1 << 20];
    let mut left = size - head.len() as u64;
    while left > 0 {
        let step = left.min(zeros.len() as u64);
        sha256.update(&zeros[..step as usize]);
        left -= step;
    }
    let digest: [u8; 32] = sha256.finalize().into();
    files.remove("model.safetensors");
    let digests = files
        .iter()
        .map(|(path, bytes)| (path.as_str(), Sha256::digest(bytes).into()));
    let hash = ContentHash::of_files(digests.chain([("model.safetensors", digest)]));
    let sha256 = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    let weights = Content::Virtual {
        head: head.into(),
        size,
        sha256,
    };
    let contents = files
        .into_iter()
        .map(|(path, bytes)| (path, Content::from(bytes)));
    (
        contents
            .chain([("model.safetensors".to_owned(), weights)])
            .collect(),
        hash,
    )
}
