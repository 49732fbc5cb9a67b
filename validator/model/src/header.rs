//! The header of a safetensors file: parsed under hard limits, before any tensor is touched.
//!
//! A file is eight bytes of header length, the header as JSON, then the tensors. What is accepted
//! is what every reader agrees on: tensors in bounds, without overlap or gap, sizes that fit their
//! shapes, no name twice. Which formats count is a matter of the release ([`crate::loading`]).

use std::{
    collections::BTreeMap,
    fmt,
    io::{self, Read},
    ops::Range,
};

use half::f16;
use serde::{
    Deserialize, Deserializer,
    de::{Error as _, MapAccess, Visitor},
};

use crate::python_json::JsonError;

/// Largest header that is read; that of an 8 B model has 32 KiB.
pub const MAX_HEADER_BYTES: u64 = 8 << 20;

/// Bytes before the header.
pub const PREFIX_BYTES: u64 = 8;

/// Why a safetensors file is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    /// The file ends within its header.
    #[error("the file ends within its header")]
    Truncated,
    /// The header is longer than [`MAX_HEADER_BYTES`].
    #[error("the header claims {0} bytes, more than the {MAX_HEADER_BYTES} allowed")]
    TooLarge(u64),
    /// The header is not what it should be: bad JSON, a name twice, an unknown dtype.
    #[error("the header can't be read: {0}")]
    Malformed(String),
    /// A tensor's byte range does not fit its dtype and shape.
    #[error("tensor {name:?} of shape {shape:?} and dtype {dtype} has {found} bytes")]
    Size {
        name: String,
        shape: Vec<u64>,
        dtype: Dtype,
        /// Bytes of its range.
        found: u64,
    },
    /// A tensor starts before or after the end of the one before it.
    #[error("tensor {name:?} starts at byte {found} of the data, not {expected}")]
    Layout {
        name: String,
        found: u64,
        /// Where it has to start.
        expected: u64,
    },
    /// The tensors end elsewhere than the file.
    #[error("the tensors end at byte {tensors} of the data, the file at {file}")]
    Length {
        /// End of the last tensor.
        tensors: u64,
        file: u64,
    },
}

/// Type of a tensor's elements.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Deserialize)]
#[expect(non_camel_case_types, reason = "the names of the format")]
pub enum Dtype {
    BOOL,
    U8,
    I8,
    F8_E5M2,
    F8_E4M3,
    I16,
    U16,
    F16,
    BF16,
    I32,
    U32,
    F32,
    F64,
    I64,
    U64,
}

impl Dtype {
    /// Returns the bytes of one element.
    pub const fn bytes(self) -> u64 {
        match self {
            Self::BOOL | Self::U8 | Self::I8 | Self::F8_E5M2 | Self::F8_E4M3 => 1,
            Self::I16 | Self::U16 | Self::F16 | Self::BF16 => 2,
            Self::I32 | Self::U32 | Self::F32 => 4,
            Self::F64 | Self::I64 | Self::U64 => 8,
        }
    }

    /// Gives the values of whole elements as they lie in a file, in order; each is rounded to an
    /// `f32` once, as casting a tensor does.
    #[inline]
    pub fn values(self, bytes: &[u8], give: impl FnMut(f32)) {
        match self {
            Self::F32 => each(bytes, f32::from_le_bytes, give),
            // Shifting is all it takes, and keeps the loop free of branches on NaN.
            Self::BF16 => each(
                bytes,
                |b| f32::from_bits(u32::from(u16::from_le_bytes(b)) << 16),
                give,
            ),
            Self::F16 => each(bytes, |b| f16::from_le_bytes(b).to_f32(), give),
            Self::F64 => each(bytes, |b| f64::from_le_bytes(b) as f32, give),
            Self::F8_E5M2 => each(bytes, |[b]| f16::from_le_bytes([0, b]).to_f32(), give),
            Self::F8_E4M3 => each(bytes, |[b]| f8_e4m3(b), give),
            Self::BOOL => each(bytes, |[b]| f32::from(u8::from(b != 0)), give),
            Self::U8 => each(bytes, |[b]| f32::from(b), give),
            Self::I8 => each(bytes, |b| f32::from(i8::from_le_bytes(b)), give),
            Self::I16 => each(bytes, |b| f32::from(i16::from_le_bytes(b)), give),
            Self::U16 => each(bytes, |b| f32::from(u16::from_le_bytes(b)), give),
            Self::I32 => each(bytes, |b| i32::from_le_bytes(b) as f32, give),
            Self::U32 => each(bytes, |b| u32::from_le_bytes(b) as f32, give),
            Self::I64 => each(bytes, |b| i64::from_le_bytes(b) as f32, give),
            Self::U64 => each(bytes, |b| u64::from_le_bytes(b) as f32, give),
        }
    }
}

