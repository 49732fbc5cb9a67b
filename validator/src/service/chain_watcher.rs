//! The chain watcher: every new block, and a fresh snapshot when one is due.

use std::{sync::Arc, time::Duration};

use shared::{Failure, shutdown::Shutdown, status::Health};
use tokio::time::{Instant, sleep};

use super::chain_view::ChainView;
use crate::state::Kept;
use chain::{ChainError, Client};
use report::board::{Alarm, Board};
use subnet::BlockNumber;

/// A snapshot is taken at least every so many blocks.
const SNAPSHOT_BLOCKS: u64 = 25;

/// First pause after a failure; it doubles up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

#[derive(Debug)]
pub(super) struct ChainWatcher {
    pub(super) client: Client,
    pub(super) chain: Arc<ChainView>,
    pub(super) state: Arc<Kept>,
    pub(super) board: Board,
    pub(super) alarm: Alarm,
    /// A snapshot is taken at least this often.
    pub(super) update_delay: Duration,
    pub(super) shutdown: Shutdown,
}

impl ChainWatcher {
    pub(super) async fn run(self) -> Result<(), Failure> {
        let mut blocks = self.client.blocks();
        let mut pause = FIRST_PAUSE;
        let mut taken = Instant::now();
        loop {
            let seen = tokio::select! {
                () = self.shutdown.requested() => return Ok(()),
                seen = blocks.next() => seen,
            };
            let outcome = match seen {
                Ok(block) => self.follow(block, &mut taken).await,
                Err(error) => Err(error),
            };
            if let Err(error) = outcome {
                tracing::warn!(%error, "the chain is away");
                self.alarm
                    .raise(Health::Yellow, format_args!("chain: {error}"));
                tokio::select! {
                    () = self.shutdown.requested() => return Ok(()),
                    () = sleep(pause) => {}
                }
                pause = (pause * 2).min(LONGEST_PAUSE);
            } else {
                self.alarm.end();
                pause = FIRST_PAUSE;
            }
        }
    }

    async fn follow(&self, block: BlockNumber, taken: &mut Instant) -> Result<(), ChainError> {
        self.chain.saw(block);
        self.stay_alive(block);
        self.board.note(|details| details.block = Some(block));
        let behind = block.saturating_sub(self.chain.snapshot().block);
        let due = behind >= SNAPSHOT_BLOCKS || taken.elapsed() >= self.update_delay;
        if !due || behind == 0 {
            return Ok(());
        }
        *taken = Instant::now();
        self.chain.refresh().await
    }

    /// Notes that we are alive, four times a tempo: a restart within it goes on from the state.
    fn stay_alive(&self, block: BlockNumber) {
        let quarter = u64::from(self.chain.snapshot().hyperparameters.tempo) / 4;
        if block >= self.state.look(|state| state.alive_at) + quarter.max(1)
            && let Err(error) = self.state.update(|state| state.alive_at = block)
        {
            tracing::warn!(%error, "could not write the state");
        }
    }
}
