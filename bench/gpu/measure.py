#!/usr/bin/env python3
"""Waveloom on a GPU beside PyTorch and transformers: one run, one JSON, one Markdown table.

Everything is measured in rounds, each of which takes a sample of every side in turn, so that what
the machine does meanwhile falls on all alike. A figure is the median of its samples with their range;
a ratio is the median of the rounds' ratios. Needs the folder that `./x gpu-bench` makes, PyTorch,
and, for the comparison of whole models, transformers.

    python3 measure.py [--device cuda] [--rounds 5] [--models Llama-3.2-1B,...] [--out DIR]
"""

import argparse
import datetime
import gc
import importlib.metadata
import itertools
import json
import lzma
import os
import platform
import re
import statistics
import subprocess
import sys
import time
from pathlib import Path

import torch
import torch.nn.functional as F

HERE = Path(__file__).resolve().parent
PROMPT_TOKENS = 512
NEW_TOKENS = 128
# Bytes that the bandwidth probe reads: many times any cache.
PROBE_BYTES = 4 << 30
# Sizes of the square product whose rate is the ceiling of matrix operations.
PROBE_GEMM = (4096, 8192)


class Samples:
    """Samples of one quantity by round. A round in which a side failed has none of it."""

    def __init__(self, unit):
        self.unit = unit
        self.by_round = {}

    def add(self, number, sample):
        self.by_round[number] = sample

    def json(self):
        # By round, with null where there is no sample.
        rounds = range(max(self.by_round, default=-1) + 1)
        samples = [self.by_round.get(number) for number in rounds]
        return {"unit": self.unit, "median": self.median(), "samples": samples}

    def median(self):
        return statistics.median(self.by_round.values()) if self.by_round else None

    def text(self):
        if not self.by_round:
            return "–"
        low, high = min(self.by_round.values()), max(self.by_round.values())
        return f"{self.median():,.1f} ({low:,.1f} to {high:,.1f}) {self.unit}"


def ratio(ours, theirs):
    """Median of the ratios of the rounds that both sides have; None where there is none."""
    both = ours.by_round.keys() & theirs.by_round.keys()
    return statistics.median(ours.by_round[n] / theirs.by_round[n] for n in both) if both else None


class Clock:
    """Times work on a device: events on a GPU, the host's clock on a CPU."""

    def __init__(self, device):
        self.cuda = device == "cuda"

    def synchronize(self):
        if self.cuda:
            torch.cuda.synchronize()

    def seconds(self, work, repeats):
        """Seconds of one of `repeats` runs of `work` queued behind each other."""
        work()
        self.synchronize()
        if not self.cuda:
            start = time.perf_counter()
            for _ in range(repeats):
                work()
            return (time.perf_counter() - start) / repeats
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        for _ in range(repeats):
            work()
        end.record()
        self.synchronize()
        return begin.elapsed_time(end) / 1e3 / repeats


def environment(device):
    found = {"date": datetime.date.today().isoformat(), "python": platform.python_version()}
    for package in ("torch", "transformers"):
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = None
    if device == "cuda":
        properties = torch.cuda.get_device_properties(0)
        found["gpu"] = properties.name
        found["multiprocessors"] = properties.multi_processor_count
        found["memory_bytes"] = properties.total_memory
        fields = "driver_version,clocks.max.sm,clocks.max.mem"
        found["driver"] = output_of(["nvidia-smi", f"--query-gpu={fields}", "--format=csv,noheader"])
    else:
        found["gpu"] = f"none: {platform.processor() or platform.machine()}"
    return found


def output_of(command):
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError) as error:
        return f"unknown: {error}"


class Ceilings:
    """What the device reads and multiplies at most, by the best of several ways to ask it."""

    def __init__(self, device, clock):
        self.clock = clock
        count = (PROBE_BYTES if device == "cuda" else 64 << 20) // 4
        self.data = torch.ones(count, dtype=torch.float32, device=device)
        self.sizes = PROBE_GEMM if device == "cuda" else (512,)
        self.device = device
        self.read = Samples("GB/s")
        self.matrix = Samples("TFLOP/s")

    def round(self, number):
        ways = [lambda: self.data.sum(), lambda: self.data.amax(), lambda: self.data.view(-1, 4096).sum(1)]
        best = min(self.clock.seconds(way, 5) for way in ways)
        self.read.add(number, self.data.numel() * 4 / best / 1e9)
        rates = []
        for size in self.sizes:
            a, b = (torch.randn(size, size, dtype=torch.bfloat16, device=self.device) for _ in range(2))
            seconds = self.clock.seconds(lambda: a @ b, 10)
            rates.append(2 * size**3 / seconds / 1e12)
        self.matrix.add(number, max(rates))


