//! Where samples come from, and how they are drawn.

use std::{path::PathBuf, time::Duration};

use clap::Args;
use shared::{Exit, Failure, cli::FullPath};
use url::Url;

use super::{HubFlags, WandbFlags};
use chain::wallet;
use samples::{FetcherSettings, Seed, Weighted, filter::Filter};
use subnet::{Hotkey, Parameters};

/// Where samples come from and how they are drawn.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Samples")]
pub(crate) struct SampleFlags {
    /// Source of samples, repeatable: jsonl:PATH, hf:NAMESPACE/DATASET with @REVISION, /CONFIG and
    /// :SPLIT if wanted, http(s)://URL with mirrors after commas, or wandb:ENTITY/PROJECT with
    /// ?layout=sn1&runs=finished&signed=true if wanted; *WEIGHT at the end shares the draw
    /// (default: the subnet file's)
    #[arg(long, value_name = "SPEC")]
    pub(crate) samples: Vec<String>,
    /// Seed of the draw: `block` (validators draw the same set), `random`, or a number, to which
    /// each step adds its own [default: block]
    #[arg(long, value_name = "SEED")]
    pub(crate) seed: Option<Seed>,
    /// Blocks over which the block seed stays the same [default: the subnet file's]
    #[arg(long, value_name = "N")]
    pub(crate) sync_blocks: Option<u64>,
    /// Newest history steps read of each W&B run (at least 100 with layout=sn1: small rows)
    #[arg(long = "latest_cortex_steps", value_name = "N", default_value_t = 1)]
    pub(crate) steps: u64,
    /// Samples drawn for each step [default: the subnet file's]
    #[arg(
        long = "latest_cortex_samples",
        visible_alias = "count",
        value_name = "N"
    )]
    pub(crate) count: Option<usize>,
    /// Fewest samples worth a step; with fewer the step is skipped [default: the subnet file's]
    #[arg(long, value_name = "N")]
    pub(crate) min_samples: Option<usize>,
    /// Oldest cached samples used when a source fails, in hours
    #[arg(long, value_name = "HOURS", default_value_t = 48)]
    pub(crate) samples_max_age: u64,
    /// File of refusal phrases, one a line, in place of the built-in list
    #[arg(long, value_name = "FILE")]
    pub(crate) refusals: Option<FullPath>,
    /// Bearer token for http sources
    #[arg(
        long,
        value_name = "TOKEN",
        env = "VALIDATOR_SAMPLES_TOKEN",
        hide_env_values = true
    )]
    pub(crate) samples_token: Option<String>,
    /// Address of the dataset viewer [default: https://datasets-server.huggingface.co, for the
    /// public hub only]
    #[arg(long, value_name = "URL")]
    pub(crate) viewer_url: Option<Url>,
}

impl SampleFlags {
    /// Returns what the fetcher needs. `cache` is where the last good samples are kept.
    pub(crate) fn settings(
        &self,
        parameters: &Parameters,
        cache: PathBuf,
        hub: &HubFlags,
        wandb: &WandbFlags,
    ) -> Result<FetcherSettings, Failure> {
        let specs = if self.samples.is_empty() {
            &parameters.samples
        } else {
            &self.samples
        };
        let sources: Vec<Weighted> = specs
            .iter()
            .map(|spec| spec.parse())
            .collect::<Result<_, _>>()
            .map_err(|error| Failure::of(Exit::Usage, &error))?;
        let filter = match &self.refusals {
            Some(path) => Filter::read(path).map_err(|error| Failure::of(Exit::Config, &error))?,
            None => Filter::default(),
        };
        let public = samples::hub::HubAccess::default();
        Ok(FetcherSettings {
            sources,
            minimum: self.min_samples.unwrap_or(parameters.limits.min_samples),
            cache: Some(cache),
            max_age: Duration::from_secs(self.samples_max_age.saturating_mul(3600)),
            filter,
            http_token: self.samples_token.clone(),
            hub: samples::hub::HubAccess {
                endpoint: hub.hub_url.clone(),
                // Another hub's datasets are not the public viewer's to know of.
                viewer: match &self.viewer_url {
                    None if hub.hub_url == public.endpoint => public.viewer,
                    given => given.clone(),
                },
                token: hub
                    .token()?
                    .map(|token| token.reveal_for_request().to_owned()),
            },
            wandb: samples::wandb::WandbAccess {
                base_url: wandb.wandb_url.clone(),
                key: wandb.key(),
                steps: self.steps,
                verify: Some(signed_by),
            },
        })
    }
}

/// Whether a hotkey signed a message.
fn signed_by(hotkey: &Hotkey, message: &[u8], signature: &[u8]) -> bool {
    signature
        .try_into()
        .is_ok_and(|signature| wallet::verify(hotkey, message, signature))
}
