//! The chain client: connects, pins blocks, takes snapshots, waits for new blocks.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use codec::{Compact, Decode, Encode};
use subxt::{
    config::{
        Hasher as _,
        substrate::{BlakeTwo256, H256},
    },
    rpcs::{LegacyRpcMethods, RpcClient},
};
use tokio::{
    sync::{Mutex, watch},
    time::timeout,
};

use super::{
    abilities::Abilities,
    block::{Block, Methods},
    endpoints::{Deadlines, Endpoints},
    error::ChainError,
    metagraph::ChainSnapshot,
    pool::{Attempts, EndpointReport},
    rpc::Rpc,
    runtime::{Runtime, Subtensor},
    weights::preflight,
};
use subnet::{BlockNumber, CommitmentRules, Genesis, Netuid, Uid};

pub(super) type BlockHeader = <Subtensor as subxt::config::Config>::Header;

/// How often a snapshot is begun anew because the node forgot its block, or the runtime changed.
const TRIES: usize = 3;

/// How long the other endpoints may take to say how fresh they are before the first is taken.
const FIRST_SURVEY: Duration = Duration::from_secs(1);

/// A client of one chain. Cheap to clone; all clones share one connection.
#[derive(Debug, Clone)]
pub struct Client(Arc<Connected>);

#[derive(Debug)]
struct Connected {
    rpc: Rpc,
    methods: Methods,
    genesis: Genesis,
    network: String,
    /// Only the newest runtime is kept: metadata is large, and old blocks are not read.
    runtime: Mutex<Option<Arc<Runtime>>>,
}

/// How much the client has asked of the chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RpcUsage {
    pub requests: u64,
    pub connections: u64,
}

impl Client {
    /// Connects to the first endpoint that answers, and learns the chain's genesis and runtime.
    pub async fn connect(endpoints: &Endpoints, deadlines: Deadlines) -> Result<Self, ChainError> {
        Self::connect_telling(endpoints, deadlines, watch::Sender::default()).await
    }

    /// Like [`Client::connect`], telling of each failure on the way.
    pub async fn connect_telling(
        endpoints: &Endpoints,
        deadlines: Deadlines,
        attempts: watch::Sender<Attempts>,
    ) -> Result<Self, ChainError> {
        let rpc = Rpc::new(endpoints, deadlines, attempts);
        let methods: Methods = LegacyRpcMethods::new(RpcClient::new(rpc.clone()));
        let genesis = rpc.genesis().await?;
        // The first that answers may lag; those that take longer are looked at later.
        let _ = timeout(FIRST_SURVEY, rpc.survey()).await;
        let network = endpoints.network.clone();
        let client = Self(Arc::new(Connected {
            rpc,
            methods,
            genesis,
            network,
            runtime: Mutex::new(None),
        }));
        client.head().await?;
        Ok(client)
    }

    /// Returns which chain this is.
    pub fn genesis(&self) -> Genesis {
        self.0.genesis
    }

    pub fn network(&self) -> &str {
        &self.0.network
    }

    /// Returns the endpoint in use.
    pub fn endpoint(&self) -> Option<String> {
        self.0.rpc.endpoint()
    }

    /// Returns what is known of each endpoint.
    pub fn endpoints(&self) -> Vec<EndpointReport> {
        self.0.rpc.report()
    }

    /// Asks the endpoint in use what it can do.
    pub async fn abilities(&self) -> Abilities {
        self.0.rpc.pool().learn_abilities().await;
        let in_use = self.endpoints().into_iter().find(|one| one.in_use);
        in_use.and_then(|one| one.abilities).unwrap_or_default()
    }

    /// Asks in the background what the connected endpoints can do that were not asked yet;
    /// [`Client::endpoints`] tells.
    pub fn learn_abilities(&self) {
        self.0.rpc.pool().learn_abilities_soon();
    }

    /// Asks every endpoint for its newest block, and uses the best from now on.
    pub async fn survey(&self) {
        self.0.rpc.survey().await;
    }

    /// Returns how much the client has asked of the chain so far.
    pub fn usage(&self) -> RpcUsage {
        RpcUsage {
            requests: self.0.rpc.requests(),
            connections: self.0.rpc.connections(),
        }
    }

    /// Returns how long the client waits for what.
    pub fn deadlines(&self) -> Deadlines {
        self.0.rpc.deadlines()
    }

    /// Returns the height of the best block.
    pub async fn block_number(&self) -> Result<BlockNumber, ChainError> {
        Ok(self.best_header().await?.number)
    }

