//! What sources of samples can answer.

use std::{
    panic,
    sync::{Arc, LazyLock, Mutex, PoisonError},
};

use axum::{Router, body::Bytes, extract::State, routing::post};
use http_client::{HttpClient, HttpOptions};
use samples::{
    filter::{Dropped, Filter, strip},
    harvest::Harvest,
    hub::parquet_rows::read_table,
    record::Record,
    source::{RowLayout, RunFilter},
    text::read_text,
    wandb::{self, Project, WandbAccess},
};
use tokio::{net::TcpListener, runtime::Runtime};

use crate::part;

/// JSONL or a JSON array: every line is a record or counted, every record survives being written,
/// and what passes the filter passes it again.
pub fn sample_records(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let harvest = read_text(&text, "seed");
    let total = harvest.records.len() as u64 + count(&harvest.dropped);
    if !text.trim_start().starts_with('[') {
        let lines = text.lines().filter(|line| !line.trim().is_empty());
        assert_eq!(total, lines.count() as u64);
    }
    assert!(harvest.notes.len() <= 20);
    for record in &harvest.records {
        let mut again = Record::read(&record.neutral()).expect("what we write we read");
        assert_eq!(again.id(), record.id());
        again.origin.clone_from(&record.origin);
        assert_eq!(&again, record);
    }
    let before = harvest.records.len() as u64;
    let mut dropped = Dropped::default();
    let kept = FILTER.apply(harvest.records, &mut dropped);
    assert_eq!(kept.len() as u64 + count(&dropped), before);
    for message in kept.iter().flat_map(|record| &record.conversation.messages) {
        assert!(!message.content.is_empty() && strip(&message.content) == message.content);
    }
    assert_eq!(FILTER.apply(kept.clone(), &mut Dropped::default()), kept);
}

/// A parquet file of a dataset: read or refused, in little memory whatever it claims.
pub fn parquet_table(data: &[u8]) {
    const WANTED: usize = 100;
    let mut harvest = Harvest::default();
    let usual = Arc::new(panic::take_hook());
    let ours = Arc::clone(&usual);
    // The library may panic on a file, and is caught; the paths of our own code are relative.
    panic::set_hook(Box::new(move |info| {
        if info.location().is_none_or(|at| !at.file().starts_with('/')) {
            ours(info);
        }
    }));
    let file = Bytes::copy_from_slice(data);
    let read = read_table(file, "seed", WANTED, 1, &mut harvest);
    panic::set_hook(Box::new(move |info| usual(info)));
    assert!(harvest.records.len() < 2 * WANTED, "{read:?}");
    assert!(harvest.notes.len() <= 20);
}

static FILTER: LazyLock<Filter> = LazyLock::new(Filter::default);

fn count(dropped: &Dropped) -> u64 {
    dropped.0.values().sum()
}

/// What a W&B server says to the three questions, with zero bytes between: the list of runs, the
/// last step of each, its rows. The fetch ends, and asks no more than it must.
pub fn wandb_answers(data: &[u8]) {
    let Server {
        runtime,
        client,
        answers,
        access,
    } = &*SERVER;
    for (layout, signed) in [
        (RowLayout::Cortex, false),
        (RowLayout::Sn1, false),
        (RowLayout::Sn1, true),
    ] {
        let project = Project {
            entity: "entity".to_owned(),
            project: "project".to_owned(),
            layout,
            runs: RunFilter::Newest,
            signed,
        };
        let parts = [0, 1, 2].map(|index| part(data, index).to_vec());
        *lock(answers) = Answers { parts, asked: 0 };
        let fetched = runtime.block_on(wandb::fetch(client, access, &project, 10));
        assert!(lock(answers).asked <= 1000, "no end of questions");
        if let Ok(harvest) = fetched {
            assert!(harvest.notes.len() <= 20);
            assert!(!signed || harvest.records.is_empty(), "nobody signed these");
        }
    }
}

struct Server {
    runtime: Runtime,
    client: HttpClient,
    answers: Arc<Mutex<Answers>>,
    access: WandbAccess,
}

#[derive(Default)]
struct Answers {
    parts: [Vec<u8>; 3],
    asked: usize,
}

fn lock(answers: &Mutex<Answers>) -> std::sync::MutexGuard<'_, Answers> {
    answers.lock().unwrap_or_else(PoisonError::into_inner)
}

static SERVER: LazyLock<Server> = LazyLock::new(|| {
    let runtime = Runtime::new().expect("a runtime can be made");
    let answers = Arc::<Mutex<Answers>>::default();
    let router = Router::new()
        .route("/graphql", post(answer))
        .with_state(Arc::clone(&answers));
    let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0"));
    let listener = listener.expect("a port of this machine is free");
    let address = listener.local_addr().expect("it is bound");
    let base_url = format!("http://{address}").parse().expect("an address");
    runtime.spawn(async move { axum::serve(listener, router).await });
    let access = WandbAccess {
        base_url,
        verify: Some(|_, _, _| false),
        ..WandbAccess::default()
    };
    Server {
        runtime,
        client: HttpClient::new(HttpOptions::default()).expect("a client can be made"),
        answers,
        access,
    }
});

async fn answer(State(answers): State<Arc<Mutex<Answers>>>, body: String) -> Vec<u8> {
    let mut answers = lock(&answers);
    answers.asked += 1;
    let index = ["\"Runs\"", "\"RunHistoryKeys\"", "\"HistoryPage\""]
        .iter()
        .position(|operation| body.contains(operation));
    answers.parts[index.unwrap_or_default()].clone()
}
