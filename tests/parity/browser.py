"""A headless Chromium, driven over its DevTools protocol through two pipes; nothing to install beside it.

The protocol is https://chromedevtools.github.io/devtools-protocol/; with ``--remote-debugging-pipe``
messages are JSON with a NUL after each, read from descriptor 3 and written to 4.
"""

from __future__ import annotations

import base64
import json
import os
import selectors
import shutil
import subprocess
import sys
import tempfile
import time
from collections import deque
from pathlib import Path
from types import TracebackType
from typing import Any

_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
_PATIENCE = 60.0  # seconds for an answer
_LAUNCH = """
import fcntl, os, sys
pipes = [fcntl.fcntl(int(number), fcntl.F_DUPFD_CLOEXEC, 10) for number in sys.argv[1:3]]
for wanted, pipe in zip((3, 4), pipes):
    os.dup2(pipe, wanted)
os.execvp(sys.argv[3], sys.argv[3:])
"""  # becomes the browser, with the pipes where it looks for them


def find_chromium() -> str | None:
    """Return the program, from ``CHROMIUM`` or the path; None if there is none."""
    named = os.environ.get("CHROMIUM")
    return named or next(filter(None, map(shutil.which, _NAMES)), None)


class BrowserError(Exception):
    """The browser ended, was silent for too long, or refused a command."""


class Browser:
    """One page in a headless browser with a profile of its own."""

    def __init__(self, program: str, width: int = 1200, height: int = 900) -> None:
        self._profile = tempfile.TemporaryDirectory(prefix="chromium-", ignore_cleanup_errors=True)
        self._pending, self.events, self._number = b"", deque[dict[str, Any]](), 0
        theirs_in, self._out = os.pipe()
        self._in, theirs_out = os.pipe()
        options = ["--headless=new", "--no-sandbox", "--remote-debugging-pipe", "--disable-gpu"]
        options += ["--no-first-run", "--disable-background-networking", "--hide-scrollbars"]
        options += [
            f"--user-data-dir={self._profile.name}",
            f"--window-size={width},{height}",
            "about:blank",
        ]
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-c", _LAUNCH, str(theirs_in), str(theirs_out), program, *options],
            pass_fds=(theirs_in, theirs_out),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(theirs_in)
        os.close(theirs_out)
        self._session: str | None = None
        target = next(t for t in self.do("Target.getTargets")["targetInfos"] if t["type"] == "page")[
            "targetId"
        ]
        self._session = self.do("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.do(f"{domain}.enable")
        self.resize(width, height)

    def do(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Send a command and return its result; events that come in between go to ``events``."""
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._out, json.dumps(message).encode() + b"\0")
        while (answer := self._read()).get("id") != self._number:
            self.events.append(answer)
        if "error" in answer:
            raise BrowserError(f"{method}: {answer['error']}")
        result: dict[str, Any] = answer["result"]
        return result

    def open(self, place: Path | str) -> float:
        """Go to a file or an address and wait until it has loaded; return how many seconds that took."""
        self.events.clear()
        began = time.perf_counter()
        self.do("Page.navigate", url=place if isinstance(place, str) else place.as_uri())
        while not any(event.get("method") == "Page.loadEventFired" for event in self.events):
            self.events.append(self._read())
        return time.perf_counter() - began

    def said(self, method: str) -> list[dict[str, Any]]:
        """Return the parameters of the events of a kind since the page was opened."""
        return [event["params"] for event in self.events if event.get("method") == method]

    def evaluate(self, expression: str) -> Any:
        """Return the value of a JavaScript expression in the page; a promise's when it has one."""
        answer = self.do("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in answer:
            raise BrowserError(f"{expression}: {answer['exceptionDetails']}")
        return answer["result"].get("value")

    def prefer(self, scheme: str) -> None:
        """Say which colour scheme the user prefers: "light" or "dark"."""
        self.do("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])

    def resize(self, width: int, height: int) -> None:
        """Give the page a size, in CSS pixels."""
        self.do(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=False,
        )

    def move_to(self, selector: str) -> None:
        """Have the mouse on the first line of an element that can be seen, scrolled into view."""
        self.evaluate(f"document.querySelector({selector!r}).scrollIntoView({{block: 'center'}})")
        box = self.evaluate(
            f"(r => [r.x + r.width / 2, r.y + r.height / 2])([...document.querySelector({selector!r})"
            ".getClientRects()].find(r => r.top > 60 && r.bottom < innerHeight && r.width > 0))"
        )
        self.do("Input.dispatchMouseEvent", type="mouseMoved", x=box[0], y=box[1])

    def drop(self, selector: str, *files: Path) -> None:
        """Drop files from elsewhere on an element."""
        self.move_to(selector)
        x, y = self.evaluate(
            f"(r => [r.x + r.width / 2, r.y + r.height / 2])"
            f"(document.querySelector({selector!r}).getBoundingClientRect())"
        )
        data = {"items": [], "files": [str(file) for file in files], "dragOperationsMask": 1}
        for kind in ("dragEnter", "dragOver", "drop"):
            self.do("Input.dispatchDragEvent", type=kind, x=x, y=y, data=data)

    def choose(self, selector: str, *files: Path) -> None:
        """Choose files in an input of the type file."""
        found = self.do("Runtime.evaluate", expression=f"document.querySelector({selector!r})")["result"]
        paths = [str(file) for file in files]
        self.do("DOM.setFileInputFiles", files=paths, objectId=found["objectId"])

    def press(self, key: str, *, control: bool = False) -> None:
        """Press a key that writes nothing, such as Tab; Enter acts as on a button."""
        codes = {"Tab": 9, "Enter": 13, "Escape": 27, "Space": 32, "ArrowUp": 38, "ArrowDown": 40}
        code = (codes | {"ArrowLeft": 37, "ArrowRight": 39})[key]
        more = {"text": "\r"} if key == "Enter" else {}
        for kind in ("keyDown" if more else "rawKeyDown", "keyUp"):
            self.do(
                "Input.dispatchKeyEvent",
                type=kind,
                key=key,
                code=key,
                windowsVirtualKeyCode=code,
                modifiers=2 * control,
                **(more if kind == "keyDown" else {}),
            )

    def write(self, text: str) -> None:
        """Write where the focus is."""
        self.do("Input.insertText", text=text)

    def wait(self, expression: str) -> Any:
        """Wait until an expression is true, and return its value.

        Raises:
            BrowserError: it stays false for a minute.
        """
        end = time.monotonic() + _PATIENCE
        while not (value := self.evaluate(expression)):
            if time.monotonic() > end:
                raise BrowserError(f"{expression} stays {value!r}")
            time.sleep(0.02)
        return value

    def screenshot(self, path: Path) -> None:
        """Write what is seen as a PNG."""
        path.write_bytes(base64.b64decode(self.do("Page.captureScreenshot", format="png")["data"]))

    def close(self) -> None:
        """End it."""
        self._process.kill()
        self._process.wait()
        os.close(self._in)
        os.close(self._out)
        self._profile.cleanup()

    def __enter__(self) -> Browser:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _read(self) -> dict[str, Any]:
        with selectors.DefaultSelector() as selector:
            selector.register(self._in, selectors.EVENT_READ)
            while b"\0" not in self._pending:
                if not selector.select(_PATIENCE):
                    raise BrowserError(f"no answer for {_PATIENCE:.0f} s")
                if not (data := os.read(self._in, 1 << 20)):
                    raise BrowserError("the browser ended")
                self._pending += data
        message, _, self._pending = self._pending.partition(b"\0")
        answer: dict[str, Any] = json.loads(message)
        return answer
