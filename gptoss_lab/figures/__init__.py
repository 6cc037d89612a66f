"""Stills: arrays and labels in, a matplotlib picture out, for notebooks, print and slides. It knows no model.

    figures.router(trace["blocks.3.experts.choice"][0], trace["blocks.3.experts.weight"][0], 16, labels)

A function that is handed an `ax` draws there and returns it; otherwise it makes a figure, of 1600 x 900
pixels or less, and returns that. Axes of a figure made with layout="constrained" get room for all names and
bars. `describe_…` says in words what the picture of the same name shows.
"""

from .attention import attention, attention_pair, describe_attention
from .dials import describe_dial, dial
from .experts import describe_router, router, router_layers
from .positions import describe_rope, rope, rope_score, score_by_distance, wavelengths
from .shapes import describe_ratios, ratios, trained
from .style import COLOUR, Still, write_source
from .tokens import describe_next_tokens, next_tokens

__all__ = [
    "COLOUR",
    "Still",
    "attention",
    "attention_pair",
    "describe_attention",
    "describe_dial",
    "describe_next_tokens",
    "describe_ratios",
    "describe_rope",
    "describe_router",
    "dial",
    "next_tokens",
    "ratios",
    "rope",
    "rope_score",
    "router",
    "router_layers",
    "score_by_distance",
    "trained",
    "wavelengths",
    "write_source",
]
