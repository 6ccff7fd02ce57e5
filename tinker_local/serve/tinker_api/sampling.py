"""``asample``: a request of Tinker's SDK becomes one of ``SamplingClient.sample``.

The fields are those of ``tinker.types.SampleRequest`` 0.38. A field that is not known here is refused, so
that nothing is left out unseen.
"""

from __future__ import annotations

import asyncio
import logging
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from starlette.responses import JSONResponse, Response

from tinker_local import checks
from tinker_local.errors import BadRequestError, shown
from tinker_local.sampling_client import SamplingClient
from tinker_local.serve.chunks import read_chunks
from tinker_local.serve.image_directory import ImageDirectory
from tinker_local.serve.served_models import ModelName, ServedModels
from tinker_local.serve.tinker_api.bodies import Body, flag, read_body, text, whole_number
from tinker_local.serve.tinker_api.futures import Futures
from tinker_local.serve.tinker_api.ids import SamplingSession, request_id
from tinker_local.serve.tinker_api.replicas import key_here
from tinker_local.types import EncodedTextChunk, ModelInput, SampleResponse, SamplingParams, TensorData

if TYPE_CHECKING:
    from starlette.requests import Request

logger = logging.getLogger(__name__)

_FIELDS = frozenset(
    (
        "num_samples",
        "prompt",
        "sampling_params",
        "base_model",
        "model_path",
        "sampling_session_id",
        "seq_id",
        "prompt_logprobs",
        "topk_prompt_logprobs",
        "topk_sample_logprobs",
        "target_prompt_logprobs",
        "prompt_alt_tokens_k",
        "prompt_logprobs_last_n",
        "record_stability_info",
        "type",
    )
)
_PARAMS = frozenset(SamplingParams.model_fields)


@dataclass(frozen=True, slots=True)
class SampleCall:
    """The arguments of ``SamplingClient.sample``, as a body has them."""

    prompt: ModelInput
    num_samples: int
    params: SamplingParams
    prompt_logprobs: bool
    topk_prompt_logprobs: Any
    topk_sample_logprobs: Any
    targets: TensorData | None
    prompt_alt_tokens_k: Any
    last_n: Any

    @classmethod
    def read(cls, body: Body) -> SampleCall:
        """Read a body.

        Raises:
            BadRequestError: a field is not known, or of a wrong form; ``sample`` checks the values.
        """
        _refuse_unknown(body, _FIELDS, "the request")
        if flag(body, "record_stability_info"):
            raise BadRequestError(
                "record_stability_info belongs to training, which is Tinker's; leave it out"
            )
        return cls(
            _prompt(body.get("prompt")),
            checks.sample_count(body.get("num_samples", 1)),
            _params(body.get("sampling_params")),
            flag(body, "prompt_logprobs"),
            _or(body.get("topk_prompt_logprobs"), 0),
            _or(body.get("topk_sample_logprobs"), 0),
            _targets(body.get("target_prompt_logprobs")),
            _or(body.get("prompt_alt_tokens_k"), 0),
            body.get("prompt_logprobs_last_n"),
        )

    @property
    def has_images(self) -> bool:
        """Whether there is more in the prompt than token ids."""
        return not all(isinstance(chunk, EncodedTextChunk) for chunk in self.prompt.chunks)

    def submit(self, client: SamplingClient, images: ImageDirectory) -> Future[SampleResponse]:
        """Submit the request; not on the event loop where there are images, which are read and decoded.

        Raises:
            BadRequestError: a value is wrong.
            RateLimitError: the queue is full.
        """
        return client.sample(
            images.fill(self.prompt) if self.has_images else self.prompt,
            self.num_samples,
            self.params,
            self.prompt_logprobs,
            self.topk_prompt_logprobs,
            self.topk_sample_logprobs,
            self.targets,
            self.prompt_alt_tokens_k,
            self.last_n,
        )


async def asample(
    request: Request,
    models: ServedModels,
    futures: Futures,
    images: ImageDirectory,
    *,
    logs_prompts: bool = False,
) -> Response:
    """Accept a request; the answer has its id."""
    body = await read_body(request)
    session = text(body, "sampling_session_id")
    name = SamplingSession.read(session).model
    id = request_id(session, whole_number(body, "seq_id"), key_here(request))
    entry = futures.find(id)
    if entry is None:
        call = SampleCall.read(body)
        if logs_prompts:
            logger.info("%s prompt %s", request.state.request_id, _shown_prompt(call.prompt))
        futures.check_room()
        client = models.ready(name)
        if client is not None and not call.has_images:
            entry = futures.add(id, call.num_samples, call.submit(client, images))
        else:
            n_bytes = len(await request.body())
            start = partial(_open_and_submit, models, name, call, images)
            entry = futures.add_loading(id, call.num_samples, n_bytes, start)
    return JSONResponse({"request_id": entry.id, "sample_sequence_ids": entry.sequence_ids})


async def _open_and_submit(
    models: ServedModels, name: ModelName, call: SampleCall, images: ImageDirectory
) -> Future[SampleResponse]:
    client = await models.open(name)
    if call.has_images:
        return await asyncio.to_thread(call.submit, client, images)
    return call.submit(client, images)


def _prompt(said: Any) -> ModelInput:
    chunks = said.get("chunks") if isinstance(said, dict) else None
    if not isinstance(chunks, list):
        raise BadRequestError(f"prompt is {shown(said)}; it must be an object with a list of chunks")
    return read_chunks(chunks)


def _shown_prompt(prompt: ModelInput) -> list[int | str]:
    """Return a prompt's token ids, and what there is of its images."""
    found = list[int | str]()
    for chunk in prompt.chunks:
        found += chunk.tokens if isinstance(chunk, EncodedTextChunk) else [repr(chunk)]
    return found


def _params(said: Any) -> SamplingParams:
    if not isinstance(said, dict):
        raise BadRequestError(f"sampling_params is {shown(said)}; it must be an object")
    _refuse_unknown(said, _PARAMS, "sampling_params")
    given = {name: value for name, value in said.items() if value is not None}
    return SamplingParams(**given)


def _targets(said: Any) -> TensorData | None:
    if said is None:
        return None
    if not isinstance(said, dict):
        raise BadRequestError(f"target_prompt_logprobs is {shown(said)}; it must be a tensor as an object")
    try:
        return TensorData(
            said.get("data"),
            said.get("dtype"),
            said.get("shape"),
            said.get("sparse_crow_indices"),
            said.get("sparse_col_indices"),
        )
    except (TypeError, ValueError, OverflowError) as error:
        raise BadRequestError(f"target_prompt_logprobs: {error}") from None


def _refuse_unknown(said: Body, known: frozenset[str], where: str) -> None:
    unknown = {name for name, value in said.items() if value is not None} - known
    if unknown:
        names = ", ".join(shown(name) for name in sorted(unknown)[:5])
        raise BadRequestError(f"{where} has {names}, which is not served here")


def _or(value: Any, default: int) -> Any:
    return default if value is None else value


__all__ = ["SampleCall", "asample"]
