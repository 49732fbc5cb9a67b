//! The chain as the tasks see it: a client, the newest block, the newest snapshot.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use tokio::sync::watch;

use super::gate::{Gate, Hindrance};
use chain::{ChainError, ChainSnapshot, Client};
use subnet::{BlockNumber, CommitmentRules, Netuid, Uid};

/// The last snapshot, for work without the chain, in the folder of the state.
const SNAPSHOT: &str = "snapshot.json";

/// What is known of the chain.
#[derive(Debug)]
pub(super) struct ChainView {
    /// `None` without a chain.
    client: Option<Client>,
    snapshots: watch::Sender<Arc<ChainSnapshot>>,
    head: watch::Sender<BlockNumber>,
    /// Where each snapshot is kept.
    file: PathBuf,
    gate: Gate,
    /// How miners commit to models.
    commitments: CommitmentRules,
}

/// Returns the file of the last snapshot.
pub(super) fn file(folder: &Path) -> PathBuf {
    folder.join(SNAPSHOT)
}

impl ChainView {
    pub(super) fn new(
        client: Option<Client>,
        snapshot: ChainSnapshot,
        gate: Gate,
        commitments: CommitmentRules,
        folder: &Path,
    ) -> Self {
        let view = Self {
            client,
            head: watch::Sender::new(snapshot.block),
            snapshots: watch::Sender::new(Arc::new(snapshot)),
            file: file(folder),
            gate,
            commitments,
        };
        view.keep(&view.snapshot());
        view
    }

    pub(super) const fn client(&self) -> Option<&Client> {
        self.client.as_ref()
    }

    pub(super) fn netuid(&self) -> Netuid {
        self.snapshots.borrow().netuid
    }

    pub(super) fn snapshot(&self) -> Arc<ChainSnapshot> {
        Arc::clone(&self.snapshots.borrow())
    }

    /// Returns why nothing is evaluated and no weights are set, if so.
    pub(super) fn hindrance(&self) -> Option<Hindrance> {
        self.gate.hindrance(&self.snapshot())
    }

    /// Returns our uid.
    pub(super) fn uid(&self) -> Option<Uid> {
        self.gate.uid(&self.snapshot())
    }

    /// Returns a receiver that sees every snapshot.
    pub(super) fn snapshots(&self) -> watch::Receiver<Arc<ChainSnapshot>> {
        self.snapshots.subscribe()
    }

    /// Returns the height of the newest block.
    pub(super) fn head(&self) -> BlockNumber {
        *self.head.borrow()
    }

    /// Returns a receiver that sees every new block.
    pub(super) fn heads(&self) -> watch::Receiver<BlockNumber> {
        self.head.subscribe()
    }

    /// Notes a new block.
    pub(super) fn saw(&self, block: BlockNumber) {
        self.head.send_replace(block);
    }

    /// Takes a snapshot and publishes it; without a chain the old one stays.
    pub(super) async fn refresh(&self) -> Result<(), ChainError> {
        let Some(client) = &self.client else {
            return Ok(());
        };
        let snapshot = client.snapshot_by(self.netuid(), &self.commitments).await?;
        self.keep(&snapshot);
        self.head.send_if_modified(|head| {
            let newer = snapshot.block > *head;
            *head = snapshot.block.max(*head);
            newer
        });
        self.snapshots.send_replace(Arc::new(snapshot));
        Ok(())
    }

    fn keep(&self, snapshot: &ChainSnapshot) {
        if let Err(error) = snapshot.save(&self.file) {
            let error = shared::causes::one_line(&error);
            tracing::warn!(error, "could not keep the snapshot for offline work");
        }
    }
}
