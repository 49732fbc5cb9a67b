//! Whose fault something is: the one question that decides who pays for it.

use std::{error::Error, fmt, sync::Arc};

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use shared::{Exit, Failure, causes};

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

/// An error, and whose fault it is. It is shown in one line with its causes, and kept as their
/// texts.
#[derive(Debug, Clone)]
pub struct Fault {
    pub kind: FaultKind,
    error: Arc<dyn Error + Send + Sync>,
}

impl Fault {
    /// Blames somebody for an error.
    pub fn new(kind: FaultKind, error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self {
            kind,
            error: Arc::from(error.into()),
        }
    }

    /// A fault of the miner's model, in words.
    pub fn model(reason: impl fmt::Display) -> Self {
        Self::new(FaultKind::Model, reason.to_string())
    }

    /// A fault of this machine, in words.
    pub fn machine(reason: impl fmt::Display) -> Self {
        Self::new(FaultKind::Machine, reason.to_string())
    }

    /// A fault of something outside, in words.
    pub fn outside(reason: impl fmt::Display) -> Self {
        Self::new(FaultKind::Outside, reason.to_string())
    }

    /// A fault of the configuration, in words.
    pub fn config(reason: impl fmt::Display) -> Self {
        Self::new(FaultKind::Config, reason.to_string())
    }

    pub fn error(&self) -> &(dyn Error + Send + Sync + 'static) {
        &*self.error
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&causes::one_line(&*self.error))
    }
}

impl Error for Fault {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.error.source()
    }
}

impl From<model::Fault> for Fault {
    fn from(fault: model::Fault) -> Self {
        let kind = if fault.is_models() {
            FaultKind::Model
        } else {
            FaultKind::Machine
        };
        Self::new(kind, fault)
    }
}

impl From<&Fault> for Failure {
    fn from(fault: &Fault) -> Self {
        Self::of(fault.kind.exit(), &*fault.error)
    }
}

impl From<Fault> for Failure {
    fn from(fault: Fault) -> Self {
        Self::from(&fault)
    }
}

impl PartialEq for Fault {
    fn eq(&self, other: &Self) -> bool {
        (self.kind, causes::texts(self.error())) == (other.kind, causes::texts(other.error()))
    }
}

impl Eq for Fault {}

/// A fault in a file: its texts.
#[derive(Serialize, Deserialize)]
struct KeptFault {
    kind: FaultKind,
    reason: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    causes: Vec<String>,
}

/// An error that was read back: its text and its cause.
#[derive(Debug, thiserror::Error)]
#[error("{text}")]
struct KeptError {
    text: String,
    source: Option<Box<Self>>,
}

impl Serialize for Fault {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut texts = causes::texts(self.error()).into_iter();
        KeptFault {
            kind: self.kind,
            reason: texts.next().unwrap_or_default(),
            causes: texts.collect(),
        }
        .serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Fault {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let KeptFault {
            kind,
            reason,
            causes,
        } = KeptFault::deserialize(deserializer)?;
        let source = causes.into_iter().rev().fold(None, |source, text| {
            Some(Box::new(KeptError { text, source }))
        });
        let text = reason;
        Ok(Self::new(kind, KeptError { text, source }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_keeps_its_causes_through_a_file() {
        let disk = std::io::Error::other("disk full");
        let error = shared::file::FileError::on("write", "/x".as_ref())(disk);
        let fault = Fault::new(FaultKind::Machine, error);
        assert_eq!(fault.to_string(), "could not write /x: disk full");
        assert!(fault.error().is::<shared::file::FileError>());
        let json = serde_json::to_string(&fault).unwrap();
        insta::assert_snapshot!(json, @r#"{"kind":"machine","reason":"could not write /x","causes":["disk full"]}"#);
        let read: Fault = serde_json::from_str(&json).unwrap();
        assert_eq!(read, fault);
        assert_eq!(read.source().unwrap().to_string(), "disk full");
        // As records before 0.4 have it.
        let old: Fault = serde_json::from_str(r#"{"kind":"outside","reason":"hub away"}"#).unwrap();
        assert_eq!(old, Fault::outside("hub away"));
    }
}
