//! Checking passes: right ones pass, seeded miscompilations are found and named.

mod right;
mod seeded;
mod support;
