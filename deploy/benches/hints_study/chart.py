"""The comparison as a picture: what each method gains over the light net alone."""

from typing import Any

from matplotlib.figure import Figure
from matplotlib.patches import Patch

_INK, _GRID, _PALE = "#334155", "#e2e8f0", "#94a3b8"
_COLOURS = {"yardstick": "#0072B2", "hint": "#56B4E9", "feature hint": "#94a3b8", "scheme": "#D55E00"}


def draw(methods: list[dict[str, Any]], title: str) -> Figure:
    """Bars of the paired difference in logloss with two standard errors over seeds, the best on top.

    Args:
        methods: rows of the table; those without a difference are left out.
        title: of the picture.
    """
    rows = sorted((row for row in methods if "d_logloss" in row), key=lambda row: -float(row["d_logloss"]))
    figure = Figure(figsize=(7.6, 1.4 + 0.24 * len(rows)), layout="constrained")
    axes = figure.add_subplot()
    axes.axvline(0, color=_INK, linewidth=0.8)
    axes.barh(
        [str(row["method"]) for row in rows],
        [1e4 * row["d_logloss"] for row in rows],
        xerr=[2e4 * row["d_logloss_se"] for row in rows],
        color=[_COLOURS[row["kind"]] for row in rows],
        error_kw={"ecolor": _INK, "elinewidth": 0.8, "capsize": 2},
        height=0.7,
    )
    axes.margins(y=0.01)
    shown = {str(row["kind"]): _COLOURS[row["kind"]] for row in reversed(rows)}
    axes.legend(
        [Patch(color=colour) for colour in shown.values()], [*shown], frameon=False, fontsize=8, loc="lower left"
    )
    axes.set_xlabel("logloss over the light net alone, x 1e-4 (less is better); two standard errors over seeds")
    axes.set_title(title, loc="left", color=_INK, fontsize=10)
    axes.tick_params(labelsize=8, colors=_INK)
    axes.grid(axis="x", color=_GRID)
    axes.set_axisbelow(True)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(_PALE)
    return figure
