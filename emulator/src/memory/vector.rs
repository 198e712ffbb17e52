//! Global, flat and scratch instructions.

use super::address::{Flat, Global, Locate, Scratch, Site, Sum, Widths};
use super::atomic::{self, Operands, Policy, Update, is_double_operand};
use super::cell::{Cell, Owned, Shared};
use super::direct;
use super::transfer::{self, Load, Store};
use super::transpose::{self, Shape};
use crate::asm::{Operand, Value};
use crate::program::{Compiled, Context};
use crate::wave::{Exec, Fault};

/// Modifiers that say how caches treat an access, which changes no result here.
const CACHE: [&str; 8] = ["sc0", "sc1", "nt", "glc", "slc", "dlc", "th", "scope"];

/// Compiles a global, flat or scratch instruction.
pub(super) fn compile(context: &Context<'_>) -> Compiled {
    let (space, operation) = context.asm.mnemonic.split_once('_')?;
    let space = match space {
        "global" => Form::Global,
        "flat" => Form::Flat,
        "scratch" => Form::Scratch,
        _ => return None,
    };
    Some(
        check_modifiers(context, &["offset", "lds"])
            .and_then(|()| build(context, space, operation)),
    )
}

/// Which of the three.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Global,
    Flat,
    Scratch,
}

/// That an instruction has no modifiers but `known` ones and those of caches.
pub(super) fn check_modifiers(context: &Context<'_>, known: &[&str]) -> Result<(), Fault> {
    let strange = |name: &str| !known.contains(&name) && !CACHE.contains(&name);
    match context.asm.modifiers.iter().any(|modifier| strange(&modifier.name)) {
        true => Err(context.unknown()),
        false => Ok(()),
    }
}

/// The first row of an operand of `count` whole registers.
pub(super) fn rows(context: &Context<'_>, operand: &Operand, count: usize) -> Result<usize, Fault> {
    match operand.value {
        Value::Vector(row, found) if usize::from(found) == count && !operand.high => {
            Ok(usize::from(row))
        }
        _ => Err(context.unknown()),
    }
}

fn build(context: &Context<'_>, form: Form, operation: &str) -> Result<Exec, Fault> {
    if let Some(name) = operation.strip_prefix("load_lds_") {
        return load_direct(context, form, name);
    }
    // CDNA 2 has a modifier for it.
    if let Some(name) = operation.strip_prefix("load_").filter(|_| context.asm.has("lds")) {
        return load_direct(context, form, name);
    }
    if let Some(name) = operation.strip_prefix("load_") {
        return load(context, form, name);
    }
    if let Some(name) = operation.strip_prefix("store_") {
        return store(context, form, name);
    }
    match operation.strip_prefix("atomic_") {
        Some(name) => update(context, form, name),
        None => Err(context.unknown()),
    }
}

/// The vector part of the address and, but for flat instructions, the scalar one.
type Parts<'a> = (&'a Operand, Option<&'a Operand>);

fn load(context: &Context<'_>, form: Form, name: &str) -> Result<Exec, Fault> {
    let (data, parts): (_, Parts<'_>) = match (form, context.asm.operands.as_slice()) {
        (Form::Global, [data, scalar]) if name == "addtid_b32" => {
            let (row, site) = (rows(context, data, 1)?, Site::new(context));
            let sum = Sum::by_thread(context, scalar)?;
            return Ok(Action::Load(Load::Words(1)).exec::<_, Shared>(Global { sum, site }, row));
        }
        (Form::Flat, [data, vector]) => (data, (vector, None)),
        (Form::Global | Form::Scratch, [data, vector, scalar]) => (data, (vector, Some(scalar))),
        _ => return Err(context.unknown()),
    };
    // How the 8-bit form permutes, and both in 64-lane waves, is documented nowhere.
    if name == "tr_b128" && form == Form::Global && context.lanes == 32 {
        let row = rows(context, data, 4)?;
        return Ok(transpose::load::<_, Shared>(global(context, parts)?, row, Shape::GLOBAL));
    }
    let action = Action::Load(Load::new(name).ok_or_else(|| context.unknown())?);
    access(context, form, action, data, parts)
}

