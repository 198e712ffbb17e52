//! A typed builder that prints a kernel as MLIR.
//!
//! Types are checked while building: a mismatch is a bug of a kernel generator and panics with
//! the op's name; no input of a user reaches these checks. What a kernel computes depends on
//! nothing but this text: floating-point ops are never contracted or reassociated, `fma` is
//! explicit.

use super::gpu::warpgroup::Workers;
use super::gpu::{Buffer, Hardware, hardware};
use super::types::{Elem, Ty, Value};
use crate::lower::KernelText;
use crate::target::Platform;
use std::collections::HashMap;
use std::fmt::Write;

/// Order of a comparison. Integers compare as signed unless the name says otherwise; a NaN
/// compares false except for [`Cmp::Ne`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cmp {
    /// Equal.
    Eq,
    /// Not equal.
    Ne,
    /// Less.
    Lt,
    /// Less or equal.
    Le,
    /// Greater.
    Gt,
    /// Greater or equal.
    Ge,
    /// Less, unsigned.
    Ult,
    /// Greater or equal, unsigned.
    Uge,
}

impl Cmp {
    fn integer(self) -> &'static str {
        match self {
            Cmp::Eq => "eq",
            Cmp::Ne => "ne",
            Cmp::Lt => "slt",
            Cmp::Le => "sle",
            Cmp::Gt => "sgt",
            Cmp::Ge => "sge",
            Cmp::Ult => "ult",
            Cmp::Uge => "uge",
        }
    }

    fn float(self) -> &'static str {
        match self {
            Cmp::Eq => "oeq",
            Cmp::Ne => "une",
            Cmp::Lt => "olt",
            Cmp::Le => "ole",
            Cmp::Gt => "ogt",
            Cmp::Ge => "oge",
            Cmp::Ult | Cmp::Uge => panic!("unsigned comparison of floats"),
        }
    }
}

/// Builds one kernel with one of the two ABIs of `docs/architecture.md`. On a CPU:
/// `void name(const uint64_t *args, int64_t first, int64_t last, void *scratch)`; on a GPU: a
/// parameter per argument slot.
#[derive(Debug)]
pub struct Builder {
    name: String,
    body: String,
    next: u32,
    depth: usize,
    abi: Abi,
}

/// How a kernel gets its arguments.
#[derive(Debug)]
enum Abi {
    Cpu,
    Gpu(Gpu),
}

/// What a kernel for a GPU has claimed so far.
#[derive(Debug)]
pub(super) struct Gpu {
    /// Work-items of a workgroup.
    pub workgroup: u32,
    /// Waves of a SIMD, at least.
    pub planned_waves: u32,
    /// Types of the parameters; unused slots are numbers.
    pub parameters: Vec<Elem>,
    /// Bytes of the local data share.
    pub shared_bytes: u32,
    /// Whether the launch asks for them.
    pub dynamic_shared: bool,
    /// Who meets at barriers, if not all do.
    pub workers: Option<Workers>,
    /// What its operations are.
    pub hardware: &'static dyn Hardware,
    /// Whether numbers that f16 cannot hold become its largest.
    pub saturates: bool,
    /// Registers of a work-item, at most, where LLVM is not who assigns them.
    pub most_registers: Option<u32>,
    /// What is to know of buffers, where a buffer is an address.
    pub buffers: HashMap<Value, Buffer>,
}

/// A value that is a structure.
pub(super) struct Structure {
    value: Value,
    ty: String,
}

/// Parameters of a kernel for a CPU, by id.
const ARGS: Value = Value { id: 0, ty: Elem::Ptr.scalar() };
const FIRST: Value = Value { id: 1, ty: Elem::I64.scalar() };
const LAST: Value = Value { id: 2, ty: Elem::I64.scalar() };
const SCRATCH: Value = Value { id: 3, ty: Elem::Ptr.scalar() };

impl Builder {
    /// Starts a kernel for a CPU called `name` (a C identifier).
    pub fn new(name: &str) -> Builder {
        Builder { name: name.to_string(), body: String::new(), next: 4, depth: 2, abi: Abi::Cpu }
    }

    /// Starts a kernel for a GPU, to run in workgroups of `workgroup` work-items.
    pub fn for_gpu(name: &str, workgroup: u32, platform: Platform) -> Builder {
        let gpu = Gpu {
            workgroup,
            planned_waves: 1,
            parameters: vec![],
            shared_bytes: 0,
            dynamic_shared: false,
            workers: None,
            hardware: hardware(platform),
            saturates: false,
            most_registers: None,
            buffers: HashMap::new(),
        };
        Builder { abi: Abi::Gpu(gpu), ..Builder::new(name) }
    }

