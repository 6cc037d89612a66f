"""Muon: torch's own on single matrices, stacks of them, gates and ups apart, and what goes on with AdamW."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from test_training import RECIPE, toy

from gptoss_lab.training.muon import Muon, orthogonal
from gptoss_lab.training.objective import optimizer_for, settle
from gptoss_lab.training.recipes import recipe_of
from gptoss_lab.training.runs import Run, read_checkpoint, write_checkpoint

MUON = replace(RECIPE, optimizer="muon")


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    """Normal noise."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("shape", [(24, 40), (40, 24), (16, 16)])
def test_a_matrix_is_stepped_as_by_torchs_own(shape):
    ours, theirs = (torch.nn.Parameter(drawn(*shape)) for _ in range(2))
    own = Muon([{"params": [ours], "apart": 1, "weight_decay": 0.1}], lr=0.02)
    other = torch.optim.Muon([theirs], lr=0.02, weight_decay=0.1, adjust_lr_fn="match_rms_adamw")
    for step in range(4):
        ours.grad, theirs.grad = (drawn(*shape, seed=step + 1) for _ in range(2))
        own.step()
        other.step()
        moved = (theirs - drawn(*shape)).norm()
        assert (ours - theirs).norm() < 0.02 * moved  # bfloat16, added up in another order


def test_what_is_orthogonal_stays_and_no_direction_is_left_out():
    q, _ = torch.linalg.qr(drawn(3, 32, 32))
    found = torch.linalg.svdvals(orthogonal(q * torch.logspace(0, -1, 32)))
    assert 0.6 < found.min() and found.max() < 1.3
    assert not orthogonal(torch.zeros(2, 8, 4)).any()


def test_a_stack_is_stepped_as_its_matrices_one_by_one_gates_and_ups_apart():
    stack = torch.nn.Parameter(drawn(3, 24, 10))
    parts = [torch.nn.Parameter(stack.detach()[e, n::2].clone()) for e in range(3) for n in range(2)]
    stack.grad = drawn(3, 24, 10, seed=1)
    for number, part in enumerate(parts):
        part.grad = stack.grad[number // 2, number % 2 :: 2].clone()
    Muon([{"params": [stack], "apart": 2}], lr=0.05).step()
    Muon([{"params": parts, "apart": 1}], lr=0.05).step()
    for number, part in enumerate(parts):
        assert torch.allclose(stack[number // 2, number % 2 :: 2], part, atol=2e-3)
    assert not torch.allclose(stack, drawn(3, 24, 10), atol=1e-2)


def test_matrices_within_blocks_are_muons_and_the_rest_adamws():
    model = toy()
    optimizer = optimizer_for(model, MUON)
    named = {id(weight): name for name, weight in model.named_parameters()}
    found = {n: {named[id(w)] for g in optimizer.param_groups if g.get("apart", 0) == n for w in g["params"]}
             for n in range(3)}  # fmt: skip
    assert all(name.startswith("blocks.") and name.endswith("weight") for name in found[1] | found[2])
    assert found[2] == {name for name in named.values() if name.endswith("gate_up.weight")}
    assert {"token_embedding", "unembed.weight", "blocks.0.experts.router.weight"} <= found[0]
    assert found[0] | found[1] | found[2] == set(named.values())
    for weight in model.parameters():
        weight.grad = torch.ones_like(weight)
    before = {name: weight.detach().clone() for name, weight in model.named_parameters()}
    optimizer.step()
    assert all(not torch.equal(weight, before[name]) for name, weight in model.named_parameters())
    kinds = {named[id(weight)]: set(state) for weight, state in optimizer.state.items()}
    assert kinds["blocks.0.attention.q.weight"] == {"momentum"}
    assert kinds["token_embedding"] == {"step", "exp_avg", "exp_avg_sq"}


def test_its_momentum_is_kept_in_a_checkpoint_and_settles(tmp_path):
    model = toy()
    optimizer = optimizer_for(model, MUON)
    for weight in model.parameters():
        weight.grad = torch.full_like(weight, 0.5)
    optimizer.step()
    weight = model.blocks[0].attention.q.weight
    optimizer.state[weight]["momentum"][0, 0] = 1e-31
    settle(optimizer)
    assert optimizer.state[weight]["momentum"][0, :2].tolist() == pytest.approx([0.0, 0.025])
    write_checkpoint(tmp_path, Run(MUON, 0, 2, done=1), model, optimizer)
    other = toy()
    again = optimizer_for(other, MUON)
    assert read_checkpoint(tmp_path, other, again).recipe == MUON
    held = dict(zip(model.parameters(), other.parameters()))
    assert all(again.state[held[one]].keys() == state.keys() for one, state in optimizer.state.items())
    for one, state in optimizer.state.items():
        assert all(torch.equal(again.state[held[one]][kind], value) for kind, value in state.items())


def test_another_optimizer_is_refused_and_miniatures_are_trained_with_muon():
    with pytest.raises(ValueError, match="optimizer='sgd'; expected adamw or muon"):
        replace(RECIPE, optimizer="sgd")
    assert {recipe_of(name).optimizer for name in ("mini-oss", "mini-gpt2")} == {"muon"}
