//! Samples from datasets on localnet's hub: parquet, JSONL, and the viewer where neither is there.
#![expect(clippy::unwrap_used, reason = "a test's panic is its verdict")]

use std::{sync::Arc, time::Duration};

use localnet::{
    http::{Fault, Rule},
    hub::{Content, Hub, Ports},
    samples::{generate, to_jsonl},
    table,
};
use parquet::{
    basic::Compression,
    data_type::{ByteArray, ByteArrayType},
    file::{properties::WriterProperties, writer::SerializedFileWriter},
    schema::parser::parse_message_type,
};
use samples::{Fetcher, FetcherSettings, Pool, filter::Filter, hub, wandb};

async fn fetch(hub: &Hub, spec: &str, wanted: usize, seed: u64) -> Pool {
    let url: url::Url = hub.url().parse().unwrap();
    let settings = FetcherSettings {
        sources: vec![spec.parse().unwrap()],
        minimum: 1,
        cache: None,
        max_age: Duration::ZERO,
        filter: Filter::default(),
        http_token: None,
        hub: hub::HubAccess {
            endpoint: url.clone(),
            viewer: Some(url),
            token: None,
        },
        wandb: wandb::WandbAccess::default(),
    };
    Fetcher::new(settings).unwrap().fetch(wanted, seed).await
}

/// Rows of a question and a long answer, in several row groups.
fn parquet(groups: usize, rows: usize, answer_bytes: usize) -> Vec<u8> {
    let schema = "message m { required binary question (UTF8); required binary answer (UTF8); }";
    let schema = Arc::new(parse_message_type(schema).unwrap());
    let properties = WriterProperties::builder()
        .set_compression(Compression::UNCOMPRESSED)
        .set_dictionary_enabled(false)
        .set_data_page_row_count_limit(50)
        .build();
    let mut writer = SerializedFileWriter::new(Vec::new(), schema, Arc::new(properties)).unwrap();
    for group in 0..groups {
        let mut columns = writer.next_row_group().unwrap();
        let texts: [Vec<ByteArray>; 2] = [
            (0..rows)
                .map(|row| ByteArray::from(format!("q{group}.{row}").as_str()))
                .collect(),
            (0..rows)
                .map(|row| ByteArray::from(format!("{row} ").repeat(answer_bytes / 4).as_str()))
                .collect(),
        ];
        for values in texts {
            let mut column = columns.next_column().unwrap().unwrap();
            column
                .typed::<ByteArrayType>()
                .write_batch(&values, None, None)
                .unwrap();
            column.close().unwrap();
        }
        columns.close().unwrap();
    }
    writer.into_inner().unwrap()
}

#[tokio::test]
async fn a_parquet_dataset_is_read_in_part() {
    let hub = Hub::start(Ports::default()).await.unwrap();
    let bytes = parquet(6, 2000, 1000);
    let size = bytes.len() as u64;
    assert!(size > 10 << 20);
    hub.commit_dataset(
        "org/chat",
        [("data/train-0.parquet".into(), Content::from(bytes))],
    );
    let pool = fetch(&hub, "hf:org/chat:train", 100, 5).await;
    let set = pool.draw(100, 5).unwrap();
    assert_eq!(set.samples.len(), 100, "{:?}", pool.reports);
    let sent = hub.bytes_sent("train-0.parquet");
    assert!(sent < size / 3, "{sent} of {size} bytes");
    assert_eq!(
        set.digest,
        fetch(&hub, "hf:org/chat:train", 100, 5)
            .await
            .draw(100, 5)
            .unwrap()
            .digest
    );
    assert_ne!(
        set.digest,
        fetch(&hub, "hf:org/chat:train", 100, 6)
            .await
            .draw(100, 6)
            .unwrap()
            .digest
    );
}

#[tokio::test]
async fn jsonl_files_of_the_wanted_split_are_read() {
    let hub = Hub::start(Ports::default()).await.unwrap();
    hub.commit_dataset(
        "org/lines",
        [
            (
                "en/train.jsonl".into(),
                Content::from(to_jsonl(&generate(1, 200))),
            ),
            ("en/test.jsonl".into(), Content::from("{oops\n".to_owned())),
            ("README.md".into(), Content::from("# none".to_owned())),
        ],
    );
    let set = fetch(&hub, "hf:org/lines/en:train", 50, 1)
        .await
        .draw(50, 1)
        .unwrap();
    assert_eq!(set.samples.len(), 50);
    assert!(
        set.samples
            .iter()
            .all(|sample| sample.origin.contains("en/train.jsonl#"))
    );
}

