//! `status`: how the child and its updates are.

use shared::{
    Exit, Failure,
    term::{self, span},
};

use super::query::{Query, ask, home, short};
use crate::{
    control::{Reply, Request},
    home::Home,
    report::{Report, UpdateReport},
    text::harmless,
    update::checkout,
};

/// Shows how the child and its updates are.
pub(super) fn run(query: &Query) -> Result<Exit, Failure> {
    let home = home(&query.which)?;
    match ask(&home, &Request::Status) {
        Ok(Reply::Status(mut report)) => {
            look_at_checkout(&mut report, &home);
            show(query, &report);
            Ok(Exit::Ok)
        }
        Ok(_) => Err(Failure::new(
            Exit::Bug,
            "the supervisor answered something else",
        )),
        Err(failure) => {
            // The child may run on, and an exit code that says "running" would mislead.
            if home.lock().exists() {
                let report = Report::left_behind(&home)
                    .map_err(|error| failure.clone().caused_by(&error))?;
                show(query, &report);
            }
            Err(failure)
        }
    }
}

/// Done here: git stays out of the supervisor's memory, and what is said is never stale.
fn look_at_checkout(report: &mut Report, home: &Home) {
    let update = &mut report.update;
    if let (Some(checkout), Some(accepted)) = (&mut update.checkout, &update.accepted) {
        checkout.behind = checkout::behind(&checkout.path, home, &accepted.commit);
    }
}

fn show(query: &Query, report: &Report) {
    if query.json {
        term::json(report);
    } else {
        term::line(render(report));
    }
}

fn render(report: &Report) -> String {
    let mut rows: Vec<(&str, String)> = Vec::new();
    let child = &report.child;
    let mut state = child.state.clone();
    if let Some(pid) = child.pid {
        state = format!("{state}, pid {pid}");
    }
    if let Some(uptime) = child.uptime {
        state = format!("{state}, for {}", span(uptime));
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
    if child.pid.is_some() {
        rows.push(("control group", child.control_group()));
    }
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
        let local = accepted
            .local
            .iter()
            .map(|change| ("with local", change.to_string()));
        rows.extend(local);
        let left_out = accepted.left_out.iter();
        rows.extend(left_out.map(|change| {
            let text = format!("{change} (`supervisor update --local` takes it)");
            ("left out", text)
        }));
    }
    rows.extend(behind(update).map(|text| ("checkout", text)));
    rows.extend(
        update
            .previous
            .as_ref()
            .map(|old| ("previous", short(&old.release).to_owned())),
    );
    rows.extend(update.problem.clone().map(|problem| ("problem", problem)));
    rows.push(("log", report.log.clone()));
    let supervisor = report.supervisor.as_ref().map(|supervisor| {
        let manager = supervisor.manager.as_ref();
        let kept = manager.map_or_else(String::new, |name| format!(", kept by {name}"));
        format!("pid {}, {}{kept}", supervisor.pid, supervisor.version)
    });
    let supervisor = supervisor.unwrap_or_else(|| "not running".to_owned());
    rows.push(("supervisor", supervisor));
    let width = rows.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    let lines: Vec<String> = rows
        .iter()
        .map(|(name, text)| format!("{name:>width$}  {}", harmless(text)))
        .collect();
    lines.join("\n")
}

/// How far the checkout is behind.
fn behind(update: &UpdateReport) -> Option<String> {
    let commits = match update.checkout.as_ref()?.behind? {
        0 => return None,
        1 => "1 commit".to_owned(),
        more => format!("{more} commits"),
    };
    Some(format!(
        "{commits} behind what is accepted; `git pull` brings it along"
    ))
}
