//! Loading a model: its files are read once, in large blocks, and hashed, judged by their norms
//! and converted in the same pass.

mod arena;
#[cfg(feature = "cuda")]
mod cuda;
mod placement;
mod stream;

use std::{
    collections::BTreeMap,
    fs::File,
    io,
    marker::PhantomData,
    ops::Range,
    path::Path,
    time::{Duration, Instant},
};

use candle_core::{Device, Tensor};
use half::{bf16, f16};
use model::{
    Attention, Dtype, Fault, MachineFaultKind, ModelFaultKind,
    config::DecoderSpec,
    generation::{self, GENERATION_FILE, MAX_GENERATION_BYTES},
    header::{self, Header},
    inventory::{INDEX_FILE, Inventory, MAX_INDEX_BYTES},
    layout::{ModelFiles, WeightFiles},
    norms::ProjectionNorms,
};
pub use placement::Placement;
use placement::Shares;
use stream::{BEYOND, BLOCK, Destination, Source, Streamed};

use crate::{
    attention::Way,
    decoder::{Build, Model, Parameter, tensor_dtype},
    fault,
    folder::{Folder, fault_of_layout},
    teams,
};

/// How a model is to be loaded.
#[derive(Debug, Clone, Copy)]
pub struct LoadOptions<'a> {
    /// The type to compute in.
    pub dtype: Dtype,
    pub attention: Attention,
    pub placement: Placement<'a>,
}

/// What was learnt about a model while its files were read.
#[derive(Debug, Clone, PartialEq)]
pub struct LoadReport {
    /// Bytes read from disk, each once.
    pub bytes_read: u64,
    /// SHA-256 of each weights file and the index, by path relative to the folder.
    pub digests: BTreeMap<String, [u8; 32]>,
    /// Norms of the projections, to be judged by the rules of the subnet.
    pub norms: ProjectionNorms,
    /// Number of parameters; tied ones are counted once.
    pub parameters: u64,
    /// What is odd without being wrong: tensors that are not used, attention that is replaced.
    pub warnings: Vec<String>,
    pub took: Duration,
}

struct Shard {
    name: String,
    file: File,
    /// Its header; once the inventory is taken, with the decoder's names for what is loaded.
    header: Header,
}

/// Loads the model in `directory` as `spec` says: a model for each device that gets a copy, or one whose layers lie
/// on several. `progress` is told how many bytes were read.
///
/// # Errors
/// The model's fault if its files are malformed or don't fit `spec`, else the machine's.
pub fn load(
    directory: &Path,
    spec: &DecoderSpec,
    options: LoadOptions<'_>,
    progress: &(dyn Fn(u64) + Sync),
) -> Result<(Vec<Model>, LoadReport), Fault> {
    let begun = Instant::now();
    let mut digests = BTreeMap::new();
    let names = shard_names(directory, &mut digests)?;
    let mut shards: Vec<Shard> = names
        .into_iter()
        .map(|name| open(directory, name))
        .collect::<Result<_, _>>()?;
    let headers = shards
        .iter()
        .map(|shard| (shard.name.clone(), shard.header.clone()))
        .collect();
    check_generation(directory, spec)?;
    let inventory = Inventory::take(spec, &headers).map_err(weights)?;
    for shard in &mut shards {
        shard.header = inventory.header_of(&shard.name, &shard.header);
    }
    // A head that is stored for a tied model may differ from the embedding: then both count.
    let untied = DecoderSpec {
        tied: spec.tied && !inventory.untied,
        ..spec.clone()
    };
    let spec = &untied;
    let shares = Shares::new(spec, options.placement, &inventory.defaulted);
    let (bases, streamed) = match options.dtype {
        Dtype::F32 => fill::<f32>(&shares, &shards, progress)?,
        Dtype::Bf16 => fill::<bf16>(&shares, &shards, progress)?,
        Dtype::F16 => fill::<f16>(&shares, &shards, progress)?,
    };
    let LoadOptions {
        dtype, attention, ..
    } = options;
    let build = |device, get: &dyn Fn(&Parameter) -> candle_core::Result<Tensor>| {
        let build = Build {
            spec,
            dtype,
            attention,
            device,
        };
        build.build(get)
    };
    let models: candle_core::Result<Vec<_>> = match options.placement {
        Placement::Copies(devices) => devices
            .iter()
            .zip(shares.arenas().iter().zip(&bases))
            .map(|(device, (arena, base))| build(device, &|p| arena.tensor(base, p)))
            .collect(),
        Placement::Layers(devices) => {
            let first = devices.first().map_or(&Device::Cpu, |(device, _)| device);
            build(first, &|p| shares.tensor(&bases, p)).map(|model| vec![model])
        }
    };
    let models = models.map_err(|error| fault::of_tensors(&error))?;
    let mut report = LoadReport {
        bytes_read: 0,
        digests,
        norms: ProjectionNorms::default(),
        parameters: inventory.parameters,
        warnings: warnings(&inventory, spec, options),
        took: begun.elapsed(),
    };
    for (shard, streamed) in shards.into_iter().zip(streamed) {
        report.bytes_read += streamed.bytes;
        report.digests.insert(shard.name, streamed.digest);
        report.norms.extend(streamed.norms);
    }
    Ok((models, report))
}

