//! Which branch of which remote is followed.

use std::path::Path;

use git2::{Oid, Repository};

use crate::{
    config::GitSource,
    error::{Blame, Fault},
};

/// Entries of a reflog that are looked at.
const MAX_REFLOG: usize = 1000;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Upstream {
    /// Of the remote; may hold a password, see [`Self::shown`].
    pub(crate) url: String,
    pub(crate) branch: String,
    /// The checkout's own names for the branch.
    tracking: Vec<String>,
}

impl Upstream {
    /// Finds the branch to follow: what was asked for, else the upstream of the checked-out branch.
    pub(crate) fn of(checkout: &Repository, git: &GitSource) -> Result<Self, Fault> {
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
        let remote = git.remote.clone().or(default_remote);
        let Some(branch) = git.branch.clone().or(default_branch) else {
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
        let url = absolute(&url, checkout);
        let tracking = tracking(checkout, &url, &branch);
        Ok(Self {
            url,
            branch,
            tracking,
        })
    }

    /// Returns where the checkout has seen the branch, now and, as far as it remembers, earlier.
    pub(crate) fn seen_by(&self, checkout: &Repository) -> Vec<Oid> {
        let mut seen = Vec::new();
        for name in &self.tracking {
            seen.extend(checkout.refname_to_id(name));
            if let Ok(log) = checkout.reflog(name) {
                let entries = log.iter().take(MAX_REFLOG);
                // The entry that made an old one new may have expired, or be beyond the limit.
                seen.extend(entries.flat_map(|entry| [entry.id_new(), entry.id_old()]));
            }
        }
        seen.retain(|id| !id.is_zero());
        seen
    }

    /// The address without a password or token.
    pub(crate) fn shown(&self) -> String {
        hide_secret(&self.url)
    }
}

/// A remote that was named by its address may have names in the checkout all the same.
fn tracking(checkout: &Repository, url: &str, branch: &str) -> Vec<String> {
    let names = checkout.remotes().ok();
    let names = names.iter().flat_map(|names| names.iter());
    names
        .filter_map(|name| name.ok().flatten())
        .filter(|name| {
            let remote = checkout.find_remote(name);
            remote.is_ok_and(|remote| remote.url().is_ok_and(|of| absolute(of, checkout) == url))
        })
        .map(|name| format!("refs/remotes/{name}/{branch}"))
        .collect()
}

/// A relative path in a remote's address is relative to the checkout, not to our clone.
fn absolute(url: &str, checkout: &Repository) -> String {
    let relative = !url.contains(':') && !Path::new(url).is_absolute();
    match checkout.workdir() {
        Some(folder) if relative => folder.join(url).to_string_lossy().into_owned(),
        _ => url.to_owned(),
    }
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
