//! The fixed tokenizers of competitions, from the same hub into the same store.
//!
//! Somebody else's repository is not followed: a push there would reach every validator at once. The
//! subnet file may pin revision and content; without that the first tokenizer that worked is
//! trusted, and what comes later is only told.

use std::{collections::BTreeMap, path::PathBuf};

use hub::{Hub, Listing, Origin, RepositoryKind, RepositoryName};
use model::{Compatibility, ContentHash, tokenizer_class::TokenizerClass};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{
    Digest, Rejection, Store,
    digest::as_text,
    download::blocking,
    manifest::{self, Contents, Missing, TOKENIZER_CONFIG},
    metadata::RepositorySource,
    rejection::Judged,
    tries::Tries,
};
use subnet::{Fault, FixedTokenizer};

/// The branch that is looked at where no revision is pinned, as the Python validator does.
const BRANCH: &str = "main";

/// A tokenizer that is known to work: nothing else is taken for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenizerPin {
    /// The commit of its repository.
    pub revision: String,
    /// The hash of its files.
    #[serde(with = "as_text")]
    pub content: ContentHash,
}

/// A tokenizer in the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundTokenizer {
    /// Its folder.
    pub dir: PathBuf,
    /// What it is.
    pub pin: TokenizerPin,
    /// Why it is not what the subnet file or its repository now has, in words.
    pub problem: Option<String>,
}

/// What is asked for: a commit, and its content if that is known.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Goal {
    revision: String,
    content: Option<ContentHash>,
}

/// Looks for fixed tokenizers, in the store and on the hub.
#[derive(Debug, Clone, Copy)]
pub struct Tokenizers<'a> {
    /// Where they come from; the store alone serves if there is none.
    pub hub: Option<&'a Hub>,
    /// Where they go.
    pub store: &'a Store,
    /// What is accepted of them.
    pub compatibility: Compatibility,
}

