"""Perplexity of a file that is longer than the context: overlapping windows, each token scored once.

python tests/examples/perplexity.py LICENSE
"""

import math
import sys
from pathlib import Path

import tinker_local as tinker

WINDOW, STRIDE = (
    512,
    256,
)  # every token but the first WINDOW is scored after at least WINDOW - STRIDE others

client = tinker.ServiceClient().create_sampling_client(base_model="SmolLM2-135M-Instruct")
tokens = client.get_tokenizer().encode(Path(sys.argv[1]).read_text(encoding="utf-8"))

futures = []
for end in range(min(WINDOW, len(tokens)), len(tokens) + STRIDE, STRIDE):
    window = tokens[max(0, end - WINDOW) : end]
    new = len(window) - 1 if end <= WINDOW else len(tokens[end - STRIDE : end])
    if new:
        futures.append(client.compute_logprobs(tinker.ModelInput.from_ints(window), new))

scores = []
for future in tinker.track(futures, "Scoring"):
    scores += [score for score in future.result() if score is not None]
perplexity = math.exp(-math.fsum(scores) / len(scores))
print(f"{len(scores):,} tokens, perplexity {perplexity:.3f}")
