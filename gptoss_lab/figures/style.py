"""The look of every still: one colour per idea, tokens as they are, masked cells hatched, a source line.

Figures take arrays (numpy, torch tensors, nested lists) and labels, and know no model. A function that is
handed an `ax` draws there and returns it; left alone it makes a `Still` and returns that, which a notebook
shows once where it ends a cell. Nothing here touches pyplot or changes rcParams for good.

A sheet is 12.8 x 7.2 inches at 125 dots an inch: 1600 x 900, a projector's picture, on which 11.5 pt can be
read. Colours are Okabe and Ito's (Color Universal Design, 2008) with Tol's indigo and wine: colour-blind
readers tell them apart. Weights are in cividis (Nunez et al., 2018), which grows lighter steadily and so
survives in grey.
"""

from __future__ import annotations

import io
import textwrap
from base64 import b64encode
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache, wraps
from typing import Any, TypeVar, cast

import matplotlib
import numpy as np
from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import Normalize, PowerNorm
from matplotlib.figure import Figure
from matplotlib.image import AxesImage

COLOUR = {  # one colour per idea, in every figure of the course
    "query": "#0072B2",  # blue
    "key": "#E69F00",  # orange
    "value": "#009E73",  # green
    "sink": "#D55E00",  # vermilion
    "window": "#56B4E9",  # sky
    "dense": "#332288",  # indigo, far darker than `window`: the two meet in most figures
    "experts": "#CC79A7",  # reddish purple
    "position": "#882255",  # wine: rotations, wavelengths, scores by distance
    "output": "#F0E442",  # yellow, always with an edge of ink: the next token
    "residual": "#595959",  # the stream that everything is added to
    "ink": "#1A1A1A",  # text and axes
    "muted": "#595959",  # the source line and reference lines; 7:1 on white
    "masked": "#ECECEC",  # a cell that does not exist, with `hatch` besides: no weight looks so, even in grey
    "hatch": "#A6A6A6",
}
WEIGHTS = "cividis"  # from zero
SMALL, TEXT, TITLE = 11.5, 13, 16  # points
DOTS, WIDTH, HEIGHT = 125, 12.8, 7.2  # dots an inch, inches
INK: Any = {
    "text.parse_math": False,  # a token may be a dollar
    "text.usetex": False,
    "font.family": ["DejaVu Sans"],  # comes with matplotlib
    "font.size": SMALL,
    "text.color": COLOUR["ink"],
    "axes.labelcolor": COLOUR["ink"],
    "axes.edgecolor": COLOUR["ink"],
    "axes.facecolor": "white",
    "axes.grid": False,
    "xtick.color": COLOUR["ink"],
    "ytick.color": COLOUR["ink"],
    "xtick.labelsize": SMALL,
    "ytick.labelsize": SMALL,
    "legend.fontsize": SMALL,
    "legend.frameon": False,
    "hatch.linewidth": 0.8,
}

F = TypeVar("F", bound=Callable[..., Any])


def inked(draw: F) -> F:
    """`draw`, run with the course's fonts and inks; the caller's rcParams are back when it returns."""

    @wraps(draw)
    def within(*args: Any, **kwargs: Any) -> Any:
        with matplotlib.rc_context(INK):
            return draw(*args, **kwargs)

    return cast(F, within)


def room(axis: Axis) -> float:
    """Length of an axis in points, as the Axes now lies (a layout to come may change it)."""
    ax, locate = axis.axes, cast(Any, axis.axes.get_axes_locator())  # an inset is placed by its locator
    ax.apply_aspect(locate(ax, None) if locate else None)
    box = ax.get_window_extent()
    return float(box.width if axis is ax.xaxis else box.height) * 72 / ax.figure.dpi


