//! A plan loaded on a GPU.
#![allow(unsafe_code)]

use super::device::{DeviceMemory, Gpu, Owned, Pinned, too_little};
use super::driver::{DeviceAddress, Stream};
use super::launch::{Code, Kernel, Programs};
use super::persistent::{Persistent, too_small};
use super::ring::Ring;
use super::staging::Staging;
use crate::device::{DeviceError, LoadProgress, LoadRequest, LoadedPlan};
use crate::program::{self, Resolve};
use crate::synthetic;
use std::ops::Range;
use std::ptr;
use waveloom_plan::{Artifact, ArtifactError, BufferId, Layout, Plan, Segment, Symbols};

/// Steps that are queued at most: enough that the device never waits for the host, few enough that
/// little is lost when a generation ends.
const LOOKAHEAD: usize = 4;
/// Pinned memory in which the weights go up, twice.
const UPLOAD_BYTES: usize = 32 << 20;
/// Pinned memory in which the inputs of steps go up, so many times: about as many prefill steps are
/// queued before the host waits.
const INPUT_BYTES: usize = 8 << 10;
const INPUT_PIECES: usize = 8;

/// All segments on the device, and what the host exchanges with it.
struct Memory {
    constants: DeviceMemory,
    arena: DeviceMemory,
    state: DeviceMemory,
    io: DeviceMemory,
    scratch: DeviceMemory,
    /// The history is not in the io segment but here.
    ring: Ring,
    history: BufferId,
    layout: Layout,
}

/// A plan on a GPU. Programs are dropped before what they use: fields drop in order, after the
/// device is done.
pub struct GpuPlan {
    gpu: Gpu,
    programs: Programs,
    _code: Code,
    inputs: Staging,
    /// Where words of io buffers come down.
    outputs: Pinned,
    memory: Memory,
    stream: Owned<Stream>,
    cache_length: usize,
    /// By program: its launch that stores a token in the history.
    chooses: Vec<Option<usize>>,
    notice: Option<String>,
    /// The code object is in its file.
    _artifact: Artifact,
}

impl GpuPlan {
    /// Allocates, uploads and prepares everything.
    /// `units` is how many multiprocessors the device has.
    pub fn load(gpu: Gpu, units: u32, request: LoadRequest<'_>) -> Result<GpuPlan, DeviceError> {
        let LoadRequest { artifact, plan, layout, progress } = request;
        let stream = gpu.stream()?;
        let memory = Memory::allocate(gpu, plan, layout, stream.value)?;
        upload(gpu, artifact, plan, &memory.constants, stream.value, progress)?;
        let code = Code::load(gpu, artifact.code(&plan.target)?, plan)?;
        let places = Places::new(&memory, &code)?;
        let mut at_load: Vec<i64> = plan.symbols.iter().map(|symbol| symbol.min).collect();
        at_load[plan.decode_loop.context] = i64::from(layout.context);
        let resolved = program::resolve(plan, &places)?;
        let notice = match &plan.persistent {
            Some(step) => {
                let per_unit = code.kernels[step.kernel].resident(gpu)?;
                too_small(step, &plan.kernels[step.kernel], units, per_unit)
            }
            None => None,
        };
        let step = plan.persistent.as_ref().filter(|_| notice.is_none());
        let persistent = step.map(|step| {
            let (kernel, program) = (code.kernels[step.kernel], &resolved[step.program]);
            Persistent::load(gpu, stream.value, plan, step, kernel, program, &at_load)
        });
        let persistent = persistent.transpose()?;
        let programs = Programs::prepare(gpu, stream.value, plan, resolved, persistent, &at_load)?;
        let history = plan.decode_loop.history;
        let chooses = plan
            .programs
            .iter()
            .map(|program| program.launches.iter().position(|l| l.writes.contains(&history)));
        let io = layout.buffers.iter().filter(|buffer| buffer.segment == Segment::Io);
        let largest = io.map(|buffer| buffer.bytes).max().unwrap_or(0);
        Ok(GpuPlan {
            gpu,
            inputs: Staging::new(gpu, stream.value, INPUT_PIECES, INPUT_BYTES)?,
            outputs: Pinned::zeroed(gpu, usize::try_from(largest).unwrap_or(usize::MAX), false)?,
            cache_length: plan.decode_loop.cache_length,
            chooses: chooses.collect(),
            notice,
            programs,
            _code: code,
            memory,
            stream,
            _artifact: artifact.clone(),
        })
    }