fn warnings(inventory: &Inventory, spec: &DecoderSpec, options: LoadOptions<'_>) -> Vec<String> {
    let unknown = &inventory.unknown;
    let unused = (unknown.total > 0)
        .then(|| format!("tensors outside the model ({}): {unknown}", unknown.total));
    let (_, replaced) = Way::choose(
        options.attention,
        tensor_dtype(options.dtype),
        (spec.head_dim, spec.scores),
        options.placement.first(),
    );
    let defaulted = (!inventory.defaulted.is_empty()).then(|| {
        let names: Vec<_> = inventory.defaulted.keys().take(8).cloned().collect();
        let count = inventory.defaulted.len();
        format!(
            "norms and biases that are not stored ({count}): {}",
            names.join(", ")
        )
    });
    unused
        .into_iter()
        .chain(defaulted)
        .chain(replaced)
        .collect()
}

/// Refuses settings of generation that the reference refuses.
fn check_generation(directory: &Path, spec: &DecoderSpec) -> Result<(), Fault> {
    let folder = Folder::open(directory)?;
    if !folder.contains(GENERATION_FILE) {
        return Ok(());
    }
    let json = folder.read(GENERATION_FILE, MAX_GENERATION_BYTES)?;
    generation::admit(&json, spec.compatibility)
        .map_err(|error| Fault::model(ModelFaultKind::Config, error))
}

fn weights(error: impl std::fmt::Display) -> Fault {
    Fault::model(ModelFaultKind::Weights, error)
}

fn storage(path: &Path, error: &io::Error) -> Fault {
    if error.kind() == io::ErrorKind::NotFound {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        return weights(format!("{name} is missing"));
    }
    Fault::machine(
        MachineFaultKind::Storage,
        format!("{}: {error}", path.display()),
    )
}

/// Finds the tensors of a model in its files.
pub(crate) fn inventory(directory: &Path, spec: &DecoderSpec) -> Result<Inventory, Fault> {
    let names = shard_names(directory, &mut BTreeMap::new())?;
    let headers = names.into_iter().map(|name| {
        let shard = open(directory, name)?;
        Ok((shard.name, shard.header))
    });
    let headers = headers.collect::<Result<_, Fault>>()?;
    Inventory::take(spec, &headers).map_err(weights)
}

/// Returns the weights files of a model: the only one, or those its index names.
fn shard_names(
    directory: &Path,
    digests: &mut BTreeMap<String, [u8; 32]>,
) -> Result<Vec<String>, Fault> {
    use sha2::{Digest, Sha256};
    let folder = Folder::open(directory)?;
    let weights = WeightFiles::of(&folder).map_err(fault_of_layout)?;
    if let WeightFiles::Sharded(_) = weights {
        let index = folder.read(INDEX_FILE, MAX_INDEX_BYTES)?;
        digests.insert(INDEX_FILE.to_owned(), Sha256::digest(&index).into());
    }
    Ok(weights.names().map(ToOwned::to_owned).collect())
}

