//! Where AMD's matrix instruction calculator says that elements are, in its own form: a function of
//! row, column, k and block for each family and width. For f8f6f4 the source is the bit
//! positions in Triton's layouts of gfx950.

use super::super::form::{Family, Form, Type};
use super::encoding::width;

/// Bit in a lane's registers, and lanes that hold a copy.
pub struct Place {
    pub bit: usize,
    pub lanes: Vec<usize>,
}

fn at(bit: usize, lane: usize) -> Place {
    Place { bit, lanes: vec![lane] }
}

/// Element (i, k) of A, or (k, i) of B; `bits` is the size of an element. Of a sparse A, k counts
/// the stored elements.
pub fn input(
    form: &Form,
    is_a: bool,
    lanes: usize,
    bits: usize,
    i: usize,
    k: usize,
    block: usize,
) -> Place {
    let stored = form.sparse && is_a;
    match form.family {
        Family::Mfma if form.a == Type::F8f6f4 && bits == 8 => {
            // The low four bits of k choose the byte, the next choose lanes, the last the half.
            if form.m == 16 {
                at(8 * (k % 16 + 16 * (k / 64)), i + 16 * (k / 16 % 4))
            } else {
                at(8 * (k % 16 + 16 * (k / 32)), i + 32 * (k / 16 % 2))
            }
        }
        Family::Mfma => {
            let depth = if stored { form.k / 2 } else { form.k };
            let outer = if is_a { form.m } else { form.n };
            let contiguous = depth / (64 / (outer * form.blocks));
            let lane = block * outer + k / contiguous * outer * form.blocks + i;
            at(bits * (k % contiguous), lane)
        }
        Family::Wmma11 => {
            Place { bit: bits * k, lanes: (0..lanes / 16).map(|copy| i + 16 * copy).collect() }
        }
        Family::Wmma12 if form.sparse => {
            let (register, low, lane) = sparse12(form, is_a, lanes, bits, k);
            at(32 * register + low, lane + i)
        }
        Family::Wmma12 => {
            let (register, low, lane) = dense12(form, lanes, bits, k);
            at(32 * register + low, lane + i)
        }
    }
}

fn dense12(form: &Form, lanes: usize, bits: usize, k: usize) -> (usize, usize, usize) {
    let low = bits * (k % (32 / bits));
    let (register, lane) = match (lanes, bits, form.k) {
        (32, 16, _) => (2 * (k / 8) + k / 2 % 2, 16 * (k / 4 % 2)),
        (32, 8, _) => (k / 4 % 2, 16 * (k / 8)),
        (_, 4, 16) => (0, 16 * (k / 8)),
        (32, 4, _) => (k / 8 % 2, 16 * (k / 16)),
        (64, 16, _) => (k / 2 % 2, 32 * (k / 8 % 2) + 16 * (k / 4 % 2)),
        (64, 8, _) => (0, 32 * (k / 4 % 2) + 16 * (k / 8 % 2)),
        _ => (0, 32 * (k / 8 % 2) + 16 * (k / 16 % 2)),
    };
    (register, low, lane)
}

fn sparse12(form: &Form, is_a: bool, lanes: usize, bits: usize, k: usize) -> (usize, usize, usize) {
    if is_a {
        // The calculator counts k over all columns: pairs of stored elements stand for four.
        let (full, which) = (4 * (k / 2), k % 2);
        let (register, low) = match (lanes, bits, form.k) {
            (32, 16, _) => (2 * (full / 16) + full / 4 % 2, 0),
            (32, 8, _) => (full / 8 % 2, 16 * (full / 4 % 2)),
            (32, 4, 64) => (full / 16 % 2, 8 * (full / 4 % 4)),
            (64, 16, _) => (full / 4 % 2, 0),
            (64, 8, _) => (0, 16 * (full / 4 % 2)),
            _ => (0, 8 * (full / 4 % 4)),
        };
        return (register, low + bits * which, lane12(form, true, lanes, bits, full));
    }
    let register = match (lanes, bits, form.k) {
        (32, 16, _) => 4 * (k / 16) + k / 2 % 4,
        (32, 8, _) => k / 4 % 4,
        (32, 4, 32) => k / 8 % 2,
        (32, 4, _) => k / 8 % 4,
        (64, 16, _) => k / 2 % 4,
        (64, 8, _) => k / 4 % 2,
        (64, 4, 64) => k / 8 % 2,
        _ => 0,
    };
    (register, bits * (k % (32 / bits)), lane12(form, false, lanes, bits, k))
}

