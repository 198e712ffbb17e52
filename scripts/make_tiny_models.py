#!/usr/bin/env python3
"""Makes the tiny random models in tests/fixtures/tiny, with reference outputs.

Each directory holds a model in Hugging Face's layout (or GGUF files), and `reference.json` with
`reference.safetensors`: logits of a fixed prompt and of a greedy continuation, computed by
transformers on the CPU in f32 with eager attention from the stored weights. The tests compare what
Waveloom computes with them.

Needs the PyPI packages torch, transformers, safetensors, tokenizers, gguf and sentencepiece; the
versions that made the committed files are in each `reference.json`. Seeds are fixed, so running it
again with these versions changes nothing.

    scripts/make_tiny_models.py [OUTPUT_DIRECTORY]
"""

import copy
import json
import pathlib
import shutil
import sys
import tempfile

import gguf
import numpy as np
import safetensors
import sentencepiece
import tokenizers
import torch
import transformers
from safetensors.torch import load_file, save_file

ROOT = pathlib.Path(__file__).resolve().parent.parent
VOCAB = 320
PROMPT_LENGTH = 24
NEW_TOKENS = 16

COMMON = dict(
    vocab_size=VOCAB,
    hidden_size=64,
    intermediate_size=96,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=128,
    bos_token_id=1,
    eos_token_id=2,
    tie_word_embeddings=False,
)


def default_rope(theta):
    return {"rope_type": "default", "rope_theta": theta}


# name: configuration, dtype of the checkpoint
MODELS = {
    # Untied head, two shards, the older `rope_theta` in config.json.
    "llama": (
        transformers.LlamaConfig(**COMMON, rope_parameters=default_rope(10000.0)),
        torch.float32,
    ),
    # Tied head, llama3 scaling with frequencies in all three of its ranges, as many KV heads as
    # query heads, biases everywhere a Llama may have them.
    "llama3": (
        transformers.LlamaConfig(
            **COMMON
            | dict(
                num_key_value_heads=4,
                tie_word_embeddings=True,
                attention_bias=True,
                mlp_bias=True,
                rope_parameters={
                    "rope_type": "llama3",
                    "rope_theta": 10000.0,
                    "factor": 8.0,
                    "low_freq_factor": 1.0,
                    "high_freq_factor": 4.0,
                    "original_max_position_embeddings": 64,
                },
            )
        ),
        torch.bfloat16,
    ),
    # A window shorter than the prompt, head_dim ≠ hidden / heads, the older `rope_scaling`.
    "mistral": (
        transformers.MistralConfig(
            **COMMON,
            head_dim=32,
            sliding_window=10,
            rope_parameters={"rope_type": "linear", "rope_theta": 10000.0, "factor": 2.0},
        ),
        torch.float16,
    ),
    # Biases of q, k and v; one KV head.
    "qwen2": (
        transformers.Qwen2Config(
            **COMMON
            | dict(num_key_value_heads=1, tie_word_embeddings=True),
            rope_parameters=default_rope(1000000.0),
        ),
        torch.float16,
    ),
    # Norms of q and k, a window in the second layer only.
    "qwen3": (
        transformers.Qwen3Config(
            **COMMON,
            head_dim=32,
            use_sliding_window=True,
            sliding_window=12,
            max_window_layers=1,
            rope_parameters=default_rope(1000000.0),
        ),
        torch.bfloat16,
    ),
}
OLD_ROPE = {"llama", "mistral"}
SHARDED = {"llama"}

CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}"
    "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
CORPUS = [
    "The quick brown fox jumps over the lazy dog.",
    "In the beginning the compiler was without form, and void.",
    "What is the capital of France, and what is it famous for?",
    "There are 1234567 reasons to write tests; this is the first.",
    "the then there these them that this thing think other another mother",
]


def versions():
    names = [torch, transformers, safetensors, tokenizers, sentencepiece]
    found = {module.__name__: module.__version__ for module in names}
    return found | {"gguf": __import__("importlib.metadata").metadata.version("gguf")}


