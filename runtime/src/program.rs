//! A plan's program with kernels and addresses looked up: what every device walks.

use crate::device::DeviceError;
use waveloom_plan::{Arg, BufferId, DecodeLoop, Expr, Plan, Symbol, Symbols};

/// A launch, ready to run.
pub struct Launch<K> {
    pub kernel: K,
    /// Index of the grid among the program's values.
    pub grid: usize,
    /// Its slots in the argument table.
    pub args: std::ops::Range<usize>,
}

/// A program, ready to run.
pub struct Program<K> {
    pub launches: Vec<Launch<K>>,
    /// Distinct expressions; each is evaluated once per run.
    pub values: Vec<Expr>,
    /// Slot of the argument table, and the value that belongs there.
    pub patches: Vec<(usize, usize)>,
    /// The argument table, pointers resolved, scalars zero.
    pub table: Vec<u64>,
}

/// Where a device has what programs name.
pub trait Resolve {
    /// A kernel, ready to be called.
    type Kernel;

    /// A kernel of the plan.
    fn kernel(&self, index: usize) -> Option<Self::Kernel>;

    /// Address of a buffer of the plan.
    fn address(&self, buffer: BufferId) -> Option<u64>;

    /// Address of the scratch that launches share; `None` where it belongs to workers.
    fn scratch(&self) -> Option<u64>;
}

/// All programs of a plan.
pub fn resolve<R: Resolve>(
    plan: &Plan,
    device: &R,
) -> Result<Vec<Program<R::Kernel>>, DeviceError> {
    let unknown = DeviceError::Request("the plan names what it does not have");
    let programs = plan.programs.iter().map(|program| Program::resolve(program, device));
    programs.collect::<Option<_>>().ok_or(unknown)
}

impl<K> Program<K> {
    fn resolve<R: Resolve<Kernel = K>>(
        program: &waveloom_plan::Program,
        device: &R,
    ) -> Option<Program<K>> {
        let mut resolved =
            Program { launches: vec![], values: vec![], patches: vec![], table: vec![] };
        for launch in &program.launches {
            resolved.push(launch, device)?;
        }
        Some(resolved)
    }

    fn push<R: Resolve<Kernel = K>>(
        &mut self,
        launch: &waveloom_plan::Launch,
        device: &R,
    ) -> Option<()> {
        let kernel = device.kernel(launch.kernel)?;
        let (grid, first) = (self.value(&launch.grid), self.table.len());
        for arg in &launch.args {
            let slot = match arg {
                Arg::Buffer(id) => device.address(*id)?,
                Arg::Scalar(expr) => {
                    let value = self.value(expr);
                    self.patches.push((self.table.len(), value));
                    0
                }
                Arg::Scratch => device.scratch()?,
            };
            self.table.push(slot);
        }
        self.launches.push(Launch { kernel, grid, args: first..self.table.len() });
        Some(())
    }

    /// Index of an expression's value.
    fn value(&mut self, expr: &Expr) -> usize {
        if let Some(known) = self.values.iter().position(|value| value == expr) {
            return known;
        }
        self.values.push(expr.clone());
        self.values.len() - 1
    }

    /// Whether all steps run it alike: nothing in it depends on more than the context length.
    pub fn is_fixed(&self, walk: &DecodeLoop) -> bool {
        self.values.iter().all(|value| value.all_symbols(&mut |id| id == walk.context))
    }

    /// Evaluates the program's expressions into `store`, by index.
    pub fn evaluate(
        &self,
        symbols: &Symbols,
        mut store: impl FnMut(usize, i64),
    ) -> Result<(), DeviceError> {
        for (index, expr) in self.values.iter().enumerate() {
            let value = expr.eval(symbols);
            store(index, value.ok_or(DeviceError::Request("an expression of the plan overflows"))?);
        }
        Ok(())
    }
}

/// The program of a step, if the plan has it and was verified for these values of its symbols.
pub fn checked<'p, K>(
    programs: &'p [Program<K>],
    program: usize,
    declared: &[Symbol],
    symbols: &Symbols,
) -> Result<&'p Program<K>, DeviceError> {
    let bounded = |(symbol, value): (&Symbol, &i64)| (symbol.min..=symbol.max).contains(value);
    if symbols.len() != declared.len() || !declared.iter().zip(symbols).all(bounded) {
        return Err(DeviceError::Request("a step needs a value in bounds for every symbol"));
    }
    programs.get(program).ok_or(DeviceError::Request("the plan has no such program"))
}
