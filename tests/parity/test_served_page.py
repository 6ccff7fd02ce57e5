"""The server's page in a real browser: stream, hover, branch, score, compare, copy; by mouse and keys."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import tinker_local
from convert.gguf.file import read_head
from tests.libmtmd import MISSING, needs_libmtmd
from tests.parity.browser import Browser, find_chromium
from tests.random_model import Shape, write_random_model
from tests.random_tower import picture, write_random_pair
from tests.serve.tiny_store import CHECKPOINT, write_tiny_store
from tinker_local import (
    EncodedTextChunk,
    ModelInput,
    SamplingClient,
    SamplingParams,
    ServiceClient,
)
from tinker_local.display import scale
from tinker_local.image_prompts import chat_with_images, read_image, text_tokens, text_with_images
from tinker_local.serve import Server, app

CHROMIUM = find_chromium()
pytestmark = [
    pytest.mark.parity,
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium: apt install chromium, or CHROMIUM=program"),
]
STATUS = "document.getElementById('status').textContent"
BOX = "document.getElementById('alternatives')"
CARDS = "[...document.querySelectorAll('.card')]"
OPTION = "[...document.getElementById('model').options]"
FOCUS = "document.activeElement"
OPTIONS: dict[str, Any] = {"n_ctx": 512, "n_threads": 1, "batch_invariant": True}


@pytest.fixture(scope="module")
def models_dir(tmp_path_factory: pytest.TempPathFactory, model_path: Path) -> Path:
    """A store whose tokens are markup: <hr>0 to <hr>141. Me/Talks has SmolLM2's chat template."""
    directory = write_tiny_store(tmp_path_factory.mktemp("store"))
    (model,) = (directory / "Me").iterdir()
    model.write_bytes(model.read_bytes().replace(b"word", b"<hr>"))
    key = "tokenizer.chat_template"
    said = {key: str(read_head(model_path).metadata[key])}
    write_random_model(directory / "Me" / "Talks-F32.gguf", shape=Shape(n_layer=1), said=said)
    if not MISSING:
        write_random_pair(directory / "Me", "qwen3vl", n_layer=2)
    return directory


@pytest.fixture(scope="module")
def service(models_dir: Path) -> Iterator[ServiceClient]:
    with ServiceClient(models_dir=models_dir, **OPTIONS) as service:
        yield service


@pytest.fixture(scope="module")
def direct(service: ServiceClient) -> SamplingClient:
    return service.create_sampling_client(base_model="Me/Tiny")


@pytest.fixture(scope="module")
def address(service: ServiceClient) -> Iterator[str]:
    with Server(app(service)) as server:
        yield server.url


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    assert CHROMIUM
    with Browser(CHROMIUM) as one:
        yield one


@pytest.fixture
def page(browser: Browser, address: str) -> Iterator[Browser]:
    browser.prefer("light")
    browser.open(address)
    browser.wait("document.getElementById('model').value")
    browser.evaluate("document.querySelector('[name=theme][value=\"\"]').click()")
    model = browser.evaluate(
        "[...document.getElementById('model').options].find(o => /Tiny/.test(o.value)).value"
    )
    given = {
        "model": model,
        "otherModel": model,
        "prompt": "Once upon",
        "n": 3,
        "maxTokens": 20,
        "seed": 5,
        "k": 6,
    }
    for name, value in given.items():
        fill(browser, name, value)
    yield browser
    assert (
        browser.evaluate(
            "document.querySelectorAll('hr, #cards script, #cards img:not(.thumbnail)').length"
        )
        == 0
    )
    assert browser.evaluate("document.documentElement.scrollWidth <= innerWidth")
    said = [event["entry"] for event in browser.said("Log.entryAdded")]
    assert [entry for entry in said if entry["level"] in ("error", "warning")] == []
    assert browser.said("Runtime.exceptionThrown") == []
    urls = [event["request"]["url"] for event in browser.said("Network.requestWillBeSent")]
    assert {url[: len(address)] for url in urls if not url.startswith("data:image/")} == {address}


