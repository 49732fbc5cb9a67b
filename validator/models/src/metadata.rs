//! What can be known of a model for kilobytes: listing, small files, content hash, headers.

use std::{
    collections::{BTreeMap, btree_map},
    sync::Arc,
};

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use hub::{Hub, HubFile, ListedFile, Listing, Origin, RepositoryKind, RepositoryName};
use model::{
    Compatibility, ContentHash,
    header::{Header, HeaderError, PREFIX_BYTES},
};
use sha1::{Digest as _, Sha1};
use sha2::{Digest as _, Sha256};

use super::{
    Digest, Rejection, Store,
    manifest::{Contents, Manifest, Missing},
    rejection::Judged,
    store::StoreError,
    tries::Tries,
};

/// Largest file whose hash we find out by fetching it before anything else is decided. The hub
/// keeps larger ones in its large-file storage, whose hashes it lists.
const MAX_SMALL: u64 = 12 << 20;

/// First bytes asked of a weights file: the header of an 8 B model fits.
const FIRST_BYTES: u64 = 36 << 10;

/// Most bytes of headers of one model.
const MAX_HEADERS: u64 = 16 << 20;

const AT_ONCE: usize = 4;

/// A repository at a commit, as far as it was looked into.
#[derive(Debug)]
pub(super) struct RepositorySource<'a> {
    pub(super) hub: &'a Hub,
    pub(super) store: Option<&'a Store>,
    pub(super) repository: &'a RepositoryName,
    pub(super) listing: &'a Listing,
    /// Who gave the listing.
    pub(super) listed_by: Origin,
}

/// What is known before the weights are fetched.
#[derive(Debug)]
pub(super) struct Metadata {
    pub(super) manifest: Manifest,
    pub(super) contents: Contents,
    /// SHA-256 of the files, as far as listing and small files tell.
    pub(super) digests: BTreeMap<String, Digest>,
}

impl Metadata {
    /// Returns the content hash, if every file's SHA-256 is known.
    pub(super) fn content_hash(&self) -> Option<ContentHash> {
        let known: Option<Vec<_>> = self
            .manifest
            .files
            .keys()
            .map(|path| Some((path.as_str(), self.digests.get(path)?.0)))
            .collect();
        known.map(ContentHash::of_files)
    }
}

/// The header of a weights file, as a range of it gave it.
#[derive(Debug, Clone)]
pub(super) struct SeenHeader {
    /// The file, with what its server's answers have shown of it.
    pub(super) file: Arc<HubFile>,
    pub(super) header: Header,
    /// The same with the decoder's names, for what is loaded.
    pub(super) loaded: Header,
    /// Digest of the first bytes of the file up to the data: the download must bring the same.
    pub(super) digest: Digest,
}

