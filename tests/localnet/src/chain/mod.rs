//! A Bittensor chain on loopback: a real FRAME runtime compiled natively, behind the JSON-RPC of a
//! Substrate node.
//!
//! Clients reach it as they reach a real one; tests set it up and vex it through [`Chain`], other
//! programs through the `dev_*` methods, which do the same.

mod beacon;
mod block;
mod changes;
pub mod config;
mod extrinsic;
mod faults;
mod gateway;
mod ledger;
mod node;
mod pool;
mod rpc;
mod runtime;
mod setup;
mod state;

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use codec::Encode;
use shared::task::TaskSet;
use sp_core::{H256, Pair, sr25519};
use sp_runtime::{DispatchError, traits::Header as _};
use tokio::net::TcpListener;

pub use self::{
    changes::Upgrade,
    config::{ChainConfig, Hyperparameter, Hyperparameters, NeuronConfig, SubnetConfig, TAO},
    faults::{CallError, Stall},
    gateway::Gateway,
    node::BlockMode,
    pool::Rejected,
    setup::Neuron,
};
use self::{
    ledger::Ledger,
    node::Node,
    runtime::{AccountId, RuntimeCall, System},
};

/// A running chain. Dropping it stops it.
#[derive(Debug)]
pub struct Chain {
    node: Arc<Node>,
    address: SocketAddr,
    tasks: TaskSet,
}

/// What a chain could not do.
#[derive(Debug, thiserror::Error)]
pub enum ChainError {
    /// The port is taken, or there is no loopback.
    #[error("the chain cannot listen on 127.0.0.1:{port}")]
    Listen {
        port: u16,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// The pool does not take the extrinsic.
    #[error("the pool refuses the extrinsic: {0}")]
    Rejected(#[from] Rejected),
    /// The extrinsic is in a block and failed there, or a change is refused: the runtime's error
    /// by its name, such as `SubtensorModule::DuplicateUids`.
    #[error("the runtime refuses: {0}")]
    Refused(String),
    /// The runtime panicked: a bug of it.
    #[error("{0}")]
    Trapped(String),
    /// The commitment is longer than 512 bytes.
    #[error("a commitment of {0} bytes is too long: 512 at most")]
    Commitment(usize),
}

impl From<state::Trapped> for ChainError {
    fn from(error: state::Trapped) -> Self {
        Self::Trapped(error.to_string())
    }
}

impl From<DispatchError> for ChainError {
    fn from(error: DispatchError) -> Self {
        Self::Refused(runtime::error_name(error))
    }
}

impl From<ledger::LedgerError> for ChainError {
    fn from(error: ledger::LedgerError) -> Self {
        match error {
            ledger::LedgerError::Trapped(error) => error.into(),
            ledger::LedgerError::Subnet(error) => error.into(),
        }
    }
}

impl Drop for Chain {
    fn drop(&mut self) {
        self.node.faults.cut(Duration::ZERO);
    }
}

impl Chain {
    /// Makes block 0 and starts to serve it.
    ///
    /// # Errors
    /// The port is taken, or the configuration's subnets contradict themselves.
    pub async fn start(config: ChainConfig) -> Result<Self, ChainError> {
        let port = config.port;
        let (listener, address) = listen(port).await?;
        let mode = config
            .block_time
            .map_or(BlockMode::OnDemand, BlockMode::Every);
        let node = Arc::new(Node::new(Ledger::new(&config)?, mode));
        let mut tasks = TaskSet::new();
        tasks.spawn("chain rpc", rpc::serve(listener, Arc::clone(&node)));
        let clock = Arc::clone(&node);
        tasks.spawn("chain blocks", async move {
            clock.tick().await;
            Ok(())
        });
        Ok(Self {
            node,
            address,
            tasks,
        })
    }

    /// Starts a second node of this chain: its blocks and its pool are the same; it lags, fails and
    /// is stopped by itself.
    ///
    /// # Errors
    /// There is no loopback.
    pub async fn second_node(&self) -> Result<Self, ChainError> {
        let (listener, address) = listen(0).await?;
        let node = Arc::new(self.node.second());
        let mut tasks = TaskSet::new();
        tasks.spawn("chain rpc", rpc::serve(listener, Arc::clone(&node)));
        Ok(Self {
            node,
            address,
            tasks,
        })
    }

    /// Stops serving: the port is free when this returns, and all connections are cut.
    pub async fn stop(mut self) {
        self.tasks.abort_all();
        while self.tasks.next().await.is_some() {}
    }

    /// Returns where clients connect: `ws://127.0.0.1:PORT`.
    pub fn ws_url(&self) -> String {
        format!("ws://{}", self.address)
    }

    /// Returns where calls are answered over HTTP: `http://127.0.0.1:PORT`.
    pub fn http_url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Returns the newest block's number.
    pub fn block_number(&self) -> u32 {
        self.node.ledger().best_number()
    }

    /// Returns the newest final block's number.
    pub fn finalized_number(&self) -> u32 {
        self.node.ledger().finalized_number()
    }

    /// Returns the hash of a block; `None` if there is no such block yet.
    pub fn block_hash(&self, number: u32) -> Option<[u8; 32]> {
        self.node.ledger().block(number).map(|block| block.hash.0)
    }

    /// Returns the newest block's chain time, milliseconds since 1970.
    pub fn time(&self) -> u64 {
        self.node.ledger().best().time
    }

    /// Makes this many blocks, one after the other.
    ///
    /// # Errors
    /// The runtime panicked.
    pub async fn produce_blocks(&self, count: u32) -> Result<(), ChainError> {
        for _ in 0..count {
            self.node.produce(Vec::new())?;
            tokio::task::yield_now().await;
        }
        Ok(())
    }

    /// Changes when blocks are made.
    pub fn set_block_mode(&self, mode: BlockMode) {
        self.node.mode.send_replace(mode);
    }

    /// Signs a call, submits it, and waits until it is in a block, making one if none comes by
    /// itself. Returns the extrinsic's hash.
    fn execute(&self, call: RuntimeCall, pair: &sr25519::Pair) -> Result<H256, ChainError> {
        let extrinsic = {
            let ledger = self.node.ledger();
            let best = ledger.best();
            let sign = || {
                let nonce = System::account_nonce(AccountId::new(pair.public().0));
                // Only a begun block knows the hash of block 0, which is signed too.
                let next = best.header.number() + 1;
                System::initialize(&next, &best.hash, &sp_runtime::Digest::default());
                extrinsic::sign(call, pair, nonce)
            };
            ledger.read(best, sign)?.map_err(Rejected::invalid)?
        };
        let hash = self.node.submit(&extrinsic.encode())?;
        if !matches!(
            self.node.ledger().pool.status(hash),
            Some(pool::Status::InBlock(_))
        ) {
            self.node.produce(Vec::new())?;
        }
        match self.node.ledger().failure(hash) {
            Some(error) => Err(error.into()),
            None => Ok(hash),
        }
    }
}

async fn listen(port: u16) -> Result<(TcpListener, SocketAddr), ChainError> {
    let refused = |source| ChainError::Listen { port, source };
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port))
        .await
        .map_err(refused)?;
    let address = listener.local_addr().map_err(refused)?;
    Ok((listener, address))
}
