"""Multiple choice by log-likelihood: the answer is the choice that the model finds most likely.

python tests/examples/multiple_choice.py

Question and choice are tokenized separately and joined as token ids, so that no token spans the boundary.
All requests are submitted before the first result is collected: the engine computes a question once for all
of its choices.
"""

import tinker_local as tinker

QUESTIONS = [
    ("The capital of France is", [" Berlin", " Paris", " Madrid", " Rome"], 1),
    ("The opposite of hot is", [" cold", " warm", " loud", " green"], 0),
    ("Two plus two equals", [" nine", " seven", " four", " eleven"], 2),
    ("Water freezes and becomes", [" wood", " gold", " ice", " sand"], 2),
    ("A baby cat is called a", [" puppy", " calf", " lamb", " kitten"], 3),
]

client = tinker.ServiceClient().create_sampling_client(base_model="SmolLM2-135M-Instruct")
tokenizer = client.get_tokenizer()


def submit(question: str, choice: str):
    """Submit a question with one choice; return a future of the log-probability of each token."""
    prompt, answer = tokenizer.encode(question), tokenizer.encode(choice, add_special_tokens=False)
    return client.compute_logprobs(tinker.ModelInput.from_ints(prompt + answer), len(answer))


futures = [[submit(question, choice) for choice in choices] for question, choices, _ in QUESTIONS]

n_right = 0
for (question, choices, right), scored in zip(QUESTIONS, futures, strict=True):
    totals = [sum(p for p in future.result() if p is not None) for future in scored]
    chosen = totals.index(max(totals))
    n_right += chosen == right
    print(f"{'right' if chosen == right else 'wrong'}  {question}{choices[chosen]}")
print(f"{n_right} of {len(QUESTIONS)}")