# Forms of the decode step, each measured against the one before, and what their artifacts are called.
FORMS = {"launches": "", "overlapping": ".overlapping", "persistent": ".persistent"}


class Ours:
    """One artifact under `waveloom-run bench`."""

    def __init__(self, artifact, device):
        self.artifact = artifact
        self.device = device
        self.decode = Samples("tok/s")
        self.prefill = Samples("tok/s")
        self.weight_bytes = None
        self.tokens = None
        self.notice = None
        self.error = None

    def round(self, number, prompt_tokens, new_tokens):
        command = [
            str(HERE / "waveloom-run"), "bench", str(self.artifact), "--device", self.device, "--json",
            "--repeat", "1", "--prompt-tokens", str(prompt_tokens), "--gen-tokens", str(new_tokens),
        ]
        result = subprocess.run(command, capture_output=True, text=True)
        if result.returncode != 0:
            self.error = result.stderr.strip()
            print(f"{self.artifact.name}: {self.error}", file=sys.stderr)
            return
        report = json.loads(result.stdout)
        self.decode.add(number, report["decode_tok_s"]["median"])
        self.prefill.add(number, report["prefill_tok_s"]["median"])
        self.weight_bytes = report["weight_bytes_per_token"]
        self.tokens = report["tokens"]
        # Such as that the device is too small for this form.
        self.notice = result.stderr.strip() or None

    def profile(self, prompt_tokens, new_tokens):
        """Times by launch, as `bench --profile` writes them; None where it cannot."""
        path = HERE / "profile.json"
        command = [
            str(HERE / "waveloom-run"), "bench", str(self.artifact), "--device", self.device,
            "--repeat", "1", "--prompt-tokens", str(prompt_tokens), "--gen-tokens", str(new_tokens),
            "--profile", str(path),
        ]
        result = subprocess.run(command, capture_output=True, text=True)
        if result.returncode != 0:
            print(f"{self.artifact.name}: {result.stderr.strip()}", file=sys.stderr)
            return None
        profile = json.loads(path.read_text())
        path.unlink()
        return profile


class Transformers:
    """The same shapes with random weights in bf16, eager or compiled, with a static cache."""

    def __init__(self, config_path, device, compiled, clock):
        from transformers import AutoConfig, AutoModelForCausalLM

        self.clock = clock
        self.device = device
        # The directory form of a config is what transformers reads.
        config = AutoConfig.for_model(**json.loads(config_path.read_text()))
        with torch.device(device):
            torch.set_default_dtype(torch.bfloat16)
            try:
                self.model = AutoModelForCausalLM.from_config(config).eval()
            finally:
                torch.set_default_dtype(torch.float32)
        self.config = config
        self.step = self.model.forward
        if compiled:
            self.step = torch.compile(self.model.forward, mode="reduce-overhead", fullgraph=True)
        self.decode = Samples("tok/s")
        self.prefill = Samples("tok/s")

    @torch.inference_mode()
    def round(self, number, prompt_tokens, new_tokens):
        from transformers import StaticCache

        vocab = self.config.vocab_size
        prompt = (torch.arange(prompt_tokens, device=self.device) + 100)[None] % vocab
        # The second run is the one that counts: the first compiles and captures.
        for counts in (False, True):
            cache = StaticCache(config=self.config, max_cache_len=prompt_tokens + new_tokens + 1)
            position = torch.arange(prompt_tokens, device=self.device)
            self.clock.synchronize()
            start = time.perf_counter()
            logits = self.model(
                prompt, past_key_values=cache, cache_position=position, use_cache=True, logits_to_keep=1
            ).logits
            token = logits[:, -1:].argmax(-1)
            self.clock.synchronize()
            if counts:
                self.prefill.add(number, prompt_tokens / (time.perf_counter() - start))
            position = torch.tensor([prompt_tokens], device=self.device)
            # Two steps outside the measurement: they record the graph.
            for step in range(new_tokens):
                if step == 2:
                    self.clock.synchronize()
                    start = time.perf_counter()
                logits = self.step(
                    token.clone(), past_key_values=cache, cache_position=position, use_cache=True
                ).logits
                token = logits[:, -1:].argmax(-1)
                position = position + 1
            self.clock.synchronize()
            if counts:
                self.decode.add(number, (new_tokens - 2) / (time.perf_counter() - start))

    def free(self):
        self.model = self.step = None
        torch._dynamo.reset()
        gc.collect()
        if self.device == "cuda":
            torch.cuda.empty_cache()


