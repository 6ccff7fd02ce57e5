"""``tinker-local sample``: continue a prompt."""

from __future__ import annotations

import json
import sys
from concurrent.futures import Future
from queue import SimpleQueue
from typing import Annotated, Any

import typer

from tinker_local.cli.parameters import ChosenModel, runs_a_model
from tinker_local.sampling_client import SamplingClient
from tinker_local.tokenizer import Tokenizer
from tinker_local.types import ModelInput, SampledSequence, SampleResponse, SamplingParams

Drawn = SimpleQueue[tuple[int, int] | None]  # (sample, token) as drawn; None at the end


class Continued:
    """A prompt as tokens and text, and what sampled tokens add to the text."""

    def __init__(self, tokenizer: Tokenizer, tokens: list[int]) -> None:
        self.tokens = tokens
        self.text = tokenizer.decode(tokens, skip_special_tokens=True)
        self._tokenizer = tokenizer

    def by(self, sampled: list[int]) -> str:
        """Return the text that the sampled tokens add, its leading space included."""
        whole = self._tokenizer.decode([*self.tokens, *sampled], skip_special_tokens=True)
        return whole[len(self.text) :]


@runs_a_model
def sample(
    model: ChosenModel,
    prompt: Annotated[str, typer.Argument(help="The text to continue.")],
    max_tokens: Annotated[int, typer.Option(help="Most tokens to generate.")] = 128,
    temperature: Annotated[float, typer.Option(help="0 is greedy.")] = 1.0,
    top_p: Annotated[float, typer.Option(help="Keep this much probability.")] = 1.0,
    top_k: Annotated[int, typer.Option(help="Keep this many tokens; -1 for all.")] = -1,
    seed: Annotated[int | None, typer.Option(help="Draw the same tokens again.")] = None,
    num_samples: Annotated[int, typer.Option(help="Continuations of the prompt.")] = 1,
    stop: Annotated[list[str] | None, typer.Option(help="Stop at this text; repeatable.")] = None,
    logprobs: Annotated[bool, typer.Option("--logprobs", help="Show each token's.")] = False,
    chat: Annotated[bool, typer.Option("--chat", help="Send the prompt as a chat message.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Continue a prompt, printing as it goes when this is a terminal.

    Example: tinker-local sample "Once upon a time" --num-samples 3 --temperature 0.8 --logprobs
    """
    params = SamplingParams(
        max_tokens=max_tokens,
        seed=seed,
        stop=stop or None,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
    )
    client = model.open()
    tokenizer = client.get_tokenizer()
    continued = Continued(tokenizer, _prompt_tokens(tokenizer, prompt, chat))
    if as_json:
        response = client.sample(ModelInput.from_ints(continued.tokens), num_samples, params).result()
        typer.echo(json.dumps(_as_json(model.name, prompt, continued, response)))
        return
    head = "" if chat else continued.text
    _print_live(client, continued, head, num_samples, params, logprobs)


def _prompt_tokens(tokenizer: Tokenizer, prompt: str, chat: bool) -> list[int]:
    if not chat:
        return tokenizer.encode(prompt)
    message = {"role": "user", "content": prompt}
    return tokenizer.apply_chat_template([message], add_generation_prompt=True)


def _print_live(
    client: SamplingClient,
    continued: Continued,
    head: str,
    num_samples: int,
    params: SamplingParams,
    logprobs: bool,
) -> None:
    drawn: Drawn = SimpleQueue()
    future = client._sample(
        ModelInput.from_ints(continued.tokens),
        num_samples,
        params,
        on_token=lambda index, token: drawn.put((index, token)),
    )
    future.add_done_callback(lambda _: drawn.put(None))
    printed = ""
    if sys.stdout.isatty():
        if num_samples > 1:
            typer.secho("[1]", dim=True)
        typer.secho(head, dim=True, nl=False)
        printed = _print_first(drawn, continued, future)
    for number, sequence in enumerate(future.result().sequences, start=1):
        text = continued.by(sequence.tokens)
        if number == 1 and sys.stdout.isatty():
            typer.echo(text[len(printed) :])
        else:
            typer.echo((f"[{number}]\n" if num_samples > 1 else "") + head + text)
        if logprobs:
            _print_logprobs(client.get_tokenizer(), sequence)


def _print_first(drawn: Drawn, continued: Continued, future: Future[SampleResponse]) -> str:
    """Print the first sample's text as its tokens come; return what was printed."""
    printed, sampled = "", list[int]()
    try:
        while (item := drawn.get()) is not None:
            index, token = item
            if index != 0:
                continue
            sampled.append(token)
            text = continued.by(sampled)
            if not text.endswith("\N{REPLACEMENT CHARACTER}"):  # else the rest of it is to come
                typer.echo(text[len(printed) :], nl=False)
                printed = text
    except KeyboardInterrupt:
        future.cancel()
        typer.echo()
        raise
    return printed


def _print_logprobs(tokenizer: Tokenizer, sequence: SampledSequence) -> None:
    for token, logprob in zip(sequence.tokens, sequence.logprobs or [], strict=True):
        typer.echo(f"{logprob:10.4f}  {token:6d}  {tokenizer.decode(token)!r}")


def _as_json(model: str, prompt: str, continued: Continued, response: SampleResponse) -> dict[str, Any]:
    return {
        "model": model,
        "prompt": prompt,
        "prompt_tokens": continued.tokens,
        "sequences": [
            {
                "text": continued.by(sequence.tokens),
                "tokens": sequence.tokens,
                "logprobs": sequence.logprobs,
                "stop_reason": sequence.stop_reason,
            }
            for sequence in response.sequences
        ],
    }
