//! `validator check --measure`: how fast this machine is, and what it reaches, within a minute.
//!
//! One part after the other, so that none slows another down. The matrix products are those of an evaluation: a
//! model of random weights goes the way of a miner's, walls and all.

mod capacity;
mod trial;

use std::time::Duration;

use futures::future::join_all;
use model::{
    Architecture, Dtype, PackingPlan, TokenizedSample,
    protocol::{Device, Evaluate, ModelSource},
};
use serde::Serialize;
use tokio::time::{Instant, timeout};

use self::{
    capacity::{Load, Rates},
    trial::Trial,
};
use super::{
    Settings, machine,
    outside::{self, AT_ONCE},
    text,
};
use chain::{ChainSnapshot, Client, Endpoints};
use eval::{Evaluator, TimeLimits};
use hub::{Hub, HubFile, RepositoryKind, RepositoryName};

pub use self::capacity::{Capacity, Grade};

/// Longer than this a part is not waited for.
const PART_LIMIT: Duration = Duration::from_secs(10);

/// So long the hub is read from.
const DOWNLOAD: Duration = Duration::from_secs(5);

/// Ranges of a file that are fetched at once.
const RANGES: u64 = 4;

/// Repositories of the subnet that are looked at for a large file.
const REPOSITORIES: usize = 5;

/// How often an endpoint is asked.
const ASKED: usize = 5;

const SAMPLE_TOKENS: usize = 512;

/// So long a device is to compute.
const COMPUTE_SECONDS: f64 = 4.0;

/// More samples than this need not be computed.
const MOST_SAMPLES: f64 = 256.0;

/// One number of the machine, or why there is none.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Measured {
    pub what: String,
    pub value: Option<f64>,
    pub unit: &'static str,
    pub grade: Grade,
    pub detail: String,
}

/// Everything that was measured, and what it buys.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Measurements {
    pub measured: Vec<Measured>,
    pub capacity: Vec<Capacity>,
}

impl Measured {
    fn new(
        what: impl ToString,
        found: Result<f64, String>,
        unit: &'static str,
        least: [f64; 3],
    ) -> Self {
        let grade = |value| Grade::at_least(value, least);
        Self {
            what: what.to_string(),
            value: found.as_ref().ok().copied(),
            unit,
            grade: found.as_ref().map_or(Grade::D, |value| grade(*value)),
            detail: found.err().unwrap_or_default(),
        }
    }
}

/// Measures everything, part by part.
pub async fn measure(settings: &Settings) -> Measurements {
    let mut measured = join_all(
        settings
            .endpoints
            .urls
            .iter()
            .map(|url| latency(settings, url)),
    )
    .await;
    let (_, snapshot) = outside::chain(settings).await;
    let hub = timeout(PART_LIMIT, download_rate(settings, snapshot.as_ref())).await;
    let hub = hub.unwrap_or_else(|_| Err("it does not answer in time".to_owned()));
    let mut rates = Rates {
        hub: hub.as_ref().ok().copied(),
        ..Rates::default()
    };
    measured.push(Measured::new(
        "download",
        hub.map(mega),
        "MB/s",
        [300.0, 100.0, 30.0],
    ));

    let folder = settings.model_folder.join("measure");
    let blocking = tokio::task::spawn_blocking(|| {
        let trial = Trial::write(folder).map_err(|error| text(&error))?;
        let disk = trial.read_rate().map_err(|error| error.to_string());
        Ok::<_, String>((trial, disk, Trial::hash_rate()))
    });
    let disk_read = |found: Result<f64, String>| {
        Measured::new("disk read", found.map(mega), "MB/s", [1500.0, 500.0, 150.0])
    };
    match blocking
        .await
        .unwrap_or_else(|panic| Err(panic.to_string()))
    {
        Ok((trial, disk, hash)) => {
            (rates.disk, rates.hash) = (disk.as_ref().ok().copied(), Some(hash));
            measured.push(disk_read(disk));
            measured.push(Measured::new(
                "sha256",
                Ok(mega(hash)),
                "MB/s",
                [1200.0, 600.0, 250.0],
            ));
            devices(settings, &trial, &mut rates, &mut measured).await;
        }
        Err(problem) => measured.push(disk_read(Err(problem))),
    }
    let free = machine::available_memory().map(|bytes| bytes as f64);
    let free = free.ok_or_else(|| "this system does not say".to_owned());
    // Where no device has memory of its own, models are in that of the machine.
    rates.memory = rates.memory.or(free.as_ref().ok().copied());
    measured.push(Measured::new(
        "free memory",
        free.map(giga),
        "GB",
        [32.0, 16.0, 8.0],
    ));

    let parameters = &settings.step.parameters;
    let load = Load {
        tokens: (settings.sample_count * parameters.sequence_length) as f64,
        weight_bytes: if settings.step.dtype == Dtype::F32 {
            4.0
        } else {
            2.0
        },
    };
    let competitions =
        parameters.competitions_at(snapshot.map_or(u64::MAX, |snapshot| snapshot.block));
    Measurements {
        measured,
        capacity: competitions
            .iter()
            .map(|one| rates.capacity(one, load))
            .collect(),
    }
}

