//! Conversations as parquet files, small ones and ones of many gigabytes.

use std::sync::Arc;

use axum::body::Bytes;
use parquet::{
    data_type::{ByteArray, ByteArrayType},
    errors::ParquetError,
    file::{
        metadata::{
            ParquetMetaData, ParquetMetaDataReader, ParquetMetaDataWriter, RowGroupMetaData,
        },
        properties::{EnabledStatistics, WriterProperties},
        writer::SerializedFileWriter,
    },
    schema::parser::parse_message_type,
};

use crate::{hub::Content, samples::Conversation};

/// Columns of conversations as datasets on the hub have them, beside one that nobody should read.
const PARQUET: &str = "message chat {
    required group messages (LIST) { repeated group list { required group element {
        required binary role (STRING);
        required binary content (STRING);
    } } }
    required binary ballast;
}";

/// Writes conversations as a parquet file: row groups of `rows` rows, pages of 50, and in each row
/// `ballast` bytes of a column that holds no conversation.
pub fn to_parquet(
    conversations: &[Conversation],
    rows: usize,
    ballast: usize,
) -> Result<Vec<u8>, ParquetError> {
    let schema = Arc::new(parse_message_type(PARQUET)?);
    let properties = WriterProperties::builder()
        .set_dictionary_enabled(false)
        .set_data_page_row_count_limit(50)
        .set_write_batch_size(50)
        .set_offset_index_disabled(true)
        .set_statistics_enabled(EnabledStatistics::None)
        .build();
    let mut writer = SerializedFileWriter::new(Vec::new(), schema, Arc::new(properties))?;
    for part in conversations.chunks(rows.max(1)) {
        let turns = || part.iter().flat_map(|conversation| &conversation.messages);
        let firsts = part.iter().flat_map(|conversation| {
            let turns = conversation.messages.len();
            (0..turns).map(|turn| i16::from(turn > 0))
        });
        let repetition: Vec<i16> = firsts.collect();
        let definition = vec![1; repetition.len()];
        let texts = [
            turns().map(|turn| turn.role.as_str().into()).collect(),
            turns().map(|turn| turn.content.as_str().into()).collect(),
            vec![ByteArray::from(vec![b'x'; ballast]); part.len()],
        ];
        let mut group = writer.next_row_group()?;
        for (index, values) in texts.iter().enumerate() {
            let levels = (index < 2).then_some((&definition[..], &repetition[..]));
            let Some(mut column) = group.next_column()? else {
                break;
            };
            column.typed::<ByteArrayType>().write_batch(
                values,
                levels.map(|(definition, _)| definition),
                levels.map(|(_, repetition)| repetition),
            )?;
            column.close()?;
        }
        group.close()?;
    }
    writer.into_inner()
}

/// Makes a parquet file that holds the row groups of `file` as many times over, each time at
/// another place: its footer names them all, its bytes are made up as they are sent.
pub fn repeated(file: Vec<u8>, times: u64) -> Result<Content, ParquetError> {
    const MAGIC: usize = 4;
    const FOOTER_END: usize = 8;
    let file = Bytes::from(file);
    let metadata = ParquetMetaDataReader::new().parse_and_finish(&file)?;
    let length = file.slice(file.len() - FOOTER_END..file.len() - MAGIC);
    let length = length
        .iter()
        .rev()
        .fold(0, |n, byte| n << 8 | usize::from(*byte));
    let tile = file.slice(MAGIC..file.len() - FOOTER_END - length);
    let mut groups = Vec::new();
    for time in 0..times {
        for group in metadata.row_groups() {
            groups.push(moved(group, time * tile.len() as u64)?);
        }
    }
    let rows = metadata.file_metadata().num_rows() * i64::try_from(times).unwrap_or(i64::MAX);
    let described = parquet::file::metadata::FileMetaData::new(
        metadata.file_metadata().version(),
        rows,
        None,
        None,
        metadata.file_metadata().schema_descr_ptr(),
        None,
    );
    let mut tail = Vec::new();
    ParquetMetaDataWriter::new(&mut tail, &ParquetMetaData::new(described, groups)).finish()?;
    Ok(Content::Tiled {
        head: file.slice(..MAGIC),
        tile,
        tiles: times,
        tail: tail.into(),
        sha256: format!("{times:064x}"),
    })
}

/// A row group that lies `by` bytes further on.
fn moved(group: &RowGroupMetaData, by: u64) -> Result<RowGroupMetaData, ParquetError> {
    let by = i64::try_from(by).unwrap_or(i64::MAX);
    let columns = group.columns().iter().map(|column| {
        let dictionary = column.dictionary_page_offset().map(|at| at + by);
        column
            .clone()
            .into_builder()
            .set_data_page_offset(column.data_page_offset() + by)
            .set_dictionary_page_offset(dictionary)
            .build()
    });
    group
        .clone()
        .into_builder()
        .set_column_metadata(columns.collect::<Result<_, _>>()?)
        .build()
}
