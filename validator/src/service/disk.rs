//! How much disk the models take, and what would go first.

use shared::{causes, file};

use models::{
    Store,
    store::{StoreError, StoreLimits},
};
use report::status::DiskUse;

/// Looks at the disk of the store.
#[derive(Debug, Clone)]
pub(super) struct DiskWatch {
    pub(super) store: Store,
    pub(super) limits: StoreLimits,
}

impl DiskWatch {
    /// Measures, on a thread that may block; `None` if that is not possible.
    pub(super) async fn look(&self) -> Option<DiskUse> {
        let watch = self.clone();
        let measured = tokio::task::spawn_blocking(move || watch.measure()).await;
        measured.ok()?.map_or_else(
            |error| {
                let error = causes::one_line(&error);
                tracing::debug!(error, "could not measure the store");
                None
            },
            Some,
        )
    }

    fn measure(&self) -> Result<DiskUse, StoreError> {
        let usage = self.store.usage()?;
        let mut removable = self.store.removable()?;
        let mut unused = removable.iter_mut().map(|model| &mut model.record);
        let goes_first =
            unused.find_map(|record| match self.store.is_pinned(&record.content_hash) {
                Ok(true) => None,
                Ok(false) => Some(Ok(std::mem::take(&mut record.repository))),
                Err(error) => Some(Err(error)),
            });
        Ok(DiskUse {
            folder: self.store.root().display().to_string(),
            models: usage.blobs,
            unfinished: usage.staging,
            limit: self.limits.max_disk,
            free: file::free_space(self.store.root())?,
            keep_free: self.limits.min_free,
            goes_first: goes_first.transpose()?,
        })
    }
}
