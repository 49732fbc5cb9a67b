//! The operator's commits and edits are put onto the new commit in our clone, never in the checkout.

use std::path::Path;

use git2::{
    ObjectType, Oid, Repository, SubmoduleUpdateOptions, TreeWalkMode, TreeWalkResult,
    build::CheckoutBuilder,
};

use sha2::{Digest, Sha256};

use super::{
    local_changes::{commit, conflicting_paths, may_be_broken, summary},
    state::{LocalChange, Version},
};
use crate::error::{Blame, Fault};

/// Puts local changes onto `upstream` and names the result. Nothing is checked out.
pub(crate) fn combine(
    source: &Repository,
    upstream: Oid,
    local: Vec<LocalChange>,
    signer: Option<String>,
) -> Result<Version, Fault> {
    let mut top = source.find_commit(upstream)?;
    let summary = summary(&top);
    let mut added = Vec::new();
    for change in local {
        let picked = source.find_commit(Oid::from_str(&change.commit)?)?;
        let mut index = source.cherrypick_commit(&picked, &top, 0, None)?;
        if index.has_conflicts() {
            let files: Vec<String> = conflicting_paths(&index)?.into_iter().collect();
            let text = format!(
                "local changes conflict with {upstream:.12} in {}",
                files.join(", ")
            );
            return Err(Fault::new(Blame::Refused, text)
                .hint(
                    "in the checkout run `git pull --rebase --autostash`, then `supervisor update`",
                )
                .on(upstream));
        }
        let tree = index.write_tree_to(source)?;
        // Already upstream.
        if tree != top.tree_id() {
            let message = picked.message().unwrap_or("local change").to_owned();
            let oid = commit(source, &source.find_tree(tree)?, &top, &message)?;
            top = source.find_commit(oid)?;
            added.push(change);
        }
    }
    let release = if top.id() == upstream {
        upstream.to_string()
    } else {
        format!("{upstream}-local-{:.8}", top.tree_id())
    };
    Ok(Version {
        commit: upstream.to_string(),
        release,
        source: top.id().to_string(),
        summary,
        signer,
        build: String::new(),
        local: added,
        left_out: Vec::new(),
    })
}

/// Returns whether nothing that the build reads differs between two commits. `inputs` are the
/// files the last build is known to have read; beyond those, only prose is taken for harmless.
pub(crate) fn builds_alike(
    source: &Repository,
    old: Oid,
    new: &str,
    inputs: &[String],
) -> Result<bool, Fault> {
    let Ok(old) = source.find_commit(old) else {
        return Ok(false);
    };
    let new = source.find_commit(Oid::from_str(new)?)?;
    let diff = source.diff_tree_to_tree(Some(&old.tree()?), Some(&new.tree()?), None)?;
    let alike = diff.deltas().all(|delta| {
        let files = [delta.old_file().path(), delta.new_file().path()];
        files.into_iter().flatten().all(|path| {
            let read = inputs.iter().any(|input| Path::new(input) == path);
            !read && is_prose(path)
        })
    });
    Ok(alike)
}

/// Returns a digest of the files of a commit that a build may read; see [`builds_alike`].
pub(crate) fn build_inputs(
    source: &Repository,
    commit: &str,
    inputs: &[String],
) -> Result<String, Fault> {
    let tree = source.find_commit(Oid::from_str(commit)?)?.tree()?;
    let mut digest = Sha256::new();
    tree.walk(TreeWalkMode::PreOrder, |folder, entry| {
        let path = [folder.as_bytes(), entry.name_bytes()].concat();
        let name = String::from_utf8_lossy(&path);
        let read = inputs.iter().any(|input| *input == *name) || !is_prose(Path::new(&*name));
        if read && entry.kind() != Some(ObjectType::Tree) {
            digest.update(&path);
            digest.update(entry.filemode().to_be_bytes());
            digest.update(entry.id().as_bytes());
        }
        TreeWalkResult::Ok
    })?;
    Ok(hex::encode(digest.finalize()))
}

fn is_prose(path: &Path) -> bool {
    let first = path
        .components()
        .next()
        .and_then(|first| first.as_os_str().to_str());
    let name = path
        .file_name()
        .and_then(|name| name.to_str())
        .unwrap_or_default();
    let extension = path
        .extension()
        .and_then(|extension| extension.to_str())
        .unwrap_or_default();
    matches!(extension, "md" | "png" | "jpg" | "svg")
        || matches!(first, Some("docs" | ".github"))
        || matches!(name, "LICENSE" | ".gitignore" | "CODEOWNERS")
}

/// Checks a version out into our worktree; files that do not change keep their time, so that
/// cargo rebuilds only what it must.
pub(crate) fn check_out(
    source: &Repository,
    version: &Version,
    origin: Option<&str>,
) -> Result<(), Fault> {
    let commit = source.find_commit(Oid::from_str(&version.source)?)?;
    let mut options = CheckoutBuilder::new();
    options.force().remove_untracked(true);
    source.checkout_tree(commit.as_object(), Some(&mut options))?;
    source.set_head_detached(commit.id())?;
    // Submodules with relative addresses are looked for beside the remote.
    if let Some(origin) = origin {
        match source.find_remote("origin") {
            Ok(_) => source.remote_set_url("origin", origin)?,
            Err(_) => drop(source.remote("origin", origin)?),
        }
    }
    update_submodules(source)
}

fn update_submodules(repository: &Repository) -> Result<(), Fault> {
    for mut submodule in repository.submodules()? {
        let name = String::from_utf8_lossy(submodule.name_bytes()).into_owned();
        let mut options = SubmoduleUpdateOptions::new();
        // Its address may have changed since it was first fetched.
        let update = submodule
            .sync()
            .and_then(|()| submodule.update(true, Some(&mut options)));
        update.map_err(|error| Fault {
            broken_clone: may_be_broken(&error),
            ..Fault::new(
                Blame::Outside,
                format!("submodule {name}: {}", error.message()),
            )
        })?;
        update_submodules(&submodule.open()?)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_prose_is_harmless() {
        for harmless in [
            "README.md",
            "docs/a.html",
            ".github/ci.yml",
            "LICENSE",
            "a/b.png",
        ] {
            assert!(is_prose(Path::new(harmless)), "{harmless}");
        }
        for read in [
            "src/main.rs",
            "Cargo.lock",
            "build.rs",
            "data.json",
            "a/docs/b.txt",
        ] {
            assert!(!is_prose(Path::new(read)), "{read}");
        }
    }
}
