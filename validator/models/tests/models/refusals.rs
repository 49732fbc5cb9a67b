//! What a refusal costs, measured at the hub.

use hub::Hub;
use localnet::hub::Content;
use model::Architecture;
use models::{Rules, Verifier};

use crate::world::{
    Files, World, claim, content_hash, golden, large_model, refusal, rules, verify_with,
};

/// Body bytes the hub and its CDN have sent since the last question.
fn sent(world: &World) -> u64 {
    let bytes = world.server.bytes_sent("/");
    world.server.api.traffic.clear();
    world.server.cdn.traffic.clear();
    bytes
}

#[tokio::test]
async fn lies_cost_kilobytes() {
    let world = World::new().await;
    let llama = rules(Architecture::Llama);
    let files = golden("llama_gqa");
    let commit = world.publish("honest", &files);
    let hash = content_hash(&files);
    let mut table: Vec<(&str, String, u64)> = Vec::new();

    let wrong = content_hash(&Files::new());
    let (outcome, _) = world.verify(&claim("honest", &commit, wrong), &llama).await;
    table.push(("wrong hash", refusal(outcome), sent(&world)));

    let (outcome, _) = world.verify(&claim("honest", "main", hash), &llama).await;
    table.push(("a branch", refusal(outcome), sent(&world)));

    let small = Rules {
        max_parameters: Some(1000),
        ..llama.clone()
    };
    let (outcome, _) = world.verify(&claim("honest", &commit, hash), &small).await;
    table.push(("too many parameters", refusal(outcome), sent(&world)));

    let huge = Content::Virtual {
        head: Vec::new().into(),
        size: 15 * (1 << 30),
        sha256: "00".repeat(32),
    };
    let contents = files
        .iter()
        .map(|(path, bytes)| (path.clone(), Content::from(bytes.clone())));
    let contents = contents.chain([("unused.bin".to_owned(), huge)]);
    let oversize = world.server.commit_model("miner/oversize", contents);
    let (outcome, _) = world
        .verify(&claim("oversize", &oversize, hash), &llama)
        .await;
    table.push(("over 15 GiB", refusal(outcome), sent(&world)));

    let (outcome, _) = world.verify(&claim("honest", &commit, hash), &llama).await;
    outcome.unwrap();
    assert!(sent(&world) > 900_000);
    let copy = world.publish("copy", &files);
    let (outcome, report) = world.verify(&claim("copy", &copy, hash), &llama).await;
    outcome.unwrap();
    assert_eq!(world.server.cdn.traffic.requests(), []);
    table.push(("exact copy", "accepted".into(), sent(&world)));
    assert!(report.bytes_fetched < 100_000);

    for (what, verdict, bytes) in &table {
        println!("{what:<20} {bytes:>7} bytes  {verdict}");
        assert!(*bytes <= 100_000, "{what}: {bytes} bytes");
    }
}

#[tokio::test]
async fn mad_norms_end_the_download() {
    let world = World::new().await;
    let (files, hash) = large_model(400_000, 100.0);
    let commit = world.server.commit_model("miner/mad", files);
    let mut options = world.hub_options();
    options.http.connections = 1;
    let verifier = Verifier {
        hub: Hub::new(options).unwrap(),
        store: Some(world.store()),
    };
    let claim = claim("mad", &commit, hash);
    let (outcome, report) = verify_with(&verifier, &claim, &rules(Architecture::Llama)).await;
    assert_eq!(refusal(outcome), "the norm of q_proj in layer 0 is 4800");
    let all = 400_000 * 192;
    assert!(
        report.bytes_fetched < all / 2,
        "{} of {all}",
        report.bytes_fetched
    );
    assert_eq!(world.store().usage().unwrap().staging, 0);
}
