//! Where models lie, and how they are fetched.

use std::path::{Path, PathBuf};

use clap::Args;
use shared::{Exit, Failure, cli::FullPath};

use super::{ByteSize, HubFlags};
use hub::{Hub, HubOptions};
use models::{
    Store,
    store::{StoreError, StoreLimits},
};

/// Folder of the Python validator's models, beside the program.
const OLD_STORE: &str = "model-store";

/// Where models lie.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Models")]
pub(crate) struct StoreFlags {
    /// Folder of the models [default: ./model-store if it is there, else finetune-vali/models in
    /// the user's data folder]
    #[arg(long = "model_dir", value_name = "DIR", env = "VALIDATOR_MODEL_DIR")]
    model_dir: Option<FullPath>,
    /// Most disk space the models may take, such as 500GB
    #[arg(long, value_name = "SIZE")]
    max_disk: Option<ByteSize>,
    /// Disk space to leave free
    #[arg(long, value_name = "SIZE", default_value = "10GB")]
    min_free: ByteSize,
    /// The user's data folder
    #[arg(
        long,
        value_name = "DIR",
        env = "XDG_DATA_HOME",
        default_value = "~/.local/share",
        hide = true
    )]
    data_home: FullPath,
}

impl StoreFlags {
    /// Returns the folder of the models.
    pub(crate) fn root(&self) -> PathBuf {
        let old = FullPath::of(Path::new(OLD_STORE)).ok();
        match (&self.model_dir, old.filter(|old| old.is_dir())) {
            (Some(given), _) => given.to_path_buf(),
            (None, Some(old)) => old.into(),
            (None, None) => self.data_home.join("finetune-vali/models"),
        }
    }

    /// Opens the store, making it if need be.
    pub(crate) fn open(&self) -> Result<Store, Failure> {
        Store::open(&self.root(), self.limits()).map_err(|error| store_failure(&error))
    }

    /// Returns how much disk the models may take.
    pub(crate) fn limits(&self) -> StoreLimits {
        StoreLimits {
            max_disk: self.max_disk.map(|size| size.0),
            min_free: self.min_free.0,
        }
    }
}

/// Turns an error of the store into what people read.
pub(crate) fn store_failure(error: &StoreError) -> Failure {
    Failure::of(Exit::Machine, error).hint("--model_dir names another folder")
}

/// How models are fetched.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Models")]
pub(crate) struct FetchFlags {
    /// Most connections to the hub at once
    #[arg(long, value_name = "N", default_value_t = 8)]
    connections: usize,
    /// Most bytes per second from the hub, such as 50MB
    #[arg(long, value_name = "SIZE")]
    bandwidth: Option<ByteSize>,
    /// Fetch over xet where the hub offers it, instead of by byte ranges
    #[arg(long)]
    xet: bool,
}

impl FetchFlags {
    /// Makes the client of the hub. The token is the one given, or the one the hub's own tools
    /// have stored.
    pub(crate) fn hub(&self, flags: &HubFlags) -> Result<Hub, Failure> {
        Hub::new(self.options(flags)?).map_err(|error| Failure::of(Exit::Config, &error))
    }

    /// Returns how the hub is reached.
    pub(crate) fn options(&self, flags: &HubFlags) -> Result<HubOptions, Failure> {
        let mut options = HubOptions::new(flags.hub_url.clone());
        flags.check_online()?;
        options.token = flags.token()?;
        (options.mirrors, options.mirror_token) = flags.mirrors()?;
        options.http.connections = self.connections;
        options.http.bandwidth = self.bandwidth.map(|size| size.0);
        options.xet = self.xet;
        Ok(options)
    }
}

/// How long models are kept and how often commitments are looked at.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Models")]
pub(crate) struct KeepFlags {
    /// Minutes for which models that nobody needs are kept
    #[arg(long = "grace_period_minutes", value_name = "N", default_value_t = 120)]
    pub(crate) grace_period_minutes: u64,
    /// Minutes between looks at a uid's commitment
    #[arg(long = "update_delay_minutes", value_name = "N", default_value_t = 5)]
    pub(crate) update_delay_minutes: u64,
}
