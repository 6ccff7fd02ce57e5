"""libmtmd, llama.cpp's library for images. Tests are skipped where a build of llama-cpp-python lacks it."""

from __future__ import annotations

import pytest

try:
    import llama_cpp.mtmd_cpp  # noqa: F401
except (ImportError, OSError, RuntimeError) as error:
    MISSING = f"llama-cpp-python was built without libmtmd: {error}"
else:
    MISSING = ""

needs_libmtmd = pytest.mark.skipif(bool(MISSING), reason=MISSING)


def require_libmtmd() -> None:
    """Skip the test that is running, from a fixture or a function that writes a model."""
    if MISSING:
        pytest.skip(MISSING)
