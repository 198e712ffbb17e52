//! Bits of one lane, and traffic between lanes.

use crate::harness::{Device, Random};
use crate::{args, builds, chips};
use waveloom_emulator::Chip;

chips! { "wave.hip": bit_operations, votes, permutes, dpp, reductions, swaps, split_barrier }

builds! { "wave.hip":
    rdna3_wave64: Gfx1100 "-O3" v 5 wave 64 => [votes, permutes, dpp, reductions];
    rdna4_wave64: Gfx1201 "-O3" v 5 wave 64 => [votes, permutes, dpp, reductions];
    unoptimized_cdna3: Gfx942 "-O0" v 5 wave 64 => [bit_operations, votes, permutes, dpp, reductions];
    unoptimized_rdna4: Gfx1201 "-O0" v 5 wave 32 => [bit_operations, votes, permutes, dpp, split_barrier];
    debug_rdna3: Gfx1100 "-O1" v 4 wave 32 debug true => [bit_operations, votes, permutes, dpp, reductions];
}

fn bit_operations(device: &Device) {
    let count = 300;
    let mut random = Random::new(111);
    let mut draw = || random.list(count, |random| random.bits() as u32 >> random.below(32));
    let (a, b, c) = (draw(), draw(), draw());
    let (da, db, dc) = (device.buffer(&a), device.buffer(&b), device.buffer(&c));
    let out = device.output::<u32>(20 * count);
    device.run("bit_operations", (3, 128), args![&da, &db, &dc, &out, count as u32]);
    for (i, got) in device.read(&out).chunks(20).enumerate() {
        let (x, y, z) = (a[i], b[i], c[i]);
        let joined = u64::from(x) << 32 | u64::from(y);
        let bytes = joined.to_le_bytes();
        let select = |byte: u8| match byte {
            0..=7 => bytes[usize::from(byte)],
            // The signs of the 16-bit quarters.
            8..=11 => (bytes[usize::from(2 * (byte - 8) + 1)] as i8 >> 7) as u8,
            12 => 0,
            _ => 0xff,
        };
        let permuted = (z & 0x0f0f_0f0f).to_le_bytes().map(select);
        let (offset, width) = (y & 31, z & 31);
        let field = x >> offset & ((1 << width) - 1);
        let negative = width > 0 && field >> (width - 1) & 1 != 0;
        let signed = if negative { field | u32::MAX << width } else { field };
        let differences = x.to_le_bytes().into_iter().zip(y.to_le_bytes());
        let sad: u32 = differences.map(|(x, y)| u32::from(x.abs_diff(y))).sum();
        let small = |x: u32| ((x << 8) as i32 >> 8) as u32;
        let expected = [
            x.count_ones().wrapping_add(y),
            x.leading_zeros(),
            x.trailing_zeros(),
            x.reverse_bits(),
            x.swap_bytes(),
            field,
            signed,
            x & y | !x & z,
            (joined >> (z & 31)) as u32,
            (joined >> (8 * (z & 3))) as u32,
            u32::from_le_bytes(permuted),
            x.rotate_left(y & 31),
            (x << 3).wrapping_add(y),
            (x ^ y ^ z).wrapping_add(x & y | z),
            x.wrapping_add(y).wrapping_add(z),
            x.wrapping_mul(y).wrapping_add(z),
            ((i64::from(x as i32) * i64::from(y as i32)) >> 32) as u32,
            (x & 0xff_ffff).wrapping_mul(y & 0xff_ffff).wrapping_add(z),
            sad.wrapping_add(z),
            small(x).wrapping_mul(small(y)).wrapping_add(z),
        ];
        assert_eq!(got, expected, "of {x:#x}, {y:#x}, {z:#x}");
    }
}

/// Two workgroups of 128.
const ITEMS: usize = 256;

/// The lanes of a wave whose value fulfils something.
fn mask(wave: &[u32], holds: impl Fn(u32) -> bool) -> u64 {
    wave.iter().enumerate().fold(0, |mask, (lane, x)| mask | u64::from(holds(*x)) << lane)
}