def make_model(config, dtype, seed):
    """A model whose weights are large enough for logits to differ, rounded to `dtype`."""
    torch.manual_seed(seed)
    config._attn_implementation = "eager"
    model = transformers.AutoModelForCausalLM.from_config(config).to(torch.float32)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape)
            value = 1 + 0.2 * noise if "norm" in name else 0.15 * noise
            parameter.copy_(value.to(dtype).to(torch.float32))
    model.tie_weights()
    return model.eval()


@torch.no_grad()
def reference(model, directory, name, seed):
    """Writes the logits of a prompt and of a greedy continuation."""
    generator = torch.Generator().manual_seed(1000 + seed)
    prompt = torch.randint(3, VOCAB, (1, PROMPT_LENGTH), generator=generator)
    tokens, greedy, margin = prompt, [], float("inf")
    for _ in range(NEW_TOKENS):
        logits = model(tokens, use_cache=False).logits[0]
        top = logits[-1].topk(2).values
        margin = min(margin, (top[0] - top[1]).item())
        greedy.append(logits[-1].argmax().item())
        tokens = torch.cat([tokens, torch.tensor([[greedy[-1]]])], dim=1)
    logits = model(tokens, use_cache=False).logits[0]
    save_file(
        {
            "prompt_logits": logits[:PROMPT_LENGTH].clone(),
            "greedy_logits": logits[PROMPT_LENGTH - 1 : -1].clone(),
        },
        directory / f"{name}.safetensors",
    )
    record = {
        "prompt": prompt[0].tolist(),
        "greedy": greedy,
        "min_top2_margin": margin,
        "versions": versions(),
    }
    (directory / f"{name}.json").write_text(json.dumps(record, indent=1) + "\n")


def old_rope(config):
    """`rope_parameters` as older files spell them; those of Llama have no `head_dim` either."""
    if config["model_type"] == "llama":
        del config["head_dim"]
    parameters = config.pop("rope_parameters")
    config["rope_theta"] = parameters.pop("rope_theta")
    kind = parameters.pop("rope_type")
    if kind != "default":
        config["rope_scaling"] = {"type": kind} | parameters
    return config