    /// Returns the hash of the block at a height.
    pub async fn block_hash(&self, number: BlockNumber) -> Result<[u8; 32], ChainError> {
        Ok(self.hash_at(number).await?.0)
    }

    /// Returns the state at the best block.
    pub async fn head(&self) -> Result<Block, ChainError> {
        let header = self.best_header().await?;
        self.at(BlakeTwo256.hash(&header.encode()), header.number)
            .await
    }

    /// Returns the state at a block.
    pub(super) async fn at(&self, hash: H256, number: BlockNumber) -> Result<Block, ChainError> {
        let runtime = self.runtime(hash).await?;
        Ok(Block {
            methods: self.0.methods.clone(),
            hash,
            number,
            runtime,
        })
    }

    /// Returns the state at a height of the best chain.
    pub(super) async fn block_at(&self, number: BlockNumber) -> Result<Block, ChainError> {
        self.at(self.hash_at(number).await?, number).await
    }

    /// Returns the state at a block of which only the hash is known.
    pub(super) async fn block_of(&self, hash: H256) -> Result<Block, ChainError> {
        const METHOD: &str = "chain_getHeader";
        let header = self
            .0
            .methods
            .chain_get_header(Some(hash))
            .await
            .map_err(ChainError::on(METHOD))?;
        let header = header.ok_or_else(|| ChainError::Garbled {
            method: METHOD,
            problem: "no header".into(),
        })?;
        self.at(hash, header.number).await
    }

    /// Returns the hash of the best chain's block at a height.
    pub(super) async fn hash_at(&self, number: BlockNumber) -> Result<H256, ChainError> {
        const METHOD: &str = "chain_getBlockHash";
        let hash = self
            .0
            .methods
            .chain_get_block_hash(Some(number.into()))
            .await;
        hash.map_err(ChainError::on(METHOD))?
            .ok_or_else(|| ChainError::Garbled {
                method: METHOD,
                problem: "no such block".into(),
            })
    }

    /// Returns the height of the newest final block.
    pub(super) async fn finalized_number(&self) -> Result<BlockNumber, ChainError> {
        const METHOD: &str = "chain_getFinalizedHead";
        let hash = self
            .0
            .methods
            .chain_get_finalized_head()
            .await
            .map_err(ChainError::on(METHOD))?;
        let header = self.0.methods.chain_get_header(Some(hash)).await;
        let header = header.map_err(ChainError::on("chain_getHeader"))?;
        header
            .map(|header| header.number)
            .ok_or_else(|| ChainError::Garbled {
                method: METHOD,
                problem: "no header".into(),
            })
    }

    /// Returns the transactions of a block, as bytes.
    pub(super) async fn extrinsics(&self, hash: H256) -> Result<Vec<Vec<u8>>, ChainError> {
        const METHOD: &str = "chain_getBlock";
        let details = self
            .0
            .methods
            .chain_get_block(Some(hash))
            .await
            .map_err(ChainError::on(METHOD))?;
        let details = details.ok_or_else(|| ChainError::Garbled {
            method: METHOD,
            problem: "no such block".into(),
        })?;
        Ok(details
            .block
            .extrinsics
            .into_iter()
            .map(|extrinsic| extrinsic.0)
            .collect())
    }

    /// Leaves the endpoint in use; the next request goes to another, if there is one.
    pub fn reconnect(&self) {
        self.0.rpc.reconnect();
    }

    /// Takes a snapshot of a subnet whose miners commit as those of the fine-tuning subnet do.
    pub async fn snapshot(&self, netuid: Netuid) -> Result<ChainSnapshot, ChainError> {
        self.snapshot_by(netuid, &CommitmentRules::default()).await
    }

    /// Takes a snapshot of a subnet at the best block.
    pub async fn snapshot_by(
        &self,
        netuid: Netuid,
        rules: &CommitmentRules,
    ) -> Result<ChainSnapshot, ChainError> {
        let mut tries = TRIES;
        loop {
            tries -= 1;
            let block = self.head().await?;
            match ChainSnapshot::read(&block, netuid, rules).await {
                Err(ChainError::Discarded(problem)) if tries > 0 => {
                    tracing::warn!(block = block.number(), problem, "taking a fresh block");
                    // Another node may keep more; this one may have lost its way.
                    self.0.rpc.reconnect();
                }
                Err(error @ ChainError::Decode { .. }) if tries > 0 => {
                    let error = shared::causes::one_line(&error);
                    tracing::warn!(error, "reading the runtime's metadata again");
                    *self.0.runtime.lock().await = None;
                }
                result => return result,
            }
        }
    }

