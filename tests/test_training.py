"""Training: the loss, its gradients, the schedule, rounding on the way forward, runs that stop and go on."""

from __future__ import annotations

import json
import math
import os
import signal
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from gptoss_lab.bench import page as bench_page
from gptoss_lab.config import Config, Yarn
from gptoss_lab.cost import checkpoint_bytes
from gptoss_lab.model.attention import attend, visible
from gptoss_lab.model.experts import halves
from gptoss_lab.model.transformer import Transformer
from gptoss_lab.tap import Recorder
from gptoss_lab.training import lookback, runs
from gptoss_lab.training import measure as measuring
from gptoss_lab.training import publish as publishing
from gptoss_lab.training.attention import attend_banded, attend_causal
from gptoss_lab.training.corpus import Batches
from gptoss_lab.training.experts import RoundedStack, answers_of
from gptoss_lab.training.forms import attach
from gptoss_lab.training.measure import (
    by_position,
    evaluate,
    expert_share,
    losses,
    near_and_far,
    report,
    sink_share,
)
from gptoss_lab.training.objective import (
    CrossEntropy,
    RouterTap,
    balance,
    gradients,
    in_phase,
    optimizer_for,
    settle,
)
from gptoss_lab.training.publish import as_stored, finished, publish
from gptoss_lab.training.recipes import RECIPES, Phase, Recipe, recipe_of
from gptoss_lab.training.runs import Run, read_checkpoint, read_run, write_checkpoint
from gptoss_lab.training.train import price, steps_in, train
from gptoss_lab.weights import load, round_to_mxfp4

TOY = Config(
    name="toy", family="gpt-oss", n_layers=2, d_model=32, n_heads=4, n_kv_heads=2, d_head=6, d_ff=64,
    vocab_size=19, context=48, rope_theta=1000.0, yarn=Yarn(factor=2.0, original_context=24), window=5,
    sinks=True, n_experts=3, experts_per_token=2, stored_experts="mxfp4",
)  # fmt: skip
SHORT, LONG = Phase(0.5, 24, 5), Phase(0.5, 48, 3, yarn=True, rounded=True)
RECIPE = Recipe(TOY, (SHORT, LONG), peak=1e-2, warmup=2)
GPT2 = Config(
    name="toy2", family="gpt2", n_layers=2, d_model=24, n_heads=4, n_kv_heads=4, d_head=6, d_ff=40,
    vocab_size=19, context=24, norm="layer", positions="learned", activation="gelu", tied=True, dropout=0.2,
    stored="float32",
)  # fmt: skip

GATED = GPT2.with_changes(
    name="toy3", norm="rms", activation="clamped_swiglu", positions="rope", n_kv_heads=2
)


def counting(size: int = 400) -> dict[str, Tensor]:
    """Two domains that a toy can learn: counting up and counting down, modulo 19."""
    up = torch.arange(size, dtype=torch.int32) % 19
    return {"up": up, "down": up.flip(0)}


def toy(seed: int = 3, config: Config = TOY) -> Transformer:
    """A toy with no weight at zero, so that every gradient says something."""
    model, generator = Transformer.random(config, seed), torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in model.parameters():
            weight += 0.2 * torch.randn(weight.shape, generator=generator)
    return model.train()


def by_name(model: Transformer) -> dict[str, Tensor]:
    """Every gradient."""
    return {name: weight.grad for name, weight in model.named_parameters() if weight.grad is not None}


# Attention for training


def attention_of(B: int, T: int, window: int | None, sink: bool):  # type: ignore[no-untyped-def]
    """Random q, k, v and perhaps a sink, which keys are seen, and a gradient of what comes of them."""
    generator = torch.Generator().manual_seed(1)
    shapes = {"q": (B, T, 4, 6), "k": (B, T, 2, 6), "v": (B, T, 2, 6), "sink": (B, 4, T)}
    given = {name: torch.randn(shape, generator=generator).requires_grad_() for name, shape in shapes.items()}
    given = given if sink else {name: given[name] for name in "qkv"}
    positions = torch.arange(T).expand(B, -1)
    return given, visible(positions, positions, window), torch.randn(B, T, 4, 6, generator=generator)


