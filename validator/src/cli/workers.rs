//! How commands start eval-workers: their environment, what they may read, faults as failures.

use std::{
    env,
    path::{Path, PathBuf},
    time::Duration,
};

use indicatif::ProgressBar;
use model::{
    Fault, MachineFaultKind, ModelFaultKind, TokenizedSample,
    protocol::{COMPUTE_CACHE, ENVIRONMENT, Phase, Progress, Tokenize},
};
use shared::{Exit, Failure, cli::FullPath, term};

use super::flags::{Devices, WorkerFlag};
use eval::{self, Evaluator, Options, TimeLimits};

/// Makes the options of workers for devices, which may read what lies in `readable`.
pub(crate) fn options(
    worker: &WorkerFlag,
    devices: &Devices,
    readable: impl IntoIterator<Item = PathBuf>,
) -> Result<Options, Failure> {
    #[expect(
        clippy::disallowed_methods,
        reason = "the command line reads the environment"
    )]
    let value = |name: &str| env::var(name).ok().map(|value| (name.to_owned(), value));
    let mut environment: Vec<_> = ENVIRONMENT.into_iter().filter_map(value).collect();
    if !environment.iter().any(|(name, _)| name == COMPUTE_CACHE) {
        // Not the user's own ~/.nv: what a worker may write, no other program should run.
        let folder = FullPath::of(Path::new("~/.cache/finetune-vali/kernels"))
            .map_err(|error| Failure::of(Exit::Machine, &error))?;
        environment.push((COMPUTE_CACHE.to_owned(), folder.display().to_string()));
    }
    Ok(Options {
        program: eval::program(worker.program())?,
        devices: devices.names().to_vec(),
        together: false,
        readable: readable.into_iter().collect(),
        memory: None,
        device_memory: None,
        threads: None,
        no_sandbox: worker.no_sandbox,
        environment,
    })
}

/// Returns an existing directory's path in full, and everything its links lead to: hub caches
/// keep files elsewhere.
pub(super) fn directory(path: &Path) -> Result<(PathBuf, Vec<PathBuf>), Failure> {
    let unreadable = |error: std::io::Error| {
        Failure::new(
            Exit::BadInput,
            format_args!("could not read {}", path.display()),
        )
        .caused_by(&error)
    };
    let directory = path.canonicalize().map_err(unreadable)?;
    let entries = directory.read_dir().map_err(unreadable)?;
    let targets = entries
        .filter_map(Result::ok)
        .filter(|entry| entry.path().is_symlink())
        .filter_map(|entry| entry.path().canonicalize().ok());
    let readable = targets.chain([directory.clone()]).collect();
    Ok((directory, readable))
}

/// Waits without a thought for progress: a person can press Ctrl-C.
pub(super) fn patience(seconds: u64) -> TimeLimits {
    let total = Duration::from_secs(seconds);
    TimeLimits { total, idle: total }
}

/// How many workers a tokenizer may bring down before it is said to be the reason.
const CHANCES: usize = 3;

/// Tokenizes. A tokenizer that brings down worker after worker, each of which is followed by one that
/// passes its self-test, is itself the reason.
pub(super) async fn tokenize(
    evaluator: &Evaluator,
    request: &Tokenize,
    patience: TimeLimits,
    bar: &Bar,
) -> Result<Vec<TokenizedSample>, Fault> {
    let show = |progress| bar.show(progress);
    let mut lost = 0;
    loop {
        let asked = evaluator.tokenize(request.clone(), patience, &show);
        let fault = match asked.await {
            // The limit is the caller's: with more time it might be done.
            Err(Fault::Machine(fault))
                if fault.kind.may_be_provoked() && fault.kind != MachineFaultKind::Hung =>
            {
                fault
            }
            tokenized => return tokenized,
        };
        lost += 1;
        if lost == CHANCES {
            let text = format!("it brought down {lost} workers, the machine is well: {fault}");
            return Err(Fault::model(ModelFaultKind::Tokenizer, text));
        }
    }
}

/// Turns a fault into what a person reads.
pub(super) fn failure(heading: &str, fault: &Fault) -> Failure {
    let exit = if fault.is_models() {
        Exit::Refused
    } else {
        Exit::Machine
    };
    let failure = Failure::new(exit, heading).because(fault);
    match fault {
        Fault::Machine(fault) if fault.kind == MachineFaultKind::Device => {
            failure.hint("--device cpu computes without a GPU")
        }
        Fault::Machine(fault) if fault.kind == MachineFaultKind::Spawn => {
            failure.hint("docs/operating.md says what an eval-worker for GPUs needs")
        }
        _ => failure,
    }
}

/// Shows how far a worker is, where somebody watches.
pub(super) struct Bar(ProgressBar);

impl Bar {
    pub(super) fn new() -> Self {
        Self(term::bar(0, ""))
    }

    pub(super) fn show(&self, progress: Progress) {
        self.0.set_message(match progress.phase {
            Phase::Load => "loading (bytes)",
            Phase::Tokenize => "tokenizing (samples)",
            Phase::Evaluate => "evaluating (tokens)",
            Phase::Generate => "generating (tokens)",
        });
        self.0.set_length(progress.total);
        self.0.set_position(progress.done);
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}
