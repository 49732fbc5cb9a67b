//! Audits of records: whatever is changed in one is found, and an honest one holds.
#![expect(clippy::unwrap_used, reason = "a test's panic is its verdict")]

use std::collections::BTreeMap;

use proptest::prelude::*;
use report::{
    StepRecord,
    audit::{AuditReport, DeviationKind, MAX_DEVIATIONS, Recomputed, StepAudit, Verdict},
    step_record::{self, Engine, ModelRow, Outcome, Rules, Samples},
};
use samples::{Sample, SampleSet, record::Record};
use score::WinRow;
use serde_json::json;
use subnet::{CompetitionId, Fault, Hotkey, Netuid, Parameters, Real, Uid};
use validator::step::{audit, scoring};

const SAMPLES: usize = 6;

fn set() -> SampleSet {
    let samples = (0..SAMPLES).map(|n| {
        let record = Record::read(&json!({"prompt": format!("p{n}"), "response": "r"})).unwrap();
        Sample {
            id: record.id(),
            conversation: record.conversation,
            origin: String::new(),
        }
    });
    SampleSet::new(samples.collect(), vec![], 1)
}

/// A step of four models, a copy and one at fault, scored by the rules.
fn record(losses: &[Vec<f64>]) -> StepRecord {
    let parameters = Parameters::embedded();
    let block = 4_000_000;
    let competitions = parameters.competitions_at(block);
    let competition = &competitions[0];
    let row = |uid: u16, outcome, losses: Vec<f64>| ModelRow {
        hotkey: Hotkey([uid as u8; 32]),
        block: 100 + u64::from(uid),
        model: format!("n:m{uid}:c:h:l3"),
        content: format!("content {uid}"),
        parameters: 1,
        tokenizer: "t".into(),
        outcome,
        losses: losses.into_iter().map(Real).collect(),
        score: WinRow::default(),
        step_weight: Real(0.0),
        weight: Real(0.0),
        seconds: 0.0,
    };
    let mut models: BTreeMap<Uid, ModelRow> = (0..)
        .zip(losses)
        .map(|(uid, losses)| (Uid(uid), row(uid, Outcome::Evaluated, losses.clone())))
        .collect();
    let copy = ModelRow {
        content: "content 0".into(),
        ..row(20, Outcome::CopyOf(Uid(0)), vec![])
    };
    models.insert(Uid(20), copy);
    let fault = Outcome::Failed(Fault::model("its norms"));
    models.insert(Uid(21), row(21, fault, vec![f64::INFINITY; SAMPLES]));
    let set = set();
    let mut record = StepRecord {
        format: step_record::FORMAT,
        version: "test".into(),
        netuid: Netuid(6),
        hotkey: Hotkey([7; 32]),
        step: 5,
        competition: competition.id.clone(),
        block,
        block_hash: String::new(),
        started_at: jiff::Timestamp::UNIX_EPOCH,
        finished_at: jiff::Timestamp::UNIX_EPOCH,
        rules: Rules::of(&parameters, competitions.len(), competition.reward_share),
        samples: Samples {
            ids: set.samples.iter().map(|sample| sample.id.clone()).collect(),
            digest: set.digest,
            ..Samples::default()
        },
        engine: Engine::default(),
        sandbox: None,
        plans: BTreeMap::new(),
        models,
        refused: vec![],
        weights_before: vec![Real(0.01); 32],
        weights_after: vec![],
        kept: vec![],
        generated: BTreeMap::new(),
        receipt: None,
        timings: BTreeMap::new(),
    };
    scoring::score(&mut record);
    record
}

fn judged(record: &StepRecord) -> (bool, StepAudit) {
    // As it is published and read back.
    let text = serde_json::to_vec(record).unwrap();
    let record: StepRecord = serde_json::from_slice(&text).unwrap();
    let mut audit = StepAudit::new(record.step, record.competition.clone());
    let sound = audit::judge(&record, &Parameters::embedded(), &mut audit);
    (sound, audit)
}

#[track_caller]
fn finds(record: &StepRecord, kind: DeviationKind, uid: Option<u16>, text: &str) {
    let (sound, audit) = judged(record);
    let found = audit
        .deviations
        .iter()
        .any(|found| (found.kind, found.uid) == (kind, uid.map(Uid)) && found.text.contains(text));
    assert!(found && !sound, "{kind} {uid:?} {text}: {audit:#?}");
}

fn usual() -> StepRecord {
    let losses = |uid: u32| -> Vec<f64> {
        let loss = |sample: usize| 2.0 + (f64::from(uid) * 1.7 + sample as f64).sin();
        (0..SAMPLES).map(loss).collect()
    };
    record(&(0..4).map(losses).collect::<Vec<_>>())
}

fn changed(change: impl FnOnce(&mut StepRecord)) -> StepRecord {
    let mut record = usual();
    change(&mut record);
    record
}

fn row(record: &mut StepRecord, uid: u16) -> &mut ModelRow {
    record.models.get_mut(&Uid(uid)).unwrap()
}

proptest! {
    #[test]
    fn an_honest_record_holds_whatever_its_losses(
        losses in proptest::collection::vec(
            proptest::collection::vec(prop_oneof![
                8 => 0.0_f64..9.0, 1 => Just(f64::INFINITY), 1 => Just(f64::NAN)], SAMPLES), 1..6),
    ) {
        let (sound, audit) = judged(&record(&losses));
        prop_assert!(sound && audit.deviations.is_empty(), "{:?}", audit);
        prop_assert_eq!(audit.models, losses.len());
    }
}

