//! The questions that an operator asks in a day, each answered by one documented command.

use std::{
    fs::File,
    io::{Read as _, Write as _},
    os::fd::AsFd as _,
    process::Stdio,
    sync::{Arc, Mutex},
    time::Duration,
};

use e2e::{
    limit::{self, LIMIT},
    skip, workspace,
};
use nix::{
    pty::{Winsize, openpty},
    sys::termios::{LocalFlags, tcgetattr},
};
use serde_json::Value;
use shared::{process::blocking_command, status::Health};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

use crate::world::{World, stop};

/// The questions of `docs/operating.md`, each with what its command must say. Those of the supervisor and those that a
/// file answers are checked by its own tests and below.
const ANSWERS: [(&str, &[&str], &[&str]); 12] = [
    ("Is it healthy?", &["status"], &["● green"]),
    (
        "Are my weights fresh, on the chain, and accepted?",
        &["status"],
        &["weights", "set at block", "receipt", "due at block"],
    ),
    (
        "Who leads in each competition, and why?",
        &["show", "leaders"],
        &[
            "competition l3",
            "competition s1",
            "win rate",
            "comparisons",
        ],
    ),
    (
        "Why was uid N refused?",
        &["show", "uid", "6"],
        &["refused: ", "looked at again when", "refused since step"],
    ),
    (
        "What changed between the last two steps?",
        &["show", "changes"],
        &["competition l3: step", "->", "weight"],
    ),
    (
        "How far is this step?",
        &["status", "--json"],
        &["\"round\""],
    ),
    (
        "How much disk do the models take, and what would go first?",
        &["status"],
        &["models take", "stay free"],
    ),
    (
        "Which sample source was used, how old, how many dropped?",
        &["status"],
        &["jsonl", "fresh", "dropped"],
    ),
    (
        "What is my validator trust, and with whom do I disagree?",
        &["show", "trust"],
        &["validator trust", "consensus"],
    ),
    (
        "Does it call me?",
        &["alerts"],
        &[
            "FinetuneValiWeightsAgeRed",
            "FinetuneValiCrashLoop",
            "for: 15m",
        ],
    ),
    (
        "Which models are copies?",
        &["show", "copies"],
        &["difference", "equal"],
    ),
    (
        "Who is this hotkey?",
        &["show", "uid", "5"],
        &["hotkey", "repository", "copy of uid 1"],
    ),
];

#[tokio::test(flavor = "multi_thread")]
async fn every_question_is_answered_by_one_documented_command() {
    let world = World::start("operator", Duration::from_millis(500)).await;
    let mut validator = world.running(
        "a",
        &[
            "--sync-blocks",
            "8",
            "--metrics-addr",
            "127.0.0.1:0",
            "--log-json",
        ],
    );
    world
        .until(
            "a",
            "two steps of each competition, weights read back, and green health",
            || {
                let records = world.records("a");
                let steps = |id: &str| {
                    records
                        .iter()
                        .filter(|record| record.competition.0 == id)
                        .count()
                };
                let known = world.status("a").is_some_and(|status| {
                    let details = &status.details;
                    let known = details.receipt.is_some()
                        && details.trust.is_some()
                        && details.disk.is_some();
                    known && status.health == Health::Green
                });
                steps("l3") > 1 && steps("s1") > 1 && known
            },
        )
        .await;
    let documents = include_str!("../../../../docs/operating.md");
    for (question, command, expected) in ANSWERS {
        let line = format!("`validator {}`", command.join(" "));
        let documented = documents.lines().any(|row| {
            row.contains(question)
                && row.contains(&line.replace(" 6`", " N`").replace(" 5`", " 5..`"))
        });
        assert!(
            documented,
            "docs/operating.md does not answer {question:?} by {line}"
        );
        let (code, text) = world.run("a", command).await;
        assert_eq!(code, 0, "{question}: {text}");
        for part in expected {
            assert!(
                text.contains(part),
                "{question}: {part:?} is not in\n{text}"
            );
        }
    }

    others(&world).await;

    assert_eq!(stop(&mut validator).await, 0);
    for line in world.log_text("a").lines() {
        assert!(
            serde_json::from_str::<Value>(line).is_ok_and(|line| line.is_object()),
            "not JSON: {line}"
        );
    }
    let (code, text) = world.run("a", &["show", "leaders"]).await;
    assert_eq!(code, 0, "also of a validator that is dead: {text}");
}

