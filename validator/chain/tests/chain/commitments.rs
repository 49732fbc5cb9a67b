//! Commitments: as the Python validator reads them, and whatever else miners put there.

use chain::{commitments, decode::Value};
use serde_json::Value as Json;
use sp_core::{Pair as _, sr25519};
use subnet::{CommitmentRules, Hotkey, Uid};

use crate::{NETUID, connect, start};

const GOLDEN: &str = include_str!("../fixtures/model_ids.json");

/// Cases of the golden file that no SCALE record can express.
const NOT_ON_CHAIN: [&str; 4] = ["negative block", "odd hex", "no metadata", "empty dict"];

#[test]
fn records_are_read_as_the_python_validator_reads_them() {
    let golden: Json = serde_json::from_str(GOLDEN).unwrap();
    let (mut compared, rules) = (0, CommitmentRules::default());
    for case in golden["chain_records"].as_array().unwrap() {
        let name = case["name"].as_str().unwrap();
        if NOT_ON_CHAIN.contains(&name) {
            continue;
        }
        compared += 1;
        let parsed =
            commitments::parse(Uid(0), Hotkey([1; 32]), &record(&case["in"]), &rules).unwrap();
        let expected = &case["ok"];
        let Some(id) = expected.get("id") else {
            assert!(parsed.model.is_err(), "{name}");
            continue;
        };
        let model = parsed.model.unwrap();
        let text = |key: &str| id[key].as_str().map(ToOwned::to_owned);
        assert_eq!(Some(model.namespace), text("namespace"), "{name}");
        assert_eq!(Some(model.name), text("name"), "{name}");
        assert_eq!(model.revision, text("commit"), "{name}");
        assert_eq!(model.hash, text("hash"), "{name}");
        assert_eq!(
            model.competition.map(|id| id.0),
            text("competition_id"),
            "{name}"
        );
        assert_eq!(Some(parsed.block), expected["block"].as_u64(), "{name}");
    }
    assert!(compared >= 8, "{compared}");
}

/// Turns the JSON of the Python client into what the metadata decodes to.
fn record(json: &Json) -> Value {
    let field = |field: &Json| {
        let (kind, hex_text) = field.as_object().unwrap().iter().next().unwrap();
        let bytes = hex::decode(hex_text.as_str().unwrap().trim_start_matches("0x")).unwrap();
        Value::Variant(kind.clone(), Box::new(Value::Bytes(bytes)))
    };
    let fields = json["info"]["fields"]
        .as_array()
        .unwrap()
        .iter()
        .map(field)
        .collect();
    let info = Value::Record(vec![("fields".to_owned(), Value::List(fields))]);
    let block = Value::Uint(json["block"].as_u64().unwrap().into());
    Value::Record(vec![("block".to_owned(), block), ("info".to_owned(), info)])
}

#[tokio::test(flavor = "multi_thread")]
async fn only_current_neurons_commitments_are_seen_with_their_last_block() {
    let miner = |name: &str| sr25519::Pair::from_string(name, None).unwrap();
    let (alice, bob, carol) = (miner("//Alice"), miner("//Bob"), miner("//Charlie"));
    let chain = start(1, |subnet| {
        let keys = [&alice, &bob, &carol].map(|pair| pair.public().0);
        subnet
            .neurons
            .extend(keys.map(localnet::chain::NeuronConfig::miner));
    })
    .await;
    let client = connect(&[&chain]).await;
    chain.commit(NETUID.0, &alice, b"ns:first:c:h:l3").unwrap();
    chain.commit(NETUID.0, &alice, b"ns:second:c:h:l3").unwrap();
    let block = u64::from(chain.block_number());
    chain.commit(NETUID.0, &bob, &[b'x'; 200]).unwrap();
    chain.commit(NETUID.0, &carol, b"ns:gone:c:h:s1").unwrap();
    chain.deregister(NETUID.0, 3).unwrap();

    let commitments = client.snapshot(NETUID).await.unwrap().commitments;
    assert_eq!(commitments.len(), 2);
    assert_eq!((commitments[0].uid, commitments[0].block), (Uid(1), block));
    assert_eq!(commitments[0].payload, "ns:second:c:h:l3");
    assert_eq!(
        commitments[0].model.as_ref().unwrap().repository(),
        "ns/second"
    );
    assert_eq!(commitments[1].payload.len(), 200);
    assert!(commitments[1].model.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn timelocked_commitments_are_told_and_revealed_ones_are_read() {
    let pairs: Vec<_> = (1..4)
        .map(|seed| sr25519::Pair::from_seed(&[seed; 32]))
        .collect();
    let chain = start(1, |_| ()).await;
    for pair in &pairs {
        let neuron = localnet::chain::NeuronConfig::miner(pair.public().0);
        chain.register(NETUID.0, neuron).unwrap();
    }
    chain
        .commit_sealed(NETUID.0, &pairs[0], b"sealed", 4711)
        .unwrap();
    let texts = ["v4|a/old|hf:x", "v4|a/new|hf:y", "nonsense"];
    for text in texts {
        chain
            .reveal_commitment(NETUID.0, pairs[0].public().0, text.as_bytes())
            .unwrap();
    }
    chain
        .reveal_commitment(NETUID.0, pairs[1].public().0, b"v3|gone")
        .unwrap();
    let client = connect(&[&chain]).await;
    let sealed = client.snapshot(NETUID).await.unwrap().commitments;
    let why = sealed[0].model.as_ref().unwrap_err();
    assert!(why.contains("until round 4711"), "{why}");
    let rules = CommitmentRules {
        storage: subnet::payload::CommitmentStorage::Revealed,
        form: "v4|{repo}|{digest}".parse().unwrap(),
        ..CommitmentRules::default()
    };
    let read = client
        .snapshot_by(NETUID, &rules)
        .await
        .unwrap()
        .commitments;
    let models: Vec<_> = read
        .iter()
        .map(|one| one.model.as_ref().ok().map(subnet::ModelId::repository))
        .collect();
    assert_eq!(models, [Some("a/new".to_owned()), None]);
    let revision = read[0].model.as_ref().unwrap().revision.as_deref();
    assert_eq!(revision, Some("y"));
}
