//! `validator status`: how the validator is, from its status file.

use anstyle::{AnsiColor, Style};
use nix::{errno::Errno, sys::signal, unistd::Pid};
use serde_json::Value;
use shared::{
    Exit, Failure,
    cli::FullPath,
    clock,
    status::{self, Health, Status},
    term,
};

use super::flags::{ChainFlags, ConfigFlag, StateFlags, WalletFlags};
use crate::service;

/// Show how the running validator is
#[derive(Debug, clap::Args)]
pub(crate) struct StatusArgs {
    #[command(flatten)]
    config: ConfigFlag,
    #[command(flatten)]
    wallet: WalletFlags,
    #[command(flatten)]
    chain: ChainFlags,
    #[command(flatten)]
    state: StateFlags,
    /// The status file [default: the one in the folder of the state]
    #[arg(long = "status-file", value_name = "FILE", env = status::ENV)]
    status_file: Option<FullPath>,
    /// Print the status file as it is
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &StatusArgs) -> Result<Exit, Failure> {
    let path = if let Some(path) = &args.status_file {
        path.to_path_buf()
    } else {
        let netuid = args.chain.parameters()?.netuid;
        args.state
            .folder(&args.wallet, netuid)
            .join(service::STATUS)
    };
    let status = Status::read(&path)
        .map_err(|error| Failure::of(Exit::BadInput, &error))?
        .ok_or_else(|| {
            Failure::new(Exit::Failed, format_args!("there is no status file {}", path.display()))
                .because("no validator has run with this wallet, subnet and state folder")
                .hint("give the flags of the validator: --wallet.name, --wallet.hotkey, --netuid, --state-dir")
        })?;
    let alive = alive(status.pid);
    if args.json {
        term::json(&status);
    } else {
        show(&status, alive);
    }
    let well = alive && status.health != Health::Red;
    Ok(if well { Exit::Ok } else { Exit::Failed })
}

fn alive(pid: u32) -> bool {
    let pid = Pid::from_raw(i32::try_from(pid).unwrap_or(i32::MAX));
    !matches!(signal::kill(pid, None), Err(Errno::ESRCH))
}

fn show(status: &Status, alive: bool) {
    let (color, word) = match (alive, status.health) {
        (false, _) => (AnsiColor::Red, "not running"),
        (true, Health::Green) => (AnsiColor::Green, "green"),
        (true, Health::Yellow) => (AnsiColor::Yellow, "yellow"),
        (true, Health::Red) => (AnsiColor::Red, "red"),
    };
    let style: Style = color.on_default().bold();
    let age = clock::unix_seconds().saturating_sub(status.written_at);
    term::line(format_args!(
        "{style}●{style:#} {word}: {} ({age} s ago)",
        status.phase
    ));
    for problem in &status.problems {
        term::line(format_args!("  {problem}"));
    }
    let mut table = term::table(["what", "value"]);
    table.add_row(["version".to_owned(), status.version.clone()]);
    table.add_row(["pid".to_owned(), status.pid.to_string()]);
    table.add_row(["restart now".to_owned(), restart(status)]);
    if let Value::Object(details) = &status.details {
        for (key, value) in details {
            table.add_row([key.replace('_', " "), plain(value)]);
        }
    }
    term::line(table);
}

fn restart(status: &Status) -> String {
    if status.restart.safe {
        "safe".to_owned()
    } else {
        format!("would hurt: {}", status.restart.reason)
    }
}

fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Object(fields) => {
            let shown = fields
                .iter()
                .filter(|(_, value)| !value.is_object() && !value.is_array());
            let shown: Vec<String> = shown
                .map(|(key, value)| format!("{key} {}", plain(value)))
                .collect();
            shown.join(", ")
        }
        other => other.to_string(),
    }
}