@pytest.mark.parametrize("window", [None, 1, 5, 7, 64])
@pytest.mark.parametrize("sink", [True, False])
def test_attention_for_training_agrees_with_the_explicit_form_and_so_do_its_gradients(window, sink):
    given, seen, onto = attention_of(3, 21, window, sink)
    answers = []
    for form in (attend, attend_banded(window) if window else attend_causal):
        mixed = form(given["q"], given["k"], given["v"], seen, given.get("sink"))
        answers.append((mixed, *torch.autograd.grad(mixed, list(given.values()), onto)))
    for name, explicit, fast in zip(("mixed", *given), *answers):
        assert torch.allclose(explicit, fast, atol=2e-5), name


@pytest.mark.parametrize("config", [TOY, GPT2, GATED, TOY.with_changes(activation="swiglu", bias=False)],
                         ids=["gpt-oss", "gpt-2", "dense and gated", "plain SwiGLU, no biases"])  # fmt: skip
def test_one_step_of_gradients_is_that_of_the_explicit_model(config):
    """The explicit model, every logit of it at once, against all forms for training together."""
    config = config.with_changes(dropout=0.0)
    windows = torch.randint(19, (5, 25), generator=torch.Generator().manual_seed(2))
    explicit, fast, tap = toy(config=config), attach(toy(config=config)), RouterTap()
    logits = explicit(windows[:, :-1], tap=tap)
    loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), windows[:, 1:].flatten())
    (loss + 0.1 * tap.balance()).backward()
    found_loss, _ = gradients(fast, windows, weight=0.1)
    assert found_loss.item() == pytest.approx(loss.item(), rel=1e-5)
    expected, found = by_name(explicit), by_name(fast)
    assert found.keys() == expected.keys() == dict(fast.named_parameters()).keys()
    for name, gradient in expected.items():
        assert torch.allclose(gradient, found[name], atol=1e-5, rtol=1e-4), name


@pytest.mark.parametrize("changes", [{}, {"activation": "swiglu"}, {"bias": False}],
                         ids=["clamped", "plain", "no biases"])  # fmt: skip
@pytest.mark.parametrize("rounded", [False, True])
def test_experts_for_training_agree_with_the_walk_and_so_do_their_gradients(changes, rounded):
    """Both clamps hold now and then, and one expert is chosen by nobody: its gradient is zero, not noise."""
    experts = toy(config=TOY.with_changes(**changes)).blocks[0].experts
    with torch.no_grad():
        experts.gate_up.weight *= 12
    if rounded:
        experts.gate_up, experts.down = RoundedStack(experts.gate_up), RoundedStack(experts.down)
    generator = torch.Generator().manual_seed(5)
    x = torch.randn(3, 7, 32, generator=generator).requires_grad_()
    choice = torch.tensor([[2, 0], [0, 2]])[torch.randint(2, (3, 7), generator=generator)]
    onto = torch.randn(3, 7, 2, 32, generator=generator)
    given = [x, *experts.gate_up.parameters(), *experts.down.parameters()]
    answers = []
    for form in (experts.walk, answers_of(experts)):
        each = form(x, choice)
        answers.append((each, *torch.autograd.grad(each, given, onto)))
    for explicit, fast in zip(*answers):
        assert torch.allclose(explicit, fast, atol=1e-4 * float(explicit.detach().abs().max()))
    assert float(answers[1][2][1].abs().max()) == 0
    gate, up = halves(experts.gate_up(x[:, :, None].expand(-1, -1, 2, -1), choice))
    assert (gate > 7).any() and (up.abs() > 7).any() and (gate < 7).any()


def apart(expected: torch.Tensor, found: torch.Tensor) -> float:
    """The length of the difference over the length of what was expected."""
    return float((expected - found).norm() / expected.norm())


@pytest.mark.parametrize("config", [GPT2, GATED, GPT2.with_changes(tied=False)],
                         ids=["gpt-2", "gated", "untied"])  # fmt: skip
def test_with_bfloat16_products_gradients_stay_float32_and_within_what_rounding_costs(config):
    """Each product rounds what enters it to 8 bits, 2e-3 relative; a wrong product is of order 1 away, and
    one that was not rounded below 1e-6. The bias of keys has no gradient but rounding, in either form."""
    config = config.with_changes(dropout=0.0)
    windows = torch.randint(19, (5, 25), generator=torch.Generator().manual_seed(2))
    exact, narrow = attach(toy(config=config)), attach(toy(config=config), torch.bfloat16)
    loss, _ = gradients(exact, windows, weight=0.1)
    found_loss, _ = gradients(narrow, windows, weight=0.1, products=torch.bfloat16)
    assert float(found_loss) == pytest.approx(float(loss), rel=1e-3)
    expected, found = by_name(exact), by_name(narrow)
    assert found.keys() == expected.keys() and all(value.dtype == torch.float32 for value in found.values())
    far = {name: apart(expected[name], found[name]) for name in expected if "attention.k.bias" not in name}
    assert max(far.values()) < 0.03 and min(far.values()) > 1e-4, far