# How the profile describes a product: `gemm [T, 576] x bf16[960, 576] …, norm; …`.
PRODUCT = re.compile(r"^gemm \[(\w+), (\d+)\] x ([^;]*)")
WEIGHT = re.compile(r"\w+\[(\d+), \d+\]")
ATTENTION = re.compile(r"^attention (prefill|decode)")


def torch_gemm(n, k, rows, device, clock):
    """Seconds of x·Wᵀ by PyTorch (cuBLAS). Four weights in turn, so that no cache has them."""
    x = torch.randn(rows, k, dtype=torch.bfloat16, device=device)
    weights = [torch.randn(n, k, dtype=torch.bfloat16, device=device) for _ in range(4)]
    turn = iter(range(1 << 30))
    return clock.seconds(lambda: F.linear(x, weights[next(turn) % 4]), 20)


def torch_attention(config, queries, positions, device, clock):
    """Seconds of PyTorch's fused attention; causal where there is more than one query."""
    heads, kv = config["num_attention_heads"], config["num_key_value_heads"]
    head = config.get("head_dim") or config["hidden_size"] // heads
    shape = lambda count, length: (1, count, length, head)
    q = torch.randn(shape(heads, queries), dtype=torch.bfloat16, device=device)
    k, v = (torch.randn(shape(kv, positions), dtype=torch.bfloat16, device=device) for _ in range(2))
    causal = queries > 1
    run = lambda: F.scaled_dot_product_attention(q, k, v, is_causal=causal, enable_gqa=heads != kv)
    return clock.seconds(run, 20)


def beside_torch(program, config, args, clock):
    """Kernels of a program, each with the time of a launch of ours and of PyTorch's: of a product the
    product alone, without what we fuse into it."""
    rows = {}
    for launch in program["launches"]:
        row = rows.setdefault(launch["kernel"], {"summary": launch["summary"], "ours_s": []})
        row["ours_s"].append(launch["seconds"])
    tokens = 1 if program["name"].startswith("decode") else args.prompt_tokens
    for row in rows.values():
        seconds = [s for s in row["ours_s"] if s is not None]
        row["launches"], row["ours_s"] = len(row["ours_s"]), statistics.median(seconds) if seconds else None
        product = PRODUCT.match(row["summary"])
        if product:
            m = tokens if product[1] == "T" else int(product[1])
            n, k = sum(int(rows) for rows in WEIGHT.findall(product[3])), int(product[2])
            row["torch_s"] = torch_gemm(n, k, m, args.device, clock)
            row["operations"] = 2 * m * n * k
        elif ATTENTION.match(row["summary"]):
            row["torch_s"] = torch_attention(config, tokens, args.prompt_tokens, args.device, clock)
    return rows


def verify(name, target, args):
    """Every kernel of a model against the interpreter in float64, by the compiler in the folder."""
    compiler = HERE / "waveloom"
    if not compiler.exists():
        packed = HERE / "waveloom.xz"
        if not packed.exists():
            return {"error": "no compiler in the folder"}
        compiler.write_bytes(lzma.decompress(packed.read_bytes()))
        compiler.chmod(0o755)
    command = [
        str(compiler), "verify", str(HERE / "configs" / f"{name}.json"), "--synthetic-weights", "1",
        "--target", target, "--device", args.device, "--launches-per-kernel", "2", "--json",
    ]
    result = subprocess.run(command, capture_output=True, text=True)
    try:
        return json.loads(result.stdout)
    except json.JSONDecodeError:
        return {"error": result.stderr.strip()}


