//! Attribution: who pays for what went wrong with a piece of work, who waits, and that work ends.
//!
//! A worker that dies, hangs or runs out of memory may do so because of the model in its hands or
//! because of the machine, and no number of deaths in a row tells which. So a death counts against
//! a model only once the same kind of work, begun after it, went through on another; a model with
//! `STRIKES` that count is the reason, and pays. An outage of the machine counts once at most,
//! however long it is. Where nothing goes through, and not when it is tried once more either,
//! everybody waits: the step is postponed, and the other competitions have their turns, whose work
//! counts as well.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    fmt,
    future::Future,
    time::Duration,
};

use futures::{StreamExt, stream::FuturesUnordered};
use model::{Fault as EvalFault, MachineFault, MachineFaultKind};

use subnet::Fault;

/// A model that brings down this many workers while others are well is itself the reason.
pub(super) const STRIKES: usize = 3;

/// The kinds of work that strikes are counted for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Work {
    Tokenize,
    Evaluate,
}

impl Work {
    /// Begins the names of all such work.
    pub(super) const fn prefix(self) -> &'static str {
        match self {
            Self::Tokenize => "tokenize ",
            Self::Evaluate => "evaluate ",
        }
    }

    /// Returns the name of such work on one subject.
    pub(super) fn on(self, subject: &impl fmt::Display) -> String {
        format!("{}{subject}", self.prefix())
    }
}

/// Returns the subject of work by its name; older names are their subject.
pub fn subject(name: &str) -> &str {
    name.split_once(' ').map_or(name, |(_, subject)| subject)
}

/// What ends work before it is done.
#[derive(Debug)]
pub(super) enum Halt {
    /// It is tried again later; what is done is kept.
    Postponed(Fault),
    /// The samples can't be used by anybody: others are needed.
    Unusable(Fault),
}

impl From<Fault> for Halt {
    fn from(fault: Fault) -> Self {
        Self::Postponed(fault)
    }
}

/// What kept one try from its result.
#[derive(Debug)]
pub(super) enum Trouble {
    /// What the worker said, or that it was lost.
    Worker(EvalFault),
    /// It is nobody's doing that is being worked on.
    Ours(Fault),
}

/// What attribution asks of those who do the work and remember strikes.
pub(super) trait Court<K> {
    type Found;

    /// Does the work on one subject; `next` comes after it, and may be prepared.
    fn attempt(
        &self,
        subject: K,
        next: Option<K>,
    ) -> impl Future<Output = Result<Self::Found, Trouble>>;

    /// Fails if our copy of the subject is not what was verified.
    fn judge_copy(
        &self,
        subject: K,
        found: &impl fmt::Display,
    ) -> impl Future<Output = Result<(), Fault>>;

    /// Remembers that the subject's worker was lost.
    fn suspect(&self, subject: K, fault: &MachineFault) -> Result<(), Fault>;

    /// Remembers that the work went through on the subject: what others are suspected of counts
    /// against them now, but for those whose worker was lost after this work had begun.
    fn passed(&self, subject: K, unproven: &[K]) -> Result<(), Fault>;

    /// Returns how many lost workers count against the subject.
    fn strikes(&self, subject: K) -> usize;
}

/// A subject whose worker was lost.
#[derive(Debug)]
struct Suspect<K> {
    subject: K,
    fault: MachineFault,
    /// When it was lost, see [`Docket::now`].
    lost_at: u64,
}

/// The subjects of the work, by how it stands with them.
#[derive(Debug)]
pub(super) struct Docket<K> {
    waiting: VecDeque<K>,
    /// Those whose worker was lost since the work went through on any.
    suspects: Vec<Suspect<K>>,
    /// Those of them who were tried once more because the work had gone through on nobody.
    retried: BTreeSet<K>,
    /// Counts tries begun and workers lost.
    now: u64,
    /// One on which it went through, in this round or before.
    control: Option<K>,
}

impl<K: Copy + Ord> Docket<K> {
    /// Takes those still to be worked on, in order, and one on which the work went through before.
    pub(super) fn new(waiting: impl IntoIterator<Item = K>, control: Option<K>) -> Self {
        Self {
            waiting: waiting.into_iter().collect(),
            suspects: Vec::new(),
            retried: BTreeSet::new(),
            now: 0,
            control,
        }
    }

    /// Has suspects tried once more; returns whether there are any. One worker that was killed
    /// must not cost a step its turn. What hangs would hang as long again.
    fn retry(&mut self) -> bool {
        let retried = &mut self.retried;
        let is_due = |suspect: &mut Suspect<K>| {
            suspect.fault.kind != MachineFaultKind::Hung && retried.insert(suspect.subject)
        };
        let due = self.suspects.extract_if(.., is_due);
        let before = self.waiting.len();
        self.waiting.extend(due.map(|suspect| suspect.subject));
        self.waiting.len() > before
    }

    fn begin(&mut self, as_control: bool) -> Begun {
        self.now += 1;
        Begun {
            at: self.now,
            as_control,
        }
    }

    fn lose(&mut self, subject: K, fault: MachineFault) {
        self.now += 1;
        let lost_at = self.now;
        self.suspects.push(Suspect {
            subject,
            fault,
            lost_at,
        });
    }
}

/// When a try began, see [`Docket::now`], and what for.
#[derive(Debug, Clone, Copy)]
struct Begun {
    at: u64,
    /// Only to see whether the machine is well.
    as_control: bool,
}