    /// Empties the slot of the history that a program, or one launch of it, fills, if it fills one.
    fn expect_token(
        &mut self,
        program: usize,
        launch: Option<usize>,
        symbols: &Symbols,
    ) -> Result<(), DeviceError> {
        let chooses = self.chooses.get(program).copied().flatten();
        if chooses.is_some_and(|chooses| launch.is_none_or(|launch| launch == chooses)) {
            let slot = symbols.get(self.cache_length).and_then(|slot| usize::try_from(*slot).ok());
            let slot = slot.ok_or(DeviceError::Request("a step without a cache length"))?;
            self.memory.ring.expect(slot)?;
        }
        Ok(())
    }

    /// Copies device memory to host memory, when all that was queued is done.
    ///
    /// # Safety
    /// There are `bytes` bytes at `from` on the device, and `to` is pinned memory of as many that
    /// nothing else uses.
    unsafe fn download(&mut self, from: u64, to: *mut u8, bytes: usize) -> Result<(), DeviceError> {
        if bytes > 0 {
            let from = DeviceAddress(ptr::with_exposed_provenance_mut(from as usize));
            // SAFETY: the caller's promise.
            let status =
                unsafe { self.gpu.driver.download(to.cast(), from, bytes, self.stream.value) };
            self.gpu.check("copying from the device", status)?;
        }
        self.gpu.synchronize(self.stream.value)?;
        self.memory.ring.settled();
        Ok(())
    }

    /// Words of an io buffer in host memory, when all that was queued is done.
    fn fetch(&mut self, buffer: BufferId, words: Range<usize>) -> Result<*const u8, DeviceError> {
        let from = self.memory.io_address(buffer, &words)?;
        self.gpu.bind()?;
        let to = self.outputs.host();
        if buffer == self.memory.history {
            for (index, word) in words.enumerate() {
                let token = self.memory.ring.read(word)?;
                // SAFETY: there is room for the largest io buffer, aligned to more than 4, which
                // the device does not touch now: every copy to it has been waited for.
                unsafe { to.cast::<u32>().add(index).write(token) };
            }
            return Ok(to);
        }
        // SAFETY: `io_address` found the words inside device memory, and they fit, as above.
        unsafe { self.download(from, to, words.len() * 4)? };
        Ok(to)
    }
}

impl LoadedPlan for GpuPlan {
    fn allocated_bytes(&self) -> u64 {
        self.memory.bytes() + self.programs.bytes()
    }

    fn notice(&self) -> Option<&str> {
        self.notice.as_deref()
    }

    fn workers(&self) -> usize {
        1
    }

    fn lookahead(&self) -> usize {
        LOOKAHEAD
    }

    fn run(&mut self, program: usize, symbols: &Symbols) -> Result<(), DeviceError> {
        self.gpu.bind()?;
        self.expect_token(program, None, symbols)?;
        self.programs.run(program, symbols)
    }

    fn write(&mut self, buffer: BufferId, first: usize, words: &[u32]) -> Result<(), DeviceError> {
        let end = first.checked_add(words.len());
        let end = end.ok_or(DeviceError::Request("a write ends beyond all memory"))?;
        let to = self.memory.io_address(buffer, &(first..end))?;
        self.gpu.bind()?;
        if buffer == self.memory.history {
            return self.memory.ring.write(first, words);
        }
        let bytes = words.as_ptr().cast::<u8>();
        // SAFETY: any words are bytes.
        let bytes = unsafe { std::slice::from_raw_parts(bytes, size_of_val(words)) };
        // SAFETY: `io_address` found the words inside device memory, which only kernels of this
        // stream use.
        unsafe { self.inputs.copy(to, bytes) }
    }

    fn read(&mut self, buffer: BufferId, words: Range<usize>) -> Result<&[u32], DeviceError> {
        let count = words.len();
        let words = self.fetch(buffer, words)?;
        // SAFETY: `fetch` put that many words there, aligned; until `self` is borrowed again,
        // nothing writes them.
        Ok(unsafe { std::slice::from_raw_parts(words.cast(), count) })
    }

