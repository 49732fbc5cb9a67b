//! A connection to one endpoint: made, and asked which chain it serves.

use std::time::Duration;

use jsonrpsee::{
    client_transport::ws::WsHandshakeError,
    core::client::{ClientT, Error as ClientError},
    rpc_params,
    ws_client::{PingConfig, WsClient, WsClientBuilder},
};
use serde::Deserialize;
use shared::causes;
use subnet::{BlockNumber, Genesis};
use tokio::time::{Instant, timeout};

use crate::{
    endpoints::Deadlines,
    node_url::NodeUrl,
    verdict::{Trouble, is_policy},
};

/// Largest message accepted: some thirty times finney's metadata.
const MAX_MESSAGE: u32 = 24 << 20;

/// Messages of one subscription that may wait for us before the connection gives it up.
const SUBSCRIPTION_BUFFER: usize = 256;

/// A connection to one endpoint.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) client: WsClient,
    pub(crate) endpoint: usize,
    pub(crate) url: NodeUrl,
}

/// What an endpoint said of itself when it was connected.
#[derive(Debug)]
pub(super) struct Greeting {
    pub(super) link: Link,
    pub(super) genesis: Genesis,
    pub(super) head: Option<BlockNumber>,
    pub(super) took: Duration,
}

/// Why an endpoint could not be connected.
#[derive(Debug)]
pub(super) struct ConnectFailure {
    pub(super) problem: String,
    pub(super) trouble: Trouble,
    pub(super) wrong_chain: bool,
}

/// The part of a header that we read ourselves.
#[derive(Debug, Deserialize)]
pub(crate) struct HeaderNumber {
    number: String,
}

impl HeaderNumber {
    pub(crate) fn read(&self) -> Option<BlockNumber> {
        u64::from_str_radix(self.number.strip_prefix("0x")?, 16).ok()
    }
}

/// Connects, and asks for genesis and newest block.
pub(super) async fn connect(
    url: &NodeUrl,
    endpoint: usize,
    deadlines: &Deadlines,
) -> Result<Greeting, ConnectFailure> {
    let ping = PingConfig::new()
        .ping_interval(deadlines.silence / 2)
        .inactive_limit(deadlines.silence)
        .max_failures(1);
    let building = WsClientBuilder::default()
        .connection_timeout(deadlines.handshake)
        .request_timeout(deadlines.operation)
        .max_response_size(MAX_MESSAGE)
        .max_buffer_capacity_per_subscription(SUBSCRIPTION_BUFFER)
        .enable_ws_ping(ping)
        .build(url.expose());
    let client = match timeout(deadlines.handshake, building).await {
        Ok(Ok(client)) => client,
        Ok(Err(error)) => return Err(ConnectFailure::of(url, &error)),
        Err(_) => {
            let problem = format!("no handshake within {:.0?}", deadlines.handshake);
            return Err(ConnectFailure::broken(problem));
        }
    };
    let url = url.clone();
    let link = Link {
        client,
        endpoint,
        url,
    };
    let began = Instant::now();
    let genesis = link
        .client
        .request::<Option<String>, _>("chain_getBlockHash", rpc_params![0]);
    let asking = async { tokio::join!(genesis, newest(&link)) };
    let Ok((genesis, head)) = timeout(deadlines.request, asking).await else {
        return Err(ConnectFailure::broken("no answer about its genesis".into()));
    };
    let found = genesis.map_err(|error| ConnectFailure::of(&link.url, &error))?;
    let genesis = found.as_deref().and_then(|found| found.parse().ok());
    let Some(genesis) = genesis else {
        return Err(ConnectFailure::broken(format!(
            "its genesis is not a block hash: {:.66}",
            link.url.scrub(&found.unwrap_or_default())
        )));
    };
    Ok(Greeting {
        link,
        genesis,
        // Whoever has no newest block to tell may still serve others.
        head: head.ok().flatten(),
        took: began.elapsed(),
    })
}

/// Asks an endpoint for its newest block.
pub(crate) async fn newest(link: &Link) -> Result<Option<BlockNumber>, ClientError> {
    let header = link
        .client
        .request::<Option<HeaderNumber>, _>("chain_getHeader", rpc_params![])
        .await?;
    Ok(header.and_then(|header| header.read()))
}

impl ConnectFailure {
    pub(super) fn broken(problem: String) -> Self {
        Self {
            problem,
            trouble: Trouble::Broken,
            wrong_chain: false,
        }
    }

    pub(super) fn of(url: &NodeUrl, error: &ClientError) -> Self {
        let policy =
            match error {
                ClientError::Transport(error) => error
                    .downcast_ref::<WsHandshakeError>()
                    .is_some_and(|error| {
                        matches!(
                            error,
                            WsHandshakeError::Rejected {
                                status_code: 403 | 429
                            }
                        )
                    }),
                ClientError::Call(error) => is_policy(error.code()),
                _ => false,
            };
        Self {
            problem: url.scrub(&causes::one_line(error)),
            trouble: if policy {
                Trouble::ToldToGoAway
            } else {
                Trouble::Broken
            },
            wrong_chain: false,
        }
    }

    pub(super) fn other_chain(found: Genesis, expected: Genesis) -> Self {
        Self {
            problem: format!("it serves another chain: genesis {found}, expected {expected}"),
            trouble: Trouble::ToldToGoAway,
            wrong_chain: true,
        }
    }
}
