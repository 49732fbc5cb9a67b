//! Judging a new version by how the old one was doing, so that an outage is not blamed on it.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use shared::status::Health;

/// How the old version was when it was stopped.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Baseline {
    /// What its status file said.
    #[serde(default)]
    pub health: Option<Health>,
    /// How it was failing, if it was.
    #[serde(default)]
    pub failing: Option<String>,
}

/// What becomes of a version on probation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// As good as the old one.
    Passed,
    /// Accepted, but yellow where the old one was green.
    Degraded,
    /// Look again after this time.
    Longer(Duration),
    /// It does not do its job, and the old one did.
    Worse,
}

/// Judges a version that has stayed up for `served` since it became ready. Yellow is often
/// passing (a hub that is away), so it earns a second term rather than a rollback.
pub fn judge(
    baseline: &Baseline,
    health: Option<Health>,
    served: Duration,
    term: Duration,
) -> Verdict {
    if served < term {
        return Verdict::Longer(term.saturating_sub(served));
    }
    let before = baseline.health.unwrap_or(Health::Green);
    match health {
        Some(now) if now <= before => Verdict::Passed,
        None | Some(Health::Green) => Verdict::Passed,
        Some(Health::Red) => Verdict::Worse,
        Some(Health::Yellow) if served < 2 * term => {
            Verdict::Longer((2 * term).saturating_sub(served))
        }
        Some(Health::Yellow) => Verdict::Degraded,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TERM: Duration = Duration::from_secs(60);

    fn verdict(before: Option<Health>, now: Option<Health>, served: u64) -> Verdict {
        let baseline = Baseline {
            health: before,
            failing: None,
        };
        judge(&baseline, now, Duration::from_secs(served), TERM)
    }

    #[test]
    fn the_new_version_is_blamed_only_for_what_is_new() {
        use Health::{Green, Red, Yellow};
        let cases = [
            (Some(Green), Some(Green), 60, Verdict::Passed),
            (Some(Green), Some(Red), 60, Verdict::Worse),
            (Some(Red), Some(Red), 60, Verdict::Passed),
            (Some(Yellow), Some(Yellow), 60, Verdict::Passed),
            (Some(Yellow), Some(Red), 60, Verdict::Worse),
            (Some(Green), Some(Yellow), 60, Verdict::Longer(TERM)),
            (Some(Green), Some(Yellow), 120, Verdict::Degraded),
            (None, None, 60, Verdict::Passed),
            (None, Some(Red), 60, Verdict::Worse),
            (None, Some(Red), 59, Verdict::Longer(Duration::from_secs(1))),
        ];
        for (before, now, served, expected) in cases {
            assert_eq!(
                verdict(before, now, served),
                expected,
                "{before:?} {now:?} {served}"
            );
        }
    }
}