fn open(directory: &Path, name: String) -> Result<Shard, Fault> {
    let path = directory.join(&name);
    let io = |error: io::Error| storage(&path, &error);
    let mut file = File::open(&path).map_err(io)?;
    let bytes = file.metadata().map_err(io)?.len();
    let header = Header::read(&mut file, bytes)
        .map_err(io)?
        .map_err(|error| weights(format!("{name}: {error}")))?;
    Ok(Shard { name, file, header })
}

/// Reads all files into one tensor for each share, which holds all that is its.
fn fill<T: Loadable>(
    shares: &Shares<'_>,
    shards: &[Shard],
    progress: &(dyn Fn(u64) + Sync),
) -> Result<(Vec<Tensor>, Vec<Streamed>), Fault> {
    let on_cpu = shares.devices().iter().all(|device| device.is_cpu());
    #[cfg(feature = "cuda")]
    if !on_cpu {
        return cuda::fill::<T>(shares, shards, progress);
    }
    // A machine has one CPU, so that all is in one place.
    let ([arena], true) = (shares.arenas(), on_cpu) else {
        return Err(Fault::machine(
            MachineFaultKind::Bug,
            "one share for each CPU",
        ));
    };
    let mut elements = vec![T::zero(); arena.elements()];
    let mut slots = arena.slots(&mut elements);
    for (name, &value) in arena.defaulted() {
        if let Some(slot) = slots.get_mut(name.as_str()) {
            slot.fill(T::round(value));
        }
    }
    let sources = sources(shards, |name, elements| {
        let slot = slots.get_mut(name)?;
        let (place, rest) = std::mem::take(slot).split_at_mut_checked(elements.len())?;
        *slot = rest;
        Some(place)
    });
    let memory = HostMemory::<T>(PhantomData);
    let streamed = stream::read(sources, &memory, teams::threads(), progress)?;
    let base = Tensor::from_vec(elements, arena.elements(), &Device::Cpu)
        .map_err(|error| fault::of_tensors(&error))?;
    Ok((vec![base], streamed))
}

/// Says where the elements of all files go: `place` is asked for each tensor's, in their order.
fn sources<'s, P>(
    shards: &'s [Shard],
    mut place: impl FnMut(&'s str, Range<usize>) -> Option<P>,
) -> Vec<Source<'s, P>> {
    let source = |shard: &'s Shard| Source {
        file: &shard.file,
        header: &shard.header,
        blocks: stream::cut(&shard.header, &mut place),
    };
    shards.iter().map(source).collect()
}

/// Weights in the memory of this process: places are slices of it.
struct HostMemory<'a, T>(PhantomData<&'a T>);

impl<'a, T: Loadable> Destination for HostMemory<'a, T> {
    type Buffer = Vec<u8>;
    type Place = &'a mut [T];

    fn buffer(&self) -> Result<Vec<u8>, Fault> {
        Ok(vec![0; BLOCK + BEYOND])
    }

    fn writable<'b>(&self, buffer: &'b mut Vec<u8>) -> Result<&'b mut [u8], Fault> {
        Ok(buffer)
    }

    fn bytes<'b>(&self, buffer: &'b Vec<u8>) -> Result<&'b [u8], Fault> {
        Ok(buffer)
    }

    fn put(
        &self,
        buffer: &mut Vec<u8>,
        pieces: Vec<(header::Dtype, Range<usize>, &'a mut [T])>,
    ) -> Result<(), Fault> {
        for (dtype, bytes, place) in pieces {
            stream::convert(dtype, &buffer[bytes], place);
        }
        Ok(())
    }
}

/// A number type weights can be loaded in, on any device.
#[cfg(not(feature = "cuda"))]
trait Loadable: crate::cpu::Element {}
#[cfg(not(feature = "cuda"))]
impl<T: crate::cpu::Element> Loadable for T {}
#[cfg(feature = "cuda")]
use cuda::Loadable;
