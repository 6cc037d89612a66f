"""The claims on trial: formulas are written a second time, edits done by loops, words held to numbers."""

from __future__ import annotations

import copy
import json
import math
import statistics
from pathlib import Path

import pytest
import torch
import toys

import gptoss_lab as lab
from gptoss_lab.model import frequencies
from gptoss_lab.study.claims import (
    formulas,
    measured,
    normalising,
    of_experts,
    of_parts,
    of_runs,
    page,
    routing,
    timing,
)  # fmt: skip
from gptoss_lab.study.claims.parts import HOLDS, OPEN, PARTLY, UNSEEN, VERDICTS
from gptoss_lab.training.corpus import DOMAINS, heldout_windows
from gptoss_lab.training.measure import losses

DOCS = Path(__file__).parent.parent / "docs"
OSS = lab.NAMED["gpt-oss-20b"]
AGAIN = "run `python -m gptoss_lab.study.claims docs/claims.md` (with --measure for other weights) and commit"


@pytest.fixture(scope="module")
def found() -> dict:
    return measured.recorded()


def by_loop(one, other):
    """The largest difference of two functions of a float, from 0 to 6 in steps of a thousandth."""
    return max((abs(one(x / 1000) - other(x / 1000)), x / 1000) for x in range(6001))


SCALAR = {
    "erf": lambda x: x * statistics.NormalDist().cdf(x),
    "tanh": lambda x: 0.5 * x * (1 + math.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x * x * x))),
    "quick": lambda x: x / (1 + math.exp(-1.702 * x)),
    "swish": lambda x: x / (1 + math.exp(-x)),
}
CURVES = {"erf": formulas.gelu_erf, "tanh": formulas.gelu_tanh, "quick": formulas.gelu_sigmoid,
          "swish": formulas.swish}  # fmt: skip


@pytest.mark.parametrize(("one", "apart"), [("tanh", 4.73e-4), ("quick", 0.0203), ("swish", 0.1930)])
def test_forms_of_gelu_are_as_far_apart_as_a_loop_finds(one, apart):
    at, most = formulas.farthest(CURVES[one], CURVES["erf"])
    difference, where = by_loop(SCALAR[one], SCALAR["erf"])
    assert most == pytest.approx(difference, rel=1e-4) == pytest.approx(apart, rel=2e-3)
    assert at == pytest.approx(where, abs=2e-3)


@pytest.mark.parametrize("name", CURVES)
def test_a_form_is_what_it_is_called(name):
    for x in (-3.0, -0.5, 0.0, 0.7, 4.0):
        value = CURVES[name](torch.tensor(x, dtype=torch.float64))
        assert float(value) == pytest.approx(SCALAR[name](x), abs=1e-12)


def test_both_norms_of_three_numbers_are_torchs():
    x = torch.tensor(of_parts.SAID, dtype=torch.float64)
    layer, rms = formulas.by_both_norms(of_parts.SAID)
    assert layer == pytest.approx(torch.nn.functional.layer_norm(x, (3,), eps=0).tolist(), rel=1e-12)
    assert rms == pytest.approx((x / (x @ x / 3) ** 0.5).tolist(), rel=1e-12)


def test_no_straight_line_gives_the_numbers_that_were_claimed():
    (a, b, c), (p, q, r) = of_parts.SAID, (0.14, 0.24, -0.80)
    slope = (q - p) / (b - a)
    assert slope == pytest.approx(0.1) and p + slope * (c - a) == pytest.approx(-4.42) != r


@pytest.mark.parametrize("tokens", [1024, 8192, 131072])
def test_a_cache_is_added_up_layer_by_layer(tokens):
    def added(heads: int, window: bool) -> int:
        kept = [min(tokens, 128) if window and n % 2 == 0 else tokens for n in range(24)]
        return sum(heads * 64 * 2 * 2 * many for many in kept)

    assert formulas.caches(OSS, tokens) == {
        "as it is": added(8, True), "no windows": added(8, False), "no shared heads": added(64, True),
        "neither": added(64, False),
    }  # fmt: skip


