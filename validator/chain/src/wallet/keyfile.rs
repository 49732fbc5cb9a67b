//! What a plain key file says: JSON of several tools and years, a raw seed, or a mnemonic.

use std::num::NonZeroU32;

use ring::pbkdf2;
use schnorrkel::{ExpansionMode, MiniSecretKey, SecretKey};
use serde_json::{Map, Value};
use subxt_signer::bip39::Mnemonic;
use zeroize::Zeroizing;

use super::Secret;
use subnet::Hotkey;

/// Rounds between a mnemonic's entropy and its seed.
const PHRASE_ROUNDS: NonZeroU32 = NonZeroU32::new(2048).unwrap();

/// Bytes that wipe themselves on drop.
pub(super) type Bytes = Zeroizing<Vec<u8>>;

/// Why a key file holds no usable key. Never tells what is in it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyfileError {
    /// Neither JSON nor a seed nor a mnemonic.
    #[error("it is neither a JSON key file nor a seed in hexadecimal nor a mnemonic")]
    Unknown,
    #[error("it is an export of polkadot.js; make a key file of it with the Bittensor tools")]
    PolkadotJs,
    /// Only a public key.
    #[error("it holds a public key only")]
    PublicOnly,
    #[error("its {0} is malformed")]
    Field(&'static str),
    /// Secret and address do not belong together.
    #[error("its secret belongs to another address than {0}, which it names")]
    Mismatch(Hotkey),
}

pub(super) fn secret(content: &[u8]) -> Result<Secret, KeyfileError> {
    let text = str::from_utf8(content)
        .map_err(|_| KeyfileError::Unknown)?
        .trim();
    match serde_json::from_str(text) {
        Ok(Value::Object(fields)) => of_json(&KeyFields::new(fields)),
        _ => of_text(text).ok_or(KeyfileError::Unknown),
    }
}

/// Reads the address, without any secret.
pub(super) fn public(content: &[u8]) -> Option<Hotkey> {
    let fields: Map<String, Value> = serde_json::from_slice(content).ok()?;
    KeyFields::new(fields).address().ok()?
}

/// Makes the key of a seed.
pub(super) fn sr25519(seed: &[u8; 32]) -> Secret {
    let mini = MiniSecretKey::from_bytes(seed).expect("any 32 bytes are a mini secret key");
    Secret::Sr25519(mini.expand_to_keypair(ExpansionMode::Ed25519))
}

fn ed25519(seed: &[u8; 32]) -> Secret {
    Secret::Ed25519(ed25519_dalek::SigningKey::from_bytes(seed))
}

/// The fields of a JSON key file; some old files have keys with a leading space.
struct KeyFields(Map<String, Value>);

impl KeyFields {
    fn new(fields: Map<String, Value>) -> Self {
        Self(
            fields
                .into_iter()
                .map(|(key, value)| (key.trim().to_owned(), value))
                .collect(),
        )
    }

    fn text(&self, key: &'static str) -> Result<Option<&str>, KeyfileError> {
        match self.0.get(key) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) if text.trim().is_empty() => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.trim())),
            Some(_) => Err(KeyfileError::Field(key)),
        }
    }

    fn address(&self) -> Result<Option<Hotkey>, KeyfileError> {
        if let Some(address) = self.text("ss58Address")? {
            return address
                .parse()
                .map(Some)
                .map_err(|_| KeyfileError::Field("ss58Address"));
        }
        for key in ["publicKey", "accountId"] {
            if let Some(text) = self.text(key)? {
                return hex_bytes(text)
                    .map(|key| Some(Hotkey(*key)))
                    .ok_or(KeyfileError::Field(key));
            }
        }
        Ok(None)
    }

    fn is_ed25519(&self) -> Result<bool, KeyfileError> {
        match self.0.get("cryptoType") {
            None | Some(Value::Null) => Ok(false),
            Some(Value::Number(number)) => Ok(number.as_u64() == Some(0)),
            Some(Value::String(text)) => Ok(text.trim() == "0"),
            Some(_) => Err(KeyfileError::Field("cryptoType")),
        }
    }
}