/// Works on every subject of a docket, `width` at a time.
pub(super) async fn settle<K: Copy + Ord, C: Court<K>>(
    court: &C,
    mut docket: Docket<K>,
    width: usize,
    mut settled: impl FnMut(K),
) -> Result<BTreeMap<K, Result<C::Found, Fault>>, Halt> {
    let mut verdicts = BTreeMap::new();
    let mut running = FuturesUnordered::new();
    let attempt = |subject: K, next: Option<K>, begun: Begun| async move {
        (subject, begun, court.attempt(subject, next).await)
    };
    loop {
        while running.len() < width
            && let Some(subject) = docket.waiting.pop_front()
        {
            // A model under suspicion is neither prepared beside another nor the other way round:
            // whose doing a death is must be plain.
            let is_clean = |subject: &&K| court.strikes(**subject) == 0;
            let next = docket.waiting.front().filter(is_clean).copied();
            let next = next.filter(|_| is_clean(&&subject));
            running.push(attempt(subject, next, docket.begin(false)));
        }
        if running.is_empty() {
            if docket.suspects.is_empty() {
                return Ok(verdicts);
            }
            let Some(control) = docket.control else {
                if docket.retry() {
                    continue;
                }
                conclude(court, &mut docket, &mut verdicts, &mut settled).await?;
                continue;
            };
            running.push(attempt(control, None, docket.begin(true)));
        }
        let Some((subject, begun, tried)) = running.next().await else {
            continue;
        };
        shared::notify::watchdog();
        let fault = match tried {
            Ok(found) => {
                let suspects = std::mem::take(&mut docket.suspects);
                let (proven, unproven): (Vec<_>, Vec<_>) = suspects
                    .into_iter()
                    .partition(|suspect| suspect.lost_at < begun.at);
                docket.suspects = unproven;
                let unproven: Vec<K> = docket.suspects.iter().map(|s| s.subject).collect();
                court.passed(subject, &unproven)?;
                docket.control = Some(subject);
                if verdicts.insert(subject, Ok(found)).is_none() && !begun.as_control {
                    settled(subject);
                }
                for Suspect {
                    subject: suspect,
                    fault,
                    ..
                } in proven
                {
                    if court.strikes(suspect) < STRIKES {
                        docket.waiting.push_back(suspect);
                    } else {
                        verdicts.insert(suspect, Err(convict(court, suspect, &fault).await?));
                        settled(suspect);
                    }
                }
                continue;
            }
            Err(Trouble::Ours(fault)) => return Err(fault.into()),
            Err(Trouble::Worker(EvalFault::Model(fault))) => {
                court.judge_copy(subject, &fault).await?;
                verdicts.insert(subject, Err(Fault::model(fault)));
                settled(subject);
                continue;
            }
            Err(Trouble::Worker(EvalFault::Machine(fault))) => fault,
        };
        if fault.kind == MachineFaultKind::TooLarge {
            return Err(Halt::Unusable(Fault::machine(fault)));
        }
        if !fault.kind.may_be_provoked() {
            court.judge_copy(subject, &fault).await?;
            return Err(Fault::machine(fault).into());
        }
        court.suspect(subject, &fault)?;
        if begun.as_control {
            return Err(Fault::machine(format_args!(
                "what went through before fails as well: {fault}"
            ))
            .into());
        }
        docket.lose(subject, fault);
    }
}

/// Ends work that went through on nobody here: those pay who have enough strikes from elsewhere;
/// the others wait.
async fn conclude<K: Copy + Ord, C: Court<K>>(
    court: &C,
    docket: &mut Docket<K>,
    verdicts: &mut BTreeMap<K, Result<C::Found, Fault>>,
    settled: &mut impl FnMut(K),
) -> Result<(), Halt> {
    let mut waits = None;
    for Suspect {
        subject: suspect,
        fault,
        ..
    } in std::mem::take(&mut docket.suspects)
    {
        if court.strikes(suspect) < STRIKES {
            waits = waits.or(Some(fault));
            continue;
        }
        verdicts.insert(suspect, Err(convict(court, suspect, &fault).await?));
        settled(suspect);
    }
    match waits {
        None => Ok(()),
        Some(fault) => Err(Fault::machine(fault).into()),
    }
}

/// Returns what a model pays for, once our copy of it is seen to be what was verified.
async fn convict<K: Copy, C: Court<K>>(
    court: &C,
    suspect: K,
    fault: &MachineFault,
) -> Result<Fault, Fault> {
    court.judge_copy(suspect, fault).await?;
    let strikes = court.strikes(suspect);
    Ok(Fault::model(format_args!(
        "it brought down {strikes} workers while others were well: {fault}"
    )))
}

/// The least time that one model has.
const LEAST_SHARE: Duration = Duration::from_secs(30);

/// Divides the time of a step among its models by their sizes, `width` of which are worked on at
/// once: one that is slow for its size takes nothing from the others.
pub(super) fn shares<K: Copy + Ord>(
    sizes: &BTreeMap<K, u64>,
    limit: Duration,
    width: usize,
) -> BTreeMap<K, Duration> {
    let mean = sizes.values().map(|size| *size as f64).sum::<f64>() / sizes.len().max(1) as f64;
    // What every model costs, however small it is.
    let weigh = |size: u64| (size as f64).max(mean / 4.0).max(1.0);
    let total: f64 = sizes.values().map(|size| weigh(*size)).sum();
    let time = limit.as_secs_f64() * width.max(1) as f64;
    let share = |size: u64| {
        let share = Duration::from_secs_f64(time * weigh(size) / total);
        share.max(LEAST_SHARE).min(limit)
    };
    sizes
        .iter()
        .map(|(key, size)| (*key, share(*size)))
        .collect()
}

#[cfg(test)]
mod tests;
