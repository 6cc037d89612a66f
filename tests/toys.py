"""Toy models of every family, whose sizes all differ, so that swapped axes cannot pass.

Weights are drawn so that what is special happens: both clamps bind, sinks take a tenth of the attention or
more, every bias and every norm's scale is felt; what is not clamped stays near one, so that 2e-5 is strict.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from gptoss_lab import points
from gptoss_lab.config import Config, Yarn
from gptoss_lab.model import Cache, Transformer
from gptoss_lab.tap import Recorder, Tap

BATCH, QUERIES, KEYS = 3, 9, 13  # T queries see S keys where four tokens came before
ROUNDING = 5e-6  # what two orders of adding up may differ by, after three blocks


def gpt_oss(**changes: object) -> Config:
    """gpt-oss in very small: window, dense, window; the third pair of YaRN's ramp lies inside it."""
    yarn = Yarn(factor=4.0, original_context=8, beta_fast=1.0, beta_slow=0.25)
    return Config(
        name="toy-oss", family="gpt-oss", n_layers=3, d_model=10, n_heads=8, n_kv_heads=4, d_head=6, d_ff=11,
        vocab_size=29, context=32, rope_theta=50.0, yarn=yarn, window=5, sinks=True,
        n_experts=7, experts_per_token=2,
    ).with_changes(**changes)  # fmt: skip


def gpt2(**changes: object) -> Config:
    """GPT-2 in very small; its heads together are wider than the model, as they may be here."""
    return Config(
        name="toy-gpt2", family="gpt2", n_layers=3, d_model=10, n_heads=8, n_kv_heads=8, d_head=6, d_ff=11,
        vocab_size=29, context=31, norm="layer", positions="learned", activation="gelu", tied=True,
    ).with_changes(**changes)  # fmt: skip


def qwen3(**changes: object) -> Config:
    """Qwen3-MoE in very small."""
    return Config(
        name="toy-qwen3", family="qwen3-moe", n_layers=3, d_model=10, n_heads=8, n_kv_heads=4, d_head=6,
        d_ff=11, vocab_size=29, context=64, norm_eps=1e-6, rope_theta=50.0, qk_norm=True, bias=False,
        activation="swiglu", n_experts=7, experts_per_token=2,
    ).with_changes(**changes)  # fmt: skip


def on_the_road(**changes: object) -> Config:
    """A step between GPT-2 and gpt-oss: RoPE and a dense MLP with a gate; no experts yet."""
    return gpt2(
        name="toy-road", norm="rms", positions="rope", rope_theta=50.0, activation="clamped_swiglu"
    ).with_changes(**changes)


def mxfp4(**changes: object) -> Config:
    """gpt-oss in small whose experts pack into blocks of 32."""
    return gpt_oss(name="toy-mxfp4", d_model=32, d_ff=96, stored_experts="mxfp4").with_changes(**changes)


FAMILIES = {"gpt2": gpt2, "gpt-oss": gpt_oss, "qwen3-moe": qwen3, "on the road": on_the_road}
every_family = pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES)


def draw(name: str, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """A random value for the parameter `name` of a Transformer: normal, scaled by what it does."""
    fan_in = shape[-1] ** 0.5
    noise = torch.randn(shape, generator=generator)
    if name.endswith("sinks"):
        return 1.5 + 0.5 * noise
    if name.endswith("scale"):
        return 1.0 + 0.2 * noise
    if name.endswith(("gate_up.weight", "gate.weight", "up.weight")):
        return 1.5 / fan_in * noise
    if name.endswith(("gate_up.bias", "gate.bias", "up.bias")):
        return 4.5 * noise  # so that both clamps bind: |gate| and |up| pass 7 now and then
    if name.endswith("down.weight"):
        return 0.1 / fan_in * noise
    if name.endswith("router.weight"):
        return 1.5 / fan_in * noise
    if name.endswith("bias"):
        return 0.3 * noise
    if "embedding" in name:
        return noise
    return (1.0 if name.endswith(("q.weight", "k.weight")) else 0.7) / fan_in * noise


def random_model(config: Config, seed: int = 0) -> Transformer:
    """A model with such weights, in eval mode and without gradients."""
    generator = torch.Generator().manual_seed(seed)
    model = Transformer(config)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            weight.copy_(draw(name, tuple(weight.shape), generator))
    model.weights_from = f"toy, seed {seed}"
    return model.eval().requires_grad_(False)


def random_tokens(config: Config, batch: int = BATCH, count: int = QUERIES, seed: int = 1) -> Tensor:
    """Random ids, B T."""
    return torch.randint(config.vocab_size, (batch, count), generator=torch.Generator().manual_seed(seed))


def gather(model: Transformer) -> Transformer:
    """The model with its experts in the form for few tokens, whatever their number."""
    return few(model, 10**9)


def walk(model: Transformer) -> Transformer:
    """The model with its experts in the form for many tokens, whatever their number."""
    return few(model, 0)


def few(model: Transformer, tokens: int) -> Transformer:
    """Set up to how many tokens the experts gather; nothing where the model has none."""
    for block in model.blocks:
        if model.config.n_experts:
            block.experts.few = tokens
    return model


FORMS = {"gather": gather, "walk": walk}
every_form = pytest.mark.parametrize(
    "family, form",
    [
        pytest.param(family, form, id=f"{name}, {form}")
        for name, family in FAMILIES.items()
        for form in FORMS
        if family().n_experts or form == "gather"  # without experts there is one form
    ],
)


def record(
    model: Transformer, tokens: Tensor, keep: str | list[str] = "*", edits: dict | None = None, **more: object
) -> dict:
    """Run the model and return what was kept, by full name. edits: full name → one function."""
    recorder = Recorder(
        points.match(keep, model.config), {name: [edit] for name, edit in (edits or {}).items()}
    )
    with torch.no_grad():
        model(tokens, tap=recorder, **more)
    return recorder.kept


def run(model: Transformer, tokens: Tensor, tap: Tap | None = None, **more: object) -> Tensor:
    """The model's logits, without gradients."""
    with torch.no_grad():
        return model(tokens, **more) if tap is None else model(tokens, tap=tap, **more)


def close(ours: Tensor, theirs: Tensor, atol: float = ROUNDING) -> None:
    """Assert that no number differs by more than `atol`."""
    torch.testing.assert_close(ours, theirs, atol=atol, rtol=0)


def in_chunks(
    model: Transformer, tokens: Tensor, sizes: tuple[int, ...], positions: Tensor | None = None
) -> Tensor:
    """The logits of all tokens, run a chunk at a time through one cache."""
    cache, logits = Cache(model.config, tokens.shape[1], tokens.shape[0]), []
    for chunk, at in zip(tokens.split(sizes, 1), torch.arange(tokens.shape[1]).split(sizes)):
        there = None if positions is None else positions[:, at]
        logits.append(run(model, chunk, cache=cache, positions=there))
    assert cache.tokens == tokens.shape[1]
    return torch.cat(logits, dim=1)


def left_padded(tokens: Tensor, lengths: list[int]) -> tuple[Tensor, Tensor]:
    """The first `lengths` tokens of each row, pushed right, and the positions that say so."""
    width = max(lengths)
    batch, positions = torch.full((len(lengths), width), 3), torch.full((len(lengths), width), -1)
    for row, length in enumerate(lengths):
        batch[row, width - length :] = tokens[row, :length]
        positions[row, width - length :] = torch.arange(length)
    return batch, positions


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Toys are faster on one thread, and leave the other to other tests."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
