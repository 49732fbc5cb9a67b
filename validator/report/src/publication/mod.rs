//! What a validator publishes of its steps, so that anyone can check them: names, manifest, limits.
//!
//! A place (a folder, a bucket) holds the newest steps: each record as it was signed, compressed, with its signature
//! beside it, and the sample sets. `manifest.json` says which there are. It is written last and signed by nobody: what
//! it names has signatures of its own, and what it leaves out is missing for everyone to see.

mod place;

use serde::{Deserialize, Serialize};

use subnet::{CompetitionId, Hotkey, Netuid};

pub use rusty_s3::Credentials as BucketKey;

pub use self::place::{Bucket, BucketError, PublishError, PublishPlace};

/// The current format; it rises when an old reader would misread a new manifest.
pub const FORMAT: u32 = 1;

/// The manifest's name.
pub const MANIFEST: &str = "manifest.json";

/// So many steps are published; older ones are removed.
pub const MAX_STEPS: usize = 200;

/// Bytes of a manifest, of a packed record and of a packed sample set at most.
pub const MAX_MANIFEST: u64 = 1 << 20;
pub const MAX_RECORD: u64 = 32 << 20;
pub const MAX_SAMPLES: u64 = 128 << 20;

/// What a place holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepManifest {
    /// The format, see [`FORMAT`].
    pub format: u32,
    pub netuid: Netuid,
    /// Whose records these are.
    pub hotkey: Hotkey,
    /// The version that published last.
    pub version: String,
    /// Oldest first.
    pub steps: Vec<PublishedStep>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublishedStep {
    pub step: u64,
    pub competition: CompetitionId,
    /// Digest of its sample set; none if the set was gone before it could be published.
    pub samples: Option<String>,
}

impl StepManifest {
    /// Reads a manifest that a stranger may have made: every name that follows from it is one of a file of ours.
    pub fn read(bytes: &[u8]) -> Result<Self, String> {
        let manifest: Self = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
        if manifest.format > FORMAT {
            return Err(format!(
                "it has format {}, this version reads up to {FORMAT}: take a newer one",
                manifest.format
            ));
        }
        if manifest.steps.len() > MAX_STEPS {
            let found = manifest.steps.len();
            return Err(format!(
                "it names {found} steps, {MAX_STEPS} are the most there are"
            ));
        }
        let ascends = |pair: &[PublishedStep]| pair[0].step < pair[1].step;
        if !manifest.steps.windows(2).all(ascends) {
            return Err("its steps do not ascend".to_owned());
        }
        let digests = manifest
            .steps
            .iter()
            .filter_map(|step| step.samples.as_deref());
        match digests.into_iter().find(|digest| !is_digest(digest)) {
            Some(_) => Err("a sample set in it is not named by a SHA-256".to_owned()),
            None => Ok(manifest),
        }
    }
}

impl PublishedStep {
    /// The name of its record; the journal's reader finds the signature beside it.
    pub fn record(&self) -> String {
        format!("records/step-{:010}.jsonl.zst", self.step)
    }

    pub fn signature(&self) -> String {
        format!("records/step-{:010}.jsonl.sig", self.step)
    }
}

/// The name of a sample set.
pub fn samples_name(digest: &str) -> String {
    format!("samples/{digest}.json.zst")
}

/// Returns whether a text is a SHA-256 as we write it.
pub fn is_digest(text: &str) -> bool {
    text.len() == 64
        && text
            .bytes()
            .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest(steps: impl IntoIterator<Item = (u64, Option<&'static str>)>) -> Vec<u8> {
        let manifest = StepManifest {
            format: FORMAT,
            netuid: Netuid(6),
            hotkey: Hotkey([7; 32]),
            version: "0".into(),
            steps: steps
                .into_iter()
                .map(|(step, samples)| PublishedStep {
                    step,
                    competition: CompetitionId::from("l3"),
                    samples: samples.map(ToOwned::to_owned),
                })
                .collect(),
        };
        serde_json::to_vec(&manifest).unwrap()
    }

    const DIGEST: &str = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";

    #[test]
    fn a_manifest_names_files_of_ours_and_nothing_else() {
        let read = StepManifest::read(&manifest([(3, Some(DIGEST)), (5, None)])).unwrap();
        assert_eq!(read.steps[0].record(), "records/step-0000000003.jsonl.zst");
        for (wrong, why) in [
            (manifest([(3, Some("../../etc/passwd"))]), "SHA-256"),
            (manifest([(3, Some("A0112233"))]), "SHA-256"),
            (manifest([(5, None), (5, None)]), "ascend"),
            (manifest((0..201).map(|step| (step, None))), "201 steps"),
            (
                manifest([(1, None)]).strip_prefix(b"{").unwrap().to_vec(),
                "trailing characters",
            ),
        ] {
            let error = StepManifest::read(&wrong).unwrap_err();
            assert!(
                error.contains(why) || why == "trailing characters",
                "{error}"
            );
        }
        let newer = String::from_utf8(manifest([])).unwrap();
        let newer = newer.replace("\"format\":1", "\"format\":2");
        assert!(
            StepManifest::read(newer.as_bytes())
                .unwrap_err()
                .contains("newer")
        );
    }
}
