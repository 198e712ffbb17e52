//! Weights in the order in which kernels of an AMD GPU load them: one order for all chips.
//!
//! A matrix `[N, K]` is cut into tiles of 16 rows (N is padded with zero rows) and *chunks* of 16
//! bytes along a row: 4 elements of f32, 8 of f16 or bf16, 16 of q8_0, 32 of q4_0 and q4_1 (K is
//! padded with zeros to whole chunks). Chunks of the 16 rows of a tile lie side by side:
//!
//! ```text
//! chunk c of row n:  (((n / 16) · chunks + c) · 16 + n % 16) · 16 bytes
//! ```
//!
//! With n = lane % 16 and g = lane / 16, in step s a wave of G groups of 16 lanes loads chunk
//! G·s + g of row n: 16 bytes a lane, 256 G contiguous bytes, and what a lane gets is its fragment
//! of a matrix operation. A chunk of q4_0 or q4_1 has element i in the low and element i + 16 in
//! the high half of byte i, as ggml has it.
//!
//! After the chunks of the whole matrix follow the scales of quantized forms, one entry per row
//! and block of 32 elements: q8_0 and q4_0 the scale, q4_1 scale and minimum, in f16. In a *unit*
//! of 16 blocks they lie so that one load of 16 bytes brings a lane its scales, the last index
//! contiguous:
//!
//! ```text
//! entries of 4 bytes:  (block % 4, row, block / 4)
//! entries of 2 bytes:  (block % 2, row, block / 2 % 2, block / 4)
//! ```
//!
//! A lane of a wave of 64 reads blocks g, 4 + g, 8 + g, 12 + g in four steps: the four entries of
//! 4 bytes that it loads, or one half of the eight of 2 bytes, whose other half lane group g ± 2
//! takes from the same load. A lane of a wave of 32 reads every other block and uses all eight.
//! Blocks beyond the last whole unit follow after all units, as `(block, row)`.

use super::synthetic::{Drawn, ranges};
use waveloom_ir::DType;
use waveloom_plan::{Content, Fill};

/// Rows of a tile.
pub const TILE_ROWS: u64 = 16;
/// Bytes of a chunk.
pub const CHUNK_BYTES: u64 = 16;
/// Elements of a block of a quantized form.
pub const BLOCK: u64 = 32;
/// Blocks of a unit of scales.
pub const UNIT_BLOCKS: u64 = 16;
/// Lane groups that a wave of 64 divides a unit among, block after block.
pub const UNIT_GROUPS: u64 = 4;
/// Blocks of a unit that each of them has.
pub const UNIT_STEPS: u64 = UNIT_BLOCKS / UNIT_GROUPS;
/// Bytes of a lane's load of scales.
pub const SCALE_LOAD_BYTES: u64 = 16;
/// Scales begin, and sizes end, at multiples of this.
const ALIGNMENT: u64 = 256;

/// How a matrix of one dtype lies in memory when packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GpuLayout {
    /// Its dtype: f32, f16, bf16, q8_0, q4_0 or q4_1.
    pub dtype: DType,
    /// N.
    pub rows: u64,
    /// K.
    pub cols: u64,
}

impl GpuLayout {
    /// The layout of a matrix; `None` where the dtype is none that kernels multiply, a row is not
    /// whole blocks, or offsets do not fit in 31 bits of chunks.
    pub fn new(dtype: DType, rows: u64, cols: u64) -> Option<GpuLayout> {
        let multiplied = matches!(
            dtype,
            DType::F32 | DType::F16 | DType::BF16 | DType::Q8_0 | DType::Q4_0 | DType::Q4_1
        );
        let whole = rows > 0 && cols > 0 && cols.is_multiple_of(dtype.block_len());
        let small = rows.checked_mul(cols).is_some_and(|elements| elements < 1 << 36);
        (multiplied && whole && small).then_some(GpuLayout { dtype, rows, cols })
    }

    /// Elements of a chunk.
    pub fn chunk_elements(&self) -> u64 {
        match self.dtype {
            DType::F32 => 4,
            DType::Q8_0 => 16,
            DType::Q4_0 | DType::Q4_1 => 32,
            _ => 8,
        }
    }

    /// Tiles of 16 rows.
    pub fn tiles(&self) -> u64 {
        self.rows.div_ceil(TILE_ROWS)
    }

    /// Chunks of a row.
    pub fn chunks(&self) -> u64 {
        self.cols.div_ceil(self.chunk_elements())
    }

    /// Bytes of a tile's chunks.
    pub fn tile_bytes(&self) -> u64 {
        self.chunks() * TILE_ROWS * CHUNK_BYTES
    }

