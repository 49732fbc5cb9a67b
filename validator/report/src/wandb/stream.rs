//! The stream of one run to W&B: create it, send the journal line by line, say that we live.

use std::{
    fs::File,
    io::{BufRead, BufReader},
    path::PathBuf,
    time::{Duration, Instant},
};

use serde::Serialize;
use serde_json::{Value, json};
use shared::{
    Failure,
    file::{self, FileError},
};
use tokio::sync::watch;
use url::Url;

use super::{LoggerSettings, RunProgress, folders};
use http_client::{Credentials, HttpClient, HttpError, HttpOptions, HttpRequest};
use subnet::Fault;

/// Requests are at least this far apart.
const PAUSE: Duration = Duration::from_secs(10);
/// W&B takes a silent run for crashed; say that we live this often.
const HEARTBEAT: Duration = Duration::from_secs(30);
/// What is in memory of the rows to be sent: so much, or one longer row.
const MAX_BATCH_BYTES: usize = 2 << 20;
const MAX_ANSWER_BYTES: u64 = 1 << 20;
const DEADLINE: Duration = Duration::from_secs(180);
const FIRST_WAIT: Duration = Duration::from_secs(2);
const MAX_WAIT: Duration = Duration::from_secs(60);

const UPSERT: &str = "mutation UpsertBucket($name: String, $project: String, $entity: String, \
    $displayName: String, $config: JSONString, $program: String, $host: String) { \
    upsertBucket(input: {name: $name, modelName: $project, entityName: $entity, \
    displayName: $displayName, config: $config, jobProgram: $program, host: $host}) { \
    bucket { id name displayName project { id name entity { id name } } } inserted } }";

/// What the stream of a run needs.
#[derive(Debug)]
pub(super) struct Stream {
    pub(super) settings: LoggerSettings,
    pub(super) id: String,
    pub(super) name: String,
    pub(super) config: Vec<(String, String)>,
    pub(super) folder: PathBuf,
    pub(super) journal: PathBuf,
    pub(super) progress: watch::Receiver<RunProgress>,
}

/// Lines for the run's files, from a line number on.
#[derive(Serialize)]
struct Rows {
    files: Files,
}

#[derive(Serialize)]
struct Files {
    #[serde(rename = "wandb-history.jsonl")]
    history: Lines,
    #[serde(rename = "wandb-summary.json")]
    summary: Lines,
}

#[derive(Serialize)]
struct Lines {
    offset: u64,
    content: Vec<String>,
}

/// Where the run's rows go, as the server named it.
#[derive(Debug)]
struct Target {
    url: Url,
    api: WandbApi,
}

#[derive(Debug)]
struct WandbApi {
    client: HttpClient,
    credentials: Option<Credentials>,
}

/// Why the stream ends before the run does.
enum GivenUp {
    /// Nothing can be sent from here.
    Setup(Fault),
    /// W&B will not take this run.
    Refused(HttpError),
    /// Somebody pressed Stop on the page.
    Stopped,
    /// The journal could not be read.
    Journal(std::io::Error),
}

impl Stream {
    /// Sends until the run has ended and all of it has arrived.
    pub(super) async fn run(mut self) -> Result<(), Failure> {
        let folder = self.folder.display().to_string();
        match self.stream().await {
            Ok(()) => {
                let marker = self.folder.join(format!("run-{}.wandb.synced", self.id));
                // The `.wandb` file has the rows too; the journal was for the stream.
                let done = file::write_atomic(&marker, folders::SENT).and_then(|()| {
                    std::fs::remove_file(&self.journal)
                        .map_err(FileError::on("remove", &self.journal))
                });
                if let Err(error) = done {
                    tracing::debug!(%error, "could not tidy the folder of a W&B run");
                }
            }
            Err(GivenUp::Setup(fault)) => {
                tracing::warn!(%fault, folder, "W&B can't be asked; rows are kept on disk");
            }
            Err(GivenUp::Refused(error)) => {
                tracing::warn!(%error, folder, "W&B refuses the run; rows are kept on disk");
            }
            Err(GivenUp::Stopped) => {
                tracing::info!(
                    folder,
                    "W&B run was stopped on its page; rows are kept on disk"
                );
            }
            Err(GivenUp::Journal(error)) => {
                tracing::warn!(%error, folder, "could not read back the rows of the W&B run");
            }
        }
        Ok(())
    }

    async fn stream(&mut self) -> Result<(), GivenUp> {
        let target = self.create().await?;
        let mut journal = BufReader::new(File::open(&self.journal).map_err(GivenUp::Journal)?);
        let mut sent = 0;
        loop {
            let progress = self.progress.borrow_and_update().clone();
            if sent < progress.lines {
                let lines = batch(&mut journal, progress.lines - sent).map_err(GivenUp::Journal)?;
                let count = lines.len() as u64;
                let rows = Rows {
                    files: Files {
                        history: Lines {
                            offset: sent,
                            content: lines,
                        },
                        summary: Lines {
                            offset: 0,
                            content: vec![progress.summary],
                        },
                    },
                };
                // The same lines at the same offset may be sent twice without harm.
                self.post(&target, rows).await?;
                sent += count;
            } else if let Some(exit) = progress.exit {
                let body = json!({"complete": true, "exitcode": exit});
                return self.post(&target, body).await;
            } else if tokio::time::timeout(HEARTBEAT, self.progress.changed())
                .await
                .is_err()
            {
                self.post(&target, json!({})).await?;
            }
            if self.progress.borrow().exit.is_none() && sent > 0 {
                // Several steps close together travel in one request.
                let ended = self.progress.wait_for(|progress| progress.exit.is_some());
                let _ = tokio::time::timeout(PAUSE, ended).await;
            }
        }
    }

