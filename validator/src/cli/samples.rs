//! `validator samples`: fetch, filter and draw as a step would, and show where they came from.

use std::time::Duration;

use chain::Endpoints;
use shared::{Exit, Failure, cli::FullPath, file, term};

use super::{
    connect::connect,
    flags::{ChainFlags, HubFlags, LoggingFlags, SampleFlags, WandbFlags},
    runtime::block_on,
};
use crate::hints::chain_failure;
use samples::{Fetcher, Pool, SampleSet, Seed, sample_set};
use subnet::{BlockNumber, Fault, Parameters};

/// How long a person waits for a chain that is needed for the seed only.
const CHAIN_PATIENCE: Duration = Duration::from_secs(10);

/// Fetch, filter and draw samples as a step would.
#[derive(Debug, clap::Args)]
pub(crate) struct SamplesArgs {
    /// Folder of the cache
    #[arg(
        long,
        value_name = "DIR",
        default_value = "~/.cache/finetune-vali/samples"
    )]
    cache: FullPath,
    /// Print the set as JSON
    #[arg(long, conflicts_with = "out")]
    json: bool,
    /// Write the samples to a file, one a line
    #[arg(long, value_name = "FILE.jsonl")]
    out: Option<FullPath>,
    #[command(flatten)]
    flags: SampleFlags,
    #[command(flatten)]
    hub: HubFlags,
    #[command(flatten)]
    wandb: WandbFlags,
    #[command(flatten)]
    chain: ChainFlags,
    #[command(flatten)]
    log: LoggingFlags,
}

pub(super) fn run(args: &SamplesArgs) -> Result<Exit, Failure> {
    args.log.init_quiet();
    let parameters = args.chain.parameters()?;
    let endpoints = args.chain.endpoints()?;
    let mut settings = args.flags.settings(
        &parameters,
        args.cache.to_path_buf(),
        &args.hub,
        &args.wandb,
    )?;
    settings.minimum = 1;
    let count = args.flags.count.unwrap_or(parameters.limits.samples);
    let fetcher = Fetcher::new(settings).map_err(failed)?;
    let spinner = term::spinner("fetching samples");
    let (seed, block, pool) = block_on(async {
        let (seed, block) = args.seed(&parameters, &endpoints).await?;
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
    async fn seed(
        &self,
        parameters: &Parameters,
        endpoints: &Endpoints,
    ) -> Result<(u64, Option<BlockNumber>), Failure> {
        let from_block = async {
            let client = connect(endpoints).await?;
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
    Failure::from(fault).hint("--samples names other sources; jsonl:FILE needs no server")
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
