//! What chain, tracker and store say, joined to the field of a step: pure, so that every case of it
//! can be tested.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
};

use model::ContentHash;

use super::{Candidate, Field};
use crate::state::State;
use chain::RawCommitment;
use models::{
    Tracker,
    tracker::{Outcome, TrackerEntry},
};
use report::step_record::Refusal;
use subnet::{BlockNumber, CompetitionId, FaultKind, Hotkey, Uid};

/// What chain, tracker and store have for the next step of a competition.
#[derive(Debug, Clone, Default)]
pub struct Joined {
    /// The models that are there.
    pub field: Field,
    /// The members of the pool that are still on their way to the disk.
    pub awaited: BTreeSet<Hotkey>,
}

/// Returns the contents that a competition's next step may evaluate: they are to be held on disk
/// before the field is joined.
pub fn contents(
    commitments: &[RawCommitment],
    tracker: &Tracker,
    competition: &CompetitionId,
) -> BTreeSet<ContentHash> {
    verified(commitments, tracker, competition)
        .map(|verified| verified.content)
        .collect()
}

/// A commitment on the chain whose model was verified.
struct Verified<'t> {
    uid: Uid,
    hotkey: Hotkey,
    entry: &'t TrackerEntry,
    content: ContentHash,
    parameters: u64,
}

fn verified<'t>(
    commitments: &[RawCommitment],
    tracker: &'t Tracker,
    competition: &CompetitionId,
) -> impl Iterator<Item = Verified<'t>> {
    commitments.iter().filter_map(move |commitment| {
        let entry = tracker.get(&commitment.hotkey)?;
        let Outcome::Verified {
            content_hash,
            parameters,
        } = entry.outcome
        else {
            return None;
        };
        (entry.model_id.competition_or_old() == *competition).then_some(Verified {
            uid: commitment.uid,
            hotkey: commitment.hotkey,
            entry,
            content: content_hash,
            parameters,
        })
    })
}

/// Returns whether a member of the pool commits to a model that may still arrive: it is not
/// stored, and neither it nor its repository was refused.
fn is_awaited(
    member: (Uid, Hotkey),
    commitments: &[RawCommitment],
    tracker: &Tracker,
    stored: &BTreeMap<Uid, Candidate>,
) -> bool {
    let (uid, hotkey) = member;
    let commits = commitments
        .iter()
        .any(|commitment| commitment.uid == uid && commitment.hotkey == hotkey);
    let refused = match tracker.get(&hotkey).map(|entry| &entry.outcome) {
        Some(Outcome::Refused { .. }) => true,
        Some(Outcome::Waiting { fault, .. }) => fault.kind == FaultKind::Model,
        Some(Outcome::Verified { .. }) | None => false,
    };
    commits && !refused && !stored.contains_key(&uid)
}

/// Returns the refusals of a competition that no step has reported yet; `reported` has the block
/// of the last commitment reported of each hotkey.
pub fn refusals(
    tracker: &Tracker,
    competition: &CompetitionId,
    reported: &BTreeMap<Hotkey, BlockNumber>,
) -> Vec<Refusal> {
    let entries = tracker.entries().iter().filter_map(|(hotkey, entry)| {
        let reason = match &entry.outcome {
            Outcome::Refused { reason } => reason.clone(),
            Outcome::Waiting { fault, .. } if fault.kind == FaultKind::Model => fault.to_string(),
            _ => return None,
        };
        let news = reported.get(hotkey) != Some(&entry.block);
        let ours = entry.model_id.competition_or_old() == *competition;
        (news && ours).then(|| Refusal {
            uid: entry.uid,
            hotkey: *hotkey,
            block: entry.block,
            model: entry.model_id.to_string(),
            reason,
        })
    });
    entries.collect()
}

