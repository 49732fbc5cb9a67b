//! Miners: tiny models trained on the spot, honest ones and every kind of cheat.

pub mod checkpoint;
pub mod family;
pub mod network;
pub mod training;
pub mod vocabulary;
pub mod workshop;

use std::{fmt, path::PathBuf};

use model::ContentHash;
use shared::{Exit, Failure, file::FileError};

pub use family::Family;
pub use workshop::{Model, Workshop};

use crate::{
    hub::{Content, Hub},
    wallet::Wallet,
};

/// What kind of miner it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// Trained for a little while, committed first.
    Good,
    /// Trained on from there, committed later.
    Better,
    /// The good model again, under another hotkey, with its plain hash.
    Copy,
    /// The good model again, with a hash bound to the copier's hotkey.
    BoundCopy,
    /// Claims the hash of something else.
    Liar,
    /// Has more parameters than its competition allows.
    TooLarge,
    /// The good model with one projection blown up.
    MadNorms,
    /// The good model with a weight that is not a number.
    NanWeight,
}

impl Role {
    /// All, in the order in which they commit.
    pub const ALL: [Self; 8] = [
        Self::Good,
        Self::Better,
        Self::Copy,
        Self::BoundCopy,
        Self::Liar,
        Self::TooLarge,
        Self::MadNorms,
        Self::NanWeight,
    ];

    /// Returns a word for names of wallets and repositories.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Good => "good",
            Self::Better => "better",
            Self::Copy => "copy",
            Self::BoundCopy => "bound-copy",
            Self::Liar => "liar",
            Self::TooLarge => "too-large",
            Self::MadNorms => "mad-norms",
            Self::NanWeight => "nan-weight",
        }
    }

    /// Returns whether an honest validator gives it weight.
    pub const fn is_honest(self) -> bool {
        matches!(self, Self::Good | Self::Better)
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// A miner with its model on the hub.
#[derive(Debug, Clone)]
pub struct Miner {
    pub role: Role,
    pub family: Family,
    pub wallet: Wallet,
    /// Its place on the subnet.
    pub uid: u16,
    /// `namespace/name` on the hub.
    pub repository: String,
    /// The revision it commits to.
    pub revision: String,
    /// The hash it claims.
    pub hash: ContentHash,
}

impl Miner {
    /// Publishes `model` on the hub in the way of its role.
    pub fn publish(
        role: Role,
        model: &Model,
        wallet: Wallet,
        uid: u16,
        hub: &Hub,
    ) -> Result<Self, MinerError> {
        let family = model.family;
        // Real miners also upload what is not part of the hash.
        let card = format!("# A {} {} of localnet\n", role.word(), family.word());
        let mut files = model.files()?;
        files.push(("README.md".to_owned(), Content::from(card)));
        let repository = format!("{}-miner/{}", role.word(), family.word());
        let revision = hub.commit_model(&repository, files);
        let truth = model.hash()?;
        let hash = match role {
            Role::BoundCopy => truth.bound_to(&wallet.hotkey.ss58()),
            Role::Liar => truth.bound_to("nobody"),
            _ => truth,
        };
        Ok(Self {
            role,
            family,
            wallet,
            uid,
            repository,
            revision,
            hash,
        })
    }

    /// Returns what it commits on the chain.
    pub fn commitment(&self) -> String {
        let Self {
            repository,
            revision,
            hash,
            family,
            ..
        } = self;
        let repository = repository.replacen('/', ":", 1);
        format!("{repository}:{revision}:{hash}:{}", family.competition())
    }
}

/// Why no model came about.
#[derive(Debug, thiserror::Error)]
pub enum MinerError {
    /// A tensor operation failed.
    #[error("could not train a miner's model")]
    Training(#[from] candle_core::Error),
    /// The tokenizer could not be made.
    #[error("could not make a tokenizer: {0}")]
    Tokenizer(tokenizers::Error),
    /// The weights could not be written down.
    #[error("could not serialize a miner's model")]
    Weights(#[from] safetensors::SafeTensorError),
    /// A file could not be written or read.
    #[error(transparent)]
    File(#[from] FileError),
    /// A model folder could not be read.
    #[error("could not read the model in {}", .0.display())]
    Folder(PathBuf, #[source] std::io::Error),
}

impl From<tokenizers::Error> for MinerError {
    fn from(error: tokenizers::Error) -> Self {
        Self::Tokenizer(error)
    }
}

impl From<MinerError> for Failure {
    fn from(error: MinerError) -> Self {
        let full = matches!(&error, MinerError::File(error) if error.is_full());
        let failure = Self::of(Exit::Machine, &error);
        if full {
            failure.hint("free some space, or choose another --state-dir")
        } else {
            failure
        }
    }
}
