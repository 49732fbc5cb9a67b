//! `validator evaluate`: a model's losses, computed as the validator computes them.

use std::path::PathBuf;

use clap::ArgGroup;
use model::{
    Architecture, Attention, Conversation, Dtype, Fault, PackingPlan, TokenizedSample,
    protocol::{Compare, Device, Evaluate, Evaluation, ModelSource},
};
use serde_json::{Value, json};
use shared::{Exit, Failure, cli::FullPath, file, term};

use super::{
    flags::{Devices, LoggingFlags, SubnetFlag, WorkerFlag},
    reference::{Reference, mean},
    runtime::block_on,
    tokenize::{self, read_conversations, read_text},
    workers::{self, Bar},
};
use eval::Evaluator;
use subnet::{Competition, Parameters, Real};

const MAX_CONFIG: u64 = model::config::MAX_CONFIG_BYTES as u64;

/// Compute a model's losses as the validator would.
#[derive(Debug, clap::Args)]
#[command(group = ArgGroup::new("input").required(true).args(["samples", "batches"]))]
pub(crate) struct EvaluateArgs {
    /// Directory of the model
    #[arg(long, value_name = "DIR", visible_alias = "model_path")]
    model: FullPath,
    /// Conversations, one JSON object a line: {"messages": [{"role", "content"}, ..]} or
    /// {"prompt", "response"}
    #[arg(long, value_name = "FILE")]
    samples: Option<FullPath>,
    /// Tokens instead of conversations: [{"ids": [..], "prompt_len": N}, ..]
    #[arg(long, value_name = "FILE")]
    batches: Option<FullPath>,
    /// Evaluate by the rules of this competition
    #[arg(long, value_name = "ID", visible_alias = "competition_id")]
    competition: Option<String>,
    /// Model class [default: the competition's, else what config.json says]
    #[arg(long, value_name = "NAME")]
    architecture: Option<Architecture>,
    /// Directory of the tokenizer [default: the model's own]
    #[arg(long, value_name = "DIR")]
    tokenizer: Option<FullPath>,
    /// bfloat16, float16 or float32
    #[arg(long, value_name = "TYPE", default_value = "bfloat16")]
    dtype: Dtype,
    /// cuda[:N], cpu, or auto (cuda if there is one)
    #[arg(long, value_name = "DEVICE", default_value = "auto")]
    device: Devices,
    /// flash_attention_2, sdpa or eager
    #[arg(
        long = "attn_implementation",
        value_name = "NAME",
        default_value = "flash_attention_2"
    )]
    attention: Attention,
    /// Tokens packed into one forward pass at most; 1 evaluates one sample at a time
    #[arg(long, value_name = "N", default_value_t = 8192)]
    pack_tokens: usize,
    /// Compare with an independent implementation, in float32 and one token at a time: slow
    #[arg(long)]
    reference: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Seconds to wait at most
    #[arg(long, value_name = "SECONDS", default_value_t = 3600)]
    time_limit: u64,
    #[command(flatten)]
    worker: WorkerFlag,
    #[command(flatten)]
    subnet: SubnetFlag,
    #[command(flatten)]
    log: LoggingFlags,
}

/// What is to be evaluated.
enum EvaluationInput {
    Conversations {
        tokenizer: PathBuf,
        conversations: Vec<Conversation>,
    },
    Samples(Vec<TokenizedSample>),
}

