//! Code objects that lie: every one gives an error or a fault, none takes the process down.

use std::sync::Arc;

use crate::harness::{Build, Random};
use waveloom_emulator::Chip;
use waveloom_emulator::dispatch::{Launch, LaunchError, Options, launch};
use waveloom_emulator::memory::Memory;
use waveloom_emulator::object::{Object, ObjectError};
use waveloom_emulator::wave::Fault;

const CHIPS: [Chip; 2] = [Chip::Gfx942, Chip::Gfx1201];

fn good(chip: Chip) -> Vec<u8> {
    Build::new("scale.hip", chip).object()
}

fn memory() -> Arc<Memory> {
    Arc::new(Memory::reserve(1 << 24).expect("address space"))
}

/// Runs `scale` of an object on 100 numbers; what it answers is open, that it answers is not.
fn run(object: &Object, memory: &Arc<Memory>) -> Result<Vec<u8>, Option<LaunchError>> {
    let kernel = object.kernels().next().ok_or(None)?;
    let address = memory.allocate(400, "numbers").ok_or(None)?;
    let numbers: Vec<u8> = (0..100).flat_map(|i| (i as f32).to_le_bytes()).collect();
    memory.write(address, &numbers).expect("our own memory");
    let mut kernarg = address.to_le_bytes().to_vec();
    kernarg.extend(2.0_f32.to_le_bytes());
    kernarg.extend(100_u32.to_le_bytes());
    let shape = Launch { grid: [2, 1, 1], block: [64, 1, 1], ..Launch::default() };
    let options = Options { threads: 1, max_instructions: Some(20_000), ..Options::default() };
    let done = launch(kernel, &shape, &kernarg, memory, &options);
    let mut bytes = vec![0; 400];
    memory.read(address, &mut bytes).expect("our own memory");
    memory.free(address);
    done.map(|_| bytes).map_err(Some)
}

/// Loads and runs; the error, if there is one.
fn error_of(bytes: &[u8], chip: Chip) -> Option<String> {
    let memory = memory();
    match Object::load(bytes, chip, &memory) {
        Err(error) => Some(error.to_string()),
        Ok(object) => match run(&object, &memory) {
            Ok(_) => None,
            Err(error) => Some(error.map_or("no kernel".to_string(), |error| error.to_string())),
        },
    }
}

#[test]
fn the_good_object_runs() {
    for chip in Chip::ALL {
        let memory = memory();
        let object = Object::load(&good(chip), chip, &memory).expect("a good object");
        let expected: Vec<u8> = (0..100).flat_map(|i| (2.0 * i as f32).to_le_bytes()).collect();
        assert!(run(&object, &memory).ok() == Some(expected), "{chip}");
    }
}

#[test]
fn every_truncation_is_an_error_or_harmless() {
    for chip in CHIPS {
        let bytes = good(chip);
        let memory = memory();
        for length in 0..bytes.len() {
            // Section headers at the end are not needed to run.
            let loaded = Object::load(&bytes[..length], chip, &memory);
            assert!(length > bytes.len() / 2 || loaded.is_err(), "{length} of {}", bytes.len());
        }
    }
}

#[test]
fn bundles_hold_objects_for_several_chips() {
    let entries: Vec<(Chip, Vec<u8>)> = CHIPS.map(|chip| (chip, good(chip))).to_vec();
    let bundle = bundle(&entries);
    for chip in CHIPS {
        assert_eq!(error_of(&bundle, chip), None, "{chip}");
    }
    let error = error_of(&bundle, Chip::Gfx1100).expect("an error");
    assert!(error.contains("gfx1100"), "{error}");
    let memory = memory();
    for length in 0..bundle.len() - entries[1].1.len() {
        assert!(Object::load(&bundle[..length], CHIPS[1], &memory).is_err(), "{length}");
    }
    // Offsets and sizes beyond the file.
    for at in (32..120).step_by(8) {
        let mut broken = bundle.clone();
        broken[at..at + 8].copy_from_slice(&(u64::MAX - 7).to_le_bytes());
        for chip in CHIPS {
            error_of(&broken, chip);
        }
    }
}

/// The format of `clang-offload-bundler`: magic, count, then offset, size and name of each entry.
fn bundle(objects: &[(Chip, Vec<u8>)]) -> Vec<u8> {
    let mut names = vec!["host-x86_64-unknown-linux-gnu-".to_string()];
    names.extend(objects.iter().map(|(chip, _)| format!("hipv4-amdgcn-amd-amdhsa--{chip}")));
    let empty = Vec::new();
    let contents: Vec<&Vec<u8>> =
        std::iter::once(&empty).chain(objects.iter().map(|(_, bytes)| bytes)).collect();
    let mut bytes = b"__CLANG_OFFLOAD_BUNDLE__".to_vec();
    bytes.extend((names.len() as u64).to_le_bytes());
    let mut offset = 4096_u64;
    for (name, content) in names.iter().zip(&contents) {
        bytes.extend(offset.to_le_bytes());
        bytes.extend((content.len() as u64).to_le_bytes());
        bytes.extend((name.len() as u64).to_le_bytes());
        bytes.extend(name.as_bytes());
        offset = (offset + content.len() as u64).next_multiple_of(4096);
    }
    for content in contents {
        bytes.resize(bytes.len().next_multiple_of(4096), 0);
        bytes.extend(content);
    }
    bytes
}