    fn read_f32(&mut self, buffer: BufferId, words: Range<usize>) -> Result<&[f32], DeviceError> {
        let count = words.len();
        let words = self.fetch(buffer, words)?;
        // SAFETY: as in `read`; any 32 bits are an f32.
        Ok(unsafe { std::slice::from_raw_parts(words.cast(), count) })
    }

    fn run_launch(
        &mut self,
        program: usize,
        launch: usize,
        symbols: &Symbols,
    ) -> Result<(), DeviceError> {
        self.gpu.bind()?;
        self.expect_token(program, Some(launch), symbols)?;
        self.programs.run_launch(program, launch, symbols)
    }

    fn time_program(&mut self, program: usize, symbols: &Symbols) -> Result<f64, DeviceError> {
        self.gpu.bind()?;
        self.expect_token(program, None, symbols)?;
        Ok(self.programs.time(program, symbols, false)?.iter().sum())
    }

    fn time_launches(
        &mut self,
        program: usize,
        symbols: &Symbols,
        seconds: &mut [f64],
    ) -> Result<(), DeviceError> {
        self.gpu.bind()?;
        self.expect_token(program, None, symbols)?;
        let times = self.programs.time(program, symbols, true)?;
        seconds.iter_mut().zip(times).for_each(|(to, time)| *to = time);
        Ok(())
    }

    fn read_bytes(
        &mut self,
        buffer: BufferId,
        first: u64,
        to: &mut [u8],
    ) -> Result<(), DeviceError> {
        let from = self.memory.byte_address(buffer, first, to.len())?;
        self.gpu.bind()?;
        // Memory of its own: who looks at buffers may allocate, and `outputs` holds only what is in io
        // buffers.
        let pinned = Pinned::zeroed(self.gpu, to.len(), false)?;
        // SAFETY: `byte_address` found the bytes inside device memory; the pinned ones are new.
        unsafe { self.download(from, pinned.host(), to.len())? };
        // SAFETY: so many bytes are there, initialized, and the device is done with them.
        unsafe { ptr::copy_nonoverlapping(pinned.host(), to.as_mut_ptr(), to.len()) };
        Ok(())
    }

    fn write_bytes(
        &mut self,
        buffer: BufferId,
        first: u64,
        bytes: &[u8],
    ) -> Result<(), DeviceError> {
        let to = self.memory.byte_address(buffer, first, bytes.len())?;
        let placement = &self.memory.layout.buffers[buffer];
        if placement.segment == Segment::Constants {
            return Err(DeviceError::Request("weights cannot be written"));
        }
        self.gpu.bind()?;
        // SAFETY: `byte_address` found the bytes inside device memory, which only kernels of this
        // stream use.
        unsafe { self.inputs.copy(to, bytes) }
    }
}

impl Drop for GpuPlan {
    fn drop(&mut self) {
        // What is queued uses what goes now. After a fault there is nothing to wait for.
        let _ = self.gpu.bind();
        let _ = self.gpu.synchronize(self.stream.value);
    }
}

impl Memory {
    fn allocate(
        gpu: Gpu,
        plan: &Plan,
        layout: &Layout,
        stream: Stream,
    ) -> Result<Memory, DeviceError> {
        let needed = layout.peak_bytes(1);
        let (free, _) = gpu.memory()?;
        if needed > free {
            return Err(too_little(gpu, needed));
        }
        let zeroed = |bytes| DeviceMemory::zeroed(gpu, bytes, needed, stream);
        let history = plan.decode_loop.history;
        let tokens = layout.buffers.get(history).map_or(0, |buffer| buffer.bytes);
        Ok(Memory {
            constants: zeroed(layout.constants)?,
            arena: zeroed(layout.arena)?,
            state: zeroed(layout.state)?,
            io: zeroed(layout.io)?,
            scratch: zeroed(layout.scratch)?,
            ring: Ring::new(gpu, stream, tokens)?,
            history,
            layout: layout.clone(),
        })
    }

    fn bytes(&self) -> u64 {
        [&self.constants, &self.arena, &self.state, &self.io, &self.scratch]
            .into_iter()
            .map(|memory| memory.bytes)
            .sum()
    }

    /// Where kernels find a buffer; `history` is the ring's address.
    fn address(&self, buffer: BufferId, history: u64) -> Option<u64> {
        if buffer == self.history {
            return Some(history);
        }
        let placement = self.layout.buffers.get(buffer)?;
        let segment = match placement.segment {
            Segment::Constants => &self.constants,
            Segment::Arena => &self.arena,
            Segment::State => &self.state,
            Segment::Io => &self.io,
        };
        segment.address(placement.offset)
    }

