//! Evaluates one model on token ids and prints what it took, as one line of JSON.
//!
//! The scripts `bench-cpu` and `gpu-check` compare it with transformers on the same weights and
//! ids.
#![expect(clippy::print_stdout, reason = "the measurements are the output")]

use std::{collections::BTreeMap, error::Error, fs, path::PathBuf, time::Instant};

use clap::Parser;
use engine::{
    device::DeviceSpec,
    load::{LoadOptions, Placement, load},
    loss::{Rounding, evaluate},
    sandbox::{self, Allowed},
};
use model::{
    Architecture, Attention, Compatibility, Dtype, PackingPlan, TokenizedSample,
    config::DecoderSpec,
};
use nix::sys::resource::{UsageWho, getrusage};
use serde_json::json;

#[derive(Debug, Parser)]
struct Args {
    /// Folder with config.json and the weights.
    #[arg(long)]
    model: PathBuf,
    /// File with `[{"ids": [..], "prompt_len": n}, ..]`.
    #[arg(long)]
    batches: PathBuf,
    /// Where to compute: cpu, cuda, cuda:N, or several of these last with commas: a copy on each.
    #[arg(long, default_value = "cpu")]
    device: DeviceSpec,
    /// What to compute in: f32, bf16, f16.
    #[arg(long, default_value = "f32")]
    dtype: Dtype,
    /// How attention is computed.
    #[arg(long, default_value = "flash_attention_2")]
    attention: Attention,
    /// Tokens of a pack; 1 for one sample at a time.
    #[arg(long, default_value_t = 8192)]
    pack_tokens: usize,
    /// Directories of libraries beyond the usual ones.
    #[arg(
        long,
        value_name = "DIRS",
        env = "LD_LIBRARY_PATH",
        value_delimiter = ':',
        value_parser = sandbox::search_path()
    )]
    libraries: Vec<PathBuf>,
    /// Where the GPU's driver keeps the kernels it compiled.
    #[arg(long, env = "CUDA_CACHE_PATH")]
    compute_cache: Option<PathBuf>,
    /// Walls that are not raised.
    #[arg(long, value_delimiter = ',')]
    without: Vec<String>,
    /// How often to evaluate; the last time counts.
    #[arg(long, default_value_t = 1)]
    repeat: usize,
}

fn main() -> Result<(), Box<dyn Error>> {
    let args = Args::parse();
    // Behind the walls of the worker: a GPU that they keep from starting is to be found here.
    let allowed = Allowed {
        readable: vec![args.model.clone(), args.batches.clone()],
        libraries: args.libraries,
        compute_cache: args.compute_cache,
        memory: None,
        no_sandbox: true,
        without: args.without,
    };
    let entered = sandbox::enter(sandbox::Walls::here(&allowed), &args.device, &allowed);
    let devices = entered.devices?;
    let samples: Vec<TokenizedSample> = serde_json::from_slice(&fs::read(&args.batches)?)?;
    let config = fs::read(args.model.join("config.json"))?;
    let architecture = Architecture::declared(&config)?;
    let spec = DecoderSpec::parse(&config, architecture, Compatibility::V4_40)?;
    let (dtype, attention) = (args.dtype, args.attention);
    let options = LoadOptions {
        dtype,
        attention,
        placement: Placement::Copies(&devices),
    };
    let (copies, report) = load(&args.model, &spec, options, &|_| ())?;
    let plan = PackingPlan::new(&samples, args.pack_tokens);
    let mut seconds = 0.0;
    let mut cpu = 0.0;
    let mut losses = Vec::new();
    let mut counters = None;
    for _ in 0..args.repeat.max(1) {
        let (begun, cpu_before) = (Instant::now(), cpu_seconds()?);
        let done = evaluate(&copies, &samples, &plan, Rounding::AsReference, |_| ())?;
        seconds = begun.elapsed().as_secs_f64();
        cpu = cpu_seconds()? - cpu_before;
        losses = done.losses;
        counters = Some(done.counters);
    }
    let counters = counters.unwrap_or_default();
    let finite: Vec<f64> = losses
        .iter()
        .copied()
        .filter(|loss| loss.is_finite())
        .collect();
    let measured = json!({
        "samples": samples.len(),
        "tokens": counters.tokens,
        "load_s": report.took.as_secs_f64(),
        "load_bytes": report.bytes_read,
        "wall_s": seconds,
        "cpu_s": cpu,
        "tokens_per_s": counters.tokens as f64 / seconds,
        "peak_rss_mib": getrusage(UsageWho::RUSAGE_SELF)?.max_rss() / 1024,
        "computed_tokens": counters.computed_tokens,
        "head_rows": counters.head_rows,
        "scored_rows": counters.scored_rows,
        "walls": entered.walls.iter().map(|wall| (&wall.name, wall.stands.is_ok())).collect::<BTreeMap<_, _>>(),
        "parameters": report.parameters,
        "warnings": report.warnings,
        "mean_loss": finite.iter().sum::<f64>() / finite.len() as f64,
        "losses": losses.iter().map(ToString::to_string).collect::<Vec<_>>(),
    });
    println!("{measured}");
    Ok(())
}

fn cpu_seconds() -> nix::Result<f64> {
    let usage = getrusage(UsageWho::RUSAGE_SELF)?;
    let seconds =
        |time: nix::sys::time::TimeVal| time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6;
    Ok(seconds(usage.user_time()) + seconds(usage.system_time()))
}
