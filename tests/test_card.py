"""The model card: its numbers are those of other ways to measure, and its words follow the numbers."""

from __future__ import annotations

import copy
import json
import math
import re
import statistics
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

import gptoss_lab as lab
from gptoss_lab.card import (
    attending,
    losses,
    measured,
    of_experts,
    of_heads,
    of_losses,
    of_models,
    of_writing,
    overview,
    page,
    pictures,
    routed,
    words,
    writing,
)
from gptoss_lab.card.measured import QUICK
from gptoss_lab.config import Config, Yarn
from gptoss_lab.model import Transformer
from gptoss_lab.text.tokens import encoding
from gptoss_lab.training import measure
from gptoss_lab.training.corpus import DOMAINS, Windows, heldout_windows
from gptoss_lab.training.forms import attach
from gptoss_lab.training.measure import evaluate, near_and_far
from gptoss_lab.training.recipes import RECIPES

DOCS = Path(__file__).parent.parent / "docs"
AGAIN = "run `python -m gptoss_lab.card docs/models.md` (with --measure for other weights) and commit"
OSS = Config(
    name="mini-oss", family="gpt-oss", n_layers=2, d_model=32, n_heads=4, n_kv_heads=2, d_head=8, d_ff=32,
    vocab_size=4096, context=512, rope_theta=1000.0, yarn=Yarn(factor=2.0, original_context=256), window=16,
    sinks=True, n_experts=4, experts_per_token=2, stop_ids=(4095,),
)  # fmt: skip
GPT2 = Config(
    name="mini-gpt2", family="gpt2", n_layers=2, d_model=32, n_heads=4, n_kv_heads=4, d_head=8, d_ff=32,
    vocab_size=4096, context=256, norm="layer", positions="learned", activation="gelu", tied=True,
    stop_ids=(4095,),
)  # fmt: skip


def toy(config: Config) -> Transformer:
    """A toy with the miniatures' tokens, whose routers and heads differ."""
    model = Transformer.random(config, 0)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            loud = re.search(r"attention\.[qkvo]\.weight$|router\.weight$|embedding$", name)
            weight *= 12.0 if loud else 1.0
            weight += 2.0 if name.endswith("sinks") else 0.0
    model.tokenizer = encoding("mini")
    return model.requires_grad_(False)


@pytest.fixture(scope="module")
def models() -> dict[str, Transformer]:
    return {"mini-oss": toy(OSS), "mini-gpt2": toy(GPT2)}


@pytest.fixture(scope="module")
def found() -> dict[str, dict]:
    """What was recorded of the shipped models."""
    return {name: measured.recorded(name) for name in measured.MODELS}


@pytest.fixture(scope="module")
def quick(models) -> dict[str, dict]:
    """Both toys measured, over little text, as JSON gives it back."""
    return {name: json.loads(json.dumps(measured.measure(model, QUICK, say=lambda _: None)))
            for name, model in models.items()}  # fmt: skip


def logs() -> dict[str, dict]:
    return {name: of_models.log_of(name) for name in measured.MODELS}


def test_the_page_is_made_from_the_recorded_numbers():
    assert page.current() == (DOCS / "models.md").read_text("utf-8"), AGAIN


@pytest.mark.parametrize("name", measured.MODELS)
def test_the_recorded_numbers_are_of_the_weights_that_are_shipped(found, name):
    assert found[name]["weights"] == lab.load(name).weights_from, AGAIN


@pytest.mark.parametrize("name", measured.MODELS)
def test_the_pictures_are_of_the_recorded_numbers(found, name):
    for kind, still in pictures.stills(name, found[name]).items():
        with Image.open(DOCS / "pictures" / f"{name}_{kind}.png") as drawn:
            assert drawn.text["Description"] == still.alt, AGAIN  # type: ignore[attr-defined]


def test_a_recorded_loss_is_what_another_way_to_measure_gives(found):
    model = lab.load("mini-gpt2")
    windows = heldout_windows(model.tokenizer, "arithmetic", 256, found["mini-gpt2"]["size"]["near"])
    bits = float(measure.losses(attach(model.with_config()), windows.tokens).double().sum()) / math.log(2)
    told = found["mini-gpt2"]["losses"]["bits"]["256"]["arithmetic"]
    assert told["bits"] == pytest.approx(bits / int(windows.bytes.sum()), abs=1e-4)


