//! The cleaner: after steps and now and then, removes models that nobody has needed for a while.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use model::ContentHash;
use shared::{Failure, causes, status::Health};
use tokio::time::sleep;

use super::{library::Library, wakeups::Wakeups};
use crate::{state::Kept, step::attribution};
use models::{Tracker, cleaner, tracker::Outcome};
use report::board::Alarm;

const EVERY: Duration = Duration::from_secs(600);

#[derive(Debug)]
pub(super) struct Cleaner {
    pub(super) library: Arc<Library>,
    pub(super) state: Arc<Kept>,
    pub(super) alarm: Alarm,
    /// How long models that nobody needs are kept.
    pub(super) grace: Duration,
    pub(super) wakeups: Arc<Wakeups>,
}

impl Cleaner {
    pub(super) async fn run(self) -> Result<(), Failure> {
        loop {
            tokio::select! {
                () = self.wakeups.shutdown.requested() => return Ok(()),
                () = sleep(EVERY) => {}
                () = self.wakeups.completed.notified() => {}
            }
            self.sweep().await;
        }
    }

    async fn sweep(&self) {
        let (store, tracker) = (self.library.store.clone(), self.library.sync.tracker());
        self.forgive(&tracker);
        let (evaluated, grace) = (self.evaluated(), self.grace);
        let swept = tokio::task::spawn_blocking(move || {
            cleaner::sweep(&store, &tracker, &evaluated, grace)
        });
        match swept.await {
            Ok(Ok(_)) => self.alarm.end(),
            Ok(Err(error)) => {
                let error = causes::one_line(&error);
                tracing::warn!(error, "could not clean up the models");
                self.alarm
                    .raise(Health::Yellow, format_args!("models: {error}"));
            }
            Err(panic) => tracing::error!(%panic, "cleaning up the models failed"),
        }
    }

    /// Forgets strikes against models that nobody commits to any more.
    fn forgive(&self, tracker: &Tracker) {
        let committed: BTreeSet<String> = tracker
            .holders()
            .keys()
            .map(ContentHash::to_string)
            .collect();
        let is_committed = |name: &str| committed.contains(attribution::subject(name));
        let mut names = self.state.look(|state| {
            let strikes = state.strikes.keys().cloned();
            strikes
                .chain(state.suspects.keys().cloned())
                .collect::<Vec<_>>()
        });
        names.retain(|name| !is_committed(name));
        // What can't be written is on the board, and the next sweep tries again.
        if !names.is_empty() {
            let _ = self.state.update(|state| state.forgive(is_committed));
        }
    }

    /// Returns the models of the pools with their uids' share of the weights.
    fn evaluated(&self) -> BTreeMap<ContentHash, f64> {
        let tracker = self.library.sync.tracker();
        self.state.look(|state| {
            let members = state.pools.values().flatten();
            members
                .filter_map(|(uid, hotkey)| match tracker.get(hotkey)?.outcome {
                    Outcome::Verified { content_hash, .. } => {
                        Some((content_hash, f64::from(state.weights.get(*uid))))
                    }
                    _ => None,
                })
                .collect()
        })
    }
}

#[cfg(test)]
mod tests {
    use hub::{DEFAULT_ENDPOINT, Hub, HubOptions};
    use model::{Compatibility, Dtype};
    use models::{Store, Sync, SyncOptions, Tracker, Verifier, store::StoreLimits};
    use report::{
        board::Board,
        status::{Cause, Details},
    };
    use shared::shutdown::Shutdown;
    use subnet::{Hotkey, Netuid, Parameters};

    use super::*;
    use crate::state::{Identity, State};

    #[tokio::test]
    async fn a_store_that_cannot_be_cleaned_is_told_until_it_can() {
        let dir = tempfile::tempdir().unwrap();
        let (board, alarms) = Board::new(Details::default());
        let store = Store::open(dir.path(), StoreLimits::default()).unwrap();
        let hub = Hub::new(HubOptions::new(DEFAULT_ENDPOINT.parse().unwrap())).unwrap();
        let verifier = Verifier {
            hub: hub.clone(),
            store: Some(store.clone()),
        };
        let options = SyncOptions {
            update_delay: EVERY,
            grace: EVERY,
            min_block: 0,
            dtype: Dtype::F32,
        };
        let identity = Identity {
            netuid: Netuid(6),
            hotkey: Hotkey([1; 32]),
            genesis: "0xabc".into(),
        };
        let cleaner = Cleaner {
            library: Arc::new(Library {
                sync: Sync::new(
                    verifier,
                    Parameters::embedded(),
                    options,
                    Tracker::default(),
                ),
                hub,
                store,
                compatibility: Compatibility::default(),
            }),
            state: Arc::new(Kept::new(dir.path(), State::new(identity), alarms.state).unwrap()),
            alarm: alarms.store,
            grace: EVERY,
            wakeups: Arc::new(Wakeups::new(Shutdown::new())),
        };
        let told = || {
            let status = board.status("test", EVERY);
            status.details.alarms.contains_key(&Cause::Store)
        };
        // A folder in the place of the file: nobody, root included, can write it.
        let needs = dir.path().join("needs.json");
        std::fs::create_dir_all(needs.join("full")).unwrap();
        cleaner.sweep().await;
        assert!(told());
        std::fs::remove_dir_all(&needs).unwrap();
        cleaner.sweep().await;
        assert!(!told());
    }
}
