"""Putting the fast holders and forms onto a model."""

from __future__ import annotations

import torch
from torch import nn

from ..model.attention import Attention
from ..model.experts import Experts
from ..model.linear import Linear
from ..model.transformer import Transformer
from ..weights.mxfp4 import PackedStack
from .forms import NumbaForm, TorchForm, form
from .holders import FastLinear, FastStack
from .seams import Answers, Attend, Project, fits
from .steps import AttentionStep, ExpertsStep, TokenStep


def quicken(model: nn.Module, chosen: TorchForm | None = None) -> None:
    """Put fast holders where a model holds bfloat16 matrices and packed experts, and fast forms in its seams;
    the rest stays as it is.
    """
    chosen = form() if chosen is None else chosen
    for part in list(model.modules()):
        for name, child in list(part.named_children()):
            if type(child) is Linear and child.weight.dtype == torch.bfloat16:
                setattr(part, name, FastLinear(child.weight, child.bias, chosen))
            elif type(child) is PackedStack:
                setattr(part, name, FastStack(child.blocks, child.scales, child.bias, chosen))
        compiled = chosen if isinstance(chosen, NumbaForm) else None
        if isinstance(part, Attention):
            part.project, part.attend = Project(part), Attend(chosen)  # type: ignore[method-assign]
            if compiled and AttentionStep.fits(part):
                part.forward = AttentionStep(part, compiled)  # type: ignore[method-assign]
        elif isinstance(part, Experts):
            if fits(part):
                part.answers = Answers(part)  # type: ignore[method-assign]
            if compiled and ExpertsStep.fits(part):
                part.forward = ExpertsStep(part, compiled)  # type: ignore[method-assign]
    if isinstance(model, Transformer) and isinstance(chosen, NumbaForm) and TokenStep.fits(model):
        model.forward = TokenStep(model, chosen)  # type: ignore[method-assign]
