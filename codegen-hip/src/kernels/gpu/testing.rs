//! For tests: a macro-op on its own, its kernel run by the emulator under all its checks.

use crate::kernels::{ArgRole, KernelSource, Variant, kernel_for};
use crate::link::link_shared_object;
use crate::target::{GpuTarget, MatrixLayout, Platform, Warpgroups};
use crate::{Target, compile};
use std::sync::Arc;
use waveloom_emulator::Chip;
use waveloom_emulator::dispatch::{Launch, Options, launch};
use waveloom_emulator::memory::Memory;
use waveloom_emulator::object::{Kernel, Object};
use waveloom_emulator::stats::{KernelStatistics, Statistics};
use waveloom_ir::{FunctionBuilder, InstId, Module, Op, Type};
use waveloom_plan::CodeFacts;

/// All targets that are GPUs.
pub(crate) const CHIPS: [&str; 6] = ["gfx90a", "gfx942", "gfx950", "gfx1100", "gfx1151", "gfx1201"];

/// A target for tests alone: gfx1100 with the matrix operations of NVIDIA GPUs, which are spelled with
/// shuffles, and their shared memory. So kernels for those run under the emulator's checks.
pub(crate) const MMA: &str = "gfx1100 with mma.sync";

/// The same with warpgroups, which are spelled lane by lane, and as much of the local data share as
/// there is.
pub(crate) const WGMMA: &str = "gfx1100 with wgmma";

/// Targets of all ways to hold matrices.
pub(crate) const LAYOUTS: [&str; 7] =
    [MMA, "gfx90a", "gfx942", "gfx950", "gfx1100", "gfx1151", "gfx1201"];

/// What unwritten memory is filled with: as f32 or f16 no number that a result should be.
const UNWRITTEN: u8 = 0xc5;

/// A target by name.
pub(crate) fn target(name: &str) -> Target {
    let known = |name| GpuTarget::from_name(name).expect("a known target");
    if ![MMA, WGMMA].contains(&name) {
        return Target::Gpu(known(name));
    }
    let GpuTarget { layout, matrix_ops, lds_bytes, .. } = known("sm_80");
    let warpgroups = (name == WGMMA).then_some(Warpgroups { lds_bytes: 64 << 10 });
    Target::Gpu(GpuTarget { layout, matrix_ops, lds_bytes, warpgroups, ..known("gfx1100") })
}

/// Whether it is [`MMA`] or [`WGMMA`].
pub(crate) fn stands_for_nvidia(target: &Target) -> bool {
    matches!(
        target,
        Target::Gpu(GpuTarget { platform: Platform::Amd, layout: MatrixLayout::Mma, .. })
    )
}

/// A module with the three symbols.
pub(crate) fn module() -> Module {
    let mut module = Module::new("test");
    module.add_symbol("T", 1, 512);
    module.add_symbol("S", 1, 1 << 16);
    module.add_symbol("C", 1, 1 << 16);
    module
}

/// The kernel of `op` on parameters of these types.
pub(crate) fn kernel(op: Op, types: &[Type], variant: Variant, target: &Target) -> KernelSource {
    let mut module = module();
    let mut function = FunctionBuilder::new(&module, "main");
    let operands: Vec<_> = types.iter().map(|ty| function.param("x", ty.clone())).collect();
    let results = function.push(op, &operands).expect("the op fits its operands");
    let function = function.finish(&results);
    module.add_function(function);
    kernel_for(&module, &module.functions[0], InstId(0), variant, target).expect("a kernel")
}

/// A kernel loaded on an emulated GPU.
pub(crate) struct Runner {
    pub source: KernelSource,
    memory: Arc<Memory>,
    pub kernel: Arc<Kernel>,
    /// The kernel whose launch comes first.
    before: Option<(KernelSource, Arc<Kernel>)>,
    /// What its assembly says.
    pub facts: CodeFacts,
    _object: Object,
}

/// What a run wrote, and what it cost.
pub(crate) struct Outcome {
    pub buffers: Vec<Vec<u8>>,
    pub statistics: KernelStatistics,
}

