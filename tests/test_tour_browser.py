"""The guided tour in a real browser, by keyboard alone: five questions, five predictions, five answers.

The page holds the tour's text. The second run of question 5 is handed to it from the start, or when it is
asked for, as a kernel would.
"""

from __future__ import annotations

import base64
import json
import re

import pytest
import torch
from browsing import IN_A_BROWSER, Watched
from live_page import open_live
from toys import FAMILIES, random_model, random_tokens

import gptoss_lab as lab
from gptoss_lab import views
from gptoss_lab.views import page as pages
from gptoss_lab.views import payload
from gptoss_lab.views.beside import packed_beside
from gptoss_lab.views.tour import PARTS, TEXT

pytestmark = IN_A_BROWSER
FORBIDDEN = 5
MOUNT = """
const read = (name) => new Data(JSON.parse(document.getElementById(name).textContent),
  Uint8Array.from(atob(document.getElementById(name + "-block").textContent), (c) => c.charCodeAt(0)));
const [before, after] = [read("before"), read("after")];
const env = ENV;
const root = document.getElementById("gptoss-lab");
globalThis.gptossLab = mountExplorer(root, before, new Store(before.limits), env);
"""
ENVS = {
    "alone": "{}",
    "recorded": "{ beside: after }",
    "live": """{ canChange: true, others: [], async send(message) {
        globalThis.asked = JSON.stringify(message);
        globalThis.gptossLab.updateBeside(after);
        return { seconds: 0 };
    } }""",
}


@pytest.fixture(scope="module")
def found(mini_oss):  # type: ignore[no-untyped-def]
    """The tour's text before and after an expert is forbidden."""
    return views.compared(mini_oss, TEXT, lab.Change(forbid=[FORBIDDEN]))


@pytest.fixture(scope="module")
def runs(mini_oss):  # type: ignore[no-untyped-def]
    """The same two runs as traces that hold all logits, by edits of the test's own."""

    def forbid(logits, here):  # type: ignore[no-untyped-def]
        logits[..., FORBIDDEN] = float("-inf")
        return logits

    keep = [*views.keep_for(mini_oss.config), "logits"]
    return [lab.watch(mini_oss, TEXT, keep, edit) for edit in ({}, {"blocks.*.experts.logits": forbid})]


@pytest.fixture
def opened(browser, found, tmp_path, request):  # type: ignore[no-untyped-def]
    """A page whose second run is there (recorded), comes when asked for (live), or is missing (alone)."""
    blocks = []
    packed = payload.packed_views(found.before, found.model), packed_beside(found)
    for name, (header, block) in zip(("before", "after"), packed):
        blocks.append(f'<script type="application/json" id="{name}">{pages.escaped(header)}</script>')
        numbers = base64.b64encode(block).decode()
        blocks.append(f'<script type="text/plain" id="{name}-block">{numbers}</script>')
    module = pages.script() + MOUNT.replace("ENV", ENVS[request.param])
    file = tmp_path / "tour.html"
    file.write_text(
        "<!doctype html><html lang='en'><meta charset='utf-8'><title>tour</title>"
        f"<style>{pages.style()}</style><main id='gptoss-lab'></main>{''.join(blocks)}"
        f"<script type='module'>{module}</script></html>",
        "utf-8",
    )
    watched = Watched(browser.new_context(viewport={"width": 1440, "height": 900}).new_page())
    watched.page.goto(file.as_uri())
    watched.page.wait_for_selector("[role=tab]")
    yield watched
    watched.page.context.close()
    assert watched.wrong == []


