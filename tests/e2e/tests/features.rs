//! What is tested is what is built: the programs as shipped have the features that they ask for, not
//! those that tests ask for, and every documented line builds these programs.
#![expect(clippy::unwrap_used, reason = "a test's panic is its verdict")]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    sync::LazyLock,
};

use e2e::{limit, workspace};
use regex::Regex;
use serde::Deserialize;
use shared::process::blocking_command;

/// Crates by name and compatible version, with the features they are compiled with.
type Features = BTreeMap<String, BTreeSet<String>>;

/// `fixtures/features.toml`.
#[derive(Deserialize)]
struct Known {
    tests: Vec<Group>,
    alone: BTreeMap<String, BTreeMap<String, Vec<String>>>,
}

/// Differences with one reason.
#[derive(Deserialize)]
struct Group {
    because: String,
    features: Vec<String>,
}

impl Known {
    fn read() -> Self {
        let path = workspace().join("tests/e2e/fixtures/features.toml");
        toml::from_str(&fs::read_to_string(path).unwrap()).unwrap()
    }
}

/// Returns what cargo would link into the programs of these packages; build scripts and macros aside.
fn linked(packages: &[&str], edges: &str) -> Features {
    let mut command = blocking_command("cargo");
    command
        .args(["tree", "--locked", "--prefix", "none"])
        .args(["--format", "{p}|{f}", "--edges", edges])
        .args(packages)
        .current_dir(workspace());
    let output = limit::output(&mut command);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    let mut linked = Features::new();
    for line in String::from_utf8(output.stdout).unwrap().lines() {
        let Some((package, features)) = line.split_once('|') else {
            continue;
        };
        let mut words = package.split(' ');
        let (name, version) = (words.next().unwrap(), words.next().unwrap());
        // A crate is marked where it stands again.
        let features = features.trim_end_matches(" (*)").split(',');
        let features = features.filter(|feature| !feature.is_empty());
        linked
            .entry(format!("{name} {}", compatible(version)))
            .or_default()
            .extend(features.map(ToOwned::to_owned));
    }
    assert!(linked.len() > 50, "{linked:?}");
    linked
}

/// Edges to what is linked into a program.
const LINKED: &str = "normal,no-proc-macro";

/// The programs as `cargo build --release` builds them.
static SHIPPED: LazyLock<Features> = LazyLock::new(|| linked(&[], LINKED));

/// Each program as `cargo build -p` would build it.
static ALONE: LazyLock<BTreeMap<&str, Features>> = LazyLock::new(|| {
    let alone = |program| (program, linked(&["--package", program], LINKED));
    ["engine", "supervisor", "validator"].map(alone).into()
});

/// Returns the part of `v1.2.3` or `v0.1.2` that compatible versions share.
fn compatible(version: &str) -> &str {
    let version = version.trim_start_matches('v');
    let numbers = if version.starts_with("0.") { 2 } else { 1 };
    let dots = version.match_indices('.').nth(numbers - 1);
    dots.map_or(version, |(at, _)| &version[..at])
}

/// Returns the features that `more` has and `less` has not, of the crates that both have.
fn surplus(more: &Features, less: &Features) -> BTreeSet<String> {
    let common = more.iter().filter_map(|(name, features)| {
        let others = less.get(name)?;
        Some(
            features
                .difference(others)
                .map(move |feature| format!("{name} {feature}")),
        )
    });
    common.flatten().collect()
}

#[track_caller]
fn assert_known(what: &str, found: &BTreeSet<String>, known: &BTreeSet<String>) {
    let new: Vec<_> = found.difference(known).collect();
    let gone: Vec<_> = known.difference(found).collect();
    assert!(
        new.is_empty() && gone.is_empty(),
        "{what}: tests/e2e/fixtures/features.toml lacks {new:#?} and has in vain {gone:#?}"
    );
}

#[test]
fn programs_have_the_features_that_they_ask_for_and_no_others() {
    let mut asked = Features::new();
    for (name, features) in ALONE.values().flatten() {
        asked
            .entry(name.clone())
            .or_default()
            .extend(features.iter().cloned());
    }
    assert_eq!(*SHIPPED, asked);
}

#[test]
fn what_a_program_built_alone_lacks_is_known() {
    let known = Known::read();
    for (program, alone) in &*ALONE {
        let askers = &known.alone[*program];
        for (asker, features) in askers {
            for feature in features {
                let (name, feature) = feature.rsplit_once(' ').unwrap();
                let asked = &ALONE[asker.as_str()][name];
                assert!(
                    asked.contains(feature),
                    "{asker} asks for no {feature} of {name}"
                );
            }
        }
        let told = askers.values().flatten().cloned().collect();
        assert_known(program, &surplus(&SHIPPED, alone), &told);
    }
}

#[test]
fn what_tests_add_is_known() {
    let tested = linked(&["--workspace"], "normal,dev,no-proc-macro");
    let told = Known::read().tests.into_iter().flat_map(|group| {
        assert!(!group.because.is_empty());
        group.features
    });
    assert_known("tests", &surplus(&tested, &SHIPPED), &told.collect());
}

#[test]
fn every_documented_line_builds_these_programs() {
    let folder = |name: &str| {
        let entries = fs::read_dir(workspace().join(name)).unwrap();
        entries.map(|entry| entry.unwrap().path())
    };
    let documents = ["README.md", "justfile", ".ci/run"].map(|name| workspace().join(name));
    let documents = documents
        .into_iter()
        .chain(folder("docs"))
        .chain(folder("scripts"));
    // Examples are not programs of ours, and the benchmarks tell what was measured.
    let documents = documents.filter(|path| !path.ends_with("docs/benchmarks.md"));
    let build = Regex::new(r"cargo (?:build|install)\b.*").unwrap();
    let selection =
        Regex::new(r" (-p|--package|--workspace|--all|--path|--manifest-path)\b").unwrap();
    let mut lines = 0;
    for path in documents {
        let text = fs::read_to_string(&path).unwrap_or_default();
        for line in build.find_iter(&text).map(|line| line.as_str()) {
            lines += 1;
            assert!(
                line.contains("--example") || !selection.is_match(line),
                "{}: `{line}` may build with other features; select no packages",
                path.display()
            );
        }
    }
    assert!(lines > 3, "{lines}");
}
