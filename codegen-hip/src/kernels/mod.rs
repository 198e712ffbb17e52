//! Kernels of macro-ops: one generator per family, and the description that the plan needs of
//! what it made.

pub mod cpu;
pub mod gpu;
pub(crate) mod instance;
mod map;
mod real;
mod sampling;
pub mod scalar;
mod section;
pub(crate) mod tiles;
mod work;

use crate::Target;
use crate::lower::KernelText;
use instance::Instance;
use thiserror::Error;
pub use tiles::TileChoice;
use waveloom_ir::{Dim, Function, InstId, Module, Numerics, Op, Tiles, Tiling};
use waveloom_plan as plan;

/// The symbols of every plan, in the plan's order: step tokens, cache length, cache capacity.
pub const SYMBOLS: [&str; 3] = ["T", "S", "C"];

/// An extent over the plan's symbols.
pub fn extent_expr(module: &Module, dim: Dim) -> Result<plan::Expr, KernelError> {
    match dim {
        Dim::Const(extent) => i64::try_from(extent)
            .map(plan::Expr::from)
            .map_err(|_| KernelError(format!("extent {extent} does not fit in 63 bits"))),
        Dim::Symbol(id) => {
            let name = module.symbols.get(id.index()).map_or("?", |symbol| symbol.name.as_str());
            let index = SYMBOLS.iter().position(|known| *known == name);
            let unknown = || KernelError(format!("a plan has no symbol '{name}'"));
            index.map(plan::Expr::Symbol).ok_or_else(unknown)
        }
    }
}

/// Which program a kernel is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Variant {
    /// Up to `prefill_chunk` tokens per step.
    Prefill,
    /// One token per step: the symbol `T` is 1.
    Decode,
}

/// What an argument slot of a kernel holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ArgRole {
    /// The address of a buffer: an index into the op's operands followed by its results.
    Buffer(usize),
    /// A number.
    Scalar(plan::Expr),
    /// The address of the scratch that all launches share, on a GPU.
    Scratch,
}

/// A kernel and all that a plan says about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KernelSource {
    /// What its name begins with: the family and what tells its members apart.
    pub stem: String,
    /// For people: the macro-op and its shape.
    pub summary: String,
    /// The code; its symbol is the stem until [`KernelSource::rename`].
    pub text: KernelText,
    /// Number of work items, or of workgroups on a GPU, over the plan's symbols.
    pub items: plan::Expr,
    /// Argument slots.
    pub args: Vec<ArgRole>,
    /// Bytes of scratch that one worker, or the GPU, needs.
    pub scratch_bytes: u64,
    /// Whether it reads its weights once from start to end, as products do and lookups do not.
    pub streams_weights: bool,
    /// What a launch cannot do without.
    pub work: Option<plan::Work>,
    /// How it rounds.
    pub numerics: Numerics,
    /// By workgroup, where all grids are known: what it reads first of its weights.
    pub first_reads: Vec<Vec<FirstRead>>,
    /// A kernel whose launch comes right before, with the op's arguments: it leaves in scratch what
    /// this one reads there.
    pub before: Option<Box<KernelSource>>,
}

/// The beginning of what a workgroup reads of a weight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FirstRead {
    /// Argument slot of the weight.
    pub slot: usize,
    /// Offset in bytes.
    pub offset: u64,
    /// Bytes that it reads from there on.
    pub bytes: u64,
}

impl KernelSource {
    /// Whether `other` is the same code under the same arguments and items.
    pub fn same_code(&self, other: &KernelSource) -> bool {
        self.stem == other.stem
            && self.items == other.items
            && self.args == other.args
            && self.text.named(&self.stem) == other.text.named(&self.stem)
    }

    /// Gives the kernel another symbol, a C identifier.
    pub fn rename(&mut self, name: impl AsRef<str>) {
        self.text = self.text.named(name.as_ref());
    }

    /// Its entry in a plan.
    pub fn entry(&self) -> plan::Kernel {
        plan::Kernel {
            name: self.text.name.clone(),
            summary: self.summary.clone(),
            workgroup: self.text.workgroup,
            shared_bytes: self.text.dynamic_shared,
            work: self.work.clone(),
            facts: None,
        }
    }
}

