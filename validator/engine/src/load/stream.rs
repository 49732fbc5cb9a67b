//! One pass over a weights file: hash, norms and conversion, block by block.

use std::{
    fs::File,
    io::{self, Read, Seek},
};

use model::{
    Fault, MachineFaultKind,
    header::{Dtype, Header},
    norms::{FileNorms, ProjectionNorms},
};
use sha2::{Digest, Sha256};

use crate::cpu::Element;

/// Bytes read at once.
const BLOCK: usize = 8 << 20;

/// What was learnt from a file.
#[derive(Debug)]
pub(super) struct Streamed {
    pub(super) bytes: u64,
    pub(super) digest: [u8; 32],
    pub(super) norms: ProjectionNorms,
}

/// Reads a file from its start, whose header names what is loaded, and hands out the whole elements of each block: tensor, number of
/// the first element, dtype, bytes.
///
/// # Errors
/// The machine's, if the file can't be read to its end, and those of `give`.
pub(super) fn read(
    mut file: &File,
    header: &Header,
    progress: &(dyn Fn(u64) + Sync),
    mut give: impl FnMut(&str, usize, Dtype, &[u8]) -> Result<(), Fault>,
) -> Result<Streamed, Fault> {
    let storage = |error: io::Error| Fault::machine(MachineFaultKind::Storage, error);
    file.rewind().map_err(storage)?;
    let mut hash = Sha256::new();
    let mut norms = FileNorms::new(header);
    let mut tensors = Tensors::new(header);
    let mut buffer = vec![0; BLOCK + Tensors::MAX_CARRY];
    // Bytes at the start of the buffer that are the beginning of an element.
    let mut carry = 0;
    let mut bytes = 0;
    loop {
        let count = file
            .read(&mut buffer[carry..carry + BLOCK])
            .map_err(storage)?;
        if count == 0 {
            break;
        }
        let end = carry + count;
        hash.update(&buffer[carry..end]);
        norms.update(&buffer[carry..end]);
        let used = tensors.take(bytes - carry as u64, &buffer[..end], &mut give)?;
        buffer.copy_within(used..end, 0);
        carry = end - used;
        bytes += count as u64;
        progress(count as u64);
    }
    match norms.finish() {
        Some(norms) if bytes == header.file_bytes() && tensors.are_done() => Ok(Streamed {
            bytes,
            digest: hash.finalize().into(),
            norms,
        }),
        _ => Err(Fault::machine(
            MachineFaultKind::Storage,
            "a file became shorter",
        )),
    }
}

/// The tensors of a file, in the order of their bytes.
struct Tensors<'a> {
    /// Name, dtype, start and end in the file; the next one last.
    ahead: Vec<(&'a str, Dtype, u64, u64)>,
}

impl<'a> Tensors<'a> {
    /// Most bytes of an element that may be left over.
    const MAX_CARRY: usize = 7;

    fn new(header: &'a Header) -> Self {
        let start = header.data_start();
        let place = |(name, info): (&'a str, &model::header::TensorInfo)| {
            (
                name,
                info.dtype,
                start + info.bytes.start,
                start + info.bytes.end,
            )
        };
        let mut ahead: Vec<_> = header.in_file_order().into_iter().map(place).collect();
        ahead.reverse();
        Self { ahead }
    }

    const fn are_done(&self) -> bool {
        self.ahead.is_empty()
    }

    /// Hands out the whole elements among `bytes`, which lie at `position` of the file. Returns
    /// how many bytes need not be seen again.
    fn take(
        &mut self,
        position: u64,
        bytes: &[u8],
        give: &mut impl FnMut(&str, usize, Dtype, &[u8]) -> Result<(), Fault>,
    ) -> Result<usize, Fault> {
        let end = position + bytes.len() as u64;
        while let Some(&(name, dtype, first, last)) = self.ahead.last() {
            if first >= end && first < last {
                break;
            }
            let size = dtype.bytes();
            let from = first.max(position);
            let to = last.min(end);
            let whole = (to - from) / size * size;
            let range = (from - position) as usize..(from - position + whole) as usize;
            give(
                name,
                ((from - first) / size) as usize,
                dtype,
                &bytes[range.clone()],
            )?;
            if last > end {
                return Ok(range.end);
            }
            self.ahead.pop();
        }
        Ok(bytes.len())
    }
}

