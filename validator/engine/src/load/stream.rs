//! One pass over weights files, block by block: hash, norms and conversion.
//!
//! A file's hash is a chain, everything else can be done side by side. So a few threads each read blocks of their
//! own, sum squares and put elements where they go, and hand the block on to one that hashes all of them in order;
//! then its buffer is read into again.

use std::{
    collections::BTreeMap,
    fs::File,
    io,
    ops::Range,
    os::unix::fs::FileExt,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Mutex, PoisonError,
        mpsc::{Receiver, Sender, channel},
    },
    thread,
};

use model::{
    Fault, MachineFaultKind,
    header::{Dtype, Header},
    norms::{Projection, ProjectionNorms, square_sum},
};
use sha2::{Digest, Sha256};
use shared::task::panic_message;

use crate::cpu::Element;

/// Bytes of a block. Small enough that what one thread read is still in the cache when another hashes it.
pub(super) const BLOCK: usize = 4 << 20;

/// Bytes beyond a block that its last element may reach.
pub(super) const BEYOND: usize = 7;

/// Threads that read one file. Reading, summing and copying take about as long as two hashes.
const MOST_READERS: usize = 4;

/// What was learnt from a file.
#[derive(Debug)]
pub(super) struct Streamed {
    pub(super) bytes: u64,
    pub(super) digest: [u8; 32],
    pub(super) norms: ProjectionNorms,
}

/// The elements of a tensor that begin in one block.
#[derive(Debug)]
pub(super) struct Fragment<P> {
    pub(super) dtype: Dtype,
    /// Where they lie in the block, and up to [`BEYOND`] bytes behind it.
    pub(super) bytes: Range<usize>,
    /// Where they go, if anywhere.
    place: Option<P>,
    /// The projection whose norm they count for.
    projection: Option<(usize, Projection)>,
}

/// Cuts a file into blocks. `place` is asked for the elements of each tensor, in their order.
pub(super) fn cut<'h, P>(
    header: &'h Header,
    place: impl FnMut(&'h str, Range<usize>) -> Option<P>,
) -> Vec<Vec<Fragment<P>>> {
    cut_by(BLOCK as u64, header, place)
}

fn cut_by<'h, P>(
    block_bytes: u64,
    header: &'h Header,
    mut place: impl FnMut(&'h str, Range<usize>) -> Option<P>,
) -> Vec<Vec<Fragment<P>>> {
    let count = header.file_bytes().div_ceil(block_bytes);
    let mut blocks: Vec<Vec<Fragment<P>>> = (0..count).map(|_| Vec::new()).collect();
    for (name, tensor) in header.in_file_order() {
        let start = header.data_start() + tensor.bytes.start;
        let end = header.data_start() + tensor.bytes.end;
        let size = tensor.dtype.bytes();
        let elements = (end - start) / size;
        let projection = Projection::of_tensor(name);
        // The number of elements that begin before a byte of the file.
        let before = |byte: u64| byte.saturating_sub(start).div_ceil(size).min(elements);
        for block in start / block_bytes..end.div_ceil(block_bytes) {
            let position = block * block_bytes;
            let (first, last) = (before(position), before(position + block_bytes));
            if first == last {
                continue;
            }
            let byte = |element: u64| (start + element * size - position) as usize;
            blocks[block as usize].push(Fragment {
                dtype: tensor.dtype,
                bytes: byte(first)..byte(last),
                place: place(name, first as usize..last as usize),
                projection,
            });
        }
    }
    blocks
}

/// Where blocks are read into, and what becomes of their elements.
pub(super) trait Destination: Sync {
    type Buffer: Send;
    type Place: Send;

    /// Makes a buffer of [`BLOCK`] and [`BEYOND`] bytes.
    fn buffer(&self) -> Result<Self::Buffer, Fault>;

