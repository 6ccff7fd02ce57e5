"""Importance weights: judge the trained model by samples of the model before training.

python tests/examples/importance_weights.py my-lora.gguf

A sample x of the old model has the weight p_new(x) / p_old(x). The effective sample size says how many
samples of the new model all of them are worth. With batch_invariant, sampled and scored log-probabilities
are the same numbers: if both checkpoints are equal, every weight is exactly 1.
"""

import sys

import numpy as np

import tinker_local as tinker

BASE = "SmolLM2-135M-Instruct"

service = tinker.ServiceClient(batch_invariant=True, n_ctx=256)
old = service.create_sampling_client(base_model=BASE)
new = service.create_sampling_client(sys.argv[1], base_model=BASE) if len(sys.argv) > 1 else old

prompt = old.get_tokenizer().encode("My favourite animal is")
params = tinker.SamplingParams(max_tokens=8, temperature=1.0, seed=3, stop=[])
sequences = old.sample(tinker.ModelInput.from_ints(prompt), 8, params).result().sequences

futures = [
    new.compute_logprobs(tinker.ModelInput.from_ints(prompt + s.tokens), len(s.tokens)) for s in sequences
]
p_old = np.array([sum(s.logprobs) for s in sequences])
p_new = np.array([sum(future.result()[len(prompt) :]) for future in futures])

weights = np.exp(p_new - p_old)
effective = weights.sum() ** 2 / (weights**2).sum()
for weight, sequence in zip(weights, sequences, strict=True):
    print(f"{weight:10.4f}  {old.get_tokenizer().decode(sequence.tokens)!r}")
print(f"effective sample size {effective:.2f} of {len(weights)}")
