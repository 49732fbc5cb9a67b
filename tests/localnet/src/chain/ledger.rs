//! The chain itself: its blocks with their states, and the pool.

use std::collections::HashMap;

use codec::Decode;
use sp_core::H256;
use sp_runtime::{
    DispatchError,
    traits::{BlakeTwo256, Hash, Header as _},
    transaction_validity::InvalidTransaction,
};

use super::{
    beacon::Beacon,
    block::{Made, genesis, make},
    changes::Change,
    config::ChainConfig,
    pool::{Pool, Rejected, Status},
    runtime::{Extrinsic, Header, SLOT, apis, extrinsic_hash},
    state::{Archive, Trapped},
};

/// One block.
#[derive(Debug)]
pub(super) struct Block {
    pub(super) hash: H256,
    pub(super) header: Header,
    pub(super) extrinsics: Vec<Extrinsic>,
    /// Chain time, milliseconds since 1970.
    pub(super) time: u64,
}

/// All blocks and what waits for the next.
#[derive(Debug)]
pub(super) struct Ledger {
    archive: Archive,
    blocks: Vec<Block>,
    numbers: HashMap<H256, u32>,
    pub(super) pool: Pool,
    /// Why extrinsics in blocks failed.
    failures: HashMap<H256, DispatchError>,
    beacon: Beacon,
    finalized: u32,
    /// Blocks by which the finalized head stays behind the best.
    finality_lag: u32,
    /// Chain time of the next block, if it shall jump.
    next_time: Option<u64>,
    /// Whether the beacon is silent.
    pub(super) beacon_paused: bool,
    /// States of blocks before this one are refused, as on a node that prunes.
    pub(super) oldest_state: u32,
}

impl Ledger {
    /// Makes block 0.
    pub(super) fn new(config: &ChainConfig) -> Result<Self, LedgerError> {
        let beacon = Beacon::new(&config.beacon_secret);
        let time = config
            .genesis_time
            .unwrap_or_else(|| shared::clock::unix_seconds() * 1000);
        let (mut archive, empty) = Archive::new();
        let beacon_configuration = beacon.configuration();
        let (made, root) = archive.write(empty, || genesis(config, beacon_configuration))?;
        made?;
        let header = Header::new(
            0,
            sp_trie::empty_trie_root::<sp_trie::LayoutV1<BlakeTwo256>>(),
            root,
            H256::zero(),
            sp_runtime::Digest::default(),
        );
        let hash = header.hash();
        Ok(Self {
            archive,
            blocks: vec![Block {
                hash,
                header,
                extrinsics: Vec::new(),
                time,
            }],
            numbers: HashMap::from([(hash, 0)]),
            pool: Pool::default(),
            failures: HashMap::new(),
            beacon,
            finalized: 0,
            finality_lag: 0,
            next_time: None,
            beacon_paused: false,
            oldest_state: 0,
        })
    }

    /// Returns the newest block.
    pub(super) fn best(&self) -> &Block {
        &self.blocks[self.blocks.len() - 1]
    }

    /// Returns the newest block's number.
    pub(super) fn best_number(&self) -> u32 {
        self.blocks.len() as u32 - 1
    }

    /// Returns the newest final block's number.
    pub(super) fn finalized_number(&self) -> u32 {
        self.finalized
    }

    /// Returns a block by its number.
    pub(super) fn block(&self, number: u32) -> Option<&Block> {
        self.blocks.get(number as usize)
    }

    /// Returns a block by its hash.
    pub(super) fn block_by_hash(&self, hash: H256) -> Option<&Block> {
        self.numbers
            .get(&hash)
            .and_then(|number| self.block(*number))
    }

    /// Returns the public key of the beacon.
    pub(super) fn beacon_public_key(&self) -> Vec<u8> {
        self.beacon.public_key()
    }

    /// Makes the finalized head stay this many blocks behind; it never goes back.
    pub(super) fn set_finality_lag(&mut self, lag: u32) {
        self.finality_lag = lag;
        self.finalize();
    }

    /// Sets the chain time of the next block, milliseconds since 1970.
    pub(super) fn set_next_time(&mut self, time: u64) {
        self.next_time = Some(time);
    }

    fn finalize(&mut self) {
        self.finalized = self
            .finalized
            .max(self.best_number().saturating_sub(self.finality_lag));
    }

    /// Runs runtime code on the state after a block; what it changes is lost.
    pub(super) fn read<R>(&self, block: &Block, code: impl FnOnce() -> R) -> Result<R, Trapped> {
        self.archive.read(*block.header.state_root(), code)
    }

    /// Returns the raw value under a key in the state after a block.
    pub(super) fn value(&self, block: &Block, key: &[u8]) -> Option<Vec<u8>> {
        self.archive.value(*block.header.state_root(), key)
    }

