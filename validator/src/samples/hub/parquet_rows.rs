//! Rows of a parquet file over ranged reads: the footer, then a few pages of a few row groups.

use std::{
    collections::{BTreeMap, VecDeque},
    io::{self, Read},
    sync::{Arc, Mutex, PoisonError},
};

use bytes::{Bytes, BytesMut};
use parquet::{
    errors::{ParquetError, Result as ParquetResult},
    file::{
        reader::{ChunkReader, FileReader, Length},
        serialized_reader::SerializedFileReader,
    },
    record::{Field, Row, reader::TreeBuilder},
    schema::types::{SchemaDescriptor, Type},
};
use rand::{Rng, SeedableRng, seq::SliceRandom};
use rand_chacha::ChaCha8Rng;
use serde_json::Value;
use tokio::runtime::Handle;

use super::{DataFile, MAX_BYTES, RangeReader};
use crate::samples::{harvest::Harvest, record::FIELDS};

/// Reads are rounded to blocks of this size, and the last ones are kept: page headers are tiny.
const BLOCK: u64 = 128 << 10;
const BLOCKS_KEPT: usize = 64;
/// Rows taken from one row group, so that a sample does not come from one place alone.
const ROWS_PER_GROUP: usize = 100;
/// Rows that may be decoded and passed over to begin at a random one.
const MAX_SKIP: usize = 200;

/// Values decoded at once.
const BATCH: usize = 32;

/// What to read.
pub(super) struct Job {
    pub(super) file: DataFile,
    pub(super) wanted: usize,
    pub(super) seed: u64,
}

/// Reads up to the wanted number of rows and gives the reader back. Blocks; call it on a thread
/// of its own.
pub(super) fn read(
    job: &Job,
    reader: RangeReader,
    handle: Handle,
    harvest: &mut Harvest,
) -> (RangeReader, Result<(), String>) {
    let origin = reader.origin(&job.file.path);
    let state = Arc::new(Mutex::new(State {
        reader,
        blocks: BTreeMap::new(),
        ages: VecDeque::new(),
    }));
    let remote = RemoteFile {
        path: job.file.path.clone(),
        size: job.file.size,
        state: Arc::clone(&state),
        handle,
    };
    let result = read_rows(job, remote, &origin, harvest);
    let state = Arc::into_inner(state).expect("the file reader is gone");
    let reader = state
        .into_inner()
        .unwrap_or_else(PoisonError::into_inner)
        .reader;
    (reader, result.map_err(|error| format!("{origin}: {error}")))
}