fn store(context: &Context<'_>, form: Form, name: &str) -> Result<Exec, Fault> {
    let (data, parts): (_, Parts<'_>) = match (form, context.asm.operands.as_slice()) {
        (Form::Global, [data, scalar]) if name == "addtid_b32" => {
            let (row, site) = (rows(context, data, 1)?, Site::new(context));
            let sum = Sum::by_thread(context, scalar)?;
            let store = Action::Store(Store::Words(1));
            return Ok(store.exec::<_, Shared>(Global { sum, site }, row));
        }
        (Form::Flat, [vector, data]) => (data, (vector, None)),
        (Form::Global | Form::Scratch, [vector, data, scalar]) => (data, (vector, Some(scalar))),
        _ => return Err(context.unknown()),
    };
    let action = Action::Store(Store::new(name).ok_or_else(|| context.unknown())?);
    access(context, form, action, data, parts)
}

fn access(
    context: &Context<'_>,
    form: Form,
    action: Action,
    data: &Operand,
    parts: Parts<'_>,
) -> Result<Exec, Fault> {
    let row = rows(context, data, action.rows())?;
    Ok(match form {
        Form::Global => action.exec::<_, Shared>(global(context, parts)?, row),
        Form::Flat => action.exec::<_, Shared>(flat(context, parts)?, row),
        Form::Scratch => action.exec::<_, Owned>(scratch(context, parts)?, row),
    })
}

fn load_direct(context: &Context<'_>, form: Form, name: &str) -> Result<Exec, Fault> {
    let [vector, scalar] = context.asm.operands.as_slice() else { return Err(context.unknown()) };
    let load = Load::new(name).ok_or_else(|| context.unknown())?;
    let (parts, target) = ((vector, Some(scalar)), direct::Target::new(context)?);
    match form {
        Form::Global => Ok(direct::load::<_, Shared>(global(context, parts)?, load, target)),
        Form::Scratch => Ok(direct::load::<_, Owned>(scratch(context, parts)?, load, target)),
        Form::Flat => Err(context.unknown()),
    }
}

fn update(context: &Context<'_>, form: Form, name: &str) -> Result<Exec, Fault> {
    let update = Update::new(name).ok_or_else(|| context.unknown())?;
    let words = update.rows();
    // A first operand more than the address and the data gets the old value.
    let (result, data, parts): (_, _, Parts<'_>) = match (form, context.asm.operands.as_slice()) {
        (Form::Flat, [vector, data]) => (None, data, (vector, None)),
        (Form::Flat, [result, vector, data]) => (Some(result), data, (vector, None)),
        (Form::Global, [vector, data, scalar]) => (None, data, (vector, Some(scalar))),
        (Form::Global, [result, vector, data, scalar]) => {
            (Some(result), data, (vector, Some(scalar)))
        }
        _ => return Err(context.unknown()),
    };
    let result = result.map(|operand| rows(context, operand, words)).transpose()?;
    let both = is_double_operand(name);
    let row = rows(context, data, if both { 2 * words } else { words })?;
    let operands = Operands { result, data: [row, if both { row + words } else { row }] };
    let policy = Policy::memory(context.chip, name);
    Ok(match form {
        Form::Flat => atomic::atomic::<_, Shared>(flat(context, parts)?, update, operands, policy),
        _ => atomic::atomic::<_, Shared>(global(context, parts)?, update, operands, policy),
    })
}

fn global(context: &Context<'_>, (vector, scalar): Parts<'_>) -> Result<Global, Fault> {
    let sum = Sum::new(context, vector, scalar, Widths { vector: 2, scalar: 2 })?;
    Ok(Global { sum, site: Site::new(context) })
}

fn flat(context: &Context<'_>, (vector, scalar): Parts<'_>) -> Result<Flat, Fault> {
    let sum = Sum::new(context, vector, scalar, Widths { vector: 2, scalar: 2 })?;
    Ok(Flat { sum, site: Site::new(context) })
}

fn scratch(context: &Context<'_>, (vector, scalar): Parts<'_>) -> Result<Scratch, Fault> {
    let sum = Sum::new(context, vector, scalar, Widths { vector: 1, scalar: 1 })?;
    Ok(Scratch { sum, site: Site::new(context) })
}

/// A load or a store.
#[derive(Clone, Copy)]
pub(super) enum Action {
    Load(Load),
    Store(Store),
}

impl Action {
    /// Registers of its data.
    pub(super) fn rows(self) -> usize {
        match self {
            Action::Load(load) => load.rows(),
            Action::Store(store) => store.rows(),
        }
    }

    /// The closure, for data in the registers from `row` on.
    pub(super) fn exec<L: Locate, C: Cell + 'static>(self, locate: L, row: usize) -> Exec {
        match self {
            Action::Load(form) => transfer::load::<L, C>(locate, row, form),
            Action::Store(form) => transfer::store::<L, C>(locate, row, form),
        }
    }
}
