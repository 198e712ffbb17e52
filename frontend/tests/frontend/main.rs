//! Tests of the front end through its public function, in one binary.

mod errors;
mod fixtures;
mod formats;
mod fuzz;
mod logits;
mod modules;
mod tokenizers;
