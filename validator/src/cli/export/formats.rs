//! Rows as CSV, JSON lines or Parquet.

use std::{
    io::{self, BufWriter, Write},
    sync::Arc,
};

use parquet::{
    basic::{Compression, LogicalType, Repetition, Type as Physical},
    data_type::{BoolType, ByteArray, ByteArrayType, DoubleType, Int64Type},
    errors::ParquetError,
    file::{properties::WriterProperties, writer::SerializedFileWriter},
    schema::types::Type,
};
use serde_json::Value;

use super::FileFormat;

/// Rows of a Parquet file that are held at once.
const GROUP: usize = 65_536;

/// What a column holds; every cell may be absent.
#[derive(Debug, Clone, Copy)]
pub(super) enum ColumnKind {
    Whole,
    Number,
    Flag,
    Text,
}

pub(super) type Column = (&'static str, ColumnKind);

type Output = BufWriter<Box<dyn Write + Send>>;

/// Writes rows, JSON objects, in one of the formats.
pub(super) struct Writer {
    columns: &'static [Column],
    sink: Sink,
}

enum Sink {
    Csv(Output),
    Jsonl(Output),
    Parquet(Box<SerializedFileWriter<Output>>, Vec<Value>),
}

impl Writer {
    pub(super) fn new(
        format: FileFormat,
        columns: &'static [Column],
        mut output: Output,
    ) -> io::Result<Self> {
        let sink = match format {
            FileFormat::Csv => {
                let names: Vec<&str> = columns.iter().map(|(name, _)| *name).collect();
                write!(output, "{}\r\n", names.join(","))?;
                Sink::Csv(output)
            }
            FileFormat::Jsonl => Sink::Jsonl(output),
            FileFormat::Parquet => {
                let properties = WriterProperties::builder()
                    .set_compression(Compression::SNAPPY)
                    .build();
                let schema = schema(columns).map_err(other)?;
                let file =
                    SerializedFileWriter::new(output, Arc::new(schema), Arc::new(properties));
                Sink::Parquet(Box::new(file.map_err(other)?), Vec::new())
            }
        };
        Ok(Self { columns, sink })
    }

    pub(super) fn row(&mut self, row: &Value) -> io::Result<()> {
        match &mut self.sink {
            Sink::Csv(output) => {
                let cells: Vec<String> = self
                    .columns
                    .iter()
                    .map(|(name, _)| csv_cell(row.get(name)))
                    .collect();
                write!(output, "{}\r\n", cells.join(","))
            }
            Sink::Jsonl(output) => writeln!(output, "{row}"),
            Sink::Parquet(file, rows) => {
                rows.push(row.clone());
                if rows.len() >= GROUP {
                    group(file, self.columns, rows).map_err(other)?;
                }
                Ok(())
            }
        }
    }

    pub(super) fn finish(self) -> io::Result<()> {
        match self.sink {
            Sink::Csv(mut output) | Sink::Jsonl(mut output) => output.flush(),
            Sink::Parquet(mut file, mut rows) => {
                group(&mut file, self.columns, &mut rows).map_err(other)?;
                file.close().map(drop).map_err(other)
            }
        }
    }
}

fn other(error: ParquetError) -> io::Error {
    match error {
        ParquetError::External(error) => match error.downcast::<io::Error>() {
            Ok(error) => *error,
            Err(error) => io::Error::other(error),
        },
        error => io::Error::other(error),
    }
}

/// A cell as RFC 4180 has it. Miners choose texts: one that begins like a formula gets an apostrophe in front, so that
/// no spreadsheet computes it.
fn csv_cell(value: Option<&Value>) -> String {
    let text = match value {
        None | Some(Value::Null) => return String::new(),
        Some(Value::String(text)) if text.starts_with(['=', '+', '-', '@', '\t', '\r']) => {
            match text.as_str() {
                "-inf" => text.clone(),
                _ => format!("'{text}"),
            }
        }
        Some(Value::String(text)) => text.clone(),
        Some(value) => value.to_string(),
    };
    if text.contains(['"', ',', '\n', '\r']) {
        return format!("\"{}\"", text.replace('"', "\"\""));
    }
    text
}

fn schema(columns: &[Column]) -> Result<Type, ParquetError> {
    let fields = columns.iter().map(|(name, kind)| {
        let (physical, logical) = match kind {
            ColumnKind::Whole => (Physical::INT64, None),
            ColumnKind::Number => (Physical::DOUBLE, None),
            ColumnKind::Flag => (Physical::BOOLEAN, None),
            ColumnKind::Text => (Physical::BYTE_ARRAY, Some(LogicalType::String)),
        };
        Type::primitive_type_builder(name, physical)
            .with_repetition(Repetition::OPTIONAL)
            .with_logical_type(logical)
            .build()
            .map(Arc::new)
    });
    Type::group_type_builder("schema")
        .with_fields(fields.collect::<Result<_, _>>()?)
        .build()
}

fn number(value: &Value) -> Option<f64> {
    match value {
        Value::String(text) => text.parse().ok(),
        value => value.as_f64(),
    }
}

/// Writes the rows that are held, and holds none.
fn group<W: Write + Send>(
    file: &mut SerializedFileWriter<W>,
    columns: &[Column],
    rows: &mut Vec<Value>,
) -> Result<(), ParquetError> {
    if rows.is_empty() {
        return Ok(());
    }
    let mut group = file.next_row_group()?;
    for (name, kind) in columns {
        let Some(mut column) = group.next_column()? else {
            break;
        };
        let cells = || {
            rows.iter()
                .map(|row| row.get(name).filter(|cell| !cell.is_null()))
        };
        // 1 where a cell is there.
        macro_rules! write {
            ($kind:ty, $read:expr) => {{
                let read: Vec<Option<_>> = cells().map(|cell| cell.and_then($read)).collect();
                let levels: Vec<i16> = read.iter().map(|cell| i16::from(cell.is_some())).collect();
                let values: Vec<_> = read.into_iter().flatten().collect();
                column
                    .typed::<$kind>()
                    .write_batch(&values, Some(&levels), None)?;
            }};
        }
        match kind {
            ColumnKind::Whole => write!(Int64Type, Value::as_i64),
            ColumnKind::Number => write!(DoubleType, number),
            ColumnKind::Flag => write!(BoolType, Value::as_bool),
            ColumnKind::Text => write!(ByteArrayType, |cell: &Value| {
                cell.as_str()
                    .map(|text| ByteArray::from(text.as_bytes().to_vec()))
            }),
        }
        column.close()?;
    }
    group.close()?;
    rows.clear();
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_text_of_a_miner_becomes_a_formula_or_another_cell() {
        let cell = |text: &str| csv_cell(Some(&Value::from(text)));
        assert_eq!(cell("=HYPERLINK(\"x\",1)"), "\"'=HYPERLINK(\"\"x\"\",1)\"");
        assert_eq!(cell("@x"), "'@x");
        assert_eq!(cell("a\nb"), "\"a\nb\"");
        assert_eq!(cell("-inf"), "-inf");
        assert_eq!(csv_cell(Some(&Value::from(-1.5))), "-1.5");
        assert_eq!(csv_cell(None), "");
    }
}
