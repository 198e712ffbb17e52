//! The persistent kernel: each workgroup walks its stream. `plan::persistent::encode` has its ABI.
//!
//! The kernels of the launches become functions, inlined: of a workgroup and a work-item they ask
//! what they are given, not the hardware; they share one block of the local data share, as large
//! as the largest needs.
//!
//! ```text
//! for each record of the stream:
//!   wave 0, lane 0:  polls the flags of its waits, then acquires
//!   other waves:     load the beginning of the weights that come next
//!   barrier
//!   for each workgroup of the record:  barrier, the body
//!   barrier; lane 0 adds the number of workgroups to the flag
//! ```

use crate::kernels::{ArgRole, KernelSource};
use crate::lower::KernelText;
use crate::mlir::builder::Cmp;
use crate::mlir::gpu::Scope;
use crate::mlir::{Builder, Elem, Value};
use crate::target::{GpuTarget, Platform};
use std::fmt::Write;
use waveloom_plan::persistent::{Encoded, Field, MAX_PREFETCHES, RECORD_WORDS, SyncLayout};

/// Bytes of a load, and what a prefetch is a multiple of.
const LOAD_BYTES: u32 = 16;

/// How a work-item takes part in a prefetch.
struct Ahead {
    /// Turns that it has.
    turns: u32,
    /// Bytes that are its in a turn.
    bytes: u32,
    /// Whether an instruction does it. Otherwise it is a load, of which nothing is used.
    instruction: bool,
}

/// How a platform brings weights into its caches.
///
/// AMD's chips load: not all of them have an instruction for it. NVIDIA's takes no register, and no
/// wave waits for what it brings, so it goes further ahead; 32 bytes are the least that is brought.
fn ahead(target: &GpuTarget) -> Ahead {
    match target.platform {
        Platform::Amd => Ahead { turns: 2, bytes: 16, instruction: false },
        Platform::Nvidia => Ahead { turns: 4, bytes: 32, instruction: true },
    }
}

/// The intrinsics by which a kernel asks the hardware where it is.
fn asks(target: &GpuTarget) -> [&'static str; 2] {
    match target.platform {
        Platform::Amd => ["llvm.amdgcn.workgroup.id.x", "llvm.amdgcn.workitem.id.x"],
        Platform::Nvidia => ["llvm.nvvm.read.ptx.sreg.ctaid.x", "llvm.nvvm.read.ptx.sreg.tid.x"],
    }
}

/// Most registers that NVIDIA's instructions can name.
const NAMED_REGISTERS: u32 = 255;

/// The parameters that a function gets instead.
const PLACES: [&str; 2] = ["%workgroup", "%thread"];

/// Most bytes that a prefetch of a workgroup reads: all waves but the first take part.
pub(super) fn prefetch_bytes(workgroup: u32, target: &GpuTarget) -> u32 {
    let Ahead { turns, bytes, .. } = ahead(target);
    turns * bytes * (workgroup - target.wave.min(workgroup))
}

/// A kernel as a function of the persistent one.
pub(super) struct Body<'a> {
    source: &'a KernelSource,
    pub name: String,
    /// In MLIR.
    pub text: String,
    pub shared_bytes: u32,
}

impl<'a> Body<'a> {
    /// The function for an opcode.
    pub fn new(
        opcode: usize,
        source: &'a KernelSource,
        target: &GpuTarget,
    ) -> Result<Body<'a>, String> {
        let name = format!("body_{opcode}");
        let unknown = || format!("the text of {} is not that of a kernel", source.text.name);
        let (head, rest) = source.text.mlir.split_once("  func.func @").ok_or_else(unknown)?;
        let (parameters, code) = rest.split_once(") {\n").ok_or_else(unknown)?;
        let (_, parameters) = parameters.split_once('(').ok_or_else(unknown)?;
        let code = code.strip_suffix("}\n").ok_or_else(unknown)?;
        let mut parameters = parameters.to_string();
        for parameter in PLACES {
            let separator = if parameters.is_empty() { "" } else { ", " };
            let _ = write!(parameters, "{separator}{parameter}: i32");
        }
        let mut text = format!("  func.func private @{name}({parameters}) {{\n{code}");
        for (intrinsic, parameter) in asks(target).into_iter().zip(PLACES) {
            let ask = format!("llvm.call_intrinsic \"{intrinsic}\"() : () -> i32");
            text = text.replace(&ask, &format!("llvm.bitcast {parameter} : i32 to i32"));
        }
        Ok(Body { source, name, text, shared_bytes: shared_bytes(head).ok_or_else(unknown)? })
    }
}

