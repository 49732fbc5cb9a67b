//! The models: where they come from, what came of each commitment, what lies on disk.

use model::{Compatibility, ContentHash};

use crate::step::Tokenizer;
use hub::Hub;
use models::{Store, Sync};
use subnet::Fault;

#[derive(Debug)]
pub(super) struct Library {
    pub(super) hub: Hub,
    pub(super) sync: Sync,
    pub(super) store: Store,
    pub(super) compatibility: Compatibility,
}

impl Library {
    /// Returns the fixed tokenizer of a competition, fetched if it is new.
    pub(super) async fn tokenizer(&self, repository: &str) -> Result<Tokenizer, Fault> {
        let directory =
            models::tokenizer(&self.hub, &self.store, repository, self.compatibility).await?;
        let folder = directory.clone();
        let hash = tokio::task::spawn_blocking(move || ContentHash::of_directory(&folder))
            .await
            .map_err(Fault::machine)?
            .map_err(Fault::machine)?;
        Ok(Tokenizer {
            name: repository.to_owned(),
            hash: hash.to_string(),
            directory,
        })
    }
}
