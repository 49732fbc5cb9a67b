//! The W&B task: a row for each step, sent in the background, never in the way.

use std::{sync::Arc, time::Duration};

use shared::{Failure, status::Health};
use tokio::sync::broadcast::{self, error::RecvError};

use super::Parts;
use report::{
    StepRecord,
    board::Board,
    wandb::{Logger, LoggerSettings, MAX_UNSENT_BYTES, step_row::step_row, unsent_runs},
};

/// How long the last rows may take to arrive when the validator stops.
const FINISH: Duration = Duration::from_secs(15);

pub(super) async fn run(
    parts: Arc<Parts>,
    settings: LoggerSettings,
    mut records: broadcast::Receiver<Arc<StepRecord>>,
) -> Result<(), Failure> {
    for folder in unsent_runs(&settings.folder) {
        tracing::warn!(folder = %folder.display(), "W&B run was never sent whole: `wandb sync` it");
    }
    let mut logger = Logger::new(complete(&parts, settings));
    loop {
        tidy(&logger, &parts.context.board);
        match records.recv().await {
            Ok(record) => {
                if let Err(error) = logger.log(record.step, step_row(&record, &record.generated)) {
                    tracing::warn!(%error, step = record.step, "could not keep the row for W&B");
                }
            }
            Err(RecvError::Lagged(steps)) => tracing::warn!(steps, "W&B missed steps"),
            Err(RecvError::Closed) => break,
        }
    }
    logger.finish(0, FINISH).await;
    Ok(())
}

/// Removes what is old. That rows wait to be sent is no problem, until they take half of what they
/// may.
fn tidy(logger: &Logger, board: &Board) {
    const KEY: &str = "wandb";
    let unsent = match logger.tidy() {
        Ok(unsent) => unsent,
        Err(error) => return tracing::warn!(%error, "could not tidy the folders of W&B runs"),
    };
    for folder in &unsent.removed {
        tracing::error!(
            folder = %folder.display(),
            "W&B run was never sent, and is removed: such runs take too much of the disk"
        );
    }
    if unsent.bytes <= MAX_UNSENT_BYTES / 2 {
        return board.well(KEY);
    }
    let (runs, mib, most) = (
        unsent.folders.len(),
        unsent.bytes >> 20,
        MAX_UNSENT_BYTES >> 20,
    );
    board.problem(
        KEY,
        Health::Yellow,
        format_args!(
            "{runs} W&B runs of {mib} MiB were never sent; beyond {most} MiB the oldest are \
             removed: `wandb sync` or delete them"
        ),
    );
}

/// Adds to the settings what is known only now: who we are.
fn complete(parts: &Parts, settings: LoggerSettings) -> LoggerSettings {
    let hotkey = parts.context.hotkey;
    let uid = parts
        .snapshots
        .borrow()
        .neuron(&hotkey)
        .map(|neuron| neuron.uid);
    let name = uid.map_or_else(|| "validator".to_owned(), |uid| format!("validator-{uid}"));
    let wallet = Arc::clone(&parts.wallet);
    let json = |value: serde_json::Value| value.to_string();
    let config = vec![
        ("uid".to_owned(), json(uid.map(|uid| uid.0).into())),
        ("hotkey".to_owned(), json(hotkey.ss58().into())),
        (
            "version".to_owned(),
            json(parts.settings.version.clone().into()),
        ),
        ("type".to_owned(), json("validator".into())),
    ];
    let sign: report::wandb::Sign = Arc::new(move |id: &[u8]| wallet.sign(id).to_vec());
    LoggerSettings {
        name,
        config,
        sign: Some(sign),
        ..settings
    }
}
