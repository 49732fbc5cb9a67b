//! Products by AMX, whose registers are tiles of sixteen rows of 64 bytes.

use std::arch::{
    asm,
    x86_64::{
        __cpuid_count, __m512i, _mm512_shuffle_i32x4, _mm512_unpackhi_epi32, _mm512_unpackhi_epi64,
        _mm512_unpacklo_epi32, _mm512_unpacklo_epi64,
    },
};

use half::bf16;
use nix::libc;

/// Rows of a tile.
const SIDE: usize = 16;

/// Numbers of bf16 in a row of a tile.
const DEPTH: usize = 32;

/// Rows and columns of a block, whose sums are in four tiles.
const BLOCK: usize = 2 * SIDE;

/// Returns whether the CPU has tiles of bf16, and the kernel keeps them for this process from now on (Linux'
/// Documentation/arch/x86/xstate.rst).
pub(super) fn can_be_had() -> bool {
    const ARCH_REQ_XCOMP_PERM: libc::c_int = 0x1023;
    const XFEATURE_XTILEDATA: libc::c_int = 18;
    let features = __cpuid_count(7, 0).edx;
    let known = [22, 24].into_iter().all(|bit| features >> bit & 1 == 1);
    #[expect(unsafe_code, reason = "the system call has no wrapper")]
    // SAFETY: it takes two numbers, and changes nothing but what this process may do.
    let permit = || unsafe {
        libc::syscall(
            libc::SYS_arch_prctl,
            ARCH_REQ_XCOMP_PERM,
            XFEATURE_XTILEDATA,
        )
    };
    known && permit() == 0
}

/// A tile in memory: sixteen rows of pairs of bf16, or of f32.
#[derive(Debug, Clone, Copy, Default)]
#[repr(align(64))]
struct Tile([[u32; SIDE]; SIDE]);

impl Tile {
    /// Exchanges rows and columns.
    #[target_feature(enable = "avx512f")]
    fn transpose(&mut self) {
        #[expect(unsafe_code, reason = "vectors have a type of their own")]
        // SAFETY: both are sixteen times sixteen numbers.
        let rows: [__m512i; SIDE] = unsafe { std::mem::transmute(self.0) };
        // Squares of four are transposed within, then among themselves.
        let mut within = rows;
        for (four, to) in rows
            .as_chunks::<4>()
            .0
            .iter()
            .zip(within.as_chunks_mut::<4>().0)
        {
            let [a, b, c, d] = *four;
            let (ab, cd) = (_mm512_unpacklo_epi32(a, b), _mm512_unpacklo_epi32(c, d));
            (to[0], to[1]) = (_mm512_unpacklo_epi64(ab, cd), _mm512_unpackhi_epi64(ab, cd));
            let (ab, cd) = (_mm512_unpackhi_epi32(a, b), _mm512_unpackhi_epi32(c, d));
            (to[2], to[3]) = (_mm512_unpacklo_epi64(ab, cd), _mm512_unpackhi_epi64(ab, cd));
        }
        let mut columns = within;
        for i in 0..4 {
            let [a, b, c, d] = [within[i], within[4 + i], within[8 + i], within[12 + i]];
            let (ab, cd) = (
                _mm512_shuffle_i32x4::<0x88>(a, b),
                _mm512_shuffle_i32x4::<0x88>(c, d),
            );
            columns[i] = _mm512_shuffle_i32x4::<0x88>(ab, cd);
            columns[8 + i] = _mm512_shuffle_i32x4::<0xDD>(ab, cd);
            let (ab, cd) = (
                _mm512_shuffle_i32x4::<0xDD>(a, b),
                _mm512_shuffle_i32x4::<0xDD>(c, d),
            );
            columns[4 + i] = _mm512_shuffle_i32x4::<0x88>(ab, cd);
            columns[12 + i] = _mm512_shuffle_i32x4::<0xDD>(ab, cd);
        }
        #[expect(unsafe_code, reason = "vectors have a type of their own")]
        // SAFETY: both are sixteen times sixteen numbers.
        let columns =
            unsafe { std::mem::transmute::<[__m512i; SIDE], [[u32; SIDE]; SIDE]>(columns) };
        self.0 = columns;
    }
}

/// A left factor in the order in which tiles are multiplied: of each block of rows and each [`DEPTH`] numbers, two
/// tiles of pairs, whose columns are rows of the factor.
#[derive(Debug)]
pub(super) struct TiledRows {
    rows: usize,
    inner: usize,
    tiles: Vec<Tile>,
}

impl TiledRows {
    /// Takes `x` (`[rows, inner]`), if its rows fill tiles. The machine has [what tiles take](can_be_had).
    pub(super) fn new(x: &[bf16], inner: usize) -> Option<Self> {
        if inner == 0 || !inner.is_multiple_of(DEPTH) {
            return None;
        }
        let (rows, deep) = (x.len() / inner, inner / DEPTH);
        let mut tiles = vec![Tile::default(); rows.div_ceil(BLOCK) * deep * 2];
        for (i, tile) in tiles.iter_mut().enumerate() {
            let (block, depth, half) = (i / 2 / deep, i / 2 % deep, i % 2);
            let first = block * BLOCK + half * SIDE;
            for (row, line) in x.chunks_exact(inner).skip(first).zip(&mut tile.0) {
                let pairs = row[depth * DEPTH..][..DEPTH].as_chunks::<2>().0;
                for (to, [low, high]) in line.iter_mut().zip(pairs) {
                    *to = u32::from(low.to_bits()) | u32::from(high.to_bits()) << 16;
                }
            }
            #[expect(unsafe_code, reason = "an instruction that not all machines have")]
            // SAFETY: the caller vouches for the machine.
            unsafe {
                tile.transpose();
            }
        }
        Some(Self { rows, inner, tiles })
    }