    /// Ends the kernel.
    pub fn finish(self) -> KernelText {
        let Builder { name, body, abi, .. } = self;
        let mut text = KernelText::default();
        let (globals, parameters) = match &abi {
            Abi::Cpu => {
                let parameters = [ARGS, FIRST, LAST, SCRATCH];
                let list: Vec<String> =
                    parameters.iter().map(|p| format!("{p}: {}", p.ty)).collect();
                (String::new(), list.join(", "))
            }
            Abi::Gpu(gpu) => {
                text.workgroup = gpu.workgroup;
                text.planned_waves = gpu.planned_waves;
                text.most_registers = gpu.most_registers;
                text.dynamic_shared = if gpu.dynamic_shared { gpu.shared_bytes } else { 0 };
                (gpu.globals(), gpu.parameter_list())
            }
        };
        let mlir = format!(
            "module {{\n{globals}  func.func @{name}({parameters}) {{\n{body}    func.return\n  \
             }}\n}}\n"
        );
        KernelText { name, mlir, ..text }
    }

    /// What belongs to a GPU's kernel alone.
    ///
    /// # Panics
    /// In a kernel for a CPU.
    pub(super) fn gpu(&mut self) -> &mut Gpu {
        match &mut self.abi {
            Abi::Gpu(gpu) => gpu,
            Abi::Cpu => panic!("kernel {} is for a CPU", self.name),
        }
    }

    /// First work item, on a CPU.
    pub fn first(&self) -> Value {
        FIRST
    }

    /// One past the last work item, on a CPU.
    pub fn last(&self) -> Value {
        LAST
    }

    /// The worker's scratch, aligned to 64 bytes, on a CPU.
    pub fn scratch(&self) -> Value {
        SCRATCH
    }

    /// Argument slot `index` as an address.
    pub fn arg_ptr(&mut self, index: usize) -> Value {
        match &mut self.abi {
            Abi::Cpu => self.arg(index, Elem::Ptr),
            Abi::Gpu(gpu) => gpu.parameter(index, Elem::Global),
        }
    }

    /// Argument slot `index` as an `i64`.
    pub fn arg_i64(&mut self, index: usize) -> Value {
        match &mut self.abi {
            Abi::Cpu => self.arg(index, Elem::I64),
            Abi::Gpu(gpu) => gpu.parameter(index, Elem::I64),
        }
    }

    fn arg(&mut self, index: usize, elem: Elem) -> Value {
        let slot = self.offset_const(ARGS, 8 * index as i64);
        self.emit(elem.scalar(), |t| {
            format!("llvm.load {slot} invariant {{alignment = 8 : i64}} : !llvm.ptr -> {t}")
        })
    }

    // ---- text -------------------------------------------------------------------------------

    pub(super) fn fresh(&mut self, ty: Ty) -> Value {
        let id = self.next;
        self.next += 1;
        Value { id, ty }
    }

    pub(super) fn line(&mut self, text: &str) {
        for _ in 0..self.depth {
            self.body.push_str("  ");
        }
        self.body.push_str(text);
        self.body.push('\n');
    }

    /// Emits an op with one result of type `ty`; `op` gets the type's spelling.
    pub(super) fn emit(&mut self, ty: Ty, op: impl FnOnce(Ty) -> String) -> Value {
        let value = self.fresh(ty);
        let text = format!("{value} = {}", op(ty));
        self.line(&text);
        value
    }

    /// Runs `body` one level deeper and gives what it printed, with what it returned.
    fn region<R>(&mut self, body: impl FnOnce(&mut Self) -> R) -> (String, R) {
        let outer = std::mem::take(&mut self.body);
        self.depth += 1;
        let result = body(self);
        self.depth -= 1;
        (std::mem::replace(&mut self.body, outer), result)
    }

    // ---- constants --------------------------------------------------------------------------

    /// An `i64` constant.
    pub fn i64(&mut self, value: i64) -> Value {
        self.int(Elem::I64.scalar(), value)
    }

    /// An `i32` constant.
    pub fn i32(&mut self, value: i32) -> Value {
        self.int(Elem::I32.scalar(), i64::from(value))
    }

    /// An `f32` constant.
    pub fn f32(&mut self, value: f32) -> Value {
        self.float(Elem::F32.scalar(), f64::from(value))
    }

    /// `true` or `false`.
    pub fn bool(&mut self, value: bool) -> Value {
        self.emit(Elem::I1.scalar(), |_| format!("arith.constant {value}"))
    }

    /// An integer constant of type `ty`, in every lane.
    pub fn int(&mut self, ty: impl Into<Ty>, value: i64) -> Value {
        let ty = ty.into();
        assert!(!ty.elem.is_float(), "int: {ty}");
        self.emit(ty, |t| match t.lanes {
            0 => format!("arith.constant {value} : {t}"),
            _ => format!("arith.constant dense<{value}> : {t}"),
        })
    }

