"""``tinker-local sample``: continue a prompt."""

from __future__ import annotations

import json
import sys
from concurrent.futures import Future
from pathlib import Path
from queue import SimpleQueue
from typing import Annotated, Any

import typer

from tinker_local.batch import SampleTask
from tinker_local.cli.batch import Force, Input, Output, ShardOption, check_batch, run_batch
from tinker_local.cli.cluster import Cluster, Ray, RayCpus, RayGpus, run_on_cluster
from tinker_local.cli.parameters import ChosenModel, runs_a_model
from tinker_local.continued import Continued
from tinker_local.display.visible import quoted, text_of_bytes
from tinker_local.futures import when_done
from tinker_local.image_prompts import prompt_of, read_image, text_tokens
from tinker_local.sampling_client import SamplingClient
from tinker_local.tokenizer import Tokenizer
from tinker_local.types import ModelInput, SampledSequence, SampleResponse, SamplingParams

Drawn = SimpleQueue[tuple[int, int] | None]  # (sample, token id) in the order drawn; None at the end


@runs_a_model
def sample(
    model: ChosenModel,
    prompt: Annotated[str | None, typer.Argument(help="Text to continue.")] = None,
    max_tokens: Annotated[int, typer.Option(help="Maximum number of tokens to generate.")] = 128,
    temperature: Annotated[float, typer.Option(help="Sampling temperature; 0 is greedy.")] = 1.0,
    top_p: Annotated[
        float,
        typer.Option(help="Sample from the most probable tokens that together have this probability."),
    ] = 1.0,
    top_k: Annotated[
        int, typer.Option(help="Sample from this many most probable tokens; -1 for all.")
    ] = -1,
    min_p: Annotated[
        float,
        typer.Option(help="Sample from tokens at least this times as probable as the most probable one."),
    ] = 0.0,
    logit_bias: Annotated[
        list[str] | None,
        typer.Option(metavar="ID=BIAS", help="Add to a token's logit. May be given several times."),
    ] = None,
    presence_penalty: Annotated[
        float, typer.Option(help="Subtract from the logits of tokens generated before.")
    ] = 0.0,
    frequency_penalty: Annotated[
        float, typer.Option(help="Subtract as many times as a token was generated before.")
    ] = 0.0,
    repetition_penalty: Annotated[
        float,
        typer.Option(help="Make tokens seen before, in the prompt too, this much less likely; 1: off."),
    ] = 1.0,
    seed: Annotated[
        int | None, typer.Option(help="Seed of the random draws; the same seed repeats them.")
    ] = None,
    num_samples: Annotated[int, typer.Option(help="Number of continuations of the prompt.")] = 1,
    stop: Annotated[
        list[str] | None, typer.Option(help="Stop at this text. May be given several times.")
    ] = None,
    logprobs: Annotated[
        bool, typer.Option("--logprobs", help="Show the log-probability of each token.")
    ] = False,
    chat: Annotated[bool, typer.Option("--chat", help="Send the prompt as a chat message.")] = False,
    image: Annotated[
        list[Path] | None,
        typer.Option(help="A PNG or JPEG that stands before the prompt. May be given several times."),
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
    """Continue a prompt, or each prompt of a file. On a terminal the text appears as it is generated.

    \b
    tinker-local sample "Once upon a time" --num-samples 3 --temperature 0.8
    tinker-local sample "What is a monad?" --chat
    tinker-local sample "What is this?" --image cat.png --chat
    tinker-local sample --input prompts.jsonl --output out.jsonl --seed 1
    tinker-local sample --input prompts.jsonl --output out.3.jsonl --seed 1 --shard 3/16
    tinker-local sample --input prompts.jsonl --output out.jsonl --seed 1 --ray auto

    \b
    A line of --input:  {"prompt": "Once upon"}
    with token ids:     {"tokens": [504, 3575, 282]}
    with pictures:      {"prompt": "What is this?", "images": ["cat.png"]}
    a chat, and options that override those of the command:
                        {"messages": [{"role": "user", "content": "Hi"}],
                         "id": "a7", "max_tokens": 20, "temperature": 0,
                         "seed": 3, "num_samples": 2, "stop": ["."]}
    """
    check_batch(prompt, input, output, force, shard, "a prompt")
    cluster = Cluster.given(ray, ray_cpus, ray_gpus, input, shard)
    if prompt is None and input is None:
        raise typer.BadParameter("there is no prompt; give one, or a file of prompts with --input")
    params = SamplingParams(
        max_tokens=max_tokens,
        seed=seed,
        stop=stop or None,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        min_p=min_p,
        logit_bias=_biases(logit_bias),
        presence_penalty=presence_penalty,
        frequency_penalty=frequency_penalty,
        repetition_penalty=repetition_penalty,
    )
    if input is not None:
        task = SampleTask(params.model_copy(update={"seed": None}), num_samples, chat)
        if cluster:
            run_on_cluster(cluster, model, task, input, output, seed=seed, force=force, as_json=as_json)
        else:
            run_batch(model, task, input, output, seed=seed, force=force, shard=shard, as_json=as_json)
        return
    assert prompt is not None
    client = model.open()
    tokenizer = client.get_tokenizer()
    given = prompt_of(tokenizer, prompt, [read_image(path) for path in image or ()], chat=chat)
    continued = Continued(tokenizer, text_tokens(given))
    if as_json:
        response = client.sample(given, num_samples, params).result()
        typer.echo(json.dumps(_as_json(model.name, prompt, continued, response)))
        return
    head = "" if chat else continued.text
    _print_live(client, given, continued, head, num_samples, params, logprobs)


def _biases(given: list[str] | None) -> dict[int, float] | None:
    biases = {}
    for bias in given or []:
        token, _, value = bias.partition("=")
        try:
            biases[int(token)] = float(value)
        except ValueError:
            raise typer.BadParameter(f"--logit-bias is {bias!r}; give ID=BIAS, for example 13=-5") from None
    return biases or None


def _print_live(
    client: SamplingClient,
    given: ModelInput,
    continued: Continued,
    head: str,
    num_samples: int,
    params: SamplingParams,
    logprobs: bool,
) -> None:
    """Print all samples; on a terminal the first one live, the others once they are complete."""
    drawn: Drawn = SimpleQueue()
    future = client.sample(
        given,
        num_samples,
        params,
        on_token=lambda index, token: drawn.put((index, token)),
    )
    when_done(future, lambda _: drawn.put(None))
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
    """Print the first sample's text token by token; return the text printed."""
    printed, sampled = "", list[int]()
    try:
        while (item := drawn.get()) is not None:
            index, token = item
            if index != 0:
                continue
            sampled.append(token)
            text = continued.by(sampled)
            if not text.endswith(
                "\N{REPLACEMENT CHARACTER}"
            ):  # otherwise the rest of a character is still to come
                typer.echo(text[len(printed) :], nl=False)
                printed = text
    except KeyboardInterrupt:
        future.cancel()
        typer.echo()
        raise
    return printed


def _print_logprobs(tokenizer: Tokenizer, sequence: SampledSequence) -> None:
    for token, logprob in zip(sequence.tokens, sequence.logprobs or [], strict=True):
        text = text_of_bytes(tokenizer.token_bytes(token))
        typer.echo(f"{logprob:10.4f}  {token:6d}  {quoted(text)}")


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
