//! Samples from the history of W&B runs, over the GraphQL API that the Python client uses.
//!
//! Three reads: the runs of a project, the last step of a run, a page of its history. A bad run
//! is skipped, never the fetch; every read has a deadline.

use std::{sync::Arc, time::Duration};

use futures::{StreamExt, stream};
use serde::{Deserialize, Deserializer};
use serde_json::{Value, json};
use url::Url;

use super::{
    harvest::Harvest,
    lenient_json,
    record::Record,
    source::{RowLayout, RunFilter},
};
use http_client::{Credentials, HttpClient, HttpError, HttpRequest};
use subnet::{Fault, Hotkey};

/// More runs than this are not looked at.
const MAX_RUNS: usize = 300;
const RUNS_PER_PAGE: usize = 50;
/// Runs read side by side.
const PARALLEL: usize = 4;
const MAX_LIST_BYTES: u64 = 16 << 20;
/// A row is at most 10 MiB; a few are read at once.
const MAX_HISTORY_BYTES: u64 = 64 << 20;
const DEADLINE: Duration = Duration::from_secs(60);
/// A row of the SN1 layout is one conversation: fewer rows of a run than this are not worth asking.
const SN1_STEPS: u64 = 100;
/// Uids of a subnet, and so of a row in the Cortex layout.
const UIDS: u16 = 256;

/// Checks that a hotkey signed a message: hotkey, message, signature.
pub type Verify = fn(&Hotkey, &[u8], &[u8]) -> bool;

/// W&B's address, key and the steps to read.
#[derive(Debug, Clone)]
pub struct WandbAccess {
    /// Base address of the API.
    pub base_url: Url,
    /// API key; public projects may be readable without.
    pub key: Option<String>,
    /// How many of the newest history steps of each run are read.
    pub steps: u64,
    /// How signatures are checked, for sources that ask for it.
    pub verify: Option<Verify>,
}

impl Default for WandbAccess {
    fn default() -> Self {
        let base_url = Url::parse("https://api.wandb.ai").expect("a constant");
        Self {
            base_url,
            key: None,
            steps: 1,
            verify: None,
        }
    }
}

/// Which runs of which project.
#[derive(Debug, Clone)]
pub struct Project {
    /// User or team that owns it.
    pub entity: String,
    pub project: String,
    /// Which keys of a row hold conversations.
    pub layout: RowLayout,
    /// State that a run must be in.
    pub runs: RunFilter,
    /// Whether a run's id must be signed by the hotkey it names.
    pub signed: bool,
}

/// Reads runs, newest first, until about `wanted` records are had.
pub async fn fetch(
    client: &HttpClient,
    access: &WandbAccess,
    project: &Project,
    wanted: usize,
) -> Result<Harvest, Fault> {
    let api = Arc::new(Api {
        client: client.clone(),
        access: access.clone(),
        project: project.clone(),
    });
    let mut harvest = Harvest::default();
    let runs = api.runs(&mut harvest).await?;
    if runs.is_empty() {
        harvest.note(format_args!("{}: no run fits the filter", api.name()));
    }
    let mut rows = stream::iter(runs)
        .map(|run| {
            let api = Arc::clone(&api);
            async move {
                let result = api.history(&run).await;
                (run, result)
            }
        })
        .buffered(PARALLEL);
    while let Some((run, result)) = rows.next().await {
        match result {
            Ok(rows) => {
                for (step, row) in rows {
                    let origin = format!("wandb:{}/{}/{step}", api.name(), run.name);
                    read_row(project.layout, row, &origin, &mut harvest);
                }
            }
            Err(error) => {
                harvest.dropped.add("run that could not be read");
                harvest.note(format_args!("run {}: {error}", run.name));
            }
        }
        if harvest.records.len() >= wanted.saturating_mul(2) {
            break;
        }
    }
    Ok(harvest)
}

/// Reads the conversations of a row. Rows of images have no responses and give none.
fn read_row(layout: RowLayout, mut row: Value, origin: &str, harvest: &mut Harvest) {
    let at = row.get("_timestamp").and_then(Value::as_f64);
    match layout {
        RowLayout::Sn1 => harvest.read_value(&row, origin.to_owned()),
        RowLayout::Cortex => {
            let Some(row) = row.as_object_mut() else {
                return;
            };
            for uid in 0..UIDS {
                let prompt = row.remove(&format!("prompts.{uid}"));
                let response = row.remove(&format!("responses.{uid}"));
                if let (Some(Value::String(prompt)), Some(Value::String(response))) =
                    (prompt, response)
                {
                    let conversation = model::tokens::Conversation::of(prompt, response);
                    let origin = format!("{origin}#{uid}");
                    harvest.records.push(Record {
                        conversation,
                        origin,
                        at,
                    });
                }
            }
        }
    }
}

