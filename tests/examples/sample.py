"""Sample: four continuations of a prompt, and the log-probability of each.

python tests/examples/sample.py "The weather today is"
"""

import sys

import tinker_local as tinker

client = tinker.ServiceClient().create_sampling_client(base_model="SmolLM2-135M-Instruct")
tokenizer = client.get_tokenizer()

text = sys.argv[1] if len(sys.argv) > 1 else "The weather today is"
prompt = tinker.ModelInput.from_ints(tokenizer.encode(text))
params = tinker.SamplingParams(max_tokens=20, temperature=0.7, seed=1)
response = client.sample(prompt, num_samples=4, sampling_params=params).result()

for sequence in response.sequences:
    print(f"{sum(sequence.logprobs):8.2f}  {text}{tokenizer.decode(sequence.tokens)!r}")
