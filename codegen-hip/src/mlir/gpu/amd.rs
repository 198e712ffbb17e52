//! AMD: LLVM's AMDGPU intrinsics.

use super::warpgroup::Warpgroup;
use super::{Barrier, Hardware, Movable, Outside, Scope};
use crate::mlir::{Builder, Elem, Ty, Value};
use crate::target::{GpuTarget, MatrixOp};

/// The platform.
#[derive(Debug)]
pub(super) struct Amd;

impl Hardware for Amd {
    fn thread(&self, k: &mut Builder) -> Value {
        k.intrinsic("llvm.amdgcn.workitem.id.x", &[], Elem::I32.into())
    }

    fn workgroup(&self, k: &mut Builder) -> Value {
        k.intrinsic("llvm.amdgcn.workgroup.id.x", &[], Elem::I32.into())
    }

    fn first_lane(&self, k: &mut Builder, value: Value) -> Value {
        k.intrinsic("llvm.amdgcn.readfirstlane", &[value], value.ty)
    }

    fn read_lane(&self, k: &mut Builder, value: Value, lane: Value) -> Value {
        k.intrinsic("llvm.amdgcn.readlane", &[value, lane], value.ty)
    }

    fn shuffle_lanes(&self, k: &mut Builder, bits: Value, source: Value) -> Value {
        let four = k.i32(2);
        let address = k.shl(source, four);
        k.intrinsic("llvm.amdgcn.ds.bpermute", &[address, bits], Elem::I32.into())
    }

    fn lane_xor(&self, k: &mut Builder, bits: Value, mask: u32, _: u32, wave: u32) -> Value {
        match mask {
            // DPP: quad_perm [1,0,3,2] and [2,3,0,1].
            1 => dpp(k, bits, 0xb1),
            2 => dpp(k, bits, 0x4e),
            // row_ror:8.
            8 => dpp(k, bits, 0x128),
            // A wave of two rows of 16 lanes has an instruction that swaps them.
            16 if wave == 32 => swap_rows(k, bits),
            32.. => {
                let thread = self.thread(k);
                let last = k.i32(wave as i32 - 1);
                let lane = k.and(thread, last);
                let mask = k.i32(mask as i32);
                let source = k.xor(lane, mask);
                self.shuffle_lanes(k, bits, source)
            }
            // ds_swizzle in its bit mask mode: xor, or, and masks of five bits.
            mask => {
                let pattern = k.i32((mask << 10 | 0x1f) as i32);
                k.intrinsic("llvm.amdgcn.ds.swizzle", &[bits, pattern], Elem::I32.into())
            }
        }
    }

    fn barrier(&self, k: &mut Builder, memory: Barrier) {
        #[cfg(test)]
        if let Some(workers) = k.gpu().workers {
            return super::wgmma_by_lanes::meet(k, workers);
        }
        let tag = match memory {
            Barrier::Shared => " {llvm.mmra = #llvm.mmra_tag<\"amdgpu-synchronize-as\":\"local\">}",
            Barrier::All => "",
        };
        k.line(&format!("llvm.fence syncscope(\"workgroup\") release{tag}"));
        k.line("llvm.call_intrinsic \"llvm.amdgcn.s.barrier\"() : () -> ()");
        k.line(&format!("llvm.fence syncscope(\"workgroup\") acquire{tag}"));
    }

    /// Lanes of a wave go together.
    fn wave_barrier(&self, _: &mut Builder) {}

    fn atomic_add(&self, k: &mut Builder, address: Value, value: Value, scope: Scope) -> Value {
        let (scope, at) = (self.scope(scope), address.ty);
        k.emit(value.ty, |t| {
            format!("llvm.atomicrmw add {address}, {value} {scope}acq_rel : {at}, {t}")
        })
    }

