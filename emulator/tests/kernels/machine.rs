//! Private memory, calls, pointers, globals, narrow accesses, grids, buffers.

use half::f16;

use crate::harness::{Device, Random, assert_same, from_bytes, to_bytes};
use crate::{args, builds, chips};
use waveloom_emulator::check::Mistake;
use waveloom_emulator::dispatch::{Launch, Options};

chips! { "machine.hip": sort_private, private_widths, generic, calls, pointers, virtual_calls, globals,
narrow, unaligned, shorts, volume, places, hidden_arguments, buffers, halves }

builds! { "machine.hip":
    rdna3_wave64: Gfx1100 "-O3" v 5 wave 64 => [sort_private, private_widths, generic, calls, pointers,
        narrow, places];
    rdna4_wave64: Gfx1201 "-O3" v 6 wave 64 => [sort_private, generic, calls, virtual_calls, volume];
    unoptimized_cdna2: Gfx90a "-O0" v 5 wave 64 => [sort_private, private_widths, generic, calls, pointers,
        virtual_calls, narrow, unaligned, volume, hidden_arguments];
    unoptimized_cdna4: Gfx950 "-O0" v 4 wave 64 => [sort_private, calls, pointers, shorts, places, buffers];
    unoptimized_rdna3: Gfx1100 "-O0" v 6 wave 32 => [sort_private, private_widths, generic, calls,
        virtual_calls, narrow, shorts, halves];
    unoptimized_rdna4: Gfx1201 "-O0" v 5 wave 32 => [private_widths, generic, calls, pointers, narrow,
        unaligned, hidden_arguments, buffers];
    debug_cdna3: Gfx942 "-O1" v 4 wave 64 debug true => [sort_private, generic, calls, pointers, globals,
        narrow, volume, places];
}

/// Launched as 2 workgroups of 64 in most of these.
const ITEMS: usize = 128;

fn sort_private(device: &Device) {
    let n = 17;
    let x = Random::new(71).list(ITEMS * n, |random| random.integer(1000) as i32);
    let (dx, out) = (device.buffer(&x), device.output::<i32>(x.len()));
    device.run("sort_private", (2, 64), args![&dx, &out, n as u32]);
    let mut expected = x;
    expected.chunks_mut(n).for_each(|chunk| chunk.sort());
    assert_eq!(device.read(&out), expected);
}

fn private_widths(device: &Device) {
    let pick = Random::new(72).list(ITEMS, |random| random.bits() as u32);
    let (dp, out) = (device.buffer(&pick), device.output::<f64>(ITEMS));
    device.run("private_widths", (2, 64), args![&dp, &out]);
    let value = |(i, pick): (usize, &u32)| {
        let (i, j) = (i as u32, pick % 6);
        let byte = (i * 7 + j) as u8;
        let word = -((i * 11 + j) as i16);
        let real = f64::from(i) * 0.5 + f64::from(j);
        let quad = i + (pick & 3) * j;
        let wide = (u64::from(i) << 33 | u64::from(j)) >> 3;
        f64::from(byte) + f64::from(word) + real + f64::from(quad) + wide as f64
    };
    let expected: Vec<f64> = pick.iter().enumerate().map(value).collect();
    assert_eq!(device.read(&out), expected);
}

fn generic(device: &Device) {
    let pick = Random::new(73).list(64, |random| random.below(1000) as u32);
    let (global, dp) = (device.buffer(&[3000_u32; 64]), device.buffer(&pick));
    let out = device.output::<u32>(128);
    device.run("generic", (1, 64), args![&global, &dp, &out]);
    let (mut expected, mut sums, mut memory) = (Vec::new(), Vec::new(), [3000; 64]);
    for (i, pick) in pick.iter().enumerate() {
        let lane = i as u32;
        let mut sum = 4 * (1000 + 10 * lane) + 6;
        expected.push(match pick % 3 {
            0 => {
                sum += 5;
                1005 + 10 * lane + pick / 3 % 4 + 100_000
            }
            1 => 2005 + lane + 200_000,
            _ => {
                memory[i] += 5;
                3005 + 300_000
            }
        });
        sums.push(sum);
    }
    expected.extend(sums);
    assert_eq!(device.read(&out), expected);
    assert_eq!(device.read(&global), memory);
}