    /// A floating-point constant of type `ty`, in every lane, rounded to the element type.
    pub fn float(&mut self, ty: impl Into<Ty>, value: f64) -> Value {
        let ty = ty.into();
        let bits = match ty.elem {
            Elem::F16 => format!("0x{:04X}", half::f16::from_f64(value).to_bits()),
            Elem::F32 => format!("0x{:08X}", (value as f32).to_bits()),
            Elem::F64 => format!("0x{:016X}", value.to_bits()),
            _ => panic!("float: {ty}"),
        };
        self.emit(ty, |t| match t.lanes {
            0 => format!("arith.constant {bits} : {t}"),
            _ => format!("arith.constant dense<{bits}> : {t}"),
        })
    }

    /// A vector of integer constants, one per lane.
    pub fn int_vector(&mut self, elem: Elem, values: &[i64]) -> Value {
        let list: Vec<String> = values.iter().map(i64::to_string).collect();
        self.emit(elem.vec(values.len() as u32), |t| {
            format!("arith.constant dense<[{}]> : {t}", list.join(", "))
        })
    }

    /// 0, 1, 2, … in the lanes.
    pub fn iota(&mut self, elem: Elem, lanes: u32) -> Value {
        let values: Vec<i64> = (0..i64::from(lanes)).collect();
        self.int_vector(elem, &values)
    }

    /// Zeros of any type but pointers.
    pub fn zero(&mut self, ty: impl Into<Ty>) -> Value {
        let ty = ty.into();
        if ty.elem.is_float() { self.float(ty, 0.0) } else { self.int(ty, 0) }
    }

    // ---- arithmetic -------------------------------------------------------------------------

    fn same(&self, op: &str, a: Value, b: Value) {
        assert_eq!(a.ty, b.ty, "kernel {}: {op}: operands differ", self.name);
    }

    fn binary(&mut self, integer: &str, float: &str, a: Value, b: Value) -> Value {
        let op = if a.ty.elem.is_float() { float } else { integer };
        self.same(op, a, b);
        assert!(!op.is_empty(), "kernel {}: {integer}{float} on {}", self.name, a.ty);
        self.emit(a.ty, |t| format!("{op} {a}, {b} : {t}"))
    }

    /// a + b.
    pub fn add(&mut self, a: Value, b: Value) -> Value {
        self.binary("arith.addi", "arith.addf", a, b)
    }

    /// a − b.
    pub fn sub(&mut self, a: Value, b: Value) -> Value {
        self.binary("arith.subi", "arith.subf", a, b)
    }

    /// a · b.
    pub fn mul(&mut self, a: Value, b: Value) -> Value {
        self.binary("arith.muli", "arith.mulf", a, b)
    }

    /// a / b; integers as signed, rounded towards zero.
    pub fn div(&mut self, a: Value, b: Value) -> Value {
        self.binary("arith.divsi", "arith.divf", a, b)
    }

    /// Remainder of signed integers, with the sign of a.
    pub fn rem(&mut self, a: Value, b: Value) -> Value {
        self.binary("arith.remsi", "", a, b)
    }

    /// a / b of unsigned integers.
    pub fn udiv(&mut self, a: Value, b: Value) -> Value {
        self.binary("arith.divui", "", a, b)
    }

    /// Bitwise and.
    pub fn and(&mut self, a: Value, b: Value) -> Value {
        self.binary("arith.andi", "", a, b)
    }

    /// Bitwise or.
    pub fn or(&mut self, a: Value, b: Value) -> Value {
        self.binary("arith.ori", "", a, b)
    }

    /// Bitwise exclusive or.
    pub fn xor(&mut self, a: Value, b: Value) -> Value {
        self.binary("arith.xori", "", a, b)
    }

    /// Shift left.
    pub fn shl(&mut self, a: Value, b: Value) -> Value {
        self.binary("arith.shli", "", a, b)
    }

    /// Shift right, filled with zeros.
    pub fn shr_u(&mut self, a: Value, b: Value) -> Value {
        self.binary("arith.shrui", "", a, b)
    }

    /// Shift right, filled with the sign.
    pub fn shr_s(&mut self, a: Value, b: Value) -> Value {
        self.binary("arith.shrsi", "", a, b)
    }

    /// a + a constant in every lane.
    pub fn add_const(&mut self, a: Value, value: i64) -> Value {
        let b = self.int(a.ty, value);
        self.add(a, b)
    }

    /// a · a constant in every lane.
    pub fn mul_const(&mut self, a: Value, value: i64) -> Value {
        let b = self.int(a.ty, value);
        self.mul(a, b)
    }

    /// a / n rounded up, for a ≥ 0 and constant n > 0.
    pub fn ceil_div_const(&mut self, a: Value, n: i64) -> Value {
        let a = self.add_const(a, n - 1);
        let n = self.int(a.ty, n);
        self.udiv(a, n)
    }

    /// The larger: `a > b ? a : b` (b where one is NaN); integers as signed.
    pub fn max(&mut self, a: Value, b: Value) -> Value {
        let more = self.cmp(Cmp::Gt, a, b);
        self.select(more, a, b)
    }