    /// Creates the run; the server may have its own spelling of entity, project and id.
    async fn create(&mut self) -> Result<Target, GivenUp> {
        let api = WandbApi::new(self.settings.key.as_deref()).map_err(GivenUp::Setup)?;
        let mut config = serde_json::Map::new();
        for (key, value) in &self.config {
            let value: Value = serde_json::from_str(value).unwrap_or(Value::Null);
            config.insert(key.clone(), json!({"value": value}));
        }
        let ours = concat!("finetune-vali/", env!("CARGO_PKG_VERSION"));
        config.insert(
            "_wandb".into(),
            json!({"value": {"cli_version": ours, "t": {}, "m": []}}),
        );
        let variables = json!({
            "name": self.id,
            "project": self.settings.project,
            "entity": self.settings.entity,
            "displayName": self.name,
            "config": Value::Object(config).to_string(),
            "program": "validator",
            "host": null,
        });
        let body =
            json!({"operationName": "UpsertBucket", "query": UPSERT, "variables": variables});
        let url = self.url(&["graphql"]);
        let answer = self.persist(&api, &url, body).await?;
        if let Some(message) = answer.pointer("/errors/0/message").and_then(Value::as_str) {
            let url = http_client::shown(&url);
            return Err(GivenUp::Refused(HttpError::Malformed {
                url,
                expected: "a run",
                reason: message.to_owned(),
            }));
        }
        let named = |path: &str, ours: &str| {
            answer
                .pointer(path)
                .and_then(Value::as_str)
                .unwrap_or(ours)
                .to_owned()
        };
        let bucket = "/data/upsertBucket/bucket";
        let entity = self.settings.entity.as_deref().unwrap_or_default();
        let entity = named(&format!("{bucket}/project/entity/name"), entity);
        let project = named(&format!("{bucket}/project/name"), &self.settings.project);
        let id = named(&format!("{bucket}/name"), &self.id);
        tracing::info!(run = %id, %entity, %project, "W&B run created");
        let url = self.url(&["files", &entity, &project, &id, "file_stream"]);
        Ok(Target { url, api })
    }

    async fn post(&self, target: &Target, body: impl Serialize) -> Result<(), GivenUp> {
        let answer = self.persist(&target.api, &target.url, body).await?;
        match answer.get("stopped").and_then(Value::as_bool) {
            Some(true) => Err(GivenUp::Stopped),
            _ => Ok(()),
        }
    }

    /// Sends until it is taken; gives up only where trying again can't help.
    async fn persist(
        &self,
        api: &WandbApi,
        url: &Url,
        body: impl Serialize,
    ) -> Result<Value, GivenUp> {
        let request = HttpRequest::post(url.clone(), &body, MAX_ANSWER_BYTES, DEADLINE)
            .credentials(api.credentials.clone());
        // The request has its own copy; it may be here for long.
        drop(body);
        let mut away: Option<Instant> = None;
        let mut wait = FIRST_WAIT;
        loop {
            match request.send(&api.client).await {
                // An empty or odd body of a success is tolerated.
                Ok(body) => {
                    if let Some(since) = away {
                        let seconds = since.elapsed().as_secs();
                        tracing::info!(run = %self.id, seconds, "W&B is back, its rows are sent");
                    }
                    return Ok(serde_json::from_slice(&body).unwrap_or(Value::Null));
                }
                Err(error) if is_final(&error) => return Err(GivenUp::Refused(error)),
                Err(error) => {
                    if away.is_none() {
                        away = Some(Instant::now());
                        tracing::warn!(run = %self.id, %error, "W&B is away, rows wait on disk");
                    }
                    tokio::time::sleep(error.retry_after().unwrap_or_default().max(wait)).await;
                    wait = (wait * 2).min(MAX_WAIT);
                }
            }
        }
    }

    fn url(&self, segments: &[&str]) -> Url {
        let mut url = self.settings.base_url.clone();
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty().extend(segments);
        }
        url
    }
}

impl WandbApi {
    fn new(key: Option<&str>) -> Result<Self, Fault> {
        let credentials = key.map(|key| Credentials::basic("api", key)).transpose()?;
        let client = HttpClient::new(HttpOptions::default())?;
        Ok(Self {
            client,
            credentials,
        })
    }
}

fn is_final(error: &HttpError) -> bool {
    error
        .status()
        .is_some_and(|status| matches!(status.as_u16(), 400..=404 | 409 | 410 | 413 | 422 | 501))
}

/// Reads whole lines of the journal, at most `max` and about 4 MiB.
fn batch(journal: &mut impl BufRead, max: u64) -> std::io::Result<Vec<String>> {
    let mut lines = Vec::new();
    let mut bytes = 0;
    while (lines.len() as u64) < max && bytes < MAX_BATCH_BYTES {
        let mut line = String::new();
        if journal.read_line(&mut line)? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        line.truncate(line.trim_end_matches('\n').len());
        bytes += line.len();
        lines.push(line);
    }
    Ok(lines)
}