def test_toys_of_both_kinds_are_measured_and_said_whole(quick, models):
    configs = {name: model.config for name, model in models.items()}
    text = page.report(quick, configs, logs())
    assert text.count("\n## ") == 4 and "{" not in re.sub(r"`+[^\n]*`+", "", text)
    assert not re.search(r"\bnan\b|None|\+0\.000 ± 0\.000\d", re.sub(r"`+[^\n]*`+", "", text))
    for name in measured.MODELS:
        stills = pictures.stills(name, quick[name])
        assert list(stills) == ["heads", "positions", *(["experts", "verses"] if name == "mini-oss" else [])]
        assert all(still.alt for still in stills.values())


def test_a_toy_is_measured_the_same_twice(quick, models):
    again = measured.rounded(routed.figures(models["mini-oss"], QUICK))
    assert json.loads(json.dumps(again)) == quick["mini-oss"]["routed"]
    again = measured.rounded(attending.looks(models["mini-gpt2"], looked_at(models["mini-gpt2"])))
    assert again.items() <= quick["mini-gpt2"]["heads"].items()


def looked_at(model: Transformer) -> torch.Tensor:
    """The windows whose patterns are read."""
    sets = losses.texts(model.tokenizer, 256, QUICK.heads)
    return torch.cat([sets[domain].tokens[:, :256] for domain in DOMAINS])


def test_losses_by_domain_are_those_of_evaluate_and_the_interval_is_that_of_a_ratio(models):
    model = models["mini-oss"]
    sets = losses.texts(model.tokenizer, 256, 3)
    rows = losses.by_domain(losses.nats(model, sets), sets)
    for domain, bits in evaluate(model, model.tokenizer, 256, 3).items():
        assert rows[domain]["bits"] == pytest.approx(bits, rel=1e-5) and rows[domain]["windows"] == 3
    assert rows["mean"]["bits"] == pytest.approx(statistics.fmean(rows[d]["bits"] for d in DOMAINS))
    bits = [[1.0, 3.0], [2.0, 2.0]]
    told = losses.compared(bits, [[0.0, 1.0], [2.0, 2.0]])
    assert told == pytest.approx({"bits": 2.0, "more": 0.75, "within": 1.96 * math.sqrt(0.5 / 2) / 2})


def test_an_interval_is_of_the_mean_over_windows():
    values = torch.tensor([[1.0], [2.0], [6.0]])
    assert float(losses.within(values)[0]) == pytest.approx(1.96 * statistics.stdev([1, 2, 6]) / 3**0.5)


def test_an_interval_of_bits_per_byte_is_that_of_a_ratio():
    """Windows of other lengths in bytes, all at two bits a byte: nothing is left open."""
    sizes = torch.tensor([100, 200, 400])
    sets = {"python": Windows(torch.zeros(3, 9, dtype=torch.int64), sizes)}
    nats = {"python": (2 * math.log(2) * sizes / 8)[:, None].expand(3, 8)}
    told = losses.by_domain(nats, sets)["python"]
    assert told["bits"] == pytest.approx(2.0) and told["within"] == pytest.approx(0, abs=1e-5)


def test_spans_are_means_over_their_positions():
    rows = torch.arange(512.0).expand(2, -1)
    apart = losses.above_last({"a": -rows, "b": -rows + torch.tensor([[0.0], [3.0]])})
    assert [more for more, _ in apart] == pytest.approx([380.0, 364.0, 304.0, 192.0])
    assert [left for _, left in apart] == pytest.approx([0.0] * 4)
    assert losses.spans(512) == ["0–7", "8–31", "32–127", "128–255", "256–511"]
    means = [mean for mean, _ in losses.by_span({"a": rows, "b": rows + 2})["mean"]]
    assert means == pytest.approx([4.5, 20.5, 80.5, 192.5, 384.5])


def test_far_context_is_near_and_far(models):
    model = models["mini-oss"]
    sets = {name: heldout_windows(model.tokenizer, name, 512, 2) for name in ("python", "spanish")}
    rows = losses.far_context(model, losses.nats(model, sets), sets)
    assert rows["mean"]["more"] == pytest.approx((rows["python"]["more"] + rows["spanish"]["more"]) / 2)
    for domain in sets:
        near, far = near_and_far(model, sets[domain].tokens, 256)
        assert (rows[domain]["near"], rows[domain]["far"]) == pytest.approx((near, far), abs=1e-4)
        assert rows[domain]["more"] == pytest.approx(far - near, abs=1e-4)


