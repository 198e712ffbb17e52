//! Rewrites a function in place: instructions are inserted anywhere, uses are replaced, what is dead
//! goes, and the end puts everything into an order in which operands are defined before their uses.

use crate::pass::{PassError, PassOptions, PassReport};
use crate::provenance::ValueMap;
use std::collections::BTreeSet;
use waveloom_ir::{Function, Inst, InstId, Module, Op, Type, Value, ValueId, infer};

/// Applies `rewrite` to every function of the module, within the limits of the options.
pub fn edit_functions(
    pass: &'static str,
    mut module: Module,
    options: &PassOptions,
    mut rewrite: impl FnMut(&mut Editor<'_>, &mut PassReport) -> Result<(), PassError>,
) -> Result<(Module, PassReport), PassError> {
    let mut report = PassReport::default();
    for index in 0..module.functions.len() {
        let mut editor = Editor::new(pass, &module, module.functions[index].clone());
        editor.limit = options.rules.max_rewrites.unwrap_or(u64::MAX);
        rewrite(&mut editor, &mut report)?;
        let (function, values) = editor.finish()?;
        report.values.insert(function.name.clone(), values);
        module.functions[index] = function;
    }
    Ok((module, report))
}

/// A function under change.
pub struct Editor<'m> {
    pass: &'static str,
    module: &'m Module,
    function: Function,
    /// By value: the instruction and the index among its results; `None` for parameters.
    producers: Vec<Option<(InstId, usize)>>,
    /// By value: the instructions that use it, once per use.
    users: Vec<Vec<InstId>>,
    /// By instruction: where it belongs: position in the original program, then order of insertion.
    keys: Vec<(usize, usize)>,
    removed: Vec<bool>,
    /// By value: the values of the original function that it equals.
    originals: Vec<Vec<ValueId>>,
    /// Rewrites that may be applied in the whole run.
    limit: u64,
}

impl<'m> Editor<'m> {
    fn new(pass: &'static str, module: &'m Module, function: Function) -> Self {
        let mut producers = vec![None; function.values.len()];
        let mut users = vec![vec![]; function.values.len()];
        for (index, inst) in function.insts.iter().enumerate() {
            let id = InstId(index as u32);
            for (i, result) in inst.results.iter().enumerate() {
                producers[result.index()] = Some((id, i));
            }
            for operand in &inst.operands {
                users[operand.index()].push(id);
            }
        }
        let keys = (0..function.insts.len()).map(|i| (i, 0)).collect();
        let removed = vec![false; function.insts.len()];
        let values = 0..function.values.len() as u32;
        let originals = values.map(|value| vec![ValueId(value)]).collect();
        let limit = u64::MAX;
        Editor { pass, module, function, producers, users, keys, removed, originals, limit }
    }

    /// Applies `rewrite`, which names what it did, to every instruction, new ones included, until
    /// nothing changes any more.
    pub fn until_stable(
        &mut self,
        report: &mut PassReport,
        rewrite: impl Fn(&mut Self, InstId) -> Result<Option<&'static str>, PassError>,
    ) -> Result<(), PassError> {
        let mut changed = true;
        while std::mem::take(&mut changed) {
            let mut index = 0;
            while index < self.len() {
                if report.total() >= self.limit {
                    return Ok(());
                }
                if let Some(name) = rewrite(self, InstId(index as u32))? {
                    report.count(name);
                    changed = true;
                }
                index += 1;
            }
        }
        Ok(())
    }

    /// Whether `a` belongs before `b` in program order.
    pub fn comes_before(&self, a: InstId, b: InstId) -> bool {
        self.keys[a.index()] < self.keys[b.index()]
    }

    /// How many instructions there are, removed ones included.
    fn len(&self) -> usize {
        self.function.insts.len()
    }

    /// The instruction, unless it was removed.
    pub fn inst(&self, id: InstId) -> Option<&Inst> {
        match self.removed.get(id.index()) {
            Some(false) => self.function.insts.get(id.index()),
            _ => None,
        }
    }

    /// The type of a value.
    pub fn ty(&self, value: ValueId) -> &Type {
        self.function.ty(value)
    }

