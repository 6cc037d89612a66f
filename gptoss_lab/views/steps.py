"""Reading the residual early: what the model would say next if it stopped after this half of a block.

    logits at a step = unembed(norm(residual at that step))    the norm and unembedding that read the last one

The steps are the embedding, then after attention and after the experts (or the MLP) of every block: 2L + 1
residuals. This is the logit lens (nostalgebraist, 2020): early blocks were never trained to be read this way,
so their words are hints.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..config import Config
from ..model import Transformer
from ..text import tokens as text
from ..trace import Trace, require_made_by

KEEP = ("embedding", "blocks.*.residual_mid", "blocks.*.residual")
CHUNK_BYTES = 64 * 2**20


@dataclass(frozen=True)
class ReadOuts:
    """The likeliest next tokens at every step and token.

    ids, probability: N T K, best first; N = 2L + 1 steps, K likeliest. own: N T, the probability of the token
    that the text really goes on with; NaN at the last token, which nothing follows. labels: id → how it is
    shown, for every id in `ids`.
    """

    ids: Tensor
    probability: Tensor
    own: Tensor
    labels: dict[int, str]

    @property
    def extra(self) -> dict[str, Any]:
        """What the Steps view looks for besides the trace: give it to `pack(extra=…)`."""
        return {
            "steps.ids": ("N T K", self.ids),
            "steps.probability": ("N T K", self.probability),
            "steps.own": ("N T", self.own),
            "steps.labels": {str(token): label for token, label in self.labels.items()},
        }


def residuals(config: Config) -> list[str]:
    """The points whose residuals are read, in order: the embedding, then two for every block."""
    halves = [f"blocks.{n}.{half}" for n in range(config.n_layers) for half in ("residual_mid", "residual")]
    return ["embedding", *halves]


def read_out_early(model: Transformer, trace: Trace, count: int = 5) -> ReadOuts:
    """Read every recorded residual of a trace's first row as if it were the last one.

    `model` must be the one that made the trace; `count` likeliest tokens are kept. Memory stays near 64 MB
    whatever the vocabulary. ValueError where the trace lacks the residuals (keep them with `KEEP`), or is
    another model's.
    """
    require_made_by(model, trace)
    names = residuals(model.config)
    lacking = [name for name in names if name not in trace]
    if lacking:
        raise ValueError(
            f"the trace lacks {lacking[0]!r} ({len(lacking)} of the {len(names)} residuals to be read); "
            f"watch again with keep={list(KEEP)!r} among what is kept"
        )
    used = model.config.vocab_used or model.config.vocab_size
    if not 1 <= count <= used:
        raise ValueError(f"count={count}; expected 1 to {used}, the tokens that there are")
    rows = torch.cat([trace[name][0] for name in names])  # N·T D
    T = trace.tokens.shape[1]
    following = torch.cat((trace.tokens[0, 1:], trace.tokens[0, :1])).repeat(len(names))
    at_once = max(1, CHUNK_BYTES // (4 * model.config.vocab_size))
    ids, probability, own = [], [], []
    with torch.no_grad():
        for x, after in zip(rows.split(at_once), following.split(at_once)):
            share = model.read_out(x[None].to(model.device))[0].softmax(-1)
            best = share[:, :used].topk(count)
            ids.append(best.indices.cpu())
            probability.append(best.values.cpu())
            own.append(share.gather(-1, after[:, None].to(share.device)).cpu()[:, 0])
    shape = (len(names), T)
    of_next = torch.cat(own).reshape(shape)
    of_next[:, -1] = torch.nan
    found = torch.cat(ids)
    distinct = found.unique().tolist()
    return ReadOuts(
        ids=found.reshape(*shape, count),
        probability=torch.cat(probability).reshape(*shape, count),
        own=of_next,
        labels=dict(zip(distinct, text.labels(distinct, model.tokenizer))),
    )
