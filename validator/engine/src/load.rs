//! Loading a model: its files are read once, in large blocks, and hashed, judged by their norms
//! and converted in the same pass.

mod arena;
#[cfg(feature = "cuda")]
mod cuda;
mod stream;

use std::{
    collections::BTreeMap,
    fs::File,
    io,
    path::Path,
    time::{Duration, Instant},
};

use arena::Arena;
use candle_core::{Device, Tensor};
use half::{bf16, f16};
use model::{
    Attention, Dtype, Fault, MachineFaultKind, ModelFaultKind,
    config::DecoderSpec,
    generation::{self, GENERATION_FILE, MAX_GENERATION_BYTES},
    header::Header,
    inventory::{INDEX_FILE, Inventory, MAX_INDEX_BYTES},
    layout::{ModelFiles, WeightFiles},
    norms::ProjectionNorms,
};
use rayon::prelude::*;
use stream::Streamed;

use crate::{
    attention::Way,
    decoder::{Build, Model, Parameter, tensor_dtype},
    fault,
    folder::{Folder, fault_of_layout},
};

/// How a model is to be loaded.
#[derive(Debug, Clone, Copy)]
pub struct LoadOptions<'a> {
    /// The type to compute in.
    pub dtype: Dtype,
    pub attention: Attention,
    pub device: &'a Device,
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

/// Loads the model in `directory` as `spec` says; `progress` is told how many bytes were read.
///
/// # Errors
/// The model's fault if its files are malformed or don't fit `spec`, else the machine's.
pub fn load(
    directory: &Path,
    spec: &DecoderSpec,
    options: LoadOptions<'_>,
    progress: &(dyn Fn(u64) + Sync),
) -> Result<(Model, LoadReport), Fault> {
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
    let arena = Arena::new(spec, inventory.defaulted.clone());
    let (base, streamed) = match options.dtype {
        Dtype::F32 => fill::<f32>(&arena, &shards, options.device, progress)?,
        Dtype::Bf16 => fill::<bf16>(&arena, &shards, options.device, progress)?,
        Dtype::F16 => fill::<f16>(&arena, &shards, options.device, progress)?,
    };
    let LoadOptions {
        dtype,
        attention,
        device,
    } = options;
    let build = Build {
        spec,
        dtype,
        attention,
        device,
    };
    let model = build
        .build(|parameter: &Parameter| arena.tensor(&base, parameter))
        .map_err(|error| fault::of_tensors(&error))?;
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
    Ok((model, report))
}

fn warnings(inventory: &Inventory, spec: &DecoderSpec, options: LoadOptions<'_>) -> Vec<String> {
    let unknown = &inventory.unknown;
    let unused = (unknown.total > 0)
        .then(|| format!("tensors outside the model ({}): {unknown}", unknown.total));
    let (_, replaced) = Way::choose(
        options.attention,
        tensor_dtype(options.dtype),
        (spec.head_dim, spec.scores),
        options.device,
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

/// Reads all files into one tensor that holds the whole model.
fn fill<T: Loadable>(
    arena: &Arena,
    shards: &[Shard],
    device: &Device,
    progress: &(dyn Fn(u64) + Sync),
) -> Result<(Tensor, Vec<Streamed>), Fault> {
    #[cfg(feature = "cuda")]
    if let Device::Cuda(device) = device {
        return cuda::fill::<T>(arena, shards, device, progress);
    }
    let mut elements = vec![T::zero(); arena.elements()];
    let mut slots = arena.slots(&mut elements);
    for (name, &value) in arena.defaulted() {
        if let Some(slot) = slots.get_mut(name.as_str()) {
            slot.fill(T::round(value));
        }
    }
    let work: Vec<_> = shards
        .iter()
        .map(|shard| {
            let names = shard.header.tensors().keys();
            let own = names.filter_map(|name| slots.remove_entry(name.as_str()));
            (shard, own.collect::<BTreeMap<_, _>>())
        })
        .collect();
    let streamed = candle_core::utils::with_threadpool(|| {
        work.into_par_iter()
            .map(|(shard, mut slots)| {
                stream::read(
                    &shard.file,
                    &shard.header,
                    progress,
                    |name, first, dtype, bytes| {
                        if let Some(slot) = slots.get_mut(name) {
                            stream::convert(dtype, bytes, &mut slot[first..]);
                        }
                        Ok(())
                    },
                )
            })
            .collect::<Result<Vec<_>, Fault>>()
    })?;
    let base = Tensor::from_vec(elements, arena.elements(), device)
        .map_err(|error| fault::of_tensors(&error))?;
    Ok((base, streamed))
}

/// A number type weights can be loaded in, on any device.
#[cfg(not(feature = "cuda"))]
trait Loadable: crate::cpu::Element {}
#[cfg(not(feature = "cuda"))]
impl<T: crate::cpu::Element> Loadable for T {}
#[cfg(feature = "cuda")]
use cuda::Loadable;
