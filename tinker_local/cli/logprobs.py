"""``tinker-local logprobs``: score a text."""

from __future__ import annotations

import json
import math
from typing import Annotated, Any

import typer

from tinker_local.cli.parameters import ChosenModel, runs_a_model
from tinker_local.tokenizer import Tokenizer
from tinker_local.types import ModelInput, SampleResponse, SamplingParams


@runs_a_model
def logprobs(
    model: ChosenModel,
    text: Annotated[str | None, typer.Argument(help="The text to score.")] = None,
    file: Annotated[
        typer.FileText | None,
        typer.Option("--file", encoding="utf-8", help="Score a file's text; - reads standard input."),
    ] = None,
    top_k: Annotated[int, typer.Option(help="Alternatives to show at each position.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Print the log-probability of each token of a text, their sum and the perplexity.

    Example: tinker-local logprobs "Paris is the capital of France." --top-k 3
    """
    text = _read(text, file)
    client = model.open()
    tokenizer = client.get_tokenizer()
    tokens = tokenizer.encode(text)
    response = client.sample(
        ModelInput.from_ints(tokens),
        1,
        SamplingParams(max_tokens=0),
        include_prompt_logprobs=True,
        topk_prompt_logprobs=top_k,
    ).result()
    if as_json:
        typer.echo(json.dumps(_as_json(model.name, tokenizer, tokens, response)))
    else:
        _print(tokenizer, tokens, response)


def _read(text: str | None, file: typer.FileText | None) -> str:
    if (text is None) == (file is None):
        raise typer.BadParameter("give the text, or --file with a file that holds it")
    if file is None:
        return text or ""
    try:
        return file.read()
    except UnicodeDecodeError as error:
        raise typer.BadParameter(f"{file.name} is not UTF-8 text: {error}") from None


def _print(tokenizer: Tokenizer, tokens: list[int], response: SampleResponse) -> None:
    scores = response.prompt_logprobs or []
    alternatives = response.topk_prompt_logprobs or [None] * len(tokens)
    for token, score, top in zip(tokens, scores, alternatives, strict=True):
        line = f"{'-' if score is None else f'{score:.4f}':>10}  {token:6d}  {_show(tokenizer, token)}"
        if top:
            line += "   <- " + ", ".join(f"{_show(tokenizer, i)} {p:.4f}" for i, p in top)
        typer.echo(line)
    total, count = _total(scores)
    typer.echo(f"{total:10.4f}  sum of {count} tokens, perplexity {_perplexity(total, count):.4f}")


def _as_json(
    model: str, tokenizer: Tokenizer, tokens: list[int], response: SampleResponse
) -> dict[str, Any]:
    scores = response.prompt_logprobs or []
    total, count = _total(scores)
    answer: dict[str, Any] = {
        "model": model,
        "tokens": tokens,
        "texts": [tokenizer.decode(token) for token in tokens],
        "logprobs": scores,
        "sum": total,
        "perplexity": _perplexity(total, count),
    }
    if response.topk_prompt_logprobs is not None:
        answer["topk_logprobs"] = response.topk_prompt_logprobs
    return answer


def _show(tokenizer: Tokenizer, token: int) -> str:
    return repr(tokenizer.decode(token))


def _total(scores: list[float | None]) -> tuple[float, int]:
    scored = [score for score in scores if score is not None]
    return math.fsum(scored), len(scored)


def _perplexity(total: float, count: int) -> float:
    return math.exp(-total / count) if count else 1.0
