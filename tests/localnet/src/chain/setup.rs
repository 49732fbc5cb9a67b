//! What tests and the demo do to a running chain: neurons, extrinsics of ours, trouble.

use std::{collections::BTreeMap, time::Duration};

use frame_support::BoundedVec;
use sp_core::sr25519;
use sp_runtime::DispatchError;

use super::{
    CallError, Chain, ChainError, Hyperparameter, NeuronConfig, Stall, Upgrade,
    changes::{self, Change},
    runtime::{
        AccountId, Runtime, RuntimeCall,
        commitments::{self, CommitmentInfo, Data},
        newtype::{MechId, NetUid},
        subtensor::{self, Pallet as Subtensor},
    },
};

/// A subnet's neuron as the chain has it now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Neuron {
    pub uid: u16,
    pub hotkey: [u8; 32],
    /// Its stake in rao, as it counts for weights.
    pub stake: u64,
    /// Whether it may set weights.
    pub validator_permit: bool,
    /// Block of its last weights or commit; its registration counts too.
    pub last_update: u64,
    /// Its incentive of the last epoch, out of 65535.
    pub incentive: u16,
    /// Its weights on the main mechanism: uid and weight, the largest 65535.
    pub weights: Vec<(u16, u16)>,
}

impl Chain {
    /// Makes a block with one change in it.
    fn change(
        &self,
        change: impl FnOnce() -> Result<u16, DispatchError> + Send + 'static,
    ) -> Result<u16, ChainError> {
        change_in(&self.node, Box::new(change))
    }

    /// Registers a neuron in a new block and returns its uid. On a full subnet it takes the place
    /// of the least paid one that is past its immunity.
    ///
    /// # Errors
    /// No such subnet, already registered, or no place.
    pub fn register(&self, netuid: u16, neuron: NeuronConfig) -> Result<u16, ChainError> {
        self.change(move || Subtensor::<Runtime>::register(NetUid(netuid), &neuron))
    }

    /// Deregisters a neuron: a stranger without stake takes its place, as only happens so on a
    /// real chain. Its commitment stays.
    pub fn deregister(&self, netuid: u16, uid: u16) -> Result<(), ChainError> {
        self.change(move || deregister(netuid, uid)).map(drop)
    }

    /// Sets a hotkey's alpha on a subnet and its TAO on the root network, both in rao.
    pub fn set_stake(
        &self,
        netuid: u16,
        hotkey: impl Into<[u8; 32]>,
        alpha: u64,
        tao: u64,
    ) -> Result<(), ChainError> {
        let hotkey = AccountId::new(hotkey.into());
        self.change(move || {
            Subtensor::<Runtime>::set_stake(NetUid(netuid), &hotkey, alpha, tao);
            Ok(0)
        })
        .map(drop)
    }

    /// Gives or takes a validator permit; the next epoch gives them anew by stake.
    pub fn set_permit(&self, netuid: u16, uid: u16, permit: bool) -> Result<(), ChainError> {
        self.change(move || {
            Subtensor::<Runtime>::set_permit(NetUid(netuid), uid, permit);
            Ok(0)
        })
        .map(drop)
    }

    /// Changes one hyperparameter.
    ///
    /// # Errors
    /// No such subnet.
    pub fn set_hyperparameter(
        &self,
        netuid: u16,
        name: Hyperparameter,
        value: u64,
    ) -> Result<(), ChainError> {
        self.change(move || {
            Subtensor::<Runtime>::set_hyperparameter(NetUid(netuid), name, value).map(|()| 0)
        })
        .map(drop)
    }

    /// Commits bytes, at most 512, as a neuron's record by a signed `set_commitment`.
    ///
    /// # Errors
    /// The hotkey is not registered, or its space of this epoch is used up.
    pub fn commit(
        &self,
        netuid: u16,
        hotkey: &sr25519::Pair,
        record: &[u8],
    ) -> Result<(), ChainError> {
        let field = match BoundedVec::try_from(record.to_vec()) {
            Ok(raw) => Data::Raw(raw),
            Err(_) => Data::BigRaw(
                BoundedVec::try_from(record.to_vec())
                    .map_err(|_| ChainError::Commitment(record.len()))?,
            ),
        };
        self.commit_fields(netuid, hotkey, vec![field])
    }

