//! Atomics of every kind, flags between workgroups, a barrier of the whole grid.

use half::{bf16, f16};

use crate::harness::{Device, Random};
use crate::{args, builds, chips};
use waveloom_emulator::Chip;
use waveloom_emulator::dispatch::Launch;

chips! { "atomics.hip": integers, tickets, floats, local, chain, last_block, grid_barrier }

builds! { "atomics.hip":
    rdna3_wave64: Gfx1100 "-O3" v 5 wave 64 => [integers, tickets, floats, local, chain];
    unoptimized_rdna4: Gfx1201 "-O0" v 5 wave 32 => [integers, tickets, floats, local, grid_barrier];
    unoptimized_cdna3: Gfx942 "-O0" v 5 wave 64 => [integers, tickets, local, chain, last_block];
    debug_cdna2: Gfx90a "-O1" v 4 wave 64 debug true => [integers, tickets, floats, grid_barrier];
}

fn integers(device: &Device) {
    let (groups, size) = (3, 96);
    let items = (groups * size) as i32;
    let words = device.buffer(&[0_i32, 0, -1, 0, 0, i32::MAX, i32::MIN]);
    let unsigned = device.buffer(&[u32::MAX - 1, 0, 0, 40]);
    let longs = device.buffer(&[0_u64, 0, 0, 0, 0, u64::MAX, 0]);
    device.run("integers", (groups, size), args![&words, &unsigned, &longs]);
    let sum: i32 = (0..items).sum();
    let fold = |f: fn(i32, i32) -> i32, start| (0..items).fold(start, f);
    let xor = fold(|a, i| a ^ (i * 77), 0);
    let expected = [sum, -sum, !0xffff, -1, xor, 50 - 3 * (items - 1), 3 * (items - 1) - 50];
    assert_eq!(device.read(&words), expected);
    // The unsigned maximum is of 5 - i, which wraps to u32::MAX at i = 6.
    let count = groups * size;
    // 40 down to 0 takes 41 steps, the last of which wraps to 99; then every 100.
    let down = 99 - (count - 41) % 100;
    assert_eq!(device.read(&unsigned), [0, u32::MAX, count % 100, down]);
    let wide = (0..items as u64).fold(0, |a, i| a ^ (0x1_0000_0001 * i));
    let last = items as u64 - 1;
    assert_eq!(
        device.read(&longs),
        [
            (sum as u64) << 30,
            u64::MAX,
            last << 33,
            -((last as i64) << 33) as u64,
            wide,
            !0xffff_ffff,
            u64::from(count % 100)
        ]
    );
}

/// Which work-item gets which ticket is open; that all are given once is not.
fn tickets(device: &Device) {
    for threads in [1, 2] {
        let (groups, size) = (5, 64);
        let count = groups * size;
        let counter = device.buffer(&[0_u32]);
        let seen = device.output::<u32>(count as usize);
        let exchanged = device.buffer(&[0_u32]);
        let (sums, wide) = (device.buffer(&[0_u32, 0]), device.buffer(&[0_u64]));
        let arguments = args![&counter, &seen, &exchanged, &sums, &wide];
        device.run_once("tickets", (groups, size), arguments, threads);
        assert_eq!(device.read(&counter), [count]);
        assert_eq!(device.read(&seen), (0..count).collect::<Vec<_>>());
        // Every value was exchanged out once, but the one that is left.
        let last = device.read(&exchanged)[0];
        let steps = (0..count).fold(0_u32, |value, _| value * 2 % 65521 + 1);
        assert_eq!(device.read(&sums), [count * (count + 1) / 2 - last, steps]);
        let total = u64::from(count * (count - 1) / 2);
        assert_eq!(device.read(&wide), [(total << 20) + u64::from(count)]);
    }
}