def test_other_windows_and_no_sinks_are_the_changed_models(models):
    model = models["mini-oss"]
    sets = losses.texts(model.tokenizer, 128, 2)
    base = statistics.fmean(evaluate(model, model.tokenizer, 128, 2).values())
    for window in (None, 4):
        bits = statistics.fmean(evaluate(model.with_config(window=window), model.tokenizer, 128, 2).values())
        told = losses.other_windows(model, [window], sets)["none" if window is None else "4"]
        assert told["more"] == pytest.approx(bits - base, abs=2e-5)
    off = losses.no_sinks(model, sets)
    with_none = toy(OSS)
    for block in with_none.blocks:
        block.attention.sinks.fill_(-1e9)
    bits = statistics.fmean(evaluate(with_none, model.tokenizer, 128, 2).values())
    assert off["every layer"]["more"] == pytest.approx(bits - base, abs=2e-5) and abs(bits - base) > 5e-4
    assert len(off) == 4 and abs(off["layer 1"]["more"] - off["layer 0"]["more"]) > 1e-4


def test_shuffled_windows_hold_the_same_tokens_in_another_order():
    rows = torch.arange(40).reshape(2, 20)
    mixed = attending.shuffled(rows)
    assert torch.equal(mixed.sort(1).values, rows) and not torch.equal(mixed, rows)
    assert torch.equal(mixed, attending.shuffled(rows))


def test_the_choices_are_those_of_the_model_and_shares_are_counted(quick, models):
    model = models["mini-oss"]
    rows = heldout_windows(model.tokenizer, "python", 256, QUICK.experts).tokens[:, :256]
    kept = lab.watch(model, rows, keep="*experts.choice")["blocks.1.experts.choice"]
    assert torch.equal(routed.choices(model, rows)[:, :, 1], kept)
    share = kept.flatten().bincount(minlength=4) / kept.numel()
    told = quick["mini-oss"]["routed"]["experts"]["share"]["python"]
    assert told[1] == pytest.approx(share.tolist(), abs=1e-5)


def test_samples_are_those_of_the_command_and_chosen_by_the_rule(models):
    model = models["mini-gpt2"]
    told = writing.samples(model, QUICK)["prompts"]["spanish"]
    runs = [lab.generate(model, "Y dijo Dios:", max_tokens=8, temperature=0.8, seed=s) for s in range(2)]
    means = [statistics.fmean(token.logprob for token in run) for run in runs]
    best = max(range(2), key=lambda s: means[s])
    assert told["best"]["seed"] == best and told["worst"]["seed"] == 1 - best
    assert told["best"]["text"] == runs[best].text and told["best"]["logprob"] == pytest.approx(means[best])


def test_text_in_circles_is_counted():
    assert writing.said_before([1, 2, 3, 4, 5, 6]) == 0
    assert writing.said_before([1, 2] * 10) == pytest.approx(1 - 2 / 17)
    assert writing.said_before([1, 2]) == 0


class Knowing:
    """A model that knows every line of held-out arithmetic, but no answer of a sum."""

    tokenizer = encoding("mini")

    def __call__(self, tokens):
        ids, logits = tokens[0].tolist(), torch.zeros(1, tokens.shape[1], 4096)
        for t, right in enumerate([*ids[1:], self.tokenizer.encode_single_token("\n")]):
            line = self.tokenizer.decode(ids[: t + 1]).split("\n")[-1]
            logits[0, t, 0 if "+" in line and line.endswith("=") else right] = 1.0
        return logits


def test_answers_are_right_where_every_sign_is():
    told = {kind: [] for kind in writing.KINDS.values()}
    known = set(writing.training_text("arithmetic").splitlines())
    lines = [line for line in writing.heldout_text("arithmetic").splitlines() if writing.SUM.match(line)]
    each = writing.answered(Knowing(), 200)
    for kind, _, right in each:
        told[kind].append(right)
    assert not any(told["sums"]) and len(told["sums"]) > 300
    assert all(all(told[kind]) and len(told[kind]) > 50 for kind in ("differences", "products", "quotients"))
    assert 0.9 * len(lines) < len(each) < len(lines)  # the first line of a piece is not asked
    new = sum(line not in known for line in lines)
    assert 0.8 * new < sum(not seen for _, seen, _ in each) <= new


def test_wilsons_interval_is_wilsons():
    told = writing.share([True] * 8 + [False] * 2)
    assert (told["low"], told["high"]) == pytest.approx((0.4902, 0.9433), abs=1e-4)
    assert writing.share([])["lines"] == 0 and writing.share([False] * 5)["low"] == pytest.approx(0)


