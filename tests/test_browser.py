"""The explorer's page in a real browser, opened from a file.

Everything is driven by keyboard; what a canvas shows is compared before and after; a console error, or a
request that would leave the machine, fails. Skipped, with the reason, where Chromium or Playwright is absent.
"""

from __future__ import annotations

import json
import os
import statistics
from collections.abc import Iterator
from pathlib import Path

import pytest
from browsing import BACK, IN_A_BROWSER, MAPS, PICTURE, TEXT, Watched

import gptoss_lab as lab
from gptoss_lab import views

pytestmark = IN_A_BROWSER
HOSTILE = "</script><script>document.title='broken'</script><img src=x onerror=alert(1)> "


@pytest.fixture(scope="module")
def file(mini_oss, tmp_path_factory) -> Path:  # type: ignore[no-untyped-def]
    """A page over 128 tokens, whose text tries to break out of it."""
    ids = mini_oss.tokenizer.encode_ordinary(HOSTILE + TEXT * 10)[:128]
    trace = lab.watch(mini_oss, ids, keep=views.keep_for(mini_oss.config), last=1)
    return views.export_html(trace, tmp_path_factory.mktemp("page") / "page.html", model=mini_oss)


@pytest.fixture(scope="module")
def two_runs(mini_oss, tmp_path_factory) -> Path:  # type: ignore[no-untyped-def]
    """A page over a text before and after a change."""
    change = lab.Change(forbid=[5], heads_off=[(1, 2)], window=None)
    ids = mini_oss.tokenizer.encode_ordinary(HOSTILE + TEXT * 10)[:128]
    found = views.compared(mini_oss, ids, change)
    return views.export_html(found, tmp_path_factory.mktemp("two") / "page.html")


@pytest.fixture
def page(browser, file) -> Iterator[Watched]:  # type: ignore[no-untyped-def]
    context = browser.new_context(viewport={"width": 1600, "height": 900})
    watched = Watched(context.new_page())
    watched.page.goto(file.as_uri())
    watched.page.wait_for_selector("[role=tab]")
    yield watched
    context.close()
    assert watched.wrong == []


def test_every_view_opens_by_keyboard_and_answers_to_keys(page):
    for view, canvas in MAPS.items():
        page.open(view)
        assert page.changes(canvas, *BACK[view]), view
        assert page.changes(canvas, "+"), view
        assert page.changes(canvas, "0"), view
    for view in ("positions", "steps"):
        page.open(view)
        shown = page.page.locator(".gl-panel")
        before = shown.inner_html()
        page.page.locator(".gl-tab[aria-selected=true]").focus()
        page.page.keyboard.press("]")
        page.page.keyboard.press(",")
        page.page.wait_for_timeout(150)
        assert shown.inner_html() != before, view


def test_one_selection_is_shared_by_all_views(page):
    page.page.locator(".gl-strip [aria-selected=true]").first.focus()
    page.page.keyboard.press("Home")
    for _ in range(7):
        page.page.keyboard.press("ArrowRight")
    for key in ("]", "]", "]", "}"):
        page.page.keyboard.press(key)
    page.page.wait_for_timeout(100)
    for view in ("experts", "attention", "positions", "steps"):
        page.open(view)
        state = page.page.evaluate("gptossLab.store.get()")
        assert (state["token"], state["layer"], state["head"]) == (7, 3, 1), view
        assert page.page.locator(".gl-here").inner_text().startswith("token 7 of 0–127")


def test_text_is_text(page):
    assert page.page.title().startswith("mini-oss: </script><script>document.title=")
    assert page.page.locator("main img, main script").count() == 0
    shown = page.page.locator(".gl-strip").first.inner_text().replace("\n", "")
    assert shown.replace("·", " ").startswith("</script><script>document.title='broken'</script><img")


def test_what_is_shown_is_what_the_trace_holds(page, mini_oss, file):
    ids = mini_oss.tokenizer.encode_ordinary(HOSTILE + TEXT * 10)[:128]
    trace = lab.watch(mini_oss, ids, keep=["blocks.1.attention.pattern", "blocks.1.experts.weight"])
    page.page.evaluate("gptossLab.store.set({token: 40, layer: 1, head: 2})")
    page.open("attention")
    row = trace["blocks.1.attention.pattern"][0, 2, 40]
    best = int(row.argmax())
    told = page.page.locator(".gl-attention-says").nth(1).inner_text()
    assert told.startswith("40 “")
    share = float(row[best])
    assert f"{100 * share:.{0 if share >= 0.0995 else 1}f} %" in told
    page.open("experts")
    weight = float(trace["blocks.1.experts.weight"][0, 40, 0])
    assert f"{100 * weight:.0f} %" in page.page.locator(".gl-experts-path tbody tr").nth(1).inner_text()


def test_dark_and_light_follow_the_system(page):
    seen = []
    for scheme in ("light", "dark"):
        page.page.emulate_media(color_scheme=scheme)
        page.page.wait_for_timeout(150)
        root = page.page.locator(".gl-root")
        seen.append(
            (root.get_attribute("data-theme"), root.evaluate("e => getComputedStyle(e).backgroundColor"))
        )
    assert [theme for theme, _ in seen] == ["light", "dark"] and seen[0][1] != seen[1][1]


