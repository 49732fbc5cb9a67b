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

/// What each crate of ours may use of ours; its tests may use more.
const WALLS: [(&str, &[&str]); 20] = [
    ("shared", &[]),
    ("http-server", &["shared"]),
    ("supervisor", &["http-server", "shared"]),
    ("model", &[]),
    ("engine", &["model", "shared"]),
    ("subnet", &["model", "shared"]),
    ("http-client", &["shared", "subnet"]),
    ("chain", &["shared", "subnet"]),
    ("hub", &["http-client"]),
    (
        "models",
        &["http-client", "hub", "model", "shared", "subnet"],
    ),
    (
        "samples",
        &["http-client", "hub", "model", "shared", "subnet"],
    ),
    ("eval", &["model", "shared", "subnet"]),
    ("score", &["subnet"]),
    (
        "report",
        &["http-client", "http-server", "score", "shared", "subnet"],
    ),
    ("index", &["report", "shared", "subnet"]),
    // Pages show; they reach nothing.
    ("page", &["index", "report", "shared", "subnet"]),
    (
        "validator",
        &[
            "chain",
            "eval",
            "http-client",
            "http-server",
            "hub",
            "index",
            "model",
            "models",
            "page",
            "report",
            "samples",
            "score",
            "shared",
            "subnet",
        ],
    ),
    ("localnet", &["model", "shared"]),
    ("e2e", &["shared"]),
    // It feeds the parsers of everything that ships.
    (
        "fuzz",
        &[
            "chain",
            "engine",
            "http-client",
            "hub",
            "model",
            "models",
            "report",
            "samples",
            "score",
            "shared",
            "subnet",
            "supervisor",
            "validator",
        ],
    ),
];

/// Who may use what of others' crates that decides what a crate can do.
const DOORS: [(&str, &[&str]); 8] = [
    // Tensors, and what needs them.
    ("candle-core", &["engine", "localnet"]),
    ("tokenizers", &["engine", "localnet"]),
    // The chain.
    ("subxt", &["chain", "localnet"]),
    // The network: no worker, no model and no score opens a socket.
    ("reqwest", &["http-client", "supervisor"]),
    ("hf-hub", &["hub"]),
    (
        "tokio",
        &[
            "chain",
            "e2e",
            "eval",
            "fuzz",
            "http-client",
            "http-server",
            "hub",
            "localnet",
            "models",
            "report",
            "samples",
            "shared",
            "supervisor",
            "validator",
        ],
    ),
    // The database: whoever asks the index does not see it.
    ("rusqlite", &["index"]),
    // Whoever answers strangers does so at one door.
    ("hyper", &["http-server"]),
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

/// Returns where a pattern is found in Rust sources, this one aside: it names what it looks for.
fn found(pattern: &str, is_meant: impl Fn(&str) -> bool) -> Vec<String> {
    let pattern = Regex::new(pattern).unwrap();
    let mut found = Vec::new();
    for (name, text) in sources() {
        if name == "tests/e2e/tests/tidy.rs" || !is_meant(&name) {
            continue;
        }
        for place in pattern.find_iter(&text) {
            let line = text[..place.start()].lines().count().max(1);
            found.push(format!("{name}:{line}: {}", place.as_str().trim()));
        }
    }
    found
}

fn is_test(name: &str) -> bool {
    name.starts_with("tests/") || name.contains("/tests/") || name.ends_with("/tests.rs")
}

#[test]
fn nothing_is_left_for_later() {
    // Of `allow`, clippy sees all but those that allow themselves too.
    let left = found(r"\b(TODO|FIXME|XXX)\b|#!?\[allow\(", |_| true);
    none("finish or remove", left);
}

#[test]
fn no_test_is_ignored_or_skipped_in_silence() {
    let silent = found(r#"#\[ignore|"(SKIPPED|skipped:)"#, |name| {
        // This is what says it aloud.
        name != "tests/e2e/src/lib.rs"
    });
    none("use e2e::skip, which `.ci/run` shows", silent);
}

