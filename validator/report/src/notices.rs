//! Which problems people are called for, and when: what passes by itself wakes nobody, nothing is told twice, and what
//! was told is told again when it is over.

use std::collections::{BTreeMap, VecDeque};

use jiff::{SignedDuration, Timestamp};
use serde::Serialize;
use shared::status::Health;

use crate::{
    problem::{Cause, Problem},
    rules::Rule,
};

/// At most so many notices within [`WITHIN`]; what is left is told when there is room again, if it still holds.
const MOST: usize = 12;
const WITHIN: SignedDuration = SignedDuration::from_hours(1);

/// A problem is over when it has been away for so long: what comes and goes is one problem.
const OVER: SignedDuration = SignedDuration::from_mins(2);

/// Something that people are told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Notice {
    pub cause: Cause,
    /// None when it is over.
    pub health: Option<Health>,
    pub since: Timestamp,
    pub text: String,
    /// What to do.
    pub remedy: String,
}

/// What was told, and when.
#[derive(Debug, Default)]
pub struct Notices {
    told: BTreeMap<Cause, LastNotice>,
    sent: VecDeque<Timestamp>,
}

#[derive(Debug)]
struct LastNotice {
    problem: Problem,
    /// Since when it is away.
    away: Option<Timestamp>,
}

impl Notices {
    /// Returns what is to be told now, of the problems as they are.
    pub fn due(&mut self, problems: &BTreeMap<Cause, Problem>, now: Timestamp) -> Vec<Notice> {
        let mut due = Vec::new();
        while self
            .sent
            .front()
            .is_some_and(|sent| now.duration_since(*sent) >= WITHIN)
        {
            self.sent.pop_front();
        }
        for (cause, problem) in problems {
            let Some(rule) = Rule::of(*cause) else {
                continue;
            };
            let told = self.told.get_mut(cause);
            let news = if let Some(told) = &told {
                problem.health > told.problem.health
            } else {
                let patience = SignedDuration::from_mins(rule.call_minutes);
                now.duration_since(problem.since) >= patience
            };
            if let Some(told) = told {
                told.away = None;
            }
            if news && self.sent.len() < MOST {
                self.sent.push_back(now);
                let told = LastNotice {
                    problem: problem.clone(),
                    away: None,
                };
                self.told.insert(*cause, told);
                due.push(Notice {
                    cause: *cause,
                    health: Some(problem.health),
                    since: problem.since,
                    text: problem.text.clone(),
                    remedy: rule.remedy.to_owned(),
                });
            }
        }
        let mut over = Vec::new();
        for (cause, told) in &mut self.told {
            if problems.contains_key(cause) {
                continue;
            }
            let away = *told.away.get_or_insert(now);
            if now.duration_since(away) >= OVER && self.sent.len() < MOST {
                self.sent.push_back(now);
                over.push(*cause);
                due.push(Notice {
                    cause: *cause,
                    health: None,
                    since: told.problem.since,
                    text: format!("over: {}", told.problem.text),
                    remedy: String::new(),
                });
            }
        }
        for cause in over {
            self.told.remove(&cause);
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(minute: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + minute * 60).unwrap()
    }

    fn problem(health: Health, since: i64) -> Problem {
        Problem {
            health,
            since: at(since),
            text: "text".into(),
        }
    }

    /// Says what is told minute by minute, of a cause whose problem is as given.
    fn told(cause: Cause, minutes: &[Option<(Health, i64)>]) -> Vec<(i64, Option<Health>)> {
        let mut notices = Notices::default();
        let mut told = Vec::new();
        for (minute, now) in (0..).zip(minutes) {
            let problems = now.map(|(health, since)| (cause, problem(health, since)));
            for notice in notices.due(&problems.into_iter().collect(), at(minute)) {
                told.push((minute, notice.health));
            }
        }
        told
    }

    #[test]
    fn people_are_called_once_when_it_lasts_and_again_when_it_is_over() {
        let chain = Some((Health::Yellow, 0));
        let minutes: Vec<_> = std::iter::repeat_n(chain, 30).chain([None; 10]).collect();
        assert_eq!(
            told(Cause::Chain, &minutes),
            [(15, Some(Health::Yellow)), (32, None)]
        );
        assert_eq!(
            told(Cause::Chain, &[&[chain; 14][..], &[None; 9]].concat()),
            []
        );
    }

    #[test]
    fn what_gets_worse_is_told_at_once_and_what_gets_better_is_not() {
        let (yellow, red) = (Some((Health::Yellow, 0)), Some((Health::Red, 0)));
        let minutes = [yellow, yellow, red, red, yellow, yellow, red];
        let expected = [(1, Some(Health::Yellow)), (2, Some(Health::Red))];
        assert_eq!(told(Cause::WeightsAge, &minutes), expected);
    }

    #[test]
    fn what_comes_and_goes_is_one_problem() {
        let minutes: Vec<_> = (0..60)
            .map(|minute| (minute % 2 == 0).then_some((Health::Red, minute)))
            .collect();
        assert_eq!(told(Cause::Twin, &minutes), [(0, Some(Health::Red))]);
    }

    #[test]
    fn an_hour_has_a_bounded_number_of_notices_and_what_still_holds_comes_later() {
        let mut notices = Notices::default();
        let all: BTreeMap<Cause, Problem> = Cause::ALL
            .map(|cause| (cause, problem(Health::Red, -600)))
            .into();
        assert_eq!(notices.due(&all, at(0)).len(), MOST);
        assert_eq!(notices.due(&all, at(59)).len(), 0);
        let left = (Cause::ALL.len() - MOST).min(MOST);
        assert_eq!(notices.due(&all, at(60)).len(), left);
    }
}