    /// Waits until nobody reads the buffer any more, and returns its bytes.
    fn writable<'a>(&self, buffer: &'a mut Self::Buffer) -> Result<&'a mut [u8], Fault>;

    fn bytes<'a>(&self, buffer: &'a Self::Buffer) -> Result<&'a [u8], Fault>;

    /// Puts the elements of pieces where they go.
    fn put(
        &self,
        buffer: &mut Self::Buffer,
        pieces: Vec<(Dtype, Range<usize>, Self::Place)>,
    ) -> Result<(), Fault>;
}

/// A weights file that is to be read.
pub(super) struct Source<'a, P> {
    pub(super) file: &'a File,
    pub(super) header: &'a Header,
    /// See [`cut`].
    pub(super) blocks: Vec<Vec<Fragment<P>>>,
}

/// A block that was read, on its way to be hashed.
struct Done<B> {
    number: usize,
    buffer: B,
    /// Bytes of the block itself.
    bytes: usize,
    squares: Vec<((usize, Projection), f64)>,
}

/// Reads files with so many threads in all, several at a time if there are enough; returns what was learnt of each,
/// in their order.
///
/// # Errors
/// The machine's, if a file can't be read to the end its header speaks of, and those of the target.
pub(super) fn read<T: Destination>(
    sources: Vec<Source<'_, T::Place>>,
    target: &T,
    threads: usize,
    progress: &(dyn Fn(u64) + Sync),
) -> Result<Vec<Streamed>, Fault> {
    let at_once = sources.len().min(threads / 2).max(1);
    let readers = (threads / at_once).saturating_sub(1).clamp(1, MOST_READERS);
    let count = sources.len();
    let queue = Mutex::new(sources.into_iter().enumerate());
    let next = || lock(&queue).next();
    let work = || {
        let mut streamed = Vec::new();
        while let Some((number, source)) = next() {
            let read = read_one(source, target, readers, progress);
            // The other files are of no use then.
            let read = read.inspect_err(|_| while next().is_some() {})?;
            streamed.push((number, read));
        }
        Ok(streamed)
    };
    let mut streamed = Vec::with_capacity(count);
    for done in side_by_side(at_once, work) {
        streamed.extend(done?);
    }
    streamed.sort_by_key(|&(number, _)| number);
    Ok(streamed.into_iter().map(|(_, streamed)| streamed).collect())
}

