"""Our side of a comparison: `load` and `generate`, as everybody calls them."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from ..generation import decode, generate
from ..model import Cache, Transformer
from ..study.findings import versions
from ..tap import SILENT, Recorder, force_eager
from ..weights import load
from ..weights.places import find
from ..weights.plans import arithmetic, cache_dtype
from .side import Stamped, prompt_of, stamped

PAGE = 4096
LINE = 16  # tokens of a text over which kernels are compared
TURNS = 5  # comparisons of a long context with a short one, in turn


class Ours:
    """The laboratory's own model."""

    def __init__(self, setup: dict[str, Any]) -> None:
        self.setup = setup
        torch.set_num_threads(setup["threads"])
        self.model: Transformer

    def load(self) -> None:
        """Load it, and let nothing end a text early."""
        kernels = self.setup.get("kernels")
        dtype = "stored" if kernels == "fast" else None
        self.model = load(self.setup["model"], device=self.setup["device"], dtype=dtype, kernels=kernels)
        self.model.config = self.model.config.with_changes(stop_ids=())

    def files(self) -> list[Path]:
        """The shards, which stay mapped."""
        return sorted(find(self.setup["model"])[1].glob("*.safetensors"))

    def touch(self) -> None:
        """Touch every page of the weights: a system may put pages out that were read and never used."""
        for tensor in self.model.state_dict().values():
            if tensor.device.type == "cpu":
                torch.empty(0, dtype=torch.uint8).set_(tensor.untyped_storage())[::PAGE].sum()

    def tokens(self, prompt: list[int], count: int) -> Stamped:
        """The likeliest tokens after a prompt."""
        return stamped(token.id for token in generate(self.model, prompt, max_tokens=count))

    def about(self) -> dict[str, Any]:
        """Versions, and which arithmetic it is."""
        said = {**versions(), "threads": torch.get_num_threads(), "arithmetic": arithmetic(self.model)}
        try:
            return {**said, "numba": version("numba")}
        except PackageNotFoundError:
            return said

    def context(self, long: int, short: int, count: int) -> dict[str, Any]:
        """Seconds a token when the cache holds `long` tokens, and when it holds `short`, in turn.

        The caches are filled with made-up keys and values: what decoding costs does not depend on them.
        """
        caches = {length: self.filled(length, TURNS * count + 1) for length in (long, short)}
        steps = {length: self.steps(cache) for length, cache in caches.items()}
        for length in caches:
            next(steps[length])
        taken: dict[int, list[float]] = {long: [], short: []}
        for _ in range(TURNS):
            for length, each in taken.items():
                begun = time.perf_counter()
                for _ in range(count):
                    next(steps[length])
                each.append((time.perf_counter() - begun) / count)
        ratios = [before / after for before, after in zip(taken[short], taken[long])]
        return {"long": taken[long], "short": taken[short], "ratio": statistics.median(ratios)}

    def filled(self, length: int, more: int) -> Cache:
        """A cache of `length` made-up tokens, with room for some more."""
        config, device = self.model.config, self.model.device
        cache = Cache(config, length + more, 1, cache_dtype(self.model), device)
        cache.reserve(length)
        generator = torch.Generator().manual_seed(0)
        positions = torch.arange(length, device=device)[None]
        for layer in cache.layers:
            shape = (1, length, config.n_kv_heads, config.d_head)
            k, v = (torch.randn(shape, generator=generator).to(layer.k) for _ in range(2))
            layer.extend(k, v, positions)
        return cache

    def steps(self, cache: Cache) -> Iterator[int]:
        """The likeliest tokens, one after another, from a cache."""
        token = torch.zeros(1, 1, dtype=torch.int64)
        logits = decode(self.model, token, cache, SILENT, chunk=1)
        chosen = int(next(logits).argmax())
        while True:
            yield chosen
            chosen = int(logits.send(chosen).argmax())

    def accuracy(self, tokens: int) -> dict[str, Any]:
        """Logits of fast kernels against exact ones on the same weights, over texts of made-up ids.

        `error`: |fast − exact| / |exact| of a position's logits: over the positions at which, and before
        which, all layers chose the same experts (what one expert said to an earlier token is seen by all
        later ones); and over all. `flipped`: the share of choices that differ.
        """
        rows = max(1, tokens // LINE)
        ids = torch.tensor([prompt_of(tokens // rows * rows, self.setup["vocabulary"])]).view(rows, -1)
        found = [self.routed(kernels, ids) for kernels in ("fast", "exact")]
        (fast, chosen), (exact, other) = found
        error = (fast - exact).norm(dim=-1) / exact.norm(dim=-1)  # B T
        agreed = torch.ones(ids.shape, dtype=torch.bool)
        flips = total = 0
        for ours, theirs in zip(chosen, other):
            shared = (ours[..., :, None] == theirs[..., None, :]).any(-1)  # B T K
            agreed &= shared.all(-1)
            flips, total = flips + int((~shared).sum()), total + shared.numel()
        agreed = agreed.long().cumprod(-1).bool()
        same = error[agreed].tolist()
        return {
            "positions": ids.numel(), "texts": rows, "agreed": int(agreed.sum()),
            "worst agreed": max(same, default=None),
            "median agreed": statistics.median(same) if same else None, "worst": float(error.max()),
            "choices": total, "flipped": flips / max(total, 1),
            "same likeliest": int((fast.argmax(-1) == exact.argmax(-1)).sum()),
        }  # fmt: skip

    def routed(self, kernels: str, ids: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """Logits B T V and the choices of each layer, B T K."""
        model = load(self.setup["model"], dtype="stored", kernels=kernels)
        layers = range(model.config.n_layers if model.config.n_experts else 0)
        names = [f"blocks.{n}.experts.choice" for n in layers]
        tap = Recorder(names)
        with torch.no_grad(), force_eager():
            logits = model(ids, tap=tap)
        return logits, [tap.kept[name] for name in names]
