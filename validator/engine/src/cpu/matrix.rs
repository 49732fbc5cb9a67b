//! Products of matrices that may lie within larger ones.

use gemm::Parallelism;

/// A matrix within a slice: element (i, j) is at `i * row + j * column`.
#[derive(Clone, Copy)]
pub(super) struct View<'a> {
    pub(super) data: &'a [f32],
    pub(super) row: usize,
    pub(super) column: usize,
}

impl<'a> View<'a> {
    /// Rows of consecutive elements, `stride` apart.
    pub(super) const fn rows(data: &'a [f32], stride: usize) -> Self {
        Self {
            data,
            row: stride,
            column: 1,
        }
    }

    /// The same matrix with rows and columns exchanged.
    pub(super) const fn transposed(self) -> Self {
        Self {
            data: self.data,
            row: self.column,
            column: self.row,
        }
    }

    fn fits(&self, rows: usize, columns: usize) -> bool {
        rows == 0
            || columns == 0
            || (rows - 1) * self.row + (columns - 1) * self.column < self.data.len()
    }
}

/// Writes the product of `a` (`rows` x `inner`) and `b` (`inner` x `columns`) to rows of `out`
/// that are `stride` apart, on this thread.
pub(super) fn multiply(
    size: (usize, usize, usize),
    a: View<'_>,
    b: View<'_>,
    out: &mut [f32],
    stride: usize,
) {
    assert!(fits_rows(size, out.len(), stride), "the product fits");
    #[expect(unsafe_code, reason = "the matrix product takes pointers")]
    // SAFETY: just checked that the rows of the product lie within the slice, side by side.
    unsafe {
        gemm(size, a, b, (out.as_mut_ptr(), stride), false, 1);
    }
}

/// Returns the product of `a` (`rows` x `inner`) and `b` (`inner` x `columns`), row by row.
pub(super) fn product(size: (usize, usize, usize), a: View<'_>, b: View<'_>) -> Vec<f32> {
    let (rows, _, columns) = size;
    let mut out = Vec::with_capacity(rows * columns);
    #[expect(unsafe_code, reason = "zeros would be written only to be overwritten")]
    // SAFETY: the memory is large enough for the product, which initializes all of it.
    unsafe {
        let threads = rayon::current_num_threads();
        gemm(size, a, b, (out.as_mut_ptr(), columns), false, threads);
        out.set_len(rows * columns);
    }
    out
}

/// Adds the product of `a` (`rows` x `inner`) and `b` (`inner` x `columns`) to `out`, row by row.
pub(super) fn add_product(size: (usize, usize, usize), a: View<'_>, b: View<'_>, out: &mut [f32]) {
    assert!(fits_rows(size, out.len(), size.2), "the product fits");
    #[expect(unsafe_code, reason = "the matrix product takes pointers")]
    // SAFETY: just checked that the rows of the product lie within the slice, side by side.
    unsafe {
        let threads = rayon::current_num_threads();
        gemm(size, a, b, (out.as_mut_ptr(), size.2), true, threads);
    }
}

fn fits_rows((rows, _, columns): (usize, usize, usize), len: usize, stride: usize) -> bool {
    rows == 0 || columns <= stride && (rows - 1) * stride + columns <= len
}

/// Writes the product of `a` and `b` to rows of `out` a stride apart, or adds it to what is there.
///
/// # Safety
/// `out` points to memory of all rows that nobody else uses, initialized if it is added to.
#[expect(unsafe_code, reason = "the matrix product takes pointers")]
unsafe fn gemm(
    (rows, inner, columns): (usize, usize, usize),
    a: View<'_>,
    b: View<'_>,
    (out, stride): (*mut f32, usize),
    add: bool,
    threads: usize,
) {
    assert!(
        a.fits(rows, inner) && b.fits(inner, columns),
        "matrices fit their slices"
    );
    let parallelism = match threads {
        1 => Parallelism::None,
        threads => Parallelism::Rayon(threads),
    };
    // SAFETY: just checked that every element of the factors lies within its slice; the caller
    // vouches for the product.
    unsafe {
        gemm::gemm(
            rows,
            columns,
            inner,
            out,
            1,
            stride as isize,
            add,
            a.data.as_ptr(),
            a.column as isize,
            a.row as isize,
            b.data.as_ptr(),
            b.column as isize,
            b.row as isize,
            1.0,
            1.0,
            false,
            false,
            false,
            parallelism,
        );
    }
}