def changed(found: dict, **paths: object) -> dict:
    """A copy with other numbers at "a/b/0"."""
    made = copy.deepcopy(found)
    for path, value in paths.items():
        *way, last = [int(step) if step.isdigit() else step for step in path.split("/")]
        at = made
        for step in way:
            at = at[step]
        at[last] = value
    return made


def test_words_for_heads_follow_the_numbers(quick):
    told = quick["mini-oss"]["heads"]
    none = [[0.1] * 4, [0.02] * 4]
    low = changed(told, **{"previous/share": none})
    said = of_heads.previous(low)
    assert "**No previous-token head was found.** The nearest, layer 0 head 0, gives" in said
    assert "goes by" not in said
    high = changed(told, **{"previous/share": [[0.1] * 4, [0.1, 0.7, 0.3, 0.1]],
                            "previous/shuffled": [[0.1] * 4, [0.1, 0.68, 0.3, 0.1]]})  # fmt: skip
    said = of_heads.previous(high)
    assert "**A previous-token head: layer 1 head 1.**" in said and "goes by place" in said
    assert "layer 1 head 2 (0.30)" in said
    high["previous"]["shuffled"][1][1] = 0.2
    assert "in part by what the tokens are" in of_heads.previous(high)
    assert "**No induction head was found.**" in of_heads.induction(told)
    score = changed(told, **{"copying/random 16/score": [[0.0] * 4, [0.6, 0, 0, 0]],
                             "copying/random 16/control": [[0.0] * 4, [0.05, 0, 0, 0]]})  # fmt: skip
    assert "**An induction head: layer 1 head 0.** It gives 0.600" in of_heads.induction(score)
    score["copying"]["random 16"]["control"][1][0] = 0.5  # it looks there in any case
    assert not of_heads.induction_found(score)
    parked = changed(told, **{"first/share": [[0.01] * 4, [0.9, 0, 0, 0]]})
    assert "**Attention is parked at the first token:** layer 1 head 0" in of_heads.sinks(parked, OSS)
    assert "No head parks" in of_heads.first_token(changed(told, **{"first/share": none}), GPT2)


def test_words_for_losses_follow_the_numbers():
    assert words.difference(0.2, 0.1, "bits") == "costs 0.200 ± 0.100 bits"
    assert words.difference(-0.2, 0.1, "bits") == "gains 0.200 ± 0.100 bits"
    said = "makes no difference that can be told here (−0.050 ± 0.100 bits)"
    assert words.difference(-0.05, 0.1, "bits") == said
    place = {"spans": ["0–7", "8–31", "32–127"], "nats": {"mean": [[5.0, 0.3], [4.2, 0.3], [4.0, 0.3]]}}
    fall = lambda *above: of_losses.fall({**place, "above_last": [[more, 0.1] for more in above]})
    assert "is 0–7, where it is 1.000 ± 0.100 nats higher than at the end." in fall(1.0, 0.05)
    assert "is 8–31, where it is 0.200 ± 0.100 nats lower than at the end." in fall(1.0, -0.2)
    assert fall(0.05, -0.05).endswith("4.000 ± 0.300. No span differs from the last by more than chance.")


def test_words_for_experts_and_verses_follow_the_numbers(quick):
    told = quick["mini-oss"]["routed"]
    share = {domain: [[0.25] * 4] * 2 for domain in DOMAINS}
    assert "No expert is one domain's own" in of_experts.shares(changed(told["experts"], share=share))
    share["spanish"] = [[0.25] * 4, [0.1, 0.8, 0.05, 0.05]]
    own = of_experts.shares(changed(told["experts"], share=share))
    assert "expert 1 of layer 1 for spanish (0.80 of its choices, at most 0.25" in own
    high, low = [[0.4, 0.01], [0.3, 0.01]], [[0.02, 0.01], [0.001, 0.01]]
    by = lambda language, topic: of_experts.verses(
        changed(told["verses"], by_language=language, by_topic=topic)
    )
    assert "**By language.**" in by(high, low) and "more than nothing in layer 0." in by(high, low)
    assert "**By topic.**" in by(low, high)
    assert "**It depends on the layer.**" in by([high[0], low[1]], [low[0], high[1]])
    sure = {"bits": [0.5], "shuffled": [0.1], "spread": [0.1]}
    assert of_experts.beyond(sure, 0) and not of_experts.beyond({**sure, "spread": [0.2]}, 0)


