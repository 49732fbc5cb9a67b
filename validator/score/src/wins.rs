//! Wins: every model against every other, sample by sample, with a head start for the older.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use subnet::{BlockNumber, Uid, parameters::Epsilon};

/// A uid in the race.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Entrant {
    /// Block of its commitment; `None` (younger than any) if it has nothing to show.
    pub block: Option<BlockNumber>,
    /// Loss per sample, in the order of the sample set; empty if it was not evaluated.
    pub losses: Vec<f64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct WinRow {
    pub wins: u32,
    pub matches: u32,
    /// `wins / matches`, 0 without matches.
    pub win_rate: f64,
}

/// How every uid of a step fared.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct WinTable(BTreeMap<Uid, WinRow>);

/// Returns whether the loss of model i beats that of model j. The model of the strictly smaller
/// block has its loss reduced by `head_start`; a tie, a NaN and two infinities are not wins.
pub fn is_win(
    loss_i: f64,
    loss_j: f64,
    block_i: Option<BlockNumber>,
    block_j: Option<BlockNumber>,
    head_start: f64,
) -> bool {
    let handicap = 1.0 - head_start;
    let older = |a: Option<BlockNumber>, b: Option<BlockNumber>| match (a, b) {
        (Some(a), Some(b)) => a < b,
        (Some(_), None) => true,
        (None, _) => false,
    };
    let loss_i = if older(block_i, block_j) {
        handicap * loss_i
    } else {
        loss_i
    };
    let loss_j = if older(block_j, block_i) {
        handicap * loss_j
    } else {
        loss_j
    };
    loss_i < loss_j
}

impl WinTable {
    /// Compares each ordered pair over the samples both were evaluated on. `now` is the block at
    /// which ages are taken, should the head start decay with age.
    pub fn compute(entrants: &BTreeMap<Uid, Entrant>, epsilon: Epsilon, now: BlockNumber) -> Self {
        let rows = entrants.iter().map(|(uid, entrant)| {
            let mut row = WinRow::default();
            for (rival_uid, rival) in entrants {
                if rival_uid != uid {
                    row.meet(entrant, rival, epsilon, now);
                }
            }
            if row.matches > 0 {
                row.win_rate = f64::from(row.wins) / f64::from(row.matches);
            }
            (*uid, row)
        });
        Self(rows.collect())
    }

    /// Returns the rows, by uid.
    pub fn rows(&self) -> &BTreeMap<Uid, WinRow> {
        &self.0
    }

    /// Returns the row of a uid.
    pub fn get(&self, uid: Uid) -> Option<&WinRow> {
        self.0.get(&uid)
    }

    /// Returns the win rates, by uid.
    pub fn win_rates(&self) -> BTreeMap<Uid, f64> {
        self.0
            .iter()
            .map(|(uid, row)| (*uid, row.win_rate))
            .collect()
    }
}

impl WinRow {
    fn meet(&mut self, own: &Entrant, rival: &Entrant, epsilon: Epsilon, now: BlockNumber) {
        let older = own.block.into_iter().chain(rival.block).min();
        let head_start = epsilon.at_age(older.map_or(0, |block| now.saturating_sub(block)));
        for (own_loss, rival_loss) in own.losses.iter().zip(&rival.losses) {
            self.matches = self.matches.saturating_add(1);
            let won = is_win(*own_loss, *rival_loss, own.block, rival.block, head_start);
            self.wins = self.wins.saturating_add(u32::from(won));
        }
    }
}
