"""Log-probabilities of a converted model compared with those of transformers on the source, in float32."""

from __future__ import annotations

import ctypes
import json
import os
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from convert.errors import ConversionError
from convert.verification.llama_process import llama_process, serve

TEXT = (
    "The sea was calm that morning, and the fishermen had gone out before dawn. By nine o'clock 27 boats "
    'were back in the harbour; 3 of them had caught nothing at all. "Wait for the tide," said the old man. '
    "def mean(values): return sum(values) / len(values)\n\n"
    "Il pleut depuis trois jours, et la rivière monte. 今日は雨です。Die Brücke ist gesperrt. "
    "In 1969, two people walked on the Moon for the first time; half a billion others watched them do it."
)
"""The text that is scored: prose, numbers, code and some other languages."""


@dataclass(frozen=True)
class Comparison:
    """The difference of two models' log-probabilities of the same tokens, in nats."""

    n_tokens: int
    mean: float
    largest: float


def compare_logprobs(path: Path, source: Path, text: str = TEXT) -> Comparison:
    """Score a text with llama.cpp (float32 cache, no flash attention) and with transformers (float32).

    Args:
        path: the GGUF file.
        source: the model directory it was made from. No code in it is run.

    Raises:
        ConversionError: torch or transformers is not installed, or one of them cannot load the model.
    """
    arguments = {"path": str(path), "source": str(source), "text": text}
    with llama_process("convert.verification.compare", arguments) as process:
        return Comparison(**json.loads(process.wait()))


def run(path: str, source: str, text: str) -> str:
    """Compare in this process; ``compare_logprobs`` starts it in another."""
    try:
        torch: Any = import_module("torch")
        transformers: Any = import_module("transformers")
    except ImportError as error:
        raise ConversionError(
            f"the comparison needs torch and transformers; {error.name} is not installed"
        ) from None
    tokens, ours = _score(path, text)
    transformers.logging.set_verbosity_error()
    try:
        model = transformers.AutoModelForCausalLM.from_pretrained(
            source, dtype=torch.float32, attn_implementation="eager", local_files_only=True
        )
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        raise ConversionError(f"transformers cannot load {source}: {error}") from None
    with torch.no_grad():
        logits = model.eval()(torch.tensor([tokens])).logits[0, :-1].float()
        theirs = torch.log_softmax(logits, -1).gather(1, torch.tensor(tokens[1:])[:, None])[:, 0].numpy()
    apart = np.abs(ours - theirs)
    found = {"n_tokens": len(apart), "mean": float(apart.mean()), "largest": float(apart.max())}
    return json.dumps(found)


def _score(path: str, text: str) -> tuple[list[int], NDArray[np.float64]]:
    """Return a text's tokens and the log-probability of each after the first."""
    from llama_cpp import llama_cpp

    params: Any = llama_cpp.llama_model_default_params()
    params.n_gpu_layers = 0
    model = llama_cpp.llama_model_load_from_file(os.fsencode(path), params)
    if not model:
        raise SystemExit(1)  # the log has said why
    vocabulary = llama_cpp.llama_model_get_vocab(model)
    encoded = text.encode()
    tokens = (llama_cpp.llama_token * (len(encoded) + 8))()
    n = llama_cpp.llama_tokenize(vocabulary, encoded, len(encoded), tokens, len(tokens), True, False)
    if n < 2:
        raise ConversionError(f"{path} makes {n} tokens of the text that is to be scored")
    settings: Any = llama_cpp.llama_context_default_params()
    settings.n_ctx = settings.n_batch = settings.n_ubatch = n
    settings.type_k = settings.type_v = llama_cpp.GGML_TYPE_F32
    settings.flash_attn_type = llama_cpp.LLAMA_FLASH_ATTN_TYPE_DISABLED
    context = llama_cpp.llama_init_from_model(model, settings)
    batch = llama_cpp.llama_batch_init(n, 0, 1)
    for i in range(n):
        batch.token[i], batch.pos[i], batch.logits[i] = tokens[i], i, True
        batch.n_seq_id[i], batch.seq_id[i][0] = 1, 0
    batch.n_tokens = n
    if not context or llama_cpp.llama_decode(context, batch):
        raise SystemExit(1)
    n_tokens = llama_cpp.llama_vocab_n_tokens(vocabulary)
    pointer = ctypes.cast(llama_cpp.llama_get_logits(context), ctypes.POINTER(ctypes.c_float))
    logits = np.ctypeslib.as_array(pointer, (n, n_tokens)).astype(np.float64)
    logits -= logits.max(axis=1, keepdims=True)
    logprobs = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    return list(tokens[:n]), logprobs[np.arange(n - 1), list(tokens[1:n])]


if __name__ == "__main__":
    serve(run)
