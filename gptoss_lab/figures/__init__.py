"""Stills: arrays and labels in, a matplotlib picture out, for notebooks, print and slides. It knows no model.

    figures.router(trace["blocks.3.experts.choice"][0], trace["blocks.3.experts.weight"][0], 16, labels)

A function that is handed an `ax` draws there and returns it; otherwise it makes a figure, of 1600 x 900
pixels or less, and returns that. Axes of a figure made with layout="constrained" get room for all names and
bars. `describe_…` says in words what the picture of the same name shows. The ladder's pictures lie in two
modules of their own: `figures.ladder.differences(…)`, `figures.ladder_runs.curves(…)`.
"""

from . import ladder, ladder_runs
from .attention import attention, attention_pair, describe_attention
from .caches import cache_slots, describe_cache_slots
from .dials import describe_dial, dial
from .experts import describe_router, router, router_layers
from .layers import curves, describe_head_maps, head_maps, told_bars
from .memory import budgets, describe_budgets, describe_parts, parts
from .packed import describe_packed_block, packed_block, rounding
from .positions import describe_rope, rope, rope_score, score_by_distance, wavelengths
from .shapes import describe_ratios, ratios, trained
from .speeds import describe_speeds, speeds
from .style import COLOUR, Still, write_source
from .tokens import describe_next_tokens, next_tokens

__all__ = [
    "COLOUR",
    "Still",
    "attention",
    "attention_pair",
    "budgets",
    "cache_slots",
    "curves",
    "describe_attention",
    "describe_budgets",
    "describe_cache_slots",
    "describe_dial",
    "describe_head_maps",
    "describe_next_tokens",
    "describe_packed_block",
    "describe_parts",
    "describe_ratios",
    "describe_rope",
    "describe_router",
    "describe_speeds",
    "dial",
    "head_maps",
    "ladder",
    "ladder_runs",
    "next_tokens",
    "packed_block",
    "parts",
    "ratios",
    "rope",
    "rope_score",
    "rounding",
    "router",
    "router_layers",
    "score_by_distance",
    "speeds",
    "told_bars",
    "trained",
    "wavelengths",
    "write_source",
]
