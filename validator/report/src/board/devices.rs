//! What workers tell of their devices.

use std::time::Duration;

use shared::clock;

use super::Board;
use crate::device::DeviceStatus;

/// Memory comes and goes all the time. What is less than this share of all of it waits for the next change of anything.
const WORTH_TELLING: f64 = 0.01;

impl Board {
    /// Notes how full a device is, in bytes.
    pub fn device_memory(&self, device: &str, used: u64, total: u64) {
        let mut content = self.lock();
        let devices = &mut content.details.devices;
        // A GPU is one of its own, or one of several that work together: what it was before no longer holds.
        for (name, other) in devices.iter_mut() {
            if name != device
                && name
                    .split(',')
                    .any(|one| device.split(',').any(|own| own == one))
            {
                (other.memory_used, other.memory_total) = (None, None);
            }
        }
        let known = devices.entry(device.to_owned()).or_default();
        let before = known.memory_share();
        (known.memory_used, known.memory_total) = (Some(used), Some(total));
        let moved = known
            .memory_share()
            .zip(before)
            .is_none_or(|(now, before)| (now - before).abs() >= WORTH_TELLING);
        drop(content);
        if moved {
            self.0.changes.send_replace(());
        }
    }

    /// Says that a device begins to compute.
    pub fn device_begins(&self, device: &str) {
        self.of_device(device, |known| {
            let now = clock::now();
            known.since.get_or_insert(now);
            known.busy_since = Some(now);
        });
    }

    /// Says that a device has computed for so long, and does so no longer.
    pub fn device_ends(&self, device: &str, after: Duration) {
        self.of_device(device, |known| {
            known.busy_since = None;
            known.busy_seconds += after.as_secs_f64();
        });
    }

    /// Says that the worker of a device was replaced.
    pub fn worker_replaced(&self, device: &str, reason: &str) {
        self.of_device(device, |known| {
            known.replaced += 1;
            known.why_replaced = Some(reason.to_owned());
            // It took its memory along.
            known.memory_used = None;
        });
    }

    fn of_device(&self, device: &str, change: impl FnOnce(&mut DeviceStatus)) {
        self.note(|details| change(details.devices.entry(device.to_owned()).or_default()));
    }
}

#[cfg(test)]
mod tests {
    use jiff::{Timestamp, ToSpan as _};

    use super::*;
    use crate::status::Details;

    fn devices(board: &Board) -> Vec<(String, Option<u64>)> {
        let devices = board.details().devices.into_iter();
        devices
            .map(|(name, device)| (name, device.memory_used))
            .collect()
    }

    #[test]
    fn memory_is_told_when_it_moves_and_known_in_any_case() {
        let (board, _alarms) = Board::new(Details::default());
        let mut changes = board.subscribe();
        let mut told = |used| {
            board.device_memory("cuda:0", used, 1000);
            let changed = changes.has_changed().unwrap();
            changes.mark_unchanged();
            changed
        };
        assert_eq!(
            [500, 505, 530, 500].map(&mut told),
            [true, false, true, true]
        );
        assert!(!told(501));
        assert_eq!(devices(&board), [("cuda:0".to_owned(), Some(501))]);
    }

    #[test]
    fn what_several_gpus_take_together_stands_in_place_of_what_each_took() {
        let (board, _alarms) = Board::new(Details::default());
        let names = ["cuda:0", "cuda:1", "cuda:10"];
        for name in names {
            board.device_memory(name, 1, 2);
        }
        board.device_memory("cuda:0,cuda:1", 3, 4);
        let known = |each: [Option<u64>; 4]| {
            let names = ["cuda:0", "cuda:0,cuda:1", "cuda:1", "cuda:10"];
            let names = names.map(ToOwned::to_owned);
            names.into_iter().zip(each).collect::<Vec<_>>()
        };
        assert_eq!(devices(&board), known([None, Some(3), None, Some(1)]));
        board.device_memory("cuda:1", 1, 2);
        assert_eq!(devices(&board), known([None, None, Some(1), Some(1)]));
    }

    #[test]
    fn the_time_that_a_device_computes_is_counted() {
        let (board, _alarms) = Board::new(Details::default());
        let device = || board.details().devices.remove("cpu").unwrap();
        board.device_begins("cpu");
        assert!(device().busy_since.is_some());
        board.device_ends("cpu", Duration::from_secs(30));
        board.worker_replaced("cpu", "crashed");
        let idle = device();
        assert_eq!((idle.busy_since, idle.replaced), (None, 1));
        assert_eq!(idle.why_replaced.as_deref(), Some("crashed"));

        let at = |seconds: i64| Timestamp::UNIX_EPOCH + seconds.seconds();
        let known = DeviceStatus {
            since: Some(at(0)),
            ..idle
        };
        assert_eq!(known.busy_share(at(120)), Some(0.25));
        let computes = DeviceStatus {
            busy_since: Some(at(120)),
            ..known
        };
        assert_eq!(computes.busy_for(at(150)), Some(30.0));
        assert_eq!(computes.busy_share(at(240)), Some(0.625));
        assert_eq!(computes.busy_share(at(0)), None);
    }
}