    /// Address of byte `first` of a buffer in device memory that has `count` more.
    fn byte_address(&self, buffer: BufferId, first: u64, count: usize) -> Result<u64, DeviceError> {
        if buffer == self.history {
            return Err(DeviceError::Request("the history is read and written as words"));
        }
        let placement = self.layout.buffers.get(buffer);
        match self.address(buffer, 0) {
            Some(address) if placement.is_some_and(|p| p.holds(first, count)) => {
                Ok(address + first)
            }
            _ => Err(DeviceError::Request("bytes outside a buffer")),
        }
    }

    /// Address of the first of `words` of an io buffer that holds them all.
    fn io_address(&self, buffer: BufferId, words: &Range<usize>) -> Result<u64, DeviceError> {
        let placement = self.layout.buffers.get(buffer);
        let fits = placement.is_some_and(|placement| {
            let inside = words.start <= words.end && words.end as u64 <= placement.bytes / 4;
            placement.segment == Segment::Io && inside
        });
        match self.address(buffer, 0) {
            Some(address) if fits => Ok(address + 4 * words.start as u64),
            _ => Err(DeviceError::Request("words outside an io buffer")),
        }
    }
}

/// What launches name, on the device.
struct Places<'a> {
    memory: &'a Memory,
    code: &'a Code,
    history: u64,
}

impl<'a> Places<'a> {
    fn new(memory: &'a Memory, code: &'a Code) -> Result<Places<'a>, DeviceError> {
        Ok(Places { memory, code, history: memory.ring.address()? })
    }
}

impl Resolve for Places<'_> {
    type Kernel = Kernel;

    fn kernel(&self, index: usize) -> Option<Kernel> {
        self.code.kernels.get(index).copied()
    }

    fn address(&self, buffer: BufferId) -> Option<u64> {
        self.memory.address(buffer, self.history)
    }

    fn scratch(&self) -> Option<u64> {
        self.memory.scratch.address(0)
    }
}

/// Brings the weights to the device, while they are being checked: nothing runs before both are
/// done.
fn upload(
    gpu: Gpu,
    artifact: &Artifact,
    plan: &Plan,
    to: &DeviceMemory,
    stream: Stream,
    progress: &mut dyn FnMut(LoadProgress),
) -> Result<(), DeviceError> {
    let total = to.bytes;
    if let Some(synthetic) = &plan.synthetic {
        return send(gpu, to, stream, progress, &mut |start, part| {
            part.fill(0);
            synthetic::fill(synthetic, start, part);
        });
    }
    let copied = artifact.constants_while_checked(&plan.weights, |weights| {
        match usize::try_from(total).ok().and_then(|total| weights.get(..total)) {
            Some(weights) => send(gpu, to, stream, progress, &mut |start, part| {
                // `start` is below the number of weights' bytes.
                let start = start as usize;
                part.copy_from_slice(&weights[start..start + part.len()]);
            }),
            None => Err(DeviceError::Artifact(ArtifactError::Constants {
                path: artifact.path().into(),
                target: plan.target.clone(),
                found: weights.len() as u64,
                expected: total,
            })),
        }
    });
    copied?
}

/// Fills device memory in few large pieces: while the device takes one, `write` makes the next. It
/// gets the offset of a piece, and where that goes, whose content is anything.
fn send(
    gpu: Gpu,
    to: &DeviceMemory,
    stream: Stream,
    progress: &mut dyn FnMut(LoadProgress),
    write: &mut dyn FnMut(u64, &mut [u8]),
) -> Result<(), DeviceError> {
    let total = to.bytes;
    let piece = total.min(UPLOAD_BYTES as u64);
    // At most `UPLOAD_BYTES`.
    let mut staging = Staging::new(gpu, stream, 2, piece as usize)?;
    let mut start = 0;
    while start < total {
        let bytes = piece.min(total - start) as usize;
        let address = to.address(start).unwrap_or_default();
        // SAFETY: the segment has `total` bytes, and no kernel runs yet.
        unsafe {
            staging.send(address, bytes, &mut |done, part| write(start + done as u64, part))?;
        }
        start += bytes as u64;
        progress(LoadProgress { done: start, total });
    }
    gpu.synchronize(stream)
}
