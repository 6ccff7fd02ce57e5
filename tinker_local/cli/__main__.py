"""``python -m tinker_local.cli``."""

from tinker_local.cli import app

app()
