//! The whole subnet in one value: start it, look at it, vex it, drop it.

use std::{
    fmt::Write as _,
    path::{Path, PathBuf},
    time::Duration,
};

use shared::{
    Exit, Failure,
    file::{self, FileLock},
    term::{self, Table},
};
use tempfile::TempDir;

use crate::{
    chain::{Chain, ChainConfig, ChainError, Hyperparameters, NeuronConfig, SubnetConfig, TAO},
    endpoints::Endpoints,
    feed::Feed,
    hub::{self, Content, Hub},
    miners::{Family, Miner, Role, Workshop},
    remote::{self, Remote},
    samples, table,
    wallet::Wallet,
    wandb::Wandb,
};

/// Seed of the feed's conversations relative to the subnet's; those to train on have another.
const FEED_SEED: u64 = 0x0066_6565_6400;

#[derive(Debug, Clone)]
pub struct Options {
    /// Where files go: wallets, models, samples. `None` takes a temporary folder, removed on drop.
    pub state_dir: Option<PathBuf>,
    /// The chain's port; hub, CDN, feed, W&B stand-in and git remote take the next ones. `None`
    /// takes free ports.
    pub base_port: Option<u16>,
    /// Decides keys, models and samples.
    pub seed: u64,
    pub netuid: u16,
    /// Miners to make, in the order in which they commit. Training takes some seconds for each
    /// family that occurs, once for a state folder and seed.
    pub miners: Vec<(Family, Role)>,
    pub samples: usize,
    /// A block each time this much wall clock has passed; `None`: one for each extrinsic.
    pub block_time: Option<Duration>,
    /// Tells its chain apart from others of the same options: see [`ChainConfig::chain_id`].
    pub chain_id: u64,
    /// Blocks between the chain's epochs.
    pub tempo: u16,
    /// Everything else about the subnet on the chain.
    pub hyperparameters: Hyperparameters,
    /// A checkout whose committed state the git remote offers; `None` starts no remote.
    pub source: Option<PathBuf>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            state_dir: None,
            base_port: None,
            seed: 1,
            netuid: 6,
            miners: Self::all_miners(),
            samples: 200,
            block_time: None,
            chain_id: 0,
            tempo: 20,
            hyperparameters: Hyperparameters {
                weights_rate_limit: 5,
                ..Hyperparameters::default()
            },
            source: None,
        }
    }
}

impl Options {
    /// All kinds of miners for both competitions.
    pub fn all_miners() -> Vec<(Family, Role)> {
        Role::ALL
            .iter()
            .flat_map(|role| Family::ALL.map(|family| (family, *role)))
            .collect()
    }

    /// A subnet without models, up in an instant.
    pub fn without_miners() -> Self {
        Self {
            miners: Vec::new(),
            ..Self::default()
        }
    }
}

/// A running subnet. Dropping it closes every port.
#[derive(Debug)]
pub struct Localnet {
    pub chain: Chain,
    pub hub: Hub,
    pub feed: Feed,
    /// The W&B stand-in: gives samples, takes runs.
    pub wandb: Wandb,
    /// The git remote, if asked for.
    pub remote: Option<Remote>,
    /// The validator's wallet; its uid is 0.
    pub validator: Wallet,
    /// The miners, in the order in which they committed.
    pub miners: Vec<Miner>,
    pub netuid: u16,
    folder: PathBuf,
    _temporary: Option<TempDir>,
    _lock: FileLock,
}

impl Localnet {
    /// Starts everything; `progress` is told what is being done.
    pub async fn start_with(
        options: Options,
        progress: impl Fn(&str) + Send + Sync + 'static,
    ) -> Result<Self, Failure> {
        let (folder, temporary) = folder(options.state_dir.as_deref())?;
        let lock = FileLock::try_acquire(&folder.join("lock"), "localnet").map_err(|error| {
            Failure::of(Exit::Denied, &error)
                .hint("stop the other localnet, or choose another --state-dir")
        })?;
        let port = |offset| options.base_port.map_or(0, |base| base + offset);

        progress("starting the chain");
        let validator = Wallet::derive(options.seed, "validator");
        let wallets: Vec<Wallet> = options
            .miners
            .iter()
            .map(|(family, role)| {
                let name = format!("miner-{}-{}", family.competition(), role.word());
                Wallet::derive(options.seed, &name)
            })
            .collect();
        let chain = start_chain(port(0), &options, &validator, &wallets).await?;
        let hub = Hub::start(hub::Ports {
            hub: port(1),
            cdn: port(2),
        })
        .await?;
        let conversations = samples::generate(options.seed ^ FEED_SEED, options.samples);
        let lines = samples::to_jsonl(&conversations);
        hub.commit_dataset(
            "localnet/chat",
            [("data/train.jsonl".to_owned(), Content::from(lines.clone()))],
        );
        let table = table::to_parquet(&conversations, 50, 0)
            .map_err(|error| Failure::of(Exit::Bug, &error).because("the parquet dataset"))?;
        hub.commit_dataset(
            "localnet/chat-parquet",
            [("data/train-00000-of-00001.parquet".to_owned(), table.into())],
        );
        let wandb = Wandb::start(port(4), &conversations).await?;
        let feed = Feed::start(port(3), conversations).await?;
        let remote = match &options.source {
            Some(source) => {
                progress("copying the project to a git remote");
                Some(Remote::start(port(5), remote::Origin::new(source, &folder)).await?)
            }
            None => None,
        };

        file::write_atomic(&folder.join("samples.jsonl"), lines.as_bytes()).map_err(disk)?;
        let keys = (validator.clone(), wallets);
        let (hub, miners) = make_miners(&options, keys, hub, folder.clone(), progress).await?;
        // Only a chain with a block knows the hash of its genesis, which extrinsics are bound to.
        chain
            .produce_blocks(1)
            .await
            .map_err(|error| chain_failure(&error))?;
        for miner in &miners {
            let record = miner.commitment();
            chain
                .commit(options.netuid, &miner.wallet.hotkey.pair, record.as_bytes())
                .map_err(|error| chain_failure(&error).because("a miner could not commit"))?;
        }
        let localnet = Self {
            chain,
            hub,
            feed,
            wandb,
            remote,
            validator,
            miners,
            netuid: options.netuid,
            folder,
            _temporary: temporary,
            _lock: lock,
        };
        localnet.write_subnet_file()?;
        localnet.write_endpoints()?;
        Ok(localnet)
    }