fn calls(device: &Device) {
    let x: Vec<f32> = (0..ITEMS).map(|i| i as f32 * 0.25 - 8.0).collect();
    let dx = device.buffer(&x);
    let out = device.output::<f32>(2 * ITEMS);
    let (numbers, sums) = (device.output::<u64>(3 * ITEMS), device.output::<f64>(ITEMS));
    device.run("calls", (2, 64), args![&dx, &out, &numbers, &sums]);
    let fibonacci = |n: usize| (0..n).fold((0_u64, 1_u64), |(a, b), _| (b, a + b)).0;
    let (mut floats, mut integers, mut doubles) = (Vec::new(), Vec::new(), Vec::new());
    for (i, x) in x.iter().enumerate() {
        // Exact in f32, whether or not the products are fused.
        floats.push(x * x + (x * x + 1.0));
        let (mut sum, mut product, mut counts) = (0.0_f32, 1.0_f32, [0_u32; 12]);
        for j in 0..i % 5 + 1 {
            let value = (i + j) as f32;
            sum += value;
            product *= value;
            counts[(i + j) % 12] += 1;
        }
        floats.push(sum + product + counts[i % 12] as f32);
        // The second Ackermann function is 2n + 3.
        integers.extend([fibonacci(i % 12), u64::from(i % 2 == 0), 2 * (i as u64 % 4) + 3]);
        let i = i as i64;
        let dot: i64 = (0..16).map(|j| (i + j) * (3 * i - (15 - j))).sum();
        doubles.push(0.5 - (i << 20) as f64 + f64::from(*x) - 3.0 + dot as f64);
    }
    assert_eq!(device.read(&out), floats);
    assert_eq!(device.read(&numbers), integers);
    assert_eq!(device.read(&sums), doubles);
}

fn pointers(device: &Device) {
    let mut random = Random::new(75);
    let mut draw = || random.list(ITEMS, |random| random.bits() as u32);
    let (which, a, b) = (draw(), draw(), draw());
    let (dw, da, db) = (device.buffer(&which), device.buffer(&a), device.buffer(&b));
    let out = device.output::<u32>(ITEMS);
    device.run("pointers", (2, 64), args![&dw, &da, &db, &out]);
    let apply = |i: usize| match which[i] % 4 {
        0 => a[i].wrapping_add(b[i]),
        1 => a[i].wrapping_sub(b[i]),
        2 => a[i].wrapping_mul(b[i]),
        _ => a[i] / (b[i] | 1),
    };
    assert_eq!(device.read(&out), (0..ITEMS).map(apply).collect::<Vec<_>>());
}

fn virtual_calls(device: &Device) {
    let x: Vec<f32> = (0..ITEMS).map(|i| (i % 9) as f32 - 4.0).collect();
    let (dx, out) = (device.buffer(&x), device.output::<f32>(ITEMS));
    device.run("virtual_calls", (2, 64), args![&dx, &out]);
    let area = |x: &f32| if *x > 0.0 { 3.0 * x * x } else { x * 4.0 };
    assert_eq!(device.read(&out), x.iter().map(area).collect::<Vec<f32>>());
}

fn globals(device: &Device) {
    let pick = Random::new(76).list(ITEMS, |random| random.bits() as u32);
    let (dp, out) = (device.buffer(&pick), device.output::<f32>(ITEMS));
    let counter = || {
        let mut bytes = [0; 4];
        device.memory().read(device.global("counter"), &mut bytes).expect("a variable");
        u32::from_le_bytes(bytes)
    };
    let before = counter();
    device.run_once("globals", (2, 64), args![&dp, &out], 2);
    assert_eq!(counter() - before, ITEMS as u32);
    let table = [1.0_f32, 2.5, -3.0, 4.0, 0.125, 6.0, 7.0, 8.0];
    let steps =
        [3.0_f32, 1.0, 4.0, 1.0, 5.0, 9.0, 2.0, 6.0, 5.0, 3.0, 5.0, 8.0, 9.0, 7.0, 9.0, 3.0];
    let letters = b"the quick brown fox jumps over the lazy dog";
    let value = |pick: &u32| {
        let pick = *pick as usize;
        table[pick % 8] * steps[pick / 8 % 16] + f32::from(letters[pick % 43])
    };
    assert_eq!(device.read(&out), pick.iter().map(value).collect::<Vec<f32>>());
}

fn narrow(device: &Device) {
    let mut random = Random::new(77);
    let a = random.list(64, |random| random.bits() as u8);
    let b = random.list(64, |random| random.bits() as i8);
    let c = random.list(64, |random| random.bits() as u16);
    let d = random.list(64, |random| random.bits() as i16);
    let (da, db, dc, dd) =
        (device.buffer(&a), device.buffer(&b), device.buffer(&c), device.buffer(&d));
    let (out8, out16, out32) =
        (device.output::<u8>(64), device.output::<i16>(64), device.output::<i32>(64));
    device.run("narrow", (1, 64), args![&da, &db, &dc, &dd, &out8, &out16, &out32]);
    let local8: Vec<u8> = a.iter().map(|x| x.wrapping_add(1)).collect();
    let local16: Vec<i16> = d.iter().rev().map(|x| x.wrapping_sub(1)).collect();
    let (mut e8, mut e16, mut e32) = (Vec::new(), Vec::new(), Vec::new());
    for i in 0..64 {
        e8.push(local8[(i + 1) % 64] ^ b[i] as u8);
        e16.push(local16[i].wrapping_add(c[i].wrapping_mul(3) as i16));
        let product = i32::from(local8[63 - i] as i8) * i32::from(b[i]);
        let other = i32::from(c[i]).wrapping_mul(i32::from(d[i]));
        let joined = i32::from(a[i]) << 8 | i32::from(b[i] as u8);
        e32.push(product.wrapping_sub(other).wrapping_add(joined));
    }
    assert_eq!(device.read(&out8), e8);
    assert_eq!(device.read(&out16), e16);
    assert_eq!(device.read(&out32), e32);
}

