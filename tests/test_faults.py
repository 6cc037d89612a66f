"""The proofs and what they are worth: right models pass them, and every planted fault fails two of them.

An operation is held to loops in double precision (proof_operations.py, proof_attention.py), a whole model to
transformers (proof_models.py). A fault must exceed the bound tenfold; docs/conformance.md says by how much.
"""

from __future__ import annotations

import pytest
import torch
from proof_common import TOYS, deviation, right_model, wrong
from proof_models import BOUND, COMPARISONS, prepared
from proof_operations import OPERATIONS, toy_for
from toys import one_thread, random_tokens, run

from gptoss_lab.study.faults import FAULTS, Fault, planted

pytestmark = pytest.mark.usefixtures(one_thread.__name__)
CLEARLY = 10
every_fault = pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)


@pytest.mark.parametrize("name, toy", [(op.name, toy) for op in OPERATIONS.values() for toy in op.toys])
def test_an_operation_is_its_definition(name, toy):
    operation, right = OPERATIONS[name], right_model(toy)
    assert operation.measure(right, right) <= operation.bound


@pytest.mark.parametrize("name", COMPARISONS)
def test_a_model_however_run_is_transformers_model(name):
    comparison = COMPARISONS[name]
    assert comparison.measure(comparison.right()) <= BOUND


@every_fault
def test_its_operation_shows_a_fault(fault):
    operation = OPERATIONS[fault.operation]
    right = right_model(toy_for(operation, fault.family))
    with planted(fault, right) as faulty:
        assert operation.measure(faulty, right) > CLEARLY * operation.bound


@every_fault
def test_the_whole_model_shows_a_fault(fault):
    comparison = COMPARISONS[fault.end]
    with planted(fault, comparison.right()) as faulty:
        assert comparison.measure(faulty) > CLEARLY * BOUND


@every_fault
def test_a_fault_is_gone_when_its_block_ends(fault):
    """Also where the block raised; and the model that it was planted in never had it."""
    right = COMPARISONS[fault.end].right()
    before = {name: value.clone() for name, value in right.state_dict().items()}
    function = fault.place and getattr(*fault.place)
    with pytest.raises(RuntimeError, match="in the block"), planted(fault, right):
        assert fault.place is None or getattr(*fault.place) is not function
        raise RuntimeError("in the block")
    assert fault.place is None or getattr(*fault.place) is function
    assert all(torch.equal(value, before[name]) for name, value in right.state_dict().items())


def test_planting_nothing_changes_nothing():
    """The copy that faults are planted in is as good as the model, packed experts included."""
    for kind in ("config", "weights"):
        for name in ("gpt-oss", "gpt2", "qwen3-moe", "gpt-oss, packed"):
            right = COMPARISONS[name].right()
            nothing = Fault("nothing", "", name, "", name, kind, lambda it: it)
            tokens = random_tokens(right.config)
            with planted(nothing, right) as copy:
                assert copy is not right and torch.equal(run(copy, tokens), run(right, tokens))


def test_every_fault_has_a_name_a_sentence_and_two_checks():
    assert len(FAULTS) >= 50 and len({fault.name for fault in FAULTS}) == len(FAULTS)
    for fault in FAULTS:
        assert fault.what.endswith(".") and fault.kind in ("config", "weights", "function")
        assert (fault.kind == "function") == (fault.place is not None)
        assert TOYS[COMPARISONS[fault.end].toy]().family == fault.family
        assert TOYS[toy_for(OPERATIONS[fault.operation], fault.family)]().family == fault.family


def test_every_kind_of_operation_is_challenged():
    """The two that no fault names have none of their own: they are other sides of two that are named."""
    assert set(OPERATIONS) - {fault.operation for fault in FAULTS} == {"dense MLP", "MXFP4 in bf16"}
    for name, other in (("gelu of erf", "dense MLP"), ("high nibble first", "MXFP4 in bf16")):
        fault, operation = next(f for f in FAULTS if f.name == name), OPERATIONS[other]
        right = right_model(toy_for(operation, fault.family))
        with planted(fault, right) as faulty:
            assert operation.measure(faulty, right) > CLEARLY * operation.bound


def test_the_window_is_pinned_from_both_sides():
    """At 128 tokens nobody can tell 127 from 128 but the last; 129 differs from 128 at token 128 alone."""
    comparison = COMPARISONS["gpt-oss, past 128 tokens"]
    right, tokens, theirs = prepared(comparison)
    for name, first in (("window 127", 127), ("window 129", 128)):
        with planted(next(fault for fault in FAULTS if fault.name == name), right) as faulty:
            apart = (run(faulty, tokens) - theirs).abs().amax((0, 2)) > BOUND
        assert not apart[:first].any() and apart[first:].all()


def test_the_measures_see_what_they_must():
    nan, inf = float("nan"), float("inf")
    assert deviation([1.0, nan, inf], [1.0, nan, inf]) == 0 and wrong([0.0, nan], [0.0, nan]) == 0
    assert deviation([1.0], [nan]) == deviation([nan], [1.0]) == deviation([1.0, 2.0], [1.0]) == inf
    assert deviation([inf], [1.0]) == deviation([1.0], [inf]) == deviation([inf], [-inf]) == inf
    assert deviation([0.5], [0.25]) == 0.25 and deviation([4.0], [2.0]) == 1.0
    assert wrong([0.0, 1.0, 2.0], [-0.0, 1.0, 3.0]) == 2 and wrong([1.0], [nan]) == 1
