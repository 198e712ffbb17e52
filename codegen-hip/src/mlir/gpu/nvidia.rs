//! NVIDIA: LLVM's NVVM intrinsics, and PTX where LLVM has no word for it.
//!
//! Section names are those of NVIDIA's "Parallel Thread Execution ISA". There are no scalar
//! registers and the driver's compiler schedules, so what only guides LLVM on AMD is nothing here.

use super::hopper::Hopper;
use super::warpgroup::Warpgroup;
use super::{Barrier, Buffer, Hardware, Movable, Outside, Scope};
use crate::mlir::builder::Cmp;
use crate::mlir::{Builder, Elem, Ty, Value};
use crate::target::{GpuTarget, MatrixOp, MatrixType};

/// The platform.
#[derive(Debug)]
pub(super) struct Nvidia;

/// Lanes of a warp.
const WARP: u32 = 32;

impl Hardware for Nvidia {
    fn thread(&self, k: &mut Builder) -> Value {
        k.intrinsic("llvm.nvvm.read.ptx.sreg.tid.x", &[], Elem::I32.into())
    }

    fn workgroup(&self, k: &mut Builder) -> Value {
        k.intrinsic("llvm.nvvm.read.ptx.sreg.ctaid.x", &[], Elem::I32.into())
    }

    fn first_lane(&self, _: &mut Builder, value: Value) -> Value {
        value
    }

    fn read_lane(&self, k: &mut Builder, value: Value, lane: Value) -> Value {
        k.shuffle_lanes(value, lane)
    }

    fn shuffle_lanes(&self, k: &mut Builder, bits: Value, source: Value) -> Value {
        let all = k.i32(-1);
        shuffle(k, "idx", all, bits, source)
    }

    fn lane_xor(&self, k: &mut Builder, bits: Value, mask: u32, width: u32, _: u32) -> Value {
        let members = if width == WARP { k.i32(-1) } else { lanes_of_group(k, width) };
        let mask = k.i32(mask as i32);
        shuffle(k, "bfly", members, bits, mask)
    }

    fn barrier(&self, k: &mut Builder, _: Barrier) {
        // "bar{.cta}.sync guarantees memory ordering among the participating threads."
        if let Some(workers) = k.gpu().workers {
            let (second, count) = (k.i32(1), k.i32(workers.count as i32));
            let name = "llvm.nvvm.barrier.cta.sync.aligned.count";
            let call = format!("llvm.call_intrinsic \"{name}\"({second}, {count})");
            return k.line(&format!("{call} : (i32, i32) -> ()"));
        }
        let first = k.i32(0);
        let name = "llvm.nvvm.barrier.cta.sync.aligned.all";
        k.line(&format!("llvm.call_intrinsic \"{name}\"({first}) : (i32) -> ()"));
    }

    fn wave_barrier(&self, k: &mut Builder) {
        let all = k.i32(-1);
        let name = "llvm.nvvm.bar.warp.sync";
        k.line(&format!("llvm.call_intrinsic \"{name}\"({all}) : (i32) -> ()"));
    }

    fn atomic_add(&self, k: &mut Builder, address: Value, value: Value, scope: Scope) -> Value {
        // LLVM's back end gives an atomic no ordering of its own.
        let (scope, at) = (self.scope(scope), address.ty);
        k.line(&format!("llvm.fence {scope}acq_rel"));
        let before = k.emit(value.ty, |t| {
            format!("llvm.atomicrmw add {address}, {value} {scope}monotonic : {at}, {t}")
        });
        k.line(&format!("llvm.fence {scope}acq_rel"));
        before
    }

