"""The pictures of docs/explorer.md and the moving one that opens the README, made anew: `make pictures`.

Every view over the guided tour's text on mini-oss, light and dark, in Debian's Chromium through Playwright.
Stills are PNG of 256 colours or fewer, the moving picture is an animated WebP; the model really runs in it.
"""

from __future__ import annotations

import io
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

import matplotlib
from live_page import open_live
from PIL import Image, ImageDraw, ImageFont
from playwright.sync_api import Page, sync_playwright

import gptoss_lab as lab
from gptoss_lab.views.tour import PARTS, TEXT

PICTURES = Path(__file__).parent.parent / "docs" / "pictures"
SWITCHES = ["--no-sandbox", "--disable-gpu", "--force-prefers-reduced-motion", "--hide-scrollbars"]
WIDE, HIGH = 1440, 900
FILM = (1120, 840)  # the page in the moving picture
SHOWN = (960, 720)  # and how large it is shown
FORBIDDEN = 5  # the expert that the second run goes without
FONT = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"

# view → (height in pixels, the selection that is shown)
STILLS: dict[str, tuple[int, dict[str, Any]]] = {
    "experts": (920, {"layer": 3, "expert": 2, "token": 56}),
    "attention": (1040, {"layer": 2, "head": 0, "token": 73}),
    "positions": (1000, {"layer": 4, "head": 5, "token": 73, "key": 66}),
    "steps": (1040, {"layer": 4, "head": 5, "token": 73, "step": 7}),
    "compare": (1130, {"layer": 2, "expert": 5, "token": 59}),
}




def stills(page: Page, theme: str) -> None:
    """Every view, in a theme."""
    for view, (high, selection) in STILLS.items():
        page.set_viewport_size({"width": WIDE, "height": high})
        page.evaluate("changes => gptossLab.store.set(changes)", selection)
        page.locator(f".gl-tab[data-view={view}]").click()
        page.mouse.move(0, 0)
        page.wait_for_timeout(600)
        save_still(page.screenshot(), f"explorer_{view}_{theme}.png")


def tour_still(page: Page, theme: str) -> None:
    """The tour's first question, answered."""
    page.set_viewport_size({"width": WIDE, "height": HIGH})
    page.locator(".gl-tour-open").click()
    for field, value in zip(page.locator(".gl-tour-fields select").all(), ("5", "7")):
        field.select_option(value)
    page.locator(".gl-tour-show").click()
    page.wait_for_timeout(600)
    save_still(page.screenshot(), f"explorer_tour_{theme}.png")
    page.locator(".gl-tour").press("Escape")


