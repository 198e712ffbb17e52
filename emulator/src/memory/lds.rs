//! LDS instructions.

use super::address::{Lds, Locate, Site, local, offset};
use super::atomic::{self, Operands, Policy, Update, is_double_operand};
use super::cell::{Cell, Owned};
use super::exchange;
use super::transfer::{self, Found, Load, Store, Targets, lanes_of, load, store};
use super::transpose::{self, Shape};
use super::vector::rows;
use crate::asm::Operand;
use crate::probe::{Kind, Space};
use crate::program::{Compiled, Context};
use crate::wave::{Exec, Fault, Group, LANES, Wave, scalar};

/// Compiles an LDS instruction.
pub(super) fn compile(context: &Context<'_>) -> Compiled {
    let operation = context.asm.mnemonic.strip_prefix("ds_")?;
    if let Some(compiled) = exchange::compile(context, operation) {
        return Some(compiled);
    }
    Some(build(context, operation))
}

fn build(context: &Context<'_>, operation: &str) -> Result<Exec, Fault> {
    if operation == "nop" {
        return Ok(Box::new(|_, _| Ok(())));
    }
    if let Some((pair, action)) = Pair::new(operation) {
        return pair_access(context, pair, action);
    }
    let strip = |prefixes: [&str; 2]| {
        prefixes.into_iter().find_map(|prefix| operation.strip_prefix(prefix))
    };
    if let Some(name) = strip(["read_", "load_"]) {
        return read(context, name);
    }
    if let Some(name) = strip(["write_", "store_"]) {
        return write(context, name);
    }
    match operation {
        "append" => return append(context, u32::wrapping_add),
        "consume" => return append(context, u32::wrapping_sub),
        "condxchg32_rtn_b64" => return conditional_exchange(context),
        _ => {}
    }
    update(context, operation)
}

/// The address of an instruction with one offset.
fn place(context: &Context<'_>, address: &Operand) -> Result<Lds, Fault> {
    only(context, &["offset"])?;
    let vector = rows(context, address, 1)?;
    Ok(Lds { vector, offset: offset(context)? as u32, site: Site::new(context) })
}

fn only(context: &Context<'_>, known: &[&str]) -> Result<(), Fault> {
    let strange = |name: &str| !known.contains(&name);
    match context.asm.modifiers.iter().any(|modifier| strange(&modifier.name)) {
        true => Err(context.unknown()),
        false => Ok(()),
    }
}

fn read(context: &Context<'_>, name: &str) -> Result<Exec, Fault> {
    match (name, context.asm.operands.as_slice()) {
        ("addtid_b32", [data]) => {
            let row = rows(context, data, 1)?;
            Ok(load::<_, Owned>(ByThread::new(context)?, row, Load::Words(1)))
        }
        (_, [data, address]) => {
            let place = place(context, address)?;
            if let Some(shape) = Shape::lds(name) {
                let row = rows(context, data, shape.words)?;
                return Ok(transpose::load::<_, Owned>(place, row, shape));
            }
            let form = Load::new(name).ok_or_else(|| context.unknown())?;
            Ok(load::<_, Owned>(place, rows(context, data, form.rows())?, form))
        }
        _ => Err(context.unknown()),
    }
}

fn write(context: &Context<'_>, name: &str) -> Result<Exec, Fault> {
    match (name, context.asm.operands.as_slice()) {
        ("addtid_b32", [data]) => {
            let row = rows(context, data, 1)?;
            Ok(store::<_, Owned>(ByThread::new(context)?, row, Store::Words(1)))
        }
        (_, [address, data]) => {
            let form = Store::new(name).ok_or_else(|| context.unknown())?;
            let row = rows(context, data, form.rows())?;
            Ok(store::<_, Owned>(place(context, address)?, row, form))
        }
        _ => Err(context.unknown()),
    }
}

/// Two accesses of one instruction.
#[derive(Debug, Clone, Copy)]
struct Pair {
    /// Words of each.
    words: usize,
    /// Bytes that an offset of 1 means.
    scale: u32,
}

/// What is done twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Twice {
    Read,
    Write,
    Exchange,
}

impl Pair {
    fn new(operation: &str) -> Option<(Pair, Twice)> {
        const NAMES: [(&str, Twice, u32); 12] = [
            ("read2st64_", Twice::Read, 64),
            ("read2_", Twice::Read, 1),
            ("write2st64_", Twice::Write, 64),
            ("write2_", Twice::Write, 1),
            ("wrxchg2st64_rtn_", Twice::Exchange, 64),
            ("wrxchg2_rtn_", Twice::Exchange, 1),
            ("load_2addr_stride64_", Twice::Read, 64),
            ("load_2addr_", Twice::Read, 1),
            ("store_2addr_stride64_", Twice::Write, 64),
            ("store_2addr_", Twice::Write, 1),
            ("storexchg_2addr_stride64_rtn_", Twice::Exchange, 64),
            ("storexchg_2addr_rtn_", Twice::Exchange, 1),
        ];
        let found = NAMES.iter().find_map(|(prefix, action, stride)| {
            Some((operation.strip_prefix(prefix)?, *action, *stride))
        });
        let (kind, action, stride) = found?;
        let words = match kind {
            "b32" => 1,
            "b64" => 2,
            _ => return None,
        };
        Some((Pair { words, scale: 4 * words as u32 * stride }, action))
    }
}

