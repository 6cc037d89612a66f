"""The explorer's widget in real notebooks, JupyterLab and Notebook 7, in a real browser.

A cell is run, every view opened by keyboard, a prompt typed, the model changed, the tour asked. A console
error, or a request that would leave the machine, fails.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from browsing import BACK, IN_A_BROWSER, MAPS, PICTURE, TEXT, Watched

pytestmark = IN_A_BROWSER


KINDS = {  # package → its command, where a notebook is opened, what tells that its kernel is idle
    "jupyterlab": ("lab", "lab/tree", "#jp-main-statusbar :text('Idle')"),
    "notebook": ("notebook", "notebooks", ".jp-Notebook-ExecutionIndicator[data-status=idle]"),
}


@pytest.fixture(params=KINDS)
def jupyter(request, tmp_path) -> Iterator[tuple[str, str]]:  # type: ignore[no-untyped-def]
    """A server of our own with one notebook: its address, and what tells that its kernel is idle."""
    pytest.importorskip(request.param, reason=f"{request.param} is not installed")
    command_, place, idle = KINDS[request.param]
    room = tmp_path
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
        sys.executable, "-m", "jupyter", command_, "--no-browser", "--allow-root", f"--port={port}",
        "--ServerApp.port_retries=0", "--IdentityProvider.token=", "--ServerApp.disable_check_xsrf=True",
        f"--ServerApp.root_dir={room}",
    ]  # fmt: skip
    with (room / "log").open("w") as log:
        server = subprocess.Popen(command, env={**os.environ, **about}, stdout=log, stderr=log)
        try:
            wait_for(port, server, room / "log")
            yield f"http://127.0.0.1:{port}/{place}/explore.ipynb", idle
        finally:
            server.terminate()
            server.wait(20)


def wait_for(port: int, server: subprocess.Popen, log: Path) -> None:  # type: ignore[type-arg]
    """Return when the server listens; fail with its log when it ends instead."""
    for _ in range(900):
        if server.poll() is not None:
            pytest.fail(f"Jupyter ended:\n{log.read_text()[-2000:]}")
        with socket.socket() as knock:
            if knock.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.2)
    pytest.fail(f"Jupyter does not listen after three minutes:\n{log.read_text()[-2000:]}")


@pytest.mark.timeout(1500)  # on a busy machine Jupyter alone takes minutes to start
def test_the_widget_runs_prompts_and_changes_in_a_notebook(browser, jupyter):
    context = browser.new_context(viewport={"width": 1600, "height": 1000})
    watched = Watched(page := context.new_page())
    address, idle = jupyter
    page.goto(address, timeout=300_000)
    page.locator(idle).first.wait_for(timeout=300_000)
    prompt = page.locator(".jp-InputPrompt").first
    for _ in range(20):  # a kernel that is still being born loses what it is sent
        page.locator(".jp-Notebook .jp-CodeCell .cm-content").first.click()
        page.keyboard.press("Control+Enter")
        page.wait_for_timeout(3000)
        if any(sign in prompt.inner_text() for sign in "*1"):
            break
    failed = page.locator("[data-mime-type='application/vnd.jupyter.error']")
    page.locator(".gl-root [role=tab]").first.or_(failed).first.wait_for(timeout=300_000)
    assert failed.count() == 0, failed.first.inner_text()
    watched.wrong.clear()  # what Jupyter itself says while it starts is not ours
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
    print(page.locator(".gl-word[role=status]").inner_text())
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
