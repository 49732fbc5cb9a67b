//! Products by AVX-512's dot products of pairs.

use std::{
    arch::x86_64::{
        __m512, __m512bh, __m512i, _mm512_add_ps, _mm512_castpd_ps, _mm512_castps_pd,
        _mm512_dpbf16_ps, _mm512_maskz_loadu_epi16, _mm512_setzero_ps, _mm512_shuffle_f32x4,
        _mm512_unpackhi_pd, _mm512_unpackhi_ps, _mm512_unpacklo_pd, _mm512_unpacklo_ps,
    },
    ops::Range,
};

use half::bf16;

pub(super) fn can_be_had() -> bool {
    is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512bf16")
}

/// Numbers in a vector.
const LANES: usize = 32;

/// Rows and columns whose sums are in registers together.
const SIDE: usize = 4;

/// Numbers of `x` that stay in the first cache while all columns go by.
const CACHED: usize = 8 << 10;

/// Writes some columns of `x * weight^T`: `x` is `[rows, inner]`, `weight` `[all columns, inner]`, `product`
/// `[rows, all columns]`. The machine has [what this takes](can_be_had).
pub(super) fn multiply(
    x: &[bf16],
    inner: usize,
    weight: &[bf16],
    columns: Range<usize>,
    product: &mut [f32],
) {
    if inner == 0 {
        return product.fill(0.0);
    }
    let (rows, width) = (x.len() / inner, weight.len() / inner);
    let row_of =
        |matrix: &'_ [bf16], row: usize| -> *const bf16 { matrix[row * inner..][..inner].as_ptr() };
    // What lies beyond the last row or column is computed from that once more.
    let beyond = |first: usize, end: usize| [0, 1, 2, 3].map(|i| (first + i).min(end - 1));
    let cached = (CACHED / inner).next_multiple_of(SIDE).max(SIDE);
    for first in (0..rows).step_by(cached) {
        for column in columns.clone().step_by(SIDE) {
            let right = beyond(column, columns.end).map(|column| row_of(weight, column));
            let across = SIDE.min(columns.end - column);
            for row in (first..rows.min(first + cached)).step_by(SIDE) {
                let left = beyond(row, rows).map(|row| row_of(x, row));
                #[expect(
                    unsafe_code,
                    reason = "instructions that not all machines have, and that take pointers"
                )]
                // SAFETY: the caller vouches for the machine; each pointer is to `inner` numbers.
                let sums = unsafe { sums(left, right, inner) };
                let down = SIDE.min(rows - row);
                for (sums, row) in sums
                    .iter()
                    .zip(product[row * width..].chunks_mut(width))
                    .take(down)
                {
                    row[column..][..across].copy_from_slice(&sums[..across]);
                }
            }
        }
    }
}

/// Returns the products of four rows with four columns of `inner` numbers each.
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
#[expect(unsafe_code, reason = "vectors are read through pointers")]
unsafe fn sums(
    rows: [*const bf16; SIDE],
    columns: [*const bf16; SIDE],
    inner: usize,
) -> [[f32; SIDE]; SIDE] {
    let mut sums = [[_mm512_setzero_ps(); SIDE]; SIDE];
    let mut step = |at: usize, mask: u32| {
        // SAFETY: the caller vouches for `inner` numbers, and no others are read.
        let read = |from: *const bf16| unsafe {
            let lanes = _mm512_maskz_loadu_epi16(mask, from.add(at).cast());
            std::mem::transmute::<__m512i, __m512bh>(lanes)
        };
        let columns = columns.map(read);
        for (sums, row) in sums.iter_mut().zip(rows) {
            let row = read(row);
            for (sum, column) in sums.iter_mut().zip(columns) {
                *sum = _mm512_dpbf16_ps(*sum, row, column);
            }
        }
    };
    let whole = inner / LANES * LANES;
    for at in (0..whole).step_by(LANES) {
        step(at, u32::MAX);
    }
    if whole < inner {
        step(whole, (1 << (inner - whole)) - 1);
    }
    // In each quarter of a vector: sums of the quarter's four lanes, one for each column.
    let quarters = sums.map(|[a, b, c, d]| {
        let pairs = |a, b| {
            _mm512_castps_pd(_mm512_add_ps(
                _mm512_unpacklo_ps(a, b),
                _mm512_unpackhi_ps(a, b),
            ))
        };
        let (ab, cd) = (pairs(a, b), pairs(c, d));
        let [low, high] = [_mm512_unpacklo_pd(ab, cd), _mm512_unpackhi_pd(ab, cd)];
        _mm512_add_ps(_mm512_castpd_ps(low), _mm512_castpd_ps(high))
    });
    let halves = |a, b| {
        _mm512_add_ps(
            _mm512_shuffle_f32x4::<0x88>(a, b),
            _mm512_shuffle_f32x4::<0xDD>(a, b),
        )
    };
    let [a, b, c, d] = quarters;
    let all = halves(halves(a, b), halves(c, d));
    // SAFETY: both are sixteen numbers.
    unsafe { std::mem::transmute::<__m512, [[f32; SIDE]; SIDE]>(all) }
}
