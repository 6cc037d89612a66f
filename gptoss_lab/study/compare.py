"""One text, two models: before and after a change, or one model beside another, token by token.

    found = compare(model, "Once upon a time", Change(forbid=[5]))
    found.before["blocks.0.experts.choice"], found.after[…]     # two traces
    found.texts                                                 # how each goes on, greedily
    found.ids, found.probability, found.divergence              # what each expects next, at every token

    divergence = KL(before ‖ after) = Σ p log₂(p / q), in bits, at every token (Kullback and Leibler 1951)
"""

from __future__ import annotations

import fnmatch
import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from .. import points
from ..config import require
from ..generation import generate
from ..model import Transformer
from ..tap import Edit
from ..text.tokens import token_bytes
from ..trace import Trace, as_tokens, require_made_by, require_model, watch
from .edits import Change

AT_ONCE = 64 * 2**20  # bytes of logits that are alive


@dataclass(frozen=True)
class Comparison:
    """Two runs over the same tokens.

    before, after: traces. texts: how each goes on from there. ids: T N, the N tokens that either run expects
    most after each token, the likeliest first; probability: 2 T N, theirs before and after; divergence: T, in
    bits. change: what was changed; beside: the other model as it was given, None where it is the same one;
    model and other: the models that ran, other under the changed config; words: what the second run is.
    """

    model: Transformer
    other: Transformer
    beside: Transformer | None
    change: Change
    before: Trace
    after: Trace
    texts: tuple[str, str]
    ids: Tensor
    probability: Tensor
    divergence: Tensor

    @property
    def words(self) -> str:
        """What the second run is, as "expert 5 forbidden", "mini-gpt2" or "another mini-oss"."""
        name = self.other.config.name
        what = "" if self.beside is None else f"another {name}" if name == self.model.config.name else name
        return "; ".join(part for part in (what, self.change.words()) if part) or "nothing changed"


def compare(
    model: Transformer,
    prompt: str | Iterable[int] | Tensor,
    change: Change | None = None,
    beside: Transformer | None = None,
    keep: str | Iterable[str] = (),
    max_tokens: int = 24,
    likeliest: int = 8,
    before: Trace | None = None,
) -> Comparison:
    """Run a prompt through `model`, and through `beside` (by default the same model) under a change.

    keep: the points that both traces hold, of those that each model has. max_tokens: how far each text is
    continued, at most to the end of the smaller context. likeliest: how many next tokens are compared.
    before: a trace of `model` on this prompt that is there already; it stands in for the first run where it
    holds the last block's residual.

    ValueError where the change does not fit the model, where `beside` cuts text into other tokens or has a
    shorter context, or where `before` is of another prompt, of another model, or edited.
    """
    require_model(model)
    require(change is None or isinstance(change, Change),
            f"change is {type(change).__name__}; expected a Change, as lab.Change(forbid=[5])")  # fmt: skip
    change, beside = change or Change(), None if beside is model else beside
    if beside is not None:
        require_model(beside, "beside")
        require_same_tokens(model, beside)
    other, edit = change.applied(beside or model)
    tokens = as_tokens(model, prompt)
    require(tokens.shape[0] == 1, f"{tokens.shape[0]} prompts; compare takes one at a time")
    require(likeliest > 0, f"likeliest={likeliest}; expected at least 1")
    require(before is None or torch.equal(before.tokens.cpu(), tokens.cpu()),
            "`before` is a trace of another prompt; leave it out, and the prompt is run")  # fmt: skip
    if before is not None:
        require_made_by(model, before, edited=False)
    keeps = shared_out(keep, model, other)
    if before is None or last_residual(model) not in before:
        before = watched(model, tokens, keeps[0], {})
    traces = [before, watched(other, tokens, keeps[1], edit)]
    room = min(model.config.context, other.config.context) - tokens.shape[1]
    count = min(max_tokens, room)
    texts = goes_on(model, tokens, count, {}), goes_on(other, tokens, count, edit)
    found = next_tokens((model, other), traces, likeliest)
    return Comparison(model, other, beside, change, traces[0], traces[1], texts, *found)


def require_same_tokens(model: Transformer, other: Transformer) -> None:
    """ValueError unless every id stands for the same bytes in both models."""
    meant = []
    for one in (model, other):
        size, encoding = one.config.vocab_size, one.tokenizer
        meant.append([encoding and token_bytes(token, encoding) for token in range(size)])
    told = f"{model.config.name} and {other.config.name} cut text into different tokens"
    require(meant[0] == meant[1], f"{told}: they cannot be compared token by token")


def watched(model: Transformer, tokens: Tensor, keep: list[str], edit: dict[str, Edit]) -> Trace:
    """The trace with what was asked for and the last residual, which the next tokens are read from."""
    return watch(model, tokens, keep=[*keep, last_residual(model)], edit=edit, last=1)


def shared_out(keep: str | Iterable[str], *models: Transformer) -> list[list[str]]:
    """Of the globs asked for, those that each model can fill; ValueError for one that none of them can."""
    asked, found = [keep] if isinstance(keep, str) else list(keep), []
    for model in models:
        found.append([glob for glob in asked if fnmatch.filter(points.names(model.config), glob)])
    for glob in asked:
        if not any(glob in globs for globs in found):
            points.match(glob, models[0].config)
    return found


def last_residual(model: Transformer) -> str:
    """The name of the residual that leaves the last block."""
    return f"blocks.{model.config.n_layers - 1}.residual"


def goes_on(model: Transformer, tokens: Tensor, count: int, edit: dict[str, Edit]) -> str:
    """The text that follows, greedily; "" where the context has no room."""
    return generate(model, tokens, max_tokens=count, edit=edit).text if count > 0 else ""


@torch.no_grad()
def next_tokens(
    models: tuple[Transformer, Transformer], traces: list[Trace], likeliest: int
) -> tuple[Tensor, Tensor, Tensor]:
    """ids T N, probability 2 T N, divergence T; N: the tokens that either run expects most."""
    used = models[0].config.vocab_used or models[0].config.vocab_size
    rows = [trace[last_residual(model)][0] for model, trace in zip(models, traces)]
    at_once = max(1, AT_ONCE // (8 * models[0].config.vocab_size))
    parts: list[tuple[Tensor, Tensor, Tensor]] = []
    for pair in zip(*(row.split(at_once) for row in rows)):
        logits = [model.read_out(x[None].to(model.device))[0, :, :used] for model, x in zip(models, pair)]
        logs = torch.stack([one.log_softmax(-1).cpu() for one in logits])
        share = logs.exp()
        ids = share.amax(0).topk(min(likeliest, used)).indices
        bits = (share[0] * (logs[0] - logs[1])).sum(-1).clamp(min=0) / math.log(2)
        parts.append((ids, share.gather(-1, ids.expand(2, -1, -1)), bits))
    ids_of, probabilities, divergences = zip(*parts)
    return torch.cat(ids_of), torch.cat(probabilities, dim=1), torch.cat(divergences)
