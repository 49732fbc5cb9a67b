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
fn the_format_is_asked_for() {
    for (metadata, found) in [
        (json!({}), None),
        (json!({"__metadata__": {}}), None),
        (
            json!({"__metadata__": {"format": "tf"}}),
            Some("tf".to_owned()),
        ),
    ] {
        assert_eq!(parse(&metadata, 0), Err(HeaderError::Format(found)));
    }
    parse(&json!({"__metadata__": {"format": "mlx"}}), 0).unwrap();
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
