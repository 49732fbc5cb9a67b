//! Who is told what becomes of workers: what metrics are made of.

use std::{fmt, time::Duration};

use model::{Fault, MachineFaultKind, protocol::DeviceMemory};
use tokio::time::Instant;

/// Is told of the workers. It is called in the midst of requests: it must not block.
pub trait WorkerObserver: fmt::Debug + Send + Sync {
    /// The worker of a device is replaced.
    fn replaced(&self, device: &str, why: LossReason);

    /// How full a device is, by its worker.
    fn memory(&self, device: &str, memory: DeviceMemory);

    /// The worker of a device begins with a request.
    fn began(&self, device: &str);

    /// It is done with it after so long, or is lost.
    fn ended(&self, device: &str, after: Duration);
}

/// A request that a worker is at: its end is told however it comes, also when it is given up.
#[derive(Debug)]
pub(crate) struct AtWork<'a> {
    observer: Option<&'a dyn WorkerObserver>,
    device: &'a str,
    began: Instant,
}

impl<'a> AtWork<'a> {
    pub(crate) fn begin(observer: Option<&'a dyn WorkerObserver>, device: &'a str) -> Self {
        if let Some(observer) = observer {
            observer.began(device);
        }
        Self {
            observer,
            device,
            began: Instant::now(),
        }
    }
}

impl Drop for AtWork<'_> {
    fn drop(&mut self) {
        if let Some(observer) = self.observer {
            observer.ended(self.device, self.began.elapsed());
        }
    }
}

/// Why a worker was lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LossReason {
    /// What it was asked for was given up half-way.
    GivenUp,
    /// A fault of this machine, or of the model that the worker met.
    Fault(MachineFaultKind),
}

impl LossReason {
    /// Returns a word for it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::GivenUp => "given-up",
            Self::Fault(kind) => match kind {
                MachineFaultKind::Device => "device",
                MachineFaultKind::OutOfMemory => "out-of-memory",
                MachineFaultKind::Storage => "storage",
                MachineFaultKind::Spawn => "not-started",
                MachineFaultKind::Crashed => "crashed",
                MachineFaultKind::Hung => "hung",
                MachineFaultKind::TooLarge => "too-large",
                MachineFaultKind::Protocol => "protocol",
                MachineFaultKind::Bug => "bug",
            },
        }
    }

    /// A worker is not given up for what is a model's own fault.
    pub(crate) const fn of(fault: &Fault) -> Self {
        match fault {
            Fault::Machine(fault) => Self::Fault(fault.kind),
            Fault::Model(_) => Self::Fault(MachineFaultKind::Protocol),
        }
    }
}