@dataclass
class Names:
    """The names of an axis' cells, of which one in `step` is written: 1, 2, 4, 8, … so that none touch."""

    axis: Axis
    labels: list[str]
    what: str  # the axis' own name, whose first line says the step too
    upright: bool  # names across stand on end unless they are short and upright
    step: int = 0

    def fit(self, fewer: bool = False) -> bool:
        """Writes as many names as there is room for, or `fewer` than now; True if the step is a new one."""
        across, had = self.axis is self.axis.axes.xaxis, self.step
        wide = max(len(label) for label in self.labels) * 0.65 * SMALL + 5
        fits = room(self.axis) / (wide if across and self.upright else 1.15 * SMALL)
        self.step = had if fewer else 1
        while self.step < len(self.labels) and -(-len(self.labels) // self.step) > fits:
            self.step *= 2
        if self.step == had:
            return False
        at, angle = range(0, len(self.labels), self.step), 90 if across and not self.upright else 0
        self.axis.set_ticks(at, self.labels[:: self.step], fontsize=SMALL, parse_math=False, rotation=angle)
        first, *more = self.what.split("\n")
        first += f" · 1 in {self.step} named" if self.step > 1 else ""
        if self.what:
            self.axis.set_label_text("\n".join([first, *more]), fontsize=TEXT)
        return True


class Still(Figure):
    """A Figure that a notebook shows once without pyplot; `alt` says in words what it shows."""

    def __init__(self, **layout: Any) -> None:
        super().__init__(**layout)
        self.agg = FigureCanvasAgg(self)  # measures text before anything is drawn
        self.alt = ""
        self.named: list[Names] = []

    def draw(self, renderer: Any) -> None:
        """As Figure.draw; ticks that are made while drawing get the same inks as everything else."""
        with matplotlib.rc_context(INK):
            super().draw(renderer)

    def _repr_mimebundle_(self, **_: Any) -> tuple[dict[str, str], dict[str, Any]]:
        picture = io.BytesIO()
        self.savefig(picture, format="png", dpi=self.dpi)
        shown = {"image/png": b64encode(picture.getvalue()).decode(), "text/plain": repr(self)}
        return shown, {"image/png": {"alt": self.alt}}


def sheet(width: float = WIDTH, height: float = HEIGHT) -> Still:
    """An empty white figure of so many inches, which `headline` lays out."""
    return Still(figsize=(width, height), dpi=DOTS, facecolor="white")


def plain(values: Any) -> np.ndarray:
    """A tensor (any device, any float), array or nested list as a numpy array; bf16 becomes float32."""
    if hasattr(values, "detach"):
        values = values.detach().cpu()
        values = (values.float() if values.is_floating_point() else values).numpy()
    elif isinstance(values, (list, tuple)) and any(hasattr(v, "detach") for v in values):
        values = [plain(v) for v in values]
    return np.asarray(values)


def array(values: Any, name: str, axes: str, shape: Sequence[int | None] = ()) -> np.ndarray:
    """`values` as an array with these axes ("T K"), of this shape where given; ValueError says what came."""
    try:
        found = plain(values)
    except ValueError as error:
        raise ValueError(f"{name} must have axes {axes}, but its rows differ in length: {error}") from error
    if found.ndim != len(axes.split()):
        batch = f"; draw one row of a batch: {name}[0]" if found.ndim == len(axes.split()) + 1 else ""
        raise ValueError(f"{name} must have axes {axes}, came with shape {found.shape}{batch}")
    if any(want is not None and want != have for want, have in zip(shape, found.shape)):
        wanted = " ".join("any" if want is None else str(want) for want in shape)
        raise ValueError(f"{name} has axes {axes} and must be {wanted} here, came with shape {found.shape}")
    if 0 in found.shape:
        raise ValueError(f"{name} is empty (shape {found.shape}): there is nothing to draw")
    return found


def percent(share: float) -> str:
    """0.413 as "41 %"; below twenty per cent with one decimal."""
    return f"{100 * share:.{1 if abs(share) < 0.1995 else 0}f} %"


@lru_cache(maxsize=1)
def _glyphs() -> frozenset[int]:
    return frozenset(font_manager.get_font(font_manager.findfont("DejaVu Sans")).get_charmap())


def printable(label: object, limit: int = 12) -> str:
    """A label on one line of at most `limit` characters; what the font lacks is written as its code point."""
    text = "".join(c if c.isprintable() and ord(c) in _glyphs() else f"U+{ord(c):04X}" for c in str(label))
    return text if len(text) <= limit else text[: limit - 1] + "…"


def written(labels: Sequence[str] | None, n: int, name: str = "labels", limit: int = 12) -> list[str]:
    """n printable labels, positions where none are given; ValueError when the number is another."""
    if labels is None:
        return [str(i) for i in range(n)]
    if len(labels) != n:
        raise ValueError(f"{name} must name {n} tokens, came with {len(labels)}")
    return [printable(label, limit) for label in labels]


def begin(ax: Axes | None, width: float = WIDTH, height: float = HEIGHT) -> tuple[Still | None, Axes]:
    """A sheet of its own and its Axes, or no sheet and the Axes handed in."""
    if ax is not None:
        return None, ax
    made = sheet(width, height)
    return made, made.subplots()


def finish(made: Still | None, ax: Axes, title: str, source: str, alt: str) -> Still | Axes:
    """Writes title, source line and alternative text; returns the sheet if one was made, else the Axes."""
    if made is not None:
        return headline(made, np.array([[ax]]), title, source, alt)
    lines = textwrap.wrap(printable(title, 1000), max(20, int(room(ax.xaxis) / (0.55 * TEXT))))
    ax.set_title("\n".join(lines), loc="left", fontsize=TEXT)
    write_source(ax.figure, source)
    return ax


def headline(made: Still, panels: np.ndarray, title: str, source: str, alt: str, right: float = 0.0) -> Still:
    """The title top left, the source line bottom left, the panels (rows x columns of Axes) as large as fits.

    A legend of the figure goes under the title; `right` points are left free at the right, for a bar of
    colours.
    """
    title = "\n".join(printable(line, 1000) for line in title.splitlines())
    made.suptitle(title, x=0.01, y=0.985, ha="left", va="top", fontsize=TITLE, wrap=True)
    write_source(made, source)
    made.alt = alt
    _lay_out(made, panels, right)  # says how long the axes are, so how many names fit, which moves the axes
    if any([names.fit() for names in made.named]):
        _lay_out(made, panels, right)
        while any([names.fit(fewer=True) for names in made.named]):
            _lay_out(made, panels, right)
    return made


def _overhang(ax: Axes, renderer: Any) -> tuple[float, float, float, float]:
    """How far names, titles and insets stick out of an Axes: left, bottom, right, top, in pixels."""
    ax.apply_aspect()
    around, box = ax.get_tightbbox(renderer), ax.get_window_extent()
    if around is None:
        return 0.0, 0.0, 0.0, 0.0
    return box.x0 - around.x0, box.y0 - around.y0, around.x1 - box.x1, around.y1 - box.y1


def _lay_out(made: Still, panels: np.ndarray, right: float) -> None:
    """Panels of one size between title and source line, with room for what sticks out of each."""
    renderer, pad = made.agg.get_renderer(), made.dpi / 12  # 6 points
    (wide, high), (rows, columns) = made.bbox.size, panels.shape
    above = [t.get_window_extent(renderer) for t in made.texts if t.get_position()[1] > 0.5]
    below = [t.get_window_extent(renderer) for t in made.texts if t.get_position()[1] < 0.5]
    top = min([box.y0 for box in above], default=high) - pad
    bottom = max([box.y1 for box in below], default=0.0) + pad
    for legend in made.legends:
        legend.set_bbox_to_anchor((0.0, top / high), made.transFigure)
        top -= legend.get_window_extent(renderer).height + pad
    for _ in range(2):  # insets grow with their panel: the second time little moves
        out = np.array([[_overhang(ax, renderer) for ax in row] for row in panels])
        left = out[:, 0, 0].max() + pad
        across = (out[:, :-1, 2] + out[:, 1:, 0]).max(initial=0) + pad
        down = (out[:-1, :, 1] + out[1:, :, 3]).max(initial=0) + pad
        free = right * made.dpi / 72 + out[:, -1, 2].max() + pad
        width = (wide - left - free - (columns - 1) * across) / columns
        height = (top - bottom - out[0, :, 3].max() - out[-1, :, 1].max() - (rows - 1) * down) / rows
        width, height = max(width, pad), max(height, pad)
        for (row, column), ax in np.ndenumerate(panels):
            x = left + column * (width + across)
            y = top - out[0, :, 3].max() - height - row * (height + down)
            ax.set_position((x / wide, y / high, width / wide, height / high))
            ax.apply_aspect()


def write_source(figure: Any, source: str) -> None:
    """Where the numbers come from, in one muted line (or a few) at the bottom left of a figure.

    A figure with a layout of its own, as `Still(layout="constrained")`, makes room for it.
    """
    if source:
        line = " ".join(printable(word, 60) for word in source.split())
        place = {"y": 0.012, "va": "bottom"} if figure.get_layout_engine() is None else {}
        line = figure.supxlabel(line, x=0.01, ha="left", fontsize=SMALL, wrap=True, **place)
        line.set_color(COLOUR["muted"])


def name_ticks(axis: Axis, labels: Sequence[str], what: str, upright: bool = False) -> None:
    """Names the cells of an axis, and the axis (`what`): see `Names`.

    On a Still the step is found again when the layout is known; on an Axes that was handed in it fits it as
    it lies.
    """
    names = Names(axis, list(labels), what, upright)
    names.fit()
    if isinstance(axis.axes.figure, Still):
        axis.axes.figure.named.append(names)


def heat(ax: Axes, values: np.ndarray, norm: Normalize) -> AxesImage:
    """Rows x columns as a picture in `WEIGHTS` (norm: from 0); cells masked in `values` are hatched grey."""
    ax.patch.set(facecolor=COLOUR["masked"], hatch="////", edgecolor=COLOUR["hatch"], linewidth=0)
    colours = matplotlib.colormaps[WEIGHTS].with_extremes(bad=(0, 0, 0, 0))
    image = ax.imshow(values, cmap=colours, norm=norm, aspect="auto", interpolation="nearest")
    ax.tick_params(labelsize=SMALL, length=3)
    return image


def scale(image: AxesImage, beside: Axes, label: str, over: bool = False) -> None:
    """The colours' meaning, as a bar right of `beside`; an arrow on top if values go `over` its end."""
    wide = 0.2 * 72 / room(beside.xaxis)
    bar = beside.inset_axes((1 + 0.75 * wide, 0, wide, 1))
    beside.figure.colorbar(image, cax=bar, extend="max" if over else "neither")
    if isinstance(image.norm, PowerNorm):  # 1, 0.5, 0.2, 0.1, … as far down as they stand apart
        ticks, apart = [image.norm.vmax or 1.0], 1.5 * SMALL / room(bar.yaxis)
        for value in (1.0, 0.5, 0.2, 0.1, 0.05, 0.02, 0.01, 0.005):
            low, high = (float(image.norm(v)) for v in (value, ticks[-1]))
            ticks += [value] if apart <= low <= high - apart else []
        bar.set_yticks([*ticks, 0.0], [f"{value:.2g}" for value in [*ticks, 0.0]])
    bar.tick_params(labelsize=SMALL)
    bar.set_ylabel(label, fontsize=TEXT)
