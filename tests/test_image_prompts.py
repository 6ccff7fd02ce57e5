"""Text and images as a model was trained on them: in Python, files, the command line, Tinker's protocol."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tests.random_tower import SPECIAL, Kind, picture, write_random_pair
from tinker_local import (
    BadRequestError,
    ImageChunk,
    ModelInput,
    NotFoundError,
    SamplingClient,
    SamplingParams,
    ServiceClient,
)
from tinker_local.batch import SampleTask
from tinker_local.cli import app
from tinker_local.distributed import Answers
from tinker_local.image_prompts import chat_with_images, prompt_of, read_image, text_tokens

KINDS: list[Kind] = ["qwen3vl", "gemma3"]
Opened = tuple[Kind, Path, SamplingClient]


@pytest.fixture(scope="module", params=KINDS)
def opened(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Opened:
    path = write_random_pair(tmp_path_factory.mktemp("pairs"), request.param, n_layer=2)
    (path.parent / "cat.png").write_bytes(picture(70, 60))
    (path.parent / "dog.jpg").write_bytes(picture(60, 70, 1, "jpeg"))
    client = ServiceClient(n_ctx=512, n_threads=1).create_sampling_client(base_model=str(path))
    return request.param, path, client


def shown(client: SamplingClient, prompt: ModelInput) -> str:
    """A prompt as a text in which an image is written by its format."""
    decode = client.get_tokenizer().decode
    return "".join(
        f"({chunk.format})" if isinstance(chunk, ImageChunk) else decode(chunk.tokens)  # type: ignore[union-attr]
        for chunk in prompt.chunks
    )


def test_what_stands_around_images(opened: Opened) -> None:
    kind, path, client = opened
    tokenizer, images = (
        client.get_tokenizer(),
        [read_image(path.parent / n) for n in ("cat.png", "dog.jpg")],
    )
    start, end = {
        "qwen3vl": ("<|vision_start|>", "<|vision_end|>"),
        "gemma3": ("\n\n<start_of_image>", "<end_of_image>\n\n"),
    }[kind]
    alone = prompt_of(tokenizer, "Who?", images)
    assert shown(client, alone) == f"{start}(png){end}{start}(jpeg){end}Who?"
    chat = prompt_of(tokenizer, "Who?", images[:1], chat=True)
    assert shown(client, chat) == f"[user]{start}(png){end}Who?[assistant]"
    assert client.compute_logprobs(chat).result()[-1] is not None
    ids = {token: 400 - len(SPECIAL[kind]) + i for i, token in enumerate(SPECIAL[kind])}
    assert ids[start.strip()] in text_tokens(chat)
    assert shown(client, prompt_of(tokenizer, "Who?")) == "Who?"
    marker = "<|image_pad|>" if kind == "qwen3vl" else "<start_of_image>"
    messages = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": marker}]}]
    with pytest.raises(BadRequestError, match=r"writes 2 places .* for 1 images"):
        chat_with_images(tokenizer, messages, images[:1])


def test_models_without_a_place(client: SamplingClient) -> None:
    image = ImageChunk(data=picture(9, 9), format="png")
    for chat in (False, True):
        with pytest.raises(BadRequestError, match="has no token for images"):
            prompt_of(client.get_tokenizer(), "Who?", [image], chat=chat)


def test_files(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="no image"):
        read_image(tmp_path / "cat.png")
    with pytest.raises(BadRequestError, match="cannot be read"):
        read_image(tmp_path)
    (tmp_path / "cat.png").write_bytes(b"meow meow")
    with pytest.raises(BadRequestError, match="PNG or a JPEG"):
        read_image(tmp_path / "cat.png")


def test_the_command_line(opened: Opened, tmp_path: Path) -> None:
    _, path, client = opened
    cat, common = (
        str(path.parent / "cat.png"),
        ["--model", str(path), "--max-tokens", "4", "--temperature", "0"],
    )
    run = CliRunner().invoke(app, ["sample", "What is this?", "--image", cat, "--chat", "--json", *common])
    assert run.exit_code == 0, run.output
    said = json.loads(run.output)
    given = prompt_of(client.get_tokenizer(), "What is this?", [read_image(Path(cat))], chat=True)
    assert said["prompt_tokens"] == text_tokens(given)
    url = f"data:image/png;base64,{base64.b64encode(Path(cat).read_bytes()).decode()}"
    lines = [
        {"prompt": "What is this?", "images": [cat]},
        {"messages": [{"role": "user", "content": "What is this?"}], "images": [cat]},
        {"prompt": "What is this?", "images": [str(tmp_path / "no.png")]},
        {"prompt": "What is this?", "images": cat},
        {"tokens": [1], "images": [cat]},
        {"prompt": "What is this?", "images": ["data:image/png;base64,?"]},
        {"prompt": "What is this?", "images": [url]},
    ]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    files = ["--input", str(tmp_path / "in.jsonl"), "--output", str(tmp_path / "out.jsonl"), "--chat"]
    CliRunner().invoke(app, ["sample", *files, *common])
    answers = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [answer["sequences"][0]["tokens"] for answer in (*answers[:2], answers[-1])] == [
        said["sequences"][0]["tokens"]
    ] * 3
    assert [answer["error"].split(";")[0] for answer in answers[2:-1]] == [
        f"there is no image {tmp_path / 'no.png'}",
        f"images is {cat!r:.62}"[:60] + "..." if len(repr(cat)) > 60 else f"images is {cat!r}",
        "a line with tokens has no images",
        "the data URL 'data:image/png",
    ]
    rows = Answers(
        SampleTask(SamplingParams(max_tokens=4, temperature=0), chat=True),
        str(path),
        n_ctx=512,
        n_threads=1,
    )
    row = {
        "prompt": ["What is this?"] * 3,
        "seed": [1] * 3,
        "images": [[Path(cat).read_bytes()], [cat], [5]],
    }
    found = rows(row)
    assert found["error"][2] == "images is [5]; it must be a list of paths or data URLs"
    assert [each[0]["tokens"] for each in found["sequences"][:2]] == [said["sequences"][0]["tokens"]] * 2


def test_tinkers_protocol(opened: Opened) -> None:
    """An image of Tinker's SDK, in an asample, is answered as the client here answers it."""
    pytest.importorskip("starlette")
    from tests.serve.caller import Caller
    from tests.serve.tinker_calls import open_session, retrieve, sample_body
    from tinker_local import serve
    from tinker_local.serve.tinker_api.protobuf import encode_response

    _, path, client = opened
    given = prompt_of(client.get_tokenizer(), "Who?", [read_image(path.parent / "cat.png")], chat=True)
    service = ServiceClient(n_ctx=512, n_threads=1, models_dir=path.parent, prefix_cache=False)
    here = service.create_sampling_client(base_model=path.stem)
    with service, Caller(serve.app(service, image_dir=path.parent)) as caller:
        session = open_session(caller, base_model=path.stem)
        body = sample_body(session, 0, [], prompt_logprobs=True, prompt=json.loads(given.model_dump_json()))
        answer = retrieve(caller, caller.post("/api/v1/asample", body).json()["request_id"])
        params = SamplingParams(max_tokens=4, seed=7)
        assert answer.body == encode_response(here.sample(given, 1, params, True).result())
        named = json.loads(given.model_dump_json())
        pointer = {"type": "image_asset_pointer", "format": "png"}
        for seq_id, location in ((1, "cat.png"), (2, "../cat.png")):
            named["chunks"][1] = pointer | {"location": location}
            body = sample_body(session, seq_id, [], prompt_logprobs=True, prompt=named)
            found = retrieve(caller, caller.post("/api/v1/asample", body).json()["request_id"])
            assert (
                found.body == answer.body
                if seq_id == 1
                else b"not in the server's --image-dir" in found.body
            )
        for wrong in (
            {"data": "abc"},
            {"format": "gif"},
            {"type": "image_asset_pointer", "location": "/etc"},
        ):
            image = {"type": "image", "data": base64.b64encode(b"x").decode(), "format": "png"} | wrong
            body = sample_body(session, 3, [], prompt={"chunks": [image]})
            assert caller.post("/api/v1/asample", body).status == 400


