"""What the gate believes of a log: fifty healthy windows of simulated ads, and each fault planted into them."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from contracts.app import App, load_app
from flows import ingest
from nodes.delayed import judged
from nodes.example_log import ExampleDirectory
from nodes.gate import Fault
from nodes.gate.watch import Watch
from nodes.simulate import simulate

WINDOW = 512
WINDOWS = 50


@pytest.fixture(scope="module")
def app() -> App:
    return load_app("adsim", {"publish": {"gate": {"window_rows": WINDOW}}})


@pytest.fixture(scope="module")
def healthy(app: App, tmp_path_factory: pytest.TempPathFactory) -> pl.DataFrame:
    """The example log of simulated traffic, fifty windows of it."""
    folder = tmp_path_factory.mktemp("adsim")
    simulate(folder, impressions=(WINDOWS + 2) * WINDOW, seed=3)
    ingest.run(app, [folder / "impressions.ndjson"], [folder / "clicks.ndjson"], folder / "ingest")
    log = ExampleDirectory(Path(folder / "ingest" / "examples"))
    return pl.concat([batch.frame for batch in log.read(0, app.schema_id)]).head(WINDOWS * WINDOW)


def faults(app: App, frame: pl.DataFrame, cut: int = 100, watch: Watch | None = None) -> dict[int, Fault]:
    """Row -> what is not believed once that row has been looked at, where the word changes."""
    watch, found, last = watch or Watch(app), {}, None
    for start in range(0, frame.height, cut):
        rows = frame.slice(start, cut)
        at, label, sign = judged(rows, app.config.labels.mode)
        watch.observe(rows, label, np.ones(rows.height)[at] * sign)
        if watch.fault is not None and watch.fault != last:
            found[start + rows.height] = watch.fault
        last = watch.fault
    return found


@pytest.mark.parametrize("cut", [64, 100, 700])
def test_fifty_healthy_windows_are_believed_however_they_are_cut(app: App, healthy: pl.DataFrame, cut: int) -> None:
    assert healthy.height == WINDOWS * WINDOW
    assert faults(app, healthy, cut) == {}


FAULTS = {
    "flipped labels": ("labels", {"label": 1 - pl.col("label")}),
    "clicks that do not come": ("labels", {"label": pl.lit(0, pl.UInt8)}),
    "a frozen id": ("feature", {"ad": pl.lit(77, pl.UInt32)}),
    "a frozen number": ("feature", {"bid_level": pl.lit(0.25, pl.Float32)}),
    "an id that is not sent": ("feature", {"campaign": pl.lit(0, pl.UInt32)}),
    "a history that is not sent": ("feature", {"clicked_ads": pl.lit([], pl.List(pl.UInt32))}),
}


@pytest.mark.parametrize("name", FAULTS)
@pytest.mark.parametrize("begin", [20 * WINDOW, 20 * WINDOW + 77])
def test_each_planted_fault_is_seen_before_long_and_no_sooner(
    app: App, healthy: pl.DataFrame, name: str, begin: int
) -> None:
    kind, columns = FAULTS[name]
    at = pl.int_range(pl.len())
    bad = (at >= begin) & (at < begin + 6 * WINDOW)
    planted = healthy.with_columns(
        pl.when(bad).then(value).otherwise(pl.col(column)).cast(healthy[column].dtype).alias(column)
        for column, value in columns.items()
    )
    found = faults(app, planted, 64)
    first = min(found)
    assert begin < first <= begin + (2 if kind == "feature" or "flipped" in name else 6) * WINDOW
    assert {fault.kind for fault in found.values()} == {kind}


def test_what_is_not_believed_is_no_reference_and_wears_off(app: App, healthy: pl.DataFrame) -> None:
    watch = Watch(app)
    begin, end = 20 * WINDOW, 30 * WINDOW
    at = pl.int_range(pl.len())
    label = pl.when((at >= begin) & (at < end)).then(1 - pl.col("label")).otherwise("label")
    planted = healthy.with_columns(label=label)
    faults(app, planted.head(end), 64, watch)
    assert watch.fault is not None
    assert watch.reference_rate == pytest.approx(healthy["label"].mean(), abs=0.02), "ten bad windows did not shift it"
    faults(app, planted.slice(end, 3 * WINDOW), 64, watch)
    assert watch.fault is not None, "candidates of now have learnt it"
    faults(app, planted.slice(end + 3 * WINDOW, 2 * WINDOW), 64, watch)
    assert watch.fault is None


def test_who_publishes_by_force_makes_the_new_traffic_the_reference(app: App, healthy: pl.DataFrame) -> None:
    often = healthy.with_columns(label=pl.when(pl.int_range(pl.len()) % 3 == 0).then(1).otherwise("label"))
    watch = Watch(app)
    faults(app, healthy.head(10 * WINDOW), 64, watch)
    faults(app, often.slice(10 * WINDOW, 5 * WINDOW), 64, watch)
    assert watch.fault is not None
    watch.anew()
    assert faults(app, often.slice(15 * WINDOW, 20 * WINDOW), 64, watch) == {}
    assert watch.reference_rate == pytest.approx(often["label"].mean(), abs=0.03)


def test_labels_that_are_corrected_later_have_no_rate_before_a_whole_wait(healthy: pl.DataFrame) -> None:
    late = load_app("adsim", {"labels": {"mode": "fake_negative"}, "publish": {"gate": {"window_rows": WINDOW}}})
    start_ms = int(healthy["event_time_ms"][0])
    early = healthy.with_columns(event_time_ms=pl.lit(start_ms)).head(8 * WINDOW)
    clicked = early.with_columns(label=pl.lit(1, pl.UInt8), role=pl.lit(0, pl.UInt8))
    watch = Watch(late)
    assert faults(late, clicked, 64, watch) == {}
    after = clicked.with_columns(event_time_ms=pl.lit(start_ms + 600_000)).tail(2 * WINDOW)
    assert {fault.kind for fault in faults(late, after, 64, watch).values()} == {"labels"}
