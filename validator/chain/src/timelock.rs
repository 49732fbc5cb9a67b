//! Weights locked until a round of drand's beacon: payload, encryption, and which round.

use ark_serialize::{CanonicalDeserialize as _, CanonicalSerialize as _};
use codec::{Decode, Encode};
use crypto_secretbox::aead::{OsRng, rand_core::RngCore as _};
use sha2::{Digest as _, Sha256};
use timelock::{
    block_ciphers::AESGCMBlockCipherProvider,
    engines::{EngineBLS, drand::TinyBLS381},
    ibe::fullident::Identity,
    tlock::tle,
};
use zeroize::Zeroizing;

/// Quicknet's first round, in seconds since 1970.
const GENESIS: u64 = 1_692_803_367;

/// Seconds between quicknet's rounds.
const PERIOD: u64 = 3;

/// Blocks after the epoch's start at which its reveal surely has its round.
const MARGIN: u64 = 3;

/// Largest commit the chain takes.
const MAX_COMMIT: usize = 5000;

/// Quicknet's public key, a compressed point of G2.
const QUICKNET: [u8; 96] = hex_key(
    b"83cf0f2896adee7eb8b5f01fcad3912212c437e0073e911fb90022d3e760183c8c4b450b6a0a6c3ac6a5776a2d1064510d1fec758c921cc22b0e17e63aaf4bcb5ed66304de9cf809bd274ca73bab4af5a6e9c76a4bc09e76eae8991ef5ece45a",
);

type PublicKey = <TinyBLS381 as EngineBLS>::PublicKeyGroup;

/// What is revealed, since commits carry the hotkey.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Payload {
    /// The hotkey's 32 bytes: nobody can reveal a copied commit as his own.
    pub hotkey: Vec<u8>,
    pub uids: Vec<u16>,
    pub values: Vec<u16>,
    pub version_key: u64,
}

/// What is revealed by older runtimes.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct LegacyPayload {
    pub uids: Vec<u16>,
    pub values: Vec<u16>,
    pub version_key: u64,
}

/// Returns the round that unlocks a commit for an epoch that starts at block `reveal_start`, when
/// the chain is at block `head` and the clock says `now` (seconds since 1970).
pub fn reveal_round(head: u64, reveal_start: u64, block_millis: u64, now: u64) -> u64 {
    let blocks = reveal_start.saturating_add(MARGIN).saturating_sub(head);
    let wait = u128::from(blocks) * u128::from(block_millis);
    let at = u128::from(now) * 1000 + wait;
    let since = at.saturating_sub(u128::from(GENESIS) * 1000);
    u64::try_from(since / u128::from(PERIOD * 1000))
        .unwrap_or(u64::MAX)
        .max(1)
}

/// Encrypts a payload so that quicknet's signature of `round` opens it.
pub fn encrypt(payload: &[u8], round: u64) -> Result<Vec<u8>, String> {
    encrypt_for(payload, round, &QUICKNET)
}

/// Encrypts for the beacon with this public key.
pub fn encrypt_for(payload: &[u8], round: u64, beacon: &[u8; 96]) -> Result<Vec<u8>, String> {
    let beacon = PublicKey::deserialize_compressed(beacon.as_slice())
        .map_err(|error| format!("the beacon's key is not a point of the curve: {error}"))?;
    let identity = Identity::new(b"", &Sha256::digest(round.to_be_bytes()));
    let mut key = Zeroizing::new([0; 32]);
    OsRng.fill_bytes(&mut *key);
    let sealed =
        tle::<TinyBLS381, AESGCMBlockCipherProvider, _>(beacon, *key, payload, identity, OsRng)
            .map_err(|error| format!("{error:?}"))?;
    // The chain's older library keeps `v` and `w` as vectors, so their lengths go before them.
    let mut bytes = Vec::new();
    let mut write = || -> Result<(), ark_serialize::SerializationError> {
        sealed.header.u.serialize_compressed(&mut bytes)?;
        sealed.header.v.to_vec().serialize_compressed(&mut bytes)?;
        sealed.header.w.to_vec().serialize_compressed(&mut bytes)?;
        sealed.body.serialize_compressed(&mut bytes)?;
        sealed.cipher_suite.serialize_compressed(&mut bytes)
    };
    write().map_err(|error| error.to_string())?;
    if bytes.len() > MAX_COMMIT {
        return Err(format!(
            "{} bytes, the chain takes {MAX_COMMIT}",
            bytes.len()
        ));
    }
    Ok(bytes)
}

const fn hex_key(digits: &[u8; 192]) -> [u8; 96] {
    const fn nibble(digit: u8) -> u8 {
        match digit {
            b'0'..=b'9' => digit - b'0',
            _ => digit - b'a' + 10,
        }
    }
    let mut key = [0; 96];
    let mut index = 0;
    while index < 96 {
        key[index] = nibble(digits[2 * index]) << 4 | nibble(digits[2 * index + 1]);
        index += 1;
    }
    key
}
