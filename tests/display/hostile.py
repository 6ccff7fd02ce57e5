"""Hostile tokens, and a scored text made of them."""

from __future__ import annotations

from tinker_local.display import ScoredText
from tinker_local.display.visible import text_of_bytes

TOKENS = [
    b"Hello",
    b"<script>",
    b"document.title='owned'",
    b"</script>",
    b"</style><script>document.title='owned'</script>",
    b"</title>",
    b"<!--",
    b"-->",
    b"]]>",
    b'"><img src=x onerror="document.title=1">',
    b"' onmouseover='document.title=1' x='",
    b"&lt;b&gt;&amp;&#0;",
    b"\x00",
    b"\x1b[31m\x1b]0;owned\x07",
    b"\r\n",
    b"\n\n\t",
    b" ",
    b"        ",
    "\u202eevil\u202c".encode(),
    "\u2066\u200f\u061c".encode(),
    "\u200b\u00ad\ufeff\u2028\u2029\u00a0\u3164".encode(),
    "\U000e0041\U000e0042".encode(),
    "\u0301\u0301x".encode(),
    " שלום".encode(),
    b"\xf0\x9f",
    b"\x98",
    b"\x80",
    b"\xff\xfe",
    b"\xed\xa0\x80",
    "☃ 中文 😀".encode(),
    b"a" * 3000,
    b"",
]

ALTERNATIVES = 3


def hostile_text(
    name: str = "a <b>model</b> \u202e\x1b[1m", repeat: int = 1, shift: float = 0.0
) -> ScoredText:
    """Return them scored, with all levels of surprise and others of them as alternatives."""
    n = len(TOKENS) * repeat
    tokens = [i % len(TOKENS) for i in range(n)]
    logprobs = [None, *(-0.9 * (i % 12) - 0.05 + shift * (i % 7 - 3) for i in range(1, n))]
    topk = [None, *([((i + j) % len(TOKENS), -0.5 - j) for j in range(ALTERNATIVES)] for i in range(1, n))]
    return ScoredText.of(name, tokens, logprobs, topk, lambda token: text_of_bytes(TOKENS[token]))
