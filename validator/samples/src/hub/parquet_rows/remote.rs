//! A file on the hub as `parquet` wants to see it: ranged reads in blocks, the last of which are kept.

use std::{
    collections::{BTreeMap, VecDeque},
    io::{self, Read},
    sync::{Arc, Mutex, PoisonError},
};

use bytes::{Bytes, BytesMut};
use parquet::{
    errors::{ParquetError, Result as ParquetResult},
    file::reader::{ChunkReader, Length},
};
use tokio::runtime::Handle;

use crate::hub::{DataFile, DatasetReader, MAX_BYTES};

/// Reads are rounded to blocks of this size, and the last ones are kept: page headers are tiny.
const BLOCK: u64 = 128 << 10;
const BLOCKS_KEPT: usize = 64;

struct ReadAhead {
    reader: DatasetReader,
    blocks: BTreeMap<u64, Bytes>,
    /// The blocks in the order in which they came.
    ages: VecDeque<u64>,
}

/// A file on the hub.
#[derive(Clone)]
pub(super) struct RemoteTable {
    data: Arc<DataFile>,
    state: Arc<Mutex<ReadAhead>>,
    handle: Handle,
}

impl RemoteTable {
    pub(super) fn new(data: Arc<DataFile>, reader: DatasetReader, handle: Handle) -> Self {
        Self {
            data,
            state: Arc::new(Mutex::new(ReadAhead {
                reader,
                blocks: BTreeMap::new(),
                ages: VecDeque::new(),
            })),
            handle,
        }
    }

    /// Gives the reader back, once all other handles of the file are gone.
    pub(super) fn into_reader(self) -> DatasetReader {
        let state = Arc::into_inner(self.state).expect("the other handles are gone");
        let state = state.into_inner().unwrap_or_else(PoisonError::into_inner);
        state.reader
    }

    fn size(&self) -> u64 {
        self.data.remote.size()
    }

    fn bytes(&self, start: u64, length: u64) -> ParquetResult<Bytes> {
        let end = start
            .checked_add(length)
            .filter(|end| *end <= self.size())
            .ok_or_else(|| {
                ParquetError::EOF(format!("{} ends before {start}+{length}", self.data.path))
            })?;
        if length > MAX_BYTES {
            let problem = format!("{} wants {length} bytes at once", self.data.path);
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

    fn fetch(&self, state: &mut ReadAhead, first: u64, last: u64) -> ParquetResult<()> {
        let from = first * BLOCK;
        let wanted = (last * BLOCK).min(self.size()) - from;
        let read = state.reader.read(&self.data, from, wanted);
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

impl Length for RemoteTable {
    fn len(&self) -> u64 {
        self.size()
    }
}

impl ChunkReader for RemoteTable {
    type T = RemoteRead;

    fn get_read(&self, start: u64) -> ParquetResult<RemoteRead> {
        Ok(RemoteRead {
            file: self.clone(),
            position: start,
        })
    }

    fn get_bytes(&self, start: u64, length: usize) -> ParquetResult<Bytes> {
        self.bytes(start, length as u64)
    }
}

/// Reads on from a place, a block at a time.
pub(super) struct RemoteRead {
    file: RemoteTable,
    position: u64,
}

impl Read for RemoteRead {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let to_block_end = BLOCK - self.position % BLOCK;
        let left = self.file.size().saturating_sub(self.position);
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
