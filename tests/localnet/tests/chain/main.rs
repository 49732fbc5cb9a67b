//! The chain as clients see it: unmodified subxt with its dynamic interface.
#![expect(clippy::unwrap_used, reason = "a test's panic is its verdict")]

mod commitments;
mod epochs;
mod faults;
mod metadata;
mod reads;
mod reveal;
mod weights;

use localnet::chain::{Chain, ChainConfig, Hyperparameters, NeuronConfig, SubnetConfig, TAO};
use sp_core::{Pair as _, sr25519::Pair};
use subxt::{
    OnlineClient, PolkadotConfig,
    dynamic::{self, Value},
    extrinsics::ExtrinsicEvents,
    utils::{AccountId32, MultiSignature},
};

/// The subnet of these tests.
const NETUID: u16 = 6;

type Client = OnlineClient<PolkadotConfig>;

/// Alice and Bob validate, with three and one parts of the stake; Charlie and Dave mine.
fn subnet(hyperparameters: Hyperparameters) -> SubnetConfig {
    SubnetConfig {
        netuid: NETUID,
        tempo: 20,
        owner_hotkey: None,
        hyperparameters,
        neurons: vec![
            NeuronConfig::validator(key("//Alice"), 3000 * TAO),
            NeuronConfig::validator(key("//Bob"), 1000 * TAO),
            NeuronConfig::miner(key("//Charlie")),
            NeuronConfig::miner(key("//Dave")).owned_by(key("//Eve")),
        ],
    }
}

fn config(hyperparameters: Hyperparameters) -> ChainConfig {
    ChainConfig {
        subnets: vec![subnet(hyperparameters)],
        ..ChainConfig::default()
    }
}

/// A chain of one subnet, with a block after the first.
async fn start(hyperparameters: Hyperparameters) -> (Chain, Client) {
    let chain = Chain::start(config(hyperparameters)).await.unwrap();
    chain.produce_blocks(1).await.unwrap();
    let client = connect(&chain).await;
    (chain, client)
}

async fn connect(chain: &Chain) -> Client {
    Client::from_url(chain.ws_url()).await.unwrap()
}

fn pair(name: &str) -> Pair {
    Pair::from_string(name, None).unwrap()
}

fn key(name: &str) -> [u8; 32] {
    pair(name).public().0
}

struct Signer(Pair);

impl subxt::tx::Signer<PolkadotConfig> for Signer {
    fn account_id(&self) -> AccountId32 {
        AccountId32(self.0.public().0)
    }

    fn sign(&self, payload: &[u8]) -> MultiSignature {
        MultiSignature::Sr25519(self.0.sign(payload).0)
    }
}

/// Submits a call and returns its events, or why there are none, in one line.
async fn submit(
    client: &Client,
    pallet: &str,
    call: &str,
    arguments: Vec<Value>,
    signer: &str,
) -> Result<ExtrinsicEvents<PolkadotConfig>, String> {
    let at = client.at_current_block().await.unwrap();
    let call = dynamic::transaction(pallet, call, arguments);
    let progress = at
        .transactions()
        .sign_and_submit_then_watch_default(&call, &Signer(pair(signer)))
        .await
        .map_err(|error| full(&error))?;
    progress
        .wait_for_finalized_success()
        .await
        .map_err(|error| full(&error))
}

async fn set_weights(
    client: &Client,
    signer: &str,
    dests: &[u16],
    weights: &[u16],
    version_key: u64,
) -> Result<ExtrinsicEvents<PolkadotConfig>, String> {
    let arguments = weights_call(NETUID, dests, weights, version_key);
    submit(client, "SubtensorModule", "set_weights", arguments, signer).await
}

fn weights_call(netuid: u16, dests: &[u16], weights: &[u16], version_key: u64) -> Vec<Value> {
    vec![
        netuid.into(),
        numbers(dests),
        numbers(weights),
        Value::u128(version_key.into()),
    ]
}

fn numbers(numbers: &[u16]) -> Value {
    Value::unnamed_composite(numbers.iter().map(|number| Value::u128((*number).into())))
}

/// Asks over HTTP, as curl would.
async fn ask(chain: &Chain, method: &str, params: serde_json::Value) -> serde_json::Value {
    let request =
        serde_json::json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params });
    let client = reqwest::Client::builder()
        .timeout(std::time::Duration::from_secs(20))
        .build()
        .unwrap();
    client
        .post(chain.http_url())
        .json(&request)
        .send()
        .await
        .unwrap()
        .json()
        .await
        .unwrap()
}

/// An error in full: JSON-RPC errors carry what matters in their data.
fn full(error: &impl std::error::Error) -> String {
    format!("{error}: {error:?}")
}