def measure_model(name, args, clock, report):
    config_path = HERE / "configs" / f"{name}.json"
    config = json.loads(config_path.read_text())
    artifacts = {form: HERE / f"{name}{suffix}.wlm" for form, suffix in FORMS.items()}
    ours = {form: Ours(path, args.device) for form, path in artifacts.items() if path.exists()}
    # As the first form, but for prefill.
    path = HERE / f"{name}.wgmma.wlm"
    wgmma = {"waveloom, wgmma": Ours(path, args.device)} if path.exists() and args.device == "cuda" else {}
    theirs = {}
    if report["environment"]["transformers"] and not args.no_transformers:
        for label, compiled in (("transformers eager", False), ("transformers compiled", True)):
            try:
                theirs[label] = Transformers(config_path, args.device, compiled, clock)
            except Exception as error:  # what a peer cannot do is a fact to report, not our failure
                print(f"{name}, {label}: {error}", file=sys.stderr)
    for number in range(args.rounds):
        for side in [*ours.values(), *wgmma.values(), *theirs.values()]:
            side.round(number, args.prompt_tokens, args.new_tokens)
    first, best = ours["launches"], max(ours.values(), key=lambda side: side.decode.median() or 0)
    profile = first.profile(args.prompt_tokens, min(args.new_tokens, 16))
    programs = list(profile["programs"]) if profile else []
    for side in wgmma.values():
        found = side.profile(args.prompt_tokens, min(args.new_tokens, 16))
        prefill = [p for p in (found["programs"] if found else []) if p["name"] == "prefill"]
        programs += [{**program, "name": "prefill, wgmma"} for program in prefill]
    sides = {**{f"waveloom, {form}": side for form, side in ours.items()}, **wgmma, **theirs}
    # Of theirs, what our fastest form is to them; of a form, what it is to the one before.
    before = [None, *ours.values()]
    ratios = {
        label: (ratio(best.decode, side.decode), ratio(best.prefill, side.prefill))
        for label, side in theirs.items()
    }
    gains = {form: previous and ratio(side.decode, previous.decode) for (form, side), previous in zip(ours.items(), before)}
    known = [side.tokens for side in ours.values() if side.tokens is not None]
    report["models"][name] = {
        "weight_bytes_per_token": best.weight_bytes,
        "fastest_form": next(form for form, side in ours.items() if side is best),
        "errors": {form: side.error for form, side in [*ours.items(), *wgmma.items()] if side.error},
        "notices": {form: side.notice for form, side in ours.items() if side.notice},
        "same_tokens": all(tokens == known[0] for tokens in known) if len(known) > 1 else None,
        "decode": {label: side.decode.json() for label, side in sides.items()},
        "prefill": {label: side.prefill.json() for label, side in sides.items()},
        "decode_gain": gains,
        "prefill_gain": {label: ratio(side.prefill, first.prefill) for label, side in wgmma.items()},
        "decode_ratio": {label: ratios[label][0] for label in theirs},
        "prefill_ratio": {label: ratios[label][1] for label in theirs},
        "kernels": {p["name"]: beside_torch(p, config, args, clock) for p in programs},
        "profile": profile,
    }
    lines = [
        (label, side.decode.text(), side.prefill.text(), gain, *ratios.get(label, (None, None)))
        for (label, side), gain in itertools.zip_longest(sides.items(), gains.values())
    ]
    for side in theirs.values():
        side.free()
    return lines


def kernel_line(kernel):
    ours, theirs, operations = kernel["ours_s"], kernel.get("torch_s"), kernel.get("operations")
    cells = [kernel["summary"], kernel["launches"], f"{ours * 1e6:.1f}"]
    cells += [f"{theirs * 1e6:.1f}", f"{theirs / ours:.2f}"] if theirs else ["", ""]
    cells.append(f"{operations / ours / 1e12:.1f}" if operations else "")
    return "| " + " | ".join(map(str, cells)) + " |"


