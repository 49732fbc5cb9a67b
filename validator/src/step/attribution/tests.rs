use std::{cell::RefCell, collections::BTreeSet};

use model::ModelFaultKind;
use proptest::prelude::*;
use subnet::{FaultKind, Hotkey, Netuid};

use super::*;
use crate::state::{Identity, State};

/// What is true of a model, which nobody but the test knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Nature {
    Good,
    /// Its worker says what is wrong with it.
    Refused,
    /// It ends its worker, hangs it or eats its memory.
    Hostile(MachineFaultKind),
}

/// Workers on a machine that fails at times, and a state that remembers.
struct Machine {
    natures: Vec<Nature>,
    /// Tries, counted over all rounds, in which whatever is tried fails.
    outages: Vec<std::ops::Range<usize>>,
    tries: RefCell<usize>,
    by_subject: RefCell<Vec<usize>>,
    prepared: RefCell<BTreeSet<usize>>,
    state: RefCell<State>,
}

const WORK: Work = Work::Evaluate;

impl Machine {
    fn new(natures: Vec<Nature>, outages: Vec<std::ops::Range<usize>>) -> Self {
        let identity = Identity {
            netuid: Netuid(6),
            hotkey: Hotkey([0; 32]),
            genesis: String::new(),
        };
        Self {
            by_subject: RefCell::new(vec![0; natures.len()]),
            natures,
            outages,
            tries: RefCell::new(0),
            prepared: RefCell::default(),
            state: RefCell::new(State::new(identity)),
        }
    }

    fn round(
        &self,
        waiting: &[usize],
        control: Option<usize>,
        width: usize,
    ) -> Result<BTreeMap<usize, Result<(), Fault>>, Halt> {
        let docket = Docket::new(waiting.iter().copied(), control);
        futures::executor::block_on(settle(self, docket, width, |_| ()))
    }
}

impl Court<usize> for Machine {
    type Found = ();

    async fn attempt(&self, subject: usize, next: Option<usize>) -> Result<(), Trouble> {
        let now = *self.tries.borrow();
        *self.tries.borrow_mut() += 1;
        self.by_subject.borrow_mut()[subject] += 1;
        self.prepared.borrow_mut().extend(next);
        let machine = |kind| Err(Trouble::Worker(EvalFault::machine(kind, "lost")));
        if self.outages.iter().any(|outage| outage.contains(&now)) {
            return machine(MachineFaultKind::Crashed);
        }
        match self.natures[subject] {
            Nature::Good => Ok(()),
            Nature::Refused => Err(Trouble::Worker(EvalFault::model(
                ModelFaultKind::Weights,
                "bad",
            ))),
            Nature::Hostile(kind) => machine(kind),
        }
    }

    async fn judge_copy(&self, _: usize, _: &impl fmt::Display) -> Result<(), Fault> {
        Ok(())
    }

    fn suspect(&self, subject: usize, fault: &MachineFault) -> Result<(), Fault> {
        let mut state = self.state.borrow_mut();
        state.suspects.insert(WORK.on(&subject), fault.to_string());
        Ok(())
    }

    fn passed(&self, subject: usize, unproven: &[usize]) -> Result<(), Fault> {
        let name = WORK.on(&subject);
        let unproven = unproven.iter().map(|other| WORK.on(other)).collect();
        let mut state = self.state.borrow_mut();
        state.went_through(WORK.prefix(), &name, &unproven);
        Ok(())
    }

    fn strikes(&self, subject: usize) -> usize {
        let state = self.state.borrow();
        state.strikes.get(&WORK.on(&subject)).map_or(0, Vec::len)
    }
}

fn natures() -> impl Strategy<Value = Vec<Nature>> {
    let hostile = prop_oneof![
        Just(MachineFaultKind::Crashed),
        Just(MachineFaultKind::Hung),
        Just(MachineFaultKind::OutOfMemory),
        Just(MachineFaultKind::Bug),
    ];
    let nature = prop_oneof![
        3 => Just(Nature::Good),
        1 => Just(Nature::Refused),
        2 => hostile.prop_map(Nature::Hostile),
    ];
    prop::collection::vec(nature, 1..12)
}

