//! Asking the remote what is new, and deciding what to make of it.

use git2::{AutotagOption, ErrorClass, ErrorCode, FetchOptions, Oid, RemoteCallbacks, Repository};

use super::{
    checkout, clone,
    login::Login,
    release::Release,
    state::{Polled, Version},
    transport,
    upstream::Upstream,
    worktree::{self, LocalChanges},
};
use crate::{
    config::{Config, GitSource},
    error::{Blame, Fault},
    home::Home,
    job::Poll,
};

/// Our own name for the branch that is followed.
const UPSTREAM: &str = "refs/supervisor/upstream";

pub(crate) fn poll(config: &Config, git: &GitSource, poll: &Poll) -> Result<Polled, Fault> {
    let checkout = checkout::open(&config.repo)?;
    let decide = |source: &Repository| {
        let remote = Remote {
            config,
            git,
            poll,
            checkout: &checkout,
            source,
        };
        remote.decide()
    };
    if !poll.dry {
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
    /// The operator's.
    checkout: &'a Repository,
    /// Our own clone.
    source: &'a Repository,
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
        // Before anything else, as a checkout in the middle of a rebase looks detached.
        worktree::refuse_unmerged(self.checkout)?;
        let upstream = upstream?;
        let tip = self.fetch(&upstream)?;
        if tip.to_string() == accepted.commit && !self.poll.forced && !lost {
            return Ok(Polled::UpToDate);
        }
        if self.git.pin.is_none() {
            self.check_ancestry(tip, &upstream)?;
        }
        let signer = self.verify(tip)?;
        let local = LocalChanges::of(self.checkout, self.source, &self.hidden(&upstream, tip))?;
        let version = worktree::combine(self.source, tip, &local, signer)?;
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
        let online = upstream.filter(|_| !self.poll.offline);
        let tip = match online.map(|upstream| self.fetch(upstream)) {
            Some(Err(fault)) if self.poll.dry => return Err(fault),
            // Without the network the checkout must do.
            tip => tip.and_then(Result::ok),
        };
        let base = match tip {
            Some(tip) if self.git.pin.is_some() => tip,
            Some(tip) => self.source.merge_base(head, tip).unwrap_or(head),
            None => head,
        };
        let signer = self.verify(base)?;
        let local = LocalChanges::of(self.checkout, self.source, &[base])?;
        let version = worktree::combine(self.source, base, &local, signer)?;
        Ok(Polled::New(version))
    }

    /// Commits that were accepted: the remote has them, or had them.
    fn known(&self) -> impl Iterator<Item = Oid> {
        let accepted = self.poll.accepted.as_ref();
        let accepted = accepted.map(|version: &Version| version.commit.as_str());
        let known = [self.poll.trusted.as_deref(), accepted];
        known.into_iter().flatten().filter_map(parse)
    }

    /// Commits that are not the operator's own: they came from upstream, now or earlier.
    fn hidden(&self, upstream: &Upstream, tip: Oid) -> Vec<Oid> {
        let tracking = upstream
            .tracking
            .as_ref()
            .and_then(|name| self.checkout.refname_to_id(name).ok());
        let hidden = [tip].into_iter().chain(tracking);
        hidden.chain(self.known()).collect()
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
        let outside = |error: git2::Error| fetch_fault(&error, &shown, room);
        let head = self.checkout.head().ok().and_then(|head| head.target());
        clone::offer(self.source, self.known().chain(head))?;
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
        let Some(pin) = &self.git.pin else {
            return Ok(tip);
        };
        let object = self.source.revparse_single(pin).map_err(|_| {
            Fault::new(
                Blame::Config,
                format!("the pinned revision {pin} is not on the remote"),
            )
        })?;
        let commit = object.peel_to_commit();
        Ok(commit.map_err(|error| Fault::machine(&error))?.id())
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
    // Not what a remote can bring about with a bad pack.
    fault.broken_clone = matches!(class, ErrorClass::Odb | ErrorClass::Reference);
    if code == ErrorCode::Auth || code == ErrorCode::Certificate {
        fault = fault.hint("see docs/supervisor.md, Private remotes");
    }
    fault
}

fn parse(id: &str) -> Option<Oid> {
    Oid::from_str(id).ok()
}
