//! The hub's client: few requests, each with deadlines, limits and a wary eye on redirects.
//!
//! `hf-hub` is used for the xet protocol only (`xet`). Its listing reads bodies without a limit
//! and follows page links with our token to any host, and its plain download neither resumes nor
//! checks what it stores; so these requests are made here.

pub mod address;
mod error;
pub mod listing;
mod meter;
mod range;
mod redirect;
mod request;
mod xet;

use std::{fmt, sync::Arc, time::Duration};

use address::RepositoryName;
use bytes::Bytes;
pub use error::HubError;
pub use listing::{Entry, Listing};
use meter::{Counter, Pace};
pub use range::RemoteFile;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use url::Url;
use zeroize::Zeroizing;

/// Largest listing of a repository; one of an ordinary model has some 10 KB.
const MAX_LISTING: u64 = 8 << 20;

/// The public hub.
pub const DEFAULT_ENDPOINT: &str = "https://huggingface.co";

/// A token of the hub; never shown.
#[derive(Clone)]
pub struct Token(Zeroizing<String>);

impl Token {
    /// Takes a token; white space around it is dropped, an empty one is none.
    pub fn new(text: &str) -> Option<Self> {
        let text = text.trim();
        (!text.is_empty()).then(|| Self(Zeroizing::new(text.to_owned())))
    }

    /// Returns the token itself.
    fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(..)")
    }
}

/// How to reach the hub, and how much of the network to take.
#[derive(Debug, Clone)]
pub struct HubOptions {
    /// Its address, such as [`DEFAULT_ENDPOINT`].
    pub endpoint: Url,
    /// Sent to the endpoint's own host, and to no other.
    pub token: Option<Token>,
    /// Most connections at once.
    pub connections: usize,
    /// Most bytes per second, over all connections.
    pub bandwidth: Option<u64>,
    /// Whether to use the xet protocol where the hub offers it.
    pub xet: bool,
    /// How long to wait, how often to try again.
    pub patience: Patience,
}

impl HubOptions {
    /// The defaults for an endpoint.
    pub fn new(endpoint: Url) -> Self {
        Self {
            endpoint,
            token: None,
            connections: 8,
            bandwidth: None,
            xet: false,
            patience: Patience::default(),
        }
    }
}

/// How long to wait for the hub, and how often to try again.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// For a connection.
    pub connect: Duration,
    /// For the next bytes of an answer.
    pub stall: Duration,
    /// For a whole small answer.
    pub answer: Duration,
    /// Tries in a row without progress.
    pub tries: u32,
    /// Wait after the first failed try; it doubles after each.
    pub pause: Duration,
    /// Longest wait the hub may ask for within one operation.
    pub longest_pause: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(10),
            stall: Duration::from_secs(30),
            answer: Duration::from_secs(60),
            tries: 4,
            pause: Duration::from_millis(300),
            longest_pause: Duration::from_secs(10),
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
    #[error("could not set up the HTTP client")]
    Client(#[from] reqwest::Error),
}

/// The hub's client. Clones share connections and limits.
#[derive(Debug, Clone)]
pub struct Hub {
    shared: Arc<Shared>,
    fetched: Arc<Counter>,
}

#[derive(Debug)]
struct Shared {
    options: HubOptions,
    client: reqwest::Client,
    authorization: Option<reqwest::header::HeaderValue>,
    connections: Arc<Semaphore>,
    pace: Pace,
}

impl Hub {
    /// Makes a client; nothing is sent yet.
    pub fn new(options: HubOptions) -> Result<Self, HubOptionsError> {
        let endpoint = &options.endpoint;
        if !matches!(endpoint.scheme(), "http" | "https") || endpoint.host().is_none() {
            return Err(HubOptionsError::Endpoint(endpoint.clone()));
        }
        let authorization = match &options.token {
            None => None,
            Some(token) => {
                let text = Zeroizing::new(format!("Bearer {}", token.reveal()));
                let mut value = reqwest::header::HeaderValue::from_str(&text)
                    .map_err(|_| HubOptionsError::Token)?;
                value.set_sensitive(true);
                Some(value)
            }
        };
        let client = reqwest::Client::builder()
            .user_agent(concat!("finetune-vali/", env!("CARGO_PKG_VERSION")))
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(options.patience.connect)
            .read_timeout(options.patience.stall)
            .pool_idle_timeout(Duration::from_secs(30))
            // Parallel ranges over one HTTP/2 connection would share its one flow-control window,
            // and a compressed body has no bytes to count or to resume at.
            .http1_only()
            .no_gzip()
            .build()?;
        let connections = Arc::new(Semaphore::new(options.connections.max(1)));
        let pace = Pace::new(options.bandwidth);
        let shared = Shared {
            options,
            client,
            authorization,
            connections,
            pace,
        };
        Ok(Self {
            shared: Arc::new(shared),
            fetched: Arc::default(),
        })
    }

    /// Returns a client that counts its bytes from zero.
    #[must_use]
    pub fn counted(&self) -> Self {
        Self {
            shared: Arc::clone(&self.shared),
            fetched: Arc::default(),
        }
    }

    /// Returns the bytes of bodies received by this client and its clones.
    pub fn bytes_fetched(&self) -> u64 {
        self.fetched.get()
    }

    /// Returns the options.
    pub fn options(&self) -> &HubOptions {
        &self.shared.options
    }

    /// Asks for the files of a repository at a revision, in one request.
    pub async fn listing(
        &self,
        repository: &RepositoryName,
        revision: &str,
    ) -> Result<Listing, HubError> {
        let [namespace, name] = repository.parts();
        let mut url =
            self.url(["api", "models", namespace, name, "revision", revision].into_iter());
        url.set_query(Some("blobs=true"));
        let body = self.get_limited(url.clone(), MAX_LISTING).await?;
        Listing::parse(&body).map_err(|source| HubError::Listing {
            url: url.into(),
            source,
        })
    }

    /// Names a file for [`Hub::range`] and [`Hub::whole`].
    pub fn file(
        &self,
        repository: &RepositoryName,
        commit: &str,
        path: &str,
        size: u64,
        sha256: Option<[u8; 32]>,
    ) -> RemoteFile {
        let [namespace, name] = repository.parts();
        let parts = [namespace, name, "resolve", commit]
            .into_iter()
            .chain(path.split('/'));
        let url = self.url(parts);
        RemoteFile::new(
            url,
            (repository.clone(), commit.to_owned(), path.to_owned()),
            size,
            sha256,
        )
    }

    /// Fetches the whole of a small file.
    pub async fn whole(&self, file: &RemoteFile) -> Result<Bytes, HubError> {
        let _permit = self.connection().await;
        let pieces = self.range(file, 0..file.size()).await?;
        Ok(pieces.concat().into())
    }

    /// Waits for one of the connections we may have.
    pub(crate) async fn connection(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.shared.connections)
            .acquire_owned()
            .await
            .ok()
    }

    fn url<'a>(&self, parts: impl Iterator<Item = &'a str>) -> Url {
        let mut url = self.shared.options.endpoint.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(parts);
        }
        url.set_query(None);
        url
    }
}
