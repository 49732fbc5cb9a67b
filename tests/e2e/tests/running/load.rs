//! Load: many miners with tokenizers of their own, all of whose models change again and again, long
//! samples, many records. `scripts/load` runs large ones; without its environment this is a small one.

use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};

use localnet::{
    chain::NeuronConfig,
    miners::{Family, Role},
    samples::{Conversation, Message},
    wallet::Wallet,
};
use report::{Journal, StepRecord};
use serde_json::{Value, json};
use shared::file;
use subnet::Uid;

use crate::{
    plan::number,
    proc::{descendants, resident_kib},
    world::{World, stop},
    zoo::{
        keeper::{claim, rules},
        run::own_tokenizers,
        specimen::{Specimen, TOKENIZER_CONFIG},
    },
};

/// Conversations of the feed, of which twelve are drawn for a step.
const FED: usize = 18;

/// A file of records is set aside at this size, as `validator run` does it.
const JOURNAL_BYTES: u64 = 16 << 20;

/// How much of everything.
#[derive(Debug, Clone, Copy)]
struct Size {
    uids: usize,
    /// How often all models change.
    changes: usize,
    /// Blocks between two changes, at least.
    blocks: u64,
    /// Words of a sample, each of which is one or two tokens.
    words: usize,
    /// Records that a validator finds at its start.
    records: u64,
}

impl Size {
    fn from_environment() -> Self {
        Self {
            uids: number("LOAD_UIDS", 3),
            changes: number("LOAD_CHANGES", 2),
            blocks: number("LOAD_BLOCKS", 10),
            words: number("LOAD_WORDS", 300),
            records: number("LOAD_RECORDS", 50),
        }
    }
}

/// Bytes of all files below a folder.
fn bytes_below(folder: &Path) -> u64 {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .map(|entry| match entry.metadata() {
            Ok(about) if about.is_dir() => bytes_below(&entry.path()),
            Ok(about) => about.len(),
            // Gone meanwhile.
            Err(_) => 0,
        })
        .sum()
}

/// Conversations of so many words.
fn conversations(size: Size) -> Vec<Conversation> {
    let turn = |role: &str, content: String| Message {
        role: role.to_owned(),
        content,
    };
    let conversation = |number: usize| {
        let words: Vec<String> = (0..size.words)
            .map(|word| format!("w{}", (number * 7919 + word) % 10_007))
            .collect();
        let half = words.len() / 2;
        Conversation {
            id: format!("load-{number}"),
            messages: vec![
                turn("user", words[..half].join(" ")),
                turn("assistant", words[half..].join(" ")),
            ],
            source: "load".to_owned(),
            ts: 1.8e9,
        }
    };
    (0..FED).map(conversation).collect()
}

/// Lets every miner commit to another model; returns what they committed to.
async fn change_all(world: &World, wallets: &[Wallet], change: usize) -> Vec<String> {
    let (net, rules) = (&world.net, rules());
    let mut models = Vec::new();
    for (number, wallet) in wallets.iter().enumerate() {
        let specimen = Specimen::new(format!("load-{number}")).json(TOKENIZER_CONFIG, |config| {
            config["comment"] = json!(format!("{number} {change}"));
        });
        let id = format!("zoo/{}", specimen.name);
        let commit = net.hub.commit_model(&id, specimen.files.clone());
        let claim = claim(&net.hub, &specimen, &commit, &rules).await;
        let record = claim.model_id.to_string();
        net.chain
            .commit(net.netuid, &wallet.hotkey.pair, record.as_bytes())
            .unwrap();
        models.push(record);
    }
    models
}

/// Returns the records of steps, oldest first, that have models of these.
fn with_models<'r>(records: &'r [StepRecord], models: &[String]) -> Vec<&'r StepRecord> {
    let ours = |record: &&StepRecord| {
        record
            .models
            .values()
            .any(|row| models.contains(&row.model))
    };
    records.iter().filter(ours).collect()
}

/// Makes so many records of the one with the most models, as if all of them had been steps; returns how many it has.
fn multiply(world: &World, records: u64) -> usize {
    let state = world.state("a").join("state.json");
    let mut kept: Value = serde_json::from_slice(&fs::read(&state).unwrap()).unwrap();
    let all = world.records("a");
    let first = all.last().unwrap().step + 1;
    let mut record = all
        .into_iter()
        .max_by_key(|record| record.models.len())
        .unwrap();
    let next = records.max(first);
    let folder = world.state("a").join("records");
    let journal = Journal::open(&folder, JOURNAL_BYTES, usize::MAX).unwrap();
    for step in first..next {
        record.step = step;
        journal.append(&record, |_| [0; 64]).unwrap();
    }
    kept["step"] = json!(next);
    file::write_atomic(&state, kept.to_string().as_bytes()).unwrap();
    record.models.len()
}

