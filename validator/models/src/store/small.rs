//! Small files by the hash of their git object: nearly every model has the same few.

use shared::file;

use super::{Store, StoreError};
use crate::digest::Digest;

impl Store {
    /// Returns a small file that was fetched before, by the hash of its git object.
    pub fn small(&self, blob_id: &str, size: u64) -> Result<Option<Vec<u8>>, StoreError> {
        let Some(text) = file::read_limited(&self.path("small").join(blob_id), 64)? else {
            return Ok(None);
        };
        let digest: Option<Digest> = str::from_utf8(&text)
            .ok()
            .and_then(|text| text.parse().ok());
        let Some(digest) = digest else {
            return Ok(None);
        };
        let Some(path) = self.blob(&digest, size)? else {
            return Ok(None);
        };
        let bytes = file::read_limited(&path, size)?;
        // The claim of a model may rest on these bytes: they must be the right ones.
        Ok(bytes.filter(|bytes| Digest::of(bytes) == digest))
    }

    /// Keeps a small file under the hash of its git object.
    pub fn put_small(&self, blob_id: &str, bytes: &[u8]) -> Result<Digest, StoreError> {
        let digest = self.put(bytes)?;
        file::write_atomic(
            &self.path("small").join(blob_id),
            digest.to_string().as_bytes(),
        )?;
        Ok(digest)
    }
}
