//! What changed between two modules, in words.
//!
//! Functions are matched by name, their instructions in order: by what they are, not by the numbers of
//! their values. Of an instruction that stayed the attributes that changed are told, and where it reads
//! something else.

use crate::module::{Function, Inst, Module, ValueId};
use crate::text::{print_attributes, print_type};
use std::collections::{BTreeMap, HashMap};

/// One thing that changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// What kind of thing: `module`, `symbol`, `weight`, `function` or `op`.
    pub area: &'static str,
    /// Which one.
    pub place: String,
    /// What became of it.
    pub what: String,
}

/// Pairs of instructions beyond which only their numbers are compared.
const MOST_PAIRS: usize = 16 << 20;

/// What changed from `old` to `new`; nothing where they are equal, and only then.
pub fn diff(old: &Module, new: &Module) -> Vec<Change> {
    let mut diff = Diff { old, new, changes: vec![] };
    if old == new {
        return vec![];
    }
    diff.module();
    diff.weights();
    diff.functions();
    if diff.changes.is_empty() {
        diff.add("module", &new.name, "names of values differ, or the order of declarations");
    }
    diff.changes
}

struct Diff<'m> {
    old: &'m Module,
    new: &'m Module,
    changes: Vec<Change>,
}

impl<'m> Diff<'m> {
    fn add(&mut self, area: &'static str, place: impl Into<String>, what: impl Into<String>) {
        self.changes.push(Change { area, place: place.into(), what: what.into() });
    }

    /// What became of things that have a name and can be told by a text.
    fn named(
        &mut self,
        area: &'static str,
        old: impl Iterator<Item = (&'m str, String)>,
        new: impl Iterator<Item = (&'m str, String)>,
    ) {
        let old: BTreeMap<&str, String> = old.collect();
        let new: BTreeMap<&str, String> = new.collect();
        for (name, text) in &old {
            match new.get(name) {
                None => self.add(area, *name, format!("removed: {text}")),
                Some(other) if other != text => {
                    self.add(area, *name, format!("{text} -> {other}"));
                }
                Some(_) => {}
            }
        }
        for (name, text) in new.iter().filter(|(name, _)| !old.contains_key(*name)) {
            self.add(area, *name, format!("added: {text}"));
        }
    }

    fn module(&mut self) {
        let (old, new) = (self.old, self.new);
        if old.name != new.name {
            self.add("module", &old.name, format!("is called {}", new.name));
        }
        let notes = |module: &'m Module| {
            module.notes.iter().map(|(name, value)| (name.as_str(), format!("{value:?}")))
        };
        self.named("note", notes(old), notes(new));
        let symbols = |module: &'m Module| {
            let bounds = |s: &'m crate::Symbol| (s.name.as_str(), format!("{}..={}", s.min, s.max));
            module.symbols.iter().map(bounds)
        };
        self.named("symbol", symbols(old), symbols(new));
    }

