//! Duplicates: of several uids with the same content only the first to commit is evaluated.

use std::collections::BTreeMap;

use subnet::{BlockNumber, Uid};

/// What a uid has to show: the block of its commitment and the real hash of its content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// Block of the commitment.
    pub block: BlockNumber,
    /// Hash of the content as downloaded, whatever the commitment says.
    pub content: String,
}

/// Returns the copies, each with the uid whose content it is: the one of the oldest block, among
/// equal blocks the lowest uid.
pub fn copies(claims: &BTreeMap<Uid, Claim>) -> BTreeMap<Uid, Uid> {
    let mut originals: BTreeMap<&str, (BlockNumber, Uid)> = BTreeMap::new();
    for (uid, claim) in claims {
        let candidate = (claim.block, *uid);
        originals
            .entry(&claim.content)
            .and_modify(|first| *first = candidate.min(*first))
            .or_insert(candidate);
    }
    claims
        .iter()
        .filter_map(|(uid, claim)| {
            let (_, original) = originals.get(claim.content.as_str())?;
            (original != uid).then_some((*uid, *original))
        })
        .collect()
}