    /// Starts everything without telling what is being done.
    pub async fn start(options: Options) -> Result<Self, Failure> {
        Self::start_with(options, |_| ()).await
    }

    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Returns the miner of a role.
    pub fn miner(&self, family: Family, role: Role) -> Option<&Miner> {
        self.miners
            .iter()
            .find(|miner| miner.family == family && miner.role == role)
    }

    /// Returns the miners as a table for people.
    pub fn miner_table(&self) -> Table {
        let mut table = term::table(["uid", "competition", "miner", "repository", "hotkey"]);
        for miner in &self.miners {
            table.add_row([
                miner.uid.to_string(),
                miner.family.competition().to_owned(),
                miner.role.to_string(),
                miner.repository.clone(),
                miner.wallet.hotkey.ss58(),
            ]);
        }
        table
    }

    pub fn endpoints(&self) -> Endpoints {
        Endpoints {
            chain: self.chain.ws_url(),
            netuid: self.netuid,
            hub: self.hub.url(),
            samples: self.feed.url(),
            samples_file: self.folder.join("samples.jsonl"),
            wandb: self.wandb.url(),
            git: self.remote.as_ref().map(Remote::file_url),
            wallets: self.folder.join("wallets"),
            wallet: self.validator.name.clone(),
            subnet: self.folder.join("subnet.toml"),
        }
    }

    /// Returns a source of samples of each kind, as `--samples` takes them.
    pub fn sample_sources(&self) -> Vec<String> {
        let endpoints = self.endpoints();
        let other_form = endpoints.samples.replace(".jsonl", ".json");
        vec![
            format!("jsonl:{}", endpoints.samples_file.display()),
            "hf:localnet/chat-parquet".to_owned(),
            "hf:localnet/chat".to_owned(),
            format!("{},{other_form}", endpoints.samples),
            "wandb:cortex-t/multi-modality".to_owned(),
            "wandb:macrocosmos/prompting-validators?layout=sn1".to_owned(),
        ]
    }

    /// Returns the environment that leads programs here.
    pub fn environment(&self) -> Vec<(&'static str, String)> {
        let endpoints = self.endpoints();
        vec![
            ("BT_SUBTENSOR_CHAIN_ENDPOINT", endpoints.chain),
            ("BT_WALLET_PATH", endpoints.wallets.display().to_string()),
            ("BT_WALLET_NAME", endpoints.wallet),
            ("HF_ENDPOINT", endpoints.hub),
            ("WANDB_BASE_URL", endpoints.wandb),
            ("WANDB_API_KEY", crate::wandb::API_KEY.to_owned()),
        ]
    }

    /// Returns the arguments that, with [`Localnet::environment`], lead a validator here.
    pub fn validator_arguments(&self) -> Vec<String> {
        let endpoints = self.endpoints();
        [
            ("--subtensor.chain_endpoint", endpoints.chain),
            ("--wallet.path", endpoints.wallets.display().to_string()),
            ("--wallet.name", endpoints.wallet),
            ("--subnet", endpoints.subnet.display().to_string()),
        ]
        .into_iter()
        .flat_map(|(flag, value)| [flag.to_owned(), value])
        .collect()
    }

    /// The subnet file is the embedded one of the validator with this subnet's number and sources.
    fn write_subnet_file(&self) -> Result<(), Failure> {
        const EMBEDDED: &str = include_str!("../../../validator/subnet/data/subnet.toml");
        let mut table: toml::Table = EMBEDDED.parse().map_err(|error| {
            Failure::of(Exit::Bug, &error).because("the validator's embedded subnet file")
        })?;
        // This is a subnet of its own.
        table.remove("identity");
        let mut set = |key: &str, value: toml::Value| table.insert(key.to_owned(), value);
        set("netuid", i64::from(self.netuid).into());
        set("start_block", 0.into());
        set("blocks_per_epoch", 10.into());
        set("samples", vec![self.feed.url()].into());
        let text = table.to_string();
        file::write_atomic(&self.folder.join("subnet.toml"), text.as_bytes()).map_err(disk)
    }

