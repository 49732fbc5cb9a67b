//! The signed list of a release channel: which archives there are, which were withdrawn, and until
//! when that holds.
//!
//! An archive's own signature says nothing of what else there is. Whoever controls the server could
//! show an old list for ever, hide that a release was withdrawn, or offer an old one to a node that
//! was just installed. So the list is signed by m of n keys, its number only goes up, and it expires.
//! The number is remembered beside the state of all children, and outlives each of them; where that
//! is lost too, nothing older than the expiry, or than the `oldest` of the list, can be offered.
//!
//! The same ideas as in The Update Framework (<https://theupdateframework.github.io/specification/>,
//! 5.4 to 5.6), in one file with one role.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use ed25519_dalek::{Signature, Signer, VerifyingKey};
use jiff::Timestamp;
use semver::Version as Semver;
use serde::{Deserialize, Serialize};
use shared::file;

use super::release_key;
use crate::{
    config::ReleaseSource,
    error::{Blame, Fault},
    home::Home,
};

/// The name of the list among the files of a release.
pub(crate) const NAME: &str = "release-list.json";
/// Largest list, in bytes.
pub(crate) const MAX_LIST: u64 = 1 << 20;
const FORMAT: u32 = 1;
/// What is signed begins with this, so that no signature of anything else will do.
const CONTEXT: &[u8] = b"supervisor release list\0";

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SignedList {
    format: u32,
    /// `OWNER/NAME`: a list of another repository is none of ours.
    repository: String,
    /// Goes up with each list.
    pub(crate) number: u64,
    expires: Timestamp,
    /// No release below this one is installed any more.
    #[serde(default)]
    oldest: Option<String>,
    /// SHA-256 of each archive, by its file name.
    archives: BTreeMap<String, String>,
    /// Why a release must not be run, by its version (without a `v`).
    #[serde(default)]
    withdrawn: BTreeMap<String, String>,
}

/// The list as it was signed, with a signature for each public key.
#[derive(Debug, Serialize, Deserialize)]
struct Envelope {
    list: String,
    signatures: BTreeMap<String, String>,
}

/// Whose signatures count, and how many are wanted.
#[derive(Debug, Clone)]
pub(crate) struct Trust {
    keys: BTreeSet<[u8; 32]>,
    threshold: usize,
}

impl Trust {
    pub(crate) fn read(source: &ReleaseSource) -> Result<Self, Fault> {
        let keys = source.keys.iter().map(|path| release_key::public_key(path));
        let keys: BTreeSet<_> = keys.collect::<Result<_, _>>()?;
        // One key under two names is one.
        if source.threshold == 0 || source.threshold > keys.len() {
            let text = format!(
                "--release-threshold {} can't be met with {} different keys",
                source.threshold,
                keys.len()
            );
            return Err(Fault::new(Blame::Config, text));
        }
        Ok(Self {
            keys,
            threshold: source.threshold,
        })
    }

    pub(crate) fn keys(&self) -> Vec<[u8; 32]> {
        self.keys.iter().copied().collect()
    }

    /// Returns how many of the keys have signed.
    fn count(&self, envelope: &Envelope) -> usize {
        let message = message(&envelope.list);
        let signed = |key: &&[u8; 32]| {
            let signature = envelope.signatures.get(&hex::encode(key))?;
            let signature = Signature::from_slice(&hex::decode(signature).ok()?).ok()?;
            let key = VerifyingKey::from_bytes(key).ok()?;
            key.verify_strict(&message, &signature).ok()
        };
        self.keys.iter().filter(|key| signed(key).is_some()).count()
    }
}

impl SignedList {
    /// Reads a list that is well signed, meant for this repository, and still holds.
    pub(crate) fn open(
        bytes: &[u8],
        trust: &Trust,
        repository: &str,
        now: Timestamp,
    ) -> Result<Self, String> {
        let wrong = |error: serde_json::Error| format!("can not be read: {error}");
        let envelope: Envelope = serde_json::from_slice(bytes).map_err(wrong)?;
        let count = trust.count(&envelope);
        if count < trust.threshold {
            let wanted = trust.threshold;
            return Err(format!(
                "is signed by {count} of the release keys, {wanted} wanted"
            ));
        }
        let list: Self = serde_json::from_str(&envelope.list).map_err(wrong)?;
        if list.format > FORMAT {
            return Err(format!(
                "has format {}, which a newer supervisor reads",
                list.format
            ));
        }
        if list.repository != repository {
            return Err(format!("is one of {}", list.repository));
        }
        if list.expires <= now {
            return Err(format!(
                "expired on {}: there may be releases, or withdrawals, that the server does not show",
                list.expires
            ));
        }
        Ok(list)
    }