def test_work_without_windows_is_more_by_the_keys_that_windows_hide():
    active, hidden = lab.cost.active_parameters(OSS), 12 * (8192 - 128)
    seen = 12 * 8192 + 12 * 128
    expected = (2 * active + 4 * 4096 * (seen + hidden)) / (2 * active + 4 * 4096 * seen)
    assert formulas.work_without_windows(OSS, 8192) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(
    ("name", "limit"), [("gpt-oss-20b", 16e9), ("gpt-oss-20b", 14e9), ("gpt-oss-120b", 66e9)]
)
def test_the_longest_context_that_fits_fits_and_one_more_does_not(name, limit):
    config = lab.NAMED[name]
    most = formulas.longest(config, int(limit))
    size = lambda tokens: lab.cost.checkpoint_bytes(config) + lab.cost.cache_bytes(config, tokens)
    assert 0 < most < config.context and size(most) <= limit < size(most + 1)


def test_what_does_not_fit_has_no_context_and_what_fits_has_all_of_it():
    assert formulas.longest(OSS, 10**9) == 0
    assert formulas.longest(OSS, 10**12) == OSS.context


def test_slow_pairs_are_those_whose_frequency_says_so():
    turned = frequencies(OSS.d_head, OSS.rope_theta).double() * 4096 / (2 * math.pi)
    assert formulas.pairs_within_a_turn(OSS, 4096) == int((turned < 1).sum()) == 14


def test_sizes_beside_one_another_are_the_published_ones():
    at = formulas.beside(OSS, lab.NAMED["qwen3-235b-a22b"])
    assert at.total == pytest.approx(235_093_634_560 / 20_914_757_184)
    assert at.active == pytest.approx(21_568_433_664 / 3_608_307_264)
    assert at.stored == pytest.approx(2 * 235_093_634_560 / 13_761_264_768)
    assert formulas.position_parameters(lab.NAMED["gpt2"]) == 1024 * 768
    assert formulas.position_parameters(OSS) == 0


def test_the_share_along_the_ones_is_a_projection():
    x = torch.randn(5, 7, 12, generator=torch.Generator().manual_seed(0)) + 0.4
    unit = torch.ones(12) / math.sqrt(12)
    expected = (x @ unit) ** 2 / (x * x).sum(-1)
    assert torch.allclose(normalising.along_ones(x), expected, atol=1e-6)
    assert torch.allclose(normalising.along_ones(torch.full((3, 12), -2.0)), torch.ones(3))


def test_flipped_signs_are_counted_one_by_one():
    before, after = torch.tensor([1.0, -2.0, 0.5, 3.0]), torch.tensor([2.0, 1.0, -0.5, 3.0])
    assert normalising.flipped(before, after) == 0.5


@toys.every_family
def test_pre_activations_are_those_that_the_model_makes(family):
    model = toys.random_model(family())
    tokens = toys.random_tokens(model.config)
    config = model.config
    room = "experts" if config.n_experts else "mlp"
    name = f"blocks.1.{room}.{'gate' if config.gated else 'pre'}"
    kept = toys.record(model, tokens)
    half = normalising.feed_forward(model.blocks[1])
    made = normalising.before_activation(
        half, half.norm(kept["blocks.1.residual_mid"]), kept.get("blocks.1.experts.choice")
    )
    assert torch.allclose(made, kept[name], atol=toys.ROUNDING)


@toys.every_family
def test_the_residuals_that_enter_norms_give_what_the_norms_return(family):
    model = toys.random_model(family())
    kept = toys.record(model, toys.random_tokens(model.config))
    room = "experts" if model.config.n_experts else "mlp"
    outs = [f"blocks.{n}.{part}.norm" for n in range(3) for part in ("attention", room)] + ["final_norm"]
    for point, norm, out in zip(normalising.entering(model), normalising.norms(model), outs, strict=True):
        assert torch.equal(norm(kept[point]), kept[out])


