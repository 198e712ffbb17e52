//! Executes a form beside its statement, and compares.

use std::cmp::Ordering;

use waveloom_emulator::Chip;

use super::form::{Form, NEAR, PLAIN_WAVES, Packed, Place};
use super::other_lanes::Ctrl;
use super::{
    ACC, ANY_ZERO, CARRY_OUT, CMPX, EITHER, KEEP, Lane, MIX, OWN_CLAMP, Op, SIGNS, VCC_IN,
};
use crate::exact::{Format, Round, compare};
use crate::machine::{Bench, EXEC, NAMED, Random, State, VCC};
use crate::values::T;

const MODES: [u32; 8] = [0xf0, 0xf0, 0x2f0, 0x00, 0x1f5, 0x3fa, 0x30f, 0xc0];

/// Executes waves of values; with `cross` also every pair of edge values.
pub fn run(
    bench: &mut Bench,
    line: usize,
    form: &Form<'_>,
    waves: usize,
    cross: bool,
    random: &mut Random,
) -> Result<(), String> {
    let lanes = bench.state.lanes;
    let edges: Vec<&[u64]> = form.op.src.iter().map(|t| t.edges()).collect();
    let total: usize = match edges.len() {
        _ if !cross => 0,
        1 | 2 => edges.iter().map(|edges| edges.len()).product(),
        _ => 0,
    };
    let crossing = total.div_ceil(lanes);
    for wave in 0..waves + crossing {
        let exec = match wave % 4 {
            _ if wave < crossing => u64::MAX,
            0 => u64::MAX,
            1 => random.bits(),
            2 => random.bits() & random.bits(),
            _ => [0, 1, 1 << (lanes - 1), random.bits()][random.below(4)],
        };
        bench.set_exec(exec);
        bench.state.mode = if wave < crossing { 0xf0 } else { MODES[(wave - crossing) % 8] };
        bench.state.scc = random.once_in(2);
        for mask in [form.mask_in, VCC] {
            let bits = random.bits();
            bench.state.set_mask(mask, bits);
        }
        set_sources(bench, form, random);
        if wave < crossing {
            for lane in 0..lanes {
                let mut at = (wave * lanes + lane) % total.max(1);
                for (index, edges) in edges.iter().enumerate() {
                    let t = form.op.src[index];
                    let mut value = edges[at % edges.len()];
                    at /= edges.len();
                    if t.is_packed() {
                        value |= edges[(at + lane) % edges.len()] << t.element_bits();
                    }
                    set_source(&mut bench.state, form, index, lane, value);
                }
            }
        }
        bench.sync_rows(0, NEAR.end);
        bench.sync_scalars();
        let before = bench.state.clone_near();
        let expected = expect(&bench.state, form);
        bench.step(line)?;
        settle(bench, form, &expected, &before)?;
        let last = wave + 1 == waves + crossing && form.waves == PLAIN_WAVES;
        let rows = if last { 0..NAMED } else { NEAR };
        if let Some(difference) = bench.difference(rows) {
            return Err(difference);
        }
    }
    Ok(())
}

impl State {
    /// The rows that forms name.
    fn clone_near(&self) -> Vec<[u32; 64]> {
        self.v[NEAR].to_vec()
    }
}

fn set_source(state: &mut State, form: &Form<'_>, index: usize, lane: usize, value: u64) {
    let (source, t) = (&form.src[index], form.op.src[index]);
    if let Place::Row(row) = source.place {
        let value = match (t.is_half(), source.high) {
            (true, true) => value << 16 | u64::from(state.v[row][lane] & 0xffff),
            (true, false) => value | u64::from(state.v[row][lane] & 0xffff_0000),
            _ => value,
        };
        state.set(row, t.rows(), lane, value);
    }
}

/// Random values for every source register and the destination.
fn set_sources(bench: &mut Bench, form: &Form<'_>, random: &mut Random) {
    for lane in 0..64 {
        let old = form.op.dst.sample(random);
        let other = random.bits() << 16;
        let old = if form.op.dst.is_half() { old | other } else { old };
        if form.op.dst != T::Mask {
            let old =
                if form.dst_high && form.op.flags & ACC != 0 { old << 16 | old >> 16 } else { old };
            bench.state.set(form.dst, form.op.dst.rows(), lane, old);
        }
        for index in 0..form.src.len() {
            if let Place::Row(row) = form.src[index].place {
                bench.state.v[row][lane] = random.bits() as u32;
            }
            let value = form.op.src[index].sample(random);
            set_source(&mut bench.state, form, index, lane, value);
        }
    }
    for (index, source) in form.src.iter().enumerate() {
        if let Place::Scalar(at) = source.place {
            let value = form.op.src[index].sample(random);
            let other = if form.op.src[index].is_half() { random.bits() << 16 } else { 0 };
            let value = value | other & 0xffff_0000;
            bench.state.s[at] = value as u32;
            if form.op.src[index].rows() == 2 {
                bench.state.s[at + 1] = (value >> 32) as u32;
            }
        }
    }
}

