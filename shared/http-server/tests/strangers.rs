//! What strangers may do to the door, over real sockets.
#![expect(clippy::unwrap_used, reason = "a test's panic is its verdict")]

use std::{net::SocketAddr, sync::Arc};

use bytes::Bytes;
use futures::{StreamExt as _, stream};
use http_server::{Answer, Asked, Door, listen};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    task::JoinSet,
};

/// Opens a door that tells what it was asked; `/messages` goes on for ever.
fn open(tasks: &mut JoinSet<()>) -> SocketAddr {
    let listener = listen("127.0.0.1:0".parse().unwrap(), "--metrics-addr").unwrap();
    let address = listener.local_addr().unwrap();
    let door = Door::new(Arc::new(|asked: Asked| {
        Box::pin(async move {
            if asked.path == "/messages" {
                let messages = stream::iter(0_u64..).map(|n| Bytes::from(format!("data: {n}\n\n")));
                return Answer::messages(Box::pin(messages));
            }
            Answer::text(200, format!("{asked:?}"))
        })
    }));
    tasks.spawn(async move {
        door.serve(listener).await.unwrap();
    });
    address
}

async fn ask(address: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test]
async fn heads_are_read_and_methods_are_few() {
    let mut tasks = JoinSet::new();
    let address = open(&mut tasks);
    let answer = ask(
        address,
        "GET /a%3Cb?c=d HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer secret\r\n\r\n",
    )
    .await;
    for part in [
        "HTTP/1.1 200 OK",
        "x-content-type-options: nosniff",
        "path: \"/a%3Cb\", query: Some(\"c=d\"), host: Some(\"x\"), bearer: Some(\"secret\")",
    ] {
        assert!(answer.contains(part), "{answer}");
    }
    let answer = ask(
        address,
        "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc",
    )
    .await;
    assert!(answer.starts_with("HTTP/1.1 405"), "{answer}");
    let answer = ask(address, "HEAD / HTTP/1.1\r\nHost: x\r\n\r\n").await;
    assert!(answer.ends_with("\r\n\r\n"), "{answer}");
    let answer = ask(address, "nonsense\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
    let long = format!(
        "GET / HTTP/1.1\r\nHost: x\r\nX: {}\r\n\r\n",
        "a".repeat(64 << 10)
    );
    let answer = ask(address, &long).await;
    assert!(
        answer.is_empty() || answer.starts_with("HTTP/1.1 431"),
        "{answer}"
    );
}

#[tokio::test]
async fn readers_that_never_read_keep_nobody_else_out_and_more_than_fit_are_turned_away() {
    let mut tasks = JoinSet::new();
    let address = open(&mut tasks);
    let mut idle = Vec::new();
    for _ in 0..31 {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream
            .write_all(b"GET /messages HTTP/1.1\r\nHost: x\r\n\r\n")
            .await
            .unwrap();
        // It has a place once it is answered; after that, nothing is read.
        stream.read_u8().await.unwrap();
        idle.push(stream);
    }
    let answer = ask(address, "GET / HTTP/1.1\r\nHost: x\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let mut last = TcpStream::connect(address).await.unwrap();
    last.write_all(b"GET /messages HTTP/1.1\r\nHost: x\r\n\r\n")
        .await
        .unwrap();
    last.read_u8().await.unwrap();
    let answer = ask(address, "GET / HTTP/1.1\r\nHost: x\r\n\r\n").await;
    assert_eq!(answer, "");
    drop(last);
    // The place is free as soon as the writer has noticed.
    while ask(address, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        .await
        .is_empty()
    {}
}

#[tokio::test]
async fn a_port_in_use_is_named() {
    let first = listen("127.0.0.1:0".parse().unwrap(), "--metrics-addr").unwrap();
    let address = first.local_addr().unwrap();
    let failure = listen(address, "--metrics-addr").unwrap_err();
    assert_eq!(failure.heading(), format!("could not listen at {address}"));
    assert!(
        failure.hints()[0].contains("another program has this port; choose another --metrics-addr")
    );
}