/// Structures of 15 bytes.
fn unaligned(device: &Device) {
    let bytes = Random::new(78).list(15 * ITEMS, |random| random.bits() as u8);
    let (dx, out) = (device.buffer(&bytes), device.output::<u8>(bytes.len()));
    device.run_once("unaligned", (2, 64), args![&dx, &out], 2);
    let options = Options { check: true, ..Options::default() };
    let summary = device.try_run("unaligned", (2, 64), args![&dx, &out], &options);
    let reports = summary.expect("no fault").reports;
    assert!(!reports.is_empty(), "misaligned accesses are no faults, but they are told");
    for report in reports {
        assert_eq!(report.mistake, Mistake::Misaligned, "{report}");
    }
    let mut expected = Vec::new();
    for item in bytes.chunks(15) {
        let tag = item[0].wrapping_add(1);
        let value: u32 = from_bytes(&item[1..5])[0];
        let extra: u16 = from_bytes(&item[5..7])[0];
        let wide: u64 = from_bytes(&item[7..15])[0];
        expected.push(tag);
        expected.extend(to_bytes(&[value.wrapping_mul(3).wrapping_add(u32::from(tag))]));
        expected.extend(to_bytes(&[extra ^ 0x5a5a]));
        expected.extend(to_bytes(&[wide.rotate_right(7)]));
    }
    assert_eq!(device.read(&out), expected);
}

fn shorts(device: &Device) {
    let pairs = 100;
    let mut random = Random::new(79);
    let mut draw = || random.list(2 * pairs, |random| random.bits() as i16);
    let (a, b) = (draw(), draw());
    let (da, db) = (device.buffer(&a), device.buffer(&b));
    let (out, unsigned) = (device.output::<i16>(8 * pairs), device.output::<u16>(4 * pairs));
    device.run("shorts", (2, 64), args![&da, &db, &out, &unsigned, pairs as u32]);
    let (mut expected, mut expected_unsigned) = (Vec::new(), Vec::new());
    for i in 0..pairs {
        let of = |f: &dyn Fn(i16, i16, i16) -> i16| {
            [0, 1].map(|j| f(a[2 * i + j], b[2 * i + j], a[2 * i + 1 - j]))
        };
        expected.extend(of(&|x, y, _| x.wrapping_mul(y).wrapping_add(x)));
        expected.extend(of(&|x, y, other| x.wrapping_sub(y).max(other)));
        expected.extend(of(&|x, y, _| x.saturating_add(y)));
        expected.extend(of(&|x, y, _| x >> (y & 15)));
        let unsigned = |f: &dyn Fn(u16, u16) -> u16| {
            of(&|x, y, _| f(x as u16, y as u16) as i16).map(|x| x as u16)
        };
        expected_unsigned.extend(unsigned(&|x, y| x.min(y) << (y & 15)));
        expected_unsigned.extend(unsigned(&u16::saturating_sub));
    }
    assert_eq!(device.read(&out), expected);
    assert_eq!(device.read(&unsigned), expected_unsigned);
}

fn volume(device: &Device) {
    let [width, height, depth] = [13_usize, 7, 5];
    let x = Random::new(80).list(width * height * depth, |random| random.bits() as u32);
    let (dx, out) = (device.buffer(&x), device.output::<u32>(x.len()));
    let grid = ([4, 2, 3], [4, 4, 2]);
    let sizes = [width, height, depth].map(|size| size as u32);
    device.run("volume", grid, args![&dx, &out, sizes[0], sizes[1], sizes[2]]);
    let mut expected = vec![0; x.len()];
    for (i, value) in x.iter().enumerate() {
        let (x, y, z) = (i % width, i / width % height, i / width / height);
        expected[(x * height + y) * depth + z] = value.wrapping_mul(2).wrapping_add(1);
    }
    assert_eq!(device.read(&out), expected);
}

