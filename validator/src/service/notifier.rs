//! The notifier: calls people when something lasts, gets worse, or is over.
//!
//! What is told and when is decided by [`Notices`]; this sends it. Each target has a deadline and is tried alone, so
//! that a dead one keeps the others from nothing.

use std::{process::Stdio, time::Duration};

use http_client::{HttpClient, HttpOptions, HttpRequest};
use serde::Serialize;
use shared::{
    Failure, clock,
    notices::{Notice, Notices},
    notify_target::{Delivery, NotifyTarget},
    process,
    shutdown::Shutdown,
};
use tokio::{
    io::AsyncWriteExt as _,
    time::{sleep, timeout},
};
use url::Url;

use report::{board::Board, rules::Rule, status::Cause};
use subnet::{Hotkey, Netuid};

/// How often it looks.
const EVERY: Duration = Duration::from_secs(5);

/// How long one target may take.
const DEADLINE: Duration = Duration::from_secs(30);

/// Of an answer no more is read.
const MAX_ANSWER: u64 = 64 << 10;

/// A notice, and who sends it.
#[derive(Debug, Serialize)]
struct Notification<'a> {
    hotkey: Option<Hotkey>,
    netuid: Netuid,
    #[serde(flatten)]
    notice: &'a Notice<Cause>,
}

/// Tells one target.
async fn tell(
    target: &NotifyTarget,
    client: &HttpClient,
    message: &Notification<'_>,
) -> Result<(), String> {
    let of = format!("validator of subnet {}", message.netuid);
    let sentence = message.notice.sentence(of);
    let json = serde_json::to_value(message).map_err(|error| error.to_string())?;
    match target.delivery(json, &sentence) {
        Delivery::Post { url, body } => post(client, url, &body).await,
        Delivery::Run { line, input } => run(line, &input).await,
    }
}

async fn post(client: &HttpClient, url: &Url, body: &impl Serialize) -> Result<(), String> {
    let request = HttpRequest::post(url.clone(), body, MAX_ANSWER, DEADLINE);
    let sent = request.send(client).await.map(drop);
    sent.map_err(|error| match error.status() {
        Some(status) => format!("it answered {status}"),
        None => "it did not answer".to_owned(),
    })
}

async fn run(line: &str, input: &str) -> Result<(), String> {
    let mut child = process::command("sh")
        .args(["-c", line])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|error| error.to_string())?;
    let stdin = child.stdin.take();
    let told = async {
        if let Some(mut stdin) = stdin {
            // A command that does not read its input is not an error.
            let _ = stdin.write_all(input.as_bytes()).await;
        }
        child.wait().await
    };
    match timeout(DEADLINE, told).await {
        Ok(Ok(status)) if status.success() => Ok(()),
        Ok(Ok(status)) => Err(format!("it failed ({status})")),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => {
            let _ = process::stop(&mut child, Duration::from_secs(1)).await;
            Err("it took too long".to_owned())
        }
    }
}

/// Calls people.
#[derive(Debug)]
pub(super) struct Notifier {
    board: Board,
    targets: Vec<NotifyTarget>,
    client: HttpClient,
    shutdown: Shutdown,
    notices: Notices<Cause>,
}

impl Notifier {
    pub(super) fn new(
        board: Board,
        targets: Vec<NotifyTarget>,
        shutdown: Shutdown,
    ) -> Result<Self, Failure> {
        let client = HttpClient::new(HttpOptions::default())
            .map_err(|error| Failure::of(shared::Exit::Machine, &error))?;
        Ok(Self {
            board,
            targets,
            client,
            shutdown,
            notices: Notices::default(),
        })
    }

    pub(super) async fn run(mut self) -> Result<(), Failure> {
        loop {
            tokio::select! {
                () = self.shutdown.requested() => return Ok(()),
                () = sleep(EVERY) => {}
            }
            tokio::select! {
                () = self.shutdown.requested() => return Ok(()),
                () = Self::tell(&self.board, &self.targets, &self.client, &mut self.notices) => {}
            }
        }
    }

    async fn tell(
        board: &Board,
        targets: &[NotifyTarget],
        client: &HttpClient,
        notices: &mut Notices<Cause>,
    ) {
        let details = board.details();
        for notice in notices.due(&details.alarms, Rule::call, clock::now()) {
            let message = Notification {
                hotkey: details.hotkey,
                netuid: details.netuid,
                notice: &notice,
            };
            for target in targets {
                if let Err(why) = tell(target, client, &message).await {
                    tracing::warn!(target = target.name(), why, "could not notify");
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use report::status::Details;
    use shared::status::Health;
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::TcpListener,
    };

    use super::*;

    /// Takes requests and keeps their bodies.
    async fn receiver(bodies: Arc<Mutex<Vec<String>>>, listener: TcpListener) {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = String::new();
            let mut buffer = [0; 4096];
            loop {
                let read = stream.read(&mut buffer).await.unwrap();
                request.push_str(&String::from_utf8_lossy(&buffer[..read]));
                let Some((head, body)) = request.split_once("\r\n\r\n") else {
                    continue;
                };
                let length = head.lines().find_map(|line| {
                    line.to_lowercase()
                        .strip_prefix("content-length: ")
                        .map(|n| n.parse::<usize>().unwrap())
                });
                if body.len() >= length.unwrap_or(0) {
                    bodies.lock().unwrap().push(body.to_owned());
                    break;
                }
            }
            let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
            stream.write_all(answer).await.unwrap();
        }
    }

    #[tokio::test]
    async fn every_target_is_told_and_a_dead_one_hinders_none() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("told.json");
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let bodies = Arc::new(Mutex::new(Vec::new()));
        let server = receiver(Arc::clone(&bodies), listener);
        let (board, alarms) = Board::new(Details::default());
        alarms.twin.raise(Health::Red, "<!channel> from 5F..");
        let targets: Vec<NotifyTarget> = [
            "exit 3".to_owned(),
            format!("cat > {}", file.display()),
            format!("slack:http://{address}/secret"),
            format!("http://{address}/hook"),
        ]
        .iter()
        .map(|text| text.parse().unwrap())
        .collect();
        let client = HttpClient::new(HttpOptions::default()).unwrap();
        let mut notices = Notices::default();
        tokio::select! {
            () = server => {}
            () = async {
                Notifier::tell(&board, &targets, &client, &mut notices).await;
                Notifier::tell(&board, &targets, &client, &mut notices).await;
            } => {}
        }
        let bodies = bodies.lock().unwrap().clone();
        assert_eq!(bodies.len(), 2, "told once: {bodies:?}");
        let slack: serde_json::Value = serde_json::from_str(&bodies[0]).unwrap();
        let text = slack["text"].as_str().unwrap();
        assert!(
            text.contains("RED, twin: &lt;!channel&gt; from 5F.."),
            "{text}"
        );
        assert!(
            text.contains("What to do: stop the other validator"),
            "{text}"
        );
        let posted: serde_json::Value = serde_json::from_str(&bodies[1]).unwrap();
        assert_eq!(
            (&posted["cause"], &posted["health"]),
            (&"twin".into(), &"red".into())
        );
        let piped = std::fs::read_to_string(&file).unwrap();
        assert_eq!(
            serde_json::from_str::<serde_json::Value>(&piped).unwrap(),
            posted
        );
        assert_eq!(Cause::Twin.to_string(), "twin");
    }
}
