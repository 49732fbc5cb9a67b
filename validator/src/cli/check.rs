//! `validator check`: everything the validator needs, before it is needed.

use shared::{Exit, Failure, cli::FullPath, term, version::Version};

use super::{run::RunArgs, runtime::block_on};
use crate::service::check::{self, Level, Line, Measurements};

/// Check wallet, chain, device, disk, samples and state, without running
#[derive(Debug, clap::Args)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a flag of the command line"
)]
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
    /// Instead, measure disk, hashes, hub, chain, device and memory, within a minute: a grade from A to D for each,
    /// and how many models an hour that buys
    #[arg(long, conflicts_with_all = ["deep", "config_only", "metadata"])]
    measure: bool,
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
    if args.measure {
        let found = block_on(async { Ok(check::measure(&settings).await) })?;
        if args.json {
            term::json(&found);
        } else {
            show_measured(&found);
        }
        return Ok(Exit::Ok);
    }
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

fn show_measured(found: &Measurements) {
    let mut table = term::table(["what", "measured", "grade"]);
    for one in &found.measured {
        let value = match one.value {
            Some(value) if value < 10.0 => format!("{value:.2} {}", one.unit),
            Some(value) => format!("{value:.0} {}", one.unit),
            None => term::printable(&one.detail, 60),
        };
        table.add_row([one.what.clone(), value, format!("{:?}", one.grade)]);
    }
    term::line(&table);
    let hourly = |count: Option<f64>, part: &str| match count {
        Some(count) if count < 0.1 => {
            format!("one in {:.0} hours (limited by {part})", 1.0 / count)
        }
        Some(count) => format!("{count:.1} an hour (limited by {part})"),
        None => format!("unknown, {part} was not measured"),
    };
    for one in &found.capacity {
        let billions = one.parameters as f64 / 1e9;
        let evaluated = hourly(one.evaluated_per_hour, one.evaluation_waits_for);
        let fetched = hourly(one.fetched_per_hour, one.fetching_waits_for);
        let fits = match one.fits {
            Some(false) => "; their weights do not fit into memory",
            _ => "",
        };
        term::line(format_args!(
            "competition {}, models of {billions:.1} billion parameters: evaluated {evaluated}; fetched {fetched}{fits}",
            one.competition
        ));
    }
}