def test_nothing_moves_from_token_to_token(page):
    """The places of the panel's large parts do not depend on the token."""
    places = """() => [...document.querySelectorAll(
        ".gl-panel canvas, .gl-panel table, .gl-attention-side .gl-strip, .gl-tabs, .gl-foot"
    )].map(e => e.getBoundingClientRect()).map(b => [b.x, b.y, b.width, b.height].map(Math.round))"""
    for view in ("experts", "attention"):
        page.open(view)
        seen = set()
        for token in (0, 5, 31, 64, 127):
            page.page.evaluate(f"gptossLab.store.set({{token: {token}}})")
            page.page.wait_for_timeout(80)
            seen.add(json.dumps(page.page.evaluate(places)))
        assert len(seen) == 1, view


CLOCK = """() => {  // `drawn`: when the frame with the panel's last change, element or pixel, was painted
    const { port1, port2 } = new MessageChannel();
    port1.onmessage = () => (window.drawn = performance.now());
    const changed = () => port2.postMessage(0);  // a task of its own: it comes after the frame's painting
    new MutationObserver(changed).observe(document.querySelector(".gl-panel"),
        { subtree: true, childList: true, attributes: true, characterData: true });
    for (const verb of ["drawImage", "fillRect", "stroke"]) {
        const draw = CanvasRenderingContext2D.prototype[verb];
        CanvasRenderingContext2D.prototype[verb] = function (...all) {
            draw.apply(this, all);
            changed();
        };
    }
    addEventListener("keydown", (event) => (window.pressed = event.timeStamp), true);
}"""


@pytest.mark.parametrize("view", ["experts", "attention", "positions", "steps", "compare"])
def test_from_key_to_changed_picture_takes_less_than_50_ms(browser, file, two_runs, view):
    """At 128 tokens, median of 24 keys: from the key's event to the painted frame with the last change.

    That is asked of a machine with a processor to spare; of every machine, that the page computes for less
    than 50 ms a key, in processor time.
    """
    context = browser.new_context(viewport={"width": 1600, "height": 900})
    watched = Watched(page := context.new_page())
    page.goto((two_runs if view == "compare" else file).as_uri())
    page.wait_for_selector("[role=tab]")
    watched.open(view)
    page.evaluate(CLOCK)
    clock = browser.new_browser_cdp_session()

    def worked() -> float:
        found = clock.send("SystemInfo.getProcessInfo")["processInfo"]
        return 1000 * sum(process["cpuTime"] for process in found if process["type"] == "renderer")

    page.locator(".gl-tab[aria-selected=true]").focus()
    page.wait_for_timeout(300)
    took, before = [], worked()
    for _ in range(24):
        page.keyboard.press(",")  # the token before
        page.wait_for_timeout(90)
        took.append(page.evaluate("drawn - pressed"))
    own = (worked() - before) / 24
    print(f"{view}: median {statistics.median(took):.1f} ms, longest {max(took):.1f}, computed {own:.1f}")
    context.close()
    assert watched.wrong == [] and min(took) > 0
    assert own < 50, view
    if os.getloadavg()[0] < 0.5 * (os.cpu_count() or 1):
        assert statistics.median(took) < 50, (view, took)


def test_two_runs_stand_side_by_side_and_follow_one_selection(browser, two_runs):
    context = browser.new_context(viewport={"width": 1600, "height": 1000})
    watched = Watched(page := context.new_page())
    page.goto(two_runs.as_uri())
    page.wait_for_selector(".gl-root[data-view=compare]")
    chips = page.locator(".gl-compare-chip").all_inner_texts()
    assert chips == ["expert 5 forbidden", "head 2 of layer 1 off", "no windows"]
    assert page.locator(".gl-compare-controls").is_hidden()  # a page has no kernel to ask
    sides = page.locator(".gl-compare-side")

    def shown() -> list[tuple[str, list[str]]]:
        """What each side shows: its elements, and its canvases' pixels."""
        return [(side.inner_html(), [c.evaluate(PICTURE) for c in side.locator("canvas").all()])
                for side in sides.all()]  # fmt: skip

    for view in ("experts", "attention", "positions", "steps"):
        page.locator(f".gl-compare-views [data-view={view}]").focus()
        page.keyboard.press("Enter")
        page.wait_for_timeout(150)
        assert sides.count() == 2 and page.locator(".gl-compare-side .gl-absent").count() == 0
        before = shown()
        page.locator(".gl-compare-left .gl-strip [aria-selected=true]").focus()
        page.keyboard.press("Home")
        page.keyboard.press("ArrowRight")
        page.keyboard.press("]")
        page.wait_for_timeout(200)
        for n, (was, now) in enumerate(zip(before, shown())):
            assert was != now, (view, n)
        page.keyboard.press("[")
        page.keyboard.press("End")
        page.wait_for_timeout(100)
    assert page.locator(".gl-compare-row b").first.inner_text()
    assert page.locator(".gl-compare-row").count() == 9
    context.close()
    assert watched.wrong == []
