"""The explorer as a page: one HTML file with its script, its style and the numbers; no network, no server.

The page forbids itself every request (Content-Security-Policy: default-src 'none'), and its script is named
by its hash. Text from prompts lies in a JSON block in which `<`, `>` and `&` are escaped, so that no prompt
can end the block.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
import os
import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from ..cost import require_limit
from ..files import whole
from ..model import Transformer
from ..study.compare import Comparison
from ..trace import Trace
from . import payload
from .beside import Packed, as_pair, packer_beside

STATIC = Path(__file__).parent / "static"
FROM = re.compile(r"^(?:import|export)\s+(?:[\w*{][^;\"']*\s+from\s+)?[\"'][^\"']+[\"'];\n", re.MULTILINE)
FIRST, LAST = ("core.js", "heatmap.js"), ("explorer.js",)
SPARE = 1_000  # bytes more than the excess that are left out: a header may grow while its block shrinks

PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy"
 content="default-src 'none'; script-src 'sha256-{hash}'; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="referrer" content="no-referrer">
<title>{title}</title>
<style>
html {{ background: #ffffff; }}
html[data-theme="dark"] {{ background: #15181d; }}
body {{ margin: 0 auto; max-width: 1720px; }}
{style}
</style>
</head>
<body>
<main id="gptoss-lab"><pre>{summary}

This page draws itself with JavaScript, which is switched off here.</pre></main>
<script type="application/json" id="gptoss-lab-header">{header}</script>
<script type="application/octet-stream" id="gptoss-lab-block">{block}</script>{beside}
<script type="module">{script}</script>
</body>
</html>
"""
BESIDE = """
<script type="application/json" id="gptoss-lab-beside-header">{header}</script>
<script type="application/octet-stream" id="gptoss-lab-beside-block">{block}</script>"""


@cache
def script() -> str:
    """The renderer as one ES module: the files one after another, without their imports and exports.

    This is all the building there is: names are unique across files, so what one exports is simply there for
    the next. `export default`, which the widget asks for, stays.
    """
    names = [*FIRST, *sorted(p.name for p in STATIC.glob("*.js") if p.name not in FIRST + LAST), *LAST]
    return "\n".join(joined((STATIC / name).read_text("utf-8")) for name in names)


def joined(source: str) -> str:
    """One file of the renderer as a part of the whole."""
    return re.sub(r"^export (?!default\b)", "", FROM.sub("", source), flags=re.MULTILINE)


@cache
def style() -> str:
    """The style sheet."""
    return (STATIC / "style.css").read_text("utf-8")


def escaped(value: Any) -> str:
    """JSON that may stand in a <script> block: nothing in it can be taken for a tag or a comment."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for char in "<>&\u2028\u2029":
        text = text.replace(char, f"\\u{ord(char):04x}")
    return text.encode("utf-8", "surrogatepass").decode("utf-8", "replace")


def page(header: dict[str, Any], block: bytes, beside: Packed | None = None) -> str:
    """The page's source, from what `payload.pack` made; beside: the second run of a comparison."""
    module = f"\n{script()}\nmountPage();\n"
    text = header.get("prompt") or "".join(header["text"])
    return PAGE.format(
        hash=base64.b64encode(hashlib.sha256(module.encode("utf-8")).digest()).decode(),
        title=html.escape(f"{header['config']['name']}: {text[:60]}"),
        style=style(),
        summary=html.escape(header["summary"]),
        header=escaped(header),
        block=base64.b64encode(block).decode(),
        beside="" if beside is None else BESIDE.format(
            header=escaped(beside[0]), block=base64.b64encode(beside[1]).decode()
        ),
        script=module,
    )


def write(path: str | os.PathLike[str], source: str) -> Path:
    """Write the page whole. ValueError where the folder is missing."""
    with whole(path) as beside:
        beside.write_text(source, encoding="utf-8")
    return Path(path)


def export_html(
    shown: Trace | Comparison,
    path: str | os.PathLike[str],
    model: Transformer | None = None,
    views: str | Sequence[str] | None = None,
    limit: int | float = 5_000_000,
) -> Path:
    """Write the explorer over a trace, or a comparison, as one page of at most `limit` bytes; the path.

    model: the one that made the trace, for what is read out early in Steps; without it the rest is there (a
    comparison knows its models). views: one name or several, by default all. Points that would not fit are
    left out, the largest first and patterns last, and the page says which. ValueError where the trace can
    fill no view, or not one that was asked for, where another model made it, or where `limit` is too small
    for a page without any.
    """
    return write(path, made(shown, model, views, limit)[0])


def made(
    shown: Trace | Comparison, model: Transformer | None, views: str | Sequence[str] | None, limit: float
) -> tuple[str, list[str]]:
    """The source of the page that `export_html` writes, and what was left out of it, in words.

    What the headers take is known when they are made: a page that is too large is packed again, with less
    room for numbers, until it fits.
    """
    trace, found = as_pair(shown)
    model = found.model if found is not None else model
    most = min(require_limit(limit, "limit"), 2**40)
    frame = len(script().encode()) + len(style().encode()) + 40_000 + 80 * trace.tokens.shape[1]
    packers = [payload.packer(trace, model, views)] + ([] if found is None else [packer_beside(found)])
    room = int((most - frame) * 3 / 4) // len(packers)
    while True:
        runs = [pack(room) for pack in packers]
        source = page(*runs[0], *runs[1:])
        size = len(source.encode())
        if size <= most:
            return source, list(dict.fromkeys(left for header, _ in runs for left in header["left_out"]))
        taken = max(len(block) for _, block in runs)
        if not taken:
            raise ValueError(f"the page takes {size} bytes even without any points; raise limit={limit}")
        room = max(taken - int((size - most) * 3 / 4) - SPARE, 0)
