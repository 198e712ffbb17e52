//! What kernels of a GPU have beyond those of a CPU: work-items, waves, the local data share,
//! atomics, matrix operations. Index arithmetic is in `i32`.

use super::builder::{Builder, Cmp, Gpu};
use super::types::{Elem, Ty, Value};
use crate::target::{GpuTarget, MatrixLayout, MatrixOp};

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
            bytes => format!(
                "  llvm.mlir.global internal @shared() {{addr_space = 3 : i32, alignment = 128 : \
                 i64}} : !llvm.array<{bytes} x i8>\n"
            ),
        }
    }
}

/// Which threads a fence or an atomic orders.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Those of the device.
    Device,
    /// Those of the device and of the host.
    System,
}

impl Scope {
    fn syncscope(self) -> &'static str {
        match self {
            Scope::Device => "syncscope(\"agent\") ",
            Scope::System => "",
        }
    }
}

impl Builder {
    // ---- work-items -------------------------------------------------------------------------

    /// This work-item in its workgroup, `i32`.
    pub fn thread(&mut self) -> Value {
        self.intrinsic("llvm.amdgcn.workitem.id.x", &[], Elem::I32.into())
    }

    /// This workgroup in the grid, `i32`.
    pub fn workgroup(&mut self) -> Value {
        self.intrinsic("llvm.amdgcn.workgroup.id.x", &[], Elem::I32.into())
    }

    /// This work-item's lane in its wave.
    pub fn lane(&mut self, target: &GpuTarget) -> Value {
        let thread = self.thread();
        let mask = self.i32(target.wave as i32 - 1);
        self.and(thread, mask)
    }

    /// This wave in its workgroup: the same in all lanes, and known to be.
    pub fn wave(&mut self, target: &GpuTarget) -> Value {
        let thread = self.thread();
        let shift = self.i32(target.wave.trailing_zeros() as i32);
        let wave = self.shr_u(thread, shift);
        self.first_lane(wave)
    }

    /// The value of the first active lane, uniform: `i32` or `f32`.
    pub fn first_lane(&mut self, value: Value) -> Value {
        self.intrinsic("llvm.amdgcn.readfirstlane", &[value], value.ty)
    }

    /// The value of lane `lane`, an `i32` that is uniform.
    pub fn read_lane(&mut self, value: Value, lane: Value) -> Value {
        self.intrinsic("llvm.amdgcn.readlane", &[value, lane], value.ty)
    }

    /// The value of lane `source` (an `i32`, may differ by lane) of the wave: 32 bits wide.
    pub fn shuffle_lanes(&mut self, value: Value, source: Value) -> Value {
        let four = self.i32(2);
        let address = self.shl(source, four);
        let bits = self.bitcast(value, Elem::I32);
        let found = self.intrinsic("llvm.amdgcn.ds.bpermute", &[address, bits], Elem::I32.into());
        self.bitcast(found, value.ty)
    }

    /// The value of the lane whose number differs in the bits of `mask`, a power of two less than
    /// the wave's width: 32 bits wide.
    pub fn lane_xor(&mut self, value: Value, mask: u32, target: &GpuTarget) -> Value {
        if mask >= 32 {
            let lane = self.lane(target);
            let mask = self.i32(mask as i32);
            let source = self.xor(lane, mask);
            return self.shuffle_lanes(value, source);
        }
        let bits = self.bitcast(value, Elem::I32);
        let found = match mask {
            // DPP: quad_perm [1,0,3,2] and [2,3,0,1].
            1 => self.dpp(bits, 0xb1),
            2 => self.dpp(bits, 0x4e),
            // row_ror:8.
            8 => self.dpp(bits, 0x128),
            // A wave of two rows of 16 lanes has an instruction that swaps them.
            16 if target.wave == 32 => self.swap_rows(bits),
            // ds_swizzle in its bit mask mode: xor, or, and masks of five bits.
            mask => {
                let pattern = self.i32((mask << 10 | 0x1f) as i32);
                self.intrinsic("llvm.amdgcn.ds.swizzle", &[bits, pattern], Elem::I32.into())
            }
        };
        self.bitcast(found, value.ty)
    }