def test_sign_changes_of_a_toy_are_counted_by_a_loop():
    model = toys.random_model(toys.gpt2())
    tokens = toys.random_tokens(model.config)
    kept, changed, total = toys.record(model, tokens), 0, 0
    for point in normalising.entering(model):
        for row in kept[point].flatten(0, 1).tolist():
            mean = sum(row) / len(row)
            changed += sum((value > 0) != (value - mean > 0) for value in row)
            total += len(row)
    found = normalising.figures(model, tokens)
    assert 0 < found["centred"] == pytest.approx(changed / total)
    assert found["divided"] == 0 and found["tokens"] == tokens.numel()


def test_a_negative_scale_is_seen():
    model = toys.random_model(toys.gpt_oss())
    tokens = toys.random_tokens(model.config)
    assert normalising.figures(model, tokens)["own"] == 0
    model.blocks[2].experts.norm.scale[3] *= -1
    found = normalising.figures(model, tokens)
    assert found["negative_scales"] == 1 and found["own"] == pytest.approx(1 / 10 / 7)


def test_only_rmsnorm_sees_the_mean():
    for family, moved in ((toys.gpt2, False), (toys.gpt_oss, True)):
        model = toys.random_model(family())
        tokens = toys.random_tokens(model.config)
        edits = {name: edit for name, (edit,) in normalising.without_mean(model).items()}
        kept = toys.record(model, tokens, edits=edits)
        assert kept["blocks.1.residual"].mean(-1).abs().max() < 1e-6
        assert bool((kept["logits"] - model(tokens)).abs().max() > 1e-3) is moved


def test_without_biases_a_norm_of_equal_scales_decides_about_no_unit():
    model = toys.random_model(toys.qwen3())
    tokens = toys.random_tokens(model.config)
    for norm in normalising.norms(model):
        norm.scale.fill_(1.5)
    assert normalising.figures(model, tokens)["units"] == 0
    assert normalising.figures(toys.random_model(toys.gpt_oss()), tokens)["units"] > 0


def test_the_best_experts_weight_is_the_sigmoid_of_its_lead(mini_oss):
    shares = []
    for domain in DOMAINS:
        windows = heldout_windows(mini_oss.tokenizer, domain, 64, 1).tokens[:, :-1]
        kept = toys.record(mini_oss, windows, keep=[f"blocks.{n}.experts.logits" for n in range(6)])
        for logits in kept.values():
            best, second = logits.sort(-1, descending=True).values.unbind(-1)[:2]
            shares.append(float(torch.sigmoid(best - second).mean()))
    found = routing.best_weight(mini_oss, 1, context=64)
    assert 0.5 < found == pytest.approx(statistics.fmean(shares), abs=1e-5)


def choices_under(edit, keep=2):
    """The choices of every layer of a toy under an edit, and the logits that its routers had."""
    model = toys.random_model(toys.gpt_oss(experts_per_token=keep))
    tokens = toys.random_tokens(model.config)
    edits = {f"blocks.{n}.experts.choice": edit for n in range(3)}
    kept = toys.record(model, tokens, edits=edits)
    return [(kept[f"blocks.{n}.experts.choice"], kept[f"blocks.{n}.experts.logits"]) for n in range(3)], kept


@pytest.mark.parametrize("kept", [(0, 2), (1, 2), (2, 3), (-2, -1)])
def test_experts_of_a_rank_are_found_by_sorting(kept):
    layers, _ = choices_under(routing.ranks(*kept))
    for choice, logits in layers:
        for chosen, row in zip(choice.flatten(0, 1).tolist(), logits.flatten(0, 1).tolist()):
            order = sorted(range(7), key=lambda e: -row[e])
            assert chosen == [order[rank] for rank in kept]


def test_the_first_two_ranks_are_the_routers_own_choice():
    model = toys.random_model(toys.gpt_oss())
    tokens = toys.random_tokens(model.config)
    edits = {name: edit for name, (edit,) in routing.everywhere(model, "experts.choice",
                                                                routing.ranks(0, 1)).items()}  # fmt: skip
    assert torch.equal(toys.record(model, tokens, edits=edits)["logits"], model(tokens))


