//! The rules of the repository, as tests: none lives in a document only.
#![expect(clippy::unwrap_used, reason = "a test's panic is its verdict")]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use e2e::workspace;
use regex::Regex;
use shared::Exit;

/// Files longer than this say why in their first lines, with the words "Long because".
const MAX_LINES: usize = 450;
/// More packages than this in the lockfile only knowingly.
const MAX_PACKAGES: usize = 980;

/// The folders of the validator's middle row, and what each may import of its row.
const ROW: [(&str, &[&str]); 6] = [
    ("chain", &[]),
    ("models", &[]),
    ("samples", &[]),
    ("eval", &[]),
    ("score", &[]),
    ("report", &["score"]),
];

fn files(folder: &str, extension: &str) -> Vec<PathBuf> {
    fn walk(folder: &Path, extension: &str, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).into_iter().flatten() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            if path.is_dir() && !name.starts_with('.') && name != "target" && name != "fixtures" {
                walk(&path, extension, found);
            } else if path.extension().is_some_and(|found| found == extension) {
                found.push(path);
            }
        }
    }
    let mut found = Vec::new();
    walk(&workspace().join(folder), extension, &mut found);
    found.sort();
    found
}

fn sources() -> Vec<(String, String)> {
    files("", "rs")
        .into_iter()
        .map(|path| {
            let name = path
                .strip_prefix(workspace())
                .unwrap()
                .display()
                .to_string();
            (name, fs::read_to_string(path).unwrap())
        })
        .collect()
}

#[track_caller]
fn none(rule: &str, found: Vec<String>) {
    assert!(found.is_empty(), "{rule}:\n  {}", found.join("\n  "));
}

#[test]
fn every_module_opens_with_a_sentence_on_its_purpose() {
    let found = sources()
        .into_iter()
        .filter(|(_, text)| !text.starts_with("//! "))
        // What a module's own tests are for needs no saying.
        .filter(|(name, _)| !name.ends_with("/tests.rs"));
    none(
        "begin these files with `//! ` and a sentence",
        found.map(|(name, _)| name).collect(),
    );
}

#[test]
fn files_are_rooms_not_attics() {
    const BANNED: [&str; 7] = [
        "utils", "util", "helpers", "common", "misc", "manager", "handler",
    ];
    let mut found = Vec::new();
    for (name, text) in sources() {
        let mut parts = Path::new(&name)
            .components()
            .map(|part| part.as_os_str().to_string_lossy());
        if parts.any(|part| BANNED.contains(&part.trim_end_matches(".rs"))) {
            found.push(format!("{name}: say what is in it"));
        }
        let lines = text.lines().count();
        if lines > MAX_LINES
            && !text
                .lines()
                .take(12)
                .any(|line| line.contains("Long because"))
        {
            found.push(format!(
                "{name}: {lines} lines; split it, or say `Long because ..` on top"
            ));
        }
    }
    none("names and lengths", found);
}

#[test]
fn nothing_is_left_for_later() {
    let left =
        Regex::new(r"todo!\(|unimplemented!\(|dbg!\(|\bFIXME\b|\bXXX\b|#\[ignore|#!?\[allow\(")
            .unwrap();
    let found = sources()
        .into_iter()
        // Tidy names what it looks for; each test program uses another part of the workbench.
        .filter(|(name, _)| {
            !["tests/e2e/tests/tidy.rs", "supervisor/tests/workbench/mod.rs"].contains(&name.as_str())
        })
        .filter_map(|(name, text)| Some(format!("{name}: {}", left.find(&text)?.as_str())));
    none("finish or remove", found.collect());
}

#[test]
fn every_crate_takes_the_lints_of_the_workspace() {
    let root = workspace().join("Cargo.toml");
    let manifests = files("", "toml")
        .into_iter()
        .filter(|path| path.file_name().is_some_and(|name| name == "Cargo.toml") && *path != root);
    let found = manifests.filter(|path| {
        let manifest: toml::Table = fs::read_to_string(path).unwrap().parse().unwrap();
        // A manifest with a workspace of its own is no member of ours.
        !manifest.contains_key("workspace")
            && manifest
                .get("lints")
                .and_then(|lints| lints.get("workspace"))
                != Some(&toml::Value::Boolean(true))
    });
    none(
        "add `[lints] workspace = true`",
        found.map(|path| path.display().to_string()).collect(),
    );
}

