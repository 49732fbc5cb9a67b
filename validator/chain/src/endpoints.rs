//! Where the chain is: network names, URLs, fail-over lists, and which genesis to expect.

use std::time::Duration;

use subnet::Genesis;
use url::Url;

use super::node_url::{NodeUrl, hidden};

/// Finney's genesis block: a node that serves another one is not Bittensor's main network.
const FINNEY_GENESIS: Genesis = Genesis([
    0x2f, 0x05, 0x55, 0xcc, 0x76, 0xfc, 0x28, 0x40, 0xa2, 0x5a, 0x6e, 0xa3, 0xb9, 0x63, 0x71, 0x46,
    0x80, 0x6f, 0x1f, 0x44, 0xb0, 0x90, 0xc1, 0x75, 0xff, 0xde, 0x2a, 0x7e, 0x5a, 0xb3, 0x6c, 0x03,
]);

/// The networks known by name: canonical endpoint, public ones to fail over to.
const NETWORKS: [(&str, &[&str]); 6] = [
    (
        "finney",
        &[
            "wss://entrypoint-finney.opentensor.ai:443",
            "wss://lite.chain.opentensor.ai:443",
            "wss://lite.sub.latent.to:443",
        ],
    ),
    ("test", &["wss://test.finney.opentensor.ai:443"]),
    (
        "archive",
        &[
            "wss://archive.chain.opentensor.ai:443",
            "wss://archive.sub.latent.to:443",
        ],
    ),
    ("local", &["ws://127.0.0.1:9944"]),
    ("latent-lite", &["wss://lite.sub.latent.to:443"]),
    ("devnet", &["wss://dev.chain.opentensor.ai:443"]),
];

const FINNEY_HOSTS: [&str; 5] = [
    "entrypoint-finney.opentensor.ai",
    "lite.chain.opentensor.ai",
    "archive.chain.opentensor.ai",
    "lite.sub.latent.to",
    "archive.sub.latent.to",
];

/// The nodes of one network, in order of preference.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoints {
    /// Name of the network, or `custom`.
    pub network: String,
    /// WebSocket addresses, at least one.
    pub urls: Vec<NodeUrl>,
    /// Hash of the genesis block, where it is known.
    pub genesis: Option<Genesis>,
}

/// Why no endpoints could be made of the options.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EndpointError {
    /// Neither a known name nor a URL.
    #[error("{0:?} is neither a network ({known}) nor a WebSocket address", known = known_networks())]
    Unknown(String),
    /// An address that can't be one of a node.
    #[error("{url:?} is not a WebSocket address: {problem}")]
    Url {
        /// Without what may be secret.
        url: String,
        /// What is wrong with it.
        problem: String,
    },
}

fn known_networks() -> String {
    NETWORKS.map(|(name, _)| name).join(", ")
}

impl Endpoints {
    /// Takes the endpoints where any are given, else the network (a name or a URL), else finney.
    pub fn resolve(network: Option<&str>, endpoints: &[String]) -> Result<Self, EndpointError> {
        if endpoints.is_empty() {
            return Self::of_network(network.unwrap_or("finney"));
        }
        let urls = endpoints
            .iter()
            .map(|url| parse(url))
            .collect::<Result<Vec<_>, _>>()?;
        Ok(Self::of_urls(urls))
    }

    fn of_network(name: &str) -> Result<Self, EndpointError> {
        let Some((network, urls)) = NETWORKS.iter().find(|(known, _)| *known == name) else {
            if !name.contains([':', '.', '/']) {
                return Err(EndpointError::Unknown(name.to_owned()));
            }
            return Ok(Self::of_urls(vec![parse(name)?]));
        };
        let urls = urls
            .iter()
            .map(|url| parse(url))
            .collect::<Result<Vec<_>, _>>()?;
        Ok(Self {
            network: (*network).to_owned(),
            ..Self::of_urls(urls)
        })
    }

    fn of_urls(urls: Vec<NodeUrl>) -> Self {
        let host = |url: &NodeUrl| url.url().host_str().map(ToOwned::to_owned);
        let on_finney = urls
            .iter()
            .any(|url| host(url).as_deref().is_some_and(is_finney));
        let local = urls
            .iter()
            .all(|url| matches!(host(url).as_deref(), Some("127.0.0.1" | "localhost")));
        let network = match (on_finney, local) {
            (true, _) => "finney",
            (false, true) => "local",
            (false, false) => "custom",
        };
        Self {
            network: network.to_owned(),
            urls,
            genesis: on_finney.then_some(FINNEY_GENESIS),
        }
    }
}

