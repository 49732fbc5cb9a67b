//! How much memory the device has, and how much of it is taken.

use std::{
    fs::{self, File},
    os::unix::fs::FileExt as _,
};

use candle_core::Device;
use model::protocol::DeviceMemory;
use nix::unistd::{SysconfVar, sysconf};

use crate::device;

/// Reads how full a device is.
#[derive(Debug)]
pub struct MemoryGauge {
    /// What the kernel says of this process.
    own: Option<File>,
    page_bytes: u64,
    limit: Option<u64>,
}

impl MemoryGauge {
    /// Makes one for a process that may take so many bytes of host memory. Call it before the walls stand: behind them
    /// what is read here can't be opened, only read.
    pub fn open(limit: Option<u64>) -> Self {
        let page_bytes = sysconf(SysconfVar::PAGE_SIZE).ok().flatten();
        Self {
            own: File::open("/proc/self/statm").ok(),
            page_bytes: page_bytes
                .and_then(|bytes| bytes.try_into().ok())
                .unwrap_or(4096),
            limit: limit.or_else(most_of_host),
        }
    }

    /// Returns what all of the devices have together; nothing where the system does not tell.
    pub(crate) fn read(&self, devices: &[Device]) -> Option<DeviceMemory> {
        if let Some((free, total)) = device::describe_all(devices).memory {
            let used = total.saturating_sub(free);
            return Some(DeviceMemory { used, total });
        }
        let mut text = [0; 128];
        let read = self.own.as_ref()?.read_at(&mut text, 0).ok()?;
        Some(DeviceMemory {
            used: resident_pages(&text[..read])?.saturating_mul(self.page_bytes),
            total: self.limit?,
        })
    }
}

/// Returns the second number of `statm`, see proc_pid_statm(5).
fn resident_pages(statm: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(statm).ok()?;
    text.split_whitespace().nth(1)?.parse().ok()
}

/// Returns nine tenths of the machine's memory: what a worker without another limit may take.
pub(crate) fn most_of_host() -> Option<u64> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let total = text
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kibibytes: u64 = total
        .trim()
        .trim_end_matches("kB")
        .trim_end()
        .parse()
        .ok()?;
    Some(kibibytes * 1024 / 10 * 9)
}