#[test]
fn dependencies_respect_the_walls() {
    let walls: [(&str, &[&str]); 5] = [
        (
            "shared",
            &[
                "supervisor",
                "validator",
                "engine",
                "model",
                "candle-core",
                "subxt",
            ],
        ),
        (
            "supervisor",
            &[
                "validator",
                "engine",
                "model",
                "candle-core",
                "subxt",
                "tokenizers",
            ],
        ),
        (
            "validator",
            &[
                "supervisor",
                "engine",
                "candle-core",
                "candle-nn",
                "tokenizers",
            ],
        ),
        (
            "validator/model",
            &["candle-core", "tokio", "reqwest", "subxt"],
        ),
        (
            "validator/engine",
            &["validator", "subxt", "reqwest", "hf-hub", "tokio"],
        ),
    ];
    let mut found = Vec::new();
    for (member, forbidden) in walls {
        let text = fs::read_to_string(workspace().join(member).join("Cargo.toml")).unwrap();
        let manifest: toml::Table = text.parse().unwrap();
        for name in forbidden {
            if manifest["dependencies"].get(name).is_some() {
                found.push(format!("{member} must not depend on {name}"));
            }
        }
    }
    none("walls between crates", found);
}

#[test]
fn imports_of_the_validator_go_down() {
    let import = Regex::new(r"\bcrate::(?:\{([^;]*?)\};|([a-z_]+))").unwrap();
    let first = Regex::new(r"(?:^|,)\s*([a-z_]+)").unwrap();
    let mut allowed: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for (folder, row) in ROW {
        allowed.insert(
            folder,
            row.iter()
                .copied()
                .chain(["subnet", "http", folder])
                .collect(),
        );
    }
    allowed.insert("subnet", BTreeSet::from(["subnet"]));
    let mut found = Vec::new();
    for (folder, allowed) in &allowed {
        for path in files(&format!("validator/src/{folder}"), "rs") {
            let text = fs::read_to_string(&path).unwrap();
            for captures in import.captures_iter(&text) {
                let names: Vec<String> = match (captures.get(1), captures.get(2)) {
                    (Some(group), _) => {
                        let top = top_level(group.as_str());
                        first
                            .captures_iter(&top)
                            .map(|name| name[1].to_owned())
                            .collect()
                    }
                    (_, Some(name)) => vec![name.as_str().to_owned()],
                    _ => vec![],
                };
                for name in names.iter().filter(|name| !allowed.contains(name.as_str())) {
                    found.push(format!("{}: crate::{name}", path.display()));
                }
            }
            if *folder != "chain" && text.contains("subxt") {
                found.push(format!("{}: only chain names subxt", path.display()));
            }
        }
    }
    none("imports", found);
}

/// Returns an import group without its nested groups.
fn top_level(group: &str) -> String {
    let mut depth = 0;
    group
        .chars()
        .filter(|c| {
            match c {
                '{' => depth += 1,
                '}' => depth -= 1,
                _ => {}
            }
            depth == 0 && *c != '}'
        })
        .collect()
}

#[test]
fn the_documents_name_every_exit_code_and_variable() {
    let reference = fs::read_to_string(workspace().join("docs/reference.md")).unwrap();
    let documents: String = files("docs", "md")
        .iter()
        .map(|path| fs::read_to_string(path).unwrap())
        .collect();
    let mut found = Vec::new();
    for (exit, meaning) in Exit::ALL {
        let row = format!("| {} | {meaning} |", exit.code());
        if !reference.contains(&row) {
            found.push(format!("docs/reference.md lacks `{row}`"));
        }
    }
    let variable = Regex::new(r#"env = "([A-Z_]+)""#).unwrap();
    let names: BTreeSet<String> = sources()
        .iter()
        .filter(|(name, _)| name.starts_with("validator/src") || name.starts_with("supervisor/src"))
        .flat_map(|(_, text)| {
            variable
                .captures_iter(text)
                .map(|name| name[1].to_owned())
                .collect::<Vec<_>>()
        })
        .collect();
    for name in names {
        if !documents.contains(&format!("`{name}`")) {
            found.push(format!("no page of docs/ names `{name}`"));
        }
    }
    none("documents", found);
}

#[test]
fn the_readme_and_ci_run_the_same_tests() {
    let readme = fs::read_to_string(workspace().join("README.md")).unwrap();
    let ci = fs::read_to_string(workspace().join(".ci/run")).unwrap();
    for text in [&readme, &ci] {
        assert!(text.contains("cargo nextest run --workspace"));
    }
}

#[test]
fn the_lockfile_does_not_grow_unnoticed() {
    let lock = fs::read_to_string(workspace().join("Cargo.lock")).unwrap();
    let packages = lock.matches("[[package]]").count();
    assert!(
        packages <= MAX_PACKAGES,
        "{packages} packages; raise the limit if each earns its place"
    );
}
