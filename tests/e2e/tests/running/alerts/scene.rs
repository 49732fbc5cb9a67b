//! A subnet, a validator and what is around it, all of which can be broken and mended.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use e2e::{wait::until, wall_clock::WallClock};
use localnet::{
    bucket,
    chain::{NeuronConfig, TAO},
    http::{Fault, Faults, Rule, Server},
    hub::{Content, Kind},
    miners::{Family, Role},
    samples,
    wallet::Wallet,
};
use report::status::{Cause, Problem};
use serde_json::Value;
use shared::{clock, status::Health};
use tokio::process::Child;

use super::table::{Case, RUNNING};
use crate::{gate::Gate, world::World};

const HOUR: i64 = 3600;

/// Nothing takes longer to be told; that the chain is silent takes a minute.
const PATIENCE: Duration = Duration::from_mins(2);

/// Of this one people are called at once, and it lasts until they were.
const CALLED: Cause = Cause::Registration;

/// Samples are used for so many hours.
pub(super) const MAX_AGE: &str = "48";

/// Everything that is broken and mended.
pub(super) struct Scene {
    pub(super) world: World,
    clock: WallClock,
    offset: i64,
    pub(super) chain: Gate,
    pub(super) source: Gate,
    bucket: Faults,
    pub(super) server: Server,
    /// The revision that the tokenizer's branch had.
    tokenizer: Option<String>,
    rival: Wallet,
    rival_uid: u16,
    /// What the metrics said of each cause: before, while it was broken, and after it was mended.
    pub(super) told: BTreeMap<Cause, [f64; 3]>,
    /// What never began or never ended.
    pub(super) missing: Vec<String>,
}

impl Scene {
    pub(super) async fn start() -> Self {
        let world = World::start("alerts", Duration::from_millis(250)).await;
        let wall_clock = WallClock::new(world.root());
        let bucket = Faults::default();
        let server = bucket::start(&world.root().join("bucket"), bucket.clone()).await;
        let chain = world.net.chain.ws_url();
        Self {
            chain: Gate::to(chain.trim_start_matches("ws://").parse().unwrap()),
            source: Gate::to(world.net.feed.server.address),
            world,
            clock: wall_clock,
            offset: 0,
            bucket,
            server: server.unwrap(),
            tokenizer: None,
            rival: Wallet::derive(9, "rival"),
            rival_uid: 0,
            told: BTreeMap::new(),
            missing: Vec::new(),
        }
    }

    /// Starts a validator with these flags besides.
    pub(super) fn validator(&self, flags: &[&str]) -> Child {
        let mut command = self.world.command("a");
        command
            .envs(self.clock.environment())
            .env("AWS_ACCESS_KEY_ID", bucket::KEY_ID)
            .env("AWS_SECRET_ACCESS_KEY", bucket::SECRET);
        let chain = self.chain.ws_url();
        let usual = [
            "--subtensor.chain_endpoint",
            &chain,
            "--update_delay_minutes",
            "0",
        ];
        self.world
            .logged(command, "a", &[&usual[..], flags].concat())
    }

    pub(super) fn advance(&mut self, hours: i64) {
        self.offset += hours * HOUR;
        self.clock.set(self.offset);
    }

    fn state(&self, name: &str) -> PathBuf {
        self.world.state("a").join(name)
    }

    fn problem(&self, cause: Cause) -> Option<Problem> {
        let status = self.world.status("a")?;
        status.details.alarms.get(&cause).cloned()
    }

    pub(super) fn metric(&self, cause: Cause) -> f64 {
        let name = format!("finetune_vali_problem{{cause=\"{cause}\"}}");
        let metrics = self.world.metrics("a");
        metrics.get(&name).copied().unwrap_or(f64::NAN)
    }

    /// Waits until status and metrics say that something is at least so bad; returns what the metrics say.
    pub(super) async fn begins(&mut self, (cause, health, fault, _): Case) -> f64 {
        let mut seen = 0.0;
        let begun = || {
            seen = self.metric(cause);
            let problem = self.problem(cause);
            let least = if health == Health::Red { 2.0 } else { 1.0 };
            problem.is_some_and(|problem| problem.health >= health) && seen >= least
        };
        if !until(PATIENCE, begun).await {
            self.missing.push(format!("{cause} after: {fault}"));
        }
        seen
    }

