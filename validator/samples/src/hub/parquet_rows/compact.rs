//! Thrift's compact protocol, as far as it takes to look at what a parquet file claims of itself.

use std::io::{self, Read};

use parquet::errors::{ParquetError, Result};

/// Structures within structures; those of parquet are six deep.
const MAX_DEPTH: u32 = 16;
/// The longest text or list of bytes skipped: the statistics of a page may hold its longest text.
const MAX_BINARY: u64 = 16 << 20;

/// The kind of a value, as it stands before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Kind(u8);

impl Kind {
    pub(super) const I32: Self = Self(5);
    pub(super) const LIST: Self = Self(9);
    pub(super) const STRUCT: Self = Self(12);
}

/// Reads values, and knows how many bytes they took.
pub(super) struct Compact<R> {
    input: R,
    taken: u64,
}

impl<R: Read> Compact<R> {
    pub(super) fn new(input: R) -> Self {
        Self { input, taken: 0 }
    }

    /// Returns how many bytes were read so far.
    pub(super) fn taken(&self) -> u64 {
        self.taken
    }

    /// Reads a structure: `take` is shown the number and kind of each field and either reads the
    /// value and returns true, or leaves it to be skipped.
    pub(super) fn structure(
        &mut self,
        mut take: impl FnMut(&mut Self, i64, Kind) -> Result<bool>,
    ) -> Result<()> {
        let mut number = 0;
        loop {
            let byte = self.byte()?;
            let kind = Kind(byte & 0x0f);
            if kind.0 == 0 {
                return Ok(());
            }
            number = match i64::from(byte >> 4) {
                0 => self.integer()?,
                further => number + further,
            };
            // A truth value is its kind.
            if kind.0 > 2 && !take(self, number, kind)? {
                self.skip(kind, 0)?;
            }
        }
    }

    /// Reads the beginning of a list: its length and the kind of its elements.
    pub(super) fn list(&mut self) -> Result<(u64, Kind)> {
        let byte = self.byte()?;
        let length = match u64::from(byte >> 4) {
            15 => self.unsigned()?,
            short => short,
        };
        Ok((length, Kind(byte & 0x0f)))
    }

    /// Reads an integer of any width.
    pub(super) fn integer(&mut self) -> Result<i64> {
        let zigzag = self.unsigned()?;
        Ok((zigzag >> 1).cast_signed() ^ -(zigzag & 1).cast_signed())
    }

    pub(super) fn skip(&mut self, kind: Kind, depth: u32) -> Result<()> {
        if depth > MAX_DEPTH {
            return Err(ParquetError::General("nested too deeply".into()));
        }
        match kind.0 {
            // In lists, truth values take a byte each.
            1..=3 => self.pass(1),
            4..=6 => self.unsigned().map(drop),
            7 => self.pass(8),
            8 => match self.unsigned()? {
                length if length <= MAX_BINARY => self.pass(length),
                length => Err(ParquetError::General(format!("a text of {length} bytes"))),
            },
            9 | 10 => {
                // Every element takes a byte at least: a list is no longer than its file.
                let (length, kind) = self.list()?;
                (0..length).try_for_each(|_| self.skip(kind, depth + 1))
            }
            11 => {
                let length = self.unsigned()?;
                let kinds = if length > 0 { self.byte()? } else { 0 };
                (0..length).try_for_each(|_| {
                    self.skip(Kind(kinds >> 4), depth + 1)?;
                    self.skip(Kind(kinds & 0x0f), depth + 1)
                })
            }
            12 => loop {
                let byte = self.byte()?;
                let kind = Kind(byte & 0x0f);
                if kind.0 == 0 {
                    return Ok(());
                }
                if byte >> 4 == 0 {
                    self.unsigned()?;
                }
                if kind.0 > 2 {
                    self.skip(kind, depth + 1)?;
                }
            },
            unknown => Err(ParquetError::General(format!(
                "no value is of kind {unknown}"
            ))),
        }
    }

    fn byte(&mut self) -> Result<u8> {
        let mut byte = [0];
        self.input.read_exact(&mut byte)?;
        self.taken += 1;
        Ok(byte[0])
    }

    fn unsigned(&mut self) -> Result<u64> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(ParquetError::General("a number without end".into()))
    }

    fn pass(&mut self, bytes: u64) -> Result<()> {
        let passed = io::copy(&mut self.input.by_ref().take(bytes), &mut io::sink())?;
        self.taken += passed;
        if passed < bytes {
            return Err(ParquetError::EOF("it ends too early".into()));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_read_or_passed_over() {
        // 1: i32 -3, 2: "ab", 3: true, 5: [[7], []], 6: {1: 1.0}, 300: i64 64
        let bytes = [
            0x15, 5, 0x18, 2, b'a', b'b', 0x11, 0x29, 0x29, 0x15, 14, 0x05, 0x1c, 0x17, 0, 0, 0, 0,
            0, 0, 0xf0, 0x3f, 0, 0x06, 0xd8, 4, 0x80, 1, 0,
        ];
        let mut reader = Compact::new(&bytes[..]);
        let mut seen = Vec::new();
        reader
            .structure(|reader, number, kind| {
                let integer = matches!(kind.0, 4..=6);
                seen.push((number, if integer { reader.integer()? } else { 0 }));
                Ok(integer)
            })
            .unwrap();
        assert_eq!(seen, [(1, -3), (2, 0), (5, 0), (6, 0), (300, 64)]);
        assert_eq!(reader.taken(), bytes.len() as u64);
    }

    #[test]
    fn rubbish_ends() {
        for bytes in [
            &[0x19; 64][..],           // lists in lists
            &[0x1c; 64],               // structures in structures
            &[0x18, 0xff, 0xff, 0x7f], // a text longer than the rest
            &[
                0x15, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
            ],
            &[0x1d, 0],
            &[],
        ] {
            let read = Compact::new(bytes).structure(|_, _, _| Ok(false));
            assert!(read.is_err(), "{bytes:?}");
        }
    }
}