/// Bytes of the local data share that a module declares before its function.
fn shared_bytes(head: &str) -> Option<u32> {
    let Some((_, size)) = head.split_once("!llvm.array<") else {
        return (!head.contains("@shared")).then_some(0);
    };
    size.split_once(' ')?.0.parse().ok()
}

/// The kernel that runs streams of these bodies, which have workgroups of one size, so that a unit
/// has room for `per_unit` workgroups if that can be had.
pub(super) fn kernel(
    name: &str,
    bodies: &[Body<'_>],
    per_unit: u32,
    target: &GpuTarget,
) -> Result<KernelText, String> {
    let sizes = || bodies.iter().map(|body| body.source.text.workgroup);
    let workgroup = sizes().max().ok_or("a decode step without launches")?;
    if let Some(other) = sizes().find(|size| *size != workgroup) {
        return Err(format!("kernels have workgroups of {other} and of {workgroup} work-items"));
    }
    let mut k = Builder::for_gpu(name, workgroup, target.platform);
    let [arguments, code, sync] = [0, 1, 2].map(|slot| k.arg_ptr(slot));
    k.shared(bodies.iter().map(|body| body.shared_bytes).max().unwrap_or(0));
    if target.platform == Platform::Nvidia {
        k.bound_registers(registers(workgroup, per_unit, target));
    }
    Streams { bodies, target, workgroup, arguments, code, sync }.emit(&mut k);
    let mut text = k.finish();
    let functions: String = bodies.iter().map(|body| body.text.as_str()).collect();
    text.mlir = text.mlir.replacen("  func.func @", &format!("{functions}  func.func @"), 1);
    Ok(text)
}

/// Registers of a work-item with which a unit has room for so many workgroups.
fn registers(workgroup: u32, per_unit: u32, target: &GpuTarget) -> u32 {
    let waves = per_unit * workgroup.div_ceil(target.wave);
    target.vector_registers.most(waves.div_ceil(target.simds())).min(NAMED_REGISTERS)
}

/// The code of the kernel.
struct Streams<'a> {
    bodies: &'a [Body<'a>],
    target: &'a GpuTarget,
    workgroup: u32,
    arguments: Value,
    code: Value,
    sync: Value,
}

