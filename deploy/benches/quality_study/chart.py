"""The study as a picture: what each model gains over the light net alone, against what it costs to serve."""

from typing import Any

from matplotlib.figure import Figure

from deploy.benches.gain_bars import Bar, gain_bars
from deploy.benches.quality_study.variants import BOOSTER, ROCKET

_COLOURS = {"rocket": "#0072B2", "booster": "#D55E00", "light net or peer": "#94a3b8"}


def draw(models: list[dict[str, Any]], title: str) -> Figure:
    """Bars of the paired difference in AUC with two standard errors over users, the best on top.

    Args:
        models: rows of `Study.table`; those that are compared with nothing are left out.
        title: of the picture.
    """
    rows = sorted((row for row in models if row.get("d_auc") is not None), key=lambda row: -float(row["d_auc"]))
    bars = [
        Bar(_label(row), 1e4 * row["d_auc"], 1e4 * row["d_auc_se_users"], kind_of(str(row["model"]))) for row in rows
    ]
    axis = "AUC over the model that it is compared with, x 1e-4; two standard errors over users"
    return gain_bars(bars, _COLOURS, title=title, axis=axis)


def _label(row: dict[str, Any]) -> str:
    count = row.get("multiplications")
    return f"{row['model']}  ({count:,})" if count else str(row["model"])


def kind_of(name: str) -> str:
    """What a row of the table is.

    >>> [kind_of(name) for name in ("rocket", "no gate: booster", "booster sees profile only")]
    ['rocket', 'booster', 'light net or peer']
    """
    if name == BOOSTER or name.endswith(": booster"):
        return "booster"
    return "rocket" if name == ROCKET else "light net or peer"
