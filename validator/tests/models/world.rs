//! A hub with repositories, a store in a temporary folder, and a verifier between them.

use std::{collections::BTreeMap, fs, path::PathBuf, time::Duration};

use indicatif::ProgressBar;
use localnet::hub::{Content, Hub as HubServer, Ports};
use model::{Architecture, ContentHash, Dtype, hash::walk};
use tempfile::TempDir;
use validator::{
    models::{
        Hub, HubOptions, Rejection, Report, Rules, Store, Verifier,
        hub::Patience,
        store::{Limits, StoredModel},
        verify::{Assertion, Reach},
    },
    subnet::{Hotkey, ModelId, Parameters},
};

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
        let contents = files
            .iter()
            .map(|(path, bytes)| (path.clone(), Content::from(bytes.clone())));
        self.server.commit_model(&format!("miner/{name}"), contents)
    }

    pub(crate) fn hub_options(&self) -> HubOptions {
        let mut options = HubOptions::new(self.server.url().parse().unwrap());
        options.patience = Patience {
            pause: Duration::from_millis(1),
            stall: Duration::from_millis(1500),
            tries: 2,
            longest_pause: Duration::from_millis(1500),
            ..Patience::default()
        };
        options
    }

    pub(crate) fn store(&self) -> Store {
        self.store_within(Limits::default())
    }

    pub(crate) fn store_within(&self, limits: Limits) -> Store {
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
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("engine/tests/fixtures")
}

pub(crate) fn fixture_json(name: &str) -> serde_json::Value {
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
    ContentHash::of_files(files.iter().map(|(path, bytes)| {
        use sha2::Digest as _;
        (path, sha2::Sha256::digest(bytes).into())
    }))
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