    /// Refuses a list that is older than one seen before; remembers it if `lasting`.
    pub(crate) fn advance(&self, home: &Home, lasting: bool) -> Result<(), Fault> {
        let Some(path) = memory(home, &self.repository) else {
            return Ok(());
        };
        let seen = file::read_limited(&path, 1 << 10)?.unwrap_or_default();
        let seen = String::from_utf8_lossy(&seen);
        let seen = match seen.trim() {
            "" => 0,
            text => text.parse::<u64>().map_err(|_| {
                let text = format!("{} holds no number", path.display());
                Fault::new(Blame::Config, text)
                    .hint("write the number of the newest release list into it")
            })?,
        };
        if self.number < seen {
            let text = format!(
                "the release list has number {}, and {seen} was seen before: it is an old one",
                self.number
            );
            return Err(Fault::new(Blame::Refused, text)
                .hint(format!("if that is meant, remove {}", path.display())));
        }
        if lasting && self.number > seen {
            if let Some(folder) = path.parent() {
                file::create_dir(folder)?;
            }
            file::write_atomic(&path, format!("{}\n", self.number).as_bytes())?;
        }
        Ok(())
    }

    /// Returns why a version must not be installed.
    pub(crate) fn objection(&self, version: &Semver) -> Option<String> {
        let shown = version.to_string();
        if let Some(why) = self.withdrawn.get(&shown) {
            return Some(format!("v{shown} is withdrawn: {why}"));
        }
        let oldest = self.oldest.as_deref()?;
        // What can't be read holds for every version.
        let fine = Semver::parse(oldest).is_ok_and(|oldest| *version >= oldest);
        (!fine).then(|| {
            format!("v{shown} is older than v{oldest}, the oldest that is still supported")
        })
    }

    /// Returns the SHA-256 of an archive.
    pub(crate) fn archive(&self, name: &str) -> Option<&str> {
        self.archives.get(name).map(String::as_str)
    }
}

fn message(list: &str) -> Vec<u8> {
    [CONTEXT, list.as_bytes()].concat()
}

/// Where the newest number is remembered: beside the folders of all children.
fn memory(home: &Home, repository: &str) -> Option<PathBuf> {
    let state = home.path().parent()?;
    Some(
        state
            .join(".release-lists")
            .join(repository.replace('/', "%")),
    )
}

