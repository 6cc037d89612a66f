"""Edits: they reach everything that follows and nothing else, and are refused where they break the rules."""

from __future__ import annotations

import functools

import pytest
import torch
from torch import Tensor
from toys import (
    BATCH,
    FAMILIES,
    FORMS,
    QUERIES,
    every_form,
    gather,
    gpt2,
    gpt_oss,
    one_thread,
    random_model,
    random_tokens,
    record,
    run,
)

from gptoss_lab import points
from gptoss_lab.model import (
    Cache,
)
from gptoss_lab.tap import Here, Recorder

pytestmark = pytest.mark.usefixtures(one_thread.__name__)


def same(name: str) -> object:
    """An edit that changes nothing."""
    return lambda value, here: value


def test_an_edit_in_place_does_not_reach_back():
    """An edit works on a copy: what was kept before, and the weights, stay as they were."""
    model = random_model(gpt_oss())
    tokens, sinks = random_tokens(model.config), model.blocks[0].attention.sinks.clone()
    plain = record(model, tokens)

    def zero(value: Tensor, here: Here) -> Tensor:
        return value.zero_()

    edited = record(
        model, tokens, edits={"blocks.0.attention.sink_logit": zero, "blocks.0.residual_mid": zero}
    )
    assert torch.equal(model.blocks[0].attention.sinks, sinks)
    assert torch.equal(edited["blocks.0.attention.norm"], plain["blocks.0.attention.norm"])
    assert edited["blocks.0.residual_mid"].abs().max() == 0
    assert edited["blocks.0.attention.out"].abs().max() > 0


# ---- editing: everything that follows, and nothing else

FEEDS = {  # each point → what is computed from it directly
    "token_embedding": "embedding",
    "position_embedding": "embedding",
    "embedding": "attention.norm residual_mid",
    "attention.norm": "attention.q attention.k attention.v",
    "attention.q": "attention.q_normed",
    "attention.k": "attention.k_normed",
    "attention.q_normed": "attention.q_rotated",
    "attention.k_normed": "attention.k_rotated",
    "attention.q_rotated": "attention.scores",
    "attention.k_rotated": "attention.scores",
    "attention.visible": "attention.scores",
    "attention.scores": "attention.pattern attention.sink",
    "attention.sink": "",  # read-only
    "attention.sink_logit": "attention.pattern attention.sink",
    "attention.pattern": "attention.mixed",
    "attention.v": "attention.mixed",
    "attention.mixed": "attention.out",
    "attention.out": "residual_mid",
    "residual_mid": "experts.norm mlp.norm residual",
    "experts.norm": "experts.logits experts.gate experts.up",
    "experts.logits": "experts.choice experts.weight",
    "experts.choice": "experts.weight experts.gate experts.up experts.each",
    "experts.weight": "experts.out",
    "experts.gate": "experts.act",
    "experts.up": "experts.act",
    "experts.act": "experts.each",
    "experts.each": "experts.out",
    "experts.out": "residual",
    "mlp.norm": "mlp.pre mlp.gate mlp.up",
    "mlp.pre": "mlp.act",
    "mlp.gate": "mlp.act",
    "mlp.up": "mlp.act",
    "mlp.act": "mlp.out",
    "mlp.out": "residual",
    "residual": "attention.norm residual_mid",  # of the next block
    "final_norm": "logits",
    "logits": "",
}


@functools.cache
def what_follows(name: str, n_layers: int) -> frozenset[str]:
    """Every point that is computed from `name`, in full; points that a family lacks are passed through."""
    layer, point = 0, name
    if name.startswith("blocks."):
        _, number, point = name.split(".", 2)
        layer = int(number) + (point == "residual")
    if point == "residual" and layer == n_layers:
        return frozenset({"final_norm", "logits"})
    outside = ("embedding", "logits")
    fed = [to if to in outside else f"blocks.{layer}.{to}" for to in FEEDS[point].split()]
    return frozenset(fed).union(*(what_follows(to, n_layers) for to in fed))


ROW, AT = 1, 4  # the edit touches one token of one text


def touch(name: str, config) -> object:  # type: ignore[no-untyped-def]
    """An edit of token AT in text ROW: noise on numbers, others for a choice, one key fewer for `visible`."""
    axes = points.axes(name).split()
    where = tuple({"B": ROW, "T": AT, "T'": AT}.get(axis, slice(None)) for axis in axes)

    def edit(value: Tensor, here: Here) -> Tensor:
        if name.endswith("visible"):
            value[ROW, AT, AT - 1] = False
        elif name.endswith("choice"):
            value[where] = (value[where] + 1) % config.n_experts
        elif name.endswith("experts.logits"):
            value[where] *= -1  # so that others are chosen
        else:
            noise = torch.randn(value[where].shape, generator=torch.Generator().manual_seed(5))
            value[where] += 0.5 * noise.where(value[where].isfinite(), torch.zeros(()))
        return value

    return edit


