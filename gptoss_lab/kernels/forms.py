"""Four ways to multiply rows as they are stored, and which of them is the best that is here.

`form()` gives it; `form("torch")` asks for one. They answer these calls, on tensors of the CPU:

    unpack(blocks, scales)               packed rows → float32
    multiply(blocks, scales, x, jobs)    a few vectors through the matrices of their experts
    dense(weights, biases, x)            a few vectors through bfloat16 matrices
    attend(q, k, v, seen, sink)          queries over keys, no scores kept
    experts(x, …)                        any number of tokens through gpt-oss's experts, gate to down

The compiled kernels take as many threads as torch is told to (torch.set_num_threads), one call at a time.
"""

from __future__ import annotations

import importlib.util
import platform
import sys
import threading
import time
import warnings
from collections.abc import Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor

from ..weights import mxfp4

FORMS = ("avx512", "avx2", "numba", "torch")  # best first
AVX512 = ("avx512f", "avx512bw", "avx512vl", "avx512dq", "avx512vnni", "avx512vbmi", "fma")
Job = tuple[int, int, int]  # an expert, the first of its vectors, how many they are
Packed = tuple[Tensor, Tensor, Tensor]  # blocks, scales, bias
LOCK = threading.Lock()  # one of numba's thread pools (workqueue) ends the process when two calls meet in it


class TorchForm:
    """torch alone, exact. It has no kernels for few vectors: all go by tiles of unpacked rows."""

    name = "torch"
    few_packed = few_dense = few_queries = 0  # up to how many `multiply`, `dense` and `attend` are worth it
    together = 1  # vectors in a job, at most
    fused = False  # whether there is `experts`

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

    def dense(self, weights: Sequence[Tensor], biases: Sequence[Tensor | None], x: Tensor) -> Tensor:
        """Rows of one bfloat16 matrix after another times vectors: weights O I, x N I float32 → N, all O."""
        raise NotImplementedError

    def attend(self, q: Tensor, k: Tensor, v: Tensor, seen: Tensor, sink: Tensor | None) -> Tensor:
        """As `model.attention.attend`, float32, C a multiple of 16."""
        raise NotImplementedError

    def experts(
        self, x: Tensor, source: Any, place: Any, jobs: Any, first: Packed, down: Packed,
        limit: float, alpha: float,
    ) -> Tensor:  # fmt: skip
        """Tokens T D through experts: gate and up, clamped SwiGLU, down → N D. See `avx512.experts`, whose
        source, place and jobs are numpy's."""
        raise NotImplementedError