pub(super) fn run(args: &EvaluateArgs) -> Result<Exit, Failure> {
    args.log.init_quiet();
    let parameters = args.subnet.parameters()?;
    let (directory, mut readable) = workers::directory(&args.model)?;
    let competition = args
        .competition
        .as_deref()
        .map(|id| competition(&parameters, id))
        .transpose()?;
    let architecture = architecture(args, competition, &directory)?;
    let source = ModelSource {
        directory: directory.clone(),
        content_hash: None,
        architecture,
        dtype: args.dtype,
        attention: args.attention,
        compatibility: parameters.compatibility,
        max_parameters: competition.map(|competition| competition.max_parameters),
        norm_limits: parameters.norms,
    };
    let input = match (&args.samples, &args.batches) {
        (Some(samples), _) => {
            let conversations = read_conversations(samples)?;
            let tokenizer = match &args.tokenizer {
                Some(tokenizer) => {
                    let (tokenizer, more) = workers::directory(tokenizer)?;
                    readable.extend(more);
                    tokenizer
                }
                None => directory,
            };
            EvaluationInput::Conversations {
                tokenizer,
                conversations,
            }
        }
        (None, Some(batches)) => EvaluationInput::Samples(read_batches(batches)?),
        (None, None) => return Err(Failure::new(Exit::Usage, "nothing to evaluate")),
    };
    let tokenizer = match &input {
        EvaluationInput::Conversations { tokenizer, .. } => Some(tokenizer.clone()),
        EvaluationInput::Samples(_) => None,
    };
    if let (Some(fixed), Some(tokenizer), None, false) = (
        competition.and_then(|competition| competition.tokenizer.as_ref()),
        &tokenizer,
        &args.tokenizer,
        args.json,
    ) {
        term::note(format_args!(
            "the competition's tokenizer is {fixed}; using the one in {}",
            tokenizer.display()
        ));
    }
    // There is one model: of several GPUs all work on it.
    let options = workers::options(&args.worker, &args.device, readable)?.together();
    let evaluator = Evaluator::new(options);
    let (evaluated, device) = block_on(async {
        let evaluated = evaluate(args, &evaluator, source, input, &parameters).await;
        let device = if evaluated.is_ok() {
            device(&evaluator).await
        } else {
            None
        };
        evaluator.shut_down().await;
        Ok((evaluated, device))
    })?;
    match evaluated {
        Ok((evaluation, reference)) if args.json => {
            let mut report = report(&evaluation, args, architecture);
            report["reference"] = json!(reference.map(|found| found.json()));
            report["tokenizer"] = json!(tokenizer);
            if let Some(device) = device {
                report["device"] = json!(device.id);
                report["device_name"] = json!(device.name);
            }
            term::json(&report);
            Ok(Exit::Ok)
        }
        Ok((evaluation, reference)) => {
            print_table(&evaluation, reference.as_ref(), args, architecture);
            Ok(Exit::Ok)
        }
        Err(fault) => {
            if args.json {
                term::json(&json!({ "fault": fault_json(&fault) }));
            }
            Err(workers::failure("the model could not be evaluated", &fault))
        }
    }
}

/// Asks the worker that just answered where it computed.
async fn device(evaluator: &Evaluator) -> Option<Device> {
    evaluator.start().await.pop()?.hello.ok()?.device.ok()
}

async fn evaluate(
    args: &EvaluateArgs,
    evaluator: &Evaluator,
    model: ModelSource,
    input: EvaluationInput,
    parameters: &Parameters,
) -> Result<(Evaluation, Option<Reference>), Fault> {
    let bar = Bar::new();
    let show = |progress| bar.show(progress);
    let patience = workers::patience(args.time_limit);
    let samples = match input {
        EvaluationInput::Samples(samples) => samples,
        EvaluationInput::Conversations {
            tokenizer,
            conversations,
        } => {
            let request = tokenize::request(tokenizer, conversations, parameters);
            workers::tokenize(evaluator, &request, patience, &bar).await?
        }
    };
    let plan = PackingPlan::new(&samples, args.pack_tokens);
    let compare = args.reference.then(|| Compare {
        model: model.clone(),
        samples: samples.clone(),
    });
    let request = Evaluate {
        model,
        samples,
        plan,
        next: None,
    };
    let evaluation = evaluator.evaluate(request, patience, &show).await?;
    let reference = match compare {
        Some(compare) => {
            let compared = evaluator.compare(compare, patience, &show).await?;
            Some(Reference::of(compared, &evaluation.losses))
        }
        None => None,
    };
    Ok((evaluation, reference))
}

fn competition<'a>(parameters: &'a Parameters, id: &str) -> Result<&'a Competition, Failure> {
    let known = parameters
        .schedules
        .iter()
        .rev()
        .flat_map(|schedule| &schedule.competitions);
    known
        .into_iter()
        .find(|competition| competition.id.0 == id)
        .ok_or_else(|| {
            Failure::new(Exit::Usage, format_args!("there is no competition {id}"))
                .hint("`validator competitions` lists them")
        })
}

