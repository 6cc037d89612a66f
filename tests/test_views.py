"""The explorer without a browser: what it is sent, what it refuses, the page's bytes, the widget's words."""

from __future__ import annotations

import base64
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import torch
from toys import FAMILIES, gpt2, gpt_oss, random_model, random_tokens

import gptoss_lab as lab
from gptoss_lab import cli, points, views
from gptoss_lab.text.tokens import encoding, labels
from gptoss_lab.trace import open_trace, watch
from gptoss_lab.views import page, payload, stills
from gptoss_lab.views.tour import PARTS, TEXT

ROOT = Path(__file__).parent.parent
NODE = shutil.which("node")
needs_node = pytest.mark.skipif(NODE is None, reason="no node here: the renderer's arithmetic goes untested")


def toy(family: str = "gpt-oss", count: int = 9, **changes: object):
    """A random toy and a trace of everything that the views need."""
    model = random_model(FAMILIES[family](**changes))
    tokens = random_tokens(model.config, batch=1, count=count)
    return model, watch(model, tokens, keep=[*views.keep_for(model.config), "blocks.*.attention.scores"])


@needs_node
def test_the_renderers_own_tests_pass():
    done = subprocess.run([NODE, "--test", "tests/js/"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    assert int(re.search(r"# pass (\d+)", done.stdout)[1]) >= 30


def trace_is_real(name: str) -> bool:
    """Whether a point holds real numbers; choices are whole ones."""
    return not name.endswith(".choice")


@needs_node
@pytest.mark.parametrize("family", FAMILIES)
def test_what_the_browser_reads_is_what_the_trace_holds(family, tmp_path):
    """Every number of every point, read back by the renderer's own code: within half a step of 16 bits."""
    model, trace = toy(family)
    more = {f"extra.{n}": ("H T S", trace[f"blocks.{n}.attention.scores"][0]) for n in range(3)}
    header, block = payload.pack(trace, model, extra=more)
    sent = {"header": header, "block": base64.b64encode(block).decode()}
    (tmp_path / "sent.json").write_text(json.dumps(sent))
    core = (page.STATIC / "core.js").as_uri()
    (tmp_path / "read.mjs").write_text(f"""
        import {{ readFileSync }} from "node:fs";
        import {{ Data }} from {json.dumps(core)};
        const sent = JSON.parse(readFileSync({json.dumps(str(tmp_path / "sent.json"))}));
        const data = new Data(sent.header, Buffer.from(sent.block, "base64"));
        const all = {{}};
        for (const name of Object.keys(sent.header.arrays)) {{
          const v = data.get(name);
          const heads = v.axes.length === 3 && v.axes[2] === "S" ? [...Array(v.shape[0]).keys()] : null;
          const flat = heads ? heads.flatMap((h) => [...v.row(h)]) : [...v.row()];
          const last = v.shape.map((n) => n - 1);
          all[name] = {{ flat: flat.map((x) => (Number.isFinite(x) ? x : null)), last: v.at(...last) }};
        }}
        console.log(JSON.stringify(all));
    """)
    done = subprocess.run([NODE, str(tmp_path / "read.mjs")], capture_output=True, text=True, check=True)
    read = json.loads(done.stdout)
    assert set(read) == {*more, *(name for name in trace if not name.endswith(".scores"))}
    for name, found in read.items():
        want = (more[name][1] if name in more else trace[name][0]).float()
        got = torch.tensor([float("-inf") if x is None else float(x) for x in found["flat"]]).view(want.shape)
        step = header["arrays"][name]["step"] if trace_is_real(name) else 0
        torch.testing.assert_close(got, want, rtol=1e-6, atol=0.51 * step)
        assert found["last"] == pytest.approx(float(want.flatten()[-1]), abs=0.51 * step + 1e-6)


def test_a_band_takes_no_more_room_than_its_window():
    pattern = torch.rand(2, 40, 40).tril().triu(-4)
    about, data = payload.packed(["H", "T", "S"], pattern, window=5)
    assert about["count"] == 2 * (1 + 2 + 3 + 4 + 36 * 5) and len(data) == 2 * about["count"]
    assert payload.packed(["H", "T", "S"], pattern)[0]["count"] == 2 * 40 * 41 // 2


@needs_node
def test_the_largest_numbers_are_read_back_as_they_are(tmp_path):
    extremes = torch.tensor([-3e38, 0.0, 3e38])
    about, data = payload.packed(["D"], extremes)
    given = json.dumps([{**about, "offset": 0}, list(data), (page.STATIC / "core.js").as_uri()])
    (tmp_path / "read.mjs").write_text(f"""
        const [about, bytes, core] = {given};
        const {{ Values }} = await import(core);
        console.log(JSON.stringify([...new Values(about, Uint8Array.from(bytes)).row()]));
    """)
    done = subprocess.run([NODE, str(tmp_path / "read.mjs")], capture_output=True, text=True, check=True)
    torch.testing.assert_close(torch.tensor(json.loads(done.stdout)), extremes, rtol=1e-6, atol=about["step"])


@pytest.mark.parametrize(("odd", "warned"), [
    (torch.nan, True), (torch.inf, True), (-torch.inf, False), (3e38, False),
])  # fmt: skip
def test_points_with_what_is_no_number_are_named(odd, warned):
    model, trace = toy()
    trace["blocks.1.residual"][0, 2, 3] = odd
    header, _ = payload.packed_views(trace, model)
    told = "NaN or +∞ in residual of layers 1: shown as −∞, or as what may not be seen."
    assert header["no_numbers"] == (told if warned else "")
    assert (told in header["summary"]) == warned and page.escaped(header)


def test_what_is_minus_infinity_or_nan_is_a_hole():
    about, data = payload.packed(["T", "E"], torch.tensor([[1.0, -torch.inf], [torch.nan, 3.0]]))
    codes = torch.frombuffer(bytearray(data), dtype=torch.uint16).tolist()
    assert codes == [0, payload.HOLE, payload.HOLE, payload.HOLE - 1] and about["hole"] == payload.HOLE


@pytest.mark.parametrize(("most", "kind"), [(255, "u8"), (256, "u16"), (65535, "u16"), (201087, "u32")])
def test_whole_numbers_stay_themselves(most, kind):
    about, data = payload.packed(["T"], torch.tensor([0, most]))
    assert about["kind"] == kind and about["step"] == 1 and about["lo"] == 0
    assert int.from_bytes(data[len(data) // 2 :], "little") == most


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_fills_its_views_and_says_why_not_others(family):
    model, trace = toy(family)
    absent = payload.missing(trace, model.config)
    assert ("experts" in absent) == (model.config.n_experts is None)
    assert not {"attention", "positions", "steps"} & set(absent)
    for name, why in absent.items():
        assert model.config.name in why
        with pytest.raises(ValueError, match=re.escape(why)):
            getattr(views, name)(trace, model)


def test_a_trace_without_a_views_points_is_told_what_to_keep():
    model, trace = toy()
    for name, view in payload.VIEWS.items():
        dropped = points.match(view.needs[0], model.config)[-1]
        poorer = watch(model, trace.tokens, keep=[n for n in trace if n != dropped])
        told = f"{re.escape(repr(dropped))}: watch again with keep="
        with pytest.raises(ValueError, match=told) as refused:
            getattr(views, name)(poorer, model)
        keep = re.search(r"keep=(\[.*\])", str(refused.value))[1]
        again = watch(model, trace.tokens, keep=json.loads(keep.replace("'", '"')))
        assert getattr(views, name)(again, model).header["views"] == [name]


def test_a_trace_that_fills_nothing_is_refused(tmp_path):
    model, _ = toy()
    bare = watch(model, random_tokens(model.config, batch=1), keep="logits")
    with pytest.raises(ValueError, match="fills no view: the trace lacks"):
        views.export_html(bare, tmp_path / "page.html", model=model)
    assert list(tmp_path.iterdir()) == []


def test_a_trace_of_another_model_is_not_shown_under_this_ones_name(tmp_path):
    model, trace = toy()
    others = {"window": model.with_config(window=None), "weights": random_model(gpt_oss(), seed=9)}
    for apart, other in others.items():
        with pytest.raises(ValueError, match=rf"the trace is of toy-oss \(.*They differ in {apart}: give"):
            views.export_html(trace, tmp_path / "page.html", model=other)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("call", "told"), [
    (lambda model, trace: views.explore("mini-oss"), "model is 'mini-oss'; expected a model"),
    (lambda model, trace: views.steps(trace, "mini-oss"), "model is 'mini-oss'; expected a model"),
    (lambda model, trace: views.compare("mini-oss", "hi"), "model is 'mini-oss'; expected a model"),
    (lambda model, trace: views.compare(model, [1], beside="gpt2"), "beside is 'gpt2'; expected a model"),
    (lambda model, trace: views.steps("t.safetensors"), r"as lab.open_trace\('t.safetensors'\) gives"),
    (lambda model, trace: views.export_html("t.safetensors", "x.html"), "this is str; expected a trace"),
    (lambda model, trace: views.export_html(None, "x.html"), "this is NoneType; expected a trace"),
    (lambda model, trace: views.export_html(trace, "x.html", limit=10), r"takes \d+ bytes .*raise limit=10"),
    (lambda model, trace: views.export_html(trace, "x.html", limit=torch.nan), "limit=nan; expected bytes"),
    (lambda model, trace: views.export_html(trace, "x.html", views="expert"), "no view 'expert'; there are"),
])  # fmt: skip
def test_a_slip_is_told_in_words(call, told, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=told):
        call(*toy())
    assert list(tmp_path.iterdir()) == []


def test_one_view_may_be_named_alone_and_a_limit_may_be_none(tmp_path):
    model, trace = toy()
    file = views.export_html(trace, tmp_path / "page.html", model=model, views="experts", limit=float("inf"))
    header = json.loads(script_blocks(file.read_text("utf-8"))[0])
    assert views.keep_for(model.config, "experts") == views.keep_for(model.config, ["experts"])
    assert header["views"] == ["experts"] == views.shown(trace, model, "experts").header["views"]


def test_a_model_without_the_clamp_is_shown(tmp_path):
    model = random_model(gpt_oss()).with_config(swiglu_limit=float("inf"))
    trace = watch(model, [1, 2, 3], keep=views.keep_for(model.config))
    file = views.export_html(trace, tmp_path / "page.html", model=model)
    assert json.loads(script_blocks(file.read_text("utf-8"))[0])["config"]["swiglu_limit"] is None


def test_unknown_views_and_folders_are_refused(tmp_path):
    model, trace = toy()
    with pytest.raises(ValueError, match="no view 'expert'; there are experts, attention"):
        views.export_html(trace, tmp_path / "page.html", model=model, views=["expert"])
    with pytest.raises(ValueError, match="no folder .* make it first"):
        views.export_html(trace, tmp_path / "nowhere" / "page.html", model=model)


def test_the_config_of_a_trace_is_the_models_own_or_the_recorded_one():
    model, trace = toy()
    assert payload.config_of(trace, model) is model.config and payload.config_of(trace) == model.config


def test_a_recorded_config_survives_saving(tmp_path):
    from dataclasses import asdict

    model, trace = toy(windowed_layers=(1, 2))
    trace.source["config"] = asdict(model.config)
    again = open_trace(trace.save(tmp_path / "trace.safetensors"))
    assert payload.config_of(again) == model.config


def script_blocks(source: str) -> list[str]:
    """What lies in each script of a page, cut where a browser would cut it."""
    return re.findall(r"<script[^>]*>(.*?)</script", source, flags=re.DOTALL | re.IGNORECASE)


HOSTILE = ["</script><script>alert(1)</script>", "<!--<script>", "a\u2028b & \\u003c <b>"]


@pytest.mark.parametrize("text", HOSTILE)
def test_text_cannot_leave_its_block(text, tmp_path):
    model, trace = toy()
    trace.labels[:] = [text] * len(trace.labels)
    source = views.export_html(trace, tmp_path / "page.html", model=model).read_text("utf-8")
    header, block, module = script_blocks(source)
    assert json.loads(header)["labels"] == trace.labels
    assert not set("<>\u2028") & set(header)
    assert base64.b64decode(block) and module.rstrip().endswith("mountPage();")
    outside = re.sub(r"<script.*?</script>|<style.*?</style>", "", source, flags=re.DOTALL)
    assert "<b>" not in outside and "alert(1)</" not in outside and outside.count("<!--") == 0


def test_the_page_asks_nobody_for_anything(tmp_path):
    model, trace = toy()
    source = views.export_html(trace, tmp_path / "page.html", model=model).read_text("utf-8")
    policy = re.search(r'Content-Security-Policy"\s+content="([^"]+)"', source)[1]
    assert policy.startswith("default-src 'none'; script-src 'sha256-") and "http" not in policy
    addresses = set(re.findall(r"https?://[^\s\"'<>)]+", source))
    assert addresses <= {"http://www.w3.org/2000/svg"}
    assert not re.search(r"<(link|img|iframe|script src)|@import|url\(", source)


@pytest.mark.parametrize("tokens", [128, 700])
def test_a_page_stays_under_five_megabytes_and_says_what_it_left_out(tokens, tmp_path):
    model = lab.load("mini-oss")
    ids = (model.tokenizer.encode_ordinary("Once upon a time there was a king. " * 200))[:tokens]
    trace = watch(model, ids, keep=views.keep_for(model.config), last=1)
    file = views.export_html(trace, tmp_path / "page.html", model=model)
    header = json.loads(script_blocks(file.read_text("utf-8"))[0])
    assert file.stat().st_size < 5_000_000
    if tokens == 128:
        assert header["left_out"] == [] and header["missing"] == {}
        assert {name for name in trace} <= set(header["arrays"])
    else:
        assert any(re.match(r"attention\.pattern of layers? \d", told) for told in header["left_out"])
        assert "blocks.0.experts.logits" in header["arrays"] and "blocks.5.experts.choice" in header["arrays"]


@pytest.mark.parametrize("runs", [1, 2])
def test_a_deep_models_headers_are_counted_and_as_much_is_left_out_as_must_be(runs, monkeypatch):
    model = random_model(gpt_oss(n_layers=24, d_model=64, context=512, vocab_size=4096))
    model.tokenizer, passes = encoding("mini"), []
    ids = model.tokenizer.encode_ordinary(TEXT)[:120]
    trace = watch(model, ids, keep=views.keep_for(model.config), last=1)
    shown = trace if runs == 1 else views.compared(model, ids, lab.Change(forbid=[3]), before=trace)
    pack, read = payload.pack, payload.read_out_early
    monkeypatch.setattr(payload, "pack", lambda *given: passes.append("pack") or pack(*given))
    monkeypatch.setattr(payload, "read_out_early", lambda *given: passes.append("read") or read(*given))
    for limit in range(1_500_000, 5_000_000, 700_000):
        source, left = page.made(shown, model, None, limit)
        assert (0.9 if left else 0.8) * limit < len(source.encode()) <= limit
        assert passes.count("read") == runs and passes.count("pack") <= 4 * runs
        passes.clear()
    # where not even the small points have room, the page says so, and only then
    empty = r"takes (\d+) bytes even without any points; raise limit=1000$"
    with pytest.raises(ValueError, match=empty) as told:
        page.made(shown, model, None, 1000)
    least = int(re.search(empty, str(told.value))[1])
    source, left = page.made(shown, model, None, least + 2000)
    assert len(source.encode()) <= least + 2000 and left


def test_what_stands_outside_the_blocks_may_be_left_out_too():
    model, trace = toy()
    header, block = payload.pack(trace, model, limit=0)
    assert not block and not header["arrays"]
    assert "embedding" in header["left_out"] and "residual of layers 0, 1, 2" in header["left_out"]


@needs_node
def test_the_joined_script_is_a_module(tmp_path):
    """No name is taken twice, nothing is imported, and the one export is the widget's."""
    (tmp_path / "all.mjs").write_text(page.script())
    done = subprocess.run([NODE, "--check", str(tmp_path / "all.mjs")], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    left = re.findall(r"^(?:import|export)\b.*", page.script(), flags=re.MULTILINE)
    assert left == ["export default { render };"]


def test_joining_drops_imports_of_every_form():
    dropped = 'import { a } from "./a.js";\nimport {\n  b,\n  c,\n} from "./b.js";\nimport "./d.js";\n'
    dropped += 'export { e } from "./e.js";\n'
    kept = "export const f = 1;\nexport function g() {}\nexport default { f };\n"
    assert page.joined(dropped + kept) == "const f = 1;\nfunction g() {}\nexport default { f };\n"


class Sent(views.Explorer):
    """An explorer that keeps what it would send."""

    def send(self, content, buffers=None):  # type: ignore[no-untyped-def]
        self.__dict__.setdefault("out", []).append(content)


@pytest.fixture
def live():
    """A widget whose model has a tokenizer, over a first text."""
    model = random_model(gpt_oss(vocab_size=4096))
    model.tokenizer = encoding("mini")
    trace = watch(model, "Once upon a time", keep=views.keep_for(model.config), last=1)
    return Sent(trace, model, live=True)


def test_a_typed_prompt_is_run_and_shown(live):
    before = live.block
    live._answer(live, {"id": 7, "type": "run", "prompt": "a </script> b"}, [])
    answer = live.__dict__["out"][-1]
    assert answer["id"] == 7 and 0 < answer["seconds"] < 60
    assert "".join(live.header["text"]) == "a </script> b" == live.header["prompt"]
    assert live.block != before and live.trace.labels == live.header["labels"]


@pytest.mark.parametrize(("message", "told"), [
    ({"type": "run", "prompt": ""}, "the prompt is empty"),
    ({"type": "fly"}, "cannot do 'fly'; it can do run"),
])  # fmt: skip
def test_a_mistake_is_answered_in_words(live, message, told):
    before = live.header
    live._answer(live, {"id": 1, **message}, [])
    assert told in live.__dict__["out"][-1]["error"] and live.header is before


def test_a_view_may_ask_the_kernel_for_more(live):
    live.handlers["double"] = lambda message: {"twice": 2 * message["n"]}
    live._answer(live, {"id": 2, "type": "double", "n": 21}, [])
    assert live.__dict__["out"][-1] == {"id": 2, "twice": 42}


def test_whatever_goes_wrong_the_browser_is_answered(live):
    live.handlers["fail"] = lambda message: message["nothing of this name"]
    live._answer(live, {"id": 3, "type": "fail"}, [])
    assert live.__dict__["out"][-1] == {"id": 3, "error": "KeyError: 'nothing of this name'"}


def test_models_without_a_tokenizer_show_ids_and_take_no_text():
    model = random_model(gpt_oss())
    widget = views.explore(model)
    assert widget.can_run is False and widget.header["labels"] == [str(n) for n in range(24)]


def test_where_widgets_cannot_run_there_is_a_still_and_a_text():
    model, trace = toy()
    for name in views.VIEWS:
        shown, _ = getattr(views, name)(trace, model)._repr_mimebundle_()
        assert "application/vnd.jupyter.widget-view+json" in shown
        assert base64.b64decode(shown["image/png"]).startswith(b"\x89PNG")
        assert shown["text/plain"].startswith("9 tokens: ")
        assert "Layer 1 (dense): busiest experts" in shown["text/plain"]


def test_the_code_that_is_copied_draws_the_view():
    model = lab.load("mini-oss")
    trace = watch(model, 'It\'s a "test" \\ of\nlines', keep=views.keep_for(model.config))
    header, _ = payload.packed_views(trace, model)
    assert set(header["code"]) == set(views.VIEWS)
    scope: dict[str, object] = {}
    *lines, last = header["code"]["attention"].splitlines()
    exec("\n".join(lines), scope)
    made = scope["trace"]
    assert made.tokens.equal(trace.tokens) and last == "lab.views.attention(trace, model)"
    assert views.attention(made, scope["model"]).header["labels"] == trace.labels


def test_the_code_for_a_model_in_a_folder_has_a_place_for_its_path():
    model, trace = toy()
    code = payload.code_for("experts", trace, model)
    name = model.config.name
    assert f"model = lab.load('path/to/{name}')  # the folder where it lies\n" in code


# Two runs


def two_runs():  # type: ignore[no-untyped-def]
    """A comparison of the toy with itself under a change."""
    model = random_model(gpt_oss())
    change = lab.Change(forbid=[3], window=None)
    return views.compared(model, random_tokens(model.config, batch=1), change)


def test_a_page_of_two_runs_holds_both_and_what_stands_between(tmp_path):
    found = two_runs()
    source = views.export_html(found, tmp_path / "page.html").read_text("utf-8")
    first, _, second, block, module = script_blocks(source)
    one, two = json.loads(first), json.loads(second)
    assert one["labels"] == two["labels"] and module.rstrip().endswith("mountPage();")
    extra = two["extra"]
    assert extra["compare.words"] == "expert 3 forbidden; no windows"
    assert extra["compare.texts"] == list(found.texts) and two["config"]["windows"] == [None] * 3
    data, about = base64.b64decode(block), two["arrays"]["compare.divergence"]
    place = {"offset": about["offset"], "count": about["count"]}
    codes = torch.frombuffer(bytearray(data), dtype=torch.uint16, **place)
    read = about["lo"] + codes.float() * about["step"]
    torch.testing.assert_close(read, found.divergence, rtol=0, atol=about["step"])


@pytest.mark.parametrize("tokens", [128, 500])
def test_a_page_of_two_runs_keeps_to_its_limit(tokens, tmp_path):
    model = lab.load("mini-oss")
    ids = (model.tokenizer.encode_ordinary("Once upon a time there was a king. " * 80))[:tokens]
    found = views.compared(model, ids, lab.Change(forbid=[5]))
    file = views.export_html(found, tmp_path / "page.html")
    one, _, two, *_ = script_blocks(file.read_text("utf-8"))
    assert file.stat().st_size < 5_000_000
    left = [json.loads(header)["left_out"] for header in (one, two)]
    assert left == [[], []] if tokens == 128 else all(left)


def test_a_text_of_the_second_run_cannot_leave_its_block(tmp_path):
    found = two_runs()
    found.after.labels[:] = ["</script><script>alert(1)</script>"] * len(found.after.labels)
    object.__setattr__(found, "texts", ("</script>", "<!--<script>"))
    source = views.export_html(found, tmp_path / "page.html").read_text("utf-8")
    second = script_blocks(source)[2]
    assert json.loads(second)["extra"]["compare.texts"] == ["</script>", "<!--<script>"]
    assert not set("<>") & set(second)


def test_a_change_that_is_made_is_run_and_undone(live):
    live._answer(live, {"id": 1, "type": "compare", "change": {"forbid": [[None, 3]]}}, [])
    assert 0 < live.__dict__["out"][-1]["seconds"] < 60
    assert live.comparison.words == "expert 3 forbidden" == live.beside["extra"]["compare.words"]
    before = live.beside_block
    live._answer(live, {"id": 2, "type": "run", "prompt": "a king"}, [])
    assert live.beside["labels"] == live.header["labels"] and live.beside_block != before
    assert not (live.comparison.after["blocks.0.experts.choice"] == 3).any()
    live._answer(live, {"id": 3, "type": "compare", "change": {}}, [])
    assert live.comparison is None and live.beside == {} and live.beside_block == b""


@pytest.mark.parametrize(("message", "told"), [
    ({"change": {"forbid": [[None, 9]]}}, "there is no expert 9"),
    ({"change": {"fly": 1}}, "no change 'fly'"),
    ({"change": 5}, "a change is int; expected a mapping"),
    ({"change": {"window": 10**30}}, f"window={10**30}; expected at least 1"),
    ({"change": {}, "other": "../etc"}, "'../etc' cannot stand beside toy-oss; no shipped model can"),
])  # fmt: skip
def test_a_change_that_cannot_be_made_is_answered_in_words_and_leaves_what_was_there(live, message, told):
    live.compare(lab.Change(forbid=[1]))
    shown = live.beside
    live._answer(live, {"id": 1, "type": "compare", **message}, [])
    assert told in live.__dict__["out"][-1]["error"] and live.beside is shown


def test_another_shipped_model_stands_beside_and_what_it_lacks_is_said():
    widget = views.explore(lab.load("mini-oss"), "Once upon a time")
    assert widget.others == ["mini-gpt2"]
    widget.answer_compare({"change": {"window": 8}, "other": "mini-gpt2"})
    assert widget.comparison.words == "mini-gpt2; window of 8" and widget.beside["config"]["family"] == "gpt2"
    assert "one dense MLP a layer, no experts" in widget.beside["missing"]["experts"]
    other = widget.comparison.beside
    widget.run("Había una vez")
    assert widget.comparison.words == "mini-gpt2; window of 8"
    assert widget.beside["labels"] == widget.trace.labels
    widget.answer_compare({"change": {}, "other": "mini-gpt2"})  # its own windows again, and not read again
    assert widget.comparison.words == "mini-gpt2" and widget.comparison.beside is other
    assert widget.beside["config"]["windows"] == [None] * 6
    widget.answer_compare({"change": {}, "other": ""})
    assert widget.comparison is None and widget.others == ["mini-gpt2"]


def test_a_model_of_ones_own_stays_beside_while_the_change_is_changed():
    model, own = random_model(gpt_oss()), random_model(gpt2(), seed=4)
    widget = views.compare(model, random_tokens(model.config, batch=1), lab.Change(window=2), own)
    assert widget.others == ["toy-gpt2"] and widget.beside["extra"]["compare.other"] == "toy-gpt2"
    widget.answer_compare({"change": {"window": None}, "other": "toy-gpt2"})
    assert widget.comparison.beside is own and widget.comparison.words == "toy-gpt2; no windows"
    widget.answer_compare({"change": {}})
    widget.answer_compare({"change": {}, "other": "toy-gpt2"})
    assert widget.comparison.beside is own and widget.comparison.other is own


def test_one_view_alone_is_compared_too():
    model, trace = toy()
    keep = views.keep_for(model.config, ["experts"])
    widget = views.experts(lab.watch(model, trace.tokens, keep=keep, last=1), model)
    widget.compare(lab.Change(forbid=[1]))
    assert widget.beside["extra"]["compare.words"] == "expert 1 forbidden" and widget.others == []


def test_a_still_is_of_what_its_view_shows(monkeypatch):
    model, trace = toy()
    found = two_runs()
    given: dict[str, tuple] = {}  # type: ignore[type-arg]
    for name in ("router", "attention", "rope_score", "next_tokens"):
        drawn = getattr(stills.figures, name)
        keep = lambda *a, name=name, drawn=drawn, **k: (given.update({name: (a, k)}), drawn(*a, **k))[1]
        monkeypatch.setattr(stills.figures, name, keep)
    stills.still_of("positions", trace, model, None)
    (q, k, turning, _), more = given["rope_score"]
    assert torch.equal(q, trace["blocks.0.attention.q"][0, -1, 0]) and more["distance"] == 8
    assert torch.equal(k, trace["blocks.0.attention.k"][0, 0, 0]) and len(turning) == 3
    stills.still_of("steps", trace, model, None)
    share, names = given["next_tokens"][0]
    with torch.no_grad():
        best = model(trace.tokens, last=1)[0, 0].softmax(-1).topk(8)
    assert torch.allclose(share, best.values, atol=1e-6) and names == labels(best.indices.tolist(), None)
    stills.still_of("compare", found.before, found.model, found)
    (after, _), more = given["next_tokens"]
    assert torch.equal(torch.stack([more["before"], after]), found.probability[:, -1])
    stills.still_of("attention", trace, model, None)
    assert torch.equal(given["attention"][0][0], trace["blocks.0.attention.pattern"][0, 0])
    assert torch.equal(given["attention"][1]["sink"], trace["blocks.0.attention.sink"][0, 0])
    assert "router" not in given
    stills.still_of("experts", trace, model, None)
    assert torch.equal(given["router"][0][0], trace["blocks.0.experts.choice"][0])


def test_a_widget_over_a_trace_alone_changes_nothing():
    model, trace = toy()
    widget = views.experts(trace, model)
    assert not widget.can_change and "compare" not in widget.handlers
    with pytest.raises(ValueError, match="shows a trace and has no model"):
        views.experts(trace).compare(lab.Change(forbid=[1]))


def test_the_code_that_is_copied_makes_the_comparison_again():
    model = lab.load("mini-oss")
    widget = views.compare(model, "Once upon a time", lab.Change(forbid=[5, (2, 1)], window=None))
    assert widget.view == "compare" and widget.can_change
    *lines, last = widget.beside["code"]["compare"].splitlines()
    scope: dict[str, object] = {}
    exec("\n".join(lines), scope)
    again = eval(last, scope)
    assert again.beside["extra"]["compare.change"] == widget.beside["extra"]["compare.change"]
    assert again.beside_block == widget.beside_block


def test_a_miniature_runs_on_one_thread_and_leaves_the_others_as_they_were():
    from gptoss_lab.machine import light

    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with light(random_model(gpt_oss())):
            assert torch.get_num_threads() == 1
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


@needs_node
def test_the_tours_text_is_taken_for_the_languages_that_it_is_written_in(tmp_path):
    """Token by token, by the renderer's own guess; and it is longer than two windows: an edge is seen."""
    model = lab.load("mini-oss")
    ids = [model.tokenizer.encode_ordinary(part) for part in PARTS.values()]
    assert sum(ids, []) == model.tokenizer.encode_ordinary(TEXT)
    assert len(sum(ids, [])) > 2 * model.config.window
    text = [payload.raw(label) for label in labels(sum(ids, []), model.tokenizer)]
    source = f"import {{ tourLanguages }} from {json.dumps((page.STATIC / 'tour.js').as_uri())};\n"
    source += f"console.log(JSON.stringify(tourLanguages({json.dumps(text)})));"
    (tmp_path / "guess.mjs").write_text(source, "utf-8")
    done = subprocess.run([NODE, str(tmp_path / "guess.mjs")], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == [name for name, part in zip(PARTS, ids) for _ in part]


def test_the_command_without_a_text_writes_a_page_over_the_tours(tmp_path, capsys):
    assert cli.main(["explore", "--out", str(tmp_path / "tour.html")]) == 0
    header = json.loads(script_blocks((tmp_path / "tour.html").read_text("utf-8"))[0])
    assert header["prompt"] == header["tour"] == TEXT
    assert "open it in a browser" in capsys.readouterr().out
    assert cli.main(["explore", "", "--out", str(tmp_path / "none.html")]) == 2
    assert not (tmp_path / "none.html").exists()
    assert "the prompt is empty" in capsys.readouterr().err