proptest! {
    #[test]
    fn on_a_sound_machine_one_round_settles_all(natures in natures(), width in 1usize..4) {
        let some_good = natures.contains(&Nature::Good);
        let machine = Machine::new(natures.clone(), vec![]);
        let all: Vec<usize> = (0..natures.len()).collect();
        let settled = machine.round(&all, None, width);
        let hostile = natures.iter().any(|nature| matches!(nature, Nature::Hostile(_)));
        if hostile && !some_good {
            // Nobody can tell the machine from the models: all wait, and soon.
            prop_assert!(matches!(settled, Err(Halt::Postponed(_))));
            prop_assert!(*machine.tries.borrow() <= 2 * natures.len());
            return Ok(());
        }
        let verdicts = settled.unwrap();
        prop_assert_eq!(verdicts.len(), natures.len());
        for (subject, verdict) in verdicts {
            let paid = verdict.err().map(|fault| fault.kind);
            let is_good = natures[subject] == Nature::Good;
            prop_assert_eq!(paid, (!is_good).then_some(FaultKind::Model));
        }
        let tries = machine.by_subject.borrow();
        for (subject, nature) in natures.iter().enumerate() {
            match nature {
                Nature::Hostile(_) => prop_assert_eq!(tries[subject], STRIKES),
                Nature::Refused => prop_assert_eq!(tries[subject], 1),
                // Once for itself, and to see that the machine is well.
                Nature::Good => prop_assert!(tries[subject] <= 1 + STRIKES),
            }
        }
    }

    #[test]
    fn outages_cost_nobody_and_in_the_end_all_is_settled(
        natures in natures(),
        width in 1usize..4,
        outages in prop::collection::vec((0usize..60, 1usize..30), 0..STRIKES),
    ) {
        let outages = outages.into_iter().map(|(start, length)| start..start + length);
        let machine = Machine::new(natures.clone(), outages.collect());
        let mut waiting: Vec<usize> = (0..natures.len()).collect();
        let mut control = None;
        let mut rounds = 0;
        while !waiting.is_empty() && rounds < 200 {
            rounds += 1;
            let settled = machine.round(&waiting, control, width);
            let Ok(verdicts) = settled else {
                continue;
            };
            for (subject, verdict) in &verdicts {
                match (natures[*subject], verdict) {
                    (Nature::Good, verdict) => prop_assert!(verdict.is_ok(), "{subject}: {verdict:?}"),
                    (_, verdict) => prop_assert!(verdict.is_err()),
                }
                if verdict.is_ok() {
                    control = Some(*subject);
                }
            }
            waiting.retain(|subject| !verdicts.contains_key(subject));
        }
        let hostile = natures.iter().any(|nature| matches!(nature, Nature::Hostile(_)));
        if natures.contains(&Nature::Good) || !hostile {
            prop_assert!(waiting.is_empty(), "{waiting:?} after {rounds} rounds");
        } else {
            prop_assert!(!waiting.is_empty());
        }
    }

    #[test]
    fn shares_fill_the_time_and_grow_with_size(
        sizes in prop::collection::vec(1u64..9_000_000_000, 1..40),
        width in 1usize..9,
    ) {
        let limit = Duration::from_hours(10);
        let sizes: BTreeMap<usize, u64> = sizes.into_iter().enumerate().collect();
        let shares = shares(&sizes, limit, width);
        let total: f64 = shares.values().map(Duration::as_secs_f64).sum();
        prop_assert!(total <= limit.as_secs_f64() * width as f64 * 1.001 + 30.0 * 40.0);
        for (a, b) in sizes.keys().zip(sizes.keys().skip(1)) {
            if sizes[a] <= sizes[b] {
                prop_assert!(shares[a] <= shares[b]);
            }
        }
        prop_assert!(shares.values().all(|share| (LEAST_SHARE..=limit).contains(share)));
    }
}

/// A competition of one model that ends every worker: what goes through in another competition
/// counts against it, and nothing else does.
#[test]
fn one_alone_waits_until_others_go_through_elsewhere() {
    let machine = Machine::new(
        vec![Nature::Hostile(MachineFaultKind::Crashed), Nature::Good],
        vec![],
    );
    for _ in 0..STRIKES {
        for _ in 0..5 {
            assert!(matches!(
                machine.round(&[0], None, 1),
                Err(Halt::Postponed(_))
            ));
        }
        machine.round(&[1], None, 1).unwrap();
    }
    let verdicts = machine.round(&[0], None, 1).unwrap();
    let fault = verdicts[&0].as_ref().unwrap_err();
    assert_eq!(fault.kind, FaultKind::Model);
    assert!(fault.to_string().contains("3 workers"), "{fault}");
}

/// As a tokenizer that all models of a competition share.
#[test]
fn one_worker_that_is_lost_costs_one_alone_no_step() {
    for (subjects, outage) in [(1, 0..1), (3, 0..3)] {
        let machine = Machine::new(vec![Nature::Good; subjects], vec![outage]);
        let all: Vec<usize> = (0..subjects).collect();
        let verdicts = machine.round(&all, None, 1).unwrap();
        assert!(verdicts.values().all(Result::is_ok), "{verdicts:?}");
    }
}

#[test]
fn what_hangs_is_not_waited_for_again_at_once() {
    let hangs = Nature::Hostile(MachineFaultKind::Hung);
    let machine = Machine::new(vec![hangs], vec![]);
    assert!(matches!(
        machine.round(&[0], None, 1),
        Err(Halt::Postponed(_))
    ));
    assert_eq!(*machine.tries.borrow(), 1);
}

#[test]
fn no_other_model_is_prepared_beside_one_under_suspicion() {
    let hostile = Nature::Hostile(MachineFaultKind::Crashed);
    let machine = Machine::new(vec![Nature::Good, hostile, Nature::Good], vec![]);
    machine.round(&[0, 1, 2], None, 1).unwrap();
    assert_eq!(*machine.prepared.borrow(), [1, 2].into());
    machine.prepared.borrow_mut().clear();
    let mut state = machine.state.borrow_mut();
    state.strikes.insert(WORK.on(&1), vec!["lost".to_owned()]);
    drop(state);
    machine.round(&[0, 1, 2], None, 1).unwrap();
    assert!(!machine.prepared.borrow().contains(&1));
}

#[test]
fn samples_too_large_for_a_request_are_nobodys_fault() {
    let too_large = Nature::Hostile(MachineFaultKind::TooLarge);
    let machine = Machine::new(vec![Nature::Good, too_large], vec![]);
    assert!(matches!(
        machine.round(&[0, 1], None, 1),
        Err(Halt::Unusable(_))
    ));
}
