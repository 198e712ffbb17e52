"""Measures Waveloom and llama.cpp in turns, so that both meet the same weather on a shared machine.

For each weight format: the model is compiled by Waveloom and requantized by llama.cpp from the same
GGUF; each round runs one prefill and one decode measurement of each, alternating. Prints the medians and
the ratio of each round's pair, as JSON and as a Markdown table.
"""

import argparse
import ctypes
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

import llama_cpp

CACHE = Path(".cache")
MODEL = CACHE / "model" / "SmolLM2-135M-Instruct.Q4_1.gguf"
WAVELOOM = Path("target/release/waveloom")
FILE_TYPES = {
    "q8_0": llama_cpp.LLAMA_FTYPE_MOSTLY_Q8_0,
    "bf16": llama_cpp.LLAMA_FTYPE_MOSTLY_BF16,
    "q4_0": llama_cpp.LLAMA_FTYPE_MOSTLY_Q4_0,
    "f16": llama_cpp.LLAMA_FTYPE_MOSTLY_F16,
    "f32": llama_cpp.LLAMA_FTYPE_ALL_F32,
}


class LlamaCpp:
    """One loaded model of llama.cpp."""

    def __init__(self, path, threads, context):
        params = llama_cpp.llama_model_default_params()
        self.model = llama_cpp.llama_model_load_from_file(str(path).encode(), params)
        params = llama_cpp.llama_context_default_params()
        params.n_ctx = context
        params.n_batch = params.n_ubatch = 512
        params.n_threads = params.n_threads_batch = threads
        self.context = llama_cpp.llama_init_from_model(self.model, params)

    def decode(self, tokens):
        array = (llama_cpp.llama_token * len(tokens))(*tokens)
        batch = llama_cpp.llama_batch_get_one(array, len(tokens))
        if llama_cpp.llama_decode(self.context, batch) != 0:
            raise RuntimeError("llama_decode failed")
        llama_cpp.llama_synchronize(self.context)

    def measure(self, prompt, generated):
        """Tokens per second of prefill and decode."""
        llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(self.context), True)
        start = time.perf_counter()
        self.decode(list(range(100, 100 + prompt)))
        middle = time.perf_counter()
        for token in range(generated):
            self.decode([1000 + token])
        end = time.perf_counter()
        return prompt / (middle - start), generated / (end - middle)


def requantized(kind):
    """The model in another format, made by llama.cpp from the same file."""
    if kind == "q4_1":
        return MODEL
    path = CACHE / "model" / f"SmolLM2-135M-Instruct.{kind}.gguf"
    if not path.exists():
        params = llama_cpp.llama_model_quantize_default_params()
        params.ftype = FILE_TYPES[kind]
        params.allow_requantize = True
        part = path.with_suffix(".part")
        code = llama_cpp.llama_model_quantize(
            str(MODEL).encode(), str(part).encode(), ctypes.byref(params)
        )
        if code != 0:
            sys.exit(f"llama.cpp could not quantize to {kind}")
        part.rename(path)
    return path


def compiled(kind):
    """The artifact of the same weights."""
    path = CACHE / f"bench-{kind}.wlm"
    dtype = "keep" if kind == "q4_1" else kind
    command = [WAVELOOM, "compile", MODEL, "-o", path, "--dtype", dtype]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return path


def waveloom(path, args):
    """Tokens per second of prefill and decode."""
    command = [WAVELOOM, "bench", path, "--json", "--repeat", "1"]
    command += ["--prompt-tokens", args.prompt, "--gen-tokens", args.generated]
    command += ["--threads", args.threads]
    output = subprocess.run(list(map(str, command)), check=True, capture_output=True).stdout
    report = json.loads(output)
    return report["prefill_tok_s"]["median"], report["decode_tok_s"]["median"]


def measure(kind, args):
    llama = LlamaCpp(requantized(kind), args.threads, args.prompt + args.generated)
    artifact = compiled(kind)
    ours, theirs = [], []
    llama.measure(args.prompt, 8)
    for _ in range(args.rounds):
        ours.append(waveloom(artifact, args))
        theirs.append(llama.measure(args.prompt, args.generated))
    row = {"format": kind}
    for i, phase in enumerate(["prefill", "decode"]):
        row[phase] = {
            "waveloom_tok_s": statistics.median(sample[i] for sample in ours),
            "llama_cpp_tok_s": statistics.median(sample[i] for sample in theirs),
            "ratio": statistics.median(a[i] / b[i] for a, b in zip(ours, theirs)),
            "ratios": [round(a[i] / b[i], 3) for a, b in zip(ours, theirs)],
        }
    return row


def markdown(rows):
    lines = [
        "| format | prefill: Waveloom | llama.cpp | ratio | decode: Waveloom | llama.cpp | ratio |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        cells = [row["format"]]
        for phase in ["prefill", "decode"]:
            cells += [f"{row[phase]['waveloom_tok_s']:.0f}", f"{row[phase]['llama_cpp_tok_s']:.0f}"]
            cells.append(f"{row[phase]['ratio']:.2f}")
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--prompt", type=int, default=512)
    parser.add_argument("--generated", type=int, default=128)
    parser.add_argument("--formats", default="q4_1,q8_0,bf16")
    parser.add_argument("--markdown", type=Path)
    parser.add_argument("--smoke", action="store_true", help="only see whether llama.cpp runs")
    args = parser.parse_args()
    global silent
    silent = llama_cpp.llama_log_callback(lambda level, text, data: None)
    llama_cpp.llama_log_set(silent, ctypes.c_void_p(0))
    if args.smoke:
        for kind in ["q4_1", "q8_0", "bf16"]:
            LlamaCpp(requantized(kind), args.threads, 128).measure(64, 2)
        return
    rows = [measure(kind, args) for kind in args.formats.split(",")]
    table = markdown(rows)
    print(json.dumps({"threads": args.threads, "rounds": args.rounds, "rows": rows}, indent=1))
    print(table, file=sys.stderr)
    if args.markdown:
        args.markdown.write_text(table + "\n")


if __name__ == "__main__":
    main()
