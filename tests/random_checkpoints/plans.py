"""What the converter plans for the checkpoints of ``lineup.py``, kept for tests that have no torch.

python -m tests.random_checkpoints.plans   writes plans.jsonl anew; the parity tests compare with it.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from convert.architectures import find_architecture
from convert.source.checkpoint import SourceCheckpoint
from convert.source.config import Config
from convert.source.tensor import Array, SourceTensor

PLANS = Path(__file__).parent / "plans.jsonl"
Shapes = Mapping[str, tuple[int, ...]]


class Zeros(SourceTensor):
    """A tensor of zeros that is in no file."""

    def array(self) -> Array:
        return np.zeros(self.shape, np.float32)


def plan(architecture: str, settings: Mapping[str, Any], shapes: Shapes) -> dict[str, Any]:
    """Return the metadata and the tensors' shapes that a family makes of settings and shapes."""
    tensors = {name: Zeros(name, tuple(shape), "F32", Path(), 0) for name, shape in shapes.items()}
    family = find_architecture(architecture, settings.get("model_type"))(Config(settings), tensors)
    metadata = {family.full_key(key): value for key, value in family.metadata().items()}
    targets = list(family.targets())
    family.config.refuse_unread()
    return {
        "metadata": metadata,
        "targets": {target.name: list(target.shape) for target in targets},
        "unused": sorted(set(shapes) - {name for target in targets for name in target.sources}),
    }


def read(checkpoint: Path) -> dict[str, Any]:
    """Return what ``plan`` takes of a checkpoint, and what it gives, as a row of the file."""
    source = SourceCheckpoint.open(checkpoint)
    shapes = {name: tensor.shape for name, tensor in source.tensors.items()}
    given = {"architecture": source.architecture, "settings": source.text_config, "shapes": shapes}
    row = given | plan(source.architecture, source.text_config, shapes)
    return json.loads(json.dumps(row, sort_keys=True))


def stored() -> dict[str, dict[str, Any]]:
    """Return the rows by the cases' names."""
    rows = map(json.loads, PLANS.read_text(encoding="utf-8").splitlines())
    return {row.pop("case"): row for row in rows}


def main() -> None:
    """Write the file."""
    from tests.random_checkpoints.lineup import CASES

    lines = []
    for case in CASES:
        with tempfile.TemporaryDirectory() as directory:
            case.write(Path(directory) / "checkpoint")
            row = {"case": str(case)} | read(Path(directory) / "checkpoint")
        lines.append(json.dumps(row, sort_keys=True, separators=(",", ":")))
    PLANS.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
