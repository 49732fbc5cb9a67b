//! What an endpoint can do, asked when an operator wants to know.

use std::fmt;

use serde::Deserialize;
use subxt::rpcs::client::rpc_params;

use super::client::Client;

/// How old a state an endpoint is asked for, in blocks, to learn how much it keeps.
const DEPTHS: [u64; 3] = [200, 2000, 200_000];

/// What `rpc_methods` answers.
#[derive(Deserialize)]
struct Listed {
    methods: Vec<String>,
}

/// What an endpoint can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
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

impl Client {
    /// Asks the endpoint in use what it can do: watch a transaction, and how old a state it has.
    pub async fn abilities(&self) -> Abilities {
        const WATCH: &str = "author_submitAndWatchExtrinsic";
        let rpc = self.rpc();
        let listed = rpc.request::<Listed>("rpc_methods", rpc_params![]);
        let listed = listed.await.ok();
        let watches = listed.map(|listed| listed.methods.iter().any(|name| name == WATCH));
        let mut depth = None;
        if let Ok(head) = self.block_number().await {
            // A young chain has no older block than its first.
            for blocks in DEPTHS.map(|blocks| blocks.min(head)) {
                let Ok(hash) = self.hash_at(head - blocks).await else {
                    break;
                };
                let state = self.methods().state_get_runtime_version(Some(hash));
                if state.await.is_err() {
                    break;
                }
                depth = Some(blocks);
            }
        }
        Abilities { watches, depth }
    }
}
