//! The chain client: the only folder that names subxt.

mod abilities;
pub mod block;
mod block_watch;
pub mod client;
pub mod commitments;
pub mod decode;
pub mod endpoints;
pub mod epoch;
pub mod error;
#[cfg(test)]
mod generations;
pub mod hyperparameters;
mod locks;
pub mod metagraph;
mod node_url;
mod pool;
mod rpc;
pub mod runtime;
mod stake;
pub mod timelock;
mod trust;
pub mod upgrade;
mod verdict;
pub mod wallet;
pub mod weights;

pub use abilities::Abilities;
pub use block::Block;
pub use block_watch::BlockWatch;
pub use client::Client;
pub use commitments::RawCommitment;
pub use endpoints::{Deadlines, EndpointError, Endpoints};
pub use error::{ChainError, RpcError};
pub use hyperparameters::Hyperparameters;
pub use metagraph::{ChainSnapshot, Neuron};
pub use node_url::NodeUrl;
pub use pool::{Attempts, EndpointReport};
pub use trust::Trust;
pub use wallet::{Passwords, Wallet, WalletError, WalletPath};
pub use weights::{SetWeightsError, WeightsReceipt};
