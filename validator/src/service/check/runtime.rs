//! A runtime's metadata in a file: what this version can make of it.

use std::{path::Path, sync::Arc};

use shared::{Exit, Failure, causes, file};

use super::Line;
use chain::{
    ChainError,
    runtime::Runtime,
    upgrade::{self, Impact},
};
use subnet::{FaultKind, Genesis};

/// Some thirty times finney's metadata.
const MAX_BYTES: u64 = 24 << 20;

/// Looks whether this version can use the runtime whose metadata is in a file.
pub fn metadata(path: &Path) -> Result<Vec<Line>, Failure> {
    const SUBJECT: &str = "runtime";
    let name = path.display();
    let bytes = file::read_limited(path, MAX_BYTES)
        .map_err(|error| Failure::of(Exit::BadInput, &error))?
        .ok_or_else(|| Failure::new(Exit::BadInput, format_args!("there is no file {name}")))?;
    let runtime = Runtime::new(0, 0, Genesis([0; 32]), &bytes).map_err(|error| {
        let cause = match error {
            // No node said it.
            ChainError::Garbled { problem, .. } => problem,
            error => causes::one_line(&error),
        };
        // The decoder's words come in several lines.
        let cause: Vec<&str> = cause.split_whitespace().collect();
        let heading = format_args!("{name} is not the metadata of a runtime");
        Failure::new(Exit::BadInput, heading)
            .because(cause.join(" "))
            .hint("`validator inspect metadata --out FILE` writes that of a network")
    })?;
    let findings = upgrade::examine(&Arc::new(runtime));
    let all = findings.len();
    let mut lines: Vec<Line> = (findings.into_iter())
        .filter(|finding| finding.impact != Impact::Fine)
        .map(|finding| {
            let detail = format!("{} {}", finding.item, finding.text);
            match finding.impact {
                Impact::Stops => {
                    let remedy = "look for a newer release of the validator before the upgrade";
                    Line::fail(SUBJECT, FaultKind::Config, detail, remedy)
                }
                _ => Line::warn(SUBJECT, detail, "weights and evaluation go on"),
            }
        })
        .collect();
    let fine = all - lines.len();
    lines.push(Line::ok(
        SUBJECT,
        format_args!("{fine} of {all} things are as they should be"),
    ));
    Ok(lines)
}
