//! Every target passes its corpus, so what fuzzing once found stays found without a fuzzer.
#![expect(clippy::unwrap_used, reason = "a test's panic is its verdict")]

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use fuzz::TARGETS;

fn entries(folder: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect()
}

#[test]
fn every_target_passes_its_corpus() {
    for (name, target) in TARGETS {
        let seeds = entries(&format!("corpus/{name}"));
        assert!(!seeds.is_empty(), "{name} has no seeds");
        for seed in seeds {
            // Seen if the target panics or takes the process along.
            println!("{}", seed.display());
            target(&fs::read(&seed).unwrap());
        }
    }
}

#[test]
fn targets_programs_and_corpora_go_together() {
    let names = |folder: &str| -> BTreeSet<String> {
        entries(folder)
            .iter()
            .map(|path| path.file_stem().unwrap().to_string_lossy().into_owned())
            .collect()
    };
    let targets = TARGETS.map(|(name, _)| name.to_owned());
    let targets = BTreeSet::from(targets);
    assert_eq!(names("src/bin"), targets);
    assert_eq!(names("corpus"), targets);
    let manifest = include_str!("../Cargo.toml");
    for name in &targets {
        let program = format!("[[bin]]\nname = \"{name}\"\nrequired-features = [\"libfuzzer\"]\n");
        assert!(manifest.contains(&program), "Cargo.toml lacks\n{program}");
    }
}
