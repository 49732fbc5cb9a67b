//! What a parquet file claims of itself, and what of it is believed.
//!
//! `parquet` allocates what a footer or a page header says. Here both are read before it reads
//! them, and what goes beyond the limits is refused.

use std::{
    io::{BufReader, Read},
    sync::{Arc, Mutex, PoisonError},
};

use parquet::{
    basic::Encoding,
    bloom_filter::Sbbf,
    column::page::{Page, PageMetadata, PageReader},
    errors::{ParquetError, Result},
    file::{
        metadata::{ColumnChunkMetaData, ParquetMetaData, ParquetMetaDataReader, RowGroupMetaData},
        reader::{ChunkReader, RowGroupReader},
        serialized_reader::SerializedPageReader,
    },
    record::reader::RowIter,
    schema::types::Type,
};

use super::compact::{Compact, Kind};

const MAX_FOOTER: u64 = 16 << 20;
/// Columns and groups of columns, and how deep groups lie in groups.
const MAX_COLUMNS: u64 = 10_000;
const MAX_NESTING: usize = 32;
/// The largest page, unpacked. Pages are of 1 MiB as a rule, and of a thousand rows at the least.
const MAX_PAGE: u64 = 64 << 20;
/// What all pages read of a file may come to, unpacked.
const MAX_UNPACKED: u64 = 512 << 20;
/// Values in all pages read of lists: a run of any length takes a few bytes, and one row may hold it.
const MAX_LISTED: u64 = 8 << 20;
/// No value of a dictionary takes fewer bytes.
const MIN_VALUE: usize = 4;

const TAIL: u64 = 8;
const INDEX_PAGE: i64 = 1;

/// A file whose footer has been looked at, with what may still be read of it.
pub(super) struct ParquetTable<R> {
    file: Arc<R>,
    pub(super) metadata: ParquetMetaData,
    budget: Arc<Mutex<Budget>>,
}

#[derive(Debug)]
struct Budget {
    unpacked: u64,
    listed: u64,
}

impl<R: ChunkReader + 'static> ParquetTable<R> {
    pub(super) fn open(file: R) -> Result<Self> {
        let no_footer = || refused("it has no parquet footer");
        let end = file.len().checked_sub(TAIL).ok_or_else(no_footer)?;
        let tail = file.get_bytes(end, TAIL as usize)?;
        let (length, magic) = tail.split_first_chunk::<4>().ok_or_else(no_footer)?;
        let length = u64::from(u32::from_le_bytes(*length));
        if magic != b"PAR1" {
            return Err(no_footer());
        }
        if length > MAX_FOOTER {
            return Err(over("its footer", length, MAX_FOOTER));
        }
        let start = end.checked_sub(length).ok_or_else(no_footer)?;
        let bytes = file.get_bytes(start, length as usize)?;
        look_at_footer(&bytes)?;
        Ok(Self {
            file: Arc::new(file),
            metadata: ParquetMetaDataReader::decode_metadata(&bytes)?,
            budget: Arc::new(Mutex::new(Budget {
                unpacked: MAX_UNPACKED,
                listed: MAX_LISTED,
            })),
        })
    }

    /// Returns a row group whose pages are looked at before they are unpacked.
    pub(super) fn group(&self, index: usize) -> Group<'_, R> {
        Group {
            table: self,
            metadata: self.metadata.row_group(index),
        }
    }
}

/// Walks through a footer, so that every list in it is as long as it says, and its tree of columns
/// no deeper than what a stack takes.
fn look_at_footer(bytes: &[u8]) -> Result<()> {
    const SCHEMA: i64 = 2;
    Compact::new(bytes).structure(|reader, number, kind| {
        if (number, kind) != (SCHEMA, Kind::LIST) {
            return Ok(false);
        }
        let (length, kind) = reader.list()?;
        if length > MAX_COLUMNS || kind != Kind::STRUCT {
            return Err(refused(format_args!(
                "its footer lists {length} columns, at most {MAX_COLUMNS} are read"
            )));
        }
        // Children that are still to come, of each group on the way down.
        let mut open: Vec<u64> = Vec::new();
        for position in 1..=length {
            while open.pop_if(|left| *left == 0).is_some() {}
            if let Some(left) = open.last_mut() {
                *left -= 1;
            }
            let children = children(reader)?;
            if children > length - position {
                return Err(refused(format_args!(
                    "its footer claims a group of {children} columns, and lists {length} in all"
                )));
            }
            open.push(children);
            if open.len() > MAX_NESTING {
                return Err(refused(format_args!(
                    "its columns are nested deeper than {MAX_NESTING}"
                )));
            }
        }
        Ok(true)
    })
}