    fn weights(&mut self) {
        let weights = |module: &'m Module| {
            module.weights.iter().map(move |weight| {
                let mut text = print_type(module, &weight.ty);
                if weight.stored != weight.ty.dtype {
                    text += &format!(" from {}", weight.stored);
                }
                if let Some(digest) = weight.digest {
                    text += &format!(" blake3 {}", &digest.to_string()[..12]);
                }
                (weight.name.as_str(), text)
            })
        };
        self.named("weight", weights(self.old), weights(self.new));
    }

    fn functions(&mut self) {
        let (old, new) = (self.old, self.new);
        for function in &old.functions {
            match new.functions.iter().find(|other| other.name == function.name) {
                None => self.add("function", at(function), "removed"),
                Some(other) => self.function(function, other),
            }
        }
        for function in &new.functions {
            if old.function(&function.name).is_none() {
                self.add("function", at(function), "added");
            }
        }
    }

    fn function(&mut self, old: &'m Function, new: &'m Function) {
        let signature = |module: &Module, function: &Function| {
            let types = |values: &[ValueId]| {
                let types = values.iter().map(|&v| print_type(module, function.ty(v)));
                types.collect::<Vec<_>>().join(", ")
            };
            format!("({}) -> ({})", types(&function.params), types(&function.results))
        };
        let (a, b) = (signature(self.old, old), signature(self.new, new));
        if a != b {
            self.add("function", at(old), format!("{a} -> {b}"));
        }
        if let Some(text) = counts(old, new) {
            self.add("function", at(old), text);
        }
        if old.insts.len().saturating_mul(new.insts.len()) <= MOST_PAIRS {
            self.insts(old, new);
        }
    }

    fn insts(&mut self, old: &'m Function, new: &'m Function) {
        let [olds, news] = [(self.old, old), (self.new, new)].map(|(module, function)| {
            let signatures =
                function.insts.iter().map(|inst| Signature::new(module, function, inst));
            signatures.collect::<Vec<_>>()
        });
        let pairs = matches(&olds, &news);
        let mut values: HashMap<ValueId, ValueId> =
            old.params.iter().copied().zip(new.params.iter().copied()).collect();
        for &(i, j) in &pairs {
            let results = old.insts[i].results.iter().copied();
            values.extend(results.zip(new.insts[j].results.iter().copied()));
        }
        let returned = |a: &[ValueId], b: &[ValueId]| {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| values.get(a) == Some(b))
        };
        if !returned(&old.results, &new.results) {
            self.add("function", at(old), "returns other values");
        }
        let paired_old: Vec<Option<usize>> = partners(&pairs, olds.len());
        let reversed: Vec<(usize, usize)> = pairs.iter().map(|&(i, j)| (j, i)).collect();
        let paired_new = partners(&reversed, news.len());
        for (i, signature) in olds.iter().enumerate() {
            let place = place(old, &old.insts[i]);
            match paired_old[i] {
                None => self.add("op", place, format!("removed: {signature}")),
                Some(j) => self.inst(place, (signature, &news[j]), (old, i), (new, j), &values),
            }
        }
        for (j, signature) in news.iter().enumerate().filter(|(j, _)| paired_new[*j].is_none()) {
            self.add("op", place(new, &new.insts[j]), format!("added: {signature}"));
        }
    }

    /// An instruction that stayed.
    fn inst(
        &mut self,
        place: String,
        (a, b): (&Signature, &Signature),
        (old, i): (&Function, usize),
        (new, j): (&Function, usize),
        values: &HashMap<ValueId, ValueId>,
    ) {
        for what in a.changes(b) {
            self.add("op", place.clone(), what);
        }
        let (old, new) = (&old.insts[i], &new.insts[j]);
        // What it reads of instructions that are not there any more is told with them.
        let moved = old.operands.iter().zip(&new.operands).enumerate();
        for (index, (a, b)) in moved.filter(|(_, (a, b))| values.get(a).is_some_and(|v| v != *b)) {
            self.add("op", place.clone(), format!("operand {index} is {b} instead of {a}"));
        }
    }
}

/// By index of the first of each pair: the second.
fn partners(pairs: &[(usize, usize)], len: usize) -> Vec<Option<usize>> {
    let mut partners = vec![None; len];
    for &(i, j) in pairs {
        partners[i] = Some(j);
    }
    partners
}

fn at(function: &Function) -> String {
    format!("@{}", function.name)
}

/// `@layer %7`.
fn place(function: &Function, inst: &Inst) -> String {
    let results: Vec<String> = inst.results.iter().map(ValueId::to_string).collect();
    format!("@{} {} {}", function.name, results.join(", "), inst.op.mnemonic())
}

/// How often each op occurs, where that changed.
fn counts(old: &Function, new: &Function) -> Option<String> {
    let mut counts: BTreeMap<&str, [usize; 2]> = BTreeMap::new();
    for (side, function) in [old, new].into_iter().enumerate() {
        for inst in &function.insts {
            counts.entry(inst.op.mnemonic()).or_default()[side] += 1;
        }
    }
    let changed = counts.iter().filter(|(_, [a, b])| a != b);
    let changed: Vec<String> = changed.map(|(op, [a, b])| format!("{op} {a} -> {b}")).collect();
    let [a, b] = [old, new].map(|function| function.insts.len());
    (!changed.is_empty()).then(|| format!("{a} -> {b} ops: {}", changed.join(", ")))
}

/// What an instruction is, whatever its values are called.
#[derive(PartialEq, Eq)]
struct Signature {
    op: &'static str,
    attributes: Vec<(String, String)>,
    types: String,
    operands: usize,
}

