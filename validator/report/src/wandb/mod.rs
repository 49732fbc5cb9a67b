//! Weights & Biases: rows of the steps, streamed in the background and always kept on disk.
//!
//! A row is appended to two files of the run's folder before anything is sent: the `.wandb` file
//! that `wandb sync` reads, and a journal of lines that the stream reads from. An outage of any
//! length loses nothing and costs no memory; the step loop never waits.

mod folders;
pub mod offline;
pub mod row;
pub mod step_row;
mod stream;

use std::{
    fs::{File, OpenOptions},
    io::{self, Write},
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use shared::{
    clock,
    task::{Ended, TaskSet},
};
use tokio::sync::watch;
use url::Url;

pub use self::folders::{Unsent, unsent_runs};
use self::{
    offline::{OfflineLog, RunHeader},
    row::{Row, object},
};

/// The longest line W&B takes.
const MAX_LINE_BYTES: usize = 10 * 1024 * 1024 - 100 * 1024;
/// A run larger than this is rotated even if its steps are few.
const MAX_RUN_BYTES: u64 = 256 << 20;

/// What runs that could not be sent may take on disk; then the oldest go.
pub const MAX_UNSENT_BYTES: u64 = 8 << 30;

/// Signs the id of a run with the hotkey; returns the signature.
pub type Sign = Arc<dyn Fn(&[u8]) -> Vec<u8> + Send + Sync>;

/// Where the rows of steps go, and how runs are named.
#[derive(Clone)]
pub struct LoggerSettings {
    /// Base address of the API.
    pub base_url: Url,
    /// API key; without one, rows are kept on disk only.
    pub key: Option<String>,
    /// Who owns the project; the key's default if none.
    pub entity: Option<String>,
    /// Name of the project at W&B.
    pub project: String,
    /// Folder in which `wandb/run-..` folders are made.
    pub folder: PathBuf,
    /// A new run is begun after this many steps.
    pub max_steps_per_run: Option<u64>,
    /// Beginning of the runs' names, such as `validator-7`.
    pub name: String,
    /// Configuration of the runs, each value as JSON.
    pub config: Vec<(String, String)>,
    /// Signs the ids of runs, for those who check them.
    pub sign: Option<Sign>,
}

impl std::fmt::Debug for LoggerSettings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LoggerSettings")
            .field("base_url", &http_client::shown(&self.base_url))
            .field("entity", &self.entity)
            .field("project", &self.project)
            .field("folder", &self.folder)
            .finish_non_exhaustive()
    }
}

/// Writes the rows of steps. Nothing is created before the first row.
#[derive(Debug)]
pub struct Logger {
    settings: LoggerSettings,
    run: Option<OpenRun>,
    tasks: TaskSet,
}

/// A run that takes rows.
#[derive(Debug)]
struct OpenRun {
    id: String,
    folder: PathBuf,
    offline: OfflineLog,
    journal: File,
    summary: Row,
    steps: u64,
    bytes: u64,
    began: Instant,
    progress: watch::Sender<RunProgress>,
}

/// How far the writer is, for the stream.
#[derive(Debug, Clone, Default)]
struct RunProgress {
    lines: u64,
    summary: String,
    exit: Option<u8>,
}

impl Logger {
    /// Makes a logger; nothing is written yet.
    pub fn new(settings: LoggerSettings) -> Self {
        Self {
            settings,
            run: None,
            tasks: TaskSet::new(),
        }
    }

    /// Appends the row of a step. Returns once it is on disk; sending goes on in the background.
    pub fn log(&mut self, step: u64, mut row: Row) -> io::Result<()> {
        let full = self.run.as_ref().is_some_and(|run| {
            self.settings
                .max_steps_per_run
                .is_some_and(|max| run.steps >= max)
                || run.bytes > MAX_RUN_BYTES
        });
        if full {
            self.end_run(0)?;
        }
        if self.run.is_none() {
            self.run = Some(self.begin_run()?);
        }
        let Some(run) = &mut self.run else {
            return Ok(());
        };
        let now = clock::now();
        row.insert("_step".into(), (step as f64).into());
        row.insert(
            "_timestamp".into(),
            (now.as_millisecond() as f64 / 1e3).into(),
        );
        row.insert("_runtime".into(), run.began.elapsed().as_secs_f64().into());
        run.append(step, row)
    }