fn votes(device: &Device) {
    let x = Random::new(112).list(ITEMS, |random| random.bits() as u32);
    let (dx, masks) = (device.buffer(&x), device.output::<u64>(3 * ITEMS));
    let out = device.output::<u32>(4 * ITEMS);
    device.run("votes", (2, 128), args![&dx, &masks, &out]);
    let (mut expected, mut numbers) = (Vec::new(), Vec::new());
    for wave in x.chunks(device.wave as usize) {
        for (lane, value) in wave.iter().enumerate() {
            expected.push(mask(wave, |x| x & 1 != 0));
            let below = 0x5555_5555_u64 & ((1 << lane.min(32)) - 1);
            if value & 2 != 0 {
                expected.push(mask(wave, |x| x & 6 == 6));
                numbers.push(*wave.iter().find(|x| *x & 2 != 0).expect("this one"));
            } else {
                expected.push(mask(wave, |x| x & 2 == 0));
                numbers.push(below.count_ones() + lane as u32);
            }
            expected.push(mask(wave, |_| true));
            numbers.push(wave[wave.len() / 2 + 3]);
            numbers.push(wave[wave[0] as usize % wave.len()]);
            numbers.push(u32::from(lane % 32 % 3 == 0));
        }
    }
    assert_eq!(device.read(&masks), expected);
    assert_eq!(device.read(&out), numbers);
}

fn permutes(device: &Device) {
    let mut random = Random::new(113);
    let x = random.list(ITEMS, |random| random.bits() as i32);
    let from = random.list(ITEMS, |random| random.bits() as u32);
    let (dx, df, out) = (device.buffer(&x), device.buffer(&from), device.output::<i32>(8 * ITEMS));
    device.run("permutes", (2, 128), args![&dx, &df, &out]);
    let lanes = device.wave as usize;
    // RDNA 3 permutes within 32 lanes, whatever the width of the wave.
    let span = if device.chip.is_rdna() && device.chip != Chip::Gfx1201 { 32 } else { lanes };
    let mut expected = Vec::new();
    for (wave, from) in x.chunks(lanes).zip(from.chunks(lanes)) {
        for lane in 0..lanes {
            let half = lane / span * span;
            let group = lane / 32 * 32;
            let off = |lane: usize| lane % 8 == 5;
            let if_on = |source: usize| if off(source) { 0 } else { wave[source] };
            let sender = (0..span).find(|i| (half + i) * 5 % span == (lane + span - 3) % span);
            expected.extend([
                wave[half + from[lane] as usize % span],
                wave[half + sender.expect("a permutation")],
                wave[lane ^ 1],
                wave[lane ^ 3],
                if off(lane) { -1 } else { if_on(lane ^ 1) },
                if off(lane) { -1 } else { if_on(lane ^ 16) },
                wave[group + (lane & 7 ^ 7)],
                wave[half + span - 1],
            ]);
        }
    }
    for (i, (got, expected)) in device.read(&out).chunks(8).zip(expected.chunks(8)).enumerate() {
        assert_eq!(got, expected, "work-item {i}");
    }
}

fn dpp(device: &Device) {
    let x = Random::new(114).list(ITEMS, |random| random.integer(1 << 20) as i32);
    let (dx, out) = (device.buffer(&x), device.output::<i32>(24 * ITEMS));
    device.run("dpp", (2, 128), args![&dx, &out]);
    let lanes = device.wave as usize;
    for (i, got) in device.read(&out).chunks(24).enumerate() {
        let (wave, lane) = (&x[i / lanes * lanes..][..lanes], i % lanes);
        let (row, place) = (lane / 16 * 16, lane % 16);
        let old = -(i as i32) - 1;
        // Where there is no source lane: zero with bound control, the old value without.
        let keep = |source: Option<usize>| source.map_or(old, |source| wave[source]);
        let zero = |source: Option<usize>| source.map_or(0, |source| wave[source]);
        let in_row = |place: usize| (place < 16).then_some(row + place);
        let quad = |order: [usize; 4]| wave[lane / 4 * 4 + order[lane % 4]];
        let below = |n: usize| place.checked_sub(n).and_then(in_row);
        let reverse_on = lane % 4 != 2;
        let reversed = lane ^ 3;
        let mut expected = vec![
            quad([3, 2, 1, 0]),
            quad([2, 3, 0, 1]),
            keep(in_row(place + 1)),
            zero(in_row(place + 15)),
            keep(below(1)),
            zero(below(8)),
            wave[row + (place + 15) % 16],
            wave[row + (place + 4) % 16],
            wave[row + 15 - place],
            wave[row + (place ^ 7)],
            if row / 16 % 2 == 0 { keep(below(1)) } else { old },
            if place / 4 < 2 { zero(in_row(place + 1)) } else { old },
            if !reverse_on {
                -7
            } else if reversed % 4 == 2 {
                old
            } else {
                wave[reversed]
            },
            if !reverse_on {
                -7
            } else if reversed % 4 == 2 {
                0
            } else {
                wave[reversed]
            },
        ];
        if device.chip.is_cdna() {
            let bcast15 = row.checked_sub(1);
            let bcast31 = (lane >= 32).then_some(31);
            expected.extend([
                keep(bcast15),
                keep(bcast31),
                if row / 16 % 2 == 1 { keep(bcast15) } else { old },
                if row >= 32 { zero(bcast31) } else { old },
                keep(lane.checked_sub(1)),
                zero((lane + 1 < 64).then_some(lane + 1)),
                wave[(lane + 1) % 64],
                wave[(lane + 63) % 64],
                wave[row + 5],
            ]);
        } else {
            let order = [0xf, 0xd, 0xb, 9, 7, 5, 3, 1, 0xe, 0xc, 0xa, 8, 6, 4, 2, 0];
            let cross = [7, 6, 5, 4, 3, 2, 1, 0, 15, 14, 13, 12, 11, 10, 9, 8];
            expected.extend([
                wave[row],
                wave[row + 13],
                wave[row + (place ^ 3)],
                wave[row + (place ^ 10)],
                wave[lane],
                wave[lane ^ 7],
                wave[row + order[place]],
                wave[(row ^ 16) + cross[place]],
                if lanes == 64 { wave[lane ^ 32] } else { 0 },
            ]);
        }
        expected.push(wave[row..=lane].iter().sum());
        assert_eq!(got, expected, "work-item {i}");
    }
}