    /// The smaller: `a < b ? a : b` (b where one is NaN); integers as signed.
    pub fn min(&mut self, a: Value, b: Value) -> Value {
        let less = self.cmp(Cmp::Lt, a, b);
        self.select(less, a, b)
    }

    /// −a of floats.
    pub fn neg(&mut self, a: Value) -> Value {
        self.emit(a.ty, |t| format!("arith.negf {a} : {t}"))
    }

    /// |a| of floats.
    pub fn abs(&mut self, a: Value) -> Value {
        self.emit(a.ty, |t| format!("math.absf {a} : {t}"))
    }

    /// √a, correctly rounded.
    pub fn sqrt(&mut self, a: Value) -> Value {
        self.emit(a.ty, |t| format!("math.sqrt {a} : {t}"))
    }

    /// Nearest integer, ties to even.
    pub fn round_even(&mut self, a: Value) -> Value {
        self.emit(a.ty, |t| format!("math.roundeven {a} : {t}"))
    }

    /// Largest integer not above.
    pub fn floor(&mut self, a: Value) -> Value {
        self.emit(a.ty, |t| format!("math.floor {a} : {t}"))
    }

    /// a·b + c with one rounding.
    pub fn fma(&mut self, a: Value, b: Value, c: Value) -> Value {
        self.same("fma", a, b);
        self.same("fma", a, c);
        self.emit(a.ty, |t| format!("math.fma {a}, {b}, {c} : {t}"))
    }

    /// Low and high half of the unsigned product.
    pub fn mul_extended_u(&mut self, a: Value, b: Value) -> (Value, Value) {
        self.same("mul_extended_u", a, b);
        let (low, high) = (self.fresh(a.ty), self.fresh(a.ty));
        let text = format!("{low}, {high} = arith.mului_extended {a}, {b} : {}", a.ty);
        self.line(&text);
        (low, high)
    }

    /// Compares; gives `i1` or a vector of it.
    pub fn cmp(&mut self, order: Cmp, a: Value, b: Value) -> Value {
        self.same("cmp", a, b);
        let ty = a.ty;
        let op = match ty.elem.is_float() {
            true => format!("arith.cmpf {}", order.float()),
            false => format!("arith.cmpi {}", order.integer()),
        };
        self.emit(ty.with(Elem::I1), |_| format!("{op}, {a}, {b} : {ty}"))
    }

    /// `condition ? a : b`; the condition is `i1`, or a vector of it that chooses by lane.
    pub fn select(&mut self, condition: Value, a: Value, b: Value) -> Value {
        self.same("select", a, b);
        let types = match condition.ty.lanes {
            0 => format!("{}", a.ty),
            _ => format!("{}, {}", condition.ty, a.ty),
        };
        self.emit(a.ty, |_| format!("arith.select {condition}, {a}, {b} : {types}"))
    }

    // ---- conversions ------------------------------------------------------------------------

    fn convert(&mut self, op: &str, a: Value, elem: Elem) -> Value {
        let from = a.ty;
        self.emit(from.with(elem), |to| format!("{op} {a} : {from} to {to}"))
    }

    /// Sign-extends integers.
    pub fn sext(&mut self, a: Value, elem: Elem) -> Value {
        self.convert("arith.extsi", a, elem)
    }

    /// Zero-extends integers.
    pub fn zext(&mut self, a: Value, elem: Elem) -> Value {
        self.convert("arith.extui", a, elem)
    }

    /// Keeps the low bits of integers.
    pub fn trunc(&mut self, a: Value, elem: Elem) -> Value {
        self.convert("arith.trunci", a, elem)
    }

    /// Signed integers to floats.
    pub fn sitofp(&mut self, a: Value, elem: Elem) -> Value {
        self.convert("arith.sitofp", a, elem)
    }

    /// Unsigned integers to floats.
    pub fn uitofp(&mut self, a: Value, elem: Elem) -> Value {
        self.convert("arith.uitofp", a, elem)
    }

    /// Floats to signed integers, towards zero; undefined out of range and for NaN.
    pub fn fptosi(&mut self, a: Value, elem: Elem) -> Value {
        self.convert("arith.fptosi", a, elem)
    }

    /// Floats to wider floats.
    pub fn extf(&mut self, a: Value, elem: Elem) -> Value {
        self.convert("arith.extf", a, elem)
    }

    /// Floats to narrower floats, to nearest even. Not to bf16: see [`Builder::f32_to_bf16`].
    pub fn truncf(&mut self, a: Value, elem: Elem) -> Value {
        assert_ne!(elem, Elem::BF16, "truncf to bf16 would call a library function");
        let hardware = match &self.abi {
            Abi::Gpu(gpu) if elem == Elem::F16 => Some(gpu.hardware),
            _ => None,
        };
        let a = hardware.map_or(a, |hardware| hardware.before_f16(self, a));
        self.convert("arith.truncf", a, elem)
    }