class Tour:
    """The strip, driven by keys: Tab and Shift+Tab go to its parts, Enter presses."""

    def __init__(self, watched: Watched) -> None:
        self.page = watched.page

    def tab_to(self, text: str, key: str = "Tab") -> None:
        """Press Tab until the element in focus has this text, or this label."""
        said = "(a => a.labels?.[0]?.firstChild.textContent ?? a.textContent)(document.activeElement)"
        for _ in range(40):
            self.page.keyboard.press(key)
            if self.page.evaluate(said).strip() == text:
                return
        raise AssertionError(f"Tab does not come to {text!r}")

    def press(self, text: str, times: int = 1, key: str = "Tab") -> None:
        """Go to what has this text and press it, so many times."""
        for _ in range(times):
            self.tab_to(text, key)
            self.page.keyboard.press("Enter")

    def open(self) -> None:
        """From the top of the page to the first question."""
        self.press("Guided tour")

    def question(self) -> tuple[str, str]:
        """Which question is shown, by number and title; focus is on it, so that it is read out."""
        assert self.page.evaluate("document.activeElement.tagName") == "H2"
        head = self.page.locator(".gl-tour-head")
        return head.locator(".gl-quiet").inner_text(), head.locator("h2").inner_text()

    def predict(self, **values: str) -> None:
        """Give every field its value by keys, press "Show me"; a choice takes the letters of its option."""
        for label, value in values.items():
            self.tab_to(label.replace("_", " "))
            self.page.keyboard.type(value)
        self.tab_to("Show me")
        self.page.keyboard.press("Enter")
        self.page.wait_for_function(
            "!document.querySelector('.gl-tour-answer').textContent.startsWith('Counting')"
        )
        self.page.wait_for_timeout(100)

    def answer(self) -> str:
        """What the live region says."""
        region = self.page.locator(".gl-tour-answer[role=status][aria-live=polite]")
        return str(region.inner_text()).replace("\n", " ")

    def next(self) -> None:
        """To the next question, backwards through the strip."""
        self.press("Next →", key="Shift+Tab")

    def state(self) -> dict[str, int]:
        """The shared selection."""
        return self.page.evaluate("gptossLab.store.get()")  # type: ignore[no-any-return]

    def view(self) -> str:
        """The view that is open."""
        return str(self.page.locator(".gl-root").get_attribute("data-view"))


def percent(share: float) -> str:
    """A share as the page writes it."""
    return f"{100 * share:.{0 if share >= 0.0995 else 1}f} %"


@pytest.mark.parametrize("opened", ["live"], indirect=True)
def test_five_questions_are_answered_by_keyboard_from_the_traces_own_numbers(opened, mini_oss, runs):
    before, after = runs
    tour = Tour(opened)
    tour.open()

    # 1: Spanish, recomputed from the trace with the parts as they were written
    assert tour.question() == ("Question 1 of 5", "Which experts fire on Spanish?")
    assert tour.view() == "experts"
    size = [len(mini_oss.tokenizer.encode_ordinary(text)) for text in PARTS.values()]
    assert sum(size) == len(before.labels)
    asked = tour.page.locator(".gl-tour-ask").inner_text()
    assert f"tokens {size[0]} to {size[0] + size[1] - 1}, “Había una vez un … " in asked
    spanish = torch.arange(sum(size)).ge(size[0]) & torch.arange(sum(size)).lt(size[0] + size[1])
    answers = torch.stack(
        [(before[f"blocks.{n}.experts.choice"][0][..., None] == torch.arange(8)).any(1) for n in range(6)]
    ).float()
    inside, outside = answers[:, spanish].mean(1), answers[:, ~spanish].mean(1)
    layer, expert = divmod(int((inside - outside).argmax()), 8)
    tour.predict(layer=f"{layer}", expert=f"{expert}")
    said = tour.answer()
    assert said.startswith(f"Right: layer {layer}, expert {expert}")
    here, elsewhere = percent(inside[layer, expert]), percent(outside[layer, expert])
    assert f"{here} of the Spanish tokens, {elsewhere} of the others" in said
    assert "dealt at random over the words, 200 times" in said and "stand on both sides" in said
    assert (tour.state()["layer"], tour.state()["expert"]) == (layer, expert)
    assert spanish[tour.state()["token"]]

    # 2: the previous token, with a wrong prediction
    tour.next()
    assert tour.question() == ("Question 2 of 5", "Which head looks at the previous token?")
    assert tour.view() == "attention"
    back = torch.stack(
        [before[f"blocks.{n}.attention.pattern"][0].diagonal(-1, 1, 2).mean(-1) for n in range(6)]
    )
    layer, head = divmod(int(back.argmax()), 6)
    tour.predict(layer="0", head="1")
    said = tour.answer()
    least = "" if back.max() >= 0.5 else "No head gives it most of its attention. Nearest: "
    assert said.startswith(f"{least}Layer {layer}, head {head}.")
    assert f"{percent(back.max())} of its attention" in said
    assert f"Yours: {percent(back[0, 1])}" in said
    assert (tour.state()["layer"], tour.state()["head"]) == (layer, head)

    # 3: the window
    tour.next()
    assert tour.question() == ("Question 3 of 5", "How far does a window layer see?")
    last = len(before.labels) - 1
    assert (tour.state()["token"], mini_oss.config.windows[tour.state()["layer"]]) == (last, 32)
    tour.predict(tokens_that_it_sees_before_itself="32")
    said = tour.answer()
    assert said.startswith("One less, 31") and f"sees back to token {last - 31} " in said
    pattern = before["blocks.0.attention.pattern"][0, :, last]
    assert pattern[:, last - 31].max() > 0 and pattern[:, : last - 31].max() == 0

    # 4: the sink
    tour.next()
    assert tour.question() == ("Question 4 of 5", "What does the sink take?")
    taken = torch.stack([before[f"blocks.{n}.attention.sink"][0].mean(-1) for n in range(6)])
    layer, head = divmod(int(taken.argmax()), 6)
    tour.predict(layer=f"{layer}", head=f"{head}", **{"its_sink_takes,_%": f"{100 * taken.max():.0f}"})
    said = tour.answer()
    assert said.startswith(f"Right: Layer {layer}, head {head}, {percent(taken.max())}.")
    assert f"All 36 heads: {percent(taken.mean())}" in said
    told = tour.page.locator(".gl-attention-head h3").nth(layer % 2).inner_text()
    assert told == f"head {head}: sink {percent(taken.max())} on average", "the view says the same number"

    # 5: an expert is forbidden
    tour.next()
    assert tour.question() == ("Question 5 of 5", "What changes when expert n is forbidden?")
    likeliest = [trace["logits"][0].argmax(-1) for trace in runs]
    changed = int((likeliest[0] != likeliest[1]).sum())
    tour.predict(n=f"{FORBIDDEN}", tokens_that_change=f"{changed}", **{"probabilities_move,_points": "10"})
    asked = json.loads(tour.page.evaluate("asked"))
    assert asked == {"type": "compare", "change": {"forbid": [FORBIDDEN]}, "other": ""}
    assert tour.view() == "compare"
    said = tour.answer()
    assert said.startswith(f"Close: {changed} of {last + 1} tokens get another likeliest next token")
    follows = [t["logits"][0, :-1].softmax(-1).gather(-1, t.tokens[0, 1:, None]).mean() for t in runs]
    assert f"had {percent(follows[0])} on average and has {percent(follows[1])}" in said
    assert "the second run does not forbid" not in said
    assert tour.state()["expert"] == FORBIDDEN

    # back to the first: its answer is still there; Escape closes and gives the focus back
    tour.press("← Previous", times=4, key="Shift+Tab")
    assert tour.question()[0] == "Question 1 of 5" and tour.answer().startswith("Right: layer")
    tour.page.keyboard.press("Escape")
    assert tour.page.locator(".gl-tour").is_hidden()
    assert tour.page.evaluate("document.activeElement.textContent") == "Guided tour"
    assert before.labels == after.labels