/// Runs the same work on several threads, this one among them. A panic goes on here.
fn side_by_side<R: Send>(threads: usize, work: impl Fn() -> R + Sync) -> Vec<R> {
    thread::scope(|scope| {
        let others: Vec<_> = (1..threads).map(|_| scope.spawn(&work)).collect();
        let mut results = vec![work()];
        for other in others {
            match other.join() {
                Ok(result) => results.push(result),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        results
    })
}

fn read_one<T: Destination>(
    source: Source<'_, T::Place>,
    target: &T,
    readers: usize,
    progress: &(dyn Fn(u64) + Sync),
) -> Result<Streamed, Fault> {
    let Source {
        file,
        header,
        blocks,
    } = source;
    let total = header.file_bytes();
    let names = header.tensors().keys();
    let mut squares: BTreeMap<_, f64> = names
        .filter_map(|name| Some((Projection::of_tensor(name)?, 0.0)))
        .collect();
    let queue = Mutex::new(blocks.into_iter().enumerate());
    let (to_hash, hashable) = channel();
    let (free, buffers) = channel();
    // One more for the thread that hashes, and one that it may find next.
    for _ in 0..readers + 2 {
        let _ = free.send(target.buffer()?);
    }
    let buffers = Mutex::new(buffers);
    let reader = |to_hash: Sender<_>| {
        // The buffer first: the lowest block that is missing has one then, and hashing goes on.
        while let Some(buffer) = receive(&buffers) {
            let Some((number, pieces)) = lock(&queue).next() else {
                return;
            };
            let read = || read_block(file, total, number, pieces, buffer, target);
            // Whatever happens to a block, the thread that waits for it hears of it.
            let block = catch_unwind(AssertUnwindSafe(read)).unwrap_or_else(|panic| {
                let text = panic_message(&*panic);
                Err(Fault::machine(MachineFaultKind::Bug, text))
            });
            let failed = block.is_err();
            if to_hash.send(block).is_err() || failed {
                return;
            }
        }
    };
    let digest = thread::scope(|scope| {
        for _ in 0..readers {
            let (reader, to_hash) = (&reader, to_hash.clone());
            scope.spawn(move || reader(to_hash));
        }
        drop(to_hash);
        // Hands its end of the buffers back when it is done, whatever the reason: then readers end.
        hash(hashable, free, target, |block| {
            for (whose, sum) in block.squares {
                *squares.entry(whose).or_default() += sum;
            }
            progress(block.bytes as u64);
        })
    })?;
    match digest {
        (digest, bytes) if bytes == total && length(file)? == total => Ok(Streamed {
            bytes,
            digest,
            norms: squares
                .into_iter()
                .map(|((layer, projection), sum)| (layer, projection, sum.sqrt()))
                .collect(),
        }),
        _ => Err(changed()),
    }
}

/// What is left of a block once it was hashed.
struct Hashed {
    bytes: usize,
    squares: Vec<((usize, Projection), f64)>,
}

/// Hashes blocks in their order, whatever the order they come in; returns the digest and how many bytes there were.
fn hash<T: Destination>(
    hashable: Receiver<Result<Done<T::Buffer>, Fault>>,
    free: Sender<T::Buffer>,
    target: &T,
    mut done: impl FnMut(Hashed),
) -> Result<([u8; 32], u64), Fault> {
    let mut hash = Sha256::new();
    let mut early = BTreeMap::new();
    let (mut next, mut total) = (0, 0);
    for block in hashable {
        let block = block?;
        early.insert(block.number, block);
        while let Some(block) = early.remove(&next) {
            next += 1;
            hash.update(&target.bytes(&block.buffer)?[..block.bytes]);
            total += block.bytes as u64;
            // Nobody wants it once all blocks are taken.
            let _ = free.send(block.buffer);
            done(Hashed {
                bytes: block.bytes,
                squares: block.squares,
            });
        }
    }
    Ok((hash.finalize().into(), total))
}

fn read_block<T: Destination>(
    file: &File,
    total: u64,
    number: usize,
    pieces: Vec<Fragment<T::Place>>,
    mut buffer: T::Buffer,
    target: &T,
) -> Result<Done<T::Buffer>, Fault> {
    let position = number as u64 * BLOCK as u64;
    let bytes = (total - position).min(BLOCK as u64) as usize;
    let reach = pieces.iter().map(|piece| piece.bytes.end).max();
    let known = target.writable(&mut buffer)?;
    let known = &mut known[..bytes.max(reach.unwrap_or(0))];
    file.read_exact_at(known, position).map_err(storage)?;
    let squares = pieces.iter().filter_map(|piece| {
        let sum = square_sum(piece.dtype, &known[piece.bytes.clone()]);
        Some((piece.projection?, sum))
    });
    let squares = squares.collect();
    let placed = pieces
        .into_iter()
        .filter_map(|piece| Some((piece.dtype, piece.bytes, piece.place?)));
    target.put(&mut buffer, placed.collect())?;
    Ok(Done {
        number,
        buffer,
        bytes,
        squares,
    })
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Returns a buffer, or nothing if no more will come.
fn receive<B>(buffers: &Mutex<Receiver<B>>) -> Option<B> {
    lock(buffers).recv().ok()
}

fn length(file: &File) -> Result<u64, Fault> {
    Ok(file.metadata().map_err(storage)?.len())
}

fn storage(error: io::Error) -> Fault {
    if error.kind() == io::ErrorKind::UnexpectedEof {
        return changed();
    }
    Fault::machine(MachineFaultKind::Storage, error)
}

fn changed() -> Fault {
    Fault::machine(
        MachineFaultKind::Storage,
        "a file changed its length while it was read",
    )
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
mod tests;
