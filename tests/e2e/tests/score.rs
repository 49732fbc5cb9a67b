//! Numbers that the shipped program reads: its wins are the Python validator's, and every f64 of a
//! losses table and of a step record is the one that was written, to the last bit.
#![expect(clippy::unwrap_used, reason = "a test's panic is its verdict")]

use std::fs;

use e2e::{limit, program, workspace};
use rand::{Rng as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};
use shared::{file::write_atomic, process::blocking_command};

/// Scores a losses table or a step record with this head start of the older model.
fn score(input: &Value, epsilon: &Value) -> Value {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("input.json");
    write_atomic(&path, input.to_string().as_bytes()).unwrap();
    let mut command = blocking_command(program("validator"));
    command.arg("score").arg(&path);
    command.args(["--epsilon", &epsilon.to_string()]);
    let output = limit::output(&mut command);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn wins_agree_with_the_python_validator() {
    let golden = workspace().join("validator/score/tests/fixtures/wins.json");
    let golden: Value = serde_json::from_slice(&fs::read(golden).unwrap()).unwrap();
    let cases = golden["compute_wins"].as_array().unwrap();
    assert_eq!(cases.len(), 60);
    for case in cases {
        let uids = case["uids"].as_array().unwrap();
        let row = |index: usize| {
            json!({
                "uid": uids[index],
                "block": case["blocks"][index],
                "losses": case["losses"][index],
            })
        };
        let rows: Vec<Value> = (0..uids.len()).map(row).collect();
        let table = json!({"competition": "l3", "uids": rows});
        let answer = score(&table, &golden["epsilon"]);
        for (index, uid) in uids.iter().enumerate() {
            let uid = uid.to_string();
            assert_eq!(answer["wins"][&uid], case["wins"][index], "{table}");
            let (ours, golden) = (&answer["win_rate"][&uid], &case["win_rate"][index]);
            assert_eq!(ours.as_f64(), golden.as_f64(), "{table}");
        }
    }
}

/// Returns positive finite numbers of every size, and those beside the gaps.
fn numbers() -> Vec<f64> {
    let mut random = ChaCha8Rng::seed_from_u64(12);
    let bits = std::iter::repeat_with(|| f64::from_bits(random.random::<u64>() >> 1));
    // As losses are: a few decimal digits, and all bits of an f32.
    let decimal = (1..2_000).map(|n| f64::from(n) / 1000.0);
    let single = (1..2_000).map(|n| f64::from(1.0 / n as f32));
    let usual = (1..20_000).map(|n| 1.0 / f64::from(n));
    let mut numbers = vec![
        f64::from_bits(1),
        f64::MIN_POSITIVE,
        1.0,
        f64::MAX.next_down(),
    ];
    numbers.extend(bits.filter(|number| number.is_finite()).take(20_000));
    numbers.extend(decimal.chain(single).chain(usual));
    numbers
}

/// Of two neighbors the lower wins, and of two equals none; `scored` makes the input of two columns
/// of losses, the first of the older model.
fn assert_exact(scored: impl Fn(&[f64], &[f64]) -> Value) {
    let numbers = numbers();
    let above: Vec<f64> = numbers.iter().map(|number| number.next_up()).collect();
    let wins = |older: &[f64], younger: &[f64]| {
        let answer = score(&scored(older, younger), &json!(0.0));
        (answer["wins"]["0"].clone(), answer["wins"]["3"].clone())
    };
    let (all, none) = (json!(numbers.len()), json!(0));
    assert_eq!(wins(&above, &numbers), (none.clone(), all.clone()));
    assert_eq!(wins(&numbers, &above), (all, none.clone()));
    assert_eq!(wins(&numbers, &numbers), (none.clone(), none));
}

#[test]
fn every_number_of_a_losses_table_is_read_exactly() {
    assert_exact(|older, younger| {
        json!({"competition": "l3", "uids": [
            {"uid": 0, "block": 1, "losses": older},
            {"uid": 3, "block": 2, "losses": younger},
        ]})
    });
}

#[test]
fn every_number_of_a_step_record_is_read_exactly() {
    let path = workspace().join("tests/fuzz/corpus/step_record/step");
    let mut record: Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
    let models = record["models"].as_object_mut().unwrap();
    models.retain(|uid, _| uid == "0" || uid == "3");
    assert_exact(|older, younger| {
        let mut record = record.clone();
        record["models"]["0"]["losses"] = json!(older);
        record["models"]["3"]["losses"] = json!(younger);
        record
    });
}
