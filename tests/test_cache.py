"""The cache and padding: however a text comes, in chunks or beside others, its logits are the same."""

from __future__ import annotations

import pytest
import torch
from toys import (
    BATCH,
    KEYS,
    ROUNDING,
    close,
    every_family,
    gather,
    gpt2,
    gpt_oss,
    in_chunks,
    left_padded,
    one_thread,
    random_model,
    random_tokens,
    record,
    run,
)

from gptoss_lab.model import (
    Cache,
)

pytestmark = pytest.mark.usefixtures(one_thread.__name__)


# ---- the cache

CHUNKS = [(13,), (1,) * 13, (4, 9), (9, 4), (5, 1, 7), (2, 3, 8), (6, 6, 1), (5, 5, 3), (12, 1)]


@every_family
@pytest.mark.parametrize("sizes", CHUNKS, ids=str)
def test_cached_is_uncached_whatever_the_chunks(family, sizes):
    """Past the window of five and YaRN's original eight; rings come round within chunks and between."""
    model = random_model(family())
    tokens = random_tokens(model.config, count=KEYS)
    close(in_chunks(model, tokens, sizes), run(model, tokens))


@pytest.mark.parametrize("window", [1, 2, 3, 12, 13, 14, None])
def test_cached_is_uncached_for_any_window(window):
    model = random_model(gpt_oss(window=window, windowed_layers="all"))
    tokens = random_tokens(model.config, count=KEYS)
    whole = run(model, tokens)
    for sizes in CHUNKS:
        close(in_chunks(model, tokens, sizes), whole)


def test_the_window_and_the_stretch_are_felt_at_thirteen_tokens():
    """Or the two tests above would say nothing."""
    model = random_model(gpt_oss())
    tokens = random_tokens(model.config, count=KEYS)
    plain = run(model, tokens)
    assert (run(model.with_config(window=None), tokens) - plain)[:, 5:].abs().amax(-1).min() > 1e-3
    assert (run(model.with_config(window=None), tokens) - plain)[:, :5].abs().max() < ROUNDING
    assert (run(model.with_config(yarn=None), tokens) - plain).abs().amax(-1).min() > 1e-4


def test_a_windowed_layer_keeps_its_window_alone():
    cache = Cache(gpt_oss(), 13, BATCH)
    assert [layer.k.shape for layer in cache.layers] == [(3, 5, 4, 6), (3, 13, 4, 6), (3, 5, 4, 6)]
    run(random_model(gpt_oss()), random_tokens(gpt_oss(), count=12), cache=cache)
    assert cache.layers[0].positions[0].sort().values.tolist() == [7, 8, 9, 10, 11]
    assert cache.layers[1].positions[0].tolist() == [*range(12), -1]


def test_a_full_cache_is_refused_with_the_length_to_make():
    model, cache = random_model(gpt_oss()), Cache(gpt_oss(), 10, BATCH)
    tokens = random_tokens(gpt_oss())
    run(model, tokens, cache=cache)
    with pytest.raises(ValueError, match="18 tokens exceed the cache's 10; make it with length=18"):
        run(model, tokens, cache=cache)
    assert cache.tokens == 9
    run(model, tokens[:, :1], cache=cache)  # the last one fits


@pytest.mark.parametrize(
    "wrong", [torch.full((3, 2), 29), torch.full((3, 2), -1), torch.zeros(3, 2), torch.zeros(2).long()]
)
def test_refused_tokens_leave_the_cache_as_it_was(wrong):
    model, cache = random_model(gpt_oss()), Cache(gpt_oss(), KEYS, BATCH)
    tokens = random_tokens(model.config, count=KEYS)
    run(model, tokens[:, :9], cache=cache)
    with pytest.raises(ValueError, match="tokens"):
        run(model, wrong, cache=cache)
    close(run(model, tokens[:, 9:], cache=cache), run(model, tokens)[:, 9:])


# ---- padding


@every_family
@pytest.mark.parametrize("sizes", [(13,), (4, 9), (1,) * 13, (10, 1, 1, 1)], ids=str)
def test_a_left_padded_batch_is_each_text_alone(family, sizes):
    model, lengths = random_model(family()), [13, 5, 1]
    tokens = random_tokens(model.config, count=KEYS)
    batch, positions = left_padded(tokens, lengths)
    together = in_chunks(model, batch, sizes, positions)
    assert together.isfinite().all()
    close(run(model, batch, positions=positions), together)
    for row, length in enumerate(lengths):
        close(together[row, KEYS - length :], run(model, tokens[row : row + 1, :length])[0])


@every_family
def test_what_the_padding_holds_does_not_matter(family):
    model = gather(random_model(family()))
    batch, positions = left_padded(random_tokens(model.config), [9, 4, 2])
    other = torch.where(positions < 0, 17, batch)
    real = positions >= 0
    assert torch.equal(
        run(model, batch, positions=positions)[real], run(model, other, positions=positions)[real]
    )


def test_learned_positions_are_one_row_for_all_and_a_padded_batch_that_wants_them_is_refused():
    model = random_model(gpt2())
    batch, positions = left_padded(random_tokens(model.config), [9, 4, 2])
    with pytest.raises(ValueError, match="'position_embedding' is T D"):
        record(model, batch, "position_embedding", positions=positions)
    assert record(model, batch, "embedding", positions=positions)["embedding"].shape[:2] == (3, 9)
    assert record(model, batch, "position_embedding")["position_embedding"].shape == (9, 10)


def test_a_token_that_sees_nothing_gets_nothing_from_attention():
    model = random_model(gpt_oss())
    batch, positions = left_padded(random_tokens(model.config), [9, 4, 2])
    kept = record(model, batch, "blocks.1.attention.*", positions=positions)
    assert kept["blocks.1.attention.mixed"][positions < 0].abs().max() == 0
    assert kept["blocks.1.attention.pattern"][2, :, :7].abs().max() == 0
    close(kept["blocks.1.attention.sink"][2, :, :7], torch.ones(8, 7), 0)
