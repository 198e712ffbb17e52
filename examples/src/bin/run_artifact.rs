//! Embeds the runtime in a program: answers one question with a compiled model.
//!
//! `cargo run --release -p waveloom-examples --no-default-features --bin run_artifact -- \
//!     MODEL.wlm "What is the capital of France?"`

use std::error::Error;
use std::io::Write;
use std::ops::ControlFlow;
use waveloom_plan::Artifact;
use waveloom_runtime::{GenerateOptions, LoadOptions, Message, Session, TextModel};

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let (Some(file), Some(question)) = (args.next(), args.next()) else {
        return Err("usage: run_artifact MODEL.wlm QUESTION".into());
    };
    let artifact = Artifact::open(&file)?;
    let text = TextModel::load(&artifact)?;
    let prompt = if text.has_chat_template() {
        text.encode_chat(&[Message::new("user", question)])?
    } else {
        text.encode_prompt(&question)?
    };

    // All memory is allocated here; a shorter context than the compiled one needs less.
    let mut session = Session::load(&artifact, LoadOptions::default())?;
    eprintln!("{} bytes on {}", session.peak_bytes(), session.device());

    let options = GenerateOptions {
        max_new_tokens: 64,
        sampling: text.config().sampling(0),
        ..GenerateOptions::default()
    };
    let mut stream = text.stream();
    let generation = session.generate(&prompt, &options, &mut |event| {
        if !event.is_stop {
            print!("{}", stream.push(event.token).unwrap_or_default());
            let _ = std::io::stdout().flush();
        }
        ControlFlow::Continue(())
    })?;
    println!("{}", stream.finish()?);
    eprintln!(
        "{} tokens at {:.1} per second, finished: {}",
        generation.new_tokens,
        generation.decode_tokens_per_second(),
        generation.finish_reason.as_str()
    );
    Ok(())
}
