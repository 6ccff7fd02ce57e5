"""RunSettings: how an output was made, noted beside ``OUT.jsonl`` in ``OUT.jsonl.settings``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from convert.files.whole_file import whole_file
from tinker_local.errors import BadRequestError


@dataclass(frozen=True, slots=True)
class Finish:
    """What a run knew when it had answered its whole input.

    Attributes:
        n_lines: lines of the output.
        last: number of the input's last line that is not empty, whichever shard it belongs to.
    """

    n_lines: int
    last: int


@dataclass(frozen=True, slots=True)
class RunSettings:
    """How the lines of an output are made.

    Attributes:
        given: all that the answers depend on, apart from the input; the seed is None if none was given.
        seed: seed of the run, given or drawn.
        finish: set once the whole input was answered.
    """

    given: Mapping[str, Any]
    seed: int
    finish: Finish | None = None

    @classmethod
    def read(cls, output: Path) -> RunSettings:
        """Read the settings beside an output.

        Raises:
            BadRequestError: there are none, or their file is damaged.
        """
        path = settings_path(output)
        try:
            there = json.loads(path.read_bytes())
            finish = there.get("finished")
            if isinstance(there["settings"], dict) and isinstance(there["drawn_seed"], int):
                end = Finish(int(finish["lines"]), int(finish["input_lines"])) if finish else None
                return cls(there["settings"], there["drawn_seed"], end)
        except FileNotFoundError:
            raise BadRequestError(
                f"{output} exists, but not {path.name}, which says how it was made; write to another file, "
                "or start over with --force"
            ) from None
        except (AttributeError, KeyError, TypeError, ValueError):
            pass
        raise BadRequestError(f"{path} is damaged; start {output} over with --force")

    def write(self, output: Path) -> None:
        """Write the settings beside an output; a crash leaves the old file or the new one, never a part."""
        about = f"how {output.name} was made; tinker-local continues it only with the same settings"
        content: dict[str, Any] = {"about": about, "settings": self.given, "drawn_seed": self.seed}
        if self.finish:
            content["finished"] = {"lines": self.finish.n_lines, "input_lines": self.finish.last}
        with whole_file(settings_path(output)) as file:
            json.dump(content, file, indent=1)
            file.write("\n")

    def compare(self, output: Path, given: Mapping[str, Any]) -> None:
        """Check that a run has the settings of the run that began an output.

        Raises:
            BadRequestError: names the setting that differs.
        """
        now = json.loads(json.dumps(given))  # a tuple reads back as a list
        for name in {**self.given, **now}:
            if self.given.get(name) != now.get(name):
                raise BadRequestError(
                    f"{output} was begun with {name} = {self.given.get(name)!r}, but this run has "
                    f"{now.get(name)!r}; keep the value, write to another file, or start over with --force"
                )


def settings_path(output: Path) -> Path:
    """Return the file with the settings of an output."""
    return output.with_name(f"{output.name}.settings")
