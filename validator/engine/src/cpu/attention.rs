//! Causal attention over packed sequences: rotation, scores, softmax and sum in blocks of queries,
//! so that no more than one block's scores exist at a time on each thread.

use std::{ops::Range, sync::Arc};

use candle_core::{
    CpuStorage, CustomOp3, Layout, Result, Shape, WithDType, backend::BackendStorage,
};
use model::config::AttentionScores;
use rayon::prelude::*;

use super::{
    Element, contiguous,
    exp::exp,
    map_and_sum,
    matrix::{View, multiply},
    max, rows_at_once, sum, vectorized,
};
use crate::dtype::by_type;

/// Queries computed together; their scores stay in the cache.
const BLOCK: usize = 64;

/// From `[tokens, (heads + 2 * kv_heads) * head_dim]` (queries, keys and values side by side) and
/// rotary cosines and sines (`[tokens, rotated / 2]` each) to `[tokens, heads * head_dim]`.
#[derive(Debug, Clone)]
pub(crate) struct PackedAttention {
    pub(crate) heads: usize,
    pub(crate) kv_heads: usize,
    pub(crate) head_dim: usize,
    /// Tokens of each sequence.
    pub(crate) sequences: Arc<[Range<usize>]>,
    /// How many tokens before the current one are seen, if not all.
    pub(crate) window: Option<usize>,
    pub(crate) scores: AttentionScores,
}

/// Queries, keys and values side by side, and what rotates the first two.
#[derive(Clone, Copy)]
struct Packed<'a, T> {
    qkv: &'a [T],
    cos: &'a [T],
    sin: &'a [T],
    /// Half the rotated dimensions of a head.
    half: usize,
}

impl<T: Element> Packed<'_, T> {
    /// Copies one head of one token and rotates it, rounded where the reference rounds.
    #[inline(always)]
    fn rotate(&self, token: usize, head: &[T], out: &mut [f32]) {
        let half = self.half;
        let table = token * half..(token + 1) * half;
        let (cos, sin) = (&self.cos[table.clone()], &self.sin[table]);
        let (first, rest) = head.split_at(half);
        let (second, rest) = rest.split_at(half);
        let (out_first, out_rest) = out.split_at_mut(half);
        let (out_second, out_rest) = out_rest.split_at_mut(half);
        let rounded = |x: f32| T::round(x).widen();
        for i in 0..half {
            let (first, second) = (first[i].widen(), second[i].widen());
            let (cos, sin) = (cos[i].widen(), sin[i].widen());
            out_first[i] = rounded(rounded(first * cos) - rounded(second * sin));
            out_second[i] = rounded(rounded(second * cos) + rounded(first * sin));
        }
        for (out, x) in out_rest.iter_mut().zip(rest) {
            *out = x.widen();
        }
    }
}

/// What a block of queries reads.
struct Input<'a, T> {
    packed: Packed<'a, T>,
    /// Rotated keys, `[tokens, kv_heads * head_dim]`.
    keys: Vec<f32>,
    /// Values of each token side by side.
    values: View<'a>,
}

/// A block of queries of one sequence.
struct Block<'a, T> {
    out: &'a mut [T],
    tokens: Range<usize>,
    sequence: Range<usize>,
}

#[derive(Default)]
struct Scratch {
    queries: Vec<f32>,
    scores: Vec<f32>,
    /// Sum of the weights of each row of scores.
    sums: Vec<f32>,
    summed: Vec<f32>,
}

impl PackedAttention {
    const fn width(&self) -> usize {
        (self.heads + 2 * self.kv_heads) * self.head_dim
    }

    fn rotated_keys<T: Element>(&self, packed: Packed<'_, T>) -> Vec<f32> {
        let dim = self.head_dim;
        let row = self.kv_heads * dim;
        let from = self.heads * dim;
        let mut keys = vec![0.0; packed.qkv.len() / self.width() * row];
        keys.par_chunks_exact_mut(row)
            .zip(packed.qkv.par_chunks_exact(self.width()))
            .enumerate()
            .with_min_len(rows_at_once(row))
            .for_each(|(token, (keys, qkv))| {
                vectorized(
                    #[inline(always)]
                    || {
                        for (out, head) in keys
                            .chunks_exact_mut(dim)
                            .zip(qkv[from..].chunks_exact(dim))
                        {
                            packed.rotate(token, head, out);
                        }
                    },
                );
            });
        keys
    }

