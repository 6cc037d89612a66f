"""Views: what a person explores. One renderer in JavaScript serves the notebook's widget and the page alike.

lab.explore(model, "Once upon a time")          # the widget: type a prompt, touch what you see
lab.views.experts(trace)                        # one view of a trace
lab.export_html(trace, "page.html")             # the same views as one file that needs nothing else
"""

from .page import export_html
from .payload import VIEWS, View, keep_for
from .widget import Explorer, attention, experts, explore, positions, steps  # `steps` the view, not the file

__all__ = [
    "VIEWS", "Explorer", "View", "attention", "experts", "explore", "export_html", "keep_for", "positions",
    "steps",
]  # fmt: skip