#[tokio::test]
async fn the_viewer_helps_where_the_files_do_not() {
    let hub = Hub::start(Ports::default()).await.unwrap();
    hub.commit_dataset(
        "org/viewed",
        [(
            "data/train.jsonl".into(),
            Content::from(to_jsonl(&generate(2, 300))),
        )],
    );
    hub.faults().add(Rule::always(Fault::Gated).on("/resolve/"));
    let pool = fetch(&hub, "hf:org/viewed", 50, 1).await;
    let set = pool.draw(50, 1).unwrap();
    assert!(
        set.samples
            .iter()
            .all(|sample| sample.origin.starts_with("viewer:org/viewed#"))
    );
    assert!(
        !pool.reports[0].notes.is_empty(),
        "the refusal is not hidden"
    );
}

#[tokio::test]
async fn only_columns_that_may_hold_a_conversation_are_read() {
    let hub = Hub::start(Ports::default()).await.unwrap();
    let bytes = table::to_parquet(&generate(3, 400), 100, 50_000).unwrap();
    let size = bytes.len() as u64;
    assert!(size > 10 << 20);
    hub.commit_dataset("org/heavy", [("train.parquet".into(), bytes.into())]);
    let pool = fetch(&hub, "hf:org/heavy", 100, 1).await;
    let set = pool.draw(100, 1).unwrap();
    assert_eq!(set.samples.len(), 100, "{:?}", pool.reports);
    let sent = hub.bytes_sent("train.parquet");
    assert!(sent < size / 4, "{sent} of {size} bytes");
}

#[tokio::test]
async fn of_a_table_of_ten_gigabytes_a_little_is_read() {
    let hub = Hub::start(Ports::default()).await.unwrap();
    let mut conversations = generate(4, 2000);
    for (index, conversation) in conversations.iter_mut().enumerate() {
        let question = &mut conversation.messages[0].content;
        *question = format!("{index}: {question}");
    }
    let tile = table::to_parquet(&conversations, 500, 2000).unwrap();
    let times = 10_000_000_000_u64.div_ceil(tile.len() as u64);
    let content = table::repeated(tile, times).unwrap();
    assert!(content.size() > 9_999_000_000);
    hub.commit_dataset("org/huge", [("train.parquet".into(), content)]);
    let pool = fetch(&hub, "hf:org/huge", 400, 1).await;
    let set = pool.draw(400, 1).unwrap();
    assert_eq!(set.samples.len(), 400, "{:?}", pool.reports);
    let sent = hub.bytes_sent("");
    assert!(sent <= 50_000_000, "{sent} bytes");
}

#[tokio::test]
async fn a_table_without_conversations_names_its_columns() {
    let hub = Hub::start(Ports::default()).await.unwrap();
    let schema = "message m { required int32 height; required binary name (UTF8); }";
    let schema = Arc::new(parse_message_type(schema).unwrap());
    let writer = SerializedFileWriter::new(Vec::new(), schema, Arc::default()).unwrap();
    let bytes = writer.into_inner().unwrap();
    hub.commit_dataset("org/people", [("train.parquet".into(), bytes.into())]);
    let pool = fetch(&hub, "hf:org/people", 10, 1).await;
    let notes = pool.reports[0].notes.join("\n");
    assert!(
        notes.contains("no column that could hold a conversation among height, name"),
        "{notes}"
    );
}

#[tokio::test]
async fn a_long_jsonl_file_is_read_in_several_places() {
    let hub = Hub::start(Ports::default()).await.unwrap();
    let mut conversations = generate(5, 4000);
    for conversation in &mut conversations {
        conversation.messages[1].content += &" x".repeat(1000);
    }
    let lines = to_jsonl(&conversations);
    let size = lines.len() as u64;
    hub.commit_dataset("org/long", [("train.jsonl".into(), lines.into())]);
    let pool = fetch(&hub, "hf:org/long", 400, 1).await;
    let set = pool.draw(400, 1).unwrap();
    assert_eq!(set.samples.len(), 400, "{:?}", pool.reports);
    assert!(hub.bytes_sent("train.jsonl") < size / 2);
}

#[tokio::test]
async fn broken_parquet_files_are_named() {
    let hub = Hub::start(Ports::default()).await.unwrap();
    let whole = parquet(1, 50, 100);
    let end = whole.len();
    for (spoilt, why) in [
        (end - 20..end - 8, ""),
        (
            end - 8..end - 4,
            "its footer claims 4294967295 bytes, at most 16 MiB are read",
        ),
    ] {
        let mut bytes = whole.clone();
        bytes[spoilt].fill(0xff);
        hub.commit_dataset(
            "org/broken",
            [("train.parquet".into(), Content::from(bytes))],
        );
        let pool = fetch(&hub, "hf:org/broken", 10, 1).await;
        assert!(pool.draw(10, 1).is_err());
        let notes = pool.reports[0].notes.join("\n");
        let named = format!("hf:org/broken@main/train.parquet: Parquet error: {why}");
        assert!(notes.contains(&named), "{notes}");
    }
}
