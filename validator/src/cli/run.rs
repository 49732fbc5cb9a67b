//! `validator run`: the validator itself.

use std::{
    env,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use clap::Args;
use shared::{Exit, Failure, log_file::LogFile, status, version::Version};

use super::{
    flags::{ChainFlags, EngineFlags, LogFlags, StateFlags, WalletFlags, expand_home},
    models::{FetchFlags, StoreFlags},
    samples::{SampleFlags, WandbFlags},
    workers,
};
use crate::{
    service::{self, Settings},
    step,
};
use chain::{Endpoints, wallet::Passwords};
use subnet::Parameters;

/// The log file, in the folder of the state; its size and number as bittensor has them.
const LOG: &str = "validator.log";
const LOG_BYTES: u64 = 25 << 20;
const LOG_FILES: u32 = 10;

/// Evaluate models and set weights, until told to stop
#[derive(Debug, Args)]
#[expect(clippy::struct_excessive_bools, reason = "they are switches")]
pub struct RunArgs {
    /// YAML or TOML file with these flags as keys; the command line beats it
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(flatten)]
    wallet: WalletFlags,
    #[command(flatten)]
    chain: ChainFlags,
    #[command(flatten)]
    engine: EngineFlags,
    #[command(flatten)]
    samples: SampleFlags,
    #[command(flatten)]
    store: StoreFlags,
    #[command(flatten)]
    fetch: FetchFlags,
    /// Minutes for which models that nobody needs are kept
    #[arg(long = "grace_period_minutes", value_name = "N", default_value_t = 120)]
    grace_period_minutes: u64,
    #[command(flatten)]
    state: StateFlags,
    #[command(flatten)]
    pub(super) log: LogFlags,
    /// Keep the log in a file too: validator.log in the folder of the state, rotated at 25 MB
    #[arg(long = "logging.record_log")]
    record_log: bool,
    #[command(flatten)]
    wandb: WandbLogFlags,
    #[command(flatten)]
    old: OldFlags,
    /// Blocks between weight sets [default: the subnet file's]
    #[arg(long = "blocks_per_epoch", value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    blocks_per_epoch: Option<u64>,
    /// Models kept for each step [default: the subnet file's]
    #[arg(long = "sample_min", value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    sample_min: Option<u64>,
    /// Compute weights and never set them
    #[arg(long = "dont_set_weights")]
    dont_set_weights: bool,
    /// No W&B, no weights, no registration check; works from chain data on disk if need be
    #[arg(long)]
    offline: bool,
    /// Start from nothing rather than from the state on disk or the chain's consensus
    #[arg(long)]
    genesis: bool,
    /// Let each model answer a prompt in every step, for people to read
    #[arg(long = "do_sample")]
    do_sample: bool,
    /// Minutes between looks at a uid's commitment
    #[arg(long = "update_delay_minutes", value_name = "N", default_value_t = 5)]
    update_delay_minutes: u64,
    /// Minutes one attempt at a step may take; what is computed is kept [default: the subnet
    /// file's]
    #[arg(long = "step-minutes", value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    step_minutes: Option<u64>,
    /// Stop after this many steps
    #[arg(long = "max-steps", value_name = "N")]
    max_steps: Option<u64>,
    /// Where the supervisor wants the status
    #[arg(long = "status-file", value_name = "FILE", env = status::ENV, hide_env_values = true)]
    status_file: Option<PathBuf>,
}

/// Whether and where rows of the steps go to W&B.
#[derive(Debug, Clone, Args)]
#[expect(
    clippy::struct_field_names,
    reason = "clap knows arguments by these names"
)]
struct WandbLogFlags {
    /// W&B project to log to; without one nothing is logged
    #[arg(long = "wandb_project", value_name = "NAME", env = "WANDB_PROJECT")]
    wandb_project: Option<String>,
    /// W&B entity that owns the project [default: the key's]
    #[arg(long = "wandb_entity", value_name = "NAME", env = "WANDB_ENTITY")]
    wandb_entity: Option<String>,
    /// Begin a new W&B run after this many steps
    #[arg(long = "wandb_max_steps_per_run", value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    wandb_max_steps_per_run: Option<u64>,
    /// online, offline (keep rows on disk for `wandb sync`) or disabled
    #[arg(long = "wandb_mode", value_name = "MODE", env = "WANDB_MODE", default_value = "online", value_parser = ["online", "offline", "disabled"])]
    wandb_mode: String,
    /// Folder of the W&B runs on disk [default: the state's]
    #[arg(long = "wandb_dir", value_name = "DIR", env = "WANDB_DIR")]
    wandb_dir: Option<PathBuf>,
    /// Log nothing to W&B
    #[arg(long = "wandb.off")]
    wandb_off: bool,
}

impl WandbLogFlags {
    fn settings(&self, access: &WandbFlags, state: &Path) -> Option<report::wandb::LoggerSettings> {
        let project = self.wandb_project.clone().filter(|_| !self.wandb_off)?;
        let key = match self.wandb_mode.as_str() {
            "disabled" => return None,
            "offline" => None,
            _ => access.key(),
        };
        Some(report::wandb::LoggerSettings {
            base_url: access.wandb_url.clone(),
            key,
            entity: self.wandb_entity.clone(),
            project,
            folder: self.wandb_dir.clone().unwrap_or_else(|| state.to_owned()),
            max_steps_per_run: self.wandb_max_steps_per_run,
            name: String::new(),
            config: Vec::new(),
            sign: None,
        })
    }
}

