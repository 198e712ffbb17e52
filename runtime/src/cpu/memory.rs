//! The plan's segments in memory: weights mapped from the artifact, the rest anonymous, zeroed
//! and allocated once; and so are synthetic weights, which are made up at load.
#![allow(unsafe_code)]

use crate::device::{DeviceError, LoadProgress, LoadRequest};
use crate::synthetic;
use memmap2::{Advice, MmapMut};
use std::ops::Range;
use waveloom_plan::{Artifact, ArtifactError, BufferId, Layout, Segment, Synthetic};

/// Areas of at least this size are offered huge pages.
const HUGE: u64 = 2 << 20;

/// After so many bytes of synthetic weights, whoever waits for them is told.
const PROGRESS_BYTES: usize = 256 << 20;

/// An anonymous area, aligned to a page. Kernels write it through its address.
struct Area {
    address: usize,
    bytes: u64,
    /// Keeps the mapping; not dereferenced after it was filled, so that no reference is alive while
    /// kernels write.
    map: Option<MmapMut>,
}

impl Area {
    /// `bytes` zero bytes; `touch` asks for the pages now instead of at their first use.
    fn new(what: &'static str, bytes: u64, touch: bool) -> Result<Area, DeviceError> {
        if bytes == 0 {
            return Ok(Area { address: 64, bytes, map: None });
        }
        let fail = |source| DeviceError::Memory { what, bytes, source };
        let length =
            usize::try_from(bytes).map_err(|_| fail(std::io::ErrorKind::OutOfMemory.into()))?;
        let mut map = MmapMut::map_anon(length).map_err(fail)?;
        if bytes >= HUGE {
            // Advice only; without it pages are small.
            let _ = map.advise(Advice::HugePage);
        }
        if touch {
            map.fill(0);
        }
        let address = map.as_mut_ptr().expose_provenance();
        Ok(Area { address, bytes, map: Some(map) })
    }

    /// A constants segment of `bytes` bytes that is made up.
    fn synthetic(
        synthetic: &Synthetic,
        bytes: u64,
        progress: &mut dyn FnMut(LoadProgress),
    ) -> Result<Area, DeviceError> {
        let mut area = Area::new("synthetic weights", bytes, false)?;
        let (mut done, total) = (0, bytes);
        for piece in area.map.iter_mut().flat_map(|map| map.chunks_mut(PROGRESS_BYTES)) {
            synthetic::fill(synthetic, done, piece);
            done += piece.len() as u64;
            progress(LoadProgress { done, total });
        }
        if let Some(map) = &mut area.map {
            // Anew: what was written through went another way.
            area.address = map.as_mut_ptr().expose_provenance();
        }
        Ok(area)
    }
}

/// The constants segment.
enum Constants {
    /// In the artifact's file.
    Mapped { _artifact: Artifact, address: usize, bytes: u64 },
    /// In memory.
    Synthetic(Area),
}

impl Constants {
    fn load(request: &mut LoadRequest<'_>) -> Result<Constants, DeviceError> {
        let (artifact, needed) = (request.artifact, request.layout.constants);
        if let Some(synthetic) = &request.plan.synthetic {
            return Area::synthetic(synthetic, needed, request.progress).map(Constants::Synthetic);
        }
        let weights = artifact.constants(&request.plan.weights)?;
        if (weights.len() as u64) < needed {
            return Err(DeviceError::Artifact(ArtifactError::Constants {
                path: artifact.path().into(),
                target: request.plan.target.clone(),
                found: weights.len() as u64,
                expected: needed,
            }));
        }
        let address = weights.as_ptr().expose_provenance();
        Ok(Constants::Mapped { _artifact: artifact.clone(), address, bytes: needed })
    }

    fn address(&self) -> usize {
        match self {
            Constants::Mapped { address, .. } => *address,
            Constants::Synthetic(area) => area.address,
        }
    }

    fn bytes(&self) -> u64 {
        match self {
            Constants::Mapped { bytes, .. } => *bytes,
            Constants::Synthetic(area) => area.bytes,
        }
    }
}

/// All memory of a loaded plan.
pub struct Memory {
    constants: Constants,
    arena: Area,
    state: Area,
    io: Area,
    /// One area per worker.
    scratch: Vec<Area>,
    layout: Layout,
}

impl Memory {
    /// Allocates segments and the scratch areas of `workers` workers, and checks the weights.
    pub fn allocate(request: &mut LoadRequest<'_>, workers: usize) -> Result<Memory, DeviceError> {
        let layout = request.layout.clone();
        let constants = Constants::load(request)?;
        // The arena and what the host exchanges are used in full by the first step; the KV cache
        // only as far as the conversation gets.
        let scratch = (0..workers).map(|_| Area::new("scratch", layout.scratch, true));
        Ok(Memory {
            constants,
            arena: Area::new("intermediate values", layout.arena, true)?,
            state: Area::new("the KV cache", layout.state, false)?,
            io: Area::new("input and output", layout.io, true)?,
            scratch: scratch.collect::<Result<_, _>>()?,
            layout,
        })
    }

