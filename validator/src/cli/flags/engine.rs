//! Where and how models are computed.

use std::{fmt, path::Path, str::FromStr};

use clap::Args;
use model::{Attention, Dtype};
use shared::cli::FullPath;

use super::ByteSize;

/// The eval-worker program.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Evaluation")]
pub(crate) struct WorkerFlag {
    /// The eval-worker program [default: beside this one]
    #[arg(
        long = "eval-worker",
        value_name = "FILE",
        env = "VALIDATOR_EVAL_WORKER"
    )]
    eval_worker: Option<FullPath>,
    /// Run models even where the kernel lacks a wall of their sandbox that the key's safety rests on
    #[arg(long = "no-sandbox")]
    pub(crate) no_sandbox: bool,
}

impl WorkerFlag {
    /// Returns the program given.
    pub(crate) fn program(&self) -> Option<&Path> {
        self.eval_worker.as_deref()
    }
}

/// Where and how models are computed.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Evaluation")]
pub(crate) struct EngineFlags {
    /// cuda, cuda:N, several of these with commas, cpu, or auto (cuda if there is one)
    #[arg(long, value_name = "DEVICE", default_value = "cuda")]
    pub(crate) device: Devices,
    /// bfloat16, float16 or float32
    #[arg(long, value_name = "TYPE", default_value = "bfloat16")]
    pub(crate) dtype: Dtype,
    /// flash_attention_2, sdpa or eager
    #[arg(
        long = "attn_implementation",
        value_name = "NAME",
        default_value = "flash_attention_2"
    )]
    pub(crate) attention: Attention,
    /// Tokens packed into one forward pass at most; 1 evaluates one sample at a time
    #[arg(long = "pack-tokens", value_name = "N", default_value_t = 8192)]
    pub(crate) pack_tokens: usize,
    /// GPU memory that loaded models may take, such as 80GB [default: three quarters of what is free]
    #[arg(long = "gpu-memory", value_name = "SIZE")]
    pub(crate) gpu_memory: Option<ByteSize>,
    #[command(flatten)]
    pub(crate) worker: WorkerFlag,
}

/// The devices to compute on, one worker for each: `auto`, `cpu`, `cuda`, `cuda:1`. Whether this
/// machine has them, only their workers can tell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Devices(Vec<String>);

/// A text names no devices.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is none of auto, cpu, cuda, cuda:N or several of these with commas")]
pub(crate) struct DevicesError(String);

impl Devices {
    /// Returns the CPU.
    pub(crate) fn cpu() -> Self {
        Self(vec!["cpu".to_owned()])
    }

    /// Returns their names.
    pub(crate) fn names(&self) -> &[String] {
        &self.0
    }

    /// Returns the first one only.
    pub(crate) fn first(&self) -> Self {
        Self(self.0.iter().take(1).cloned().collect())
    }
}

impl fmt::Display for Devices {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join(","))
    }
}

impl FromStr for Devices {
    type Err = DevicesError;

    fn from_str(text: &str) -> Result<Self, DevicesError> {
        let is_device = |name: &str| {
            matches!(name, "auto" | "cpu" | "cuda")
                || name
                    .strip_prefix("cuda:")
                    .is_some_and(|number| number.parse::<u32>().is_ok())
        };
        let names: Vec<String> = text.split(',').map(|name| name.trim().to_owned()).collect();
        if names.iter().all(|name| is_device(name)) {
            Ok(Self(names))
        } else {
            Err(DevicesError(text.to_owned()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_devices_are_devices() {
        for text in ["auto", "cpu", "cuda", "cuda:1", "cuda:0, cuda:1"] {
            text.parse::<Devices>().unwrap();
        }
        for text in ["", "gpu", "cuda:", "cuda:x", "cuda:0,", "CPU"] {
            text.parse::<Devices>().unwrap_err();
        }
    }
}