    /// The same bits as another type of the same size.
    pub fn bitcast(&mut self, a: Value, ty: impl Into<Ty>) -> Value {
        let (from, ty) = (a.ty, ty.into());
        assert_eq!(from.bytes(), ty.bytes(), "bitcast {from} to {ty}");
        self.emit(ty, |to| format!("llvm.bitcast {a} : {from} to {to}"))
    }

    /// bf16 bits in `i16` to f32, exact.
    pub fn bf16_to_f32(&mut self, a: Value) -> Value {
        assert_eq!(a.ty.elem, Elem::I16, "bf16_to_f32");
        let wide = self.zext(a, Elem::I32);
        let sixteen = self.int(wide.ty, 16);
        let bits = self.shl(wide, sixteen);
        self.bitcast(bits, a.ty.with(Elem::F32))
    }

    /// f32 to bf16 bits in `i16`, to nearest even; NaN stays NaN.
    pub fn f32_to_bf16(&mut self, a: Value) -> Value {
        let ty = a.ty.with(Elem::I32);
        let bits = self.bitcast(a, ty);
        let sixteen = self.int(ty, 16);
        let high = self.shr_u(bits, sixteen);
        let one = self.int(ty, 1);
        let odd = self.and(high, one);
        let bias = self.add_const(odd, 0x7fff);
        let rounded = self.add(bits, bias);
        let rounded = self.shr_u(rounded, sixteen);
        let quiet = self.int(ty, 0x40);
        let nan = self.or(high, quiet);
        let is_nan = self.cmp(Cmp::Ne, a, a);
        let result = self.select(is_nan, nan, rounded);
        self.trunc(result, Elem::I16)
    }

    // ---- vectors ----------------------------------------------------------------------------

    /// A scalar in every lane.
    pub fn splat(&mut self, a: Value, lanes: u32) -> Value {
        assert!(a.ty.is_scalar(), "splat of {}", a.ty);
        let from = a.ty;
        self.emit(from.elem.vec(lanes), |to| format!("vector.broadcast {a} : {from} to {to}"))
    }

    /// Lane `lane`.
    pub fn extract(&mut self, a: Value, lane: u32) -> Value {
        assert!(lane < a.ty.lanes, "extract {lane} of {}", a.ty);
        let (from, to) = (a.ty, a.ty.elem);
        self.emit(to.scalar(), |to| format!("vector.extract {a}[{lane}] : {to} from {from}"))
    }

    /// Lane `lane`, an `i64` value within range.
    pub fn extract_dynamic(&mut self, a: Value, lane: Value) -> Value {
        let (from, at) = (a.ty, lane.ty);
        self.emit(from.elem.scalar(), |_| {
            format!("llvm.extractelement {a}[{lane} : {at}] : {from}")
        })
    }

    /// `a` with lane `lane` replaced.
    pub fn insert(&mut self, element: Value, a: Value, lane: u32) -> Value {
        let (from, ty) = (element.ty, a.ty);
        self.emit(ty, |to| format!("vector.insert {element}, {a}[{lane}] : {from} into {to}"))
    }

    /// Lanes picked from the concatenation of a and b.
    pub fn shuffle(&mut self, a: Value, b: Value, lanes: &[u32]) -> Value {
        self.same("shuffle", a, b);
        let ty = a.ty;
        let list: Vec<String> = lanes.iter().map(u32::to_string).collect();
        self.emit(ty.elem.vec(lanes.len() as u32), |_| {
            format!("vector.shuffle {a}, {b} [{}] : {ty}, {ty}", list.join(", "))
        })
    }

    /// Lanes `start..start + count`.
    pub fn slice(&mut self, a: Value, start: u32, count: u32) -> Value {
        let lanes: Vec<u32> = (start..start + count).collect();
        self.shuffle(a, a, &lanes)
    }

    /// a's lanes, then b's.
    pub fn concat(&mut self, a: Value, b: Value) -> Value {
        let lanes: Vec<u32> = (0..2 * a.ty.lanes).collect();
        self.shuffle(a, b, &lanes)
    }

    /// Combines all lanes (a power of two of them) by halving: lane i with lane i + n/2, and so
    /// on: always the same order.
    pub fn reduce(
        &mut self,
        mut a: Value,
        mut combine: impl FnMut(&mut Self, Value, Value) -> Value,
    ) -> Value {
        assert!(a.ty.lanes.is_power_of_two(), "reduce of {}", a.ty);
        while a.ty.lanes > 1 {
            let half = a.ty.lanes / 2;
            let low = self.slice(a, 0, half);
            let high = self.slice(a, half, half);
            a = combine(self, low, high);
        }
        self.extract(a, 0)
    }

    /// Sum of all lanes, in the order of [`Builder::reduce`].
    pub fn reduce_add(&mut self, a: Value) -> Value {
        self.reduce(a, |k, x, y| k.add(x, y))
    }

