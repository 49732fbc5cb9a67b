//! Flags that several commands share, by the names the Python validator gave them.

use std::{env, path::PathBuf};

use clap::Args;
use model::{Attention, Dtype};
use shared::{Exit, Failure, log::Format, log_file::LogFile};

use chain::wallet::WalletPath;
use subnet::{Netuid, Parameters};

pub use super::competitions::SubnetArg;
use super::models::ByteSize;

/// Which wallet.
#[derive(Debug, Clone, Args)]
pub struct WalletFlags {
    /// Wallet (coldkey) name
    #[arg(
        long = "wallet.name",
        value_name = "NAME",
        default_value = "default",
        env = "BT_WALLET_NAME"
    )]
    pub wallet_name: String,
    /// Hotkey name
    #[arg(
        long = "wallet.hotkey",
        value_name = "NAME",
        default_value = "default",
        env = "BT_WALLET_HOTKEY"
    )]
    pub wallet_hotkey: String,
    /// Folder of the wallets
    #[arg(
        long = "wallet.path",
        value_name = "DIR",
        default_value = "~/.bittensor/wallets",
        env = "BT_WALLET_PATH"
    )]
    pub wallet_path: PathBuf,
}

/// Which chain, which subnet.
#[derive(Debug, Clone, Args)]
pub struct ChainFlags {
    /// finney, test, archive, local or a ws:// URL [default: finney]
    #[arg(
        long = "subtensor.network",
        value_name = "NAME",
        env = "BT_SUBTENSOR_NETWORK"
    )]
    pub subtensor_network: Option<String>,
    /// Chain endpoint; repeat it for a list to fall back on
    #[arg(
        long = "subtensor.chain_endpoint",
        value_name = "URL",
        env = "BT_SUBTENSOR_CHAIN_ENDPOINT",
        value_delimiter = ','
    )]
    pub chain_endpoints: Vec<String>,
    /// The old in-process mock of the chain; refused
    #[arg(long = "subtensor._mock", hide = true)]
    pub mock: bool,
    /// Subnet [default: the subnet file's]
    #[arg(long, value_name = "N")]
    pub netuid: Option<Netuid>,
    /// The subnet file.
    #[command(flatten)]
    pub subnet_file: SubnetArg,
}

/// Where and how models are computed.
#[derive(Debug, Clone, Args)]
pub struct EngineFlags {
    /// cuda, cuda:N, several of these with commas, cpu, or auto (cuda if there is one)
    #[arg(long, value_name = "DEVICE", default_value = "cuda")]
    pub device: String,
    /// bfloat16, float16 or float32
    #[arg(long, value_name = "TYPE", default_value = "bfloat16")]
    pub dtype: Dtype,
    /// flash_attention_2, sdpa or eager
    #[arg(
        long = "attn_implementation",
        value_name = "NAME",
        default_value = "flash_attention_2"
    )]
    pub attention: Attention,
    /// Tokens packed into one forward pass at most; 1 evaluates one sample at a time
    #[arg(long = "pack-tokens", value_name = "N", default_value_t = 8192)]
    pub pack_tokens: usize,
    /// GPU memory that loaded models may take, such as 80GB [default: three quarters of what is free]
    #[arg(long = "gpu-memory", value_name = "SIZE")]
    pub gpu_memory: Option<ByteSize>,
    /// The eval-worker program [default: beside this one]
    #[arg(
        long = "eval-worker",
        value_name = "FILE",
        env = "VALIDATOR_EVAL_WORKER"
    )]
    pub eval_worker: Option<PathBuf>,
}

/// Where logs and state go.
#[derive(Debug, Clone, Args)]
pub struct LogFlags {
    /// Log more
    #[arg(long = "logging.debug")]
    pub debug: bool,
    /// Log everything
    #[arg(long = "logging.trace")]
    pub trace: bool,
    /// Log filter, such as `info,validator=debug`
    #[arg(long = "log", value_name = "FILTER", env = "VALIDATOR_LOG")]
    pub filter: Option<String>,
    /// Log one JSON object a line
    #[arg(long = "log-json")]
    pub log_json: bool,
}

