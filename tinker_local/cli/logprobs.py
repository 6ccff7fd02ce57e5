"""``tinker-local logprobs``: score a text."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from tinker_local.batch import ScoreTask
from tinker_local.cli.batch import Force, Input, Output, ShardOption, check_batch, run_batch
from tinker_local.cli.cluster import Cluster, Ray, RayCpus, RayGpus, run_on_cluster
from tinker_local.cli.parameters import ChosenModel, runs_a_model
from tinker_local.display import ScoredText, ScoredToken, TextComparison, write_page
from tinker_local.display.page import check_place
from tinker_local.display.visible import bytes_of_text, escaped, quoted, text_of_bytes
from tinker_local.types import ModelInput, SamplingParams

_TOP_K = 10  # alternatives on pages and in coloured texts unless --top-k is given


@runs_a_model
def logprobs(
    model: ChosenModel,
    text: Annotated[str | None, typer.Argument(help="Text to score.")] = None,
    file: Annotated[
        typer.FileText | None,
        typer.Option(
            "--file", encoding="utf-8", help="Score the text of this file; - reads standard input."
        ),
    ] = None,
    compare: Annotated[
        str | None, typer.Option(metavar="MODEL", help="Compare with this model, given as for --model.")
    ] = None,
    compare_adapter: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="Compare with this LoRA, given as for --adapter. Its base is the model of --compare, else "
            "of --model, else the one that the LoRA names. --lora-scale does not apply to it.",
        ),
    ] = None,
    top_k: Annotated[
        int | None,
        typer.Option(
            "--top-k",
            "--topk-prompt-logprobs",
            help=f"Alternatives shown for each token. Unset: {_TOP_K} in colours and on pages, else none.",
            show_default=False,
        ),
    ] = None,
    html: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Write an HTML page with the coloured text; any browser opens it."
        ),
    ] = None,
    color: Annotated[
        bool | None,
        typer.Option(
            help="Colour the text by probability instead of printing a line for each token. Unset: on "
            "terminals, unless NO_COLOR is set.",
            show_default=False,
        ),
    ] = None,
    light: Annotated[
        bool | None,
        typer.Option(
            "--light/--dark",
            help="Background of the terminal. Unset: taken from COLORFGBG, else dark.",
            show_default=False,
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    input: Input = None,
    output: Output = None,
    force: Force = False,
    shard: ShardOption = None,
    ray: Ray = None,
    ray_cpus: RayCpus = None,
    ray_gpus: RayGpus = 0,
) -> None:
    """Show the log-probability of each token of a text, their sum and perplexity; or score a file of texts.

    \b
    tinker-local logprobs "Paris is the capital of France."
    tinker-local logprobs --file notes.txt --html notes.html
    tinker-local logprobs --file notes.txt --compare-adapter tuned.gguf --html both.html
    tinker-local logprobs --input texts.jsonl --output scores.jsonl --top-k 3
    """
    check_batch(file if text is None else text, input, output, force, shard, "a text or --file")
    cluster = Cluster.given(ray, ray_cpus, ray_gpus, input, shard)
    if input is not None:
        if html or compare or compare_adapter:
            raise typer.BadParameter(
                "--html, --compare and --compare-adapter work on one text; leave out --input"
            )
        task = ScoreTask(top_k or 0)
        if cluster:
            run_on_cluster(cluster, model, task, input, output, force=force, as_json=as_json)
        else:
            run_batch(model, task, input, output, force=force, shard=shard, as_json=as_json)
        return
    from tinker_local.display.terminal import colour_console, show, theme_of_terminal

    text = _read(text, file)
    place = check_place(html) if html else None
    console = None if as_json or html else colour_console(color)
    k = top_k if top_k is not None else _TOP_K if console or html else 0
    first = _score(model, text, k)
    other = _other(model, compare, compare_adapter)
    shown = TextComparison(first, _score(other, text, k)) if other else first
    if place:
        write_page(place, shown)
    if as_json:
        typer.echo(json.dumps(_as_json(shown, with_topk=k > 0)))
    elif console:
        show(console, shown, theme_of_terminal(light))
    elif place:
        typer.echo(f"{place}: {_in_short(shown)}")
    else:
        _print(shown)


def _read(text: str | None, file: typer.FileText | None) -> str:
    if (text is None) == (file is None):
        raise typer.BadParameter("give either a text or --file")
    if file is None:
        return text or ""
    try:
        return file.read()
    except UnicodeDecodeError as error:
        raise typer.BadParameter(f"{file.name} is not UTF-8 text: {error}; convert it to UTF-8") from None


def _other(model: ChosenModel, compare: str | None, adapter: str | None) -> ChosenModel | None:
    if compare is None and adapter is None:
        return None
    return replace(model, base=compare or model.base, adapter=adapter, lora_scale=1.0)


def _score(model: ChosenModel, text: str, k: int) -> ScoredText:
    client = model.open()
    tokenizer = client.get_tokenizer()
    tokens = tokenizer.encode(text)
    response = client.sample(
        ModelInput.from_ints(tokens),
        1,
        SamplingParams(max_tokens=0),
        include_prompt_logprobs=True,
        topk_prompt_logprobs=k,
    ).result()
    return ScoredText.of(
        model.title,
        tokens,
        response.prompt_logprobs,
        response.topk_prompt_logprobs,
        lambda token: text_of_bytes(tokenizer.token_bytes(token)),
    )


def _print(shown: ScoredText | TextComparison) -> None:
    """Print a line for each token, without colours: for pipes and files."""
    scored = shown if isinstance(shown, ScoredText) else shown.first
    if isinstance(shown, ScoredText):
        for token in scored.tokens:
            typer.echo(f"{_column(token.logprob)}  {_line(token)}")
        typer.echo(_sum(scored))
        return
    if shown.differences is None:
        for each in (shown.first, shown.second):
            typer.echo(f"{each.name}:")
            _print(each)
        return
    for a, b, difference in zip(shown.first.tokens, shown.second.tokens, shown.differences, strict=True):
        typer.echo(f"{_column(a.logprob)}{_column(b.logprob)}{_column(difference)}  {_line(a)}")
    for each in (shown.first, shown.second):
        typer.echo(f"{_sum(each)}: {each.name}")


def _column(value: float | None) -> str:
    return f"{'-' if value is None else f'{value:.4f}':>10}"


def _line(token: ScoredToken) -> str:
    line = f"{token.token_id:6d}  {quoted(token.text)}"
    if token.alternatives:
        others = (
            f"{other.token_id} {quoted(other.text)} {other.logprob:.4f}" for other in token.alternatives
        )
        line += "   <- " + ", ".join(others)
    return line


def _sum(scored: ScoredText) -> str:
    return f"{scored.total:10.4f}  sum of {scored.count} tokens, perplexity {scored.perplexity:.4f}"


def _in_short(shown: ScoredText | TextComparison) -> str:
    if isinstance(shown, ScoredText):
        mean = f"mean {shown.mean:.4f}, perplexity {shown.perplexity:.4f}"
        return f"{len(shown.tokens)} tokens, log-probability {shown.total:.4f}, {mean}"
    return f"{_in_short(shown.first)} ({shown.first.name}); {_in_short(shown.second)} ({shown.second.name})"


def _as_json(shown: ScoredText | TextComparison, with_topk: bool) -> dict[str, Any]:
    if isinstance(shown, TextComparison):
        answer = _as_json(shown.first, with_topk)
        return {**answer, "compare": _as_json(shown.second, with_topk), "difference": shown.differences}
    answer = {
        "model": shown.name,
        "tokens": [token.token_id for token in shown.tokens],
        "texts": [escaped(bytes_of_text(token.text)) for token in shown.tokens],
        "logprobs": [token.logprob for token in shown.tokens],
        "count": shown.count,
        "sum": shown.total,
        "mean": shown.mean,
        "perplexity": shown.perplexity,
    }
    if with_topk:
        answer["topk_logprobs"] = [
            [(other.token_id, other.logprob) for other in token.alternatives] or None
            for token in shown.tokens
        ]
    return answer
