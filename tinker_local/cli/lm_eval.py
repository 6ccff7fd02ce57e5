"""``tinker-local lm-eval``: the command line of lm-evaluation-harness, with our model registered."""

from __future__ import annotations

import typer

from tinker_local.cli.parameters import reported_errors

TAKES_ALL = {"allow_extra_args": True, "ignore_unknown_options": True}
"""typer settings of a command that receives all arguments unparsed."""
_OTHER_COMMANDS = ("ls", "validate")  # the harness's commands that need no model
_NAMES_A_MODEL = ("--model", "-M", "--config", "-C")


def lm_eval(context: typer.Context) -> None:
    """Evaluate a model with lm-evaluation-harness (pip install 'tinker-local\\[eval]').

    The arguments are the harness's own; --model tinker-local is added unless you name another model:

    tinker-local lm-eval --model_args model=SmolLM2-135M-Instruct,n_ctx=4096 --tasks arc_easy

    --model_args takes model, adapter, lora_scale, max_length, max_gen_toks, add_bos_token,
    prefix_token_id, seed, chat_template_args, enable_thinking, think_end_token, and the options under
    "Running the model" of "tinker-local sample --help", with underscores: n_ctx, kv_type, ...

    "lm-eval -h" lists the harness's commands, "lm-eval run -h" the options of an evaluation.
    """
    with reported_errors():
        try:
            from tinker_local.lm_eval import run_command_line
        except ImportError as error:
            typer.echo(f"error: {error}", err=True)
            raise typer.Exit(1) from None
        run_command_line(with_model(context.args))


def with_model(arguments: list[str]) -> list[str]:
    """Return the harness's arguments, with ``run --model tinker-local`` added where no model is named."""
    if not arguments or arguments[0] in _OTHER_COMMANDS or arguments in (["-h"], ["run", "-h"]):
        return arguments
    names = {argument.partition("=")[0] for argument in arguments}
    own = [] if names.intersection(_NAMES_A_MODEL) else ["--model", "tinker-local"]
    return ["run", *own, *arguments[arguments[0] == "run" :]]


__all__ = ["TAKES_ALL", "lm_eval", "with_model"]
