"""The page of a live run: how fresh its versions were, how requests were answered, and where every event went."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.resources import files
from typing import Any

import polars as pl
from jinja2 import Environment, StrictUndefined

from contracts.app import App
from flows import charts
from flows.run_folder import RunFolder
from flows.watch_report import watch_section, watched
from nodes.files import write_whole
from nodes.freshness import Published, read_versions

_FATES = ("read", "accepted", "duplicate", "late", "orphan", "dead_lettered")
_EXACT = "each met the fate that it must, and each example stands in the log once"
_SHOWN = 40  # versions in the table: the first and the last half of it


def write_live_report(run: RunFolder, app: App, asked: pl.DataFrame) -> None:
    """Write report.html beside the summary that it shows.

    Args:
        run: with summary.json, versions, and checkpoints where there are any.
        app: whose run it was.
        asked: one row a request: asked_ms, answered_ms, model_version.

    Raises:
        ContractError: there is no summary.
    """
    summary, versions = run.read_json("summary.json"), read_versions(run.versions)
    template = Environment(autoescape=True, undefined=StrictUndefined).from_string(
        (files("flows") / "live_report.html.j2").read_text(encoding="utf-8")
    )
    found, served_ms = summary["audit"], _first_served_ms(asked)
    page = template.render(
        summary=summary,
        style=(files("flows") / "report.css").read_text(encoding="utf-8"),
        description=app.config.description,
        began=_when(versions[0].created_ms) if versions else "no version was published",
        cards=_cards(summary),
        charts={"fresh": _fresh(versions), "answers": _answers(asked)},
        versions=[_row(one, served_ms.get(one.version)) for one in _some(versions)],
        watch=watch_section(watched(run.checkpoints)),
        held=[_held(one) for one in summary.get("held", [])],
        verdict="each met the fate that it must, each example stands in the log once"
        if found["exact"]
        else "NOT exact",
        fate_names=[name.replace("_", " ") for name in _FATES],
        fate_rows=[(name, [f"{row.get(fate, 0):,}" for fate in _FATES]) for name, row in found["streams"].items()],
        example_note=_example_note(found),
        footer=f"Peak memory of the run's processes: {summary['peak_rss_mb']:,.0f} MB.",
    )
    write_whole(run.report, page.encode())


def _cards(summary: Mapping[str, Any]) -> list[dict[str, str]]:
    live, requests = summary["live"], summary["requests"]
    return [
        _card("impressions a second", f"{live['impressions_per_s']:,.0f}", f"for {live['seconds']:.0f} s"),
        _card("freshness after wait", _seconds(live["freshness_after_wait_s_p50"]), "median over examples"),
        _card("99th percentile", _seconds(live["freshness_after_wait_s_p99"]), "of the same"),
        _card("waiting for the gate", _seconds(live["gate_wait_s_p50"]), "part of it, median over versions"),
        _card("versions", f"{live['versions']}", f"at most {_seconds(live['longest_s_between_versions'])} apart"),
        _card("lost / doubled", f"{live['lost']} / {live['doubled']}", "examples, counted from the topics"),
        _card("requests", f"{requests['requests']:,}", f"{requests['unanswered']} unanswered"),
        _card(
            "answered within",
            f"{requests['answer_ms_p50'] or 0:.0f} ms",
            f"p99 {requests['answer_ms_p99'] or 0:.0f} ms",
        ),
    ]


def _card(name: str, value: str, note: str) -> dict[str, str]:
    return {"name": name, "value": value, "note": note}


def _seconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f} s"


def _fresh(versions: Sequence[Published]) -> str:
    timed = [one for one in versions if one.wait_s_p50 is not None]
    start = timed[0].created_ms if timed else 0
    at = [(one.created_ms - start) / 1000 for one in timed]
    lines = {"p50": [one.wait_s_p50 for one in timed], "p99": [one.wait_s_p99 for one in timed]}
    return charts.lines(at, lines, "seconds since the first version", "seconds after wait")


def _answers(asked: pl.DataFrame) -> str:
    took = asked.drop_nulls("answered_ms").with_columns(
        second=(pl.col("asked_ms") - pl.col("asked_ms").min()) // 1000, took=pl.col("answered_ms") - pl.col("asked_ms")
    )
    each = took.group_by("second").agg(p50=pl.col("took").median(), p99=pl.col("took").quantile(0.99)).sort("second")
    lines = {"p50": each["p50"].to_list(), "p99": each["p99"].to_list()}
    return charts.lines(each["second"].to_list(), lines, "seconds since the first request", "milliseconds")


def _some(versions: Sequence[Published]) -> Sequence[Published]:
    return versions if len(versions) <= _SHOWN else [*versions[: _SHOWN // 2], *versions[-_SHOWN // 2 :]]


def _row(one: Published, served_ms: int | None) -> list[str]:
    learn_s = None if one.gate_wait_s is None else one.after_wait_s - one.gate_wait_s
    served_s = None if served_ms is None else max(served_ms - one.created_ms, 0) / 1000
    return [
        str(one.version), _when(one.created_ms), f"{one.position:,}", f"{one.rows:,}", _seconds(learn_s),
        _seconds(one.gate_wait_s), _seconds(one.after_wait_s), _seconds(served_s), _seconds(one.wait_s_p50),
        _seconds(one.wait_s_p99),
    ]  # fmt: skip


def _first_served_ms(asked: pl.DataFrame) -> dict[int, int]:
    """Version -> when its first answer was read."""
    answered = asked.drop_nulls(["answered_ms", "model_version"])
    first = answered.group_by("model_version").agg(pl.col("answered_ms").min())
    return dict(zip(first["model_version"].to_list(), first["answered_ms"].to_list(), strict=True))


def _held(one: Mapping[str, Any]) -> list[str]:
    return [_when(one["at_ms"]), f"{one['position']:,}", one["kind"], one["reason"]]


def _example_note(found: Mapping[str, Any]) -> str:
    return (
        f"{found['examples']:,} examples: {found.get('trained', 0):,} learnt, {found.get('pending', 0):,} pending (no "
        f"whole minibatch); {found['lost']} lost, {found['doubled']} doubled, {found['mislabelled']} mislabelled."
    )


def _when(at_ms: int) -> str:
    return f"{datetime.fromtimestamp(at_ms / 1000, UTC):%Y-%m-%d %H:%M:%S} UTC"
