//! Repositories whose trees tell what is in them, and a configuration that follows one.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    time::Duration,
};

use git2::{Commit, Repository, Signature, Tree, TreeWalkMode};
use ssh_key::{HashAlg, LineEnding, PrivateKey};

use crate::{
    child::spec::Spec,
    config::{BuildConfig, BuildSandbox, Config, GitSource, Hooks, LogConfig, Source},
    home::Home,
    update::state::UpdatePolicy,
};

pub(super) fn config(state: &Path, repo: PathBuf, signers: Option<PathBuf>) -> Config {
    Config {
        child_name: "app".into(),
        home: Home::of(state, "app"),
        child: Spec {
            program: "app".into(),
            args: Vec::new(),
            cwd: repo.clone(),
            nice: 0,
            watchdog: Duration::ZERO,
            memory_max: None,
        },
        stop_timeout: Duration::ZERO,
        policy: UpdatePolicy {
            interval: Duration::ZERO,
            jitter: Duration::ZERO,
            hold_off: Duration::ZERO,
            ready_timeout: Duration::ZERO,
            probation: Duration::ZERO,
            max_wait: Duration::ZERO,
            updates: true,
        },
        window: None,
        repo,
        source: Source::Git(GitSource {
            remote: None,
            branch: None,
            pin: None,
            ssh_keys: Vec::new(),
            signers,
            every_commit: false,
            follow_rewrites: true,
        }),
        build: BuildConfig {
            bins: Vec::new(),
            profile: "dev".into(),
            features: Vec::new(),
            target_dir: state.join("target"),
            check: None,
            sandbox: BuildSandbox::Full,
            environment: Vec::new(),
            paths: Vec::new(),
            fetch_timeout: Duration::ZERO,
            build_timeout: Duration::ZERO,
            min_disk: 0,
            min_memory: 0,
        },
        keep_releases: 3,
        log: LogConfig {
            dir: state.to_owned(),
            max_bytes: 0,
            keep: 0,
            echo: false,
            filter: "info".into(),
            json: false,
        },
        hooks: Hooks::default(),
        notify: Vec::new(),
        manager: None,
        metrics_addr: None,
    }
}

pub(super) fn head(repository: &Repository) -> Commit<'_> {
    let main = repository.refname_to_id("refs/heads/main").unwrap();
    repository.find_commit(main).unwrap()
}

/// Commits one more file onto the branch.
pub(super) fn add_commit(repository: &Repository, name: &str, key: Option<&PrivateKey>) {
    let parent = repository.refname_to_id("refs/heads/main").ok();
    let parent = parent.map(|id| repository.find_commit(id).unwrap());
    let tree = parent.as_ref().map(|parent| parent.tree().unwrap());
    let mut builder = repository.treebuilder(tree.as_ref()).unwrap();
    let blob = repository.blob(name.as_bytes()).unwrap();
    builder.insert(name, blob, 0o100_644).unwrap();
    let tree: Tree<'_> = repository.find_tree(builder.write().unwrap()).unwrap();
    let who = Signature::now("t", "t@example.org").unwrap();
    let parents: Vec<&Commit<'_>> = parent.iter().collect();
    let buffer = repository.commit_create_buffer(&who, &who, name, &tree, &parents);
    let buffer = buffer.unwrap();
    let text = std::str::from_utf8(&buffer).unwrap();
    let commit = match key {
        Some(key) => {
            let signature = key.sign("git", HashAlg::Sha512, text.as_bytes()).unwrap();
            let pem = signature.to_pem(LineEnding::LF).unwrap();
            repository.commit_signed(text, pem.trim_end(), None)
        }
        None => repository
            .odb()
            .unwrap()
            .write(git2::ObjectType::Commit, text.as_bytes()),
    };
    let main = "refs/heads/main";
    repository
        .reference(main, commit.unwrap(), true, "")
        .unwrap();
}

pub(super) fn files(commit: &Commit<'_>) -> BTreeSet<String> {
    let mut files = BTreeSet::new();
    let walk = commit
        .tree()
        .unwrap()
        .walk(TreeWalkMode::PreOrder, |_, entry| {
            files.insert(entry.name().unwrap().to_owned());
            0
        });
    walk.unwrap();
    files
}

pub(super) fn own(files: &BTreeSet<String>) -> BTreeSet<String> {
    let own = files.iter().filter(|name| name.starts_with("own-"));
    own.cloned().collect()
}
