//! The runtime's metadata, with types under the paths they have on Bittensor's chain: some
//! clients, Python's among them, tell calls and events by their path.

use codec::Encode;
use sp_core::OpaqueMetadata;

use super::Runtime;

/// Versions of metadata that the chain serves.
pub const VERSIONS: [u32; 3] = [14, 15, 16];

/// Where our types are, and where Bittensor's.
const PATHS: [(&[&str], &[&str]); 5] = [
    (
        &["localnet", "chain", "runtime", "subtensor"],
        &["pallet_subtensor"],
    ),
    (
        &["localnet", "chain", "runtime", "commitments"],
        &["pallet_commitments"],
    ),
    (
        &["localnet", "chain", "runtime", "drand"],
        &["pallet_drand"],
    ),
    (
        &["localnet", "chain", "runtime", "safe_mode"],
        &["pallet_safe_mode"],
    ),
    (
        &["localnet", "chain", "runtime"],
        &["node_subtensor_runtime"],
    ),
];

/// Returns the metadata in a version; `None` for one that the chain does not serve.
pub fn at_version(version: u32) -> Option<OpaqueMetadata> {
    let served = VERSIONS.contains(&version);
    let metadata = served.then(|| Runtime::metadata_at_version(version))??;
    Some(OpaqueMetadata::new(with_paths(metadata.to_vec())))
}

/// Returns the metadata in version 14, which older clients read.
pub fn v14() -> Vec<u8> {
    with_paths(Runtime::metadata().encode())
}

/// Renames paths in encoded metadata. A path is a list of strings, so its encoding begins with the
/// number of its segments, of which up to three follow those renamed.
fn with_paths(mut metadata: Vec<u8>) -> Vec<u8> {
    for (ours, theirs) in PATHS {
        for more in 1..=3 {
            let from = beginning(ours, more);
            let to = beginning(theirs, more);
            metadata = replaced(&metadata, &from, &to);
        }
    }
    metadata
}

/// Encodes the first segments of a path that has `more` of them.
fn beginning(segments: &[&str], more: usize) -> Vec<u8> {
    let count = codec::Compact((segments.len() + more) as u32);
    let names = segments.iter().flat_map(Encode::encode);
    count.encode().into_iter().chain(names).collect()
}

fn replaced(bytes: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    let mut replaced = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let Some((first, after)) = rest.split_first() {
        if let Some(after) = rest.strip_prefix(from) {
            replaced.extend_from_slice(to);
            rest = after;
        } else {
            replaced.push(*first);
            rest = after;
        }
    }
    replaced
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_renamed_with_their_length() {
        let path = |segments: &[&str]| segments.to_vec().encode();
        let ours = [
            path(&["localnet", "chain", "runtime", "RuntimeCall"]),
            vec![9],
        ]
        .concat();
        let theirs = [path(&["node_subtensor_runtime", "RuntimeCall"]), vec![9]].concat();
        assert_eq!(with_paths(ours), theirs);
        let ours = path(&[
            "localnet",
            "chain",
            "runtime",
            "subtensor",
            "pallet",
            "Event",
        ]);
        assert_eq!(
            with_paths(ours),
            path(&["pallet_subtensor", "pallet", "Event"])
        );
        let others = path(&["sp_core", "H256"]);
        assert_eq!(with_paths(others.clone()), others);
    }
}