/// Flags of the Python validator that mean nothing any more.
#[derive(Debug, Clone, Args)]
struct OldFlags {
    #[arg(long = "axon.port", hide = true, value_name = "X")]
    axon_port: Option<String>,
    #[arg(long = "axon.ip", hide = true, value_name = "X")]
    axon_ip: Option<String>,
    #[arg(long = "axon.external_ip", hide = true, value_name = "X")]
    axon_external_ip: Option<String>,
    #[arg(long = "axon.external_port", hide = true, value_name = "X")]
    axon_external_port: Option<String>,
    #[arg(long = "axon.max_workers", hide = true, value_name = "X")]
    axon_max_workers: Option<String>,
    #[arg(long = "no_prompt", hide = true)]
    no_prompt: bool,
    #[arg(long = "no_version_checking", hide = true)]
    no_version_checking: bool,
    #[arg(long = "strict", hide = true)]
    strict: bool,
}

impl OldFlags {
    fn given(&self) -> Vec<&'static str> {
        [
            ("--axon.port", self.axon_port.is_some()),
            ("--axon.ip", self.axon_ip.is_some()),
            ("--axon.external_ip", self.axon_external_ip.is_some()),
            ("--axon.external_port", self.axon_external_port.is_some()),
            ("--axon.max_workers", self.axon_max_workers.is_some()),
            ("--no_prompt", self.no_prompt),
            ("--no_version_checking", self.no_version_checking),
            ("--strict", self.strict),
        ]
        .into_iter()
        .filter_map(|(name, given)| given.then_some(name))
        .collect()
    }
}

pub(super) fn run(args: &RunArgs, version: Version) -> Result<Exit, Failure> {
    args.start_log()?;
    let old = args.old.given();
    if !old.is_empty() {
        tracing::warn!(
            flags = old.join(" "),
            "these flags mean nothing any more and are ignored"
        );
    }
    let settings = args.settings(version)?;
    super::block_on(service::run(settings))
}

impl RunArgs {
    /// Starts logging, into a file too if asked for.
    fn start_log(&self) -> Result<(), Failure> {
        if !self.record_log {
            self.log.init();
            return Ok(());
        }
        let netuid = self.chain.parameters()?.netuid;
        let path = self.state.folder(&self.wallet, netuid).join(LOG);
        let file = LogFile::open(&path, LOG_BYTES, LOG_FILES).map_err(|error| {
            let text = format!("could not open the log {}", path.display());
            Failure::new(Exit::Machine, text).because(&error)
        })?;
        self.log.init_with_file(file);
        Ok(())
    }

    /// Returns what the service needs, or what is wrong with the flags.
    pub fn settings(&self, version: Version) -> Result<Settings, Failure> {
        let parameters = self.parameters()?;
        let folder = self.state.folder(&self.wallet, parameters.netuid);
        let endpoints = self.chain.endpoints();
        let endpoints = Endpoints::resolve(self.chain.subtensor_network.as_deref(), &endpoints)
            .map_err(|error| Failure::of(Exit::Usage, &error))?;
        let model_folder = absolute(self.store.root())?;
        let limits = parameters.limits;
        Ok(Settings {
            samples: self
                .samples
                .settings(&parameters, folder.join("sample-cache"))?,
            sample_count: self.samples.count.unwrap_or(limits.samples),
            wandb: self
                .wandb
                .settings(&self.samples.wandb, &folder)
                .filter(|_| !self.offline),
            workers: eval::Options {
                device_memory: self.engine.gpu_memory.map(|size| size.0),
                ..workers::options(
                    self.engine.eval_worker.as_deref(),
                    &self.engine.device,
                    [model_folder.clone()],
                )?
            },
            step: step::Settings {
                dtype: self.engine.dtype,
                attention: self.engine.attention,
                pack_tokens: self.engine.pack_tokens,
                seed: self.samples.seed.unwrap_or_default(),
                sync_blocks: self.samples.sync_blocks.unwrap_or(limits.sync_blocks),
                do_sample: self.do_sample,
                limit: minutes(self.step_minutes.unwrap_or(limits.step_minutes)),
                parameters,
            },
            version: version.to_string(),
            folder,
            status_file: self.status_file.clone(),
            endpoints,
            wallet: self.wallet.path(),
            locks: expand_home(&self.store.data_home).join("finetune-vali/locks"),
            passwords: Arc::new(passwords()),
            offline: self.offline,
            dont_set_weights: self.dont_set_weights,
            genesis: self.genesis,
            update_delay: minutes(self.update_delay_minutes),
            grace: minutes(self.grace_period_minutes),
            model_folder,
            limits: self.store.limits(),
            hub: self.fetch.options(&self.samples.hub)?,
            max_steps: self.max_steps,
        })
    }

    fn parameters(&self) -> Result<Parameters, Failure> {
        let mut parameters = self.chain.parameters()?;
        parameters.blocks_per_epoch = self.blocks_per_epoch.unwrap_or(parameters.blocks_per_epoch);
        if let Some(keep) = self.sample_min {
            parameters.sample_min = usize::try_from(keep).unwrap_or(usize::MAX);
        }
        Ok(parameters)
    }
}

/// Returns where passwords of encrypted hotkeys come from: environment, file, prompt.
pub fn passwords() -> Passwords {
    use std::io::IsTerminal;
    let environment = env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    Passwords::new(environment, std::io::stdin().is_terminal())
}

/// Workers have a working folder of their own.
fn absolute(path: PathBuf) -> Result<PathBuf, Failure> {
    std::path::absolute(&path).map_err(|error| {
        Failure::new(
            Exit::Config,
            format_args!("{} is no folder", path.display()),
        )
        .because(error)
    })
}

fn minutes(n: u64) -> Duration {
    Duration::from_secs(n.saturating_mul(60))
}