    /// Removes the folders of runs that arrived long ago, and the oldest of those that did not
    /// where they take more than [`MAX_UNSENT_BYTES`]; says what waits beside the run of now.
    pub fn tidy(&self) -> io::Result<Unsent> {
        let current = self.run.as_ref().map(|run| run.folder.as_path());
        folders::tidy(&self.settings.folder, current, MAX_UNSENT_BYTES)
    }

    fn begin_run(&mut self) -> io::Result<OpenRun> {
        let id: String = {
            use rand::Rng as _;
            const DIGITS: &[u8; 36] = b"0123456789abcdefghijklmnopqrstuvwxyz";
            let mut rng = rand::rng();
            (0..8)
                .map(|_| char::from(DIGITS[rng.random_range(0..36)]))
                .collect()
        };
        let now = clock::now();
        let online = self.settings.key.is_some();
        // Newer clients skip what is not called offline, and an outage or a crash may come.
        let folder = self.settings.folder.join("wandb").join(format!(
            "offline-run-{}-{id}",
            now.strftime("%Y%m%d_%H%M%S")
        ));
        std::fs::create_dir_all(folder.join("files"))?;
        let name = format!(
            "{}-{}",
            self.settings.name,
            now.strftime("%Y-%m-%d_%H-%M-%S")
        );
        let text = |value: &str| serde_json::Value::from(value).to_string();
        let mut config = self.settings.config.clone();
        config.push(("run_name".into(), text(&name)));
        if let Some(sign) = &self.settings.sign {
            config.push(("signature".into(), text(&hex::encode(sign(id.as_bytes())))));
        }
        let header = RunHeader {
            id: &id,
            entity: self.settings.entity.as_deref().unwrap_or_default(),
            project: &self.settings.project,
            name: &name,
            config: &config,
            started_at: u64::try_from(now.as_second()).unwrap_or(0),
        };
        let offline = OfflineLog::create(&folder.join(format!("run-{id}.wandb")), &header)?;
        let journal_path = folder.join(folders::JOURNAL);
        let journal = OpenOptions::new()
            .append(true)
            .create(true)
            .open(&journal_path)?;
        let (progress, reader) = watch::channel(RunProgress::default());
        if online {
            let stream = stream::Stream {
                settings: self.settings.clone(),
                id: id.clone(),
                name,
                config,
                folder: folder.clone(),
                journal: journal_path,
                progress: reader,
            };
            self.tasks.spawn("wandb", stream.run());
        } else {
            tracing::info!(folder = %folder.display(), "W&B has no key, rows are kept for `wandb sync`");
        }
        Ok(OpenRun {
            id,
            folder,
            offline,
            journal,
            summary: Row::new(),
            steps: 0,
            bytes: 0,
            began: Instant::now(),
            progress,
        })
    }

    fn end_run(&mut self, exit: u8) -> io::Result<()> {
        let Some(mut run) = self.run.take() else {
            return Ok(());
        };
        run.offline.exit(exit, run.began.elapsed().as_secs())?;
        run.journal.sync_all()?;
        // The stream may have given up; what it would have sent is on disk.
        run.progress
            .send_modify(|progress| progress.exit = Some(exit));
        tracing::debug!(run = %run.id, "W&B run ended");
        Ok(())
    }

    /// Ends the run and waits for what is still to be sent, at most until the deadline.
    pub async fn finish(mut self, exit: u8, deadline: Duration) {
        if let Err(error) = self.end_run(exit) {
            tracing::warn!(%error, "could not end the W&B run on disk");
        }
        let drain = async {
            while let Some((_, ended)) = self.tasks.next().await {
                if let Ended::Panicked(message) = ended {
                    tracing::error!(message, "bug in the W&B stream");
                }
            }
        };
        if tokio::time::timeout(deadline, drain).await.is_err() {
            let folder = self.settings.folder.join("wandb");
            tracing::warn!(
                folder = %folder.display(),
                "W&B did not take the last rows in time; `wandb sync` sends them"
            );
        }
    }
}

impl OpenRun {
    fn append(&mut self, step: u64, row: Row) -> io::Result<()> {
        let mut line = object(&row);
        if line.len() > MAX_LINE_BYTES {
            tracing::warn!(
                step,
                bytes = line.len(),
                "row is too long for W&B, left out"
            );
            return Ok(());
        }
        line.push('\n');
        self.summary.extend(row.clone());
        self.offline.history(step, &row, &self.summary)?;
        self.journal.write_all(line.as_bytes())?;
        self.steps += 1;
        self.bytes += line.len() as u64;
        let summary = object(&self.summary);
        self.progress.send_modify(|progress| {
            progress.lines += 1;
            progress.summary = summary;
        });
        Ok(())
    }
}