@pytest.mark.parametrize("opened", ["recorded"], indirect=True)
def test_a_recorded_second_run_answers_for_its_own_expert(opened):
    tour = Tour(opened)
    tour.open()
    tour.press("Next →", times=4)
    options = tour.page.locator(".gl-tour-fields select option").all_inner_texts()
    assert options == [str(FORBIDDEN)]
    tour.predict(tokens_that_change="1", **{"probabilities_move,_points": "1"})
    assert re.match(r"\d+ of \d+ tokens get another likeliest next token", tour.answer())


@pytest.mark.parametrize("opened", ["alone"], indirect=True)
def test_without_a_second_run_the_tour_says_how_to_record_one(opened):
    tour = Tour(opened)
    tour.open()
    tour.press("Next →", times=4)
    said = tour.page.locator(".gl-tour-ask").inner_text()
    assert "This cannot be answered here" in said and "--forbid-expert 5" in said
    assert not tour.page.locator(".gl-tour-show").is_visible()


@pytest.mark.parametrize("opened", ["live"], indirect=True)
def test_what_is_selected_in_the_view_is_the_prediction_and_none_is_asked_for(opened):
    tour = Tour(opened)
    tour.open()
    tour.tab_to("Show me")
    tour.page.keyboard.press("Enter")
    assert "Predict first" in tour.answer(), "an empty prediction is not sent"
    layer, expert = (tour.page.locator(f".gl-tour-fields select >> nth={n}") for n in (0, 1))
    assert (layer.input_value(), expert.input_value()) == ("", "")
    tour.page.locator(".gl-experts-map canvas[role=application]").focus()
    tour.page.keyboard.press("ArrowDown")
    tour.page.keyboard.press("]")
    tour.page.wait_for_timeout(150)
    assert (tour.state()["layer"], tour.state()["expert"]) == (1, 1)
    assert (layer.input_value(), expert.input_value()) == ("1", "1")