/// Small integers: exact in any order.
fn floats(device: &Device) {
    let (groups, size) = (3, 64);
    let count = groups * size;
    let mut start = vec![0.0_f32; 16 + count as usize];
    start[3] = -5.0;
    let sums = device.buffer(&start);
    let doubles = device.buffer(&[0.0_f64, -100.0, 100.0]);
    let halves = device.buffer(&[f16::ZERO; 2]);
    let bfloats = device.buffer(&[bf16::ZERO; 2]);
    device.run("floats", (groups, size), args![&sums, &doubles, &halves, &bfloats]);
    let sums = device.read(&sums);
    let sevens: u32 = (0..count).map(|i| i % 7).sum();
    let top = (count - 1) as f32;
    assert_eq!(sums[..5], [sevens as f32, count as f32, count as f32 * 0.25, top, -top]);
    let order: Vec<f32> = (0..count).map(|i| i as f32).collect();
    assert_eq!(sums[16..], order);
    let items = f64::from(count);
    let expected = [items * (items - 1.0) / 4.0, items - 8.0, 4.0 - items];
    assert_eq!(device.read(&doubles), expected);
    if !matches!(device.chip, Chip::Gfx1100 | Chip::Gfx1151) {
        let thirds: u32 = (0..count).map(|i| i % 3).sum();
        let expected = [f16::from_f32(count as f32), f16::from_f32(thirds as f32)];
        assert_eq!(device.read(&halves), expected);
    }
    if matches!(device.chip, Chip::Gfx942 | Chip::Gfx950 | Chip::Gfx1201) {
        // 192 ones are exact in eight bits; of twos, 256 is followed by 258 and so on, exact too.
        let expected = [bf16::from_f32(count as f32), bf16::from_f32(2.0 * count as f32)];
        assert_eq!(device.read(&bfloats), expected);
    }
}

fn local(device: &Device) {
    let count = 3000;
    let bytes = Random::new(61).list(count, |random| (random.bits() & random.bits()) as u8);
    let dx = device.buffer(&bytes);
    let (histogram, sum) = (device.output::<u32>(256), device.output::<f32>(2));
    let (wide, order) = (device.output::<u64>(4), device.output::<u32>(256));
    device.run("local", (1, 256), args![&dx, count as u32, &histogram, &sum, &wide, &order]);
    let mut expected = vec![0_u32; 256];
    bytes.iter().for_each(|byte| expected[usize::from(*byte)] += 1);
    assert_eq!(device.read(&histogram), expected);
    let total = 255 * 256 / 2_u64;
    assert_eq!(device.read(&sum), [total as f32; 2]);
    assert_eq!(device.read(&wide), [total << 31, 255 * 255, u64::MAX, total]);
    assert_eq!(device.read(&order), (0..256).collect::<Vec<u32>>());
}

/// Each workgroup waits for the one before it.
fn chain(device: &Device) {
    let groups = 40_usize;
    let (next, flags) = (device.buffer(&[0_u32]), device.buffer(&vec![0_u32; groups]));
    let values = device.output::<u32>(64 * groups);
    device.run("chain", (groups as u32, 64), args![&next, &flags, &values]);
    let mut expected: Vec<u32> = Vec::new();
    for group in 0..groups {
        for item in 0..64 {
            let before = if group > 0 { expected[(group - 1) * 64 + item] } else { item as u32 };
            expected.push(before.wrapping_mul(3).wrapping_add(group as u32));
        }
    }
    assert_eq!(device.read(&values), expected);
}

/// Small integers: exact in any order.
fn last_block(device: &Device) {
    let (count, groups) = (5000, 9_u32);
    let x = Random::new(62).list(count, |random| random.integer(50) as f32);
    let (dx, done) = (device.buffer(&x), device.buffer(&[0_u32]));
    let (partial, out) = (device.output::<f32>(groups as usize), device.output::<f32>(1));
    device.run("last_block", (groups, 128), args![&dx, count as u32, &partial, &done, &out]);
    assert_eq!(device.read(&out), [x.iter().sum::<f32>()]);
}

fn grid_barrier(device: &Device) {
    let (groups, steps) = (12_u32, 7);
    let count = 64 * groups as usize;
    let start = Random::new(63).list(count, |random| random.bits() as u32);
    let (arrived, a) = (device.buffer(&[0_u32]), device.buffer(&start));
    let b = device.output::<u32>(count);
    let launch =
        Launch { grid: [groups, 1, 1], block: [64, 1, 1], cooperative: true, ..Launch::default() };
    device.run("grid_barrier", launch, args![&arrived, &a, &b, steps as u32]);
    let mut expected = start;
    for _ in 0..steps {
        let at = |i: usize| expected[i % count];
        let sum =
            |i| at(i + count - 1).wrapping_add(2_u32.wrapping_mul(at(i))).wrapping_add(at(i + 1));
        expected = (0..count).map(sum).collect();
    }
    assert_eq!(device.read(if steps % 2 == 1 { &b } else { &a }), expected);
}
