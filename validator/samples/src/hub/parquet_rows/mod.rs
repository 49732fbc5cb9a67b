//! Rows of a parquet file over ranged reads: the footer, then a few pages of a few row groups.

mod claims;
mod compact;
mod remote;

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use parquet::{
    errors::{ParquetError, Result as ParquetResult},
    file::reader::{ChunkReader, RowGroupReader},
    record::{Field, Row, reader::TreeBuilder},
    schema::types::{SchemaDescriptor, Type},
};
use rand::{Rng, SeedableRng, seq::SliceRandom};
use rand_chacha::ChaCha8Rng;
use serde_json::Value;
use tokio::runtime::Handle;

use self::{claims::ParquetTable, remote::RemoteTable};
use super::{DataFile, DatasetReader};
use crate::{harvest::Harvest, record::FIELDS};

/// Rows taken from one row group, so that a sample does not come from one place alone.
const ROWS_PER_GROUP: usize = 100;
/// Rows that may be decoded and passed over to begin at a random one.
const MAX_SKIP: usize = 200;

const BATCH: usize = 32;

pub(super) struct TableJob {
    pub(super) file: Arc<DataFile>,
    pub(super) wanted: usize,
    pub(super) seed: u64,
}

/// Reads up to the wanted number of rows and gives the reader back. Blocks; call it on a thread
/// of its own.
pub(super) fn read(
    job: &TableJob,
    reader: DatasetReader,
    handle: Handle,
    harvest: &mut Harvest,
) -> (DatasetReader, Result<(), String>) {
    let origin = reader.origin(&job.file.path);
    let file = RemoteTable::new(Arc::clone(&job.file), reader, handle);
    let result = read_table(file.clone(), &origin, job.wanted, job.seed, harvest);
    let result = result.map_err(|error| format!("{origin}: {error}"));
    (file.into_reader(), result)
}

/// Reads up to `wanted` rows of a parquet file and what their row group has beyond, from places
/// that the seed picks. What was read before an error stays in the harvest.
pub fn read_table(
    file: impl ChunkReader + 'static,
    origin: &str,
    wanted: usize,
    seed: u64,
    harvest: &mut Harvest,
) -> ParquetResult<()> {
    let rows = || read_rows(file, origin, wanted, seed, harvest);
    // `parquet` has assertions that a file can fail.
    catch_unwind(AssertUnwindSafe(rows))
        .unwrap_or_else(|_| Err(ParquetError::General("it breaks the parquet reader".into())))
}

fn read_rows(
    file: impl ChunkReader + 'static,
    origin: &str,
    wanted: usize,
    seed: u64,
    harvest: &mut Harvest,
) -> ParquetResult<()> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let table = ParquetTable::open(file)?;
    let columns = projection(table.metadata.file_metadata().schema())?;
    let mut groups: Vec<usize> = (0..table.metadata.num_row_groups()).collect();
    groups.shuffle(&mut rng);
    let before = harvest.records.len();
    for group in groups {
        if harvest.records.len() - before >= wanted {
            break;
        }
        let reader = table.group(group);
        let rows = usize::try_from(reader.metadata().num_rows()).unwrap_or(0);
        let skip = rng.random_range(0..=rows.saturating_sub(ROWS_PER_GROUP).min(MAX_SKIP));
        // `RowIter` would read a thousand rows ahead, whatever its batch size.
        let iterator = TreeBuilder::new()
            .with_batch_size(BATCH)
            .as_iter(Arc::clone(&columns), &reader)?;
        for (index, row) in iterator.enumerate().skip(skip).take(ROWS_PER_GROUP) {
            let value = plain(object(&row?));
            harvest.read_value(&value, format!("{origin}#{group}.{index}"));
        }
    }
    Ok(())
}

/// The columns that a conversation may lie in; others, however large, are never read.
fn projection(schema: &Type) -> ParquetResult<Arc<SchemaDescriptor>> {
    let (fields, others): (Vec<_>, Vec<_>) = schema
        .get_fields()
        .iter()
        .cloned()
        .partition(|field| FIELDS.contains(&field.name()));
    if fields.is_empty() {
        let others: Vec<&str> = others.iter().map(|field| field.name()).collect();
        let others = others.join(", ");
        return Err(ParquetError::General(format!(
            "no column that could hold a conversation among {others}"
        )));
    }
    let columns = Type::group_type_builder(schema.name())
        .with_fields(fields)
        .build()?;
    Ok(Arc::new(SchemaDescriptor::new(Arc::new(columns))))
}

/// Texts, numbers and what is made of them; a conversation needs nothing else.
fn json(field: &Field) -> Value {
    match field {
        Field::Str(text) => Value::String(text.clone()),
        Field::Bytes(bytes) => Value::String(String::from_utf8_lossy(bytes.data()).into_owned()),
        Field::Bool(value) => Value::Bool(*value),
        Field::Int(value) => (*value).into(),
        Field::Long(value) => (*value).into(),
        Field::TimestampMillis(value) => (*value as f64 / 1e3).into(),
        Field::TimestampMicros(value) => (*value as f64 / 1e6).into(),
        Field::Float(value) => (*value).into(),
        Field::Double(value) => (*value).into(),
        Field::Group(row) => object(row),
        Field::ListInternal(list) => list.elements().iter().map(json).collect(),
        _ => Value::Null,
    }
}

fn object(row: &Row) -> Value {
    row.get_column_iter()
        .map(|(name, field)| (name.clone(), json(field)))
        .collect()
}

/// Lists written by older tools come as `{"list": [{"element": x}]}`; returns the plain list.
fn plain(value: Value) -> Value {
    match value {
        Value::Object(object) if object.len() == 1 && object.contains_key("list") => object
            .into_iter()
            .next()
            .map_or(Value::Null, |(_, list)| plain(list)),
        Value::Object(object) => object
            .into_iter()
            .map(|(key, value)| (key, plain(value)))
            .collect(),
        Value::Array(items) => items
            .into_iter()
            .map(|item| match item {
                Value::Object(mut object) if object.len() == 1 => {
                    match object.remove("element").or_else(|| object.remove("item")) {
                        Some(inner) => plain(inner),
                        None => plain(Value::Object(object)),
                    }
                }
                other => plain(other),
            })
            .collect(),
        other => other,
    }
}

#[cfg(test)]
mod tests;
