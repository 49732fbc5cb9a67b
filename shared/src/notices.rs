//! Which problems people are called for, and when: what passes by itself wakes nobody, nothing is told twice, and what
//! was told is told again when it is over.

use std::collections::{BTreeMap, VecDeque};

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::status::Health;

/// At most so many notices within [`WITHIN`]; what is left is told when there is room again, if it still holds.
const MOST: usize = 12;
const WITHIN: SignedDuration = SignedDuration::from_hours(1);

/// A problem is over when it has been away for so long: what comes and goes is one problem.
const OVER: SignedDuration = SignedDuration::from_mins(2);

/// Something that is wrong, for as long as it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    pub health: Health,
    pub since: Timestamp,
    /// What it is, in words.
    pub text: String,
}

/// When people are called for a problem, and what they can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Call {
    /// When it has held for so many minutes; what passes sooner wakes nobody.
    pub after_minutes: i64,
    pub remedy: &'static str,
}

/// Something that people are told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notice<C> {
    pub cause: C,
    /// None when it is over.
    pub health: Option<Health>,
    pub since: Timestamp,
    pub text: String,
    /// What to do.
    pub remedy: String,
}

impl<C: std::fmt::Display> Notice<C> {
    /// Returns it as people read it; `of` is what has the problem.
    pub fn sentence(&self, of: impl std::fmt::Display) -> String {
        let level = match self.health {
            None => "recovered",
            Some(Health::Red) => "RED",
            Some(Health::Yellow | Health::Green) => "yellow",
        };
        let remedy = match self.remedy.as_str() {
            "" => String::new(),
            remedy => format!("\nWhat to do: {remedy}"),
        };
        format!(
            "{of}: {level}, {}: {} (since {}){remedy}",
            self.cause,
            self.text,
            self.since.strftime("%F %T UTC")
        )
    }
}

/// What was told, and when.
#[derive(Debug)]
pub struct Notices<C> {
    told: BTreeMap<C, LastNotice>,
    sent: VecDeque<Timestamp>,
}

#[derive(Debug)]
struct LastNotice {
    problem: Problem,
    /// Since when it is away.
    away: Option<Timestamp>,
}

impl<C> Default for Notices<C> {
    fn default() -> Self {
        Self {
            told: BTreeMap::new(),
            sent: VecDeque::new(),
        }
    }
}

impl<C: Copy + Ord> Notices<C> {
    /// Returns whether anything was told that is not over.
    pub fn is_open(&self) -> bool {
        !self.told.is_empty()
    }

    /// Returns what is to be told now, of the problems as they are. Nobody is called for a cause without a [`Call`].
    pub fn due(
        &mut self,
        problems: &BTreeMap<C, Problem>,
        call: impl Fn(C) -> Option<Call>,
        now: Timestamp,
    ) -> Vec<Notice<C>> {
        let mut due = Vec::new();
        while self
            .sent
            .front()
            .is_some_and(|sent| now.duration_since(*sent) >= WITHIN)
        {
            self.sent.pop_front();
        }
        for (cause, problem) in problems {
            let Some(call) = call(*cause) else {
                continue;
            };
            let told = self.told.get_mut(cause);
            let news = if let Some(told) = &told {
                problem.health > told.problem.health
            } else {
                let patience = SignedDuration::from_mins(call.after_minutes);
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
                    remedy: call.remedy.to_owned(),
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

    const CHAIN: u32 = 15;
    const TWIN: u32 = 0;
    const WEIGHTS: u32 = 1;

    /// The causes here are the minutes after which people are called.
    fn call(cause: u32) -> Option<Call> {
        (cause < 1000).then_some(Call {
            after_minutes: cause.into(),
            remedy: "mend it",
        })
    }

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
    fn told(cause: u32, minutes: &[Option<(Health, i64)>]) -> Vec<(i64, Option<Health>)> {
        let mut notices = Notices::default();
        let mut told = Vec::new();
        for (minute, now) in (0..).zip(minutes) {
            let problems = now.map(|(health, since)| (cause, problem(health, since)));
            for notice in notices.due(&problems.into_iter().collect(), call, at(minute)) {
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
            told(CHAIN, &minutes),
            [(15, Some(Health::Yellow)), (32, None)]
        );
        assert_eq!(told(CHAIN, &[&[chain; 14][..], &[None; 9]].concat()), []);
    }

    #[test]
    fn what_gets_worse_is_told_at_once_and_what_gets_better_is_not() {
        let (yellow, red) = (Some((Health::Yellow, 0)), Some((Health::Red, 0)));
        let minutes = [yellow, yellow, red, red, yellow, yellow, red];
        let expected = [(1, Some(Health::Yellow)), (2, Some(Health::Red))];
        assert_eq!(told(WEIGHTS, &minutes), expected);
    }

    #[test]
    fn what_comes_and_goes_is_one_problem() {
        let minutes: Vec<_> = (0..60)
            .map(|minute| (minute % 2 == 0).then_some((Health::Red, minute)))
            .collect();
        assert_eq!(told(TWIN, &minutes), [(0, Some(Health::Red))]);
    }

    #[test]
    fn an_hour_has_a_bounded_number_of_notices_and_what_still_holds_comes_later() {
        let mut notices = Notices::default();
        let causes = 0..MOST as u32 * 2 + 3;
        let all: BTreeMap<u32, Problem> = causes
            .map(|cause| (cause, problem(Health::Red, -600)))
            .collect();
        assert_eq!(notices.due(&all, call, at(0)).len(), MOST);
        assert_eq!(notices.due(&all, call, at(59)).len(), 0);
        assert_eq!(notices.due(&all, call, at(60)).len(), MOST);
        assert_eq!(notices.due(&all, call, at(120)).len(), 3);
    }

    #[test]
    fn nobody_is_called_for_what_has_no_call() {
        assert_eq!(told(1000, &[Some((Health::Red, 0)); 5]), []);
    }

    #[test]
    fn a_notice_says_what_to_do_or_that_it_is_over() {
        let mut notice = Notice {
            cause: "twin",
            health: Some(Health::Red),
            since: at(0),
            text: "two of them".to_owned(),
            remedy: "stop one".to_owned(),
        };
        let told = "vali: RED, twin: two of them (since 2027-01-15 08:00:00 UTC)";
        assert_eq!(
            notice.sentence("vali"),
            format!("{told}\nWhat to do: stop one")
        );
        notice.health = None;
        notice.remedy.clear();
        assert_eq!(notice.sentence("vali"), told.replace("RED", "recovered"));
    }
}