/// The shapes of launches with and without partial workgroups at the edges.
fn shapes() -> [Launch; 2] {
    let whole = Launch { grid: [3, 2, 2], block: [5, 4, 3], ..Launch::default() };
    [whole, Launch { global: Some([13, 7, 5]), ..whole }]
}

fn places(device: &Device) {
    for launch in shapes() {
        let global = launch.work_items().map(|items| items as u32);
        let count = global.iter().product::<u32>() as usize;
        let out = device.output::<u32>(8 * count);
        device.run("places", launch, args![&out]);
        let pack = |x: [u32; 3]| x[0] | x[1] << 10 | x[2] << 20;
        let mut expected = Vec::new();
        for z in 0..global[2] {
            for y in 0..global[1] {
                for x in 0..global[0] {
                    let at = [x, y, z];
                    let item = std::array::from_fn(|axis| at[axis] % launch.block[axis]);
                    let group: [u32; 3] = std::array::from_fn(|axis| at[axis] / launch.block[axis]);
                    // The compiler's builtin tells the size of a full workgroup.
                    expected.extend([pack(item), pack(group), pack(launch.block)]);
                    expected.extend(global);
                    expected.extend([global[0].div_ceil(launch.block[0]), device.wave]);
                }
            }
        }
        let got = device.read(&out);
        for (got, expected) in got.chunks(8).zip(expected.chunks(8)) {
            assert_eq!(got, expected);
        }
    }
}

fn hidden_arguments(device: &Device) {
    for launch in shapes() {
        let global = launch.work_items().map(|items| items as u32);
        let out = device.output::<u32>(13);
        device.run("hidden_arguments", launch, args![&out]);
        let full: Vec<u32> = (0..3).map(|axis| global[axis] / launch.block[axis]).collect();
        let rest: Vec<u32> = (0..3).map(|axis| global[axis] % launch.block[axis]).collect();
        let expected = [full, launch.block.to_vec(), rest, vec![0; 3], vec![3]].concat();
        assert_eq!(device.read(&out), expected);
    }
}

/// A buffer that is shorter than what is read and written.
fn buffers(device: &Device) {
    let words = 4 * ITEMS;
    let bytes = words * 4 - 56;
    let x = Random::new(81).list(words, |random| random.bits() as u32);
    let (dx, out) = (device.buffer(&x), device.output::<u32>(words));
    device.run("buffers", (2, 64), args![&dx, &out, bytes as u32]);
    let memory = to_bytes(&x);
    // Bounds are checked for each 32-bit part of a wide access.
    let load = |at: usize, width: usize| {
        let mut value = [0; 4];
        if at + width <= bytes {
            value[..width].copy_from_slice(&memory[at..at + width]);
        }
        u32::from_le_bytes(value)
    };
    let mut expected = vec![0xc5c5_c5c5; words];
    for i in 0..ITEMS {
        let mut four: [u32; 4] = std::array::from_fn(|part| load(16 * i + 4 * part, 4));
        let two: [u32; 2] = std::array::from_fn(|part| load(8 * i + 16 + 4 * part, 4));
        four[0] = four[0].wrapping_add(two[0]).wrapping_add(load(4 * i + 4, 4));
        four[3] = four[3].wrapping_add(two[1] ^ load(2 * i + 2, 2) << 8 ^ load(i + 1, 1));
        for (part, value) in four.into_iter().enumerate() {
            if 16 * i + 4 * part + 4 <= bytes {
                expected[4 * i + part] = value;
            }
        }
    }
    assert_eq!(device.read(&out), expected);
}

fn halves(device: &Device) {
    let count = 100;
    let mut random = Random::new(82);
    let mut draw = |count| random.list(count, |random| f16::from_f64(random.real() * 100.0));
    let (a, b) = (draw(3 * count), draw(2 * count));
    let c = Random::new(83).list(2 * count, |random| random.bits() as u8);
    let (da, db, dc) = (device.buffer(&a), device.buffer(&b), device.buffer(&c));
    let (out, mixed) = (device.output::<f16>(2 * count), device.output::<u16>(2 * count));
    device.run("halves", (2, 64), args![&da, &db, &dc, &out, &mixed, count as u32]);
    let (mut expected, mut expected_mixed) = (Vec::new(), Vec::new());
    for i in 0..count {
        let (x, y) = (a[3 * i].to_f64(), b[2 * i + 1].to_f64());
        // The doubling is exact, so fused or not is the same.
        expected.extend([f16::from_f64(2.0 * x + y), f16::from_f64(2.0 * y + x)]);
        let second = c[i + count] as i8 as u16;
        expected_mixed.extend([(u16::from(c[i]) * 3).wrapping_add(second), second]);
    }
    assert_same(&device.read(&out), &expected);
    assert_eq!(device.read(&mixed), expected_mixed);
}
