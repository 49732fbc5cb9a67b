//! The GraphQL endpoint: answers by operation name, in the shapes real clients were seen to need.

use std::sync::PoisonError;

use axum::{
    Json,
    extract::State,
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde_json::{Map, Value, json};

use super::{
    WandbState,
    store::{Filter, Run, Store},
};

/// Answers one operation.
pub(super) async fn answer(
    State(shelf): State<WandbState>,
    headers: HeaderMap,
    body: String,
) -> Response {
    if !is_authorized(&headers) {
        return crate::http::error(StatusCode::UNAUTHORIZED, "user is not logged in");
    }
    let Ok(body) = serde_json::from_str::<Value>(&body) else {
        return errors(StatusCode::BAD_REQUEST, "the body is not JSON");
    };
    let query = body["query"].as_str().unwrap_or_default();
    let operation = body["operationName"]
        .as_str()
        .filter(|name| !name.is_empty())
        .unwrap_or_else(|| operation_name(query));
    let mut store = shelf.store.lock().unwrap_or_else(PoisonError::into_inner);
    let run = ["run", "name"].map(|name| body["variables"][name].as_str().unwrap_or_default());
    if run.iter().any(|run| store.is_broken(run)) {
        return crate::http::error(StatusCode::BAD_GATEWAY, "bad gateway");
    }
    match respond(&mut store, operation, &body["variables"], &shelf.url) {
        Ok(data) => Json(json!({ "data": data })).into_response(),
        Err(problem) => errors(StatusCode::OK, &problem),
    }
}

/// Public projects need no key, but a key must be one: `api` and a password.
fn is_authorized(headers: &HeaderMap) -> bool {
    use base64::{Engine as _, prelude::BASE64_STANDARD};
    let Some(value) = headers.get(header::AUTHORIZATION) else {
        return true;
    };
    let pair = value
        .to_str()
        .ok()
        .and_then(|text| text.strip_prefix("Basic "));
    let pair = pair.and_then(|encoded| BASE64_STANDARD.decode(encoded).ok());
    pair.is_some_and(|pair| pair.starts_with(b"api:") && pair.len() >= b"api:".len() + 40)
}

fn errors(status: StatusCode, message: &str) -> Response {
    let body = json!({ "errors": [{ "message": message, "path": [] }], "data": null });
    (status, Json(body)).into_response()
}

/// Finds the name in `query Name(...)` or `mutation Name {`.
fn operation_name(query: &str) -> &str {
    let mut words = query.split(|c: char| !(c.is_alphanumeric() || c == '_'));
    let verb = words
        .by_ref()
        .find(|word| matches!(*word, "query" | "mutation"));
    verb.and_then(|_| words.find(|word| !word.is_empty()))
        .unwrap_or_default()
}

fn respond(
    store: &mut Store,
    operation: &str,
    variables: &Value,
    base_url: &str,
) -> Result<Value, String> {
    let text = |name: &str| variables[name].as_str().unwrap_or_default();
    let project = store.get(text("entity"), text("project"));
    let run_of = |name: &str| project.and_then(|project| project.run(text(name)));
    // An unknown project or run is null, not an error.
    let of_run = |name: &str, show: &dyn Fn(&Run) -> Value| match (project, run_of(name)) {
        (None, _) => json!({ "project": null }),
        (Some(_), None) => json!({ "project": { "run": null } }),
        (Some(_), Some(run)) => json!({ "project": { "run": show(run) } }),
    };
    Ok(match operation {
        "Runs" => json!({ "project": project.map(|found| runs(&found.runs, variables)) }),
        "Run" => of_run("name", &|run| run.node(0)),
        "RunHistoryKeys" => of_run(
            "name",
            &|run| json!({ "historyKeys": { "keys": {}, "lastStep": run.last_step() } }),
        ),
        "HistoryPage" => of_run("run", &|run| {
            let (first, end) = (
                number(variables, "minStep", 0),
                number(variables, "maxStep", 0),
            );
            let most = number(variables, "pageSize", 500).max(0) as usize;
            json!({ "history": run.page(first, end, most) })
        }),
        "SampledHistoryPage" => {
            let name = if variables["run"].is_string() {
                "run"
            } else {
                "name"
            };
            of_run(
                name,
                &|run| json!({ "sampledHistory": [sampled(run, text("spec"))] }),
            )
        }
        "RunParquetHistory" => json!({ "project": { "run": {
            "parquetHistory": { "parquetUrls": [], "liveData": [] },
        } } }),
        "UpsertBucket" => upsert(store, variables)?,
        "CreateRunFiles" => created_files(variables, base_url),
        "RunStoppedStatus" => of_run("runId", &|run| json!({ "stopped": run.stopped })),
        "RunResumeStatus" => json!({ "model": { "id": "1", "name": text("project"),
            "entity": { "id": "1", "name": text("entity") }, "bucket": null } }),
        "RunUploadUrls" => json!({ "model": { "bucket": { "id": "1",
            "files": { "uploadHeaders": [], "edges": [] } } } }),
        "ProbeServerCapabilities" => json!({ "QueryType": { "fields": [] },
            "MutationType": { "fields": [] }, "ServerInfoType": { "fields": [] } }),
        "ProbeServerSettings" => json!({ "ServerSettingsType": { "fields": [] } }),
        _ => session(),
    })
}

/// Who is logged in and what the server can do: whatever part of it was asked for.
fn session() -> Value {
    let viewer = json!({
        "id": "VXNlcjox", "entity": "localnet", "username": "localnet", "name": "localnet",
        "email": "localnet@localhost", "admin": false, "flags": "{}", "deletedAt": null,
        "apiKeys": { "edges": [] }, "teams": { "edges": [] },
    });
    json!({
        "viewer": viewer,
        "serverInfo": {
            "cliVersionInfo": { "max_cli_version": "99.0.0" },
            "latestLocalVersionInfo": null,
            "features": [],
        },
    })
}

fn number(variables: &Value, name: &str, default: i64) -> i64 {
    let value = &variables[name];
    value
        .as_i64()
        .or_else(|| value.as_f64().map(|float| float as i64))
        .unwrap_or(default)
}

/// A page of runs, newest or oldest first.
fn runs(all: &[Run], variables: &Value) -> Value {
    let filter = variables["filters"].as_str().and_then(Filter::parse);
    let admitted = |run: &Run| filter.as_ref().is_none_or(|filter| filter.admits(run));
    let mut found: Vec<(usize, &Run)> = all
        .iter()
        .enumerate()
        .filter(|(_, run)| admitted(run))
        .collect();
    let order = variables["order"].as_str().unwrap_or("+created_at");
    if order.starts_with('-') {
        found.reverse();
    }
    let start = variables["cursor"]
        .as_str()
        .and_then(|cursor| cursor.parse().ok())
        .unwrap_or(0);
    let end = (start + number(variables, "perPage", 50).max(1) as usize).min(found.len());
    let edges: Vec<Value> = (start..end)
        .map(|at| json!({ "node": found[at].1.node(found[at].0), "cursor": (at + 1).to_string() }))
        .collect();
    json!({
        "internalId": "1",
        "readOnly": true,
        "runCount": found.len(),
        "runs": {
            "edges": edges,
            "pageInfo": { "endCursor": end.to_string(), "hasNextPage": end < found.len() },
        },
    })
}

/// Rows that have all keys of a spec, reduced to them. Here `maxStep` is inclusive.
fn sampled(run: &Run, spec: &str) -> Vec<Map<String, Value>> {
    let spec: Value = serde_json::from_str(spec).unwrap_or_default();
    let keys: Vec<&str> = spec["keys"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    let end = number(&spec, "maxStep", i64::MAX - 1).saturating_add(1);
    let most = number(&spec, "samples", 500).max(0) as usize;
    run.page(number(&spec, "minStep", 0), end, most)
        .into_iter()
        .filter_map(|row| serde_json::from_str::<Map<String, Value>>(row).ok())
        .filter_map(|row| {
            keys.iter()
                .map(|key| Some(((*key).to_owned(), row.get(*key)?.clone())))
                .collect()
        })
        .collect()
}

/// Makes a run or changes its config.
fn upsert(store: &mut Store, variables: &Value) -> Result<Value, String> {
    let text = |name: &str| variables[name].as_str();
    let entity = text("entity").unwrap_or("localnet").to_owned();
    let project = text("project").unwrap_or("uncategorized").to_owned();
    let name = text("name").ok_or("a run needs a name")?;
    let config = match text("config") {
        Some(config) => serde_json::from_str(config).map_err(|error| format!("config: {error}"))?,
        None => Map::new(),
    };
    let runs = store.project(&entity, &project);
    let inserted = runs.run(name).is_none();
    if inserted {
        let invented = format!("{name}-run-{}", runs.runs.len() + 1);
        runs.runs.push(Run::new(
            name,
            text("displayName").unwrap_or(&invented),
            Value::Null,
        ));
    }
    let run = runs.run_mut(name).ok_or("the run vanished")?;
    run.config.extend(config);
    if let Some(display_name) = text("displayName") {
        display_name.clone_into(&mut run.display_name);
    }
    Ok(json!({ "upsertBucket": {
        "bucket": {
            "id": format!("UnVuOnYxOi{name}"),
            "name": name,
            "displayName": run.display_name,
            "description": null,
            "config": Value::Object(run.config.clone()).to_string(),
            "sweepName": null,
            "historyLineCount": run.history().len(),
            "project": {
                "id": "1", "name": project, "entity": { "id": "1", "name": entity },
            },
        },
        "inserted": inserted,
    } }))
}

fn created_files(variables: &Value, base_url: &str) -> Value {
    let run = variables["run"].as_str().unwrap_or_default();
    let files: Vec<Value> = variables["files"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .map(
            |file| json!({ "name": file, "uploadUrl": format!("{base_url}/storage/{run}/{file}") }),
        )
        .collect();
    json!({ "createRunFiles": { "runID": run, "uploadHeaders": [], "files": files } })
}
