//! Weights that mean ill: headers, shapes, offsets, dtypes, names, numbers.

use serde_json::{Value, json};

use super::specimen::{EMBEDDING, Specimen, WEIGHTS, weights};

/// Headers of safetensors files, and what is in place of one.
#[expect(clippy::too_many_lines, reason = "one table")]
pub(crate) fn headers() -> Vec<Specimen> {
    let of = Specimen::new;
    let raw = |name, bytes: Vec<u8>| Specimen::new(name).file(WEIGHTS, bytes);
    let claims =
        |name, length: u64| raw(name, [&length.to_le_bytes()[..], b"{}", &[0; 64]].concat());
    let offsets = |name, offsets: Value| {
        Specimen::new(name).header(|header| header[EMBEDDING]["data_offsets"] = offsets)
    };
    let shape = |name, shape: Value| {
        Specimen::new(name).header(|header| header[EMBEDDING]["shape"] = shape)
    };
    let dtype = |name, dtype: Value| {
        Specimen::new(name).header(|header| header[EMBEDDING]["dtype"] = dtype)
    };
    let metadata = |name, metadata: Value| {
        Specimen::new(name).header(|header| header["__metadata__"] = metadata)
    };
    let more = |name, tensor: &str| {
        Specimen::new(name).header(|header| {
            header[tensor] = json!({"dtype": "BF16", "shape": [0], "data_offsets": [0, 0]});
        })
    };
    vec![
        raw("weights-empty", Vec::new()),
        raw("weights-of-seven-bytes", vec![1; 7]),
        claims("header-of-no-bytes", 0),
        claims("header-of-2-64-bytes", u64::MAX),
        claims("header-of-2-63-bytes", 1 << 63),
        claims("header-beyond-the-file", 1 << 20),
        of("header-of-100-mb").sparse(WEIGHTS, 100_000_000_u64.to_le_bytes(), 200_000_000),
        raw("header-of-blanks", weights(&" ".repeat(8 << 20), &[])),
        raw(
            "header-not-text",
            [&8_u64.to_le_bytes()[..], &[0xff; 64]].concat(),
        ),
        raw("header-a-list", weights("[]", &[])),
        raw("header-nothing", weights("{}", &[])),
        raw(
            "header-nested-100000-deep",
            weights(&"[".repeat(100_000), &[]),
        ),
        raw(
            "header-nested-in-a-tensor",
            weights(&format!("{{\"a\":{}", "{\"a\":".repeat(50_000)), &[]),
        ),
        raw(
            "weights-a-pickle",
            b"\x80\x02cos\nsystem\nq\x00X\x02\x00\x00\x00idq\x01\x85q\x02Rq\x03.".to_vec(),
        ),
        raw("weights-a-zip", [&b"PK\x03\x04"[..], &[0; 200]].concat()),
        raw(
            "weights-a-web-page",
            b"<!DOCTYPE html><html>not found</html>".to_vec(),
        ),
        offsets("offsets-reversed", json!([40, 0])),
        offsets("offsets-beyond-the-file", json!([0, 1_u64 << 40])),
        offsets("offsets-of-2-64", json!([0, u64::MAX])),
        offsets("offsets-both-of-2-64", json!([u64::MAX, u64::MAX])),
        offsets("offsets-negative", json!([-1, 40_959])),
        offsets("offsets-fractions", json!([0.5, 40_960.5])),
        offsets("offsets-three", json!([0, 1, 40_960])),
        offsets("offsets-none", json!(null)),
        offsets("offsets-shared", json!([40_960, 81_920])),
        of("offsets-too-long-to-be-numbers").header_text(|header| {
            header.replacen(
                "\"data_offsets\":[0,",
                &format!("\"data_offsets\":[{},", "9".repeat(4000)),
                1,
            )
        }),
        of("offsets-beyond-floats").header_text(|header| {
            header.replacen("\"data_offsets\":[0,", "\"data_offsets\":[1e400,", 1)
        }),
        shape("shape-transposed", json!([16, 1280])),
        shape("shape-nothing", json!([0, 16])),
        shape("shape-scalar", json!([])),
        shape("shape-product-overflows", json!([1_u64 << 40, 1_u64 << 40])),
        shape(
            "shape-product-wraps-to-nothing",
            json!([1_u64 << 32, 1_u64 << 32]),
        ),
        shape("shape-negative", json!([-1280, -16])),
        shape("shape-of-100000-ones", json!(vec![1; 100_000])),
        shape("shape-a-text", json!("1280x16")),
        dtype("dtype-unknown", json!("Q4_0")),
        dtype("dtype-a-number", json!(16)),
        dtype("dtype-wider-than-the-bytes", json!("F64")),
        dtype("dtype-narrower-than-the-bytes", json!("I8")),
        dtype("dtype-of-a-megabyte", json!("F".repeat(1 << 20))),
        metadata("metadata-a-list", json!([])),
        metadata("metadata-not-of-torch", json!({"format": "exe"})),
        metadata(
            "metadata-of-a-megabyte",
            json!({"format": "pt", "x": "x".repeat(1 << 20)}),
        ),
        metadata("metadata-nested", json!({"format": {"format": "pt"}})),
        more("tensor-name-leads-out", "../../../../tmp/zoo-escape"),
        more("tensor-name-absolute", "/tmp/zoo-escape"),
        more("tensor-name-with-nul", "model.\0.weight"),
        more("tensor-name-empty", ""),
        more("tensor-name-of-10-kb", &"x".repeat(10_000)),
        more(
            "tensor-name-for-the-terminal",
            "\u{1b}[2J\u{1b}]0;owned\u{7}\n\r",
        ),
        more("tensor-name-right-to-left", "\u{202e}thgiew.ledom"),
        of("tensors-20000-more").header(|header| {
            for number in 0..20_000 {
                header[format!("x{number}")] =
                    json!({"dtype": "BF16", "shape": [0], "data_offsets": [0, 0]});
            }
        }),
        of("tensor-twice").header_text(|header| {
            let again =
                "\"lm_head.weight\":{\"dtype\":\"BF16\",\"shape\":[1],\"data_offsets\":[0,2]}";
            format!("{{{again},{}", &header[1..])
        }),
        of("tensor-fields-twice")
            .header_text(|header| header.replacen("\"dtype\"", "\"dtype\":\"F32\",\"dtype\"", 1)),
        of("tensor-missing").header(|header| {
            header.as_object_mut().unwrap().remove("lm_head.weight");
        }),
        of("tensor-a-number").header(|header| header["x"] = json!(1)),
    ]
}

