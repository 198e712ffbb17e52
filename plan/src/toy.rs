//! A small plan for tests, those of other crates too: a cache append, logits over it, and a sampler.

use crate::Expr;
use crate::plan::*;

/// What the first kernel reads.
pub const WEIGHT: BufferId = 0;
/// All of the arena.
pub const TEMPORARY: BufferId = 1;
/// All of the state.
pub const CACHE: BufferId = 2;
/// `tokens` of the decode loop.
pub const TOKENS: BufferId = 3;
/// `positions`.
pub const POSITIONS: BufferId = 4;
/// `last`.
pub const LAST: BufferId = 5;
/// `logits`.
pub const LOGITS: BufferId = 6;
/// `sampling`.
pub const SAMPLING: BufferId = 7;
/// `history`.
pub const HISTORY: BufferId = 8;

const T: usize = 0;
const S: usize = 1;
const C: usize = 2;

fn lines(bytes: Expr) -> Expr {
    Expr::from(64) * Expr::CeilDiv(Box::new(bytes), Box::new(Expr::from(64)))
}

fn buffers() -> Vec<Buffer> {
    let buffer = |name: &str, segment, offset: i64, bytes: Expr| Buffer {
        name: name.into(),
        segment,
        offset: offset.into(),
        bytes,
    };
    let history = Expr::from(4) * (Expr::Symbol(C) + Expr::from(1));
    vec![
        buffer("weight", Segment::Constants, 64, 64.into()),
        buffer("temporary", Segment::Arena, 0, 64.into()),
        buffer("cache", Segment::State, 0, lines(Expr::from(4) * Expr::Symbol(C))),
        buffer("tokens", Segment::Io, 0, 16.into()),
        buffer("positions", Segment::Io, 64, 16.into()),
        buffer("last", Segment::Io, 128, 4.into()),
        buffer("logits", Segment::Io, 192, 40.into()),
        buffer("sampling", Segment::Io, 256, 64.into()),
        buffer("history", Segment::Io, 320, lines(history)),
    ]
}

fn programs() -> Vec<Program> {
    let scalar = |id| Arg::Scalar(Expr::Symbol(id));
    let launch =
        |kernel, grid: Expr, buffers: &[BufferId], scalars: &[Arg], writes: &[BufferId]| {
            let buffers = buffers.iter().map(|id| Arg::Buffer(*id));
            let args = buffers.chain(scalars.iter().cloned()).collect();
            Launch { kernel, grid, args, writes: writes.to_vec() }
        };
    let append = [TOKENS, POSITIONS, WEIGHT, CACHE];
    let append = launch(0, Expr::Symbol(T), &append, &[scalar(T)], &[CACHE]);
    let predict = [CACHE, LAST, TEMPORARY, LOGITS];
    let predict = launch(1, 10.into(), &predict, &[scalar(S)], &[LOGITS, TEMPORARY]);
    let sample = [LOGITS, SAMPLING, TOKENS, POSITIONS, LAST, HISTORY];
    let sample = launch(2, 1.into(), &sample, &[scalar(S)], &[TOKENS, POSITIONS, LAST, HISTORY]);
    let program = |name: &str, launches: &[&Launch]| Program {
        name: name.into(),
        launches: launches.iter().map(|launch| (*launch).clone()).collect(),
    };
    vec![
        program("prefill", &[&append, &predict]),
        program("decode", &[&append, &predict, &sample]),
        program("sample", &[&sample]),
    ]
}

/// The plan: vocabulary 10, context up to 128, prefill chunk 4.
pub fn plan() -> Plan {
    let symbol = |name: &str, max| Symbol { name: name.into(), min: 1, max };
    let kernel = |name: &str, summary: &str| Kernel {
        name: name.into(),
        summary: summary.into(),
        workgroup: 0,
        shared_bytes: 0,
        work: None,
        facts: None,
    };
    let model = ModelInfo {
        name: "toy".into(),
        vocab: 10,
        max_context: 128,
        prefill_chunk: 4,
        stop_tokens: vec![7],
        weight_bytes_per_token: 64,
    };
    Plan {
        version: FORMAT_VERSION,
        target: "cpu".into(),
        requires: vec!["avx2".into(), "fma".into()],
        machine: None,
        weights: "cpu".into(),
        synthetic: None,
        persistent: None,
        model,
        symbols: vec![symbol("T", 4), symbol("S", 128), symbol("C", 128)],
        buffers: buffers(),
        segments: Segments {
            constants: 128.into(),
            arena: 64.into(),
            state: lines(Expr::from(4) * Expr::Symbol(C)),
            io: Expr::from(320) + lines(Expr::from(4) * (Expr::Symbol(C) + Expr::from(1))),
        },
        scratch_bytes: 256,
        kernels: vec![
            kernel("append_0", "cache append i32"),
            kernel("predict_1", "logits [1,10]"),
            kernel("sample_2", "sample f32[1,10]"),
        ],
        programs: programs(),
        decode_loop: DecodeLoop {
            step_tokens: T,
            cache_length: S,
            context: C,
            tokens: TOKENS,
            positions: POSITIONS,
            last: LAST,
            logits: LOGITS,
            sampling: SAMPLING,
            history: HISTORY,
            prefill: 0,
            decode: 1,
            sample: 2,
        },
        memory: MemoryReport { arena_peak: 64, arena_lower_bound: 64 },
    }
}