#[inline]
fn each<const N: usize>(bytes: &[u8], value: impl Fn([u8; N]) -> f32, mut give: impl FnMut(f32)) {
    for &element in bytes.as_chunks::<N>().0 {
        give(value(element));
    }
}

/// Widens a float of four bits of exponent and three of mantissa, without infinities ("e4m3fn").
fn f8_e4m3(bits: u8) -> f32 {
    let (exponent, mantissa) = (i32::from(bits >> 3 & 15), f32::from(bits & 7));
    let size = match (exponent, bits & 7) {
        (15, 7) => f32::NAN,
        (0, _) => mantissa / 512.0,
        _ => (1.0 + mantissa / 8.0) * 2.0_f32.powi(exponent - 7),
    };
    if bits & 0x80 == 0 { size } else { -size }
}

impl fmt::Display for Dtype {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// One tensor of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorInfo {
    pub dtype: Dtype,
    pub shape: Vec<u64>,
    /// Bytes of the tensor, counted from the start of the data (not of the file).
    pub bytes: Range<u64>,
}

impl TensorInfo {
    /// Returns the number of elements.
    pub fn elements(&self) -> u64 {
        (self.bytes.end - self.bytes.start) / self.dtype.bytes()
    }
}

/// A header that passed every check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// What `__metadata__` says of the format, if anything.
    format: Option<String>,
    tensors: BTreeMap<String, TensorInfo>,
    data_start: u64,
    data_bytes: u64,
}

impl Header {
    /// Reads the length of the header from the first bytes of a file.
    pub fn length(prefix: [u8; PREFIX_BYTES as usize]) -> Result<u64, HeaderError> {
        let length = u64::from_le_bytes(prefix);
        if length > MAX_HEADER_BYTES {
            Err(HeaderError::TooLarge(length))
        } else {
            Ok(length)
        }
    }

    /// Reads the header at the start of a file of `file_bytes`.
    ///
    /// # Errors
    /// The outer error is the reader's, the inner one the file's.
    pub fn read(reader: &mut impl Read, file_bytes: u64) -> io::Result<Result<Self, HeaderError>> {
        if file_bytes < PREFIX_BYTES {
            return Ok(Err(HeaderError::Truncated));
        }
        let mut prefix = [0; PREFIX_BYTES as usize];
        reader.read_exact(&mut prefix)?;
        let length = match Self::length(prefix) {
            Ok(length) => length,
            Err(error) => return Ok(Err(error)),
        };
        if length > file_bytes - PREFIX_BYTES {
            return Ok(Err(HeaderError::Truncated));
        }
        let mut json = vec![0; length as usize];
        reader.read_exact(&mut json)?;
        Ok(Self::parse(&json, file_bytes))
    }

    /// Parses the JSON of a header of a file of `file_bytes`.
    ///
    /// # Errors
    /// If anything about the file's layout is not as it should be.
    pub fn parse(json: &[u8], file_bytes: u64) -> Result<Self, HeaderError> {
        let header_bytes = json.len() as u64;
        if header_bytes > MAX_HEADER_BYTES {
            return Err(HeaderError::TooLarge(header_bytes));
        }
        let data_start = PREFIX_BYTES + header_bytes;
        let data_bytes = file_bytes
            .checked_sub(data_start)
            .ok_or(HeaderError::Truncated)?;
        let entries: Entries = serde_json::from_slice(json)
            .map_err(|error| HeaderError::Malformed(JsonError::from(error).to_string()))?;
        let format = entries
            .metadata
            .and_then(|mut metadata| metadata.remove("format"));
        check_layout(&entries.tensors, data_bytes)?;
        Ok(Self {
            format,
            tensors: entries.tensors,
            data_start,
            data_bytes,
        })
    }

