"""llama.cpp's side of a comparison: its own functions on a GGUF file, called through llama-cpp-python.

llama.cpp           as it comes: weights that its processor kernels want otherwise are repacked, in memory
llama.cpp-mapped    without repacking: all weights stay in the file, mapped
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import llama_cpp as api
import numpy as np

from .gguf_file import mark_of
from .side import Stamped, stamped

QUIET = api.llama_log_callback(lambda level, text, data: None)


class Llama:
    """A model of llama.cpp, a context on it, and the likeliest token after the other."""

    def __init__(self, setup: dict[str, Any]) -> None:
        self.setup, self.file = setup, Path(setup["gguf"])
        self.repacked = setup["kind"] == "llama.cpp"

    def load(self) -> None:
        """Open the file and make a context of `context` tokens; RuntimeError where llama.cpp will not."""
        api.llama_log_set(QUIET, None)
        api.llama_backend_init()
        how = api.llama_model_default_params()
        how.use_extra_bufts = self.repacked
        how.n_gpu_layers = 0 if self.setup["device"] == "cpu" else 1000
        self.model = api.llama_model_load_from_file(str(self.file).encode(), how)
        if not self.model:
            raise RuntimeError(f"llama.cpp does not load {self.file.name}")
        size = api.llama_context_default_params()
        size.n_ctx = self.setup["context"]
        size.n_threads = size.n_threads_batch = self.setup["threads"]
        self.context = api.llama_init_from_model(self.model, size)
        if not self.context:
            raise RuntimeError(f"llama.cpp makes no context of {self.setup['context']} tokens")
        self.batch = size.n_batch
        self.count = api.llama_vocab_n_tokens(api.llama_model_get_vocab(self.model))

    def files(self) -> list[Path]:
        """The file, where it stays mapped."""
        return [] if self.repacked else [self.file]

    def touch(self) -> None:
        """Nothing: llama.cpp asks the system for all pages when it maps the file."""

    def tokens(self, prompt: list[int], count: int) -> Stamped:
        """The likeliest tokens after a prompt."""
        return stamped(self.likeliest(prompt, count))

    def likeliest(self, prompt: list[int], count: int) -> Iterator[int]:
        """One after another."""
        api.llama_memory_clear(api.llama_get_memory(self.context), True)
        ids = prompt
        for _ in range(count):
            chosen = int(self.logits(ids).argmax())
            yield chosen
            ids = [chosen]

    def logits(self, ids: list[int]) -> np.ndarray:
        """The logits V after more tokens; a view that the next call overwrites."""
        for start in range(0, len(ids), self.batch):
            part = ids[start : start + self.batch]
            tokens = (api.llama_token * len(part))(*part)
            if status := api.llama_decode(self.context, api.llama_batch_get_one(tokens, len(part))):
                raise RuntimeError(f"llama_decode failed with status {status}")
        row = api.llama_get_logits_ith(self.context, -1)
        return np.ctypeslib.as_array(ctypes.cast(row, ctypes.POINTER(ctypes.c_float)), (self.count,))

    def about(self) -> dict[str, Any]:
        """Versions, and what its kernels use."""
        return {
            "llama_cpp_python": api.__version__,
            "threads": self.setup["threads"],
            "system": api.llama_print_system_info().decode(),
            "weights": "repacked" if self.repacked else "mapped",
            "from": mark_of(self.file),
        }