/// Converts elements as they lie in a file, in the order of their numbers.
pub(super) fn convert<T: Element>(dtype: Dtype, bytes: &[u8], out: &mut [T]) {
    use half::{bf16, f16};
    match dtype {
        // By far the most; written so that they become vector instructions.
        Dtype::F32 => each(bytes, out, |b| T::round(f32::from_le_bytes(b))),
        Dtype::BF16 => each(bytes, out, |b| T::round(bf16::from_le_bytes(b).widen())),
        Dtype::F16 => each(bytes, out, |b| T::round(f16::from_le_bytes(b).widen())),
        other => {
            let mut out = out.iter_mut();
            other.values(bytes, |value| {
                if let Some(out) = out.next() {
                    *out = T::round(value);
                }
            });
        }
    }
}

#[inline]
fn each<const N: usize, T>(bytes: &[u8], out: &mut [T], value: impl Fn([u8; N]) -> T) {
    let (elements, _) = bytes.as_chunks::<N>();
    for (out, &element) in out.iter_mut().zip(elements) {
        *out = value(element);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    /// A file of three tensors of different dtypes, none of them aligned.
    fn file() -> (Vec<u8>, Header) {
        let json = r#"{"__metadata__":{"format":"pt"},
            "a":{"dtype":"F64","shape":[3],"data_offsets":[0,24]},
            "empty":{"dtype":"F32","shape":[0,5],"data_offsets":[24,24]},
            "b":{"dtype":"BF16","shape":[5],"data_offsets":[24,34]},
            "c":{"dtype":"F32","shape":[2,2],"data_offsets":[34,50]}}"#;
        let mut file = (json.len() as u64).to_le_bytes().to_vec();
        file.extend(json.as_bytes());
        file.extend([1.5_f64, -2.25, 1e30].iter().flat_map(|x| x.to_le_bytes()));
        file.extend(
            [1.0_f32, 2.0, 3.0, 4.0, 5.0]
                .iter()
                .flat_map(|x| half::bf16::from_f32(*x).to_le_bytes()),
        );
        file.extend(
            [6.0_f32, 7.0, 8.0, f32::INFINITY]
                .iter()
                .flat_map(|x| x.to_le_bytes()),
        );
        let header = Header::parse(json.as_bytes(), file.len() as u64).unwrap();
        (file, header)
    }

    proptest! {
        #[test]
        fn elements_arrive_whole_whatever_the_blocks(sizes in proptest::collection::vec(1_usize..40, 400)) {
            let (file, header) = file();
            let mut found: BTreeMap<String, Vec<f32>> = BTreeMap::new();
            let mut tensors = Tensors::new(&header);
            let (mut carry, mut read) = (Vec::new(), 0);
            for size in sizes {
                let fresh = &file[read..(read + size).min(file.len())];
                let known = [carry.as_slice(), fresh].concat();
                let used = tensors.take((read - carry.len()) as u64, &known, &mut |name, first, dtype, bytes| {
                    let values = found.entry(name.to_owned()).or_default();
                    assert_eq!(values.len(), first);
                    values.resize(first + bytes.len() / dtype.bytes() as usize, 0.0);
                    convert(dtype, bytes, &mut values[first..]);
                    Ok(())
                }).unwrap();
                carry = known[used..].to_vec();
                prop_assert!(carry.len() <= Tensors::MAX_CARRY);
                read += fresh.len();
            }
            prop_assert!(tensors.are_done());
            prop_assert_eq!(&found["a"], &[1.5, -2.25, 1e30]);
            prop_assert_eq!(&found["b"], &[1.0, 2.0, 3.0, 4.0, 5.0]);
            prop_assert_eq!(&found["c"], &[6.0, 7.0, 8.0, f32::INFINITY]);
        }
    }
}
