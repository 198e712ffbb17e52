//! Pairs of operations in one instruction (VOPD): both read before either writes.

use waveloom_emulator::Chip;

use crate::exact::F32;
use crate::machine::{Bench, NAMED, Random, Report, VCC, wanted};
use crate::tables::float::{add, extreme, fma, sub, times};
use crate::values::T;
use crate::vector::Lane;

/// One of the two operations.
struct Half {
    name: &'static str,
    /// Sources in the text; a literal is `K`.
    sources: &'static [char],
    f: fn(&mut Lane, &[u64; 3]) -> u64,
    /// Two halves in each source.
    packed: bool,
}

fn dx9(l: &mut Lane, s: &[u64; 3]) -> u64 {
    let zero = |bits: u64| l.num(F32, bits).is_zero();
    if zero(s[0]) || zero(s[1]) { 0 } else { times(l, F32, s[0], s[1]) }
}

fn dot(l: &mut Lane, s: &[u64; 3], name: &str) -> u64 {
    let table = crate::tables::dot::table();
    let op = table.iter().find(|op| op.name == name).expect("a dot product");
    (op.f)(l, &[s[0], s[1], l.old, 0])
}

fn halves() -> Vec<Half> {
    let half = |name, sources, f| Half { name, sources, f, packed: false };
    vec![
        half("fmac_f32", &['x', 'v'], |l, s| fma(l, F32, s[0], s[1], l.old)),
        half("fmaak_f32", &['x', 'v', 'K'], |l, s| fma(l, F32, s[0], s[1], s[2])),
        half("fmamk_f32", &['x', 'K', 'v'], |l, s| fma(l, F32, s[0], s[1], s[2])),
        half("mul_f32", &['x', 'v'], |l, s| times(l, F32, s[0], s[1])),
        half("add_f32", &['x', 'v'], |l, s| add(l, F32, s[0], s[1])),
        half("sub_f32", &['x', 'v'], |l, s| sub(l, F32, s[0], s[1])),
        half("subrev_f32", &['x', 'v'], |l, s| sub(l, F32, s[1], s[0])),
        half("mul_dx9_zero_f32", &['x', 'v'], dx9),
        half("mov_b32", &['x'], |_, s| s[0]),
        half("cndmask_b32", &['x', 'v'], |l, s| if l.carry { s[1] } else { s[0] }),
        half("max_f32", &['x', 'v'], |l, s| extreme(l, F32, s[0], s[1], true)),
        half("min_f32", &['x', 'v'], |l, s| extreme(l, F32, s[0], s[1], false)),
        half("max_num_f32", &['x', 'v'], |l, s| extreme(l, F32, s[0], s[1], true)),
        half("min_num_f32", &['x', 'v'], |l, s| extreme(l, F32, s[0], s[1], false)),
        Half {
            name: "dot2acc_f32_f16",
            sources: &['x', 'v'],
            f: |l, s| dot(l, s, "v_dot2acc_f32_f16"),
            packed: true,
        },
        Half {
            name: "dot2acc_f32_bf16",
            sources: &['x', 'v'],
            f: |l, s| dot(l, s, "v_dot2c_f32_bf16"),
            packed: true,
        },
        half("add_nc_u32", &['x', 'v'], |_, s| (s[0] + s[1]) & 0xffff_ffff),
        half("lshlrev_b32", &['x', 'v'], |_, s| s[1] << (s[0] & 31) & 0xffff_ffff),
        half("and_b32", &['x', 'v'], |_, s| s[0] & s[1]),
    ]
}

#[derive(Clone)]
enum Place {
    Row(usize),
    Scalar(usize),
    Bits(u64),
}

struct Side {
    half: usize,
    dst: usize,
    src: Vec<Place>,
}

struct Form {
    text: String,
    sides: [Side; 2],
}

fn side_text(halves: &[Half], side: &Side) -> String {
    let mut list = vec![format!("v{}", side.dst)];
    list.extend(side.src.iter().map(|place| match place {
        Place::Row(row) => format!("v{row}"),
        Place::Scalar(index) => format!("s{index}"),
        Place::Bits(bits) => format!("{bits:#x}"),
    }));
    format!("v_dual_{} {}", halves[side.half].name, list.join(", "))
}

