//! What the hub's client and the workers tell the meters.

use std::time::Duration;

use eval::{LossReason, WorkerObserver};
use http_client::{HttpObserver, StatusCode};
use model::protocol::DeviceMemory;
use report::meters::Meters;

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

/// Counts workers, and notes how full their devices are.
#[derive(Debug)]
pub(super) struct WorkerMeters(pub(super) Meters);

impl WorkerObserver for WorkerMeters {
    fn replaced(&self, device: &str, why: LossReason) {
        self.0.worker_replaced(device, why.name());
    }

    fn memory(&self, device: &str, memory: DeviceMemory) {
        self.0.device_memory(device, memory.used, memory.total);
    }
}
