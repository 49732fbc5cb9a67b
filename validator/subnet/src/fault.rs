//! Whose fault something is: the one question that decides who pays for it.

use std::fmt;

use serde::{Deserialize, Serialize};
use shared::Exit;

/// Who is to blame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FaultKind {
    /// The miner's model: wrong hash, over-size, NaN weights. It costs the model.
    Model,
    /// This machine: disk full, GPU lost. The model is tried again; weights are untouched.
    Machine,
    /// Something outside: hub, chain, W&B away. Tried again later.
    Outside,
    /// The operator's configuration. Ends the run with a hint.
    Config,
}

impl FaultKind {
    /// Returns the exit code of a command that ends with this kind of fault.
    pub const fn exit(self) -> Exit {
        match self {
            Self::Model => Exit::Refused,
            Self::Machine => Exit::Machine,
            Self::Outside => Exit::TryLater,
            Self::Config => Exit::Config,
        }
    }
}

impl fmt::Display for FaultKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Model => "model",
            Self::Machine => "machine",
            Self::Outside => "outside",
            Self::Config => "config",
        })
    }
}

/// A fault, with words that name what and where.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{reason}")]
pub struct Fault {
    /// Who is to blame.
    pub kind: FaultKind,
    /// What happened, to what.
    pub reason: String,
}

impl Fault {
    /// A fault of the miner's model.
    pub fn model(reason: impl fmt::Display) -> Self {
        Self {
            kind: FaultKind::Model,
            reason: reason.to_string(),
        }
    }

    /// A fault of this machine.
    pub fn machine(reason: impl fmt::Display) -> Self {
        Self {
            kind: FaultKind::Machine,
            reason: reason.to_string(),
        }
    }

    /// A fault of something outside.
    pub fn outside(reason: impl fmt::Display) -> Self {
        Self {
            kind: FaultKind::Outside,
            reason: reason.to_string(),
        }
    }

    /// A fault of the configuration.
    pub fn config(reason: impl fmt::Display) -> Self {
        Self {
            kind: FaultKind::Config,
            reason: reason.to_string(),
        }
    }
}

impl From<model::Fault> for Fault {
    fn from(fault: model::Fault) -> Self {
        if fault.is_models() {
            Self::model(fault)
        } else {
            Self::machine(fault)
        }
    }
}