    /// Sets weights by a signed `set_weights`.
    ///
    /// # Errors
    /// The pool or the runtime refuses them.
    pub fn set_weights(
        &self,
        netuid: u16,
        hotkey: &sr25519::Pair,
        weights: &[(u16, u16)],
        version_key: u64,
    ) -> Result<(), ChainError> {
        let (dests, weights) = weights.iter().copied().unzip();
        let netuid = NetUid(netuid);
        let call = subtensor::Call::set_weights {
            netuid,
            dests,
            weights,
            version_key,
        };
        self.execute(RuntimeCall::SubtensorModule(call), hotkey)
            .map(drop)
    }

    /// Returns a subnet's neurons in the newest block.
    pub fn neurons(&self, netuid: u16) -> Vec<Neuron> {
        let ledger = self.node.ledger();
        ledger
            .read(ledger.best(), || neurons(NetUid(netuid)))
            .unwrap_or_default()
    }

    /// Returns the public key that commits must be encrypted to: a compressed point of G2.
    pub fn beacon_public_key(&self) -> Vec<u8> {
        self.node.ledger().beacon_public_key()
    }

    /// Makes this node know nothing of the newest blocks.
    pub fn set_lag(&self, blocks: u32) {
        self.node.set_lag(blocks);
    }

    /// Takes the newest blocks back, with all that was in them, and makes one more than that: a
    /// fork that the other side won.
    ///
    /// # Errors
    /// The runtime panicked.
    pub fn fork(&self, depth: u32) -> Result<(), ChainError> {
        Ok(self.node.fork(depth)?)
    }

    /// Gives a netuid to another subnet: it is registered anew, by another owner, with neurons of
    /// its own.
    ///
    /// # Errors
    /// The new neurons contradict each other.
    pub fn register_anew(&self, subnet: super::SubnetConfig) -> Result<(), ChainError> {
        self.change(move || {
            Subtensor::<Runtime>::remove_subnet(NetUid(subnet.netuid));
            Subtensor::<Runtime>::add_subnet(&subnet).map(|()| 0)
        })
        .map(drop)
    }

    /// Gives a hotkey a revealed commitment, as the chain does once a timelocked one opens.
    ///
    /// # Errors
    /// The runtime panicked.
    pub fn reveal_commitment(
        &self,
        netuid: u16,
        hotkey: impl Into<[u8; 32]>,
        record: &[u8],
    ) -> Result<(), ChainError> {
        let (hotkey, record) = (AccountId::new(hotkey.into()), record.to_vec());
        self.change(move || {
            commitments::reveal::<Runtime>(NetUid(netuid), &hotkey, record);
            Ok(0)
        })
        .map(drop)
    }

    /// Commits fields as they are, with a signed `set_commitment`.
    ///
    /// # Errors
    /// The hotkey is not registered, or its space of this epoch is used up.
    pub fn commit_sealed(
        &self,
        netuid: u16,
        hotkey: &sr25519::Pair,
        encrypted: &[u8],
        reveal_round: u64,
    ) -> Result<(), ChainError> {
        let field = Data::TimelockEncrypted {
            encrypted: BoundedVec::truncate_from(encrypted.to_vec()),
            reveal_round,
        };
        self.commit_fields(netuid, hotkey, vec![field])
    }

    fn commit_fields(
        &self,
        netuid: u16,
        hotkey: &sr25519::Pair,
        fields: Vec<Data>,
    ) -> Result<(), ChainError> {
        let info = Box::new(CommitmentInfo {
            fields: BoundedVec::truncate_from(fields),
        });
        let netuid = NetUid(netuid);
        let call = commitments::Call::set_commitment { netuid, info };
        self.execute(RuntimeCall::Commitments(call), hotkey)
            .map(drop)
    }

    /// Silences the beacon, so that no commit opens, or lets it speak again.
    pub fn pause_beacon(&self, paused: bool) {
        self.node.ledger().beacon_paused = paused;
    }

    /// Sets the chain time of the next block, milliseconds since 1970; it never goes back.
    pub fn set_time(&self, time: u64) {
        self.node.ledger().set_next_time(time);
    }

