//! The wallet: finds and opens the hotkey in every form operators have it; signs with it.

mod encrypted;
mod keyfile;
mod locked;
mod password;

use std::{
    collections::VecDeque,
    convert::Infallible,
    fmt, io,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use ed25519_dalek::Signer as _;
use shared::{
    causes,
    file::{self, FileError},
};
use subxt::{
    config::substrate::H256,
    utils::{AccountId32, MultiSignature},
};

use subnet::{Fault, FaultKind, Genesis, Hotkey};

pub use keyfile::KeyfileError;
pub use locked::Guarded;
pub use password::Passwords;

use self::locked::Locked;
use super::{
    locks::{Account, Locks},
    runtime::Subtensor,
};

const MAX_FILE: u64 = 1 << 16;

/// Where a wallet's files lie.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WalletPath {
    pub folder: PathBuf,
    /// The wallet's name, which is its coldkey's.
    pub name: String,
    pub hotkey: String,
}

/// An opened hotkey. Its secret is wiped from memory on drop and never shown.
pub struct Wallet {
    hotkey: Hotkey,
    coldkey: Option<Hotkey>,
    secret: Locked<Secret>,
    /// One transaction at a time: two with one nonce would push each other out.
    pub(super) submitting: tokio::sync::Mutex<()>,
    /// Where it meets the other processes that use the hotkey.
    pub(super) locks: Locks,
    /// Hashes of the last transactions signed, should the disk be full.
    sent: Mutex<VecDeque<H256>>,
}

const REMEMBERED: usize = 64;

/// A secret key; both kinds wipe themselves on drop.
enum Secret {
    Sr25519(schnorrkel::Keypair),
    Ed25519(ed25519_dalek::SigningKey),
}

/// Why a wallet could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum WalletError {
    /// There is no such file.
    #[error("there is no hotkey file {}", .0.display())]
    Missing(PathBuf),
    /// The file could not be read.
    #[error(transparent)]
    File(#[from] FileError),
    /// It holds no key that we understand.
    #[error("{} holds no usable key", path.display())]
    Keyfile {
        path: PathBuf,
        /// What is wrong with it.
        source: KeyfileError,
    },
    /// It is encrypted, and no password was given.
    #[error("{} is encrypted and no password was given", .0.display())]
    NoPassword(PathBuf),
    /// It is encrypted, and no given password fits.
    #[error("none of the given passwords opens {}", .0.display())]
    WrongPassword(PathBuf),
    /// The password file or prompt failed.
    #[error("could not read the password")]
    Password(#[source] io::Error),
}

impl From<WalletError> for Fault {
    fn from(error: WalletError) -> Self {
        Self::new(FaultKind::Config, error)
    }
}

impl WalletPath {
    pub fn hotkey_file(&self) -> PathBuf {
        self.folder
            .join(&self.name)
            .join("hotkeys")
            .join(&self.hotkey)
    }

    /// Reads the coldkey's address; `None` if its public file is not there or not readable.
    pub fn public_coldkey(&self) -> Option<Hotkey> {
        let path = self.folder.join(&self.name).join("coldkeypub.txt");
        let bytes = read(&path)
            .inspect_err(|error| tracing::warn!(%error, "the coldkey's address is unknown"))
            .ok()??;
        keyfile::public(&bytes)
    }

    /// Reads the hotkey's address without its secret, where that is possible: from an unencrypted
    /// key file or from the public file beside it.
    pub fn public_hotkey(&self) -> Result<Option<Hotkey>, WalletError> {
        let path = self.hotkey_file();
        let public = self
            .folder
            .join(&self.name)
            .join("hotkeys")
            .join(format!("{}pub.txt", self.hotkey));
        for path in [public, path] {
            if let Some(bytes) = read(&path)?
                && let Some(hotkey) = keyfile::public(&bytes)
            {
                return Ok(Some(hotkey));
            }
        }
        Ok(None)
    }
}

impl Wallet {
    /// Opens a wallet's hotkey; asks for a password only if the file is encrypted.
    pub fn open(at: &WalletPath, passwords: &Passwords) -> Result<Self, WalletError> {
        let path = at.hotkey_file();
        let secret = Locked::of(|| {
            let bytes = read(&path)?.ok_or_else(|| WalletError::Missing(path.clone()))?;
            let plain = match encrypted::Encryption::of(&bytes) {
                None => bytes,
                Some(form) => decrypt(&path, &at.name, form, &bytes, passwords)?,
            };
            keyfile::secret(&plain).map_err(|source| WalletError::Keyfile {
                path: path.clone(),
                source,
            })
        })?;
        warn_if_readable(&path);
        tracing::debug!("{}", secret.guarded());
        Ok(Self {
            coldkey: at.public_coldkey(),
            ..Self::of(secret)
        })
    }

    /// Makes a wallet of a 32-byte seed, without any file.
    pub fn from_seed(seed: &[u8; 32]) -> Self {
        let made = Locked::of(|| Ok::<_, Infallible>(keyfile::sr25519(seed)));
        let Ok(secret) = made;
        Self::of(secret)
    }

    fn of(secret: Locked<Secret>) -> Self {
        let hotkey = secret.public();
        Self {
            hotkey,
            coldkey: None,
            secret,
            submitting: tokio::sync::Mutex::new(()),
            locks: Locks::of_this_user(),
            sent: Mutex::default(),
        }
    }

    /// Notes a transaction that is about to be sent, for this process and all others.
    pub(super) fn remember(&self, genesis: Genesis, transaction: H256) {
        let mut sent = self.sent.lock().unwrap_or_else(PoisonError::into_inner);
        if sent.len() == REMEMBERED {
            sent.pop_front();
        }
        sent.push_back(transaction);
        if let Err(error) = self.locks.remember(self.account(genesis), transaction) {
            let error = causes::one_line(&error);
            tracing::warn!(error, "a restart won't know this transaction as ours");
        }
    }

    /// Returns whether a transaction was signed by this process or another one of this user.
    pub(super) fn has_sent(&self, genesis: Genesis, transaction: &H256) -> Result<bool, FileError> {
        let sent = self.sent.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(
            sent.contains(transaction)
                || self.locks.has_sent(self.account(genesis), transaction)?,
        )
    }

    /// Returns what has a nonce: the hotkey on a chain.
    pub(super) const fn account(&self, genesis: Genesis) -> Account {
        Account {
            genesis,
            hotkey: self.hotkey,
        }
    }

    pub const fn hotkey(&self) -> Hotkey {
        self.hotkey
    }

    /// Returns the coldkey's address, if its public file is there.
    pub const fn coldkey(&self) -> Option<Hotkey> {
        self.coldkey
    }

    /// Signs a message; with sr25519 in Substrate's context.
    pub fn sign(&self, message: &[u8]) -> [u8; 64] {
        match &*self.secret {
            Secret::Sr25519(pair) => pair.sign_simple(b"substrate", message).to_bytes(),
            Secret::Ed25519(key) => key.sign(message).to_bytes(),
        }
    }

    /// Returns how well the memory that holds the secret is guarded.
    pub fn guarded(&self) -> Guarded {
        self.secret.guarded()
    }

    /// Returns the kind of key: `sr25519` or `ed25519`.
    pub fn kind(&self) -> &'static str {
        match *self.secret {
            Secret::Sr25519(_) => "sr25519",
            Secret::Ed25519(_) => "ed25519",
        }
    }
}

