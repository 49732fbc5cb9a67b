//! The health rules: one table, from which the status, the alert rules for Prometheus, notifications and the
//! documentation are made.
//!
//! A rule is either an alarm, which its owner raises and ends, or a condition on the details, which is looked at
//! whenever the status is made. Either way it is a [`Problem`] of the status while it holds.

mod prometheus;
mod table;

use std::collections::BTreeMap;

use jiff::Timestamp;
use shared::{notices::Call, status::Health};

pub use self::{prometheus::prometheus, table::RULES};
use crate::{
    problem::{Cause, Problem},
    status::Details,
};

/// What is wrong, from when on people are called, and what they can do.
#[derive(Debug, Clone, Copy)]
pub struct Rule {
    pub cause: Cause,
    /// What is wrong, in words.
    pub what: &'static str,
    pub ends: &'static str,
    pub remedy: &'static str,
    /// Whether it may become red.
    pub worst: Health,
    /// People are called when it has held for so many minutes; what passes sooner wakes nobody.
    pub call_minutes: i64,
    pub condition: Condition,
}

/// Who says that a rule holds.
#[derive(Debug, Clone, Copy)]
pub enum Condition {
    /// The owner of the alarm.
    Alarm,
    /// This function, of what is known and what time it is.
    Of(fn(&Details, Timestamp) -> Option<(Health, String)>),
}

impl Rule {
    /// Returns the rule of a cause; none for one that only a later release knows.
    pub fn of(cause: Cause) -> Option<&'static Self> {
        RULES.iter().find(|rule| rule.cause == cause)
    }

    /// Returns when people are called for a cause.
    pub fn call(cause: Cause) -> Option<Call> {
        Self::of(cause).map(|rule| Call {
            after_minutes: rule.call_minutes,
            remedy: rule.remedy,
        })
    }
}

/// Since when each condition holds; a condition that does not hold is not in it.
pub type Held = BTreeMap<Cause, Timestamp>;

/// Adds the conditions that hold to the problems of the details.
pub fn apply(details: &mut Details, held: &mut Held, now: Timestamp) {
    for rule in &RULES {
        let Condition::Of(holds) = rule.condition else {
            continue;
        };
        match holds(details, now) {
            None => {
                held.remove(&rule.cause);
            }
            Some((health, text)) => {
                let since = *held.entry(rule.cause).or_insert(now);
                let problem = Problem {
                    health,
                    since,
                    text,
                };
                details.alarms.insert(rule.cause, problem);
            }
        }
    }
}

#[cfg(test)]
mod tests;
