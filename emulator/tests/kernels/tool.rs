//! The command line tool: arrays in and out, listings, traces, errors.

use std::path::PathBuf;
use std::process::{Command, Output};

use serde_json::Value;
use tempfile::TempDir;
use waveloom_emulator::Chip;

use crate::harness::{Build, from_bytes, to_bytes};

/// A directory with the object of `scale` and ten numbers.
struct Place(TempDir);

impl Place {
    fn new(build: Build) -> Place {
        let place = Place(TempDir::new().expect("a directory"));
        std::fs::write(place.path("k.hsaco"), build.object()).expect("a file");
        let numbers: Vec<f32> = (0..10).map(|i| i as f32).collect();
        std::fs::write(place.path("x.npy"), npy(&numbers)).expect("a file");
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn tool(&self, arguments: &str) -> Output {
        Command::new(env!("CARGO_BIN_EXE_waveloom-emu"))
            .current_dir(self.0.path())
            .args(arguments.split_whitespace())
            .output()
            .expect("the tool runs")
    }

    fn good(&self, arguments: &str) -> String {
        let output = self.tool(arguments);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{arguments}: {said}");
        String::from_utf8(output.stdout).expect("text")
    }

    fn bad(&self, arguments: &str) -> String {
        let output = self.tool(arguments);
        assert!(!output.status.success(), "{arguments} succeeds");
        String::from_utf8(output.stderr).expect("text")
    }

    fn floats(&self, name: &str) -> Vec<f32> {
        let bytes = std::fs::read(self.path(name)).expect("a file");
        let header = u16::from_le_bytes([bytes[8], bytes[9]]);
        from_bytes(&bytes[10 + usize::from(header)..])
    }
}

fn npy(numbers: &[f32]) -> Vec<u8> {
    let text =
        format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({},), }}", numbers.len());
    let mut bytes = b"\x93NUMPY\x01\x00\x76\x00".to_vec();
    bytes.extend(format!("{text:<117}\n").as_bytes());
    bytes.extend(to_bytes(numbers));
    bytes
}

const RUN: &str = "k.hsaco --kernel scale --grid 1 --block 64 --args";

fn scale() -> Place {
    Place::new(Build { debug: true, ..Build::new("scale.hip", Chip::Gfx942) })
}

#[test]
fn runs_a_kernel_on_files() {
    let place = scale();
    let said = place.good(&format!("run {RUN} inout:x.npy:y.npy f32:-2.5 u32:10"));
    assert!(said.contains("scale on gfx942: 1 workgroups, 1 waves"), "{said}");
    assert!(said.contains("wrote y.npy: f32 10"), "{said}");
    let expected: Vec<f32> = (0..10).map(|i| i as f32 * -2.5).collect();
    assert_eq!(place.floats("y.npy"), expected);
    // A tensor in, and back into the file whose other tensor stays.
    let values = to_bytes(&[1.0_f32, 2.0, 3.0]);
    let view =
        |bytes| safetensors::tensor::TensorView::new(safetensors::Dtype::F32, vec![3], bytes);
    let tensors = [("a", view(&values)), ("b", view(&values))]
        .map(|(name, view)| (name, view.expect("a view")));
    let file = safetensors::serialize(tensors, None).expect("a file");
    std::fs::write(place.path("w.safetensors"), file).expect("a file");
    place.good(&format!("run {RUN} inout:w.safetensors#a f32:3 u32:3"));
    let bytes = std::fs::read(place.path("w.safetensors")).expect("a file");
    let tensors = safetensors::SafeTensors::deserialize(&bytes).expect("a good file");
    let of = |name| from_bytes::<f32>(tensors.tensor(name).expect("a tensor").data());
    assert_eq!((of("a"), of("b")), (vec![3.0, 6.0, 9.0], vec![1.0, 2.0, 3.0]));
}

#[test]
fn gives_summaries_statistics_and_mistakes() {
    let place = scale();
    let said = place.good(&format!("run --json --stats s.json {RUN} in:x.npy f32:1 u32:10"));
    let summary: Value = serde_json::from_str(&said).expect("JSON");
    assert_eq!((&summary["kernel"], &summary["waves"]), (&"scale".into(), &1.into()));
    assert!(summary["instructions"].as_u64() > Some(5), "{said}");
    let statistics = std::fs::read_to_string(place.path("s.json")).expect("a file");
    let statistics: Value = serde_json::from_str(&statistics).expect("JSON");
    assert_eq!(statistics["scale"]["instructions"], summary["instructions"]);
    let said = place.good(&format!("run --check {RUN} in:x.npy f32:1 u32:10"));
    assert!(said.contains("no mistakes found"), "{said}");
    // An output is uninitialized, and scale reads it.
    let said = place.bad(&format!("run --check {RUN} out:z.npy:f32:10 f32:1 u32:10"));
    assert!(said.contains("uninitialized global memory is read"), "{said}");
    assert!(said.contains("scale.hip:"), "{said}");
}

