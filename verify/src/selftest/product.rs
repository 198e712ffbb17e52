//! Products of a stored matrix with a few rows, in f64: each element of the matrix is read once. The
//! result does not depend on the number of threads nor on the machine.

use crate::VerifyError;
use waveloom_ir::DType;
use waveloom_ir::storage::dequantize;

/// A stored matrix `[rows, columns]`.
pub struct Stored<'a> {
    /// Form of its elements.
    pub dtype: DType,
    /// Its bytes.
    pub bytes: &'a [u8],
    /// Rows.
    pub rows: usize,
    /// Columns: whole blocks.
    pub columns: usize,
}

impl Stored<'_> {
    /// The elements of row `index`.
    pub fn row(&self, index: usize, out: &mut [f32]) -> Result<(), VerifyError> {
        let bytes =
            self.columns / self.dtype.block_len() as usize * self.dtype.block_bytes() as usize;
        let row = self.bytes.get(index * bytes..(index + 1) * bytes).unwrap_or_default();
        Ok(dequantize(self.dtype, row, out)?)
    }

    /// `x · Wᵀ` for each x, of `columns` elements.
    pub fn times(&self, xs: &[&[f64]]) -> Result<Vec<Vec<f64>>, VerifyError> {
        let threads = std::thread::available_parallelism().map_or(1, |n| n.get());
        let share = self.rows.div_ceil(threads).max(1);
        let parts: Result<Vec<_>, VerifyError> = std::thread::scope(|scope| {
            let starts = (0..self.rows).step_by(share);
            let part = |start| move || self.part(start, (start + share).min(self.rows), xs);
            let handles: Vec<_> = starts.map(|start| scope.spawn(part(start))).collect();
            let join = |handle: std::thread::ScopedJoinHandle<'_, _>| {
                handle.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            };
            handles.into_iter().map(join).collect()
        });
        let mut products = vec![Vec::with_capacity(self.rows); xs.len()];
        for part in parts? {
            for (all, own) in products.iter_mut().zip(part) {
                all.extend(own);
            }
        }
        Ok(products)
    }

    /// The same with rows `first..last` of the matrix.
    fn part(&self, first: usize, last: usize, xs: &[&[f64]]) -> Result<Vec<Vec<f64>>, VerifyError> {
        let mut products = vec![Vec::with_capacity(last - first); xs.len()];
        let (mut row, mut wide) = (vec![0f32; self.columns], vec![0f64; self.columns]);
        for index in first..last {
            self.row(index, &mut row)?;
            for (to, from) in wide.iter_mut().zip(&row) {
                *to = f64::from(*from);
            }
            for (product, x) in products.iter_mut().zip(xs) {
                product.push(dot(&wide, x));
            }
        }
        Ok(products)
    }
}

/// A sum of products in a fixed order that vector registers can follow.
fn dot(a: &[f64], b: &[f64]) -> f64 {
    const LANES: usize = 8;
    let mut sums = [0f64; LANES];
    let (a, b) = (a.as_chunks::<LANES>(), b.as_chunks::<LANES>());
    for (a, b) in a.0.iter().zip(b.0) {
        for (sum, (x, y)) in sums.iter_mut().zip(a.iter().zip(b)) {
            *sum += x * y;
        }
    }
    let rest: f64 = a.1.iter().zip(b.1).map(|(x, y)| x * y).sum();
    sums.iter().sum::<f64>() + rest
}

#[cfg(test)]
mod tests {
    use super::*;
    use waveloom_ir::storage::quantize;

    #[test]
    fn products_are_those_of_the_definition() {
        let (rows, columns) = (37, 96);
        let values: Vec<f32> = (0..rows * columns).map(|i| (i as f32 * 0.7).sin()).collect();
        for dtype in [DType::F32, DType::BF16, DType::Q4_1] {
            let bytes = quantize(dtype, &values, columns).unwrap();
            let mut read = vec![0.0; values.len()];
            dequantize(dtype, &bytes, &mut read).unwrap();
            let x: Vec<f64> = (0..columns).map(|i| (i as f64 * 0.3).cos()).collect();
            let matrix = Stored { dtype, bytes: &bytes, rows, columns };
            let products = matrix.times(&[&x, &x]).unwrap();
            assert_eq!(products[0], products[1]);
            for (row, product) in read.chunks(columns).zip(&products[0]) {
                let exact: f64 = row.iter().zip(&x).map(|(a, b)| f64::from(*a) * b).sum();
                assert!((product - exact).abs() < 1e-12, "{dtype}: {product} {exact}");
            }
            assert!(Stored { rows: rows + 1, ..matrix }.times(&[&x]).is_err());
        }
    }
}
