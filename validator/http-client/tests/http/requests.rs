//! Whole answers: redirects, credentials, retries, limits on size and time.

use std::{
    io::Write as _,
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{body::Body, response::Response};
use flate2::{Compression, write::GzEncoder};
use http_client::{Credentials, HttpError, HttpObserver, HttpRequest, StatusCode};

use crate::server::{Server, client};

const DEADLINE: Duration = Duration::from_secs(30);

fn redirect(status: u16, to: &str) -> Response {
    let response = Response::builder().status(status).header("location", to);
    response.body(Body::empty()).unwrap()
}

fn status(status: u16) -> Response {
    let response = Response::builder().status(status);
    let body = r#"{"error":"no, not\u001b[2J now"}"#;
    response.body(Body::from(body)).unwrap()
}

fn token() -> Credentials {
    Credentials::bearer("secret").unwrap()
}

#[tokio::test]
async fn credentials_do_not_follow_a_redirect_to_another_host() {
    let other = Server::start(|_, _| Response::new("there".into())).await;
    let target = other.url.to_string();
    let first = Server::start(move |asked, _| match asked.line.as_str() {
        "GET /file" => redirect(307, "/again"),
        _ => redirect(302, &target),
    })
    .await;
    let request = HttpRequest::get(first.url.clone(), 100, DEADLINE).credentials(Some(token()));
    assert_eq!(request.send(&client()).await.unwrap(), b"there");
    let authorized = |server: &Server| -> Vec<bool> {
        server
            .asked()
            .iter()
            .map(|asked| asked.authorized)
            .collect()
    };
    assert_eq!(authorized(&first), [true, true]);
    assert_eq!(authorized(&other), [false]);
}

#[tokio::test]
async fn the_user_of_an_address_travels_in_a_header_and_survives_a_redirect() {
    let server = Server::start(|asked, _| match asked.line.as_str() {
        "GET /file" => redirect(307, "/again"),
        _ => Response::new("there".into()),
    })
    .await;
    let mut url = server.url.clone();
    url.set_username("me").unwrap();
    url.set_password(Some("p%40ss")).unwrap();
    let request = HttpRequest::get(url, 100, DEADLINE);
    assert_eq!(request.send(&client()).await.unwrap(), b"there");
    let asked = server.asked();
    let lines: Vec<_> = asked.iter().map(|asked| asked.line.as_str()).collect();
    assert_eq!(lines, ["GET /file", "GET /again"]);
    assert!(asked.iter().all(|asked| asked.authorized));
}

#[tokio::test]
async fn what_is_posted_is_neither_dropped_nor_sent_elsewhere() {
    let other = Server::start(|_, _| Response::new("there".into())).await;
    let target = other.url.to_string();
    let first = Server::start(move |asked, before| match (asked.line.as_str(), before) {
        ("POST /file", 0) => redirect(308, "/moved"),
        ("POST /moved", _) => Response::new("\"taken\"".into()),
        ("POST /file", 2) => redirect(302, "/moved"),
        _ => redirect(307, &target),
    })
    .await;
    let request = HttpRequest::post(first.url.clone(), &"rows", 100, DEADLINE);
    assert_eq!(request.json::<String>(&client()).await.unwrap(), "taken");
    for _ in 0..2 {
        let error = request.send(&client()).await.unwrap_err();
        assert!(matches!(error, HttpError::Redirect { .. }), "{error}");
    }
    assert_eq!(other.asked(), []);
}

#[tokio::test]
async fn what_is_put_or_deleted_goes_where_it_is_meant_to_go_only() {
    let other = Server::start(|_, _| Response::new("there".into())).await;
    let target = other.url.to_string();
    let first = Server::start(move |asked, before| match (asked.line.as_str(), before) {
        ("PUT /file", 0) => status(503),
        ("PUT /file" | "DELETE /file", 1 | 2) => Response::new(Body::empty()),
        _ => redirect(307, &target),
    })
    .await;
    let url = || first.url.clone();
    let put = HttpRequest::put(url(), "text/plain", "text".into(), 100, DEADLINE);
    let delete = HttpRequest::delete(url(), 100, DEADLINE);
    assert_eq!(put.send(&client()).await.unwrap(), b"");
    assert_eq!(delete.send(&client()).await.unwrap(), b"");
    for request in [put, delete] {
        let error = request.send(&client()).await.unwrap_err();
        assert!(matches!(error, HttpError::Redirect { .. }), "{error}");
    }
    assert_eq!(other.asked(), []);
}

#[tokio::test]
async fn what_may_pass_is_tried_again_and_what_may_not_is_named() {
    let server = Server::start(|_, before| match before {
        0 => status(503),
        1 => status(429),
        _ => Response::new("well".into()),
    })
    .await;
    let request = HttpRequest::get(server.url.clone(), 100, DEADLINE);
    assert_eq!(request.send(&client()).await.unwrap(), b"well");
    let server = Server::start(|_, _| status(403)).await;
    let request = HttpRequest::get(server.url.clone(), 100, DEADLINE);
    let error = request.send(&client()).await.unwrap_err();
    assert_eq!(error.status(), Some(StatusCode::FORBIDDEN));
    assert!(error.is_unavailable());
    let shown = error.to_string();
    assert!(
        shown.ends_with("answered 403 Forbidden: no, not\u{fffd}[2J now"),
        "{shown:?}"
    );
    assert_eq!(server.asked().len(), 1);
}

#[tokio::test]
async fn a_body_has_an_end_however_it_is_packed() {
    let mut packed = GzEncoder::new(Vec::new(), Compression::best());
    packed.write_all(&vec![b' '; 50 << 20]).unwrap();
    let packed = packed.finish().unwrap();
    assert!(packed.len() < 1 << 20);
    let server = Server::start(move |_, _| {
        let response = Response::builder().header("content-encoding", "gzip");
        response.body(packed.clone().into()).unwrap()
    })
    .await;
    let client = client();
    let request = HttpRequest::get(server.url.clone(), 1 << 20, DEADLINE);
    let error = request.send(&client).await.unwrap_err();
    assert!(matches!(error, HttpError::TooLarge { .. }), "{error}");
    assert!(client.bytes_received() < 2 << 20);
    assert_eq!(server.asked().len(), 1);
}

#[tokio::test]
async fn an_encoding_nobody_asked_for_is_no_content() {
    let server = Server::start(|_, _| {
        let response = Response::builder().header("content-encoding", "br");
        response.body("?".into()).unwrap()
    })
    .await;
    let request = HttpRequest::get(server.url.clone(), 100, DEADLINE);
    let error = request.send(&client()).await.unwrap_err();
    assert!(matches!(error, HttpError::Contradiction { .. }), "{error}");
}

#[tokio::test]
async fn one_deadline_holds_for_all_attempts() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!(
        "http://user:secret@{}/?key=secret",
        listener.local_addr().unwrap()
    );
    // It takes connections, and never says a word.
    let deadline = Duration::from_millis(50);
    let request = HttpRequest::get(url.parse().unwrap(), 100, deadline);
    let error = request.send(&client()).await.unwrap_err().to_string();
    assert!(error.contains("no complete answer within"), "{error}");
    assert!(!error.contains("secret"), "{error}");
}

