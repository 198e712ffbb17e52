//! The decode loop and the lockstep executor, on the toy model.

mod toy;

use insta::assert_snapshot;
use std::ops::ControlFlow;
use std::time::Duration;
use toy::{CHUNK, CONTEXT, Toy, VOCAB, continuation, prompt};
use waveloom_runtime::{
    Error, FinishReason, GenerateOptions, Generation, LoadOptions, SamplingParams, Session,
};

/// The toy model as it is, or the end of the test where it cannot be built.
macro_rules! toy {
    () => {
        toy!(|_| {})
    };
    ($change:expr) => {
        match Toy::with_plan($change) {
            Some(toy) => toy,
            None => return,
        }
    };
}

fn load(toy: &Toy, threads: usize, context: Option<u32>) -> Result<Session, Error> {
    let options = LoadOptions { threads: Some(threads), context, ..LoadOptions::default() };
    Session::load(&toy.artifact(), options)
}

fn options(max_new_tokens: usize) -> GenerateOptions {
    GenerateOptions { max_new_tokens, ..GenerateOptions::default() }
}

/// Generates, and collects the tokens.
fn generate(
    session: &mut Session,
    prompt: &[u32],
    options: &GenerateOptions,
) -> (Generation, Vec<u32>) {
    let mut tokens = vec![];
    let result = session.generate(prompt, options, &mut |event| {
        tokens.push(event.token);
        ControlFlow::Continue(())
    });
    (result.unwrap(), tokens)
}

#[test]
fn tokens_do_not_depend_on_threads_chunks_or_context() {
    let toy = toy!();
    for threads in [1, 2, 3, 4, 7] {
        for context in [None, Some(33)] {
            let mut session = load(&toy, threads, context).unwrap();
            assert_eq!(session.workers(), threads);
            for length in [1, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK] {
                let prompt = prompt(length);
                let (result, tokens) = generate(&mut session, &prompt, &options(9));
                assert_eq!(
                    tokens,
                    continuation(&prompt, 9, 1),
                    "{threads} threads, {length} tokens"
                );
                assert_eq!(result.finish_reason, FinishReason::Length);
                assert_eq!((result.prompt_tokens, result.new_tokens), (length as usize, 9));
            }
        }
    }
}

/// Weights that the artifact has are not read where the plan says how to make them.
#[test]
fn synthetic_weights_are_made_up_at_load() {
    let toy = toy!(|plan| plan.synthetic = Some(toy::synthetic(0, 2)));
    let mut pieces = vec![];
    let loaded = Session::load_with_progress(&toy.artifact(), LoadOptions::default(), &mut |p| {
        pieces.push((p.done, p.total));
    });
    let mut session = loaded.unwrap();
    let bytes = u64::from(4 * VOCAB);
    assert_eq!(pieces, [(bytes, bytes)]);
    assert_eq!(session.allocated_bytes(), session.peak_bytes());
    let start = prompt(7);
    assert_eq!(generate(&mut session, &start, &options(9)).1, continuation(&start, 9, 2));
}

#[test]
fn logits_are_those_the_token_was_chosen_from() {
    let toy = toy!();
    let mut session = load(&toy, 2, None).unwrap();
    let mut tokens = prompt(10);
    let start = tokens.clone();
    session
        .generate(&start, &GenerateOptions { logits: true, ..options(12) }, &mut |event| {
            assert_eq!(event.logits, toy::logits(&tokens, 1));
            tokens.push(event.token);
            ControlFlow::Continue(())
        })
        .unwrap();
    assert_eq!(tokens.len(), 22);
}

#[test]
fn stop_tokens_end_a_generation() {
    let prompt = prompt(3);
    let expected = continuation(&prompt, 12, 1);
    let stop = expected[6];
    let first = expected.iter().position(|&token| token == stop).unwrap();
    let toy = toy!(|plan| plan.model.stop_tokens = vec![stop]);
    let mut session = load(&toy, 2, None).unwrap();
    let mut stops = vec![];
    let result = session.generate(&prompt, &options(12), &mut |event| {
        stops.push(event.is_stop);
        ControlFlow::Continue(())
    });
    assert_eq!(result.unwrap().finish_reason, FinishReason::Stop);
    assert_eq!(stops, (0..=first).map(|i| i == first).collect::<Vec<_>>());

    let ignoring = GenerateOptions { ignore_eos: true, ..options(12) };
    let (result, tokens) = generate(&mut session, &prompt, &ignoring);
    assert_eq!((result.finish_reason, tokens), (FinishReason::Length, expected.clone()));

    let own = GenerateOptions { stop_tokens: vec![expected[1]], ..ignoring };
    let (result, tokens) = generate(&mut session, &prompt, &own);
    assert_eq!((result.finish_reason, tokens.as_slice()), (FinishReason::Stop, &expected[..2]));
}