    /// Makes the finalized head stay this many blocks behind the best.
    pub fn set_finality_lag(&self, blocks: u32) {
        self.node.set_finality_lag(blocks);
    }

    /// Refuses to answer on states before this block, as a node that prunes.
    pub fn discard_states_before(&self, number: u32) {
        self.node.ledger().oldest_state = number;
    }

    /// Upgrades the runtime in a new block.
    pub fn upgrade(&self, upgrade: Upgrade) -> Result<(), ChainError> {
        self.change(changes::upgrade(upgrade)).map(drop)
    }

    /// Enters or leaves safe mode in a new block.
    pub fn set_safe_mode(&self, entered: bool) -> Result<(), ChainError> {
        self.change(changes::safe_mode(entered)).map(drop)
    }

    /// Leaves calls without an answer until [`Chain::clear_faults`] or another stall.
    pub fn stall(&self, stall: Stall) {
        self.node.faults.stall(stall);
    }

    /// Drops all connections, and for a while each new one at once.
    pub fn cut(&self, refuse_for: Duration) {
        self.node.faults.cut(refuse_for);
    }

    /// Answers the next `count` connections with this HTTP status, such as 429 or 403, and closes
    /// them.
    pub fn refuse_http(&self, status: u16, count: u32) {
        self.node.faults.refuse_http(status, count);
    }

    /// Makes coming calls answer a JSON-RPC error.
    pub fn fail_calls(&self, error: CallError) {
        self.node.faults.fail_calls(error);
    }

    /// Makes coming calls of a method answer this instead of the truth: garbage, or a lie.
    pub fn answer_calls(&self, method: &str, result: serde_json::Value, count: u32) {
        self.node.faults.answer_calls(method, result, count);
    }

    /// Refuses the next `count` extrinsics at the pool with `Custom(code)`.
    pub fn fail_submissions(&self, code: u8, count: u32) {
        self.node.faults.fail_submissions(code, count);
    }

    /// Ends all stalls, refusals and errors; stalled calls are answered now.
    pub fn clear_faults(&self) {
        self.node.faults.clear();
    }

    /// Returns how often each RPC method was called since the start or the last reset.
    pub fn requests(&self) -> BTreeMap<String, u64> {
        self.node.faults.requests()
    }

    pub fn reset_requests(&self) {
        self.node.faults.reset_requests();
    }
}

/// Makes a block with one change in it and returns how that went.
pub(super) fn change_in(node: &super::Node, change: Change) -> Result<u16, ChainError> {
    let outcome = node.produce(vec![change])?.pop();
    Ok(outcome.unwrap_or(Err(DispatchError::Unavailable))?)
}

pub(super) fn deregister(netuid: u16, uid: u16) -> Result<u16, DispatchError> {
    let netuid = NetUid(netuid);
    if uid >= subtensor::SubnetworkN::<Runtime>::get(netuid) {
        return Err(subtensor::Error::<Runtime>::HotKeyNotRegisteredInSubNet.into());
    }
    let gone = subtensor::Keys::<Runtime>::get(netuid, uid);
    let stranger = NeuronConfig::miner(sp_io::hashing::blake2_256(gone.as_ref()));
    Subtensor::<Runtime>::settle(netuid, uid, &stranger);
    Ok(uid)
}

fn neurons(netuid: NetUid) -> Vec<Neuron> {
    let index = netuid.index(MechId(0));
    let permits = subtensor::ValidatorPermit::<Runtime>::get(netuid);
    let updates = subtensor::LastUpdate::<Runtime>::get(index);
    let incentives = subtensor::Incentive::<Runtime>::get(index);
    (0..subtensor::SubnetworkN::<Runtime>::get(netuid))
        .map(|uid| {
            let hotkey = subtensor::Keys::<Runtime>::get(netuid, uid);
            let at = usize::from(uid);
            Neuron {
                uid,
                stake: Subtensor::<Runtime>::stake_of(netuid, &hotkey).total,
                hotkey: hotkey.into(),
                validator_permit: permits.get(at).copied().unwrap_or(false),
                last_update: updates.get(at).copied().unwrap_or(0),
                incentive: incentives.get(at).map_or(0, |share| share.0),
                weights: subtensor::Weights::<Runtime>::get(index, uid),
            }
        })
        .collect()
}