/// What an observer was told: statuses, and bytes.
#[derive(Debug, Default)]
struct Observed(Mutex<(Vec<Option<u16>>, u64)>);

impl HttpObserver for Observed {
    fn answered(&self, status: Option<StatusCode>, _: Duration) {
        let status = status.map(|status| status.as_u16());
        self.0.lock().unwrap().0.push(status);
    }

    fn received(&self, bytes: u64) {
        self.0.lock().unwrap().1 += bytes;
    }
}

#[tokio::test]
async fn an_observer_is_told_of_each_answer_and_of_silence() {
    let server = Server::start(|asked, before| match (asked.line.as_str(), before) {
        (_, 0) => status(503),
        ("GET /file", _) => redirect(302, "/again"),
        _ => Response::new("there".into()),
    })
    .await;
    let observed = Arc::new(Observed::default());
    let observing = client().observed(Arc::clone(&observed) as _);
    let request = HttpRequest::get(server.url.clone(), 100, DEADLINE);
    // A client that counts for itself is observed all the same.
    request.send(&observing.counted()).await.unwrap();
    let told = observed.0.lock().unwrap().clone();
    assert_eq!(told, (vec![Some(503), Some(302), Some(200)], 5));

    // A server that takes the connection and says nothing, and one that is not there.
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", silent.local_addr().unwrap());
    let hurried = HttpRequest::get(url.parse().unwrap(), 100, Duration::from_millis(50));
    hurried.send(&observing).await.unwrap_err();
    let told = observed.0.lock().unwrap().0.split_off(3);
    assert_eq!(told, [None], "given up at the deadline");
    drop(silent);
    hurried.send(&observing).await.unwrap_err();
    let told = observed.0.lock().unwrap().0.split_off(3);
    assert!(
        !told.is_empty() && told.iter().all(Option::is_none),
        "{told:?}"
    );
}
