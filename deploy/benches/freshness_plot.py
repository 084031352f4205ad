"""The picture of `rocket bench freshness`: what each sync interval gains over weights that are never synced."""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

Row = Mapping[str, Any]
_TITLES = {"adsim": "adsim, drifting by the hour", "kuairand": "KuaiRand, the last two days"}
_STYLE: Any = {
    "font.size": 9.0, "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "grid.color": "#e2e8f0",
}  # fmt: skip


def drawn(tables: Mapping[str, Sequence[Row]]) -> Figure:
    """One row of two panels a log: AUC and logloss gained over `never`, against the interval.

    Bars are two standard errors: over seeds, or over users where all seeds share the rows.
    """
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(8.4, 3.0 * len(tables)), layout="constrained")
        panels = figure.subplots(len(tables), 2, squeeze=False)
        for (name, table), (left, right) in zip(tables.items(), panels, strict=True):
            synced = [row for row in table if row["sync_min"] is not None]
            at = [row["sync_min"] for row in synced]
            for axes, figure_name, sign in ((left, "auc", 1.0), (right, "logloss", -1.0)):
                gain = [sign * row[f"{figure_name}_gain"] for row in synced]
                error = [2 * _error(row, figure_name) for row in synced]
                axes.errorbar(at, gain, yerr=error, marker="o", markersize=4, capsize=3, color="#0072B2")
                axes.axhline(0.0, color="#94a3b8", linestyle="--", linewidth=1)
                axes.set_xscale("log")
                axes.set_xticks(at, [row["sync"] for row in synced], rotation=30)
                axes.minorticks_off()
                axes.set_xlabel("sync interval")
                axes.set_title(_TITLES.get(name, name), loc="left", fontsize=9)
            users = "auc_gain_se_users" in table[0]
            left.set_xlabel(f"sync interval (bars: two standard errors over {'users' if users else 'seeds'})")
            left.set_ylabel("AUC gained over never syncing")
            right.set_ylabel("logloss saved (nats)")
        return figure


def _error(row: Row, figure_name: str) -> float:
    error = row.get(f"{figure_name}_gain_se_users", row[f"{figure_name}_gain_se"])
    return float(error or 0.0)
