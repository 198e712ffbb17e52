//! Jumps, calls, modes, barriers, the end of a wave.

use waveloom_emulator::Chip;
use waveloom_emulator::wave::State as WaveState;

use crate::machine::{Bench, NAMED, Report, VCC, wanted};

/// A line whose jump goes to the line with a number.
fn jumps() -> Vec<(&'static str, fn(&mut Bench) -> bool)> {
    vec![
        ("s_branch", |_| true),
        ("s_cbranch_scc0", |bench| !bench.state.scc),
        ("s_cbranch_scc1", |bench| bench.state.scc),
        ("s_cbranch_vccz", |bench| bench.state.mask(VCC) == 0),
        ("s_cbranch_vccnz", |bench| bench.state.mask(VCC) != 0),
        ("s_cbranch_execz", |bench| bench.state.exec() == 0),
        ("s_cbranch_execnz", |bench| bench.state.exec() != 0),
    ]
}

/// What every test here does: a bench, its lines, a name for reports.
fn each_chip(lines: &[String], mut f: impl FnMut(Chip, &mut Bench, &Report)) {
    let report = Report::default();
    for chip in Chip::ALL {
        let lanes = if chip.is_cdna() { 64 } else { 32 };
        let mut bench = Bench::new(chip, lanes, lines);
        f(chip, &mut bench, &report);
    }
    report.finish(0);
}

fn expect(report: &Report, chip: Chip, name: &str, wrong: Option<String>) {
    report.count();
    if let Some(text) = wrong {
        report.fail(chip, name, || text);
    }
}

#[test]
fn branches_go_where_they_say() {
    let table = jumps();
    let mut lines = vec!["s_nop 0".to_string()];
    for (name, _) in &table {
        lines.push(format!("{name} line0"));
        lines.push(format!("{name} line{}", table.len() * 2 + 1));
    }
    lines.push("s_nop 1".to_string());
    each_chip(&lines, |chip, bench, report| {
        for (index, (name, holds)) in table.iter().enumerate().filter(|row| wanted(row.1.0)) {
            for (line, target) in [(2 * index + 1, 0), (2 * index + 2, table.len() * 2 + 1)] {
                for bits in 0..8_u64 {
                    bench.state.scc = bits & 1 == 1;
                    // A mask is zero when all bits of the wave are.
                    bench.state.set_mask(VCC, if bits & 2 == 0 { 0 } else { 1 << 31 });
                    bench.set_exec(if bits & 4 == 0 { 0 } else { 1 << 17 });
                    bench.sync_scalars();
                    let taken = holds(bench);
                    let want = if taken {
                        bench.address(target)
                    } else {
                        bench.address(line) + bench.size(line)
                    };
                    let outcome = bench.execute(line).err();
                    let wrong = outcome.or_else(|| bench.difference(0..NAMED)).or_else(|| {
                        let got = bench.next_address();
                        (got != want).then(|| format!("goes to {got:#x}, not {want:#x}"))
                    });
                    expect(report, chip, name, wrong);
                }
            }
        }
    });
}

#[test]
fn calls_and_computed_jumps() {
    let lines = [
        "s_getpc_b64 s[10:11]",
        "s_setpc_b64 s[2:3]",
        "s_swappc_b64 s[10:11], s[2:3]",
        "s_call_b64 s[10:11], line0",
        "s_nop 0",
    ]
    .map(str::to_string);
    each_chip(&lines, |chip, bench, report| {
        let target = bench.address(4);
        for line in 0..4 {
            let name = lines[line].split(' ').next().unwrap_or_default();
            if !bench.has(line) || !wanted(name) {
                continue;
            }
            bench.state.set_pair(2, target);
            bench.state.set_pair(10, 0x1234_5678_9abc_def0);
            bench.sync_scalars();
            let next = bench.address(line) + bench.size(line);
            if line != 1 {
                bench.state.set_pair(10, next);
            }
            let want = match line {
                0 => next,
                3 => bench.address(0),
                _ => target,
            };
            let outcome = bench.execute(line).err();
            let wrong = outcome.or_else(|| bench.difference(0..NAMED)).or_else(|| {
                let got = bench.next_address();
                (got != want).then(|| format!("goes to {got:#x}, not {want:#x}"))
            });
            expect(report, chip, name, wrong);
        }
    });
}

#[test]
fn modes_are_read_and_written() {
    let lines = [
        "s_getreg_b32 s10, hwreg(HW_REG_MODE)",
        "s_getreg_b32 s10, hwreg(HW_REG_MODE, 4, 4)",
        "s_setreg_b32 hwreg(HW_REG_MODE, 0, 4), s2",
        "s_setreg_b32 hwreg(HW_REG_MODE, 4, 2), s2",
        "s_setreg_imm32_b32 hwreg(HW_REG_MODE, 0, 8), 0x5a",
        "s_round_mode 0x5",
        "s_denorm_mode 0x6",
    ]
    .map(str::to_string);
    each_chip(&lines, |chip, bench, report| {
        for (line, text) in lines.iter().enumerate() {
            let name = text.split(' ').next().unwrap_or_default();
            if !bench.has(line) || !wanted(name) {
                continue;
            }
            for value in [0_u32, 0xf, 0x5, 0xffff_fff0, 3] {
                bench.state.mode = 0xc6;
                bench.state.s[2] = value;
                bench.state.s[10] = 0x1111;
                bench.sync_scalars();
                match line {
                    0 => bench.state.s[10] = 0xc6,
                    1 => bench.state.s[10] = 0xc,
                    2 => bench.state.mode = 0xc0 | value & 0xf,
                    3 => bench.state.mode = 0xc6 & !0x30 | (value & 3) << 4,
                    4 => bench.state.mode = 0x5a,
                    5 => bench.state.mode = 0xc5,
                    _ => bench.state.mode = 0x66,
                }
                let wrong = bench.step(line).err().or_else(|| bench.difference(0..NAMED));
                expect(report, chip, name, wrong);
                if report_differs(bench) {
                    bench.resync();
                }
            }
        }
    });
}

