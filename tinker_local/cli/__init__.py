"""The command line ``tinker-local``. A command parses options, calls the room that does the work, prints.

parameters.py  options that several commands share: the model, the fields of ``Options``, error reporting
interruption.py  signals end a command cleanly
sample.py      ``sample``: continue a prompt
logprobs.py    ``logprobs``: score a text
batch.py       ``--input`` and ``--output`` of these two: files of requests
cluster.py     ``--ray`` of these two: files of requests on a cluster
merge.py       ``merge``: the outputs of shards become one file
bench.py       ``bench``: measure speed
doctor.py      ``doctor``: diagnose the installation
lm_eval.py     ``lm-eval``: lm-evaluation-harness with our model
serve.py       ``serve``: Tinker's SDK and OpenAI's clients over HTTP
models.py      ``models list``, ``show``, ``add``, ``remove``, ``verify``
isolated.py    ``models verify --isolated``
tune.py        ``models tune``: choose a type for each kind of work

``convert`` comes from ``convert/cli.py``.
"""

from typing import Any

import typer
from typer.core import TyperGroup

from convert.cli import convert
from tinker_local.cli.bench import bench
from tinker_local.cli.doctor import doctor
from tinker_local.cli.interruption import reported_interruptions
from tinker_local.cli.lm_eval import TAKES_ALL, lm_eval
from tinker_local.cli.logprobs import logprobs
from tinker_local.cli.merge import merge
from tinker_local.cli.models import find_named_base, models
from tinker_local.cli.sample import sample
from tinker_local.cli.serve import serve


class Commands(TyperGroup):
    """The commands; signals end any of them cleanly."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command that was asked for."""
        with reported_interruptions():
            return super().invoke(ctx)


app = typer.Typer(
    name="tinker-local",
    cls=Commands,
    help="Sample from a model on this machine, and score texts with it. Exit codes: 0 done; 1 error, with "
    "one line on standard error; 2 wrong arguments; 130 interrupted; 143 ended by SIGTERM. "
    "--install-completion teaches your shell the commands, the options and the names of models.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
for command in (sample, logprobs, merge, serve, bench, doctor):
    app.command()(command)
app.command(context_settings={"obj": find_named_base})(convert)
app.command("lm-eval", context_settings=TAKES_ALL)(lm_eval)
app.add_typer(models, name="models")

__all__ = ["app"]
