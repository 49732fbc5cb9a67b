//! `validator show`: answers from the records, whether the validator runs or not.

mod history;
mod leaders;
mod pieces;
mod step;
mod uid;

use clap::{Args, Subcommand};
use index::Index;
use serde::Serialize;
use shared::{Exit, Failure, term};

use super::flags::{OwnFlags, index_failure};

/// What to show.
#[derive(Debug, Subcommand)]
pub(crate) enum Show {
    /// Who leads in each competition, and why
    Leaders(ViewArgs),
    /// A uid or hotkey: its repository, what came of it, and why it was refused
    Uid(uid::UidArgs),
    /// One step: its samples, models, losses and refusals
    Step(step::OneStep),
    /// What changed between two steps of a competition
    Changes(step::TwoSteps),
    /// Commitments that were refused, and since when
    Refusals(ViewArgs),
    /// Weights as set and as read back
    Weights(ViewArgs),
    /// Models that failed, problems of the validator, and starts
    Faults(ViewArgs),
    /// Our validator trust, how it moved, and with whom we disagree
    Trust(ViewArgs),
    /// Pairs of models that behave alike
    Copies(step::OneStep),
}

/// What every view takes.
#[derive(Debug, Args)]
pub(crate) struct ViewArgs {
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Show at most this many rows of a history
    #[arg(long, value_name = "N", default_value_t = 30)]
    limit: usize,
    #[command(flatten)]
    own: OwnFlags,
}

pub(super) fn run(what: &Show) -> Result<Exit, Failure> {
    match what {
        Show::Leaders(asked) => asked.show(Index::leaders, |found| leaders::show(found)),
        Show::Uid(args) => args.run(),
        Show::Step(args) => args.run(),
        Show::Changes(args) => args.run(),
        Show::Refusals(asked) => asked.refusals(),
        Show::Weights(asked) => asked.show(
            |index| index.weight_sets(asked.limit),
            |found| history::weights(found),
        ),
        Show::Faults(asked) => asked.show(
            |index| history::Faults::read(index, asked.limit),
            history::Faults::show,
        ),
        Show::Trust(asked) => asked.show(|index| index.trust(asked.limit), history::trust),
        Show::Copies(args) => args.copies(),
    }
}

impl ViewArgs {
    /// Asks the index and shows the answer.
    fn show<T: Serialize>(
        &self,
        ask: impl FnOnce(&Index) -> Result<T, index::IndexError>,
        show: impl FnOnce(&T),
    ) -> Result<Exit, Failure> {
        let found = ask(&self.own.index()?).map_err(|error| index_failure(&error))?;
        if self.json {
            term::json(&found);
        } else {
            show(&found);
        }
        Ok(Exit::Ok)
    }

    fn refusals(&self) -> Result<Exit, Failure> {
        let known = crate::service::Known::read(&self.own.folder()?)?;
        self.show(
            |index| Ok(uid::refused(index.refusals(None, self.limit)?, &known)),
            |found| uid::show_refused(found),
        )
    }
}
