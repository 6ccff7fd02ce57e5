"""Fields of the requests: what is served, with its limits; all else is refused by name.

Names and meanings are OpenAI's (https://platform.openai.com/docs/api-reference/completions). Where OpenAI
has none, they are vLLM's (``vllm/entrypoints/openai/protocol.py``). A field that is null counts as absent.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from tinker_local.checks import MAX_TOPK
from tinker_local.errors import shown
from tinker_local.types import SamplingParams

MOST_PROMPTS = 2048
MOST_STOPS = 1024

Alternatives = Annotated[int, Field(ge=0, le=MAX_TOPK)]
Stops = Annotated[list[str | int], Field(max_length=MOST_STOPS)]
Tokens = list[int]
F = TypeVar("F", bound="Fields")


class FieldError(ValueError):
    """A request cannot be served because of one of its fields.

    Attributes:
        param: the field's name.
    """

    def __init__(self, message: str, param: str | None) -> None:
        super().__init__(message)
        self.param = param


class Fields(BaseModel):
    """Fields of a request; others are refused."""

    model_config = ConfigDict(extra="forbid", strict=True)

    model: str | None = Field(None, description="Name, `tinker://` path, or `BASE;tinker://...`.")

    @classmethod
    def read(cls, body: Any) -> Self:
        """Return the fields of a body.

        Raises:
            FieldError: one is unknown or wrong.
        """
        try:
            return cls.model_validate({name: value for name, value in body.items() if value is not None})
        except ValidationError as error:
            raise _first_problem(error, cls) from None

    @property
    def names(self) -> frozenset[str]:
        """Names of all fields."""
        return frozenset(type(self).model_fields)


def _first_problem(error: ValidationError, fields: type[Fields]) -> FieldError:
    problem = error.errors(include_url=False, include_context=False)[0]
    name = str(problem["loc"][0])
    if problem["type"] == "extra_forbidden":
        path = ".".join(map(str, problem["loc"]))
        return FieldError(f"{shown(path)} is not served here; leave it out", name)
    if problem["type"] == "missing":
        return FieldError(f"{name} is missing", name)
    allowed = fields.model_fields[name].description or ""
    return FieldError(f"{name} is {shown(problem['input'])}: {problem['msg']}. The field: {allowed}", name)


class StreamOptions(BaseModel):
    """What a stream has besides the tokens."""

    model_config = ConfigDict(extra="forbid", strict=True)
    include_usage: bool = False
    continuous_usage_stats: Literal[False] = False
    include_obfuscation: bool = False


class Harmless(Fields):
    """Fields that change nothing here, with the values at which they change nothing."""

    user: str | None = Field(None, description="Not used.")
    metadata: dict[str, Any] | None = Field(None, description="Not used.")
    store: Literal[False] = Field(False, description="Nothing is stored.")
    service_tier: Literal["auto", "default"] = Field("auto", description="There is one tier.")
    safety_identifier: str | None = Field(None, description="Not used.")
    prompt_cache_key: str | None = Field(None, description="Not used: any prefix is found in the cache.")
    priority: Literal[0] = Field(0, description="First come, first served.")
    min_tokens: Literal[0] = Field(0, description="Only 0.")
    use_beam_search: Literal[False] = Field(False, description="Only false.")
    length_penalty: float = Field(1.0, ge=1, le=1, description="Only 1: it is of beam search.")
    spaces_between_special_tokens: bool = Field(True, description="No spaces are put anywhere.")


class SamplingFields(Harmless):
    """What completions and chats have in common."""

    n: int = Field(1, ge=1, description="Continuations of each prompt.")
    temperature: float = Field(1.0, description="At least 0; 0 is greedy.")
    top_p: float = Field(1.0, description="Above 0, at most 1.")
    top_k: int = Field(-1, ge=-1, description="At least 1; -1 and 0 keep all tokens.")
    min_p: float = Field(0.0, description="0 to 1.")
    presence_penalty: float = Field(0.0, description="-2 to 2; counts generated tokens.")
    frequency_penalty: float = Field(0.0, description="-2 to 2; counts generated tokens.")
    repetition_penalty: float = Field(1.0, description="0.01 to 100; counts prompt and generated tokens.")
    logit_bias: dict[str, float] = Field({}, description="By token id: -10,000 to 10,000.")
    seed: int | None = Field(None, description="64 bits. Sample j of each prompt draws from (seed, j).")
    stop: str | Stops = Field(
        [], description="A text or several, or token ids; names of special tokens too. At most 1,024."
    )
    stop_token_ids: Annotated[Tokens, Field(max_length=MOST_STOPS)] = Field(
        [], description="Token ids that end a continuation."
    )
    include_stop_str_in_output: bool = Field(False, description="Leave the stop in the text.")
    ignore_eos: bool = Field(False, description="Go on after end-of-generation tokens; without `stop`.")
    skip_special_tokens: bool = Field(True, description="Leave special tokens out of the text.")
    stream: bool = Field(False, description="Server-sent events, ended by `[DONE]`.")
    stream_options: StreamOptions = Field(StreamOptions(), description="`include_usage`.")
    prompt_logprobs: Alternatives | None = Field(
        None, description="0 to 1,024 alternatives for each prompt token, in vLLM's form; not in a stream."
    )
    return_token_ids: bool = Field(False, description="Add `token_ids` and `prompt_token_ids`.")
    return_tokens_as_token_ids: bool = Field(False, description="Write tokens as `token_id:N`.")

    @property
    def stops(self) -> tuple[list[str], frozenset[int]]:
        """Texts and token ids that end a continuation."""
        items = [self.stop] if isinstance(self.stop, str) else self.stop
        texts = [item for item in items if isinstance(item, str)]
        ids = frozenset(item for item in items if isinstance(item, int)).union(self.stop_token_ids)
        return texts, ids

    def params(self, max_tokens: int | None) -> SamplingParams:
        """Return the parameters of ``SamplingClient.sample``, which checks them.

        Raises:
            FieldError: fields exclude each other.
        """
        texts, ids = self.stops
        if self.ignore_eos and (texts or ids):
            raise FieldError("ignore_eos and stop exclude each other; give one of them", "ignore_eos")
        stop: list[str | int] = [*texts, *sorted(ids)]
        return SamplingParams(
            max_tokens=max_tokens,
            seed=self.seed,
            stop=stop or ([] if self.ignore_eos else None),
            temperature=self.temperature,
            top_k=self.top_k or -1,
            top_p=self.top_p,
            min_p=self.min_p,
            logit_bias=self.logit_bias,  # type: ignore[arg-type]  # keys may be digits
            presence_penalty=self.presence_penalty,
            frequency_penalty=self.frequency_penalty,
            repetition_penalty=self.repetition_penalty,
        )

    def check_stream(self, *names: str) -> None:
        """Refuse fields whose answer a stream cannot have.

        Raises:
            FieldError: one was given.
        """
        for name in ("prompt_logprobs", *names):
            if self.stream and name in self.model_fields_set:
                raise FieldError(f"{name} is not served in a stream; leave out stream", name)


class CompletionFields(SamplingFields):
    """``/v1/completions``."""

    prompt: str | list[str] | Tokens | list[Tokens] | list[dict[str, Any]] = Field(
        description="A text, token ids, or up to 2,048 of either; or Tinker's chunks, with images. "
        "Ids are taken as given."
    )
    add_special_tokens: bool = Field(True, description="Add BOS to texts where the vocabulary says so.")
    max_tokens: int = Field(16, ge=0, description="0 or more; 0 only scores the prompt.")
    best_of: int | None = Field(
        None, ge=1, description="Draw so many, return the `n` with the highest mean log-probability."
    )
    echo: bool = Field(False, description="Begin text and log-probabilities with the prompt.")
    logprobs: Alternatives | None = Field(None, description="0 to 1,024 alternatives for each token.")
    suffix: Literal[""] = Field("", description="Only empty.")


class ChatFields(SamplingFields):
    """``/v1/chat/completions``."""

    messages: list[dict[str, Any]] = Field(
        min_length=1, description="Roles, texts and `image_url`, for the model's chat template; no sound."
    )
    max_tokens: int | None = Field(None, ge=0, description="Unset: to the end of the context.")
    max_completion_tokens: int | None = Field(None, ge=0, description="The same, by its newer name.")
    logprobs: bool = Field(False, description="Add `logprobs.content`.")
    top_logprobs: Alternatives = Field(0, description="0 to 1,024 alternatives for each token.")
    tools: list[dict[str, Any]] = Field(
        [], description="JSON schemas for the chat template. A call comes as text in `content`."
    )
    tool_choice: Literal["auto", "none"] = Field("auto", description="`none` leaves the tools out.")
    parallel_tool_calls: Literal[True] = Field(True, description="Only true.")
    documents: list[dict[str, Any]] = Field([], description="For the chat template.")
    add_generation_prompt: bool = Field(True, description="End with the beginning of the assistant's turn.")
    continue_final_message: bool = Field(False, description="Continue the last message instead.")
    chat_template_kwargs: dict[str, Any] = Field(
        {}, description="Variables for the chat template, such as `enable_thinking`."
    )
    reasoning_effort: str | float | None = Field(
        None, description="For a chat template that has the variable `reasoning_effort`."
    )
    include_reasoning: bool = Field(True, description="Add `reasoning_content`.")
    response_format: dict[Literal["type"], Literal["text"]] = Field(
        {"type": "text"}, description="Only text."
    )
    modalities: list[Literal["text"]] = Field(["text"], description="Only text.")


class TokenizeFields(Fields):
    """``/tokenize``: a text, or messages."""

    prompt: str | None = Field(None, description="A text.")
    add_special_tokens: bool = Field(True, description="Add BOS where the vocabulary says so.")
    images: list[str] = Field([], description="`image_url` of images that stand before the text.")
    messages: list[dict[str, Any]] | None = Field(None, description="A chat instead of a text.")
    tools: list[dict[str, Any]] = Field([], description="As in a chat.")
    add_generation_prompt: bool = Field(True, description="As in a chat.")
    continue_final_message: bool = Field(False, description="As in a chat.")
    chat_template_kwargs: dict[str, Any] = Field({}, description="As in a chat.")
    return_token_strs: bool = Field(False, description="Add `token_strs`.")


class DetokenizeFields(Fields):
    """``/detokenize``."""

    tokens: Tokens = Field(description="Token ids.")


__all__ = [
    "MOST_PROMPTS",
    "ChatFields",
    "CompletionFields",
    "DetokenizeFields",
    "FieldError",
    "Fields",
    "SamplingFields",
    "TokenizeFields",
]