#[expect(clippy::too_many_lines, reason = "one table")]
#[test]
fn whatever_does_not_follow_from_the_losses_is_named() {
    use DeviationKind::{Record, Rules, Score};
    finds(
        &changed(|step| row(step, 2).score.wins += 1),
        Score,
        Some(2),
        "follows from the losses",
    );
    finds(
        &changed(|step| row(step, 2).score.win_rate += 1e-12),
        Score,
        Some(2),
        "win rate",
    );
    finds(
        &changed(|step| row(step, 3).step_weight.0 *= 1.5),
        Score,
        Some(3),
        "step weight",
    );
    finds(
        &changed(|step| row(step, 3).weight.0 += 0.1),
        Score,
        Some(3),
        "weight",
    );
    finds(
        &changed(|step| step.weights_after[9] = Real(0.9)),
        Score,
        None,
        "weights after",
    );
    finds(&changed(|step| step.kept.clear()), Score, None, "who stays");
    // A loss that was changed changes wins.
    finds(
        &changed(|step| row(step, 1).losses.fill(Real(0.1))),
        Score,
        Some(1),
        "wins",
    );
    finds(
        &changed(|step| {
            row(step, 1).losses.pop();
        }),
        Score,
        Some(1),
        "5 losses of 6 samples",
    );
    finds(
        &changed(|step| row(step, 3).outcome = Outcome::CopyOf(Uid(0))),
        Score,
        Some(3),
        "losses of 6 samples",
    );
    finds(
        &changed(|step| {
            row(step, 3).outcome = Outcome::CopyOf(Uid(0));
            row(step, 3).losses.clear();
        }),
        Score,
        Some(3),
        "said to be a copy of uid 0, and is not",
    );
    let raced = |step: &mut StepRecord| row(step, 3).content = "content 1".into();
    finds(
        &changed(raced),
        Score,
        Some(3),
        "is a copy of uid 1, and raced",
    );
    finds(
        &changed(|step| step.rules.alpha = 0.25),
        Rules,
        None,
        "alpha is 0.25",
    );
    let unknown = |step: &mut StepRecord| step.competition = CompetitionId::from("x1");
    finds(&changed(unknown), Rules, None, "no competition x1");
    let crowd = |step: &mut StepRecord| {
        let one = row(step, 1).clone();
        step.models
            .extend((0..5000).map(|uid| (Uid(uid), one.clone())));
    };
    finds(&changed(crowd), Record, None, "5000 models");
    // A flood of deviations is counted.
    let flood = |step: &mut StepRecord| {
        let one = row(step, 1).clone();
        step.models
            .extend((100..300).map(|uid| (Uid(uid), one.clone())));
    };
    let (_, audit) = judged(&changed(flood));
    assert_eq!(
        (audit.deviations.len(), audit.more),
        (MAX_DEVIATIONS, 200 - MAX_DEVIATIONS)
    );
}

#[test]
fn what_could_not_be_looked_at_is_said() {
    let (sound, audit) = judged(&usual());
    assert!(sound);
    let gaps: Vec<String> = audit.gaps.into_iter().map(|gap| gap.reason).collect();
    assert_eq!(gaps.len(), 1, "{gaps:?}");
    assert!(gaps[0].contains("its norms"), "{gaps:?}");
    let mut left = usual();
    left.models.remove(&Uid(0));
    scoring::score(&mut left);
    let (sound, audit) = judged(&left);
    assert!(sound, "{audit:?}");
    assert!(audit.gaps[0].reason.contains("uid 0, left"), "{audit:?}");
}

#[test]
fn samples_are_those_of_the_record_and_their_ids_those_of_their_turns() {
    let record = usual();
    let judge = |set: &SampleSet| {
        let mut audit = StepAudit::new(5, record.competition.clone());
        let sound = audit::judge_samples(&record, set, &mut audit);
        assert_eq!(sound, audit.deviations.is_empty());
        audit.deviations.pop().map(|found| found.text)
    };
    assert_eq!(judge(&set()), None);
    let mut other = set();
    other.samples[2].conversation = other.samples[3].conversation.clone();
    let text = judge(&SampleSet::new(other.samples, vec![], 1)).unwrap();
    assert!(text.contains("turns of sample 2"), "{text}");
    let mut fewer = set();
    fewer.samples.pop();
    let text = judge(&SampleSet::new(fewer.samples, vec![], 1)).unwrap();
    assert!(text.contains("another than the record's"), "{text}");
}

#[test]
fn the_verdict_is_that_of_the_worst_step() {
    let computed = Recomputed {
        models: 2,
        loss: Real(0.0),
        mean: Real(0.0),
        weight: Real(0.0),
        same_ranking: true,
    };
    let step = |step: u64, recomputed| StepAudit {
        block: Some(1),
        recomputed,
        ..StepAudit::new(step, CompetitionId::from("l3"))
    };
    let verdict = |steps: &[StepAudit]| AuditReport::judge(steps, |step| step == 1);
    let holds = [step(1, Some(computed)), step(2, None)];
    assert_eq!(verdict(&holds), Verdict::Holds);
    assert_eq!(verdict(&[]), Verdict::Incomplete);
    let none = Recomputed {
        models: 0,
        ..computed
    };
    for incomplete in [
        step(1, None),
        step(1, Some(none)),
        StepAudit {
            block: None,
            ..step(2, None)
        },
    ] {
        assert_eq!(
            verdict(&[holds[0].clone(), incomplete]),
            Verdict::Incomplete
        );
    }
    let mut wrong = step(2, None);
    wrong.deviates(DeviationKind::Score, None, "x");
    assert_eq!(verdict(&[holds[0].clone(), wrong]), Verdict::Deviates);
}