    /// Bytes of all segments and scratch areas.
    pub fn bytes(&self) -> u64 {
        let areas = [&self.arena, &self.state, &self.io].into_iter().chain(&self.scratch);
        self.constants.bytes() + areas.map(|area| area.bytes).sum::<u64>()
    }

    /// Addresses of the workers' scratch areas.
    pub fn scratch(&self) -> Vec<usize> {
        self.scratch.iter().map(|area| area.address).collect()
    }

    /// Address of a buffer of the plan.
    pub fn address(&self, buffer: BufferId) -> Option<usize> {
        let placement = self.layout.buffers.get(buffer)?;
        let base = match placement.segment {
            Segment::Constants => self.constants.address(),
            Segment::Arena => self.arena.address,
            Segment::State => self.state.address,
            Segment::Io => self.io.address,
        };
        base.checked_add(usize::try_from(placement.offset).ok()?)
    }

    /// Words of an io buffer. That `self` is borrowed mutably means that no program is running.
    pub fn io_words(
        &mut self,
        buffer: BufferId,
        words: Range<usize>,
    ) -> Result<&mut [u32], DeviceError> {
        let address = self.io_address(buffer, &words)?;
        let pointer = std::ptr::with_exposed_provenance_mut(address);
        // SAFETY: `io_address` found `words` inside the io area, which is mapped for as long as
        // `self` lives, zeroed at first, and aligned as the offset is to 64 bytes. Kernels write
        // it only inside `CpuPlan::run`, which borrows the same owner mutably until all workers
        // have passed the last barrier; so nothing else refers to these words meanwhile.
        Ok(unsafe { std::slice::from_raw_parts_mut(pointer, words.len()) })
    }

    /// The same words as floats.
    pub fn io_floats(
        &mut self,
        buffer: BufferId,
        words: Range<usize>,
    ) -> Result<&[f32], DeviceError> {
        let address = self.io_address(buffer, &words)?;
        let pointer = std::ptr::with_exposed_provenance(address);
        // SAFETY: as in `io_words`; any 32 bits are an f32.
        Ok(unsafe { std::slice::from_raw_parts(pointer, words.len()) })
    }

    /// Copies bytes of a buffer of any segment.
    pub fn read_bytes(
        &mut self,
        buffer: BufferId,
        first: u64,
        to: &mut [u8],
    ) -> Result<(), DeviceError> {
        let (address, _) = self.byte_address(buffer, first, to.len())?;
        let from = std::ptr::with_exposed_provenance::<u8>(address);
        // SAFETY: `byte_address` found the bytes inside their segment, which is mapped for as long
        // as `self` lives; no program runs while `self` is borrowed mutably (see `io_words`).
        unsafe { std::ptr::copy_nonoverlapping(from, to.as_mut_ptr(), to.len()) };
        Ok(())
    }

    /// Writes bytes of a buffer that is not constant.
    pub fn write_bytes(
        &mut self,
        buffer: BufferId,
        first: u64,
        bytes: &[u8],
    ) -> Result<(), DeviceError> {
        let (address, segment) = self.byte_address(buffer, first, bytes.len())?;
        if segment == Segment::Constants {
            return Err(DeviceError::Request("weights cannot be written"));
        }
        let to = std::ptr::with_exposed_provenance_mut::<u8>(address);
        // SAFETY: as in `read_bytes`; all other segments are this memory's own and can be written.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), to, bytes.len()) };
        Ok(())
    }

    /// Address of byte `first` of a buffer that has `count` more, and its segment.
    fn byte_address(
        &self,
        buffer: BufferId,
        first: u64,
        count: usize,
    ) -> Result<(usize, Segment), DeviceError> {
        let placement = self.layout.buffers.get(buffer).filter(|b| b.holds(first, count));
        match (placement, self.address(buffer)) {
            // Inside a mapped segment: the sum is an address.
            (Some(placement), Some(address)) => Ok((address + first as usize, placement.segment)),
            _ => Err(DeviceError::Request("bytes outside a buffer")),
        }
    }

    /// Address of the first of `words` of a buffer that is in the io segment and holds them all.
    fn io_address(&self, buffer: BufferId, words: &Range<usize>) -> Result<usize, DeviceError> {
        let outside = DeviceError::Request("words outside an io buffer");
        let placement = self.layout.buffers.get(buffer).filter(|b| b.segment == Segment::Io);
        let fits = |bytes: u64| words.start <= words.end && words.end as u64 <= bytes / 4;
        match (placement, self.address(buffer)) {
            (Some(placement), Some(address)) if fits(placement.bytes) => {
                Ok(address + 4 * words.start)
            }
            _ => Err(outside),
        }
    }
}
