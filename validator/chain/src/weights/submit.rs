//! One weight set from first look to proof. A transaction is signed once and may be offered many
//! times: its nonce lets it in only once. A new one is signed only when the old one is dead.

use std::time::Duration;

use shared::{
    back_off::BackOff,
    causes,
    file::{FileLock, LockError},
};
use subxt::{config::substrate::H256, rpcs::methods::legacy::TransactionStatus};
use tokio::time::{Instant, sleep, timeout_at};

use super::{
    Method, Preflight, SetWeightsError, WeightsReceipt, WeightsRequest,
    confirm::{self, Execution, hex_hash},
    preflight::{last_update, preflight, storage_index},
    transaction::{ERA, Sent, is_passing, lasting_refusal},
};
use crate::{
    block::Block,
    client::Client,
    error::{ChainError, RpcError},
    wallet::Wallet,
};
use subnet::BlockNumber;

const PAUSES: BackOff = BackOff {
    first: Duration::from_millis(500),
    longest: Duration::from_secs(12),
};

/// How often a nonce that another process uses is tried again.
const RETRY: Duration = Duration::from_millis(200);

/// Blocks for which we go on watching until the block is final.
const FINALITY: u32 = 4;

/// Sets weights and proves it. Waits while the chain says "too soon", as far as the window allows.
pub async fn set(
    client: &Client,
    wallet: &Wallet,
    request: &WeightsRequest,
) -> Result<WeightsReceipt, SetWeightsError> {
    let until = Instant::now() + request.window;
    let mut job = Submission {
        client,
        wallet,
        request,
        started: Instant::now(),
        until,
        sent: None,
        attempts: 0,
        last: "nothing was tried yet".to_owned(),
    };
    match timeout_at(until, job.run()).await {
        Ok(result) => result,
        Err(_) => Err(SetWeightsError::Window {
            window: request.window,
            last: job.last,
        }),
    }
}

/// A weight set on its way.
struct Submission<'a> {
    client: &'a Client,
    wallet: &'a Wallet,
    request: &'a WeightsRequest,
    started: Instant,
    until: Instant,
    sent: Option<Sent>,
    attempts: u32,
    last: String,
}

/// What is known of a transaction that was sent earlier.
enum Fate {
    Arrived(Block),
    Failed { block: BlockNumber, error: String },
    Pending,
    Dead(String),
}

/// What watching a transaction brought.
enum Watched {
    InBlock(H256),
    /// The node's pool does not want it.
    Unwanted {
        code: i32,
        message: String,
    },
    Unknown(String),
}