def save_still(png: bytes, name: str) -> None:
    """Write a screenshot with as many colours as it needs, 256 at most."""
    picture = Image.open(io.BytesIO(png)).convert("RGB")
    small = picture.quantize(256, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
    small.save(PICTURES / name, optimize=True)
    print(f"{name}: {(PICTURES / name).stat().st_size / 1000:.0f} kB")


class Film:
    """Frames of a page, each with its time in milliseconds and a line of words below."""

    def __init__(self, page: Page) -> None:
        self.page, self.frames, self.times, self.words = page, list[Image.Image](), list[int](), ""
        self.font = ImageFont.truetype(str(FONT), 21)

    def frame(self, time: int) -> None:
        """The page as it is now, shown for `time` milliseconds."""
        self.page.wait_for_timeout(140)
        shot = Image.open(io.BytesIO(self.page.screenshot())).convert("RGB")
        small = shot.resize(SHOWN, Image.Resampling.LANCZOS)
        whole = Image.new("RGB", (small.width, small.height + 44), "#1d2128")
        whole.paste(small)
        ImageDraw.Draw(whole).text((16, small.height + 22), self.words, "#ffffff", self.font, anchor="lm")
        self.frames.append(whole)
        self.times.append(time)

    def click(self, selector: str, time: int, nth: int = 0) -> None:
        """Click, and show what came of it."""
        self.page.locator(selector).nth(nth).click()
        self.frame(time)

    def press(self, keys: str, time: int) -> None:
        """Press keys one after another, a frame each."""
        for key in keys.split():
            self.page.keyboard.press(key)
            self.frame(time)

    def save(self, name: str) -> None:
        """Write the frames as one animated WebP."""
        first, *others = self.frames
        first.save(PICTURES / name, save_all=True, append_images=others, duration=self.times, loop=0,
                   quality=62, method=6, kmax=1000)  # kmax: differences alone, no frame anew  # fmt: skip
        size = (PICTURES / name).stat().st_size / 1e6
        print(f"{name}: {len(self.frames)} frames, {sum(self.times) / 1000:.1f} s, {size:.2f} MB")


def film(page: Page, model: lab.Transformer) -> None:
    """A prompt, the experts, the attention, the rotation, the walk, a change, the tour."""
    open_live(page, model, "Once upon a time")
    play = Film(page)

    play.words = "Type a text, Enter: the model runs"
    box = page.locator(".gl-prompt textarea")
    box.fill("")
    for end in range(0, len(TEXT), 30):
        box.fill(TEXT[: end + 30])
        play.frame(60)
    box.press("Enter")
    page.locator(".gl-word", has_text="tokens in").wait_for(timeout=60_000)
    page.evaluate("document.querySelector('.gl-word').textContent = ''")  # times are not the same twice
    box.evaluate("node => { node.blur(); node.scrollTop = 0; }")
    play.frame(800)

    play.words = "Experts: which of eight answer for each token, layer by layer"
    token = len(model.tokenizer.encode_ordinary(PARTS["English"])) + 12
    page.locator(".gl-strip .gl-token").nth(token).click()
    page.locator(".gl-experts-map canvas").first.focus()
    play.press("] ] ] ] ] [ [ [", 260)
    page.locator(".gl-bar select").nth(2).select_option("5")
    page.locator(".gl-experts-map canvas").first.focus()
    play.press("ArrowRight " * 8, 120)

    play.words = "Attention: a layer with a window of 32 beside a dense one; click a token"
    page.locator(".gl-tab[data-view=attention]").click()
    page.locator(".gl-bar").evaluate("node => node.scrollIntoView()")
    play.frame(700)
    for nth in (43, 56, 60, 73):
        play.click(".gl-attention-side >> nth=1 >> .gl-token:not(.gl-sink)", 480, nth)
    for nth, value in enumerate(("4", "5")):
        page.locator(".gl-bar select").nth(nth).select_option(value)
    play.frame(600)

    play.words = "Positions: each pair of channels turns like a hand; the score over distance"
    play.click(".gl-tab[data-view=positions]", 500)
    dial = page.locator(".gl-pos-end").nth(1).locator("input[type=range]")
    dial.focus()
    play.press("ArrowLeft " * 14, 90)

    play.words = "Steps: half a block at a time, with the likeliest next tokens so far"
    page.locator(".gl-bar select").first.select_option("0")
    play.click(".gl-tab[data-view=steps]", 400)
    page.locator(".gl-tabs").evaluate("node => node.scrollIntoView()")
    for _ in range(8):
        play.click(".gl-steps-nav button", 230, 1)
    page.evaluate("scrollTo(0, 0)")

    play.words = "Edit and compare: forbid an expert; the same text before and after"
    page.locator(".gl-bar select").nth(2).select_option("5")
    play.click(".gl-tab[data-view=compare]", 500)
    page.get_by_role("button", name="forbid 5", exact=True).click()
    page.locator(".gl-compare-status", has_text=" s)").wait_for(timeout=60_000)
    page.locator(".gl-compare-status").evaluate("node => node.textContent = node.textContent.split(' (')[0]")
    play.frame(1400)
    page.locator(".gl-compare-views").evaluate("node => node.scrollIntoView()")
    play.frame(1200)
    page.evaluate("scrollTo(0, 0)")

    play.words = "The guided tour: predict first, then see, with the baseline"
    play.click(".gl-tour-open", 500)
    for nth, value in enumerate(("3", "2")):
        page.locator(".gl-tour-fields select").nth(nth).select_option(value)
        play.frame(300)
    play.click(".gl-tour-show", 1900)
    play.save("explorer.webp")


def main() -> int:
    """Make all of them."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        print("make pictures: no Chromium here; on Debian: apt-get install chromium", file=sys.stderr)
        return 2
    PICTURES.mkdir(parents=True, exist_ok=True)
    model = lab.load("mini-oss")
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as running:
        found = lab.views.compared(model, TEXT, lab.Change(forbid=[FORBIDDEN]))
        file = lab.export_html(found, Path(folder, "page.html"))
        opened = running.chromium.launch(executable_path=chromium, args=SWITCHES)
        for theme in ("light", "dark"):
            page = opened.new_page(color_scheme=theme)
            page.goto(file.as_uri())
            page.wait_for_selector("[role=tab]")
            stills(page, theme)
            tour_still(page, theme)
            page.close()
        film(opened.new_page(viewport={"width": FILM[0], "height": FILM[1]}), model)
        opened.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
