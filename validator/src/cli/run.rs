//! `validator run`: the validator itself.

use std::{sync::Arc, time::Duration};

use clap::Args;
use shared::{
    Exit, Failure, cli::FullPath, log_file::LogFile, status, supervision, version::Version,
};

use super::{
    flags::{
        ChainFlags, ConfigFlag, EngineFlags, FetchFlags, HubFlags, KeepFlags, LoggingFlags,
        PublishFlags, SampleFlags, StateFlags, StoreFlags, WalletFlags, WandbFlags, WandbLogFlags,
        WatchFlags,
    },
    runtime::block_on,
    workers,
};
use crate::{
    service::{self, Settings},
    step,
};
use subnet::Parameters;

/// The log file, in the folder of the state; its size and number as bittensor has them.
const LOG: &str = "validator.log";
const LOG_BYTES: u64 = 25 << 20;
const LOG_FILES: u32 = 10;

/// Evaluate models and set weights, until told to stop
#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    #[command(flatten)]
    config: ConfigFlag,
    #[command(flatten)]
    wallet: WalletFlags,
    #[command(flatten)]
    chain: ChainFlags,
    #[command(flatten)]
    store: StoreFlags,
    #[command(flatten)]
    fetch: FetchFlags,
    #[command(flatten)]
    keep: KeepFlags,
    #[command(flatten)]
    hub: HubFlags,
    #[command(flatten)]
    samples: SampleFlags,
    #[command(flatten)]
    engine: EngineFlags,
    #[command(flatten)]
    steps: StepFlags,
    #[command(flatten)]
    weights: WeightFlags,
    #[command(flatten)]
    wandb: WandbFlags,
    #[command(flatten)]
    rows: WandbLogFlags,
    #[command(flatten)]
    watch: WatchFlags,
    #[command(flatten)]
    publish: PublishFlags,
    #[command(flatten)]
    state: StateFlags,
    #[command(flatten)]
    start: StartFlags,
    #[command(flatten)]
    pub(super) log: LoggingFlags,
    #[command(flatten)]
    log_file: LogFileFlag,
    #[command(flatten)]
    old: OldFlags,
}

/// What a step is, and how many there are.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Evaluation")]
struct StepFlags {
    /// Models kept for each step [default: the subnet file's]
    #[arg(long = "sample_min", value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    sample_min: Option<u64>,
    /// Let each model answer a prompt in every step, for people to read
    #[arg(long = "do_sample")]
    do_sample: bool,
    /// Minutes one attempt at a step may take; what is computed is kept [default: the subnet
    /// file's]
    #[arg(long = "step-minutes", value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    step_minutes: Option<u64>,
    /// Stop after this many steps
    #[arg(long = "max-steps", value_name = "N")]
    max_steps: Option<u64>,
}

/// When weights are set.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Weights")]
struct WeightFlags {
    /// Blocks between weight sets [default: the subnet file's]
    #[arg(long = "blocks_per_epoch", value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    blocks_per_epoch: Option<u64>,
    /// Compute weights and never set them
    #[arg(long = "dont_set_weights")]
    dont_set_weights: bool,
}

/// What the validator starts from, and where it says how it is.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "State")]
struct StartFlags {
    /// Start from nothing rather than from the state on disk or the chain's consensus
    #[arg(long)]
    genesis: bool,
    /// No W&B, no weights, no registration check; works from chain data on disk if need be
    #[arg(long)]
    offline: bool,
    /// Where the supervisor wants the status
    #[arg(long = "status-file", value_name = "FILE", env = status::ENV, hide_env_values = true)]
    status_file: Option<FullPath>,
    /// Folder of the supervisor, which `validator status` asks
    #[arg(long = "supervisor-home", value_name = "DIR", env = supervision::HOME, hide_env_values = true)]
    supervisor: Option<FullPath>,
}

/// Whether the log is kept in a file.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Log")]
struct LogFileFlag {
    /// Keep the log in a file too: validator.log in the folder of the state, rotated at 25 MB
    #[arg(long = "logging.record_log")]
    record_log: bool,
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
    block_on(service::run(settings))
}

impl RunArgs {
    /// Starts logging, into a file too if asked for.
    fn start_log(&self) -> Result<(), Failure> {
        if !self.log_file.record_log {
            self.log.init();
            return Ok(());
        }
        let netuid = self.chain.parameters()?.netuid;
        let path = self.state.folder(&self.wallet, netuid).join(LOG);
        let file = LogFile::open(&path, LOG_BYTES, LOG_FILES).map_err(|error| {
            let text = format!("could not open the log {}", path.display());
            Failure::new(Exit::Machine, text).caused_by(&error)
        })?;
        self.log.init_with_file(file);
        Ok(())
    }

    /// Returns what the service needs, or what is wrong with the flags.
    pub(crate) fn settings(&self, version: Version) -> Result<Settings, Failure> {
        let parameters = self.parameters()?;
        let folder = self.state.folder(&self.wallet, parameters.netuid);
        let endpoints = self.chain.endpoints()?;
        let model_folder = self.store.root();
        let limits = parameters.limits;
        Ok(Settings {
            samples: self.samples.settings(
                &parameters,
                folder.join("sample-cache"),
                &self.hub,
                &self.wandb,
            )?,
            sample_count: self.samples.count.unwrap_or(limits.samples),
            wandb: self
                .rows
                .settings(&self.wandb, &folder)
                .filter(|_| !self.start.offline),
            workers: eval::Options {
                device_memory: self.engine.gpu_memory.map(|size| size.0),
                ..workers::options(
                    &self.engine.worker,
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
                do_sample: self.steps.do_sample,
                limit: minutes(self.steps.step_minutes.unwrap_or(limits.step_minutes)),
                parameters,
            },
            version: version.to_string(),
            folder,
            status_file: self.start.status_file.clone().map(Into::into),
            supervisor: self.start.supervisor.clone().map(Into::into),
            endpoints,
            wallet: self.wallet.path(),
            passwords: Arc::new(WalletFlags::passwords()),
            offline: self.start.offline,
            dont_set_weights: self.weights.dont_set_weights,
            genesis: self.start.genesis,
            update_delay: minutes(self.keep.update_delay_minutes),
            grace: minutes(self.keep.grace_period_minutes),
            model_folder,
            limits: self.store.limits(),
            hub: self.fetch.options(&self.hub)?,
            max_steps: self.steps.max_steps,
            dashboard: self.watch.dashboard.map(|address| service::Dashboard {
                address,
                token: self.watch.dashboard_token.clone(),
            }),
            publish: self.publish.place()?,
            site: self.watch.page_dir.clone().map(Into::into),
            notify: self.watch.notify.clone(),
            metrics_addr: self.watch.metrics_addr,
        })
    }

    fn parameters(&self) -> Result<Parameters, Failure> {
        let mut parameters = self.chain.parameters()?;
        parameters.blocks_per_epoch = self
            .weights
            .blocks_per_epoch
            .unwrap_or(parameters.blocks_per_epoch);
        if let Some(keep) = self.steps.sample_min {
            parameters.sample_min = usize::try_from(keep).unwrap_or(usize::MAX);
        }
        Ok(parameters)
    }
}

fn minutes(n: u64) -> Duration {
    Duration::from_secs(n.saturating_mul(60))
}
