//! From a request to an answer: finds the repository and revision, says no as the hub says no.

use std::sync::Arc;

use axum::{
    Json,
    body::to_bytes,
    extract::{Request, State},
    http::{HeaderMap, HeaderValue, Method, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde_json::json;

use super::{
    Access, HubState, Repositories, Revision, files, listing,
    refusal::HubRefusal,
    route::{Repo, Route},
    viewer,
};

/// Largest body of a `paths-info` request.
const MAX_BODY: usize = 1 << 20;

/// Answers any request to the hub.
pub(super) async fn answer(State(shelf): State<HubState>, request: Request) -> Response {
    let Some(route) = Route::parse(request.uri().path()) else {
        return crate::http::error(StatusCode::NOT_FOUND, "Sorry, we can't find the page");
    };
    let token = bearer(request.headers());
    match respond(&shelf, route, token.as_deref(), request).await {
        Ok(response) => response,
        Err(refusal) => refusal.into_response(),
    }
}

async fn respond(
    shelf: &HubState,
    route: Route,
    token: Option<&str>,
    request: Request,
) -> Result<Response, HubRefusal> {
    let query = request.uri().query().unwrap_or_default().to_owned();
    if let Some(moved) = moved(shelf, &route, &request) {
        return Ok(moved);
    }
    match route {
        Route::WhoAmI => Ok(who_am_i(shelf, token)),
        Route::Viewer(what) => shelf.read(|all| viewer::answer(all, &what, &query)),
        Route::Refs { repo } => {
            shelf.read(|all| Ok(listing::refs(admitted(all, &repo, token, true)?)))
        }
        Route::Info { repo, revision } => {
            let (revision, gated) = shelf.read(|all| {
                let gated = all
                    .get(repo.kind, &repo.id)
                    .is_some_and(|found| matches!(found.access, Access::Gated(_)));
                find(all, &repo, &revision, token, true).map(|revision| (revision, gated))
            })?;
            Ok(listing::info(&repo, &revision, gated, &query))
        }
        Route::Tree {
            repo,
            revision,
            folder,
        } => {
            let found = shelf.read(|all| find(all, &repo, &revision, token, true))?;
            let page = format!("{}{}", shelf.hub_url, request.uri().path());
            listing::tree(&found, &folder, &query, &page)
        }
        Route::PathsInfo { repo, revision } => {
            let found = shelf.read(|all| find(all, &repo, &revision, token, true))?;
            let body = to_bytes(request.into_body(), MAX_BODY)
                .await
                .unwrap_or_default();
            Ok(listing::paths_info(&found, &body))
        }
        Route::Resolve {
            repo,
            revision,
            path,
        } => {
            let revision = shelf.read(|all| find(all, &repo, &revision, token, false))?;
            let file = revision.files.get(&path).ok_or(HubRefusal::Entry)?;
            Ok(files::resolve(shelf, &repo, &revision, &path, file))
        }
        Route::ResolveCache {
            repo,
            revision,
            path,
        } => {
            let revision = shelf.read(|all| find(all, &repo, &revision, token, false))?;
            let file = revision.files.get(&path).ok_or(HubRefusal::Entry)?;
            let head = request.method() == Method::HEAD;
            let mut response = files::serve(file, request.headers(), head).await;
            files::describe(&mut response, &revision, file);
            Ok(response)
        }
    }
}

/// A former name of a repository answers with a relative redirect.
fn moved(shelf: &HubState, route: &Route, request: &Request) -> Option<Response> {
    let repo = match route {
        Route::Info { repo, .. }
        | Route::Tree { repo, .. }
        | Route::PathsInfo { repo, .. }
        | Route::Refs { repo }
        | Route::Resolve { repo, .. } => repo,
        Route::ResolveCache { .. } | Route::WhoAmI | Route::Viewer(_) => return None,
    };
    let name = shelf.read(|all| all.new_name(repo.kind, &repo.id).map(ToOwned::to_owned))?;
    let location = request.uri().to_string().replacen(&repo.id, &name, 1);
    let location = HeaderValue::from_str(&location).ok()?;
    Some(
        (
            StatusCode::TEMPORARY_REDIRECT,
            [(header::LOCATION, location)],
        )
            .into_response(),
    )
}

fn find(
    all: &Repositories,
    repo: &Repo,
    revision: &str,
    token: Option<&str>,
    metadata: bool,
) -> Result<Arc<Revision>, HubRefusal> {
    admitted(all, repo, token, metadata)?
        .revision(revision)
        .ok_or(HubRefusal::Revision)
}

/// Metadata of a gated repository is public, its files are not.
fn admitted<'a>(
    all: &'a Repositories,
    repo: &Repo,
    token: Option<&str>,
    metadata: bool,
) -> Result<&'a super::Repository, HubRefusal> {
    let logged_in = token.is_some_and(|token| all.knows_token(token));
    let found = all
        .get(repo.kind, &repo.id)
        .ok_or(HubRefusal::Repo { logged_in })?;
    let among = |tokens: &[String]| token.is_some_and(|token| tokens.iter().any(|t| t == token));
    match &found.access {
        Access::Gated(tokens) if !metadata && !among(tokens) => {
            Err(HubRefusal::Gated { logged_in })
        }
        Access::Private(tokens) if !among(tokens) => Err(HubRefusal::Repo { logged_in }),
        Access::Public | Access::Gated(_) | Access::Private(_) => Ok(found),
    }
}

fn who_am_i(shelf: &HubState, token: Option<&str>) -> Response {
    let known = token.is_some_and(|token| shelf.read(|all| all.knows_token(token)));
    if !known {
        return crate::http::error(StatusCode::UNAUTHORIZED, "Invalid username or password.");
    }
    Json(json!({
        "type": "user", "id": "000000000000000000000001", "name": "localnet",
        "fullname": "localnet", "isPro": false, "orgs": [],
        "auth": { "type": "access_token" },
    }))
    .into_response()
}

fn bearer(headers: &HeaderMap) -> Option<String> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    value.strip_prefix("Bearer ").map(ToOwned::to_owned)
}