    /// Largest lane.
    pub fn reduce_max(&mut self, a: Value) -> Value {
        self.reduce(a, |k, x, y| k.max(x, y))
    }

    /// Whether any lane of an `i1` vector is set.
    pub fn any(&mut self, mask: Value) -> Value {
        let ty = mask.ty;
        self.emit(Elem::I1.scalar(), |t| format!("vector.reduction <or>, {mask} : {ty} into {t}"))
    }

    /// The lanes below `count` (an `i64`, which may be negative or large).
    pub fn mask_below(&mut self, count: Value, lanes: u32) -> Value {
        let zero = self.i64(0);
        let most = self.i64(i64::from(lanes));
        let count = self.max(count, zero);
        let count = self.min(count, most);
        let count = self.trunc(count, Elem::I32);
        let count = self.splat(count, lanes);
        let lane = self.iota(Elem::I32, lanes);
        self.cmp(Cmp::Ult, lane, count)
    }

    // ---- memory -----------------------------------------------------------------------------

    /// The address `bytes` (an `i64`) further.
    pub fn offset(&mut self, pointer: Value, bytes: Value) -> Value {
        assert_eq!(bytes.ty, Elem::I64.scalar(), "offset");
        self.emit(pointer.ty, |p| {
            format!("llvm.getelementptr inbounds {pointer}[{bytes}] : ({p}, i64) -> {p}, i8")
        })
    }

    /// The address `bytes` further, which need not be within any object: for prefetches.
    pub fn offset_anywhere(&mut self, pointer: Value, bytes: Value) -> Value {
        assert_eq!(bytes.ty, Elem::I64.scalar(), "offset_anywhere");
        self.emit(pointer.ty, |p| {
            format!("llvm.getelementptr {pointer}[{bytes}] : ({p}, i64) -> {p}, i8")
        })
    }

    /// The address a constant number of bytes further.
    pub fn offset_const(&mut self, pointer: Value, bytes: i64) -> Value {
        if bytes == 0 {
            return pointer;
        }
        let bytes = self.i64(bytes);
        self.offset(pointer, bytes)
    }

    /// The address of element `index` (an `i64`) of an array of `elem`.
    pub fn element(&mut self, pointer: Value, elem: Elem, index: Value) -> Value {
        let bytes = self.mul_const(index, i64::from(elem.bytes()));
        self.offset(pointer, bytes)
    }

    /// Loads a value; only the element's own alignment is assumed.
    pub fn load(&mut self, pointer: Value, ty: impl Into<Ty>) -> Value {
        let ty = ty.into();
        self.load_aligned(pointer, ty, ty.elem.bytes())
    }

    /// Loads a value from an address aligned to `align` bytes.
    pub fn load_aligned(&mut self, pointer: Value, ty: impl Into<Ty>, align: u32) -> Value {
        assert!(pointer.ty.elem.is_address(), "load");
        let address = pointer.ty;
        self.emit(ty.into(), |t| {
            format!("llvm.load {pointer} {{alignment = {align} : i64}} : {address} -> {t}")
        })
    }

    /// Stores a value; only the element's own alignment is assumed.
    pub fn store(&mut self, value: Value, pointer: Value) {
        self.store_aligned(value, pointer, value.ty.elem.bytes());
    }

    /// Stores a value to an address aligned to `align` bytes.
    pub fn store_aligned(&mut self, value: Value, pointer: Value, align: u32) {
        assert!(pointer.ty.elem.is_address(), "store");
        let text = format!(
            "llvm.store {value}, {pointer} {{alignment = {align} : i64}} : {}, {}",
            value.ty, pointer.ty
        );
        self.line(&text);
    }

    /// Loads the lanes that `mask` has; the others are zero and not accessed.
    pub fn load_masked(&mut self, pointer: Value, ty: Ty, mask: Value) -> Value {
        let zero = self.zero(ty);
        let (align, masks) = (ty.elem.bytes(), mask.ty);
        self.emit(ty, |t| {
            format!(
                "llvm.intr.masked.load {pointer}, {mask}, {zero} {{alignment = {align} : i32}} : \
                 (!llvm.ptr, {masks}, {t}) -> {t}"
            )
        })
    }

    /// Stores the lanes that `mask` has.
    pub fn store_masked(&mut self, value: Value, pointer: Value, mask: Value) {
        let text = format!(
            "llvm.intr.masked.store {value}, {pointer}, {mask} {{alignment = {} : i32}} : \
             {}, {} into !llvm.ptr",
            value.ty.elem.bytes(),
            value.ty,
            mask.ty
        );
        self.line(&text);
    }

    /// Loads the first `count` (an `i64`) lanes; the others are zero and not accessed.
    pub fn load_partial(&mut self, pointer: Value, ty: Ty, count: Value) -> Value {
        let mask = self.mask_below(count, ty.lanes);
        self.load_masked(pointer, ty, mask)
    }

