//! Execution, instruction by instruction: what each wrote, for chosen workgroups, waves and lanes.

use std::any::Any;
use std::fmt::Write as _;
use std::io::Write;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use crate::dispatch::Launch;
use crate::object::Kernel;
use crate::probe::{Access, Kind, Observer, Probe, Space};
use crate::program::Program;
use crate::wave::{AGPR, Group, LANES, Wave, scalar};

/// What a trace shows.
#[derive(Debug, Clone, Default)]
pub struct Selection {
    /// One workgroup, or all.
    pub workgroup: Option<[u32; 3]>,
    /// One wave of each, or all.
    pub wave: Option<u32>,
    /// Lanes whose registers are shown.
    pub lanes: Vec<u32>,
    /// Instructions after which the trace ends; the kernel goes on.
    pub limit: Option<u64>,
}

/// Writes a trace as text.
///
/// Each instruction is a line with workgroup, wave, address (as in the ELF file) and text; lines
/// below it have what it accessed and what the registers hold that it wrote.
pub struct Tracer {
    selection: Selection,
    sink: Arc<Mutex<Sink>>,
}

struct Sink {
    out: Box<dyn Write + Send>,
    left: u64,
    /// The first write that failed; nothing is written after it.
    error: Option<std::io::Error>,
}

impl Sink {
    fn put(&mut self, text: &str) {
        if self.error.is_none() {
            self.error = self.out.write_all(text.as_bytes()).err();
        }
    }
}

impl Tracer {
    /// A tracer that writes to `out`.
    pub fn new(selection: Selection, out: Box<dyn Write + Send>) -> Tracer {
        let left = selection.limit.unwrap_or(u64::MAX);
        Tracer { selection, sink: Arc::new(Mutex::new(Sink { out, left, error: None })) }
    }

    /// Writes what is still buffered; the first error of any write.
    pub fn finish(&self) -> std::io::Result<()> {
        let mut sink = self.sink.lock().unwrap_or_else(PoisonError::into_inner);
        match sink.error.take() {
            Some(error) => Err(error),
            None => sink.out.flush(),
        }
    }
}

impl Observer for Tracer {
    fn start_group(&self, kernel: &Kernel, _: &Launch, group: &Group) -> Option<Box<dyn Probe>> {
        if self.selection.workgroup.is_some_and(|wanted| wanted != group.id) {
            return None;
        }
        Some(Box::new(GroupTracer {
            selection: self.selection.clone(),
            sink: self.sink.clone(),
            base: kernel.image_address(),
            accesses: String::new(),
            before: None,
        }))
    }

    fn end_group(&self, _: &Kernel, _: Box<dyn Probe>) {}
}

struct GroupTracer {
    selection: Selection,
    sink: Arc<Mutex<Sink>>,
    base: u64,
    accesses: String,
    /// State before the instruction that is traced now.
    before: Option<Flags>,
}

/// What instructions change without naming it.
#[derive(Clone, Copy, PartialEq)]
struct Flags {
    scc: bool,
    vcc: u64,
    exec: u64,
    m0: u32,
}

impl Flags {
    fn of(wave: &Wave) -> Flags {
        Flags {
            scc: wave.scc,
            vcc: wave.mask(scalar::VCC),
            exec: wave.exec(),
            m0: wave.sgpr[scalar::M0],
        }
    }
}

impl GroupTracer {
    fn put(&self, text: &str) {
        self.sink.lock().unwrap_or_else(PoisonError::into_inner).put(text);
    }

    /// Takes one instruction from what is left to be shown.
    fn take(&self, wave: &Wave) -> bool {
        if self.selection.wave.is_some_and(|wanted| wanted != wave.id) {
            return false;
        }
        let mut sink = self.sink.lock().unwrap_or_else(PoisonError::into_inner);
        let some = sink.left > 0;
        sink.left = sink.left.saturating_sub(1);
        some
    }

