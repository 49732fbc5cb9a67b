//! A file on the hub: where it is, what the listing says of it, how it is read.

use std::ops::Range;

use bytes::Bytes;
use http_client::{
    HttpError, RangeReader, RemoteFile,
    header::{HeaderMap, HeaderName},
};

use crate::{Hub, Origin, RepositoryKind, RepositoryName};

const LINKED_ETAG: HeaderName = HeaderName::from_static("x-linked-etag");
const XET_HASH: HeaderName = HeaderName::from_static("x-xet-hash");

/// Where a file is in its repository, whoever serves it.
#[derive(Debug, Clone)]
struct FilePlace {
    kind: RepositoryKind,
    repository: RepositoryName,
    commit: String,
    path: String,
}

/// A file on the hub.
#[derive(Debug)]
pub struct HubFile {
    remote: RemoteFile,
    origin: Origin,
    place: FilePlace,
    sha256: Option<[u8; 32]>,
}

impl HubFile {
    /// Returns the address, which names the file.
    pub fn name(&self) -> &str {
        self.remote.name()
    }

    /// Returns who is asked for it.
    pub const fn origin(&self) -> Origin {
        self.origin
    }

    /// Returns the size by the listing, in bytes.
    pub const fn size(&self) -> u64 {
        self.remote.size()
    }

    /// Returns the SHA-256 by the listing.
    pub const fn sha256(&self) -> Option<[u8; 32]> {
        self.sha256
    }

    /// Returns whether the hub offered the file over xet.
    pub fn offers_xet(&self) -> bool {
        !self.origin.is_mirror() && self.remote.redirect_had(&XET_HASH)
    }

    /// Returns whether its server answered a byte range with something else.
    pub fn lacks_ranges(&self) -> bool {
        self.remote.lacks_ranges()
    }

    pub(crate) const fn repository(&self) -> &RepositoryName {
        &self.place.repository
    }

    pub(crate) fn commit(&self) -> &str {
        &self.place.commit
    }

    pub(crate) fn path(&self) -> &str {
        &self.place.path
    }
}

impl Hub {
    /// Names a file of the hub for [`Hub::range`] and [`Hub::whole`].
    pub fn file(
        &self,
        kind: RepositoryKind,
        repository: &RepositoryName,
        commit: &str,
        path: &str,
        (size, sha256): (u64, Option<[u8; 32]>),
    ) -> HubFile {
        let place = FilePlace {
            kind,
            repository: repository.clone(),
            commit: commit.to_owned(),
            path: path.to_owned(),
        };
        self.placed(Origin::Hub, place, size, sha256)
    }

    /// Names the same file where another origin has it.
    pub fn file_at(&self, file: &HubFile, origin: Origin) -> HubFile {
        self.placed(origin, file.place.clone(), file.size(), file.sha256)
    }

    fn placed(
        &self,
        origin: Origin,
        place: FilePlace,
        size: u64,
        sha256: Option<[u8; 32]>,
    ) -> HubFile {
        let [namespace, name] = place.repository.parts();
        let prefix = match place.kind {
            RepositoryKind::Model => None,
            RepositoryKind::Dataset => Some("datasets"),
        };
        let parts = [namespace, name, "resolve", &place.commit];
        let parts = prefix.into_iter().chain(parts);
        let url = self.url(origin, parts.chain(place.path.split('/')));
        let remote = RemoteFile::new(url, size)
            .credentials(self.credentials_for(origin))
            .check(move |redirects| check_linked_etag(redirects, sha256));
        HubFile {
            remote,
            origin,
            place,
            sha256,
        }
    }

    /// Fetches the whole of a small file.
    pub async fn whole(&self, file: &HubFile) -> Result<Bytes, HttpError> {
        let _connection = self.client.connection().await;
        let pieces = self.range(file, 0..file.size()).await?;
        Ok(pieces.concat().into())
    }

    /// Fetches `range` of a file into memory, in order, resuming where a connection broke.
    pub async fn range(&self, file: &HubFile, range: Range<u64>) -> Result<Vec<Bytes>, HttpError> {
        file.remote.range(&self.client, range).await
    }

    /// The same for one of many ranges: an error if the server sends the whole file.
    pub async fn part(&self, file: &HubFile, range: Range<u64>) -> Result<Vec<Bytes>, HttpError> {
        file.remote.part(&self.client, range).await
    }

    /// Reads `range` of a file piece by piece.
    pub fn read<'a>(&'a self, file: &'a HubFile, range: Range<u64>) -> RangeReader<'a> {
        file.remote.read(&self.client, range)
    }
}

/// For a large file, the hub gives the SHA-256 as the ETag of what it redirects to.
fn check_linked_etag(redirects: &HeaderMap, listed: Option<[u8; 32]>) -> Result<(), String> {
    let linked = redirects
        .get(LINKED_ETAG)
        .and_then(|etag| etag.to_str().ok());
    let linked = linked.map(|etag| etag.trim_start_matches("W/").trim_matches('"'));
    match (linked.filter(|etag| etag.len() == 64), listed) {
        (Some(linked), Some(listed)) if !linked.eq_ignore_ascii_case(&hex::encode(listed)) => {
            Err("its ETag is not the SHA-256 of the hub's listing".to_owned())
        }
        _ => Ok(()),
    }
}
