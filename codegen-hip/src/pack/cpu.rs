//! Weights in the order in which kernels of a CPU load them.
//!
//! A matrix `[N, K]` becomes tiles of `L` rows (`L`: f32 lanes of the target's vectors); N is
//! padded to whole tiles with rows that multiply to zero. In a tile, with r the row in it:
//!
//! | form | tile |
//! | --- | --- |
//! | f32, f16 | `[K'][L]` elements, K' = K padded with zeros to a multiple of 4 |
//! | bf16 | `[K'/2][L][2]` elements: pairs along K side by side, as `vdpbf16ps` takes them |
//! | q8_0 | per block of 32 along K: scales `[L]` f16, then `[8][L][4]` bytes: four of a row along K side by side, as `vpdpbusd` takes them. The byte is the quant + 128, as that instruction's first factor is unsigned |
//! | q4_0 | per block: scales as q8_0, then `[4][L][4]` bytes: byte (j, r, i) has quant 4j + i in its low and quant 16 + 4j + i in its high half |
//! | q4_1 | per block: `[2][L]` f16: scales, then minima; then bytes as q4_0 |
//!
//! Targets with vectors of one width have the same forms, and share them in an artifact.
//!
//! So a product reads a matrix once, from its first to its last byte. Everything that is no matrix
//! keeps its bytes. Sizes are padded to 64 bytes.

use super::ALIGNMENT;
use super::synthetic::{Drawn, ranges};
use crate::target::CpuTarget;
use waveloom_ir::DType;
use waveloom_plan::{Content, Fill};

/// K is padded to a multiple of this in plain forms.
const PLAIN_STEP: u64 = 4;
/// Quants per block.
pub const BLOCK: u64 = 32;
/// What is added to a quant of q8_0 before it is stored as a byte.
pub const Q8_BIAS: u8 = 128;

/// How a matrix of one dtype lies in memory when packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PackedLayout {
    /// Its dtype: f32, f16, bf16, q8_0, q4_0 or q4_1.
    pub dtype: DType,
    /// N.
    pub rows: u64,
    /// K.
    pub cols: u64,
    /// L.
    pub lanes: u64,
}

impl PackedLayout {
    /// The layout of a matrix on a target; `None` where the dtype is none that kernels multiply,
    /// a row is not whole blocks, or the size overflows.
    pub fn new(dtype: DType, rows: u64, cols: u64, target: &CpuTarget) -> Option<PackedLayout> {
        let multiplied = matches!(
            dtype,
            DType::F32 | DType::F16 | DType::BF16 | DType::Q8_0 | DType::Q4_0 | DType::Q4_1
        );
        let lanes = u64::from(target.lanes);
        let layout = PackedLayout { dtype, rows, cols, lanes };
        let whole = cols > 0 && cols.is_multiple_of(dtype.block_len());
        (multiplied && whole && layout.checked_bytes().is_some()).then_some(layout)
    }

    /// Number of tiles.
    pub fn tiles(&self) -> u64 {
        self.rows.div_ceil(self.lanes)
    }

    /// K with its padding.
    pub fn padded_cols(&self) -> u64 {
        self.cols.next_multiple_of(PLAIN_STEP)
    }

    /// f16 numbers per row and block: scale, or scale and minimum; 0 for plain forms.
    pub fn scales_per_block(&self) -> u64 {
        match self.dtype {
            DType::Q8_0 | DType::Q4_0 => 1,
            DType::Q4_1 => 2,
            _ => 0,
        }
    }

    /// Offset of the quants in a block: the bytes of its scales and minima.
    pub fn quants_offset(&self) -> u64 {
        self.scales_per_block() * self.lanes * 2
    }

    /// Bytes of the quants of a block.
    fn quants_bytes(&self) -> u64 {
        let bytes = self.dtype.block_bytes() - 2 * self.scales_per_block();
        bytes * self.lanes
    }

    /// Bytes of a block of a tile, scales and quants of L rows; of a quantized form.
    pub fn block_stride(&self) -> u64 {
        self.quants_offset() + self.quants_bytes()
    }

    /// Bytes of a tile.
    pub fn tile_bytes(&self) -> u64 {
        match self.dtype.is_block() {
            true => self.cols / BLOCK * self.block_stride(),
            false => self.padded_cols() * self.lanes * self.dtype.block_bytes(),
        }
    }

    /// Bytes of the whole.
    pub fn bytes(&self) -> u64 {
        (self.tiles() * self.tile_bytes()).next_multiple_of(ALIGNMENT)
    }

    /// [`PackedLayout::bytes`], with a bound (2⁶² bytes) that keeps every offset in an `i64`.
    fn checked_bytes(&self) -> Option<u64> {
        let rows = self.rows.checked_add(self.lanes)?;
        // Four bytes per element and four per scale or minimum are more than any form takes.
        let cols = self.cols.checked_add(4 + ALIGNMENT)?;
        rows.checked_mul(cols)?.checked_mul(8).filter(|bytes| *bytes < 1 << 62)
    }
}

