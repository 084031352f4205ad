"""What each term of the loss did to each net over training, for the report."""

import json
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path

from jinja2 import Environment, StrictUndefined

from contracts.errors import CorruptError
from flows import charts
from model.checkpoint_manifest import names, read_declared, read_manifest

_TERMS = {"light": "own label", "booster": "label", "hint": "hint", "feature": "features"}
_SAYS = {
    "hint_share": "hints, of the light net's gradient",
    "hint_weight": "lambda",
    "booster_lead": "booster's lead, nats a row",
    "loss_light": "loss of the light net",
    "loss_booster": "loss of the booster",
    "hint": "hint, before lambda",
    "feature": "features, before their lambda",
}
Look = Mapping[str, float]


def watched(checkpoints: Path) -> list[Look]:
    """The history in the newest whole checkpoint of a trainer; nothing where there is none."""
    for path in (checkpoints / name for name in names(checkpoints)):
        try:
            state = read_declared(path, "state.json", read_manifest(path).files["state.json"])
            history: list[Look] = json.loads(state)["trainer"]["watch"]["history"]
        except (CorruptError, KeyError):
            continue
        return history
    return []


def watch_section(history: Sequence[Look]) -> str:
    """The part of a page that shows them; empty where nothing was watched.

    Args:
        history: as `model.watch` keeps it.
    """
    if not history:
        return ""
    template = Environment(autoescape=True, undefined=StrictUndefined).from_string(
        (files("flows") / "watch_report.html.j2").read_text(encoding="utf-8")
    )
    return template.render(charts=watch_charts(history), rows=watch_rows(history))


def watch_charts(history: Sequence[Look]) -> dict[str, str]:
    """Caption -> drawing; nothing where training was not watched, or too shortly.

    Args:
        history: as `model.watch` keeps it.
    """
    if len(history) < 2:
        return {}
    at = [look["rows"] for look in history]

    def lines(names: Mapping[str, str], label: str, *, from_zero: bool = True) -> str:
        shown = {said: [look.get(name) for look in history] for name, said in names.items()}
        told = {said: values for said, values in shown.items() if any(value is not None for value in values)}
        return charts.lines(at, told, "rows learnt", label, from_zero=from_zero) if told else ""

    of_light = {f"grad_light_{term}": said for term, said in _TERMS.items() if term != "booster"}
    tables = [name.removeprefix("new_") for name in sorted(history[-1]) if name.startswith("new_")]
    drawn = {
        "Length of the gradient on the light net, by term": lines(of_light, "length"),
        "Rows looked up that had never moved": lines({f"new_{name}": f"{name} table" for name in tables}, "share"),
        "Root mean square of the embeddings looked up": lines(
            {f"rms_{name}": f"{name} table" for name in tables}, "rms"
        ),
    }
    if "loss_booster" in history[-1]:
        drawn["Hints: their share of the light net's gradient"] = lines({"hint_share": "share"}, "share")
        drawn["Booster's lead: running logloss of the light net less its own"] = lines(
            {"booster_lead": "lead"}, "nats a row", from_zero=False
        )
    return {caption: drawing for caption, drawing in drawn.items() if drawing}


def watch_rows(history: Sequence[Look]) -> list[tuple[str, str]]:
    """The newest look in words and numbers."""
    newest = history[-1] if history else {}
    rows = [(said, f"{newest[name]:.4f}") for name, said in _SAYS.items() if name in newest]
    for name, value in sorted(newest.items()):  # what a checkpoint gives back is sorted
        kind, _, rest = name.partition("_")
        if kind == "grad" and not rest.startswith("norm_"):
            net, _, term = rest.partition("_")
            rows.append((f"gradient of {_TERMS.get(term, term)} on {net}", f"{value:.2e}"))
    return rows
