//! The fixed tokenizers of competitions, from the same hub into the same store.

use std::path::PathBuf;

use hub::{Hub, RepositoryKind, RepositoryName};
use model::{Compatibility, tokenizer_class::TokenizerClass};
use serde_json::Value;

use super::{
    Rejection, Store,
    download::blocking,
    manifest::{self, Contents, Missing, TOKENIZER_CONFIG},
    metadata::RepositorySource,
    rejection::Judged,
};
use subnet::Fault;

/// The branch that is followed, as the Python validator does.
const BRANCH: &str = "main";

/// Returns a folder with the tokenizer of a hub repository, fetching what is new. If the hub is
/// away, the one fetched last serves.
pub async fn tokenizer(
    hub: &Hub,
    store: &Store,
    repository: &str,
    compatibility: Compatibility,
) -> Result<PathBuf, Fault> {
    let name: RepositoryName = repository.parse().map_err(Fault::config)?;
    let error = match fetch(hub, store, &name, compatibility).await {
        Ok(dir) => return Ok(dir),
        Err(error) => error,
    };
    if let Some(dir) = store.newest_tokenizer(&name.to_string()) {
        tracing::warn!(repository, %error, "the hub is away: using the tokenizer fetched last");
        return Ok(dir);
    }
    Err(match error {
        Rejection::Refused {
            reason,
            lasting: true,
        } => Fault::config(format!("tokenizer {repository}: {reason}")),
        Rejection::Refused {
            reason,
            lasting: false,
        } => Fault::outside(reason),
        Rejection::Retry { fault, .. } => fault,
    })
}

async fn fetch(
    hub: &Hub,
    store: &Store,
    name: &RepositoryName,
    compatibility: Compatibility,
) -> Judged<PathBuf> {
    let listing = hub.listing(RepositoryKind::Model, name, BRANCH).await?;
    let dir = store.tokenizer_dir(&name.to_string(), &listing.commit);
    if dir.is_dir() {
        return Ok(dir);
    }
    let source = RepositorySource {
        hub,
        store: Some(store),
        repository: name,
        listing: &listing,
    };
    let mut files = Vec::new();
    let mut contents = Contents::new();
    let config = loop {
        let path = match manifest::config_of(&listing, &contents) {
            Ok(config) => break config,
            Err(Missing::Never(reason)) => return Err(Rejection::refused(reason)),
            Err(Missing::Content(path)) => path,
        };
        let (digest, content) = source.small_at(&path).await?;
        files.push((path.clone(), digest));
        contents.insert(path, content);
    };
    for path in [config.as_deref(), Some(TOKENIZER_CONFIG)]
        .into_iter()
        .flatten()
    {
        if listing.files.contains_key(path) && !contents.contains_key(path) {
            let (digest, content) = source.small_at(path).await?;
            files.push((path.to_owned(), digest));
            contents.insert(path.to_owned(), content);
        }
    }
    let json = |path: Option<&str>| -> Judged<Value> {
        let content = path.and_then(|path| Some((path, contents.get(path)?)));
        content.map_or(Ok(Value::Null), |(path, content)| {
            serde_json::from_slice(content)
                .map_err(|error| Rejection::refused(format!("{path}: {error}")))
        })
    };
    let (tokenizer_config, config) = (json(Some(TOKENIZER_CONFIG))?, json(config.as_deref())?);
    let class = TokenizerClass::resolve(Some(&tokenizer_config), &config, compatibility)
        .map_err(Rejection::refused)?;
    for path in class.files() {
        if let Some(entry) = listing.files.get(path) {
            files.push((path.to_owned(), source.small(path, entry).await?.0));
        }
    }
    let store = store.clone();
    blocking(move || Ok(store.add_tokenizer(&dir, &files)?)).await
}