fn mega(value: f64) -> f64 {
    value / 1e6
}

fn giga(value: f64) -> f64 {
    value / 1e9
}

/// Measures how long an endpoint takes for an answer: the median.
async fn latency(settings: &Settings, url: &chain::NodeUrl) -> Measured {
    let endpoints = Endpoints {
        urls: vec![url.clone()],
        ..settings.endpoints.clone()
    };
    let asked = timeout(PART_LIMIT, async {
        let client = Client::connect(&endpoints, AT_ONCE).await?;
        let mut millis = Vec::new();
        for _ in 0..ASKED {
            let began = Instant::now();
            client.block_number().await?;
            millis.push(began.elapsed().as_secs_f64() * 1000.0);
        }
        millis.sort_by(f64::total_cmp);
        Ok::<_, chain::ChainError>(millis[ASKED / 2])
    });
    let found = match asked.await {
        Ok(found) => found.map_err(|error| text(&error)),
        Err(_) => Err("it does not answer in time".to_owned()),
    };
    let value = found.as_ref().ok().copied();
    Measured {
        what: format!("chain latency, {url}"),
        value,
        unit: "ms",
        grade: value.map_or(Grade::D, |value| {
            Grade::at_most(value, [50.0, 200.0, 1000.0])
        }),
        detail: found.err().unwrap_or_default(),
    }
}

/// Returns bytes a second from the hub, of the largest file of a few models of the subnet.
async fn download_rate(
    settings: &Settings,
    snapshot: Option<&ChainSnapshot>,
) -> Result<f64, String> {
    let hub = Hub::new(settings.hub.clone()).map_err(|error| text(&error))?;
    let snapshot = snapshot.ok_or("without the chain, no model is known to fetch")?;
    let models = snapshot
        .commitments
        .iter()
        .filter_map(|commitment| commitment.model.as_ref().ok());
    let listings = join_all(models.take(REPOSITORIES).map(async |model| {
        let repository = RepositoryName::new(&model.namespace, &model.name).ok()?;
        let revision = model.revision.as_deref()?;
        let listing = hub
            .listing(RepositoryKind::Model, &repository, revision)
            .await
            .ok()?;
        let files = listing
            .files
            .into_iter()
            .filter_map(|(path, file)| Some((file.size?, path, file.sha256)));
        let (size, path, sha256) = files.max()?;
        let kind = RepositoryKind::Model;
        Some((
            size,
            hub.file(kind, &repository, &listing.commit, &path, (size, sha256)),
        ))
    }));
    let largest = listings
        .await
        .into_iter()
        .flatten()
        .max_by_key(|(size, _)| *size);
    let (size, file) = largest.ok_or("the hub has none of the models that were committed")?;
    let part = size.div_ceil(RANGES);
    let began = Instant::now();
    let parts = (0..RANGES).map(|number| {
        // The hub says how large a file is, so that the size may be any number.
        let range = number * part..(number + 1).saturating_mul(part).min(size);
        fetch(&hub, &file, range, began + DOWNLOAD)
    });
    let fetched: u64 = join_all(parts)
        .await
        .into_iter()
        .sum::<Result<_, String>>()?;
    Ok(fetched as f64 / began.elapsed().as_secs_f64())
}