    pub(super) async fn ends(&mut self, (cause, _, _, end): Case) -> f64 {
        let mut seen = 0.0;
        let ended = || {
            seen = self.metric(cause);
            self.problem(cause).is_none() && seen == 0.0
        };
        if !until(PATIENCE, ended).await {
            self.missing
                .push(format!("the end of {cause} after: {end}"));
        }
        seen
    }

    /// Breaks something, sees it told, mends it, and sees that over.
    pub(super) async fn play(&mut self, case: Case) {
        let (cause, began) = (case.0, Instant::now());
        let before = self.metric(cause);
        self.break_it(cause).await;
        let while_broken = self.begins(case).await;
        let told = began.elapsed();
        if cause == CALLED {
            self.called(Some("red")).await;
        }
        let mended = Instant::now();
        self.mend(cause);
        let after = self.ends(case).await;
        self.told.insert(cause, [before, while_broken, after]);
        let ended = mended.elapsed();
        println!("{cause}: {while_broken} after {told:.1?}, ended after {ended:.1?}");
    }

    /// Waits until `--notify` was told how bad it is, or that it is over.
    pub(super) async fn called(&mut self, health: Option<&str>) {
        let told = || {
            let text = fs::read_to_string(self.notices()).unwrap_or_default();
            let notices = text
                .lines()
                .filter_map(|line| serde_json::from_str(line).ok());
            let mut notices =
                notices.filter(|notice: &Value| notice["cause"] == CALLED.to_string());
            notices.any(|notice| notice["health"].as_str() == health)
        };
        if !until(PATIENCE, told).await {
            self.missing.push(format!("word of {CALLED}: {health:?}"));
        }
    }

    pub(super) fn notices(&self) -> PathBuf {
        self.world.root().join("notices")
    }

    async fn break_it(&mut self, cause: Cause) {
        let Self { world, .. } = self;
        let (chain, netuid) = (&world.net.chain, world.net.netuid);
        match cause {
            Cause::Publish => self
                .bucket
                .add(Rule::always(Fault::Unavailable).method("PUT")),
            Cause::Chain => self.chain.bar().await,
            Cause::ChainLag => {
                // Each block is twelve seconds of the chain's time, whatever it takes here.
                let chain = i64::try_from(chain.time() / 1000).unwrap();
                self.clock.set(chain - clock::now().as_second() + 2 * HOUR);
            }
            Cause::State => block(&self.state("state.json")),
            Cause::Store => block(&world.store().join("needs.json")),
            Cause::Tokenizer => {
                let id = Family::Llama.tokenizer_repository();
                self.tokenizer = world.net.hub.edit(|all| {
                    let repository = all.get(Kind::Model, id).unwrap();
                    repository
                        .revision("main")
                        .map(|revision| revision.id.clone())
                });
                let files = ["tokenizer.json", "tokenizer_config.json"]
                    .map(|name| (name.to_owned(), Content::from("{}".to_owned())));
                world.net.hub.commit_model(id, files);
            }
            Cause::Models => {
                world.net.hub.faults().add(Rule::always(Fault::Unavailable));
                self.commit_anew("ab");
            }
            Cause::Tracker => {
                block(&self.state("tracker.json"));
                self.commit_anew("cd");
            }
            Cause::Losses => {
                let long = "one two three four five ".repeat(2000);
                let mut conversations = samples::generate(3, 60);
                for conversation in &mut conversations {
                    conversation.messages[0].content.insert_str(0, &long);
                }
                world.net.feed.show(conversations);
            }
            Cause::Samples => self.source.bar().await,
            Cause::OldSamples | Cause::Step | Cause::Steps => self.starve(cause).await,
            Cause::Wandb => {
                let run = self.state("wandb/offline-run-20200101_000000-old");
                fs::create_dir_all(&run).unwrap();
                File::create(run.join("run-old.wandb")).unwrap();
                // It takes no room: nothing is written to it.
                let rows = File::create(run.join("history.jsonl")).unwrap();
                rows.set_len(5 << 30).unwrap();
            }
            Cause::Twin => self.foreign_weights().await,
            Cause::Trust => {
                let neuron = NeuronConfig::validator(self.rival.hotkey.public(), 500_000 * TAO);
                self.rival_uid = chain.register(netuid, neuron).unwrap();
                let pair = &self.rival.hotkey.pair;
                // A liar: we give it nothing.
                let liar = world.net.miner(Family::StableLm, Role::Liar).unwrap().uid;
                let set = || {
                    chain
                        .set_weights(netuid, pair, &[(liar, 65535)], 27)
                        .is_ok()
                };
                assert!(until(PATIENCE, set).await, "the rival's weights");
            }
            Cause::Weights | Cause::WeightsAge => chain.fail_submissions(1, u32::MAX),
            Cause::Permit => {
                let ours = world.net.validator.hotkey.public();
                chain.set_stake(netuid, ours, 0, 0).unwrap();
            }
            Cause::Commitments => {
                for miner in &world.net.miners {
                    chain.deregister(netuid, miner.uid).unwrap();
                }
            }
            Cause::Registration => chain.deregister(netuid, 0).unwrap(),
            other => panic!("{other} is not broken here"),
        }
    }

