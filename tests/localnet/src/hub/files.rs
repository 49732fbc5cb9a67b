//! Files: resolve with the hub's headers, the CDN's bytes, ranges, conditional requests.

use std::{fmt::Write as _, ops::Range};

use axum::{
    body::Body,
    extract::{Request, State},
    http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header},
    response::{IntoResponse, Response},
};
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};

use super::{File, HubState, Revision, route::Repo};

/// What may not stand in a part of a path or in a query value.
const RESERVED: &AsciiSet = &CONTROLS
    .add(b' ')
    .add(b'"')
    .add(b'#')
    .add(b'%')
    .add(b'&')
    .add(b'/')
    .add(b'?')
    .add(b'+');

/// `/{id}/resolve/{rev}/{path}`: large files lie on the CDN (302, absolute), small ones in the
/// hub's cache (307, relative). Both carry the headers that describe the file.
pub(super) fn resolve(
    shelf: &HubState,
    repo: &Repo,
    revision: &Revision,
    path: &str,
    file: &File,
) -> Response {
    let encoded = utf8_percent_encode(path, RESERVED);
    let (status, location) = if file.lfs {
        let sha256 = file.content.sha256();
        let repo = utf8_percent_encode(&repo.id, RESERVED);
        let query = format!("repo={repo}&name={encoded}&Expires=4102444800&Signature=localnet");
        (
            StatusCode::FOUND,
            format!("{}/repos/{sha256}?{query}", shelf.cdn_url),
        )
    } else {
        let Repo { kind, id } = repo;
        let location = format!("/api/resolve-cache/{kind}/{id}/{}/{encoded}", revision.id);
        (StatusCode::TEMPORARY_REDIRECT, location)
    };
    let mut response = status.into_response();
    set(response.headers_mut(), header::LOCATION, &location);
    describe(&mut response, revision, file);
    response
}

/// Sets the headers by which the hub describes a file.
pub(super) fn describe(response: &mut Response, revision: &Revision, file: &File) {
    let etag = format!("\"{}\"", file.etag());
    let redirected = response.status().is_redirection();
    let headers = response.headers_mut();
    set(
        headers,
        HeaderName::from_static("x-repo-commit"),
        &revision.id,
    );
    set(headers, header::ACCEPT_RANGES, "bytes");
    if redirected {
        set(headers, HeaderName::from_static("x-linked-etag"), &etag);
        let size = file.content.size().to_string();
        set(headers, HeaderName::from_static("x-linked-size"), &size);
    }
    set(headers, header::ETAG, &etag);
}

/// `/repos/{sha256}` on the CDN. As with signed links, an `Authorization` header is an error.
pub(super) async fn cdn(State(shelf): State<HubState>, request: Request) -> Response {
    if request.headers().contains_key(header::AUTHORIZATION) {
        let message = "Only one auth mechanism allowed";
        return crate::http::error(StatusCode::BAD_REQUEST, message);
    }
    let sha256 = request
        .uri()
        .path()
        .strip_prefix("/repos/")
        .unwrap_or_default();
    let Some(file) = shelf.read(|all| all.by_sha256(sha256)) else {
        return crate::http::error(StatusCode::NOT_FOUND, "The specified key does not exist.");
    };
    let head = request.method() == Method::HEAD;
    let mut response = serve(&file, request.headers(), head).await;
    set(
        response.headers_mut(),
        header::ETAG,
        &format!("\"{sha256}\""),
    );
    response
}

/// Sends the bytes: whole, a range, or nothing if the client has them.
pub(super) async fn serve(file: &File, asked: &HeaderMap, head: bool) -> Response {
    let size = file.content.size();
    let known = asked
        .get(header::IF_NONE_MATCH)
        .and_then(|value| value.to_str().ok());
    if known.is_some_and(|known| known.contains(&file.etag())) {
        return StatusCode::NOT_MODIFIED.into_response();
    }
    let Ok(range) = range(asked, size) else {
        let mut response = StatusCode::RANGE_NOT_SATISFIABLE.into_response();
        let sizes = format!("bytes */{size}");
        set(response.headers_mut(), header::CONTENT_RANGE, &sizes);
        return response;
    };
    let span = range.clone().unwrap_or(0..size);
    let body = if head {
        Body::empty()
    } else {
        match file.content.body(span.start, span.end).await {
            Ok(body) => body,
            Err(error) => {
                tracing::error!(%error, "could not read a file of the hub");
                return crate::http::error(StatusCode::INTERNAL_SERVER_ERROR, "I/O error");
            }
        }
    };
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    set(headers, header::CONTENT_TYPE, "application/octet-stream");
    set(headers, header::ACCEPT_RANGES, "bytes");
    headers.insert(header::CONTENT_LENGTH, (span.end - span.start).into());
    if range.is_some() {
        let mut text = String::new();
        let _ = write!(text, "bytes {}-{}/{size}", span.start, span.end - 1);
        set(headers, header::CONTENT_RANGE, &text);
        *response.status_mut() = StatusCode::PARTIAL_CONTENT;
    }
    response
}

struct NotSatisfiable;

/// Reads a `Range` header of one range; what it can't read it ignores, as servers do.
fn range(headers: &HeaderMap, size: u64) -> Result<Option<Range<u64>>, NotSatisfiable> {
    let text = headers
        .get(header::RANGE)
        .and_then(|value| value.to_str().ok());
    let Some((first, last)) =
        text.and_then(|text| text.trim().strip_prefix("bytes=")?.split_once('-'))
    else {
        return Ok(None);
    };
    let range = match (first.parse::<u64>(), last.parse::<u64>()) {
        (Ok(first), Ok(last)) if first <= last => first..last.saturating_add(1).min(size),
        (Ok(first), Err(_)) if last.is_empty() => first..size,
        (Err(_), Ok(suffix)) if first.is_empty() => size.saturating_sub(suffix)..size,
        _ => return Ok(None),
    };
    if range.start >= range.end {
        Err(NotSatisfiable)
    } else {
        Ok(Some(range))
    }
}

fn set(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(name, value);
    }
}
