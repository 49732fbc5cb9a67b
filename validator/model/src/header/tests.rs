use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

fn parse(header: &Value, data_bytes: u64) -> Result<Header, HeaderError> {
    let json = header.to_string();
    Header::parse(
        json.as_bytes(),
        PREFIX_BYTES + json.len() as u64 + data_bytes,
    )
}

fn tensor(shape: &[u64], start: u64, end: u64) -> Value {
    json!({"dtype": "F32", "shape": shape, "data_offsets": [start, end]})
}

#[test]
fn a_sound_header_is_read() {
    let header = json!({
        "b": tensor(&[2, 2], 0, 16),
        "a": tensor(&[1], 16, 20),
        "__metadata__": {"format": "pt", "more": "text"},
        "empty": tensor(&[0, 7], 16, 16),
    });
    let header = parse(&header, 20).unwrap();
    let order: Vec<_> = header
        .in_file_order()
        .iter()
        .map(|(name, _)| *name)
        .collect();
    assert_eq!(order, ["b", "empty", "a"]);
    assert_eq!(header.tensors()["b"].elements(), 4);
    assert_eq!(header.data_bytes(), 20);
}

#[test]
fn each_defect_has_its_own_name() {
    let with = |tensors: Value| {
        let mut header = json!({"__metadata__": {"format": "pt"}});
        header
            .as_object_mut()
            .unwrap()
            .extend(tensors.as_object().unwrap().clone());
        parse(&header, 8).unwrap_err()
    };
    let a = || tensor(&[1], 0, 4);
    assert!(matches!(
        with(json!({"a": a(), "b": tensor(&[1], 3, 8)})),
        HeaderError::Layout { .. }
    ));
    assert!(matches!(
        with(json!({"a": a(), "b": tensor(&[1], 5, 8)})),
        HeaderError::Layout { .. }
    ));
    assert!(matches!(
        with(json!({"a": a()})),
        HeaderError::Length {
            tensors: 4,
            file: 8
        }
    ));
    assert!(matches!(
        with(json!({"a": tensor(&[3], 0, 12)})),
        HeaderError::Length { .. }
    ));
    assert!(matches!(
        with(json!({"a": tensor(&[2], 0, 4)})),
        HeaderError::Size { .. }
    ));
    assert!(matches!(
        with(json!({"a": tensor(&[2], 8, 0)})),
        HeaderError::Layout { .. }
    ));
    let huge = tensor(&[u64::MAX, u64::MAX], 0, 8);
    assert!(matches!(with(json!({"a": huge})), HeaderError::Size { .. }));
    let unknown = json!({"a": {"dtype": "F99", "shape": [2], "data_offsets": [0, 8]}});
    assert!(matches!(with(unknown), HeaderError::Malformed(_)));
}

#[test]
fn names_appear_once() {
    let entry = tensor(&[0], 0, 0);
    for text in [
        format!(r#"{{"__metadata__":{{"format":"pt"}},"a":{entry},"a":{entry}}}"#),
        r#"{"__metadata__":{"format":"pt"},"__metadata__":{"format":"pt"}}"#.to_owned(),
    ] {
        let error = Header::parse(text.as_bytes(), 8 + text.len() as u64).unwrap_err();
        assert!(error.to_string().contains("appears twice"), "{error}");
    }
}

#[test]
fn the_format_is_kept() {
    for (metadata, found) in [
        (json!({}), None),
        (json!({"__metadata__": {}}), None),
        (json!({"__metadata__": {"format": "tf"}}), Some("tf")),
    ] {
        assert_eq!(parse(&metadata, 0).unwrap().format(), found);
    }
}

#[test]
fn elements_of_every_dtype_have_their_values() {
    let values = |dtype: Dtype, bytes: &[u8]| {
        let mut found = Vec::new();
        dtype.values(bytes, |value| found.push(value));
        found
    };
    // As `torch.tensor(list(range(256)), dtype=torch.uint8).view(torch.float8_e4m3fn).float()`.
    let e4m3 = values(
        Dtype::F8_E4M3,
        &[0, 1, 7, 8, 0x38, 0x40, 0x7e, 0x81, 0xb8, 0xfe],
    );
    let step = 1.0 / 512.0;
    assert_eq!(
        e4m3,
        [
            0.0,
            step,
            7.0 * step,
            8.0 * step,
            1.0,
            2.0,
            448.0,
            -step,
            -1.0,
            -448.0
        ]
    );
    assert!(
        values(Dtype::F8_E4M3, &[0x7f, 0xff])
            .iter()
            .all(|value| value.is_nan())
    );
    assert_eq!(
        values(Dtype::F8_E5M2, &[0x3c, 0xc0, 0x7c]),
        [1.0, -2.0, f32::INFINITY]
    );
    assert_eq!(values(Dtype::I8, &[0xff, 5]), [-1.0, 5.0]);
    assert_eq!(values(Dtype::BOOL, &[0, 1]), [0.0, 1.0]);
    assert_eq!(
        values(Dtype::I64, &i64::MAX.to_le_bytes()),
        [9_223_372_036_854_775_807_f32]
    );
    assert_eq!(values(Dtype::F64, &0.1_f64.to_le_bytes()), [0.1]);
}

#[test]
fn a_long_header_is_refused_before_it_is_read() {
    let mut file: &[u8] = &(100_u64 << 20).to_le_bytes();
    let read = Header::read(&mut file, 1 << 40).unwrap();
    assert_eq!(read, Err(HeaderError::TooLarge(100 << 20)));
    let mut short: &[u8] = &1000_u64.to_le_bytes();
    assert_eq!(
        Header::read(&mut short, 500).unwrap(),
        Err(HeaderError::Truncated)
    );
    assert_eq!(
        Header::read(&mut io::empty(), 7).unwrap(),
        Err(HeaderError::Truncated)
    );
}

proptest! {
    #[test]
    fn never_panics_on_bytes(bytes: Vec<u8>, file_bytes: u64) {
        let _ = Header::parse(&bytes, file_bytes);
        let _ = Header::read(&mut bytes.as_slice(), bytes.len() as u64).unwrap();
    }

    #[test]
    fn whatever_is_accepted_covers_the_file_without_overlap(
        offsets in proptest::collection::vec((0_u64..40, 0_u64..40, 0_u64..6, 0_u64..4), 0..6),
        data_bytes in 0_u64..100,
    ) {
        let mut header = json!({"__metadata__": {"format": "pt"}});
        for (i, (start, end, rows, columns)) in offsets.iter().enumerate() {
            header[format!("t{i}")] = tensor(&[*rows, *columns], *start, *end);
        }
        if let Ok(header) = parse(&header, data_bytes) {
            let covered: u64 = header.tensors().values().map(|t| t.elements() * 4).sum();
            prop_assert_eq!(covered, data_bytes);
        }
    }
}
