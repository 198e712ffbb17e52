//! From model files to tokens: every test here compiles a model and runs the artifact.
//!
//! Tests on SmolLM2-135M need its GGUF, which `./x test` fetches and names in `WAVELOOM_SMOLLM2`;
//! without it they say so and pass.

mod amd;
mod golden;
mod nvidia;
mod quality;
mod selftest;
mod support;
mod synthetic;
mod tiny;
mod verify;
