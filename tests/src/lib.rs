//! End-to-end tests live in `end_to_end/`, one binary, since it links MLIR. This library is empty.