/// What a lane should have.
struct Outcome {
    result: u64,
    /// Some document says what it is.
    fixed: bool,
    /// Others that will do.
    also: Vec<u64>,
    /// Values between which it may lie.
    range: Option<(f64, f64)>,
}

/// What a wave should have: a result in each lane that writes.
struct Expected {
    lanes: Vec<Option<Outcome>>,
    /// The mask that is written.
    mask: u64,
    /// Its bits that no document fixes.
    open: u64,
}

fn read_source(state: &State, form: &Form<'_>, index: usize, lane: usize) -> u64 {
    let (source, t) = (&form.src[index], form.op.src[index]);
    let raw = match &source.place {
        Place::Row(row) => state.get(*row, t.rows(), lane),
        Place::Scalar(at) if t.rows() == 2 => state.pair(*at),
        Place::Scalar(at) => u64::from(state.s[*at]),
        Place::Constant(_, bits) => *bits,
    };
    let register = !matches!(source.place, Place::Constant(..));
    match t {
        _ if form.op.flags & MIX != 0 || form.sdwa.is_some() => raw,
        _ if t.is_half() && register && source.high => raw >> 16 & 0xffff,
        _ if t.is_half() => raw & 0xffff,
        _ => raw,
    }
}

/// Source modifiers of unpacked operands.
fn modified(form: &Form<'_>, index: usize, value: u64) -> u64 {
    let (source, t) = (&form.src[index], form.op.src[index]);
    let Some(format) = t.format() else { return value };
    let mut value = value;
    if source.abs {
        value &= !format.sign();
    }
    if source.neg {
        value ^= format.sign();
    }
    value
}

/// Both elements of a packed operand, chosen and negated.
fn packed_source(t: T, packed: &Packed, index: usize, raw: u64) -> u64 {
    let width = t.element_bits();
    let mask = (1 << width) - 1;
    let pick = |high: bool| if high { raw >> width & mask } else { raw & mask };
    let mut low = pick(packed.sel[index]);
    let mut high = pick(packed.sel_hi[index]);
    if let Some(format) = t.format() {
        if packed.neg_lo[index] {
            low ^= format.sign();
        }
        if packed.neg_hi[index] {
            high ^= format.sign();
        }
    }
    low | high << width
}

const PLAIN_PACKED: Packed =
    Packed { sel: [false; 3], sel_hi: [true; 3], neg_lo: [false; 3], neg_hi: [false; 3] };

fn expect(state: &State, form: &Form<'_>) -> Expected {
    let op = form.op;
    let mut expected = Expected { lanes: Vec::new(), mask: 0, open: 0 };
    let carry_in = if op.flags & VCC_IN != 0 { VCC } else { form.mask_in };
    for lane in 0..state.lanes {
        expected.lanes.push(None);
        let mut first_lane = Some(lane);
        if !state.on(lane) {
            continue;
        }
        if let Some(dpp) = &form.dpp {
            if !dpp.writes(lane) {
                continue;
            }
            let source = dpp.source(lane, state.lanes);
            first_lane = source.filter(|from| dpp.fetch_inactive || state.on(*from));
            let zero = dpp.bound || matches!(dpp.ctrl, Ctrl::Dpp8(_));
            if first_lane.is_none() && !zero {
                continue;
            }
        }
        let mut sources = [0; 4];
        for index in 0..op.src.len() {
            let from = if index == 0 { first_lane } else { Some(lane) };
            let mut value = from.map_or(0, |from| read_source(state, form, index, from));
            if let Some(sdwa) = &form.sdwa
                && index < 2
            {
                value = sdwa.select(index, value);
                if op.src[index].bits() == 16 {
                    value &= 0xffff;
                }
            }
            sources[index] = match op.src[index] {
                t if op.flags & (MIX | SIGNS) != 0 && form.packed.is_some() => {
                    let _ = t;
                    value
                }
                t if t.is_packed() => {
                    packed_source(t, form.packed.as_ref().unwrap_or(&PLAIN_PACKED), index, value)
                }
                _ => modified(form, index, value),
            };
        }
        let packed = form.packed.as_ref();
        let old = state.get(form.dst, op.dst.rows(), lane);
        let mut context = Lane {
            lane,
            clamp: form.clamp,
            carry: state.mask(carry_in) >> lane & 1 == 1,
            old: if op.dst.is_half() && form.dst_high { old >> 16 } else { old },
            sel: packed.map_or([false; 3], |p| p.sel),
            sel_hi: packed.map_or([op.flags & MIX == 0; 3], |p| p.sel_hi),
            neg: packed.map_or([false; 3], |p| p.neg_lo),
            neg_hi: packed.map_or([false; 3], |p| p.neg_hi),
            ..Lane::new(state.chip, state.mode)
        };
        if op.dst.is_half() {
            context.old &= 0xffff;
        }
        let result = (op.f)(&mut context, &sources);
        let result = output(&mut context, form, result);
        let also = std::mem::take(&mut context.also);
        let also = also.into_iter().map(|other| output(&mut context, form, other)).collect();
        if op.dst == T::Mask {
            context.out = result != 0;
        }
        expected.mask |= u64::from(context.out) << lane;
        expected.open |= u64::from(context.skip) << lane;
        let modified = form.clamp || form.omod != 0;
        let fixed = !context.skip && !(modified && context.range.is_some());
        expected.lanes[lane] = Some(Outcome { result, fixed, also, range: context.range });
    }
    expected
}