fn form(halves: &[Half], x: usize, y: usize, variant: usize) -> Form {
    let literal = 0x4049_0fdb;
    // Banks of sources differ between the sides, as the encoding demands.
    let rows = if variant == 1 { [[1, 3, 5], [2, 4, 6]] } else { [[1, 6, 3], [4, 7, 2]] };
    // A pair may swap values: each side reads what the other writes.
    let dst = match variant {
        1 => [2, 1],
        _ => [10, 11],
    };
    let side = |index: usize, half: usize| {
        let place = |(at, kind): (usize, &char)| match kind {
            'K' => Place::Bits(literal),
            'x' if variant == 2 => Place::Scalar(20 + 2 * index),
            'x' if variant == 3 => Place::Bits(literal),
            _ => Place::Row(rows[index][at]),
        };
        let src = halves[half].sources.iter().enumerate().map(place).collect();
        Side { half, dst: dst[index], src }
    };
    let sides = [side(0, x), side(1, y)];
    let text = format!("{} :: {}", side_text(halves, &sides[0]), side_text(halves, &sides[1]));
    Form { text, sides }
}

fn run(
    bench: &mut Bench,
    line: usize,
    form: &Form,
    halves: &[Half],
    random: &mut Random,
) -> Result<(), String> {
    for wave in 0..3 {
        let packed = form.sides.iter().any(|side| halves[side.half].packed);
        for row in 0..12 {
            for lane in 0..64 {
                let t = if packed && row < 8 && random.once_in(2) { T::PkF16 } else { T::F32 };
                bench.state.v[row][lane] = t.sample(random) as u32;
            }
        }
        bench.state.s[20] = T::F32.sample(random) as u32;
        bench.state.s[22] = T::F32.sample(random) as u32;
        let (mask, exec) = (random.bits(), [u64::MAX, random.bits(), random.bits()][wave]);
        bench.state.set_mask(VCC, mask);
        bench.set_exec(exec);
        bench.state.mode = [0xf0, 0x3c0, 0x2f0][wave];
        bench.sync_rows(0, 12);
        bench.sync_scalars();
        let before = bench.state.clone();
        bench.step(line)?;
        for side in &form.sides {
            for lane in (0..before.lanes).filter(|lane| before.on(*lane)) {
                let mut context = Lane::new(before.chip, before.mode);
                context.carry = before.mask(VCC) >> lane & 1 == 1;
                context.old = u64::from(before.v[side.dst][lane]);
                let mut sources = [0; 3];
                for (index, place) in side.src.iter().enumerate() {
                    sources[index] = match place {
                        Place::Row(row) => u64::from(before.v[*row][lane]),
                        Place::Scalar(at) => u64::from(before.s[*at]),
                        Place::Bits(bits) => *bits,
                    };
                }
                let want = (halves[side.half].f)(&mut context, &sources);
                let got = u64::from(bench.wave.rows[side.dst].0[lane]);
                let same = |want: u64| got == want || F32.is_nan(got) && F32.is_nan(want);
                if !same(want) && !context.also.iter().any(|want| same(*want)) {
                    return Err(format!(
                        "v{} lane {lane}: {got:#x}, should be {want:#x}; sources {sources:x?}",
                        side.dst
                    ));
                }
                bench.state.v[side.dst][lane] = got as u32;
            }
        }
        if let Some(difference) = bench.difference(if wave == 0 { 0..NAMED } else { 0..16 }) {
            return Err(difference);
        }
    }
    Ok(())
}

#[test]
fn dual_operations() {
    let halves = halves();
    let report = Report::default();
    for chip in Chip::ALL.into_iter().filter(|chip| chip.is_rdna()) {
        let mut forms = Vec::new();
        for x in 0..halves.len() {
            for y in (0..halves.len()).filter(|_| wanted("v_dual_")) {
                forms.extend((0..4).map(|variant| form(&halves, x, y, variant)));
            }
        }
        let lines: Vec<String> = forms.iter().map(|form| form.text.clone()).collect();
        let mut bench = Bench::new(chip, 32, &lines);
        for (line, form) in forms.iter().enumerate() {
            if !bench.has(line) {
                continue;
            }
            let mut random = Random::of(&form.text);
            if let Err(text) = run(&mut bench, line, form, &halves, &mut random) {
                report.fail(chip, form.text.split(' ').next().unwrap_or_default(), || {
                    format!("{}: {text}", form.text)
                });
                bench.resync();
            }
            report.count();
        }
    }
    report.finish(if std::env::var("CONFORM_ONLY").is_ok() { 0 } else { 300 });
}

/// Lines of this file, for the list of what is covered.
pub fn lines() -> Vec<String> {
    let halves = halves();
    let mut list = Vec::new();
    for half in 0..halves.len() {
        // Each as first and as second operation, beside one that all chips have.
        list.push(form(&halves, half, 3, 0).text);
        list.push(form(&halves, 3, half, 0).text);
    }
    list
}