    fn scope(&self, scope: Scope) -> &'static str {
        match scope {
            Scope::Workgroup => "syncscope(\"block\") ",
            Scope::Device => "syncscope(\"device\") ",
            Scope::System => "",
        }
    }

    fn load_streamed(&self, k: &mut Builder, pointer: Value, ty: Ty, align: u32) -> Value {
        let words = match (ty.bytes(), align) {
            (2, 2..) => return load_half_no_allocate(k, pointer, ty),
            (4, 4..) => 1,
            (8, 8..) => 2,
            (16, 16..) => 4,
            _ => return load_invariant(k, pointer, ty, align),
        };
        load_no_allocate(k, pointer, ty, words)
    }

    /// An ordinary load: others may write such numbers before this launch has waited for theirs.
    fn uniform_load(&self) -> &'static str {
        ""
    }

    /// A buffer is its address; how long it is, and whether it is written, is noted beside it.
    fn resource_of(
        &self,
        k: &mut Builder,
        at: Value,
        bytes: Value,
        written: bool,
        _: &GpuTarget,
    ) -> Value {
        // A value of its own: there may be several buffers at an address.
        let buffer = k.emit(at.ty, |t| format!("llvm.getelementptr {at}[0] : ({t}) -> {t}, i8"));
        k.gpu().buffers.insert(buffer, Buffer { bytes, written });
        buffer
    }

    /// Lanes outside load from its beginning.
    fn load_resource(
        &self,
        k: &mut Builder,
        resource: Value,
        at: [Value; 2],
        ty: Ty,
        outside: Outside,
    ) -> Value {
        let Buffer { bytes, written } = k.gpu().buffers[&resource];
        let load = |k: &mut Builder, from: Value| match written {
            true => k.load_aligned(from, ty, ty.bytes()),
            false => load_invariant(k, from, ty, ty.bytes()),
        };
        let offset = k.add(at[0], at[1]);
        if outside == Outside::Never {
            let from = k.offset_u32(resource, offset);
            return load(k, from);
        }
        let inside = k.cmp(Cmp::Ult, offset, bytes);
        let zero = k.i32(0);
        let offset = k.select(inside, offset, zero);
        let from = k.offset_u32(resource, offset);
        let loaded = load(k, from);
        if outside == Outside::Any {
            return loaded;
        }
        let nothing = k.zero(ty);
        k.select(inside, loaded, nothing)
    }

    /// Two operations m16n8k16 with the factors' roles swapped, for rows 0 to 7 and 8 to 15 of A:
    /// theirs has 16 rows and 8 columns, and what they call A is our B.
    fn matrix(
        &self,
        k: &mut Builder,
        op: &MatrixOp,
        a: &[Value],
        b: &[Value],
        c: &[Value],
    ) -> Vec<Value> {
        let pairs = match op.factors {
            MatrixType::F16 => Elem::F16.vec(2),
            MatrixType::Bf16 => Elem::I32.scalar(),
            MatrixType::F32 => unreachable!("the chip has none"),
        };
        let split = |k: &mut Builder, x: Value| {
            let words = k.bitcast(x, Elem::I32.vec(2));
            [0, 1].map(|word| {
                let word = k.extract(words, word);
                if pairs.elem == Elem::I32 { word } else { k.bitcast(word, pairs) }
            })
        };
        let [[low, high], [low_8, high_8]] = [b[0], b[1]].map(|x| split(k, x));
        let mut sums = c.to_vec();
        for (half, &rows) in a.iter().enumerate() {
            let at = 2 * half as u32;
            let rows = split(k, rows);
            let before = [0, 1, 2, 3].map(|i| k.extract(sums[i / 2], at + i as u32 % 2));
            let factors = [low, low_8, high, high_8, rows[0], rows[1]];
            let after = numbers(k, op.intrinsic, &[&factors[..], &before[..]].concat());
            for (i, number) in after.into_iter().enumerate() {
                sums[i / 2] = k.insert(number, sums[i / 2], at + i as u32 % 2);
            }
        }
        sums
    }

    fn saturate_f16(&self, k: &mut Builder) {
        k.gpu().saturates = true;
    }

    fn before_f16(&self, k: &mut Builder, a: Value) -> Value {
        if !k.gpu().saturates {
            return a;
        }
        let [low, high] = [-65504.0, 65504.0].map(|bound| k.float(a.ty, bound));
        // Those of IEEE 754-2019 that keep a NaN.
        let a = k.emit(a.ty, |t| format!("arith.maximumf {a}, {low} : {t}"));
        k.emit(a.ty, |t| format!("arith.minimumf {a}, {high} : {t}"))
    }

    fn permute_bytes(&self, k: &mut Builder, high: Value, low: Value, selector: u32) -> Value {
        // prmt takes four bits for each byte.
        let nibbles = (0..4).fold(0, |all, byte| all | (selector >> (8 * byte) & 7) << (4 * byte));
        let selector = k.i32(nibbles as i32);
        k.intrinsic("llvm.nvvm.prmt", &[low, high, selector], Elem::I32.into())
    }

    fn dot4(&self, k: &mut Builder, abc: [Value; 3], _: &GpuTarget) -> Value {
        k.intrinsic("llvm.nvvm.idp4a.s.s", &abc, Elem::I32.into())
    }

    fn exp2_fast(&self, k: &mut Builder, x: Value) -> Value {
        k.intrinsic("llvm.nvvm.ex2.approx.ftz", &[x], x.ty)
    }

    fn reciprocal_fast(&self, k: &mut Builder, x: Value) -> Value {
        k.intrinsic("llvm.nvvm.rcp.approx.ftz.f", &[x], x.ty)
    }

    fn opaque(&self, k: &mut Builder, value: Value, _: bool) -> Value {
        k.emit(value.ty, |t| {
            format!("llvm.inline_asm \"mov.b32 $0, $1;\", \"=r,r\" {value} : ({t}) -> {t}")
        })
    }

    fn atomic_add_release(&self, k: &mut Builder, address: Value, value: Value, scope: Scope) {
        let (scope, at) = (self.scope(scope), address.ty);
        k.line(&format!("llvm.fence {scope}release"));
        k.emit(value.ty, |t| {
            format!("llvm.atomicrmw add {address}, {value} {scope}monotonic : {at}, {t}")
        });
    }

    /// Nothing: behind the barrier, the fence of the one is of what all have written.
    fn release_of_wave(&self, _: &mut Builder, _: Scope) {}

    fn prefetch_l2(&self, k: &mut Builder, address: Value) {
        let at = address.ty;
        k.line(&format!(
            "llvm.inline_asm has_side_effects \"prefetch.global.L2 [$0];\", \"l\" {address} : ({at}) \
             -> ()"
        ));
    }

    fn pause(&self, k: &mut Builder) {
        k.line("llvm.inline_asm has_side_effects \"nanosleep.u32 20;\", \"\" : () -> ()");
    }

    fn keep(&self, k: &mut Builder, value: Value) {
        let words: Vec<Value> = match value.ty.lanes {
            0 => vec![value],
            lanes => (0..lanes).map(|lane| k.extract(value, lane)).collect(),
        };
        for word in words {
            let bits = k.bitcast(word, Elem::I32);
            let text = format!("llvm.inline_asm has_side_effects \"\", \"r\" {bits} : (i32) -> ()");
            k.line(&text);
        }
    }

    fn opaque_with(&self, k: &mut Builder, value: Value, with: Value, _: bool) -> Value {
        let other = with.ty;
        k.emit(value.ty, |t| {
            let text = "mov.b32 $0, $1;";
            format!(
                "llvm.inline_asm \"{text}\", \"=r,r,r\" {value}, {with} : ({t}, {other}) -> {t}"
            )
        })
    }

    fn zero_of(&self, k: &mut Builder, _: Value) -> Value {
        k.emit(Elem::I32.into(), |t| {
            format!("llvm.inline_asm has_side_effects \"mov.b32 $0, 0;\", \"=r\" : () -> {t}")
        })
    }

    /// Nothing: where loads go is for the driver's compiler to say.
    fn after(&self, _: &mut Builder, value: Value, _: Value) -> Value {
        value
    }

    fn in_vector_register(&self, _: &mut Builder, value: Value) -> Value {
        value
    }

    fn moved(&self, _: &mut Builder, value: Value) -> Value {
        value
    }

    fn schedule_barrier(&self, _: &mut Builder, _: Movable) {}

    fn warpgroup(&self) -> &'static dyn Warpgroup {
        &Hopper
    }
}

