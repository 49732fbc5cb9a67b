//! Byte ranges from servers that break off, ignore them, or send others.

use axum::{
    body::{Body, Bytes},
    response::Response,
};
use futures::{StreamExt as _, stream};
use http_client::{HttpError, RemoteFile};

use crate::server::{Asked, Server, client};

const SIZE: u64 = 1 << 20;

fn content() -> Vec<u8> {
    (0..SIZE).map(|at| (at / 7) as u8).collect()
}

/// Reads `bytes=START-LAST`.
fn range(asked: &Asked) -> Option<(u64, u64)> {
    let text = asked.range.as_deref()?.strip_prefix("bytes=")?;
    let (start, last) = text.split_once('-').unwrap();
    Some((start.parse().unwrap(), last.parse::<u64>().unwrap() + 1))
}

fn slice((start, end): (u64, u64)) -> Vec<u8> {
    content()[start as usize..end as usize].to_vec()
}

fn partial(range: (u64, u64), body: Body) -> Response {
    let (start, end) = range;
    let response = Response::builder().status(206);
    let content_range = format!("bytes {start}-{}/{SIZE}", end - 1);
    let response = response.header("content-range", content_range);
    response
        .header("content-length", end - start)
        .body(body)
        .unwrap()
}

fn whole(body: Body) -> Response {
    let response = Response::builder().header("content-length", SIZE);
    response.body(body).unwrap()
}

/// Half of the bytes, then the connection breaks.
fn broken(bytes: &[u8]) -> Body {
    let half = Bytes::copy_from_slice(&bytes[..bytes.len() / 2]);
    let breaks = stream::once(async {
        // What was sent is flushed before the break.
        tokio::task::yield_now().await;
        Err(std::io::Error::other("broken on purpose"))
    });
    Body::from_stream(stream::iter([Ok(half)]).chain(breaks))
}

fn ranges_of(server: &Server) -> Vec<Option<String>> {
    server
        .asked()
        .into_iter()
        .map(|asked| asked.range)
        .collect()
}

#[tokio::test]
async fn a_broken_range_is_resumed_where_it_broke() {
    let server = Server::start(|asked, before| {
        let range = range(asked).unwrap();
        let bytes = slice(range);
        let body = if before < 4 {
            broken(&bytes)
        } else {
            bytes.into()
        };
        partial(range, body)
    })
    .await;
    let file = RemoteFile::new(server.url.clone(), SIZE);
    let client = client();
    // More breaks than attempts: each brings more than a trickle.
    let pieces = file.range(&client, 100..SIZE).await.unwrap();
    assert!(pieces.concat() == content()[100..]);
    assert_eq!(server.asked().len(), 5);
    assert_eq!(client.bytes_received(), SIZE - 100, "nothing came twice");
    assert!(!file.lacks_ranges());
}

/// The file's own server redirects to a signed link of its own, which expires.
#[tokio::test]
async fn an_expired_link_of_the_same_server_is_asked_for_again() {
    let server = Server::start(|asked, before| {
        if asked.line == "GET /file" {
            let response = Response::builder().status(307);
            let link = format!("/signed-{before}");
            return response
                .header("location", link)
                .body(Body::empty())
                .unwrap();
        }
        let expired = asked.line == "GET /signed-0" && before > 1;
        if expired {
            let response = Response::builder().status(403);
            return response.body("expired".into()).unwrap();
        }
        let range = range(asked).unwrap();
        partial(range, slice(range).into())
    })
    .await;
    let file = RemoteFile::new(server.url.clone(), SIZE);
    let client = client();
    for start in [0, 1000] {
        let pieces = file.range(&client, start..start + 1000).await.unwrap();
        assert!(pieces.concat() == slice((start, start + 1000)));
    }
    let lines: Vec<String> = server.asked().into_iter().map(|asked| asked.line).collect();
    assert_eq!(
        lines,
        [
            "GET /file",
            "GET /signed-0",
            "GET /signed-0",
            "GET /file",
            "GET /signed-3"
        ]
    );
}

#[tokio::test]
async fn a_server_that_ignores_ranges_is_read_from_the_beginning() {
    let server = Server::start(|_, before| {
        let body = if before == 0 {
            broken(&content())
        } else {
            content().into()
        };
        whole(body)
    })
    .await;
    let file = RemoteFile::new(server.url.clone(), SIZE);
    let client = client();
    let mut reader = file.read(&client, 1000..SIZE - 1000);
    let mut read = Vec::new();
    while let Some(piece) = reader.next().await.unwrap() {
        read.extend_from_slice(&piece);
    }
    assert!(read == slice((1000, SIZE - 1000)));
    // The second time it might have resumed: it is asked to.
    let ranges = ranges_of(&server);
    assert_eq!(ranges.len(), 2);
    assert!(ranges.iter().all(Option::is_some), "{ranges:?}");
    assert!(file.lacks_ranges());
    let error = file.part(&client, 0..1000).await.unwrap_err();
    assert!(matches!(error, HttpError::Contradiction { .. }), "{error}");
}

#[tokio::test]
async fn a_server_that_sends_another_range_is_asked_for_the_whole() {
    let server = Server::start(|asked, _| match range(asked) {
        Some((start, end)) => partial((start + 1, end), slice((start + 1, end)).into()),
        None => whole(content().into()),
    })
    .await;
    let file = RemoteFile::new(server.url.clone(), SIZE);
    let client = client();
    for _ in 0..2 {
        let pieces = file.range(&client, 5..1000).await.unwrap();
        assert!(pieces.concat() == slice((5, 1000)));
    }
    let ranges = ranges_of(&server);
    assert_eq!(ranges, [Some("bytes=5-999".to_owned()), None, None]);
}

#[tokio::test]
async fn a_file_of_another_size_or_a_changed_one_is_a_contradiction() {
    let server = Server::start(|_, _| whole(content().into())).await;
    let client = client();
    let longer = RemoteFile::new(server.url.clone(), SIZE + 1);
    let error = longer.range(&client, 0..10).await.unwrap_err();
    assert!(
        error
            .to_string()
            .ends_with("says 1048577 bytes, the server 1048576"),
        "{error}"
    );
    let server = Server::start(|_, before| {
        let etag = if before < 2 { "\"a\"" } else { "W/\"b-gzip\"" };
        let response = Response::builder().header("etag", etag);
        response.body(content().into()).unwrap()
    })
    .await;
    let file = RemoteFile::new(server.url.clone(), SIZE);
    for _ in 0..2 {
        file.range(&client, 0..10).await.unwrap();
    }
    let error = file.range(&client, 0..10).await.unwrap_err();
    assert!(
        error.to_string().ends_with("changed while it was fetched"),
        "{error}"
    );
}
