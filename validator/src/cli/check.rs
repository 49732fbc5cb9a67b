//! `validator check`: everything the validator needs, before it is needed.

use shared::{Exit, Failure, cli::FullPath, term, version::Version};

use super::{run::RunArgs, runtime::block_on};
use crate::service::check::{self, Level, Line};

/// Check wallet, chain, device, disk, samples and state, without running
#[derive(Debug, clap::Args)]
pub(crate) struct CheckArgs {
    #[command(flatten)]
    run: RunArgs,
    /// Read every byte of the models
    #[arg(long)]
    deep: bool,
    /// Only what needs neither network nor device
    #[arg(long = "config-only", conflicts_with = "deep")]
    config_only: bool,
    /// Only whether this version can use a runtime, by its metadata: what `validator inspect
    /// metadata --out FILE` wrote, of a test network that was upgraded before
    #[arg(long, value_name = "FILE", conflicts_with_all = ["deep", "config_only"])]
    metadata: Option<FullPath>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &CheckArgs, version: Version) -> Result<Exit, Failure> {
    args.run.log.init_quiet();
    if let Some(path) = &args.metadata {
        let lines = check::metadata(path)?;
        report(&lines, args.json);
        return Ok(check::verdict(&lines));
    }
    let settings = args.run.settings(version)?;
    let lines = if args.config_only {
        check::configuration(&settings)
    } else {
        block_on(async { Ok(check::everything(&settings, args.deep).await) })?
    };
    report(&lines, args.json);
    Ok(check::verdict(&lines))
}

fn report(lines: &[Line], json: bool) {
    if json {
        term::json(&lines);
    } else {
        show(lines);
    }
}

fn show(lines: &[Line]) {
    use anstyle::{AnsiColor, Style};
    for line in lines {
        let (color, word) = match line.level {
            Level::Ok => (AnsiColor::Green, "OK  "),
            Level::Warn => (AnsiColor::Yellow, "WARN"),
            Level::Fail => (AnsiColor::Red, "FAIL"),
        };
        let style: Style = color.on_default().bold();
        let (subject, detail) = (line.subject, &line.detail);
        term::line(format_args!(
            "{style}{word}{style:#} {subject:<13} {detail}"
        ));
        if let Some(remedy) = &line.remedy {
            term::line(format_args!("                   -> {remedy}"));
        }
    }
}