    /// Writes the first columns of the product with `weight` (`[columns, inner]`) to `product` (`[rows, columns]`).
    /// Returns how many they are: whole blocks.
    pub(super) fn times(&self, weight: &[bf16], product: &mut [f32]) -> usize {
        let columns = weight.len() / self.inner;
        let (deep, whole) = (self.inner / DEPTH, columns / BLOCK * BLOCK);
        assert_eq!(product.len(), self.rows * columns, "the product fits");
        for first in (0..whole).step_by(BLOCK) {
            let weight = &weight[first * self.inner..][..BLOCK * self.inner];
            for (block, tiles) in self.tiles.chunks_exact(2 * deep).enumerate() {
                let sums = multiply(weight, self.inner, tiles);
                let rows = product.chunks_exact_mut(columns).skip(block * BLOCK);
                for (i, row) in rows.take(BLOCK).enumerate() {
                    let row = &mut row[first..][..BLOCK];
                    for (half, to) in row.as_chunks_mut::<SIDE>().0.iter_mut().enumerate() {
                        *to = sums[half][i / SIDE].0[i % SIDE].map(f32::from_bits);
                    }
                }
            }
        }
        whole
    }
}

/// Returns the product of a block of columns (`[BLOCK, inner]`) with one of rows: by half of the columns and half of
/// the rows tiles whose rows are those of the factor. The machine has [what this takes](can_be_had).
fn multiply(weight: &[bf16], inner: usize, tiles: &[Tile]) -> [[Tile; 2]; 2] {
    /// What `ldtilecfg` reads: eight tiles, all of them whole.
    #[repr(C, align(64))]
    struct Shapes {
        palette: u8,
        start_row: u8,
        reserved: [u8; 14],
        row_bytes: [u16; 16],
        rows: [u8; 16],
    }
    static SHAPES: Shapes = Shapes {
        palette: 1,
        start_row: 0,
        reserved: [0; 14],
        row_bytes: [64, 64, 64, 64, 64, 64, 64, 64, 0, 0, 0, 0, 0, 0, 0, 0],
        rows: [16, 16, 16, 16, 16, 16, 16, 16, 0, 0, 0, 0, 0, 0, 0, 0],
    };
    let deep = inner / DEPTH;
    assert!(deep > 0 && inner.is_multiple_of(DEPTH), "rows fill tiles");
    assert_eq!(weight.len(), BLOCK * inner, "a block of columns");
    assert_eq!(tiles.len(), 2 * deep, "a block of rows");
    let mut sums = [[Tile::default(); 2]; 2];
    #[expect(unsafe_code, reason = "tiles are known to the assembler only")]
    // SAFETY: the caller vouches for the machine. Of `weight` `deep` times two tiles are read, whose rows are `inner`
    // numbers apart, and all of `tiles`: as much as was just checked to be there. Four tiles are written, and all of
    // them given back.
    unsafe {
        asm!(
            "ldtilecfg [{shapes}]",
            "tilezero tmm0",
            "tilezero tmm1",
            "tilezero tmm2",
            "tilezero tmm3",
            "2:",
            "tileloadd tmm4, [{first} + {row}]",
            "tileloadd tmm5, [{second} + {row}]",
            "tileloadd tmm6, [{tiles} + {line}]",
            "tileloadd tmm7, [{tiles} + {line} + 1024]",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tdpbf16ps tmm1, tmm4, tmm7",
            "tdpbf16ps tmm2, tmm5, tmm6",
            "tdpbf16ps tmm3, tmm5, tmm7",
            "add {first}, 64",
            "add {second}, 64",
            "add {tiles}, 2048",
            "dec {left}",
            "jnz 2b",
            "tilestored [{sums} + {line}], tmm0",
            "tilestored [{sums} + {line} + 1024], tmm1",
            "tilestored [{sums} + {line} + 2048], tmm2",
            "tilestored [{sums} + {line} + 3072], tmm3",
            "tilerelease",
            shapes = in(reg) &raw const SHAPES,
            first = inout(reg) weight.as_ptr() => _,
            second = inout(reg) weight[SIDE * inner..].as_ptr() => _,
            row = in(reg) size_of::<bf16>() * inner,
            tiles = inout(reg) tiles.as_ptr() => _,
            line = in(reg) size_of::<[u32; SIDE]>(),
            left = inout(reg) deep => _,
            sums = in(reg) sums.as_mut_ptr(),
            out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
            out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
            options(nostack),
        );
        for tile in sums.as_flattened_mut() {
            tile.transpose();
        }
    }
    sums
}