    /// The instruction that makes `value`, and as which result; `None` for a parameter.
    pub fn producer(&self, value: ValueId) -> Option<(InstId, usize)> {
        self.producers[value.index()]
    }

    /// The instructions that use `value`, each once, in order of their ids.
    pub fn users(&self, value: ValueId) -> Vec<InstId> {
        let mut users = self.users[value.index()].clone();
        users.sort_unstable();
        users.dedup();
        users
    }

    /// How often instructions use `value`.
    pub fn use_count(&self, value: ValueId) -> usize {
        self.users[value.index()].len()
    }

    /// Whether the function returns `value`.
    pub fn is_returned(&self, value: ValueId) -> bool {
        self.function.results.contains(&value)
    }

    /// Whether nothing uses `value`.
    pub fn is_unused(&self, value: ValueId) -> bool {
        self.use_count(value) == 0 && !self.is_returned(value)
    }

    /// The one instruction that uses `value`, if there is no other use.
    pub fn sole_user(&self, value: ValueId) -> Option<InstId> {
        match self.users(value)[..] {
            [user] if !self.is_returned(value) => Some(user),
            _ => None,
        }
    }

    /// Whether computing `value` needs a result of `inst`.
    pub fn depends_on(&self, value: ValueId, inst: InstId) -> bool {
        let mut seen = BTreeSet::new();
        let mut open = vec![value];
        while let Some(value) = open.pop() {
            let Some((producer, _)) = self.producer(value) else {
                continue;
            };
            if producer == inst {
                return true;
            }
            if seen.insert(producer) {
                open.extend(&self.function.insts[producer.index()].operands);
            }
        }
        false
    }

    /// Adds an instruction that belongs where `at` is.
    pub fn insert(
        &mut self,
        at: InstId,
        op: Op,
        operands: Vec<ValueId>,
    ) -> Result<Vec<ValueId>, PassError> {
        let types: Vec<&Type> = operands.iter().map(|&value| self.ty(value)).collect();
        let types = infer(self.module, &op, &types).map_err(|source| PassError::Infer {
            pass: self.pass,
            function: self.function.name.clone(),
            source,
        })?;
        let id = InstId(self.function.insts.len() as u32);
        let mut results = vec![];
        for (i, ty) in types.into_iter().enumerate() {
            results.push(ValueId(self.function.values.len() as u32));
            self.function.values.push(Value { ty, name: None });
            self.producers.push(Some((id, i)));
            self.users.push(vec![]);
            self.originals.push(vec![]);
        }
        for operand in &operands {
            self.users[operand.index()].push(id);
        }
        self.function.insts.push(Inst { op, operands, results: results.clone() });
        self.keys.push((self.keys[at.index()].0, id.index()));
        self.removed.push(false);
        Ok(results)
    }

    /// As `insert`, for an op with one result.
    pub fn insert1(
        &mut self,
        at: InstId,
        op: Op,
        operands: Vec<ValueId>,
    ) -> Result<ValueId, PassError> {
        Ok(self.insert(at, op, operands)?[0])
    }

    /// Uses `new` wherever `old` is used, and removes what is dead then. `new` takes over the name.
    pub fn replace(&mut self, old: ValueId, new: ValueId) -> Result<(), PassError> {
        if self.ty(old) != self.ty(new) {
            return Err(self.invalid("a value is replaced by one of another type"));
        }
        let users = std::mem::take(&mut self.users[old.index()]);
        for user in &users {
            for operand in &mut self.function.insts[user.index()].operands {
                if *operand == old {
                    *operand = new;
                }
            }
        }
        self.users[new.index()].extend(users);
        for result in &mut self.function.results {
            if *result == old {
                *result = new;
            }
        }
        if let Some(name) = self.function.values[old.index()].name.take() {
            self.function.values[new.index()].name.get_or_insert(name);
        }
        let originals = self.originals[old.index()].clone();
        self.originals[new.index()].extend(originals);
        self.remove_dead(old);
        Ok(())
    }

