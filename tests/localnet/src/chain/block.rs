//! How a block is made, the first and all others.

use frame_support::storage::{TransactionOutcome, unhashed, with_transaction};
use sp_core::H256;
use sp_runtime::{
    ApplyExtrinsicResult, BuildStorage, DispatchError, DispatchResult,
    transaction_validity::{InvalidTransaction, TransactionValidityError},
};

use super::{
    beacon::Beacon,
    changes::Change,
    config::{ChainConfig, TAO},
    runtime::{
        AccountId, Executive, Extrinsic, Header, Runtime, RuntimeCall, RuntimeGenesisConfig, drand,
        subtensor,
    },
};

/// Fills the state of block 0.
pub(super) fn genesis(
    config: &ChainConfig,
    beacon: drand::BeaconConfiguration,
) -> Result<(), DispatchError> {
    let mut balances = RuntimeGenesisConfig::default();
    balances.balances.balances = config
        .endowed
        .iter()
        .map(|key| (AccountId::new(*key), 1000 * TAO))
        .collect();
    let storage = balances
        .build_storage()
        .map_err(|_| "the genesis storage does not build")?;
    for (key, value) in storage.top {
        unhashed::put_raw(&key, &value);
    }
    if config.chain_id != 0 {
        unhashed::put_raw(b"localnet chain id", &config.chain_id.to_le_bytes());
    }
    drand::BeaconConfig::<Runtime>::put(beacon);
    subtensor::StakeThreshold::<Runtime>::put(config.stake_threshold);
    for subnet in &config.subnets {
        subtensor::Pallet::<Runtime>::add_subnet(subnet)?;
    }
    Ok(())
}

/// A block as the runtime made it.
pub(super) struct Made {
    pub(super) header: Header,
    pub(super) extrinsics: Vec<Extrinsic>,
    pub(super) outcomes: Vec<Result<u16, DispatchError>>,
    /// Extrinsics which left the pool, and how those in the block went.
    pub(super) settled: Vec<(H256, Option<DispatchResult>)>,
}

/// Makes a block: its changes, then its extrinsics, then the beacon's pulses.
pub(super) fn make(
    header: &Header,
    time: u64,
    changes: Vec<Change>,
    ready: Vec<(H256, Extrinsic)>,
    beacon: Option<&Beacon>,
) -> Made {
    Executive::initialize_block(header);
    let mut extrinsics = Vec::with_capacity(ready.len() + 1);
    let inherent = Extrinsic::new_bare(RuntimeCall::Timestamp(pallet_timestamp::Call::set {
        now: time,
    }));
    if apply(&inherent).is_ok() {
        extrinsics.push(inherent);
    }
    let outcomes = changes.into_iter().map(whole).collect();
    let mut settled = Vec::with_capacity(ready.len());
    for (hash, extrinsic) in ready {
        match apply(&extrinsic) {
            Ok(outcome) => {
                settled.push((hash, Some(outcome)));
                extrinsics.push(extrinsic);
            }
            // It may fit a later block.
            Err(TransactionValidityError::Invalid(
                InvalidTransaction::Future | InvalidTransaction::ExhaustsResources,
            )) => {}
            Err(_) => settled.push((hash, None)),
        }
    }
    if let Some(beacon) = beacon {
        store_pulses(beacon, time);
    }
    let header = Executive::finalize_block();
    Made {
        header,
        extrinsics,
        outcomes,
        settled,
    }
}

/// Does a change wholly or not at all.
fn whole(change: Change) -> Result<u16, DispatchError> {
    with_transaction(|| match change() {
        Ok(done) => TransactionOutcome::Commit(Ok(done)),
        Err(error) => TransactionOutcome::Rollback(Err(error)),
    })
}

/// Applies an extrinsic; one that may not be in the block leaves no trace.
fn apply(extrinsic: &Extrinsic) -> ApplyExtrinsicResult {
    let tried = with_transaction(|| match Executive::apply_extrinsic(extrinsic.clone()) {
        Ok(outcome) => TransactionOutcome::Commit(Ok::<_, DispatchError>(Ok(outcome))),
        Err(error) => TransactionOutcome::Rollback(Ok(Err(error))),
    });
    tried.unwrap_or(Err(InvalidTransaction::Call.into()))
}

/// Stores the pulses that waiting commits need. The beacon goes by whichever is later, chain time
/// or the wall clock, so that clients may reckon with either.
fn store_pulses(beacon: &Beacon, time: u64) {
    let wall = shared::clock::unix_seconds() * 1000;
    let latest = drand::round_at(time.max(wall));
    drand::LastStoredRound::<Runtime>::put(drand::round_at(time.min(wall)));
    let mut rounds: Vec<u64> = subtensor::Pallet::<Runtime>::awaited_rounds()
        .into_iter()
        .filter(|round| *round <= latest && !drand::Pulses::<Runtime>::contains_key(round))
        .collect();
    rounds.sort_unstable();
    rounds.dedup();
    if rounds.is_empty() {
        return;
    }
    for round in &rounds {
        drand::Pulses::<Runtime>::insert(round, beacon.pulse(*round));
    }
    drand::Pallet::<Runtime>::deposit_event(drand::Event::NewPulse { rounds });
}