@pytest.mark.parametrize("changes", [{}, {"bias": False}, {"activation": "gelu"}],
                         ids=["clamped", "no biases", "GELU"])  # fmt: skip
def test_experts_with_bfloat16_products_agree_with_the_walk_within_what_rounding_costs(changes):
    experts = toy(config=TOY.with_changes(**changes)).blocks[0].experts
    generator = torch.Generator().manual_seed(5)
    x = torch.randn(3, 7, 32, generator=generator).requires_grad_()
    choice = torch.stack([torch.randperm(3, generator=generator)[:2] for _ in range(21)]).view(3, 7, 2)
    given = [x, *experts.gate_up.parameters(), *experts.down.parameters()]
    onto, answers = torch.randn(3, 7, 2, 32, generator=generator), []
    for form in (experts.walk, answers_of(experts, torch.bfloat16)):
        each = form(x, choice)
        answers.append((each, *torch.autograd.grad(each, given, onto)))
    for explicit, fast in zip(*answers):
        assert fast.dtype == torch.float32 and apart(explicit.detach(), fast.detach()) < 0.02
    assert apart(answers[0][0].detach(), answers[1][0].detach()) > 1e-4


def test_experts_for_training_hand_over_where_the_tap_looks_inside():
    experts, tokens = attach(toy()), torch.arange(12)[None]
    recorder = Recorder(keep=["blocks.1.experts.gate", "blocks.1.experts.act"])
    with torch.no_grad():
        experts(tokens, tap=recorder)
    assert [tuple(value.shape) for value in recorder.kept.values()] == [(1, 12, 2, 64)] * 2


def test_cross_entropy_a_few_rows_at_a_time_is_cross_entropy(monkeypatch):
    monkeypatch.setattr("gptoss_lab.training.objective.ROWS", 7)
    generator = torch.Generator().manual_seed(6)
    x = (5 * torch.randn(23, 8, generator=generator)).requires_grad_()
    matrix = (5 * torch.randn(31, 8, generator=generator)).requires_grad_()  # logits of 200 and more
    target = torch.randint(31, (23,), generator=generator)
    plain = torch.nn.functional.cross_entropy(x @ matrix.T, target)
    ours = CrossEntropy.apply(x, matrix, target, torch.float32)
    assert float(ours.detach()) == pytest.approx(float(plain.detach()), rel=1e-6)
    for expected, found in zip(*(torch.autograd.grad(3 * loss, (x, matrix)) for loss in (plain, ours))):
        assert torch.allclose(expected, found, atol=1e-5)


def test_a_form_for_training_keeps_the_weights_and_their_names():
    for config in (TOY, GPT2, GATED):
        model = toy(config=config)
        before = dict(model.named_parameters())
        for products in (torch.float32, torch.bfloat16):
            after = dict(attach(model, products).named_parameters())
            assert after.keys() == before.keys() and all(after[name] is before[name] for name in before)


@pytest.mark.parametrize("window", [None, 5, 40])
@pytest.mark.parametrize("sink", [True, False])
def test_attention_with_dropout_is_the_explicit_form_in_blocks(window, sink):
    """So little is dropped here that nothing is; where half is, the mean stays, the pattern does not."""
    given, seen, onto = attention_of(2, 150, window, sink)
    answers, fast = [], attend_banded(window) if window else attend_causal
    for form in (attend, fast):
        mixed = form(given["q"], given["k"], given["v"], seen, given.get("sink"), dropout=1e-12)
        answers.append((mixed, *torch.autograd.grad(mixed, list(given.values()), onto)))
    for name, explicit, found in zip(("mixed", *given), *answers):
        assert torch.allclose(explicit, found, atol=2e-5), name
    dropped = [fast(given["q"], given["k"], given["v"], seen, given.get("sink"), dropout=0.5).detach()
               for _ in range(200)]  # fmt: skip
    assert not torch.allclose(dropped[0], answers[0][0], atol=1e-2)
    assert torch.allclose(torch.stack(dropped).mean(0), answers[0][0], atol=0.6)