impl PackedLayout {
    /// What stands for the packed matrix where it is synthetic. The last column of an odd number
    /// of bf16, which is half of a pair, stays zero.
    pub(super) fn fills(&self, drawn: &Drawn) -> Vec<Fill> {
        let fills = if self.dtype.is_block() {
            self.block_fills(drawn)
        } else {
            let pair = if self.dtype == DType::BF16 { 2 } else { 1 };
            let (row, steps) = (pair * self.dtype.block_bytes(), self.cols / pair);
            let (whole, rest) = (self.rows / self.lanes, self.rows % self.lanes);
            let (line, tile) = (row * self.lanes, self.tile_bytes());
            vec![
                ranges(0, steps * line, whole, tile, &drawn.values),
                ranges(whole * tile, rest * row, steps, line, &drawn.values),
            ]
        };
        fills.into_iter().flatten().collect()
    }

    /// Quants of padding rows are filled, too: their scales and minima are zero.
    fn block_fills(&self, drawn: &Drawn) -> Vec<Option<Fill>> {
        let (blocks, stride) = (self.cols / BLOCK, self.block_stride());
        let (whole, rest) = (self.rows / self.lanes, self.rows % self.lanes);
        let quants = self.tiles() * blocks;
        let quants =
            ranges(self.quants_offset(), self.quants_bytes(), quants, stride, &drawn.values);
        let mut fills = vec![quants];
        for number in 0..self.scales_per_block() {
            let bytes = if number == 0 { drawn.scale } else { drawn.minimum };
            let content = Content::Repeat(bytes.to_vec());
            let (at, last) = (number * self.lanes * 2, whole * self.tile_bytes());
            fills.push(ranges(at, self.lanes * 2, whole * blocks, stride, &content));
            fills.push(ranges(last + at, rest * 2, blocks, stride, &content));
        }
        fills
    }
}

/// Packs a matrix, tiles in parallel.
pub(super) fn pack_matrix(layout: &PackedLayout, bytes: &[u8]) -> Vec<u8> {
    let row_bytes = (layout.cols / layout.dtype.block_len() * layout.dtype.block_bytes()) as usize;
    let tile_bytes = layout.tile_bytes() as usize;
    let mut packed = vec![0; layout.bytes() as usize];
    let threads = std::thread::available_parallelism().map_or(1, |n| n.get());
    let tiles_per_thread = (layout.tiles() as usize).div_ceil(threads).max(1);
    let rows_per_thread = tiles_per_thread * layout.lanes as usize;
    std::thread::scope(|scope| {
        let parts = packed.chunks_mut(tiles_per_thread * tile_bytes);
        for (part, rows) in parts.zip(bytes.chunks(rows_per_thread * row_bytes)) {
            scope.spawn(move || {
                let tiles = part.chunks_exact_mut(tile_bytes);
                for (tile, rows) in tiles.zip(rows.chunks(layout.lanes as usize * row_bytes)) {
                    for (row, bytes) in rows.chunks_exact(row_bytes).enumerate() {
                        pack_row(layout, row, bytes, tile);
                    }
                }
            });
        }
    });
    packed
}

/// Writes one row into its tile.
fn pack_row(layout: &PackedLayout, row: usize, bytes: &[u8], tile: &mut [u8]) {
    match layout.dtype {
        DType::F32 => pack_plain::<4>(layout, row, bytes, tile),
        DType::F16 => pack_plain::<2>(layout, row, bytes, tile),
        DType::BF16 => pack_pairs(layout, row, bytes, tile),
        _ => pack_blocks(layout, row, bytes, tile),
    }
}

fn pack_plain<const BYTES: usize>(
    layout: &PackedLayout,
    row: usize,
    bytes: &[u8],
    tile: &mut [u8],
) {
    let step = layout.lanes as usize * BYTES;
    for (element, to) in bytes.chunks_exact(BYTES).zip(tile.chunks_exact_mut(step)) {
        to[row * BYTES..][..BYTES].copy_from_slice(element);
    }
}

fn pack_pairs(layout: &PackedLayout, row: usize, bytes: &[u8], tile: &mut [u8]) {
    for (pair, to) in bytes.chunks(4).zip(tile.chunks_exact_mut(layout.lanes as usize * 4)) {
        to[row * 4..][..pair.len()].copy_from_slice(pair);
    }
}