    /// Writes `endpoints.json` and `localnet.env`, which a shell can source.
    fn write_endpoints(&self) -> Result<(), Failure> {
        let endpoints = self.endpoints();
        let json = serde_json::to_vec_pretty(&endpoints).unwrap_or_default();
        file::write_atomic(&self.folder.join("endpoints.json"), &json).map_err(disk)?;
        let mut env = String::new();
        for (name, value) in self.environment() {
            let _ = writeln!(env, "export {name}='{value}'");
        }
        file::write_atomic(&self.folder.join("localnet.env"), env.as_bytes()).map_err(disk)
    }
}

fn disk(error: file::FileError) -> Failure {
    let failure = Failure::of(Exit::Machine, &error);
    if error.is_full() {
        return failure.hint("free some space, or choose another --state-dir");
    }
    failure.hint("choose another --state-dir")
}

fn chain_failure(error: &ChainError) -> Failure {
    match error {
        ChainError::Listen { .. } => Failure::of(Exit::Denied, error)
            .hint("stop what listens there, or choose other ports with --base-port"),
        _ => Failure::of(Exit::Bug, error),
    }
}

fn folder(asked: Option<&Path>) -> Result<(PathBuf, Option<TempDir>), Failure> {
    if let Some(path) = asked {
        file::create_dir(path).map_err(disk)?;
        let absolute = path
            .canonicalize()
            .map_err(file::FileError::on("find", path));
        return Ok((absolute.map_err(disk)?, None));
    }
    let made = tempfile::Builder::new().prefix("localnet-").tempdir();
    let temporary = made.map_err(|error| {
        Failure::of(Exit::Machine, &error)
            .because("no temporary folder")
            .hint("name a folder with --state-dir")
    })?;
    Ok((temporary.path().to_owned(), Some(temporary)))
}

async fn start_chain(
    port: u16,
    options: &Options,
    validator: &Wallet,
    miners: &[Wallet],
) -> Result<Chain, Failure> {
    let ours = NeuronConfig::validator(validator.hotkey.public(), 10_000 * TAO)
        .owned_by(validator.coldkey.public());
    let others = miners.iter().map(|wallet| {
        NeuronConfig::miner(wallet.hotkey.public()).owned_by(wallet.coldkey.public())
    });
    let config = ChainConfig {
        port,
        block_time: options.block_time,
        chain_id: options.chain_id,
        endowed: vec![validator.coldkey.public(), validator.hotkey.public()],
        subnets: vec![SubnetConfig {
            netuid: options.netuid,
            tempo: options.tempo,
            hyperparameters: options.hyperparameters.clone(),
            neurons: std::iter::once(ours).chain(others).collect(),
            ..SubnetConfig::default()
        }],
        ..ChainConfig::default()
    };
    Chain::start(config)
        .await
        .map_err(|error| chain_failure(&error))
}

/// Writes wallets, trains and publishes on a thread of its own: it is work for seconds.
async fn make_miners(
    options: &Options,
    (validator, wallets): (Wallet, Vec<Wallet>),
    hub: Hub,
    folder: PathBuf,
    progress: impl Fn(&str) + Send + 'static,
) -> Result<(Hub, Vec<Miner>), Failure> {
    let (plan, seed) = (options.miners.clone(), options.seed);
    let work = move || -> Result<(Hub, Vec<Miner>), Failure> {
        for wallet in std::iter::once(&validator).chain(&wallets) {
            wallet.write(&folder.join("wallets")).map_err(disk)?;
        }
        let models = folder.join("models");
        let mut miners: Vec<Option<Miner>> = plan.iter().map(|_| None).collect();
        for family in Family::ALL {
            if !plan.iter().any(|(wanted, _)| *wanted == family) {
                continue;
            }
            let (mut done, all) = (0, Workshop::steps());
            let workshop = Workshop::open(&models, family, seed, || {
                done += 1;
                progress(&format!(
                    "training {} miners: step {done} of {all}",
                    family.word()
                ));
            })?;
            hub.commit_model(family.tokenizer_repository(), workshop.tokenizer_files()?);
            for (index, (wanted, role)) in plan.iter().enumerate() {
                if *wanted == family {
                    let model = workshop.model(*role)?;
                    let uid = index as u16 + 1;
                    let wallet = wallets[index].clone();
                    miners[index] = Some(Miner::publish(*role, &model, wallet, uid, &hub)?);
                }
            }
        }
        Ok((hub, miners.into_iter().flatten().collect()))
    };
    tokio::task::spawn_blocking(work).await.map_err(|error| {
        Failure::of(Exit::Bug, &error).because("the thread that trains the miners panicked")
    })?
}
