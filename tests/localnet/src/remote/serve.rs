//! Fetching over HTTP: git's smart protocol, version 0, the reading side only.

use std::{
    fmt::Write as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use axum::{
    Router,
    body::Bytes,
    extract::{DefaultBodyLimit, State},
    http::{HeaderMap, StatusCode, Uri, header},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use git2::{Buf, Oid, Repository};

/// Largest request: wants and haves are 50 bytes each.
const MAX_REQUEST: usize = 1 << 20;

/// Serves the bare repository as `/remote.git`.
pub(super) fn router(path: PathBuf) -> Router {
    Router::new()
        .route("/remote.git/info/refs", get(advertise))
        .route("/remote.git/git-upload-pack", post(upload_pack))
        .layer(DefaultBodyLimit::max(MAX_REQUEST))
        .with_state(Arc::from(path))
}

fn packet(line: &str) -> String {
    format!("{:04x}{line}", line.len() + 4)
}

fn failed(error: &git2::Error) -> Response {
    crate::http::error(StatusCode::INTERNAL_SERVER_ERROR, error.message())
}

/// Lists the branches, with HEAD in front.
async fn advertise(State(path): State<Arc<Path>>, uri: Uri) -> Response {
    if uri.query() != Some("service=git-upload-pack") {
        return crate::http::error(StatusCode::FORBIDDEN, "only fetching is served");
    }
    let list = || {
        let repository = Repository::open_bare(&path)?;
        let mut refs = Vec::new();
        if let Ok(head) = repository.head() {
            refs.extend(head.target().map(|id| (id, "HEAD".to_owned())));
        }
        for reference in repository.references()? {
            let reference = reference?;
            let name = reference.name().map(ToOwned::to_owned);
            if let (Some(id), Ok(name)) = (reference.target(), name) {
                refs.push((id, name));
            }
        }
        Ok(refs)
    };
    let refs: Vec<(Oid, String)> = match list() {
        Ok(refs) => refs,
        Err(error) => return failed(&error),
    };
    let capabilities = format!("symref=HEAD:refs/heads/{} agent=localnet", super::BRANCH);
    let mut body = packet("# service=git-upload-pack\n");
    body.push_str("0000");
    for (index, (id, name)) in refs.iter().enumerate() {
        let mut line = format!("{id} {name}");
        if index == 0 {
            let _ = write!(line, "\0{capabilities}");
        }
        line.push('\n');
        body.push_str(&packet(&line));
    }
    body.push_str("0000");
    let kind = "application/x-git-upload-pack-advertisement";
    (
        [
            (header::CONTENT_TYPE, kind),
            (header::CACHE_CONTROL, "no-cache"),
        ],
        body,
    )
        .into_response()
}

/// Sends what the client wants and does not have. Until it says `done`, it is told that nothing
/// is known to be common, which ends the negotiation soon: histories here are short.
async fn upload_pack(State(path): State<Arc<Path>>, headers: HeaderMap, body: Bytes) -> Response {
    let zipped = headers
        .get(header::CONTENT_ENCODING)
        .is_some_and(|value| value == "gzip");
    let body = if zipped { unzip(&body) } else { body.to_vec() };
    let request = GitRequest::parse(&body);
    let mut answer = packet("NAK\n").into_bytes();
    if request.done {
        match pack(&path, &request) {
            Ok(pack) => answer.extend_from_slice(&pack),
            Err(error) => return failed(&error),
        }
    }
    (
        [(header::CONTENT_TYPE, "application/x-git-upload-pack-result")],
        answer,
    )
        .into_response()
}

fn unzip(body: &[u8]) -> Vec<u8> {
    use std::io::Read as _;
    let mut plain = Vec::new();
    let limited = flate2::read::GzDecoder::new(body).take(MAX_REQUEST as u64);
    // What can't be read is not a request and gets an empty answer.
    let _ = { limited }.read_to_end(&mut plain);
    plain
}

#[derive(Debug, Default, PartialEq, Eq)]
struct GitRequest {
    wants: Vec<Oid>,
    haves: Vec<Oid>,
    done: bool,
}

impl GitRequest {
    fn parse(mut body: &[u8]) -> Self {
        let mut request = Self::default();
        while let Some((length, rest)) = body.split_at_checked(4) {
            let length = std::str::from_utf8(length).ok();
            let Some(length) = length.and_then(|hex| usize::from_str_radix(hex, 16).ok()) else {
                break;
            };
            if length < 4 {
                body = rest;
                continue;
            }
            let Some((line, rest)) = rest.split_at_checked(length - 4) else {
                break;
            };
            body = rest;
            let line = String::from_utf8_lossy(line);
            let mut words = line.split_whitespace();
            let (verb, id) = (
                words.next(),
                words.next().and_then(|id| Oid::from_str(id).ok()),
            );
            match (verb, id) {
                (Some("want"), Some(id)) => request.wants.push(id),
                (Some("have"), Some(id)) => request.haves.push(id),
                (Some("done"), _) => request.done = true,
                _ => {}
            }
        }
        request
    }
}

fn pack(path: &Path, request: &GitRequest) -> Result<Buf, git2::Error> {
    let repository = Repository::open_bare(path)?;
    let mut walk = repository.revwalk()?;
    for want in &request.wants {
        walk.push(*want)?;
    }
    for have in &request.haves {
        if repository.find_commit(*have).is_ok() {
            walk.hide(*have)?;
        }
    }
    let mut builder = repository.packbuilder()?;
    builder.insert_walk(&mut walk)?;
    let mut pack = Buf::new();
    builder.write_buf(&mut pack)?;
    Ok(pack)
}
