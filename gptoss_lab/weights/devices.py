"""Devices: which are there, in what precision each multiplies, how much memory it has.

A large model multiplies in bfloat16 where the device has it: cards from compute capability 8.0 on (Ampere),
AMD's, and MPS from macOS 14 on. Elsewhere in float16, with care (see `half`). None of this was run on a card.
"""

from __future__ import annotations

import torch

KINDS = ("cpu", "cuda", "mps")


def usable(device: str | torch.device) -> torch.device:
    """The device, if this machine has it; else ValueError."""
    try:
        chosen = torch.device(device)
    except (RuntimeError, TypeError):
        raise ValueError(f"device={device!r}; expected 'cpu', 'cuda', 'cuda:1' or 'mps'") from None
    there = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not there.get(chosen.type):
        here = ", ".join(kind for kind in there if there[kind])
        raise ValueError(f"device={str(device)!r} is not available here; available: {here}")
    if chosen.type == "cuda" and (chosen.index or 0) >= torch.cuda.device_count():
        raise ValueError(f"device={str(device)!r}: cuda:0 to {torch.cuda.device_count() - 1} are there")
    return chosen


def precision(device: torch.device) -> torch.dtype | str:
    """What load(dtype=None) means on a device for a model too large for float32."""
    if device.type == "cuda":
        has_bfloat16 = bool(torch.version.hip) or torch.cuda.get_device_capability(device) >= (8, 0)
        return torch.bfloat16 if has_bfloat16 else torch.float16
    if device.type == "mps":
        return torch.bfloat16 if torch.backends.mps.is_macos_or_newer(14, 0) else torch.float16
    return "stored"


def memory(device: torch.device) -> tuple[int, int] | None:
    """Bytes free on a device, and in all; None where the system does not tell (the CPU's is not asked)."""
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        return int(free), int(total)
    if device.type == "mps":  # memory is shared with the CPU; what is told is how much Metal should take
        total = int(torch.mps.recommended_max_memory())
        return total - int(torch.mps.driver_allocated_memory()), total
    return None
