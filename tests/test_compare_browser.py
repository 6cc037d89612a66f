"""Edit and compare in a real browser: the focus stays where it was, and both models can be looked at."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from browsing import IN_A_BROWSER, Watched
from live_page import open_live
from toys import gpt_oss, random_model

import gptoss_lab as lab
from gptoss_lab import views

pytestmark = IN_A_BROWSER
TEXT = "Once upon a time there was a king."
FOCUS = "document.activeElement.getAttribute('aria-label') ?? document.activeElement.textContent"


@pytest.fixture
def watched(browser) -> Iterator[Watched]:  # type: ignore[no-untyped-def]
    context = browser.new_context(viewport={"width": 1440, "height": 1000})
    yield (watched := Watched(context.new_page()))
    context.close()
    assert watched.wrong == []


def press(watched: Watched, where: str, key: str = "Enter", then: str | None = None) -> str:
    """What has the focus after a key on an element, and after what `then` selects has come."""
    watched.page.locator(where).first.focus()
    watched.page.keyboard.press(key)
    watched.page.wait_for_selector(then) if then else watched.page.wait_for_timeout(150)
    return str(watched.page.evaluate(FOCUS))


def test_the_focus_stays_while_a_change_is_made_and_undone(watched, mini_oss):
    widget = open_live(watched.page, mini_oss, TEXT)
    watched.open("compare")
    chips, still = ".gl-compare-chip", ".gl-compare .gl-absent"
    assert press(watched, "button:text('forbid 0')", then=chips) == "forbid 0"
    assert press(watched, "button:text('switch off head')", then=f"{chips} + {chips}") == (
        "switch off head 0 of layer 0"
    )
    undone = press(watched, f"{chips} button", then=f":nth-child(2){chips}:last-child")
    assert undone == "undo: head 0 of layer 0 off"
    assert widget.comparison.words == "head 0 of layer 0 off"
    views_of = ".gl-compare-views [data-view=attention]"
    assert press(watched, views_of) == "Attention"
    assert press(watched, f"{chips} button", then=still) == "in which layers experts and sinks are changed"
    assert watched.page.locator(".gl-compare-status").inner_text() == "Nothing is changed now."
    press(watched, "button:text('forbid 0')", then=chips)
    undo = "button:text('Undo all')"
    assert press(watched, undo, then=still) == "Undo all"
    assert watched.page.locator(undo).get_attribute("aria-disabled") == "true"
    assert press(watched, ".gl-prompt button", then="text=/tokens in .* the model ran/") == "Run"


def test_a_button_that_has_nothing_more_to_do_keeps_the_focus(watched, mini_oss):
    open_live(watched.page, mini_oss, TEXT)
    watched.open("steps")
    for _ in range(16):
        assert press(watched, "button:text-is('next →')") == "next →"
    assert watched.page.locator("button:text-is('next →')").get_attribute("aria-disabled") == "true"
    assert press(watched, "button[aria-label='next token']") == "next token"
    assert watched.page.locator(".gl-here").inner_text().startswith("token 9 of 0–9")


def test_experts_of_the_other_model_can_be_chosen_where_this_one_has_none(watched, mini_oss, tmp_path):
    found = views.compared(lab.load("mini-gpt2"), TEXT, beside=mini_oss)
    watched.page.goto(views.export_html(found, tmp_path / "page.html").as_uri())
    watched.page.wait_for_selector(".gl-compare-views [data-view=attention][aria-pressed=true]")
    press(watched, ".gl-compare-views [data-view=experts]")
    watched.page.locator(".gl-bar label:has-text('expert') select").select_option("5")
    watched.page.wait_for_timeout(100)
    assert watched.page.evaluate("gptossLab.store.get().expert") == 5


def test_the_switches_show_what_runs(watched, mini_oss):
    widget = open_live(watched.page, mini_oss, TEXT)
    watched.open("compare")
    choice = watched.page.get_by_label("window of the windowed layers")
    choice.select_option(label="none")
    watched.page.wait_for_selector(".gl-compare-chip")
    assert widget.comparison.change.window is None
    assert choice.evaluate("one => one.selectedOptions[0].textContent") == "none"
    choice.select_option(label="as it is (32)")
    watched.page.wait_for_selector(".gl-compare .gl-absent")
    assert widget.comparison is None


def test_a_wish_that_waits_outlives_the_refusal_of_the_one_before(watched, mini_oss):
    widget = open_live(watched.page, mini_oss, TEXT)
    watched.open("compare")
    chips, both = ".gl-compare-chip", "both => both.forEach(one => one.click())"
    expert = watched.page.locator(".gl-bar label:has-text('expert') select")
    for n in ("0", "1"):
        expert.select_option(n)
        press(watched, f"button:text('force {n}')", then=f"{chips} >> nth={n}")
    expert.select_option("2")
    force, undo = (watched.page.locator(f"button:text('{text}')") for text in ("force 2", "Undo all"))
    force.click()  # a third of two
    watched.page.wait_for_selector(".gl-compare-status.gl-bad")
    assert widget.comparison.words == "expert 0 forced; expert 1 forced"
    force.or_(undo).evaluate_all(both)
    watched.page.wait_for_selector(".gl-compare .gl-absent")
    status = watched.page.locator(".gl-compare-status")
    assert status.inner_text() == "Nothing is changed now."
    assert "gl-bad" not in status.get_attribute("class")
    assert widget.comparison is None and watched.page.locator(chips).count() == 0


def test_ids_stand_apart_where_there_is_no_text(watched):
    model = random_model(gpt_oss())
    widget = open_live(watched.page, model, [13, 14, 5])
    watched.open("compare")
    press(watched, "button:text('forbid 0')", then=".gl-compare-chip")
    said = watched.page.locator(".gl-compare-text p").first.inner_text()
    assert said.strip() == "…13 14 5 " + widget.comparison.texts[0].strip()


def test_nothing_is_brightest_where_nothing_moved(watched, mini_oss, tmp_path):
    found = views.compared(mini_oss, ".", lab.Change(window=4))  # one token, which no window hides
    watched.page.goto(views.export_html(found, tmp_path / "page.html").as_uri())
    watched.page.wait_for_selector(".gl-root[data-view=compare]")
    said = watched.page.locator(".gl-compare-left h3").nth(2).inner_text()
    assert said == "Where the prediction moved nowhere"
    watched.page.set_viewport_size({"width": 1000, "height": 900})
    heads = watched.page.locator(".gl-compare-row[aria-hidden] > span").all()
    assert [head.evaluate("e => e.scrollHeight <= e.parentNode.clientHeight") for head in heads] == [True] * 3


def test_a_long_text_says_what_was_left_out_of_which_run(watched, mini_oss, tmp_path):
    found = views.compared(mini_oss, TEXT * 40, lab.Change(forbid=[5]))
    watched.page.goto(views.export_html(found, tmp_path / "page.html", limit=2_000_000).as_uri())
    watched.page.wait_for_selector(".gl-root[data-view=compare]")
    told = watched.page.locator(".gl-foot p").inner_text()
    assert told.startswith("Left out of both runs, because it would not fit: ")
    assert "attention.pattern of layers 0, 1, 2, 3, 4, 5" in told
    press(watched, ".gl-compare-views [data-view=attention]")
    assert watched.page.locator(".gl-compare-side .gl-absent").all_inner_texts() == [
        "attention.pattern would not fit into what was sent: take a shorter text, or write a page with a "
        "larger limit (export_html)."
    ] * 2