    fn lanes(&self, mask: u64) -> impl Iterator<Item = usize> + '_ {
        let on = move |lane: &&u32| **lane < LANES as u32 && mask >> **lane & 1 != 0;
        self.selection.lanes.iter().filter(on).map(|lane| *lane as usize)
    }

    /// The registers of `rows`, in the lanes that are shown and were on.
    fn vector(&self, wave: &Wave, rows: &Range<u16>, exec: u64) -> String {
        let mut text = String::new();
        for lane in self.lanes(exec) {
            let _ = write!(text, " {lane}=");
            for (index, row) in rows.clone().rev().enumerate() {
                let separator = if index > 0 { "_" } else { "" };
                let bits = wave.rows.get(usize::from(row)).map_or(0, |row| row.0[lane]);
                let _ = write!(text, "{separator}{bits:08x}");
            }
        }
        text
    }
}

/// `v3`, `a[0:3]`, `s[4:5]`, `vcc`.
fn register_name(file: char, range: &Range<u16>) -> String {
    let (file, first) = match (file, usize::from(range.start)) {
        ('v', row) if row >= AGPR => ('a', row - AGPR),
        ('s', scalar::VCC) => return "vcc".to_string(),
        ('s', scalar::EXEC) => return "exec".to_string(),
        ('s', scalar::M0) => return "m0".to_string(),
        (file, first) => (file, first),
    };
    match range.len() {
        1 => format!("{file}{first}"),
        count => format!("{file}[{first}:{}]", first + count - 1),
    }
}

impl Probe for GroupTracer {
    fn before(&mut self, program: &Program, pc: u32, wave: &Wave, group: &Group) {
        self.before = None;
        if !self.take(wave) {
            return;
        }
        self.before = Some(Flags::of(wave));
        self.accesses.clear();
        let [x, y, z] = group.id;
        let address = program.address_of(pc).wrapping_sub(self.base);
        let text = program.asm.get(pc as usize).map_or("end of the code", |asm| &asm.text);
        self.put(&format!("({x},{y},{z}) w{} {address:06x}: {text}\n", wave.id));
    }

    fn after(&mut self, program: &Program, pc: u32, wave: &Wave, _: &Group) {
        let Some(before) = self.before.take() else { return };
        let mut text = std::mem::take(&mut self.accesses);
        let effects = &program.effects()[pc as usize];
        for rows in &effects.vector_writes {
            let values = self.vector(wave, rows, before.exec);
            if !values.is_empty() {
                let _ = writeln!(text, "    {}:{values}", register_name('v', rows));
            }
        }
        let hidden = |range: &&Range<u16>| usize::from(range.end) <= scalar::VCC;
        for range in effects.scalar_writes.iter().filter(hidden) {
            let words = wave.sgpr[usize::from(range.start)..usize::from(range.end)].iter().rev();
            let words: Vec<String> = words.map(|word| format!("{word:08x}")).collect();
            let _ = writeln!(text, "    {} = {}", register_name('s', range), words.join("_"));
        }
        let after = Flags::of(wave);
        let mut changed = |name: &str, old: u64, new: u64| {
            if old != new {
                let _ = writeln!(text, "    {name} = {new:x}");
            }
        };
        changed("vcc", before.vcc, after.vcc);
        changed("exec", before.exec, after.exec);
        changed("scc", before.scc.into(), after.scc.into());
        changed("m0", before.m0.into(), after.m0.into());
        self.put(&text);
    }

    fn access(&mut self, _: u32, _: &Wave, access: &Access<'_>) {
        if self.before.is_none() {
            return;
        }
        let kind = match access.kind {
            Kind::Load => "load",
            Kind::Store => "store",
            Kind::Atomic => "atomic",
        };
        let space = match access.space {
            Space::Global => "global",
            Space::Lds => "LDS",
            Space::Scratch => "scratch",
        };
        let mut line = format!("    {space} {kind} of {} bytes at", access.bytes);
        let mut any = false;
        for lane in self.lanes(access.lanes) {
            any = true;
            let _ = write!(line, " {lane}={:x}", access.addresses[lane]);
        }
        if any {
            self.accesses += &line;
            self.accesses.push('\n');
        }
    }

    fn barrier(&mut self) {}

    fn wave_ended(&mut self, _: &Wave) {}

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}
