"""Checkpoints: finding, reading and writing them, and MXFP4. `load` gives a model, `save` writes one."""

from .loading import load
from .mxfp4 import PackedStack, pack, round_to_mxfp4, unpack
from .reader import CheckpointError
from .saving import save

__all__ = ["CheckpointError", "PackedStack", "load", "pack", "round_to_mxfp4", "save", "unpack"]
