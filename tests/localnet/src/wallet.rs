//! Wallets in the layout of the Bittensor tools: `<path>/<name>/{coldkey,coldkeypub.txt,hotkeys/}`.

use std::path::{Path, PathBuf};

use serde_json::json;
use sha2::{Digest as _, Sha256};
use shared::file::{self, FileError};
use sp_core::{Pair as _, sr25519};
use subxt::utils::AccountId32;
use subxt_signer::{bip39::Mnemonic, sr25519::Keypair};

/// A key with everything its file says. It guards nothing but a chain that dies with localnet, so
/// it does not hide itself.
#[derive(Clone)]
pub struct Key {
    /// Signs extrinsics sent with subxt.
    pub signer: Keypair,
    /// Signs extrinsics sent with [`crate::chain::Chain`].
    pub pair: sr25519::Pair,
    seed: [u8; 32],
    mnemonic: Mnemonic,
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Key").field(&self.ss58()).finish()
    }
}

impl Key {
    /// Makes the key that belongs to a seed and a name, always the same.
    pub fn derive(seed: u64, name: &str) -> Self {
        let entropy = Sha256::digest(format!("localnet key {seed} {name}"));
        let mnemonic =
            Mnemonic::from_entropy(&entropy[..16]).expect("16 bytes are an entropy of 12 words");
        let signer =
            Keypair::from_phrase(&mnemonic, None).expect("a mnemonic without password is a key");
        let (pair, seed) = sr25519::Pair::from_phrase(&mnemonic.to_string(), None)
            .expect("a mnemonic without password is a key");
        Self {
            signer,
            pair,
            seed,
            mnemonic,
        }
    }

    /// Returns the public key, which is the account id.
    pub fn public(&self) -> [u8; 32] {
        self.pair.public().0
    }

    /// Returns the address with the prefix of Bittensor, 42.
    pub fn ss58(&self) -> String {
        AccountId32(self.public()).to_string()
    }

    fn secret_json(&self) -> serde_json::Value {
        json!({
            "accountId": format!("0x{}", hex::encode(self.public())),
            "publicKey": format!("0x{}", hex::encode(self.public())),
            "privateKey": format!("0x{}", hex::encode(self.pair.to_raw_vec())),
            "secretPhrase": self.mnemonic.to_string(),
            "secretSeed": format!("0x{}", hex::encode(self.seed)),
            "ss58Address": self.ss58(),
        })
    }

    fn public_json(&self) -> serde_json::Value {
        json!({
            "accountId": format!("0x{}", hex::encode(self.public())),
            "publicKey": format!("0x{}", hex::encode(self.public())),
            "ss58Address": self.ss58(),
        })
    }
}

/// A coldkey and its one hotkey `default`.
#[derive(Debug, Clone)]
pub struct Wallet {
    /// The wallet's name, also of its folder.
    pub name: String,
    pub coldkey: Key,
    pub hotkey: Key,
}

impl Wallet {
    /// Makes the wallet that belongs to a seed and a name, always the same.
    pub fn derive(seed: u64, name: &str) -> Self {
        Self {
            name: name.to_owned(),
            coldkey: Key::derive(seed, &format!("{name} coldkey")),
            hotkey: Key::derive(seed, &format!("{name} hotkey")),
        }
    }

    /// Writes the wallet's files below `wallets`; returns the wallet's folder.
    pub fn write(&self, wallets: &Path) -> Result<PathBuf, FileError> {
        let folder = wallets.join(&self.name);
        let text = |value: serde_json::Value| value.to_string().into_bytes();
        let private = |path: &str, key: &Key| {
            file::write_atomic_private(&folder.join(path), &text(key.secret_json()))
        };
        private("coldkey", &self.coldkey)?;
        private("hotkeys/default", &self.hotkey)?;
        file::write_atomic(
            &folder.join("coldkeypub.txt"),
            &text(self.coldkey.public_json()),
        )?;
        Ok(folder)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_field_of_a_key_file_leads_to_the_same_key() {
        let wallet = Wallet::derive(7, "miner");
        let dir = tempfile::tempdir().unwrap();
        let folder = wallet.write(dir.path()).unwrap();
        let bytes = file::read_limited(&folder.join("hotkeys/default"), 4096)
            .unwrap()
            .unwrap();
        let key: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
        let public = format!("0x{}", hex::encode(wallet.hotkey.public()));
        assert_eq!(key["publicKey"], public.as_str());

        let seed = hex::decode(&key["secretSeed"].as_str().unwrap()[2..]).unwrap();
        let from_seed = Keypair::from_secret_key(seed.try_into().unwrap()).unwrap();
        assert_eq!(from_seed.public_key().0, wallet.hotkey.public());

        let raw = hex::decode(&key["privateKey"].as_str().unwrap()[2..]).unwrap();
        assert_eq!(raw.len(), 64);
        let pair = sr25519::Pair::from_seed_slice(&raw).unwrap();
        assert_eq!(pair.public().0, wallet.hotkey.public());

        let phrase = Mnemonic::parse(key["secretPhrase"].as_str().unwrap()).unwrap();
        let from_phrase = Keypair::from_phrase(&phrase, None).unwrap();
        assert_eq!(from_phrase.public_key().0, wallet.hotkey.public());

        let mode = |path: &str| {
            use std::os::unix::fs::PermissionsExt as _;
            std::fs::metadata(folder.join(path))
                .unwrap()
                .permissions()
                .mode()
                & 0o777
        };
        assert_eq!((mode("hotkeys/default"), mode("coldkey")), (0o600, 0o600));
        assert_ne!(Key::derive(8, "miner hotkey").ss58(), wallet.hotkey.ss58());
    }
}
