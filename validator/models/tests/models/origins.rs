//! Mirrors of the hub: they serve while it stalls, refuses or is away; what they send is compared
//! with its hash, and nothing that they do or lack is a verdict against a model.

use hub::{Hub, MirrorUrl, Origin, Token};
use localnet::{
    http::{Fault, Rule},
    hub::{Hub as HubServer, Ports},
};
use model::Architecture;
use models::{Rejection, Report, Verifier, store::Depth, store::StoredModel, verify::Assertion};
use tempfile::TempDir;

use crate::world::{
    Files, World, claim, content_hash, golden, large_model, refusal, rules, verify_with,
};

/// More than two parts of a download.
const VOCABULARY: u64 = 100_000;

/// A hub and its mirrors, all with the same repositories.
struct Origins {
    world: World,
    mirrors: Vec<HubServer>,
}

impl Origins {
    async fn new(mirrors: usize) -> Self {
        let mut origins = Self {
            world: World::new().await,
            mirrors: Vec::new(),
        };
        for _ in 0..mirrors {
            let mirror = HubServer::start(Ports::default()).await.unwrap();
            origins.mirrors.push(mirror);
        }
        origins
    }

    /// Publishes a golden model everywhere; returns what its miner says of it.
    fn publish(&self, name: &str, files: &Files) -> Assertion {
        let commit = self.world.publish(name, files);
        for mirror in &self.mirrors {
            assert_eq!(World::publish_at(mirror, name, files), commit);
        }
        claim(name, &commit, content_hash(files))
    }

    /// The same with a large one, whose first norm may be mad.
    fn publish_large(&self, name: &str, first: f32) -> Assertion {
        let (files, hash) = large_model(VOCABULARY, first);
        let id = format!("miner/{name}");
        let commit = self.world.server.commit_model(&id, files.clone());
        for mirror in &self.mirrors {
            assert_eq!(mirror.commit_model(&id, files.clone()), commit);
        }
        claim(name, &commit, hash)
    }

    /// Makes a verifier with a store of its own.
    fn verifier(&self, mirror_token: Option<&str>) -> (Verifier, TempDir) {
        let mut options = self.world.hub_options();
        let mirrors = self.mirrors.iter().map(HubServer::url);
        options.mirrors = mirrors
            .map(|url| url.parse::<MirrorUrl>().unwrap())
            .collect();
        options.token = Token::new("hf_of_the_hub");
        options.mirror_token = mirror_token.and_then(Token::new);
        let folder = tempfile::tempdir().unwrap();
        let store = models::Store::open(folder.path(), models::store::StoreLimits::default());
        let verifier = Verifier {
            hub: Hub::new(options).unwrap(),
            store: Some(store.unwrap()),
        };
        (verifier, folder)
    }

    async fn verify(&self, claim: &Assertion) -> (Result<StoredModel, Rejection>, Report) {
        let (verifier, _folder) = self.verifier(None);
        let judged = verify_with(&verifier, claim, &rules(Architecture::Llama)).await;
        let store = verifier.store.unwrap();
        assert_eq!(store.check(Depth::Bytes, |_| {}).unwrap(), []);
        judged
    }

    fn set(&self, server: usize, fault: Fault) {
        let server = self.server(server);
        server.faults().set(vec![Rule::always(fault)]);
        server.cdn.faults.set(vec![Rule::always(fault)]);
    }

    /// The hub is 0, the mirrors follow.
    fn server(&self, number: usize) -> &HubServer {
        match number {
            0 => &self.world.server,
            mirror => &self.mirrors[mirror - 1],
        }
    }

    fn requests(&self, number: usize) -> Vec<localnet::http::Request> {
        let server = self.server(number);
        let mut requests = server.api.traffic.requests();
        requests.extend(server.cdn.traffic.requests());
        requests
    }
}

fn put_off(outcome: Result<StoredModel, Rejection>) -> String {
    match outcome.unwrap_err() {
        retry @ Rejection::Retry { .. } => retry.to_string(),
        refused @ Rejection::Refused { .. } => panic!("a verdict: {refused:?}"),
    }
}