def test_another_choice_brings_its_own_answers_and_weights():
    """The layer's output from its definition, an expert at a time."""
    layers, kept = choices_under(routing.ranks(1, 2))
    experts = toys.random_model(toys.gpt_oss()).blocks[0].experts
    x, (_, logits) = kept["blocks.0.experts.norm"], layers[0]
    for token in range(9):
        order = sorted(range(7), key=lambda e: -float(logits[0, token, e]))[1:3]
        size = [math.exp(float(logits[0, token, e])) for e in order]
        expected = torch.zeros(10)
        for e, weight in zip(order, size):
            both = experts.gate_up.weight[e] @ x[0, token] + experts.gate_up.bias[e]
            act = lab.model.clamped_swiglu(both[0::2], both[1::2])
            expected += weight / sum(size) * (experts.down.weight[e] @ act + experts.down.bias[e])
        assert torch.allclose(kept["blocks.0.experts.out"][0, token], expected, atol=toys.ROUNDING)


@pytest.mark.parametrize("keep", [0, 1])
def test_random_experts_are_different_and_as_likely(keep):
    layers, _ = choices_under(routing.at_random(3, keep))
    again, _ = choices_under(routing.at_random(3, keep))
    for (choice, logits), (same, _) in zip(layers, again):
        assert torch.equal(choice, same)
        assert (choice[..., 0] != choice[..., 1]).all()
        assert not keep or torch.equal(choice[..., 0], logits.argmax(-1))
    here = {"experts.logits": torch.zeros(40, 500, 7)}
    drawn = routing.at_random(0, keep)(torch.zeros(40, 500, 2, dtype=torch.int64), here)
    counts = drawn[..., keep:].flatten().bincount(minlength=7) / drawn[..., keep:].numel()
    even = 1 / (7 - keep)
    assert torch.allclose(counts[keep:], torch.full((7 - keep,), even), atol=0.01)
    assert counts[:keep].sum() == 0


def test_a_difference_is_paired_and_its_interval_is_that_of_strata():
    ours, theirs = [[1.0, 2.0, 3.0], [2.0, 2.0, 2.0]], [[1.1, 2.1, 3.4], [1.0, 1.0, 1.0]]
    more, within = routing.difference(ours, theirs)
    assert more == pytest.approx((-0.2 + 1.0) / 2)
    assert within == pytest.approx(1.96 * math.sqrt(0.03 / 3 + 0) / 2)
    assert routing.averaged([ours, theirs])[0] == pytest.approx([1.05, 2.05, 3.2])


def test_ratios_of_times_are_taken_round_by_round():
    ticks = iter(range(1000))
    seen = []
    work = {"a": lambda: seen.append("a"), "b": lambda: seen.append("b")}
    taken = timing.rounds(work, 5, clock=lambda: float(next(ticks)))
    assert taken == {"a": [1.0] * 5, "b": [1.0] * 5} and len(seen) == 2 * 6 * timing.AT_ONCE
    assert timing.quartiles([2.0, 6.0, 12.0], [1.0, 2.0, 3.0]) == [2.0, 3.0, 4.0]
    assert {name for pair in timing.RATIOS for name in pair} <= set(timing.everything())


def test_what_is_timed_is_what_it_is_called():
    work = timing.everything()
    for norm in ("RMSNorm", "LayerNorm"):
        assert torch.allclose(work[norm](), work[f"{norm}, torch's"](), atol=1e-4)
    assert formulas.farthest(CURVES["tanh"], CURVES["erf"])[1] == pytest.approx(
        float((work["GELU, tanh"]() - work["GELU, erf"]()).abs().max()), rel=0.01)  # fmt: skip


def test_the_page_is_made_from_the_recorded_numbers(found):
    assert page.report(found) == (DOCS / "claims.md").read_text("utf-8"), AGAIN


@pytest.mark.parametrize("name", measured.MODELS)
def test_the_recorded_numbers_are_of_the_weights_that_are_shipped(found, name):
    assert found["weights"][name] == lab.load(name).weights_from, AGAIN


