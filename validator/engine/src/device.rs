//! Which devices to compute on, and what is missing if they can't be had.

use std::{fmt, fs, path::PathBuf, str::FromStr};

use candle_core::{Device, Tensor};
use model::{Fault, MachineFaultKind};

/// Devices as asked for on the command line: `cpu`, `auto`, `cuda`, `cuda:1` or `cuda:0,cuda:1`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DeviceSpec {
    /// The first CUDA device if there is one, else the CPU.
    Auto,
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
    /// Returns whether a GPU's driver is started to open it.
    pub(crate) fn may_be_cuda(&self) -> bool {
        cfg!(feature = "cuda") && *self != Self::Cpu
    }

    /// Opens the devices, whatever walls there are.
    pub fn open(&self) -> Result<Opened, Fault> {
        let opened = |devices| Opened {
            devices,
            no_gpu: None,
        };
        match self {
            Self::Cpu => Ok(opened(vec![Device::Cpu])),
            Self::Cuda(numbers) => {
                let devices = numbers.iter().map(|&number| cuda(number));
                devices.collect::<Result<_, _>>().map(opened)
            }
            Self::Auto => Ok(cuda(0).map_or_else(
                |fault| Opened {
                    devices: vec![Device::Cpu],
                    no_gpu: Some(fault),
                },
                |gpu| opened(vec![gpu]),
            )),
        }
    }
}

#[derive(Debug)]
pub struct Opened {
    /// At least one, all of one kind.
    pub devices: Vec<Device>,
    /// Why it is the CPU although a GPU was looked for.
    pub no_gpu: Option<Fault>,
}

impl Opened {
    /// Says why work is done on the CPU of a machine with a GPU, whose device files are `files`.
    pub(crate) fn unused_gpu(&self, files: &[PathBuf]) -> Option<String> {
        let is_gpu = |path: &&PathBuf| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            name == "dxg"
                || name
                    .strip_prefix("nvidia")
                    .is_some_and(|number| number.parse::<u32>().is_ok())
        };
        let on_cpu = self.devices.iter().all(Device::is_cpu);
        let gpu = files.iter().find(is_gpu).filter(|_| on_cpu)?;
        let reason = match &self.no_gpu {
            Some(fault) => fault.to_string(),
            None => "the CPU was asked for".to_owned(),
        };
        Some(format!("{} is not used: {reason}", gpu.display()))
    }
}

/// Returns the device files of GPUs; `dxg` is what Windows lends to Linux within it.
pub(crate) fn files() -> Vec<PathBuf> {
    let named = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        name.starts_with("nvidia") || name == "dri" || name == "dxg"
    };
    let entries = fs::read_dir("/dev").into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).filter(named).collect()
}

/// A device as people know it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Description {
    /// As asked for on the command line: `cpu`, `cuda:0`.
    pub id: String,
    /// What it is: `NVIDIA H200`, `CPU (2 threads, AVX-512)`.
    pub name: String,
    /// Bytes of memory, free and in all, if it is the device's own.
    pub memory: Option<(u64, u64)>,
}

/// Brings a tensor to a device. From one GPU to another it has arrived when this returns: its memory may be used for
/// something else then, which the GPU it came from would not wait for.
pub(crate) fn moved(tensor: &Tensor, device: &Device) -> candle_core::Result<Tensor> {
    if tensor.device().same_device(device) {
        return Ok(tensor.clone());
    }
    let moved = tensor.contiguous()?.to_device(device)?;
    device.synchronize()?;
    Ok(moved)
}

/// Says what devices are, as if they were one.
pub fn describe_all(devices: &[Device]) -> Description {
    let each: Vec<Description> = devices.iter().map(describe).collect();
    let all = |part: &dyn Fn(&Description) -> String, between: &str| {
        each.iter().map(part).collect::<Vec<_>>().join(between)
    };
    let name = match each.as_slice() {
        [first, others @ ..] if others.iter().all(|other| other.name == first.name) => {
            if others.is_empty() {
                first.name.clone()
            } else {
                format!("{} x {}", each.len(), first.name)
            }
        }
        _ => all(&|device| device.name.clone(), " + "),
    };
    let add = |(free, total): (u64, u64), (more, larger)| (free + more, total + larger);
    Description {
        id: all(&|device| device.id.clone(), ","),
        name,
        memory: each.iter().filter_map(|device| device.memory).reduce(add),
    }
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
        name: format!("CPU ({threads} threads{})", vectors()),
        memory: None,
    }
}

/// Names the vectors that decide in which order products are summed, and so the last bits of losses.
fn vectors() -> &'static str {
    #[cfg(target_arch = "x86_64")]
    {
        use crate::cpu::native::Unit;
        match Unit::of_machine() {
            Some(Unit::Tiles) => return ", AVX-512, AMX",
            Some(Unit::Vectors) => return ", AVX-512 with bf16",
            None if std::arch::is_x86_feature_detected!("avx512f") => return ", AVX-512",
            None => {}
        }
    }
    ""
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
    fn a_gpu_that_is_not_used_is_named() {
        let files = ["/dev/nvidiactl", "/dev/nvidia0", "/dev/nvidia1"].map(PathBuf::from);
        let refused = Fault::machine(MachineFaultKind::Device, "cuda:0: refused");
        let cpu = |no_gpu| Opened {
            devices: vec![Device::Cpu],
            no_gpu,
        };
        assert_eq!(
            cpu(Some(refused.clone())).unused_gpu(&files).unwrap(),
            "/dev/nvidia0 is not used: device: cuda:0: refused"
        );
        assert_eq!(
            cpu(None).unused_gpu(&files).unwrap(),
            "/dev/nvidia0 is not used: the CPU was asked for"
        );
        assert_eq!(cpu(Some(refused)).unused_gpu(&files[..1]), None);
    }

    #[test]
    fn only_auto_falls_back() {
        assert!(DeviceSpec::Cpu.open().unwrap().devices[0].is_cpu());
        assert_eq!("cuda".parse(), Ok(DeviceSpec::Cuda(vec![0])));
    }
}
