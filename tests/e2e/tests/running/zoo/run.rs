//! A whole run of a validator whose miners are the zoo.

use std::{collections::BTreeSet, fs, time::Duration};

use localnet::{
    chain::NeuronConfig,
    miners::{Family, Role},
    wallet::Wallet,
};
use models::Tracker;
use report::{StepRecord, step_record::Outcome};
use subnet::{FaultKind, Uid};

use super::{
    HUBS, groups,
    keeper::{assert_nothing_escaped, claim, rules},
};
use crate::{
    proc::workers,
    world::{World, stop},
};

/// The subnet's file with one change: models of the Llamas bring tokenizers of their own.
pub(crate) fn own_tokenizers(world: &World) -> String {
    let text = fs::read_to_string(world.net.endpoints().subnet).unwrap();
    let mut table: toml::Table = text.parse().unwrap();
    let schedule = &mut table["schedules"].as_array_mut().unwrap()[0];
    for competition in schedule["competitions"].as_array_mut().unwrap() {
        if competition["id"].as_str() == Some("l3") {
            competition.as_table_mut().unwrap().remove("tokenizer");
        }
    }
    let path = world.root().join("own-tokenizers.toml");
    shared::file::write_atomic(&path, table.to_string().as_bytes()).unwrap();
    path.display().to_string()
}

/// Lets a miner for each of the zoo commit; returns their uids, with the names.
async fn commit_all(world: &World) -> Vec<(Uid, String)> {
    let (net, rules) = (&world.net, rules());
    let mut all = Vec::new();
    let groups = groups().into_iter();
    // What the hub does wrong puts off, and would only take time here.
    let groups = groups.filter(|(group, _)| *group != HUBS);
    for (index, specimen) in groups.flat_map(|(_, group)| group).enumerate() {
        // A subnet has places for five in six.
        if index % 6 == 5 {
            continue;
        }
        let id = format!("zoo/{}", specimen.name);
        let commit = net.hub.commit_model(&id, specimen.files.clone());
        let claim = claim(&net.hub, &specimen, &commit, &rules).await;
        let wallet = Wallet::derive(7, &specimen.name);
        let neuron = NeuronConfig::miner(wallet.hotkey.public());
        let neuron = neuron.owned_by(wallet.coldkey.public());
        let uid = net.chain.register(net.netuid, neuron).unwrap();
        let record = claim.model_id.to_string();
        net.chain
            .commit(net.netuid, &wallet.hotkey.pair, record.as_bytes())
            .unwrap();
        all.push((Uid(uid), specimen.name));
    }
    all
}

fn last_of<'r>(records: &'r [StepRecord], competition: &str) -> Option<&'r StepRecord> {
    let mut all = records.iter().rev();
    all.find(|record| record.competition.0 == competition)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_validator_among_hostile_miners_judges_all_and_loses_no_worker() {
    let mut options = World::options("zoo", Duration::from_millis(300));
    options.miners = vec![
        (Family::Llama, Role::Good),
        (Family::StableLm, Role::Good),
        (Family::Llama, Role::Better),
    ];
    let world = World::with(options).await;
    let hostile = commit_all(&world).await;
    assert!(hostile.len() >= 150, "{}", hostile.len());
    let subnet = own_tokenizers(&world);
    let mut validator = world.running("a", &["--subnet", &subnet, "--sync-blocks", "1"]);
    let pid = validator.id().unwrap();
    world
        .until("a", "a worker", || !workers(pid).is_empty())
        .await;
    world
        .until("a", "a first step", || !world.records("a").is_empty())
        .await;
    let worker = workers(pid);
    let tracker = || -> Option<Tracker> {
        let bytes = fs::read(world.state("a").join("tracker.json")).ok()?;
        serde_json::from_slice(&bytes).ok()
    };
    let total = world.net.miners.len() + hostile.len();
    world
        .until("a", "a verdict on each", || {
            tracker().is_some_and(|tracker| tracker.entries().len() == total)
        })
        .await;
    let judged = world.records("a").len();
    world
        .until("a", "both competitions after that", || {
            let records = world.records("a");
            let later = &records[judged..];
            let l3 = later.iter().filter(|record| record.competition.0 == "l3");
            l3.count() > 1 && last_of(later, "s1").is_some()
        })
        .await;
    world
        .until("a", "weights on the chain", || {
            !world.weights().1.is_empty()
        })
        .await;
    assert_eq!(workers(pid), worker, "the worker was replaced");
    assert_eq!(stop(&mut validator).await, 0);
    let log = world.log_text("a");
    for unwanted in ["eval-worker was lost", "panic"] {
        let line = log.lines().find(|line| line.contains(unwanted));
        assert_eq!(line, None, "{unwanted}");
    }

    // Each hostile miner is in a record, or among the refused of one; none waits for us.
    let records = world.records("a");
    let refused = records.iter().flat_map(|record| &record.refused);
    let refused: BTreeSet<Uid> = refused.map(|refusal| refusal.uid).collect();
    for (uid, name) in hostile {
        let rows = records.iter().filter_map(|record| record.models.get(&uid));
        let rows: Vec<_> = rows.collect();
        assert!(!rows.is_empty() || refused.contains(&uid), "{name}");
        for row in rows {
            if let Outcome::Failed(fault) = &row.outcome {
                assert_eq!(fault.kind, FaultKind::Model, "{name}: {fault}");
            }
        }
    }
    // Those who mean well lose nothing.
    for (competition, uids) in [("l3", &[1, 3][..]), ("s1", &[2])] {
        let record = last_of(&records, competition).unwrap();
        for uid in uids {
            let row = &record.models[&Uid(*uid)];
            assert_eq!(row.outcome, Outcome::Evaluated, "uid {uid}");
            assert!(row.losses.iter().all(|loss| loss.0.is_finite()));
        }
    }
    assert_nothing_escaped();
}
