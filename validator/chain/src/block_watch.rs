//! New blocks as they come, whatever becomes of connections and endpoints.

use subxt::rpcs::client::RpcSubscription;
use tokio::{
    sync::watch,
    time::{Instant, timeout_at},
};

use super::{
    client::{BlockHeader, Client},
    error::ChainError,
};
use subnet::BlockNumber;

/// New best blocks, as they come. Connections that break are replaced; silence is an error.
#[derive(Debug)]
pub struct BlockWatch {
    client: Client,
    heads: Option<RpcSubscription<BlockHeader>>,
    /// Sees when another endpoint is used.
    moves: watch::Receiver<u64>,
}

impl BlockWatch {
    /// Waits for the next best block and returns its height. Fails after the silence deadline,
    /// or when no endpoint can be reached; it may then be called again.
    pub async fn next(&mut self) -> Result<BlockNumber, ChainError> {
        let silence = self.client.deadlines().silence;
        let until = Instant::now() + silence;
        loop {
            let heads = if let Some(heads) = &mut self.heads {
                heads
            } else {
                self.moves.mark_unchanged();
                let subscribing = self.client.methods().chain_subscribe_new_heads();
                let heads = subscribing
                    .await
                    .map_err(ChainError::on("chain_subscribeNewHeads"))?;
                self.heads.insert(heads)
            };
            let next = tokio::select! {
                next = timeout_at(until, heads.next()) => next,
                Ok(()) = self.moves.changed() => {
                    self.heads = None;
                    continue;
                }
            };
            match next {
                Ok(Some(Ok(header))) => return Ok(header.number),
                // The connection is gone, or sends nonsense: subscribe on a fresh one.
                Ok(Some(Err(_)) | None) => self.heads = None,
                Err(_) => {
                    self.heads = None;
                    self.client.reconnect();
                    return Err(ChainError::Silent(silence));
                }
            }
            if Instant::now() >= until {
                return Err(ChainError::Silent(silence));
            }
        }
    }
}

impl Client {
    /// Watches for new blocks.
    pub fn blocks(&self) -> BlockWatch {
        BlockWatch {
            client: self.clone(),
            heads: None,
            moves: self.moves(),
        }
    }
}