def make_tokenizer():
    """A byte-level BPE of `VOCAB` tokens, as SmolLM2's."""
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE())
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Sequence(
        [
            tokenizers.pre_tokenizers.Digits(individual_digits=True),
            tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=VOCAB,
        special_tokens=SPECIAL,
        initial_alphabet=sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    assert tokenizer.get_vocab_size() == VOCAB
    return tokenizer


def write_text_files(directory, named_templates):
    make_tokenizer().save(str(directory / "tokenizer.json"))
    template = CHAT_TEMPLATE
    eos = "<|im_end|>"
    if named_templates:
        template = [
            {"name": "tool_use", "template": "not this one"},
            {"name": "default", "template": CHAT_TEMPLATE},
        ]
        eos = {"content": eos, "special": True, "__type": "AddedToken"}
    config = {"bos_token": "<|im_start|>", "eos_token": eos, "chat_template": template}
    (directory / "tokenizer_config.json").write_text(json.dumps(config, indent=1) + "\n")
    generation = {"eos_token_id": [2, 0] if named_templates else 2, "temperature": 0.7, "top_k": 20}
    (directory / "generation_config.json").write_text(json.dumps(generation, indent=1) + "\n")


def write_checkpoint(model, directory, dtype, name):
    # A copy, since the buffer with RoPE's frequencies would be rounded along with the weights.
    model = copy.deepcopy(model).to(dtype)
    model.generation_config = transformers.GenerationConfig()
    with tempfile.TemporaryDirectory() as temporary:
        limit = "250KB" if name in SHARDED else "1GB"
        model.save_pretrained(temporary, max_shard_size=limit)
        for file in sorted(pathlib.Path(temporary).glob("model*")):
            shutil.copy(file, directory / file.name)
        config = json.loads((pathlib.Path(temporary) / "config.json").read_text())
    if name in OLD_ROPE:
        config = old_rope(config)
    (directory / "config.json").write_text(json.dumps(config, indent=1) + "\n")


# Hugging Face's names of tensors, and GGUF's.
GGUF_NAMES = {
    "model.embed_tokens.": "token_embd.",
    "model.norm.": "output_norm.",
    "lm_head.": "output.",
    "model.layers.": "blk.",
    "input_layernorm.": "attn_norm.",
    "post_attention_layernorm.": "ffn_norm.",
    "self_attn.q_proj.": "attn_q.",
    "self_attn.k_proj.": "attn_k.",
    "self_attn.v_proj.": "attn_v.",
    "self_attn.o_proj.": "attn_output.",
    "self_attn.q_norm.": "attn_q_norm.",
    "self_attn.k_norm.": "attn_k_norm.",
    "mlp.gate_proj.": "ffn_gate.",
    "mlp.up_proj.": "ffn_up.",
    "mlp.down_proj.": "ffn_down.",
}


def gguf_name(name):
    for ours, theirs in GGUF_NAMES.items():
        name = name.replace(ours, theirs)
    return name


def permute(weights, heads):
    """`LlamaModel.permute` of llama.cpp's conversion/llama.py."""
    shape = weights.shape
    split = weights.reshape(heads, 2, shape[0] // heads // 2, *shape[1:])
    return split.swapaxes(1, 2).reshape(shape)


def llama3_divisors(config):
    """`generate_extra_tensors` of llama.cpp's conversion/llama.py."""
    plain = 1.0 / (10000.0 ** (torch.arange(0, config.head_dim, 2).float() / config.head_dim))
    scaled, _ = transformers.modeling_rope_utils.ROPE_INIT_FUNCTIONS["llama3"](config, "cpu")
    return (plain / scaled).numpy()


def write_gguf(model, path, quantization, architecture):
    """Writes `model` as llama.cpp's converter would; `quantization(name)` is a tensor's type.

    Gives back the weights as they read from the file, under their Hugging Face names.
    """
    config = model.config
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_name(f"Tiny {architecture}")
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    writer.add_rope_dimension_count(head_dim)
    if head_dim * config.num_attention_heads != config.hidden_size:
        writer.add_key_length(head_dim)
        writer.add_value_length(head_dim)
    if config.rope_parameters["rope_type"] == "llama3":
        writer.add_tensor("rope_freqs.weight", llama3_divisors(config))
    window = getattr(config, "sliding_window", None)
    if window:
        writer.add_sliding_window(window)
        slides = [kind == "sliding_attention" for kind in config.layer_types]
        writer.add_sliding_window_pattern(slides)
    write_gguf_tokenizer(writer)
    stored = {}
    for name, value in model.state_dict().items():
        if name == "lm_head.weight" and config.tie_word_embeddings:
            continue
        value = value.to(torch.float32).numpy()
        heads = {"q": config.num_attention_heads, "k": config.num_key_value_heads}
        rotated = [heads[x] for x in "qk" if f".{x}_proj." in name]
        if architecture == "llama" and rotated:
            value = permute(value, rotated[0])
        kind = quantization(name) if value.ndim > 1 else gguf.GGMLQuantizationType.F32
        packed = gguf.quants.quantize(np.ascontiguousarray(value), kind)
        writer.add_tensor(gguf_name(name), packed, raw_dtype=kind)
        value = gguf.quants.dequantize(packed, kind)
        if architecture == "llama" and rotated:
            value = unpermute(value, rotated[0])
        stored[name] = torch.from_numpy(value.copy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return stored


def unpermute(weights, heads):
    shape = weights.shape
    split = weights.reshape(heads, shape[0] // heads // 2, 2, *shape[1:])
    return split.swapaxes(1, 2).reshape(shape)


def write_gguf_tokenizer(writer):
    tokenizer = json.loads(make_tokenizer().to_str())
    tokens = sorted(tokenizer["model"]["vocab"], key=tokenizer["model"]["vocab"].get)
    merges = [" ".join(pair) for pair in tokenizer["model"]["merges"]]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(tokens)
    writer.add_token_types([3 if token in SPECIAL else 1 for token in tokens])
    writer.add_token_merges(merges)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_add_bos_token(False)
    writer.add_chat_template(CHAT_TEMPLATE)


def mixed_types(name):
    """A type for each projection, so that one file has every type that `gguf` can write."""
    types = gguf.GGMLQuantizationType
    for part, kind in {
        "embed_tokens": types.Q8_0,
        "lm_head": types.Q8_0,
        "q_proj": types.Q4_0,
        "k_proj": types.Q5_1,
        "v_proj": types.Q8_0,
        "o_proj": types.Q5_0,
        "gate_proj": types.Q4_1,
        "up_proj": types.Q4_1,
        "layers.0.mlp.down_proj": types.Q8_0,
        "layers.1.mlp.down_proj": types.F16,
    }.items():
        if part in name:
            return kind
    raise KeyError(name)


def constant_type(kind):
    return lambda _: kind


def write_sentence_piece(directory):
    """A GGUF file with a SentencePiece vocabulary only, and what sentencepiece makes of texts."""
    with tempfile.TemporaryDirectory() as temporary:
        prefix = pathlib.Path(temporary) / "spm"
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(CORPUS * 4),
            model_prefix=str(prefix),
            model_type="bpe",
            vocab_size=VOCAB,
            byte_fallback=True,
            normalization_rule_name="identity",
            remove_extra_whitespaces=False,
            minloglevel=2,
        )
        model = sentencepiece.SentencePieceProcessor(model_file=f"{prefix}.model")
    size = model.vocab_size()
    kind = lambda i: 2 if model.is_unknown(i) else 3 if model.is_control(i) else 6 if model.is_byte(i) else 1
    writer = gguf.GGUFWriter(directory / "vocab.gguf", "llama")
    writer.add_tokenizer_model("llama")
    writer.add_token_list([model.id_to_piece(i) for i in range(size)])
    writer.add_token_scores([model.get_score(i) for i in range(size)])
    writer.add_token_types([kind(i) for i in range(size)])
    writer.add_bos_token_id(model.bos_id())
    writer.add_eos_token_id(model.eos_id())
    writer.add_unk_token_id(model.unk_id())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    texts = CORPUS + [
        "hello",
        " two  spaces   three",
        "naïve café — 東京 🙂",
        "tabs\tand\nnewlines",
        "thethethere another1234",
        "x",
    ]
    record = {
        "cases": [{"text": text, "ids": model.encode(text)} for text in texts],
        "versions": versions(),
    }
    text = json.dumps(record, indent=1, ensure_ascii=False)
    (directory / "reference.json").write_text(text + "\n")


def fresh(directory):
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    return directory


def main():
    out = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "tests/fixtures/tiny"
    models = {}
    for seed, (name, (config, dtype)) in enumerate(MODELS.items()):
        directory = fresh(out / name)
        models[name] = make_model(config, dtype, seed)
        write_checkpoint(models[name], directory, dtype, name)
        write_text_files(directory, named_templates=name == "qwen2")
        reference(models[name], directory, "reference", seed)

    # The same models as GGUF, in a type that keeps their values.
    types = gguf.GGMLQuantizationType
    directory = fresh(out / "gguf")
    for name, kind, architecture in [
        ("llama", types.F32, "llama"),
        ("llama3", types.BF16, "llama"),
        ("qwen2", types.F16, "qwen2"),
        ("qwen3", types.BF16, "qwen3"),
    ]:
        write_gguf(models[name], directory / f"{name}.gguf", constant_type(kind), architecture)

    # And one whose values the file's types change, with a reference of its own.
    stored = write_gguf(models["llama"], directory / "mixed.gguf", mixed_types, "llama")
    models["llama"].load_state_dict(stored)
    reference(models["llama"], directory, "mixed.reference", 100)

    write_sentence_piece(fresh(out / "sentencepiece"))


if __name__ == "__main__":
    main()
