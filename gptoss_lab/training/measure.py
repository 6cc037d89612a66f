"""How well a model predicts text it was not trained on, and how it spends its attention and its experts.

    bits per byte = −Σ log₂ p(token) / bytes of those tokens

It does not depend on how finely a tokenizer cuts, so that models may be compared by it. `python -m
gptoss_lab.training.measure MODEL` prints tables of any model; the shipped ones' page is `gptoss_lab.card`'s.
"""

from __future__ import annotations

import argparse
import math

import tiktoken
import torch
import torch.nn.functional as F
from torch import Tensor

from ..config import require
from ..mistakes import told_by
from ..model.transformer import Transformer
from ..tap import Recorder
from ..weights import load
from .corpus import DOMAINS, heldout_windows
from .forms import attach

EDGES = (0, 8, 32, 128, 256, 512, 768, 1024)  # of the positions that are told together


@torch.no_grad()
def losses(model: Transformer, windows: Tensor, batch: int = 16) -> Tensor:
    """−log p of every target in nats, on the CPU: windows B T+1 → B T. A window's first token is given."""
    was_training, found = model.training, []
    model.eval()
    for part in windows.to(model.device).split(batch):
        logits = model(part[:, :-1])
        found.append(F.cross_entropy(logits.transpose(1, 2), part[:, 1:], reduction="none").cpu())
    model.train(was_training)
    return torch.cat(found)


def evaluate(
    model: Transformer, encoding: tiktoken.Encoding, context: int = 256, limit: int | None = 16,
    batch: int = 16,
) -> dict[str, float]:  # fmt: skip
    """Bits per byte of held-out text, by domain, over windows of `context` tokens.

    At most `limit` windows a domain (None: all), spread evenly over its held-out text, the same every time.
    """
    found = {}
    for domain in DOMAINS:
        windows, sizes = heldout_windows(encoding, domain, context, limit)
        nats = float(losses(model, windows, batch).double().sum())
        found[domain] = nats / math.log(2) / int(sizes.sum())
    return found


def by_position(
    model: Transformer, encoding: tiktoken.Encoding, domain: str, context: int, limit: int | None = 16,
    batch: int = 4,
) -> Tensor:  # fmt: skip
    """Mean nats a token at each of the `context` positions of held-out windows; the first has one to see."""
    windows, _ = heldout_windows(encoding, domain, context, limit)
    return losses(model, windows, batch).double().mean(0)


def near_and_far(model: Transformer, windows: Tensor, near: int) -> tuple[float, float]:
    """Mean nats of the same targets with little before them and with all that the window has.

    windows B T+1 are cut into pieces of `near` tokens. Counted are the targets in the second half of every
    piece but the first: seen once from the piece alone, near/2 to near tokens, and once from the whole
    window.
    """
    close, far = seen_twice(model, windows, near, losses(model, windows, batch=4))
    return float(close.mean()), float(far.mean())


