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
    load::{self, LoadReport, Placement},
};

/// A model in memory, and what is known of it.
#[derive(Debug)]
pub(super) struct Resident {
    source: ModelSource,
    /// One on each device; or one alone, that may lie on several.
    pub(super) copies: Vec<Model>,
    /// Bytes of it on the device that has the most.
    bytes: u64,
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
    place: Devices,
    /// Room for all of them on each device, in bytes. One alone may take more.
    room: u64,
    models: Vec<Resident>,
}

/// The devices models are loaded to.
#[derive(Debug)]
struct Devices {
    all: Vec<Device>,
    /// The same with the bytes that models may take there, if they have memory of their own.
    sized: Vec<(Device, u64)>,
    /// Bytes of the smallest device in all.
    smallest: Option<u64>,
}

impl Devices {
    fn new(devices: &[Device]) -> Self {
        let memory = |device: &Device| device::describe(device).memory;
        let sized = devices.iter().filter_map(|device| {
            // A quarter is left for computing.
            let (free, _) = memory(device)?;
            Some((device.clone(), free / 4 * 3))
        });
        Self {
            all: devices.to_vec(),
            sized: sized.collect(),
            smallest: devices
                .iter()
                .filter_map(memory)
                .map(|(_, total)| total)
                .min(),
        }
    }

    /// Waits until what was let go of is free: a GPU frees memory in the turn of its work, and loading asks beside it.
    fn settle(&self) {
        for device in &self.all {
            // A device that is lost says so at the next use.
            let _ = device.synchronize();
        }
    }

    fn is_cpu(&self) -> bool {
        self.all.iter().all(Device::is_cpu)
    }

    /// Returns the bytes that models may take on each device.
    fn room(&self) -> u64 {
        self.sized.iter().map(|&(_, room)| room).min().unwrap_or(0)
    }

    /// Says how a model of so many bytes is spread over the devices, and how much of it each has at most. Copies of
    /// what fits are the fastest; what doesn't fit has its layers on all of them.
    fn placement(&self, bytes: u64) -> (Placement<'_>, u64) {
        if self.sized.len() < 2 || bytes <= self.room() {
            return (Placement::Copies(&self.all), bytes);
        }
        let all: u64 = self.sized.iter().map(|&(_, room)| room).sum();
        let largest = self.sized.iter().map(|&(_, room)| room).max().unwrap_or(0);
        let most = u128::from(bytes) * u128::from(largest) / u128::from(all.max(1));
        (Placement::Layers(&self.sized), most as u64)
    }

    /// Refuses a model before memory is taken for it.
    fn check(&self, bytes: u64) -> Result<(), Fault> {
        let limit = if self.is_cpu() {
            getrlimit(Resource::RLIMIT_DATA)
                .ok()
                .map(|(limit, _)| limit)
        } else {
            self.smallest
        };
        let (_, most) = self.placement(bytes);
        match limit {
            Some(limit) if most > limit => {
                let text =
                    format_args!("the model takes {} MiB of {} MiB", most >> 20, limit >> 20);
                Err(Fault::machine(MachineFaultKind::OutOfMemory, text))
            }
            _ => Ok(()),
        }
    }
}

impl Residents {
    /// Makes an empty set. Unless room is given, no model stays on a CPU: memory is scarce there,
    /// and the system caches the files.
    pub(super) fn new(devices: &[Device], room: Option<u64>) -> Self {
        let place = Devices::new(devices);
        Self {
            room: room.unwrap_or_else(|| place.room()),
            place,
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
        let place = &self.place;
        let (mut answer, mut prefetched) = thread::scope(|scope| {
            let load = |next| move || Resident::load(next, place, &|_| {});
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
        let bytes = read_spec(source)?
            .parameters()
            .saturating_mul(bytes_of(source.dtype));
        self.make_room(self.place.placement(bytes).1);
        let progress = |bytes| reporter.add(bytes);
        let mut loaded = Resident::load(source, &self.place, &progress);
        if is_out_of_memory(&loaded) && !self.models.is_empty() {
            self.models.clear();
            self.place.settle();
            reporter.set(0);
            loaded = Resident::load(source, &self.place, &progress);
        }
        self.models.push(loaded?);
        Ok(())
    }

    fn make_room(&mut self, bytes: u64) {
        let mut used: u64 = self.models.iter().map(|model| model.bytes).sum();
        while used.saturating_add(bytes) > self.room && !self.models.is_empty() {
            used -= self.models.remove(0).bytes;
        }
        self.place.settle();
    }

    /// Models are loaded ahead to a device of its own only: a CPU has nothing to spare while it
    /// computes.
    fn can_prefetch(&self, next: &ModelSource) -> bool {
        if self.place.is_cpu() || self.models.iter().any(|model| model.serves(next)) {
            return false;
        }
        let Ok(spec) = read_spec(next) else {
            return false;
        };
        let used: u64 = self.models.iter().map(|model| model.bytes).sum();
        let bytes = spec.parameters().saturating_mul(bytes_of(next.dtype));
        used.saturating_add(self.place.placement(bytes).1) <= self.room
    }
}

impl Resident {
    fn load(
        source: &ModelSource,
        place: &Devices,
        progress: &(dyn Fn(u64) + Sync),
    ) -> Result<Self, Fault> {
        let spec = read_spec(source)?;
        let parameters = spec.parameters();
        if let Some(most) = source.max_parameters
            && parameters > most
        {
            let text = format_args!("{parameters} parameters, and {most} are allowed");
            return Err(Fault::model(ModelFaultKind::Size, text));
        }
        let bytes = parameters.saturating_mul(bytes_of(source.dtype));
        place.check(bytes)?;
        let (placement, bytes) = place.placement(bytes);
        let options = load::LoadOptions {
            dtype: source.dtype,
            attention: source.attention,
            placement,
        };
        let (copies, report) = load::load(&source.directory, &spec, options, progress)?;
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
            copies,
            bytes,
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
