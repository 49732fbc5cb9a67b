//! What a repository holds: info, tree page by page, chosen paths, branches.

use std::{collections::BTreeMap, sync::Arc};

use axum::{
    Json,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{File, Kind, Repository, Revision, refusal::HubRefusal, route::Repo};

/// Entries a tree page holds, as on the hub; fewer with `limit`.
const PAGE: usize = 1000;
/// With `expand` the hub's pages are shorter.
const EXPANDED_PAGE: usize = 50;
const DATE: &str = "2024-05-01T12:00:00.000Z";

/// A value of a query string, decoded.
pub(super) fn parameter(query: &str, name: &str) -> Option<String> {
    query.split('&').find_map(|pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        (key == name).then(|| {
            let spaced = value.replace('+', " ");
            percent_encoding::percent_decode_str(&spaced)
                .decode_utf8_lossy()
                .into_owned()
        })
    })
}

fn flag(query: &str, name: &str) -> bool {
    parameter(query, name).is_some_and(|value| value.eq_ignore_ascii_case("true") || value == "1")
}

/// `/api/{kind}/{id}[/revision/{rev}]`; with `blobs` the siblings have sizes and hashes.
pub(super) fn info(repo: &Repo, revision: &Revision, gated: bool, query: &str) -> Response {
    let blobs = flag(query, "blobs");
    let siblings: Vec<Value> = revision
        .files
        .iter()
        .map(|(path, file)| sibling(path, file, blobs))
        .collect();
    let mut info = json!({
        "_id": &revision.id[..24],
        "id": repo.id,
        "author": repo.id.split_once('/').map(|(owner, _)| owner),
        "sha": revision.id,
        "lastModified": DATE,
        "createdAt": DATE,
        "private": false,
        "gated": if gated { json!("auto") } else { json!(false) },
        "disabled": false,
        "downloads": 0,
        "likes": 0,
        "tags": [],
        "siblings": siblings,
    });
    if repo.kind == Kind::Model {
        info["modelId"] = json!(repo.id);
        info["library_name"] = json!("transformers");
        info["pipeline_tag"] = json!("text-generation");
    }
    Json(info).into_response()
}

fn sibling(path: &str, file: &File, blobs: bool) -> Value {
    let mut value = json!({ "rfilename": path });
    if blobs {
        value["size"] = json!(file.content.size());
        value["blobId"] = json!(file.oid);
        if file.lfs {
            value["lfs"] = json!({
                "sha256": file.content.sha256(),
                "size": file.content.size(),
                "pointerSize": file.pointer_size,
            });
        }
    }
    value
}

/// `/api/{kind}/{id}/tree/{rev}[/{folder}]`: `recursive`, `expand`, `limit`, `cursor`.
pub(super) fn tree(
    revision: &Revision,
    folder: &str,
    query: &str,
    page_url: &str,
) -> Result<Response, HubRefusal> {
    let expand = flag(query, "expand");
    let entries = entries(revision, folder, flag(query, "recursive"), expand);
    if entries.is_empty() && !folder.is_empty() {
        return Err(HubRefusal::Entry);
    }
    let most = if expand { EXPANDED_PAGE } else { PAGE };
    let limit = parameter(query, "limit")
        .and_then(|value| value.parse().ok())
        .unwrap_or(most);
    let limit = usize::clamp(limit, 1, most);
    let start = parameter(query, "cursor")
        .and_then(|value| value.parse().ok())
        .unwrap_or(0);
    let end = usize::saturating_add(start, limit).min(entries.len());
    let more = end < entries.len();
    let mut response = Json(entries.get(start..end).unwrap_or_default()).into_response();
    if more {
        let kept: Vec<&str> = query
            .split('&')
            .filter(|pair| !pair.is_empty() && !pair.starts_with("cursor="))
            .collect();
        let next = format!("<{page_url}?{}&cursor={end}>; rel=\"next\"", kept.join("&"));
        if let Ok(link) = HeaderValue::from_str(&next.replace("?&", "?")) {
            response.headers_mut().insert(header::LINK, link);
        }
    }
    Ok(response)
}

fn entries(revision: &Revision, folder: &str, recursive: bool, expand: bool) -> Vec<Value> {
    let prefix = if folder.is_empty() {
        String::new()
    } else {
        format!("{folder}/")
    };
    let mut all: BTreeMap<String, Value> = BTreeMap::new();
    for (path, file) in &revision.files {
        let Some(below) = path.strip_prefix(&prefix) else {
            continue;
        };
        let levels: Vec<usize> = below.match_indices('/').map(|(at, _)| at).collect();
        let visible = if recursive {
            levels.len()
        } else {
            levels.len().min(1)
        };
        for &at in &levels[..visible] {
            let name = format!("{prefix}{}", &below[..at]);
            all.entry(name.clone()).or_insert_with(
                || json!({ "type": "directory", "oid": revision.id, "size": 0, "path": name }),
            );
        }
        if recursive || levels.is_empty() {
            all.insert(
                path.clone(),
                entry(path, file, expand.then_some(&revision.id)),
            );
        }
    }
    all.into_values().collect()
}

fn entry(path: &str, file: &File, expanded_by: Option<&String>) -> Value {
    let mut value = json!({
        "type": "file", "oid": file.oid, "size": file.content.size(), "path": path,
    });
    if file.lfs {
        value["lfs"] = json!({
            "oid": file.content.sha256(),
            "size": file.content.size(),
            "pointerSize": file.pointer_size,
        });
    }
    if let Some(commit) = expanded_by {
        value["lastCommit"] = json!({ "id": commit, "title": "Upload model", "date": DATE });
        value["securityFileStatus"] = json!({ "status": "safe" });
    }
    value
}

/// `POST /api/{kind}/{id}/paths-info/{rev}`: JSON or form `paths`, unknown ones left out.
pub(super) fn paths_info(revision: &Revision, body: &[u8]) -> Response {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Paths {
        One(String),
        Many(Vec<String>),
    }
    #[derive(Deserialize)]
    struct Asked {
        paths: Paths,
        #[serde(default)]
        expand: bool,
    }
    let asked = serde_json::from_slice::<Asked>(body).ok();
    let (paths, expand) = match asked {
        Some(Asked {
            paths: Paths::Many(paths),
            expand,
        }) => (paths, expand),
        Some(Asked {
            paths: Paths::One(path),
            expand,
        }) => (vec![path], expand),
        None => {
            let form = String::from_utf8_lossy(body);
            let paths: Vec<String> = form
                .split('&')
                .filter_map(|pair| parameter(pair, "paths"))
                .collect();
            (paths, flag(&form, "expand"))
        }
    };
    if paths.is_empty() {
        return crate::http::error(StatusCode::BAD_REQUEST, "\"paths\" is required");
    }
    let found: Vec<Value> = paths
        .iter()
        .filter_map(|path| {
            let file: &Arc<File> = revision.files.get(path)?;
            Some(entry(path, file, expand.then_some(&revision.id)))
        })
        .collect();
    Json(found).into_response()
}

/// `/api/{kind}/{id}/refs`.
pub(super) fn refs(repository: &Repository) -> Response {
    let branches: Vec<Value> = repository
        .branches()
        .iter()
        .map(|(name, commit)| {
            json!({ "name": name, "ref": format!("refs/heads/{name}"), "targetCommit": commit })
        })
        .collect();
    Json(json!({ "branches": branches, "tags": [], "converts": [] })).into_response()
}
