"""``python -m convert``."""

import typer

from convert.cli import convert

if __name__ == "__main__":
    typer.run(convert)
