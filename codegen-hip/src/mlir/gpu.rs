//! What kernels of a GPU have beyond those of a CPU: work-items, waves, the local data share,
//! atomics, matrix operations. Index arithmetic is in `i32`.
//!
//! What a platform has operations of its own for is a method of [`Hardware`]: `amd`, `nvidia`.

mod amd;
mod hopper;
#[cfg(test)]
mod mma_by_shuffles;
mod nvidia;
pub mod warpgroup;
#[cfg(test)]
mod wgmma_by_lanes;

use super::builder::{Builder, Cmp, Gpu};
use super::types::{Elem, Ty, Value};
use crate::target::{GpuTarget, MatrixLayout, MatrixOp, Platform};
use warpgroup::Warpgroup;

/// The operations of a platform, by the names and contracts of the builder's methods that call
/// them.
pub(super) trait Hardware: std::fmt::Debug {
    fn thread(&self, k: &mut Builder) -> Value;
    fn workgroup(&self, k: &mut Builder) -> Value;
    fn first_lane(&self, k: &mut Builder, value: Value) -> Value;
    fn read_lane(&self, k: &mut Builder, value: Value, lane: Value) -> Value;
    fn shuffle_lanes(&self, k: &mut Builder, bits: Value, source: Value) -> Value;
    /// [`Builder::lane_xor`] of an `i32` in groups of `width` lanes that are all active.
    fn lane_xor(&self, k: &mut Builder, bits: Value, mask: u32, width: u32, wave: u32) -> Value;
    fn barrier(&self, k: &mut Builder, memory: Barrier);
    fn wave_barrier(&self, k: &mut Builder);
    fn atomic_add(&self, k: &mut Builder, address: Value, value: Value, scope: Scope) -> Value;
    /// How LLVM calls a scope: `syncscope("…") `, or nothing.
    fn scope(&self, scope: Scope) -> &'static str;
    fn load_streamed(&self, k: &mut Builder, pointer: Value, ty: Ty, align: u32) -> Value;
    /// What `llvm.load` is told of loads that [`Builder::load_uniform`] promises something of.
    fn uniform_load(&self) -> &'static str;
    /// [`Builder::resource_of`]; `written`: other launches may write it meanwhile.
    fn resource_of(
        &self,
        k: &mut Builder,
        at: Value,
        bytes: Value,
        written: bool,
        target: &GpuTarget,
    ) -> Value;
    fn load_resource(
        &self,
        k: &mut Builder,
        resource: Value,
        at: [Value; 2],
        ty: Ty,
        outside: Outside,
    ) -> Value;
    fn matrix(
        &self,
        k: &mut Builder,
        op: &MatrixOp,
        a: &[Value],
        b: &[Value],
        c: &[Value],
    ) -> Vec<Value>;
    fn saturate_f16(&self, k: &mut Builder);
    /// Numbers before they become f16.
    fn before_f16(&self, k: &mut Builder, a: Value) -> Value;
    fn permute_bytes(&self, k: &mut Builder, high: Value, low: Value, selector: u32) -> Value;
    fn dot4(&self, k: &mut Builder, abc: [Value; 3], target: &GpuTarget) -> Value;
    fn exp2_fast(&self, k: &mut Builder, x: Value) -> Value;
    fn reciprocal_fast(&self, k: &mut Builder, x: Value) -> Value;
    fn opaque(&self, k: &mut Builder, value: Value, uniform: bool) -> Value;
    fn atomic_add_release(&self, k: &mut Builder, address: Value, value: Value, scope: Scope);
    fn release_of_wave(&self, k: &mut Builder, scope: Scope);
    fn prefetch_l2(&self, k: &mut Builder, address: Value);
    fn pause(&self, k: &mut Builder);
    fn keep(&self, k: &mut Builder, value: Value);
    fn opaque_with(&self, k: &mut Builder, value: Value, with: Value, uniform: bool) -> Value;
    fn zero_of(&self, k: &mut Builder, value: Value) -> Value;
    fn after(&self, k: &mut Builder, value: Value, other: Value) -> Value;
    fn in_vector_register(&self, k: &mut Builder, value: Value) -> Value;
    fn moved(&self, k: &mut Builder, value: Value) -> Value;
    fn schedule_barrier(&self, k: &mut Builder, movable: Movable);
    /// What four waves do together, on chips that have it ([`GpuTarget::warpgroups`]).
    fn warpgroup(&self) -> &'static dyn Warpgroup;
}

