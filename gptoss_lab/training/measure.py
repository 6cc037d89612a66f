"""How well a model predicts text it was not trained on: bits per byte by domain and by position.

    bits per byte = −Σ log₂ p(token) / bytes of those tokens

It does not depend on how finely a tokenizer cuts, so that models may be compared by it.
"""

from __future__ import annotations

import math

import tiktoken
import torch
import torch.nn.functional as F
from torch import Tensor

from ..model.transformer import Transformer
from .corpus import DOMAINS, heldout_windows


@torch.no_grad()
def losses(model: Transformer, windows: Tensor, batch: int = 16) -> Tensor:
    """−log p of every target in nats, on the CPU: windows B T+1 → B T. A window's first token is given."""
    found = []
    for part in windows.to(model.token_embedding.device).split(batch):
        logits = model(part[:, :-1])
        found.append(F.cross_entropy(logits.transpose(1, 2), part[:, 1:], reduction="none").cpu())
    return torch.cat(found)


def evaluate(
    model: Transformer, encoding: tiktoken.Encoding, context: int = 256, limit: int | None = 16,
    batch: int = 16,
) -> dict[str, float]:  # fmt: skip
    """Bits per byte of held-out text, by domain, over windows of `context` tokens.

    At most `limit` windows a domain (None: all), spread evenly over its held-out text, the same every time.
    """
    was_training, found = model.training, {}
    model.eval()
    for domain in DOMAINS:
        windows, sizes = heldout_windows(encoding, domain, context, limit)
        nats = float(losses(model, windows, batch).double().sum())
        found[domain] = nats / math.log(2) / int(sizes.sum())
    model.train(was_training)
    return found


def by_position(
    model: Transformer, encoding: tiktoken.Encoding, domain: str, context: int, limit: int | None = 16,
    batch: int = 4,
) -> Tensor:  # fmt: skip
    """Mean nats a token at each of the `context` positions of held-out windows; the first has one token to
    see."""
    was_training = model.training
    model.eval()
    found = losses(model, heldout_windows(encoding, domain, context, limit).tokens, batch).double().mean(0)
    model.train(was_training)
    return found