impl Drop for KeyFields {
    fn drop(&mut self) {
        use zeroize::Zeroize as _;
        for value in self.0.values_mut() {
            if let Value::String(text) = value {
                text.zeroize();
            }
        }
    }
}

fn of_json(fields: &KeyFields) -> Result<Secret, KeyfileError> {
    if fields.0.contains_key("encoded") && fields.0.contains_key("encoding") {
        return Err(KeyfileError::PolkadotJs);
    }
    let address = fields.address()?;
    let candidates = if let Some(phrase) = fields.text("secretPhrase")? {
        of_seed(&*seed_of_phrase(phrase).ok_or(KeyfileError::Field("secretPhrase"))?)
    } else if let Some(seed) = fields.text("secretSeed")? {
        of_seed(&*hex_bytes(seed).ok_or(KeyfileError::Field("secretSeed"))?)
    } else if let Some(key) = fields.text("privateKey")? {
        of_private_key(key).ok_or(KeyfileError::Field("privateKey"))?
    } else {
        return Err(KeyfileError::PublicOnly);
    };
    let mut candidates = candidates;
    let Some(address) = address else {
        let index = usize::from(fields.is_ed25519()?);
        return candidates
            .into_iter()
            .nth(index)
            .ok_or(KeyfileError::Field("cryptoType"));
    };
    let fitting = candidates
        .iter()
        .position(|secret| secret.public() == address);
    fitting
        .map(|index| candidates.swap_remove(index))
        .ok_or(KeyfileError::Mismatch(address))
}

/// Returns the sr25519 key of a seed, then the ed25519 key.
fn of_seed(seed: &[u8; 32]) -> Vec<Secret> {
    vec![sr25519(seed), ed25519(seed)]
}

/// Reads 32 bytes (a seed) or 64 bytes (an expanded key, in either of two encodings in use).
fn of_private_key(text: &str) -> Option<Vec<Secret>> {
    if let Some(seed) = hex_bytes::<32>(text) {
        return Some(of_seed(&seed));
    }
    let key = hex_bytes::<64>(text)?;
    let plain = SecretKey::from_bytes(&*key).ok();
    let shifted = SecretKey::from_ed25519_bytes(&*key).ok();
    let expanded = [plain, shifted].into_iter().flatten();
    let mut candidates: Vec<_> = expanded
        .map(|secret| Secret::Sr25519(secret.to_keypair()))
        .collect();
    // An ed25519 key of 64 bytes is its seed and its public key.
    let seed: Zeroizing<[u8; 32]> = Zeroizing::new(key[..32].try_into().ok()?);
    candidates.push(ed25519(&seed));
    Some(candidates)
}

/// Reads what is not JSON: a seed or expanded key in hexadecimal, or a mnemonic.
fn of_text(text: &str) -> Option<Secret> {
    match of_private_key(text) {
        Some(candidates) => candidates.into_iter().next(),
        None => seed_of_phrase(text).map(|seed| sr25519(&seed)),
    }
}

/// Computes Substrate's seed of a mnemonic: from its entropy, not from its words.
fn seed_of_phrase(phrase: &str) -> Option<Zeroizing<[u8; 32]>> {
    let mnemonic = Mnemonic::parse_normalized(phrase).ok()?;
    let (entropy, len) = mnemonic.to_entropy_array();
    let entropy = Zeroizing::new(entropy);
    let mut long = Zeroizing::new([0; 64]);
    let hash = pbkdf2::PBKDF2_HMAC_SHA512;
    pbkdf2::derive(
        hash,
        PHRASE_ROUNDS,
        b"mnemonic",
        &entropy[..len],
        &mut *long,
    );
    let mut seed = Zeroizing::new([0; 32]);
    seed.copy_from_slice(&long[..32]);
    Some(seed)
}

fn hex_bytes<const N: usize>(text: &str) -> Option<Zeroizing<[u8; N]>> {
    let digits = text.strip_prefix("0x").unwrap_or(text);
    let mut bytes = Zeroizing::new([0; N]);
    hex::decode_to_slice(digits, &mut *bytes).ok()?;
    Some(bytes)
}