def test_words_for_what_is_written_follow_the_numbers(quick):
    told = quick["mini-gpt2"]["written"]
    circles = changed(told, **{"samples/again": {"likeliest": 0.6, "drawn": 0.1, "held-out text": 0.05}})
    assert "At temperature 0 it goes in circles: 0.60" in of_writing.samples(circles, "x")
    circles["samples"]["again"]["likeliest"] = 0.12
    assert "Whether it goes in circles: 0.12" in of_writing.samples(circles, "x")
    able = {"right": 0.9, "low": 0.8, "high": 0.95, "lines": 40}
    assert "It answers products that it has not seen" in of_writing.sums(
        changed(told, **{"sums/products/new": able}))  # fmt: skip


def test_text_of_a_model_cannot_leave_its_code():
    assert words.code("a `b` ``c`` |\n<b>") == "```a `b` ``c`` |⏎<b>```"
    assert words.code("`") == "`` ` ``" and words.code("\x1b[2J\tx") == "`·[2J·x`"


def test_what_is_absent_is_said(quick, found):
    for one in (*quick.values(), *found.values()):
        absent = overview.missing(one)
        assert ("an induction head" in absent) == (not of_heads.induction_found(one["heads"]))
        assert ("a previous-token head" in absent) == (not of_heads.previous_found(one["heads"]))
    assert "an induction head" in page.section("mini-oss", OSS, quick["mini-oss"], logs()["mini-oss"])


def test_the_log_is_told_as_it_is(found):
    log = logs()["mini-oss"]
    told, config = of_models.making(log), lab.load("mini-oss").config
    assert f"{log['tokens']:,} tokens" in told and f"--steps {log['steps']} --seed {log['seed']}" in told
    early = dict(log, done=log["steps"] // 2, balance=log["balance"][: log["steps"] // 2])
    assert "an early version" in of_models.making(early)
    now = RECIPES["mini-oss"]
    other = replace(now, optimizer="adamw" if now.optimizer == "muon" else "muon", peak=now.peak / 2)
    said = of_models.since(other)
    assert f"optimizer {now.optimizer} (then {other.optimizer})" in said and f"(then {other.peak})" in said
    assert "products" not in said and of_models.since(now) == ""
    columns = {way: {d: 2.0 for d in DOMAINS} for way in ("float32, 256 tokens", "as stored, 256 tokens")}
    columns["as stored, 256 tokens"] = {d: 2.01 for d in DOMAINS}
    assert "2.0000 bits per byte before and 2.0100 after, +0.50 %" in of_models.storing(
        {"bits_per_byte": columns}, config)  # fmt: skip
    assert "was not measured" in of_models.storing({}, config)


@pytest.mark.parametrize(("content", "said"), [
    (None, "no recorded measurements"), ("{", "is no JSON"), ("[]", "lacks date"),
    ('{"date": 1}', "lacks heads"),
])
def test_results_that_cannot_be_used_are_refused_and_no_page_is_left(tmp_path, content, said):
    results = tmp_path / "results"
    results.mkdir()
    if content is not None:
        (results / "mini-oss.json").write_text(content, encoding="utf-8")
    with pytest.raises(SystemExit, match=said):
        page.main([str(tmp_path / "models.md"), "--results", str(results)])
    assert [path.name for path in tmp_path.iterdir()] == ["results"]


def test_one_command_measures_writes_and_draws(tmp_path, monkeypatch, quick, models, capsys):
    monkeypatch.setattr(measured, "load", models.get)
    monkeypatch.setattr(page, "configs", lambda: {name: model.config for name, model in models.items()})
    asked = []

    def stand_in(model):
        asked.append(model.config.name)
        return quick[model.config.name]

    monkeypatch.setattr(measured, "measure", stand_in)
    made, results = tmp_path / "models.md", tmp_path / "results"
    page.main([str(made), "--measure", "--results", str(results)])
    assert asked == ["mini-oss", "mini-gpt2"] and measured.recorded("mini-oss", results) == quick["mini-oss"]
    for link in re.findall(r"\]\((pictures/\S+\.png)\)", made.read_text("utf-8")):
        assert (tmp_path / link).is_file(), link
    page.main([str(made), "--measure", "mini-gpt2", "--results", str(results)])
    assert asked[2:] == ["mini-gpt2"] and f"wrote {made}" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        page.main([str(made), "--measure", "gpt2"])


def test_a_page_without_a_folder_is_refused_before_anything_is_measured(tmp_path, monkeypatch):
    monkeypatch.setattr(measured, "measure", lambda model: pytest.fail("measured"))
    with pytest.raises(SystemExit, match="make it first"):
        page.main([str(tmp_path / "missing" / "models.md"), "--measure"])
