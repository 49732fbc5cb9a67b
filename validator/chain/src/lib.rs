//! The chain client: the only folder that names subxt.

pub mod block;
pub mod client;
pub mod commitments;
mod connection;
pub mod decode;
pub mod endpoints;
pub mod epoch;
pub mod error;
#[cfg(test)]
mod generations;
pub mod hyperparameters;
mod locks;
pub mod metagraph;
mod rpc;
pub mod runtime;
pub mod timelock;
pub mod wallet;
pub mod weights;

pub use block::Block;
pub use client::{BlockWatch, Client};
pub use commitments::RawCommitment;
pub use connection::Attempts;
pub use endpoints::{Deadlines, EndpointError, Endpoints};
pub use error::{ChainError, RpcError};
pub use hyperparameters::Hyperparameters;
pub use metagraph::{ChainSnapshot, Neuron};
pub use wallet::{Passwords, Wallet, WalletError, WalletPath};
pub use weights::{SetWeightsError, WeightsReceipt};