#[expect(
    clippy::too_many_lines,
    reason = "one run, measured from its start to its end"
)]
#[tokio::test(flavor = "multi_thread")]
async fn steps_go_on_while_all_models_change() {
    let size = Size::from_environment();
    println!("{size:?}");
    let mut options = World::options("load", Duration::from_millis(500));
    options.miners = vec![(Family::Llama, Role::Good)];
    let world = World::with(options).await;
    world.net.feed.show(conversations(size));
    let wallets: Vec<Wallet> = (0..size.uids)
        .map(|number| Wallet::derive(9, &format!("load-{number}")))
        .collect();
    for wallet in &wallets {
        let neuron = NeuronConfig::miner(wallet.hotkey.public());
        let neuron = neuron.owned_by(wallet.coldkey.public());
        world.net.chain.register(world.net.netuid, neuron).unwrap();
    }
    let subnet = own_tokenizers(&world);
    let flags = [
        "--subnet",
        &subnet,
        "--sync-blocks",
        "1",
        "--update_delay_minutes",
        "0",
    ];
    let mut validator = None;
    println!(
        "change | step s | samples | tokens | losses | validator MiB | worker MiB | state KiB | store MiB"
    );
    for change in 0..size.changes {
        let models = change_all(&world, &wallets, change).await;
        let began = world.block();
        let child = validator.get_or_insert_with(|| world.running("a", &flags));
        let pid = child.id().unwrap();
        world
            .patiently("a", "losses of all models", || {
                let records = world.records("a");
                let evaluated = with_models(&records, &models)
                    .into_iter()
                    .flat_map(|record| record.models.values())
                    .filter(|row| models.contains(&row.model) && !row.losses.is_empty());
                let distinct: std::collections::BTreeSet<Uid> = records
                    .iter()
                    .flat_map(|record| &record.models)
                    .filter(|(_, row)| models.contains(&row.model))
                    .map(|(uid, _)| *uid)
                    .collect();
                evaluated.count() >= models.len() && distinct.len() == models.len()
            })
            .await;
        world
            .patiently("a", "the time for a change", || {
                world.block() >= began + size.blocks
            })
            .await;
        let records = world.records("a");
        let steps = with_models(&records, &models);
        let lap = |name: &str| -> f64 {
            let laps = steps.iter().filter_map(|record| record.timings.get(name));
            laps.sum()
        };
        let worker: u64 = descendants(pid).into_iter().map(resident_kib).sum();
        println!(
            "{change:>6} | {:>6.1} | {:>7.1} | {:>6.1} | {:>6.1} | {:>13} | {:>10} | {:>9} | {:>9}",
            steps.iter().map(|record| record.seconds()).sum::<f64>(),
            lap("samples"),
            lap("tokens"),
            lap("losses"),
            resident_kib(pid) / 1024,
            worker / 1024,
            bytes_below(&world.state("a")) / 1024,
            bytes_below(&world.store()) >> 20,
        );
    }
    assert_eq!(stop(validator.as_mut().unwrap()).await, 0);

    let models = multiply(&world, size.records);
    let all = bytes_below(&world.state("a").join("records"));
    let bytes = fs::metadata(world.journal("a")).unwrap().len();
    let before = world.records("a").len();
    let began = Instant::now();
    let mut again = world.running("a", &flags);
    let pid = again.id();
    world
        .patiently("a", "a status", || {
            world
                .status("a")
                .is_some_and(|status| Some(status.pid) == pid)
        })
        .await;
    let started = began.elapsed();
    world
        .patiently("a", "the next step", || {
            let text = fs::read(world.journal("a")).unwrap_or_default();
            text.len() as u64 > bytes || world.records("a").len() > before
        })
        .await;
    println!(
        "{} records of {models} models, {} MiB: a status after {:.2} s, a step after {:.1} s, {} MiB resident",
        size.records,
        all >> 20,
        started.as_secs_f64(),
        began.elapsed().as_secs_f64(),
        resident_kib(pid.unwrap()) / 1024,
    );
    assert_eq!(stop(&mut again).await, 0);
}