/// What answers beyond one line: a hotkey, a bundle, tables for other programs, scores of the journal.
async fn others(world: &World) {
    // By its hotkey too, as JSON, for programs.
    let (_, text) = world.run("a", &["show", "uid", "5", "--json"]).await;
    let json: Value = serde_json::from_str(&text).unwrap();
    let hotkey = json["hotkey"].as_str().unwrap();
    let (code, text) = world.run("a", &["show", "uid", hotkey]).await;
    assert_eq!(code, 0, "{text}");
    for wrong in [&["show", "uid", "999"][..], &["show", "step", "99999"]] {
        let (code, text) = world.run("a", wrong).await;
        assert_eq!(code, 65, "{text}");
    }

    // What a bundle, an export and a score of the journal give.
    let bundle = world.root().join("bundle.tar.gz");
    let (code, text) = world
        .run("a", &["report", "--output", bundle.to_str().unwrap()])
        .await;
    assert_eq!(code, 0, "{text}");
    assert!(bundle.metadata().unwrap().len() > 1000);
    let (code, text) = world.run("a", &["export", "verdicts"]).await;
    assert_eq!(code, 0, "{text}");
    assert!(
        text.starts_with("step,competition,uid,hotkey,model,"),
        "{text}"
    );
    for format in ["parquet", "jsonl"] {
        let file = world.root().join(format);
        let (code, text) = world
            .run(
                "a",
                &[
                    "export",
                    "losses",
                    "--format",
                    format,
                    "--output",
                    file.to_str().unwrap(),
                ],
            )
            .await;
        assert_eq!(code, 0, "{text}");
        assert!(file.metadata().unwrap().len() > 100);
    }
    let journal = world.journal("a");
    let (code, text) = world
        .run("a", &["score", journal.to_str().unwrap(), "--step", "1"])
        .await;
    assert_eq!(code, 0, "{text}");
    assert!(text.contains("win_rate"), "{text}");
    let folder = journal.parent().unwrap().to_str().unwrap();
    let (code, text) = world.run("a", &["score", folder]).await;
    assert_eq!(code, 0, "{text}");
}

