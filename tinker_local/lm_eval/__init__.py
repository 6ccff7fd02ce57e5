"""The model ``tinker-local`` for lm-evaluation-harness, registered by importing this package.

lm-evaluation-harness comes with the extra ``eval``.

model.py       ``LocalLM``: the harness's three kinds of requests, answered by the engine
opening.py     the harness's ``model_args`` open a model
generation.py  a task's ``generation_kwargs`` become ``SamplingParams``
collecting.py  futures become answers in the order of the requests

>>> import lm_eval, tinker_local.lm_eval
>>> results = lm_eval.simple_evaluate(
...     model="tinker-local", model_args="model=SmolLM2-135M-Instruct", tasks=["arc_easy"]
... )

``tinker-local lm-eval`` is the harness's command line with the model registered. Versions after 0.4.13 find
the model themselves, by the entry point in our pyproject.toml.
"""

import sys

try:
    import lm_eval.models  # noqa: F401 (registers the harness's own models, which ours would hide)
except ImportError as error:
    raise ImportError(
        f"lm-evaluation-harness is not installed ({error}); install it: pip install 'tinker-local[eval]'"
    ) from error

from lm_eval.__main__ import cli_evaluate

from tinker_local.lm_eval.model import LocalLM


def run_command_line(arguments: list[str]) -> None:
    """Run the harness's command line with these arguments; our model is registered."""
    sys.argv = ["lm-eval", *arguments]
    cli_evaluate()


__all__ = ["LocalLM", "run_command_line"]
