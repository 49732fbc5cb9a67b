//! Asking the remote what is new, and deciding what to make of it.

use std::path::Path;

use git2::{AutotagOption, ErrorClass, ErrorCode, FetchOptions, Oid, RemoteCallbacks, Repository};

use super::{
    channel, clone,
    login::Login,
    release::Release,
    state::Polled,
    transport,
    worktree::{self, Local},
};
use crate::{
    error::{Blame, Fault},
    home::Home,
    job::Poll,
};

/// Our own name for the branch that is followed.
const UPSTREAM: &str = "refs/supervisor/upstream";

/// Where updates come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upstream {
    /// Address of the remote.
    pub url: String,
    /// The branch.
    pub branch: String,
    /// The checkout's own name for the branch, if it has one.
    pub tracking: Option<String>,
}

impl Upstream {
    /// Finds the branch to follow: what was asked for, else the upstream of the checked-out branch.
    pub fn of(
        checkout: &Repository,
        remote: Option<&str>,
        branch: Option<&str>,
    ) -> Result<Self, Fault> {
        let head = checkout.find_reference("HEAD").ok();
        let local = head
            .as_ref()
            .and_then(|head| head.symbolic_target().ok().flatten());
        let upstream = local.and_then(|local| {
            let remote = checkout.branch_upstream_remote(local).ok()?;
            let merge = checkout.branch_upstream_merge(local).ok()?;
            let name = merge.as_str().ok()?.strip_prefix("refs/heads/")?.to_owned();
            Some((remote.as_str().ok()?.to_owned(), name))
        });
        let (default_remote, default_branch) = match upstream {
            Some((remote, branch)) => (Some(remote), Some(branch)),
            None => (None, None),
        };
        let remote = remote.map(str::to_owned).or(default_remote);
        let Some(branch) = branch.map(str::to_owned).or(default_branch) else {
            let what = if local.is_some() {
                "a branch without upstream"
            } else {
                "a detached HEAD"
            };
            return Err(Fault::new(
                Blame::Config,
                format!("the checkout is on {what}: no updates"),
            )
            .hint("say what to follow with --branch (and --remote)"));
        };
        let remote = remote.unwrap_or_else(|| "origin".to_owned());
        let url = match checkout.find_remote(&remote) {
            Ok(found) => found
                .url()
                .map_err(|error| Fault::machine(&error))?
                .to_owned(),
            Err(_) if remote.contains(['/', ':']) => remote.clone(),
            Err(_) => {
                let text = format!("the checkout has no remote called {remote}");
                return Err(Fault::new(Blame::Config, text).hint("see `git remote -v`"));
            }
        };
        let tracking = Some(format!("refs/remotes/{remote}/{branch}"));
        Ok(Self {
            url: absolute(&url, checkout),
            branch,
            tracking,
        })
    }
}

/// A relative path in a remote's address is relative to the checkout, not to our clone.
fn absolute(url: &str, checkout: &Repository) -> String {
    let relative = !url.contains(':') && !Path::new(url).is_absolute();
    match checkout.workdir() {
        Some(folder) if relative => folder.join(url).to_string_lossy().into_owned(),
        _ => url.to_owned(),
    }
}

/// Looks for something new.
pub fn poll(job: &Poll) -> Result<Polled, Fault> {
    if let Some(downloads) = &job.downloads {
        return channel::poll(job, downloads);
    }
    let checkout = open_checkout(&job.repo)?;
    if !job.dry {
        return clone::with(&job.home, &checkout, |source| {
            decide(job, &checkout, source)
        });
    }
    let scratch = tempfile::tempdir()?;
    let source = clone::open(&Home::of(scratch.path(), "check"), &checkout)?;
    let known = job.home.source().join(".git/objects");
    source.odb()?.add_disk_alternate(&known.to_string_lossy())?;
    decide(job, &checkout, &source)
}

fn decide(job: &Poll, checkout: &Repository, source: &Repository) -> Result<Polled, Fault> {
    let upstream = Upstream::of(checkout, job.remote.as_deref(), job.branch.as_deref());
    let Some(accepted) = &job.accepted else {
        return first(job, checkout, source, upstream.ok().as_ref());
    };
    if !Release::is_there(&job.home, &accepted.release)
        && parse(&accepted.source).is_some_and(|id| source.find_commit(id).is_ok())
    {
        // Somebody removed what should be running: no news are needed to build it again.
        return Ok(Polled::New(accepted.clone()));
    }
    // Before anything else, as a checkout in the middle of a rebase looks detached.
    worktree::refuse_unmerged(checkout)?;
    let upstream = upstream?;
    let tip = fetch(job, checkout, source, &upstream)?;
    let lost = !Release::is_there(&job.home, &accepted.release);
    if tip.to_string() == accepted.commit && !job.forced && !lost {
        return Ok(Polled::UpToDate);
    }
    if job.pin.is_none() {
        check_ancestry(job, source, tip, &upstream)?;
    }
    let signer = verify(job, source, tip)?;
    let local = Local::of(checkout, source, &hidden(job, checkout, &upstream, tip))?;
    let version = worktree::combine(source, tip, &local, signer)?;
    if version.release == accepted.release && !lost {
        return Ok(Polled::UpToDate);
    }
    let inputs = Release::read(&job.home, &accepted.release).map(|release| release.inputs);
    if let (Some(inputs), Ok(old)) = (inputs, Oid::from_str(&accepted.source))
        && worktree::builds_alike(source, old, &version.source, &inputs)?
    {
        return Ok(Polled::NoRebuild(version));
    }
    Ok(Polled::New(version))
}