def test_a_pattern_that_is_asked_for_comes_from_the_explicit_form():
    tokens, model = torch.arange(17)[None], attach(toy().eval())
    names = [f"blocks.{n}.attention.pattern" for n in (0, 1)]
    recorder = Recorder(keep=names)
    with torch.no_grad():
        recorded = model(tokens, tap=recorder)
        assert torch.allclose(recorded, model(tokens), atol=2e-5)
    assert [tuple(recorder.kept[name].shape) for name in names] == [(1, 4, 17, 17)] * 2


# The loss


def test_balance_is_the_formula_of_switch_transformers():
    generator = torch.Generator().manual_seed(4)
    logits = torch.randn(3, 5, 7, generator=generator)
    choice = logits.topk(2).indices
    total = 0.0
    for expert in range(7):
        chosen = sum(int(choice[b, t, k]) == expert for b in range(3) for t in range(5) for k in range(2))
        likely = sum(math.exp(logits[b, t, expert]) / sum(math.exp(x) for x in logits[b, t])
                     for b in range(3) for t in range(5))  # fmt: skip
        total += 7 * (chosen / 30) * (likely / 15)
    assert float(balance(logits, choice)) == pytest.approx(total, rel=1e-5)


def test_balance_is_one_when_even_and_the_number_of_experts_when_all_crowd_into_one():
    even = torch.arange(6).view(1, 6, 1)
    assert float(balance(torch.zeros(1, 6, 6), even)) == pytest.approx(1)
    crowded = torch.full((1, 6, 6), -50.0).index_fill(2, torch.tensor([2]), 50.0)
    assert float(balance(crowded, torch.full((1, 6, 1), 2))) == pytest.approx(6)


def test_the_router_tap_sees_every_layer_and_carries_gradients_to_every_router():
    model, tap = toy(), RouterTap()
    model(torch.arange(15)[None], tap=tap)
    assert [tuple(x.shape) for x in tap.logits] == [(1, 15, 3)] * 2
    assert [tuple(x.shape) for x in tap.choice] == [(1, 15, 2)] * 2
    tap.balance().backward()
    assert all(float(block.experts.router.weight.grad.abs().sum()) > 0 for block in model.blocks)


def test_the_loss_is_cross_entropy_in_nats_and_its_gradient_holds_the_balance_too():
    windows = torch.randint(19, (2, 13), generator=torch.Generator().manual_seed(5))
    model = toy()
    loss, spread = gradients(model, windows, weight=0.3)
    chance = model(windows[:, :-1]).detach().softmax(-1)
    each = [-math.log(chance[b, t, windows[b, t + 1]]) for b in range(2) for t in range(12)]
    assert float(loss) == pytest.approx(sum(each) / 24, rel=1e-5)
    with_balance, again = by_name(model), toy()
    gradients(again, windows, weight=0.0)
    name = "blocks.0.experts.router.bias"
    assert 1 <= float(spread) <= 3
    assert float((with_balance[name] - by_name(again)[name]).abs().max()) > 1e-4


# Rounding on the way forward


def test_a_rounded_stack_answers_with_rounded_matrices_and_passes_gradients_as_if_they_were_not():
    plain = toy().blocks[0].experts.gate_up
    rounded = RoundedStack(plain)
    assert torch.equal(rounded.matrix(1), round_to_mxfp4(plain.weight[1]))
    assert not torch.equal(rounded.matrix(1), plain.matrix(1))
    x, onto = torch.randn(9, 32), torch.randn(9, 128)
    rounded(x, 1).backward(onto)
    assert torch.allclose(plain.weight.grad[1], onto.T @ x, atol=1e-5)
    assert float(plain.weight.grad[0].abs().sum()) == 0


def test_the_last_phase_computes_what_the_stored_experts_will():
    model = toy().eval()
    tokens = torch.arange(18)[None]
    with torch.no_grad():
        now = in_phase(model, RECIPE, 1)(tokens)
        for block in model.blocks:
            for stack in (block.experts.gate_up, block.experts.down):
                stack.weight.copy_(round_to_mxfp4(stack.weight))
        assert torch.allclose(now, model(tokens), atol=1e-5)


def test_yarn_is_off_in_the_first_phase_and_both_phases_share_every_weight():
    model = toy()
    first, second = in_phase(model, RECIPE, 0), in_phase(model, RECIPE, 1)
    assert first.config.yarn is None and second.config.yarn == TOY.yarn
    for phased in (first, second):
        shared = dict(phased.named_parameters())
        assert all(shared[name] is weight for name, weight in model.named_parameters())


