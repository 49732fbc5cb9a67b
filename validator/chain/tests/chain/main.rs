//! The chain client against a real FRAME chain on loopback.
#![expect(
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test's panic is its verdict"
)]

mod commitments;
mod day;
mod endpoints;
mod faults;
mod hostile;
mod landing;
mod set_weights;
mod snapshot;
mod upgrade;
mod wallet;

use std::{
    hash::{DefaultHasher, Hash as _, Hasher as _},
    time::Duration,
};

use chain::{Client, Deadlines, Endpoints, Wallet};
use localnet::chain::{BlockMode, Chain, ChainConfig, NeuronConfig, SubnetConfig, TAO};
use subnet::Netuid;

/// The subnet of all these tests.
pub(crate) const NETUID: Netuid = Netuid(6);

/// The seed of our validator's hotkey.
pub(crate) const SEED: [u8; 32] = [7; 32];

pub(crate) fn wallet() -> Wallet {
    Wallet::from_seed(&SEED)
}

/// Returns a key that belongs to nobody in particular.
pub(crate) fn key(number: u16) -> [u8; 32] {
    let mut key = [0xaa; 32];
    key[..2].copy_from_slice(&number.to_le_bytes());
    key
}

/// Chains of one test are one chain to its clients; those of other tests, which run beside it, are
/// others, also to the locks of the wallet.
fn chain_id() -> u64 {
    let mut hasher = DefaultHasher::new();
    (std::process::id(), std::thread::current().id()).hash(&mut hasher);
    hasher.finish()
}

/// Starts a chain whose uid 0 is our validator, the others miners.
pub(crate) async fn start(neurons: u16, change: impl FnOnce(&mut SubnetConfig)) -> Chain {
    start_with(chain_id(), neurons, change).await
}

/// Starts a chain that is another one than all others of a test.
pub(crate) async fn start_other(neurons: u16) -> Chain {
    start_with(!chain_id(), neurons, |_| ()).await
}

async fn start_with(chain_id: u64, neurons: u16, change: impl FnOnce(&mut SubnetConfig)) -> Chain {
    let ours = NeuronConfig::validator(wallet().hotkey().0, 5_000 * TAO);
    let miners = (1..neurons).map(|number| NeuronConfig::miner(key(number)));
    let mut subnet = SubnetConfig {
        netuid: NETUID.0,
        neurons: std::iter::once(ours).chain(miners).collect(),
        ..SubnetConfig::default()
    };
    subnet.hyperparameters.weights_rate_limit = 0;
    change(&mut subnet);
    let config = ChainConfig {
        subnets: vec![subnet],
        chain_id,
        ..ChainConfig::default()
    };
    let chain = Chain::start(config).await.unwrap();
    chain.set_block_mode(BlockMode::OnDemand);
    chain
}

/// Deadlines short enough for tests, long enough for a busy machine.
pub(crate) fn deadlines() -> Deadlines {
    Deadlines {
        handshake: Duration::from_secs(5),
        request: Duration::from_secs(2),
        operation: Duration::from_secs(8),
        silence: Duration::from_secs(10),
        inclusion: Duration::from_secs(3),
        backoff: Duration::from_millis(50),
        penalty: Duration::from_millis(500),
        survey: Duration::from_millis(500),
    }
}

/// Connects to one or more chains, in this order.
pub(crate) async fn connect(chains: &[&Chain]) -> Client {
    let urls: Vec<_> = chains.iter().map(|chain| chain.ws_url()).collect();
    let endpoints = Endpoints::resolve(None, &urls).unwrap();
    Client::connect(&endpoints, deadlines()).await.unwrap()
}
