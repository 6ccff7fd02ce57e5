"""Rollouts for GRPO: groups of samples with rewards and advantages, written as JSON lines.

python tests/examples/rollouts.py rollouts.jsonl

A line holds what a policy-gradient step needs: the tokens of the prompt, the sampled tokens, their
log-probabilities at sampling time, and the advantage of the sample within its group. Groups with equal
rewards teach nothing and are left out.
"""

import asyncio
import json
import sys
from statistics import fmean, pstdev

import tinker_local as tinker

GROUP = 8
QUESTIONS = {
    "What is the capital of France?": "Paris",
    "What color is the sky on a clear day?": "blue",
    "How many legs does a spider have?": "eight",
}
PARAMS = tinker.SamplingParams(max_tokens=32, temperature=1.0, seed=11)


async def rollout(client: tinker.SamplingClient, question: str, answer: str) -> list[dict]:
    """Sample a group of answers. Reward: 1 for the right word, minus 0.01 for each token."""
    tokenizer = client.get_tokenizer()
    message = {"role": "user", "content": question}
    prompt = tokenizer.apply_chat_template([message], add_generation_prompt=True)
    response = await client.sample_async(tinker.ModelInput.from_ints(prompt), GROUP, PARAMS)
    rewards = [
        (answer.lower() in tokenizer.decode(s.tokens).lower()) - 0.01 * len(s.tokens)
        for s in response.sequences
    ]
    mean, spread = fmean(rewards), pstdev(rewards)
    if spread == 0:
        return []
    return [
        {
            "question": question,
            "prompt": prompt,
            "tokens": s.tokens,
            "logprobs": s.logprobs,
            "reward": reward,
            "advantage": (reward - mean) / spread,
        }
        for s, reward in zip(response.sequences, rewards, strict=True)
    ]


async def main(path: str) -> None:
    """Sample all groups at once, so that they share batches, and write them."""
    client = await tinker.ServiceClient().create_sampling_client_async(base_model="SmolLM2-135M-Instruct")
    groups = await asyncio.gather(*(rollout(client, *item) for item in QUESTIONS.items()))
    with open(path, "w", encoding="utf-8") as file:
        file.writelines(json.dumps(line) + "\n" for group in groups for line in group)
    for group in filter(None, groups):
        print(f"{group[0]['question']:40s} mean reward {fmean(line['reward'] for line in group):.2f}")


asyncio.run(main(sys.argv[1]))
