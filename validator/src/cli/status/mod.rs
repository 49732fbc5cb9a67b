//! `validator status`: how the validator is, from its status file.

mod facts;
mod watch;

use std::{io, path::Path, time::Duration};

use anstyle::{AnsiColor, Style};
use nix::{errno::Errno, sys::signal, unistd::Pid};
use shared::{
    Exit, Failure,
    cli::FullPath,
    clock,
    status::{self, Health},
    supervision, term,
};

use super::{
    flags::{OWN_FLAGS, OwnFlags},
    runtime::block_on,
};
use crate::service;
use facts::facts;
use report::{
    rules::Rule,
    status::{self as own, Status},
};

/// The longest text shown in full; the file has all of it.
const MAX_SHOWN: usize = 600;

/// A supervisor answers from memory.
const SUPERVISOR_PATIENCE: Duration = Duration::from_secs(1);

/// How times are shown.
const TIME: &str = "%F %T UTC";

/// Show how the running validator is
#[derive(Debug, clap::Args)]
pub(crate) struct StatusArgs {
    #[command(flatten)]
    own: OwnFlags,
    /// The status file [default: the one in the folder of the state]
    #[arg(long = "status-file", value_name = "FILE", env = status::ENV)]
    status_file: Option<FullPath>,
    /// Print the status file as it is
    #[arg(long)]
    json: bool,
    /// Show it live, until q is pressed
    #[arg(long, conflicts_with = "json")]
    watch: bool,
}

pub(super) fn run(args: &StatusArgs) -> Result<Exit, Failure> {
    let path = if let Some(path) = &args.status_file {
        path.to_path_buf()
    } else {
        args.own.folder()?.join(service::STATUS)
    };
    if args.watch {
        return watch::run(&path);
    }
    let status = own::read(&path)
        .map_err(|error| Failure::of(Exit::BadInput, &error))?
        .ok_or_else(|| {
            Failure::new(
                Exit::Failed,
                format_args!("there is no status file {}", path.display()),
            )
            .because("no validator has run with this wallet, subnet and state folder")
            .hint(OWN_FLAGS)
        })?;
    let found = block_on(async { Ok(StatusView::asked(status).await) })?;
    if args.json {
        term::json(&found.status);
    } else {
        found.show();
    }
    let well = found.alive && !found.stale && found.status.health != Health::Red;
    Ok(if well { Exit::Ok } else { Exit::Failed })
}

fn alive(pid: u32) -> bool {
    let pid = Pid::from_raw(i32::try_from(pid).unwrap_or(i32::MAX));
    !matches!(signal::kill(pid, None), Err(Errno::ESRCH))
}

/// A status, and whether it still holds.
struct StatusView {
    status: Status,
    /// The process lives.
    alive: bool,
    /// The file should have been renewed long ago.
    stale: bool,
    /// Age of the file, in seconds.
    age: u64,
    /// What the supervisor says, if one started it.
    supervision: Option<String>,
}

impl StatusView {
    /// Asks the supervisor, too, if there is one.
    async fn asked(status: Status) -> Self {
        let mut view = Self::at(status, clock::unix_seconds());
        let status = &view.status;
        if let Some(folder) = &status.details.supervisor {
            view.supervision = Some(supervisor_says(folder, status.pid).await);
        }
        view
    }

    fn at(status: Status, now: u64) -> Self {
        let alive = alive(status.pid);
        Self {
            alive,
            stale: status.is_stale(now),
            age: status.age(now),
            // One that has ended does not hang.
            status: if alive { status.as_of(now) } else { status },
            supervision: None,
        }
    }

    /// Returns the traffic light.
    const fn light(&self) -> (AnsiColor, &'static str) {
        match (self.alive, self.stale, self.status.health) {
            (false, ..) => (AnsiColor::Red, "not running"),
            (true, true, _) => (AnsiColor::Red, "stale"),
            (true, false, Health::Green) => (AnsiColor::Green, "green"),
            (true, false, Health::Yellow) => (AnsiColor::Yellow, "yellow"),
            (true, false, Health::Red) => (AnsiColor::Red, "red"),
        }
    }

    fn show(&self) {
        let Self { status, age, .. } = self;
        let (color, word) = self.light();
        let style: Style = color.on_default().bold();
        term::line(format_args!(
            "{style}●{style:#} {word}: {} ({} ago)",
            shown(&status.phase),
            term::span(*age)
        ));
        for (cause, problem) in &status.details.alarms {
            term::line(format_args!(
                "  {} ({cause}, since {}; ends {})",
                shown(&problem.text),
                problem.since.strftime(TIME),
                Rule::of(*cause).map_or("as a later release knows", |rule| rule.ends)
            ));
            if let Some(rule) = Rule::of(*cause) {
                term::line(format_args!("    what to do: {}", rule.remedy));
            }
        }
        // Of the others, only the file itself knows.
        for problem in status.problems.iter().skip(status.details.alarms.len()) {
            term::line(format_args!("  {}", shown(problem)));
        }
        let mut table = term::table(["what", "value"]);
        for (what, value) in facts(self) {
            table.add_row([what.to_owned(), shown(&value)]);
        }
        term::line(table);
    }
}

/// Returns what the supervisor with this folder says.
async fn supervisor_says(folder: &str, pid: u32) -> String {
    match supervision::ask(Path::new(folder), SUPERVISOR_PATIENCE).await {
        Ok(told) => match told.child.pid {
            Some(other) if other != pid => format!("{told}; its child is process {other}"),
            _ => told.to_string(),
        },
        Err(error) => match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
                format!("not running (it was in {folder})")
            }
            _ => format!("does not answer (in {folder})"),
        },
    }
}

/// Much of it is what nodes, hubs and miners say.
fn shown(text: &str) -> String {
    term::printable(text, MAX_SHOWN)
}
