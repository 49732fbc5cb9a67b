//! Who and when on the chain: uid, netuid, hotkey, block.

use std::{fmt, str::FromStr};

use blake2::{Blake2b512, Digest};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

/// A block's height.
pub type BlockNumber = u64;

/// A neuron's index within its subnet.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Uid(pub u16);

/// The hash of a chain's first block: which chain it is. Shown in hexadecimal.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Genesis(pub [u8; 32]);

/// A text is not a hash of a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected 0x and 64 hexadecimal digits")]
pub struct GenesisError;

impl FromStr for Genesis {
    type Err = GenesisError;

    fn from_str(text: &str) -> Result<Self, GenesisError> {
        let mut hash = [0; 32];
        let digits = text.strip_prefix("0x").ok_or(GenesisError)?;
        hex::decode_to_slice(digits, &mut hash).map_err(|_| GenesisError)?;
        Ok(Self(hash))
    }
}

impl fmt::Display for Genesis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "0x{}", hex::encode(self.0))
    }
}

impl fmt::Debug for Genesis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Genesis({self})")
    }
}

impl Serialize for Genesis {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Genesis {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(D::Error::custom)
    }
}

#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Netuid(pub u16);

impl fmt::Display for Uid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for Netuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for Netuid {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(Self)
    }
}

/// A hotkey: the 32-byte public key that a neuron signs with. Shown as SS58 with prefix 42.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Hotkey(pub [u8; 32]);

/// Why a text is not a hotkey.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HotkeyError {
    /// It is not base58.
    #[error("{0:?} is not an SS58 address: not base58")]
    Base58(String),
    /// It has another length than prefix, key and checksum.
    #[error("{0:?} is not an SS58 address of a 32-byte key")]
    Length(String),
    /// The checksum differs: a typing error.
    #[error("{0:?} has a wrong checksum: a typing error?")]
    Checksum(String),
    /// It belongs to another network.
    #[error("{0:?} has network prefix {1}, expected 42")]
    Prefix(String, u8),
}

const SS58_PREFIX: u8 = 42;

impl Hotkey {
    /// Returns the SS58 address.
    pub fn ss58(&self) -> String {
        let mut bytes = Vec::with_capacity(35);
        bytes.push(SS58_PREFIX);
        bytes.extend_from_slice(&self.0);
        let checksum = ss58_checksum(&bytes);
        bytes.extend_from_slice(&checksum);
        bs58::encode(bytes).into_string()
    }
}

fn ss58_checksum(prefixed: &[u8]) -> [u8; 2] {
    let hash = Blake2b512::new()
        .chain_update(b"SS58PRE")
        .chain_update(prefixed)
        .finalize();
    [hash[0], hash[1]]
}

impl FromStr for Hotkey {
    type Err = HotkeyError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let shown = || text.chars().take(64).collect::<String>();
        if text.len() > 64 {
            return Err(HotkeyError::Length(shown()));
        }
        let bytes = bs58::decode(text)
            .into_vec()
            .map_err(|_| HotkeyError::Base58(shown()))?;
        let bytes: [u8; 35] = bytes.try_into().map_err(|_| HotkeyError::Length(shown()))?;
        if ss58_checksum(&bytes[..33]) != bytes[33..] {
            return Err(HotkeyError::Checksum(shown()));
        }
        if bytes[0] != SS58_PREFIX {
            return Err(HotkeyError::Prefix(shown(), bytes[0]));
        }
        let mut key = [0; 32];
        key.copy_from_slice(&bytes[1..33]);
        Ok(Self(key))
    }
}

impl fmt::Display for Hotkey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.ss58())
    }
}

impl fmt::Debug for Hotkey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Hotkey({self})")
    }
}

impl Serialize for Hotkey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Hotkey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Substrate's well-known development account Alice.
    const ALICE: &str = "5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQY";

    #[test]
    fn ss58_round_trips_and_typing_errors_are_found() {
        let alice: Hotkey = ALICE.parse().unwrap();
        assert_eq!(alice.0[..4], [0xd4, 0x35, 0x93, 0xc7]);
        assert_eq!(alice.to_string(), ALICE);
        let typo = ALICE.replace("Grwva", "Grwvb");
        assert!(matches!(
            typo.parse::<Hotkey>(),
            Err(HotkeyError::Checksum(_))
        ));
        assert!(matches!(
            "0OIl".parse::<Hotkey>(),
            Err(HotkeyError::Base58(_))
        ));
        assert!(matches!(
            "5Grw".parse::<Hotkey>(),
            Err(HotkeyError::Length(_))
        ));
    }
}