fn report_differs(bench: &Bench) -> bool {
    bench.difference(0..0).is_some()
}

/// What ends a wave, or makes it wait for others.
const WAITS: [&str; 8] = [
    "s_endpgm",
    "s_barrier",
    "s_barrier_signal -1",
    "s_barrier_signal_isfirst -1",
    "s_get_barrier_state s10, -1",
    "s_barrier_wait -1",
    "s_sleep 2",
    "s_sleep_var s4",
];

#[test]
fn waves_end_wait_and_yield() {
    let lines = WAITS.map(str::to_string);
    each_chip(&lines, |chip, bench, report| {
        for (line, text) in lines.iter().enumerate() {
            let name = text.split(' ').next().unwrap_or_default();
            if !bench.has(line) || !wanted(name) {
                continue;
            }
            // Three waves, so that two alone complete no barrier.
            for before in [0, 1] {
                bench.group.live_waves = 3;
                bench.group.signaled = before;
                bench.wave.state = WaveState::Running;
                bench.state.scc = before == 1;
                bench.sync_scalars();
                match name {
                    "s_barrier_signal_isfirst" => bench.state.scc = before == 0,
                    "s_get_barrier_state" => bench.state.s[10] = before << 16 | 3 << 4 | 1,
                    _ => {}
                }
                let outcome = bench.execute(line).err().or_else(|| bench.difference(0..NAMED));
                let (state, signaled) = (bench.wave.state, bench.group.signaled - before);
                let good = match name {
                    "s_endpgm" => state == WaveState::Ended,
                    "s_barrier" => state == WaveState::Barrier && signaled == 1,
                    "s_barrier_signal" | "s_barrier_signal_isfirst" => {
                        state == WaveState::Running && signaled == 1
                    }
                    "s_get_barrier_state" => state == WaveState::Running && signaled == 0,
                    "s_sleep" | "s_sleep_var" => {
                        matches!(state, WaveState::Running | WaveState::Yielded)
                    }
                    _ => matches!(state, WaveState::Running | WaveState::Barrier),
                };
                let wrong = outcome.or_else(|| (!good).then(|| format!("the wave is {state:?}")));
                expect(report, chip, name, wrong);
            }
            bench.wave.state = WaveState::Running;
        }
    });
}

/// Clocks and answers of the system, and how many registers they fill.
const ANSWERS: [(&str, usize); 4] = [
    ("s_memtime s[10:11]", 2),
    ("s_memrealtime s[10:11]", 2),
    ("s_sendmsg_rtn_b64 s[10:11], sendmsg(MSG_RTN_GET_REALTIME)", 2),
    ("s_sendmsg_rtn_b32 s10, sendmsg(MSG_RTN_GET_DOORBELL)", 1),
];

/// No document says what they give, but that time goes on, and that they write nothing else.
#[test]
fn clocks_go_on() {
    let lines = ANSWERS.map(|(line, _)| line.to_string());
    each_chip(&lines, |chip, bench, report| {
        for (line, (text, count)) in ANSWERS.into_iter().enumerate() {
            let name = text.split(' ').next().unwrap_or_default();
            if !bench.has(line) || !wanted(name) {
                continue;
            }
            let mut last = 0;
            for _ in 0..3 {
                bench.sync_scalars();
                let outcome = bench.step(line).err();
                bench.state.s[10..10 + count].copy_from_slice(&bench.wave.sgpr[10..10 + count]);
                let (now, clock) = (bench.state.pair(10), count == 2);
                let back = clock && now < last.max(1);
                let wrong = outcome
                    .or_else(|| bench.difference(0..NAMED))
                    .or_else(|| back.then(|| format!("{now} after {last}")));
                expect(report, chip, name, wrong);
                last = now;
            }
        }
    });
}

/// Lines of this file, for the list of what is covered.
pub fn lines() -> Vec<String> {
    let jumps = jumps().into_iter().map(|(name, _)| format!("{name} 0"));
    let more = [
        "s_getpc_b64 s[10:11]",
        "s_setpc_b64 s[2:3]",
        "s_swappc_b64 s[10:11], s[2:3]",
        "s_call_b64 s[10:11], 0",
        "s_getreg_b32 s10, hwreg(HW_REG_MODE)",
        "s_setreg_b32 hwreg(HW_REG_MODE, 0, 4), s2",
        "s_setreg_imm32_b32 hwreg(HW_REG_MODE, 0, 8), 0x5a",
        "s_round_mode 0x5",
        "s_denorm_mode 0x6",
    ];
    let answers = ANSWERS.map(|(line, _)| line.to_string());
    jumps.chain(more.into_iter().chain(WAITS).map(str::to_string)).chain(answers).collect()
}