#[test]
fn a_full_context_ends_a_generation() {
    let toy = toy!();
    let mut session = load(&toy, 2, Some(20)).unwrap();
    for length in [20, 19, 12] {
        let prompt = prompt(length);
        let (result, tokens) = generate(&mut session, &prompt, &options(100));
        // The last token is chosen when the cache is full; it needs no place in it.
        let count = 21 - length as usize;
        assert_eq!(result.finish_reason, FinishReason::ContextFull);
        assert_eq!(tokens, continuation(&prompt, count, 1));
        assert_eq!(session.cached_tokens(), 20);
        assert!(session.decode_one().is_err());
    }
    assert_snapshot!(session.decode_one().unwrap_err(), @"the context of 20 tokens is full: reset the session, or load it with a longer context");
    let (result, _) = generate(&mut session, &prompt(20), &options(1));
    assert_eq!(result.finish_reason, FinishReason::Length);
}

#[test]
fn the_caller_can_break_off() {
    let toy = toy!();
    let mut session = load(&toy, 2, None).unwrap();
    let mut count = 0;
    let result = session.generate(&prompt(3), &options(12), &mut |_| {
        count += 1;
        if count == 4 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    let result = result.unwrap();
    assert_eq!((result.finish_reason, result.new_tokens, count), (FinishReason::Cancelled, 4, 4));
    let (result, tokens) = generate(&mut session, &prompt(3), &options(0));
    assert_eq!((result.finish_reason, tokens.len()), (FinishReason::Length, 0));
    assert_eq!(session.cached_tokens(), 3);
}

#[test]
fn the_steps_of_a_generation_can_be_taken_one_by_one() {
    let toy = toy!();
    let mut session = load(&toy, 2, None).unwrap();
    let (first, second) = (prompt(5), prompt(13));
    session.prefill(&first).unwrap();
    session.prefill(&second).unwrap();
    let prompt = [first, second].concat();
    assert_eq!(session.logits().unwrap(), toy::logits(&prompt, 1));
    let mut tokens = vec![session.sample().unwrap()];
    tokens.extend((0..6).map(|_| session.decode_one().unwrap()));
    assert_eq!(tokens, continuation(&prompt, 7, 1));

    // A further turn: the last token is not in the cache yet, so it leads.
    let turn = [*tokens.last().unwrap(), 9, 9, 9];
    let mut more = vec![];
    let result = session.continue_with(&turn, &options(5), &mut |event| {
        more.push(event.token);
        ControlFlow::Continue(())
    });
    assert_eq!(result.unwrap().prompt_tokens, 4);
    let text = [&prompt[..], &tokens[..6], &turn[..]].concat();
    assert_eq!(more, continuation(&text, 5, 1));

    session.reset();
    assert_snapshot!(session.sample().unwrap_err(), @"there is no token to continue: process a prompt first");
    assert!(session.decode_one().is_err() && session.logits().is_err());
}

#[test]
fn sampling_parameters_reach_the_kernel() {
    let toy = toy!();
    let mut session = load(&toy, 1, None).unwrap();
    let sampling = SamplingParams { temperature: 1.0, seed: 5 | 7 << 32, ..SamplingParams::GREEDY };
    let drawn = GenerateOptions { sampling, ..options(1) };
    let (_, tokens) = generate(&mut session, &prompt(4), &drawn);
    assert_eq!(tokens, [(toy::next(&prompt(4), 1) + 5) % VOCAB]);
    let wrong = SamplingParams { temperature: f32::INFINITY, ..sampling };
    assert_snapshot!(session.set_sampling(&wrong).unwrap_err(), @"temperature is inf: it must be finite and not negative");
}

#[test]
fn memory_is_what_the_plan_says() {
    let toy = toy!();
    for (threads, context) in [(1, CONTEXT), (3, CONTEXT), (2, 1)] {
        let session = load(&toy, threads, Some(context)).unwrap();
        let cache = (4 * u64::from(context)).next_multiple_of(64);
        let history = (4 * u64::from(context + 1)).next_multiple_of(64);
        let expected = 256 + 2 * cache + 512 + history + 64 * threads as u64;
        assert_eq!(session.peak_bytes(), expected);
        assert_eq!(session.allocated_bytes(), expected);
    }
}

#[test]
fn workers_that_fell_asleep_wake_up() {
    let toy = toy!();
    let mut session = load(&toy, 4, None).unwrap();
    let mut tokens = vec![];
    session
        .generate(&prompt(2), &options(6), &mut |event| {
            tokens.push(event.token);
            std::thread::sleep(Duration::from_millis(15));
            ControlFlow::Continue(())
        })
        .unwrap();
    assert_eq!(tokens, continuation(&prompt(2), 6, 1));
}

#[test]
fn two_artifacts_live_side_by_side() {
    let a = toy!();
    let folder = tempfile::tempdir().unwrap();
    // Other code: the same kernels, of which one now differs.
    let Some(code) = toy::code(folder.path(), &["-Dmix=append_", "-Dappend=mix_"]) else { return };
    let mut plan = toy::plan();
    for (kernel, name) in plan.kernels.iter_mut().zip(["mix_", "append_"]) {
        kernel.name = name.into();
    }
    let b = Toy::write(folder, &[plan], &code, &toy::weights(2));
    let (mut a, mut b) = (load(&a, 2, None).unwrap(), load(&b, 2, None).unwrap());
    for _ in 0..3 {
        assert_eq!(generate(&mut a, &prompt(5), &options(8)).1, continuation(&prompt(5), 8, 1));
        assert_eq!(generate(&mut b, &prompt(5), &options(8)).1, continuation(&prompt(5), 8, 2));
    }
}

#[test]
fn a_session_moves_between_threads() {
    let toy = toy!();
    let mut session = load(&toy, 2, None).unwrap();
    let tokens = std::thread::spawn(move || generate(&mut session, &prompt(5), &options(8)).1);
    assert_eq!(tokens.join().unwrap(), continuation(&prompt(5), 8, 1));
}

#[test]
fn the_best_plan_is_chosen() {
    let folder = tempfile::tempdir().unwrap();
    let Some(code) = toy::code(folder.path(), &[]) else { return };
    let targets = [
        ("gfx942", vec![]),
        ("cpu-v3", vec![]),
        ("cpu-v4", vec!["sse4.2"]),
        ("cpu", vec!["avx1024"]),
    ];
    let plans: Vec<_> = targets
        .into_iter()
        .map(|(target, requires)| waveloom_plan::Plan {
            target: target.into(),
            requires: requires.into_iter().map(String::from).collect(),
            ..toy::plan()
        })
        .collect();
    let toy = Toy::write(folder, &plans, &code, &toy::weights(1));
    let session = load(&toy, 1, None).unwrap();
    assert_eq!(session.plan().target, "cpu-v4");
}

#[test]
fn names_what_is_wrong_with_a_prompt() {
    let toy = toy!();
    let mut session = load(&toy, 1, Some(12)).unwrap();
    let mut error = |prompt: &[u32]| {
        session.generate(prompt, &options(1), &mut |_| ControlFlow::Continue(())).unwrap_err()
    };
    assert_snapshot!(error(&[]), @"the prompt is empty: give at least one token");
    assert_snapshot!(error(&[1, 2, 64]), @"token 64 at position 2 is outside the vocabulary of 64 tokens");
    assert_snapshot!(error(&prompt(13)), @"the prompt has 13 tokens and the context length is 12: shorten it, or load the model with a context of up to 40");
    let mut session = load(&toy, 1, None).unwrap();
    assert_snapshot!(session.prefill(&prompt(41)).unwrap_err(), @"the prompt has 41 tokens and the context length is 40: shorten it, or compile the model with a larger `--max-context`");
    session.prefill(&prompt(40)).unwrap();
    assert_snapshot!(session.prefill(&[1]).unwrap_err(), @"the prompt has 41 tokens and the context length is 40: shorten it, or compile the model with a larger `--max-context`");
}

#[test]
fn names_what_is_wrong_with_an_artifact() {
    let toy = toy!();
    let error = |toy: &Toy, threads, context| {
        let error = load(toy, threads, context).map(drop).unwrap_err().to_string();
        error.replace(&format!("{}/", toy.folder.path().display()), "")
    };
    assert_snapshot!(error(&toy, 1, Some(0)), @"context length 0 is not in 1..=40, the range this model was compiled for");
    assert_snapshot!(error(&toy, 1, Some(41)), @"context length 41 is not in 1..=40, the range this model was compiled for");
    assert_snapshot!(error(&toy, 0, None), @"0 threads: give a number in 1..=1024");
    assert_snapshot!(error(&toy, 1025, None), @"1025 threads: give a number in 1..=1024");
    let toy = toy!(|plan| plan.target = "gfx942".into());
    assert_snapshot!(error(&toy, 1, None), @"the artifact was compiled for gfx942, not for the CPU: recompile the model with `--target cpu`");
    let toy = toy!(|plan| plan.requires = vec!["avx1024".into()]);
    assert_snapshot!(error(&toy, 1, None), @"the code for target cpu needs avx1024, which this machine's CPU lacks: recompile the model with `--target cpu` on this machine, or with `--target cpu-v3`");
    let toy = toy!(|plan| plan.kernels[1].name = "absent".into());
    assert_snapshot!(error(&toy, 1, None), @"the code for target cpu has no kernel `absent`: recompile the model");
    let toy = toy!(|plan| plan.segments.constants = waveloom_plan::Expr::from(1 << 20));
    assert_snapshot!(error(&toy, 1, None), @"`toy.wlm` has 256 bytes of weights for cpu, its plan needs 1048576: recompile the model");
    let folder = tempfile::tempdir().unwrap();
    let toy = Toy::write(folder, &[toy::plan()], b"not a shared object", &toy::weights(1));
    let message = error(&toy, 1, None);
    assert!(message.starts_with("the code for target cpu does not load: "), "{message}");
    assert_snapshot!("hip:x".parse::<waveloom_runtime::DeviceKind>().unwrap_err(), @"unknown device `hip:x`; this program knows: cpu, hip, hip:N, cuda, cuda:N");
}

#[test]
fn damaged_weights_do_not_load() {
    let toy = toy!();
    let mut bytes = std::fs::read(&toy.path).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 4;
    std::fs::write(&toy.path, bytes).unwrap();
    let error = load(&toy, 1, None).map(drop).unwrap_err().to_string();
    assert!(error.starts_with("section `weights.cpu.w` of "), "{error}");
}
