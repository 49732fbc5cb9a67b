//! A claim: what a commitment says of its model, held against the hub's listing and the hashes.

use std::str::FromStr;

use hub::{Listing, RepositoryName, address::is_commit};
use model::ContentHash;

use super::{
    Rejection,
    rejection::Judged,
    report::{ClaimMatch, Report},
    rules::Rules,
};
use subnet::{Hotkey, ModelId};

/// What a miner says of a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assertion {
    /// Where the model is, and what its content hash should be.
    pub model_id: ModelId,
    /// Who says so: the hash may be bound to this hotkey.
    pub hotkey: Option<Hotkey>,
}

pub(super) fn claimed_hash(model_id: &ModelId) -> Judged<ContentHash> {
    let text = model_id.hash.as_deref().unwrap_or("None");
    ContentHash::from_str(text)
        .map_err(|error| Rejection::refused(format!("its hash {text:?} is {error}")))
}

/// Reads repository and revision. Only a full commit names a model: of a branch the Python
/// validator hashes a folder that does not exist, and can't evaluate it later either.
pub(super) fn place(model_id: &ModelId) -> Judged<(RepositoryName, &str)> {
    let repository =
        RepositoryName::new(&model_id.namespace, &model_id.name).map_err(Rejection::refused)?;
    let revision = model_id.revision.as_deref().unwrap_or("None");
    if is_commit(revision) {
        Ok((repository, revision))
    } else {
        Err(Rejection::refused(format!(
            "its revision {revision:?} is not a full commit hash"
        )))
    }
}

pub(super) fn judge_listing(
    listing: &Listing,
    revision: &str,
    rules: &Rules,
    report: &mut Report,
) -> Judged<()> {
    if listing.commit != revision {
        let commit = &listing.commit;
        return Err(Rejection::refused(format!(
            "its revision {revision} is a name for commit {commit}, not a commit"
        )));
    }
    let Some(total) = listing.total_bytes() else {
        return Err(Rejection::refused(
            "the hub does not know the size of all its files",
        ));
    };
    report.repository_bytes = Some(total);
    let max = rules.max_repository_bytes;
    if total > max {
        return Err(Rejection::refused(format!(
            "the repository has {total} bytes, {max} are allowed"
        )));
    }
    Ok(())
}

/// Compares the claimed hash with the content hash, plain and bound to the hotkey.
pub(super) fn judge_claim(
    claimed: ContentHash,
    hash: ContentHash,
    hotkey: Option<Hotkey>,
    report: &mut Report,
) -> Judged<ClaimMatch> {
    report.content_hash = Some(hash);
    if claimed == hash {
        return Ok(ClaimMatch::Plain);
    }
    if hotkey.is_some_and(|hotkey| claimed == hash.bound_to(&hotkey.ss58())) {
        return Ok(ClaimMatch::Bound);
    }
    let reason = format!("its content hash is {hash}, the commitment says {claimed}");
    Err(Rejection::refused(reason))
}
