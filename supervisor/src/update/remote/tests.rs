//! Whatever is pushed, rewritten, pulled, committed locally and restarted: what is to be built was
//! signed or asked for, and never holds what upstream took back.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    time::Duration,
};

use git2::{Commit, Oid, Repository, RepositoryInitOptions, Signature, Tree, TreeWalkMode};
use proptest::prelude::*;
use ssh_key::{HashAlg, LineEnding, PrivateKey, private::Ed25519Keypair};
use tempfile::TempDir;

use super::poll;
use crate::{
    child::spec::Spec,
    config::{BuildConfig, BuildSandbox, Config, GitSource, Hooks, LogConfig, Source},
    home::Home,
    job::{Answer, Poll, Reach},
    update::{
        release::Release,
        state::{Polled, UpdatePolicy, UpdateState, Version},
    },
};

#[derive(Debug, Clone)]
enum Action {
    Push {
        signed: bool,
    },
    /// The branch is put back by this many commits.
    Rewrite(usize),
    Fetch,
    /// The operator makes the checkout what was last fetched.
    Pull,
    /// The operator commits in the checkout.
    Commit,
    Poll {
        local: bool,
        forced: bool,
    },
    Restart,
    LoseClone,
}

fn action() -> impl Strategy<Value = Action> {
    prop_oneof![
        4 => prop::bool::weighted(0.8).prop_map(|signed| Action::Push { signed }),
        2 => (1_usize..4).prop_map(Action::Rewrite),
        1 => Just(Action::Fetch),
        1 => Just(Action::Pull),
        1 => Just(Action::Commit),
        8 => (prop::bool::weighted(0.1), prop::bool::weighted(0.2))
            .prop_map(|(local, forced)| Action::Poll { local, forced }),
        1 => Just(Action::Restart),
        1 => Just(Action::LoseClone),
    ]
}

/// A remote, a checkout, and what a supervisor remembers. Each commit adds one file that is named
/// after where it was made, so that a tree tells what is in it.
struct World {
    _dir: TempDir,
    config: Config,
    key: PrivateKey,
    remote: Repository,
    checkout: Repository,
    state: UpdateState,
    made: u32,
    /// Files of the operator's that were asked for.
    asked: BTreeSet<String>,
}

