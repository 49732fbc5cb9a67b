//! The W&B task: a row for each step, sent in the background, never in the way.

use std::{sync::Arc, time::Duration};

use shared::Failure;
use tokio::sync::broadcast::{self, error::RecvError};

use super::Parts;
use crate::report::{
    StepRecord,
    wandb::{Logger, Settings, step_row::step_row, unsent_runs},
};

/// How long the last rows may take to arrive when the validator stops.
const FINISH: Duration = Duration::from_secs(15);

pub(super) async fn run(
    parts: Arc<Parts>,
    settings: Settings,
    mut records: broadcast::Receiver<Arc<StepRecord>>,
) -> Result<(), Failure> {
    for folder in unsent_runs(&settings.folder) {
        tracing::warn!(folder = %folder.display(), "W&B run was never sent whole: `wandb sync` it");
    }
    let mut logger = Logger::new(complete(&parts, settings));
    loop {
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

/// Adds to the settings what is known only now: who we are.
fn complete(parts: &Parts, settings: Settings) -> Settings {
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
    let sign: crate::report::wandb::Sign = Arc::new(move |id: &[u8]| wallet.sign(id).to_vec());
    Settings {
        name,
        config,
        sign: Some(sign),
        ..settings
    }
}
