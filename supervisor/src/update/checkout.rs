//! The operator's checkout follows the accepted version, where that loses nothing.

use std::path::Path;

use git2::{Oid, Repository, StatusOptions, build::CheckoutBuilder};

use crate::{
    error::{Blame, Fault},
    home::Home,
};

pub(crate) fn open(path: &Path) -> Result<Repository, Fault> {
    Repository::open(path).map_err(|error| {
        Fault::new(
            Blame::Config,
            format!("no git checkout at {}: {}", path.display(), error.message()),
        )
        .hint("run the supervisor in the checkout, or name it with --repo")
    })
}

/// Brings the checkout along to `commit`; where that would lose something, it stays where it is.
pub(crate) fn follow(repo: &Path, home: &Home, commit: &str) {
    if let Err(fault) = fast_forward(repo, home, commit) {
        tracing::info!(reason = %fault, "the checkout stays where it is");
    }
}

/// Moves the checked-out branch to `commit` if it is clean, on a branch, and behind.
fn fast_forward(repo: &Path, home: &Home, commit: &str) -> Result<(), Fault> {
    let stay = |why: &str| Err(Fault::new(Blame::Refused, why));
    let checkout = open(repo)?;
    let target = Oid::from_str(commit)?;
    let head = checkout.head()?;
    let from = head.peel_to_commit()?.id();
    if !head.is_branch() || checkout.state() != git2::RepositoryState::Clean {
        return stay("it is not on a branch, or in the middle of something");
    }
    if from == target {
        return Ok(());
    }
    let mut options = StatusOptions::new();
    options.include_untracked(false).include_ignored(false);
    if !checkout.statuses(Some(&mut options))?.is_empty() {
        return stay("it has uncommitted changes");
    }
    let source = Repository::open(home.source())?;
    if !source.graph_descendant_of(target, from).unwrap_or(false) {
        return stay("it has commits of its own");
    }
    take_objects(&checkout, &source, target)?;
    let commit = checkout.find_commit(target)?;
    checkout.checkout_tree(commit.as_object(), Some(&mut CheckoutBuilder::new()))?;
    let name = head.name()?.to_owned();
    checkout.reference(&name, target, true, "supervisor: fast-forward")?;
    Ok(())
}

fn take_objects(checkout: &Repository, source: &Repository, target: Oid) -> Result<(), Fault> {
    if checkout.find_commit(target).is_ok() {
        return Ok(());
    }
    source.reference("refs/supervisor/accepted", target, true, "accepted")?;
    let from = source.path().to_string_lossy().into_owned();
    let refspec = "+refs/supervisor/accepted:refs/supervisor/accepted";
    checkout
        .remote_anonymous(&from)?
        .fetch(&[refspec], None, None)?;
    checkout
        .find_reference("refs/supervisor/accepted")?
        .delete()?;
    Ok(())
}