    fn scope(&self, scope: Scope) -> &'static str {
        match scope {
            Scope::Workgroup => "syncscope(\"workgroup\") ",
            Scope::Device => "syncscope(\"agent\") ",
            Scope::System => "",
        }
    }

    fn load_streamed(&self, k: &mut Builder, pointer: Value, ty: Ty, align: u32) -> Value {
        let address = pointer.ty;
        k.emit(ty, |t| {
            format!(
                "llvm.load {pointer} invariant {{alignment = {align} : i64, nontemporal}} : \
                 {address} -> {t}"
            )
        })
    }

    /// So that they are loads of scalars.
    fn uniform_load(&self) -> &'static str {
        "invariant "
    }

    fn resource_of(
        &self,
        k: &mut Builder,
        at: Value,
        bytes: Value,
        _: bool,
        target: &GpuTarget,
    ) -> Value {
        // Data format 32 bits, float: must not be zero. RDNA: a bit that is always one, and the
        // range check that compares offsets.
        let flags = if target.wave == 64 { 0x0002_7000 } else { 0x3102_7000 };
        let no_stride = k.int(Elem::I16, 0);
        // LLVM forgets of some uniform numbers (such as clamped ones) that they are.
        let records = k.first_lane(bytes);
        let records = k.zext(records, Elem::I64);
        let flags = k.i32(flags);
        let operands = [at, no_stride, records, flags];
        k.intrinsic("llvm.amdgcn.make.buffer.rsrc", &operands, Elem::Resource.scalar())
    }

    fn load_resource(
        &self,
        k: &mut Builder,
        resource: Value,
        at: [Value; 2],
        ty: Ty,
        _: Outside,
    ) -> Value {
        let no_hints = k.i32(0);
        let operands = [resource, at[0], at[1], no_hints];
        k.intrinsic("llvm.amdgcn.raw.ptr.buffer.load", &operands, ty)
    }

    fn matrix(
        &self,
        k: &mut Builder,
        op: &MatrixOp,
        a: &[Value],
        b: &[Value],
        c: &[Value],
    ) -> Vec<Value> {
        #[cfg(test)]
        if op.intrinsic.starts_with("llvm.nvvm") {
            return super::mma_by_shuffles::matrix(k, op, a, b, c);
        }
        let mut operands = vec![a[0], b[0], c[0]];
        if op.intrinsic.contains("mfma") {
            // No broadcast of blocks, no permutation of lanes.
            let zero = k.i32(0);
            operands.extend([zero; 3]);
        }
        vec![k.intrinsic(op.intrinsic, &operands, c[0].ty)]
    }

    fn saturate_f16(&self, k: &mut Builder) {
        // s_setreg: FP16_OVFL, one bit at 23 of register 1, MODE.
        let register = k.i32(1 | 23 << 6);
        let on = k.i32(1);
        k.line(&format!(
            "llvm.call_intrinsic \"llvm.amdgcn.s.setreg\"({register}, {on}) : (i32, i32) -> ()"
        ));
    }

    fn before_f16(&self, _: &mut Builder, a: Value) -> Value {
        a
    }

    fn permute_bytes(&self, k: &mut Builder, high: Value, low: Value, selector: u32) -> Value {
        let selector = k.i32(selector as i32);
        k.intrinsic("llvm.amdgcn.perm", &[high, low, selector], Elem::I32.into())
    }

    fn dot4(&self, k: &mut Builder, [a, b, c]: [Value; 3], target: &GpuTarget) -> Value {
        let (signed, no_clamp) = (k.bool(true), k.bool(false));
        if target.wave == 64 {
            return k.intrinsic("llvm.amdgcn.sdot4", &[a, b, c, no_clamp], c.ty);
        }
        let operands = [signed, a, signed, b, c, no_clamp];
        k.intrinsic("llvm.amdgcn.sudot4", &operands, c.ty)
    }

    fn exp2_fast(&self, k: &mut Builder, x: Value) -> Value {
        k.intrinsic("llvm.amdgcn.exp2", &[x], x.ty)
    }

    fn reciprocal_fast(&self, k: &mut Builder, x: Value) -> Value {
        k.intrinsic("llvm.amdgcn.rcp", &[x], x.ty)
    }

    fn opaque(&self, k: &mut Builder, value: Value, uniform: bool) -> Value {
        let register = if uniform { "s" } else { "v" };
        k.emit(value.ty, |t| {
            format!("llvm.inline_asm \"\", \"={register},0\" {value} : ({t}) -> {t}")
        })
    }

    fn atomic_add_release(&self, k: &mut Builder, address: Value, value: Value, scope: Scope) {
        let (scope, at) = (self.scope(scope), address.ty);
        k.emit(value.ty, |t| {
            format!("llvm.atomicrmw add {address}, {value} {scope}release : {at}, {t}")
        });
    }

    /// The barrier orders the waves' writes for this workgroup alone.
    fn release_of_wave(&self, k: &mut Builder, scope: Scope) {
        let line = format!("llvm.fence {}release", self.scope(scope));
        k.line(&line);
    }

    fn prefetch_l2(&self, _: &mut Builder, _: Value) {
        unreachable!("not all chips have one: who asks looks at the platform")
    }

    fn pause(&self, k: &mut Builder) {
        let cycles = k.i32(1);
        k.line(&format!("llvm.call_intrinsic \"llvm.amdgcn.s.sleep\"({cycles}) : (i32) -> ()"));
    }

    fn keep(&self, k: &mut Builder, value: Value) {
        let text =
            format!("llvm.inline_asm has_side_effects \"\", \"v\" {value} : ({}) -> ()", value.ty);
        k.line(&text);
    }

    fn opaque_with(&self, k: &mut Builder, value: Value, with: Value, uniform: bool) -> Value {
        let (register, other) = (if uniform { "s" } else { "v" }, with.ty);
        k.emit(value.ty, |t| {
            format!(
                "llvm.inline_asm \"\", \"={register},0,s\" {value}, {with} : ({t}, {other}) -> {t}"
            )
        })
    }

    fn zero_of(&self, k: &mut Builder, value: Value) -> Value {
        let same = k.first_lane(value);
        k.xor(same, value)
    }

    fn after(&self, k: &mut Builder, value: Value, other: Value) -> Value {
        let of = other.ty;
        k.emit(value.ty, |t| {
            format!("llvm.inline_asm \"\", \"=v,0,v\" {value}, {other} : ({t}, {of}) -> {t}")
        })
    }

    fn in_vector_register(&self, k: &mut Builder, value: Value) -> Value {
        inline_assembly(k, "", "=v,0", value)
    }

    fn moved(&self, k: &mut Builder, value: Value) -> Value {
        let mov = "v_mov_b32 $0, $1";
        if value.ty.is_scalar() {
            return inline_assembly(k, mov, "=v,v", value);
        }
        let mut result = value;
        for lane in 0..value.ty.lanes {
            let element = k.extract(value, lane);
            let element = inline_assembly(k, mov, "=v,v", element);
            result = k.insert(element, result, lane);
        }
        result
    }

    fn schedule_barrier(&self, k: &mut Builder, movable: Movable) {
        let mask = match movable {
            Movable::Nothing => 0,
            Movable::Matrix => 0x100 | 0x8 | 0x4,
        };
        let mask = k.i32(mask);
        k.line(&format!("llvm.call_intrinsic \"llvm.amdgcn.sched.barrier\"({mask}) : (i32) -> ()"));
    }

    fn warpgroup(&self) -> &'static dyn Warpgroup {
        #[cfg(test)]
        return &super::wgmma_by_lanes::ByLanes;
        #[cfg(not(test))]
        unreachable!("no chip of AMD's has warpgroups")
    }
}