#[test]
fn objects_for_other_chips_are_refused() {
    let memory = memory();
    let error = Object::load(&good(Chip::Gfx942), Chip::Gfx90a, &memory).err();
    let found = match &error {
        Some(ObjectError::WrongChip { found, .. }) => found.as_str(),
        _ => panic!("{:?}", error.map(|error| error.to_string())),
    };
    assert_eq!(found, "gfx942");
}

/// Every field of the ELF header, the program headers and the descriptor, with extreme values.
#[test]
fn absurd_headers_are_errors() {
    for chip in CHIPS {
        let bytes = good(chip);
        let headers = 0..64 + 56 * usize::from(bytes[56]);
        let descriptor = descriptor_at(&bytes);
        let fields = headers.chain(descriptor..descriptor + 64).step_by(4);
        for at in fields {
            for value in [0, 1, 0x7fff_ffff, 0x8000_0000, u32::MAX, 0x0010_0000] {
                let mut broken = bytes.clone();
                broken[at..at + 4].copy_from_slice(&u32::to_le_bytes(value));
                error_of(&broken, chip);
                if at + 8 <= bytes.len() {
                    broken[at + 4..at + 8].copy_from_slice(&u32::to_le_bytes(value));
                    error_of(&broken, chip);
                }
            }
        }
    }
}

/// Offset in the file of the descriptor of `scale`: it is the only read-only data of 64 bytes, and
/// holds the size of the kernel arguments, which the metadata say, as its third word.
fn descriptor_at(bytes: &[u8]) -> usize {
    let memory = memory();
    let chip = CHIPS.into_iter().find(|chip| Object::load(bytes, *chip, &memory).is_ok());
    let object = Object::load(bytes, chip.expect("one of them"), &memory).expect("a good object");
    let kernel = object.kernels().next().expect("a kernel");
    (kernel.descriptor_address - kernel.image_address()) as usize
}

/// The file with other machine code at the kernel's entry.
fn with_code(chip: Chip, words: &[u32]) -> Vec<u8> {
    let mut bytes = good(chip);
    let memory = memory();
    let object = Object::load(&bytes, chip, &memory).expect("a good object");
    let kernel = object.kernels().next().expect("a kernel");
    let (code, base) = kernel.code();
    let entry = (kernel.entry - base) as usize;
    let start = &code[entry..entry + 32];
    let at = bytes.windows(32).position(|window| window == start).expect("the code");
    for (index, word) in words.iter().enumerate() {
        bytes[at + 4 * index..at + 4 * index + 4].copy_from_slice(&word.to_le_bytes());
    }
    bytes
}

fn fault_of(bytes: &[u8], chip: Chip) -> Fault {
    let memory = memory();
    let object = Object::load(bytes, chip, &memory).expect("the object is good, its code is not");
    match run(&object, &memory) {
        Err(Some(LaunchError::Fault(report))) => {
            assert_eq!(report.kernel, "scale");
            assert!(!report.text.is_empty() && report.symbol.contains("scale"), "{report}");
            report.fault
        }
        Err(other) => panic!("{:?}", other.map(|error| error.to_string())),
        Ok(_) => panic!("it ran"),
    }
}

#[test]
fn endless_loops_end() {
    for (chip, word) in [(Chip::Gfx942, 0xbf82_ffff), (Chip::Gfx1201, 0xbfa0_ffff)] {
        // s_branch to itself.
        assert_eq!(fault_of(&with_code(chip, &[word]), chip), Fault::Budget(20_000));
    }
}

#[test]
fn wild_jumps_are_faults() {
    for (chip, branch, jump) in [
        (Chip::Gfx942, 0xbf82_7fff_u32, 0xbe80_1d00_u32),
        (Chip::Gfx1201, 0xbfa0_7fff, 0xbe80_4800),
    ] {
        // s_branch far beyond the code, and s_setpc_b64 to s[0:1], a pointer to no code.
        for word in [branch, jump] {
            let fault = fault_of(&with_code(chip, &[word]), chip);
            assert!(matches!(fault, Fault::Jump(_)), "{chip}: {fault:?}");
        }
    }
}

#[test]
fn bytes_that_are_no_instruction_are_told() {
    for chip in CHIPS {
        let fault = fault_of(&with_code(chip, &[u32::MAX, u32::MAX]), chip);
        assert!(matches!(fault, Fault::Unknown(_)), "{chip}: {fault:?}");
    }
}

/// Thousands of files with a few random bytes, of which many still run for a while.
#[test]
fn random_mutations_never_crash() {
    let mut random = Random::new(0xb17e5);
    for chip in CHIPS {
        let bytes = good(chip);
        let memory = memory();
        let object = Object::load(&bytes, chip, &memory).expect("a good object");
        let kernel = object.kernels().next().expect("a kernel");
        let code = (kernel.entry - kernel.image_address()) as usize;
        for round in 0..1500 {
            let mut broken = bytes.clone();
            for _ in 0..random.below(6) + 1 {
                // Every second file has its machine code changed, the others anything.
                let at = match round % 2 {
                    0 => random.below(bytes.len() as u64) as usize,
                    _ => (code + random.below(160) as usize).min(bytes.len() - 1),
                };
                broken[at] = random.bits() as u8;
            }
            if let Ok(object) = Object::load(&broken, chip, &memory) {
                let _ = run(&object, &memory);
            }
        }
    }
}