    /// Returns up to `count` keys with a prefix, after `start`, in the state after a block.
    pub(super) fn keys(
        &self,
        block: &Block,
        prefix: &[u8],
        start: Option<&[u8]>,
        count: usize,
    ) -> Vec<Vec<u8>> {
        self.archive
            .keys(*block.header.state_root(), prefix, start, count)
    }

    /// Takes an extrinsic into the pool. Returns its hash.
    pub(super) fn submit(&mut self, bytes: &[u8]) -> Result<H256, Rejected> {
        let extrinsic =
            Extrinsic::decode(&mut &bytes[..]).map_err(|error| Rejected::bad_format(&error))?;
        let hash = extrinsic_hash(&extrinsic);
        self.pool.check_known(hash)?;
        let best = self.best();
        let validity = self
            .read(best, || apis::validate(extrinsic.clone(), best.hash))
            .map_err(|_| Rejected::invalid(InvalidTransaction::BadProof.into()))?
            .map_err(Rejected::invalid)?;
        self.pool.insert(hash, extrinsic, validity)?;
        Ok(hash)
    }

    /// Returns why an extrinsic failed in its block, if it did.
    pub(super) fn failure(&self, extrinsic: H256) -> Option<DispatchError> {
        self.failures.get(&extrinsic).copied()
    }

    /// Makes the next block: the changes, then the ready extrinsics. Returns how each change went.
    pub(super) fn produce(
        &mut self,
        changes: Vec<Change>,
    ) -> Result<Vec<Result<u16, DispatchError>>, Trapped> {
        let jump = self.next_time.take().unwrap_or(0);
        let parent = self.best();
        let number = parent.header.number() + 1;
        let time = jump.max(parent.time + SLOT);
        let header = Header::new(
            number,
            H256::default(),
            H256::default(),
            parent.hash,
            sp_runtime::Digest::default(),
        );
        let ready = self.pool.ready();
        let beacon = (!self.beacon_paused).then_some(&self.beacon);
        let state_root = *parent.header.state_root();
        let (made, root) = self
            .archive
            .write(state_root, || make(&header, time, changes, ready, beacon))?;
        let Made {
            header,
            extrinsics,
            outcomes,
            settled,
        } = made;
        debug_assert_eq!(
            *header.state_root(),
            root,
            "the runtime and the archive agree"
        );
        let hash = header.hash();
        self.numbers.insert(hash, number);
        self.blocks.push(Block {
            hash,
            header,
            extrinsics,
            time,
        });
        for (extrinsic, outcome) in settled {
            let included = outcome.is_some();
            let status = if included {
                Status::InBlock(number)
            } else {
                Status::Invalid
            };
            self.pool.settle(extrinsic, status);
            if let Some(Err(error)) = outcome {
                self.failures.insert(extrinsic, error);
            }
        }
        self.revalidate();
        self.finalize();
        Ok(outcomes)
    }

    /// Takes the newest blocks back, as after a fork; what was in them is lost. Blocks without any
    /// extrinsic take their place, and one more.
    pub(super) fn fork(&mut self, depth: u32) -> Result<(), Trapped> {
        let kept = self.best_number().saturating_sub(depth) as usize + 1;
        for block in self.blocks.split_off(kept) {
            self.numbers.remove(&block.hash);
            for extrinsic in &block.extrinsics {
                let hash = extrinsic_hash(extrinsic);
                self.failures.remove(&hash);
                self.pool.forget(hash);
            }
        }
        // Another time, so that no block is the one it replaces.
        self.next_time = Some(self.best().time + SLOT + 1);
        for _ in 0..=depth {
            self.produce(Vec::new())?;
        }
        Ok(())
    }

    fn revalidate(&mut self) {
        let best = &self.blocks[self.blocks.len() - 1];
        let (archive, root) = (&self.archive, *best.header.state_root());
        self.pool.revalidate(|extrinsic| {
            let extrinsic = extrinsic.clone();
            archive
                .read(root, || apis::validate(extrinsic, best.hash))
                .unwrap_or(Err(InvalidTransaction::BadProof.into()))
        });
    }
}

/// Block 0 could not be made.
#[derive(Debug, thiserror::Error)]
pub(super) enum LedgerError {
    #[error(transparent)]
    Trapped(#[from] Trapped),
    #[error("the first subnets are refused: {0:?}")]
    Subnet(DispatchError),
}

impl From<DispatchError> for LedgerError {
    fn from(error: DispatchError) -> Self {
        Self::Subnet(error)
    }
}

/// Returns the hash by which RPC clients know data: BLAKE2b-256.
pub(super) fn hash_of(bytes: &[u8]) -> H256 {
    BlakeTwo256::hash(bytes)
}