def markdown(report, ceilings, tables):
    env = report["environment"]
    lines = [
        f"# {env['gpu']}, {env['date']}",
        "",
        f"PyTorch {env['torch']}, transformers {env['transformers']}, driver {env.get('driver', 'none')}.",
        f"Reads at most {ceilings.read.text()}, multiplies bf16 at most at {ceilings.matrix.text()}.",
        f"Prompt {report['prompt_tokens']} tokens, {report['new_tokens']} new ones; medians and ranges of"
        f" {report['rounds']} rounds; ratios are our fastest form ÷ theirs, gains a form ÷ the one before.",
    ]
    for name, rows in tables.items():
        model = report["models"][name]
        lines += ["", f"## {name}", "", "| | decode | prefill | gain | ratio decode | ratio prefill |"]
        lines += ["| --- | --- | --- | --- | --- | --- |"]
        for label, decode, prefill, *ratios in rows:
            ratios = " | ".join("–" if r is None else f"{r:.2f}" for r in ratios)
            lines.append(f"| {label} | {decode} | {prefill} | {ratios} |")
        form, read = model["fastest_form"], ceilings.read.median()
        decode = model["decode"][f"waveloom, {form}"]["median"]
        if decode and read:
            share = decode * model["weight_bytes_per_token"] / 1e9 / read
            lines += ["", f"Weights are read at {share:.0%} of the bandwidth measured ({form})."]
        if model["same_tokens"] is not None:
            lines += ["", f"All forms generate the same tokens: {'yes' if model['same_tokens'] else 'NO'}."]
        for form, said in [*model["errors"].items(), *model["notices"].items()]:
            lines += ["", f"Waveloom, {form}: {said}"]
        for program, kernels in model["kernels"].items():
            lines += ["", f"Launches of {program}; PyTorch's product or attention alone, without what is fused into ours", ""]
            lines += ["| kernel | launches | ours, us | PyTorch, us | ratio | TFLOP/s |", "| --- | --- | --- | --- | --- | --- |"]
            lines += [kernel_line(kernel) for kernel in kernels.values() if kernel["ours_s"]]
    for name, result in report["verified"].items():
        lines += ["", f"## Kernels of {name} against float64", ""]
        lines.append(result.get("error") or f"All within their bounds: {result['passed']}.")
    return "\n".join(lines) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--models", default="", help="names, separated by commas [default: all of the folder]")
    parser.add_argument("--prompt-tokens", type=int, default=PROMPT_TOKENS)
    parser.add_argument("--new-tokens", type=int, default=NEW_TOKENS)
    parser.add_argument("--verify", default="SmolLM2-135M", help="models whose kernels are verified")
    parser.add_argument("--targets", default="sm_90a,sm_90", help="targets of the verification on a GPU")
    parser.add_argument("--no-transformers", action="store_true")
    parser.add_argument("--out", type=Path, default=HERE / "results")
    args = parser.parse_args()
    if args.device == "cuda" and not torch.cuda.is_available():
        sys.exit("PyTorch finds no GPU: run this on a machine with one, or try the script with --device cpu")
    names = args.models.split(",") if args.models else sorted(p.stem for p in (HERE / "configs").glob("*.json"))
    names = [name for name in names if (HERE / f"{name}.wlm").exists()]
    if not names:
        sys.exit(f"no artifacts in {HERE}: make the folder with ./x gpu-bench DIR")
    clock = Clock(args.device)
    targets = args.targets.split(",") if args.device == "cuda" else ["cpu"]
    verified = [name for name in names if name in args.verify.split(",")]
    report = {
        "environment": environment(args.device),
        "rounds": args.rounds,
        "prompt_tokens": args.prompt_tokens,
        "new_tokens": args.new_tokens,
        "models": {},
        "verified": {
            f"{name}, {target}": verify(name, target, args) for name in verified for target in targets
        },
    }
    ceilings = Ceilings(args.device, clock)
    for number in range(args.rounds):
        ceilings.round(number)
    report["ceilings"] = {"read": ceilings.read.json(), "matrix": ceilings.matrix.json()}
    ceilings.data = None
    args.out.mkdir(parents=True, exist_ok=True)
    tables = {}
    for name in names:
        tables[name] = measure_model(name, args, clock, report)
        # After each model: a run that is cut short has what it got.
        (args.out / "gpu-bench.json").write_text(json.dumps(report, indent=1))
        (args.out / "gpu-bench.md").write_text(markdown(report, ceilings, tables))
    print((args.out / "gpu-bench.md").read_text())


if __name__ == "__main__":
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    main()