#[test]
fn no_test_asserts_how_long_something_took() {
    // A wait may end in an assertion: its bound is a constant.
    let pattern = r"assert[a-z_]*!\(\s*!?\w+\.elapsed\(\)[^;]{0,30}";
    let bound = Regex::new(r"elapsed\(\) < [A-Z_]+[,)]").unwrap();
    let mut timed = found(pattern, is_test);
    timed.retain(|place| !bound.is_match(place));
    none("wait with a deadline instead", timed);
}

#[test]
fn tests_sleep_only_where_they_say_why() {
    // `std::thread::sleep` is banned by `clippy.toml`; programs under test may use it.
    let sleep = Regex::new(r"(^|tokio::time::|[^:\w])sleep\(").unwrap();
    let mut found = Vec::new();
    for (name, text) in sources() {
        let is_meant = name.contains("/tests/") && !name.contains("/fixtures/");
        let lines: Vec<&str> = text.lines().collect();
        for (index, line) in lines.iter().enumerate() {
            let told = index > 0 && lines[index - 1].trim_start().starts_with("// ");
            if is_meant && sleep.is_match(line) && !told && name != "tests/e2e/tests/tidy.rs" {
                found.push(format!("{name}:{}: {}", index + 1, line.trim()));
            }
        }
    }
    none("wait with e2e::wait, or say why time passes", found);
}

#[test]
fn every_crate_takes_the_lints_of_the_workspace() {
    let root = workspace().join("Cargo.toml");
    let manifests = files("", "toml")
        .into_iter()
        .filter(|path| path.file_name().is_some_and(|name| name == "Cargo.toml") && *path != root);
    let found = manifests.filter(|path| {
        let manifest: toml::Table = fs::read_to_string(path).unwrap().parse().unwrap();
        // A manifest with a workspace of its own is not a member of ours.
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

/// Returns the members of the workspace: their names, and what they depend on, tests aside.
fn members() -> BTreeMap<String, BTreeSet<String>> {
    let root = workspace();
    let read = |folder: &Path| -> toml::Table {
        let manifest = fs::read_to_string(folder.join("Cargo.toml")).unwrap();
        manifest.parse().unwrap()
    };
    let workspace = read(&root);
    let members = workspace["workspace"]["members"].as_array().unwrap();
    let member = |folder: &toml::Value| {
        let manifest = read(&root.join(folder.as_str().unwrap()));
        let name = manifest["package"]["name"].as_str().unwrap().to_owned();
        let dependencies = manifest["dependencies"].as_table().unwrap();
        (name, dependencies.keys().cloned().collect())
    };
    members.iter().map(member).collect()
}

#[test]
fn dependencies_respect_the_walls() {
    let members = members();
    let walls = BTreeMap::from(WALLS);
    let mut found = Vec::new();
    for (member, dependencies) in &members {
        let Some(allowed) = walls.get(member.as_str()) else {
            found.push(format!("{member} is not in WALLS: say what it may use"));
            continue;
        };
        for name in dependencies {
            let ours = members.contains_key(name) && !allowed.contains(&name.as_str());
            let door = DOORS.iter().find(|(door, _)| door == name);
            let theirs = door.is_some_and(|(_, users)| !users.contains(&member.as_str()));
            if ours || theirs {
                found.push(format!("{member} must not depend on {name}"));
            }
        }
    }
    none("walls between crates", found);
}

#[test]
fn the_map_names_every_crate() {
    let map = fs::read_to_string(workspace().join("ARCHITECTURE.md")).unwrap();
    let names = members().into_keys();
    let found = names
        .filter(|name| !map.contains(&format!("`{name}`")) && !map.contains(&format!("/{name}`")));
    none("ARCHITECTURE.md lacks", found.collect());
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
    for page in ["README.md", ".ci/run", "justfile"] {
        let text = fs::read_to_string(workspace().join(page)).unwrap();
        assert!(text.contains("cargo test --workspace"), "{page}");
    }
}
