//! Asking the remote what is new, and deciding what to make of it.

use std::cell::RefCell;

use git2::{AutotagOption, ErrorClass, ErrorCode, FetchOptions, Oid, RemoteCallbacks, Repository};

use super::{
    build, checkout, clone,
    local_changes::{self, refuse_unmerged},
    login::Login,
    release::Release,
    state::{LocalChange, Polled, Version},
    transport,
    upstream::Upstream,
    worktree,
};
use crate::{
    config::{Config, GitSource},
    error::{Blame, Fault},
    home::Home,
    job::{Answer, Poll, Reach},
};

/// Tips that are remembered.
const MAX_TIPS: usize = 256;
/// Tips that are taken over from the checkout's reflog at a time.
const MAX_SEEN: usize = 64;
/// Our own name for the branch that is followed.
const UPSTREAM: &str = "refs/supervisor/upstream";

pub(crate) fn poll(config: &Config, git: &GitSource, poll: &Poll) -> Answer {
    let tips = RefCell::new(poll.upstream.iter().filter_map(|id| parse(id)).collect());
    let found = look(config, git, poll, &tips);
    let upstream = tips.into_inner().iter().map(ToString::to_string).collect();
    Answer::Polled { upstream, found }
}

fn look(
    config: &Config,
    git: &GitSource,
    poll: &Poll,
    tips: &RefCell<Vec<Oid>>,
) -> Result<Polled, Fault> {
    let checkout = checkout::open(&config.repo)?;
    let decide = |source: &Repository| {
        let remote = Remote {
            config,
            git,
            poll,
            checkout: &checkout,
            source,
            tips,
        };
        remote.decide()
    };
    if poll.reach != Reach::Dry {
        return clone::with(&config.home, &checkout, decide);
    }
    let scratch = tempfile::tempdir()?;
    let source = clone::open(&Home::of(scratch.path(), "check"), &checkout)?;
    let known = config.home.source().join(".git/objects");
    source.odb()?.add_disk_alternate(&known.to_string_lossy())?;
    decide(&source)
}

/// One look at the remote.
struct Remote<'a> {
    config: &'a Config,
    git: &'a GitSource,
    poll: &'a Poll,
    checkout: &'a Repository,
    source: &'a Repository,
    /// Where the branch was ever seen.
    tips: &'a RefCell<Vec<Oid>>,
}