fn pair_access(context: &Context<'_>, pair: Pair, action: Twice) -> Result<Exec, Fault> {
    only(context, &["offset0", "offset1"])?;
    let operands = context.asm.operands.as_slice();
    let words = pair.words;
    let (result, address, data) = match (action, operands) {
        (Twice::Read, [result, address]) => (Some(result), address, None),
        (Twice::Write, [address, first, second]) => (None, address, Some((first, second))),
        (Twice::Exchange, [result, address, first, second]) => {
            (Some(result), address, Some((first, second)))
        }
        _ => return Err(context.unknown()),
    };
    let result = result.map(|operand| rows(context, operand, 2 * words)).transpose()?;
    let data = match data {
        Some((first, second)) => [rows(context, first, words)?, rows(context, second, words)?],
        None => [0, 0],
    };
    let (vector, site) = (rows(context, address, 1)?, Site::new(context));
    let offset = |name: &str| -> Result<u32, Fault> {
        match context.asm.value(name) {
            None => Ok(0),
            Some(_) => context.asm.number(name).map(|n| n as u32).ok_or_else(|| context.unknown()),
        }
    };
    let at = |offset: u32| Lds { vector, offset: offset.wrapping_mul(pair.scale), site };
    let places = [at(offset("offset0")?), at(offset("offset1")?)];
    let row = result.unwrap_or_default();
    Ok(match (action, words) {
        (Twice::Read, 1) => read_twice::<1>(places, row),
        (Twice::Read, _) => read_twice::<2>(places, row),
        (Twice::Write, 1) => write_twice::<1>(places, data),
        (Twice::Write, _) => write_twice::<2>(places, data),
        (Twice::Exchange, _) => exchange_twice(places, row, data, words),
    })
}

fn read_twice<const N: usize>(places: [Lds; 2], row: usize) -> Exec {
    Box::new(move |wave, group| {
        // The result may overwrite the address.
        let first = places[0].locate(wave, group, Kind::Load, 4 * N as u32)?;
        let second = places[1].locate(wave, group, Kind::Load, 4 * N as u32)?;
        // SAFETY: located for that many bytes.
        unsafe {
            transfer::load_words::<Owned, N>(wave, row, &first);
            transfer::load_words::<Owned, N>(wave, row + N, &second);
        }
        Ok(())
    })
}

fn write_twice<const N: usize>(places: [Lds; 2], data: [usize; 2]) -> Exec {
    Box::new(move |wave, group| {
        for (place, row) in places.iter().zip(data) {
            let found = place.locate(wave, group, Kind::Store, 4 * N as u32)?;
            // SAFETY: located for that many bytes.
            unsafe { transfer::store_words::<Owned, N>(wave, row, &found) };
        }
        Ok(())
    })
}

/// Both old values are read before either is written, for each lane.
fn exchange_twice(places: [Lds; 2], row: usize, data: [usize; 2], words: usize) -> Exec {
    Box::new(move |wave, group| {
        let bytes = 4 * words as u32;
        let first = places[0].locate(wave, group, Kind::Atomic, bytes)?.targets(wave, bytes);
        let second = places[1].locate(wave, group, Kind::Atomic, bytes)?.targets(wave, bytes);
        for lane in lanes_of(wave.exec()) {
            let (mut old, mut new) = ([0; 4], [0; 4]);
            let both = [&first, &second];
            for (half, targets) in both.iter().enumerate() {
                for word in 0..words {
                    let at = words * half + word;
                    new[at] = wave.rows[data[half] + word].0[lane];
                    if targets.lanes >> lane & 1 != 0 {
                        old[at] = load_word(targets, lane, word);
                    }
                }
            }
            for (half, targets) in both.iter().enumerate() {
                for word in (0..words).filter(|_| targets.lanes >> lane & 1 != 0) {
                    store_word(targets, lane, word, new[words * half + word]);
                }
            }
            for at in 0..2 * words {
                wave.rows[row + at].0[lane] = old[at];
            }
        }
        Ok(())
    })
}

/// A word of a lane's access, which must be one of those that were located.
fn load_word(targets: &Targets, lane: usize, word: usize) -> u32 {
    // SAFETY: callers ask for lanes in `targets.lanes` and words that were located.
    unsafe { Owned::load32(targets.address[lane] + 4 * word as u64) }
}

fn store_word(targets: &Targets, lane: usize, word: usize, value: u32) {
    // SAFETY: as in `load_word`.
    unsafe { Owned::store32(targets.address[lane] + 4 * word as u64, value) }
}

