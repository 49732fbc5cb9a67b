//! Models in memory: loaded, checked against their hash, kept while there is room.

use std::{path::Path, thread};

use candle_core::Device;
use model::{
    ContentHash, Dtype, Fault, Layout, MachineFaultKind, ModelFaultKind,
    config::{DecoderSpec, MAX_CONFIG_BYTES},
    hash,
    layout::ModelFiles,
    norms::NormVerdict,
    protocol::{ModelSource, Phase},
};
use nix::sys::resource::{Resource, getrlimit};

use super::Channel;
use crate::{
    decoder::Model,
    device,
    folder::{Folder, fault_of_layout},
    load::{self, LoadReport},
};

/// A model in memory, and what is known of it.
#[derive(Debug)]
pub(super) struct Resident {
    source: ModelSource,
    pub(super) model: Model,
    pub(super) content_hash: ContentHash,
    pub(super) parameters: u64,
    pub(super) norms_refused: Option<String>,
    pub(super) warnings: Vec<String>,
    /// Bytes read from disk and seconds spent since the last request; 0 if it was still there.
    pub(super) bytes_read: u64,
    pub(super) load_seconds: f64,
}

/// The models in memory, the one used last at the end.
#[derive(Debug)]
pub(super) struct Residents {
    device: Device,
    /// Room for all of them, in bytes. One alone may take more.
    room: u64,
    models: Vec<Resident>,
}

impl Residents {
    /// Makes an empty set. Unless room is given, no model stays on a CPU: memory is scarce there,
    /// and the system caches the files. On a GPU a quarter is left for computing.
    pub(super) fn new(device: Device, room: Option<u64>) -> Self {
        let room = room.unwrap_or_else(|| match device::describe(&device).memory {
            Some((free, _)) => free / 4 * 3,
            None => 0,
        });
        Self {
            device,
            room,
            models: Vec::new(),
        }
    }

    /// Loads a model unless it is still there, and hands it to `work`. While that runs, `next` is
    /// loaded, if it fits beside.
    pub(super) fn with<T>(
        &mut self,
        channel: &Channel,
        source: &ModelSource,
        next: Option<&ModelSource>,
        work: impl Fn(&Resident) -> Result<T, Fault>,
    ) -> Result<T, Fault> {
        self.bring(channel, source)?;
        let next = next.filter(|next| self.can_prefetch(next));
        let [.., current] = self.models.as_slice() else {
            return Err(Fault::machine(MachineFaultKind::Bug, "a model was lost"));
        };
        let device = &self.device;
        let (mut answer, mut prefetched) = thread::scope(|scope| {
            let load = |next| move || Resident::load(next, device, &|_| {});
            let loading = next.map(|next| scope.spawn(load(next)));
            (
                work(current),
                loading.and_then(|loading| loading.join().ok()),
            )
        });
        if is_out_of_memory(&answer) && (self.models.len() > 1 || prefetched.is_some()) {
            prefetched = None;
            self.models.drain(..self.models.len() - 1);
            if let [current] = self.models.as_slice() {
                answer = work(current);
            }
        }
        if let [.., current] = self.models.as_mut_slice() {
            (current.bytes_read, current.load_seconds) = (0, 0.0);
        }
        // Why it could not be loaded is found out again when it is asked for.
        self.models.extend(prefetched.and_then(Result::ok));
        if self.room == 0 {
            self.models.clear();
        }
        answer
    }

    /// Makes a model the last one, loading it if need be.
    fn bring(&mut self, channel: &Channel, source: &ModelSource) -> Result<(), Fault> {
        if let Some(index) = self.models.iter().position(|model| model.serves(source)) {
            let model = self.models.remove(index);
            self.models.push(model);
            return Ok(());
        }
        let reporter = channel.progress(Phase::Load, weights_bytes(&source.directory));
        reporter.set(0);
        self.make_room(
            read_spec(source)?
                .parameters()
                .saturating_mul(bytes_of(source.dtype)),
        );
        let progress = |bytes| reporter.add(bytes);
        let mut loaded = Resident::load(source, &self.device, &progress);
        if is_out_of_memory(&loaded) && !self.models.is_empty() {
            self.models.clear();
            reporter.set(0);
            loaded = Resident::load(source, &self.device, &progress);
        }
        self.models.push(loaded?);
        Ok(())
    }

    fn make_room(&mut self, bytes: u64) {
        let mut used: u64 = self.models.iter().map(Resident::bytes).sum();
        while used.saturating_add(bytes) > self.room && !self.models.is_empty() {
            used -= self.models.remove(0).bytes();
        }
    }

    /// Models are loaded ahead to a device of its own only: a CPU has nothing to spare while it
    /// computes.
    fn can_prefetch(&self, next: &ModelSource) -> bool {
        if self.device.is_cpu() || self.models.iter().any(|model| model.serves(next)) {
            return false;
        }
        let Ok(spec) = read_spec(next) else {
            return false;
        };
        let used: u64 = self.models.iter().map(Resident::bytes).sum();
        let bytes = spec.parameters().saturating_mul(bytes_of(next.dtype));
        used.saturating_add(bytes) <= self.room
    }
}

