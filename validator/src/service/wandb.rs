//! The W&B task: a row for each step, sent in the background, never in the way.

use std::{sync::Arc, time::Duration};

use shared::{Failure, status::Health};
use tokio::sync::broadcast::{self, error::RecvError};

use chain::Wallet;
use report::{
    StepRecord,
    board::Alarm,
    wandb::{
        Logger, LoggerSettings, MAX_UNSENT_BYTES, Sign, Unsent, step_row::step_row, unsent_runs,
    },
};
use subnet::Uid;

/// How long the last rows may take to arrive when the validator stops.
const FINISH: Duration = Duration::from_secs(15);

#[derive(Debug)]
pub(super) struct Wandb {
    pub(super) settings: LoggerSettings,
    pub(super) rows: broadcast::Receiver<Arc<StepRecord>>,
    pub(super) alarm: Alarm,
}

impl Wandb {
    pub(super) async fn run(mut self) -> Result<(), Failure> {
        for folder in unsent_runs(&self.settings.folder) {
            tracing::warn!(folder = %folder.display(), "W&B run was never sent whole: `wandb sync` it");
        }
        let mut logger = Logger::new(self.settings);
        loop {
            match logger.tidy() {
                Ok(unsent) => tell(&unsent, &self.alarm),
                Err(error) => tracing::warn!(%error, "could not tidy the folders of W&B runs"),
            }
            match self.rows.recv().await {
                Ok(record) => {
                    let row = step_row(&record, &record.generated);
                    if let Err(error) = logger.log(record.step, row) {
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
}

/// Tells what was removed. That rows wait to be sent is not a problem, until they take half of what
/// they may.
fn tell(unsent: &Unsent, alarm: &Alarm) {
    for folder in &unsent.removed {
        tracing::error!(
            folder = %folder.display(),
            "W&B run was never sent, and is removed: such runs take too much of the disk"
        );
    }
    if unsent.bytes <= MAX_UNSENT_BYTES / 2 {
        return alarm.end();
    }
    let (runs, mib, most) = (
        unsent.folders.len(),
        unsent.bytes >> 20,
        MAX_UNSENT_BYTES >> 20,
    );
    alarm.raise(
        Health::Yellow,
        format_args!(
            "{runs} W&B runs of {mib} MiB were never sent; beyond {most} MiB the oldest are \
             removed: `wandb sync` or delete them"
        ),
    );
}

/// Adds to the settings what is known only now: who we are.
pub(super) fn complete(
    settings: LoggerSettings,
    uid: Option<Uid>,
    version: &str,
    wallet: &Arc<Wallet>,
) -> LoggerSettings {
    let name = uid.map_or_else(|| "validator".to_owned(), |uid| format!("validator-{uid}"));
    let json = |value: serde_json::Value| value.to_string();
    let config = vec![
        ("uid".to_owned(), json(uid.map(|uid| uid.0).into())),
        ("hotkey".to_owned(), json(wallet.hotkey().ss58().into())),
        ("version".to_owned(), json(version.into())),
        ("type".to_owned(), json("validator".into())),
    ];
    let signer = Arc::clone(wallet);
    let sign: Sign = Arc::new(move |id: &[u8]| signer.sign(id).to_vec());
    LoggerSettings {
        name,
        config,
        sign: Some(sign),
        ..settings
    }
}

#[cfg(test)]
mod tests {
    use report::{
        board::Board,
        status::{Cause, Details},
    };

    use super::*;

    #[test]
    fn unsent_rows_are_told_from_half_of_the_bound_until_they_are_gone() {
        let (board, alarms) = Board::new(Details::default());
        let told = || {
            let status = board.status("test", Duration::ZERO);
            status.details.alarms.contains_key(&Cause::Wandb)
        };
        let unsent = |bytes| Unsent {
            bytes,
            ..Unsent::default()
        };
        tell(&unsent(MAX_UNSENT_BYTES / 2), &alarms.wandb);
        assert!(!told());
        tell(&unsent(MAX_UNSENT_BYTES / 2 + 1), &alarms.wandb);
        assert!(told());
        tell(&unsent(0), &alarms.wandb);
        assert!(!told());
    }
}
