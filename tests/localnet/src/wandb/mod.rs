//! A stand-in for Weights & Biases: gives runs with chat samples, takes runs of our own.

mod graphql;
mod store;

use std::sync::{Arc, Mutex, PoisonError};

use axum::{
    Json, Router,
    extract::{DefaultBodyLimit, Path, State},
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::{post, put},
};
use serde_json::{Value, json};
use shared::Failure;

pub use store::{Filter, Project, Run, Store};

use crate::{
    http::{Bound, Faults, Server},
    samples::Conversation,
    wallet::Wallet,
};

/// A key of the right shape; any other does as well.
pub const API_KEY: &str = "10ca1ne710ca1ne710ca1ne710ca1ne710ca1ne7";
/// Largest request body: a history row may have 10 MiB.
const MAX_BODY: usize = 32 << 20;
/// Conversations of one history row, as Cortex.t logged them: one per uid of its subnet.
const PER_ROW: usize = 64;

/// A running stand-in. Dropping it closes its port.
#[derive(Debug)]
pub struct Wandb {
    pub server: Server,
    store: Arc<Mutex<Store>>,
}

impl Wandb {
    /// Starts with the projects `cortex-t/multi-modality` and `macrocosmos/prompting-validators`,
    /// whose running validators logged these conversations, each in the layout of its subnet.
    pub async fn start(port: u16, conversations: &[Conversation]) -> Result<Self, Failure> {
        let bound = Bound::take(port, "the W&B stand-in").await?;
        let mut store = Store::default();
        let project = store.project("cortex-t", "multi-modality");
        for (index, part) in conversations.chunks(PER_ROW).enumerate() {
            project.runs.push(cortex_run(index, part));
        }
        let project = store.project("macrocosmos", "prompting-validators");
        for (index, part) in conversations.chunks(PER_ROW).enumerate() {
            project.runs.push(sn1_run(index, part));
        }
        let store = Arc::new(Mutex::new(store));
        let router = Router::new()
            .route("/graphql", post(graphql::answer))
            .route(
                "/files/{entity}/{project}/{run}/file_stream",
                post(file_stream),
            )
            .route("/storage/{run}/{*file}", put(async || StatusCode::OK))
            .route("/sdk/otel/v1/{kind}", post(async || Json(json!({}))))
            .layer(DefaultBodyLimit::max(MAX_BODY))
            .with_state(WandbState {
                store: Arc::clone(&store),
                url: bound.url().into(),
            });
        Ok(Self {
            server: bound.serve("wandb", router, Faults::default()),
            store,
        })
    }

    /// Returns the base URL, as `WANDB_BASE_URL` wants it.
    pub fn url(&self) -> String {
        self.server.url()
    }

    /// Looks at or changes what is stored.
    pub fn edit<T>(&self, act: impl FnOnce(&mut Store) -> T) -> T {
        act(&mut self.store.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[derive(Debug, Clone)]
struct WandbState {
    store: Arc<Mutex<Store>>,
    url: Arc<str>,
}

/// A run as a validator of Cortex.t kept it: prompts, responses and scores by uid, and a
/// signature of the run's name by its hotkey.
pub fn cortex_run(index: usize, conversations: &[Conversation]) -> Run {
    let wallet = Wallet::derive(index as u64, "cortex validator");
    let name = format!("c0r7ex{index:02}");
    let signature = hex::encode(wallet.hotkey.signer.sign(name.as_bytes()).0);
    let config = json!({
        "type": "validator", "uid": index, "hotkey": wallet.hotkey.ss58(),
        "run_name": format!("validator-{index}-4.0.0"), "version": "4.0.0",
        "signature": signature,
    });
    let mut run = Run::new(&name, &format!("validator-{index}-4.0.0"), config);
    let mut row = serde_json::Map::new();
    for (uid, conversation) in conversations.iter().enumerate() {
        row.insert(format!("prompts.{uid}"), json!(conversation.prompt()));
        row.insert(format!("responses.{uid}"), json!(conversation.response()));
        row.insert(format!("scores.{uid}"), json!(1.0));
    }
    row.insert("modality".into(), json!("text"));
    run.log(Value::Object(row));
    run
}

/// A run as a validator of SN1 kept it: a question and its reference answer in each row.
fn sn1_run(index: usize, conversations: &[Conversation]) -> Run {
    let config =
        json!({ "HOTKEY_SS58": Wallet::derive(index as u64, "sn1 validator").hotkey.ss58() });
    let mut run = Run::new(&format!("5n1run{index:02}"), "validator", config);
    for conversation in conversations {
        run.log(json!({
            "task": "multi_choice",
            "challenge": conversation.prompt(),
            "reference": conversation.response(),
        }));
    }
    run
}

/// Takes lines of a run's files: history, summary, events, output; `{}` is a heartbeat.
async fn file_stream(
    State(shelf): State<WandbState>,
    Path((entity, project, name)): Path<(String, String, String)>,
    body: String,
) -> Response {
    let Ok(body) = serde_json::from_str::<Value>(&body) else {
        return crate::http::error(StatusCode::BAD_REQUEST, "not JSON");
    };
    let mut store = shelf.store.lock().unwrap_or_else(PoisonError::into_inner);
    let Some(run) = store.project(&entity, &project).run_mut(&name) else {
        return crate::http::error(StatusCode::NOT_FOUND, "run not found");
    };
    match run.receive(&body) {
        Ok(()) => Json(json!({ "stopped": run.stopped })).into_response(),
        Err(problem) => crate::http::error(StatusCode::BAD_REQUEST, &problem),
    }
}