def token_axis_first(name: str, value: Tensor) -> Tensor:
    """B T … with the rest flattened, for points whose tokens are not on the second axis too."""
    axes = points.axes(name).split()
    if "B" not in axes:
        value, axes = value[None].expand(BATCH, *value.shape), ["B", *axes]
    return value.movedim(axes.index("T'" if "T'" in axes else "T"), 1).flatten(2)


def test_the_table_of_what_follows_names_every_point():
    every = {
        points.general(name).removeprefix("blocks.N.")
        for f in FAMILIES.values()
        for name in points.names(f())
    }
    assert set(FEEDS) == every


@every_form
def test_an_edit_reaches_everything_after_it_and_nothing_before(family, form):
    model = FORMS[form](random_model(family()))
    config, tokens = model.config, random_tokens(model.config)
    rounding = 0.0 if form == "gather" else 2e-4  # walking, an expert's other tokens are in the same product
    plain = record(model, tokens)
    for name in points.names(config):
        if name.endswith(points.READ_ONLY) or name.startswith(("blocks.0", "blocks.2")):
            continue  # block 1 has a block before it and one after it
        edited = record(model, tokens, edits={name: touch(name, config)})
        follows = what_follows(name, config.n_layers)
        for other in plain:
            before, after = (token_axis_first(other, kept[other].float()) for kept in (plain, edited))
            arrived = (before != after).any(-1)  # B T
            changed = ~torch.isclose(before, after, rtol=0, atol=rounding).all(-1)
            said = f"an edit of {name} and the point {other}"
            assert not changed[:, :AT].any(), f"{said}: an earlier token changed"
            if name != "position_embedding":
                assert not changed[[0, 2]].any(), f"{said}: another text changed"
            if other == name or other in follows:
                may_stay = other.endswith("choice") and other != name  # a top-k may come out the same
                assert may_stay or arrived[ROW, AT], f"{said}: it did not arrive"
            else:
                assert not changed.any(), f"{said}: it should not have arrived"


def test_an_edit_of_the_router_changes_who_answers():
    model = random_model(gpt_oss())
    tokens, name = random_tokens(model.config), "blocks.1.experts.logits"
    kept = record(
        model, tokens, edits={name: lambda value, here: value.index_fill(-1, torch.tensor([5]), -torch.inf)}
    )
    plain = record(model, tokens)
    assert (plain["blocks.1.experts.choice"] == 5).any()
    assert not (kept["blocks.1.experts.choice"] == 5).any()
    torch.testing.assert_close(kept["blocks.1.experts.weight"].sum(-1), torch.ones(BATCH, QUERIES))


def test_weights_follow_an_edited_choice():
    model = random_model(gpt_oss())
    tokens = random_tokens(model.config)
    kept = record(model, tokens, edits={"blocks.0.experts.choice": lambda value, here: (value + 3) % 7})
    chosen = kept["blocks.0.experts.logits"].gather(-1, kept["blocks.0.experts.choice"])
    torch.testing.assert_close(kept["blocks.0.experts.weight"], chosen.softmax(-1))


def test_edits_of_one_point_are_applied_in_order():
    model = random_model(gpt2())
    recorder = Recorder(["embedding"], {"embedding": [lambda v, here: v * 0 + 2, lambda v, here: v * 3 + 1]})
    run(model, random_tokens(model.config), tap=recorder)
    assert (recorder.kept["embedding"] == 7).all()


# ---- what an edit may not do


def refused(name: str, edit: object, family=gpt_oss) -> str:  # type: ignore[no-untyped-def]
    model = random_model(family())
    with pytest.raises(ValueError) as refusal:
        record(model, random_tokens(model.config), "logits", {name: edit})
    assert repr(name) in str(refusal.value)
    return str(refusal.value)


def test_an_edit_must_return_the_shape_it_was_given():
    said = refused("blocks.1.attention.q", lambda value, here: value[:, :, :2])
    assert "(3, 9, 2, 6)" in said and "(3, 9, 8, 6)" in said


def test_an_edit_must_return_something():
    assert "NoneType" in refused("blocks.1.residual", lambda value, here: None)
    assert "float" in refused("blocks.1.residual", lambda value, here: 0.0)


def test_an_edit_may_not_turn_numbers_into_indices_or_back():
    assert "torch.int64" in refused("blocks.1.experts.weight", lambda value, here: value.long())
    assert "torch.float32" in refused("blocks.1.experts.choice", lambda value, here: value.float())


def test_visible_may_be_narrowed_but_not_widened():
    model, name = random_model(gpt_oss()), "blocks.1.attention.visible"
    tokens = random_tokens(model.config)
    assert "widened" in refused(name, lambda value, here: torch.ones_like(value))
    only_itself = torch.eye(QUERIES, dtype=torch.bool).expand(BATCH, -1, -1)
    kept = record(model, tokens, edits={name: lambda value, here: value & only_itself})
    assert torch.equal(kept["blocks.1.attention.pattern"] > 0, only_itself[:, None].expand(-1, 8, -1, -1))
    counted = record(model, tokens, edits={name: lambda value, here: (value & only_itself).int()})
    assert torch.equal(counted["logits"], kept["logits"])