# The schedule


def test_the_rate_rises_to_its_peak_and_falls_to_zero_in_a_straight_line():
    recipe = replace(RECIPE, peak=0.5, warmup=10)
    rates = [recipe.rate(step, 110) for step in range(110)]
    assert rates[0] == pytest.approx(0.05) and rates[9] == rates[10] == 0.5
    assert rates[60] == pytest.approx(0.25) and rates[109] == pytest.approx(0.005)
    assert recipe.rate(110, 110) == 0
    assert all(a > b for a, b in zip(rates[10:], rates[11:]))
    assert replace(recipe, warmup=500).rate(9, 100) == 0.5  # a short run warms up over a tenth


def test_phases_begin_where_their_shares_say():
    recipe = replace(RECIPE, phases=(replace(SHORT, share=0.88), replace(LONG, share=0.12)))
    assert recipe.starts(100) == [0, 88, 100]
    assert [recipe.phase_at(step, 100) for step in (0, 87, 88, 99)] == [0, 0, 1, 1]
    assert recipe.tokens(100) == 88 * 5 * 24 + 12 * 3 * 48
    assert recipe.tokens(100, done=90) == 10 * 3 * 48
    with pytest.raises(ValueError, match="shares of 0.9 in all"):
        replace(RECIPE, phases=(replace(SHORT, share=0.9),))


def test_the_cost_is_told_before_the_run():
    run = Run(RECIPES["mini-oss"], seed=0, steps=1000)
    line = price(run.recipe, run, [0.5, 1.0])
    assert line == ("mini-oss: 7.5 M parameters, 2.7 M a token; 1,000 steps, 2.05 M tokens, about 9 minutes "
                    "at 3,657 tokens/s")  # fmt: skip
    assert steps_in(run.recipe, 30, [0.5, 1.0]) == int(1800 / 0.56)


