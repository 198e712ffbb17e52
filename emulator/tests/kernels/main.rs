//! Kernels written in HIP C++ and compiled by clang, each against a reference on the host.
//!
//! Every kernel runs on every chip that can run it, on one host thread and on two with the same
//! bits. Results are equal to the reference where the arithmetic is exact or its order is given;
//! elsewhere each comparison names its bound and why it holds.

mod harness;

mod atomics;
mod attention;
mod checks;
mod fp8;
mod gemm;
mod gemv;
mod hostile;
mod machine;
mod math;
mod rows;
mod sampling;
mod tool;
mod wave;