impl Runner {
    /// Compiles, links and loads; fails where registers are spilled or private memory is used.
    pub fn new(mut source: KernelSource, target: &Target) -> Runner {
        if stands_for_nvidia(target) {
            // Shuffles need more registers than the operations that they stand for.
            source.text.planned_waves = 1;
        }
        let before = source.before.take();
        let sources = before.iter().map(|before| &**before).chain([&source]);
        let compiled = sources.map(|source| compile(&source.text, target, false));
        let compiled = compiled.collect::<Result<Vec<_>, _>>().unwrap_or_else(|e| panic!("{e}"));
        let facts = compiled.last().and_then(|kernel| kernel.facts.clone());
        let facts = facts.expect("a kernel of a GPU has facts");
        let (found, planned) = (facts.waves_per_simd, facts.planned_waves_per_simd);
        assert!(found >= planned, "{}: {facts:?}", source.summary);
        let code = link_shared_object(&compiled, target).unwrap_or_else(|e| panic!("{e}"));
        let memory = Arc::new(Memory::reserve(1 << 30).expect("address space"));
        memory.track_writes();
        let chip = Chip::from_name(target.name()).expect("a chip of the emulator");
        let object = Object::load(&code, chip, &memory).expect("a good code object");
        let kernel = object.kernel(&source.text.name).expect("the kernel");
        let before = before.map(|before| {
            let kernel = object.kernel(&before.text.name).expect("the kernel before");
            (*before, kernel)
        });
        let private = [kernel.scratch_bytes, kernel.vgpr_spills, kernel.sgpr_spills];
        assert!(
            stands_for_nvidia(target) || private == [0; 3],
            "{}: scratch, spills",
            source.summary
        );
        assert_eq!(kernel.max_workgroup_size, source.text.workgroup, "{}", source.summary);
        Runner { source, memory, kernel, before, facts, _object: object }
    }

    /// Runs the kernel on copies of `buffers` (an op's operands, then its results), once under
    /// checks, which must find nothing, and once on two threads, with equal results.
    pub fn run(&self, buffers: &[Vec<u8>], symbols: [i64; 3]) -> Outcome {
        let checked = self.run_once(buffers, symbols, true);
        let again = self.run_once(buffers, symbols, false);
        assert!(checked.buffers == again.buffers, "{}: differs", self.source.summary);
        checked
    }

    /// Runs the kernel once, where results may differ from run to run.
    pub fn run_once(&self, buffers: &[Vec<u8>], symbols: [i64; 3], check: bool) -> Outcome {
        let addresses: Vec<u64> = buffers.iter().map(|bytes| self.upload(bytes)).collect();
        let scratch = self.upload(&vec![0; self.source.scratch_bytes as usize]);
        let statistics = Arc::new(Statistics::default());
        let options = Options {
            threads: if check { 1 } else { 2 },
            max_instructions: Some(1 << 31),
            check,
            observers: if check { vec![statistics.clone()] } else { vec![] },
        };
        if let Some((source, kernel)) = &self.before {
            let options = Options { observers: vec![], ..options.clone() };
            self.launch(source, kernel, (&addresses, scratch), symbols, &options);
        }
        self.launch(&self.source, &self.kernel, (&addresses, scratch), symbols, &options);
        let outcome = Outcome {
            buffers: addresses
                .iter()
                .zip(buffers)
                .map(|(&address, bytes)| self.read(address, bytes.len()))
                .collect(),
            statistics: statistics.kernels().into_values().next().unwrap_or_default(),
        };
        let counters = waveloom_plan::SCRATCH_COUNTERS.min(self.source.scratch_bytes);
        let counters = self.read(scratch, counters as usize);
        assert!(counters.iter().all(|&byte| byte == 0), "counters in scratch are left at zero");
        for address in addresses.into_iter().chain([scratch]) {
            self.memory.free(address);
        }
        outcome
    }

    fn launch(
        &self,
        source: &KernelSource,
        kernel: &Arc<Kernel>,
        (addresses, scratch): (&[u64], u64),
        symbols: [i64; 3],
        options: &Options,
    ) {
        let number = |expr: &waveloom_plan::Expr| expr.eval(&symbols).expect("a number");
        let slots = source.args.iter().map(|role| match role {
            ArgRole::Buffer(index) => addresses[*index],
            ArgRole::Scalar(expr) => number(expr) as u64,
            ArgRole::Scratch => scratch,
        });
        let kernarg: Vec<u8> = slots.flat_map(u64::to_le_bytes).collect();
        let explicit = kernel.arguments.iter().filter(|arg| !arg.is_hidden());
        assert_eq!(explicit.map(|arg| arg.size as usize).sum::<usize>(), kernarg.len());
        let shape = Launch {
            grid: [number(&source.items) as u32, 1, 1],
            block: [source.text.workgroup, 1, 1],
            ..Launch::default()
        };
        let summary = launch(kernel, &shape, &kernarg, &self.memory, options)
            .unwrap_or_else(|error| panic!("{}: {error}", source.summary));
        let reports: Vec<String> = summary.reports.iter().map(ToString::to_string).collect();
        assert!(reports.is_empty(), "{}: {}", source.summary, reports.join("\n"));
    }