#[test]
fn lists_kernels() {
    let place = scale();
    for arguments in ["disasm k.hsaco", "disasm k.hsaco --kernel scale --chip gfx942"] {
        let said = place.good(arguments);
        assert!(said.contains("kernel scale: gfx942, 64 lanes"), "{said}");
        assert!(said.contains("0    8  global_buffer x"), "{said}");
        assert!(said.contains("12    4  by_value count"), "{said}");
        assert!(said.contains("<scale>:") && said.contains(" s_endpgm"), "{said}");
        // Every label that is used is there, and the loop has one.
        let used = said.lines().filter_map(|line| line.split_once("cbranch_")?.1.split(' ').nth(1));
        let used: Vec<&str> = used.collect();
        assert!(!used.is_empty(), "{said}");
        for label in used {
            assert!(said.contains(&format!("\n{label}:\n")), "{label} of {said}");
        }
    }
}

/// Addresses and words of the listing are those of LLVM's own tool.
#[test]
fn listings_agree_with_llvm() {
    for chip in [Chip::Gfx90a, Chip::Gfx1201] {
        let place = Place::new(Build::new("machine.hip", chip));
        let said = place.good("disasm k.hsaco");
        let objdump = if PathBuf::from("/usr/lib/llvm-22/bin/llvm-objdump").exists() {
            "/usr/lib/llvm-22/bin/llvm-objdump"
        } else {
            "llvm-objdump-22"
        };
        let output = Command::new(objdump).arg("-d").arg(place.path("k.hsaco")).output();
        let theirs = String::from_utf8(output.expect("llvm-objdump runs").stdout).expect("text");
        // `text // 000000001900: words`
        let lines = theirs.lines().filter_map(|line| line.split_once("// "));
        let mut count = 0;
        for (text, rest) in lines {
            let (address, words) = rest.split_once(": ").expect("an address");
            let words: Vec<&str> = words.split(' ').take_while(|word| word.len() == 8).collect();
            let address = u64::from_str_radix(address, 16).expect("a number");
            if text.contains("s_nop") || text.contains("s_code_end") {
                continue;
            }
            let line = format!("  {address:06x}: {}", words.join(" ").to_lowercase());
            assert!(said.contains(&line), "{chip}: {text} at {line}");
            count += 1;
        }
        assert!(count > 1000, "{chip}: {count} instructions");
    }
}

#[test]
fn traces_instructions() {
    let place = scale();
    let said = place.good(&format!("trace {RUN} in:x.npy f32:4 u32:10 --lanes 1-2,9"));
    // The products of lanes 1, 2 and 9 are 4, 8 and 36; the store shows their addresses.
    let (four, eight, big) = (4.0_f32.to_bits(), 8.0_f32.to_bits(), 36.0_f32.to_bits());
    let product = format!("1={four:08x} 2={eight:08x} 9={big:08x}");
    assert!(said.contains(&product), "{said}");
    assert!(said.contains("global store of 4 bytes at 1="), "{said}");
    assert!(
        said.lines().any(|line| line.starts_with("(0,0,0) w0") && line.contains("s_endpgm")),
        "{said}"
    );
    let short = place.good(&format!("trace --limit 3 -o t.txt {RUN} in:x.npy f32:4 u32:10"));
    assert_eq!(short, "");
    let text = std::fs::read_to_string(place.path("t.txt")).expect("a file");
    assert_eq!(text.lines().filter(|line| line.starts_with('(')).count(), 3);
}

#[test]
fn errors_say_what_to_do() {
    let place = scale();
    std::fs::write(place.path("bad.hsaco"), "no code").expect("a file");
    for (arguments, wanted) in [
        ("run k.hsaco --kernel scales --block 64", "no kernel scales: there are scale"),
        (
            "run k.hsaco --block 64 --args in:x.npy",
            "has 3 arguments, 1 were given; they are x (pointer)",
        ),
        (
            "run k.hsaco --block 64 --args in:x.npy f64:1 u32:1",
            "argument 1 of scale is factor (4 bytes), 8 bytes",
        ),
        ("run k.hsaco --block 64 --args in:no.npy f32:1 u32:1", "no.npy: No such file"),
        ("run k.hsaco --block 64 --args in:x.npy f32:1 u32:-1", "-1 does not fit in u32"),
        ("run k.hsaco --block 2048 --args in:x.npy f32:1 u32:1", "2048 work-items in a workgroup"),
        ("run k.hsaco --chip gfx90a --block 64", "is for gfx942, the emulated GPU is gfx90a"),
        ("run k.hsaco --chip gfx900 --block 64", "the emulator knows gfx90a, gfx942"),
        ("run bad.hsaco --block 64", "bad.hsaco: not a valid code object"),
        ("run none.hsaco --block 64", "none.hsaco: No such file"),
        ("run k.hsaco --block 64 --args null f32:1 u32:64", "is outside of every allocation"),
        ("run k.hsaco --block 64 --args in:x.npy f32:1 u32:11", "is outside of every allocation"),
        (
            "run k.hsaco --max-instructions 4 --block 64 --args in:x.npy f32:1 u32:1",
            "more than 4 instructions",
        ),
        ("trace k.hsaco --block 64 --lanes 64", "`64` is no lane"),
    ] {
        let said = place.bad(arguments);
        assert!(said.contains(wanted), "{arguments}: {said}");
    }
}