struct Api {
    client: HttpClient,
    access: WandbAccess,
    project: Project,
}

#[derive(Debug, Deserialize)]
struct GraphqlAnswer<T> {
    data: Option<T>,
    #[serde(default)]
    errors: Vec<GraphqlError>,
}

#[derive(Debug, Deserialize)]
struct GraphqlError {
    #[serde(default)]
    message: String,
}

#[derive(Debug, Deserialize)]
struct Data<T> {
    project: Option<T>,
}

#[derive(Debug, Deserialize)]
struct Runs {
    runs: RunList,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct RunList {
    edges: Vec<Edge>,
    page_info: PageInfo,
}

#[derive(Debug, Deserialize)]
struct Edge {
    node: ListedRun,
    cursor: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct PageInfo {
    has_next_page: bool,
}

#[derive(Debug, Deserialize)]
struct ListedRun {
    name: String,
    #[serde(default)]
    config: Option<String>,
}

#[derive(Debug, Deserialize)]
struct RunOf<T> {
    run: Option<T>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Keys {
    #[serde(default)]
    history_keys: Option<HistoryKeys>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct HistoryKeys {
    #[serde(default = "no_step")]
    last_step: i64,
}

fn no_step() -> i64 {
    -1
}

#[derive(Debug, Default, Deserialize)]
struct HistoryRows {
    /// Rows, each a JSON text; parsed one by one so that a bad one costs only itself.
    #[serde(default, deserialize_with = "null_is_empty")]
    history: Vec<String>,
}

fn null_is_empty<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

const RUNS: &str = "query Runs($project: String!, $entity: String!, $cursor: String, \
    $perPage: Int = 50, $order: String, $filters: JSONString) { \
    project(name: $project, entityName: $entity) { runs(filters: $filters, after: $cursor, \
    first: $perPage, order: $order) { edges { node { id name displayName state createdAt \
    heartbeatAt config } cursor } pageInfo { endCursor hasNextPage } } } }";
const KEYS: &str = "query RunHistoryKeys($project: String!, $entity: String!, $name: String!) { \
    project(name: $project, entityName: $entity) { run(name: $name) { historyKeys } } }";
const HISTORY: &str = "query HistoryPage($entity: String!, $project: String!, $run: String!, \
    $minStep: Int64!, $maxStep: Int64!, $pageSize: Int!) { project(name: $project, \
    entityName: $entity) { run(name: $run) { history(minStep: $minStep, maxStep: $maxStep, \
    samples: $pageSize) } } }";

impl Api {
    fn name(&self) -> String {
        format!("{}/{}", self.project.entity, self.project.project)
    }

    async fn query<T: serde::de::DeserializeOwned>(
        &self,
        operation: &str,
        query: &str,
        mut variables: Value,
        max_bytes: u64,
    ) -> Result<T, Fault> {
        let mut url = self.access.base_url.clone();
        url.set_path(&format!("{}/graphql", url.path().trim_end_matches('/')));
        if let Some(variables) = variables.as_object_mut() {
            variables.insert("entity".into(), json!(self.project.entity));
            variables.insert("project".into(), json!(self.project.project));
        }
        let body = json!({"operationName": operation, "query": query, "variables": variables});
        let key = self.access.key.as_deref();
        let credentials = key.map(|key| Credentials::basic("api", key)).transpose()?;
        let answer: GraphqlAnswer<Data<T>> = HttpRequest::post(url, &body, max_bytes, DEADLINE)
            .credentials(credentials)
            .json(&self.client)
            .await
            .map_err(|error| self.fault(&error))?;
        if let Some(error) = answer.errors.first() {
            return Err(Fault::outside(format!("W&B: {}", error.message)));
        }
        answer
            .data
            .and_then(|data| data.project)
            .ok_or_else(|| self.hidden())
    }

    /// 401 and 403 mean a missing or wrong key, which only the operator can mend.
    fn fault(&self, error: &HttpError) -> Fault {
        match error.status().map(|status| status.as_u16()) {
            Some(401 | 403) => self.hidden(),
            _ => Fault::outside(format!("W&B: {error}")),
        }
    }

    fn hidden(&self) -> Fault {
        let remedy = match self.access.key {
            Some(_) => "does the key in WANDB_API_KEY or netrc have access to it?",
            None => "it may need a key: set WANDB_API_KEY",
        };
        Fault::outside(format!("W&B shows no project {}; {remedy}", self.name()))
    }

    async fn runs(&self, harvest: &mut Harvest) -> Result<Vec<ListedRun>, Fault> {
        let mut filters = match self.project.layout {
            RowLayout::Cortex => vec![json!({"config.type": "validator"})],
            RowLayout::Sn1 => vec![],
        };
        match self.project.runs {
            RunFilter::Running => filters.push(json!({"state": "running"})),
            RunFilter::Finished => filters.push(json!({"state": "finished"})),
            RunFilter::Newest => {}
        }
        let filters = json!({"$and": filters}).to_string();
        let mut runs = Vec::new();
        let mut cursor = None;
        // Counted by pages: a server could send runs that no filter lets through for ever.
        for _ in 0..MAX_RUNS / RUNS_PER_PAGE {
            let variables = json!({"cursor": cursor, "perPage": RUNS_PER_PAGE,
                "order": "-created_at", "filters": filters});
            let list = self
                .query::<Runs>("Runs", RUNS, variables, MAX_LIST_BYTES)
                .await?
                .runs;
            let more = list.page_info.has_next_page && !list.edges.is_empty();
            cursor = list.edges.last().map(|edge| edge.cursor.clone());
            for Edge { node, .. } in list.edges {
                if !self.project.signed || self.is_signed(&node) {
                    runs.push(node);
                } else {
                    harvest.dropped.add("run without a valid signature");
                    harvest.note(format_args!("run {}: no valid signature", node.name));
                }
            }
            if !more {
                break;
            }
        }
        runs.truncate(MAX_RUNS);
        Ok(runs)
    }

    /// Whether the run's config carries the signature of its id by the hotkey it names.
    fn is_signed(&self, run: &ListedRun) -> bool {
        let Some(verify) = self.access.verify else {
            return false;
        };
        let check = || {
            let config = lenient_json::parse(run.config.as_deref()?).ok()?;
            let text = |names: [&str; 2]| {
                let entry = names.iter().find_map(|name| config.get(*name))?;
                entry
                    .get("value")
                    .unwrap_or(entry)
                    .as_str()
                    .map(ToOwned::to_owned)
            };
            let hotkey: Hotkey = text(["hotkey", "HOTKEY_SS58"])?.parse().ok()?;
            let signature = text(["signature", "SIGNATURE"])?;
            let signature = hex::decode(signature.trim_start_matches("0x")).ok()?;
            Some(verify(&hotkey, run.name.as_bytes(), &signature))
        };
        check().unwrap_or(false)
    }

    /// Returns the newest rows of a run with their steps; unreadable rows are left out.
    async fn history(&self, run: &ListedRun) -> Result<Vec<(u64, Value)>, Fault> {
        let keys: RunOf<Keys> = self
            .query(
                "RunHistoryKeys",
                KEYS,
                json!({"name": run.name}),
                MAX_LIST_BYTES,
            )
            .await?;
        let last = keys
            .run
            .and_then(|run| run.history_keys)
            .map_or(-1, |keys| keys.last_step);
        let Ok(last) = u64::try_from(last) else {
            return Ok(Vec::new());
        };
        // The end is exclusive.
        let end = last.saturating_add(1);
        let steps = match self.project.layout {
            RowLayout::Cortex => self.access.steps.max(1),
            RowLayout::Sn1 => self.access.steps.max(SN1_STEPS),
        };
        let start = end.saturating_sub(steps);
        let variables =
            json!({"run": run.name, "minStep": start, "maxStep": end, "pageSize": end - start});
        let page: RunOf<HistoryRows> = self
            .query("HistoryPage", HISTORY, variables, MAX_HISTORY_BYTES)
            .await?;
        let rows = page.run.unwrap_or_default().history;
        Ok(rows
            .iter()
            .filter_map(|row| {
                let row = lenient_json::parse(row).ok()?;
                let step = row.get("_step").and_then(Value::as_f64).unwrap_or(0.0);
                Some((step as u64, row))
            })
            .collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cortex_row_gives_a_conversation_for_each_uid_that_answered() {
        let row = json!({"_step": 3.0, "_timestamp": 1.5, "prompts.0": "a", "responses.0": "b",
            "prompts.7": "c", "responses.7": null, "prompts.255": "d", "responses.255": "e",
            "prompts.256": "x", "responses.256": "y"});
        let mut harvest = Harvest::default();
        read_row(RowLayout::Cortex, row, "o", &mut harvest);
        let origins: Vec<_> = harvest.records.iter().map(|r| r.origin.as_str()).collect();
        assert_eq!(origins, ["o#0", "o#255"]);
        assert_eq!(harvest.records[0].at, Some(1.5));
    }
}
