"""The four views in a real browser: laid out by their container's width, and saying the trace's numbers.

Widths are set on the page's main element while the window stays wide, as where two views stand side by side.
Skipped, with the reason, where Chromium or Playwright is absent.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from browsing import IN_A_BROWSER

import gptoss_lab as lab
from gptoss_lab import views

pytestmark = IN_A_BROWSER
VIEWS = ("experts", "attention", "positions", "steps")
TEXT = "Once upon a time there was a king. Había una vez un rey. def king(n): return n + 1\n12 + 7 = 19. "
BEYOND = """() => {
    const edge = document.querySelector(".gl-panel").getBoundingClientRect().right + 1;
    const scrolls = (e) => e.closest(".gl-attention-groups, .gl-strip, .gl-hidden");
    const cut = (e) => e.scrollWidth > e.clientWidth + 1 && getComputedStyle(e).overflowX === "hidden";
    return [...document.querySelectorAll(".gl-panel *")]
        .filter((e) => e.getBoundingClientRect().width && !scrolls(e))
        .filter((e) => e.getBoundingClientRect().right > edge || cut(e))
        .map((e) => `${e.tagName} ${e.getAttribute("class")} ${e.textContent.slice(0, 40)}`);
}"""


@pytest.fixture(scope="module")
def told(mini_oss):  # type: ignore[no-untyped-def]
    """mini-oss and what it shows of a text of 96 tokens."""
    return mini_oss, lab.watch(mini_oss, mini_oss.tokenizer.encode_ordinary(TEXT * 4)[:96])


@pytest.fixture(scope="module")
def page(browser, told, tmp_path_factory) -> Iterator:  # type: ignore[no-untyped-def, type-arg]
    model, trace = told
    file = views.export_html(trace, tmp_path_factory.mktemp("page") / "page.html", model=model)
    page = browser.new_page(viewport={"width": 1600, "height": 900})
    page.goto(file.as_uri())
    page.wait_for_selector("[role=tab]")
    yield page
    page.close()


def show(page, view: str, **selection: int) -> None:  # type: ignore[no-untyped-def]
    """Open a view and choose; waits for the drawing."""
    page.click(f".gl-tab[data-view={view}]")
    page.evaluate(f"gptossLab.store.set({selection})")
    page.wait_for_timeout(150)


@pytest.mark.parametrize("width", [1600, 760, 640])
def test_no_view_juts_out_of_its_container_or_cuts_its_words(page, width):
    page.evaluate(f"document.querySelector('main').style.width = '{width}px'")
    for view in VIEWS:
        for step in (0, 7, 8) if view == "steps" else (7,):
            show(page, view, token=40, layer=3, head=5, expert=1, step=step)
            assert page.evaluate(BEYOND) == [], (view, step)
        assert page.evaluate("document.documentElement.scrollWidth") <= 1600


def test_two_halves_of_attention_stand_side_by_side_down_to_640(page):
    for width in (1600, 760, 640):
        page.evaluate(f"document.querySelector('main').style.width = '{width}px'")
        show(page, "attention", token=40)
        left, right = (page.locator(".gl-attention-map").nth(n).bounding_box() for n in (0, 1))
        assert abs(left["y"] - right["y"]) < 1 and right["x"] > left["x"] + left["width"], width


@pytest.mark.parametrize("token, layer, head", [(40, 3, 3), (71, 0, 5), (90, 4, 1)])
def test_positions_and_steps_say_what_the_trace_holds(page, told, token, layer, head):
    model, trace = told
    key = token - 9
    show(page, "positions", token=token, layer=layer, head=head, key=key)
    score = float(trace[f"blocks.{layer}.attention.scores"][0, head, token, key])
    words = page.locator(".gl-pos-found").inner_text()
    assert f"score {'+' if score > 0 else '−'}{abs(score):.2f}" in words and "9 tokens apart" in words
    show(page, "steps", step=2 * layer + 2, layer=layer)
    before, after = (trace[f"blocks.{layer}.{name}"][0, token] for name in ("residual_mid", "residual"))
    cosine = float(torch.cosine_similarity(before, after, dim=0))
    best = int(model.read_out(after[None, None])[0, 0].argmax())
    words = page.locator(".gl-steps-found").inner_text()
    assert f"cosine {cosine:.3f}" in words
    assert f"“{lab.text.labels([best], model.tokenizer)[0]}”" in words


def test_a_page_warns_of_what_is_no_number(browser, told, tmp_path, page):
    model, _ = told
    trace = lab.watch(model, TEXT, keep=views.keep_for(model.config))
    trace["blocks.4.residual"][0, 5, 7] = float("inf")
    odd = browser.new_page()
    odd.goto(views.export_html(trace, tmp_path / "page.html", model=model, views="steps").as_uri())
    warned = odd.locator("p[role=alert]").inner_text()
    assert warned == "NaN or +∞ in residual of layers 4: shown as −∞, or as what may not be seen."
    odd.close()
    assert page.locator("p[role=alert]").is_hidden()