class NumbaForm(TorchForm):
    """Compiled loops, in plain numba or with AVX2 or AVX-512."""

    few_packed, few_dense, few_queries, together = 16, 4, sys.maxsize, 4

    def __init__(self, name: str) -> None:
        import numba
        import numpy

        from . import decoding, plain, single

        self.name, self.numba, self.numpy = name, numba, numpy
        self.kernels, self.single, self._attend = plain, single, decoding.attend
        self._multiply = plain.multiply
        if name == "avx2":
            from . import avx2

            self._multiply, self.few_packed = avx2.multiply, 64
        elif name == "avx512":
            from . import avx512

            self._multiply, self._experts, self.fused = avx512.multiply, avx512.experts, True
            self.mixture, self.blocks = avx512.mixture_of_one, avx512.blocks_of_one
            self.few_packed = self.together = sys.maxsize
        told = torch.get_num_threads()
        numba.get_num_threads()  # starts its threads, and where both use one OpenMP, tells torch how many
        torch.set_num_threads(told)
        announce()

    @property
    def folder(self) -> str | None:
        """Where compiled code is kept."""
        path = self.kernels.dense.stats.cache_path
        return None if path is None else str(path)

    @property
    def threads(self) -> int:
        """How many a kernel takes."""
        return min(torch.get_num_threads(), int(self.numba.config.NUMBA_NUM_THREADS))

    def run(self, kernel: Any, *arrays: Any) -> None:
        """Call a kernel, on as many threads as torch has."""
        with LOCK:
            self.numba.set_num_threads(self.threads)
            kernel(*arrays)

    def unpack(self, blocks: Tensor, scales: Tensor) -> Tensor:
        """Packed rows to float32."""
        out = torch.empty(len(scales), scales.shape[1] * mxfp4.BLOCK)
        self.run(self.kernels.unpack, blocks.numpy(), scales.numpy(), out.numpy())
        return out

    def multiply(self, blocks: Tensor, scales: Tensor, x: Tensor, jobs: list[Job]) -> Tensor:
        """Packed rows times vectors."""
        out, todo = torch.empty(len(x), scales.shape[1]), self.numpy.array(jobs)
        self.run(self._multiply, blocks.numpy(), scales.numpy(), x.numpy(), todo, out.numpy())
        return out

    def dense(self, weights: Sequence[Tensor], biases: Sequence[Tensor | None], x: Tensor) -> Tensor:
        """bfloat16 rows times vectors."""
        out = torch.empty(len(x), sum(len(weight) for weight in weights))
        matrices = tuple(bits(weight) for weight in weights)
        self.run(self.kernels.dense, matrices, tuple(bits(one) for one in biases), x.numpy(), out.numpy())
        return out

    def attend(self, q: Tensor, k: Tensor, v: Tensor, seen: Tensor, sink: Tensor | None) -> Tensor:
        """Queries over keys."""
        out = torch.empty(q.shape)
        sinks = torch.empty(0, 0, 0) if sink is None else sink
        self.run(self._attend, *(one.numpy() for one in (q, k, v, seen, sinks, out)))
        return out

    def experts(
        self, x: Tensor, source: Any, place: Any, jobs: Any, first: Packed, down: Packed,
        limit: float, alpha: float,
    ) -> Tensor:  # fmt: skip
        """Tokens through experts."""
        assert self.fused
        out = torch.empty(len(source), down[1].shape[1])
        stacks = [(blocks.numpy(), scales.numpy(), bits(bias)) for blocks, scales, bias in (first, down)]
        numbers = (limit, alpha, self.threads)
        self.run(self._experts, x.numpy(), source, place, jobs, *stacks[0], *stacks[1], *numbers, out.numpy())
        return out


def bits(tensor: Tensor | None) -> Any:
    """A bfloat16 tensor's bits, for numpy knows none; for nothing, a vector of length 0."""
    tensor = torch.empty(0, dtype=torch.bfloat16) if tensor is None else tensor
    return tensor.detach().view(torch.uint16).numpy()


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
    needs = {"avx512": AVX512, "avx2": ("avx2", "fma")}
    return tuple(name for name in FORMS if has(*needs.get(name, ())))


def has(*instructions: str) -> bool:
    """Whether numba compiles for this very processor, and it has these instructions, by LLVM's names."""
    if not instructions:
        return True
    import llvmlite.binding as llvm
    from numba import config

    as_it_is = config.CPU_NAME in (None, "host") and config.CPU_FEATURES is None and config.ENABLE_AVX
    if platform.machine().lower() not in ("x86_64", "amd64") or not as_it_is:
        return False
    features = llvm.get_host_cpu_features()
    return all(features.get(name) for name in instructions)


@cache
def form(name: str | None = None) -> TorchForm:
    """One of FORMS, the best that can run here if none is named; ValueError for one that cannot."""
    if name is None:
        return form(available()[0])
    if name not in available():
        why = "needs numba (pip install 'gptoss-lab[fast]')" if name in FORMS[:3] else "is not known"
        if name in FORMS[:2] and "numba" in available():
            why = f"needs a processor with {name.upper()}" + " VNNI and VBMI" * (name == "avx512")
        raise ValueError(f"the form {name!r} {why}; here are {', '.join(available())}")
    return TorchForm() if name == "torch" else NumbaForm(name)
