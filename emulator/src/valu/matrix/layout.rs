//! Where the elements of matrices lie in registers.
//!
//! A lane's registers hold a vector of elements of the matrix, packed from the low bits up; element
//! `e` of lane `l` has the offset `64 * e + l`. All layouts keep consecutive rows of A and
//! consecutive columns of B, C and D in consecutive lanes, so an offset for each column of A and
//! each row of B, C and D says everything. Source: AMD's matrix instruction calculator and, for
//! gfx950's f8f6f4 forms, which it lacks, the layouts of Triton's `AMDMfmaEncodingAttr`.

use super::form::{Family, Form, Type};
use super::operand::Format;

/// One product of matrices: a block, or on gfx11 the rows that a group of 16 lanes computes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Task {
    /// Offset of row 0 of each stored column of A.
    pub a: Vec<usize>,
    /// Offset of column 0 of each row of B.
    pub b: Vec<usize>,
    /// Rows of A, hence of C.
    pub rows: Vec<usize>,
    /// Offset of column 0 of each of those rows of C and D.
    pub c: Vec<usize>,
}

/// How one operand's rows (or columns) are spread.
#[derive(Debug, Clone, Copy)]
pub struct Spread {
    /// Elements that each lane holds.
    pub elements: usize,
    /// Consecutive values of k in a lane, before those of the next lane.
    chunk: usize,
    /// Lanes from one value of k to the next chunk's.
    stride: usize,
    /// Groups of lanes over which k is spread.
    groups: usize,
    /// Elements beyond this many lie 32 lanes further (64-lane waves of gfx12).
    fold: usize,
}

impl Spread {
    /// How a matrix of `outer` rows (A) or columns (B) lies, with `k` elements in each.
    pub fn new(form: &Form, lanes: usize, outer: usize, k: usize, format: Format) -> Spread {
        match form.family {
            Family::Mfma => {
                let stride = outer * form.blocks;
                let (groups, elements) = (64 / stride, k * stride / 64);
                // The 32 bytes of f8f6f4 are two runs of 16; the smaller formats are one of 32.
                let split = form.a == Type::F8f6f4 && format.bits() == 8;
                let chunk = if split { elements / 2 } else { elements };
                Spread { elements, chunk, stride, groups, fold: elements }
            }
            Family::Wmma11 => Spread { elements: k, chunk: k, stride: 0, groups: 1, fold: k },
            Family::Wmma12 => {
                let half = k / 2;
                let chunk = if format.bits() == 16 { half / 2 } else { half };
                let register = 32 / format.bits();
                let fold = if lanes == 64 { (half / 2).max(register) } else { half };
                Spread { elements: fold, chunk, stride: 16, groups: 2, fold }
            }
        }
    }

    /// Offset of row or column 0 at `k`, within the first block.
    fn offset(&self, k: usize) -> usize {
        let (run, group) = (k / self.chunk / self.groups, k / self.chunk % self.groups);
        let element = run * self.chunk + k % self.chunk;
        let lane = group * self.stride + 32 * (element / self.fold);
        64 * (element % self.fold) + lane
    }
}

/// The products that an instruction consists of. `block_of_a` says which block of A a block uses.
pub fn tasks(
    form: &Form,
    lanes: usize,
    [a, b]: [Spread; 2],
    block_of_a: impl Fn(usize) -> usize,
) -> Vec<Task> {
    if form.family == Family::Wmma11 {
        return (0..lanes / 16).map(|group| task11(form, lanes, [a, b], group)).collect();
    }
    let task = |block| Task {
        a: (0..form.stored_k()).map(|k| a.offset(k) + block_of_a(block) * form.m).collect(),
        b: (0..form.k).map(|k| b.offset(k) + block * form.n).collect(),
        rows: (0..form.m).collect(),
        c: (0..form.m).map(|row| result_offset(form, lanes, row, block)).collect(),
    };
    (0..form.blocks).map(task).collect()
}

/// On gfx11 every 16 lanes hold all of A and B, and compute every second (or fourth) row.
fn task11(form: &Form, lanes: usize, [a, b]: [Spread; 2], group: usize) -> Task {
    let groups = lanes / 16;
    let offsets = |spread: Spread| (0..form.k).map(|k| spread.offset(k) + 16 * group).collect();
    let rows: Vec<usize> = (group..form.m).step_by(groups).collect();
    let c = rows.iter().map(|row| 64 * (row / groups) + 16 * group).collect();
    Task { a: offsets(a), b: offsets(b), rows, c }
}

/// Offset of column 0 of a row of C and D.
fn result_offset(form: &Form, lanes: usize, row: usize, block: usize) -> usize {
    if form.family == Family::Wmma12 {
        let (element, half) = (row % 8, row / 8);
        let fold = if lanes == 64 { 4 } else { 8 };
        return 64 * (element % fold) + 16 * half + 32 * (element / fold);
    }
    // Rows come in strips of four registers (of one for doubles); the strips of all blocks that
    // fit into 64 lanes lie side by side, then those of the next rows.
    let height = if form.c == Type::F64 { 1 } else { 4 };
    let strips = 64 / form.n;
    let blocks = (64 * height / (form.m * form.n)).max(1);
    let strip = row / height;
    let element = block / blocks * (form.m * form.n / 64).max(1)
        + strip * blocks / strips * height
        + row % height;
    let lane = block % blocks * form.n + strip % (strips / blocks) * blocks * form.n;
    64 * element + lane
}
