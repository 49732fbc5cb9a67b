//! Where each tensor of a checkpoint lies within the one tensor that holds a model.

use std::collections::{BTreeMap, HashMap};

use candle_core::{Result, Tensor, bail};
use model::config::DecoderSpec;

use crate::decoder::Parameter;

/// Elements tensors are aligned to where their sizes allow it: 128 bytes in 16 bits.
const ALIGN: usize = 64;

/// Places of tensors by their names in the checkpoint: first element, number of elements.
#[derive(Debug)]
pub(super) struct Arena {
    places: HashMap<String, (usize, usize)>,
    /// Names in the order of their places.
    order: Vec<String>,
    elements: usize,
    /// Tensors that no file has, and the value of all their elements.
    defaulted: BTreeMap<String, f32>,
}

impl Arena {
    /// Lays out those tensors of a decoder that are to be `here`, in the order the specification lists them.
    pub(super) fn new(
        spec: &DecoderSpec,
        defaulted: &BTreeMap<String, f32>,
        here: impl Fn(&str) -> bool,
    ) -> Self {
        let (mut places, mut order, mut end) = (HashMap::new(), Vec::new(), 0_usize);
        for tensor in spec.tensors().filter(|tensor| here(&tensor.name)) {
            let count = tensor.shape.iter().product::<u64>() as usize;
            places.insert(tensor.name.clone(), (end, count));
            order.push(tensor.name);
            end = (end + count).next_multiple_of(ALIGN);
        }
        let defaulted = defaulted.iter().filter(|(name, _)| here(name));
        Self {
            places,
            order,
            elements: end,
            defaulted: defaulted
                .map(|(name, &value)| (name.clone(), value))
                .collect(),
        }
    }

    /// Returns whether a tensor is here.
    pub(super) fn has(&self, name: &str) -> bool {
        self.places.contains_key(name)
    }

    /// Returns the tensors that no file has, with the value of all their elements.
    pub(super) const fn defaulted(&self) -> &BTreeMap<String, f32> {
        &self.defaulted
    }

    /// Returns the number of elements of a tensor.
    #[cfg(feature = "cuda")]
    pub(super) fn count(&self, name: &str) -> usize {
        self.places.get(name).map_or(0, |&(_, count)| count)
    }

    pub(super) const fn elements(&self) -> usize {
        self.elements
    }

    /// Returns the place of the first element of a tensor, if it is part of the model.
    #[cfg(feature = "cuda")]
    pub(super) fn start(&self, name: &str) -> Option<usize> {
        self.places.get(name).map(|&(start, _)| start)
    }

    /// Cuts the memory of the arena into the tensors' places.
    pub(super) fn slots<'a, T>(&self, mut memory: &'a mut [T]) -> BTreeMap<&str, &'a mut [T]> {
        let mut slots = BTreeMap::new();
        let mut position = 0;
        for name in &self.order {
            let (start, count) = self.places[name];
            let rest = &mut memory[start - position..];
            let (slot, rest) = rest.split_at_mut(count);
            slots.insert(name.as_str(), slot);
            memory = rest;
            position = start + count;
        }
        slots
    }

    /// Returns a parameter: a view if its parts are neighbors, else a copy.
    pub(super) fn tensor(&self, base: &Tensor, parameter: &Parameter) -> Result<Tensor> {
        let mut places = Vec::with_capacity(parameter.parts.len());
        for name in &parameter.parts {
            match self.places.get(name) {
                Some(&place) => places.push(place),
                None => bail!("no place for {name}"),
            }
        }
        let neighbors = places
            .windows(2)
            .all(|pair| pair[0].0 + pair[0].1 == pair[1].0);
        let flat = if neighbors {
            let count = places.iter().map(|&(_, count)| count).sum();
            base.narrow(0, places[0].0, count)?
        } else {
            let views = places
                .iter()
                .map(|&(start, count)| base.narrow(0, start, count));
            Tensor::cat(&views.collect::<Result<Vec<_>>>()?, 0)?
        };
        flat.reshape(parameter.shape.as_slice())
    }
}
