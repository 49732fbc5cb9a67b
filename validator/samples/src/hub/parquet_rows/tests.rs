use std::sync::Arc;

use bytes::Bytes;
use parquet::{
    basic::{Compression, Encoding},
    data_type::{ByteArray, ByteArrayType},
    file::{
        properties::WriterProperties,
        reader::{FileReader, SerializedFileReader},
        writer::SerializedFileWriter,
    },
    schema::parser::parse_message_type,
};
use serde_json::json;

use super::*;

const FOOTER_TAIL: usize = 8;

#[test]
fn the_lists_of_older_writers_become_plain() {
    let turn = |role: &str| json!({"element": {"role": role, "content": "c"}});
    let value = json!({"messages": {"list": [turn("user"), turn("assistant")]}, "n": 1});
    let expected = json!({"messages": [
        {"role": "user", "content": "c"}, {"role": "assistant", "content": "c"}], "n": 1});
    assert_eq!(plain(value), expected);
}

/// A table of one row group of one page a column.
fn table(encoding: Encoding, compression: Compression) -> Vec<u8> {
    let schema = "message m { required binary question (UTF8); required binary answer (UTF8); }";
    let schema = Arc::new(parse_message_type(schema).unwrap());
    let properties = WriterProperties::builder()
        .set_compression(compression)
        .set_dictionary_enabled(false)
        .set_encoding(encoding)
        .build();
    let mut writer = SerializedFileWriter::new(Vec::new(), schema, Arc::new(properties)).unwrap();
    let mut group = writer.next_row_group().unwrap();
    while let Some(mut column) = group.next_column().unwrap() {
        let values: Vec<ByteArray> = (0..200_u32)
            .map(|row| ByteArray::from(format!("{:x}", row.pow(3)).as_str()))
            .collect();
        let typed = column.typed::<ByteArrayType>();
        typed.write_batch(&values, None, None).unwrap();
        column.close().unwrap();
    }
    group.close().unwrap();
    writer.into_inner().unwrap()
}

fn plain_table() -> Vec<u8> {
    table(Encoding::PLAIN, Compression::UNCOMPRESSED)
}

fn read(table: Vec<u8>) -> Result<usize, String> {
    let mut harvest = Harvest::default();
    read_table(Bytes::from(table), "t", 100, 1, &mut harvest)
        .map(|()| harvest.records.len())
        .map_err(|error| error.to_string())
}

#[track_caller]
fn refused(table: Vec<u8>, why: &str) {
    let error = read(table).unwrap_err();
    assert!(error.contains(why), "{error}");
}

/// A field of a structure in Thrift's compact protocol, right after the one before it.
fn number(value: u64) -> Vec<u8> {
    let mut bytes = vec![0x15];
    let mut zigzag = value << 1;
    while zigzag >= 0x80 {
        bytes.push(zigzag as u8 | 0x80);
        zigzag >>= 7;
    }
    bytes.push(zigzag as u8);
    bytes
}

/// Puts another header in place of that of the first column's page.
fn with_page(kind: u64, unpacked: u64, values: u64) -> Vec<u8> {
    let mut bytes = plain_table();
    let file = SerializedFileReader::new(Bytes::from(bytes.clone())).unwrap();
    let (start, length) = file.metadata().row_group(0).column(0).byte_range();
    let about = match kind {
        0 => [
            &[0x2c][..],
            &number(values),
            &number(0),
            &number(3),
            &number(3),
        ]
        .concat(),
        _ => [&[0x4c][..], &number(values), &number(0)].concat(),
    };
    let header = |packed| {
        [
            number(kind),
            number(unpacked),
            number(packed),
            about.clone(),
        ]
        .concat()
    };
    // Two zero bytes end it; a number of its size takes two bytes.
    let packed = length - header(1000).len() as u64 - 2;
    let header = [header(packed), vec![0, 0]].concat();
    let start = start as usize;
    bytes[start..start + header.len()].copy_from_slice(&header);
    bytes
}

fn with_footer(footer: &[u8]) -> Vec<u8> {
    let length = u32::try_from(footer.len()).unwrap().to_le_bytes();
    [b"PAR1", footer, &length, b"PAR1"].concat()
}

#[test]
fn a_page_that_claims_too_much_is_refused_before_it_is_unpacked() {
    assert_eq!(read(plain_table()), Ok(100));
    refused(
        with_page(0, 0x7fff_ffff, 200),
        "a page claims 2147483647 bytes, at most 64 MiB are read",
    );
    refused(
        with_page(2, 5000, 0x7fff_ffff),
        "bytes claims 2147483647 values",
    );
}

#[test]
fn texts_whose_counts_lie_within_the_page_are_refused() {
    for encoding in [
        Encoding::DELTA_BYTE_ARRAY,
        Encoding::DELTA_LENGTH_BYTE_ARRAY,
    ] {
        refused(
            table(encoding, Compression::SNAPPY),
            &format!("texts encoded as {encoding}"),
        );
    }
}

#[test]
fn a_footer_that_claims_too_much_is_refused_before_it_is_read() {
    let mut long = plain_table();
    let end = long.len();
    long[end - FOOTER_TAIL..end - 4].fill(0xff);
    refused(
        long,
        "its footer claims 4294967295 bytes, at most 16 MiB are read",
    );
    refused(b"PAR1".into(), "no parquet footer");

    // The second field is a list of structures, of which only the fifth field matters here.
    let column = |children| [&number(children)[..], &[0]].concat();
    let mut group = column(1);
    group[0] = 0x55;
    let mut wide = column(0x7fff_ffff);
    wide[0] = 0x55;
    let list = |length: u8| [&[0x29, 0xfc, length][..]].concat();
    let footer = |columns: &[u8], length| [&list(length)[..], columns, &[0]].concat();
    refused(
        with_footer(&footer(&wide, 1)),
        "a group of 2147483647 columns, and lists 1 in all",
    );
    refused(
        with_footer(&footer(&group.repeat(100), 100)),
        "nested deeper than 32",
    );
    refused(
        with_footer(&[0x29, 0xfc, 0xff, 0xff, 0x7f]),
        "lists 2097151 columns, at most 10000 are read",
    );
}
