"""What each of many gains over a yardstick, as a picture of bars with their errors."""

from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.figure import Figure
from matplotlib.patches import Patch

_INK, _GRID, _PALE = "#334155", "#e2e8f0", "#94a3b8"


@dataclass(frozen=True, slots=True)
class Bar:
    """One of them."""

    label: str
    gain: float
    error: float  #: one standard error; two are drawn
    kind: str


def gain_bars(bars: Sequence[Bar], colours: dict[str, str], *, title: str, axis: str) -> Figure:
    """The first on top.

    Args:
        bars: in the order from the top.
        colours: of each kind; a legend names those that occur.
        title: of the picture.
        axis: what a gain is, and what its error is over.
    """
    rows = [*reversed(bars)]
    figure = Figure(figsize=(7.6, 1.4 + 0.24 * len(rows)), layout="constrained")
    axes = figure.add_subplot()
    axes.axvline(0, color=_INK, linewidth=0.8)
    axes.barh(
        [row.label for row in rows],
        [row.gain for row in rows],
        xerr=[2 * row.error for row in rows],
        color=[colours[row.kind] for row in rows],
        error_kw={"ecolor": _INK, "elinewidth": 0.8, "capsize": 2},
        height=0.7,
    )
    axes.margins(y=0.01)
    shown = [kind for kind in colours if any(row.kind == kind for row in rows)]
    axes.legend([Patch(color=colours[kind]) for kind in shown], shown, frameon=False, fontsize=8, loc="best")
    axes.set_title(title, loc="left", color=_INK, fontsize=10)
    axes.tick_params(labelsize=8, colors=_INK)
    axes.grid(axis="x", color=_GRID)
    axes.set_axisbelow(True)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(_PALE)
    figure.supxlabel(axis, color=_INK, fontsize=9)  # of the whole picture: names are long, and the axes narrow
    return figure
