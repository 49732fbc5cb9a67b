//! Whose fault it is that something could not be evaluated.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Longer texts are cut: they may quote what a miner wrote.
const MAX_TEXT: usize = 2000;

/// Why there is no result. Only a model's fault costs its miner anything.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Fault {
    /// The model or its tokenizer is at fault: it would fail on any machine.
    #[error("{0}")]
    Model(ModelFault),
    /// This machine, or this program, is at fault, or nobody knows.
    #[error("{0}")]
    Machine(MachineFault),
}

/// A fault of the model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{kind}: {text}")]
pub struct ModelFault {
    pub kind: ModelFaultKind,
    /// What exactly, in one line.
    pub text: String,
}

/// What is wrong with a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ModelFaultKind {
    /// `config.json` is missing, malformed or asks for what is refused.
    Config,
    /// The weights are missing, malformed, truncated or don't fit the configuration.
    Weights,
    /// The files are not those of the content hash.
    Hash,
    /// A norm of a weight is beyond the limits.
    Norms,
    /// The model is larger than allowed.
    Size,
    /// The tokenizer can't be loaded, or took too long.
    Tokenizer,
    /// The chat template can't be rendered, or took too long.
    Template,
}

/// A fault of the machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{kind}: {text}")]
pub struct MachineFault {
    pub kind: MachineFaultKind,
    /// What exactly, in one line.
    pub text: String,
}

/// What went wrong on this machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MachineFaultKind {
    /// The device is missing, lost or computes wrongly.
    Device,
    /// Memory ran out, on the device or off it.
    OutOfMemory,
    /// A file could not be read though it should be there.
    Storage,
    /// The eval-worker could not be started.
    Spawn,
    /// The eval-worker ended in mid-work.
    Crashed,
    /// The eval-worker did not answer in time and was killed.
    Hung,
    /// A request or its answer is larger than a frame may be.
    TooLarge,
    /// The eval-worker said something unintelligible, or is of another version.
    Protocol,
    Bug,
}

impl MachineFaultKind {
    /// Returns whether the subject of the work may have provoked it. Such a fault counts towards
    /// giving the subject up; the others say nothing about it.
    pub const fn may_be_provoked(self) -> bool {
        matches!(
            self,
            Self::OutOfMemory | Self::Crashed | Self::Hung | Self::Bug
        )
    }
}

impl Fault {
    /// Makes a fault of the model.
    pub fn model(kind: ModelFaultKind, text: impl fmt::Display) -> Self {
        Self::Model(ModelFault {
            kind,
            text: one_line(&text.to_string()),
        })
    }

    /// Makes a fault of the machine.
    pub fn machine(kind: MachineFaultKind, text: impl fmt::Display) -> Self {
        Self::Machine(MachineFault {
            kind,
            text: one_line(&text.to_string()),
        })
    }

    /// Returns whether the model is at fault.
    pub const fn is_models(&self) -> bool {
        matches!(self, Self::Model(_))
    }
}

impl fmt::Display for ModelFaultKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Config => "configuration",
            Self::Weights => "weights",
            Self::Hash => "content hash",
            Self::Norms => "norms",
            Self::Size => "size",
            Self::Tokenizer => "tokenizer",
            Self::Template => "chat template",
        })
    }
}

impl fmt::Display for MachineFaultKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Device => "device",
            Self::OutOfMemory => "out of memory",
            Self::Storage => "storage",
            Self::Spawn => "eval-worker not started",
            Self::Crashed => "eval-worker crashed",
            Self::Hung => "eval-worker hung",
            Self::TooLarge => "too large",
            Self::Protocol => "eval-worker protocol",
            Self::Bug => "bug",
        })
    }
}

/// Makes a text fit for a log line and a terminal: no control characters, not endless.
fn one_line(text: &str) -> String {
    let mut line: String = text
        .trim()
        .chars()
        .take(MAX_TEXT)
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    if text.trim().chars().nth(MAX_TEXT).is_some() {
        line.push('…');
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_text_stays_on_one_short_line() {
        let fault = Fault::model(
            ModelFaultKind::Template,
            format!("\x1b[2J\n{}", "a".repeat(9999)),
        );
        let text = fault.to_string();
        assert!(text.starts_with("chat template: "));
        assert!(!text.contains(char::is_control));
        assert!(text.chars().count() < MAX_TEXT + 30);
        assert!(fault.is_models());
    }

    #[test]
    fn only_what_a_model_can_provoke_counts_against_it() {
        assert!(MachineFaultKind::Hung.may_be_provoked());
        assert!(!MachineFaultKind::Storage.may_be_provoked());
        assert!(!MachineFaultKind::Spawn.may_be_provoked());
    }
}
