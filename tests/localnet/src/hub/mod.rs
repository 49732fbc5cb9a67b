//! The Hugging Face hub: its HTTP API over repositories made at start, with a CDN on a second port.

mod answer;
mod content;
mod files;
mod listing;
mod refusal;
mod repository;
mod route;
mod viewer;

use std::sync::{Arc, PoisonError, RwLock};

use axum::Router;
use shared::Failure;

pub use content::Content;
pub use repository::{Access, File, Kind, Repositories, Repository, Revision};

use crate::http::{Bound, Faults, Server};

/// Ports of the hub; 0 takes any free one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Ports {
    pub hub: u16,
    /// The CDN that large files are redirected to.
    pub cdn: u16,
}

#[derive(Debug, Clone)]
struct HubState {
    repositories: Arc<RwLock<Repositories>>,
    hub_url: Arc<str>,
    cdn_url: Arc<str>,
}

impl HubState {
    fn read<T>(&self, act: impl FnOnce(&Repositories) -> T) -> T {
        act(&self
            .repositories
            .read()
            .unwrap_or_else(PoisonError::into_inner))
    }
}

/// A running hub. Dropping it closes its ports.
#[derive(Debug)]
pub struct Hub {
    /// The API and small files: faults and traffic of the hub itself.
    pub api: Server,
    pub cdn: Server,
    /// Another host with the same large files, see [`crate::http::Fault::ThirdHost`].
    pub third_host: Server,
    repositories: Arc<RwLock<Repositories>>,
}

impl Hub {
    pub async fn start(ports: Ports) -> Result<Self, Failure> {
        let api = Bound::take(ports.hub, "the hub").await?;
        let cdn = Bound::take(ports.cdn, "the hub's CDN").await?;
        let third_host = Bound::take(0, "the third host").await?;
        let shelf = HubState {
            repositories: Arc::default(),
            hub_url: api.url().into(),
            cdn_url: cdn.url().into(),
        };
        // Another name of this machine is another host to a client.
        let elsewhere = format!("localhost:{}", third_host.address().port());
        let cdn_router = || Router::new().fallback(files::cdn).with_state(shelf.clone());
        Ok(Self {
            api: api.serve(
                "hub",
                Router::new()
                    .fallback(answer::answer)
                    .with_state(shelf.clone()),
                Faults::with_third_host(&elsewhere),
            ),
            cdn: cdn.serve("cdn", cdn_router(), Faults::default()),
            third_host: third_host.serve("third-host", cdn_router(), Faults::default()),
            repositories: shelf.repositories,
        })
    }

    /// Returns the base URL, as `HF_ENDPOINT` wants it.
    pub fn url(&self) -> String {
        self.api.url()
    }

    /// Returns the faults of the API (large files: `hub.cdn.faults`).
    pub const fn faults(&self) -> &Faults {
        &self.api.faults
    }

    /// Looks at or changes the repositories.
    pub fn edit<T>(&self, act: impl FnOnce(&mut Repositories) -> T) -> T {
        act(&mut self
            .repositories
            .write()
            .unwrap_or_else(PoisonError::into_inner))
    }

    /// Commits these files as the whole content of a model's branch `main`; makes the repository
    /// if need be. Returns the new revision.
    pub fn commit_model(
        &self,
        id: &str,
        files: impl IntoIterator<Item = (String, Content)>,
    ) -> String {
        self.edit(|all| all.commit(Kind::Model, id, "main", files))
    }

    /// The same for a dataset.
    pub fn commit_dataset(
        &self,
        id: &str,
        files: impl IntoIterator<Item = (String, Content)>,
    ) -> String {
        self.edit(|all| all.commit(Kind::Dataset, id, "main", files))
    }

    /// Returns all body bytes sent, by the hub and its CDN, in requests whose target contains
    /// `part`.
    pub fn bytes_sent(&self, part: &str) -> u64 {
        self.api.traffic.bytes(part) + self.cdn.traffic.bytes(part)
    }
}