impl Streams<'_> {
    fn emit(&self, k: &mut Builder) {
        let stream = k.workgroup();
        let start = self.word(k, stream);
        k.while_loop(
            [start],
            |k, [record]| {
                let opcode = self.field(k, record, Field::Opcode);
                let end = k.i32(Encoded::END as i32);
                k.cmp(Cmp::Ne, opcode, end)
            },
            |k, [record]| {
                self.wait(k, record);
                self.run(k, record);
                self.signal(k, record);
                [k.add_const(record, RECORD_WORDS as i64)]
            },
        );
        self.end(k);
    }

    /// How many steps have ended. Nobody changes it before all streams have.
    fn step(&self, k: &mut Builder) -> Value {
        let at = k.offset_const(self.sync, SyncLayout::STEP.into());
        k.load_polled(at, Scope::Device)
    }

    /// Word `index` of the code.
    fn word(&self, k: &mut Builder, index: Value) -> Value {
        let at = k.element_u32(self.code, Elem::I32, index);
        let word = k.load_table(at, Elem::I32);
        k.first_lane(word)
    }

    fn field(&self, k: &mut Builder, record: Value, field: Field) -> Value {
        let index = k.add_const(record, field.word() as i64);
        self.word(k, index)
    }

    /// The three words that begin at `index`.
    fn triple(&self, k: &mut Builder, index: Value) -> [Value; Field::TRIPLE] {
        std::array::from_fn(|word| {
            let index = k.add_const(index, word as i64);
            self.word(k, index)
        })
    }

    /// Argument slot `slot`.
    fn argument(&self, k: &mut Builder, slot: Value, elem: Elem) -> Value {
        let at = k.element_u32(self.arguments, Elem::I64, slot);
        k.load_table(at, elem)
    }

    fn is_first(&self, k: &mut Builder) -> Value {
        let (thread, zero) = (k.thread(), k.i32(0));
        k.cmp(Cmp::Eq, thread, zero)
    }

    /// The workgroup waits for what a record waits for.
    fn wait(&self, k: &mut Builder, record: Value) {
        let waits = self.field(k, record, Field::Waits);
        let zero = k.i32(0);
        let any = k.cmp(Cmp::Gt, waits, zero);
        k.if_then(any, |k| {
            let (wave, zero) = (k.wave(self.target), k.i32(0));
            let first = k.cmp(Cmp::Eq, wave, zero);
            k.if_else(
                first,
                |k| {
                    let first = self.is_first(k);
                    k.if_then(first, |k| self.poll(k, record, waits));
                    []
                },
                |k| {
                    self.prefetch(k, record);
                    []
                },
            );
        });
        k.barrier_all();
    }

    /// One work-item waits for all flags of a record.
    fn poll(&self, k: &mut Builder, record: Value, waits: Value) {
        let (step, zero) = (self.step(k), k.i32(0));
        k.for_loop(zero, waits, 1, [], |k, index, []| {
            let before = k.mul_const(index, Field::TRIPLE as i64);
            let at = k.add(record, before);
            let at = k.add_const(at, Field::Wait(0).word() as i64);
            let [flag, value, total] = self.triple(k, at);
            // Flags count through all steps, and wrap: what matters is the distance.
            let before = k.mul(step, total);
            let target = k.add(before, value);
            let flag = k.offset_u32(self.sync, flag);
            let seen = k.load_polled(flag, Scope::Device);
            k.while_loop(
                [seen],
                |k, [seen]| {
                    let distance = k.sub(seen, target);
                    let zero = k.i32(0);
                    k.cmp(Cmp::Lt, distance, zero)
                },
                |k, [_]| {
                    k.pause();
                    [k.load_polled(flag, Scope::Device)]
                },
            );
            []
        });
        k.acquire(Scope::Device);
    }

    /// Waves other than the first bring what a record names into the cache.
    fn prefetch(&self, k: &mut Builder, record: Value) {
        let Ahead { turns, bytes, instruction } = ahead(self.target);
        let count = self.field(k, record, Field::Prefetches);
        let ty = Elem::I32.vec(LOAD_BYTES / 4);
        let mut loaded = vec![];
        for index in 0..MAX_PREFETCHES {
            let number = k.i32(index as i32);
            let there = k.cmp(Cmp::Lt, number, count);
            if instruction {
                k.if_then(there, |k| {
                    for at in self.addresses(k, record, index, turns, bytes) {
                        k.prefetch_l2(at);
                    }
                });
                continue;
            }
            let load = |k: &mut Builder| {
                let addresses = self.addresses(k, record, index, turns, bytes);
                addresses.into_iter().map(|at| k.load_aligned(at, ty, LOAD_BYTES)).collect()
            };
            let none = |k: &mut Builder| (0..turns).map(|_| k.zero(ty)).collect();
            loaded.extend(k.if_values(there, load, none));
        }
        loaded.into_iter().for_each(|value| k.keep(value));
    }

    /// Where in a prefetch of a record this work-item reads, in turns, `bytes` of each turn its own.
    fn addresses(
        &self,
        k: &mut Builder,
        record: Value,
        index: usize,
        turns: u32,
        bytes: u32,
    ) -> Vec<Value> {
        let others = self.workgroup - self.target.wave;
        let thread = k.thread();
        let lane = k.add_const(thread, -i64::from(self.target.wave));
        let lane = k.mul_const(lane, bytes.into());
        let at = k.add_const(record, Field::Prefetch(index).word() as i64);
        let [slot, offset, length] = self.triple(k, at);
        let from = self.argument(k, slot, Elem::Global);
        let from = k.offset_u32(from, offset);
        let last = k.add_const(length, -i64::from(LOAD_BYTES));
        let address = |turn: u32| {
            let offset = k.add_const(lane, (turn * others * bytes).into());
            let offset = k.min(offset, last);
            k.offset_u32(from, offset)
        };
        (0..turns).map(address).collect()
    }

    /// Runs the workgroups of a record.
    fn run(&self, k: &mut Builder, record: Value) {
        let mut opcode = self.field(k, record, Field::Opcode);
        let first_slot = self.field(k, record, Field::Arguments);
        let first = self.field(k, record, Field::First);
        let count = self.field(k, record, Field::Count);
        let end = k.add(first, count);
        for (index, body) in self.bodies.iter().enumerate() {
            let this = k.i32(index as i32);
            // One by one: of a switch the back end makes a flag for each case, in registers.
            opcode = k.opaque_uniform(opcode);
            let here = k.cmp(Cmp::Eq, opcode, this);
            k.if_then(here, |k| {
                k.for_loop(first, end, 1, [], |k, workgroup, []| {
                    // The one before has read what it has in the local data share.
                    k.barrier_shared();
                    let operands = self.operands(k, body, first_slot, workgroup);
                    k.call(&body.name, &operands);
                    []
                });
            });
        }
    }

    /// What a body gets: its arguments, the workgroup, and the work-item. To LLVM they differ from
    /// workgroup to workgroup: what bodies make of them would be kept in registers around the loop.
    fn operands(
        &self,
        k: &mut Builder,
        body: &Body<'_>,
        first_slot: Value,
        workgroup: Value,
    ) -> Vec<Value> {
        let first_slot = k.opaque_uniform_with(first_slot, workgroup);
        let thread = k.thread();
        let thread = k.opaque_with(thread, workgroup);
        let mask = k.i32(self.workgroup.next_power_of_two() as i32 - 1);
        let thread = k.and(thread, mask);
        let roles = body.source.args.iter().enumerate();
        let arguments = roles.map(|(slot, role)| {
            let slot = k.add_const(first_slot, slot as i64);
            let elem = match role {
                ArgRole::Buffer(_) | ArgRole::Scratch => Elem::Global,
                ArgRole::Scalar(_) => Elem::I64,
            };
            self.argument(k, slot, elem)
        });
        let arguments: Vec<Value> = arguments.collect();
        [&arguments[..], &[workgroup, thread]].concat()
    }

    /// Tells that a record's workgroups have ended.
    fn signal(&self, k: &mut Builder, record: Value) {
        let flag = self.field(k, record, Field::Signal);
        let zero = k.i32(0);
        let any = k.cmp(Cmp::Ne, flag, zero);
        k.if_then(any, |k| {
            k.release_of_wave(Scope::Device);
        });
        k.barrier_all();
        k.if_then(any, |k| {
            let first = self.is_first(k);
            k.if_then(first, |k| {
                let count = self.field(k, record, Field::Count);
                let flag = k.offset_u32(self.sync, flag);
                k.atomic_add_release(flag, count, Scope::Device);
            });
        });
    }

    /// The last stream to end makes it a step. Until then not all have ended, so all read the same
    /// number. One work-item reads it and counts, so that no wave of a stream is behind.
    fn end(&self, k: &mut Builder) {
        let first = self.is_first(k);
        k.if_then(first, |k| {
            let step = self.step(k);
            let [ended, steps] = [SyncLayout::ENDED, SyncLayout::STEP]
                .map(|offset| k.offset_const(self.sync, offset.into()));
            let (zero, one) = (k.i32(0), k.i32(1));
            let before = k.atomic_add(ended, one, Scope::Device);
            // The first stream's records begin after a word for each stream.
            let streams = self.word(k, zero);
            let last = k.sub(streams, one);
            let is_last = k.cmp(Cmp::Eq, before, last);
            k.if_then(is_last, |k| {
                k.store_release(zero, ended, Scope::Device);
                let next = k.add(step, one);
                k.store_release(next, steps, Scope::Device);
            });
        });
    }
}