/// An atomic operation, with `_rtn_` in its name if it returns the old value.
fn update(context: &Context<'_>, operation: &str) -> Result<Exec, Fault> {
    let returns = operation.contains("_rtn_");
    let name = operation.replacen("_rtn_", "_", 1);
    let update = Update::new(&name).ok_or_else(|| context.unknown())?;
    let words = update.rows();
    let mut operands = context.asm.operands.iter();
    let mut next = || operands.next().ok_or_else(|| context.unknown());
    let result = if returns { Some(rows(context, next()?, words)?) } else { None };
    let place = place(context, next()?)?;
    let first = rows(context, next()?, words)?;
    let second = if is_double_operand(&name) { rows(context, next()?, words)? } else { first };
    if operands.next().is_some() {
        return Err(context.unknown());
    }
    // CDNA's compare and store has the expected value first.
    let data = if name.starts_with("cmpst_") { [second, first] } else { [first, second] };
    let operands = Operands { result, data };
    Ok(atomic::atomic::<_, Owned>(place, update, operands, Policy::lds(context.chip)))
}

/// Addresses that follow from the lane's number and M0.
#[derive(Debug, Clone, Copy)]
struct ByThread {
    offset: u32,
    site: Site,
}

impl ByThread {
    fn new(context: &Context<'_>) -> Result<ByThread, Fault> {
        only(context, &["offset"])?;
        Ok(ByThread { offset: offset(context)? as u32, site: Site::new(context) })
    }
}

// SAFETY: `local` takes out what is not in LDS.
unsafe impl Locate for ByThread {
    #[inline(always)]
    fn locate(
        &self,
        wave: &mut Wave,
        group: &mut Group,
        kind: Kind,
        bytes: u32,
    ) -> Result<Found, Box<Fault>> {
        let first = u64::from(self.offset + (wave.sgpr[scalar::M0] & 0xffff));
        let address: [u64; LANES] = std::array::from_fn(|lane| first + 4 * lane as u64);
        let exec = wave.exec();
        self.site.report(wave, group, (kind, Space::Lds), &address, exec, bytes);
        Ok(Found::Lanes(local(wave, group, address, exec, (kind, bytes))))
    }
}

/// Adds or subtracts the number of executing lanes once; all of them get the old value.
///
/// The documents of CDNA3 and RDNA4 take the address from the instruction alone, RDNA3's and LLVM
/// add M0; where that would matter, nobody can say what happens.
fn append(context: &Context<'_>, next: fn(u32, u32) -> u32) -> Result<Exec, Fault> {
    only(context, &["offset"])?;
    let [result] = context.asm.operands.as_slice() else { return Err(context.unknown()) };
    let (row, site) = (rows(context, result, 1)?, Site::new(context));
    let offset = offset(context)? as u64;
    Ok(Box::new(move |wave, group| {
        if wave.sgpr[scalar::M0] & 0xffff != 0 {
            let text = "ds_append and ds_consume with an address in M0 are not documented";
            return Err(Box::new(Fault::Illegal(text.to_string())));
        }
        let exec = wave.exec();
        if exec == 0 {
            return Ok(());
        }
        let first = 1 << exec.trailing_zeros();
        let access = (Kind::Atomic, Space::Lds);
        site.report(wave, group, access, &[offset; LANES], first, 4);
        super::address::aligned(&[offset; LANES], first, (Kind::Atomic, 4))?;
        let targets = local(wave, group, [offset; LANES], exec, (Kind::Atomic, 4));
        let mut old = 0;
        if targets.lanes != 0 {
            let lane = targets.lanes.trailing_zeros() as usize % LANES;
            old = load_word(&targets, lane, 0);
            store_word(&targets, lane, 0, next(old, exec.count_ones()));
        }
        for lane in lanes_of(exec) {
            wave.rows[row].0[lane] = old;
        }
        Ok(())
    }))
}

/// Two words, each replaced by the data's 31 low bits where its top bit is set.
fn conditional_exchange(context: &Context<'_>) -> Result<Exec, Fault> {
    let [result, address, data] = context.asm.operands.as_slice() else {
        return Err(context.unknown());
    };
    let (result, data) = (rows(context, result, 2)?, rows(context, data, 2)?);
    let place = place(context, address)?;
    Ok(Box::new(move |wave, group| {
        let targets = place.locate(wave, group, Kind::Atomic, 8)?.targets(wave, 8);
        for lane in lanes_of(wave.exec()) {
            for word in 0..2 {
                let new = wave.rows[data + word].0[lane];
                let good = targets.lanes >> lane & 1 != 0;
                let old = if good { load_word(&targets, lane, word) } else { 0 };
                if good && new >> 31 != 0 {
                    store_word(&targets, lane, word, new & 0x7fff_ffff);
                }
                wave.rows[result + word].0[lane] = old;
            }
        }
        Ok(())
    }))
}
