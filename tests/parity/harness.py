"""lm-evaluation-harness with the small tasks of ``lm_eval_tasks``, whose data is there too."""

from __future__ import annotations

from contextlib import chdir
from pathlib import Path
from typing import Any

import lm_eval
import yaml
from lm_eval.api.instance import Instance
from lm_eval.tasks import TaskManager

TASKS = Path(__file__).parent / "lm_eval_tasks"
CHOICE, ANSWER = "opposites", "capitals"


def evaluate(
    model: Any, name: str, cache: Path, options: dict[str, Any] | None = None, **changes: Any
) -> tuple[dict[str, float], list[Any]]:
    """Return a task's metrics, and what the model answered to each item.

    Args:
        model: the harness's.
        name: the task.
        cache: where the harness puts its copy of the data.
        options: of the evaluation.
        **changes: of the task.
    """
    settings = yaml.safe_load((TASKS / f"{name}.yaml").read_text(encoding="utf-8")) | changes
    settings["dataset_kwargs"]["cache_dir"] = str(cache)
    with chdir(TASKS):
        loaded = TaskManager(include_defaults=False).load([settings])
    found = lm_eval.evaluate(model, loaded, bootstrap_iters=0, **options or {})
    assert found is not None
    metrics = {key: value for key, value in found["results"][name].items() if isinstance(value, float)}
    return metrics, [sample["resps"] for sample in found["samples"][name]]


def requests(kind: str, *arguments: tuple[Any, ...]) -> list[Instance]:
    """Return requests as a task makes them."""
    return [
        Instance(request_type=kind, doc={}, arguments=given, idx=place)
        for place, given in enumerate(arguments)
    ]


def n_items(name: str) -> int:
    return len((TASKS / f"{name}.jsonl").read_text(encoding="utf-8").splitlines())