    /// Removes the producer of `value`, and of its operands, as far as nothing uses their results.
    fn remove_dead(&mut self, value: ValueId) {
        let mut open = vec![value];
        while let Some(value) = open.pop() {
            let Some((id, _)) = self.producer(value) else {
                continue;
            };
            let inst = &self.function.insts[id.index()];
            if self.removed[id.index()] || inst.results.iter().any(|&r| !self.is_unused(r)) {
                continue;
            }
            self.removed[id.index()] = true;
            if let (Op::Reshape { .. }, &[x]) = (&inst.op, &inst.operands[..]) {
                // What was there under another shape is still there.
                let originals = self.originals[value.index()].clone();
                self.originals[x.index()].extend(originals);
            }
            for operand in self.function.insts[id.index()].operands.clone() {
                self.users[operand.index()].retain(|&user| user != id);
                open.push(operand);
            }
        }
    }

    /// Gives `to` the name of `from`, if it has none.
    pub fn copy_name(&mut self, from: ValueId, to: ValueId) {
        let name = self.function.values[from.index()].name.clone();
        let target = &mut self.function.values[to.index()].name;
        if target.is_none() {
            *target = name;
        }
    }

    fn invalid(&self, problem: &str) -> PassError {
        let problem = format!("@{}: {problem}", self.function.name);
        PassError::Invalid { pass: self.pass, problem }
    }

    /// The function with live instructions only, ordered and numbered anew, and what its values
    /// were.
    fn finish(self) -> Result<(Function, ValueMap), PassError> {
        let order = self.order()?;
        let mut function = Function {
            name: self.function.name.clone(),
            values: vec![],
            params: vec![],
            insts: vec![],
            results: vec![],
        };
        let mut renumbered = vec![ValueId(0); self.function.values.len()];
        let mut was = vec![];
        let mut define = |function: &mut Function, old: ValueId| {
            let new = ValueId(function.values.len() as u32);
            function.values.push(self.function.values[old.index()].clone());
            was.push(old);
            renumbered[old.index()] = new;
            new
        };
        for &param in &self.function.params {
            let param = define(&mut function, param);
            function.params.push(param);
        }
        let mut insts = vec![];
        for id in order {
            let mut inst = self.function.insts[id.index()].clone();
            for result in &mut inst.results {
                *result = define(&mut function, *result);
            }
            insts.push(inst);
        }
        let new = |old: &mut ValueId| *old = renumbered[old.index()];
        for inst in &mut insts {
            inst.operands.iter_mut().for_each(new);
        }
        function.insts = insts;
        function.results = self.function.results.clone();
        function.results.iter_mut().for_each(new);
        let mut values = ValueMap::of_new(was.len());
        for (new, old) in was.iter().enumerate() {
            for &original in &self.originals[old.index()] {
                values.equate(ValueId(new as u32), original);
            }
        }
        Ok((function, values))
    }

    /// Live instructions, operands first, else by key.
    fn order(&self) -> Result<Vec<InstId>, PassError> {
        let live = self.live();
        let mut waits = vec![0usize; self.len()];
        let mut ready = BTreeSet::new();
        for id in (0..self.len()).filter(|&id| live[id]) {
            let operands = &self.function.insts[id].operands;
            waits[id] = operands.iter().filter(|&&v| self.producer(v).is_some()).count();
            if waits[id] == 0 {
                ready.insert((self.keys[id], id));
            }
        }
        let mut order = vec![];
        while let Some((_, id)) = ready.pop_first() {
            order.push(InstId(id as u32));
            for result in &self.function.insts[id].results {
                for user in &self.users[result.index()] {
                    let user = user.index();
                    if !live[user] {
                        continue;
                    }
                    waits[user] -= 1;
                    if waits[user] == 0 {
                        ready.insert((self.keys[user], user));
                    }
                }
            }
        }
        if order.len() != live.iter().filter(|&&live| live).count() {
            return Err(self.invalid("an instruction needs its own result"));
        }
        Ok(order)
    }

    fn live(&self) -> Vec<bool> {
        let mut live = vec![false; self.len()];
        let mut open = self.function.results.clone();
        while let Some(value) = open.pop() {
            if let Some((id, _)) = self.producer(value)
                && !live[id.index()]
            {
                live[id.index()] = true;
                open.extend(&self.function.insts[id.index()].operands);
            }
        }
        live
    }
}
