//! A bucket of S3: who has the key may write, anyone may read. Its objects are the files of a folder.
//!
//! Signatures (AWS Signature Version 4 in the query) are computed here from the standard's text, so that both sides
//! of a request are not the same code.

use std::path::{Path, PathBuf};

use axum::{
    Router,
    body::Bytes,
    extract::{Request, State},
    http::{Method, StatusCode, Uri, header},
    response::{IntoResponse as _, Response},
};
use percent_encoding::percent_decode_str;
use sha2::{Digest as _, Sha256};
use shared::{Failure, file};

use crate::http::{Bound, Faults, Server};

/// The key that may write.
pub const KEY_ID: &str = "AKIALOCALNET";
pub const SECRET: &str = "localnet/secret+of/no+value";

/// Starts one whose objects lie in `folder`.
pub async fn start(folder: &Path, faults: Faults) -> Result<Server, Failure> {
    let bound = Bound::take(0, "the bucket").await?;
    let router = Router::new().fallback(answer).with_state(folder.to_owned());
    Ok(bound.serve("bucket", router, faults))
}

async fn answer(State(folder): State<PathBuf>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let host = parts.headers.get(header::HOST);
    let host = host.and_then(|host| host.to_str().ok()).unwrap_or_default();
    let name = percent_decode_str(parts.uri.path()).decode_utf8_lossy();
    if name.split('/').any(|part| part == "..") {
        return StatusCode::BAD_REQUEST.into_response();
    }
    let path = folder.join(name.trim_start_matches('/'));
    if parts.method == Method::GET {
        let read = file::read_limited(&path, 1 << 30).ok().flatten();
        return match read {
            Some(bytes) => bytes.into_response(),
            None => error(StatusCode::NOT_FOUND, "NoSuchKey"),
        };
    }
    if !is_signed(&parts.method, &parts.uri, host) {
        return error(StatusCode::FORBIDDEN, "SignatureDoesNotMatch");
    }
    let changed = match parts.method {
        Method::PUT => {
            let body: Result<Bytes, _> = axum::body::to_bytes(body, 1 << 30).await;
            let Ok(body) = body else {
                return error(StatusCode::BAD_REQUEST, "IncompleteBody");
            };
            file::write_atomic(&path, &body)
        }
        Method::DELETE => file::remove_file(&path),
        _ => return error(StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowed"),
    };
    match changed {
        Ok(()) => StatusCode::OK.into_response(),
        Err(_) => error(StatusCode::INTERNAL_SERVER_ERROR, "InternalError"),
    }
}

fn error(status: StatusCode, code: &str) -> Response {
    let body = format!("<?xml version=\"1.0\"?><Error><Code>{code}</Code></Error>");
    (status, [(header::CONTENT_TYPE, "application/xml")], body).into_response()
}

/// Whether the query has a signature of our key over method, path, query and host.
fn is_signed(method: &Method, uri: &Uri, host: &str) -> bool {
    let query = uri.query().unwrap_or_default();
    let pairs: Vec<(&str, &str)> = query
        .split('&')
        .filter_map(|pair| pair.split_once('='))
        .collect();
    let value = |name: &str| {
        let found = pairs.iter().find(|(known, _)| *known == name)?;
        Some(percent_decode_str(found.1).decode_utf8_lossy().into_owned())
    };
    let (Some(credential), Some(date), Some(signature)) = (
        value("X-Amz-Credential"),
        value("X-Amz-Date"),
        value("X-Amz-Signature"),
    ) else {
        return false;
    };
    let Some((id, scope)) = credential.split_once('/') else {
        return false;
    };
    let mut signed: Vec<String> = pairs
        .iter()
        .filter(|(name, _)| *name != "X-Amz-Signature")
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    signed.sort();
    let (path, signed) = (uri.path(), signed.join("&"));
    let canonical = format!("{method}\n{path}\n{signed}\nhost:{host}\n\nhost\nUNSIGNED-PAYLOAD");
    let digest = hex::encode(Sha256::digest(canonical));
    let text = format!("AWS4-HMAC-SHA256\n{date}\n{scope}\n{digest}");
    let first = format!("AWS4{SECRET}").into_bytes();
    let key = scope.split('/').fold(first, |key, part| hmac(&key, part));
    id == KEY_ID && scope.split('/').count() == 4 && hex::encode(hmac(&key, &text)) == signature
}

/// HMAC-SHA-256 (RFC 2104).
fn hmac(key: &[u8], text: &str) -> Vec<u8> {
    let mut block = [0_u8; 64];
    if key.len() > block.len() {
        block[..32].copy_from_slice(&Sha256::digest(key));
    } else {
        block[..key.len()].copy_from_slice(key);
    }
    let keyed = |with: u8, rest: &[u8]| {
        let pad = block.map(|byte| byte ^ with);
        Sha256::new()
            .chain_update(pad)
            .chain_update(rest)
            .finalize()
    };
    keyed(0x5c, &keyed(0x36, text.as_bytes())).to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_code_is_that_of_the_standard() {
        // RFC 4231, test case 2.
        let code = hex::encode(hmac(b"Jefe", "what do ya want for nothing?"));
        let expected = "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843";
        assert_eq!(code, expected);
    }
}
