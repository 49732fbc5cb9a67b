//! Which devices to compute on, and what is missing if they can't be had.

use std::{fmt, str::FromStr};

use candle_core::Device;
use model::{Fault, MachineFaultKind};

/// Devices as asked for on the command line: `cpu`, `auto`, `cuda`, `cuda:1` or `cuda:0,cuda:1`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DeviceSpec {
    /// The first CUDA device if there is one, else the CPU.
    Auto,
    /// The CPU.
    Cpu,
    /// CUDA devices by number, in this order; never the CPU instead.
    Cuda(Vec<usize>),
}

/// A device name is not understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("device {0:?} is none of cpu, auto, cuda, cuda:N or a list of these last")]
pub struct UnknownDevice(String);

impl FromStr for DeviceSpec {
    type Err = UnknownDevice;

    fn from_str(text: &str) -> Result<Self, UnknownDevice> {
        match text {
            "auto" => return Ok(Self::Auto),
            "cpu" => return Ok(Self::Cpu),
            "cuda" => return Ok(Self::Cuda(vec![0])),
            _ => {}
        }
        let mut numbers = Vec::new();
        for name in text.split(',') {
            let number = name
                .strip_prefix("cuda:")
                .and_then(|number| number.parse().ok());
            match number {
                Some(number) if !numbers.contains(&number) => numbers.push(number),
                _ => return Err(UnknownDevice(text.to_owned())),
            }
        }
        Ok(Self::Cuda(numbers))
    }
}

impl fmt::Display for DeviceSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Cpu => f.write_str("cpu"),
            Self::Cuda(numbers) => {
                let names: Vec<_> = numbers.iter().map(|n| format!("cuda:{n}")).collect();
                f.write_str(&names.join(","))
            }
        }
    }
}

impl DeviceSpec {
    /// Returns the devices asked for, each as a spec of its own: one worker serves one device.
    pub fn each(&self) -> Vec<Self> {
        match self {
            Self::Cuda(numbers) => numbers.iter().map(|&n| Self::Cuda(vec![n])).collect(),
            other => vec![other.clone()],
        }
    }

    /// Opens the (first) device.
    ///
    /// # Errors
    /// A fault of the machine that says what is missing.
    pub fn open(&self) -> Result<Device, Fault> {
        match self {
            Self::Cpu => Ok(Device::Cpu),
            Self::Cuda(numbers) => cuda(numbers.first().copied().unwrap_or(0)),
            Self::Auto => cuda(0).or_else(|fault| {
                tracing::warn!(%fault, "no CUDA device, computing on the CPU");
                Ok(Device::Cpu)
            }),
        }
    }
}

/// A device as people know it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Description {
    /// As asked for on the command line: `cpu`, `cuda:0`.
    pub id: String,
    /// What it is: `NVIDIA H200`, `CPU (2 threads)`.
    pub name: String,
    /// Bytes of memory, free and in all, if it is the device's own.
    pub memory: Option<(u64, u64)>,
}

/// Says what a device is.
pub fn describe(device: &Device) -> Description {
    #[cfg(feature = "cuda")]
    if let Device::Cuda(cuda) = device {
        let number = cuda.cuda_stream().context().ordinal();
        let known = crate::cuda::describe(cuda);
        return Description {
            id: format!("cuda:{number}"),
            memory: known
                .as_ref()
                .map(|&(_, free, total)| (free as u64, total as u64)),
            name: known.map_or_else(|| "CUDA device".to_owned(), |(name, ..)| name),
        };
    }
    debug_assert!(device.is_cpu(), "there are no other devices");
    let threads = candle_core::utils::get_num_threads();
    Description {
        id: "cpu".into(),
        name: format!("CPU ({threads} threads)"),
        memory: None,
    }
}

#[cfg(not(feature = "cuda"))]
fn cuda(number: usize) -> Result<Device, Fault> {
    let text = format!(
        "cuda:{number} is not available: this eval-worker was built without the feature `cuda`"
    );
    Err(Fault::machine(MachineFaultKind::Device, text))
}

#[cfg(feature = "cuda")]
fn cuda(number: usize) -> Result<Device, Fault> {
    crate::cuda::open(number)
        .map_err(|why| Fault::machine(MachineFaultKind::Device, format!("cuda:{number}: {why}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_and_written_alike() {
        for name in ["cpu", "auto", "cuda:1", "cuda:0,cuda:3"] {
            assert_eq!(name.parse::<DeviceSpec>().unwrap().to_string(), name);
        }
        for name in [
            "",
            "gpu",
            "cuda:",
            "cuda:x",
            "cuda:0,",
            "cuda:0,cuda:0",
            "cpu,cuda:0",
        ] {
            name.parse::<DeviceSpec>().unwrap_err();
        }
    }

    #[test]
    fn only_auto_falls_back() {
        assert!(DeviceSpec::Cpu.open().unwrap().is_cpu());
        assert_eq!("cuda".parse(), Ok(DeviceSpec::Cuda(vec![0])));
        let two: DeviceSpec = "cuda:0,cuda:1".parse().unwrap();
        assert_eq!(
            two.each(),
            [DeviceSpec::Cuda(vec![0]), DeviceSpec::Cuda(vec![1])]
        );
    }
}
