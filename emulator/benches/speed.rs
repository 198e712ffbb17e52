//! How fast kernels are emulated: wave instructions a second and host core, and GFLOP/s of matrix
//! work. `cargo bench -p waveloom-emulator -- --json FILE` also writes the figures.

#[allow(dead_code, unused_macros, reason = "shared with the tests")]
#[path = "../tests/kernels/harness.rs"]
mod harness;

use std::time::{Duration, Instant};

use half::bf16;
use waveloom_emulator::Chip;
use waveloom_emulator::dispatch::{Launch, Options};

use harness::{Build, Device, Grid, Random};

/// Time that each measurement takes at least.
const TIME: Duration = Duration::from_millis(1500);

/// A kernel with its arguments in memory.
struct Case {
    name: &'static str,
    device: Device,
    kernel: &'static str,
    grid: Grid,
    arguments: Vec<harness::Argument>,
    /// Multiplications and additions, where their rate is of interest.
    operations: f64,
}

impl Case {
    /// Wave instructions a second, launches a second.
    fn measure(&self, threads: usize) -> (f64, f64) {
        let options = Options { threads, ..Options::default() };
        let run = || {
            let done = self.device.try_run(self.kernel, self.grid, &self.arguments, &options);
            done.unwrap_or_else(|error| panic!("{error}")).instructions
        };
        // The first run decodes.
        run();
        let (start, mut instructions, mut launches) = (Instant::now(), 0, 0);
        while start.elapsed() < TIME {
            instructions += run();
            launches += 1;
        }
        let seconds = start.elapsed().as_secs_f64();
        (instructions as f64 / seconds, f64::from(launches) / seconds)
    }
}

fn numbers(device: &Device, count: usize) -> harness::Buffer<bf16> {
    let mut random = Random::new(count as u64);
    device.buffer(&random.list(count, |random| bf16::from_f64(random.real())))
}

fn gemv(chip: Chip) -> Case {
    let device = Device::new(Build::new("gemv.hip", chip));
    let (rows, columns) = (1024_u32, 2048_u32);
    let w = numbers(&device, (rows * columns) as usize);
    let (x, y) = (numbers(&device, columns as usize), device.output::<f32>(rows as usize));
    let arguments = args![&w, &x, &y, rows, columns].into();
    let grid = (rows * device.wave / 256, 256).into();
    let operations = 2.0 * f64::from(rows) * f64::from(columns);
    let name = if chip.is_cdna() { "gemv_bf16 gfx942" } else { "gemv_bf16 gfx1100" };
    Case { name, device, kernel: "gemv_bf16", grid, arguments, operations }
}

fn gemm(chip: Chip) -> Case {
    let (file, name, kernel, tile) = match chip.is_cdna() {
        true => ("speed.hip", "gemm_large gfx942", "gemm_large", 128),
        false => ("gemm.hip", "gemm_bf16 gfx1100", "gemm_bf16", 64),
    };
    let device = Device::new(Build::new(file, chip));
    let (m, n, k) = (256_u32, 256_u32, 512_u32);
    let (a, b) = (numbers(&device, (m * k) as usize), numbers(&device, (n * k) as usize));
    let c = device.output::<f32>((m * n) as usize);
    let arguments = match chip.is_cdna() {
        true => args![&a, &b, &c, n, k].into(),
        false => args![&a, &b, &c, m, n, k].into(),
    };
    let grid = ([n / tile, m / tile, 1], [256, 1, 1]).into();
    let operations = 2.0 * f64::from(m) * f64::from(n) * f64::from(k);
    Case { name, device, kernel, grid, arguments, operations }
}

fn attention() -> Case {
    let device = Device::new(Build::new("attention.hip", Chip::Gfx942));
    let (heads, queries, keys) = (4_u32, 128_u32, 256_u32);
    let q = numbers(&device, (heads * queries * 64) as usize);
    let k = numbers(&device, (heads * keys * 64) as usize);
    let v = numbers(&device, (heads * keys * 64) as usize);
    let out = device.output::<f32>((heads * queries * 64) as usize);
    let arguments = args![&q, &k, &v, &out, queries, keys, 0_u32, 0.125_f32].into();
    let launch = Launch { grid: [queries / 32, heads, 1], block: [128, 1, 1], ..Launch::default() };
    let operations = 4.0 * f64::from(heads) * f64::from(queries) * f64::from(keys) * 64.0;
    let name = "attention gfx942";
    Case { name, device, kernel: "attention", grid: launch.into(), arguments, operations }
}

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let json = arguments.iter().position(|argument| argument == "--json");
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    println!(
        "{:20} {:>12} {:>12} {:>10} {:>12}",
        "", "M instr/s", "GFLOP/s", "threads", "M instr/s"
    );
    let mut figures = serde_json::Map::new();
    let cases: [fn() -> Case; 5] = [
        || gemv(Chip::Gfx942),
        || gemv(Chip::Gfx1100),
        || gemm(Chip::Gfx942),
        || gemm(Chip::Gfx1100),
        attention,
    ];
    for case in cases {
        let case = case();
        let (instructions, launches) = case.measure(1);
        let flops = launches * case.operations / 1e9;
        let (together, _) = case.measure(threads);
        println!(
            "{:20} {:12.1} {flops:12.2} {threads:10} {:12.1}",
            case.name,
            instructions / 1e6,
            together / 1e6
        );
        let figure = serde_json::json!({
            "wave_instructions_per_second_and_core": instructions,
            "gflop_per_second_and_core": flops,
            "threads": threads,
            "wave_instructions_per_second": together,
        });
        figures.insert(case.name.to_string(), figure);
    }
    if let Some(path) = json.and_then(|index| arguments.get(index + 1)) {
        let text = format!("{:#}\n", serde_json::Value::Object(figures));
        std::fs::write(path, text).unwrap_or_else(|error| panic!("{path}: {error}"));
    }
}
