"""What is promised of bfloat16, and that chunks of any size leave the logits as they are."""

from __future__ import annotations

import pytest
from proof_bf16 import AGREED, LARGEST, MARGIN, RMS, ROUNDED, TOYS, figures
from proof_chunks import TOKENS, all_chunks
from proof_common import right_model
from toys import ROUNDING, gpt2, gpt_oss, one_thread, qwen3

from gptoss_lab import points

pytestmark = pytest.mark.usefixtures(one_thread.__name__)
every_toy = pytest.mark.parametrize("toy", TOYS)


@every_toy
def test_bf16_stays_within_an_rms_of_transformers_in_float32(toy):
    """At the tokens that agreed; of the others there are few."""
    found = figures(toy)
    assert 1e-4 < found.residual < RMS and 1e-4 < found.logits < RMS
    assert found.agreed > AGREED


@every_toy
def test_no_single_number_is_far_off_where_experts_agree(toy):
    assert figures(toy).largest < LARGEST


@every_toy
def test_bf16_flips_an_expert_only_where_two_nearly_tie(toy):
    found = figures(toy)
    assert found.margin < MARGIN and (found.flips > 0) == (found.agreed < 1)


@every_toy
def test_our_bf16_is_nearer_to_float32_than_transformers_is(toy):
    """Its residual is bfloat16, ours is float32."""
    found = figures(toy)
    assert 1e-4 < found.ours < 0.9 * found.theirs


@every_toy
def test_what_is_rounded_is_what_we_say(toy):
    there = {points.general(name) for name in points.names(right_model(toy).config)}
    assert figures(toy).rounded == {f"blocks.N.{name}" for name in ROUNDED} & there


@pytest.mark.parametrize("family", [gpt_oss, gpt2, qwen3])
def test_a_text_may_come_in_any_chunks(family):
    """All 32 ways to cut six tokens: past a window of three, past an original context of four."""
    ways, apart, beyond = all_chunks(family)
    assert ways == 2 ** (TOKENS - 1) == 32 and apart < ROUNDING
    assert beyond > 1e-3, "the window and the stretch were not felt"