def test_openais_protocol(opened: Opened) -> None:
    """A picture as a data URL in a chat is answered as the client here answers it."""
    pytest.importorskip("starlette")
    from tests.serve.caller import Caller
    from tinker_local import serve

    _, path, _ = opened
    data = (path.parent / "cat.png").read_bytes()
    url = "data:image/png;base64," + base64.b64encode(data).decode()

    def body(image_url: object, **fields: object) -> dict[str, object]:
        parts = [{"type": "image_url", "image_url": image_url}, {"type": "text", "text": "Who?"}]
        messages = [{"role": "user", "content": parts}]
        return {"model": path.stem, "messages": messages, "max_tokens": 4, "temperature": 0} | fields

    service = ServiceClient(n_ctx=512, n_threads=1, models_dir=path.parent, prefix_cache=False)
    here = service.create_sampling_client(base_model=path.stem)
    given = prompt_of(here.get_tokenizer(), "Who?", [read_image(path.parent / "cat.png")], chat=True)
    drawn = here.sample(given, 1, SamplingParams(max_tokens=4, temperature=0)).result().sequences[0]
    with service, Caller(serve.app(service)) as caller:
        answer = caller.post("/v1/chat/completions", body({"url": url}, logprobs=True)).json()
        found = [token["logprob"] for token in answer["choices"][0]["logprobs"]["content"]]
        assert found == drawn.logprobs
        n_image = here.count_tokens(given) - len(text_tokens(given))
        assert n_image > 0
        assert answer["usage"]["prompt_tokens"] == len(text_tokens(given)) + n_image
        for wrong, message in (
            ("https://example.org/cat.png", "nothing is fetched"),
            ("file:///etc/passwd", "start it with --image-dir DIRECTORY"),
            ("cat.png", "start it with --image-dir DIRECTORY"),
            ("data:text/html;base64,aGVsbG8=", "must be data:image/png;base64"),
            ("data:image/png;base64,?", "no base64"),
            ("data:image/png;base64,aGVsbG8=", "PNG or a JPEG"),
            (url[:-400], "cannot be read as png"),
            (7, "must be data:image/png;base64"),
        ):
            refused = caller.post("/v1/chat/completions", body(wrong))
            assert refused.status == 400
            assert message in refused.json()["error"]["message"]
        ids = caller.post("/v1/chat/completions", body(url, return_token_ids=True)).json()
        assert ids["prompt_token_ids"] == text_tokens(given)


