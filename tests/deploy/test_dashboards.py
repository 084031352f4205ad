"""The Grafana dashboard asks for metrics that exist, and for every number that a scorer tells."""

import ast
import json
import re
from pathlib import Path
from typing import Any

import pytest

from nodes.fakes import ManualClock
from nodes.metrics_http import Metrics
from nodes.serve_metrics import ServeMetrics
from nodes.train_metrics import TrainMetrics

_ROOT = Path(__file__).resolve().parents[2]
_DASHBOARD = _ROOT / "deploy" / "dashboards" / "rocket.json"
_METRIC = re.compile(r"\b(?:ctr|process)_[a-z0-9_]+")


@pytest.fixture(scope="module")
def dashboard() -> dict[str, Any]:
    return json.loads(_DASHBOARD.read_text())


def declared(path: Path) -> set[str]:
    """Metrics that a module declares by their whole names."""
    calls = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call) and node.args]
    return {
        str(call.args[0].value)
        for call in calls
        if isinstance(call.func, ast.Attribute)
        and call.func.attr in {"counter", "gauge", "histogram"}
        and isinstance(call.args[0], ast.Constant)
    }


def existing() -> set[str]:
    """Every sample that a long-running command tells, by name."""
    with Metrics("serve") as serve, Metrics("train") as train:
        ServeMetrics(serve, ManualClock())
        TrainMetrics(train)
        train.listen(0)
        of_process = {sample.name for family in train.registry.collect() for sample in family.samples}
        ingest = declared(_ROOT / "deploy" / "commands" / "ingest.py")
        return {*serve.names(), *train.names(), *ingest, *of_process}


def asked(dashboard: dict[str, Any]) -> dict[str, str]:
    """Metric -> title of a panel that asks for it."""
    return {
        name: panel["title"]
        for panel in dashboard["panels"]
        for target in panel.get("targets", [])
        for name in _METRIC.findall(target["expr"])
    }


def test_every_metric_that_a_panel_asks_for_exists(dashboard: dict[str, Any]) -> None:
    there = existing()
    assert {name: panel for name, panel in asked(dashboard).items() if name not in there} == {}


def test_every_metric_of_a_scorer_has_its_panel(dashboard: dict[str, Any]) -> None:
    with Metrics("serve") as metrics:
        ServeMetrics(metrics, ManualClock())
        families = {family.name for family in metrics.registry.collect()}
    assert [name for name in families if not any(each.startswith(name) for each in asked(dashboard))] == []


def test_panels_are_numbered_named_and_do_not_overlap(dashboard: dict[str, Any]) -> None:
    panels = dashboard["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    cells = [
        (x, y)
        for panel in panels
        for x in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])
    ]
    assert len(cells) == len(set(cells))
    assert all(panel["title"] and (panel["type"] == "row" or panel["description"]) for panel in panels)
