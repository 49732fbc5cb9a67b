//! What a miner's repository and the eval-worker's pipe can do to the validator.

use model::{
    Architecture, Compatibility,
    config::DecoderSpec,
    header::{Header, HeaderError, PREFIX_BYTES},
    protocol::{self, Hello, Reply, Request},
};
use serde::{Serialize, de::DeserializeOwned};

/// The header of a safetensors file: what is accepted covers the file without gap or overlap.
pub fn safetensors_header(json: &[u8]) {
    let start = PREFIX_BYTES + json.len() as u64;
    let header = match Header::parse(json, start) {
        // The tensors end elsewhere: make the file as long as they say.
        Err(HeaderError::Length { tensors, .. }) => {
            let header = Header::parse(json, start.saturating_add(tensors));
            header.expect("only the length was wrong")
        }
        Ok(header) => header,
        Err(_) => return,
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
    let read = Header::read(&mut file, start + end).expect("a slice is always readable");
    assert_eq!(read, Ok(header));
}

/// `config.json`: refused, or a decoder of bounded size whose parts fit each other.
pub fn model_config(json: &[u8]) {
    let _ = Architecture::declared(json);
    for architecture in Architecture::ALL {
        for compatibility in [Compatibility::V4_40, Compatibility::Current] {
            if let Ok(spec) = DecoderSpec::parse(json, architecture, compatibility) {
                check_spec(&spec);
            }
        }
    }
}

fn check_spec(spec: &DecoderSpec) {
    assert!(spec.layers > 0 && spec.vocab_size > 0 && spec.hidden_size > 0);
    assert!(spec.heads.is_multiple_of(spec.kv_heads), "{spec:?}");
    assert!(spec.rotary.dims.is_multiple_of(2) && spec.rotary.dims <= spec.head_dim);
    let (mut tensors, mut parameters) = (0_u64, 0_u64);
    for tensor in spec.tensors() {
        tensors += 1;
        parameters += tensor.shape.iter().product::<u64>();
        assert!(tensors <= 1 << 20, "more tensors than any file can list");
    }
    assert_eq!(parameters, spec.parameters());
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
