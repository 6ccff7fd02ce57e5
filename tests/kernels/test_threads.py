"""The threads that are kept between calls: beside Python's, across fork, at exit."""

from __future__ import annotations

import os
import subprocess
import sys
import threading

import numpy as np
import pytest

from tests.kernels.rows import equal
from tinker_local import kernels

LOGITS = np.random.default_rng(0).standard_normal((8, 100_000)).astype(np.float32)


def test_calls_from_several_python_threads() -> None:
    expected = kernels.score_rows(LOGITS, topk=5)
    results: list[kernels.ScoredRows] = []

    def work() -> None:
        for _ in range(20):
            results.append(kernels.score_rows(LOGITS, topk=5, n_threads=3))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 80
    assert all(equal(expected, result) for result in results)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_forked_child_has_threads_of_its_own() -> None:
    expected = kernels.score_rows(LOGITS, n_threads=4)
    child = os.fork()
    if child == 0:
        os._exit(0 if equal(expected, kernels.score_rows(LOGITS, n_threads=4)) else 1)
    assert os.waitpid(child, 0)[1] == 0


@pytest.mark.skipif("TINKER_LOCAL_KERNELS" in os.environ, reason="the child loads another build")
def test_the_process_ends() -> None:
    script = (
        "import numpy as np\n"
        "from tinker_local import kernels\n"
        "kernels.score_rows(np.zeros((64, 50_000), np.float32), n_threads=8)\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)