impl Submission<'_> {
    async fn run(&mut self) -> Result<WeightsReceipt, SetWeightsError> {
        let _turn = self.wallet.submitting.lock().await;
        let _lock = self.nonce().await;
        let mut looks = 0;
        loop {
            match self.step().await {
                Ok(Some(receipt)) => return Ok(receipt),
                Ok(None) => {}
                Err(SetWeightsError::Chain(error)) if is_passing(&error) => {
                    self.note(causes::one_line(&error));
                }
                Err(error) => return Err(error),
            }
            looks += 1;
            sleep(PAUSES.after(looks)).await;
        }
    }

    /// Waits for the other process that sets weights with this hotkey: two transactions with one
    /// nonce would push each other out. Where the disk gives no lock, only that certainty is lost:
    /// the weights matter more.
    async fn nonce(&mut self) -> Option<FileLock> {
        let account = self.wallet.account(self.client.genesis());
        loop {
            match self.wallet.locks.nonce(account) {
                Ok(lock) => return Some(lock),
                Err(LockError::Held { holder, .. }) => {
                    let problem = format!("the hotkey's nonce is in use by {holder}");
                    if self.last != problem {
                        self.note(problem);
                    }
                    sleep(RETRY).await;
                }
                Err(LockError::File(error)) => {
                    let error = causes::one_line(&error);
                    tracing::warn!(error, "setting weights without the lock of the nonce");
                    return None;
                }
            }
        }
    }

    /// Returns the index under which the chain keeps these weights.
    fn index(&self) -> u16 {
        storage_index(self.request.netuid, self.request.mechanism)
    }

    fn note(&mut self, problem: String) {
        tracing::warn!(problem, "weights are not set yet");
        self.last = problem;
    }

    /// Looks, then acts once. `None` means: look again.
    async fn step(&mut self) -> Result<Option<WeightsReceipt>, SetWeightsError> {
        let head = self.client.head().await?;
        if let Some(sent) = &self.sent {
            match self.fate(&head, sent).await? {
                Fate::Arrived(block) => return self.prove(&block).await.map(Some),
                Fate::Failed { block, error } => return Err(self.dispatch_error(block, error)),
                Fate::Pending => {}
                Fate::Dead(problem) => {
                    self.note(problem);
                    self.sent = None;
                }
            }
        }
        if self.sent.is_none() {
            let preflight = preflight(&head, &self.wallet.hotkey(), self.request).await?;
            if !preflight.refusals.is_empty() {
                return self.wait_if_worth_it(preflight).await;
            }
            let sent = Sent::sign(&head, &preflight, self.wallet, self.request).await?;
            self.wallet.remember(self.client.genesis(), sent.hash);
            self.attempts += 1;
            self.sent = Some(sent);
        }
        match self.offer().await {
            Watched::InBlock(hash) => {
                let block = self.client.block_of(hash).await?;
                let Some(sent) = &self.sent else {
                    return Ok(None);
                };
                match confirm::outcome(self.client, &block, &sent.bytes).await? {
                    Execution::Success => self.prove(&block).await.map(Some),
                    Execution::Failed(error) => Err(self.dispatch_error(block.number(), error)),
                    Execution::Absent => {
                        self.note("the block that included it is gone".to_owned());
                        Ok(None)
                    }
                }
            }
            Watched::Unwanted { code, message } => self.judge(code, &message).await,
            Watched::Unknown(problem) => {
                self.note(problem);
                Ok(None)
            }
        }
    }

    /// Waits out "too soon" where the window allows; returns every other refusal.
    async fn wait_if_worth_it(
        &mut self,
        preflight: Preflight,
    ) -> Result<Option<WeightsReceipt>, SetWeightsError> {
        let length = Duration::from_millis(preflight.hyperparameters.block_millis);
        let Some(blocks) = preflight.wait() else {
            return Err(SetWeightsError::Refused(preflight.refusals));
        };
        let wait = length.saturating_mul(u32::try_from(blocks).unwrap_or(u32::MAX));
        if Instant::now() + wait > self.until {
            return Err(SetWeightsError::Refused(preflight.refusals));
        }
        self.note(SetWeightsError::Refused(preflight.refusals).to_string());
        let mut watch = self.client.blocks();
        while watch.next().await? < preflight.block + blocks {}
        Ok(None)
    }

    /// Finds out what became of a transaction sent earlier.
    async fn fate(&self, head: &Block, sent: &Sent) -> Result<Fate, ChainError> {
        let nonce = confirm::nonce(head, self.wallet.hotkey().0).await?;
        if nonce <= sent.nonce {
            let same_runtime = head.runtime().spec_version() == sent.spec_version;
            return Ok(if !same_runtime {
                Fate::Dead("the runtime was upgraded: signing anew".to_owned())
            } else if head.number() > sent.birth + ERA {
                Fate::Dead("the transaction expired: signing anew".to_owned())
            } else {
                Fate::Pending
            });
        }
        let likely = last_update(head, self.index(), sent.receipt.uid).await?;
        let found = confirm::find(self.client, head, sent.birth, likely, &sent.bytes).await?;
        Ok(match found {
            Some((block, Execution::Failed(error))) => Fate::Failed {
                block: block.number(),
                error,
            },
            Some((block, _)) => Fate::Arrived(block),
            None => Fate::Dead(format!(
                "another transaction of this hotkey took nonce {}: does a second validator use it?",
                sent.nonce
            )),
        })
    }

    /// Offers the signed transaction to the node and watches it until it is in a block.
    async fn offer(&mut self) -> Watched {
        let Some(sent) = &self.sent else {
            return Watched::Unknown("nothing is signed".to_owned());
        };
        let until = Instant::now() + self.client.deadlines().inclusion;
        let watching = self
            .client
            .methods()
            .author_submit_and_watch_extrinsic(&sent.bytes);
        let mut statuses = match timeout_at(until, watching).await {
            Ok(Ok(statuses)) => statuses,
            Ok(Err(error)) => {
                return match ChainError::on("author_submitAndWatchExtrinsic")(error) {
                    ChainError::Refused { code, message, .. } if is_of_pool(code) => {
                        Watched::Unwanted { code, message }
                    }
                    // Not all endpoints have it, and not all say so in the same words.
                    ChainError::Refused { .. } | ChainError::Rpc(RpcError::NoSuchMethod(_)) => {
                        self.submit(until).await
                    }
                    error => Watched::Unknown(causes::one_line(&error)),
                };
            }
            Err(_) => return Watched::Unknown("the node did not take the transaction".to_owned()),
        };
        loop {
            let status = match timeout_at(until, statuses.next()).await {
                Ok(Some(Ok(status))) => status,
                Ok(Some(Err(error))) => return Watched::Unknown(error.to_string()),
                Ok(None) => {
                    return Watched::Unknown("the connection broke while watching".to_owned());
                }
                Err(_) => {
                    // A node that says nothing may be stuck: ask another one next.
                    self.client.reconnect();
                    return Watched::Unknown("it was in no block in time".to_owned());
                }
            };
            match status {
                TransactionStatus::InBlock(hash) | TransactionStatus::Finalized(hash) => {
                    return Watched::InBlock(hash);
                }
                TransactionStatus::Usurped(_) => {
                    return Watched::Unknown(
                        "another transaction replaced it in the pool".to_owned(),
                    );
                }
                TransactionStatus::Dropped => {
                    return Watched::Unknown("the pool dropped it".to_owned());
                }
                TransactionStatus::Invalid => {
                    return Watched::Unwanted {
                        code: 1010,
                        message: "no longer valid".to_owned(),
                    };
                }
                TransactionStatus::Future
                | TransactionStatus::Ready
                | TransactionStatus::Broadcast(_)
                | TransactionStatus::Retracted(_)
                | TransactionStatus::FinalityTimeout(_) => {}
            }
        }
    }

    /// Offers the signed transaction where none can be watched: the next look finds it.
    async fn submit(&self, until: Instant) -> Watched {
        const METHOD: &str = "author_submitExtrinsic";
        let Some(sent) = &self.sent else {
            return Watched::Unknown("nothing is signed".to_owned());
        };
        let methods = self.client.methods();
        match timeout_at(until, methods.author_submit_extrinsic(&sent.bytes)).await {
            Ok(Ok(_)) => Watched::Unknown("it is in the pool, and no endpoint can watch it".into()),
            Ok(Err(error)) => match ChainError::on(METHOD)(error) {
                ChainError::Refused { code, message, .. } if is_of_pool(code) => {
                    Watched::Unwanted { code, message }
                }
                error => Watched::Unknown(causes::one_line(&error)),
            },
            Err(_) => Watched::Unknown("the node did not take the transaction".to_owned()),
        }
    }

    /// Decides what a pool's refusal means for us.
    async fn judge(
        &mut self,
        code: i32,
        message: &str,
    ) -> Result<Option<WeightsReceipt>, SetWeightsError> {
        if let Some(meaning) = lasting_refusal(message) {
            return Err(SetWeightsError::Pool {
                meaning: meaning.to_owned(),
            });
        }
        self.note(format!("{message} ({code})"));
        // 1013 and 1014: it, or another with its nonce, already waits in the pool. 1010 may mean
        // that it is on the chain. Only the next look can tell, so it is kept; unless the chain
        // has not used its nonce and still calls it invalid.
        if code == 1010 || code == 1012 {
            let head = self.client.head().await?;
            let unused = match &self.sent {
                Some(sent) => confirm::nonce(&head, self.wallet.hotkey().0).await? <= sent.nonce,
                None => true,
            };
            if unused {
                self.sent = None;
            }
        }
        Ok(None)
    }

    fn dispatch_error(&self, block: BlockNumber, error: String) -> SetWeightsError {
        let call = self
            .sent
            .as_ref()
            .map_or_else(String::new, |sent| sent.receipt.call.clone());
        SetWeightsError::Dispatch { call, block, error }
    }

    /// Reads back what the chain stores, waits a little for finality, completes the receipt.
    async fn prove(&mut self, block: &Block) -> Result<WeightsReceipt, SetWeightsError> {
        let Some(sent) = &self.sent else {
            return Err(SetWeightsError::Encrypt("nothing was signed".to_owned()));
        };
        let mut receipt = sent.receipt.clone();
        receipt.block = block.number();
        receipt.block_hash = hex_hash(block.hash);
        receipt.attempts = self.attempts;
        let not_stored = |problem| SetWeightsError::NotStored {
            block: block.number(),
            problem,
        };
        let updated = last_update(block, self.index(), receipt.uid).await?;
        if updated != block.number() {
            return Err(not_stored(format!("our last update is block {updated}")));
        }
        if receipt.method == Method::Plain {
            let stored = confirm::read_back(block, &receipt).await?;
            receipt.stored = Some(stored.map_err(not_stored)?);
        }
        receipt.latency_millis =
            u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        let length = Duration::from_millis(block.runtime().block_millis());
        let patience = (length * FINALITY).min(self.client.deadlines().inclusion);
        let until = (Instant::now() + patience).min(self.until);
        receipt.finalized = self.is_final(block, until).await;
        Ok(receipt)
    }

    /// Waits until a block is final; `false` when it is not in time or its place was taken.
    async fn is_final(&self, block: &Block, until: Instant) -> bool {
        let waiting = async {
            loop {
                match self.client.finalized_number().await {
                    Ok(number) if number >= block.number() => {
                        return self.client.hash_at(block.number()).await.ok() == Some(block.hash);
                    }
                    Ok(_) => sleep(Duration::from_millis(block.runtime().block_millis() / 2)).await,
                    Err(_) => return false,
                }
            }
        };
        timeout_at(until, waiting).await.unwrap_or(false)
    }
}

/// Returns whether a node's pool says this of a transaction, and not the node of the request.
const fn is_of_pool(code: i32) -> bool {
    matches!(code, 1000..=1999)
}