/// The first version is what is checked out, so that it runs before anything is updated.
fn first(
    job: &Poll,
    checkout: &Repository,
    source: &Repository,
    upstream: Option<&Upstream>,
) -> Result<Polled, Fault> {
    let head = checkout
        .head()
        .and_then(|head| head.peel_to_commit())
        .map_err(|error| {
            Fault::new(
                Blame::Config,
                format!("the checkout has no commit: {}", error.message()),
            )
        })?
        .id();
    let online = upstream.filter(|_| !job.offline);
    let tip = match online.map(|upstream| fetch(job, checkout, source, upstream)) {
        Some(Err(fault)) if job.dry => return Err(fault),
        // Without the network the checkout must do.
        tip => tip.and_then(Result::ok),
    };
    let base = match tip {
        Some(tip) if job.pin.is_some() => tip,
        Some(tip) => source.merge_base(head, tip).unwrap_or(head),
        None => head,
    };
    let signer = verify(job, source, base)?;
    let local = Local::of(checkout, source, &[base])?;
    Ok(Polled::New(worktree::combine(
        source, base, &local, signer,
    )?))
}

/// Opens the operator's checkout.
pub fn open_checkout(path: &Path) -> Result<Repository, Fault> {
    Repository::open(path).map_err(|error| {
        Fault::new(
            Blame::Config,
            format!("no git checkout at {}: {}", path.display(), error.message()),
        )
        .hint("run the supervisor in the checkout, or name it with --repo")
    })
}

/// Commits that are not the operator's own: they came from upstream, now or earlier.
fn hidden(job: &Poll, checkout: &Repository, upstream: &Upstream, tip: Oid) -> Vec<Oid> {
    let tracking = upstream
        .tracking
        .as_ref()
        .and_then(|name| checkout.refname_to_id(name).ok());
    let known = [
        job.trusted.as_deref(),
        job.accepted.as_ref().map(|a| a.commit.as_str()),
    ];
    let known = known.into_iter().flatten().filter_map(parse);
    [tip].into_iter().chain(tracking).chain(known).collect()
}

fn parse(id: &str) -> Option<Oid> {
    Oid::from_str(id).ok()
}

fn check_ancestry(
    job: &Poll,
    source: &Repository,
    tip: Oid,
    upstream: &Upstream,
) -> Result<(), Fault> {
    let Some(trusted) = job.trusted.as_deref().and_then(parse) else {
        return Ok(());
    };
    if tip == trusted || source.graph_descendant_of(tip, trusted).unwrap_or(false) {
        return Ok(());
    }
    if job.follow_rewrites {
        return Ok(());
    }
    let older = source.graph_descendant_of(trusted, tip).unwrap_or(false);
    let what = if older {
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

fn verify(job: &Poll, source: &Repository, tip: Oid) -> Result<Option<String>, Fault> {
    let Some(signers) = &job.signers else {
        return Ok(None);
    };
    let trusted = job.trusted.as_deref().and_then(parse);
    super::verify::commits(source, tip, trusted.filter(|_| job.every_commit), signers).map(Some)
}

/// Fetches the branch, and the pinned revision if there is one; returns the commit to go to.
fn fetch(
    job: &Poll,
    checkout: &Repository,
    source: &Repository,
    upstream: &Upstream,
) -> Result<Oid, Fault> {
    let shown = hide_secret(&upstream.url);
    let room = shared::file::free_space(job.home.path())? / 2;
    let outside = |error: git2::Error| {
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
    };
    let head = checkout.head().ok().and_then(|head| head.target());
    let known = [
        job.trusted.as_deref(),
        job.accepted.as_ref().map(|version| version.commit.as_str()),
    ];
    clone::offer(
        source,
        known.into_iter().flatten().filter_map(parse).chain(head),
    )?;
    let mut remote = source.remote_anonymous(&upstream.url).map_err(outside)?;
    let mut options = FetchOptions::new();
    let mut callbacks = RemoteCallbacks::new();
    callbacks.transfer_progress(move |progress| (progress.received_bytes() as u64) < room);
    options
        .remote_callbacks(callbacks)
        .download_tags(if job.pin.is_some() {
            AutotagOption::All
        } else {
            AutotagOption::None
        });
    let refspec = format!("+refs/heads/{}:{UPSTREAM}", upstream.branch);
    // A branch that has vanished must not look like one that has not moved.
    let _ = source
        .find_reference(UPSTREAM)
        .and_then(|mut old| old.delete());
    let login = Login {
        checkout: job.repo.clone(),
        ssh_keys: job.ssh_keys.clone(),
    };
    transport::with_login(login, || remote.fetch(&[refspec], Some(&mut options), None))
        .map_err(outside)?;
    let tip = source.refname_to_id(UPSTREAM).map_err(|_| {
        let text = format!("{shown} has no branch {}", upstream.branch);
        Fault::new(Blame::Outside, text)
    })?;
    let Some(pin) = &job.pin else { return Ok(tip) };
    let object = source.revparse_single(pin).map_err(|_| {
        Fault::new(
            Blame::Config,
            format!("the pinned revision {pin} is not on the remote"),
        )
    })?;
    Ok(object
        .peel_to_commit()
        .map_err(|error| Fault::machine(&error))?
        .id())
}

/// Leaves out a password or token in an address.
fn hide_secret(url: &str) -> String {
    match (url.find("://"), url.find('@')) {
        (Some(scheme), Some(at)) if at > scheme => {
            format!("{}***{}", &url[..scheme + 3], &url[at..])
        }
        _ => url.to_owned(),
    }
}
