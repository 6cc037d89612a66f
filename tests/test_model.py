"""Statements about the model: what may depend on what, and which roads lead to the same answer."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from toys import (
    BATCH,
    KEYS,
    QUERIES,
    close,
    every_family,
    gather,
    gpt2,
    gpt_oss,
    in_chunks,
    left_padded,
    on_the_road,
    one_thread,
    qwen3,
    random_model,
    random_tokens,
    record,
    run,
    walk,
)

from gptoss_lab.config import Yarn
from gptoss_lab.model import (
    Transformer,
    attend_fused,
    concentration,
    frequencies,
    rotate,
)
from gptoss_lab.model.linear import Linear, Stack
from gptoss_lab.tap import Recorder

pytestmark = pytest.mark.usefixtures(one_thread.__name__)


# ---- what may depend on what


@every_family
def test_a_future_token_never_changes_the_past(family):
    model, tokens = gather(random_model(family())), random_tokens(family())
    plain = record(model, tokens)
    for t in range(1, QUERIES):
        other = tokens.clone()
        other[:, t:] = (other[:, t:] + 1) % model.config.vocab_size
        changed = record(model, other, ["blocks.*.residual", "logits"])
        for name, value in changed.items():
            assert torch.equal(value[:, :t], plain[name][:, :t]), f"{name} before {t}"
            assert not torch.equal(value[:, t], plain[name][:, t])


def test_a_window_of_three_sees_exactly_three_keys():
    model = random_model(gpt_oss(window=3, windowed_layers="all"))
    kept = record(
        model, random_tokens(model.config), ["blocks.1.attention.visible", "blocks.1.attention.pattern"]
    )
    seen = kept["blocks.1.attention.visible"][0]
    assert [row.nonzero().flatten().tolist() for row in seen] == [
        [0], [0, 1], [0, 1, 2], [1, 2, 3], [2, 3, 4], [3, 4, 5], [4, 5, 6], [5, 6, 7], [6, 7, 8]
    ]  # fmt: skip
    pattern = kept["blocks.1.attention.pattern"]
    assert torch.equal(pattern > 0, seen.expand(BATCH, 8, -1, -1))


def test_one_layer_with_a_window_of_three_forgets_what_is_further():
    """Through one layer a token reaches two further; through L layers L · 2."""
    for layers, reach in ((1, 2), (2, 4), (3, 6)):
        model = gather(random_model(gpt_oss(n_layers=layers, window=3, windowed_layers="all")))
        tokens = random_tokens(model.config)
        other = tokens.clone()
        other[:, 0] = (other[:, 0] + 1) % 29
        changed = (run(model, tokens) != run(model, other)).any(-1).all(0)
        assert changed.tolist() == [t <= reach for t in range(QUERIES)]


@every_family
def test_sink_and_pattern_sum_to_one(family):
    model = random_model(family())
    kept = record(model, random_tokens(model.config), "*attention*")
    for n in range(3):
        total = kept[f"blocks.{n}.attention.pattern"].sum(-1)
        if model.config.sinks:
            sink = kept[f"blocks.{n}.attention.sink"]
            assert (sink > 0).all()
            total = total + sink
        close(total, torch.ones(BATCH, 8, QUERIES), 1e-6)


@pytest.mark.parametrize("yarn", [None, Yarn()], ids=["plain", "YaRN"])
def test_rotation_depends_only_on_distance(yarn):
    freq, stretch = frequencies(64, 150000.0, yarn), concentration(yarn)
    q, k = torch.randn(2, 1, 1, 3, 64, generator=torch.Generator().manual_seed(0))

    def score(at: int, distance: int) -> Tensor:
        turned = [rotate(x, torch.tensor([[p]]), freq, stretch) for x, p in ((q, at), (k, at - distance))]
        return (turned[0] * turned[1]).sum(-1)

    for distance in (0, 1, 17, 100):
        for at in (100, 101, 777, 4000):
            close(score(at, distance), score(200, distance), 2e-2 if at > 1000 else 2e-3)  # float32 angles
    assert (score(200, 0) - score(200, 17)).abs().min() > 0.1


@pytest.mark.parametrize("family", [gpt_oss, qwen3, on_the_road])
def test_a_text_may_begin_anywhere_where_positions_are_distances(family):
    model = random_model(family())
    tokens = random_tokens(model.config)
    positions = torch.arange(QUERIES).expand(BATCH, -1)
    close(run(model, tokens, positions=positions + 7), run(model, tokens), 1e-4)
    assert (run(model, tokens, positions=positions * 2) - run(model, tokens)).abs().max() > 1e-2


def test_learned_positions_are_not_distances():
    model = random_model(gpt2())
    tokens, positions = random_tokens(model.config), torch.arange(QUERIES).expand(BATCH, -1)
    assert (run(model, tokens, positions=positions + 7) - run(model, tokens)).abs().max() > 1e-2
    with pytest.raises(ValueError, match="position 31 is past the 31 positions"):
        run(model, tokens, positions=positions + 23)


# ---- the same answer by other roads


@every_family
def test_stepping_by_hand_gives_the_models_own_bits(family):
    model, tokens = random_model(family()), random_tokens(family())
    with torch.no_grad():
        x = model.embed(tokens)
        for block in model.blocks:
            x = block(x)
        logits = model.read_out(x)
    assert torch.equal(logits, run(model, tokens))


@every_family
@pytest.mark.parametrize("layer", [0, 1, 2])
def test_restarting_from_a_recorded_residual_gives_the_same_bits(family, layer):
    model, tokens = random_model(family()), random_tokens(family())
    kept = record(model, tokens)
    with torch.no_grad():
        x = kept[f"blocks.{layer}.residual"]
        for block in model.blocks[layer + 1 :]:
            x = block(x)
        assert torch.equal(model.read_out(x), kept["logits"])


@pytest.mark.parametrize("family", [gpt_oss, qwen3])
def test_walking_over_the_experts_is_gathering_them(family):
    model, tokens = random_model(family()), random_tokens(family())
    close(run(walk(model), tokens), run(gather(model), tokens), 2e-6)
    for block in model.blocks:
        x = torch.randn(BATCH, QUERIES, 10, generator=torch.Generator().manual_seed(3))
        with torch.no_grad():
            walked, gathered = walk(model) and block.experts(x), gather(model) and block.experts(x)
        close(walked, gathered, 1e-6)


def test_few_tokens_gather_and_many_walk(monkeypatch):
    model, walked = random_model(gpt_oss()), []
    monkeypatch.setattr(
        model.blocks[1].experts,
        "walk",
        lambda x, choice, tap: walked.append(x.shape) or torch.zeros(*choice.shape, 10),
    )
    for batch, count in ((1, 4), (2, 2), (1, 1)):
        run(model, random_tokens(model.config, batch, count))
    assert walked == []
    run(model, random_tokens(model.config, 1, 5))
    assert walked == [(1, 5, 10)]


def fused(model: Transformer, layers: tuple[int, ...] = (0, 1, 2)) -> Transformer:
    for n in layers:
        model.blocks[n].attention.attend = attend_fused
    return model


@every_family
def test_fused_attention_is_the_explicit_one(family):
    model = random_model(family())
    tokens = random_tokens(model.config, count=KEYS)
    explicit = (
        record(model, tokens, "blocks.0.attention.mixed")["blocks.0.attention.mixed"],
        run(model, tokens),
    )
    fused(model)
    close(record(model, tokens, "blocks.0.attention.mixed")["blocks.0.attention.mixed"], explicit[0], 2e-6)
    close(run(model, tokens), explicit[1])
    close(in_chunks(model, tokens, (4, 1, 8)), explicit[1])
    batch, positions = left_padded(tokens, [13, 5, 1])
    close(
        run(model, batch, positions=positions)[positions >= 0],
        run(random_model(family()), batch, positions=positions)[positions >= 0],
    )


@pytest.mark.parametrize("wanted", ["pattern", "scores", "sink"])
def test_a_fused_layer_runs_explicitly_where_its_pattern_is_wanted_and_there_alone(monkeypatch, wanted):
    model, explicit = fused(random_model(gpt_oss())), random_model(gpt_oss())
    tokens, name, calls = random_tokens(model.config), f"blocks.1.attention.{wanted}", []
    kernel = F.scaled_dot_product_attention
    monkeypatch.setattr(
        F, "scaled_dot_product_attention", lambda *asked, **how: calls.append(1) or kernel(*asked, **how)
    )
    run(model, tokens)
    assert len(calls) == 3
    close(record(model, tokens, name)[name], record(explicit, tokens, name)[name])
    assert len(calls) == 5
    if wanted != "sink":  # which is read-only
        halved = Recorder((), {name: [lambda value, here: value * 0.5]})
        close(run(model, tokens, tap=halved), run(explicit, tokens, tap=halved))
        assert len(calls) == 7
        assert (run(model, tokens, tap=halved) - run(model, tokens)).abs().max() > 1e-3


@every_family
@pytest.mark.parametrize("last", [1, 4, 9, 20])
def test_the_last_logits_are_the_last_of_all(family, last):
    model, tokens = random_model(family()), random_tokens(family())
    close(run(model, tokens, last=last), run(model, tokens)[:, -last:], 2e-6)
    assert run(model, tokens, last=last).shape == (BATCH, min(last, QUERIES), 29)


def test_tied_embeddings_are_one_table():
    model = random_model(gpt2())
    assert model.unembed.weight is model.token_embedding
    assert model.with_config(norm_eps=1e-3).unembed.weight is model.token_embedding
    assert random_model(gpt_oss()).unembed.weight is not random_model(gpt_oss()).token_embedding


# ---- dropout


def dropouts(model: Transformer, monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """The shapes of what a pass drops from."""
    dropped: list[tuple[int, ...]] = []

    def drop(x: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
        if training and p > 0:
            assert p == model.config.dropout and not inplace
            dropped.append(tuple(x.shape))
        return x

    monkeypatch.setattr(F, "dropout", drop)
    run(model, random_tokens(model.config))
    return dropped


def test_dropout_is_at_gpt2s_three_sites_and_in_training_alone(monkeypatch):
    """After the embedding, on the pattern, and on what each half of a block adds to the residual."""
    model = random_model(gpt2(dropout=0.3))
    residual, pattern = (3, 9, 10), (3, 8, 9, 9)
    assert dropouts(model.eval(), monkeypatch) == []
    assert dropouts(model.train(), monkeypatch) == [residual, *[pattern, residual, residual] * 3]
    assert dropouts(random_model(gpt2()).train(), monkeypatch) == []


def test_dropout_follows_the_seed_and_leaves_no_trace_outside_training():
    model, plain = random_model(gpt2(dropout=0.3)), random_model(gpt2())
    tokens = random_tokens(model.config)
    assert torch.equal(run(model, tokens), run(plain, tokens))
    seeded = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        seeded.append(run(model.train(), tokens))
    assert torch.equal(seeded[0], seeded[1]) and not torch.equal(seeded[0], seeded[2])
    assert not torch.equal(seeded[0], run(plain, tokens))


def test_the_pattern_is_kept_before_dropout_and_the_residual_keeps_its_mean():
    model = random_model(gpt2(dropout=0.5, n_layers=1)).train()
    tokens = random_tokens(model.config, batch=400, count=3)
    kept = record(model, tokens)
    close(kept["blocks.0.attention.pattern"].sum(-1), torch.ones(400, 8, 3), 1e-6)
    embedded = kept["token_embedding"] + kept["position_embedding"]
    assert set((kept["embedding"] / embedded).round(decimals=3).unique().tolist()) == {0.0, 2.0}


# ---- precision


def computing_in(model: Transformer, dtype: torch.dtype) -> Transformer:
    for module in model.modules():
        if isinstance(module, Linear | Stack):
            module.compute = dtype
    return model


@every_family
def test_bf16_products_stay_close(family):
    """By rms, over the tokens whose experts are chosen alike; the residual is float32 all the way."""
    model, tokens = gather(random_model(family())), random_tokens(family(), batch=40)
    exact = record(model, tokens)
    rough = record(computing_in(model, torch.bfloat16), tokens)
    alike = torch.ones(tokens.shape, dtype=torch.bool)
    for n in range(3 if model.config.n_experts else 0):
        alike &= (exact[f"blocks.{n}.experts.choice"] == rough[f"blocks.{n}.experts.choice"]).all(-1)
    error = (rough["logits"] - exact["logits"])[alike].square().mean().sqrt() / exact[
        "logits"
    ].square().mean().sqrt()
    assert 1e-4 < error < 0.05
    assert alike.float().mean() > 0.8
    for name in (
        "embedding",
        *(f"blocks.{n}.residual{mid}" for n in range(3) for mid in ("_mid", "")),
        "final_norm",
        "logits",
    ):
        assert rough[name].dtype == torch.float32, name
    assert rough["blocks.1.attention.q"].dtype == torch.bfloat16


def test_random_weights_follow_the_seed_and_start_even():
    config = gpt_oss(d_model=64, d_ff=64, vocab_size=100)
    one, same, other = (Transformer.random(config, seed) for seed in (3, 3, 4))
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), same.parameters()))
    assert not torch.equal(one.token_embedding, other.token_embedding)
    assert one.weights_from == "random, seed 3" and not one.training
    logits = run(one, torch.randint(100, (4, 30), generator=torch.Generator().manual_seed(0)))
    loss = F.cross_entropy(
        logits[:, :-1].flatten(0, 1),
        torch.randint(100, (4 * 29,), generator=torch.Generator().manual_seed(0)),
    )
    assert loss.item() == pytest.approx(math.log(100), abs=0.1)
