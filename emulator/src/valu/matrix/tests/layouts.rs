//! Every form on every chip: identity and random matrices of small integers, for which every
//! arithmetic is exact, through the layouts of [`super::places`].

use super::super::form::{Family, forms};
use super::encoding::{decode, encode, width};
use super::*;
use crate::wave::Row;

/// Matrices of small integers, each element at ((block * rows) + row) * columns + column.
pub struct Problem {
    pub a: Vec<i32>,
    pub b: Vec<i32>,
    pub c: Vec<i32>,
    /// For each stored element of a sparse A, its place among four.
    pub index: Vec<usize>,
}

impl Problem {
    pub fn random(form: &Form, random: &mut Random) -> Problem {
        // A bfloat16 result holds integers up to 256 only.
        let limit = if form.c == Type::Bf16 { 1 } else { 3 };
        let mut value = || random.below(2 * limit + 1) as i32 - limit as i32;
        let a = (0..form.blocks * form.m * form.stored_k()).map(|_| value()).collect();
        let b = (0..form.blocks * form.k * form.n).map(|_| value()).collect();
        let c = (0..form.blocks * form.m * form.n).map(|_| value()).collect();
        let pairs = [[0, 1], [0, 2], [0, 3], [1, 2], [1, 3], [2, 3]];
        let pair_count = if form.sparse { form.m * form.k / 4 } else { 0 };
        let index = (0..pair_count).flat_map(|_| pairs[random.below(6) as usize]).collect();
        Problem { a, b, c, index }
    }

    /// A is the identity, as far as its shape allows.
    fn identity(form: &Form, random: &mut Random) -> Problem {
        let mut problem = Problem::random(form, random);
        let depth = form.stored_k();
        for (at, value) in problem.a.iter_mut().enumerate() {
            *value = i32::from(at / depth % form.m == at % depth);
        }
        problem
    }

    /// A · B + C by the definition.
    pub fn product(&self, form: &Form) -> Vec<i64> {
        let depth = form.stored_k();
        let mut d = Vec::new();
        for block in 0..form.blocks {
            for i in 0..form.m {
                for j in 0..form.n {
                    let mut sum = i64::from(self.c[(block * form.m + i) * form.n + j]);
                    for k in 0..depth {
                        let at = (block * form.m + i) * depth + k;
                        let row = if form.sparse { 4 * (k / 2) + self.index[at] } else { k };
                        let b = self.b[(block * form.k + row) * form.n + j];
                        sum += i64::from(self.a[at]) * i64::from(b);
                    }
                    d.push(sum);
                }
            }
        }
        d
    }

    /// Puts A, B and C into the registers.
    pub fn write(
        &self,
        form: &Form,
        chip: Chip,
        select: [usize; 2],
        part: usize,
        high: bool,
        wave: &mut Wave,
    ) {
        let lanes = wave.lanes as usize;
        let depth = form.stored_k();
        let bits = [width(form.a, select[0]), width(form.b, select[1])];
        for (at, value) in self.a.iter().enumerate() {
            let (k, i, block) = (at % depth, at / depth % form.m, at / depth / form.m);
            let place = places::input(form, true, lanes, bits[0], i, k, block);
            let value = encode(form.a, select[0], chip, *value);
            place.lanes.iter().for_each(|lane| store(wave, A, *lane, place.bit, bits[0], value));
            if form.sparse {
                let (lane, first, size) = places::index(form, lanes, bits[0], i, k);
                store(wave, INDEX, lane, first + part * size, 2, self.index[at] as u64);
            }
        }
        for (at, value) in self.b.iter().enumerate() {
            let (j, k, block) = (at % form.n, at / form.n % form.k, at / form.n / form.k);
            let place = places::input(form, false, lanes, bits[1], j, k, block);
            let value = encode(form.b, select[1], chip, *value);
            place.lanes.iter().for_each(|lane| store(wave, B, *lane, place.bit, bits[1], value));
        }
        for (at, value) in self.c.iter().enumerate() {
            let (j, i, block) = (at % form.n, at / form.n % form.m, at / form.n / form.m);
            let (bit, lane) = places::output(form, lanes, i, j, block, high);
            store(wave, C, lane, bit, width(form.c, 0), encode(form.c, 0, chip, *value));
        }
    }
}

/// Reads D, which begins at a register.
pub fn read_d(form: &Form, wave: &Wave, register: usize, high: bool) -> Vec<f64> {
    let mut d = Vec::new();
    for block in 0..form.blocks {
        for i in 0..form.m {
            for j in 0..form.n {
                let (bit, lane) = places::output(form, wave.lanes as usize, i, j, block, high);
                d.push(decode(form.c, load(wave, register, lane, bit, width(form.c, 0))));
            }
        }
    }
    d
}