    /// Blocks of a row that have scales; 0 for plain forms.
    pub fn blocks(&self) -> u64 {
        if self.dtype.is_block() { self.cols / BLOCK } else { 0 }
    }

    /// Bytes of the scales of a block of a row.
    pub fn scale_bytes(&self) -> u64 {
        match self.dtype {
            DType::Q8_0 | DType::Q4_0 => 2,
            DType::Q4_1 => 4,
            _ => 0,
        }
    }

    /// Parts of a unit of scales, of which a lane loads one, `run` entries, for its row: 4 or 2.
    pub fn scale_parts(&self) -> u64 {
        UNIT_BLOCKS / self.scale_run()
    }

    /// Entries of scales that a lane loads at once: 4 or 8. Of quantized forms alone.
    pub fn scale_run(&self) -> u64 {
        SCALE_LOAD_BYTES / self.scale_bytes()
    }

    /// Whole units of scales in a row.
    pub fn units(&self) -> u64 {
        self.blocks() / UNIT_BLOCKS
    }

    /// Blocks of a row beyond its whole units.
    pub fn tail_blocks(&self) -> u64 {
        self.blocks() % UNIT_BLOCKS
    }

    /// Offset in bytes of the scales.
    pub fn scales_offset(&self) -> u64 {
        (self.tiles() * self.tile_bytes()).next_multiple_of(ALIGNMENT)
    }

    /// Offset in bytes of the scales of blocks beyond whole units.
    pub fn tail_offset(&self) -> u64 {
        let entries = self.tiles() * TILE_ROWS * self.units() * UNIT_BLOCKS;
        self.scales_offset() + entries * self.scale_bytes()
    }

    /// Bytes of the whole.
    pub fn bytes(&self) -> u64 {
        let entries = self.tiles() * TILE_ROWS * self.tail_blocks();
        (self.tail_offset() + entries * self.scale_bytes()).next_multiple_of(ALIGNMENT)
    }

    /// Offset in bytes of chunk `chunk` of row `row`.
    pub fn chunk_offset(&self, row: u64, chunk: u64) -> u64 {
        let (tile, row) = (row / TILE_ROWS, row % TILE_ROWS);
        ((tile * self.chunks() + chunk) * TILE_ROWS + row) * CHUNK_BYTES
    }

    /// Offset in bytes of the scales of block `block` of row `row`.
    pub fn scale_offset(&self, row: u64, block: u64) -> u64 {
        let (tile, row) = (row / TILE_ROWS, row % TILE_ROWS);
        let unit = block / UNIT_BLOCKS;
        if unit < self.units() {
            let (group, step) = (block % UNIT_GROUPS, block % UNIT_BLOCKS / UNIT_GROUPS);
            let unit = tile * self.units() + unit;
            let (parts, run) = (self.scale_parts(), self.scale_run());
            let line = (unit * parts + group % parts) * TILE_ROWS + row;
            let entry = line * run + group / parts * UNIT_STEPS + step;
            return self.scales_offset() + entry * self.scale_bytes();
        }
        let block = block % UNIT_BLOCKS;
        let entry = (tile * self.tail_blocks() + block) * TILE_ROWS + row;
        self.tail_offset() + entry * self.scale_bytes()
    }

    /// Packs the bytes of a matrix, row after row.
    pub fn pack(&self, bytes: &[u8]) -> Vec<u8> {
        let row_bytes = (self.cols / self.dtype.block_len() * self.dtype.block_bytes()) as usize;
        let mut packed = vec![0; self.bytes() as usize];
        for (row, from) in bytes.chunks_exact(row_bytes).enumerate() {
            match self.dtype.is_block() {
                true => self.pack_blocks(row as u64, from, &mut packed),
                false => self.pack_plain(row as u64, from, &mut packed),
            }
        }
        packed
    }

    /// What stands for the packed matrix where it is synthetic. A last chunk that is not whole
    /// stays zero.
    pub(super) fn fills(&self, drawn: &Drawn) -> Vec<Fill> {
        let (tile, chunks) = (self.tile_bytes(), self.cols / self.chunk_elements());
        let mut fills = self.row_fills(0, tile, chunks, CHUNK_BYTES, &drawn.values);
        if self.dtype.is_block() {
            let entry = self.scale_bytes();
            let numbers = [drawn.scale, drawn.minimum].concat();
            let content = Content::Repeat(numbers[..entry as usize].to_vec());
            let parts = self.units() * self.scale_parts();
            for (offset, lines, bytes) in [
                (self.scales_offset(), parts, SCALE_LOAD_BYTES),
                (self.tail_offset(), self.tail_blocks(), entry),
            ] {
                let tile = lines * TILE_ROWS * bytes;
                fills.extend(self.row_fills(offset, tile, lines, bytes, &content));
            }
        }
        fills
    }