/// The operations of a platform.
pub(super) fn hardware(platform: Platform) -> &'static dyn Hardware {
    match platform {
        Platform::Amd => &amd::Amd,
        Platform::Nvidia => &nvidia::Nvidia,
    }
}

/// What a barrier makes known to the workgroup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Barrier {
    /// What was written to the local data share.
    Shared,
    /// All that was written.
    All,
}

/// A buffer that is an address.
#[derive(Clone, Copy, Debug)]
pub(super) struct Buffer {
    /// How long it is.
    pub bytes: Value,
    /// Whether others may write it while the launch runs.
    pub written: bool,
}

/// What lanes get that read outside of a buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outside {
    /// Zeros.
    Zeros,
    /// Zeros, or what the buffer begins with.
    Any,
    /// There are none.
    Never,
}

/// What the scheduler may move across a point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Movable {
    Nothing,
    /// Matrix operations, reads of the local data share and scalar instructions.
    Matrix,
}

/// What a kernel calls its local data share.
pub(crate) const SHARED: &str = "shared";

impl Gpu {
    /// Parameter `index`, whose type is known from now on.
    pub(super) fn parameter(&mut self, index: usize, elem: Elem) -> Value {
        if self.parameters.len() <= index {
            self.parameters.resize(index + 1, Elem::I64);
        }
        self.parameters[index] = elem;
        Value { id: Value::PARAMETERS + index as u32, ty: elem.scalar() }
    }

    /// `%arg0: !llvm.ptr<1>, %arg1: i64`.
    pub(super) fn parameter_list(&self) -> String {
        let parameters = self.parameters.iter().enumerate().map(|(index, elem)| {
            let attributes = match elem {
                Elem::Global => " {llvm.align = 16 : i64, llvm.noundef}",
                _ => " {llvm.noundef}",
            };
            format!("%arg{index}: {}{attributes}", elem.name())
        });
        parameters.collect::<Vec<_>>().join(", ")
    }

    /// The declaration of the local data share.
    pub(super) fn globals(&self) -> String {
        match self.shared_bytes {
            0 => String::new(),
            _ if self.dynamic_shared => format!(
                "  llvm.mlir.global external @{SHARED}() {{addr_space = 3 : i32, alignment = 128 : \
                 i64}} : !llvm.array<0 x i8>\n"
            ),
            bytes => format!(
                "  llvm.mlir.global internal @{SHARED}() {{addr_space = 3 : i32, alignment = 128 : \
                 i64}} : !llvm.array<{bytes} x i8>\n"
            ),
        }
    }
}

/// Which threads a fence or an atomic orders.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Those of the workgroup.
    Workgroup,
    /// Those of the device.
    Device,
    /// Those of the device and of the host.
    System,
}