    /// Whether a key or value of the sequence is NaN or infinite. The reference multiplies what
    /// the mask hides by zero, so that one such number makes the whole sequence NaN.
    fn is_poisoned<T: Element>(&self, qkv: &[T], sequence: &Range<usize>) -> bool {
        let from = self.heads * self.head_dim;
        qkv[sequence.start * self.width()..sequence.end * self.width()]
            .chunks_exact(self.width())
            .any(|row| {
                vectorized(
                    #[inline(always)]
                    || !sum(&row[from..], |x| x.widen() * 0.0).is_finite(),
                )
            })
    }

    fn blocks<'a, T>(&self, mut out: &'a mut [T]) -> Vec<Block<'a, T>> {
        let row = self.heads * self.head_dim;
        let mut blocks = Vec::new();
        for sequence in self.sequences.iter() {
            for start in sequence.clone().step_by(BLOCK) {
                let tokens = start..(start + BLOCK).min(sequence.end);
                let (block, rest) = out.split_at_mut(tokens.len() * row);
                blocks.push(Block {
                    out: block,
                    tokens,
                    sequence: sequence.clone(),
                });
                out = rest;
            }
        }
        blocks
    }

    fn block<T: Element>(
        &self,
        input: &Input<'_, T>,
        block: &mut Block<'_, T>,
        scratch: &mut Scratch,
    ) {
        let (dim, group) = (self.head_dim, self.heads / self.kv_heads);
        let rows = block.tokens.len();
        let first_key = self.window.map_or(block.sequence.start, |left| {
            block
                .sequence
                .start
                .max(block.tokens.start.saturating_sub(left))
        });
        let keys = block.tokens.end - first_key;
        scratch.queries.resize(group * BLOCK * dim, 0.0);
        scratch.summed.resize(group * BLOCK * dim, 0.0);
        if scratch.scores.len() < group * BLOCK * keys {
            scratch.scores.resize(group * BLOCK * keys, 0.0);
        }
        let root = (self.scores.scalar as f32).sqrt();
        let cap = self.scores.cap.map(|cap| cap as f32);
        for kv_head in 0..self.kv_heads {
            self.take_queries(input.packed, &block.tokens, kv_head, &mut scratch.queries);
            let key_row = self.kv_heads * dim;
            let key_rows = View::rows(&input.keys[first_key * key_row + kv_head * dim..], key_row);
            let queries = View::rows(&scratch.queries, dim);
            let scores = &mut scratch.scores;
            multiply(
                (group * rows, dim, keys),
                queries,
                key_rows.transposed(),
                scores,
                keys,
            );
            let rows_of_scores = scores.chunks_exact_mut(keys).take(group * rows);
            scratch.sums.clear();
            scratch
                .sums
                .extend(rows_of_scores.enumerate().map(|(i, row)| {
                    let token = block.tokens.start + i % rows;
                    let from = self.window.map_or(0, |left| {
                        token.saturating_sub(left).max(first_key) - first_key
                    });
                    weigh(row, from..token + 1 - first_key, root, cap)
                }));
            let values = input.values;
            let values = View::rows(
                &values.data[first_key * values.row + kv_head * dim..],
                values.row,
            );
            let weights = View::rows(scores, keys);
            multiply(
                (group * rows, keys, dim),
                weights,
                values,
                &mut scratch.summed,
                dim,
            );
            let summed = scratch.summed.chunks_exact(dim).zip(&scratch.sums);
            for (i, (summed, sum)) in summed.enumerate() {
                let head = kv_head * group + i / rows;
                let from = (i % rows * self.heads + head) * dim;
                for (out, summed) in block.out[from..from + dim].iter_mut().zip(summed) {
                    *out = T::round(summed / sum);
                }
            }
        }
    }

    /// Gathers the block's queries that share a key head, rotated and scaled: one head after
    /// another.
    fn take_queries<T: Element>(
        &self,
        packed: Packed<'_, T>,
        tokens: &Range<usize>,
        kv_head: usize,
        queries: &mut [f32],
    ) {
        let (dim, group) = (self.head_dim, self.heads / self.kv_heads);
        let mut rows = queries.chunks_exact_mut(dim);
        for head in kv_head * group..(kv_head + 1) * group {
            for (token, out) in tokens.clone().zip(&mut rows) {
                let from = token * self.width() + head * dim;
                vectorized(
                    #[inline(always)]
                    || packed.rotate(token, &packed.qkv[from..from + dim], out),
                );
            }
        }
    }

    /// Returns the values as f32, copied unless they are.
    fn values<'a, T: Element>(&self, qkv: &'a [T], copy: &'a mut Vec<f32>) -> View<'a> {
        let (width, row) = (self.width(), self.kv_heads * self.head_dim);
        let from = width - row;
        if let Some(qkv) = T::plain(qkv) {
            return View::rows(qkv.get(from..).unwrap_or_default(), width);
        }
        copy.reserve_exact(qkv.len() / width * row);
        for token in qkv.chunks_exact(width) {
            copy.extend(token[from..].iter().map(|x| x.widen()));
        }
        View::rows(copy, row)
    }

    fn attend<T: Element>(&self, packed: Packed<'_, T>) -> Vec<T> {
        let mut copy = Vec::new();
        let input = Input {
            packed,
            keys: self.rotated_keys(packed),
            values: self.values(packed.qkv, &mut copy),
        };
        let row = self.heads * self.head_dim;
        let mut output = vec![T::zero(); packed.qkv.len() / self.width() * row];
        let blocks = self.blocks(&mut output);
        blocks
            .into_par_iter()
            .for_each_init(Scratch::default, |scratch, mut block| {
                self.block(&input, &mut block, scratch);
            });
        let poisoned = self
            .sequences
            .par_iter()
            .filter(|tokens| self.is_poisoned(packed.qkv, tokens));
        for tokens in poisoned.cloned().collect::<Vec<_>>() {
            output[tokens.start * row..tokens.end * row].fill(T::round(f32::NAN));
        }
        output
    }
}