fn lane12(form: &Form, is_a: bool, lanes: usize, bits: usize, k: usize) -> usize {
    match (lanes, bits, form.k) {
        (32, 16, _) => 16 * (k / 8 % 2),
        (32, 8, _) | (32, 4, 32) => 16 * (k / 16),
        (32, ..) => 16 * (k / 32),
        (_, 16, _) => 16 * (k / 8),
        (_, 4, 32) if is_a => 16 * (k / 16),
        (_, 8, _) | (_, 4, 32) => 32 * (k / 8 % 2) + 16 * (k / 16),
        _ => 32 * (k / 16 % 2) + 16 * (k / 32),
    }
}

/// Lane and first bit in the index register of the two bits for stored element (i, k) of a sparse
/// A, in the first part of the register; and how many bits a part has.
pub fn index(form: &Form, lanes: usize, bits: usize, i: usize, k: usize) -> (usize, usize, usize) {
    let place = input(form, true, lanes, bits, i, k, 0);
    let full = 4 * (k / 2);
    let (first, part) = match (form.family, lanes, bits, form.k) {
        (Family::Mfma, ..) => {
            let contiguous = form.k / 2 / (64 / form.m);
            (k % contiguous / 2 * 4, 2 * contiguous)
        }
        (_, 32, 16, _) => (8 * (full / 16) + 4 * (full / 4 % 2), 16),
        (_, 32, 4, 64) => (4 * (full / 4 % 8), 32),
        (_, 32, ..) => (4 * (full / 4 % 4), 16),
        (_, _, 4, _) => (4 * (full / 4 % 4), 16),
        _ => (4 * (full / 4 % 2), 8),
    };
    (place.lanes[0], first + 2 * (k % 2), part)
}

/// Element (i, j) of C and D: bit in the registers, lane.
pub fn output(
    form: &Form,
    lanes: usize,
    i: usize,
    j: usize,
    block: usize,
    high: bool,
) -> (usize, usize) {
    let bits = width(form.c, 0);
    match form.family {
        Family::Mfma => {
            let multirows = 64 / form.n;
            let height = if bits == 64 { 1 } else { 4 };
            let blocks = 64_usize.div_ceil(form.n * form.m / height);
            let element =
                block * (form.m * form.n / 64) + i / (height * multirows) * height + i % height;
            let lane = block % blocks * form.n + i / height % multirows * blocks * form.n + j;
            (bits * element, lane)
        }
        Family::Wmma11 => {
            let rows = lanes / 16;
            let half = if bits == 16 && high { 16 } else { 0 };
            (32 * (i / rows) + half, 16 * (i % rows) + j)
        }
        Family::Wmma12 => {
            let (rows, lane) = match lanes {
                32 => (8, 16 * (i / 8) + j),
                _ => (4, 32 * (i / 4 % 2) + 16 * (i / 8) + j),
            };
            (bits * (i % rows), lane)
        }
    }
}

/// Registers of A, B and C.
pub fn registers(form: &Form, lanes: usize, bits: [usize; 2]) -> [usize; 3] {
    let last = |is_a: bool, bits: usize| {
        let (outer, k) = if is_a { (form.m, form.stored_k()) } else { (form.n, form.k) };
        let ends =
            (0..outer * k).map(|at| input(form, is_a, lanes, bits, at / k, at % k, 0).bit + bits);
        ends.max().unwrap_or(0).div_ceil(32)
    };
    let size = width(form.c, 0);
    let places = (0..form.m * form.blocks)
        .map(|at| output(form, lanes, at % form.m, 0, at / form.m, false).0 + size);
    let c = places.max().unwrap_or(0).div_ceil(32);
    [last(true, bits[0]), last(false, bits[1]), c]
}
