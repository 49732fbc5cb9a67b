//! Evaluation: workers, one process for each device, and what to make of their deaths.
//!
//! Models are hostile, so they are opened in `eval-worker` processes only, which hold no key and
//! have no network. A worker that crashes, hangs or talks nonsense is killed and replaced; the
//! machine is tested before the model in its hands is suspected.

mod batches;
mod evaluator;
mod limits;
mod observer;
mod slot;
mod worker;

use std::path::{Path, PathBuf};

use model::{Fault, protocol::Evaluation};
use shared::{Exit, Failure};

pub use self::{
    evaluator::{Evaluator, Started},
    limits::TimeLimits,
    observer::{LossReason, WorkerObserver},
    worker::Options,
};

/// What became of evaluating a model: its losses, or whose fault it is that there are none.
///
/// A [`Fault::Machine`] whose kind [may be provoked] was followed by a self-test that passed: if
/// it happens to one model again and again, the model is the reason.
///
/// [may be provoked]: model::MachineFaultKind::may_be_provoked
pub type EvalOutcome = Result<Evaluation, Fault>;

/// Receives how far the work is.
pub type OnProgress<'a> = &'a (dyn Fn(model::protocol::Progress) + Sync);

const PROGRAM: &str = "eval-worker";

/// Returns the eval-worker to run: the one given, else the one next to this program.
pub fn program(given: Option<&Path>) -> Result<PathBuf, Failure> {
    let found = match given {
        Some(path) => path.to_owned(),
        None => std::env::current_exe()
            .map_err(|error| Failure::of(Exit::Machine, &error))?
            .with_file_name(PROGRAM),
    };
    if found.is_file() {
        return Ok(found);
    }
    Err(Failure::new(
        Exit::Config,
        format_args!("there is no eval-worker at {}", found.display()),
    )
    .hint("it is built beside the validator; another place is given with --eval-worker"))
}