impl RepositorySource<'_> {
    pub(super) fn file(&self, path: &str, entry: &ListedFile) -> Judged<HubFile> {
        let size = entry.size.ok_or_else(|| no_size(path))?;
        Ok(self.hub.file(
            RepositoryKind::Model,
            self.repository,
            &self.listing.commit,
            path,
            (size, entry.sha256),
        ))
    }

    /// Finds the model's files and the hashes that can be known without fetching the weights.
    pub(super) async fn metadata(&self, compatibility: Compatibility) -> Judged<Metadata> {
        let mut contents = Contents::new();
        let mut digests = BTreeMap::new();
        let manifest = loop {
            match Manifest::of(self.listing, &contents, compatibility) {
                Ok(manifest) => break manifest,
                Err(Missing::Never(reason)) => return Err(Rejection::refused(reason)),
                Err(Missing::Content(path)) => {
                    let (digest, content) = self.small_at(&path).await?;
                    digests.insert(path.clone(), digest);
                    contents.insert(path, content);
                }
            }
        };
        let mut unknown = Vec::new();
        for (path, entry) in &manifest.files {
            match (digests.entry(path.clone()), entry.sha256) {
                (btree_map::Entry::Vacant(vacant), Some(sha256)) => {
                    vacant.insert(Digest(sha256));
                }
                (btree_map::Entry::Vacant(_), None) if !manifest.is_weights(path) => {
                    unknown.push((path, entry));
                }
                _ => {}
            }
        }
        let small = unknown
            .into_iter()
            .filter(|(_, entry)| entry.size.is_none_or(|n| n <= MAX_SMALL));
        // Collected first: a closure inside the stream would keep the future from being `Send`.
        let fetches: Vec<_> = small
            .map(|(path, entry)| async move {
                let (digest, content) = self.small(path, entry).await?;
                Ok::<_, Rejection>((path.clone(), digest, content))
            })
            .collect();
        let fetched: Vec<_> = stream::iter(fetches)
            .buffered(AT_ONCE)
            .try_collect()
            .await?;
        for (path, digest, content) in fetched {
            digests.insert(path.clone(), digest);
            contents.insert(path, content);
        }
        Ok(Metadata {
            manifest,
            contents,
            digests,
        })
    }

    /// Returns a small file that is listed.
    pub(super) async fn small_at(&self, path: &str) -> Judged<(Digest, Bytes)> {
        let listed = self.listing.files.get(path).ok_or_else(|| no_size(path))?;
        self.small(path, listed).await
    }

    /// Returns a small file, from the store if it was fetched before.
    pub(super) async fn small(&self, path: &str, entry: &ListedFile) -> Judged<(Digest, Bytes)> {
        let file = self.file(path, entry)?;
        if let Some(found) = self.stored(entry, file.size())? {
            return Ok((Digest::of(&found), found.into()));
        }
        let (digest, content) = self.small_from(path, entry, &file).await?;
        match (self.store, &entry.blob_id) {
            (Some(store), Some(blob_id)) if entry.sha256.is_none() => {
                store.put_small(blob_id, &content)?;
            }
            (Some(store), _) => {
                store.put(&content)?;
            }
            (None, _) => {}
        }
        Ok((digest, content))
    }

    /// Fetches a small file from the first origin that has what the listing says.
    async fn small_from(
        &self,
        path: &str,
        entry: &ListedFile,
        file: &HubFile,
    ) -> Judged<(Digest, Bytes)> {
        let has_hash = entry.sha256.is_some() || entry.blob_id.is_some();
        let mut tries = Tries::new(self.hub, self.listed_by, has_hash);
        while let Some(origin) = tries.next() {
            let content = match self.hub.whole(&self.hub.file_at(file, origin)).await {
                Ok(content) => content,
                Err(error) => {
                    tries.failed(origin, error.into())?;
                    continue;
                }
            };
            let digest = Digest::of(&content);
            let same = match (entry.sha256, &entry.blob_id) {
                (Some(listed), _) => listed == digest.0,
                (None, Some(blob_id)) if origin.is_mirror() => git_blob_id(&content) == *blob_id,
                (None, _) => true,
            };
            if same {
                tries.served(origin);
                return Ok((digest, content));
            }
            let name = self.repository;
            let by = self.hub.address(origin);
            let reason = format!("{path:?} of {name} at {by} is not what the listing says it is");
            tries.sent_other_bytes(origin, reason);
        }
        Err(tries.rejection())
    }

    fn stored(&self, entry: &ListedFile, size: u64) -> Result<Option<Vec<u8>>, StoreError> {
        let Some(store) = self.store else {
            return Ok(None);
        };
        match (entry.sha256, &entry.blob_id) {
            (None, Some(blob_id)) => store.small(blob_id, size),
            (None, None) => Ok(None),
            (Some(sha256), _) => {
                let digest = Digest(sha256);
                let Some(path) = store.blob(&digest, size)? else {
                    return Ok(None);
                };
                let bytes = shared::file::read_limited(&path, size)?;
                Ok(bytes.filter(|bytes| Digest::of(bytes) == digest))
            }
        }
    }

    /// Reads the headers of the weights by byte ranges.
    pub(super) async fn headers(
        &self,
        manifest: &Manifest,
    ) -> Judged<BTreeMap<String, SeenHeader>> {
        let weights = manifest
            .layout
            .weights
            .names()
            .filter_map(|path| Some((path, manifest.files.get(path)?)));
        let mut headers = BTreeMap::new();
        let fetches: Vec<_> = weights
            .map(|(path, entry)| async move {
                Ok::<_, Rejection>((path, self.header(path, entry).await?))
            })
            .collect();
        let mut fetched = stream::iter(fetches).buffered(AT_ONCE);
        let mut total = 0;
        while let Some((path, seen)) = fetched.try_next().await? {
            total += seen.header.data_start();
            if total > MAX_HEADERS {
                let reason =
                    format!("the headers of its weights have more than {MAX_HEADERS} bytes");
                return Err(Rejection::refused(reason));
            }
            headers.insert(path.to_owned(), seen);
        }
        Ok(headers)
    }

    async fn header(&self, path: &str, entry: &ListedFile) -> Judged<SeenHeader> {
        let file = self.file(path, entry)?;
        let mut tries = Tries::new(self.hub, self.listed_by, entry.sha256.is_some());
        while let Some(origin) = tries.next() {
            let file = Arc::new(self.hub.file_at(&file, origin));
            match self.header_of(path, file).await {
                Ok(seen) => {
                    tries.served(origin);
                    return Ok(seen);
                }
                Err(rejection) => tries.failed(origin, rejection)?,
            }
        }
        Err(tries.rejection())
    }

    async fn header_of(&self, path: &str, file: Arc<HubFile>) -> Judged<SeenHeader> {
        let _connection = self.hub.http().connection().await;
        let head = self.head(path, &file, FIRST_BYTES).await?;
        let refused = match parse_head(&head, file.size()) {
            Ok(header) => {
                let digest = Digest::of(&head);
                return Ok(SeenHeader {
                    file,
                    loaded: header.clone(),
                    header,
                    digest,
                });
            }
            Err(error) => error,
        };
        // Nothing vouches for these bytes: they are read once more, in other pieces, before they
        // speak against the model. A mirror's never do.
        let same = if file.origin().is_mirror() {
            false
        } else if file.lacks_ranges() {
            is_as_listed(self.hub, &file).await?
        } else {
            self.head(path, &file, PREFIX_BYTES - 1).await? == head
        };
        if same {
            return Err(Rejection::refused(format!("{path}: {refused}")));
        }
        let by = if file.origin().is_mirror() {
            format!("{refused}, says {}", file.name())
        } else {
            "read twice, its bytes differ".to_owned()
        };
        Err(Rejection::outside(format!("{path}: {by}")))
    }

    /// Reads a weights file up to the end of its header, `first` bytes to begin with; no further
    /// than the prefix if that is nonsense.
    async fn head(&self, path: &str, file: &HubFile, first: u64) -> Judged<Vec<u8>> {
        let size = file.size();
        let first = first.min(size);
        let mut head = self.hub.range(file, 0..first).await?.concat();
        if head.len() < PREFIX_BYTES as usize {
            let prefix = PREFIX_BYTES.min(size);
            head.extend(self.hub.range(file, first..prefix).await?.concat());
        }
        let length = head.first_chunk().map(|prefix| Header::length(*prefix));
        let end = match length {
            Some(Ok(length)) => (PREFIX_BYTES + length).min(size),
            _ => PREFIX_BYTES.min(size),
        };
        let here = head.len() as u64;
        if end > here {
            tracing::debug!(path, bytes = end, "a header longer than most");
            head.extend(self.hub.range(file, here..end).await?.concat());
        }
        head.truncate(end as usize);
        Ok(head)
    }
}