/// Joins the commitments on the chain, what came of them and what is stored (where each content lies) to
/// the field of a competition's next step.
pub fn join(
    commitments: &[RawCommitment],
    tracker: &Tracker,
    stored: &BTreeMap<ContentHash, PathBuf>,
    competition: &CompetitionId,
    state: &State,
) -> Joined {
    let candidates: BTreeMap<Uid, Candidate> = verified(commitments, tracker, competition)
        .filter_map(|verified| {
            let candidate = Candidate {
                hotkey: verified.hotkey,
                block: verified.entry.block,
                model: verified.entry.model_id.clone(),
                content: verified.content,
                directory: stored.get(&verified.content)?.clone(),
                parameters: verified.parameters,
            };
            Some((verified.uid, candidate))
        })
        .collect();
    let pool = state.pools.get(competition).into_iter().flatten();
    let awaited = pool
        .filter(|(uid, hotkey)| is_awaited((**uid, **hotkey), commitments, tracker, &candidates));
    Joined {
        awaited: awaited.map(|(_, hotkey)| *hotkey).collect(),
        field: Field::of(candidates, competition, state),
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use subnet::{Fault, ModelId, Netuid};

    use super::*;
    use crate::state::{Evaluated, Identity};

    const L3: &str = "l3";

    fn state() -> State {
        State::new(Identity {
            netuid: Netuid(6),
            hotkey: Hotkey([0; 32]),
            genesis: "0xabc".into(),
        })
    }

    fn id() -> CompetitionId {
        CompetitionId::from(L3)
    }

    fn model(competition: &str) -> ModelId {
        let model = format!("a:b:{}:x:{competition}", "0".repeat(40));
        model.parse().unwrap()
    }

    fn content(n: u8) -> ContentHash {
        ContentHash::from_digest([n; 32])
    }

    /// The commitment of a uid, made in the block of the same number.
    fn commitment(uid: u8) -> RawCommitment {
        RawCommitment {
            hotkey: Hotkey([uid; 32]),
            uid: Uid(uid.into()),
            block: uid.into(),
            payload: String::new(),
            model: Ok(model(L3)),
        }
    }

    fn verified_as(n: u8) -> Outcome {
        Outcome::Verified {
            content_hash: content(n),
            parameters: 9,
        }
    }

    fn waiting(fault: Fault) -> Outcome {
        Outcome::Waiting {
            fault,
            at: Timestamp::UNIX_EPOCH,
            times: 1,
        }
    }

    fn refused() -> Outcome {
        Outcome::Refused {
            reason: "a lie".into(),
        }
    }

    fn entry(uid: u8, competition: &str, outcome: Outcome) -> (Hotkey, TrackerEntry) {
        let entry = TrackerEntry {
            uid: Uid(uid.into()),
            block: uid.into(),
            model_id: model(competition),
            looked_at: Timestamp::UNIX_EPOCH,
            seen_at: Timestamp::UNIX_EPOCH,
            outcome,
        };
        (Hotkey([uid; 32]), entry)
    }

    fn tracker<const N: usize>(entries: [(Hotkey, TrackerEntry); N]) -> Tracker {
        let entries = BTreeMap::from(entries);
        serde_json::from_value(serde_json::to_value(entries).unwrap()).unwrap()
    }

    fn stored(contents: &[u8]) -> BTreeMap<ContentHash, PathBuf> {
        let place = |n: &u8| (content(*n), PathBuf::from(n.to_string()));
        contents.iter().map(place).collect()
    }

    fn uids(field: &Field) -> Vec<u16> {
        field.candidates.keys().map(|uid| uid.0).collect()
    }

    #[test]
    fn only_what_is_committed_verified_and_stored_takes_part() {
        let commitments = [1, 2, 3, 4, 5].map(commitment);
        let tracker = tracker([
            entry(1, L3, verified_as(1)),
            entry(2, L3, verified_as(2)),
            entry(3, "s1", verified_as(3)),
            entry(4, L3, refused()),
            // Uid 5 was not looked at yet, and uid 6 is gone from the chain.
            entry(6, L3, verified_as(6)),
        ]);
        let wanted = contents(&commitments, &tracker, &id());
        assert_eq!(wanted, [content(1), content(2)].into());
        let joined = join(&commitments, &tracker, &stored(&[1, 3, 6]), &id(), &state());
        assert_eq!(uids(&joined.field), [1]);
        let candidate = &joined.field.candidates[&Uid(1)];
        assert_eq!(candidate.directory, PathBuf::from("1"));
        assert!(joined.awaited.is_empty(), "nobody is in the pool");
    }

    #[test]
    fn a_copy_counts_for_the_older_commitment() {
        let commitments = [2, 1].map(commitment);
        let tracker = tracker([entry(1, L3, verified_as(7)), entry(2, L3, verified_as(7))]);
        let joined = join(&commitments, &tracker, &stored(&[7]), &id(), &state());
        assert_eq!(joined.field.copies, [(Uid(2), Uid(1))].into());
        let originals: Vec<Uid> = joined.field.originals().map(|(uid, _)| uid).collect();
        assert_eq!(originals, [Uid(1)]);
    }

    #[test]
    fn old_commitments_take_part_only_from_the_pool() {
        let commitments = [1, 2, 3].map(commitment);
        let tracker = tracker([1, 2, 3].map(|n| entry(n, L3, verified_as(n))));
        let mut state = state();
        state.news_from = 3;
        state.pools.insert(id(), [(Uid(2), Hotkey([2; 32]))].into());
        let field = |state: &State| {
            let stored = stored(&[1, 2, 3]);
            join(&commitments, &tracker, &stored, &id(), state).field
        };
        assert_eq!(uids(&field(&state)), [2, 3]);
        assert!(field(&state).has_news(&state));
        let seen = Evaluated {
            hotkey: Hotkey([3; 32]),
            block: 3,
        };
        state.evaluated.insert(Uid(3), seen);
        assert_eq!(uids(&field(&state)), [2]);
        assert!(!field(&state).has_news(&state));
        // Another hotkey has the uid: the member of the pool is gone.
        state.pools.insert(id(), [(Uid(2), Hotkey([9; 32]))].into());
        assert!(uids(&field(&state)).is_empty());
    }

    #[test]
    fn a_member_of_the_pool_is_awaited_while_it_may_still_arrive() {
        let mut state = state();
        state.pools.insert(id(), [(Uid(1), Hotkey([1; 32]))].into());
        let awaited = |commitments: &[RawCommitment], outcome: Option<Outcome>, on_disk: &[u8]| {
            let tracker = match outcome {
                Some(outcome) => tracker([entry(1, L3, outcome)]),
                None => Tracker::default(),
            };
            let joined = join(commitments, &tracker, &stored(on_disk), &id(), &state);
            joined.awaited == [Hotkey([1; 32])].into()
        };
        let here = [commitment(1)];
        assert!(awaited(&here, None, &[]), "not looked at yet");
        assert!(
            awaited(&here, Some(verified_as(1)), &[]),
            "removed from the store"
        );
        assert!(!awaited(&here, Some(verified_as(1)), &[1]), "it is there");
        let away = waiting(Fault::outside("the hub is away"));
        assert!(awaited(&here, Some(away.clone()), &[]));
        let gone = waiting(Fault::model("no such repository"));
        assert!(!awaited(&here, Some(gone), &[]));
        assert!(!awaited(&here, Some(refused()), &[]));
        assert!(!awaited(&[], Some(away), &[]), "it left the chain");
    }

    #[test]
    fn a_refusal_is_reported_once_for_each_commitment() {
        let tracker = tracker([
            entry(1, L3, refused()),
            entry(2, L3, waiting(Fault::model("no such repository"))),
            entry(3, L3, waiting(Fault::outside("the hub is away"))),
            entry(4, "s1", refused()),
            entry(5, L3, verified_as(5)),
        ]);
        let told = |reported: &BTreeMap<Hotkey, BlockNumber>| -> Vec<u16> {
            let refusals = refusals(&tracker, &id(), reported);
            refusals.iter().map(|refusal| refusal.uid.0).collect()
        };
        assert_eq!(told(&BTreeMap::new()), [1, 2]);
        assert_eq!(told(&[(Hotkey([1; 32]), 1)].into()), [2]);
        assert_eq!(
            told(&[(Hotkey([1; 32]), 0)].into()),
            [1, 2],
            "a newer commitment"
        );
    }
}