@pytest.mark.parametrize("opened", ["live"], indirect=True)
def test_the_strip_covers_nothing_and_keeps_its_height(opened):
    tour = Tour(opened)
    places = """() => ['.gl-tour', '.gl-tabs', '.gl-panel'].map(e => document.querySelector(e))
        .map(e => e.getBoundingClientRect()).map(b => [b.top, b.bottom].map(Math.round))"""
    tour.open()
    seen = set()
    fill = {"select": lambda field: field.select_option(index=field.locator("option").count() - 1),
            "input": lambda field: field.fill("7")}  # fmt: skip
    for question in range(5):
        for shown in (False, True):
            if shown:
                for kind, put in fill.items():
                    for field in tour.page.locator(f".gl-tour-fields {kind}").all():
                        put(field)
                tour.page.locator(".gl-tour-show").click()
                tour.page.wait_for_timeout(400)
            strip, tabs, panel = tour.page.evaluate(places)
            assert strip[1] <= tabs[0] and tabs[1] <= panel[0] + 1, question
            seen.add((strip[1] - strip[0], tabs[0] - strip[0]))
            cut = tour.page.evaluate("""() => [...document.querySelectorAll('.gl-tour-ask, .gl-tour-answer')]
                .filter(e => e.scrollHeight > e.clientHeight + 1).map(e => e.textContent)""")
            assert not cut, (question, cut)
        if question < 4:
            tour.page.get_by_role("button", name="Next →").click()
    assert len(seen) == 1, seen


@pytest.mark.parametrize(("family", "count", "left"), [
    ("gpt2", 1, ["has no experts", "none has a window", "has no sinks"]),
    ("qwen3-moe", 3, ["none has a window", "has no sinks"]),
])  # fmt: skip
def test_other_families_are_asked_what_they_can_answer(browser, tmp_path, family, count, left):
    small = random_model(FAMILIES[family]())
    tokens = random_tokens(small.config, batch=1, count=12)
    trace = lab.watch(small, tokens, keep=views.keep_for(small.config))
    file = views.export_html(trace, tmp_path / "page.html", model=small)
    watched = Watched(browser.new_context().new_page())
    watched.page.goto(file.as_uri())
    watched.page.wait_for_selector("[role=tab]")
    tour = Tour(watched)
    tour.open()
    assert tour.question()[0] == f"Question 1 of {count}"
    said = tour.page.locator(".gl-tour-ask").inner_text()
    assert [why for why in left if why not in said.partition("Left out")[2]] == []
    if count > 1:
        assert "0 of this text's 12 tokens are plainly Spanish" in said
        tour.next()
    assert tour.question()[1] == "Which head looks at the previous token?"
    tour.predict(layer="0", head="1")
    assert "would give it" in tour.answer()
    watched.page.context.close()
    assert watched.wrong == []


def test_the_widget_offers_the_tours_text_and_runs_it(browser, mini_oss):
    """A real explorer's handlers: the button runs the model, then the first question can be answered."""
    watched = Watched(browser.new_context(viewport={"width": 1440, "height": 900}).new_page())
    open_live(watched.page, mini_oss, "The king said to the people")
    tour = Tour(watched)
    tour.open()
    assert "plainly Spanish" in tour.page.locator(".gl-tour-ask").inner_text()
    tour.tab_to("Run the tour's text")
    tour.page.keyboard.press("Enter")
    tour.page.locator(".gl-word", has_text="tokens in").wait_for(timeout=60_000)
    assert tour.question() == ("Question 1 of 5", "Which experts fire on Spanish?")
    tour.predict(layer="2", expert="5")
    assert "dealt at random over the words, 200 times" in tour.answer()
    assert not tour.page.get_by_text("Run the tour's text").is_visible()
    watched.page.context.close()
    assert watched.wrong == []


def test_the_widget_forbids_an_expert_in_the_real_model(browser, mini_oss, runs):
    """Question 5 with a real explorer behind the page: the count is that of the test's own two runs."""
    watched = Watched(browser.new_context(viewport={"width": 1440, "height": 900}).new_page())
    open_live(watched.page, mini_oss, TEXT)
    tour = Tour(watched)
    tour.open()
    tour.press("Next →", times=4)
    changed = int((runs[0]["logits"][0].argmax(-1) != runs[1]["logits"][0].argmax(-1)).sum())
    tour.predict(n=f"{FORBIDDEN}", tokens_that_change="0", **{"probabilities_move,_points": "0"})
    tour.page.wait_for_function("/\\d+ of/.test(document.querySelector('.gl-tour-answer').textContent)")
    assert f"{changed} of {len(runs[0].labels)} tokens get another" in tour.answer()
    assert tour.view() == "compare" and "not counted" not in tour.answer()
    assert tour.page.get_by_text(f"expert {FORBIDDEN} forbidden").first.is_visible()
    watched.page.context.close()
    assert watched.wrong == []