impl Resident {
    fn load(
        source: &ModelSource,
        device: &Device,
        progress: &(dyn Fn(u64) + Sync),
    ) -> Result<Self, Fault> {
        let spec = read_spec(source)?;
        check_size(source, &spec, device)?;
        let options = load::LoadOptions {
            dtype: source.dtype,
            attention: source.attention,
            device,
        };
        let (model, report) = load::load(&source.directory, &spec, options, progress)?;
        let content_hash = content_hash(&source.directory, &report)?;
        if let Some(expected) = source.content_hash
            && expected != content_hash
        {
            let text = format_args!("the files hash to {content_hash} instead of {expected}");
            return Err(Fault::model(ModelFaultKind::Hash, text));
        }
        let verdict = report
            .norms
            .judge(spec.layers, source.dtype, &source.norm_limits);
        let norms_refused = match verdict {
            NormVerdict::Accepted { .. } => None,
            refused => Some(refused.to_string()),
        };
        Ok(Self {
            source: source.clone(),
            model,
            content_hash,
            parameters: report.parameters,
            norms_refused,
            warnings: report.warnings,
            bytes_read: report.bytes_read,
            load_seconds: report.took.as_secs_f64(),
        })
    }

    /// Returns whether this is what `source` asks for. Without a hash nobody knows.
    fn serves(&self, source: &ModelSource) -> bool {
        let own = &self.source;
        source.content_hash == Some(self.content_hash)
            && (
                source.architecture,
                source.dtype,
                source.attention,
                source.compatibility,
            ) == (
                own.architecture,
                own.dtype,
                own.attention,
                own.compatibility,
            )
            && source.norm_limits == own.norm_limits
            && source
                .max_parameters
                .is_none_or(|most| self.parameters <= most)
    }

    fn bytes(&self) -> u64 {
        self.parameters.saturating_mul(bytes_of(self.source.dtype))
    }
}

fn is_out_of_memory<T>(result: &Result<T, Fault>) -> bool {
    matches!(result, Err(Fault::Machine(fault)) if fault.kind == MachineFaultKind::OutOfMemory)
}

const fn bytes_of(dtype: Dtype) -> u64 {
    match dtype {
        Dtype::F32 => 4,
        Dtype::Bf16 | Dtype::F16 => 2,
    }
}

/// Refuses a model before memory is taken for it.
fn check_size(source: &ModelSource, spec: &DecoderSpec, device: &Device) -> Result<(), Fault> {
    let parameters = spec.parameters();
    if let Some(most) = source.max_parameters
        && parameters > most
    {
        let text = format_args!("{parameters} parameters, and {most} are allowed");
        return Err(Fault::model(ModelFaultKind::Size, text));
    }
    let bytes = parameters.saturating_mul(bytes_of(source.dtype));
    if device.is_cpu()
        && let Ok((limit, _)) = getrlimit(Resource::RLIMIT_DATA)
        && bytes > limit
    {
        let text = format_args!("the model takes {} MiB of {} MiB", bytes >> 20, limit >> 20);
        return Err(Fault::machine(MachineFaultKind::OutOfMemory, text));
    }
    Ok(())
}

/// Reads `config.json`, or the file it names for this version of transformers.
pub(super) fn read_spec(source: &ModelSource) -> Result<DecoderSpec, Fault> {
    let folder = Folder::open(&source.directory)?;
    let config = Layout::config_of(&folder).map_err(fault_of_layout)?;
    let json = folder.read(&config, MAX_CONFIG_BYTES as u64)?;
    DecoderSpec::parse(&json, source.architecture, source.compatibility)
        .map_err(|error| Fault::model(ModelFaultKind::Config, error))
}

fn weights_bytes(directory: &Path) -> u64 {
    let files = directory
        .read_dir()
        .into_iter()
        .flatten()
        .filter_map(Result::ok);
    files
        .filter(|entry| {
            entry
                .path()
                .extension()
                .is_some_and(|kind| kind == "safetensors")
        })
        .filter_map(|entry| entry.path().metadata().ok())
        .map(|file| file.len())
        .sum()
}

/// Hashes a directory; the large files were hashed while they were loaded.
fn content_hash(directory: &Path, report: &LoadReport) -> Result<ContentHash, Fault> {
    let digests = hash::walk(directory).and_then(|paths| {
        let digest = |path: std::path::PathBuf| {
            let name = path.strip_prefix(directory).unwrap_or(&path).to_owned();
            match name.to_str().and_then(|name| report.digests.get(name)) {
                Some(digest) => Ok((name, *digest)),
                None => hash::file_digest(&path).map(|digest| (name, digest)),
            }
        };
        paths
            .into_iter()
            .map(digest)
            .collect::<std::io::Result<Vec<_>>>()
    });
    let digests = digests.map_err(|error| {
        Fault::machine(
            MachineFaultKind::Storage,
            format_args!("{}: {error}", directory.display()),
        )
    })?;
    Ok(ContentHash::of_files(digests))
}