/// Reads a column of the schema and returns how many columns it says are its children.
fn children(reader: &mut Compact<&[u8]>) -> Result<u64> {
    const CHILDREN: i64 = 5;
    let mut children = 0;
    reader.structure(|reader, number, kind| {
        let found = (number, kind) == (CHILDREN, Kind::I32);
        if found {
            let claimed = reader.integer()?;
            children =
                u64::try_from(claimed).map_err(|_| refused("a group of columns below zero"))?;
        }
        Ok(found)
    })?;
    Ok(children)
}

/// A row group of a [`ParquetTable`].
pub(super) struct Group<'a, R> {
    table: &'a ParquetTable<R>,
    metadata: &'a RowGroupMetaData,
}

impl<R: ChunkReader + 'static> RowGroupReader for Group<'_, R> {
    fn metadata(&self) -> &RowGroupMetaData {
        self.metadata
    }

    fn num_columns(&self) -> usize {
        self.metadata.num_columns()
    }

    fn get_column_page_reader(&self, index: usize) -> Result<Box<dyn PageReader>> {
        let rows = usize::try_from(self.metadata.num_rows())?;
        let pages = Pages::new(self.table, self.metadata.column(index), rows)?;
        Ok(Box::new(pages))
    }

    fn get_column_bloom_filter(&self, _index: usize) -> Option<&Sbbf> {
        None
    }

    fn get_row_iter(&self, projection: Option<Type>) -> Result<RowIter<'_>> {
        RowIter::from_row_group(projection, self)
    }
}

/// The pages of a column chunk, each looked at before it is unpacked.
struct Pages<R: ChunkReader> {
    reader: SerializedPageReader<R>,
    file: Arc<R>,
    budget: Arc<Mutex<Budget>>,
    in_lists: bool,
    /// Where the next page begins, and what is left of the chunk from there.
    next: u64,
    left: u64,
}

impl<R: ChunkReader + 'static> Pages<R> {
    fn new(table: &ParquetTable<R>, column: &ColumnChunkMetaData, rows: usize) -> Result<Self> {
        let start = column.dictionary_page_offset();
        let start = start.unwrap_or_else(|| column.data_page_offset());
        // `parquet` would panic.
        if start < 0 || column.compressed_size() < 0 {
            return Err(refused("a column begins or ends before the file does"));
        }
        let (next, left) = column.byte_range();
        Ok(Self {
            reader: SerializedPageReader::new(Arc::clone(&table.file), column, rows, None)?,
            file: Arc::clone(&table.file),
            budget: Arc::clone(&table.budget),
            in_lists: column.column_descr().max_rep_level() > 0,
            next,
            left,
        })
    }

    /// Looks at the page that comes next.
    fn look(&mut self) -> Result<()> {
        while self.left > 0 {
            // Headers are short, unless they have the statistics of long texts.
            let input = BufReader::with_capacity(256, self.file.get_read(self.next)?);
            let page = PageClaims::read(input.take(self.left))?;
            let length = page.header.checked_add(page.packed);
            let length = length.filter(|length| *length <= self.left);
            let length = length.ok_or_else(|| refused("a page that ends after its column"))?;
            self.next += length;
            self.left -= length;
            // Nobody unpacks those.
            if page.kind != INDEX_PAGE {
                return self.believe(&page);
            }
        }
        Ok(())
    }

    fn believe(&self, page: &PageClaims) -> Result<()> {
        if page.unpacked > MAX_PAGE {
            return Err(over("a page", page.unpacked, MAX_PAGE));
        }
        let mut budget = self.budget.lock().unwrap_or_else(PoisonError::into_inner);
        let spend = |left: u64, wanted: u64, most: &str| {
            left.checked_sub(wanted)
                .ok_or_else(|| refused(format_args!("the pages read come to more than {most}")))
        };
        let most = format!("{} MiB unpacked", MAX_UNPACKED >> 20);
        budget.unpacked = spend(budget.unpacked, page.unpacked, &most)?;
        if self.in_lists {
            let most = format!("{MAX_LISTED} values of lists");
            budget.listed = spend(budget.listed, page.values, &most)?;
        }
        Ok(())
    }
}