/// A wave whose every register holds noise, and with no lane on: EXEC is to be ignored.
pub fn noisy_wave(lanes: usize, random: &mut Random) -> Wave {
    let mut wave = Wave::new(0, lanes as u32);
    for row in wave.rows.iter_mut() {
        *row = Row(std::array::from_fn(|_| random.next() as u32));
    }
    wave.set_exec(0);
    wave
}

/// Whether results are what they should be. The sums of gfx11 are a little off even for small
/// integers, more so where every step rounds them to bfloat16.
pub fn near(form: &Form, found: &[f64], expected: &[f64]) -> bool {
    let tolerance = match (form.family, form.c) {
        (Family::Wmma11, Type::F32) => 1e-4,
        (Family::Wmma11, Type::F16) => 0.02,
        (Family::Wmma11, Type::Bf16) => 0.5,
        _ => 0.0,
    };
    found.iter().zip(expected).all(|(found, expected)| (found - expected).abs() <= tolerance)
}

fn check(
    form: &Form,
    chip: Chip,
    lanes: usize,
    problem: &Problem,
    select: [usize; 2],
    random: &mut Random,
) {
    let mut wave = noisy_wave(lanes, random);
    let integers = matches!(form.a, Type::Iu8 | Type::Iu4);
    let mut modifiers = if integers { "neg_lo:[1,1,0]".to_string() } else { String::new() };
    if form.a == Type::F8f6f4 {
        modifiers = format!("cbsz:{} blgp:{}", select[0], select[1]);
    }
    problem.write(form, chip, select, 0, false, &mut wave);
    for lane in 0..64 {
        // Scales of one.
        (wave.rows[SCALE_A].0[lane], wave.rows[SCALE_B].0[lane]) = (127, 127);
    }
    let bits = [width(form.a, select[0]), width(form.b, select[1])];
    let destination = if form.sparse { C } else { D };
    let before = wave.rows.clone();
    run(chip, &text(form, lanes, bits, &modifiers), &mut wave);
    let d = read_d(form, &wave, destination, false);
    let expected: Vec<f64> = problem.product(form).iter().map(|sum| *sum as f64).collect();
    let near = near(form, &d, &expected);
    assert!(near, "{} on {chip} with {lanes} lanes, {modifiers}", form.mnemonic);
    let size = places::registers(form, lanes, bits)[2];
    for register in (0..512).filter(|row| !(destination..destination + size).contains(row)) {
        assert_eq!(wave.rows[register].0, before[register].0, "v{register} stays");
    }
    for row in destination..destination + size {
        assert_eq!(wave.rows[row].0[lanes..], before[row].0[lanes..], "beyond the wave's lanes");
    }
}

#[test]
fn every_form_computes_products() {
    let mut random = Random(0x9e37_79b9);
    for chip in Chip::ALL {
        for form in forms(chip) {
            for lanes in widths(chip) {
                let formats = if form.a == Type::F8f6f4 { 5 } else { 1 };
                for select in (0..formats * formats).map(|at| [at / formats, at % formats]) {
                    let problem = Problem::identity(form, &mut random);
                    check(form, chip, *lanes, &problem, select, &mut random);
                    let problem = Problem::random(form, &mut random);
                    check(form, chip, *lanes, &problem, select, &mut random);
                }
            }
        }
    }
}

#[test]
fn every_part_of_the_index_register_is_reached() {
    let mut random = Random(7);
    for chip in [Chip::Gfx942, Chip::Gfx950, Chip::Gfx1201] {
        for form in forms(chip).filter(|form| form.sparse) {
            for lanes in widths(chip) {
                let bits = width(form.a, 0);
                let (.., size) = places::index(form, *lanes, bits, 0, 0);
                for part in 0..32 / size {
                    let problem = Problem::random(form, &mut random);
                    let mut wave = noisy_wave(*lanes, &mut random);
                    problem.write(form, chip, [0; 2], part, false, &mut wave);
                    let name = if form.family == Family::Mfma { "abid" } else { "index_key" };
                    let signs = matches!(form.a, Type::Iu8 | Type::Iu4);
                    let signs = if signs { "neg_lo:[1,1,0]" } else { "" };
                    let modifiers =
                        if part == 0 { String::new() } else { format!("{name}:{part}") };
                    let text = text(form, *lanes, [bits; 2], &format!("{modifiers} {signs}"));
                    run(chip, &text, &mut wave);
                    let expected: Vec<f64> =
                        problem.product(form).iter().map(|sum| *sum as f64).collect();
                    assert!(read_d(form, &wave, C, false) == expected, "{text}");
                }
            }
        }
    }
}