    /// Stores the first `count` (an `i64`) lanes.
    pub fn store_partial(&mut self, value: Value, pointer: Value, count: Value) {
        let mask = self.mask_below(count, value.ty.lanes);
        self.store_masked(value, pointer, mask);
    }

    /// Hints that the line at `pointer` is read soon, into all cache levels. Any address will do.
    pub fn prefetch(&mut self, pointer: Value) {
        let text = format!(
            "\"llvm.intr.prefetch\"({pointer}) <{{cache = 1 : i32, hint = 3 : i32, rw = 0 : i32}}> \
             : (!llvm.ptr) -> ()"
        );
        self.line(&text);
    }

    /// Emits an op whose result is a structure of LLVM's of type `ty`.
    pub(super) fn structure(&mut self, ty: &str, op: impl FnOnce(&str) -> String) -> Structure {
        // Nothing but `member` takes it, so what type the value says does not matter.
        let value = self.fresh(Elem::I64.scalar());
        let text = format!("{value} = {}", op(ty));
        self.line(&text);
        Structure { value, ty: ty.to_string() }
    }

    /// Member `index` of a structure, an `elem`.
    pub(super) fn member(&mut self, structure: &Structure, index: u32, elem: Elem) -> Value {
        let Structure { value, ty } = structure;
        self.emit(elem.scalar(), |_| format!("llvm.extractvalue {value}[{index}] : {ty}"))
    }

    /// An LLVM intrinsic by name, such as `llvm.x86.avx512.vpdpbusd.512`.
    pub fn intrinsic(&mut self, name: &str, operands: &[Value], result: Ty) -> Value {
        let values: Vec<String> = operands.iter().map(Value::to_string).collect();
        let types: Vec<String> = operands.iter().map(|v| v.ty.to_string()).collect();
        self.emit(result, |t| {
            format!(
                "llvm.call_intrinsic \"{name}\"({}) : ({}) -> {t}",
                values.join(", "),
                types.join(", ")
            )
        })
    }

    /// An LLVM intrinsic that gives nothing, such as `llvm.x86.tilezero`.
    pub fn intrinsic_void(&mut self, name: &str, operands: &[Value]) {
        let values: Vec<String> = operands.iter().map(Value::to_string).collect();
        let types: Vec<String> = operands.iter().map(|v| v.ty.to_string()).collect();
        let text = format!(
            "llvm.call_intrinsic \"{name}\"({}) : ({}) -> ()",
            values.join(", "),
            types.join(", ")
        );
        self.line(&text);
    }

    /// Calls a function of the module that gives nothing.
    pub fn call(&mut self, function: &str, operands: &[Value]) {
        let values: Vec<String> = operands.iter().map(Value::to_string).collect();
        let types: Vec<String> = operands.iter().map(|v| v.ty.to_string()).collect();
        let text =
            format!("func.call @{function}({}) : ({}) -> ()", values.join(", "), types.join(", "));
        self.line(&text);
    }

    // ---- control ----------------------------------------------------------------------------

    /// `for i in (from..to).step_by(step)`, of i32 or i64, carrying values: `body` gets i and the carried values
    /// and returns their next ones; the result is the last ones.
    pub fn for_loop<const N: usize>(
        &mut self,
        from: Value,
        to: Value,
        step: i64,
        carried: [Value; N],
        body: impl FnOnce(&mut Self, Value, [Value; N]) -> [Value; N],
    ) -> [Value; N] {
        let results = self.for_values(from, to, step, &carried, |k, i, values| {
            let mut array = carried;
            array.copy_from_slice(values);
            body(k, i, array).to_vec()
        });
        let mut array = carried;
        array.copy_from_slice(&results);
        array
    }

    /// [`Builder::for_loop`] over any number of carried values.
    pub fn for_values(
        &mut self,
        from: Value,
        to: Value,
        step: i64,
        carried: &[Value],
        body: impl FnOnce(&mut Self, Value, &[Value]) -> Vec<Value>,
    ) -> Vec<Value> {
        self.same("for", from, to);
        let step = self.int(from.ty, step);
        let index = self.fresh(from.ty);
        let inner: Vec<Value> = carried.iter().map(|v| self.fresh(v.ty)).collect();
        let (text, next) = self.region(|k| {
            let next = body(k, index, &inner);
            k.yields("scf.yield", &next);
            next
        });
        self.check_carried("for", carried, &next);
        let results: Vec<Value> = carried.iter().map(|v| self.fresh(v.ty)).collect();
        let mut head = results_prefix(&results);
        let _ = write!(head, "scf.for {index} = {from} to {to} step {step}");
        if !carried.is_empty() {
            let pairs: Vec<String> =
                inner.iter().zip(carried).map(|(i, c)| format!("{i} = {c}")).collect();
            let _ = write!(head, " iter_args({}) -> ({})", pairs.join(", "), types(&results));
        }
        let _ = write!(head, " : {} {{", from.ty);
        self.line(&head);
        self.body.push_str(&text);
        self.line("}");
        results
    }

