"""Style sheets. Class names begin with ``tl-``, rules with ``.tinker-look``: a notebook has other styles.

A token's details are its attribute ``data-look``. CSS shows them on hover and focus, without a script: at
the token if the browser has CSS Anchor Positioning, else at the left edge of the text.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from tinker_local.display.scale import DARK, LIGHT, Theme, change_colours, surprise_colours

_SANS = 'system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", "Liberation Sans", sans-serif'
_MONO = 'ui-monospace, "SF Mono", Menlo, Consolas, "DejaVu Sans Mono", "Liberation Mono", monospace'

_SCOPED = f"""
.tinker-look {{
  color-scheme: light dark;
  --paper: light-dark({LIGHT.paper}, {DARK.paper}); --ink: light-dark({LIGHT.ink}, {DARK.ink});
  --card: light-dark(#ffffff, #212327); --line: light-dark(#e7e4db, #34363c);
  --quiet: light-dark(#5d6068, #a3a49f); --focus: light-dark(#1f5a96, #93cbf8);
  background: var(--paper); color: var(--ink); font: 15px/1.6 {_SANS}; text-align: left;
}}
body[data-jp-theme-light="true"] .tinker-look, body.vscode-light .tinker-look,
html[theme="light"] .tinker-look {{ color-scheme: light; }}
body[data-jp-theme-light="false"] .tinker-look, body.vscode-dark .tinker-look,
html[theme="dark"] .tinker-look {{ color-scheme: dark; }}
.tinker-look .tl-text {{
  position: relative; margin: 0; font-size: 16px; line-height: 1.9; white-space: pre-wrap;
  overflow-wrap: anywhere; tab-size: 4;
}}
.tinker-look .tl-ids {{ word-spacing: .3em; font-family: {_MONO}; font-size: 13px; }}
.tinker-look .tl-t {{
  scroll-margin: 64px; unicode-bidi: isolate; border-radius: .22em; padding: .16em 0;
  box-shadow: inset -1px 0 0 var(--paper);
  -webkit-box-decoration-break: clone; box-decoration-break: clone;
  outline: 2px solid transparent; outline-offset: 1px;
  forced-color-adjust: none; print-color-adjust: exact; cursor: default;
}}
.tinker-look .tl-none {{ color: var(--quiet); }}
.tinker-look .tl-m {{ font-family: {_MONO}; font-size: .8em; font-style: normal; }}
.tinker-look .tl-s0 .tl-m, .tinker-look .tl-c0 .tl-m {{ color: var(--quiet); }}
.tinker-look .tl-t:hover, .tinker-look .tl-t:focus, .tinker-look .tl-t:target {{
  outline-color: var(--focus);
}}
.tinker-look .tl-t[data-look]:hover::after,
.tinker-look .tl-text:not(:hover) .tl-t[data-look]:focus::after {{
  content: attr(data-look); position: absolute; left: 0; z-index: 9; margin-top: 2.2em; padding: 10px 14px;
  white-space: pre; font: 12.5px/1.55 {_MONO}; font-variant-ligatures: none; text-align: left;
  direction: ltr; unicode-bidi: isolate; background: var(--card); color: var(--ink);
  border: 1px solid var(--line); border-radius: 10px; pointer-events: none;
  box-shadow: 0 8px 28px light-dark(#0000001f, #000000a0); max-width: calc(100vw - 16px); overflow: hidden;
}}
@supports (position-anchor: auto) and (position-area: bottom span-right) {{
  .tinker-look .tl-t[data-look]:hover::after,
  .tinker-look .tl-text:not(:hover) .tl-t[data-look]:focus::after {{
    position: fixed; position-anchor: auto; position-area: bottom span-right; left: auto; margin: 8px 0;
    position-try-fallbacks: flip-inline, flip-block, flip-block flip-inline;
  }}
}}
.tinker-look .tl-legend {{
  display: flex; flex-wrap: wrap; gap: 4px 0; align-items: center; margin: 0; padding: 0; list-style: none;
  font-size: 12px; font-variant-numeric: tabular-nums;
}}
.tinker-look .tl-legend li {{
  margin: 0; padding: 1px 9px; forced-color-adjust: none; print-color-adjust: exact;
}}
.tinker-look .tl-legend .tl-said {{ color: var(--quiet); padding-left: 0; }}
.tinker-look .tl-quiet {{ color: var(--quiet); }}
"""

_NOTEBOOK = """
div.tinker-look { padding: 12px 16px; border: 1px solid var(--line); border-radius: 10px; }
.tinker-look .tl-caption {
  margin: 14px 0 2px; font-size: 12px; color: var(--quiet); font-variant-numeric: tabular-nums;
}
"""

_PAGE = f"""
html.tinker-look:has(#tl-light:checked) {{ color-scheme: light; }}
html.tinker-look:has(#tl-dark:checked) {{ color-scheme: dark; }}
html.tinker-look:has(#tl-mono:checked) .tl-text {{ font-family: {_MONO}; font-size: 14px; }}
body {{ margin: 0 auto; padding: 40px 32px 96px; max-width: 1080px; }}
header {{ margin-bottom: 26px; display: flex; flex-wrap: wrap; gap: 12px 32px; align-items: flex-start; }}
h1 {{
  flex: 1 1 20em; margin: 0; font-size: 22px; line-height: 1.3; font-weight: 620; overflow-wrap: anywhere;
}}
h1 small {{ display: block; font-size: 13px; font-weight: 400; color: var(--quiet); }}
h2 {{ margin: 44px 0 12px; font-size: 14px; font-weight: 620; overflow-wrap: anywhere; }}
h2 span {{ font-weight: 400; color: var(--quiet); }}
fieldset {{ display: flex; gap: 2px; margin: 0; padding: 0; border: 0; font-size: 12.5px; }}
legend {{ float: left; padding: 3px 8px 0 0; color: var(--quiet); }}
label {{ display: block; padding: 3px 10px; border-radius: 7px; cursor: pointer; }}
label:has(:checked) {{ background: var(--line); }}
label:has(:focus-visible) {{ outline: 2px solid var(--focus); }}
label input {{ position: absolute; opacity: 0; }}
.tl-totals {{ display: flex; flex-wrap: wrap; gap: 12px 44px; margin: 0 0 26px; }}
.tl-totals dt {{ font-size: 12px; color: var(--quiet); }}
.tl-totals dd {{ margin: 0; font-size: 21px; font-variant-numeric: tabular-nums; }}
.tl-bar {{
  position: sticky; top: 0; z-index: 5; margin: 0 0 14px; padding: 10px 0; background: var(--paper);
  border-bottom: 1px solid var(--line);
}}
.tl-beside {{ display: grid; grid-template-columns: 1fr 1fr; gap: 0 40px; }}
.tl-scroll {{ overflow-x: auto; }}
table {{ border-collapse: collapse; font-size: 13px; font-variant-numeric: tabular-nums; }}
th {{ font-weight: 400; color: var(--quiet); text-align: left; }}
th, td {{ padding: 5px 22px 5px 0; border-bottom: 1px solid var(--line); vertical-align: baseline; }}
td.tl-number, th.tl-number {{ text-align: right; white-space: nowrap; }}
td bdi, td a {{ font-family: {_MONO}; font-size: 12.5px; }}
td bdi {{ white-space: pre-wrap; overflow-wrap: anywhere; }}
td a, td .tl-quiet {{ white-space: nowrap; }}
.tinker-look td .tl-t {{ padding: .16em .3em; }}
a {{ color: inherit; text-decoration-color: var(--quiet); text-underline-offset: 3px; }}
a:focus-visible {{ outline: 2px solid var(--focus); }}
.tl-skip {{ position: absolute; left: -999em; }}
.tl-skip:focus {{ left: 16px; top: 8px; }}
footer {{ margin-top: 56px; font-size: 12px; color: var(--quiet); max-width: 46em; }}
@media (max-width: 760px) {{
  body {{ padding: 24px 16px 64px; }}
  .tl-beside {{ grid-template-columns: 1fr; }}
  .tl-bar {{ position: static; }}
}}
@media print {{ fieldset, .tl-skip {{ display: none; }} .tl-bar {{ position: static; }} }}
"""


def notebook_style() -> str:
    """Return the style sheet of a response in a notebook."""
    return _SCOPED + "".join(_scales()) + _NOTEBOOK


def page_style() -> str:
    """Return the style sheet of a page."""
    return _SCOPED + "".join(_scales()) + _PAGE


def _scales() -> Iterator[str]:
    for level in range(1, 8):
        yield _rule(f"tl-s{level}", lambda theme, level=level: surprise_colours(theme, level))  # type: ignore[misc]
    for change in (*range(-4, 0), *range(1, 5)):
        yield _rule(f"tl-c{change}", lambda theme, change=change: change_colours(theme, change))  # type: ignore[misc]


def _rule(name: str, colours: Callable[[Theme], tuple[str, str] | None]) -> str:
    (light, ink_on_light), (dark, ink_on_dark) = colours(LIGHT) or ("", ""), colours(DARK) or ("", "")
    return (
        f".tinker-look .{name} {{ background: light-dark({light}, {dark}); "
        f"color: light-dark({ink_on_light}, {ink_on_dark}); }}\n"
    )


__all__ = ["notebook_style", "page_style"]