impl<R: ChunkReader + 'static> Iterator for Pages<R> {
    type Item = Result<Page>;

    fn next(&mut self) -> Option<Self::Item> {
        self.get_next_page().transpose()
    }
}

impl<R: ChunkReader + 'static> PageReader for Pages<R> {
    fn get_next_page(&mut self) -> Result<Option<Page>> {
        self.look()?;
        let page = self.reader.get_next_page()?;
        match &page {
            Some(Page::DictionaryPage {
                buf, num_values, ..
            }) if *num_values as usize > buf.len() / MIN_VALUE => Err(refused(format_args!(
                "a dictionary of {} bytes claims {num_values} values",
                buf.len()
            ))),
            // Their counts lie within the page, and `parquet` allocates what they say.
            Some(Page::DataPage { encoding, .. } | Page::DataPageV2 { encoding, .. })
                if matches!(
                    encoding,
                    Encoding::DELTA_LENGTH_BYTE_ARRAY | Encoding::DELTA_BYTE_ARRAY
                ) =>
            {
                Err(refused(format_args!(
                    "texts encoded as {encoding} are not read"
                )))
            }
            _ => Ok(page),
        }
    }

    fn peek_next_page(&mut self) -> Result<Option<PageMetadata>> {
        self.reader.peek_next_page()
    }

    fn skip_next_page(&mut self) -> Result<()> {
        self.look()?;
        self.reader.skip_next_page()
    }

    fn at_record_boundary(&mut self) -> Result<bool> {
        self.reader.at_record_boundary()
    }
}

/// What the header of a page says: sizes in bytes.
#[derive(Debug, Default)]
struct PageClaims {
    kind: i64,
    header: u64,
    packed: u64,
    unpacked: u64,
    values: u64,
}

impl PageClaims {
    fn read(input: impl Read) -> Result<Self> {
        const KIND: i64 = 1;
        const UNPACKED: i64 = 2;
        const PACKED: i64 = 3;
        const DATA: i64 = 5;
        const DATA_V2: i64 = 8;
        const VALUES: i64 = 1;
        let mut page = Self::default();
        let mut reader = Compact::new(input);
        reader.structure(|reader, number, kind| {
            match (number, kind) {
                (KIND, Kind::I32) => page.kind = reader.integer()?,
                (UNPACKED, Kind::I32) => page.unpacked = size(reader.integer()?)?,
                (PACKED, Kind::I32) => page.packed = size(reader.integer()?)?,
                (DATA | DATA_V2, Kind::STRUCT) => reader.structure(|reader, number, kind| {
                    let found = (number, kind) == (VALUES, Kind::I32);
                    if found {
                        page.values = size(reader.integer()?)?;
                    }
                    Ok(found)
                })?,
                _ => return Ok(false),
            }
            Ok(true)
        })?;
        page.header = reader.taken();
        Ok(page)
    }
}

fn size(claimed: i64) -> Result<u64> {
    u64::try_from(claimed).map_err(|_| refused("a page of less than nothing"))
}

fn over(what: &str, claimed: u64, most: u64) -> ParquetError {
    let most = most >> 20;
    refused(format_args!(
        "{what} claims {claimed} bytes, at most {most} MiB are read"
    ))
}

fn refused(why: impl std::fmt::Display) -> ParquetError {
    ParquetError::General(why.to_string())
}
