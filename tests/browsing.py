"""What the browser tests share: Debian's Chromium through Playwright, a watched page, the texts.

A console error, or a request that would leave the machine, is noted, and fails the test that asks for it.
"""

from __future__ import annotations

import shutil
from urllib.parse import urlsplit

import pytest

playwright = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed (extra `test`)")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
IN_A_BROWSER = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here; on Debian: apt-get install chromium"),
]
SWITCHES = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--force-prefers-reduced-motion",
]  # fmt: skip
TEXT = "Once upon a time there was a king who would not sleep. Había una vez un rey que no dormía. "
MAPS = {"experts": ".gl-experts-map canvas.gl-heat", "attention": ".gl-attention-map"}
BACK = {"experts": ["ArrowLeft", "ArrowLeft"], "attention": ["ArrowUp", "ArrowUp"]}  # two tokens back
PICTURE = "canvas => canvas.toDataURL()"


class Watched:
    """A browser page and what went wrong in it: console errors, exceptions, requests to other machines."""

    def __init__(self, page) -> None:  # type: ignore[no-untyped-def]
        self.page, self.wrong = page, list[str]()
        page.on("console", lambda m: self.wrong.append(f"console: {m.text}") if m.type == "error" else None)
        page.on("pageerror", lambda error: self.wrong.append(f"exception: {error}"))
        page.on("request", self.requested)

    def requested(self, request) -> None:  # type: ignore[no-untyped-def]
        """A request may go to this machine alone."""
        address = urlsplit(request.url)
        if address.scheme not in ("file", "data", "blob") and address.hostname not in (
            "127.0.0.1",
            "localhost",
        ):
            self.wrong.append(f"request: {request.url}")

    def open(self, view: str) -> None:
        """Go to a view's tab with arrow keys alone."""
        self.page.locator(".gl-tab[aria-selected=true]").focus()
        self.page.keyboard.press("Home")
        for _ in range(10):
            if self.page.locator(".gl-root").first.get_attribute("data-view") == view:
                break
            self.page.keyboard.press("ArrowRight")
        self.page.wait_for_selector(f".gl-root[data-view={view}]")

    def changes(self, selector: str, *keys: str) -> bool:
        """Whether pressing these keys with `selector` in focus changes its picture."""
        canvas = self.page.locator(selector).first
        canvas.focus()
        self.page.wait_for_timeout(60)
        before = canvas.evaluate(PICTURE)
        for key in keys:
            self.page.keyboard.press(key)
        for _ in range(30):  # two seconds on a busy machine
            self.page.wait_for_timeout(70)
            if canvas.evaluate(PICTURE) != before:
                return True
        return False
