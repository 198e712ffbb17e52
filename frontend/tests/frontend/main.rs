//! Tests of the front end through its public function, in one binary.

mod config_only;
mod errors;
mod fixtures;
mod formats;
mod fuzz;
mod logits;
mod modules;
mod tokenizers;