def test_the_recorded_loss_is_what_another_way_to_measure_gives(found, mini_oss):
    each = []
    for domain in DOMAINS:
        windows, sizes = heldout_windows(mini_oss.tokenizer, domain, 256, found["windows"])
        nats = losses(mini_oss, windows).sum(1).double()
        each.append(float((nats / math.log(2) / sizes).mean()))
    trained = found["routing"]["choices"]["as trained"]["bits"]
    assert statistics.fmean(each) == pytest.approx(trained, abs=1e-4)


def test_the_words_of_the_page_still_fit_the_recorded_numbers(found):
    """Sentences of the page that no number is put into."""
    more = {name: entry.get("more", 0.0) for name, entry in found["routing"]["choices"].items()}
    assert more["no expert at all"] > 0 and more["two at random"] > 0  # both are called costs
    assert all(found["normalising"][name]["divided"] == 0 for name in measured.MODELS)
    assert abs(found["erf_for_tanh"]["more"]) < 1e-4
    middle = {name: quartiles[1] for name, quartiles in found["times"]["ratios"].items()}
    assert middle["GELU, tanh / Swish"] > 1 and middle["LayerNorm / RMSNorm"] > 1
    assert middle["LayerNorm, torch's / RMSNorm, torch's"] < 1 and middle["product / RMSNorm"] > 20


def turned(found: dict, **more: float) -> dict:
    """The recorded choices with other costs, by name with _ for a blank; a number alone is that layer."""
    choices = copy.deepcopy(found["routing"]["choices"])
    for name, value in more.items():
        place = f"two at random in layer {name[1:]} alone" if name[1:].isdigit() else name.replace("_", " ")
        assert place in choices
        choices[place] |= {"more": value, "within": 0.001}
    return found["routing"] | {"choices": choices}


def test_who_matters_is_said_by_what_passing_over_costs(found):
    told = of_experts.routing(turned(found, third_instead_of_the_best=0.6))[0].precisely
    assert "Whether it answers matters much: the third in its place costs 0.60" in told
    told = of_experts.routing(turned(found, the_best_and_one_at_random=0.2))[0].precisely
    assert "Who answers beside it matters much: one at random costs 0.200" in told
    kept = turned(found, the_best_and_one_at_random=0.02, third_instead_of_the_best=0.03)
    told = of_experts.routing(kept)[0].precisely
    assert "Whether it answers matters little" in told and "Who answers beside it matters little" in told


def test_the_layer_that_costs_most_is_found(found):
    even = dict.fromkeys((f"l{n}" for n in range(6)), 0.1)
    told = of_experts.by_layer(turned(found, **even | {"l4": 1.3})["choices"])
    assert told.startswith("It hangs on layer 4 above all: there alone it costs 1.30, in any other")
    assert told.endswith("alone at most 0.10.")
    told = of_experts.by_layer(turned(found, **even | {"l2": 0.3, "l5": 0.05})["choices"])
    assert told == "In one layer alone it costs 0.05 to 0.30, most in layer 2."


@pytest.mark.parametrize(("none", "random", "said"), [
    (3.0, 1.0, "are far better than none."), (1.5, 1.0, "are better than none."),
    (1.0, 1.0, "are no better than none."), (0.5, 1.0, "are no better than none."),
])
def test_random_experts_stand_beside_none(found, none, random, said):
    choices = turned(found, no_expert_at_all=none, two_at_random=random)["choices"]
    assert of_experts.without_any(choices).endswith(said)


def test_verdicts_on_other_experts_follow_the_cost(found):
    second = found["routing"]["choices"] | {"second-best alone": {"bits": 1.0, "more": 0.04, "within": 0.005}}
    verdicts = [part.verdict for part in of_experts.routing(found["routing"] | {"choices": second})]
    assert verdicts == [HOLDS, UNSEEN]
    verdicts = [part.verdict for part in of_experts.routing(turned(found, two_at_random=0.02))]
    assert verdicts == [UNSEEN, HOLDS]
    assert of_experts.nearly(0.04, 0.02) == UNSEEN  # not surely below


