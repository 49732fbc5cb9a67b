//! `check`: what an update would do.

use shared::{Exit, Failure, term};

use super::query::{Query, ask, home, short};
use crate::{
    control::{Reply, Request},
    update::state::Polled,
};

/// Says what an update would do.
pub(super) fn run(query: &Query) -> Result<Exit, Failure> {
    let polled = match ask(&home(&query.which)?, &Request::Check)? {
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