impl World {
    fn new(require_signed: bool) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let key = PrivateKey::from(Ed25519Keypair::from_seed(&[7; 32]));
        let signers = at("signers");
        let line = format!("t@example.org {}\n", key.public_key().to_openssh().unwrap());
        shared::file::write_atomic(&signers, line.as_bytes()).unwrap();
        let mut options = RepositoryInitOptions::new();
        options.initial_head("main");
        let remote = Repository::init_opts(at("remote"), options.bare(true)).unwrap();
        let checkout = Repository::init_opts(at("checkout"), options.bare(false)).unwrap();
        let url = at("remote").display().to_string();
        checkout.remote("origin", &url).unwrap();
        let signers = require_signed.then_some(signers);
        let config = config(&at("state"), at("checkout"), signers);
        let mut world = Self {
            _dir: dir,
            config,
            key,
            remote,
            checkout,
            state: UpdateState::default(),
            made: 0,
            asked: BTreeSet::new(),
        };
        world.push(true);
        world.pull();
        let mut config = world.checkout.config().unwrap();
        config.set_str("branch.main.remote", "origin").unwrap();
        let branch = "refs/heads/main";
        config.set_str("branch.main.merge", branch).unwrap();
        world
    }

    fn push(&mut self, signed: bool) {
        self.made += 1;
        let name = format!("upstream-{}", self.made);
        let key = signed.then_some(&self.key);
        add_commit(&self.remote, &name, key);
    }

    fn fetch(&self) {
        let mut origin = self.checkout.find_remote("origin").unwrap();
        let refspec = "+refs/heads/main:refs/remotes/origin/main";
        origin.fetch(&[refspec], None, None).unwrap();
    }

    fn pull(&self) {
        self.fetch();
        let tip = self.checkout.refname_to_id("refs/remotes/origin/main");
        let tip = self.checkout.find_object(tip.unwrap(), None).unwrap();
        let main = "refs/heads/main";
        self.checkout.reference(main, tip.id(), true, "").unwrap();
        self.checkout
            .reset(&tip, git2::ResetType::Hard, None)
            .unwrap();
    }

    fn act(&mut self, action: &Action) {
        match action {
            Action::Push { signed } => self.push(*signed),
            Action::Rewrite(by) => {
                let mut tip = head(&self.remote);
                for _ in 0..*by {
                    tip = tip.parent(0).unwrap_or(tip);
                }
                let main = "refs/heads/main";
                self.remote.reference(main, tip.id(), true, "").unwrap();
            }
            Action::Fetch => self.fetch(),
            Action::Pull => self.pull(),
            Action::Commit => {
                self.made += 1;
                let name = format!("own-{}", self.made);
                add_commit(&self.checkout, &name, None);
                let tip = head(&self.checkout).into_object();
                self.checkout
                    .reset(&tip, git2::ResetType::Hard, None)
                    .unwrap();
            }
            Action::Poll { local, forced } => self.poll(*local, *forced),
            Action::Restart => {
                let journal = serde_json::to_string(&self.state).unwrap();
                self.state = serde_json::from_str(&journal).unwrap();
            }
            Action::LoseClone => {
                let _ = std::fs::remove_dir_all(self.config.home.source());
            }
        }
    }

    fn poll(&mut self, local: bool, forced: bool) {
        let Source::Git(git) = &self.config.source else {
            return;
        };
        let job = Poll {
            accepted: self.state.accepted.clone(),
            trusted: self.state.trusted.clone(),
            upstream: self.state.upstream.clone(),
            requested: self.state.requested.clone(),
            forced,
            local,
            reach: Reach::Remote,
        };
        let Answer::Polled { upstream, found } = poll(&self.config, git, &job) else {
            unreachable!("a poll answers with what it found");
        };
        self.state.upstream = upstream;
        if let Ok(Polled::New(version) | Polled::NoRebuild(version)) = found {
            if local {
                self.asked.extend(own(&files(&head(&self.checkout))));
                let ids = version.local.iter().map(|change| change.commit.clone());
                self.state.requested = ids.collect();
            }
            self.judge(git, &version);
            self.state.trusted = Some(version.commit.clone());
            Release::install(&self.config.home, &version, &[], 0, Vec::new()).unwrap();
            self.state.accepted = Some(version);
        }
    }

    fn judge(&self, git: &GitSource, version: &Version) {
        let source = Repository::open(self.config.home.source()).unwrap();
        let find = |id: &str| source.find_commit(Oid::from_str(id).unwrap()).unwrap();
        let upstream = find(&version.commit);
        let added: BTreeSet<String> = files(&find(&version.source))
            .difference(&files(&upstream))
            .cloned()
            .collect();
        assert_eq!(
            added,
            own(&added),
            "what upstream took back is in {version:?}"
        );
        if git.signers.is_some() {
            assert!(
                upstream.header_field_bytes("gpgsig").is_ok(),
                "unsigned: {version:?}"
            );
            assert!(
                added.is_subset(&self.asked),
                "nobody asked for {added:?} in {version:?}"
            );
        }
    }

    /// From here on all goes well: a new signed commit is taken, and nothing else with it.
    fn settle(&mut self) {
        self.push(true);
        self.pull();
        self.poll(false, false);
        let tip = head(&self.remote).id().to_string();
        let accepted = self.state.accepted.as_ref().unwrap();
        assert_eq!((&accepted.commit, &accepted.release), (&tip, &tip));
    }
}

fn config(state: &Path, repo: PathBuf, signers: Option<PathBuf>) -> Config {
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

fn head(repository: &Repository) -> Commit<'_> {
    let main = repository.refname_to_id("refs/heads/main").unwrap();
    repository.find_commit(main).unwrap()
}

/// Commits one more file onto the branch.
fn add_commit(repository: &Repository, name: &str, key: Option<&PrivateKey>) {
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

fn files(commit: &Commit<'_>) -> BTreeSet<String> {
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

fn own(files: &BTreeSet<String>) -> BTreeSet<String> {
    let own = files.iter().filter(|name| name.starts_with("own-"));
    own.cloned().collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]
    #[test]
    fn what_is_built_was_signed_or_asked_for(
        require_signed in any::<bool>(),
        actions in prop::collection::vec(action(), 10..50),
    ) {
        let mut world = World::new(require_signed);
        for action in &actions {
            world.act(action);
        }
        world.settle();
    }
}
