"""The comparison as a picture: what each method gains over the light net alone."""

from typing import Any

from matplotlib.figure import Figure

from deploy.benches.gain_bars import Bar, gain_bars

_COLOURS = {"yardstick": "#0072B2", "hint": "#56B4E9", "feature hint": "#94a3b8", "scheme": "#D55E00"}


def draw(methods: list[dict[str, Any]], title: str) -> Figure:
    """Bars of the paired difference in logloss with two standard errors over seeds, the best on top.

    Args:
        methods: rows of the table; those without a difference are left out.
        title: of the picture.
    """
    rows = sorted((row for row in methods if "d_logloss" in row), key=lambda row: float(row["d_logloss"]))
    bars = [Bar(str(r["method"]), 1e4 * r["d_logloss"], 1e4 * r["d_logloss_se"], str(r["kind"])) for r in rows]
    axis = "logloss over the light net alone, x 1e-4 (less is better); two standard errors over seeds"
    return gain_bars(bars, _COLOURS, title=title, axis=axis)