impl Builder {
    fn hardware(&mut self) -> &'static dyn Hardware {
        self.gpu().hardware
    }

    // ---- work-items -------------------------------------------------------------------------

    /// This work-item in its workgroup, `i32`.
    pub fn thread(&mut self) -> Value {
        self.hardware().thread(self)
    }

    /// This workgroup in the grid, `i32`.
    pub fn workgroup(&mut self) -> Value {
        self.hardware().workgroup(self)
    }

    /// This work-item's lane in its wave.
    pub fn lane(&mut self, target: &GpuTarget) -> Value {
        let thread = self.thread();
        let mask = self.i32(target.wave as i32 - 1);
        self.and(thread, mask)
    }

    /// Where this lane is in a matrix operation: its group of K, and the first of its rows of A and
    /// columns of B ([`crate::target::MatrixLayout`]).
    pub fn matrix_lane(&mut self, target: &GpuTarget) -> [Value; 2] {
        let lane = self.lane(target);
        let (shift, mask) = match target.layout {
            MatrixLayout::Mma => {
                let (two, three) = (self.i32(2), self.i32(3));
                return [self.and(lane, three), self.shr_u(lane, two)];
            }
            MatrixLayout::Mfma | MatrixLayout::Wmma3 | MatrixLayout::Wmma4 => {
                (self.i32(4), self.i32(15))
            }
        };
        [self.shr_u(lane, shift), self.and(lane, mask)]
    }

    /// This wave in its workgroup: the same in all lanes, and known to be.
    pub fn wave(&mut self, target: &GpuTarget) -> Value {
        let thread = self.thread();
        let shift = self.i32(target.wave.trailing_zeros() as i32);
        let wave = self.shr_u(thread, shift);
        self.first_lane(wave)
    }

    /// The value of the first active lane, uniform: `i32` or `f32`. It must be the same in all
    /// active lanes: where the hardware has no uniform registers it is `value` itself.
    pub fn first_lane(&mut self, value: Value) -> Value {
        self.hardware().first_lane(self, value)
    }

    /// The value of lane `lane`, an `i32` that is uniform.
    pub fn read_lane(&mut self, value: Value, lane: Value) -> Value {
        self.hardware().read_lane(self, value, lane)
    }

    /// The value of lane `source` (an `i32`, may differ by lane, counts modulo the wave's width) of
    /// the wave: 32 bits wide. All lanes of the wave must be active.
    pub fn shuffle_lanes(&mut self, value: Value, source: Value) -> Value {
        let bits = self.bitcast(value, Elem::I32);
        let found = self.hardware().shuffle_lanes(self, bits, source);
        self.bitcast(found, value.ty)
    }

    /// The value of the lane whose number differs in the bits of `mask`, a power of two less than
    /// the wave's width: 32 bits wide. All lanes of the wave must be active.
    pub fn lane_xor(&mut self, value: Value, mask: u32, target: &GpuTarget) -> Value {
        self.lane_xor_in(value, mask, target.wave, target)
    }

    /// [`Builder::lane_xor`] where groups of `width` lanes are active or not as a whole.
    fn lane_xor_in(&mut self, value: Value, mask: u32, width: u32, target: &GpuTarget) -> Value {
        let bits = self.bitcast(value, Elem::I32);
        let found = self.hardware().lane_xor(self, bits, mask, width, target.wave);
        self.bitcast(found, value.ty)
    }

    /// Combines a 32-bit value over groups of `width` neighbouring lanes (a power of two), always
    /// in the same order; every lane gets the result. Of a group all lanes must be active, or none.
    pub fn reduce_lanes(
        &mut self,
        mut value: Value,
        width: u32,
        target: &GpuTarget,
        mut combine: impl FnMut(&mut Self, Value, Value) -> Value,
    ) -> Value {
        let mut mask = 1;
        while mask < width {
            let other = self.lane_xor_in(value, mask, width, target);
            value = combine(self, value, other);
            mask *= 2;
        }
        value
    }

    /// Combines over the lanes that agree in `lane % from`, for a power of two `from` less than the
    /// wave's width: over lane groups.
    pub fn reduce_groups(
        &mut self,
        mut value: Value,
        from: u32,
        target: &GpuTarget,
        mut combine: impl FnMut(&mut Self, Value, Value) -> Value,
    ) -> Value {
        let mut mask = from;
        while mask < target.wave {
            let other = self.lane_xor(value, mask, target);
            value = combine(self, value, other);
            mask *= 2;
        }
        value
    }

    // ---- synchronization --------------------------------------------------------------------

    /// All work-items of the workgroup have got here, and see what the others wrote to the local
    /// data share before. Says nothing of global memory, so loads from it may stay in flight.
    pub fn barrier_shared(&mut self) {
        self.hardware().barrier(self, Barrier::Shared);
    }

    /// As [`Builder::barrier_shared`], of global memory too.
    pub fn barrier_all(&mut self) {
        self.hardware().barrier(self, Barrier::All);
    }

    /// All lanes of the wave have got here.
    pub fn wave_barrier(&mut self) {
        self.hardware().wave_barrier(self);
    }

    /// Adds to an `i32` in global memory, ordering all that was written before and will be read
    /// after; gives what was there.
    pub fn atomic_add(&mut self, address: Value, value: Value, scope: Scope) -> Value {
        self.hardware().atomic_add(self, address, value, scope)
    }

    /// Adds to an `i32` that only this workgroup uses, without ordering anything; gives what was
    /// there.
    pub fn atomic_add_workgroup(&mut self, address: Value, value: Value) -> Value {
        let (scope, at) = (self.hardware().scope(Scope::Workgroup), address.ty);
        self.emit(value.ty, |t| {
            format!("llvm.atomicrmw add {address}, {value} {scope}monotonic : {at}, {t}")
        })
    }

    /// Stores an `i32` after all that was written before.
    pub fn store_release(&mut self, value: Value, address: Value, scope: Scope) {
        let (scope, at) = (self.hardware().scope(scope), address.ty);
        let text = format!(
            "llvm.store {value}, {address} atomic {scope}release {{alignment = 4 : i64}} : {}, {at}",
            value.ty
        );
        self.line(&text);
    }

    /// Loads an `i32` that others change meanwhile, without ordering anything: what a loop polls.
    pub fn load_polled(&mut self, address: Value, scope: Scope) -> Value {
        let (scope, at) = (self.hardware().scope(scope), address.ty);
        self.emit(Elem::I32.into(), |t| {
            format!(
                "llvm.load {address} atomic {scope}monotonic {{alignment = 4 : i64}} : {at} -> {t}"
            )
        })
    }

    /// Adds to an `i32` in global memory after all that was written before.
    pub fn atomic_add_release(&mut self, address: Value, value: Value, scope: Scope) {
        self.hardware().atomic_add_release(self, address, value, scope);
    }

    /// What [`Builder::others_from_here`] leaves in a kernel's text.
    pub const OTHERS: &str = "// From here on: what other launches write and read.";

    /// From here on the kernel reads what launches before it write, and writes; up to here, weights are
    /// all that it reads. Where launches can overlap, it waits here.
    pub fn others_from_here(&mut self) {
        self.line(Self::OTHERS);
    }

    /// Ahead of a barrier behind which one work-item stores or adds with release: that then is of
    /// what this wave has written, too.
    pub fn release_of_wave(&mut self, scope: Scope) {
        self.hardware().release_of_wave(self, scope);
    }

    /// What is read from here on is at least as new as what was polled before.
    pub fn acquire(&mut self, scope: Scope) {
        let line = format!("llvm.fence {}acquire", self.hardware().scope(scope));
        self.line(&line);
    }

    /// Lets other waves go on for a moment.
    pub fn pause(&mut self) {
        self.hardware().pause(self);
    }

    /// Has a piece of global memory brought into the cache that all units share. Nothing waits for
    /// it. Only of GPUs that have such an instruction.
    pub fn prefetch_l2(&mut self, address: Value) {
        self.hardware().prefetch_l2(self, address);
    }

    /// Keeps a value, of 32 bits or a vector of them, that nothing else uses.
    pub fn keep(&mut self, value: Value) {
        self.hardware().keep(self, value);
    }

    /// The same `i32`, of which LLVM knows nothing but that it may differ whenever the uniform
    /// `with` does: what is made of it stays in the loop that `with` is of.
    pub fn opaque_with(&mut self, value: Value, with: Value) -> Value {
        self.hardware().opaque_with(self, value, with, false)
    }

    /// [`Builder::opaque_with`] of a value that is uniform, and known to be.
    pub fn opaque_uniform_with(&mut self, value: Value, with: Value) -> Value {
        self.hardware().opaque_with(self, value, with, true)
    }

    // ---- memory -----------------------------------------------------------------------------

    /// `bytes` bytes of the local data share, aligned to 128.
    pub fn shared(&mut self, bytes: u32) -> Value {
        let gpu = self.gpu();
        let offset = gpu.shared_bytes;
        gpu.shared_bytes = (offset + bytes).next_multiple_of(128);
        let base =
            self.emit(Elem::Shared.scalar(), |t| format!("llvm.mlir.addressof @{SHARED} : {t}"));
        self.offset_const(base, offset.into())
    }

    /// Plans for `waves` waves on each SIMD at once, at least: the compiler must keep registers
    /// within what leaves room for them.
    pub fn plan_waves(&mut self, waves: u32) {
        self.gpu().planned_waves = waves.max(1);
    }

    /// Plans for the waves that fit if a work-item needs `registers` registers; after all of the
    /// local data share has been claimed.
    pub fn plan_registers(&mut self, registers: u32, target: &GpuTarget) {
        let Gpu { workgroup, shared_bytes, .. } = *self.gpu();
        self.plan_waves(target.occupancy(registers, shared_bytes, workgroup));
    }

    /// A work-item has at most so many registers. Only of NVIDIA GPUs, whose driver assigns them.
    pub fn bound_registers(&mut self, registers: u32) {
        self.gpu().most_registers = Some(registers);
    }

    /// Bytes of the local data share that have been claimed.
    pub fn shared_bytes(&mut self) -> u32 {
        self.gpu().shared_bytes
    }

    /// The address `bytes` (an `i32`, never negative) further. With a uniform `pointer` the
    /// hardware adds the two.
    pub fn offset_u32(&mut self, pointer: Value, bytes: Value) -> Value {
        assert_eq!(bytes.ty, Elem::I32.scalar(), "offset_u32");
        if pointer.ty.elem == Elem::Shared {
            return self.emit(pointer.ty, |p| {
                format!("llvm.getelementptr inbounds {pointer}[{bytes}] : ({p}, i32) -> {p}, i8")
            });
        }
        let wide = self.fresh(Elem::I64.scalar());
        let text = format!("{wide} = llvm.zext nneg {bytes} : i32 to i64");
        self.line(&text);
        self.offset(pointer, wide)
    }

    /// The address of element `index` (an `i32`, never negative) of an array of `elem`; the offset
    /// in bytes must be below 2³¹.
    pub fn element_u32(&mut self, pointer: Value, elem: Elem, index: Value) -> Value {
        let bytes = self.mul_const(index, i64::from(elem.bytes()));
        self.offset_u32(pointer, bytes)
    }

    /// Loads what no launch writes while this one runs, from an address aligned to `align` bytes,
    /// and will hardly be read again: weights.
    pub fn load_streamed(&mut self, pointer: Value, ty: impl Into<Ty>, align: u32) -> Value {
        self.hardware().load_streamed(self, pointer, ty.into(), align)
    }

    /// Loads a number that no launch writes while this one runs, at an address that all lanes
    /// agree on.
    pub fn load_uniform(&mut self, pointer: Value, elem: Elem) -> Value {
        let (address, align) = (pointer.ty, elem.bytes());
        let promise = self.hardware().uniform_load();
        let value = self.emit(elem.into(), |t| {
            format!("llvm.load {pointer} {promise}{{alignment = {align} : i64}} : {address} -> {t}")
        });
        self.first_lane(value)
    }

    /// Loads a number, or an address, from a table that nobody writes, at an address that all lanes
    /// agree on.
    pub fn load_table(&mut self, pointer: Value, elem: Elem) -> Value {
        let (address, align) = (pointer.ty, elem.bytes());
        self.emit(elem.into(), |t| {
            format!(
                "llvm.load {pointer} invariant {{alignment = {align} : i64}} : {address} -> {t}"
            )
        })
    }

    /// Memory from the uniform address `pointer` on as a buffer: lanes whose offset is
    /// [`Builder::OUTSIDE`] read zero and touch nothing. The launch writes nothing of what it loads,
    /// but it may run while others do.
    pub fn resource(&mut self, pointer: Value, target: &GpuTarget) -> Value {
        let most = self.i32((Self::OUTSIDE as u32 - 1) as i32);
        self.hardware().resource_of(self, pointer, most, true, target)
    }

    /// `bytes` (an `i32`) bytes of memory from the uniform address `pointer` on as a buffer: lanes
    /// whose offset is not in it read zero and touch nothing. There is at least one 16-byte piece,
    /// and nobody writes any of it while the launch runs.
    pub fn resource_of(&mut self, pointer: Value, bytes: Value, target: &GpuTarget) -> Value {
        self.hardware().resource_of(self, pointer, bytes, false, target)
    }

    /// An offset in bytes that is in no buffer.
    pub const OUTSIDE: i32 = i32::MIN;

    /// Loads from a buffer at `lanes` + `uniform` bytes, both `i32`, `uniform` the same in all
    /// lanes. Whether a lane reads depends on the first on CDNA, on the sum on RDNA. Constants
    /// belong to the second: added to a choice between an offset and [`Builder::OUTSIDE`] they
    /// would make it another choice.
    pub fn load_resource(
        &mut self,
        resource: Value,
        lanes: Value,
        uniform: Value,
        ty: impl Into<Ty>,
        outside: Outside,
    ) -> Value {
        self.hardware().load_resource(self, resource, [lanes, uniform], ty.into(), outside)
    }

    // ---- arithmetic -------------------------------------------------------------------------

    /// The sum of `c` and the four products of the signed bytes of `a` and `b`, all `i32`.
    pub fn dot4(&mut self, a: Value, b: Value, c: Value, target: &GpuTarget) -> Value {
        self.hardware().dot4(self, [a, b, c], target)
    }

    /// Four bytes of two `i32`, which `selector` names byte by byte: 0 to 3 those of `low`, 4 to 7
    /// those of `high`.
    pub fn permute_bytes(&mut self, high: Value, low: Value, selector: u32) -> Value {
        self.hardware().permute_bytes(self, high, low, selector)
    }

    /// D = A·B + C by a matrix operation. `a` has the rows of A that a lane holds, `b` the columns
    /// of B, each a vector of `per_lane` elements; `c` the columns of C, as the result those of D.
    pub fn matrix(&mut self, op: &MatrixOp, a: &[Value], b: &[Value], c: &[Value]) -> Vec<Value> {
        let want = match op.per_lane {
            1 => op.operand.scalar(),
            lanes => op.operand.vec(lanes),
        };
        let mut cast = |all: &[Value]| -> Vec<Value> {
            let all = all.iter();
            all.map(|&x| if x.ty == want { x } else { self.bitcast(x, want) }).collect()
        };
        let (a, b) = (cast(a), cast(b));
        self.hardware().matrix(self, op, &a, &b, c)
    }

    /// From here on conversions to f16, and its arithmetic, give the largest number where a result
    /// is too large; NaN stays NaN. On NVIDIA GPUs arithmetic in f16 does not do it, and infinities
    /// become the largest number too.
    pub fn saturate_f16(&mut self) {
        self.hardware().saturate_f16(self);
    }

    /// f32 to bf16, to nearest even, two in an `i32`. A NaN that arithmetic gave stays a NaN.
    pub fn pack_bf16(&mut self, a: Value, target: &GpuTarget) -> Value {
        let pairs = a.ty.lanes / 2;
        if target.converts_bf16 {
            let from = a.ty;
            let to = from.with(Elem::BF16);
            let packed = self.emit(to, |to| format!("arith.truncf {a} : {from} to {to}"));
            return self.bitcast(packed, Elem::I32.vec(pairs));
        }
        let bits = self.bitcast(a, a.ty.with(Elem::I32));
        let sixteen = self.int(bits.ty, 16);
        let odd = self.shr_u(bits, sixteen);
        let one = self.int(bits.ty, 1);
        let odd = self.and(odd, one);
        let bias = self.int(bits.ty, 0x7fff);
        let bits = self.add(bits, bias);
        let bits = self.add(bits, odd);
        let mut packed = self.zero(Elem::I32.vec(pairs));
        for pair in 0..pairs {
            let (low, high) = (self.extract(bits, 2 * pair), self.extract(bits, 2 * pair + 1));
            // The upper two bytes of both.
            let both = self.permute_bytes(high, low, 0x0706_0302);
            packed = self.insert(both, packed, pair);
        }
        packed
    }

    /// The larger, the other where one is NaN: one instruction.
    pub fn max_number(&mut self, a: Value, b: Value) -> Value {
        self.emit(a.ty, |t| format!("arith.maxnumf {a}, {b} : {t}"))
    }

    /// 2^x of f32, to within 2 ulp, zero below the normal numbers: one instruction.
    pub fn exp2_fast(&mut self, x: Value) -> Value {
        self.hardware().exp2_fast(self, x)
    }

    /// 1 / x of f32, to within 1 ulp: one instruction.
    pub fn reciprocal_fast(&mut self, x: Value) -> Value {
        self.hardware().reciprocal_fast(self, x)
    }

    /// Whether `value` is below `end`, both `i32` and not negative.
    pub fn below(&mut self, value: Value, end: Value) -> Value {
        self.cmp(Cmp::Ult, value, end)
    }

    /// The same `i32`, of which LLVM knows nothing, by lane: no instruction, but a limit to what is
    /// simplified or moved out of loops.
    pub fn opaque(&mut self, value: Value) -> Value {
        self.hardware().opaque(self, value, false)
    }

    /// [`Builder::opaque`] of a value that is uniform, and known to be.
    pub fn opaque_uniform(&mut self, value: Value) -> Value {
        self.hardware().opaque(self, value, true)
    }

    /// 0, of which LLVM believes that it depends on `value`, a uniform `i32`, and is uniform.
    pub fn zero_of(&mut self, value: Value) -> Value {
        self.hardware().zero_of(self, value)
    }

    /// The same `i32`, by lane, which LLVM does not have before it has `other`, a 32-bit number.
    pub fn after(&mut self, value: Value, other: Value) -> Value {
        self.hardware().after(self, value, other)
    }

    /// Runs `body` with `i` = `thread`, `thread + step`, … below `end`, all `i32`.
    pub fn for_strided(
        &mut self,
        thread: Value,
        end: Value,
        step: u32,
        body: impl FnOnce(&mut Self, Value),
    ) {
        self.for_loop(thread, end, step.into(), [], |k, i, []| {
            body(k, i);
            []
        });
    }

    /// The same 32 bits in a vector register, as a number that LLVM does not know: instructions of
    /// CDNA take one constant, and two where one of them is in a vector register.
    pub fn in_vector_register(&mut self, value: Value) -> Value {
        self.hardware().in_vector_register(self, value)
    }

    /// The same 32-bit numbers in other vector registers: what is loaded later can have theirs.
    pub fn moved(&mut self, value: Value) -> Value {
        self.hardware().moved(self, value)
    }

    /// Declares that the scheduler may not move anything across.
    pub fn schedule_barrier(&mut self) {
        self.hardware().schedule_barrier(self, Movable::Nothing);
    }

    /// Declares that the scheduler may move nothing across but matrix operations, reads of the
    /// local data share and scalar instructions.
    pub fn schedule_barrier_but_matrix(&mut self) {
        self.hardware().schedule_barrier(self, Movable::Matrix);
    }
}
