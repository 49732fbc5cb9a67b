//! How the hub is reached.

use clap::Args;
use url::Url;

/// How the hub is reached.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Hub")]
pub(crate) struct HubFlags {
    /// Address of the hub
    #[arg(
        long,
        value_name = "URL",
        env = "HF_ENDPOINT",
        default_value = "https://huggingface.co"
    )]
    pub(crate) hub_url: Url,
    /// Access token for the hub
    #[arg(long, value_name = "TOKEN", env = "HF_TOKEN", hide_env_values = true)]
    pub(crate) hub_token: Option<String>,
}
