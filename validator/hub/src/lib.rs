//! The hub's client: repositories, listings and files, by few requests with limits on each.
//!
//! `hf-hub` is used for the xet protocol only (`xet`). Its listing reads bodies without a limit
//! and follows page links with our token to any host, and its plain download neither resumes nor
//! checks what it stores; so these requests are made here.

pub mod address;
mod file;
pub mod listing;
mod token;
mod xet;

use std::{sync::Arc, time::Duration};

use http_client::{
    Credentials, HttpClient, HttpError, HttpOptions, HttpRequest, RetryPolicy, SetupError,
};
use url::Url;

pub use address::RepositoryName;
pub use file::HubFile;
pub use listing::{ListedFile, Listing};
pub use token::Token;

/// How long a listing may take, all attempts together: it has some kilobytes, and other repositories
/// wait meanwhile.
const LISTING_DEADLINE: Duration = Duration::from_secs(20);

/// Longest wait for the hub within one operation: meanwhile, other repositories can be looked at.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// The address of the public hub.
pub const DEFAULT_ENDPOINT: &str = "https://huggingface.co";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RepositoryKind {
    /// A repository of a model.
    Model,
    /// A repository of a dataset.
    Dataset,
}

impl RepositoryKind {
    /// Largest listing that is read; one of an ordinary model has some 10 KB, a dataset may have
    /// ten thousand files.
    const fn max_listing_bytes(self) -> u64 {
        match self {
            Self::Model => 8 << 20,
            Self::Dataset => 32 << 20,
        }
    }
}

/// How to reach the hub, and how much of the network to take.
#[derive(Debug, Clone)]
pub struct HubOptions {
    /// Its address, such as [`DEFAULT_ENDPOINT`].
    pub endpoint: Url,
    /// Sent to the endpoint's own host, and to no other.
    pub token: Option<Token>,
    /// Whether to use the xet protocol where the hub offers it.
    pub xet: bool,
    /// Limits on time and on the network.
    pub http: HttpOptions,
}

impl HubOptions {
    /// The defaults for an endpoint.
    pub fn new(endpoint: Url) -> Self {
        Self {
            endpoint,
            token: None,
            xet: false,
            http: HttpOptions {
                connections: 8,
                retry: RetryPolicy {
                    longest_pause: LONGEST_PAUSE,
                    ..RetryPolicy::default()
                },
                ..HttpOptions::default()
            },
        }
    }
}

/// The options make no client.
#[derive(Debug, thiserror::Error)]
pub enum HubOptionsError {
    /// The address is not one of a web server.
    #[error("{0} is not the address of a hub: http(s)://host[:port] expected")]
    Endpoint(Url),
    /// The token holds characters that no header may.
    #[error("the hub token holds characters that can't be sent")]
    Token,
    /// The TLS library could not be set up.
    #[error(transparent)]
    Client(#[from] SetupError),
}

/// The hub's client. Clones share connections and limits.
#[derive(Debug, Clone)]
pub struct Hub {
    options: Arc<HubOptions>,
    credentials: Option<Credentials>,
    client: HttpClient,
}

impl Hub {
    /// Makes a client; nothing is sent yet.
    pub fn new(options: HubOptions) -> Result<Self, HubOptionsError> {
        let endpoint = &options.endpoint;
        if !matches!(endpoint.scheme(), "http" | "https") || endpoint.host().is_none() {
            return Err(HubOptionsError::Endpoint(endpoint.clone()));
        }
        let credentials = options
            .token
            .as_ref()
            .map(|token| Credentials::bearer(token.reveal()))
            .transpose()
            .map_err(|_| HubOptionsError::Token)?;
        if credentials.is_some() && !http_client::keeps_secrets(endpoint) {
            tracing::warn!(%endpoint, "the hub token is not sent: the hub's address has no https");
        }
        Ok(Self {
            client: HttpClient::new(options.http)?,
            credentials,
            options: Arc::new(options),
        })
    }

    /// Returns a client that counts its bytes from zero.
    #[must_use]
    pub fn counted(&self) -> Self {
        Self {
            client: self.client.counted(),
            ..self.clone()
        }
    }

    /// Returns the bytes of bodies received by this client and its clones.
    pub fn bytes_fetched(&self) -> u64 {
        self.client.bytes_received()
    }

    /// Returns the options that it was made with.
    pub fn options(&self) -> &HubOptions {
        &self.options
    }

    /// Returns the HTTP client, with which files are read.
    pub const fn http(&self) -> &HttpClient {
        &self.client
    }

    /// Asks for the files of a repository at a revision, in one request.
    pub async fn listing(
        &self,
        kind: RepositoryKind,
        repository: &RepositoryName,
        revision: &str,
    ) -> Result<Listing, HttpError> {
        let [namespace, name] = repository.parts();
        let plural = match kind {
            RepositoryKind::Model => "models",
            RepositoryKind::Dataset => "datasets",
        };
        let mut url = self.url(["api", plural, namespace, name, "revision", revision].into_iter());
        url.set_query(Some("blobs=true"));
        let request = HttpRequest::get(url, kind.max_listing_bytes(), LISTING_DEADLINE)
            .credentials(self.credentials.clone());
        let body = request.send(&self.client).await?;
        Listing::parse(&body).map_err(|error| request.malformed("a listing of files", error))
    }

    fn url<'a>(&self, parts: impl Iterator<Item = &'a str>) -> Url {
        let mut url = self.options.endpoint.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(parts);
        }
        url.set_query(None);
        url
    }
}
