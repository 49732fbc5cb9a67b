//! Timelocked commit-reveal: weights arrive sealed and are opened by a drand round an epoch later.

use ark_serialize::CanonicalDeserialize;
use codec::Decode;
use frame_support::{BoundedVec, ensure, traits::ConstU32};
use sp_io::hashing::blake2_256;
use sp_runtime::{AccountId32, DispatchResult};
use timelock::{
    block_ciphers::AESGCMBlockCipherProvider,
    engines::{EngineBLS, drand::TinyBLS381},
    ibe::fullident,
    tlock::{TLECiphertext, tld},
};

use super::{
    CommitRevealWeightsEnabled, CommitRevealWeightsVersion, Config, Error, Event,
    MechanismCountCurrent, Pallet, RevealPeriodEpochs, SubnetEpochIndex, TimelockedCommit,
    TimelockedWeightCommits,
};
use crate::chain::runtime::{
    drand,
    newtype::{MechId, NetUid, NetUidStorageIndex},
};

/// Commits which one hotkey may have waiting in an epoch.
const MAX_UNREVEALED: usize = 10;

/// The symmetric cipher of a commit's body.
const CIPHER_SUITE: &[u8] = b"AES_GCM_";

/// What a commit holds when opened.
#[derive(Decode)]
struct Payload {
    hotkey: Vec<u8>,
    uids: Vec<u16>,
    values: Vec<u16>,
    version_key: u64,
}

/// What commits held before they named their hotkey.
#[derive(Decode)]
struct LegacyPayload {
    uids: Vec<u16>,
    values: Vec<u16>,
    version_key: u64,
}

/// Why a commit did not become weights. The chain only logs it.
#[derive(Debug, thiserror::Error)]
pub enum RevealError {
    #[error("the ciphertext's framing is wrong at its {0}")]
    Framing(&'static str),
    #[error("the pulse holds no signature")]
    Signature,
    #[error("the ciphertext does not open: {0:?}")]
    Sealed(timelock::tlock::Error),
    #[error("the payload does not decode")]
    Payload,
    #[error("the payload is another hotkey's")]
    Hotkey,
    #[error("the weights are refused: {0:?}")]
    Refused(sp_runtime::DispatchError),
}

impl<T: Config> Pallet<T> {
    pub(super) fn commit_weights(
        who: &AccountId32,
        netuid: NetUid,
        mecid: MechId,
        commit: BoundedVec<u8, ConstU32<5000>>,
        reveal_round: u64,
        version: u16,
    ) -> DispatchResult {
        Self::ensure_mechanism(netuid, mecid)?;
        ensure!(
            CommitRevealWeightsEnabled::<T>::get(netuid),
            Error::<T>::CommitRevealDisabled
        );
        ensure!(
            version == CommitRevealWeightsVersion::<T>::get(),
            Error::<T>::IncorrectCommitRevealVersion
        );
        let uid = Self::uid_of(netuid, who).ok_or(Error::<T>::HotKeyNotRegisteredInSubNet)?;
        let index = netuid.index(mecid);
        ensure!(
            Self::passes_rate_limit(netuid, index, uid),
            Error::<T>::CommittingWeightsTooFast
        );
        let block = Self::block();
        let epoch = Self::epoch_at(netuid, block);
        let hash = blake2_256(&commit).into();
        TimelockedWeightCommits::<T>::try_mutate(index, epoch, |commits| {
            let waiting = commits
                .iter()
                .filter(|(account, ..)| account == who)
                .count();
            ensure!(
                waiting < MAX_UNREVEALED,
                Error::<T>::TooManyUnrevealedCommits
            );
            commits.push_back((who.clone(), block, commit, reveal_round));
            DispatchResult::Ok(())
        })?;
        Self::touch(index, uid);
        Self::deposit_event(Event::TimelockedWeightsCommitted(
            who.clone(),
            index,
            hash,
            reveal_round,
        ));
        Ok(())
    }

    /// Opens the commits whose epoch is this one; those without a pulse yet wait for the next
    /// block, those of past epochs are dropped.
    pub(super) fn reveal_commits(netuid: NetUid, block: u64) {
        let current = Self::epoch_at(netuid, block);
        let period = RevealPeriodEpochs::<T>::get(netuid);
        let due = current.saturating_sub(period);
        for mecid in (0..MechanismCountCurrent::<T>::get(netuid).0).map(MechId) {
            let index = netuid.index(mecid);
            let waiting: Vec<u64> = TimelockedWeightCommits::<T>::iter_key_prefix(index).collect();
            for epoch in waiting.into_iter().filter(|epoch| *epoch < due) {
                TimelockedWeightCommits::<T>::remove(index, epoch);
            }
            if current < period {
                continue;
            }
            let mut sealed = TimelockedWeightCommits::<T>::take(index, due);
            sealed.retain(|commit| !Self::reveal_if_due(netuid, mecid, index, commit));
            if !sealed.is_empty() {
                TimelockedWeightCommits::<T>::insert(index, due, sealed);
            }
        }
    }

    /// Returns whether the commit is done with, well or ill.
    fn reveal_if_due(
        netuid: NetUid,
        mecid: MechId,
        index: NetUidStorageIndex,
        (who, _, commit, round): &TimelockedCommit,
    ) -> bool {
        let Some(pulse) = drand::Pulses::<T>::get(round) else {
            return false;
        };
        match Self::reveal(netuid, mecid, who, commit, &pulse) {
            Ok(()) => Self::deposit_event(Event::TimelockedWeightsRevealed(index, who.clone())),
            Err(error) => tracing::warn!(netuid = netuid.0, %who, round, %error, "commit dropped"),
        }
        true
    }

