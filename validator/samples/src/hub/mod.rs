//! Samples from a dataset on the hub: parquet or JSONL files, of which only a part is read.

pub mod parquet_rows;
mod viewer;

use std::{sync::Arc, time::Duration};

use ::hub::{Hub, HubFile, HubOptions, Listing, RepositoryKind, RepositoryName, Token};
use bytes::Bytes;
use http_client::{HttpClient, HttpError};
use rand::{Rng, SeedableRng, seq::SliceRandom};
use rand_chacha::ChaCha8Rng;
use url::Url;

use super::harvest::Harvest;
use subnet::Fault;

/// What one draw may read of a dataset.
const MAX_BYTES: u64 = 44 << 20;
/// What is read of a JSONL file at once, and how often at most.
const WINDOW: u64 = 512 << 10;
const MAX_WINDOWS: u64 = 64;
/// More files than this are not considered.
const MAX_FILES: usize = 10_000;
/// Usable records are fewer than those read: some are refusals, some duplicates.
const SPARE: usize = 2;
/// The branch that is read if none is named.
const BRANCH: &str = "main";
const DEADLINE: Duration = Duration::from_secs(60);

/// How the hub is reached.
#[derive(Debug, Clone)]
pub struct HubAccess {
    /// Base address of the hub.
    pub endpoint: Url,
    /// Base address of the dataset viewer, if this hub has one.
    pub viewer: Option<Url>,
    /// Token for private and gated datasets.
    pub token: Option<String>,
}

impl Default for HubAccess {
    fn default() -> Self {
        let url = |text: &str| Url::parse(text).expect("a constant");
        Self {
            endpoint: url("https://huggingface.co"),
            viewer: Some(url("https://datasets-server.huggingface.co")),
            token: None,
        }
    }
}

/// Which part of which dataset.
#[derive(Debug, Clone)]
pub struct Dataset {
    /// `namespace/name`.
    pub name: String,
    /// Commit, branch or tag; `main` if none.
    pub revision: Option<String>,
    /// Folder its files must lie under.
    pub config: Option<String>,
    /// Split that must stand in the file name.
    pub split: Option<String>,
}

/// A file of the dataset.
#[derive(Debug)]
struct DataFile {
    path: String,
    remote: HubFile,
}

/// Reads about `wanted` records from places that `seed` picks; the viewer is asked where the
/// dataset has no file we can read, or the hub does not answer.
pub async fn fetch(
    client: &HttpClient,
    access: &HubAccess,
    dataset: &Dataset,
    wanted: usize,
    seed: u64,
) -> Result<Harvest, Fault> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let wanted = wanted.saturating_mul(SPARE);
    let mut note =
        match from_files(access, dataset, wanted, &mut rng).await {
            Ok(harvest) if !harvest.records.is_empty() => return Ok(harvest),
            Ok(harvest) => harvest.notes.into_iter().next().unwrap_or_else(|| {
                format!("{} has no parquet or JSONL file that fits", dataset.name)
            }),
            Err(fault) => fault.to_string(),
        };
    let Some(viewer) = &access.viewer else {
        return Err(Fault::outside(note));
    };
    match viewer::fetch(client, viewer, access, dataset, wanted, &mut rng).await {
        Ok(mut harvest) => {
            harvest.note(note);
            Ok(harvest)
        }
        Err(error) => {
            note.push_str("; the dataset viewer: ");
            note.push_str(&error.to_string());
            Err(Fault::outside(note))
        }
    }
}

async fn from_files(
    access: &HubAccess,
    dataset: &Dataset,
    wanted: usize,
    rng: &mut ChaCha8Rng,
) -> Result<Harvest, Fault> {
    let mut reader = DatasetReader::open(access, dataset).await?;
    let mut files = reader.files();
    files.shuffle(rng);

    let mut harvest = Harvest::default();
    for file in files {
        if harvest.records.len() >= wanted || reader.left == 0 {
            break;
        }
        let missing = wanted - harvest.records.len();
        let result = if is_parquet(&file.path) {
            let handle = tokio::runtime::Handle::current();
            let job = parquet_rows::TableJob {
                file: Arc::new(file),
                wanted: missing,
                seed: rng.random(),
            };
            let mut so_far = std::mem::take(&mut harvest);
            let (back, result) = tokio::task::spawn_blocking(move || {
                let outcome = parquet_rows::read(&job, reader, handle, &mut so_far);
                (outcome, so_far)
            })
            .await
            .map(|((reader_back, result), so_far)| {
                harvest = so_far;
                (reader_back, result)
            })
            .map_err(|error| Fault::machine(format!("reading parquet: {error}")))?;
            reader = back;
            result
        } else {
            jsonl_windows(&file, missing, &mut reader, rng, &mut harvest).await
        };
        if let Err(error) = result {
            harvest.note(error);
        }
    }
    Ok(harvest)
}

/// Says what the hub objects to. To those without the right it shows no private dataset.
fn refused(dataset: &Dataset, error: &HttpError) -> Fault {
    let name = &dataset.name;
    Fault::outside(if error.is_unavailable() {
        format!(
            "the hub shows no dataset {name}; a private or gated one needs HF_TOKEN or --hub-token"
        )
    } else {
        format!("{name}: {error}")
    })
}

