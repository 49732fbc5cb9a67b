//! `validator tokenize`: what conversations become before a model sees them.

use std::path::{Path, PathBuf};

use model::{Conversation, protocol};
use serde::Deserialize;
use shared::{Exit, Failure, cli::FullPath, file, term};

use super::{
    flags::{Devices, SubnetFlag, WorkerFlag},
    runtime::block_on,
    workers::{self, Bar},
};
use eval::Evaluator;
use subnet::Parameters;

/// The largest file of samples.
const MAX_SAMPLES: u64 = 256 << 20;

/// Show what conversations become before a model sees them.
#[derive(Debug, clap::Args)]
pub(crate) struct TokenizeArgs {
    /// Directory of the tokenizer
    #[arg(long, value_name = "DIR")]
    tokenizer: FullPath,
    /// Conversations, one JSON object a line: {"messages": [{"role", "content"}, ..]} or
    /// {"prompt", "response"}
    #[arg(long, value_name = "FILE")]
    samples: FullPath,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Seconds to wait at most
    #[arg(long, value_name = "SECONDS", default_value_t = 600)]
    time_limit: u64,
    #[command(flatten)]
    worker: WorkerFlag,
    #[command(flatten)]
    subnet: SubnetFlag,
}

pub(super) fn run(args: &TokenizeArgs) -> Result<Exit, Failure> {
    let parameters = args.subnet.parameters()?;
    let conversations = read_conversations(&args.samples)?;
    let (tokenizer, readable) = workers::directory(&args.tokenizer)?;
    let options = workers::options(&args.worker, &Devices::cpu(), readable)?;
    let request = request(tokenizer, conversations, &parameters);
    let samples = block_on(async {
        let evaluator = Evaluator::new(options);
        let bar = Bar::new();
        let patience = workers::patience(args.time_limit);
        let samples = workers::tokenize(&evaluator, &request, patience, &bar).await;
        evaluator.shut_down().await;
        samples.map_err(|fault| workers::failure("could not tokenize", &fault))
    })?;
    if args.json {
        let text = serde_json::to_string(&samples);
        term::line(text.map_err(|error| Failure::of(Exit::Bug, &error))?);
        return Ok(Exit::Ok);
    }
    let mut table = term::table(["sample", "tokens", "prompt", "response"]);
    for (index, sample) in samples.iter().enumerate() {
        let prompt = sample.prompt_len.min(sample.ids.len());
        let cells = [index, sample.ids.len(), prompt, sample.ids.len() - prompt];
        table.add_row(cells.map(|cell| cell.to_string()));
    }
    term::line(table);
    Ok(Exit::Ok)
}

/// Makes the request that tokenizes conversations by the rules of the subnet.
pub(super) fn request(
    directory: PathBuf,
    conversations: Vec<Conversation>,
    parameters: &Parameters,
) -> protocol::Tokenize {
    protocol::Tokenize {
        directory,
        compatibility: parameters.compatibility,
        sequence_length: parameters.sequence_length,
        conversations,
    }
}

/// A line of a file of samples.
#[derive(Deserialize)]
#[serde(untagged)]
enum SampleLine {
    Messages(Conversation),
    Pair { prompt: String, response: String },
}

/// Reads conversations: one a line, or a JSON array of the same.
pub(super) fn read_conversations(path: &Path) -> Result<Vec<Conversation>, Failure> {
    let refuse = |where_: &str, cause: &dyn std::fmt::Display| {
        Failure::new(
            Exit::BadInput,
            format_args!("{}{where_} is not a conversation", path.display()),
        )
        .because(cause)
        .hint(r#"expected {"messages": [{"role", "content"}, ..]} or {"prompt", "response"}"#)
    };
    let text = read_text(path)?;
    let lines: Vec<SampleLine> = if text.trim_start().starts_with('[') {
        serde_json::from_str(&text).map_err(|error| refuse("", &error))?
    } else {
        let numbered = text
            .split('\n')
            .enumerate()
            .filter(|(_, line)| !line.trim().is_empty());
        let parse = |(index, line)| {
            serde_json::from_str(line)
                .map_err(|error| refuse(&format!(", line {}", index + 1), &error))
        };
        numbered.map(parse).collect::<Result<_, _>>()?
    };
    Ok(lines
        .into_iter()
        .map(|line| match line {
            SampleLine::Messages(conversation) => conversation,
            SampleLine::Pair { prompt, response } => Conversation::of(prompt, response),
        })
        .collect())
}

/// Reads a text file of moderate size.
pub(super) fn read_text(path: &Path) -> Result<String, Failure> {
    let bytes = file::read_limited(path, MAX_SAMPLES)
        .map_err(|error| Failure::of(Exit::BadInput, &error))?;
    let missing = || {
        Failure::new(
            Exit::BadInput,
            format_args!("there is no {}", path.display()),
        )
    };
    String::from_utf8(bytes.ok_or_else(missing)?)
        .map_err(|error| Failure::of(Exit::BadInput, &error))
}
