"""The explorer in a real browser: the page opened from a file, and the widget in JupyterLab.

Everything is driven by keyboard; what a canvas shows is compared before and after; a console error, or a
request that would leave the machine, fails. Skipped, with the reason, where Chromium or Playwright is absent.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

import gptoss_lab as lab
from gptoss_lab import views

playwright = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed (extra `test`)")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here; on Debian: apt-get install chromium"),
]
SWITCHES = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--force-prefers-reduced-motion",
]  # fmt: skip
TEXT = "Once upon a time there was a king who would not sleep. Había una vez un rey que no dormía. "
HOSTILE = "</script><script>document.title='broken'</script><img src=x onerror=alert(1)> "
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
        self.page.wait_for_timeout(120)
        return bool(canvas.evaluate(PICTURE) != before)


@pytest.fixture(scope="module")
def browser() -> Iterator:  # type: ignore[type-arg]
    with playwright.sync_playwright() as running:
        opened = running.chromium.launch(executable_path=CHROMIUM, args=SWITCHES)
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def model():  # type: ignore[no-untyped-def]
    return lab.load("mini-oss")


@pytest.fixture(scope="module")
def file(model, tmp_path_factory) -> Path:  # type: ignore[no-untyped-def]
    """A page over 128 tokens, whose text tries to break out of it."""
    ids = model.tokenizer.encode_ordinary(HOSTILE + TEXT * 10)[:128]
    trace = lab.watch(model, ids, keep=views.keep_for(model.config), last=1)
    return views.export_html(trace, tmp_path_factory.mktemp("page") / "page.html", model=model)


@pytest.fixture(scope="module")
def two_runs(model, tmp_path_factory) -> Path:  # type: ignore[no-untyped-def]
    """A page over a text before and after a change."""
    change = lab.Change(forbid=[5], heads_off=[(1, 2)], window=None)
    found = views.compared(model, HOSTILE + TEXT, change)
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
        assert page.page.locator(".gl-here").inner_text().startswith("token 7 of 128")


def test_text_is_text(page):
    assert page.page.title().startswith("mini-oss: </script><script>document.title=")
    assert page.page.locator("main img, main script").count() == 0
    shown = page.page.locator(".gl-strip").first.inner_text().replace("\n", "")
    assert shown.replace("·", " ").startswith("</script><script>document.title='broken'</script><img")


def test_what_is_shown_is_what_the_trace_holds(page, model, file):
    ids = model.tokenizer.encode_ordinary(HOSTILE + TEXT * 10)[:128]
    trace = lab.watch(model, ids, keep=["blocks.1.attention.pattern", "blocks.1.experts.weight"])
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


def test_from_key_to_changed_picture_takes_less_than_50_ms(page):
    """At 128 tokens, median of 24 keys: from the key's event to the end of the last drawing that it causes.

    That is asked of a machine with a processor to spare; of every machine, that the page computes for less
    than 50 ms a key, in processor time.
    """
    page.page.evaluate("""() => {
        const draw = CanvasRenderingContext2D.prototype.drawImage;
        CanvasRenderingContext2D.prototype.drawImage = function (...all) {
            draw.apply(this, all);
            queueMicrotask(() => (window.drawn = performance.now()));
        };
        addEventListener("keydown", (event) => (window.pressed = event.timeStamp), true);
    }""")
    clock = page.page.context.browser.new_browser_cdp_session()

    def worked() -> float:
        found = clock.send("SystemInfo.getProcessInfo")["processInfo"]
        return 1000 * sum(process["cpuTime"] for process in found if process["type"] == "renderer")

    for view, canvas in MAPS.items():
        page.open(view)
        page.page.locator(canvas).first.focus()
        page.page.wait_for_timeout(300)
        took, before = [], worked()
        for _ in range(24):
            page.page.keyboard.press(BACK[view][0])
            page.page.wait_for_timeout(90)
            took.append(page.page.evaluate("drawn - pressed"))
        own = (worked() - before) / 24
        print(f"{view}: median {statistics.median(took):.1f} ms, longest {max(took):.1f}, computed {own:.1f}")
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


@pytest.fixture(scope="module")
def jupyter(tmp_path_factory) -> Iterator[str]:  # type: ignore[no-untyped-def]
    """A JupyterLab of our own with one notebook; its address."""
    pytest.importorskip("jupyterlab", reason="JupyterLab is not installed (extra `notebooks`)")
    room = tmp_path_factory.mktemp("lab")
    settings = room / "settings" / "@jupyterlab" / "apputils-extension"
    settings.mkdir(parents=True)
    quiet = {"fetchNews": "false", "checkForUpdates": False}
    (settings / "notification.jupyterlab-settings").write_text(json.dumps(quiet), "utf-8")
    source = "import gptoss_lab as lab\nfrom gptoss_lab import views\n"
    source += f"views.explore(lab.load('mini-oss'), {TEXT!r})"
    kernel = {"name": "python3", "display_name": "Python 3 (ipykernel)", "language": "python"}
    cell = {
        "cell_type": "code",
        "id": "a",
        "metadata": {},
        "execution_count": None,
        "outputs": [],
        "source": source,
    }
    notebook = {"cells": [cell], "metadata": {"kernelspec": kernel}, "nbformat": 4, "nbformat_minor": 5}
    (room / "explore.ipynb").write_text(json.dumps(notebook), "utf-8")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    about = {
        "JUPYTERLAB_SETTINGS_DIR": str(room / "settings"),
        "JUPYTERLAB_WORKSPACES_DIR": str(room / "workspaces"),
        "JUPYTER_RUNTIME_DIR": str(room / "runtime"),
        "JUPYTER_CONFIG_DIR": str(room / "config"),
        "PYTHONPATH": str(Path(__file__).parent.parent),
    }  # fmt: skip
    command = [
        sys.executable, "-m", "jupyter", "lab", "--no-browser", "--allow-root", f"--port={port}",
        "--ServerApp.port_retries=0", "--IdentityProvider.token=", "--ServerApp.disable_check_xsrf=True",
        f"--ServerApp.root_dir={room}",
    ]  # fmt: skip
    with (room / "log").open("w") as log:
        server = subprocess.Popen(command, env={**os.environ, **about}, stdout=log, stderr=log)
        try:
            wait_for(port, server, room / "log")
            yield f"http://127.0.0.1:{port}/lab/tree/explore.ipynb"
        finally:
            server.terminate()
            server.wait(20)


def wait_for(port: int, server: subprocess.Popen, log: Path) -> None:  # type: ignore[type-arg]
    """Return when the server listens; fail with its log when it ends instead."""
    for _ in range(900):
        if server.poll() is not None:
            pytest.fail(f"JupyterLab ended:\n{log.read_text()[-2000:]}")
        with socket.socket() as knock:
            if knock.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.2)
    pytest.fail(f"JupyterLab does not listen after three minutes:\n{log.read_text()[-2000:]}")


@pytest.mark.timeout(1500)  # on a busy machine JupyterLab alone takes minutes to start
def test_the_widget_runs_a_prompt_in_jupyterlab(browser, jupyter):
    context = browser.new_context(viewport={"width": 1600, "height": 1000})
    watched = Watched(page := context.new_page())
    page.goto(jupyter, timeout=300_000)
    page.locator("#jp-main-statusbar", has_text="Idle").wait_for(timeout=300_000)
    page.locator(".jp-Notebook .jp-CodeCell .cm-content").first.click()
    page.keyboard.press("Shift+Enter")
    failed = page.locator("[data-mime-type='application/vnd.jupyter.error']")
    page.locator(".gl-root [role=tab]").first.or_(failed).first.wait_for(timeout=300_000)
    assert failed.count() == 0, failed.first.inner_text()
    watched.wrong.clear()  # what JupyterLab itself says while it starts is not ours
    for view, canvas in MAPS.items():
        watched.open(view)
        assert watched.changes(canvas, *BACK[view]), view
    for view in ("positions", "steps"):
        watched.open(view)
        assert page.locator(".gl-panel svg, .gl-panel canvas").count() > 0, view
    box = page.locator(".gl-prompt textarea")
    box.fill("def king(crown): return crown + 1")
    box.press("Enter")
    page.locator(".gl-word", has_text="tokens in").wait_for(timeout=120_000)
    shown = page.locator(".gl-strip").first.inner_text().replace("\n", "").replace("·", " ")
    assert shown == "def king(crown): return crown + 1"
    print(page.locator(".gl-word").inner_text())
    box.fill("")
    box.press("Enter")
    page.locator(".gl-word.gl-bad", has_text="the prompt is empty").wait_for(timeout=120_000)
    watched.open("compare")
    chips = page.locator(".gl-compare-chip")
    head = "switch off head 0 of layer 0", "head 0 of layer 0 off"
    for name, told in (("forbid 0", "expert 0 forbidden"), head):
        page.get_by_role("button", name=name, exact=True).focus()
        page.keyboard.press("Enter")
        chips.filter(has_text=told).wait_for(timeout=120_000)
    page.locator(".gl-compare-status", has_text="tokens; predictions moved by").wait_for()
    print(page.locator(".gl-compare-status").inner_text())
    pair = page.locator(".gl-compare-side canvas.gl-heat[role=application]")
    assert pair.count() == 2 and pair.first.evaluate(PICTURE) != pair.last.evaluate(PICTURE)
    for name in ("forbid 1", "forbid 2", "forbid 3", "forbid 4", "forbid 5", "forbid 6"):
        page.locator(".gl-bar select").last.select_option(name[-1])
        page.get_by_role("button", name=name, exact=True).click()
        page.wait_for_timeout(50)
    page.locator(".gl-compare-status.gl-bad", has_text="are needed for a token").wait_for(timeout=120_000)
    page.get_by_role("button", name="Undo all").click()
    page.locator(".gl-compare .gl-absent", has_text="Nothing is changed yet").wait_for(timeout=120_000)
    page.get_by_role("button", name="Guided tour").click()
    for _ in range(4):
        page.get_by_role("button", name="Next →").click()
    page.locator(".gl-tour-fields input").nth(0).fill("1")
    page.locator(".gl-tour-fields input").nth(1).fill("1")
    page.get_by_role("button", name="Show me").click()
    answer = page.locator(".gl-tour-answer", has_text="tokens get another likeliest next token")
    answer.wait_for(timeout=120_000)
    assert page.locator(".gl-compare-chip", has_text="forbidden").count() == 1
    assert watched.wrong == []
    context.close()
