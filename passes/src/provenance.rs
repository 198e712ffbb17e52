//! Where instructions come from: which instructions of the imported module each one was made of.
//!
//! The IR has no source locations, and a pass need not know about origins. It says one thing, which
//! it knows anyway: which values of its result are values that were there before ([`ValueMap`]).
//! The rest follows from the two functions: an instruction stands for all that was computed between
//! the values that it reads and those that it makes.

use crate::pass::PassEvent;
use std::collections::{BTreeMap, BTreeSet};
use waveloom_ir::{Function, InstId, Module, ValueId};

/// By value of a function: the values of an earlier form of it that it equals; none where it is
/// new.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct ValueMap(Vec<Vec<ValueId>>);

impl ValueMap {
    /// Every value of `function` is what it was.
    pub fn identity(function: &Function) -> ValueMap {
        let values = 0..function.values.len() as u32;
        ValueMap(values.map(|value| vec![ValueId(value)]).collect())
    }

    /// A map of `count` new values.
    pub(crate) fn of_new(count: usize) -> ValueMap {
        ValueMap(vec![vec![]; count])
    }

    /// Records that `now` equals `before`.
    pub(crate) fn equate(&mut self, now: ValueId, before: ValueId) {
        if let Some(known) = self.0.get_mut(now.index())
            && !known.contains(&before)
        {
            known.push(before);
        }
    }

    /// What `value` was before.
    pub fn before(&self, value: ValueId) -> &[ValueId] {
        self.0.get(value.index()).map_or(&[], Vec::as_slice)
    }

    /// This map, then `later`: from the values after both to those before both.
    pub fn then(&self, later: &ValueMap) -> ValueMap {
        let mut both = ValueMap::of_new(later.0.len());
        for (now, between) in later.0.iter().enumerate() {
            for before in between.iter().flat_map(|&value| self.before(value)) {
                both.equate(ValueId(now as u32), *before);
            }
        }
        both
    }

    /// By instruction of `after`: the instructions of `before` that it stands for.
    pub fn origins(&self, before: &Function, after: &Function) -> Vec<BTreeSet<InstId>> {
        Origins { map: self, before: producers(before), function: before }.of(after)
    }
}

/// By value: the instruction that makes it; none for parameters.
fn producers(function: &Function) -> Vec<Option<InstId>> {
    let mut producers = vec![None; function.values.len()];
    for (inst, index) in function.insts.iter().zip(0..) {
        for result in &inst.results {
            producers[result.index()] = Some(InstId(index));
        }
    }
    producers
}

/// Finds origins in an earlier form of a function.
struct Origins<'a> {
    map: &'a ValueMap,
    function: &'a Function,
    before: Vec<Option<InstId>>,
}

impl Origins<'_> {
    fn of(&self, after: &Function) -> Vec<BTreeSet<InstId>> {
        let after_producers = producers(after);
        let is_new = |inst: InstId| {
            let results = &after.insts[inst.index()].results;
            results.iter().all(|&value| self.map.before(value).is_empty())
        };
        // What an instruction reads, as values that were there before: new instructions in between
        // belong to their readers.
        let mut reads: Vec<BTreeSet<ValueId>> = vec![];
        for inst in &after.insts {
            let mut before = BTreeSet::new();
            for &operand in &inst.operands {
                match after_producers[operand.index()].filter(|&id| is_new(id)) {
                    Some(id) => before.extend(&reads[id.index()]),
                    None => before.extend(self.map.before(operand)),
                }
            }
            reads.push(before);
        }
        let mut origins: Vec<BTreeSet<InstId>> = vec![BTreeSet::new(); after.insts.len()];
        for (index, inst) in after.insts.iter().enumerate().rev() {
            let made = inst.results.iter().flat_map(|&value| self.map.before(value));
            let found = self.between(&reads[index], made.copied());
            origins[index].extend(found);
            let readers = inst.operands.iter().filter_map(|v| after_producers[v.index()]);
            for new in readers.filter(|&id| is_new(id)) {
                let of_reader = origins[index].clone();
                origins[new.index()].extend(of_reader);
            }
        }
        origins
    }

    /// All that was computed to make values, from values that were there.
    fn between(
        &self,
        read: &BTreeSet<ValueId>,
        made: impl Iterator<Item = ValueId>,
    ) -> BTreeSet<InstId> {
        let mut found = BTreeSet::new();
        let mut open: Vec<ValueId> = made.collect();
        while let Some(value) = open.pop() {
            let Some(id) = self.before[value.index()] else { continue };
            if found.insert(id) {
                let operands = &self.function.insts[id.index()].operands;
                open.extend(operands.iter().filter(|&operand| !read.contains(operand)));
            }
        }
        found
    }
}

/// Follows the functions of a module from pass to pass.
pub struct Provenance {
    imported: BTreeMap<String, Function>,
    /// By function: its values as values of the imported function of that name.
    maps: BTreeMap<String, ValueMap>,
}

impl Provenance {
    /// Before the first pass.
    pub fn new(imported: &Module) -> Provenance {
        let named = |f: &Function| (f.name.clone(), f.clone());
        let identity = |f: &Function| (f.name.clone(), ValueMap::identity(f));
        Provenance {
            imported: imported.functions.iter().map(named).collect(),
            maps: imported.functions.iter().map(identity).collect(),
        }
    }

    /// After a pass.
    pub fn follow(&mut self, event: &PassEvent<'_>) {
        for (name, map) in &mut self.maps {
            if let Some(step) = event.report.values.get(name) {
                *map = map.then(step);
            }
        }
    }

    /// By instruction of a function of the module as it is now: the instructions of the imported
    /// function of the same name that it stands for; nothing for functions that were not imported.
    pub fn origins(&self, function: &Function) -> Vec<BTreeSet<InstId>> {
        let imported = self.imported.get(&function.name).zip(self.maps.get(&function.name));
        let nothing = || vec![BTreeSet::new(); function.insts.len()];
        imported.map_or_else(nothing, |(imported, map)| map.origins(imported, function))
    }
}
