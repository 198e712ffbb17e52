//! For tests: a macro-op on its own, its kernel run on buffers of bytes.

use crate::harness::{Aligned, Arg, Loaded};
use crate::kernels::{ArgRole, KernelSource, Variant, kernel_for};
use crate::target::CpuTarget;
use waveloom_ir::{Dim, FunctionBuilder, InstId, Module, Op, SymbolId, Type};

/// The symbol of that name in [`module`].
pub(super) const T: Dim = Dim::Symbol(SymbolId(0));
/// As [`T`].
pub(super) const C: Dim = Dim::Symbol(SymbolId(2));

/// A module with the three symbols.
pub(super) fn module() -> Module {
    let mut module = Module::new("test");
    module.add_symbol("T", 1, 512);
    module.add_symbol("S", 1, 1 << 16);
    module.add_symbol("C", 1, 1 << 16);
    module
}

/// The kernel of `op` on parameters of these types.
pub(super) fn kernel(op: Op, types: &[Type], variant: Variant, target: &CpuTarget) -> KernelSource {
    let mut module = module();
    let mut function = FunctionBuilder::new(&module, "main");
    let operands: Vec<_> = types.iter().map(|ty| function.param("x", ty.clone())).collect();
    let results = function.push(op, &operands).expect("the op fits its operands");
    let function = function.finish(&results);
    module.add_function(function);
    kernel_for(&module, &module.functions[0], InstId(0), variant, &target.clone().into())
        .expect("a kernel")
}

/// A loaded kernel.
pub(super) struct Runner {
    source: KernelSource,
    loaded: Loaded,
    /// The operand that is updated in place, for ops that do so.
    updated: usize,
}

impl Runner {
    pub fn new(source: KernelSource, target: &CpuTarget) -> Runner {
        let loaded = Loaded::new(&source.text, target).expect("the kernel compiles");
        Runner { source, loaded, updated: 0 }
    }

    pub fn items(&self, symbols: [i64; 3]) -> i64 {
        self.source.items.eval(&symbols).expect("a number of items")
    }

    /// Runs items `first..last`. Buffer `i` of `buffers` is operand `i`; the result is the last
    /// one, or the operand that it updates.
    pub fn run_items(&self, buffers: &[Aligned], symbols: [i64; 3], first: i64, last: i64) {
        let args: Vec<Arg> = self
            .source
            .args
            .iter()
            .map(|role| match role {
                ArgRole::Buffer(index) if *index == buffers.len() => buffers[self.updated].arg(),
                ArgRole::Buffer(index) => buffers[*index].arg(),
                ArgRole::Scratch => unreachable!("a CPU's kernel has scratch of its own"),
                ArgRole::Scalar(expr) => Arg::I64(expr.eval(&symbols).expect("a number")),
            })
            .collect();
        self.loaded.run(&args, first, last, self.source.scratch_bytes as usize);
    }

    /// Runs all items in one go, and again in uneven parts from the last to the first: each
    /// buffer must hold the same to the bit.
    pub fn run(&self, buffers: &mut [Aligned], symbols: [i64; 3]) {
        let contents = |buffers: &[Aligned]| -> Vec<Vec<u8>> {
            buffers.iter().map(|buffer| buffer.bytes().to_vec()).collect()
        };
        let before = contents(buffers);
        let items = self.items(symbols);
        self.run_items(buffers, symbols, 0, items);
        let whole = contents(buffers);
        for (buffer, before) in buffers.iter_mut().zip(before) {
            buffer.bytes_mut().copy_from_slice(&before);
        }
        let cuts = [0, items / 7, items / 3, items / 2, items];
        for cut in cuts.windows(2).rev() {
            self.run_items(buffers, symbols, cut[0], cut[1]);
        }
        assert!(whole == contents(buffers), "{}: the split shows", self.source.summary);
    }
}

/// Bytes of plain numbers.
pub(super) fn f32s(values: &[f32]) -> Aligned {
    Aligned::from_bytes(&values.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<_>>())
}

/// Bytes of plain numbers.
pub(super) fn i32s(values: &[i32]) -> Aligned {
    Aligned::from_bytes(&values.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<_>>())
}

/// The first `count` f32 of a buffer.
pub(super) fn read_f32s(buffer: &Aligned, count: usize) -> Vec<f32> {
    let words = buffer.bytes().as_chunks::<4>().0;
    words[..count].iter().map(|word| f32::from_le_bytes(*word)).collect()
}

/// The first `count` i32 of a buffer.
pub(super) fn read_i32s(buffer: &Aligned, count: usize) -> Vec<i32> {
    let words = buffer.bytes().as_chunks::<4>().0;
    words[..count].iter().map(|word| i32::from_le_bytes(*word)).collect()
}
