//! The `localnet` program: what it says when something is wrong, how it ends.
#![expect(clippy::unwrap_used, reason = "a test's panic is its verdict")]

use std::{net::TcpListener, path::Path, process::Stdio, time::Duration};

use nix::sys::signal::Signal;
use shared::process;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader},
    net::TcpStream,
    process::Command,
    time::timeout,
};

const LIMIT: Duration = Duration::from_secs(60);

fn localnet(words: &[&str], folder: &Path) -> Command {
    let mut command = process::command(env!("CARGO_BIN_EXE_localnet"));
    command.args(words).arg("--state-dir").arg(folder);
    command.current_dir(env!("CARGO_MANIFEST_DIR"));
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Six free ports in a row, as good as can be known.
fn base_port() -> u16 {
    loop {
        let first = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = first.local_addr().unwrap().port();
        let free = |offset| TcpListener::bind(("127.0.0.1", port + offset)).is_ok();
        if port < 60_000 && (1..6).all(free) {
            return port;
        }
    }
}

async fn answer(mut command: Command) -> (Option<i32>, String) {
    let output = timeout(LIMIT, command.output()).await.unwrap().unwrap();
    (
        output.status.code(),
        String::from_utf8_lossy(&output.stderr).into_owned(),
    )
}

#[tokio::test]
async fn a_port_in_use_is_named_with_a_way_out() {
    let dir = tempfile::tempdir().unwrap();
    let taken = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let (code, text) = answer(localnet(&["--base-port", &port], dir.path())).await;
    assert_eq!(code, Some(77), "{text}");
    assert!(
        text.contains(&port) && text.contains("--base-port"),
        "{text}"
    );
}

#[tokio::test]
async fn a_demo_without_cargo_says_where_to_get_it() {
    let dir = tempfile::tempdir().unwrap();
    let mut command = localnet(&["demo"], dir.path());
    command.env("PATH", dir.path());
    let (code, text) = answer(command).await;
    assert_eq!(code, Some(78), "{text}");
    assert!(
        text.contains("no cargo in PATH") && text.contains("https://rustup.rs"),
        "{text}"
    );
}

#[tokio::test]
async fn unknown_trouble_and_flags_are_wrong_usage() {
    let dir = tempfile::tempdir().unwrap();
    for (words, hint) in [
        (&["demo", "--fault", "hub-flood"][..], "hub-FAULT"),
        (&["--block-time", "0"][..], "between 0.01 and 3600"),
        (&["--base-prot", "1"][..], "--base-port"),
    ] {
        let (code, text) = answer(localnet(words, dir.path())).await;
        assert_eq!(code, Some(2), "{text}");
        assert!(text.contains(hint), "{text}");
    }
}

#[tokio::test]
async fn a_folder_that_can_not_be_written_is_named() {
    let port = base_port().to_string();
    let (code, text) = answer(localnet(
        &["--base-port", &port],
        Path::new("/proc/localnet"),
    ))
    .await;
    assert_eq!(code, Some(74), "{text}");
    assert!(
        text.contains("/proc/localnet") && text.contains("--state-dir"),
        "{text}"
    );
}

#[tokio::test]
async fn ctrl_c_while_starting_stops_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let port = base_port();
    let mut command = localnet(&["--base-port", &port.to_string()], dir.path());
    let mut child = command.spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let training = async {
        while let Some(line) = lines.next_line().await.unwrap() {
            if line.contains("training") {
                return;
            }
        }
        panic!("it never trained");
    };
    timeout(LIMIT, training).await.unwrap();
    process::signal_group(child.id().unwrap(), Signal::SIGINT).unwrap();
    let status = timeout(LIMIT, child.wait()).await.unwrap().unwrap();
    assert_eq!(status.code(), Some(130));
    for offset in 0..6 {
        assert!(
            TcpStream::connect(("127.0.0.1", port + offset))
                .await
                .is_err()
        );
    }
}

#[tokio::test]
async fn it_stays_up_until_ctrl_c_and_frees_its_ports() {
    let dir = tempfile::tempdir().unwrap();
    let port = base_port();
    let text = port.to_string();
    let words = [
        "--no-miners",
        "--json",
        "--block-time",
        "0.05",
        "--base-port",
        &text,
    ];
    let mut child = localnet(&words, dir.path())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    let mut text = String::new();
    let json = async {
        while !text.ends_with("}\n") {
            assert!(stdout.read_line(&mut text).await.unwrap() > 0, "{text}");
        }
    };
    timeout(LIMIT, json).await.unwrap();
    let endpoints: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(endpoints["chain"], format!("ws://127.0.0.1:{port}"));
    let file = std::fs::read(dir.path().join("endpoints.json")).unwrap();
    assert_eq!(
        serde_json::from_slice::<serde_json::Value>(&file).unwrap(),
        endpoints
    );
    for offset in 0..6 {
        TcpStream::connect(("127.0.0.1", port + offset))
            .await
            .unwrap();
    }
    process::signal_group(child.id().unwrap(), Signal::SIGINT).unwrap();
    let status = timeout(LIMIT, child.wait()).await.unwrap().unwrap();
    assert_eq!(status.code(), Some(0));
    let mut rest = String::new();
    stdout.read_to_string(&mut rest).await.unwrap();
    assert_eq!(rest, "");
    for offset in 0..6 {
        assert!(
            TcpStream::connect(("127.0.0.1", port + offset))
                .await
                .is_err()
        );
    }
}
