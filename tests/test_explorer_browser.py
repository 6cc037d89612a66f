"""What the explorer's page answers to wheel, keys, hover, reloads and long texts, in a real browser.

One page over two runs of the tour's text, one over a text whose patterns did not all fit, one over bytes.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from browsing import IN_A_BROWSER, PICTURE, Watched
from live_page import open_live

import gptoss_lab as lab
from gptoss_lab import views
from gptoss_lab.views.tour import TEXT

pytestmark = IN_A_BROWSER
MAP, LOADS = ".gl-experts-map canvas >> nth=0", ".gl-experts-load"
ZOOM_IN = ".gl-zoom button[aria-label='zoom in'] >> nth=0"
# how far the bar of each expert from `from` on reaches, where the map shows `count` rows from `first` on
BARS = """(canvas, [from, first, count]) => Array.from({ length: 8 - from }, (_, n) => {
    const ratio = devicePixelRatio, high = (canvas.clientHeight - 68) / count;
    const y = Math.round((2 + (from + n + 0.3 - first) * high) * ratio);
    const line = canvas.getContext("2d").getImageData(0, y, canvas.width, 1).data;
    let x = 0;
    while (line[4 * x + 3] > 150 && line[4 * x] > line[4 * x + 1] + 20) x++;
    return x / ratio;
})"""
ARABIC = "The word مرحبا 👋"


def long_text(model) -> list[int]:  # type: ignore[no-untyped-def]
    """So many tokens that a page of the usual size holds the patterns of some layers and not of all."""
    return model.tokenizer.encode_ordinary(TEXT * 3)[:285]  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def found(mini_oss):  # type: ignore[no-untyped-def]
    return views.compared(mini_oss, TEXT, lab.Change(forbid=[5]))


@pytest.fixture(scope="module")
def files(mini_oss, found, tmp_path_factory) -> dict[str, Path]:  # type: ignore[no-untyped-def]
    folder = tmp_path_factory.mktemp("pages")
    long = lab.watch(mini_oss, long_text(mini_oss), keep=views.keep_for(mini_oss.config), last=1)
    of_bytes = lab.watch(mini_oss, ARABIC, keep=views.keep_for(mini_oss.config), last=1)
    return {
        "two": views.export_html(found, folder / "two.html"),
        "long": views.export_html(long, folder / "long.html", mini_oss),
        "bytes": views.export_html(of_bytes, folder / "bytes.html", mini_oss),
    }


@pytest.fixture
def page(browser, files, request) -> Iterator:  # type: ignore[no-untyped-def, type-arg]
    """The page of two runs, or another that is named, at 1366 x 768."""
    watched = Watched(browser.new_context(viewport={"width": 1366, "height": 768}).new_page())
    watched.page.goto(files[getattr(request, "param", "two")].as_uri())
    watched.page.wait_for_selector("[role=tab]")
    yield watched.page
    watched.page.context.close()
    assert watched.wrong == []


def show(page, view: str, **selection: int) -> None:  # type: ignore[no-untyped-def]
    page.click(f".gl-tab[data-view={view}]")
    page.evaluate("changes => gptossLab.store.set(changes)", selection)
    page.wait_for_timeout(200)


def state(page) -> dict[str, int]:  # type: ignore[no-untyped-def]
    page.wait_for_timeout(120)
    return page.evaluate("gptossLab.store.get()")  # type: ignore[no-any-return]


def test_the_load_beside_a_zoomed_map_is_that_of_its_rows(page, found):
    show(page, "experts", layer=2, token=100, expert=7)
    load = found.before["blocks.2.experts.choice"][0].flatten().bincount(minlength=8).double()
    # four rows are the least; the selected one stays where it was, at 7.5 of 8, so row 3.75 is the first
    for zooms, (whole, first, count) in ((0, (0, 0, 8)), (4, (4, 3.75, 4))):
        for _ in range(zooms):
            page.click(ZOOM_IN)
        page.wait_for_timeout(150)
        bars = torch.tensor(page.locator(LOADS).evaluate(BARS, [whole, first, count])).double()
        want = load[whole:]
        torch.testing.assert_close(bars / bars.sum(), want / want.sum(), atol=0.02, rtol=0)


def test_the_wheel_scrolls_the_page_and_with_control_zooms(page):
    show(page, "experts", layer=2, token=45, expert=2)
    page.locator(MAP).click(position={"x": 300, "y": 60})
    before = page.locator(MAP).evaluate(PICTURE)
    page.mouse.wheel(0, 100)
    page.wait_for_timeout(200)
    assert page.evaluate("scrollY") > 0 and page.locator(MAP).evaluate(PICTURE) == before
    page.keyboard.down("Control")
    page.mouse.wheel(0, -100)
    page.keyboard.up("Control")
    page.wait_for_timeout(200)
    assert page.locator(MAP).evaluate(PICTURE) != before


def test_a_zoomed_map_follows_a_selection_made_elsewhere(page):
    show(page, "experts", layer=2, token=0, expert=0)
    for _ in range(4):
        page.click(ZOOM_IN)
    page.mouse.move(0, 0)
    page.evaluate("gptossLab.store.set({token: 100, expert: 7})")
    page.wait_for_timeout(150)
    corner = page.locator(MAP).evaluate("""canvas => {
        const [w, h] = [canvas.width, canvas.height], c = canvas.getContext("2d");
        const all = c.getImageData(0, 0, w, h).data;
        let [x, y] = [0, 0];
        for (let n = 0; n < all.length; n += 4) {
            if (all[n] !== 194 || all[n + 1] !== 24 || all[n + 2] !== 91) continue;
            [x, y] = [Math.max(x, (n / 4) % w), Math.max(y, Math.floor(n / 4 / w))];
        }
        return [x / w, y / h];
    }""")
    assert corner[0] > 0.9 and corner[1] > 0.6, corner  # the colour of what is selected


def test_brackets_count_wherever_one_is_on_a_page_and_letters_inside_the_explorer(page):
    show(page, "steps", token=50, layer=0, head=0, expert=0, step=0)
    page.evaluate("document.activeElement.blur()")
    for key in ("l", "L", "h", "e", "t", "n"):
        page.keyboard.press(key)
    told = ("layer", "head", "expert", "token", "step")
    assert [state(page)[name] for name in told] == [0, 0, 0, 50, 0]
    for key in ("]", "}", "."):
        page.keyboard.press(key)
    assert [state(page)[name] for name in told[:4]] == [1, 1, 0, 51]
    for key in ("[", "{", ","):
        page.keyboard.press(key)
    page.locator(".gl-tab[aria-selected=true]").focus()
    for key in ("l", "h", "e", "t"):
        page.keyboard.press(key)
    assert [state(page)[name] for name in told[:4]] == [1, 1, 1, 51]
    for key in ("n", "n", "p"):
        page.keyboard.press(key)
    assert state(page)["step"] == 4  # layer 1 brought it to 3
    page.click(".gl-tour-open")
    page.evaluate("document.activeElement.blur()")
    page.keyboard.press("Escape")
    assert page.locator(".gl-tour").is_hidden()
    keys = page.locator(".gl-foot details >> nth=2").text_content()
    assert "n p  next and previous step" in keys and "Letters count while the focus is inside" in keys


def test_keys_count_in_the_widget_and_not_beside_it(browser, mini_oss):
    watched = Watched(browser.new_context(viewport={"width": 1366, "height": 768}).new_page())
    open_live(watched.page, mini_oss, "Once upon a time")
    layer = watched.page.locator(".gl-bar label:has-text('layer') select")
    watched.open("steps")
    for focused, want in ((True, "1"), (False, "1")):
        if not focused:
            watched.page.evaluate("document.activeElement.blur()")
        watched.page.keyboard.press("l")
        watched.page.wait_for_timeout(100)
        assert layer.input_value() == want, focused
    watched.page.locator(".gl-tab[aria-selected=true]").focus()
    watched.page.keyboard.press("n")
    watched.page.wait_for_timeout(100)
    assert watched.page.locator(".gl-steps-found").inner_text().startswith("Block 1, experts")
    assert "#" not in watched.page.url
    watched.page.click(".gl-tour-open")
    watched.page.locator(".gl-tab[aria-selected=true]").focus()
    watched.page.keyboard.press("Escape")
    assert watched.page.locator(".gl-tour").is_hidden()
    watched.page.context.close()
    assert watched.wrong == []


def test_a_reload_comes_back_to_the_same_place(page):
    show(page, "attention", token=40, layer=3, head=5, expert=2)
    page.wait_for_timeout(300)
    assert "layer=3" in page.evaluate("location.hash")
    page.reload()
    page.wait_for_selector(".gl-root[data-view=attention]")
    assert {**state(page), "key": None} == {"token": 40, "layer": 3, "head": 5, "expert": 2, "key": None}


def test_the_sink_is_one_stop_and_the_gap_beside_it_none(page):
    show(page, "attention", token=40, layer=0)
    page.locator(".gl-attention-map").first.focus()
    said = []
    for key in ("Home", "ArrowRight", "ArrowRight", "ArrowLeft", "ArrowLeft"):
        page.keyboard.press(key)
        page.wait_for_timeout(80)
        said.append(page.locator(".gl-attention-side .gl-read").first.inner_text())
    stops = ("to the sink", "key 0 ", "key 1 ")
    assert [[stop for stop in stops if stop in text] for text in said] == [
        [stop] for stop in (*stops, stops[1], stops[0])
    ]


def test_a_pair_chosen_in_attention_opens_in_positions_and_nonsense_does_not(page):
    show(page, "attention", token=40, layer=1)
    page.locator(".gl-attention-map").nth(1).focus()
    for key in ("Home", "ArrowRight", "ArrowRight"):
        page.keyboard.press(key)
    assert state(page)["key"] == 1
    show(page, "positions")
    assert "39 tokens apart" in page.locator(".gl-pos-found").inner_text()
    page.evaluate("gptossLab.store.set({token: 20, key: 60})")  # as the tour left it
    show(page, "attention")
    show(page, "positions")
    words = page.locator(".gl-pos-found").inner_text()
    assert "1 token apart" in words and "never looks ahead" not in words
    page.get_by_label("key: whose vector").select_option("30")  # asked for here, it is shown
    page.wait_for_timeout(100)
    assert "never looks ahead" in page.locator(".gl-pos-found").inner_text()


@pytest.mark.parametrize("page", ["long"], indirect=True)
def test_what_was_left_out_is_said_where_it_is_missed(page, mini_oss):
    missing = page.locator(".gl-foot p").inner_text().split("pattern of layers ")[1].rstrip(".")
    assert len(missing.split(", ")) < 5, "some patterns are there"
    last = missing.split(", ")[-1]
    show(page, "attention", layer=int(last), token=50)
    told = page.locator(".gl-attention-lacks").inner_text()
    assert told.startswith(f"Layer {last} is chosen and not here; below are layers 0 and 1.")
    page.click(".gl-tour-open")
    for number, field in ((2, "head"), (4, "head")):
        for _ in range(3):
            if page.locator(".gl-tour-head .gl-quiet").inner_text().startswith(f"Question {number}"):
                break
            page.get_by_role("button", name="Next →").click()
        for name in ("layer", field):
            page.locator(f".gl-tour-fields label:has-text('{name}') select").select_option(index=1)
        for one in page.locator(".gl-tour-fields input").all():
            one.fill("20")
        page.click(".gl-tour-show")
        page.wait_for_timeout(200)
        said = page.locator(".gl-tour-answer").inner_text()
        if number == 2:
            assert f"layers {missing} were left out of what was sent (attention.pattern)" in said
        else:
            trace = lab.watch(mini_oss, long_text(mini_oss), keep=["blocks.*.attention.sink"])
            taken = torch.stack([trace[f"blocks.{n}.attention.sink"][0].mean(-1) for n in range(6)])
            assert f"All 36 heads: {100 * float(taken.mean()):.0f} %" in said and "You said 20 %" in said


def test_hover_says_why_a_word_has_no_share(page):
    show(page, "steps", step=6, layer=2, token=46, expert=2)
    titles = "[...document.querySelectorAll('.gl-steps-did .gl-token')].map(e => e.title)"
    assert "expert 2 not chosen" in page.evaluate(titles) and "not seen" not in page.evaluate(titles)
    show(page, "steps", step=13)
    assert page.evaluate(titles)[-1] == "nothing follows"
    show(page, "attention", token=46)
    words = page.locator(".gl-attention-side >> nth=0 >> .gl-token:not(.gl-sink)")
    for token, end in ((46, " %"), (50, "token 50: may not be seen")):
        words.nth(token).hover()
        assert words.nth(token).get_attribute("title").endswith(end)
    show(page, "experts", token=46)
    page.locator(".gl-experts-margins").hover(position={"x": 300, "y": 30})
    assert "just missed" in page.locator(".gl-read").first.inner_text()


def test_choices_outlive_a_change_of_tab(page):
    show(page, "experts")
    page.get_by_label("what the colours show").select_option("logit")
    show(page, "attention", layer=5)
    show(page, "attention", layer=4)
    show(page, "experts")
    assert page.get_by_label("what the colours show").input_value() == "logit"
    show(page, "attention")
    assert [one.input_value() for one in page.locator(".gl-attention-head select").all()] == ["4", "5"]


def test_before_and_after_are_drawn_on_one_scale(page):
    show(page, "compare", token=46, layer=2)
    page.click(".gl-compare-views [data-view=steps]")
    for step in (3, 8, 12):
        page.evaluate(f"gptossLab.store.set({{step: {step}}})")
        page.wait_for_timeout(150)
        told = [one.inner_text() for one in page.locator(".gl-steps-tells .gl-read").all()]
        assert len(told) == 2 and told[0] == told[1], step


@pytest.mark.parametrize("width", [1366, 1024, 640])
def test_narrow_comparisons_stack_and_percentages_stay_on_one_line(page, width):
    page.set_viewport_size({"width": width, "height": 800})
    show(page, "compare", token=92)
    boxes = [one.bounding_box() for one in page.locator(".gl-compare-side").all()]
    assert (boxes[0]["x"] == boxes[1]["x"]) == (width < 900)
    high = """names => names.flatMap(name => [...document.querySelectorAll(`${name} > span:last-child`)])
        .filter(e => /%/.test(e.textContent))
        .filter(e => e.scrollWidth > e.clientWidth + 1 || e.clientHeight > 26).length"""
    top = "document.querySelector('.gl-steps-tells').getBoundingClientRect().top + scrollY"
    cells = [".gl-compare-bar", ".gl-steps-next", ".gl-steps-answer"]
    for token in range(0, 110, 9):
        page.evaluate(f"gptossLab.store.set({{token: {token}}})")
        page.wait_for_timeout(40)
        assert page.evaluate(high, cells) == 0, token
    show(page, "steps", token=46)
    places = set()
    for step in range(14):
        page.evaluate(f"gptossLab.store.set({{step: {step}}})")
        page.wait_for_timeout(60)
        assert page.evaluate(high, cells) == 0, step
        places.add(page.evaluate(top))
    assert len(places) == 1, places


def test_the_tour_leaves_most_of_a_laptops_screen_to_the_view(page):
    show(page, "experts")
    page.click(".gl-tour-open")
    page.wait_for_timeout(150)
    assert page.evaluate("document.querySelector('.gl-panel').getBoundingClientRect().top") < 360
    page.keyboard.press("Escape")
    assert page.locator(".gl-strip").first.is_visible()


@pytest.mark.parametrize("page", ["bytes"], indirect=True)
def test_bytes_are_told_the_characters_that_they_make(page):
    assert page.title() == f"mini-oss: {ARABIC}"
    titles = [one.get_attribute("title") for one in page.locator(".gl-strip >> nth=0 >> .gl-token").all()]
    assert "part of “\u2068م\u2069”" in titles and "part of “👋”" in titles
    assert f"Text: “\u2068{ARABIC}\u2069”" in page.locator(".gl-foot details >> nth=1").text_content()
