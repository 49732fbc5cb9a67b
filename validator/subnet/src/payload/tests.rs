//! Tests of the forms of commitments.

use serde_json::Value;

use super::*;

const GOLDEN: &str = include_str!("../../tests/fixtures/commitments.json");

fn rules(text: &str) -> CommitmentRules {
    toml::from_str(text).unwrap()
}

/// The form of a golden case in the words of a subnet file.
fn rules_of(form: &str) -> Option<CommitmentRules> {
    Some(match form {
        "v4" => rules(
            "storage = 'revealed'\nform = 'v4|{repo}|{digest}|{hotkey}'\ndigests = ['sha256:64', 'hf:40']\ntrim = true",
        ),
        "v7" => rules(
            "storage = 'revealed'\nform = 'v7|{repo}|{digest}'\ndigests = ['sha256:64', '40', '64']\nlower_case = true",
        ),
        "taoverse" => rules("form = 'numbered'"),
        "json (sn97)" => rules("storage = 'revealed'\nform = 'json'"),
        _ => return None,
    })
}

#[test]
fn other_subnets_read_the_same() {
    let golden: Value = serde_json::from_str(GOLDEN).unwrap();
    let mut read = 0;
    for case in golden["cases"].as_array().unwrap() {
        let Some(rules) = rules_of(case["form"].as_str().unwrap()) else {
            continue;
        };
        read += 1;
        let Some(rows) = case["rows"].as_array() else {
            let found = rules.read(case["payload"].as_str().unwrap());
            let Some(expected) = case.get("result") else {
                assert!(found.is_err(), "{case}");
                continue;
            };
            let found = found.unwrap_or_else(|error| panic!("{case}: {error}"));
            if expected.get("competition_id").is_some() {
                let number = found.competition.unwrap().0.parse::<i64>().unwrap();
                let found = serde_json::json!({
                    "namespace": found.namespace,
                    "name": found.name,
                    "commit": found.revision,
                    "secure_hash": found.hash,
                    "competition_id": number,
                });
                for (key, value) in found.as_object().unwrap() {
                    assert_eq!(value, &expected[key], "{key} of {case}");
                }
                continue;
            }
            assert_eq!(
                found.repository(),
                expected["repo"].as_str().unwrap(),
                "{case}"
            );
            let digest = found.revision.or(found.hash).unwrap();
            assert!(
                expected["digest"].as_str().unwrap().ends_with(&digest),
                "{case}"
            );
            continue;
        };
        // The newest row that can be read; a list, at which the source falls, is skipped.
        let newest = rows
            .iter()
            .filter_map(|row| Some((row[0].as_u64()?, rules.read(row[1].as_str()?).ok()?)))
            .max_by_key(|(block, _)| *block);
        let expected = case["result"]["0"].as_array();
        assert_eq!(newest.is_some(), expected.is_some(), "{case}");
        if let (Some((block, model)), Some(expected)) = (newest, expected) {
            let revision = model.revision.clone().unwrap_or_default();
            let found = serde_json::json!([block, model.repository(), revision]);
            assert_eq!(&found, &Value::from(expected.clone()), "{case}");
        }
    }
    assert!(read > 80, "{read} cases");
}

#[test]
fn a_form_that_makes_no_sense_is_refused_in_words() {
    let refused = |text: &str| {
        toml::from_str::<CommitmentRules>(text)
            .unwrap_err()
            .message()
            .to_owned()
    };
    insta::assert_snapshot!(refused("form = 'csv'"), @r#""csv" is none of colons, numbered, json, or parts between bars such as v4|{repo}|{digest}|{hotkey}"#);
    insta::assert_snapshot!(refused("form = 'v4|{repro}'"), @r#""{repro}" is none of {repo}, {revision}, {digest}, {hash}, {hotkey}, {competition}"#);
    insta::assert_snapshot!(refused("form = 'v4|{digest}'"), @r#""v4|{digest}" has no {repo}"#);
    insta::assert_snapshot!(refused("digests = ['sha256']"), @r#""sha256" is not a prefix and a number of digits, such as sha256:64 or 40"#);
    let both = rules("form = 'v4|{repo}|{hotkey}'\ndigests = ['hf:40']");
    assert_eq!(
        toml::from_str::<CommitmentRules>(&toml::to_string(&both).unwrap()).unwrap(),
        both
    );
    assert_eq!(rules(""), CommitmentRules::default());
}