def test_mini_oss_is_gpt_oss_in_small():
    config = recipe_of("mini-oss").config
    assert config.windows == (32, None) * 3 and config.sinks and config.bias and not config.tied
    assert (config.n_heads // config.n_kv_heads, config.n_experts, config.experts_per_token) == (3, 8, 2)
    assert config.yarn == Yarn(factor=4.0, original_context=256) and config.context == 4 * 256
    assert checkpoint_bytes(config) < 8e6
    with pytest.raises(ValueError, match="no recipe 'mini-osss'; there are mini-oss, mini-gpt2"):
        recipe_of("mini-osss")


def test_matrices_decay_and_vectors_do_not():
    model = toy()
    matrices, vectors = optimizer_for(model, RECIPE).param_groups
    assert matrices["weight_decay"] == 0.1 and vectors["weight_decay"] == 0
    names = {id(weight): name for name, weight in model.named_parameters()}
    kept = {names[id(weight)].split(".")[-1] for weight in vectors["params"]}
    assert kept == {"bias", "scale", "sinks"}
    decayed = {names[id(weight)].split(".")[-1] for weight in matrices["params"]}
    assert decayed == {"weight", "token_embedding"}


def test_averages_that_fade_are_set_to_zero_before_they_are_denormal():
    weight = torch.nn.Parameter(torch.ones(3))
    optimizer = torch.optim.AdamW([weight], betas=(0.9, 0.95))
    weight.grad = torch.tensor([1.0, 0.0, -1e-3])
    optimizer.step()
    for kind in ("exp_avg", "exp_avg_sq"):
        optimizer.state[weight][kind][1] = -1e-31
    settle(optimizer)
    assert optimizer.state[weight]["exp_avg"].tolist() == pytest.approx([0.1, 0.0, -1e-4])
    squares = optimizer.state[weight]["exp_avg_sq"]
    assert squares[1] == 0 and (squares >= 0).all() and squares[0] > 0
    assert 0.95**100 > 0.9**100 > 1.2e-38 / 1e-30  # so that none reaches the denormals between two settlings


def test_training_leaves_the_arithmetic_of_the_process_as_it_was(tmp_path):
    """`set_flush_denormal` would stay with the process, and take MXFP4's smallest values from it."""
    train(RECIPE, tmp_path, steps=1, texts=counting(), quiet=True)
    smallest = torch.full((64,), 2.0**-149)
    assert (smallest > 0).all() and (smallest + 0).tolist() == [2.0**-149] * 64


# Runs


def weights_of(folder: Path) -> dict[str, bytes]:
    """Every tensor of a run's checkpoint, weights and averages."""
    with runs.safetensors.safe_open(folder / runs.CHECKPOINT, framework="pt") as opened:
        return {name: opened.get_tensor(name).numpy().tobytes() for name in opened.keys()}


@pytest.mark.parametrize("recipe", [RECIPE, Recipe(GPT2, (Phase(1.0, 24, 5),), peak=1e-2, warmup=2)],
                         ids=["two phases", "dropout"])  # fmt: skip
def test_six_steps_are_three_steps_and_three_more_bit_for_bit(tmp_path, recipe):
    at_once = train(recipe, tmp_path / "once", steps=6, seed=7, texts=counting(), quiet=True)
    half = train(recipe, tmp_path / "twice", steps=6, seed=7, until=3, texts=counting(), quiet=True)
    assert (half.done, half.steps) == (3, 6)
    whole = train(recipe, tmp_path / "twice", seed=7, texts=counting(), quiet=True)
    assert whole.loss == at_once.loss and len(whole.loss) == 6 and whole.stops == [3]
    once, twice = weights_of(tmp_path / "once"), weights_of(tmp_path / "twice")
    assert once == twice
    averaged = {name.removeprefix("adam.exp_avg_sq.") for name in once if name.startswith("adam.exp_avg_sq.")}
    assert averaged == dict(toy(1, recipe.config).named_parameters()).keys()


def test_a_run_is_the_loop_written_out(tmp_path):
    recipe = replace(RECIPE, phases=(replace(SHORT, share=1.0),), warmup=1)
    train(recipe, tmp_path, steps=4, seed=7, texts=counting(), quiet=True)
    model, trained = Transformer.random(TOY, 7).train(), Transformer(TOY)
    read_checkpoint(tmp_path, trained)
    decays = {True: 0.1, False: 0.0}
    optimizer = torch.optim.AdamW(
        [{"params": [weight], "weight_decay": decays[weight.ndim > 1 and not name.endswith("bias")]}
         for name, weight in model.named_parameters()], betas=(0.9, 0.95))  # fmt: skip
    for step, rate in enumerate((1e-2, 1e-2, 2e-2 / 3, 1e-2 / 3)):
        windows, _ = Batches(counting(), 5, 24, seed=7).batch(step)
        tap = RouterTap()
        logits = model.with_config(yarn=None)(windows[:, :-1], tap=tap)
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), windows[:, 1:].flatten())
        optimizer.zero_grad()
        (loss + 0.01 * tap.balance()).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for group in optimizer.param_groups:
            group["lr"] = rate
        optimizer.step()
    for (name, ours), expected in zip(trained.named_parameters(), model.parameters()):
        assert torch.allclose(ours, expected, atol=2e-4), name


def test_another_seed_gives_another_model_and_the_same_seed_the_same(tmp_path):
    found = []
    for n, seed in enumerate((1, 1, 2)):
        train(RECIPE, tmp_path / str(n), steps=2, seed=seed, texts=counting(), quiet=True)
        found.append(weights_of(tmp_path / str(n)))
    assert found[0] == found[1] != found[2]


def test_the_loss_falls_on_what_can_be_learned(tmp_path):
    run = train(RECIPE, tmp_path, steps=60, texts=counting(), quiet=True)
    assert run.loss[0] == pytest.approx(math.log(19), rel=0.05)
    assert sum(run.loss[-5:]) / 5 < 1.0


def test_a_run_is_gone_on_with_only_as_it_was_begun(tmp_path):
    train(RECIPE, tmp_path, steps=4, until=1, texts=counting(), quiet=True)
    for change, message in (({"seed": 5}, "has seed 0, not 5"), ({"steps": 9}, "has 4 steps, not 9")):
        with pytest.raises(ValueError, match=message):
            train(RECIPE, tmp_path, texts=counting(), quiet=True, **change)
    with pytest.raises(ValueError, match="follows another recipe than toy as it is now"):
        train(replace(RECIPE, peak=2e-2), tmp_path, texts=counting(), quiet=True)
    anew = train(RECIPE, tmp_path, steps=2, resume=False, texts=counting(), quiet=True)
    assert (anew.done, anew.steps, anew.stops) == (2, 2, [])
    with pytest.raises(ValueError, match="minutes or steps, not both"):
        train(RECIPE, tmp_path, minutes=1, steps=1, texts=counting())


