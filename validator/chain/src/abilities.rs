//! What an endpoint can do: asked once a connection, for operators.

use std::fmt;

use jsonrpsee::{core::client::ClientT, rpc_params};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::pool::{Link, newest};

/// How old a state an endpoint is asked for, in blocks, to learn how much it keeps.
const DEPTHS: [u64; 3] = [200, 2000, 200_000];

/// What `rpc_methods` answers.
#[derive(Deserialize)]
struct Listed {
    methods: Vec<String>,
}

/// What an endpoint can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Abilities {
    /// Whether it tells what becomes of a transaction; `None` if it does not list its methods.
    pub watches: Option<bool>,
    /// It has the state of a block so many blocks ago.
    pub depth: Option<u64>,
}

impl fmt::Display for Abilities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.watches {
            Some(true) => "watches transactions",
            Some(false) => "takes transactions without watching them",
            None => "lists no methods",
        })?;
        match self.depth {
            Some(depth) => write!(f, ", has states {depth} blocks old"),
            None => f.write_str(", has no old states"),
        }
    }
}

impl Abilities {
    /// The most requests that [`Abilities::of`] sends.
    pub(crate) const REQUESTS: u64 = 2 + 2 * DEPTHS.len() as u64;

    /// Asks an endpoint whether it watches transactions, and how old a state it has.
    pub(crate) async fn of(link: &Link) -> Self {
        // The name of today, and that of the interface to come.
        const WATCH: [&str; 2] = [
            "author_submitAndWatchExtrinsic",
            "transactionWatch_v1_submitAndWatch",
        ];
        let client = &link.client;
        let listed = client.request::<Listed, _>("rpc_methods", rpc_params![]);
        let watches = listed.await.ok().map(|listed| {
            let mut methods = listed.methods.iter();
            methods.any(|name| WATCH.contains(&name.as_str()))
        });
        let mut depth = None;
        let head = newest(link).await.ok().flatten();
        // A young chain has no older block than its first.
        for blocks in DEPTHS.map(|blocks| blocks.min(head.unwrap_or(0))) {
            let Some(number) = head.map(|head| head - blocks) else {
                break;
            };
            let hash =
                client.request::<Option<String>, _>("chain_getBlockHash", rpc_params![number]);
            let Ok(Some(hash)) = hash.await else { break };
            let version = rpc_params![hash];
            let version = client.request::<Box<RawValue>, _>("state_getRuntimeVersion", version);
            if version.await.is_err() {
                break;
            }
            depth = Some(blocks);
        }
        Self { watches, depth }
    }
}