/// Output modifiers of a result.
fn output(lane: &mut Lane, form: &Form<'_>, result: u64) -> u64 {
    let t = form.op.dst;
    let Some(format) = t.format() else { return result };
    let width = t.element_bits();
    let mask = if width == 64 { u64::MAX } else { (1 << width) - 1 };
    let mut out = 0;
    for element in 0..if t.is_packed() { 2 } else { 1 } {
        let mut bits = result >> (width * element) & mask;
        if form.omod != 0 && scales(lane, t, format) && !format.is_nan(bits) {
            bits = scaled(lane, format, bits, form.omod);
        }
        if form.clamp && form.op.flags & OWN_CLAMP == 0 {
            let one = (format.bias as u64) << format.fraction;
            if format.is_nan(bits) {
                if lane.dx10_clamp() {
                    bits = 0;
                }
            } else if bits & format.sign() != 0 {
                bits = 0;
            } else if bits > one {
                bits = one;
            }
        }
        out |= bits << (width * element);
    }
    out
}

/// Whether the output scale counts. It gives no results of IEEE's: it works only where MODE wants
/// none and flushes denormals, but on RDNA 4 always. Packed halves ignore it.
fn scales(lane: &Lane, t: T, format: Format) -> bool {
    let (_, denormals) = lane.denormals(format);
    !t.is_packed() && (lane.chip == Chip::Gfx1201 || !denormals && !lane.ieee())
}

/// A number times the output scale, denormals flushed, and zeros positive.
fn scaled(lane: &mut Lane, format: Format, bits: u64, scale: i32) -> u64 {
    // What an overflow becomes when it is halved is nowhere said, nor how another rounding than
    // that to nearest overflows here.
    lane.skip |= format.is_infinite(bits) || format.is_denormal(bits);
    let exact = format.value(bits).scale(scale);
    let rounded = format.round(exact, Round::Even);
    lane.skip |= format.is_infinite(rounded) && lane.round(format) != Round::Even;
    // Nor whether what rounding makes normal was a denormal.
    let least = format.magnitude(rounded) == 1 << format.fraction;
    lane.skip |= least && compare(format.value(rounded), exact) != Some(Ordering::Equal);
    if format.is_denormal(rounded) || format.magnitude(rounded) == 0 { 0 } else { rounded }
}

/// The whole register that a 16-bit or partial result makes of the old one.
fn merged(state: &State, form: &Form<'_>, old: u64, result: u64) -> u64 {
    if let Some(sdwa) = &form.sdwa {
        return sdwa.merge(old, result);
    }
    if !form.op.dst.is_half() {
        return result;
    }
    let keep = form.op.flags & KEEP != 0 || state.chip.is_rdna() || form.op_sel;
    let kept = if keep { old } else { 0 };
    if form.dst_high { kept & 0xffff | result << 16 } else { kept & 0xffff_0000 | result }
}

/// Whether a result that is not the statement's own will do as well.
fn acceptable(op: &Op, got: u64, want: u64) -> bool {
    let Some(format) = op.dst.format() else { return false };
    let width = op.dst.element_bits();
    let mask = if width == 64 { u64::MAX } else { (1 << width) - 1 };
    let element = |got: u64, want: u64| {
        if got == want {
            return true;
        }
        if format.is_nan(got) && format.is_nan(want) {
            return !format.is_signaling(got) || format.is_signaling(want);
        }
        if format.is_nan(got) || format.is_nan(want) {
            return false;
        }
        if op.flags & ANY_ZERO != 0 && format.magnitude(got | want) == 0 {
            return true;
        }
        let order = |bits: u64| {
            let size = format.magnitude(bits) as i64;
            if bits & format.sign() != 0 { -size } else { size }
        };
        let tolerance = u64::from(op.flags >> 16);
        tolerance > 0 && order(got).abs_diff(order(want)) <= tolerance
    };
    let low = element(got & mask, want & mask);
    low && (!op.dst.is_packed() || element(got >> width & mask, want >> width & mask))
}