    /// A counted loop whose body is printed `count` times: unrolled while building.
    pub fn unrolled(&mut self, count: u32, mut body: impl FnMut(&mut Self, u32)) {
        for i in 0..count {
            body(self, i);
        }
    }

    /// `while condition { body }`, carrying values (at least one).
    pub fn while_loop<const N: usize>(
        &mut self,
        carried: [Value; N],
        condition: impl FnOnce(&mut Self, [Value; N]) -> Value,
        body: impl FnOnce(&mut Self, [Value; N]) -> [Value; N],
    ) -> [Value; N] {
        let before = carried.map(|v| self.fresh(v.ty));
        let after = carried.map(|v| self.fresh(v.ty));
        let (test, ()) = self.region(|k| {
            let go_on = condition(k, before);
            let text = format!("scf.condition({go_on}){}", with_types(&before));
            k.line(&text);
        });
        let (text, next) = self.region(|k| {
            let next = body(k, after);
            k.yields("scf.yield", &next);
            next
        });
        self.check_carried("while", &carried, &next);
        let results = carried.map(|v| self.fresh(v.ty));
        let pairs: Vec<String> =
            before.iter().zip(carried).map(|(i, c)| format!("{i} = {c}")).collect();
        let head = format!(
            "{}scf.while ({}) : ({}) -> ({}) {{",
            results_prefix(&results),
            pairs.join(", "),
            types(&carried),
            types(&results)
        );
        self.line(&head);
        self.body.push_str(&test);
        self.line("} do {");
        let names: Vec<String> = after.iter().map(|v| format!("{v}: {}", v.ty)).collect();
        self.line(&format!("^bb0({}):", names.join(", ")));
        self.body.push_str(&text);
        self.line("}");
        results
    }

    /// `if condition { then } else { otherwise }` with values; both give the same types.
    pub fn if_else<const N: usize>(
        &mut self,
        condition: Value,
        then: impl FnOnce(&mut Self) -> [Value; N],
        otherwise: impl FnOnce(&mut Self) -> [Value; N],
    ) -> [Value; N] {
        let results = self.if_values(condition, |k| then(k).to_vec(), |k| otherwise(k).to_vec());
        std::array::from_fn(|i| results[i])
    }

    /// [`Builder::if_else`] with any number of values.
    pub fn if_values(
        &mut self,
        condition: Value,
        then: impl FnOnce(&mut Self) -> Vec<Value>,
        otherwise: impl FnOnce(&mut Self) -> Vec<Value>,
    ) -> Vec<Value> {
        let (yes, a) = self.branch(then);
        let (no, b) = self.branch(otherwise);
        self.check_carried("if", &a, &b);
        let results: Vec<Value> = a.iter().map(|v| self.fresh(v.ty)).collect();
        let mut head = results_prefix(&results);
        let _ = write!(head, "scf.if {condition}");
        if !results.is_empty() {
            let _ = write!(head, " -> ({})", types(&results));
        }
        head.push_str(" {");
        self.line(&head);
        self.body.push_str(&yes);
        self.line("} else {");
        self.body.push_str(&no);
        self.line("}");
        results
    }

    fn branch(&mut self, body: impl FnOnce(&mut Self) -> Vec<Value>) -> (String, Vec<Value>) {
        self.region(|k| {
            let values = body(k);
            k.yields("scf.yield", &values);
            values
        })
    }

    /// `if condition { then }`.
    pub fn if_then(&mut self, condition: Value, then: impl FnOnce(&mut Self)) {
        self.if_else(
            condition,
            |k| {
                then(k);
                []
            },
            |_| [],
        );
    }

    fn yields(&mut self, op: &str, values: &[Value]) {
        let text = format!("{op}{}", with_types(values));
        self.line(&text);
    }

    fn check_carried(&self, op: &str, carried: &[Value], next: &[Value]) {
        let a: Vec<Ty> = carried.iter().map(|v| v.ty).collect();
        let b: Vec<Ty> = next.iter().map(|v| v.ty).collect();
        assert_eq!(a, b, "kernel {}: {op}: carried types change", self.name);
    }
}

/// `%a, %b = `, or nothing.
fn results_prefix(results: &[Value]) -> String {
    if results.is_empty() {
        return String::new();
    }
    format!("{} = ", names(results))
}

fn names(values: &[Value]) -> String {
    let names: Vec<String> = values.iter().map(Value::to_string).collect();
    names.join(", ")
}

fn types(values: &[Value]) -> String {
    let types: Vec<String> = values.iter().map(|v| v.ty.to_string()).collect();
    types.join(", ")
}

/// ` %a, %b : t, u`, or nothing.
fn with_types(values: &[Value]) -> String {
    if values.is_empty() {
        return String::new();
    }
    format!(" {} : {}", names(values), types(values))
}
