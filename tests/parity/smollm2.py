"""SmolLM2-135M as a Hugging Face checkpoint, converted to several types: its perplexity in each.

python -m tests.parity.smollm2
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
import transformers

from convert import convert_checkpoint
from convert.gguf.file import GgufFile, read_head
from tests.benchmarks.requantized import default_model
from tests.parity.official_tokenizer import official_tokenizer
from tinker_local import ModelInput, ServiceClient

TYPES = ("f32", "bf16", "q8_0", "q4_k_m")
TEXT = Path(__file__).parents[2] / "LICENSE"
N_TOKENS = 1024
NAMES = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}


def write_checkpoint(directory: Path) -> Any:
    """Save the embedded model as transformers saves it, in float32; return it.

    The weights are those of the 4-bit file, spelled out in BF16. transformers reads GGUF files itself, to
    the same end, but needs 20 s for it.
    """
    head = read_head(default_model())
    config = _config(head)
    model = transformers.LlamaForCausalLM._from_config(config, attn_implementation="eager")
    model.load_state_dict(_weights(head, config), strict=False)
    model.tie_weights()
    for part in (model, official_tokenizer(head.path)):
        part.save_pretrained(directory)
    return model.eval()


def _config(head: GgufFile) -> transformers.LlamaConfig:
    values: Any = head.metadata
    return transformers.LlamaConfig(
        vocab_size=values["llama.vocab_size"],
        hidden_size=values["llama.embedding_length"],
        intermediate_size=values["llama.feed_forward_length"],
        num_hidden_layers=values["llama.block_count"],
        num_attention_heads=values["llama.attention.head_count"],
        num_key_value_heads=values["llama.attention.head_count_kv"],
        max_position_embeddings=values["llama.context_length"],
        rms_norm_eps=values["llama.attention.layer_norm_rms_epsilon"],
        rope_parameters={"rope_type": "default", "rope_theta": values["llama.rope.freq_base"]},
        bos_token_id=values["tokenizer.ggml.bos_token_id"],
        eos_token_id=values["tokenizer.ggml.eos_token_id"],
        tie_word_embeddings=True,
        architectures=["LlamaForCausalLM"],
    )


def _weights(head: GgufFile, config: transformers.LlamaConfig) -> dict[str, torch.Tensor]:
    """Return the file's weights, rounded to BF16, by transformers' names."""
    data = np.memmap(head.path, np.uint8, "r")
    weights = {}
    for name, info in head.tensors.items():
        block, _, part = name.removesuffix(".weight").rpartition(".")
        layer = block.replace("blk.", "model.layers.") + "." if block else ""
        stored = data[info.start : info.start + info.n_bytes].reshape(info.shape[0], -1)
        rows = gguf.quants.dequantize(stored, gguf.GGMLQuantizationType(info.type)).reshape(info.shape)
        if part in ("attn_q", "attn_k"):
            rows = _halves(rows, config.head_dim)
        weights[f"{layer}{NAMES[part]}.weight"] = torch.tensor(rows).bfloat16().float()
    return weights


def _halves(rows: Any, head_dim: int) -> Any:
    """Return each head's rows in transformers' order, both halves apart; llama.cpp has pairs of them."""
    pairs = rows.reshape(-1, head_dim // 2, 2, rows.shape[1])
    return pairs.swapaxes(1, 2).reshape(rows.shape)


def scored_tokens(model_path: Path, n_tokens: int) -> list[int]:
    with ServiceClient(n_ctx=64) as service:
        tokenizer = service.create_sampling_client(base_model=str(model_path)).get_tokenizer()
        return tokenizer.encode(TEXT.read_text(encoding="utf-8"))[:n_tokens]


@torch.no_grad()
def perplexity_of_source(model: Any, tokens: list[int]) -> float:
    rows = torch.log_softmax(model(torch.tensor([tokens])).logits[0].double(), -1)
    logprobs = rows[torch.arange(len(tokens) - 1), torch.tensor(tokens[1:])]
    return float(torch.exp(-logprobs.mean()))


def perplexity(path: Path, tokens: list[int]) -> float:
    """With a float32 cache and without flash attention."""
    with ServiceClient(n_ctx=2048, kv_type="f32", flash_attn=False) as service:
        client = service.create_sampling_client(base_model=str(path))
        logprobs = client.compute_logprobs(ModelInput.from_ints(tokens)).result()[1:]
    return float(np.exp(-np.mean(np.array(logprobs, np.float64))))


def measure(directory: Path, n_tokens: int = N_TOKENS) -> dict[str, float]:
    """Return the perplexity of transformers and of each type."""
    model = write_checkpoint(directory / "SmolLM2")
    paths = {
        kind: convert_checkpoint(directory / "SmolLM2", directory / f"{kind}.gguf", outtype=kind)
        for kind in TYPES
    }
    tokens = scored_tokens(paths["f32"], n_tokens)
    found = {"transformers": perplexity_of_source(model, tokens)}
    return found | {kind: perplexity(path, tokens) for kind, path in paths.items()}


def main() -> None:
    """Print the table."""
    directory = Path(tempfile.mkdtemp())
    try:
        found = measure(directory)
    finally:
        shutil.rmtree(directory)
    print("| type | perplexity | over transformers' |\n|---|---|---|")
    for kind, value in found.items():
        print(f"| {kind} | {value:.4f} | {value / found['transformers'] - 1:+.3%} |")


if __name__ == "__main__":
    main()