fn is_finney(host: &str) -> bool {
    FINNEY_HOSTS.contains(&host)
}

fn parse(text: &str) -> Result<NodeUrl, EndpointError> {
    let text = text.trim();
    let with_scheme = if text.contains("://") {
        text.to_owned()
    } else {
        format!("ws://{text}")
    };
    let refuse = |problem: &str| EndpointError::Url {
        url: hidden(text),
        problem: problem.into(),
    };
    let url = Url::parse(&with_scheme).map_err(|error| refuse(&error.to_string()))?;
    if !matches!(url.scheme(), "ws" | "wss") {
        return Err(refuse("the scheme must be ws:// or wss://"));
    }
    if url.host_str().is_none_or(str::is_empty) {
        return Err(refuse("there is no host"));
    }
    Ok(url.into())
}

/// How long we wait for what; nothing waits longer.
#[derive(Debug, Clone, Copy)]
pub struct Deadlines {
    /// TCP, TLS and WebSocket handshake with one endpoint.
    pub handshake: Duration,
    /// One request on one connection.
    pub request: Duration,
    /// One operation, over all its reconnections.
    pub operation: Duration,
    /// A subscription without any message.
    pub silence: Duration,
    /// From offering a transaction until it is in a block.
    pub inclusion: Duration,
    /// First pause before an endpoint that failed is tried again; it doubles up to 32 times this.
    pub backoff: Duration,
    /// First pause before an endpoint that told us to go away (403, 429) is tried again; it
    /// doubles up to 16 times this. An only endpoint is tried after a sixteenth of it, at most
    /// after all of it.
    pub penalty: Duration,
    /// How often all endpoints are asked for their newest block while the preferred one is in use
    /// and fresh. Otherwise they are asked five times as often, while the one in use lags thirty
    /// times.
    pub survey: Duration,
}

impl Default for Deadlines {
    fn default() -> Self {
        Self {
            handshake: Duration::from_secs(10),
            request: Duration::from_secs(20),
            operation: Duration::from_secs(60),
            silence: Duration::from_secs(60),
            inclusion: Duration::from_secs(60),
            backoff: Duration::from_millis(500),
            penalty: Duration::from_secs(60),
            survey: Duration::from_secs(300),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoints(list: &[&str]) -> Vec<String> {
        list.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn endpoints_beat_the_network_and_finney_is_the_default() {
        let finney = Endpoints::resolve(None, &[]).unwrap();
        assert_eq!(finney.network, "finney");
        assert_eq!(finney.urls.len(), 3);
        assert_eq!(finney.genesis, Some(FINNEY_GENESIS));

        let own = Endpoints::resolve(Some("finney"), &endpoints(&["127.0.0.1:9944"])).unwrap();
        assert_eq!(own.network, "local");
        assert_eq!(own.urls[0].to_string(), "ws://127.0.0.1:9944/");
        assert_eq!(own.genesis, None);

        let url = Endpoints::resolve(Some("wss://node.example:443"), &[]).unwrap();
        assert_eq!(url.network, "custom");
        let archive = Endpoints::resolve(Some("archive"), &[]).unwrap();
        assert_eq!(
            (archive.network.as_str(), archive.genesis),
            ("archive", Some(FINNEY_GENESIS))
        );
    }

    #[test]
    fn what_is_no_endpoint_is_refused_by_name() {
        let refused = |text: &str| Endpoints::resolve(Some(text), &[]).unwrap_err().to_string();
        insta::assert_snapshot!(refused("finny"), @r#""finny" is neither a network (finney, test, archive, local, latent-lite, devnet) nor a WebSocket address"#);
        insta::assert_snapshot!(refused("http://node"), @r#""http://node" is not a WebSocket address: the scheme must be ws:// or wss://"#);
        insta::assert_snapshot!(refused("http://key:SECRET@node/SECRET"), @r#""http://***@node/***" is not a WebSocket address: the scheme must be ws:// or wss://"#);
        insta::assert_snapshot!(refused("ws://"), @r#""ws://" is not a WebSocket address: empty host"#);
    }
}
