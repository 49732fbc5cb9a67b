//! `validator inspect commitments`: what miners committed to.

use shared::term::{self, Table};

use chain::ChainSnapshot;

pub(super) fn table(snapshot: &ChainSnapshot) -> Table {
    let mut table = term::table([
        "uid",
        "block",
        "competition",
        "repository",
        "revision",
        "problem",
    ]);
    for commitment in &snapshot.commitments {
        let (competition, repository, revision, problem) = match &commitment.model {
            Ok(model) => (
                model.competition_or_old().to_string(),
                model.repository(),
                model.revision.clone().unwrap_or_default(),
                String::new(),
            ),
            Err(problem) => (String::new(), String::new(), String::new(), problem.clone()),
        };
        let (uid, block) = (commitment.uid.to_string(), commitment.block.to_string());
        // A miner's text must not steer the terminal.
        table.add_row(
            [uid, block, competition, repository, revision, problem]
                .map(|text| term::printable(&text, usize::MAX)),
        );
    }
    table
}
