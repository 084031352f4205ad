"""The study as a picture: what each model gains over the light net alone, against what it costs to serve."""

from typing import Any

from matplotlib.figure import Figure

_INK, _GRID, _PALE = "#334155", "#e2e8f0", "#94a3b8"
_ROCKET, _TEACHER, _OTHER = "#0072B2", "#D55E00", "#94a3b8"


def draw(models: list[dict[str, Any]], title: str) -> Figure:
    """Bars of the paired difference in AUC with two standard errors over users, the best on top.

    Args:
        models: rows of `Study.table`; those that are compared with nothing are left out.
        title: of the picture.
    """
    rows = sorted((row for row in models if row.get("d_auc") is not None), key=lambda row: float(row["d_auc"]))
    figure = Figure(figsize=(7.6, 1.2 + 0.26 * len(rows)), layout="constrained")
    axes = figure.add_subplot()
    axes.axvline(0, color=_INK, linewidth=0.8)
    axes.barh(
        [_label(row) for row in rows],
        [1e4 * row["d_auc"] for row in rows],
        xerr=[2e4 * row["d_auc_se_users"] for row in rows],
        color=[_colour(str(row["model"])) for row in rows],
        error_kw={"ecolor": _INK, "elinewidth": 0.8, "capsize": 2},
        height=0.7,
    )
    axes.set_xlabel("AUC over the model that it is compared with, x 1e-4; two standard errors over users", color=_INK)
    axes.set_title(title, loc="left", color=_INK, fontsize=10)
    axes.tick_params(labelsize=8, colors=_INK)
    axes.grid(axis="x", color=_GRID)
    axes.set_axisbelow(True)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(_PALE)
    return figure


def _label(row: dict[str, Any]) -> str:
    count = row.get("multiplications")
    return f"{row['model']}  ({count:,})" if count else str(row["model"])


def _colour(name: str) -> str:
    if "booster" in name:
        return _TEACHER
    return _ROCKET if name == "rocket" else _OTHER
