//! `validator samples`: fetch, filter and draw as a step would, and show where they came from.

use std::{path::PathBuf, time::Duration};

use clap::Args;
use shared::{Exit, Failure, file, term};
use url::Url;

use super::{
    chain::{connect, failure as chain_failure},
    flags::{ChainFlags, expand_home},
};
use chain::wallet;
use samples::{
    Fetcher, FetcherSettings, Pool, SampleSet, Seed, Weighted, filter::Filter, hub, sample_set,
    wandb,
};
use subnet::{BlockNumber, Fault, Hotkey, Parameters};

/// How long a person waits for a chain that is needed for the seed only.
const CHAIN_PATIENCE: Duration = Duration::from_secs(10);

/// Where samples come from and how they are drawn.
#[derive(Debug, Clone, Args)]
pub struct SampleFlags {
    /// Source of samples, repeatable: jsonl:PATH, hf:NAMESPACE/DATASET with @REVISION, /CONFIG and
    /// :SPLIT if wanted, http(s)://URL with mirrors after commas, or wandb:ENTITY/PROJECT with
    /// ?layout=sn1&runs=finished&signed=true if wanted; *WEIGHT at the end shares the draw
    /// (default: the subnet file's)
    #[arg(long, value_name = "SPEC")]
    pub samples: Vec<String>,
    /// Seed of the draw: `block` (validators draw the same set), `random`, or a number, to which
    /// each step adds its own [default: block]
    #[arg(long, value_name = "SEED")]
    pub seed: Option<Seed>,
    /// Blocks over which the block seed stays the same [default: the subnet file's]
    #[arg(long, value_name = "N")]
    pub sync_blocks: Option<u64>,
    /// Newest history steps read of each W&B run (at least 100 with layout=sn1: small rows)
    #[arg(long = "latest_cortex_steps", value_name = "N", default_value_t = 1)]
    pub steps: u64,
    /// Samples drawn for each step [default: the subnet file's]
    #[arg(
        long = "latest_cortex_samples",
        visible_alias = "count",
        value_name = "N"
    )]
    pub count: Option<usize>,
    /// Fewest samples worth a step; with fewer the step is skipped [default: the subnet file's]
    #[arg(long, value_name = "N")]
    pub min_samples: Option<usize>,
    /// Oldest cached samples used when a source fails, in hours
    #[arg(long, value_name = "HOURS", default_value_t = 48)]
    pub samples_max_age: u64,
    /// File of refusal phrases, one a line, in place of the built-in list
    #[arg(long, value_name = "FILE")]
    pub refusals: Option<PathBuf>,
    /// Bearer token for http sources
    #[arg(
        long,
        value_name = "TOKEN",
        env = "VALIDATOR_SAMPLES_TOKEN",
        hide_env_values = true
    )]
    pub samples_token: Option<String>,
    /// Address of the dataset viewer
    #[arg(
        long,
        value_name = "URL",
        default_value = "https://datasets-server.huggingface.co"
    )]
    pub viewer_url: Url,
    /// How the hub is reached.
    #[command(flatten)]
    pub hub: HubFlags,
    /// How W&B is reached.
    #[command(flatten)]
    pub wandb: WandbFlags,
}

/// How the hub is reached.
#[derive(Debug, Clone, Args)]
pub struct HubFlags {
    /// Address of the hub
    #[arg(
        long,
        value_name = "URL",
        env = "HF_ENDPOINT",
        default_value = "https://huggingface.co"
    )]
    pub hub_url: Url,
    /// Access token for the hub
    #[arg(long, value_name = "TOKEN", env = "HF_TOKEN", hide_env_values = true)]
    pub hub_token: Option<String>,
}

