"""Three ways to multiply rows as they are stored, and which of them is the best that is here.

`form()` gives it; `form("torch")` asks for one. Each answers three calls on tensors of the CPU:

    unpack(blocks, scales)               packed rows → float32
    multiply(blocks, scales, x, jobs)    a few vectors through the matrices of their experts
    dense(weight, x)                     a few vectors through a bfloat16 matrix

The compiled kernels take as many threads as torch is told to (torch.set_num_threads), one call at a time.
"""

from __future__ import annotations

import importlib.util
import platform
import sys
import threading
import time
import warnings
from functools import cache
from typing import Any

import torch
from torch import Tensor

from ..weights import mxfp4

FORMS = ("avx2", "numba", "torch")  # best first
Job = tuple[int, int, int]  # an expert, the first of its vectors, how many they are
LOCK = threading.Lock()  # one of numba's thread pools (workqueue) ends the process when two calls meet in it


class TorchForm:
    """torch alone, exact. It has no kernels for few vectors: all go by tiles of unpacked rows."""

    name = "torch"
    few_packed = few_dense = 0  # up to how many vectors `multiply` and `dense` are worth their while
    together = 1  # vectors in a job, at most

    @property
    def folder(self) -> str | None:
        """Where compiled code is kept; None where there is none, or no folder can be written."""
        return None

    def __reduce__(self) -> tuple[Any, ...]:
        """Copied and pickled by name: kernels are compiled where they are to run."""
        return form, (self.name,)

    def unpack(self, blocks: Tensor, scales: Tensor) -> Tensor:
        """Packed rows to float32: blocks O n 16 and scales O n, uint8 → O 32n."""
        return mxfp4.unpack(blocks, scales)

    def multiply(self, blocks: Tensor, scales: Tensor, x: Tensor, jobs: list[Job]) -> Tensor:
        """Packed rows times vectors: blocks E O n 16, scales E O n, x N 32n float32 → N O."""
        raise NotImplementedError

    def dense(self, weight: Tensor, x: Tensor) -> Tensor:
        """bfloat16 rows times vectors: weight O I, x N I float32 → N O."""
        raise NotImplementedError


class NumbaForm(TorchForm):
    """Compiled loops, in plain numba or with AVX2."""

    few_packed, few_dense, together = 16, 4, 4

    def __init__(self, name: str) -> None:
        import numba

        from . import plain

        self.name, self.numba, self.kernels = name, numba, plain
        self._multiply = plain.multiply
        if name == "avx2":
            from . import avx2

            self._multiply, self.few_packed = avx2.multiply, 64
        announce()

    @property
    def folder(self) -> str | None:
        """Where compiled code is kept."""
        path = self.kernels.dense.stats.cache_path
        return None if path is None else str(path)

    def run(self, kernel: Any, *arrays: Any) -> None:
        """Call a kernel, on as many threads as torch has."""
        with LOCK:
            self.numba.set_num_threads(min(torch.get_num_threads(), self.numba.config.NUMBA_NUM_THREADS))
            kernel(*arrays)

    def unpack(self, blocks: Tensor, scales: Tensor) -> Tensor:
        """Packed rows to float32."""
        out = torch.empty(len(scales), scales.shape[1] * mxfp4.BLOCK)
        self.run(self.kernels.unpack, blocks.numpy(), scales.numpy(), out.numpy())
        return out

    def multiply(self, blocks: Tensor, scales: Tensor, x: Tensor, jobs: list[Job]) -> Tensor:
        """Packed rows times vectors."""
        out, todo = torch.empty(len(x), scales.shape[1]), torch.tensor(jobs)
        self.run(self._multiply, blocks.numpy(), scales.numpy(), x.numpy(), todo.numpy(), out.numpy())
        return out

    def dense(self, weight: Tensor, x: Tensor) -> Tensor:
        """bfloat16 rows times vectors."""
        out = torch.empty(len(x), len(weight))
        self.run(self.kernels.dense, weight.detach().view(torch.uint16).numpy(), x.numpy(), out.numpy())
        return out


COMPILING = {"seconds": 0.0, "since": 0.0, "depth": 0}


def compile_seconds() -> float:
    """How long this process has been compiling kernels so far."""
    return COMPILING["seconds"]


@cache
def announce() -> None:
    """Say on standard error, once and only if it comes to it, that kernels are being compiled and kept."""
    from numba.core import event

    class Listener(event.Listener):
        said = False

        def on_start(self, what: Any) -> None:
            kernel = what.data["dispatcher"]
            if not self.said and kernel.py_func.__module__.startswith(f"{__package__}."):
                self.said = True
                folder = kernel.stats.cache_path
                kept = f"kept in {folder}" if folder else "for this session, as no folder can be written"
                print(f"gptoss_lab: compiling the fast kernels for this processor, {kept}", file=sys.stderr)
            if not COMPILING["depth"]:
                COMPILING["since"] = time.perf_counter()
            COMPILING["depth"] += 1

        def on_end(self, what: Any) -> None:
            COMPILING["depth"] -= 1
            if not COMPILING["depth"]:
                COMPILING["seconds"] += time.perf_counter() - COMPILING["since"]

    event.register("numba:compile", Listener())


@cache
def available() -> tuple[str, ...]:
    """The forms that can run here, best first. "torch" always can."""
    if importlib.util.find_spec("numba") is None:
        return ("torch",)
    try:
        import numba  # noqa: F401
    except ImportError as error:
        warnings.warn(f"numba cannot be used here, torch answers alone: {error}", stacklevel=2)
        return ("torch",)
    return FORMS if has_avx2() else FORMS[1:]


def has_avx2() -> bool:
    """Whether numba compiles for this very processor, and it has AVX2 and fused multiply-add."""
    import llvmlite.binding as llvm
    from numba import config

    as_it_is = config.CPU_NAME in (None, "host") and config.CPU_FEATURES is None and config.ENABLE_AVX
    if platform.machine().lower() not in ("x86_64", "amd64") or not as_it_is:
        return False
    features = llvm.get_host_cpu_features()
    return bool(features.get("avx2")) and bool(features.get("fma"))


@cache
def form(name: str | None = None) -> TorchForm:
    """One of FORMS, the best that can run here if none is named; ValueError for one that cannot."""
    if name is None:
        return form(available()[0])
    if name not in available():
        why = "needs numba (pip install 'gptoss-lab[fast]')" if name in FORMS[:2] else "is not known"
        if name == "avx2" and "numba" in available():
            why = "needs a processor with AVX2"
        raise ValueError(f"the form {name!r} {why}; here are {', '.join(available())}")
    return TorchForm() if name == "torch" else NumbaForm(name)