/// Asks an address for a path, as a browser that was given this name of the host.
pub(crate) async fn ask(address: &str, path: &str, host: &str) -> String {
    let Ok(mut stream) = TcpStream::connect(address).await else {
        return String::new();
    };
    let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n");
    let _ = stream.write_all(request.as_bytes()).await;
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_pages_are_served_to_this_machine_and_written_after_each_step() {
    let world = World::start("pages", Duration::from_millis(500)).await;
    let address = {
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        free.local_addr().unwrap().to_string()
    };
    let folder = world.root().join("site");
    let mut validator = world.running(
        "a",
        &[
            "--dashboard",
            &address,
            "--page-dir",
            folder.to_str().unwrap(),
        ],
    );
    world
        .until("a", "pages of a step of each competition", || {
            folder.join("competition-1.html").exists() && folder.join("step-1.html").exists()
        })
        .await;
    let page = ask(&address, "/", "localhost").await;
    for part in [
        "HTTP/1.1 200 OK",
        "content-security-policy: default-src 'none'",
        "Competition l3",
        "live.js",
    ] {
        assert!(page.contains(part), "{part} is not in\n{page}");
    }
    for path in [
        "/index.json",
        "/uid-6.html",
        "/step-0.html",
        "/weights.html",
        "/queue.html",
        "/health.html",
        "/style.css",
    ] {
        let page = ask(&address, path, &address).await;
        assert!(page.starts_with("HTTP/1.1 200 OK"), "{path}: {page}");
    }
    assert!(
        ask(&address, "/step-999.html", "localhost")
            .await
            .starts_with("HTTP/1.1 404")
    );
    assert!(
        ask(&address, "/../status.json", "localhost")
            .await
            .starts_with("HTTP/1.1 404")
    );
    // A page of a stranger, whose name leads to this machine, reads nothing.
    assert!(
        ask(&address, "/", "evil.example")
            .await
            .starts_with("HTTP/1.1 421")
    );
    let mut events = TcpStream::connect(&address).await.unwrap();
    let request = b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n";
    events.write_all(request).await.unwrap();
    let mut heard = String::new();
    timeout(LIMIT, async {
        let mut buffer = [0; 1024];
        while !heard.contains("data: changed") {
            let read = events.read(&mut buffer).await.unwrap();
            heard.push_str(&String::from_utf8_lossy(&buffer[..read]));
        }
    })
    .await
    .unwrap();
    assert!(heard.contains("text/event-stream"), "{heard}");
    let files = std::fs::read_to_string(folder.join("index.html")).unwrap();
    assert!(
        files.contains("Competition s1") && !files.contains("<script"),
        "{files}"
    );
    for place in [&format!("http://{address}/"), folder.to_str().unwrap()] {
        look(place);
    }
    assert_eq!(stop(&mut validator).await, 0);
}

/// Lets a browser click through the pages, where there is one.
fn look(place: &str) {
    let both = "command -v chromium && command -v python3";
    if !limit::output(blocking_command("sh").args(["-c", both]))
        .status
        .success()
    {
        return skip("there is no chromium, or no python3");
    }
    let mut check = blocking_command("python3");
    check.arg(workspace().join("scripts/page-check"));
    let checked = limit::output(check.args(["--each", "2", place]));
    let said = String::from_utf8_lossy(&checked.stdout);
    let trouble = String::from_utf8_lossy(&checked.stderr);
    assert!(checked.status.success(), "{place}:\n{said}{trouble}");
    assert!(said.ends_with(" 0 with something wrong\n"), "{said}");
}

/// Nothing that the screen shows.
const AFTER: &str = "<after the screen>";

/// What the live screen has room for even on the smallest terminal that people have.
const ON_SCREEN: [&str; 12] = [
    "● green",
    "cpu: ",
    "iB of ",
    "of the time",
    "set at block",
    "records usable",
    "models take",
    "supervisor",
    "not running",
    " l3 step ",
    " s1 step ",
    "q ends",
];

#[tokio::test(flavor = "multi_thread")]
async fn the_live_screen_shows_all_and_leaves_the_terminal_as_it_was() {
    let world = World::start("screen", Duration::from_millis(500)).await;
    // Of a supervisor that is gone.
    let home = world.root().join("supervisor");
    let flags = ["--supervisor-home", home.to_str().unwrap()];
    let mut validator = world.running("a", &flags);
    world
        .until("a", "steps, weights and green health in the status", || {
            world.status("a").is_some_and(|status| {
                let details = &status.details;
                details.last_steps.len() == 2
                    && details.receipt.is_some()
                    && details.disk.is_some()
                    && status.health == Health::Green
            })
        })
        .await;
    let (rows, columns) = (24, 80);
    let size = Winsize {
        ws_row: rows,
        ws_col: columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    let pty = openpty(&size, None).unwrap();
    let before = tcgetattr(pty.slave.as_fd()).unwrap();
    let mut command = world.command("a");
    let end = || Stdio::from(pty.slave.try_clone().unwrap());
    command
        .args(["status", "--watch"])
        .stdin(end())
        .stdout(end())
        .stderr(end());
    let mut screen = command.spawn().unwrap();
    let end = || pty.master.try_clone().unwrap();
    let (reader, writer) = (end(), end());
    let shown = Arc::new(Mutex::new(String::new()));
    let to_show = Arc::clone(&shown);
    let seen = std::thread::spawn(move || {
        let (mut reader, mut writer) = (File::from(reader), File::from(writer));
        let mut terminal = vt100::Parser::new(rows, columns, 0);
        let (mut seen, mut buffer, mut pressed) = (String::new(), [0; 4096], false);
        while !seen.contains(AFTER) {
            let read = reader.read(&mut buffer).unwrap();
            seen.push_str(&String::from_utf8_lossy(&buffer[..read]));
            terminal.process(&buffer[..read]);
            if pressed {
                continue;
            }
            let contents = terminal.screen().contents();
            if ON_SCREEN.iter().all(|part| contents.contains(part)) {
                pressed = true;
                writer.write_all(b"q").unwrap();
            }
            *to_show.lock().unwrap() = contents;
        }
        seen
    });
    let Ok(status) = timeout(LIMIT, screen.wait()).await else {
        panic!("the screen lacks something:\n{}", shown.lock().unwrap());
    };
    let mut terminal = File::from(pty.slave.try_clone().unwrap());
    terminal.write_all(AFTER.as_bytes()).unwrap();
    let seen = seen.join().unwrap();
    assert!(status.unwrap().success(), "{seen}");
    assert!(
        seen.contains("\u{1b}[?1049h") && seen.contains("\u{1b}[?1049l"),
        "{seen:?}"
    );
    assert!(
        seen.contains("\u{1b}[?25h"),
        "the cursor is shown again: {seen:?}"
    );
    let after = tcgetattr(pty.slave.as_fd()).unwrap();
    let echo = |flags: LocalFlags| flags & (LocalFlags::ECHO | LocalFlags::ICANON);
    assert_eq!(echo(after.local_flags), echo(before.local_flags));
    // The same, once, and without a terminal there is nothing to draw on.
    let (code, text) = world.run("a", &["status"]).await;
    assert_eq!(code, 0, "{text}");
    assert!(text.contains("cpu: ") && text.contains("iB of "), "{text}");
    let (code, text) = world.run("a", &["status", "--watch"]).await;
    assert_eq!(code, 2, "{text}");
    assert_eq!(stop(&mut validator).await, 0);
}
