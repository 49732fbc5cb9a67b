//! `validator verify`: judges one model as the validator would.

use clap::Args;
use indicatif::HumanBytes;
use model::{Architecture, Dtype};
use shared::{Exit, Failure, term};

use super::{
    flags::{FetchFlags, HubFlags, LoggingFlags, StoreFlags, SubnetFlag},
    runtime::block_on,
};
use models::{
    Report, Rules, Verifier,
    report::{Stage, Verdict},
    verify::{Assertion, Reach},
};
use subnet::{BlockNumber, Hotkey, ModelId, Parameters};

/// Judge a model as the validator would, from metadata alone or with all its bytes.
///
/// Exits with 0 if it is accepted, 3 if it is refused, 75 if hub or machine stood in the way.
#[derive(Debug, Args)]
pub(crate) struct VerifyArgs {
    /// Repository and full commit hash on the hub
    #[arg(value_name = "NAMESPACE/NAME@REVISION")]
    model: String,
    /// Content hash that was committed, plain or bound to the hotkey
    #[arg(long, value_name = "HASH")]
    hash: String,
    /// Hotkey that committed it, if the hash may be bound to it
    #[arg(long, value_name = "SS58")]
    hotkey: Option<Hotkey>,
    /// Competition whose rules hold
    #[arg(long, value_name = "ID", required_unless_present = "architecture")]
    competition: Option<String>,
    /// Architecture, where no competition's rules hold
    #[arg(long, value_name = "NAME", conflicts_with = "competition")]
    architecture: Option<Architecture>,
    /// Dtype of the evaluation, to which norms are rounded
    #[arg(long, value_name = "TYPE", default_value = "bfloat16")]
    dtype: Dtype,
    /// Fetch all of it into the store
    #[arg(long)]
    download: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    hub: HubFlags,
    #[command(flatten)]
    fetch: FetchFlags,
    #[command(flatten)]
    store: StoreFlags,
    #[command(flatten)]
    subnet: SubnetFlag,
    #[command(flatten)]
    log: LoggingFlags,
}

pub(super) fn run(args: &VerifyArgs) -> Result<Exit, Failure> {
    args.log.init_quiet();
    let parameters = args.subnet.parameters()?;
    let rules = args.rules(&parameters)?;
    let assertion = Assertion {
        model_id: args.model_id()?,
        hotkey: args.hotkey,
    };
    let hub = args.fetch.hub(&args.hub)?;
    let store = if args.download {
        Some(args.store.open()?)
    } else {
        None
    };
    let verifier = Verifier { hub, store };
    let bar = term::byte_bar(0, args.model.clone());
    let reach = if args.download {
        Reach::Download { bar: bar.clone() }
    } else {
        Reach::Metadata
    };
    let mut report = Report::default();
    let interrupted = block_on(async {
        tokio::select! {
            _ = verifier.verify(&assertion, &rules, reach, &mut report) => Ok(false),
            _ = tokio::signal::ctrl_c() => Ok(true),
        }
    })?;
    bar.finish_and_clear();
    if interrupted {
        term::note("interrupted: what was fetched is kept, and taken up next time");
        return Ok(Exit::Interrupted);
    }
    if args.json {
        term::json(&report);
    } else {
        show(&args.model, &report);
    }
    Ok(match report.verdict {
        Verdict::Accepted => Exit::Ok,
        Verdict::Refused => Exit::Refused,
        Verdict::Retry => Exit::TryLater,
    })
}

impl VerifyArgs {
    fn model_id(&self) -> Result<ModelId, Failure> {
        let usage = || {
            Failure::new(Exit::Usage, format_args!("{:?} names no model", self.model))
                .hint("write NAMESPACE/NAME@REVISION, with the full commit hash")
        };
        let (repository, revision) = self.model.split_once('@').ok_or_else(usage)?;
        let (namespace, name) = repository.split_once('/').ok_or_else(usage)?;
        Ok(ModelId {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            revision: Some(revision.to_owned()),
            hash: Some(self.hash.clone()),
            competition: None,
        })
    }

    fn rules(&self, parameters: &Parameters) -> Result<Rules, Failure> {
        if let Some(architecture) = self.architecture {
            return Ok(Rules::without_competition(
                parameters,
                architecture,
                self.dtype,
            ));
        }
        let id = self.competition.clone().unwrap_or_default();
        let known = parameters.competitions_at(BlockNumber::MAX);
        let competition = known.iter().find(|competition| competition.id.0 == id);
        let competition = competition.ok_or_else(|| {
            let ids: Vec<_> = known
                .iter()
                .map(|competition| competition.id.0.as_str())
                .collect();
            Failure::new(Exit::Usage, format_args!("there is no competition {id:?}"))
                .hint(format_args!("there are {}", ids.join(", ")))
        })?;
        Rules::of(parameters, competition, self.dtype)
            .map_err(|error| Failure::of(Exit::Config, &error))
    }
}

fn show(name: &str, report: &Report) {
    let basis = match report.stage {
        Stage::Metadata => "listing and small files",
        Stage::Headers => "listing, small files and headers; --download looks at every byte",
        Stage::Bytes => "every byte",
    };
    match (report.verdict, &report.reason) {
        (Verdict::Accepted, _) => term::line(format_args!("accepted: {name}")),
        (Verdict::Refused, reason) => {
            term::line(format_args!(
                "refused: {name}: {}",
                reason.as_deref().unwrap_or_default()
            ));
        }
        (Verdict::Retry, reason) => {
            term::line(format_args!(
                "try later: {name}: {}",
                reason.as_deref().unwrap_or_default()
            ));
        }
    }
    let from = if report.mirrored {
        format!(" from {}", report.origins.join(", "))
    } else {
        String::new()
    };
    term::line(format_args!(
        "judged by {basis}; {} fetched{from}",
        HumanBytes(report.bytes_fetched)
    ));
    if let Some(hash) = report.content_hash {
        term::line(format_args!("content hash {hash}"));
    }
    if let Some(parameters) = report.parameters {
        term::line(format_args!("{parameters} parameters"));
    }
    if report.files.is_empty() {
        return;
    }
    let mut table = term::table(["file", "bytes", "sha256"]);
    for file in &report.files {
        table.add_row([
            file.path.clone(),
            file.bytes
                .map(|bytes| bytes.to_string())
                .unwrap_or_default(),
            file.sha256
                .map(|sha256| sha256.to_string())
                .unwrap_or_default(),
        ]);
    }
    term::line(table);
}
