"""A real checkpoint: its perplexity survives each type as far as the type lets it."""

from __future__ import annotations

from pathlib import Path

import pytest

pytestmark = pytest.mark.parity


def test_perplexity_by_type(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    from tests.parity.smollm2 import measure

    found = measure(tmp_path, 256)
    of_source = found["transformers"]
    assert found["f32"] == pytest.approx(of_source, rel=1e-4)
    assert found["bf16"] == pytest.approx(of_source, rel=0.01)
    assert found["q8_0"] == pytest.approx(of_source, rel=0.02)
    assert found["q4_k_m"] == pytest.approx(of_source, rel=0.15)
