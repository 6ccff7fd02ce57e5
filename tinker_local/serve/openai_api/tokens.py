"""The vocabulary: ``/tokenize``, ``/detokenize``, ``/tokenizer_info`` in vLLM's form, ``/token_pieces``."""

from __future__ import annotations

from typing import Any

from tinker_local.display.visible import pieces, text_of_bytes
from tinker_local.image_prompts import text_with_images
from tinker_local.sampling_client import SamplingClient
from tinker_local.serve.image_directory import ImageDirectory
from tinker_local.serve.openai_api.fields import DetokenizeFields, FieldError, TokenizeFields
from tinker_local.serve.openai_api.prompts import Prompt, image_of, rendered
from tinker_local.types import ModelInput


def tokenize(fields: TokenizeFields, client: SamplingClient, images: ImageDirectory) -> dict[str, Any]:
    """Return the token ids of a text or of messages.

    Where there are images, ``chunks`` says where they stand. Their bytes are not sent back.

    Raises:
        FieldError: there is neither or both.
        BadRequestError, NotFoundError: an image cannot be read.
    """
    tokenizer = client.get_tokenizer()
    if (fields.prompt is None) == (fields.messages is None):
        raise FieldError("give either prompt or messages", "prompt")
    if fields.messages is not None:
        given = rendered(tokenizer, fields, fields.tools, fields.chat_template_kwargs, images)
    elif fields.images:
        pictures = [image_of(url, images, "images") for url in fields.images]
        given = text_with_images(tokenizer, fields.prompt or "", pictures)
    else:
        text, adds_special = fields.prompt or "", fields.add_special_tokens
        given = ModelInput.from_ints(tokenizer.encode(text, add_special_tokens=adds_special))
    prompt = Prompt.of(given, client)
    strings = tokenizer.convert_ids_to_tokens(prompt.tokens) if fields.return_token_strs else None
    answer: dict[str, Any] = {"count": len(prompt), "max_model_len": client.n_ctx}
    answer |= {"tokens": prompt.tokens, "token_strs": strings}
    if len(prompt) > len(prompt.tokens):
        answer["chunks"] = [chunk.model_dump(exclude={"data"}) for chunk in prompt.input.chunks]
    return answer


def detokenize(fields: DetokenizeFields, client: SamplingClient) -> dict[str, Any]:
    """Return the text of token ids."""
    return {"prompt": client.get_tokenizer().decode(fields.tokens)}


def token_pieces(fields: DetokenizeFields, client: SamplingClient) -> dict[str, Any]:
    """Return for each token its pieces: [text, whether it is a mark for something invisible]."""
    tokenizer = client.get_tokenizer()
    return {"pieces": [_pieces(text_of_bytes(tokenizer.token_bytes(token))) for token in fields.tokens]}


def _pieces(text: str) -> list[tuple[str, bool]]:
    if text and not text.strip(" "):
        return [("·" * len(text), True)]
    found = list[tuple[str, bool]]()
    for piece in pieces(text):
        found.append((piece.shown, piece.is_mark))
        if piece.is_mark and piece.written in ("\n", "\t"):
            found.append((piece.written, False))
    return found


def tokenizer_info(client: SamplingClient) -> dict[str, Any]:
    """Return the special tokens and the chat template, as in a tokenizer_config.json."""
    tokenizer = client.get_tokenizer()
    template = tokenizer.chat_template
    return {
        "tokenizer_class": type(tokenizer).__name__,
        "chat_template": template.get("default") if isinstance(template, dict) else template,
        "bos_token": tokenizer.bos_token,
        "eos_token": tokenizer.eos_token,
        "unk_token": tokenizer.unk_token,
        "pad_token": tokenizer.pad_token,
        "model_max_length": client.n_ctx,
    }


__all__ = ["detokenize", "token_pieces", "tokenize", "tokenizer_info"]