def fill(page: Browser, name: str, value: Any) -> None:
    page.evaluate(
        f"(field => (field.value = {json.dumps(str(value))}, field.dispatchEvent(new Event('change', "
        f"{{bubbles: true}}))))(document.getElementById('form').elements[{name!r}])"
    )


def click(page: Browser, selector: str) -> None:
    page.evaluate(f"document.querySelector({selector!r}).click()")


def run(page: Browser, task: str, ends: str) -> None:
    click(page, f"[name=task][value={task}]")
    click(page, "#go")
    page.wait(f"{STATUS}.includes({ends!r})")


def token(card: int, i: int) -> str:
    return f"document.querySelectorAll('.card')[{card}].querySelectorAll('.tl-t')[{i}]"


def hover(page: Browser, card: int, i: int) -> None:
    page.evaluate("document.querySelectorAll('[data-here]').forEach(e => delete e.dataset.here)")
    page.evaluate(f"{token(card, i)}.dataset.here = 1")
    page.move_to("[data-here]")
    page.wait(f"!{BOX}.hidden")


def texts(page: Browser) -> list[list[str]]:
    """The tokens of each card, as shown."""
    found: list[list[str]] = page.evaluate(
        f"{CARDS}.map(card => [...card.querySelectorAll('.tl-t')].map(span => span.textContent))"
    )
    return found


def names(page: Browser) -> list[str]:
    found: list[str] = page.evaluate(f"{CARDS}.map(card => card.querySelector('h2').textContent)")
    return found


def asked(page: Browser) -> dict[str, Any]:
    """The last completion that the page asked for."""
    page.evaluate("0")
    sent = [event["request"] for event in page.said("Network.requestWillBeSent")]
    (*_, body) = (request["postData"] for request in sent if request["url"].endswith("/v1/completions"))
    found: dict[str, Any] = json.loads(body)
    return found


def shown(client: SamplingClient, tokens: list[int]) -> list[str]:
    """Tokens as the page shows them, for those that are plain letters or the store's markup."""
    return [client.get_tokenizer().token_bytes(token).decode("ascii", "replace") for token in tokens]


def alike(seen: list[str], expected: list[str]) -> bool:
    """Whether tokens are those; what is no printable ASCII is shown as a mark."""
    pairs = list(zip(seen, expected, strict=True))
    return sum(one == other for one, other in pairs) > len(pairs) / 3 and all(
        one == other or not (other.isascii() and other.isprintable() and other.strip())
        for one, other in pairs
    )


def drawn(client: SamplingClient, prompt: list[int] | ModelInput, n: int) -> list[list[int]]:
    params = SamplingParams(max_tokens=20, seed=5)
    given = ModelInput.from_ints(prompt) if isinstance(prompt, list) else prompt
    response = client.sample(given, n, params).result()
    return [sequence.tokens for sequence in response.sequences]


def test_continuations_stream(page: Browser, direct: SamplingClient) -> None:
    fill(page, "maxTokens", 400)
    click(page, "#go")
    seen = page.wait(
        f"{CARDS}.length === 3 && document.querySelectorAll('.card .tl-t').length > 3 && {STATUS}"
    )
    assert seen == "sampling …", "tokens are there before the end"
    assert not page.evaluate("document.getElementById('stop').disabled")
    click(page, "#stop")
    page.wait(f"{STATUS} === 'stopped'")
    fill(page, "maxTokens", 20)
    run(page, "sample", "3 continuations")
    prompt = direct.get_tokenizer().encode("Once upon")
    expected = [shown(direct, tokens) for tokens in drawn(direct, prompt, 3)]
    for seen, tokens in zip(texts(page), expected, strict=True):
        assert alike(seen, tokens), (seen, tokens)
    assert any("<hr>" in text for tokens in texts(page) for text in tokens)
    classes = page.evaluate("[...document.querySelectorAll('.card .tl-t')].map(e => e.className)")
    assert len(set(classes)) >= 2
    assert page.wait("document.querySelector('[data-figure=sampled]').textContent >= '1'")


