//! What changed between two plans, in words: memory, kernels, launches, predicted time.

use crate::plan::{CodeFacts, Kernel, Plan, Program};
use std::collections::BTreeMap;
use std::fmt::Display;

/// One thing that changed.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Change {
    /// What kind of thing: `plan`, `memory`, `kernel`, `launches` or `predicted`.
    pub area: &'static str,
    /// Which one.
    pub place: String,
    /// What became of it.
    pub what: String,
}

/// What changed from `old` to `new`; nothing where they are equal, and only then.
pub fn diff(old: &Plan, new: &Plan) -> Vec<Change> {
    if old == new {
        return vec![];
    }
    let mut diff = Diff { old, new, changes: vec![] };
    diff.model();
    diff.memory();
    diff.kernels();
    diff.programs();
    diff.predictions();
    if diff.changes.is_empty() {
        diff.add("plan", &new.target, "buffers, arguments or weights differ in detail");
    }
    diff.changes
}

/// Seconds that a step takes at least by the roofline: prefill of a whole chunk, or decode, the KV
/// cache half full. `None` where the hardware is not known.
pub fn predicted_seconds(plan: &Plan, program: &Program) -> Option<f64> {
    let (machine, walk) = (plan.machine?, &plan.decode_loop);
    let is_prefill = plan.programs.get(walk.prefill).is_some_and(|p| p.name == program.name);
    let tokens = if is_prefill { i64::from(plan.model.prefill_chunk) } else { 1 };
    let mut symbols: Vec<i64> = plan.symbols.iter().map(|symbol| symbol.max).collect();
    *symbols.get_mut(walk.step_tokens)? = tokens;
    *symbols.get_mut(walk.cache_length)? = tokens.max(i64::from(plan.model.max_context) / 2);
    let seconds = |launch: &crate::Launch| {
        let work = plan.kernels.get(launch.kernel)?.work.as_ref();
        work.map_or(Some(0.0), |work| machine.seconds(work, &symbols))
    };
    program.launches.iter().map(seconds).sum()
}

struct Diff<'p> {
    old: &'p Plan,
    new: &'p Plan,
    changes: Vec<Change>,
}

impl Diff<'_> {
    fn add(&mut self, area: &'static str, place: impl Into<String>, what: impl Into<String>) {
        self.changes.push(Change { area, place: place.into(), what: what.into() });
    }

    fn change<T: PartialEq + Display>(&mut self, area: &'static str, place: &str, old: T, new: T) {
        if old != new {
            self.add(area, place, format!("{old} -> {new}"));
        }
    }

    fn model(&mut self) {
        let (old, new) = (self.old, self.new);
        self.change("plan", "target", &old.target, &new.target);
        self.change("plan", "model", &old.model.name, &new.model.name);
        self.change("plan", "requires", old.requires.join(", "), new.requires.join(", "));
        self.change("plan", "vocabulary", old.model.vocab, new.model.vocab);
        self.change("plan", "largest context", old.model.max_context, new.model.max_context);
        self.change("plan", "prefill chunk", old.model.prefill_chunk, new.model.prefill_chunk);
        let tokens = |plan: &Plan| format!("{:?}", plan.model.stop_tokens);
        self.change("plan", "stop tokens", tokens(old), tokens(new));
        let per_token = |plan: &Plan| plan.model.weight_bytes_per_token;
        self.change("plan", "bytes of weights per token", per_token(old), per_token(new));
        let decode = |plan: &Plan| match &plan.persistent {
            None => "launches".to_string(),
            Some(step) => format!("one kernel of {} workgroups", step.streams.len()),
        };
        self.change("plan", "decode step", decode(old), decode(new));
    }

    fn memory(&mut self) {
        let (old, new) = (self.old, self.new);
        let layout = |plan: &Plan| plan.layout(plan.model.max_context).ok();
        if let (Some(a), Some(b)) = (layout(old), layout(new)) {
            self.change("memory", "constants", a.constants, b.constants);
            self.change("memory", "arena", a.arena, b.arena);
            self.change("memory", "state", a.state, b.state);
            self.change("memory", "io", a.io, b.io);
        }
        self.change("memory", "scratch", old.scratch_bytes, new.scratch_bytes);
        let bound = |plan: &Plan| plan.memory.arena_lower_bound;
        self.change("memory", "lower bound of the arena", bound(old), bound(new));
        self.change("memory", "buffers", old.buffers.len(), new.buffers.len());
    }

    fn kernels(&mut self) {
        let (old, new) = (self.old, self.new);
        for kernel in &old.kernels {
            match new.kernels.iter().find(|other| other.name == kernel.name) {
                None => self.add("kernel", &kernel.name, format!("removed: {}", kernel.summary)),
                Some(other) => self.kernel(kernel, other),
            }
        }
        for kernel in &new.kernels {
            if !old.kernels.iter().any(|other| other.name == kernel.name) {
                self.add("kernel", &kernel.name, format!("added: {}", kernel.summary));
            }
        }
    }

    fn kernel(&mut self, old: &Kernel, new: &Kernel) {
        let name = &old.name;
        let mut changes = vec![];
        let mut change = |what: &str, a: String, b: String| {
            if a != b {
                changes.push(format!("{what} {a} -> {b}"));
            }
        };
        change("computes", old.summary.clone(), new.summary.clone());
        change("workgroup", old.workgroup.to_string(), new.workgroup.to_string());
        let facts = |kernel: &Kernel| kernel.facts.clone().unwrap_or_default();
        for ((what, a), (_, b)) in figures(&facts(old)).into_iter().zip(figures(&facts(new))) {
            change(what, a.to_string(), b.to_string());
        }
        let work = |kernel: &Kernel, symbols: &[crate::Symbol]| match &kernel.work {
            None => String::new(),
            Some(work) => work.bytes.display(symbols).to_string(),
        };
        change("bytes", work(old, &self.old.symbols), work(new, &self.new.symbols));
        if !changes.is_empty() {
            self.add("kernel", name, changes.join(", "));
        }
    }

    fn programs(&mut self) {
        let (old, new) = (self.old, self.new);
        for program in &old.programs {
            let Some(other) = new.programs.iter().find(|other| other.name == program.name) else {
                self.add("launches", &program.name, "removed");
                continue;
            };
            self.change("launches", &program.name, program.launches.len(), other.launches.len());
            let [a, b] = [(old, program), (new, other)].map(|(plan, p)| by_kernel(plan, p));
            for kernel in a.keys().chain(b.keys().filter(|name| !a.contains_key(*name))) {
                let text = |counts: &BTreeMap<String, String>| {
                    counts.get(kernel).cloned().unwrap_or_else(|| "none".to_string())
                };
                let place = format!("{} of {kernel}", program.name);
                self.change("launches", &place, text(&a), text(&b));
            }
        }
    }

    fn predictions(&mut self) {
        for program in &self.old.programs {
            let other = self.new.programs.iter().find(|other| other.name == program.name);
            let a = predicted_seconds(self.old, program);
            let b = other.and_then(|other| predicted_seconds(self.new, other));
            if let (Some(a), Some(b)) = (a, b)
                && a != b
            {
                let what = format!("{:.1} us -> {:.1} us", a * 1e6, b * 1e6);
                self.add("predicted", &program.name, what);
            }
        }
    }
}