impl Tokenizers<'_> {
    /// Returns the tokenizer that the subnet file pins; without a pin the trusted one, which worked
    /// before; without that what the repository has now. What can't be had is told of the trusted one,
    /// which stays in use.
    pub async fn find(
        &self,
        wanted: &FixedTokenizer,
        trusted: Option<&TokenizerPin>,
    ) -> Result<FoundTokenizer, Fault> {
        let name: RepositoryName = wanted.repository.parse().map_err(Fault::config)?;
        let Some(goal) = goal(wanted, trusted) else {
            return match self.newest(&name).await {
                Ok(found) => Ok(found),
                Err(error) => Err(fault_of(&name, error, true)),
            };
        };
        let pinned = wanted.revision.is_some();
        let error = match self.at(&name, &goal).await {
            Ok(mut found) => {
                if !pinned {
                    found.problem = self.upstream(&name, &found.pin).await;
                }
                return Ok(found);
            }
            Err(error) => error,
        };
        if let Some(trusted) = trusted.filter(|trusted| trusted.revision != goal.revision)
            && let Ok(mut found) = self.at(&name, &Goal::from(trusted)).await
        {
            found.problem = Some(format!(
                "the tokenizer {name} at revision {} can't be had ({error}): that of revision {} \
                 stays in use",
                goal.revision, trusted.revision
            ));
            return Ok(found);
        }
        Err(fault_of(&name, error, pinned))
    }

    /// Returns what the branch has now; if the hub is away, what was fetched last.
    async fn newest(&self, name: &RepositoryName) -> Judged<FoundTokenizer> {
        let error = match self.fetch(name, BRANCH, None).await {
            Ok(found) => return Ok(found),
            Err(error) => error,
        };
        let Some(dir) = self.store.newest_tokenizer(&name.to_string()) else {
            return Err(error);
        };
        tracing::warn!(repository = %name, %error, "can't have the newest tokenizer: using the one fetched last");
        let revision = dir
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        let content = content_of(dir.clone()).await?;
        Ok(found(dir, &revision, content))
    }

    /// Returns the tokenizer of a commit, whose copy in the store is looked at byte by byte.
    async fn at(&self, name: &RepositoryName, goal: &Goal) -> Judged<FoundTokenizer> {
        let Goal { revision, content } = goal;
        let dir = self.store.tokenizer_dir(&name.to_string(), revision);
        if dir.is_dir() {
            // What can't be read is as bad as other bytes.
            let here = content_of(dir.clone()).await.ok();
            if let Some(here) = here.filter(|here| content.is_none_or(|content| content == *here)) {
                return Ok(found(dir, revision, here));
            }
            tracing::error!(repository = %name, revision, "our copy of a tokenizer is damaged; it is fetched again");
            let store = self.store.clone();
            blocking(move || Ok(store.remove_tokenizer(&dir)?)).await?;
        }
        self.fetch(name, revision, *content).await
    }

    /// Says that the branch has another tokenizer than the one in use.
    async fn upstream(&self, name: &RepositoryName, pin: &TokenizerPin) -> Option<String> {
        let listing = self.hub?.listing(RepositoryKind::Model, name, BRANCH).await;
        let commit = match listing {
            Ok(listing) if listing.commit == pin.revision => return None,
            Ok(listing) => {
                let commit = listing.commit.clone();
                match self.files(name, &listing, Origin::Hub).await {
                    Ok(files) if content_hash(&files) == pin.content => return None,
                    Ok(_) => commit,
                    Err(Rejection::Refused { reason, .. }) => format!("{commit} ({reason})"),
                    Err(Rejection::Retry { .. }) => return None,
                }
            }
            // Nothing is needed of the hub.
            Err(_) => return None,
        };
        Some(format!(
            "the tokenizer {name} has changed to revision {commit}: that of revision {} stays in \
             use until the subnet file names another",
            pin.revision
        ))
    }

    async fn fetch(
        &self,
        name: &RepositoryName,
        revision: &str,
        content: Option<ContentHash>,
    ) -> Judged<FoundTokenizer> {
        let hub = self
            .hub
            .ok_or_else(|| Rejection::outside("it is not on disk, and the hub is not asked"))?;
        // Only what a hash is known of may come from a mirror.
        let mut tries = Tries::new(hub, Origin::Hub, content.is_some());
        while let Some(origin) = tries.next() {
            match self.fetch_by(hub, origin, name, revision, content).await {
                Ok(found) => {
                    tries.served(origin);
                    return Ok(found);
                }
                Err(rejection) => tries.failed(origin, rejection)?,
            }
        }
        Err(tries.rejection())
    }

    /// Fetches a tokenizer by the listing of an origin.
    async fn fetch_by(
        &self,
        hub: &Hub,
        origin: Origin,
        name: &RepositoryName,
        revision: &str,
        content: Option<ContentHash>,
    ) -> Judged<FoundTokenizer> {
        let listing = hub.listing_of(origin, RepositoryKind::Model, name, revision);
        let listing = listing.await?;
        if revision != BRANCH && listing.commit != revision {
            return Err(Rejection::outside(format!(
                "the hub answers for revision {revision} with commit {}",
                listing.commit
            )));
        }
        let files = self.files(name, &listing, origin).await?;
        let fetched = content_hash(&files);
        if let Some(content) = content.filter(|content| *content != fetched) {
            return Err(Rejection::refused(format!(
                "revision {revision} has the content hash {fetched}, not {content}"
            )));
        }
        let dir = self.store.tokenizer_dir(&name.to_string(), &listing.commit);
        let (store, target) = (self.store.clone(), dir.clone());
        let published = blocking(move || {
            // One of before may have decayed.
            store.remove_tokenizer(&target)?;
            store.add_tokenizer(&target, &files)?;
            Ok(ContentHash::of_directory(&target).ok())
        });
        if published.await? != Some(fetched) {
            return Err(Rejection::machine(format!(
                "{} is not what was written: see that the disk is sound",
                dir.display()
            )));
        }
        Ok(found(dir, &listing.commit, fetched))
    }

    /// Fetches the files of a tokenizer into the store; returns their digests by path.
    async fn files(
        &self,
        name: &RepositoryName,
        listing: &Listing,
        listed_by: Origin,
    ) -> Judged<BTreeMap<String, Digest>> {
        let hub = self
            .hub
            .ok_or_else(|| Rejection::outside("the hub is not asked"))?;
        let source = RepositorySource {
            hub,
            store: Some(self.store),
            repository: name,
            listing,
            listed_by,
        };
        let mut files = BTreeMap::new();
        let mut contents = Contents::new();
        let config = loop {
            let path = match manifest::config_of(listing, &contents) {
                Ok(config) => break config,
                Err(Missing::Never(reason)) => return Err(Rejection::refused(reason)),
                Err(Missing::Content(path)) => path,
            };
            let (digest, content) = source.small_at(&path).await?;
            files.insert(path.clone(), digest);
            contents.insert(path, content);
        };
        for path in [config.as_deref(), Some(TOKENIZER_CONFIG)]
            .into_iter()
            .flatten()
        {
            if listing.files.contains_key(path) && !contents.contains_key(path) {
                let (digest, content) = source.small_at(path).await?;
                files.insert(path.to_owned(), digest);
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
        let class = TokenizerClass::resolve(Some(&tokenizer_config), &config, self.compatibility)
            .map_err(Rejection::refused)?;
        for path in class.files() {
            if let Some(entry) = listing.files.get(path) {
                files.insert(path.to_owned(), source.small(path, entry).await?.0);
            }
        }
        Ok(files)
    }
}

impl From<&TokenizerPin> for Goal {
    fn from(pin: &TokenizerPin) -> Self {
        Self {
            revision: pin.revision.clone(),
            content: Some(pin.content),
        }
    }
}

/// Returns what is asked for; `None` if anything will do.
fn goal(wanted: &FixedTokenizer, trusted: Option<&TokenizerPin>) -> Option<Goal> {
    let Some(revision) = &wanted.revision else {
        return trusted.map(Goal::from);
    };
    let same = trusted.filter(|trusted| trusted.revision == *revision);
    Some(Goal {
        revision: revision.clone(),
        content: wanted.content_hash.or(same.map(|trusted| trusted.content)),
    })
}

fn found(dir: PathBuf, revision: &str, content: ContentHash) -> FoundTokenizer {
    FoundTokenizer {
        dir,
        pin: TokenizerPin {
            revision: revision.to_owned(),
            content,
        },
        problem: None,
    }
}

fn content_hash(files: &BTreeMap<String, Digest>) -> ContentHash {
    ContentHash::of_files(files.iter().map(|(path, digest)| (path, digest.0)))
}

async fn content_of(dir: PathBuf) -> Judged<ContentHash> {
    blocking(move || {
        ContentHash::of_directory(&dir)
            .map_err(|error| Rejection::machine(format!("{}: {error}", dir.display())))
    })
    .await
}

/// Whose fault it is that a tokenizer can't be had: the configuration's only where it is what the
/// subnet file asks for.
fn fault_of(name: &RepositoryName, error: Rejection, asked_for: bool) -> Fault {
    match error {
        Rejection::Refused {
            reason,
            lasting: true,
        } if asked_for => Fault::config(format!("tokenizer {name}: {reason}")),
        Rejection::Refused { reason, .. } => Fault::outside(format!("tokenizer {name}: {reason}")),
        Rejection::Retry { fault, .. } => {
            Fault::new(fault.kind, format!("tokenizer {name}: {fault}"))
        }
    }
}
