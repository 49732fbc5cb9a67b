//! What can go wrong between us and the chain, and whose fault it is.

use std::time::Duration;

use subxt::rpcs;

use super::{decode::DecodeError, verdict::is_discarded};
use subnet::{Fault, FaultKind, Netuid};

/// Why a request got no answer.
#[derive(Debug, thiserror::Error)]
pub enum RpcError {
    /// No endpoint could be connected in time.
    #[error("could not connect to the chain: {}", problems.join("; "))]
    Unreachable {
        /// One line per endpoint tried.
        problems: Vec<String>,
        /// Whether every endpoint serves another chain.
        wrong_chain: bool,
    },
    /// No endpoint has a method.
    #[error("no endpoint answers {0}")]
    NoSuchMethod(String),
    /// The connection broke or the answer did not come in time.
    #[error("{endpoint} did not answer {method}: {problem}")]
    Unanswered {
        endpoint: String,
        method: String,
        problem: String,
    },
}

impl RpcError {
    /// Returns whether the operator's configuration is to blame.
    pub const fn is_configuration(&self) -> bool {
        matches!(
            self,
            Self::Unreachable {
                wrong_chain: true,
                ..
            }
        )
    }
}

/// A chain operation that failed.
#[derive(Debug, thiserror::Error)]
pub enum ChainError {
    /// No endpoint could be reached, or the connection broke and did not come back in time.
    #[error(transparent)]
    Rpc(#[from] RpcError),
    /// The node answered a request with an error.
    #[error("the node refused {method}: {message} ({code})")]
    Refused {
        method: &'static str,
        code: i32,
        message: String,
    },
    /// The node no longer has the state of the block asked for.
    #[error("the node has discarded the state of the block: {0}")]
    Discarded(String),
    /// An answer that is not an answer.
    #[error("the node answered {method} with something else than expected: {problem}")]
    Garbled {
        method: &'static str,
        /// What is wrong with it.
        problem: String,
    },
    /// The runtime has no such item, under any name we know.
    #[error("the runtime (spec version {spec_version}) has no {item}")]
    Missing {
        /// Storage item, call or runtime API.
        item: String,
        spec_version: u32,
    },
    /// Bytes that do not fit the type the metadata gives them.
    #[error("could not decode {item} of the runtime (spec version {spec_version})")]
    Decode {
        /// Storage item or runtime API.
        item: String,
        spec_version: u32,
        /// What does not fit.
        source: DecodeError,
    },
    /// Arguments that do not fit the type the metadata gives them.
    #[error("could not encode {item} for the runtime (spec version {spec_version}): {problem}")]
    Encode {
        /// Storage key, call or runtime API.
        item: String,
        spec_version: u32,
        /// What does not fit.
        problem: String,
    },
    /// Decoded, but it contradicts itself.
    #[error("the chain's {item} contradicts itself: {problem}")]
    Inconsistent { item: &'static str, problem: String },
    /// The subnet does not exist.
    #[error("subnet {0} does not exist on this chain")]
    NoSubnet(Netuid),
    /// No new block came.
    #[error("no new block for {} s", .0.as_secs())]
    Silent(Duration),
}

impl ChainError {
    /// Returns who is to blame; nothing here ever costs a miner.
    pub fn kind(&self) -> FaultKind {
        match self {
            Self::NoSubnet(_) => FaultKind::Config,
            Self::Rpc(error) if error.is_configuration() => FaultKind::Config,
            _ => FaultKind::Outside,
        }
    }

    /// Returns a function that gives an RPC library error its method.
    pub(super) fn on(method: &'static str) -> impl FnOnce(rpcs::Error) -> Self {
        move |error| match error {
            rpcs::Error::User(error) if is_discarded(&error.message) => {
                Self::Discarded(error.message)
            }
            rpcs::Error::User(error) => {
                let detail = error.data.map(|data| format!(": {}", data.get()));
                let message = error.message + &detail.unwrap_or_default();
                if is_discarded(&message) {
                    return Self::Discarded(message);
                }
                Self::Refused {
                    method,
                    code: error.code,
                    message,
                }
            }
            rpcs::Error::Client(error) => match error.downcast::<RpcError>() {
                Ok(error) => Self::Rpc(*error),
                Err(error) => Self::Garbled {
                    method,
                    problem: error.to_string(),
                },
            },
            other => Self::Garbled {
                method,
                problem: other.to_string(),
            },
        }
    }
}

impl From<ChainError> for Fault {
    fn from(error: ChainError) -> Self {
        Self::new(error.kind(), error)
    }
}