    /// A buffer of exactly these bytes, so that an access beyond them is found; aligned 16 bytes of
    /// [`unwritten`] are memory that nobody wrote.
    fn upload(&self, bytes: &[u8]) -> u64 {
        let address = self.memory.allocate(bytes.len().max(1) as u64, "test").expect("memory");
        self.memory.write(address, bytes).expect("our own memory");
        for (index, chunk) in bytes.chunks(16).enumerate() {
            if chunk.iter().any(|&byte| byte != UNWRITTEN) {
                self.memory.mark_written(address + 16 * index as u64, chunk.len() as u64);
            }
        }
        address
    }

    fn read(&self, address: u64, bytes: usize) -> Vec<u8> {
        let mut read = vec![0; bytes];
        self.memory.read(address, &mut read).expect("our own memory");
        read
    }
}

/// Bytes of a buffer that the kernel has to write.
pub(crate) fn unwritten(bytes: usize) -> Vec<u8> {
    vec![UNWRITTEN; bytes]
}

/// The bytes of numbers.
pub(crate) fn f32_bytes(numbers: &[f32]) -> Vec<u8> {
    numbers.iter().flat_map(|x| x.to_le_bytes()).collect()
}

/// The bytes of integers.
pub(crate) fn i32_bytes(numbers: &[i32]) -> Vec<u8> {
    numbers.iter().flat_map(|x| x.to_le_bytes()).collect()
}

/// Numbers from bytes.
pub(crate) fn to_f32(bytes: &[u8]) -> Vec<f32> {
    bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()
}

mod tests {
    use super::*;
    use crate::kernels::instance::Draft;
    use crate::mlir::Elem;

    /// Waves, lanes, LDS, reductions over lanes: out[thread] = Σ over the wave of its threads'
    /// numbers, plus the number of the last thread of the workgroup.
    #[test]
    fn a_kernel_runs_on_every_chip() {
        for name in CHIPS {
            let chip = target(name);
            let Target::Gpu(amd) = &chip else { panic!("{name} is a GPU") };
            let mut draft = Draft::for_gpu("k", 256, amd);
            let out = draft.buffer(0);
            let k = &mut draft.builder;
            let (thread, group) = (k.thread(), k.workgroup());
            let sum = k.reduce_lanes(thread, amd.wave, amd, |k, a, b| k.add(a, b));
            let shared = k.shared(1024);
            let at = k.element_u32(shared, Elem::I32, thread);
            k.store(thread, at);
            k.barrier_shared();
            let last = k.i32(255);
            let at = k.element_u32(shared, Elem::I32, last);
            let last = k.load(at, Elem::I32);
            let sum = k.add(sum, last);
            let before = k.mul_const(group, 256);
            let index = k.add(before, thread);
            let at = k.element_u32(out, Elem::I32, index);
            k.store(sum, at);
            let source = draft.finish("sums".to_string(), 2.into(), 0);
            let runner = Runner::new(source, &chip);
            let outcome = runner.run(&[unwritten(2048)], [1, 1, 1]);
            let wave = amd.wave as i32;
            let want: Vec<i32> = (0..512)
                .map(|i| {
                    let first = i % 256 / wave * wave;
                    (first..first + wave).sum::<i32>() + 255
                })
                .collect();
            assert_eq!(outcome.buffers[0], i32_bytes(&want), "{name}");
        }
    }

    /// HIP finds only the kernels of a code object's first metadata note.
    #[test]
    fn every_kernel_of_a_code_object_is_found() {
        for name in CHIPS {
            let chip = target(name);
            let Target::Gpu(amd) = &chip else { panic!("{name} is a GPU") };
            let kernels = ["a", "b", "c"].map(|name| {
                let mut draft = Draft::for_gpu(name, 64, amd);
                let out = draft.buffer(0);
                let k = &mut draft.builder;
                let one = k.i32(1);
                k.store(one, out);
                let source = draft.finish(name.to_string(), 1.into(), 0);
                compile(&source.text, &chip, false).unwrap()
            });
            let code = link_shared_object(&kernels, &chip).unwrap();
            assert_eq!(code, link_shared_object(&kernels, &chip).unwrap());
            let memory = Arc::new(Memory::reserve(1 << 30).expect("address space"));
            let chip = Chip::from_name(name).expect("a chip of the emulator");
            let object = Object::load(&code, chip, &memory).expect("a good code object");
            let mut found: Vec<String> = object.kernels().map(|k| k.name.clone()).collect();
            found.sort();
            assert_eq!(found, ["a", "b", "c"], "{name}");
        }
    }
}
