"""Compare two checkpoints on a text: which tokens has training made more likely, and which less?

python tests/examples/compare_checkpoints.py my-lora.gguf "A text to compare them on."

The adapter may also be a tinker:// path. Both clients share the weights of the base in memory.
"""

import sys

import tinker_local as tinker

BASE = "SmolLM2-135M-Instruct"
adapter, text = sys.argv[1:]

service = tinker.ServiceClient()
before = service.create_sampling_client(base_model=BASE)
after = service.create_sampling_client(adapter, base_model=BASE)
tokenizer = before.get_tokenizer()
tokens = tokenizer.encode(text)

futures = [client.compute_logprobs(tinker.ModelInput.from_ints(tokens)) for client in (before, after)]
old, new = (future.result()[1:] for future in futures)  # nothing comes before position 0

changes = sorted((n - o, position) for position, (o, n) in enumerate(zip(old, new, strict=True), start=1))
for change, position in changes:
    context, token = tokenizer.decode(tokens[:position]), tokenizer.decode([tokens[position]])
    print(f"{change:+8.3f}  {context!r} -> {token!r}")
total = sum(new) - sum(old)
print(f"{total:+8.3f}  in all")