fn read_rows(
    job: &Job,
    remote: RemoteFile,
    origin: &str,
    harvest: &mut Harvest,
) -> ParquetResult<()> {
    let mut rng = ChaCha8Rng::seed_from_u64(job.seed);
    let file = SerializedFileReader::new(remote)?;
    let columns = projection(file.metadata().file_metadata().schema())?;
    let mut groups: Vec<usize> = (0..file.num_row_groups()).collect();
    groups.shuffle(&mut rng);
    let before = harvest.records.len();
    for group in groups {
        if harvest.records.len() - before >= job.wanted {
            break;
        }
        let reader = file.get_row_group(group)?;
        let rows = usize::try_from(reader.metadata().num_rows()).unwrap_or(0);
        let skip = rng.random_range(0..=rows.saturating_sub(ROWS_PER_GROUP).min(MAX_SKIP));
        // `RowIter` would read a thousand rows ahead, whatever its batch size.
        let iterator = TreeBuilder::new()
            .with_batch_size(BATCH)
            .as_iter(Arc::clone(&columns), reader.as_ref())?;
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

struct State {
    reader: RangeReader,
    blocks: BTreeMap<u64, Bytes>,
    /// The blocks in the order in which they came.
    ages: VecDeque<u64>,
}

/// A file on the hub as `parquet` wants to see it.
struct RemoteFile {
    path: String,
    size: u64,
    state: Arc<Mutex<State>>,
    handle: Handle,
}

impl RemoteFile {
    fn bytes(&self, start: u64, length: u64) -> ParquetResult<Bytes> {
        let end = start
            .checked_add(length)
            .filter(|end| *end <= self.size)
            .ok_or_else(|| {
                ParquetError::EOF(format!("{} ends before {start}+{length}", self.path))
            })?;
        if length > MAX_BYTES {
            let problem = format!("{} wants {length} bytes at once", self.path);
            return Err(ParquetError::General(problem));
        }
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let mut out = BytesMut::with_capacity(usize::try_from(length).unwrap_or(0));
        let (mut block, last) = (start / BLOCK, end.div_ceil(BLOCK));
        while block < last {
            if !state.blocks.contains_key(&block) {
                // Blocks missing side by side come in one request.
                let known = state.blocks.range(block..last).next();
                let until = known.map_or(last, |(known, _)| *known);
                self.fetch(&mut state, block, until)?;
            }
            let bytes = &state.blocks[&block];
            let from = block * BLOCK;
            let begin = usize::try_from(start.saturating_sub(from)).unwrap_or(usize::MAX);
            let stop = usize::try_from(end - from)
                .unwrap_or(usize::MAX)
                .min(bytes.len());
            out.extend_from_slice(bytes.get(begin..stop).unwrap_or_default());
            block += 1;
        }
        while state.ages.len() > BLOCKS_KEPT
            && let Some(oldest) = state.ages.pop_front()
        {
            state.blocks.remove(&oldest);
        }
        Ok(out.freeze())
    }

    /// Reads the blocks `first..last`.
    fn fetch(&self, state: &mut State, first: u64, last: u64) -> ParquetResult<()> {
        let from = first * BLOCK;
        let wanted = (last * BLOCK).min(self.size) - from;
        let read = state.reader.read(&self.path, from, wanted);
        let bytes = self
            .handle
            .block_on(read)
            .map_err(|error| ParquetError::External(error.into()))?;
        for (block, bytes) in (first..last).zip(bytes.chunks(BLOCK as usize)) {
            // A copy: a part would keep the whole answer in memory.
            state.blocks.insert(block, Bytes::copy_from_slice(bytes));
            state.ages.push_back(block);
        }
        Ok(())
    }
}

impl Length for RemoteFile {
    fn len(&self) -> u64 {
        self.size
    }
}

impl ChunkReader for RemoteFile {
    type T = RemoteRead;

    fn get_read(&self, start: u64) -> ParquetResult<RemoteRead> {
        let file = Self {
            path: self.path.clone(),
            size: self.size,
            state: Arc::clone(&self.state),
            handle: self.handle.clone(),
        };
        Ok(RemoteRead {
            file,
            position: start,
        })
    }

    fn get_bytes(&self, start: u64, length: usize) -> ParquetResult<Bytes> {
        self.bytes(start, length as u64)
    }
}

/// Reads on from a place, a block at a time.
struct RemoteRead {
    file: RemoteFile,
    position: u64,
}

impl Read for RemoteRead {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let to_block_end = BLOCK - self.position % BLOCK;
        let left = self.file.size.saturating_sub(self.position);
        let length = (buffer.len() as u64).min(to_block_end).min(left);
        let bytes = self
            .file
            .bytes(self.position, length)
            .map_err(io::Error::other)?;
        buffer[..bytes.len()].copy_from_slice(&bytes);
        self.position += length;
        Ok(bytes.len())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::plain;

    #[test]
    fn the_lists_of_older_writers_become_plain() {
        let turn = |role: &str| json!({"element": {"role": role, "content": "c"}});
        let value = json!({"messages": {"list": [turn("user"), turn("assistant")]}, "n": 1});
        let expected = json!({"messages": [
            {"role": "user", "content": "c"}, {"role": "assistant", "content": "c"}], "n": 1});
        assert_eq!(plain(value), expected);
    }
}
