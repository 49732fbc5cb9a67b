//! What a miner's repository and the eval-worker's pipe can do to the validator.

use std::collections::BTreeMap;

use hub::Listing;
use model::{
    Architecture, Compatibility,
    config::DecoderSpec,
    header::{Header, HeaderError, PREFIX_BYTES},
    inventory::{INDEX_FILE, Inventory, SINGLE_FILE},
    path::is_safe_path,
    protocol::{self, Hello, Reply, Request},
};
use models::manifest::{Contents, Manifest, Missing, TOKENIZER_CONFIG};
use serde::{Serialize, de::DeserializeOwned};

use crate::part;

/// The header of a safetensors file: what is accepted covers the file without gap or overlap.
pub fn safetensors_header(json: &[u8]) {
    let Some(header) = header(json) else {
        return;
    };
    let mut end = 0;
    for (name, tensor) in header.in_file_order() {
        assert_eq!(tensor.bytes.start, end, "{name:?} leaves a gap or overlaps");
        end = tensor.bytes.end;
        let elements = tensor.shape.iter().product::<u64>();
        assert_eq!(elements, tensor.elements(), "{name:?}");
        assert_eq!(elements * tensor.dtype.bytes(), end - tensor.bytes.start);
    }
    assert_eq!(end, header.data_bytes());
    let mut file = &[&(json.len() as u64).to_le_bytes(), json].concat()[..];
    let read = Header::read(&mut file, header.data_start() + end);
    assert_eq!(read.expect("a slice is always readable"), Ok(header));
}

/// Parses the header of a file that is as long as its tensors say.
fn header(json: &[u8]) -> Option<Header> {
    let start = PREFIX_BYTES + json.len() as u64;
    match Header::parse(json, start) {
        Err(HeaderError::Length { tensors, .. }) => {
            let header = Header::parse(json, start.checked_add(tensors)?);
            Some(header.expect("only the length was wrong"))
        }
        parsed => parsed.ok(),
    }
}

/// `config.json`: refused, or a decoder of bounded size whose parts fit each other.
pub fn model_config(json: &[u8]) {
    let _ = Architecture::declared(json);
    for spec in specs(json) {
        assert!(spec.layers > 0 && spec.vocab_size > 0 && spec.hidden_size > 0);
        assert!(spec.heads.is_multiple_of(spec.kv_heads), "{spec:?}");
        assert!(spec.rotary.dims.is_multiple_of(2) && spec.rotary.dims <= spec.head_dim);
        let parameters = spec.parameters();
        // Going over the tensors of the largest takes too long to do it often.
        if spec.layers * spec.heads <= 1 << 12 {
            let elements = spec
                .tensors()
                .map(|tensor| tensor.shape.iter().product::<u64>());
            assert_eq!(elements.sum::<u64>(), parameters);
        }
    }
}

fn specs(json: &[u8]) -> impl Iterator<Item = DecoderSpec> + '_ {
    Architecture::ALL.into_iter().flat_map(move |architecture| {
        [Compatibility::V4_40, Compatibility::Current]
            .into_iter()
            .filter_map(move |rules| DecoderSpec::parse(json, architecture, rules).ok())
    })
}

/// `config.json`, a zero byte, the header of the weights: what is found, or begins as
/// it should where no file has it, is what is needed.
pub fn model_tensors(data: &[u8]) {
    let Some(header) = header(part(data, 1)) else {
        return;
    };
    let headers = BTreeMap::from([(SINGLE_FILE.to_owned(), header)]);
    for spec in specs(part(data, 0)) {
        let Ok(inventory) = Inventory::take(&spec, &headers) else {
            continue;
        };
        let elements = inventory
            .tensors
            .values()
            .map(|place| place.info.elements());
        let defaulted = spec
            .tensors()
            .filter(|tensor| inventory.defaulted.contains_key(&tensor.name))
            .map(|tensor| tensor.shape.iter().product::<u64>());
        let elements = elements.sum::<u64>() + defaulted.sum::<u64>();
        assert_eq!(elements, inventory.parameters);
        let surplus = inventory.tensors.len() + inventory.unknown.total;
        assert_eq!(surplus, headers[SINGLE_FILE].tensors().len());
    }
}

/// The hub's listing, `config.json`, `tokenizer_config.json` and the index of the weights, with
/// zero bytes between: the files chosen are in the listing and stay inside a folder.
pub fn hub_listing(data: &[u8]) {
    let Ok(listing) = Listing::parse(part(data, 0)) else {
        return;
    };
    for compatibility in [Compatibility::V4_40, Compatibility::Current] {
        if let Some(manifest) = manifest(&listing, data, compatibility) {
            for (path, entry) in &manifest.files {
                assert_eq!(listing.files.get(path), Some(entry));
                assert!(is_safe_path(path), "{path:?}");
            }
            let tokenizer = manifest.tokenizer.files();
            assert!(tokenizer.into_iter().all(is_safe_path));
            let mut chosen = manifest.layout.files();
            assert!(chosen.all(|path| manifest.files.contains_key(path)));
            if let Some(total) = listing.total_bytes() {
                assert!(manifest.bytes() <= total);
            }
        }
    }
}

fn manifest(listing: &Listing, data: &[u8], compatibility: Compatibility) -> Option<Manifest> {
    let mut contents = Contents::new();
    loop {
        match Manifest::of(listing, &contents, compatibility) {
            Ok(manifest) => return Some(manifest),
            Err(Missing::Never(_)) => return None,
            Err(Missing::Content(path)) => {
                let content = match path.as_str() {
                    TOKENIZER_CONFIG => part(data, 2),
                    INDEX_FILE => part(data, 3),
                    _ => part(data, 1),
                };
                let content = content.to_vec().into();
                assert_eq!(contents.insert(path, content), None, "asked for twice");
            }
        }
    }
}

/// A frame of the pipe between validator and eval-worker: what is read can be written, and is
/// then read as the same.
pub fn eval_protocol(data: &[u8]) {
    if let Ok(hello) = Hello::decode(data) {
        let frame = hello.frame().expect("what was read fits a frame");
        let again = Hello::decode(&frame[4..]).and_then(|hello| hello.frame());
        assert_eq!(again.ok(), Some(frame));
    }
    round_trip::<Request>(data);
    round_trip::<Reply>(data);
    // With a prefix that may lie, as from a pipe.
    let _ = protocol::read::<Reply>(data);
}

/// Compared as bytes: losses may be NaN.
fn round_trip<T: Serialize + DeserializeOwned>(data: &[u8]) {
    if let Ok(message) = protocol::decode::<T>(data) {
        let frame = protocol::frame(&message).expect("what was read fits a frame");
        let again: Option<T> = protocol::read(&frame[..]).expect("what was written is readable");
        let again = again.map(|message| protocol::frame(&message).ok());
        assert_eq!(again, Some(Some(frame)));
    }
}
