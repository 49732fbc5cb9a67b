//! The hub's client: repositories, listings and files, by few requests with limits on each.
//!
//! `hf-hub` is used for the xet protocol only (`xet`). Its listing reads bodies without a limit
//! and follows page links with our token to any host, and its plain download neither resumes nor
//! checks what it stores; so these requests are made here.

pub mod address;
mod file;
pub mod listing;
mod origin;
mod token;
mod xet;

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use http_client::{
    Credentials, HttpClient, HttpError, HttpObserver, HttpOptions, HttpRequest, RetryPolicy,
    SetupError,
};
use url::Url;

pub use address::RepositoryName;
pub use file::HubFile;
pub use listing::{ListedFile, Listing};
pub use origin::{MirrorUrl, MirrorUrlError, Origin, OriginReport, OriginTrouble};
pub use token::Token;

use origin::{Mirror, Origins};

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
    /// Servers with the same content, in the order in which they are asked when the hub is away.
    pub mirrors: Vec<MirrorUrl>,
    /// Sent to the mirrors, if they are to have one.
    pub mirror_token: Option<Token>,
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
            mirrors: Vec::new(),
            mirror_token: None,
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
    Endpoint(String),
    /// The token holds characters that no header may.
    #[error("the hub token holds characters that can't be sent")]
    Token,
    /// The token of the mirrors holds characters that no header may.
    #[error("the token of the hub's mirrors holds characters that can't be sent")]
    MirrorToken,
    /// The TLS library could not be set up.
    #[error(transparent)]
    Client(#[from] SetupError),
}

/// The hub's client, and that of its mirrors. Clones share connections, limits and what is known of
/// the origins.
#[derive(Debug, Clone)]
pub struct Hub {
    options: Arc<HubOptions>,
    credentials: Option<Credentials>,
    mirrors: Arc<[Mirror]>,
    client: HttpClient,
    origins: Arc<Origins>,
    /// Who served this client and its clones.
    served: Arc<Mutex<BTreeSet<Origin>>>,
}

/// Where another origin can be asked, it is nearer than a third try.
const ATTEMPTS_WITH_MIRRORS: u32 = 2;

impl Hub {
    /// Makes a client; nothing is sent yet.
    pub fn new(mut options: HubOptions) -> Result<Self, HubOptionsError> {
        let endpoint = &options.endpoint;
        if !matches!(endpoint.scheme(), "http" | "https") || endpoint.host().is_none() {
            return Err(HubOptionsError::Endpoint(http_client::shown(endpoint)));
        }
        let credentials = options
            .token
            .as_ref()
            .map(|token| Credentials::bearer(token.reveal()))
            .transpose()
            .map_err(|_| HubOptionsError::Token)?;
        if credentials.is_some() && !http_client::keeps_secrets(endpoint) {
            let endpoint = http_client::shown(endpoint);
            tracing::warn!(%endpoint, "the hub token is not sent: the hub's address has no https");
        }
        let mirrors = options.mirrors.iter().map(|url| {
            let hub = (endpoint, credentials.as_ref());
            Mirror::new(url.clone(), hub, options.mirror_token.as_ref())
        });
        let mirrors: Arc<[Mirror]> = mirrors
            .collect::<Result<_, _>>()
            .map_err(|_| HubOptionsError::MirrorToken)?;
        let urls = mirrors.iter().map(|mirror| &mirror.url);
        let origins = Arc::new(Origins::new(std::iter::once(endpoint).chain(urls)));
        if !mirrors.is_empty() {
            let retry = &mut options.http.retry;
            retry.attempts = retry.attempts.min(ATTEMPTS_WITH_MIRRORS);
        }
        Ok(Self {
            client: HttpClient::new(options.http)?,
            credentials,
            mirrors,
            origins,
            served: Arc::default(),
            options: Arc::new(options),
        })
    }

    /// Returns a client that tells this observer of each answer, as do its clones.
    #[must_use]
    pub fn observed(self, observer: Arc<dyn HttpObserver>) -> Self {
        Self {
            client: self.client.observed(observer),
            ..self
        }
    }

    /// Returns a client that counts its bytes, and those who served it, from zero.
    #[must_use]
    pub fn counted(&self) -> Self {
        Self {
            client: self.client.counted(),
            served: Arc::default(),
            ..self.clone()
        }
    }

    /// Returns the origins in the order in which they are asked: the hub first, unless it was in
    /// trouble lately.
    pub fn origins(&self) -> Vec<Origin> {
        self.origins.in_order()
    }

    /// Notes that an origin served a listing or a file.
    pub fn note_served(&self, origin: Origin) {
        self.origins.note_served(origin);
        let mut served = self.served.lock().unwrap_or_else(PoisonError::into_inner);
        served.insert(origin);
    }

    /// Notes why an origin did not serve.
    pub fn note_trouble(&self, origin: Origin, trouble: OriginTrouble, problem: &str) {
        self.origins.note_trouble(origin, trouble, problem);
    }

    /// Returns the address of an origin, without what may be secret.
    pub fn address(&self, origin: Origin) -> String {
        let names = self.origins.names(&BTreeSet::from([origin]));
        names.into_iter().next().unwrap_or_default()
    }

    /// Returns the addresses of those who served this client and its clones, the hub first.
    pub fn served_by(&self) -> Vec<String> {
        let served = self.served.lock().unwrap_or_else(PoisonError::into_inner);
        self.origins.names(&served)
    }

    /// Returns whether a mirror served this client or a clone of it.
    pub fn is_mirrored(&self) -> bool {
        let served = self.served.lock().unwrap_or_else(PoisonError::into_inner);
        served.iter().any(|origin| origin.is_mirror())
    }

    /// Returns what is known of the origins, the hub first.
    pub fn origin_reports(&self) -> Vec<OriginReport> {
        self.origins.reports()
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

    /// Asks the hub for the files of a repository at a revision, in one request.
    pub async fn listing(
        &self,
        kind: RepositoryKind,
        repository: &RepositoryName,
        revision: &str,
    ) -> Result<Listing, HttpError> {
        self.listing_of(Origin::Hub, kind, repository, revision)
            .await
    }

    /// The same of any origin.
    pub async fn listing_of(
        &self,
        origin: Origin,
        kind: RepositoryKind,
        repository: &RepositoryName,
        revision: &str,
    ) -> Result<Listing, HttpError> {
        let [namespace, name] = repository.parts();
        let plural = match kind {
            RepositoryKind::Model => "models",
            RepositoryKind::Dataset => "datasets",
        };
        let parts = ["api", plural, namespace, name, "revision", revision];
        let mut url = self.url(origin, parts.into_iter());
        url.set_query(Some("blobs=true"));
        let request = HttpRequest::get(url, kind.max_listing_bytes(), LISTING_DEADLINE)
            .credentials(self.credentials_for(origin));
        let body = request.send(&self.client).await?;
        Listing::parse(&body).map_err(|error| request.malformed("a listing of files", error))
    }

    fn credentials_for(&self, origin: Origin) -> Option<Credentials> {
        match origin {
            Origin::Hub => self.credentials.clone(),
            Origin::Mirror(number) => self.mirrors[number].credentials.clone(),
        }
    }

    fn url<'a>(&self, origin: Origin, parts: impl Iterator<Item = &'a str>) -> Url {
        let mut url = match origin {
            Origin::Hub => self.options.endpoint.clone(),
            Origin::Mirror(number) => self.mirrors[number].url.clone(),
        };
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(parts);
        }
        url.set_query(None);
        url
    }
}