/// How W&B is reached.
#[derive(Debug, Clone, Args)]
pub struct WandbFlags {
    /// Address of W&B
    #[arg(
        long,
        value_name = "URL",
        env = "WANDB_BASE_URL",
        default_value = "https://api.wandb.ai"
    )]
    pub wandb_url: Url,
    /// API key for W&B [default: the entry of ~/.netrc]
    #[arg(
        long,
        value_name = "KEY",
        env = "WANDB_API_KEY",
        hide_env_values = true
    )]
    pub wandb_key: Option<String>,
    /// The netrc file
    #[arg(
        long,
        value_name = "FILE",
        env = "NETRC",
        default_value = "~/.netrc",
        hide = true
    )]
    pub netrc: PathBuf,
}

impl WandbFlags {
    /// Returns the API key: given, or from the netrc entry of the address.
    pub fn key(&self) -> Option<String> {
        let netrc = || {
            let bytes = file::read_limited(&expand_home(&self.netrc), 1 << 20).ok()??;
            let text = String::from_utf8(bytes).ok()?;
            let host = self.wandb_url.host_str()?;
            let with_port = self.wandb_url.port().map(|port| format!("{host}:{port}"));
            with_port
                .and_then(|machine| netrc_password(&text, &machine))
                .or_else(|| netrc_password(&text, host))
        };
        self.wandb_key.clone().or_else(netrc)
    }
}

/// Returns the password of a machine's entry.
fn netrc_password(text: &str, machine: &str) -> Option<String> {
    let mut words = text.split_whitespace();
    let mut ours = false;
    while let Some(word) = words.next() {
        match word {
            "machine" => ours = words.next() == Some(machine),
            "password" if ours => return words.next().map(ToOwned::to_owned),
            _ => {}
        }
    }
    None
}

