//! What the hub says of a repository at a commit: its files, their sizes, their hashes.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::address::is_commit;

/// The files of a repository at one commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listing {
    /// The commit the revision stands for.
    pub commit: String,
    /// Every file by its path.
    pub files: BTreeMap<String, ListedFile>,
}

/// One file of a repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedFile {
    /// Bytes; the hub may not know.
    pub size: Option<u64>,
    /// Hash of the git object, which names small files for our cache.
    pub blob_id: Option<String>,
    /// SHA-256 of a large file.
    pub sha256: Option<[u8; 32]>,
}

/// Why an answer of the hub is not a listing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ListingError {
    /// It is not JSON, or not of this shape.
    #[error("not a listing: {0}")]
    Json(String),
    /// A field makes no sense.
    #[error("it has {0}")]
    Value(String),
}

#[derive(Deserialize)]
struct RawInfo {
    sha: String,
    siblings: Vec<RawSibling>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawSibling {
    rfilename: String,
    size: Option<u64>,
    blob_id: Option<String>,
    lfs: Option<RawLfs>,
}

#[derive(Deserialize)]
struct RawLfs {
    sha256: Option<String>,
    oid: Option<String>,
    size: Option<u64>,
}

impl Listing {
    /// Parses the answer to `/api/models/{id}/revision/{revision}?blobs=true`.
    pub fn parse(json: &[u8]) -> Result<Self, ListingError> {
        let info: RawInfo =
            serde_json::from_slice(json).map_err(|error| ListingError::Json(error.to_string()))?;
        if !is_commit(&info.sha) {
            return Err(ListingError::Value(format!("commit {:?}", info.sha)));
        }
        let mut files = BTreeMap::new();
        for sibling in info.siblings {
            let (path, entry) = entry(sibling)?;
            if files.insert(path.clone(), entry).is_some() {
                return Err(ListingError::Value(format!("{path:?} twice")));
            }
        }
        Ok(Self {
            commit: info.sha,
            files,
        })
    }

    /// Returns the bytes of all files; `None` if the hub does not know a size, or if the sum is
    /// absurd.
    pub fn total_bytes(&self) -> Option<u64> {
        self.files
            .values()
            .try_fold(0_u64, |sum, entry| sum.checked_add(entry.size?))
    }
}

fn entry(sibling: RawSibling) -> Result<(String, ListedFile), ListingError> {
    let path = sibling.rfilename;
    let mut sha256 = None;
    if let Some(lfs) = sibling.lfs {
        if lfs.size.is_some() && sibling.size.is_some() && lfs.size != sibling.size {
            return Err(ListingError::Value(format!("two sizes for {path:?}")));
        }
        if let Some(text) = lfs.sha256.or(lfs.oid) {
            let mut digest = [0; 32];
            hex::decode_to_slice(&text, &mut digest)
                .map_err(|_| ListingError::Value(format!("SHA-256 {text:?} for {path:?}")))?;
            sha256 = Some(digest);
        }
    }
    let blob_id = sibling.blob_id.filter(|id| is_commit(id));
    Ok((
        path,
        ListedFile {
            size: sibling.size,
            blob_id,
            sha256,
        },
    ))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

    fn parse(siblings: &str) -> Result<Listing, ListingError> {
        Listing::parse(format!(r#"{{"sha":"{COMMIT}","siblings":[{siblings}]}}"#).as_bytes())
    }

    #[test]
    fn sizes_and_hashes_are_read() {
        let sha = "ab".repeat(32);
        let text = format!(
            r#"{{"rfilename":"a","size":3,"blobId":"{COMMIT}"}},
               {{"rfilename":"b","size":7,"lfs":{{"sha256":"{sha}","size":7,"pointerSize":9}}}}"#
        );
        let listing = parse(&text).unwrap();
        assert_eq!(listing.total_bytes(), Some(10));
        assert_eq!(listing.files["a"].blob_id.as_deref(), Some(COMMIT));
        assert_eq!(listing.files["b"].sha256, Some([0xab; 32]));
    }

    #[test]
    fn nonsense_is_told_from_a_listing() {
        let bad = |siblings| parse(siblings).unwrap_err().to_string();
        assert!(bad(r#"{"rfilename":"a","size":-1}"#).contains("not a listing"));
        assert!(bad(r#"{"rfilename":"a","size":1,"size":2}"#).contains("duplicate field"));
        assert!(bad(r#"{"rfilename":"a"},{"rfilename":"a"}"#).contains("twice"));
        assert!(bad(r#"{"rfilename":"a","lfs":{"sha256":"xy"}}"#).contains("SHA-256"));
        assert!(bad(r#"{"rfilename":"a","size":1,"lfs":{"size":2}}"#).contains("two sizes"));
        assert!(Listing::parse(b"<!doctype html><html>").is_err());
        assert!(Listing::parse(br#"{"sha":"main","siblings":[]}"#).is_err());
    }

    #[test]
    fn an_unknown_or_absurd_size_has_no_sum() {
        let null = r#"{"rfilename":"a","size":null}"#;
        assert_eq!(parse(null).unwrap().total_bytes(), None);
        let huge = format!(
            r#"{{"rfilename":"a","size":{}}},{{"rfilename":"b","size":1}}"#,
            u64::MAX
        );
        assert_eq!(parse(&huge).unwrap().total_bytes(), None);
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let _ = Listing::parse(&bytes);
        }

        #[test]
        fn no_mutation_makes_it_panic(at in 0_usize..200, byte in any::<u8>()) {
            let mut json = format!(
                r#"{{"sha":"{COMMIT}","siblings":[{{"rfilename":"a","size":3,"lfs":{{"sha256":"00","size":3}}}}]}}"#
            ).into_bytes();
            let at = at % json.len();
            json[at] = byte;
            let _ = Listing::parse(&json);
        }
    }
}
