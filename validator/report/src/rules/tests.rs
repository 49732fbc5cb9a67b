use super::*;
use crate::status::{DiskUse, HotkeyStanding, LastStep, Sources, Start, TrustNow};
use subnet::CompetitionId;

const GIB: u64 = 1 << 30;

fn at(hours: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + hours * 3600).unwrap()
}

/// Returns what holds of a cause, at an hour, after details were changed.
fn holds(cause: Cause, hour: i64, change: impl FnOnce(&mut Details)) -> Option<Health> {
    let mut details = Details::default();
    change(&mut details);
    apply(&mut details, &mut Held::new(), at(hour));
    details.alarms.get(&cause).map(|problem| problem.health)
}

#[test]
fn there_is_one_rule_for_each_cause() {
    let causes = RULES.map(|rule| rule.cause);
    assert_eq!(causes, Cause::ALL);
    let mut details = Details::default();
    apply(&mut details, &mut Held::new(), at(0));
    assert!(
        details.alarms.is_empty(),
        "nothing is known, so nothing is wrong"
    );
}

#[test]
fn the_disk_is_told_while_it_is_too_full() {
    let disk = |free| {
        holds(Cause::Disk, 0, |details| {
            details.disk = Some(DiskUse {
                free: free * GIB,
                keep_free: 40 * GIB,
                ..DiskUse::default()
            });
        })
    };
    assert_eq!(
        [disk(41), disk(40), disk(20), disk(0)],
        [
            None,
            Some(Health::Yellow),
            Some(Health::Red),
            Some(Health::Red)
        ]
    );
}

#[test]
fn a_trust_that_fell_is_told_until_it_is_back_or_usual() {
    let trust = |validator_trust, best| {
        holds(Cause::Trust, 0, |details| {
            details.trust = Some(TrustNow {
                block: 1,
                validator_trust,
                best,
            });
        })
    };
    assert_eq!(trust(0.8, 0.9), Some(Health::Yellow));
    assert_eq!(
        [trust(0.9, 0.9), trust(0.88, 0.9), trust(0.8, 0.8)],
        [None; 3]
    );
}

fn ready(details: &mut Details, hour: i64) {
    details.start.ready_at = Some(at(hour));
}

#[test]
fn a_day_without_a_step_is_told_until_there_is_one() {
    assert_eq!(holds(Cause::Steps, 24, |details| ready(details, 0)), None);
    assert_eq!(
        holds(Cause::Steps, 25, |details| ready(details, 0)),
        Some(Health::Yellow)
    );
    let stepped = |details: &mut Details| {
        ready(details, 0);
        details.last_step = Some(LastStep {
            step: 1,
            competition: CompetitionId::from("l3"),
            block: 1,
            samples: String::new(),
            seconds: 1.0,
            finished_at: at(20),
            models: BTreeMap::new(),
        });
    };
    assert_eq!(holds(Cause::Steps, 25, stepped), None);
    assert_eq!(holds(Cause::Steps, 45, stepped), Some(Health::Yellow));
}

#[test]
fn a_crash_loop_is_told_until_a_start_is_ready() {
    let attempt = |attempt, ready_at| {
        holds(Cause::CrashLoop, 0, |details| {
            details.start = Start {
                attempt,
                ready_at,
                ..Start::default()
            };
        })
    };
    assert_eq!([attempt(2, None), attempt(9, Some(at(0)))], [None; 2]);
    assert_eq!(
        [attempt(3, None), attempt(6, None)],
        [Some(Health::Yellow), Some(Health::Red)]
    );
}

#[test]
fn old_samples_and_a_missing_permit_are_told_while_they_are() {
    let samples = |cached_age| {
        holds(Cause::OldSamples, 0, |details| {
            details.sources = Some(Sources {
                cached_age,
                ..Sources::default()
            });
        })
    };
    assert_eq!([samples(None), samples(Some(86_400))], [None; 2]);
    assert_eq!(samples(Some(86_401)), Some(Health::Yellow));
    let permit = |permit| {
        holds(Cause::Permit, 0, |details| {
            details.standing = Some(HotkeyStanding {
                permit,
                ..HotkeyStanding::default()
            });
        })
    };
    assert_eq!([permit(true), permit(false)], [None, Some(Health::Yellow)]);
}

#[test]
fn a_condition_keeps_its_beginning_while_it_holds_and_forgets_it_after() {
    let mut held = Held::new();
    let mut since = |permit, hour| {
        let mut details = Details {
            standing: Some(HotkeyStanding {
                permit,
                ..HotkeyStanding::default()
            }),
            ..Details::default()
        };
        apply(&mut details, &mut held, at(hour));
        details
            .alarms
            .get(&Cause::Permit)
            .map(|problem| problem.since)
    };
    assert_eq!(since(false, 0), Some(at(0)));
    assert_eq!(since(false, 1), Some(at(0)));
    assert_eq!(since(true, 2), None);
    assert_eq!(since(false, 3), Some(at(3)));
}

#[test]
fn the_shipped_alert_rules_and_the_documentation_are_those_of_the_table() {
    let shipped = include_str!("../../../../docs/monitoring/alerts.yml");
    assert_eq!(
        shipped,
        prometheus(),
        "write the output of `validator alerts` there"
    );
    let text = include_str!("../../../../docs/operating.md");
    for rule in &RULES {
        let row = format!(
            "| `{}` | {} | {} | {} |",
            rule.cause, rule.what, rule.ends, rule.remedy
        );
        assert!(text.contains(&row), "docs/operating.md lacks\n{row}");
    }
}