/// The `i32` of the lane that `operand` names, among the lanes `members`.
fn shuffle(k: &mut Builder, mode: &str, members: Value, bits: Value, operand: Value) -> Value {
    // Segments as wide as the warp.
    let last = k.i32(WARP as i32 - 1);
    let operands = [members, bits, operand, last];
    k.intrinsic(&format!("llvm.nvvm.shfl.sync.{mode}.i32"), &operands, Elem::I32.into())
}

/// The lanes of this lane's group of `width`, a bit each.
fn lanes_of_group(k: &mut Builder, width: u32) -> Value {
    let lane = k.intrinsic("llvm.nvvm.read.ptx.sreg.laneid", &[], Elem::I32.into());
    let mask = k.i32(-(width as i32));
    let first = k.and(lane, mask);
    let ones = k.i32((1 << width) - 1);
    k.shl(ones, first)
}

/// Loads what the launch does not write: `ld.global.nc`.
fn load_invariant(k: &mut Builder, pointer: Value, ty: Ty, align: u32) -> Value {
    let address = pointer.ty;
    k.emit(ty, |t| {
        format!("llvm.load {pointer} invariant {{alignment = {align} : i64}} : {address} -> {t}")
    })
}

/// Loads some words that the launch does not write and that the first-level cache need not keep.
/// LLVM has no hint that becomes one of PTX.
fn load_no_allocate(k: &mut Builder, pointer: Value, ty: Ty, words: u32) -> Value {
    let (vector, list) = match words {
        1 => ("", "$0".to_string()),
        n => {
            let list: Vec<String> = (0..n).map(|word| format!("${word}")).collect();
            (if n == 2 { ".v2" } else { ".v4" }, format!("{{{}}}", list.join(", ")))
        }
    };
    let text = format!("ld.global.nc.L1::no_allocate{vector}.b32 {list}, [${words}];");
    let constraints = format!("{},l", vec!["=r"; words as usize].join(","));
    let address = pointer.ty;
    if words == 1 {
        let word = k.emit(Elem::I32.into(), |t| {
            format!("llvm.inline_asm \"{text}\", \"{constraints}\" {pointer} : ({address}) -> {t}")
        });
        return k.bitcast(word, ty);
    }
    let types = vec!["i32"; words as usize].join(", ");
    let structure = format!("!llvm.struct<({types})>");
    let loaded = k.structure(&structure, |to| {
        format!("llvm.inline_asm \"{text}\", \"{constraints}\" {pointer} : ({address}) -> {to}")
    });
    let mut vector = k.zero(Elem::I32.vec(words));
    for word in 0..words {
        let element = k.member(&loaded, word, Elem::I32);
        vector = k.insert(element, vector, word);
    }
    if vector.ty == ty { vector } else { k.bitcast(vector, ty) }
}

/// As [`load_no_allocate`], of two bytes.
fn load_half_no_allocate(k: &mut Builder, pointer: Value, ty: Ty) -> Value {
    let address = pointer.ty;
    let half = k.emit(Elem::I16.into(), |t| {
        format!(
            "llvm.inline_asm \"ld.global.nc.L1::no_allocate.b16 $0, [$1];\", \"=h,l\" {pointer} : \
             ({address}) -> {t}"
        )
    });
    k.bitcast(half, ty)
}

/// The four numbers that an intrinsic gives.
fn numbers(k: &mut Builder, intrinsic: &str, operands: &[Value]) -> [Value; 4] {
    let values: Vec<String> = operands.iter().map(Value::to_string).collect();
    let types: Vec<String> = operands.iter().map(|v| v.ty.to_string()).collect();
    let result = k.structure("!llvm.struct<(f32, f32, f32, f32)>", |to| {
        let (values, types) = (values.join(", "), types.join(", "));
        format!("llvm.call_intrinsic \"{intrinsic}\"({values}) : ({types}) -> {to}")
    });
    [0, 1, 2, 3].map(|member| k.member(&result, member, Elem::F32))
}
