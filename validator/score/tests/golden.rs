//! The scoring rules against what the Python validator answers, and the laws they obey.
#![expect(clippy::unwrap_used, reason = "a test's panic is its verdict")]

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use score::{
    Claim, Entrant, Weights, WinTable, consensus_pool, copies, is_win, survivors,
    tempo::{last_consensus, nearest_tempo},
    weights::{StepWeights, softmax},
};
use serde_json::Value;
use subnet::{BlockNumber, Real, Uid, parameters::Epsilon};

fn golden(name: &str) -> Value {
    let path = format!("{}/tests/fixtures/{name}", env!("CARGO_MANIFEST_DIR"));
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

fn list<T>(value: &Value, item: impl Fn(&Value) -> T) -> Vec<T> {
    value.as_array().unwrap().iter().map(item).collect()
}

/// Reads a number, or one of the strings for what is not finite.
fn real(value: &Value) -> f64 {
    serde_json::from_value::<Real>(value.clone()).unwrap().0
}

fn uid(value: &Value) -> Uid {
    Uid(value.as_u64().unwrap().try_into().unwrap())
}

/// A uid without metadata has the block "inf".
fn block(value: &Value) -> Option<BlockNumber> {
    value.as_u64()
}

#[test]
fn is_win_agrees_with_the_python_validator() {
    let golden = golden("wins.json");
    let epsilon = real(&golden["epsilon"]);
    let rows = golden["iswin"].as_array().unwrap();
    assert_eq!(rows.len(), 1536);
    for row in rows {
        let won = is_win(
            real(&row[0]),
            real(&row[1]),
            block(&row[2]),
            block(&row[3]),
            epsilon,
        );
        assert_eq!(won, row[4].as_bool().unwrap(), "{row}");
    }
}

#[test]
fn models_of_one_block_have_no_head_start() {
    // Two losses that differ in the last bit may be equal once both are reduced.
    let mut loss = 1.9_f64;
    for _ in 0..1000 {
        assert!(is_win(loss, loss.next_up(), Some(7), Some(7), 0.01));
        loss = loss.next_up();
    }
}

#[test]
fn wins_agree_with_the_python_validator() {
    let golden = golden("wins.json");
    let epsilon = Epsilon::fixed(real(&golden["epsilon"]));
    let cases = golden["compute_wins"].as_array().unwrap();
    assert_eq!(cases.len(), 60);
    for case in cases {
        let uids = list(&case["uids"], uid);
        let blocks = list(&case["blocks"], block);
        let losses = list(&case["losses"], |losses| list(losses, real));
        let entrants = uids
            .iter()
            .zip(blocks.into_iter().zip(losses))
            .map(|(uid, (block, losses))| (*uid, Entrant { block, losses }))
            .collect();
        let table = WinTable::compute(&entrants, epsilon, 2_500_000);
        for (index, uid) in uids.iter().enumerate() {
            let row = table.get(*uid).unwrap();
            assert_eq!(u64::from(row.wins), case["wins"][index].as_u64().unwrap());
            assert_eq!(
                row.win_rate.to_bits(),
                real(&case["win_rate"][index]).to_bits()
            );
        }
        let rates = list(&case["win_rate"], real);
        let rates: BTreeMap<Uid, f64> = uids.into_iter().zip(rates).collect();
        assert_eq!(table.win_rates(), rates);
    }
}

/// torch's vectorised `exp` and sums differ from ours in the last bits of an f32.
fn assert_close(ours: f32, golden: f64, what: &str) {
    let error = (f64::from(ours) - golden).abs();
    assert!(
        error <= 2e-6 * golden.abs() + 1e-12,
        "{what}: {ours} for {golden}"
    );
}

#[test]
fn weights_agree_with_the_python_validator_over_sequences_of_steps() {
    let golden = golden("ema.json");
    let (alpha, temperature) = (real(&golden["alpha"]), real(&golden["temperature"]));
    let competitions = real(&golden["competitions"]);
    for sequence in golden["sequences"].as_array().unwrap() {
        let keep = usize::try_from(sequence["sample_min"].as_u64().unwrap()).unwrap();
        let initial = list(&sequence["initial"], real);
        let mut weights: Weights = initial.iter().copied().map(Real).collect();
        for step in sequence["steps"].as_array().unwrap() {
            let uids = list(&step["uids"], uid);
            let rates = list(&step["win_rate"], real);
            let win_rates: BTreeMap<Uid, f64> = uids.iter().copied().zip(rates).collect();
            let step_weights = softmax(&win_rates, temperature);
            for (uid, golden) in uids.iter().zip(list(&step["step_weights"], real)) {
                assert_close(step_weights[uid], golden, "step weight");
            }
            let n = usize::try_from(step["n"].as_u64().unwrap()).unwrap();
            let scale = competitions * real(&step["reward_percentage"]);
            weights = weights.after(&step_weights, n, scale, alpha);
            let after = list(&step["weights_after"], real);
            assert_eq!(weights.values().len(), after.len());
            for (index, (ours, golden)) in weights.values().iter().zip(after).enumerate() {
                // Python starts one sequence from infinity; our weights are finite from the start.
                if initial.get(index) != Some(&f64::INFINITY) {
                    assert_close(*ours, golden, "weight");
                }
            }
            assert_kept(&win_rates, keep, &list(&step["kept_for_next"], uid));
        }
    }
}

/// Where win rates tie, Python's order is that of a hash set; ours is documented. So the win rates
/// of those kept must agree, and the uids too unless they tie with the last one kept.
fn assert_kept(win_rates: &BTreeMap<Uid, f64>, keep: usize, golden: &[Uid]) {
    let table: WinTable = serde_json::from_value(Value::Object(
        win_rates
            .iter()
            .map(|(uid, rate)| {
                let row = serde_json::json!({"wins": 0, "matches": 0, "win_rate": rate});
                (uid.to_string(), row)
            })
            .collect(),
    ))
    .unwrap();
    let ours = survivors(&table, &BTreeMap::new(), keep);
    let last = golden.iter().map(|uid| win_rates[uid]).fold(1.0, f64::min);
    let certain = |uids: &BTreeSet<Uid>| -> BTreeSet<Uid> {
        uids.iter()
            .copied()
            .filter(|uid| win_rates[uid] > last)
            .collect()
    };
    assert_eq!(ours.len(), golden.len());
    assert_eq!(certain(&ours), certain(&golden.iter().copied().collect()));
}

#[test]
fn duplicates_agree_with_the_python_validator() {
    for case in golden("duplicates.json").as_array().unwrap() {
        // Python breaks a tie of blocks by the order met, we by uid; so the order met is the uid.
        let claims: BTreeMap<Uid, Claim> = list(&case["hash"], Value::clone)
            .into_iter()
            .zip(list(&case["block"], block))
            .enumerate()
            .filter_map(|(order, (hash, block))| {
                let claim = Claim {
                    block: block?,
                    content: hash.as_str()?.to_owned(),
                };
                Some((Uid(order.try_into().unwrap()), claim))
            })
            .collect();
        let copies = copies(&claims);
        for (order, survives) in list(&case["survives"], |s| s.as_bool().unwrap())
            .into_iter()
            .enumerate()
        {
            let uid = Uid(order.try_into().unwrap());
            let ours = claims.contains_key(&uid) && !copies.contains_key(&uid);
            assert_eq!(ours, survives, "{case}");
        }
    }
}

#[test]
fn the_last_tempo_agrees_with_the_python_validator() {
    let golden = golden("nearest_tempo.json");
    for row in golden["rows"].as_array().unwrap() {
        let [start, tempo, block, result] = [0, 1, 2, 3].map(|i| row[i].as_i64().unwrap());
        assert_eq!(nearest_tempo(start, tempo, block), Some(result), "{row}");
    }
    assert_eq!(nearest_tempo(0, 0, 9), None);
    assert_eq!(last_consensus(10, 7, 31), Some(17));
    assert_eq!(last_consensus(10, 7, 3), None);
}

#[test]
fn the_first_pool_is_where_the_consensus_is() {
    let candidates: BTreeSet<Uid> = [0, 2, 3, 5, 9].map(Uid).into();
    let consensus = [7, 900, 40, 40, 1, 800];
    let pool = |keep| Vec::from_iter(consensus_pool(&candidates, &consensus, keep));
    assert_eq!(pool(0), []);
    assert_eq!(pool(1), [Uid(5)], "uid 1 is not a candidate");
    assert_eq!(pool(2), [Uid(2), Uid(5)], "a tie goes to the lower uid");
    assert_eq!(pool(4), [Uid(0), Uid(2), Uid(3), Uid(5)]);
    assert_eq!(pool(9).len(), 5, "uid 9 is beyond the consensus");
}

#[test]
fn weights_are_read_by_uid() {
    let weights = Weights::from(vec![0.25, 0.0, f32::NAN, 0.5]);
    let read = [0, 1, 2, 3, 4].map(|uid| weights.get(Uid(uid)));
    assert_eq!(Vec::from(read), [0.25, 0.0, 0.0, 0.5, 0.0]);
    assert!(!weights.is_zero());
    let without = weights.clone().without(Uid(3)).without(Uid(77));
    assert_eq!(Vec::from(without.clone()), [0.25, 0.0, 0.0, 0.0]);
    assert!(without.without(Uid(0)).is_zero());
    assert!(Weights::from(vec![0.0, -1.0]).is_zero());
    assert!(Weights::zero(0).is_zero());
}

#[test]
fn a_cold_softmax_does_not_overflow() {
    let rates = BTreeMap::from([(Uid(0), 1.0), (Uid(1), 1.0), (Uid(2), 0.0)]);
    let weights: Vec<f32> = softmax(&rates, 0.001).into_values().collect();
    assert_eq!(weights, [0.5, 0.5, 0.0]);
}

#[test]
fn a_moving_average_follows_its_definition() {
    // Half of the old and half of the new, whose weights add up to the scale.
    let old = Weights::from(vec![1.0, 0.0, 8.0]);
    let step = StepWeights::from([(Uid(0), 1.0), (Uid(1), 3.0), (Uid(9), 5.0)]);
    let new = old.after(&step, 2, 2.0, 0.5);
    assert_eq!(new.values(), [0.75, 0.75], "uid 2 left, uid 9 is not there");
}

#[test]
fn ties_are_kept_by_block_then_uid() {
    let entrants: BTreeMap<Uid, Entrant> = (0..4).map(|n| (Uid(n), Entrant::default())).collect();
    let table = WinTable::compute(&entrants, Epsilon::fixed(0.01), 0);
    let blocks = [(Uid(0), 9), (Uid(1), 8), (Uid(2), 8), (Uid(3), 1)].into();
    let kept = survivors(&table, &blocks, 2);
    assert_eq!(kept, [Uid(1), Uid(3)].into());
}

#[test]
fn a_step_that_weighs_nobody_changes_nothing() {
    let weights = Weights::from(vec![0.5, f32::NAN, 0.25]);
    assert_eq!(weights.values(), [0.5, 0.0, 0.25]);
    assert_eq!(weights.after(&BTreeMap::new(), 3, 1.2, 0.9), weights);
    let beyond = [(Uid(9), 1.0)].into();
    assert_eq!(weights.after(&beyond, 3, 1.2, 0.9), weights);
}

#[test]
fn a_decaying_head_start_is_taken_at_the_age_of_the_older_model() {
    let epsilon = Epsilon {
        start: 0.5,
        end: 0.0,
        blocks: 100,
    };
    let entrant = |block, loss| Entrant {
        block: Some(block),
        losses: vec![loss],
    };
    let entrants = [(Uid(0), entrant(100, 1.5)), (Uid(1), entrant(120, 1.0))].into();
    let winner_at = |now| {
        let table = WinTable::compute(&entrants, epsilon, now);
        table.get(Uid(0)).unwrap().wins > 0
    };
    assert!(winner_at(120), "a young leader has 40 percent head start");
    assert!(!winner_at(180), "at age 80 only 10 percent");
}

fn entrants() -> impl Strategy<Value = BTreeMap<Uid, Entrant>> {
    let loss = prop_oneof![
        8 => 0.0..8.0_f64,
        1 => Just(f64::INFINITY),
        1 => Just(f64::NAN),
    ];
    let block = prop_oneof![4 => (0..6_u64).prop_map(Some), 1 => Just(None)];
    let entrant = (block, prop::collection::vec(loss, 0..6))
        .prop_map(|(block, losses)| Entrant { block, losses });
    prop::collection::btree_map((0..40_u16).prop_map(Uid), entrant, 1..12)
}

proptest! {
    #[test]
    fn never_both_win(
        a in 0.0..9.0_f64, b in 0.0..9.0_f64,
        block_a in prop::option::of(0..3_u64), block_b in prop::option::of(0..3_u64),
        head_start in 0.0..0.9_f64,
    ) {
        let forth = is_win(a, b, block_a, block_b, head_start);
        let back = is_win(b, a, block_b, block_a, head_start);
        prop_assert!(!(forth && back));
    }

    #[test]
    fn wins_of_a_pair_never_exceed_its_matches(entrants in entrants()) {
        let table = WinTable::compute(&entrants, Epsilon::fixed(0.01), 10);
        let wins: u32 = table.rows().values().map(|row| row.wins).sum();
        let matches: u32 = table.rows().values().map(|row| row.matches).sum();
        prop_assert!(2 * wins <= matches);
    }

    /// Who somebody is does not matter: renaming the uids renames the result.
    #[test]
    fn uids_are_only_names(entrants in entrants()) {
        let renamed = |uid: &Uid| Uid(99 - uid.0);
        let table = WinTable::compute(&entrants, Epsilon::fixed(0.01), 10);
        let mirror = entrants.iter().map(|(uid, entrant)| (renamed(uid), entrant.clone())).collect();
        let mirror = WinTable::compute(&mirror, Epsilon::fixed(0.01), 10);
        for (uid, row) in table.rows() {
            prop_assert_eq!(Some(row), mirror.get(renamed(uid)));
        }
    }

    /// Wins compare pairs sample by sample, so the order of samples does not matter.
    #[test]
    fn the_order_of_samples_does_not_matter(mut entrants in entrants()) {
        for entrant in entrants.values_mut() {
            entrant.losses.resize(5, f64::NAN);
        }
        let table = WinTable::compute(&entrants, Epsilon::fixed(0.01), 10);
        for entrant in entrants.values_mut() {
            entrant.losses.reverse();
        }
        prop_assert_eq!(table, WinTable::compute(&entrants, Epsilon::fixed(0.01), 10));
    }

    #[test]
    fn weights_add_up(entrants in entrants(), alpha in 0.0..1.0_f64, scale in 0.1..2.0_f64) {
        let table = WinTable::compute(&entrants, Epsilon::fixed(0.01), 10);
        let step = softmax(&table.win_rates(), 0.08);
        prop_assert!((step.values().sum::<f32>() - 1.0).abs() < 1e-5);
        let before = Weights::from(vec![0.5; 40]);
        let after = before.after(&step, 40, scale, alpha);
        let expected = alpha * 20.0 + (1.0 - alpha) * scale;
        let sum: f64 = after.values().iter().map(|w| f64::from(*w)).sum();
        prop_assert!((sum - expected).abs() < 1e-4, "{} for {}", sum, expected);
    }
}