def test_the_dtype_of_an_edited_value_is_restored():
    model = random_model(gpt_oss())
    kept = record(
        model, random_tokens(model.config), edits={"blocks.0.residual": lambda value, here: value.double()}
    )
    assert kept["blocks.0.residual"].dtype == torch.float32


# ---- here


def test_here_says_where_the_edit_stands():
    model, seen = random_model(gpt_oss()), {}
    positions = torch.arange(QUERIES).expand(BATCH, -1) + torch.tensor([[0], [3], [11]])

    def look(value: Tensor, here: Here) -> Tensor:
        seen[here.name] = here
        return value

    names = [
        "embedding",
        "blocks.2.attention.q",
        "blocks.2.attention.scores",
        "blocks.0.experts.weight",
        "final_norm",
    ]
    record(model, random_tokens(model.config), edits={name: look for name in names}, positions=positions)
    assert list(seen) == [names[0], names[3], names[1], names[2], names[4]]
    assert [seen[name].layer for name in names] == [None, 2, 2, 0, None]
    assert all(torch.equal(seen[name].positions, positions) for name in names)
    assert torch.equal(seen[names[2]].keys, positions)
    assert seen[names[1]].keys is None and seen["embedding"].keys is None


def test_here_knows_this_blocks_earlier_points_as_the_model_went_on_with_them():
    model, tokens = random_model(gpt_oss()), random_tokens(gpt_oss())
    seen: dict[str, list[str]] = {}

    def double(value: Tensor, here: Here) -> Tensor:
        return value * 2

    def look(value: Tensor, here: Here) -> Tensor:
        seen["earlier"] = list(here.earlier)
        torch.testing.assert_close(here["attention.q"], plain["blocks.1.attention.q"] * 2)
        torch.testing.assert_close(here["attention.norm"], plain["blocks.1.attention.norm"])
        with pytest.raises(KeyError, match="'experts.act' was not made before 'blocks.1.attention.scores'"):
            here["experts.act"]
        return value

    plain = record(model, tokens)
    record(model, tokens, "logits", {"blocks.1.attention.q": double, "blocks.1.attention.scores": look})
    expected = ["norm", "q", "k", "v", "q_rotated", "k_rotated", "visible", "sink_logit"]
    assert seen["earlier"] == [f"attention.{name}" for name in expected]


def test_here_tells_one_token_at_a_time_while_decoding():
    model = random_model(gpt_oss())
    tokens, seen = random_tokens(model.config, batch=1), []

    def look(value: Tensor, here: Here) -> Tensor:
        seen.append((here.positions.tolist(), sorted(here.keys[0].tolist())))
        return value

    cache = Cache(model.config, 9)
    tap = Recorder((), {"blocks.2.attention.scores": [look]})
    for t in range(7):
        run(model, tokens[:, t : t + 1], tap=tap, cache=cache)
    assert [at for at, _ in seen] == [[[t]] for t in range(7)]
    assert seen[6][1] == [2, 3, 4, 5, 6]  # layer 2 has a window of five


def test_an_edit_can_speak_of_certain_tokens_by_their_positions():
    """An expert off from position 6 on: the same whether the prompt comes whole or a token at a time."""
    model = gather(random_model(gpt_oss()))
    tokens = random_tokens(model.config)
    expert = record(model, tokens)["blocks.1.experts.choice"][0, 6, 0]

    def without_it(value: Tensor, here: Here) -> Tensor:
        late = (here.positions >= 6)[..., None] & (torch.arange(7) == expert)
        return value.masked_fill(late, -torch.inf)

    edits = {"blocks.1.experts.logits": [without_it]}
    whole = run(model, tokens, tap=Recorder((), edits))
    cache = Cache(model.config, QUERIES, BATCH)
    steps = [run(model, tokens[:, t : t + 1], tap=Recorder((), edits), cache=cache) for t in range(QUERIES)]
    torch.testing.assert_close(torch.cat(steps, dim=1), whole, atol=2e-5, rtol=0)
    change = (whole - run(model, tokens)).abs().amax(-1)  # B T
    assert change[0, 6] > 1e-3 and change[:, :6].max() == 0


# ---- the front door


def test_watch_refuses_to_edit_what_nothing_consumes():
    trace = pytest.importorskip("gptoss_lab.trace")
    model = random_model(gpt_oss())
    for pattern in ("blocks.1.attention.sink", "blocks.*.attention.sink"):
        with pytest.raises(ValueError, match="read-only.*sink_logit"):
            trace.watch(
                model, random_tokens(model.config), keep="logits", edit={pattern: lambda value, here: value}
            )