fn architecture(
    args: &EvaluateArgs,
    competition: Option<&Competition>,
    directory: &std::path::Path,
) -> Result<Architecture, Failure> {
    if let Some(architecture) = args.architecture {
        return Ok(architecture);
    }
    if let Some(competition) = competition {
        return competition
            .architecture
            .parse()
            .map_err(|error| Failure::of(Exit::Config, &error));
    }
    let config = file::read_limited(&directory.join("config.json"), MAX_CONFIG)
        .map_err(|error| Failure::of(Exit::BadInput, &error))?;
    let missing = || {
        Failure::new(
            Exit::BadInput,
            format_args!("{} has no config.json", directory.display()),
        )
    };
    Architecture::declared(&config.ok_or_else(missing)?)
        .map_err(|error| Failure::of(Exit::Refused, &error).hint("--architecture overrules it"))
}

fn read_batches(path: &std::path::Path) -> Result<Vec<TokenizedSample>, Failure> {
    serde_json::from_str(&read_text(path)?).map_err(|error| {
        Failure::new(
            Exit::BadInput,
            format_args!("{} holds no batches", path.display()),
        )
        .caused_by(&error)
        .hint(r#"expected [{"ids": [..], "prompt_len": N}, ..]"#)
    })
}

fn report(evaluation: &Evaluation, args: &EvaluateArgs, architecture: Architecture) -> Value {
    let Evaluation {
        losses,
        counters,
        compute_seconds,
        ..
    } = evaluation;
    let mean = mean(losses);
    json!({
        "losses": losses.iter().copied().map(Real).collect::<Vec<_>>(),
        "mean_loss": Real(mean),
        "perplexity": Real(mean.exp()),
        "samples": losses.len(),
        "samples_without_label": losses.iter().filter(|loss| loss.is_nan()).count(),
        "tokens": counters.tokens,
        "seconds": compute_seconds,
        "tokens_per_second": Real(counters.tokens as f64 / compute_seconds),
        "load_seconds": evaluation.load_seconds,
        "parameters": evaluation.parameters,
        "content_hash": evaluation.content_hash.to_string(),
        "norms_ok": evaluation.norms_refused.is_none(),
        "norms": evaluation.norms_refused,
        "architecture": architecture,
        "dtype": args.dtype,
        "device": args.device.to_string(),
        "attention": args.attention,
        "pack_tokens": args.pack_tokens,
        "counters": {
            "computed_tokens": counters.computed_tokens,
            "response_rows": counters.scored_rows,
            "head_rows": counters.head_rows,
            "bytes_read": counters.bytes_read,
        },
        "warnings": evaluation.warnings,
    })
}

fn fault_json(fault: &Fault) -> Value {
    match fault {
        Fault::Model(fault) => json!({"whose": "model", "kind": fault.kind, "text": fault.text}),
        Fault::Machine(fault) => {
            json!({"whose": "machine", "kind": fault.kind, "text": fault.text})
        }
    }
}

fn print_table(
    evaluation: &Evaluation,
    reference: Option<&Reference>,
    args: &EvaluateArgs,
    architecture: Architecture,
) {
    let Evaluation {
        losses,
        counters,
        compute_seconds,
        ..
    } = evaluation;
    let mean = mean(losses);
    let unscored = losses.iter().filter(|loss| loss.is_nan()).count();
    let mut table = term::table(["model", &args.model.display().to_string()]);
    let norms = evaluation
        .norms_refused
        .as_deref()
        .unwrap_or("within the limits");
    table.add_row(["architecture", &format!("{architecture}, {}", args.dtype)]);
    table.add_row(["parameters", &evaluation.parameters.to_string()]);
    table.add_row(["content hash", &evaluation.content_hash.to_string()]);
    table.add_row(["norms", norms]);
    table.add_row([
        "samples",
        &format!("{} ({unscored} without a label)", losses.len()),
    ]);
    table.add_row(["mean loss", &format!("{mean:.6}")]);
    table.add_row(["perplexity", &format!("{:.4}", mean.exp())]);
    if let Some(reference) = reference {
        table.add_row(["reference", &reference.to_string()]);
    }
    table.add_row(["tokens", &counters.tokens.to_string()]);
    table.add_row([
        "time",
        &format!(
            "{compute_seconds:.2} s ({:.0} tokens/s), loading {:.2} s",
            counters.tokens as f64 / compute_seconds,
            evaluation.load_seconds
        ),
    ]);
    term::line(table);
    for warning in &evaluation.warnings {
        term::note(format_args!("warning: {warning}"));
    }
}