#[tokio::test]
async fn a_mirror_serves_whatever_ails_the_hub_and_never_sees_its_token() {
    let origins = Origins::new(1).await;
    let claim = origins.publish("model", &golden("llama_gqa"));
    for fault in [
        Fault::Stall,
        Fault::StallMidway,
        Fault::Cut,
        Fault::TooManyRequests,
        Fault::ServerError,
        Fault::Unavailable,
        Fault::RateLimit,
        Fault::Html,
        Fault::RedirectLoop,
        Fault::Downgrade,
    ] {
        origins.set(0, fault);
        let (outcome, report) = origins.verify(&claim).await;
        assert!(outcome.is_ok(), "{fault:?}: {report:?}");
        assert!(report.mirrored, "{fault:?}: {report:?}");
        let mirror = format!("{}/", origins.mirrors[0].url());
        assert!(report.origins.contains(&mirror), "{fault:?}: {report:?}");
    }
    let requests = origins.requests(1);
    assert!(!requests.is_empty());
    assert!(requests.iter().all(|request| !request.authorized));
    // Unless it is asked for.
    let (verifier, _folder) = origins.verifier(Some("of_the_mirror"));
    let rules = rules(Architecture::Llama);
    assert!(verify_with(&verifier, &claim, &rules).await.0.is_ok());
    let requests = origins.mirrors[0].api.traffic.requests();
    assert!(requests.iter().any(|request| request.authorized));
}

#[tokio::test]
async fn a_well_hub_is_asked_alone() {
    let origins = Origins::new(1).await;
    let claim = origins.publish("model", &golden("llama_gqa"));
    let (outcome, report) = origins.verify(&claim).await;
    assert!(outcome.is_ok(), "{report:?}");
    assert!(!report.mirrored, "{report:?}");
    assert!(origins.requests(1).is_empty());
}

#[tokio::test]
async fn the_word_of_the_hub_that_a_repository_is_not_there_stands() {
    let origins = Origins::new(1).await;
    let files = golden("llama_gqa");
    let commit = World::publish_at(&origins.mirrors[0], "gone", &files);
    let claim = claim("gone", &commit, content_hash(&files));
    let (outcome, _) = origins.verify(&claim).await;
    let gone = outcome.unwrap_err();
    assert!(
        matches!(gone, Rejection::Refused { lasting: false, .. }),
        "{gone:?}"
    );
    assert!(origins.requests(1).is_empty());
}

#[tokio::test]
async fn a_mirror_that_lies_or_lacks_is_passed_over_for_the_next() {
    let origins = Origins::new(2).await;
    let claim = origins.publish("model", &golden("llama_gqa"));
    origins.set(0, Fault::Unavailable);
    for fault in [
        Fault::WrongBytes,
        Fault::ChangingBody,
        Fault::LyingLength,
        Fault::WrongEtag,
        Fault::Cut,
        Fault::Html,
        Fault::Gated,
        Fault::ServerError,
        Fault::Stall,
    ] {
        origins.set(1, fault);
        let (outcome, report) = origins.verify(&claim).await;
        assert!(outcome.is_ok(), "{fault:?}: {report:?}");
        let second = format!("{}/", origins.mirrors[1].url());
        assert!(report.origins.contains(&second), "{fault:?}: {report:?}");
    }
    // Its listing is right, and its files are not.
    for part in [
        "config.json",
        "tokenizer.json",
        "model.safetensors",
        "/repos/",
    ] {
        let first = &origins.mirrors[0];
        let rule = Rule::always(Fault::WrongBytes).on(part);
        first.faults().set(vec![rule.clone()]);
        first.cdn.faults.set(vec![rule]);
        let (outcome, report) = origins.verify(&claim).await;
        assert!(outcome.is_ok(), "{part}: {report:?}");
    }
}

#[tokio::test]
async fn without_a_mirror_that_serves_it_is_nobodys_fault() {
    let origins = Origins::new(1).await;
    let claim = origins.publish("model", &golden("llama_gqa"));
    origins.set(0, Fault::Unavailable);
    let mirror = format!("{}/", origins.mirrors[0].url());
    for fault in [
        Fault::Unavailable,
        Fault::WrongBytes,
        Fault::ChangingBody,
        Fault::LyingLength,
        Fault::Gated,
        Fault::Html,
        Fault::Stall,
    ] {
        origins.set(1, fault);
        let reason = put_off(origins.verify(&claim).await.0);
        assert!(reason.contains("503"), "{fault:?}: {reason}");
        assert!(reason.contains(&mirror), "{fault:?}: {reason}");
    }
    // A mirror that has nothing.
    let empty = Origins::new(1).await;
    let files = golden("llama_gqa");
    let commit = empty.world.publish("model", &files);
    empty.set(0, Fault::Unavailable);
    let claim = crate::world::claim("model", &commit, content_hash(&files));
    let reason = put_off(empty.verify(&claim).await.0);
    // What the hub answers for what is not there, or not for us.
    assert!(reason.contains("401"), "{reason}");
}

