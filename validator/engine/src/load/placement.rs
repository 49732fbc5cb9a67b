//! Which device holds which tensors of a model.

use std::collections::BTreeMap;

use candle_core::{Device, Result, Tensor, bail};
use model::config::DecoderSpec;

use super::arena::Arena;
use crate::decoder::Parameter;

/// Where a model goes.
#[derive(Debug, Clone, Copy)]
pub enum Placement<'a> {
    /// All of it, once to each device. Each copy computes losses of the same bits.
    Copies(&'a [Device]),
    /// Its layers to one device after another, as much to each as its memory (in bytes) is of all memory.
    Layers(&'a [(Device, u64)]),
}

impl<'a> Placement<'a> {
    /// Returns the device that computation begins on.
    pub(super) fn first(self) -> &'a Device {
        let first = match self {
            Self::Copies(devices) => devices.first(),
            Self::Layers(devices) => devices.first().map(|(device, _)| device),
        };
        first.unwrap_or(&Device::Cpu)
    }
}

/// What of a model each device holds.
#[derive(Debug)]
pub(super) struct Shares<'a> {
    devices: Vec<&'a Device>,
    /// One for each device.
    arenas: Vec<Arena>,
}

impl<'a> Shares<'a> {
    pub(super) fn new(
        spec: &DecoderSpec,
        placement: Placement<'a>,
        defaulted: &BTreeMap<String, f32>,
    ) -> Self {
        match placement {
            Placement::Copies(devices) => Self {
                devices: devices.iter().collect(),
                arenas: devices
                    .iter()
                    .map(|_| Arena::new(spec, defaulted, |_| true))
                    .collect(),
            },
            Placement::Layers(devices) => {
                let memory: Vec<u64> = devices.iter().map(|&(_, memory)| memory).collect();
                let holders = holders(spec, &memory);
                let arena =
                    |number| Arena::new(spec, defaulted, |name| holders.get(name) == Some(&number));
                Self {
                    devices: devices.iter().map(|(device, _)| device).collect(),
                    arenas: (0..devices.len()).map(arena).collect(),
                }
            }
        }
    }

    pub(super) fn devices(&self) -> &[&'a Device] {
        &self.devices
    }

    pub(super) fn arenas(&self) -> &[Arena] {
        &self.arenas
    }

    /// Returns a parameter from the share that has it, whose memory is among `bases`.
    pub(super) fn tensor(&self, bases: &[Tensor], parameter: &Parameter) -> Result<Tensor> {
        let has = |arena: &Arena| parameter.parts.iter().all(|name| arena.has(name));
        let mut shares = self.arenas.iter().zip(bases);
        match shares.find(|(arena, _)| has(arena)) {
            Some((arena, base)) => arena.tensor(base, parameter),
            None => bail!("no device has all of {:?}", parameter.parts),
        }
    }
}

/// Returns the number of the device that holds each tensor. Computation passes from one device to the next and never
/// back; a layer is never divided.
fn holders(spec: &DecoderSpec, memory: &[u64]) -> BTreeMap<String, usize> {
    // Embedding first, then the layers, then the last norm and the head.
    let stage = |name: &str| match layer_of(name) {
        Some(layer) => layer + 1,
        None if name.starts_with("model.embed_tokens.") => 0,
        None => spec.layers + 1,
    };
    let mut sizes = vec![0_u64; spec.layers + 2];
    let tensors: Vec<_> = spec.tensors().collect();
    for tensor in &tensors {
        sizes[stage(&tensor.name)] += tensor.shape.iter().product::<u64>();
    }
    let (all, room) = (
        sizes.iter().sum::<u64>() as f64,
        memory.iter().map(|&bytes| bytes as f64).sum::<f64>(),
    );
    // A stage is where its middle falls, when both all stages and all memory are laid out in a row.
    let mut begin = 0;
    let holder = |size: u64| {
        let middle = (begin as f64 + size as f64 / 2.0) / all * room;
        begin += size;
        let mut end = 0.0;
        let before = memory.iter().take_while(|&&bytes| {
            end += bytes as f64;
            end <= middle
        });
        before.count().min(memory.len().saturating_sub(1))
    };
    let holders: Vec<usize> = sizes.into_iter().map(holder).collect();
    let holder = |name: String| {
        let holder = holders[stage(&name)];
        (name, holder)
    };
    tensors
        .into_iter()
        .map(|tensor| holder(tensor.name))
        .collect()
}

fn layer_of(name: &str) -> Option<usize> {
    let (layer, _) = name.strip_prefix("model.layers.")?.split_once('.')?;
    layer.parse().ok()
}

#[cfg(test)]
mod tests {
    use model::{Architecture, Compatibility};
    use proptest::prelude::*;

    use super::*;

    fn spec(layers: usize, tied: bool) -> DecoderSpec {
        let config = format!(
            r#"{{"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu",
            "vocab_size": 640, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": {layers},
            "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 256,
            "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "tie_word_embeddings": {tied}}}"#
        );
        DecoderSpec::parse(config.as_bytes(), Architecture::Llama, Compatibility::V4_40).unwrap()
    }

    proptest! {
        #[test]
        fn every_tensor_has_one_holder_and_none_gets_much_more_than_its_share(
            layers in 1_usize..40,
            tied in any::<bool>(),
            memory in proptest::collection::vec(1_u64 << 30..80 << 30, 1..6),
        ) {
            let spec = spec(layers, tied);
            let holders = holders(&spec, &memory);
            let tensors: Vec<_> = spec.tensors().collect();
            prop_assert_eq!(holders.len(), tensors.len());
            let mut held = vec![0_u64; memory.len()];
            let mut largest = BTreeMap::<Option<usize>, u64>::new();
            let mut of_layers = BTreeMap::new();
            for tensor in &tensors {
                let size = tensor.shape.iter().product::<u64>();
                let holder = holders[&tensor.name];
                held[holder] += size;
                *largest.entry(layer_of(&tensor.name)).or_default() += size;
                if let Some(layer) = layer_of(&tensor.name) {
                    let first = of_layers.entry(layer).or_insert(holder);
                    prop_assert_eq!(*first, holder, "layer {} is in one place", layer);
                }
            }
            prop_assert!(of_layers.values().is_sorted(), "never back: {:?}", of_layers);
            let all: u64 = held.iter().sum();
            let largest = *largest.values().max().unwrap();
            let room: u64 = memory.iter().sum();
            for (held, memory) in held.iter().zip(&memory) {
                let share = all as f64 * *memory as f64 / room as f64;
                prop_assert!(*held as f64 <= share + largest as f64 + 1.0);
            }
        }
    }
}