/// Whether a result lies in a range of values.
fn within(op: &Op, got: u64, range: Option<(f64, f64)>) -> bool {
    let (Some((low, high)), Some(format)) = (range, op.dst.format()) else { return false };
    let value = format.value(got).to_f64();
    low <= value && value <= high
}

/// Compares results, and moves the state to where the emulator is.
fn settle(
    bench: &mut Bench,
    form: &Form<'_>,
    expected: &Expected,
    before: &[[u32; 64]],
) -> Result<(), String> {
    let op = form.op;
    if op.dst == T::Mask || op.flags & CARRY_OUT != 0 {
        let mask = expected.mask;
        let out =
            if op.flags & CMPX != 0 && bench.state.chip.is_rdna() { EXEC } else { form.mask_out };
        let got = bench.wave.mask(out);
        let wrong = (got ^ mask) & !expected.open;
        if wrong != 0 {
            let lane = wrong.trailing_zeros() as usize;
            let sources = describe(bench, form, lane, before);
            return Err(format!(
                "lane {lane} of the mask: {}, should be {}; {sources}",
                got >> lane & 1,
                mask >> lane & 1
            ));
        }
        bench.state.set_mask(out, got);
        if op.flags & CMPX != 0 {
            bench.state.set_mask(EXEC, got);
        }
        if op.dst == T::Mask {
            return Ok(());
        }
    }
    let rows = op.dst.rows();
    for lane in 0..bench.state.lanes {
        let Some(outcome) = &expected.lanes[lane] else { continue };
        let result = outcome.result;
        let old = bench.state.get(form.dst, rows, lane);
        let got = u64::from(bench.wave.rows[form.dst].0[lane])
            | if rows == 2 { u64::from(bench.wave.rows[form.dst + 1].0[lane]) << 32 } else { 0 };
        let want = merged(&bench.state, form, old, result);
        let part = |full: u64| match &form.sdwa {
            Some(_) => full,
            None if op.dst.is_half() && form.dst_high => full >> 16 & 0xffff,
            None if op.dst.is_half() => full & 0xffff,
            None => full,
        };
        let rest = |full: u64| match &form.sdwa {
            None if op.dst.is_half() && form.dst_high => full & 0xffff,
            None if op.dst.is_half() => full >> 16,
            _ => 0,
        };
        let either = op.flags & EITHER != 0 && (rest(got) == rest(old) || rest(got) == 0);
        let same_rest = rest(got) == rest(want) || either;
        let whole = form.sdwa.as_ref().is_none_or(|sdwa| sdwa.dst == 6 && !op.dst.is_half());
        let partial_nan =
            form.sdwa.is_some() && op.dst.format().is_some_and(|format| format.is_nan(result));
        let mut results = vec![want];
        results.extend(outcome.also.iter().map(|other| merged(&bench.state, form, old, *other)));
        let matches = |want: u64| {
            same_rest && part(got) == part(want)
                || whole && same_rest && acceptable(op, part(got), part(want))
        };
        let ok = got == want
            || !outcome.fixed
            || same_rest && within(op, part(got), outcome.range)
            || partial_nan
            || results.iter().any(|want| matches(*want))
            || form.sdwa.is_some() && (op.flags >> 16 != 0 || outcome.range.is_some());
        if !ok {
            let sources = describe(bench, form, lane, before);
            return Err(format!(
                "lane {lane}: {got:#x}, should be {want:#x}; {sources}, old {old:#x}, mode {:#x}",
                bench.state.mode
            ));
        }
        bench.state.set(form.dst, rows, lane, got);
    }
    Ok(())
}

fn describe(bench: &Bench, form: &Form<'_>, lane: usize, before: &[[u32; 64]]) -> String {
    let mut state = bench.state.clone();
    state.v[NEAR].copy_from_slice(before);
    let read = |index: usize| {
        let mut from = lane;
        if let (0, Some(dpp)) = (index, &form.dpp) {
            from = dpp.source(lane, state.lanes).unwrap_or(lane);
        }
        format!("{:#x}", read_source(&state, form, index, from))
    };
    let list: Vec<String> = (0..form.src.len()).map(read).collect();
    format!("sources {}, exec {:#x}", list.join(" "), state.exec())
}
