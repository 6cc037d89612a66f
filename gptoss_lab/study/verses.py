"""The parallel verses: do experts go by language or by what is said?

Every verse is read alone, after an end of text. What is kept of it, in every layer: how its tokens' choices
fall on the experts (shares that sum to 1), and its mean residual. Two verses have in common

    overlap(p, q) = Σ min(p_e, q_e)        1: the same shares; 0: no expert shared

A verse and its translation (one topic, two languages) are set beside another verse in the same language, and
beside another verse in the other language: the pairs, shuffled. Other verses are of about the same length, so
that short ones, whose shares are coarse, meet short ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import tiktoken
import torch
from torch import Tensor

from ..config import require
from ..model import Transformer
from ..tap import Recorder
from ..text.tokens import END

AT_ONCE = 4096  # tokens in a forward pass, fillers included
DRAWS = (1, 2, 3, 4, 5)  # how far along the order of lengths the other verses stand


@dataclass(frozen=True)
class Read:
    """What was kept of N verses: shares N L E (None without experts), residual N L+1 D (the embedding
    first), the choices and ids of all their tokens in order (lists, one a verse), lengths N."""

    shares: Tensor | None
    residual: Tensor
    choices: list[Tensor]  # T L K each; empty without experts
    lengths: Tensor


def verse_ids(encoding: tiktoken.Encoding, texts: Sequence[str]) -> list[list[int]]:
    """The ids of each verse, an end of text before them."""
    end = encoding.encode_single_token(END)
    return [[end, *encoding.encode_ordinary(text)] for text in texts]


@torch.no_grad()
def read(model: Transformer, rows: Sequence[Sequence[int]]) -> Read:
    """Run rows of ids, each alone; the first token of a row, the end of text, counts nowhere.

    Rows are filled up at their ends, which nothing before them sees. ValueError for a row without text, or
    longer than the context.
    """
    lengths = torch.tensor([len(row) for row in rows])
    longest = model.config.context
    require(int(lengths.min()) > 1, "a verse is empty")
    require(int(lengths.max()) <= longest, f"a verse has {int(lengths.max())} tokens; {longest} is the most")
    L, E = model.config.n_layers, model.config.n_experts or 0
    residuals = ["embedding", *(f"blocks.{n}.residual" for n in range(L))]
    choices = [f"blocks.{n}.experts.choice" for n in range(L)] if E else []
    order, start = lengths.argsort().tolist(), 0
    means, picked = [torch.empty(0)] * len(rows), [torch.empty(0, dtype=torch.int64)] * len(rows)
    while start < len(order):
        part = order[start : start + max(1, AT_ONCE // len(rows[order[start]]))]  # shorter ones first
        part = part[: max(1, AT_ONCE // len(rows[part[-1]]))]
        width = len(rows[part[-1]])
        batch = torch.tensor([[*rows[i], *[0] * (width - len(rows[i]))] for i in part])
        recorder = Recorder(keep=[*residuals, *choices])
        model(batch.to(model.token_embedding.device), last=0, tap=recorder)
        stacked = torch.stack([recorder.kept[name].cpu() for name in residuals], dim=1)  # b L+1 T D
        chosen = torch.stack([recorder.kept[name].cpu() for name in choices], dim=2) if E else None  # b T L K
        for place, i in enumerate(part):
            own = slice(1, len(rows[i]))
            means[i] = stacked[place, :, own].mean(1)
            if chosen is not None:
                picked[i] = chosen[place, own]
        start += len(part)
    shares = torch.stack([shares_of(choice, E) for choice in picked]) if E else None
    return Read(shares, torch.stack(means), picked if E else [], lengths - 1)


def shares_of(choice: Tensor, experts: int) -> Tensor:
    """How one verse's choices fall on the experts: T L K → L E, rows that sum to 1."""
    counts = torch.zeros(choice.shape[1], experts, dtype=torch.float64)
    flat = choice.transpose(0, 1).flatten(1)
    return counts.scatter_add_(1, flat, torch.ones(flat.shape, dtype=torch.float64)) / flat.shape[1]


def overlap(p: Tensor, q: Tensor) -> Tensor:
    """Σ min(p, q) over the last axis."""
    return torch.minimum(p, q).sum(-1)


def others(lengths: Tensor, step: int) -> Tensor:
    """For each verse another one of about the same length: the one `step` further in the order of lengths."""
    order = lengths.argsort(stable=True)
    return torch.empty_like(order).index_copy_(0, order, order.roll(-step))


@dataclass(frozen=True)
class Kinship:
    """Mean overlaps of N verses, each N L: of a verse and its translation; of verses that share the language
    alone; of verses that share neither (the pairs, shuffled)."""

    translation: Tensor
    language: Tensor
    neither: Tensor

    @property
    def by_topic(self) -> Tensor:
        """What saying the same adds: N L."""
        return self.translation - self.neither

    @property
    def by_language(self) -> Tensor:
        """What the same language adds: N L."""
        return self.language - self.neither


def kinship(one: Tensor, other: Tensor, lengths: Tensor, draws: Sequence[int] = DRAWS) -> Kinship:
    """Shares N L E of verses in one language and of their translations; lengths N, of either."""
    found = []
    for step in draws:
        to = others(lengths, step)
        same = (overlap(one, one[to]) + overlap(other, other[to])) / 2
        neither = (overlap(one, other[to]) + overlap(other, one[to])) / 2
        found.append(torch.stack((same, neither)))
    same, neither = torch.stack(found).mean(0)
    return Kinship(overlap(one, other), same, neither)


def retrieved(one: Tensor, other: Tensor) -> Tensor:
    """Whether a verse's translation is the one most like it: N D and N D → N, 0, ½ or 1 (both directions).

    Like by the cosine, after each language's mean is taken away, so that language itself says nothing.
    """
    a, b = (torch.nn.functional.normalize(x.double() - x.double().mean(0), dim=-1) for x in (one, other))
    near, own = a @ b.T, torch.arange(len(a))
    return ((near.argmax(1) == own).double() + (near.argmax(0) == own).double()) / 2
