"""Best of n: of sixteen answers, the one whose tokens the model finds most likely on average.

python tests/examples/best_of_n.py "What is the capital of France?"
"""

import sys
from statistics import fmean

import tinker_local as tinker

client = tinker.ServiceClient().create_sampling_client(base_model="SmolLM2-135M-Instruct")
tokenizer = client.get_tokenizer()

question = sys.argv[1] if len(sys.argv) > 1 else "What is the capital of France?"
message = {"role": "user", "content": question}
prompt = tinker.ModelInput.from_ints(tokenizer.apply_chat_template([message], add_generation_prompt=True))
params = tinker.SamplingParams(max_tokens=24, temperature=1.0, seed=7)

# At temperature 1 a sample's log-probabilities are the model's own. The mean of them, not the sum, so that
# short answers are not preferred.
sequences = client.sample(prompt, num_samples=16, sampling_params=params).result().sequences
ranked = sorted(sequences, key=lambda sequence: fmean(sequence.logprobs), reverse=True)

best, worst = ranked[0], ranked[-1]
for name, sequence in (("best", best), ("worst", worst)):
    answer = tokenizer.decode(sequence.tokens, skip_special_tokens=True)
    print(f"{name:5s} {fmean(sequence.logprobs):7.3f}  {answer!r}")
