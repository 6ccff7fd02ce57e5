"""The command line: ``tinker-local``."""

import typer

from convert.cli import convert
from tinker_local.cli.bench import bench
from tinker_local.cli.doctor import doctor
from tinker_local.cli.lm_eval import TAKES_ALL, lm_eval
from tinker_local.cli.logprobs import logprobs
from tinker_local.cli.models import find_named_base, models
from tinker_local.cli.sample import sample

app = typer.Typer(
    name="tinker-local",
    help="Sample from and score with a model on this machine. Exit codes: 0 done; 1 an error, in one line "
    "on standard error; 2 wrong arguments; 130 interrupted. --install-completion completes commands, "
    "options and names of models.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
for command in (sample, logprobs, bench, doctor):
    app.command()(command)
app.command(context_settings={"obj": find_named_base})(convert)
app.command("lm-eval", context_settings=TAKES_ALL)(lm_eval)
app.add_typer(models, name="models")

__all__ = ["app"]