def test_what_norms_do_is_said_by_what_was_counted(found):
    def norms(**changes):
        """The part with other counts for mini-gpt2 and mini-oss."""
        made = copy.deepcopy(found)
        for kind, pair in changes.items():
            for name, value in zip(measured.MODELS, pair):
                made["normalising"][name][kind] = value
        return of_parts.norms(made, {})[-1]

    assert "No scale of either model is negative." in norms(negative_scales=(0, 0)).found
    some = norms(negative_scales=(0, 3)).found
    assert "Of their scales none of mini-gpt2 and 3 of mini-oss are negative." in some
    told = norms(centred=(0.3, 0.1), own=(0.2, 0.0), units=(0.4, 0.05))
    assert "30.00% of them before its scale and bias, 20.00% with both" in told.precisely
    assert "in mini-gpt2 40.00%, in mini-oss 5.00%" in told.precisely and told.verdict == PARTLY
    still = norms(centred=(0.0, 0.0), own=(0.0, 0.0), units=(0.0, 0.0))
    assert still.verdict == HOLDS and "the norm decided none in these two" in still.precisely


def test_every_statement_stands_alone(found):
    """None begins with a word for what another one named."""
    said = [part.said for claim in page.every_claim(found) for part in claim.parts]
    first = {text.split()[0].strip(",").lower() for text in said}
    assert not first & {"they", "it", "its", "their", "those", "these", "that", "this", "and", "the same"}
    assert not any("The same" in text for text in said) and len(set(said)) == len(said)


def test_every_claim_is_there_and_what_waits_for_runs_says_so(found):
    text = page.report(found)
    headings = [line for line in text.splitlines() if line.startswith("## ")]
    assert [int(line[3:].split(".")[0]) for line in headings] == list(range(1, 11))
    lines = text.split("A verdict is one of")[0].splitlines()
    rows = [line.strip("| ").split(" | ") for line in lines if line[:3].strip("| ").isdigit()]
    assert {verdict for *_, verdict in rows} <= set(VERDICTS)
    waiting = {number for number, _, verdict in rows if verdict == OPEN}
    undecided = {number for number in of_runs.TRIALS if of_runs.decided(number)[0] == OPEN}
    assert waiting - {"6b"} == undecided
    assert "{" not in text and "nan" not in text.split()


def test_the_command_writes_the_page(tmp_path, capsys, found):
    made = tmp_path / "claims.md"
    page.main([str(made)])
    assert made.read_text("utf-8") == page.report(found)
    assert capsys.readouterr().out == f"wrote {made}\n"


@pytest.mark.parametrize(("content", "said"), [
    (None, "no recorded measurements"), ("{", "is no JSON"), ("[]", "lacks date"),
    ('{"date": 1}', "lacks erf_for_tanh"),
])
def test_results_that_cannot_be_used_are_refused_and_no_page_is_left(tmp_path, content, said):
    results = tmp_path / "claims.json"
    if content is not None:
        results.write_text(content, encoding="utf-8")
    with pytest.raises(SystemExit, match=said):
        page.main([str(tmp_path / "claims.md"), "--results", str(results)])
    assert [path.name for path in tmp_path.iterdir()] == ([] if content is None else ["claims.json"])


def test_a_page_without_a_folder_is_refused_before_anything_is_measured(tmp_path, monkeypatch):
    monkeypatch.setattr(measured, "measure", lambda: pytest.fail("measured"))
    with pytest.raises(SystemExit, match="make it first"):
        page.main([str(tmp_path / "missing" / "claims.md"), "--measure"])


def test_measuring_writes_what_was_found_and_makes_its_folder(tmp_path, monkeypatch, found):
    monkeypatch.setattr(measured, "measure", lambda: found)
    results = tmp_path / "results" / "claims.json"
    page.main([str(tmp_path / "claims.md"), "--measure", "--results", str(results)])
    assert json.loads(results.read_text("utf-8")) == found == measured.recorded(results)
