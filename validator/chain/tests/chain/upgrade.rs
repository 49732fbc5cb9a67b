//! The gate before an upgrade: what is said of metadata that others changed, and that what is said
//! is what happens.

use std::sync::Arc;

use chain::{
    runtime::Runtime,
    upgrade::{Impact, examine},
};
use codec::Encode as _;
use localnet::chain::Upgrade;
use subnet::Genesis;

use crate::{NETUID, connect, start};

fn runtime(metadata: &[u8]) -> Arc<Runtime> {
    Arc::new(Runtime::new(1, 1, Genesis([1; 32]), metadata).unwrap())
}

/// Renames something in metadata to another name of the same length: for who looks for it, it is
/// gone, or somewhere else.
fn renamed(metadata: &[u8], from: &str, to: &str) -> Vec<u8> {
    assert_eq!(from.len(), to.len());
    let (from, to) = (from.encode(), to.encode());
    let mut changed = metadata.to_vec();
    let mut found = 0;
    for at in 0..metadata.len().saturating_sub(from.len()) {
        if metadata[at..].starts_with(&from) {
            changed[at..at + to.len()].copy_from_slice(&to);
            found += 1;
        }
    }
    assert!(found > 0, "there is no such name");
    changed
}

/// Returns what is not fine, and how bad it is.
fn trouble(metadata: &[u8]) -> Vec<(String, Impact)> {
    examine(&runtime(metadata))
        .into_iter()
        .filter(|finding| finding.impact != Impact::Fine)
        .map(|finding| (finding.item, finding.impact))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_upgrade_takes_away_is_said_before() {
    let chain = start(4, |_| ()).await;
    let client = connect(&[&chain]).await;
    let today = client.metadata().await.unwrap();
    assert_eq!(trouble(&today), []);
    for (from, to, item, impact) in [
        ("Tempo", "Tempi", "SubtensorModule.Tempo", Impact::Stops),
        (
            "CommitmentOf",
            "CommitmentOn",
            "Commitments.CommitmentOf",
            Impact::Stops,
        ),
        (
            "MaxWeightsLimit",
            "MaxWeightsLimiX",
            "SubtensorModule.MaxWeightsLimit",
            Impact::Degrades,
        ),
        (
            "LastEpochBlock",
            "LastEpochBlocX",
            "SubtensorModule.LastEpochBlock",
            Impact::Degrades,
        ),
        (
            "get_selective_metagraph",
            "get_selective_metagrapX",
            "neurons",
            Impact::Degrades,
        ),
        (
            "account_nonce",
            "account_noncX",
            "AccountNonceApi.account_nonce",
            Impact::Stops,
        ),
    ] {
        let found = trouble(&renamed(&today, from, to));
        assert!(
            found.contains(&(item.to_owned(), impact)),
            "{from}: {found:?}"
        );
        assert!(found.len() <= 2, "{from}: {found:?}");
    }
    let none = renamed(&today, "set_weights", "set_weightX");
    let none = renamed(&none, "set_mechanism_weights", "set_mechanism_weightX");
    assert!(trouble(&none).contains(&("weights in the clear".to_owned(), Impact::Stops)));
}

#[tokio::test(flavor = "multi_thread")]
async fn newtypes_are_fine_and_an_unknown_extension_is_not() {
    let chain = start(4, |_| ()).await;
    let client = connect(&[&chain]).await;
    // What broke the Python validators in July 2026.
    let newtypes = Upgrade {
        newtypes: true,
        ..Upgrade::default()
    };
    chain.upgrade(newtypes).unwrap();
    assert_eq!(trouble(&client.metadata().await.unwrap()), []);
    client.snapshot(NETUID).await.unwrap();
    let extension = Upgrade {
        unknown_extension: true,
        ..Upgrade::default()
    };
    chain.upgrade(extension).unwrap();
    let found = trouble(&client.metadata().await.unwrap());
    assert_eq!(
        found,
        [("transaction extensions".to_owned(), Impact::Stops)]
    );
}
