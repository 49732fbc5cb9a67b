//! What the chain makes of our weights: whether committed ones are revealed, whether others set
//! weights with our hotkey.

use shared::status::Health;

use super::clock;
use chain::{
    Client, Neuron, Wallet,
    weights::{self, Reveal, TwinGuard, WeightsReceipt},
};
use report::board::Alarm;
use subnet::BlockNumber;

/// Commits watched until they are revealed: those of two of the chain's epochs, and more.
const MAX_UNREVEALED: usize = 16;

/// Looks for others that set weights with our hotkey.
#[derive(Debug)]
pub(in crate::service) struct Twins {
    guard: TwinGuard,
    alarm: Alarm,
    /// Block of the newest weights that were not ours.
    seen: Option<BlockNumber>,
}

impl Twins {
    pub(in crate::service) const fn new(guard: TwinGuard, alarm: Alarm) -> Self {
        Self {
            guard,
            alarm,
            seen: None,
        }
    }

    /// Raises the alarm when weights were set with our hotkey and not by us; ends it when none
    /// were for two epochs. The chain tells only of the newest weights, so a twin that is alive
    /// may hide behind ours for one epoch. What can't be read, such as a block that no node keeps
    /// any more, tells nothing: it neither raises the alarm nor keeps it.
    pub(super) async fn look(
        &mut self,
        client: &Client,
        wallet: &Wallet,
        neuron: Option<&Neuron>,
        block: BlockNumber,
        interval: u64,
    ) {
        let found = match neuron {
            Some(neuron) => self.guard.check(client, wallet, neuron).await,
            // A hotkey without a uid sets no weights, whoever has it.
            None => Ok(None),
        };
        let found = found.unwrap_or_else(|error| {
            tracing::debug!(%error, "could not look for a twin");
            None
        });
        if let Some(alarm) = found {
            tracing::error!(%alarm, "somebody else uses our hotkey");
            self.seen = Some(alarm.block);
            self.alarm.raise(Health::Red, alarm);
        } else if self
            .seen
            .is_some_and(|seen| clock::is_quiet(seen, block, interval))
        {
            tracing::info!("nobody else has used our hotkey for two epochs");
            self.seen = None;
            self.alarm.end();
        }
    }
}

/// Follows committed weights until the chain shows them.
#[derive(Debug)]
pub(in crate::service) struct Reveals {
    waiting: Vec<WeightsReceipt>,
    alarm: Alarm,
}

impl Reveals {
    pub(in crate::service) const fn new(alarm: Alarm) -> Self {
        Self {
            waiting: Vec::new(),
            alarm,
        }
    }

    /// Takes in a new receipt. Weights that need no reveal are visible: whatever was committed
    /// before is superseded.
    pub(super) fn add(&mut self, receipt: WeightsReceipt) {
        if receipt.reveal.is_none() {
            self.waiting.clear();
            return self.alarm.end();
        }
        self.waiting.push(receipt);
        let superseded = self.waiting.len().saturating_sub(MAX_UNREVEALED);
        self.waiting.drain(..superseded);
    }

    /// Looks whether what is due was revealed; raises the alarm if it never will be.
    pub(super) async fn look(&mut self, client: &Client, head: BlockNumber) {
        // The newest first: commits of one epoch are revealed together, and only the last is seen.
        for index in (0..self.waiting.len()).rev() {
            let receipt = &self.waiting[index];
            if receipt.reveal.is_none_or(|plan| plan.block > head) {
                continue;
            }
            let committed = receipt.block;
            match weights::reveal(client, receipt).await {
                Ok(Reveal::Waiting { .. }) => continue,
                Ok(Reveal::NotNeeded) => self.alarm.end(),
                Ok(Reveal::Visible { block }) => {
                    tracing::info!(committed, block, "committed weights are revealed");
                    self.alarm.end();
                }
                Ok(Reveal::Missed { block }) => {
                    tracing::error!(committed, block, "committed weights were not revealed");
                    self.alarm.raise(
                        Health::Red,
                        format_args!(
                            "the weights committed at block {committed} were not revealed by \
                             block {block}"
                        ),
                    );
                }
                Err(error) => {
                    tracing::debug!(%error, "could not look for the reveal");
                    return;
                }
            }
            self.waiting.drain(..=index);
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{process, time::Duration};

    use chain::{ChainSnapshot, Deadlines, Endpoints};
    use localnet::chain::{BlockMode, Chain, ChainConfig, NeuronConfig, SubnetConfig, TAO};
    use report::{board::Board, status::Details};
    use sp_core::{Pair as _, sr25519};
    use subnet::Netuid;

    use super::*;

    const NETUID: Netuid = Netuid(6);
    const SEED: [u8; 32] = [7; 32];
    const EPOCH: u64 = 10;

    async fn start(hotkey: [u8; 32]) -> Chain {
        let mut subnet = SubnetConfig {
            netuid: NETUID.0,
            neurons: vec![
                NeuronConfig::validator(hotkey, 5_000 * TAO),
                NeuronConfig::miner([1; 32]),
            ],
            ..SubnetConfig::default()
        };
        subnet.hyperparameters.weights_rate_limit = 0;
        let config = ChainConfig {
            subnets: vec![subnet],
            chain_id: process::id().into(),
            ..ChainConfig::default()
        };
        let chain = Chain::start(config).await.unwrap();
        chain.set_block_mode(BlockMode::OnDemand);
        chain
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn the_alarm_ends_also_when_there_is_nothing_to_look_at() {
        let wallet = Wallet::from_seed(&SEED);
        let chain = start(wallet.hotkey().0).await;
        let endpoints = Endpoints::resolve(None, &[chain.ws_url()]).unwrap();
        let deadlines = Deadlines {
            operation: Duration::from_secs(5),
            ..Deadlines::default()
        };
        let client = Client::connect(&endpoints, deadlines).await.unwrap();
        let snapshot = async || client.snapshot(NETUID).await.unwrap();
        let guard = TwinGuard::acquire(&wallet, &snapshot().await).unwrap();
        let (board, alarms) = Board::new(Details::default());
        let told = || board.status("test", Duration::from_secs(1)).problems.len();
        let mut twins = Twins::new(guard, alarms.twin);
        let pair = sr25519::Pair::from_seed(&SEED);
        let hotkey = wallet.hotkey();
        let now = snapshot().await;
        twins
            .look(&client, &wallet, now.neuron(&hotkey), now.block, EPOCH)
            .await;
        // The hotkey has no uid any more; or no node has the block of its last weights.
        let no_uid = |snapshot: &mut ChainSnapshot| snapshot.neurons.clear();
        let no_block = |snapshot: &mut ChainSnapshot| snapshot.neurons[0].last_update += 9_999;
        for blind in [&no_uid as &(dyn Fn(&mut ChainSnapshot) + Sync), &no_block] {
            chain
                .set_weights(NETUID.0, &pair, &[(1, 65535)], 27)
                .unwrap();
            let mut now = snapshot().await;
            twins
                .look(&client, &wallet, now.neuron(&hotkey), now.block, EPOCH)
                .await;
            assert_eq!(told(), 1);
            blind(&mut now);
            now.block += 2 * EPOCH - 1;
            twins
                .look(&client, &wallet, now.neuron(&hotkey), now.block, EPOCH)
                .await;
            assert_eq!(told(), 1, "it is not over yet");
            now.block += 1;
            twins
                .look(&client, &wallet, now.neuron(&hotkey), now.block, EPOCH)
                .await;
            assert_eq!(told(), 0);
        }
    }
}