/// Turns the scores in `seen`, divided by `root` and squashed to less than `cap`, into weights, the
/// others into zeros. Returns the sum of the weights, by which what they weigh is divided.
fn weigh(scores: &mut [f32], seen: Range<usize>, root: f32, cap: Option<f32>) -> f32 {
    scores[..seen.start].fill(0.0);
    scores[seen.end..].fill(0.0);
    let seen = &mut scores[seen];
    let root = match cap {
        None => root,
        Some(cap) => {
            let scale = 1.0 / (root * cap);
            for score in &mut *seen {
                *score = (*score * scale).tanh() * cap;
            }
            1.0
        }
    };
    vectorized(
        #[inline(always)]
        || {
            let scale = 1.0 / root;
            let largest = max(seen, |score| score) * scale;
            map_and_sum(seen, |score| exp(score.mul_add(scale, -largest)))
        },
    )
}

impl CustomOp3 for PackedAttention {
    fn name(&self) -> &'static str {
        "packed-attention"
    }

    fn cpu_fwd(
        &self,
        qkv: &CpuStorage,
        qkv_layout: &Layout,
        cos: &CpuStorage,
        cos_layout: &Layout,
        sin: &CpuStorage,
        sin_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (tokens, half) = cos_layout.shape().dims2()?;
        let output = by_type!(qkv.dtype(), T => T::to_cpu_storage_owned(self.attend::<T>(Packed {
            qkv: contiguous(qkv, qkv_layout)?,
            cos: contiguous(cos, cos_layout)?,
            sin: contiguous(sin, sin_layout)?,
            half,
        })));
        Ok((output, (tokens, self.heads * self.head_dim).into()))
    }
}