def seen_twice(model: Transformer, windows: Tensor, near: int, whole: Tensor) -> tuple[Tensor, Tensor]:
    """The nats behind `near_and_far`, window by window: B P near/2, twice. whole: B T, of the windows."""
    pieces, counted = windows.unfold(1, near + 1, near)[:, 1:], slice(near // 2, near)  # B P near+1
    close = losses(model, pieces.flatten(0, 1))[:, counted].unflatten(0, pieces.shape[:2])
    return close, whole.unfold(1, near, near)[:, 1 : 1 + pieces.shape[1], counted]


@torch.no_grad()
def sink_share(model: Transformer, windows: Tensor) -> Tensor:
    """The share of attention that the sinks take: windows B T → L H, means over all tokens."""
    names = [f"blocks.{n}.attention.sink" for n in range(model.config.n_layers)]
    recorder = Recorder(keep=names)
    model(windows, last=1, tap=recorder)
    return torch.stack([recorder.kept[name].mean((0, 2)) for name in names])


@torch.no_grad()
def expert_share(model: Transformer, windows: Tensor) -> Tensor:
    """The share of choices that each expert gets: windows B T → L E, rows that sum to 1."""
    names = [f"blocks.{n}.experts.choice" for n in range(model.config.n_layers)]
    recorder, experts = Recorder(keep=names), model.config.n_experts or 0
    model(windows, last=1, tap=recorder)
    counts = [recorder.kept[name].flatten().bincount(minlength=experts) for name in names]
    return torch.stack([count / count.sum() for count in counts])


def table(columns: list[str], rows: dict[str, list[float]], digits: int = 3) -> str:
    """A Markdown table: one line for each of `rows`."""
    cells = [columns, ["---"] * len(columns), *([f"{x:.{digits}f}" for x in row] for row in rows.values())]
    return "\n".join(f"| {' | '.join([name, *row])} |" for name, row in zip(["", "---", *rows], cells))


def report(model: Transformer, limit: int | None) -> str:
    """Tables of a model's losses, sinks and experts, over `limit` windows a domain."""
    encoding, config, fast = model.tokenizer, model.config, attach(model.with_config())
    require(encoding is not None, f"{config.name} has no tokenizer, so that no text can be measured")
    contexts = sorted({min(256, config.context), config.context})
    bits = [evaluate(fast, encoding, context, limit, batch=4) for context in contexts]
    rows = {name: [found[name] for found in bits] for name in DOMAINS}
    parts = ["Bits per byte of held-out text, in windows of so many tokens:", ""]
    parts.append(table([str(context) for context in contexts], rows))
    places = [(a, b) for a, b in zip(EDGES, EDGES[1:]) if b <= config.context]
    curves = {name: by_position(fast, encoding, name, config.context, limit) for name in DOMAINS}
    means = {name: [float(curve[a:b].mean()) for a, b in places] for name, curve in curves.items()}
    parts += ["", f"Nats a token at the positions of windows of {config.context}:", "",
              table([f"{a}–{b - 1}" for a, b in places], means)]  # fmt: skip
    if config.context > 256:
        whole = {name: heldout_windows(encoding, name, config.context, limit).tokens for name in DOMAINS}
        rows = {name: list(near_and_far(fast, windows, 256)) for name, windows in whole.items()}
        parts += ["", "Nats a token of the same targets, seen from:", ""]
        parts.append(table(["128 to 256 tokens", f"up to {config.context}"], rows))
    short = min(255, config.context - 1)
    texts = {name: heldout_windows(encoding, name, short, 4).tokens for name in DOMAINS}
    layers = [f"layer {n}" for n in range(config.n_layers)]
    if config.sinks:
        heads = sink_share(model, torch.cat(list(texts.values())))
        rows = {layer: [float(h.mean()), float(h.min()), float(h.max())] for layer, h in zip(layers, heads)}
        parts += ["", "Share of attention that the sinks take:", ""]
        parts.append(table(["mean", "least head", "most"], rows))
    if config.n_experts:
        shares = {name: expert_share(model, windows) for name, windows in texts.items()}
        for n, layer in enumerate(layers):
            rows = {name: share[n].tolist() for name, share in shares.items()}
            parts += ["", f"Share of choices of each expert, {layer}:", "",
                      table([str(e) for e in range(config.n_experts)], rows, digits=2)]  # fmt: skip
    return "\n".join([f"{config.name}: {model.weights_from}", "", *parts])


def main(arguments: list[str] | None = None) -> None:
    """`python -m gptoss_lab.training.measure MODEL`: print how well a model predicts held-out text."""
    parser = argparse.ArgumentParser(prog="python -m gptoss_lab.training.measure", description=main.__doc__)
    parser.add_argument("model", help="a shipped model's name, or a folder")
    parser.add_argument("--windows", type=int, default=24, help="held-out windows a domain, at most")
    options = parser.parse_args(arguments)
    with told_by(parser.prog):
        print(report(load(options.model), options.windows))


if __name__ == "__main__":
    main()
