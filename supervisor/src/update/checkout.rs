//! The operator's checkout: read, never written.
//!
//! No program can move a work tree in one piece. Git itself leaves one that is half old and half
//! new when it is killed, and another git that holds `index.lock` at that moment makes it worse.
//! Nothing here needs it to move: versions are built from our own clone, and local changes are put
//! onto each new commit wherever the checkout stands. So it stays, and `status` says how far
//! behind what runs it is.

use std::path::Path;

use git2::{ErrorCode, Oid, Repository};

use crate::{
    error::{Blame, Fault},
    home::Home,
};

pub(crate) fn open(path: &Path) -> Result<Repository, Fault> {
    Repository::open(path).map_err(|error| {
        let shown = path.display();
        let text = format!("no git checkout at {shown}: {}", error.message());
        Fault::new(Blame::Config, text).hint(hint(path, &error))
    })
}

fn hint(path: &Path, error: &git2::Error) -> String {
    let shown = path.display();
    let format = error.message().to_ascii_lowercase();
    if error.code() == ErrorCode::Owner {
        format!(
            "it belongs to another user: run the supervisor as its owner, or trust it with \
             `git config --global --add safe.directory {shown}`"
        )
    } else if format.contains("objectformat") || format.contains("object format") {
        "it uses SHA-256, which the supervisor does not read: follow a repository with SHA-1 \
         objects, or use --channel release"
            .to_owned()
    } else if format.contains("refstorage") || format.contains("reftable") {
        format!(
            "it keeps its refs in a reftable, which the supervisor does not read: \
             `git -C {shown} refs migrate --ref-format=files`"
        )
    } else {
        "run the supervisor in the checkout, or name it with --repo".to_owned()
    }
}

/// Returns how many commits of `running` the checkout lacks; `None` where that can't be told.
pub(crate) fn behind(path: &Path, home: &Home, running: &str) -> Option<u64> {
    let head = Repository::open(path).ok()?.head().ok()?.target()?;
    // Our clone sees the objects of both.
    let source = Repository::open(home.source()).ok()?;
    let running = Oid::from_str(running).ok()?;
    let (_, behind) = source.graph_ahead_behind(head, running).ok()?;
    Some(behind as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hint_of(path: &Path) -> String {
        open(path).map(|_| ()).unwrap_err().hint.unwrap_or_default()
    }

    fn init(path: &Path, how: &str) -> bool {
        let git = shared::process::blocking_command("git")
            .args(["init", "-q", how])
            .arg(path)
            .output();
        git.unwrap().status.success()
    }

    #[test]
    fn what_can_not_be_read_is_named_with_the_way_out() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        assert!(hint_of(&at("none")).contains("--repo"));
        for (how, hint) in [
            ("--object-format=sha256", "SHA-1"),
            ("--ref-format=reftable", "--ref-format=files"),
        ] {
            if init(&at(how), how) {
                assert!(
                    hint_of(&at(how)).contains(hint),
                    "{how}: {}",
                    hint_of(&at(how))
                );
            } else {
                e2e::skip(&format!("git knows no {how}"));
            }
        }
        assert!(init(&at("foreign"), "--initial-branch=main"));
        for path in [at("foreign"), at("foreign/.git")] {
            if std::os::unix::fs::chown(&path, Some(1), None).is_err() {
                return e2e::skip("only root can give a file away");
            }
        }
        let hint = hint_of(&at("foreign"));
        assert!(hint.contains("safe.directory"), "{hint}");
    }
}