    /// Fills of all rows, of which `lines` times `bytes` lie side by side in tiles of `tile` bytes.
    fn row_fills(
        &self,
        offset: u64,
        tile: u64,
        lines: u64,
        bytes: u64,
        content: &Content,
    ) -> Vec<Fill> {
        let (whole, rest) = (self.rows / TILE_ROWS, self.rows % TILE_ROWS);
        let line = TILE_ROWS * bytes;
        let last = offset + whole * tile;
        let fills = [
            ranges(offset, lines * line, whole, tile, content),
            ranges(last, rest * bytes, lines, line, content),
        ];
        fills.into_iter().flatten().collect()
    }

    fn pack_plain(&self, row: u64, from: &[u8], packed: &mut [u8]) {
        for (chunk, from) in from.chunks(CHUNK_BYTES as usize).enumerate() {
            let to = self.chunk_offset(row, chunk as u64) as usize;
            packed[to..to + from.len()].copy_from_slice(from);
        }
    }

    /// Blocks of ggml: f16 scale, f16 minimum where the form has one, quants.
    fn pack_blocks(&self, row: u64, from: &[u8], packed: &mut [u8]) {
        let per_block = BLOCK / self.chunk_elements();
        for (block, from) in from.chunks_exact(self.dtype.block_bytes() as usize).enumerate() {
            let (scales, quants) = from.split_at(self.scale_bytes() as usize);
            let to = self.scale_offset(row, block as u64) as usize;
            packed[to..to + scales.len()].copy_from_slice(scales);
            for (part, quants) in quants.chunks_exact(CHUNK_BYTES as usize).enumerate() {
                let chunk = block as u64 * per_block + part as u64;
                let to = self.chunk_offset(row, chunk) as usize;
                packed[to..to + quants.len()].copy_from_slice(quants);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DTYPES: [DType; 6] =
        [DType::F32, DType::F16, DType::BF16, DType::Q8_0, DType::Q4_0, DType::Q4_1];

    /// Every byte of a matrix is somewhere, no two at one place, and padding is zero.
    #[test]
    fn packing_is_a_permutation() {
        for dtype in DTYPES {
            for (rows, cols) in [(21, 96), (16, 1056), (3, 512), (33, 576)] {
                let layout = GpuLayout::new(dtype, rows, cols).unwrap();
                let bytes = rows * cols / dtype.block_len() * dtype.block_bytes();
                let source: Vec<u8> = (0..bytes).map(|i| (1 + i * 31 % 251) as u8).collect();
                let packed = layout.pack(&source);
                assert_eq!(packed.len() as u64, layout.bytes());
                let sorted = |bytes: &[u8]| {
                    let mut bytes: Vec<u8> = bytes.iter().copied().filter(|b| *b != 0).collect();
                    bytes.sort_unstable();
                    bytes
                };
                assert!(sorted(&packed) == sorted(&source), "{dtype} [{rows}, {cols}]");
            }
        }
    }

    #[test]
    fn a_lane_finds_its_scales_side_by_side() {
        for (dtype, groups) in [(DType::Q4_1, 4), (DType::Q4_0, 2), (DType::Q8_0, 2)] {
            let layout = GpuLayout::new(dtype, 32, 1024).unwrap();
            let bytes = layout.scale_bytes();
            for group in 0..groups {
                // In the order in which a wave of `groups` lane groups goes over the unit.
                let steps = (0..4 / groups).flat_map(|pass| (0..4).map(move |step| (pass, step)));
                let offsets: Vec<u64> = steps
                    .map(|(pass, step)| 16 + 4 * step + groups * pass + group)
                    .map(|block| layout.scale_offset(17, block))
                    .collect();
                assert_eq!(offsets.len() as u64 * bytes, SCALE_LOAD_BYTES);
                assert_eq!(offsets[0] % SCALE_LOAD_BYTES, 0);
                assert!(offsets.windows(2).all(|pair| pair[1] == pair[0] + bytes));
            }
        }
    }

    #[test]
    fn what_kernels_do_not_multiply_has_no_layout() {
        assert_eq!(GpuLayout::new(DType::Q6_K, 16, 256), None);
        assert_eq!(GpuLayout::new(DType::Q8_0, 16, 40), None);
        assert_eq!(GpuLayout::new(DType::F32, 1 << 40, 1 << 40), None);
    }
}
