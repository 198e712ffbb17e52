//! Tests of `simplify` and `raise`, in one binary: rules one by one, what different front ends
//! write for the parts of a decoder, whole layers.

mod attention;
mod decoder;
mod generated;
mod rules;
mod simplify;
mod support;
mod variants;