impl Signature {
    fn new(module: &Module, function: &Function, inst: &Inst) -> Signature {
        let types = inst.results.iter().map(|&v| print_type(module, function.ty(v)));
        Signature {
            op: inst.op.mnemonic(),
            attributes: fields(&print_attributes(module, &inst.op)),
            types: types.collect::<Vec<_>>().join(", "),
            operands: inst.operands.len(),
        }
    }

    fn changes(&self, new: &Signature) -> Vec<String> {
        let mut changes = vec![];
        let value = |fields: &[(String, String)], name: &str| {
            fields.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone())
        };
        for (name, old) in &self.attributes {
            match value(&new.attributes, name) {
                None => changes.push(format!("no longer says {name} = {old}")),
                Some(new) if new != *old => {
                    changes.push(format!("{name}: {}", change_of(old, &new)));
                }
                Some(_) => {}
            }
        }
        for (name, value) in &new.attributes {
            if !self.attributes.iter().any(|(known, _)| known == name) {
                changes.push(format!("says {name} = {value}"));
            }
        }
        if self.types != new.types {
            changes.push(format!("gives {} instead of {}", new.types, self.types));
        }
        if self.operands != new.operands {
            changes.push(format!("{} -> {} operands", self.operands, new.operands));
        }
        changes
    }
}

impl std::fmt::Display for Signature {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.op)?;
        let fields = self.attributes.iter().map(|(name, value)| format!("{name} = {value}"));
        let fields = fields.collect::<Vec<_>>().join(", ");
        if !fields.is_empty() {
            write!(f, " {{{fields}}}")?;
        }
        write!(f, " : {}", self.types)
    }
}

/// `rows 64 -> 128` where both are sizes of one generator, else the two values.
fn change_of(old: &str, new: &str) -> String {
    let parts = |text: &str| -> Option<(String, Vec<(String, String)>)> {
        let (name, rest) = text.split_once('(')?;
        let inside = rest.strip_suffix(')')?;
        inside.contains('=').then(|| (name.to_string(), fields(inside)))
    };
    let (Some((a, olds)), Some((b, news))) = (parts(old), parts(new)) else {
        return format!("{old} -> {new}");
    };
    let same = olds.iter().map(|(name, _)| name).eq(news.iter().map(|(name, _)| name));
    if a != b || !same {
        return format!("{old} -> {new}");
    }
    let changed = olds.iter().zip(&news).filter(|((_, a), (_, b))| a != b);
    let changed = changed.map(|((name, a), (_, b))| format!("{name} {a} -> {b}"));
    changed.collect::<Vec<_>>().join(", ")
}