def test_hovering_shows_alternatives_and_a_click_branches(page: Browser, direct: SamplingClient) -> None:
    run(page, "sample", "3 continuations")
    hover(page, 1, 6)
    rows = page.evaluate(
        f"[...{BOX}.querySelectorAll('.box-row')].map(row => row.querySelector('.box-share').textContent)"
    )
    assert 6 <= len(rows) <= 7
    shares = [float(row.split()[0]) for row in rows]
    assert shares == sorted(shares, reverse=True)
    before = texts(page)
    page.evaluate(f"{BOX}.querySelectorAll('.box-row')[1].click()")
    page.wait(f"{STATUS}.startsWith('branch 2.1 at token 7')")
    assert page.evaluate(f"{BOX}.hidden")
    assert names(page) == ["1", "2", "2.1", "3"]
    sent = asked(page)["prompt"]
    prompt = direct.get_tokenizer().encode("Once upon")
    whole = drawn(direct, prompt, 3)[1]
    assert sent[: len(prompt) + 6] == [*prompt, *whole[:6]]
    assert len(sent) == len(prompt) + 7
    assert sent[-1] != whole[6]
    after = texts(page)
    assert after[1] == before[1]
    assert after[2][:6] == before[1][:6]
    assert alike(after[2][7:], shown(direct, drawn(direct, sent, 1)[0]))
    boxes = page.evaluate(f"{CARDS}.map(card => (r => [r.left, r.top])(card.getBoundingClientRect()))")
    assert boxes[1][1] == boxes[2][1] or boxes[1][0] == boxes[2][0], "beside or below what it leaves"
    hover(page, 2, 9)
    page.evaluate(f"{BOX}.querySelectorAll('.box-row')[2].click()")
    page.wait(f"{STATUS}.startsWith('branch 2.1.1 at token 10')")
    assert asked(page)["prompt"][: len(sent)] == sent
    click(page, ".card:nth-child(3) .remove")
    assert names(page) == ["1", "2", "2.1.1", "3"]


def test_by_keyboard_alone(page: Browser) -> None:
    page.evaluate("document.getElementById('prompt').select()")
    page.write("It was")
    page.press("Enter", control=True)
    page.wait(f"{STATUS}.includes('3 continuations')")
    for _ in range(40):
        page.press("Tab")
        if page.evaluate(f"{FOCUS}.matches('.tl-t')"):
            break
    assert page.evaluate(f"{FOCUS} === {token(0, 0)}")
    page.press("ArrowRight")
    page.press("ArrowRight")
    assert page.evaluate(f"{FOCUS} === {token(0, 2)}")
    assert not page.evaluate(f"{BOX}.hidden"), "as for the mouse"
    page.press("Enter")
    assert page.evaluate(f"{FOCUS}.matches('.box-row')")
    page.press("Escape")
    assert page.evaluate(f"{BOX}.hidden && {FOCUS} === {token(0, 2)}")
    page.press("ArrowDown")
    page.press("ArrowDown")
    assert page.evaluate(f"[...{BOX}.querySelectorAll('.box-row')].indexOf({FOCUS})") == 1
    page.press("Enter")
    page.wait(f"{STATUS}.startsWith('branch 1.1 at token 3')")
    assert page.evaluate(f"{FOCUS} === {token(1, 2)}"), "the focus is where the branch begins"
    page.press("ArrowRight")
    assert page.evaluate(f"{FOCUS} === {token(1, 3)}")


