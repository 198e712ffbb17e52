//! Values of the interpreter, and walking them with broadcasting.

use super::Real;
use crate::types::DType;

/// Elements of a tensor in row-major order, whatever the layout of its type.
#[derive(Clone, Debug, PartialEq)]
pub enum Data<R> {
    /// Real numbers: every float and block dtype, already read.
    Real(Vec<R>),
    /// `i32`, `i8` and `u8`.
    Int(Vec<i32>),
    /// `bool`.
    Bool(Vec<bool>),
}

impl<R> Data<R> {
    /// Number of elements.
    pub fn len(&self) -> usize {
        match self {
            Data::Real(values) => values.len(),
            Data::Int(values) => values.len(),
            Data::Bool(values) => values.len(),
        }
    }

    /// Whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether elements of `dtype` are held this way.
    pub fn holds(&self, dtype: DType) -> bool {
        match self {
            Data::Real(_) => dtype.is_stored_real(),
            Data::Int(_) => matches!(dtype, DType::I32 | DType::I8 | DType::U8),
            Data::Bool(_) => dtype == DType::Bool,
        }
    }
}

/// A value of the interpreter.
#[derive(Clone, Debug, PartialEq)]
pub struct Tensor<R> {
    /// Extents, outermost first.
    pub shape: Vec<u64>,
    /// Elements.
    pub data: Data<R>,
}

impl<R: Real> Tensor<R> {
    /// A tensor of real numbers.
    pub fn reals(shape: impl Into<Vec<u64>>, values: impl Into<Vec<R>>) -> Tensor<R> {
        Tensor { shape: shape.into(), data: Data::Real(values.into()) }
    }

    /// A tensor of integers.
    pub fn ints(shape: impl Into<Vec<u64>>, values: impl Into<Vec<i32>>) -> Tensor<R> {
        Tensor { shape: shape.into(), data: Data::Int(values.into()) }
    }

    /// A tensor of flags.
    pub fn bools(shape: impl Into<Vec<u64>>, values: impl Into<Vec<bool>>) -> Tensor<R> {
        Tensor { shape: shape.into(), data: Data::Bool(values.into()) }
    }

    /// The real numbers, if it holds such.
    pub fn as_reals(&self) -> Option<&[R]> {
        match &self.data {
            Data::Real(values) => Some(values),
            Data::Int(_) | Data::Bool(_) => None,
        }
    }

    /// The integers, if it holds such.
    pub fn as_ints(&self) -> Option<&[i32]> {
        match &self.data {
            Data::Int(values) => Some(values),
            Data::Real(_) | Data::Bool(_) => None,
        }
    }

    /// The flags, if it holds such.
    pub fn as_bools(&self) -> Option<&[bool]> {
        match &self.data {
            Data::Bool(values) => Some(values),
            Data::Real(_) | Data::Int(_) => None,
        }
    }

    /// The elements as real numbers: integers converted, flags as 0 and 1.
    pub fn to_reals(&self) -> Vec<R> {
        match &self.data {
            Data::Real(values) => values.clone(),
            Data::Int(values) => values.iter().map(|&i| R::from_f64(i.into())).collect(),
            Data::Bool(values) => values.iter().map(|&b| R::from_f32(b.into())).collect(),
        }
    }

    /// Number of rows of dimension 0 and elements per row; a rank-0 tensor is one row.
    pub(super) fn rows(&self) -> (usize, usize) {
        let rows = self.shape.first().map_or(1, |&n| n as usize);
        (rows, self.data.len().checked_div(rows).unwrap_or(0))
    }
}

/// Row-major strides of a shape, in elements.
pub(super) fn strides(shape: &[u64]) -> Vec<usize> {
    let mut strides = vec![1; shape.len()];
    for i in (1..shape.len()).rev() {
        strides[i - 1] = strides[i] * shape[i] as usize;
    }
    strides
}

/// Strides for walking a tensor of shape `from` as if repeated to shape `to`: 0 where it repeats.
pub(super) fn broadcast_strides(from: &[u64], to: &[u64]) -> Vec<usize> {
    let own = strides(from);
    let missing = to.len() - from.len();
    (0..to.len())
        .map(|i| if i < missing || from[i - missing] == 1 { 0 } else { own[i - missing] })
        .collect()
}

/// The elements of `source` at `strides`, in row-major order of `shape`.
pub(super) fn gather_strided<T: Copy>(source: &[T], shape: &[u64], strides: &[usize]) -> Vec<T> {
    let count = shape.iter().product::<u64>() as usize;
    let mut out = Vec::with_capacity(count);
    if count > 0 {
        push_strided(source, shape, strides, 0, &mut out);
    }
    out
}

fn push_strided<T: Copy>(
    source: &[T],
    shape: &[u64],
    strides: &[usize],
    start: usize,
    out: &mut Vec<T>,
) {
    match (shape, strides) {
        ([], _) | (_, []) => out.push(source[start]),
        ([extent], [0]) => out.extend(std::iter::repeat_n(source[start], *extent as usize)),
        ([extent], [stride]) => {
            out.extend(source[start..].iter().step_by(*stride).take(*extent as usize));
        }
        ([extent, shape @ ..], [stride, strides @ ..]) => {
            for i in 0..*extent as usize {
                push_strided(source, shape, strides, start + i * stride, out);
            }
        }
    }
}

impl<R: Real> Data<R> {
    /// The elements at `strides`, in row-major order of `shape`.
    pub(super) fn strided(&self, shape: &[u64], strides: &[usize]) -> Data<R> {
        match self {
            Data::Real(values) => Data::Real(gather_strided(values, shape, strides)),
            Data::Int(values) => Data::Int(gather_strided(values, shape, strides)),
            Data::Bool(values) => Data::Bool(gather_strided(values, shape, strides)),
        }
    }

    /// An empty value of the same kind.
    pub(super) fn empty(&self) -> Data<R> {
        match self {
            Data::Real(_) => Data::Real(vec![]),
            Data::Int(_) => Data::Int(vec![]),
            Data::Bool(_) => Data::Bool(vec![]),
        }
    }

    /// Appends `other[range]`; the kinds are equal.
    pub(super) fn extend_from(&mut self, other: &Data<R>, range: std::ops::Range<usize>) {
        match (self, other) {
            (Data::Real(to), Data::Real(from)) => to.extend_from_slice(&from[range]),
            (Data::Int(to), Data::Int(from)) => to.extend_from_slice(&from[range]),
            (Data::Bool(to), Data::Bool(from)) => to.extend_from_slice(&from[range]),
            (Data::Real(_) | Data::Int(_) | Data::Bool(_), _) => {
                unreachable!("verified modules join values of one dtype")
            }
        }
    }
}
