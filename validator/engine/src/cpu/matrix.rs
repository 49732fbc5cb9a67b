//! Products of small matrices that lie within larger ones.

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
    (rows, inner, columns): (usize, usize, usize),
    a: View<'_>,
    b: View<'_>,
    out: &mut [f32],
    stride: usize,
) {
    let out_fits = View::rows(out, stride).fits(rows, columns) && columns <= stride;
    assert!(
        a.fits(rows, inner) && b.fits(inner, columns) && out_fits,
        "matrices fit their slices"
    );
    #[expect(unsafe_code, reason = "the matrix product takes pointers")]
    // SAFETY: just checked that every element of the three matrices lies within its slice, and
    // that the rows of the output do not overlap.
    unsafe {
        gemm::gemm(
            rows,
            columns,
            inner,
            out.as_mut_ptr(),
            1,
            stride as isize,
            false,
            a.data.as_ptr(),
            a.column as isize,
            a.row as isize,
            b.data.as_ptr(),
            b.column as isize,
            b.row as isize,
            0.0,
            1.0,
            false,
            false,
            false,
            gemm::Parallelism::None,
        );
    }
}