impl SampleFlags {
    /// Returns what the fetcher needs. `cache` is where the last good samples are kept.
    pub fn settings(
        &self,
        parameters: &Parameters,
        cache: PathBuf,
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
        Ok(FetcherSettings {
            sources,
            minimum: self.min_samples.unwrap_or(parameters.limits.min_samples),
            cache: Some(cache),
            max_age: Duration::from_secs(self.samples_max_age.saturating_mul(3600)),
            filter,
            http_token: self.samples_token.clone(),
            hub: hub::HubAccess {
                endpoint: self.hub.hub_url.clone(),
                viewer: self.viewer_url.clone(),
                token: self.hub.hub_token.clone(),
            },
            wandb: wandb::WandbAccess {
                base_url: self.wandb.wandb_url.clone(),
                key: self.wandb.key(),
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

/// Fetch, filter and draw samples as a step would.
#[derive(Debug, clap::Args)]
pub struct SamplesArgs {
    #[command(flatten)]
    flags: SampleFlags,
    #[command(flatten)]
    chain: ChainFlags,
    /// Folder of the cache
    #[arg(
        long,
        value_name = "DIR",
        default_value = "~/.cache/finetune-vali/samples"
    )]
    cache: PathBuf,
    /// Print the set as JSON
    #[arg(long, conflicts_with = "out")]
    json: bool,
    /// Write the samples to a file, one a line
    #[arg(long, value_name = "FILE.jsonl")]
    out: Option<PathBuf>,
}

pub(super) fn run(args: &SamplesArgs) -> Result<Exit, Failure> {
    let parameters = args.chain.parameters()?;
    let cache = expand_home(&args.cache);
    let mut settings = args.flags.settings(&parameters, cache)?;
    settings.minimum = 1;
    let count = args.flags.count.unwrap_or(parameters.limits.samples);
    let fetcher = Fetcher::new(settings).map_err(failed)?;
    let spinner = term::spinner("fetching samples");
    let (seed, block, pool) = super::block_on(async {
        let (seed, block) = args.seed(&parameters).await?;
        Ok((seed, block, fetcher.fetch(count, seed).await))
    })?;
    spinner.finish_and_clear();
    let set = pool.draw(count, seed);
    if args.json {
        let set = set.map_err(failed)?;
        term::json(&serde_json::json!({"set": set, "seed_block": block, "sources": pool.reports}));
        return Ok(Exit::Ok);
    }
    // The error tells the first note.
    show(&pool, usize::from(set.is_err()));
    let set = set.map_err(failed)?;
    if let Some(path) = &args.out {
        write(path, &set)?;
        term::line(format_args!("written to {}", path.display()));
    }
    term::line(format_args!(
        "drew {} samples with seed {}{}\ndigest {}",
        set.samples.len(),
        set.seed,
        block.map_or_else(String::new, |block| format!(" of block {block}")),
        set.digest
    ));
    Ok(Exit::Ok)
}

impl SamplesArgs {
    /// Returns the seed and the block it comes from, if it comes from one. Whoever asks for the
    /// block's seed gets that or an error; whoever just wants to see samples gets to see some.
    async fn seed(&self, parameters: &Parameters) -> Result<(u64, Option<BlockNumber>), Failure> {
        let from_block = async {
            let client = connect(&self.chain).await?;
            let head = client.block_number().await.map_err(|e| chain_failure(&e))?;
            let interval = self
                .flags
                .sync_blocks
                .unwrap_or(parameters.limits.sync_blocks);
            let block = sample_set::sync_block(head, interval);
            let hash = client
                .block_hash(block)
                .await
                .map_err(|e| chain_failure(&e))?;
            Ok((
                sample_set::block_seed(&hash, parameters.netuid),
                Some(block),
            ))
        };
        match self.flags.seed {
            Some(Seed::Fixed(seed)) => return Ok((seed, None)),
            Some(Seed::Random) => return Ok((rand::random(), None)),
            Some(Seed::Block) | None => {}
        }
        let found = tokio::time::timeout(CHAIN_PATIENCE, from_block).await;
        let found = found.unwrap_or_else(|_| {
            Err(Failure::new(
                Exit::TryLater,
                "no chain endpoint answered in time",
            ))
        });
        match found {
            Err(failure) if self.flags.seed.is_some() => {
                Err(failure.hint("--seed random or --seed N draws without a chain"))
            }
            Err(failure) => {
                let seed = rand::random();
                term::note(format_args!(
                    "note: {}, so the seed is a random one and not the block's, by which \
                     validators agree; --seed {seed} draws these again",
                    failure.heading()
                ));
                Ok((seed, None))
            }
            found => found,
        }
    }
}

fn failed(fault: Fault) -> Failure {
    Failure::new(fault.kind.exit(), &fault.reason)
        .hint("--samples names other sources; jsonl:FILE needs no server")
}

fn show(pool: &Pool, told: usize) {
    let mut table = term::table(["source", "usable", "dropped", "from"]);
    for report in &pool.reports {
        let dropped: Vec<_> = report
            .dropped
            .0
            .iter()
            .map(|(reason, count)| format!("{count} {reason}"))
            .collect();
        let from = match report.cached_age {
            Some(age) => format!("the cache, {} min old", age / 60),
            None if report.usable == 0 => "nowhere".to_owned(),
            None => "the source".to_owned(),
        };
        table.add_row([
            report.source.clone(),
            report.usable.to_string(),
            if dropped.is_empty() {
                "none".into()
            } else {
                dropped.join("\n")
            },
            from,
        ]);
    }
    term::line(table);
    let notes = pool.reports.iter().flat_map(|report| &report.notes);
    for note in notes.skip(told) {
        term::note(format_args!("note: {note}"));
    }
}

fn write(path: &std::path::Path, set: &SampleSet) -> Result<(), Failure> {
    let lines: String = set
        .samples
        .iter()
        .map(|sample| {
            let line = serde_json::json!({"id": sample.id,
                "messages": sample.conversation.messages, "source": sample.origin});
            format!("{line}\n")
        })
        .collect();
    file::write_atomic(path, lines.as_bytes()).map_err(|error| Failure::of(Exit::Machine, &error))
}

#[cfg(test)]
mod tests {
    use super::netrc_password;

    #[test]
    fn the_key_is_found_in_netrc() {
        let text = "machine a.example login user password one\n\
                    machine api.wandb.ai\n  login user\n  password two\n";
        assert_eq!(netrc_password(text, "api.wandb.ai").as_deref(), Some("two"));
        assert_eq!(netrc_password(text, "b.example"), None);
    }
}
