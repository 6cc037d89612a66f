"""A device that is only pretended: tensors that say "meta:1" and are held, and computed with, on the CPU.

No card is needed to find what would fail on one. Every operation that torch dispatches passes here:

- tensors of the two devices in one operation raise MixedDevices, as torch would on a card (and a little more
  strictly: torch lets single numbers and some indices pass);
- what crosses from one device to the other is written down, and so is every single number asked for, as the
  program must wait for the card there;
- memory of the device is counted, what is alive and the most that was;
- numbers are those of the CPU, so results can be compared to the last bit.

What it cannot tell: whether the card's own kernels exist and round likewise, and how fast they are.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_flatten, tree_map

DEVICE = torch.device("meta:1")  # a kind that every torch knows; the meta device itself has no number
ANSWERS = ("_local_scalar_dense", "equal", "is_nonzero")  # operations that give a number to the program
CROSSES = ("_to_copy", "copy_")


class MixedDevices(RuntimeError):
    """Tensors of two devices met in one operation."""


class Use:
    """One tensor's use of its memory, counted from when it is made until it is gone."""

    def __init__(self, machine: Machine, held: torch.Tensor) -> None:
        with _disable_current_modes():
            storage = held.untyped_storage()
            self.machine, self.key, self.size = machine, storage.data_ptr(), storage.nbytes()
        if machine.users[self.key] == 0:
            machine.alive += self.size
            machine.peak = max(machine.peak, machine.alive)
        machine.users[self.key] += 1

    def __del__(self) -> None:
        self.machine.users[self.key] -= 1
        if self.machine.users[self.key] == 0:
            self.machine.alive -= self.size


class Pretended(torch.Tensor):
    """A tensor that says it is on the device."""

    held: torch.Tensor
    use: Use

    @staticmethod
    def __new__(cls, held: torch.Tensor, machine: Machine) -> Pretended:
        self = torch.Tensor._make_wrapper_subclass(
            cls, held.shape, strides=held.stride(), storage_offset=held.storage_offset(), dtype=held.dtype,
            device=DEVICE,
        )  # fmt: skip
        self.held = held
        self.use = Use(machine, held)
        return self

    def __repr__(self) -> str:  # type: ignore[override]
        return f"Pretended({self.held!r})"

    def data_ptr(self) -> int:
        return self.held.data_ptr()

    def tolist(self) -> Any:
        return self.cpu().tolist()

    def new_tensor(self, data: Any, **more: Any) -> torch.Tensor:  # type: ignore[override]
        return torch.tensor(data, **{"dtype": self.dtype, "device": DEVICE, **more})

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        raise AssertionError(f"{func} on a pretended tensor outside its machine")


class Machine(TorchDispatchMode):
    """`with Machine() as machine:` what runs inside has a device called cuda:0.

    crossed: (direction, bytes) of every copy between devices, "up" to the card or "down" from it; asked: how
    often a single number was asked for; alive, peak: bytes on the card; operations: how many it ran.
    """

    def __init__(self) -> None:
        super().__init__()
        self.crossed, self.asked = list[tuple[str, int]](), Counter[str]()
        self.alive = self.peak = self.operations = 0
        self.users = Counter[int]()

    def __enter__(self) -> Machine:
        self.lifted = torch._C._only_lift_cpu_tensors()
        torch._C._set_only_lift_cpu_tensors(True)  # torch.tensor(…, device=…) comes here, as a copy
        return super().__enter__()

    def __exit__(self, *raised: Any) -> None:
        super().__exit__(*raised)
        torch._C._set_only_lift_cpu_tensors(self.lifted)

    def start(self) -> None:
        """Begin to count again."""
        self.crossed.clear()
        self.asked.clear()
        self.peak, self.operations = self.alive, 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        tensors = [one for one in tree_flatten((args, kwargs))[0] if isinstance(one, torch.Tensor)]
        far = [one for one in tensors if isinstance(one, Pretended)]
        name = func._schema.name.removeprefix("aten::")
        target = kwargs.get("device")
        here = bool(far)
        if target is not None:
            here = torch.device(target) == DEVICE
            if here:
                kwargs["device"] = torch.device("cpu")
        if name in CROSSES:
            source = args[1] if name == "copy_" else args[0]
            here = isinstance(args[0], Pretended) if name == "copy_" else here
            if here != isinstance(source, Pretended):
                self.crossed.append(("up" if here else "down", source.nbytes))
        elif 0 < len(far) < len(tensors):
            near = [tuple(one.shape) for one in tensors if not isinstance(one, Pretended)]
            raise MixedDevices(f"{name}: shapes {[tuple(one.shape) for one in far]} there, {near} here")
        self.operations += here
        if name in ANSWERS and far:
            self.asked[name] += 1
            here = False
        plain = tree_map(lambda one: one.held if isinstance(one, Pretended) else one, (args, kwargs))
        result = func(*plain[0], **plain[1])
        if name == "_to_copy" and not here == isinstance(args[0], Pretended):
            result = result.clone() if result is plain[0][0] else result
        if func._schema.is_mutable and isinstance(args[0], torch.Tensor) and result is plain[0][0]:
            return args[0]
        if not here:
            return result
        return tree_map(lambda one: Pretended(one, self) if isinstance(one, torch.Tensor) else one, result)
