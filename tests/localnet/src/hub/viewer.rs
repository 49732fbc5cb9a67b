//! The dataset viewer: rows of a dataset page by page, without downloading its files.

use axum::{
    Json,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use serde_json::{Value, json};

use super::{Kind, Repositories, listing::parameter, refusal::HubRefusal};

/// Most rows of one request, as on the real viewer.
const MAX_ROWS: usize = 100;

/// Answers `/size`, `/splits`, `/is-valid`, `/parquet` and `/rows`. A dataset has the one config
/// `default` and a split per JSONL file.
pub(super) fn answer(all: &Repositories, what: &str, query: &str) -> Result<Response, HubRefusal> {
    let Some(id) = parameter(query, "dataset") else {
        return Ok(unprocessable("Parameter 'dataset' is required"));
    };
    let revision = all
        .get(Kind::Dataset, &id)
        .and_then(|repository| repository.revision("main"))
        .ok_or(HubRefusal::Repo { logged_in: false })?;
    let splits: Vec<(String, Vec<Value>)> = revision
        .files
        .iter()
        .filter_map(|(path, file)| {
            let name = path.rsplit('/').next()?.strip_suffix(".jsonl")?;
            let text = std::str::from_utf8(file.content.bytes()?).ok()?;
            let rows = text
                .lines()
                .filter_map(|line| serde_json::from_str(line).ok())
                .collect();
            Some((name.to_owned(), rows))
        })
        .collect();
    let described = |(name, rows): &(String, Vec<Value>)| {
        json!({
            "dataset": id, "config": "default", "split": name, "num_rows": rows.len(),
        })
    };
    let answer = match what {
        "is-valid" => json!({ "preview": true, "viewer": true, "search": false, "filter": false }),
        "splits" => json!({
            "splits": splits.iter().map(described).collect::<Vec<_>>(),
            "pending": [], "failed": [],
        }),
        "size" => json!({
            "size": {
                "dataset": {
                    "dataset": id,
                    "num_rows": splits.iter().map(|(_, rows)| rows.len()).sum::<usize>(),
                },
                "splits": splits.iter().map(described).collect::<Vec<_>>(),
            },
            "pending": [], "failed": [], "partial": false,
        }),
        "parquet" => json!({ "parquet_files": [], "pending": [], "failed": [], "partial": false }),
        _ => return Ok(rows(&splits, query)),
    };
    Ok(Json(answer).into_response())
}

fn rows(splits: &[(String, Vec<Value>)], query: &str) -> Response {
    let wanted = parameter(query, "split").unwrap_or_default();
    let number =
        |name, default| parameter(query, name).map_or(Ok(default), |text| text.parse::<usize>());
    let (Ok(offset), Ok(length)) = (number("offset", 0), number("length", MAX_ROWS)) else {
        return unprocessable("Parameters 'offset' and 'length' must be integers");
    };
    if length > MAX_ROWS {
        return unprocessable("Parameter 'length' must not be greater than 100");
    }
    let Some((_, all)) = splits.iter().find(|(name, _)| *name == wanted) else {
        return crate::http::error(StatusCode::NOT_FOUND, "The split does not exist");
    };
    let page: Vec<Value> = all
        .iter()
        .enumerate()
        .skip(offset)
        .take(length)
        .map(|(index, row)| json!({ "row_idx": index, "row": row, "truncated_cells": [] }))
        .collect();
    Json(json!({
        "features": [],
        "rows": page,
        "num_rows_total": all.len(),
        "num_rows_per_page": MAX_ROWS,
        "partial": false,
    }))
    .into_response()
}

fn unprocessable(message: &str) -> Response {
    crate::http::error(StatusCode::UNPROCESSABLE_ENTITY, message)
}