/// Reads a range for so long; returns how many bytes came.
async fn fetch(
    hub: &Hub,
    file: &HubFile,
    range: std::ops::Range<u64>,
    until: Instant,
) -> Result<u64, String> {
    let mut bytes = 0;
    if range.is_empty() {
        return Ok(bytes);
    }
    let mut reader = hub.read(file, range);
    while let Ok(piece) = tokio::time::timeout_at(until, reader.next()).await {
        match piece.map_err(|error| text(&error))? {
            Some(piece) => bytes += piece.len() as u64,
            None => break,
        }
    }
    Ok(bytes)
}

/// Measures each device; several compute side by side, so their rates add up.
async fn devices(
    settings: &Settings,
    trial: &Trial,
    rates: &mut Rates,
    measured: &mut Vec<Measured>,
) {
    let mut names = settings.workers.devices.clone();
    if names.is_empty() {
        names.push("auto".to_owned());
    }
    for name in names {
        let evaluator = Evaluator::new(eval::Options {
            devices: vec![name.clone()],
            ..settings.workers.clone()
        });
        let found = product_rate(settings, trial, &evaluator).await;
        evaluator.shut_down().await;
        let (device, rate) = match found {
            Ok((device, rate)) => (Some(device), Ok(rate)),
            Err(fault) => (None, Err(fault.to_string())),
        };
        let id = device.as_ref().map_or(&name, |device| &device.id);
        if let Ok(rate) = rate {
            rates.products = Some(rates.products.unwrap_or_default() + rate);
        }
        let mut products = Measured::new(
            format!("matrix products, {id}"),
            rate.map(|rate| rate / 1e12),
            "TFLOP/s",
            [200.0, 50.0, 5.0],
        );
        if let Some(device) = &device {
            products.detail.clone_from(&device.name);
        }
        measured.push(products);
        if let Some(memory) = device.as_ref().and_then(|device| device.memory) {
            let memory = memory as f64;
            rates.memory = Some(rates.memory.map_or(memory, |least| least.min(memory)));
            measured.push(Measured::new(
                format!("memory, {id}"),
                Ok(giga(memory)),
                "GB",
                [40.0, 24.0, 16.0],
            ));
        }
    }
}

/// Returns a device, and how many operations of matrix products it does in a second.
async fn product_rate(
    settings: &Settings,
    trial: &Trial,
    evaluator: &Evaluator,
) -> Result<(Device, f64), model::Fault> {
    let started = evaluator
        .start()
        .await
        .into_iter()
        .map(|started| started.hello);
    let mut device = None;
    for hello in started {
        device = Some(hello?.device?);
    }
    let lost = || model::Fault::machine(model::MachineFaultKind::Device, "there is no worker");
    let device = device.ok_or_else(lost)?;
    // The first is short: it loads the weights, wakes the device, and says how much the second can take on.
    let mut samples = 1.0;
    let mut rate = 0.0;
    for _ in 0..2 {
        let request = request(settings, trial, samples as usize);
        let limits = TimeLimits::within(2 * PART_LIMIT);
        let evaluated = evaluator.evaluate(request, limits, &|_| {}).await?;
        let operations = 2.0 * trial::PARAMETERS as f64 * SAMPLE_TOKENS as f64 * samples;
        rate = operations / evaluated.compute_seconds.max(1e-9);
        let seconds = evaluated.compute_seconds.max(1e-9) / samples;
        samples = (COMPUTE_SECONDS / seconds).floor().clamp(1.0, MOST_SAMPLES);
    }
    Ok((device, rate))
}

fn request(settings: &Settings, trial: &Trial, samples: usize) -> Evaluate {
    let step = &settings.step;
    let ids = |sample: usize| {
        (0..SAMPLE_TOKENS).map(move |at| ((sample * 7 + at * 13) as u64 % trial::VOCABULARY) as u32)
    };
    let samples: Vec<TokenizedSample> = (0..samples)
        .map(|sample| TokenizedSample {
            ids: ids(sample).collect(),
            prompt_len: 1,
        })
        .collect();
    Evaluate {
        plan: PackingPlan::new(&samples, step.pack_tokens),
        samples,
        model: ModelSource {
            directory: trial.folder().to_owned(),
            content_hash: None,
            architecture: Architecture::Llama,
            dtype: step.dtype,
            attention: step.attention,
            compatibility: step.parameters.compatibility,
            max_parameters: None,
            norm_limits: step.parameters.norms,
        },
        next: None,
    }
}