/// Where a validator's state lies.
#[derive(Debug, Clone, Args)]
pub struct StateFlags {
    /// Folder of logs and state, with a folder for each wallet, hotkey and subnet
    #[arg(
        long = "logging.logging_dir",
        value_name = "DIR",
        default_value = "~/.bittensor/miners"
    )]
    pub logging_dir: PathBuf,
    /// Folder of this validator's state, in place of the one under the logging folder
    #[arg(long = "state-dir", value_name = "DIR", env = "VALIDATOR_STATE_DIR")]
    pub state_dir: Option<PathBuf>,
}

impl WalletFlags {
    /// Returns where the wallet lies.
    pub fn path(&self) -> WalletPath {
        WalletPath {
            folder: expand_home(&self.wallet_path),
            name: self.wallet_name.clone(),
            hotkey: self.wallet_hotkey.clone(),
        }
    }
}

impl ChainFlags {
    /// Reads the subnet file and refuses what no longer exists.
    pub fn parameters(&self) -> Result<Parameters, Failure> {
        if self.mock {
            return Err(
                Failure::new(Exit::Usage, "--subtensor._mock is no longer there")
                    .because("a mock inside the validator proves nothing about the real chain")
                    .hint("run `localnet`: a whole subnet with a real chain on this machine"),
            );
        }
        let mut parameters = self.subnet_file.parameters()?;
        parameters.netuid = self.netuid.unwrap_or(parameters.netuid);
        Ok(parameters)
    }

    /// Returns the endpoints asked for, those of newer SDKs' environment names included.
    pub fn endpoints(&self) -> Vec<String> {
        #[expect(
            clippy::disallowed_methods,
            reason = "the command line reads the environment"
        )]
        let newer = || env::var("BT_CHAIN_ENDPOINT").ok();
        if self.chain_endpoints.is_empty() && self.subtensor_network.is_none() {
            return newer().into_iter().collect();
        }
        self.chain_endpoints.clone()
    }
}

impl LogFlags {
    /// Starts logging.
    pub fn init(&self) {
        let (level, format) = self.level("info");
        shared::log::init(level, format);
    }

    /// Starts logging, into a file too.
    pub fn init_with_file(&self, file: LogFile) {
        let (level, format) = self.level("info");
        shared::log::init_with_file(level, format, file);
    }

    /// Starts logging for a command whose answer is what matters.
    pub fn init_quiet(&self) {
        let (level, format) = self.level("error");
        shared::log::init(level, format);
    }

    fn level<'a>(&'a self, usual: &'a str) -> (&'a str, Format) {
        let level = match (&self.filter, self.trace, self.debug) {
            (Some(filter), ..) => filter,
            (None, true, _) => "info,validator=trace",
            (None, false, true) => "info,validator=debug",
            (None, false, false) => usual,
        };
        let format = if self.log_json {
            Format::Json
        } else {
            Format::Text
        };
        (level, format)
    }
}

impl StateFlags {
    /// Returns the folder of the state of one validator.
    pub fn folder(&self, wallet: &WalletFlags, netuid: Netuid) -> PathBuf {
        self.state_dir.as_deref().map_or_else(
            || {
                expand_home(&self.logging_dir)
                    .join(&wallet.wallet_name)
                    .join(&wallet.wallet_hotkey)
                    .join(format!("netuid{netuid}"))
                    .join("vali-state")
            },
            expand_home,
        )
    }
}

/// Returns a path with a leading `~` replaced by the home folder.
pub fn expand_home(path: &std::path::Path) -> PathBuf {
    match (path.strip_prefix("~"), env::home_dir()) {
        (Ok(rest), Some(home)) => home.join(rest),
        _ => path.to_owned(),
    }
}