/// Weights whose header is in order.
pub(crate) fn numbers() -> Vec<Specimen> {
    let of = Specimen::new;
    let down = "model.layers.0.mlp.down_proj.weight";
    vec![
        of("bytes-missing-at-the-end").data(|data| data.truncate(data.len() - 1)),
        of("bytes-left-at-the-end").data(|data| data.push(0)),
        of("bytes-half-of-them").data(|data| data.truncate(data.len() / 2)),
        of("numbers-nan").tensor("model.norm.weight", f32::NAN),
        of("numbers-nan-in-a-projection").tensor(down, f32::NAN),
        of("numbers-infinite").tensor("lm_head.weight", f32::INFINITY),
        of("numbers-infinite-in-a-projection").tensor(down, f32::INFINITY),
        of("numbers-minus-infinite").tensor(EMBEDDING, f32::NEG_INFINITY),
        of("numbers-largest").tensor("lm_head.weight", f32::MAX),
        of("numbers-denormal").tensor(EMBEDDING, 1e-40),
        of("numbers-nothing").tensor(EMBEDDING, 0.0),
        of("norms-beyond-the-limit").tensor(down, 1e4),
        of("weights-of-16-gib").sparse("extra.bin", [], 16 << 30),
        of("weights-not-those-listed").sparse(WEIGHTS, weights("{}", &[]), 60_000),
        of("hash-of-something-else").lying(),
    ]
}
