"""The side of transformers: its own model on the same folder, in float32.

transformers         `generate`, as everybody calls it
transformers-loop    a loop around its forward pass, with its cache: no more than is needed
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import transformers

from ..weights.places import find
from .side import Stamped, stamped


class Reference:
    """A model of transformers."""

    def __init__(self, setup: dict[str, Any]) -> None:
        self.setup, self.folder = setup, find(setup["model"])[1]
        torch.set_num_threads(setup["threads"])

    def load(self) -> None:
        """Load it; MXFP4 unpacked, as it has no kernels for it on a CPU."""
        more: dict[str, Any] = {}
        config = transformers.AutoConfig.from_pretrained(self.folder)
        if getattr(config, "quantization_config", None):
            more["quantization_config"] = transformers.Mxfp4Config(dequantize=True)
        model = transformers.AutoModelForCausalLM.from_pretrained(self.folder, dtype=torch.float32, **more)
        self.model = model.to(self.setup["device"]).eval()

    def files(self) -> list[Path]:
        """None: its weights are copies."""
        return []

    def touch(self) -> None:
        """Nothing: its weights are copies."""

    def tokens(self, prompt: list[int], count: int) -> Stamped:
        """The likeliest tokens after a prompt."""
        ids = torch.tensor([prompt], device=self.setup["device"])
        if self.setup["kind"] == "transformers-loop":
            return stamped(self.looped(ids, count))
        watch = Watch()
        self.model.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=count, do_sample=False,
            eos_token_id=None, streamer=watch,
        )  # fmt: skip
        return watch.ids, watch.stamps

    def looped(self, ids: torch.Tensor, count: int) -> Iterator[int]:
        """One forward pass a token."""
        cache = None
        for _ in range(count):
            with torch.inference_mode():
                said = self.model(ids, past_key_values=cache, use_cache=True, logits_to_keep=1)
            cache, chosen = said.past_key_values, int(said.logits[0, -1].argmax())
            yield chosen
            ids = torch.tensor([[chosen]], device=ids.device)

    def about(self) -> dict[str, Any]:
        """Versions, and which arithmetic it is."""
        said = {"transformers": transformers.__version__, "torch": torch.__version__}
        return {**said, "threads": torch.get_num_threads(), "arithmetic": "float32"}


class Watch(transformers.generation.streamers.BaseStreamer):
    """Notes every token that `generate` makes, and when."""

    def __init__(self) -> None:
        self.ids, self.stamps = list[int](), list[float]()
        self.prompt_came = False

    def put(self, value: torch.Tensor) -> None:
        """The prompt first, whole; then each token."""
        if self.prompt_came:
            self.stamps.append(time.perf_counter())
            self.ids.append(int(value))
        self.prompt_came = True

    def end(self) -> None:
        """Nothing is left to note."""