/// `a = 1, b = [2, 3]` taken apart.
fn fields(text: &str) -> Vec<(String, String)> {
    let (mut depth, mut start, mut parts) = (0i32, 0, vec![]);
    for (at, c) in text.char_indices() {
        match c {
            '(' | '[' => depth += 1,
            ')' | ']' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(&text[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[start..]);
    let field = |part: &str| {
        let (name, value) = part.split_once('=')?;
        Some((name.trim().to_string(), value.trim().to_string()))
    };
    parts.into_iter().filter_map(field).collect()
}

/// Pairs of indices of instructions that stayed, in order: the longest common subsequence, and between
/// its members those of equal ops, in order.
fn matches(old: &[Signature], new: &[Signature]) -> Vec<(usize, usize)> {
    let mut pairs = common(old, new);
    let mut all = vec![];
    pairs.push((old.len(), new.len()));
    let (mut i, mut j) = (0, 0);
    for (next_i, next_j) in pairs {
        let mut from = j;
        for (a, signature) in old.iter().enumerate().take(next_i).skip(i) {
            let same = |b: &usize| new[*b].op == signature.op;
            if let Some(b) = (from..next_j).find(same) {
                all.push((a, b));
                from = b + 1;
            }
        }
        if next_i < old.len() {
            all.push((next_i, next_j));
        }
        (i, j) = (next_i + 1, next_j + 1);
    }
    all
}

/// The longest common subsequence, as pairs of indices.
fn common(old: &[Signature], new: &[Signature]) -> Vec<(usize, usize)> {
    let width = new.len() + 1;
    let mut lengths = vec![0u32; (old.len() + 1) * width];
    for i in (0..old.len()).rev() {
        for j in (0..new.len()).rev() {
            lengths[i * width + j] = if old[i] == new[j] {
                lengths[(i + 1) * width + j + 1] + 1
            } else {
                lengths[(i + 1) * width + j].max(lengths[i * width + j + 1])
            };
        }
    }
    let (mut i, mut j, mut pairs) = (0, 0, vec![]);
    while i < old.len() && j < new.len() {
        if old[i] == new[j] {
            pairs.push((i, j));
            (i, j) = (i + 1, j + 1);
        } else if lengths[(i + 1) * width + j] >= lengths[i * width + j + 1] {
            i += 1;
        } else {
            j += 1;
        }
    }
    pairs
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parse;
    use insta::assert_snapshot;

    const TEXT: &str = r#"module @m {
  note after = "choose-tiles"
  symbol T in 1..=4
  weight @w : f32[16, 8]
  func @layer(%0: f32[T, 8], %1: f32[T, 16]) -> (f32[T, 16]) {
    %2 = weight {weight = @w} : f32[16, 8]
    %3 = gemm %0, %2 {weights = 1, outputs = [#0], prefill_tiles = matrix(rows = 64, columns = 16)} : f32[T, 16]
    %4 = map %3, %1 {expr = (add $0 $1)} : f32[T, 16]
    return %4
  }
  func @unused(%0: f32[T, 8]) -> (f32[T, 8]) {
    return %0
  }
}"#;

    fn told(changes: &[(&str, &str)]) -> String {
        let mut text = TEXT.to_string();
        for (from, to) in changes {
            assert!(text.contains(from), "{from}");
            text = text.replacen(from, to, 1);
        }
        let changes = diff(&parse(TEXT).unwrap(), &parse(&text).unwrap());
        let lines = changes.iter().map(|c| format!("{} {}: {}", c.area, c.place, c.what));
        lines.collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn equal_modules_have_no_changes() {
        assert_eq!(told(&[]), "");
        // Numbers of values are no change, names of values are one.
        assert_eq!(told(&[("%2 =", "%9 ="), ("%0, %2 {", "%0, %9 {")]), "");
        assert_snapshot!(told(&[("%2 =", "%2 \"w\" =")]), @"module m: names of values differ, or the order of declarations");
    }

    #[test]
    fn every_change_is_told() {
        assert_snapshot!(told(&[("rows = 64", "rows = 32")]), @"op @layer %3 gemm: prefill_tiles: rows 64 -> 32");
        assert_snapshot!(told(&[("rows = 64, ", "")]), @"op @layer %3 gemm: prefill_tiles: matrix(rows = 64, columns = 16) -> matrix(columns = 16)");
        assert_snapshot!(told(&[("add $0", "mul $0")]), @"op @layer %4 map: expr: (add $0 $1) -> (mul $0 $1)");
        assert_snapshot!(told(&[("%4 = map %3, %1", "%4 = map %1, %3")]), @r"
        op @layer %4 map: operand 0 is %1 instead of %3
        op @layer %4 map: operand 1 is %3 instead of %1
        ");
        assert_snapshot!(told(&[("return %4", "return %1")]), @"function @layer: returns other values");
        assert_snapshot!(told(&[
            ("    %4 = map %3, %1 {expr = (add $0 $1)} : f32[T, 16]\n", ""),
            ("return %4", "return %3"),
        ]), @r"
        function @layer: 3 -> 2 ops: map 1 -> 0
        function @layer: returns other values
        op @layer %4 map: removed: map {expr = (add $0 $1)} : f32[T, 16]
        ");
        assert_snapshot!(told(&[
            ("after = \"choose-tiles\"", "after = \"raise\""),
            ("1..=4", "1..=8"),
            ("@w : f32[16, 8]", "@w : f32[16, 8] from f16"),
            ("@unused", "@other"),
        ]), @r#"
        note after: "choose-tiles" -> "raise"
        symbol T: 1..=4 -> 1..=8
        weight w: f32[16, 8] -> f32[16, 8] from f16
        function @unused: removed
        function @other: added
        "#);
    }
}
