//! Mistakes that are put into kernels are reported, each by its name, and nothing else is.

use waveloom_emulator::Chip;
use waveloom_emulator::check::{Mistake, Report};
use waveloom_emulator::dispatch::{LaunchError, Options};
use waveloom_emulator::wave::Fault;

use crate::args;
use crate::harness::{Argument, Build, Device, Grid};

fn device(chip: Chip) -> Device {
    let device = Device::new(Build { debug: true, ..Build::new("seeded.hip", chip) });
    device.memory().track_writes();
    device
}

fn checked(
    device: &Device,
    name: &str,
    grid: impl Into<Grid>,
    arguments: &[Argument],
) -> Result<Vec<Report>, LaunchError> {
    let options = Options { check: true, max_instructions: Some(1 << 24), ..Options::default() };
    device.try_run(name, grid, arguments, &options).map(|summary| summary.reports)
}

/// Runs a kernel that must give reports of one kind only.
fn expect(
    device: &Device,
    name: &str,
    grid: impl Into<Grid>,
    arguments: &[Argument],
    mistake: Mistake,
) -> Report {
    let reports = checked(device, name, grid, arguments)
        .unwrap_or_else(|error| panic!("{name} on {}: {error}", device.chip));
    let text: Vec<String> = reports.iter().map(ToString::to_string).collect();
    let text = text.join("\n");
    assert!(!reports.is_empty(), "{name} on {}: nothing was found", device.chip);
    let others = reports.iter().any(|report| report.mistake != mistake);
    assert!(!others, "{name} on {}:\n{text}", device.chip);
    assert!(text.contains("seeded.hip:"), "{name}: no source line in\n{text}");
    reports.into_iter().next().expect("one report")
}

fn clean(device: &Device, name: &str, grid: impl Into<Grid>, arguments: &[Argument]) {
    let reports = checked(device, name, grid, arguments)
        .unwrap_or_else(|error| panic!("{name} on {}: {error}", device.chip));
    let text: Vec<String> = reports.iter().map(ToString::to_string).collect();
    assert!(reports.is_empty(), "{name} on {}:\n{}", device.chip, text.join("\n"));
}

#[test]
fn accesses_outside_of_allocations_stop_the_launch() {
    for chip in Chip::ALL {
        let device = device(chip);
        let input = device.buffer(&[1_u32; 100]);
        let out = device.output::<u32>(100);
        clean(&device, "copy", (2, 64), args![&input, &out, 100_u32]);
        let outside =
            checked(&device, "global_out_of_bounds", (2, 64), args![&input, &out, 100_u32]);
        let Err(LaunchError::Fault(report)) = outside else { panic!("{chip}: {outside:?}") };
        let text = report.to_string();
        assert!(matches!(report.fault, Fault::Address { access: "load", .. }), "{text}");
        for word in ["past the end of test", "seeded.hip:", "lane", "400 bytes"] {
            assert!(text.contains(word), "no {word:?} in\n{text}");
        }
        let address = input.address;
        device.memory().free(address);
        let freed = checked(&device, "copy", (2, 64), args![&input, &out, 100_u32]);
        let Err(LaunchError::Fault(report)) = freed else { panic!("{chip}: {freed:?}") };
        assert!(report.to_string().contains("which was freed"), "{report}");
    }
}

#[test]
fn lds_mistakes_are_reported() {
    for chip in Chip::ALL {
        let device = device(chip);
        let out = device.output::<u32>(256);
        clean(&device, "lds_out_of_bounds", (1, 64), args![&out, 64_u32]);
        let report = expect(
            &device,
            "lds_out_of_bounds",
            (1, 64),
            args![&out, 80_u32],
            Mistake::LdsOutOfBounds,
        );
        assert!(report.detail.contains("0x100 bytes"), "{report}");
        clean(&device, "lds_exchange", (1, 256), args![&out]);
        // The missing barrier is also a read of what is not there yet.
        let racy = checked(&device, "lds_race", (1, 256), args![&out]).expect("no fault");
        assert!(racy.iter().any(|report| report.mistake == Mistake::LdsRace), "{chip}: {racy:?}");
        clean(&device, "lds_handed_over", (1, 128), args![&out]);
        let early = (1, 128);
        expect(&device, "lds_handed_over_early", early, args![&out], Mistake::LdsRace);
        expect(&device, "lds_uninitialized", (1, 64), args![&out], Mistake::UninitializedLds);
        let report = expect(&device, "misaligned", (1, 64), args![&out], Mistake::Misaligned);
        assert!(report.detail.contains("no multiple of 16"), "{report}");
    }
}

#[test]
fn races_in_global_memory_are_reported() {
    for chip in Chip::ALL {
        let device = device(chip);
        let (out, parts) = (device.buffer(&[0_u32]), device.buffer(&[0_u32; 16]));
        let count = device.buffer(&[0_u32]);
        expect(&device, "global_race", (4, 64), args![&out], Mistake::GlobalRace);
        clean(&device, "global_atomic", (4, 64), args![&out]);
        clean(&device, "last_workgroup", (16, 64), args![&parts, &count, &out, 16_u32]);
        assert_eq!(device.read(&out), [136]);
    }
}

#[test]
fn uninitialized_memory_is_reported() {
    for chip in Chip::ALL {
        let device = device(chip);
        let out = device.output::<u32>(100);
        let address = device.memory().allocate(400, "fresh").expect("memory");
        device.memory().mark_written(address, 200);
        let arguments = args![address, &out, 100_u32];
        let report = expect(&device, "copy", (2, 64), arguments, Mistake::UninitializedGlobal);
        assert!(report.detail.contains("byte 0xc8 of fresh (400 bytes)"), "{report}");
        device.memory().fill(address, 0, 400).expect("our own memory");
        clean(&device, "copy", (2, 64), args![address, &out, 100_u32]);
        device.memory().free(address);
    }
}

#[test]
fn barriers_that_do_not_meet_are_reported() {
    for chip in Chip::ALL {
        let device = device(chip);
        let out = device.output::<u32>(128);
        expect(&device, "divergent_barrier", (1, 64), args![&out], Mistake::DivergentBarrier);
        let wave = device.wave;
        expect(&device, "unequal_barriers", (1, 2 * wave), args![&out], Mistake::UnequalBarriers);
    }
}

#[test]
fn missing_waits_are_reported() {
    for chip in Chip::ALL {
        let device = device(chip);
        let (input, out) = (device.buffer(&[3_u32; 256]), device.output::<u32>(256));
        let report =
            expect(&device, "missing_wait", (1, 64), args![&input, &out], Mistake::MissingWait);
        assert!(report.detail.starts_with("v40 is filled by `global_load"), "{report}");
        let arguments = args![&input, &out];
        let report =
            expect(&device, "missing_scalar_wait", (1, 64), arguments, Mistake::MissingWait);
        assert!(report.detail.starts_with("s40 is filled by `s_load"), "{report}");
        expect(
            &device,
            "missing_wait_before_barrier",
            (1, 256),
            args![&out],
            Mistake::MissingWaitBeforeBarrier,
        );
        let report =
            expect(&device, "unwritten_register", (1, 64), args![&out], Mistake::UnwrittenRegister);
        assert_eq!(report.detail, "v99");
    }
}