fn fits(path: &str, dataset: &Dataset) -> bool {
    let (folder, name) = path.rsplit_once('/').unwrap_or(("", path));
    let kind = is_parquet(path) || is_jsonl(path);
    let config = dataset.config.as_ref().is_none_or(|config| {
        folder.split('/').any(|part| part == config) || folder == config || name.starts_with(config)
    });
    let split = dataset
        .split
        .as_ref()
        .is_none_or(|split| name.starts_with(split) || folder.split('/').any(|part| part == split));
    kind && config && split
}

fn has_extension(path: &str, extension: &str) -> bool {
    path.rsplit_once('.')
        .is_some_and(|(_, found)| found.eq_ignore_ascii_case(extension))
}

fn is_parquet(path: &str) -> bool {
    has_extension(path, "parquet")
}

fn is_jsonl(path: &str) -> bool {
    has_extension(path, "jsonl") || has_extension(path, "ndjson")
}

/// Ranged reads of a dataset's files, within a budget.
struct DatasetReader {
    hub: Hub,
    dataset: Dataset,
    repository: RepositoryName,
    listing: Listing,
    /// Bytes that may still be read.
    left: u64,
}

impl DatasetReader {
    async fn open(access: &HubAccess, dataset: &Dataset) -> Result<Self, Fault> {
        let options = HubOptions {
            token: access.token.as_deref().and_then(Token::new),
            ..HubOptions::new(access.endpoint.clone())
        };
        let hub = Hub::new(options).map_err(Fault::config)?;
        let repository: RepositoryName = dataset.name.parse().map_err(Fault::config)?;
        let revision = dataset.revision.as_deref().unwrap_or(BRANCH);
        let listing = hub.listing(RepositoryKind::Dataset, &repository, revision);
        let listing = listing.await.map_err(|error| refused(dataset, &error))?;
        Ok(Self {
            hub,
            dataset: dataset.clone(),
            repository,
            listing,
            left: MAX_BYTES,
        })
    }

    /// Returns the files of the wanted configuration and split in order of their paths, so that
    /// the seed alone decides which are read.
    fn files(&self) -> Vec<DataFile> {
        let files = self.listing.files.iter();
        files
            .filter(|(path, _)| fits(path, &self.dataset))
            .filter_map(|(path, listed)| {
                let size = listed.size.filter(|size| *size > 0)?;
                let (kind, commit) = (RepositoryKind::Dataset, &self.listing.commit);
                let known = (size, listed.sha256);
                let remote = self.hub.file(kind, &self.repository, commit, path, known);
                let path = path.clone();
                Some(DataFile { path, remote })
            })
            .take(MAX_FILES)
            .collect()
    }

    async fn read(&mut self, file: &DataFile, start: u64, length: u64) -> Result<Bytes, String> {
        let path = &file.path;
        if length > self.left {
            self.left = 0;
            return Err(format!("{path}: stopped after {} MiB", MAX_BYTES >> 20));
        }
        self.left -= length;
        let _connection = self.hub.http().connection().await;
        // Where a server serves no ranges, nobody reads a large file up to its end.
        let range = self.hub.part(&file.remote, start..start + length);
        let pieces = tokio::time::timeout(DEADLINE, range)
            .await
            .map_err(|_| format!("{path}: no answer within {} s", DEADLINE.as_secs()))?
            .map_err(|error| format!("{path}: {error}"))?;
        Ok(pieces.concat().into())
    }

    fn origin(&self, path: &str) -> String {
        let revision = self.dataset.revision.as_deref().unwrap_or(BRANCH);
        format!("hf:{}@{revision}/{path}", self.dataset.name)
    }
}

/// Reads windows at places that the seed picks, until about `wanted` records are had.
async fn jsonl_windows(
    file: &DataFile,
    wanted: usize,
    reader: &mut DatasetReader,
    rng: &mut ChaCha8Rng,
    harvest: &mut Harvest,
) -> Result<(), String> {
    let enough = harvest.records.len() + wanted;
    for _ in 0..file.remote.size().div_ceil(WINDOW).min(MAX_WINDOWS) {
        if harvest.records.len() >= enough || reader.left == 0 {
            break;
        }
        jsonl_window(file, reader, rng, harvest).await?;
    }
    Ok(())
}

/// Reads the whole lines of one window.
async fn jsonl_window(
    file: &DataFile,
    reader: &mut DatasetReader,
    rng: &mut ChaCha8Rng,
    harvest: &mut Harvest,
) -> Result<(), String> {
    let length = WINDOW.min(file.remote.size()).min(reader.left);
    let start = rng.random_range(0..=file.remote.size() - length);
    let bytes = reader.read(file, start, length).await?;
    let text = String::from_utf8_lossy(&bytes);
    let mut lines: Vec<&str> = text.split_inclusive('\n').collect();
    if start + length < file.remote.size() && !text.ends_with('\n') {
        lines.pop();
    }
    let origin = reader.origin(&file.path);
    let mut offset = start;
    for (index, line) in lines.into_iter().enumerate() {
        // Only a window at the very start begins with a whole line for sure.
        if index > 0 || start == 0 {
            if let Ok(value) = super::lenient_json::parse(line) {
                harvest.read_value(&value, format!("{origin}#{offset}"));
            } else if !line.trim().is_empty() {
                harvest.dropped.add("malformed line");
                harvest.note(format_args!("{origin} byte {offset}: malformed line"));
            }
        }
        offset += line.len() as u64;
    }
    Ok(())
}
