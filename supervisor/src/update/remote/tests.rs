//! Whatever is pushed, rewritten, pulled, committed locally and restarted: what is to be built was
//! signed or asked for, and never holds what upstream took back. So with pins, and with the release
//! channel in between.

mod repositories;

use std::collections::BTreeSet;

use git2::{Oid, Repository, RepositoryInitOptions};
use proptest::prelude::*;
use ssh_key::{PrivateKey, private::Ed25519Keypair};
use tempfile::TempDir;

use self::repositories::{add_commit, config, files, head, own};
use super::poll;
use crate::{
    config::{Config, GitSource, ReleaseSource, Source},
    job::{Answer, Job, Poll, Reach, Task},
    update::{
        release::Release,
        state::{Polled, UpdateState, Version},
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
    /// Upstream tags a commit that is not on the branch, and the operator pins it.
    Pin {
        signed: bool,
    },
    Unpin,
    /// The operator checks out the pinned commit that is accepted.
    CheckOutPinned,
    /// The release channel is asked for a while.
    AskReleases,
    /// The checkout's memory of the branch expires after a poll.
    ExpireReflog,
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
        1 => prop::bool::weighted(0.8).prop_map(|signed| Action::Pin { signed }),
        2 => Just(Action::Unpin),
        2 => Just(Action::CheckOutPinned),
        1 => Just(Action::AskReleases),
        1 => Just(Action::ExpireReflog),
    ]
}

/// A remote, a checkout, and what a supervisor remembers. Each commit adds one file that is named
/// after where it was made, so that a tree tells what is in it.
struct World {
    dir: TempDir,
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
            dir,
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
            Action::Pin { signed } => self.pin(*signed),
            Action::Unpin => self.git_source().pin = None,
            Action::CheckOutPinned => self.check_out_pinned(),
            Action::AskReleases => self.ask_releases(),
            Action::ExpireReflog => {
                self.poll(false, false);
                let _ = std::fs::remove_dir_all(self.checkout.path().join("logs"));
            }
        }
    }

    fn git_source(&mut self) -> &mut GitSource {
        match &mut self.config.source {
            Source::Git(git) => git,
            Source::Releases(_) => unreachable!("the world is made with a branch"),
        }
    }

    fn pin(&mut self, signed: bool) {
        let before = head(&self.remote).id();
        self.push(signed);
        let tag = format!("tag-{}", self.made);
        let pinned = head(&self.remote);
        let name = format!("refs/tags/{tag}");
        self.remote.reference(&name, pinned.id(), true, "").unwrap();
        let main = "refs/heads/main";
        self.remote.reference(main, before, true, "").unwrap();
        drop(pinned);
        self.git_source().pin = Some(tag);
    }

    fn check_out_pinned(&mut self) {
        let (Some(pin), Some(accepted)) = (self.git_source().pin.clone(), &self.state.accepted)
        else {
            return;
        };
        let name = format!("refs/tags/{pin}");
        let pinned = self.remote.refname_to_id(&name).unwrap();
        if accepted.commit != pinned.to_string() {
            return;
        }
        let mut origin = self.checkout.find_remote("origin").unwrap();
        let refspec = format!("+{name}:{name}");
        origin.fetch(&[refspec], None, None).unwrap();
        let pinned = self.checkout.find_object(pinned, None).unwrap();
        self.checkout
            .reset(&pinned, git2::ResetType::Hard, None)
            .unwrap();
    }

    /// As the supervisor does it; nobody answers there.
    fn ask_releases(&mut self) {
        let source = Source::Releases(ReleaseSource {
            repository: "us/app".into(),
            api: Some("http://127.0.0.1:9".into()),
            keys: Vec::new(),
            threshold: 1,
            pin: None,
            allow_incompatible: false,
        });
        let job = Job {
            config: Config {
                source,
                ..self.config.clone()
            },
            task: Task::Poll(self.job(false, false)),
        };
        let Ok(Answer::Polled { upstream, .. }) = crate::worker::carry_out(&job) else {
            unreachable!("a poll answers with what it found");
        };
        self.state.upstream = upstream;
    }

    fn job(&self, local: bool, forced: bool) -> Poll {
        Poll {
            accepted: self.state.accepted.clone(),
            trusted: self.state.trusted.clone(),
            upstream: self.state.upstream.clone(),
            requested: self.state.requested.clone(),
            forced,
            local,
            reach: Reach::Remote,
        }
    }

    fn poll(&mut self, local: bool, forced: bool) {
        let Source::Git(git) = &self.config.source else {
            return;
        };
        let job = self.job(local, forced);
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
        self.git_source().pin = None;
        self.push(true);
        self.pull();
        self.poll(false, false);
        let tip = head(&self.remote).id().to_string();
        let accepted = self.state.accepted.as_ref().unwrap();
        assert_eq!((&accepted.commit, &accepted.release), (&tip, &tip));
    }
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

#[test]
fn a_tip_that_a_later_one_contained_is_remembered_when_that_one_is_lost() {
    let mut world = World::new(false);
    world.poll(false, false);
    world.push(true);
    world.pull();
    world.poll(false, false);
    world.push(true);
    world.poll(false, false);
    // Only the first of the two is left anywhere, and nothing says any more where it is from.
    world.act(&Action::LoseClone);
    std::fs::remove_dir_all(world.checkout.path().join("logs")).unwrap();
    let refs = world.checkout.path().join("refs/remotes");
    std::fs::remove_dir_all(refs).unwrap();
    world.act(&Action::Rewrite(2));
    world.push(true);
    world.poll(false, false);
    let tip = head(&world.remote).id().to_string();
    assert_eq!(world.state.accepted.as_ref().unwrap().release, tip);
}

#[test]
fn what_the_branch_was_before_the_oldest_entry_of_the_reflog_counts() {
    let mut world = World::new(false);
    let logs = world.checkout.path().join("logs");
    std::fs::remove_dir_all(&logs).unwrap();
    world.act(&Action::Rewrite(1));
    world.push(true);
    // The one entry that there is now says what came in place of what.
    world.push(true);
    world.pull();
    std::fs::remove_dir_all(&logs).unwrap();
    world.act(&Action::Rewrite(1));
    world.push(true);
    world.fetch();
    world.poll(false, false);
    assert_eq!(world.state.accepted.as_ref().unwrap().local, []);
}

#[test]
fn a_remote_that_is_no_repository_does_not_cost_the_clone() {
    let mut world = World::new(false);
    world.poll(false, false);
    let marker = world.config.home.source().join(".git/marker");
    shared::file::write_atomic(&marker, b"").unwrap();
    let (remote, away) = (
        world.remote.path().to_owned(),
        world.dir.path().join("away"),
    );
    std::fs::rename(&remote, &away).unwrap();
    std::fs::create_dir(&remote).unwrap();
    let Source::Git(git) = &world.config.source else {
        return;
    };
    let Answer::Polled { found, .. } = poll(&world.config, git, &world.job(false, false)) else {
        return;
    };
    assert!(found.unwrap_err().message.contains("could not fetch"));
    assert!(marker.exists());
    // One that is broken is made anew.
    let broken = world
        .config
        .home
        .source()
        .join(".git/refs/supervisor/upstream");
    shared::file::write_atomic(&broken, b"nonsense\n").unwrap();
    let _ = poll(&world.config, git, &world.job(false, false));
    assert!(!marker.exists());
}
