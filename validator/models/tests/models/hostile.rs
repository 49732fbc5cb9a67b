//! A hub and miners that mean ill: whose fault it is said to be, and that nothing stays behind.

use std::{net::SocketAddr, sync::Arc};

use axum::{Router, body::Body, extract::State, http::Request, response::Response};
use hub::{Hub, HubOptions, Token};
use localnet::{
    http::{Fault, Rule},
    hub::{Access, Kind},
};
use model::Architecture;
use models::{
    Rejection, Store, Verifier,
    store::{Depth, StoreLimits, Usage},
};
use shared::task::TaskSet;
use subnet::FaultKind;

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
        (Fault::NoRanges, None, Fine),
        (Fault::Gzip, None, Fine),
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
        (Fault::NoRanges, None, Fine),
        (Fault::Gzip, None, Fine),
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
    its revision "abcdef0" is not a full commit hash
    "miner/../../etc" is not the name of a repository on the hub
    its revision "None" is not a full commit hash
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
            StoreLimits::default(),
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
