//! When the chain's epochs begin, by the rules of two generations of runtimes.

use serde::{Deserialize, Serialize};

use subnet::{BlockNumber, Netuid};

/// Longest pause between epochs of the newer generation, in blocks.
const MAX_TEMPO: u64 = 50_400;

/// What decides when a subnet's epochs begin, read at one block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct EpochState {
    /// Blocks between epochs; 0 means never.
    pub tempo: u16,
    /// The newer runtimes' counters; older ones compute epochs from the block number.
    pub counters: Option<EpochCounters>,
}

/// Counters kept by runtimes since mid 2026.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct EpochCounters {
    /// Block of the last epoch.
    pub last_epoch_block: BlockNumber,
    /// Block at which an epoch was ordered; 0 if none was.
    pub pending_epoch_at: BlockNumber,
    /// Number of the epoch.
    pub epoch_index: u64,
    /// Blocks since the last epoch that ran.
    pub blocks_since_last_step: u64,
}

impl EpochCounters {
    fn is_due(&self, tempo: u64, block: BlockNumber) -> bool {
        (self.pending_epoch_at > 0 && block >= self.pending_epoch_at)
            || self.blocks_since_last_step > MAX_TEMPO
            || block.saturating_sub(self.last_epoch_block) >= tempo
    }

    fn step(&mut self, tempo: u64, block: BlockNumber) -> bool {
        self.blocks_since_last_step += 1;
        let due = self.is_due(tempo, block);
        if due {
            self.last_epoch_block = block;
            self.pending_epoch_at = 0;
            self.epoch_index += 1;
            self.blocks_since_last_step = 0;
        }
        due
    }
}

impl EpochState {
    /// Returns the number of the epoch to which a commit in the block after `head` belongs.
    pub(crate) fn index_after(&self, netuid: Netuid, head: BlockNumber) -> u64 {
        let tempo = u64::from(self.tempo);
        match self.counters {
            Some(mut counters) => {
                counters.step(tempo, head + 1);
                counters.epoch_index
            }
            None => (head + 1 + u64::from(netuid.0) + 1) / (tempo + 1),
        }
    }

    /// Returns the first block after `head` at which an epoch begins; `None` if none ever does.
    pub fn next_start(&self, netuid: Netuid, head: BlockNumber) -> Option<BlockNumber> {
        self.start_after(netuid, head, 1)
    }

    /// Returns the first block of the epoch in which weights committed in the block after `head`
    /// are revealed, `period` epochs later.
    pub fn reveal_start(
        &self,
        netuid: Netuid,
        head: BlockNumber,
        period: u64,
    ) -> Option<BlockNumber> {
        let Some(mut counters) = self.counters else {
            return self.start_after(netuid, head, period);
        };
        if self.tempo == 0 {
            return None;
        }
        let tempo = u64::from(self.tempo);
        // A commit included in the block at which an epoch begins already belongs to that epoch.
        let mut committed = counters;
        committed.step(tempo, head + 1);
        let target = committed.epoch_index + period;
        let horizon = period.min(1000) * MAX_TEMPO + MAX_TEMPO;
        (head + 1..=head + horizon).find(|block| {
            counters.step(tempo, *block);
            counters.epoch_index >= target
        })
    }

    fn start_after(&self, netuid: Netuid, head: BlockNumber, epochs: u64) -> Option<BlockNumber> {
        let tempo = u64::from(self.tempo);
        if tempo == 0 {
            return None;
        }
        let Some(mut counters) = self.counters else {
            let shift = u64::from(netuid.0) + 1;
            let current = (head + shift) / (tempo + 1);
            return ((current + epochs) * (tempo + 1)).checked_sub(shift);
        };
        (head + 1..=head + MAX_TEMPO + 1).find(|block| counters.step(tempo, *block))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counters(last: u64, pending: u64, tempo: u16) -> EpochState {
        EpochState {
            tempo,
            counters: Some(EpochCounters {
                last_epoch_block: last,
                pending_epoch_at: pending,
                epoch_index: 3,
                blocks_since_last_step: 0,
            }),
        }
    }

    #[test]
    fn counting_runtimes_reveal_as_the_official_client_computes() {
        // Vectors of the official Rust client.
        assert_eq!(counters(10, 0, 50).reveal_start(Netuid(1), 10, 1), Some(60));
        assert_eq!(
            counters(80, 95, 20).reveal_start(Netuid(1), 91, 1),
            Some(95)
        );
        assert_eq!(
            counters(10, 0, 50).reveal_start(Netuid(1), 10, 2),
            Some(110)
        );
        assert_eq!(counters(10, 0, 0).reveal_start(Netuid(1), 10, 1), None);
        // The commit itself lands in the block that begins an epoch.
        assert_eq!(
            counters(10, 0, 50).reveal_start(Netuid(1), 59, 1),
            Some(110)
        );
        assert_eq!(counters(10, 0, 50).next_start(Netuid(1), 59), Some(60));
    }

    #[test]
    fn older_runtimes_count_from_the_block_number() {
        let state = EpochState {
            tempo: 360,
            counters: None,
        };
        let next = state.next_start(Netuid(6), 1000).unwrap();
        assert_eq!((next + 7) % 361, 0);
        assert!(next > 1000 && next <= 1361);
        assert_eq!(state.reveal_start(Netuid(6), 1000, 1), Some(next));
        assert_eq!(state.reveal_start(Netuid(6), 1000, 2), Some(next + 361));
    }
}