    fn mend(&mut self, cause: Cause) {
        let Self { world, .. } = self;
        let (chain, netuid) = (&world.net.chain, world.net.netuid);
        match cause {
            Cause::Publish => self.bucket.clear(),
            Cause::Chain => self.chain.open(),
            Cause::ChainLag => self.clock.set(self.offset),
            Cause::State => fs::remove_dir(self.state("state.json")).unwrap(),
            Cause::Store => fs::remove_dir(world.store().join("needs.json")).unwrap(),
            Cause::Tracker => fs::remove_dir(self.state("tracker.json")).unwrap(),
            Cause::Tokenizer => {
                let id = Family::Llama.tokenizer_repository();
                let revision = self.tokenizer.take().unwrap();
                world.net.hub.edit(|all| {
                    let repository = all.get_mut(Kind::Model, id).unwrap();
                    repository.set_branch("main", &revision);
                });
            }
            Cause::Models => {
                world.net.hub.faults().clear();
                // It is asked again when it is time.
                self.advance(1);
            }
            Cause::Losses => world.net.feed.show(samples::generate(4, 60)),
            Cause::Samples | Cause::OldSamples | Cause::Step | Cause::Steps => self.source.open(),
            Cause::Wandb => {
                let run = self.state("wandb/offline-run-20200101_000000-old");
                fs::remove_dir_all(run).unwrap();
            }
            Cause::Twin => {}
            Cause::Trust => chain.deregister(netuid, self.rival_uid).unwrap(),
            Cause::Weights | Cause::WeightsAge => chain.clear_faults(),
            Cause::Permit => {
                let ours = world.net.validator.hotkey.public();
                chain.set_stake(netuid, ours, 5_000 * TAO, 0).unwrap();
            }
            Cause::Commitments => {
                let miner = &world.net.miners[0].wallet;
                let neuron = NeuronConfig::miner(miner.hotkey.public());
                chain
                    .register(netuid, neuron.owned_by(miner.coldkey.public()))
                    .unwrap();
            }
            Cause::Registration => {
                let ours = world.net.validator.hotkey.public();
                chain
                    .register(netuid, NeuronConfig::validator(ours, 5_000 * TAO))
                    .unwrap();
            }
            other => panic!("{other} is not mended here"),
        }
    }

    /// A miner commits to a model that is not there.
    fn commit_anew(&self, digits: &str) {
        let net = &self.world.net;
        let miner = net.miner(Family::Llama, Role::BoundCopy).unwrap();
        let record = miner.commitment();
        let mut parts: Vec<&str> = record.split(':').collect();
        let revision = digits.repeat(20);
        parts[2] = &revision;
        let record = parts.join(":");
        let pair = &miner.wallet.hotkey.pair;
        net.chain
            .commit(net.netuid, pair, record.as_bytes())
            .unwrap();
    }

    /// Sets weights with our hotkey until that is seen: ours may follow before the validator looks.
    async fn foreign_weights(&self) {
        for _ in 0..5 {
            self.world.set_foreign_weights("a").await;
            let seen = || self.problem(Cause::Twin).is_some();
            if until(Duration::from_secs(5), seen).await {
                return;
            }
        }
    }

    /// Bars the source of samples and lets time pass.
    async fn starve(&mut self, cause: Cause) {
        self.source.bar().await;
        let [samples, step] = [Cause::Samples, Cause::Step].map(|cause| {
            let mut cases = RUNNING.iter();
            *cases.find(|case| case.0 == cause).unwrap()
        });
        self.begins(samples).await;
        self.advance(25);
        if cause == Cause::OldSamples {
            return;
        }
        self.advance(25);
        if cause == Cause::Steps {
            // A step under way would be of this day.
            self.begins(step).await;
            self.advance(25);
        }
    }
}

/// Puts a folder in the place of a file, which the validator may be writing.
fn block(path: &Path) {
    while fs::create_dir(path).is_err() {
        let _ = fs::remove_file(path);
    }
}
