"""What q8_0 costs in the reference implementation: mean KL divergence against f32 over the golden text,
with the weights rounded to q8_0, with the activations rounded to eight bits per block of 32, by part.

Needs the PyPI packages torch, transformers, gguf and accelerate.
Usage: python scripts/quantization_floor.py .cache/model/SmolLM2-135M-Instruct.Q4_1.gguf
"""

import json
import sys
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM

PARTS = {
    "all": [""],
    "q, k, v": ["q_proj", "k_proj", "v_proj"],
    "o": ["o_proj"],
    "gate, up": ["gate_proj", "up_proj"],
    "down": ["down_proj"],
    "head": ["lm_head"],
}


def rounded(values):
    """q8_0 and back: f16 scale amax / 127 per block of 32."""
    blocks = values.reshape(-1, 32)
    scale = (blocks.abs().amax(1, keepdim=True) / 127).half().float()
    quants = torch.where(scale > 0, torch.round(blocks / torch.where(scale > 0, scale, 1)), 0)
    return (quants * scale).reshape(values.shape)


def divergence(reference, found):
    pairs = zip(reference, found)
    return torch.cat([(p.exp() * (p - q)).sum(-1) for p, q in pairs]).mean().item()


def main():
    torch.set_grad_enabled(False)
    path = Path(sys.argv[1])
    model = AutoModelForCausalLM.from_pretrained(
        path.parent, gguf_file=path.name, dtype=torch.float32
    )
    golden = Path(__file__).parent.parent / "tests/golden/smollm2-135m.json"
    cases = json.loads(golden.read_text())["cases"]
    texts = [torch.tensor([case["prompt_ids"] + case["greedy_ids"]]) for case in cases]
    linears = [(n, m) for n, m in model.named_modules() if isinstance(m, torch.nn.Linear)]
    weights = {name: linear.weight.data for name, linear in linears}

    def run():
        return [model(text).logits[0].log_softmax(-1) for text in texts]

    reference = run()
    for part, suffixes in PARTS.items():
        chosen = [(n, m) for n, m in linears if any(n.endswith(s) for s in suffixes)]
        hooks = [
            m.register_forward_pre_hook(lambda _, inputs: (rounded(inputs[0]),)) for _, m in chosen
        ]
        activations = divergence(reference, run())
        for hook in hooks:
            hook.remove()
        for name, linear in chosen:
            linear.weight.data = rounded(weights[name])
        print(f"{part:9} weights {divergence(reference, run()):.2e}  activations {activations:.2e}")
        for name, linear in chosen:
            linear.weight.data = weights[name]


if __name__ == "__main__":
    main()