#[tokio::test]
async fn no_byte_of_a_mirror_speaks_against_a_model_before_its_hash_was_compared() {
    let origins = Origins::new(1).await;
    let claim = origins.publish_large("large", 0.0);
    origins.set(0, Fault::Unavailable);
    let mirror = &origins.mirrors[0];
    // The first bytes of the weights, which hold the header: both ranges of it lie alike.
    mirror.cdn.faults.set(vec![Rule::always(Fault::WrongBytes)]);
    put_off(origins.verify(&claim).await.0);
    // Whose hash fits may speak.
    mirror.cdn.faults.clear();
    let mad = origins.publish_large("mad", 1e4);
    let reason = refusal(origins.verify(&mad).await.0);
    assert!(reason.contains("norm"), "{reason}");
    // A claim that nobody's content fits may be the mirror's fault.
    let mut wrong = claim.clone();
    wrong.model_id.hash = mad.model_id.hash;
    put_off(origins.verify(&wrong).await.0);
    let honest = origins.verify(&claim).await;
    assert!(honest.0.is_ok(), "{:?}", honest.1);
}

#[tokio::test]
async fn a_download_goes_on_at_a_mirror_where_the_hub_stopped() {
    const SIZE: u64 = VOCABULARY * 192;
    const PART: u64 = 8 << 20;
    let origins = Origins::new(1).await;
    let claim = origins.publish_large("large", 0.0);
    let (mut verifier, _folder) = origins.verifier(None);
    let mut options = verifier.hub.options().clone();
    options.http.connections = 1;
    verifier.hub = Hub::new(options).unwrap();
    // The header and the first part come, then nothing any more.
    let cdn = &origins.world.server.cdn;
    let rules = rules(Architecture::Llama);
    let hub = verifier.hub.clone();
    let watch = async {
        while cdn.traffic.bytes("/repos/") < PART {
            e2e::wait::a_moment().await;
        }
        origins.set(0, Fault::Stall);
        cdn.faults.set(vec![Rule::always(Fault::StallMidway)]);
    };
    let ((outcome, report), ()) = tokio::join!(verify_with(&verifier, &claim, &rules), watch);
    assert!(outcome.is_ok(), "{report:?}");
    let fetched = origins.mirrors[0].cdn.traffic.bytes("/repos/");
    assert!((1..SIZE).contains(&fetched), "{fetched}: not gone on with");
    let served: Vec<u64> = hub.origin_reports().iter().map(|one| one.served).collect();
    assert!(served.iter().all(|served| *served > 0), "{served:?}");
    let store = verifier.store.unwrap();
    assert_eq!(store.check(Depth::Bytes, |_| {}).unwrap(), []);
    assert_eq!(hub.origins()[1], Origin::Hub, "it comes last for a while");
}

/// The prefix that a lying mirror left makes nobody wait for ever.
#[tokio::test]
async fn what_a_lying_mirror_left_behind_is_thrown_away() {
    let origins = Origins::new(1).await;
    let claim = origins.publish_large("large", 0.0);
    let (verifier, folder) = origins.verifier(None);
    let (rules, mirror) = (rules(Architecture::Llama), &origins.mirrors[0]);
    // As if it had been cut off in its middle.
    let key = staging_key(mirror, "miner/large");
    let staged = folder.path().join(format!("staging/{key}-mirrored.part"));
    shared::file::write_atomic(&staged, &[7; 4096]).unwrap();
    origins.server(0).faults().clear();
    origins.server(0).cdn.faults.clear();
    let (outcome, report) = verify_with(&verifier, &claim, &rules).await;
    assert!(outcome.is_ok(), "{report:?}");
}

/// Returns the SHA-256 of the weights of a repository.
fn staging_key(server: &HubServer, id: &str) -> String {
    server.edit(|all| {
        let repository = all.get(localnet::hub::Kind::Model, id).unwrap();
        let revision = repository.revision("main").unwrap();
        revision.files["model.safetensors"].content.sha256()
    })
}