/// `i32` of the lane that the DPP control word names.
fn dpp(k: &mut Builder, value: Value, control: i32) -> Value {
    let [control, all] = [control, 0xf].map(|n| k.i32(n));
    let bound = k.bool(true);
    let operands = [value, value, control, all, all, bound];
    k.intrinsic("llvm.amdgcn.update.dpp", &operands, Elem::I32.into())
}

/// The `i32` of the same lane of the other row of 16, in a wave of 32 lanes that are all on.
fn swap_rows(k: &mut Builder, value: Value) -> Value {
    let [low, high] = [0x7654_3210, 0xfedc_ba98_u32 as i32].map(|lanes| k.i32(lanes));
    let no = k.bool(false);
    // What lanes get whose source is off: nothing that matters, and no register to copy to.
    let anything = k.emit(value.ty, |t| format!("llvm.mlir.poison : {t}"));
    let operands = [anything, value, low, high, no, no];
    k.intrinsic("llvm.amdgcn.permlanex16", &operands, Elem::I32.into())
}

fn inline_assembly(k: &mut Builder, text: &str, constraints: &str, operand: Value) -> Value {
    assert_eq!(operand.ty.bytes(), 4, "inline_assembly");
    k.emit(operand.ty, |t| {
        format!(
            "llvm.inline_asm asm_dialect = att operand_attrs = [] \"{text}\", \"{constraints}\" \
             {operand} : ({t}) -> {t}"
        )
    })
}