/// Launches of each kernel, and their grids.
fn by_kernel(plan: &Plan, program: &Program) -> BTreeMap<String, String> {
    let mut launches: BTreeMap<String, (usize, Vec<String>)> = BTreeMap::new();
    for launch in &program.launches {
        let kernel = plan.kernels.get(launch.kernel).map_or("?", |kernel| &kernel.name);
        let (count, grids) = launches.entry(kernel.to_string()).or_default();
        let grid = launch.grid.display(&plan.symbols).to_string();
        *count += 1;
        if !grids.contains(&grid) {
            grids.push(grid);
        }
    }
    let text = |(count, grids): (usize, Vec<String>)| format!("{count} x {}", grids.join(" or "));
    launches.into_iter().map(|(kernel, found)| (kernel, text(found))).collect()
}

/// What is known of a kernel's code, by name.
fn figures(facts: &CodeFacts) -> [(&'static str, u32); 8] {
    [
        ("vector registers", facts.vgprs),
        ("scalar registers", facts.sgprs),
        ("spills", facts.spills),
        ("private bytes", facts.private_bytes),
        ("LDS bytes", facts.lds_bytes),
        ("waves per SIMD", facts.waves_per_simd),
        ("planned waves", facts.planned_waves_per_simd),
        ("instructions", facts.instructions),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Machine, Work, toy};
    use insta::assert_snapshot;

    fn told(change: impl FnOnce(&mut Plan)) -> String {
        let mut old = toy::plan();
        old.machine = Some(Machine { bandwidth: 1e9, matrix_rate: 1e12 });
        old.kernels[0].work = Some(Work { bytes: 1000.into(), operations: 10.into() });
        let mut new = old.clone();
        change(&mut new);
        let lines = diff(&old, &new);
        let lines = lines.iter().map(|c| format!("{} {}: {}", c.area, c.place, c.what));
        lines.collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn every_change_is_told() {
        assert_eq!(told(|_| {}), "");
        assert_snapshot!(told(|p| p.scratch_bytes = 512), @"memory scratch: 256 -> 512");
        assert_snapshot!(told(|p| p.buffers[0].name = "other".into()), @"plan cpu: buffers, arguments or weights differ in detail");
        assert_snapshot!(told(|p| {
            p.kernels[0].work = Some(Work { bytes: 2000.into(), operations: 10.into() });
            p.kernels[0].facts = Some(CodeFacts { vgprs: 40, spills: 2, ..CodeFacts::default() });
        }), @r"
        kernel append_0: vector registers 0 -> 40, spills 0 -> 2, bytes 1000 -> 2000
        predicted prefill: 1.0 us -> 2.0 us
        predicted decode: 1.0 us -> 2.0 us
        ");
        assert_snapshot!(told(|p| {
            p.kernels[1].name = "predict_2".into();
            p.programs[0].launches[0].grid = 7.into();
            p.programs[1].launches.pop();
        }), @r"
        kernel predict_1: removed: logits [1,10]
        kernel predict_2: added: logits [1,10]
        launches prefill of append_0: 1 x T -> 1 x 7
        launches prefill of predict_1: 1 x 10 -> none
        launches prefill of predict_2: none -> 1 x 10
        launches decode: 3 -> 2
        launches decode of predict_1: 1 x 10 -> none
        launches decode of sample_2: 1 x 1 -> none
        launches decode of predict_2: none -> 1 x 10
        ");
    }
}
