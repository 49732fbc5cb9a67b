//! Serves the large sample sources that `scripts/bench-samples` reads, until its input ends.
//!
//! Prints one line of JSON: where they are. What was asked is at `/dev/requests` of each.
#![expect(clippy::print_stdout, reason = "the addresses are the output")]

use std::{error::Error, fmt::Write as _};

use localnet::{
    hub::{Hub, Ports},
    samples::{Conversation, generate},
    table,
    wandb::{Wandb, cortex_run},
};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, stdin};

/// Runs, and uids of a row, whose three texts each make 770 keys with the two that a row has anyway.
const RUNS: usize = 10;
const UIDS: usize = 256;
const ROW_BYTES: usize = 1 << 20;

/// Row groups of the table's tile, rows in each, bytes of a response, and how often the tile comes.
const GROUPS: usize = 10;
const ROWS: usize = 1000;
const RESPONSE_BYTES: usize = 8 << 10;
const TABLE_BYTES: u64 = 10_000_000_000;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let wandb = Wandb::start(0, &[]).await?;
    let texts = lengthened(generate(1, RUNS * UIDS), ROW_BYTES / UIDS);
    for (index, conversations) in texts.chunks(UIDS).enumerate() {
        wandb.edit(|store| {
            store
                .project("bench", "rows")
                .runs
                .push(cortex_run(index, conversations));
        });
    }
    let hub = Hub::start(Ports::default()).await?;
    let texts = lengthened(generate(2, GROUPS * ROWS), RESPONSE_BYTES);
    let tile = table::to_parquet(&texts, ROWS, 0)?;
    let times = TABLE_BYTES.div_ceil(tile.len() as u64);
    let content = table::repeated(tile, times)?;
    let bytes = content.size();
    hub.commit_dataset("bench/chats", [("data/train-0.parquet".into(), content)]);
    println!(
        "{}",
        json!({ "wandb": wandb.url(), "hub": hub.url(), "cdn": hub.cdn.url(), "table_bytes": bytes })
    );
    stdin().read_to_end(&mut Vec::new()).await?;
    Ok(())
}

/// Makes each conversation one of its own, with a response of about so many bytes.
fn lengthened(mut conversations: Vec<Conversation>, bytes: usize) -> Vec<Conversation> {
    for (index, conversation) in conversations.iter_mut().enumerate() {
        for message in &mut conversation.messages {
            let _ = write!(message.content, " ({index})");
        }
        if let Some(response) = conversation.messages.last_mut() {
            let times = bytes / response.content.len().max(1);
            response.content = response.content.repeat(times.max(1));
        }
    }
    conversations
}