def test_openais_completions(opened: Opened) -> None:
    """``/tokenize`` says where images stand; with their bytes, its chunks are a prompt."""
    pytest.importorskip("starlette")
    from tests.serve.caller import Caller
    from tinker_local import serve

    _, path, _ = opened
    names = {"png": "cat.png", "jpeg": "dog.jpg"}
    images = [read_image(path.parent / name) for name in names.values()]
    urls = [
        f"data:image/{image.format};base64," + base64.b64encode(image.data).decode() for image in images
    ]
    service = ServiceClient(n_ctx=512, n_threads=1, models_dir=path.parent, prefix_cache=False)
    here = service.create_sampling_client(base_model=path.stem)
    given = prompt_of(here.get_tokenizer(), "Who?", images)
    with service, Caller(serve.app(service, image_dir=path.parent)) as caller:
        model = caller.get(f"/v1/models/{path.stem}").json()
        assert model["architecture"] == {"input_modalities": ["text", "image"]}
        said = caller.post("/tokenize", {"model": path.stem, "prompt": "Who?", "images": urls}).json()
        assert (said["tokens"], said["count"]) == (text_tokens(given), here.count_tokens(given))
        chunks = said["chunks"]
        assert [chunk.get("format") for chunk in chunks] == [None, "png", None, "jpeg", None]
        assert chunks[1]["expected_tokens"] == here.count_tokens(ModelInput(chunks=[images[0]]))
        whole = [
            chunk | ({"data": base64.b64encode(images[i // 2].data).decode()} if i % 2 else {})
            for i, chunk in enumerate(chunks)
        ]
        named = [
            {
                "type": "image_asset_pointer",
                "location": names[chunk["format"]],
                "format": chunk["format"],
            }
            if i % 2
            else chunk
            for i, chunk in enumerate(chunks)
        ]
        params = SamplingParams(max_tokens=3, temperature=0)
        right = here.sample(given, 1, params, True, topk_prompt_logprobs=2).result()
        drawn, scores = right.sequences[0], right.prompt_logprobs
        assert scores
        for prompt in (whole, named):
            body = {"model": path.stem, "prompt": prompt, "max_tokens": 3, "temperature": 0, "logprobs": 2}
            answer = caller.post("/v1/completions", body | {"echo": True, "return_token_ids": True}).json()
            (choice,) = answer["choices"]
            assert choice["prompt_token_ids"] == text_tokens(given)
            found = choice["logprobs"]["token_logprobs"]
            assert drawn.logprobs
            assert found == [None, *[p for p in scores if p is not None], *drawn.logprobs][-len(found) :]
            assert len(found) == len(text_tokens(given)) + len(drawn.tokens)
            assert answer["usage"]["prompt_tokens"] == here.count_tokens(given)
        for wrong, message in (
            ([{"type": "image_asset_pointer", "location": "../x.png", "format": "png"}], "--image-dir"),
            ([{"type": "audio"}], "served here"),
            ([{"tokens": [10**6]}], "vocabulary"),
            ([{"tokens": "abc"}], "list of ints"),
        ):
            refused = caller.post("/v1/completions", {"model": path.stem, "prompt": wrong})
            assert refused.status == 400
            assert message in refused.json()["error"]["message"]