/// Blocks of ggml: f16 scale, f16 minimum where the form has one, quants.
fn pack_blocks(layout: &PackedLayout, row: usize, bytes: &[u8], tile: &mut [u8]) {
    let lanes = layout.lanes as usize;
    let per_block = layout.scales_per_block() as usize;
    let blocks = bytes.chunks_exact(layout.dtype.block_bytes() as usize);
    for (block, to) in blocks.zip(tile.chunks_exact_mut(layout.block_stride() as usize)) {
        let (numbers, from) = block.split_at(2 * per_block);
        let (scales, to) = to.split_at_mut(layout.quants_offset() as usize);
        for (number, scales) in numbers.chunks_exact(2).zip(scales.chunks_exact_mut(2 * lanes)) {
            scales[2 * row..][..2].copy_from_slice(number);
        }
        // ggml's nibbles have element i in the low and i + 16 in the high half of byte i: the
        // bytes themselves stay as they are.
        let bias = if layout.dtype == DType::Q8_0 { Q8_BIAS } else { 0 };
        for (four, to) in from.chunks_exact(4).zip(to.chunks_exact_mut(4 * lanes)) {
            for (to, byte) in to[4 * row..][..4].iter_mut().zip(four) {
                *to = byte.wrapping_add(bias);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Target;
    use crate::pack::{pack_weight, packed_bytes};
    use waveloom_ir::{Dim, Type};

    fn target(name: &str) -> CpuTarget {
        CpuTarget::from_name(name).unwrap()
    }

    fn packed(ty: &Type, bytes: &[u8], target: &CpuTarget) -> Vec<u8> {
        pack_weight("w", ty, bytes, &Target::Cpu(target.clone())).unwrap()
    }

    fn bytes(ty: &Type) -> Vec<u8> {
        let size = ty.bytes(|dim| if let Dim::Const(n) = dim { n } else { 0 }).unwrap();
        (0..size).map(|i| (i * 31 % 251) as u8).collect()
    }

    fn ty(dtype: DType, rows: u64, cols: u64) -> Type {
        Type::new(dtype, [Dim::Const(rows), Dim::Const(cols)])
    }

    #[test]
    fn sizes_agree_and_padding_is_zero() {
        for target in [target("cpu-v3"), target("cpu-v4")] {
            for dtype in
                [DType::F32, DType::F16, DType::BF16, DType::Q8_0, DType::Q4_0, DType::Q4_1]
            {
                let ty = ty(dtype, 21, 96);
                let packed = packed(&ty, &bytes(&ty), &target);
                assert_eq!(Some(packed.len() as u64), packed_bytes(&ty, &target.clone().into()));
                assert_eq!(packed.len() % 64, 0);
                let layout = PackedLayout::new(dtype, 21, 96, &target).unwrap();
                let last = &packed[((layout.tiles() - 1) * layout.tile_bytes()) as usize..];
                // Row 7 of the last tile of 8, or 15 of 16, is padding: its scales are zero.
                let size = if dtype.is_block() { layout.block_stride() } else { u64::MAX };
                for block in last.chunks_exact(size.min(layout.tile_bytes()) as usize) {
                    let scales = &block[..layout.quants_offset() as usize];
                    for scales in scales.chunks_exact(2 * layout.lanes as usize) {
                        assert_eq!(scales[scales.len() - 2..], [0, 0]);
                    }
                }
            }
        }
    }

    #[test]
    fn plain_elements_lie_by_column() {
        let target = target("cpu-v3");
        let ty = ty(DType::F32, 10, 3);
        let source = bytes(&ty);
        let packed = packed(&ty, &source, &target);
        let layout = PackedLayout::new(DType::F32, 10, 3, &target).unwrap();
        for row in 0..10usize {
            for col in 0..3usize {
                let at = row / 8 * layout.tile_bytes() as usize + (col * 8 + row % 8) * 4;
                assert_eq!(packed[at..at + 4], source[(row * 3 + col) * 4..][..4]);
            }
        }
    }

    #[test]
    fn quants_lie_in_fours_and_are_biased() {
        let target = target("cpu-v4");
        let ty = ty(DType::Q8_0, 16, 64);
        let source = bytes(&ty);
        let packed = packed(&ty, &source, &target);
        let layout = PackedLayout::new(DType::Q8_0, 16, 64, &target).unwrap();
        for row in 0..16 {
            for k in 0..64 {
                let block = &source[(row * 2 + k / 32) * 34..];
                let to = &packed[k / 32 * layout.block_stride() as usize..];
                assert_eq!(to[row * 2..][..2], block[..2]);
                let quants = &to[layout.quants_offset() as usize..];
                let byte = quants[(k % 32 / 4 * 16 + row) * 4 + k % 4];
                assert_eq!(byte, block[2 + k % 32].wrapping_add(128));
            }
        }
    }

    #[test]
    fn vectors_keep_their_bytes() {
        let ty = Type::f32([Dim::Const(5)]);
        let packed = packed(&ty, &bytes(&ty), &target("cpu-v3"));
        assert_eq!(packed.len(), 64);
        assert_eq!(packed[..20], bytes(&ty));
    }

    #[test]
    fn wrong_sizes_and_forms_are_refused() {
        let target = Target::from(target("cpu-v3"));
        let error = pack_weight("w", &ty(DType::F32, 2, 2), &[0; 15], &target).unwrap_err();
        assert_eq!(error.to_string(), "weight 'w': 15 bytes where its type takes 16");
        let ty = ty(DType::Q6_K, 1, 256);
        let error = pack_weight("w", &ty, &bytes(&ty), &target).unwrap_err();
        assert_eq!(error.to_string(), "weight 'w': kernels do not multiply q6_k of this shape");
        assert_eq!(packed_bytes(&Type::new(DType::F32, [Dim::Const(1 << 62)]), &target), None);
    }
}
