"""The check of a result: llama.cpp loads it, and tokenizes as the source's tokenizer does."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from convert.errors import LlamaError, VerificationError
from convert.verification.llama_process import LlamaProcess, llama_process, serve

logger = logging.getLogger("convert")

_GOOD = "good"
_UNTRIED = "the vision tower was not tried, since llama-cpp-python was built without libmtmd"


@contextmanager
def checking(path: Path, tower: Path | None = None, *, source: Path) -> Iterator[LlamaProcess]:
    """Let llama.cpp check a file while the block runs; leaving the block waits for the result.

    The head must be written and the file have its full size; the tensors' data is not read, so it may
    be written meanwhile. llama.cpp refuses settings that are missing, tensors that are missing, left
    over or of another shape than the settings say, and vocabularies that it cannot use. The hard corpus
    must have the same tokens as in the source. Where llama.cpp's own tokenizer is known to differ, a
    warning is logged.

    Args:
        path: the file, or the first part of a model in parts.
        tower: the model's mmproj file, if it has one; libmtmd loads it with the model.
        source: the model directory that it is made from.

    Raises:
        VerificationError: the file is not good; the message has llama.cpp's words, or the first text
            that is tokenized differently.
    """
    arguments = {"path": str(path), "source": str(source), "tower": tower and str(tower)}
    with llama_process("convert.verification.verify", arguments) as process:
        try:
            yield process
            said = process.wait()
        except LlamaError as error:
            raise VerificationError(f"the result failed its check and was removed: {error}") from None
    if said != _GOOD:
        logger.warning("%s: %s", source.name, said)


def run(path: str, source: str, tower: str | None = None) -> str:
    """Check in this process; ``checking`` starts it in another."""
    from llama_cpp import llama_cpp

    from convert.files.json_file import read_json
    from convert.verification.tokenization import check_tokenization
    from convert.vocabularies.vocabulary import read_vocabulary

    model = load(path)
    remarks = [] if tower is None or load_tower(tower, model) else [_UNTRIED]
    n_rows = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(model))
    directory = Path(source)
    vocabulary = read_vocabulary(directory, read_json(directory / "config.json"), n_rows)
    report = check_tokenization(Path(path), vocabulary, model=model)
    if not report.is_exact:
        reasons = "; ".join(f"{reason} ({n})" for reason, n in report.reasons.items())
        remarks.append(
            "tinker-local tokenizes as the source does. In other programs, by llama.cpp's own tokenizer, "
            f"{len(report.differences)} of {report.n_texts} hard texts have other tokens: {reasons}"
        )
    return ". ".join(remarks) or _GOOD


def load(path: str) -> Any:
    """Load a file in llama.cpp without its tensors' data. Ends the process if llama.cpp refuses it."""
    from llama_cpp import llama_cpp

    params: Any = llama_cpp.llama_model_default_params()
    params.no_alloc, params.load_mode = True, llama_cpp.LLAMA_LOAD_MODE_NONE
    params.n_gpu_layers, params.use_extra_bufts = 0, False
    model = llama_cpp.llama_model_load_from_file(os.fsencode(path), params)
    if not model:
        raise SystemExit(1)  # the log has said why
    return model


def load_tower(path: str, model: Any) -> bool:
    """Load an mmproj file with its model in libmtmd. Ends the process if libmtmd refuses it.

    Returns:
        Whether there is a libmtmd.
    """
    try:
        from llama_cpp import mtmd_cpp
    except (ImportError, OSError, RuntimeError):
        return False
    params = mtmd_cpp.mtmd_context_params_default()
    params.use_gpu, params.warmup = False, False
    context = mtmd_cpp.mtmd_init_from_file(os.fsencode(path), model, params)
    if not context:
        raise SystemExit(1)  # the log has said why
    mtmd_cpp.mtmd_free(context)
    return True


if __name__ == "__main__":
    serve(run)
