"""The report's charts, each a function from figures to an SVG string (matplotlib)."""

import io
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

#: One colour a model, told apart by colour-blind readers too (Okabe and Ito).
COLOURS = {
    "light": "#0072B2",
    "booster": "#D55E00",
    "linear": "#7F7F7F",
    "truth": "#009E73",
    "prior": "#CC79A7",
}
_STYLE: Any = {
    "font.family": "sans-serif",
    "font.size": 9.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#94a3b8",
    "axes.labelcolor": "#334155",
    "xtick.color": "#475569",
    "ytick.color": "#475569",
    "axes.grid": True,
    "grid.color": "#e2e8f0",
    "svg.fonttype": "none",
    "svg.hashsalt": "rocket",
}


def _svg(figure: Figure) -> str:
    """The figure as an inline SVG element; the same figures give the same bytes."""
    sink = io.StringIO()
    figure.savefig(sink, format="svg", metadata={"Date": None, "Creator": None}, transparent=True)
    text = sink.getvalue()
    drawing = re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.DOTALL)
    return re.sub(r'width="([\d.]+)pt" height="[\d.]+pt"', r'width="100%" style="max-width:\1pt"', drawing, count=1)


def _axes(width: float = 6.4, height: float = 3.0) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.add_subplot()


def _hours(rows: Sequence[Mapping[str, Any]]) -> list[float]:
    start = min(float(row["window_ms"]) for row in rows)
    return [(float(row["window_ms"]) - start) / 3_600_000 for row in rows]


def curves(rows: Sequence[Mapping[str, Any]], metric: str, label: str) -> str:
    """A progressive metric over event time, one line a model.

    Args:
        rows: one a window: `window_ms` and, for each model, a mapping with `metric`.
        metric: "logloss", "auc" or "calibration".
        label: of the vertical axis.
    """
    with mpl.rc_context(_STYLE):
        figure, axes = _axes()
        hours = _hours(rows)
        for model in ("linear", "light", "booster"):
            points = [
                (hour, row[model][metric])
                for hour, row in zip(hours, rows, strict=True)
                if row.get(model) and row[model].get(metric) is not None
            ]
            if points:
                axes.plot(*zip(*points, strict=True), color=COLOURS[model], label=model, linewidth=1.6)
        if metric == "calibration":
            axes.axhline(1.0, color="#94a3b8", linewidth=1, linestyle="--")
            axes.set_ylim(0.5, 1.5)
        first = datetime.fromtimestamp(min(float(row["window_ms"]) for row in rows) / 1000, UTC)
        axes.set_xlabel(f"hours of event time since {first:%Y-%m-%d %H:%M} UTC")
        axes.set_ylabel(label)
        axes.legend(frameon=False, ncols=3, loc="best")
        return _svg(figure)


def calibration(bins: Mapping[str, Sequence[Mapping[str, float]]]) -> str:
    """Observed against predicted CTR, one point a bin of equal size, one line a model."""
    with mpl.rc_context(_STYLE):
        figure, axes = _axes(4.6, 3.6)
        top = 0.0
        for model, points in bins.items():
            predicted, observed = [p["predicted"] for p in points], [p["observed"] for p in points]
            top = max([top, *predicted, *observed])
            axes.plot(predicted, observed, "o-", color=COLOURS.get(model), label=model, markersize=3.5, linewidth=1)
        axes.plot([0, top], [0, top], color="#94a3b8", linestyle="--", linewidth=1)
        axes.set_xlabel("predicted CTR")
        axes.set_ylabel("observed CTR")
        axes.legend(frameon=False)
        return _svg(figure)


def models(figures: Mapping[str, Mapping[str, Any]], metric: str, label: str) -> str:
    """One bar a model, its value written beside it; the axis begins near the smallest, and says so by its ticks."""
    with mpl.rc_context(_STYLE):
        rows = [(name, row[metric]) for name, row in figures.items() if row.get(metric) is not None]
        figure, axes = _axes(4.6, 0.5 + 0.42 * len(rows))
        values = [value for _, value in rows]
        spread = (max(values) - min(values)) or max(values)
        left = max(0.0, min(values) - 0.35 * spread)
        axes.barh(
            [name for name, _ in rows], [v - left for v in values], left=left, color=[COLOURS.get(n) for n, _ in rows]
        )
        for index, value in enumerate(values):
            axes.text(value, index, f" {value:.4f}", va="center", color="#334155")
        axes.set_xlim(left, max(values) + 0.25 * spread)
        axes.invert_yaxis()
        axes.grid(visible=False)
        axes.set_xlabel(label)
        return _svg(figure)


def bars(figures: Mapping[str, float], label: str, *, logarithmic: bool = False) -> str:
    """Horizontal bars with their values, in the order given."""
    with mpl.rc_context(_STYLE):
        figure, axes = _axes(5.2, 0.6 + 0.36 * max(len(figures), 1))
        axes.barh(list(figures), list(figures.values()), color="#0072B2")
        if logarithmic:
            axes.set_xscale("log")
        for index, value in enumerate(figures.values()):
            axes.text(value, index, f" {value:,.0f}", va="center", color="#334155")
        axes.margins(x=0.2)
        axes.invert_yaxis()
        axes.grid(visible=False)
        axes.set_xlabel(label)
        return _svg(figure)


def lines(
    at: Sequence[float],
    values: Mapping[str, Sequence[float | None]],
    across: str,
    label: str,
    *,
    from_zero: bool = True,
) -> str:
    """One line a name over the same points.

    Args:
        at: places on the horizontal axis.
        values: name -> one value a place; None leaves a gap.
        across: label of the horizontal axis.
        label: of the vertical one.
        from_zero: the vertical axis begins at 0; else a line is drawn there.
    """
    with mpl.rc_context(_STYLE):
        figure, axes = _axes()
        for (name, line), colour in zip(values.items(), ("#0072B2", "#D55E00", "#009E73", "#7F7F7F"), strict=False):
            axes.plot(at, [float("nan") if y is None else y for y in line], color=colour, label=name, linewidth=1.4)
        if from_zero:
            axes.set_ylim(bottom=0)
        else:
            axes.axhline(0.0, color="#94a3b8", linewidth=1, linestyle="--")
        axes.set_xlabel(across)
        axes.set_ylabel(label)
        axes.legend(frameon=False, ncols=4, loc="best")
        return _svg(figure)
