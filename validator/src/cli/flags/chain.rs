//! Which chain, which subnet.

use std::env;

use clap::Args;
use shared::{Exit, Failure, cli::FullPath};

use chain::Endpoints;
use subnet::{Netuid, Parameters, SubnetIdentity, parameters::ParametersError};

/// The subnet file, for every command that needs it.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Chain")]
pub(crate) struct SubnetFlag {
    /// Subnet file (TOML); the fine-tuning subnet's is built in
    #[arg(long, value_name = "FILE", env = "VALIDATOR_SUBNET")]
    pub(crate) subnet: Option<FullPath>,
}

/// Which chain, which subnet.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Chain")]
pub(crate) struct ChainFlags {
    /// finney, test, archive, local or a ws:// URL [default: finney]
    #[arg(
        long = "subtensor.network",
        value_name = "NAME",
        env = "BT_SUBTENSOR_NETWORK"
    )]
    subtensor_network: Option<String>,
    /// Chain endpoint; repeat it for a list to fall back on
    #[arg(
        long = "subtensor.chain_endpoint",
        value_name = "URL",
        env = "BT_SUBTENSOR_CHAIN_ENDPOINT",
        value_delimiter = ','
    )]
    chain_endpoints: Vec<String>,
    /// The old in-process mock of the chain; refused
    #[arg(long = "subtensor._mock", hide = true)]
    mock: bool,
    /// Subnet [default: the subnet file's]
    #[arg(long, value_name = "N")]
    netuid: Option<Netuid>,
    #[command(flatten)]
    subnet_file: SubnetFlag,
}

impl SubnetFlag {
    /// Reads the file, or returns the embedded parameters.
    pub(crate) fn parameters(&self) -> Result<Parameters, Failure> {
        let Some(path) = &self.subnet else {
            return Ok(Parameters::embedded());
        };
        Parameters::read(path).map_err(|error| {
            let failure = Failure::of(Exit::Config, &error);
            match error {
                ParametersError::File(_) | ParametersError::Missing(_) => failure,
                _ => failure.hint("`validator competitions --toml` prints a complete, valid file"),
            }
        })
    }
}

impl ChainFlags {
    /// Reads the subnet file and refuses what no longer exists.
    pub(crate) fn parameters(&self) -> Result<Parameters, Failure> {
        if self.mock {
            return Err(
                Failure::new(Exit::Usage, "--subtensor._mock is no longer there")
                    .because("a mock inside the validator proves nothing about the real chain")
                    .hint("run `localnet`: a whole subnet with a real chain on this machine"),
            );
        }
        let mut parameters = self.subnet_file.parameters()?;
        if let Some(netuid) = self.netuid.filter(|netuid| *netuid != parameters.netuid) {
            // What the file says of its own subnet holds for no other.
            parameters.netuid = netuid;
            parameters.identity = SubnetIdentity::default();
        }
        Ok(parameters)
    }

    /// Returns the nodes asked for; nothing is connected yet.
    pub(crate) fn endpoints(&self) -> Result<Endpoints, Failure> {
        #[expect(
            clippy::disallowed_methods,
            reason = "the command line reads the environment"
        )]
        // The name that newer SDKs have for it.
        let newer = || env::var("BT_CHAIN_ENDPOINT").ok();
        let urls = if self.chain_endpoints.is_empty() && self.subtensor_network.is_none() {
            newer().into_iter().collect()
        } else {
            self.chain_endpoints.clone()
        };
        Endpoints::resolve(self.subtensor_network.as_deref(), &urls)
            .map_err(|error| Failure::of(Exit::Usage, &error))
    }
}