def test_every_control_has_a_name(page: Browser) -> None:
    run(page, "sample", "3 continuations")
    hover(page, 0, 1)
    tree = page.do("Accessibility.getFullAXTree")["nodes"]
    roles = {"button", "textbox", "spinbutton", "combobox", "radio", "dialog", "group"}
    named = [node for node in tree if not node["ignored"] and node["role"]["value"] in roles]
    assert len(named) > 70
    unnamed = [
        node for node in named if not node.get("name", {}).get("value") and node["role"]["value"] != "group"
    ]
    assert not [node for node in unnamed if node["role"]["value"] != "button"]
    buttons = "[...document.querySelectorAll('form button, .card button')]"
    assert page.evaluate(f"{buttons}.every(button => button.textContent.trim())")
    assert page.evaluate("document.getElementById('status').getAttribute('aria-live')") == "polite"


def test_scores(page: Browser, direct: SamplingClient) -> None:
    fill(page, "prompt", "About\ta text.")
    run(page, "score", "scored")
    prompt = direct.get_tokenizer().encode("About\ta text.")
    scores = direct.compute_logprobs(ModelInput.from_ints(prompt)).result()
    classes = page.evaluate("[...document.querySelectorAll('.card .tl-t')].map(e => e.className)")
    assert classes == ["tl-t tl-none", *(f"tl-t tl-s{scale.level(score)}" for score in scores[1:])]
    assert texts(page)[0][5] == "⇥\t"
    mean = sum(scores[1:]) / len(scores[1:])
    said = page.evaluate("document.querySelector('.numbers').textContent")
    assert f"mean log-probability −{-mean:.3f}" in said
    hover(page, 0, 4)
    page.evaluate(f"{BOX}.querySelectorAll('.box-row')[0].click()")
    page.wait(f"{STATUS}.startsWith('branch')")
    assert asked(page)["prompt"][:4] == prompt[:4]
    assert len(asked(page)["prompt"]) == 5


def test_two_checkpoints(page: Browser, direct: SamplingClient, service: ServiceClient) -> None:
    click(page, "[name=task][value=compare]")
    fill(page, "prompt", "Compare this.")
    fill(page, "otherAdapter", CHECKPOINT)
    run(page, "compare", "compared")
    prompt = ModelInput.from_ints(direct.get_tokenizer().encode("Compare this."))
    a = direct.compute_logprobs(prompt).result()
    b = service.create_sampling_client(CHECKPOINT).compute_logprobs(prompt).result()
    changes = [scale.change(two - one) for one, two in zip(a[1:], b[1:], strict=True)]
    classes = page.evaluate(
        "[...document.querySelectorAll('.card:first-child .tl-t')].map(e => e.className)"
    )
    assert classes == ["tl-t tl-none", *(f"tl-t tl-c{change}" for change in changes)]
    assert len(set(changes)) > 1
    assert [name[:1] for name in names(page)] == ["B", "A", "B"]
    assert CHECKPOINT in names(page)[2]
    hover(page, 0, 3)
    page.evaluate(f"{BOX}.querySelectorAll('.box-sides > div')[1].querySelector('.box-row').click()")
    page.wait(f"{STATUS}.startsWith('branch')")
    assert asked(page)["model"].endswith(CHECKPOINT)


@pytest.mark.parametrize("prefers", ["light", "dark"])
def test_themes(page: Browser, prefers: str) -> None:
    page.prefer(prefers)
    ink = {"light": scale.LIGHT.ink, "dark": scale.DARK.ink}

    def seen() -> str:
        values = page.evaluate("getComputedStyle(document.body).color.match(/\\d+/g)")
        return "#" + "".join(f"{int(value):02x}" for value in values)

    assert seen() == ink[prefers]
    for theme in ("dark", "light"):
        click(page, f"[name=theme][value={theme}]")
        assert seen() == ink[theme]
        page.open(page.evaluate("location.href"))
        page.wait(f"document.querySelector('[name=theme][value={theme}]')?.checked")
        assert seen() == ink[theme], "as the page was left"


