//! What checkers and profilers ask of a device, on the toy model: one launch at a time, bytes of any
//! buffer, times.

use super::{CONTEXT, Toy, VOCAB, next, prompt, weights};
use waveloom_runtime::{DeviceError, DeviceKind, LoadRequest, LoadedPlan};

const PREFILL: usize = 0;
const DECODE: usize = 1;
/// Buffers of the toy plan.
const WEIGHT: usize = 0;
const MIXED: usize = 1;
const CACHE: usize = 2;
const TOKENS: usize = 3;
const POSITIONS: usize = 4;
const LAST: usize = 5;
const HISTORY: usize = 8;

/// The toy model, with the plan's symbols for `count` tokens.
fn load(toy: &Toy, kind: DeviceKind, count: u32) -> (Box<dyn LoadedPlan>, [i64; 3]) {
    let (device, artifact) = (kind.open(Some(2)).unwrap(), toy.artifact());
    let plan = device.choose_plan(&artifact).unwrap();
    let layout = plan.layout(CONTEXT).unwrap();
    let request =
        LoadRequest { artifact: &artifact, plan: &plan, layout: &layout, progress: &mut |_| {} };
    let mut loaded = device.load(request).unwrap();
    loaded.write(TOKENS, 0, &prompt(count)).unwrap();
    loaded.write(POSITIONS, 0, &(0..count).collect::<Vec<_>>()).unwrap();
    loaded.write(LAST, 0, &[count - 1]).unwrap();
    (loaded, [i64::from(count), i64::from(count), i64::from(CONTEXT)])
}

fn words(plan: &mut dyn LoadedPlan, buffer: usize, count: usize) -> Vec<u32> {
    let mut bytes = vec![0; 4 * count];
    plan.read_bytes(buffer, 0, &mut bytes).unwrap();
    bytes.as_chunks().0.iter().map(|b| u32::from_le_bytes(*b)).collect()
}

/// Runs prefill and decode launch by launch.
pub fn launch_by_launch(toy: &Toy, kind: DeviceKind) {
    let count = 5u32;
    let (mut loaded, mut symbols) = load(toy, kind, count);
    let plan = &mut *loaded;
    let mut bytes = vec![0; 4 * VOCAB as usize];
    plan.read_bytes(WEIGHT, 0, &mut bytes).unwrap();
    assert_eq!(bytes, weights(1));
    plan.run_launch(PREFILL, 0, &symbols).unwrap();
    let cached: Vec<u32> = prompt(count)
        .iter()
        .zip(0..)
        .map(|(&token, position)| (token * token + 3).wrapping_mul(31).wrapping_add(position))
        .collect();
    assert_eq!(words(plan, CACHE, count as usize), cached);
    // Only the first launch ran; the second sees what is written before it.
    assert_eq!(words(plan, MIXED, count as usize), [0; 5]);
    plan.write_bytes(CACHE, 4, &9u32.to_le_bytes()).unwrap();
    plan.run_launch(PREFILL, 1, &symbols).unwrap();
    let mixed: Vec<u32> = cached
        .iter()
        .zip(0u32..)
        .map(|(&x, position)| if position == 1 { 9 } else { x }.wrapping_mul(position + 7))
        .collect();
    assert_eq!(words(plan, MIXED, count as usize), mixed);
    // The prompt as it is, then a decode step whose last launch chooses a token.
    for launch in 0..3 {
        plan.run_launch(PREFILL, launch, &symbols).unwrap();
    }
    plan.run(2, &symbols).unwrap();
    let mut all = prompt(count);
    all.push(next(&all, 1));
    assert_eq!(plan.read(HISTORY, 5..6).unwrap(), [all[5]]);
    symbols = [1, i64::from(count) + 1, i64::from(CONTEXT)];
    for launch in 0..4 {
        plan.run_launch(DECODE, launch, &symbols).unwrap();
    }
    assert_eq!(plan.read(HISTORY, 6..7).unwrap(), [next(&all, 1)]);
    refusals(plan, &symbols);
}

fn refusals(plan: &mut dyn LoadedPlan, symbols: &[i64]) {
    let said = |result: Result<(), DeviceError>| result.unwrap_err().to_string();
    assert_eq!(said(plan.run_launch(0, 3, symbols)), "the program has no such launch");
    assert_eq!(said(plan.run_launch(9, 0, symbols)), "the plan has no such program");
    assert_eq!(said(plan.read_bytes(LAST, 4, &mut [0])), "bytes outside a buffer");
    assert_eq!(said(plan.read_bytes(LAST, u64::MAX, &mut [0])), "bytes outside a buffer");
    assert_eq!(said(plan.read_bytes(99, 0, &mut [0])), "bytes outside a buffer");
    assert_eq!(said(plan.write_bytes(LAST, 0, &[0; 5])), "bytes outside a buffer");
    assert_eq!(said(plan.write_bytes(WEIGHT, 0, &[0])), "weights cannot be written");
}

/// Times a program as a whole and by launch: it computes what it computes otherwise.
pub fn times(toy: &Toy, kind: DeviceKind) {
    let count = 5u32;
    let (mut plan, symbols) = load(toy, kind, count);
    let mut seconds = [-1.0; 3];
    plan.time_launches(PREFILL, &symbols, &mut seconds).unwrap();
    assert!(seconds.iter().all(|time| (0.0..10.0).contains(time)), "{seconds:?}");
    assert!(plan.time_program(2, &symbols).unwrap() < 10.0);
    let mut all = prompt(count);
    all.push(next(&all, 1));
    assert_eq!(plan.read(HISTORY, 5..6).unwrap(), [all[5]]);
    let symbols = [1, i64::from(count) + 1, i64::from(CONTEXT)];
    let mut seconds = [-1.0; 4];
    plan.time_launches(DECODE, &symbols, &mut seconds).unwrap();
    assert!(seconds.iter().all(|time| (0.0..10.0).contains(time)), "{seconds:?}");
    assert_eq!(plan.read(HISTORY, 6..7).unwrap(), [next(&all, 1)]);
}