    fn reveal(
        netuid: NetUid,
        mecid: MechId,
        who: &AccountId32,
        commit: &[u8],
        pulse: &drand::Pulse,
    ) -> Result<(), RevealError> {
        let opened = open(commit, &pulse.signature)?;
        let (uids, values, version_key) = match Payload::decode(&mut &opened[..]) {
            Ok(payload) if payload.hotkey.len() == 32 => {
                if payload.hotkey != AsRef::<[u8]>::as_ref(who) {
                    return Err(RevealError::Hotkey);
                }
                (payload.uids, payload.values, payload.version_key)
            }
            _ => LegacyPayload::decode(&mut &opened[..])
                .map(|payload| (payload.uids, payload.values, payload.version_key))
                .map_err(|_| RevealError::Payload)?,
        };
        Self::check_and_store(who, netuid, mecid, &uids, &values, version_key)
            .map_err(RevealError::Refused)
    }

    /// Returns the number of the epoch that a block belongs to.
    pub fn epoch_at(netuid: NetUid, block: u64) -> u64 {
        let due = Self::epoch_is_due(netuid, block);
        SubnetEpochIndex::<T>::get(netuid) + u64::from(due)
    }

    /// Returns the drand rounds that waiting commits need.
    pub fn awaited_rounds() -> Vec<u64> {
        let queues = TimelockedWeightCommits::<T>::iter_values();
        queues.flatten().map(|(_, _, _, round)| round).collect()
    }
}

/// Opens a commit with the signature of its round.
fn open(commit: &[u8], signature: &[u8]) -> Result<Vec<u8>, RevealError> {
    let ciphertext = read_ciphertext(commit)?;
    let signature = <TinyBLS381 as EngineBLS>::SignatureGroup::deserialize_compressed(signature)
        .map_err(|_| RevealError::Signature)?;
    tld::<TinyBLS381, AESGCMBlockCipherProvider>(ciphertext, signature).map_err(RevealError::Sealed)
}

/// Reads a commit: arkworks' compressed form, in which byte strings carry a length of 8 bytes.
/// Bittensor's chain passes over the name of the cipher and what follows it; here both must be
/// right.
fn read_ciphertext(mut bytes: &[u8]) -> Result<TLECiphertext<TinyBLS381>, RevealError> {
    let input = &mut bytes;
    let u = <TinyBLS381 as EngineBLS>::PublicKeyGroup::deserialize_compressed(
        take(input, 96).ok_or(RevealError::Framing("point"))?,
    )
    .map_err(|_| RevealError::Framing("point"))?;
    let v = take_hash(input).ok_or(RevealError::Framing("v"))?;
    let w = take_hash(input).ok_or(RevealError::Framing("w"))?;
    let body = take_string(input).ok_or(RevealError::Framing("body"))?;
    let suite = take_string(input).ok_or(RevealError::Framing("cipher suite"))?;
    if suite != CIPHER_SUITE || !input.is_empty() {
        return Err(RevealError::Framing("cipher suite"));
    }
    let mut rest = body;
    let sealed = take_string(&mut rest).ok_or(RevealError::Framing("sealed text"))?;
    let nonce = take_string(&mut rest).ok_or(RevealError::Framing("nonce"))?;
    if sealed.len() < 16 || nonce.len() != 12 || !rest.is_empty() {
        return Err(RevealError::Framing("nonce"));
    }
    Ok(TLECiphertext {
        header: fullident::Ciphertext { u, v, w },
        body: body.to_vec(),
        cipher_suite: suite.to_vec(),
    })
}

fn take<'a>(input: &mut &'a [u8], length: usize) -> Option<&'a [u8]> {
    let (head, tail) = input.split_at_checked(length)?;
    *input = tail;
    Some(head)
}

fn take_string<'a>(input: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = u64::from_le_bytes(take(input, 8)?.try_into().ok()?);
    take(input, usize::try_from(length).ok()?)
}

fn take_hash(input: &mut &[u8]) -> Option<[u8; 32]> {
    take_string(input)?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sealed by bittensor-drand 2.0.0 for round 1000 of drand's quicknet.
    const COMMIT: &str = include_str!("../../../../tests/fixtures/commit-of-bittensor-drand.hex");
    /// Quicknet's signature of that round.
    const SIGNATURE: &str = "b44679b9a59af2ec876b1a6b1ad52ea9b1615fc3982b19576350f93447cb1125\
        e342b73a8dd2bacbe47e4b6b63ed5e39";

    fn commit() -> Vec<u8> {
        hex::decode(COMMIT.split_whitespace().collect::<String>()).unwrap()
    }

    #[test]
    fn a_commit_of_the_official_client_opens() {
        let opened = open(&commit(), &hex::decode(SIGNATURE).unwrap()).unwrap();
        let payload = Payload::decode(&mut &opened[..]).unwrap();
        assert_eq!(payload.hotkey, [7; 32]);
        assert_eq!(
            (payload.uids, payload.values),
            (vec![2, 3], vec![1, 65_535])
        );
        assert_eq!(payload.version_key, 27);
    }

    #[test]
    fn no_cut_or_changed_commit_opens() {
        let signature = hex::decode(SIGNATURE).unwrap();
        let whole = commit();
        for length in 0..whole.len() {
            assert!(
                open(&whole[..length], &signature).is_err(),
                "{length} bytes"
            );
        }
        for at in [0, 96, 110, 140, 180, 200, whole.len() - 20, whole.len() - 1] {
            let mut changed = whole.clone();
            changed[at] ^= 1;
            assert!(open(&changed, &signature).is_err(), "byte {at}");
        }
    }
}
