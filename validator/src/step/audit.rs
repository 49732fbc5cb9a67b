//! Whether a record that somebody else published is consistent: rules, copies, wins and weights, all computed again
//! from what it says, bit for bit.

use std::collections::BTreeMap;

use super::scoring;
use report::{
    StepRecord,
    audit::{DeviationKind, StepAudit},
    step_record::{ModelRow, Outcome, Rules},
};
use samples::{Sample, SampleSet, record::Record};
use score::duplicates::{self, Claim};
use subnet::{Parameters, Real, Uid};

/// A subnet has at most this many uids by far; each pair of models costs time.
const MAX_MODELS: usize = 4096;

/// Compares what a record says with what follows from it. Returns whether it is worth computing its losses again.
pub fn judge(record: &StepRecord, parameters: &Parameters, audit: &mut StepAudit) -> bool {
    let evaluated = |row: &&ModelRow| row.outcome == Outcome::Evaluated;
    audit.block = Some(record.block);
    audit.models = record.models.values().filter(evaluated).count();
    let (models, uids) = (record.models.len(), record.weights_before.len());
    if models > MAX_MODELS || uids > usize::from(u16::MAX) + 1 {
        let text = format!("it has {models} models and weights of {uids} uids, more than a subnet");
        audit.deviates(DeviationKind::Record, None, text);
        return false;
    }
    let before = audit.deviations.len();
    rules(record, parameters, audit);
    shapes(record, audit);
    copies(record, audit);
    if audit.deviations.len() > before {
        // Scores of such a record follow from nothing.
        return false;
    }
    scores(record, audit);
    for (uid, row) in &record.models {
        if let Outcome::Failed(fault) = &row.outcome {
            audit.lacks(Some(*uid), format_args!("said to have failed: {fault}"));
        }
    }
    audit.deviations.len() == before
}

/// Compares a sample set with its record: the same ids, and each id that of its turns.
pub fn judge_samples(record: &StepRecord, set: &SampleSet, audit: &mut StepAudit) -> bool {
    let mut wrong = |text: String| audit.deviates(DeviationKind::Samples, None, text);
    if set.digest != record.samples.digest {
        wrong("the sample set is another than the record's".to_owned());
        return false;
    }
    let ids = set.samples.iter().map(|sample| &sample.id);
    if !ids.eq(record.samples.ids.iter()) {
        wrong("the ids in the record are not those of the sample set".to_owned());
        return false;
    }
    let id_of = |sample: &Sample| {
        let record = Record {
            conversation: sample.conversation.clone(),
            origin: String::new(),
            at: None,
        };
        record.id()
    };
    let mut numbered = set.samples.iter().enumerate();
    match numbered.find(|(_, sample)| sample.id != id_of(sample)) {
        Some((index, _)) => {
            wrong(format!(
                "the turns of sample {index} are not those of its id"
            ));
            false
        }
        None => true,
    }
}

fn rules(record: &StepRecord, parameters: &Parameters, audit: &mut StepAudit) {
    let mut wrong = |text: String| audit.deviates(DeviationKind::Rules, None, text);
    let id = &record.competition;
    let Some(competition) = parameters.competition_at(record.block, id) else {
        return wrong(format!("the subnet file has no competition {id}"));
    };
    let competitions = parameters.competitions_at(record.block).len();
    let ours = Rules::of(parameters, competitions, competition.reward_share);
    let theirs = &record.rules;
    if *theirs == ours {
        return;
    }
    let json = |rules: &Rules| serde_json::json!(rules);
    let (theirs, ours) = (json(theirs), json(&ours));
    for (name, value) in ours.as_object().into_iter().flatten() {
        let found = theirs.get(name).cloned().unwrap_or_default();
        if found != *value {
            wrong(format!("{name} is {found}, {value} in the subnet file"));
        }
    }
}

/// Whether each model has as many losses as its outcome asks for.
fn shapes(record: &StepRecord, audit: &mut StepAudit) {
    let samples = record.samples.ids.len();
    for (uid, row) in &record.models {
        let losses = row.losses.len();
        let fits = match &row.outcome {
            Outcome::Evaluated => losses == samples,
            Outcome::CopyOf(_) => losses == 0,
            Outcome::Failed(_) => losses == 0 || losses == samples,
        };
        if !fits {
            let text = format!("{losses} losses of {samples} samples");
            audit.deviates(DeviationKind::Score, Some(*uid), text);
        }
    }
}

/// Whether those are copies, and only those, whose content an older model has.
fn copies(record: &StepRecord, audit: &mut StepAudit) {
    let claims: BTreeMap<Uid, Claim> = record
        .models
        .iter()
        .map(|(uid, row)| {
            let claim = Claim {
                block: row.block,
                content: row.content.clone(),
            };
            (*uid, claim)
        })
        .collect();
    let copies = duplicates::copies(&claims);
    for (uid, row) in &record.models {
        let said = match &row.outcome {
            Outcome::CopyOf(original) => Some(original),
            Outcome::Evaluated | Outcome::Failed(_) => None,
        };
        if let Some(original) = said
            && !record.models.contains_key(original)
        {
            // It was one when the step began; a uid that changes hands meanwhile is left out of the record.
            audit.lacks(
                Some(*uid),
                format_args!("its original, uid {original}, left during the step"),
            );
            continue;
        }
        let follows = copies.get(uid);
        let text = match (said, follows) {
            (said, follows) if said == follows => continue,
            (Some(original), _) => format!("said to be a copy of uid {original}, and is not"),
            (None, Some(original)) => format!("is a copy of uid {original}, and raced"),
            (None, None) => continue,
        };
        audit.deviates(DeviationKind::Score, Some(*uid), text);
    }
}

/// Whether wins, weights and who stays follow from the losses.
fn scores(record: &StepRecord, audit: &mut StepAudit) {
    let mut again = record.clone();
    scoring::score(&mut again);
    for ((uid, said), follows) in record.models.iter().zip(again.models.values()) {
        let mut wrong = |what: &str, said: String, follows: String| {
            let text = format!("{what} {said}, {follows} follows from the losses");
            audit.deviates(DeviationKind::Score, Some(*uid), text);
        };
        let wins = |row: &ModelRow| format!("{}/{}", row.score.wins, row.score.matches);
        if wins(said) != wins(follows) {
            wrong("wins", wins(said), wins(follows));
        } else if Real(said.score.win_rate) != Real(follows.score.win_rate) {
            let rate = |row: &ModelRow| row.score.win_rate.to_string();
            wrong("win rate", rate(said), rate(follows));
        }
        for (what, said, follows) in [
            ("step weight", said.step_weight, follows.step_weight),
            ("weight", said.weight, follows.weight),
        ] {
            if said != follows {
                wrong(what, said.to_string(), follows.to_string());
            }
        }
    }
    let mut wrong = |text: &str| audit.deviates(DeviationKind::Score, None, text);
    if record.kept != again.kept {
        wrong("who stays for the next step does not follow from the wins");
    }
    if record.weights_after != again.weights_after {
        wrong("the weights after the step do not follow from those before it");
    }
}