impl Remote<'_> {
    fn decide(&self) -> Result<Polled, Fault> {
        let upstream = Upstream::of(self.checkout, self.git);
        let Some(accepted) = &self.poll.accepted else {
            return self.first(upstream.ok().as_ref());
        };
        let lost = !Release::is_there(&self.config.home, &accepted.release);
        if lost && parse(&accepted.source).is_some_and(|id| self.source.find_commit(id).is_ok()) {
            // Somebody removed what should be running: building it again needs no news.
            return Ok(Polled::New(accepted.clone()));
        }
        let upstream = match upstream {
            Ok(upstream) => upstream,
            Err(fault) => {
                // A checkout in the middle of a rebase looks detached.
                refuse_unmerged(self.checkout)?;
                return Err(fault);
            }
        };
        let tip = self.fetch(&upstream)?;
        let asked = self.poll.forced || self.poll.local;
        if tip.to_string() == accepted.commit && !asked && !lost {
            return Ok(Polled::UpToDate);
        }
        if self.git.pin.is_none() {
            self.check_ancestry(tip, &upstream)?;
        }
        let version = self.version(tip, &self.came_from(Some(&upstream)))?;
        if version.release == accepted.release && !lost {
            return Ok(Polled::UpToDate);
        }
        let inputs =
            Release::read(&self.config.home, &accepted.release).map(|release| release.inputs);
        if let (Some(inputs), Some(old)) = (inputs, parse(&accepted.source))
            && worktree::builds_alike(self.source, old, &version.source, &inputs)?
        {
            return Ok(Polled::NoRebuild(version));
        }
        Ok(Polled::New(version))
    }

    /// The first version is what is checked out, so that it runs before anything is updated.
    fn first(&self, upstream: Option<&Upstream>) -> Result<Polled, Fault> {
        let head = self
            .checkout
            .head()
            .and_then(|head| head.peel_to_commit())
            .map_err(|error| {
                Fault::new(
                    Blame::Config,
                    format!("the checkout has no commit: {}", error.message()),
                )
            })?
            .id();
        let online = upstream.filter(|_| self.poll.reach != Reach::Checkout);
        let tip = match online.map(|upstream| self.fetch(upstream)) {
            Some(Err(fault)) if self.poll.reach == Reach::Dry => return Err(fault),
            // Without the network the checkout must do.
            tip => tip.and_then(Result::ok),
        };
        let came_from = self.came_from(upstream);
        let base = match tip {
            Some(tip) if self.git.pin.is_some() => tip,
            _ => self.newest_shared(head, &came_from).unwrap_or(head),
        };
        match (self.version(base, &came_from), tip) {
            // What is checked out may be what upstream took back.
            (Err(fault), Some(tip)) if fault.blame == Blame::Refused && tip != base => {
                let version = self.version(tip, &came_from).map_err(|_| fault)?;
                Ok(Polled::New(version))
            }
            (version, _) => version.map(Polled::New),
        }
    }

    /// Makes a version of an upstream commit and the local changes that belong on it.
    fn version(&self, upstream: Oid, came_from: &[Oid]) -> Result<Version, Fault> {
        let signer = self.verify(upstream)?;
        let hidden: Vec<Oid> = came_from.iter().copied().chain([upstream]).collect();
        let all = self.git.signers.is_none() || self.poll.local;
        let requested = &self.poll.requested;
        let wanted = |change: &LocalChange| all || requested.contains(&change.commit);
        let changes = local_changes::find(
            self.checkout,
            self.source,
            &hidden,
            all || !requested.is_empty(),
        )?;
        let (local, left_out) = changes.into_iter().partition(wanted);
        let version = worktree::combine(self.source, upstream, local, signer)?;
        let accepted = self.poll.accepted.as_ref();
        let known = accepted.and_then(|old| Release::read(&self.config.home, &old.release));
        let inputs = known.map(|release| release.inputs).unwrap_or_default();
        let files = worktree::build_inputs(self.source, &version.source, &inputs)?;
        Ok(Version {
            build: build::identity(self.config, &files),
            left_out,
            ..version
        })
    }

    /// Commits that were accepted: the remote has them, or had them.
    fn known(&self) -> impl Iterator<Item = Oid> {
        let accepted = self.poll.accepted.as_ref();
        let accepted = accepted.map(|version: &Version| version.commit.as_str());
        let known = [self.poll.trusted.as_deref(), accepted];
        known.into_iter().flatten().filter_map(parse)
    }

    /// Where commits that are not the operator's own came from: wherever the branch ever was, as
    /// far as we or the checkout have seen it. What upstream takes back does not become local.
    fn came_from(&self, upstream: Option<&Upstream>) -> Vec<Oid> {
        let mut from = self.tips.borrow().clone();
        from.extend(self.known());
        from.extend(
            upstream
                .iter()
                .flat_map(|upstream| upstream.seen_by(self.checkout)),
        );
        from
    }

    /// Returns the newest commit of `head`'s history that came from upstream.
    fn newest_shared(&self, head: Oid, came_from: &[Oid]) -> Option<Oid> {
        let shared = came_from
            .iter()
            .filter_map(|from| self.source.merge_base(head, *from).ok());
        shared.reduce(|best, other| {
            let newer = self.source.graph_descendant_of(other, best);
            if newer.unwrap_or(false) { other } else { best }
        })
    }

    /// Remembers where the branch was seen, newest last. One that a later one contains is worth
    /// keeping too: the later one may be taken back and get lost with our clone. It only goes first
    /// when there are too many.
    fn saw(&self, commits: impl IntoIterator<Item = Oid>) {
        let mut tips = self.tips.borrow_mut();
        for commit in commits {
            tips.retain(|old| *old != commit);
            tips.push(commit);
        }
        let Some(newest) = tips.last().copied() else {
            return;
        };
        let contains = |old: &Oid| {
            self.source
                .graph_descendant_of(newest, *old)
                .unwrap_or(false)
        };
        while tips.len() > MAX_TIPS {
            let oldest = tips.iter().position(contains).unwrap_or(0);
            tips.remove(oldest);
        }
    }

    /// Returns whether the remote has a commit, on the branch or under a tag.
    fn has(&self, tip: Oid, commit: Oid) -> bool {
        let reaches = || -> Result<bool, git2::Error> {
            let mut walk = self.source.revwalk()?;
            walk.push(tip)?;
            walk.push_glob("refs/tags/*")?;
            Ok(walk.any(|id| id == Ok(commit)))
        };
        reaches().unwrap_or(false)
    }

    fn check_ancestry(&self, tip: Oid, upstream: &Upstream) -> Result<(), Fault> {
        let Some(trusted) = self.poll.trusted.as_deref().and_then(parse) else {
            return Ok(());
        };
        let descends = |new, old| self.source.graph_descendant_of(new, old).unwrap_or(false);
        if tip == trusted || descends(tip, trusted) || self.git.follow_rewrites {
            return Ok(());
        }
        let what = if descends(trusted, tip) {
            "went back to an older commit"
        } else {
            "was rewritten"
        };
        let text = format!(
            "{} {what}: {tip:.12} does not descend from {trusted:.12}",
            upstream.branch
        );
        Err(Fault::new(Blame::Refused, text)
            .hint("if that is meant, run once with --on-rewrite accept")
            .on(tip))
    }

    fn verify(&self, tip: Oid) -> Result<Option<String>, Fault> {
        let Some(signers) = &self.git.signers else {
            return Ok(None);
        };
        let trusted = self.poll.trusted.as_deref().and_then(parse);
        let since = trusted.filter(|_| self.git.every_commit);
        super::verify::commits(self.source, tip, since, signers).map(Some)
    }

    /// Fetches the branch, and the pinned revision if there is one; returns the commit to go to.
    fn fetch(&self, upstream: &Upstream) -> Result<Oid, Fault> {
        let shown = upstream.shown();
        let room = shared::file::free_space(self.config.home.path())? / 2;
        let outside = |error: git2::Error| Fault {
            // Whatever the remote sends, it must not cost us the clone.
            broken_clone: local_changes::may_be_broken(&error)
                && !clone::is_sound(&self.config.home),
            ..fetch_fault(&error, &shown, room)
        };
        let head = self.checkout.head().ok().and_then(|head| head.target());
        let tips = self.tips.borrow().clone();
        let built = self.poll.accepted.as_ref();
        let built = built.and_then(|version| parse(&version.source));
        clone::keep(
            self.source,
            tips.into_iter()
                .chain(self.known())
                .chain(head)
                .chain(built),
        )?;
        clone::tidy(self.source, self.checkout)?;
        let mut remote = self
            .source
            .remote_anonymous(&upstream.url)
            .map_err(outside)?;
        let mut options = FetchOptions::new();
        let mut callbacks = RemoteCallbacks::new();
        callbacks.transfer_progress(move |progress| (progress.received_bytes() as u64) < room);
        options
            .remote_callbacks(callbacks)
            .download_tags(if self.git.pin.is_some() {
                AutotagOption::All
            } else {
                AutotagOption::None
            });
        let refspec = format!("+refs/heads/{}:{UPSTREAM}", upstream.branch);
        // What the checkout knows expires; the last is left by a fetch whose end nobody heard of.
        let seen = upstream.seen_by(self.checkout).into_iter().take(MAX_SEEN);
        let seen = seen.rev().filter(|id| self.source.find_commit(*id).is_ok());
        self.saw(seen.chain(self.source.refname_to_id(UPSTREAM)));
        // A branch that has vanished must not look like one that has not moved.
        let _ = self
            .source
            .find_reference(UPSTREAM)
            .and_then(|mut old| old.delete());
        let login = Login::of(self.config, self.git);
        transport::with_login(login, || remote.fetch(&[refspec], Some(&mut options), None))
            .map_err(outside)?;
        let tip = self.source.refname_to_id(UPSTREAM).map_err(|_| {
            let text = format!("{shown} has no branch {}", upstream.branch);
            Fault::new(Blame::Outside, text)
        })?;
        self.saw([tip]);
        let Some(pin) = &self.git.pin else {
            return Ok(tip);
        };
        let object = self.source.revparse_single(pin).map_err(|_| {
            Fault::new(
                Blame::Config,
                format!("the pinned revision {pin} is not on the remote"),
            )
        })?;
        let pinned = object.peel_to_commit();
        let pinned = pinned.map_err(|error| Fault::machine(&error))?.id();
        // The operator may pin a commit of their own, which stays their own.
        if self.has(tip, pinned) {
            self.saw([pinned, tip]);
        }
        Ok(pinned)
    }
}

fn fetch_fault(error: &git2::Error, shown: &str, room: u64) -> Fault {
    let (code, class) = (error.code(), error.class());
    let why = if code == ErrorCode::User {
        format!(
            "it sends more than half of the {} GiB free here",
            room >> 29
        )
    } else {
        error.message().to_owned()
    };
    let blame = match class {
        ErrorClass::Os | ErrorClass::Filesystem | ErrorClass::Odb => Blame::Machine,
        _ => Blame::Outside,
    };
    let mut fault = Fault::new(blame, format!("could not fetch {shown}: {why}"));
    if code == ErrorCode::Auth || code == ErrorCode::Certificate {
        fault = fault.hint("see docs/supervisor.md, Private remotes");
    }
    fault
}

fn parse(id: &str) -> Option<Oid> {
    Oid::from_str(id).ok()
}

#[cfg(test)]
mod tests;