/// Adds the signature of a key to a list, or to what will be one. Returns how many there are.
pub(crate) fn sign(path: &Path, key: &Path) -> Result<usize, Fault> {
    let config = |why: String| Fault::new(Blame::Config, format!("{}: {why}", path.display()));
    let bytes = file::read_limited(path, MAX_LIST)?.ok_or_else(|| config("no such file".into()))?;
    let text = String::from_utf8(bytes).map_err(|_| config("not text".into()))?;
    let mut envelope = match serde_json::from_str::<Envelope>(&text) {
        Ok(envelope) => envelope,
        Err(_) => Envelope {
            list: text,
            signatures: BTreeMap::new(),
        },
    };
    serde_json::from_str::<SignedList>(&envelope.list)
        .map_err(|error| config(format!("no release list: {error}")))?;
    let key = release_key::signing_key(key)?;
    let signature = key.sign(&message(&envelope.list));
    let public = hex::encode(key.verifying_key().as_bytes());
    envelope
        .signatures
        .insert(public, hex::encode(signature.to_bytes()));
    let text = serde_json::to_vec_pretty(&envelope).map_err(|error| Fault::machine(&error))?;
    file::write_atomic(path, &text)?;
    Ok(envelope.signatures.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Signers {
        dir: tempfile::TempDir,
    }

    impl Signers {
        fn new(names: &[&str]) -> Self {
            let dir = tempfile::tempdir().unwrap();
            for name in names {
                release_key::new_key(&dir.path().join(name)).unwrap();
            }
            Self { dir }
        }

        fn trust(&self, names: &[&str], threshold: usize) -> Result<Trust, Fault> {
            let keys = names
                .iter()
                .map(|name| self.dir.path().join(format!("{name}.pub")));
            Trust::read(&ReleaseSource {
                repository: "us/app".into(),
                api: None,
                keys: keys.collect(),
                threshold,
                pin: None,
                allow_incompatible: false,
            })
        }

        fn list(&self, number: u64, expires: &str, signers: &[&str]) -> Vec<u8> {
            let path = self.dir.path().join(NAME);
            let list = serde_json::json!({
                "format": 1, "repository": "us/app", "number": number, "expires": expires,
                "oldest": "0.2.0", "archives": {"a.tar.gz": "00"},
                "withdrawn": {"0.3.0": "it crashes"},
            });
            file::write_atomic(&path, list.to_string().as_bytes()).unwrap();
            for name in signers {
                sign(&path, &self.dir.path().join(name)).unwrap();
            }
            file::read_limited(&path, MAX_LIST).unwrap().unwrap()
        }
    }

    const NOW: &str = "2026-06-01T00:00:00Z";
    const LATER: &str = "2026-07-01T00:00:00Z";

    fn open(bytes: &[u8], trust: &Trust) -> Result<SignedList, String> {
        SignedList::open(bytes, trust, "us/app", NOW.parse().unwrap())
    }

    #[test]
    fn as_many_of_the_keys_as_asked_for_must_have_signed() {
        let signers = Signers::new(&["a", "b", "c", "stranger"]);
        let trust = signers.trust(&["a", "b", "c"], 2).unwrap();
        assert!(open(&signers.list(1, LATER, &["a", "c"]), &trust).is_ok());
        let why = open(&signers.list(1, LATER, &["a", "a", "stranger"]), &trust).unwrap_err();
        assert!(why.contains("by 1 of the release keys, 2 wanted"), "{why}");
        let forged = String::from_utf8(signers.list(1, LATER, &["a", "b"])).unwrap();
        let forged = forged.replace("it crashes", "it rattles");
        assert!(open(forged.as_bytes(), &trust).is_err());
        assert!(signers.trust(&["a", "a"], 2).is_err(), "one key twice");
        assert!(signers.trust(&["a"], 0).is_err());
    }

    #[test]
    fn a_list_expires_and_belongs_to_one_repository() {
        let signers = Signers::new(&["a"]);
        let trust = signers.trust(&["a"], 1).unwrap();
        let why = open(&signers.list(1, NOW, &["a"]), &trust).unwrap_err();
        assert!(why.contains("expired on"), "{why}");
        let list = signers.list(1, LATER, &["a"]);
        let other = SignedList::open(&list, &trust, "them/app", NOW.parse().unwrap());
        assert_eq!(other.unwrap_err(), "is one of us/app");
        let list = open(&list, &trust).unwrap();
        let objection = |version: &str| list.objection(&Semver::parse(version).unwrap());
        assert!(objection("0.1.9").unwrap().contains("older than v0.2.0"));
        assert!(objection("0.3.0").unwrap().contains("it crashes"));
        assert_eq!(objection("0.3.1"), None);
    }

    #[test]
    fn no_list_is_older_than_one_seen_before_whoever_asked() {
        let signers = Signers::new(&["a"]);
        let trust = signers.trust(&["a"], 1).unwrap();
        let number = |number| open(&signers.list(number, LATER, &["a"]), &trust).unwrap();
        let state = tempfile::tempdir().unwrap();
        let (one, other) = (
            Home::of(state.path(), "one"),
            Home::of(state.path(), "other"),
        );
        number(9).advance(&one, false).unwrap();
        number(5).advance(&one, true).unwrap();
        // Another child of the same machine, or the same one installed again.
        let fault = number(4).advance(&other, true).unwrap_err();
        assert!(fault.message.contains("5 was seen before"), "{fault}");
        number(5).advance(&other, true).unwrap();
    }
}