impl Secret {
    fn public(&self) -> Hotkey {
        match self {
            Self::Sr25519(pair) => Hotkey(pair.public.to_bytes()),
            Self::Ed25519(key) => Hotkey(key.verifying_key().to_bytes()),
        }
    }
}

impl fmt::Debug for Wallet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wallet")
            .field("hotkey", &self.hotkey)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secret({})", self.public())
    }
}

impl subxt::tx::Signer<Subtensor> for Wallet {
    fn account_id(&self) -> AccountId32 {
        AccountId32(self.hotkey.0)
    }

    fn sign(&self, payload: &[u8]) -> MultiSignature {
        let signature = Self::sign(self, payload);
        match *self.secret {
            Secret::Sr25519(_) => MultiSignature::Sr25519(signature),
            Secret::Ed25519(_) => MultiSignature::Ed25519(signature),
        }
    }
}

/// Checks a signature made by [`Wallet::sign`] with an sr25519 or ed25519 hotkey.
pub fn verify(hotkey: &Hotkey, message: &[u8], signature: &[u8; 64]) -> bool {
    let sr25519 = || {
        let public = schnorrkel::PublicKey::from_bytes(&hotkey.0).ok()?;
        let signature = schnorrkel::Signature::from_bytes(signature).ok()?;
        public.verify_simple(b"substrate", message, &signature).ok()
    };
    let ed25519 = || {
        let public = ed25519_dalek::VerifyingKey::from_bytes(&hotkey.0).ok()?;
        let signature = ed25519_dalek::Signature::from_bytes(signature);
        public.verify_strict(message, &signature).ok()
    };
    sr25519().or_else(ed25519).is_some()
}

fn read(path: &Path) -> Result<Option<keyfile::Bytes>, WalletError> {
    Ok(file::read_limited(path, MAX_FILE)?.map(keyfile::Bytes::new))
}

fn decrypt(
    path: &Path,
    wallet: &str,
    form: encrypted::Encryption,
    bytes: &[u8],
    passwords: &Passwords,
) -> Result<keyfile::Bytes, WalletError> {
    let mut tried = false;
    for password in passwords.candidates(path, wallet) {
        tried = true;
        if let Some(plain) = form.decrypt(bytes, &password.map_err(WalletError::Password)?) {
            return Ok(plain);
        }
    }
    let path = path.to_owned();
    Err(if tried {
        WalletError::WrongPassword(path)
    } else {
        WalletError::NoPassword(path)
    })
}

fn warn_if_readable(path: &Path) {
    if let Ok(metadata) = path.metadata() {
        let mode = metadata.permissions().mode() & 0o777;
        if mode & 0o077 != 0 {
            let path = path.display();
            tracing::warn!(%path, mode = format!("{mode:o}"), "others can read the hotkey; chmod 600 it");
        }
    }
}
