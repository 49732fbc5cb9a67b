//! Commands that talk to a running supervisor, and `history`.

use std::{fs, io, path::Path};

use shared::{Exit, Failure, term};

use super::{
    args::{Query, Which},
    configure::state_dir,
};
use crate::{
    control::{self, Command, Reply},
    history,
    home::Home,
    supervise::Report,
    update::state::Polled,
};

/// Finds the child that is meant: the one named, else the only one there is.
pub(super) fn home(which: &Which) -> Result<Home, Failure> {
    let folder = state_dir(which.state_dir.as_deref())?;
    if let Some(name) = &which.child_name {
        return Ok(Home::of(&folder, name));
    }
    let names = names(&folder);
    match names.as_slice() {
        [name] => Ok(Home::of(&folder, name)),
        [] => Err(Failure::new(
            Exit::Failed,
            format!("no supervisor has run in {}", folder.display()),
        )
        .hint("see --state-dir")),
        _ => Err(Failure::new(
            Exit::Usage,
            format!("there are several: {}", names.join(", ")),
        )
        .hint("say which with --child-name")),
    }
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries
        .filter(|entry| entry.path().join("lock").exists())
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect();
    names.sort();
    names
}

/// Asks the running supervisor.
pub(super) fn ask(home: &Home, command: &Command) -> Result<Reply, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::of(Exit::Machine, &error))?;
    let path = home.control_socket();
    runtime
        .block_on(control::ask(&path, command))
        .map_err(|error| match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => Failure::new(
                Exit::Failed,
                format!("no supervisor of {} is running", home.child_name()),
            ),
            _ => Failure::new(Exit::Failed, "the supervisor did not answer").because(&error),
        })
}

/// Gives an order and prints what came of it.
pub(super) fn order(query: &Query, command: &Command) -> Result<Exit, Failure> {
    let reply = ask(&home(&query.which)?, command)?;
    if query.json {
        term::json(&reply);
    }
    match reply {
        Reply::Done(text) if !query.json => term::line(text),
        Reply::Refused(text) => return Err(Failure::new(Exit::Refused, text)),
        Reply::Done(_) | Reply::Status(_) | Reply::Check(_) => {}
    }
    Ok(Exit::Ok)
}

/// Says what an update would do.
pub(super) fn check(query: &Query) -> Result<Exit, Failure> {
    let polled = match ask(&home(&query.which)?, &Command::Check)? {
        Reply::Check(polled) => polled,
        Reply::Refused(text) => return Err(Failure::new(Exit::Refused, text)),
        _ => {
            return Err(Failure::new(
                Exit::Bug,
                "the supervisor answered something else",
            ));
        }
    };
    if query.json {
        term::json(&polled);
        return Ok(Exit::Ok);
    }
    term::line(match &polled {
        Polled::UpToDate => "up to date".to_owned(),
        Polled::NoRebuild(version) => {
            let commit = short(&version.commit);
            format!(
                "would accept {commit} {} without a restart",
                version.summary
            )
        }
        Polled::New(version) => {
            format!(
                "would build and switch to {} {}",
                short(&version.commit),
                version.summary
            )
        }
    });
    Ok(Exit::Ok)
}

/// Shows how the child and its updates are.
pub(super) fn status(query: &Query) -> Result<Exit, Failure> {
    let Reply::Status(report) = ask(&home(&query.which)?, &Command::Status)? else {
        return Err(Failure::new(
            Exit::Bug,
            "the supervisor answered something else",
        ));
    };
    if query.json {
        term::json(&report);
    } else {
        term::line(render(&report));
    }
    Ok(Exit::Ok)
}

fn render(report: &Report) -> String {
    let mut rows: Vec<(&str, String)> = Vec::new();
    let child = &report.child;
    let mut state = child.state.clone();
    if let (Some(pid), Some(uptime)) = (child.pid, child.uptime) {
        state = format!("{state}, pid {pid}, for {}", span(uptime));
    }
    if let Some(reason) = &child.reason {
        state = format!("{state}: {reason}");
    }
    rows.push((report.name.as_str(), state));
    rows.extend(
        child
            .release
            .as_ref()
            .map(|release| ("release", short(release).to_owned())),
    );
    rows.extend(child.says.clone().map(|says| ("says", says)));
    if let Some(health) = child.health {
        let problems = child.problems.join("; ");
        let health = format!("{health:?}").to_lowercase();
        let text = if problems.is_empty() {
            health
        } else {
            format!("{health}: {problems}")
        };
        rows.push(("health", text));
    }
    if child.restarts > 0 {
        let last = child.last_failure.as_deref().unwrap_or("unknown");
        rows.push(("restarts", format!("{}, last: {last}", child.restarts)));
    }
    let update = &report.update;
    let mut phase = update.phase.clone();
    if let Some(candidate) = &update.candidate {
        phase = format!("{phase} {} {}", short(&candidate.commit), candidate.summary);
    }
    if let Some(progress) = &update.progress {
        phase = format!("{phase} ({progress})");
    }
    if let (Some(next), true) = (update.next_in, update.enabled) {
        phase = format!("{phase}, next look in {}", span(next));
    }
    rows.push(("update", phase));
    if let Some(accepted) = &update.accepted {
        let signer = accepted
            .signer
            .as_ref()
            .map(|by| format!(", signed by {by}"));
        let text = format!("{} {}", short(&accepted.commit), accepted.summary);
        rows.push(("accepted", text + &signer.unwrap_or_default()));
    }
    rows.extend(
        update
            .previous
            .as_ref()
            .map(|old| ("previous", short(&old.release).to_owned())),
    );
    rows.extend(update.problem.clone().map(|problem| ("problem", problem)));
    rows.push(("log", report.log.clone()));
    rows.push((
        "supervisor",
        format!(
            "pid {}, {}{}",
            report.supervisor.pid,
            report.supervisor.version,
            report
                .supervisor
                .manager
                .as_ref()
                .map_or_else(String::new, |name| format!(", kept by {name}"))
        ),
    ));
    let width = rows.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    let lines: Vec<String> = rows
        .iter()
        .map(|(name, text)| format!("{name:>width$}  {text}"))
        .collect();
    lines.join("\n")
}

fn short(commit: &str) -> &str {
    commit.get(..12).unwrap_or(commit)
}

fn span(seconds: u64) -> String {
    let (days, hours) = (seconds / 86_400, seconds / 3600 % 24);
    let (minutes, rest) = (seconds / 60 % 60, seconds % 60);
    match seconds {
        0..60 => format!("{rest} s"),
        60..3600 => format!("{minutes} min {rest} s"),
        3600..86_400 => format!("{hours} h {minutes} min"),
        _ => format!("{days} d {hours} h"),
    }
}

/// Lists what happened to each update.
pub(super) fn history(query: &Query) -> Result<Exit, Failure> {
    let entries = history::read(&home(&query.which)?.history())
        .map_err(|error| Failure::of(Exit::Machine, &error))?;
    if query.json {
        term::json(&entries);
        return Ok(Exit::Ok);
    }
    let mut table = term::table([
        "time",
        "result",
        "commit",
        "took",
        "signed by",
        "what and why",
    ]);
    for entry in &entries {
        let note = &entry.note;
        let why = [note.summary.as_str(), note.reason.as_str()];
        let why: Vec<&str> = why.into_iter().filter(|text| !text.is_empty()).collect();
        table.add_row([
            entry.time.clone(),
            note.result.to_string(),
            short(&note.commit).to_owned(),
            span(note.seconds),
            note.signer.clone().unwrap_or_default(),
            why.join(": "),
        ]);
    }
    term::line(table);
    Ok(Exit::Ok)
}