def test_the_python_that_is_copied(
    page: Browser, models_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(page, "adapter", CHECKPOINT)
    fill(page, "prompt", 'It\'s "quoted" \\ and\n☃ 🚂')
    run(page, "sample", "3 continuations")
    hover(page, 0, 4)
    page.evaluate(f"{BOX}.querySelectorAll('.box-row')[1].click()")
    page.wait(f"{STATUS}.startsWith('branch 1.1')")
    click(page, ".card:nth-child(2) .code")
    code = page.evaluate("document.querySelector('#code pre').textContent")
    click(page, "#close-code")
    monkeypatch.setenv("TINKER_LOCAL_MODELS_DIR", str(models_dir))
    for name, value in OPTIONS.items():
        monkeypatch.setenv(f"TINKER_LOCAL_{name.upper()}", str(value))
    found: dict[str, Any] = {}
    exec(compile(code, "copied.py", "exec"), found)
    assert found["tokens"] == asked(page)["prompt"]
    assert alike(texts(page)[1][5:], shown(found["client"], found["response"].sequences[0].tokens))
    found["service"].close()


def test_the_curl_that_is_copied_asks_what_the_page_asks(page: Browser) -> None:
    fill(page, "prompt", "It's so")
    run(page, "sample", "3 continuations")
    click(page, "#curl")
    code = page.wait("document.querySelector('#code pre').textContent")
    assert code.startswith("curl -N http://127.0.0.1:")
    body = json.loads(code.partition("-d '")[2].rstrip()[:-1].replace("'\\''", "'"))
    assert body | {"stream": True} == asked(page)
    click(page, "#close-code")


def test_a_chat(page: Browser, service: ServiceClient) -> None:
    """With the model's own template; the beginning of an answer is continued."""
    fill(page, "model", page.evaluate(f"{OPTION}.find(o => /Talks/.test(o.value)).value"))
    click(page, "[name=kind][value=chat]")
    talking = service.create_sampling_client(base_model="Me/Talks")
    messages = [{"role": "user", "content": "What is <b>red</b>?"}]
    for begun in ("", "A colour"):
        if begun:
            click(page, "#add-message")
            messages.append({"role": "assistant", "content": begun})
        for place, message in enumerate(messages):
            page.evaluate(
                f"(box => (box.querySelector('select').value = {message['role']!r}, "
                f"box.querySelector('textarea').value = {message['content']!r}))"
                f"(document.querySelectorAll('.message')[{place}])"
            )
        run(page, "sample", "3 continuations")
        how = {"add_generation_prompt": not begun, "continue_final_message": bool(begun)}
        prompt = talking.get_tokenizer().apply_chat_template(messages, **how)
        assert asked(page)["prompt"] == prompt
        expected = [shown(talking, tokens) for tokens in drawn(talking, prompt, 3)]
        assert all(map(alike, texts(page), expected))


def test_a_chat_without_a_template_is_refused(page: Browser) -> None:
    click(page, "[name=kind][value=chat]")
    assert page.evaluate("document.getElementById('prompt').offsetParent === null")
    click(page, "#go")
    page.wait("!document.getElementById('error').hidden")
    assert "chat template" in page.evaluate("document.getElementById('error').textContent")
    page.events.clear()  # the refusal is in the browser's log
    page.open(page.evaluate("location.href"))


# -- pictures ------------------------------------------------------------------------------------

THUMBNAILS = "[...document.querySelectorAll('form .thumbnail')].map(image => image.alt)"
ERROR = "(e => e.hidden ? '' : e.textContent)(document.getElementById('error'))"


@pytest.fixture
def seeing(service: ServiceClient) -> SamplingClient:
    return service.create_sampling_client(base_model="Me/qwen3vl")


@pytest.fixture
def pictures(page: Browser, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A directory with two pictures; the page has the model that reads them."""
    (tmp_path / "a cat's.png").write_bytes(picture(96, 64))
    (tmp_path / "dog.jpg").write_bytes(picture(64, 64, 1, "jpeg"))
    monkeypatch.chdir(tmp_path)
    fill(page, "model", page.evaluate(f"{OPTION}.find(o => /qwen3vl/.test(o.value)).value"))
    yield tmp_path
    page.evaluate("document.querySelectorAll('.pictures .remove').forEach(button => button.click())")


def sent_chunks(page: Browser) -> ModelInput:
    return ModelInput.model_validate({"chunks": asked(page)["prompt"]})


def merged(prompt: ModelInput) -> list[Any]:
    """A prompt as a flat list of ids and of images' bytes."""
    return [
        part
        for chunk in prompt.chunks
        for part in (chunk.tokens if isinstance(chunk, EncodedTextChunk) else [chunk.data])  # type: ignore[union-attr]
    ]


@needs_libmtmd
def test_a_picture_is_dropped(page: Browser, pictures: Path, seeing: SamplingClient) -> None:
    """On a prompt; the answers are the client's, a token is branched at, and the code has the picture."""
    page.drop("#prompt", pictures / "a cat's.png")
    assert page.wait(THUMBNAILS) == ["a cat's.png"]
    fill(page, "prompt", "is a cat")
    run(page, "sample", "3 continuations")
    cat = read_image(pictures / "a cat's.png")
    prompt = text_with_images(seeing.get_tokenizer(), "is a cat", [cat])
    assert merged(sent_chunks(page)) == merged(prompt)
    whole = drawn(seeing, prompt, 3)
    assert all(map(alike, texts(page), [shown(seeing, tokens) for tokens in whole]))

    hover(page, 0, 5)
    page.evaluate(f"{BOX}.querySelectorAll('.box-row')[1].click()")
    page.wait(f"{STATUS}.startsWith('branch 1.1 at token 6')")
    branch = sent_chunks(page)
    *before, chosen = merged(branch)
    assert before == [*merged(prompt), *whole[0][:5]]
    assert chosen != whole[0][5]
    after = drawn(seeing, branch, 1)[0]
    assert alike(texts(page)[1][6:], shown(seeing, after))


@needs_libmtmd
def test_a_picture_s_prompt_is_scored(page: Browser, pictures: Path, seeing: SamplingClient) -> None:
    """The picture stands among the tokens, has no alternatives, and a branch behind it keeps it."""
    page.choose("#plain [type=file]", pictures / "a cat's.png", pictures / "dog.jpg")
    page.wait(f"{THUMBNAILS}.length === 2")
    fill(page, "prompt", "are two")
    images = [read_image(pictures / name) for name in ("a cat's.png", "dog.jpg")]
    prompt = text_with_images(seeing.get_tokenizer(), "are two", images)
    run(page, "score", f"{len(text_tokens(prompt))} tokens scored")
    scores = [p for p in seeing.compute_logprobs(prompt).result() if p is not None]
    classes = page.evaluate(
        "[...document.querySelectorAll('.card .tl-t')].map(e => e.querySelector('img')?.alt ?? e.className)"
    )
    names = {images[0].data: "a cat's.png", images[1].data: "dog.jpg"}
    levels = iter(["tl-t tl-none", *(f"tl-t tl-s{scale.level(score)}" for score in scores)])
    assert classes == [names[p] if isinstance(p, bytes) else next(levels) for p in merged(prompt)]
    at = merged(prompt).index(images[1].data)
    page.evaluate(f"{token(0, at)}.click()")
    assert page.evaluate(f"{BOX}.hidden"), "a picture has no alternatives"
    hover(page, 0, at + 2)
    page.evaluate(f"{BOX}.querySelectorAll('.box-row')[0].click()")
    page.wait(f"{STATUS}.startsWith('branch')")
    assert merged(sent_chunks(page))[:-1] == merged(prompt)[: at + 2]
    click(page, ".card:nth-child(2) .code")
    code = page.evaluate("document.querySelector('#code pre').textContent")
    click(page, "#close-code")
    source = code.partition("prompt = ")[2].partition("\nparams")[0]
    assert merged(eval(source, {"tinker": tinker_local, "Path": Path})) == merged(sent_chunks(page))


@needs_libmtmd
def test_pictures_in_a_chat(page: Browser, pictures: Path, seeing: SamplingClient) -> None:
    """One is pasted, one dropped beside all messages, one taken out again."""
    click(page, "[name=kind][value=chat]")
    fill_message = (
        "(box => box.querySelector('textarea').value = {!r})(document.querySelectorAll('.message')[{}])"
    )
    page.evaluate(fill_message.format("Who?", 0))
    data = base64.b64encode((pictures / "a cat's.png").read_bytes()).decode()
    page.evaluate(
        "document.querySelector('.message textarea').focus(), "
        "(clip => (clip.items.add(new File([Uint8Array.from(atob("
        f"{data!r}), c => c.charCodeAt(0))], 'image.png', {{type: 'image/png'}})), "
        "document.activeElement.dispatchEvent(new ClipboardEvent('paste', "
        "{clipboardData: clip, bubbles: true, cancelable: true}))))(new DataTransfer()), 0"
    )
    page.wait(f"{THUMBNAILS}.length === 1")
    click(page, "#add-message")
    page.evaluate(fill_message.format("And?", 1))
    page.drop("#welcome", pictures / "dog.jpg", pictures / "a cat's.png")
    page.wait(f"{THUMBNAILS}.length === 3")
    click(page, ".message:nth-child(2) .pictures li:nth-child(2) .remove")
    assert page.evaluate(THUMBNAILS) == ["image.png", "dog.jpg"]
    run(page, "sample", "3 continuations")
    images = [read_image(pictures / name) for name in ("a cat's.png", "dog.jpg")]
    messages = [
        {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": text}]}
        for text in ("Who?", "And?")
    ]
    prompt = chat_with_images(seeing.get_tokenizer(), messages, images, add_generation_prompt=True)
    assert merged(sent_chunks(page)) == merged(prompt)
    expected = [shown(seeing, tokens) for tokens in drawn(seeing, prompt, 3)]
    assert all(map(alike, texts(page), expected))


@needs_libmtmd
def test_what_cannot_be_read_is_said_before_anything_is_sent(page: Browser, pictures: Path) -> None:
    fill(page, "model", page.evaluate(f"{OPTION}.find(o => /Tiny/.test(o.value)).value"))
    page.drop("#prompt", pictures / "dog.jpg")
    page.wait(f"{ERROR}.includes('Me/Tiny')")
    n_sent = len(page.said("Network.requestWillBeSent"))
    for task in ("sample", "score"):
        click(page, f"[name=task][value={task}]")
        click(page, "#go")
        assert "reads no images; choose another model, or remove the pictures" in page.evaluate(ERROR)
    sent = [event["request"]["url"] for event in page.said("Network.requestWillBeSent")][n_sent:]
    assert [url for url in sent if not url.endswith("/metrics")] == []
    fill(page, "model", page.evaluate(f"{OPTION}.find(o => /qwen3vl/.test(o.value)).value"))
    assert page.evaluate(ERROR) == ""
    for name, data, message in (
        ("notes.txt", b"text", "notes.txt is neither PNG nor JPEG"),
        ("broken.png", picture(96, 64)[:20], "broken.png is broken"),
        ("huge.png", picture(96, 64) + bytes(45_000_000), "at most 45,000,000 can be sent"),
    ):
        (pictures / name).write_bytes(data)
        page.drop("#prompt", pictures / name)
        page.wait(f"{ERROR}.includes({message!r})")
    assert page.evaluate(THUMBNAILS) == ["dog.jpg"]
    click(page, ".pictures .remove")
    assert page.evaluate(f"{FOCUS}.matches('#plain [type=file]')")
    (pictures / "half.png").write_bytes(picture(96, 64)[:400])  # which a browser shows
    page.drop("#prompt", pictures / "half.png")
    page.wait(f"{THUMBNAILS}.length === 1")
    click(page, "#go")
    assert "400 bytes cannot be read as png" in page.wait(ERROR)
    page.events.clear()  # the refusal is in the browser's log
    page.open(page.evaluate("location.href"))
