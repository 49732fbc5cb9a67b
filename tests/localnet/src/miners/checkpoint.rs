//! Model folders as `save_pretrained` of transformers 4.40 leaves them, in bf16.

use std::{collections::HashMap, path::Path};

use candle_core::DType;
use half::bf16;
use safetensors::{Dtype, tensor::TensorView};
use serde_json::json;
use sha2::{Digest as _, Sha256};
use shared::file;

use super::{
    MinerError,
    family::{Family, Shape},
    network::Network,
    vocabulary::Vocabulary,
};
use crate::hub::Content;

/// A tensor: its dimensions and its values in row order.
pub type Values = (Vec<usize>, Vec<bf16>);

/// Returns a network's tensors, rounded to bf16, by name.
pub fn tensors(network: &Network) -> Result<Vec<(String, Values)>, MinerError> {
    let mut all = Vec::new();
    for (name, weight) in &network.weights {
        let values = weight
            .as_tensor()
            .to_dtype(DType::BF16)?
            .flatten_all()?
            .to_vec1()?;
        all.push((name.clone(), (weight.dims().to_vec(), values)));
    }
    Ok(all)
}

/// Writes a whole model folder.
pub fn write(
    folder: &Path,
    network: &Network,
    tensors: &[(String, Values)],
    vocabulary: &Vocabulary,
) -> Result<(), MinerError> {
    let bytes: Vec<(&String, &Vec<usize>, Vec<u8>)> = tensors
        .iter()
        .map(|(name, (shape, values))| {
            (
                name,
                shape,
                values
                    .iter()
                    .flat_map(|value| value.to_le_bytes())
                    .collect(),
            )
        })
        .collect();
    let views: Vec<(&String, TensorView<'_>)> = bytes
        .iter()
        .map(|(name, shape, bytes)| {
            Ok((
                *name,
                TensorView::new(Dtype::BF16, (*shape).clone(), bytes)?,
            ))
        })
        .collect::<Result<_, MinerError>>()?;
    let metadata = HashMap::from([("format".to_owned(), "pt".to_owned())]);
    let serialized = safetensors::serialize(views, Some(metadata))?;
    file::write_atomic(&folder.join("model.safetensors"), &serialized)?;
    write_configs(folder, network.family, &network.shape, vocabulary)
}

fn write_configs(
    folder: &Path,
    family: Family,
    shape: &Shape,
    vocabulary: &Vocabulary,
) -> Result<(), MinerError> {
    let (begin, end) = vocabulary.begin_and_end();
    let config = family.config(shape, begin, end);
    let generation = json!({
        "_from_model_config": true,
        "bos_token_id": begin,
        "eos_token_id": end,
        "transformers_version": "4.40.0",
    });
    for (name, value) in [
        ("config.json", config),
        ("generation_config.json", generation),
    ] {
        let text = serde_json::to_vec_pretty(&value).unwrap_or_default();
        file::write_atomic(&folder.join(name), &text)?;
    }
    Ok(vocabulary.write(folder)?)
}

/// Makes up the weights of a model with more parameters than its competition allows: a true
/// header over zeros that are only ever made when somebody reads them. Writes the folder's other
/// files.
pub fn write_giant(
    folder: &Path,
    family: Family,
    vocabulary: &Vocabulary,
) -> Result<Content, MinerError> {
    let (shape, dtype, bytes_each) = match family {
        // One byte each keeps the repository below the limit of 15 GiB.
        Family::Llama => (
            Shape {
                hidden: 4096,
                intermediate: 14_336,
                layers: 36,
                heads: 32,
                kv_heads: 8,
                vocabulary: 128_256,
            },
            "F8_E4M3",
            1,
        ),
        Family::StableLm => (
            Shape {
                hidden: 2048,
                intermediate: 5632,
                layers: 36,
                heads: 32,
                kv_heads: 32,
                vocabulary: 100_352,
            },
            "BF16",
            2,
        ),
    };
    let mut header = serde_json::Map::new();
    header.insert("__metadata__".into(), json!({ "format": "pt" }));
    let mut offset = 0u64;
    for (name, dimensions) in family.tensors(&shape) {
        let end = offset + dimensions.iter().map(|d| *d as u64).product::<u64>() * bytes_each;
        let entry = json!({ "dtype": dtype, "shape": dimensions, "data_offsets": [offset, end] });
        header.insert(name, entry);
        offset = end;
    }
    let mut text = serde_json::to_vec(&header).unwrap_or_default();
    text.resize(text.len().next_multiple_of(8), b' ');
    let mut head = (text.len() as u64).to_le_bytes().to_vec();
    head.extend(text);
    write_configs(folder, family, &shape, vocabulary)?;
    Ok(Content::Virtual {
        size: head.len() as u64 + offset,
        sha256: hex::encode(Sha256::digest(&head)),
        head: head.into(),
    })
}