    /// Returns what the file says its tensors were written by, such as `pt`.
    pub fn format(&self) -> Option<&str> {
        self.format.as_deref()
    }

    /// Returns the header of the same file with other tensors, which lie within its data.
    pub(crate) fn with_tensors(&self, tensors: BTreeMap<String, TensorInfo>) -> Self {
        Self {
            tensors,
            ..self.clone()
        }
    }

    /// Returns the tensors by name.
    pub const fn tensors(&self) -> &BTreeMap<String, TensorInfo> {
        &self.tensors
    }

    /// Returns the tensors in the order of their bytes.
    pub fn in_file_order(&self) -> Vec<(&str, &TensorInfo)> {
        let mut tensors: Vec<_> = self
            .tensors
            .iter()
            .map(|(name, info)| (name.as_str(), info))
            .collect();
        tensors.sort_by_key(|(_, info)| (info.bytes.start, info.bytes.end));
        tensors
    }

    /// Returns where the data start in the file.
    pub const fn data_start(&self) -> u64 {
        self.data_start
    }

    /// Returns the length of the file.
    pub const fn file_bytes(&self) -> u64 {
        self.data_start + self.data_bytes
    }

    /// Returns the length of the data.
    pub const fn data_bytes(&self) -> u64 {
        self.data_bytes
    }
}

fn check_layout(
    tensors: &BTreeMap<String, TensorInfo>,
    data_bytes: u64,
) -> Result<(), HeaderError> {
    let mut in_order: Vec<_> = tensors.iter().collect();
    in_order.sort_by_key(|(_, info)| (info.bytes.start, info.bytes.end));
    let mut end = 0;
    for (name, info) in in_order {
        if info.bytes.start != end {
            return Err(HeaderError::Layout {
                name: name.clone(),
                found: info.bytes.start,
                expected: end,
            });
        }
        let found = info.bytes.end.checked_sub(info.bytes.start);
        let elements = info
            .shape
            .iter()
            .try_fold(1_u64, |size, &dim| size.checked_mul(dim));
        let expected = elements.and_then(|elements| elements.checked_mul(info.dtype.bytes()));
        if found.is_none() || found != expected {
            return Err(HeaderError::Size {
                name: name.clone(),
                shape: info.shape.clone(),
                dtype: info.dtype,
                found: found.unwrap_or(0),
            });
        }
        end = info.bytes.end;
    }
    if end == data_bytes {
        Ok(())
    } else {
        Err(HeaderError::Length {
            tensors: end,
            file: data_bytes,
        })
    }
}

/// The JSON of a header, as it stands.
struct Entries {
    metadata: Option<BTreeMap<String, String>>,
    tensors: BTreeMap<String, TensorInfo>,
}

#[derive(Deserialize)]
struct RawTensor {
    dtype: Dtype,
    shape: Vec<u64>,
    data_offsets: (u64, u64),
}

impl<'de> Deserialize<'de> for Entries {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(EntriesVisitor)
    }
}

struct EntriesVisitor;

impl<'de> Visitor<'de> for EntriesVisitor {
    type Value = Entries;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of tensors")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Entries, A::Error> {
        let mut entries = Entries {
            metadata: None,
            tensors: BTreeMap::new(),
        };
        while let Some(name) = map.next_key::<String>()? {
            if name == "__metadata__" {
                if entries.metadata.replace(map.next_value()?).is_some() {
                    return Err(A::Error::custom("`__metadata__` appears twice"));
                }
                continue;
            }
            let RawTensor {
                dtype,
                shape,
                data_offsets: (start, end),
            } = map.next_value()?;
            let info = TensorInfo {
                dtype,
                shape,
                bytes: start..end,
            };
            if entries.tensors.contains_key(&name) {
                return Err(A::Error::custom(format!("tensor {name:?} appears twice")));
            }
            entries.tensors.insert(name, info);
        }
        Ok(entries)
    }
}

#[cfg(test)]
mod tests;
