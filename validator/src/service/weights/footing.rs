//! Whether the block that included our weights still stands: until it is final, a fork may take it
//! back.

use chain::{
    Client,
    weights::{self, Standing, WeightsReceipt},
};
use subnet::BlockNumber;

/// Blocks between two looks.
const PAUSE: u64 = 2;

/// The newest weights whose block is not final yet.
#[derive(Debug, Default)]
pub(in crate::service) struct Footing {
    open: Option<WeightsReceipt>,
    not_before: BlockNumber,
}

impl Footing {
    /// Takes in new weights; what was before does not matter any more.
    pub(super) fn add(&mut self, receipt: &WeightsReceipt) {
        self.not_before = receipt.block + PAUSE;
        self.open = (!receipt.finalized).then(|| receipt.clone());
    }

    /// Returns whether the weights are gone with their block.
    pub(super) async fn is_lost(&mut self, client: &Client, head: BlockNumber) -> bool {
        let Some(receipt) = self.open.as_ref().filter(|_| head >= self.not_before) else {
            return false;
        };
        self.not_before = head + PAUSE;
        let block = receipt.block;
        match weights::standing(client, receipt).await {
            Ok(Standing::Final) => self.open = None,
            Ok(Standing::Open) => {}
            Ok(Standing::Moved { block: to }) => {
                tracing::warn!(block, to, "a fork moved our weights to another block");
                self.open = None;
            }
            Ok(Standing::Gone) => {
                tracing::error!(block, "a fork took our weights back: they are set again");
                self.open = None;
                return true;
            }
            Err(error) => tracing::debug!(%error, "could not look for our weights"),
        }
        false
    }
}
