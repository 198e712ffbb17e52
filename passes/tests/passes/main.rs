//! Tests of the passes, in one binary. `model` builds tiny decoders as raising leaves them.

mod fixtures;
mod fuse;
mod model;
mod oracle;
mod pipeline;
mod plan_memory;
mod provenance;
mod schedule;
mod types;
