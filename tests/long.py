"""Cases of which a few run by default, and the others where long proofs are asked for (``-m long``)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest


def few(n: int, cases: Iterable[Any]) -> list[Any]:
    """Return all cases for ``parametrize``, those after the first ``n`` marked as ``long``."""
    return [case if number < n else as_long(case) for number, case in enumerate(cases)]


def as_long(case: Any) -> Any:
    values = case if isinstance(case, tuple) else (case,)
    return pytest.param(*values, marks=pytest.mark.long)
