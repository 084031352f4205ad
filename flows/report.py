"""One self-contained HTML page from a run's figures: no script, no outside host."""

from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.resources import files
from typing import Any

import polars as pl
from jinja2 import Environment, StrictUndefined

from flows import charts
from flows.run_folder import RunFolder
from flows.watch_report import watch_section
from nodes.files import write_whole

_METRICS = ("auc", "gauc", "logloss", "expected_logloss", "ne", "calibration")
_FATES = ("read", "accepted", "duplicate", "late", "orphan", "dead_lettered")


def write_report(run: RunFolder) -> None:
    """Write report.html beside the figures that it shows.

    Raises:
        ContractError: a stage's figures are missing.
    """
    summary, evaluation = run.read_json("summary.json"), run.read_json("evaluation.json")
    train, setup = run.read_json("train.json"), run.read_json("run.json")
    template = Environment(autoescape=True, undefined=StrictUndefined).from_string(
        (files("flows") / "report.html.j2").read_text(encoding="utf-8")
    )
    page = template.render(
        summary=summary,
        style=(files("flows") / "report.css").read_text(encoding="utf-8"),
        description=setup["description"],
        cut=_when(setup["cut_ms"]),
        cards=_cards(summary),
        colours=charts.COLOURS,
        metric_names=[name.replace("_", " ") for name in _shown(summary["test"])],
        test_rows=[
            (model, [_number(row.get(name)) for name in _shown(summary["test"])])
            for model, row in summary["test"].items()
        ],
        quality_caption=_quality_metric(summary["test"])[1],
        segment_rows=[_segment_row(row) for row in evaluation["segments"]],
        charts=_charts(run, summary, evaluation, train, setup),
        watch=watch_section(train.get("watch", [])),
        versions=[_version(decision) for decision in train["decisions"]],
        checkpoint_note=_checkpoint_note(summary, train),
        fate_names=[name.replace("_", " ") for name in _FATES],
        fate_rows=[
            (stream, [f"{row.get(name, 0):,}" for name in _FATES]) for stream, row in setup["ingest"]["streams"].items()
        ],
        example_note=_example_note(summary),
        stage_rows=[
            (name, f"{stage['rows']:,}", f"{stage['seconds']:.1f}", f"{stage['cpu_seconds']:.1f}")
            for name, stage in setup["stages"].items()
        ],
        footer=f"Peak memory of the whole process tree: {summary['peak_rss_mb']:,.0f} MB.",
    )
    write_whole(run.report, page.encode())


def _shown(test: Mapping[str, Mapping[str, Any]]) -> list[str]:
    return [name for name in _METRICS if any(row.get(name) is not None for row in test.values())]


def _quality_metric(test: Mapping[str, Mapping[str, Any]]) -> tuple[str, str]:
    if any(row.get("expected_logloss") is not None for row in test.values()):
        return "expected_logloss", "Expected logloss under the true probabilities (lower is better, no label noise)"
    return "logloss", "Logloss on the held-out part (lower is better)"


def _when(at_ms: float) -> str:
    return f"{datetime.fromtimestamp(at_ms / 1000, UTC):%Y-%m-%d %H:%M} UTC"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def _cards(summary: Mapping[str, Any]) -> list[dict[str, str]]:
    test, rows, serve = summary["test"], summary["rows"], summary["serve"]
    light = test["light"]
    beside = " · ".join(
        f"{name} {_number(test[name]['auc'])}" for name in ("linear", "booster", "truth") if name in test
    )
    return [
        {"name": "Light net, AUC", "value": _number(light["auc"]), "note": beside},
        {"name": "Calibration", "value": _number(light["calibration"]), "note": "predicted / observed clicks"},
        {
            "name": "Examples learnt",
            "value": f"{summary['train']['examples']:,}",
            "note": f"of {rows['examples']:,} settled",
        },
        {
            "name": "Versions published",
            "value": str(summary["train"]["versions"]),
            "note": f"{summary['train']['checkpoints']} checkpoints",
        },
        {
            "name": "Answer, median",
            "value": f"{serve['p50_us'] / 1000:.2f} ms",
            "note": f"p99 {serve['p99_us'] / 1000:.2f} ms, "
            f"{serve['candidates'] / max(serve['requests'], 1):.1f} ads a request",
        },
        {
            "name": "Scorer against torch",
            "value": f"{serve['max_abs_logit_diff']:.1e}",
            "note": "largest logit difference",
        },
    ]


def _charts(
    run: RunFolder,
    summary: Mapping[str, Any],
    evaluation: Mapping[str, Any],
    train: Mapping[str, Any],
    setup: Mapping[str, Any],
) -> dict[str, str]:
    rows = [row for row in train["curve"] if row.get("light", {"rows": 0})["rows"] >= 200]
    metric, caption = _quality_metric(summary["test"])
    judged = {name: row for name, row in summary["test"].items() if name != "prior"}
    drawn = {
        "quality": charts.models(judged, metric, caption.split(" (")[0].lower()),
        "calibration": charts.calibration(evaluation["calibration"]),
        "speed": charts.bars(
            {name: s["rows"] / max(s["seconds"], 1e-9) for name, s in setup["stages"].items() if s["rows"]},
            "rows a second",
            logarithmic=True,
        ),
        "logloss": charts.curves(rows, "logloss", "logloss") if rows else "",
        "auc": charts.curves(rows, "auc", "AUC") if rows else "",
        "drift": charts.curves(rows, "calibration", "predicted / observed") if rows else "",
    }
    reasons = _dead_reasons(run)
    drawn["dead"] = charts.bars(reasons, "dead letters") if reasons else ""
    return drawn


def _dead_reasons(run: RunFolder) -> dict[str, float]:
    folder = run.ingest / "dead_letters"
    if not any(folder.glob("*.parquet")):
        return {}
    counted = pl.scan_parquet(folder / "*.parquet").group_by("reason").len().sort("len", descending=True).collect()
    return {str(reason): float(count) for reason, count in counted.iter_rows()}


def _segment_row(row: Mapping[str, Any]) -> list[str]:
    def figure(model: str, metric: str) -> str:
        return _number(row[model].get(metric)) if model in row else "-"

    return [
        f"{row['segment']} = {row['value']}",
        f"{row['rows']:,}",
        f"{row['ctr']:.3f}",
        figure("light", "auc"),
        figure("booster", "auc"),
        figure("linear", "auc"),
        figure("light", "logloss"),
        figure("light", "calibration"),
    ]


def _version(decision: Mapping[str, Any]) -> dict[str, Any]:
    figures = decision["figures"]
    return {
        "published": decision["outcome"] == "published",
        "version": decision["version"] or "-",
        "position": f"{decision['position']:,}",
        "step": f"{decision['step']:,}",
        "logloss": _number(figures.get("logloss")),
        "live_logloss": _number(figures.get("live_logloss")),
        "calibration": _number(figures.get("calibration")),
        "reason": decision["reason"],
    }


def _checkpoint_note(summary: Mapping[str, Any], train: Mapping[str, Any]) -> str:
    return (
        f"{summary['train']['checkpoints']} checkpoints were written; training took "
        f"{summary['train']['wall_seconds']:.1f} s for {train['steps']:,} steps."
    )


def _example_note(summary: Mapping[str, Any]) -> str:
    rows = summary["rows"]
    return (
        f"Accepted impressions became {rows['examples']:,} examples ({rows['trained']:,} trained, "
        f"{rows['pending']:,} pending, "
        f"{rows['held_out']:,} held out), {rows['sampled_out']:,} were sampled out and {rows['waiting']:,} still wait."
    )