/// Why a macro-op has no kernel on a target.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{0}")]
pub struct KernelError(pub String);

/// The kernel of macro-op `inst` of `function` in one of the two programs.
pub fn kernel_for(
    module: &Module,
    function: &Function,
    inst: InstId,
    variant: Variant,
    target: &Target,
) -> Result<KernelSource, KernelError> {
    kernel_of_size(module, function, inst, variant, target, 0)
}

/// [`kernel_for`] with workgroups of at least `work_items` work-items on a GPU.
pub fn kernel_of_size(
    module: &Module,
    function: &Function,
    inst: InstId,
    variant: Variant,
    target: &Target,
    work_items: u32,
) -> Result<KernelSource, KernelError> {
    let inst = function
        .insts
        .get(inst.index())
        .ok_or_else(|| KernelError("no such instruction".to_string()))?;
    let mut source = match target {
        Target::Cpu(target) => {
            let (captured, work_items) = (false, 0);
            let op = Instance { module, function, inst, variant, target, captured, work_items };
            cpu::kernel_for(&op)
        }
        Target::Gpu(target) => {
            let captured = variant == Variant::Decode;
            let op = Instance { module, function, inst, variant, target, captured, work_items };
            gpu::kernel_for(&op)
        }
    }?;
    let (captured, work_items) = (false, 0);
    let op = Instance { module, function, inst, variant, target, captured, work_items };
    source.work = Some(work::work(&op)?);
    Ok(source)
}

/// How the kernel of `inst` of `function` is tiled in a program: as the op says, completed by what is
/// reckoned; `None` where there is nothing to choose.
pub fn tiling_of(
    module: &Module,
    function: &Function,
    inst: InstId,
    variant: Variant,
    target: &Target,
) -> Result<Option<Tiling>, KernelError> {
    let inst = &function.insts[inst.index()];
    let Op::Gemm { attr } = &inst.op else { return Ok(None) };
    let (captured, work_items) = (false, 0);
    let tiling = match target {
        Target::Cpu(target) => {
            let op = Instance { module, function, inst, variant, target, captured, work_items };
            cpu::gemm::tiling(&op, attr)
        }
        Target::Gpu(target) => {
            let op = Instance { module, function, inst, variant, target, captured, work_items };
            gpu::gemm::tiling(&op, attr)
        }
    }?;
    Ok(Some(tiling))
}

/// How the kernel of `inst` of `function` is tiled in a program and why; `None` where there is nothing
/// to choose.
pub fn tile_choice(
    module: &Module,
    function: &Function,
    inst: InstId,
    variant: Variant,
    target: &Target,
) -> Result<Option<TileChoice>, KernelError> {
    let Some(tiling) = tiling_of(module, function, inst, variant, target)? else { return Ok(None) };
    let inst = &function.insts[inst.index()];
    let (Target::Gpu(target), Op::Gemm { attr }) = (target, &inst.op) else {
        return Ok(Some(TileChoice::new(&tiling, None, None, 1, BY_REGISTERS)));
    };
    let (captured, work_items) = (false, 0);
    let op = Instance { module, function, inst, variant, target, captured, work_items };
    gpu::gemm::choice(&op, attr).map(Some)
}

/// Why a kernel of a CPU has its tiles.
const BY_REGISTERS: &str = "by rule: what fills the vector registers and the caches";

/// What an op says of how its kernel in a program is tiled.
pub(crate) fn chosen_tiles(tiles: &Tiles, variant: Variant) -> Option<&Tiling> {
    match variant {
        Variant::Prefill => tiles.prefill_tiles.as_ref(),
        Variant::Decode => tiles.decode_tiles.as_ref(),
    }
}

/// The kernel that draws a token from `vocab` logits. Buffers: logits, sampling parameters, tokens,
/// positions, last, history.
pub fn sampler(vocab: u32, target: &Target) -> Result<KernelSource, KernelError> {
    match target {
        Target::Cpu(target) => cpu::sample::kernel(vocab, target),
        Target::Gpu(target) => gpu::sample::kernel(vocab, target),
    }
}