/// Every fifth work-item has left.
fn reductions(device: &Device) {
    let mut random = Random::new(115);
    let x = random.list(ITEMS, |random| random.bits() as i32);
    let f = random.list(ITEMS, |random| random.real() as f32);
    let (dx, df) = (device.buffer(&x), device.buffer(&f));
    let (out, fout) = (device.output::<i32>(6 * ITEMS), device.output::<f32>(ITEMS));
    device.run("reductions", (2, 128), args![&dx, &df, &out, &fout]);
    let lanes = device.wave as usize;
    for (i, got) in device.read(&out).chunks(6).enumerate() {
        if i % 5 == 1 {
            assert_eq!(got[0], 0);
            continue;
        }
        let wave = i / lanes * lanes..i / lanes * lanes + lanes;
        let active = || wave.clone().filter(|i| i % 5 != 1).map(|i| x[i]);
        let expected = [
            active().fold(0, i32::wrapping_add),
            active().max().expect("this one"),
            active().min().expect("this one"),
            active().fold(-1, |a, b| a & b),
            active().fold(0, |a, b| a | b),
            active().fold(0, |a, b| a ^ b),
        ];
        assert_eq!(got, expected, "work-item {i}");
    }
}

/// Halves and rows change places between two registers.
fn swaps(device: &Device) {
    if device.chip != Chip::Gfx950 {
        return;
    }
    let mut random = Random::new(116);
    let mut draw = || random.list(64, |random| random.bits() as u32);
    let (x, y) = (draw(), draw());
    let (dx, dy, out) = (device.buffer(&x), device.buffer(&y), device.output::<u32>(256));
    device.run("swaps", (1, 64), args![&dx, &dy, &out]);
    for (lane, got) in device.read(&out).chunks(4).enumerate() {
        let pair = |distance: usize| match lane & distance {
            0 => [x[lane], x[lane + distance]],
            _ => [y[lane - distance], y[lane]],
        };
        assert_eq!(got, [pair(32), pair(16)].concat(), "lane {lane}");
    }
}

fn split_barrier(device: &Device) {
    if device.chip != Chip::Gfx1201 {
        return;
    }
    let x = Random::new(117).list(128, |random| random.bits() as u32);
    let (dx, out) = (device.buffer(&x), device.output::<u32>(384));
    device.run("split_barrier", (1, 128), args![&dx, &out]);
    let (mut sums, mut same, mut cross) = (Vec::new(), Vec::new(), Vec::new());
    for i in 0..128 {
        sums.push(x[127 - i].wrapping_add(x[i].wrapping_mul(x[i]).wrapping_add(1)));
        same.push(x[i / 16 * 16 + (i * 7 + 2) % 16]);
        cross.push(x[((i / 16) ^ 1) * 16 + (i * 3 + 1) % 16]);
    }
    assert_eq!(device.read(&out), [sums, same, cross].concat());
}