def test_ctrl_c_finishes_the_step_saves_and_says_how_to_go_on(tmp_path, monkeypatch, capsys):
    def interrupted(*given: object) -> tuple[Tensor, Tensor]:
        os.kill(os.getpid(), signal.SIGINT)
        return gradients(*given)

    before = signal.getsignal(signal.SIGINT)
    monkeypatch.setattr("gptoss_lab.training.train.seconds_a_step", lambda model, recipe, texts: [0.1, 0.1])
    monkeypatch.setattr("gptoss_lab.training.train.gradients", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train(RECIPE, tmp_path, steps=6, texts=counting())
    assert "stopped and saved after step 1 of 6; the same command goes on" in capsys.readouterr().out
    monkeypatch.undo()
    assert signal.getsignal(signal.SIGINT) is before
    assert train(RECIPE, tmp_path, texts=counting(), quiet=True).done == 6


@pytest.mark.parametrize("breaks", ["save_file", "replace"])
def test_an_interrupted_save_leaves_the_old_checkpoint(tmp_path, monkeypatch, breaks):
    train(RECIPE, tmp_path, steps=4, until=2, texts=counting(), quiet=True)
    before = weights_of(tmp_path)

    def full(first: object, file: Path, metadata: object = None) -> None:
        if breaks == "save_file":
            Path(file).write_bytes(b"half")
        raise OSError("No space left on device")

    monkeypatch.setattr("safetensors.torch.save_file" if breaks == "save_file" else "os.replace", full)
    with pytest.raises(OSError, match="No space left"):
        train(RECIPE, tmp_path, texts=counting(), quiet=True)
    assert weights_of(tmp_path) == before and read_run(tmp_path).done == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint.safetensors", "log.json"]


def test_a_damaged_checkpoint_is_refused_by_name(tmp_path):
    (tmp_path / runs.CHECKPOINT).write_bytes(b"nothing of the kind")
    with pytest.raises(ValueError, match="checkpoint.safetensors is no whole checkpoint"):
        train(RECIPE, tmp_path, texts=counting(), quiet=True)
    assert read_run(tmp_path / "nowhere") is None
    with pytest.raises(ValueError, match="train there first"):
        read_checkpoint(tmp_path / "nowhere", toy())


def test_a_run_survives_json_and_its_log_names_no_computer(tmp_path):
    run = train(RECIPE, tmp_path, steps=2, texts=counting(), quiet=True)
    log = json.loads((tmp_path / runs.LOG).read_text(encoding="utf-8"))
    assert Run.from_json(log) == read_run(tmp_path) == run
    assert log["tokens"] == 5 * 24 + 3 * 48 and log["made_with"]["torch"] == torch.__version__
    assert os.uname().nodename not in (tmp_path / runs.LOG).read_text(encoding="utf-8")


# Measuring and publishing


def test_losses_and_bits_per_byte_are_those_of_a_model_that_knows_nothing():
    from gptoss_lab.text.tokens import encoding
    from gptoss_lab.training.corpus import DOMAINS, heldout_windows

    config = TOY.with_changes(vocab_size=4096)
    model = Transformer.random(config)
    with torch.no_grad():
        model.unembed.weight.zero_()
    nothing = math.log(4096)
    assert losses(model, torch.arange(14).view(2, 7)).flatten().tolist() == pytest.approx([nothing] * 12)
    found = evaluate(model, encoding("mini"), context=40, limit=2)
    assert found.keys() == DOMAINS.keys()
    windows = heldout_windows(encoding("mini"), "spanish", 40, 2)
    assert found["spanish"] == pytest.approx(12 * 80 / int(windows.bytes.sum()), rel=1e-4)
    assert by_position(model, encoding("mini"), "python", 40, 2).tolist() == pytest.approx([nothing] * 40)


def test_shares_of_sinks_and_experts_are_means_over_tokens():
    model, windows = toy().eval(), torch.arange(34).view(2, 17) % 19
    tap, patterns = RouterTap(), Recorder(keep=[f"blocks.{n}.attention.pattern" for n in (0, 1)])
    with torch.no_grad():
        model(windows, tap=tap)
        model(windows, tap=patterns)
    sinks, experts = sink_share(model, windows), expert_share(model, windows)
    for n, choice in enumerate(tap.choice):
        left = 1 - patterns.kept[f"blocks.{n}.attention.pattern"].sum(-1)
        assert torch.allclose(sinks[n], left.mean((0, 2)), atol=1e-5)
        assert experts[n].tolist() == pytest.approx([int((choice == e).sum()) / 68 for e in range(3)])


def test_near_and_far_tell_of_the_same_targets():
    model, windows = toy().eval(), torch.randint(19, (2, 41), generator=torch.Generator().manual_seed(6))
    near, far = near_and_far(model, windows, near=10)
    targets = [(b, start + t) for b in range(2) for start in (10, 20, 30) for t in range(5, 10)]
    with torch.no_grad():
        whole = model(windows[:, :-1]).log_softmax(-1)
        alone = torch.cat([model(windows[:, s : s + 10]) for s in (0, 10, 20, 30)], 1).log_softmax(-1)
    for found, seen in ((near, alone), (far, whole)):
        each = [-float(seen[b, t, windows[b, t + 1]]) for b, t in targets]
        assert found == pytest.approx(sum(each) / 30, rel=1e-4)
    assert abs(near - far) > 1e-3


def small_run(folder: Path) -> Run:
    """A run of a small model with the miniatures' vocabulary, after one step of two."""
    config = TOY.with_changes(vocab_size=4096, stop_ids=(4095,), d_head=8)
    phases = Phase(0.5, 24, 2), Phase(0.5, 48, 1, yarn=True, rounded=True)
    recipe = Recipe(config, phases, peak=1e-2, warmup=1)
    model = toy(5, config)
    run, optimizer = Run(recipe, seed=5, steps=2), optimizer_for(model, recipe)
    gradients(model, torch.randint(4096, (2, 25)), 0.01)
    optimizer.step()
    run.done, run.loss, run.balance = 1, [8.3], [1.1]
    folder.mkdir()
    write_checkpoint(folder, run, model, optimizer)
    return run


def test_a_published_model_computes_what_its_table_was_measured_on(tmp_path):
    small_run(tmp_path / "run")
    publish(tmp_path / "run", tmp_path / "model", windows=1)
    loaded, (trained, run) = load(tmp_path / "model", dtype=torch.float32), finished(tmp_path / "run")
    tokens = torch.arange(20)[None] * 7
    with torch.no_grad():
        stored, exact = as_stored(trained)(tokens), trained.eval()(tokens)
        assert torch.equal(loaded(tokens), stored) and not torch.equal(stored, exact)
    assert loaded.config.with_changes(name="toy") == run.recipe.config.with_changes(name="toy")
    card = (tmp_path / "model" / "README.md").read_text(encoding="utf-8")
    assert "**An early version**, taken at step 1 of 2" in card and "2: 48 tokens," in card
    assert loaded.tokenizer.decode(loaded.tokenizer.encode("¿Qué? 12 + 3")) == "¿Qué? 12 + 3"
    said = json.loads((tmp_path / "model" / "training.json").read_text(encoding="utf-8"))["bits_per_byte"]
    bits = evaluate(loaded, loaded.tokenizer, context=24, limit=1)
    assert said["as stored, 24 tokens"] == pytest.approx(bits, rel=1e-5)
    tables, longer = report(loaded, limit=1), evaluate(loaded, loaded.tokenizer, context=48, limit=1)
    assert f"| spanish | {longer['spanish']:.3f} |" in tables and "| layer 1 | " in tables
    assert tables.count("| python | ") == 4 and "0–7 | 8–31 |" in tables


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_takes_a_step_at_its_full_size(name):
    recipe = recipe_of(name)
    model = Transformer.random(recipe.config)
    for number in range(len(recipe.phases)):
        phased = in_phase(model, recipe, number)
        loss, _ = gradients(phased, torch.randint(4096, (1, 65)), recipe.balance)
        assert float(loss) == pytest.approx(math.log(4096), rel=0.05)
    missing = [name for name, weight in model.named_parameters() if weight.grad is None]
    assert not missing


@pytest.mark.parametrize(("module", "arguments", "said"), [
    (publishing, ["nowhere", "model"], "nowhere"),
    (measuring, ["no-such-model"], "no-such-model"),
    (lookback, ["gpt2", "--threads", "0"], "threads=0; expected 1 to "),
    (lookback, ["gpt2", "--until", "0"], "until=0; expected 1 or more"),
    (bench_page, ["missing/performance.md"], "no folder 'missing' to write"),
])  # fmt: skip
def test_a_mistake_ends_a_module_with_a_line(tmp_path, monkeypatch, module, arguments, said):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        module.main(arguments)
    line = str(ended.value)
    assert line.startswith(f"python -m {module.__name__}: ") and said in line and "\n" not in line
    assert not list(tmp_path.iterdir())