    /// Reads the weights of all neurons of a subnet, with the block's height.
    pub async fn weights(
        &self,
        netuid: Netuid,
        mechanism: u8,
    ) -> Result<(BlockNumber, BTreeMap<Uid, Vec<(u16, u16)>>), ChainError> {
        let block = self.head().await?;
        let rows = preflight::all_weights(&block, netuid, mechanism).await?;
        Ok((block.number(), rows))
    }

    /// Reads when a neuron last set weights of a mechanism.
    pub async fn last_weights(
        &self,
        netuid: Netuid,
        mechanism: u8,
        uid: Uid,
    ) -> Result<BlockNumber, ChainError> {
        let index = preflight::storage_index(netuid, mechanism);
        preflight::last_update(&self.head().await?, index, uid).await
    }

    /// Returns what sees each change of the endpoint in use.
    pub(super) fn moves(&self) -> watch::Receiver<u64> {
        self.0.rpc.moves()
    }

    pub(super) fn methods(&self) -> &Methods {
        &self.0.methods
    }

    async fn best_header(&self) -> Result<BlockHeader, ChainError> {
        const METHOD: &str = "chain_getHeader";
        let header = self
            .0
            .methods
            .chain_get_header(None)
            .await
            .map_err(ChainError::on(METHOD))?;
        header.ok_or_else(|| ChainError::Garbled {
            method: METHOD,
            problem: "no header".into(),
        })
    }

    async fn runtime(&self, hash: H256) -> Result<Arc<Runtime>, ChainError> {
        let version = self
            .0
            .methods
            .state_get_runtime_version(Some(hash))
            .await
            .map_err(ChainError::on("state_getRuntimeVersion"))?;
        let (spec, transaction) = (version.spec_version, version.transaction_version);
        let mut newest = self.0.runtime.lock().await;
        if let Some(runtime) = &*newest
            && (runtime.spec_version(), runtime.transaction_version()) == (spec, transaction)
        {
            return Ok(Arc::clone(runtime));
        }
        let bytes = self.metadata_at(hash).await?;
        let runtime = Arc::new(Runtime::new(spec, transaction, self.0.genesis, &bytes)?);
        if let Some(old) = &*newest {
            tracing::info!(
                old = old.spec_version(),
                new = spec,
                "the chain's runtime was upgraded"
            );
        }
        *newest = Some(Arc::clone(&runtime));
        Ok(runtime)
    }

    /// Fetches the metadata of the best block's runtime.
    pub async fn metadata(&self) -> Result<Vec<u8>, ChainError> {
        let header = self.best_header().await?;
        self.metadata_at(BlakeTwo256.hash(&header.encode())).await
    }

    /// Fetches the newest stable version of the metadata.
    async fn metadata_at(&self, hash: H256) -> Result<Vec<u8>, ChainError> {
        const VERSIONS: &str = "Metadata_metadata_versions";
        const METADATA: &str = "Metadata_metadata_at_version";
        let garbled =
            |method: &'static str| move |problem: String| ChainError::Garbled { method, problem };
        let call = async |method: &'static str, arguments: Option<&[u8]>| {
            let answer = self
                .0
                .methods
                .state_call(method, arguments, Some(hash))
                .await;
            answer.map_err(ChainError::on(method))
        };
        let versions = call(VERSIONS, None).await?;
        let versions = Vec::<u32>::decode(&mut versions.as_slice())
            .map_err(|error| garbled(VERSIONS)(error.to_string()))?;
        let version = versions
            .into_iter()
            .filter(|version| (14..=16).contains(version))
            .max()
            .ok_or_else(|| garbled(VERSIONS)("no version that we understand".to_owned()))?;
        let answer = call(METADATA, Some(&version.encode())).await?;
        opaque(&answer).ok_or_else(|| garbled(METADATA)("no metadata".to_owned()))
    }
}

/// Unwraps `Some(Vec<u8>)`.
fn opaque(mut bytes: &[u8]) -> Option<Vec<u8>> {
    let (&tag, rest) = bytes.split_first()?;
    bytes = rest;
    let Compact(len) = Compact::<u32>::decode(&mut bytes).ok()?;
    (tag == 1 && len as usize == bytes.len()).then(|| bytes.to_vec())
}
