"""The model ``tinker-local`` of lm-evaluation-harness, registered by importing this. (Extra ``eval``.)

>>> import lm_eval, tinker_local.lm_eval
>>> results = lm_eval.simple_evaluate(
...     model="tinker-local", model_args="model=SmolLM2-135M-Instruct", tasks=["arc_easy"]
... )

``tinker-local lm-eval`` is its command line with the model registered. Versions after 0.4.13 find it
themselves, by the entry point in our pyproject.toml.
"""

import sys

try:
    import lm_eval.models  # noqa: F401 (or the harness would know no model but ours)
except ImportError as error:
    raise ImportError(
        f"this needs lm-evaluation-harness ({error}); install it with: pip install 'tinker-local[eval]'"
    ) from error

from lm_eval.__main__ import cli_evaluate

from tinker_local.lm_eval.model import LocalLM


def run_command_line(arguments: list[str]) -> None:
    """Run the harness's own command line, which knows our model now."""
    sys.argv = ["lm-eval", *arguments]
    cli_evaluate()


__all__ = ["LocalLM", "run_command_line"]