    /// `i32` of the lane that the DPP control word names.
    fn dpp(&mut self, value: Value, control: i32) -> Value {
        let [control, all] = [control, 0xf].map(|n| self.i32(n));
        let bound = self.bool(true);
        let operands = [value, value, control, all, all, bound];
        self.intrinsic("llvm.amdgcn.update.dpp", &operands, Elem::I32.into())
    }

    /// The `i32` of the same lane of the other row of 16, in a wave of 32 lanes that are all on.
    fn swap_rows(&mut self, value: Value) -> Value {
        let [low, high] = [0x7654_3210, 0xfedc_ba98_u32 as i32].map(|lanes| self.i32(lanes));
        let no = self.bool(false);
        // What lanes get whose source is off: nothing that matters, and no register to copy to.
        let anything = self.emit(value.ty, |t| format!("llvm.mlir.poison : {t}"));
        let operands = [anything, value, low, high, no, no];
        self.intrinsic("llvm.amdgcn.permlanex16", &operands, Elem::I32.into())
    }

    /// Combines a 32-bit value over groups of `width` neighbouring lanes (a power of two), always
    /// in the same order; every lane gets the result.
    pub fn reduce_lanes(
        &mut self,
        mut value: Value,
        width: u32,
        target: &GpuTarget,
        mut combine: impl FnMut(&mut Self, Value, Value) -> Value,
    ) -> Value {
        let mut mask = 1;
        while mask < width {
            let other = self.lane_xor(value, mask, target);
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
        let tag = "{llvm.mmra = #llvm.mmra_tag<\"amdgpu-synchronize-as\":\"local\">}";
        self.line(&format!("llvm.fence syncscope(\"workgroup\") release {tag}"));
        self.line("llvm.call_intrinsic \"llvm.amdgcn.s.barrier\"() : () -> ()");
        self.line(&format!("llvm.fence syncscope(\"workgroup\") acquire {tag}"));
    }

    /// As [`Builder::barrier_shared`], of global memory too.
    pub fn barrier_all(&mut self) {
        self.line("llvm.fence syncscope(\"workgroup\") release");
        self.line("llvm.call_intrinsic \"llvm.amdgcn.s.barrier\"() : () -> ()");
        self.line("llvm.fence syncscope(\"workgroup\") acquire");
    }

    /// Adds to an `i32` in global memory, ordering all that was written before and will be read
    /// after; gives what was there.
    pub fn atomic_add(&mut self, address: Value, value: Value, scope: Scope) -> Value {
        let (scope, at) = (scope.syncscope(), address.ty);
        self.emit(value.ty, |t| {
            format!("llvm.atomicrmw add {address}, {value} {scope}acq_rel : {at}, {t}")
        })
    }

    /// Adds to an `i32` in the local data share without ordering anything; gives what was there.
    pub fn atomic_add_shared(&mut self, address: Value, value: Value) -> Value {
        self.atomic_add_workgroup(address, value)
    }

    /// Adds to an `i32` that only this workgroup uses, without ordering anything; gives what was
    /// there.
    pub fn atomic_add_workgroup(&mut self, address: Value, value: Value) -> Value {
        let at = address.ty;
        self.emit(value.ty, |t| {
            format!(
                "llvm.atomicrmw add {address}, {value} syncscope(\"workgroup\") monotonic : {at}, {t}"
            )
        })
    }

    /// Stores an `i32` after all that was written before.
    pub fn store_release(&mut self, value: Value, address: Value, scope: Scope) {
        let (scope, at) = (scope.syncscope(), address.ty);
        let text = format!(
            "llvm.store {value}, {address} atomic {scope}release {{alignment = 4 : i64}} : {}, {at}",
            value.ty
        );
        self.line(&text);
    }

    /// Loads an `i32` that others change meanwhile, without ordering anything: what a loop polls.
    pub fn load_polled(&mut self, address: Value, scope: Scope) -> Value {
        let (scope, at) = (scope.syncscope(), address.ty);
        self.emit(Elem::I32.into(), |t| {
            format!(
                "llvm.load {address} atomic {scope}monotonic {{alignment = 4 : i64}} : {at} -> {t}"
            )
        })
    }

    /// Adds to an `i32` in global memory after all that was written before.
    pub fn atomic_add_release(&mut self, address: Value, value: Value, scope: Scope) {
        let (scope, at, ty) = (scope.syncscope(), address.ty, value.ty);
        self.emit(ty, |t| {
            format!("llvm.atomicrmw add {address}, {value} {scope}release : {at}, {t}")
        });
    }

    /// What was written before is seen by who sees what is written after.
    pub fn release(&mut self, scope: Scope) {
        let line = format!("llvm.fence {}release", scope.syncscope());
        self.line(&line);
    }

    /// What is read from here on is at least as new as what was polled before.
    pub fn acquire(&mut self, scope: Scope) {
        let line = format!("llvm.fence {}acquire", scope.syncscope());
        self.line(&line);
    }

    /// Lets other waves go on for a moment.
    pub fn pause(&mut self) {
        let cycles = self.i32(1);
        self.line(&format!("llvm.call_intrinsic \"llvm.amdgcn.s.sleep\"({cycles}) : (i32) -> ()"));
    }

    /// Keeps a value, of 32 bits or a vector of them, that nothing else uses.
    pub fn keep(&mut self, value: Value) {
        let text =
            format!("llvm.inline_asm has_side_effects \"\", \"v\" {value} : ({}) -> ()", value.ty);
        self.line(&text);
    }

    /// The same `i32`, of which LLVM knows nothing but that it may differ whenever the uniform
    /// `with` does: what is made of it stays in the loop that `with` is of.
    pub fn opaque_with(&mut self, value: Value, with: Value) -> Value {
        let other = with.ty;
        self.emit(value.ty, |t| {
            format!("llvm.inline_asm \"\", \"=v,0,s\" {value}, {with} : ({t}, {other}) -> {t}")
        })
    }

    /// [`Builder::opaque_with`] of a value that is uniform, and known to be.
    pub fn opaque_uniform_with(&mut self, value: Value, with: Value) -> Value {
        let other = with.ty;
        self.emit(value.ty, |t| {
            format!("llvm.inline_asm \"\", \"=s,0,s\" {value}, {with} : ({t}, {other}) -> {t}")
        })
    }

    // ---- memory -----------------------------------------------------------------------------

    /// `bytes` bytes of the local data share, aligned to 128.
    pub fn shared(&mut self, bytes: u32) -> Value {
        let gpu = self.gpu();
        let offset = gpu.shared_bytes;
        gpu.shared_bytes = (offset + bytes).next_multiple_of(128);
        let base =
            self.emit(Elem::Shared.scalar(), |t| format!("llvm.mlir.addressof @shared : {t}"));
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
        let address = pointer.ty;
        self.emit(ty.into(), |t| {
            format!(
                "llvm.load {pointer} invariant {{alignment = {align} : i64, nontemporal}} : \
                 {address} -> {t}"
            )
        })
    }

    /// Loads a number that no launch writes while this one runs, at an address that all lanes
    /// agree on.
    pub fn load_uniform(&mut self, pointer: Value, elem: Elem) -> Value {
        let (address, align) = (pointer.ty, elem.bytes());
        let value = self.emit(elem.into(), |t| {
            format!(
                "llvm.load {pointer} invariant {{alignment = {align} : i64}} : {address} -> {t}"
            )
        });
        self.first_lane(value)
    }

    /// Loads an argument, an address or an `i64`, from a table that nobody writes, at an address
    /// that all lanes agree on.
    pub fn load_argument(&mut self, pointer: Value, elem: Elem) -> Value {
        let address = pointer.ty;
        self.emit(elem.into(), |t| {
            format!("llvm.load {pointer} invariant {{alignment = 8 : i64}} : {address} -> {t}")
        })
    }

    /// Memory from the uniform address `pointer` on as a buffer: lanes whose offset is
    /// [`Builder::OUTSIDE`] read zero and touch nothing.
    pub fn resource(&mut self, pointer: Value, target: &GpuTarget) -> Value {
        let most = self.i32((Self::OUTSIDE as u32 - 1) as i32);
        self.resource_of(pointer, most, target)
    }

    /// `bytes` (an `i32`) bytes of memory from the uniform address `pointer` on as a buffer: lanes
    /// whose offset is not in it read zero and touch nothing.
    pub fn resource_of(&mut self, pointer: Value, bytes: Value, target: &GpuTarget) -> Value {
        // Data format 32 bits, float: must not be zero. RDNA: a bit that is always one, and the
        // range check that compares offsets.
        let flags = match target.layout {
            MatrixLayout::Mfma => 0x0002_7000,
            MatrixLayout::Wmma3 | MatrixLayout::Wmma4 => 0x3102_7000,
        };
        let no_stride = self.int(Elem::I16, 0);
        // LLVM forgets of some uniform numbers (such as clamped ones) that they are.
        let records = self.first_lane(bytes);
        let records = self.zext(records, Elem::I64);
        let flags = self.i32(flags);
        let operands = [pointer, no_stride, records, flags];
        let ty = Elem::Resource.scalar();
        self.intrinsic("llvm.amdgcn.make.buffer.rsrc", &operands, ty)
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
    ) -> Value {
        let no_hints = self.i32(0);
        let operands = [resource, lanes, uniform, no_hints];
        self.intrinsic("llvm.amdgcn.raw.ptr.buffer.load", &operands, ty.into())
    }

    // ---- arithmetic -------------------------------------------------------------------------

    /// The sum of `c` and the four products of the signed bytes of `a` and `b`, all `i32`.
    pub fn dot4(&mut self, a: Value, b: Value, c: Value, target: &GpuTarget) -> Value {
        let (signed, no_clamp) = (self.bool(true), self.bool(false));
        match target.layout {
            MatrixLayout::Mfma => self.intrinsic("llvm.amdgcn.sdot4", &[a, b, c, no_clamp], c.ty),
            MatrixLayout::Wmma3 | MatrixLayout::Wmma4 => {
                let operands = [signed, a, signed, b, c, no_clamp];
                self.intrinsic("llvm.amdgcn.sudot4", &operands, c.ty)
            }
        }
    }

    /// Four bytes of two `i32`, which `selector` names byte by byte: 0 to 3 those of `low`, 4 to 7
    /// those of `high`.
    pub fn permute_bytes(&mut self, high: Value, low: Value, selector: u32) -> Value {
        let selector = self.i32(selector as i32);
        self.intrinsic("llvm.amdgcn.perm", &[high, low, selector], Elem::I32.into())
    }

    /// D = A·B + C by a matrix operation; `a` and `b` are vectors of `per_lane` elements.
    pub fn matrix(&mut self, op: &MatrixOp, a: Value, b: Value, c: Value) -> Value {
        let want = match op.per_lane {
            1 => op.operand.scalar(),
            lanes => op.operand.vec(lanes),
        };
        let [a, b] = [a, b].map(|x| if x.ty == want { x } else { self.bitcast(x, want) });
        let mut operands = vec![a, b, c];
        if op.intrinsic.contains("mfma") {
            // No broadcast of blocks, no permutation of lanes.
            let zero = self.i32(0);
            operands.extend([zero; 3]);
        }
        self.intrinsic(op.intrinsic, &operands, c.ty)
    }

    /// From here on conversions to f16, and its arithmetic, give the largest number where a result
    /// is too large; infinities and NaN stay what they are.
    pub fn saturate_f16(&mut self) {
        // s_setreg: FP16_OVFL, one bit at 23 of register 1, MODE.
        let register = self.i32(1 | 23 << 6);
        let on = self.i32(1);
        self.line(&format!(
            "llvm.call_intrinsic \"llvm.amdgcn.s.setreg\"({register}, {on}) : (i32, i32) -> ()"
        ));
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

    /// 2^x of f32, to within 1 ulp, zero below the normal numbers: one instruction.
    pub fn exp2_fast(&mut self, x: Value) -> Value {
        self.intrinsic("llvm.amdgcn.exp2", &[x], x.ty)
    }

    /// 1 / x of f32, to within 1 ulp: one instruction.
    pub fn reciprocal_fast(&mut self, x: Value) -> Value {
        self.intrinsic("llvm.amdgcn.rcp", &[x], x.ty)
    }

    /// Whether `value` is below `end`, both `i32` and not negative.
    pub fn below(&mut self, value: Value, end: Value) -> Value {
        self.cmp(Cmp::Ult, value, end)
    }

    /// The same `i32`, of which LLVM knows nothing, by lane: no instruction, but a limit to what is
    /// simplified or moved out of loops.
    pub fn opaque(&mut self, value: Value) -> Value {
        self.emit(value.ty, |t| format!("llvm.inline_asm \"\", \"=v,0\" {value} : ({t}) -> {t}"))
    }

    /// [`Builder::opaque`] of a value that is uniform, and known to be.
    pub fn opaque_uniform(&mut self, value: Value) -> Value {
        self.emit(value.ty, |t| format!("llvm.inline_asm \"\", \"=s,0\" {value} : ({t}) -> {t}"))
    }

    /// The same `i32`, by lane, which LLVM does not have before it has `other`, a 32-bit number.
    pub fn after(&mut self, value: Value, other: Value) -> Value {
        let of = other.ty;
        self.emit(value.ty, |t| {
            format!("llvm.inline_asm \"\", \"=v,0,v\" {value}, {other} : ({t}, {of}) -> {t}")
        })
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
        self.inline_assembly("", "=v,0", value)
    }

    /// The same 32-bit numbers in other vector registers: what is loaded later can have theirs.
    pub fn moved(&mut self, value: Value) -> Value {
        let mov = "v_mov_b32 $0, $1";
        if value.ty.is_scalar() {
            return self.inline_assembly(mov, "=v,v", value);
        }
        let mut result = value;
        for lane in 0..value.ty.lanes {
            let element = self.extract(value, lane);
            let element = self.inline_assembly(mov, "=v,v", element);
            result = self.insert(element, result, lane);
        }
        result
    }

    fn inline_assembly(&mut self, text: &str, constraints: &str, operand: Value) -> Value {
        assert_eq!(operand.ty.bytes(), 4, "inline_assembly");
        self.emit(operand.ty, |t| {
            format!(
                "llvm.inline_asm asm_dialect = att operand_attrs = [] \"{text}\", \"{constraints}\" \
                 {operand} : ({t}) -> {t}"
            )
        })
    }

    /// Declares that the scheduler may not move anything across.
    pub fn schedule_barrier(&mut self) {
        self.schedule_barrier_but(0);
    }

    /// Declares that the scheduler may move nothing across but matrix operations, reads of the
    /// local data share and scalar instructions.
    pub fn schedule_barrier_but_matrix(&mut self) {
        self.schedule_barrier_but(0x100 | 0x8 | 0x4);
    }

    /// `movable` in the bits of the intrinsic.
    fn schedule_barrier_but(&mut self, movable: i32) {
        let mask = self.i32(movable);
        self.line(&format!(
            "llvm.call_intrinsic \"llvm.amdgcn.sched.barrier\"({mask}) : (i32) -> ()"
        ));
    }
}