/// Reads a whole file and compares its SHA-256 with the hub's listing: from a server without ranges
/// there are no other pieces, and what sends the same nonsense twice is the server.
pub(super) async fn is_as_listed(hub: &Hub, file: &HubFile) -> Judged<bool> {
    let mut sha256 = Sha256::new();
    let mut reader = hub.read(file, 0..file.size());
    while let Some(piece) = reader.next().await? {
        sha256.update(&piece);
    }
    let digest: [u8; 32] = sha256.finalize().into();
    Ok(file.sha256() == Some(digest))
}

/// Parses the start of a weights file of `size` bytes.
fn parse_head(head: &[u8], size: u64) -> Result<Header, HeaderError> {
    let (prefix, json) = head.split_first_chunk().ok_or(HeaderError::Truncated)?;
    if Header::length(*prefix)? > json.len() as u64 {
        return Err(HeaderError::Truncated);
    }
    Header::parse(json, size)
}

/// Returns the id of a git blob: the hub lists it for small files.
fn git_blob_id(content: &[u8]) -> String {
    let mut hasher = Sha1::new_with_prefix(format!("blob {}\0", content.len()));
    hasher.update(content);
    hex::encode(hasher.finalize())
}

fn no_size(path: &str) -> Rejection {
    Rejection::refused(format!("the hub knows no size of {path:?}"))
}

impl From<StoreError> for Rejection {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::File(error) => error.into(),
            error => Self::machine(error),
        }
    }
}
