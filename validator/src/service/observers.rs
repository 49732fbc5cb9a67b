//! What the hub's client and the workers tell the meters.

use std::time::Duration;

use eval::{LossReason, WorkerObserver};
use http_client::{HttpObserver, StatusCode};
use model::protocol::DeviceMemory;
use report::{board::Board, meters::Meters};

/// Counts answers and bytes of the hub.
#[derive(Debug)]
pub(super) struct HubMeters(pub(super) Meters);

impl HttpObserver for HubMeters {
    fn answered(&self, status: Option<StatusCode>, after: Duration) {
        self.0
            .hub_answered(status.map(|status| status.as_u16()), after);
    }

    fn received(&self, bytes: u64) {
        self.0.hub_received(bytes);
    }
}

/// Counts workers, and notes how full and how busy their devices are.
#[derive(Debug)]
pub(super) struct WorkerMeters(pub(super) Meters, pub(super) Board);

impl WorkerObserver for WorkerMeters {
    fn replaced(&self, device: &str, why: LossReason) {
        self.0.worker_replaced(device, why.name());
        self.1.worker_replaced(device, why.name());
    }

    fn memory(&self, device: &str, memory: DeviceMemory) {
        self.0.device_memory(device, memory.used, memory.total);
        self.1.device_memory(device, memory.used, memory.total);
    }

    fn began(&self, device: &str) {
        self.1.device_begins(device);
    }

    fn ended(&self, device: &str, after: Duration) {
        self.0.device_busy(device, after);
        self.1.device_ends(device, after);
    }
}
