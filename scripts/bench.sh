#!/usr/bin/env bash
# Decode and prefill of Waveloom against llama.cpp, on the same weights, threads and machine.
# llama.cpp is built for this machine from the PyPI source package llama-cpp-python, once.
# Usage: ./x bench [--threads N] [--rounds N] [--formats q4_1,q8_0,bf16] [--markdown OUT]
set -euo pipefail
cd "$(dirname "$0")/.."

VENV=.cache/bench-venv
BENCH=scripts/bench_llama_cpp.py

install_llama_cpp() { # compiler flags
  CMAKE_ARGS="-DGGML_NATIVE=ON -DCMAKE_C_FLAGS='$1' -DCMAKE_CXX_FLAGS='$1'" \
    "$VENV.part/bin/pip" install -q --force-reinstall --no-cache-dir \
    --no-binary llama-cpp-python llama-cpp-python==0.3.36 >&2
}

if [[ ! -x $VENV/bin/python ]]; then
  rm -rf "$VENV.part" "$VENV"
  python3 -m venv "$VENV.part"
  echo "building llama.cpp from its source package (several minutes)" >&2
  install_llama_cpp ""
  # On some virtual machines its AMX kernels die of an illegal instruction: then without them.
  if ! "$VENV.part/bin/python" "$BENCH" --smoke 2>/dev/null; then
    echo "llama.cpp does not run here as built; building it again without AMX" >&2
    install_llama_cpp "-mno-amx-tile -mno-amx-int8 -mno-amx-bf16"
    "$VENV.part/bin/python" "$BENCH" --smoke
  fi
  mv "$VENV.part" "$VENV"
fi
cargo build --release -q -p waveloom-cli >&2
exec "$VENV/bin/python" "$BENCH" "$@"
